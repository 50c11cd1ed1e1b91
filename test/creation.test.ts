/** Arrays from nothing: samples against float64, values written out, errors. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { checkSamples } from "./helpers/check.ts";
import { samples } from "./samples/creation.ts";

for (const [name, list] of Object.entries(samples)) describe(name, () => checkSamples(mx[name as keyof typeof samples] as never, list));

describe("values", () => {
  it("arange takes MLX's argument forms", () => {
    expect(mx.arange(3).tolist()).toEqual([0, 1, 2]);
    expect(mx.arange(3, mx.int32).dtype).toBe(mx.int32);
    expect(mx.arange(1, 4, mx.int32).tolist()).toEqual([1, 2, 3]);
    expect(mx.arange(5, 0, -2, mx.int8).tolist()).toEqual([5, 3, 1]);
    expect(mx.arange(5, 0).shape).toEqual([0]);
    expect(mx.arange(0, 5, Number.POSITIVE_INFINITY).tolist()).toEqual([0]);
    expect(mx.arange(3, mx.cpu).tolist()).toEqual([0, 1, 2]);
    expect(mx.arange(0, 1, 0.3).tolist()).toEqual([0, 0.3, 0.6, 0.9].map(Math.fround));
  });
  it("linspace ends at stop", () => {
    expect(mx.linspace(0, 1, 5).tolist()).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(mx.linspace(0, 1, 4, mx.float32, false).tolist()).toEqual([0, 0.25, 0.5, 0.75]);
    expect(mx.linspace(0, 10).size).toBe(50);
  });
  it("matrices", () => {
    expect(mx.eye(2, 3, 1).tolist()).toEqual([[0, 1, 0], [0, 0, 1]]);
    expect(mx.tri(2, 3, 0, mx.bool).tolist()).toEqual([[true, false, false], [true, true, false]]);
    expect(mx.triu(mx.array([[1, 2], [3, 4]])).tolist()).toEqual([[1, 2], [0, 4]]);
    expect(mx.tril(mx.array([[1, 2], [3, 4]]), -1).tolist()).toEqual([[0, 0], [3, 0]]);
    expect(mx.diag(mx.array([1, 2]), 1).tolist()).toEqual([[0, 1, 0], [0, 0, 2], [0, 0, 0]]);
    expect(mx.diag(mx.array([[1, 2], [3, 4]])).tolist()).toEqual([1, 4]);
    expect(mx.meshgrid(mx.array([1, 2]), mx.array([3, 4, 5])).map((a) => a.tolist())).toEqual([[[1, 2], [1, 2], [1, 2]], [[3, 3], [4, 4], [5, 5]]]);
  });
  it("full keeps the value's type", () => {
    expect(mx.full(2, true).dtype).toBe(mx.bool);
    expect(mx.full([2], 7, mx.uint8).tolist()).toEqual([7, 7]);
    expect(mx.full([2, 2], mx.array([1, 2], mx.int32)).tolist()).toEqual([[1, 2], [1, 2]]);
    expect(mx.zeros(3, mx.cpu).tolist()).toEqual([0, 0, 0]);
  });
});

describe("errors", () => {
  it.each([
    [() => mx.arange(0, 5, 0), "[arange] step must not be zero"],
    [() => mx.arange(0, Infinity, Infinity), "[arange] the number of elements must be finite"],
    [() => mx.arange(0, Number.POSITIVE_INFINITY), "[arange] the number of elements must be finite"],
    [() => mx.arange(Number.NaN), "[arange] start, stop and step must be numbers"],
    [() => mx.zeros([2, -1]), "[full] shape must hold non-negative integers"],
    [() => mx.zeros([2], "float32" as never), "[zeros] expected a dtype"],
    [() => mx.eye(-1), "[eye] sizes must not be negative"],
    [() => mx.tril(mx.zeros([3])), "[tril] needs at least two dimensions, got (3)"],
    [() => mx.linspace(0, 1, -1), "[linspace] num must be"],
    [() => mx.diag(mx.zeros([1, 2, 3])), "[diag] needs one or two dimensions, got (1,2,3)"],
    [() => mx.meshgrid(mx.zeros([2, 2])), "[meshgrid] arrays must have one dimension"],
  ])("%#", (f, message) => expect(f).toThrow(message));
});
