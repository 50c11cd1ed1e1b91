/** Samples of mx.random whose result a key fixes. */
import { bfloat16, float16, float32, int64, uint32, uint8 } from "../../src/core/dtype.ts";
import type { Sample } from "../helpers/check.ts";
import { tensor } from "../helpers/check.ts";

const keyTensor = tensor([2], { dtype: uint32, values: [7, 4242] });
const shapes = [[], [1], [3], [7], [2, 5], [0, 2], [9001]];
/** log and erfinv near their poles magnify the last bit of a uniform number. */
const loose = { tolerance: { rtol: 1e-4, atol: 2e-6 } };

export const randomSamples: Record<"key" | "split" | "bits" | "uniform" | "normal" | "multivariateNormal" | "laplace" | "truncatedNormal" | "gumbel" | "randint" | "bernoulli" | "categorical" | "permutation", Sample[]> = {
  key: [{ args: [0] }, { args: [1] }, { args: [2 ** 40 + 5] }],
  split: [{ args: [keyTensor] }, { args: [keyTensor, 5] }, { args: [keyTensor, 0] }],
  bits: [4, 2, 1].flatMap((width) => shapes.map((shape) => ({ args: [shape, width, keyTensor] }))),
  uniform: [...shapes.map((shape) => ({ args: [0, 1, shape, float32, keyTensor] })), { args: [-3, 5, [40], float32, keyTensor] }, { args: [-3, 5, [40], float16, keyTensor], tolerance: { atol: 0.01 } }, { args: [0, 1, [40], bfloat16, keyTensor] }, { args: [tensor([3, 1]), tensor([1, 4], { low: 3, high: 4 }), [3, 4], float32, keyTensor] }],
  normal: [{ args: [[50], float32, null, null, keyTensor], ...loose }, { args: [[50], float32, 3, 0.5, keyTensor], ...loose }, { args: [[5, 4], bfloat16, tensor([4]), null, keyTensor], tolerance: { rtol: 0.02, atol: 0.02 } }],
  // Covariances: diag(1, 4, 9) and a rank-one one.
  multivariateNormal: [
    { args: [tensor([3]), tensor([3, 3], { values: [1, 0, 0, 0, 4, 0, 0, 0, 9] }), [2, 5], float32, keyTensor], tolerance: { rtol: 1e-4, atol: 1e-4 } },
    { args: [tensor([4, 1, 2]), tensor([3, 2, 2], { values: [1, 2, 2, 4] }), null, null, keyTensor], tolerance: { rtol: 1e-4, atol: 1e-4 } },
  ],
  laplace: [{ args: [[50], float32, 0, 1, keyTensor], ...loose }, { args: [[50], float32, 3, 0.5, keyTensor], ...loose }],
  truncatedNormal: [{ args: [-1, 2, [50], float32, keyTensor], ...loose }, { args: [tensor([3, 1]), tensor([4], { low: 3, high: 4 }), undefined, float32, keyTensor], ...loose }],
  gumbel: [{ args: [[50], float32, keyTensor], ...loose }],
  randint: [{ args: [-5, 5, [200], undefined, keyTensor] }, { args: [0, 256, [200], uint8, keyTensor] }, { args: [2 ** 40, 2 ** 40 + 1024, [200], int64, keyTensor] }, { args: [10, -10, [9], undefined, keyTensor] }],
  bernoulli: [{ args: [0.3, [200], keyTensor] }, { args: [tensor([2], { values: [2, -2] }), null, keyTensor] }],
  categorical: [{ args: [tensor([6, 9]), -1, null, null, keyTensor] }, { args: [tensor([6, 9]), 0, null, null, keyTensor] }, { args: [tensor([6, 9]), 1, null, 4, keyTensor] }, { args: [tensor([6, 9]), 1, [3, 6], null, keyTensor] }, { args: [tensor([5, 4, 3]), -2, null, 7, keyTensor] }],
  permutation: [{ args: [20, 0, keyTensor] }, { args: [20, keyTensor] }, { args: [tensor([4, 5]), 1, keyTensor] }],
};
