/** Argument blocks of the CPU kernels of attention and of its gradient. */
import type { View } from "../core/array.ts";
import { type Arg, f32, input, word } from "../core/op.ts";
import { type AttentionParams, type Sizes, sizesOf } from "./attention-sizes.ts";

export const up8 = (n: number): number => Math.ceil(n / 8) * 8;
/** Scratch of one thread, in float32 values, less some room for the block's words. */
export const scratchValues = (4 << 20) / 4 - 256;
/** Keys of a tile in assembly/lib/attention-tiles.ts. */
export const keyTile = 64;

/** How rows are put into blocks, and keys into ranges. */
export interface Blocks {
  readonly heads: number;
  readonly queries: number;
  readonly splits: number;
}

/** The first words of all kernels, as assembly/lib/attention-block.ts has them: `out` is the output of attention, `store` what 7 points at, `mask` the number of the mask's or length's input. */
export function attentionWords(inputs: readonly View[], params: AttentionParams, blocks: Blocks, { out, store, mask: at }: { out: Arg; store: Arg; mask: number }): Arg[] {
  const [q, k, v] = inputs as [View, View, View];
  const { Hkv, G, Tq, Tk, D, Dv } = sizesOf(inputs);
  const mask = params.mask === "array" ? inputs[at] : undefined;
  const sinks = params.sinks ? inputs[inputs.length - 1] : undefined;
  const pad = 4 - (mask?.shape.length ?? 0);
  const maskStrides = [0, 1, 2, 3].map((i) => (!mask || i < pad || mask.shape[i - pad] === 1 ? 0 : (mask.strides[i - pad] as number)));
  return [
    input(0), input(1), input(2), out, mask ? input(at) : 0, sinks ? input(inputs.length - 1) : 0, params.length ? input(at) : word(Tk), store,
    Hkv, G, Tq, D, Dv, ...q.strides.slice(0, 3), ...k.strides.slice(0, 3), ...v.strides.slice(0, 3), ...maskStrides,
    { none: 0, causal: 1, array: 2 }[params.mask], mask?.dtype.code ?? 0, sinks?.dtype.code ?? -1, f32(params.scale), blocks.heads, blocks.queries, blocks.splits,
  ];
}

/** Blocks of all rows, for one range of keys. */
export const rowBlocksOf = ({ B, Hkv, G, Tq }: Sizes, blocks: Blocks): number => B * Hkv * Math.ceil(G / blocks.heads) * Math.ceil(Tq / blocks.queries);
/** All heads of a group (up to 8) and as many queries as make `rows` rows. */
export function tileBlocks({ G, Tq }: Sizes, rows: number): Blocks {
  const heads = Math.max(1, Math.ceil(G / Math.ceil(G / 8)));
  return { heads, queries: Math.max(1, Math.min(Tq, Math.floor(rows / heads))), splits: 1 };
}
