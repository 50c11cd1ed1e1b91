/** Products of one row whose commands run together: that they do, that they equal products one by one, and what must stay apart. */
import { afterEach, describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { generateStep, load } from "../src/llm/index.ts";
import { stats } from "../src/schedule/run.ts";
import { randomSource } from "./helpers/check.ts";
import { demo4bit } from "./helpers/llm.ts";

type A = mx.MxArray;
mx.setDefaultDevice("cpu");
const given = process.env["MLX_DISABLE"];
afterEach(() => {
  if (given === undefined) delete process.env["MLX_DISABLE"];
  else process.env["MLX_DISABLE"] = given;
});

const random = randomSource(5);
const numbers = (...shape: number[]): A => mx.array(Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 2 * random() - 1)).reshape(shape).astype(mx.bfloat16);
type Packed = readonly [A, A, A];
const packed = (rows: number, columns: number): Packed => {
  const w = mx.quantize(numbers(rows, columns), 64, 4) as [A, A, A];
  mx.eval(w);
  return w;
};
const times = (x: A, [w, s, b]: Packed): A => mx.quantizedMatmul(x, w, s, b, true, 64, 4);
/** The bits of arrays, and how many products ran together with one before. */
function outcome(build: () => A[]): { bits: unknown[]; together: number } {
  const before = stats.together;
  const arrays = build();
  mx.eval(arrays);
  return { bits: arrays.map((a) => mx.contiguous(a).view(mx.uint16).tolist()), together: stats.together - before };
}
/** With the commands together and, as the first result, one by one. */
function both(build: () => A[]): { together: number } {
  process.env["MLX_DISABLE"] = "wasm/together";
  const apart = outcome(build);
  delete process.env["MLX_DISABLE"];
  const joined = outcome(build);
  expect(apart.together).toBe(0);
  expect(joined.bits).toEqual(apart.bits);
  return joined;
}

describe("products of one row", () => {
  // Sizes of several chunks each, so that threads do share them.
  const [q, k, v, o] = [packed(1024, 512), packed(512, 512), packed(514, 512), packed(512, 1024)];
  const x = numbers(1, 512);
  mx.eval(x);
  test("run together, though other ops stand between them in the graph", () => {
    const build = (): A[] => {
      const y = mx.add(x, 1);
      return [mx.tanh(times(y, q)), mx.softmax(times(y, k), -1), times(y, v)];
    };
    for (let i = 0; i < 20; i++) expect(both(build).together).toBe(2);
    const { together } = outcome(() => mx.compile(build)() as A[]);
    expect(together).toBe(2);
    expect(outcome(() => mx.compile(build)() as A[]).bits).toEqual(outcome(build).bits);
  });
  test("stay apart when one reads the other's result, and when there is more than one row", () => {
    expect(both(() => [times(times(x, q), o)]).together).toBe(0);
    const rows = mx.concatenate([x, x], 0);
    expect(both(() => [times(rows, q), times(rows, k)]).together).toBe(0);
  });
  test("stay apart when the weights are made in the same graph: their memory may be another result's", () => {
    const made = (i: number): Packed => [mx.bitwiseXor(k[0], mx.array(i, mx.uint32)), mx.multiply(k[1], 1), mx.multiply(k[2], 1)];
    expect(both(() => [0, 1, 2].map((i) => times(x, made(i)))).together).toBe(0);
    // The second product comes right behind the first, whose weights are given back before it gets its memory.
    const build = (): A[] => mx.tidy(() => [times(x, made(1)), times(x, k)]);
    expect(both(build).together).toBe(0);
    expect(outcome(() => mx.compile(build)() as A[])).toEqual(outcome(build));
  });
  test("of a model decode to the same tokens", async () => {
    const { model } = await load(demo4bit);
    const decode = (): number[] => [...generateStep([1, 2, 3], model, { maxTokens: 12 })].map(([t]) => Number(t));
    process.env["MLX_DISABLE"] = "wasm/together";
    const want = decode();
    delete process.env["MLX_DISABLE"];
    const before = stats.together;
    expect(decode()).toEqual(want);
    expect(stats.together - before).toBeGreaterThan(0);
  });
});
