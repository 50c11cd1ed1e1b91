/** Scaled dot product attention of mx.fast. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { bfloat16, bool, float16, float32, int32, promote } from "../core/dtype.ts";
import { engine } from "../core/engine.ts";
import { opError } from "../core/error.ts";
import { type Arg, type Choices, defineOp, type InputLayout, type Kernel, type Launch, type Op, output, scratch, type Step, type Tunables } from "../core/op.ts";
import { formatShape } from "../core/shape.ts";
import { type Batching, noRule } from "../core/rules.ts";
import { gpuAttention } from "./attention-gpu.ts";
import { add, multiply } from "./binary.ts";
import { less } from "./compare.ts";
import { concatenate } from "./concat.ts";
import { type ArrayLike, streamArg, toArray } from "./convert.ts";
import { arange, tri, zeros } from "./creation.ts";
import { matmul } from "./matmul.ts";
import { broadcastTo, expandDims, reshape, swapaxes } from "./movement.ts";
import { max } from "./reduce.ts";
import { sliceAxis } from "./region.ts";
import { where } from "./select.ts";
import { softmax } from "./softmax.ts";
import { isneginf } from "./unary.ts";
import { type AttentionParams, type Sizes, sizesOf } from "./attention-sizes.ts";
import { attentionGradients } from "./attention-vjp.ts";
import { type Blocks, attentionWords, keyTile, rowBlocksOf, scratchValues, tileBlocks, up8 } from "./attention-words.ts";
import { castTo, kernelDtype, kernelSuffix } from "./norm.ts";
import { within } from "./scope.ts";

const op = "scaledDotProductAttention";

/** Keys of a tile in assembly/lib/attention-rows.ts. */
const rowTile = 128;

function checkShapes(inputs: readonly Aval[]): void {
  const [q, k, v] = inputs as [Aval, Aval, Aval];
  for (const [name, x] of [["queries", q], ["keys", k], ["values", v]] as const) {
    if (x.shape.length !== 4) throw opError(op, `${name} must have 4 dimensions (batch, heads, length, head dimension), got ${formatShape(x.shape)}`);
  }
  const shapes = `queries ${formatShape(q.shape)}, keys ${formatShape(k.shape)}, values ${formatShape(v.shape)}`;
  if (k.shape[0] !== q.shape[0] || v.shape[0] !== q.shape[0]) throw opError(op, `batch dimensions must be equal, got ${shapes}`);
  if (q.shape[3] !== k.shape[3]) throw opError(op, `queries and keys must have the same last dimension, got ${shapes}`);
  if (k.shape[1] !== v.shape[1]) throw opError(op, `keys and values must have the same number of heads, got ${shapes}`);
  if (k.shape[2] !== v.shape[2]) throw opError(op, `keys and values must have the same length, got ${shapes}`);
  const { H, Hkv, D, Dv } = sizesOf(inputs);
  if (Hkv === 0 || H % Hkv !== 0) throw opError(op, `the number of query heads must be a multiple of the number of key heads, got ${H} and ${Hkv}`);
  if (up8(D) + up8(Dv) + rowTile + 2 > scratchValues) throw opError(op, `head dimensions must be below ${scratchValues} together, got ${D} and ${Dv}`);
}

function checkMask(mask: Aval, inputs: readonly Aval[]): void {
  const { B, H, Tq, Tk } = sizesOf(inputs);
  const full = [B, H, Tq, Tk];
  const pad = 4 - mask.shape.length;
  if (pad < 0) throw opError(op, `the mask must have at most 4 dimensions, got ${formatShape(mask.shape)}`);
  const fits = mask.shape.every((n, i) => n === 1 || n === full[pad + i]);
  if (!fits) throw opError(op, `the mask must broadcast to ${formatShape(full)}, got ${formatShape(mask.shape)}`);
}

function infer(inputs: readonly Aval[], params: AttentionParams): Aval[] {
  checkShapes(inputs);
  const q = inputs[0] as Aval;
  const { B, H, Tq, Dv } = sizesOf(inputs);
  for (const x of inputs.slice(0, 3)) {
    if (x.dtype !== q.dtype || (x.dtype !== float32 && x.dtype !== bfloat16 && x.dtype !== float16)) throw opError(op, `queries, keys and values must be floating point arrays of one type, got ${inputs.slice(0, 3).map((a) => a.dtype).join(", ")}`);
  }
  if (params.mask === "array") checkMask(inputs[3] as Aval, inputs);
  if (params.length) {
    const { shape, dtype } = inputs[3] as Aval;
    if (shape.reduce((a, b) => a * b, 1) !== 1 || dtype !== int32) throw opError(op, `the length of the keys must be one int32, got ${dtype} of shape ${formatShape(shape)}`);
  }
  if (params.sinks) {
    const { shape } = inputs[inputs.length - 1] as Aval;
    if (shape.length !== 1 || shape[0] !== H) throw opError(op, `sinks must have shape (${H}), one per query head, got ${formatShape(shape)}`);
  }
  return [{ shape: [B, H, Tq, Dv], dtype: q.dtype }];
}

/** Rows of heads, positions and masks may lie anywhere; a head's vector must be contiguous. */
function layout(_inputs: readonly View[], params: AttentionParams): InputLayout[] {
  return params.mask === "array" ? ["last", "last", "last", "any", "row"] : ["last", "last", "last", "row"];
}

/** Argument block of all kernels of assembly/attention.ts. */
const words = (inputs: readonly View[], params: AttentionParams, blocks: Blocks, store: Arg = blocks.splits > 1 ? scratch(0) : 0): Arg[] => attentionWords(inputs, params, blocks, { out: output(0), store, mask: 3 });

/** Multiply-adds that one thread should take at a time: 20 us of them at 10 per ns. */
const grainTunables = { grain: [200_000, 50_000, 100_000, 400_000, 800_000] } as const satisfies Tunables;
/** The same in units. */
function grainOf({ Tk, D, Dv }: Sizes, blocks: Blocks, choices?: Choices): number {
  return Math.max(1, Math.floor(((choices?.["grain"] ?? grainTunables.grain[0]) * blocks.splits) / (blocks.heads * blocks.queries * (Tk + 1) * (D + Dv + 1))));
}
const unitsOf = (s: Sizes, blocks: Blocks): number => rowBlocksOf(s, blocks) * blocks.splits;

const tiles: Kernel<AttentionParams> = {
  name: "wasm/attention/tiles",
  layout,
  gate: {
    refuse(inputs) {
      const s = sizesOf(inputs);
      const { heads, queries } = tileBlocks(s, 32);
      const rows = Math.ceil((heads * queries) / 4) * 4;
      if (rows * (up8(s.D) + up8(s.Dv) + keyTile + 5) + keyTile * (up8(s.D) + up8(s.Dv)) > scratchValues) return `cannot: a tile with head dimensions ${s.D} and ${s.Dv} does not fit in a thread's scratch`;
      if (s.Tq < 8) return `slower: ${s.Tq} queries leave a tile of keys mostly unused (needs 8)`;
      return undefined;
    },
  },
  tune: grainTunables,
  launch(inputs, outputs, params, choices) {
    const s = sizesOf(inputs);
    const blocks = tileBlocks(s, 32);
    // A second output is what `attentionKeeping` has.
    const args = [...words(inputs, params, blocks, outputs.length > 1 ? output(1) : 0), engine.pairing ? 1 : 0];
    return { steps: [{ entry: `attention/tiles_${kernelSuffix((inputs[0] as View).dtype)}`, args, units: unitsOf(s, blocks), grain: grainOf(s, blocks, choices) }] };
  },
};

/** All heads of a group and up to 8 queries, fewer when they do not fit in the scratch; keys in ranges of at least 512 until there are 32 units. */
function rowBlocks(s: Sizes, wish = 0): Blocks {
  const fit = Math.floor(scratchValues / (up8(s.D) + up8(s.Dv) + rowTile + 2));
  const heads = Math.max(1, Math.min(s.G, fit));
  const queries = Math.max(1, Math.min(s.Tq, 8, Math.floor(fit / heads)));
  const units = unitsOf(s, { heads, queries, splits: 1 });
  const splits = wish === 0 ? Math.min(Math.floor(s.Tk / 512), Math.ceil(32 / units)) : Math.min(wish, Math.floor(s.Tk / 64));
  return { heads, queries, splits: units === 0 ? 1 : Math.max(1, splits) };
}
const rows: Kernel<AttentionParams> = {
  name: "wasm/attention/rows",
  layout,
  // Ranges of keys; 0: by the sizes.
  tune: { splits: [0, 1, 2, 4, 8, 16], ...grainTunables },
  launch(inputs, _outputs, params, choices): Launch {
    const s = sizesOf(inputs);
    const blocks = rowBlocks(s, choices?.["splits"]);
    const type = kernelSuffix((inputs[0] as View).dtype);
    const args = words(inputs, params, blocks);
    const first: Step = { entry: `attention/rows_${type}`, args, units: unitsOf(s, blocks), grain: grainOf(s, blocks, choices) };
    if (blocks.splits === 1) return { steps: [first] };
    const count = s.B * s.H * s.Tq;
    return { steps: [first, { entry: `attention/combine_${type}`, args, units: count, grain: 16 }], scratch: [count * blocks.splits * (up8(s.Dv) + 16) * 4] };
  },
};

/** Lowest finite float32: the score of a key that a bool or causal mask hides. */
const hidden = -3.4028234663852886e38;

/** Plain float64, one query at a time. */
function reference(data: readonly Float64Array[], avals: readonly Aval[], params: AttentionParams): Float64Array[] {
  const { B, H, Hkv, G, Tq, Tk: rows, D, Dv } = sizesOf(avals);
  const [q, k, v] = data as [Float64Array, Float64Array, Float64Array];
  const Tk = params.length ? (data[3] as Float64Array)[0] as number : rows;
  const mask = params.mask === "array" ? maskReader(data[3] as Float64Array, avals[3] as Aval) : undefined;
  const sinks = params.sinks ? data[data.length - 1] : undefined;
  const out = new Float64Array(B * H * Tq * Dv);
  for (let row = 0; row < B * H * Tq; row++) {
    const [b, h, i] = [Math.floor(row / (H * Tq)), Math.floor(row / Tq) % H, row % Tq];
    const kv = b * Hkv + Math.floor(h / G);
    const scores = Array.from({ length: Tk }, (_, j) => {
      let s = 0;
      for (let e = 0; e < D; e++) s += (q[row * D + e] as number) * (k[(kv * rows + j) * D + e] as number);
      s *= params.scale;
      if (params.mask === "causal") return j <= Tk - Tq + i ? s : hidden;
      return mask ? mask(s, b, h, i, j) : s;
    });
    const sink = sinks ? [sinks[h] as number] : [];
    const high = Math.max(Number.NEGATIVE_INFINITY, ...scores, ...sink);
    if (high === Number.NEGATIVE_INFINITY) continue;
    const weights = scores.map((s) => Math.exp(s - high));
    const sum = [...weights, ...sink.map((s) => Math.exp(s - high))].reduce((a, w) => a + w, 0);
    for (let e = 0; e < Dv; e++) out[row * Dv + e] = weights.reduce((o, w, j) => o + (w / sum) * (v[(kv * rows + j) * Dv + e] as number), 0);
  }
  return [out];
}
/** Applies a mask, broadcast to [B, H, Tq, Tk], to the score at an index. */
function maskReader(data: Float64Array, { shape, dtype }: Aval): (score: number, ...index: number[]) => number {
  const pad = 4 - shape.length;
  return (score, ...index) => {
    const at = shape.reduce((p, n, d) => p * n + (n === 1 ? 0 : (index[d + pad] as number)), 0);
    const m = data[at] as number;
    return dtype === bool ? (m ? score : hidden) : score + m;
  };
}

/** Number of keys that count, in an array. */
export interface KeyLength {
  readonly length: MxArray;
}
const isKeyLength = (m: unknown): m is KeyLength => typeof m === "object" && m !== null && !(m instanceof MxArray) && (m as KeyLength).length instanceof MxArray;

/** Scores [B, Hkv, G, Tq, Tk] with the mask applied. */
function maskedScores(scores: MxArray, inputs: readonly MxArray[], params: AttentionParams, { Hkv, G, Tq, Tk }: Sizes): MxArray {
  if (params.length) return where(less(arange(Tk, int32), inputs[3] as MxArray), scores, Number.NEGATIVE_INFINITY);
  if (params.mask === "causal") return where(tri(Tq, Tk, Tk - Tq, bool), scores, hidden);
  if (params.mask === "none") return scores;
  const mask = inputs[3] as MxArray;
  const shape = [...new Array<number>(4 - mask.ndim).fill(1), ...mask.shape];
  const heads = shape[1] === 1 ? [1, 1] : [Hkv, G];
  const m = reshape(mask, [shape[0] as number, ...heads, shape[2] as number, shape[3] as number]);
  return mask.dtype === bool ? where(m, scores, hidden) : add(scores, m);
}
/** The definition in plain ops, in float32, with the matrix of scores: what forward derivatives come from. */
function definition(inputs: readonly MxArray[], params: AttentionParams): MxArray[] {
  const sizes = sizesOf(inputs.map((x) => x.desc));
  const { B, H, Hkv, G, Tq, Tk, D, Dv } = sizes;
  // The greatest of no scores does not exist.
  if (Tk === 0) return [zeros([B, H, Tq, Dv], (inputs[0] as MxArray).dtype)];
  const [q, k, v] = inputs.slice(0, 3).map((x) => castTo(x, float32)) as [MxArray, MxArray, MxArray];
  const queries = multiply(reshape(q, [B, Hkv, G, Tq, D]), params.scale);
  let scores = maskedScores(matmul(queries, swapaxes(expandDims(k, 2), -1, -2)), inputs, params, sizes);
  if (params.sinks) {
    const sink = reshape(castTo(inputs[inputs.length - 1] as MxArray, float32), [1, Hkv, G, 1, 1]);
    scores = concatenate([scores, broadcastTo(sink, [B, Hkv, G, Tq, 1])], -1);
  }
  const all = where(isneginf(max(scores, -1, true)), 0, softmax(scores, -1));
  const weights = params.sinks ? sliceAxis(all, 4, 0, Tk) : all;
  return [castTo(reshape(matmul(weights, expandDims(v, 2)), [B, H, Tq, Dv]), (inputs[0] as MxArray).dtype)];
}
/** The batch joins dimension B. Lengths and sinks that differ within it take the definition. */
function batch({ inputs, batched, size, spread, params, apply: again }: Batching<AttentionParams>): MxArray[] | undefined {
  const masked = params.mask === "array";
  if (batched.slice(masked ? 4 : 3).some(Boolean)) return undefined;
  const merged = [0, 1, 2].map((i) => {
    const x = spread(i);
    return reshape(x, [size * (x.shape[1] as number), ...x.shape.slice(2)]);
  });
  const others = inputs.slice(3);
  const mask = others[0];
  if (masked && mask && (batched[3] || (mask.ndim === 4 && mask.shape[0] !== 1))) {
    const B = (merged[0] as MxArray).desc.shape[0] as number;
    const { shape } = spread(3).desc;
    const own = [...new Array<number>(5 - shape.length).fill(1), ...shape.slice(1)];
    others[0] = reshape(broadcastTo(reshape(spread(3), [size, ...own]), [size, B / size, ...own.slice(1)]), [B, ...own.slice(1)]);
  }
  const out = again([...merged, ...others], params)[0] as MxArray;
  return [reshape(out, [size, (out.shape[0] as number) / size, ...out.shape.slice(1)])];
}

const apply = defineOp<AttentionParams>({
  name: op,
  infer,
  reference,
  composite: definition,
  vjp: ({ inputs, outputs, cotangents, params, needs }) => attentionGradients(inputs, outputs[0] as MxArray, cotangents[0] as MxArray, params, needs),
  jvp: "composite",
  vmap: batch,
  kernels: [tiles, rows],
  gpu: gpuAttention,
});

const inside = noRule("made while work is planned");
/** The op as the CPU's tiles compute it, with a second output, the maximum and the sum of each row: float32 [B, H, Tq, 2]. For the scheduler alone (schedule/statistics.ts). */
export const attentionKeeping: Op<AttentionParams> = {
  name: op,
  infer(inputs, params) {
    const { B, H, Tq } = sizesOf(inputs);
    return [...infer(inputs, params), { shape: [B, H, Tq, 2], dtype: float32 }];
  },
  vjp: inside,
  jvp: inside,
  vmap: inside,
  kernels: [tiles],
};

/**
 * softmax(queries keys^T * scale + mask) values, for every head, without a matrix of all scores (online softmax, Milakov and Gimelshein 2018; tiles as in FlashAttention,
 * Dao et al. 2022). Sums are float32 (float64 input is computed in float32 too) and the result is rounded once. A GPU's
 * matrix units (bfloat16 or float16, more than 16 queries per key head) multiply probabilities that are rounded to the type of the values first, with respect to the greatest one so far;
 * MLX_DISABLE=vulkan/attention/matrix closes that kernel. Slices of a cache and transposed heads are read in place.
 *
 * @param q queries [B, H, Tq, D]
 * @param k keys [B, Hkv, Tk, D]; H is a multiple of Hkv, consecutive query heads share a key head
 * @param v values [B, Hkv, Tk, Dv]
 * @param scale factor of the scores, usually 1 / sqrt(D)
 * @param mask null for none; { length }: only the first `length` keys count, an int32 array of one element that is read when the kernel runs (a cache of fixed capacity); "causal": query i sees keys up to Tk - Tq + i; or an array that broadcasts to [B, H, Tq, Tk], bool (true: visible) or added to the scores.
 *   A query from which a bool or causal mask hides every key gets the mean of all values; one whose scores are all -Infinity gets 0.
 * @param sinks [H]: per head, the score of one more key that has no value
 * @param forceFused accepted for MLX's signature; the computation is always fused
 * @returns [B, H, Tq, Dv] of the promoted type of q, k and v
 * @throws when shapes do not fit, a type is not floating point, or the type of mask or sinks does not promote to the result's
 */
export function scaledDotProductAttention(
  q: ArrayLike, k: ArrayLike, v: ArrayLike, scale: number, mask?: ArrayLike | KeyLength | "causal" | StreamOrDevice | null, sinks?: ArrayLike | StreamOrDevice | null, forceFused?: boolean | StreamOrDevice | null, s?: StreamOrDevice | null,
): MxArray {
  return within(() => {
    const { args, stream } = streamArg<unknown[]>([mask, sinks, forceFused, s]);
    const qkv = [toArray(q), toArray(k), toArray(v)];
    const out = qkv.map((x) => x.desc.dtype).reduce(promote);
    if (!out.isFloat) throw opError(op, `queries, keys and values must be floating point arrays, got ${qkv.map((x) => x.desc.dtype).join(", ")}`);
    if (typeof scale !== "number") throw opError(op, `scale must be a number, got ${typeof scale}`);
    const type = kernelDtype(out);
    const inputs = qkv.map((x) => castTo(x, type, stream));
    const [m, sink] = args as [ArrayLike | string | null | undefined, ArrayLike | null | undefined];
    if (typeof m === "string" && m !== "causal") throw opError(op, `mask must be an array, "causal" or null, got ${JSON.stringify(m)}`);
    const array = (name: string, x: ArrayLike): MxArray => {
      const a = toArray(x);
      const d = a.desc.dtype;
      if (promote(d, out) !== out) throw opError(op, `the type of ${name} must promote to ${out}, got ${d}`);
      return (name === "mask" && d === bool) || d === float32 || d === bfloat16 || d === float16 ? a : castTo(a, type, stream);
    };
    const length = isKeyLength(m) ? m.length : undefined;
    if (length) inputs.push(length);
    const hasMask = m !== null && m !== undefined && m !== "causal" && !length;
    if (hasMask) inputs.push(array("mask", m as ArrayLike));
    const hasSinks = sink !== null && sink !== undefined;
    if (hasSinks) inputs.push(array("sinks", sink));
    const params: AttentionParams = { scale, mask: hasMask ? "array" : m === "causal" ? "causal" : "none", length: length !== undefined, sinks: hasSinks };
    return castTo(apply(inputs, params, stream)[0] as MxArray, out, stream);
  });
}
