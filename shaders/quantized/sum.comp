#version 460
// Sum of `parts` arrays of `count` float32 values that lie one behind the other, and with `residual` of c, which has the result's type.
#include "elements.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint outType = 0;
layout(constant_id = 2) const bool residual = false;
layout(push_constant) uniform Push {
  F32Ptr x;
  U32Ptr y;
  U32Ptr c;
  uint count;
  uint parts;
};
void main() {
  const uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + gl_LocalInvocationIndex;
  if (i >= count) return;
  float sum = 0;
  for (uint p = 0; p < parts; p++) sum += x.at[p * count + i];
  if (residual) sum += fromBits(readBits(c, i, outType), outType);
  writeBits(y, i, toBits(sum, outType), outType);
}
