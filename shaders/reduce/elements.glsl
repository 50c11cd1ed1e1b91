// Elements as bits: SIZE is their number of bytes (1, 2, 4, 8). What they mean is decided by specialization constants, so one build serves several types.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_control_flow_attributes : require
#if SIZE == 8
#define Bits uvec2
layout(buffer_reference, std430, buffer_reference_align = 8) buffer ElementPtr { uvec2 at[]; };
#elif SIZE == 4
#define Bits uint
layout(buffer_reference, std430, buffer_reference_align = 4) buffer ElementPtr { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Element4Ptr { uvec4 at[]; };
uvec4 unpack4(uvec4 v) { return v; }
uvec4 pack4(uvec4 v) { return v; }
#elif SIZE == 2
#define Bits uint
layout(buffer_reference, std430, buffer_reference_align = 2) buffer ElementPtr { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Element4Ptr { uvec2 at[]; };
uvec4 unpack4(uvec2 v) { return uvec4(v.x & 0xffffu, v.x >> 16, v.y & 0xffffu, v.y >> 16); }
uvec2 pack4(uvec4 v) { return v.xz | (v.yw << 16); }
#else
#define Bits uint
layout(buffer_reference, std430, buffer_reference_align = 1) buffer ElementPtr { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Element4Ptr { uint at[]; };
uvec4 unpack4(uint v) { return uvec4(v & 255u, (v >> 8) & 255u, (v >> 16) & 255u, v >> 24); }
uint pack4(uvec4 v) { return v.x | (v.y << 8) | (v.z << 16) | (v.w << 24); }
#endif
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Out8 { uvec2 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Out4 { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) buffer Out2 { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 1) buffer Out1 { uint8_t at[]; };

Bits bitsAt(ElementPtr p, uint i) { return Bits(p.at[i]); }

// 16-bit floats without any 16-bit arithmetic. `brain`: bfloat16, otherwise float16.
float halfFloat(uint bits, bool brain) { return brain ? uintBitsToFloat(bits << 16) : unpackHalf2x16(bits).x; }
// Rounded to nearest even; NaN stays NaN.
uint halfBits(float x, bool brain) {
  const uint u = floatBitsToUint(x);
  const uint a = u & 0x7fffffffu;
  const uint sign = (u >> 16) & 0x8000u;
  if (brain) return a > 0x7f800000u ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  if (a > 0x7f800000u) return sign | 0x7e00u;
  if (a >= 0x47800000u) return sign | 0x7c00u;
  // Below 2^-14: the sum with 0.5 rounds to multiples of 2^-24, the spacing of subnormal numbers.
  if (a < 0x38800000u) return sign | (floatBitsToUint(uintBitsToFloat(a) + 0.5) - 0x3f000000u);
  return sign | ((a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13);
}
bool floatIsNan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }
