#version 460
// Attention of one new position: norms and rotation of its queries and key, its rows of the cache, and the sums over one split of the positions for the query heads
// that share a key head (flash decoding: Dao et al. 2023). A workgroup serves `group` query heads of a key head and one split; the split that holds the new position
// takes key and value from shared memory and writes them into the cache, so that no workgroup reads what another one writes.
#include "common/types.glsl"
#include "pieces.glsl"
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
layout(constant_id = 0) const uint lanes = 256;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint wide = 32;
layout(constant_id = 2) const uint headWidth = 128;
layout(constant_id = 3) const uint group = 1;
// Elements that turn, and whether pairs are neighbours.
layout(constant_id = 4) const uint dims = 128;
layout(constant_id = 5) const bool neighbours = false;
layout(constant_id = 6) const bool queryNorm = false;
layout(constant_id = 7) const bool keyNorm = false;
layout(constant_id = 8) const float eps = 0;
layout(constant_id = 9) const float scale = 1;
#include "splits.glsl"
#include "turn.glsl"

layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads4 { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Fractions { uvec2 at[]; };
layout(push_constant) uniform Push {
  RawPtr qkv;
  U32Ptr positions;
  RawPtr keys;
  RawPtr values;
  RawPtr queryWeight;
  RawPtr keyWeight;
  Quads4 y;
  // 64-bit fraction of a turn per position and pair.
  Fractions fractions;
  uint heads;
  uint kvHeads;
  uint capacity;
  uint splits;
  uint least;
  // Workgroups in x for the query heads of one key head.
  uint blocksPerKey;
};

const uint pieces = headWidth / 8;
// Four invocations share a position when scores are made; one piece of the value row each when values are summed.
const uint tile = lanes / 4;
const uint turns = (pieces + 3) / 4;
const uint rowsAtOnce = lanes / pieces;
const uint valueTurns = (tile + rowsAtOnce - 1) / rowsAtOnce;
// Query heads whose sums are added up at a time.
const uint batch = rowsAtOnce * group * headWidth > 4096 ? 1 : group;

// The query heads, then the new key; the new value.
shared vec4 vectors[(group + 1) * headWidth / 4];
shared float newValue[headWidth];
shared float scores[group * tile];
// Per query head: greatest score, sum, factor for the sums so far.
shared float tops[group];
shared float totals[group];
shared float factors[group];
shared float parts[batch * rowsAtOnce * headWidth];

struct Job { uint key; uint firstHead; uint split; uint position; uint first; uint last; };

// The vector of a subgroup (a query head, or the new key), and the norm's weights: element t * wide + lane in slot t. Loaded before the position is known, like the
// fractions of a turn.
const uint slots = (headWidth + wide - 1) / wide;
float held[slots];
float heldWeight[slots];
uvec2 heldFraction;
void load(Job j, uint v, uint lane) {
  const uint from = (v == group ? heads + j.key : j.firstHead + v) * headWidth;
  [[unroll]] for (uint t = 0; t < slots; t++) {
    const uint i = t * wide + lane;
    if (i < headWidth) {
      held[t] = toFloat(qkv.at[from + i]);
      if (v == group ? keyNorm : queryNorm) heldWeight[t] = toFloat(v == group ? keyWeight.at[i] : queryWeight.at[i]);
    }
  }
}
// The norm of a query head or of the new key.
void normalise(uint v, uint lane) {
  if (v == group ? keyNorm : queryNorm) {
    float squares = 0;
    [[unroll]] for (uint t = 0; t < slots; t++) {
      if (t * wide + lane < headWidth) squares += held[t] * held[t];
    }
    const float inverse = inversesqrt(subgroupAdd(squares) / float(headWidth) + eps);
    [[unroll]] for (uint t = 0; t < slots; t++) held[t] = rounded(held[t] * inverse * heldWeight[t]);
  }
  [[unroll]] for (uint t = 0; t < slots; t++) {
    const uint i = t * wide + lane;
    if (i < headWidth) vectors[(v * headWidth + i) / 4][i & 3] = held[t];
  }
}
// Turns the pairs of all vectors in place; the new key goes into the cache.
const uint pairs = headWidth / 2;
void turnAll(Job j, bool owner, uint id) {
  const uint row = (j.key * capacity + j.position) * headWidth;
  for (uint n = id; n < (group + (owner ? 1 : 0)) * pairs; n += lanes) {
    const uint v = n / pairs;
    const uint i = n % pairs;
    const bool turned = i < dims / 2;
    const uint a = neighbours || !turned ? 2 * i : i;
    const uint b = neighbours || !turned ? a + 1 : i + dims / 2;
    const uint at = v * headWidth / 4;
    float x = vectors[at + a / 4][a & 3];
    float z = vectors[at + b / 4][b & 3];
    if (turned) {
      if (lanes % pairs != 0 && n != id) heldFraction = fractions.at[i];
      const vec2 t = cosSin(turnsOf(j.position, heldFraction));
      const float old = x;
      x = rounded(x * t.x - z * t.y);
      z = rounded(old * t.y + z * t.x);
      vectors[at + a / 4][a & 3] = x;
      vectors[at + b / 4][b & 3] = z;
    }
    if (v == group && j.firstHead % (heads / kvHeads) == 0) {
      keys.at[row + a] = fromFloat(x);
      keys.at[row + b] = fromFloat(z);
    }
  }
}
void takeValue(Job j, uint id) {
  const uint from = (heads + kvHeads + j.key) * headWidth;
  const uint row = (j.key * capacity + j.position) * headWidth;
  for (uint i = id; i < headWidth; i += lanes) {
    const Raw v = qkv.at[from + i];
    newValue[i] = toFloat(v);
    if (j.firstHead % (heads / kvHeads) == 0) values.at[row + i] = v;
  }
}

Piece heldKeys[turns];
Piece heldValues[valueTurns];
void fetchKeys(Job j, uint base, uint id) {
  const uint p = base + id / 4;
  if (p < j.last && p != j.position) {
    [[unroll]] for (uint t = 0; t < turns; t++) {
      const uint c = 4 * t + (id & 3);
      if (c < pieces) heldKeys[t] = pieceAt(Quads(keys), (j.key * capacity + p) * pieces + c);
    }
  }
}
void fetchValues(Job j, uint base, uint id) {
  [[unroll]] for (uint t = 0; t < valueTurns; t++) {
    const uint row = t * rowsAtOnce + id / pieces;
    const uint p = base + row;
    if (id < rowsAtOnce * pieces && row < tile && p < j.last && p != j.position) heldValues[t] = pieceAt(Quads(values), (j.key * capacity + p) * pieces + id % pieces);
  }
}

void score(Job j, uint base, uint id) {
  const uint p = base + id / 4;
  float sums[group];
  [[unroll]] for (uint g = 0; g < group; g++) sums[g] = 0;
  if (p < j.last) {
    [[unroll]] for (uint t = 0; t < turns; t++) {
      const uint c = 4 * t + (id & 3);
      if (c < pieces) {
        vec4 low = vectors[group * headWidth / 4 + 2 * c];
        vec4 high = vectors[group * headWidth / 4 + 2 * c + 1];
        if (p != j.position) {
          const float k[8] = floatsOf(heldKeys[t]);
          low = vec4(k[0], k[1], k[2], k[3]);
          high = vec4(k[4], k[5], k[6], k[7]);
        }
        [[unroll]] for (uint g = 0; g < group; g++) {
          const uint at = g * headWidth / 4 + 2 * c;
          sums[g] += dot(low, vectors[at]) + dot(high, vectors[at + 1]);
        }
      }
    }
  }
  [[unroll]] for (uint g = 0; g < group; g++) {
    float s = sums[g];
    s += subgroupShuffleXor(s, 1);
    s += subgroupShuffleXor(s, 2);
    if ((id & 3) == 0) scores[g * tile + id / 4] = p < j.last ? s * scale : -1.0 / 0.0;
  }
}
// Scores become exp(score - greatest so far).
void weigh() {
  for (uint g = gl_SubgroupID; g < group; g += gl_NumSubgroups) {
    const float old = tops[g];
    float top = old;
    for (uint i = gl_SubgroupInvocationID; i < tile; i += wide) top = max(top, scores[g * tile + i]);
    top = subgroupMax(top);
    float sum = 0;
    for (uint i = gl_SubgroupInvocationID; i < tile; i += wide) {
      const float w = top == -1.0 / 0.0 ? 0.0 : exp(scores[g * tile + i] - top);
      scores[g * tile + i] = w;
      sum += w;
    }
    sum = subgroupAdd(sum);
    if (subgroupElect()) {
      const float factor = old == -1.0 / 0.0 ? 0.0 : exp(old - top);
      tops[g] = top;
      factors[g] = factor;
      totals[g] = totals[g] * factor + sum;
    }
  }
}
float sums[group * 8];
void addValues(Job j, uint base, uint id) {
  [[unroll]] for (uint g = 0; g < group; g++) {
    [[unroll]] for (uint i = 0; i < 8; i++) sums[8 * g + i] *= factors[g];
  }
  if (id >= rowsAtOnce * pieces) return;
  [[unroll]] for (uint t = 0; t < valueTurns; t++) {
    const uint row = t * rowsAtOnce + id / pieces;
    const uint p = base + row;
    if (row < tile && p < j.last) {
      float v[8] = floatsOf(heldValues[t]);
      if (p == j.position) {
        [[unroll]] for (uint i = 0; i < 8; i++) v[i] = newValue[8 * (id % pieces) + i];
      }
      [[unroll]] for (uint g = 0; g < group; g++) {
        const float w = scores[g * tile + row];
        [[unroll]] for (uint i = 0; i < 8; i++) sums[8 * g + i] += w * v[i];
      }
    }
  }
}
// Adds up the sums of all rows of invocations and stores them.
void store(Job j, uint id) {
  const uint stride = headWidth / 4 + 1;
  const uint base = (j.split * heads + j.firstHead) * stride;
  const uint size = rowsAtOnce * headWidth;
  [[unroll]] for (uint g0 = 0; g0 < group; g0 += batch) {
    if (g0 > 0) barrier();
    if (id < rowsAtOnce * pieces) {
      [[unroll]] for (uint g = 0; g < batch; g++) {
        [[unroll]] for (uint i = 0; i < 8; i++) parts[g * size + (id / pieces) * headWidth + 8 * (id % pieces) + i] = sums[8 * (g0 + g) + i];
      }
    }
    barrier();
    for (uint n = id; n < batch * headWidth / 4; n += lanes) {
      const uint g = n / (headWidth / 4);
      const uint i = 4 * (n % (headWidth / 4));
      vec4 total = vec4(0);
      for (uint r = 0; r < rowsAtOnce; r++) {
        const uint at = g * size + r * headWidth + i;
        total += vec4(parts[at], parts[at + 1], parts[at + 2], parts[at + 3]);
      }
      y.at[base + (g0 + g) * stride + i / 4] = total;
    }
  }
  if (id < group) y.at[base + id * stride + stride - 1] = vec4(tops[id], totals[id], 0, 0);
}
void storeNothing(Job j, uint id) {
  const uint stride = headWidth / 4 + 1;
  const uint base = (j.split * heads + j.firstHead) * stride;
  for (uint n = id; n < group * stride; n += lanes) y.at[base + n] = n % stride == stride - 1 ? vec4(-1.0 / 0.0, 0, 0, 0) : vec4(0);
}

void main() {
  const uint lane = gl_SubgroupInvocationID;
  const uint id = gl_SubgroupID * wide + lane;
  Job j;
  j.key = gl_WorkGroupID.x / blocksPerKey;
  j.firstHead = j.key * (heads / kvHeads) + (gl_WorkGroupID.x % blocksPerKey) * group;
  j.split = gl_WorkGroupID.y;
  if (gl_SubgroupID <= group) load(j, gl_SubgroupID, lane);
  if (id % pairs < dims / 2) heldFraction = fractions.at[id % pairs];
  j.position = min(positions.at[0], capacity - 1);
  const uint each = splitLength(j.position + 1, splits, least);
  j.first = j.split * each;
  j.last = min(j.first + each, j.position + 1);
  if (j.first >= j.last) {
    storeNothing(j, id);
    return;
  }
  const bool owner = j.last == j.position + 1;
  fetchKeys(j, j.first, id);
  fetchValues(j, j.first, id);
  if (id < group) {
    tops[id] = -1.0 / 0.0;
    totals[id] = 0;
  }
  [[unroll]] for (uint i = 0; i < group * 8; i++) sums[i] = 0;
  if (gl_SubgroupID <= group) normalise(gl_SubgroupID, lane);
  for (uint v = gl_SubgroupID + gl_NumSubgroups; v <= group; v += gl_NumSubgroups) {
    load(j, v, lane);
    normalise(v, lane);
  }
  if (owner) takeValue(j, id);
  barrier();
  turnAll(j, owner, id);
  barrier();
  for (uint base = j.first; base < j.last; base += tile) {
    score(j, base, id);
    if (base + tile < j.last) fetchKeys(j, base + tile, id);
    barrier();
    weigh();
    barrier();
    addValues(j, base, id);
    if (base + tile < j.last) fetchValues(j, base + tile, id);
    barrier();
  }
  store(j, id);
}
