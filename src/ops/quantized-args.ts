/** Arguments of the quantized functions: defaults, checks, conversions. */
import type { Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, bfloat16, float16, float32, promote, uint32, uint8 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Shape, formatShape, sameShape, sizeOf } from "../core/shape.ts";
import { noteSizes, sizesCount } from "../core/sizes.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, fromNumbers, toArray } from "./convert.ts";
import { broadcastTo } from "./movement.ts";
import { type FloatMode, type Mode, modeDefaults, modes } from "./quantized-float.ts";
import type { Packing, ProductParams } from "./quantized-launch.ts";

export const dim = (shape: Shape, fromEnd: number): number => shape[shape.length - fromEnd] as number;
const isHalfOrSingle = (d: Dtype): boolean => d === float32 || d === float16 || d === bfloat16;

export function requirePacking(op: string, { groupSize, bits, mode }: Packing): void {
  if (mode) {
    const wanted = modeDefaults[mode];
    if (groupSize !== wanted.groupSize) throw opError(op, `the group size of ${mode} is ${wanted.groupSize}, got ${groupSize}`);
    if (bits !== wanted.bits) throw opError(op, `${mode} has ${wanted.bits} bits, got ${bits}`);
    return;
  }
  if (groupSize !== 32 && groupSize !== 64 && groupSize !== 128) throw opError(op, `group size must be 32, 64 or 128, got ${groupSize}`);
  if (![2, 3, 4, 5, 6, 8].includes(bits)) throw opError(op, `bits must be 2, 3, 4, 5, 6 or 8, got ${bits}`);
}
/** A mode argument; undefined for affine. */
export function floatMode(op: string, mode: unknown): FloatMode | undefined {
  if (mode === undefined || mode === null || mode === "affine" || isStreamOrDevice(mode)) return undefined;
  if (!modes.includes(mode as Mode)) throw opError(op, `mode must be ${modes.map((m) => `"${m}"`).join(", ")}, got ${JSON.stringify(mode)}`);
  return mode as FloatMode;
}
export function requireFloat(op: string, what: string, d: Dtype): void {
  if (!isHalfOrSingle(d)) throw opError(op, `${what} must be float32, float16 or bfloat16, got ${d}`);
}

/** True when two shapes differ in their last dimension at most. */
function sameLead(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length - 1; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Checks packed weights against their scales and (affine) biases, and gives the length of an unpacked row. */
export function requirePacked(op: string, w: Aval, scales: Aval, biases: Aval | undefined, { groupSize, bits, mode }: Packing): number {
  if (w.dtype !== uint32) throw opError(op, `the weights must be uint32, got ${w.dtype}`);
  if (w.shape.length < 2) throw opError(op, `the weights must have at least 2 dimensions, got ${formatShape(w.shape)}`);
  if (mode && scales.dtype !== uint8) throw opError(op, `the scales of ${mode} must be uint8, got ${scales.dtype}`);
  if (biases && !sameShape(scales.shape, biases.shape)) throw opError(op, `scales and biases must have the same shape, got ${formatShape(scales.shape)} and ${formatShape(biases.shape)}`);
  const length = (dim(w.shape, 1) * 32) / bits;
  if (!sameLead(w.shape, scales.shape) || length !== dim(scales.shape, 1) * groupSize) {
    const given = `weights ${formatShape(w.shape)} and scales ${formatShape(scales.shape)}`;
    throw opError(op, `weights and scales do not fit each other with groupSize=${groupSize} and bits=${bits}, got ${given}`);
  }
  return length;
}

/** Columns of the result of x times the packed matrices. */
export function requireProduct(op: string, inputs: readonly Aval[], p: ProductParams): number {
  const [x, w, scales, biases] = inputs as readonly [Aval, Aval, Aval, Aval];
  requirePacking(op, p);
  const length = requirePacked(op, w, scales, p.mode ? undefined : biases, p);
  const [inner, outer] = p.transpose ? [length, dim(w.shape, 2)] : [dim(w.shape, 2), length];
  if (x.shape.length === 0) throw opError(op, "x must have at least one dimension, got a scalar");
  if (dim(x.shape, 1) !== inner) {
    const matrix = `${formatShape([inner, outer])} from ${formatShape(w.shape)} with groupSize=${p.groupSize}, bits=${p.bits}, transpose=${p.transpose}`;
    throw opError(op, `last dimension of x must equal the rows of the unpacked matrix, got ${formatShape(x.shape)} and ${matrix}`);
  }
  return outer;
}

export type Optional<T> = T | null | undefined | StreamOrDevice;
export const orDefault = <T>(value: Optional<T>, fallback: T): T => (value === undefined || value === null || isStreamOrDevice(value) ? fallback : value);
/** The stream among trailing arguments: decode calls these functions 200 times a token, so nothing is allocated for them. */
export function findStream(a: unknown, b: unknown, c: unknown, d?: unknown, e?: unknown, f?: unknown): StreamOrDevice | undefined {
  if (isStreamOrDevice(f)) return f;
  if (isStreamOrDevice(e)) return e;
  if (isStreamOrDevice(d)) return d;
  if (isStreamOrDevice(c)) return c;
  if (isStreamOrDevice(b)) return b;
  return isStreamOrDevice(a) ? a : undefined;
}
export function packingOf(op: string, groupSize: Optional<number>, bits: Optional<number>, mode: unknown): Packing {
  const m = floatMode(op, mode);
  const defaults = modeDefaults[m ?? "affine"];
  return { groupSize: orDefault(groupSize, defaults.groupSize), bits: orDefault(bits, defaults.bits), mode: m };
}
export const productOf = (op: string, transpose: Optional<boolean>, groupSize: Optional<number>, bits: Optional<number>, mode: unknown): ProductParams => ({
  ...packingOf(op, groupSize, bits, mode), transpose: orDefault(transpose, true),
});

/** Scales, and affine biases, as arrays: of one float dtype, or uint8. */
export function termsOf(op: string, scales: ArrayLike, biases: ArrayLike | null | undefined, { mode }: Packing, stream: StreamOrDevice | undefined): MxArray[] {
  const given = biases !== undefined && biases !== null;
  if (mode) {
    if (given) throw opError(op, `${mode} has no biases, got some`);
    const s = toArray(scales);
    if (s.dtype !== uint8) throw opError(op, `the scales of ${mode} must be uint8, got ${s.dtype}`);
    return [s];
  }
  if (!given) throw opError(op, "affine quantization needs biases, got none");
  const [s, b] = [toArray(scales), toArray(biases)];
  const dtype = promote(s.dtype, b.dtype);
  requireFloat(op, "scales and biases", dtype);
  return [s.dtype === dtype ? s : astype(s, dtype, stream), b.dtype === dtype ? b : astype(b, dtype, stream)];
}
/** x as floats. The result has the dtype that x and affine scales promote to, else x's. */
export function floatInput(op: string, x: ArrayLike, scales: MxArray, { mode }: Packing, stream: StreamOrDevice | undefined): MxArray {
  const a = toArray(x);
  const dtype = mode ? a.dtype : promote(a.dtype, scales.dtype);
  requireFloat(op, "x", dtype);
  return a.dtype.isFloat ? a : astype(a, dtype, stream);
}
/** A global scale: one float32 number, of nvfp4 only. */
export function globalScaleOf(op: string, name: string, value: ArrayLike | null | undefined | StreamOrDevice, mode: FloatMode | undefined): MxArray | undefined {
  if (value === undefined || value === null || isStreamOrDevice(value)) return undefined;
  if (mode !== "nvfp4") throw opError(op, `a global scale belongs to the mode nvfp4, got one with ${mode ?? "affine"}`);
  const g = toArray(value as ArrayLike);
  if (g.size !== 1) throw opError(op, `${name} must be one number, got shape ${formatShape(g.desc.shape)}`);
  if (g.dtype !== float32) throw opError(op, `${name} must be float32, got ${g.dtype}`);
  return g;
}

/** Number of each matrix of `a`, broadcast to a batch shape. */
export function matrixNumbers(a: MxArray, batch: Shape, stream: StreamOrDevice | undefined): MxArray {
  noteSizes(sizesCount);
  const shape = a.desc.shape.slice(0, -2);
  const numbers = fromNumbers(shape, uint32, Array.from({ length: sizeOf(shape) }, (_, i) => i));
  return sameShape(shape, batch) ? numbers : broadcastTo(numbers, batch, stream);
}
export function indexInput(op: string, value: ArrayLike | null | undefined, a: MxArray, stream: StreamOrDevice | undefined): MxArray {
  if (value === undefined || value === null) return matrixNumbers(a, a.desc.shape.slice(0, -2), stream);
  const i = toArray(value);
  if (!i.dtype.isInteger) throw opError(op, `indices must be integers, got ${i.dtype}`);
  return i.dtype === uint32 ? i : astype(i, uint32, stream);
}
