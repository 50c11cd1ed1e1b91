/** vmap against a loop over the batch: every op with each input batched alone, and all together. */
import { describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { type Case, allCases, arrayFrom, flat, listOf, numbers } from "./helpers/transform-cases.ts";

type A = mx.MxArray;
const batch = 3;
const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Float64 loops do the same operations in another order: 1e-12. Float32 kernels may take another path for another shape: 1e-5. */
function check(c: Case, batched: readonly boolean[]): void {
  const dtype = c.single ? mx.float32 : mx.float64;
  const inputs = c.shapes.map((shape, i) => {
    const full = batched[i] ? [batch, ...shape] : [...shape];
    return arrayFrom(numbers(i + 1, sizeOf(full), c.range), full, dtype);
  });
  const got = listOf(mx.vmap(c.f, batched.map((b) => (b ? 0 : null)))(...inputs) as A | A[]);
  const want = Array.from({ length: batch }, (_, n) => listOf(c.f(...inputs.map((x, i) => (batched[i] ? x.index(n) : x)))));
  got.forEach((g, k) => {
    expect(g.shape).toEqual([batch, ...((want[0] as A[])[k] as A).shape]);
    const values = want.flatMap((w) => flat(w[k] as A));
    flat(g).forEach((v, i) => {
      const w = values[i] as number;
      if (!(Math.abs(v - w) <= (c.single ? 1e-5 : 1e-12) * Math.max(1, Math.abs(w)))) throw new Error(`output ${k} [${i}]: got ${v}, want ${w}`);
    });
  });
}

for (const [group, cases] of allCases) {
  describe(group, () => {
    for (const c of cases.filter((x) => !x.noVmap)) {
      test(c.name, () => {
        const free = c.shapes.map((_, i) => i).filter((i) => !c.unbatched?.includes(i));
        for (const i of free) check(c, c.shapes.map((_, k) => k === i));
        if (free.length > 1) check(c, c.shapes.map((_, k) => free.includes(k)));
      });
    }
  });
}

describe("axes", () => {
  const x = arrayFrom(numbers(1, 24), [2, 3, 4], mx.float32);
  test("inAxes and outAxes, negative ones too", () => {
    const f = (a: A): A => mx.sum(mx.multiply(a, 2), 0);
    expect(mx.vmap(f, 1)(x).tolist()).toEqual(mx.multiply(mx.sum(x, 0), 2).tolist());
    expect(mx.vmap((a: A) => mx.multiply(a, 2), -1, 1)(x).shape).toEqual([2, 4, 3]);
    expect(mx.vmap((a: A) => mx.multiply(a, 2), 0, -1)(x).tolist()).toEqual(mx.multiply(mx.moveaxis(x, 0, -1), 2).tolist());
    const [a, b] = mx.vmap((p: A, q: A) => [mx.add(p, q), mx.multiply(p, 2)], [0, null], [0, 1])(x, x.index(0)) as [A, A];
    expect(a.tolist()).toEqual(mx.add(x, x.index(0)).tolist());
    expect(b.shape).toEqual([3, 2, 4]);
  });
  test("a result that does not depend on the batch is repeated", () => {
    expect(mx.vmap((_: A) => mx.array([1, 2]))(x).tolist()).toEqual([[1, 2], [1, 2]]);
  });
  test("nested", () => {
    const outer = mx.vmap((a: A) => mx.vmap((b: A) => mx.multiply(a, b))(mx.array([1, 2, 3])))(mx.array([5, 7]));
    expect(outer.tolist()).toEqual([[5, 10, 15], [7, 14, 21]]);
    const y = arrayFrom(numbers(2, 4), [4], mx.float32);
    const dots = mx.vmap(mx.vmap((a: A, b: A) => mx.matmul(a, b), [0, null]), [0, null])(x, y);
    flat(dots).forEach((v, i) => expect(v).toBeCloseTo(flat(mx.matmul(x, y))[i] as number, 5));
  });
  test("gather with batched indices", () => {
    const table = arrayFrom(numbers(3, 15), [5, 3], mx.float32);
    const rows = mx.array([[1, 4], [0, 0], [2, 3]], mx.int32);
    expect(mx.vmap((i: A) => mx.take(table, i, 0))(rows).tolist()).toEqual(mx.take(table, rows, 0).tolist());
    const tables = arrayFrom(numbers(3, 45), [3, 5, 3], mx.float32);
    const want = [0, 1, 2].map((n) => mx.take(tables.index(n), rows.index(n), 0).tolist());
    expect(mx.vmap((t: A, i: A) => mx.take(t, i, 0))(tables, rows).tolist()).toEqual(want);
    const added = mx.vmap((t: A, i: A) => t.at(i).add(1))(tables, rows);
    expect(added.tolist()).toEqual([0, 1, 2].map((n) => tables.index(n).at(rows.index(n)).add(1).tolist()));
  });
  test("argmax of all, argsort, random bits by key", () => {
    expect(mx.vmap((a: A) => mx.argmax(a))(x).tolist()).toEqual([0, 1].map((n) => mx.argmax(x.index(n)).item()));
    expect(mx.vmap((a: A) => mx.argmax(a, 0, true))(x).tolist()).toEqual(mx.argmax(x, 1, true).tolist());
    expect(mx.vmap((a: A) => mx.argsort(a, 0))(x).tolist()).toEqual(mx.argsort(x, 1).tolist());
    const keys = mx.random.split(mx.random.key(3), 4);
    expect(mx.vmap((k: A) => mx.random.uniform(0, 1, [3], mx.float32, k))(keys).tolist()).toEqual([0, 1, 2, 3].map((n) => mx.random.uniform(0, 1, [3], mx.float32, keys.index(n)).tolist()));
  });
  test("errors", () => {
    expect(() => mx.vmap((a: A) => a, [-1])(x)).toThrow("at least one argument must be batched");
    expect(() => mx.vmap((a: A) => a, [0, 1])(x)).toThrow("[vmap] inAxes");
    expect(() => mx.vmap((a: A) => a, 3)(x)).toThrow("[vmap] axis is out of range");
    expect(() => mx.vmap((a: A, b: A) => mx.add(a, b))(x, mx.zeros([5]))).toThrow("[vmap] batch axes must have the same size");
    expect(() => mx.vmap((a: A) => a, [null])(x)).toThrow("at least one argument must be batched");
    expect(() => mx.vmap((a: A) => (a.item() ? a : a))(mx.array([1, 2]))).toThrow("has no value yet");
  });
});

describe("trees", () => {
  const [p, q] = [arrayFrom(numbers(1, 6), [2, 3], mx.float32), arrayFrom(numbers(2, 6), [3, 2], mx.float32)];
  const f = (t: { a: A; list: A[] }): { sum: A; pair: A[] } => ({ sum: mx.add(t.a, t.list[0] as A), pair: [mx.multiply(t.a, t.list[1] as A), t.a] });
  test("of arguments and results, with axes for all, for branches or for each", () => {
    const want = f({ a: p, list: [q.T, p] });
    const check = (got: { sum: A; pair: A[] }): void => {
      expect(got.sum.tolist()).toEqual(want.sum.tolist());
      expect(got.pair.map((x) => x.tolist())).toEqual(want.pair.map((x) => x.tolist()));
    };
    check(mx.vmap(f)({ a: p, list: [q.T, p] }));
    check(mx.vmap(f, { a: 0, list: [1, 0] })({ a: p, list: [q, p] }));
    check(mx.vmap(f, [{ a: 0, list: 0 }])({ a: p, list: [q.T, p] }));
    const turned = mx.vmap(f, 0, { sum: 1, pair: [0, -1] })({ a: p, list: [q.T, p] });
    expect([turned.sum.tolist(), (turned.pair[1] as A).tolist()]).toEqual([want.sum.T.tolist(), p.T.tolist()]);
  });
  test("axes that do not fit the tree", () => {
    const tree = { a: p, list: [p, p] };
    for (const axes of [{ a: 0, list: [[0, 0], 0] }, { a: 0 }, { a: 0, list: [0] }, { a: 0, other: 0 }]) expect(() => mx.vmap(f, axes as never)(tree)).toThrow("[vmap] inAxes must be integers or null in the form of the arrays");
    for (const axes of [{ sum: 0 }, [0, 1], "0"]) expect(() => mx.vmap(f, 0, axes as never)(tree)).toThrow("[vmap] outAxes must be integers or null");
    expect(() => mx.vmap((x: A) => x)("text" as never)).toThrow("[vmap] arguments must be arrays or trees of arrays, got string");
    expect(() => mx.vmap((_: A) => 3)(p)).toThrow("[vmap] results must be arrays or trees of arrays, got number");
  });
});

describe("masks and sizes", () => {
  test("masks of different counts each start with the first value", () => {
    const rows = mx.array([[1, 2, 3, 4], [5, 6, 7, 8]]);
    const masks = mx.array([[false, true, false, true], [true, true, true, false]]);
    const put = (a: A, m: A, v: A): A => {
      a.indexPut_(m, v);
      return a;
    };
    expect(mx.vmap(put, [0, 0, null])(rows, masks, mx.array([10, 20, 30])).tolist()).toEqual([[1, 10, 3, 20], [10, 20, 30, 8]]);
    expect(mx.vmap(put, [0, 0, 0])(rows, masks, mx.array([-1, -2])).tolist()).toEqual([[1, -1, 3, -1], [-2, -2, -2, 8]]);
    expect(mx.vmap(put, [null, 0, null])(mx.zeros([4]), masks, mx.array([9])).tolist()).toEqual([[0, 9, 0, 9], [9, 9, 9, 0]]);
  });
  test("a batched product compiled without shapes is traced once", () => {
    let traced = 0;
    const product = mx.vmap((x: A, y: A) => {
      traced++;
      return mx.matmul(x, y);
    }, [0, 1]);
    const compiled = mx.compile(product, true);
    for (const [m, n] of [[2, 3], [4, 2]] as const) {
      const [a, b] = [arrayFrom(numbers(1, 2 * 3 * m * 5), [2, 3, m, 5], mx.float32), arrayFrom(numbers(2, 5 * 2 * n), [5, 2, n], mx.float32)];
      expect(compiled(a, b).tolist()).toEqual(mx.vmap((x: A, y: A) => mx.matmul(x, y), [0, 1])(a, b).tolist());
    }
    // Functions that are not compiled run at each call.
    expect(traced).toBe(process.env["MLX_DISABLE_COMPILE"] === "1" ? 2 : 1);
  });
});

describe("with gradients", () => {
  const x = arrayFrom(numbers(4, 12), [4, 3], mx.float32);
  test("vmap of grad, grad of vmap, vmap of jvp", () => {
    const f = (a: A): A => mx.sum(mx.multiply(mx.sin(a), mx.square(a)));
    const want = flat(mx.grad((a: A) => f(a))(x));
    flat(mx.vmap(mx.grad(f))(x)).forEach((v, i) => expect(v).toBeCloseTo(want[i] as number, 5));
    flat(mx.grad((a: A) => mx.sum(mx.vmap(f)(a)))(x)).forEach((v, i) => expect(v).toBeCloseTo(want[i] as number, 5));
    const tangent = mx.vmap((a: A) => mx.jvp(f, [a], [mx.onesLike(a)])[1][0] as A)(x);
    flat(tangent).forEach((v, i) => expect(v).toBeCloseTo((want[3 * i] as number) + (want[3 * i + 1] as number) + (want[3 * i + 2] as number), 4));
  });
  test("Jacobian of a captured array", () => {
    const w = arrayFrom(numbers(5, 6), [3, 2], mx.float32);
    const jacobian = mx.vmap((g: A) => mx.vjp((v) => mx.matmul(v, w), [x.index(0)], [g])[1][0] as A)(mx.eye(2));
    expect(jacobian.tolist()).toEqual(w.T.tolist());
  });
});
