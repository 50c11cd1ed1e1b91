#version 460
// Many rows of x times packed weights [N, K] on matrix units: like matmul/coopmat.comp, but the tile of b is unpacked on its way into shared memory, rounded to x's type.
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require
#include "common/types.glsl"
#if T == T_BF16
#extension GL_EXT_bfloat16 : require
#define Element bfloat16_t
#else
#define Element float16_t
#endif
layout(constant_id = 0) const uint divided = 0;
layout(constant_id = 1) const uint lanes = 128;
layout(constant_id = 2) const uint BM = 64;
layout(constant_id = 3) const uint BN = 64;
layout(constant_id = 4) const uint BK = 64;
layout(constant_id = 5) const uint WM = 32;
layout(constant_id = 6) const uint WN = 32;
layout(constant_id = 7) const uint FM = 16;
layout(constant_id = 8) const uint FN = 16;
layout(constant_id = 9) const uint FK = 16;
layout(constant_id = 10) const uint stages = 1;
layout(constant_id = 11) const uint bits = 4;
layout(constant_id = 12) const uint groupSize = 64;
layout(constant_id = 13) const uint xWide = 0;
layout(constant_id = 14) const uint oWide = 0;
layout(local_size_x_id = 1) in;

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer WideIn { uvec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer WideOut { uvec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer U16Ptr { uint16_t at[]; };
layout(push_constant) uniform Push {
  RawPtr x;
  U32Ptr w;
  RawPtr scales;
  RawPtr biases;
  // Float32 sums of parts of K when K is divided.
  RawPtr o;
  int M, N, K, kPart;
};

const uint aAlongK = 1;
const uint bAlongK = 1;
const uint aLine = BK / 8 + 1;
const uint bLine = aLine;
const uint aSize = BM * aLine;
const uint bSize = BN * bLine;
const uint tileSize = stages * (aSize + bSize);

struct Target {
  int base;
};
uint pair(float a, float b) {
#if T == T_BF16
  return bf16Bits(a) | (bf16Bits(b) << 16);
#else
  return f16Pair(a, b);
#endif
}
void put8(Target t, int m, int n, vec4 a, vec4 b) {
  if (m >= M || n >= N) return;
  const int at = t.base + m * N + n;
  if (oWide != 0) {
    // N is a multiple of 8.
    if (divided != 0) {
      WideOut(o).at[at / 4] = floatBitsToUint(a);
      WideOut(o).at[at / 4 + 1] = floatBitsToUint(b);
    } else WideOut(o).at[at / 8] = uvec4(pair(a.x, a.y), pair(a.z, a.w), pair(b.x, b.y), pair(b.z, b.w));
    return;
  }
  for (int i = 0; i < min(8, N - n); i++) {
    const float v = i < 4 ? a[i & 3] : b[i & 3];
    if (divided != 0) F32Ptr(o).at[at + i] = v;
    else o.at[at + i] = fromFloat(v);
  }
}
#include "../matmul/fragments.glsl"

// Units of 8 values along K that each invocation moves.
const uint aEach = (BM * BK / 8 + lanes - 1) / lanes;
const uint bEach = (BN * BK / 8 + lanes - 1) / lanes;
uvec4 xNext[aEach];
uvec2 wNext[bEach];
vec2 termsNext[bEach];

// K and its parts are multiples of 32, so a unit that begins before kEnd ends before it.
void fetch(int row, int column, int k, int kEnd) {
  [[unroll]] for (uint i = 0; i < aEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const int m = row + int(e / (BK / 8));
    const int kk = k + int(8 * (e % (BK / 8)));
    xNext[i] = uvec4(0);
    if (e < BM * BK / 8 && m < M && kk < kEnd) {
      const int at = m * K + kk;
      if (xWide != 0) xNext[i] = WideIn(x).at[at / 8];
      else {
        uvec4 v = uvec4(0);
        for (int j = 0; j < 8; j++) v[j >> 1] |= uint(U16Ptr(x).at[at + j]) << (16 * (j & 1));
        xNext[i] = v;
      }
    }
  }
  [[unroll]] for (uint i = 0; i < bEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const int n = column + int(e / (BK / 8));
    const uint kk = uint(k) + 8 * (e % (BK / 8));
    wNext[i] = uvec2(0);
    termsNext[i] = vec2(0);
    if (e < BN * BK / 8 && n < N && kk < kEnd) {
      const uint group = uint(n) * (uint(K) / groupSize) + kk / groupSize;
      termsNext[i] = vec2(toFloat(scales.at[group]), toFloat(biases.at[group]));
      // 8 values lie in one or two words, from bit `from` of the first on; here they are moved to bit 0.
      const uint from = (kk * bits) % 32;
      const uint word = uint(n) * (uint(K) / 32 * bits) + kk * bits / 32;
      uvec2 v = uvec2(w.at[word], 0);
      if (from + 8 * bits > 32) v.y = w.at[word + 1];
      if (from > 0) v = uvec2((v.x >> from) | (v.y << (32 - from)), v.y >> from);
      wNext[i] = v;
    }
  }
}
float unpacked(uvec2 v, uint j, vec2 terms) {
  const uint at = j * bits;
  const uint mask = (1u << bits) - 1u;
  uint q;
  if (at >= 32) q = v.y >> (at - 32);
  else if (at + bits <= 32) q = v.x >> at;
  else q = (v.x >> at) | (v.y << (32 - at));
  return fma(float(q & mask), terms.x, terms.y);
}
void stash(uint stage) {
  const uint at = stage * (aSize + bSize);
  [[unroll]] for (uint i = 0; i < aEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    if (e < BM * BK / 8) tiles[at + (e / (BK / 8)) * aLine + e % (BK / 8)] = xNext[i];
  }
  [[unroll]] for (uint i = 0; i < bEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    uvec4 v;
    [[unroll]] for (uint j = 0; j < 4; j++) v[j] = pair(unpacked(wNext[i], 2 * j, termsNext[i]), unpacked(wNext[i], 2 * j + 1, termsNext[i]));
    if (e < BN * BK / 8) tiles[at + aSize + (e / (BK / 8)) * bLine + e % (BK / 8)] = v;
  }
}

void main() {
  const int tilesM = (M + int(BM) - 1) / int(BM);
  const int tilesN = (N + int(BN) - 1) / int(BN);
  const int id = int(gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x);
  const int part = id / (tilesM * tilesN);
  const int within = id - part * tilesM * tilesN;
  const int kBegin = part * kPart;
  if (kBegin >= K && part > 0) return;
  const int kEnd = min(K, kBegin + kPart);
  // Workgroups that unpack the same weights run together.
  const int row = (within % tilesM) * int(BM);
  const int column = (within / tilesM) * int(BN);

  clearSums();
  fetch(row, column, kBegin, kEnd);
  stash(0);
  barrier();
  uint stage = 0;
  for (int k = kBegin; k < kEnd; k += int(BK)) {
    const bool more = k + int(BK) < kEnd;
    if (more) fetch(row, column, k + int(BK), kEnd);
    multiplyTiles(stage * (aSize + bSize), stage * (aSize + bSize) + aSize);
    if (stages == 1) barrier();
    else stage ^= 1;
    if (more) stash(stage);
    barrier();
  }
  storeSums(Target(divided != 0 ? part * M * N : 0), row, column);
}
