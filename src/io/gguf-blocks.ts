/**
 * The block formats of ggml that are no plain arrays. Blocks of 32 weights with one scale become MLX's affine quantization (the same numbers in another order); all others are
 * computed as float32 and rounded to float16. Layouts: ggml's ggml-common.h. All multi-byte fields are little-endian.
 */
import { fromFloat16Bits } from "../core/dtype.ts";

/** Value of the float16 at a byte. */
const half = (b: Uint8Array, at: number): number => fromFloat16Bits((b[at] as number) | ((b[at + 1] as number) << 8));

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);
/** float16 bits of a float32, rounded to nearest even. Many times faster than toFloat16Bits, which also has float64 to round. */
export function halfBits(x: number): number {
  float[0] = x;
  const u = word[0] as number;
  const sign = (u >>> 16) & 0x8000;
  const a = u & 0x7fffffff;
  if (a >= 0x47800000) return a > 0x7f800000 ? 0x7e00 : sign | 0x7c00;
  if (a >= 0x38800000) return sign | ((a + 0xfff + ((a >>> 13) & 1) - 0x38000000) >>> 13);
  // Below the normal numbers of float16 the sum with 1/2 is rounded at the right place.
  float[0] = Math.abs(x) + 0.5;
  return sign | ((word[0] as number) - 0x3f000000);
}

/** A format whose blocks become packed weights, scales and biases. */
export interface AffineBlocks {
  readonly bits: 4 | 8;
  /** Writes block `b` of `from`: its weights to `weights` from byte `at` on. Returns float16 bits of scale and bias in one number, the bias in the upper half. */
  unpack(from: Uint8Array, b: number, weights: Uint8Array, at: number): number;
}
const bits16 = (b: Uint8Array, at: number): number => (b[at] as number) | ((b[at + 1] as number) << 8);

/** 16 bytes, each with the nibbles of weights j and j + 16, to nibbles in order. */
function pairNibbles(from: Uint8Array, at: number, weights: Uint8Array, to: number): void {
  for (let i = 0; i < 8; i++) {
    const x = from[at + 2 * i] as number;
    const y = from[at + 2 * i + 1] as number;
    weights[to + i] = (x & 15) | ((y & 15) << 4);
    weights[to + 8 + i] = (x >> 4) | (y & 0xf0);
  }
}

export const affineBlocks: Readonly<Record<"Q4_0" | "Q4_1" | "Q8_0", AffineBlocks>> = {
  // w = d (q - 8)
  Q4_0: {
    bits: 4,
    unpack(from, b, weights, at) {
      pairNibbles(from, b * 18 + 2, weights, at);
      return bits16(from, b * 18) | (halfBits(-8 * half(from, b * 18)) << 16);
    },
  },
  // w = d q + m
  Q4_1: {
    bits: 4,
    unpack(from, b, weights, at) {
      pairNibbles(from, b * 20 + 4, weights, at);
      return bits16(from, b * 20) | (bits16(from, b * 20 + 2) << 16);
    },
  },
  // w = d q with signed q, which becomes d (q + 128) - 128 d
  Q8_0: {
    bits: 8,
    unpack(from, b, weights, at) {
      for (let i = 0; i < 32; i++) weights[at + i] = (from[b * 34 + 2 + i] as number) ^ 128;
      return bits16(from, b * 34) | (halfBits(-128 * half(from, b * 34)) << 16);
    },
  },
};

/** Writes the weights of one block, which starts at byte `at`, to `out`. */
export type Dequantize = (b: Uint8Array, at: number, out: Float32Array) => void;

/** Six-bit scale and minimum number j of 8, packed in 12 bytes. */
function scaleAndMinimum(b: Uint8Array, at: number, j: number): readonly [number, number] {
  const byte = (i: number): number => b[at + i] as number;
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4), (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)];
}

/** Fields of Q4_K and Q5_K: d, dmin, 12 bytes of scales, [32 bytes of fifth bits], 128 bytes of nibbles. */
function withMinimum(b: Uint8Array, at: number, out: Float32Array, fifth: boolean): void {
  const [d, dmin] = [half(b, at), half(b, at + 2)];
  const nibbles = at + (fifth ? 48 : 16);
  for (let sub = 0; sub < 8; sub++) {
    const [scale, minimum] = scaleAndMinimum(b, at + 4, sub);
    const [f, m] = [d * scale, dmin * minimum];
    for (let i = 0; i < 32; i++) {
      const byte = b[nibbles + (sub >> 1) * 32 + i] as number;
      const high = fifth ? (((b[at + 16 + i] as number) >> sub) & 1) << 4 : 0;
      out[sub * 32 + i] = f * ((sub & 1 ? byte >> 4 : byte & 15) | high) - m;
    }
  }
}

/** Fields of Q5_0 and Q5_1: d, [m], 4 bytes of fifth bits, 16 bytes of nibbles. */
function fiveBits(b: Uint8Array, at: number, out: Float32Array, offset: number): void {
  const d = half(b, at);
  const high = offset === 4 ? at + 4 : at + 2;
  const bias = offset === 4 ? half(b, at + 2) : -16 * d;
  for (let i = 0; i < 32; i++) {
    const byte = b[high + 4 + (i & 15)] as number;
    const fifth = ((b[high + (i >> 3)] as number) >> (i & 7)) & 1;
    out[i] = d * ((i < 16 ? byte & 15 : byte >> 4) | (fifth << 4)) + bias;
  }
}

export const dequantizers: Readonly<Record<"Q5_0" | "Q5_1" | "Q2_K" | "Q3_K" | "Q4_K" | "Q5_K" | "Q6_K", Dequantize>> = {
  Q5_0: (b, at, out) => fiveBits(b, at, out, 2),
  Q5_1: (b, at, out) => fiveBits(b, at, out, 4),
  // 16 bytes of scale (low nibble) and minimum (high), 64 bytes of 2-bit weights, d, dmin
  Q2_K(b, at, out) {
    const [d, dmin] = [half(b, at + 80), half(b, at + 82)];
    for (let i = 0; i < 256; i++) {
      const scale = b[at + (i >> 4)] as number;
      const q = ((b[at + 16 + (i >> 7) * 32 + (i & 31)] as number) >> (2 * ((i >> 5) & 3))) & 3;
      out[i] = d * (scale & 15) * q - dmin * (scale >> 4);
    }
  },
  // 32 bytes of third bits, 64 bytes of 2-bit weights, 12 bytes of six-bit scales, d
  Q3_K(b, at, out) {
    const d = half(b, at + 108);
    for (let sub = 0; sub < 16; sub++) {
      const low = b[at + 96 + (sub & 7)] as number;
      const high = ((b[at + 104 + (sub & 3)] as number) >> (2 * (sub >> 2))) & 3;
      const f = d * (((sub < 8 ? low & 15 : low >> 4) | (high << 4)) - 32);
      for (let i = sub * 16; i < sub * 16 + 16; i++) {
        const j = i >> 5;
        const q = ((b[at + 32 + (i >> 7) * 32 + (i & 31)] as number) >> (2 * (j & 3))) & 3;
        out[i] = f * (q - (((b[at + (i & 31)] as number) >> j) & 1 ? 0 : 4));
      }
    }
  },
  Q4_K: (b, at, out) => withMinimum(b, at, out, false),
  Q5_K: (b, at, out) => withMinimum(b, at, out, true),
  // 128 bytes of nibbles, 64 bytes of upper two bits, 16 signed scales, d
  Q6_K(b, at, out) {
    const d = half(b, at + 208);
    for (let i = 0; i < 256; i++) {
      const [part, group, l] = [i >> 7, (i >> 5) & 3, i & 31];
      const low = b[at + part * 64 + (group & 1) * 32 + l] as number;
      const high = ((b[at + 128 + part * 32 + l] as number) >> (2 * group)) & 3;
      const scale = ((b[at + 192 + (i >> 4)] as number) << 24) >> 24;
      out[i] = d * scale * (((group < 2 ? low & 15 : low >> 4) | (high << 4)) - 32);
    }
  },
};
