/** Samples of src/ops/select.ts. */
import { bool, float16, float32, int32 } from "../../src/core/dtype.ts";
import type * as select from "../../src/ops/select.ts";
import { type Sample, tensor } from "../helpers/check.ts";
import { floatTypes, realTypes, unarySamples } from "./elementwise.ts";

const condition = (shape: number[], seed = 9): unknown => tensor(shape, { dtype: bool, seed });

export const samples: Record<keyof typeof select, Sample[]> = {
  where: [
    ...realTypes.map((dtype): Sample => ({ name: `${dtype}`, args: [condition([3, 11]), tensor([3, 11], { dtype }), tensor([11], { dtype, seed: 2 })] })),
    ...realTypes.map((dtype): Sample => ({ name: `condition ${dtype}`, args: [tensor([37], { dtype }), tensor([37]), tensor([37], { seed: 2 })] })),
    { args: [condition([4, 1]), tensor([5], { dtype: int32 }), tensor([3, 1, 1], { dtype: float16 })] },
    { args: [condition([17]), tensor([17]), Number.NEGATIVE_INFINITY] },
    { args: [condition([17]), 1, 0] },
    { args: [condition([]), tensor([2, 2]), tensor([2, 2], { seed: 3 })] },
    { args: [condition([4, 6]), tensor([4, 6], { layout: "transposed" }), tensor([4, 6], { layout: "sliced", seed: 3 })] },
  ],
  clip: [
    ...unarySamples([...floatTypes], {}, [-1, 1]),
    { args: [tensor([20]), null, 0.5] },
    { args: [tensor([20]), 0.5, null] },
    { args: [tensor([3, 7]), tensor([7], { low: -1, high: 0 }), tensor([3, 1], { low: 0, high: 1 })] },
    { args: [tensor([20], { dtype: int32 }), tensor([], { dtype: int32, values: [0] }), tensor([], { dtype: int32, values: [5] })] },
    { args: [tensor([20], { dtype: int32 }), 0, 5], name: "numbers beside integers" },
  ],
  nanToNum: [
    ...unarySamples(realTypes),
    { args: [tensor([9], { dtype: float32, values: [1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY] }), 7, 8, 9] },
  ],
};
