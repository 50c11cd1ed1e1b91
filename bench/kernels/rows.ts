/** Kernels made at run time, from plain ops: formulas of elements, and rows around reductions. What they cost beside a copy of the bytes that they have to move. */
import type { MxArray } from "../../src/core/array.ts";
import { core as mx, nn, optimizers } from "../../src/index.ts";
import { erf } from "../../src/ops/special.ts";
import { type KernelCase, dot, floats, put } from "./case.ts";

const rows = 2048;
const columns = 4096;
const size = rows * columns;
const shape = [rows, columns];

/** A formula of one array: 4 bytes read and 4 written per element. */
const one = (name: string, f: (x: MxArray) => MxArray, expected: (d: Float32Array, at: number) => number, tolerance: number): KernelCase => ({
  name: `generated ${name} ${rows}x${columns} float32`,
  bytes: 8 * size,
  besideCopy: true,
  prepare() {
    const data = floats(size, 1);
    const x = put(data, shape);
    return { run: () => mx.tidy(() => f(x)), expected: (at) => expected(data, at), tolerance, dispose: () => x.dispose() };
  },
});
const rowOf = (d: Float32Array, at: number): Float32Array => d.subarray(at - (at % columns), at - (at % columns) + columns);

const softmax = one("softmax", (x) => {
  const e = mx.exp(mx.subtract(x, mx.max(x, -1, true)));
  return mx.divide(e, mx.sum(e, -1, true));
}, (d, at) => {
  const row = rowOf(d, at);
  return Math.exp(d[at] as number) / dot(columns, (i) => Math.exp(row[i] as number));
}, 2 ** -28);

const layerNorm = one("layer norm", (x) => {
  const centred = mx.subtract(x, mx.mean(x, -1, true));
  return mx.multiply(centred, mx.rsqrt(mx.add(mx.mean(mx.square(centred), -1, true), 1e-5)));
}, (d, at) => {
  const row = rowOf(d, at);
  const mean = dot(columns, (i) => row[i] as number) / columns;
  const variance = dot(columns, (i) => ((row[i] as number) - mean) ** 2) / columns;
  return ((d[at] as number) - mean) / Math.sqrt(variance + 1e-5);
}, 2 ** -19);

const gelu = one("gelu", nn.gelu, (d, at) => {
  const x = d[at] as number;
  return (x * (1 + erf(x / Math.SQRT2))) / 2;
}, 2 ** -21);

const siluMultiply: KernelCase = {
  name: `generated silu(x) * y ${rows}x${columns} float32`,
  bytes: 12 * size,
  besideCopy: true,
  prepare() {
    const [dx, dy] = [floats(size, 1), floats(size, 2)];
    const [x, y] = [put(dx, shape), put(dy, shape)];
    return {
      run: () => mx.tidy(() => mx.multiply(nn.silu(x), y)),
      expected: (at) => ((dx[at] as number) / (1 + Math.exp(-(dx[at] as number)))) * (dy[at] as number),
      tolerance: 2 ** -20,
      dispose: () => mx.dispose(x, y),
    };
  },
};

/** One loss per row; only the logits count. */
const crossEntropy: KernelCase = {
  name: `generated cross entropy ${rows}x${columns} float32`,
  bytes: 4 * size,
  besideCopy: true,
  prepare() {
    const data = floats(size, 1);
    const logits = put(data, shape);
    const classes = Int32Array.from({ length: rows }, (_, r) => (r * 2654435761) % columns);
    const targets = mx.array(classes);
    return {
      run: () => mx.tidy(() => nn.losses.crossEntropy(logits, targets)),
      expected: (r) => {
        const row = data.subarray(r * columns, (r + 1) * columns);
        return Math.log(dot(columns, (i) => Math.exp(row[i] as number))) - (row[classes[r] as number] as number);
      },
      tolerance: 2 ** -18,
      dispose: () => mx.dispose(logits, targets),
    };
  },
};

/** Reads parameter, gradient and two moments, writes parameter and moments. */
const adam: KernelCase = {
  name: `generated Adam update ${rows}x${columns} float32`,
  bytes: 28 * size,
  besideCopy: true,
  prepare() {
    const [dw, dg, dm, dv] = [floats(size, 1), floats(size, 2), floats(size, 3), floats(size, 4).map(Math.abs)];
    const [w, g, m, v] = [dw, dg, dm, dv].map((d) => put(d, shape)) as [MxArray, MxArray, MxArray, MxArray];
    const optimizer = new optimizers.Adam(0.01);
    return {
      run() {
        const made = mx.tidy(() => {
          const state = { m, v };
          return [optimizer.applySingle(g, w, state), state.m, state.v];
        }) as [MxArray, MxArray, MxArray];
        mx.eval(made);
        mx.dispose(made.slice(1));
        return made[0];
      },
      expected: (at) => {
        const x = dg[at] as number;
        return (dw[at] as number) - (0.01 * (0.9 * (dm[at] as number) + 0.1 * x)) / (Math.sqrt(0.999 * (dv[at] as number) + 0.001 * x * x) + 1e-8);
      },
      tolerance: 2 ** -17,
      dispose: () => mx.dispose(w, g, m, v),
    };
  },
};

export const cases: readonly KernelCase[] = [softmax, layerNorm, gelu, siluMultiply, crossEntropy, adam];
