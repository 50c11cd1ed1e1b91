#version 460
// Scatters that combine updates with what is there. Updates that meet do so in any order, by compare-and-swap of the 32-bit word that holds the element.
#define UNIT 4
#include "../copy/units.glsl"
#define T 0
#include "common/types.glsl"
#define Source uvec2
#define Target UnitPtr
#include "walk.glsl"
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer SignedPtr { int at[]; };
// Constants behind the walk's: 1 add, 2 multiply, 3 maximum, 4 minimum; code of the type (see indices.glsl; 0 bool, 9 float16, 10 float32, 12 bfloat16).
layout(constant_id = 1) const uint mode = 1;
layout(constant_id = 2) const uint code = 10;

const bool isFloat = code == 9u || code == 10u || code == 12u;
const bool isSigned = code >= 5u && code <= 7u;
const uint bytes = code <= 1u || code == 5u ? 1u : code == 2u || code == 6u || code == 9u || code == 12u ? 2u : 4u;

float toNumber(uint bits) { return code == 9u ? unpackHalf2x16(bits).x : code == 12u ? uintBitsToFloat(bits << 16) : uintBitsToFloat(bits); }
uint toBits(float x) { return code == 9u ? f16Bits(x) : code == 12u ? bf16Bits(x) : floatBitsToUint(x); }
bool isNan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }

// Elements as bits in the low end of a word. NaN wins in maximum and minimum.
uint combine(uint a, uint b) {
  if (code == 0u) return mode == 1u || mode == 3u ? a | b : a & b;
  if (isFloat) {
    const float x = toNumber(a);
    const float y = toNumber(b);
    if (mode == 1u) return toBits(x + y);
    if (mode == 2u) return toBits(x * y);
    return isNan(x) || (mode == 3u ? x > y : x < y) ? a : b;
  }
  if (mode == 1u) return a + b;
  if (mode == 2u) return a * b;
  const uint up = 32u - 8u * bytes;
  bool greater;
  if (isSigned) greater = int(a << up) > int(b << up);
  else greater = a > b;
  return greater == (mode == 3u) ? a : b;
}

uint load(int i) {
  if (bytes == 1u) return uint(Index1(addressOf(src, i, 0)).at[0]);
  if (bytes == 2u) return uint(Index2(addressOf(src, i, 1)).at[0]);
  return Index4(addressOf(src, i, 2)).at[0];
}

void update(int place, uint value) {
  // Rounded down, because places may be negative.
  const int at = place >> (bytes == 4u ? 0 : bytes == 2u ? 1 : 2);
  UnitPtr word = UnitPtr(addressOf(uvec2(dst), at, 2));
  if (bytes == 4u && !isFloat && mode != 2u) {
    if (mode == 1u) atomicAdd(word.at[0], value);
    else if (isSigned && mode == 3u) atomicMax(SignedPtr(word).at[0], int(value));
    else if (isSigned) atomicMin(SignedPtr(word).at[0], int(value));
    else if (mode == 3u) atomicMax(word.at[0], value);
    else atomicMin(word.at[0], value);
    return;
  }
  const uint low = 8u * bytes * (uint(place) & (4u / bytes - 1u));
  const uint mask = bytes == 4u ? 0xffffffffu : ((1u << (8u * bytes)) - 1u) << low;
  uint seen = word.at[0];
  for (;;) {
    const uint next = (seen & ~mask) | ((combine((seen & mask) >> low, value) << low) & mask);
    const uint found = atomicCompSwap(word.at[0], seen, next);
    if (found == seen) return;
    seen = found;
  }
}

void main() {
  const uint row = rowOf(shift);
  if (row >= rows) return;
  const Walk w = walkTo(row);
  for (uint c = firstOf(shift); c < inner; c += strideOf(shift)) update(w.dst + int(c) * dstInner + movedBy(w, int(c)), load(w.src + int(c) * srcInner));
}
