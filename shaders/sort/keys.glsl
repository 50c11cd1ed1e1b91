// Elements as unsigned keys whose order is that of the values: NaN last, and with PAIRS one key for both zeros. WIDE: elements of 64 bits.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_16bit_storage : require
layout(buffer_reference, std430, buffer_reference_align = 1) buffer Elements1 { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) buffer Elements2 { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Elements4 { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Elements8 { uvec2 at[]; };

#ifdef WIDE
#define Key uvec2
#define Keys Elements8
#else
#define Key uint
#define Keys Elements4
#endif
