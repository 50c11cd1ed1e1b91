#version 460
// Random bits: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) over counters. Counter i gives words i and
// half + i of what a key makes, the second rounded up; with an odd number of words the last counter has one.
#extension GL_EXT_buffer_reference : require
#ifdef BYTES
#extension GL_EXT_shader_8bit_storage : require
#endif
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Keys { uint at[]; };
#ifdef BYTES
// Keys do not give whole words: words at odd places go out byte by byte.
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer Words { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer Bits { uint8_t at[]; };
#else
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer Bits { uint at[]; };
#endif

layout(push_constant) uniform Push {
  Keys keys;
  Bits bits;
  uint count;
  // Bytes and words that a key gives.
  uint bytes;
  uint words;
};

void put(uint key, uint i, uint x) {
#ifdef BYTES
  const uint at = key * bytes + 4u * i;
  if ((at & 3u) == 0u && 4u * i + 4u <= bytes) Words(bits).at[at / 4u] = x;
  else for (uint b = 0; b < 4u && 4u * i + b < bytes; b++) bits.at[at + b] = uint8_t(x >> (8u * b));
#else
  bits.at[key * words + i] = x;
#endif
}

#define ROUND(r) x.x += x.y; x.y = ((x.y << r) | (x.y >> (32 - r))) ^ x.x;
#define ROUNDS(a, b, c, d) ROUND(a) ROUND(b) ROUND(c) ROUND(d)
uvec2 threefry(uvec2 key, uvec2 counter) {
  const uint third = key.x ^ key.y ^ 0x1bd11bdau;
  uvec2 x = counter + key;
  ROUNDS(13, 15, 26, 6)
  x += uvec2(key.y, third + 1u);
  ROUNDS(17, 29, 16, 24)
  x += uvec2(third, key.x + 2u);
  ROUNDS(13, 15, 26, 6)
  x += uvec2(key.x, key.y + 3u);
  ROUNDS(17, 29, 16, 24)
  x += uvec2(key.y, third + 4u);
  ROUNDS(13, 15, 26, 6)
  return x + uvec2(third, key.x + 5u);
}

void main() {
  const uint half1 = words / 2u;
  const uint counters = half1 + (words & 1u);
  const uint total = count * counters;
  for (uint unit = gl_GlobalInvocationID.x; unit < total; unit += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
    const uint key = count == 1u ? 0u : unit / counters;
    const uint i = unit - key * counters;
    const bool pair = i < half1;
    const uvec2 x = threefry(uvec2(keys.at[2u * key], keys.at[2u * key + 1u]), uvec2(i, pair ? counters + i : 0u));
    put(key, i, x.x);
    if (pair) put(key, counters + i, x.y);
  }
}
