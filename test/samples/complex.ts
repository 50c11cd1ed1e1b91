/** Samples of functions of complex64 arrays. */
import { bool, complex64, float16, float32, float64, int32 } from "../../src/core/dtype.ts";
import type { MxArray } from "../../src/core/array.ts";
import { type Sample, type TensorOptions, build, randomSource, tensor } from "../helpers/check.ts";
import { fromNumbers } from "../../src/ops/convert.ts";
import { view } from "../../src/ops/movement.ts";

/** An array of pairs; `layout` as in tensor. Random parts in `low` .. `high`, or these values repeated. */
export function complexArray(shape: readonly number[], options: TensorOptions = {}): MxArray {
  const { layout = "row", low = -2, high = 2, seed = 1, values } = options;
  const n = shape.reduce((a, b) => a * b, 1);
  const random = randomSource(seed * 31 + n);
  const data = Array.from({ length: 2 * n }, (_, i) => (values ? (values[i % values.length] as number) : low + (high - low) * random()));
  if (layout === "row" || shape.length === 0) return view(fromNumbers([...(shape.length ? shape.slice(0, -1) : []), 2 * (shape.at(-1) ?? 1)], float32, data), complex64).reshape([...shape]);
  // The layout of a float64 array, with the bytes of the pairs.
  const bytes = new Float64Array(new Float32Array(data).buffer);
  return view(build(tensor(shape, { dtype: float64, layout, values: Array.from(bytes) })), complex64);
}
const z = complexArray;
const layouts = ["transposed", "sliced", "reversed", "broadcast"] as const;

/** Samples of a function of one complex array. */
export const complexUnary = (range: TensorOptions = {}): Sample[] => [
  ...[[], [0], [1], [3], [4], [17], [2, 3, 5], [1100]].map((shape): Sample => ({ name: `(${shape})`, args: [z(shape, range)] })),
  ...layouts.map((layout): Sample => ({ name: layout, args: [z([4, 3, 7], { ...range, layout })] })),
];
/** Samples of a function of two arrays, one or both of which are complex. */
export const complexBinary = (): Sample[] => [
  ...[[], [1], [5], [17], [3, 4, 5], [1100]].map((shape): Sample => ({ name: `(${shape})`, args: [z(shape), z(shape, { seed: 2 })] })),
  ...layouts.map((layout): Sample => ({ name: layout, args: [z([4, 3, 7], { layout }), z([4, 3, 7], { seed: 2 })] })),
  { name: "rows", args: [z([4, 1, 7]), z([3, 1], { seed: 2 })] },
  ...[float32, float16, float64, int32, bool].map((dtype): Sample => ({ name: `with ${dtype}`, args: [z([3, 11]), tensor([11], { dtype, seed: 3 })] })),
  { name: "number", args: [z([9]), 2.5] },
  { name: "number first", args: [1.5, z([9])] },
  { name: "complex number with floats", args: [tensor([9]), { re: 1, im: -2 }] },
];
