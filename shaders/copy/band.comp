#version 460
// Matrices that are zero outside of a band of diagonals.
#include "units.glsl"
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
  UnitPtr src;
  UnitPtr dst;
  // Rows in all, rows and columns of a matrix.
  uint rows;
  uint height;
  uint columns;
  // Elements (i, j) with low <= j - i <= high belong to the band.
  int low;
  int high;
  // What stands there: 0 the source's element at the same place, 1 its only element, 2 element min(i, j), for one diagonal.
  uint kind;
  int step;
  uint shift;
};

void main() {
  const uint row = rowOf(shift);
  if (row >= rows) return;
  const int i = int(row % height);
  for (uint c = firstOf(shift); c < columns; c += strideOf(shift)) {
    const int across = int(c) - i;
    const uint at = row * columns + c;
    Value v = Value(0);
    if (across >= low && across <= high) v = read(src, kind == 0u ? int(at) : kind == 1u ? 0 : min(i, int(c)) * step);
    writeUp(dst, at, v);
  }
}
