#version 460
// Long rows, cut into chunks. PART makes the maximum and the sum of exponentials of each chunk; the second step combines those of a row (online softmax, Milakov and
// Gimelshein 2018) and scales a chunk, or with LOGARITHM writes the logarithm.
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(constant_id = 1) const bool whole = false;
layout(local_size_x_id = 0) in;
#include "common/reduce.glsl"
#include "../norm/vectors.glsl"
#include "exponential.glsl"

layout(buffer_reference, std430, buffer_reference_align = 8) buffer PairPtr { vec2 at[]; };
layout(push_constant) uniform Push {
  RawPtr x;
  RawPtr y;
  // Maximum and sum of each chunk.
  PairPtr parts;
  uint rows;
  uint width;
  uint chunk;
  uint chunks;
};

void main() {
  const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
#if defined(LOGARITHM) && !defined(PART)
  const uint row = group;
#else
  const uint row = group / chunks;
#endif
  if (row >= rows) return;
  const uint base = row * width;
  const uint lane = gl_LocalInvocationIndex;
  const uint first = (group - row * chunks) * chunk;
  const uint end = min(first + chunk, width);
#ifdef PART
  float top = lowest;
  for (uint i = first + 4 * lane; i < end; i += 4 * lanes) top = max(top, max4(fetch4(x, base, i, end, lowest)));
  top = groupMax(top);
  float sum = 0;
  for (uint i = first + 4 * lane; i < end; i += 4 * lanes) {
    vec4 e = exponential4(above4(fetch4(x, base, i, end, lowest), origin(top)));
    if (!whole) for (uint j = 0; j < 4; j++) if (i + j >= end) e[j] = 0;
    sum += sum4(e);
  }
  sum = groupSum(sum);
  if (lane == 0) parts.at[group] = vec2(top, sum);
#else
  float top = lowest;
  for (uint c = lane; c < chunks; c += lanes) top = max(top, parts.at[row * chunks + c].x);
  const float m = origin(groupMax(top));
  float sum = 0;
  for (uint c = lane; c < chunks; c += lanes) {
    const vec2 part = parts.at[row * chunks + c];
    // A chunk without a number was measured from 0, like the row when it has none; otherwise its sum is 0 or NaN.
    sum += part.y * (part.x == m ? 1.0 : exponential(min(origin(part.x) - m, 0.0)));
  }
  const float total = groupSum(sum);
#ifdef LOGARITHM
  if (lane == 0) y.at[row] = fromFloat(m + log(total));
#else
  const float scale = 1.0 / total;
  for (uint i = first + 4 * lane; i < end; i += 4 * lanes) put4(y, base, i, end, exponential4(above4(fetch4(x, base, i, end, lowest), m)) * scale);
#endif
#endif
}
