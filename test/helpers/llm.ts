/** Model folders and numbers for the tests of language models. */
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { core as mx } from "../../src/index.ts";
import { type CausalLM, type LoadedModel, generate, makePromptCache, streamGenerate } from "../../src/llm/index.ts";

export const demo4bit = "models/demo-shakespeare-4bit";
export const demoBf16 = "test/fixtures/demo-bf16";
export const arch = (name: string): string => `test/fixtures/arch/${name}`;

/** An empty folder that is removed after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mlx-llm-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A copy of a model folder with a changed config.json. */
export function variant(folder: string, change: (config: Record<string, unknown>) => void, without: readonly string[] = []): string {
  const copy = temporaryFolder();
  for (const name of readdirSync(folder)) if (!without.includes(name)) copyFileSync(join(folder, name), join(copy, name));
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
  change(config);
  writeFileSync(join(copy, "config.json"), JSON.stringify(config));
  return copy;
}

/** All elements as numbers. */
export function values(a: mx.MxArray): number[] {
  return mx.tidy(() => mx.reshape(a.astype(mx.float32), [-1]).tolist() as number[]);
}
/** Greatest distance between elements. */
export function distance(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Number.NaN;
  return a.reduce((worst, x, i) => Math.max(worst, Math.abs(x - (b[i] as number))), 0);
}
export const argmax = (row: readonly number[]): number => row.indexOf(Math.max(...row));
type Weights = Record<string, mx.MxArray>;
/** Golden outputs of a model folder. */
export const golden = (folder: string): Weights => mx.load(`${folder}/golden.safetensors`) as Weights;
export const numbers = (weights: Weights, name: string): number[] => values(weights[name] as mx.MxArray);
export const idsOf = (ids: readonly number[]): mx.MxArray => mx.array([[...ids]], mx.int32);

/** Logits of all ids, read `size` at a time behind a cache. */
export function forwardInChunks(model: CausalLM, ids: readonly number[], size: number): number[] {
  const cache = makePromptCache(model);
  const rows: number[] = [];
  for (let i = 0; i < ids.length; i += size) rows.push(...mx.tidy(() => [values(model.forward(idsOf(ids.slice(i, i + size)), cache)), cache] as const)[0]);
  return rows;
}
/** A signal stops generation before its first step, and after the third of many. */
export async function checkSignal({ model, tokenizer }: LoadedModel): Promise<void> {
  await expect(generate(model, tokenizer, [5], { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
  const controller = new AbortController();
  let made = 0;
  const run = async (): Promise<void> => {
    for await (const _ of streamGenerate(model, tokenizer, [5], { maxTokens: 50, eosTokenIds: [], signal: controller.signal })) if (++made === 3) controller.abort();
  };
  await expect(run()).rejects.toThrow(/abort/i);
  expect(made).toBe(3);
}

/** Numbers in [0, 1) that repeat (mulberry32). */
export function randomFrom(seed: number): () => number {
  let s = seed;
  return () => {
    s = (s + 0x6d2b79f5) | 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
