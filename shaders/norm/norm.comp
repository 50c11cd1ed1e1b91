#version 460
// rmsNorm, and with LAYER layerNorm, over the last axis. The first vectors of a row stay in registers; only what is longer is read again.
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(constant_id = 1) const bool bySubgroup = false;
layout(constant_id = 2) const bool whole = false;
layout(constant_id = 3) const bool weighted = false;
layout(constant_id = 4) const bool biased = false;
layout(local_size_x_id = 0) in;
#include "rows.glsl"
#include "vectors.glsl"

layout(push_constant) uniform Push {
  RawPtr x;
  RawPtr w;
  RawPtr b;
  RawPtr y;
  uint rows;
  uint width;
  uint rowsPerGroup;
  // Row r begins at (r / inner) * outerStride + (r % inner) * innerStride.
  uint inner;
  uint outerStride;
  uint innerStride;
  float eps;
};

const uint kept = 4;
vec4 keep[kept];

// Elements at `i` as they go into the mean of squares: behind the end of the row, and without the mean, they are zero.
vec4 centred(vec4 v, uint i, float mean) {
#ifdef LAYER
  v -= mean;
  if (!whole) for (uint k = 0; k < 4; k++) if (i + k >= width) v[k] = 0;
#endif
  return v;
}
void finish(uint row, uint i, vec4 v, float mean, float scale) {
#ifdef LAYER
  v -= mean;
#endif
  v *= scale;
  if (weighted) v *= fetch4(w, 0, i, width, 0);
  if (biased) v += fetch4(b, 0, i, width, 0);
  put4(y, row * width, i, width, v);
}
void normalise(uint row) {
  const uint base = row / inner * outerStride + row % inner * innerStride;
  const uint step = 4 * rowLanes();
  const uint start = 4 * rowLane();
  [[unroll]] for (uint k = 0; k < kept; k++) {
    const uint i = start + k * step;
    keep[k] = vec4(0);
    if (i < width) keep[k] = fetch4(x, base, i, width, 0);
  }
  float mean = 0;
#ifdef LAYER
  vec4 s = vec4(0);
  [[unroll]] for (uint k = 0; k < kept; k++) s += keep[k];
  for (uint i = start + kept * step; i < width; i += step) s += fetch4(x, base, i, width, 0);
  mean = rowSum(s.x + s.y + (s.z + s.w)) / float(width);
#endif
  vec4 q = vec4(0);
  [[unroll]] for (uint k = 0; k < kept; k++) {
    const uint i = start + k * step;
    const vec4 v = centred(keep[k], i, mean);
    if (i < width) q += v * v;
  }
  for (uint i = start + kept * step; i < width; i += step) {
    const vec4 v = centred(fetch4(x, base, i, width, 0), i, mean);
    q += v * v;
  }
  const float scale = 1.0 / sqrt(rowSum(q.x + q.y + (q.z + q.w)) / float(width) + eps);
  [[unroll]] for (uint k = 0; k < kept; k++) {
    const uint i = start + k * step;
    if (i < width) finish(row, i, keep[k], mean, scale);
  }
  for (uint i = start + kept * step; i < width; i += step) finish(row, i, fetch4(x, base, i, width, 0), mean, scale);
}
void main() {
  const uint end = endRow(rowsPerGroup, rows);
  for (uint row = firstRow(rowsPerGroup); row < end; row += rowStep()) normalise(row);
}
