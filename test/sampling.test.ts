/** Samplers and logits processors against plain JavaScript. */
import { describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { applyMinP, applyTopK, applyTopP, applyXtc, makeLogitsProcessors, makeSampler } from "../src/llm/index.ts";
import { randomFrom, values } from "./helpers/llm.ts";

const SIZE = 57;
function randomLogits(seed: number): number[] {
  const random = randomFrom(seed);
  return Array.from({ length: SIZE }, () => Math.fround((random() - 0.5) * 12));
}
const array = (row: readonly number[]): mx.MxArray => mx.array([[...row]]);
function softmax(row: readonly number[]): number[] {
  const top = Math.max(...row);
  const e = row.map((x) => Math.exp(x - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}
/** Indices of the tokens that were not removed. */
const kept = (row: readonly number[]): number[] => row.flatMap((x, i) => (x === Number.NEGATIVE_INFINITY ? [] : [i]));
/** Indices from the greatest value down. */
const ranked = (row: readonly number[]): number[] => row.map((_, i) => i).sort((a, b) => (row[b] as number) - (row[a] as number));
const ascending = (list: number[]): number[] => list.sort((a, b) => a - b);
const seeds = [1, 2, 3, 4, 5];

describe("filters keep what they should and leave the rest as it is", () => {
  const check = (logits: number[], filtered: mx.MxArray, wanted: number[]): void => {
    const got = values(filtered);
    expect(kept(got)).toEqual(ascending(wanted));
    for (const i of wanted) expect(got[i]).toBe(logits[i]);
  };
  test.each(seeds)("top-k, seed %i", (seed) => {
    const logits = randomLogits(seed);
    for (const k of [1, 2, 10, SIZE - 1, SIZE, SIZE + 5]) check(logits, applyTopK(array(logits), k), ranked(logits).slice(0, k));
  });
  test.each(seeds)("top-p, seed %i", (seed) => {
    const logits = randomLogits(seed);
    const probs = softmax(logits);
    for (const p of [0.05, 0.5, 0.9, 0.99]) {
      const wanted: number[] = [];
      let sum = 0;
      for (const i of ranked(logits)) {
        if (sum >= p) break;
        wanted.push(i);
        sum += probs[i] as number;
      }
      check(logits, applyTopP(array(logits), p), wanted);
    }
  });
  test.each(seeds)("min-p, seed %i", (seed) => {
    const logits = randomLogits(seed);
    const probs = softmax(logits);
    const best = Math.max(...probs);
    for (const [p, least] of [
      [0.02, 1],
      [0.3, 1],
      [1, 1],
      [0.9, 4],
    ] as const) {
      const wanted = new Set(ranked(logits).slice(0, least));
      for (const [i, q] of probs.entries()) if (q >= p * best) wanted.add(i);
      check(logits, applyMinP(array(logits), p, least), [...wanted]);
    }
  });
  test.each(seeds)("XTC, seed %i", (seed) => {
    const logits = randomLogits(seed);
    const probs = softmax(logits);
    const threshold = 0.04;
    const above = ranked(logits).filter((i) => (probs[i] as number) > threshold);
    expect(above.length).toBeGreaterThan(1);
    const removed = above.slice(0, -1);
    check(
      logits,
      applyXtc(array(logits), 1, threshold),
      logits.map((_, i) => i).filter((i) => !removed.includes(i)),
    );
    check(
      logits,
      applyXtc(array(logits), 0, threshold),
      logits.map((_, i) => i),
    );
    const spared = removed[0] as number;
    check(
      logits,
      applyXtc(array(logits), 1, threshold, [spared]),
      logits.map((_, i) => i).filter((i) => i === spared || !removed.includes(i)),
    );
  });
  test("XTC leaves a single choice alone", () => {
    const logits = [10, 0, 0, 0];
    check(logits, applyXtc(array(logits), 1, 0.5), [0, 1, 2, 3]);
  });
});

describe("makeSampler", () => {
  const draw = (sampler: ReturnType<typeof makeSampler>, logits: readonly number[], n: number): number[] => {
    mx.random.seed(7);
    const given = array(logits);
    return Array.from({ length: n }, () => mx.tidy(() => sampler(given).item() as number));
  };
  test("temperature 0 takes the greatest logit", () => {
    for (const seed of seeds) {
      const logits = randomLogits(seed);
      expect(draw(makeSampler(), logits, 1)[0]).toBe(ranked(logits)[0]);
    }
  });
  test.each([0.5, 1, 2])("draws follow softmax(logits / %f)", (temp) => {
    const logits = [1.5, 0.5, 0, -1, 2];
    const n = 4000;
    const drawn = draw(makeSampler({ temp }), logits, n);
    for (const [i, p] of softmax(logits.map((x) => x / temp)).entries()) {
      const share = drawn.filter((t) => t === i).length / n;
      // Five standard deviations of a binomial share.
      expect(Math.abs(share - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / n));
    }
  });
  test("the same seed draws the same tokens, also from bfloat16 logits", () => {
    const logits = randomLogits(9);
    const sampler = makeSampler({ temp: 1, topP: 0.95, topK: 20, minP: 0.01 });
    expect(draw(sampler, logits, 20)).toEqual(draw(sampler, logits, 20));
    const token = mx.tidy(() => sampler(array(logits).astype(mx.bfloat16)).item() as number);
    expect(token).toBeLessThan(SIZE);
  });
  test("filters bound the draws", () => {
    const logits = randomLogits(3);
    const top = new Set(ranked(logits).slice(0, 3));
    expect(draw(makeSampler({ temp: 5, topK: 3 }), logits, 200).every((t) => top.has(t))).toBe(true);
    expect(new Set(draw(makeSampler({ temp: 5, topP: 1e-6 }), logits, 50))).toEqual(new Set([ranked(logits)[0]]));
  });
  test.each([
    [{ topK: 5 }, 20_011],
    [{ topK: 4, topP: 0.6 }, 20_011],
    [{ topK: 6, minP: 0.2 }, 20_011],
    [{ topK: 8, topP: 0.9, minP: 0.05 }, 57],
    [{ topK: 3, minP: 0.99, minTokensToKeep: 2 }, 4096],
  ])("%j: draws among %i tokens follow the filters", (options, size) => {
    const { topK, topP = 1, minP = 0, minTokensToKeep = 1 } = options as { topK: number; topP?: number; minP?: number; minTokensToKeep?: number };
    const random = randomFrom(size);
    // Some logits stand out, at the start, the end and close together.
    const logits = Array.from({ length: size }, () => Math.fround((random() - 0.5) * 4));
    for (const [j, i] of [0, 1, 2, size >> 1, (size >> 1) + 1, size - 2, size - 1].entries()) logits[i] = Math.fround(8 + 0.3 * j);
    const probs = softmax(logits);
    let before = 0;
    const allowed: number[] = [];
    for (const [rank, i] of ranked(logits).slice(0, topK).entries()) {
      const likely = (probs[i] as number) >= minP * Math.max(...probs) || rank < minTokensToKeep;
      if (before < topP && likely) allowed.push(i);
      before += probs[i] as number;
    }
    const n = 1500;
    const drawn = draw(makeSampler({ temp: 1, ...options }), logits, n);
    const total = allowed.reduce((sum, i) => sum + (probs[i] as number), 0);
    expect(ascending([...new Set(drawn)])).toEqual(ascending([...allowed]));
    for (const i of allowed) {
      const p = (probs[i] as number) / total;
      expect(Math.abs(drawn.filter((t) => t === i).length / n - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / n));
    }
  });
  test.each([
    [{ temp: -1 }, /temp/],
    [{ temp: 1, topP: 2 }, /topP/],
    [{ temp: 1, minP: -0.1 }, /minP/],
    [{ temp: 1, topK: 1.5 }, /topK/],
    [{ temp: Number.NaN }, /temp/],
    [{ temp: 1, xtcProbability: 2 }, /xtcProbability/],
    [{ temp: 1, xtcThreshold: 0.6 }, /xtcThreshold/],
    [{ temp: 1, minTokensToKeep: 0 }, /minTokensToKeep/],
  ])("refuses %j", (options, message) => {
    expect(() => makeSampler(options)).toThrow(message);
  });
});

describe("makeLogitsProcessors", () => {
  const run = (options: Parameters<typeof makeLogitsProcessors>[0], tokens: number[], logits: number[]): number[] => {
    let l = array(logits);
    for (const process of makeLogitsProcessors(options)) l = process(tokens, l);
    return values(l);
  };
  const tokens = [1, 4, 4, 9, 1, 30, 1];
  const logits = randomLogits(11);

  test("nothing asked for, nothing done", () => {
    expect(makeLogitsProcessors({ repetitionPenalty: 1, presencePenalty: 0 })).toEqual([]);
    expect(run({ repetitionPenalty: 1.3 }, [], logits)).toEqual(logits);
  });
  test("repetition penalty, within its context", () => {
    const expected = (size: number): number[] => logits.map((x, i) => (tokens.slice(-size).includes(i) ? Math.fround(x < 0 ? x * Math.fround(1.3) : x / Math.fround(1.3)) : x));
    expect(run({ repetitionPenalty: 1.3 }, tokens, logits)).toEqual(expected(20).map((x) => expect.closeTo(x, 5)));
    expect(run({ repetitionPenalty: 1.3, repetitionContextSize: 3 }, tokens, logits)).toEqual(expected(3).map((x) => expect.closeTo(x, 5)));
  });
  test("presence penalty counts once, frequency penalty every time", () => {
    const times = (i: number): number => tokens.filter((t) => t === i).length;
    expect(run({ presencePenalty: 0.7 }, tokens, logits)).toEqual(logits.map((x, i) => expect.closeTo(times(i) > 0 ? x - 0.7 : x, 5)));
    expect(run({ frequencyPenalty: 0.7 }, tokens, logits)).toEqual(logits.map((x, i) => expect.closeTo(x - 0.7 * times(i), 5)));
  });
  test("logit bias, as an object and as a map", () => {
    const expected = logits.map((x, i) => expect.closeTo(x + (i === 3 ? -100 : i === 5 ? 2.5 : 0), 4));
    expect(run({ logitBias: { 3: -100, 5: 2.5 } }, tokens, logits)).toEqual(expected);
    expect(
      run(
        {
          logitBias: new Map([
            [3, -100],
            [5, 2.5],
          ]),
        },
        tokens,
        logits,
      ),
    ).toEqual(expected);
  });
});
