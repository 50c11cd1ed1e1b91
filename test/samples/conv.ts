/** Samples of the convolutions. */
import type { Dtype } from "../../src/core/dtype.ts";
import { bfloat16, float16, float32, float64 } from "../../src/core/dtype.ts";
import type * as family from "../../src/ops/conv.ts";
import type { Layout, Sample } from "../helpers/check.ts";
import { tensor } from "../helpers/check.ts";

/** As for products: K terms up to 4, whose float32 sum errs like a random walk, and one rounding into the result's type. */
const tolerance = (K: number, dtype: Dtype = float32) => ({
  atol: (dtype === float64 ? 2 ** -53 : 2 ** -24) * 4 * (K + 1) ** 1.5 + (dtype === float16 ? 2 ** -24 : 0),
  ...(dtype === bfloat16 ? { rtol: 2 ** -7 } : {}),
});
const size = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
interface Options {
  dtype?: Dtype;
  layout?: Layout;
  weightLayout?: Layout;
}
const sample = (x: readonly number[], w: readonly number[], rest: readonly unknown[] = [], { dtype = float32, layout = "row", weightLayout = "row" }: Options = {}): Sample => ({
  args: [tensor(x, { dtype, layout }), tensor(w, { dtype, seed: 2, layout: weightLayout }), ...rest],
  tolerance: tolerance(size(w.slice(1)), dtype),
});
const halves = [bfloat16, float16];
const u = undefined;

const conv1d: Sample[] = [
  sample([1, 8, 3], [5, 3, 3]), sample([2, 13, 4], [6, 4, 4], [2, 1]), sample([1, 1, 1], [1, 1, 1]), sample([2, 30, 1], [1, 5, 1]), sample([2, 9, 5], [7, 3, 5], [1, 2, 2]), sample([3, 7, 2], [4, 1, 2]), sample([3, 7, 2], [4, 1, 2], [2]),
  sample([1, 12, 8], [8, 3, 4], [1, 1, 1, 2]), sample([1, 12, 12], [12, 3, 1], [1, 1, 1, 12]), sample([2, 50, 21], [21, 4, 1], [1, 3, 1, 21]), sample([1, 20, 40], [40, 7, 1], [3, 2, 2, 40]), sample([1, 12, 4], [8, 3, 1], [1, 0, 1, 4]), sample([1, 12, 3], [3, 3, 1], [1, 0, 1, 3]),
  sample([2, 10, 6], [9, 3, 6], [1, -1]), sample([0, 8, 3], [5, 3, 3]), sample([1, 8, 3], [0, 3, 3]), sample([1, 8, 0], [2, 3, 0]), sample([1, 5, 40], [33, 5, 40]),
  ...(["transposed", "sliced", "reversed", "broadcast"] as const).flatMap((layout) => [sample([2, 11, 6], [5, 3, 6], [1, 1], { layout, weightLayout: layout }), sample([2, 11, 6], [6, 3, 1], [1, 1, 1, 6], { layout, weightLayout: layout }), sample([2, 11, 6], [5, 1, 6], [], { layout, weightLayout: layout })]),
  ...halves.flatMap((dtype) => [sample([2, 13, 9], [6, 3, 9], [2, 1], { dtype }), sample([2, 13, 9], [9, 3, 1], [2, 1, 1, 9], { dtype }), sample([2, 13, 9], [6, 3, 3], [2, 1, 1, 3], { dtype }), sample([2, 13, 9], [6, 1, 9], [], { dtype })]),
  sample([2, 13, 9], [6, 3, 9], [2, 1], { dtype: float64 }), sample([2, 13, 9], [9, 3, 1], [2, 1, 2, 9], { dtype: float64 }),
  { args: [tensor([1, 6, 2], { dtype: float16 }), tensor([3, 2, 2], { seed: 2 })], tolerance: tolerance(4) },
  { args: [tensor([1, 6, 2]), tensor([3, 2, 2], { dtype: bfloat16, seed: 2 })], tolerance: tolerance(4) },
];
const conv2d: Sample[] = [
  sample([1, 5, 5, 3], [4, 3, 3, 3]), sample([2, 8, 7, 3], [17, 3, 3, 3], [1, 1]), sample([2, 9, 9, 5], [6, 3, 2, 5], [[2, 1], [0, 2]]), sample([1, 12, 12, 4], [8, 3, 3, 4], [1, 2, 2]), sample([1, 11, 12, 4], [8, 3, 3, 4], [2, [1, 2], [2, 1]]), sample([2, 6, 6, 16], [24, 1, 1, 16]),
  sample([2, 7, 6, 16], [24, 1, 1, 16], [2]), sample([1, 8, 8, 3], [12, 4, 4, 3], [4]), sample([1, 10, 10, 64], [70, 3, 3, 64], [1, 1]), sample([2, 6, 7, 12], [8, 3, 3, 3], [1, 1, 1, 4]), sample([2, 6, 7, 12], [16, 3, 3, 3], [1, 1, 1, 4]), sample([1, 9, 8, 20], [20, 3, 3, 1], [1, 1, 1, 20]),
  sample([1, 9, 8, 20], [20, 3, 3, 1], [2, [1, 3], [1, 2], 20]), sample([1, 3, 3, 8], [8, 3, 3, 1], [1, 4, 1, 8]), sample([1, 3, 3, 2], [3, 3, 3, 2], [1, 4]), sample([1, 6, 6, 2], [3, 6, 6, 2]), sample([2, 5, 5, 1], [1, 3, 3, 1], [1, 1]),
  ...halves.flatMap((dtype) => [sample([2, 7, 7, 5], [6, 3, 3, 5], [1, 1], { dtype }), sample([2, 7, 7, 17], [17, 3, 3, 1], [1, 1, 1, 17], { dtype })]),
  sample([2, 5, 5, 3], [4, 3, 3, 3], [1, 1], { dtype: float64 }), sample([2, 7, 6, 8], [6, 3, 3, 8], [1, 1], { layout: "transposed", weightLayout: "transposed" }),
];
const conv3d: Sample[] = [
  sample([1, 4, 5, 6, 3], [4, 2, 3, 3, 3]), sample([2, 5, 5, 5, 2], [5, 3, 3, 3, 2], [2, 1]), sample([1, 4, 6, 6, 4], [3, 1, 1, 1, 4]), sample([1, 6, 7, 8, 2], [3, 2, 3, 2, 2], [[1, 2, 3], [1, 0, 2], [2, 1, 1]]), sample([1, 4, 5, 6, 3], [4, 2, 3, 3, 3], [], { dtype: bfloat16 }),
];
const convGeneral: Sample[] = [
  sample([2, 9, 4], [5, 3, 4], [2, [[1], [3]], 2, 3, 1, false]), sample([2, 9, 4], [5, 3, 4], [1, [[1], [3]], 1, 1, 1, true]), sample([2, 9, 4], [4, 3, 1], [1, 1, 2, 1, 4, true]), sample([2, 9, 4], [4, 3, 1], [1, 1, 2, 2, 4, true]), sample([1, 6, 7, 3], [4, 3, 2, 3], [[1, 2], [[1, 0], [2, 3]], [1, 2], [2, 1], 1, true]),
  sample([1, 6, 7, 4], [4, 3, 2, 2], [[1, 2], [[-1, 0], [2, -2]], [1, 2], [2, 3], 2]), sample([1, 4, 4, 5, 2], [3, 2, 2, 2, 2], [1, 1, 1, 2, 1, true]), sample([1, 6, 2], [3, 2, 2]), sample([1, 6, 2], [3, 2, 2], [1, [1], [2], [1]]), sample([2, 6, 5], [3, 1, 5], [1, 0, 1, 3, 1, true]),
];
const convTranspose1d: Sample[] = [
  sample([1, 5, 3], [4, 3, 3]), sample([2, 7, 4], [6, 4, 4], [2, 1]), sample([2, 7, 4], [6, 4, 4], [3, 0, 2, 1, 2]), sample([2, 7, 6], [6, 3, 2], [2, 1, 1, 3, 1]), sample([2, 7, 8], [8, 3, 1], [2, 1, 1, 8]), sample([2, 7, 8], [8, 3, 1], [1, 1, 1, 8]), sample([1, 5, 3], [4, 3, 3], [1, 3]),
  ...halves.map((dtype) => sample([2, 7, 4], [6, 4, 4], [2, 1], { dtype })),
];
const convTranspose2d: Sample[] = [
  sample([1, 4, 5, 3], [4, 3, 3, 3]), sample([2, 4, 4, 8], [6, 4, 4, 8], [2, 1]), sample([1, 4, 5, 3], [4, 3, 2, 3], [[2, 3], [1, 0], [1, 2], 1, [1, 2]]), sample([1, 4, 5, 6], [6, 3, 3, 2], [2, 1, 1, 3]), sample([2, 6, 6, 4], [3, 2, 2, 4], [2]),
];
const convTranspose3d: Sample[] = [sample([1, 3, 3, 4, 2], [3, 2, 3, 3, 2], [2, 1, 1, 1, 1]), sample([1, 3, 3, 4, 2], [3, 2, 3, 3, 2])];

const line = (a: number, b: number, mode?: string, dtype: Dtype = float32, layout: Layout = "row"): Sample => ({
  args: [tensor([a], { dtype, layout }), tensor([b], { dtype, seed: 2, layout }), ...(mode === u ? [] : [mode])],
  tolerance: tolerance(Math.min(a, b), dtype),
});
const convolve: Sample[] = [
  line(7, 3), ...["full", "same", "valid"].flatMap((mode) => [line(9, 4, mode), line(4, 9, mode), line(9, 5, mode), line(6, 6, mode), line(1, 1, mode), line(100, 37, mode), line(12, 5, mode, float16), line(12, 4, mode, float64), line(12, 4, mode, float32, "reversed")]),
];

export const samples = { conv1d, conv2d, conv3d, convGeneral, convTranspose1d, convTranspose2d, convTranspose3d, convolve } satisfies Record<keyof typeof family, Sample[]>;
