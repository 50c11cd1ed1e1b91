/** Recorded decode steps: that they engage, and that they equal the steps that build a graph for every token. */
import { afterEach, describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { DecodeStep } from "../src/llm/decode.ts";
import { generateStep, load, makePromptCache, makeSampler } from "../src/llm/index.ts";
import { stats } from "../src/schedule/run.ts";
import { asIfUnset } from "./helpers/flags.ts";
import { demo4bit } from "./helpers/llm.ts";

// Ops that the host interprets are not recorded.
asIfUnset("MLX_DISABLE");

afterEach(() => {
  delete process.env["MLX_REPLAY"];
});

describe("recorded decode steps", () => {
  it("engage: one recording per cache size, every other step runs it and evaluates no graph", async () => {
    const { model } = await load(demo4bit);
    const cache = makePromptCache(model);
    for (const _ of generateStep([300, 301], model, { maxTokens: 1, promptCache: cache }));
    const step = new DecodeStep(model, cache, makeSampler());
    expect(DecodeStep.supports(model, cache)).toBe(true);
    step.run(5);
    const before = stats.evaluations;
    // From position 3 to 256, then one more, for which the buffers grow.
    while ((cache[0]?.offset ?? 0) < 256) step.run(6);
    expect(step.counters).toEqual({ recorded: 1, replayed: 253 });
    expect(stats.evaluations).toBe(before);
    step.run(6);
    expect(step.counters).toEqual({ recorded: 2, replayed: 253 });
    step.dispose();
  });

  // On the GPU a recorded step has kernels of its own, whose sums are in another order: gpu-llm.test.ts compares them.
  it.skipIf(mx.defaultDevice().type === "gpu")("equal the plain steps bit for bit: logits and tokens, with and without MLX_REPLAY, across a growth of the cache", async () => {
    const run = async (replay: string): Promise<{ tokens: number[]; logprobs: number[][]; evaluations: number }> => {
      process.env["MLX_REPLAY"] = replay;
      const { model } = await load(demo4bit);
      const tokens: number[] = [];
      const logprobs: number[][] = [];
      const before = stats.evaluations;
      for (const pair of generateStep([300, 301, 302], model, { maxTokens: 280 })) {
        tokens.push(pair[0]);
        // Reading the probabilities evaluates them, so only now and then.
        if (tokens.length % 40 === 0) logprobs.push(pair[1].tolist() as number[]);
      }
      return { tokens, logprobs, evaluations: stats.evaluations - before };
    };
    const recorded = await run("1");
    const plain = await run("0");
    expect(recorded.tokens).toEqual(plain.tokens);
    expect(recorded.logprobs).toEqual(plain.logprobs);
    expect(plain.evaluations).toBeGreaterThanOrEqual(280);
    expect(recorded.evaluations).toBeLessThan(40);
    expect(mx.Recording.enabled).toBe(false);
  });
});
