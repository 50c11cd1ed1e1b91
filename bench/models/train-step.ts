/**
 * A training step of examples/train-gpt, compiled and fused, beside the same step without: `node --import tsx bench/models/train-step.ts [--device cpu|gpu|hollow]
 * [--width 64] [--layers 2] [--heads 2] [--context 128] [--batch 8] [--rounds 15] [--steps 5] [--json file]`. The sides take turns of so many steps in one process
 * and begin with the same state; their losses are compared first. `hollow` is a GPU that does nothing (hollow.ts), for the host's share of the time.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { GPT } from "../../examples/train-gpt/model.ts";
import { readText } from "../../examples/train-gpt/text.ts";
import { type State, keyOfStep, makeOptimizer, makeStep, stateOf } from "../../examples/train-gpt/train.ts";
import { core as mx } from "../../src/index.ts";
import { stats } from "../../src/schedule/run.ts";
import { type Result, header, machine, ratios, spread, summarize } from "../harness.ts";
import { useHollowDevice } from "./hollow.ts";

const number = (d: string) => ({ type: "string", default: d }) as const;
const { values: options } = parseArgs({
  options: {
    device: number("cpu"), width: number("64"), layers: number("2"), heads: number("2"), context: number("128"), batch: number("8"), rounds: number("15"), steps: number("5"), json: { type: "string" }, only: { type: "string" },
  },
});
const { device } = options;
if (device === "hollow") useHollowDevice();
mx.setDefaultDevice(device === "cpu" ? "cpu" : "gpu");
const [width, layers, heads, context, batch, rounds] = [options.width, options.layers, options.heads, options.context, options.batch, options.rounds].map(Number) as [number, number, number, number, number, number];

const text = readText(join(import.meta.dirname, "../../examples/train-gpt/sonnets.txt"), context);
const training = { batch, context, learningRate: 4e-3, warmup: 20, steps: 300, seed: 1 };

/** How a step is computed; set before each step, since the sides take turns. */
const sides = {
  "compiled": { fuse: true, compile: true },
  "compiled, fusion off": { fuse: false, compile: true },
  "fusion off": { fuse: false, compile: false },
} as const;
type Side = keyof typeof sides;
function choose(side: Side): void {
  process.env["MLX_FUSE"] = sides[side].fuse ? "1" : "0";
  if (sides[side].compile) mx.enableCompile();
  else mx.disableCompile();
}

/** A run of its own: the same weights and batches on every side. */
class Run {
  private readonly step: ReturnType<typeof makeStep>;
  private state: State;
  private at = 0;
  constructor() {
    mx.random.seed(training.seed);
    const model = new GPT({ vocabulary: text.characters.length, width, layers, heads, context });
    const optimizer = makeOptimizer(training);
    optimizer.init(model.trainableParameters());
    this.step = makeStep(model, optimizer, text, training);
    this.state = stateOf(model, optimizer);
    mx.eval(this.state);
  }
  /** Makes a step and gives its loss. */
  next(): number {
    const key = keyOfStep(training.seed, this.at++);
    const [loss, norm, state] = this.step(this.state, key);
    mx.eval(loss, state);
    mx.dispose(this.state, norm, key);
    this.state = state;
    const value = loss.item() as number;
    loss.dispose();
    return value;
  }
}

console.log(header(machine()));
const names = (Object.keys(sides) as Side[]).filter((n) => options.only === undefined || n === options.only);
const runs = new Map<Side, Run>();
const losses = new Map<Side, number[]>();
for (const n of names) {
  choose(n);
  const run = new Run();
  runs.set(n, run);
  losses.set(n, Array.from({ length: 4 }, () => run.next()));
}
const [first, ...others] = names.map((n) => losses.get(n) as number[]) as [number[], ...number[][]];
for (const other of others) {
  // Sums in another order differ in their last bits; four steps make little more of that.
  other.forEach((x, i) => {
    if (!(Math.abs(x - (first[i] as number)) <= 1e-4 * Math.max(1, Math.abs(x))) && device !== "hollow") throw new Error(`step ${i}: the losses differ: ${names.map((n) => losses.get(n)?.[i]).join(" and ")}`);
  });
}
console.log(`losses of the first steps: ${names.map((n) => `${n} ${losses.get(n)?.map((x) => x.toFixed(6)).join(" ")}`).join("; ")}`);

const samples = new Map(names.map((n) => [n, [] as number[]]));
const counts = new Map<Side, string>();
for (let i = 0; i < rounds; i++) {
  for (const n of i % 2 === 0 ? names : [...names].reverse()) {
    choose(n);
    let before = { ...stats };
    let spent = 0;
    // One step more than counts: the first of a turn pays for what the others left behind.
    for (let k = 0; k <= Number(options.steps); k++) {
      before = { ...stats };
      // As in training, which awaits each step: handles that nobody holds are closed between turns of the event loop.
      await new Promise((resolve) => setImmediate(resolve));
      const start = performance.now();
      (runs.get(n) as Run).next();
      if (k > 0) spent += performance.now() - start;
    }
    samples.get(n)?.push(spent / Number(options.steps));
    counts.set(n, `${device === "cpu" ? stats.commands - before.commands : stats.dispatches - before.dispatches} ${device === "cpu" ? "commands" : "dispatches"}, ${stats.layoutCopies - before.layoutCopies} copies for layouts, ${stats.composites - before.composites} composites, ${stats.fallbacks - before.fallbacks} fallbacks`);
  }
}
const results: Result[] = [];
for (const n of names) {
  const value = summarize(samples.get(n) as number[]);
  results.push({ name: `training step ${device}, ${n}`, unit: "ms", better: "lower", value, extra: {} });
  console.log(`${n.padEnd(20)} ${spread(value)} ms; ${counts.get(n)}`);
}
for (const n of names.slice(1)) {
  const ratio = ratios(samples.get(n) as number[], samples.get("compiled") as number[]);
  results.push({ name: `training step ${device}, ${n} over compiled`, unit: "x", better: "higher", value: ratio, extra: {} });
  console.log(`${n} over compiled: ${spread(ratio)}`);
}
if (options.json) writeFileSync(options.json, `${JSON.stringify({ results }, null, 1)}\n`);
