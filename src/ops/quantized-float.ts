/**
 * Quantization into small floats, as MLX packs it: value = scale * code. Formats of codes: e2m1 (4 bits: sign, 2 of exponent, 1 of fraction; at most 6) and e4m3 (8 bits, no
 * infinities; at most 448). Formats of scales, one byte each: e8m0 (2^(b - 127)) and e4m3. The formats are those of the OCP Microscaling specification (mxfp4, mxfp8) and of
 * NVIDIA's nvfp4.
 */
import { type Shape, sizeOf } from "../core/shape.ts";

export const modes = ["affine", "mxfp4", "mxfp8", "nvfp4"] as const;
export type Mode = (typeof modes)[number];
export type FloatMode = Exclude<Mode, "affine">;

/** What a mode packs when sizes are not given; the modes of small floats allow nothing else. */
export const modeDefaults: Readonly<Record<Mode, { readonly groupSize: number; readonly bits: number }>> = {
  affine: { groupSize: 64, bits: 4 },
  mxfp4: { groupSize: 32, bits: 4 },
  mxfp8: { groupSize: 32, bits: 8 },
  nvfp4: { groupSize: 16, bits: 4 },
};
/** Modes as kernels number them. */
export const modeCodes: Readonly<Record<FloatMode, number>> = { mxfp4: 0, nvfp4: 1, mxfp8: 2 };

/** The greatest scale times the greatest code of nvfp4: a global scale is the value that this stands for. */
export const globalRange = 448 * 6;
const f = Math.fround;

/** Nearest number with `fraction` bits of fraction, even in the middle; below 2^low the steps stay those of 2^low. */
function roundFloat(x: number, fraction: number, low: number): number {
  const e = Math.max(low, Math.floor(Math.log2(x)));
  const steps = x / 2 ** (e - fraction);
  const r = Math.round(steps);
  return (Math.abs(steps % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r) * 2 ** (e - fraction);
}
/** Code of a number in a format of `fraction` bits of fraction and least exponent `low`, at most `top`. NaN gives `top`. */
function encode(x: number, fraction: number, low: number, top: number): number {
  const size = Math.abs(x);
  const r = size >= top || Number.isNaN(x) ? top : size === 0 ? 0 : roundFloat(size, fraction, low);
  const e = r === 0 ? low : Math.max(low, Math.floor(Math.log2(r)));
  const steps = r / 2 ** (e - fraction);
  return (e - low) * 2 ** fraction + steps;
}
const signOf = (x: number, bit: number): number => (x < 0 || Object.is(x, -0) ? bit : 0);
export const encodeE4M3 = (x: number): number => encode(x, 3, -6, 448) | signOf(x, 128);
export const encodeE2M1 = (x: number): number => encode(x, 1, 0, 6) | signOf(x, 8);
/** A positive scale as a power of two: the nearest in logarithm, 255 for what is infinite. */
export function encodeE8M0(x: number): number {
  if (!Number.isFinite(x)) return 255;
  if (x < 2 ** -126.5) return 0;
  const e = Math.floor(Math.log2(x));
  // Compared as squares, so that nothing is rounded.
  return Math.min(254, 127 + e + ((x * 2 ** -e) ** 2 >= 2 ? 1 : 0));
}

function decode(code: number, fraction: number, low: number): number {
  const e = code >> fraction;
  const m = code & (2 ** fraction - 1);
  return e === 0 ? m * 2 ** (low - fraction) : (2 ** fraction + m) * 2 ** (e - 1 + low - fraction);
}
export const decodeE4M3 = (b: number): number => decode(b & 127, 3, -6) * (b & 128 ? -1 : 1);
export const decodeE2M1 = (b: number): number => decode(b & 7, 1, 0) * (b & 8 ? -1 : 1);
/** 255 is infinite, as float32 with that exponent is. */
export const decodeE8M0 = (b: number): number => (b === 255 ? Number.POSITIVE_INFINITY : 2 ** (b - 127));

const decodeScale = (mode: FloatMode, b: number): number => (mode === "nvfp4" ? decodeE4M3(b) : decodeE8M0(b));
const byteOf = (words: Float64Array, i: number): number => Math.floor((words[i >> 2] as number) / 2 ** (8 * (i & 3))) % 256;

/** Row-major values of packed arrays: for references. */
export function unpackFloats(words: Float64Array, scales: Float64Array, mode: FloatMode, global?: number): Float64Array {
  const { groupSize, bits } = modeDefaults[mode];
  const by = global === undefined ? 1 : f(global / globalRange);
  return Float64Array.from({ length: (words.length * 32) / bits }, (_, i) => {
    const code = bits === 8 ? decodeE4M3(byteOf(words, i)) : decodeE2M1((byteOf(words, i >> 1) >> (4 * (i & 1))) & 15);
    return f(f(decodeScale(mode, scales[Math.floor(i / groupSize)] as number) * by) * code);
  });
}

/** Words and scales of row-major values, in float32 steps: for references. */
export function packFloats(x: Float64Array, packed: Shape, mode: FloatMode, global?: number): Float64Array[] {
  const { groupSize, bits } = modeDefaults[mode];
  const words = new Float64Array(sizeOf(packed));
  const scales = new Float64Array(x.length / groupSize);
  const enc = global === undefined ? 1 : f(globalRange / global);
  for (let g = 0; g < scales.length; g++) {
    let most = 0;
    for (let i = 0; i < groupSize; i++) most = Math.max(most, Math.abs(x[g * groupSize + i] as number) || 0);
    const wanted = f(f(most / (bits === 8 ? 448 : 6)) * enc);
    const scale = mode === "nvfp4" ? encodeE4M3(wanted) : encodeE8M0(wanted);
    scales[g] = scale;
    const value = decodeScale(mode, scale);
    const by = value === 0 ? 0 : f(enc / value);
    for (let i = g * groupSize; i < (g + 1) * groupSize; i++) {
      const v = f((x[i] as number) * by);
      const per = 32 / bits;
      const at = Math.floor(i / per);
      words[at] = (words[at] as number) + (bits === 8 ? encodeE4M3(v) : Number.isNaN(v) ? 7 : encodeE2M1(v)) * 2 ** (bits * (i % per));
    }
  }
  return [words, scales];
}
