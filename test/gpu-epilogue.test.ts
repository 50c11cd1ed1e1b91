/** Elementwise ops that a product's GPU kernel computes as it stores its result: against the same ops one after the other (the same bits), and against float64. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { shaderCode } from "../src/backend/vulkan/shaders.ts";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { epilogueOf, withEpilogue } from "../src/codegen/epilogue-spirv.ts";
import * as dt from "../src/core/dtype.ts";
import { expr as e } from "../src/core/expr.ts";
import { gelu, silu } from "../src/nn/layers/activations.ts";
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
const apart = "vulkan/epilogue,vulkan/residual";
function outcome(build: () => A | A[]): { values: number[][]; groups: number; dispatches: number } {
  const results = [mx.tidy(build)].flat() as A[];
  const { productEpilogues: groups, dispatches } = counted(() => mx.eval(results));
  const values = results.map(numbers);
  for (const r of results) r.dispose();
  return { values, groups, dispatches };
}
/** The same bits with and without; how many groups were joined. */
function same(build: () => A | A[], others = ""): number {
  const [joined, separate] = [disabling(others, () => outcome(build)), disabling(`${apart},${others}`, () => outcome(build))];
  expect(joined.values).toEqual(separate.values);
  expect([separate.groups, separate.dispatches - joined.dispatches]).toEqual([0, joined.groups]);
  return joined.groups;
}

describe.skipIf(skipReason)("elementwise ops after a product on the GPU", () => {
  const given = process.env["MLX_DISABLE"];
  let [x, w, bias, like]: A[] = [];
  beforeAll(() => {
    chooseTestDevice();
    delete process.env["MLX_DISABLE"];
    mx.setDefaultDevice("gpu");
    [x, w, bias, like] = [filled([2, 9, 20], 1), filled([20, 16], 2), filled([16], 3), filled([2, 9, 16], 4)];
  });
  afterAll(() => {
    if (given !== undefined) process.env["MLX_DISABLE"] = given;
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
  });
  const [X, W, B, L] = [(): A => x as A, (): A => w as A, (): A => bias as A, (): A => like as A];
  const layer = (): A => mx.add(gelu(mx.add(mx.matmul(X(), W()), B())), L());

  test("bias, activation and residual connection: one dispatch, and what float64 says", () => {
    const { values: [got], groups, dispatches } = outcome(layer);
    expect([groups, dispatches]).toEqual([1, 1]);
    const [a, b, c, d] = [X(), W(), B(), L()].map(numbers) as [number[], number[], number[], number[]];
    // erf by the series of its Taylor polynomial: arguments are below 6.
    const erf = (z: number): number => {
      let [term, sum] = [z, z];
      for (let n = 1; n < 200; n++) sum += (term *= (-z * z) / n) / (2 * n + 1);
      return Math.abs(z) > 5 ? Math.sign(z) : (2 / Math.sqrt(Math.PI)) * sum;
    };
    got?.forEach((v, i) => {
      let z = c[i % 16] as number;
      for (let k = 0; k < 20; k++) z += (a[Math.floor(i / 16) * 20 + k] as number) * (b[k * 16 + (i % 16)] as number);
      expect(Math.abs(v - (0.5 * z * (1 + erf(z * Math.SQRT1_2)) + (d[i] as number)))).toBeLessThan(2e-5);
    });
    expect(same(layer)).toBe(1);
    expect(disabling("vulkan/epilogue", () => outcome(layer))).toMatchObject({ groups: 0, dispatches: 2 });
  });
  test("explain and plan show it", () => {
    const y = mx.tidy(layer);
    expect(mx.explain(y)).toMatch(/^add with multiply multiply add erf multiply add matmul: .*\[gpu\]\n {2}gpu: vulkan\/matmul\/(tiled|coopmat)\+epilogue$/);
    expect(mx.plan(y).steps.map((s) => [s.op, s.fused.includes("matmul"), s.kernel])).toEqual([["add", true, "vulkan/matmul/tiled+epilogue"]]);
    disabling("vulkan/epilogue", () => expect(mx.plan(y).steps.map((s) => s.op)).toEqual(["matmul", "add"]));
    expect(outcome(() => y).groups).toBe(1);
  });
  test("operands of every kind, the product more than once, and all layouts of the product's own", () => {
    expect(same(() => mx.multiply(silu(mx.matmul(X(), W())), L()))).toBe(1);
    expect(same(() => mx.multiply(silu(mx.matmul(X(), W())), mx.matmul(X(), W())))).toBe(1);
    expect(same(() => mx.maximum(mx.addmm(B(), X(), W()), 0))).toBe(1);
    expect(same(() => mx.tanh(mx.matmul(W().T, mx.transpose(X(), [0, 2, 1]))))).toBe(1);
  });
  test("long sums in parts, and tiles of 128", () => {
    const [a, b] = [filled([20, 1100], 5), filled([1100, 24], 6)];
    expect(same(() => mx.multiply(mx.tanh(mx.matmul(a, b)), 0.5))).toBe(1);
    const [c, d, r] = [filled([130, 20], 7), filled([20, 140], 8), filled([130, 140], 9)];
    overrideTuned((_, op) => (op.name === "matmul" ? { kernel: "vulkan/matmul/tiled", values: { tile: 8 } } : undefined));
    try {
      expect(same(() => mx.add(mx.square(mx.matmul(c, d)), r))).toBe(1);
    } finally {
      overrideTuned(undefined);
    }
  });
  test.each([["float16", dt.float16], ["bfloat16", dt.bfloat16]] as const)("%s: rounded where it would be, on matrix units too", (_, dtype) => {
    // N is 40: rows begin at multiples of 16 bytes; and 20: they do not.
    for (const N of dtype === dt.float16 ? [40, 20] : [40]) {
      const [a, b, row, r] = [filled([24, 48], 10, dtype), filled([48, N], 11, dtype), filled([N], 12, dtype), filled([24, N], 13, dtype)];
      expect(same(() => mx.multiply(silu(mx.add(mx.matmul(a, b), row)), r))).toBe(1);
      if (N === 40) expect(same(() => mx.multiply(silu(mx.add(mx.matmul(a, b), row)), r), "vulkan/matmul/coopmat")).toBe(1);
    }
  });
  test.each([["float32", dt.float32], ["float16", dt.float16]] as const)("quantized products of %s, in one part and in several", (_, dtype) => {
    for (const [M, K] of [[40, 64], [36, 1024]] as const) {
      const [q, scales, biases] = mx.quantize(filled([32, K], 14, dtype), 64, 4) as [A, A, A];
      const [a, row, r] = [filled([M, K], 15, dtype), filled([32], 16, dtype), filled([M, 32], 17, dtype)];
      mx.eval(q, scales, biases);
      expect(same(() => mx.multiply(silu(mx.add(mx.quantizedMatmul(a, q, scales, biases, true, 64, 4), row)), r))).toBe(1);
    }
  });
  test("few rows: matrices along K, along N, and packed; sums that are not finite", () => {
    const [a, along, row, r] = [filled([2, 256], 30), filled([40, 256], 31), filled([40], 32), filled([2, 40], 33)];
    const across = mx.contiguous(along.T);
    const [q, scales, biases] = mx.quantize(along, 64, 4) as [A, A, A];
    const square = filled([40, 40], 34);
    const huge = mx.where(mx.greater(a, 1.9), Number.POSITIVE_INFINITY, a);
    mx.eval(across, q, scales, biases, huge);
    const finish = (y: A, times: A): A => mx.multiply(silu(mx.add(y, row)), times);
    expect(same(() => finish(mx.matmul(a, along.T), r))).toBe(1);
    expect(same(() => finish(mx.matmul(a, across), r))).toBe(1);
    expect(same(() => finish(mx.quantizedMatmul(a, q, scales, biases, true, 64, 4), r))).toBe(1);
    // The result may lie over an operand, and elements that are not finite are made a second time.
    expect(same(() => finish(mx.quantizedMatmul(huge, q, scales, biases, true, 64, 4), mx.matmul(r, square)))).toBe(1);
  });
  test("not where somebody else sees the product, nor where the kernel can not read an operand", () => {
    expect(same(() => {
      const y = mx.matmul(X(), W());
      return [mx.tanh(y), mx.sum(y)];
    })).toBe(0);
    const held = mx.matmul(X(), W());
    expect(outcome(() => mx.tanh(held)).groups).toBe(0);
    held.dispose();
    // The result of a column is made turned; products of few rows run side by side, and one with an epilogue would wait for the other.
    expect(same(() => mx.tanh(mx.matmul(filled([20, 20], 18), filled([20, 2], 25))))).toBe(0);
    const few = filled([4, 20], 18);
    expect(same(() => mx.multiply(silu(mx.matmul(few, W())), mx.matmul(few, mx.exp(W()))))).toBe(0);
    expect(same(() => mx.multiply(mx.tanh(mx.matmul(X(), W())), filled([9, 1], 19)))).toBe(0);
    // What has the product's shape is joined, what is larger is not.
    expect(same(() => mx.multiply(mx.tanh(mx.matmul(X(), W())), filled([3, 2, 9, 16], 20)))).toBe(1);
    expect(same(() => mx.greater(mx.matmul(X(), W()), 0).astype(dt.int32))).toBe(0);
    expect(same(() => mx.multiply(mx.tanh(mx.matmul(X(), W())), filled([2, 16, 9], 21).transpose(0, 2, 1)))).toBe(0);
    expect(disabling("vulkan/generated", () => outcome(() => mx.tanh(mx.matmul(X(), W())))).groups).toBe(0);
  });
  test("the result may lie over an operand that nobody needs any more", () => {
    const square = filled([16, 16], 22);
    expect(same(() => {
      const h = mx.matmul(square, square);
      return mx.add(mx.tanh(mx.matmul(h, square)), h);
    })).toBe(1);
  });
  test("gradients, and plans of compiled functions", () => {
    const v = filled([16, 20], 23);
    const loss = (a: A, b: A): A => mx.mean(mx.square(mx.matmul(mx.tanh(mx.matmul(X(), a)), b)));
    const step = mx.valueAndGrad(loss as (...args: unknown[]) => A, [0, 1]) as unknown as (...args: A[]) => [A, A[]];
    expect(same(() => step(W(), v).flat() as A[])).toBeGreaterThan(0);
    mx.enableCompile();
    const f = mx.compile((a: A): A[] => [gelu(mx.add(mx.matmul(a, W()), B()))]);
    const run = (): { values: number[][]; counts: number[] } => {
      const out = f(X());
      const { plansReused, dispatches } = counted(() => mx.eval(out));
      return { values: out.map(numbers), counts: [plansReused, dispatches] };
    };
    run();
    const [again, separate] = [run(), disabling(apart, run)];
    expect([again.counts, separate.counts]).toEqual([[1, 1], [0, 2]]);
    expect(again.values).toEqual(separate.values);
  });

  test.skipIf(spawnSync("spirv-val", ["--version"]).status !== 0)("kernels pass spirv-val", () => {
    const folder = mkdtempSync(join(tmpdir(), "epilogue-"));
    const { device } = vulkanBackend();
    const v = e.narrow(e.input(0, dt.float32), dt.bfloat16);
    const value = e.add(e.mul(v, e.exp(v)), e.tanh(e.input(1, dt.float32)));
    try {
      // Validators of 2023 do not know cooperative matrices.
      for (const build of ["matmul/tiled4e_f32", "matmul/tiled8e_f16", "matmul/sume_bf16", "quantized/mm_tilede_bf16", "quantized/sume"]) {
        for (const features of [device.features, { ...device.features, signedZeroInfNanPreserveFloat32: true }]) {
          const own = { ...device, features };
          const made = epilogueOf(value, own);
          if (typeof made === "string") throw new Error(made);
          const file = join(folder, "a.spv");
          writeFileSync(file, Buffer.from(withEpilogue(build, made, own).code(shaderCode(build)).buffer));
          const run = spawnSync("spirv-val", ["--target-env", "vulkan1.3", file], { encoding: "utf8" });
          expect([build, run.stdout + run.stderr]).toEqual([build, ""]);
        }
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
