// An element of 1, 2, 4 or 8 bytes repeated: words 0, 2, ... and 1, 3, ... of memory that is filled with it. Needs units.glsl.
layout(buffer_reference, std430, buffer_reference_align = 1) readonly buffer Bytes1 { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer Bytes2 { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Bytes4 { uint at[]; };
uvec2 splat(uvec2 address, uint size) {
  if (size == 1u) return uvec2(uint(Bytes1(address).at[0]) * 0x01010101u);
  if (size == 2u) return uvec2(uint(Bytes2(address).at[0]) * 0x00010001u);
  const uint low = Bytes4(address).at[0];
  return size == 4u ? uvec2(low) : uvec2(low, Bytes4(address).at[1]);
}
#if UNIT == 1
#define fromSplat(w) ((w).x & 0xffu)
#elif UNIT == 2
#define fromSplat(w) ((w).x & 0xffffu)
#elif UNIT == 4
#define fromSplat(w) (w).x
#elif UNIT == 8
#define fromSplat(w) (w)
#else
#define fromSplat(w) (w).xyxy
#endif
