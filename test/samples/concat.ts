/** Samples of joining ops. */
import { bfloat16, dtypes, float16, int32, uint8 } from "../../src/core/dtype.ts";
import type * as concat from "../../src/ops/concat.ts";
import { type Layout, type Sample, tensor } from "../helpers/check.ts";

const layouts: Layout[] = ["row", "transposed", "sliced", "reversed", "broadcast"];
const join: Sample[] = [
  ...dtypes.map((dtype) => ({ args: [[tensor([2, 3], { dtype }), tensor([1, 3], { dtype, seed: 2 })]] })),
  ...layouts.flatMap((layout) => [0, 1, 2].map((axis) => ({ args: [[tensor([2, 3, 4], { layout }), tensor([2, 3, 4], { seed: 2 }), tensor([2, 3, 4], { layout: "transposed" as const })], axis] }))),
  { args: [[tensor([2, 3]), tensor([0, 3]), tensor([5, 3])], 0] },
  { args: [[tensor([2, 3]), tensor([2, 1])], -1] },
  { args: [[tensor([2, 3]), tensor([4])], null], name: "flattened" },
  { args: [[tensor([3], { dtype: int32 }), tensor([2], { dtype: float16 }), tensor([2], { dtype: uint8 })]], name: "promoted" },
  { args: [[tensor([3]), tensor([2], { dtype: bfloat16 })]] },
  { args: [[tensor([3])]] },
  { args: [[tensor([70, 90]), tensor([70, 33])], 1] },
];

export const samples: Record<keyof typeof concat, readonly Sample[]> = {
  concatenate: join,
  concat: join.slice(0, 3),
  stack: [...[0, 1, -1].map((axis) => ({ args: [[tensor([2, 3]), tensor([2, 3], { layout: "transposed", seed: 2 })], axis] })), { args: [[tensor([]), tensor([])]] }, { args: [[tensor([0])]] }],
  repeat: [...layouts.map((layout) => ({ args: [tensor([3, 4], { layout }), 2, 1] })), { args: [tensor([3, 4]), 3, 0] }, { args: [tensor([3, 4]), 2] }, { args: [tensor([]), 4] }, { args: [tensor([3]), 0] }],
  tile: [...layouts.map((layout) => ({ args: [tensor([3, 4], { layout }), [2, 3]] })), { args: [tensor([3, 4]), 2] }, { args: [tensor([3]), [2, 1, 2]] }, { args: [tensor([]), [3]] }, { args: [tensor([2, 2]), [0, 1]] }, { args: [tensor([2]), []] }],
  roll: [...layouts.map((layout) => ({ args: [tensor([3, 4], { layout }), 1, 1] })), { args: [tensor([3, 4]), 5] }, { args: [tensor([3, 4]), -1, 0] }, { args: [tensor([3, 4]), [1, 2], [0, 1]] }, { args: [tensor([3, 4]), 2, [0, 1]] }, { args: [tensor([0]), 3] }, { args: [tensor([]), 3] }, { args: [tensor([5]), 5, 0] }],
};
