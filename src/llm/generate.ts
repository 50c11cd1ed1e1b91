/** Generation of text: prompt in chunks, then token by token. Names follow mlx-lm. */
import { core as mx, type MxArray } from "../index.ts";
import { makePromptCache, type PromptCache } from "./cache.ts";
import { DecodeStep } from "./decode.ts";
import { DeviceLoop } from "./device-loop.ts";
import { makeSampler, type LogitsProcessor, type Sampler } from "./sample.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What generation needs of a model. */
export interface LanguageModel {
  /** ids (B, T) -> logits (B, T, V). */
  forward(ids: MxArray, cache?: PromptCache): MxArray;
  /** ids (B, T) -> logits (B, V) of the last position. */
  nextLogits(ids: MxArray, cache?: PromptCache): MxArray;
  makeCache(): PromptCache;
  /** True when the step for one token can be recorded and run again (see decode.ts). */
  readonly recordable?: boolean;
  readonly contextLength: number;
  readonly eosTokenIds: ReadonlySet<number>;
}

export type Prompt = string | readonly number[] | Int32Array | MxArray;

export interface GenerateStepOptions {
  /** Most tokens to make. Default 256. */
  maxTokens?: number;
  /** Default: the most probable token. */
  sampler?: Sampler;
  logitsProcessors?: readonly LogitsProcessor[];
  /** Caches of an earlier call: the prompt continues what they hold. */
  promptCache?: PromptCache;
  /** Prompt positions computed at once. Default 512. */
  prefillStepSize?: number;
  /** Called after each chunk of the prompt. */
  promptProgressCallback?: (processed: number, total: number) => void;
  /** Stops before the next chunk or token; the signal's reason is thrown. */
  signal?: AbortSignal;
}

/** A token and the logarithms of all probabilities (V), float32, that it was chosen from: computed when first read, before the next step. */
export type TokenAndLogprobs = readonly [token: number, logprobs: MxArray];

/** log(softmax(logits)): logits (1, V) -> (V). Evaluated at once, since the next step writes over the logits. */
function logprobsOf(logits: MxArray): MxArray {
  const out = mx.tidy(() => {
    const l = mx.reshape(logits, [-1]).astype(mx.float32);
    return mx.subtract(l, mx.logsumexp(l, -1, true));
  });
  mx.eval(out);
  return out;
}

/** `logits` gives what the token was chosen from, or undefined when it is gone. */
function tokenAndLogprobs(token: number, logits: () => MxArray | undefined): TokenAndLogprobs {
  let computed: MxArray | undefined;
  const pair = [token, undefined];
  const get = (): MxArray => {
    const from = computed ? undefined : logits();
    if (!computed && !from) throw new Error("[generateStep] logprobs must be read before the next token is made");
    return (computed ??= logprobsOf(from as MxArray));
  };
  Object.defineProperty(pair, 1, { get, enumerable: true });
  return pair as unknown as TokenAndLogprobs;
}

function promptIds(prompt: Exclude<Prompt, string>): number[] {
  const ids = prompt instanceof mx.array ? mx.tidy(() => mx.reshape(prompt, [-1]).tolist() as number[]) : Array.from<number>(prompt);
  if (ids.length === 0) throw new Error("[generate] the prompt is empty");
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0);
  if (wrong !== undefined) throw new Error(`[generate] token ids must be whole numbers, 0 or more, got ${wrong}`);
  return ids;
}

function checkVocabulary(ids: readonly number[], model: LanguageModel): void {
  const size = (model as { config?: { vocab_size?: number } }).config?.vocab_size;
  const wrong = size === undefined ? undefined : ids.find((id) => id >= size);
  if (wrong !== undefined) throw new Error(`[generate] token id ${wrong} is outside the model's vocabulary of ${size}`);
}

function requireCount(name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least) throw new Error(`[generate] ${name} must be a whole number, ${least} or more, got ${value}`);
}

/** What a run is doing between two pauses: reading the prompt (undefined), or a token was made. */
type Pause = TokenAndLogprobs | undefined;

/** Runs the model; pauses after each chunk of the prompt and after each token. */
function* run(ids: readonly number[], model: LanguageModel, options: GenerateStepOptions): Generator<Pause, void, void> {
  const { maxTokens = 256, sampler = makeSampler(), logitsProcessors = [], prefillStepSize = 512, signal } = options;
  requireCount("maxTokens", maxTokens, 0);
  requireCount("prefillStepSize", prefillStepSize, 1);
  checkVocabulary(ids, model);
  const cache = options.promptCache ?? makePromptCache(model);
  const past = cache[0]?.offset ?? 0;
  if (past + ids.length > model.contextLength) {
    const held = past > 0 ? ` behind ${past} in the cache` : "";
    throw new Error(`[generate] the prompt has ${ids.length} tokens${held}, but the model's context holds ${model.contextLength}`);
  }
  const limit = Math.min(maxTokens, model.contextLength - past - ids.length + 1);
  const tokens = [...ids];
  let logits: MxArray | undefined;
  /** Number of the token whose logits are there. */
  let current = -1;
  let decode: DecodeStep | undefined;
  let loop: DeviceLoop | undefined;
  // One number of the global sequence gives all keys of a text, so that a seed gives the same text on every device.
  const seed = sampler.keyed ? mx.tidy(() => mx.random.bits([1], 4, null, mx.cpu).item() as number) : 0;

  const process = (l: MxArray): MxArray => logitsProcessors.reduce((processed, p) => p(tokens, processed), l);
  const choose = (l: MxArray): MxArray => (sampler.keyed ? sampler(l, mx.array([seed, tokens.length], mx.uint32)) : sampler(l));
  /** The next token by the device's own loop, if it can run there. */
  const looped = (left: number): number | undefined => {
    if (!DeviceLoop.supports(model, cache, sampler, logitsProcessors)) return undefined;
    loop ??= new DeviceLoop(model, cache, sampler, logitsProcessors, seed);
    if (loop.tries) {
      decode?.dispose();
      decode = undefined;
    }
    const next = loop.step(tokens, left);
    if (next !== undefined) tokens.push(next);
    return next;
  };
  const step = (input: readonly number[], left: number): number => {
    const next = input.length === 1 ? looped(left) : undefined;
    if (next !== undefined) {
      logits?.dispose();
      logits = undefined;
      return next;
    }
    if (input.length === 1 && DecodeStep.supports(model, cache)) {
      decode ??= new DecodeStep(model, cache, logitsProcessors.length === 0 ? sampler : undefined);
      const result = decode.run(input[0] as number);
      if (logits !== result.logits) logits?.dispose();
      const processed = mx.tidy(() => process(result.logits));
      logits = processed;
      const token = result.choice ?? mx.tidy(() => choose(processed).item() as number);
      tokens.push(token);
      return token;
    }
    const [chosen, raw] = mx.tidy(() => {
      const l = process(model.nextLogits(mx.array([[...input]], mx.int32), cache));
      // The caches are part of the result so that buffers that grew in here outlive the scope.
      return [choose(l), l, cache] as const;
    });
    // Outside of the scope: with its handles closed, each intermediate result is given back as soon as it was used.
    mx.eval(chosen);
    logits?.dispose();
    logits = raw;
    const token = chosen.item() as number;
    chosen.dispose();
    tokens.push(token);
    return token;
  };

  try {
    let done = 0;
    while (ids.length - done > prefillStepSize) {
      signal?.throwIfAborted();
      prefill(model, ids.slice(done, done + prefillStepSize), cache);
      done += prefillStepSize;
      options.promptProgressCallback?.(done, ids.length);
      yield undefined;
    }
    let input: readonly number[] = ids.slice(done);
    for (let n = 0; n < limit; n++) {
      signal?.throwIfAborted();
      const token = step(input, limit - n);
      current = n;
      if (n === 0) options.promptProgressCallback?.(ids.length, ids.length);
      yield tokenAndLogprobs(token, () => (current === n ? (logits ?? loop?.logits) : undefined));
      input = [token];
    }
  } finally {
    current = -1;
    decode?.dispose();
    loop?.dispose();
    logits?.dispose();
    if (!options.promptCache) for (const c of cache) c.dispose();
  }
}

/** Extends the cache by a chunk. Only keys and values are asked for, so the last layer's output and the logits are never computed. */
function prefill(model: LanguageModel, ids: readonly number[], cache: PromptCache): void {
  mx.tidy(() => {
    model.nextLogits(mx.array([[...ids]], mx.int32), cache);
    return cache;
  });
  // Outside of the scope: with its handles closed, each intermediate result is given back as soon as it was used.
  mx.eval(cache.flatMap((c) => c.state));
}

/**
 * Makes token after token: yields `[token, logprobs]`, at most `maxTokens` of them and no more than fit in the model's context. Does not
 * stop at the end of the text. Blocks while it computes; `streamGenerate` lets the event loop run in between.
 */
export function* generateStep(prompt: Exclude<Prompt, string>, model: LanguageModel, options: GenerateStepOptions = {}): Generator<TokenAndLogprobs, void, void> {
  for (const pause of run(promptIds(prompt), model, options)) if (pause) yield pause;
}

/** One piece of generated text. */
export interface GenerationResponse {
  /** Text that became complete with this token: never a part of a character. May be empty. */
  text: string;
  token: number;
  /** Logarithms of all probabilities (V), float32: computed when first read, which must happen before the next response. */
  readonly logprobs: MxArray;
  promptTokens: number;
  /** Prompt tokens per second. */
  promptTps: number;
  generationTokens: number;
  generationTps: number;
  /** Greatest memory in use so far, in GB (1e9 bytes). */
  peakMemory: number;
  /** Why this response is the last: an end-of-text token, or as many tokens as allowed. */
  finishReason: "stop" | "length" | null;
}

export interface StreamGenerateOptions extends GenerateStepOptions {
  /** Tokens that end the text, instead of the tokenizer's or model's own. */
  eosTokenIds?: Iterable<number>;
}

/** Ids of a prompt. A text gets the tokenizer's special tokens, unless it starts with the begin-of-text token already. */
function encodePrompt(tokenizer: Tokenizer | undefined, prompt: Prompt): number[] {
  if (typeof prompt !== "string") return promptIds(prompt);
  if (prompt === "") throw new Error("[generate] the prompt is empty");
  if (!tokenizer) throw new Error("[generate] this model has no tokenizer: give the prompt as token ids");
  const addSpecialTokens = !tokenizer.bosToken || !prompt.startsWith(tokenizer.bosToken);
  return promptIds(tokenizer.encode(prompt, { addSpecialTokens }));
}

/** Waits until the event loop has run once. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * Generates text piece by piece; ends at an end-of-text token or after `maxTokens`. The event loop runs between tokens. Throws the signal's
 * reason when `options.signal` is aborted.
 */
export async function* streamGenerate(
  model: LanguageModel,
  tokenizer: Tokenizer | undefined,
  prompt: Prompt,
  options: StreamGenerateOptions = {},
): AsyncGenerator<GenerationResponse, void, void> {
  const ids = encodePrompt(tokenizer, prompt);
  const eos = new Set(options.eosTokenIds ?? tokenizer?.eosTokenIds ?? model.eosTokenIds);
  const maxTokens = Math.min(options.maxTokens ?? 256, model.contextLength - (options.promptCache?.[0]?.offset ?? 0) - ids.length + 1);
  const detokenizer = tokenizer?.makeDetokenizer();
  let start = performance.now();
  let promptTps = 0;
  let count = 0;
  for (const pause of run(ids, model, options)) {
    if (pause) {
      const [token] = pause;
      if (count === 0) {
        promptTps = perSecond(ids.length, start);
        start = performance.now();
      }
      count++;
      const stop = eos.has(token);
      const last = stop || count >= maxTokens;
      if (!stop) detokenizer?.addToken(token);
      if (last) detokenizer?.finalize();
      yield {
        text: detokenizer?.lastSegment ?? "",
        token,
        get logprobs() {
          return pause[1];
        },
        promptTokens: ids.length,
        promptTps,
        generationTokens: count,
        generationTps: count > 1 ? perSecond(count - 1, start) : 0,
        peakMemory: mx.getPeakMemory() / 1e9,
        finishReason: stop ? "stop" : last ? "length" : null,
      };
      if (last) return;
    }
    await breathe();
  }
}

const perSecond = (n: number, since: number): number => (n * 1000) / Math.max(performance.now() - since, 1e-3);

/** Generates a text and gives it as a whole. */
export async function generate(model: LanguageModel, tokenizer: Tokenizer | undefined, prompt: Prompt, options: StreamGenerateOptions = {}): Promise<string> {
  let text = "";
  for await (const response of streamGenerate(model, tokenizer, prompt, options)) text += response.text;
  return text;
}
