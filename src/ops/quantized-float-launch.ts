/** Work of the products with matrices of small floats, as data for assembly/templates/quantfloat.ts. */
import type { View } from "../core/array.ts";
import { float32 } from "../core/dtype.ts";
import { type Arg, type Choices, type Kernel, type Launch, type Step, type Tunables, input, output, scratch } from "../core/op.ts";
import { type FloatMode, modeCodes, modeDefaults } from "./quantized-float.ts";
import { type Packing, type ProductParams, evenGrain, grainOf, last, matricesOf, rowTunables, rowsOf, secondLast } from "./quantized-launch.ts";

const modeOf = (p: Packing): FloatMode => p.mode as FloatMode;
const planesOf = (out: View): 2 | 3 => (out.dtype === float32 ? 3 : 2);
const blocksOf = (K: number): number => Math.ceil(K / 32);
/** Longest rows that fit a thread's scratch area: with their scales and as float32; as a panel of 8 float32 rows. */
const longestRow = 1 << 19;
const longestPanelRow = 120_000;
/** Rows of x up to which decoding the codes for every row of x beats decoding them once into panels of floats. */
const fewRows = (mode: FloatMode): number => (mode === "mxfp8" ? 3 : 8);

/** x in the form that the mode's kernels for few rows read: integers for codes of 4 bits, else padded float32. */
function prepareStep(x: View, out: View, mode: FloatMode): { step: Step; bytes: number; key: string } {
  const [K, M] = [last(x), rowsOf(x)];
  if (mode === "mxfp8") return floatsStep(x, true);
  const planes = planesOf(out);
  const blocks = blocksOf(K);
  return {
    step: { entry: "quantfloat/prepare4", args: [input(0), scratch(0), M, K, x.dtype.code, planes], units: M, grain: grainOf(K, 16384) },
    bytes: M * (blocks * ((planes === 2 ? 80 : 128) + 4) + 4),
    key: `quantfloat ${planes}`,
  };
}
/** x as padded float32; `split`: of every 8 values the even ones first. */
function floatsStep(x: View, split: boolean): { step: Step; bytes: number; key: string } {
  const [K, M] = [last(x), rowsOf(x)];
  return { step: { entry: "quantfloat/prepare32", args: [input(0), scratch(0), K, x.dtype.code, Number(split)], units: M, grain: grainOf(K, 16384) }, bytes: M * blocksOf(K) * 128, key: `quantfloat floats ${split}` };
}
/** Words that all kernels of products share. */
function commonWords(x: View, out: View, mode: FloatMode, M: number): Arg[] {
  return [input(1), input(2), input(0), scratch(0), output(0), M, last(out), last(x), modeCodes[mode], planesOf(out), x.dtype.code, out.dtype.code];
}
const launchPrepared = (prepared: { step: Step; bytes: number; key: string }, steps: readonly Step[], more: readonly number[] = []): Launch => ({
  steps: [prepared.step, ...steps],
  scratch: [prepared.bytes, ...more],
  shared: { steps: 1, scratch: [0], key: prepared.key },
});

/** As those of the affine kernels, for panels of float32. */
const panelTunables = { chunk: [200_000, 50_000, 100_000, 400_000, 800_000], block: [131072, 32768, 65536, 262144] } as const satisfies Tunables;

function launchQmv(inputs: readonly View[], [out]: readonly View[], p: ProductParams, choices?: Choices): Launch {
  const [x, o, mode] = [inputs[0] as View, out as View, modeOf(p)];
  const M = rowsOf(x);
  const units = (last(o) + 3) >> 2;
  const grain = evenGrain(units, grainOf((last(x) * p.bits * Math.max(1, M / 2)) / 2, choices?.["chunk"] ?? rowTunables.chunk[0]));
  return launchPrepared(prepareStep(x, o, mode), [{ entry: "quantfloat/qmv", args: commonWords(x, o, mode, M), units, grain }]);
}
function launchQmm(inputs: readonly View[], [out]: readonly View[], p: ProductParams, choices?: Choices): Launch {
  const [x, o, mode] = [inputs[0] as View, out as View, modeOf(p)];
  const [M, K] = [rowsOf(x), last(x)];
  // A block of x stays in a core's second-level cache while the panels pass.
  const rows = Math.min((M + 3) & ~3, Math.max(32, Math.floor((choices?.["block"] ?? panelTunables.block[0]) / K) & ~3));
  const units = Math.ceil(M / rows) * ((last(o) + 7) >> 3);
  return launchPrepared(floatsStep(x, false), [{ entry: "quantfloat/qmm", args: [...commonWords(x, o, mode, M), rows], units, grain: evenGrain(units, grainOf(8 * K * rows, choices?.["chunk"] ?? panelTunables.chunk[0])) }]);
}
/** Rows times [K, N], for one matrix or, with indices as inputs 3 and 4, for one of several per pair. */
function launchQvm(inputs: readonly View[], [out]: readonly View[], p: ProductParams): Launch {
  const [x, w, , lhs] = inputs as readonly [View, View, View, View?];
  const [o, mode] = [out as View, modeOf(p)];
  const M = lhs ? secondLast(x) : rowsOf(x);
  const pairs = lhs ? lhs.size : 1;
  const rows = Math.min(M, 128);
  const args = [...commonWords(x, o, mode, M)];
  // qvm reads x as it is.
  args[3] = 0;
  args.push(lhs ? input(3) : 0, lhs ? input(4) : 0, pairs, matricesOf(w), lhs ? matricesOf(x) : 1, rows);
  return { steps: [{ entry: "quantfloat/qvm", args, units: pairs * Math.ceil(M / rows) * blocksOf(last(o)), grain: grainOf(32 * last(x) * rows, 100_000) }] };
}
/** Rows times the [N, K] that indices choose: inputs 3 (into x) and 4 (into w). */
function launchGather(inputs: readonly View[], [out]: readonly View[], p: ProductParams): Launch {
  const [x, w, , lhs] = inputs as readonly [View, View, View, View];
  const [o, mode] = [out as View, modeOf(p)];
  const [K, M, N] = [last(x), secondLast(x), last(o)];
  const experts = matricesOf(w);
  const pairs = lhs.size;
  const most = Math.min(pairs, experts);
  // Blocks of about 128 KB of codes, as two streams.
  const columns = Math.min((N + 3) & ~3, 4 * grainOf((K * p.bits) / 2, 131072));
  const plan: Step = { entry: "quantized/gatherPlan", args: [input(3), input(4), scratch(1), pairs, experts, matricesOf(x), M], units: 1, grain: 1 };
  const product: Step = { entry: "quantfloat/gatherQmv", args: [...commonWords(x, o, mode, rowsOf(x)), scratch(1), most, columns], units: most * Math.ceil(N / columns), grain: 1 };
  return launchPrepared(prepareStep(x, o, mode), [plan, product], [16 + 16 * most + 8 * pairs * M + 4 * experts]);
}

type Refuse = (M: number, K: number, mode: FloatMode) => string | undefined;
const kernel = (name: string, transpose: boolean, launch: Kernel<ProductParams>["launch"], refuse: Refuse, tune?: Tunables): Kernel<ProductParams> => ({
  name: `wasm/quantfloat/${name}`,
  ...(tune ? { tune } : {}),
  gate: {
    refuse: ([x], p) => {
      if (!p.mode) return "cannot: the quantization is affine";
      if (p.transpose !== transpose) return transpose ? "cannot: the weights are not transposed" : "cannot: the weights are transposed";
      return refuse(rowsOf(x as View), last(x as View), p.mode);
    },
  },
  launch,
});
const tooLong = (K: number, longest: number): string | undefined => (K > longest ? `cannot: rows longer than ${longest}` : undefined);
const qvm = kernel("qvm", false, launchQvm, () => undefined);

/** Kernels of quantizedMatmul and of gatherQMM for the modes of small floats. */
export const floatProductKernels: readonly Kernel<ProductParams>[] = [
  kernel("qmv", true, launchQmv, (M, K, mode) => tooLong(K, longestRow) ?? (M > fewRows(mode) && K <= longestPanelRow ? `slower: more than ${fewRows(mode)} rows` : undefined), rowTunables),
  kernel("qmm", true, launchQmm, (_M, K) => tooLong(K, longestPanelRow), panelTunables),
  qvm,
];
export const floatGatherKernels: readonly Kernel<ProductParams>[] = [kernel("gatherQmv", true, launchGather, (_M, K) => tooLong(K, longestRow)), qvm];

/** Groups to codes and scales; a global scale is input 1. */
export function launchFloatQuantize([w, global]: readonly View[], _outputs: readonly View[], p: Packing): Launch {
  const [x, mode] = [w as View, modeOf(p)];
  const { groupSize } = modeDefaults[mode];
  return {
    steps: [{ entry: "quantfloat/quantize", args: [input(0), output(0), output(1), global ? input(1) : 0, modeCodes[mode], x.dtype.code], units: x.size / groupSize, grain: grainOf(groupSize, 8192) }],
  };
}
/** Codes and scales to values; a global scale is input 2. */
export function launchFloatDequantize([, , global]: readonly View[], [out]: readonly View[], p: Packing): Launch {
  const [o, mode] = [out as View, modeOf(p)];
  const { groupSize } = modeDefaults[mode];
  return {
    steps: [{ entry: "quantfloat/dequantize", args: [input(0), input(1), global ? input(2) : 0, output(0), modeCodes[mode], o.dtype.code], units: o.size / groupSize, grain: grainOf(groupSize, 16384) }],
  };
}
