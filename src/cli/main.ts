#!/usr/bin/env node
/** The command `mlx-vk`. Commands are loaded when they run, so that help and errors come at once. */
import { Command, InvalidArgumentError, Option } from "commander";
import { packageInfo } from "../package.ts";
import { reportError } from "./terminal.ts";

const wholeNumber =
  (least: number) =>
  (text: string): number => {
    const n = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(n) || n < least) throw new InvalidArgumentError(`It must be a whole number, ${least} or more.`);
    return n;
  };
const realNumber =
  (low: number, high: number) =>
  (text: string): number => {
    const n = text.trim() === "" ? Number.NaN : Number(text);
    if (!(n >= low && n <= high)) throw new InvalidArgumentError(`It must be a number, ${high === Number.MAX_VALUE ? `${low} or more` : `${low} to ${high}`}.`);
    return n;
  };
function tokenIds(text: string): number[] {
  const ids = text.split(",").map((part) => part.trim());
  if (text.trim() === "") return [];
  const wrong = ids.find((id) => !/^\d+$/.test(id));
  if (wrong !== undefined) throw new InvalidArgumentError(`It must be token ids such as 1,2,3, got ${JSON.stringify(wrong)}.`);
  return ids.map(Number);
}

/** Options of all commands that run a model. */
const withModel = (command: Command): Command =>
  command
    .option("--model <folder or repository>", "folder of a model, or owner/name on the Hugging Face hub (default: the demo model of the package)")
    .option("--revision <name>", "branch, tag or commit on the hub")
    .option("--dtype <type>", "cast floating weights: float16, bfloat16 or float32")
    .option("--verbose", "say what is done, and where errors come from");

const withSampling = (command: Command, maxTokens: number): Command =>
  command
    .option("--max-tokens <n>", "most tokens to generate", wholeNumber(0), maxTokens)
    .option("--temp <t>", "temperature; 0 takes the most probable token", realNumber(0, Number.MAX_VALUE), 0)
    .option("--top-p <p>", "keep the fewest tokens whose probabilities sum up to p", realNumber(0, 1), 1)
    .option("--top-k <k>", "keep the k most probable tokens; 0: all", wholeNumber(0), 0)
    .option("--min-p <p>", "keep tokens at least p times as probable as the best", realNumber(0, 1), 0)
    .option("--seed <n>", "seed of the random numbers", wholeNumber(0))
    .option("--system-prompt <text>", "system message for the chat template");

const program = new Command("mlx-vk").description("MLX's programming model for Node.js: runs MLX language models on SIMD WebAssembly threads or a Vulkan GPU (DEVICE=gpu).").version(packageInfo().version);

withSampling(withModel(program.command("generate", { isDefault: true }).description("generate text (the default command)")), 100)
  .option("--prompt <text>", "text to start from; - reads it from standard input")
  .addOption(new Option("--prompt-ids <ids>", "token ids to start from, such as 1,2,3").argParser(tokenIds).conflicts("prompt"))
  .option("--ignore-chat-template", "use the prompt as it is")
  .option("--json", "print one JSON object instead of the text")
  .action(async (options) => (await import("./generate.ts")).generateCommand(options));

withSampling(withModel(program.command("chat").description("talk with a model")), 512).action(async (options) => (await import("./chat.ts")).chatCommand(options));

program
  .command("info")
  .description("show what this machine offers and what is used")
  .option("--json", "print one JSON object")
  .option("--verbose", "say where errors come from")
  .action(async (options) => (await import("./info.ts")).infoCommand(options));

withModel(program.command("bench [filter...]").description("measure prefill and decode speed of a model; in a checkout and without --model, run the whole bench"))
  .option("--prompt-tokens <n>", "length of the prompt", wholeNumber(1), 128)
  .option("--max-tokens <n>", "tokens to generate", wholeNumber(2), 64)
  .option("--runs <n>", "runs, of which the median counts", wholeNumber(1), 3)
  .option("--json", "print one JSON object")
  .action(async (filters, options) => (await import("./bench.ts")).benchCommand(filters, options));

withModel(program.command("tune").description("measure which kernels are fastest for a model on this machine, and keep the outcome for later runs (MLX_TUNE)"))
  .addOption(new Option("--device <name>", "device to measure on (default: the one that DEVICE names, or cpu)").choices(["cpu", "gpu"]))
  .option("--seconds <n>", "most time to spend", realNumber(0, Number.MAX_VALUE), 30)
  .option("--json", "print one JSON object")
  .action(async (options) => (await import("./tune.ts")).tuneCommand(options));

try {
  await program.parseAsync();
} catch (error) {
  reportError(error, process.argv.includes("--verbose"));
}
