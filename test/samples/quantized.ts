/** Samples of quantization and of the products with quantized weights. */
import { type Dtype, bfloat16, float16, float32, int32, int64, uint32 } from "../../src/core/dtype.ts";
import type * as quantized from "../../src/ops/quantized.ts";
import { type Layout, type Sample, type Tensor, tensor } from "../helpers/check.ts";
import { dequantizeFloats, gatherFloats, productFloats, quantizeFloats } from "./quantized-modes.ts";

const widths = [2, 3, 4, 5, 6, 8];
const groupSizes = [32, 64, 128];
const floats = [float32, bfloat16, float16];

/** Words, scales and biases of packed matrices; `shape` is the unpacked one. Weights lie in -0.8 .. 1.1. */
function packed(shape: readonly number[], groupSize: number, bits: number, dtype: Dtype = float32, layout: Layout = "row", seed = 3): [Tensor, Tensor, Tensor] {
  const lead = shape.slice(0, -1);
  const n = shape[shape.length - 1] as number;
  return [
    tensor([...lead, (n * bits) / 32], { dtype: uint32, high: 2 ** 32, layout, seed }),
    tensor([...lead, n / groupSize], { dtype, low: 0.7 / 2 ** bits, high: 1.5 / 2 ** bits, layout, seed: seed + 1 }),
    tensor([...lead, n / groupSize], { dtype, low: -0.8, high: -0.4, layout, seed: seed + 2 }),
  ];
}
/**
 * K products of x (at most 2) and weights (at most 1.1): each x is off by at most half a step of 2 / 8191 or 2 / 2^20, and float32 sums add a few units of 2^-24.
 */
const tolerance = (K: number, result: Dtype) => ({ atol: K * 1.1 * ((result === float32 ? 2 ** -20 : 1 / 8191) + 4e-7) });

interface ProductOptions {
  x?: Dtype;
  s?: Dtype;
  transpose?: boolean;
  layout?: Layout;
  xLayout?: Layout;
}
/** x times matrices of shape `w` ([..., N, K], or [..., K, N] when not transposed). */
function product(x: readonly number[], w: readonly number[], groupSize: number, bits: number, o: ProductOptions = {}): Sample {
  const { x: dx = float32, s = dx, transpose = true, layout = "row", xLayout = "row" } = o;
  const result = dx === s ? dx : float32;
  return { args: [tensor(x, { dtype: dx, layout: xLayout }), ...packed(w, groupSize, bits, s, layout), transpose, groupSize, bits], tolerance: tolerance(x[x.length - 1] as number, result) };
}

const quantize: Sample[] = [
  ...floats.flatMap((dtype) => widths.flatMap((bits) => groupSizes.map((g) => ({ args: [tensor([3, 2 * g], { dtype }), g, bits] })))),
  { args: [tensor([2, 64])] },
  { args: [tensor([2, 3, 64], { layout: "transposed" })] },
  { args: [tensor([5, 64], { layout: "sliced" }), 32, 3] },
  { args: [tensor([2, 64], { values: [0] })], name: "zeros" },
  { args: [tensor([2, 64], { values: [1.25] }), 64, 2], name: "constant" },
  { args: [tensor([2, 64], { low: 1e-12, high: 1e-10 })], name: "tiny" },
  { args: [tensor([0, 64])] },
];

const dequantize: Sample[] = [
  ...floats.flatMap((dtype) => widths.flatMap((bits) => groupSizes.map((g) => ({ args: [...packed([3, 2 * g], g, bits, dtype), g, bits], tolerance: { atol: 2e-7 } })))),
  { args: packed([2, 64], 64, 4), tolerance: { atol: 2e-7 } },
  { args: [...packed([2, 64], 64, 4), 64, 4, "affine", undefined, bfloat16], tolerance: { atol: 2e-7 } },
  { args: [...packed([2, 3, 64], 32, 5, float32, "transposed"), 32, 5], tolerance: { atol: 2e-7 } },
  { args: [...packed([0, 64], 32, 5), 32, 5] },
];

const quantizedMatmul: Sample[] = [
  ...widths.flatMap((bits) => groupSizes.flatMap((g) => [1, 2, 9].flatMap((M) => floats.map((x) => product([M, 2 * g], [19, 2 * g], g, bits, { x }))))),
  ...widths.flatMap((bits) => groupSizes.flatMap((g) => [1, 9].flatMap((M) => floats.map((x) => product([M, 37], [37, 2 * g], g, bits, { x, transpose: false }))))),
  ...[1, 3, 5, 8, 33].map((M) => product([M, 320], [7, 320], 64, 4, { x: bfloat16 })),
  product([1, 1024], [1000, 1024], 128, 4, { x: bfloat16 }),
  product([140, 256], [40, 256], 64, 4),
  product([64], [5, 64], 64, 4),
  product([64], [64, 96], 32, 4, { transpose: false }),
  product([2, 3, 64], [5, 64], 64, 8, { x: bfloat16 }),
  product([2, 3, 64], [64, 64], 64, 4, { transpose: false }),
  product([3, 64], [5, 64], 64, 4, { x: bfloat16, s: float32 }),
  product([3, 64], [5, 64], 64, 4, { x: bfloat16, s: float16 }),
  product([3, 64], [5, 64], 64, 4, { x: int32, s: float32 }),
  product([3, 128], [5, 128], 64, 4, { layout: "transposed", xLayout: "transposed" }),
  product([3, 128], [5, 128], 64, 4, { layout: "sliced", xLayout: "sliced" }),
  product([3, 128], [5, 128], 64, 4, { xLayout: "broadcast" }),
  product([2, 3, 64], [2, 5, 64], 64, 4),
  product([4, 2, 3, 64], [2, 5, 64], 64, 4, { x: bfloat16 }),
  product([2, 3, 64], [1, 5, 64], 64, 3),
  product([1, 3, 64], [4, 64, 32], 32, 4, { transpose: false }),
  product([0, 64], [5, 64], 64, 4),
  product([3, 0], [5, 0], 64, 4),
  product([9, 0], [5, 0], 64, 4),
  product([3, 0], [0, 64], 64, 4, { transpose: false }),
  product([3, 64], [0, 64], 64, 4),
  { args: [tensor([3, 64], { values: [1, Number.POSITIVE_INFINITY, 2, ...new Array<number>(126).fill(0.5)] }), ...packed([9, 64], 32, 4), true, 32, 4], name: "an infinity in some rows", tolerance: tolerance(64, float32) },
];

const indices = (shape: readonly number[], values: readonly number[], dtype: Dtype = uint32): Tensor => tensor(shape, { dtype, values });
function gather(x: readonly number[], w: readonly number[], lhs: Tensor | null, rhs: Tensor | null, groupSize: number, bits: number, dtype: Dtype = float32, transpose = true, sorted = false): Sample {
  return { args: [tensor(x, { dtype }), ...packed(w, groupSize, bits, dtype), lhs, rhs, transpose, groupSize, bits, sorted], tolerance: tolerance(x[x.length - 1] as number, dtype) };
}
const gatherQMM: Sample[] = [
  ...widths.map((bits) => gather([1, 1, 64], [8, 6, 64], null, indices([3, 1], [5, 0, 5]), 32, bits, bfloat16)),
  ...floats.map((d) => gather([4, 1, 128], [8, 70, 128], indices([6], [0, 1, 1, 3, 2, 0]), indices([6], [7, 1, 7, 1, 0, 3]), 64, 4, d)),
  gather([4, 1, 1, 64], [8, 6, 64], null, indices([4, 2], [1, 3, 0, 7, 1, 3, 2, 2]), 64, 4),
  gather([3, 5, 64], [4, 6, 64], null, indices([3], [2, 0, 2], int64), 64, 8, bfloat16),
  gather([3, 2, 64], [4, 6, 64], indices([2, 1], [2, 0]), indices([1, 3], [0, 3, 3]), 64, 4),
  gather([3, 2, 64], [3, 6, 64], indices([3], [2, 0, 1]), null, 64, 4),
  gather([3, 2, 64], [3, 6, 64], null, null, 64, 4),
  gather([20, 1, 64], [3, 9, 64], null, indices([20], Array.from({ length: 20 }, (_, i) => Math.floor(i / 7))), 64, 4, bfloat16, true, true),
  gather([3, 2, 33], [4, 33, 64], indices([2], [2, 0]), indices([2], [3, 1]), 64, 4, float32, false),
  gather([3, 1, 64], [4, 64, 128], null, indices([3], [3, 3, 1]), 32, 6, bfloat16, false),
  gather([3, 2, 64], [4, 6, 64], indices([0], [0]), indices([0], [0]), 64, 4),
];

export const quantizedSamples: Record<keyof typeof quantized, Sample[]> = {
  quantize: [...quantize, ...quantizeFloats], dequantize: [...dequantize, ...dequantizeFloats], quantizedMatmul: [...quantizedMatmul, ...productFloats], gatherQMM: [...gatherQMM, ...gatherFloats],
};
