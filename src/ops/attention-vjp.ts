/** Gradient of scaled dot product attention without a matrix of all scores: a kernel for the CPU, and a definition by blocks. */
import type { Aval, MxArray, View } from "../core/array.ts";
import { bool, float32, int32 } from "../core/dtype.ts";
import { type Arg, type InputLayout, type Kernel, type Launch, type Op, defineOp, output, scratch } from "../core/op.ts";
import type { Batching } from "../core/rules.ts";
import { type AttentionParams, type Sizes, sizesOf } from "./attention-sizes.ts";
import { type Blocks, attentionWords, keyTile, rowBlocksOf, scratchValues, tileBlocks, up8 } from "./attention-words.ts";
import { add, multiply, subtract } from "./binary.ts";
import { less } from "./compare.ts";
import { concatenate } from "./concat.ts";
import { arange, tri } from "./creation.ts";
import { orderedAfter } from "./depends.ts";
import { matmul } from "./matmul.ts";
import { broadcastTo, reshape, swapaxes } from "./movement.ts";
import { castTo, kernelSuffix } from "./norm.ts";
import { pad } from "./pad.ts";
import { max, sum } from "./reduce.ts";
import { sliceAxis } from "./region.ts";
import { where } from "./select.ts";
import { softmax } from "./softmax.ts";
import { isneginf, negative } from "./unary.ts";

/** Inputs of the op: q, k, v, the output, its gradient, then mask or length, then sinks. */
const maskAt = 5;
const rowLimit = 32;

/** Ranges of the keys: as many as give threads enough units, each of at least two tiles. */
function splitsOf({ B, Hkv, Tk }: Sizes): number {
  const units = B * Hkv;
  return units === 0 ? 1 : Math.max(1, Math.min(Math.floor(Tk / (2 * keyTile)), Math.ceil(16 / units)));
}
/** Values of scratch that a thread needs. */
const threadValues = (D: number, Dv: number): number => keyTile * (2 * (D + 1) + 2 * (Dv + 1) + 4 * up8(D) + 2 * up8(Dv) + 1) + 3 * rowLimit * keyTile + rowLimit * up8(D);

function words(inputs: readonly View[], params: AttentionParams, blocks: Blocks, { B, H, Tq }: Sizes, kept: Arg): Arg[] {
  return [
    ...attentionWords(inputs, params, blocks, { out: { of: "input", index: 3, bytes: 0 }, store: scratch(0), mask: maskAt }),
    { of: "input", index: 4, bytes: 0 }, output(0), output(1), output(2), params.sinks ? output(3) : 0, scratch(1), B * H * Tq, kept,
  ];
}

/** `keeping`: the last input is what attention found out about its rows. */
const tilesKernel = (keeping: boolean): Kernel<AttentionParams> => ({
  name: "wasm/attentionVjp/tiles",
  layout: (_inputs, params): InputLayout[] => ["last", "last", "last", "row", "row", params.mask === "array" ? "any" : "row", "row"],
  gate: {
    refuse(inputs) {
      const { D, Dv } = sizesOf(inputs);
      return threadValues(D, Dv) > scratchValues ? `cannot: a tile with head dimensions ${D} and ${Dv} does not fit in a thread's scratch` : undefined;
    },
  },
  launch(all, _outputs, params): Launch {
    const inputs = keeping ? all.slice(0, -1) : all;
    const s = sizesOf(inputs);
    const type = kernelSuffix((inputs[0] as View).dtype);
    const blocks = { ...tileBlocks(s, rowLimit), splits: splitsOf(s) };
    const args = words(inputs, params, blocks, s, keeping ? { of: "input", index: inputs.length, bytes: 0 } : 0);
    const rows = s.B * s.H * s.Tq;
    return {
      steps: [
        { entry: `attentionVjp/statistics_${type}`, args, units: rowBlocksOf(s, blocks), grain: 1 },
        { entry: `attentionVjp/tiles_${type}`, args, units: s.B * s.Hkv * blocks.splits, grain: 1 },
        { entry: `attentionVjp/queries_${type}`, args, units: rows, grain: 64 },
      ],
      scratch: [16 * Math.max(1, rows), 4 * Math.max(1, blocks.splits * rows * up8(s.D))],
    };
  },
});

// ---- the definition by blocks

/** Most scores of a block; a few arrays of this size are alive at a time. */
const blockScores = 1 << 22;

/** Part of the rows: some batch entries, some key heads of them, some queries of these. */
interface Block {
  readonly b: readonly [number, number];
  readonly h: readonly [number, number];
  readonly t: readonly [number, number];
}
/** What a block gives, in float32: dq [b, h, G, t, D], dk and dv of the whole cache, the gradient of the mask (rank 4, without the dimensions it is broadcast along), and each row's part in that of the sinks [b, h * G, t]. */
export interface Parts {
  readonly dq: MxArray;
  readonly dk: MxArray;
  readonly dv: MxArray;
  readonly mask: MxArray | undefined;
  readonly sinks: MxArray | undefined;
}

const cut = (x: MxArray, axis: number, [from, to]: readonly [number, number]): MxArray => (from === 0 && to === x.desc.shape[axis] ? x : sliceAxis(x, axis, from, to));
/** A range of a dimension that may be broadcast. */
const cutIfWide = (x: MxArray, axis: number, range: readonly [number, number]): MxArray => (x.desc.shape[axis] === 1 ? x : cut(x, axis, range));
const ranges = (n: number, step: number): (readonly [number, number])[] => Array.from({ length: Math.max(1, Math.ceil(n / step)) }, (_, i) => [i * step, Math.min(n, (i + 1) * step)] as const);

/** Entries of each dimension that a block takes. */
function blockSizes({ B, Hkv, G, Tq, Tk }: Sizes, most: number): { b: number; h: number; t: number } {
  const room = (unit: number): number => Math.max(1, Math.floor(most / Math.max(1, unit)));
  const t = Math.max(1, Math.min(Tq, room(G * Tk)));
  const h = t < Tq ? 1 : Math.max(1, Math.min(Hkv, room(G * Tq * Tk)));
  return { t, h, b: h < Hkv ? 1 : Math.max(1, Math.min(B, room(Hkv * G * Tq * Tk))) };
}

/** Mask of rank 4, and float32 sinks [Hkv, G]. */
interface Extras {
  readonly mask: MxArray | undefined;
  readonly length: MxArray | undefined;
  readonly sinks: MxArray | undefined;
}
const lowest = -3.4028234663852886e38;

class BlockGradients {
  private readonly s: Sizes;
  private readonly extras: Extras;
  private readonly inputs: readonly MxArray[];
  private readonly params: AttentionParams;
  private readonly needsMask: boolean;
  private readonly most: number;
  constructor(inputs: readonly MxArray[], params: AttentionParams, needsMask: boolean, most: number) {
    this.inputs = inputs;
    this.params = params;
    this.needsMask = needsMask;
    this.most = most;
    this.s = sizesOf(inputs.map((x) => x.desc));
    const extra = inputs[maskAt];
    const { Hkv, G } = this.s;
    this.extras = {
      mask: params.mask === "array" ? reshape(extra as MxArray, [...new Array<number>(4 - (extra as MxArray).ndim).fill(1), ...(extra as MxArray).shape]) : undefined,
      length: params.length ? extra : undefined,
      sinks: params.sinks ? reshape(castTo(inputs[inputs.length - 1] as MxArray, float32), [Hkv, G]) : undefined,
    };
  }
  /** One input [B, heads, T, n] of the block as float32 [b, h, heads / Hkv, t, n]. */
  private part(i: number, { b, h, t }: Block, after: readonly MxArray[] = []): MxArray {
    const { Hkv } = this.s;
    const x = this.inputs[i] as MxArray;
    const [, heads, , n] = x.desc.shape as [number, number, number, number];
    const per = heads / Hkv;
    const some = cut(cut(cut(x, 0, b), 1, [h[0] * per, h[1] * per]), 2, t);
    return castTo(reshape(orderedAfter(some, after), [b[1] - b[0], h[1] - h[0], per, t[1] - t[0], n]), float32);
  }
  /** What shows a key to a query, for a mask that hides: broadcasts to [b, h, G, t, keys]. */
  private visible(block: Block, keys: number): MxArray | undefined {
    const { Tq, Tk } = this.s;
    const { mask, length } = this.extras;
    const [from, to] = block.t;
    if (length) return less(arange(keys, int32), length);
    if (this.params.mask === "causal") return from + Tk - Tq >= keys - 1 ? undefined : tri(to - from, keys, Tk - Tq + from, bool);
    return mask?.dtype === bool ? this.maskPart(mask, block) : undefined;
  }
  private maskPart(mask: MxArray, { b, h, t }: Block): MxArray {
    const { G } = this.s;
    const m = cutIfWide(cutIfWide(cutIfWide(mask, 0, b), 1, [h[0] * G, h[1] * G]), 2, t);
    const [nb, nh, nt, nk] = m.desc.shape as [number, number, number, number];
    return reshape(m, [nb, ...(nh === 1 ? [1, 1] : [nh / G, G]), nt, nk]);
  }
  /** Weights of the keys and of the sink, from masked scores. A row without any weight is 0. */
  private weights(scores: MxArray, { h }: Block): { p: MxArray; sink: MxArray | undefined } {
    const { sinks } = this.extras;
    const keys = scores.desc.shape[4] as number;
    let all = scores;
    if (sinks) {
      const part = reshape(cut(sinks, 0, h), [1, h[1] - h[0], this.s.G, 1, 1]);
      all = concatenate([scores, broadcastTo(part, [...scores.shape.slice(0, 4), 1])], -1);
    }
    const p = this.params.mask === "array" || this.params.length || sinks ? where(isneginf(max(all, -1, true)), 0, softmax(all, -1)) : softmax(all, -1);
    return sinks ? { p: sliceAxis(p, 4, 0, keys), sink: sliceAxis(p, 4, keys, keys + 1) } : { p, sink: undefined };
  }
  /** The gradients that one block gives; `after` is computed before. */
  parts(block: Block, after: readonly MxArray[]): Parts {
    const { G, Tq, Tk, D, Dv } = this.s;
    const { scale } = this.params;
    const { b, h, t } = block;
    const causal = this.params.mask === "causal";
    // A row that sees no key takes the mean over all.
    const keys = causal && t[0] + Tk - Tq >= 0 ? Math.min(Tk, t[1] + Tk - Tq) : Tk;
    const cache = { b, h, t: [0, keys] as const };
    const [q, k, v] = [multiply(this.part(0, block, after), scale), this.part(1, cache), this.part(2, cache)] as const;
    const [out, g] = [this.part(3, block), this.part(4, block)] as const;
    const visible = this.visible(block, keys);
    const { mask } = this.extras;
    let scores = matmul(q, swapaxes(k, -1, -2));
    if (visible) scores = where(visible, scores, this.params.length ? Number.NEGATIVE_INFINITY : lowest);
    else if (mask) scores = add(scores, this.maskPart(mask, block));
    const { p, sink } = this.weights(scores, block);
    const product = sum(multiply(out, g), -1, true);
    const free = multiply(p, subtract(matmul(g, swapaxes(v, -1, -2)), product));
    const ds = visible ? where(visible, free, 0) : free;
    const rows = (x: MxArray, n: number): MxArray => reshape(x, [b[1] - b[0], h[1] - h[0], G * (t[1] - t[0]), n]);
    const toCache = (x: MxArray): MxArray => (keys === Tk ? x : pad(x, [[0, 0], [0, 0], [0, Tk - keys], [0, 0]]));
    return {
      dq: multiply(matmul(ds, k), scale),
      dk: toCache(matmul(swapaxes(rows(ds, keys), -1, -2), rows(q, D))),
      dv: toCache(matmul(swapaxes(rows(p, keys), -1, -2), rows(g, Dv))),
      mask: this.needsMask && mask ? this.toMask(ds, mask) : undefined,
      sinks: sink && reshape(negative(multiply(sink, product)), [b[1] - b[0], (h[1] - h[0]) * G, t[1] - t[0]]),
    };
  }
  /** Sums gradients of scores [b, h, G, t, keys] over what the mask is broadcast along. */
  private toMask(ds: MxArray, mask: MxArray): MxArray {
    const [b, h, , t, keys] = ds.desc.shape as [number, number, number, number, number];
    const flat = reshape(ds, [b, h * this.s.G, t, keys]);
    const axes = [0, 1, 2, 3].filter((d) => mask.desc.shape[d] === 1 && flat.desc.shape[d] !== 1);
    return axes.length > 0 ? sum(flat, axes, true) : flat;
  }

  /** All of it, in float32. Blocks are computed one after another, so that only one is in memory. */
  all(): Parts {
    const { B, H, Hkv, Tq, D } = this.s;
    const size = blockSizes(this.s, this.most);
    const wide = (d: number): boolean => (this.extras.mask?.desc.shape[d] ?? 1) !== 1;
    let before: readonly MxArray[] = [];
    const batches = ranges(B, size.b).map((b) => {
      const heads = ranges(Hkv, size.h).map((h) => {
        const queries: Parts[] = [];
        let total: Parts | undefined;
        for (const t of ranges(Tq, size.t)) {
          const part = this.parts({ b, h, t }, before);
          queries.push(part);
          total = total ? { ...part, dk: add(total.dk, part.dk), dv: add(total.dv, part.dv) } : part;
          before = [part.dq, total.dk, total.dv, ...[part.sinks, part.mask].filter((x) => x !== undefined)];
        }
        const last = total as Parts;
        return { ...last, dq: join(queries.map((p) => p.dq), 3, true) as MxArray, mask: join(queries.map((p) => p.mask), 2, wide(2)), sinks: join(queries.map((p) => p.sinks), 2, true) };
      });
      return this.joined(heads, 1, wide(1));
    });
    const all = this.joined(batches, 0, wide(0));
    return { ...all, dq: reshape(all.dq, [B, H, Tq, D]) };
  }
  private joined(parts: readonly Parts[], axis: number, wideMask: boolean): Parts {
    const of = (name: "dq" | "dk" | "dv"): MxArray => join(parts.map((p) => p[name]), axis, true) as MxArray;
    return { dq: of("dq"), dk: of("dk"), dv: of("dv"), mask: join(parts.map((p) => p.mask), axis, wideMask), sinks: join(parts.map((p) => p.sinks), axis, true) };
  }
}
/** The gradients by blocks of at most `most` scores. Inputs as those of the op. */
export const gradientsByBlocks = (inputs: readonly MxArray[], params: AttentionParams, needsMask: boolean, most = blockScores): Parts => new BlockGradients(inputs, params, needsMask, most).all();
/** Parts side by side, or summed. */
function join(parts: readonly (MxArray | undefined)[], axis: number, aside: boolean): MxArray | undefined {
  const list = parts.filter((p) => p !== undefined);
  if (list.length <= 1) return list[0];
  return aside ? concatenate(list, axis) : list.reduce((a, b) => add(a, b));
}

// ---- the op

/** Shapes of dq, dk, dv and the rows' parts in the gradient of the sinks. */
function infer(inputs: readonly Aval[], params: AttentionParams): Aval[] {
  const { B, H, Tq } = sizesOf(inputs);
  const like = inputs.slice(0, 3).map(({ shape, dtype }) => ({ shape, dtype }));
  return params.sinks ? [...like, { shape: [B, H, Tq], dtype: float32 }] : like;
}
function definition(inputs: readonly MxArray[], params: AttentionParams): MxArray[] {
  const { dq, dk, dv, sinks } = gradientsByBlocks(inputs, params, false);
  return [...[dq, dk, dv].map((g, i) => castTo(g, (inputs[i] as MxArray).dtype)), ...(sinks ? [sinks] : [])];
}
/** The batch joins dimension B. Masks, lengths and sinks that differ within it take the definition. */
function batch({ inputs, batched, size, spread, params, apply: again }: Batching<AttentionParams>): MxArray[] | undefined {
  const [mask] = inputs.slice(5);
  if (batched.slice(5).some(Boolean) || (params.mask === "array" && mask?.ndim === 4 && mask.desc.shape[0] !== 1)) return undefined;
  const merged = [0, 1, 2, 3, 4].map((i) => {
    const x = spread(i);
    return reshape(x, [size * (x.shape[1] as number), ...x.shape.slice(2)]);
  });
  return again([...merged, ...inputs.slice(5)], params).map((x) => reshape(x, [size, (x.shape[0] as number) / size, ...x.shape.slice(1)]));
}

const apply = defineOp<AttentionParams>({
  name: "scaledDotProductAttentionVjp",
  infer,
  composite: definition,
  vjp: "composite",
  jvp: "composite",
  vmap: batch,
  kernels: [tilesKernel(false)],
});

/** The op with a further input behind all others, the second output of `attentionKeeping`. For the scheduler alone (schedule/statistics.ts). */
export const attentionVjpKeeping: Op<AttentionParams> = { ...apply.op, infer: (inputs, params) => infer(inputs.slice(0, -1), params), composite: (inputs, params) => definition(inputs.slice(0, -1), params), kernels: [tilesKernel(true)] };

const ofSinks = (rows: MxArray | undefined): MxArray | undefined => rows && sum(rows, [0, 2]);

/**
 * Gradients of queries, keys, values, mask (or length: none) and sinks from that of the output. No matrix of all scores is in memory, unless the gradient of a mask
 * is one.
 */
export function attentionGradients(inputs: readonly MxArray[], out: MxArray, gradient: MxArray, params: AttentionParams, needs: readonly boolean[]): (MxArray | undefined)[] {
  const extra = params.mask === "array" || params.length;
  const all = [...inputs.slice(0, 3), out, gradient, ...inputs.slice(3)];
  const needsMask = params.mask === "array" && needs[3] === true && (inputs[3] as MxArray).dtype !== bool;
  const { Tk, Tq } = sizesOf(inputs.map((x) => x.desc));
  if (Tk === 0 || Tq === 0) return [];
  if (needsMask || params.length) {
    const g = gradientsByBlocks(all, params, needsMask);
    return [g.dq, g.dk, g.dv, ...(extra ? [g.mask] : []), ofSinks(g.sinks)];
  }
  const [dq, dk, dv, rows] = apply(all, params);
  return [dq, dk, dv, ...(extra ? [undefined] : []), ofSinks(rows)];
}
