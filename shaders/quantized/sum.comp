#version 460
// Sum of `parts` arrays of `count` float32 values that lie one behind the other.
#include "elements.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint outType = 0;
layout(push_constant) uniform Push {
  F32Ptr x;
  U32Ptr y;
  uint count;
  uint parts;
};
void main() {
  const uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + gl_LocalInvocationIndex;
  if (i >= count) return;
  float sum = 0;
  for (uint p = 0; p < parts; p++) sum += x.at[p * count + i];
  writeBits(y, i, toBits(sum, outType), outType);
}
