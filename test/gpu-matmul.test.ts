import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import type { GpuKernel } from "../src/core/gpu.ts";
import { type MatrixTile, matmulWithTiles, matrixShape, matrixTiles } from "../src/ops/matmul-gpu.ts";
import { type TestArray, elementsOf, gpuDevice, opNamed, runKernel, testKernel, viewOf } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

let state = 7;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 31 - 1;
};
const values = (n: number): number[] => Array.from({ length: n }, random);
const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** [..., rows, columns] stored row-major, transposed, with gaps and an offset, or one matrix for a whole batch. */
type Layout = "row" | "transposed" | "gaps" | "shared";
function matrix(dtype: dt.Dtype, shape: readonly number[], layout: Layout = "row"): TestArray {
  const [rows, columns] = shape.slice(-2) as [number, number];
  const batch = shape.slice(0, -2);
  const gap = layout === "gaps" ? 3 : 1;
  const offset = layout === "gaps" ? 5 : 0;
  const inner = layout === "transposed" ? [1, rows] : [columns * gap, gap];
  let step = rows * columns * gap;
  const strides = batch.map(() => 0);
  if (layout !== "shared")
    for (let i = batch.length - 1; i >= 0; i--) {
      strides[i] = step;
      step *= batch[i] as number;
    }
  return { dtype, shape, strides: [...strides, ...inner], offset, values: values(step + offset) };
}
const types = [dt.float32, dt.float16, dt.bfloat16];
// Rounding of the result. Float32 sums of some hundred products of numbers below 1 stay within 2e-5 in any order; matrix units cut off the sums of 16-bit products.
const tolerance = (dtype: dt.Dtype, K: number) =>
  dtype === dt.float32 ? { relative: 1e-5, absolute: K > 1000 ? 2e-4 : 2e-5 } : { relative: dtype === dt.float16 ? 2 ** -10 : 2 ** -7, absolute: K > 1000 ? 1e-3 : 1e-4 };

describe.skipIf(skipReason)("matmul on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const check = (op: string, inputs: TestArray[], params: object = {}, only?: string): string[] =>
    testKernel(device, op, inputs, params, tolerance((inputs[0] as TestArray).dtype, (inputs[0] as TestArray).shape.at(-1) as number), only);

  for (const dtype of types)
    test(`${dtype}: tiles and few rows, all sizes around a tile, all layouts`, () => {
      for (const [M, N, K] of [[1, 1, 1], [1, 64, 65], [64, 63, 16], [65, 64, 17], [5, 130, 33], [70, 9, 40], [2, 7, 0], [16, 16, 512]] as const)
        expect(check("matmul", [matrix(dtype, [M, K]), matrix(dtype, [K, N])])).toEqual(expect.arrayContaining(["vulkan/matmul/gemv", "vulkan/matmul/tiled"]));
      for (const a of ["row", "transposed", "gaps"] as const)
        for (const b of ["row", "transposed", "gaps"] as const)
          for (const [M, N, K] of [[3, 40, 24], [33, 70, 19]] as const) check("matmul", [matrix(dtype, [M, K], a), matrix(dtype, [K, N], b)]);
    });

  test("batches: broadcast, shared, merged into rows, more than two dimensions, vectors", () => {
    const f = dt.float32;
    check("matmul", [matrix(f, [3, 5, 8]), matrix(f, [8, 6])]);
    check("matmul", [matrix(f, [2, 3, 5, 8], "transposed"), matrix(f, [3, 8, 6])]);
    check("matmul", [matrix(f, [2, 3, 5, 8], "shared"), matrix(f, [2, 3, 8, 6])]);
    check("matmul", [matrix(f, [2, 1, 3, 1, 5, 8]), matrix(f, [1, 4, 3, 2, 8, 6])]);
    check("matmul", [matrix(f, [2, 1, 5, 8]), matrix(f, [1, 3, 8, 6], "transposed")]);
    const vector = (n: number): TestArray => ({ dtype: f, shape: [n], values: values(n) });
    check("matmul", [vector(9), matrix(f, [2, 9, 7])]);
    check("matmul", [matrix(f, [2, 7, 9]), vector(9)]);
    check("matmul", [vector(300), vector(300)]);
  });

  test("addmm: c full, of one row, column or number, with both scales; empty K", () => {
    for (const dtype of [dt.float32, dt.bfloat16])
      for (const c of [[2, 9, 70], [70], [9, 1], [1, 1], [2, 1, 1]]) check("addmm", [matrix(dtype, [2, 9, 40]), matrix(dtype, [40, 70]), { dtype, shape: c, values: values(sizeOf(c)) }], { alpha: 0.5, beta: -2 });
    check("addmm", [matrix(dt.float32, [3, 4, 8], "transposed"), matrix(dt.float32, [3, 8, 5]), matrix(dt.float32, [3, 4, 5], "gaps")], { alpha: 1, beta: 1 });
    check("addmm", [matrix(dt.float32, [3, 0]), matrix(dt.float32, [0, 5]), matrix(dt.float32, [3, 5])], { alpha: 1, beta: 3 });
    check("addmm", [matrix(dt.float32, [1, 8]), { dtype: dt.float32, shape: [8], values: values(8) }, { dtype: dt.float32, shape: [1], values: [2] }], { alpha: 2, beta: 3 });
  });

  test("long sums are divided and added by a second step, with a c and with lists", () => {
    for (const dtype of [dt.float32, dt.bfloat16]) {
      check("matmul", [matrix(dtype, [3, 9000]), matrix(dtype, [9000, 5])]);
      check("addmm", [matrix(dtype, [3, 9000]), matrix(dtype, [9000, 5], "transposed"), matrix(dtype, [3, 5])], { alpha: 0.5, beta: 2 });
      check("matmul", [matrix(dtype, [2, 20, 2050]), matrix(dtype, [2050, 9])]);
    }
    const lists = [[1, 0, 1], [2, 2, 0]].map((list): TestArray => ({ dtype: dt.uint32, shape: [3], values: list }));
    check("gatherMM", [matrix(dt.float32, [2, 3, 9000]), matrix(dt.float32, [3, 9000, 5], "transposed"), ...lists]);
  });

  test("gatherMM: lists choose the matrices; beyond the last is the last", () => {
    const list = (shape: number[], v: number[]): TestArray => ({ dtype: dt.uint32, shape, values: v });
    for (const dtype of [dt.float32, dt.float16])
      for (const [M, N, K] of [[1, 40, 24], [20, 33, 17]] as const) {
        const [l, r] = [list([2, 2], [0, 3, 2, 2]), list([2, 2], [4, 0, 4, 1])];
        expect(check("gatherMM", [matrix(dtype, [2, 2, M, K]), matrix(dtype, [5, K, N], "transposed"), l, r])).toContain("vulkan/matmul/tiled");
        check("gatherMM", [matrix(dtype, [4, M, K], "gaps"), matrix(dtype, [5, K, N]), l, r]);
      }
    const [a, b] = [matrix(dt.float32, [2, 4, 6]), matrix(dt.float32, [3, 6, 5])];
    const views = [a, b, list([2], [1, 9]), list([2], [2, 77])].map(viewOf);
    for (const kernel of opNamed("gatherMM").gpu ?? []) {
      if (kernel.gate?.refuse?.(views, {}, [viewOf({ dtype: dt.float32, shape: [2, 4, 5] })], gpuDevice(device.info))?.startsWith("cannot:")) continue;
      const run = (l: number[], r: number[]) => runKernel(device, { ...kernel, gate: {} }, [a, b, list([2], l), list([2], r)], [{ dtype: dt.float32, shape: [2, 4, 5] }], {});
      expect(run([1, 9], [2, 77])).toEqual(run([1, 1], [2, 2]));
    }
  });

  test("big tiles", () => {
    check("matmul", [matrix(dt.float32, [132, 70, 33]), matrix(dt.float32, [132, 33, 66], "transposed")], {}, "vulkan/matmul/tiled");
    check("matmul", [matrix(dt.bfloat16, [132, 129, 5], "transposed"), matrix(dt.bfloat16, [132, 5, 66])], {}, "vulkan/matmul/tiled");
  });

  const software = (): boolean => device.info.vendorId === 0x10005;
  test("more workgroups than one dimension takes", ({ skip }) => {
    if (software()) skip("slow on a software rasterizer");
    for (const name of ["vulkan/matmul/tiled", "vulkan/matmul/gemv"]) check("matmul", [matrix(dt.float32, [70000, 2, 3]), matrix(dt.float32, [70000, 3, 2])], {}, name);
  });

  for (const dtype of [dt.float16, dt.bfloat16])
    test(`${dtype}: matrix units, every tile and both layouts of the operands`, { timeout: 180_000 }, ({ skip }) => {
      if (!matrixShape(gpuDevice(device.info), dtype.name)) skip("the device has no matrix units for it");
      const tiles: readonly MatrixTile[] = software() ? [{ BM: 32, BN: 16, BK: 16, WM: 16, WN: 16, stages: 2 }] : matrixTiles.flatMap((t) => [t, { ...t, stages: 1 }]);
      for (const t of tiles)
        for (const a of ["row", "transposed"] as const)
          for (const b of ["row", "transposed"] as const)
            for (const [M, N, K] of [[2 * t.BM, t.BN, 2 * t.BK], [t.BM + 1, 2 * t.BN + 7, t.BK + 3], [t.BM - 8, t.BN - 8, 3 * t.BK - 8]] as const) {
              const inputs = [matrix(dtype, [2, M, K], a), matrix(dtype, [2, K, N], b)];
              compare(matmulWithTiles([t]), "matmul", inputs, {}, tolerance(dtype, K));
            }
      const [one] = tiles as [MatrixTile];
      compare(matmulWithTiles([one]), "matmul", [matrix(dtype, [40, 2048]), matrix(dtype, [2048, 24])], {}, tolerance(dtype, 2048));
      for (const N of [40, 43]) compare(matmulWithTiles([one]), "addmm", [matrix(dtype, [2, 33, 24]), matrix(dtype, [24, N]), matrix(dtype, [33, N])], { alpha: 0.5, beta: 3 }, tolerance(dtype, 24));
    });
  /** A kernel that the op does not list, against the op's reference. */
  function compare(kernel: GpuKernel, name: string, inputs: TestArray[], params: object, { relative, absolute }: { relative: number; absolute: number }): void {
    const op = opNamed(name);
    const outputs = op.infer(inputs, params);
    const want = op.reference?.(inputs.map(elementsOf), inputs, params, outputs)[0] as Float64Array;
    const got = runKernel(device, { ...kernel, gate: {} }, inputs, outputs, params)[0] as Float64Array;
    want.forEach((w, i) => {
      if (!(Math.abs((got[i] as number) - w) <= absolute + relative * Math.abs(w))) throw new Error(`[${i}] is ${got[i]}, expected ${w} (${JSON.stringify(inputs.map((x) => [x.shape, x.strides]))})`);
    });
  }
});
