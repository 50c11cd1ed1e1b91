/** Reductions, argmax and scans: all elements, rows, columns, logits. */
import { bfloat16, bool, type Dtype, float32, int32, int8 } from "../../src/core/dtype.ts";
import type { GpuCase } from "./harness.ts";

const exact = { relative: 0, absolute: 0 };
const tolerance = (d: Dtype): GpuCase["tolerance"] => (d.isInteger || d === bool ? exact : d.size === 2 ? { relative: 2 ** -7, absolute: 0.05 } : { relative: 1e-5, absolute: 1e-3 });
const small = (shape: readonly number[]): number[] => {
  // Keeps the kind of shape and lets the reference be quick.
  const most = Math.max(1, Math.floor(2 ** 20 / shape.reduce((a, b) => a * Math.min(b, 1024), 1)));
  return shape.map((s) => Math.min(s, 1024 * (s === Math.max(...shape) ? most : 1)));
};
const reduce = (op: string, dtype: Dtype, shape: readonly number[], axes: readonly number[]): GpuCase => {
  const range = dtype.isInteger ? ([0, 100] as const) : ([-1, 1] as const);
  const size = shape.reduce((a, b) => a * b, 1);
  return {
    name: `${op} ${dtype} [${shape.join(",")}] over ${axes.join(",")}`,
    op,
    inputs: [{ dtype, shape, ...(dtype === bool ? {} : { range }), cold: size > 2 ** 20 }],
    params: { axes, keepdims: false },
    bytes: size * dtype.size,
    check: { inputs: [{ dtype, shape: small(shape), ...(dtype === bool ? {} : { range }) }] },
    tolerance: tolerance(dtype),
  };
};
const reductions: readonly GpuCase[] = [
  reduce("sum", float32, [2 ** 26], [0]),
  reduce("sum", bfloat16, [2 ** 26], [0]),
  reduce("sum", int8, [2 ** 26], [0]),
  reduce("max", float32, [2 ** 26], [0]),
  reduce("any", bool, [2 ** 26], [0]),
  reduce("sum", float32, [1000], [0]),
  reduce("sum", float32, [8192, 8192], [1]),
  reduce("sum", float32, [8192, 8192], [0]),
  reduce("sum", bfloat16, [8192, 8192], [0]),
  reduce("max", bfloat16, [8192, 8192], [1]),
  reduce("sum", float32, [2 ** 20, 64], [1]),
  reduce("sum", float32, [2 ** 20, 3], [1]),
  reduce("sum", float32, [2 ** 20, 3], [0]),
  reduce("sum", float32, [2 ** 18, 128], [0]),
  reduce("sum", float32, [64, 1024, 512], [0, 2]),
  reduce("mean", bfloat16, [512, 4096], [1]),
];

const argmax = (dtype: Dtype, shape: readonly number[], axis: number): GpuCase => {
  const size = shape.reduce((a, b) => a * b, 1);
  // Ties in bfloat16 are frequent: they test that the first of equals wins.
  return { name: `argmax ${dtype} [${shape.join(",")}] over ${axis}`, op: "argmax", inputs: [{ dtype, shape, cold: size > 2 ** 20 }], params: { axis, keepdims: false }, bytes: size * dtype.size, check: { inputs: [{ dtype, shape: small(shape) }] }, tolerance: exact };
};
const arguments_: readonly GpuCase[] = [argmax(float32, [1, 151936], 1), argmax(bfloat16, [1, 151936], 1), argmax(float32, [512, 151936], 1), argmax(float32, [4096, 4096], 0), argmax(int32, [2 ** 18, 64], 1)];

const scan = (op: string, dtype: Dtype, shape: readonly number[], axis: number): GpuCase => {
  const size = shape.reduce((a, b) => a * b, 1);
  // Positive floats, so that relative errors mean something; integers wrap, so they are small.
  const range = dtype.isInteger ? ([0, 2] as const) : ([0, 1] as const);
  return {
    name: `${op} ${dtype} [${shape.join(",")}] over ${axis}`, op, inputs: [{ dtype, shape, range, cold: size > 2 ** 20 }], params: { axis, reverse: false, inclusive: true }, bytes: 2 * size * dtype.size,
    check: { inputs: [{ dtype, shape: small(shape), range }] }, tolerance: dtype.isInteger ? exact : { relative: dtype.size === 2 ? 2 ** -7 : 1e-5, absolute: 1e-5 },
  };
};
const scans: readonly GpuCase[] = [
  scan("cumsum", float32, [1, 151936], 1),
  scan("cumsum", float32, [2 ** 26], 0),
  scan("cumsum", float32, [8192, 8192], 1),
  scan("cumsum", float32, [8192, 8192], 0),
  scan("cumsum", float32, [2 ** 18, 128], 0),
  scan("cumsum", int32, [2 ** 18, 64], 1),
  scan("cummax", float32, [8192, 8192], 1),
  scan("logcumsumexp", float32, [512, 16384], 1),
];

export const cases: readonly GpuCase[] = [...reductions, ...arguments_, ...scans];
