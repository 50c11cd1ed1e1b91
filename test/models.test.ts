/** Whole models against golden outputs: the demo model (float64 forward pass) and tiny checkpoints of each architecture (transformers). */
import { describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { generateStep, load, makePromptCache } from "../src/llm/index.ts";
import { arch, argmax, demo4bit, demoBf16, distance, forwardInChunks, golden, idsOf, numbers, values } from "./helpers/llm.ts";

describe.each([
  ["4-bit", demo4bit, "test/fixtures/demo-4bit"],
  ["bf16", demoBf16, demoBf16],
])("demo model, %s", (_name, folder, goldenFolder) => {
  const expected = golden(goldenFolder);

  test("float32: logits within 2e-3, all greedy tokens equal", async () => {
    const { model } = await load(folder, { dtype: "float32" });
    for (let i = 0; i < 3; i++) {
      const ids = numbers(expected, `prompt${i}.ids`);
      const logits = values(model.forward(idsOf(ids)));
      expect(distance(logits, numbers(expected, `prompt${i}.logits`))).toBeLessThan(2e-3);
      const tokens = [...generateStep(ids, model, { maxTokens: 48 })].map(([token]) => token);
      expect(tokens).toEqual(numbers(expected, `prompt${i}.greedy`));
    }
  });

  test("bfloat16, fed the golden tokens: logits within 0.15, same choice where the gap is greater", async () => {
    const { model } = await load(folder);
    expect(model.parameters().model.norm.weight.dtype).toBe(mx.bfloat16);
    for (let i = 0; i < 3; i++) {
      const ids = numbers(expected, `prompt${i}.ids`);
      const greedy = numbers(expected, `prompt${i}.greedy`);
      const gap = numbers(expected, `prompt${i}.gap`);
      const cache = makePromptCache(model);
      const logits = model.forward(idsOf(ids), cache);
      expect(logits.dtype).toBe(mx.bfloat16);
      expect(cache[0]?.keys?.dtype).toBe(mx.bfloat16);
      const prompt = values(logits);
      expect(distance(prompt, numbers(expected, `prompt${i}.logits`))).toBeLessThan(0.15);
      let row = prompt.slice(-1024);
      let compared = 0;
      for (const [j, token] of greedy.entries()) {
        if ((gap[j] as number) > 0.15) {
          expect(argmax(row)).toBe(token);
          compared++;
        }
        [row] = mx.tidy(() => [values(model.forward(idsOf([token]), cache)), cache] as const);
      }
      expect(compared).toBeGreaterThan(24);
    }
  });
});

describe.each(["qwen2", "qwen3", "qwen3-tied", "llama", "llama-rope3", "mistral"])("%s in float32", (name) => {
  const expected = golden(arch(name));
  const ids = numbers(expected, "input_ids");
  const logits = numbers(expected, "logits");
  const range = Math.max(...logits) - Math.min(...logits);

  test("prefill in one go", async () => {
    const { model, tokenizer } = await load(arch(name), { dtype: "float32" });
    expect(tokenizer).toBeUndefined();
    expect(distance(values(model.forward(idsOf(ids))), logits) / range).toBeLessThan(1e-4);
    expect(distance(values(model.forward(idsOf(ids), makePromptCache(model))), logits) / range).toBeLessThan(1e-4);
  });
  test("token by token, and in chunks", async () => {
    const { model } = await load(arch(name), { dtype: "float32" });
    for (const size of [1, 5, 7, 16]) {
      expect(distance(forwardInChunks(model, ids, size), logits) / range).toBeLessThan(1e-4);
    }
  });
  test("16 greedy tokens, whatever the prefill step", async () => {
    const { model } = await load(arch(name), { dtype: "float32" });
    for (const prefillStepSize of [512, 7, 1]) {
      const tokens = [...generateStep(ids, model, { maxTokens: 16, prefillStepSize })].map(([token]) => token);
      expect(tokens).toEqual(numbers(expected, "greedy"));
    }
  });
  test("bfloat16: logits within 2 % of their range", async () => {
    const { model } = await load(arch(name));
    expect(distance(values(model.forward(idsOf(ids))), logits) / range).toBeLessThan(2e-2);
  });
});
