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
  test("nothing flows into the indices of index(); take and takeAlongAxis throw when they are differentiated", () => {
    const f = (a: A, i: A): A => mx.sum(a.index(i.astype(mx.int32)));
    expect(mx.grad(f, [0, 1])(mx.array([[1, 2], [3, 4]]), mx.array([0, 1, 0])).map((g: A) => g.tolist())).toEqual([[[2, 2], [1, 1]], [0, 0, 0]]);
    expect(() => mx.grad((i: A) => mx.sum(mx.take(mx.array([1, 2]), i.astype(mx.int32))))(mx.array([0]))).toThrow(/no derivative by the indices/);
  });
  test("running extremes: the last of equal ones in the order of the scan", () => {
    const x = mx.array([2, 7, 7, 1, 7, 9]);
    const g = mx.array([1, 10, 100, 1000, 10000, 100000]);
    const of = (f: (a: A) => A): unknown => (mx.vjp(f, [x], [g])[1][0] as A).tolist();
    expect(of((a) => mx.cummax(a))).toEqual([1, 10, 1100, 0, 10000, 100000]);
    expect(of((a) => mx.cummax(a, 0, false, false))).toEqual([10, 100, 11000, 0, 100000, 0]);
    expect(of((a) => mx.cummin(a, 0, true))).toEqual([0, 0, 0, 1111, 10000, 100000]);
    expect(of((a) => mx.cummin(a, 0, true, false))).toEqual([0, 0, 0, 111, 1000, 10000]);
  });
  test("a permutation is constant in the second derivative", () => {
    const x = mx.array([3, -1, 2, 5], mx.float64);
    for (const f of [(a: A) => mx.sort(a), (a: A) => mx.partition(a, 1), (a: A) => mx.topk(a, 3), (a: A) => mx.cummax(a, 0), (a: A) => mx.cummin(a, 0, true)]) {
      const loss = (a: A): A => mx.sum(mx.power(f(a), 3));
      const [v, h] = [mx.array([1, 2, -1, 0.5], mx.float64), 1e-5];
      const second = flat(mx.grad((a: A) => mx.sum(mx.multiply(mx.grad(loss)(a), v)))(x));
      const moved = (s: number): number[] => flat(mx.grad(loss)(mx.add(x, mx.multiply(v, s * h))));
      near(second, moved(1).map((p, i) => (p - (moved(-1)[i] as number)) / (2 * h)), 1e-6, "second derivative");
    }
  });
  test("nothing is differentiated by indices", () => {
    const [x, i, u] = [mx.array([1, 2, 3]), mx.array([0, 2], mx.int32), mx.array([5, 6])];
    const fails = (f: (...xs: A[]) => A, inputs: A[]): void => {
      const g = mx.zeros(f(...inputs).shape);
      expect(() => mx.vjp(f, inputs, [g])).toThrow("there is no derivative by the indices: use stopGradient");
      expect(() => mx.jvp(f, inputs, inputs)).toThrow("there is no derivative by the indices");
      const cut = (...xs: A[]): A => f(...xs.map((a) => (a.dtype === mx.int32 ? mx.stopGradient(a) : a)));
      expect(mx.vjp(cut, inputs, [g])[1].length).toBe(inputs.length);
    };
    fails((a, k) => mx.take(a, k), [x, i]);
    fails((a, k) => mx.takeAlongAxis(a, k, 0), [x, i]);
    fails((a, k, v) => a.at(k).add(v), [x, i, u]);
    fails((a, k, v) => mx.putAlongAxis(a, k, v, 0), [x, i, u]);
  });
  test("products of chosen matrices refuse indices that argsort or argmax makes of an input, but for stopGradient", () => {
    const w = mx.array([3, 1, 2, 0]);
    const x = mx.ones([4, 1, 64]);
    const [codes, scales, biases] = mx.quantize(mx.ones([4, 32, 64])) as [A, A, A];
    const choose = { argsort: (v: A): A => mx.argsort(v), argmax: (v: A): A => mx.argmax(v).astype(mx.int32) };
    const products = [(i: A): A => mx.gatherMM(x, mx.ones([4, 64, 3]), i, i), (i: A): A => mx.gatherMM(x, mx.ones([4, 64, 3]), null, i), (i: A): A => mx.gatherQMM(x, codes, scales, biases, null, i)];
    for (const product of products) {
      for (const of of Object.values(choose)) {
        expect(() => mx.grad((v: A) => mx.sum(product(of(v))))(w)).toThrow("there is no derivative by the indices: use stopGradient (stop_gradient in MLX)");
        expect(mx.grad((v: A) => mx.sum(product(mx.stopGradient(of(v)))))(w).tolist()).toEqual([0, 0, 0, 0]);
        // Nothing of the product flows into the loss.
        expect(mx.grad((v: A) => mx.add(mx.sum(v), mx.stopGradient(mx.sum(product(of(v))))))(w).tolist()).toEqual([1, 1, 1, 1]);
        // The indices depend on something else.
        expect(mx.grad((v: A) => mx.multiply(mx.sum(v), mx.sum(product(of(w)))))(w).size).toBe(4);
      }
    }
  });
  test("integers have integer derivatives, truth values none", () => {
    const n = mx.array([2, 3, 4], mx.int32);
    const g = mx.grad((a: A) => mx.sum(mx.multiply(a, a)))(n);
    expect([g.dtype, g.tolist()]).toEqual([mx.int32, [4, 6, 8]]);
    const x = mx.array([1, -2, 3]);
    const [, [tangent]] = mx.jvp((a) => mx.less(a, 0), [x], [mx.ones([3])]);
    expect([(tangent as A).dtype, (tangent as A).tolist()]).toEqual([mx.float32, [0, 0, 0]]);
    expect(mx.grad((a: A) => mx.sum(mx.multiply(a, mx.greater(a, 0).astype(mx.float32))))(x).tolist()).toEqual([1, 0, 1]);
    expect(mx.jvp((a) => mx.divmod(a, 2)[1], [x], [mx.ones([3])])[1][0]?.tolist()).toEqual([0, 0, 0]);
  });
  test("complex numbers: the parts of a cotangent are the derivatives by the parts", () => {
    const z = mx.array([mx.Complex(3, 4), mx.Complex(0, -2)]);
    const of = (f: (a: A) => A): unknown => mx.grad((a: A) => mx.sum(f(a)))(z).tolist();
    expect(of((a) => mx.real(a))).toEqual([{ re: 1, im: 0 }, { re: 1, im: 0 }]);
    expect(of((a) => mx.imag(a))).toEqual([{ re: 0, im: 1 }, { re: 0, im: 1 }]);
    expect(flat(mx.real(mx.grad((a: A) => mx.sum(mx.abs(a)))(z)))).toEqual([expect.closeTo(0.6, 6), 0]);
    expect(of((a) => mx.square(mx.abs(a)))).toEqual([{ re: expect.closeTo(6, 5), im: expect.closeTo(8, 5) }, { re: 0, im: -4 }]);
    // By a holomorphic function the cotangent is multiplied with the conjugate of the derivative.
    const g = mx.array([mx.Complex(1, 2), mx.Complex(-1, 1)]);
    expect((mx.vjp((a) => mx.multiply(a, mx.array(mx.Complex(0, 3))), [z], [g])[1][0] as A).tolist()).toEqual([{ re: 6, im: -3 }, { re: 3, im: 3 }]);
    expect((mx.jvp((a) => mx.multiply(a, mx.array(mx.Complex(0, 3))), [z], [g])[1][0] as A).tolist()).toEqual([{ re: -6, im: 3 }, { re: -3, im: -3 }]);
    // A real input of a complex result gets the real part.
    expect(mx.vjp((a) => mx.multiply(a, z), [mx.ones([2])], [g])[1][0]?.tolist()).toEqual([11, -2]);
  });
  test("an op without a rule says so", () => {
    const f = (a: A): A => mx.sum(mx.linalg.inv(a));
    expect(() => mx.grad(f)(mx.eye(2))).toThrow("[solve] has no gradient (not differentiable, as in MLX), got one asked for");
    expect(() => mx.jvp(f, [mx.eye(2)], [mx.eye(2)])).toThrow("[solve] has no forward derivative (not differentiable, as in MLX), got one asked for");
  });
});
