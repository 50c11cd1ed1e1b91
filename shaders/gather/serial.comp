#version 460
// Scatters that combine elements of 64 bits. Updates may only meet along the innermost dimension; one invocation takes all of it, in order.
#define UNIT 8
#include "../copy/units.glsl"
#define TABLE
#define Source UnitPtr
#define Target UnitPtr
#include "walk.glsl"
layout(local_size_x = 256) in;
// 1 add, 2 multiply, 3 maximum, 4 minimum; code of the type: 4 uint64, 8 int64, 13 complex64.
layout(constant_id = 1) const uint mode = 1;
layout(constant_id = 2) const uint code = 8;

uvec2 integers(uvec2 a, uvec2 b) {
  if (mode == 1u) {
    uint carry;
    const uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
  }
  if (mode == 2u) {
    uint high;
    uint low;
    umulExtended(a.x, b.x, high, low);
    return uvec2(low, high + a.x * b.y + a.y * b.x);
  }
  const uint flip = code == 8u ? 0x80000000u : 0u;
  const bool greater = a.y == b.y ? a.x > b.x : (a.y ^ flip) > (b.y ^ flip);
  return greater == (mode == 3u) ? a : b;
}
bool isNan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }
// Complex numbers are ordered by real part, then imaginary part.
vec2 complexes(vec2 a, vec2 b) {
  if (mode == 1u) return a + b;
  if (mode == 2u) return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
  const bool greater = a.x > b.x || (a.x == b.x && a.y > b.y);
  return isNan(a.x) || isNan(a.y) || greater == (mode == 3u) ? a : b;
}

void main() {
  const uint row = rowOf(0u);
  if (row >= rows) return;
  const Walk w = walkTo(row);
  for (uint c = 0; c < inner; c++) {
    const int d = w.dst + int(c) * dstInner + movedBy(w, int(c));
    const uvec2 a = read(dst, d);
    const uvec2 b = read(src, w.src + int(c) * srcInner);
    uvec2 v;
    if (code == 13u) v = floatBitsToUint(complexes(uintBitsToFloat(a), uintBitsToFloat(b)));
    else v = integers(a, b);
    write(dst, d, v);
  }
}
