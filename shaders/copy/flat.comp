#version 460
// Copies a run of bytes, both sides at multiples of 16.
#define UNIT 16
#include "units.glsl"
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer BytePtr { uint8_t at[]; };

layout(push_constant) uniform Push {
  UnitPtr src;
  UnitPtr dst;
  // Units of 16 bytes, and bytes behind them.
  uint units;
  uint tail;
};

void main() {
  const uint stride = gl_NumWorkGroups.x * LANES;
  const uint first = gl_GlobalInvocationID.x;
  for (uint c = first; c < units; c += 4u * stride) {
    const uint c1 = c + stride;
    const uint c2 = c1 + stride;
    const uint c3 = c2 + stride;
    Value v0 = readUp(src, c);
    Value v1;
    Value v2;
    Value v3;
    if (c1 < units) v1 = readUp(src, c1);
    if (c2 < units) v2 = readUp(src, c2);
    if (c3 < units) v3 = readUp(src, c3);
    writeUp(dst, c, v0);
    if (c1 < units) writeUp(dst, c1, v1);
    if (c2 < units) writeUp(dst, c2, v2);
    if (c3 < units) writeUp(dst, c3, v3);
  }
  if (first < tail) BytePtr(dst).at[16u * units + first] = BytePtr(src).at[16u * units + first];
}
