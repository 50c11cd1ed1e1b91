/** Samples of softmax and logsumexp. */
import { bfloat16, bool, float16, float64, int32 } from "../../src/core/dtype.ts";
import type * as softmaxOps from "../../src/ops/softmax.ts";
import { type Sample, tensor } from "../helpers/check.ts";

const inf = Number.POSITIVE_INFINITY;
const places: Sample[] = [
  { args: [tensor([])] },
  { args: [tensor([5])] },
  { args: [tensor([3, 4])], name: "all axes" },
  { args: [tensor([3, 4]), 0] },
  { args: [tensor([3, 4, 5]), 1] },
  { args: [tensor([3, 4, 5]), [0, 2]] },
  { args: [tensor([3, 4, 5]), [1, 2]] },
  ...[1, 3, 15, 16, 17, 64, 100].map((n) => ({ args: [tensor([3, n]), -1] })),
  { args: [tensor([2, 40000], { low: -8, high: 8 }), -1], name: "rows in chunks" },
  ...[float16, bfloat16, float64].flatMap((dtype) => [{ args: [tensor([3, 37], { dtype }), -1] }, { args: [tensor([2, 20000], { dtype, low: -8, high: 8 }), -1] }]),
  { args: [tensor([3, 6], { dtype: int32 }), -1] },
  { args: [tensor([3, 6], { dtype: bool }), -1] },
  { args: [tensor([4, 6], { layout: "transposed" }), -1] },
  { args: [tensor([4, 6], { layout: "sliced" }), 1] },
  { args: [tensor([4, 6], { layout: "broadcast" }), 0] },
  { args: [tensor([2, 20], { low: -1e4, high: 1e4 }), -1], name: "no overflow", tolerance: { rtol: 1e-3 } },
  { args: [tensor([2, 21], { values: [1, -inf, 2] }), -1], name: "masked entries" },
  { args: [tensor([2, 21], { values: [1, Number.NaN, 2] }), -1] },
];
export const softmaxSamples: Record<keyof typeof softmaxOps, Sample[]> = {
  softmax: [...places, { args: [tensor([0, 3]), -1] }, { args: [tensor([3, 5]), -1, true], name: "precise" }, { args: [tensor([2, 5], { values: [-inf] }), -1] }, { args: [tensor([2, 5], { values: [1, inf, 2] }), -1] }],
  logsumexp: [...places, { args: [tensor([3, 4]), 1, true] }, { args: [tensor([3, 4]), true] }, { args: [tensor([2, 5], { values: [-inf] }), -1] }, { args: [tensor([2, 5], { values: [1, inf, 2] }), -1] }],
};
