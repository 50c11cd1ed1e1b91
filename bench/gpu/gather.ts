/** Moving data: copies of every kind, gathers, scatters, sorts, random bits. */
import { type Dtype, bfloat16, bool, float32, int32, uint32, uint8 } from "../../src/core/dtype.ts";
import { rowStrides, sizeOf } from "../../src/core/shape.ts";
import type { GpuCase, GpuInput } from "./harness.ts";

const exact = { relative: 0, absolute: 0 };
const permuted = (dtype: Dtype, from: readonly number[], axes: readonly number[]): GpuInput => ({
  dtype, shape: axes.map((a) => from[a] as number), strides: axes.map((a) => rowStrides(from)[a] as number), cold: true,
});
/** A copy of a view; checked on a smaller view of the same kind. */
const copy = (name: string, a: GpuInput, check: GpuInput): GpuCase => ({
  name: `copy ${name}`, op: "copy", inputs: [a], params: {}, bytes: 2 * sizeOf(a.shape) * a.dtype.size, check: { inputs: [check] }, tolerance: exact,
});
const transposed = (dtype: Dtype, rows: number, columns: number): GpuCase => copy(`transpose ${dtype} ${rows}x${columns}`, permuted(dtype, [rows, columns], [1, 0]), permuted(dtype, [65, 130], [1, 0]));

/** Rows of a table, as an embedding takes them. */
const rows = (dtype: Dtype, table: number, width: number, count: number): GpuCase => ({
  name: `gather ${count} rows of ${dtype} ${table}x${width}`,
  op: "gather",
  inputs: [{ dtype, shape: [table, width] }, { dtype: int32, shape: [count], range: [0, table] }],
  params: { axes: [0], at: 0 },
  bytes: 2 * count * width * dtype.size,
  check: { inputs: [{ dtype, shape: [50, width] }, { dtype: int32, shape: [7], range: [0, 50] }] },
  tolerance: exact,
});
const along = (dtype: Dtype, lines: number, width: number, take: number): GpuCase => ({
  name: `takeAlongAxis ${dtype} ${lines}x${width}, ${take}`,
  op: "takeAlongAxis",
  inputs: [{ dtype, shape: [lines, width] }, { dtype: uint32, shape: [lines, take], range: [0, width] }],
  params: { axis: 1 },
  bytes: lines * take * (4 + 2 * dtype.size),
  check: { inputs: [{ dtype, shape: [3, 100] }, { dtype: uint32, shape: [3, 60], range: [0, 100] }] },
  tolerance: exact,
});
const region = (table: number, width: number) => ({ start: [0, 0], step: [1, 1], shape: [table, width] });
/** Gradient of an embedding. Values are integers, so that the order does not matter. */
const scatterAdd = (dtype: Dtype, table: number, width: number, count: number): GpuCase => ({
  name: `scatter add ${count} rows of ${dtype} to ${table}x${width}`,
  op: "scatter",
  inputs: [{ dtype, shape: [table, width], values: () => 0 }, { dtype, shape: [count, width], values: (i) => i % 3 }, { dtype: int32, shape: [count], range: [0, table] }],
  params: { axes: [0], at: 0, mode: "add", region: region(table, width) },
  bytes: 3 * count * width * dtype.size,
  check: {
    inputs: [{ dtype, shape: [9, 64], values: () => 0 }, { dtype, shape: [20, 64], values: (i) => i % 3 }, { dtype: int32, shape: [20], range: [0, 9] }],
    params: { axes: [0], at: 0, mode: "add", region: region(9, 64) },
  },
  tolerance: exact,
});
const sorted = (op: "sort" | "argsort", dtype: Dtype, lines: number, width: number): GpuCase => ({
  name: `${op} ${dtype} ${lines}x${width}`, op, inputs: [{ dtype, shape: [lines, width], cold: true }], params: {}, bytes: lines * width * (dtype.size + (op === "sort" ? dtype.size : 4)),
  check: { inputs: [{ dtype, shape: [2, Math.min(width, 5000)] }] }, tolerance: exact,
});

export const cases: readonly GpuCase[] = [
  copy("contiguous bfloat16 64 MiB", { dtype: bfloat16, shape: [2 ** 25], cold: true }, { dtype: bfloat16, shape: [1001] }),
  copy("rows float32 4096x4096 of 4096x8192", { dtype: float32, shape: [4096, 4096], strides: [8192, 1], cold: true }, { dtype: float32, shape: [5, 33], strides: [66, 1] }),
  copy("every second bfloat16 2^24", { dtype: bfloat16, shape: [2 ** 24], strides: [2], cold: true }, { dtype: bfloat16, shape: [99], strides: [2] }),
  copy("heads bfloat16 2048x32x128", permuted(bfloat16, [2048, 32, 128], [1, 0, 2]), permuted(bfloat16, [9, 4, 128], [1, 0, 2])),
  transposed(float32, 4096, 4096), transposed(bfloat16, 4096, 4096), transposed(uint8, 8192, 8192),
  {
    name: "concatenate bfloat16 2 x 32x2048x128 on axis 1", op: "concatenate", params: { axis: 1 }, bytes: 2 * 2 * 32 * 2048 * 128 * 2,
    inputs: [{ dtype: bfloat16, shape: [32, 2048, 128], cold: true }, { dtype: bfloat16, shape: [32, 2048, 128], cold: true }],
    check: { inputs: [{ dtype: bfloat16, shape: [3, 5, 128] }, { dtype: bfloat16, shape: [3, 7, 128] }] }, tolerance: exact,
  },
  {
    name: "pad float32 8x128x128x64 by 1", op: "pad", params: { low: [0, 1, 1, 0], high: [0, 1, 1, 0] }, bytes: 4 * 8 * 64 * (128 * 128 + 130 * 130),
    inputs: [{ dtype: float32, shape: [8, 128, 128, 64], cold: true }, { dtype: float32, shape: [] }],
    check: { inputs: [{ dtype: float32, shape: [2, 5, 6, 64] }, { dtype: float32, shape: [] }] }, tolerance: exact,
  },
  { name: "full float32 64 MiB", op: "full", inputs: [{ dtype: float32, shape: [] }], params: { shape: [2 ** 24] }, bytes: 2 ** 26, check: { inputs: [{ dtype: float32, shape: [] }], params: { shape: [5001] } }, tolerance: exact },
  rows(bfloat16, 151936, 4096, 1), rows(bfloat16, 151936, 4096, 2048), rows(float32, 100000, 64, 2 ** 18),
  along(float32, 64, 151936, 4096), along(float32, 1, 151936, 151936),
  scatterAdd(float32, 32000, 1024, 4096), scatterAdd(bfloat16, 32000, 1024, 4096), scatterAdd(float32, 4, 1024, 4096),
  {
    name: "maskedScatter float32 2^22", op: "maskedScatter", params: { depth: 1 }, bytes: 2 ** 22 * 9,
    inputs: [{ dtype: float32, shape: [2 ** 22] }, { dtype: bool, shape: [2 ** 22] }, { dtype: float32, shape: [2 ** 22] }],
    check: { inputs: [{ dtype: float32, shape: [5000] }, { dtype: bool, shape: [5000] }, { dtype: float32, shape: [5000] }] }, tolerance: exact,
  },
  sorted("sort", float32, 4096, 1024), sorted("argsort", float32, 1, 151936), sorted("argsort", bfloat16, 8, 151936), sorted("sort", float32, 1, 2 ** 24), sorted("sort", float32, 2 ** 20, 8),
  {
    name: "randomBits 2^24 words", op: "randomBits", inputs: [{ dtype: uint32, shape: [2] }], params: { shape: [2 ** 24], width: 4 }, bytes: 2 ** 26,
    check: { inputs: [{ dtype: uint32, shape: [2] }], params: { shape: [5001], width: 4 } }, tolerance: exact,
  },
  {
    name: "arange int32 2^24", op: "arange", inputs: [], params: { size: 2 ** 24, start: 0, step: 1, last: undefined, dtype: int32 }, bytes: 2 ** 26,
    check: { inputs: [], params: { size: 5001, start: 0, step: 1, last: undefined, dtype: int32 } }, tolerance: exact,
  },
];
