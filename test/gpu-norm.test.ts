import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import type { Dtype } from "../src/core/dtype.ts";
import { type TestArray, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const wave = (n: number, seed = 0): number[] => Array.from({ length: n }, (_, i) => Math.sin((i + seed) * 1.7) * 3 + Math.cos((i + seed) * 0.37) + 0.5);
const dense = (dtype: Dtype, shape: readonly number[], seed = 0): TestArray => ({ dtype, shape, values: wave(shape.reduce((a, b) => a * b, 1), seed) });

describe.skipIf(skipReason)("rmsNorm and layerNorm on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  const rms = (x: TestArray, weight: boolean, tolerance: { relative: number; absolute: number }, eps = 1e-5): void => {
    const n = x.shape.at(-1) as number;
    const inputs = weight ? [x, dense(x.dtype, [n], 5)] : [x];
    expect(testKernel(device, "rmsNorm", inputs, { eps, weight, bias: false }, tolerance)).toEqual(["vulkan/norm/rms"]);
  };
  const layer = (x: TestArray, weight: boolean, bias: boolean, tolerance: { relative: number; absolute: number }): void => {
    const n = x.shape.at(-1) as number;
    const inputs = [x, ...(weight ? [dense(x.dtype, [n], 5)] : []), ...(bias ? [dense(x.dtype, [n], 9)] : [])];
    expect(testKernel(device, "layerNorm", inputs, { eps: 1e-5, weight, bias }, tolerance)).toEqual(["vulkan/norm/layer"]);
  };
  for (const [dtype, relative, absolute] of [
    [dt.float32, 2e-6, 2e-6],
    [dt.float16, 2 ** -10, 1e-6],
    [dt.bfloat16, 2 ** -8, 1e-6],
  ] as const) {
    const tolerance = { relative, absolute };
    // Large and small numbers cancel in layerNorm, so errors are relative to the largest.
    const near = { relative, absolute: Math.max(4e-6, relative / 4) };
    test(`${dtype}: rows of any length, by subgroup and by workgroup`, () => {
      for (const shape of [[1], [7, 1], [5, 3], [9, 64], [2, 3, 127], [6, 128], [3, 129], [1, 1000], [2, 1024], [1, 4097], [2, 3000]]) rms(dense(dtype, shape), true, tolerance);
      for (const shape of [[7, 1], [9, 64], [2, 3, 127], [6, 128], [1, 1000], [2, 3000]]) layer(dense(dtype, shape), true, true, near);
    });
  }
  test("a row longer than what registers hold, and many rows", () => {
    rms(dense(dt.float32, [1, 9001]), false, { relative: 2e-6, absolute: 2e-6 });
    rms(dense(dt.bfloat16, [300, 260]), true, { relative: 2 ** -8, absolute: 1e-6 });
    layer(dense(dt.float32, [1, 9001]), false, false, { relative: 4e-6, absolute: 4e-6 });
  });
  test("with and without weight and bias", () => {
    rms(dense(dt.float32, [3, 64]), false, { relative: 2e-6, absolute: 2e-6 });
    for (const [w, b] of [[false, false], [true, false], [false, true]] as const) layer(dense(dt.float32, [3, 64]), w, b, { relative: 4e-6, absolute: 4e-6 });
  });
  test("layerNorm of values far from zero does not cancel", () => {
    const values = Array.from({ length: 256 }, (_, i) => 1000 + Math.sin(i));
    // The values themselves are rounded to 2^-14.
    expect(testKernel(device, "layerNorm", [{ dtype: dt.float32, shape: [2, 128], values }], { eps: 1e-5, weight: false, bias: false }, { relative: 1e-4, absolute: 2e-4 })).toHaveLength(1);
  });
  test("strided rows: heads of a sequence, a slice, a broadcast, an odd offset", () => {
    const [H, L, D] = [3, 5, 64];
    const tolerance = { relative: 2 ** -8, absolute: 1e-6 };
    // [L, H, D] in memory, seen as [H, L, D]
    rms({ dtype: dt.bfloat16, shape: [H, L, D], strides: [D, H * D, 1], values: wave(H * L * D) }, true, tolerance);
    layer({ dtype: dt.bfloat16, shape: [H, L, D], strides: [D, H * D, 1], values: wave(H * L * D) }, true, true, { relative: 2 ** -8, absolute: 1e-3 });
    rms({ dtype: dt.bfloat16, shape: [4, D], strides: [3 * D, 1], offset: D, values: wave(12 * D) }, true, tolerance);
    rms({ dtype: dt.bfloat16, shape: [4, D], strides: [0, 1], offset: 3, values: wave(D + 3) }, true, tolerance);
    rms({ dtype: dt.bfloat16, shape: [4, D], strides: [D + 1, 1], offset: 0, values: wave(5 * D) }, true, tolerance);
  });
});
