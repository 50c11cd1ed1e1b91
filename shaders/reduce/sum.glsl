// Sums and products. FLOATING: in float32, to TO bytes; DOUBLE: in float64; otherwise wrapping integers of 32 or 64 bits, by words.
// Floats of two bytes: 1 bfloat16, 0 float16. Integers: 1 signed.
layout(constant_id = 5) const uint kind = 0;
#if defined(FLOATING)
#define Acc float
const Acc identity = rule == 0 ? 0.0 : 1.0;
Acc combine(Acc a, Acc b) { return rule == 0 ? a + b : a * b; }
#if SIZE == 2
Acc take(Bits b, uint k) { return halfFloat(b, kind == 1); }
#else
Acc take(Bits b, uint k) { return uintBitsToFloat(b); }
#endif
void give(OutPtr y, uint i, Acc a, uint divisor) {
  if (divisor != 1) a /= float(divisor);
#if TO == 2
  y.at[i] = uint16_t(halfBits(a, kind == 1));
#else
  y.at[i] = floatBitsToUint(a);
#endif
}
#elif defined(DOUBLE)
#define Acc double
const Acc identity = rule == 0 ? 0.0lf : 1.0lf;
Acc combine(Acc a, Acc b) { return rule == 0 ? a + b : a * b; }
Acc take(Bits b, uint k) { return packDouble2x32(b); }
void give(OutPtr y, uint i, Acc a, uint divisor) { y.at[i] = unpackDouble2x32(divisor == 1 ? a : a / double(divisor)); }
#elif SIZE == 8
#define Acc uvec2
const Acc identity = uvec2(rule == 0 ? 0 : 1, 0);
Acc combine(Acc a, Acc b) {
  if (rule == 0) {
    uint carry;
    const uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
  }
  uint high, low;
  umulExtended(a.x, b.x, high, low);
  return uvec2(low, high + a.x * b.y + a.y * b.x);
}
Acc take(Bits b, uint k) { return b; }
void give(OutPtr y, uint i, Acc a, uint divisor) { y.at[i] = a; }
#else
#define Acc uint
const Acc identity = rule == 0 ? 0 : 1;
Acc combine(Acc a, Acc b) { return rule == 0 ? a + b : a * b; }
Acc take(Bits b, uint k) { return kind == 1 ? uint(bitfieldExtract(int(b), 0, 8 * SIZE)) : b; }
void give(OutPtr y, uint i, Acc a, uint divisor) { y.at[i] = a; }
#endif
