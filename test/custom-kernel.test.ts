/** mx.fast.kernel: formulas against plain float64, gradients against finite differences, transforms, fusion, errors. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import type { MxArray } from "../src/core/array.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { type Sample, build, checkSamples, expectClose, randomSource, tensor } from "./helpers/check.ts";

const one = (f: mx.fast.KernelFunction) => (...xs: Parameters<mx.fast.KernelFunction>): MxArray => f(...xs) as MxArray;
const swiglu = one(mx.fast.kernel({ name: "swiglu", inputs: ["x", "gate"], outputs: ["y"], expr: ({ x, gate }, m) => ({ y: m.multiply(m.multiply(gate, m.sigmoid(gate)), x) }) }));
const flat = (a: MxArray): number[] => mx.reshape(a.astype(mx.float32), [-1]).tolist() as number[];

describe("one formula", () => {
  const samples: Sample[] = [
    { args: [tensor([3, 5]), tensor([3, 5], { seed: 2 })] },
    { args: [tensor([3, 5]), tensor([5], { seed: 2 })] },
    { args: [tensor([4, 1]), tensor([3], { seed: 2, layout: "reversed" })] },
    { args: [tensor([7, 9], { layout: "transposed" }), tensor([7, 9], { layout: "sliced" })] },
    { args: [tensor([]), tensor([2, 0])] },
    { args: [tensor([130]), 0.5] },
    { args: [tensor([33], { dtype: mx.bfloat16 }), tensor([33], { dtype: mx.bfloat16, seed: 2 })] },
    { args: [tensor([33], { dtype: mx.float16 }), tensor([33], { seed: 2 })] },
    { args: [tensor([33], { dtype: mx.int32 }), tensor([33], { dtype: mx.uint8 })] },
    { args: [tensor([33], { dtype: mx.float64 }), tensor([33])] },
  ];
  checkSamples(swiglu, samples);
  it("agrees with the formula written as a function of numbers", () => {
    const [a, b] = [build(tensor([100])), build(tensor([100], { seed: 3 }))];
    const want = flat(a).map((x, i) => ((flat(b)[i] as number) / (1 + Math.exp(-(flat(b)[i] as number)))) * x);
    expectClose(flat(swiglu(a, b)), want, { rtol: 2e-6, atol: 1e-6 });
  });
  it("keeps dtypes: floats stay, integers give float32, truth values bool", () => {
    const positive = one(mx.fast.kernel({ inputs: ["x"], outputs: ["y"], expr: ({ x }, m) => ({ y: m.greater(x, 0) }) }));
    expect(swiglu(mx.zeros([2], mx.bfloat16), 1).dtype).toBe(mx.bfloat16);
    expect(swiglu(mx.zeros([2], mx.int8), mx.zeros([2], mx.int8)).dtype).toBe(mx.float32);
    expect(positive(mx.array([-1, 2])).tolist()).toEqual([false, true]);
    expect(positive(mx.array([-1, 2])).dtype).toBe(mx.bool);
  });
  it("gives several outputs as a list", () => {
    const polar = mx.fast.kernel({ inputs: ["x", "y"], outputs: ["r", "angle"], expr: ({ x, y }, m) => ({ angle: m.arctan2(y, x), r: m.sqrt(m.add(m.square(x), m.square(y))) }) });
    const [r, angle] = polar(mx.array([3, -1]), mx.array([4, 0])) as [MxArray, MxArray];
    expect(r.tolist()).toEqual([5, 1]);
    expectClose(angle.tolist() as number[], [Math.atan2(4, 3), Math.PI], { rtol: 1e-6, atol: 0 });
  });
});

/** Every operation that a formula may use, with values inside its domain. */
const operations: Record<string, readonly [number, number]> = {
  negative: [-2, 2], abs: [-2, 2], sqrt: [0.1, 3], floor: [-3, 3], ceil: [-3, 3], trunc: [-3, 3], round: [-3, 3], exp: [-3, 2], expm1: [-1, 1], log: [0.1, 4], log1p: [-0.5, 3],
  log2: [0.1, 4], log10: [0.1, 4], sin: [-3, 3], cos: [-3, 3], tan: [-1, 1], arcsin: [-0.9, 0.9], arccos: [-0.9, 0.9], arctan: [-3, 3], sinh: [-2, 2], cosh: [-2, 2], tanh: [-2, 2],
  arcsinh: [-3, 3], arccosh: [1.2, 4], arctanh: [-0.9, 0.9], erf: [-2, 2], erfinv: [-0.9, 0.9], sigmoid: [-4, 4], square: [-2, 2], reciprocal: [0.3, 3], rsqrt: [0.3, 3],
  add: [-2, 2], subtract: [-2, 2], multiply: [-2, 2], divide: [0.4, 2], minimum: [-2, 2], maximum: [-2, 2], power: [0.3, 2], arctan2: [0.2, 2],
};
/** Applied to (x, y), or to x alone. Float64, so that differences are exact enough. */
const applied = (name: string) =>
  one(mx.fast.kernel({ name, inputs: ["x", "y"], outputs: ["z"], expr: ({ x, y }, m) => ({ z: m.multiply((m[name as "add"] as (a: unknown, b: unknown) => never)(x, y), y) }) }));

describe("gradients by the formula", () => {
  for (const [name, [low, high]] of Object.entries(operations)) {
    it(name, () => {
      const f = applied(name);
      const random = randomSource(name.length * 31 + 7);
      const numbers = (): Float64Array => Float64Array.from({ length: 6 }, () => low + (high - low) * (0.02 + 0.96 * random()));
      const [xs, ys] = [numbers(), numbers()];
      const array = (v: Float64Array): MxArray => mx.array(v);
      const [dx, dy] = mx.grad((x: MxArray, y: MxArray) => f(x, y).sum(), [0, 1])(array(xs), array(ys)) as unknown as MxArray[];
      const h = 1e-6;
      const value = (x: Float64Array, y: Float64Array): number[] => f(array(x), array(y)).tolist() as number[];
      const slope = (up: number[], down: number[]): number[] => up.map((u, i) => (u - (down[i] as number)) / (2 * h));
      expectClose(dx?.tolist() as number[], slope(value(xs.map((v) => v + h), ys), value(xs.map((v) => v - h), ys)), { rtol: 1e-6, atol: 1e-6 }, "d/dx");
      expectClose(dy?.tolist() as number[], slope(value(xs, ys.map((v) => v + h)), value(xs, ys.map((v) => v - h))), { rtol: 1e-6, atol: 1e-6 }, "d/dy");
    });
  }
  it("chooses by conditions, sums over what was broadcast, and is zero through comparisons", () => {
    const leaky = one(mx.fast.kernel({ inputs: ["x", "slope"], outputs: ["y"], expr: ({ x, slope }, m) => ({ y: m.where(m.less(x, 0), m.multiply(x, slope), m.add(x, m.greater(x, 1))) }) }));
    const [dx, ds] = mx.grad((x: MxArray, s: MxArray) => leaky(x, s).sum(), [0, 1])(mx.array([-2, -1, 0.5, 3]), mx.array(0.25)) as unknown as MxArray[];
    expect(dx?.tolist()).toEqual([0.25, 0.25, 1, 1]);
    expect(ds?.item()).toBe(-3);
  });
  it("has gradients of gradients, tangents and batches", () => {
    const cube = one(mx.fast.kernel({ inputs: ["x"], outputs: ["y"], expr: ({ x }, m) => ({ y: m.multiply(m.multiply(x, x), x) }) }));
    const d = (f: (x: MxArray) => MxArray) => (x: MxArray): MxArray => mx.grad(f)(x) as unknown as MxArray;
    expect(d(d(d((x) => cube(x))))(mx.array(2)).item()).toBe(6);
    expect(mx.jvp((x: MxArray) => cube(x), [mx.array([1, 2])], [mx.array([1, 10])])[1]?.[0]?.tolist()).toEqual([3, 120]);
    expect((mx.vmap((x: MxArray, y: MxArray) => swiglu(x, y), [0, null])(mx.ones([3, 2]), mx.array([1, 2])) as MxArray).shape).toEqual([3, 2]);
  });
  it("differentiates by each input alone where one input is a function of another", () => {
    const f = one(mx.fast.kernel({ inputs: ["x", "y"], outputs: ["z"], expr: ({ x, y }, m) => ({ z: m.add(m.exp(x), m.multiply(y, 3)) }) }));
    const g = mx.grad((x: MxArray) => f(x, mx.exp(x)).sum())(mx.array([0, 1])) as unknown as MxArray;
    expectClose(g.tolist() as number[], [4, 4 * Math.E], { rtol: 1e-6, atol: 0 });
  });
});

describe("as an op", () => {
  it("is fused with the ops around it into one kernel", () => {
    const [a, b] = [build(tensor([1000])), build(tensor([1000], { seed: 5 }))];
    const kernels: string[] = [];
    setTracer({ recorded: (node, kernel) => kernels.push(`${node.op.name} ${kernel}`) });
    const before = stats.fusedGroups;
    const got = mx.tidy(() => mx.multiply(swiglu(mx.add(a, 1), b), 2)).tolist() as number[];
    setTracer(undefined);
    expect(stats.fusedGroups).toBe(before + 1);
    expect(kernels).toHaveLength(1);
    expectClose(got, flat(a).map((x, i) => 2 * (x + 1) * ((flat(b)[i] as number) / (1 + Math.exp(-(flat(b)[i] as number))))), { rtol: 3e-6, atol: 1e-6 });
  });
  it("says what is wrong", () => {
    const bad = (expr: unknown, inputs = ["x"]): (() => unknown) => () => mx.fast.kernel({ name: "mine", inputs, outputs: ["y"], expr: expr as never });
    expect(bad(() => ({}))).toThrow("[mine] output y must be a value of the formula, got undefined");
    expect(bad(({ x }: { x: unknown }) => ({ y: x, z: x }))).toThrow("[mine] the formula returns only its outputs (y), got z");
    expect(bad(() => undefined)).toThrow("[mine] the formula must return its outputs by name, got undefined");
    expect(bad((_: unknown, m: mx.fast.KernelMath) => ({ y: m.exp(2) }))).toThrow("[fast.kernel] exp needs an operand that is not a number, got 2");
    expect(bad(() => ({}), [])).toThrow("[mine] needs at least one input and one output, got 0 and 1");
    expect(() => swiglu(mx.zeros([2]))).toThrow("[swiglu] takes 2 arguments (x, gate), got 1");
    expect(() => swiglu(mx.zeros([2]), mx.zeros([3]))).toThrow("[swiglu]");
    expect(() => swiglu(mx.zeros([2], mx.complex64), 1)).toThrow("[swiglu] complex64 is not supported, got complex64");
    expect(swiglu(mx.zeros([2]), 1, mx.cpu).tolist()).toEqual([0, 0]);
  });
});
