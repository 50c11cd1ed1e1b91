/** Row groups on the GPU as graphs form them: that they engage, that they can be switched off, and what they compute, against float64 loops. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import * as mx from "../src/mx.ts";
import { stats } from "../src/schedule/run.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { skipReason } from "./helpers/vulkan.ts";

type Rows = number[][];
const B = 6;
const N = 45;
const values: Rows = Array.from({ length: B }, (_, r) => Array.from({ length: N }, (_, i) => Math.fround(3 * Math.sin(r * 7.1 + i * 1.3))));
const total = (row: readonly number[]): number => row.reduce((a, b) => a + b, 0);
const mean = (row: readonly number[]): number => total(row) / row.length;
const variance = (row: readonly number[]): number => mean(row.map((x) => (x - mean(row)) ** 2));

interface Program {
  readonly graph: (x: mx.MxArray) => mx.MxArray;
  readonly want: (rows: Rows) => unknown;
}
const programs: Record<string, Program> = {
  "softmax from plain ops": {
    graph: (x) => {
      const powers = mx.exp(mx.subtract(x, mx.max(x, -1, true)));
      return mx.divide(powers, mx.sum(powers, -1, true));
    },
    want: (rows) =>
      rows.map((row) => {
        const powers = row.map((v) => Math.exp(v - Math.max(...row)));
        return powers.map((p) => p / total(powers));
      }),
  },
  "layer norm from plain ops": {
    graph: (x) => {
      const centred = mx.subtract(x, mx.mean(x, -1, true));
      return mx.multiply(centred, mx.rsqrt(mx.add(mx.mean(mx.square(centred), -1, true), 1e-5)));
    },
    want: (rows) => rows.map((row) => row.map((v) => (v - mean(row)) / Math.sqrt(variance(row) + 1e-5))),
  },
  "mean of squares over all elements: rows of two dimensions": { graph: (x) => mx.mean(mx.square(mx.subtract(x, 0.5))), want: (rows) => mean(rows.flat().map((v) => (v - 0.5) ** 2)) },
  "the same of every other column: rows of two dimensions with gaps": {
    graph: (x) => mx.mean(mx.square(x.index(mx.Slice(), mx.Slice(null, null, 2)))),
    want: (rows) => mean(rows.flatMap((row) => row.filter((_, i) => i % 2 === 0)).map((v) => v ** 2)),
  },
  "rows of a transposed array": { graph: (x) => mx.sum(mx.abs(mx.transpose(x)), -1), want: (rows) => Array.from({ length: N }, (_, i) => total(rows.map((row) => Math.abs(row[i] as number)))) },
};

describe.skipIf(skipReason)("row groups on the GPU", () => {
  beforeAll(() => {
    chooseTestDevice();
    process.env["MLX_VK_HAZARDS"] = "1";
    mx.setDefaultDevice("gpu");
  });
  afterAll(() => {
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
  });
  afterEach(() => {
    vi.unstubAllEnvs();
  });
  const formed = (work: () => void): number => {
    const before = stats.rowGroups;
    work();
    return stats.rowGroups - before;
  };
  const run = (p: Program): number[] => [mx.tidy(() => p.graph(mx.array(values))).tolist()].flat(2) as number[];

  for (const [name, p] of Object.entries(programs)) {
    it(name, () => {
      const want = [p.want(values)].flat(2) as number[];
      const plain: number[] = [];
      vi.stubEnv("MLX_STRICT", "1");
      vi.stubEnv("MLX_DISABLE", "vulkan/generated-rows");
      expect(formed(() => plain.push(...run(p)))).toBe(0);
      vi.stubEnv("MLX_DISABLE", "");
      const got: number[] = [];
      expect(formed(() => got.push(...run(p)))).toBe(name.includes("gaps") ? 0 : 1);
      // Sums of up to 270 float32 numbers as trees, exp within 2 ulp.
      for (const results of [got, plain]) {
        expect(results).toHaveLength(want.length);
        for (const [i, x] of want.entries()) expect(Math.abs((results[i] as number) - x)).toBeLessThan(2e-6 * Math.max(1, Math.abs(x)));
      }
    });
  }
  it("explain names the kernel; MLX_FUSE=0 and MLX_DISABLE=vulkan/gen_rows take it away", () => {
    const y = (): mx.MxArray => mx.tidy(() => (programs["layer norm from plain ops"] as Program).graph(mx.array(values)));
    expect(mx.explain(y())).toContain("vulkan/generated-rows");
    for (const [flag, value] of [["MLX_FUSE", "0"], ["MLX_DISABLE", "vulkan/gen_rows"]] as const) {
      vi.stubEnv(flag, value);
      expect(mx.explain(y())).not.toContain("generated-rows");
      vi.unstubAllEnvs();
    }
  });
});
