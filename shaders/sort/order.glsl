// Keys of elements and back, by the words of the push constants: `infinity`, the bits of the type's infinity (the high word when WIDE), and `form`: bytes of an
// element, 256 times 0 unsigned, 1 signed, 2 float, 65536 when the results are the output's elements (values, or indices with PAIRS) and not keys for a further pass.
#define bytes (form & 0xffu)
#define kind ((form >> 8) & 0xffu)
#define final (form >> 16)
#ifdef WIDE
const Key lastKey = uvec2(0xffffffffu);
bool above(Key a, Key b) { return a.y > b.y || (a.y == b.y && a.x > b.x); }
Key keyOf(uvec2 x) {
  if (kind == 0u) return x;
  if (kind == 1u) return uvec2(x.x, x.y ^ 0x80000000u);
  const uint size = x.y & 0x7fffffffu;
  if (size > infinity || (size == infinity && x.x != 0u)) return lastKey;
#ifdef PAIRS
  if ((size | x.x) == 0u) return uvec2(0u, 0x80000000u);
#endif
  return (x.y & 0x80000000u) != 0u ? ~x : uvec2(x.x, x.y | 0x80000000u);
}
uvec2 valueOf(Key k) {
  if (kind == 0u) return k;
  if (kind == 1u) return uvec2(k.x, k.y ^ 0x80000000u);
  // One key stands for all NaN; it becomes the quiet one.
  if (k == lastKey) return uvec2(0u, infinity | (infinity & (0u - infinity)) >> 1);
  return (k.y & 0x80000000u) != 0u ? uvec2(k.x, k.y ^ 0x80000000u) : ~k;
}
Key loadKey(uvec2 array, uint i) { return keyOf(Elements8(array).at[i]); }
void storeValue(uvec2 array, uint i, Key k) { Elements8(array).at[i] = valueOf(k); }
#else
const Key lastKey = 0xffffffffu;
bool above(Key a, Key b) { return a > b; }
#define top (0x80u << (8u * bytes - 8u))
#define all (0xffffffffu >> (32u - 8u * bytes))
Key keyOf(uint x) {
  if (kind == 0u) return x;
  if (kind == 1u) return x ^ top;
  const uint size = x & ~top;
  if (size > infinity) return lastKey;
#ifdef PAIRS
  if (size == 0u) return top;
#endif
  return (x & top) != 0u ? ~x & all : x | top;
}
uint valueOf(Key k) {
  if (kind == 0u) return k;
  if (kind == 1u) return k ^ top;
  if (k == lastKey) return infinity | (infinity & (0u - infinity)) >> 1;
  return (k & top) != 0u ? k ^ top : ~k & all;
}
Key loadKey(uvec2 array, uint i) {
  if (bytes == 1u) return keyOf(uint(Elements1(array).at[i]));
  if (bytes == 2u) return keyOf(uint(Elements2(array).at[i]));
  return keyOf(Elements4(array).at[i]);
}
void storeValue(uvec2 array, uint i, Key k) {
  const uint x = valueOf(k);
  if (bytes == 1u) Elements1(array).at[i] = uint8_t(x);
  else if (bytes == 2u) Elements2(array).at[i] = uint16_t(x);
  else Elements4(array).at[i] = x;
}
#endif
