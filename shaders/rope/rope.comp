#version 460
// Rotary position embedding (Su et al. 2021). An invocation turns four pairs of one position in some heads. Angles are fractions of a turn in 64-bit fixed point:
// position times turns per position, modulo one turn, costs two integer products and is as exact as float64 without needing it.
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(constant_id = 1) const bool whole = false;
layout(constant_id = 2) const bool traditional = false;
// The fourth address holds float32 divisors of the position; otherwise turns per position, low and high word.
layout(constant_id = 3) const bool divisors = false;
// Where the position of the first row comes from: 0 the word `offset`, 1 one element of `offsets`, 2 one per batch entry.
layout(constant_id = 4) const uint offsetsFrom = 0;
layout(local_size_x_id = 0) in;
#include "../norm/vectors.glsl"

layout(buffer_reference, std430, buffer_reference_align = 4) buffer I32Ptr { int at[]; };
layout(push_constant) uniform Push {
  RawPtr x;
  RawPtr y;
  I32Ptr offsets;
  U32Ptr freqs;
  uint count;
  uint heads;
  uint length;
  uint width;
  uint half_;
  uint batchStride;
  uint headStride;
  uint positionStride;
  uint headsEach;
  int offset;
  // scale / (2 pi) = scaleHigh:scaleLow * 2^scaleExponent, and its sign.
  uint scaleLow;
  uint scaleHigh;
  int scaleExponent;
  uint scaleNegative;
};

// Four pairs at once everywhere, so that their chains of operations overlap.
// scale / (2 pi f) modulo 1 in 64-bit fixed point: schoolbook division by the 24-bit mantissa, 16 bits at a time.
void turnsBy(uvec4 bits, out uvec4 low, out uvec4 high) {
  const uvec4 exponent = (bits >> 23) & 255u;
  const uvec4 m = (bits & 0x7fffffu) | mix(uvec4(0x800000u), uvec4(0), equal(exponent, uvec4(0)));
  const ivec4 shift = 64 + scaleExponent - (max(ivec4(exponent), 1) - 150);
  const uvec4 rest = uvec4(shift) & 15u;
  // The numerator is five digits, and zeros behind them.
  const uvec4 first = uvec4(scaleHigh) >> (31 - rest) >> 1;
  const uvec4 second = (uvec4(scaleHigh) << rest) | (uvec4(scaleLow) >> (31 - rest) >> 1);
  const uvec4 third = uvec4(scaleLow) << rest;
  const ivec4 digits = mix(5 + (shift >> 4), ivec4(0), equal(exponent, uvec4(255)));
  const int most = max(max(digits.x, digits.y), max(digits.z, digits.w));
  const vec4 inverse = 1.0 / vec4(m);
  uvec4 left = uvec4(0);
  low = uvec4(0);
  high = uvec4(0);
  for (int i = 0; i < most; i++) {
    const uvec4 next = i == 0 ? first : i == 1 ? second >> 16 : i == 2 ? second & 0xffffu : i == 3 ? third >> 16 : i == 4 ? third & 0xffffu : uvec4(0);
    // The estimate is off by one at most, so what is left is found although only its low 32 bits are computed.
    uvec4 digit = uvec4((vec4(left) * 65536.0 + vec4(next)) * inverse);
    uvec4 rem = (left << 16) + next - digit * m;
    const bvec4 over = notEqual(rem & 0x80000000u, uvec4(0));
    digit -= uvec4(over);
    rem += mix(uvec4(0), m, over);
    const bvec4 under = greaterThanEqual(rem, m);
    digit += uvec4(under);
    rem -= mix(uvec4(0), m, under);
    const bvec4 going = lessThan(ivec4(i), digits);
    left = mix(left, rem, going);
    high = mix(high, (high << 16) | (low >> 16), going);
    low = mix(low, (low << 16) | digit, going);
  }
  const bvec4 negative = notEqual((bits >> 31) ^ scaleNegative, uvec4(0));
  high = mix(high, mix(~high, -high, equal(low, uvec4(0))), negative);
  low = mix(low, -low, negative);
}
// The 32 bits below the point of position * turns.
uvec4 fractionOf(int position, uvec4 low, uvec4 high) {
  uvec4 carry, ignored;
  umulExtended(uvec4(uint(position)), low, carry, ignored);
  return uint(position) * high + carry - (position < 0 ? low : uvec4(0));
}
// Cosines and sines of fractions of a turn: the nearest quarter turn, and Taylor's polynomials for what is left.
void circle(uvec4 fraction, out vec4 cosine, out vec4 sine) {
  const uvec4 quarter = (fraction + 0x20000000u) >> 30;
  const vec4 a = vec4(ivec4(fraction - (quarter << 30))) * 1.46291808e-9;
  const vec4 z = a * a;
  vec4 s = fma(z, fma(z, fma(z, vec4(2.7557319e-6), vec4(-1.9841270e-4)), vec4(8.3333333e-3)), vec4(-1.6666667e-1));
  s = fma(z * s, a, a);
  vec4 c = fma(z, fma(z, fma(z, fma(z, vec4(-2.7557319e-7), vec4(2.4801587e-5)), vec4(-1.3888889e-3)), vec4(4.1666667e-2)), vec4(-0.5));
  c = fma(z, c, vec4(1));
  const bvec4 swap = notEqual(quarter & 1u, uvec4(0));
  const uvec4 cosineSign = ((quarter + 1) & 2u) << 30;
  const uvec4 sineSign = (quarter & 2u) << 30;
  cosine = uintBitsToFloat(floatBitsToUint(mix(c, s, swap)) ^ cosineSign);
  sine = uintBitsToFloat(floatBitsToUint(mix(s, c, swap)) ^ sineSign);
}
void turn4(int position, uint pair, out vec4 c, out vec4 s) {
  uvec4 low, high;
  bvec4 none = bvec4(false);
  const uvec4 at = whole ? pair + uvec4(0, 1, 2, 3) : min(pair + uvec4(0, 1, 2, 3), uvec4(half_ - 1));
  if (divisors) {
    const uvec4 bits = uvec4(freqs.at[at.x], freqs.at[at.y], freqs.at[at.z], freqs.at[at.w]);
    // Dividing by zero or NaN gives no angle.
    none = bvec4(uvec4(equal(bits << 1, uvec4(0))) | uvec4(greaterThan(bits << 1, uvec4(0xff000000u))));
    turnsBy(bits, low, high);
  } else {
    low = uvec4(freqs.at[2 * at.x], freqs.at[2 * at.y], freqs.at[2 * at.z], freqs.at[2 * at.w]);
    high = uvec4(freqs.at[2 * at.x + 1], freqs.at[2 * at.y + 1], freqs.at[2 * at.z + 1], freqs.at[2 * at.w + 1]);
  }
  circle(fractionOf(position, low, high), c, s);
  c = mix(c, vec4(uintBitsToFloat(0x7fc00000u)), none);
  s = mix(s, vec4(uintBitsToFloat(0x7fc00000u)), none);
}

void copyRest(uint from, uint to, uint i) {
  if (i < width) put4(y, to, i, width, fetch4(x, from, i, width, 0));
  if (i + 4 < width) put4(y, to, i + 4, width, fetch4(x, from, i + 4, width, 0));
}
void rotate(uint from, uint to, uint pair, vec4 c, vec4 s) {
  if (traditional) {
    const uint dims = 2 * half_;
    const vec4 p = fetch4(x, from, 2 * pair, dims, 0);
    const vec4 q = fetch4(x, from, 2 * pair + 4, dims, 0);
    const vec4 a = vec4(p.xz, q.xz);
    const vec4 b = vec4(p.yw, q.yw);
    const vec4 u = a * c - b * s;
    const vec4 v = a * s + b * c;
    put4(y, to, 2 * pair, dims, vec4(u.x, v.x, u.y, v.y));
    put4(y, to, 2 * pair + 4, dims, vec4(u.z, v.z, u.w, v.w));
  } else {
    const vec4 a = fetch4(x, from, pair, half_, 0);
    const vec4 b = fetch4(x, from + half_, pair, half_, 0);
    put4(y, to, pair, half_, a * c - b * s);
    put4(y, to + half_, pair, half_, a * s + b * c);
  }
}

void main() {
  const uint item = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + gl_LocalInvocationIndex;
  if (item >= count) return;
  const uint turning = (half_ + 3) / 4;
  const uint chunks = turning + (width - 2 * half_ + 7) / 8;
  const uint chunk = item % chunks;
  const uint t = item / chunks % length;
  const uint headGroups = (heads + headsEach - 1) / headsEach;
  const uint b = item / (chunks * length) / headGroups;
  const uint first = item / (chunks * length) % headGroups * headsEach;
  const uint end = min(first + headsEach, heads);
  uint from = b * batchStride + first * headStride + t * positionStride;
  uint to = ((b * heads + first) * length + t) * width;
  if (chunk >= turning) {
    for (uint h = first; h < end; h++, from += headStride, to += length * width) copyRest(from, to, 2 * half_ + 8 * (chunk - turning));
    return;
  }
  const int start = offsetsFrom == 0 ? offset : offsets.at[offsetsFrom == 1 ? 0 : b];
  vec4 c, s;
  turn4(start + int(t), 4 * chunk, c, s);
  for (uint h = first; h < end; h++, from += headStride, to += length * width) rotate(from, to, 4 * chunk, c, s);
}
