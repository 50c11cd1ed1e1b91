/**
 * A training step of examples/train-gpt (one compiled function: batch, loss, gradient, clipping, update) with fusion and without it (MLX_FUSE=0), each in a process of its
 * own, in turns: node --import tsx bench/models/train.ts [--rounds 9] [--steps 4] [--width 64] [--layers 2] [--batch 8] [--context 128]. DEVICE=gpu for the GPU.
 * Both take the same steps from the same weights; losses that differ end the run. DEVICE, MLX_THREADS and the other flags count for both.
 */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { GPT } from "../../examples/train-gpt/model.ts";
import { readText } from "../../examples/train-gpt/text.ts";
import { keyOfStep, makeOptimizer, makeStep, stateOf } from "../../examples/train-gpt/train.ts";
import { core as mx } from "../../src/index.ts";
import { digits, duration, header, machine, ratios, summarize, writeReport } from "../harness.ts";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "9" },
    steps: { type: "string", default: "4" },
    width: { type: "string", default: "64" },
    layers: { type: "string", default: "2" },
    batch: { type: "string", default: "8" },
    context: { type: "string", default: "128" },
    child: { type: "boolean", default: false },
  },
});
const [rounds, steps, width, layers, batch, context] = [options.rounds, options.steps, options.width, options.layers, options.batch, options.context].map(Number) as [number, number, number, number, number, number];
/** Sums in another order, step after step: losses agree to this part of them. */
const tolerance = 2 ** -10;

interface Answer {
  readonly seconds: number;
  readonly losses: readonly number[];
}

/** The child: takes steps when asked to, and says how long one took. */
function child(): void {
  const text = readText(join(import.meta.dirname, "../../examples/train-gpt/sonnets.txt"), context);
  const training = { batch, context, learningRate: 4e-3, warmup: 20, steps: 300, seed: 1 };
  mx.random.seed(1);
  const model = new GPT({ vocabulary: text.characters.length, width, layers, heads: 2, context });
  const optimizer = makeOptimizer(training);
  optimizer.init(model.trainableParameters());
  const step = makeStep(model, optimizer, text, training);
  let state = stateOf(model, optimizer);
  let done = 0;
  process.on("message", (count: number) => {
    globalThis.gc?.();
    const losses: number[] = [];
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      const [loss, , next] = step(state, keyOfStep(1, done++));
      mx.eval(loss, next);
      mx.dispose(state);
      state = next;
      model.update(state.parameters);
      losses.push(loss.item() as number);
    }
    process.send?.({ seconds: (performance.now() - start) / count / 1000, losses } satisfies Answer);
  });
}

class Side {
  readonly times: number[] = [];
  readonly losses: number[] = [];
  readonly #process: ChildProcess;
  constructor(fuse: "0" | "1") {
    this.#process = fork(import.meta.filename, [...process.argv.slice(2), "--child"], { execArgv: [...process.execArgv, "--expose-gc"], env: { ...process.env, MLX_FUSE: fuse } });
  }
  async run(count: number): Promise<number> {
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#process.once("message", resolve);
      this.#process.once("exit", (code) => reject(new Error(`a process ended with ${code}`)));
    });
    this.#process.send(count);
    const { seconds, losses } = await answer;
    this.#process.removeAllListeners("exit");
    this.losses.push(...losses);
    return seconds;
  }
  stop(): void {
    this.#process.kill();
  }
}

function requireEqual(a: readonly number[], b: readonly number[]): void {
  a.forEach((x, i) => {
    if (!(Math.abs(x - (b[i] as number)) <= tolerance * Math.abs(x))) throw new Error(`the losses of step ${i} differ: ${x} with fusion, ${b[i]} without`);
  });
}

async function main(): Promise<void> {
  const m = machine();
  console.log(header(m));
  const [fused, plain] = [new Side("1"), new Side("0")];
  try {
    for (const side of [fused, plain]) await side.run(5 * steps);
    requireEqual(fused.losses, plain.losses);
    for (let i = 0; i < rounds; i++) for (const side of i % 2 === 0 ? [fused, plain] : [plain, fused]) side.times.push(await side.run(steps));
    requireEqual(fused.losses, plain.losses);
    const ratio = ratios(plain.times, fused.times);
    const name = `training step, width ${width}, ${layers} layers, batch ${batch} x ${context}`;
    const [a, b] = [summarize(fused.times), summarize(plain.times)];
    console.log(`${name}: ${duration(a.median)} fused, ${duration(b.median)} without; ratio ${digits(ratio.median)} (${digits(ratio.p10)}-${digits(ratio.p90)}); loss ${fused.losses.at(-1)} and ${plain.losses.at(-1)}`);
    console.log(writeReport("train", { machine: m, results: [{ name, unit: "s", better: "lower", value: a, extra: { "seconds without fusion": b.median, "without over with": ratio.median } }] }));
  } finally {
    fused.stop();
    plain.stop();
  }
}

if (options.child) child();
else await main();
