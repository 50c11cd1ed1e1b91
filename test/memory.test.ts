/** Memory over a long run. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { generateStep, load, makePromptCache, trimPromptCache } from "../src/llm/index.ts";

const folder = new URL("../models/demo-shakespeare-4bit", import.meta.url).pathname;

/** Collects garbage: V8 lets its heap grow for tens of megabytes before it does so by itself, which would hide a leak or look like one. */
async function collect(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((r) => setTimeout(r, 10));
  }
}

it("10,000 generated tokens at a fixed context keep memory flat", async () => {
  const { model } = await load(folder);
  const cache = makePromptCache(model);
  const prompt = Array.from({ length: 40 }, (_, i) => 300 + i);
  let made = 0;
  const run = (tokens: number): void => {
    // Each round reads 20 tokens again and makes 100 more; then all but the first 20 positions are forgotten.
    for (const end = made + tokens; made < end; ) {
      for (const [token] of generateStep(prompt.slice(0, 20), model, { maxTokens: 100, promptCache: cache })) {
        if (token >= 1024) throw new Error(`token ${token} is outside the vocabulary`);
        made++;
      }
      trimPromptCache(cache, (cache[0]?.offset ?? 0) - 20);
    }
  };
  run(4000);
  await collect();
  // V8 keeps room in its heap after collecting, so what it has reserved is left out of the process's memory.
  const outside = (m: NodeJS.MemoryUsage): number => m.rss - m.heapTotal;
  const before = process.memoryUsage();
  const active = mx.getActiveMemory();
  run(10_000);
  await collect();
  expect(made).toBeGreaterThanOrEqual(14_000);
  expect(mx.getActiveMemory()).toBeLessThanOrEqual(active);
  const after = process.memoryUsage();
  expect(after.heapUsed - before.heapUsed).toBeLessThan(3e6);
  // Under vitest the engine itself takes some 20 MB more on Node 24; 4 KB lost per token would show.
  expect(outside(after) - outside(before)).toBeLessThan(40e6);
}, 180_000);
