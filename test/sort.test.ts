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
