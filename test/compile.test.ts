/** compile: captured state, other shapes, equal computations; what MLX's tests of compile ask for. */
import { describe, expect, test } from "vitest";
import { core as mx, nn, optimizers } from "../src/index.ts";
import { setTracer } from "../src/schedule/run.ts";

type A = mx.MxArray;
// These tests are about compiled functions, even where MLX_DISABLE_COMPILE switches them off.
mx.enableCompile();
/** Ops that an evaluation computes. */
function opsOf(work: () => void): string[] {
  const seen: string[] = [];
  setTracer({ recorded: (node, _kernel, _refused, absorbed) => void seen.push(node.op.name, ...absorbed.map((n) => n.op.name)) });
  try {
    work();
  } finally {
    setTracer(undefined);
  }
  return seen;
}

describe("captured state", () => {
  test("is read at each call, and stays as it is when it is no output", () => {
    const state: Record<string, A> = { y: mx.array(2) };
    const f = mx.compile((x: A) => mx.add(x, state["y"] as A), false, state);
    const y = state["y"];
    expect(f(mx.array(1)).item()).toBe(3);
    expect(state["y"]).toBe(y);
    state["y"] = mx.array(3);
    expect(f(mx.array(1)).item()).toBe(4);
    const nested = [[mx.array(2)]];
    const g = mx.compile((x: A) => mx.add(x, (nested[0] as A[])[0] as A), false, nested);
    expect(g(mx.array(1)).item()).toBe(3);
    (nested[0] as A[])[0] = mx.array(3);
    expect(g(mx.array(1)).item()).toBe(4);
  });
  test("outputs get new values; new members trace again", () => {
    const out: Record<string, A> = {};
    const f = mx.compile((x: A) => {
      out["y"] = mx.add(x, 3);
      return mx.abs(x);
    }, false, undefined, out);
    expect([f(mx.array(-1)).item(), out["y"]?.item(), f(mx.array(-5)).item(), out["y"]?.item()]).toEqual([1, 2, 5, -2]);
    const state: Record<string, A> = {};
    let runs = 0;
    const g = mx.compile((x: A) => {
      runs++;
      const y = state["y"] ?? mx.array(0);
      state["y"] = mx.add(x, y);
      return mx.add(x, mx.multiply(2, y));
    }, false, state, state);
    const results = [1, 1, 1].map((x) => [g(mx.array(x)).item(), state["y"]?.item()]);
    expect([results, runs]).toEqual([[[1, 1], [3, 2], [5, 3]], 2]);
  });
  test("forms and values that change with the arguments", () => {
    const state = [mx.array(1)];
    const f = mx.compile((y: A) => {
      const x = state[0] as A;
      state[0] = y.dtype === mx.float32 ? mx.multiply(2, y) : mx.multiply(x, 2);
      return y.dtype === mx.float32 ? [x, y, mx.add(x, y)] : mx.add(x, y);
    }, false, state, state);
    for (let i = 0; i < 5; i++) {
      expect(Array.isArray(f(mx.array(1)))).toBe(true);
      expect(f(mx.array(1, mx.int32))).toBeInstanceOf(mx.array);
    }
    expect((state[0] as A).item()).toBe(4);
  });
  test("an exception leaves no placeholder behind", () => {
    const state: Record<string, A> = { y: mx.array(2) };
    const f = mx.compile((x: A) => {
      state["z"] = mx.add(x, state["y"] as A);
      state["y"] = mx.add(x, 1);
      throw new Error("mine");
    }, false, state, state);
    expect(() => f(mx.array(1))).toThrow("mine");
    expect([Object.keys(state), state["y"]?.item()]).toEqual([["y"], 2]);
  });
  test("errors", () => {
    expect(() => mx.compile((x: A) => x, false, mx.array(1))).toThrow("[compile] inputs must be an object, an Array or a module");
    const x = mx.array([1, 2]);
    expect(() => mx.compile((a: A) => mx.add(a, x))(x)).toThrow("[compile] the function reaches one of its inputs");
    const lazy = mx.add(x, 1);
    const fromLazy = mx.add(lazy, 1);
    expect(() => mx.compile((a: A) => mx.add(a, fromLazy))(lazy)).toThrow("[compile] the function reaches one of its inputs");
  });
});

describe("random numbers", () => {
  test("with the captured key: the numbers of the same function not compiled", () => {
    const f = (): A => mx.random.uniform(0, 1, [4]);
    const compiled = mx.compile(f, false, mx.random.state, mx.random.state);
    mx.random.seed(7);
    const want = [f().tolist(), f().tolist(), f().tolist()];
    mx.random.seed(7);
    expect([compiled().tolist(), compiled().tolist(), f().tolist()]).toEqual(want);
  });
  test("without it: always the same ones", () => {
    const f = mx.compile(() => mx.random.uniform(0, 1, [4]));
    expect(f().tolist()).toEqual(f().tolist());
  });
  test("the key stays in a tidy scope, and beside other state", () => {
    const counter = { v: mx.array(0) };
    const state = [counter, mx.random.state];
    const step = mx.compile(() => {
      counter.v = mx.add(counter.v, 1);
      return mx.random.normal([2]);
    }, false, state, state);
    mx.random.seed(1);
    const drawn = [1, 2, 3].map(() => step().tolist());
    mx.random.seed(1);
    expect(drawn).toEqual([1, 2, 3].map(() => mx.random.normal([2]).tolist()));
    expect(counter.v.item()).toBe(3);
    mx.random.state[0] = mx.add(mx.random.key(3), mx.array(0, mx.uint32));
    mx.tidy(() => mx.random.normal([2]).tolist());
    const after = mx.random.normal([2]).tolist();
    mx.random.seed(3);
    mx.random.normal([2]);
    expect(after).toEqual(mx.random.normal([2]).tolist());
  });
});

describe("other shapes", () => {
  test("a reshape keeps what the user gave; sizes that do not fit are an error", () => {
    let runs = 0;
    const f = mx.compile((x: A) => {
      runs++;
      return mx.reshape(x, [(x.shape[0] as number) * (x.shape[1] as number), -1]);
    }, true);
    expect(f(mx.zeros([2, 3, 4])).shape).toEqual([6, 4]);
    expect(f(mx.zeros([2, 3, 8])).shape).toEqual([6, 8]);
    expect(() => f(mx.zeros([5, 5, 5]))).toThrow("[compile] reshape was recorded for shapes (2,3,4)");
    expect(runs).toBe(1);
  });
  const cases: [string, (...xs: A[]) => A, number[][][], number][] = [
    ["elementwise with broadcasting", (x, y) => mx.multiply(x, y), [[[2, 2], [2]], [[3, 4], [4]], [[3, 1], [4]], [[3, 4], [1]]], 1],
    ["reductions", (x) => mx.multiply(x, mx.sum(x, -1, true)), [[[3, 2]], [[1, 2]], [[4, 5]], [[4, 1]]], 1],
    ["products of batches", (x, y) => mx.matmul(x, y), [[[2, 1, 4, 5], [1, 3, 5, 6]], [[2, 3, 4, 5], [2, 3, 5, 6]], [[1, 1, 1, 2], [3, 2, 2, 1]]], 1],
    ["a batched product", (x, y) => mx.vmap((a: A, b: A) => mx.matmul(a, b), [0, 1] as never)(x, y) as A, [[[2, 3, 1, 4, 5], [1, 2, 5, 6]], [[3, 2, 1, 4, 5], [2, 3, 5, 6]]], 1],
    // What follows depends on which sizes are 1, or on more, though its ops do not.
    ["a function that looks at the shape", (x) => (x.shape[0] === 1 ? mx.negative(x) : mx.exp(x)), [[[2]], [[3]], [[1]], [[1]]], 2],
    ["gradients through broadcasting", (x, y) => mx.grad((a: A) => mx.sum(mx.multiply(a, y)))(x) as A, [[[2, 3], [2, 3]], [[4, 3], [4, 3]], [[1, 3], [4, 3]], [[2, 1], [2, 4]]], 4],
    ["derivatives through broadcasting", (x, y) => (mx.jvp((a: A) => mx.multiply(a, y), [x], [mx.ones(x.shape)]) as A[][])[1]?.[0] as A, [[[2, 3], [2, 3]], [[1, 3], [4, 3]]], 2],
    ["arrays broadcast together", (x, y) => mx.broadcastArrays([x, y])[0] as A, [[[2, 3], [2, 3]], [[1, 3], [2, 3]], [[2, 3], [1, 1]]], 3],
    ["squeeze of all", (x) => mx.squeeze(x), [[[1, 3]], [[1, 4]], [[2, 3]], [[2, 1]]], 3],
    ["einsum", (x, y) => mx.einsum("ij,ij->i", [x, y]), [[[2, 3], [2, 3]], [[2, 3], [2, 1]]], 2],
    ["a reshape without effect", (x) => mx.reshape(x, [1, -1]), [[[1, 5]], [[1, 6]], [[3, 5]]], 3],
    ["a slice without effect", (x) => x.index(mx.Slice(0, 1)), [[[1, 3]], [[1, 4]], [[2, 3]]], 2],
    ["variance with ddof", (x) => mx.variance(x, 0, false, 1), [[[3, 2]], [[5, 2]]], 2],
    ["median and topk", (x) => mx.add(mx.median(x), mx.sum(mx.topk(x, 2))), [[[3]], [[5]]], 2],
    ["arrayEqual", (x, y) => mx.arrayEqual(x, y).astype(mx.int32), [[[3], [3]], [[1], [1]], [[3], [1]]], 3],
    ["flatten and unflatten", (x) => mx.unflatten(mx.flatten(x, 0, 1), 0, [1, -1]), [[[2, 3, 4]], [[5, 7, 2]]], 1],
    ["slices", (x) => x.index(mx.Slice(), 1), [[[2, 3]], [[4, 5]]], 1],
    ["matmul and softmax", (x, y) => mx.softmax(mx.matmul(x, y), -1), [[[2, 3], [3, 4]], [[5, 6], [6, 7]]], 1],
    ["gradients of sums", (x, y) => mx.grad((a: A) => mx.sum(mx.matmul(a, y)))(x) as A, [[[2, 1, 4, 2], [3, 2, 5]], [[3, 1, 4, 2], [2, 2, 5]]], 2],
    ["zeros of the same shape", (x) => mx.add(x, mx.zeros(x.shape)), [[[2, 3]], [[3, 4]]], 2],
  ];
  test.each(cases)("%s", (_name, f, shapes, most) => {
    let runs = 0;
    const compiled = mx.compile((...xs: A[]) => {
      runs++;
      return f(...xs);
    }, true);
    for (const list of shapes) {
      const xs = list.map((shape) => mx.random.uniform(0, 1, shape));
      const [got, want] = [compiled(...xs), f(...xs)];
      expect(got.shape).toEqual(want.shape);
      expect(mx.allclose(got, want).item()).toBe(true);
    }
    expect(runs).toBe(most);
  });
  test("a reduction over one element, then over more", () => {
    const buffer = mx.array([10, 20, 30, 40, 50]);
    for (const reduce of [mx.sum, mx.mean, mx.prod, mx.min, mx.max, mx.argmin, mx.argmax] as ((x: A) => A)[]) {
      const f = (b: A, i: A): A => reduce(mx.take(b, i, 0));
      for (const sizes of [[1, 2, 3], [2, 1]]) {
        const compiled = mx.compile(f, true);
        for (const n of sizes) {
          const at = mx.arange(n, mx.int32);
          expect(compiled(buffer, at).item()).toBe(f(buffer, at).item());
        }
      }
    }
  });
});

test("equal computations are done once", () => {
  const f = (x: A): A => mx.multiply(mx.matmul(x, x), mx.matmul(x, x));
  const x = mx.ones([3, 3]);
  const count = (g: (x: A) => A): number => opsOf(() => mx.eval(g(x))).filter((name) => name === "matmul").length;
  expect([count(f), count(mx.compile(f))]).toEqual([2, 1]);
  // Different parameters are not equal.
  const g = mx.compile((a: A) => mx.stack([mx.sum(a, 0), mx.sum(a, 1)]));
  expect(g(mx.array([[1, 2], [3, 4]])).tolist()).toEqual([[4, 6], [3, 7]]);
  const nan = mx.compile((a: A) => [mx.arrayEqual(a, a), mx.arrayEqual(a, a, true)]);
  expect(nan(mx.array([1, Number.NaN])).map((r: A) => r.item())).toEqual([false, true]);
});

describe("a training step", () => {
  const build = (): { model: nn.Module; optimizer: optimizers.Optimizer } => {
    mx.random.seed(0);
    const model = new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Dropout(0.3), new nn.Linear(8, 1));
    mx.eval(model.parameters());
    return { model, optimizer: new optimizers.AdamW((step) => mx.multiply(0.1, mx.power(0.9, step.astype(mx.float32)))) };
  };
  const x = mx.reshape(mx.divide(mx.arange(40), 40), [10, 4]);
  const y = mx.sum(x, 1, true);
  const losses = (compiled: boolean): { values: number[]; runs: number; weights: number[]; lazyOps: number } => {
    const { model, optimizer } = build();
    const state = [model.state, optimizer.state, mx.random.state];
    let runs = 0;
    const loss = nn.valueAndGrad(model, (a: A, b: A) => mx.mean(mx.square(mx.subtract(model.forward(a) as A, b))));
    const plain = (a: A, b: A): A => {
      runs++;
      const [value, grads] = loss(a, b);
      optimizer.update(model, grads);
      return value as A;
    };
    const step = compiled ? mx.compile(plain, false, state, state) : plain;
    mx.random.seed(5);
    const values = [];
    let lazyOps = 0;
    for (let i = 0; i < 6; i++) {
      const value = step(x, y);
      lazyOps = opsOf(() => mx.eval(value, state)).length;
      values.push(value.item() as number);
    }
    expect(optimizer.step.item()).toBe(6);
    return { values, runs, weights: (model.parameters()["layers"][0].weight as A).reshape(-1).tolist() as number[], lazyOps };
  };
  test("compiled with model, optimizer and random state gives what it gives not compiled, and runs the function twice at most", () => {
    const [plain, compiled] = [losses(false), losses(true)];
    expect(plain.runs).toBe(6);
    // The first call makes the optimizer's state, so the second traces again.
    expect(compiled.runs).toBe(2);
    compiled.values.forEach((v, i) => expect(v).toBeCloseTo(plain.values[i] as number, 5));
    compiled.weights.forEach((v, i) => expect(v).toBeCloseTo(plain.weights[i] as number, 5));
    expect(plain.values[5]).toBeLessThan(plain.values[0] as number);
  });
});

describe("the update of an optimizer", () => {
  class Probe extends optimizers.AdamW {
    runs = (() => {
      // Not a member that counts for the key: an object.
      return { count: 0 };
    })();
    override applySingle(...args: Parameters<optimizers.AdamW["applySingle"]>): A {
      this.runs.count++;
      return super.applySingle(...args);
    }
  }
  const parameters = (): Record<string, A> => ({ w: mx.array([1, 2, 3]), b: mx.array([0.5]) });
  const gradients = { w: mx.array([0.1, -0.2, 0.3]), b: mx.array([1]) };
  const steps = (optimizer: optimizers.Optimizer, n: number): Record<string, A> => {
    let p = parameters();
    for (let i = 0; i < n; i++) {
      p = optimizer.applyGradients(gradients, p);
      mx.eval(p, optimizer.state);
    }
    return p;
  };
  test("is traced once, for all steps", () => {
    const probe = new Probe(0.01);
    steps(probe, 4);
    expect([probe.runs.count, probe.step.item()]).toEqual([2, 4]);
  });
  test("a new learning rate needs no tracing, another member does; both count", () => {
    const probe = new Probe(0.01);
    const plain = new optimizers.AdamW(0.01);
    steps(probe, 1);
    const traced = probe.runs.count;
    steps(plain, 1);
    for (const o of [probe, plain]) o.learningRate = 0.5;
    const [p, q] = [steps(probe, 1), steps(plain, 1)];
    expect([p["w"]?.tolist(), probe.runs.count]).toEqual([q["w"]?.tolist(), traced]);
    for (const o of [probe, plain]) (o as unknown as { weightDecay: number }).weightDecay = 10;
    const after = steps(probe, 1);
    expect(probe.runs.count).toBe(2 * traced);
    mx.disableCompile();
    try {
      const want = steps(plain, 1)["w"]?.tolist() as number[];
      (after["w"]?.tolist() as number[]).forEach((x, i) => expect(x).toBeCloseTo(want[i] as number, 5));
    } finally {
      mx.enableCompile();
    }
  });
  test("a new state is read", () => {
    const optimizer = new optimizers.Adam(0.01);
    const want = steps(optimizer, 2)["w"]?.tolist();
    steps(optimizer, 3);
    optimizer.state = { step: mx.array(0, mx.uint64), learningRate: mx.array(0.01) };
    expect(steps(optimizer, 2)["w"]?.tolist()).toEqual(want);
  });
  test("what several parameters share is computed once", () => {
    const count = (): number => {
      const optimizer = new optimizers.Adam(0.01, [0.9, 0.999], 1e-8, true);
      steps(optimizer, 1);
      let p = parameters();
      return opsOf(() => {
        p = optimizer.applyGradients(gradients, p);
        mx.eval(p, optimizer.state);
      }).filter((name) => name === "power").length;
    };
    const compiled = count();
    mx.disableCompile();
    try {
      expect(compiled).toBe(2);
      expect(count()).toBe(4);
    } finally {
      mx.enableCompile();
    }
  });
});

describe("checkpoint", () => {
  const count = (wrap: (f: (x: A) => A) => (x: A) => A, differentiate: boolean): { runs: number; sines: number } => {
    let runs = 0;
    const f = wrap((x: A) => {
      runs++;
      return mx.sin(mx.sin(x));
    });
    const x = mx.array([0.3, 0.7]);
    const sines = opsOf(() => mx.eval(differentiate ? mx.valueAndGrad((a: A) => mx.sum(f(a)))(x) : f(x))).filter((n) => n === "sin").length;
    return { runs, sines };
  };
  test("computes what it needs for the gradient a second time, and only then", () => {
    expect(count((f) => f, true)).toEqual({ runs: 1, sines: 2 });
    // The inner sine is what the outer's derivative needs.
    const { runs, sines } = count((f) => mx.checkpoint(f) as typeof f, true);
    expect(runs).toBe(2);
    expect(sines).toBeGreaterThan(2);
    expect(count((f) => mx.checkpoint(f) as typeof f, false)).toEqual({ runs: 1, sines: 2 });
  });
  test("keeps less in memory than without", () => {
    const [n, layers] = [1 << 16, 8];
    const peak = (wrap: <F extends (...xs: A[]) => A>(f: F) => F): number => {
      const block = wrap((x: A) => {
        let y = x;
        for (let i = 0; i < 6; i++) y = mx.softmax(mx.multiply(mx.tanh(y), 1.01), -1);
        return y;
      });
      const x = mx.random.normal([64, n / 64]);
      mx.eval(x);
      const active = mx.getActiveMemory();
      mx.resetPeakMemory();
      const grad = mx.tidy(() => {
        const g = mx.grad((a: A) => {
          let y = a;
          for (let i = 0; i < layers; i++) y = block(y);
          return mx.sum(mx.square(y));
        })(x) as A;
        return g;
      });
      mx.eval(grad);
      return mx.getPeakMemory() - active;
    };
    const [plain, less] = [peak((f) => f), peak((f) => mx.checkpoint(f) as typeof f)];
    expect(less).toBeLessThan(plain / 2);
  });
});
