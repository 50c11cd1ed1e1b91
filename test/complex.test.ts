/** complex64: every function that takes it, against float64; special values; promotion; fusion. */
import { describe, expect, it, test } from "vitest";
import { complex64, float32 } from "../src/core/dtype.ts";
import { core as mx } from "../src/index.ts";
import { type Sample, checkSamples, tensor } from "./helpers/check.ts";
import { complexArray, complexBinary, complexUnary } from "./samples/complex.ts";

const check = (name: string, samples: readonly Sample[]): void => {
  describe(name, () => checkSamples(mx[name as "add"] as never, samples));
};

describe("one operand", () => {
  const names = ["abs", "negative", "sign", "reciprocal", "square", "sqrt", "rsqrt", "exp", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "degrees", "radians", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "logicalNot", "real", "imag", "conjugate", "conj"];
  // Near a pole or a zero of a part the error is that of the argument, so the tolerance is a few roundings of the larger part.
  for (const name of names) check(name, complexUnary().map((s) => ({ ...s, tolerance: { rtol: 4e-6, atol: name === "degrees" ? 1e-4 : 4e-6 } })));
});

describe("two operands", () => {
  for (const name of ["add", "subtract", "multiply", "maximum", "minimum", "equal", "notEqual", "less", "lessEqual", "greater", "greaterEqual", "logicalAnd", "logicalOr", "isclose"]) check(name, complexBinary());
  // Divisors are as small as 0.01 in size; a float32 quotient of up to 300 has 3e-5 in its last digit.
  check("divide", complexBinary().map((s) => ({ ...s, tolerance: { atol: 4e-5 } })));
  check("logaddexp", complexBinary().map((s) => ({ ...s, tolerance: { atol: 1e-5 } })));
  check("power", complexBinary().map((s) => ({ ...s, tolerance: { rtol: 1e-5, atol: 1e-4 } })));
});

describe("conversions and choices", () => {
  checkSamples(mx.astype, [mx.bool, mx.uint8, mx.int32, mx.int64, mx.float16, mx.bfloat16, mx.float32, mx.float64].flatMap((dtype): Sample[] => [
    { name: `complex64 to ${dtype}`, args: [complexArray([3, 7], { low: 0, high: 90 }), dtype] },
    { name: `${dtype} to complex64`, args: [tensor([3, 7], { dtype, layout: "transposed" }), complex64] },
  ]));
  checkSamples(mx.where, [
    { name: "both complex", args: [tensor([3, 5], { dtype: mx.bool }), complexArray([3, 5]), complexArray([5], { seed: 2 })] },
    { name: "one complex", args: [tensor([3, 5], { dtype: mx.bool }), complexArray([3, 5]), tensor([3, 1])] },
    { name: "number", args: [tensor([7], { dtype: mx.bool }), complexArray([7]), 0] },
  ]);
  it("the imaginary part is dropped", () => {
    const a = mx.array([{ re: 1.5, im: 2 }, { re: 0, im: 3 }] as never);
    expect(mx.astype(a, mx.float32).tolist()).toEqual([1.5, 0]);
    expect(mx.astype(a, mx.bool).tolist()).toEqual([true, false]);
    expect(mx.astype(mx.array([2, -1]), mx.complex64).tolist()).toEqual([{ re: 2, im: 0 }, { re: -1, im: 0 }]);
  });
});

describe("reductions and products", () => {
  const z = complexArray;
  const axes: Sample[] = [
    ...[[], [1], [2], [7], [64], [1000]].map((shape): Sample => ({ name: `(${shape})`, args: [z(shape)] })),
    { name: "first axis", args: [z([6, 5]), 0] },
    { name: "last axis", args: [z([6, 5]), 1, true] },
    { name: "two axes", args: [z([3, 4, 5]), [0, 2]] },
    { name: "transposed", args: [z([4, 6], { layout: "transposed" }), 0] },
  ];
  it("max and min order by real parts, then by imaginary ones", () => {
    const a = mx.array([[{ re: 1, im: 2 }, { re: 1, im: 3 }, { re: 0, im: 9 }], [{ re: -1, im: 0 }, { re: -1, im: -1 }, { re: 4, im: 0 }]] as never);
    expect(mx.max(a, 1).tolist()).toEqual([{ re: 1, im: 3 }, { re: 4, im: 0 }]);
    expect(mx.min(a).tolist()).toEqual({ re: -1, im: -1 });
    expect(mx.max(a, 0, true).shape).toEqual([1, 3]);
    expect(() => mx.max(z([0]))).toThrow("[max] can not reduce over axis 0 with size 0, got shape (0)");
  });
  it("round works on both parts", () => {
    expect(mx.round(mx.array([{ re: 1.5, im: -2.5 }] as never)).tolist()).toEqual([{ re: 2, im: -2 }]);
  });
  for (const name of ["sum", "mean", "variance", "std"]) check(name, axes.map((s) => ({ ...s, tolerance: { rtol: 1e-5, atol: 2e-4 } })));
  // Factors near 1 in size, so that 1000 of them stay in range: a relative error of 1000 roundings at most.
  const values = Array.from({ length: 14 }, (_, i) => (i % 2 === 0 ? Math.cos(i) : Math.sin(i - 1)) * 1.001);
  check("prod", [...axes.filter((s) => s.name !== "(1000)"), { name: "(1000)", args: [z([1000], { values })] }, { name: "empty", args: [z([0])] }].map((s) => ({ ...s, tolerance: { rtol: 1e-4, atol: 1e-4 } })));
  check("matmul", [
    ...[[1, 1, 1], [2, 3, 4], [5, 7, 3], [17, 33, 9]].map(([m, k, n]): Sample => ({ name: `${m} ${k} ${n}`, args: [z([m as number, k as number]), z([k as number, n as number], { seed: 2 })] })),
    { name: "batch", args: [z([3, 1, 4, 5]), z([2, 5, 3], { seed: 2 })] },
    { name: "vector", args: [z([5]), z([5, 3], { seed: 2 })] },
    { name: "real operand", args: [tensor([4, 5]), z([5, 3], { layout: "transposed" })] },
  ].map((s) => ({ ...s, tolerance: { atol: 5e-5 } })));
  it("matmul agrees with sums of products", () => {
    const [a, b] = [z([4, 5]), z([5, 3], { seed: 2 })];
    const sums = mx.sum(mx.multiply(mx.expandDims(a, 2), mx.expandDims(b, 0)), 1);
    expect(mx.allclose(mx.matmul(a, b), sums, 1e-5, 1e-5).item()).toBe(true);
    expect(mx.allclose(mx.addmm(sums, a, b, 2, -1), sums, 1e-5, 1e-4).item()).toBe(true);
  });
  it("prod of the fourth roots of 1 is -1", () => {
    const roots = mx.array([{ re: 1, im: 0 }, { re: 0, im: 1 }, { re: -1, im: 0 }, { re: 0, im: -1 }] as never);
    expect(mx.prod(roots).tolist()).toEqual({ re: -1, im: 0 });
  });
});

describe("values known without the oracle", () => {
  const c = (re: number, im: number) => mx.Complex(re, im);
  const inf = Number.POSITIVE_INFINITY;
  const nan = Number.NaN;
  const cases: [string, () => unknown, { re: number; im: number }][] = [
    ["sqrt(-1)", () => mx.sqrt(c(-1, 0)), c(0, 1)],
    ["sqrt below the cut", () => mx.sqrt(c(-4, -0)), c(0, -2)],
    ["sqrt(3 + 4i)", () => mx.sqrt(c(3, 4)), c(2, 1)],
    ["sqrt of large numbers", () => mx.sqrt(c(-1e38, 0)), c(0, 1e19)],
    ["log(-1)", () => mx.log(c(-1, 0)), c(0, Math.PI)],
    ["log(0)", () => mx.log(c(0, 0)), c(-inf, 0)],
    ["log near 1", () => mx.log(c(1, 1e-4)), c(0.5 * Math.log1p(1e-8), Math.atan(1e-4))],
    ["log1p of small numbers", () => mx.log1p(c(1e-6, 0)), c(Math.log1p(1e-6), 0)],
    ["exp(i pi)", () => mx.exp(c(0, Math.PI)), c(-1, Math.sin(Math.fround(Math.PI)))],
    ["exp keeps reals", () => mx.exp(c(inf, 0)), c(inf, 0)],
    ["1 / i", () => mx.reciprocal(c(0, 1)), c(0, -1)],
    ["division of large numbers", () => mx.divide(c(1e38, 1e38), c(1e38, 1e38)), c(1, 0)],
    ["division by zero", () => mx.divide(c(1, 0), c(0, 0)), c(inf, nan)],
    ["division by infinity", () => mx.divide(c(1, 2), c(inf, 0)), c(0, 0)],
    ["i^2", () => mx.power(c(0, 1), c(2, 0)), c(-1, 0)],
    ["i^i", () => mx.power(c(0, 1), c(0, 1)), c(Math.exp(-Math.PI / 2), 0)],
    ["0^0", () => mx.power(c(0, 0), c(0, 0)), c(1, 0)],
    ["0^2", () => mx.power(c(0, 0), c(2, 0)), c(0, 0)],
    ["tanh of large numbers", () => mx.tanh(c(500, 1)), c(1, 0)],
    ["arcsin(2)", () => mx.arcsin(c(2, 0)), c(Math.PI / 2, Math.log(2 + Math.sqrt(3)))],
    ["arccosh(-2)", () => mx.arccosh(c(-2, 0)), c(Math.log(2 + Math.sqrt(3)), Math.PI)],
    ["arctanh(i)", () => mx.arctanh(c(0, 1)), c(0, Math.PI / 4)],
  ];
  test.each(cases)("%s", (_name, f, want) => {
    const got = (f() as { item(): unknown }).item() as { re: number; im: number };
    for (const part of ["re", "im"] as const) {
      if (Number.isNaN(want[part])) expect(got[part]).toBeNaN();
      else if (Number.isFinite(want[part])) expect(Math.abs(got[part] - want[part])).toBeLessThanOrEqual(2e-7 * Math.max(Math.abs(want[part]), want.re === 0 ? Math.abs(want.im) * 1e-1 : Math.abs(want.re) * 1e-1));
      else expect(got[part]).toBe(want[part]);
    }
  });
  it("abs neither overflows nor underflows", () => {
    const got = mx.abs(mx.array([c(3e38, 3e37), c(3e-30, 4e-30)] as never)).tolist() as number[];
    expect(got[0]).toBe(Math.fround(Math.hypot(Math.fround(3e38), Math.fround(3e37))));
    expect(Math.abs((got[1] as number) / 5e-30 - 1)).toBeLessThan(2e-7);
  });
  it("whole arrays compare", () => {
    const a = mx.array([c(1, 2), c(nan, 0)] as never);
    expect(mx.arrayEqual(a, a).item()).toBe(false);
    expect(mx.arrayEqual(a, a, true).item()).toBe(true);
    expect(mx.arrayEqual(mx.array([c(1, 0)] as never), mx.array([1])).item()).toBe(true);
    expect(mx.allclose(mx.array([c(1, 1)] as never), mx.array([c(1, 1 + 1e-6)] as never)).item()).toBe(true);
    expect(mx.allclose(mx.array([c(1, 1)] as never), mx.array([c(1, 1.001)] as never)).item()).toBe(false);
  });
});

describe("types", () => {
  const a = complexArray([3]);
  it("promotes with every type", () => {
    for (const d of [mx.bool, mx.int8, mx.uint64, mx.float16, mx.bfloat16, mx.float32, mx.float64]) expect(mx.add(a, mx.zeros([3], d)).dtype).toBe(complex64);
    expect(mx.add(a, 1).dtype).toBe(complex64);
    expect(mx.add(mx.zeros([3]), mx.Complex(0, 1)).dtype).toBe(complex64);
  });
  it("sizes, parts and distances are float32, tests bool", () => {
    for (const f of [mx.abs, mx.real, mx.imag, mx.variance, mx.std]) expect(f(a).dtype).toBe(float32);
    for (const f of [mx.isnan, mx.isinf, mx.isfinite]) expect(f(a).dtype).toBe(mx.bool);
    expect(mx.imag(mx.ones([2], mx.int32)).tolist()).toEqual([0, 0]);
    expect(mx.conj(mx.ones([2], mx.int32)).dtype).toBe(mx.int32);
  });
});

it("fused and single kernels give the same bits", () => {
  const chain = () => {
    const a = complexArray([5, 33]);
    const b = mx.multiply(mx.add(a, mx.Complex(0, 1)), mx.conj(a));
    return mx.where(mx.greater(mx.abs(b), 1), mx.divide(b, mx.exp(a)), mx.astype(mx.real(b), mx.complex64)).tolist();
  };
  const before = process.env["MLX_FUSE"];
  const fused = chain();
  process.env["MLX_FUSE"] = "0";
  const single = chain();
  if (before === undefined) delete process.env["MLX_FUSE"];
  else process.env["MLX_FUSE"] = before;
  expect(fused).toEqual(single);
});

describe("scans", () => {
  const c = mx.Complex;
  const z = mx.array([c(1, 1), c(0, 2), c(-1, 0), c(2, 1)]);
  const close = (got: unknown, want: readonly { re: number; im: number }[]): void => {
    (got as { re: number; im: number }[]).forEach((v, i) => {
      expect(v.re).toBeCloseTo((want[i] as { re: number }).re, 5);
      expect(v.im).toBeCloseTo((want[i] as { im: number }).im, 5);
    });
  };
  it("products, by hand", () => {
    close(mx.cumprod(z).tolist(), [c(1, 1), c(-2, 2), c(2, -2), c(6, -2)]);
    close(mx.cumprod(z, 0, false, false).tolist(), [c(1, 0), c(1, 1), c(-2, 2), c(2, -2)]);
    close(mx.cumprod(z, 0, true).tolist(), [c(6, -2), c(2, -4), c(-2, -1), c(2, 1)]);
    close(mx.cumprod(mx.reshape(z, [2, 2]), 0).index(1).tolist(), [c(-1, -1), c(-2, 4)]);
  });
  it("logcumsumexp is the logarithm of running sums of exponentials", () => {
    const sums = mx.cumsum(mx.exp(z));
    close(mx.exp(mx.logcumsumexp(z)).tolist(), sums.tolist() as never);
    expect(mx.logcumsumexp(mx.zeros([0], mx.complex64)).shape).toEqual([0]);
  });
});
