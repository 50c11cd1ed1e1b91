#version 460
// softmax over the last axis, and with LOGARITHM logsumexp: one workgroup, or one subgroup, per row. The first vectors of a row stay in registers; what is longer is read again.
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(constant_id = 1) const bool bySubgroup = false;
layout(constant_id = 2) const bool whole = false;
layout(local_size_x_id = 0) in;
#include "../norm/rows.glsl"
#include "../norm/vectors.glsl"
#include "exponential.glsl"

layout(push_constant) uniform Push {
  RawPtr x;
  RawPtr y;
  uint rows;
  uint width;
  uint rowsPerGroup;
};

const uint kept = 4;
vec4 keep[kept];

void softmaxRow(uint row) {
  const uint base = row * width;
  const uint step = 4 * rowLanes();
  const uint start = 4 * rowLane();
  float top = lowest;
  [[unroll]] for (uint k = 0; k < kept; k++) {
    const uint i = start + k * step;
    keep[k] = vec4(lowest);
    if (i < width) keep[k] = fetch4(x, base, i, width, lowest);
  }
  [[unroll]] for (uint k = 0; k < kept; k++) top = max(top, max4(keep[k]));
  for (uint i = start + kept * step; i < width; i += step) top = max(top, max4(fetch4(x, base, i, width, lowest)));
  top = rowMax(top);
  const float m = origin(top);
  vec4 sum = vec4(0);
  [[unroll]] for (uint k = 0; k < kept; k++) {
    keep[k] = exponential4(above4(keep[k], m));
    // Behind the end nothing counts, whatever the row holds.
    if (start + k * step < width) {
      if (!whole) for (uint j = 0; j < 4; j++) if (start + k * step + j >= width) keep[k][j] = 0;
      sum += keep[k];
    }
  }
  for (uint i = start + kept * step; i < width; i += step) {
    vec4 e = exponential4(above4(fetch4(x, base, i, width, lowest), m));
    if (!whole) for (uint j = 0; j < 4; j++) if (i + j >= width) e[j] = 0;
    sum += e;
  }
  const float total = rowSum(sum4(sum));
#ifdef LOGARITHM
  if (rowLane() == 0) y.at[row] = fromFloat(m + log(total));
#else
  const float scale = 1.0 / total;
  [[unroll]] for (uint k = 0; k < kept; k++) {
    const uint i = start + k * step;
    if (i < width) put4(y, base, i, width, keep[k] * scale);
  }
  for (uint i = start + kept * step; i < width; i += step) put4(y, base, i, width, exponential4(above4(fetch4(x, base, i, width, lowest), m)) * scale);
#endif
}
void main() {
  const uint end = endRow(rowsPerGroup, rows);
  for (uint row = firstRow(rowsPerGroup); row < end; row += rowStep()) softmaxRow(row);
}
