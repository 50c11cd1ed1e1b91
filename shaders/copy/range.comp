#version 460
// start + i * step: in 64-bit integers, or with DOUBLES in float64; rounded once.
#define UNIT 4
#include "units.glsl"
#define T 0
#include "common/types.glsl"
layout(local_size_x = 256) in;
// The type's code: 0 bool, 1 .. 8 uint8 .. uint64, int8 .. int64, 9 float16, 10 float32, 11 float64, 12 bfloat16, 13 complex64.
layout(constant_id = 0) const uint code = 10;
layout(buffer_reference, std430, buffer_reference_align = 1) writeonly buffer Out1 { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) writeonly buffer Out2 { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer OutFloat { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) writeonly buffer Out8 { uvec2 at[]; };

layout(push_constant) uniform Push {
  uvec2 dst;
  uvec2 start;
  uvec2 step;
  // The last element, when `closed` is 1.
  uvec2 last;
  uint count;
  uint closed;
};

void store(uint i, uvec2 bits, float number) {
  if (code == 0u) Out1(dst).at[i] = uint8_t((bits.x | bits.y) == 0u ? 0u : 1u);
  else if (code == 1u || code == 5u) Out1(dst).at[i] = uint8_t(bits.x);
  else if (code == 2u || code == 6u) Out2(dst).at[i] = uint16_t(bits.x);
  else if (code == 3u || code == 7u) U32Ptr(dst).at[i] = bits.x;
  else if (code == 9u) Out2(dst).at[i] = uint16_t(f16Bits(number));
  else if (code == 10u) OutFloat(dst).at[i] = number;
  else if (code == 12u) Out2(dst).at[i] = uint16_t(bf16Bits(number));
  else if (code == 13u) Out8(dst).at[i] = uvec2(floatBitsToUint(number), 0u);
  else Out8(dst).at[i] = bits;
}

void main() {
  for (uint i = gl_GlobalInvocationID.x; i < count; i += gl_NumWorkGroups.x * LANES) {
#ifdef DOUBLES
    precise double x = packDouble2x32(start) + double(i) * packDouble2x32(step);
    if (closed == 1u && i > 0u && i == count - 1u) x = packDouble2x32(last);
    uvec2 bits = unpackDouble2x32(x);
    if (code != 11u) bits = uvec2(int(x), int(x) < 0 ? 0xffffffffu : 0u);
    store(i, bits, float(x));
#else
    // Two's complement: the product's high word needs the operands' low words only for unsigned i.
    uint high;
    uint low;
    umulExtended(i, step.x, high, low);
    high += i * step.y;
    uint carry;
    low = uaddCarry(low, start.x, carry);
    high += start.y + carry;
    store(i, uvec2(low, high), float(int(low)));
#endif
  }
}
