/** Gradients of scaledDotProductAttention: against float64, against the definition by blocks, and without a matrix of scores in memory. */
import { afterEach, describe, expect, it, test } from "vitest";
import { core as mx } from "../src/index.ts";
import type { AttentionParams } from "../src/ops/attention-sizes.ts";
import { gradientsByBlocks } from "../src/ops/attention-vjp.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { numbers } from "./helpers/transform-cases.ts";

type A = mx.MxArray;
interface Shape {
  readonly B: number;
  readonly H: number;
  readonly Hkv: number;
  readonly Tq: number;
  readonly Tk: number;
  readonly D: number;
  readonly Dv: number;
}
interface Setting {
  readonly name: string;
  readonly shape: Shape;
  readonly mask?: "causal" | { readonly shape: readonly number[]; readonly bool?: true; readonly hideRow?: true };
  readonly sinks?: true;
}
const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const hidden = -3.4028234663852886e38;
const scale = 0.4;

const S = (B: number, H: number, Hkv: number, Tq: number, Tk: number, D: number, Dv: number): Shape => ({ B, H, Hkv, Tq, Tk, D, Dv });
const settings: Setting[] = [
  { name: "one head", shape: S(1, 1, 1, 5, 7, 8, 8) },
  { name: "odd sizes, groups", shape: S(2, 6, 2, 67, 130, 13, 7) },
  { name: "many heads per key head", shape: S(1, 14, 1, 9, 70, 16, 24) },
  { name: "causal", shape: S(2, 4, 2, 100, 100, 16, 16), mask: "causal" },
  { name: "causal after a cache", shape: S(1, 2, 1, 70, 200, 8, 8), mask: "causal" },
  { name: "causal, rows without a key", shape: S(1, 2, 1, 9, 6, 8, 8), mask: "causal" },
  { name: "bool mask", shape: S(2, 4, 2, 66, 65, 8, 12), mask: { shape: [2, 1, 66, 65], bool: true } },
  { name: "bool mask that hides all of a row", shape: S(1, 2, 2, 5, 9, 8, 8), mask: { shape: [5, 9], bool: true, hideRow: true } },
  { name: "additive mask", shape: S(2, 4, 2, 20, 70, 8, 8), mask: { shape: [4, 1, 70] } },
  { name: "full additive mask", shape: S(2, 2, 1, 11, 10, 8, 8), mask: { shape: [2, 2, 11, 10] } },
  { name: "sinks", shape: S(2, 4, 2, 33, 64, 8, 8), sinks: true },
  { name: "sinks, causal", shape: S(1, 6, 2, 40, 40, 8, 8), mask: "causal", sinks: true },
  { name: "sinks, additive mask", shape: S(2, 4, 2, 20, 30, 8, 8), mask: { shape: [2, 1, 20, 30] }, sinks: true },
  { name: "keys in ranges", shape: S(1, 1, 1, 40, 700, 8, 8), mask: "causal" },
];

interface Data {
  readonly inputs: A[];
  readonly gradient: A;
  /** Arguments behind v and scale, from the arrays behind v. */
  readonly rest: (extra: readonly A[]) => [A | "causal" | null, A | null];
  /** Additive float64 mask [B, H, Tq, Tk]; hidden where a bool or causal mask hides. */
  readonly mask: (b: number, h: number, i: number, j: number, s: number) => number;
}
function dataOf({ shape, mask, sinks }: Setting, dtype: mx.Dtype): Data {
  const { B, H, Hkv, Tq, Tk, D, Dv } = shape;
  const array = (seed: number, dims: number[]): A => mx.reshape(mx.array(numbers(seed, size(dims)), mx.float32), dims).astype(dtype);
  const inputs = [array(1, [B, H, Tq, D]), array(2, [B, Hkv, Tk, D]), array(3, [B, Hkv, Tk, Dv])];
  const isArray = typeof mask === "object";
  const bools = isArray && mask.bool ? numbers(4, size(mask.shape)).map((x, i) => x > -0.5 && !(mask.hideRow && i < Tk)) : undefined;
  const fixed = bools && mx.reshape(mx.array(bools), [...(mask as { shape: number[] }).shape]);
  if (isArray && !bools) inputs.push(array(4, [...mask.shape]));
  if (sinks) inputs.push(array(5, [H]));
  const values = isArray && !bools ? (inputs[3] as A).astype(mx.float32).reshape(-1).tolist() as number[] : undefined;
  const at = (...index: number[]): number => {
    const dims = (mask as { shape: number[] }).shape;
    return dims.reduce((p, n, d) => p * n + (n === 1 ? 0 : (index[d + 4 - dims.length] as number)), 0);
  };
  return {
    inputs,
    gradient: array(6, [B, H, Tq, Dv]),
    rest: (extra) => [mask === "causal" ? "causal" : (fixed ?? (isArray ? (extra[0] as A) : null)), sinks ? (extra[extra.length - 1] as A) : null],
    mask: (b, h, i, j, s) => {
      if (mask === "causal") return j <= Tk - Tq + i ? s : hidden;
      if (bools) return bools[at(b, h, i, j)] ? s : hidden;
      return values ? s + (values[at(b, h, i, j)] as number) : s;
    },
  };
}
const doubles = (x: A): number[] => x.astype(mx.float32).reshape(-1).tolist() as number[];

/** Plain float64 gradients, one row at a time: dq, dk, dv, then of the additive mask and of the sinks, if any. */
function expected(setting: Setting, data: Data): number[][] {
  const { B, H, Hkv, Tq, Tk, D, Dv } = setting.shape;
  const all = data.inputs.map(doubles);
  const [q, k, v] = all as [number[], number[], number[]];
  const g = doubles(data.gradient);
  const sinks = setting.sinks ? (all[all.length - 1] as number[]) : undefined;
  const maskShape = typeof setting.mask === "object" && !setting.mask.bool ? setting.mask.shape : undefined;
  const grads = all.map((x) => new Array<number>(x.length).fill(0));
  const bump = (list: number[] | undefined, i: number, x: number): void => {
    if (list) list[i] = (list[i] as number) + x;
  };
  for (let row = 0; row < B * H * Tq; row++) {
    const [b, h, i] = [Math.floor(row / (H * Tq)), Math.floor(row / Tq) % H, row % Tq];
    const kv = (b * Hkv + Math.floor(h / (H / Hkv))) * Tk;
    const dot = (x: number[], xi: number, y: number[], yi: number, n: number): number => Array.from({ length: n }, (_, e) => (x[xi + e] as number) * (y[yi + e] as number)).reduce((a, c) => a + c, 0);
    const s = Array.from({ length: Tk }, (_, j) => data.mask(b, h, i, j, scale * dot(q, row * D, k, (kv + j) * D, D)));
    const top = Math.max(...s, ...(sinks ? [sinks[h] as number] : []));
    const w = s.map((x) => Math.exp(x - top));
    const sink = sinks ? Math.exp((sinks[h] as number) - top) : 0;
    const total = w.reduce((a, c) => a + c, sink);
    const dp = s.map((_, j) => dot(g, row * Dv, v, (kv + j) * Dv, Dv));
    const mean = w.reduce((a, c, j) => a + (c / total) * (dp[j] as number), 0);
    if (sinks) bump(grads[grads.length - 1], h, -(sink / total) * mean);
    for (let j = 0; j < Tk; j++) {
      const p = (w[j] as number) / total;
      for (let e = 0; e < Dv; e++) bump(grads[2], (kv + j) * Dv + e, p * (g[row * Dv + e] as number));
      if (s[j] === hidden) continue;
      const ds = p * ((dp[j] as number) - mean);
      for (let e = 0; e < D; e++) {
        bump(grads[0], row * D + e, scale * ds * (k[(kv + j) * D + e] as number));
        bump(grads[1], (kv + j) * D + e, scale * ds * (q[row * D + e] as number));
      }
      if (maskShape) bump(grads[3], maskShape.reduce((a, n, d) => a * n + (n === 1 ? 0 : ([b, h, i, j][d + 4 - maskShape.length] as number)), 0), ds);
    }
  }
  return grads;
}
const gradients = ({ inputs, gradient, rest }: Data, count = inputs.length): A[] => {
  const fixed = inputs.slice(count);
  const f = (...xs: A[]): A => mx.fast.scaledDotProductAttention(xs[0] as A, xs[1] as A, xs[2] as A, scale, ...rest([...xs.slice(3), ...fixed]));
  return mx.vjp(f, inputs.slice(0, count), [gradient])[1];
};
/** Largest difference over the largest value: sums of products of either sign. */
function close(got: A, want: readonly number[], tolerance: number): void {
  const values = doubles(got);
  expect(values.length).toBe(want.length);
  const top = want.reduce((a, x) => Math.max(a, Math.abs(x)), 1e-3);
  const worst = values.reduce((a, x, i) => Math.max(a, Number.isNaN(x) ? Number.POSITIVE_INFINITY : Math.abs(x - (want[i] as number))), 0);
  expect(worst / top).toBeLessThan(tolerance);
}
/** Kernels that ran, by op. */
function kernelsOf(work: () => void): Set<string> {
  const seen = new Set<string>();
  setTracer({ recorded: (node, kernel) => void seen.add(`${node.op.name} ${kernel}`) });
  try {
    work();
  } finally {
    setTracer(undefined);
  }
  return seen;
}
const before = process.env["MLX_DISABLE"];
afterEach(() => {
  if (before === undefined) delete process.env["MLX_DISABLE"];
  else process.env["MLX_DISABLE"] = before;
});
const onGpu = mx.defaultDevice().type === "gpu";
const op = "scaledDotProductAttentionVjp";

describe.each(settings)("$name", (setting) => {
  // float32: errors of sums of up to 700 terms. 16-bit types: the output, from which the gradient of scores is computed, was rounded to 8 or 11 bits, and so are the results.
  it.each([["float32", 3e-6], ["bfloat16", 1.6e-2], ["float16", 2e-3]] as const)("%s, against float64", (name, tolerance) => {
    const data = dataOf(setting, mx[name]);
    const want = expected(setting, data);
    gradients(data).forEach((g, i) => close(g, want[i] as number[], tolerance));
    // Without the gradient of a mask.
    gradients(data, 3).forEach((g, i) => close(g, want[i] as number[], tolerance));
  });
  it("the kernel and the definition agree, and each runs when asked for", () => {
    const data = dataOf(setting, mx.float32);
    const results = ["", "attentionVjp/*"].map((off) => {
      process.env["MLX_DISABLE"] = off;
      let out: number[][] = [];
      const kernels = kernelsOf(() => {
        out = gradients(data, 3).map(doubles);
      });
      expect(kernels.has(`${op} ${off === "" && !onGpu ? "wasm/attentionVjp/tiles" : "composite"}`)).toBe(true);
      return out;
    });
    (results[0] as number[][]).forEach((x, i) => close(mx.array(x), (results[1] as number[][])[i] as number[], 3e-6));
  });
});

const paramsOf = ({ mask, sinks }: Setting): AttentionParams => ({ scale, mask: typeof mask === "object" ? "array" : (mask ?? "none"), length: false, sinks: sinks === true });
/** Inputs of the op of the gradient. */
function opInputs({ inputs, gradient, rest }: Data): A[] {
  const [q, k, v] = inputs as [A, A, A];
  const extra = rest(inputs.slice(3));
  return [q, k, v, mx.fast.scaledDotProductAttention(q, k, v, scale, ...extra), gradient, ...extra.filter((x) => x instanceof mx.array)];
}
/** Most bytes that were alive during `work` beyond those before it. */
function peakOf(work: () => void): number {
  const active = mx.getActiveMemory();
  mx.resetPeakMemory();
  work();
  return mx.getPeakMemory() - active;
}

describe("the definition by blocks", () => {
  it.each(settings.flatMap((s) => [300, 2000, 10000].map((most) => [s.name, most, s] as const)))("%s, blocks of %i scores, against float64", (_name, most, setting) => {
    const data = dataOf(setting, mx.float32);
    const want = expected(setting, data);
    const additive = typeof setting.mask === "object" && !setting.mask.bool;
    const got = gradientsByBlocks(opInputs(data), paramsOf(setting), additive, most);
    const list = [got.dq, got.dk, got.dv, ...(additive ? [got.mask as A] : []), ...(setting.sinks ? [mx.sum(got.sinks as A, [0, 2])] : [])];
    expect(list.length).toBe(want.length);
    list.forEach((g, i) => close(g, want[i] as number[], 3e-6));
  });
  it("only a few blocks are in memory at a time", () => {
    const data = dataOf({ name: "", shape: S(1, 2, 2, 512, 512, 8, 8) }, mx.float32);
    const inputs = opInputs(data);
    mx.eval(inputs);
    const most = 1 << 14;
    const peak = peakOf(() => {
      mx.eval(mx.tidy(() => {
        const { dq, dk, dv } = gradientsByBlocks(inputs, paramsOf({ name: "", shape: S(1, 2, 2, 512, 512, 8, 8) }), false, most);
        return [dq, dk, dv];
      }));
    });
    // Eight arrays of a block and the gradients, with the blocks of memory that they are rounded up to; the matrix has 2 * 512 * 512 scores, 32 blocks.
    expect(peak).toBeLessThan(8 * most * 4 + 12 * 2 * 512 * 8 * 4);
  });
});

test("MLX_CHECK computes the gradient a second time in float64 and finds no difference", () => {
  process.env["MLX_CHECK"] = "1";
  try {
    for (const setting of settings.filter((s) => s.shape.Tk <= 70)) {
      const data = dataOf(setting, mx.float32);
      expect(() => mx.eval(gradients(data, 3), setting.sinks ? gradients(data) : [])).not.toThrow();
    }
  } finally {
    delete process.env["MLX_CHECK"];
  }
});

describe("memory of the kernel", () => {
  it("2048 queries and keys: no matrix of scores", () => {
    using _scope = mx.stream(mx.cpu);
    const [T, H, D] = [2048, 8, 32];
    const [q, k, v, g] = [1, 2, 3, 4].map((seed) => mx.reshape(mx.array(numbers(seed, H * T * D), mx.float32), [1, H, T, D])) as [A, A, A, A];
    mx.eval(q, k, v, g);
    const peak = peakOf(() => mx.eval(mx.vjp((...xs) => mx.fast.scaledDotProductAttention(xs[0] as A, xs[1] as A, xs[2] as A, 0.2, "causal"), [q, k, v], [g])[1]));
    // Output, gradients and two copies of dq: 6 arrays of 2 MiB.
    expect(peak).toBeLessThan(16 << 20);
    expect(T * T * H * 4).toBe(128 << 20);
  });
});

describe("transforms of the gradient", () => {
  const shape = S(2, 2, 1, 4, 5, 8, 8);
  const loss = (q: A, k: A, v: A): A => mx.sum(mx.square(mx.fast.scaledDotProductAttention(q, k, v, scale, "causal")));
  it("second derivatives equal differences of first ones", () => {
    const { inputs } = dataOf({ name: "", shape }, mx.float32);
    const [q, k, v] = inputs as [A, A, A];
    const direction = mx.array(numbers(9, q.size), mx.float32).reshape(q.shape);
    const slope = (x: A): A => mx.sum(mx.multiply(mx.grad(loss)(x, k, v) as A, direction));
    const exact = doubles(mx.grad(slope)(q) as A);
    // Central differences in float32: about 1e-3 of the largest value.
    const h = 1e-2;
    const values = doubles(q);
    const want = values.map((_, i) => {
      const shifted = (by: number): number => slope(mx.array(values.map((x, j) => (i === j ? x + by : x)), mx.float32).reshape(q.shape)).item() as number;
      return (shifted(h) - shifted(-h)) / (2 * h);
    });
    close(mx.array(exact), want, 5e-3);
  });
  it("vmap of grad equals a loop", () => {
    const data = [1, 2, 3].map((i) => dataOf({ name: "", shape: { ...shape, B: 2 } }, mx.float32).inputs.map((x) => mx.multiply(x, i / 2)));
    const stacked = [0, 1, 2].map((n) => mx.stack(data.map((d) => d[n] as A)));
    const batched = mx.vmap((...xs: A[]) => mx.grad(loss, [0, 1, 2])(...xs) as A[])(...stacked) as A[];
    data.forEach((d, i) => {
      (mx.grad(loss, [0, 1, 2])(...d) as A[]).forEach((g, n) => close((batched[n] as A).index(i), doubles(g), 3e-6));
    });
  });
  it("no composite of the forward pass is made for its gradient", () => {
    const { inputs } = dataOf({ name: "", shape: S(1, 2, 1, 20, 20, 8, 8) }, mx.float32);
    const count = stats.composites;
    mx.eval(mx.grad(loss, [0, 1, 2])(...(inputs as [A, A, A])));
    expect(stats.composites - count).toBe(onGpu ? 1 : 0);
  });
});

describe.skipIf(mx.defaultDevice().type === "gpu")("statistics of rows", () => {
  const before = process.env["MLX_DISABLE"];
  afterEach(() => {
    if (before === undefined) delete process.env["MLX_DISABLE"];
    else process.env["MLX_DISABLE"] = before;
  });
  const named = (name: string): Setting => settings.find((s) => s.name === name) as Setting;

  it.each(["odd sizes, groups", "causal", "causal after a cache", "causal, rows without a key", "bool mask", "sinks, causal"])("%s: those that attention keeps give the gradients that new ones give", (name) => {
    const setting = { ...named(name), shape: { ...named(name).shape, Tq: Math.max(8, named(name).shape.Tq) } };
    for (const dtype of [mx.float32, mx.bfloat16]) {
      const { inputs, rest, gradient } = dataOf(setting, dtype);
      const f = mx.valueAndGrad((q: A, k: A, v: A, ...extra: A[]) => mx.sum(mx.multiply(gradient, mx.fast.scaledDotProductAttention(q, k, v, scale, ...rest(extra)))), [0, 1, 2]);
      const results = ["", "wasm/attention/statistics"].map((disabled) => {
        process.env["MLX_DISABLE"] = disabled;
        const out = f(...(inputs as [A, A, A]));
        const steps = mx.plan(out).steps.filter((s) => s.op.startsWith("scaledDotProductAttention"));
        // Attention has a second output and its gradient one more input.
        expect(steps.map((s) => s.writes.length), "the plan keeps statistics").toEqual(disabled ? [1, setting.sinks ? 4 : 3] : [2, setting.sinks ? 4 : 3]);
        return [out[0], ...out[1]].map((x) => x.astype(mx.float32).tolist());
      });
      expect(results[0]).toEqual(results[1]);
    }
  });

  it("attention that was computed before its gradient keeps none", () => {
    process.env["MLX_DISABLE"] = "";
    const { inputs, gradient } = dataOf(named("causal"), mx.float32);
    const [outs, grads] = mx.vjp((q: A, k: A, v: A) => mx.fast.scaledDotProductAttention(q, k, v, scale, "causal"), inputs, [gradient]);
    mx.eval(outs);
    expect(mx.plan(grads).steps.filter((s) => s.op.startsWith("scaledDotProductAttention")).map((s) => s.writes.length)).toEqual([3]);
  });
});
