/** Generated elementwise kernels with several elements per invocation: wide accesses, tails, broadcasts, tables of words, complex numbers. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import { elementwiseSpirv, elementwiseStep } from "../src/codegen/elementwise-spirv.ts";
import * as dt from "../src/core/dtype.ts";
import { type Value, expr as e } from "../src/core/expr.ts";
import type { GpuStep } from "../src/core/gpu.ts";
import { ops } from "../src/core/op.ts";
import { rowStrides } from "../src/core/shape.ts";
import { type Output, type SameOptions, row, same as sameOnDevice } from "./helpers/elementwise.ts";
import { gpuDevice } from "./helpers/gpu.ts";
import { type TestInput, encode } from "./helpers/group.ts";
import { type TestDevice, closeTestDevice, openTestDevice, runOnDevice, skipReason } from "./helpers/vulkan.ts";

const scalarDtypes = dt.dtypes.filter((d) => d !== dt.complex64);
const values = (n: number, dtype: dt.Dtype, seed = 0): number[] =>
  Array.from({ length: n }, (_, i) => {
    const x = (((i + seed) * 37) % 101) - 50;
    return dtype.kind === "bool" ? x & 1 : dtype.kind === "unsigned" ? Math.abs(x) : dtype.isFloat ? x / 4 : x;
  });
/** A formula of two inputs that keeps the dtype. */
function formula(dtype: dt.Dtype): Value {
  const [a, b] = [e.input(0, dtype), e.input(1, dtype)];
  if (dtype === dt.bool) return e.or(e.xor(a, b), e.not(e.and(a, b)));
  if (dtype.isFloat) return e.narrow(e.sub(e.mul(a, b), e.max(a, e.neg(b))), dtype);
  return e.narrow(e.sub(e.mul(a, b), e.max(a, e.shr(b, e.like(b, 1)))), dtype);
}
const partOf = (step: GpuStep | string, part: "groups" | "words"): readonly number[] => {
  if (typeof step === "string") throw new Error(step);
  return step[part];
};

describe.skipIf(skipReason)(`elementwise kernels on the GPU${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const same = (shape: readonly number[], inputs: readonly TestInput[], outputs: readonly Output[], options: SameOptions = {}): void => sameOnDevice(device, shape, inputs, outputs, options);

  test.each(scalarDtypes.map((d) => [d.name, d] as const))("%s: 2, 4 and 8 elements at once, every tail, aligned or not", (_, dtype) => {
    const outputs = [{ dtype, value: formula(dtype) }];
    for (const lanes of [2, 4, 8]) {
      for (const n of [1, lanes - 1, lanes, lanes + 1, 127 * lanes, 128 * lanes + lanes - 1, 1000]) same([n], [row(dtype, values(n, dtype)), row(dtype, values(n, dtype, 7))], outputs, { lanes });
      same([1003], [row(dtype, values(1003, dtype)), row(dtype, values(1003, dtype, 7))], outputs, { lanes, aligned: false });
    }
  });
  test("operands that begin anywhere", () => {
    for (const dtype of [dt.uint8, dt.bfloat16, dt.float32, dt.int64]) {
      const data = encode(dtype, values(600, dtype));
      for (const offset of [1, 3, 16]) same([500], [{ dtype, strides: [1], data, offset }, { dtype, strides: [1], data, offset: 0 }], [{ dtype, value: formula(dtype) }], { lanes: 16 / Math.max(2, dtype.size) });
    }
  });
  test.each(scalarDtypes.map((d) => [d.name, d] as const))("%s: casts to every dtype, 4 at once", (_, dtype) => {
    const n = 403;
    const casts = scalarDtypes.map((to) => ({ dtype: to, value: e.cast(e.input(0, dtype), to) }));
    same([n], [row(dtype, values(n, dtype))], casts.slice(0, 7), { lanes: 4 });
    same([n], [row(dtype, values(n, dtype))], casts.slice(7), { lanes: 4 });
  });
  test("every 16-bit float is copied and widened exactly, 8 at once", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of [dt.bfloat16, dt.float16]) {
      const input: TestInput = { dtype, strides: [1], data: all };
      same([65536], [input], [{ dtype: dt.float32, value: e.input(0, dtype) }], { lanes: 8 });
      const [copy] = runOnDevice(device, [65536], [input], [{ dtype, value: e.input(0, dtype) }], { lanes: 8 });
      expect(copy).toEqual(all);
    }
  });
  test("large arrays take wide accesses without being asked", () => {
    const n = (1 << 18) + 5;
    for (const [dtype, lanes] of [[dt.float32, 4], [dt.bfloat16, 8], [dt.uint8, 8], [dt.float64, 2]] as const) {
      const group = { shape: [n], inputs: [{ dtype, strides: [1] }, { dtype, strides: [1] }], outputs: [{ dtype, value: formula(dtype) }], expr: e };
      expect(partOf(elementwiseStep(group, gpuDevice(device.info), [true, true, true]), "words")).toEqual([Math.floor(n / lanes), n]);
      same([n], [row(dtype, values(n, dtype)), row(dtype, values(n, dtype, 3))], group.outputs);
    }
  });
  test("long formulas take fewer elements at once", () => {
    const x = e.input(0, dt.bfloat16);
    const long = [1, 2, 3, 4, 5, 6].reduce<Value>((y, k) => e.erf(e.add(y, e.const("f32", k))), x);
    const lanesOf = (value: Value): number => Math.round((1 << 20) / (partOf(elementwiseStep({ shape: [1 << 20], inputs: [{ dtype: dt.bfloat16, strides: [1] }], outputs: [{ dtype: dt.bfloat16, value }], expr: e }, gpuDevice(device.info)), "words")[0] as number));
    expect(lanesOf(e.neg(x))).toBe(8);
    expect(lanesOf(long)).toBeLessThan(8);
  });

  describe("broadcast and strided operands", () => {
    const layouts: Record<string, (s: readonly number[]) => { strides: number[]; offset?: number; size: number }> = {
      contiguous: (s) => ({ strides: rowStrides(s), size: s.reduce((a, b) => a * b, 1) }),
      once: (s) => ({ strides: s.map(() => 0), size: 1 }),
      rowVector: (s) => ({ strides: s.map((_, i) => (i === s.length - 1 ? 1 : 0)), size: s[s.length - 1] as number }),
      column: (s) => ({ strides: [...rowStrides(s.slice(0, -1)), 0], size: s.slice(0, -1).reduce((a, b) => a * b, 1) }),
      transposed: (s) => {
        let step = 1;
        return { strides: s.map((d) => (step *= d) / d), size: step };
      },
      wideRows: (s) => ({ strides: rowStrides([...s.slice(0, -1), (s[s.length - 1] as number) + 8]), size: (s.reduce((a, b) => a * b, 1) / (s[s.length - 1] as number)) * ((s[s.length - 1] as number) + 8) }),
      oddRows: (s) => ({ strides: rowStrides([...s.slice(0, -1), (s[s.length - 1] as number) + 3]), size: (s.reduce((a, b) => a * b, 1) / (s[s.length - 1] as number)) * ((s[s.length - 1] as number) + 3) }),
      reversed: (s) => {
        const n = s.reduce((a, b) => a * b, 1);
        return { strides: rowStrides(s).map((x) => -x), size: n, offset: n - 1 };
      },
    };
    test.each(Object.keys(layouts))("%s with each other layout", (name) => {
      const value = e.sub(e.convert(e.input(0, dt.int16), "f32"), e.mul(e.input(1, dt.bfloat16), e.const("f32", 64)));
      const make = (layout: string, dtype: dt.Dtype, shape: readonly number[]): TestInput => {
        const { size, ...place } = (layouts[layout] as (typeof layouts)[string])(shape);
        return { dtype, ...place, data: encode(dtype, Array.from({ length: size }, (_, i) => (i * 31) % 97)) };
      };
      for (const other of Object.keys(layouts))
        for (const shape of [[3, 8], [2, 3, 24], [5, 6]]) same(shape, [make(name, dt.int16, shape), make(other, dt.bfloat16, shape)], [{ dtype: dt.float32, value }], { lanes: 4 });
    });
    test("every width and number of dimensions", () => {
      const value = e.add(e.input(0, dt.float32), e.input(1, dt.float32));
      for (const shape of [[2, 1], [7, 2], [3, 4], [2, 2, 3, 8], [2, 3, 2, 2, 2, 16], [2, 1, 2, 2, 3, 2, 1, 2, 4], [300, 4], [1, 4]])
        for (const lanes of [1, 8]) {
          const strides = (pattern: number): number[] => shape.map((_, i) => ((pattern >> i % 3) & 1 ? (rowStrides(shape)[i] as number) : 0));
          const data = encode(dt.float32, Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i));
          for (const pattern of [2, 5]) same(shape, [{ dtype: dt.float32, strides: strides(pattern), data }, { dtype: dt.float32, strides: strides(7 - pattern), data }], [{ dtype: dt.float32, value }], { lanes });
        }
    });
    test("tiles where an operand is transposed", () => {
      const value = e.sub(e.mul(e.input(0, dt.int16), e.const("i32", 3)), e.input(1, dt.int32));
      for (const [shape, order] of [[[8, 16], [1, 0]], [[9, 17], [1, 0]], [[64, 16], [1, 0]], [[33, 100], [1, 0]], [[3, 40, 24], [0, 2, 1]], [[12, 3, 20], [2, 1, 0]], [[9, 2, 3, 28], [3, 1, 2, 0]], [[9, 2, 32], [1, 2, 0]]] as const) {
        const transposed = shape.map((_, i) => rowStrides(order.map((k) => shape[k] as number))[order.indexOf(i as never)] as number);
        const data = encode(dt.int32, Array.from({ length: shape.reduce((a: number, b) => a * b, 1) }, (_, i) => i));
        const first: TestInput = { dtype: dt.int16, strides: rowStrides(shape), data: encode(dt.int16, values(data.length, dt.int16)) };
        for (const lanes of [1, 4, 8])
          for (const x of [{ dtype: dt.int32, strides: transposed, data }, { dtype: dt.int32, strides: transposed.map((s) => -s), offset: data.length - 1, data }]) {
            same(shape, [first, x], [{ dtype: dt.int32, value }], { lanes, tiled: true });
            same(shape, [{ ...first, strides: shape.map((_, i) => (i === shape.length - 1 ? 1 : 0)) }, x], [{ dtype: dt.int16, value }], { lanes, tiled: true });
          }
      }
    });
    test("large transposed operands are taken in tiles", () => {
      const shape = [300, 512];
      const group = { shape, inputs: [{ dtype: dt.float32, strides: [1, 300] }], outputs: [{ dtype: dt.float32, value: e.neg(e.input(0, dt.float32)) }], expr: e };
      // 512 columns in 32 tiles of 16, 300 rows in 10 tiles of 32.
      expect(partOf(elementwiseStep(group, gpuDevice(device.info)), "groups")).toEqual([320, 1, 1]);
      const data = encode(dt.float32, values(300 * 512, dt.float32));
      same(shape, [{ dtype: dt.float32, strides: [1, 300], data }], group.outputs);
    });
    test("twelve strided operands: words from a table", () => {
      const shape = [2, 3, 2, 5, 4];
      const inputs = Array.from({ length: 12 }, (_, k): TestInput => {
        const strides = rowStrides(shape).map((s, i) => ((k >> i % 3) & 1 ? s : 0));
        return { dtype: dt.float32, strides, data: encode(dt.float32, Array.from({ length: 240 }, (_, i) => i * (k + 1))) };
      });
      const value = inputs.map((_, i) => e.input(i, dt.float32)).reduce((a, b, k) => e.add(e.mul(a, e.const("f32", k % 2 === 0 ? -1 : 0.5)), b));
      const step = elementwiseSpirv({ shape, inputs, outputs: [{ dtype: dt.float32, value }], expr: e }, device.info);
      expect(typeof step === "string" ? step : step.table?.length).toBeGreaterThan(12);
      for (const lanes of [1, 4]) same(shape, inputs, [{ dtype: dt.float32, value }], { lanes });
    });
  });
  test("an output may lie over a contiguous input, 4 at once, beside broadcast ones", () => {
    for (const dtype of [dt.uint8, dt.bfloat16, dt.float32, dt.int64]) {
      const outputs = [{ dtype, value: formula(dtype) }];
      same([1003], [row(dtype, values(1003, dtype)), row(dtype, values(1003, dtype, 3))], outputs, { over: 1, lanes: 4 });
      same([50, 20], [{ dtype, strides: [20, 1], data: encode(dtype, values(1000, dtype)) }, { dtype, strides: [0, 1], data: encode(dtype, values(20, dtype)) }], outputs, { over: 0, lanes: 4 });
    }
  });

  test.each(["add", "subtract", "multiply", "divide", "equal", "conjugate", "real", "imag", "abs", "exp", "sqrt"])("complex64 %s", (name) => {
    const op = ops.get(name);
    if (!op?.expr) throw new Error(`${name} has no formula`);
    const n = 77;
    const pairs = Float32Array.from({ length: 2 * n }, (_, i) => (((i * 37) % 101) - 50) / 8);
    const input = (seed: number): TestInput => ({ dtype: dt.complex64, strides: [1], data: pairs.map((_, i) => pairs[(i + seed) % pairs.length] as number) });
    const count = ["conjugate", "real", "imag", "abs", "exp", "sqrt"].includes(name) ? 1 : 2;
    const avals = Array.from({ length: count }, () => ({ shape: [n], dtype: dt.complex64 }));
    const out = op.infer(avals, {})[0] as { shape: readonly number[]; dtype: dt.Dtype };
    const value = op.expr(e, avals.map((a, i) => e.input(i, a.dtype)), {}, out, avals);
    const inputs = avals.map((_, i) => input(6 * i));
    for (const lanes of [1, 2]) same([n], inputs, [{ dtype: out.dtype, value }], { lanes, ulps: 16 });
  });

  test("nothing to do: no workgroups", () => {
    const step = elementwiseStep({ shape: [0, 4], inputs: [{ dtype: dt.float32, strides: [0, 1] }], outputs: [{ dtype: dt.float32, value: e.neg(e.input(0, dt.float32)) }], expr: e }, gpuDevice(device.info));
    expect(partOf(step, "groups")[0]).toBe(0);
  });
});
