/** Samples of the ops that make arrays. */
import { bfloat16, bool, complex64, dtypes, float16, float32, float64, int32, int64, uint8 } from "../../src/core/dtype.ts";
import type * as creation from "../../src/ops/creation.ts";
import { type Sample, tensor } from "../helpers/check.ts";

const numeric = dtypes.filter((d) => d !== bool);

const square: Sample[] = [
  ...[-9, -1, 0, 2, 9].flatMap((k) => [[4, 6], [6, 4], [2, 3, 5, 5], [1, 7]].map((shape) => ({ args: [tensor(shape), k] }))),
  ...dtypes.map((dtype) => ({ args: [tensor([5, 6], { dtype }), 1] })),
  { args: [tensor([5, 6], { layout: "transposed" })] },
  { args: [tensor([3, 5, 6], { layout: "sliced" }), -1] },
  { args: [tensor([0, 4])] },
  { args: [tensor([4, 0]), 1] },
];
const bands: Sample[] = [
  ...[-5, -1, 0, 1, 7].flatMap((k) => [{ args: [4, 6, k] }, { args: [6, 4, k] }]),
  ...dtypes.map((dtype) => ({ args: [3, 3, 0, dtype] })),
  { args: [5] },
  { args: [4, bfloat16], name: "dtype in the place of m" },
  { args: [0, 3] },
  { args: [300, 70] },
];
const shapes: Sample[] = [...dtypes.map((dtype) => ({ args: [[3, 5], dtype] })), { args: [7] }, { args: [[]] }, { args: [[0, 4]] }, { args: [[40000]] }];
const like: Sample[] = [...dtypes.map((dtype) => ({ args: [tensor([2, 3], { dtype })] })), { args: [tensor([2, 3]), int32] }, { args: [tensor([])] }, { args: [tensor([3, 0])] }];

export const samples: Record<keyof typeof creation, readonly Sample[]> = {
  arange: [
    ...numeric.map((dtype) => ({ args: [5, dtype] })),
    { args: [5] },
    { args: [2, 7] },
    { args: [2, 7.5, 0.5] },
    { args: [7, 2, -1.5] },
    { args: [7, 2] },
    { args: [0, 1, 0.1, bfloat16] },
    { args: [0.5, 5, 1.5, int32] },
    { args: [-3, 3, 1, int64] },
    { args: [0, 3000, 1, float16] },
    { args: [100000] },
  ],
  linspace: [{ args: [0, 1] }, { args: [0, 1, 7] }, { args: [-2, 3, 1] }, { args: [0, 5, 0] }, { args: [1, 0, 9, float16] }, { args: [0, 10, 5, int32] }, { args: [0, 1, 8, float32, false] }, { args: [0.1, 0.7, 11, float64] }],
  full: [
    { args: [[2, 3], 2.5] },
    { args: [[2, 3], true] },
    { args: [[2, 3], -3, int32] },
    { args: [[2, 3], tensor([3])] },
    { args: [[2, 3], tensor([2, 1], { dtype: uint8 })] },
    { args: [[2, 3], tensor([1, 1])] },
    { args: [[4], tensor([], { dtype: complex64 })] },
    { args: [[33, 1000], 1.7, bfloat16] },
  ],
  zeros: shapes,
  ones: shapes,
  zerosLike: like,
  onesLike: like,
  eye: bands,
  identity: [{ args: [4] }, { args: [1, float16] }, { args: [0] }],
  tri: bands,
  tril: square,
  triu: square,
  diag: [...[-2, 0, 1].flatMap((k) => dtypes.map((dtype) => ({ args: [tensor([3], { dtype }), k] }))), ...[-2, 0, 1].map((k) => ({ args: [tensor([4, 3]), k] })), { args: [tensor([6], { layout: "reversed" })] }, { args: [tensor([0]), 2] }],
  meshgrid: [{ args: [tensor([3]), tensor([4])] }, { args: [tensor([3]), tensor([4]), tensor([2]), false, "ij"] }, { args: [tensor([3]), tensor([4]), true] }, { args: [tensor([3])] }, { args: [tensor([]), tensor([2])] }],
};
