/**
 * Where the time of one decoded token goes: `npm run bench -- profile [config] [format] [--depth 128] [--device cpu|gpu]`, or this file with the same arguments.
 * CPU: every command of a token's list runs alone and is timed; then whole lists, which gives what the host and the hand-overs cost. The roof is read
 * bandwidth, by the probe of roof.ts in turns with the tokens. GPU: models/gpu.ts, which has the device's own clock.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { vulkanBackend } from "../../src/backend/vulkan/index.ts";
import { wasmBackend } from "../../src/backend/wasm/index.ts";
import { core as mx } from "../../src/index.ts";
import { generateStep, load } from "../../src/llm/index.ts";
import { type Result, digits, header, machine, spread, summarize, writeReport } from "../harness.ts";
import { promptIds } from "../peers/engine.ts";
import { openRoofs } from "../roof.ts";
import { type ConfigName, type FormatName, bytesPerToken, configs, formats } from "./configs.ts";
import { type Spent, timeLists } from "./lists.ts";
import { syntheticCheckpoint } from "./synthetic.ts";

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { depth: { type: "string", default: "128" }, device: { type: "string" }, tokens: { type: "string", default: "16" } } });
const [name = "qwen3-0.6b", format = "4bit-g128"] = positionals as [ConfigName?, FormatName?];

async function profileCpu(): Promise<Result[]> {
  const config = configs[name];
  const count = Number(options.tokens);
  mx.setDefaultDevice("cpu");
  const { model } = await load(syntheticCheckpoint(name, config, format));
  const steps = generateStep(promptIds(Number(options.depth), config.vocab_size), model, { maxTokens: 5 * count + 16 });
  const decode = (tokens: number): void => {
    for (let i = 0; i < tokens; i++) if (steps.next().done) throw new Error("generation ended early");
  };
  decode(8);
  const backend = wasmBackend();
  const roofs = await openRoofs();
  roofs.read();
  // Tokens and probe take turns, so that the share means the roof of that moment.
  const tokenMs: number[] = [];
  const roof: number[] = [];
  for (let i = 0; i < 2 * count; i++) {
    const start = performance.now();
    decode(1);
    const middle = performance.now();
    roofs.read();
    tokenMs.push(middle - start);
    roof.push(roofs.readBytes / (performance.now() - middle) / 1e6);
  }
  roofs.dispose();
  const begun = performance.now();
  const whole = timeLists(backend, false, () => decode(count));
  const wall = (performance.now() - begun) / count;
  const apart = timeLists(backend, true, () => decode(count));
  steps.return();
  return report(count, bytesPerToken(config, formats[format]), { tokenMs, roof, wall, whole: [...whole.values()].reduce((s, r) => s + r.milliseconds, 0) / count }, apart);
}

function report(count: number, bytes: number, t: { tokenMs: number[]; roof: number[]; wall: number; whole: number }, apart: ReadonlyMap<string, Spent>): Result[] {
  const rows = [...apart].map(([kernel, s]) => ({ kernel, ms: s.milliseconds / count, calls: s.calls / count })).sort((a, b) => b.ms - a.ms);
  const sum = rows.reduce((s, r) => s + r.ms, 0);
  const token = summarize(t.tokenMs);
  const read = summarize(t.roof);
  const share = summarize(t.tokenMs.map((ms, i) => bytes / ms / 1e6 / (t.roof[i] as number)));
  console.log(`CPU, one token of ${name} ${format} at ${options.depth}: ${spread(token)} ms; ${digits(bytes / 2 ** 20)} MiB of weights, ${digits(bytes / token.median / 1e6)} GB/s`);
  console.log(`share of the read bandwidth (${spread(read)} GB/s, in turns): ${spread(share)}`);
  console.log(`lists run whole: ${digits(t.whole)} ms of ${digits(t.wall)}; the host plans and waits ${digits(t.wall - t.whole)} ms`);
  console.log(`commands run one by one: ${digits(sum)} ms in ${digits(rows.reduce((s, r) => s + r.calls, 0))} commands (each handed over alone, so their sum is longer by ${digits(sum - t.whole)} ms)`);
  for (const r of rows.filter((row) => row.ms > 0.002 * sum)) console.log(`  ${r.kernel.padEnd(64)} ${(1000 * r.ms).toFixed(0).padStart(7)} us ${((100 * r.ms) / sum).toFixed(1).padStart(5)} %  ${digits(r.calls)} calls`);
  const result = (what: string, unit: string, value: readonly number[], better: "lower" | "higher" = "lower"): Result => ({ name: `profile cpu ${name} ${format}, ${what}`, unit, better, value: summarize(value) });
  return [
    { ...result("one token", "ms", t.tokenMs), extra: { "MiB of weights": bytes / 2 ** 20, "share of read bandwidth": share.median, "ms in lists": t.whole, "ms of the host": t.wall - t.whole } },
    result("read bandwidth", "GB/s", t.roof, "higher"),
    ...rows.map((r) => result(r.kernel, "ms", [r.ms])),
  ];
}

/** The GPU's half, in a process of its own. */
function profileGpu(): void {
  try {
    vulkanBackend();
  } catch (error) {
    console.log(`GPU: ${(error as Error).message}`);
    return;
  }
  spawnSync(process.execPath, ["--import", "tsx", join(import.meta.dirname, "gpu.ts"), name, format, options.depth, "--no-check", "--tokens", "64"], { stdio: "inherit" });
}

async function main(): Promise<void> {
  if (!Object.hasOwn(configs, name)) throw new Error(`unknown model ${name}; there are ${Object.keys(configs).join(", ")}`);
  const m = machine();
  console.log(header(m));
  if (options.device !== "gpu") console.log(writeReport("profile", { machine: m, results: await profileCpu() }));
  if (options.device !== "cpu") profileGpu();
}

await main();
