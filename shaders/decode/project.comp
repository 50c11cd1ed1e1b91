#version 460
// One vector times the rows of one to three matrices, with what comes before and after it in a decode step.
// INTO: 0 the vector is normalised first, 1 taken as it is, 2 combined from the splits of an attention. AFTER: 0 stores, 1 adds to a residual, 2 silu(gate) * up.
// A subgroup takes `rows` rows at a time; its first blocks of weights are on their way while the workgroup prepares the vector.
#include "common/types.glsl"
#include "pieces.glsl"
layout(constant_id = 0) const uint lanes = 256;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint wide = 32;
layout(constant_id = 2) const uint width = 1024;
layout(constant_id = 3) const uint bits = 4;
layout(constant_id = 4) const uint groupSize = 64;
layout(constant_id = 5) const uint rows = 1;
layout(constant_id = 6) const float eps = 0;
layout(constant_id = 7) const bool biased = false;
#include "common/reduce.glsl"

#ifdef DENSE
const uint perBlock = 8;
const uint blockWords = T == T_F32 ? 8 : 4;
#else
const uint perBlock = 32;
const uint blockWords = bits;
#endif
#if AFTER == 2
const uint count = 2 * rows;
#else
const uint count = rows;
#endif
// Blocks of one invocation in a row, and how many of them are on their way at a time: up to 32 words.
const uint turns = (width / perBlock + wide - 1) / wide;
const uint most = count * blockWords > 32 ? 1 : 32 / (count * blockWords);
const uint ahead = turns < most ? turns : most;

#ifdef DENSE
#include "dense.glsl"
#define MATRIX(i) Quads weights##i;
#define PICK(i) Matrix(weights##i)
#else
#include "planes.glsl"
#include "packed.glsl"
#define MATRIX(i) Quads weights##i; RawPtr scales##i; RawPtr biases##i;
#define PICK(i) Matrix(weights##i, scales##i, biases##i)
#endif

layout(push_constant) uniform Push {
  Quads x;
#if INTO == 0
  Quads norm;
#endif
#if INTO == 2
  U32Ptr position;
#endif
  MATRIX(0)
#if AFTER == 2
  MATRIX(1)
#endif
#if AFTER == 0
  MATRIX(1)
  MATRIX(2)
#endif
#if AFTER == 1
  RawPtr residual;
#endif
  RawPtr bias;
  RawPtr y;
  // Rows of each matrix.
  uint n0;
  uint n1;
  uint n2;
#if INTO == 2
  uint heads;
  uint headWidth;
  uint splits;
  uint least;
#endif
};

const uint pieces = width / 8;
const uint rounds = (pieces + lanes - 1) / lanes;

#if INTO == 0
void prepare(uint id) {
  Piece raw[rounds];
  Piece scale[rounds];
  float squares = 0;
  [[unroll]] for (uint t = 0; t < rounds; t++) {
    const uint c = t * lanes + id;
    if (c < pieces) {
      raw[t] = pieceAt(x, c);
      scale[t] = pieceAt(norm, c);
    }
  }
  [[unroll]] for (uint t = 0; t < rounds; t++) {
    if (t * lanes + id < pieces) {
      const float v[8] = floatsOf(raw[t]);
      [[unroll]] for (uint i = 0; i < 8; i++) squares += v[i] * v[i];
    }
  }
  const float inverse = inversesqrt(groupSum(squares) / float(width) + eps);
  [[unroll]] for (uint t = 0; t < rounds; t++) {
    const uint c = t * lanes + id;
    if (c < pieces) {
      const float v[8] = floatsOf(raw[t]);
      const float w[8] = floatsOf(scale[t]);
      float n[8];
      [[unroll]] for (uint i = 0; i < 8; i++) n[i] = rounded(v[i] * inverse * w[i]);
      keep(c, n);
    }
  }
}
#elif INTO == 1
void prepare(uint id) {
  for (uint c = id; c < pieces; c += lanes) keep(c, floatsOf(pieceAt(x, c)));
}
#else
#include "splits.glsl"
// x holds [splits, heads, headWidth + 4] floats: sums of exp(score - top) * value, then top and the sum of exp(score - top).
void prepare(uint id) {
  const uint used = usedSplits(position.at[0] + 1, splits, least);
  const uint stride = headWidth / 4 + 1;
  for (uint c = id; c < pieces; c += lanes) {
    const uint head = 8 * c / headWidth;
    const uint from = head * stride;
    const uint at = from + (8 * c - head * headWidth) / 4;
    float top = -1.0 / 0.0;
    float total = 0;
    vec4 low = vec4(0);
    vec4 high = vec4(0);
    // Splits without positions hold a top of -infinity and zeros, so the first four can be read before the position is known.
    uint s = 0;
    do {
      vec4 a[4];
      vec4 b[4];
      vec2 terms[4];
      [[unroll]] for (uint i = 0; i < 4; i++) {
        const uint base = min(s + i, splits - 1) * heads * stride;
        a[i] = uintBitsToFloat(x.at[base + at]);
        b[i] = uintBitsToFloat(x.at[base + at + 1]);
        terms[i] = uintBitsToFloat(x.at[base + from + stride - 1].xy);
      }
      [[unroll]] for (uint i = 0; i < 4; i++) {
        // Not `> 0`: a sum that is NaN must show.
        if (s + i < splits && terms[i].y != 0) {
          const float higher = max(top, terms[i].x);
          const float old = exp(top - higher);
          const float own = exp(terms[i].x - higher);
          top = higher;
          total = total * old + terms[i].y * own;
          low = low * old + a[i] * own;
          high = high * old + b[i] * own;
        }
      }
      s += 4;
    } while (s < used);
    const float scale = 1.0 / total;
    const float v[8] = float[8](low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w);
    float n[8];
    [[unroll]] for (uint i = 0; i < 8; i++) n[i] = rounded(v[i] * scale);
    keep(c, n);
  }
}
#endif

uint unitsOf(uint n) { return (n + rows - 1) / rows; }

// The rows of a unit: in one matrix, or the same rows of both.
struct Unit { uint matrix; uint row; uint last; uint out0; };
Unit unitAt(uint u) {
#if AFTER == 0
  const uint u0 = unitsOf(n0);
  const uint u1 = u0 + unitsOf(n1);
  if (u >= u1) return Unit(2, (u - u1) * rows, n2 - 1, n0 + n1);
  if (u >= u0) return Unit(1, (u - u0) * rows, n1 - 1, n0);
#endif
  return Unit(0, u * rows, n0 - 1, 0);
}
Matrix matrixOf(Unit u, uint r) {
#if AFTER == 2
  if (r >= rows) return PICK(1);
#elif AFTER == 0
  if (u.matrix == 2) return PICK(2);
  if (u.matrix == 1) return PICK(1);
#endif
  return PICK(0);
}
void fetchTurn(Unit u, uint lane, uint turn, uint slot) {
  const uint block = turn * wide + lane;
  if (block < blocks) {
    [[unroll]] for (uint r = 0; r < count; r++) fetch(slot, r, matrixOf(u, r), min(u.row + r % rows, u.last), block);
  }
}
float withBias(uint at, float v) { return biased ? rounded(rounded(v) + toFloat(bias.at[at])) : rounded(v); }
#if AFTER == 2
float after(uint at, float gate, float up) {
  const float g = withBias(at, gate);
  return rounded(g * rounded(1.0 / (1.0 + exp(-g)))) * withBias(n0 + at, up);
}
#endif

void finish(Unit u, uint lane, float sums[count]) {
  [[unroll]] for (uint r = 0; r < count; r++) sums[r] = subgroupAdd(sums[r]);
  [[unroll]] for (uint r = 0; r < rows; r++) {
    const uint row = u.row + r;
    if (lane == r && row <= u.last) {
#if AFTER == 0
      y.at[u.out0 + row] = fromFloat(withBias(u.out0 + row, sums[r]));
#elif AFTER == 1
      y.at[row] = fromFloat(toFloat(residual.at[row]) + withBias(row, sums[r]));
#else
      y.at[row] = fromFloat(after(row, sums[r], sums[rows + r]));
#endif
    }
  }
}

void main() {
  const uint lane = gl_SubgroupInvocationID;
#if AFTER == 0
  const uint units = unitsOf(n0) + unitsOf(n1) + unitsOf(n2);
#else
  const uint units = unitsOf(n0);
#endif
  uint at = gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID;
  Unit u = unitAt(min(at, units - 1));
  [[unroll]] for (uint t = 0; t < ahead; t++) fetchTurn(u, lane, t, t);
  prepare(gl_SubgroupID * wide + lane);
  barrier();
  while (at < units) {
    const uint next = at + gl_NumWorkGroups.x * gl_NumSubgroups;
    const Unit following = unitAt(min(next, units - 1));
    float sums[count];
    [[unroll]] for (uint r = 0; r < count; r++) sums[r] = 0;
    [[unroll]] for (uint t = 0; t < turns; t++) {
      const uint block = t * wide + lane;
      if (block < blocks) {
        const Part part = partOf(block);
        [[unroll]] for (uint r = 0; r < count; r++) sums[r] += product(t % ahead, r, part);
      }
      if (t + ahead < turns) fetchTurn(u, lane, t + ahead, t % ahead);
      else if (ahead == turns && next < units) fetchTurn(following, lane, t, t);
    }
    finish(u, lane, sums);
    if (ahead < turns && next < units) {
      [[unroll]] for (uint t = 0; t < ahead; t++) fetchTurn(following, lane, t, t);
    }
    at = next;
    u = following;
  }
}
