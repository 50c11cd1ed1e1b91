import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import type { Dtype } from "../src/core/dtype.ts";
import { planScan } from "../src/ops/scan-gpu.ts";
import { type TestArray, opNamed, runKernel, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const integers = [dt.int8, dt.uint8, dt.int16, dt.uint16, dt.int32, dt.uint32, dt.int64, dt.uint64];
const floats = [dt.float32, dt.float16, dt.bfloat16, dt.float64];
const exact = { relative: 0, absolute: 0 };

test("chunks cover their lines once", () => {
  for (const [lines, n, inner] of [[1, 1, 1], [1, 70000, 1], [3, 20, 1], [1000, 600, 1], [8, 100000, 8], [100, 5000, 50], [10000, 10000, 100], [2, 2 ** 24, 1]] as const) {
    const p = planScan(lines, n, inner);
    expect(p.tiles * (p.lanes / p.across)).toBeGreaterThanOrEqual(lines);
    expect(p.chunk * p.chunks).toBeGreaterThanOrEqual(n);
    expect(p.chunk * (p.chunks - 1)).toBeLessThan(n);
  }
});

describe.skipIf(skipReason)("running reductions on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const run = (op: string, x: TestArray, axis: number, options: { reverse?: boolean; inclusive?: boolean } = {}, tolerance: { relative: number; absolute: number } = exact): void => {
    const params = { axis, reverse: options.reverse ?? false, inclusive: options.inclusive ?? true };
    const wide = x.dtype === dt.float64 && (op === "logcumsumexp" || ((op === "cumsum" || op === "cumprod") && !device.info.features.shaderFloat64));
    expect(testKernel(device, op, [x], params, tolerance)).toEqual(wide ? [] : [`vulkan/scan/${op}`]);
  };
  const both = [false, true].flatMap((reverse) => [false, true].map((inclusive) => ({ reverse, inclusive })));
  // Whole numbers whose running sums stay small.
  const steps = (shape: readonly number[], signed = true): number[] => Array.from({ length: sizeOf(shape) }, (_, i) => (signed ? ((i * 7919) % 7) - 3 : i % 3 === 0 ? 1 : 0));
  const cases: readonly (readonly [readonly number[], number])[] = [
    [[1], 0], [[5, 7], 1], [[3, 127], 1], [[3, 128], 1], [[3, 129], 1], [[2, 1025], 1], [[20001], 0], [[2, 9000], 1], [[7, 5], 0], [[100, 3], 0], [[2, 50, 20], 1], [[2100, 6], 0], [[600, 40], 0], [[4, 9000], 0],
  ];

  test("sums of whole numbers are exact, in every direction", () => {
    for (const [shape, axis] of cases) for (const options of both) run("cumsum", { dtype: dt.float32, shape, values: steps(shape) }, axis, options);
  });
  test("rows that begin at an odd place", () => {
    for (const dtype of [dt.float32, dt.uint8]) run("cumsum", { dtype, shape: [2, 100], offset: 3, values: steps([203], false) }, 1, { reverse: true });
  });
  test("sums of every type", () => {
    for (const dtype of [...integers, ...floats, dt.bool])
      for (const [shape, axis] of [[[2, 100], 1], [[30, 5], 0], [[1, 9001], 1]] as const) {
        // Running sums of short integers stay within their range.
        const narrow = dtype.size === 1 && dtype !== dt.bool;
        const values = narrow ? steps(shape).map((_, i) => Number(i % 90 === 4)) : steps(shape, dtype.kind === "signed" || dtype.isInexact);
        const tolerance = dtype === dt.bfloat16 ? { relative: 2 ** -8, absolute: 0 } : dtype === dt.float16 ? { relative: 2 ** -11, absolute: 0 } : exact;
        run("cumsum", { dtype, shape, values }, axis, {}, tolerance);
        run("cumsum", { dtype, shape, values }, axis, { inclusive: false, reverse: true }, tolerance);
      }
  });
  test("sums of fractions; integers wrap", () => {
    run("cumsum", { dtype: dt.float32, shape: [30000], values: Array.from({ length: 30000 }, (_, i) => 1 + Math.sin(i)) }, 0, {}, { relative: 1e-6, absolute: 1e-6 });
    const got = runKernel(device, (opNamed("cumsum").gpu ?? [])[0] as never, [{ dtype: dt.uint8, shape: [4], values: [200, 100, 3, 250] }], [{ dtype: dt.uint8, shape: [4] }], { axis: 0, reverse: false, inclusive: true });
    expect(Array.from(got[0] as Float64Array)).toEqual([200, 44, 47, 41]);
    const wide = runKernel(device, (opNamed("cumprod").gpu ?? [])[0] as never, [{ dtype: dt.int64, shape: [3], values: [-3, 2 ** 33, 5] }], [{ dtype: dt.int64, shape: [3] }], { axis: 0, reverse: false, inclusive: true });
    expect(Array.from(wide[0] as Float64Array)).toEqual([-3, -3 * 2 ** 33, -15 * 2 ** 33]);
  });
  test("products", () => {
    for (const dtype of [...floats, dt.int8, dt.int32, dt.int64])
      for (const [shape, axis] of [[[2, 200], 1], [[60, 5], 0], [[9001], 0]] as const)
        for (const options of both) run("cumprod", { dtype, shape, values: Array.from({ length: sizeOf(shape) }, (_, i) => (i % 1511 === 3 ? 2 : i % 5 === 1 ? -1 : 1)) }, axis, options);
  });
  test("maxima and minima of every type", () => {
    for (const dtype of [...integers, ...floats, dt.bool])
      for (const [shape, axis] of ([[[2, 100], 1], [[30, 5], 0], [[1, 9001], 1]] as const).slice(0, [dt.int8, dt.int64, dt.float32].includes(dtype) ? 3 : 2))
        for (const op of ["cummax", "cummin"])
          for (const inclusive of [true, false]) {
            const values = Array.from({ length: sizeOf(shape) }, (_, i) => (dtype === dt.bool ? Number((i % 40 === 17) !== (op === "cummin")) : (dtype.kind === "unsigned" ? 60 : 0) + Math.round(Math.sin(i * 0.9) * Math.min(60, i / 10))));
            // The ends of the range of 64-bit integers are no float64: their exclusive scans are looked at below.
            if (inclusive || !(dtype.size === 8 && dtype.isInteger)) run(op, { dtype, shape, values }, axis, { inclusive, reverse: inclusive });
          }
    const first = (op: string, dtype: Dtype): number | undefined => runKernel(device, (opNamed(op).gpu ?? [])[0] as never, [{ dtype, shape: [1], values: [1] }], [{ dtype, shape: [1] }], { axis: 0, reverse: false, inclusive: false })[0]?.[0];
    expect([first("cummax", dt.int64), first("cummin", dt.int64), first("cummax", dt.uint64), first("cummin", dt.uint64)]).toEqual([-(2 ** 63), 2 ** 63, 0, 2 ** 64]);
  });
  test("from a NaN on extremes are NaN", () => {
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    for (const dtype of floats) for (const op of ["cummax", "cummin"]) for (const options of both) run(op, { dtype, shape: [3, 4], values: [1, nan, 2, 3, inf, -inf, 0, 5, -inf, -0, 0, nan] }, 1, options);
    run("cummax", { dtype: dt.float32, shape: [9001], values: Array.from({ length: 9001 }, (_, i) => (i === 5000 ? nan : Math.sin(i))) }, 0);
  });
  test("log-sum-exps", () => {
    const values = Array.from({ length: 9001 }, (_, i) => Math.sin(i * 1.3) * 8);
    for (const [dtype, relative] of [[dt.float32, 1e-6], [dt.float16, 2 ** -10], [dt.bfloat16, 2 ** -8]] as const)
      for (const options of dtype === dt.float32 ? both : both.slice(1, 2)) for (const [shape, axis] of [[[9001], 0], [[2, 100], 1], [[30, 5], 0]] as const) run("logcumsumexp", { dtype, shape, values: values.slice(0, sizeOf(shape)) }, axis, options, { relative, absolute: 2e-6 });
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    for (const options of both) run("logcumsumexp", { dtype: dt.float32, shape: [4, 4], values: [-inf, -inf, 1, 2, inf, 1, inf, -inf, 0, nan, 1, 2, -100, 0, -100, -0] }, 1, options, { relative: 1e-6, absolute: 1e-6 });
    expect(testKernel(device, "logcumsumexp", [{ dtype: dt.float64, shape: [2], values: [1, 2] }], { axis: 0, reverse: false, inclusive: true }, exact)).toEqual([]);
  });
});
