/**
 * Ops of one decode step: one new position of one sequence through a pre-norm decoder. Each does what several plain ops do, with the same roundings; `composite` says
 * which. Five of them make a layer: normProject (q, k, v), attentionStep, combineProjectAdd (output projection), normGateUp, projectAdd (down projection).
 */
import type { Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, defaultDevice } from "../core/device.ts";
import { type Dtype, bfloat16, float16, float32, int32, uint32 } from "../core/dtype.ts";
import { env } from "../core/env.ts";
import { opError } from "../core/error.ts";
import { type Apply, defineOp } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { formatShape, sizeOf } from "../core/shape.ts";
import { argmax } from "./argreduce.ts";
import { add, divide, floorDivide, maximum, multiply, remainder, subtract } from "./binary.ts";
import { equal, less, logicalAnd } from "./compare.ts";
import { concatenate } from "./concat.ts";
import { fromNumbers, toArray } from "./convert.ts";
import { arange, zeros } from "./creation.ts";
import { gpuAdvance, gpuAttentionStep, gpuChoose, gpuEmbed, gpuProducts } from "./decode-gpu.ts";
import { referenceAdvance, referenceAttention, referenceChoose, referenceCombine, referenceEmbed, referenceGateUp, referenceNormProject, referenceProjectAdd } from "./decode-reference.ts";
import { take } from "./indexing.ts";
import { matmul } from "./matmul.ts";
import { expandDims, reshape, swapaxes } from "./movement.ts";
import { castTo, rmsNorm } from "./norm.ts";
import { dequantize, quantizedMatmul } from "./quantized.ts";
import { categorical } from "./random.ts";
import { max, sum } from "./reduce.ts";
import { sliceAxis } from "./region.ts";
import { rope } from "./rope.ts";
import { where } from "./select.ts";
import { sliceUpdate } from "./slice.ts";
import { exp, isneginf, sigmoid } from "./unary.ts";

type S = StreamOrDevice | null;

export interface Packing {
  readonly groupSize: number;
  readonly bits: number;
}
/** A matrix [N, K]: quantized when it has scales. Linear, QuantizedLinear and the embedding layers are such. */
export interface DecodeMatrix {
  readonly weight: MxArray;
  readonly scales?: MxArray;
  readonly biases?: MxArray;
  readonly groupSize?: number;
  readonly bits?: number;
}
export interface ProjectionParams {
  readonly eps: number;
  /** Of each matrix; null: dense. */
  readonly packings: readonly (Packing | null)[];
  /** The last input is a bias for all outputs, one behind the other. */
  readonly bias: boolean;
}
export interface CombineParams {
  readonly packings: readonly (Packing | null)[];
  readonly bias: boolean;
  /** As in attentionStep. */
  readonly least: number;
}
/** A rotary embedding: pair i turns by position * scale * base^(-2 i / dims), or position * scale / wavelengths[i] (float32). */
export interface Rope {
  readonly dims: number;
  readonly traditional: boolean;
  readonly scale: number;
  readonly base?: number;
  readonly wavelengths?: readonly number[];
}
export interface AttentionStepParams {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Factor of the scores. */
  readonly scale: number;
  readonly rope: Rope;
  /** Of the norms of queries and keys. */
  readonly eps: number;
  /** An input behind the caches holds the weights of the queries' norm, the next one those of the keys'. */
  readonly queryNorm: boolean;
  readonly keyNorm: boolean;
  /** The positions are divided into at most `splits` ranges of equal length, but of at least `least` positions. */
  readonly splits: number;
  readonly least: number;
}
export interface ChooseParams {
  /** 0: the greatest logit. */
  readonly temperature: number;
  /** Noise of a step comes from the key [seed, step]. */
  readonly seed: number;
}

// ---- shapes

const isElement = (d: Dtype): boolean => d === float32 || d === float16 || d === bfloat16;
const last = (a: Aval): number => a.shape[a.shape.length - 1] as number;

/** Rows of the matrices that begin at input `at`. Throws when one does not take vectors of K elements. */
function rowsOf(op: string, inputs: readonly Aval[], at: number, K: number, p: { packings: readonly (Packing | null)[]; bias: boolean }): number[] {
  let next = at;
  const rows = p.packings.map((packing) => {
    const w = inputs[next] as Aval;
    next += packing ? 3 : 1;
    const width = packing ? (last(w) * 32) / packing.bits : last(w);
    if (w.shape.length !== 2 || width !== K) throw opError(op, `the matrix must have shape (N, ${K}), got ${formatShape([...w.shape.slice(0, -1), width])}`);
    return w.shape[0] as number;
  });
  const total = rows.reduce((a, b) => a + b, 0);
  if (p.bias && sizeOf((inputs[next] as Aval).shape) !== total) throw opError(op, `the bias must have ${total} elements, got ${formatShape((inputs[next] as Aval).shape)}`);
  return rows;
}
/** Length of the vector that x holds. */
function vectorOf(op: string, x: Aval): number {
  if (!isElement(x.dtype)) throw opError(op, `x must be float32, float16 or bfloat16, got ${x.dtype}`);
  if (x.shape.length === 0 || sizeOf(x.shape) !== last(x)) throw opError(op, `x must be one vector, got ${formatShape(x.shape)}`);
  return last(x);
}
const vectorLike = (x: Aval, n: number): Aval => ({ shape: [...x.shape.slice(0, -1), n], dtype: x.dtype });

// ---- products

/** x times a matrix, in the dtype of x. */
function productOf(x: MxArray, m: readonly MxArray[], p: Packing | null): MxArray {
  const [w, scales, biases] = m as [MxArray, MxArray, MxArray];
  return castTo(p ? quantizedMatmul(x, w, scales, biases, true, p.groupSize, p.bits) : matmul(x, swapaxes(w, -1, -2)), x.dtype);
}
/** Products with the matrices behind input `at`, with their biases. */
function products(x: MxArray, inputs: readonly MxArray[], at: number, p: { packings: readonly (Packing | null)[]; bias: boolean }): MxArray[] {
  const bias = p.bias ? (inputs[inputs.length - 1] as MxArray) : undefined;
  let next = at;
  let row = 0;
  return p.packings.map((packing) => {
    const m = inputs.slice(next, (next += packing ? 3 : 1));
    const y = productOf(x, m, packing);
    const n = y.shape[y.ndim - 1] as number;
    const own = bias && sliceAxis(bias, 0, row, row + n);
    row += n;
    return own ? add(y, own) : y;
  });
}
const inside = noRule("made by the recorded decode step, which nothing transforms");
const noRules = { vjp: inside, jvp: inside, vmap: inside, kernels: [] } as const;

const normProjectOp: Apply<ProjectionParams> = defineOp<ProjectionParams>({
  name: "normProject",
  ...noRules,
  infer(inputs, p) {
    const x = inputs[0] as Aval;
    const rows = rowsOf("normProject", inputs, 2, vectorOf("normProject", x), p);
    return [vectorLike(x, rows.reduce((a, b) => a + b, 0))];
  },
  reference: referenceNormProject,
  composite: (inputs, p) => [concatenate(products(rmsNorm(inputs[0] as MxArray, inputs[1] as MxArray, p.eps), inputs, 2, p), -1)],
  gpu: gpuProducts.normProject,
});

const normGateUpOp: Apply<ProjectionParams> = defineOp<ProjectionParams>({
  name: "normGateUp",
  ...noRules,
  infer(inputs, p) {
    const x = inputs[0] as Aval;
    const rows = rowsOf("normGateUp", inputs, 2, vectorOf("normGateUp", x), p);
    if (rows.length !== 2 || rows[0] !== rows[1]) throw opError("normGateUp", `two matrices with as many rows are needed, got rows ${JSON.stringify(rows)}`);
    return [vectorLike(x, rows[0] as number)];
  },
  reference: referenceGateUp,
  composite(inputs, p) {
    const [gate, up] = products(rmsNorm(inputs[0] as MxArray, inputs[1] as MxArray, p.eps), inputs, 2, p) as [MxArray, MxArray];
    return [multiply(multiply(gate, sigmoid(gate)), up)];
  },
  gpu: gpuProducts.normGateUp,
});

const projectAddOp: Apply<Omit<ProjectionParams, "eps">> = defineOp<Omit<ProjectionParams, "eps">>({
  name: "projectAdd",
  ...noRules,
  infer(inputs, p) {
    const [x, residual] = inputs as readonly [Aval, Aval];
    const [n] = rowsOf("projectAdd", inputs, 2, vectorOf("projectAdd", x), p);
    if (vectorOf("projectAdd", residual) !== n) throw opError("projectAdd", `the residual must have ${n} elements, got ${formatShape(residual.shape)}`);
    return [residual];
  },
  reference: referenceProjectAdd,
  composite: (inputs, p) => [add(inputs[1] as MxArray, reshape(products(inputs[0] as MxArray, inputs, 2, p)[0] as MxArray, (inputs[1] as MxArray).shape))],
  gpu: gpuProducts.projectAdd,
});

/** The heads' outputs, one behind the other, from the sums of the splits. */
function combined(parts: MxArray, dtype: Dtype): MxArray {
  const [, H, width] = parts.shape as [number, number, number];
  const D = width - 4;
  const tops = sliceAxis(parts, 2, D, D + 1);
  const factors = exp(subtract(tops, max(tops, 0, true)));
  const total = sum(multiply(factors, sliceAxis(parts, 2, D + 1, D + 2)), 0);
  return castTo(reshape(divide(sum(multiply(factors, sliceAxis(parts, 2, 0, D)), 0), total), [1, H * D]), dtype);
}
const combineProjectAddOp: Apply<CombineParams> = defineOp<CombineParams>({
  name: "combineProjectAdd",
  ...noRules,
  infer(inputs, p) {
    const [parts, residual] = inputs as readonly [Aval, Aval];
    const [, H, width] = parts.shape as [number, number, number];
    const [n] = rowsOf("combineProjectAdd", inputs, 3, H * (width - 4), p);
    if (vectorOf("combineProjectAdd", residual) !== n) throw opError("combineProjectAdd", `the residual must have ${n} elements, got ${formatShape(residual.shape)}`);
    return [residual];
  },
  reference: referenceCombine,
  composite(inputs, p) {
    const [parts, residual] = inputs as readonly [MxArray, MxArray];
    return [add(residual, reshape(products(combined(parts, residual.dtype), inputs, 3, p)[0] as MxArray, residual.shape))];
  },
  gpu: gpuProducts.combineProjectAdd,
});

// ---- attention

function inferAttention(inputs: readonly Aval[], p: AttentionStepParams): Aval[] {
  const op = "attentionStep";
  const [qkv, , keys, values] = inputs as readonly [Aval, Aval, Aval, Aval];
  const { heads, kvHeads, headDim, splits, rope: r } = p;
  if (heads % kvHeads !== 0) throw opError(op, `the number of query heads must be a multiple of the number of key heads, got ${heads} and ${kvHeads}`);
  if (vectorOf(op, qkv) !== (heads + 2 * kvHeads) * headDim) throw opError(op, `qkv must have ${(heads + 2 * kvHeads) * headDim} elements, got ${formatShape(qkv.shape)}`);
  for (const c of [keys, values]) {
    if (c.shape.length !== 4 || c.shape[0] !== 1 || c.shape[1] !== kvHeads || c.shape[3] !== headDim || c.dtype !== qkv.dtype) throw opError(op, `a cache must have shape (1, ${kvHeads}, capacity, ${headDim}) and the dtype of qkv, got ${formatShape(c.shape)} of ${c.dtype}`);
  }
  if (r.dims % 2 !== 0 || r.dims > headDim || (r.base === undefined) === (r.wavelengths === undefined)) throw opError(op, `rope needs an even number of dims, at most ${headDim}, and either base or wavelengths, got ${JSON.stringify(r)}`);
  return [{ shape: [splits, heads, headDim + 4], dtype: float32 }, keys, values];
}
/** A plain number would make integers floats. */
const whole = (n: number): MxArray => toArray(n, int32);
/** Parts [splits, heads, headDim + 4] of the attention of `query` [1, H, 1, D] to the caches. */
function splitParts(query: MxArray, keys: MxArray, values: MxArray, position: MxArray, p: AttentionStepParams): MxArray {
  const { heads: H, kvHeads: Hkv, headDim: D, splits } = p;
  const capacity = keys.shape[2] as number;
  const length = add(position, whole(1));
  const each = maximum(floorDivide(add(length, whole(splits - 1)), whole(splits)), whole(p.least));
  const places = arange(capacity, int32);
  const own = equal(expandDims(floorDivide(places, each), 0), expandDims(arange(splits, int32), 1));
  const visible = expandDims(logicalAnd(own, expandDims(less(places, length), 0)), 1);
  const grouped = multiply(reshape(castTo(query, float32), [Hkv, H / Hkv, D]), p.scale);
  const scores = where(visible, expandDims(reshape(matmul(grouped, swapaxes(reshape(castTo(keys, float32), [Hkv, capacity, D]), -1, -2)), [H, capacity]), 0), Number.NEGATIVE_INFINITY);
  const tops = max(scores, -1, true);
  const weights = exp(subtract(scores, where(isneginf(tops), 0, tops)));
  const sums = matmul(reshape(weights, [splits, Hkv, H / Hkv, capacity]), reshape(castTo(values, float32), [1, Hkv, capacity, D]));
  return concatenate([reshape(sums, [splits, H, D]), tops, sum(weights, -1, true), zeros([splits, H, 2])], -1);
}
const attentionStepOp: Apply<AttentionStepParams> = defineOp<AttentionStepParams>({
  name: "attentionStep",
  ...noRules,
  infer: inferAttention,
  reference: referenceAttention,
  composite(inputs, p) {
    const [qkv, position, oldKeys, oldValues, ...norms] = inputs as [MxArray, MxArray, MxArray, MxArray, ...MxArray[]];
    const { heads: H, kvHeads: Hkv, headDim: D } = p;
    const all = reshape(qkv, [1, H + 2 * Hkv, 1, D]);
    const freqs = p.rope.wavelengths && fromNumbers([p.rope.dims / 2], float32, p.rope.wavelengths.slice());
    const at = reshape(position, [1]);
    const prepare = (x: MxArray, weight: MxArray | undefined): MxArray => rope(weight ? rmsNorm(x, weight, p.eps) : x, p.rope.dims, p.rope.traditional, p.rope.base, p.rope.scale, at, freqs);
    const q = prepare(sliceAxis(all, 1, 0, H), p.queryNorm ? norms[0] : undefined);
    const k = prepare(sliceAxis(all, 1, H, H + Hkv), p.keyNorm ? norms[norms.length - 1] : undefined);
    const keys = sliceUpdate(oldKeys, k, at, [2]);
    const values = sliceUpdate(oldValues, sliceAxis(all, 1, H + Hkv, H + 2 * Hkv), at, [2]);
    return [splitParts(q, keys, values, at, p), keys, values];
  },
  gpu: gpuAttentionStep,
});

// ---- tokens

const embedRowOp: Apply<{ packing: Packing | null }> = defineOp<{ packing: Packing | null }>({
  name: "embedRow",
  ...noRules,
  infer([, table, scales], { packing }) {
    const t = table as Aval;
    return [{ shape: [1, packing ? last(scales as Aval) * packing.groupSize : last(t)], dtype: packing ? (scales as Aval).dtype : t.dtype }];
  },
  reference: referenceEmbed,
  composite([token, ...tables], { packing }) {
    const rows = tables.map((t) => take(t, reshape(token as MxArray, [1]), 0)) as [MxArray, MxArray, MxArray];
    return [packing ? dequantize(...rows, packing.groupSize, packing.bits) : rows[0]];
  },
  gpu: gpuEmbed,
});

function inferLoop(op: string, s: Aval, h: Aval): Aval[] {
  if (s.dtype !== int32 || s.shape.length !== 1 || s.shape[0] !== 4) throw opError(op, `the state must be int32 (4), got ${s.dtype} of shape ${formatShape(s.shape)}`);
  if (h.dtype !== int32 || h.shape.length !== 1 || h.shape[0] === 0) throw opError(op, `the history must be int32 of shape (n), got ${h.dtype} of shape ${formatShape(h.shape)}`);
  return [s, h];
}
export const chooseOp: Apply<ChooseParams> = defineOp<ChooseParams>({
  name: "chooseToken",
  ...noRules,
  infer: ([, state, history]) => inferLoop("chooseToken", state as Aval, history as Aval),
  reference: referenceChoose,
  composite([logits, state, history], { temperature, seed }) {
    const flat = reshape(logits as MxArray, [-1]);
    const step = sliceAxis(state as MxArray, 0, 3, 4);
    const key = (): MxArray => concatenate([fromNumbers([1], uint32, [seed]), castTo(step, uint32)], 0);
    const token = temperature === 0 ? argmax(flat, 0, true) : reshape(categorical(multiply(castTo(flat, float32), 1 / temperature), -1, null, null, key()), [1]);
    return advanced(token, state as MxArray, history as MxArray);
  },
  gpu: gpuChoose,
});
/** State and history behind a token (one element). */
function advanced(token: MxArray, state: MxArray, history: MxArray): MxArray[] {
  const chosen = castTo(reshape(token, [1]), int32);
  const place = remainder(sliceAxis(state, 0, 3, 4), whole(history.size));
  return [concatenate([chosen, add(sliceAxis(state, 0, 1, 4), whole(1))], 0), sliceUpdate(history, chosen, place, [0])];
}
export const advanceOp: Apply<object> = defineOp<object>({
  name: "advance",
  ...noRules,
  infer([token, state, history]) {
    const t = token as Aval;
    if ((t.dtype !== uint32 && t.dtype !== int32) || sizeOf(t.shape) !== 1) throw opError("advance", `the token must be one int32 or uint32, got ${t.dtype} of shape ${formatShape(t.shape)}`);
    return inferLoop("advance", state as Aval, history as Aval);
  },
  reference: referenceAdvance,
  composite: ([token, state, history]) => advanced(token as MxArray, state as MxArray, history as MxArray),
  gpu: gpuAdvance,
});

// ---- functions

/** Flags that switch off a part of what the fused ops do: then every op runs by itself, so that they act on decoding too. */
const parts = ["MLX_VK_ENABLE_QMM_NATIVE", "MLX_VK_ENABLE_QMM_NATIVE_M1", "MLX_VK_ENABLE_RMSNORM_NATIVE", "MLX_VK_ENABLE_ROPE_NATIVE", "MLX_VK_ENABLE_SDPA_NATIVE"] as const;
/** True when models should decode by these ops: on the GPU. */
export const fusedSteps = (): boolean =>
  defaultDevice().type === "gpu" && env("MLX_VK_FUSED_STEP") && parts.every((name) => env(name)) && env("MLX_VK_SDPA_MAX_K_LEN") === 0 && env("MLX_VK_SDPA_MAX_Q_LEN") === 0;

const packingOf = (m: DecodeMatrix): Packing | null => (m.scales ? { groupSize: m.groupSize ?? 64, bits: m.bits ?? 4 } : null);
function arraysOf(m: DecodeMatrix): MxArray[] {
  if (!m.scales) return [m.weight];
  if (!m.biases) throw opError("decode", "a quantized matrix needs scales and biases, got scales only");
  return [m.weight, m.scales, m.biases];
}
const optional = (x: MxArray | null | undefined): MxArray[] => (x ? [x] : []);

/**
 * Products of rmsNorm(x, norm, eps) with one to three matrices, one behind the other: q, k and v, or the logits.
 * @param x one vector of K elements
 * @param norm [K]
 * @param bias added to the products; as many elements as the result
 * @returns x's shape with the sum of the matrices' rows in the last dimension
 */
export const normProject = (x: MxArray, norm: MxArray, eps: number, matrices: readonly DecodeMatrix[], bias?: MxArray | null, s?: S): MxArray =>
  normProjectOp([x, norm, ...matrices.flatMap(arraysOf), ...optional(bias)], { eps, packings: matrices.map(packingOf), bias: Boolean(bias) }, s)[0] as MxArray;

/** silu(gate) * up of the products of rmsNorm(x, norm, eps) with two matrices [N, K]. `bias`: those of gate, then those of up. */
export const normGateUp = (x: MxArray, norm: MxArray, eps: number, gate: DecodeMatrix, up: DecodeMatrix, bias?: MxArray | null, s?: S): MxArray =>
  normGateUpOp([x, norm, ...arraysOf(gate), ...arraysOf(up), ...optional(bias)], { eps, packings: [packingOf(gate), packingOf(up)], bias: Boolean(bias) }, s)[0] as MxArray;

/** residual + (x matrix^T + bias), in the shape of residual. */
export const projectAdd = (x: MxArray, matrix: DecodeMatrix, residual: MxArray, bias?: MxArray | null, s?: S): MxArray =>
  projectAddOp([x, residual, ...arraysOf(matrix), ...optional(bias)], { packings: [packingOf(matrix)], bias: Boolean(bias) }, s)[0] as MxArray;

/** residual + (attention matrix^T + bias), where `parts` is what attentionStep gave for the same position, with the same `least`. */
export const combineProjectAdd = (parts: MxArray, position: MxArray, least: number, matrix: DecodeMatrix, residual: MxArray, bias?: MxArray | null, s?: S): MxArray =>
  combineProjectAddOp([parts, residual, position, ...arraysOf(matrix), ...optional(bias)], { packings: [packingOf(matrix)], bias: Boolean(bias), least }, s)[0] as MxArray;

/** Ranges of positions that a step is divided into: enough for 128 workgroups when the cache is full, each of at least `leastSplit` positions. */
export const leastSplit = 64;
export const splitsFor = (kvHeads: number, capacity: number): number => Math.max(1, Math.min(Math.ceil(128 / kvHeads), Math.ceil(capacity / leastSplit)));

/**
 * Attention of the position that `position` (int32, one element) holds: norms and rotation of its queries and key, its rows of the caches, and sums over ranges of
 * the positions up to it.
 * @param qkv one vector: the heads' queries, the key heads' keys, their values
 * @param keys, values caches (1, kvHeads, capacity, headDim), written at the position
 * @param norms weights [headDim] of the norms of queries and keys, or null
 * @returns parts for combineProjectAdd, float32 [splits, heads, headDim + 4]; and the caches
 */
export function attentionStep(
  qkv: MxArray, position: MxArray, keys: MxArray, values: MxArray, norms: readonly [query: MxArray | null, key: MxArray | null], params: Omit<AttentionStepParams, "queryNorm" | "keyNorm">, s?: S,
): [parts: MxArray, keys: MxArray, values: MxArray] {
  const all = { ...params, queryNorm: norms[0] !== null, keyNorm: norms[1] !== null };
  return attentionStepOp([qkv, position, keys, values, ...optional(norms[0]), ...optional(norms[1])], all, s) as [MxArray, MxArray, MxArray];
}

/** Row of a table for a token (int32, one element), [1, K]. */
export const embedRow = (token: MxArray, table: DecodeMatrix, s?: S): MxArray => embedRowOp([token, ...arraysOf(table)], { packing: packingOf(table) }, s)[0] as MxArray;

/**
 * Chooses a token and moves on: `state` int32 [token, position, length, step] becomes [chosen, position + 1, length + 1, step + 1], and history[step] = chosen, where the
 * history begins anew behind its last element. Temperature 0 takes the greatest logit, else a draw from softmax(logits / temperature) with the key [seed, step].
 */
export const chooseToken = (logits: MxArray, state: MxArray, history: MxArray, params: ChooseParams, s?: S): [state: MxArray, history: MxArray] =>
  chooseOp([logits, state, history], params, s) as [MxArray, MxArray];

/** As `chooseToken`, for a token that was chosen by other ops: one int32 or uint32. */
export const advance = (token: MxArray, state: MxArray, history: MxArray, s?: S): [state: MxArray, history: MxArray] => advanceOp([token, state, history], {}, s) as [MxArray, MxArray];
