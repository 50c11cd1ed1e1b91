/** Gathers and scatters on the GPU. Values are small integers, so that sums are exact in any order. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import type { View } from "../src/core/array.ts";
import { type Dtype, bfloat16, bool, complex64, dtypes, float16, float32, int16, int32, int64, int8, uint16, uint32, uint64, uint8 } from "../src/core/dtype.ts";
import type { GpuDevice, GpuKernel } from "../src/core/gpu.ts";
import { rowStrides, sizeOf } from "../src/core/shape.ts";
import { type TestArray, opNamed, runKernel, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const exact = { relative: 0, absolute: 0 };
/** One type of each size. */
const sizes = [uint8, uint16, float32, uint64];
const counted = (dtype: Dtype, n: number): number[] => Array.from({ length: n }, (_, i) => (dtype.kind === "bool" ? i % 2 : dtype.size === 1 ? i % 127 : dtype.size === 2 ? i % 2000 : i));
const row = (dtype: Dtype, shape: readonly number[], values = counted(dtype, sizeOf(shape))): TestArray => ({ dtype, shape, values });
/** The array with its dimensions in another order, as a view of a row-major block. */
const permuted = (dtype: Dtype, from: readonly number[], axes: readonly number[], values = counted(dtype, sizeOf(from)), offset = 0): TestArray => ({
  dtype, shape: axes.map((a) => from[a] as number), strides: axes.map((a) => rowStrides(from)[a] as number), offset, values: [...new Array<number>(offset).fill(1), ...values],
});
/** Indices all over a dimension: in range, negative, and outside. */
const indices = (dtype: Dtype, shape: readonly number[], size: number, outside = 1): TestArray => row(dtype, shape, Array.from({ length: sizeOf(shape) }, (_, i) => ((i * 7 + 3) % (size + 2 * outside)) - (dtype.kind === "signed" ? outside : 0)));

describe.skipIf(skipReason)("gathers on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const gather = (inputs: TestArray[], axes: number[], at: number): void => expect(testKernel(device, "gather", inputs, { axes, at }, exact)).toEqual(["vulkan/gather/gather"]);
  const along = (a: TestArray, i: TestArray, axis: number): void => expect(testKernel(device, "takeAlongAxis", [a, i], { axis }, exact)).toEqual(["vulkan/gather/takeAlongAxis"]);

  test("rows: every size, width and alignment", () => {
    for (const dtype of sizes)
      for (const width of [1, 2, 3, 8, 16, 33, 1024]) gather([row(dtype, [11, width]), indices(int32, [2, 5], 11)], [0], 0);
    gather([permuted(uint16, [7, 32], [0, 1], undefined, 1), indices(uint32, [9], 7)], [0], 0);
    gather([row(float32, [3, 70000]), row(uint32, [2], [2, 0])], [0], 0);
  });
  test("every axis, in the middle of other dimensions", () => {
    for (const dtype of sizes)
      for (const axis of [0, 1, 2]) {
        gather([row(dtype, [4, 5, 6]), indices(int32, [3], 4 + axis)], [axis], axis);
        gather([permuted(dtype, [4, 5, 6], [2, 0, 1], undefined, 3), indices(int32, [2, 2], 6)], [axis], axis === 2 ? 0 : axis);
      }
  });
  test("every type of index", () => {
    for (const dtype of [uint8, uint16, uint32, uint64, int8, int16, int32, int64]) {
      gather([row(float32, [9, 4]), indices(dtype, [20], 9)], [0], 0);
      gather([row(float32, [4, 9]), indices(dtype, [20], 9)], [1], 1);
    }
    for (const far of [2 ** 31, 2 ** 40, -(2 ** 40), -(2 ** 31), -1, 4294967295]) gather([row(float32, [9]), row(int64, [1], [far])], [0], 0);
    gather([row(float32, [9]), row(uint64, [2], [2 ** 33, 4])], [0], 0);
    gather([row(float32, [9]), row(uint32, [2], [2 ** 32 - 1, 4])], [0], 0);
  });
  test("several index arrays", () => {
    gather([row(float32, [4, 5, 6]), indices(int32, [7], 4), indices(uint8, [7], 5)], [0, 1], 0);
    gather([row(uint16, [4, 5, 8]), indices(int32, [2, 3], 4), permuted(int32, [3, 2], [1, 0])], [0, 1], 0);
    gather([row(uint8, [4, 5, 6]), indices(int32, [3], 4), indices(int64, [3], 6)], [0, 2], 1);
    gather([row(float32, [2, 2, 2, 3]), ...[0, 1, 2, 3].map((k) => indices(int32, [6], k === 3 ? 3 : 2, 0))], [0, 1, 2, 3], 0);
    // A single index array between more dimensions than the push constants hold.
    gather([permuted(float32, [2, 3, 2, 3, 2, 3, 2], [6, 1, 4, 3, 2, 5, 0]), indices(int32, [3, 2], 3)], [3], 3);
    gather([row(float32, [5]), { dtype: int32, shape: [], values: [-2] }], [0], 0);
  });
  test("take along an axis", () => {
    for (const dtype of sizes)
      for (const axis of [0, 1, 2]) {
        const shape = [3, 5, 40].map((d, i) => (i === axis ? 7 : d));
        along(row(dtype, [3, 5, 40]), indices(int32, shape, [3, 5, 40][axis] as number), axis);
        along(permuted(dtype, [40, 3, 5], [1, 2, 0], undefined, 2), permuted(uint32, [shape[1] as number, shape[2] as number, shape[0] as number], [2, 0, 1]), axis);
      }
    along(row(float32, [2, 3000]), indices(uint32, [2, 2500], 3000, 0), 1);
  });
});

describe.skipIf(skipReason)("scatters on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const whole = (shape: readonly number[]) => ({ start: shape.map(() => 0), step: shape.map(() => 1), shape });
  const scatter = (inputs: TestArray[], axes: number[], at: number, mode: string, region: object = whole((inputs[0] as TestArray).shape)): void =>
    expect(testKernel(device, "scatter", inputs, { axes, at, mode, region }, exact)).toEqual(["vulkan/gather/scatter"]);
  const put = (inputs: TestArray[], axis: number, mode: string): void => expect(testKernel(device, "putAlongAxis", inputs, { axis, mode }, exact)).toEqual(["vulkan/gather/putAlongAxis"]);
  /** Distinct places of a dimension. */
  const places = (n: number, size: number): TestArray => row(int32, [n], Array.from({ length: n }, (_, i) => ((i * 5) % size) - (i % 2 ? size : 0)));

  test("assign: rows, columns and single elements", () => {
    for (const dtype of sizes) {
      for (const width of [1, 3, 16, 300]) scatter([row(dtype, [11, width]), row(dtype, [7, width]), places(7, 11)], [0], 0, "assign");
      scatter([row(dtype, [4, 11]), permuted(dtype, [7, 4], [1, 0]), places(7, 11)], [1], 1, "assign");
      scatter([row(dtype, [11]), row(dtype, [7]), places(7, 11)], [0], 0, "assign");
      scatter([row(dtype, [4, 5, 6]), row(dtype, [3, 2, 6]), places(3, 4)], [0], 0, "assign", { start: [0, 4, 0], step: [1, -2, 1], shape: [4, 2, 6] });
      scatter([row(dtype, [4, 5, 6]), row(dtype, [3, 6]), places(3, 4), row(int8, [3], [1, 0, 1])], [0, 1], 0, "assign");
    }
  });

  const types = dtypes.filter((d) => d.kind !== "complex" && d.name !== "float64");
  const few = (dtype: Dtype, n: number, top: number): number[] => Array.from({ length: n }, (_, i) => (dtype.kind === "bool" ? Number(i % 3 === 0) : ((i * 5) % top) - (dtype.kind === "unsigned" ? 0 : Math.floor(top / 2))));
  for (const mode of ["add", "multiply", "maximum", "minimum"]) {
    test(`${mode}: every type, with places that repeat`, () => {
      for (const dtype of types) {
        // The reference adds and multiplies bools as numbers.
        if (dtype.kind === "bool" && (mode === "add" || mode === "multiply")) continue;
        const top = mode === "multiply" ? 3 : 9;
        // Products of up to four small factors at each place.
        const index = row(int32, [9], [1, 4, 4, 0, 1, -1, 3, 1, 0]);
        scatter([row(dtype, [5, 3], few(dtype, 15, top)), row(dtype, [9, 3], few(dtype, 27, top)), index], [0], 0, mode);
        scatter([row(dtype, [5], few(dtype, 5, top)), row(dtype, [9], few(dtype, 9, top)), index], [0], 0, mode);
        put([row(dtype, [3, 5], few(dtype, 15, top)), row(uint32, [3, 4], [0, 3, 3, 1, 4, 4, 4, 0, 2, 1, 2, 2]), row(dtype, [3, 4], few(dtype, 12, top))], 1, mode);
        put([row(dtype, [5, 3], few(dtype, 15, top)), permuted(uint32, [3, 4], [1, 0], [0, 3, 3, 1, 4, 4, 4, 0, 2, 1, 2, 2]), permuted(dtype, [3, 4], [1, 0], few(dtype, 12, top))], 0, mode);
      }
    });
  }
  test("many updates of one place", () => {
    for (const dtype of [float32, float16, uint8, int64, bfloat16]) {
      const n = 200;
      scatter([row(dtype, [3], [0, 0, 0]), row(dtype, [n], new Array<number>(n).fill(1)), row(int32, [n], Array.from({ length: n }, (_, i) => i % 2))], [0], 0, "add");
    }
  });
  test("parts of an array without index arrays", () => {
    for (const dtype of [uint8, float16, int32, int64])
      for (const start of [0, 1]) scatter([row(dtype, [4, 5]), row(dtype, [2, 3], [1, 2, 3, 4, 5, 6])], [], 0, "add", { start: [0, start], step: [2, 1], shape: [2, 3] });
    // Backwards: places before the one where the region begins, in each part of a word.
    for (const dtype of [uint8, float16, int32, float32, int64])
      for (const mode of ["assign", "add", "maximum"])
        for (const start of [3, 4]) scatter([row(dtype, [4, 5]), row(dtype, [2, 3], [1, 20, 3, 40, 5, 60])], [], 0, mode, { start: [3, start], step: [-2, -1], shape: [2, 3] });
  });
  test("updates and indices that run backwards", () => {
    const reversed = (dtype: Dtype, n: number, values?: number[]): TestArray => ({ ...row(dtype, [n], values), strides: [-1], offset: n - 1 });
    for (const dtype of [uint8, float16, float32, uint64])
      for (const index of [uint8, int16, int32, int64]) {
        expect(testKernel(device, "gather", [row(dtype, [5]), reversed(index, 4, [1, 4, 0, 2])], { axes: [0], at: 0 }, exact)).toHaveLength(1);
        scatter([row(dtype, [5]), reversed(dtype, 4), reversed(index, 4, [1, 4, 0, 2])], [0], 0, "assign");
        if (dtype !== uint64) scatter([row(dtype, [5]), reversed(dtype, 4), reversed(index, 4, [1, 4, 1, 2])], [0], 0, "add");
      }
  });
  test("NaN wins maximum and minimum", () => {
    for (const dtype of [float32, float16, bfloat16])
      for (const mode of ["maximum", "minimum"]) scatter([row(dtype, [3], [Number.NaN, 1, 2]), row(dtype, [3], [5, Number.NaN, 3]), row(int32, [3], [0, 1, 2])], [0], 0, mode);
  });
  test("several index arrays, updates that are views", () => {
    for (const dtype of [float32, bfloat16, uint64]) {
      scatter([row(dtype, [4, 5, 6]), permuted(dtype, [6, 3], [1, 0]), row(int32, [3], [1, 1, 3]), row(int8, [3], [1, 1, -1])], [0, 1], 0, "add");
      scatter([row(dtype, [4, 5, 6]), permuted(dtype, [6, 3, 5], [1, 2, 0]), row(int32, [3], [1, 1, 3])], [0], 0, "add");
    }
  });
  test("bools: adding is or, multiplying is and", () => {
    const [a, u] = [row(bool, [6], [0, 0, 1, 1, 0, 1]), row(bool, [6], [0, 1, 0, 1, 1, 0])];
    const kernel = opNamed("putAlongAxis").gpu?.[0] as GpuKernel;
    const run = (mode: string): number[] => Array.from(runKernel(device, kernel, [a, row(int32, [6], [0, 1, 2, 3, 0, 5]), u], [a], { axis: 0, mode })[0] as Float64Array);
    expect(run("add")).toEqual([1, 1, 1, 1, 0, 1]);
    expect(run("multiply")).toEqual([0, 0, 0, 1, 0, 0]);
  });
  test("complex numbers", () => {
    // The tester has no complex arrays: the kernel is given pairs of floats and told that they are complex.
    const asComplex = (v: View): View =>
      v.dtype === float32 ? { ...v, dtype: complex64, shape: v.shape.slice(0, -1), strides: v.strides.slice(0, -1).map((n) => n / 2), offset: v.offset / 2, size: v.size / 2 } : v;
    const op = opNamed("scatter");
    const kernel = op.gpu?.[0] as GpuKernel;
    const pairs = { ...kernel, launch: (i: readonly View[], o: readonly View[], p: object, d: GpuDevice) => kernel.launch(i.map(asComplex), o.map(asComplex), p, d) };
    for (const mode of ["assign", "add", "multiply", "maximum", "minimum"]) {
      // Repeated places get equal updates when the last one counts, since their order is open.
      const updates = mode === "assign" ? Array.from({ length: 36 }, (_, i) => (i < 18 ? i : i % 6)) : few(float32, 36, 7);
      const inputs = [row(float32, [4, 3, 2], few(float32, 24, 5)), row(float32, [6, 3, 2], updates), row(int32, [6], mode === "assign" ? [0, 1, 2, 3, 3, 3] : [0, 3, 3, 1, 0, -1])];
      const avals = inputs.map((x) => (x.dtype === float32 ? { shape: x.shape.slice(0, -1), dtype: complex64 } : x));
      const params = { axes: [0], at: 0, mode, region: whole([4, 3]) };
      const want = op.reference?.(inputs.map((x) => Float64Array.from(x.values)), avals, params, [avals[0] as (typeof avals)[0]])[0];
      expect(runKernel(device, pairs, inputs, [inputs[0] as TestArray], params)[0]).toEqual(want);
    }
  });
  test("values placed by a mask", () => {
    const masked = (a: TestArray, mask: TestArray, values: TestArray): void =>
      expect(testKernel(device, "maskedScatter", [a, mask, values], { depth: mask.shape.length }, exact)).toEqual(["vulkan/gather/maskedScatter"]);
    const marks = (shape: number[], of: (i: number) => boolean): TestArray => row(bool, shape, Array.from({ length: sizeOf(shape) }, (_, i) => Number(of(i))));
    for (const dtype of sizes) {
      masked(row(dtype, [5, 7]), marks([5, 7], (i) => i % 3 === 0), row(dtype, [40]));
      masked(row(dtype, [9, 16]), marks([9], (i) => i % 2 === 0), row(dtype, [3, 16]));
      masked(row(dtype, [9, 3]), marks([9], (i) => i > 4), row(dtype, [1, 3]));
    }
    masked(row(float32, [5000]), marks([5000], (i) => (i * i) % 7 < 3), row(float32, [4000]));
    masked(row(float32, [1025]), marks([1025], () => true), row(float32, [1025]));
    masked(row(float32, [3]), marks([3], () => false), row(float32, [3]));
  });
});
