// Small floats: FLOATS is 1 for mxfp4 (e2m1 codes, 32 to a scale, which is a power of two), 2 for nvfp4 (e2m1 codes, 16 to a scale, which is e4m3), 3 for mxfp8 (e4m3 codes,
// 32 to a scale, which is a power of two). No number on the way is subnormal: devices may flush those.
#extension GL_EXT_shader_8bit_storage : require
layout(buffer_reference, std430, buffer_reference_align = 1) buffer U8Ptr { uint8_t at[]; };

float e2m1(uint code) {
  const uint a = code & 7u;
  const float v = uintBitsToFloat((a << 22) + (126u << 23));
  // With exponent 0 there is no leading one.
  return uintBitsToFloat(floatBitsToUint(a < 2 ? 2 * v - 1 : v) | ((code & 8u) << 28));
}
float e4m3(uint code) {
  const uint a = code & 127u;
  const float v = uintBitsToFloat((a << 20) + (120u << 23));
  return uintBitsToFloat(floatBitsToUint(a < 8 ? 2 * v - 0.015625 : v) | ((code & 128u) << 24));
}
float e8m0(uint b) { return uintBitsToFloat(b == 0 ? 0x400000u : b << 23); }
#ifdef FLOATS
#if FLOATS == 2
float scaleValue(uint b) { return e4m3(b); }
#else
float scaleValue(uint b) { return e8m0(b); }
#endif
#if FLOATS == 3
float codeValue(uint code) { return e4m3(code); }
#else
float codeValue(uint code) { return e2m1(code); }
#endif
#endif
