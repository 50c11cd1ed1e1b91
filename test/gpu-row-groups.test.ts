/** Row groups on the GPU as graphs form them: that they engage, that they can be switched off, and what they compute, against float64 loops. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import * as mx from "../src/mx.ts";
import * as losses from "../src/nn/losses.ts";
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

/** Arrays beside x: elements, and numbers along a row. */
const others: Rows = values.map((row) => row.map((v) => Math.fround(Math.cos(3 * v))));
const weights = Array.from({ length: N }, (_, i) => Math.fround(1 + Math.sin(i)));
const biases = Array.from({ length: N }, (_, i) => Math.fround(Math.cos(5 * i)));
const sums = (rows: Rows): Rows => rows.map((row, r) => row.map((v, i) => v / 2 + (others[r]?.[i] as number)));
const softmaxOf = (row: number[]): number[] => {
  const powers = row.map((v) => Math.exp(v - Math.max(...row)));
  return powers.map((p) => p / total(powers));
};

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
  "softmax of scaled and masked rows": { graph: (x) => mx.softmax(mx.add(mx.multiply(x, 0.5), mx.array(others)), -1), want: (rows) => sums(rows).map(softmaxOf) },
  "layerNorm of a sum, with weight and bias, a product behind": {
    graph: (x) => mx.multiply(mx.fast.layerNorm(mx.add(mx.multiply(x, 0.5), mx.array(others)), mx.array(weights), mx.array(biases), 1e-3), mx.array(others)),
    want: (rows) => sums(rows).map((row, r) => row.map((v, i) => (((v - mean(row)) / Math.sqrt(variance(row) + 1e-3)) * (weights[i] as number) + (biases[i] as number)) * (others[r]?.[i] as number))),
  },
  "rmsNorm without a weight, silu behind": {
    graph: (x) => {
      const y = mx.fast.rmsNorm(x, null, 1e-3);
      return mx.multiply(y, mx.sigmoid(y));
    },
    want: (rows) => rows.map((row) => row.map((v) => v / Math.sqrt(mean(row.map((u) => u * u)) + 1e-3)).map((y) => y / (1 + Math.exp(-y)))),
  },
  "cross entropy of computed logits": {
    graph: (x) => losses.crossEntropy(mx.multiply(mx.tanh(x), 3), mx.array([0, 44, 7, 7, 31, 12], mx.int32)),
    want: (rows) => rows.map((row) => row.map((v) => 3 * Math.tanh(v))).map((row, r) => Math.log(total(row.map(Math.exp))) - (row[[0, 44, 7, 7, 31, 12][r] as number] as number)),
  },
  "argmax of a formula": { graph: (x) => mx.argmax(mx.multiply(x, -2), -1), want: (rows) => rows.map((row) => row.indexOf(Math.min(...row))) },
  "norm of a difference, all elements": { graph: (x) => mx.sqrt(mx.sum(mx.square(mx.subtract(x, mx.array(others))))), want: (rows) => Math.sqrt(total(rows.flatMap((row, r) => row.map((v, i) => (v - (others[r]?.[i] as number)) ** 2)))) },
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
  it("softmax and norms alone keep their kernels", () => {
    mx.tidy(() => {
      const x = mx.array(values);
      expect(formed(() => mx.eval(mx.softmax(x, -1), mx.fast.rmsNorm(x, mx.array(weights), 1e-3), mx.fast.layerNorm(x, null, null, 1e-3)))).toBe(0);
    });
  });
  it("a sum that a product's kernel makes is not part of the norm behind it", () => {
    const [a, b, c] = [mx.random.normal([128, 64]), mx.random.normal([64, 96]), mx.random.normal([128, 96])];
    const graph = (): mx.MxArray[] => {
      const h = mx.add(c, mx.matmul(a, b));
      return [h, mx.fast.rmsNorm(h, null, 1e-3)];
    };
    const [before, groups] = [stats.productSums, stats.rowGroups];
    const got = mx.tidy(() => graph().map((y) => y.tolist()));
    mx.eval(mx.tidy(graph));
    const joined = stats.productSums - before;
    // The product's kernel takes the sum where it can, the row group where not; never is the sum a pass of its own.
    expect(joined + stats.rowGroups - groups).toBeGreaterThan(0);
    expect(mx.explain(mx.tidy(graph))).toContain(joined > 0 ? "for matmul and add" : "rmsNorm with add");
    vi.stubEnv("MLX_FUSE", "0");
    const plain = mx.tidy(() => graph().map((y) => y.tolist()));
    [got, plain].map((ys) => ys.flat(3) as number[]).reduce((p, q) => {
      q.forEach((v, i) => Math.abs(v - (p[i] as number)) < 1e-4 || expect(p[i]).toBe(v));
      return q;
    });
  });
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
