/** Samples of sort and what is made of it. */
import { complex64, dtypes, float16, float32, int8, uint32 } from "../../src/core/dtype.ts";
import type * as sortOps from "../../src/ops/sort.ts";
import { type Sample, tensor } from "../helpers/check.ts";

const real = dtypes.filter((d) => d !== complex64);
const special = [1, Number.NaN, -0, 0, Number.NEGATIVE_INFINITY, 3, Number.POSITIVE_INFINITY, -2.5];
const first = [tensor([9]), tensor([3, 48]), tensor([3, 49]), tensor([2, 1000]), tensor([0, 3]), tensor([2, 0]), tensor([3, 1])];
/** Samples with arguments behind the array (kth, k). */
const places = (...between: unknown[]): Sample[] => [
  ...first.filter((t) => between.length === 0 || (t.shape[t.shape.length - 1] as number) > 2).map((t) => ({ args: [t, ...between] })),
  { args: [tensor([5, 4]), ...between, 0] },
  { args: [tensor([3, 60, 4]), ...between, 1] },
  { args: [tensor([5, 4]), ...between, null], name: "flattened" },
  { args: [tensor([4, 6], { layout: "transposed" }), ...between, 1] },
  { args: [tensor([4, 6], { layout: "broadcast" }), ...between, 0] },
  ...real.flatMap((dtype) => [20, 100].map((n) => ({ args: [tensor([2, n], { dtype }), ...between, -1] }))),
  { args: [tensor([2, 17], { values: special }), ...between] },
  { args: [tensor([2, 101], { values: special, dtype: float16 }), ...between] },
  { args: [tensor([2, 101], { values: special }), ...between] },
  { args: [tensor([3, 50], { dtype: int8, low: -128, high: 127 }), ...between] },
  { args: [tensor([3, 50], { dtype: uint32, low: 0, high: 2 ** 32 - 1 }), ...between] },
];
/** Rows too long for a thread's own scratch. */
const long: Sample[] = [{ args: [tensor([2, 300000], { dtype: float32 }), -1] }];
export const sortSamples: Record<keyof typeof sortOps, Sample[]> = {
  sort: [...places(), ...long.map(({ args: [t] }) => ({ args: [tensor([1, 600000], { dtype: float32 }), -1], name: `${t}` }))],
  argsort: [...places(), ...long],
  partition: places(2),
  argpartition: places(-3),
  topk: places(2),
};
