#version 460
// Many rows of x times packed weights, in float32: a workgroup of 16 x 16 invocations makes a tile of 64 x 64, each invocation 4 x 4. The weights are [N, K], packed
// along K, or (transposed = 0) [K, N], packed along N; they are unpacked on their way into shared memory. With SMALL they are small floats, without biases.
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
#ifdef SMALL
#include "floats.glsl"
#endif
layout(constant_id = 0) const uint bits = 4;
layout(constant_id = 1) const uint groupSize = 64;
layout(constant_id = 2) const uint transposed = 1;
// Types of scales and biases, and of the result: T_F32, T_F16, T_BF16.
layout(constant_id = 3) const uint termsType = 0;
layout(constant_id = 4) const uint outType = 0;
#ifdef EPILOGUE
layout(constant_id = 5) const uint flags = 0;
#include "common/epilogue.glsl"
#else
// c, [M, N] in the type of the result, is added to it.
layout(constant_id = 5) const bool residual = false;
#endif
layout(local_size_x = 256) in;

layout(buffer_reference, std430, buffer_reference_align = 2) buffer U16Ptr { uint16_t at[]; };
layout(push_constant) uniform Push {
  RawPtr x;
  U32Ptr w;
#ifdef SMALL
  U8Ptr scales;
#else
  F32Ptr scales;
  F32Ptr biases;
#endif
  // Float32 sums of parts of K when K is divided (then outType is T_F32).
  F32Ptr o;
#ifdef EPILOGUE
  F32Ptr e0, e1, e2, e3, e4, e5;
#else
  F32Ptr c;
#endif
  int M, N, K, kPart;
};

shared vec4 aTile[16][17];
shared vec4 bTile[16][17];

float element(F32Ptr p, int at) {
  if (outType == T_F32) return p.at[at];
  const uint bits16 = uint(U16Ptr(p).at[at]);
  return outType == T_F16 ? unpackHalf2x16(bits16).x : bf16Float(bits16);
}
#ifdef EPILOGUE
float operand(F32Ptr p, uint kind, int at, int n) {
  if (kind == NO_OPERAND) return 0;
  return element(p, placeIn(kind, at, n));
}
float finished(float v, int at, int n) {
  return epilogue(v, operand(e0, KIND(0), at, n), operand(e1, KIND(1), at, n), operand(e2, KIND(2), at, n), operand(e3, KIND(3), at, n), operand(e4, KIND(4), at, n), operand(e5, KIND(5), at, n));
}
#else
float finished(float v, int at, int n) { return residual ? v + element(c, at) : v; }
#endif

#ifndef SMALL
float term(F32Ptr p, uint i) {
  if (termsType == T_F32) return p.at[i];
  if (termsType == T_F16) return unpackHalf2x16(uint(U16Ptr(p).at[i])).x;
  return bf16Float(uint(U16Ptr(p).at[i]));
}
#endif
// 4 values of a packed row, from a multiple of 4 on: at most 32 bits, in one or two words.
vec4 unpacked(uint row, uint at, uint width) {
  const uint word = row * (width / 32 * bits) + at * bits / 32;
  const uint from = (at * bits) % 32;
  uint v = w.at[word] >> from;
  if (from + 4 * bits > 32) v |= w.at[word + 1] << (32 - from);
  const uint mask = (1u << bits) - 1u;
  const uint group = row * (width / groupSize) + at / groupSize;
#ifdef SMALL
  const uint b = uint(scales.at[group]);
  if (bits == 8) return e8m0(b) * vec4(e4m3(v & mask), e4m3((v >> 8) & mask), e4m3((v >> 16) & mask), e4m3(v >> 24));
  return (groupSize == 16 ? e4m3(b) : e8m0(b)) * vec4(e2m1(v & mask), e2m1((v >> 4) & mask), e2m1((v >> 8) & mask), e2m1((v >> 12) & mask));
#else
  return fma(vec4(v & mask, (v >> bits) & mask, (v >> (2 * bits)) & mask, (v >> (3 * bits)) & mask), vec4(term(scales, group)), vec4(term(biases, group)));
#endif
}

void main() {
  const int tilesM = (M + 63) / 64;
  const int tilesN = (N + 63) / 64;
  const int id = int(gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x);
  const int part = id / (tilesM * tilesN);
  const int within = id - part * tilesM * tilesN;
  const int kBegin = part * kPart;
  if (kBegin >= K && part > 0) return;
  const int kEnd = min(K, kBegin + kPart);
  const int row0 = (within % tilesM) * 64;
  const int col0 = (within / tilesM) * 64;
  const int lane = int(gl_LocalInvocationIndex);
  const int ty = lane / 16;
  const int tx = lane % 16;

  // K is a multiple of 32 with transposed weights, N without.
  const int bn = col0 + (transposed != 0 ? lane / 4 : 4 * (lane % 16));
  const int bk = transposed != 0 ? 4 * (lane % 4) : lane / 16;
  float aNext[4];
  vec4 bNext;
  vec4 sum[4];
  [[unroll]] for (int i = 0; i < 4; i++) sum[i] = vec4(0);

  for (int k0 = kBegin - 16; k0 < kEnd; k0 += 16) {
    [[unroll]] for (int i = 0; i < 4; i++) {
      const int m = row0 + 16 * i + ty;
      const int k = k0 + 16 + tx;
      aNext[i] = 0;
      if (m < M && k < kEnd) aNext[i] = toFloat(x.at[m * K + k]);
    }
    const int k = k0 + 16 + bk;
    bNext = vec4(0);
    if (bn < N && k < kEnd) bNext = transposed != 0 ? unpacked(uint(bn), uint(k), uint(K)) : unpacked(uint(k), uint(bn), uint(N));
    if (k0 >= kBegin) {
      for (int kk = 0; kk < 16; kk++) {
        const vec4 a = aTile[kk][ty];
        const vec4 b = bTile[kk][tx];
        [[unroll]] for (int i = 0; i < 4; i++) sum[i] = fma(vec4(a[i]), b, sum[i]);
      }
    }
    barrier();
    [[unroll]] for (int i = 0; i < 4; i++) aTile[tx][4 * i + ty / 4][ty % 4] = aNext[i];
    if (transposed != 0) {
      [[unroll]] for (int j = 0; j < 4; j++) bTile[bk + j][lane / 16][(lane / 4) % 4] = bNext[j];
    } else bTile[bk][lane % 16] = bNext;
    barrier();
  }

  [[unroll]] for (int i = 0; i < 4; i++) {
    const int m = row0 + 4 * ty + i;
    [[unroll]] for (int j = 0; j < 4; j++) {
      const int n = col0 + 4 * tx + j;
      if (m < M && n < N) {
        const int at = (part * M + m) * N + n;
        const float v = finished(sum[i][j], at, n);
        if (outType == T_F32) o.at[at] = v;
        else if (outType == T_F16) U16Ptr(o).at[at] = uint16_t(f16Bits(v));
        else U16Ptr(o).at[at] = uint16_t(bf16Bits(v));
      }
    }
  }
}
