// Quantized rows: a block of 32 weights is `bits` words, `blocks` blocks a row.
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Pairs { uvec2 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words { uint at[]; };
struct Matrix { Quads weights; RawPtr scales; RawPtr biases; };

// Blocks of the rows in flight, and their groups' scales and biases.
uint held[ahead * count * bits];
float heldScale[ahead * count];
float heldBias[ahead * count];

void fetch(uint slot, uint r, Matrix m, uint row, uint block) {
  const uint at = (slot * count + r) * bits;
  const uint from = row * blocks + block;
  if (bits % 4 == 0) {
    [[unroll]] for (uint i = 0; i < bits / 4; i++) {
      const uvec4 v = m.weights.at[from * (bits / 4) + i];
      held[at + 4 * i] = v.x;
      held[at + 4 * i + 1] = v.y;
      held[at + 4 * i + 2] = v.z;
      held[at + 4 * i + 3] = v.w;
    }
  } else if (bits % 2 == 0) {
    [[unroll]] for (uint i = 0; i < bits / 2; i++) {
      const uvec2 v = Pairs(m.weights).at[from * (bits / 2) + i];
      held[at + 2 * i] = v.x;
      held[at + 2 * i + 1] = v.y;
    }
  } else {
    [[unroll]] for (uint i = 0; i < bits; i++) held[at + i] = Words(m.weights).at[from * bits + i];
  }
  const uint group = from / (groupSize / 32);
  heldScale[slot * count + r] = toFloat(m.scales.at[group]);
  heldBias[slot * count + r] = toFloat(m.biases.at[group]);
}

// Word k of a block as four bytes; the order is that of the planes.
uint unpacked(uint at, uint k) {
  if (bits == 8) return held[at + k];
  if (bits == 4) return (held[at + k / 2] >> (4 * (k & 1))) & 0x0f0f0f0fu;
  const uint from = 4 * bits * k;
  const uint shift = from & 31;
  uint v = held[at + from / 32] >> shift;
  if (shift + 4 * bits > 32) v |= held[at + min(from / 32 + 1, bits - 1)] << ((32 - shift) & 31);
  const uint mask = (1u << bits) - 1;
  return (v & mask) | ((v << (8 - bits)) & (mask << 8)) | ((v << (16 - 2 * bits)) & (mask << 16)) | ((v << (24 - 3 * bits)) & (mask << 24));
}

struct Part { uint words[8 * PLANES]; vec2 terms; };
Part partOf(uint block) {
  Part x;
  [[unroll]] for (uint j = 0; j < 2 * PLANES; j++) {
    const uvec4 v = planes[j * blocks + block];
    x.words[4 * j] = v.x;
    x.words[4 * j + 1] = v.y;
    x.words[4 * j + 2] = v.z;
    x.words[4 * j + 3] = v.w;
  }
  x.terms = blockTerms[block];
  return x;
}
float product(uint slot, uint r, Part x) {
  const uint at = (slot * count + r) * bits;
  int dots[PLANES];
  [[unroll]] for (uint p = 0; p < PLANES; p++) dots[p] = 0;
  [[unroll]] for (uint k = 0; k < 8; k++) {
    const uint w = unpacked(at, k);
    [[unroll]] for (uint p = 0; p < PLANES; p++) {
      if (bits == 8) dots[p] += dotPacked4x8EXT(int(x.words[8 * p + k]), w);
      else dots[p] += dotPacked4x8EXT(int(x.words[8 * p + k]), int(w));
    }
  }
#if PLANES == 3
  const float dot = float(dots[0]) * 16384.0 + float(dots[1] * 128 + dots[2]);
#else
  const float dot = float(dots[0] * 128 + dots[1]);
#endif
  return heldScale[slot * count + r] * (x.terms.x * dot) + heldBias[slot * count + r] * x.terms.y;
}
