// Four neighbouring elements at a time. Needs common/types.glsl and the specialization constant `whole`: rows begin at multiples of four elements of their
// addresses and have a multiple of four elements. Without it elements go one by one, with a check of the end.
#if T == T_F32
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Raw4Ptr { vec4 at[]; };
vec4 floats4(vec4 v) { return v; }
vec4 raws4(vec4 v) { return v; }
#else
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Raw4Ptr { uvec2 at[]; };
#if T == T_F16
vec4 floats4(uvec2 v) { return vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y)); }
uvec2 raws4(vec4 v) { return uvec2(f16Pair(v.x, v.y), f16Pair(v.z, v.w)); }
#else
vec4 floats4(uvec2 v) { return uintBitsToFloat(uvec4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u)); }
uvec2 raws4(vec4 v) { return uvec2(bf16Bits(v.x) | (bf16Bits(v.y) << 16), bf16Bits(v.z) | (bf16Bits(v.w) << 16)); }
#endif
#endif

// Elements i to i + 3 of the row at `base`, which has n; what lies behind the end is `fill`. i < n.
vec4 fetch4(RawPtr p, uint base, uint i, uint n, float fill) {
  if (whole) return floats4(Raw4Ptr(p).at[(base + i) >> 2]);
  vec4 v = vec4(fill);
  for (uint k = 0; k < 4; k++) if (i + k < n) v[k] = toFloat(p.at[base + i + k]);
  return v;
}
void put4(RawPtr p, uint base, uint i, uint n, vec4 v) {
  if (whole) {
    Raw4Ptr(p).at[(base + i) >> 2] = raws4(v);
    return;
  }
  for (uint k = 0; k < 4; k++) if (i + k < n) p.at[base + i + k] = fromFloat(v[k]);
}
