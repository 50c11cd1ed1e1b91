/** Sorting through the library, against float64. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { checkSamples } from "./helpers/check.ts";
import { sortSamples } from "./samples/sort.ts";

for (const [name, samples] of Object.entries(sortSamples)) describe(name, () => checkSamples(mx[name as "sort"] as never, samples));

describe("sort", () => {
  it("errors name the op", () => {
    const x = mx.zeros([2, 3]);
    expect(() => mx.sort(x, 2)).toThrow("[sort]");
    expect(() => mx.partition(x, 3)).toThrow("[partition]");
    expect(() => mx.argpartition(x, -4, 1)).toThrow("[argpartition]");
    expect(() => mx.topk(x, 4)).toThrow("[topk]");
    expect(() => mx.sort(mx.array(1))).toThrow("[sort]");
  });
  it("topk of everything is the array", () => {
    expect(mx.topk(mx.array([3, 1, 2]), 3).tolist()).toEqual([3, 1, 2]);
    expect(mx.topk(mx.array([3, 1, 2]), 2).tolist()).toEqual([2, 3]);
  });
});

describe("complex numbers", () => {
  const c = mx.Complex;
  const z = mx.array([c(3, 1), c(Number.NaN, 2), c(2, 5), c(2, -1), c(0, Number.NaN), c(2, 5)]);
  it("are ordered by real, then imaginary parts, equal ones in their order, NaN last", () => {
    expect(mx.argsort(z).tolist()).toEqual([3, 2, 5, 0, 4, 1]);
    expect(mx.sort(z).tolist()).toEqual([c(2, -1), c(2, 5), c(2, 5), c(3, 1), c(0, Number.NaN), c(Number.NaN, 2)]);
  });
  it("along other axes, and their medians", () => {
    const square = mx.array([[c(1, 1), c(0, 3)], [c(1, -1), c(0, 2)], [c(-4, 0), c(7, 7)]]);
    expect(mx.sort(square, 0).tolist()).toEqual([[c(-4, 0), c(0, 2)], [c(1, -1), c(0, 3)], [c(1, 1), c(7, 7)]]);
    expect(mx.median(square, 0).tolist()).toEqual([c(1, -1), c(0, 3)]);
    expect(mx.isnan(mx.median(z)).item()).toBe(true);
    expect(mx.topk(square, 1, 0).tolist()).toEqual([[c(1, 1), c(7, 7)]]);
  });
  it("gradient goes to where the value came from", () => {
    const g = mx.grad((x) => mx.sum(mx.real(mx.multiply(mx.sort(x), mx.array([1, 10, 100])))))(mx.array([c(2, 0), c(1, 0), c(1, -1)]));
    expect(g.tolist()).toEqual([c(100, 0), c(10, 0), c(1, 0)]);
  });
});
