import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import { type TestArray, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

describe.skipIf(skipReason)("softmax and logsumexp on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const both = (x: TestArray, relative: number): void => {
    expect(testKernel(device, "softmax", [x], {}, { relative, absolute: 1e-7 })).toEqual(["vulkan/softmax/softmax"]);
    expect(testKernel(device, "logsumexp", [x], {}, { relative, absolute: 1e-6 })).toEqual(["vulkan/softmax/logsumexp"]);
  };

  for (const [dtype, relative] of [
    [dt.float32, 2e-6],
    [dt.float16, 2 ** -10],
    [dt.bfloat16, 2 ** -8],
  ] as const)
    test(`${dtype}: equals the float64 reference`, () => {
      // One element, short rows by subgroup, rows in registers, rows beyond them, rows cut into chunks.
      for (const shape of [[1], [3, 1], [2, 127], [4, 128], [3, 129], [2, 3, 1000], [1, 4100], [1, 9001], [2, 10000]]) {
        const values = Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * 1.7) * 10);
        both({ dtype, shape, values }, relative);
      }
    });
  test("many long rows, each by one workgroup", () => {
    const values = Array.from({ length: 65 * 8200 }, (_, i) => Math.sin(i * 1.7) * 10);
    both({ dtype: dt.float32, shape: [65, 8200], values }, 2e-6);
  });
  test("far apart values keep their relative error", () => {
    const values = Array.from({ length: 64 }, (_, i) => -1.37 * i);
    // What a driver's exp2 of numbers below 1 is good for.
    expect(testKernel(device, "softmax", [{ dtype: dt.float32, shape: [1, 64], values }], {}, { relative: 2e-6, absolute: 1e-37 })).toHaveLength(1);
  });
  test("infinities and NaN as in the reference", () => {
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    const rows = [[0, -inf, 1], [-inf, -inf, -inf], [inf, 1, 2], [nan, 1, 2], [1, nan, inf], [nan, nan, nan], [-inf, nan, 3], [inf, inf, -inf]];
    both({ dtype: dt.float32, shape: [8, 3], values: rows.flat() }, 2e-6);
    const special = [-inf, nan, inf];
    for (const x of special) both({ dtype: dt.float32, shape: [1, 8200], values: Array.from({ length: 8200 }, (_, i) => (i === 5000 ? x : Math.cos(i))) }, 2e-6);
    for (const x of special) both({ dtype: dt.float32, shape: [1, 8200], values: new Array<number>(8200).fill(x) }, 2e-6);
    // A chunk of nothing but -Infinity beside chunks of numbers.
    both({ dtype: dt.float32, shape: [1, 8200], values: Array.from({ length: 8200 }, (_, i) => (i < 3000 ? -inf : -90 + Math.cos(i))) }, 2e-6);
  });
  test("an odd offset", () => {
    both({ dtype: dt.bfloat16, shape: [2, 128], strides: [128, 1], offset: 3, values: Array.from({ length: 300 }, (_, i) => Math.sin(i)) }, 2 ** -8);
  });
});
