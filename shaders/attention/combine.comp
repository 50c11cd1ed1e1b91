#version 460
// Merges the partial results of the ranges of keys: one workgroup per row. Lane = (slice of the ranges, 4 columns); the first few partial results of each lane are
// asked for before the maxima, so that the two waits overlap.
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 256;
layout(constant_id = 1) const uint DV = 128;
layout(constant_id = 2) const uint sinkKind = 0;
layout(constant_id = 3) const bool recorded = false;
// Keys that a workgroup of the decode kernel takes at a time.
layout(constant_id = 4) const uint pass = 64;
layout(local_size_x_id = 0) in;
#include "common/reduce.glsl"
#include "ranges.glsl"
#extension GL_EXT_control_flow_attributes : require

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Vec4Ptr { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer U16Ptr { uint16_t at[]; };

layout(push_constant) uniform Push {
  Vec4Ptr parts;
  RawPtr y;
  F32Ptr sinks;
  U32Ptr valid;
  uint rows;
  uint keys;
  uint splits;
  uint queries;
  uint heads;
};

const uint columns = (DV + 3) / 4;
const uint slices = lanes / columns;
const uint stride = 1 + columns;
const uint ahead = 8;
const uint maxSplits = 1024;
shared float weight[maxSplits];
shared vec4 slicePart[lanes];

float sinkOf(uint head) {
  if (sinkKind == 0) return -1.0 / 0.0;
  if (sinkKind == 3 + T_F32) return sinks.at[head];
  const uint bits = uint(U16Ptr(sinks).at[head]);
  return sinkKind == 3 + T_F16 ? unpackHalf2x16(bits).x : bf16Float(bits);
}

void main() {
  const uint row = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  if (row >= rows) return;
  const uint lane = gl_LocalInvocationIndex;
  const uint slice = lane / columns;
  const uint column = lane % columns;
  const uint base = row * splits * stride;
  vec4 early[ahead];
  [[unroll]] for (uint i = 0; i < ahead; i++) {
    const uint s = slice + i * slices;
    if (slice < slices && s < splits) early[i] = parts.at[base + s * stride + 1 + column];
  }
  // So is the first maximum and sum, which may be of an empty range and then is nothing.
  vec2 mine = lane < splits ? parts.at[base + lane * stride].xy : vec2(0);
  const uint count = recorded ? min(uint(max(int(valid.at[0]), 0)), keys) : keys;
  const uint per = rangeLength(count, splits, pass);
  const uint used = max((count + per - 1) / per, 1u);
  if (lane >= used) mine = vec2(-1.0 / 0.0, 0);
  float high = mine.x;
  for (uint s = lane + lanes; s < used; s += lanes) high = max(high, parts.at[base + s * stride].x);
  high = groupMax(high);
  const float low = high == -1.0 / 0.0 ? 0.0 : high;
  float total = 0;
  for (uint s = lane; s < used; s += lanes) {
    const vec2 head = s == lane ? mine : parts.at[base + s * stride].xy;
    const float w = exp(head.x - low);
    weight[s] = w;
    total += w * head.y;
  }
  total = groupSum(total);
  barrier();
  vec4 x = vec4(0);
  if (slice < slices) {
    [[unroll]] for (uint i = 0; i < ahead; i++) {
      const uint s = slice + i * slices;
      if (s < used) x += weight[s] * early[i];
    }
    for (uint s = slice + ahead * slices; s < used; s += slices) x += weight[s] * parts.at[base + s * stride + 1 + column];
  }
  slicePart[lane] = x;
  barrier();
  if (slice > 0) return;
  for (uint i = 1; i < slices; i++) x += slicePart[i * columns + column];
  x *= finalFactor(high, total, sinkOf(row / queries % heads));
  [[unroll]] for (uint e = 0; e < 4; e++) {
    const uint d = 4 * column + e;
    if (d < DV) y.at[row * DV + d] = fromFloat(x[e]);
  }
}
