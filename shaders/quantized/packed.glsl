// MLX's packing: integers of BITS bits as a little-endian stream in words. Eight of them that begin at a multiple of 8 fill BITS bytes and lie in
// at most two neighbouring words.
#define MASK ((1u << BITS) - 1u)

// Words of eight integers, number `unit` of a row of words that begins at `row`, shifted so that the first integer lies in the lowest bits.
uvec2 readPacked(U32Ptr w, uint row, uint unit, bool wide) {
#if BITS == 4
  return uvec2(w.at[row + unit], 0);
#elif BITS == 8
  if (wide) return U64Ptr(w).at[(row >> 1) + unit];
  return uvec2(w.at[row + 2 * unit], w.at[row + 2 * unit + 1]);
#elif BITS == 2
  return uvec2(w.at[row + (unit >> 1)] >> ((unit & 1) * 16), 0);
#else
  const uint byte = unit * BITS;
  const uint first = row + (byte >> 2);
  const uint shift = (byte & 3) * 8;
  const uint lo = w.at[first];
  // The second word is read only where the integers reach it: it may lie behind the array.
  const uint hi = w.at[first + (shift + 8 * BITS > 32 ? 1 : 0)];
  return shift == 0 ? uvec2(lo, hi) : uvec2((lo >> shift) | (hi << (32 - shift)), hi >> shift);
#endif
}
// Integer i, with its lowest bit at bit `to`; the bits around it are not cleared.
uint placed(uvec2 p, uint i, uint to) {
  const uint at = i * BITS;
  if (at + BITS <= 32) return at > to ? p.x >> (at - to) : p.x << (to - at);
  if (at >= 32) return at - 32 > to ? p.y >> (at - 32 - to) : p.y << (to - (at - 32));
  return ((p.x >> at) | (p.y << (32 - at))) << to;
}
uint integerOf(uvec2 p, uint i) { return placed(p, i, 0) & MASK; }

#ifdef FLOATS
float valueOf(uvec2 p, uint i) { return codeValue(integerOf(p, i)); }
#endif

// 1 + q / 2^BITS: the integer becomes the top of the fraction of a float, without the slow conversion from integers.
float fractionOf(uvec2 p, uint i) { return uintBitsToFloat((placed(p, i, 23 - BITS) & (MASK << (23 - BITS))) | 0x3f800000u); }
const float fractionScale = float(1u << BITS);

// Words of 32 integers, from word `at` on. `wide`: the array lies at a multiple of 16 bytes.
struct Packed32 {
  uint words[BITS];
};
Packed32 readPacked32(U32Ptr w, uint at, bool wide) {
  Packed32 p;
#if BITS % 4 == 0
  if (wide) {
    U128Ptr v = U128Ptr(w);
    [[unroll]] for (uint i = 0; i < BITS / 4; i++) {
      const uvec4 four = v.at[(at >> 2) + i];
      [[unroll]] for (uint j = 0; j < 4; j++) p.words[4 * i + j] = four[j];
    }
    return p;
  }
#elif BITS % 2 == 0
  if (wide) {
    U64Ptr v = U64Ptr(w);
    [[unroll]] for (uint i = 0; i < BITS / 2; i++) {
      const uvec2 two = v.at[(at >> 1) + i];
      p.words[2 * i] = two.x;
      p.words[2 * i + 1] = two.y;
    }
    return p;
  }
#endif
  [[unroll]] for (uint i = 0; i < BITS; i++) p.words[i] = w.at[at + i];
  return p;
}
// 1 + q / 2^BITS of integer i of 32.
float fractionOf32(Packed32 p, uint i) {
  const uint word = i * BITS / 32;
  const uint at = i * BITS % 32;
  const uint to = 23 - BITS;
  uint v;
  if (at + BITS > 32) v = ((p.words[word] >> at) | (p.words[word + (at + BITS > 32 ? 1 : 0)] << (32 - at))) << to;
  else v = at > to ? p.words[word] >> (at - to) : p.words[word] << (to - at);
  return uintBitsToFloat((v & (MASK << to)) | 0x3f800000u);
}
#ifdef FLOATS
float valueOf32(Packed32 p, uint i) { return codeValue((p.words[i * BITS / 32] >> (i * BITS % 32)) & MASK); }
#endif
