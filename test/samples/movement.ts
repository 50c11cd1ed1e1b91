/** Samples of views. */
import { bfloat16, complex64, dtypes, float16, float32, float64, int32, int8, uint32, uint8 } from "../../src/core/dtype.ts";
import type * as movement from "../../src/ops/movement.ts";
import { type Layout, type Sample, tensor } from "../helpers/check.ts";

const layouts: Layout[] = ["row", "transposed", "sliced", "reversed", "broadcast"];
/** One sample per memory layout. */
const all = (shape: number[], ...args: unknown[]): Sample[] => layouts.map((layout) => ({ args: [tensor(shape, { layout }), ...args] }));
const atleast: Sample[] = [{ args: [tensor([])] }, { args: [tensor([3])] }, { args: [tensor([2, 3])] }, { args: [tensor([2, 3, 4])] }, { args: [tensor([]), tensor([4])] }, { args: [[tensor([]), tensor([4])]] }];

export const samples: Record<keyof typeof movement, readonly Sample[]> = {
  reshape: [
    ...all([4, 6], [2, 12]),
    ...all([4, 6], [24]),
    ...all([2, 3, 4], [-1, 4]),
    ...all([2, 3, 4], 6, -1),
    ...all([2, 3, 4], [1, 2, 1, 3, 2, 2]),
    { args: [tensor([1]), []] },
    { args: [tensor([]), [1, 1]] },
    { args: [tensor([0, 3]), [3, 0, 5]] },
    { args: [tensor([6], { dtype: complex64 }), [3, 2]] },
  ],
  flatten: [...all([2, 3, 4]), ...all([2, 3, 4], 1), ...all([2, 3, 4], 0, 1), { args: [tensor([])] }, { args: [tensor([2, 3, 4]), -2, -1] }],
  unflatten: [...all([4, 6], 1, [2, 3]), ...all([4, 6], 0, [-1, 2]), { args: [tensor([6]), -1, [6, 1]] }],
  expandDims: [...all([4, 6], 0), ...all([4, 6], [0, 2, -1]), { args: [tensor([]), 0] }, { args: [tensor([3]), []] }],
  squeeze: [{ args: [tensor([1, 3, 1, 2])] }, { args: [tensor([1, 3, 1, 2]), 2] }, { args: [tensor([1, 3, 1, 2]), [0, -2]] }, { args: [tensor([3])] }, { args: [tensor([1, 1]), null] }],
  transpose: [...dtypes.map((dtype) => ({ args: [tensor([3, 5], { dtype })] })), ...all([2, 3, 4]), ...all([2, 3, 4], [1, 0, 2]), ...all([2, 3, 4], 0, 2, 1), { args: [tensor([])] }, { args: [tensor([40, 70])] }, { args: [tensor([2, 0, 3]), [2, -2, 0]] }],
  permuteDims: all([2, 3, 4], [2, 0, 1]),
  moveaxis: [...all([2, 3, 4], 0, 2), ...all([2, 3, 4], [0, 1], [-1, 0])],
  swapaxes: [...all([2, 3, 4], 0, -1), ...all([2, 3, 4], 1, 1)],
  broadcastTo: [...all([1, 3], [4, 3]), ...all([3, 1], [2, 3, 5]), { args: [tensor([]), 4] }, { args: [tensor([1]), [0]] }, { args: [tensor([2, 1], { dtype: complex64 }), [2, 3]] }],
  broadcastArrays: [{ args: [[tensor([3, 1]), tensor([4]), tensor([])]] }],
  asStrided: [...all([4, 6], [3, 3], [1, 2], 4), { args: [tensor([9]), [3, 3]] }, { args: [tensor([5]), [2, 5], [0, -1], 4] }, { args: [tensor([5]), [7, 0], [100, 1]] }],
  view: [
    ...all([4, 6], int32),
    { args: [tensor([3, 4], { dtype: float32 }), float16], tolerance: { rtol: 0, atol: 0 } },
    { args: [tensor([3, 4], { dtype: bfloat16 }), uint32] },
    { args: [tensor([3, 8], { dtype: uint8 }), float64] },
    { args: [tensor([3, 2], { dtype: complex64 }), float32] },
    { args: [tensor([3, 2], { dtype: float32 }), complex64] },
    { args: [tensor([4, 6], { dtype: int32, layout: "transposed" }), int8] },
    { args: [tensor([4, 6], { dtype: int32, layout: "sliced" }), uint8] },
    { args: [tensor([4, 6], { dtype: bfloat16, layout: "sliced" }), int32], name: "odd offset: needs a copy" },
    { args: [tensor([0, 4], { dtype: int32 }), int8] },
    { args: [tensor([], { dtype: int32 }), float32] },
  ],
  contiguous: [...all([4, 6]), ...all([33, 40]), { args: [tensor([])] }],
  diagonal: [...[-4, -1, 0, 2, 9].flatMap((k) => all([4, 6], k)), ...all([2, 3, 4], 1, 0, 2), { args: [tensor([3, 4, 5]), 0, -1, 0] }],
  atleast1d: atleast,
  atleast2d: atleast,
  atleast3d: atleast,
};
