// Unsigned numbers in the order of the elements, so that one comparison serves all types: integers with their sign flipped, floats by sign and magnitude
// with -0 as 0. Short elements stand in the top bits. Needs elements.glsl.
// 0 unsigned, 1 signed, 2 float with this infinity (its bits moved to the top; of float64 the high word).
layout(constant_id = 5) const uint kind = 0;
layout(constant_id = 6) const uint infinity = 0x7f800000u;
#if SIZE == 8
#define Key uvec2
Key keyOf(Bits b) {
  if (kind == 0) return b;
  if (kind == 1) return uvec2(b.x, b.y ^ 0x80000000u);
  if (b.x == 0 && b.y == 0x80000000u) b.y = 0;
  return (b.y & 0x80000000u) != 0 ? ~b : uvec2(b.x, b.y | 0x80000000u);
}
Bits bitsOf(Key k) {
  if (kind == 0) return k;
  if (kind == 1) return uvec2(k.x, k.y ^ 0x80000000u);
  return (k.y & 0x80000000u) != 0 ? uvec2(k.x, k.y ^ 0x80000000u) : ~k;
}
bool nanBits(Bits b) { return kind == 2 && ((b.y & 0x7fffffffu) > infinity || ((b.y & 0x7fffffffu) == infinity && b.x != 0)); }
bool keyLess(Key a, Key b) { return a.y < b.y || (a.y == b.y && a.x < b.x); }
#else
#define Key uint
const uint keyShift = 32 - 8 * SIZE;
Key keyOf(Bits raw) {
  uint b = raw << keyShift;
  if (kind == 0) return b;
  if (kind == 1) return b ^ 0x80000000u;
  if (b == 0x80000000u) b = 0;
  return (b & 0x80000000u) != 0 ? ~b : b | 0x80000000u;
}
Bits bitsOf(Key k) {
  if (kind == 0) return k >> keyShift;
  if (kind == 1) return (k ^ 0x80000000u) >> keyShift;
  return ((k & 0x80000000u) != 0 ? k ^ 0x80000000u : ~k) >> keyShift;
}
bool nanBits(Bits raw) { return kind == 2 && ((raw << keyShift) & 0x7fffffffu) > infinity; }
bool keyLess(Key a, Key b) { return a < b; }
#endif
const Key lowestKey = Key(0);
const Key highestKey = Key(0xffffffffu);
