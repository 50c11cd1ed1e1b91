/** Work of the quantized matrix products, as data for assembly/templates/quantized.ts. */
import type { View } from "../core/array.ts";
import { float32 } from "../core/dtype.ts";
import { engine } from "../core/engine.ts";
import { type Arg, type Choices, type Launch, type Step, type Tunables, input, output, scratch } from "../core/op.ts";
import { sizeOf } from "../core/shape.ts";
import type { FloatMode } from "./quantized-float.ts";

/** How a matrix is packed. */
export interface Packing {
  readonly groupSize: number;
  readonly bits: number;
  /** Small floats instead of affine integers; such matrices have no biases. */
  readonly mode?: FloatMode | undefined;
}
export interface ProductParams extends Packing {
  /** The weights are [N, K], packed along K; otherwise [K, N], packed along N. */
  readonly transpose: boolean;
}

/** Rows of x up to which unpacking the weights for every row of x beats unpacking them once into panels: the dearer the unpacking, the fewer. */
export const fewRows = (bits: number): number => (bits === 4 ? 11 : bits === 2 || bits === 8 ? 7 : 2);
/** Longest row that fits a thread's scratch area: as float32, and as a panel of 8 unpacked rows in 16-bit values. */
export const longestRow = 1 << 19;
export const longestPanelRow = 200_000;

export const last = (v: View): number => v.shape[v.shape.length - 1] as number;
export const secondLast = (v: View): number => v.shape[v.shape.length - 2] ?? 1;
/** Number of rows, and of matrices, of an array: not its size over theirs, which may be zero. */
export const rowsOf = (v: View): number => (v.size > 0 ? v.size / last(v) : sizeOf(v.shape.slice(0, -1)));
export const matricesOf = (v: View): number => sizeOf(v.shape.slice(0, -2));
export const grainOf = (perUnit: number, target: number): number => Math.max(1, Math.round(target / Math.max(1, perUnit)));
/** A grain near the wanted one that makes an even number of equal pieces, so that two threads get the same. */
export const evenGrain = (units: number, grain: number): number => Math.max(1, Math.ceil(units / (2 * Math.max(1, Math.round(units / (2 * grain))))));

/** Order in which a width's weights are unpacked (see assembly/templates/quant-layout.ts). */
const orderOf = (bits: number): number => (bits === 4 ? 1 : bits === 2 ? 2 : bits === 8 ? 3 : 0);
/** 4 bits in groups of more than one block: blocks are unpacked in pairs. */
const pairedOrder = 4;
/** Three 7-bit planes keep float32's accuracy (3e-7 of a group's largest value), two are ample for 16-bit results (3e-5). */
const planesOf = (out: View): 2 | 3 => (out.dtype === float32 ? 3 : 2);

// Made once: decode builds 200 launches a token.
const [x0, w1, scales2, biases3, out0, scratch0] = [input(0), input(1), input(2), input(3), output(0), scratch(0)];

interface Prepared {
  readonly step: Step;
  readonly bytes: number;
  readonly key: string;
}
/** The step that turns rows of x into integer planes, and what identifies its result. Tiles: four rows interleaved, in the build's own lanes or in 16-bit lanes. */
function prepareStep(x: View, planes: number, { groupSize, bits }: Packing, tiles: false | "own" | "half"): Prepared {
  const K = last(x);
  const M = rowsOf(x);
  const groups = K / groupSize;
  const order = !tiles && bits === 4 && groupSize > 32 ? pairedOrder : orderOf(bits);
  const rows = tiles ? (M + 3) & ~3 : M;
  const padded = tiles ? groups : (groups + 3) & ~3;
  return {
    step: {
      entry: tiles ? "quantized/prepareTiles" : "quantized/prepare",
      args: [x0, scratch0, M, K, groupSize, x.dtype.code, order, planes, tiles === "half" ? 1 : 0],
      units: tiles ? rows / 4 : M,
      grain: grainOf(tiles ? 4 * K : K, 16384),
    },
    bytes: rows * (K * (planes === 2 ? 2 : 4) + padded * 8 + 4),
    key: `quantized ${order} ${planes} ${groupSize} ${tiles || "rows"}`,
  };
}

/** Words that all matrix kernels share (see assembly/lib/quant.ts). */
function commonWords(inputs: readonly View[], out: View, p: Packing, M: number, N: number, K: number): Arg[] {
  const [x, , scales] = inputs as readonly [View, View, View];
  return [w1, scales2, biases3, x0, scratch0, out0, M, N, K, p.groupSize, p.bits, planesOf(out), x.dtype.code, scales.dtype.code, out.dtype.code];
}

/** A launch that starts by preparing x. */
const launchPrepared = (prepared: Prepared, steps: readonly Step[], more: readonly number[] = []): Launch => ({
  steps: [prepared.step, ...steps],
  scratch: [prepared.bytes, ...more],
  shared: { steps: 1, scratch: [0], key: prepared.key },
});

/** Bytes of weights that a thread takes at a time: smaller pieces restart the hardware's prefetching more often, larger ones leave threads waiting at the end. */
export const rowTunables = { chunk: [163840, 40960, 81920, 327680, 655360] } as const satisfies Tunables;
/** Multiply-adds that a thread takes at a time, and values of x in a block. */
export const panelTunables = { chunk: [400_000, 100_000, 200_000, 800_000, 1_600_000], block: [262144, 65536, 131072, 524288] } as const satisfies Tunables;

/** Few rows times packed [N, K]. */
export const launchQmv = (inputs: readonly View[], outputs: readonly View[], p: ProductParams, c?: Choices): Launch => launchRows("quantized/qmv", inputs, outputs, p, c);
export type OneRowEntry = `quantized/qmv${"Row" | "Row16" | "Pair16" | "Pair32"}`;
/** One row times packed 4-bit [N, K]. */
export const launchQmvRow = (entry: OneRowEntry) => (inputs: readonly View[], outputs: readonly View[], p: ProductParams, c?: Choices): Launch => launchRows(entry, inputs, outputs, p, c);

function launchRows(entry: string, inputs: readonly View[], [out]: readonly View[], p: ProductParams, choices?: Choices): Launch {
  const x = inputs[0] as View;
  const K = last(x);
  const M = rowsOf(x);
  const N = last(out as View);
  const prepared = prepareStep(x, planesOf(out as View), p, false);
  // So many bytes of weights, or the same time when they are used for more rows.
  const units = (N + 3) >> 2;
  const grain = evenGrain(units, grainOf((K * p.bits * Math.max(1, M / 2)) / 2, choices?.["chunk"] ?? rowTunables.chunk[0]));
  return { ...launchPrepared(prepared, [{ entry, args: commonWords(inputs, out as View, p, M, N, K), units, grain }]), together: M === 1 };
}

/** Many rows times packed [N, K]. */
export const launchQmm = (inputs: readonly View[], outputs: readonly View[], p: ProductParams, c?: Choices): Launch => launchPanels(inputs, outputs, p, 0, c);
/** The same for at most 4 bits, with sums in 16 bits first. */
export const launchQmm16 = (inputs: readonly View[], outputs: readonly View[], p: ProductParams, c?: Choices): Launch => launchPanels(inputs, outputs, p, 1, c);

function launchPanels(inputs: readonly View[], [out]: readonly View[], p: ProductParams, narrow: 0 | 1, choices?: Choices): Launch {
  const x = inputs[0] as View;
  const K = last(x);
  const M = rowsOf(x);
  const N = last(out as View);
  const prepared = prepareStep(x, planesOf(out as View), p, "own");
  // A block of x stays in a core's second-level cache while the panels pass.
  const rows = Math.min((M + 3) & ~3, Math.max(32, Math.floor((choices?.["block"] ?? panelTunables.block[0]) / K) & ~3));
  const units = Math.ceil(M / rows) * ((N + 7) >> 3);
  const args = [...commonWords(inputs, out as View, p, M, N, K), rows, narrow];
  return launchPrepared(prepared, [{ entry: "quantized/qmm", args, units, grain: evenGrain(units, grainOf(8 * K * rows, choices?.["chunk"] ?? panelTunables.chunk[0])) }]);
}

/** Multiply-adds that a thread takes at a time, and most rows of x in a block, whose sums lie in the scratch area. */
export const halfTunables = { chunk: [1_600_000, 400_000, 800_000, 3_200_000], rows: [512, 64, 128, 256, 1024] } as const satisfies Tunables;

/** Many rows times packed [N, K], with integers in 16-bit lanes; plus a fifth input like the output, if there is one. */
export function launchQmmHalf(inputs: readonly View[], [out]: readonly View[], p: ProductParams, choices?: Choices, paired = engine.pairing): Launch {
  const x = inputs[0] as View;
  const K = last(x);
  const M = rowsOf(x);
  const N = last(out as View);
  const prepared = prepareStep(x, planesOf(out as View), p, "half");
  const rows = Math.min((M + 3) & ~3, choices?.["rows"] ?? halfTunables.rows[0]);
  const units = Math.ceil(M / rows) * ((N + 15) >> 4);
  const args = [...commonWords(inputs, out as View, p, M, N, K), rows, paired ? 1 : 0, inputs.length > 4 ? input(4) : 0];
  return launchPrepared(prepared, [{ entry: "quantized/qmmHalf", args, units, grain: evenGrain(units, grainOf(16 * K * rows, choices?.["chunk"] ?? halfTunables.chunk[0])) }]);
}

/** Rows times packed [K, N], for one matrix or, with indices as inputs 4 and 5, for one of several per pair. */
export function launchQvm(inputs: readonly View[], [out]: readonly View[], p: ProductParams): Launch {
  const [x, w, , , lhs] = inputs as readonly [View, View, View, View, View?];
  const K = last(x);
  const N = last(out as View);
  const M = lhs ? secondLast(x) : rowsOf(x);
  const pairs = lhs ? lhs.size : 1;
  const rows = Math.min(M, 128);
  const words = [...commonWords(inputs, out as View, p, M, N, K)];
  // qvm reads x as it is.
  words[4] = 0;
  words.push(lhs ? input(4) : 0, lhs ? input(5) : 0, pairs, matricesOf(w), lhs ? matricesOf(x) : 1, rows);
  return { steps: [{ entry: "quantized/qvm", args: words, units: pairs * Math.ceil(M / rows) * (N / 32), grain: grainOf(32 * K * rows, 100_000) }] };
}

/** Rows times the packed [N, K] of their expert: indices are inputs 4 (into x) and 5 (into w). */
export function launchGather(inputs: readonly View[], [out]: readonly View[], p: ProductParams): Launch {
  const [x, w, , , lhs] = inputs as readonly [View, View, View, View, View];
  const K = last(x);
  const M = secondLast(x);
  const N = last(out as View);
  const experts = matricesOf(w);
  const pairs = lhs.size;
  const most = Math.min(pairs, experts);
  const prepared = prepareStep(x, planesOf(out as View), p, false);
  // Blocks of about 128 KB of weights, as two streams.
  const columns = Math.min((N + 3) & ~3, 4 * grainOf((K * p.bits) / 2, 131072));
  const plan: Step = { entry: "quantized/gatherPlan", args: [input(4), input(5), scratch(1), pairs, experts, matricesOf(x), M], units: 1, grain: 1 };
  const args = [...commonWords(inputs, out as View, p, rowsOf(x), N, K), scratch(1), most, columns];
  const product: Step = { entry: "quantized/gatherQmv", args, units: most * Math.ceil(N / columns), grain: 1 };
  return launchPrepared(prepared, [plan, product], [16 + 16 * most + 8 * pairs * M + 4 * experts]);
}

/** Packing of groups; outputs are words, scales, biases. */
export function launchQuantize([w]: readonly View[], _outputs: readonly View[], { groupSize, bits }: Packing): Launch {
  const x = w as View;
  return {
    steps: [{ entry: "quantized/quantize", args: [input(0), output(0), output(1), output(2), groupSize, bits, x.dtype.code], units: x.size / groupSize, grain: grainOf(groupSize, 8192) }],
  };
}

export function launchDequantize(inputs: readonly View[], [out]: readonly View[], { groupSize, bits }: Packing): Launch {
  const [, scales] = inputs as readonly [View, View, View];
  const o = out as View;
  return {
    steps: [{ entry: "quantized/dequantize", args: [input(0), input(1), input(2), output(0), groupSize, bits, scales.dtype.code, o.dtype.code], units: o.size / 32, grain: 512 }],
  };
}
