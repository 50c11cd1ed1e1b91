/** Fourier transforms: samples against float64, a plain sum, identities, arguments, errors. */
import { describe, expect, it, test } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { core as mx } from "../src/index.ts";
import { valuesOf } from "../src/debug/oracle.ts";
import { build, checkSamples, tensor } from "./helpers/check.ts";
import { complexArray } from "./samples/complex.ts";
import { samples } from "./samples/fft.ts";

for (const [name, list] of Object.entries(samples)) describe(name, () => checkSamples(mx.fft[name as "fft"] as never, list));

const values = (a: MxArray): Float64Array => {
  mx.eval(a);
  return valuesOf(a.desc);
};
/** Root mean square of the difference over that of the wanted values. */
function relativeError(got: Float64Array, want: Float64Array): number {
  let [difference, size] = [0, 0];
  want.forEach((w, i) => {
    difference += ((got[i] as number) - w) ** 2;
    size += w * w;
  });
  return Math.sqrt(difference / size);
}

describe("against the sum that defines the transform", () => {
  test.each([5, 64, 97, 360, 512, 1009, 1031, 2048])("length %i", (n) => {
    const a = complexArray([n]);
    const x = values(a);
    const want = new Float64Array(2 * n);
    for (let k = 0; k < n; k++) {
      for (let j = 0; j < n; j++) {
        const angle = (-2 * Math.PI * ((j * k) % n)) / n;
        const [re, im] = [x[2 * j] as number, x[2 * j + 1] as number];
        want[2 * k] = (want[2 * k] as number) + re * Math.cos(angle) - im * Math.sin(angle);
        want[2 * k + 1] = (want[2 * k + 1] as number) + re * Math.sin(angle) + im * Math.cos(angle);
      }
    }
    expect(relativeError(values(mx.fft.fft(a)), want)).toBeLessThan(1e-6);
  });
  it("a pure wave in a long line is one peak", () => {
    const n = 3 * 2 ** 18;
    const j = mx.arange(n, mx.float32);
    // Exact angles: j * 5 modulo n is an integer below 2^24.
    const turn = mx.multiply(mx.remainder(mx.multiply(j, 5), n), (2 * Math.PI) / n);
    const spectrum = mx.abs(mx.fft.rfft(mx.cos(turn)));
    expect(mx.argmax(spectrum).item()).toBe(5);
    expect(Math.abs((spectrum.index(5).item() as number) / (n / 2) - 1)).toBeLessThan(1e-6);
    // All other lines hold the rounding errors only.
    expect(Math.abs((mx.sum(mx.square(spectrum)).item() as number) / (n / 2) ** 2 - 1)).toBeLessThan(1e-5);
  });
});

describe("identities", () => {
  test.each([[[6, 10]], [[3, 37]], [[2, 4096]], [[1, 5000]]])("inverses undo %j", (shape) => {
    const z = complexArray(shape);
    const x = build(tensor(shape));
    for (const norm of ["backward", "ortho", "forward"] as const) {
      expect(relativeError(values(mx.fft.ifft(mx.fft.fft(z, undefined, -1, norm), undefined, -1, norm)), values(z))).toBeLessThan(1e-6);
      expect(relativeError(values(mx.fft.ifft2(mx.fft.fft2(z, undefined, undefined, norm), undefined, undefined, norm)), values(z))).toBeLessThan(1e-6);
      const back = mx.fft.irfftn(mx.fft.rfftn(x, undefined, undefined, norm), shape, undefined, norm);
      expect(back.dtype).toBe(mx.float32);
      expect(relativeError(values(back), values(x))).toBeLessThan(1e-6);
    }
  });
  it("a convolution is a product of spectra", () => {
    const [a, b] = [build(tensor([50])), build(tensor([14], { seed: 2 }))];
    const got = values(mx.fft.irfft(mx.multiply(mx.fft.rfft(a, 63), mx.fft.rfft(b, 63)), 63));
    const [x, y] = [values(a), values(b)];
    const want = new Float64Array(63);
    x.forEach((u, i) => y.forEach((v, j) => (want[i + j] = (want[i + j] as number) + u * v)));
    expect(relativeError(got, want)).toBeLessThan(1e-6);
  });
  it("shifts undo each other; frequencies are numpy's", () => {
    const a = mx.arange(7);
    expect(mx.fft.fftshift(a).tolist()).toEqual([4, 5, 6, 0, 1, 2, 3]);
    expect(mx.fft.ifftshift(mx.fft.fftshift(a)).tolist()).toEqual(a.tolist());
    expect(mx.fft.fftfreq(5, 0.5).tolist()).toEqual([0, 0.4, 0.8, -0.8, -0.4].map(Math.fround));
    expect(mx.fft.rfftfreq(4).tolist()).toEqual([0, 0.25, 0.5]);
    expect(mx.fft.fftfreq(4).tolist()).toEqual([0, 0.25, -0.5, -0.25]);
  });
});

describe("arguments", () => {
  const x = build(tensor([4, 6]));
  it("a stream may stand anywhere behind the array", () => {
    const want = mx.fft.fft(x).tolist();
    expect(mx.fft.fft(x, mx.cpu).tolist()).toEqual(want);
    expect(mx.fft.fft(x, 6, mx.defaultStream(mx.cpu)).tolist()).toEqual(want);
    expect(mx.fft.fft(x, 6, -1, "backward", mx.cpu).tolist()).toEqual(want);
  });
  it("one number as the axis of fftshift; null axes are all axes", () => {
    expect(mx.fft.fftshift(mx.array([[0, 1, 2], [3, 4, 5]]), 1).tolist()).toEqual([[2, 0, 1], [5, 3, 4]]);
    const cube = build(tensor([2, 3, 4]));
    expect(mx.fft.fft2(cube, undefined, null).tolist()).toEqual(mx.fft.fftn(cube).tolist());
    expect(mx.fft.fft2(cube).tolist()).toEqual(mx.fft.fftn(cube, undefined, [1, 2]).tolist());
  });
  it("tables live on in a scope that ends", () => {
    const run = (): unknown => mx.tidy(() => mx.fft.fft(complexArray([46])).tolist());
    expect(run()).toEqual(run());
  });
  it("an empty axis list gives the array", () => {
    expect(mx.fft.fftn(x, undefined, []).tolist()).toEqual(x.tolist());
  });
  test.each([
    [() => mx.fft.fft(1), "[fft] array must have at least one dimension, got ()"],
    [() => mx.fft.fft(x, 0), "[fft] output sizes must be positive integers, got [0]"],
    [() => mx.fft.irfft(mx.zeros([3, 1])), "[irfft] output sizes must be positive integers, got [0]"],
    [() => mx.fft.fft(x, undefined, 2), "[fft] axis is out of range for an array with 2 dimensions, got 2"],
    [() => mx.fft.fftn(x, [1, 2], [0]), "[fftn] there must be one size per axis, got sizes [1,2] and axes [0]"],
    [() => mx.fft.fft2(x, undefined, [1, -1]), "[fft2] axes must be different, got [1,-1]"],
    [() => mx.fft.rfft(x, undefined, -1, "unit" as never), '[rfft] norm must be "backward", "ortho" or "forward", got "unit"'],
    [() => mx.fft.fft(x, 2 ** 27 + 1), "[fft] lengths beyond 134217728 are not supported, got 134217729"],
    [() => mx.fft.fftshift(x, [2]), "[fftshift] axis is out of range for an array with 2 dimensions, got 2"],
    [() => mx.fft.fftfreq(0), "[fftfreq] n must be a positive integer, got 0"],
    [() => mx.fft.rfftfreq(4, 0), "[rfftfreq] d must be a number other than 0, got 0"],
  ] as const)("%#", (f, message) => {
    expect(f).toThrow(message);
  });
});
