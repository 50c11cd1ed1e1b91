#version 460
// Attention of many queries in tiles with an online softmax (FlashAttention-2; Dao 2023). A workgroup takes 32 rows, a row being a query head of one key head at one
// position, all heads of a position side by side, and walks over keys in tiles of 64. Lane (ty, tx) of 8 x 16 computes the scores of rows 4 ty .. 4 ty + 3 with keys
// 4 tx .. 4 tx + 3 of a tile, and the columns 4 tx + 64 j of the result of these rows.
#include "common/types.glsl"
layout(constant_id = 0) const uint D = 128;
layout(constant_id = 1) const uint DV = 128;
layout(constant_id = 2) const uint maskKind = 0;
layout(constant_id = 3) const uint sinkKind = 0;
layout(constant_id = 4) const bool aligned = true;
layout(constant_id = 5) const bool recorded = false;
// Whether there is one split, which writes the output itself.
layout(constant_id = 6) const bool whole = true;
// Query heads per key head.
layout(constant_id = 7) const uint group = 1;
layout(local_size_x = 128) in;
#include "operands.glsl"
#include "ranges.glsl"
#include "rows.glsl"

const uint lanes = 128;
const uint blockRows = 32;
const uint blockKeys = 64;
// Elements of a row, and keys, that are in shared memory at a time.
const uint sliceD = 32;
const uint sliceKeys = 16;
const uint turns = (DV + 63) / 64;
// Distances of rows in vectors of 4: of a slice of q or k (an odd number, against bank conflicts), of weights, of v.
const uint strideQ = sliceD / 4 + 1;
const uint strideP = blockKeys / 4 + 1;
const uint strideV = 16 * turns;
const uint firstKey = blockRows * strideQ;
const uint slicesQK = (blockRows + blockKeys) * strideQ;
const uint slicesV = sliceKeys * strideV;
const uint poolSize = slicesQK > slicesV ? slicesQK : slicesV;

shared vec4 pool[poolSize];
shared vec4 weights[blockRows * strideP];
shared float perLane[blockRows * 16];

float top[4];
float sum[4];
vec4 o[4 * turns];
float score[16];

void storeChunk(uint at, uvec4 x) {
  float y[CHUNK];
  unpack(x, y);
  pool[at] = vec4(y[0], y[1], y[2], y[3]);
#if CHUNK == 8
  pool[at + 1] = vec4(y[4], y[5], y[6], y[7]);
#endif
}

// A slice of the elements of all rows and of all keys of the tile. Key 4 x + j stands in row 16 j + x.
void loadSlices(uint d, uint firstRow, uint rowCount, Head h, uint key, uint to) {
  const uint perRow = sliceD / CHUNK;
  for (uint i = gl_LocalInvocationIndex; i < blockRows * perRow; i += lanes) {
    const uint r = i / perRow;
    const uint c = i % perRow;
    const uint row = firstRow + r;
    storeChunk(r * strideQ + c * (CHUNK / 4), row < rowCount ? loadChunk(q, queryAt(h, row), d / CHUNK + c, D, aligned) : uvec4(0));
  }
  for (uint i = gl_LocalInvocationIndex; i < blockKeys * perRow; i += lanes) {
    const uint n = i / perRow;
    const uint c = i % perRow;
    const uint at = firstKey + (n % 4 * 16 + n / 4) * strideQ + c * (CHUNK / 4);
    storeChunk(at, key + n < to ? loadChunk(k, h.k + (key + n) * kt, d / CHUNK + c, D, aligned) : uvec4(0));
  }
}
void loadValues(Head h, uint key, uint to) {
  const uint perRow = 64 * turns / CHUNK;
  for (uint i = gl_LocalInvocationIndex; i < sliceKeys * perRow; i += lanes) {
    const uint n = i / perRow;
    const uint c = i % perRow;
    storeChunk(n * strideV + c * (CHUNK / 4), key + n < to ? loadChunk(v, h.v + (key + n) * vt, c, DV, aligned) : uvec4(0));
  }
}

void addScores(uint ty, uint tx) {
  for (uint e = 0; e < sliceD / 4; e++) {
    vec4 a[4];
    vec4 b[4];
    [[unroll]] for (uint i = 0; i < 4; i++) {
      a[i] = pool[(4 * ty + i) * strideQ + e];
      b[i] = pool[firstKey + (16 * i + tx) * strideQ + e];
    }
    [[unroll]] for (uint r = 0; r < 4; r++) {
      [[unroll]] for (uint j = 0; j < 4; j++) score[4 * r + j] += dot(a[r], b[j]);
    }
  }
}

// Scores to weights, which go to shared memory; older sums to the new maximum.
void softmaxStep(uint ty, uint tx, uint firstRow, uint rowCount, Head h, uint count, uint key, uint to) {
  [[unroll]] for (uint r = 0; r < 4; r++) {
    const uint row = min(firstRow + 4 * ty + r, rowCount - 1);
    const uint at = maskRow(h, row);
    const int lastKey = lastKeyOf(row, count);
    float high = lowest;
    [[unroll]] for (uint j = 0; j < 4; j++) {
      const uint n = key + 4 * tx + j;
      const float s = n < to ? maskScore(maskKind, score[4 * r + j] * scale, at + n * mk, n, lastKey) : lowest;
      score[4 * r + j] = s;
      high = max(high, s);
    }
    perLane[(4 * ty + r) * 16 + tx] = high;
  }
  barrier();
  [[unroll]] for (uint r = 0; r < 4; r++) {
    float high = top[r];
    [[unroll]] for (uint i = 0; i < 16; i++) high = max(high, perLane[(4 * ty + r) * 16 + i]);
    const float base = high == lowest ? 0.0 : high;
    const float factor = exp(top[r] - base);
    top[r] = high;
    vec4 w;
    [[unroll]] for (uint j = 0; j < 4; j++) w[j] = exp(score[4 * r + j] - base);
    sum[r] = sum[r] * factor + (w.x + w.y + w.z + w.w);
    weights[(4 * ty + r) * strideP + tx] = w;
    [[unroll]] for (uint j = 0; j < turns; j++) o[r * turns + j] *= factor;
  }
}

// Adds the weighted values of one slice of the keys of the tile.
void addValues(uint ty, uint tx, uint first) {
  for (uint n = 0; n < sliceKeys; n += 4) {
    vec4 w[4];
    [[unroll]] for (uint r = 0; r < 4; r++) w[r] = weights[(4 * ty + r) * strideP + (first + n) / 4];
    [[unroll]] for (uint i = 0; i < 4; i++) {
      [[unroll]] for (uint j = 0; j < turns; j++) {
        const vec4 x = pool[(n + i) * strideV + tx + 16 * j];
        [[unroll]] for (uint r = 0; r < 4; r++) o[r * turns + j] += w[r][i] * x;
      }
    }
  }
}

void storeRow(uint r, uint tx, uint row, Head h, float total) {
  const uint at = outputRow(h, row);
  float factor = 1;
  uint to = (at * splits + gl_WorkGroupID.z) * partStride(DV);
  if (whole) {
    factor = finalFactor(top[r], total, sinkKind == 0 ? lowest : loadFloat(sinkKind, sinks, headOf(h, row)));
    to = at * DV;
  } else if (tx == 0) {
    F32Ptr(result).at[to] = top[r];
    F32Ptr(result).at[to + 1] = total;
  }
  [[unroll]] for (uint j = 0; j < turns; j++) {
    [[unroll]] for (uint e = 0; e < 4; e++) {
      const uint d = 4 * tx + 64 * j + e;
      if (d >= DV) break;
      if (whole) result.at[to + d] = fromFloat(o[r * turns + j][e] * factor);
      else F32Ptr(result).at[to + partHead + d] = o[r * turns + j][e];
    }
  }
}

void main() {
  const Head h = headAt();
  const uint rowCount = group * queries;
  // The last rows, which see most keys under a causal mask, come first.
  const uint firstRow = (gl_NumWorkGroups.x - 1 - gl_WorkGroupID.x) * blockRows;
  const uint count = keyCount(recorded);
  const uint per = rangeLength(count, splits, blockKeys);
  const uint from = gl_WorkGroupID.z * per;
  const uint to = min(from + per, keysSeen(maskKind, firstRow, min(firstRow + blockRows, rowCount) - 1, count));
  // The first range is there even when no key counts. The same for the whole workgroup.
  if (gl_WorkGroupID.z > 0 && from >= count) return;
  const uint tx = gl_LocalInvocationIndex % 16;
  const uint ty = gl_LocalInvocationIndex / 16;
  [[unroll]] for (uint r = 0; r < 4; r++) {
    top[r] = lowest;
    sum[r] = 0;
    [[unroll]] for (uint j = 0; j < turns; j++) o[r * turns + j] = vec4(0);
  }
  for (uint key = from; key < to; key += blockKeys) {
    [[unroll]] for (uint i = 0; i < 16; i++) score[i] = 0;
    for (uint d = 0; d < D; d += sliceD) {
      barrier();
      loadSlices(d, firstRow, rowCount, h, key, to);
      barrier();
      addScores(ty, tx);
    }
    softmaxStep(ty, tx, firstRow, rowCount, h, count, key, to);
    for (uint first = 0; first < blockKeys && key + first < to; first += sliceKeys) {
      barrier();
      loadValues(h, key + first, to);
      barrier();
      addValues(ty, tx, first);
    }
  }
  // `perLane` may still be read by others.
  barrier();
  [[unroll]] for (uint r = 0; r < 4; r++) perLane[(4 * ty + r) * 16 + tx] = sum[r];
  barrier();
  [[unroll]] for (uint r = 0; r < 4; r++) {
    float total = 0;
    [[unroll]] for (uint i = 0; i < 16; i++) total += perLane[(4 * ty + r) * 16 + i];
    const uint row = firstRow + 4 * ty + r;
    if (row < rowCount) storeRow(r, tx, row, h, total);
  }
}
