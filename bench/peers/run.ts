/**
 * Our decode and prefill beside llama.cpp's (node-llama-cpp, prebuilt CPU library), on the same configuration with random weights. Each library
 * has a process of its own; they take turns task by task, so that changes of the machine's speed meet both.
 * Use: cd bench/peers && npm ci; then from the repository: node --import tsx bench/peers/run.ts [--rounds 7] [--model qwen3-0.6b] [--only decode|prefill] [--threads 2]
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Result, digits, header, machine, ratios, spread, summarize, writeReport } from "../harness.ts";
import { type ConfigName, type FormatName, configs } from "../models/configs.ts";
import { syntheticCheckpoint } from "../models/synthetic.ts";
import { RemoteEngine, type Task } from "./engine.ts";
import { type GgufType, syntheticGguf } from "./gguf.ts";

interface Comparison {
  readonly name: string;
  readonly format: FormatName;
  readonly gguf: GgufType;
  readonly tasks: readonly Task[];
  /** Our speed over theirs that the project aims at. */
  readonly aim: number;
}
const decode = (tokens: number, depth: number): Task => ({ kind: "decode", tokens, depth });
const prefill = (tokens: number): Task => ({ kind: "prefill", tokens, depth: 0 });
/** Q4_0 is llama.cpp's fastest 4-bit format; Q4_1 (scale and minimum per group) is the twin of MLX's affine format. */
const comparisons: readonly Comparison[] = [
  { name: "decode", format: "4bit-g128", gguf: "Q4_0", tasks: [decode(48, 16)], aim: 1.5 },
  { name: "prefill", format: "4bit-g128", gguf: "Q4_1", tasks: [prefill(128), prefill(512)], aim: 1.2 },
];

const { values: options } = parseArgs({
  options: { rounds: { type: "string", default: "7" }, model: { type: "string", default: "qwen3-0.6b" }, only: { type: "string" }, threads: { type: "string" } },
});

async function compare(c: Comparison, model: ConfigName, threads: number, rounds: number): Promise<Result[]> {
  const here = import.meta.dirname;
  const ours = await RemoteEngine.start(join(here, "mlx-vk.ts"), [syntheticCheckpoint(model, configs[model], c.format)]);
  const theirs = await RemoteEngine.start(join(here, "llama-cpp.ts"), [syntheticGguf(model, configs[model], c.gguf), String(threads)]);
  const results: Result[] = [];
  for (const task of c.tasks) {
    const name = `${task.kind} ${task.tokens}`;
    const a: number[] = [];
    const b: number[] = [];
    for (let i = -1; i < rounds; i++) {
      const pair = i % 2 === 0 ? [await ours.run(task), await theirs.run(task)] : [await theirs.run(task), await ours.run(task)].reverse();
      // The round before the first warms both up.
      if (i < 0) continue;
      a.push(pair[0] as number);
      b.push(pair[1] as number);
    }
    const ratio = ratios(a, b);
    console.log(`${name.padEnd(12)} ours ${c.format} ${spread(summarize(a))} tok/s, llama.cpp ${c.gguf} ${spread(summarize(b))} tok/s, ratio ${spread(ratio)}, aim ${c.aim}`);
    results.push({ name: `${model} ${name}, ours ${c.format}`, unit: "tok/s", better: "higher", value: summarize(a), extra: { peakMiB: ours.peakBytes / 2 ** 20 } });
    results.push({ name: `${model} ${name}, llama.cpp ${c.gguf}`, unit: "tok/s", better: "higher", value: summarize(b), extra: { peakMiB: theirs.peakBytes / 2 ** 20 } });
    results.push({ name: `${model} ${name}, ratio`, unit: "x", better: "higher", value: ratio });
  }
  console.log(`peak memory: ours ${digits(ours.peakBytes / 2 ** 20)} MiB, llama.cpp ${digits(theirs.peakBytes / 2 ** 20)} MiB`);
  ours.stop();
  theirs.stop();
  return results;
}

async function main(): Promise<void> {
  if (!existsSync(join(import.meta.dirname, "node_modules"))) throw new Error("install the peers first: cd bench/peers && npm ci");
  const model = options.model as ConfigName;
  if (!Object.hasOwn(configs, model)) throw new Error(`unknown model ${model}; there are ${Object.keys(configs).join(", ")}`);
  const threads = Number(options.threads ?? process.env["MLX_THREADS"] ?? machine().cores);
  process.env["MLX_THREADS"] = String(threads);
  const m = machine(threads);
  console.log(header(m));
  const results: Result[] = [];
  for (const c of comparisons) if (!options.only || c.name === options.only) results.push(...(await compare(c, model, threads, Number(options.rounds))));
  console.log(writeReport("peers", { machine: m, results }));
}

await main();
