/** Sets of samples that elementwise ops share. */
import { type Dtype, bfloat16, dtypes, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8 } from "../../src/core/dtype.ts";
import { type Sample, type TensorOptions, tensor } from "../helpers/check.ts";

export const floatTypes = [float32, bfloat16, float16, float64] as const;
export const integerTypes = [int8, int16, int32, int64, uint8, uint16, uint32, uint64] as const;
export const realTypes = dtypes.filter((d) => d.kind !== "complex");

const special = [0, -0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, 1e-6, -1e-6, 100, -100, 1e4, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
/** Values that every dtype holds as far as it can. */
const valuesFor = (d: Dtype): number[] => (d.isFloat ? special : d.kind === "signed" ? [0, 1, -1, 2, -2, 7, -7, 50, -100] : d.kind === "bool" ? [0, 1] : [0, 1, 2, 7, 50, 200]);

/** Results of 16-bit float math: one rounding; subnormal float16 results have an absolute step of 2^-24. */
const half = (d: Dtype, sample: Sample): Sample => (d === float16 ? { ...sample, tolerance: { atol: 2 ** -24, ...sample.tolerance } } : sample);

/** Samples of a function of one operand: sizes around the block of 4 and 16, layouts, all given dtypes with special values. */
export function unarySamples(types: readonly Dtype[], range: TensorOptions = {}, extra: readonly unknown[] = []): Sample[] {
  const first = types[0] as Dtype;
  return [
    ...[[], [0], [1], [3], [4], [17], [2, 3, 5], [1100]].map((shape) => ({ args: [tensor(shape, { dtype: first, ...range }), ...extra] })),
    ...(["transposed", "sliced", "reversed", "broadcast"] as const).map((layout) => ({ args: [tensor([4, 3, 7], { dtype: first, layout, ...range }), ...extra] })),
    ...types.map((dtype) => half(dtype, { name: `${dtype} special`, args: [tensor([21], { dtype, values: valuesFor(dtype) }), ...extra] })),
    ...types.map((dtype) => half(dtype, { name: `${dtype} random`, args: [tensor([2, 19], { dtype, seed: 5, ...(dtype.isInexact ? range : {}) }), ...extra] })),
  ];
}

/** Every value beside every other. */
function pairs(d: Dtype): [number[], number[]] {
  const v = valuesFor(d);
  return [v.flatMap((x) => v.map(() => x)), v.flatMap(() => v)];
}

/** Samples of a function of two operands: broadcasting, layouts, all given dtypes with all pairs of special values, mixed dtypes. */
export function binarySamples(types: readonly Dtype[], extra: readonly unknown[] = []): Sample[] {
  const first = types[0] as Dtype;
  const t = (shape: number[], options: TensorOptions = {}): unknown => tensor(shape, { dtype: first, ...options });
  const shapes: [number[], number[]][] = [[[], []], [[5], [5]], [[2, 3, 17], [17]], [[4, 1], [1, 9]], [[], [6]], [[3, 1, 5], [2, 1]], [[0, 3], [3]], [[7], [1]], [[2100], [2100]]];
  return [
    ...shapes.map(([a, b]) => ({ args: [t(a), t(b, { seed: 2 }), ...extra] })),
    ...(["transposed", "sliced", "reversed", "broadcast"] as const).flatMap((layout) => [
      { args: [t([4, 3, 7], { layout }), t([4, 3, 7], { seed: 2 }), ...extra] },
      { args: [t([3, 7]), t([4, 3, 7], { layout, seed: 2 }), ...extra] },
    ]),
    ...types.map((dtype) => {
      const [a, b] = pairs(dtype);
      return half(dtype, { name: `${dtype} special`, args: [tensor([a.length], { dtype, values: a }), tensor([b.length], { dtype, values: b }), ...extra] });
    }),
    ...types.map((dtype) => half(dtype, { name: `${first} with ${dtype}`, args: [t([2, 19]), tensor([19], { dtype, seed: 3 }), ...extra] })),
  ];
}
