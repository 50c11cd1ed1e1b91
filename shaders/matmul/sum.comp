#version 460
// Adds the sums over parts of K (float32 at a, `kPart` of them) and finishes the elements of the result.
#include "common/types.glsl"
layout(constant_id = 0) const uint flags = 0;
layout(local_size_x = 256) in;
#include "product.glsl"

void main() {
  const uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * 256 + gl_LocalInvocationIndex;
  const uint size = uint(count * M * N);
  if (i >= size) return;
  float v = 0;
  for (uint p = 0; p < uint(kPart); p++) v += F32Ptr(a).at[p * size + i];
  const int g = int(i) / (M * N);
  const int within = int(i) - g * M * N;
  const int m = within / N;
  put(targetOf(g, 0), m, within - m * N, v);
}
