#version 460
// Copies between two layouts of any strides, in units. Without TABLE the outer dimensions are in the push constants; with it they are in a table, and start
// indices that are read here move the source or the destination.
#include "units.glsl"
layout(local_size_x = 256) in;
#ifdef TABLE
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words { int at[]; };
#endif

layout(push_constant) uniform Push {
  UnitPtr src;
  UnitPtr dst;
#ifdef TABLE
  Words starts;
  Words table;
#endif
  // The innermost dimension: units and strides.
  uint inner;
  int srcInner;
  int dstInner;
  // Indices of the outer dimensions, and their number.
  uint rows;
  uint rank;
  uint shift;
#ifdef TABLE
  // Start indices, and 1 when they move the destination. The table has (stride, largest) for each, then the dimensions.
  uint moves;
  uint movesTarget;
#else
  // Size, source stride, destination stride of each outer dimension, outermost first.
  int dims[22];
#endif
};
#ifdef TABLE
#define dim(i) table.at[2u * moves + (i)]
#else
#define dim(i) dims[i]
#endif

void main() {
  const uint row = rowOf(shift);
  if (row >= rows) return;
  int s = 0;
  int d = 0;
  uint left = row;
  for (uint k = rank; k-- > 0u;) {
    uint at = left;
    if (k > 0u) {
      const uint size = uint(dim(3u * k));
      left = at / size;
      at -= left * size;
    }
    s += int(at) * dim(3u * k + 1u);
    d += int(at) * dim(3u * k + 2u);
  }
#ifdef TABLE
  int moved = 0;
  for (uint k = 0; k < moves; k++) {
    const int largest = table.at[2u * k + 1u];
    const int at = starts.at[k];
    moved += table.at[2u * k] * (largest < 0 ? at : clamp(at, 0, largest));
  }
  if (movesTarget == 1u) d += moved;
  else s += moved;
#endif
  // Four at a time, so that their loads are in flight together.
  const uint stride = strideOf(shift);
  for (uint c = firstOf(shift); c < inner; c += 4u * stride) {
    const uint c1 = c + stride;
    const uint c2 = c1 + stride;
    const uint c3 = c2 + stride;
    Value v0 = read(src, s + int(c) * srcInner);
    Value v1;
    Value v2;
    Value v3;
    if (c1 < inner) v1 = read(src, s + int(c1) * srcInner);
    if (c2 < inner) v2 = read(src, s + int(c2) * srcInner);
    if (c3 < inner) v3 = read(src, s + int(c3) * srcInner);
    write(dst, d + int(c) * dstInner, v0);
    if (c1 < inner) write(dst, d + int(c1) * dstInner, v1);
    if (c2 < inner) write(dst, d + int(c2) * dstInner, v2);
    if (c3 < inner) write(dst, d + int(c3) * dstInner, v3);
  }
}
