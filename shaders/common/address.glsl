// Addresses of elements before and behind a place. GPUs take an index into a buffer for unsigned, so that a negative one lies 2^32 elements too far: the sum is
// made here, in 64 bits by words.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// Address of element i, of 2^exponent bytes (at most 16), of the array at `base`.
uvec2 addressOf(uvec2 base, int i, int exponent) {
  uint carry;
  const uint low = uaddCarry(base.x, uint(i) << exponent, carry);
  return uvec2(low, base.y + carry + uint(exponent == 0 ? i >> 31 : i >> (32 - exponent)));
}
