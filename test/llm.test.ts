/** Loading, caches, generation and their errors. Golden outputs are in models.test.ts. */
import { copyFileSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { beforeAll, describe, expect, test } from "vitest";
import { core as mx, nn } from "../src/index.ts";
import {
  attentionMask,
  generate,
  type GenerationResponse,
  generateStep,
  KVCache,
  load,
  type LoadedModel,
  makeLogitsProcessors,
  makePromptCache,
  makeSampler,
  type PromptCache,
  streamGenerate,
  trimPromptCache,
} from "../src/llm/index.ts";
import { type ScaledRoPE, contextLength, makeRope } from "../src/llm/rope.ts";
import { checkConfig, decoderSchema } from "../src/llm/config.ts";
import { arch, checkSignal, demo4bit, demoBf16, distance, idsOf, temporaryFolder, values, variant } from "./helpers/llm.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;
const tokensOf = (steps: Iterable<readonly [number, mx.MxArray]>): number[] => [...steps].map(([token]) => token);

describe("load", () => {
  test("gives model, tokenizer and config", async () => {
    const { model, tokenizer, config } = await load(demo4bit);
    expect(config.model_type).toBe("qwen3");
    expect(model.contextLength).toBe(1024);
    expect([...model.eosTokenIds]).toEqual([1021]);
    expect(model.model.layers).toHaveLength(6);
    expect(model.model.embedTokens).toBeInstanceOf(nn.QuantizedEmbedding);
    expect(tokenizer?.decode(tokenizer.encode("KING:\n"))).toBe("KING:\n");
  });
  test("lazy casts give the same model", async () => {
    const eager = await load(arch("llama"), { dtype: mx.float32 });
    const lazy = await load(arch("llama"), { dtype: mx.float32, lazy: true });
    expect(values(lazy.model.forward(idsOf([1, 2, 3])))).toEqual(values(eager.model.forward(idsOf([1, 2, 3]))));
  });
  test("sharded weights, by their index", async () => {
    const folder = variant(arch("qwen2"), () => {}, ["model.safetensors"]);
    const weights = Object.entries(mx.load(`${arch("qwen2")}/model.safetensors`) as Record<string, mx.MxArray>);
    const half = weights.length >> 1;
    const parts = { "model-00001-of-00002.safetensors": weights.slice(0, half), "model-00002-of-00002.safetensors": weights.slice(half) };
    const weightMap: Record<string, string> = {};
    for (const [file, part] of Object.entries(parts)) {
      mx.saveSafetensors(join(folder, file), Object.fromEntries(part));
      for (const [name] of part) weightMap[name] = file;
    }
    writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: weightMap }));
    const files: string[] = [];
    const { model } = await load(folder, { progress: (p) => files.push(`${p.file} ${p.loaded === p.total}`) });
    expect(files).toEqual(["model-00001-of-00002.safetensors false", "model-00002-of-00002.safetensors true"]);
    const whole = await load(arch("qwen2"));
    expect(values(model.forward(idsOf([5, 6])))).toEqual(values(whole.model.forward(idsOf([5, 6]))));
    rmSync(join(folder, "model-00002-of-00002.safetensors"));
    await expect(load(folder)).rejects.toThrow(/lacks model-00002-of-00002.safetensors/);
  });
  test("sizes of quantization by layer", async () => {
    const { model } = await load(demoBf16);
    const path = "model.layers.0.mlp.down_proj";
    nn.quantize(model, 128, 4, (p, m) => (p === path ? [64, 8] : m instanceof nn.Linear && p.includes("mlp")));
    const folder = variant(
      demoBf16,
      (config) => {
        config.quantization = { group_size: 128, bits: 4, [path]: { group_size: 64, bits: 8 } };
      },
      ["model.safetensors"],
    );
    model.saveWeights(join(folder, "model.safetensors"));
    const loaded = await load(folder);
    const down = loaded.model.model.layers[0]?.mlp.downProj as nn.QuantizedLinear;
    expect([down.groupSize, down.bits]).toEqual([64, 8]);
    expect(loaded.model.model.layers[0]?.selfAttn.qProj).toBeInstanceOf(nn.Linear);
    expect(values(loaded.model.forward(idsOf([1, 2])))).toEqual(values(model.forward(idsOf([1, 2]))));
  });
  test.each([["mxfp4", 32, 4], ["mxfp8", 32, 8], ["nvfp4", 16, 4]] as const)("weights in %s, with layers in other modes", async (mode, group, bits) => {
    const { model } = await load(demoBf16);
    const [down, up] = ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj"];
    nn.quantize(model, group, bits, (p, m) => (p === down ? { groupSize: 64, bits: 8, mode: "affine" } : p === up ? false : "toQuantized" in m), mode);
    const folder = variant(
      demoBf16,
      (config) => {
        config.quantization = { group_size: group, bits, mode, [down]: { group_size: 64, bits: 8, mode: "affine" }, [up]: false };
      },
      ["model.safetensors"],
    );
    model.saveWeights(join(folder, "model.safetensors"));
    const loaded = (await load(folder)).model;
    const [first, second] = loaded.model.layers as [(typeof loaded.model.layers)[0], (typeof loaded.model.layers)[0]];
    expect([first?.mlp.downProj, first?.selfAttn.qProj, loaded.model.embedTokens].map((l) => (l as nn.QuantizedLinear).mode)).toEqual(["affine", mode, mode]);
    expect((first?.selfAttn.qProj as nn.QuantizedLinear).scales.dtype).toBe(mx.uint8);
    expect(second?.mlp.upProj).toBeInstanceOf(nn.Linear);
    expect(values(loaded.forward(idsOf([1, 2])))).toEqual(values(model.forward(idsOf([1, 2]))));
    const whole = values((await load(demoBf16)).model.forward(idsOf([1, 2])));
    const near = values(loaded.forward(idsOf([1, 2])));
    const norm = (v: readonly number[]): number => Math.sqrt(v.reduce((a, x) => a + x * x, 0));
    // A code of 4 bits is off by a tenth of its group's largest value at most, one of 8 bits by a thirtieth: logits keep their direction.
    expect(near.reduce((a, x, i) => a + x * (whole[i] as number), 0) / norm(near) / norm(whole)).toBeGreaterThan(mode === "mxfp8" ? 0.99 : 0.9);
    // Generation goes by caches, in other shapes of products: its token is the best of the whole text or next to it.
    const [token, next] = tokensOf(generateStep([1, 2], loaded, { maxTokens: 2 })) as [number, number];
    const logits = values(loaded.nextLogits(idsOf([1, 2, token])));
    expect(Math.max(...logits) - (logits[next] as number)).toBeLessThan(0.1);
  });

  describe("errors name the thing", () => {
    const changed = (change: (config: Record<string, unknown>) => void): string => variant(arch("llama"), change);
    test.each([
      ["hidden_size missing", (c: Record<string, unknown>) => void delete c.hidden_size, /lacks the key "hidden_size"/],
      ["model_type missing", (c: Record<string, unknown>) => void delete c.model_type, /lacks the key "model_type"/],
      ["model_type unknown", (c: Record<string, unknown>) => void (c.model_type = "gpt9"), /"gpt9" is not supported; supported: llama, mistral, qwen2, qwen3/],
      ["a wrong type", (c: Record<string, unknown>) => void (c.num_hidden_layers = "two"), /wrong value at "num_hidden_layers"/],
      ["heads that do not divide", (c: Record<string, unknown>) => void (c.num_key_value_heads = 3), /multiple of num_key_value_heads, got 4 and 3/],
      ["an activation", (c: Record<string, unknown>) => void (c.hidden_act = "sine"), /hidden_act "sine"/],
      ["a rope type", (c: Record<string, unknown>) => void (c.rope_parameters = { rope_type: "spiral" }), /rope scaling "spiral" is not supported/],
      ["a rope factor", (c: Record<string, unknown>) => void (c.rope_parameters = { rope_type: "linear" }), /"linear" needs the number "factor"/],
      ["a quantization mode", (c: Record<string, unknown>) => void (c.quantization = { group_size: 32, bits: 4, mode: "mxfp5" }), /mode must be .* got "mxfp5"/],
      ["a group size of another mode", (c: Record<string, unknown>) => void (c.quantization = { group_size: 64, bits: 4, mode: "mxfp4" }), /group size of mxfp4 is 32, got 64/],
      ["another size", (c: Record<string, unknown>) => void (c.intermediate_size = 32), /do not fit config.json: .*must have shape/],
      ["another number of layers", (c: Record<string, unknown>) => void (c.num_hidden_layers = 3), /lack \d+ parameters: model\.layers\.2/],
    ])("%s", async (_name, change, message) => {
      await expect(load(changed(change))).rejects.toThrow(message);
    });
    test("no such folder, no config, no weights, broken files, unknown dtype", async () => {
      await expect(load("./no/such/folder")).rejects.toThrow(/no folder .\/no\/such\/folder/);
      await expect(load(temporaryFolder())).rejects.toThrow(/has no config.json/);
      await expect(load(variant(arch("llama"), () => {}, ["model.safetensors"]))).rejects.toThrow(/has no weights/);
      await expect(load(arch("llama"), { dtype: "float13" })).rejects.toThrow(/dtype must be one of float16, bfloat16, float32, got "float13"/);
      await expect(load("package.json")).rejects.toThrow(/is a file/);
      const broken = variant(arch("llama"), () => {});
      writeFileSync(join(broken, "config.json"), "{");
      await expect(load(broken)).rejects.toThrow(/can not read .*config.json/);
    });
    test("truncated weights; the process goes on", async () => {
      const folder = variant(arch("llama"), () => {});
      const file = join(folder, "model.safetensors");
      truncateSync(file, readFileSync(file).length - 1000);
      await expect(load(folder)).rejects.toThrow(/model\.safetensors/);
      copyFileSync(`${arch("llama")}/model.safetensors`, file);
      expect((await load(folder)).model.contextLength).toBe(256);
    });
    test("a broken tokenizer", async () => {
      const folder = variant(demo4bit, () => {});
      writeFileSync(join(folder, "tokenizer.json"), "{}");
      await expect(load(folder)).rejects.toThrow(/tokenizer/);
    });
  });
});

describe("KVCache", () => {
  const rows = (start: number, n: number): mx.MxArray =>
    mx.reshape(mx.array(Float32Array.from({ length: 2 * n * 3 }, (_, i) => 1000 * Math.floor(i / (n * 3)) + start + (Math.floor(i / 3) % n))), [1, 2, n, 3]);
  const positions = (a: mx.MxArray): number[] => (a.tolist() as number[][][][])[0]?.[1]?.map((row) => row[2] as number) as number[];
  const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => 1000 + from + i);

  test("grows in steps of 256 and keeps what it holds", () => {
    const cache = new KVCache();
    let seen = 0;
    for (const n of [3, 1, 1, 250, 1, 1, 300, 1]) {
      const [[k, v]] = mx.tidy(() => [cache.update(rows(seen, n), rows(seen, n)), cache] as const);
      seen += n;
      expect(cache.offset).toBe(seen);
      expect(positions(k)).toEqual(range(0, seen));
      expect(positions(v)).toEqual(range(0, seen));
      expect((cache.keys?.shape[2] as number) % 256).toBe(0);
      mx.dispose(k, v);
    }
    expect(cache.keys?.shape).toEqual([1, 2, 768, 3]);
  });
  test("says so when tidy took its buffers away", () => {
    const cache = new KVCache();
    mx.tidy(() => void cache.update(rows(0, 1), rows(0, 1)));
    expect(() => cache.update(rows(1, 1), rows(1, 1))).toThrow(/must return the cache/);
  });
  test("forgets the last positions", () => {
    const cache = new KVCache();
    cache.update(rows(0, 5), rows(0, 5));
    expect(cache.trim(2)).toBe(2);
    const [k] = cache.update(rows(7, 1), rows(7, 1));
    expect(positions(k)).toEqual([1000, 1001, 1002, 1007]);
    expect(cache.trim(100)).toBe(4);
  });
  test("with a window, holds and shows only what is in it", () => {
    const cache = new KVCache(8);
    let seen = 0;
    for (const n of [5, 1, 7, 1, 1, 20, ...new Array<number>(600).fill(1), 30]) {
      const [k] = cache.update(rows(seen, n), rows(seen, n));
      const first = Math.max(0, seen - 7);
      seen += n;
      expect(positions(k)).toEqual(range(first, seen));
    }
    expect(cache.keys?.shape[2]).toBe(512);
    expect(cache.isTrimmable).toBe(false);
    expect(cache.trim(1)).toBe(0);
  });
  test("attentionMask", () => {
    expect(attentionMask(1, 9, 4)).toBe(null);
    expect(attentionMask(3, 9)).toBe("causal");
    expect(attentionMask(3, 1, 4)).toBe("causal");
    const mask = attentionMask(3, 5, 4) as mx.MxArray;
    expect(mask.dtype).toBe(mx.bool);
    // Keys stand at positions 2 .. 7, queries at 5 .. 7; each sees itself and three before.
    expect((mask.tolist() as boolean[][]).map((row) => row.map(Number).join(""))).toEqual(["111100", "011110", "001111"]);
  });
});

describe("generation", () => {
  let demo: LoadedModel;
  beforeAll(async () => {
    demo = await load(demo4bit, { dtype: "float32" });
  });

  test("chunks of the prompt change nothing", () => {
    const ids = demo.tokenizer?.encode("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n") as number[];
    const whole = tokensOf(generateStep(ids, demo.model, { maxTokens: 12 }));
    for (const prefillStepSize of [1, 3, ids.length - 1, ids.length]) {
      const progress: [number, number][] = [];
      const tokens = tokensOf(generateStep(ids, demo.model, { maxTokens: 12, prefillStepSize, promptProgressCallback: (done, total) => progress.push([done, total]) }));
      expect(tokens).toEqual(whole);
      expect(progress).toHaveLength(Math.ceil(ids.length / prefillStepSize));
      expect(progress.at(-1)).toEqual([ids.length, ids.length]);
    }
  });
  test("300 steps, over the growth of the cache, choose what one pass over the whole text chooses", () => {
    const prompt = [5, 6, 7];
    const tokens = tokensOf(generateStep(prompt, demo.model, { maxTokens: 300 }));
    const text = [...prompt, ...tokens];
    const best = mx.tidy(() => mx.argmax(demo.model.forward(idsOf(text)), -1).tolist() as number[][])[0] as number[];
    expect(best.slice(prompt.length - 1, -1)).toEqual(tokens);
  });
  test("the prompt may be a list, an Int32Array or an array", () => {
    const expected = tokensOf(generateStep([5, 6, 7], demo.model, { maxTokens: 4 }));
    expect(tokensOf(generateStep(Int32Array.of(5, 6, 7), demo.model, { maxTokens: 4 }))).toEqual(expected);
    expect(tokensOf(generateStep(mx.array([5, 6, 7], mx.int32), demo.model, { maxTokens: 4 }))).toEqual(expected);
  });
  test("logprobs are those of the model, while they last", () => {
    const steps = generateStep([5, 6, 7], demo.model, { maxTokens: 2 });
    const first = steps.next().value as readonly [number, mx.MxArray];
    const logprobs = values(first[1]);
    const logits = values(demo.model.forward(idsOf([5, 6, 7]))).slice(-1024);
    const top = Math.max(...logits);
    const sum = Math.log(logits.reduce((s, x) => s + Math.exp(x - top), 0)) + top;
    expect(
      distance(
        logprobs,
        logits.map((x) => x - sum),
      ),
    ).toBeLessThan(1e-3);
    expect(logprobs.indexOf(Math.max(...logprobs))).toBe(first[0]);
    steps.next();
    expect(values(first[1])).toEqual(logprobs);
    const late = generateStep([5, 6, 7], demo.model, { maxTokens: 6 });
    for (let i = 0; i < 3; i++) {
      const unread = late.next().value as readonly [number, mx.MxArray];
      late.next();
      expect(() => unread[1]).toThrow(/before the next token/);
    }
  });
  test("streamGenerate: pieces, counts, speeds, and why it ended", async () => {
    const responses: GenerationResponse[] = [];
    for await (const r of streamGenerate(demo.model, demo.tokenizer, "ROMEO:\n", { maxTokens: 10 })) {
      expect(r.logprobs.shape).toEqual([1024]);
      responses.push(r);
    }
    expect(responses).toHaveLength(10);
    expect(responses.map((r) => r.generationTokens)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(responses.map((r) => r.finishReason)).toEqual([...new Array<null>(9).fill(null), "length"]);
    const last = responses.at(-1) as GenerationResponse;
    expect(last.promptTokens).toBe(demo.tokenizer?.encode("ROMEO:\n").length);
    expect(last.promptTps).toBeGreaterThan(0);
    expect(last.generationTps).toBeGreaterThan(0);
    expect(last.peakMemory).toBeGreaterThan(1e-3);
    const text = demo.tokenizer?.decode(responses.map((r) => r.token));
    expect(responses.map((r) => r.text).join("")).toBe(text);
    expect(await generate(demo.model, demo.tokenizer, "ROMEO:\n", { maxTokens: 10 })).toBe(text);
  });
  test("an end-of-text token ends the text and is not part of it", async () => {
    const [, , third] = tokensOf(generateStep([5, 6, 7], demo.model, { maxTokens: 3 }));
    const responses: GenerationResponse[] = [];
    for await (const r of streamGenerate(demo.model, demo.tokenizer, [5, 6, 7], { maxTokens: 10, eosTokenIds: [third as number] })) responses.push(r);
    const last = responses.at(-1) as GenerationResponse;
    expect([last.token, last.finishReason]).toEqual([third, "stop"]);
    expect(responses.map((r) => r.text).join("")).toBe(demo.tokenizer?.decode(responses.slice(0, -1).map((r) => r.token)));
  });
  test("the event loop runs between tokens", async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    for await (const _ of streamGenerate(demo.model, demo.tokenizer, [5], { maxTokens: 20, eosTokenIds: [] })) void _;
    clearInterval(timer);
    expect(turns).toBeGreaterThan(3);
  });
  test("a signal stops it, before and during the work", async () => {
    await checkSignal(demo);
  });
  test("a prompt cache goes on where it was", () => {
    const ids = [5, 6, 7, 8, 9, 10];
    const whole = tokensOf(generateStep(ids, demo.model, { maxTokens: 5 }));
    const promptCache = makePromptCache(demo.model);
    tokensOf(generateStep(ids.slice(0, 3), demo.model, { maxTokens: 4, promptCache }));
    expect(promptCache[0]?.offset).toBe(6);
    expect(trimPromptCache(promptCache, 3)).toBe(3);
    expect(tokensOf(generateStep(ids.slice(3), demo.model, { maxTokens: 5, promptCache }))).toEqual(whole);
  });
  test("processors see the prompt and the tokens so far, and change the choice", () => {
    const seen: number[] = [];
    const [first] = tokensOf(generateStep([5, 6], demo.model, { maxTokens: 1 }));
    const spy = (tokens: readonly number[], logits: mx.MxArray): mx.MxArray => {
      seen.push(tokens.length);
      return logits;
    };
    const logitsProcessors = [spy, ...makeLogitsProcessors({ logitBias: { [first as number]: -1000 } })];
    const tokens = tokensOf(generateStep([5, 6], demo.model, { maxTokens: 3, logitsProcessors }));
    expect(tokens).not.toContain(first);
    expect(seen).toEqual([2, 3, 4]);
  });
  test("sampling with a seed repeats", () => {
    const run = (seed: number): number[] => {
      mx.random.seed(seed);
      return tokensOf(generateStep([5, 6], demo.model, { maxTokens: 16, sampler: makeSampler({ temp: 1.5 }) }));
    };
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
  });

  test("errors: empty prompt, wrong ids, no tokenizer, too long, wrong options", async () => {
    const { model, tokenizer } = demo;
    await expect(generate(model, tokenizer, "")).rejects.toThrow(/prompt is empty/);
    await expect(generate(model, tokenizer, [])).rejects.toThrow(/prompt is empty/);
    await expect(generate(model, undefined, "text")).rejects.toThrow(/no tokenizer/);
    expect(() => tokensOf(generateStep([1.5], model))).toThrow(/whole numbers/);
    expect(() => tokensOf(generateStep([1024], model))).toThrow(/1024 is outside the model's vocabulary of 1024/);
    expect(() => tokensOf(generateStep(new Array<number>(1025).fill(5), model))).toThrow(/prompt has 1025 tokens, but the model's context holds 1024/);
    expect(() => tokensOf(generateStep([5], model, { prefillStepSize: 0 }))).toThrow(/prefillStepSize/);
    expect(() => tokensOf(generateStep([5], model, { maxTokens: -1 }))).toThrow(/maxTokens/);
    expect(tokensOf(generateStep([5], model, { maxTokens: 0 }))).toEqual([]);
  });
  test("generation ends where the context ends", async () => {
    const { model } = await load(arch("qwen3-tied"));
    const responses: GenerationResponse[] = [];
    for await (const r of streamGenerate(model, undefined, new Array<number>(250).fill(3), { maxTokens: 100, eosTokenIds: [] })) responses.push(r);
    expect(responses).toHaveLength(7);
    expect(responses.at(-1)?.finishReason).toBe("length");
  });
});

describe("memory", () => {
  test("a cache that grows while decoding gives its old buffers back", async () => {
    const { model } = await load(demo4bit);
    const cache = makePromptCache(model);
    const run = (tokens: number): void => {
      for (const _ of generateStep([300], model, { maxTokens: tokens, promptCache: cache }));
    };
    run(250);
    const wrappers = mx.getWrappersCount();
    const capacity = (): number => cache.reduce((sum, c) => sum + c.state.reduce((n, a) => n + a.nbytes, 0), 0);
    const rest = mx.getActiveMemory() - capacity();
    run(20);
    expect(cache[0]?.keys?.shape[2]).toBe(512);
    expect(mx.getActiveMemory() - capacity()).toBeLessThanOrEqual(rest);
    expect(mx.getWrappersCount()).toBe(wrappers);
    for (const c of cache) c.dispose();
  });
  test("intermediate results of a prompt are freed while it is computed", async () => {
    const { model } = await load(demo4bit);
    const ids = Array.from({ length: 512 }, (_, i) => i % 1000);
    const before = mx.getActiveMemory();
    mx.resetPeakMemory();
    tokensOf(generateStep(ids, model, { maxTokens: 1 }));
    // One layer's activations are 5 MB (512 positions, 256 and 768 features, a few of each in bfloat16), the caches 3 MB; all six layers' would be 30 MB.
    expect(mx.getPeakMemory() - before).toBeLessThan(14e6);
  });
  test.each([
    ["in a window of 8, step by step", "mistral", (_cache: PromptCache) => {}],
    ["behind a cache that is cut back, by a recorded step", "qwen3-tied", (cache: PromptCache) => void trimPromptCache(cache, 1)],
  ])(
    "10,000 tokens at fixed context keep memory flat: %s",
    async (_name, model_type, cut) => {
      const loaded = await load(variant(arch(model_type), (c) => void (c.max_position_embeddings = 20_000)));
      const promptCache = makePromptCache(loaded.model);
      const marks: { heap: number; rss: number; active: number; wrappers: number }[] = [];
      let n = 0;
      for (const _ of generateStep([1, 2, 3], loaded.model, { maxTokens: 10_000, promptCache })) {
        if (++n > 3) cut(promptCache);
        if (n % 2000 !== 0) continue;
        collectGarbage();
        const { heapUsed: heap, rss } = process.memoryUsage();
        marks.push({ heap, rss, active: mx.getActiveMemory(), wrappers: mx.getWrappersCount() });
      }
      expect(n).toBe(10_000);
      const [first, last] = [marks[0], marks.at(-1)] as [(typeof marks)[0], (typeof marks)[0]];
      expect(last.active).toBe(first.active);
      expect(last.wrappers).toBe(first.wrappers);
      // 8,000 tokens leave less than 500 bytes each; pages that V8 keeps for later are not a leak, but bounded.
      expect(last.heap - first.heap).toBeLessThan(4e6);
      expect(last.rss - first.rss).toBeLessThan(96e6);
    },
    120_000,
  );
});

describe("chat template", () => {
  test("writes the conversation", async () => {
    const { tokenizer } = await load(demo4bit);
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Speak." },
    ];
    expect(await tokenizer?.applyChatTemplate(messages)).toBe("SYSTEM:\nBe brief.USER:\nSpeak.KING:\n");
    expect(await tokenizer?.applyChatTemplate(messages, { addGenerationPrompt: false })).toBe("SYSTEM:\nBe brief.USER:\nSpeak.");
  });
  test("may stand in a file of its own, with variables", async () => {
    const folder = variant(demo4bit, () => {});
    writeFileSync(join(folder, "chat_template.jinja"), "{{ eos_token }}{{ messages[0].content }}{{ mood }}");
    const { tokenizer } = await load(folder);
    expect(await tokenizer?.applyChatTemplate([{ role: "user", content: "x" }], { mood: "!" })).toBe("<|endoftext|>x!");
  });
});

describe("rope scalings", () => {
  const base = JSON.parse(readFileSync(`${arch("llama")}/config.json`, "utf8")) as Record<string, unknown>;
  const config = (rope: Record<string, unknown>) => checkConfig(decoderSchema, { ...base, rope_parameters: undefined, rope_theta: 10000, rope_scaling: rope }, "config.json");
  /** Angle by which feature pair i is turned at a position, in (-pi, pi]. */
  function angles(rope: ScaledRoPE, position: number): number[] {
    const x = mx.array([[[[...new Array<number>(8).fill(1), ...new Array<number>(8).fill(0)]]]]);
    const [row] = ((rope.forward(x, position).tolist() as number[][][][])[0] as number[][][])[0] as number[][];
    return Array.from({ length: 8 }, (_, i) => Math.atan2(row?.[i + 8] as number, row?.[i] as number));
  }
  const plain = (position: number, theta = 10000): number[] => Array.from({ length: 8 }, (_, i) => position * theta ** (-i / 8));
  const near = (list: number[]): unknown[] => list.map((x) => expect.closeTo(Math.atan2(Math.sin(x), Math.cos(x)), 4));
  const wavelength = (i: number): number => 2 * Math.PI * 10000 ** (i / 8);

  test("default, linear, dynamic", () => {
    expect(angles(makeRope(config({ type: "default" }), 16), 7)).toEqual(near(plain(7)));
    expect(angles(makeRope(config({ type: "linear", factor: 4 }), 16), 7)).toEqual(near(plain(7 / 4)));
    const dynamic = makeRope(config({ rope_type: "dynamic", factor: 2 }), 16);
    expect(angles(dynamic, 255)).toEqual(near(plain(255)));
    // The base for 384 positions in a model made for 256.
    expect(angles(dynamic, 383)).toEqual(near(plain(383, 10000 * ((2 * 384) / 256 - 1) ** (16 / 14))));
  });
  test("llama3 keeps short waves, stretches long ones, and blends between", () => {
    const rope = makeRope(config({ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 }), 16);
    const expected = plain(5).map((angle, i) => {
      const turns = 64 / wavelength(i);
      if (turns > 4) return angle;
      if (turns < 1) return angle / 8;
      const smooth = (turns - 1) / 3;
      return (1 - smooth) * (angle / 8) + smooth * angle;
    });
    expect(angles(rope, 5)).toEqual(near(expected));
  });
  test("yarn keeps what turns often, stretches what turns rarely, and scales attention", () => {
    const rope = makeRope(config({ rope_type: "yarn", factor: 4, original_max_position_embeddings: 4096 }), 16);
    const got = angles(rope, 3);
    expect(got[0]).toBeCloseTo(plain(3)[0] as number, 4);
    expect(got[7]).toBeCloseTo((plain(3)[7] as number) / 4, 5);
    expect(got[3]).toBeLessThan(plain(3)[3] as number);
    expect(got[3]).toBeGreaterThan((plain(3)[3] as number) / 4);
    expect(rope.attentionFactor).toBeCloseTo(0.1 * Math.log(4) + 1, 10);
  });
  test("longrope multiplies each wave and scales attention", () => {
    const longFactor = [1, 1.5, 2, 3, 4, 5, 6, 7];
    const scaling = { type: "longrope", long_factor: longFactor, short_factor: new Array<number>(8).fill(1), original_max_position_embeddings: 64 };
    const rope = makeRope(config(scaling), 16);
    expect(angles(rope, 5)).toEqual(near(plain(5).map((angle, i) => angle / (longFactor[i] as number))));
    expect(rope.attentionFactor).toBeCloseTo(Math.sqrt(1 + Math.log(4) / Math.log(64)), 10);
    expect(() => makeRope(config({ ...scaling, long_factor: [1, 2] }), 16)).toThrow(/long_factor must have 8 numbers, got 2/);
  });
  test("frequencies stay float32 when the model is cast", async () => {
    const { model } = await load(arch("llama-rope3"));
    model.setDtype(mx.float16);
    expect(model.model.layers[0]?.selfAttn.rope._freqs?.dtype).toBe(mx.float32);
  });
  test("context length", () => {
    expect(contextLength(config({ type: "default" }))).toBe(256);
    expect(contextLength(config({ type: "linear", factor: 4 }))).toBe(1024);
    expect(contextLength(config({ type: "yarn", factor: 4, original_max_position_embeddings: 128 }))).toBe(512);
  });
});
