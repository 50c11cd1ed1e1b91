/** Products of which both operands are quantized into small floats: x on the way, the weights before or on the way. */
import type { Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { float32, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { defineOp } from "../core/op.ts";
import { noRule, notDifferentiable } from "../core/rules.ts";
import { broadcastShapes, formatShape } from "../core/shape.ts";
import { divide, multiply } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { expandDims, reshape, squeeze, swapaxes } from "./movement.ts";
import { type Optional, dim, globalScaleOf, indexInput, packingOf, requireFloat, requirePacked, requirePacking } from "./quantized-args.ts";
import { type FloatMode, globalRange } from "./quantized-float.ts";
import type { Packing } from "./quantized-launch.ts";
import { dequantize, gatherQMM, quantize, quantizedMatmul } from "./quantized.ts";
import { max } from "./reduce.ts";
import { abs } from "./unary.ts";

interface Params extends Packing {
  readonly mode: FloatMode;
  /** The weights come packed, with scales. */
  readonly packed: boolean;
  /** Global scales of both operands are the last inputs. */
  readonly global: boolean;
}
/** x, w, scales or undefined, and what follows: indices or nothing; then global scales or undefined. */
function operands<T>(inputs: readonly T[], p: Params): { x: T; w: T; scales: T | undefined; indices: readonly T[]; globals: readonly T[] } {
  const end = inputs.length - (p.global ? 2 : 0);
  const first = p.packed ? 3 : 2;
  return { x: inputs[0] as T, w: inputs[1] as T, scales: p.packed ? (inputs[2] as T) : undefined, indices: inputs.slice(first, end), globals: inputs.slice(end) };
}

/** Checks x and w and gives the number of columns of the result. */
function columns(op: string, inputs: readonly Aval[], p: Params): number {
  const { x, w, scales } = operands(inputs, p);
  const K = dim(x.shape, 1);
  const inner = scales ? requirePacked(op, w, scales, undefined, p) : dim(w.shape, 1);
  if (K !== inner) throw opError(op, `last dimension of x must equal the last one of the unpacked weights, got ${formatShape(x.shape)} and ${inner}`);
  if (K % p.groupSize !== 0) throw opError(op, `the last dimension of x must be a multiple of the group size ${p.groupSize}, got ${formatShape(x.shape)}`);
  return dim(w.shape, 2);
}

/** x as it is after quantization, and packed weights. With global scales in float32: their products have more bits than 16-bit floats hold. */
function quantizedOperands(inputs: readonly MxArray[], p: Params): { x: MxArray; w: MxArray; scales: MxArray } {
  const { x, w, scales, globals: [gx, gw] } = operands(inputs, p);
  const [qx, sx] = quantize(x, null, null, p.mode, gx);
  const rounded = dequantize(qx, sx, null, null, null, p.mode, gx, p.global ? float32 : x.dtype);
  const [qw, sw] = scales ? [w, scales] : quantize(w, null, null, p.mode, gw);
  return { x: rounded, w: qw, scales: sw };
}
/** The product, with the global scale of the weights, in x's dtype. */
function finish(y: MxArray, inputs: readonly MxArray[], p: Params): MxArray {
  const { x, globals: [, gw] } = operands(inputs, p);
  return gw ? astype(multiply(y, divide(reshape(gw, []), globalRange)), x.dtype) : y;
}

const applyQqmm = defineOp<Params>({
  name: "qqmm",
  infer(inputs, p) {
    const x = inputs[0] as Aval;
    return [{ shape: [...x.shape.slice(0, -1), columns("qqmm", inputs, p)], dtype: x.dtype }];
  },
  composite(inputs, p) {
    const { x, w, scales } = quantizedOperands(inputs, p);
    return [finish(quantizedMatmul(x, w, scales, null, true, null, null, p.mode), inputs, p)];
  },
  // The gradients are such products too, of the cotangent and the other operand, quantized along the dimension that is summed over.
  vjp({ inputs, cotangents: [g], needs, params: p }) {
    const { x, w, scales, globals: [gx, gw] } = operands(inputs, p);
    const flow = g as MxArray;
    if (scales) {
      if (needs[1]) throw opError("qqmm", "there is no gradient by packed weights, got one asked for");
      const back = (v: MxArray): MxArray => quantizedMatmul(v, w, scales, null, false, null, null, p.mode);
      return [gw ? finish(back(astype(flow, float32)), inputs, p) : back(flow)];
    }
    const top = p.global ? astype(max(abs(flow)), float32) : null;
    const product = (a: MxArray, b: MxArray, of: MxArray | undefined): MxArray => qqmm(a, b, null, null, null, p.mode, top, of);
    return [needs[0] ? product(flow, swapaxes(w, -1, -2), gw) : undefined, needs[1] ? product(swapaxes(flow, -1, -2), swapaxes(x, -1, -2), gx) : undefined];
  },
  jvp: noRule("rounding to codes has no forward derivative, as in MLX"),
  vmap: "composite",
  kernels: [],
});

const applyGather = defineOp<Params>({
  name: "gatherQQMM",
  infer(inputs, p) {
    const N = columns("gatherQQMM", inputs, p);
    const { x, w, indices: [lhs, rhs] } = operands(inputs, p);
    const shape = broadcastShapes("gatherQQMM", lhs?.shape ?? x.shape.slice(0, -2), rhs?.shape ?? w.shape.slice(0, -2));
    return [{ shape: [...shape, dim(x.shape, 2), N], dtype: x.dtype }];
  },
  composite(inputs, p) {
    const { x, w, scales } = quantizedOperands(inputs, p);
    const [lhs, rhs] = operands(inputs, p).indices;
    return [finish(gatherQMM(x, w, scales, null, lhs, rhs, true, null, null, false, p.mode), inputs, p)];
  },
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "composite",
  kernels: [],
});

/** Checked parameters and inputs. Float weights need no scales; packed ones do. */
function prepare(op: string, x: MxArray, w: MxArray, scales: ArrayLike | null | undefined, sizes: readonly [Optional<number>, Optional<number>], mode: unknown, globals: readonly unknown[]) {
  const p = packingOf(op, sizes[0], sizes[1], mode ?? "nvfp4");
  if (!p.mode) throw opError(op, `mode must be "nvfp4", "mxfp8" or "mxfp4", got "affine"`);
  requirePacking(op, p);
  requireFloat(op, "x", x.dtype);
  const given = scales !== undefined && scales !== null;
  if (w.dtype === uint32 && !given) throw opError(op, "packed weights need scales, got none");
  if (w.dtype !== uint32) requireFloat(op, "weights that are not packed", w.dtype);
  const [gx, gw] = globals.map((g, i) => globalScaleOf(op, i === 0 ? "globalScaleX" : "globalScaleW", g as ArrayLike, p.mode));
  if ((gx === undefined) !== (gw === undefined)) throw opError(op, `global scales belong to both operands or to none, got only that of ${gx ? "x" : "the weights"}`);
  const packed = w.dtype === uint32;
  const params: Params = { ...p, mode: p.mode, packed, global: gx !== undefined };
  return { params, front: [x, w, ...(packed ? [toArray(scales as ArrayLike)] : [])], back: gx && gw ? [gx, gw] : [] };
}
const streamIn = (args: readonly unknown[]): StreamOrDevice | undefined => args.find(isStreamOrDevice) as StreamOrDevice | undefined;
const modeIn = (mode: Optional<string>): string => (mode === undefined || mode === null || isStreamOrDevice(mode) ? "nvfp4" : mode);

/**
 * Product of x and the transpose of w, both in small floats: x is quantized on the way, and so is w unless it comes packed. Accumulated in float32, rounded once.
 * The gradients by x and by float weights are such products too; their sizes must be multiples of the group size.
 * @param x (..., K), float32, float16 or bfloat16, K a multiple of the group size
 * @param w floats (N, K), or codes packed by `quantize`, uint32 (N, K * bits / 32)
 * @param scales of packed w, uint8 (N, K / groupSize)
 * @param groupSize, bits those of the mode
 * @param mode "nvfp4" (the default), "mxfp8" or "mxfp4"
 * @param globalScaleX, globalScaleW nvfp4: one float32 number each, the greatest magnitudes of x and w; both or none
 * @returns (..., N) in x's dtype
 */
export function qqmm(
  x: ArrayLike, w: ArrayLike, scales?: ArrayLike | null, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>,
  globalScaleX?: ArrayLike | null | StreamOrDevice, globalScaleW?: ArrayLike | null | StreamOrDevice, s?: StreamOrDevice | null,
): MxArray {
  const stream = streamIn([groupSize, bits, mode, globalScaleX, globalScaleW, s]);
  const [a, b] = [toArray(x), toArray(w)];
  if (b.ndim !== 2) throw opError("qqmm", `the weights must have 2 dimensions, got ${formatShape(b.desc.shape)}`);
  if (a.ndim === 0) throw opError("qqmm", "x must have at least one dimension, got a scalar");
  const { shape } = a.desc;
  const rows = a.ndim === 1 ? expandDims(a, 0, stream) : a.ndim > 2 ? reshape(a, [shape.slice(0, -1).reduce((n, d) => n * d, 1), dim(shape, 1)], stream) : a;
  const { params, front, back } = prepare("qqmm", rows, b, scales, [groupSize, bits], modeIn(mode), [globalScaleX, globalScaleW]);
  const y = applyQqmm([...front, ...back], params, stream)[0] as MxArray;
  return a.ndim === 1 ? squeeze(y, 0, stream) : a.ndim > 2 ? reshape(y, [...shape.slice(0, -1), dim(y.desc.shape, 1)], stream) : y;
}

/**
 * `qqmm` of chosen matrices of x with chosen matrices of w. There is no gradient, as in MLX.
 * @param x (..., M, K)
 * @param w floats (..., N, K), or codes packed by `quantize`
 * @param indicesLhs, indicesRhs integers that number the matrices of x and of w, as of `gatherQMM`
 * @param sortedIndices a promise that the given indices are sorted; results are the same without it
 * @returns (...indices, M, N) in x's dtype
 */
export function gatherQQMM(
  x: ArrayLike, w: ArrayLike, scales?: ArrayLike | null, indicesLhs?: ArrayLike | null, indicesRhs?: ArrayLike | null, groupSize?: Optional<number>, bits?: Optional<number>,
  mode?: Optional<string>, globalScaleX?: ArrayLike | null | StreamOrDevice, globalScaleW?: ArrayLike | null | StreamOrDevice, sortedIndices?: boolean | StreamOrDevice | null, s?: StreamOrDevice | null,
): MxArray {
  const stream = streamIn([groupSize, bits, mode, globalScaleX, globalScaleW, sortedIndices, s]);
  const [a, b] = [toArray(x), toArray(w)];
  if (a.ndim < 2) throw opError("gatherQQMM", `x must have at least 2 dimensions, got ${formatShape(a.desc.shape)}`);
  if (b.ndim < 2) throw opError("gatherQQMM", `the weights must have at least 2 dimensions, got ${formatShape(b.desc.shape)}`);
  const { params, front, back } = prepare("gatherQQMM", a, b, scales, [groupSize, bits], modeIn(mode), [globalScaleX, globalScaleW]);
  return applyGather([...front, indexInput("gatherQQMM", indicesLhs, a, stream), indexInput("gatherQQMM", indicesRhs, b, stream), ...back], params, stream)[0] as MxArray;
}
