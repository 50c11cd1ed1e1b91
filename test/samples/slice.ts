/** Samples of slices and slice updates. */
import { dtypes, float32, int32, int64 } from "../../src/core/dtype.ts";
import type * as slices from "../../src/ops/slice.ts";
import { type Layout, type Sample, tensor } from "../helpers/check.ts";

const layouts: Layout[] = ["row", "transposed", "sliced", "reversed", "broadcast"];
const starts = (...values: number[]) => tensor([values.length], { dtype: int32, values });

export const samples: Record<Exclude<keyof typeof slices, "Slice">, readonly Sample[]> = {
  slice: [
    ...layouts.map((layout) => ({ args: [tensor([4, 6, 5], { layout }), [1, 2], [0, 1], [2, 3, 5]] })),
    ...layouts.map((layout) => ({ args: [tensor([4, 6, 5], { layout }), starts(1, 2), [0, 2], [2, 6, 3]] })),
    { args: [tensor([4, 6]), starts(-5, 99), [0, 1], [2, 2]], name: "start indices out of range are clamped" },
    { args: [tensor([4, 6]), tensor([1], { dtype: int64, values: [3] }), [-1], [4, 2]] },
    { args: [tensor([4, 6]), [], [], [4, 6]] },
    { args: [tensor([4, 6]), 2, [1], [0, 3]] },
    { args: [tensor([4, 6]), tensor([], { dtype: int32, values: [1] }), [0], [1, 6]] },
  ],
  sliceUpdate: [
    ...dtypes.map((dtype) => ({ args: [tensor([4, 6], { dtype }), tensor([2, 3], { dtype, seed: 2 }), [1, 2], [0, 1]] })),
    ...layouts.map((layout) => ({ args: [tensor([4, 6, 5], { layout }), tensor([2, 3, 5], { layout, seed: 2 }), starts(1, 2), [0, 1]] })),
    ...layouts.map((layout) => ({ args: [tensor([1, 2, 9, 8], { layout }), tensor([1, 2, 3, 8], { layout, seed: 2 }), [4], [2]] })),
    { args: [tensor([4, 6]), tensor([2, 2], { seed: 2 }), starts(-5, 99), [0, 1]] },
    { args: [tensor([4, 6]), tensor([3], { seed: 2 }), [2, 3], [0, 1]], name: "update with fewer dimensions" },
    { args: [tensor([4, 6]), tensor([4, 6], { dtype: int32 }), [], []], name: "everything, cast" },
    { args: [tensor([4, 6]), tensor([0, 6]), [2], [0]] },
    { args: [tensor([200, 300], { dtype: float32 }), tensor([150, 200], { layout: "transposed", seed: 2 }), [7, 9], [0, 1]] },
  ],
  split: [
    ...layouts.map((layout) => ({ args: [tensor([4, 6], { layout }), 3, 1] })),
    { args: [tensor([4, 6]), 2] },
    { args: [tensor([4, 6]), [1, 4], 1] },
    { args: [tensor([4, 6]), [1, -1, 9], 1] },
    { args: [tensor([4, 6]), [], 1] },
    { args: [tensor([0, 6]), 3] },
  ],
};
