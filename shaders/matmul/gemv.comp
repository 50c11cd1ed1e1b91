#version 460
// Few rows of a times columns of b that lie contiguously along K (bRow = 1): a subgroup makes R columns for MT rows, its lanes share K.
// Bound by reading b once: 16 bytes a load, 4 loads in flight per invocation.
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "common/types.glsl"
layout(constant_id = 0) const uint flags = 0;
layout(constant_id = 1) const uint lanes = 128;
// Rows of a that share one read of b.
layout(constant_id = 2) const uint MT = 1;
layout(constant_id = 3) const uint R = 1;
// Addresses and strides allow 16-byte reads.
layout(constant_id = 4) const uint aWide = 0;
layout(constant_id = 5) const uint bWide = 0;
layout(local_size_x_id = 1) in;
#include "product.glsl"

const uint ahead = 4 / R;
float sum[MT][R];

void widen(uvec4 v, out float f[WIDE]) { [[unroll]] for (int i = 0; i < WIDE; i++) f[i] = wideElement(v, i); }

// Adds 16 bytes of each of R columns, at k, times the MT rows.
void multiplyWide(uvec4 w[R], int aBase, int m0, int k) {
  float y[R][WIDE];
  [[unroll]] for (int r = 0; r < R; r++) widen(w[r], y[r]);
  [[unroll]] for (int m = 0; m < MT; m++) {
    const int at = aBase + min(m0 + m, M - 1) * aRow + k * aCol;
    float x[WIDE];
    if (aWide != 0) widen(WidePtr(a).at[at / WIDE], x);
    else [[unroll]] for (int i = 0; i < WIDE; i++) x[i] = toFloat(a.at[at + i * aCol]);
    [[unroll]] for (int r = 0; r < R; r++)
      [[unroll]] for (int i = 0; i < WIDE; i++) sum[m][r] = fma(x[i], y[r][i], sum[m][r]);
  }
}

#ifdef SIBLINGS
// Sets b, o and N for a workgroup; gives its number within the product. Every product has as many workgroups as it takes, `each` columns in one.
int chosen(int id, int each) {
  const int second = (N0 + each - 1) / each;
  const int third = second + (N1 + each - 1) / each;
  b = id < second ? b0 : id < third ? b1 : b2;
  o = id < second ? o0 : id < third ? o1 : o2;
  N = id < second ? N0 : id < third ? N1 : N2;
  return id < second ? id : id < third ? id - second : id - third;
}
#endif

void main() {
  const int chunks = (M + int(MT) - 1) / int(MT);
  const int id = int(gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y);
  const int m0 = (id % chunks) * int(MT);
  const int part = (id / chunks) % parts();
  const int g = id / chunks / parts();
  if (g >= count) return;
  const Target target = targetOf(g, part);
  const int aBase = aMatrix(g);
  const int bBase = bMatrix(g);
  const int kBegin = part * kPart;
  const int kEnd = min(K, kBegin + kPart);
  const int lane = int(gl_SubgroupInvocationID);
  const int side = int(gl_SubgroupSize);
  const int each = int(gl_NumSubgroups * R);
#ifdef SIBLINGS
  const int first = chosen(int(gl_WorkGroupID.x), each);
  const int across = (N + each - 1) / each;
#else
  const int first = int(gl_WorkGroupID.x);
  const int across = int(gl_NumWorkGroups.x);
#endif

  for (int n0 = first * each + int(gl_SubgroupID * R); n0 < N; n0 += across * each) {
    int column[R];
    [[unroll]] for (int r = 0; r < R; r++) column[r] = bBase + min(n0 + r, N - 1) * bCol;
    [[unroll]] for (int m = 0; m < MT; m++)
      [[unroll]] for (int r = 0; r < R; r++) sum[m][r] = 0;
    int k = kBegin;
    if (bWide != 0) {
      const int step = side * WIDE;
      k += lane * WIDE;
      for (; k + (int(ahead) - 1) * step + WIDE <= kEnd; k += int(ahead) * step) {
        uvec4 w[ahead][R];
        [[unroll]] for (int u = 0; u < ahead; u++)
          [[unroll]] for (int r = 0; r < R; r++) w[u][r] = WidePtr(b).at[(column[r] + k + u * step) / WIDE];
        [[unroll]] for (int u = 0; u < ahead; u++) multiplyWide(w[u], aBase, m0, k + u * step);
      }
      for (; k + WIDE <= kEnd; k += step) {
        uvec4 w[R];
        [[unroll]] for (int r = 0; r < R; r++) w[r] = WidePtr(b).at[(column[r] + k) / WIDE];
        multiplyWide(w, aBase, m0, k);
      }
      // What is left of K is less than 16 bytes.
      k = kEnd - kEnd % WIDE;
    }
    for (k += lane; k < kEnd; k += side) {
      [[unroll]] for (int r = 0; r < R; r++) {
        const float y = toFloat(b.at[column[r] + k]);
        [[unroll]] for (int m = 0; m < MT; m++) sum[m][r] = fma(toFloat(a.at[aBase + min(m0 + m, M - 1) * aRow + k * aCol]), y, sum[m][r]);
      }
    }
    [[unroll]] for (int m = 0; m < MT; m++)
      [[unroll]] for (int r = 0; r < R; r++) {
        const float v = subgroupAdd(sum[m][r]);
        if (lane == 0 && m0 + m < M && n0 + r < N) put(target, m0 + m, n0 + r, v);
      }
  }
}
