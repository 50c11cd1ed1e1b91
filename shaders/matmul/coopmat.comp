#version 460
// Product of matrices on matrix units (KHR cooperative matrix), float16 or bfloat16 with float32 sums. A workgroup makes a tile of BM x BN, each subgroup
// WM x WN of it as fragments of FM x FN. Tiles of a and b lie in shared memory as they lie in memory (along K or along the other dimension), so that
// transposed operands need no copy; the next ones are read into registers while the present ones are multiplied.
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
layout(constant_id = 0) const uint flags = 0;
layout(constant_id = 1) const uint lanes = 128;
layout(constant_id = 2) const uint BM = 64;
layout(constant_id = 3) const uint BN = 64;
layout(constant_id = 4) const uint BK = 32;
layout(constant_id = 5) const uint WM = 32;
layout(constant_id = 6) const uint WN = 32;
layout(constant_id = 7) const uint FM = 16;
layout(constant_id = 8) const uint FN = 16;
layout(constant_id = 9) const uint FK = 16;
// Whether elements of an operand follow each other along K, and whether they can be read 16 bytes at a time.
layout(constant_id = 10) const uint aAlongK = 1;
layout(constant_id = 11) const uint bAlongK = 0;
layout(constant_id = 12) const uint aWide = 0;
layout(constant_id = 13) const uint bWide = 0;
layout(constant_id = 14) const uint oWide = 0;
// 2: tiles are double-buffered, one barrier a step.
layout(constant_id = 15) const uint stages = 1;
layout(local_size_x_id = 1) in;
#include "product.glsl"

layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer U16Ptr { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer WideOut { uvec4 at[]; };

// Rows of a tile in shared memory, in units of 16 bytes; one more than the data so that neighbouring rows fall into different banks.
const uint aLine = (aAlongK != 0 ? BK : BM) / 8 + 1;
const uint bLine = (bAlongK != 0 ? BK : BN) / 8 + 1;
const uint aSize = (aAlongK != 0 ? BM : BK) * aLine;
const uint bSize = (bAlongK != 0 ? BN : BK) * bLine;
const uint tileSize = stages * (aSize + bSize);

uint pair(float x, float y) {
#if T == T_BF16
  return bf16Bits(x) | (bf16Bits(y) << 16);
#else
  return f16Pair(x, y);
#endif
}
#ifdef EPILOGUE
// 8 elements of a further operand.
uvec4 operand8(RawPtr p, uint kind, int at, int n) {
  if (kind == NO_OPERAND) return uvec4(0);
  if (kind == ONE_VALUE) return uvec4(uint(p.at[0]) * 0x10001u);
  return WidePtr(p).at[placeIn(kind, at, n) / 8];
}
// Where stores are wide, N is a multiple of 8, and the operands begin at multiples of 16 bytes. Pairs of elements are taken in turn from the front of the vectors.
void put8(Target t, int m, int n, vec4 x, vec4 y) {
  if (m >= M) return;
  if (oWide == 0) {
    [[dont_unroll]] for (int i = 0; i < 8; i++) {
      if (n + i < N) put(t, m, n + i, x.x);
      x = vec4(x.yzw, y.x);
      y = y.yzwx;
    }
    return;
  }
  if (n >= N) return;
  const int at = t.base + m * t.row + n;
  uvec4 w0 = operand8(e0, KIND(0), at, n), w1 = operand8(e1, KIND(1), at, n), w2 = operand8(e2, KIND(2), at, n);
  uvec4 w3 = operand8(e3, KIND(3), at, n), w4 = operand8(e4, KIND(4), at, n), w5 = operand8(e5, KIND(5), at, n);
  uvec4 result = uvec4(0);
  [[dont_unroll]] for (int i = 0; i < 4; i++) {
    const float first = epilogue(x.x, wideElement(w0, 0), wideElement(w1, 0), wideElement(w2, 0), wideElement(w3, 0), wideElement(w4, 0), wideElement(w5, 0));
    const float second = epilogue(x.y, wideElement(w0, 1), wideElement(w1, 1), wideElement(w2, 1), wideElement(w3, 1), wideElement(w4, 1), wideElement(w5, 1));
    result = uvec4(result.yzw, pair(first, second));
    x = vec4(x.zw, y.xy);
    y = y.zwxy;
    w0 = w0.yzwx;
    w1 = w1.yzwx;
    w2 = w2.yzwx;
    w3 = w3.yzwx;
    w4 = w4.yzwx;
    w5 = w5.yzwx;
  }
  WideOut(o).at[at / 8] = result;
}
#else
void put8(Target t, int m, int n, vec4 x, vec4 y) {
  if (m >= M) return;
  if (oWide == 0) {
    for (int i = 0; i < 4; i++) {
      if (n + i < N) put(t, m, n + i, x[i]);
      if (n + 4 + i < N) put(t, m, n + 4 + i, y[i]);
    }
    return;
  }
  // Here N is a multiple of 8, rows begin at multiples of 16 bytes, and there is no c.
  if (n >= N) return;
  const int at = t.base + m * t.row + n;
  if ((flags & PARTS) != 0) {
    WideOut(o).at[at / 4] = floatBitsToUint(x);
    WideOut(o).at[at / 4 + 1] = floatBitsToUint(y);
  } else {
    x *= alpha;
    y *= alpha;
    WideOut(o).at[at / 8] = uvec4(pair(x.x, x.y), pair(x.z, x.w), pair(y.x, y.y), pair(y.z, y.w));
  }
}
#endif
#include "fragments.glsl"

const uint aEach = (BM * BK / 8 + lanes - 1) / lanes;
const uint bEach = (BN * BK / 8 + lanes - 1) / lanes;
uvec4 aNext[aEach];
uvec4 bNext[bEach];

// 8 elements of 2 bytes, `stride` apart, of which `left` exist.
uvec4 gathered(RawPtr p, int at, int stride, int left) {
  uvec4 v = uvec4(0);
  for (int i = 0; i < min(left, 8); i++) v[i >> 1] |= uint(U16Ptr(p).at[at + i * stride]) << (16 * (i & 1));
  return v;
}
// Reads the tile of a at (row, k) and of b at (k, column), zeros beyond the edges.
void fetch(int aBase, int bBase, int row, int column, int k, int kEnd) {
  [[unroll]] for (uint i = 0; i < aEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const uint across = (aAlongK != 0 ? BK : BM) / 8;
    const int m = row + int(aAlongK != 0 ? e / across : 8 * (e % across));
    const int kk = k + int(aAlongK != 0 ? 8 * (e % across) : e / across);
    aNext[i] = uvec4(0);
    if (e < BM * BK / 8 && m < M && kk < kEnd) {
      const int at = aBase + m * aRow + kk * aCol;
      if (aWide != 0) aNext[i] = WidePtr(a).at[at / WIDE];
      else aNext[i] = gathered(a, at, aAlongK != 0 ? aCol : aRow, aAlongK != 0 ? kEnd - kk : M - m);
    }
  }
  [[unroll]] for (uint i = 0; i < bEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const uint across = (bAlongK != 0 ? BK : BN) / 8;
    const int n = column + int(bAlongK != 0 ? e / across : 8 * (e % across));
    const int kk = k + int(bAlongK != 0 ? 8 * (e % across) : e / across);
    bNext[i] = uvec4(0);
    if (e < BN * BK / 8 && n < N && kk < kEnd) {
      const int at = bBase + kk * bRow + n * bCol;
      if (bWide != 0) bNext[i] = WidePtr(b).at[at / WIDE];
      else bNext[i] = gathered(b, at, bAlongK != 0 ? bRow : bCol, bAlongK != 0 ? kEnd - kk : N - n);
    }
  }
}
void stash(uint stage) {
  const uint aAt = stage * (aSize + bSize);
  [[unroll]] for (uint i = 0; i < aEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const uint across = (aAlongK != 0 ? BK : BM) / 8;
    if (e < BM * BK / 8) tiles[aAt + (e / across) * aLine + e % across] = aNext[i];
  }
  [[unroll]] for (uint i = 0; i < bEach; i++) {
    const uint e = i * lanes + gl_LocalInvocationIndex;
    const uint across = (bAlongK != 0 ? BK : BN) / 8;
    if (e < BN * BK / 8) tiles[aAt + aSize + (e / across) * bLine + e % across] = bNext[i];
  }
}

void main() {
  const int tilesM = (M + int(BM) - 1) / int(BM);
  const int tilesN = (N + int(BN) - 1) / int(BN);
  const Place place = placeOf(int(gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x), tilesM, tilesN);
  if (place.g >= count) return;
  const int row = place.m * int(BM);
  const int column = place.n * int(BN);
  const int aBase = aMatrix(place.g);
  const int bBase = bMatrix(place.g);
  const int kBegin = place.part * kPart;
  const int kEnd = min(K, kBegin + kPart);

  clearSums();
  fetch(aBase, bBase, row, column, kBegin, kEnd);
  stash(0);
  barrier();
  uint stage = 0;
  for (int k = kBegin; k < kEnd; k += int(BK)) {
    const bool more = k + int(BK) < kEnd;
    if (more) fetch(aBase, bBase, row, column, k + int(BK), kEnd);
    multiplyTiles(stage * (aSize + bSize), stage * (aSize + bSize) + aSize);
    if (stages == 1) barrier();
    else stage ^= 1;
    if (more) stash(stage);
    barrier();
  }
  storeSums(targetOf(place.g, place.part), row, column);
}
