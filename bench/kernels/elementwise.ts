/** Elementwise ops, reductions, and the cost of the smallest op. */
import type { MxArray } from "../../src/core/array.ts";
import { core as mx } from "../../src/index.ts";
import { type KernelCase, dot, floats, put } from "./case.ts";

const million = 1_000_000;

const unary = (name: "exp" | "sin" | "tanh", f: (x: number) => number): KernelCase => ({
  name: `${name} ${million} float32`,
  bytes: 8 * million,
  prepare() {
    const data = floats(million, 1);
    const x = put(data, [million]);
    return { run: () => mx[name](x), expected: (at) => f(data[at] as number), tolerance: 2 ** -20, dispose: () => x.dispose() };
  },
});

const add = (n: number): KernelCase => ({
  name: `add ${n} float32`,
  bytes: 12 * n,
  prepare() {
    const [da, db] = [floats(n, 1), floats(n, 2)];
    const [a, b] = [put(da, [n]), put(db, [n])];
    return { run: () => mx.add(a, b), expected: (at) => (da[at] as number) + (db[at] as number), tolerance: 2 ** -22, dispose: () => mx.dispose(a, b) };
  },
});

/** silu(x) * y: one fused pass. */
const silu: KernelCase = {
  name: `x * sigmoid(x) * y ${million} float32`,
  bytes: 12 * million,
  prepare() {
    const [dx, dy] = [floats(million, 1), floats(million, 2)];
    const [x, y] = [put(dx, [million]), put(dy, [million])];
    return {
      run: () => mx.tidy(() => mx.multiply(mx.multiply(x, mx.sigmoid(x)), y)),
      expected: (at) => ((dx[at] as number) / (1 + Math.exp(-(dx[at] as number)))) * (dy[at] as number),
      tolerance: 2 ** -20,
      dispose: () => mx.dispose(x, y),
    };
  },
};

const rows = 1024;
const columns = 4096;
const reduction = (name: string, f: (x: MxArray) => MxArray, expected: (data: Float32Array, at: number) => number, tolerance: number, bytes = 4 * rows * columns): KernelCase => ({
  name: `${name} ${rows}x${columns} float32`,
  bytes,
  prepare() {
    const data = floats(rows * columns, 1);
    const x = put(data, [rows, columns]);
    return { run: () => f(x), expected: (at) => expected(data, at), tolerance, dispose: () => x.dispose() };
  },
});

const argmax: KernelCase = {
  name: "argmax 151936 float32",
  bytes: 4 * 151936,
  prepare() {
    const data = floats(151936, 1);
    const x = put(data, [151936]);
    return { run: () => mx.argmax(x), expected: () => data.indexOf(Math.max(...Array.from({ length: 16 }, (_, i) => data.subarray(i * 9496, (i + 1) * 9496).reduce((m, v) => Math.max(m, v), -2)))), tolerance: 0, dispose: () => x.dispose() };
  },
};

export const cases: readonly KernelCase[] = [
  add(1), add(million), unary("exp", Math.exp), unary("sin", Math.sin), unary("tanh", Math.tanh), silu, argmax,
  reduction("softmax", (x) => mx.softmax(x, -1), (d, at) => {
    const row = at - (at % columns);
    return Math.exp(d[at] as number) / dot(columns, (i) => Math.exp(d[row + i] as number));
  }, 2 ** -30, 8 * rows * columns),
  reduction("sum, last axis,", (x) => mx.sum(x, -1), (d, at) => dot(columns, (i) => d[at * columns + i] as number), 2 ** -12),
  reduction("sum, first axis,", (x) => mx.sum(x, 0), (d, at) => dot(rows, (i) => d[i * columns + at] as number), 2 ** -12),
];
