/** Sorting on the GPU. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import { type Dtype, bfloat16, dtypes, float16, float32, float64, int32, uint16, uint32, uint64, uint8 } from "../src/core/dtype.ts";
import { sizeOf } from "../src/core/shape.ts";
import { type TestArray, opNamed, runKernel, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const exact = { relative: 0, absolute: 0 };
/** Values with repetitions, all over what the type has; floats with NaN, infinities and both zeros. */
function mixed(dtype: Dtype, n: number): number[] {
  const special = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -0, -Number.NaN];
  const range = dtype.kind === "bool" ? 2 : 2 ** Math.min(50, 8 * dtype.size);
  let x = 12345;
  return Array.from({ length: n }, (_, i) => {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    if (dtype.isFloat) return i % 37 === 5 ? (special[i % 6] as number) : i % 5 === 0 ? (x % 16) - 8 : (x / 2 ** 31 - 1) * 10 ** (i % 4);
    const value = i % 3 === 0 ? x % 2 : Math.floor((x / 2 ** 32) * range);
    return dtype.kind === "signed" ? value - Math.floor(range / 2) : value;
  });
}

describe.skipIf(skipReason)("sorting on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const sorts = (a: TestArray): void => {
    expect(testKernel(device, "sort", [a], {}, exact)).toEqual(["vulkan/sort/sort"]);
    expect(testKernel(device, "argsort", [a], {}, exact)).toEqual(["vulkan/sort/argsort"]);
  };
  const array = (dtype: Dtype, shape: readonly number[]): TestArray => ({ dtype, shape, values: mixed(dtype, sizeOf(shape)) });

  test("short rows, several to a workgroup", () => {
    for (const shape of [[1], [5, 1], [3, 2], [300, 7], [257, 8], [130, 9], [2, 3, 100], [5, 1000]]) sorts(array(float32, shape));
  });
  test("every type", () => {
    for (const dtype of dtypes) if (dtype.kind !== "complex") sorts(array(dtype, [3, 75]));
  });
  test("rows of a block and more", () => {
    for (const n of [2047, 2048, 2049, 4096, 5000, 20000]) sorts(array(float32, [n]));
    for (const dtype of [bfloat16, uint8, int32]) sorts(array(dtype, [3, 6200]));
    for (const dtype of [float64, uint64]) sorts(array(dtype, [2, 4100]));
  });
  test("rows in order, reversed, and of one value", () => {
    const n = 10000;
    for (const of of [(i: number) => i, (i: number) => -i, () => 1, (i: number) => (i < 6000 ? 2 : 1)]) sorts({ dtype: float32, shape: [n], values: Array.from({ length: n }, (_, i) => of(i)) });
    sorts({ dtype: uint32, shape: [5000], values: new Array<number>(5000).fill(2 ** 32 - 1) });
    sorts({ dtype: uint16, shape: [2, 9], values: new Array<number>(18).fill(65535) });
  });
  test("zeros keep their signs, and their order as indices", () => {
    for (const dtype of [float16, bfloat16, float32, float64]) {
      const a = { dtype, shape: [4], values: [0, -0, -1, 0] };
      const [got] = runKernel(device, (opNamed("sort").gpu ?? [])[0] as never, [a], [a], {}) as [Float64Array];
      expect(Array.from(got).filter((x) => Object.is(x, -0)).length).toBe(1);
      expect(testKernel(device, "argsort", [a], {}, exact)).toEqual(["vulkan/sort/argsort"]);
    }
  });
});
