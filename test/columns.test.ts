/**
 * Column groups: reductions of other than the last dimensions compiled together with the elementwise ops around them. Two expectations: float64 written plainly, within
 * a tolerance of the dtype; and the same graph without fusion (MLX_FUSE=0), bit for bit on the CPU, because kernels of both kinds add up in the same order and round at the
 * same places. To a few roundings only: with relaxed SIMD, which contracts products in elementwise kernels; of fewer than 32 columns, of which the kernel for sums alone
 * adds several rows side by side; on the GPU, whose sums are trees of another shape.
 */
import { afterEach, describe, expect, test, vi } from "vitest";
import { core as mx } from "../src/index.ts";
import { relaxedSimdWorks } from "../src/backend/wasm/modules.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { randomSource } from "./helpers/check.ts";
import { asIfUnset } from "./helpers/flags.ts";

// What these kernels are compared with is chosen below.
asIfUnset("MLX_DISABLE");

type A = mx.MxArray;
const onGpu = mx.defaultDevice().type === "gpu";
const exact = !onGpu && !relaxedSimdWorks("1");
afterEach(() => vi.unstubAllEnvs());

const numbersOf = (a: A): number[] => mx.tidy(() => a.astype(mx.float64, mx.cpu).reshape([-1], mx.cpu).tolist()) as number[];
const list = (y: A | A[]): A[] => (Array.isArray(y) ? y : [y]);
const without = <R>(name: string, value: string, f: () => R): R => {
  vi.stubEnv(name, value);
  const r = f();
  vi.stubEnv(name, undefined);
  return r;
};
const evaluated = (f: () => A | A[]): number[][] =>
  mx.tidy(() => {
    const ys = list(f());
    mx.eval(ys);
    return ys.map(numbersOf);
  });
const close = (got: number, want: number, tolerance: number): boolean => Object.is(got, want) || got === want || Math.abs(got - want) <= tolerance * Math.max(1, Math.abs(want));

/** Results with column groups, of which there must be one at least, and without fusion. */
function same(name: string, f: () => A | A[], tolerance = 2e-6, bits = exact): number[][] {
  const before = stats.columnGroups;
  const fused = evaluated(f);
  expect(stats.columnGroups - before, `${name}: groups`).toBeGreaterThanOrEqual(1);
  const plain = without("MLX_FUSE", "0", () => evaluated(f));
  if (bits) expect(fused, name).toEqual(plain);
  else fused.forEach((ys, k) => ys.forEach((y, i) => close(y, plain[k]?.[i] as number, tolerance) || expect(y, `${name}: output ${k}, element ${i}`).toBe(plain[k]?.[i])));
  return fused;
}

const random = randomSource(5);
function made(shape: readonly number[], dtype: mx.Dtype = mx.float32): A {
  const n = shape.reduce((a, b) => a * b, 1);
  const x = mx.reshape(mx.array(Float32Array.from({ length: n }, () => 6 * random() - 3)), [...shape]).astype(dtype);
  mx.eval(x);
  return x;
}
/** Columns of an array seen as [outer, n, inner], in float64, outer first. */
function columnsOf(x: A, n: number, inner: number): number[][] {
  const all = numbersOf(x);
  return Array.from({ length: all.length / n }, (_, c) => Array.from({ length: n }, (_, r) => all[(Math.floor(c / inner) * n + r) * inner + (c % inner)] as number));
}
const total = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
function near(got: readonly number[], want: readonly number[], tolerance: number, name: string): void {
  expect(got.length, name).toBe(want.length);
  got.forEach((v, i) => close(v, want[i] as number, tolerance) || expect(v, `${name}: element ${i}`).toBeCloseTo(want[i] as number, 12));
}

describe("column groups", () => {
  /** Rows, columns: fewer rows than are taken at a time, rows and columns left over, several blocks, long columns. */
  const shapes = [[3, 9], [37, 70], [128, 600], [1100, 33], [600, 11]] as const;
  test.each(shapes)("variance of %i x %i", (n, inner) => {
    const x = made([n, inner]);
    const [got] = same("variance", () => mx.variance(x, 0), 1e-5, exact && (inner >= 32 || n < 64));
    near(got as number[], columnsOf(x, n, inner).map((c) => total(c.map((v) => (v - total(c) / n) ** 2)) / n), 2e-5, "variance");
  });
  test.each(shapes)("a sum of products, the products stored as well, of %i x %i", (n, inner) => {
    const [x, y, b] = [made([n, inner]), made([n, inner]), made([inner])];
    const [sums, products] = same("products", () => {
      const p = mx.multiply(mx.add(x, b), y);
      return [mx.multiply(mx.sum(p, 0), b), p];
    }, 1e-4, exact && (inner >= 32 || n < 64));
    const [xs, ys, bs] = [columnsOf(x, n, inner), columnsOf(y, n, inner), numbersOf(b)];
    near(sums as number[], xs.map((c, k) => (bs[k] as number) * total(c.map((v, i) => (v + (bs[k] as number)) * (ys[k]?.[i] as number)))), 2e-4, "sums");
    const all = numbersOf(y);
    near(products as number[], numbersOf(x).map((v, i) => (v + (bs[i % inner] as number)) * (all[i] as number)), 1e-5, "products");
  });
  test("normalized columns: two reductions and elements, also over an input", () => {
    for (const [n, inner] of [[40, 24], [700, 36]] as const) {
      const x = made([n, inner]);
      const f = (): A => {
        const d = mx.subtract(x, mx.mean(x, 0, true));
        return mx.multiply(d, mx.rsqrt(mx.add(mx.mean(mx.square(d), 0, true), 1e-5)));
      };
      const [got] = same("normalized", f);
      const columns = columnsOf(x, n, inner).map((c) => {
        const m = total(c) / n;
        const s = 1 / Math.sqrt(total(c.map((v) => (v - m) ** 2)) / n + 1e-5);
        return c.map((v) => (v - m) * s);
      });
      near(got as number[], Array.from({ length: n * inner }, (_, i) => columns[i % inner]?.[Math.floor(i / inner)] as number), 2e-5, "normalized");
    }
  });
  test("middle and several axes, values per row, kept dimensions", () => {
    const x = made([5, 6, 7, 40]);
    const w = made([6, 7, 1]);
    const [a] = same("middle", () => mx.sum(mx.abs(x), 1));
    near(a as number[], columnsOf(x, 6, 280).map((c) => total(c.map(Math.abs))), 1e-5, "middle");
    const [b] = same("two axes", () => mx.max(mx.multiply(x, w), [1, 2], true));
    const ws = numbersOf(w);
    near(b as number[], columnsOf(x, 42, 40).map((c) => Math.max(...c.map((v, i) => v * (ws[i] as number)))), 1e-6, "two axes");
    const [s] = same("three axes", () => mx.sqrt(mx.mean(mx.square(x), [0, 1, 2])));
    near(s as number[], columnsOf(x, 210, 40).map((c) => Math.sqrt(total(c.map((v) => v * v)) / 210)), 1e-5, "three axes");
  });
  test("bias gradient of a gelu layer", () => {
    const [x, dy] = [made([130, 48]), made([130, 48])];
    const derivative = (v: number): number => {
      const t = Math.tanh(0.7978845608 * (v + 0.044715 * v ** 3));
      return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * 0.7978845608 * (1 + 3 * 0.044715 * v * v);
    };
    const [c, d, one, half] = [0.7978845608, 0.044715, 1, 0.5].map((v) => mx.array(v)) as [A, A, A, A];
    const f = (): A => {
      const cube = mx.multiply(d, mx.multiply(x, mx.square(x)));
      const t = mx.tanh(mx.multiply(c, mx.add(x, cube)));
      const slope = mx.multiply(mx.multiply(mx.subtract(one, mx.square(t)), c), mx.add(x, mx.add(cube, mx.add(cube, cube))));
      return mx.sum(mx.multiply(dy, mx.multiply(half, mx.add(mx.add(one, t), slope))), 0);
    };
    // On the CPU functions such as tanh are faster on their own.
    vi.stubEnv("MLX_FORCE", "wasm/generated-columns");
    const [got] = same("gelu", f, 1e-5);
    const [xs, ds] = [columnsOf(x, 130, 48), columnsOf(dy, 130, 48)];
    near(got as number[], xs.map((c, k) => total(c.map((v, i) => derivative(v) * (ds[k]?.[i] as number)))), 1e-4, "gelu");
  });
  test.each(["float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "bool", ...(onGpu ? [] : (["float64", "int64", "uint64"] as const))] as const)("rules of %s", (name) => {
    const n = name === "float32" ? 530 : 19;
    const inner = name === "float32" ? 40 : 13;
    const x = mx.multiply(made([2, n, inner]), name === "bool" ? 1 : 5).astype(mx[name]);
    mx.eval(x);
    for (const rule of ["sum", "prod", "max", "min", "all", "any"] as const) {
      const f = (): A => (name === "bool" || rule === "all" || rule === "any" ? mx[rule](mx.notEqual(x, mx.array(2, x.dtype)), 1) : mx[rule](mx.add(x, mx.array(1, x.dtype)), 1));
      const [got] = same(`${rule} of ${name}`, f, name === "float16" ? 2e-3 : name === "bfloat16" ? 2e-2 : 2e-5);
      // Wrapped numbers of 64 bits are no float64.
      if ((rule !== "max" && rule !== "all") || name === "uint64") continue;
      const wrap = 2 ** (8 * x.dtype.size);
      const next = (v: number): number => (name.startsWith("u") ? (v + 1) % wrap : name.startsWith("int") ? v + 1 : (numbersOf(mx.array(v + 1).astype(x.dtype))[0] as number));
      const one = name === "bool" ? (v: number): number => Number(v !== 1) : rule === "all" ? (v: number): number => Number(v !== 2) : next;
      near(got as number[], columnsOf(x, n, inner).map((c) => (rule === "max" ? Math.max(...c.map(one)) : Math.min(...c.map(one)))), 1e-6, `${rule} of ${name}`);
    }
  });
  test("NaN and infinities of extremes", () => {
    const x = mx.array([[1, Number.NaN, -0, 3, Number.NEGATIVE_INFINITY, 2, 7, 8], [2, 4, 0, Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 7, 9]]);
    const big = mx.concatenate([x, made([5, 8]), mx.negative(x)], 0);
    mx.eval(big);
    const [max, min] = same("extremes", () => [mx.max(mx.multiply(big, 1), 0), mx.min(mx.multiply(big, 1), 0)], 0);
    const columns = columnsOf(big, 9, 8);
    expect(max).toEqual(columns.map((c) => Math.max(...c)));
    expect(min).toEqual(columns.map((c) => Math.min(...c)));
  });
  test("strided inputs and transposed ones", () => {
    const x = made([60, 100]);
    const [a] = same("every second row", () => mx.sum(mx.square(mx.asStrided(x, [30, 70], [200, 1], 20)), 0));
    near(a as number[], columnsOf(x, 60, 100).slice(20, 90).map((c) => total(c.filter((_, i) => i % 2 === 0).map((v) => v * v))), 1e-5, "strided");
    const [b] = same("transposed", () => mx.sum(mx.square(mx.transpose(x)), 0), 1e-5);
    near(b as number[], Array.from({ length: 60 }, (_, r) => total(numbersOf(x).slice(100 * r, 100 * r + 100).map((v) => v * v))), 1e-5, "transposed");
    const y = made([100, 60]);
    const [c] = same("one of two transposed", () => mx.sum(mx.multiply(mx.transpose(x), y), 0), 1e-5);
    const [xs, ys] = [numbersOf(x), numbersOf(y)];
    near(c as number[], Array.from({ length: 60 }, (_, r) => total(Array.from({ length: 100 }, (_, k) => (xs[100 * r + k] as number) * (ys[60 * k + r] as number)))), 1e-5, "mixed");
  });
  test("switches, and what is worth no group", () => {
    const x = made([40, 30]);
    const f = (): A => mx.sum(mx.square(x), 0);
    const name = `${onGpu ? "vulkan" : "wasm"}/generated-columns`;
    const seen: string[] = [];
    setTracer({ recorded: (_node, kernel) => void seen.push(kernel) });
    const want = evaluated(f);
    expect(seen[0]).toBe(name);
    // The test itself converts results.
    expect(seen.slice(1)).toEqual(["wasm/generated"]);
    for (const [flag, value] of [["MLX_DISABLE", name], ["MLX_DISABLE", "wasm/gen_*,vulkan/gen_*"], ["MLX_FUSE", "0"]] as const) {
      seen.length = 0;
      const got = without(flag, value, () => evaluated(f));
      expect(seen.filter((k) => k === name), flag).toEqual([]);
      near(got[0] as number[], want[0] as number[], 1e-5, flag);
    }
    seen.length = 0;
    evaluated(() => [mx.sum(x, 0), mx.sum(mx.square(made([40, 3])), 0), mx.sum(mx.square(made([3, 20, 4, 20])), [0, 2])]);
    expect(seen.filter((k) => k === name), "a sum alone, few columns, scattered axes").toEqual([]);
    setTracer(undefined);
  });
});
