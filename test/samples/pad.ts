/** Samples of padding. */
import { complex64, dtypes } from "../../src/core/dtype.ts";
import type * as padding from "../../src/ops/pad.ts";
import { type Layout, type Sample, tensor } from "../helpers/check.ts";

const layouts: Layout[] = ["row", "transposed", "sliced", "reversed", "broadcast"];

export const samples: Record<keyof typeof padding, readonly Sample[]> = {
  pad: [
    ...dtypes.filter((d) => d !== complex64).map((dtype) => ({ args: [tensor([2, 3], { dtype }), [[1, 2], [0, 1]], 1] })),
    ...layouts.flatMap((layout) => [{ args: [tensor([3, 4], { layout }), 1] }, { args: [tensor([3, 4], { layout }), [[2, 0], [1, 3]], 0, "edge"] }]),
    { args: [tensor([3, 4]), [2], -1.5] },
    { args: [tensor([3, 4]), [1, 2], tensor([])] },
    { args: [tensor([3]), [[1, 2]]] },
    { args: [tensor([2, 3], { dtype: complex64 }), 1, tensor([], { dtype: complex64 })] },
    { args: [tensor([0]), [2, 1], 3] },
    { args: [tensor([]), []] },
    { args: [tensor([3]), 0] },
    { args: [tensor([100, 70], { layout: "transposed" }), 3] },
  ],
};
