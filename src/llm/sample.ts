/** Choosing the next token from logits, and changing logits before that. Names and order of steps follow mlx-lm. */
import { core as mx, type MxArray } from "../index.ts";

/**
 * Logits (1, V) -> token ids (1). A shift that is the same for a whole row does not matter, so logits need not be normalised.
 */
export type Sampler = ((logits: MxArray, key?: MxArray) => MxArray) & {
  /** True when the choice depends on the logits alone, so that it may be recorded with the model's step. */
  readonly recordable?: boolean;
  /** True when it takes a key (uint32 of shape [2]) as a second argument and depends on that and the logits alone. Generation gives the key [seed, number of tokens so far]. */
  readonly keyed?: boolean;
  /** Of a draw from all tokens, or 0 for the most probable one: a kernel of the GPU makes such a choice. */
  readonly temperature?: number;
};
/** Changes logits (1, V), given the ids of the prompt and of all tokens so far. */
export type LogitsProcessor = ((tokens: readonly number[], logits: MxArray) => MxArray) & {
  /** The same of the last tokens as an array, so that it may be recorded with the model's step. */
  readonly recent?: RecentProcessor;
};
export interface RecentProcessor {
  /** How many of the last tokens it looks at. */
  readonly context: number;
  /** `recent`: int32 [context], oldest first; -1 where there are fewer tokens, but the last one is always there. */
  apply(recent: MxArray, logits: MxArray): MxArray;
}

export interface SamplerOptions {
  /** Temperature; 0 takes the most probable token. Default 0. */
  temp?: number;
  /** Keep the fewest tokens whose probabilities sum up to this. 0 and 1: all. */
  topP?: number;
  /** Keep the k most probable tokens. 0: all. */
  topK?: number;
  /** Keep tokens at least this share as probable as the best one. 0: all. */
  minP?: number;
  /** `minP` keeps at least so many. Default 1. */
  minTokensToKeep?: number;
  /** Chance of leaving out all but the least probable of the tokens above `xtcThreshold`. */
  xtcProbability?: number;
  /** In [0, 0.5]. */
  xtcThreshold?: number;
  /** Ids that XTC never removes, such as line breaks and ends of text. */
  xtcSpecialTokens?: readonly number[];
}

const none = Number.NEGATIVE_INFINITY;

function requireRange(option: string, value: number, low: number, high: number): void {
  if (!(value >= low && value <= high)) throw new Error(`[makeSampler] ${option} must be in [${low}, ${high}], got ${value}`);
}

/** Makes a sampler: greedy without a temperature, else top-p, min-p, XTC and top-k in this order, then a draw at the temperature. */
export function makeSampler(options: SamplerOptions = {}): Sampler {
  const { temp = 0, topP = 0, topK = 0, minP = 0, minTokensToKeep = 1, xtcProbability = 0, xtcThreshold = 0, xtcSpecialTokens = [] } = options;
  requireRange("temp", temp, 0, Number.MAX_VALUE);
  requireRange("topP", topP, 0, 1);
  requireRange("minP", minP, 0, 1);
  requireRange("xtcProbability", xtcProbability, 0, 1);
  requireRange("xtcThreshold", xtcThreshold, 0, 0.5);
  if (!Number.isInteger(topK) || topK < 0) throw new Error(`[makeSampler] topK must be a whole number, 0 or more, got ${topK}`);
  if (!Number.isInteger(minTokensToKeep) || minTokensToKeep < 1) throw new Error(`[makeSampler] minTokensToKeep must be a whole number, 1 or more, got ${minTokensToKeep}`);
  if (temp === 0) return Object.assign((logits: MxArray) => mx.argmax(logits, -1), { recordable: true, temperature: 0 });
  if (topP % 1 === 0 && minP === 0 && xtcProbability === 0 && topK === 0) return Object.assign((logits: MxArray, key?: MxArray) => categoricalSampling(logits.astype(mx.float32), temp, key), { keyed: true, temperature: temp });
  const top = { temp, topK, topP, minP, minTokensToKeep };
  if (topK > 0 && xtcProbability === 0) return Object.assign((logits: MxArray, key?: MxArray) => sampleTop(logits.astype(mx.float32), top, key), { keyed: true });
  const sample = (logits: MxArray, key?: MxArray): MxArray => {
    // XTC draws, too.
    const [own, other] = key && xtcProbability > 0 ? mx.random.split(key) : [key];
    let l = logits.astype(mx.float32);
    if (topP > 0 && topP < 1) l = applyTopP(l, topP);
    if (minP > 0) l = applyMinP(l, minP, minTokensToKeep);
    if (xtcProbability > 0) l = applyXtc(l, xtcProbability, xtcThreshold, xtcSpecialTokens, other);
    if (topK > 0) l = applyTopK(l, topK);
    return categoricalSampling(l, temp, own);
  };
  return Object.assign(sample, { keyed: true });
}

/** Elements per block in the search for the greatest. */
const BLOCK = 64;
const int32 = (x: number): MxArray => mx.array(x, mx.int32);
/** Elements of (B, N) at the places (B, K). */
const pick = (a: MxArray, places: MxArray): MxArray => mx.takeAlongAxis(a, places, -1);

/** Places (B, k) of the k greatest elements of (B, N), in any order. */
const greatest = (a: MxArray, k: number): MxArray =>
  mx
    .argpartition(mx.negative(a), k - 1, -1)
    .index("...", mx.Slice(0, k))
    .astype(mx.int32);

/**
 * The k greatest logits and their ids, in descending order: (B, V) -> (B, k) each. In a large vocabulary only the k blocks with the greatest
 * maxima are searched: they hold the k greatest elements.
 */
function topLogits(logits: MxArray, k: number): { values: MxArray; ids: MxArray } {
  const [B, V] = logits.shape as [number, number];
  let values = logits;
  let ids: MxArray | undefined;
  if (V >= 4 * BLOCK * k) {
    const n = Math.ceil(V / BLOCK);
    const padded = V === n * BLOCK ? logits : mx.concatenate([logits, mx.full([B, n * BLOCK - V], none, logits.dtype)], -1);
    const blocks = mx.reshape(padded, [B, n, BLOCK]);
    const chosen = mx.expandDims(greatest(mx.max(blocks, -1), k), -1);
    values = mx.reshape(mx.takeAlongAxis(blocks, mx.broadcastTo(chosen, [B, k, BLOCK]), 1), [B, k * BLOCK]);
    ids = mx.reshape(mx.add(mx.multiply(chosen, int32(BLOCK)), mx.arange(0, BLOCK, 1, mx.int32)), [B, k * BLOCK]);
  }
  const places = greatest(values, k);
  const found = pick(values, places);
  const order = mx.argsort(mx.negative(found), -1);
  return { values: pick(found, order), ids: pick(ids ? pick(ids, places) : places, order) };
}

/**
 * Draws from the k most probable tokens, of which top-p and min-p keep the first ones: as filtering the whole vocabulary by top-p, min-p and
 * top-k would, since each of the three keeps a beginning of the same ranking. logits (B, V) -> (B).
 */
function sampleTop(logits: MxArray, o: { temp: number; topK: number; topP: number; minP: number; minTokensToKeep: number }, key?: MxArray): MxArray {
  const k = Math.min(o.topK, logits.shape.at(-1) as number);
  const { values, ids } = topLogits(logits, k);
  let kept = values;
  if (o.topP > 0 && o.topP < 1) {
    const probs = mx.exp(mx.subtract(values, mx.logsumexp(logits, -1, true)));
    const before = mx.cumsum(probs, -1, false, false);
    kept = mx.where(mx.less(before, o.topP), kept, mx.array(none));
  }
  if (o.minP > 0) {
    const first = values.index("...", mx.Slice(0, 1));
    const enough = mx.greaterEqual(values, mx.add(first, Math.log(o.minP)));
    const always = mx.less(mx.arange(0, k, 1, mx.int32), int32(o.minTokensToKeep));
    kept = mx.where(mx.logicalOr(enough, always), kept, mx.array(none));
  }
  const drawn = categoricalSampling(kept, o.temp, key);
  return mx.squeeze(pick(ids, mx.expandDims(drawn, -1)), -1);
}

/** Draws from softmax(logits / temp): logits (..., V) -> (...). Without a key (uint32 of shape [2]) it takes the next one of the global sequence. */
export const categoricalSampling = (logits: MxArray, temp: number, key?: MxArray): MxArray => mx.random.categorical(mx.multiply(logits, 1 / temp), -1, null, null, key);

/** Sets all but the k greatest logits to -inf: (..., V) -> (..., V). */
export function applyTopK(logits: MxArray, topK: number): MxArray {
  const size = logits.shape.at(-1) as number;
  if (topK >= size) return logits;
  const removed = mx.argpartition(mx.negative(logits), topK - 1, -1).index("...", mx.Slice(topK));
  return mx.putAlongAxis(logits, removed, mx.array(none, logits.dtype), -1);
}

/** Sets tokens less probable than `minP` times the best one to -inf (Nguyen et al. 2024), but keeps at least `minTokensToKeep`. */
export function applyMinP(logits: MxArray, minP: number, minTokensToKeep = 1): MxArray {
  const limit = mx.add(mx.max(logits, -1, true), Math.log(minP));
  let removed = mx.less(logits, limit);
  if (minTokensToKeep > 1) {
    const size = logits.shape.at(-1) as number;
    const keep = Math.min(minTokensToKeep, size);
    const best = mx.argpartition(mx.negative(logits), keep - 1, -1).index("...", mx.Slice(0, keep));
    removed = mx.putAlongAxis(removed, best, mx.array(false), -1);
  }
  return mx.where(removed, mx.array(none, logits.dtype), logits);
}

/** Nucleus sampling (Holtzman et al. 2019): sets the least probable tokens, which together have no more than 1 - topP, to -inf. */
export function applyTopP(logits: MxArray, topP: number): MxArray {
  const order = mx.argsort(logits, -1);
  const sums = mx.cumsum(mx.takeAlongAxis(mx.softmax(logits, -1), order, -1), -1);
  const sorted = mx.where(mx.greater(sums, 1 - topP), mx.takeAlongAxis(logits, order, -1), mx.array(none, logits.dtype));
  return mx.putAlongAxis(logits, order, sorted, -1);
}

/**
 * XTC, "exclude top choices" (p-e-w 2024): with probability `xtcProbability` sets all tokens above `xtcThreshold` but the least probable
 * of them to -inf.
 */
export function applyXtc(logits: MxArray, xtcProbability: number, xtcThreshold: number, xtcSpecialTokens: readonly number[] = [], key?: MxArray): MxArray {
  requireRange("xtcProbability", xtcProbability, 0, 1);
  requireRange("xtcThreshold", xtcThreshold, 0, 0.5);
  const probs = mx.softmax(logits, -1);
  const least = mx.min(mx.where(mx.greater(probs, xtcThreshold), probs, mx.array(Number.POSITIVE_INFINITY, probs.dtype)), -1, true);
  let removed = mx.greater(probs, least);
  if (xtcSpecialTokens.length > 0) {
    removed = mx.putAlongAxis(removed, tokenIndex(xtcSpecialTokens, removed), mx.array(false), -1);
  }
  const keepAll = mx.greater(mx.random.uniform(0, 1, [1], mx.float32, key), xtcProbability);
  return mx.where(mx.logicalOr(keepAll, mx.logicalNot(removed)), logits, mx.array(none, logits.dtype));
}

/** Ids as an index (1, ..., n) along the last axis of `like`, whose other axes must be 1. */
const tokenIndex = (ids: readonly number[], like: MxArray): MxArray => mx.reshape(mx.array(Int32Array.from(ids)), [...like.shape.slice(0, -1).map(() => 1), ids.length]);

export interface LogitsProcessorOptions {
  /** Added to the logits of single tokens, by id. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** Divides positive and multiplies negative logits of tokens seen lately; over 1 discourages, 0 and 1 do nothing (Keskar et al. 2019). */
  repetitionPenalty?: number;
  /** How many of the last tokens count. Default 20. */
  repetitionContextSize?: number;
  /** Subtracted once from the logits of tokens seen lately. */
  presencePenalty?: number;
  presenceContextSize?: number;
  /** Subtracted from the logits of tokens seen lately, once per occurrence. */
  frequencyPenalty?: number;
  frequencyContextSize?: number;
}

/** Makes the processors asked for: logit bias, repetition, presence and frequency penalties, in this order. */
export function makeLogitsProcessors(options: LogitsProcessorOptions = {}): LogitsProcessor[] {
  const { logitBias, repetitionPenalty = 0, presencePenalty = 0, frequencyPenalty = 0 } = options;
  const { repetitionContextSize = 20, presenceContextSize = 20, frequencyContextSize = 20 } = options;
  const processors: LogitsProcessor[] = [];
  if (logitBias) {
    const bias = new Map(logitBias instanceof Map ? logitBias : Object.entries(logitBias).map(([id, b]) => [Number(id), b]));
    const add = (logits: MxArray): MxArray => addAt(logits, tokenIndex([...bias.keys()], logits), mx.array(Float32Array.from(bias.values())));
    if (bias.size > 0) processors.push(ofRecent(0, (_recent, logits) => add(logits)));
  }
  if (!(repetitionPenalty >= 0)) throw new Error(`[makeLogitsProcessors] repetitionPenalty must be 0 or more, got ${repetitionPenalty}`);
  if (repetitionPenalty !== 0 && repetitionPenalty !== 1 && repetitionContextSize > 0) processors.push(ofRecent(repetitionContextSize, repetition(repetitionPenalty)));
  if (presencePenalty !== 0 && presenceContextSize > 0) {
    processors.push(ofRecent(presenceContextSize, (recent, logits) => addAt(logits, recentIndex(recent, logits), mx.full(recent.shape, -presencePenalty, mx.float32))));
  }
  if (frequencyPenalty !== 0 && frequencyContextSize > 0) {
    processors.push(ofRecent(frequencyContextSize, (recent, logits) => addAt(logits, recentIndex(recent, logits), mx.multiply(countsOf(recent), -frequencyPenalty))));
  }
  return processors;
}

/** A processor that looks at the last `context` tokens only. */
function ofRecent(context: number, apply: RecentProcessor["apply"]): LogitsProcessor {
  const process: LogitsProcessor = (tokens, logits) => {
    const recent = context > 0 ? tokens.slice(-context) : [];
    return context > 0 && recent.length === 0 ? logits : apply(mx.array(Int32Array.from(recent)), logits);
  };
  return Object.assign(process, { recent: { context, apply } });
}
/** The last tokens, with the very last one in place of those that are not there. */
const known = (recent: MxArray): MxArray => mx.where(mx.less(recent, int32(0)), recent.index(mx.Slice(-1)), recent);
/** Their ids as an index (1, ..., n) along the last axis of logits (1, V). An id may stand there twice: what is written for it must be equal. */
const recentIndex = (recent: MxArray, logits: MxArray): MxArray => mx.reshape(known(recent), [...logits.shape.slice(0, -1).map(() => 1), recent.size]);
/** How often each of the last tokens stands among them, float32. */
const countsOf = (recent: MxArray): MxArray => mx.sum(mx.equal(mx.expandDims(known(recent), 1), mx.expandDims(recent, 0)).astype(mx.float32), 1);

/** Adds values to the logits (1, V) at an index. */
function addAt(logits: MxArray, index: MxArray, values: MxArray): MxArray {
  const added = mx.reshape(values, index.shape).astype(logits.dtype);
  return mx.putAlongAxis(logits, index, mx.add(mx.takeAlongAxis(logits, index, -1), added), -1);
}

const repetition =
  (penalty: number): RecentProcessor["apply"] =>
  (recent, logits) => {
    const index = recentIndex(recent, logits);
    const old = mx.takeAlongAxis(logits, index, -1);
    const changed = mx.where(mx.less(old, 0), mx.multiply(old, penalty), mx.divide(old, penalty));
    return mx.putAlongAxis(logits, index, changed, -1);
  };
