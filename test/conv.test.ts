/** Convolutions through the library, against float64, and against sums written out here. */
import { afterEach, describe, expect, it } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { core as mx } from "../src/index.ts";
import { checkSamples, expectClose, randomSource } from "./helpers/check.ts";
import { samples } from "./samples/conv.ts";

for (const [name, list] of Object.entries(samples)) describe(name, () => checkSamples(mx[name as keyof typeof samples] as never, list));

describe("with only the direct kernel", () => {
  const before = process.env.MLX_DISABLE;
  afterEach(() => {
    if (before === undefined) delete process.env.MLX_DISABLE;
    else process.env.MLX_DISABLE = before;
  });
  it("equals the packed and the depthwise kernels", () => {
    const random = randomSource(3);
    const make = (...shape: number[]): MxArray => mx.reshape(mx.array(Float32Array.from({ length: shape.reduce((p, q) => p * q, 1) }, () => random() - 0.5)), shape);
    const cases: [MxArray, MxArray, number][] = [[make(2, 9, 9, 8), make(12, 3, 3, 8), 1], [make(2, 9, 9, 20), make(20, 3, 3, 1), 20], [make(2, 9, 9, 8), make(8, 3, 3, 2), 4], [make(1, 5, 5, 8), make(9, 1, 1, 8), 1]];
    for (const [x, w, groups] of cases) {
      delete process.env.MLX_DISABLE;
      const fast = mx.flatten(mx.conv2d(x, w, 1, groups === 20 ? 1 : 0, 1, groups)).tolist() as number[];
      process.env.MLX_DISABLE = "wasm/conv/pack,wasm/conv/depthwise,wasm/gemm/gemm";
      const slow = mx.flatten(mx.conv2d(x, w, 1, groups === 20 ? 1 : 0, 1, groups)).tolist() as number[];
      // Products are below 1/4, so up to 72 of them err by less than 72^1.5 units of 2^-26.
      expectClose(fast, slow, { rtol: 0, atol: 72 ** 1.5 * 2 ** -26 });
    }
  });
});

describe("values", () => {
  const row = (values: number[]): MxArray => mx.reshape(mx.array(values), [1, values.length, 1]);
  const flat = (a: MxArray): unknown => mx.flatten(a).tolist();
  it("slide the kernel without turning it, unless flip says so", () => {
    expect(flat(mx.conv1d(row([1, 2, 3, 4]), row([1, 10, 100])))).toEqual([321, 432]);
    expect(flat(mx.convGeneral(row([1, 2, 3, 4]), row([1, 10, 100]), 1, 0, 1, 1, 1, true))).toEqual([123, 234]);
    expect(flat(mx.conv1d(row([1, 2, 3, 4]), row([1, 10, 100]), 1, 1))).toEqual([210, 321, 432, 43]);
  });
  it("of transposed convolutions spread each input over the kernel", () => {
    expect(flat(mx.convTranspose1d(row([1, 2]), row([1, 10, 100]), 2))).toEqual([1, 10, 102, 20, 200]);
    expect(flat(mx.convTranspose1d(row([1, 2]), row([1, 10, 100]), 2, 1, 1, 1, 1))).toEqual([10, 102, 20, 200]);
  });
  it("of convolve are products of polynomials", () => {
    expect(mx.convolve([1, 2, 3], [4, 5]).tolist()).toEqual([4, 13, 22, 15]);
    expect(mx.convolve([4, 5], [1, 2, 3], "full").tolist()).toEqual([4, 13, 22, 15]);
    expect(mx.convolve([1, 2, 3], [4, 5], "same").tolist()).toEqual([4, 13, 22]);
    expect(mx.convolve([1, 2, 3], [4, 5], "valid").tolist()).toEqual([13, 22]);
  });
});

describe("large convolutions", () => {
  it("agree with float64 where pixels are packed in several parts", () => {
    const random = randomSource(9);
    const [H, W, C, O] = [61, 67, 40, 24];
    const fill = (n: number): Float32Array => Float32Array.from({ length: n }, () => random() * 2 - 1);
    const [x, w] = [fill(H * W * C), fill(O * 9 * C)];
    const got = mx.conv2d(mx.reshape(mx.array(x), [1, H, W, C]), mx.reshape(mx.array(w), [O, 3, 3, C]), 1, 1);
    expect(got.shape).toEqual([1, H, W, O]);
    const values = mx.flatten(got).toTypedArray() as Float32Array;
    for (const [y, z, o] of [[0, 0, 0], [60, 66, 23], [10, 0, 7], [30, 66, 12], [43, 17, 3], [59, 1, 20]] as const) {
      let want = 0;
      for (let t = 0; t < 9; t++) {
        const [py, pz] = [y + Math.floor(t / 3) - 1, z + (t % 3) - 1];
        if (py < 0 || pz < 0 || py >= H || pz >= W) continue;
        for (let c = 0; c < C; c++) want += (x[(py * W + pz) * C + c] as number) * (w[(o * 9 + t) * C + c] as number);
      }
      expect(Math.abs((values[(y * W + z) * O + o] as number) - want)).toBeLessThan((9 * C) ** 1.5 * 2 ** -24);
    }
  });
});

describe("conv1d of more dimensions", () => {
  it("is a convolution of all of them", () => {
    const [x, w] = [mx.random.normal([1, 5, 6, 2]), mx.random.normal([4, 2, 3, 1])];
    expect(mx.conv1d(x, w, 1, 1, 1, 2).tolist()).toEqual(mx.conv2d(x, w, 1, 1, 1, 2).tolist());
  });
});

describe("errors of convolutions", () => {
  const f = (...shape: number[]): MxArray => mx.zeros(shape);
  it("name the rule and what was given", () => {
    expect(() => mx.conv1d(f(1, 8, 3), f(4, 3, 2))).toThrow("[conv] channels of input and weight times groups must be equal, got input (1,8,3), weight (4,3,2) and 1 group");
    expect(() => mx.conv2d(f(1, 8, 3), f(4, 3, 3))).toThrow("[conv] a 2D convolution needs inputs with 4 dimensions in the format (N, ..., C), got (1,8,3)");
    expect(() => mx.conv1d(f(1, 8, 3), f(4, 3, 3, 3))).toThrow("[conv] a 1D convolution needs weights with 3 dimensions");
    expect(() => mx.conv1d(f(1, 2, 3), f(4, 3, 3))).toThrow("[conv] spatial dimensions of the input after padding must not be smaller than the kernel's");
    expect(() => mx.conv1d(f(1, 8, 3), f(4, 3, 3), 0)).toThrow("[conv] stride must hold positive integers, got 0");
    expect(() => mx.conv1d(f(1, 8, 3), f(4, 3, 3), 1, 0, 0)).toThrow("[conv] kernel dilation must hold positive integers, got 0");
    expect(() => mx.conv2d(f(1, 8, 8, 3), f(4, 3, 3, 3), [1, 2, 3])).toThrow("[conv] stride must have one entry per spatial dimension, got [1,2,3] for a 2D convolution");
    expect(() => mx.conv1d(f(1, 8, 4), f(4, 3, 2), 1, 0, 1, 3)).toThrow("[conv] input channels must be divisible by groups");
    expect(() => mx.conv1d(f(1, 8, 4), f(5, 3, 2), 1, 0, 1, 2)).toThrow("[conv] output channels must be divisible by groups");
    expect(() => mx.conv3d(f(1, 4, 4, 4, 4), f(4, 2, 2, 2, 2), 1, 0, 1, 2)).toThrow("[conv] groups are only supported in 1D and 2D convolutions");
    expect(() => mx.conv1d(mx.zeros([1, 8, 3], mx.int32), f(4, 3, 3))).toThrow("[conv] only real floating point types are supported, got an input of int32");
    expect(() => mx.conv1d(f(1, 8, 3), mx.zeros([4, 3, 3], mx.complex64))).toThrow("[conv] only real floating point types are supported, got float32 and complex64");
    expect(() => mx.convGeneral(f(1, 4, 4, 4, 4, 1), f(4, 2, 2, 2, 2, 1))).toThrow("[conv] inputs must have 1 to 3 spatial dimensions");
    expect(() => mx.convolve([1, 2], [1], "other")).toThrow('[convolve] mode must be "full", "same" or "valid", got "other"');
    expect(() => mx.convolve(f(2, 2), [1])).toThrow("[convolve] inputs must have one dimension");
    expect(() => mx.convolve([], [1])).toThrow("[convolve] inputs must not be empty");
  });
});
