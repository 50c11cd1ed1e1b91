/** Language models on the GPU: the same tokens as golden outputs and the CPU, what a step of decoding costs, and what the loop on the device must get right. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { core as mx } from "../src/index.ts";
import { DeviceLoop } from "../src/llm/device-loop.ts";
import { type CausalLM, type GenerateStepOptions, generateStep, load, type LoadedModel, makeLogitsProcessors, makePromptCache, makeSampler, streamGenerate, trimPromptCache } from "../src/llm/index.ts";
import { chooseTestDevice, counted } from "./helpers/gpu-scheduler.ts";
import { arch, argmax, checkSignal, demo4bit, demoBf16, distance, forwardInChunks, golden, idsOf, numbers, values, variant } from "./helpers/llm.ts";
import { skipReason } from "./helpers/vulkan.ts";

const tokensOf = (prompt: readonly number[], model: CausalLM, options: GenerateStepOptions): number[] => [...generateStep(prompt, model, options)].map(([token]) => token);

const changed = new Map<string, string | undefined>();
/** Sets flags for the rest of the test. */
function flags(values: Record<string, string>): void {
  for (const [k, v] of Object.entries(values)) {
    if (!changed.has(k)) changed.set(k, process.env[k]);
    process.env[k] = v;
  }
}
function restoreFlags(): void {
  for (const [k, v] of changed) v === undefined ? delete process.env[k] : (process.env[k] = v);
  changed.clear();
}
/** The ways to make a step on the GPU: the fused ops in a loop on the device, one kernel per op in that loop, and without recordings. */
const paths = [
  ["fused ops", {}],
  ["one kernel per op", { MLX_VK_FUSED_STEP: "0" }],
  ["no recordings", { MLX_REPLAY: "0" }],
] as const;

beforeAll(() => {
  if (skipReason) return;
  chooseTestDevice();
});
beforeEach(() => {
  if (skipReason) return;
  flags({ MLX_STRICT: "1", MLX_VK_HAZARDS: "1" });
  mx.setDefaultDevice("gpu");
});
afterEach(() => {
  mx.setDefaultDevice("cpu");
  restoreFlags();
});
afterAll(() => {
  if (!skipReason) vulkanBackend().close();
});

describe.skipIf(skipReason).each([
  ["4-bit", demo4bit, "test/fixtures/demo-4bit"],
  ["bf16", demoBf16, demoBf16],
])("demo model, %s", (_name, folder, goldenFolder) => {
  const expected = golden(goldenFolder);

  test("float32: logits within 2e-3, all greedy tokens equal", async () => {
    const { model } = await load(folder, { dtype: "float32" });
    for (let i = 0; i < 3; i++) {
      const ids = numbers(expected, `prompt${i}.ids`);
      const greedy = numbers(expected, `prompt${i}.greedy`);
      expect(distance(values(model.forward(idsOf(ids))), numbers(expected, `prompt${i}.logits`))).toBeLessThan(2e-3);
      const maxTokens = i === 0 ? 48 : 12;
      expect(tokensOf(ids, model, { maxTokens })).toEqual(greedy.slice(0, maxTokens));
      for (const prefillStepSize of i === 0 ? [1, 5] : []) expect(tokensOf(ids, model, { maxTokens: 3, prefillStepSize })).toEqual(greedy.slice(0, 3));
    }
  });
  test.each(paths.slice(1))("float32, %s: the same tokens", async (_path, set) => {
    flags(set);
    const { model } = await load(folder, { dtype: "float32" });
    expect(tokensOf(numbers(expected, "prompt0.ids"), model, { maxTokens: 12 })).toEqual(numbers(expected, "prompt0.greedy").slice(0, 12));
  });
  test("bfloat16, fed the golden tokens: logits within 0.15, same choice where the gap is greater", async () => {
    const { model } = await load(folder);
    const ids = numbers(expected, "prompt0.ids");
    const gap = numbers(expected, "prompt0.gap");
    const cache = makePromptCache(model);
    const logits = model.forward(idsOf(ids), cache);
    expect(logits.dtype).toBe(mx.bfloat16);
    const prompt = values(logits);
    expect(distance(prompt, numbers(expected, "prompt0.logits"))).toBeLessThan(0.15);
    let row = prompt.slice(-1024);
    let compared = 0;
    for (const [j, token] of numbers(expected, "prompt0.greedy").slice(0, 24).entries()) {
      if ((gap[j] as number) > 0.15) {
        expect(argmax(row)).toBe(token);
        compared++;
      }
      // What the loop on the device computes behind this token: its logits are those that the next choice is made from.
      const step = generateStep([token], model, { maxTokens: 1, promptCache: cache });
      row = values((step.next().value as readonly [number, mx.MxArray])[1]);
      step.return();
    }
    expect(compared).toBeGreaterThan(12);
  });
});

describe.skipIf(skipReason).each(["qwen2", "qwen3", "qwen3-tied", "llama", "llama-rope3", "mistral"])("%s", (name) => {
  const expected = golden(arch(name));
  const ids = numbers(expected, "input_ids");
  const logits = numbers(expected, "logits");
  const greedy = numbers(expected, "greedy");
  const range = Math.max(...logits) - Math.min(...logits);

  test("float32: prefill in one go, in chunks, token by token", async () => {
    const { model } = await load(arch(name), { dtype: "float32" });
    expect(distance(values(model.forward(idsOf(ids))), logits) / range).toBeLessThan(1e-4);
    for (const size of [1, 7, ids.length]) {
      expect(distance(forwardInChunks(model, ids, size), logits) / range).toBeLessThan(1e-4);
    }
  });
  test.each(paths)("float32: 16 greedy tokens, by %s", async (path, set) => {
    flags(set);
    const { model } = await load(arch(name), { dtype: "float32" });
    for (const prefillStepSize of path === "fused ops" ? [512, 7, 1] : [512]) expect(tokensOf(ids, model, { maxTokens: 16, prefillStepSize })).toEqual(greedy);
  });
  test("bfloat16: logits within 2 % of their range", async () => {
    const { model } = await load(arch(name));
    expect(distance(values(model.forward(idsOf(ids))), logits) / range).toBeLessThan(2e-2);
  });
});

describe.skipIf(skipReason)("a step of the shipped model", () => {
  let demo: LoadedModel;
  beforeEach(async () => {
    demo ??= await load(demo4bit);
  });
  const prompt = [5, 6, 7];

  test("is one submission of a list that was recorded once: nothing else is sent, read back or computed by the CPU", () => {
    const steps = generateStep(prompt, demo.model, { maxTokens: 40 });
    steps.next();
    const { counters } = vulkanBackend();
    const before = counters.dispatches;
    expect(counted(() => steps.next()).fallbacks).toBe(0);
    // Five per layer; the row of the table, the logits, their copy and the choice (two) are what is left of the sixth of six layers.
    expect(counters.dispatches - before).toBeLessThanOrEqual(6 * demo.model.layers.length);
    const n = 20;
    const seen = counted(() => {
      for (let i = 0; i < n; i++) steps.next();
    });
    expect(seen).toMatchObject({ submissions: n, uploads: 0, uploadedBytes: 0, downloads: 0, downloadedBytes: 0, fallbacks: 0, evaluations: 0, commands: 0 });
    expect(counters.dispatches - before).toBeLessThanOrEqual(6 * demo.model.layers.length);
    steps.return();
  });
  test("is recorded once, and again only when the buffers are full", () => {
    const cache = makePromptCache(demo.model);
    mx.tidy(() => {
      mx.eval(demo.model.forward(idsOf(prompt), cache));
      return cache;
    });
    const loop = new DeviceLoop(demo.model, cache, makeSampler());
    const tokens = [...prompt, 8];
    const steps = (n: number): void => {
      for (let i = 0; i < n; i++) tokens.push(loop.step(tokens, n - i) as number);
    };
    steps(30);
    expect(loop.counters).toEqual({ recorded: 1, replayed: 29, refused: 0 });
    // The buffers have room for 256 positions, of which 33 are taken.
    trimPromptCache(cache, 3);
    steps(226);
    expect(loop.counters.recorded).toBe(1);
    steps(3);
    expect(loop.counters.recorded).toBe(2);
    expect([cache[0]?.offset, cache[0]?.keys?.shape[2]]).toEqual([259, 512]);
    loop.dispose();
  });
});

describe.skipIf(skipReason)("generation on the GPU", () => {
  let demo: LoadedModel;
  /** A model small enough for many runs. */
  let small: CausalLM;
  beforeEach(async () => {
    demo ??= await load(demo4bit, { dtype: "float32" });
    small ??= (await load(arch("qwen3"), { dtype: "float32" })).model;
  });
  /** What a model of this folder gives on the CPU. */
  async function onCpu<T>(folder: string, work: (model: CausalLM) => T): Promise<T> {
    mx.setDefaultDevice("cpu");
    const { model } = await load(folder, { dtype: "float32" });
    const result = work(model);
    mx.setDefaultDevice("gpu");
    return result;
  }

  test("goes on across caches that grow, as on the CPU", async () => {
    const folder = variant(arch("qwen3"), (config) => void (config.max_position_embeddings = 1024));
    const ids = Array.from({ length: 250 }, (_, i) => (i * 37) % 60);
    const expected = await onCpu(folder, (model) => tokensOf(ids, model, { maxTokens: 24 }));
    const { model } = await load(folder, { dtype: "float32" });
    expect(tokensOf(ids, model, { maxTokens: 24 })).toEqual(expected);
    // Many short runs behind one cache: its buffers grow while steps are recorded.
    const promptCache = makePromptCache(model);
    const tokens = tokensOf(ids, model, { maxTokens: 4, promptCache });
    while (tokens.length < 24) tokens.push(...tokensOf([tokens.at(-1) as number], model, { maxTokens: 4, promptCache }));
    expect(tokens).toEqual(expected);
    expect(promptCache[0]?.keys?.shape[2]).toBe(512);
  });
  test("stopped early and continued behind the same cache, the text is that of one go", () => {
    const whole = tokensOf([5, 6, 7], demo.model, { maxTokens: 30 });
    const promptCache = makePromptCache(demo.model);
    const tokens: number[] = [];
    // The device is a step ahead when the loop is left: what it wrote into the caches must not count.
    for (const [token] of generateStep([5, 6, 7], demo.model, { maxTokens: 30, promptCache })) if (tokens.push(token) === 11) break;
    expect(promptCache[0]?.offset).toBe(13);
    tokens.push(...tokensOf([tokens.at(-1) as number], demo.model, { maxTokens: 19, promptCache }));
    expect(tokens).toEqual(whole);
  });
  test("caches that are cut back between tokens are read as they are then", async () => {
    const cut = (model: CausalLM): number[] => {
      const promptCache = makePromptCache(model);
      const tokens: number[] = [];
      for (const [token] of generateStep([5, 6, 7, 8, 9, 10, 11, 12], model, { maxTokens: 16, promptCache })) if (tokens.push(token) % 5 === 4) trimPromptCache(promptCache, 3);
      return tokens;
    };
    const expected = await onCpu(arch("qwen3"), cut);
    expect(cut(small)).toEqual(expected);
    expect(expected).not.toEqual(tokensOf([5, 6, 7, 8, 9, 10, 11, 12], small, { maxTokens: 16 }));
  });
  test("logprobs are those without recordings, whichever tokens they are read at", () => {
    const run = (read: (i: number) => boolean): (number[] | undefined)[] => {
      const rows: (number[] | undefined)[] = [];
      for (const step of generateStep([5, 6, 7], small, { maxTokens: 12 })) rows.push(read(rows.length) ? values(step[1]) : undefined);
      return rows;
    };
    flags({ MLX_REPLAY: "0" });
    const expected = run(() => true) as number[][];
    flags({ MLX_REPLAY: "1" });
    for (const every of [1, 3]) {
      run((i) => i % every === 0).forEach((row, i) => {
        expect(row === undefined).toBe(i % every !== 0);
        // Sums of float32 products in another order.
        if (row) expect(distance(row, expected[i] as number[])).toBeLessThan(1e-4);
      });
    }
  });
  test("logprobs that are read late are refused", () => {
    const late = generateStep([5, 6, 7], small, { maxTokens: 6 });
    for (let i = 0; i < 3; i++) {
      const unread = late.next().value as readonly [number, mx.MxArray];
      late.next();
      expect(() => unread[1]).toThrow(/before the next token/);
    }
  });
  test("processors of logits of the caller's own take the way over the host: same tokens", () => {
    const expected = tokensOf([5, 6], small, { maxTokens: 12 });
    const seen: number[] = [];
    const spy = (tokens: readonly number[], logits: mx.MxArray): mx.MxArray => {
      seen.push(tokens.length);
      return logits;
    };
    expect(tokensOf([5, 6], small, { maxTokens: 12, logitsProcessors: [spy] })).toEqual(expected);
    expect(seen).toEqual(Array.from({ length: 12 }, (_, i) => i + 2));
    expect(tokensOf([5, 6], small, { maxTokens: 12, sampler: makeSampler({ temp: 0.7, topK: 1 }) })).toEqual(expected);
    const [first] = expected;
    expect(tokensOf([5, 6], small, { maxTokens: 6, logitsProcessors: makeLogitsProcessors({ logitBias: { [first as number]: -1000 } }) })).not.toContain(first);
  });
  test.each([
    { temp: 1.5 },
    { temp: 0.8, topP: 0.9 },
    { temp: 0.8, topK: 20 },
    { temp: 1.2, topK: 30, topP: 0.95, minP: 0.02, minTokensToKeep: 2 },
    { temp: 1.2, minP: 0.05 },
    { temp: 1, xtcProbability: 0.5, xtcThreshold: 0.05 },
    { penalties: { repetitionPenalty: 1.4, repetitionContextSize: 8 } },
    { temp: 1, penalties: { logitBias: { 3: 2, 9: -4 }, repetitionPenalty: 1.2, presencePenalty: 0.3, frequencyPenalty: 0.4, frequencyContextSize: 30 } },
    { temp: 0.9, topK: 10, penalties: { repetitionPenalty: 1.3 } },
  ] as (Parameters<typeof makeSampler>[0] & { penalties?: Parameters<typeof makeLogitsProcessors>[0] })[])("a seed gives the same text on the device as on the CPU, without leaving the device: %j", async ({ penalties, ...options }) => {
    // The shipped model where all tokens are drawn from; it is slow on the CPU's Vulkan.
    const [folder, model, maxTokens, seeds] = options.temp === 1.5 ? [demo4bit, demo.model, 12, [1, 2, 3]] : [arch("qwen3"), small, 16, [1, 2, 3]];
    const run = (seed: number, model: CausalLM): number[] => {
      mx.random.seed(seed);
      return tokensOf([5, 6, 7, 8], model, { maxTokens, sampler: makeSampler(options), logitsProcessors: makeLogitsProcessors(penalties) });
    };
    const expected = await onCpu(folder, (model) => seeds.map((seed) => run(seed, model)));
    expect(seeds.map((seed) => run(seed, model))).toEqual(expected);
    if (options.temp) expect(new Set(expected.map(String)).size).toBe(seeds.length);
    const steps = generateStep([5, 6, 7, 8], model, { maxTokens: 9, sampler: makeSampler(options), logitsProcessors: makeLogitsProcessors(penalties) });
    for (let i = 0; i < 2; i++) steps.next();
    const seen = counted(() => {
      for (let i = 0; i < 5; i++) steps.next();
    });
    expect(seen).toMatchObject({ submissions: 5, uploads: 0, downloads: 0, fallbacks: 0, evaluations: 0, commands: 0 });
    steps.return();
  });
  test("a step that could not be recorded is tried again, with the same tokens", () => {
    const expected = tokensOf([5, 6, 7], small, { maxTokens: 24 });
    const promptCache = makePromptCache(small);
    const steps = generateStep([5, 6, 7], small, { maxTokens: 24, promptCache });
    const tokens: number[] = [];
    const next = (): number => tokens.push((steps.next().value as readonly [number, mx.MxArray])[0]);
    next();
    // Somebody else holds what the step would write into.
    const held = promptCache.map((c) => mx.reshape(c.keys as mx.MxArray, [-1]));
    mx.eval(held);
    expect(counted(next).evaluations).toBeGreaterThan(1);
    mx.dispose(held);
    next();
    next();
    // Two uploads of token and position a step show the way over the host.
    const seen = counted(() => {
      for (let i = 0; i < 16; i++) next();
    });
    expect(seen).toMatchObject({ submissions: 16, uploads: 0, downloads: 0, evaluations: 0 });
    while (tokens.length < 24) next();
    expect(tokens).toEqual(expected);
    steps.return();
    for (const c of promptCache) c.dispose();
  });
  test("maxTokens, ends of text, and the model's context end it", async () => {
    for (const maxTokens of [0, 1, 2, 3]) expect(tokensOf([5, 6, 7], demo.model, { maxTokens })).toHaveLength(maxTokens);
    const third = tokensOf([5, 6, 7], demo.model, { maxTokens: 3 })[2] as number;
    const responses: { token: number; finishReason: string | null }[] = [];
    for await (const r of streamGenerate(demo.model, demo.tokenizer, [5, 6, 7], { maxTokens: 10, eosTokenIds: [third] })) responses.push(r);
    expect([responses.at(-1)?.token, responses.at(-1)?.finishReason]).toEqual([third, "stop"]);
    const { model } = await load(arch("qwen3-tied"));
    expect(tokensOf(new Array<number>(250).fill(3), model, { maxTokens: 100 })).toHaveLength(7);
  });
  test("a signal stops it, before and during the work, and work goes on after that", async () => {
    await checkSignal(demo);
    expect(tokensOf([5], demo.model, { maxTokens: 3 })).toHaveLength(3);
  });
  test("device memory stays flat from text to text", () => {
    const run = (): void => void tokensOf([5, 6, 7], small, { maxTokens: 5 });
    for (let i = 0; i < 3; i++) run();
    const { active } = vulkanBackend().memory.counters;
    const wrappers = mx.getWrappersCount();
    for (let i = 0; i < 8; i++) run();
    mx.synchronize();
    expect(vulkanBackend().memory.counters.active).toBeLessThanOrEqual(active);
    expect(mx.getWrappersCount()).toBe(wrappers);
  });
});

describe.skipIf(skipReason)("draws on the device", () => {
  /** Tokens by number of step, as the loop makes them: state and history of one step go into the next. */
  function draws(n: number, logits: mx.MxArray, temperature: number, seed: number): number[] {
    let state = mx.array([0, 0, 1, 0], mx.int32);
    let history = mx.zeros([n], mx.int32);
    for (let i = 0; i < n; i++) {
      const old = [state, history];
      [state, history] = mx.decode.chooseToken(logits, state, history, { temperature, seed });
      mx.dispose(old);
      if (i % 100 === 99) mx.eval(state, history);
    }
    return history.tolist() as number[];
  }

  test.each([
    [1, 7],
    [0.5, 8],
  ])("have the frequencies of softmax(logits / %d)", (temperature, seed) => {
    const scores = [0, 1, -1, 0.5, 2, -2, 0, 1.5];
    const n = 2000;
    const found = draws(n, mx.array([scores]), temperature, seed);
    const weights = scores.map((x) => Math.exp(x / temperature));
    const total = weights.reduce((a, b) => a + b, 0);
    // The rarest are counted together, so that every cell expects five or more.
    const cells = new Map<string, { seen: number; expected: number }>();
    scores.forEach((_, i) => {
      const expected = (n * (weights[i] as number)) / total;
      const key = expected < 20 ? "rare" : String(i);
      const cell = cells.get(key) ?? { seen: 0, expected: 0 };
      cell.expected += expected;
      cell.seen += found.filter((t) => t === i).length;
      cells.set(key, cell);
    });
    const chi = [...cells.values()].reduce((sum, c) => sum + (c.seen - c.expected) ** 2 / c.expected, 0);
    // 99.9th percentile of chi-square with 7 degrees of freedom.
    expect(chi).toBeLessThan(24.32);
    expect(cells.size).toBeGreaterThan(4);
    expect(draws(50, mx.array([scores]), temperature, seed)).toEqual(found.slice(0, 50));
    expect(draws(50, mx.array([scores]), temperature, seed + 1)).not.toEqual(found.slice(0, 50));
  });
  test("do not repeat their noise when the step is recorded anew", async () => {
    const { model } = await load(arch("qwen3"), { dtype: "float32" });
    const cache = makePromptCache(model);
    mx.tidy(() => {
      mx.eval(model.forward(idsOf([5, 6, 7]), cache));
      return cache;
    });
    // Logits that never change: what is drawn depends on the noise alone.
    const flat = mx.zeros([1, 1024]);
    const still = { recordable: true, nextLogits: () => mx.add(flat, 0) };
    mx.random.seed(3);
    const loop = new DeviceLoop(still, cache, makeSampler({ temp: 1 }), [], 3);
    const tokens = [5, 6, 7, 9];
    for (let recorded = 1; recorded < 3; recorded++) {
      for (let i = 0; i < 8; i++) tokens.push(loop.step(tokens, 8 - i) as number);
      expect(loop.counters.recorded).toBe(recorded);
      // As when the buffers move.
      for (const c of cache) c.generation++;
    }
    const drawn = tokens.slice(4);
    expect(drawn.slice(8)).not.toEqual(drawn.slice(0, 8));
    expect(new Set(drawn).size).toBeGreaterThan(12);
    loop.dispose();
  });
});

describe.skipIf(skipReason)("MLX_CHECK", () => {
  test("computes everything twice, finds nothing, and gives the same tokens", async () => {
    const { model } = await load(arch("qwen3"), { dtype: "float32" });
    const expected = golden(arch("qwen3"));
    flags({ MLX_CHECK: "1" });
    expect(tokensOf(numbers(expected, "input_ids"), model, { maxTokens: 3 })).toEqual(numbers(expected, "greedy").slice(0, 3));
  });
});
