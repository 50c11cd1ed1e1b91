/** Quantized products as decoding meets them: every matrix of Qwen3-0.6B and 4B, rows shared by several tokens, experts, packing and unpacking. */
import { type Dtype, bfloat16, float32, uint32, uint8 } from "../../src/core/dtype.ts";
import type { GpuKernel } from "../../src/core/gpu.ts";
import { type QmvShape, gpuQmv, launchQmv } from "../../src/ops/quantized-gpu.ts";
import { type FloatMode, modeDefaults } from "../../src/ops/quantized-float.ts";
import type { ProductParams } from "../../src/ops/quantized-launch.ts";
import type { GpuCase, GpuInput } from "./harness.ts";

interface Product {
  readonly what: string;
  readonly N: number;
  readonly K: number;
  readonly M?: number;
  readonly bits?: number;
  readonly groupSize?: number;
  readonly dtype?: Dtype;
  readonly transpose?: boolean;
}
type Full = Required<Product>;
const full = (p: Product): Full => ({ M: 1, bits: 4, groupSize: 128, dtype: bfloat16, transpose: true, ...p });

/** Packed matrices with their scales and biases; the first dimensions choose among them. */
const packed = (lead: readonly number[], rows: number, length: number, { bits, groupSize, dtype }: Pick<Full, "bits" | "groupSize" | "dtype">): GpuInput[] => [
  { dtype: uint32, shape: [...lead, rows, (length * bits) / 32], cold: true },
  { dtype, shape: [...lead, rows, length / groupSize], range: [0.5 / 2 ** bits, 1.5 / 2 ** bits], cold: true },
  { dtype, shape: [...lead, rows, length / groupSize], range: [-1, 0], cold: true },
];
const operands = (p: Full): GpuInput[] => [{ dtype: p.dtype, shape: [p.M, p.K] }, ...(p.transpose ? packed([], p.N, p.K, p) : packed([], p.K, p.N, p))];

function integerAt(words: ArrayLike<number>, at: number, bits: number): number {
  const [word, shift] = [Math.floor(at / 32), at % 32];
  const low = Math.floor((words[word] as number) / 2 ** shift);
  return (shift + bits > 32 ? low + (words[word + 1] as number) * 2 ** (32 - shift) : low) % 2 ** bits;
}
/** Value `at` of packed matrices. */
const valueAt = ([w, s, b]: readonly ArrayLike<number>[], at: number, { bits, groupSize }: Pick<Full, "bits" | "groupSize">): number => {
  const g = Math.floor(at / groupSize);
  return integerAt(w as ArrayLike<number>, at * bits, bits) * ((s as ArrayLike<number>)[g] as number) + ((b as ArrayLike<number>)[g] as number);
};
const expectedOf = (p: Full) => ([x, ...matrix]: readonly ArrayLike<number>[], at: number): number => {
  const [m, n] = [Math.floor(at / p.N), at % p.N];
  let sum = 0;
  for (let k = 0; k < p.K; k++) sum += ((x as ArrayLike<number>)[m * p.K + k] as number) * valueAt(matrix, p.transpose ? n * p.K + k : k * p.N + n, p);
  return sum;
};
const tolerance = { relative: 2 ** -8 * 1.01, absolute: 1e-3 };

function product(given: Product, more: Partial<GpuCase> = {}): GpuCase {
  const p = full(given);
  const { what, N, K, M, bits, groupSize, dtype, transpose } = p;
  const params: ProductParams = { transpose, groupSize, bits };
  const small = transpose ? { ...p, N: 37 } : { ...p, K: 37 };
  return {
    name: `${what} M=${M} N=${N} K=${K} ${bits}-bit g${groupSize} ${dtype}${transpose ? "" : " [K,N]"}`,
    op: "quantizedMatmul",
    inputs: operands(p),
    params,
    bytes: (N * K * bits) / 8 + ((2 * N * K) / groupSize + M * (N + K)) * dtype.size,
    flops: 2 * M * N * K,
    check: { inputs: operands(small) },
    expected: expectedOf(p),
    tolerance,
    ...more,
  };
}

/** The matrices of one layer, and the output matrix. */
const qwen06: readonly Product[] = [
  { what: "0.6B q", N: 2048, K: 1024 }, { what: "0.6B k v", N: 1024, K: 1024 }, { what: "0.6B qkv", N: 4096, K: 1024 }, { what: "0.6B o", N: 1024, K: 2048 },
  { what: "0.6B gate up", N: 3072, K: 1024 }, { what: "0.6B gate+up", N: 6144, K: 1024 }, { what: "0.6B down", N: 1024, K: 3072 }, { what: "0.6B output", N: 151936, K: 1024 },
];
const qwen4: readonly Product[] = [
  { what: "4B q", N: 4096, K: 2560 }, { what: "4B k v", N: 1024, K: 2560 }, { what: "4B o", N: 2560, K: 4096 }, { what: "4B gate up", N: 9728, K: 2560 },
  { what: "4B down", N: 2560, K: 9728 }, { what: "4B output", N: 151936, K: 2560 },
];

/** The same kernel, cut up in other ways: shows whether `qmvShape` chooses well. */
const shapes: readonly QmvShape[] = [1, 2, 4].flatMap((rows) =>
  [1, 2, 3, 4, 5].flatMap((split) => [1, 2, 3].flatMap((steps) => [2, 4, 6, 8, 10, 12, 16].filter((s) => s % split === 0).map((subgroups) => ({ rows, steps, split, subgroups })))),
);
const shaped = (shape: QmvShape): GpuKernel<ProductParams> => ({
  ...gpuQmv,
  name: `vulkan/quantized/qmv rows ${shape.rows} steps ${shape.steps} split ${shape.split} of ${shape.subgroups}`,
  launch: (inputs, outputs, p, device) => launchQmv(inputs, outputs, p, device, shape),
});
const sweep = (p: Product): GpuCase => {
  const length = p.K / 1024;
  // Only what covers the length of a row without much waste, in few passes.
  const fitting = shapes.filter(({ steps, split, rows }) => {
    const passes = Math.ceil(length / (steps * split));
    return passes * steps * split <= Math.max(1, length * 1.25) && passes <= 3 && steps * rows <= 8;
  });
  return product({ ...p, what: `sweep ${p.what}` }, { variants: fitting.map(shaped), usual: false });
};

/** One token's experts: 8 of 64 matrices of Qwen3-30B-A3B's shape (128 there). */
function experts(M: number): GpuCase {
  const p = { bits: 4, groupSize: 128, dtype: bfloat16 };
  const [count, all, N, K] = [8, 64, 768, 2048];
  const index = (shape: readonly number[], values: (i: number) => number): GpuInput => ({ dtype: uint32, shape, values });
  return {
    name: `experts ${count} of ${all}, M=${M} N=${N} K=${K}`,
    op: "gatherQMM",
    inputs: [{ dtype: bfloat16, shape: [1, M, K] }, ...packed([all], N, K, p), index([count], () => 0), index([count], (i) => (i * 29 + 3) % all)],
    params: { transpose: true, groupSize: 128, bits: 4 },
    bytes: count * ((N * K) / 2 + (4 * N * K) / 128),
    flops: 2 * count * M * N * K,
    check: { inputs: [{ dtype: bfloat16, shape: [1, M, K] }, ...packed([3], 5, K, p), index([2], () => 0), index([2], (i) => 2 - i)] },
    tolerance,
  };
}

/** Products with matrices of small floats: codes below the largest ones, scales around 1. */
function smallProduct(mode: FloatMode, M: number, N: number, K: number): GpuCase {
  const { groupSize, bits } = modeDefaults[mode];
  const inputs = (rows: number): GpuInput[] => [
    { dtype: bfloat16, shape: [M, K] }, { dtype: uint32, shape: [rows, (K * bits) / 32], range: [0, 0x70000000], cold: true },
    { dtype: uint8, shape: [rows, K / groupSize], range: mode === "nvfp4" ? [0x28, 0x40] : mode === "mxfp8" ? [117, 121] : [124, 128], cold: true },
  ];
  return {
    name: `${mode} M=${M} N=${N} K=${K}`, op: "quantizedMatmul", inputs: inputs(N), params: { transpose: true, groupSize, bits, mode },
    bytes: (N * K * bits) / 8 + (N * K) / groupSize + 2 * M * (N + K), flops: 2 * M * N * K, check: { inputs: inputs(37) }, tolerance: { relative: 2 ** -7, absolute: 0.5 },
  };
}

const packing = (dtype: Dtype, bits: number): GpuCase[] => {
  const [rows, length, groupSize] = [4096, 4096, 64];
  const bytes = rows * length * (dtype.size + bits / 8 + (2 * dtype.size) / groupSize);
  const p = { bits, groupSize, dtype };
  return [
    // The smaller case is exact in its integers too: any error of an integer in a word's upper half exceeds the tolerance, and the tests compare all bits.
    { name: `quantize ${dtype} ${bits}-bit ${rows}x${length}`, op: "quantize", inputs: [{ dtype, shape: [rows, length], cold: true }], params: { groupSize, bits }, bytes, check: { inputs: [{ dtype, shape: [16, length] }] }, tolerance: { relative: 2 ** -8, absolute: 1e-6 } },
    { name: `dequantize ${dtype} ${bits}-bit ${rows}x${length}`, op: "dequantize", inputs: packed([], rows, length, p), params: { groupSize, bits, dtype }, bytes, check: { inputs: packed([], 16, length, p) }, expected: (i, at) => valueAt(i, at, p), tolerance },
  ];
};

export const cases: readonly GpuCase[] = [
  ...qwen06.map((p) => product(p)),
  ...qwen4.map((p) => product(p)),
  ...[2, 3, 4, 6, 8].flatMap((M) => qwen06.filter((p) => /gate up|down|output/.test(p.what)).map((p) => product({ ...p, M }))),
  ...[2, 3, 5, 6, 8].map((bits) => product({ what: "bits", N: 151936, K: 1024, bits, groupSize: 64 })),
  ...[1, 4].flatMap((M) => [product({ what: "plain", M, N: 3072, K: 1024, transpose: false }), product({ what: "plain", M, N: 1024, K: 3072, transpose: false })]),
  ...[1, 4].map(experts),
  ...(["mxfp4", "nvfp4", "mxfp8"] as const).flatMap((mode) => [1, 4, 512].map((M) => smallProduct(mode, M, 3072, 1024))),
  ...packing(bfloat16, 4),
  ...packing(float32, 8),
  ...packing(bfloat16, 3),
  ...qwen06.map(sweep),
  ...qwen4.map(sweep),
];
