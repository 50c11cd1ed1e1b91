/** Kernels and launches of the dense products, alone, against a float64 triple loop. */
import { describe, expect, it } from "vitest";
import { bfloat16, type Dtype, float16, float32, float64, fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "../src/core/dtype.ts";
import { type Arg, input, type Launch, type Pointer } from "../src/core/op.ts";
import { launchProduct, type Operand, type Product } from "../src/ops/gemm.ts";
import { builds, KernelBench } from "./helpers/kernels.ts";

let state = 1;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 31 - 1;
};

/** Puts numbers of a dtype into the memory of the bench; returns the address and the values as stored. */
function store(bench: KernelBench, dtype: Dtype, n: number): { at: number; values: Float64Array } {
  const values = new Float64Array(n);
  const bits = dtype === float64 ? new Float64Array(n) : dtype === float32 ? new Float32Array(n) : new Uint16Array(n);
  for (let i = 0; i < n; i++) {
    const x = random();
    bits[i] = dtype === bfloat16 ? toBfloat16Bits(x) : dtype === float16 ? toFloat16Bits(x) : x;
    const b = bits[i] as number;
    values[i] = dtype === bfloat16 ? fromBfloat16Bits(b) : dtype === float16 ? fromFloat16Bits(b) : b;
  }
  return { at: bench.put(bits), values };
}
function read(bench: KernelBench, dtype: Dtype, at: number, n: number): Float64Array {
  const bytes = bench.memory.buffer.slice(at, at + n * dtype.size) as unknown as ArrayBuffer;
  if (dtype === float64) return new Float64Array(bytes);
  if (dtype === float32) return Float64Array.from(new Float32Array(bytes));
  return Float64Array.from(new Uint16Array(bytes), dtype === bfloat16 ? fromBfloat16Bits : fromFloat16Bits);
}

/** Runs a launch on one thread, in chunks of its grain, the last chunk first. */
function execute(bench: KernelBench, launch: Launch, inputs: readonly number[], out: number): void {
  const scratch = (launch.scratch ?? []).map((bytes) => bench.alloc(bytes));
  const address = (p: Pointer): number => (((p.of === "input" ? inputs : p.of === "output" ? [out] : scratch)[p.index] as number) + p.bytes) | 0;
  const word = (a: Arg): number | { f32: number } => (typeof a === "object" && "of" in a ? address(a) : a);
  for (const step of launch.steps) {
    const chunks: number[] = [];
    for (let u = 0; u < step.units; u += step.grain) chunks.push(u);
    for (const u of chunks.reverse()) bench.run((step.entry as string).slice(5), step.args.map(word), u, Math.min(step.units, u + step.grain));
  }
}

interface Case {
  readonly dtype: Dtype;
  readonly batch?: readonly number[];
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** Operands stored transposed, or every second column of a wider matrix, or one matrix for all of the batch. */
  readonly a?: "transposed" | "strided" | "shared";
  readonly b?: "transposed" | "strided" | "shared";
  readonly c?: "full" | "row" | "column" | "scalar";
  readonly alpha?: number;
  readonly beta?: number;
}

/** Layout of [count, rows, columns] in a storage of `size` elements. */
function layout(kind: string | undefined, batch: readonly number[], rows: number, columns: number): { size: number; row: number; column: number; strides: number[] } {
  const gap = kind === "strided" ? 3 : 1;
  const [row, column] = kind === "transposed" ? [1, rows] : [columns * gap, gap];
  const strides: number[] = [];
  let step = rows * columns * gap;
  for (let i = batch.length - 1; i >= 0; i--) {
    strides.unshift(kind === "shared" ? 0 : step);
    if (kind !== "shared") step *= batch[i] as number;
  }
  return { size: step, row, column, strides };
}

const offset = (batch: readonly number[], strides: readonly number[], g: number): number => {
  let at = 0;
  for (let i = batch.length - 1; i >= 0; i--) {
    at += (g % (batch[i] as number)) * (strides[i] as number);
    g = Math.floor(g / (batch[i] as number));
  }
  return at;
};

/** Largest error, relative to what rounding allows for that element: one rounding of the result and K + 4 of the sum of magnitudes. */
function worst(bench: KernelBench, t: Case): number {
  const { dtype, M, N, K, batch = [], alpha = 1, beta = t.c ? 1 : 0 } = t;
  const count = batch.reduce((x, y) => x * y, 1);
  const la = layout(t.a, batch, M, K);
  const lb = layout(t.b, batch, K, N);
  const lc = { row: t.c === "full" || t.c === "column" ? (t.c === "full" ? N : 1) : 0, column: t.c === "full" || t.c === "row" ? 1 : 0 };
  const cBatch = t.c === "full" ? layout(undefined, batch, M, N).strides : batch.map(() => 0);
  const a = store(bench, dtype, la.size);
  const b = store(bench, dtype, lb.size);
  const c = store(bench, dtype, count * M * N + M + N);
  const out = bench.alloc(count * M * N * dtype.size + 64);
  const operand = (i: number, l: { row: number; column: number }, strides: readonly number[]): Operand => ({ at: input(i), row: l.row, column: l.column, matrices: { shape: batch, strides } });
  const base: Product = { dtype, batch, M, N, K, a: operand(0, la, la.strides), b: operand(1, lb, lb.strides), alpha, beta };
  execute(bench, launchProduct(t.c ? { ...base, c: operand(2, lc, cBatch) } : base), [a.at, b.at, c.at], out);
  expect(new Uint8Array(bench.memory.buffer, out + count * M * N * dtype.size, 64).every((x) => x === 0xaa), "guard bytes behind the output").toBe(true);
  const got = read(bench, dtype, out, count * M * N);
  const unit = dtype === float64 ? 2 ** -53 : 2 ** -24;
  const rounding = dtype === bfloat16 ? 2 ** -8 : dtype === float16 ? 2 ** -11 : unit;
  let error = 0;
  for (let g = 0; g < count; g++) {
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        let sum = 0;
        let size = 0;
        for (let k = 0; k < K; k++) {
          const p = (a.values[offset(batch, la.strides, g) + m * la.row + k * la.column] as number) * (b.values[offset(batch, lb.strides, g) + k * lb.row + n * lb.column] as number);
          sum += p;
          size += Math.abs(p);
        }
        const extra = t.c ? beta * (c.values[offset(batch, cBatch, g) + m * lc.row + n * lc.column] as number) : 0;
        const want = alpha * sum + extra;
        const allowed = Math.abs(want) * rounding + (Math.abs(alpha) * size + Math.abs(extra)) * (K + 4) * unit + (dtype === float16 ? 2 ** -25 : 0);
        const e = Math.abs((got[(g * M + m) * N + n] as number) - want);
        if (!(e <= allowed)) error = Math.max(error, Number.isNaN(e) ? Number.POSITIVE_INFINITY : e / Math.max(allowed, 1e-300));
      }
    }
  }
  return error;
}

const all = [float32, bfloat16, float16, float64];
const name = (t: Case): string => `${t.dtype} ${(t.batch ?? []).join("x")}[${t.M},${t.K}]x[${t.K},${t.N}] ${t.a ?? ""}|${t.b ?? ""} ${t.c ? `c ${t.c}` : ""}`;
const cases: Case[] = [];
for (const dtype of all) {
  for (const [M, N, K] of [[1, 1, 1], [1, 7, 5], [1, 64, 33], [1, 130, 40], [2, 9, 17], [3, 66, 24], [4, 5, 31], [5, 40, 16], [8, 33, 70], [9, 9, 9], [11, 64, 12], [12, 65, 257], [13, 70, 300], [24, 8, 4], [33, 3, 65], [70, 1, 19], [100, 100, 6], [520, 17, 8]] as const) {
    cases.push({ dtype, M, N, K }, { dtype, M, N, K, b: "transposed" });
    if (M > 4) cases.push({ dtype, M, N, K, a: "transposed" }, { dtype, M, N, K, a: "transposed", b: "transposed" });
  }
  for (const M of [1, 6, 20]) {
    cases.push({ dtype, M, N: 19, K: 21, a: "strided", b: "strided" }, { dtype, M, N: 19, K: 21, batch: [2, 3] }, { dtype, M, N: 19, K: 21, batch: [2, 3], b: "transposed" });
    cases.push({ dtype, M, N: 19, K: 21, batch: [2, 3], b: "shared" }, { dtype, M, N: 19, K: 21, batch: [5], a: "shared" }, { dtype, M, N: 19, K: 21, batch: [5], a: "shared", b: "transposed" });
    for (const c of ["full", "row", "column", "scalar"] as const) {
      cases.push({ dtype, M, N: 21, K: 13, c, alpha: 0.75, beta: -0.5 }, { dtype, M, N: 21, K: 13, c, batch: [3], b: "transposed" }, { dtype, M, N: 21, K: 13, c, batch: [3], b: "shared" });
    }
    cases.push({ dtype, M, N: 10, K: 0, c: "full", beta: 2 }, { dtype, M, N: 10, K: 0 }, { dtype, M, N: 10, K: 0, b: "transposed" }, { dtype, M, N: 21, K: 5, alpha: 0.5 });
  }
}

describe.each(builds)("%s build", (build) => {
  it.each(all.map((d) => [d.name, d] as const))("products in %s", (_, dtype) => {
    const bench = new KernelBench("gemm", build);
    const failed = cases.filter((t) => t.dtype === dtype).map((t) => [name(t), worst(bench, t)] as const).filter(([, e]) => e > 0);
    expect(failed).toEqual([]);
  });

  it("a left operand read where it lies gives what a packed one gives", () => {
    const bench = new KernelBench("gemm", build);
    for (const [M, N, K, gap] of [[520, 130, 64, 0], [100, 65, 256, 0], [37, 64, 12, 5], [101, 66, 600, 0]] as const) {
      // Transposed storage takes any K, rows only short sums.
      const [a, b] = [store(bench, float32, M * (K + gap)).at, store(bench, float32, K * N).at];
      const at = (i: number, row: number): Operand => ({ at: input(i), row, column: 1, matrices: { shape: [], strides: [] } });
      const lefts = [{ ...at(0, 1), column: M }, at(0, K + gap)].filter((l) => (l.column === 1 ? K <= 256 : M <= 256));
      for (const [left, right] of lefts.flatMap((l) => [[l, at(1, N)], [l, { ...at(1, 1), column: K }]] as const)) {
        const results = [0, 1].map((way) => {
          const launch = launchProduct({ dtype: float32, batch: [], M, N, K, a: left, b: right, alpha: 1, beta: 0 }, { way });
          expect(launch.steps.map((s) => s.entry)).toEqual(way === 1 ? ["gemm/pack", "gemm/gemm"] : [left.column === 1 ? "gemm/direct" : "gemm/directColumns"]);
          const out = bench.alloc(M * N * 4);
          execute(bench, launch, [a, b], out);
          return Array.from(bench.f32(out, M * N));
        });
        expect(results[0]).toEqual(results[1]);
      }
    }
  });

  it("chosen matrices, sorted or not, repeated and beyond the end", () => {
    const failed: string[] = [];
    const bench = new KernelBench("gemm", build);
    for (const dtype of [float32, bfloat16, float16, float64]) {
      for (const M of [1, 3, 14]) {
        for (const [count, sorted] of [[5, false], [40, true], [40, false]] as const) {
          for (const kind of ["transposed", undefined]) {
            const e = gathered(bench, dtype, M, count, sorted, kind);
            if (e > 0) failed.push(`${dtype} M=${M} ${count} ${sorted ? "sorted" : "unsorted"} ${kind}: ${e}`);
          }
        }
      }
    }
    expect(failed).toEqual([]);
  });

  it("infinities and NaN go where arithmetic sends them", () => {
    for (const M of [1, 16]) {
      const bench = new KernelBench("gemm", build);
      const [N, K] = [16, 16];
      const a = new Float32Array(M * K).fill(1);
      const b = new Float32Array(K * N).fill(1);
      b[3 * N + 2] = Number.POSITIVE_INFINITY;
      b[4 * N + 5] = Number.NaN;
      const out = bench.alloc(M * N * 4);
      const whole = (at: number, row: number): Operand => ({ at: input(at), row, column: 1, matrices: { shape: [], strides: [] } });
      execute(bench, launchProduct({ dtype: float32, batch: [], M, N, K, a: whole(0, K), b: whole(1, N), alpha: 1, beta: 0 }), [bench.put(a), bench.put(b)], out);
      const row = Array.from(bench.f32(out, M * N)).slice((M - 1) * N);
      expect(row).toEqual(Array.from({ length: N }, (_, n) => (n === 2 ? Number.POSITIVE_INFINITY : n === 5 ? Number.NaN : K)));
    }
  });
});

function gathered(bench: KernelBench, dtype: Dtype, M: number, count: number, sorted: boolean, kind: string | undefined): number {
  const [N, K, experts, sources] = [37, 26, 4, 7];
  const lb = layout(kind, [experts], K, N);
  const a = store(bench, dtype, sources * M * K);
  const b = store(bench, dtype, lb.size);
  const left = Uint32Array.from({ length: count }, (_, i) => (sorted ? Math.floor(i / 8) : Math.floor((random() + 1) * 3.5)) % sources);
  const right = Uint32Array.from({ length: count }, () => Math.floor((random() + 1) * 2));
  if (sorted) right.sort();
  right[count - 1] = 99;
  const out = bench.alloc(count * M * N * dtype.size);
  const product: Product = {
    dtype, batch: [count], M, N, K, alpha: 1, beta: 0,
    a: { at: input(0), row: K, column: 1, matrices: { shape: [sources], strides: [M * K] }, list: input(2) },
    b: { at: input(1), row: lb.row, column: lb.column, matrices: { shape: [experts], strides: lb.strides }, list: input(3) },
  };
  execute(bench, launchProduct(product), [a.at, b.at, bench.put(left), bench.put(right)], out);
  const got = read(bench, dtype, out, count * M * N);
  const rounding = dtype === bfloat16 ? 2 ** -8 : dtype === float16 ? 2 ** -11 : 2 ** -24;
  let error = 0;
  for (let g = 0; g < count; g++) {
    const [x, y] = [left[g] as number, Math.min(right[g] as number, experts - 1)];
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        let want = 0;
        for (let k = 0; k < K; k++) want += (a.values[(x * M + m) * K + k] as number) * (b.values[y * (lb.strides[0] as number) + k * lb.row + n * lb.column] as number);
        const e = Math.abs((got[(g * M + m) * N + n] as number) - want);
        if (!(e <= Math.abs(want) * rounding + K * (K + 4) * 2 ** -24)) error = Math.max(error, Number.isNaN(e) ? 1e9 : e);
      }
    }
  }
  return error;
}
