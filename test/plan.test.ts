/**
 * Plans as data: what evaluations do, in which order, and in which memory. The whole texts are snapshots (`vitest -u` writes them anew after a change of the planner, to be
 * read as a diff); what must hold of any planner is asserted beside them.
 */
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { core as mx, nn, optimizers } from "../src/index.ts";
import { load, makePromptCache } from "../src/llm/index.ts";
import { placeInArena } from "../src/schedule/plan-memory.ts";
import type { Slot } from "../src/schedule/plan-memory.ts";
import { stats } from "../src/schedule/run.ts";
import { randomSource } from "./helpers/check.ts";
import { demo4bit } from "./helpers/llm.ts";

type A = mx.MxArray;
// Kernels and scratch memory depend on these; read when the first op runs.
process.env["MLX_THREADS"] = "2";
process.env["MLX_RELAXED_SIMD"] = "0";
// Plans need generated kernels, and snapshots the usual routes.
for (const f of ["MLX_DISABLE", "MLX_FORCE", "MLX_FUSE", "MLX_CHECK"]) delete process.env[f];
beforeAll(() => mx.setDefaultDevice("cpu"));
afterEach(() => {
  delete process.env["MLX_DEBUG"];
});

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
const opsOf = (p: mx.PlanReport): string[] => p.steps.flatMap((s) => [s.op, ...s.fused]);
/** What holds of every plan. */
function checkPlan(p: mx.PlanReport): void {
  expect(p.commands).toBe(sum(p.steps.map((s) => s.commands)));
  expect(p.bytesRead + p.bytesWritten).toBe(sum(p.steps.flatMap((s) => [...s.reads, ...s.writes].map((o) => o.bytes))));
  expect(p.arenaBytes).toBeLessThanOrEqual(sum(p.buffers.filter((b) => b.at !== undefined).map((b) => Math.ceil(b.bytes / 64) * 64)));
  const names = new Set(p.buffers.map((b) => b.name));
  expect(names.size).toBe(p.buffers.length);
  for (const s of p.steps) for (const o of [...s.reads, ...s.writes]) if (o.buffer !== undefined) expect(names.has(o.buffer), o.buffer).toBe(true);
  // Nothing is read before it is written.
  const written = new Set(p.buffers.filter((b) => b.name.startsWith("in") || b.name.startsWith("const")).map((b) => b.name));
  for (const s of p.steps) {
    for (const o of s.reads) if (o.buffer !== undefined) expect(written.has(o.buffer), `${s.op} reads ${o.buffer}`).toBe(true);
    for (const o of s.writes) if (o.buffer !== undefined) written.add(o.buffer);
  }
}
/** The plan of arrays, checked, with its text as a snapshot. */
function planned(...trees: unknown[]): mx.PlanReport {
  const p = mx.plan(...trees);
  checkPlan(p);
  expect(mx.formatPlan(mx.plan(...trees)), "planning changes nothing").toBe(mx.formatPlan(p));
  expect(mx.formatPlan(p)).toMatchSnapshot();
  return p;
}
const filled = (shape: number[], seed = 1): A => {
  const next = randomSource(seed);
  const a = mx.reshape(mx.array(Float32Array.from({ length: sum([shape.reduce((x, y) => x * y, 1)]) }, () => next() - 0.5)), shape);
  mx.eval(a);
  return a;
};

describe("plans", () => {
  test("a sum of products over the first axis, and the products", () => {
    const [x, y] = [filled([700, 40]), filled([700, 40], 2)];
    const p = planned(
      mx.tidy(() => {
        const z = mx.multiply(x, y);
        return [mx.sum(z, 0), z];
      }),
    );
    expect(p.steps.map((s) => s.kernel)).toEqual(["wasm/generated-columns"]);
  });
  test("softmax of a product", () => {
    const [x, y] = [filled([4, 8]), filled([8, 16], 2)];
    const p = planned(mx.tidy(() => mx.softmax(mx.multiply(mx.matmul(x, y), 0.5), -1)));
    expect(p.buffers.filter((b) => b.name.startsWith("out")).map((b) => b.bytes)).toEqual([256]);
  });
  test("losses: cross entropy, and the mean of squares", () => {
    const [logits, targets, x, y] = [filled([6, 10]), mx.array([1, 2, 3, 4, 5, 6], mx.int32), filled([32], 3), filled([32], 4)];
    planned(mx.tidy(() => mx.mean(nn.losses.crossEntropy(logits, targets))));
    const p = planned(mx.tidy(() => nn.losses.mseLoss(x, y)));
    expect(p.commands).toBeLessThanOrEqual(2);
  });
  test("a training step of a small network: groups, memory used again", () => {
    mx.random.seed(1);
    const model = new nn.Sequential(new nn.Linear(8, 16), nn.relu, new nn.Linear(16, 4));
    const optimizer = new optimizers.SGD(0.1);
    const [x, y] = [filled([12, 8]), mx.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3], mx.int32)];
    optimizer.init(model.trainableParameters());
    mx.eval(model.parameters(), optimizer.state);
    const lossAndGradients = nn.valueAndGrad(model, (a: A, b: A) => mx.mean(nn.losses.crossEntropy(model.forward(a), b)));
    const results = mx.tidy(() => {
      const [loss, gradients] = lossAndGradients(x, y);
      return [loss, optimizer.applyGradients(gradients, model.parameters())];
    });
    const p = planned(results);
    expect(p.arenaBytes).toBeLessThan(p.temporaryBytes);
    expect(p.steps.filter((s) => s.fused.length > 0).length).toBeGreaterThan(2);
    expect(opsOf(p).filter((op) => op === "matmul" || op === "addmm").length).toBeGreaterThanOrEqual(4);
  });
  test("a layer of a language model: several tokens, and one that is written into the cache in place", async () => {
    const { model } = await load(demo4bit);
    mx.eval((model as unknown as nn.Module).parameters());
    const layers = (model as unknown as { model: { layers: { forward: (x: A, batch: number, length: number, mask: unknown, cache: unknown, at?: unknown) => A }[] } }).model.layers;
    const layer = layers[0] as (typeof layers)[number];
    const width = ((model as unknown as { model: { embedTokens: { forward: (ids: A) => A } } }).model.embedTokens.forward(mx.array([[1]], mx.int32)).shape[2] ?? 0) as number;
    const cache = makePromptCache(model)[0] as ReturnType<typeof makePromptCache>[number];
    const h = mx.tidy(() => [layer.forward(filled([1, 7, width]), 1, 7, "causal", cache), cache] as const)[0];
    planned(h, cache.state);
    mx.eval(h, cache.state);
    const at = { position: mx.array([7], mx.int32), length: mx.array([8], mx.int32) };
    const next = mx.tidy(() => [layer.forward(filled([1, 1, width]), 1, 1, null, cache, at), cache] as const)[0];
    const p = planned(next, cache.state);
    // Both buffers of the cache are taken over, not copied.
    expect(p.buffers.filter((b) => b.taken && b.bytes > 4096).map((b) => b.bytes)).toEqual(cache.state.map((c) => c.nbytes));
    expect(opsOf(p)).not.toContain("copy");
  });
  test("nothing to do; nothing is counted", () => {
    const before = { ...stats };
    expect(mx.plan(filled([2])).steps).toEqual([]);
    expect({ ...stats, evaluations: 0, commands: 0 }).toEqual({ ...before, evaluations: 0, commands: 0 });
  });
  test("no plan: an error that says why", () => {
    process.env["MLX_DISABLE"] = "wasm/generated";
    try {
      expect(() => mx.plan(mx.tidy(() => mx.exp(filled([3]))))).toThrow("[plan] there is no plan of this: elementwise ops are interpreted");
    } finally {
      delete process.env["MLX_DISABLE"];
    }
  });
  test("a compiled call is planned as the ops that it stands for", () => {
    const f = mx.compile((x: A) => mx.softmax(mx.matmul(x, x), -1));
    mx.eval(f(filled([3, 3])));
    expect(opsOf(mx.plan(f(filled([3, 3]))))).toEqual(["matmul", "softmax"]);
  });
  test("MLX_DEBUG=3 prints them", () => {
    const lines: string[] = [];
    const write = process.stderr.write;
    process.stderr.write = ((text: string) => lines.push(text) > 0) as never;
    try {
      process.env["MLX_DEBUG"] = "3";
      mx.eval(mx.tidy(() => mx.exp(mx.zeros([3]))));
    } finally {
      process.stderr.write = write;
    }
    expect(lines.join("")).toMatch(/^plan: \d+ steps, \d+ commands, \d+ bytes read, 24 bytes written\n/);
  });
});

describe("the arena", () => {
  const slot = (from: number, to: number, bytes: number): Slot => ({ kind: "temporary", bytes, index: 0, from, to, offset: -1, start: 0, storage: undefined, written: true });
  const meets = (a: Slot, b: Slot): boolean => a.from < b.to && b.from < a.to;
  const overlaps = (a: Slot, b: Slot): boolean => a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  test("no two temporaries that live at one time overlap; it is little larger than what lives at once", () => {
    const next = randomSource(9);
    for (let round = 0; round < 20; round++) {
      const slots = Array.from({ length: 60 }, () => {
        const from = Math.floor(next() * 50);
        return slot(from, from + 1 + Math.floor(next() * 12), Math.floor(next() * 40) * 16);
      });
      const bytes = placeInArena(slots, 16);
      for (const a of slots) for (const b of slots) if (a !== b && meets(a, b)) expect(overlaps(a, b)).toBe(false);
      const most = Math.max(...Array.from({ length: 64 }, (_, t) => sum(slots.filter((s) => s.from <= t && t < s.to).map((s) => s.bytes))));
      expect(Math.max(...slots.map((s) => s.offset + s.bytes))).toBeLessThanOrEqual(bytes);
      expect(bytes).toBeGreaterThanOrEqual(most);
      expect(bytes).toBeLessThanOrEqual(1.5 * most);
    }
  });
});
