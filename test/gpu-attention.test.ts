import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import { matrixShape } from "../src/ops/matmul-gpu.ts";
import { type TestArray, gpuDevice, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const op = "scaledDotProductAttention";
// One rounding of the result, sums in float32.
const tolerance = { float32: { relative: 1e-5, absolute: 2e-6 }, float16: { relative: 2 ** -10, absolute: 2 ** -14 }, bfloat16: { relative: 2 ** -8, absolute: 2 ** -12 } } as const;

type Float = typeof dt.float32;
interface Shape {
  B?: number;
  Hkv?: number;
  G?: number;
  Tq: number;
  Tk: number;
  D: number;
  Dv?: number;
}
/** Numbers that look random and repeat late. */
const noise = (n: number, seed: number, size = 1): Float64Array => Float64Array.from({ length: n }, (_, i) => size * (((Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453) % 1) * 2));
const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const dense = (dtype: Float, shape: readonly number[], seed: number, size?: number): TestArray => ({ dtype, shape, values: noise(product(shape), seed, size) });
const qkv = (dtype: Float, { B = 1, Hkv = 1, G = 1, Tq, Tk, D, Dv = D }: Shape): TestArray[] => [dense(dtype, [B, Hkv * G, Tq, D], 1), dense(dtype, [B, Hkv, Tk, D], 2), dense(dtype, [B, Hkv, Tk, Dv], 3)];
/** The first `length` rows of a cache (B, H, capacity, D) from row `first` on, positions before heads when `swapped`. */
const cached = (dtype: Float, [B, H, T, D]: readonly [number, number, number, number], seed: number, capacity: number, first: number, swapped = false): TestArray => ({
  dtype, shape: [B, H, T, D], values: noise(B * H * capacity * D, seed), offset: first * D * (swapped ? H : 1), strides: swapped ? [H * capacity * D, D, H * D, 1] : [H * capacity * D, capacity * D, D, 1],
});

describe.skipIf(skipReason)("attention on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  const plain = { scale: 0.3, mask: "none", length: false, sinks: false };
  const run = (inputs: readonly TestArray[], params: object, kernel: string): void => {
    const { name } = (inputs[0] as TestArray).dtype as { name: keyof typeof tolerance };
    expect(testKernel(device, op, inputs, { ...plain, ...params }, tolerance[name], `vulkan/attention/${kernel}`)).toEqual([`vulkan/attention/${kernel}`]);
  };

  // A software rasterizer takes seconds to compile each pipeline.
  const slow = 180_000;
  /** All kinds of masks and sinks for few keys, and those that concern the merging of ranges for many. */
  const options = (kernel: string, Tq: number, lengths: readonly number[] = [20, 310]): void => {
    for (const Tk of lengths) {
      const inputs = qkv(dt.float32, { B: 2, Hkv: 2, G: 2, Tq, Tk, D: 16 });
      const seen = (shape: readonly number[]): TestArray => ({ dtype: dt.bool, shape, values: Array.from({ length: product(shape) }, (_, i) => ((i * 7919) % 5 > 1 ? 1 : 0)) });
      const sinks = (dtype: Float): TestArray => dense(dtype, [4], 9);
      run(inputs, { mask: "causal" }, kernel);
      run([...inputs, sinks(dt.float32)], { sinks: true }, kernel);
      for (const count of [0, 1, Tk - 1, Tk]) run([...inputs, { dtype: dt.int32, shape: [1], values: [count] }], { length: true }, kernel);
      run([...inputs, { dtype: dt.int32, shape: [1], values: [Tk - 3] }, sinks(dt.float32)], { length: true, sinks: true }, kernel);
      // A range whose keys are all hidden.
      run([...inputs, { dtype: dt.float32, shape: [Tk], values: Array.from({ length: Tk }, (_, i) => (i < 3 ? 0 : Number.NEGATIVE_INFINITY)) }], { mask: "array" }, kernel);
      if (Tk !== lengths[0]) continue;
      run([...inputs, seen([2, 4, Tq, Tk])], { mask: "array" }, kernel);
      run([...inputs, seen([2, 1, 1, Tk]), sinks(dt.float16)], { mask: "array", sinks: true }, kernel);
      // A row without any key: the mean of all values. With -Infinity: 0.
      run([...inputs, { dtype: dt.bool, shape: [Tq, 1], values: Array.from({ length: Tq }, (_, i) => i % 2) }], { mask: "array" }, kernel);
      run([...inputs, { dtype: dt.float32, shape: [Tq, Tk], values: Array.from({ length: Tq * Tk }, (_, i) => (i < Tk || i % 3 === 0 ? Number.NEGATIVE_INFINITY : (i % 11) / 4)) }], { mask: "array" }, kernel);
      run([...inputs, { dtype: dt.float32, shape: [Tk], values: new Array<number>(Tk).fill(-3.4028234663852886e38) }], { mask: "array" }, kernel);
      run([...inputs, dense(dt.bfloat16, [4, Tq, 1], 7), sinks(dt.bfloat16)], { mask: "array", sinks: true }, kernel);
      run([...inputs, { ...dense(dt.float16, [2, 4, Tq, Tk], 8), strides: [4 * Tq * Tk, Tq * Tk, 1, Tq] }], { mask: "array" }, kernel);
    }
  };
  test("causal with fewer keys than queries: rows that see none take the mean", () => {
    for (const Tk of [1, 3]) run(qkv(dt.float32, { G: 2, Tq: 5, Tk, D: 8 }), { mask: "causal" }, "decode");
  });

  describe("matrix", () => {
    /** Weights are rounded to the type of the values, of which each may then be off by half a unit in the last place of 1. */
    const rounded = { float16: { relative: 2 ** -10, absolute: 2 ** -10 }, bfloat16: { relative: 2 ** -7, absolute: 2 ** -7 } } as const;
    const runRounded = (inputs: readonly TestArray[], params: object): void => {
      const { name } = (inputs[0] as TestArray).dtype as { name: keyof typeof rounded };
      expect(testKernel(device, op, inputs, { ...plain, ...params }, rounded[name], "vulkan/attention/matrix")).toEqual(["vulkan/attention/matrix"]);
    };
    const supported = (dtype: Float): boolean => skipReason === undefined && matrixShape(gpuDevice(device.info), dtype.name) !== undefined;
    for (const dtype of [dt.float16, dt.bfloat16] as const)
      test(`${dtype}: sizes around a tile, causal and not`, ({ skip }) => {
        if (!supported(dtype)) skip();
        for (const [Tq, Tk] of [[1, 1], [4, 130], [9, 31], [15, 32], [16, 33], [17, 130], [70, 70], [33, 600]] as const) for (const mask of ["none", "causal"]) runRounded(qkv(dtype, { B: 2, Hkv: 2, G: 2, Tq, Tk, D: 16 }), { mask });
      }, slow);
    const dtype = dt.float16;
    test("head dimensions; rows that see no key", ({ skip }) => {
      if (!supported(dtype)) skip();
      for (const [D, Dv] of [[5, 3], [24, 40]] as const) runRounded(qkv(dtype, { G: 3, Tq: 11, Tk: 45, D, Dv }), { mask: "causal" });
      for (const Tk of [1, 30]) runRounded(qkv(dtype, { G: 2, Tq: 75, Tk, D: 16 }), { mask: "causal" });
    }, slow);
    test("caches, masks, sinks, recorded lengths", ({ skip }) => {
      if (!supported(dtype)) skip();
      const inputs = [cached(dtype, [2, 4, 20, 16], 1, 21, 1, true), cached(dtype, [2, 2, 150, 16], 2, 256, 7), cached(dtype, [2, 2, 150, 16], 3, 200, 9, true)];
      runRounded(inputs, { mask: "causal" });
      const seen = { dtype: dt.bool, shape: [20, 150], values: Array.from({ length: 3000 }, (_, i) => (i > 150 && (i * 7919) % 5 > 1 ? 1 : 0)) };
      runRounded([...inputs, seen, dense(dtype, [4], 9)], { mask: "array", sinks: true });
      runRounded([...inputs, { dtype: dt.float32, shape: [20, 150], values: Array.from({ length: 3000 }, (_, i) => (i < 150 || i % 3 === 0 ? Number.NEGATIVE_INFINITY : (i % 11) / 4)) }], { mask: "array" });
      for (const count of [0, 33, 150]) runRounded([...inputs, { dtype: dt.int32, shape: [1], values: [count] }], { length: true });
    }, slow);
  });

  describe("tiles", () => {
    for (const dtype of [dt.float32, dt.float16, dt.bfloat16] as const)
      test(`${dtype}: sizes around a tile, causal and not`, () => {
        for (const [Tq, Tk] of [[1, 1], [9, 63], [15, 64], [16, 65], [17, 130], [70, 70], [33, 600]] as const) for (const mask of ["none", "causal"]) run(qkv(dtype, { Hkv: 2, G: 2, Tq, Tk, D: 48 }), { mask }, "tiles");
      });
    test("head dimensions, also of values, aligned and not", () => {
      for (const [D, Dv] of [[64, 64], [80, 80], [96, 96], [128, 128], [256, 256], [5, 3], [192, 128]] as const) run(qkv(dt.bfloat16, { Hkv: 2, G: 1, Tq: 37, Tk: 70, D, Dv }), { mask: "causal" }, "tiles");
      run(qkv(dt.float32, { G: 3, Tq: 11, Tk: 100, D: 33, Dv: 70 }), {}, "tiles");
    });
    test("caches are read in place", () => {
      for (const swapped of [false, true]) {
        const k = cached(dt.float16, [2, 2, 150, 48], 2, 256, 7, swapped);
        const v = cached(dt.float16, [2, 2, 150, 48], 3, 200, 9, !swapped);
        run([cached(dt.float16, [2, 4, 20, 48], 1, 21, 1, swapped), k, v], { mask: "causal" }, "tiles");
      }
    });
    test("masks, sinks and recorded lengths", () => options("tiles", 18, [20, 530]), slow);
    test("causal with fewer keys than queries: rows that see none take the mean", () => {
      for (const Tk of [1, 30]) run(qkv(dt.float32, { G: 2, Tq: 75, Tk, D: 8 }), { mask: "causal" }, "tiles");
    });
  });

  describe("decode", () => {
    for (const dtype of [dt.float32, dt.float16, dt.bfloat16] as const)
      test(`${dtype}: lengths around a pass and around a split`, () => {
        for (const Tk of [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 700]) run(qkv(dtype, { Hkv: 2, G: 2, Tq: 1, Tk, D: 64 }), {}, "decode");
      });
    test("groups of heads, several queries, blocks of rows", () => {
      for (const [G, Tq] of [[2, 8], [16, 1], [3, 5]] as const) for (const Tk of [40, 300]) run(qkv(dt.bfloat16, { B: 2, Hkv: 2, G, Tq, Tk, D: 64 }), { mask: "causal" }, "decode");
    });
    test("caches are read in place", () => {
      for (const swapped of [false, true]) {
        const k = cached(dt.float16, [2, 2, 150, 64], 2, 256, 7, swapped);
        const v = cached(dt.float16, [2, 2, 150, 64], 3, 200, 9, !swapped);
        run([dense(dt.float16, [2, 4, 1, 64], 1), k, v], {}, "decode");
      }
      // An offset that is not a multiple of 16 bytes.
      run([dense(dt.float16, [1, 2, 1, 20], 1), { ...dense(dt.float16, [1, 1, 90, 20], 2), strides: [0, 0, 21, 1], values: noise(3000, 2), offset: 3 }, dense(dt.float16, [1, 1, 90, 20], 3)], {}, "decode");
    });
    test("masks, sinks and recorded lengths", () => options("decode", 2), slow);
    test("head dimensions, also of values, aligned and not", () => {
      for (const [D, Dv] of [[80, 80], [96, 96], [128, 128], [256, 256], [5, 3], [192, 128]] as const) for (const Tk of [33, 300]) run(qkv(dt.bfloat16, { Hkv: 2, G: 1, Tq: 1, Tk, D, Dv }), {}, "decode");
      run(qkv(dt.float32, { G: 3, Tq: 1, Tk: 100, D: 33, Dv: 70 }), {}, "decode");
    });
  });
});
