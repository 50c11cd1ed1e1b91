#version 460
// Attention of few queries: the keys are cut into ranges (splits), one workgroup each (Flash-Decoding; Dao, Haziza, Massa, Sizov 2023), with an online softmax
// (Milakov and Gimelshein 2018). A workgroup serves `rows` rows, a row being a query head of one key head at one position, so that keys and values are read once
// for all of them. `keyLanes` lanes read one key, and every lane has `depth` keys on the way at a time; lanes, then subgroups, are merged at the end.
#include "common/types.glsl"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
layout(constant_id = 0) const uint lanes = 128;
layout(constant_id = 1) const uint subgroup = 32;
layout(constant_id = 2) const uint keyLanes = 16;
layout(constant_id = 3) const uint depth = 4;
layout(constant_id = 4) const uint rows = 1;
layout(constant_id = 5) const uint D = 128;
layout(constant_id = 6) const uint DV = 128;
layout(constant_id = 7) const uint group = 1;
layout(constant_id = 8) const uint positions = 1;
layout(constant_id = 9) const uint maskKind = 0;
layout(constant_id = 10) const uint sinkKind = 0;
layout(constant_id = 11) const bool aligned = true;
layout(constant_id = 12) const bool recorded = false;
// Whether there is one split, which writes the output itself.
layout(constant_id = 13) const bool whole = true;
layout(local_size_x_id = 0) in;
#include "operands.glsl"
#include "ranges.glsl"

const uint chunksK = (D + CHUNK * keyLanes - 1) / (CHUNK * keyLanes);
const uint chunksV = (DV + CHUNK * keyLanes - 1) / (CHUNK * keyLanes);
const uint widthK = chunksK * CHUNK;
const uint widthV = chunksV * CHUNK;
const uint subgroups = lanes / subgroup;
const uint lanesPerRow = subgroup / keyLanes;
const uint pass = subgroups * lanesPerRow * depth;

shared float sharedOut[subgroups * rows * DV];
shared float sharedTop[subgroups * rows];
shared float sharedSum[subgroups * rows];

// State of the online softmax of this lane's keys, per row.
float top[rows];
float sum[rows];
float o[rows * widthV];
float query[rows * widthK];
uint maskAt[rows];
int lastKey[rows];

uint part;

void loadQueries(uint batch, uint kvHead, uint first, uint count) {
  [[unroll]] for (uint r = 0; r < rows; r++) {
    // Rows behind the last one repeat it and are not stored.
    const uint row = min(first + r, group * positions - 1);
    const uint head = kvHead * group + row / positions;
    const uint t = row % positions;
    const uint at = batch * qb + head * qh + t * qt;
    maskAt[r] = batch * mb + head * mh + t * mt;
    lastKey[r] = int(count) - int(positions) + int(t);
    top[r] = lowest;
    sum[r] = 0;
    [[unroll]] for (uint c = 0; c < chunksK; c++) {
      float y[CHUNK];
      unpack(loadChunk(q, at, c * keyLanes + part, D, aligned), y);
      [[unroll]] for (uint e = 0; e < CHUNK; e++) query[r * widthK + c * CHUNK + e] = y[e] * scale;
    }
    [[unroll]] for (uint i = 0; i < widthV; i++) o[r * widthV + i] = 0;
  }
}

// Merges (top, sum, o) of row r with that of the lane `distance` away.
void mergeLanes(uint r, uint distance) {
  const float other = subgroupShuffleXor(top[r], distance);
  const float high = max(top[r], other);
  const float base = high == lowest ? 0.0 : high;
  const float mine = exp(top[r] - base);
  const float theirs = exp(other - base);
  top[r] = high;
  sum[r] = sum[r] * mine + subgroupShuffleXor(sum[r], distance) * theirs;
  [[unroll]] for (uint i = 0; i < widthV; i++) o[r * widthV + i] = o[r * widthV + i] * mine + subgroupShuffleXor(o[r * widthV + i], distance) * theirs;
}

// Keys and values of one pass are all asked for before the first is used.
void passOver(uint first, uint to, uint kAt, uint vAt) {
  uvec4 keyChunk[depth * chunksK];
  uvec4 valueChunk[depth * chunksV];
  [[unroll]] for (uint u = 0; u < depth; u++) {
    const uint key = min(first + u * lanesPerRow, to - 1);
    [[unroll]] for (uint c = 0; c < chunksK; c++) keyChunk[u * chunksK + c] = loadChunk(k, kAt + key * kt, c * keyLanes + part, D, aligned);
  }
  [[unroll]] for (uint u = 0; u < depth; u++) {
    const uint key = min(first + u * lanesPerRow, to - 1);
    [[unroll]] for (uint c = 0; c < chunksV; c++) valueChunk[u * chunksV + c] = loadChunk(v, vAt + key * vt, c * keyLanes + part, DV, aligned);
  }
  float score[rows * depth];
  [[unroll]] for (uint u = 0; u < depth; u++) {
    [[unroll]] for (uint r = 0; r < rows; r++) score[r * depth + u] = 0;
    [[unroll]] for (uint c = 0; c < chunksK; c++) {
      float y[CHUNK];
      unpack(keyChunk[u * chunksK + c], y);
      [[unroll]] for (uint r = 0; r < rows; r++) {
        [[unroll]] for (uint e = 0; e < CHUNK; e++) score[r * depth + u] = fma(query[r * widthK + c * CHUNK + e], y[e], score[r * depth + u]);
      }
    }
  }
  [[unroll]] for (uint r = 0; r < rows; r++) {
    float high = top[r];
    [[unroll]] for (uint u = 0; u < depth; u++) {
      float s = score[r * depth + u];
      [[unroll]] for (uint distance = keyLanes / 2; distance > 0; distance /= 2) s += subgroupShuffleXor(s, distance);
      const uint key = first + u * lanesPerRow;
      s = key < to ? maskScore(maskKind, s, maskAt[r] + key * mk, key, lastKey[r]) : lowest;
      score[r * depth + u] = s;
      high = max(high, s);
    }
    const float base = high == lowest ? 0.0 : high;
    const float factor = exp(top[r] - base);
    top[r] = high;
    sum[r] *= factor;
    [[unroll]] for (uint u = 0; u < depth; u++) {
      score[r * depth + u] = exp(score[r * depth + u] - base);
      sum[r] += score[r * depth + u];
    }
    [[unroll]] for (uint i = 0; i < widthV; i++) o[r * widthV + i] *= factor;
  }
  [[unroll]] for (uint u = 0; u < depth; u++) {
    // A key behind the range has weight 0, which times infinity is not 0.
    const bool counts = first + u * lanesPerRow < to;
    [[unroll]] for (uint c = 0; c < chunksV; c++) {
      float y[CHUNK];
      unpack(counts ? valueChunk[u * chunksV + c] : uvec4(0), y);
      [[unroll]] for (uint r = 0; r < rows; r++) {
        [[unroll]] for (uint e = 0; e < CHUNK; e++) o[r * widthV + c * CHUNK + e] = fma(score[r * depth + u], y[e], o[r * widthV + c * CHUNK + e]);
      }
    }
  }
}

void shareResults(uint id) {
  [[unroll]] for (uint r = 0; r < rows; r++) {
    [[unroll]] for (uint c = 0; c < chunksV; c++) {
      [[unroll]] for (uint e = 0; e < CHUNK; e++) {
        const uint d = (c * keyLanes + part) * CHUNK + e;
        if (d < DV) sharedOut[(id * rows + r) * DV + d] = o[r * widthV + c * CHUNK + e];
      }
    }
    if (part == 0) {
      sharedTop[id * rows + r] = top[r];
      sharedSum[id * rows + r] = sum[r];
    }
  }
}

// Column d of row r of the block over all subgroups, into `row` of the output or of the partial results.
void storeColumn(uint r, uint d, uint row, uint head) {
  float high = sharedTop[r];
  [[unroll]] for (uint i = 1; i < subgroups; i++) high = max(high, sharedTop[i * rows + r]);
  const float base = high == lowest ? 0.0 : high;
  float total = 0;
  float x = 0;
  [[unroll]] for (uint i = 0; i < subgroups; i++) {
    const float weight = exp(sharedTop[i * rows + r] - base);
    total += sharedSum[i * rows + r] * weight;
    x += sharedOut[(i * rows + r) * DV + d] * weight;
  }
  if (whole) {
    result.at[row * DV + d] = fromFloat(x * finalFactor(high, total, sinkKind == 0 ? lowest : loadFloat(sinkKind, sinks, head)));
    return;
  }
  F32Ptr parts = F32Ptr(result);
  const uint stride = partStride(DV);
  const uint at = (row * splits + gl_WorkGroupID.z) * stride;
  parts.at[at + partHead + d] = x;
  if (d == 0) {
    parts.at[at] = high;
    parts.at[at + 1] = total;
  }
}

void main() {
  const uint count = keyCount(recorded);
  const uint per = rangeLength(count, splits, pass);
  const uint from = gl_WorkGroupID.z * per;
  const uint to = min(from + per, count);
  // The first range is there even when no key counts. The same for the whole workgroup.
  if (gl_WorkGroupID.z > 0 && from >= count) return;
  const uint lane = gl_SubgroupInvocationID;
  part = lane % keyLanes;
  const uint batch = gl_WorkGroupID.y / kvHeads;
  const uint kvHead = gl_WorkGroupID.y % kvHeads;
  const uint firstRow = gl_WorkGroupID.x * rows;
  loadQueries(batch, kvHead, firstRow, count);
  const uint kAt = batch * kb + kvHead * kh;
  const uint vAt = batch * vb + kvHead * vh;
  const uint mine = gl_SubgroupID * lanesPerRow * depth;
  for (uint at = from + mine; at < to; at += pass) passOver(at + lane / keyLanes, to, kAt, vAt);
  [[unroll]] for (uint r = 0; r < rows; r++) {
    [[unroll]] for (uint distance = keyLanes; distance < subgroup; distance *= 2) mergeLanes(r, distance);
  }
  if (lane < keyLanes) shareResults(gl_SubgroupID);
  barrier();
  for (uint i = gl_LocalInvocationIndex; i < rows * DV; i += lanes) {
    const uint r = i / DV;
    const uint row = firstRow + r;
    if (row >= group * positions) break;
    const uint head = kvHead * group + row / positions;
    storeColumn(r, i % DV, (batch * kvHeads * group + head) * positions + row % positions, head);
  }
}
