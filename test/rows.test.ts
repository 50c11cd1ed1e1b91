/**
 * Row groups: reductions of rows compiled together with the elementwise ops around them. Two expectations: float64 written plainly, within a tolerance of the dtype; and
 * the same graph without fusion (MLX_FUSE=0), bit for bit, because kernels of both kinds add up in the same order and round at the same places.
 */
import { afterEach, describe, expect, test, vi } from "vitest";
import { core as mx, nn } from "../src/index.ts";
import { Recording, overwrite } from "../src/schedule/replay.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { randomSource } from "./helpers/check.ts";
import { asIfUnset } from "./helpers/flags.ts";

// What these kernels are compared with is chosen below.
asIfUnset("MLX_DISABLE");

type A = mx.MxArray;
const device = mx.defaultDevice();
afterEach(() => vi.unstubAllEnvs());

function numbersOf(a: A): number[] {
  const flat = mx.tidy(() => a.astype(mx.float64).reshape([-1]).tolist());
  return flat as number[];
}
/** Numbers as text, so that NaN and the sign of zero count. */
const bitsOf = (a: A): string[] => numbersOf(a).map((x) => (Object.is(x, -0) ? "-0" : String(x)));
const list = (y: A | A[]): A[] => (Array.isArray(y) ? y : [y]);

/** Results with row groups, of which there must be `groups` at least, and without fusion: equal bit for bit, or relative to 1 within a tolerance. */
function same(name: string, f: () => A | A[], groups = 1, tolerance = 0): string[][] {
  const before = stats.rowGroups;
  const fused = mx.tidy(() => {
    const ys = list(f());
    mx.eval(ys);
    return ys.map(bitsOf);
  });
  expect(stats.rowGroups - before, `${name}: groups`).toBeGreaterThanOrEqual(groups);
  vi.stubEnv("MLX_FUSE", "0");
  const plain = mx.tidy(() => list(f()).map(bitsOf));
  vi.stubEnv("MLX_FUSE", undefined);
  if (tolerance === 0) expect(fused, name).toEqual(plain);
  else fused.flat().forEach((v, i) => v === plain.flat()[i] || expect(Math.abs(Number(v) - Number(plain.flat()[i])) / Math.max(1, Math.abs(Number(v))), name).toBeLessThanOrEqual(tolerance));
  return fused;
}
const kernelsOf = (run: () => void): string[] => {
  const seen: string[] = [];
  setTracer({ recorded: (_node, kernel) => void seen.push(kernel) });
  try {
    run();
  } finally {
    setTracer(undefined);
  }
  return seen;
};

const random = randomSource(3);
const floats = (n: number): Float32Array => Float32Array.from({ length: n }, () => 6 * random() - 3);
function made(shape: readonly number[], dtype: mx.Dtype = mx.float32): A {
  const x = mx.reshape(mx.array(floats(shape.reduce((a, b) => a * b, 1))), [...shape]).astype(dtype);
  mx.eval(x);
  return x;
}
/** The rows of an array in float64. */
function rowsOf(x: A): number[][] {
  const all = numbersOf(x);
  const n = x.shape[x.ndim - 1] as number;
  return Array.from({ length: all.length / n }, (_, r) => all.slice(r * n, (r + 1) * n));
}
const total = (xs: number[]): number => xs.reduce((a, b) => a + b, 0);

/** Programs on the rows of x: what they compute, and the same in float64 for a row. Errors relative to `scale`, in units of the dtype's rounding. */
interface Program {
  readonly run: (x: A) => A;
  readonly row: (x: number[]) => number[];
}
const programs: Record<string, Program> = {
  softmax: {
    run: (x) => {
      const e = mx.exp(mx.subtract(x, mx.max(x, -1, true)));
      return mx.divide(e, mx.sum(e, -1, true));
    },
    row: (x) => {
      const m = Math.max(...x);
      const e = x.map((v) => Math.exp(v - m));
      return e.map((v) => v / total(e));
    },
  },
  logsumexp: {
    run: (x) => {
      const m = mx.max(x, -1, true);
      return mx.add(mx.log(mx.sum(mx.exp(mx.subtract(x, m)), -1)), mx.squeeze(m, -1));
    },
    row: (x) => [Math.log(total(x.map(Math.exp)))],
  },
  "layer norm": {
    run: (x) => {
      const d = mx.subtract(x, mx.mean(x, -1, true));
      return mx.multiply(d, mx.rsqrt(mx.add(mx.mean(mx.square(d), -1, true), 0.5)));
    },
    row: (x) => {
      const m = total(x) / x.length;
      const s = Math.sqrt(total(x.map((v) => (v - m) ** 2)) / x.length + 0.5);
      return x.map((v) => (v - m) / s);
    },
  },
  norm: { run: (x) => mx.sqrt(mx.sum(mx.square(x), -1, true)), row: (x) => [Math.sqrt(total(x.map((v) => v * v)))] },
  variance: {
    run: (x) => mx.variance(x, -1),
    row: (x) => {
      const m = total(x) / x.length;
      return [total(x.map((v) => (v - m) ** 2)) / x.length];
    },
  },
  "mean of absolute values": { run: (x) => mx.mean(mx.abs(x), -1), row: (x) => [total(x.map(Math.abs)) / x.length] },
  "least of squares": { run: (x) => mx.min(mx.square(x), -1), row: (x) => [Math.min(...x.map((v) => v * v))] },
};
/** Rounding of a result, and room for the intermediate ones, which are rounded to the dtype as well. */
const roundings: Record<string, number> = { float64: 2 ** -44, float32: 2 ** -18, float16: 2 ** -7, bfloat16: 2 ** -4 };

describe.skipIf(device.type === "gpu")("row groups", () => {
  const lengths = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 67, 1029];
  test.each(["float32", "float64", "float16", "bfloat16"] as const)("%s: programs on rows of all lengths", (name) => {
    for (const n of lengths) {
      const x = made([3, n], mx[name]);
      for (const [what, p] of Object.entries(programs)) {
        const [got] = same(`${what} of rows of ${n}`, () => p.run(x)) as [string[]];
        const want = rowsOf(x).flatMap(p.row);
        got.forEach((v, i) => expect(Math.abs(Number(v) - (want[i] as number)), `${what} of rows of ${n}, ${name}, element ${i}`).toBeLessThanOrEqual((roundings[name] as number) * Math.max(1, Math.abs(want[i] as number))));
      }
      x.dispose();
    }
  });
  test.each(["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"] as const)("%s: reductions of formulas", (name) => {
    for (const n of [1, 5, 16, 83]) {
      const x = made([4, n], mx.float32);
      const y = mx.abs(mx.multiply(x, 30)).astype(mx[name]);
      mx.eval(y);
      const t = mx.add(y, y);
      for (const [what, f] of Object.entries({ sum: mx.sum, prod: mx.prod, max: mx.max, min: mx.min, any: mx.any, all: mx.all })) {
        same(`${what} of ${n}`, () => f(mx.add(y, y), -1));
        same(`${what} of all ${n}`, () => f(mx.minimum(y, y)));
      }
      const wanted = rowsOf(t).map((row) => row.reduce((a, b) => Math.max(a, b)));
      expect(numbersOf(mx.max(mx.add(y, y), -1))).toEqual(wanted);
      const before = stats.rowGroups;
      expect(numbersOf(mx.argmax(mx.add(y, y), -1))).toEqual(rowsOf(t).map((row, r) => row.indexOf(wanted[r] as number)));
      expect(stats.rowGroups - before).toBe(y.itemsize === 8 ? 0 : 1);
    }
  });
  test("arguments of extremes: the first of equals; a NaN wins as the first element only", () => {
    const rows = [[1, 3, 3, 2], [Number.NaN, 9, 1, 1], [0, Number.NaN, 5, 5], [-1, -1, -1, -1], [Number.NEGATIVE_INFINITY, Number.NaN, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]];
    for (const pad of [0, 1, 13, 61]) {
      const x = mx.array(rows.map((r) => [...r, ...new Array<number>(pad).fill(-7)]));
      same("argmax", () => mx.argmax(mx.multiply(x, 2), -1));
      same("argmin", () => mx.argmin(mx.multiply(x, -2), -1));
      expect(mx.argmax(mx.multiply(x, 2), -1).tolist()).toEqual([1, 0, 2, 0, pad > 0 ? 4 : 0]);
    }
    const late = new Array<number>(1000).fill(0);
    for (const at of [0, 1, 15, 16, 17, 31, 500, 998, 999]) {
      const x = mx.array(late.map((_, i) => (i === at ? 5 : 0)));
      expect(same("argmax of all", () => mx.argmax(mx.multiply(x, 3)))).toEqual([[String(at)]]);
    }
  });
  test("NaN and infinities", () => {
    const inf = Number.POSITIVE_INFINITY;
    for (const special of [[Number.NaN], [inf], [-inf], [inf, -inf], [-0], [-inf, Number.NaN]]) {
      for (const n of [2, 4, 19, 130]) {
        const x = mx.array([0, 1].map((r) => Array.from({ length: n }, (_, i) => (i % 3 === r ? (special[i % special.length] as number) : i / n))));
        for (const [what, p] of Object.entries(programs)) same(`${what} with ${special}`, () => p.run(x));
        for (const f of [mx.max, mx.min]) same("extreme", () => f(mx.negative(x), -1));
      }
    }
    const none = mx.array([[-inf, -inf], [1, 2]]);
    expect(numbersOf(mx.max(mx.add(none, none), -1))).toEqual([-inf, 4]);
  });
  test("long rows: in chunks, with partial results", () => {
    for (const dtype of [mx.float32, mx.bfloat16]) {
      for (const shape of [[40001], [2, 16385], [3, 32768]]) {
        const x = made(shape, dtype);
        for (const [what, p] of Object.entries(programs)) same(`${what} of ${shape}`, () => p.run(x));
      }
    }
    const x = made([70003]);
    const want = total(numbersOf(x).map((v) => v * v)) / 70003;
    expect(Math.abs(numbersOf(mx.mean(mx.square(x)))[0] as number - want)).toBeLessThan(2 ** -18);
    same("any and all", () => [mx.any(mx.greater(x, 2.9999)), mx.all(mx.less(x, 2.5)), mx.prod(mx.add(mx.multiply(x, 1e-5), 1))], 2);
  });
  test("all elements of arrays that lie in any way; several row dimensions", () => {
    const x = made([6, 70, 65]);
    const bias = made([65]);
    const plain = numbersOf(x);
    const b = numbersOf(bias);
    const near = (got: A, want: number): void => expect(Math.abs(got.item() as number - want) / want).toBeLessThan(2 ** -18);
    near(mx.sum(mx.square(mx.add(x, bias))), total(plain.map((v, i) => (v + (b[i % 65] as number)) ** 2)));
    near(mx.sum(mx.square(mx.transpose(x, [2, 0, 1]))), total(plain.map((v) => v * v)));
    const before = stats.rowGroups;
    const rows = mx.mean(mx.square(mx.subtract(x, bias)), [1, 2]);
    mx.eval(rows);
    expect(stats.rowGroups - before).toBe(1);
    numbersOf(rows).forEach((v, r) => {
      const want = total(plain.slice(r * 4550, (r + 1) * 4550).map((y, i) => (y - (b[i % 65] as number)) ** 2)) / 4550;
      expect(Math.abs(v - want) / want).toBeLessThan(2 ** -18);
    });
  });
  test("inputs that are strided, transposed, reversed or broadcast by row or column", () => {
    const base = made([8, 66]);
    const forms: Record<string, A> = {
      sliced: base.index(mx.Slice(1, 7), mx.Slice(2, 61)),
      transposed: mx.transpose(base),
      reversed: base.index(mx.Slice(), mx.Slice(null, null, -1)),
      strided: base.index(mx.Slice(0, 8, 2), mx.Slice(1, 66, 3)),
      "three dimensions": mx.transpose(base.reshape([2, 4, 66]), [1, 0, 2]),
      broadcast: mx.broadcastTo(made([66]), [5, 66]),
    };
    // Kernels for reductions alone take strided rows in another order.
    const close = 2 ** -18;
    for (const [name, x] of Object.entries(forms)) {
      const [rows, n] = [x.shape[x.ndim - 2] as number, x.shape[x.ndim - 1] as number];
      const [weight, scale] = [made([n]), made([rows, 1])];
      for (const [what, p] of Object.entries(programs)) {
        const [got] = same(`${what}, ${name}`, () => p.run(x), 1, close) as [string[]];
        rowsOf(x).flatMap(p.row).forEach((v, i) => expect(Math.abs(Number(got[i]) - v), `${what}, ${name}`).toBeLessThan(2 ** -16 * Math.max(1, Math.abs(v))));
      }
      same(`weights, ${name}`, () => mx.sum(mx.multiply(mx.multiply(x, weight), scale), -1), 1, close);
      same(`weights behind, ${name}`, () => mx.multiply(mx.multiply(x, mx.rsqrt(mx.mean(mx.square(x), -1, true))), weight), 1, close);
      // A vector as long as there are rows, that runs along the row all the same.
      const square = x.index("...", mx.Slice(0, rows));
      const vector = made([square.shape[square.ndim - 1] as number]);
      same(`a vector of rows, ${name}`, () => mx.sum(mx.multiply(square, vector), -1), 1, close);
    }
  });
  test("a sum without kept dimensions does not run along its rows where it is read along them", () => {
    const x = made([5, 5]);
    const [got] = same("columns", () => mx.subtract(x, mx.sum(mx.square(x), -1))) as [string[]];
    const sums = rowsOf(x).map((r) => total(r.map((v) => v * v)));
    rowsOf(x).flat().forEach((v, i) => expect(Number(got[i])).toBeCloseTo(v - (sums[i % 5] as number), 4));
    const y = made([4, 4]);
    same("both ways", () => {
      const s = mx.sum(mx.square(y), -1);
      return mx.add(mx.multiply(y, s), mx.expandDims(mx.exp(s), -1));
    });
  });

  test("what others read is stored as well", () => {
    const x = made([6, 40]);
    const run = (): A[] => {
      const m = mx.max(x, -1, true);
      const e = mx.exp(mx.subtract(x, m));
      const s = mx.sum(e, -1, true);
      return [mx.divide(e, s), e, m, s];
    };
    const before = stats.storedNodes;
    same("softmax and its parts", run);
    expect(stats.storedNodes - before).toBe(3);
    const kept = run();
    mx.eval(kept[0] as A);
    kept.forEach((a, i) => expect(bitsOf(a)).toEqual(bitsOf(mx.tidy(() => run()[i] as A))));
    // A reader behind the group that is not evaluated with it.
    const t = mx.square(x);
    const later = mx.exp(mx.negative(t));
    const sum = mx.sum(t, -1);
    t.dispose();
    mx.eval(sum);
    expect(numbersOf(later)[7]).toBeCloseTo(Math.exp(-((numbersOf(x)[7] as number) ** 2)), 6);
  });
  test("a group ends at what the rest of the graph needs in between", () => {
    const x = made([4, 33]);
    same("cumulative sums inside", () => {
      const e = mx.exp(x);
      return mx.divide(mx.cumsum(e, -1), mx.sum(mx.add(e, 1), -1, true));
    }, 0);
    const target = mx.array([3, 0, 32, 7], mx.int32);
    const [loss] = same("cross entropy by hand", () => {
      const moved = mx.subtract(x, mx.max(x, -1, true));
      const score = mx.squeeze(mx.takeAlongAxis(moved, mx.expandDims(target, -1), -1), -1);
      return mx.mean(mx.subtract(mx.log(mx.sum(mx.exp(moved), -1)), score));
    }) as [string[]];
    const want = total(rowsOf(x).map((r, i) => Math.log(total(r.map(Math.exp))) - (r[(target.tolist() as number[])[i] as number] as number))) / 4;
    expect(Number(loss[0])).toBeCloseTo(want, 5);
  });
  test("more operands than a kernel takes", () => {
    const xs = Array.from({ length: 20 }, () => made([3, 10]));
    const [got] = same("sum of 20", () => mx.sum(xs.reduce((a, b) => mx.add(a, b)), -1)) as [string[]];
    rowsOf(xs.reduce((a, b) => mx.add(a, b))).forEach((r, i) => expect(Number(got[i])).toBeCloseTo(total(r), 3));
  });
  test("logsumexp joins the ops around it; alone it keeps its own kernel, which adds up in another order", () => {
    for (const [dtype, tolerance] of [[mx.float32, 2 ** -20], [mx.float64, 2 ** -48], [mx.bfloat16, 2 ** -7], [mx.float16, 2 ** -10]] as const) {
      for (const shape of [[4, 1], [3, 67], [5, 1000], [2, 16400]]) {
        const x = made(shape, dtype);
        const [got] = same(`logsumexp ${dtype} ${shape}`, () => mx.logsumexp(mx.multiply(x, 2), -1), 1, tolerance) as [string[]];
        rowsOf(mx.multiply(x, 2)).forEach((r, i) => expect(Math.abs(Number(got[i]) - Math.log(total(r.map(Math.exp))))).toBeLessThanOrEqual(8 * tolerance));
      }
    }
    const inf = Number.POSITIVE_INFINITY;
    const x = mx.array([[-inf, -inf, -inf], [1, inf, -inf], [Number.NaN, 1, 2], [300, 300, 300], [-300, -300, -300]]);
    const [got] = same("special values", () => mx.logsumexp(mx.negative(mx.negative(x)), -1), 1, Number.POSITIVE_INFINITY) as [string[]];
    expect(got.slice(0, 3)).toEqual(["-Infinity", "Infinity", "NaN"]);
    expect(Math.abs(Number(got[3]) - 300 - Math.log(3))).toBeLessThan(1e-4);
    expect(kernelsOf(() => mx.eval(mx.logsumexp(x, -1)))).toEqual(["wasm/softmax/logsumexp"]);
    const targets = mx.array([1, 0, 36, 5], mx.int32);
    const logits = made([4, 37]);
    const [loss] = same("cross entropy", () => nn.losses.crossEntropy(logits, targets), 1, 2 ** -20) as [string[]];
    rowsOf(logits).forEach((r, i) => expect(Number(loss[i])).toBeCloseTo(Math.log(total(r.map(Math.exp))) - (r[(targets.tolist() as number[])[i] as number] as number), 5));
    expect(kernelsOf(() => mx.eval(mx.tidy(() => nn.losses.crossEntropy(logits, targets)))).filter((k) => k !== "view")).toEqual(["wasm/gather/takeAlongAxis", "wasm/generated-rows"]);
  });
  test("losses", () => {
    const [p, t] = [made([9, 31]), made([9, 31])];
    const [a, b] = [numbersOf(p), numbersOf(t)];
    const each = (f: (x: number, y: number) => number): number => total(a.map((x, i) => f(x, b[i] as number))) / a.length;
    const cases: [string, () => A, number][] = [
      ["mse", () => nn.losses.mseLoss(p, t), each((x, y) => (x - y) ** 2)],
      ["l1", () => nn.losses.l1Loss(p, t), each((x, y) => Math.abs(x - y))],
      ["smooth l1", () => nn.losses.smoothL1Loss(p, t), each((x, y) => (Math.abs(x - y) < 1 ? (x - y) ** 2 / 2 : Math.abs(x - y) - 0.5))],
      ["huber", () => nn.losses.huberLoss(p, t, 1, "mean"), each((x, y) => (Math.abs(x - y) <= 1 ? (x - y) ** 2 / 2 : Math.abs(x - y) - 0.5))],
      ["kl", () => nn.losses.klDivLoss(p, t, -1, "mean"), (each((x, y) => Math.exp(y) * (y - x)) * 31)],
    ];
    for (const [name, f, want] of cases) expect(Number(same(name, f)[0]?.[0]), name).toBeCloseTo(want, 4);
  });
  test("gradients", () => {
    const x = made([5, 37]);
    const w = made([37]);
    for (const [what, p] of Object.entries(programs)) {
      const loss = (y: A): A => mx.sum(mx.square(mx.multiply(p.run(y), 0.5)));
      same(`gradient of ${what}`, () => mx.grad(loss)(x) as A);
    }
    const step = mx.valueAndGrad((y: A, v: A) => mx.mean(mx.square(mx.multiply(mx.fast.layerNorm(y, v, null, 1e-5), y))), [0, 1]);
    same("layer norm's gradient", () => {
      const [value, grads] = step(x, w) as unknown as [A, A[]];
      return [value, ...grads];
    });
  });

  test("nothing of a group stays behind; inputs that nobody needs become its results", () => {
    const x = made([64, 256]);
    const handles = mx.getWrappersCount();
    const active = mx.getActiveMemory();
    for (let i = 0; i < 3; i++) {
      const y = mx.tidy(() => programs.softmax?.run(mx.add(x, i)) as A);
      mx.eval(y);
      y.dispose();
    }
    expect([mx.getWrappersCount(), mx.getActiveMemory()]).toEqual([handles, active]);
    const before = stats.donations;
    const scaled = (): A => mx.multiply(mx.cumsum(x, 0), mx.rsqrt(mx.mean(mx.square(x), -1, true)));
    const y = mx.tidy(scaled);
    mx.eval(y);
    expect(stats.donations - before).toBe(1);
    vi.stubEnv("MLX_FUSE", "0");
    expect(bitsOf(y)).toEqual(mx.tidy(() => bitsOf(scaled())));
  });
  test("empty arrays and rows", () => {
    expect(mx.sum(mx.square(mx.zeros([3, 0])), -1).tolist()).toEqual([0, 0, 0]);
    expect(mx.sum(mx.square(mx.zeros([0, 3])), -1).shape).toEqual([0]);
    expect(mx.prod(mx.add(mx.zeros([2, 0]), 1), -1).tolist()).toEqual([1, 1]);
    expect(mx.mean(mx.square(mx.zeros([0]))).item()).toBeNaN();
    expect(mx.subtract(mx.zeros([0, 3]), mx.max(mx.zeros([0, 3]), -1, true)).shape).toEqual([0, 3]);
  });
  test("recordings run groups again over new values", () => {
    const x = made([4, 24]);
    const run = (): A => programs["layer norm"]?.run(mx.multiply(x, 2)) as A;
    const y = mx.tidy(run);
    const recording = Recording.evaluate(y);
    expect(recording.refused).toBeUndefined();
    overwrite(x, floats(96));
    recording.run();
    expect(bitsOf(y)).toEqual(mx.tidy(() => bitsOf(run())));
    recording.dispose();
  });
  test("compiled functions", () => {
    const f = mx.compile((x: A) => programs.softmax?.run(x) as A);
    for (const rows of [2, 5]) {
      const x = made([rows, 12]);
      expect(bitsOf(f(x))).toEqual(mx.tidy(() => bitsOf(programs.softmax?.run(x) as A)));
    }
  });

  test("reports name the kernel; switches close it", () => {
    const x = made([4, 20]);
    const run = (): A => programs.softmax?.run(x) as A;
    const evaluate = (): void => mx.eval(mx.tidy(run));
    expect(kernelsOf(evaluate)).toEqual(["wasm/generated-rows"]);
    expect(mx.explain(mx.tidy(run))).toMatch(/^divide with sum exp subtract max: float32\(4,20\) -> float32\(4,20\) \[cpu\]\n {2}cpu: wasm\/generated-rows$/);
    const want = mx.tidy(() => bitsOf(run()));
    for (const [flag, value, others] of [["MLX_DISABLE", "wasm/generated-rows", "wasm/generated"], ["MLX_DISABLE", "wasm/gen_rows", "wasm/generated"], ["MLX_DISABLE", "wasm/gen_*,vulkan/gen_*", "interpreter"], ["MLX_DISABLE", "wasm/generated*", "interpreter"], ["MLX_FUSE", "0", "wasm/generated"]] as const) {
      vi.stubEnv(flag, value);
      const kernels = kernelsOf(evaluate);
      expect(kernels).not.toContain("wasm/generated-rows");
      expect(kernels).toContain(others);
      expect(mx.tidy(() => bitsOf(run()))).toEqual(want);
      expect(mx.explain(mx.tidy(run))).not.toContain("generated-rows");
      vi.stubEnv(flag, undefined);
    }
  });
  test("a reduction alone keeps its own kernel", () => {
    const x = made([4, 20]);
    expect(kernelsOf(() => mx.tidy(() => mx.eval(mx.sum(x, -1), mx.sqrt(mx.max(x, -1)))))).toEqual(["wasm/reduce/sum", "wasm/reduce/max", "wasm/generated"]);
  });
});
