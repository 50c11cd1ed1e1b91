/** GPU kernels of the quantization into small floats, one by one, against the float64 references; the references are compared with the formats in quantized-modes.test.ts. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import { gpuQmv, gpuQuantize } from "../src/ops/quantized-gpu.ts";
import { type TestArray, elementsOf, gpuDevice, opNamed, runKernel, testKernel, viewOf } from "./helpers/gpu.ts";
import { type SmallMode, bitsOf, groupOf, smallModes } from "./helpers/small-floats.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const floats = [dt.float32, dt.float16, dt.bfloat16] as const;
/** Rounding of the result, and of sums of some hundred products of numbers up to 6 in float32. */
const tolerance = (d: dt.Dtype) => ({ relative: d === dt.float32 ? 4e-6 : d === dt.float16 ? 2 ** -11 * 1.01 : 2 ** -8 * 1.01, absolute: 2e-4 });
let state = 5;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const array = (dtype: dt.Dtype, shape: readonly number[], make: (i: number) => number = () => random() * 2 - 1): TestArray => ({ dtype, shape, values: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => make(i)) });
/** Codes of any value but the largest e4m3 ones, with scales around 1 (mxfp8: 2^-8, so that values are about 1). */
function packed(lead: readonly number[], rows: number, length: number, mode: SmallMode): TestArray[] {
  const word = (): number => (mode === "mxfp8" ? (random() * 2 ** 32) & 0xf7f7f7f7 : random() * 2 ** 32) >>> 0;
  const scale = (): number => (mode === "nvfp4" ? 0x28 + Math.floor(random() * 0x18) : (mode === "mxfp8" ? 119 : 125) + Math.floor(random() * 3));
  return [array(dt.uint32, [...lead, rows, (length * bitsOf(mode)) / 32], word), array(dt.uint8, [...lead, rows, length / groupOf(mode)], scale)];
}
const paramsOf = (mode: SmallMode, transpose = true) => ({ transpose, groupSize: groupOf(mode), bits: bitsOf(mode), mode });
/** The same operand, beginning `by` elements into its storage. */
const moved = (a: TestArray, by: number): TestArray => ({ ...a, offset: by, values: [...new Array<number>(by).fill(77), ...Array.from(a.values)] });

describe.skipIf(skipReason)("small floats on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const product = (x: TestArray, matrix: readonly TestArray[], params: object, kernel: string, op = "quantizedMatmul"): void => {
    expect(testKernel(device, op, [x, ...matrix], params, tolerance(x.dtype), kernel)).toEqual([kernel]);
  };

  for (const mode of smallModes) {
    test(`${mode}: few rows of x times [N, K]`, () => {
      for (const x of floats) for (const [M, N, K] of [[1, 7, 96], [3, 6, 64], [8, 5, 384]] as const) product(array(x, [M, K]), packed([], N, K, mode), paramsOf(mode), "vulkan/quantfloat/qmv");
      product(array(dt.bfloat16, [2, 2, 64]), packed([], 6, 64, mode), paramsOf(mode), "vulkan/quantfloat/qmv");
      product(array(dt.float32, [17, 96]), packed([], 6, 96, mode), paramsOf(mode), "vulkan/quantfloat/qmvAny");
    });
    test(`${mode}: many rows, and both orders`, () => {
      for (const x of floats) {
        product(array(x, [33, 128]), packed([], 70, 128, mode), paramsOf(mode), "vulkan/quantfloat/mm_tiled");
        product(array(x, [9, 37]), packed([], 37, 64, mode), paramsOf(mode, false), "vulkan/quantfloat/mm_tiled");
        for (const M of [1, 3, 16]) product(array(x, [M, 37]), packed([], 37, 64, mode), paramsOf(mode, false), "vulkan/quantfloat/qvm");
      }
      // Long enough to be shared by several workgroups.
      product(array(dt.float32, [1, 600]), packed([], 600, 32, mode), paramsOf(mode, false), "vulkan/quantfloat/qvm");
    });
    test(`${mode}: chosen matrices`, () => {
      const lhs = array(dt.uint32, [2, 2], (i) => [2, 0, 2, 1][i] as number);
      const rhs = array(dt.uint32, [2, 2], (i) => [0, 3, 3, 1][i] as number);
      for (const M of [1, 3]) {
        product(array(dt.bfloat16, [3, M, 64]), [...packed([4], 6, 64, mode), lhs, rhs], paramsOf(mode), "vulkan/quantfloat/gatherQmv", "gatherQMM");
        product(array(dt.float32, [3, M, 21]), [...packed([4], 21, 64, mode), lhs, rhs], paramsOf(mode, false), "vulkan/quantfloat/qvm", "gatherQMM");
      }
    });
    test(`${mode}: addresses that allow no wide loads`, () => {
      const matrix = packed([], 5, 64, mode).map((a, i) => moved(a, 2 * i + 1));
      for (const x of floats) product(moved(array(x, [1, 64]), 1), matrix, paramsOf(mode), "vulkan/quantfloat/qmv");
      product(moved(array(dt.float16, [9, 64]), 1), matrix, paramsOf(mode), "vulkan/quantfloat/mm_tiled");
      product(moved(array(dt.float16, [9, 5]), 1), matrix, paramsOf(mode, false), "vulkan/quantfloat/qvm");
    });
    test(`${mode}: infinities and NaN reach the result as in a plain sum`, () => {
      for (const special of [[Infinity], [NaN], [Infinity, -Infinity]]) {
        // Odd codes only: none of them is zero.
        const matrix = packed([], 9, 96, mode).map((a) => (a.dtype === dt.uint32 ? { ...a, values: Array.from(a.values, (v) => (v | 0x11111111) >>> 0) } : a));
        product(array(dt.float32, [2, 96], (i) => (i >= 130 && i < 130 + special.length ? (special[i - 130] as number) : 0.25)), matrix, paramsOf(mode), "vulkan/quantfloat/qmv");
      }
    });

    test(`${mode}: codes and scales are those of the CPU, bit by bit`, () => {
      const group = groupOf(mode);
      for (const x of floats) {
        for (const global of mode === "nvfp4" ? [[], [array(dt.float32, [1], () => 3.7)]] : [[]]) {
          const spread = (i: number): number => (random() * 2 - 1) * 2 ** (Math.floor(i / group) % 9) * (i % 7 === 0 ? 0 : 1);
          const name = "vulkan/quantfloat/quantize";
          expect(testKernel(device, "quantize", [array(x, [5, 3 * group], spread), ...global], paramsOf(mode), { relative: 0, absolute: 0 }, name)).toEqual([name]);
        }
      }
      const middles = [6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -0.75, -5, 0, 17, 19, 1e-9, 5.1];
      for (const values of [middles, [0], [448], [Infinity, 1, 2], [NaN, 1, 6], [1e-40], [1e-37, 2e-37], [3e38, 1]]) {
        const [got, want] = both(array(dt.float32, [2, 64], (i) => values[i % values.length] as number), mode);
        // Numbers that are subnormal may count as zero on a GPU.
        if (!values.some((v) => v !== 0 && Math.abs(v) < 1e-36)) expect(got).toEqual(want);
      }
    });
    /** Codes and scales of the kernel and of the reference. */
    const both = (x: TestArray, m: SmallMode): [number[][], number[][]] => {
      const op = opNamed("quantize");
      const outputs = op.infer([x], paramsOf(m));
      const want = op.reference?.([elementsOf(x)], [x], paramsOf(m), outputs) as Float64Array[];
      return [runKernel(device, gpuQuantize, [x], outputs, paramsOf(m)).map((a) => [...a]), want.map((a) => [...a])];
    };

    test(`${mode}: every code and scale has its value`, () => {
      const bits = bitsOf(mode);
      const words = array(dt.uint32, [1, 64], (i) => (bits === 8 ? 0x03020100 + 0x04040404 * i : 0x76543210 + 0x88888888 * (i % 2)) >>> 0);
      const count = (64 * 32) / bits / groupOf(mode);
      for (const first of [0, 100, 246]) {
        // Values stay normal and finite: scales of powers of two from 2^-100 on.
        const scales = array(dt.uint8, [1, count], (i) => (mode === "nvfp4" ? (first + i) % 127 : 27 + ((first + i) % 200)));
        for (const out of [dt.float32, dt.bfloat16]) {
          const name = "vulkan/quantfloat/dequantize";
          for (const global of mode === "nvfp4" ? [[], [array(dt.float32, [1], () => 41.5)]] : [[]]) {
            expect(testKernel(device, "dequantize", [words, scales, ...global], { ...paramsOf(mode), dtype: out }, { relative: out === dt.float32 ? 0 : 2 ** -8, absolute: 0 }, name)).toEqual([name]);
          }
        }
      }
    });
  }

  test("gates say what the kernels do not take", () => {
    const gpu = gpuDevice(device.info);
    const views = [array(dt.float32, [1, 48]), ...packed([], 4, 48, "nvfp4")].map(viewOf);
    const out = viewOf(array(dt.float32, [1, 4]));
    expect(gpuQmv.gate?.refuse?.(views, paramsOf("nvfp4"), [out], gpu)).toBe("cannot: rows of 48 values do not come in whole blocks of 32");
    for (const name of ["quantizedMatmul", "gatherQMM", "quantize", "dequantize"]) {
      const kernels = opNamed(name).gpu ?? [];
      const small = kernels.filter((k) => k.name.startsWith("vulkan/quantfloat/"));
      expect(small.length).toBeGreaterThan(0);
      for (const k of small) {
        expect(k.gate?.needs).toContain("storageBuffer8BitAccess");
        expect(k.gate?.refuse?.(views, { ...paramsOf("nvfp4"), mode: undefined }, [out], gpu)).toBe("cannot: the quantization is affine");
      }
      for (const k of kernels) if (!small.includes(k)) expect(k.gate?.refuse?.(views, paramsOf("nvfp4"), [out], gpu)).toBe("cannot: the quantization is nvfp4");
    }
  });
});
