#version 460
// An array inside of a larger one, with an element around it.
#include "units.glsl"
#include "splat.glsl"
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
  UnitPtr src;
  uvec2 value;
  UnitPtr dst;
  uint rows;
  uint rank;
  uint shift;
  // Bytes of an element.
  uint size;
  // Innermost dimension, then the outer ones: size of the output, where the source begins, size of the source, source stride.
  int dims[20];
};

void main() {
  const uint row = rowOf(shift);
  if (row >= rows) return;
  int s = 0;
  bool inside = true;
  uint left = row;
  for (uint k = rank; k > 0u; k--) {
    const uint width = uint(dims[4u * k]);
    const uint next = left / width;
    const int at = int(left - next * width) - dims[4u * k + 1u];
    left = next;
    inside = inside && at >= 0 && at < dims[4u * k + 2u];
    s += at * dims[4u * k + 3u];
  }
  const Value around = fromSplat(splat(value, size));
  const uint inner = uint(dims[0]);
  for (uint c = firstOf(shift); c < inner; c += strideOf(shift)) {
    const int at = int(c) - dims[1];
    Value v = around;
    if (inside && at >= 0 && at < dims[2]) v = read(src, s + at * dims[3]);
    writeUp(dst, row * inner + c, v);
  }
}
