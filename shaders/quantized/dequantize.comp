#version 460
// Values of packed integers: scale * q + bias, rounded once; with FLOATS of small floats: scale * code. Each invocation unpacks 8.
#include "elements.glsl"
#ifdef FLOATS
#include "division.glsl"
#include "floats.glsl"
#endif
#include "packed.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint groupShift = 4;
layout(constant_id = 2) const uint sType = 0;
layout(constant_id = 3) const uint outType = 0;
layout(constant_id = 4) const bool wWide = false;
layout(constant_id = 5) const bool outWide = false;
// The scales of small floats are relative to a global one.
layout(constant_id = 6) const bool global = false;
layout(push_constant) uniform Push {
  U32Ptr w;
#ifdef FLOATS
  U8Ptr scales;
  F32Ptr globalScale;
#else
  U32Ptr scales;
  U32Ptr biases;
#endif
  U32Ptr y;
  uint units;
};
void main() {
  const uint u = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + gl_LocalInvocationIndex;
  if (u >= units) return;
  const uvec2 p = readPacked(w, 0, u, wWide);
#ifdef FLOATS
  precise float scale = scaleValue(uint(scales.at[u >> groupShift]));
  if (global) scale *= divide(globalScale.at[0], 2688);
#else
  const float scale = fromBits(readBits(scales, u >> groupShift, sType), sType);
  const float bias = fromBits(readBits(biases, u >> groupShift, sType), sType);
#endif
  float v[8];
  // Product and sum are rounded one by one, as on the CPU.
  [[unroll]] for (uint i = 0; i < 8; i++) {
#ifdef FLOATS
    precise const float value = scale * valueOf(p, i);
#else
    precise const float product = scale * float(integerOf(p, i));
    precise const float value = product + bias;
#endif
    v[i] = value;
  }
  writeEight(y, 8 * u, packEight(v, outType), outType, outWide);
}
