// a / b rounded to nearest even: the division of GPUs may be off by some units in the last place. Schoolbook division of the fractions, bit by bit.
float divide(float a, float b) {
  const uint ua = floatBitsToUint(a) & 0x7fffffffu;
  const uint ub = floatBitsToUint(b) & 0x7fffffffu;
  if (ua == 0 || ub == 0 || ua >= 0x7f800000u || ub >= 0x7f800000u) return a / b;
  uint ma = ua & 0x7fffffu;
  uint mb = ub & 0x7fffffu;
  int ea = int(ua >> 23);
  int eb = int(ub >> 23);
  if (ea == 0) {
    const int n = 23 - findMSB(ma);
    ma <<= n;
    ea = 1 - n;
  } else ma |= 0x800000u;
  if (eb == 0) {
    const int n = 23 - findMSB(mb);
    mb <<= n;
    eb = 1 - n;
  } else mb |= 0x800000u;
  int e = ea - eb + 127;
  if (ma < mb) {
    ma <<= 1;
    e--;
  }
  // 24 bits of the result, 2 more, and one that says whether anything is left.
  uint q = 0;
  for (int i = 0; i < 26; i++) {
    q <<= 1;
    if (ma >= mb) {
      ma -= mb;
      q |= 1u;
    }
    ma <<= 1;
  }
  q = (q << 1) | (ma != 0 ? 1u : 0u);
  if (e <= 0) {
    const uint n = uint(min(1 - e, 28));
    q = (q >> n) | ((q & ((1u << n) - 1u)) != 0 ? 1u : 0u);
  }
  const uint rest = q & 7u;
  q >>= 3;
  if (rest > 4 || (rest == 4 && (q & 1u) != 0)) q++;
  const uint bits = e > 0 ? min((uint(e - 1) << 23) + q, 0x7f800000u) : q;
  return uintBitsToFloat(bits | ((floatBitsToUint(a) ^ floatBitsToUint(b)) & 0x80000000u));
}
