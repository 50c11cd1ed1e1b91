#version 460
// Fills memory, which begins at a multiple of 16, with an element.
#define UNIT 16
#include "units.glsl"
#include "splat.glsl"
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TailPtr { uint8_t at[]; };

layout(push_constant) uniform Push {
  uvec2 value;
  UnitPtr dst;
  // Units of 16 bytes, bytes behind them, bytes of an element.
  uint units;
  uint tail;
  uint size;
};

void main() {
  const uvec2 words = splat(value, size);
  const uint first = gl_GlobalInvocationID.x;
  for (uint c = first; c < units; c += gl_NumWorkGroups.x * LANES) writeUp(dst, c, fromSplat(words));
  if (first < tail) TailPtr(dst).at[16u * units + first] = uint8_t((first & 4u) == 0u ? words.x >> (8u * (first & 3u)) : words.y >> (8u * (first & 3u)));
}
