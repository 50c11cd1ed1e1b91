/** Samples of the reductions, argmax and argmin. */
import { type Dtype, bfloat16, bool, complex64, dtypes, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8 } from "../../src/core/dtype.ts";
import type * as argreduce from "../../src/ops/argreduce.ts";
import type * as reduce from "../../src/ops/reduce.ts";
import { type Layout, type Sample, type TensorOptions, tensor } from "../helpers/check.ts";

const real = dtypes.filter((d) => d !== complex64);
const inf = Number.POSITIVE_INFINITY;
const lay = (layout: Layout, dtype: Dtype = float32): TensorOptions => ({ layout, dtype });

/** Shapes at the edges of vectors, blocks, chunks (rows of 16384, columns of 512) and folds, over every kind of axis set. */
const places: Sample[] = [
  { args: [tensor([])] },
  { args: [tensor([1])] },
  { args: [tensor([7])] },
  { args: [tensor([2, 3])], name: "all axes" },
  { args: [tensor([2, 3]), true], name: "keepdims in the axis's place" },
  { args: [tensor([2, 3]), null, true] },
  { args: [tensor([2, 3]), []], name: "no axes" },
  { args: [tensor([3, 16]), 1] },
  { args: [tensor([3, 17]), -1, true] },
  { args: [tensor([4, 5]), 0] },
  { args: [tensor([9, 33]), 0, true] },
  { args: [tensor([3, 4, 5]), 1] },
  { args: [tensor([3, 4, 5]), [0, 2]], name: "axes 0 and 2" },
  { args: [tensor([3, 4, 5]), [2, 0], true] },
  { args: [tensor([2, 3, 4, 5]), [0, 2]] },
  { args: [tensor([2, 3, 4, 5]), [1, 3]] },
  { args: [tensor([1, 3, 1, 5]), [0, 2]], name: "axes of size 1" },
  { args: [tensor([16385])], name: "two chunks" },
  { args: [tensor([2, 40000]), 1] },
  { args: [tensor([513, 40]), 0] },
  { args: [tensor([2, 1100, 33]), 1] },
  { args: [tensor([2, 640, 3]), 1], name: "short rows, folded" },
  { args: [tensor([70, 2]), 0] },
  { args: [tensor([67, 3]), 0], name: "short rows of an odd count" },
  { args: [tensor([5, 600]), 0] },
  { args: [tensor([4, 6], lay("transposed")), 0] },
  { args: [tensor([4, 6], lay("transposed")), 1] },
  { args: [tensor([4, 5, 6], lay("transposed")), [0, 1]] },
  { args: [tensor([4, 5, 6], lay("transposed")), 1] },
  { args: [tensor([4, 6], lay("sliced")), 1] },
  { args: [tensor([4, 6], lay("reversed")), 0] },
  { args: [tensor([4, 6], lay("broadcast")), 0] },
];
const everyDtype = (options: (d: Dtype) => TensorOptions, kinds: readonly Dtype[] = real): Sample[] =>
  kinds.flatMap((d) => [[7, 37], [37]].flatMap((shape) => [0, -1].map((axis) => ({ args: [tensor(shape, { ...options(d), dtype: d }), axis] }))));
const empty: Sample[] = [{ args: [tensor([0])] }, { args: [tensor([0, 3]), 0] }, { args: [tensor([2, 0]), 1] }, { args: [tensor([2, 0]), 0] }, { args: [tensor([0, 3]), 1] }];
const nonFinite: Sample[] = [
  { args: [tensor([3, 20], { values: [1, 2, Number.NaN, 3, 4, 5, 6] }), 1] },
  { args: [tensor([3, 21], { values: [1, inf, 2, 3, 4, -inf, 5, 6] }), 0] },
  { args: [tensor([40], { values: [1, -inf, 2] })] },
  { args: [tensor([5, 33], { dtype: float16, values: [1, Number.NaN, 2, 3, 4, 5, 6, 7] }), 1] },
];
/** Terms lie in -2 .. 2; a chain of passes adds at most about 100 in a row, each erring by half an ulp of a partial sum. */
const sums = (list: Sample[]): Sample[] => list.map((s) => ({ tolerance: { atol: 2e-4 }, ...s }));

export const reduceSamples: Record<keyof typeof reduce, Sample[]> = {
  sum: [...sums(places), ...sums(everyDtype(() => ({}))), ...empty, ...nonFinite.map((s) => ({ ...s, tolerance: { rtol: 1e-3 } })),
    { args: [tensor([6, 5], { dtype: complex64 }), 0] }, { args: [tensor([6, 5], { dtype: complex64 }), 1] }, { args: [tensor([6, 5], { dtype: complex64 })] },
    { args: [tensor([300], { dtype: int8, values: [127] })], name: "int8 does not wrap" }, { args: [tensor([300], { dtype: uint8, values: [255] })] }, { args: [tensor([3], { dtype: int32, values: [2 ** 31 - 1] })], name: "int32 wraps" },
    { args: [tensor([5000], { dtype: bfloat16, values: [1] })], name: "bfloat16 counts beyond 256" }, { args: [tensor([40, 513], { dtype: float16 }), 1], tolerance: { atol: 1e-3 } }, { args: [tensor([20000], { dtype: float16, low: 0, high: 1 })] }],
  prod: [...places.filter((s) => (s.args[0] as { shape: number[] }).shape.reduce((a, b) => a * b, 1) < 300).map((s) => ({ ...s, tolerance: { rtol: 1e-5 } })), ...everyDtype((d) => (d.isFloat ? { low: 0.9, high: 1.1 } : { low: 1, high: 2 })).map((s) => ({ ...s, tolerance: { rtol: 2 ** -7 } })), ...empty,
    { args: [tensor([2, 9], { dtype: int8, low: -3, high: 4 }), 1] }, { args: [tensor([2, 12], { dtype: uint32, low: 0, high: 6 }), 0] }, ...nonFinite.slice(0, 1)],
  max: [...places, ...everyDtype(() => ({})), ...nonFinite, { args: [tensor([40], { dtype: int8, values: [-128, -7] })] }, { args: [tensor([40], { dtype: uint64, values: [3, 2 ** 52] })] }, { args: [tensor([40], { dtype: int64, values: [-(2 ** 52), -5] })] }],
  min: [...places, ...everyDtype(() => ({})), ...nonFinite, { args: [tensor([40], { dtype: int8, values: [-128, 7] })] }, { args: [tensor([40], { dtype: uint64, values: [3, 2 ** 52] })] }, { args: [tensor([40], { dtype: uint32, values: [2 ** 32 - 1, 2 ** 31] })] }],
  all: [...places, ...everyDtype(() => ({ values: [1, 2, 3, 0, 4, 1, 1, 1, 1, 1, 1] }), dtypes), ...everyDtype(() => ({ values: [1] }), dtypes), ...empty, ...nonFinite],
  any: [...places, ...everyDtype(() => ({ values: [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0] }), dtypes), ...everyDtype(() => ({ values: [-0] }), dtypes), ...empty, ...nonFinite],
  mean: [...sums(places), ...everyDtype(() => ({})).map((s) => ({ ...s, tolerance: { atol: 1e-5 } })), ...empty, { args: [tensor([300, 3], { dtype: float16, values: [60000] }), 0], name: "float16 does not overflow" }, { args: [tensor([4, 3], { dtype: complex64 }), 0] }],
  variance: [...places.map((s) => ({ ...s, tolerance: { atol: 1e-4 } })), { args: [tensor([4, 9]), 1, false, 1] }, { args: [tensor([4, 9]), 0, true, 2] }, { args: [tensor([4, 1]), 1, false, 1], name: "ddof equals n" }, { args: [tensor([4, 9], { dtype: int32 }), 1] },
    { args: [tensor([4, 9], { dtype: float16, low: 200, high: 900 }), 1], tolerance: { rtol: 2 ** -9 } }, { args: [tensor([4, 9], { dtype: bfloat16 }), 1] }, { args: [tensor([4, 9], { dtype: float64 }), 1] }],
  std: [{ args: [tensor([4, 9])], tolerance: { atol: 1e-5 } }, { args: [tensor([4, 9]), 1, true, 1], tolerance: { atol: 1e-5 } }, { args: [tensor([4, 9], { dtype: bool }), 0], tolerance: { atol: 1e-5 } }, { args: [tensor([4, 9], { dtype: float16 }), 0], tolerance: { atol: 1e-3 } }],
};

const argSamples: Sample[] = [
  ...places.filter((s) => s.args.length < 2 || typeof s.args[1] === "number" || typeof s.args[1] === "boolean" || s.args[1] === null),
  ...everyDtype((d) => (d.isFloat ? {} : { low: 0, high: 6 })),
  ...[float32, bfloat16, float16, float64, int32, uint8].map((d) => ({ args: [tensor([2, 40000], { dtype: d }), 1] })),
  ...[int16, uint16, uint64].map((d) => ({ args: [tensor([3, 300, 5], { dtype: d }), 1] })),
  { args: [tensor([40], { values: [1, 1, 5, 5] })], name: "the first of equals" },
  { args: [tensor([100], { values: [-inf] })] },
  { args: [tensor([100], { values: [1, Number.NaN, 2] })], name: "NaN is passed over" },
  { args: [tensor([3, 33], { values: [Number.NaN, 2, 1] })] },
];
export const argreduceSamples: Record<keyof typeof argreduce, Sample[]> = { argmax: argSamples, argmin: argSamples };
