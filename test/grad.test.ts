/**
 * Gradients: every differentiable op against central differences, and forward against reverse mode.
 *
 * Float64: step 1e-5, so the error is about h^2 f''' / 6 (1e-10) plus 1e-16 |f| / h (1e-11). Float32: step 1e-2, about 2e-5 f''' plus 6e-8 |f| / h; allowed is 2e-3 with values of size 1 to 5.
 */
import { describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { type Case, allCases, arrayFrom, flat, listOf, numbers } from "./helpers/transform-cases.ts";

type A = mx.MxArray;
const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((s, x, i) => s + x * (b[i] as number), 0);

function near(got: readonly number[], want: readonly number[], tolerance: number, what: string): void {
  expect(got.length, what).toBe(want.length);
  want.forEach((w, i) => {
    const g = got[i] as number;
    if (!(Math.abs(g - w) <= tolerance * Math.max(1, Math.abs(w)))) throw new Error(`${what} [${i}]: got ${g}, want ${w}`);
  });
}

function check(c: Case): void {
  const dtype = c.single ? mx.float32 : mx.float64;
  const [h, tolerance] = c.single ? [1e-2, 2e-3] : [1e-5, 1e-7];
  const values = c.shapes.map((shape, i) => numbers(i + 1, sizeOf(shape), c.range));
  const inputs = values.map((v, i) => arrayFrom(v, c.shapes[i] as number[], dtype));
  const outputs = listOf(c.f(...inputs));
  const weights = outputs.map((o, i) => numbers(i + 11, o.size));
  const cotangents = outputs.map((o, i) => arrayFrom(weights[i] as number[], o.shape, dtype));
  const loss = (changed: number[], at: number): number => {
    const xs = inputs.map((x, i) => (i === at ? arrayFrom(changed, c.shapes[i] as number[], dtype) : x));
    return listOf(c.f(...xs)).reduce((s, o, i) => s + dot(flat(o), weights[i] as number[]), 0);
  };
  const [, gradients] = mx.vjp(c.f, inputs, cotangents);
  gradients.forEach((g, i) => {
    expect(g.shape, "shape").toEqual(c.shapes[i]);
    expect(g.dtype, "dtype").toBe(dtype);
    const v = values[i] as number[];
    const want = v.map((x, k) => (loss(v.with(k, x + h), i) - loss(v.with(k, x - h), i)) / (2 * h));
    near(flat(g), want, tolerance, `gradient ${i}`);
  });
  if (c.noJvp) return;
  const directions = c.shapes.map((shape, i) => numbers(i + 21, sizeOf(shape)));
  const [, tangents] = mx.jvp(c.f, inputs, directions.map((d, i) => arrayFrom(d, c.shapes[i] as number[], dtype)));
  tangents.forEach((t, i) => expect(t.shape, "shape of the tangent").toEqual((outputs[i] as A).shape));
  const forward = tangents.reduce((s, t, i) => s + dot(flat(t), weights[i] as number[]), 0);
  const reverse = gradients.reduce((s, g, i) => s + dot(flat(g), directions[i] as number[]), 0);
  near([forward], [reverse], c.single ? 1e-4 : 1e-11, "forward and reverse");
}

for (const [group, cases] of allCases) {
  describe(group, () => {
    for (const c of cases) test(c.name, () => check(c));
  });
}

describe("quantized", () => {
  const [K, N] = [64, 32];
  const [w, scales, biases] = mx.quantize(arrayFrom(numbers(3, N * K), [N, K], mx.float32), 32, 4);
  const plain = mx.dequantize(w, scales, biases, 32, 4);
  test("quantizedMatmul by x is the product with the unpacked matrix", () => {
    const x = arrayFrom(numbers(4, 3 * K), [3, K], mx.float32);
    const g = arrayFrom(numbers(5, 3 * N), [3, N], mx.float32);
    const [, [got]] = mx.vjp((v) => mx.quantizedMatmul(v, w, scales, biases, true, 32, 4), [x], [g]) as [A[], [A]];
    near(flat(got), flat(mx.matmul(g, plain)), 1e-4, "gradient");
    const [, [tangent]] = mx.jvp((v) => mx.quantizedMatmul(v, w, scales, biases, true, 32, 4), [x], [x]) as [A[], [A]];
    near(flat(tangent), flat(mx.matmul(x, plain.T)), 1e-4, "tangent");
  });
  test("quantizedMatmul and dequantize by scales and biases", () => {
    const x = arrayFrom(numbers(4, 3 * K), [3, K], mx.float32);
    const g = arrayFrom(numbers(5, 3 * N), [3, N], mx.float32);
    const [, direct] = mx.vjp((s, b) => mx.quantizedMatmul(x, w, s, b, true, 32, 4), [scales, biases], [g]);
    const [, viaDense] = mx.vjp((s, b) => mx.matmul(x, mx.dequantize(w, s, b, 32, 4).T), [scales, biases], [g]);
    direct.forEach((d, i) => near(flat(d), flat(viaDense[i] as A), 1e-4, `gradient ${i}`));
    // The values are linear in scales and biases.
    const [, [value]] = mx.jvp((s, b) => mx.dequantize(w, s, b, 32, 4), [scales, biases], [scales, biases]) as [A[], [A]];
    near(flat(value), flat(plain), 1e-5, "tangent");
  });
  test("gatherQMM by x, with a matrix of x used twice", () => {
    const stack = (a: A): A => mx.stack([a, mx.roll(a, 1, 0)]);
    const x = arrayFrom(numbers(6, 2 * 3 * K), [2, 3, K], mx.float32);
    const [lhs, rhs] = [mx.array([0, 1, 0], mx.uint32), mx.array([1, 1, 0], mx.uint32)];
    const g = arrayFrom(numbers(7, 3 * 3 * N), [3, 3, N], mx.float32);
    const [, [got]] = mx.vjp((v) => mx.gatherQMM(v, stack(w), stack(scales), stack(biases), lhs, rhs, true, 32, 4), [x], [g]) as [A[], [A]];
    const [, [want]] = mx.vjp((v) => mx.gatherMM(v, mx.swapaxes(stack(plain), 1, 2), lhs, rhs), [x], [g]) as [A[], [A]];
    near(flat(got), flat(want), 1e-4, "gradient");
  });
});

describe("where the derivative is fixed by definition", () => {
  test("floor, comparisons, argmax and stopGradient let nothing through", () => {
    const x = mx.array([0.3, 1.7, -0.4]);
    for (const f of [mx.floor, mx.ceil, mx.round, mx.sign, mx.stopGradient]) expect(flat(mx.grad((a: A) => mx.sum(mx.multiply(f(a), 1)))(x))).toEqual([0, 0, 0]);
    expect(flat(mx.grad((a: A) => mx.sum(mx.multiply(mx.greater(a, 0), a)))(x))).toEqual([1, 1, 0]);
    expect(flat(mx.grad((a: A) => mx.sum(mx.take(a, mx.argmax(a).reshape([1]))))(x))).toEqual([0, 1, 0]);
    expect(flat(mx.grad((a: A) => mx.sum(mx.multiply(a, mx.stopGradient(a))))(x))).toEqual(flat(x));
  });
  test("max shares the gradient among equal values", () => {
    expect(flat(mx.grad((a: A) => mx.max(a))(mx.array([2, 1, 2, 0])))).toEqual([0.5, 0, 0.5, 0]);
  });
  test("at.maximum gives the gradient to the extreme value, and to all that are equal", () => {
    const f = (a: A, u: A): A => mx.sum(mx.multiply(a.at(1).maximum(u), mx.array([4, 5, 6])));
    expect(mx.grad(f, [0, 1])(mx.array([1, 2, 3]), mx.array(3)).map((g: A) => g.tolist())).toEqual([[4, 0, 6], 5]);
    expect(mx.grad(f, [0, 1])(mx.array([1, 2, 3]), mx.array(2)).map((g: A) => g.tolist())).toEqual([[4, 5, 6], 5]);
  });
  test("an argument that is updated in place", () => {
    const f = (a: A): A => {
      a.indexPut_(1, 2);
      return mx.sum(mx.square(a));
    };
    expect(mx.grad(f)(mx.array([1, 2, 3])).tolist()).toEqual([2, 0, 6]);
    expect((mx.jvp((a) => { a.indexPut_(1, 2); return a; }, [mx.array([1, 2, 3])], [mx.ones([3])])[1][0] as A).tolist()).toEqual([1, 0, 1]);
    expect(mx.vmap((a: A) => { a.indexPut_(0, 9); return a; })(mx.zeros([2, 2])).tolist()).toEqual([[9, 0], [9, 0]]);
  });
  test("an op without a rule says so", () => {
    expect(() => mx.grad((a: A) => mx.sum(mx.cummax(a)))(mx.array([1, 2]))).toThrow("[cummax] has no gradient");
  });
  test("complex arrays are refused", () => {
    const f = (a: A): A => mx.sum(mx.abs(mx.multiply(mx.astype(a, mx.complex64), 2)));
    expect(() => mx.grad(f)(mx.array([1, 2]))).toThrow("has no derivative for complex arrays, got complex64");
    expect(() => mx.jvp(f, [mx.array([1, 2])], [mx.ones([2])])).toThrow("has no derivative for complex arrays, got complex64");
  });
});
