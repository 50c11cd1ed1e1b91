// Rows are read in pieces of 8 elements, 16 bytes at a time.
#extension GL_EXT_control_flow_attributes : require
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Quads { uvec4 at[]; };

float rounded(float x) { return toFloat(fromFloat(x)); }

#if T == T_F32
struct Piece { uvec4 low; uvec4 high; };
Piece pieceAt(Quads p, uint i) { return Piece(p.at[2 * i], p.at[2 * i + 1]); }
float[8] floatsOf(Piece p) {
  const vec4 a = uintBitsToFloat(p.low);
  const vec4 b = uintBitsToFloat(p.high);
  return float[8](a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
}
#else
struct Piece { uvec4 low; };
Piece pieceAt(Quads p, uint i) { return Piece(p.at[i]); }
vec2 pairOf(uint u) {
#if T == T_F16
  return unpackHalf2x16(u);
#else
  return vec2(uintBitsToFloat(u << 16), uintBitsToFloat(u & 0xffff0000u));
#endif
}
float[8] floatsOf(Piece p) {
  const vec2 a = pairOf(p.low.x);
  const vec2 b = pairOf(p.low.y);
  const vec2 c = pairOf(p.low.z);
  const vec2 d = pairOf(p.low.w);
  return float[8](a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y);
}
#endif
