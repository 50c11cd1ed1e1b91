// Data is moved in units of UNIT bytes (1, 2, 4, 8, 16), whatever their type. A Value holds one; indices count units and may be negative.
#include "common/address.glsl"
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_16bit_storage : require

#if UNIT == 1
#define Stored uint8_t
#define Value uint
#elif UNIT == 2
#define Stored uint16_t
#define Value uint
#elif UNIT == 4
#define Stored uint
#define Value uint
#elif UNIT == 8
#define Stored uvec2
#define Value uvec2
#else
#define Stored uvec4
#define Value uvec4
#endif
layout(buffer_reference, std430, buffer_reference_align = UNIT) buffer UnitPtr { Stored at[]; };
#define EXPONENT (UNIT == 1 ? 0 : UNIT == 2 ? 1 : UNIT == 4 ? 2 : UNIT == 8 ? 3 : 4)
#define read(p, i) Value(UnitPtr(addressOf(uvec2(p), i, EXPONENT)).at[0])
#define write(p, i, v) UnitPtr(addressOf(uvec2(p), i, EXPONENT)).at[0] = Stored(v)
// For indices that are never negative.
#define readUp(p, i) Value((p).at[i])
#define writeUp(p, i, v) (p).at[i] = Stored(v)

// Row of this invocation and the first unit that it moves, when 256 invocations stand in `256 >> shift` rows of `1 << shift`. The groups are
// spread over a row in x and over rows in y and z.
#define LANES 256u
uint rowOf(uint shift) {
  return (gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y) * (LANES >> shift) + (gl_LocalInvocationIndex >> shift);
}
uint firstOf(uint shift) { return (gl_WorkGroupID.x << shift) + (gl_LocalInvocationIndex & ((1u << shift) - 1u)); }
uint strideOf(uint shift) { return gl_NumWorkGroups.x << shift; }
