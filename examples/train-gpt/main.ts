/** Trains a GPT on the characters of a text file, quantizes it and lets it write. See README.md. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import cliProgress from "cli-progress";
import { Command, InvalidArgumentError } from "commander";
import { core as mx, utils } from "mlx-vk";
import { hashOf, loadCheckpoint, type Run, saveCheckpoint } from "./checkpoint.ts";
import { exportQuantized } from "./export.ts";
import { GPT } from "./model.ts";
import { readText, type Text } from "./text.ts";
import { keyOfStep, makeOptimizer, makeStep, sample, type State, stateOf, validationLoss } from "./train.ts";

interface Options {
  out: string;
  resume?: string;
  steps: number;
  batch: number;
  context: number;
  width: number;
  layers: number;
  heads: number;
  learningRate: number;
  warmup: number;
  seed: number;
  evaluateEvery: number;
  checkpointEvery: number;
  prompt: string;
  sampleLength: number;
  temperature: number;
}

const whole = (least: number) => (text: string): number => {
  const n = Number(text);
  if (!/^\d+$/.test(text) || n < least || n > 0xffffffff) throw new InvalidArgumentError(`It must be a whole number, ${least} or more.`);
  return n;
};
const positive = (text: string): number => {
  const x = Number(text);
  if (!(x > 0 && x < Number.POSITIVE_INFINITY)) throw new InvalidArgumentError("It must be a number above 0.");
  return x;
};

const program = new Command("train-gpt")
  .description("Trains a small GPT on the characters of a text file, quantizes it to 4 bits and generates from it. DEVICE=gpu trains on the GPU.")
  .argument("[text]", "text file (UTF-8); its last tenth is for validation", join(import.meta.dirname, "sonnets.txt"))
  .option("--out <folder>", "where checkpoints and the model go", "runs/train-gpt")
  .option("--resume <folder>", "go on from this checkpoint, or from the newest one of this run; sizes and steps are the run's")
  .option("--steps <n>", "training steps", whole(1), 300)
  .option("--batch <n>", "sequences per step", whole(1), 8)
  .option("--context <n>", "characters that the model sees", whole(2), 128)
  .option("--width <n>", "features per position, in multiples of 32", whole(32), 64)
  .option("--layers <n>", "transformer blocks", whole(1), 2)
  .option("--heads <n>", "attention heads", whole(1), 2)
  .option("--learning-rate <x>", "highest learning rate", positive, 4e-3)
  .option("--warmup <n>", "steps until it is reached", whole(1), 20)
  .option("--seed <n>", "seed of weights and batches", whole(0), 1)
  .option("--evaluate-every <n>", "steps between validation losses", whole(1), 50)
  .option("--checkpoint-every <n>", "steps between checkpoints", whole(1), 200)
  .option("--prompt <text>", "what the samples start with", "When ")
  .option("--sample-length <n>", "characters of a sample", whole(1), 120)
  .option("--temperature <x>", "of samples", positive, 0.8);

/** A new run by the options, or the one to go on with. */
function openRun(textFile: string, options: Options): { run: Run; text: Text; state: State | undefined } {
  const resumed = options.resume === undefined ? undefined : loadCheckpoint(options.resume);
  const context = resumed?.run.training.context ?? options.context;
  const text = readText(textFile, context, resumed?.run.characters);
  if (resumed) {
    if (resumed.run.textHash !== hashOf(textFile)) throw new Error(`${textFile} is not the text that ${options.resume} was trained on`);
    return { run: resumed.run, text, state: resumed.state };
  }
  const { width, layers, heads, batch, learningRate, warmup, steps, seed } = options;
  if (width % 32 !== 0) throw new Error(`--width must be a multiple of 32 (the group size of quantization), got ${width}`);
  if (width % (2 * heads) !== 0) throw new Error(`--width must be a multiple of twice --heads (positions rotate pairs of features), got ${width} and ${heads}`);
  const model = { vocabulary: text.characters.length, width, layers, heads, context };
  return { run: { step: 0, model, training: { batch, context, learningRate, warmup, steps, seed }, characters: text.characters, textHash: hashOf(textFile) }, text, state: undefined };
}

/** Trains to the run's last step, or until Ctrl-C, which saves a checkpoint first. */
async function train(model: GPT, run: Run, text: Text, saved: State | undefined, options: Options): Promise<boolean> {
  const { training } = run;
  const optimizer = makeOptimizer(training);
  optimizer.init(model.trainableParameters());
  let state = saved ?? stateOf(model, optimizer);
  model.update(state.parameters);
  const step = makeStep(model, optimizer, text, training);

  const bars = new cliProgress.MultiBar({ format: "{bar} {value}/{total} steps, {eta_formatted} left, loss {loss}", hideCursor: true, clearOnComplete: true });
  const bar = bars.create(training.steps, run.step, { loss: "-" });
  const log = (line: string): void => (process.stderr.isTTY ? bars.log(`${line}\n`) : console.log(line));
  let stopped = false;
  const stop = (): void => {
    stopped = true;
  };
  process.once("SIGINT", stop);
  let losses: number[] = [];
  while (run.step < training.steps && !stopped) {
    const [loss, , next] = step(state, keyOfStep(training.seed, run.step));
    await mx.asyncEval(loss, next);
    mx.dispose(state);
    state = next;
    model.update(state.parameters);
    run.step++;
    losses.push(loss.item() as number);
    bar.update(run.step, { loss: (losses.at(-1) as number).toFixed(3) });
    const last = run.step === training.steps;
    if (run.step % options.evaluateEvery === 0 || last) {
      const mean = losses.reduce((a, b) => a + b) / losses.length;
      log(`step ${run.step}: training loss ${mean.toFixed(4)}, validation loss ${validationLoss(model, text, training).toFixed(4)}`);
      losses = [];
    }
    if (run.step % options.checkpointEvery === 0 || last || stopped) log(`saved ${saveCheckpoint(options.out, run, state)}`);
  }
  bars.stop();
  process.off("SIGINT", stop);
  return !stopped;
}

/** Runs `mlx-vk generate` on the folder, as a user would in a shell. */
function generate(folder: string, options: Options): void {
  const require = createRequire(import.meta.url);
  const packageFile = require.resolve("mlx-vk/package.json");
  const cli = join(dirname(packageFile), (require(packageFile) as { bin: Record<string, string> }).bin["mlx-vk"] as string);
  const args = ["generate", "--model", folder, "--prompt", options.prompt, "--max-tokens", String(options.sampleLength), "--temp", String(options.temperature), "--seed", "1"];
  console.log(`\n$ mlx-vk ${args.map((a) => (/^[\w./-]+$/.test(a) ? a : JSON.stringify(a))).join(" ")}`);
  if (!existsSync(cli)) throw new Error(`the command line is not built (${cli}): run npm run build`);
  const { status } = spawnSync(process.execPath, [cli, ...args], { stdio: "inherit" });
  if (status !== 0) throw new Error(`mlx-vk generate ended with ${status}`);
}

async function main(textFile: string, options: Options): Promise<void> {
  const { run, text, state } = openRun(textFile, options);
  mx.random.seed(run.training.seed);
  const model = new GPT(run.model);
  const count = utils.treeFlatten(model.parameters()).reduce((n, [, a]) => n + a.size, 0);
  console.log(`${mx.defaultDevice()}; ${text.training.size} characters for training, ${text.validation.size} for validation, ${run.model.vocabulary} different ones; ${count} parameters`);
  if (!(await train(model, run, text, state, options))) {
    console.log(`stopped; go on with --resume ${options.out}`);
    process.exitCode = 130;
    return;
  }
  console.log(`\n${sample(model, run.characters, options.prompt, options.sampleLength, run.model.context, options.temperature, run.training.seed)}\n`);
  const folder = join(options.out, "model-4bit");
  exportQuantized(folder, model, run.model, run.characters);
  console.log(`quantized to 4 bits: validation loss ${validationLoss(model, text, run.training).toFixed(4)}, written to ${folder}`);
  generate(folder, options);
}

program.action(async (textFile: string, options: Options) => {
  try {
    await main(textFile, options);
  } catch (error) {
    process.stderr.write(`train-gpt: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
});
await program.parseAsync();
