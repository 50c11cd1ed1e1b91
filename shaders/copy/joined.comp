#version 460
// Rows made of rows of up to four sources, one after the other.
#include "units.glsl"
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
  UnitPtr dst;
  UnitPtr src0;
  UnitPtr src1;
  UnitPtr src2;
  UnitPtr src3;
  uint rows;
  // Units of a row of the destination.
  uint width;
  uint shift;
  // Of each source: units of a row, their place in the destination's row, row stride.
  uint run[4];
  uint place[4];
  int step[4];
};

void main() {
  const uint k = gl_WorkGroupID.z;
  UnitPtr src = src0;
  if (k == 1u) src = src1;
  if (k == 2u) src = src2;
  if (k == 3u) src = src3;
  const uint count = run[k];
  const uint perGroup = LANES >> shift;
  const uint stride = strideOf(shift);
  for (uint row = gl_WorkGroupID.y * perGroup + (gl_LocalInvocationIndex >> shift); row < rows; row += gl_NumWorkGroups.y * perGroup) {
    const int s = int(row) * step[k];
    const uint d = row * width + place[k];
    for (uint c = firstOf(shift); c < count; c += 2u * stride) {
      const uint c1 = c + stride;
      Value v0 = read(src, s + int(c));
      Value v1;
      if (c1 < count) v1 = read(src, s + int(c1));
      writeUp(dst, d + c, v0);
      if (c1 < count) writeUp(dst, d + c1, v1);
    }
  }
}
