/** Reductions, scans and softmax through the library, against float64. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { checkSamples } from "./helpers/check.ts";
import { argreduceSamples, reduceSamples } from "./samples/reduce.ts";
import { scanSamples } from "./samples/scan.ts";
import { softmaxSamples } from "./samples/softmax.ts";

for (const family of [reduceSamples, argreduceSamples, scanSamples, softmaxSamples]) {
  for (const [name, samples] of Object.entries(family)) describe(name, () => checkSamples(mx[name as "sum"] as never, samples));
}

describe("dtypes", () => {
  const ones = (dtype: mx.Dtype): mx.MxArray => mx.array([1, 1], dtype);
  it("of sums and products", () => {
    const want = { bool: "int32", int8: "int32", int16: "int32", int32: "int32", int64: "int64", uint8: "uint32", uint16: "uint32", uint32: "uint32", uint64: "uint64", float16: "float16", bfloat16: "bfloat16", float32: "float32", float64: "float64" };
    for (const [from, to] of Object.entries(want)) {
      const x = ones(mx[from as "int8"]);
      expect([from, `${mx.sum(x).dtype}`, `${mx.prod(x).dtype}`]).toEqual([from, to, to]);
      expect([mx.max(x).dtype, mx.min(x).dtype]).toEqual([x.dtype, x.dtype]);
    }
  });
  it("of the others", () => {
    const x = ones(mx.int8);
    expect([mx.mean(x), mx.variance(x), mx.std(x), mx.softmax(x), mx.logsumexp(x), mx.logcumsumexp(x)].map((y) => `${y.dtype}`)).toEqual(Array(6).fill("float32"));
    expect([mx.argmax(x), mx.argmin(x), mx.argsort(x)].map((y) => `${y.dtype}`)).toEqual(Array(3).fill("uint32"));
    expect([mx.all(x), mx.any(x)].map((y) => `${y.dtype}`)).toEqual(["bool", "bool"]);
    expect([mx.cumsum(x), mx.cumsum(ones(mx.bool)), mx.cumprod(ones(mx.bool)), mx.cumsum(x, 0, false, true, mx.float32)].map((y) => `${y.dtype}`)).toEqual(["int8", "int32", "bool", "float32"]);
  });
});
describe("arguments", () => {
  const x = mx.zeros([2, 3]);
  it("shapes", () => {
    expect(mx.sum(x, 1).shape).toEqual([2]);
    expect(mx.sum(x, true).shape).toEqual([1, 1]);
    expect(mx.sum(x, null, true).shape).toEqual([1, 1]);
    expect(mx.sum(x, [0, 1]).shape).toEqual([]);
    expect(mx.argmax(x, true).shape).toEqual([1, 1]);
    expect(mx.variance(x, 0, true, 1).shape).toEqual([1, 3]);
    expect(mx.logsumexp(x, [0, 1], true).shape).toEqual([1, 1]);
    expect(mx.cumsum(x).shape).toEqual([6]);
    expect(x.sum(1, mx.cpu as never).shape).toEqual([2]);
  });
  it("errors name the op", () => {
    expect(() => mx.sum(x, 2)).toThrow("[sum]");
    expect(() => mx.sum(x, [0, 0])).toThrow("[sum]");
    expect(() => mx.max(mx.zeros([0, 3]), 0)).toThrow("[max]");
    expect(() => mx.min(mx.zeros([0]))).toThrow("[min]");
    expect(() => mx.argmax(mx.zeros([0]))).toThrow("[argmax]");
    expect(() => mx.argmax(x, [0, 1])).toThrow("[argmax]");
    expect(() => mx.cumsum(x, 2)).toThrow("[cumsum]");
    expect(() => mx.softmax(x, 5)).toThrow("[softmax]");
    expect(() => mx.logsumexp(mx.zeros([0]))).toThrow("[logsumexp]");
  });
});
it("a long float32 sum keeps its digits", () => {
  // 2^20 equal terms: one accumulator would lose up to 2^20 half ulps of the total.
  const x = mx.full([1 << 20], 0.1, mx.float32);
  const exact = Math.fround(0.1) * 2 ** 20;
  expect(Math.abs((mx.sum(x).item() as number) - exact) / exact).toBeLessThan(100 * 2 ** -24);
});
