#version 460
// The embedding of a token as a row of the element type. DENSE: rows of floats, else quantized ones.
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint bits = 4;
layout(constant_id = 2) const uint groupSize = 64;
#ifdef DENSE
layout(push_constant) uniform Push { U32Ptr token; RawPtr table; RawPtr y; uint width; uint vocabulary; };
#else
layout(push_constant) uniform Push { U32Ptr token; U32Ptr table; RawPtr scales; RawPtr biases; RawPtr y; uint width; uint vocabulary; };
#endif

void main() {
  const uint i = gl_WorkGroupID.x * lanes + gl_LocalInvocationID.x;
  if (i >= width) return;
  // A token outside of the table gets its last row.
  const uint row = min(token.at[0], vocabulary - 1);
#ifdef DENSE
  y.at[i] = table.at[row * width + i];
#else
  const uint words = width / 32 * bits;
  const uint from = row * words + i * bits / 32;
  const uint shift = i * bits & 31;
  uint q = table.at[from] >> shift;
  if (shift + bits > 32) q |= table.at[from + 1] << (32 - shift);
  const uint group = row * (width / groupSize) + i / groupSize;
  y.at[i] = fromFloat(toFloat(scales.at[group]) * float(q & ((1u << bits) - 1)) + toFloat(biases.at[group]));
#endif
}
