/** Products of the same few rows in one launch on the GPU: the same bits as one after the other, and what float64 says. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import * as dt from "../src/core/dtype.ts";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { overrideTuned } from "../src/schedule/tune.ts";
import { chooseTestDevice, counted } from "./helpers/gpu-scheduler.ts";
import { noise } from "./helpers/rows.ts";
import { skipReason } from "./helpers/vulkan.ts";

type A = mx.MxArray;
const filled = (shape: readonly number[], seed: number, dtype: dt.Dtype = dt.float32): A => {
  const a = mx.array(Float32Array.from(noise(shape.reduce((x, y) => x * y, 1), seed))).reshape(shape).astype(dtype);
  mx.eval(a);
  return a;
};
const numbers = (a: A): number[] => mx.tidy(() => a.astype(dt.float32).reshape([-1]).tolist() as number[]);
const off = "vulkan/siblings";
function disabling<T>(names: string, work: () => T): T {
  const before = process.env["MLX_DISABLE"];
  process.env["MLX_DISABLE"] = names;
  try {
    return work();
  } finally {
    if (before === undefined) delete process.env["MLX_DISABLE"];
    else process.env["MLX_DISABLE"] = before;
  }
}
function outcome(build: () => A[]): { values: number[][]; launches: number; dispatches: number } {
  const results = mx.tidy(build);
  const { siblingLaunches: launches, dispatches } = counted(() => mx.eval(results));
  const values = results.map(numbers);
  for (const r of results) r.dispose();
  return { values, launches, dispatches };
}
/** The same bits with and without. Gives the launches of siblings, and the dispatches that were saved. */
function same(build: () => A[], others = ""): [number, number] {
  const [joined, apart] = [disabling(others, () => outcome(build)), disabling(`${off},${others}`, () => outcome(build))];
  expect(joined.values).toEqual(apart.values);
  expect(apart.launches).toBe(0);
  return [joined.launches, apart.dispatches - joined.dispatches];
}

describe.skipIf(skipReason)("siblings on the GPU", () => {
  const given = process.env["MLX_DISABLE"];
  const K = 256;
  let x: A;
  let weights: A[];
  const pack = (w: A, groupSize = 64, bits = 4, mode: "affine" | "mxfp4" = "affine"): A[] => {
    const made = mx.quantize(w, groupSize, bits, mode) as A[];
    mx.eval(made);
    return made;
  };
  const times = (a: A, [w, scales, biases]: readonly A[], groupSize = 64, bits = 4): A => mx.quantizedMatmul(a, w as A, scales as A, biases as A, true, groupSize, bits);
  beforeAll(() => {
    chooseTestDevice();
    delete process.env["MLX_DISABLE"];
    mx.setDefaultDevice("gpu");
    x = filled([1, K], 1);
    weights = [70, 33, 96, 40].map((n, i) => filled([n, K], 2 + i));
  });
  afterAll(() => {
    if (given !== undefined) process.env["MLX_DISABLE"] = given;
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
  });

  test("three products are one dispatch, and what float64 says", () => {
    const [a, ws] = [numbers(x), weights.map(numbers)];
    const { values, launches, dispatches } = outcome(() => weights.slice(0, 3).map((w) => mx.matmul(x, w.T)));
    expect([launches, dispatches]).toEqual([1, 1]);
    values.forEach((got, i) =>
      got.forEach((v, n) => {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += (a[k] as number) * (ws[i]?.[n * K + k] as number);
        expect(Math.abs(v - sum)).toBeLessThan(1e-3);
      }),
    );
    expect(same(() => weights.map((w) => mx.matmul(x, w.T)))).toEqual([1, 2]);
  });
  test.each([["float32", dt.float32], ["bfloat16", dt.bfloat16]] as const)("quantized, %s: one row and several, a result of one left alone", (_, dtype) => {
    for (const M of [1, 3]) {
      const a = filled([M, K], 10, dtype);
      const dense = weights.map((w) => w.astype(dtype));
      mx.eval(dense);
      const packed = dense.map((w) => pack(w));
      expect(same(() => packed.slice(0, 2).map((w) => times(a, w)))).toEqual([1, 1]);
      expect(same(() => packed.map((w) => times(a, w)))).toEqual([1, 2]);
      expect(same(() => dense.slice(0, 2).map((w) => mx.matmul(a, w.T)))).toEqual([1, 1]);
    }
  });
  test("small floats, and groups of another size", () => {
    const small = weights.slice(0, 2).map((w) => pack(w, 32, 4, "mxfp4"));
    expect(same(() => small.map(([w, scales]) => mx.quantizedMatmul(x, w as A, scales as A, null as never, true, 32, 4, "mxfp4" as never)))).toEqual([1, 1]);
    const wide = weights.slice(0, 2).map((w) => pack(w, 128, 8));
    expect(same(() => wide.map((w) => times(x, w, 128, 8)))).toEqual([1, 1]);
  });
  test("whatever comes between them, and a left operand that is computed first", () => {
    expect(
      same(() => {
        const h = mx.tanh(x);
        const [q, k, v] = weights.slice(0, 3).map((w) => mx.tanh(mx.matmul(h, w.T))) as [A, A, A];
        return [mx.sum(mx.multiply(mx.sum(q), k)), v];
      }, "vulkan/epilogue"),
    ).toEqual([1, 2]);
  });
  test("not where one needs the other, where the packing differs, or where rows are many", () => {
    const square = filled([K, K], 11);
    expect(same(() => [mx.matmul(x, mx.multiply(square, mx.sum(mx.matmul(x, square.T))).T)])).toEqual([0, 0]);
    const [p, q] = [pack(weights[0] as A), pack(weights[1] as A, 32)];
    expect(same(() => [times(x, p), times(x, q, 32)])).toEqual([0, 0]);
    const many = filled([9, K], 12);
    expect(same(() => weights.slice(0, 2).map((w) => mx.matmul(many, w.T)))).toEqual([0, 0]);
    // Rows of the weights along N have another kernel.
    const turned = [filled([K, 40], 13), filled([K, 48], 14)];
    expect(same(() => turned.map((w) => mx.matmul(x, w)))).toEqual([0, 0]);
    overrideTuned((_, op) => (op.name === "matmul" ? { kernel: "vulkan/matmul/gemv", values: { rows: 2 } } : undefined));
    try {
      expect(same(() => weights.slice(0, 2).map((w) => mx.matmul(x, w.T)))).toEqual([0, 0]);
    } finally {
      overrideTuned(undefined);
    }
  });
  test("plans show them, and compiled functions replay them", () => {
    const build = (a: A): A[] => weights.slice(0, 3).map((w) => mx.matmul(a, w.T));
    const ys = mx.tidy(() => build(x));
    expect(mx.plan(ys).steps.filter((s) => s.kernel !== "view").map((s) => [s.op, s.fused, s.kernel, s.writes.length])).toEqual([["matmul", ["matmul", "matmul"], "vulkan/matmul/gemv+siblings", 3]]);
    mx.enableCompile();
    const f = mx.compile(build);
    const run = (): { values: number[][]; counts: number[] } => {
      const out = f(x);
      const { plansReused, dispatches } = counted(() => mx.eval(out));
      return { values: out.map(numbers), counts: [plansReused, dispatches] };
    };
    run();
    const [again, apart] = [run(), disabling(off, run)];
    expect([again.counts, apart.counts]).toEqual([[1, 1], [0, 3]]);
    expect(again.values).toEqual(apart.values);
  });
  test("recordings run again with other numbers, and nothing is left behind", () => {
    const a = filled([1, K], 15);
    const ys = mx.tidy(() => weights.slice(0, 2).map((w) => mx.matmul(a, w.T)));
    const recording = mx.Recording.evaluate(ys);
    expect(recording.refused).toBeUndefined();
    mx.overwrite(a, numbers(x));
    recording.run();
    expect(ys.map(numbers)).toEqual(outcome(() => weights.slice(0, 2).map((w) => mx.matmul(x, w.T))).values);
    recording.dispose();
    const run = (): unknown => outcome(() => weights.map((w) => mx.matmul(x, w.T)));
    run();
    const before = [mx.getActiveMemory(), mx.getWrappersCount()];
    run();
    expect([mx.getActiveMemory(), mx.getWrappersCount()]).toEqual(before);
  });
});
