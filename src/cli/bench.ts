/** `mlx-vk bench`: speed of one model on this machine. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { core as mx } from "../index.ts";
import { type LoadedModel, streamGenerate } from "../llm/index.ts";
import { packageInfo } from "../package.ts";
import { deviceText, loadModel, type ModelOptions } from "./session.ts";

interface BenchOptions extends ModelOptions {
  promptTokens: number;
  maxTokens: number;
  runs: number;
  json?: boolean;
}

interface Run {
  promptTps: number;
  generationTps: number;
  firstTokenMs: number;
  peakMemory: number;
}

async function measure({ model }: LoadedModel, prompt: readonly number[], maxTokens: number): Promise<Run> {
  const start = performance.now();
  const run: Run = { promptTps: 0, generationTps: 0, firstTokenMs: 0, peakMemory: 0 };
  // No token ends the text, so that every run has the same length.
  for await (const r of streamGenerate(model, undefined, prompt, { maxTokens, eosTokenIds: [] })) {
    if (r.generationTokens === 1) run.firstTokenMs = performance.now() - start;
    run.promptTps = r.promptTps;
    run.generationTps = r.generationTps;
    run.peakMemory = r.peakMemory;
  }
  return run;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;

/** Runs the checkout's own bench, which the package does not hold. */
function runSuite(script: string, filters: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, ["--import", "tsx", script, ...filters], { stdio: "inherit", cwd: packageInfo().root });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => {
      process.exitCode = code ?? 1;
      resolve();
    });
  });
}

export async function benchCommand(filters: readonly string[], options: BenchOptions): Promise<void> {
  const suite = join(packageInfo().root, "bench", "run.ts");
  if (options.model === undefined && existsSync(suite)) return runSuite(suite, filters);
  const loaded = await loadModel(options);
  const { promptTokens, maxTokens } = options;
  const size = loaded.config.vocab_size;
  // A fixed sequence that visits the vocabulary: speed does not depend on the ids, but results should repeat.
  const prompt = Array.from({ length: promptTokens }, (_, i) => (i * 7919 + 1) % size);
  await measure(loaded, prompt, Math.min(maxTokens, 8));
  mx.resetPeakMemory();
  const runs: Run[] = [];
  for (let i = 0; i < options.runs; i++) runs.push(await measure(loaded, prompt, maxTokens));
  const middle = (key: keyof Run): number => median(runs.map((r) => r[key]));
  const result = {
    promptTokens,
    generationTokens: maxTokens,
    promptTps: middle("promptTps"),
    generationTps: middle("generationTps"),
    firstTokenMs: middle("firstTokenMs"),
    peakMemory: middle("peakMemory"),
    device: deviceText(),
  };
  if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else {
    process.stdout.write(`Prompt: ${promptTokens} tokens, ${result.promptTps.toFixed(3)} tokens-per-sec\n`);
    process.stdout.write(`Generation: ${maxTokens} tokens, ${result.generationTps.toFixed(3)} tokens-per-sec\n`);
    process.stdout.write(`First token: ${result.firstTokenMs.toFixed(1)} ms\n`);
    process.stdout.write(`Peak memory: ${result.peakMemory.toFixed(3)} GB\n`);
    process.stdout.write(`Device: ${result.device}\n`);
  }
}
