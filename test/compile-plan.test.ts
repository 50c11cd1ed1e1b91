/** Plans of compiled functions: that they engage, that they equal what is computed without them, and what they do to memory. */
import { execFileSync } from "node:child_process";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { core as mx, nn, optimizers, utils } from "../src/index.ts";
import { openVulkan } from "../src/backend/vulkan/index.ts";
import { wasmBackend } from "../src/backend/wasm/index.ts";
import { generateStep, load, makePromptCache } from "../src/llm/index.ts";
import { tapeOf } from "../src/schedule/plan.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { randomSource } from "./helpers/check.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { demo4bit } from "./helpers/llm.ts";

type A = mx.MxArray;
// These tests are about compiled functions, even where MLX_DISABLE_COMPILE switches them off.
mx.enableCompile();
chooseTestDevice();
const onGpu = mx.defaultDevice().type === "gpu";

const flags = ["MLX_PLAN_CACHE", "MLX_CHECK", "MLX_FUSE", "MLX_DISABLE"];
const given = flags.map((f) => process.env[f]);
afterEach(() => {
  flags.forEach((f, i) => {
    const value = given[i];
    if (value === undefined) delete process.env[f];
    else process.env[f] = value;
  });
});

interface Counts {
  made: number;
  reused: number;
  refused: number;
}
let before: Counts;
const now = (): Counts => ({ made: stats.plansMade, reused: stats.plansReused, refused: stats.plansRefused });
const counted = (): Counts => {
  const n = now();
  return { made: n.made - before.made, reused: n.reused - before.reused, refused: n.refused - before.refused };
};
beforeEach(() => {
  // Plans need generated kernels.
  for (const f of flags) delete process.env[f];
  before = now();
});

const random = randomSource(11);
const numbers = (shape: number[]): A => {
  const size = shape.reduce((a, b) => a * b, 1);
  const a = mx.reshape(mx.array(Float32Array.from({ length: size }, () => 2 * random() - 1)), shape);
  mx.eval(a);
  return a;
};
/** The bits of arrays, as text: equal for equal numbers, -0 and NaN included. */
const bits = (...arrays: A[]): string[] => {
  mx.eval(arrays);
  return arrays.map((a) => {
    const from = a.dtype === mx.bfloat16 || a.dtype === mx.float16 ? mx.contiguous(a).view(mx.uint16) : a.dtype === mx.float32 ? mx.contiguous(a).view(mx.uint32) : a;
    return `${a.dtype}[${a.shape}] ${JSON.stringify(from.tolist())}`;
  });
};
/**
 * Calls a compiled function as often as there are arguments, with plans and without; the results must have the same bits. On the GPU arguments are computed before: without
 * plans what makes an argument could join a reduction of the function, and kernels of such groups add up in another order there.
 */
function same<T extends unknown[]>(f: (...args: T) => A[], made: readonly (() => T)[]): void {
  const calls = made.map((args) => (): T => {
    const values = args();
    if (onGpu) mx.eval(values);
    return values;
  });
  process.env["MLX_PLAN_CACHE"] = "0";
  const plain = mx.compile(f);
  const want = calls.map((args) => bits(...plain(...args())));
  process.env["MLX_PLAN_CACHE"] = "1";
  const planned = mx.compile(f);
  calls.forEach((args, i) => expect(bits(...planned(...args())), `call ${i}`).toEqual(want[i]));
}

describe("a second call", () => {
  test("does not run the function, and makes one node, however much it computes", () => {
    let runs = 0;
    const w = numbers([8, 8]);
    const f = mx.compile((x: A): A[] => {
      runs++;
      let y = x;
      for (let i = 0; i < 10; i++) y = mx.tanh(mx.matmul(y, w));
      return [y, mx.sum(y)];
    });
    mx.eval(f(numbers([4, 8])));
    const x = numbers([4, 8]);
    const handles = mx.getWrappersCount();
    const results = f(x);
    expect(tapeOf(results.map((r) => r.desc)).map((n) => n.op.name)).toEqual(["compiled"]);
    expect(mx.getWrappersCount() - handles).toBe(2);
    const { commands, dispatches, evaluations } = stats;
    mx.eval(results);
    expect([runs, stats.evaluations - evaluations, counted()]).toEqual([1, 1, { made: 1, reused: 1, refused: 0 }]);
    // Ten products and ten groups of elementwise ops; the sum is made by the last of them. On the GPU, nine products make their groups (schedule/epilogue.ts).
    expect(stats.commands + stats.dispatches - commands - dispatches).toBe(onGpu ? 11 : 20);
  });
  test("computes nothing before it is asked for, and nothing at all when nobody asks", () => {
    const f = mx.compile((x: A) => mx.softmax(mx.multiply(x, 2), -1));
    f(numbers([3, 5]));
    const lists = wasmBackend().pool.counters.lists;
    const y = f(numbers([3, 5]));
    expect([y.desc.status, wasmBackend().pool.counters.lists, counted()]).toEqual(["unscheduled", lists, { made: 0, reused: 0, refused: 0 }]);
  });
  test("works when the first one was inside a scope that is closed", () => {
    const w = numbers([3, 3]);
    for (const plans of ["1", "0"]) {
      process.env["MLX_PLAN_CACHE"] = plans;
      const f = mx.compile((x: A) => mx.matmul(x, mx.multiply(w, 2)));
      const x = numbers([3, 3]);
      const [a, b] = [mx.tidy(() => bits(f(x))), bits(f(x))];
      expect(a).toEqual(b);
    }
  });
  test.skipIf(onGpu)("is one list of commands for the threads", () => {
    const w = numbers([16, 16]);
    const f = mx.compile((x: A) => mx.softmax(mx.matmul(mx.matmul(x, w), w), -1));
    mx.eval(f(numbers([4, 16])));
    const x = numbers([4, 16]);
    const { lists } = wasmBackend().pool.counters;
    mx.eval(f(x));
    expect(wasmBackend().pool.counters.lists - lists).toBe(1);
  });
  test("with other layouts, with arguments that nobody else needs, or with fewer results in use has plans of its own; 16 are kept", () => {
    const f = mx.compile((x: A): A[] => [mx.softmax(x, -1), mx.cumsum(x, 0)]);
    const x = numbers([6, 6]);
    mx.eval(f(x));
    mx.eval(f(mx.transpose(x)));
    mx.eval(mx.tidy(() => f(mx.array(numbers([6, 6]).tolist()))));
    mx.eval(mx.tidy(() => f(x)[0] as A));
    expect(counted()).toEqual({ made: 4, reused: 0, refused: 0 });
    mx.eval(f(x), f(mx.transpose(numbers([6, 6]))));
    expect(counted()).toEqual({ made: 4, reused: 2, refused: 0 });
    const wide = numbers([6, 400]);
    for (let step = 1; step <= 20; step++) mx.eval(f(wide.index(mx.Slice(), mx.Slice(0, 6 * step, step))));
    expect(counted().made).toBe(24);
    mx.eval(f(x));
    expect(counted()).toEqual({ made: 25, reused: 2, refused: 0 });
  });
  test("elementwise functions of what is not computed yet join the groups around them", () => {
    const f = mx.compile((x: A) => mx.multiply(mx.add(x, 1), 2));
    const x = numbers([4]);
    const groups = stats.fusedGroups;
    expect(bits(f(mx.negative(x)))).toEqual(bits(mx.multiply(mx.add(mx.negative(x), 1), 2)));
    expect([stats.fusedGroups - groups, counted()]).toEqual([2, { made: 0, reused: 0, refused: 0 }]);
  });
});

describe("off", () => {
  const f = (x: A): A => mx.softmax(x, -1);
  test("MLX_PLAN_CACHE=0, MLX_CHECK=1: ops by themselves", () => {
    for (const flag of [{ MLX_PLAN_CACHE: "0" }, { MLX_CHECK: "1" }]) {
      Object.assign(process.env, flag);
      const compiled = mx.compile(f);
      for (let i = 0; i < 2; i++) mx.eval(compiled(numbers([2, 3])));
      for (const name of Object.keys(flag)) delete process.env[name];
    }
    expect(counted()).toEqual({ made: 0, reused: 0, refused: 0 });
  });
  test("MLX_DISABLE_COMPILE=1: the function itself runs each time", () => {
    const code = 'import { core as mx } from "./src/index.ts"; let n = 0; const f = mx.compile((x) => (n++, mx.add(x, 1))); for (let i = 0; i < 3; i++) f(mx.array(i)).item(); console.log(n)';
    const runs = (disable: string): string =>
      execFileSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], { encoding: "utf8", env: { ...process.env, MLX_DISABLE_COMPILE: disable }, stdio: ["ignore", "pipe", "ignore"] });
    expect([runs("1"), runs("0")]).toEqual(["3\n", "1\n"]);
  }, 30_000);
  test("whoever traces ops sees them; explain, too", () => {
    const compiled = mx.compile(f);
    const x = numbers([2, 3]);
    const seen: string[] = [];
    setTracer({ recorded: (node) => void seen.push(node.op.name) });
    try {
      mx.eval(compiled(x));
    } finally {
      setTracer(undefined);
    }
    expect([seen, counted().made]).toEqual([["softmax"], 0]);
    expect(mx.explain(compiled(x))).toContain("softmax");
  });
  test("what runs outside of the lists of commands is done op by op", () => {
    process.env["MLX_DISABLE"] = onGpu ? "vulkan/generated" : "wasm/generated";
    const compiled = mx.compile((x: A) => mx.sum(mx.exp(x)));
    const x = numbers([5]);
    for (let i = 0; i < 2; i++) expect(bits(compiled(x))).toEqual(bits(mx.sum(mx.exp(x))));
    expect(counted()).toEqual({ made: 0, reused: 0, refused: 2 });
  });
});

describe("the same bits with plans and without", () => {
  /** A program of random ops on (n, n) arrays, the same for every call. */
  function program(seed: number): (...inputs: A[]) => A[] {
    return (...inputs) => {
      const next = randomSource(seed);
      const int = (n: number): number => Math.floor(next() * n);
      const values = [...inputs];
      const pick = (): A => values[int(values.length)] as A;
      const moves: (() => A)[] = [
        () => mx.add(pick(), pick()),
        () => mx.multiply(pick(), mx.array(next())),
        () => mx.tanh(pick()),
        () => mx.where(mx.greater(pick(), 0), pick(), pick()),
        () => mx.matmul(pick(), pick()),
        () => mx.transpose(pick()),
        () => mx.softmax(pick(), -1),
        () => mx.cumsum(pick(), int(2)),
        () => mx.sort(pick(), int(2)),
        () => mx.subtract(pick(), mx.mean(pick(), int(2), true)),
        () => mx.fast.rmsNorm(pick(), mx.sum(pick(), 0), 1e-5),
        () => mx.fast.layerNorm(pick(), null, null, 1e-5),
        () => mx.broadcastTo(mx.max(pick(), 0), pick().shape),
        () => mx.concatenate([pick().index(mx.Slice(0, 3)), pick().index(mx.Slice(3))], 0),
        () => pick().astype(mx.bfloat16).astype(mx.float32),
        () => pick().index(mx.Slice(undefined, undefined, -1)),
        () => mx.take(pick(), mx.argsort(pick().index(0)), 0),
      ];
      for (let i = 0; i < 20; i++) values.push((moves[int(moves.length)] as () => A)());
      return [values[values.length - 1] as A, pick(), pick(), pick()];
    };
  }
  test("random programs", () => {
    for (let seed = 1; seed <= 24; seed++) {
      const n = 4 + (seed % 5);
      const [x, y, z] = [numbers([n, n]), numbers([n, n]), numbers([2 * n, n])];
      const args: (() => A[])[] = [() => [x, y], () => [y, x], () => [x, x], () => [mx.transpose(x), z.index(mx.Slice(1, n + 1))], () => [mx.add(x, 1), y], () => [mx.broadcastTo(x.index(0), [n, n]), z.index(mx.Slice(0, undefined, 2))]];
      same(program(seed) as (...inputs: A[]) => A[], [...args, ...args] as never);
    }
    expect(counted().refused).toBe(0);
    expect(counted().reused).toBeGreaterThan(100);
  }, 60_000);

  test("0-d arguments that change, with and without memory of their own", () => {
    const s = mx.array(3);
    mx.eval(mx.add(s, 0));
    same((x: A, a: A, b: A): A[] => [mx.multiply(x, a), mx.reshape(b, [1, 1]), mx.add(a, b), mx.broadcastTo(a, [3])], [
      () => [numbers([3]), mx.array(2), mx.array(5, mx.int32)], () => [mx.array([1, 2, 3]), mx.array(-0), mx.array(7, mx.int32)],
      () => [mx.array([1, 2, 3]), s, mx.array(7, mx.int32)], () => [mx.array([1, 2, 3]), mx.add(s, 1), mx.array(-1, mx.int32)],
    ].map((make) => { const args = make() as [A, A, A]; return () => args; }));
  });
  test("results that are arguments, constants, each other, or views", () => {
    const c = numbers([2, 2]);
    const x = numbers([2, 2]);
    const program = (a: A): A[] => {
      const y = mx.matmul(a, c);
      return [a, c, y, y, mx.transpose(y), mx.transpose(a), a.index(1), y.index(mx.Slice(), 1), mx.matmul(a, c)];
    };
    same(program, [x, x, mx.transpose(x), mx.add(x, 1)].map((a) => (): [A] => [a]));
  });
  test("empty arrays, other dtypes, views of one storage as another dtype", () => {
    const x = numbers([4, 4]);
    const calls = [x, x.index(mx.Slice(1)), mx.add(x, 1), mx.transpose(x)];
    const program = (a: A, b: A): A[] => [mx.sum(a), mx.concatenate([a, a], 0), mx.view(b, mx.int32), mx.view(b.index(1), mx.uint8), b.astype(mx.float16)];
    same(program, calls.flatMap((b) => [0, 1].map(() => (): [A, A] => [mx.zeros([0, 3]), b])));
  });
  test("an array changed in place after the call has not changed before it", () => {
    const f = mx.compile((x: A) => mx.matmul(x, x));
    for (let i = 0; i < 3; i++) {
      const x = mx.array([[1, 2], [3, 4]]);
      mx.eval(x);
      const y = f(x);
      x.indexPut_([0], mx.array([9, 9]));
      expect([y.tolist(), x.tolist()]).toEqual([[[7, 10], [15, 22]], [[9, 9], [3, 4]]]);
    }
  });
  test("asyncEval; results that feed the next call before they are done", async () => {
    const w = numbers([32, 32]);
    const step = (x: A): A => mx.tanh(mx.matmul(x, w));
    const f = mx.compile(step);
    const start = numbers([32, 32]);
    let [x, want] = [start, start];
    for (let i = 0; i < 20; i++) {
      x = f(x);
      void mx.asyncEval(x);
      want = step(want);
    }
    await mx.asyncEval(x);
    expect(bits(x)).toEqual(bits(want));
    expect(counted().reused).toBeGreaterThanOrEqual(18);
  });
  test("shapeless: a plan for each shape, made once", () => {
    const f = (x: A): A[] => [mx.softmax(mx.matmul(x, mx.transpose(x)), -1), mx.reshape(x, [-1])];
    const plain = [3, 5, 4, 3, 5].map((n) => mx.add(mx.zeros([n, 2]), mx.reshape(mx.arange(2 * n), [n, 2])));
    mx.eval(plain);
    const compiled = mx.compile(f, true);
    for (const x of plain) expect(bits(...compiled(x))).toEqual(bits(...f(x)));
    expect(counted()).toEqual({ made: 3, reused: 2, refused: 0 });
    expect(() => mx.compile((x: A) => mx.reshape(x, [6]), true)(mx.zeros([4, 2]))).toThrow("[reshape]");
  });
});

describe("errors", () => {
  test("of shapes come from the call, of the device from the evaluation", () => {
    const f = mx.compile((x: A, y: A) => mx.matmul(x, y));
    mx.eval(f(numbers([2, 3]), numbers([3, 2])));
    expect(() => f(numbers([2, 3]), numbers([2, 3]))).toThrow("[matmul]");
    const shapeless = mx.compile((x: A, y: A) => mx.matmul(x, y), true);
    mx.eval(shapeless(numbers([2, 3]), numbers([3, 2])));
    expect(() => shapeless(numbers([2, 3]), numbers([2, 3]))).toThrow("[matmul]");
  });
  test.skipIf(onGpu)("too little memory: the error that there is without plans, and the call works later", () => {
    const f = mx.compile((x: A) => mx.matmul(x, x));
    const x = numbers([64, 64]);
    mx.eval(f(x));
    const limit = mx.setMemoryLimit(mx.getActiveMemory() + 1000);
    const y = f(x);
    expect(() => mx.eval(y)).toThrow("out of memory");
    mx.setMemoryLimit(limit);
    expect(bits(y)).toEqual(bits(mx.matmul(x, x)));
  });
});

/** Parameters of a small network, its optimizer, and a step that changes both. */
function training(make: () => optimizers.Optimizer) {
  mx.random.seed(3);
  const model = new nn.Sequential(new nn.Linear(6, 8), nn.relu, new nn.LayerNorm(8), new nn.Linear(8, 3));
  const optimizer = make();
  optimizer.init(model.trainableParameters());
  mx.eval(model.parameters(), optimizer.state);
  const lossAndGradients = nn.valueAndGrad(model, (x: A, y: A) => mx.mean(nn.losses.crossEntropy(model.forward(x), y)));
  const state = [model, optimizer.state] as never;
  const step = mx.compile((x: A, y: A): A => {
    const [loss, gradients] = lossAndGradients(x, y);
    optimizer.update(model, gradients);
    return loss as A;
  }, false, state, state);
  return { model, optimizer, step };
}

describe("training steps with captured state", () => {
  const data = Array.from({ length: 6 }, () => [numbers([5, 6]), mx.array([0, 2, 1, 1, 0], mx.int32)] as const);
  const run = (make: () => optimizers.Optimizer, plans: string): string[] => {
    process.env["MLX_PLAN_CACHE"] = plans;
    const { model, optimizer, step } = training(make);
    const losses = data.map(([x, y]) => {
      const loss = step(x, y);
      mx.eval(loss, model.parameters(), optimizer.state);
      return loss;
    });
    const arrays: A[] = [];
    utils.treeMap((a: A) => void arrays.push(a), [model.parameters(), optimizer.state]);
    return bits(...losses, ...arrays);
  };
  for (const [name, make] of [["Adam", () => new optimizers.Adam(0.01)], ["SGD with momentum", () => new optimizers.SGD(0.1, 0.9)]] as const) {
    test(`${name}: losses, parameters and state have the same bits`, () => {
      const want = run(make, "0");
      before = now();
      expect(run(make, "1")).toEqual(want);
      expect(counted().refused).toBe(0);
      expect(counted().reused).toBeGreaterThanOrEqual(3);
    });
  }
  test("memory is flat over 1000 steps, and state that nobody else holds is updated in place", () => {
    const x = numbers([64, 64]);
    /** Bytes beside the arrays that are there before: at the end, and at most. */
    const memory = (plans: string, steps: number): [number, number] => {
      process.env["MLX_PLAN_CACHE"] = plans;
      // The view that `numbers` gives has a handle on its source beside it.
      const w = { w: mx.add(numbers([64, 64]), 0) };
      mx.eval(w.w);
      const step = mx.compile((a: A): A => {
        w.w = mx.subtract(w.w, mx.multiply(mx.matmul(a, w.w), 1e-3));
        return mx.sum(a);
      }, false, w, w);
      const once = (): void => {
        const old = w.w;
        const loss = step(x);
        old.dispose();
        mx.eval(loss, w.w);
        loss.dispose();
      };
      for (let i = 0; i < 3; i++) once();
      const active = mx.getActiveMemory();
      const start = openVulkan()?.memory.counters.active ?? active;
      mx.resetPeakMemory();
      for (let i = 0; i < steps; i++) once();
      // The peak of a device whose memory nobody took meanwhile counts from zero.
      const [end, peak] = [mx.getActiveMemory() - active, mx.getPeakMemory() - start];
      w.w.dispose();
      return [end, peak];
    };
    const [planned, plain] = [memory("1", 1000), memory("0", 3)];
    expect([planned[0], plain[0]]).toEqual([0, 0]);
    // Half an array of that size: temporaries that share one block may leave gaps.
    expect(planned[1] - plain[1]).toBeLessThan(8192);
    expect(counted()).toEqual({ made: 1, reused: 1002, refused: 0 });
  });
});

describe("a decode step of a model", () => {
  test("is one plan: one run of the threads or one submission per token, the generator's tokens", async () => {
    const { model } = await load(demo4bit);
    const want: number[] = [];
    for (const [token] of generateStep([300, 301, 302], model, { maxTokens: 20 })) want.push(token);
    const cache = makePromptCache(model);
    const tokens: number[] = [];
    for (const [token] of generateStep([300, 301, 302], model, { maxTokens: 1, promptCache: cache })) tokens.push(token);
    mx.eval(cache.map((c) => c.state));
    const step = mx.compile((token: A, position: A, length: A) => mx.argmax(model.nextLogits(token, cache, { position, length }), -1), false, cache as never, cache as never);
    const runs: number[] = [];
    /** Lists that the threads of the CPU ran, and that went to the GPU. */
    const lists = (): number => wasmBackend().pool.counters.lists + (openVulkan()?.counters.submissions ?? 0);
    while (tokens.length < 20) {
      for (const c of cache) c.reserve();
      const offset = cache[0]?.offset as number;
      const old = cache.map((c) => c.state);
      const [token, position, length] = [mx.array([[tokens[tokens.length - 1] as number]], mx.int32), mx.array([offset], mx.int32), mx.array([offset + 1], mx.int32)];
      const next = step(token, position, length);
      mx.dispose(old);
      const started = lists();
      mx.eval(next, cache.map((c) => c.state));
      runs.push(lists() - started);
      tokens.push(next.item() as number);
      for (const c of cache) c.advance();
    }
    expect(tokens).toEqual(want);
    expect(counted()).toEqual({ made: 1, reused: 18, refused: 0 });
    expect(new Set(runs.slice(1))).toEqual(new Set([1]));
  });
});
