/** Samples of the dense products. */
import type { Dtype } from "../../src/core/dtype.ts";
import { bfloat16, float16, float32, float64, int32, uint32 } from "../../src/core/dtype.ts";
import type * as family from "../../src/ops/matmul.ts";
import type { Layout, Sample } from "../helpers/check.ts";
import { tensor } from "../helpers/check.ts";

/**
 * Elements lie in -2 .. 2, so a sum of K products has terms up to 4; float32 additions of them err like a random walk of K^1.5 units of 4 * 2^-24.
 * Where that crosses the middle between two bfloat16, result and oracle differ by one unit in the last place, 2^-7.
 */
const tolerance = (K: number, dtype: Dtype = float32) => ({
  atol: (dtype === float64 ? 2 ** -53 : 2 ** -24) * 4 * (K + 1) ** 1.5 + (dtype === float16 ? 2 ** -24 : 0),
  ...(dtype === bfloat16 ? { rtol: 2 ** -7 } : {}),
});
const K = (shape: readonly number[]): number => shape[shape.length - 1] ?? 1;

const product = (a: readonly number[], b: readonly number[], dtype: Dtype = float32, la: Layout = "row", lb: Layout = "row"): Sample => ({
  args: [tensor(a, { dtype, layout: la }), tensor(b, { dtype, layout: lb, seed: 2 })],
  tolerance: tolerance(K(a), dtype),
});

const shapes: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[3], [3]], [[5], [5, 4]], [[4, 5], [5]], [[2, 3, 5], [5]], [[5], [2, 5, 3]], [[1, 1], [1, 1]], [[1, 64], [64, 96]], [[2, 33], [33, 17]], [[11, 20], [20, 70]], [[12, 256], [256, 8]],
  [[13, 257], [257, 9]], [[64, 16], [16, 3]], [[25, 8], [8, 1]], [[3, 7, 9], [9, 5]], [[2, 1, 4, 6], [3, 6, 5]], [[3, 1, 16], [3, 16, 12]], [[14, 5], [3, 5, 8]], [[2, 2, 7, 3], [2, 2, 3, 7]],
  [[0, 4], [4, 3]], [[3, 0], [0, 4]], [[2, 4], [4, 0]], [[0, 3, 4], [4, 2]], [[0], [0]],
];
const layouts: readonly (readonly [Layout, Layout])[] = [["row", "transposed"], ["transposed", "row"], ["transposed", "transposed"], ["sliced", "sliced"], ["reversed", "reversed"], ["broadcast", "row"], ["row", "broadcast"]];

const matmul: Sample[] = [
  ...shapes.map(([a, b]) => product(a, b)),
  ...layouts.flatMap(([la, lb]) => [[[1, 40], [40, 35]], [[7, 40], [40, 35]], [[20, 40], [40, 35]], [[2, 20, 40], [2, 40, 35]]].map(([a, b]) => product(a as number[], b as number[], float32, la, lb))),
  ...[bfloat16, float16, float64].flatMap((d) => [product([1, 64], [64, 66], d, "row", "transposed"), product([1, 64], [64, 66], d), product([3, 50], [50, 20], d), product([20, 300], [300, 19], d, "row", "transposed"), product([2, 13, 9], [2, 9, 8], d)]),
  { args: [tensor([4, 6], { dtype: bfloat16 }), tensor([6, 3], { dtype: float32, seed: 2 })], tolerance: tolerance(6) },
  { args: [tensor([4, 6], { dtype: int32 }), tensor([6, 3], { seed: 2 })], tolerance: tolerance(24) },
];

const addend = (c: readonly number[], a: readonly number[], b: readonly number[], alpha?: number, beta?: number, dtype: Dtype = float32, layout: Layout = "row"): Sample => ({
  args: [tensor(c, { dtype, layout, seed: 3 }), tensor(a, { dtype }), tensor(b, { dtype, seed: 2, layout: "transposed" }), ...(alpha === undefined ? [] : [alpha, beta])],
  tolerance: tolerance(K(a) + 1, dtype),
});
const addmm: Sample[] = [
  addend([20, 9], [20, 30], [30, 9]), addend([9], [20, 30], [30, 9]), addend([20, 1], [20, 30], [30, 9]), addend([], [20, 30], [30, 9]), addend([1, 9], [20, 30], [30, 9], 0.5, -2),
  addend([9], [1, 30], [30, 9], 2, 0.25), addend([5, 9], [5, 30], [30, 9], 2, 0.25), addend([2, 20, 9], [2, 20, 30], [30, 9]), addend([2, 1, 9], [2, 20, 30], [2, 30, 9]), addend([9], [30], [30, 9]),
  addend([20], [20, 30], [30]), addend([20, 9], [20, 30], [30, 9], 1, 0), addend([20, 9], [20, 0], [0, 9], 1, 3), addend([20, 9], [20, 30], [30, 9], 1, 1, float32, "transposed"), addend([40, 3], [40, 30], [30, 3], 1.5, 0.5),
  addend([20, 9], [20, 30], [30, 9], 0.5, 0.5, bfloat16), addend([9], [1, 30], [30, 9], 0.5, 0.5, float16), addend([20, 9], [20, 30], [30, 9], 0.5, 0.5, float64),
];

const indices = (shape: readonly number[], values: readonly number[], dtype: Dtype = uint32) => tensor(shape, { dtype, values });
const gathered = (a: readonly number[], b: readonly number[], left: unknown, right: unknown, dtype: Dtype = float32, layout: Layout = "row"): Sample => ({
  args: [tensor(a, { dtype }), tensor(b, { dtype, seed: 2, layout }), left, right],
  tolerance: tolerance(K(a), dtype),
});
const gatherMM: Sample[] = [
  gathered([4, 3, 8], [5, 8, 6], indices([3], [0, 2, 3]), indices([3], [4, 4, 1])), gathered([3, 8], [5, 8, 6], undefined, indices([4], [4, 0, 1, 1])), gathered([6, 1, 8], [5, 8, 6], undefined, indices([6], [4, 0, 1, 1, 2, 3])),
  gathered([2, 3, 1, 1, 16], [4, 16, 12], undefined, indices([2, 3, 2], [3, 0, 1, 2])), gathered([4, 1, 8], [2, 8, 6], indices([2, 1], [3, 1]), undefined), gathered([4, 2, 8], [2, 8, 6], indices([5], [3, 1, 2, 0, 0], int32), indices([5], [0, 1, 1, 0, 1], int32)),
  gathered([48, 1, 16], [4, 16, 12], undefined, indices([48], [0, 0, 0, 1, 1, 3, 3, 2])), gathered([2, 2, 14, 8], [3, 8, 10], indices([2], [3, 0]), indices([2], [2, 1])), gathered([4, 3, 8], [5, 8, 6], undefined, indices([4], [4, 3, 2, 0])),
  gathered([6, 1, 40], [5, 40, 6], undefined, indices([6], [4, 0, 1, 1, 2, 3]), bfloat16), gathered([6, 1, 40], [5, 40, 6], undefined, indices([6], [4, 0, 1, 1, 2, 3]), float16), gathered([6, 15, 40], [5, 40, 6], undefined, indices([6], [4, 0, 1, 1, 2, 3]), bfloat16),
];

export const samples = {
  matmul,
  addmm,
  gatherMM,
  inner: [product([4], [4]), product([2, 3, 4], [5, 4]), product([], [3, 2]), product([3, 4], [4])],
  outer: [product([3], [4]), product([2, 3], [4]), product([0], [4]), { args: [tensor([3], { dtype: int32 }), tensor([4], { dtype: int32 })] }],
  tensordot: [
    { args: [tensor([3, 4, 5]), tensor([4, 5, 6])], tolerance: tolerance(20) },
    { args: [tensor([3, 4, 5]), tensor([5, 6]), 1], tolerance: tolerance(5) },
    { args: [tensor([3, 4]), tensor([5, 6]), 0], tolerance: tolerance(1) },
    { args: [tensor([3, 4, 5]), tensor([5, 4, 2]), [[1, 2], [1, 0]]], tolerance: tolerance(20) },
    { args: [tensor([3, 4, 5]), tensor([5, 4, 2]), [-1, 0]], tolerance: tolerance(5) },
  ],
  kron: [product([2, 3], [3, 2]), product([3], [2, 2]), product([2, 2, 2], [3])],
} satisfies Record<keyof typeof family, Sample[]>;
