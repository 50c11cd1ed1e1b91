#version 460
// Rows of x times packed [K, N], packed along N. A lane owns 8 columns; the subgroups of a workgroup, and `parts` workgroups, share the K rows of the matrix.
// With several parts the sums go to a buffer of float32 that sum.comp adds up.
#include "elements.glsl"
#ifdef FLOATS
#include "floats.glsl"
#endif
#include "packed.glsl"
layout(constant_id = 0) const uint lanes = 256;
layout(local_size_x_id = 0) in;
// Lanes side by side in a row of the matrix.
layout(constant_id = 1) const uint across = 32;
// Rows of the matrix that are read at once.
layout(constant_id = 2) const uint steps = 4;
// Rows of x.
layout(constant_id = 3) const uint tile = 1;
layout(constant_id = 4) const uint groupShift = 4;
layout(constant_id = 5) const uint xType = 0;
layout(constant_id = 6) const uint sType = 0;
layout(constant_id = 7) const uint outType = 0;
layout(constant_id = 8) const bool wWide = false;

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
#ifdef GATHER
  U32Ptr lhs;
  U32Ptr rhs;
#endif
  uint M;
  uint K;
  uint units; // of 8 values in a row
  uint length; // rows of the matrix in a part
  uint allRows; // of y
  uint first; // pair and tile of z = 0
#ifdef GATHER
  uint tiles; // of x rows in each pair
  uint matricesOfX;
  uint matricesOfW;
#endif
};

shared float sums[lanes * 8];

void main() {
  const uint down = lanes / across;
  const uint lane = gl_LocalInvocationIndex % across;
  const uint line = gl_LocalInvocationIndex / across;
  const uint u = gl_WorkGroupID.x * across + lane;
  const uint groups = units >> groupShift;
  const uint rowWords = units * BITS / 4;
#ifdef GATHER
  const uint pair = (first + gl_WorkGroupID.z) / tiles;
  const uint m0 = ((first + gl_WorkGroupID.z) % tiles) * tile;
  const uint xFirst = min(lhs.at[pair], matricesOfX - 1) * M;
  const uint wFirst = min(rhs.at[pair], matricesOfW - 1) * K;
  const uint yFirst = pair * M;
#else
  const uint m0 = (first + gl_WorkGroupID.z) * tile;
  const uint xFirst = 0;
  const uint wFirst = 0;
  const uint yFirst = 0;
#endif
  const uint from = gl_WorkGroupID.y * length;
  const uint to = min(from + length, K);
  float acc[tile * 8];
  [[unroll]] for (uint i = 0; i < tile * 8; i++) acc[i] = 0;
  for (uint k0 = from + line * steps; k0 < to; k0 += down * steps) {
    uvec2 p[steps];
    uint s[steps];
    uint b[steps];
    uint xs[steps * tile];
    [[unroll]] for (uint t = 0; t < steps; t++) {
      const uint k = k0 + t;
      p[t] = uvec2(0);
      s[t] = 0;
      b[t] = 0;
      [[unroll]] for (uint m = 0; m < tile; m++) xs[t * tile + m] = 0;
      if (k < to) {
        if (u < units) {
          p[t] = readPacked(w, (wFirst + k) * rowWords, u, wWide);
#ifdef FLOATS
          s[t] = uint(scales.at[(wFirst + k) * groups + (u >> groupShift)]);
#else
          s[t] = readBits(scales, (wFirst + k) * groups + (u >> groupShift), sType);
          b[t] = readBits(biases, (wFirst + k) * groups + (u >> groupShift), sType);
#endif
        }
        [[unroll]] for (uint m = 0; m < tile; m++) xs[t * tile + m] = readBits(x, (xFirst + min(m0 + m, M - 1)) * K + k, xType);
      }
    }
    [[unroll]] for (uint t = 0; t < steps; t++) {
#ifdef FLOATS
      // Outside of the matrix everything is zero.
      const float scale = k0 + t < to && u < units ? scaleValue(s[t]) : 0;
#else
      const float scale = fractionScale * fromBits(s[t], sType);
      const float bias = fromBits(b[t], sType) - scale;
#endif
      [[unroll]] for (uint i = 0; i < 8; i++) {
#ifdef FLOATS
        const float value = scale * valueOf(p[t], i);
#else
        const float value = fma(scale, fractionOf(p[t], i), bias);
#endif
        [[unroll]] for (uint m = 0; m < tile; m++) acc[m * 8 + i] = fma(fromBits(xs[t * tile + m], xType), value, acc[m * 8 + i]);
      }
    }
  }
  const uint N = 8 * units;
  const uint width = 8 * across;
  [[unroll]] for (uint m = 0; m < tile; m++) {
    barrier();
    [[unroll]] for (uint i = 0; i < 8; i++) sums[line * width + i * across + lane] = acc[m * 8 + i];
    barrier();
    if (m0 + m < M) {
      for (uint c = gl_LocalInvocationIndex; c < width; c += lanes) {
        const uint n = gl_WorkGroupID.x * width + c;
        if (n >= N) break;
        float sum = 0;
        for (uint j = 0; j < down; j++) sum += sums[j * width + (c & 7) * across + (c >> 3)];
        writeBits(y, (gl_WorkGroupID.y * allRows + yFirst + m0 + m) * N + n, toBits(sum, outType), outType);
      }
    }
  }
}
