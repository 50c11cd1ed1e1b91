/** Samples of indexing functions. */
import { bfloat16, dtypes, int16, int32, int64, uint32, uint8 } from "../../src/core/dtype.ts";
import type * as indexing from "../../src/ops/indexing.ts";
import { type Layout, type Sample, tensor } from "../helpers/check.ts";

const layouts: Layout[] = ["row", "transposed", "sliced", "reversed", "broadcast"];
const index = (shape: number[], values: number[], dtype = int32) => tensor(shape, { dtype, values });
const wild = [0, -1, 3, 99, -99, 1];

const along: Sample[] = [
  ...layouts.flatMap((layout) => [0, 1, 2].map((axis) => ({ args: [tensor([3, 4, 5], { layout }), tensor([3, 4, 5].map((d, i) => (i === axis ? 2 : d)), { dtype: int32, layout, low: -5, high: 5 }), axis] }))),
  ...dtypes.map((dtype) => ({ args: [tensor([3, 4], { dtype }), index([3, 2], wild), 1] })),
  { args: [tensor([3, 4]), index([5], wild)], name: "flattened" },
  { args: [tensor([3, 4]), index([1, 3], wild), 1], name: "broadcast indices" },
  { args: [tensor([3, 4]), index([3, 0], wild), 1] },
];
const put = (spec: Sample[]): Sample[] => spec.map(({ args, ...rest }) => ({ ...rest, args: [args[0], args[1], 1, ...args.slice(2)] }));

export const samples: Record<keyof typeof indexing, readonly Sample[]> = {
  take: [
    ...dtypes.map((dtype) => ({ args: [tensor([7, 40], { dtype }), index([2, 3], wild), 0] })),
    ...layouts.flatMap((layout) => [0, 1, 2].map((axis) => ({ args: [tensor([3, 4, 5], { layout }), index([2, 3], wild), axis] }))),
    ...[uint8, uint32, int16, int64].map((dtype) => ({ args: [tensor([5, 6]), index([4], [0, 3, 2, 4], dtype), 0] })),
    { args: [tensor([3, 4]), index([2, 2], wild)], name: "flattened" },
    { args: [tensor([3, 4]), 1, 0] },
    { args: [tensor([3, 4]), -1, 1] },
    { args: [tensor([3, 4]), index([], [2]), 0] },
    { args: [tensor([3, 4]), [0, 2], 0], name: "plain list" },
    { args: [tensor([3, 4]), index([0], []), 0] },
    { args: [tensor([100, 1024], { dtype: bfloat16 }), tensor([50], { dtype: uint32, high: 100 }), 0], name: "embedding" },
  ],
  takeAlongAxis: [...along, { args: [tensor([1, 4]), index([3, 2], wild), 1], name: "broadcast array" }],
  putAlongAxis: [
    // Values that are all the same: where indices repeat, the order of writing does not matter.
    ...put(along),
    { args: [tensor([3, 4]), index([3, 2], [0, 1, 2, 3, 1, 0]), tensor([3, 2], { seed: 2 }), 1] },
    { args: [tensor([3, 4]), index([2], [0, 11]), tensor([2], { seed: 2 })] },
  ],
  scatterAddAxis: [
    { args: [tensor([3, 4]), index([3, 5], wild), tensor([3, 5], { seed: 2 }), 1] },
    { args: [tensor([3, 4], { dtype: int32 }), index([6, 4], wild), tensor([6, 4], { dtype: int32, seed: 2 }), 0] },
  ],
};
