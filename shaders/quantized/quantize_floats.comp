#version 460
// Small floats from groups of values: a scale of the group's largest magnitude, and codes rounded to nearest even. Each invocation packs 8 values; those of a group
// exchange their largest magnitudes through shared memory. Every step is rounded as on the CPU, so that both give the same codes.
#include "elements.glsl"
#include "division.glsl"
#include "floats.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint groupShift = 2;
layout(constant_id = 2) const uint type = 0;
layout(constant_id = 3) const bool wide = false;
layout(constant_id = 4) const bool global = false;
layout(push_constant) uniform Push {
  U32Ptr x;
  U32Ptr packed;
  U8Ptr scales;
  F32Ptr globalScale;
  uint units;
};
shared float largest[lanes];

// e4m3 code: at most 448, which NaN gives too.
uint toE4m3(float v) {
  const uint u = floatBitsToUint(v);
  const uint a = u & 0x7fffffffu;
  uint code;
  // The sign of NaN is nobody's choice: it does not count.
  if (a > 0x7f800000u) return 0x7eu;
  if (a >= 0x43e00000u) code = 0x7eu;
  // A unit in the last place of 2^14 is 2^-9, the step of the numbers below 2^-6.
  else if (a < 0x3c800000u) {
    precise const float shifted = uintBitsToFloat(a) + 16384;
    code = floatBitsToUint(shifted) - 0x46800000u;
  } else code = (a + ((a >> 20) & 1u) + 0x7ffffu - (120u << 23)) >> 20;
  return code | ((u >> 24) & 128u);
}
// e2m1 code: at most 6, which NaN gives too.
uint toE2m1(float v) {
  const uint u = floatBitsToUint(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 7;
  const float a = abs(v);
  const uint code = a > 5 ? 7 : a >= 3.5 ? 6 : a > 2.5 ? 5 : a >= 1.75 ? 4 : a > 1.25 ? 3 : a >= 0.75 ? 2 : a > 0.25 ? 1 : 0;
  return code | ((u >> 28) & 8u);
}
// The power of two that is nearest in logarithm.
uint toE8m0(float v) {
  const uint u = floatBitsToUint(v);
  if (u >= 0x7f800000u) return 255;
  if (u < 0x800000u) return u > 0x5a8279u ? 1 : 0;
  return min((u + 0x4afb0cu) >> 23, 254u);
}
// 2^n for n in -63 .. 64.
float powerOfTwo(int n) { return uintBitsToFloat(uint(n + 127) << 23); }

void main() {
  const uint id = gl_LocalInvocationIndex;
  const uint u = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + id;
  float v[8];
  unpackEight(readEight(x, 8 * min(u, units - 1), type, wide), type, v);
  float most = 0;
  [[unroll]] for (uint i = 0; i < 8; i++) if (abs(v[i]) > most) most = abs(v[i]);
  largest[id] = most;
  barrier();
  const uint leader = (id >> groupShift) << groupShift;
  for (uint i = 0; i < (1u << groupShift); i++) if (largest[leader + i] > most) most = largest[leader + i];
  const float enc = global ? divide(2688, globalScale.at[0]) : 1;
  precise const float wanted = divide(most, FLOATS == 3 ? 448 : 6) * enc;
  const uint scale = FLOATS == 2 ? toE4m3(wanted) : toE8m0(wanted);
  // Two factors: the reciprocal of a power of two may be subnormal.
  float by = 0;
  float more = 1;
  if (FLOATS == 2) {
    const float value = e4m3(scale);
    if (value != 0) by = divide(enc, value);
  } else if (scale != 255) {
    const int n = 127 - int(scale);
    by = powerOfTwo(n / 2);
    more = powerOfTwo(n - n / 2);
  }
  if (u >= units) return;
  uvec2 p = uvec2(0);
  [[unroll]] for (uint i = 0; i < 8; i++) {
    precise const float scaled = v[i] * by;
    precise const float q = scaled * more;
    if (FLOATS == 3) p[i / 4] |= toE4m3(q) << (8 * (i % 4));
    else p.x |= toE2m1(q) << (4 * i);
  }
  if (FLOATS == 3) {
    packed.at[2 * u] = p.x;
    packed.at[2 * u + 1] = p.y;
  } else packed.at[u] = p.x;
  if (id == leader) scales.at[u >> groupShift] = uint8_t(scale);
}
