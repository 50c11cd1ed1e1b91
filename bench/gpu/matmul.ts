/** Dense products (square, prefill, attention, matrix times vector) and quantized products of many rows. */
import { type Dtype, bfloat16, float16, float32, uint32 } from "../../src/core/dtype.ts";
import type { GpuKernel } from "../../src/core/gpu.ts";
import { type MatrixTile, matmulWithTiles } from "../../src/ops/matmul-gpu.ts";
import { quantizedWithTiles } from "../../src/ops/quantized-mm-gpu.ts";
import type { GpuCase, GpuInput } from "./harness.ts";

interface Dense {
  readonly what: string;
  readonly dtype: Dtype;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly batch?: number;
  /** a is stored [K, M], b [N, K]. */
  readonly aTurned?: boolean;
  readonly bTurned?: boolean;
}
/** [batch, rows, columns], stored so or with rows and columns exchanged. */
const matrix = (dtype: Dtype, batch: number, rows: number, columns: number, turned = false, cold = false): GpuInput => {
  const strides = turned ? [1, rows] : [columns, 1];
  return batch === 1 ? { dtype, shape: [rows, columns], strides, cold } : { dtype, shape: [batch, rows, columns], strides: [rows * columns, ...strides], cold };
};
const inputsOf = ({ dtype, M, N, K, batch = 1, aTurned, bTurned }: Dense): GpuInput[] => [matrix(dtype, batch, M, K, aTurned), matrix(dtype, batch, K, N, bTurned, M < 64)];
const expectedDense = ({ M, N, K, aTurned, bTurned }: Dense) => ([a, b]: readonly ArrayLike<number>[], at: number): number => {
  const g = Math.floor(at / (M * N));
  const [m, n] = [Math.floor(at / N) % M, at % N];
  let sum = 0;
  for (let k = 0; k < K; k++) sum += ((a as ArrayLike<number>)[g * M * K + (aTurned ? k * M + m : m * K + k)] as number) * ((b as ArrayLike<number>)[g * N * K + (bTurned ? n * K + k : k * N + n)] as number);
  return sum;
};
const turnedText = (p: Dense): string => `${p.aTurned ? "T" : "N"}${p.bTurned ? "T" : "N"}`;
/** Rounding of the result, and sums of `K` numbers below 1 in any order. */
const tolerance = (dtype: Dtype, K: number) => ({ relative: dtype === float32 ? 1e-5 : dtype === float16 ? 2 ** -10 : 2 ** -7, absolute: 2e-6 * K });

function dense(p: Dense, more: Partial<GpuCase> = {}): GpuCase {
  const { what, dtype, M, N, K, batch = 1 } = p;
  const side = (n: number): number => Math.min(n, 150);
  return {
    name: `${what} ${batch === 1 ? "" : `${batch}x`}${M}x${N}x${K} ${turnedText(p)} ${dtype}`,
    op: "matmul",
    inputs: inputsOf(p),
    params: {},
    bytes: batch * (M * K + N * K + M * N) * dtype.size,
    flops: 2 * batch * M * N * K,
    check: { inputs: inputsOf({ ...p, batch: Math.min(batch, 2), M: side(M), N: side(N), K: side(K) }) },
    expected: expectedDense(p),
    tolerance: tolerance(dtype, K),
    ...more,
  };
}

interface Quantized {
  readonly what: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly dtype?: Dtype;
  readonly bits?: number;
  readonly groupSize?: number;
}
const quantizedInputs = (dtype: Dtype, M: number, N: number, K: number, bits: number, groupSize: number): GpuInput[] => [
  { dtype, shape: [M, K] },
  { dtype: uint32, shape: [N, (K * bits) / 32], cold: true },
  { dtype, shape: [N, K / groupSize], range: [0.5 / 2 ** bits, 1.5 / 2 ** bits], cold: true },
  { dtype, shape: [N, K / groupSize], range: [-1, 0], cold: true },
];
function quantized({ what, M, N, K, dtype = bfloat16, bits = 4, groupSize = 64 }: Quantized, more: Partial<GpuCase> = {}): GpuCase {
  return {
    name: `quantized ${what} M=${M} N=${N} K=${K} ${bits}-bit g${groupSize} ${dtype}`,
    op: "quantizedMatmul",
    inputs: quantizedInputs(dtype, M, N, K, bits, groupSize),
    params: { bits, groupSize, transpose: true },
    bytes: (N * K * bits) / 8 + ((2 * N * K) / groupSize + M * (N + K)) * dtype.size,
    flops: 2 * M * N * K,
    check: { inputs: quantizedInputs(dtype, Math.min(M, 70), 150, 2 * groupSize, bits, groupSize) },
    // On matrix units weights are rounded to x's type before they are multiplied.
    tolerance: { relative: 2 ** -8 * 1.01, absolute: dtype === float32 ? 1e-3 : 2 ** -8 * Math.sqrt(K) },
    ...more,
  };
}

const named = (t: MatrixTile): string => `${t.BM}x${t.BN}x${t.BK} by ${t.WM}x${t.WN} stages ${t.stages}`;
const tile = (BM: number, BN: number, BK: number, WM: number, WN: number, stages: 1 | 2): MatrixTile => ({ BM, BN, BK, WM, WN, stages });
const tiles: readonly MatrixTile[] = [
  tile(128, 128, 32, 64, 64, 2), tile(128, 128, 32, 64, 32, 2), tile(128, 128, 64, 64, 64, 1), tile(128, 128, 64, 64, 32, 1), tile(128, 128, 32, 32, 64, 2), tile(128, 128, 32, 64, 64, 1),
  tile(256, 128, 32, 64, 64, 1), tile(128, 256, 32, 64, 64, 1), tile(256, 128, 32, 128, 32, 1), tile(128, 64, 32, 32, 64, 2), tile(128, 64, 64, 64, 32, 1), tile(64, 128, 32, 32, 64, 2),
  tile(64, 64, 64, 32, 32, 2), tile(64, 64, 64, 32, 32, 1), tile(64, 64, 32, 32, 32, 2), tile(64, 64, 64, 64, 16, 1), tile(32, 64, 64, 16, 32, 2), tile(32, 32, 64, 16, 16, 2), tile(32, 128, 64, 32, 32, 1),
];
const denseSweep = (p: Dense): GpuCase =>
  dense({ ...p, what: `sweep ${p.what}` }, { kernel: "none", usual: false, variants: tiles.map((t): GpuKernel => ({ ...matmulWithTiles([t]), name: `vulkan/matmul/coopmat ${named(t)}` })) });
const quantizedSweep = (p: Quantized): GpuCase => {
  const sweep = quantized({ ...p, what: `sweep ${p.what}` }, { kernel: "none", usual: false, variants: tiles.map((t) => ({ ...quantizedWithTiles([t]), name: `vulkan/quantized/mm_coopmat ${named(t)}` })) });
  return { ...sweep, name: sweep.name.replace("quantized sweep", "sweep quantized") };
};

const square = (dtype: Dtype, n: number): Dense => ({ what: "square", dtype, M: n, N: n, K: n });
/** The matrices of a layer of Qwen3-0.6B. */
const layer = [["q", 2048, 1024], ["k v", 1024, 1024], ["o", 1024, 2048], ["gate up", 3072, 1024], ["gate+up", 6144, 1024], ["down", 1024, 3072]] as const;

export const cases: readonly GpuCase[] = [
  ...[bfloat16, float16, float32].flatMap((dtype) => [1024, 2048, 4096].map((n) => dense(square(dtype, n)))),
  ...[[false, true], [true, false], [true, true]].map(([aTurned, bTurned]) => dense({ ...square(bfloat16, 4096), aTurned, bTurned } as Dense)),
  dense({ what: "odd", dtype: bfloat16, M: 1023, N: 1021, K: 1025 }),
  ...layer.map(([what, N, K]) => dense({ what: `prefill ${what}`, dtype: bfloat16, M: 512, N, K, bTurned: true })),
  dense({ what: "scores", dtype: bfloat16, batch: 16, M: 512, N: 512, K: 128, bTurned: true }),
  dense({ what: "values", dtype: bfloat16, batch: 16, M: 512, N: 128, K: 512 }),
  dense({ what: "weight gradient", dtype: float32, M: 1024, N: 1024, K: 4096, aTurned: true }),
  ...[true, false].flatMap((bTurned) => [[1024, 1024], [6144, 1024], [4096, 4096], [151936, 1024]].map(([N, K]) => dense({ what: "row", dtype: bfloat16, M: 1, N: N as number, K: K as number, bTurned }))),
  dense({ what: "row", dtype: float32, M: 1, N: 4096, K: 4096, bTurned: true }),
  ...[2, 4, 8, 16, 32].map((M) => dense({ what: "rows", dtype: bfloat16, M, N: 4096, K: 4096, bTurned: true })),
  ...layer.flatMap(([what, N, K]) => [16, 64, 512].map((M) => quantized({ what, M, N, K }))),
  quantized({ what: "gate up", M: 2048, N: 3072, K: 1024 }),
  quantized({ what: "4096", M: 4096, N: 4096, K: 4096 }),
  ...[2, 3, 5, 6, 8].map((bits) => quantized({ what: "gate up", M: 512, N: 3072, K: 1024, bits })),
  quantized({ what: "gate up", M: 512, N: 3072, K: 1024, dtype: float16 }),
  quantized({ what: "gate up", M: 512, N: 3072, K: 1024, dtype: float32 }),
  ...[1024, 4096].map((n) => denseSweep(square(bfloat16, n))),
  denseSweep({ what: "prefill gate up", dtype: bfloat16, M: 512, N: 3072, K: 1024, bTurned: true }),
  ...layer.map(([what, N, K]) => quantizedSweep({ what, M: 512, N, K })),
  ...layer.slice(1, 4).map(([what, N, K]) => quantizedSweep({ what, M: 16, N, K })),
];
