/** Affine quantization and products in plain float64: what the op records compare with. */
import { type Shape, sizeOf } from "../core/shape.ts";
import type { Packing } from "./quantized-launch.ts";

const dim = (shape: Shape, fromEnd: number): number => shape[shape.length - fromEnd] as number;

const mask = (bits: number): number => 2 ** bits - 1;
/** Value i of a bit stream in uint32 words (given as numbers), from word `from` on. */
function unpackValue(words: Float64Array, from: number, i: number, bits: number): number {
  const at = i * bits;
  const word = from + Math.floor(at / 32);
  const shift = at % 32;
  const low = Math.floor((words[word] as number) / 2 ** shift);
  const high = shift + bits > 32 ? (words[word + 1] as number) * 2 ** (32 - shift) : 0;
  return (low + high) % 2 ** bits;
}
/** Row-major values of packed matrices. */
export function unpackAffine([w, scales, biases]: readonly Float64Array[], shape: Shape, { groupSize, bits }: Packing): Float64Array {
  const words = dim(shape, 1);
  const length = (words * 32) / bits;
  const rows = sizeOf(shape) / Math.max(1, words);
  const out = new Float64Array(rows * length);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < length; i++) {
      const g = (r * length) / groupSize + Math.floor(i / groupSize);
      out[r * length + i] = unpackValue(w as Float64Array, r * words, i, bits) * ((scales as Float64Array)[g] as number) + ((biases as Float64Array)[g] as number);
    }
  }
  return out;
}
/** Adds one product of x [M, K] at xAt with a matrix at wAt, [N, K] or [K, N], to the result at oAt. */
export function multiplyInto(out: Float64Array, oAt: number, x: Float64Array, xAt: number, w: Float64Array, wAt: number, [M, N, K]: readonly [number, number, number], transpose: boolean): void {
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += (x[xAt + m * K + k] as number) * (w[wAt + (transpose ? n * K + k : k * N + n)] as number);
      out[oAt + m * N + n] = sum;
    }
  }
}

/** MLX's rule for one group, in its float32 steps: the edge of larger magnitude becomes the bias and is represented exactly. */
function quantizeGroup(x: Float64Array, at: number, { groupSize, bits }: Packing): { q: number[]; scale: number; bias: number } {
  const f = Math.fround;
  let high = -Infinity;
  let low = Infinity;
  for (let i = 0; i < groupSize; i++) {
    const v = x[at + i] as number;
    if (v > high) high = v;
    if (v < low) low = v;
  }
  const below = Math.abs(low) > Math.abs(high);
  let scale = Math.max(f(f(high - low) / mask(bits)), f(1e-7));
  if (!below) scale = -scale;
  const edge = below ? low : high;
  const steps = roundEven(f(edge / scale));
  let bias = 0;
  if (steps !== 0) {
    scale = f(edge / steps);
    bias = edge;
  }
  const q = Array.from({ length: groupSize }, (_, i) => Math.min(Math.max(roundEven(f(f((x[at + i] as number) - bias) / scale)), 0), mask(bits)) || 0);
  return { q, scale, bias };
}
function roundEven(x: number): number {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

export function quantizeReference(x: Float64Array, packed: Shape, p: Packing): Float64Array[] {
  const groups = x.length / p.groupSize;
  const words = new Uint32Array(sizeOf(packed));
  const scales = new Float64Array(groups);
  const biases = new Float64Array(groups);
  for (let g = 0; g < groups; g++) {
    const { q, scale, bias } = quantizeGroup(x, g * p.groupSize, p);
    scales[g] = scale;
    biases[g] = bias;
    q.forEach((value, i) => {
      for (let b = 0; b < p.bits; b++) {
        const bit = (g * p.groupSize + i) * p.bits + b;
        if ((value >> b) & 1) words[bit >> 5] = ((words[bit >> 5] as number) | (1 << (bit & 31))) >>> 0;
      }
    });
  }
  return [Float64Array.from(words), scales, biases];
}

