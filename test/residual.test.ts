/** Sums that the CPU's quantized product makes as it stores its result (src/schedule/residual.ts): the same as by separate passes, and as in float64. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { wasmBackend } from "../src/backend/wasm/index.ts";
import { engine } from "../src/core/engine.ts";
import { type MxArray, core as mx } from "../src/index.ts";
import { stats } from "../src/schedule/run.ts";

const given = process.env["MLX_DISABLE"];
afterEach(() => {
  if (given === undefined) delete process.env["MLX_DISABLE"];
  else process.env["MLX_DISABLE"] = given;
});
const numbers = (a: MxArray): number[] => mx.reshape(mx.astype(a, mx.float32), [-1]).tolist() as number[];
const normal = (shape: number[], key: number): MxArray => mx.random.normal(shape, mx.float32, 0, 1, mx.random.key(key));
/** Values, and how many sums were joined. */
function outcome(build: () => MxArray, disabled = ""): { values: number[]; sums: number } {
  process.env["MLX_DISABLE"] = disabled;
  const y = mx.tidy(build);
  const before = stats.productSums;
  mx.eval(y);
  return { sums: stats.productSums - before, values: numbers(y) };
}
const apart = "wasm/residual";

wasmBackend();
const found = engine.int8Dot;
// Processors with a one-instruction int8 dot product have another kernel, which adds nothing.
beforeAll(() => {
  engine.int8Dot = false;
});
afterAll(() => {
  engine.int8Dot = found;
});

describe.skipIf(mx.defaultDevice().type === "gpu")("a quantized product of many rows plus an array, on the CPU", () => {
  const [M, N, K] = [37, 43, 640];
  const [w, s, b] = mx.quantize(normal([N, K], 7).astype(mx.bfloat16), 64, 4) as [MxArray, MxArray, MxArray];
  // The scales have 8 bits: float16 holds them too.
  const product = (x: MxArray): MxArray => (x.dtype === mx.float16 ? mx.quantizedMatmul(x, w, s.astype(mx.float16), b.astype(mx.float16), true, 64, 4) : mx.quantizedMatmul(x, w, s, b, true, 64, 4));
  const values = mx.dequantize(w, s.astype(mx.float32), b.astype(mx.float32), 64, 4);
  const weights = numbers(values);

  test.each([["bfloat16", 2 ** -8], ["float16", 2 ** -11]] as const)("%s: is joined, and rounded once", (name, rounding) => {
    const [x, c] = [normal([M, K], 8).astype(mx[name]), mx.multiply(normal([M, N], 9), 30).astype(mx[name])];
    const [xs, cs] = [numbers(x), numbers(c)];
    for (const build of [() => mx.add(product(x), c), () => mx.add(c, product(x))]) {
      const joined = outcome(build);
      expect(joined.sums).toBe(1);
      joined.values.forEach((v, i) => {
        let [want, size] = [0, 0];
        for (let k = 0; k < K; k++) {
          const [p, q] = [xs[Math.floor(i / N) * K + k] as number, weights[(i % N) * K + k] as number];
          want += p * q;
          size += Math.abs(q);
        }
        want += cs[i] as number;
        // Rounding to integers of 14 bits and a sign of the largest of each group (5 at most), then of the sum.
        expect(Math.abs(v - want)).toBeLessThan((size * 5) / 32512 + 1.01 * rounding * Math.abs(want));
      });
      expect(outcome(build, apart).sums).toBe(0);
    }
  });
  test("float32 sums of the plain build have the bits of separate passes, and rows that are not finite too", () => {
    const x = normal([M, K], 8);
    x.indexPut_([35, 5], Number.POSITIVE_INFINITY);
    const c = normal([M, N], 9);
    mx.eval(x, c);
    const build = (): MxArray => mx.add(product(x), c);
    const [joined, passes] = [outcome(build), outcome(build, apart)];
    expect(joined).toEqual({ values: passes.values, sums: engine.relaxed ? 0 : 1 });
    expect(passes.sums).toBe(0);
  });
  test("special values of bfloat16 rows", () => {
    const x = normal([M, K], 8).astype(mx.bfloat16);
    x.indexPut_([35, 5], Number.NaN);
    const c = mx.zeros([M, N], mx.bfloat16);
    const build = (): MxArray => mx.add(product(x), c);
    const joined = outcome(build);
    expect(joined.sums).toBe(1);
    expect(joined.values).toEqual(outcome(build, apart).values);
  });
  test("stays apart: few rows, broadcast or turned addends, products that somebody else sees", () => {
    const x = normal([M, K], 8).astype(mx.bfloat16);
    const c = normal([M, N], 9).astype(mx.bfloat16);
    const turned = normal([N, M], 9).astype(mx.bfloat16);
    mx.eval(x, c, turned);
    expect(outcome(() => mx.add(product(mx.reshape(normal([1, K], 3), [1, K]).astype(mx.bfloat16)), mx.zeros([1, N], mx.bfloat16))).sums).toBe(0);
    for (const build of [() => mx.add(product(x), mx.zeros([N], mx.bfloat16)), () => mx.add(product(x), mx.transpose(turned))]) {
      const [joined, passes] = [outcome(build), outcome(build, apart)];
      expect(joined).toEqual(passes);
      expect(joined.sums).toBe(0);
    }
    expect(outcome(() => { const y = product(x); return mx.multiply(mx.add(y, c), y); }).sums).toBe(0);
  });
});
