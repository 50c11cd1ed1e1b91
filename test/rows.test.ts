/**
 * Row groups: reductions of rows compiled together with the elementwise ops around them. Two expectations: float64 written plainly, within a tolerance of the dtype; and
 * the same graph without fusion (MLX_FUSE=0), bit for bit, because kernels of both kinds add up in the same order and round at the same places.
 */
import { afterEach, describe, expect, test, vi } from "vitest";
import { rowsLaunch } from "../src/codegen/rows-wasm.ts";
import { float32 } from "../src/core/dtype.ts";
import { type Value, expr as e } from "../src/core/expr.ts";
import type { GeneratedKernel, Launch } from "../src/core/op.ts";
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
  else fused.forEach((ys, k) => expect(farthest((plain[k] as string[]).map(Number), ys.map(Number)), name).toBeLessThanOrEqual(tolerance));
  return fused;
}
/** Greatest error, relative to numbers above 1; infinite where one is not a number and the other is. */
function farthest(got: readonly number[], want: readonly number[]): number {
  expect(got).toHaveLength(want.length);
  return want.reduce((most, v, i) => {
    const x = got[i] as number;
    const error = Object.is(x, v) || (x === 0 && v === 0) ? 0 : Math.abs(x - v) / Math.max(1, Math.abs(v));
    return Math.max(most, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
  }, 0);
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

const scaled = (x: number[], y: number[]): number[] => x.map((v, i) => v / 2 + (y[i] as number));
const softmaxOf = (x: number[]): number[] => {
  const m = Math.max(...x);
  const e = x.map((v) => Math.exp(v - m));
  const sum = total(e);
  return e.map((v) => v / sum);
};
const rmsOf = (x: number[]): number[] => {
  const root = Math.sqrt(total(x.map((u) => u * u)) / x.length + 0.25);
  return x.map((v) => v / root);
};
const centredOf = (x: number[]): number[] => {
  const mean = total(x) / x.length;
  return x.map((v) => v - mean);
};
/** Softmax and norms with ops before and behind them. */
const joined: Record<string, { readonly run: (x: A, y: A, w: A, b: A) => A; readonly row: (x: number[], y: number[], w: number[], b: number[]) => number[]; readonly dear?: boolean }> = {
  "softmax of a scaled and masked row": { run: (x, y) => mx.softmax(mx.add(mx.multiply(x, 0.5), y), -1), row: (x, y) => softmaxOf(scaled(x, y)), dear: true },
  "softmax with a factor behind": { run: (x, y) => mx.multiply(mx.softmax(x, -1), y), row: (x, y) => softmaxOf(x).map((v, i) => v * (y[i] as number)), dear: true },
  "rmsNorm of a sum": { run: (x, y, w) => mx.fast.rmsNorm(mx.add(mx.multiply(x, 0.5), y), w, 0.25), row: (x, y, w) => rmsOf(scaled(x, y)).map((v, i) => v * (w[i] as number)) },
  "rmsNorm without a weight, silu behind": { run: (x) => nn.silu(mx.fast.rmsNorm(x, null, 0.25)), row: (x) => rmsOf(x).map((v) => v / (1 + Math.exp(-v))), dear: true },
  "layerNorm, a product behind": {
    run: (x, y, w, b) => mx.multiply(mx.fast.layerNorm(x, w, b, 0.25), y),
    row: (x, y, w, b) => rmsOf(centredOf(x)).map((v, i) => (v * (w[i] as number) + (b[i] as number)) * (y[i] as number)),
  },
  "layerNorm with a bias alone, of a difference": { run: (x, y, _w, b) => mx.fast.layerNorm(mx.add(mx.multiply(x, 0.5), y), null, b, 0.25), row: (x, y, _w, b) => rmsOf(centredOf(scaled(x, y))).map((v, i) => v + (b[i] as number)) },
  "the greatest of softmax": { run: (x) => mx.max(mx.softmax(x, -1), -1), row: (x) => [Math.max(...softmaxOf(x))], dear: true },
};

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
  test("the greatest x - max(x) is not looked for again", () => {
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    const special = [[1, inf, 2], [inf, inf, -inf], [-inf, -inf, -inf], [-inf, 3, -inf], [nan, 1, 2], [0, -0, -0], [-1e-40, -3e38, 3e38]];
    const rows = mx.array(Float32Array.from(special.flatMap((r) => Array.from({ length: 70 }, (_, i) => r[i % 3] as number)))).reshape([special.length, 70]);
    for (const x of [rows, made([3, 700])]) {
      same("second maximum", () => {
        const moved = mx.subtract(x, mx.max(x, -1, true));
        const second = mx.max(moved, -1, true);
        return [second, mx.subtract(mx.log(mx.sum(mx.exp(mx.subtract(moved, second)), -1, true)), mx.max(mx.multiply(moved, 2), -1, true))];
      });
    }
    const [x, m, z, s] = [0, 1, 2, 3].map((i) => e.input(i, float32)) as [Value, Value, Value, Value];
    const bytes = (second: Value): number => {
      const reduces = [x, second, e.exp(e.sub(e.sub(x, m), z))].map((value, k) => ({ rule: k < 2 ? ("max" as const) : ("sum" as const), value, dtype: float32 }));
      const launch = rowsLaunch({ shape: [8, 700], inputs: [{ dtype: float32, strides: [700, 1] }], reduces, outputs: [{ dtype: float32, value: e.add(s, z), perRow: true }], expr: e });
      return ((launch as Launch).steps[0]?.entry as GeneratedKernel).bytes().length;
    };
    expect(bytes(e.sub(x, m))).toBeLessThan(0.8 * bytes(e.sub(m, x)));
  });
  test("long rows: in chunks, with partial results", () => {
    for (const dtype of [mx.float32, mx.bfloat16]) {
      for (const shape of [[40001], [2, 16385], [3, 32768]]) {
        const x = made(shape, dtype);
        // The exponentials of softmax would be computed twice: they are left to a kernel of their own.
        for (const [what, p] of Object.entries(programs)) same(`${what} of ${shape}`, () => mx.tidy(() => p.run(x)), what === "softmax" ? 0 : 1);
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
    expect(kernelsOf(() => mx.eval(mx.tidy(() => nn.losses.crossEntropy(logits, targets)))).filter((k) => k !== "view")).toEqual(["wasm/generated-rows"]);
  });
  test("one element of each row: indices from the end and beyond it, elements that are computed, strided, kept, not finite", () => {
    const n = 40;
    const base = made([n, 6]);
    const places = [0, n - 1, -1, -n, 17, 7];
    const inf = Number.POSITIVE_INFINITY;
    const special = mx.array(places.map((_, r) => Array.from({ length: n }, (_, i) => [Number.NaN, inf, -inf, -0][(r + i) % 4] as number)));
    for (const kind of [mx.int32, mx.int8, mx.uint32]) {
      const index = mx.array(places.map((p) => (kind === mx.uint32 && p < 0 ? p + n : p)), mx.int32).astype(kind).reshape([6, 1]);
      mx.eval(index);
      for (const [name, x] of [["transposed", mx.transpose(base)], ["bfloat16", made([6, n], mx.bfloat16)], ["not finite", special]] as const) {
        same(`of a product, ${name}`, () => mx.squeeze(mx.takeAlongAxis(mx.multiply(x, 3), index, -1), -1));
        same(`of an exponential that is kept, ${name}`, () => {
          const e = mx.exp(x);
          return [mx.add(mx.takeAlongAxis(e, index, -1), mx.sum(e, -1, true)), mx.divide(e, mx.sum(e, -1, true))];
        }, 1, x.dtype === mx.bfloat16 ? 2 ** -6 : 2 ** -18);
      }
    }
    const x = mx.transpose(base);
    const rows = rowsOf(x);
    const [at] = same("the greatest, by its place", () => mx.takeAlongAxis(mx.multiply(x, -2), mx.expandDims(mx.argmax(mx.multiply(x, -2), -1), -1), -1)) as [string[]];
    rows.forEach((r, i) => expect(Number(at[i])).toBeCloseTo(-2 * Math.min(...r), 5));
    // As in the kernel for indices: beyond the ends counts as the ends.
    const beyond = mx.array([n, 1000, -n - 1, -1000, 2 ** 31 - 1, -(2 ** 31)], mx.int32).reshape([6, 1]);
    const [ends] = same("beyond", () => mx.takeAlongAxis(mx.multiply(x, 2), beyond, -1)) as [string[]];
    rows.forEach((r, i) => expect(Number(ends[i])).toBeCloseTo(2 * (r[[n - 1, n - 1, 0, 0, n - 1, 0][i] as number] as number), 5));
  });
  test("cross entropy of logits that are computed is one kernel, with its gradient as without", () => {
    const [x, targets] = [made([4, 37]), mx.array([1, 0, 36, 5], mx.int32)];
    const capped = (v: A): A => mx.multiply(mx.tanh(mx.multiply(v, 0.5)), 3);
    const run = (v: A): A => nn.losses.crossEntropy(capped(v), targets);
    expect(kernelsOf(() => mx.eval(mx.tidy(() => run(x)))).filter((k) => k !== "view")).toEqual(["wasm/generated-rows"]);
    const [loss] = same("loss", () => run(x), 1, 2 ** -20) as [string[]];
    rowsOf(x).map((r) => r.map((v) => 3 * Math.tanh(v / 2))).forEach((r, i) => expect(Number(loss[i])).toBeCloseTo(Math.log(total(r.map(Math.exp))) - (r[(targets.tolist() as number[])[i] as number] as number), 5));
    same("gradient", () => mx.grad((v: A) => mx.sum(run(v)))(x) as A, 1, 2 ** -20);
  });
  test.each(["float32", "float16", "bfloat16"] as const)("%s: softmax, rmsNorm and layerNorm join the ops around them", (name) => {
    // One rounding to the dtype in the group, several without it; sums in another order than those of the hand-written kernels.
    const tolerance = { float32: 2 ** -19, float16: 2 ** -8, bfloat16: 2 ** -5 }[name];
    for (const [rows, n] of [[3, 1], [2, 7], [2, 31], [4, 32], [3, 67], [1, 1000], [2, 1029]] as const) {
      const [x, y, w, b] = [made([rows, n], mx[name]), made([rows, n], mx[name]), made([n], mx[name]), made([n], mx[name])];
      const [ys, ws, bs] = [rowsOf(y), numbersOf(w), numbersOf(b)];
      for (const [what, p] of Object.entries(joined)) {
        const [got] = same(`${what} of ${rows} rows of ${n}`, () => p.run(x, y, w, b), p.dear && n < 32 ? 0 : 1, tolerance * 2) as [string[]];
        const want = rowsOf(x).flatMap((row, r) => p.row(row, ys[r] as number[], ws, bs));
        expect(farthest(got.map(Number), want), `${what} of ${rows} rows of ${n}`).toBeLessThanOrEqual(tolerance);
      }
    }
  });
  test("softmax of masked rows: what is masked is 0, rows without a finite element are NaN", () => {
    const inf = Number.POSITIVE_INFINITY;
    const rows = [[0, -inf, 1], [-inf, -inf, -inf], [inf, 0, 0], [Number.NaN, 0, 0], [-300, -200, -200]];
    const x = mx.array(rows.map((r) => [...r, ...new Array<number>(40).fill(-inf)]));
    const got = rowsOf(mx.softmax(mx.negative(mx.negative(x)), -1));
    const e = Math.E / (1 + Math.E);
    [[1 - e, 0, e], [Number.NaN, Number.NaN, Number.NaN], [Number.NaN, Number.NaN, Number.NaN], [Number.NaN, Number.NaN, Number.NaN], [0, 0.5, 0.5]].forEach((want, r) => want.forEach((v, i) => (Number.isNaN(v) ? expect(got[r]?.[i]).toBeNaN() : expect(got[r]?.[i]).toBeCloseTo(v, 6))));
    expect([got[0]?.[1], got[0]?.[42]]).toEqual([0, 0]);
    expect(kernelsOf(() => mx.tidy(() => mx.eval(mx.softmax(mx.multiply(x, 2), -1))))).toEqual(["wasm/generated-rows"]);
  });
  test("softmax and norms alone keep their kernels; so do short rows with dear formulas, and reports say why", () => {
    const [x, w] = [made([4, 48]), made([48])];
    expect(kernelsOf(() => mx.tidy(() => mx.eval(mx.softmax(x, -1), mx.fast.rmsNorm(x, w, 1e-5), mx.fast.layerNorm(x, null, null, 1e-5))))).toEqual(["wasm/softmax/softmax", "wasm/norm/rms", "wasm/norm/layer"]);
    const short = made([4, 12]);
    const run = (): A => mx.softmax(mx.multiply(short, 2), -1);
    const evaluate = (): void => mx.tidy(() => mx.eval(run()));
    expect(kernelsOf(evaluate)).toEqual(["wasm/generated", "wasm/softmax/softmax"]);
    expect(mx.explain(mx.tidy(run))).toContain("refused: wasm/generated-rows: slower: mathematical functions in rows of 12 elements");
    const plain = mx.tidy(() => numbersOf(run()));
    vi.stubEnv("MLX_FORCE", "wasm/generated-rows");
    expect(kernelsOf(evaluate)).toEqual(["wasm/generated-rows"]);
    mx.tidy(() => numbersOf(run())).forEach((v, i) => expect(Math.abs(v - (plain[i] as number))).toBeLessThan(2 ** -22));
    vi.stubEnv("MLX_FORCE", undefined);
    // A long row of which nothing but its extreme is asked gains nothing.
    const long = made([2, 20000]);
    expect(kernelsOf(() => mx.tidy(() => mx.eval(mx.subtract(long, mx.max(long, -1, true)))))).toEqual(["wasm/reduce/max", "wasm/generated"]);
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
    for (const [what, p] of Object.entries(joined)) {
      const [y, b] = [made([5, 37]), made([37])];
      const loss = (v: A, u: A): A => mx.sum(mx.square(p.run(v, y, u, b)));
      same(`gradient of ${what}`, () => mx.grad(loss, [0, 1])(x, w) as A[], 1, 2 ** -17);
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
