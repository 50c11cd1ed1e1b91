/** Optimizers against the formulas in plain JavaScript, over several steps; schedules; state; training. */
import { describe, expect, test } from "vitest";
import { core as mx, nn, optimizers as opt } from "../src/index.ts";
import { arrayFrom, flat, numbers } from "./helpers/transform-cases.ts";

type A = mx.MxArray;
const near = (list: readonly number[], digits = 5): unknown[] => list.map((x) => expect.closeTo(x, digits));
const W = numbers(1, 4);
const gradients = [numbers(2, 4), numbers(3, 4), numbers(4, 4)];
type Rule = (w: number, g: number, s: Record<string, number>, step: number) => number;

/** Three updates of a vector, by the optimizer and by a scalar rule. */
function check(optimizer: opt.Optimizer, rule: Rule): void {
  let tree = { w: [mx.array(W)] };
  const want = W.slice();
  const states = W.map((): Record<string, number> => ({}));
  gradients.forEach((g, step) => {
    tree = optimizer.applyGradients({ w: [mx.array(g)] }, tree) as typeof tree;
    want.forEach((w, i) => {
      want[i] = rule(w, g[i] as number, states[i] as Record<string, number>, step + 1);
    });
  });
  expect(flat(tree.w[0] as A)).toEqual(near(want));
  expect(optimizer.step.item()).toBe(3);
  expect(optimizer.step.dtype).toBe(mx.uint64);
}
const keep = (s: Record<string, number>, name: string, value: (old: number) => number): number => {
  s[name] = value(s[name] ?? 0);
  return s[name] as number;
};

describe("updates", () => {
  const cases: [string, opt.Optimizer, Rule][] = [
    ["SGD", new opt.SGD(0.1), (w, g) => w - 0.1 * g],
    ["SGD with momentum, dampening and weight decay", new opt.SGD(0.1, 0.9, 0.01, 0.2), (w, g, s) => w - 0.1 * keep(s, "v", (v) => 0.9 * v + 0.8 * (g + 0.01 * w))],
    ["SGD with Nesterov momentum", new opt.SGD(0.1, 0.9, 0, 0, true), (w, g, s) => w - 0.1 * (g + 0.9 * keep(s, "v", (v) => 0.9 * v + g))],
    ["RMSprop", new opt.RMSprop(0.1, 0.8), (w, g, s) => w - (0.1 * g) / (Math.sqrt(keep(s, "v", (v) => 0.8 * v + 0.2 * g * g)) + 1e-8)],
    ["Adagrad", new opt.Adagrad(0.1), (w, g, s) => w - (0.1 * g) / (Math.sqrt(keep(s, "v", (v) => v + g * g)) + 1e-8)],
    [
      "AdaDelta", new opt.AdaDelta(0.1, 0.8, 1e-3),
      (w, g, s) => {
        const v = keep(s, "v", (x) => 0.8 * x + 0.2 * g * g);
        const d = (Math.sqrt((s.u ?? 0) + 1e-3) / Math.sqrt(v + 1e-3)) * g;
        keep(s, "u", (u) => 0.8 * u + 0.2 * d * d);
        return w - 0.1 * d;
      },
    ],
    ["Adam", new opt.Adam(0.1, [0.8, 0.9]), (w, g, s) => w - (0.1 * keep(s, "m", (m) => 0.8 * m + 0.2 * g)) / (Math.sqrt(keep(s, "v", (v) => 0.9 * v + 0.1 * g * g)) + 1e-8)],
    [
      "Adam with bias correction", new opt.Adam(0.1, [0.8, 0.9], 1e-8, true),
      (w, g, s, n) => w - (0.1 * keep(s, "m", (m) => 0.8 * m + 0.2 * g)) / (1 - 0.8 ** n) / (Math.sqrt(keep(s, "v", (v) => 0.9 * v + 0.1 * g * g) / (1 - 0.9 ** n)) + 1e-8),
    ],
    ["AdamW", new opt.AdamW(0.1, [0.8, 0.9], 1e-8, 0.2), (w, g, s) => w * 0.98 - (0.1 * keep(s, "m", (m) => 0.8 * m + 0.2 * g)) / (Math.sqrt(keep(s, "v", (v) => 0.9 * v + 0.1 * g * g)) + 1e-8)],
    ["Adamax", new opt.Adamax(0.1, [0.8, 0.9]), (w, g, s) => w - (0.1 * keep(s, "m", (m) => 0.8 * m + 0.2 * g)) / (keep(s, "v", (v) => Math.max(0.9 * v, Math.abs(g))) + 1e-8)],
    [
      "Lion", new opt.Lion(0.1, [0.8, 0.9], 0.3),
      (w, g, s) => {
        const c = 0.8 * (s.m ?? 0) + 0.2 * g;
        keep(s, "m", (m) => 0.9 * m + 0.1 * g);
        return w * 0.97 - 0.1 * Math.sign(c);
      },
    ],
    ["Muon on a vector", new opt.Muon(0.1, 0.9, 0.1), (w, g, s) => w - 0.1 * (0.1 * (g + 0.1 * w) + 0.9 * keep(s, "v", (v) => 0.9 * v + 0.1 * (g + 0.1 * w)))],
  ];
  for (const [name, optimizer, rule] of cases) test(name, () => check(optimizer, rule));

  test("Adafactor on a vector and a matrix", () => {
    const rms = (x: readonly number[]): number => Math.sqrt(x.reduce((s, v) => s + v * v, 0) / x.length);
    const update = (w: number[], raw: number[]): number[] => {
      const scale = Math.max(1e-3, rms(w)) * 1e-2;
      return w.map((v, i) => v - (scale * (raw[i] as number)) / Math.max(1, rms(raw)));
    };
    const g = gradients[0] as number[];
    // In the first step the second moment is that of the gradient alone.
    const vector = new opt.Adafactor().applyGradients({ w: mx.array(g) }, { w: mx.array(W) }) as { w: A };
    expect(flat(vector.w)).toEqual(near(update(W, g.map((v) => v / Math.abs(v)))));
    const row = [0, 1].map((i) => ((g[2 * i] as number) ** 2 + (g[2 * i + 1] as number) ** 2) / 2);
    const column = [0, 1].map((j) => ((g[j] as number) ** 2 + (g[j + 2] as number) ** 2) / 2);
    const mean = ((row[0] as number) + (row[1] as number)) / 2;
    const raw = g.map((v, k) => v / Math.sqrt(((row[k >> 1] as number) / mean) * (column[k & 1] as number)));
    const matrix = new opt.Adafactor().applyGradients({ w: arrayFrom(g, [2, 2], mx.float32) }, { w: arrayFrom(W, [2, 2], mx.float32) }) as { w: A };
    expect(flat(matrix.w)).toEqual(near(update(W, raw)));
    const optimizer = new opt.Adafactor(0.1, [1e-30, 1e-3], 1, -0.8, 0.9, 0.01, false, false);
    let tree = { w: arrayFrom(W, [2, 1, 2], mx.float16) };
    for (let i = 0; i < 2; i++) tree = optimizer.applyGradients({ w: arrayFrom(g, [2, 1, 2], mx.float16) }, tree) as typeof tree;
    expect([tree.w.shape, tree.w.dtype, flat(tree.w).every(Number.isFinite)]).toEqual([[2, 1, 2], mx.float16, true]);
  });
  test("Muon's updates of matrices have singular values near 1", () => {
    for (const shape of [[3, 5], [5, 3], [4, 2, 3]]) {
      const n = shape.reduce((a, b) => a * b, 1);
      const { w } = new opt.Muon(1, 0, 0, false).applyGradients({ w: arrayFrom(numbers(5, n), shape, mx.float32) }, { w: mx.zeros(shape) }) as { w: A };
      const scale = Math.sqrt(Math.max(1, (shape.at(-2) as number) / (shape.at(-1) as number)));
      const flatW = mx.divide(mx.reshape(w, [shape[0] as number, -1]), scale);
      const gram = (flatW.shape[0] as number) > (flatW.shape[1] as number) ? mx.matmul(flatW.T, flatW) : mx.matmul(flatW, flatW.T);
      // The trace is the sum of squared singular values, each in 0.7^2 .. 1.2^2.
      const trace = mx.sum(mx.diagonal(gram)).item() as number;
      const rank = gram.shape[0] as number;
      expect(trace).toBeGreaterThan(rank * 0.45);
      expect(trace).toBeLessThan(rank * 1.5);
    }
  });
  test("wrong settings", () => {
    expect(() => new opt.SGD(0.1, 0, 0, 0, true)).toThrow("[SGD] nesterov");
    expect(() => new opt.RMSprop(0.1, -1)).toThrow("[RMSprop] alpha");
    expect(() => new opt.Adamax(0.1, [0.9, 0.9], -1)).toThrow("[Adamax] eps");
    for (const [name, make] of [["RMSprop", (eps: number) => new opt.RMSprop(0.1, 0.9, eps)], ["Adagrad", (eps: number) => new opt.Adagrad(0.1, eps)], ["AdaDelta", (eps: number) => new opt.AdaDelta(0.1, 0.9, eps)]] as const) {
      for (const eps of [0, -1]) expect(() => make(eps)).toThrow(`[${name}] eps must be positive, got ${eps}`);
    }
    expect(() => new opt.Adam(0.1, [0.9, 1])).toThrow("[Adam] betas must be in [0, 1), got 0.9,1");
    expect(() => new opt.AdamW(0.1, [-0.1, 0.9])).toThrow("[AdamW] betas");
    expect(() => new opt.Lion(0.1, [1, 0.9])).toThrow("[Lion] betas");
  });
  test("float16 stays float16", () => {
    const make = [new opt.SGD(0.1, 0.9), new opt.RMSprop(0.1), new opt.Adagrad(0.1), new opt.AdaDelta(0.1), new opt.Adam(0.1, [0.9, 0.9], 1e-4, true), new opt.AdamW(0.1), new opt.Adamax(0.1), new opt.Lion(0.1), new opt.Adafactor(), new opt.Muon(0.1)];
    for (const o of make) {
      const { w } = o.applyGradients({ w: mx.ones([2, 2], mx.float16) }, { w: mx.ones([2, 2], mx.float16) }) as { w: A };
      expect([o.constructor.name, w.dtype]).toEqual([o.constructor.name, mx.float16]);
    }
  });
});

describe("state", () => {
  test("mirrors the parameters beside step and learningRate, and can be saved and set", () => {
    const make = (): opt.Optimizer => new opt.Adam(0.1);
    const early = make();
    early.init({ a: [mx.zeros([2])], b: mx.zeros([1]) });
    expect(Object.keys(early.state).sort()).toEqual(["a", "b", "learningRate", "step"]);
    expect(early.state.a[0].m.tolist()).toEqual([0, 0]);
    const o = make();
    let tree = o.applyGradients({ w: mx.array(W) }, { w: mx.array(W) }) as { w: A };
    const other = make();
    other.state = { ...o.state, w: { ...o.state.w } };
    const [a, b] = [o, other].map((x) => flat((x.applyGradients({ w: mx.array(W) }, tree) as { w: A }).w));
    expect(b).toEqual(a);
    o.learningRate = 0;
    tree = o.applyGradients({ w: mx.array(W) }, { w: mx.array(W) }) as { w: A };
    expect(flat(tree.w)).toEqual(near(W));
  });
  test("MultiOptimizer shares parameters out", () => {
    const parts = [new opt.SGD(1), new opt.SGD(10)];
    const multi = new opt.MultiOptimizer(parts, [(path) => path.endsWith("weight")]);
    const ones = { layers: [{ weight: mx.ones([1]), bias: mx.ones([1]) }, { weight: mx.ones([1]) }] };
    const next = multi.applyGradients(ones, ones) as typeof ones;
    expect([next.layers[0]?.weight.item(), next.layers[0]?.bias?.item(), next.layers[1]?.weight.item()]).toEqual([0, -9, 0]);
    expect(multi.state.states).toHaveLength(2);
    multi.learningRate = 3;
    expect(parts.map((o) => o.learningRate.item())).toEqual([3, 3]);
    expect(() => new opt.MultiOptimizer(parts, [])).toThrow("[MultiOptimizer] needs one filter fewer");
    expect(() => {
      multi.state = {};
    }).toThrow("[MultiOptimizer] state");
  });
  test("clipGradNorm", () => {
    const grads = { a: mx.array([3]), b: [mx.array([0, 4])] };
    const [clipped, norm] = opt.clipGradNorm(grads, 1);
    expect([norm.item(), flat(clipped.a), flat(clipped.b[0])]).toEqual([5, near([0.6]), near([0, 0.8])]);
    expect(flat(opt.clipGradNorm(grads, 10)[0].a)).toEqual([3]);
    const half = opt.clipGradNorm({ a: mx.array([3]).astype(mx.bfloat16) }, 1);
    expect([half[0].a.dtype, half[1].dtype]).toEqual([mx.bfloat16, mx.bfloat16]);
    expect(opt.clipGradNorm({}, 1)[1].item()).toBe(0);
    expect(() => opt.clipGradNorm(grads, -1)).toThrow("[clipGradNorm] maxNorm must not be negative, got -1");
  });
});

test("a plain object as the model", () => {
  const model = { w: mx.array([1, 2]), rest: [mx.array([5])] };
  const optimizer = new opt.SGD(0.5);
  optimizer.update(model, { w: mx.array([2, 4]) });
  expect([flat(model.w), flat(model.rest[0] as A)]).toEqual([[0, 0], [5]]);
  optimizer.update({}, {});
  expect(optimizer.step.item()).toBe(2);
});

describe("schedules", () => {
  const at = (schedule: opt.Schedule, steps: number[]): number[] => steps.map((s) => schedule(mx.array(s, mx.uint64)).item() as number);
  test("values", () => {
    expect(at(opt.exponentialDecay(0.5, 0.9), [0, 3])).toEqual(near([0.5, 0.5 * 0.9 ** 3]));
    expect(at(opt.stepDecay(0.5, 0.1, 10), [9, 10, 25])).toEqual(near([0.5, 0.05, 0.005]));
    expect(at(opt.cosineDecay(1, 10, 0.2), [0, 5, 10, 20])).toEqual(near([1, 0.6, 0.2, 0.2]));
    expect(at(opt.linearSchedule(0, 1, 4), [0, 1, 4, 9])).toEqual(near([0, 0.25, 1, 1]));
    expect(at(opt.joinSchedules([opt.linearSchedule(0, 1, 4), opt.exponentialDecay(1, 0.5), () => 7], [4, 6]), [2, 4, 5, 6])).toEqual(near([0.5, 1, 0.5, 7]));
    expect(() => opt.joinSchedules([], [])).toThrow("[joinSchedules]");
    expect(() => opt.joinSchedules([opt.stepDecay(1, 1, 1)], [3])).toThrow("[joinSchedules]");
    expect(() => opt.linearSchedule(0, 1, 0)).toThrow("[linearSchedule]");
    expect(() => opt.stepDecay(1, 0.5, 0)).toThrow("[stepDecay] stepSize must be at least 1, got 0");
    expect(() => opt.cosineDecay(1, 0)).toThrow("[cosineDecay] decaySteps must be at least 1, got 0");
  });
  test("an optimizer asks its schedule before each update", () => {
    const o = new opt.SGD((step) => mx.multiply(mx.add(step, 1), 0.5));
    let tree = { w: mx.array(0) };
    const seen = [1, 2, 3].map(() => {
      tree = o.applyGradients({ w: mx.array(1) }, tree) as typeof tree;
      return o.learningRate.item();
    });
    expect([seen, tree.w.item()]).toEqual([[0.5, 1, 1.5], -3]);
  });
});

test("a network learns exclusive or, also with the step compiled", () => {
  mx.random.seed(3);
  const model = new nn.Sequential(new nn.Linear(2, 16), nn.tanh, new nn.Linear(16, 1));
  const optimizer = new opt.Adam(0.05);
  const x = mx.array([[0, 0], [0, 1], [1, 0], [1, 1]]);
  const y = mx.array([[0], [1], [1], [0]]);
  const loss = (m: nn.Module): A => nn.losses.binaryCrossEntropy(m.forward(x) as A, y);
  const first = loss(model).item() as number;
  const step = nn.valueAndGrad(model, loss);
  for (let i = 0; i < 60; i++) {
    const [, grads] = step(model);
    optimizer.update(model, grads);
    mx.eval(model.parameters(), optimizer.state);
  }
  const middle = loss(model).item() as number;
  expect(middle).toBeLessThan(first / 4);
  const compiled = mx.compile((parameters: nn.NestedDict, state: unknown) => {
    const grads = mx.grad((p: nn.NestedDict) => loss(model.update(p)))(parameters);
    optimizer.state = state;
    return [optimizer.applyGradients(grads, parameters), optimizer.state];
  });
  let [parameters, state] = [model.parameters(), optimizer.state];
  for (let i = 0; i < 20; i++) [parameters, state] = compiled(parameters, state) as [nn.NestedDict, unknown];
  expect(loss(model.update(parameters)).item()).toBeLessThan(middle);
});
