// Element types by the macro T of a variant: F32, F16, BF16 (and others a family adds). Elements are read through buffer references as `Raw`, computed as float.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

#define T_F32 0
#define T_F16 1
#define T_BF16 2

// bfloat16 bits of a float, rounded to nearest even; NaN stays NaN.
uint bf16Bits(float x) {
  const uint u = floatBitsToUint(x);
  const uint r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : r;
}
float bf16Float(uint bits) { return uintBitsToFloat(bits << 16); }
float roundBf16(float x) { return bf16Float(bf16Bits(x)); }

// float16 bits of a float, rounded to nearest even; NaN stays NaN. By integers: how a conversion to float16_t rounds is up to the driver, and some leave one out that is
// followed by the conversion back.
uint f16Bits(float x) {
  const uint u = floatBitsToUint(x);
  const uint sign = (u >> 16) & 0x8000u;
  const uint a = u & 0x7fffffffu;
  // Below 2^-14 the sum with 0.5 rounds to multiples of 2^-24, the spacing of subnormal numbers.
  const uint low = floatBitsToUint(uintBitsToFloat(a) + 0.5) - 0x3f000000u;
  const uint high = a > 0x7f800000u ? 0x7e00u : min((a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13, 0x7c00u);
  return sign | (a < 0x38800000u ? low : high);
}
uint f16Pair(float x, float y) { return f16Bits(x) | (f16Bits(y) << 16); }
float roundF16(float x) { return unpackHalf2x16(f16Bits(x)).x; }

#if T == T_F32
#define Raw float
#define RAW_BYTES 4
float toFloat(Raw x) { return x; }
Raw fromFloat(float x) { return x; }
#elif T == T_F16
// As bits, so that no driver computes in float16 what is written as float.
#define Raw uint16_t
#define RAW_BYTES 2
float toFloat(Raw x) { return unpackHalf2x16(uint(x)).x; }
Raw fromFloat(float x) { return uint16_t(f16Bits(x)); }
#else
#define Raw uint16_t
#define RAW_BYTES 2
float toFloat(Raw x) { return bf16Float(uint(x)); }
Raw fromFloat(float x) { return uint16_t(bf16Bits(x)); }
#endif

// Address of an array of elements: `RawPtr p; p.at[i]`.
layout(buffer_reference, std430, buffer_reference_align = RAW_BYTES) buffer RawPtr { Raw at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32Ptr { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32Ptr { float at[]; };
