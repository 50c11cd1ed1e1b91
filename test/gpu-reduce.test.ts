import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import type { Dtype } from "../src/core/dtype.ts";
import { planPass } from "../src/ops/reduce-gpu.ts";
import { type TestArray, opNamed, runKernel, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
/** Whole numbers from -range to range (or from 0), in no order. */
const scattered = (shape: readonly number[], range: number, signed = true): number[] =>
  Array.from({ length: sizeOf(shape) }, (_, i) => ((i * 7919 + ((i * i) % 311)) % (2 * range + 1)) - (signed ? range : 0));
const integers = [dt.int8, dt.uint8, dt.int16, dt.uint16, dt.int32, dt.uint32, dt.int64, dt.uint64];
const floats = [dt.float32, dt.float16, dt.bfloat16, dt.float64];
const isSigned = (d: Dtype): boolean => d.kind === "signed" || d.isInexact;

test("passes cover their input once", () => {
  for (const [outer, n, inner] of [[1, 1, 1], [1, 151936, 1], [5, 3, 1], [100000, 3, 1], [1, 2 ** 24, 1], [7, 4096, 1], [1, 70000, 1], [1, 100000, 3], [1, 4096, 4096], [64, 77, 5], [1, 2, 1000000], [3, 0, 1], [2, 0, 8]] as const)
    for (const aligned of [false, true]) {
      const p = planPass(outer, n, inner, aligned);
      const each = (p.lanes / p.across) * (p.packed && !p.rowwise ? 4 : 1);
      expect(p.tiles * each).toBeGreaterThanOrEqual(outer * inner);
      expect((p.tiles - 1) * each).toBeLessThan(outer * inner);
      expect(p.chunk * p.chunks).toBeGreaterThanOrEqual(n);
      expect(p.chunk * (p.chunks - 1)).toBeLessThanOrEqual(Math.max(0, n - 1));
      expect(p.lanes).toBeLessThanOrEqual(256);
      expect(Number.isInteger(Math.log2(p.across)) && p.lanes % p.across === 0).toBe(true);
      if (p.packed) expect(p.rowwise ? p.chunk % 4 : inner % 4).toBe(0);
    }
});

describe.skipIf(skipReason)("reductions on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const exact = { relative: 0, absolute: 0 };
  const run = (op: string, x: TestArray, axes: readonly number[], tolerance: { relative: number; absolute: number } = exact): void => {
    const wide = x.dtype === dt.float64 && ["sum", "prod", "mean"].includes(op) && !device.info.features.shaderFloat64;
    expect(testKernel(device, op, [x], { axes, keepdims: false }, tolerance)).toEqual(wide ? [] : [`vulkan/reduce/${op === "mean" ? "sum" : op}`]);
  };
  // Shape and axes: nothing cut, cut rows, cut columns, several sections, three columns, rows shorter and longer than a workgroup.
  const cases: readonly (readonly [readonly number[], readonly number[]])[] = [
    [[1], [0]], [[7], [0]], [[127], [0]], [[128], [0]], [[5, 3], [1]], [[300, 4], [1]], [[3, 129], [1]], [[2, 4096], [1]], [[70001], [0]], [[20, 5000], [0, 1]],
    [[5, 3], [0]], [[129, 64], [0]], [[3000, 3], [0]], [[1000, 36], [0]], [[2, 30, 17], [1]], [[6, 7, 8], [0, 2]], [[3, 4, 5, 6], [0, 2]], [[6, 7, 8], []],
  ];
  const arrayOf = (dtype: Dtype, shape: readonly number[], range = 9): TestArray => ({ dtype, shape, values: scattered(shape, range, isSigned(dtype)) });

  test("sums of integers are exact", () => {
    for (const dtype of [...integers, dt.bool]) for (const [shape, axes] of dtype === dt.int8 || dtype === dt.int64 ? cases : cases.slice(6, 13)) run("sum", arrayOf(dtype, shape, dtype === dt.bool ? 0.5 : 60), axes);
  });
  test("sums of floats: whole numbers are exact before the one rounding", () => {
    for (const dtype of floats) for (const [shape, axes] of cases) run("sum", arrayOf(dtype, shape), axes, dtype.size === 2 ? { relative: dtype === dt.float16 ? 2 ** -11 : 2 ** -8, absolute: 0 } : exact);
  });
  test("sums of fractions keep float32's accuracy, means divide before rounding", () => {
    const values = Array.from({ length: 70000 }, (_, i) => 1 + Math.sin(i));
    run("sum", { dtype: dt.float32, shape: [70000], values }, [0], { relative: 3e-7, absolute: 0 });
    run("sum", { dtype: dt.float32, shape: [700, 100], values }, [0], { relative: 3e-7, absolute: 0 });
    run("mean", { dtype: dt.float32, shape: [7, 10000], values }, [1], { relative: 3e-7, absolute: 0 });
    run("mean", { dtype: dt.float16, shape: [2, 5000], values: new Array<number>(10000).fill(60000) }, [1], { relative: 2 ** -11, absolute: 0 });
    run("mean", { dtype: dt.float64, shape: [7, 100], values: values.slice(0, 700) }, [0], { relative: 1e-15, absolute: 0 });
  });
  test("rounding to 16 bits: ties to even, overflow, subnormal numbers", () => {
    for (const dtype of [dt.float16, dt.bfloat16])
      for (const [a, b] of [[2048, 1], [2048, 3], [256, 1], [256, 3], [65504, 15], [65504, 16], [2 ** -14, 2 ** -24], [2 ** -24, 2 ** -25], [1e-7, 3e-8], [-65504, -60000]] as const) {
        const [got] = runKernel(device, (opNamed("sum").gpu ?? [])[0] as never, [{ dtype, shape: [2], values: [a, b] }], [{ dtype, shape: [] }], { axes: [0], keepdims: false });
        const round = (x: number): number => (dtype === dt.float16 ? dt.fromFloat16Bits(dt.toFloat16Bits(x)) : dt.fromBfloat16Bits(dt.toBfloat16Bits(x)));
        expect(got?.[0]).toBe(round(round(a) + round(b)));
      }
  });
  test("integers wrap in the type of the result", () => {
    const sums = (op: string, dtype: Dtype, out: Dtype, values: number[]): number | undefined => runKernel(device, (opNamed(op).gpu ?? [])[0] as never, [{ dtype, shape: [values.length], values }], [{ dtype: out, shape: [] }], { axes: [0], keepdims: false })[0]?.[0];
    expect(sums("sum", dt.int32, dt.int32, [2 ** 31 - 1, 1])).toBe(-(2 ** 31));
    expect(sums("sum", dt.uint32, dt.uint32, [2 ** 32 - 1, 5])).toBe(4);
    expect(sums("prod", dt.int32, dt.int32, [65537, 65537])).toBe(131073);
    expect(sums("prod", dt.int64, dt.int64, [-3, 2 ** 33, 5])).toBe(-15 * 2 ** 33);
    expect(sums("sum", dt.int64, dt.int64, [2 ** 32 - 1, 2 ** 32 - 1, -1])).toBe(2 ** 33 - 3);
    expect(sums("prod", dt.uint64, dt.uint64, [2 ** 40, 2 ** 24])).toBe(0);
  });
  test("products", () => {
    const signs = (shape: readonly number[]): number[] => Array.from({ length: sizeOf(shape) }, (_, i) => (i % 97 === 3 ? 2 : i % 5 === 1 ? -1 : 1));
    for (const dtype of [...floats, dt.int8, dt.int32, dt.int64]) for (const [shape, axes] of [[[7, 130], [1]], [[130, 7], [0]], [[6, 7, 8], [0, 2]]] as const) run("prod", { dtype, shape, values: signs(shape) }, axes);
  });
  test("largest and smallest, of every type", () => {
    for (const dtype of [...integers, dt.bool, ...floats])
      for (const [shape, axes] of dtype === dt.float32 || dtype === dt.uint8 ? cases.slice(0, -1) : cases.slice(6, 13))
        for (const op of ["max", "min"]) run(op, arrayOf(dtype, shape, dtype === dt.bool ? 0.5 : 100), axes);
    for (const op of ["max", "min"]) {
      run(op, { dtype: dt.uint32, shape: [2, 3], values: [2 ** 32 - 1, 0, 2 ** 31, 5, 7, 6] }, [1]);
      run(op, { dtype: dt.int64, shape: [2, 3], values: [-(2 ** 52), 2 ** 52, 1, 2 ** 33, 2 ** 33 + 1, -1] }, [1]);
      run(op, { dtype: dt.int32, shape: [3], values: [-(2 ** 31), 2 ** 31 - 1, 0] }, [0]);
    }
  });
  test("largest and smallest with infinities and NaN", () => {
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    const values = [1, nan, 2, inf, -inf, 0, -0, 0, -5, nan, inf, -inf, -1, -2, -3, -inf, -inf, -inf];
    for (const dtype of floats) for (const op of ["max", "min"]) for (const axes of [[0], [1]]) run(op, { dtype, shape: [6, 3], values }, axes);
    for (const op of ["max", "min"]) run(op, { dtype: dt.float32, shape: [1, 9000], values: Array.from({ length: 9000 }, (_, i) => (i === 8191 ? nan : i)) }, [1]);
  });
  test("all and any", () => {
    const sparse = (shape: readonly number[], most: number): number[] => Array.from({ length: sizeOf(shape) }, (_, i) => (i % 61 === 5 ? 1 - most : most));
    for (const dtype of [...integers, dt.bool, ...floats]) for (const [shape, axes] of cases.slice(4, 10)) for (const most of [0, 1]) for (const op of ["all", "any"]) run(op, { dtype, shape, values: sparse(shape, most) }, axes);
    for (const dtype of floats) for (const op of ["all", "any"]) run(op, { dtype, shape: [4, 2], values: [-0, 0, Number.NaN, 1, -0, 1, 2 ** -24, 1] }, [1]);
    run("all", { dtype: dt.float32, shape: [2, 9000], values: new Array<number>(18000).fill(1e-40) }, [1]);
  });
  test("empty axes give the identity", () => {
    for (const [op, dtype] of [["sum", dt.float32], ["prod", dt.int32], ["all", dt.bool], ["any", dt.float32]] as const) run(op, { dtype, shape: [3, 0], values: [0] }, [1]);
  });
  test("views: transposed, offset by an odd number", () => {
    const values = scattered([5 * 8 * 12 + 8], 50);
    for (const dtype of [dt.float32, dt.int8, dt.bfloat16, dt.int64])
      for (const op of ["sum", "max"]) {
        const tolerance = dtype.size === 2 ? { relative: 2 ** -8, absolute: 0 } : exact;
        run(op, { dtype, shape: [12, 5, 8], strides: [1, 96, 12], values }, [0], tolerance);
        run(op, { dtype, shape: [8, 12], offset: 3, values }, [1], tolerance);
        run(op, { dtype, shape: [8, 12], offset: 5, values }, [0], tolerance);
      }
  });

  describe("argmax and argmin", () => {
    const arg = (x: TestArray, axis: number | null): void => {
      for (const op of ["argmax", "argmin"]) expect(testKernel(device, op, [x], { axis, keepdims: false }, exact)).toEqual([`vulkan/reduce/${op}`]);
    };
    test("every type; the first of equals", () => {
      for (const dtype of [...integers, dt.bool, ...floats])
        for (const [shape, axis] of [[[7, 5], 1], [[3, 129], 1], [[1, 9001], 1], [[130, 3], 0], [[2, 30, 8], 1], [[4, 6], null]] as const) arg(arrayOf(dtype, shape, dtype === dt.bool ? 0.5 : 5), axis);
    });
    test("long rows in two steps", () => {
      const values = Array.from({ length: 70000 }, (_, i) => Math.fround(Math.sin(i * 1.37) * Math.cos(i * 0.11)));
      arg({ dtype: dt.float32, shape: [1, 70000], values }, 1);
      arg({ dtype: dt.bfloat16, shape: [1, 70000], values }, 1);
      arg({ dtype: dt.float64, shape: [70000], values }, null);
      arg({ dtype: dt.float32, shape: [20000, 3], values: values.slice(0, 60000) }, 0);
      arg({ dtype: dt.float32, shape: [9000], values: new Array<number>(9000).fill(-1) }, 0);
    });
    test("NaN wins only at index 0; zeros are equal", () => {
      const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
      const values = [nan, 1, 2, 1, nan, 3, nan, nan, nan, -inf, -inf, nan, -0, 0, 0, inf, nan, inf];
      for (const dtype of floats) arg({ dtype, shape: [6, 3], values }, 1);
      for (const at of [0, 8000]) arg({ dtype: dt.float32, shape: [9000], values: Array.from({ length: 9000 }, (_, i) => (i === at ? nan : i % 100)) }, 0);
      arg({ dtype: dt.float32, shape: [9000], values: Array.from({ length: 9000 }, (_, i) => (i < 5000 ? -inf : nan)) }, 0);
    });
  });
});
