/**
 * Affine quantization: groups of 32, 64 or 128 values along the last axis become integers q of 2, 3, 4, 5, 6 or 8 bits with
 * value = scale * q + bias. Integers are packed as a little-endian bit stream in uint32 words, MLX's format.
 */
import type { Aval, View } from "../core/array.ts";
import type { MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, bfloat16, float16, float32, promote, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Apply, type Kernel, defineOp } from "../core/op.ts";
import { type Shape, broadcastShapes, formatShape, sameShape, sizeOf } from "../core/shape.ts";
import { at } from "./array-index.ts";
import { multiply } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, fromNumbers, requireDtype, toArray } from "./convert.ts";
import { arange, ones, zeros } from "./creation.ts";
import { gatherMM, matmul } from "./matmul.ts";
import { broadcastTo, expandDims, reshape, squeeze, swapaxes } from "./movement.ts";
import { gpuDequantize, gpuGatherQmv, gpuQmv, gpuQmvAny, gpuQuantize, gpuQvm } from "./quantized-gpu.ts";
import { gpuQuantizedMM } from "./quantized-mm-gpu.ts";
import { sum } from "./reduce.ts";
import {
  type Packing, type ProductParams, fewRows, last, launchDequantize, launchGather, launchQmm, launchQmv, launchQmvRow, launchQuantize, launchQvm, longestPanelRow, longestRow, rowsOf,
} from "./quantized-launch.ts";

const dim = (shape: Shape, fromEnd: number): number => shape[shape.length - fromEnd] as number;
const isHalfOrSingle = (d: Dtype): boolean => d === float32 || d === float16 || d === bfloat16;

function requirePacking(op: string, { groupSize, bits }: Packing): void {
  if (groupSize !== 32 && groupSize !== 64 && groupSize !== 128) throw opError(op, `group size must be 32, 64 or 128, got ${groupSize}`);
  if (![2, 3, 4, 5, 6, 8].includes(bits)) throw opError(op, `bits must be 2, 3, 4, 5, 6 or 8, got ${bits}`);
}
function requireAffine(op: string, mode: unknown): void {
  if (mode !== undefined && mode !== null && mode !== "affine" && !isStreamOrDevice(mode)) throw opError(op, `only the mode "affine" is supported, got ${JSON.stringify(mode)}`);
}
function requireFloat(op: string, what: string, d: Dtype): void {
  if (!isHalfOrSingle(d)) throw opError(op, `${what} must be float32, float16 or bfloat16, got ${d}`);
}

/** True when two shapes differ in their last dimension at most. */
function sameLead(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length - 1; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Checks packed weights against their scales and biases, and gives the length of an unpacked row. */
function requirePacked(op: string, w: Aval, scales: Aval, biases: Aval, { groupSize, bits }: Packing): number {
  if (w.dtype !== uint32) throw opError(op, `the weights must be uint32, got ${w.dtype}`);
  if (w.shape.length < 2) throw opError(op, `the weights must have at least 2 dimensions, got ${formatShape(w.shape)}`);
  if (!sameShape(scales.shape, biases.shape)) throw opError(op, `scales and biases must have the same shape, got ${formatShape(scales.shape)} and ${formatShape(biases.shape)}`);
  const length = (dim(w.shape, 1) * 32) / bits;
  if (!sameLead(w.shape, scales.shape) || length !== dim(scales.shape, 1) * groupSize) {
    const given = `weights ${formatShape(w.shape)} and scales ${formatShape(scales.shape)}`;
    throw opError(op, `weights and scales do not fit each other with groupSize=${groupSize} and bits=${bits}, got ${given}`);
  }
  return length;
}

/** Columns of the result of x times the packed matrices. */
function requireProduct(op: string, inputs: readonly Aval[], p: ProductParams): number {
  const [x, w, scales, biases] = inputs as readonly [Aval, Aval, Aval, Aval];
  requirePacking(op, p);
  const length = requirePacked(op, w, scales, biases, p);
  const [inner, outer] = p.transpose ? [length, dim(w.shape, 2)] : [dim(w.shape, 2), length];
  if (x.shape.length === 0) throw opError(op, "x must have at least one dimension, got a scalar");
  if (dim(x.shape, 1) !== inner) {
    const matrix = `${formatShape([inner, outer])} from ${formatShape(w.shape)} with groupSize=${p.groupSize}, bits=${p.bits}, transpose=${p.transpose}`;
    throw opError(op, `last dimension of x must equal the rows of the unpacked matrix, got ${formatShape(x.shape)} and ${matrix}`);
  }
  return outer;
}

// ---- float64 references

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
function unpackAll([w, scales, biases]: readonly Float64Array[], shape: Shape, { groupSize, bits }: Packing): Float64Array {
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
function multiplyInto(out: Float64Array, oAt: number, x: Float64Array, xAt: number, w: Float64Array, wAt: number, [M, N, K]: readonly [number, number, number], transpose: boolean): void {
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

function quantizeReference(x: Float64Array, packed: Shape, p: Packing): Float64Array[] {
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

// ---- records

const applyQuantize = defineOp<Packing>({
  name: "quantize",
  vjp: "none",
  jvp: "none",
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer([w], p) {
    const { shape, dtype } = w as Aval;
    const scales = [...shape.slice(0, -1), dim(shape, 1) / p.groupSize];
    return [{ shape: [...shape.slice(0, -1), (dim(shape, 1) * p.bits) / 32], dtype: uint32 }, { shape: scales, dtype }, { shape: scales, dtype }];
  },
  reference: ([x], _avals, p, [packed]) => quantizeReference(x as Float64Array, (packed as Aval).shape, p),
  kernels: [{ name: "wasm/quantized/quantize", launch: launchQuantize }],
  gpu: [gpuQuantize],
});

interface DequantizeParams extends Packing {
  readonly dtype: Dtype;
}
/** Cotangents of scales and biases from that of the values: sums over each group. */
function affineGradients(g: MxArray, [w, scales]: readonly MxArray[], p: Packing): [undefined, MxArray, MxArray] {
  const { shape } = (scales as MxArray).desc;
  const groups = (x: MxArray): MxArray => sum(reshape(x, [...x.shape.slice(0, -1), -1, p.groupSize]), -1);
  const codes = applyDequantize([w as MxArray, ones(shape, float32), zeros(shape, float32)], { ...p, dtype: float32 })[0] as MxArray;
  return [undefined, groups(multiply(g, codes)), groups(g)];
}
const applyDequantize: Apply<DequantizeParams> = defineOp<DequantizeParams>({
  name: "dequantize",
  vjp: ({ inputs, cotangents: [g], params }) => affineGradients(astype(g as MxArray, float32), inputs, params),
  jvp: "vjp",
  vmap: ({ inputs, spread, params, apply }) => apply(inputs.map((_, i) => spread(i)), params),
  infer: ([w, scales], p) => [{ shape: [...(w as Aval).shape.slice(0, -1), dim((scales as Aval).shape, 1) * p.groupSize], dtype: p.dtype }],
  reference: (inputs, avals, p) => [unpackAll(inputs, (avals[0] as Aval).shape, p)],
  kernels: [{ name: "wasm/quantized/dequantize", launch: launchDequantize }],
  gpu: [gpuDequantize],
});

/** A kernel for packed [N, K]. */
const transposed = (name: Kernel["name"], launch: Kernel<ProductParams>["launch"], refuse?: (M: number, K: number, bits: number) => string | undefined): Kernel<ProductParams> => ({
  name,
  gate: {
    refuse: ([x], p) => {
      if (!p.transpose) return "cannot: the weights are not transposed";
      const K = last(x as View);
      return K > longestRow ? `cannot: rows longer than ${longestRow}` : refuse?.(rowsOf(x as View), K, p.bits);
    },
  },
  launch,
});
/** The kernel that decoding a 4-bit model needs: one row, and shapes that leave no remainders. */
const oneRow: Kernel<ProductParams> = {
  name: "wasm/quantized/qmvRow",
  gate: {
    refuse([x, , scales], p, [out]) {
      const K = last(x as View);
      if (!p.transpose) return "cannot: the weights are not transposed";
      if (rowsOf(x as View) !== 1) return "cannot: more than one row";
      if (p.bits !== 4 || (scales as View).dtype !== bfloat16) return "cannot: needs 4 bits and bfloat16 scales";
      if (last(out as View) % 4 !== 0 || (K / p.groupSize) % 4 !== 0) return "cannot: outputs and groups in a row must be multiples of 4";
      return K > longestRow ? `cannot: rows longer than ${longestRow}` : undefined;
    },
  },
  launch: launchQmvRow,
};
/** The kernel for packed [K, N]. */
const plainMatrix: Kernel<ProductParams> = {
  name: "wasm/quantized/qvm",
  gate: { refuse: (_inputs, p) => (p.transpose ? "cannot: the weights are transposed" : undefined) },
  launch: launchQvm,
};

/** The operands of the dense product: x, and the weights unpacked and turned to [K, N], in float32. */
function denseOperands([x, w, scales, biases]: readonly MxArray[], p: ProductParams): [MxArray, MxArray] {
  const matrix = applyDequantize([w as MxArray, scales as MxArray, biases as MxArray], { ...p, dtype: float32 })[0] as MxArray;
  return [astype(x as MxArray, float32), p.transpose ? swapaxes(matrix, -1, -2) : matrix];
}

const applyProduct = defineOp<ProductParams>({
  name: "quantizedMatmul",
  vjp: ({ inputs: [x, ...weights], cotangents: [g], needs, params, apply }) => {
    const out = needs[0] ? apply([g as MxArray, ...weights], { ...params, transpose: !params.transpose })[0] : undefined;
    if (!needs[2] && !needs[3]) return [out];
    const rows = (v: MxArray): MxArray => reshape(astype(v, float32), [-1, dim(v.desc.shape, 1)]);
    const [a, b] = params.transpose ? [rows(g as MxArray), rows(x as MxArray)] : [rows(x as MxArray), rows(g as MxArray)];
    return [out, ...affineGradients(matmul(swapaxes(a, 0, 1), b), weights, params)];
  },
  jvp: ({ inputs: [, ...weights], tangents: [t, ...rest], params, apply }) => {
    if (rest.some((r) => r !== undefined)) throw opError("quantizedMatmul", "only x has a forward derivative, got one asked for the weights");
    return t ? apply([t, ...weights], params) : [undefined];
  },
  vmap: ({ inputs, batched, params, apply, spread }) => {
    if (!batched.slice(1).some(Boolean)) return apply(inputs, params);
    const [x, w, s, b] = [spread(0), spread(1), spread(2), spread(3)];
    const flat = x.ndim === 2;
    const out = quantizedMatmul(flat ? expandDims(x, 1) : reshape(x, [x.shape[0] as number, -1, dim(x.shape, 1)]), w, s, b, params.transpose, params.groupSize, params.bits);
    return [flat ? squeeze(out, 1) : reshape(out, [...x.shape.slice(0, -1), dim(out.shape, 1)])];
  },
  infer(inputs, p) {
    const N = requireProduct("quantizedMatmul", inputs, p);
    const [x, , scales] = inputs as readonly [Aval, Aval, Aval];
    return [{ shape: [...x.shape.slice(0, -1), N], dtype: promote(x.dtype, scales.dtype) }];
  },
  reference([x, ...packed], [xa, wa], p, [out]) {
    const K = dim((xa as Aval).shape, 1);
    const result = new Float64Array(sizeOf((out as Aval).shape));
    const N = dim((out as Aval).shape, 1);
    multiplyInto(result, 0, x as Float64Array, 0, unpackAll(packed, (wa as Aval).shape, p), 0, [result.length / Math.max(1, N), N, K], p.transpose);
    return [result];
  },
  composite: (inputs, p) => [astype(matmul(...denseOperands(inputs, p)), promote((inputs[0] as MxArray).dtype, (inputs[2] as MxArray).dtype))],
  kernels: [
    oneRow,
    transposed("wasm/quantized/qmv", launchQmv, (M, K, bits) => (M > fewRows(bits) && K <= longestPanelRow ? `slower: more than ${fewRows(bits)} rows` : undefined)),
    transposed("wasm/quantized/qmm", launchQmm, (_M, K) => (K > longestPanelRow ? `cannot: rows longer than ${longestPanelRow}` : undefined)),
    plainMatrix,
  ],
  gpu: [gpuQmv, ...gpuQuantizedMM, gpuQmvAny, gpuQvm],
});

const applyGather = defineOp<ProductParams>({
  name: "gatherQMM",
  vjp: ({ inputs: [x, w, s, b, lhs, rhs], cotangents: [g], needs, params, apply }) => {
    if (needs[2] || needs[3]) throw opError("gatherQMM", "only x has a gradient, got one asked for scales or biases");
    const [M, K] = (x as MxArray).desc.shape.slice(-2) as [number, number];
    const count = (lhs as MxArray).size;
    const numbers = reshape(arange(count, uint32), (lhs as MxArray).shape);
    const parts = apply([g as MxArray, w as MxArray, s as MxArray, b as MxArray, numbers, rhs as MxArray], { ...params, transpose: !params.transpose })[0] as MxArray;
    const total = at(zeros([(x as MxArray).size / (M * K), M * K], parts.dtype), reshape(lhs as MxArray, [count])).add(reshape(parts, [count, M * K]));
    return [reshape(total, (x as MxArray).shape)];
  },
  jvp: ({ inputs: [, ...rest], tangents: [t, ...others], params, apply }) => {
    if (others.some((r) => r !== undefined)) throw opError("gatherQMM", "only x has a forward derivative, got one asked for the weights");
    return t ? apply([t, ...rest], params) : [undefined];
  },
  infer(inputs, p) {
    const N = requireProduct("gatherQMM", inputs, p);
    const [x, w, scales, , lhs] = inputs as readonly [Aval, Aval, Aval, Aval, Aval];
    if (sizeOf(lhs.shape) > 0 && (sizeOf(x.shape.slice(0, -2)) === 0 || sizeOf(w.shape.slice(0, -2)) === 0)) {
      throw opError("gatherQMM", `there are no matrices to choose from, got x ${formatShape(x.shape)} and weights ${formatShape(w.shape)}`);
    }
    return [{ shape: [...lhs.shape, dim(x.shape, 2), N], dtype: promote(x.dtype, scales.dtype) }];
  },
  reference([x, w, scales, biases, lhs, rhs], [xa, wa], p, [out]) {
    const [M, K] = [dim((xa as Aval).shape, 2), dim((xa as Aval).shape, 1)];
    const N = dim((out as Aval).shape, 1);
    const matrices = unpackAll([w as Float64Array, scales as Float64Array, biases as Float64Array], (wa as Aval).shape, p);
    const result = new Float64Array(sizeOf((out as Aval).shape));
    (lhs as Float64Array).forEach((l, i) => {
      multiplyInto(result, i * M * N, x as Float64Array, l * M * K, matrices, ((rhs as Float64Array)[i] as number) * N * K, [M, N, K], p.transpose);
    });
    return [result];
  },
  composite: (inputs, p) => {
    const dtype = promote((inputs[0] as MxArray).dtype, (inputs[2] as MxArray).dtype);
    return [astype(gatherMM(...denseOperands(inputs, p), inputs[4] as MxArray, inputs[5] as MxArray), dtype)];
  },
  kernels: [transposed("wasm/quantized/gatherQmv", launchGather), plainMatrix],
  gpu: [gpuGatherQmv, gpuQvm],
});

// ---- public functions

type Optional<T> = T | null | undefined | StreamOrDevice;
const orDefault = <T>(value: Optional<T>, fallback: T): T => (value === undefined || value === null || isStreamOrDevice(value) ? fallback : value);
/** The stream among trailing arguments: decode calls these functions 200 times a token, so nothing is allocated for them. */
function findStream(a: unknown, b: unknown, c: unknown, d?: unknown, e?: unknown, f?: unknown): StreamOrDevice | undefined {
  if (isStreamOrDevice(f)) return f;
  if (isStreamOrDevice(e)) return e;
  if (isStreamOrDevice(d)) return d;
  if (isStreamOrDevice(c)) return c;
  if (isStreamOrDevice(b)) return b;
  return isStreamOrDevice(a) ? a : undefined;
}
const productOf = (transpose: Optional<boolean>, groupSize: Optional<number>, bits: Optional<number>): ProductParams => ({ transpose: orDefault(transpose, true), groupSize: orDefault(groupSize, 64), bits: orDefault(bits, 4) });
const packingOf = (groupSize: Optional<number>, bits: Optional<number>): Packing => ({ groupSize: orDefault(groupSize, 64), bits: orDefault(bits, 4) });

/** Scales and biases as arrays of one float dtype. */
function affineTerms(op: string, scales: ArrayLike, biases: ArrayLike | null | undefined, stream: StreamOrDevice | undefined): [MxArray, MxArray] {
  if (biases === undefined || biases === null) throw opError(op, "affine quantization needs biases, got none");
  const [s, b] = [toArray(scales), toArray(biases)];
  const dtype = promote(s.dtype, b.dtype);
  requireFloat(op, "scales and biases", dtype);
  return [s.dtype === dtype ? s : astype(s, dtype, stream), b.dtype === dtype ? b : astype(b, dtype, stream)];
}
/** x as floats; the result has the dtype that x and the scales promote to. */
function floatInput(op: string, x: ArrayLike, scales: MxArray, stream: StreamOrDevice | undefined): MxArray {
  const a = toArray(x);
  const dtype = promote(a.dtype, scales.dtype);
  requireFloat(op, "x", dtype);
  return a.dtype.isFloat ? a : astype(a, dtype, stream);
}

/**
 * Quantizes groups of values along the last axis: value = scale * q + bias, with q unsigned integers of `bits` bits.
 * @param w (..., n), float32, float16 or bfloat16, with at least 2 dimensions and n a multiple of `groupSize`
 * @param groupSize 32, 64 or 128
 * @param bits 2, 3, 4, 5, 6 or 8
 * @returns the packed integers, uint32 (..., n * bits / 32); scales and biases (..., n / groupSize) in w's dtype
 */
export function quantize(w: ArrayLike, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, s?: StreamOrDevice | null): [MxArray, MxArray, MxArray] {
  const stream = findStream(groupSize, bits, mode, s);
  const a = toArray(w);
  const p = packingOf(groupSize, bits);
  requireAffine("quantize", mode);
  requirePacking("quantize", p);
  requireFloat("quantize", "the matrix", a.dtype);
  if (a.ndim < 2) throw opError("quantize", `the matrix must have at least 2 dimensions, got ${formatShape(a.desc.shape)}`);
  if (dim(a.desc.shape, 1) % p.groupSize !== 0) throw opError("quantize", `the last dimension must be a multiple of the group size ${p.groupSize}, got ${formatShape(a.desc.shape)}`);
  return applyQuantize([a], p, stream) as [MxArray, MxArray, MxArray];
}

/**
 * Values of a quantized array: scale * q + bias, computed in float32 and rounded once.
 * @param w packed integers, uint32 (..., n * bits / 32)
 * @param scales, biases (..., n / groupSize)
 * @param dtype of the result; by default the one of scales and biases
 * @returns (..., n)
 */
export function dequantize(w: ArrayLike, scales: ArrayLike, biases?: ArrayLike | null, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, globalScale?: ArrayLike | null | StreamOrDevice, dtype?: Optional<Dtype>, s?: StreamOrDevice | null): MxArray {
  const stream = findStream(groupSize, bits, mode, globalScale, dtype, s);
  const p = packingOf(groupSize, bits);
  requireAffine("dequantize", mode);
  if (globalScale !== undefined && globalScale !== null && !isStreamOrDevice(globalScale)) throw opError("dequantize", "a global scale belongs to the mode nvfp4, got one with affine");
  requirePacking("dequantize", p);
  const packed = toArray(w);
  const [sc, bi] = affineTerms("dequantize", scales, biases, stream);
  requirePacked("dequantize", packed.desc, sc.desc, bi.desc, p);
  const out = requireDtype("dequantize", orDefault(dtype, sc.dtype));
  requireFloat("dequantize", "the result's dtype", out);
  return applyDequantize([packed, sc, bi], { ...p, dtype: out }, stream)[0] as MxArray;
}

/**
 * Product of x with quantized matrices, accumulated in float32 and rounded once.
 * @param x (..., K)
 * @param w packed integers, uint32: (N, K * bits / 32), or (K, N * bits / 32) without `transpose`; leading dimensions broadcast with those of x
 * @param scales, biases one per group of `groupSize` values along w's last axis
 * @returns (..., N) in the dtype that x and the scales promote to
 */
export function quantizedMatmul(x: ArrayLike, w: ArrayLike, scales: ArrayLike, biases?: ArrayLike | null, transpose?: Optional<boolean>, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, s?: StreamOrDevice | null): MxArray {
  const stream = findStream(transpose, groupSize, bits, mode, s);
  const p = productOf(transpose, groupSize, bits);
  requireAffine("quantizedMatmul", mode);
  const packed = toArray(w);
  const [sc, bi] = affineTerms("quantizedMatmul", scales, biases, stream);
  const a = floatInput("quantizedMatmul", x, sc, stream);
  if (packed.ndim <= 2) return applyProduct([a, packed, sc, bi], p, stream)[0] as MxArray;
  requireProduct("quantizedMatmul", [a.desc, packed.desc, sc.desc, bi.desc], p);
  if (a.ndim <= 2) throw opError("quantizedMatmul", `batches of weights need x with batch dimensions, got ${formatShape(a.desc.shape)} and ${formatShape(packed.desc.shape)}`);
  const batch = broadcastShapes("quantizedMatmul", a.desc.shape.slice(0, -2), packed.desc.shape.slice(0, -2));
  const lhs = matrixNumbers(a, batch, stream);
  return applyGather([a, packed, sc, bi, lhs, matrixNumbers(packed, batch, stream)], p, stream)[0] as MxArray;
}

/** Number of each matrix of `a`, broadcast to a batch shape. */
function matrixNumbers(a: MxArray, batch: Shape, stream: StreamOrDevice | undefined): MxArray {
  const shape = a.desc.shape.slice(0, -2);
  const numbers = fromNumbers(shape, uint32, Array.from({ length: sizeOf(shape) }, (_, i) => i));
  return sameShape(shape, batch) ? numbers : broadcastTo(numbers, batch, stream);
}
function indexInput(op: string, value: ArrayLike | null | undefined, a: MxArray, stream: StreamOrDevice | undefined): MxArray {
  if (value === undefined || value === null) return matrixNumbers(a, a.desc.shape.slice(0, -2), stream);
  const i = toArray(value);
  if (!i.dtype.isInteger) throw opError(op, `indices must be integers, got ${i.dtype}`);
  return i.dtype === uint32 ? i : astype(i, uint32, stream);
}

/**
 * Products of chosen matrices of x with chosen quantized matrices (mixture of experts).
 * @param x (..., M, K)
 * @param w packed integers, uint32: (..., N, K * bits / 32), or (..., K, N * bits / 32) without `transpose`
 * @param indicesLhs, indicesRhs integers that number the matrices of x and of w, their leading dimensions flattened; they broadcast with each other. By default
 *   the numbers of all matrices, in the shape of the leading dimensions. Out of range indices mean the last matrix.
 * @param sortedIndices a promise that the given indices are sorted; results are the same without it
 * @returns (...indices, M, N) in the dtype that x and the scales promote to
 */
export function gatherQMM(
  x: ArrayLike, w: ArrayLike, scales: ArrayLike, biases?: ArrayLike | null, indicesLhs?: ArrayLike | null, indicesRhs?: ArrayLike | null,
  transpose?: Optional<boolean>, groupSize?: Optional<number>, bits?: Optional<number>, sortedIndices?: Optional<boolean>, mode?: Optional<string>, s?: StreamOrDevice | null,
): MxArray {
  const stream = findStream(transpose, groupSize, bits, sortedIndices, mode, s);
  const p = productOf(transpose, groupSize, bits);
  requireAffine("gatherQMM", mode);
  const given = (i: ArrayLike | null | undefined): boolean => i !== undefined && i !== null;
  if (!given(indicesLhs) && !given(indicesRhs)) return quantizedMatmul(x, w, scales, biases, p.transpose, p.groupSize, p.bits, "affine", stream);
  const packed = toArray(w);
  const [sc, bi] = affineTerms("gatherQMM", scales, biases, stream);
  const a = floatInput("gatherQMM", x, sc, stream);
  if (a.ndim < 2) throw opError("gatherQMM", `x must have at least 2 dimensions, got ${formatShape(a.desc.shape)}`);
  if (packed.ndim < 2) throw opError("gatherQMM", `the weights must have at least 2 dimensions, got ${formatShape(packed.desc.shape)}`);
  const lhs = indexInput("gatherQMM", indicesLhs, a, stream);
  const rhs = indexInput("gatherQMM", indicesRhs, packed, stream);
  const shape = broadcastShapes("gatherQMM", lhs.desc.shape, rhs.desc.shape);
  const spread = (i: MxArray): MxArray => (sameShape(i.desc.shape, shape) ? i : broadcastTo(i, shape, stream));
  return applyGather([a, packed, sc, bi, spread(lhs), spread(rhs)], p, stream)[0] as MxArray;
}
