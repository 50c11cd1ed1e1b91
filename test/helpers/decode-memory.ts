/** Generates tokens at a fixed context and prints by how much the process grew: run alone (`--expose-gc`), so that a test runner's own memory does not count. */
import { core as mx } from "../../src/index.ts";
import { generateStep, load, makePromptCache, trimPromptCache } from "../../src/llm/index.ts";

const { model } = await load(new URL("../../models/demo-shakespeare-4bit", import.meta.url).pathname);
const cache = makePromptCache(model);
const prompt = Array.from({ length: 20 }, (_, i) => 300 + i);
let made = 0;
/** Each round reads 20 tokens again and makes 100 more; then all but the first 20 positions are forgotten. */
function run(tokens: number): void {
  for (const end = made + tokens; made < end; ) {
    for (const _ of generateStep(prompt, model, { maxTokens: 100, promptCache: cache })) made++;
    trimPromptCache(cache, (cache[0]?.offset ?? 0) - 20);
  }
}
/** Bytes after collecting garbage. */
async function measure(): Promise<{ rss: number; heap: number; arrays: number }> {
  for (let i = 0; i < 3; i++) {
    (globalThis as unknown as { gc(): void }).gc();
    await new Promise((r) => setTimeout(r, 10));
  }
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heap: heapUsed, arrays: mx.getActiveMemory() };
}
// Until the JIT compilers are done and every buffer has its size.
run(12_000);
const before = await measure();
run(10_000);
const after = await measure();
console.log(JSON.stringify({ made, rss: after.rss - before.rss, heap: after.heap - before.heap, arrays: after.arrays - before.arrays }));
