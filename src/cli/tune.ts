/** `mlx-vk tune`: measures which kernels are fastest for a model on this machine, and keeps the outcome. */
import { core as mx } from "../index.ts";
import { type LoadedModel, generateStep } from "../llm/index.ts";
import { deviceText, loadModel, type ModelOptions } from "./session.ts";

interface TuneCommandOptions extends ModelOptions {
  device?: "cpu" | "gpu";
  seconds: number;
  json?: boolean;
}

/** Lengths of prompts: first those that most work comes in, then those between, while there is time. */
const lengths = [1, 8, 128, 512];
const further = [16, 32, 4, 2, 256, 64];
/** Tokens behind each prompt: on the GPU the second and third are made by a recorded step. */
const tokens = 3;

/** Runs the model on prompts of several lengths, as long as there is time for another one. */
function runModel({ model, config }: LoadedModel, seconds: number): void {
  const start = performance.now();
  const passed = (): number => (performance.now() - start) / 1000;
  const longest = Math.min(config.max_position_embeddings ?? Number.POSITIVE_INFINITY, model.contextLength) - tokens;
  /** Seconds that a token of a prompt takes, measuring included: more than a further one will take. */
  let each = 0;
  for (const n of [...lengths, ...further]) {
    if (n > longest || passed() + (n > 8 ? n * each : 0) > seconds) continue;
    const before = passed();
    const prompt = Array.from({ length: n }, (_, i) => (i * 7919 + 1) % config.vocab_size);
    for (const _ of generateStep(prompt, model, { maxTokens: tokens })) {
      // The tokens themselves do not matter.
    }
    each = Math.min(each || Number.POSITIVE_INFINITY, (passed() - before) / n);
  }
}

function table(rows: readonly mx.TuneRow[]): string {
  const valuesText = (values: object): string => Object.entries(values).map(([k, v]) => ` ${k}=${v}`).join("");
  const lines = rows.map((r) => {
    const chosen = r.chosen ? `${r.chosen.kernel === r.usual ? "" : r.chosen.kernel}${valuesText(r.chosen.values)}`.trim() : "-";
    // The first two operands tell the size of the work.
    return [r.op, r.bucket.split(" ").slice(1, 3).join(" "), r.usual, r.ms.toPrecision(3), chosen, r.ratio.toFixed(2)];
  });
  const all = [["op", "operands", "default", "ms", "chosen", "ratio"], ...lines];
  const widths = all[0]?.map((_, i) => Math.max(...all.map((l) => (l[i] as string).length))) ?? [];
  return all.map((l) => l.map((cell, i) => cell.padEnd(widths[i] as number)).join("  ").trimEnd()).join("\n");
}

export async function tuneCommand(options: TuneCommandOptions): Promise<void> {
  if (options.device) mx.setDefaultDevice(options.device);
  const loaded = await loadModel(options);
  const report = await mx.tune(() => runModel(loaded, options.seconds), { seconds: options.seconds, again: true });
  const better = report.rows.filter((r) => r.chosen).length;
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ device: deviceText(), ...report })}\n`);
    return;
  }
  process.stdout.write(`${table(report.rows)}\n`);
  for (const r of report.rows) for (const w of r.wrong) process.stdout.write(`wrong, so left out: ${r.op}: ${w}\n`);
  process.stdout.write(`${report.rows.length} kinds of work measured in ${report.seconds.toFixed(1)} s on ${deviceText()}, a faster way found for ${better}\n`);
  for (const file of report.files) process.stdout.write(`Kept in ${file}\n`);
  if (report.files.length === 0) process.stdout.write("Nothing is kept: MLX_VK_CACHE is 0\n");
}
