// Index arrays of any integer type.
#include "common/address.glsl"
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_16bit_storage : require
layout(buffer_reference, std430, buffer_reference_align = 1) readonly buffer Index1 { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer Index2 { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Index4 { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Index8 { uvec2 at[]; };

// Index i of an array whose type has this code (1 .. 4 uint8 .. uint64, 5 .. 8 int8 .. int64); what an int can not hold goes to its limits.
int loadIndex(uvec2 array, int i, uint code) {
  if (code == 7u) return int(Index4(addressOf(array, i, 2)).at[0]);
  if (code == 3u) return int(min(Index4(addressOf(array, i, 2)).at[0], 0x7fffffffu));
  if (code == 1u) return int(uint(Index1(addressOf(array, i, 0)).at[0]));
  if (code == 5u) return int(uint(Index1(addressOf(array, i, 0)).at[0]) << 24) >> 24;
  if (code == 2u) return int(uint(Index2(addressOf(array, i, 1)).at[0]));
  if (code == 6u) return int(uint(Index2(addressOf(array, i, 1)).at[0]) << 16) >> 16;
  const uvec2 x = Index8(addressOf(array, i, 3)).at[0];
  const int high = int(x.y);
  if (code == 8u && high < 0) return high == -1 && int(x.x) < 0 ? int(x.x) : int(0x80000000u);
  return high == 0 && int(x.x) >= 0 ? int(x.x) : 0x7fffffff;
}
// Negative indices count from the end once; what is still outside goes to the nearest element.
int wrapIndex(int i, int size) { return clamp(i < 0 ? i + size : i, 0, size - 1); }
