// Elements whose type is chosen when the pipeline is made (0 float32, 1 float16, 2 bfloat16), read as words and computed as float.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_control_flow_attributes : require

const uint typeF32 = 0;
const uint typeF16 = 1;
const uint typeBf16 = 2;

layout(buffer_reference, std430, buffer_reference_align = 2) buffer U16Ptr { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32Ptr { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32Ptr { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer U64Ptr { uvec2 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U128Ptr { uvec4 at[]; };

// float16 and bfloat16 bits of a float, rounded to nearest even on every device; NaN stays NaN.
uint halfBits(float x) {
  const uint u = floatBitsToUint(x);
  const uint sign = (u >> 16) & 0x8000u;
  const uint a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return sign | 0x7e00u;
  if (a >= 0x47800000u) return sign | 0x7c00u;
  // Adding 0.5 leaves the bits of a number below the smallest normal one at the end of the sum.
  if (a < 0x38800000u) return sign | (floatBitsToUint(uintBitsToFloat(a) + 0.5) - 0x3f000000u);
  return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13);
}
uint brainBits(float x) {
  const uint u = floatBitsToUint(x);
  const uint r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : r;
}
float fromBits(uint bits, uint type) { return type == typeF32 ? uintBitsToFloat(bits) : type == typeF16 ? unpackHalf2x16(bits).x : uintBitsToFloat(bits << 16); }
uint toBits(float x, uint type) { return type == typeF32 ? floatBitsToUint(x) : type == typeF16 ? halfBits(x) : brainBits(x); }

uint readBits(U32Ptr p, uint i, uint type) {
  if (type == typeF32) return p.at[i];
  return uint(U16Ptr(p).at[i]);
}
void writeBits(U32Ptr p, uint i, uint bits, uint type) {
  if (type == typeF32) p.at[i] = bits;
  else U16Ptr(p).at[i] = uint16_t(bits);
}

// Eight neighbouring elements as they lie in memory; `b` is used by float32 only.
struct Eight {
  uvec4 a;
  uvec4 b;
};
// From element i on, a multiple of 8. `wide`: the array lies at a multiple of 16 bytes.
Eight readEight(U32Ptr p, uint i, uint type, bool wide) {
  Eight r;
  r.b = uvec4(0);
  if (wide) {
    U128Ptr v = U128Ptr(p);
    if (type == typeF32) {
      r.a = v.at[i >> 2];
      r.b = v.at[(i >> 2) + 1];
    } else r.a = v.at[i >> 3];
  } else if (type == typeF32) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      r.a[j] = p.at[i + j];
      r.b[j] = p.at[i + 4 + j];
    }
  } else {
    U16Ptr h = U16Ptr(p);
    [[unroll]] for (uint j = 0; j < 4; j++) r.a[j] = uint(h.at[i + 2 * j]) | (uint(h.at[i + 2 * j + 1]) << 16);
  }
  return r;
}
void unpackEight(Eight r, uint type, out float v[8]) {
  if (type == typeF32) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      v[j] = uintBitsToFloat(r.a[j]);
      v[j + 4] = uintBitsToFloat(r.b[j]);
    }
  } else if (type == typeF16) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      const vec2 h = unpackHalf2x16(r.a[j]);
      v[2 * j] = h.x;
      v[2 * j + 1] = h.y;
    }
  } else {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      v[2 * j] = uintBitsToFloat(r.a[j] << 16);
      v[2 * j + 1] = uintBitsToFloat(r.a[j] & 0xffff0000u);
    }
  }
}

Eight packEight(float v[8], uint type) {
  Eight r;
  r.b = uvec4(0);
  [[unroll]] for (uint j = 0; j < 4; j++) {
    if (type == typeF32) {
      r.a[j] = floatBitsToUint(v[j]);
      r.b[j] = floatBitsToUint(v[j + 4]);
    } else r.a[j] = toBits(v[2 * j], type) | (toBits(v[2 * j + 1], type) << 16);
  }
  return r;
}
void writeEight(U32Ptr p, uint i, Eight r, uint type, bool wide) {
  if (wide) {
    U128Ptr v = U128Ptr(p);
    if (type == typeF32) {
      v.at[i >> 2] = r.a;
      v.at[(i >> 2) + 1] = r.b;
    } else v.at[i >> 3] = r.a;
  } else if (type == typeF32) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      p.at[i + j] = r.a[j];
      p.at[i + 4 + j] = r.b[j];
    }
  } else {
    U16Ptr h = U16Ptr(p);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      h.at[i + 2 * j] = uint16_t(r.a[j] & 0xffffu);
      h.at[i + 2 * j + 1] = uint16_t(r.a[j] >> 16);
    }
  }
}
