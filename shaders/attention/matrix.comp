#version 460
// Attention of many queries on matrix units (KHR cooperative matrix): FlashAttention-2 (Dao 2023), float16 or bfloat16 with float32 sums; weights are rounded to the
// type of the values. A subgroup takes FM rows and keeps their queries and results in fragments; the workgroup shares tiles of keys and values, the next of which
// are read into registers while the present ones are multiplied. Scores pass through shared memory, because only the hardware knows which lane holds what. Results
// need to be rescaled only when a maximum of the subgroup's rows has grown.
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_vote : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common/types.glsl"
#if T == T_BF16
#extension GL_EXT_bfloat16 : require
#define Element bfloat16_t
#else
#define Element float16_t
#endif
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
layout(constant_id = 8) const uint lanes = 128;
layout(constant_id = 9) const uint subgroup = 32;
layout(constant_id = 10) const uint FM = 16;
layout(constant_id = 11) const uint FN = 16;
layout(constant_id = 12) const uint FK = 16;
layout(constant_id = 13) const uint blockKeys = 32;
// Whether the next tile is read early.
layout(constant_id = 14) const bool early = true;
// Whether results are rescaled only when needed. Not where a subgroup's barrier waits for other subgroups, as it does in llvmpipe.
layout(constant_id = 15) const bool lazy = true;
layout(local_size_x_id = 8) in;
#include "operands.glsl"
#include "ranges.glsl"
#include "rows.glsl"

const uint subgroups = lanes / subgroup;
const uint blockRows = subgroups * FM;
const uint stepsK = (D + FK - 1) / FK;
const uint stepsV = (DV + FN - 1) / FN;
const uint chunksK = stepsK * FK / CHUNK;
const uint chunksV = (stepsV * FN + CHUNK - 1) / CHUNK;
// Rows in shared memory, in units of 16 bytes; odd numbers of them, so that neighbouring rows fall into different banks.
const uint lineK = chunksK + 1 - chunksK % 2;
const uint lineV = chunksV + 1 - chunksV % 2;
const uint lineS = blockKeys / 4 + 1;
const uint lineP = blockKeys / CHUNK + 1;
const uint valuesAt = blockKeys * lineK;
const uint tileUnits = blockKeys * (lineK + lineV);
const uint queryUnits = blockRows * lineK;
const uint poolUnits = tileUnits > queryUnits ? tileUnits : queryUnits;

shared uvec4 pool[poolUnits];
// Scores of a subgroup's rows, then factors, then results on their way out.
shared uvec4 scores[blockRows * lineS];
shared uvec4 weights[blockRows * lineP];

#define Sums coopmat<float, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator>
coopmat<Element, gl_ScopeSubgroup, FM, FK, gl_MatrixUseA> query[stepsK];
Sums results[stepsV];

const uint keyChunks = (blockKeys * chunksK + lanes - 1) / lanes;
const uint valueChunks = (blockKeys * chunksV + lanes - 1) / lanes;
uvec4 keyNext[keyChunks];
uvec4 valueNext[valueChunks];

// A row is shared by this many lanes, each with a part of the keys of a tile.
const uint rowLanes = subgroup / FM;
const uint laneKeys = blockKeys / rowLanes;
float top = lowest;
float sum = 0;

uint pair(float x, float y) {
#if T == T_BF16
  return bf16Bits(x) | (bf16Bits(y) << 16);
#else
  return f16Pair(x, y);
#endif
}

void fetchTile(Head h, uint key, uint to) {
  [[unroll]] for (uint i = 0; i < keyChunks; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const uint n = key + e / chunksK;
    keyNext[i] = e < blockKeys * chunksK && n < to ? loadChunk(k, h.k + n * kt, e % chunksK, D, aligned) : uvec4(0);
  }
  [[unroll]] for (uint i = 0; i < valueChunks; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const uint n = key + e / chunksV;
    valueNext[i] = e < blockKeys * chunksV && n < to ? loadChunk(v, h.v + n * vt, e % chunksV, DV, aligned) : uvec4(0);
  }
}
void stashTile() {
  [[unroll]] for (uint i = 0; i < keyChunks; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    if (e < blockKeys * chunksK) pool[e / chunksK * lineK + e % chunksK] = keyNext[i];
  }
  [[unroll]] for (uint i = 0; i < valueChunks; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    if (e < blockKeys * chunksV) pool[valuesAt + e / chunksV * lineV + e % chunksV] = valueNext[i];
  }
}
void loadQueries(Head h, uint firstRow, uint rowCount) {
  for (uint e = gl_LocalInvocationIndex; e < blockRows * chunksK; e += lanes) {
    const uint row = firstRow + e / chunksK;
    pool[e / chunksK * lineK + e % chunksK] = row < rowCount ? loadChunk(q, queryAt(h, row), e % chunksK, D, aligned) : uvec4(0);
  }
  barrier();
  [[unroll]] for (uint i = 0; i < stepsK; i++) coopMatLoad(query[i], pool, gl_SubgroupID * FM * lineK + i * FK / CHUNK, lineK, gl_CooperativeMatrixLayoutRowMajor);
}

// Scores of the subgroup's rows with all keys of the tile, into shared memory.
void multiplyKeys() {
  [[unroll]] for (uint n = 0; n < blockKeys; n += FN) {
    Sums s = Sums(0.0);
    [[unroll]] for (uint i = 0; i < stepsK; i++) {
      coopmat<Element, gl_ScopeSubgroup, FK, FN, gl_MatrixUseB> x;
      coopMatLoad(x, pool, n * lineK + i * FK / CHUNK, lineK, gl_CooperativeMatrixLayoutColumnMajor);
      s = coopMatMulAdd(query[i], x, s);
    }
    coopMatStore(s, scores, gl_SubgroupID * FM * lineS + n / 4, lineS, gl_CooperativeMatrixLayoutRowMajor);
  }
}
void multiplyValues() {
  [[unroll]] for (uint n = 0; n < blockKeys; n += FK) {
    coopmat<Element, gl_ScopeSubgroup, FM, FK, gl_MatrixUseA> w;
    coopMatLoad(w, weights, gl_SubgroupID * FM * lineP + n / CHUNK, lineP, gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint i = 0; i < stepsV; i++) {
      coopmat<Element, gl_ScopeSubgroup, FK, FN, gl_MatrixUseB> x;
      coopMatLoad(x, pool, valuesAt + n * lineV + i * FN / CHUNK, lineV, gl_CooperativeMatrixLayoutRowMajor);
      results[i] = coopMatMulAdd(w, x, results[i]);
    }
  }
}

// One step of the online softmax: scores in shared memory to weights there. Returns the factor that brings older sums of this lane's row to the new maximum.
float softmaxStep(uint kind, Head h, uint row, uint count, uint key, uint to) {
  const uint r = gl_SubgroupID * FM + gl_SubgroupInvocationID / rowLanes;
  const uint first = gl_SubgroupInvocationID % rowLanes * laneKeys;
  const uint maskAt = maskRow(h, row);
  const int lastKey = lastKeyOf(row, count);
  float s[laneKeys];
  float high = top;
  [[unroll]] for (uint i = 0; i < laneKeys; i += 4) {
    const vec4 x = uintBitsToFloat(scores[r * lineS + (first + i) / 4]) * scale;
    [[unroll]] for (uint j = 0; j < 4; j++) {
      const uint n = key + first + i + j;
      s[i + j] = n < to ? maskScore(kind, x[j], maskAt + n * mk, n, lastKey) : lowest;
      high = max(high, s[i + j]);
    }
  }
  [[unroll]] for (uint distance = 1; distance < rowLanes; distance *= 2) high = max(high, subgroupShuffleXor(high, distance));
  const float base = high == lowest ? 0.0 : high;
  const float factor = exp(top - base);
  top = high;
  sum *= factor;
  [[unroll]] for (uint i = 0; i < laneKeys; i++) {
    s[i] = exp(s[i] - base);
    sum += s[i];
  }
  [[unroll]] for (uint i = 0; i < laneKeys; i += 8) {
    weights[r * lineP + (first + i) / CHUNK] = uvec4(pair(s[i], s[i + 1]), pair(s[i + 2], s[i + 3]), pair(s[i + 4], s[i + 5]), pair(s[i + 6], s[i + 7]));
  }
  return factor;
}

// Multiplies each row of the results with its factor: through a matrix whose rows hold one value each.
void rescale(float factor) {
  const uint r = gl_SubgroupID * FM + gl_SubgroupInvocationID / rowLanes;
  subgroupBarrier();
  for (uint i = gl_SubgroupInvocationID % rowLanes; i < FN / 4; i += rowLanes) scores[r * lineS + i] = floatBitsToUint(vec4(factor));
  subgroupBarrier();
  Sums factors;
  coopMatLoad(factors, scores, gl_SubgroupID * FM * lineS, lineS, gl_CooperativeMatrixLayoutRowMajor);
  [[unroll]] for (uint i = 0; i < stepsV; i++) results[i] = results[i] * factors;
}

// Eight columns of a row of the results.
void store8(uint to, uint d, vec4 x, vec4 y) {
  [[unroll]] for (uint e = 0; e < 8; e++) {
    if (d + e >= DV) break;
    const float z = e < 4 ? x[e] : y[e - 4];
    if (whole) result.at[to + d + e] = fromFloat(z);
    else F32Ptr(result).at[to + partHead + d + e] = z;
  }
}
void storeResults(Head h, uint row, bool inside) {
  float total = sum;
  [[unroll]] for (uint distance = 1; distance < rowLanes; distance *= 2) total += subgroupShuffleXor(total, distance);
  const uint r = gl_SubgroupID * FM + gl_SubgroupInvocationID / rowLanes;
  const uint part = gl_SubgroupInvocationID % rowLanes;
  const uint at = outputRow(h, row);
  float factor = 1;
  uint to = (at * splits + gl_WorkGroupID.z) * partStride(DV);
  if (whole) {
    factor = finalFactor(top, total, sinkKind == 0 ? lowest : loadFloat(sinkKind, sinks, headOf(h, row)));
    to = at * DV;
  } else if (inside && part == 0) {
    F32Ptr(result).at[to] = top;
    F32Ptr(result).at[to + 1] = total;
  }
  [[unroll]] for (uint i = 0; i < stepsV; i++) {
    subgroupBarrier();
    coopMatStore(results[i], scores, gl_SubgroupID * FM * lineS, lineS, gl_CooperativeMatrixLayoutRowMajor);
    subgroupBarrier();
    for (uint c = part; c < FN / 8 && inside; c += rowLanes) {
      const uint from = r * lineS + 2 * c;
      store8(to, i * FN + 8 * c, uintBitsToFloat(scores[from]) * factor, uintBitsToFloat(scores[from + 1]) * factor);
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
  const uint subgroupRow = firstRow + gl_SubgroupID * FM;
  const uint ownRow = subgroupRow + gl_SubgroupInvocationID / rowLanes;
  const uint row = min(ownRow, rowCount - 1);
  // Keys that every row of the subgroup sees, when that is all the mask says.
  const uint open = maskKind == MASK_NONE ? count : maskKind == MASK_CAUSAL ? uint(max(lastKeyOf(min(subgroupRow, rowCount - 1), count) + 1, 0)) : 0;
  if (early) fetchTile(h, from, to);
  loadQueries(h, firstRow, rowCount);
  [[unroll]] for (uint i = 0; i < stepsV; i++) results[i] = Sums(0.0);
  for (uint key = from; key < to; key += blockKeys) {
    if (!early) fetchTile(h, key, to);
    barrier();
    stashTile();
    barrier();
    if (early && key + blockKeys < to) fetchTile(h, key + blockKeys, to);
    multiplyKeys();
    subgroupBarrier();
    const bool unmasked = key + blockKeys <= min(open, to);
    const float factor = unmasked ? softmaxStep(MASK_NONE, h, row, count, key, key + blockKeys) : softmaxStep(maskKind, h, row, count, key, to);
    if (!lazy || !subgroupAll(factor == 1.0)) rescale(factor);
    subgroupBarrier();
    multiplyValues();
  }
  storeResults(h, row, ownRow < rowCount);
}
