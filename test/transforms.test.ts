/** Function transforms as functions: arguments, trees, nesting, exceptions, evaluation inside, checkpoint, customFunction, compile. */
import { describe, expect, test } from "vitest";
import { core as mx, nn } from "../src/index.ts";
import { arrayFrom, flat, numbers } from "./helpers/transform-cases.ts";

type A = mx.MxArray;
// These tests are about compiled functions, even where MLX_DISABLE_COMPILE switches them off.
mx.enableCompile();
const near = (list: readonly number[], digits = 5): unknown[] => list.map((x) => expect.closeTo(x, digits));

describe("grad and valueAndGrad", () => {
  const f = (x: A, y: A): A => mx.sum(mx.multiply(mx.square(x), y));
  const [x, y] = [mx.array([1, 2]), mx.array([3, 5])];
  test("argnums", () => {
    expect(mx.grad(f)(x, y).tolist()).toEqual([6, 20]);
    expect(mx.grad(f, 1)(x, y).tolist()).toEqual([1, 4]);
    expect(mx.grad(f, [1])(x, y).tolist()).toEqual([1, 4]);
    expect(mx.grad(f, [1, 0])(x, y).map((g: A) => g.tolist())).toEqual([[1, 4], [6, 20]]);
    for (const bad of [-1, [0, 0], [], 0.5]) expect(() => mx.grad(f, bad)).toThrow("[grad]");
    expect(() => mx.grad(f, 2)(x, y)).toThrow("[grad] can not differentiate by argument 2, got 2 arguments");
    expect(() => mx.grad(f)(3, y)).toThrow("must be an array or a tree of arrays, got number");
  });
  test("trees of arrays; other arguments pass through", () => {
    const tree = { a: [x, { b: y }], n: 3 };
    const g = mx.grad((t: { a: [A, { b: A }]; n: number }, k: number, name: string) => mx.multiply(f(t.a[0], t.a[1].b), name === "double" ? 2 * k * t.n : 0))(tree, 1, "double");
    expect(g.a[0].tolist()).toEqual([36, 120]);
    expect(g.a[1].b.tolist()).toEqual([6, 24]);
  });
  test("further results", () => {
    const [[loss, aux, text], g] = mx.valueAndGrad((a: A) => [mx.sum(mx.square(a)), mx.multiply(a, 2), "more"])(x);
    expect([loss.item(), aux.tolist(), text, g.tolist()]).toEqual([5, [2, 4], "more", [2, 4]]);
    expect(() => mx.grad((a: A) => [mx.sum(a)])(x)).toThrow("must return a scalar array");
    expect(() => mx.grad((a: A) => a)(x)).toThrow("got shape (2)");
    expect(() => mx.valueAndGrad(() => 3)(x)).toThrow("must return a scalar array");
  });
  test("what is not used has gradient zero; dtypes stay", () => {
    const g = mx.grad((a: A, b: A) => mx.sum(mx.where(a.shape.length === 1, b, a)), [0, 1])(x.astype(mx.float16), y);
    expect([g[0].dtype, g[0].tolist(), g[1].tolist()]).toEqual([mx.float16, [0, 0], [1, 1]]);
    expect(mx.grad((a: A) => mx.sum(mx.multiply(a, y)))(x.astype(mx.bfloat16)).dtype).toBe(mx.bfloat16);
  });
  test("exceptions come out unchanged, and later work is right", () => {
    const error = new Error("mine");
    const fails = (..._inputs: A[]): never => {
      throw error;
    };
    for (const run of [() => mx.grad(fails)(x), () => mx.vmap(fails)(x), () => mx.jvp(fails, [x], [x]), () => mx.compile(fails)(x), () => mx.checkpoint(fails)(x)]) {
      let caught: unknown;
      try {
        run();
      } catch (e) {
        caught = e;
      }
      expect(caught).toBe(error);
    }
    expect(x.desc.traced).toBe(false);
    expect(mx.grad(f)(x, y).tolist()).toEqual([6, 20]);
  });
});

describe("higher order", () => {
  const at = mx.array(0.7);
  const derivative = (n: number): number => {
    let f = (a: A): A => mx.sin(mx.multiply(a, 2));
    for (let i = 0; i < n; i++) f = mx.grad(f) as typeof f;
    return f(at).item() as number;
  };
  test("five derivatives of sin(2 x)", () => {
    const want = [Math.sin(1.4), 2 * Math.cos(1.4), -4 * Math.sin(1.4), -8 * Math.cos(1.4), 16 * Math.sin(1.4), 32 * Math.cos(1.4)];
    expect(want.map((_, n) => derivative(n))).toEqual(near(want, 4));
  });
  test("forward over reverse and reverse over forward give the Hessian", () => {
    const x = arrayFrom(numbers(1, 4), [4], mx.float64);
    const w = arrayFrom(numbers(2, 16), [4, 4], mx.float64);
    const f = (a: A): A => mx.logsumexp(mx.matmul(w, mx.multiply(a, mx.sin(a))));
    const v = arrayFrom(numbers(3, 4), [4], mx.float64);
    const forwardReverse = mx.jvp((a) => mx.grad(f)(a), [x], [v])[1][0] as A;
    const reverseForward = mx.grad((a: A) => mx.jvp(f, [a], [v])[1][0])(x);
    const reverseReverse = mx.grad((a: A) => mx.sum(mx.multiply(mx.grad(f)(a), v)))(x);
    expect(flat(forwardReverse)).toEqual(near(flat(reverseReverse), 12));
    expect(flat(reverseForward)).toEqual(near(flat(reverseReverse), 12));
    const h = 1e-5;
    const moved = (s: number): number[] => flat(mx.grad(f)(mx.add(x, mx.multiply(v, s * h))));
    expect(flat(reverseReverse)).toEqual(near(moved(1).map((p, i) => (p - (moved(-1)[i] as number)) / (2 * h)), 7));
  });
  test("a captured array of the outer function", () => {
    const g = mx.grad((a: A) => mx.multiply(a, mx.grad((b: A) => mx.multiply(mx.multiply(a, b), b))(mx.array(3))));
    expect(g(mx.array(2)).item()).toBe(24);
  });
});

describe("evaluation inside", () => {
  test("eval and item do not cut the graph", () => {
    const value = mx.grad((a: A) => {
      const y = mx.exp(mx.multiply(a, 2));
      mx.eval(y);
      return (y.item() as number) > 1 ? mx.multiply(y, a) : y;
    })(mx.array(1));
    expect(value.item()).toBeCloseTo(3 * Math.exp(2), 4);
    const second = mx.grad(mx.grad((a: A) => {
      const y = mx.multiply(mx.square(a), a);
      mx.eval(y);
      return y;
    }))(mx.array(2));
    expect(second.item()).toBe(12);
  });
  test("asyncEval throws at once", () => {
    let thrown: unknown;
    mx.grad((a: A) => {
      try {
        void mx.asyncEval(mx.exp(a));
      } catch (e) {
        thrown = e;
      }
      return a;
    })(mx.array(1));
    expect(String(thrown)).toContain("not allowed inside a function transformation");
  });
  test("updates in place are differentiated", () => {
    const g = mx.grad((a: A) => {
      const y = mx.multiply(a, 3);
      y.indexPut_(0, mx.array(7));
      return mx.sum(mx.multiply(y, y));
    })(mx.array([1, 2]));
    expect(g.tolist()).toEqual([0, 36]);
  });
  test("chains deeper than the stack; nothing is left behind", () => {
    const before = mx.getActiveMemory();
    mx.tidy(() => {
      const g = mx.grad((a: A) => {
        let y = a;
        for (let i = 0; i < 30000; i++) y = mx.tidy(() => mx.multiply(y, 1));
        return y;
      })(mx.array(1));
      expect(g.item()).toBe(1);
      return undefined;
    });
    expect(mx.getActiveMemory() - before).toBeLessThan(100000);
  });
});

describe("vjp and jvp", () => {
  test("several outputs", () => {
    const f = (a: A, b: A): A[] => [mx.multiply(a, b), mx.add(a, b)];
    const [x, y] = [mx.array([2]), mx.array([3])];
    const [outputs, grads] = mx.vjp(f, [x, y], [mx.array([1]), mx.array([10])]);
    expect([...outputs, ...grads].map((a) => a.tolist())).toEqual([[6], [5], [13], [12]]);
    expect(mx.jvp(f, [x, y], [mx.array([1]), mx.array([10])])[1].map((a) => a.tolist())).toEqual([[23], [11]]);
  });
  test("wrong arguments", () => {
    const x = mx.array([1, 2]);
    expect(() => mx.vjp((a) => a, [x], [])).toThrow("[vjp] needs as many cotangents, got 0 for 1");
    expect(() => mx.vjp((a) => a, [x], [mx.array(1)])).toThrow("[vjp] cotangents must have the shape (2), got ()");
    expect(() => mx.jvp((a) => a, [x], [mx.array(1)])).toThrow("[jvp] tangents must have the shape (2), got ()");
    expect(() => mx.vjp(() => 1 as never, [x], [x])).toThrow("must return an array");
  });
});

describe("checkpoint and customFunction", () => {
  const x = mx.array([0.5, 1.5]);
  test("checkpoint runs the function again for the gradient, also of trees", () => {
    let runs = 0;
    const f = mx.checkpoint((t: { w: A }, a: A) => {
      runs++;
      return { y: mx.sin(mx.multiply(t.w, a)), n: 2 };
    });
    const g = mx.grad((w: A) => mx.sum(f({ w }, x).y))(mx.array(2));
    expect(runs).toBe(2);
    expect(g.item()).toBeCloseTo(0.5 * Math.cos(1) + 1.5 * Math.cos(3), 5);
    expect(f({ w: x }, x).n).toBe(2);
  });
  test("own rules are used, the others come from the function", () => {
    const f = mx.customFunction((a: A, b: A) => mx.multiply(mx.sin(a), b));
    const g = (a: A): A => mx.sum(f(a, a) as A);
    const plain = (a: A): A => mx.sum(mx.multiply(mx.sin(a), a));
    expect(flat(mx.grad(g)(x))).toEqual(near(flat(mx.grad(plain)(x))));
    f.vjp(([a, b], [c], [y]) => [mx.multiply(c as A, 100), mx.add(y as A, mx.multiply(mx.subtract(a as A, b as A), 0))]);
    expect(flat(mx.grad(g)(x))).toEqual(near(flat(x).map((v) => 100 + Math.sin(v) * v)));
    f.jvp((_primals, [t]) => mx.multiply(t as A, 7));
    expect((mx.jvp((a) => f(a, x) as A, [x], [mx.array([1, 2])])[1][0] as A).tolist()).toEqual([7, 14]);
    const rows = mx.stack([x, x]);
    expect(flat(mx.vmap((a: A) => f(a, x) as A)(rows))).toEqual(near([...flat(x), ...flat(x)].map((v) => Math.sin(v) * v)));
    f.vmap(([a], axes) => [mx.multiply(a as A, axes[1] === null ? -1 : 0), axes[0] as number]);
    expect(mx.vmap((a: A) => f(a, x) as A)(rows).tolist()).toEqual(mx.negative(rows).tolist());
    f.vjp(() => [x]);
    expect(() => mx.grad(g)(x)).toThrow("the vjp must give one entry for each of 2, got 1");
  });
  test("own rules of functions of trees; without rules captured arrays count", () => {
    const f = mx.customFunction((t: { x: A; y: A }) => ({ out: mx.multiply(t.x, t.y) }));
    const w = mx.array(3);
    const loss = (a: A): A => mx.sum(f({ x: a, y: mx.multiply(a, w) }).out);
    expect(mx.grad(loss)(x).tolist()).toEqual([3, 9]);
    expect(mx.grad((v: A) => mx.sum(mx.customFunction((a: A) => mx.multiply(a, v))(x)))(w).item()).toBe(2);
    f.vjp(([t], [c], [o]) => ({ x: mx.multiply(c.out, 10), y: mx.multiply(o.out, t.y) }));
    // By x: 10; by y: (x y) y times 3.
    expect(flat(mx.grad(loss)(x))).toEqual(near([0.5, 1.5].map((v) => 10 + 3 * (v * 3 * v) * (3 * v))));
    f.vjp(() => [null]);
    expect(mx.grad(loss)(x).tolist()).toEqual([0, 0]);
    f.jvp(([t], [d]) => ({ out: mx.multiply(d.x, t.y) }));
    expect((mx.jvp((a) => f({ x: a, y: w }).out, [x], [x])[1][0] as A).tolist()).toEqual([1.5, 4.5]);
    f.vmap(([t], [axes]) => [{ out: mx.add(t.x, axes.y === null ? 1 : 0) }, { out: axes.x }]);
    expect(mx.vmap((a: A) => f({ x: a, y: w }).out)(x).tolist()).toEqual([1.5, 2.5]);
    f.vjp(() => ({ x }));
    expect(() => mx.grad(loss)(x)).toThrow("the vjp must give entry 0 in the form of what it belongs to, with 2 arrays, got 1");
  });
  test("nn.valueAndGrad and nn.checkpoint", () => {
    const model = new nn.Sequential(new nn.Linear(3, 4), nn.relu, new nn.Linear(4, 1));
    const before = model.parameters();
    const input = arrayFrom(numbers(1, 6), [2, 3], mx.float32);
    const loss = (m: nn.Module, a: A): A => mx.sum(mx.square(m.forward(a) as A));
    const [value, grads] = nn.valueAndGrad(model, loss)(model, input);
    expect(value.item()).toBeCloseTo(loss(model, input).item() as number, 5);
    expect(model.parameters().layers[0].weight).toBe(before.layers[0].weight);
    const first = nn.checkpoint(model.layers[0] as nn.Module);
    const again = nn.valueAndGrad(model, (a: A) => mx.sum(mx.square((model.layers[2] as nn.Linear).forward(nn.relu(first(a))))))(input)[1];
    for (const i of [0, 2]) for (const k of ["weight", "bias"]) expect(flat(again.layers[i][k])).toEqual(near(flat(grads.layers[i][k])));
    (model.layers[0] as nn.Linear).freeze();
    expect(nn.valueAndGrad(model, loss)(model, input)[1].layers[0]).toEqual({});
  });
});

describe("compile", () => {
  test("runs once for each kind of arguments", () => {
    let runs = 0;
    const f = mx.compile((a: A, k: number, o: { flag: boolean }) => {
      runs++;
      return { y: o.flag ? mx.multiply(a, k) : a, list: [mx.sum(a)], k };
    });
    expect(f(mx.array([1, 2]), 2, { flag: true }).y.tolist()).toEqual([2, 4]);
    const again = f(mx.array([3, 4]), 2, { flag: true });
    expect([again.y.tolist(), (again.list[0] as A).item(), again.k, runs]).toEqual([[6, 8], 7, 2, 1]);
    f(mx.array([3, 4]), 3, { flag: true });
    f(mx.array([3, 4]), 2, { flag: false });
    f(mx.array([3]), 2, { flag: true });
    f(mx.array([3, 4], mx.float16), 2, { flag: true });
    expect(runs).toBe(5);
    expect(() => f(mx.array([1]), (() => 1) as never, { flag: true })).toThrow("[compile] arguments must be arrays");
  });
  test("captured arrays stay as they were; a lazy one too", () => {
    let c = mx.add(mx.array(1), 1);
    const f = mx.compile((a: A) => mx.add(a, c));
    expect(f(mx.array(1)).item()).toBe(3);
    c = mx.array(100);
    expect(f(mx.array(5)).item()).toBe(7);
  });
  test("shapeless reuses what does not depend on shapes, and traces again what does", () => {
    let runs = 0;
    const f = mx.compile((a: A) => {
      runs++;
      return mx.divide(a, mx.sum(a, -1, true));
    }, true);
    expect(f(mx.array([1, 3])).tolist()).toEqual([0.25, 0.75]);
    expect(f(mx.array([1, 1, 2])).tolist()).toEqual([0.25, 0.25, 0.5]);
    expect(runs).toBe(1);
    const g = mx.compile((a: A) => mx.add(mx.reshape(a, [a.size]), mx.zeros([a.size])), true);
    expect([g(mx.ones([2, 2])).shape, g(mx.ones([3, 2])).shape]).toEqual([[4], [6]]);
  });
  test("with other transforms inside and outside", () => {
    const f = mx.compile((a: A) => mx.grad((b: A) => mx.sum(mx.exp(b)))(a));
    const x = mx.array([0, 1]);
    expect(flat(f(x))).toEqual(near([1, Math.E]));
    expect(flat(mx.grad((a: A) => mx.sum(f(a)))(x))).toEqual(near([1, Math.E]));
    expect(flat(mx.vmap(f)(mx.reshape(x, [2, 1])))).toEqual(near([1, Math.E]));
  });
  test("arrays inside have no values; disableCompile", () => {
    const f = mx.compile((a: A) => mx.multiply(a, a.item() as number));
    expect(() => f(mx.array(3))).toThrow("inside a compiled function has no value yet");
    mx.disableCompile();
    try {
      expect(f(mx.array(3)).item()).toBe(9);
    } finally {
      mx.enableCompile();
    }
  });
});
