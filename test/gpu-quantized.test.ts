import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import { gpuQmv, gpuQmvAny, gpuQuantize, gpuQvm, launchQmv } from "../src/ops/quantized-gpu.ts";
import { type TestArray, elementsOf, gpuDevice, opNamed, runKernel, testKernel, viewOf } from "./helpers/gpu.ts";
import { decode, encode } from "./helpers/group.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const bitsAll = [2, 3, 4, 5, 6, 8];
const floats = [dt.float32, dt.float16, dt.bfloat16] as const;
/** Rounding of the result, and of sums of some hundred products of size 1 in float32. */
const tolerance = (d: dt.Dtype) => ({ relative: d === dt.float32 ? 4e-6 : d === dt.float16 ? 2 ** -11 * 1.01 : 2 ** -8 * 1.01, absolute: d === dt.float32 ? 4e-5 : 1e-4 });

let state = 1;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const array = (dtype: dt.Dtype, shape: readonly number[], make: (i: number) => number = () => random() * 2 - 1): TestArray => ({ dtype, shape, values: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => make(i)) });
const words = (shape: readonly number[]): TestArray => array(dt.uint32, shape, () => Math.floor(random() * 2 ** 32));
const rounded = (dtype: dt.Dtype, values: Float64Array): number[] => decode(dtype, encode(dtype, Array.from(values))).map(Number);
/** Packed matrices [..., rows, length] with scales around 1 / 2^bits. */
const packed = (lead: readonly number[], rows: number, length: number, groupSize: number, bits: number, dtype: dt.Dtype): TestArray[] => [
  words([...lead, rows, (length * bits) / 32]),
  array(dtype, [...lead, rows, length / groupSize], () => (0.5 + random()) / 2 ** bits),
  array(dtype, [...lead, rows, length / groupSize], () => random() - 1),
];

describe.skipIf(skipReason)("quantized products on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  type Params = { transpose: boolean; groupSize: number; bits: number };
  const product = (x: TestArray, matrix: readonly TestArray[], params: Params, kernel: string, op = "quantizedMatmul"): void => {
    const out = opNamed(op).infer([x, ...matrix], params)[0]?.dtype as dt.Dtype;
    expect(testKernel(device, op, [x, ...matrix], params, tolerance(out), kernel)).toEqual([kernel]);
  };
  const qmv = "vulkan/quantized/qmv";

  for (const bits of bitsAll)
    test(`${bits} bits, one row of x times packed [N, K]: lengths and numbers of rows around the kernel's tiles`, () => {
      for (const [N, K, groupSize] of [[1, 32, 32], [7, 96, 32], [9, 256, 64], [5, 384, 128]] as const) {
        product(array(dt.bfloat16, [1, K]), packed([], N, K, groupSize, bits, dt.bfloat16), { transpose: true, groupSize, bits }, qmv);
      }
    });

  test("every pair of types of x and of the scales", () => {
    for (const x of floats) for (const s of floats) product(array(x, [1, 64]), packed([], 6, 64, 32, 4, s), { transpose: true, groupSize: 32, bits: 4 }, qmv);
  });

  test("several rows of x share the weights, and batch dimensions count as rows", () => {
    const params = { transpose: true, groupSize: 32, bits: 4 };
    for (const shape of [[2, 96], [3, 96], [2, 2, 96], [5, 96], [7, 96], [8, 96]]) product(array(dt.float32, shape), packed([], 6, 96, 32, 4, dt.float32), params, qmv);
    for (const M of [9, 17]) product(array(dt.float32, [M, 96]), packed([], 6, 96, 32, 4, dt.float32), params, "vulkan/quantized/qmvAny");
    product(array(dt.bfloat16, [8, 64]), packed([], 3, 64, 32, 3, dt.bfloat16), { ...params, bits: 3 }, qmv);
  });

  test("however the product is cut up, the result is the same within rounding", () => {
    const params = { transpose: true, groupSize: 64, bits: 4 };
    for (const shape of [
      { rows: 1, steps: 1, split: 2, subgroups: 4 }, { rows: 2, steps: 2, split: 1, subgroups: 4 }, { rows: 4, steps: 2, split: 2, subgroups: 2 },
      { rows: 2, steps: 3, split: 3, subgroups: 6 }, { rows: 1, steps: 1, split: 4, subgroups: 8 },
    ]) {
      for (const [M, N, K] of [[1, 13, 1600], [2, 3, 64]] as const) {
        const inputs = [array(dt.float32, [M, K]), ...packed([], N, K, 64, 4, dt.float32)];
        const op = opNamed("quantizedMatmul");
        const outputs = op.infer(inputs, params);
        const want = op.reference?.(inputs.map(elementsOf), inputs, params, outputs)[0] as Float64Array;
        const kernel = { ...gpuQmv, launch: (...[i, o, p, d]: Parameters<typeof launchQmv>) => launchQmv(i, o, p, d, shape) };
        const [got] = runKernel(device, kernel, inputs, outputs, params) as [Float64Array];
        got.forEach((g, i) => expect(Math.abs(g - (want[i] as number)), JSON.stringify({ shape, M, i })).toBeLessThan(4e-5 + 4e-6 * Math.abs(want[i] as number)));
      }
    }
  });

  /** The same operand, beginning `by` elements into its storage. */
  const moved = (a: TestArray, by: number): TestArray => ({ ...a, offset: by, values: [...new Array<number>(by).fill(77), ...Array.from(a.values)] });
  test("operands at addresses that allow no wide loads", () => {
    for (const bits of [4, 8]) {
      const params = { transpose: true, groupSize: 32, bits };
      for (const d of [dt.float32, dt.float16]) product(moved(array(d, [1, 64]), 1), packed([], 5, 64, 32, bits, d).map((a) => moved(a, 3)), params, qmv);
      product(moved(array(dt.float32, [2, 40]), 1), packed([], 40, 64, 32, bits, dt.float16).map((a) => moved(a, 3)), { ...params, transpose: false }, "vulkan/quantized/qvm");
    }
  });

  test("infinities and NaN reach the result as in a plain sum", () => {
    const params = { transpose: true, groupSize: 32, bits: 4 };
    const matrix = packed([], 9, 96, 32, 4, dt.float32);
    for (const special of [[Infinity], [-Infinity], [NaN], [Infinity, -Infinity], [3e38]]) {
      const x = array(dt.float32, [2, 96], (i) => (i >= 130 && i < 130 + special.length ? (special[i - 130] as number) : 0.25));
      product(x, matrix, params, qmv);
    }
    // One weight is infinite, and only its row.
    const [w, s, b] = packed([], 9, 96, 32, 4, dt.float32) as [TestArray, TestArray, TestArray];
    product(array(dt.float32, [1, 96], () => 0.5), [w, { ...s, values: Array.from(s.values, (v, i) => (i === 13 ? Infinity : v)) }, b], params, qmv);
  });

  for (const bits of bitsAll)
    test(`${bits} bits, rows of x times packed [K, N]: one part and several`, () => {
      const params = { transpose: false, groupSize: 32, bits };
      for (const [M, K, N] of [[1, 5, 32], [2, 33, 96], [1, 200, 288], [5, 64, 96]] as const) product(array(dt.bfloat16, [M, K]), packed([], K, N, 32, bits, dt.bfloat16), params, "vulkan/quantized/qvm");
      if (bits === 4) for (const x of floats) product(array(x, [3, 70]), packed([], 70, 128, 128, bits, dt.float16), { ...params, groupSize: 128 }, "vulkan/quantized/qvm");
    });

  for (const transpose of [true, false])
    test(`matrices chosen by indices, ${transpose ? "packed [N, K]" : "packed [K, N]"}`, () => {
      const kernel = transpose ? "vulkan/quantized/gatherQmv" : "vulkan/quantized/qvm";
      for (const [M, bits] of [[1, 4], [3, 4], [10, 4], [1, 6]] as const) {
        const [K, N] = [64, 96];
        const matrix = packed([5], transpose ? N : K, transpose ? K : N, 32, bits, dt.bfloat16);
        const lhs = array(dt.uint32, [2, 3], (i) => [0, 1, 3, 2, 0, 1][i] as number);
        const rhs = array(dt.uint32, [2, 3], (i) => [4, 0, 2, 2, 1, 3][i] as number);
        product(array(dt.bfloat16, [4, M, K]), [...matrix, lhs, rhs], { transpose, groupSize: 32, bits }, kernel, "gatherQMM");
      }
    });

  for (const bits of bitsAll)
    test(`${bits} bits, packing: the integers, scales and biases of the reference, exactly`, () => {
      const op = opNamed("quantize");
      for (const [dtype, rows, groupSize] of [[dt.float32, 5, 32], [dt.float16, 3, 64], [dt.bfloat16, 11, 128]] as const) {
        // Uniform values, exact multiples (ties), one sign only, constants, zeros, very small ones, large ones.
        const kinds = [() => random() * 2 - 1, () => Math.round(random() * 31) / 2, () => -random(), () => 0.7, () => 0, () => random() * 1e-7, () => (random() - 0.5) * 1e4];
        const x = array(dtype, [rows, 2 * groupSize], (i) => (kinds[Math.floor(i / groupSize) % kinds.length] as () => number)());
        const params = { groupSize, bits };
        const outputs = op.infer([x], params);
        const want = op.reference?.([elementsOf(x)], [x], params, outputs) as readonly Float64Array[];
        const got = runKernel(device, gpuQuantize, [x], outputs, params);
        want.forEach((w, i) => expect(Array.from(got[i] as Float64Array), `${dtype} output ${i}`).toEqual(Array.from(rounded(outputs[i]?.dtype as dt.Dtype, w))));
      }
    });

  for (const bits of bitsAll)
    test(`${bits} bits, unpacking: scale * q + bias, rounded once`, () => {
      for (const [s, out, shape, groupSize] of [[dt.float32, dt.float32, [3, 32], 32], [dt.bfloat16, dt.bfloat16, [2, 5, 128], 64], [dt.float16, dt.bfloat16, [9, 128], 128], [dt.bfloat16, dt.float16, [1, 64], 32]] as const) {
        const matrix = packed(shape.slice(0, -2), shape[shape.length - 2] as number, shape[shape.length - 1] as number, groupSize, bits, s);
        // Half a unit in the last place of the result, and the rounding of product and sum in float32.
        const relative = out === dt.float32 ? 0 : out === dt.float16 ? 2 ** -11 * 1.001 : 2 ** -8 * 1.001;
        expect(testKernel(device, "dequantize", matrix, { groupSize, bits, dtype: out }, { relative, absolute: 2e-7 })).toEqual(["vulkan/quantized/dequantize"]);
      }
    });

  test("many rows and matrices of the other orientation are refused", () => {
    const views = [array(dt.float32, [9, 64]), ...packed([], 4, 64, 32, 4, dt.float32)].map(viewOf);
    const outputs = [viewOf({ dtype: dt.float32, shape: [9, 4] })];
    const refuse = (k: typeof gpuQmv, transpose: boolean) => k.gate?.refuse?.(views, { transpose, groupSize: 32, bits: 4 }, outputs, gpuDevice(device.info));
    expect(refuse(gpuQmv, true)).toMatch(/^slower: more than 8 rows/);
    expect(refuse(gpuQmvAny, true)).toBeUndefined();
    expect(refuse(gpuQmv, false)).toMatch(/^cannot: .*not transposed/);
    expect(refuse(gpuQvm, true)).toMatch(/^cannot: .*transposed/);
  });
});
