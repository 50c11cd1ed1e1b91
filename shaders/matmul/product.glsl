// What all dense products share: push constants, where matrix g of an operand lies, how an element of the result is finished.
// out[g] = alpha * a[g] b[g] + beta * c[g], with a [M, K] and b [K, N] by row and column strides. Needs common/types.glsl and the spec constant `flags`.
#define WITH_C 1u
// c and d are lists: for each matrix of the result the number of the matrix of a and of b; c0 and c1 say how many there are.
#define GATHER 2u
// o takes float32 sums over parts of K, [part, g, m, n]; matmul/sum finishes them.
#define PARTS 4u

#ifdef EPILOGUE
// out[g] = epilogue(a[g] b[g], e0, ..., e5); neither c nor lists, rows of o follow each other.
layout(push_constant) uniform Push {
  RawPtr a;
  RawPtr b;
  RawPtr o;
  RawPtr e0, e1, e2, e3, e4, e5;
  int M, N, K;
  int aRow, aCol, bRow, bCol;
  int count, inner;
  int a0, a1, b0, b1;
  int kPart;
};
#elif defined(SIBLINGS)
// Up to three products of a, with the columns of their b along K at one distance; the kernel chooses one of them.
layout(push_constant) uniform Push {
  RawPtr a;
  RawPtr b0, o0, b1, o1, b2, o2;
  int M, K, aRow, aCol, bCol;
  int N0, N1, N2;
};
RawPtr b;
RawPtr o;
int N;
const int count = 1;
#else
layout(push_constant) uniform Push {
  RawPtr a;
  RawPtr b;
  RawPtr o;
  RawPtr c;
  RawPtr d;
  int M, N, K;
  int aRow, aCol, bRow, bCol, oRow, oCol, cRow, cCol;
  float alpha, beta;
  // Matrices of the result, and of its inner batch dimension.
  int count, inner;
  // Strides of the outer and the inner batch dimension.
  int a0, a1, b0, b1, c0, c1;
  // Length of a part of K.
  int kPart;
};
#endif

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer WidePtr { uvec4 at[]; };
#define WIDE (16 / RAW_BYTES)

#ifdef SIBLINGS
#define kPart K
int aMatrix(int g) { return 0; }
int bMatrix(int g) { return 0; }
#else
int aMatrix(int g) {
#ifndef EPILOGUE
  if ((flags & GATHER) != 0) return int(min(U32Ptr(c).at[g], uint(c0 - 1))) * a1;
#endif
  return (g / inner) * a0 + (g % inner) * a1;
}
int bMatrix(int g) {
#ifndef EPILOGUE
  if ((flags & GATHER) != 0) return int(min(U32Ptr(d).at[g], uint(c1 - 1))) * b1;
#endif
  return (g / inner) * b0 + (g % inner) * b1;
}
#endif
int parts() { return max(1, (K + kPart - 1) / kPart); }

// Where the elements of matrix g go.
struct Target {
  int base, row, column, c;
};
Target targetOf(int g, int part) {
  if ((flags & PARTS) != 0) return Target((part * count + g) * M * N, N, 1, 0);
#if defined(EPILOGUE) || defined(SIBLINGS)
  return Target(g * M * N, N, 1, 0);
#else
  return Target(g * M * N, oRow, oCol, (g / inner) * c0 + (g % inner) * c1);
#endif
}
#ifdef EPILOGUE
#include "common/epilogue.glsl"
float operand(RawPtr p, uint kind, int at, int n) {
  if (kind == NO_OPERAND) return 0;
  return toFloat(p.at[placeIn(kind, at, n)]);
}
void put(Target t, int m, int n, float v) {
  const int at = t.base + m * t.row + n;
  if ((flags & PARTS) != 0) F32Ptr(o).at[at] = v;
  else
    o.at[at] = fromFloat(epilogue(v, operand(e0, KIND(0), at, n), operand(e1, KIND(1), at, n), operand(e2, KIND(2), at, n), operand(e3, KIND(3), at, n), operand(e4, KIND(4), at, n), operand(e5, KIND(5), at, n)));
}
#elif defined(SIBLINGS)
void put(Target t, int m, int n, float v) { o.at[m * N + n] = fromFloat(v); }
#else
void put(Target t, int m, int n, float v) {
  const int at = t.base + m * t.row + n * t.column;
  if ((flags & PARTS) != 0) {
    F32Ptr(o).at[at] = v;
    return;
  }
  v *= alpha;
  if ((flags & WITH_C) != 0) v += beta * toFloat(c.at[t.c + m * cRow + n * cCol]);
  o.at[at] = fromFloat(v);
}
#endif

// A workgroup's place: tile, part of K, matrix. Tiles are walked in bands of 8 tile rows, so that workgroups that run together share operands in the cache.
struct Place {
  int m, n, part, g;
};
Place placeOf(int id, int tilesM, int tilesN) {
  const int tiles = tilesM * tilesN;
  const int rest = id / tiles;
  const int t = id - rest * tiles;
  const int band = t / (8 * tilesN);
  const int height = min(8, tilesM - 8 * band);
  const int within = t - band * 8 * tilesN;
  const int n = within / height;
  return Place(8 * band + within - n * height, n, rest % parts(), rest / parts());
}

#if RAW_BYTES == 4
float wideElement(uvec4 v, int i) { return uintBitsToFloat(v[i]); }
#elif T == T_F16
float wideElement(uvec4 v, int i) { return unpackHalf2x16(v[i >> 1])[i & 1]; }
#else
float wideElement(uvec4 v, int i) { return uintBitsToFloat((i & 1) == 0 ? v[i >> 1] << 16 : v[i >> 1] & 0xffff0000u); }
#endif
