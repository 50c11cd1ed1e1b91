#version 460
// Product of matrices with any strides: a workgroup of 16 x 16 invocations makes a tile of 16 R x 16 R, each invocation R x R elements in registers.
// Tiles of a and b go through shared memory as float32, k-major; the next ones are read into registers while the present ones are multiplied.
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
layout(constant_id = 0) const uint flags = 0;
// Which dimension neighbouring invocations read along: 1 for K, 0 for the other one.
layout(constant_id = 1) const uint aAlongK = 1;
layout(constant_id = 2) const uint bAlongK = 0;
layout(local_size_x = 256) in;
#include "product.glsl"

#define TILE (16 * R)
#define STEP 16
#define QUADS (R / 4)

shared vec4 aTile[STEP][TILE / 4 + 1];
shared vec4 bTile[STEP][TILE / 4 + 1];

// (outer, k) of the i-th element that this invocation moves.
ivec2 slot(int i, uint alongK) {
  const int e = i * 256 + int(gl_LocalInvocationIndex);
  return alongK != 0 ? ivec2(e / STEP, e % STEP) : ivec2(e % TILE, e / TILE);
}

void main() {
  const int tilesM = (M + TILE - 1) / TILE;
  const int tilesN = (N + TILE - 1) / TILE;
  const int id = int(gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x);
  const Place at = placeOf(id, tilesM, tilesN);
  if (at.g >= count) return;
  const int row0 = at.m * TILE;
  const int col0 = at.n * TILE;
  const int aBase = aMatrix(at.g);
  const int bBase = bMatrix(at.g);
  const int kBegin = at.part * kPart;
  const int kEnd = min(K, kBegin + kPart);
  const int ty = int(gl_LocalInvocationIndex) / 16;
  const int tx = int(gl_LocalInvocationIndex) % 16;

  float aNext[R], bNext[R];
  vec4 sum[R][QUADS];
  [[unroll]] for (int i = 0; i < R; i++)
    [[unroll]] for (int q = 0; q < QUADS; q++) sum[i][q] = vec4(0);

  for (int k0 = kBegin - STEP; k0 < kEnd; k0 += STEP) {
    const int next = k0 + STEP;
    [[unroll]] for (int i = 0; i < R; i++) {
      const ivec2 s = slot(i, aAlongK);
      const int m = row0 + s.x;
      const int k = next + s.y;
      aNext[i] = 0;
      if (m < M && k < kEnd) aNext[i] = toFloat(a.at[aBase + m * aRow + k * aCol]);
    }
    [[unroll]] for (int i = 0; i < R; i++) {
      const ivec2 s = slot(i, bAlongK);
      const int n = col0 + s.x;
      const int k = next + s.y;
      bNext[i] = 0;
      if (n < N && k < kEnd) bNext[i] = toFloat(b.at[bBase + k * bRow + n * bCol]);
    }
    if (k0 >= kBegin) {
      for (int k = 0; k < STEP; k++) {
        vec4 x[QUADS], y[QUADS];
        [[unroll]] for (int q = 0; q < QUADS; q++) {
          x[q] = aTile[k][16 * q + ty];
          y[q] = bTile[k][16 * q + tx];
        }
        [[unroll]] for (int i = 0; i < R; i++)
          [[unroll]] for (int q = 0; q < QUADS; q++) sum[i][q] = fma(vec4(x[i / 4][i % 4]), y[q], sum[i][q]);
      }
    }
    barrier();
    [[unroll]] for (int i = 0; i < R; i++) {
      const ivec2 s = slot(i, aAlongK);
      aTile[s.y][s.x / 4][s.x % 4] = aNext[i];
      const ivec2 t = slot(i, bAlongK);
      bTile[t.y][t.x / 4][t.x % 4] = bNext[i];
    }
    barrier();
  }

  const Target target = targetOf(at.g, at.part);
#ifdef EPILOGUE
  // A row of the invocation's elements at a time goes through places in shared memory that no other invocation uses: so the epilogue stands R times in the code, and
  // not R * R times, while the sums stay in registers. All have left the tiles at the last barrier.
  [[unroll]] for (int i = 0; i < R; i++) {
    const int m = row0 + 64 * (i / 4) + 4 * ty + i % 4;
    const int first = int(gl_LocalInvocationIndex) * QUADS;
    [[unroll]] for (int q = 0; q < QUADS; q++) aTile[(first + q) % STEP][(first + q) / STEP] = sum[i][q];
    [[dont_unroll]] for (int j = 0; j < R; j++) {
      const int n = col0 + 64 * (j / 4) + 4 * tx + j % 4;
      const int from = first + j / 4;
      if (m < M && n < N) put(target, m, n, aTile[from % STEP][from / STEP][j % 4]);
    }
  }
#else
  [[unroll]] for (int i = 0; i < R; i++) {
    const int m = row0 + 64 * (i / 4) + 4 * ty + i % 4;
    [[unroll]] for (int q = 0; q < QUADS; q++)
      [[unroll]] for (int j = 0; j < 4; j++) {
        const int n = col0 + 64 * q + 4 * tx + j;
        if (m < M && n < N) put(target, m, n, sum[i][q][j]);
      }
  }
#endif
}
