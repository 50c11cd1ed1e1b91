#version 460
// Packs groups of values by MLX's rule: of a group's two edges the one of larger magnitude is represented exactly. Each invocation packs 8 values; those of a
// group exchange their edges through shared memory. Every step is rounded as on the CPU, so that both give the same integers.
#include "elements.glsl"
#include "division.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint groupShift = 4;
layout(constant_id = 2) const uint type = 0;
layout(constant_id = 3) const bool wide = false;
layout(push_constant) uniform Push {
  U32Ptr x;
  U32Ptr packed;
  U32Ptr scales;
  U32Ptr biases;
  uint units;
};
shared float highs[lanes];
shared float lows[lanes];
shared uint words[lanes * BITS / 4];

const float top = float((1u << BITS) - 1u);

// Nearest integer, even in the middle between two: some drivers' roundEven rounds the middle up.
float nearest(float x) {
  const float below = floor(x);
  const float rest = x - below;
  return rest > 0.5 || (rest == 0.5 && 2 * floor(0.5 * below) != below) ? below + 1 : below;
}

uint integerFor(float v, float scale, float bias) {
  precise const float distance = v - bias;
  float t = distance / scale;
  // Only where the quotient is near the middle of two integers do its last bits matter.
  if (abs(t - floor(t) - 0.5) < 0.001) t = divide(distance, scale);
  const float n = nearest(t);
  return n > 0 ? uint(min(n, top)) : 0;
}

void main() {
  const uint id = gl_LocalInvocationIndex;
  const uint group0 = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes;
  const uint u = group0 + id;
  float v[8];
  unpackEight(readEight(x, 8 * min(u, units - 1), type, wide), type, v);
  float high = -1.0 / 0.0;
  float low = 1.0 / 0.0;
  [[unroll]] for (uint i = 0; i < 8; i++) {
    if (v[i] > high) high = v[i];
    if (v[i] < low) low = v[i];
  }
  highs[id] = high;
  lows[id] = low;
  for (uint i = id; i < lanes * BITS / 4; i += lanes) words[i] = 0;
  barrier();
  const uint leader = (id >> groupShift) << groupShift;
  for (uint i = 0; i < (1u << groupShift); i++) {
    if (highs[leader + i] > high) high = highs[leader + i];
    if (lows[leader + i] < low) low = lows[leader + i];
  }
  const bool below = abs(low) > abs(high);
  precise const float range = high - low;
  float scale = divide(range, top);
  if (scale < 1e-7) scale = 1e-7;
  if (!below) scale = -scale;
  const float edge = below ? low : high;
  const float count = nearest(divide(edge, scale));
  float bias = 0;
  if (count != 0) {
    scale = divide(edge, count);
    bias = edge;
  }
  uvec2 p = uvec2(0);
  [[unroll]] for (uint i = 0; i < 8; i++) {
    const uint q = integerFor(v[i], scale, bias);
    const uint at = i * BITS;
    if (at < 32) p.x |= q << at;
    if (at >= 32) p.y |= q << (at - 32);
    else if (at + BITS > 32) p.y |= q >> (32 - at);
  }
  const uint byte = id * BITS;
  const uint shift = (byte & 3) * 8;
  atomicOr(words[byte >> 2], p.x << shift);
  if (shift + 8 * BITS > 32) atomicOr(words[(byte >> 2) + 1], shift == 0 ? p.y : (p.x >> (32 - shift)) | (p.y << shift));
  barrier();
  const uint all = units * BITS / 4;
  for (uint i = id; i < lanes * BITS / 4; i += lanes) {
    const uint at = group0 / 4 * BITS + i;
    if (at < all) packed.at[at] = words[i];
  }
  if (u < units && id == leader) {
    writeBits(scales, u >> groupShift, toBits(scale, type), type);
    writeBits(biases, u >> groupShift, toBits(bias, type), type);
  }
}
