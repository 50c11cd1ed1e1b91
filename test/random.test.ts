/** Random numbers: known answers of MLX and JAX, the samples against the float64 oracle, and moments of the distributions. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { checkSamples } from "./helpers/check.ts";
import { randomSamples } from "./samples/random.ts";

for (const [name, samples] of Object.entries(randomSamples)) describe(name, () => checkSamples(mx.random[name as "uniform"] as never, samples));

const { random } = mx;
describe("known answers", () => {
  it("keys", () => {
    expect(random.key(0).tolist()).toEqual([0, 0]);
    expect(random.key(2 ** 32 + 1).tolist()).toEqual([1, 1]);
    expect(random.key(-1).tolist()).toEqual([2 ** 32 - 1, 2 ** 32 - 1]);
  });
  it("split", () => {
    expect(random.split(random.key(0)).tolist()).toEqual([[4146024105, 967050713], [2718843009, 1272950319]]);
    expect(random.split(random.key(0), 3).tolist()).toEqual([[2467461003, 428148500], [3186719485, 3840466878], [2562233961, 1946702221]]);
  });
  it("bits", () => {
    expect(random.bits([], 4, random.key(0)).item()).toBe(1797259609);
    expect(random.bits([], 4, random.key(1)).item()).toBe(507451445);
    expect(random.bits([], 2, random.key(1)).item()).toBe(6197);
    expect(random.bits([], 1, random.key(1)).item()).toBe(53);
    expect(random.bits([3, 1], 4, random.key(0)).tolist()).toEqual([[4146024105], [1351547692], [2718843009]]);
    expect(random.bits([7], 2, random.key(0)).tolist()).toEqual([20137, 63263, 1497, 14756, 16513, 41486, 44591]);
  });
  it("uniform", () => {
    expect(random.uniform(0, 1, [], mx.float32, random.key(0)).item()).toBe(Math.fround(Math.fround(1797259609) / 2 ** 32));
    expect(random.uniform(0, 1, [3], mx.float32, random.key(0)).tolist()).toEqual([4146024105, 1351547692, 2718843009].map((n) => Math.fround(Math.fround(n) / 2 ** 32)));
  });
});
describe("the global sequence", () => {
  it("starts again with the same seed and is made of halves of splits", () => {
    random.seed(3);
    const a = [random.bits().item(), random.bits().item()];
    random.seed(3);
    expect([random.bits().item(), random.bits().item()]).toEqual(a);
    const first = random.split(random.key(3)).tolist() as number[][];
    const second = random.split(mx.array(new Uint32Array(first[0] as number[]))).tolist() as number[][];
    expect(a).toEqual([first[1], second[1]].map((k) => random.bits([], 4, mx.array(new Uint32Array(k as number[]))).item()));
  });
});
describe("distributions", () => {
  const n = 40000;
  /** Mean and variance within five standard errors. */
  const moments = (x: mx.MxArray, mean: number, variance: number, fourth: number): void => {
    const m = mx.mean(x).item() as number;
    const v = mx.variance(x).item() as number;
    expect(Math.abs(m - mean)).toBeLessThan(5 * Math.sqrt(variance / n));
    expect(Math.abs(v - variance)).toBeLessThan(5 * Math.sqrt((fourth - variance * variance) / n));
  };
  const key = random.key(11);
  it("uniform", () => moments(random.uniform(-1, 3, [n], undefined, key), 1, 16 / 12, 256 / 80));
  it("normal", () => moments(random.normal([n], undefined, 1, 2, key), 1, 4, 3 * 16));
  it("multivariateNormal has the mean and covariance asked for", () => {
    const want = [[2, -0.5], [-0.5, 0.5]] as const;
    const x = random.multivariateNormal([1, -2], mx.array(want as never), [n], undefined, key);
    expect(x.shape).toEqual([n, 2]);
    const centred = mx.subtract(x, mx.array([1, -2]));
    expect(Math.abs(mx.mean(centred.index("...", 0)).item() as number)).toBeLessThan(5 * Math.sqrt(2 / n));
    const found = mx.divide(mx.matmul(centred.T, centred), n).tolist() as number[][];
    // The variance of a product of two normal numbers is s_ii s_jj + s_ij^2.
    want.forEach((row, i) =>
      row.forEach((v, j) => {
        const deviation = Math.sqrt(((want[i] as readonly number[])[i] as number) * ((want[j] as readonly number[])[j] as number) + v * v);
        expect(Math.abs((found[i]?.[j] as number) - v)).toBeLessThan((5 * deviation) / Math.sqrt(n));
      }),
    );
    expect(() => random.multivariateNormal([1], mx.eye(2))).toThrow("[multivariateNormal]");
    expect(() => random.multivariateNormal([1, 2], mx.eye(2), [], mx.float16)).toThrow("float32");
  });
  it("laplace", () => moments(random.laplace([n], undefined, 0, 1, key), 0, 2, 24));
  it("gumbel", () => moments(random.gumbel([n], undefined, key), 0.5772156649, Math.PI ** 2 / 6, 14.6));
  it("bernoulli", () => moments(random.bernoulli(0.25, [n], key).astype(mx.float32), 0.25, 0.1875, 0.25 * 0.75 ** 4 + 0.75 * 0.25 ** 4));
  it("half precision stays finite and below the upper end", () => {
    for (const dtype of [mx.float16, mx.bfloat16]) {
      expect(mx.max(random.uniform(0, 1, [n], dtype, key)).item()).toBeLessThan(1);
      expect(mx.max(mx.abs(random.normal([n], dtype, undefined, undefined, key))).item()).toBeLessThan(Number.POSITIVE_INFINITY);
    }
  });
  it("randint reaches both ends and no further", () => {
    expect([...new Set(random.randint(-5, 5, [2000], undefined, key).tolist() as number[])].sort((a, b) => a - b)).toEqual([-5, -4, -3, -2, -1, 0, 1, 2, 3, 4]);
    expect(mx.all(mx.equal(random.randint(10, -10, [100], undefined, key), 10)).item()).toBe(true);
  });
  it("truncatedNormal stays inside", () => {
    const x = random.truncatedNormal(-0.5, 2, [n], undefined, key);
    expect([mx.min(x).item() as number >= -0.5, mx.max(x).item() as number <= 2]).toEqual([true, true]);
  });
  it("categorical follows the logits", () => {
    const p = [0.1, 0.2, 0.3, 0.4];
    const drawn = random.categorical(mx.array(p.map(Math.log)), -1, undefined, n, key).tolist() as number[];
    p.forEach((want, i) => expect(Math.abs(drawn.filter((d) => d === i).length / n - want)).toBeLessThan(5 * Math.sqrt((want * (1 - want)) / n)));
    const inf = Number.POSITIVE_INFINITY;
    expect(random.categorical(mx.array([1, -2, inf, 4])).item()).toBe(2);
    expect(random.categorical(mx.array([-inf, -2, -inf])).item()).toBe(1);
  });
  it("permutation holds every entry", () => {
    expect((random.permutation(50).tolist() as number[]).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    const x = mx.arange(16).reshape(4, 4);
    expect(mx.sort(random.permutation(x, 1), 1).tolist()).toEqual(x.tolist());
  });
});
describe("arguments", () => {
  it("shapes and dtypes", () => {
    expect(random.normal([1, 2], mx.complex64).dtype).toBe(mx.complex64);
    expect(random.normal([1, 2], mx.complex64).shape).toEqual([1, 2]);
    expect(random.randint(0, 1, []).dtype).toBe(mx.int32);
    const logits = mx.zeros([5, 4, 3]);
    expect([-1, -2, -3].map((axis) => random.categorical(logits, axis, undefined, 7).shape)).toEqual([[5, 4, 7], [5, 3, 7], [4, 3, 7]]);
    expect(random.categorical(mx.zeros([10, 20]), 0, [5, 20]).shape).toEqual([5, 20]);
    const none = random.categorical(mx.zeros([20]), -1, undefined, 0);
    expect([none.shape, none.dtype]).toEqual([[0], mx.uint32]);
  });
  it("errors name the function", () => {
    expect(() => random.uniform(0, 1, [2, -3])).toThrow("[uniform]");
    expect(() => random.uniform(0, 1, [2], mx.int32)).toThrow("[uniform]");
    expect(() => random.uniform(mx.zeros([3, 3]), 1, [1, 3])).toThrow("[uniform]");
    expect(() => random.uniform(0, 1, [], mx.float32, mx.array([0, 0], mx.int32))).toThrow("[uniform] key must be uint32");
    expect(() => random.uniform(0, 1, [], mx.float32, mx.zeros([1, 2], mx.uint32))).toThrow("[uniform] key must have shape (2)");
    expect(() => random.bits([], 3)).toThrow("[bits]");
    expect(() => random.bernoulli(mx.array([0.5, 0.5, 0.5]), [2])).toThrow("[bernoulli]");
    expect(() => random.bernoulli(mx.array([1], mx.int32), [1])).toThrow("[bernoulli]");
    expect(() => random.randint(0, 5, [2], mx.float32)).toThrow("[randint]");
    expect(() => random.categorical(mx.zeros([4, 5]), -1, [4], 3)).toThrow("[categorical]");
    expect(() => random.categorical(mx.zeros([4, 5]), 2)).toThrow("[categorical]");
    expect(() => random.categorical(mx.zeros([10, 20]), 1, [11])).toThrow("[categorical]");
  });
});
