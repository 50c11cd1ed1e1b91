/**
 * Quantization in MLX's formats. Affine: groups of 32, 64 or 128 values along the last axis become integers q of 2, 3, 4, 5, 6 or 8 bits with value = scale * q + bias.
 * mxfp4, mxfp8, nvfp4: groups of 32, 32, 16 values become small floats with value = scale * code (quantized-float.ts). Both are packed as a little-endian bit stream in
 * uint32 words.
 */
import type { Aval, View } from "../core/array.ts";
import type { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { type Dtype, bfloat16, float32, promote, uint32, uint8 } from "../core/dtype.ts";
import { engine } from "../core/engine.ts";
import { opError } from "../core/error.ts";
import { type Apply, type Kernel, type Tunables, defineOp } from "../core/op.ts";
import { notDifferentiable } from "../core/rules.ts";
import { type Shape, broadcastShapes, formatShape, sizeOf } from "../core/shape.ts";
import { at } from "./array-index.ts";
import { multiply } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, requireDtype, toArray } from "./convert.ts";
import { arange, ones, zeros } from "./creation.ts";
import { take } from "./indexing.ts";
import { gatherMM, matmul } from "./matmul.ts";
import { broadcastTo, expandDims, reshape, squeeze, swapaxes } from "./movement.ts";
import { bothModes, gpuDequantize, gpuGatherQmv, gpuQmv, gpuQmvAny, gpuQuantize, gpuQvm } from "./quantized-gpu.ts";
import { gpuQuantizedMM } from "./quantized-mm-gpu.ts";
import { type Optional, dim, findStream, floatInput, globalScaleOf, indexInput, matrixNumbers, orDefault, packingOf, productOf, requireFloat, requirePacked, requirePacking, requireProduct, termsOf } from "./quantized-args.ts";
import { type FloatMode, packFloats, unpackFloats } from "./quantized-float.ts";
import { floatGatherKernels, floatProductKernels, launchFloatDequantize, launchFloatQuantize } from "./quantized-float-launch.ts";
import { multiplyInto, quantizeReference, unpackAffine } from "./quantized-reference.ts";
import { sum } from "./reduce.ts";
import {
  type OneRowEntry, type Packing, type ProductParams, fewRows, halfTunables, last, launchDequantize, launchGather, launchQmm, launchQmm16, launchQmmHalf, launchQmv, launchQmvRow, launchQuantize, launchQvm, longestPanelRow, longestRow, panelTunables, rowTunables, rowsOf,
} from "./quantized-launch.ts";

// ---- records

/** A kernel of the affine mode. */
const affineOnly = <P extends Packing>(k: Kernel<P>): Kernel<P> => ({
  ...k,
  gate: { ...k.gate, refuse: (inputs, p, outputs) => (p.mode ? `cannot: the quantization is ${p.mode}` : k.gate?.refuse?.(inputs, p, outputs)) },
});
/** Values of packed arrays: scales and biases, or scales and a global scale, follow the words. */
const unpackAll = (inputs: readonly Float64Array[], shape: Shape, p: Packing): Float64Array =>
  p.mode ? unpackFloats(inputs[0] as Float64Array, inputs[1] as Float64Array, p.mode, inputs[2]?.[0]) : unpackAffine(inputs, shape, p);
/** Inputs of a product: x, the packed matrices with their terms, and the indices of a gathered one. */
function parts<T>(inputs: readonly T[], p: Packing): { x: T; packed: readonly T[]; lhs: T; rhs: T } {
  const n = p.mode ? 3 : 4;
  return { x: inputs[0] as T, packed: inputs.slice(1, n), lhs: inputs[n] as T, rhs: inputs[n + 1] as T };
}
/** Scales of small floats are bytes: what is asked for by them has no answer, as in MLX. */
function requireTermGradients(op: string, asked: boolean, { mode }: Packing): void {
  if (asked && mode) throw opError(op, `there is no gradient by the scales of ${mode}, got one asked for`);
}
const productDtype = ([x, , scales]: readonly (Aval | MxArray)[], { mode }: Packing): Dtype => (mode ? (x as Aval).dtype : promote((x as Aval).dtype, (scales as Aval).dtype));

const applyQuantize = defineOp<Packing>({
  name: "quantize",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: ({ inputs, batched, params, apply }) => {
    if (batched[1]) throw opError("quantize", "the global scale is one number for the whole batch, got one for each element");
    return apply(inputs, params);
  },
  infer([w], p) {
    const { shape, dtype } = w as Aval;
    const scales = [...shape.slice(0, -1), dim(shape, 1) / p.groupSize];
    if (p.mode) return [{ shape: [...shape.slice(0, -1), (dim(shape, 1) * p.bits) / 32], dtype: uint32 }, { shape: scales, dtype: uint8 }];
    return [{ shape: [...shape.slice(0, -1), (dim(shape, 1) * p.bits) / 32], dtype: uint32 }, { shape: scales, dtype }, { shape: scales, dtype }];
  },
  reference: ([x, global], _avals, p, [packed]) =>
    p.mode ? packFloats(x as Float64Array, (packed as Aval).shape, p.mode, global?.[0]) : quantizeReference(x as Float64Array, (packed as Aval).shape, p),
  kernels: [affineOnly({ name: "wasm/quantized/quantize", launch: launchQuantize }), { name: "wasm/quantfloat/quantize", launch: launchFloatQuantize }],
  gpu: bothModes([gpuQuantize]),
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
  vjp: ({ inputs, cotangents: [g], needs, params }) => {
    requireTermGradients("dequantize", needs[1] === true || needs[2] === true, params);
    return params.mode ? [] : affineGradients(astype(g as MxArray, float32), inputs, params);
  },
  jvp: "vjp",
  vmap: ({ inputs, batched, spread, params, apply }) => {
    if (params.mode && batched[2]) throw opError("dequantize", "the global scale is one number for the whole batch, got one for each element");
    return apply(inputs.map((a, i) => (params.mode && i === 2 ? a : spread(i))), params);
  },
  infer: ([w, scales], p) => [{ shape: [...(w as Aval).shape.slice(0, -1), dim((scales as Aval).shape, 1) * p.groupSize], dtype: p.dtype }],
  reference: (inputs, avals, p) => [unpackAll(inputs, (avals[0] as Aval).shape, p)],
  kernels: [affineOnly({ name: "wasm/quantized/dequantize", launch: launchDequantize }), { name: "wasm/quantfloat/dequantize", launch: launchFloatDequantize }],
  gpu: bothModes<DequantizeParams>([gpuDequantize]),
});

/** A kernel for packed [N, K]. */
const transposed = (name: Kernel["name"], launch: Kernel<ProductParams>["launch"], refuse?: (M: number, K: number, bits: number, out: View) => string | undefined, tune?: Tunables): Kernel<ProductParams> =>
  affineOnly({
    name,
    ...(tune ? { tune } : {}),
    gate: {
      refuse: ([x], p, [out]) => {
        if (!p.transpose) return "cannot: the weights are not transposed";
        const K = last(x as View);
        return K > longestRow ? `cannot: rows longer than ${longestRow}` : refuse?.(rowsOf(x as View), K, p.bits, out as View);
      },
    },
    launch,
  });
/**
 * A kernel that decoding a 4-bit model needs: one row, and shapes that leave no remainders. Four do the same work, with the same bits in the results; `worse` tells when
 * another one is faster.
 */
const oneRow = (entry: OneRowEntry, worse?: (groupSize: number) => string | undefined): Kernel<ProductParams> => affineOnly({
  name: `wasm/${entry}`,
  gate: {
    refuse([x, , scales], p, [out]) {
      const K = last(x as View);
      if (!p.transpose) return "cannot: the weights are not transposed";
      if (rowsOf(x as View) !== 1) return "cannot: more than one row";
      if (p.bits !== 4 || (scales as View).dtype !== bfloat16) return "cannot: needs 4 bits and bfloat16 scales";
      if (last(out as View) % 4 !== 0 || (K / p.groupSize) % 4 !== 0) return "cannot: outputs and groups in a row must be multiples of 4";
      return K > longestRow ? `cannot: rows longer than ${longestRow}` : worse?.(p.groupSize);
    },
  },
  tune: rowTunables,
  launch: launchQmvRow(entry),
});
const tooLongForPanel = (K: number): string | undefined => (K > longestPanelRow ? `cannot: rows longer than ${longestPanelRow}` : undefined);
/** Why sums in 16 bits are not faster. */
function narrowSums(): string | undefined {
  if (!engine.relaxed) return "cannot: needs relaxed SIMD";
  return engine.int8Dot ? "slower: the processor's int8 dot product with 32-bit sums is one instruction" : undefined;
}
/** Why 16-bit lanes are not faster than 8-bit ones: float32 takes 2 products there and 3 here, which are half as dear. */
function wideLanes(out: View, bits: number): string | undefined {
  if (!engine.relaxed) return undefined;
  if (engine.int8Dot) return "slower: the processor's int8 dot product with 32-bit sums is one instruction";
  return out.dtype === float32 && bits <= 4 ? "slower: three 8-bit planes with sums in 16 bits" : undefined;
}
/** Why blocks are not taken in pairs. */
function unpaired(groupSize: number): string | undefined {
  if (!engine.relaxed) return "cannot: needs relaxed SIMD";
  if (groupSize < 64) return "cannot: needs groups of 64 or 128";
  return engine.pairing ? undefined : "slower: vectors are not paired (MLX_WASM_REVEC)";
}
const oneRowKernels = [
  oneRow("quantized/qmvPair16", (groupSize) => unpaired(groupSize) ?? narrowSums()),
  oneRow("quantized/qmvPair32", unpaired),
  oneRow("quantized/qmvRow16", narrowSums),
  oneRow("quantized/qmvRow"),
];
/** The kernel for packed [K, N]. */
const plainMatrix: Kernel<ProductParams> = affineOnly({
  name: "wasm/quantized/qvm",
  gate: { refuse: (_inputs, p) => (p.transpose ? "cannot: the weights are transposed" : undefined) },
  launch: launchQvm,
});

/** The operands of the dense product: x, and the weights unpacked and turned to [K, N], in float32. */
function denseOperands(inputs: readonly MxArray[], p: ProductParams): [MxArray, MxArray] {
  const { x, packed } = parts(inputs, p);
  const matrix = applyDequantize(packed, { ...p, dtype: float32 })[0] as MxArray;
  return [astype(x, float32), p.transpose ? swapaxes(matrix, -1, -2) : matrix];
}

/** Packed weights and indices have no derivative. */
function requireUnpacked(op: string, ...asked: readonly (boolean | undefined)[]): void {
  if (asked.some(Boolean)) throw opError(op, "there is no derivative by packed weights or indices, got one asked for");
}
/** Cotangents of the unpacked matrices in a product of chosen ones: the products for all choices, added up by matrix. */
function gatheredWeights(x: MxArray, g: MxArray, w: MxArray, [lhs, rhs]: readonly [MxArray, MxArray], p: ProductParams): MxArray {
  const matrices = (v: MxArray): MxArray => reshape(astype(v, float32), [-1, ...v.shape.slice(-2)]);
  const [rows, flow] = [take(matrices(x), reshape(lhs, [-1]), 0), matrices(g)];
  const parts = p.transpose ? matmul(swapaxes(flow, 1, 2), rows) : matmul(swapaxes(rows, 1, 2), flow);
  const lead = w.shape.slice(0, -2);
  const sums = at(zeros([sizeOf(lead), ...parts.shape.slice(1)], float32), reshape(rhs, [-1])).add(parts);
  return reshape(sums, [...lead, ...parts.shape.slice(1)]);
}

/** Also adds a fifth input like the result (schedule/residual.ts). */
const manyRows = transposed("wasm/quantized/qmmHalf", launchQmmHalf, (_M, _K, bits, out) => wideLanes(out, bits), halfTunables);
const applyProduct = defineOp<ProductParams>({
  name: "quantizedMatmul",
  vjp: ({ inputs: [x, ...weights], cotangents: [g], needs, params, apply }) => {
    requireUnpacked("quantizedMatmul", needs[1]);
    const out = needs[0] ? apply([g as MxArray, ...weights], { ...params, transpose: !params.transpose })[0] : undefined;
    if (!needs[2] && !needs[3]) return [out];
    requireTermGradients("quantizedMatmul", true, params);
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
    const [x, w, s, b] = [spread(0), spread(1), spread(2), params.mode ? undefined : spread(3)];
    const flat = x.ndim === 2;
    const out = quantizedMatmul(flat ? expandDims(x, 1) : reshape(x, [x.shape[0] as number, -1, dim(x.shape, 1)]), w, s, b, params.transpose, params.groupSize, params.bits, params.mode);
    return [flat ? squeeze(out, 1) : reshape(out, [...x.shape.slice(0, -1), dim(out.shape, 1)])];
  },
  infer(inputs, p) {
    const N = requireProduct("quantizedMatmul", inputs, p);
    return [{ shape: [...(inputs[0] as Aval).shape.slice(0, -1), N], dtype: productDtype(inputs, p) }];
  },
  reference([x, ...packed], [xa, wa], p, [out]) {
    const K = dim((xa as Aval).shape, 1);
    const result = new Float64Array(sizeOf((out as Aval).shape));
    const N = dim((out as Aval).shape, 1);
    multiplyInto(result, 0, x as Float64Array, 0, unpackAll(packed, (wa as Aval).shape, p), 0, [result.length / Math.max(1, N), N, K], p.transpose);
    return [result];
  },
  composite: (inputs, p) => [astype(matmul(...denseOperands(inputs, p)), productDtype(inputs, p))],
  kernels: [
    ...oneRowKernels,
    transposed("wasm/quantized/qmv", launchQmv, (M, K, bits) => (M > fewRows(bits) && K <= longestPanelRow ? `slower: more than ${fewRows(bits)} rows` : undefined), rowTunables),
    manyRows,
    transposed("wasm/quantized/qmm16", launchQmm16, (_M, K, bits) => tooLongForPanel(K) ?? (bits > 4 ? "cannot: more than 4 bits" : narrowSums()), panelTunables),
    transposed("wasm/quantized/qmm", launchQmm, (_M, K) => tooLongForPanel(K), panelTunables),
    plainMatrix,
    ...floatProductKernels,
  ],
  gpu: bothModes([gpuQmv, ...gpuQuantizedMM, gpuQmvAny, gpuQvm]),
});

const applyGather = defineOp<ProductParams>({
  name: "gatherQMM",
  indices: 2,
  vjp: ({ inputs, cotangents: [g], needs, params, apply }) => {
    const { x, packed, lhs, rhs } = parts(inputs, params);
    const [, termsAsked] = [requireUnpacked("gatherQMM", needs[1], ...needs.slice(packed.length + 1)), needs.slice(2, packed.length + 1).some(Boolean)];
    requireTermGradients("gatherQMM", termsAsked, params);
    const weights = termsAsked ? affineGradients(gatheredWeights(x, g as MxArray, packed[0] as MxArray, [lhs, rhs], params), packed, params) : [];
    if (!needs[0]) return [undefined, ...weights];
    const [M, K] = x.desc.shape.slice(-2) as [number, number];
    const count = lhs.size;
    const numbers = reshape(arange(count, uint32), lhs.shape);
    const each = apply([g as MxArray, ...packed, numbers, rhs], { ...params, transpose: !params.transpose })[0] as MxArray;
    const total = at(zeros([x.size / (M * K), M * K], each.dtype), reshape(lhs, [count])).add(reshape(each, [count, M * K]));
    return [reshape(total, x.shape), ...weights];
  },
  // The batch of a choice of matrices is one more dimension of the choice.
  vmap: "composite",
  jvp: ({ inputs: [, ...rest], tangents: [t, ...others], params, apply }) => {
    if (others.some((r) => r !== undefined)) throw opError("gatherQMM", "only x has a forward derivative, got one asked for the weights");
    return t ? apply([t, ...rest], params) : [undefined];
  },
  infer(inputs, p) {
    const N = requireProduct("gatherQMM", inputs, p);
    const { x, packed, lhs } = parts(inputs, p);
    const w = packed[0] as Aval;
    if (sizeOf(lhs.shape) > 0 && (sizeOf(x.shape.slice(0, -2)) === 0 || sizeOf(w.shape.slice(0, -2)) === 0)) {
      throw opError("gatherQMM", `there are no matrices to choose from, got x ${formatShape(x.shape)} and weights ${formatShape(w.shape)}`);
    }
    return [{ shape: [...lhs.shape, dim(x.shape, 2), N], dtype: productDtype(inputs, p) }];
  },
  reference(inputs, [xa, wa], p, [out]) {
    const { x, packed, lhs, rhs } = parts(inputs, p);
    const [M, K] = [dim((xa as Aval).shape, 2), dim((xa as Aval).shape, 1)];
    const N = dim((out as Aval).shape, 1);
    const matrices = unpackAll(packed, (wa as Aval).shape, p);
    const result = new Float64Array(sizeOf((out as Aval).shape));
    lhs.forEach((l, i) => {
      multiplyInto(result, i * M * N, x, l * M * K, matrices, (rhs[i] as number) * N * K, [M, N, K], p.transpose);
    });
    return [result];
  },
  composite: (inputs, p) => {
    const { lhs, rhs } = parts(inputs, p);
    return [astype(gatherMM(...denseOperands(inputs, p), lhs, rhs), productDtype(inputs, p))];
  },
  kernels: [transposed("wasm/quantized/gatherQmv", launchGather), plainMatrix, ...floatGatherKernels],
  gpu: bothModes([gpuGatherQmv, gpuQvm]),
});

// ---- public functions

/** A global scale, or a stream in its place. */
type GlobalScale = ArrayLike | null | undefined | StreamOrDevice;

/**
 * Quantizes groups of values along the last axis. Affine: value = scale * q + bias, with q unsigned integers of `bits` bits. mxfp4 and mxfp8: value = scale * code, with e2m1
 * or e4m3 codes and powers of two (e8m0) as scales; a scale is the nearest in logarithm, codes are rounded to nearest even and clamped. nvfp4: e2m1 codes and e4m3 scales.
 * @param w (..., n), float32, float16 or bfloat16, with at least 2 dimensions and n a multiple of `groupSize`
 * @param groupSize affine: 32, 64 (the default) or 128; mxfp4 and mxfp8: 32; nvfp4: 16
 * @param bits affine: 2, 3, 4 (the default), 5, 6 or 8; mxfp4 and nvfp4: 4; mxfp8: 8
 * @param mode "affine" (the default), "mxfp4", "mxfp8" or "nvfp4"
 * @param globalScale nvfp4: one float32 number, the greatest magnitude of w, which scales are made relative to; `dequantize` needs the same
 * @returns the packed integers or codes, uint32 (..., n * bits / 32); scales (..., n / groupSize), in w's dtype or (small floats) uint8; and, affine, biases like the scales
 */
export function quantize(w: ArrayLike, groupSize: Optional<number>, bits: Optional<number>, mode: FloatMode, globalScale?: GlobalScale, s?: StreamOrDevice | null): [MxArray, MxArray];
export function quantize(w: ArrayLike, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<"affine">, globalScale?: GlobalScale, s?: StreamOrDevice | null): [MxArray, MxArray, MxArray];
export function quantize(w: ArrayLike, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, globalScale?: GlobalScale, s?: StreamOrDevice | null): MxArray[];
export function quantize(w: ArrayLike, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, globalScale?: GlobalScale, s?: StreamOrDevice | null): MxArray[] {
  const stream = findStream(groupSize, bits, mode, globalScale, s);
  const a = toArray(w);
  const p = packingOf("quantize", groupSize, bits, mode);
  requirePacking("quantize", p);
  requireFloat("quantize", "the matrix", a.dtype);
  if (a.ndim < 2) throw opError("quantize", `the matrix must have at least 2 dimensions, got ${formatShape(a.desc.shape)}`);
  if (dim(a.desc.shape, 1) % p.groupSize !== 0) throw opError("quantize", `the last dimension must be a multiple of the group size ${p.groupSize}, got ${formatShape(a.desc.shape)}`);
  const global = globalScaleOf("quantize", "globalScale", globalScale, p.mode);
  return applyQuantize(global ? [a, global] : [a], p, stream);
}

/**
 * Values of a quantized array: scale * q + bias, or scale * code, computed in float32 and rounded once.
 * @param w packed integers or codes, uint32 (..., n * bits / 32)
 * @param scales (..., n / groupSize), floats or (small floats) uint8
 * @param biases like the scales; affine only
 * @param globalScale nvfp4: what `quantize` was given
 * @param dtype of the result; by default the one of scales and biases, of small floats bfloat16
 * @returns (..., n)
 */
export function dequantize(w: ArrayLike, scales: ArrayLike, biases?: ArrayLike | null, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, globalScale?: GlobalScale, dtype?: Optional<Dtype>, s?: StreamOrDevice | null): MxArray {
  const stream = findStream(groupSize, bits, mode, globalScale, dtype, s);
  const p = packingOf("dequantize", groupSize, bits, mode);
  requirePacking("dequantize", p);
  const packed = toArray(w);
  const terms = termsOf("dequantize", scales, biases, p, stream);
  const [sc, bi] = terms as [MxArray, MxArray?];
  requirePacked("dequantize", packed.desc, sc.desc, bi?.desc, p);
  const global = globalScaleOf("dequantize", "globalScale", globalScale, p.mode);
  const out = requireDtype("dequantize", orDefault(dtype, p.mode ? bfloat16 : sc.dtype));
  requireFloat("dequantize", "the result's dtype", out);
  return applyDequantize([packed, ...terms, ...(global ? [global] : [])], { ...p, dtype: out }, stream)[0] as MxArray;
}

/**
 * Product of x with quantized matrices, accumulated in float32 and rounded once. A GPU's matrix units (bfloat16 or float16 x, more than 8 rows) multiply weights that are
 * rounded to the type of x first, as `matmul` with `dequantize`d weights does; MLX_DISABLE=vulkan/quantized/mm_coopmat,vulkan/quantized/mm_unpacked closes those kernels.
 * @param x (..., K)
 * @param w packed integers or codes, uint32: (N, K * bits / 32), or (K, N * bits / 32) without `transpose`; leading dimensions broadcast with those of x
 * @param scales one per group of `groupSize` values along w's last axis
 * @param biases like the scales; affine only
 * @param mode as of `quantize`, also for the defaults of `groupSize` and `bits`
 * @returns (..., N) in the dtype that x and the scales promote to, with small floats in x's
 */
export function quantizedMatmul(x: ArrayLike, w: ArrayLike, scales: ArrayLike, biases?: ArrayLike | null, transpose?: Optional<boolean>, groupSize?: Optional<number>, bits?: Optional<number>, mode?: Optional<string>, s?: StreamOrDevice | null): MxArray {
  const stream = findStream(transpose, groupSize, bits, mode, s);
  const p = productOf("quantizedMatmul", transpose, groupSize, bits, mode);
  const packed = toArray(w);
  const terms = termsOf("quantizedMatmul", scales, biases, p, stream);
  const a = floatInput("quantizedMatmul", x, terms[0] as MxArray, p, stream);
  const inputs = [a, packed, ...terms];
  if (packed.ndim <= 2) return applyProduct(inputs, p, stream)[0] as MxArray;
  requireProduct("quantizedMatmul", inputs.map((i) => i.desc), p);
  if (a.ndim <= 2) throw opError("quantizedMatmul", `batches of weights need x with batch dimensions, got ${formatShape(a.desc.shape)} and ${formatShape(packed.desc.shape)}`);
  const batch = broadcastShapes("quantizedMatmul", a.desc.shape.slice(0, -2), packed.desc.shape.slice(0, -2));
  const lhs = matrixNumbers(a, batch, stream);
  return applyGather([...inputs, lhs, matrixNumbers(packed, batch, stream)], p, stream)[0] as MxArray;
}

/**
 * Products of chosen matrices of x with chosen quantized matrices (mixture of experts).
 * @param x (..., M, K)
 * @param w packed integers, uint32: (..., N, K * bits / 32), or (..., K, N * bits / 32) without `transpose`
 * @param scales, biases, mode as of `quantizedMatmul`
 * @param indicesLhs, indicesRhs integers that number the matrices of x and of w, their leading dimensions flattened; they broadcast with each other. By default
 *   the numbers of all matrices, in the shape of the leading dimensions. Out of range indices mean the last matrix.
 * @param sortedIndices a promise that the given indices are sorted; results are the same without it
 * @returns (...indices, M, N) in the dtype that x and the scales promote to, with small floats in x's
 */
export function gatherQMM(
  x: ArrayLike, w: ArrayLike, scales: ArrayLike, biases?: ArrayLike | null, indicesLhs?: ArrayLike | null, indicesRhs?: ArrayLike | null,
  transpose?: Optional<boolean>, groupSize?: Optional<number>, bits?: Optional<number>, sortedIndices?: Optional<boolean>, mode?: Optional<string>, s?: StreamOrDevice | null,
): MxArray {
  const stream = findStream(transpose, groupSize, bits, sortedIndices, mode, s);
  const p = productOf("gatherQMM", transpose, groupSize, bits, mode);
  const given = (i: ArrayLike | null | undefined): boolean => i !== undefined && i !== null;
  if (!given(indicesLhs) && !given(indicesRhs)) return quantizedMatmul(x, w, scales, biases, p.transpose, p.groupSize, p.bits, p.mode, stream);
  const packed = toArray(w);
  const terms = termsOf("gatherQMM", scales, biases, p, stream);
  const a = floatInput("gatherQMM", x, terms[0] as MxArray, p, stream);
  if (a.ndim < 2) throw opError("gatherQMM", `x must have at least 2 dimensions, got ${formatShape(a.desc.shape)}`);
  if (packed.ndim < 2) throw opError("gatherQMM", `the weights must have at least 2 dimensions, got ${formatShape(packed.desc.shape)}`);
  const lhs = indexInput("gatherQMM", indicesLhs, a, stream);
  const rhs = indexInput("gatherQMM", indicesRhs, packed, stream);
  const shape = broadcastShapes("gatherQMM", lhs.desc.shape, rhs.desc.shape);
  const spread = (i: MxArray): MxArray => broadcastTo(i, shape, stream);
  return applyGather([a, packed, ...terms, spread(lhs), spread(rhs)], p, stream)[0] as MxArray;
}
