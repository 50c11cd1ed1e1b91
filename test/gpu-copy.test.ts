/** Copies between layouts on the GPU, and the ops made of them. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import { type Dtype, bfloat16, dtypes, float32, float64, int32, int64, uint16, uint64, uint8 } from "../src/core/dtype.ts";
import { rowStrides, sizeOf } from "../src/core/shape.ts";
import { type TestArray, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const exact = { relative: 0, absolute: 0 };
/** One type of each size. */
const sizes = [uint8, uint16, float32, uint64];
/** Distinct values, as far as the type has them. */
const counted = (dtype: Dtype, n: number): number[] => Array.from({ length: n }, (_, i) => (dtype.kind === "bool" ? i % 2 : dtype.size === 1 ? i % 127 : dtype.size === 2 ? i % 2000 : i));
/** A view of a block that holds all it reaches. */
function view(dtype: Dtype, shape: readonly number[], strides: readonly number[], offset = 0): TestArray {
  const low = offset + shape.reduce((n, d, i) => n + Math.min(0, Math.max(0, d - 1) * (strides[i] as number)), 0);
  if (low < 0) throw new Error("the view begins before its block");
  return { dtype, shape, strides, offset, values: counted(dtype, offset + 1 + shape.reduce((n, d, i) => n + Math.max(0, Math.max(0, d - 1) * (strides[i] as number)), 0)) };
}
const row = (dtype: Dtype, shape: readonly number[], offset = 0): TestArray => view(dtype, shape, rowStrides(shape), offset);
const permuted = (dtype: Dtype, from: readonly number[], axes: readonly number[], offset = 0): TestArray => view(dtype, axes.map((a) => from[a] as number), axes.map((a) => rowStrides(from)[a] as number), offset);

describe.skipIf(skipReason)("copies on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const copies = (a: TestArray): void => expect(testKernel(device, "copy", [a], {}, exact)).toEqual(["vulkan/copy/strided"]);

  for (const dtype of sizes) {
    test(`${dtype}: contiguous runs with and without alignment`, () => {
      for (const n of [1, 15, 16, 17, 1000, 4099]) for (const offset of [0, 1, 16]) copies(row(dtype, [n], offset));
      copies(row(dtype, []));
    });
    test(`${dtype}: rows, steps, reversals and broadcasts`, () => {
      for (const [shape, strides, offset] of [
        [[5, 33], [40, 1], 3],
        [[7, 64], [128, 1], 0],
        [[3, 2, 2], [16, 4, 1], 0],
        [[100], [3], 1],
        [[50], [-1], 60],
        [[4, 6], [-6, -1], 23],
        [[9, 300], [0, 1], 0],
        [[300, 5], [1, 0], 2],
        [[2, 3, 4, 5], [1, 2, 6, 24], 0],
        [[1100, 2], [1, 2000], 0],
      ] as const)
        copies(view(dtype, shape, strides, offset));
    });
    test(`${dtype}: transpositions`, () => {
      for (const [rows, columns] of [[8, 8], [31, 33], [32, 32], [65, 63], [64, 130], [1, 9]] as const) {
        copies(permuted(dtype, [rows, columns], [1, 0]));
        copies(permuted(dtype, [3, rows, 2, columns], [2, 0, 3, 1], 5));
      }
      copies(permuted(dtype, [20, 30, 2], [1, 0, 2]));
      copies(permuted(dtype, [2, 9, 4, 16], [0, 2, 1, 3]));
    });
  }
  test("every type", () => {
    for (const dtype of dtypes) if (dtype.kind !== "complex") copies(permuted(dtype, [9, 10], [1, 0]));
  });
  test("many dimensions", () => {
    for (const rank of [8, 9, 10]) {
      const shape = new Array<number>(rank).fill(2);
      copies(view(float32, shape, rowStrides(shape).map((n) => 3 * n)));
      // Two of the dimensions change places, so that no neighbours merge.
      copies(permuted(int32, shape, shape.map((_, i) => (i % 2 ? i - 1 : i + 1 < rank ? i + 1 : i))));
    }
  });
  test("concatenate", () => {
    const join = (inputs: TestArray[], axis: number): void => expect(testKernel(device, "concatenate", inputs, { axis }, exact)).toEqual(["vulkan/copy/concatenate"]);
    for (const dtype of sizes) {
      join([row(dtype, [3, 5, 4]), row(dtype, [3, 1, 4]), row(dtype, [3, 7, 4])], 1);
      join([row(dtype, [2, 16]), row(dtype, [3, 16], 16), row(dtype, [1, 16])], 0);
      join([row(dtype, [5, 3]), permuted(dtype, [300, 5], [1, 0]), row(dtype, [5, 0]), row(dtype, [5, 1], 1)], 1);
      join([view(dtype, [4, 32], [40, 1], 8), view(dtype, [4, 64], [0, 1])], 1);
    }
    join(Array.from({ length: 11 }, (_, i) => row(float32, [2, i, 8])), 1);
    join([row(int32, [])].map((a) => ({ ...a, shape: [1], strides: [1] })), 0);
  });

  test("pad", () => {
    const pads = (a: TestArray, low: number[], high: number[]): void => {
      const value = { dtype: a.dtype, shape: [], values: [a.dtype === uint8 ? 250 : 4001] };
      expect(testKernel(device, "pad", [a, value], { low, high }, exact)).toEqual(["vulkan/copy/pad"]);
    };
    for (const dtype of sizes) {
      pads(row(dtype, [5]), [2], [3]);
      pads(row(dtype, []), [], []);
      pads(row(dtype, [0, 2]), [1, 0], [2, 1]);
      pads(row(dtype, [2, 3, 3, 16]), [0, 1, 2, 0], [0, 2, 1, 0]);
      pads(permuted(dtype, [33, 40], [1, 0], 3), [1, 0], [0, 70]);
      pads(view(dtype, [3, 4], [-4, -1], 11), [4, 4], [4, 4]);
    }
    // More padded dimensions than one dispatch takes.
    pads(row(float32, [2, 1, 2, 3, 2, 2]), [1, 1, 1, 0, 1, 1], [1, 0, 1, 1, 2, 1]);
  });

  test("slices that are written", () => {
    const update = (a: TestArray, u: TestArray, start: number[], step: number[]): void =>
      expect(testKernel(device, "sliceUpdate", [a, u], { start, step, shape: u.shape }, exact)).toEqual(["vulkan/copy/sliceUpdate"]);
    for (const dtype of sizes) {
      update(row(dtype, [2, 9, 16]), permuted(dtype, [3, 2, 16], [1, 0, 2]), [0, 5, 0], [1, 1, 1]);
      update(row(dtype, [20]), row(dtype, [7]), [19], [-3]);
      update(row(dtype, [40, 20]), permuted(dtype, [17, 33], [1, 0]), [3, 1], [1, 1]);
      update(row(dtype, [4, 6]), view(dtype, [2, 3], [0, 0], 2), [1, 0], [2, 2]);
    }
  });

  test("slices at places that are read", () => {
    const starts = (values: number[]): TestArray => ({ dtype: int32, shape: [values.length], values });
    const slice = (a: TestArray, at: number[], axes: number[], shape: number[]): void =>
      expect(testKernel(device, "dynamicSlice", [a, starts(at)], { axes, shape }, exact)).toEqual(["vulkan/copy/dynamicSlice"]);
    const update = (a: TestArray, u: TestArray, at: number[], axes: number[]): void =>
      expect(testKernel(device, "dynamicSliceUpdate", [a, u, starts(at)], { axes }, exact)).toEqual(["vulkan/copy/dynamicSliceUpdate"]);
    for (const dtype of sizes) {
      for (const at of [0, 4, 5, 9, -3]) {
        slice(row(dtype, [3, 8, 16]), [at], [1], [3, 3, 16]);
        update(row(dtype, [3, 8, 16]), row(dtype, [3, 3, 16]), [at], [1]);
      }
      slice(permuted(dtype, [9, 10], [1, 0], 3), [2, 1], [1, 0], [4, 5]);
      update(row(dtype, [9, 10]), permuted(dtype, [3, 4], [1, 0]), [7, 2], [1, 0]);
    }
    slice(row(float32, [4, 4]), [], [], [4, 4]);
  });

  test("one value everywhere", () => {
    for (const dtype of sizes) {
      for (const shape of [[], [1], [3, 5], [16], [4099]])
        expect(testKernel(device, "full", [{ dtype, shape: [], values: [dtype === uint8 ? 201 : 3001] }], { shape }, exact)).toEqual(["vulkan/copy/full"]);
    }
  });

  test("ranges", () => {
    const half = { relative: 2 ** -8, absolute: 0 };
    for (const dtype of dtypes) {
      if (dtype.kind === "bool" || dtype.kind === "complex") continue;
      for (const [size, start, step] of [[1, 3, 1], [100, 5, 1], [300, dtype.kind === "unsigned" || dtype.size === 1 ? 0 : -150, dtype.size === 1 ? 0 : 2]] as const) {
        const ran = testKernel(device, "arange", [], { size, start, step, last: undefined, dtype }, dtype.name === "bfloat16" ? half : exact);
        expect(ran).toContain(dtype.name === "float64" ? "vulkan/copy/rangeDoubles" : "vulkan/copy/range");
      }
    }
    // 64-bit elements need the carry into the high word.
    testKernel(device, "arange", [], { size: 9, start: 2 ** 32 - 3, step: 1, last: undefined, dtype: int64 }, exact, "vulkan/copy/range");
    testKernel(device, "arange", [], { size: 300, start: -(2 ** 34), step: 2 ** 33 - 5, last: undefined, dtype: int64 }, exact, "vulkan/copy/range");
    if (!device.info.features.shaderFloat64) return;
    const doubles = (params: object, tolerance = exact): void => expect(testKernel(device, "arange", [], params, tolerance)).toEqual(["vulkan/copy/rangeDoubles"]);
    for (const [size, start, step] of [[1000, 0.1, 0.7], [77, -3, -1 / 3]] as const) {
      doubles({ size, start, step, last: undefined, dtype: float64 });
      doubles({ size, start, step, last: undefined, dtype: float32 }, { relative: 2 ** -24, absolute: 0 });
      doubles({ size, start, step, last: 12.5, dtype: float32 }, { relative: 2 ** -24, absolute: 0 });
      doubles({ size, start, step, last: undefined, dtype: bfloat16 }, half);
    }
    doubles({ size: 5, start: 1, step: 2.5, last: 11, dtype: float32 });
  });

  test("bands of matrices", () => {
    for (const dtype of sizes) {
      for (const [rows, columns] of [[1, 1], [3, 5], [70, 64], [5, 300]] as const) {
        for (const [low, high] of [[0, 0], [-(2 ** 31), 1], [-1, 2 ** 31 - 1], [-2, 2], [4, 2]] as const) {
          expect(testKernel(device, "band", [{ dtype, shape: [], values: [7] }], { low, high, rows, columns }, exact)).toEqual(["vulkan/copy/band"]);
          expect(testKernel(device, "bandPart", [row(dtype, [2, rows, columns])], { low, high }, exact)).toEqual(["vulkan/copy/bandPart"]);
        }
      }
      for (const k of [0, 2, -3])
        for (const a of [row(dtype, [20]), view(dtype, [7], [-2], 14)]) expect(testKernel(device, "diag", [a, { dtype, shape: [], values: [0] }], { k }, exact)).toEqual(["vulkan/copy/diag"]);
    }
  });

  test("large enough for several units per invocation", () => {
    copies(row(uint8, [2 ** 20 + 5], 1));
    copies(view(uint16, [5, 110000], [110001, 1], 1));
    expect(sizeOf([5, 110000])).toBeGreaterThan(2 ** 19);
  });
});
