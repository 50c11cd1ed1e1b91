// Operands of all attention kernels but the combining one: 7 addresses and 18 words, which fills the push constants that every device has.
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_control_flow_attributes : require

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer ChunkPtr { uvec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer U16Ptr { uint16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 1) readonly buffer U8Ptr { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer I32Ptr { int at[]; };

layout(push_constant) uniform Push {
  RawPtr q;
  RawPtr k;
  RawPtr v;
  // The output, or partial results.
  RawPtr result;
  U8Ptr mask;
  U8Ptr sinks;
  I32Ptr valid;
  // Strides over batch, head and position, in elements; of the mask over the key too.
  uint qb, qh, qt, kb, kh, kt, vb, vh, vt, mb, mh, mt, mk;
  uint queries;
  // Keys that the views hold.
  uint keys;
  uint kvHeads;
  uint splits;
  float scale;
};

// Kinds of mask and of sinks: FLOATS + a type of common/types.glsl.
#define MASK_NONE 0
#define MASK_CAUSAL 1
#define MASK_BOOL 2
#define FLOATS 3

// Score of a key that a bool or causal mask hides: a row that sees no key at all becomes the mean of all values, as in MLX.
const float hidden = -3.4028234663852886e38;
const float lowest = -1.0 / 0.0;

// Element i of an array of a type known when the pipeline is made.
float loadFloat(uint kind, U8Ptr p, uint i) {
  if (kind == FLOATS + T_F32) return F32Ptr(p).at[i];
  const uint bits = uint(U16Ptr(p).at[i]);
  return kind == FLOATS + T_F16 ? unpackHalf2x16(bits).x : bf16Float(bits);
}
// Keys that count.
uint keyCount(bool recorded) { return recorded ? min(uint(max(valid.at[0], 0)), keys) : keys; }
// A score under the mask; `at` is the mask's element.
float maskScore(uint kind, float s, uint at, uint key, int lastKey) {
  if (kind == MASK_NONE) return s;
  if (kind == MASK_CAUSAL) return int(key) <= lastKey ? s : hidden;
  if (kind == MASK_BOOL) return uint(mask.at[at]) != 0u ? s : hidden;
  return s + loadFloat(kind, mask, at);
}

// 16 bytes of a row: the unit in which rows are read.
#if T == T_F32
#define CHUNK 4
void unpack(uvec4 x, out float y[CHUNK]) {
  [[unroll]] for (uint i = 0; i < 4; i++) y[i] = uintBitsToFloat(x[i]);
}
#else
#define CHUNK 8
void unpack(uvec4 x, out float y[CHUNK]) {
  [[unroll]] for (uint i = 0; i < 4; i++) {
#if T == T_F16
    const vec2 pair = unpackHalf2x16(x[i]);
    y[2 * i] = pair.x;
    y[2 * i + 1] = pair.y;
#else
    y[2 * i] = uintBitsToFloat(x[i] << 16);
    y[2 * i + 1] = uintBitsToFloat(x[i] & 0xffff0000u);
#endif
  }
}
#endif
// Chunk c of the row of `width` elements that begins at element `at`; zeros behind its end.
uvec4 loadChunk(RawPtr p, uint at, uint c, uint width, bool aligned) {
  if (aligned) return CHUNK * c < width ? ChunkPtr(p).at[at / CHUNK + c] : uvec4(0);
  uvec4 x = uvec4(0);
  [[unroll]] for (uint i = 0; i < CHUNK; i++) {
    const uint e = CHUNK * c + i;
    if (e >= width) break;
#if T == T_F32
    x[i] = floatBitsToUint(p.at[at + e]);
#else
    x[i / 2] |= uint(U16Ptr(p).at[at + e]) << (16 * (i % 2));
#endif
  }
  return x;
}
