#version 460
// Few rows of x times packed [N, K]. A lane reads 32 values of each of `rows` rows of the matrix at once, which have one scale and one bias; `split` subgroups
// share the length of a row. The words of all `steps` are asked for first; while they travel, the workgroup puts x into shared memory, in an order in which its
// lanes read it without conflicts, with the sums of every 8 values. Per group of values, sum(x * (scale * q + bias)) is scale * sum(x * q) + bias * sum(x).
// With FLOATS the matrix is made of small floats, without biases.
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "elements.glsl"
#ifdef FLOATS
#include "floats.glsl"
#endif
#include "packed.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint sub = 32;
layout(constant_id = 2) const uint rows = 2;
layout(constant_id = 3) const uint steps = 1;
layout(constant_id = 4) const uint split = 1;
// Rows of x.
layout(constant_id = 5) const uint tile = 1;
// log2 of the groups' size over 32
layout(constant_id = 6) const uint groupShift = 2;
layout(constant_id = 7) const uint xType = 0;
layout(constant_id = 8) const uint sType = 0;
layout(constant_id = 9) const uint outType = 0;
// Addresses that allow wide loads.
layout(constant_id = 10) const bool xWide = false;
layout(constant_id = 11) const bool wWide = false;
// Steps, lanes and subgroups divide the row exactly.
layout(constant_id = 12) const bool even = false;

#ifdef EPILOGUE
layout(constant_id = 13) const uint flags = 0;
#include "common/epilogue.glsl"
#endif

#ifdef SIBLINGS
// Up to three matrices, one behind the other; a workgroup chooses one of them.
#ifdef FLOATS
#define MATRIX(i) U32Ptr w##i; U8Ptr scales##i; U32Ptr y##i;
#else
#define MATRIX(i) U32Ptr w##i; U32Ptr scales##i; U32Ptr biases##i; U32Ptr y##i;
#endif
layout(push_constant) uniform Push {
  U32Ptr x;
  MATRIX(0) MATRIX(1) MATRIX(2)
  uint M;
  uint N0, N1, N2;
  uint units; // of 32 values in a row
  uint first; // tile of z = 0
};
U32Ptr w;
#ifdef FLOATS
U8Ptr scales;
#else
U32Ptr scales;
U32Ptr biases;
#endif
U32Ptr y;
uint N;
// Sets them for a workgroup; gives its number within the product. Every matrix has as many workgroups as it takes, `each` rows in one.
uint chosen(uint id, uint each) {
  const uint second = (N0 + each - 1) / each;
  const uint third = second + (N1 + each - 1) / each;
  w = id < second ? w0 : id < third ? w1 : w2;
  scales = id < second ? scales0 : id < third ? scales1 : scales2;
#ifndef FLOATS
  biases = id < second ? biases0 : id < third ? biases1 : biases2;
#endif
  y = id < second ? y0 : id < third ? y1 : y2;
  N = id < second ? N0 : id < third ? N1 : N2;
  return id < second ? id : id < third ? id - second : id - third;
}
#else
layout(push_constant) uniform Push {
  U32Ptr x;
  U32Ptr w;
#ifdef FLOATS
  U8Ptr scales;
#else
  U32Ptr scales;
  U32Ptr biases;
#endif
  U32Ptr y;
#ifdef EPILOGUE
  U32Ptr e0, e1, e2, e3, e4, e5;
#endif
#ifdef GATHER
  U32Ptr lhs;
  U32Ptr rhs;
#endif
  uint M;
  uint N;
  uint units; // of 32 values in a row
#ifdef GATHER
  uint tiles; // of x rows in each pair
#endif
  uint first; // tile of z = 0
#ifdef GATHER
  uint matricesOfX;
  uint matricesOfW;
#endif
};
#endif

#ifdef EPILOGUE
float operand(U32Ptr p, uint kind, uint at, uint n) {
  if (kind == NO_OPERAND) return 0;
  return fromBits(readBits(p, uint(placeIn(kind, int(at), int(n))), outType), outType);
}
// Stores column n of a row of y. Once only: y may lie over an operand.
void put(uint row, uint n, float sum) {
  const uint at = row * N + n;
  const float v = epilogue(sum, operand(e0, KIND(0), at, n), operand(e1, KIND(1), at, n), operand(e2, KIND(2), at, n), operand(e3, KIND(3), at, n), operand(e4, KIND(4), at, n), operand(e5, KIND(5), at, n));
  writeBits(y, at, toBits(v, outType), outType);
}
#else
#define put(row, n, sum) writeBits(y, (row) * N + (n), toBits(sum, outType), outType)
#endif

// Units that the workgroup works on at once, and the distance of a unit's vectors in shared memory: odd, so that writes do not meet in one bank.
const uint span = steps * split * sub;
const uint pitch = span | 1u;
const uint vectors = xType == typeF32 ? 8 : 4;
shared uvec4 staged[tile * vectors * pitch];
#ifndef FLOATS
shared float stagedSums[tile * 4 * pitch];
#endif
shared float parts[lanes / sub * rows * tile];

void stage(uint xRow, uint m0, uint from) {
  for (uint i = gl_LocalInvocationIndex; i < tile * span * 4; i += lanes) {
    const uint m = i / (span * 4);
    const uint j = i / 4 % span;
    const uint c = i % 4;
    Eight e = Eight(uvec4(0), uvec4(0));
    if (even || from + j < units) e = readEight(x, ((xRow + min(m0 + m, M - 1)) * units + from + j) * 32 + 8 * c, xType, xWide);
#ifndef FLOATS
    float v[8];
    unpackEight(e, xType, v);
    stagedSums[(m * 4 + c) * pitch + j] = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
#endif
    if (xType == typeF32) {
      staged[(m * 8 + 2 * c) * pitch + j] = e.a;
      staged[(m * 8 + 2 * c + 1) * pitch + j] = e.b;
    } else staged[(m * 4 + c) * pitch + j] = e.a;
  }
}
Eight stagedEight(uint m, uint c, uint j) {
  if (xType == typeF32) return Eight(staged[(m * 8 + 2 * c) * pitch + j], staged[(m * 8 + 2 * c + 1) * pitch + j]);
  return Eight(staged[(m * 4 + c) * pitch + j], uvec4(0));
}

#ifdef FLOATS
// The bytes of the scales of 32 values.
uint readScales(uint row, uint u) {
#if FLOATS == 2
  return uint(scales.at[2 * (row * units + u)]) | (uint(scales.at[2 * (row * units + u) + 1]) << 8);
#else
  return uint(scales.at[row * units + u]);
#endif
}
#endif

// The product of one row each, value by value: where the fast sums are not finite, they say nothing about the true ones.
float exactRow(uint xRow, uint wRow) {
  const uint eights = units * 4;
  const uint groups = units >> groupShift;
  float sum = 0;
  for (uint u = gl_SubgroupInvocationID; u < eights; u += sub) {
    float v[8];
    unpackEight(readEight(x, (xRow * eights + u) * 8, xType, xWide), xType, v);
    const uvec2 p = readPacked(w, wRow * units * BITS, u, false);
#ifdef FLOATS
    const float scale = scaleValue((readScales(wRow, u >> 2) >> (FLOATS == 2 ? (u & 2) * 4 : 0)) & 255u);
    [[unroll]] for (uint i = 0; i < 8; i++) sum += v[i] * (scale * valueOf(p, i));
#else
    const uint g = wRow * groups + (u >> (2 + groupShift));
    const float scale = fromBits(readBits(scales, g, sType), sType);
    const float bias = fromBits(readBits(biases, g, sType), sType);
    [[unroll]] for (uint i = 0; i < 8; i++) sum += v[i] * (scale * float(integerOf(p, i)) + bias);
#endif
  }
  return subgroupAdd(sum);
}

void main() {
  const uint lane = gl_SubgroupInvocationID;
  const uint part = gl_SubgroupID % split;
  const uint blocks = lanes / (sub * split);
  const uint id = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
#ifdef SIBLINGS
  const uint row0 = (chosen(id, blocks * rows) * blocks + gl_SubgroupID / split) * rows;
#else
  const uint row0 = (id * blocks + gl_SubgroupID / split) * rows;
#endif
  const uint groups = units >> groupShift;
#ifdef GATHER
  const uint pair = (first + gl_WorkGroupID.z) / tiles;
  const uint m0 = ((first + gl_WorkGroupID.z) % tiles) * tile;
  const uint xFirst = min(lhs.at[pair], matricesOfX - 1) * M;
  const uint wFirst = min(rhs.at[pair], matricesOfW - 1) * N;
  const uint yFirst = pair * M;
#else
  const uint m0 = (first + gl_WorkGroupID.z) * tile;
  const uint xFirst = 0;
  const uint wFirst = 0;
  const uint yFirst = 0;
#endif
  float sums[rows * tile];
  [[unroll]] for (uint i = 0; i < rows * tile; i++) sums[i] = 0;

  for (uint from = 0; from < units; from += span) {
    Packed32 p[steps * rows];
    uint s[steps * rows];
    uint b[steps * rows];
    [[unroll]] for (uint t = 0; t < steps; t++) {
      const uint u = from + (part * steps + t) * sub + lane;
      [[unroll]] for (uint r = 0; r < rows; r++) {
        const uint i = t * rows + r;
        [[unroll]] for (uint k = 0; k < BITS; k++) p[i].words[k] = 0;
        s[i] = 0;
        b[i] = 0;
        if (even || u < units) {
          // Rows beyond the last are read as the last, and not written.
          const uint row = wFirst + min(row0 + r, N - 1);
          p[i] = readPacked32(w, (row * units + u) * BITS, wWide);
#ifdef FLOATS
          s[i] = readScales(row, u);
#else
          s[i] = readBits(scales, row * groups + (u >> groupShift), sType);
          b[i] = readBits(biases, row * groups + (u >> groupShift), sType);
#endif
        }
      }
    }
    if (from > 0) barrier();
    stage(xFirst, m0, from);
    barrier();
    [[unroll]] for (uint t = 0; t < steps; t++) {
      const uint j = (part * steps + t) * sub + lane;
      float dots[rows * tile];
      [[unroll]] for (uint i = 0; i < rows * tile; i++) dots[i] = 0;
      [[unroll]] for (uint c = 0; c < 4; c++) {
        float v[tile * 8];
        [[unroll]] for (uint m = 0; m < tile; m++) {
          float e[8];
          unpackEight(stagedEight(m, c, j), xType, e);
          [[unroll]] for (uint i = 0; i < 8; i++) v[m * 8 + i] = e[i];
        }
        [[unroll]] for (uint r = 0; r < rows; r++) {
          [[unroll]] for (uint i = 0; i < 8; i++) {
#ifdef FLOATS
            const float q = valueOf32(p[t * rows + r], 8 * c + i);
#else
            const float q = fractionOf32(p[t * rows + r], 8 * c + i);
#endif
            [[unroll]] for (uint m = 0; m < tile; m++) dots[r * tile + m] = fma(v[m * 8 + i], q, dots[r * tile + m]);
          }
#ifdef FLOATS
          if (c == 3 || (FLOATS == 2 && c == 1)) {
            const float scale = scaleValue((s[t * rows + r] >> (FLOATS == 2 && c == 3 ? 8 : 0)) & 255u);
            [[unroll]] for (uint m = 0; m < tile; m++) {
              sums[r * tile + m] = fma(scale, dots[r * tile + m], sums[r * tile + m]);
              dots[r * tile + m] = 0;
            }
          }
#endif
        }
      }
#ifndef FLOATS
      [[unroll]] for (uint m = 0; m < tile; m++) {
        float total = 0;
        [[unroll]] for (uint c = 0; c < 4; c++) total += stagedSums[(m * 4 + c) * pitch + j];
        [[unroll]] for (uint r = 0; r < rows; r++) {
          const float scale = fractionScale * fromBits(s[t * rows + r], sType);
          const float bias = fromBits(b[t * rows + r], sType) - scale;
          sums[r * tile + m] = fma(scale, dots[r * tile + m], fma(bias, total, sums[r * tile + m]));
        }
      }
#endif
    }
  }

  [[unroll]] for (uint i = 0; i < rows * tile; i++) sums[i] = subgroupAdd(sums[i]);
  if (split > 1) {
    if (lane == 0) {
      [[unroll]] for (uint i = 0; i < rows * tile; i++) parts[gl_SubgroupID * rows * tile + i] = sums[i];
    }
    barrier();
    if (part > 0) return;
    [[unroll]] for (uint k = 1; k < split; k++) {
      [[unroll]] for (uint i = 0; i < rows * tile; i++) sums[i] += parts[(gl_SubgroupID + k) * rows * tile + i];
    }
  }
  uint wrong = 0;
  [[unroll]] for (uint r = 0; r < rows; r++) {
    [[unroll]] for (uint m = 0; m < tile; m++) {
      const uint i = r * tile + m;
      if ((floatBitsToUint(sums[i]) & 0x7f800000u) == 0x7f800000u) wrong |= 1u << i;
#ifdef EPILOGUE
      else
#endif
      if (row0 + r < N && m0 + m < M && lane == i % sub) put(yFirst + m0 + m, row0 + r, sums[i]);
    }
  }
  for (uint i = 0; wrong != 0; i++, wrong >>= 1) {
    const uint r = row0 + i / tile;
    const uint m = m0 + i % tile;
    if ((wrong & 1u) == 0 || r >= N || m >= M) continue;
    const float sum = exactRow(xFirst + m, wFirst + r);
    if (lane == i % sub) put(yFirst + m, r, sum);
  }
}
