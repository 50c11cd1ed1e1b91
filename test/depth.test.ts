/** Depth and length: graphs deeper than any stack, and loops that never evaluate, with what they cost in memory. Each runs in a process of its own. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { stats } from "../src/schedule/run.ts";
import { asIfUnset } from "./helpers/flags.ts";

// Arrays of this size take minutes where the host interprets elementwise ops.
asIfUnset("MLX_DISABLE");

const script = fileURLToPath(new URL("helpers/deep-graphs.ts", import.meta.url));
function run<T>(args: readonly string[], env: Readonly<Record<string, string>> = {}): T {
  const text = execFileSync(process.execPath, ["--expose-gc", "--import", "tsx", script, ...args], { encoding: "utf8", env: { ...process.env, ...env } });
  return JSON.parse(text.trim().split("\n").at(-1) as string) as T;
}

describe("a chain of 1,000,000 nodes", () => {
  it("evaluates, differentiates and is freed", () => {
    const n = 1_000_000;
    const got = run<{ sum: number; added: number; slope: number; grown: number; built: number; after: number; arrays: number }>(["chain", String(n)]);
    // 1e6 additions in float64 err by at most 1e6 half ulps of 1.2.
    expect(got.sum).toBeCloseTo(got.added, 8);
    // d/dx (x + a) x = 2 x + a.
    expect(got.slope).toBeCloseTo(1 + got.added, 8);
    // A node takes some hundred bytes while it is there. What stays are the tables of the garbage collector that have grown, some 20 bytes per node at most, once.
    expect(got.built).toBeGreaterThan(200e6);
    expect(got.grown).toBeLessThan(30e6);
    expect(got.after).toBeLessThan(30e6);
    expect(got.arrays).toBeLessThan(10_000);
  }, 600_000);
  it("of 200,000 goes through jvp, vmap, compile and checkpoint", () => {
    const got = run<{ added: number } & Record<"forward" | "batched" | "compiled" | "again" | "checkpoint", number[]>>(["transforms", "200000"]);
    const near = (list: readonly number[]): unknown[] => list.map((v) => expect.closeTo(v, 8));
    expect(got.forward).toEqual(near([0.5, 1]));
    expect(got.batched).toEqual(near([0.5 + got.added, 1 + got.added]));
    expect(got.compiled).toEqual(got.batched);
    expect(got.again).toEqual(near([0.5 + 2 * got.added, 1 + 2 * got.added]));
    expect(got.checkpoint).toEqual(near([1, 1]));
  }, 600_000);
});

describe("a loop without eval", () => {
  interface Loop {
    results: number[];
    flushes: number;
    peak: number;
  }
  const budget = 64e6;
  it("of 100,000 ops, 10 GB of arrays in all, stays near its budget", () => {
    const got = run<Loop>(["loop", "100000", "25000"], { MLX_FLUSH_BYTES: String(budget) });
    expect(got.flushes).toBeGreaterThanOrEqual(Math.floor(10e9 / budget) - 10);
    // What is not flushed at the end, with the arrays that handles hold, and a value kept at each flush.
    expect(got.peak).toBeLessThan(2 * budget + got.flushes * 110_000);
    let y = 0.5;
    for (let i = 0; i < 50_000; i++) y = Math.fround(Math.sin(Math.fround(y + 0.25)));
    // The iteration contracts by cos(1.1), so errors of the last steps remain.
    for (const v of got.results) expect(v).toBeCloseTo(y, 5);
  }, 300_000);
  it("computes nothing twice that other parts wait for: gradients, caches", () => {
    interface Kept {
      early: number;
      later: number;
      trained: number;
      updates: number;
    }
    const [on, off] = ["100000", "0"].map((bytes) => run<Kept>(["kept", "64"], { MLX_FLUSH_BYTES: bytes })) as [Kept, Kept];
    expect(on.early).toBeGreaterThan(0);
    expect(on.later).toBeGreaterThan(1);
    expect({ ...on, early: 0, later: 0 }).toEqual({ ...off, early: 0, later: 0 });
    expect([off.trained, off.updates]).toEqual([17, 8]);
  }, 120_000);
  it("a scope computes nothing early: it closes its handles before its results are asked for", () => {
    const got = run<Loop & { dispatched: number }>(["scope", "2000", "25000"], { MLX_FLUSH_BYTES: String(budget) });
    expect(got.flushes).toBe(0);
    // 200 MB in all; each op once.
    expect(got.dispatched).toBe(2000);
    expect(got.peak).toBeLessThan(budget);
  }, 120_000);
  it("gives the same bits with the budget off", () => {
    const [on, off] = ["200000", "0"].map((bytes) => run<Loop>(["loop", "3000", "999"], { MLX_FLUSH_BYTES: bytes })) as [Loop, Loop];
    expect(on.flushes).toBeGreaterThan(20);
    expect(off.flushes).toBe(0);
    expect(on.results).toEqual(off.results);
    expect(off.peak).toBeGreaterThan(3 * on.peak);
  }, 120_000);
});

it("what fits in the budget is not evaluated early", () => {
  const before = stats.flushes;
  let y = mx.zeros([1000]);
  for (let i = 0; i < 1000; i++) y = mx.sin(mx.add(mx.add(y, y), mx.multiply(y, y)));
  expect(y.desc.node).toBeDefined();
  expect(stats.flushes).toBe(before);
  expect(mx.max(y).item()).toBe(0);
});

it("splits that join again, whose estimate doubles each time, cost a long chain no repeated walks", () => {
  const before = stats.flushes;
  let y = mx.array([1, 2]);
  // With a walk over the whole graph for every few nodes this would take minutes.
  for (let i = 0; i < 50_000; i++) y = mx.concatenate(mx.split(y, 2));
  expect(stats.flushes).toBe(before);
  let z = mx.array([1, 2]);
  for (let i = 0; i < 50_000; i++) z = mx.maximum(z, z);
  expect(stats.flushes).toBe(before);
  expect(z.tolist()).toEqual([1, 2]);
}, 60_000);
