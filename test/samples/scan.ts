/** Samples of the scans. */
import { type Dtype, bfloat16, bool, complex64, dtypes, float16, float32, float64, int32, int8, uint16 } from "../../src/core/dtype.ts";
import type * as scan from "../../src/ops/scan.ts";
import { type Sample, type TensorOptions, tensor } from "../helpers/check.ts";

const inf = Number.POSITIVE_INFINITY;
const real = dtypes.filter((d) => d !== complex64);
const places: Sample[] = [
  { args: [tensor([])] },
  { args: [tensor([9])] },
  { args: [tensor([3, 4])], name: "flattened" },
  { args: [tensor([3, 40]), 1] },
  { args: [tensor([40, 3]), 0] },
  { args: [tensor([3, 7, 300]), 1] },
  { args: [tensor([3, 9]), -1, true] },
  { args: [tensor([3, 9]), 1, false, false] },
  { args: [tensor([3, 9]), 0, true, false] },
  { args: [tensor([3, 5, 4]), 1, true, true] },
  { args: [tensor([0, 3]), 1] },
  { args: [tensor([3, 0]), 1] },
  { args: [tensor([4, 6], { layout: "transposed" }), 0] },
  { args: [tensor([4, 6], { layout: "sliced" }), 1] },
  { args: [tensor([4, 6], { layout: "broadcast" }), 0] },
];
const everyDtype = (options: (d: Dtype) => TensorOptions = () => ({}), kinds: readonly Dtype[] = real): Sample[] => kinds.flatMap((d) => [1, 0].map((axis) => ({ args: [tensor([5, 11], { ...options(d), dtype: d }), axis, false, axis === 0] })));
const nonFinite: Sample[] = [{ args: [tensor([12], { values: [1, 2, Number.NaN, 3] }), 0] }, { args: [tensor([12], { values: [-inf, 2, inf, 3] }), 0] }];
// Elements lie in -2 .. 2, partial sums stay below 100: one rounding of float16 is below 2^-5, of bfloat16 covered by its rtol.
const sumTolerance = { atol: 1e-5 };

export const scanSamples: Record<keyof typeof scan, Sample[]> = {
  cumsum: [...[...places, ...everyDtype(), ...nonFinite].map((s) => ({ ...s, tolerance: sumTolerance })), { args: [tensor([9], { dtype: bool }), 0, false, true, float32] }, { args: [tensor([300], { dtype: int8, values: [100] }), 0], name: "int8 wraps" }, { args: [tensor([5, 4], { dtype: complex64 }), 0] }, { args: [tensor([5, 4], { dtype: complex64 }), 1, true] }],
  cumprod: [...places.slice(0, 5), ...everyDtype((d) => (d.isFloat ? {} : { low: 0, high: 3 })), ...nonFinite, { args: [tensor([9], { dtype: uint16, values: [50] }), 0, false, true, float32], name: "with a dtype", tolerance: { rtol: 1e-6 } }, { args: [tensor([12], { dtype: uint16, values: [7] }), 0], name: "uint16 wraps" }],
  cummax: [...places, ...everyDtype(), ...nonFinite],
  cummin: [...places, ...everyDtype(), ...nonFinite],
  logcumsumexp: [...places, ...everyDtype(undefined, [float32, float16, bfloat16, float64, int32]), { args: [tensor([30], { low: -200, high: 200 }), 0] }, ...nonFinite],
};
