/** Samples of mx.fast. */
import { bfloat16, bool, float16, float32, float64, int32, int64, uint32 } from "../../src/core/dtype.ts";
import type * as fast from "../../src/ops/fast.ts";
import { type Layout, type Sample, type TensorOptions, tensor } from "../helpers/check.ts";

const floats = [float32, bfloat16, float16] as const;
/** float16 results below 2^-14 have an absolute step of 2^-24. */
const row = (dtype: (typeof floats)[number], seed: number, layout: Layout = "row"): TensorOptions => ({ dtype, seed, layout });

const rmsNorm: Sample[] = [
  ...floats.flatMap((d) => [1, 7, 8, 33, 128, 1024].map((n) => ({ args: [tensor([3, n], row(d, 1)), tensor([n], row(d, 2)), 1e-5] }))),
  { args: [tensor([8]), null, 1e-6] },
  { args: [tensor([2, 3, 4, 16], { dtype: bfloat16 }), null, 1e-6] },
  { args: [tensor([4, 6, 16], { layout: "sliced" }), tensor([16]), 1e-6] },
  { args: [tensor([4, 6, 16], { layout: "transposed" }), tensor([16]), 1e-6] },
  { args: [tensor([4, 16], { layout: "reversed" }), tensor([16], { layout: "reversed" }), 1e-6] },
  { args: [tensor([4, 16], { layout: "broadcast" }), null, 1e-6] },
  { args: [tensor([4, 16], { dtype: bfloat16 }), tensor([16]), 1e-6], name: "bfloat16 x, float32 weight" },
  { args: [tensor([4, 16]), tensor([16], { dtype: float16 }), 1e-6], name: "float32 x, float16 weight" },
  { args: [tensor([4, 16], { dtype: float64 }), tensor([16]), 1e-6], name: "float64 x, computed in float32", tolerance: { rtol: 2e-6, atol: 2e-6 } },
  { args: [tensor([0, 16]), tensor([16]), 1e-6] },
  { args: [tensor([3, 0]), null, 1e-6] },
  { args: [tensor([2, 16], { values: [0] }), null, 1e-5], name: "zeros" },
  { args: [tensor([2, 16], { low: 1e-12, high: 1e-10 }), null, 1e-30], name: "tiny values" },
  { args: [tensor([300, 64], { dtype: bfloat16 }), tensor([64], { dtype: bfloat16 }), 1e-6], name: "many rows" },
];

const layerNorm: Sample[] = [
  ...floats.flatMap((d) => [3, 8, 33, 1000].map((n) => ({ args: [tensor([3, n], row(d, 1)), tensor([n], row(d, 2)), tensor([n], row(d, 3)), 1e-5] }))),
  { args: [tensor([2, 5, 12]), null, null, 1e-5] },
  { args: [tensor([2, 5, 12]), tensor([12]), null, 1e-5] },
  { args: [tensor([2, 5, 12]), null, tensor([12]), 1e-5] },
  { args: [tensor([4, 6, 16], { layout: "sliced" }), tensor([16]), tensor([16]), 1e-5] },
  { args: [tensor([4, 6, 16], { layout: "transposed" }), tensor([16]), tensor([16]), 1e-5] },
  { args: [tensor([4, 16], { dtype: float16 }), tensor([16], { dtype: bfloat16 }), null, 1e-5], name: "float16 x, bfloat16 weight" },
  { args: [tensor([2, 64], { low: 999, high: 1001 }), null, null, 1e-5], name: "mean far from zero", tolerance: { atol: 1e-3 } },
  { args: [tensor([4, 1]), null, null, 1e-5], name: "one element", tolerance: { atol: 1e-3 } },
  { args: [tensor([0, 16]), null, null, 1e-5] },
];

const angles = { atol: 1e-6 };
const rope: Sample[] = [
  ...floats.flatMap((d) => [false, true].map((traditional) => ({ args: [tensor([2, 3, 5, 16], row(d, 1)), 16, traditional, 10000, 1, 3], tolerance: angles }))),
  { args: [tensor([1, 4, 1, 128], { dtype: bfloat16 }), 128, false, 1e6, 1, 4095], tolerance: angles },
  { args: [tensor([2, 5, 8]), 8, false, 10000, 1, 0], name: "rank 3", tolerance: angles },
  { args: [tensor([2, 2, 3, 5, 8]), 8, false, 10000, 1, 2], name: "rank 5", tolerance: angles },
  { args: [tensor([2, 2, 3, 5, 8], { layout: "transposed" }), 8, true, 10000, 1, 2], name: "rank 5 transposed", tolerance: angles },
  { args: [tensor([2, 3, 5, 20]), 12, false, 10000, 0.5, 7], name: "partial", tolerance: angles },
  { args: [tensor([2, 3, 5, 21]), 10, true, 10000, 1, 7], name: "partial, traditional", tolerance: angles },
  { args: [tensor([2, 3, 5, 16], { layout: "sliced" }), 16, false, 10000, 1, 1], tolerance: angles },
  { args: [tensor([2, 3, 5, 16], { layout: "transposed" }), 16, false, 10000, 1, 1], tolerance: angles },
  { args: [tensor([2, 3, 5, 16], { layout: "reversed" }), 16, false, 10000, 1, 1], tolerance: angles },
  { args: [tensor([2, 3, 5, 16]), 16, false, 10000, 1, tensor([2], { dtype: int32, values: [4, 1000] })], name: "offset per batch entry", tolerance: angles },
  { args: [tensor([2, 3, 5, 16]), 16, false, 10000, 1, tensor([], { dtype: int32, values: [9] })], name: "0-d offset", tolerance: angles },
  { args: [tensor([2, 3, 5, 16]), 16, false, 10000, 1, tensor([1], { dtype: uint32, values: [9] })], name: "uint32 offset", tolerance: angles },
  { args: [tensor([2, 3, 5, 16]), 16, false, 10000, 1, tensor([2], { dtype: int64, values: [9, 2] })], name: "int64 offset", tolerance: angles },
  { args: [tensor([2, 3, 5, 16]), 16, false, undefined, 1, 100, tensor([8], { low: 1, high: 5000 })], name: "freqs", tolerance: angles },
  { args: [tensor([2, 3, 5, 16]), 16, true, null, 1, tensor([2], { dtype: int32, values: [4, 1000] }), tensor([8], { dtype: bfloat16, low: 1, high: 5000 })], name: "bfloat16 freqs and offsets", tolerance: angles },
  { args: [tensor([1, 2, 3, 64]), 64, false, 10000, 1, 1_000_000], name: "a million positions", tolerance: angles },
  { args: [tensor([2, 3, 4, 8], { dtype: float64 }), 8, false, 10000, 1, 5], name: "float64, computed in float32", tolerance: { rtol: 0, atol: 2e-6 } },
  { args: [tensor([2, 3, 0, 16]), 16, false, 10000, 1, 0], name: "no positions" },
  { args: [tensor([1, 2, 300, 32], { dtype: bfloat16 }), 32, false, 10000, 1, 0], name: "many positions", tolerance: angles },
];

const qkv = (b: number, h: number, kv: number, tq: number, tk: number, d: number, dv = d, options: TensorOptions = {}): unknown[] => [
  tensor([b, h, tq, d], { ...options, seed: 1 }), tensor([b, kv, tk, d], { ...options, seed: 2 }), tensor([b, kv, tk, dv], { ...options, seed: 3 }), 1 / Math.sqrt(d),
];
const some = { dtype: bool, seed: 9 };
/** Weights share the errors of scores (a few 1e-6). */
const soft = { atol: 8e-6 };
const scaledDotProductAttention: Sample[] = [
  ...floats.flatMap((dtype) => [1, 3, 8, 33].map((tq) => ({ args: [...qkv(2, 4, 2, tq, 70, 64, 64, { dtype }), "causal"], tolerance: soft }))),
  ...[64, 80, 96, 128, 192, 256].flatMap((d) => [1, 9].map((tq) => ({ args: qkv(1, 2, 1, tq, 40, d), name: `head dimension ${d}, ${tq} queries`, tolerance: soft }))),
  { args: qkv(1, 16, 8, 1, 513, 128, 128, { dtype: bfloat16 }), name: "decode", tolerance: soft },
  { args: [...qkv(1, 2, 1, 2, 1500, 32), "causal"], name: "long keys in ranges", tolerance: soft },
  { args: [...qkv(1, 2, 1, 130, 260, 32), "causal"], name: "several tiles", tolerance: soft },
  { args: [...qkv(1, 2, 2, 20, 5, 16), "causal"], name: "more queries than keys", tolerance: soft },
  { args: qkv(1, 3, 3, 9, 17, 7, 5), name: "odd dimensions", tolerance: soft },
  { args: qkv(2, 8, 1, 1, 20, 16), name: "one key head", tolerance: soft },
  { args: qkv(1, 24, 2, 9, 20, 16), name: "12 heads per key head", tolerance: soft },
  { args: qkv(1, 4, 2, 9, 20, 16, 48), name: "wide values", tolerance: soft },
  ...(["sliced", "transposed", "reversed", "broadcast"] as const).flatMap((layout) => [1, 10].map((tq) => ({ args: qkv(2, 4, 2, tq, 33, 16, 16, { layout }), tolerance: soft }))),
  { args: [...qkv(2, 4, 2, 5, 20, 16), tensor([5, 20], some)], name: "bool mask", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([2, 1, 1, 20], some)], name: "bool mask per batch entry", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([20], some)], name: "bool mask of keys", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([2, 4, 12, 20], { ...some, layout: "transposed" })], name: "transposed bool mask", tolerance: soft },
  { args: [...qkv(1, 2, 2, 12, 20, 16), tensor([], { dtype: bool, values: [0] })], name: "everything hidden", tolerance: soft },
  { args: [...qkv(1, 2, 2, 1, 20, 16), tensor([1, 20], { values: [Number.NEGATIVE_INFINITY] })], name: "every score -Infinity", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([12, 20])], name: "additive mask", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([4, 1, 20], { layout: "reversed" })], name: "reversed additive mask per head", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([12, 1], { dtype: float16 })], name: "float16 mask over queries", tolerance: soft },
  { args: [...qkv(2, 4, 2, 12, 20, 16), tensor([12, 20], { dtype: int32 })], name: "integer mask", tolerance: soft },
  { args: [...qkv(1, 4, 2, 12, 20, 16, 16, { dtype: bfloat16 }), tensor([12, 20], { dtype: bfloat16 })], name: "bfloat16 mask", tolerance: soft },
  { args: [...qkv(1, 4, 2, 1, 20, 16), null, tensor([4])], name: "sinks", tolerance: soft },
  { args: [...qkv(1, 4, 2, 12, 20, 16), tensor([12, 20], some), tensor([4])], name: "sinks and bool mask", tolerance: soft },
  { args: [...qkv(1, 4, 2, 12, 20, 16, 16, { dtype: bfloat16 }), "causal", tensor([4], { dtype: bfloat16 })], name: "sinks, causal", tolerance: soft },
  { args: [...qkv(1, 4, 2, 12, 20, 16, 16, { dtype: float64 }), "causal"], name: "float64, computed in float32", tolerance: { rtol: 0, atol: 1e-5 } },
  { args: [tensor([1, 2, 3, 8], { dtype: bfloat16 }), tensor([1, 2, 5, 8]), tensor([1, 2, 5, 8], { dtype: float16 }), 0.3], name: "mixed types", tolerance: soft },
  { args: qkv(1, 2, 2, 0, 5, 8), name: "no queries" },
  { args: qkv(1, 2, 2, 3, 0, 8), name: "no keys" },
  { args: qkv(0, 2, 2, 3, 4, 8), name: "no batch" },
];

/** All of mx.fast but `kernel`, which makes ops. */
export const samples: Record<Exclude<keyof typeof fast, "kernel">, readonly Sample[]> = { rmsNorm, layerNorm, rope, scaledDotProductAttention };
