/** Collections of arrays that nobody holds, between events. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";

afterEach(() => {
  delete process.env["MLX_COLLECT"];
});
const mib = 1 << 20;
/** Makes arrays and drops them; gives the bytes that are alive once `done` says so, or after five seconds. */
async function aliveAfter(done: (bytes: number) => boolean): Promise<number> {
  const before = mx.getActiveMemory();
  for (let i = 0; i < 32; i++) mx.eval(mx.add(mx.zeros([mib / 4]), i));
  for (let i = 0; i < 100; i++) {
    await sleep(50);
    if (done(mx.getActiveMemory() - before)) break;
  }
  return mx.getActiveMemory() - before;
}

test("MLX_COLLECT=0: V8 alone decides", async () => {
  process.env["MLX_COLLECT"] = "0";
  // A handful of small objects is no reason for V8 to collect within half a second.
  let looks = 0;
  expect(await aliveAfter(() => ++looks === 10)).toBeGreaterThan(24 * mib);
});
test("arrays that nobody holds go back when the event loop is reached", async () => {
  expect(await aliveAfter((bytes) => bytes < 2 * mib)).toBeLessThan(2 * mib);
});
test("arrays that are held stay", async () => {
  const kept = [1, 2, 3].map((i) => mx.add(mx.zeros([mib / 4]), i));
  mx.eval(kept);
  let looks = 0;
  await aliveAfter(() => ++looks === 10);
  expect(kept.map((a) => a.index(5).item())).toEqual([1, 2, 3]);
});
