/** What saves the host's time on the GPU: launches that are described once, and prompts whose first layers start while the later ones are recorded. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { core as mx, type MxArray } from "../src/index.ts";
import { load, makePromptCache } from "../src/llm/index.ts";
import { launchCounters } from "../src/schedule/launches.ts";
import { setTracer } from "../src/schedule/run.ts";
import { chooseTestDevice, counted } from "./helpers/gpu-scheduler.ts";
import { demo4bit, idsOf, values } from "./helpers/llm.ts";
import { skipReason } from "./helpers/vulkan.ts";

const names = ["MLX_STRICT", "MLX_VK_HAZARDS", "MLX_VK_KNOWN_LAUNCHES", "MLX_VK_EARLY_START", "MLX_DISABLE"] as const;
const before = names.map((n) => process.env[n]);
beforeAll(() => {
  if (!skipReason) chooseTestDevice();
});
beforeEach(() => {
  if (skipReason) return;
  Object.assign(process.env, { MLX_STRICT: "1", MLX_VK_HAZARDS: "1" });
  mx.setDefaultDevice("gpu");
});
afterEach(() => {
  setTracer(undefined);
  mx.setDefaultDevice("cpu");
  names.forEach((n, i) => {
    if (before[i] === undefined) delete process.env[n];
    else process.env[n] = before[i];
  });
});
afterAll(() => {
  if (!skipReason) vulkanBackend().close();
});

/** Launches that were known and that had to be described while `work` ran, and the kernels that ran. */
function seen(work: () => void): { found: number; made: number; kernels: string[] } {
  const start = { ...launchCounters };
  const kernels: string[] = [];
  setTracer({ recorded: (_node, kernel) => void kernels.push(kernel) });
  work();
  setTracer(undefined);
  return { found: launchCounters.found - start.found, made: launchCounters.made - start.made, kernels };
}
const numbers = (n: number, seed: number): MxArray => mx.array(Float32Array.from({ length: n }, (_, i) => Math.sin(seed + 1.7 * i)));

describe.skipIf(skipReason)("launches", () => {
  /** Ops that differ in one thing that a launch depends on: sizes, layouts, places, parameters. The second half repeats the first on other values. */
  function mixture(): number[][] {
    const results: MxArray[] = [];
    for (const seed of [1, 2]) {
      const x = numbers(96, seed).reshape([8, 12]);
      const rows = [x, x.reshape([12, 8]).transpose([1, 0]), x.index(mx.Slice(2, 6)), x.index(mx.Slice(4, 8)), x.index(mx.Slice(), mx.Slice(3, 11))];
      for (const r of rows) results.push(mx.softmax(r, -1), mx.softmax(r, 0), mx.sum(r, 0), mx.sum(r, 1), mx.max(r, [0, 1]));
      results.push(mx.matmul(x, x.T), mx.matmul(x.T, x), mx.cumsum(x, 0), mx.cumsum(x, 0, true), mx.cumsum(x, 1, false, false));
      results.push(mx.fast.rmsNorm(x, numbers(12, 5), 1e-5), mx.fast.rmsNorm(x, numbers(12, 5), 0.5));
      for (const at of [0, 1, 7]) results.push(mx.roll(x, at, 0));
    }
    mx.eval(results);
    return results.map((r) => mx.reshape(r, [-1]).tolist() as number[]);
  }
  test("give what is described anew each time, bit for bit", () => {
    let known: number[][] = [];
    let fresh: number[][] = [];
    expect(seen(() => (known = mixture())).found).toBeGreaterThan(30);
    process.env["MLX_VK_KNOWN_LAUNCHES"] = "0";
    expect(seen(() => (fresh = mixture()))).toMatchObject({ found: 0, made: 0 });
    expect(known).toEqual(fresh);
  });
  const norm = (x: MxArray, eps = 1e-5): void => {
    mx.eval(mx.fast.rmsNorm(x, mx.ones([x.shape.at(-1) as number], x.dtype), eps));
  };
  test("are described once for equal calls, and again for another shape, dtype, layout, offset or parameter", () => {
    const x = numbers(20, 3).reshape([4, 5]);
    const y = numbers(40, 4).reshape([8, 5]);
    const half = x.astype(mx.bfloat16);
    const part = [0, 4].map((i) => y.index(mx.Slice(i, i + 4)));
    mx.eval(x, y, half, part);
    norm(x, 0.25);
    expect(seen(() => norm(mx.array(numbers(20, 9).tolist() as number[]).reshape([4, 5]), 0.25)).made).toBe(0);
    for (const other of [() => norm(y, 0.25), () => norm(half, 0.25), () => norm(part[1] as MxArray, 0.25), () => norm(x, 0.75)]) expect(seen(other).made).toBeGreaterThan(0);
    expect(seen(() => norm(part[0] as MxArray, 0.25)).made).toBe(0);
  });
  test("are forgotten when a flag changes that decides about kernels", () => {
    const x = numbers(21, 3).reshape([3, 7]);
    expect(seen(() => norm(x)).kernels).toContain("vulkan/norm/rms");
    process.env["MLX_DISABLE"] = "vulkan/norm/rms";
    expect(seen(() => norm(x)).kernels).not.toContain("vulkan/norm/rms");
    delete process.env["MLX_DISABLE"];
    expect(seen(() => norm(x)).kernels).toContain("vulkan/norm/rms");
  });
});

describe.skipIf(skipReason)("a long prompt", () => {
  const ids = Array.from({ length: 40 }, (_, i) => (37 * i) % 1000);
  test("starts before all of it is recorded, with the same results", async () => {
    const { model } = await load(demo4bit);
    /** Logits behind two chunks, and what was counted. */
    const run = (): { logits: number[]; counts: ReturnType<typeof counted> } => {
      const cache = makePromptCache(model);
      let logits: number[] = [];
      const counts = counted(() => {
        for (const chunk of [ids, ids.slice(0, 33)]) {
          const [l] = mx.tidy(() => [model.nextLogits(idsOf(chunk), cache), cache] as const);
          logits = [...logits, ...values(l)];
          l.dispose();
        }
      });
      for (const c of cache) c.dispose();
      return { logits, counts };
    };
    const early = run();
    process.env["MLX_VK_EARLY_START"] = "0";
    const late = run();
    expect(early.logits).toEqual(late.logits);
    expect(early.counts).toMatchObject({ fallbacks: 0, dispatches: late.counts.dispatches });
    // Of six layers the first and the fifth are handed over early, in each chunk.
    expect(early.counts.evaluations - late.counts.evaluations).toBe(4);
    expect(early.counts.submissions).toBeGreaterThan(late.counts.submissions);
  });
  test("is left whole within a transform and on the CPU", () => {
    expect(mx.startsEarly()).toBe(true);
    let inside = true;
    mx.grad((x: MxArray) => {
      inside = mx.startsEarly();
      return mx.sum(mx.square(x));
    })(mx.ones([3]));
    expect(inside).toBe(false);
    mx.setDefaultDevice("cpu");
    expect(mx.startsEarly()).toBe(false);
  });
  test("arrays that a transform traces are not evaluated", () => {
    const g = mx.grad((x: MxArray) => {
      const y = mx.square(x);
      mx.start(y);
      return mx.sum(y);
    })(mx.ones([3]));
    expect(g.tolist()).toEqual([2, 2, 2]);
  });
});
