/** Elementwise ops: samples against float64, dtypes, errors, and that fusion does not change results. */
import { describe, expect, it, test } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { core as mx } from "../src/index.ts";
import { type Sample, build, checkSamples, tensor } from "./helpers/check.ts";
import { samples as binary } from "./samples/binary.ts";
import { samples as cast } from "./samples/cast.ts";
import { samples as compare } from "./samples/compare.ts";
import { samples as select } from "./samples/select.ts";
import { samples as unary } from "./samples/unary.ts";

for (const [family, samples] of Object.entries({ unary, binary, compare, select, cast })) {
  for (const [name, list] of Object.entries(samples) as [keyof typeof mx, Sample[]][]) {
    describe(`${family} ${name}`, () => checkSamples(mx[name] as (...args: never[]) => unknown, list));
  }
}

describe("dtypes", () => {
  const of = (dtype: InstanceType<typeof mx.Dtype>): MxArray => build(tensor([3], { dtype, values: [1, 2, 3] }));
  it("mathematics on integers is float32", () => {
    for (const f of [mx.exp, mx.sqrt, mx.sin, mx.sigmoid, mx.reciprocal, mx.degrees, mx.erf]) {
      expect(f(of(mx.int32)).dtype).toBe(mx.float32);
      expect(f(of(mx.bool)).dtype).toBe(mx.float32);
      expect(f(of(mx.bfloat16)).dtype).toBe(mx.bfloat16);
    }
    expect(mx.divide(of(mx.int32), of(mx.int32)).dtype).toBe(mx.float32);
    expect(mx.arctan2(of(mx.int8), of(mx.uint8)).dtype).toBe(mx.float32);
  });
  it("arithmetic keeps the promoted dtype, comparisons are bool", () => {
    for (const f of [mx.add, mx.multiply, mx.power, mx.remainder, mx.floorDivide, mx.maximum]) {
      expect(f(of(mx.int16), of(mx.uint8)).dtype).toBe(mx.int16);
      expect(f(of(mx.float16), of(mx.bfloat16)).dtype).toBe(mx.float32);
      expect(f(of(mx.int64), of(mx.float16)).dtype).toBe(mx.float16);
    }
    expect(mx.less(of(mx.int16), of(mx.float64)).dtype).toBe(mx.bool);
    expect(mx.logicalAnd(of(mx.int16), of(mx.int16)).dtype).toBe(mx.bool);
    expect(mx.leftShift(of(mx.bool), of(mx.bool)).dtype).toBe(mx.uint8);
  });
  it("JS numbers are weak, booleans take the array's dtype", () => {
    expect(mx.add(of(mx.int32), 1).dtype).toBe(mx.float32);
    expect(mx.add(of(mx.bfloat16), 1.5).dtype).toBe(mx.bfloat16);
    expect(mx.multiply(2, of(mx.float16)).dtype).toBe(mx.float16);
    expect(mx.add(of(mx.int32), true).dtype).toBe(mx.int32);
    expect(mx.add(false, true).dtype).toBe(mx.bool);
    expect(mx.where(of(mx.bool), of(mx.bfloat16), 0).dtype).toBe(mx.bfloat16);
  });
});

describe("values that float64 cannot check", () => {
  it("64-bit integers are exact", () => {
    const a = mx.array(BigInt64Array.of(2n ** 62n, -(2n ** 63n), 2n ** 53n + 1n) as never);
    const b = mx.array(BigInt64Array.of(3n, -1n, 0n) as never);
    const bits = (x: MxArray): bigint[] => [...(x.toTypedArray() as unknown as BigInt64Array)];
    expect(bits(mx.add(a, b))).toEqual([2n ** 62n + 3n, 2n ** 63n - 1n, 2n ** 53n + 1n]);
    expect(bits(mx.multiply(a, b))).toEqual([BigInt.asIntN(64, 3n * 2n ** 62n), -(2n ** 63n), 0n]);
    expect(bits(mx.floorDivide(a, b))).toEqual([2n ** 62n / 3n, -(2n ** 63n), 0n]);
    expect(bits(mx.remainder(a, b))).toEqual([1n, 0n, 0n]);
    expect(bits(mx.power(b, mx.array(BigInt64Array.of(39n, 5n, 0n) as never)))).toEqual([3n ** 39n, -1n, 1n]);
  });
  it("integer powers with negative exponents are 0", () => {
    for (const d of [mx.int8, mx.int16, mx.int32, mx.int64]) expect(mx.power(mx.array([2, -2, 1, -1], d), mx.array([-1, -3, -9, -2], d)).tolist()).toEqual([0, 0, 0, 0]);
  });
  it("NaN and infinity beyond an integer's range do not trap", () => {
    const x = mx.array([Number.NaN, Number.POSITIVE_INFINITY, -1e30, 3e9]);
    expect(mx.astype(x, mx.int32).tolist()).toEqual([0, 2147483647, -2147483648, 2147483647]);
    expect(mx.astype(x, mx.bool).tolist()).toEqual([true, true, true, true]);
  });
});

describe("errors", () => {
  const complex = mx.array([{ re: 1, im: 2 }] as never);
  test.each([
    [() => mx.add(build(tensor([2, 3])), build(tensor([4]))), "[add] shapes do not broadcast, got (2,3) and (4)"],
    [() => mx.floor(complex), "[floor] complex64 is not supported, got complex64"],
    [() => mx.remainder(complex, 1), "[remainder] complex64 is not supported, got complex64"],
    [() => mx.expm1(complex), "[expm1] complex64 is not supported, got complex64"],
    [() => mx.negative(mx.array([true])), "[negative] bool is not supported, got bool"],
    [() => mx.bitwiseAnd(mx.array([1.5]), 1), "[bitwiseAnd] operands must be integers or bool, got float32"],
    [() => mx.bitwiseInvert(mx.array([1.5])), "[bitwiseInvert] operand must be integer or bool, got float32"],
    [() => mx.clip(mx.array([1]), null, null), "[clip] at most one of min and max may be missing, got neither"],
    [() => mx.round(mx.array([1]), 0.5), "[round] decimals must be an integer, got 0.5"],
    [() => mx.astype(mx.array([1]), "float32" as never), '[astype] expected a dtype such as mx.float32, got "float32"'],
    [() => mx.where(mx.array([true, false]), mx.zeros([3]), mx.zeros([3])), "[where] shapes do not broadcast, got (3) and (2)"],
  ] as const)("%#", (f, message) => {
    expect(f).toThrow(message);
  });
});

it("a remainder of zero has the sign of the dividend, as C's fmod gives it", () => {
  const x = mx.array([-5, -4, 0, 5]);
  expect(mx.remainder(x, 5).tolist()).toEqual([-0, 1, 0, 0]);
  expect(mx.remainder(x, -5).tolist()).toEqual([-0, -4, 0, 0]);
});

it("isposinf and isneginf of complex numbers ask for an imaginary part of 0", () => {
  const x = mx.array([{ re: Infinity, im: 0 }, { re: -Infinity, im: 0 }, { re: Infinity, im: 1 }, { re: 0, im: Infinity }]);
  expect(mx.isposinf(x).tolist()).toEqual([true, false, false, false]);
  expect(mx.isneginf(x).tolist()).toEqual([false, true, false, false]);
});

describe("fusion", () => {
  /** A chain over several dtypes, in which each step would show a missing rounding or wrap. */
  const chain = (x: MxArray, y: MxArray): MxArray => {
    const a = mx.multiply(x, y);
    const b = mx.astype(mx.add(a, 1.001), mx.float16);
    const c = mx.astype(mx.multiply(b, 37), mx.uint8);
    const d = mx.add(c, mx.array(Uint8Array.of(200)));
    return mx.add(mx.sigmoid(mx.divide(d, 100)), mx.where(mx.greater(d, c), b, a));
  };
  it.each([mx.bfloat16, mx.float16, mx.float32])("%s: one kernel gives the same bits as one kernel per op", (dtype) => {
    const make = (seed: number): MxArray => build(tensor([5, 33], { dtype, seed }));
    const before = process.env["MLX_FUSE"];
    const fused = chain(make(1), make(2)).tolist();
    process.env["MLX_FUSE"] = "0";
    const single = chain(make(1), make(2)).tolist();
    if (before === undefined) delete process.env["MLX_FUSE"];
    else process.env["MLX_FUSE"] = before;
    expect(fused).toEqual(single);
  });
});
