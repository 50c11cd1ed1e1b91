#version 460
// Few rows of a times a matrix b whose columns are neighbours (any strides when C is 1): 32 invocations side by side take C columns each for MT rows,
// 8 such rows of invocations share K and add up in shared memory.
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
layout(constant_id = 0) const uint flags = 0;
layout(constant_id = 1) const uint MT = 1;
// Columns of an invocation: 1, or those in 16 bytes when addresses and strides allow it.
layout(constant_id = 2) const uint C = 1;
layout(local_size_x = 32, local_size_y = 8) in;
#include "product.glsl"

shared float part8[8][32 * C];

void main() {
  const int across = 32 * int(C);
  const int chunks = (M + int(MT) - 1) / int(MT);
  const int id = int(gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y);
  const int m0 = (id % chunks) * int(MT);
  const int part = (id / chunks) % parts();
  const int g = id / chunks / parts();
  if (g >= count) return;
  const Target target = targetOf(g, part);
  const int aBase = aMatrix(g);
  const int bBase = bMatrix(g);
  const int kEnd = min(K, (part + 1) * kPart);
  const int lx = int(gl_LocalInvocationID.x);
  const int ly = int(gl_LocalInvocationID.y);

  for (int n0 = int(gl_WorkGroupID.x) * across; n0 < N; n0 += int(gl_NumWorkGroups.x) * across) {
    const int n = n0 + lx * int(C);
    float sum[MT][C];
    [[unroll]] for (int m = 0; m < MT; m++)
      [[unroll]] for (int j = 0; j < C; j++) sum[m][j] = 0;
    // With C > 1 the number of columns is a multiple of C.
    if (n < N) {
      for (int k0 = part * kPart + ly; k0 < kEnd; k0 += 32) {
        float y[4][C];
        [[unroll]] for (int u = 0; u < 4; u++) {
          const int k = min(k0 + 8 * u, kEnd - 1);
          const int at = bBase + k * bRow + n * bCol;
          if (C > 1) {
            const uvec4 v = WidePtr(b).at[at / WIDE];
            [[unroll]] for (int j = 0; j < C; j++) y[u][j] = wideElement(v, j);
          } else y[u][0] = toFloat(b.at[at]);
        }
        [[unroll]] for (int u = 0; u < 4; u++) {
          const int k = k0 + 8 * u;
          if (k < kEnd) {
            [[unroll]] for (int m = 0; m < MT; m++) {
              const float x = toFloat(a.at[aBase + min(m0 + m, M - 1) * aRow + k * aCol]);
              [[unroll]] for (int j = 0; j < C; j++) sum[m][j] = fma(x, y[u][j], sum[m][j]);
            }
          }
        }
      }
    }
    [[unroll]] for (int m = 0; m < MT; m++) {
      [[unroll]] for (int j = 0; j < C; j++) part8[ly][lx * C + j] = sum[m][j];
      barrier();
      for (int i = int(gl_LocalInvocationIndex); i < across; i += 256) {
        float v = 0;
        for (int p = 0; p < 8; p++) v += part8[p][i];
        if (n0 + i < N && m0 + m < M) put(target, m0 + m, n0 + i, v);
      }
      barrier();
    }
  }
}
