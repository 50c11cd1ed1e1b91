#version 460
// Values of packed integers: scale * q + bias, rounded once. Each invocation unpacks 8.
#include "elements.glsl"
#include "packed.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint groupShift = 4;
layout(constant_id = 2) const uint sType = 0;
layout(constant_id = 3) const uint outType = 0;
layout(constant_id = 4) const bool wWide = false;
layout(constant_id = 5) const bool outWide = false;
layout(push_constant) uniform Push {
  U32Ptr w;
  U32Ptr scales;
  U32Ptr biases;
  U32Ptr y;
  uint units;
};
void main() {
  const uint u = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + gl_LocalInvocationIndex;
  if (u >= units) return;
  const uvec2 p = readPacked(w, 0, u, wWide);
  const float scale = fromBits(readBits(scales, u >> groupShift, sType), sType);
  const float bias = fromBits(readBits(biases, u >> groupShift, sType), sType);
  float v[8];
  // Product and sum are rounded one by one, as on the CPU.
  [[unroll]] for (uint i = 0; i < 8; i++) {
    precise const float product = scale * float(integerOf(p, i));
    precise const float value = product + bias;
    v[i] = value;
  }
  writeEight(y, 8 * u, packEight(v, outType), outType, outWide);
}
