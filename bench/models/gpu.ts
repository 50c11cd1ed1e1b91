/**
 * Decode and prefill of synthetic checkpoints on the GPU: `node --import tsx bench/models/gpu.ts [config] [format] [depths] [--json file] [--tokens 200] [--prefill 128,512] [--no-check]
 * [--dispatch-us 1.84]` (what a dependent dispatch takes on an H200). Node 24 runs it without tsx, whose output is slower.
 * First the logits of both devices are compared, then tokens per second are measured at each depth, and where the time of a decode step goes.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { CommandStream } from "../../src/backend/vulkan/commands.ts";
import { type VulkanBackend, setVulkanProfiler, vulkanBackend } from "../../src/backend/vulkan/index.ts";
import { core as mx } from "../../src/index.ts";
import { generateStep, load } from "../../src/llm/index.ts";
import type { Node } from "../../src/core/op.ts";
import { addTracer, stats } from "../../src/schedule/run.ts";
import { type Result, type Summary, digits, header, machine, spread, summarize } from "../harness.ts";
import { promptIds } from "../peers/engine.ts";
import { type ConfigName, type FormatName, bytesPerToken, configs, formats } from "./configs.ts";
import { syntheticCheckpoint } from "./synthetic.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "string" }, tokens: { type: "string", default: "200" }, prefill: { type: "string", default: "128,512" }, "no-check": { type: "boolean", default: false }, "dispatch-us": { type: "string", default: "1.84" } },
});
const [name = "qwen3-0.6b", format = "4bit-g128", depthList = "128,4096"] = positionals as [ConfigName?, FormatName?, string?];
const config = configs[name];
const path = syntheticCheckpoint(name, config, format);
const tokens = Number(options.tokens);

type Model = Awaited<ReturnType<typeof load>>["model"];
async function logits(device: "cpu" | "gpu", ids: readonly number[]): Promise<number[][]> {
  mx.setDefaultDevice(device);
  const { model } = await load(path);
  const out: number[][] = [];
  for (const [, l] of generateStep(ids, model, { maxTokens: 3 })) out.push(mx.reshape(l, [-1]).tolist() as number[]);
  mx.dispose(model.parameters());
  return out;
}

/** Nothing is timed on a device whose logits are not those of the CPU. */
async function compare(): Promise<void> {
  const ids = promptIds(20, config.vocab_size);
  const [want, got] = [await logits("cpu", ids), await logits("gpu", ids)];
  want.forEach((w, i) => {
    const g = got[i] as number[];
    const worst = w.reduce((m, x, j) => Math.max(m, Math.abs(x - (g[j] as number))), 0);
    const range = w.reduce((a, b) => Math.max(a, b)) - w.reduce((a, b) => Math.min(a, b));
    const best = (x: readonly number[]): number => x.indexOf(x.reduce((a, b) => Math.max(a, b)));
    console.log(`token ${i}: largest difference of log-probabilities between CPU and GPU ${worst.toFixed(4)} (range ${range.toFixed(1)}); choices ${best(w)} and ${best(g)}`);
    if (!(worst < 0.1 * range)) throw new Error(`token ${i}: the logits of CPU and GPU differ by ${worst} of a range of ${range}`);
  });
}

/** Bytes per second, read and written together, of a kernel that adds a number to an array of up to 1 GiB: ten at a time. */
function copyBandwidth(vulkan: VulkanBackend): Summary {
  const bytes = Math.min(2 ** 30, Math.floor((vulkan.addon.memoryInfo()[0] ?? 2 ** 30) / 32 / 2 ** 20) * 2 ** 20);
  const x = mx.ones([bytes / 4]);
  mx.eval(x);
  const once = (): number => {
    mx.synchronize();
    const start = performance.now();
    for (let i = 0; i < 10; i++) {
      const y = mx.add(x, i);
      void mx.asyncEval(y);
      y.dispose();
    }
    mx.synchronize();
    return (20 * bytes * 1000) / (performance.now() - start);
  };
  for (let i = 0; i < 3; i++) once();
  const speeds = Array.from({ length: 9 }, once);
  x.dispose();
  return summarize(speeds);
}

interface Times {
  readonly prefill: number;
  /** Seconds of it that the host did not spend waiting for the device. */
  readonly prefillHost: number;
  readonly first: number;
  readonly decode: number;
  /** Seconds of the decoding that the host did not spend waiting for the device. */
  readonly host: number;
}
function timed(vulkan: VulkanBackend, model: Model, depth: number, count: number): Times {
  let waited = 0;
  const { addon } = vulkan;
  const wait = addon.waitSync;
  addon.waitSync = (...args) => {
    const begun = performance.now();
    const result = wait(...args);
    waited += performance.now() - begun;
    return result;
  };
  try {
    const start = performance.now();
    const steps = generateStep(promptIds(depth, config.vocab_size), model, { maxTokens: count + 2 });
    steps.next();
    const prefilled = performance.now();
    const prefillHost = prefilled - start - waited;
    steps.next();
    waited = 0;
    const first = performance.now();
    for (let i = 0; i < count; i++) steps.next();
    const end = performance.now();
    steps.return();
    const seconds = { prefill: prefilled - start, prefillHost, first: first - prefilled, decode: end - first, host: end - first - waited };
    return Object.fromEntries(Object.entries(seconds).map(([k, ms]) => [k, ms / 1000])) as unknown as Times;
  } finally {
    addon.waitSync = wait;
  }
}

/** Launches and barriers of one recorded step. */
function recordedStep(model: Model, depth: number): { launches: number; barriers: number } {
  const found = { launches: 0, barriers: 0 };
  let current: CommandStream | undefined;
  let launches = 0;
  const nothing = (): void => {};
  const launched = (stream: CommandStream, kept: boolean): void => {
    current = stream;
    if (kept) launches++;
  };
  const recorded = (): void => {
    found.launches = launches;
    found.barriers = current ? Object.values(current.barriers).reduce((a, b) => a + b, 0) : 0;
    launches = 0;
  };
  setVulkanProfiler({ launching: nothing, launched, submitted: nothing, recorded, replayed: nothing, released: nothing });
  try {
    const steps = generateStep(promptIds(depth, config.vocab_size), model, { maxTokens: 6 });
    for (let i = 0; i < 4; i++) steps.next();
    steps.return();
  } finally {
    setVulkanProfiler(undefined);
  }
  return found;
}

/** Microseconds on the device of one step by kernel, by the device's clock. The outer profile sees the step recorded, the inner one measures its runs. */
function byKernel(model: Model, depth: number): Map<string, { us: number; calls: number }> {
  const count = 16;
  let inner: mx.Profile | undefined;
  mx.profile(() => {
    const steps = generateStep(promptIds(depth, config.vocab_size), model, { maxTokens: count + 8 });
    for (let i = 0; i < 4; i++) steps.next();
    inner = mx.profile(() => {
      for (let i = 0; i < count; i++) steps.next();
    });
    steps.return();
  });
  const rows = new Map<string, { us: number; calls: number }>();
  for (const r of inner?.rows ?? []) {
    if (r.gpuMs === 0) continue;
    const row = rows.get(r.kernel) ?? { us: 0, calls: 0 };
    rows.set(r.kernel, { us: row.us + (1000 * r.gpuMs) / count, calls: row.calls + r.calls / count });
  }
  return new Map([...rows].sort((a, b) => b[1].us - a[1].us));
}

/** Bytes that a node must read and write, of arrays that it uses whole but for the rows of tables and caches that it does not look at. */
function bytesOfNode({ op, inputs, outputs }: Node, depth: number): number {
  const bytes = (list: readonly { readonly size: number; readonly dtype: { readonly size: number } }[]): number => list.reduce((n, d) => n + d.size * d.dtype.size, 0);
  // What an op updates in place is written in one row.
  const fresh = outputs.filter((o) => !inputs.some((i) => i.size === o.size && i.shape.length === o.shape.length && i.shape.length === 4));
  if (op.name === "embedRow") return 2 * bytes(outputs);
  const caches = inputs.filter((i) => i.shape.length === 4);
  const capacity = caches[0]?.shape[2] ?? 1;
  return bytes(inputs.filter((i) => i.shape.length !== 4)) + bytes(caches) * Math.min(1, (depth + 1) / capacity) + bytes(fresh);
}
/** Bytes by kernel of the step that is recorded behind a prompt. */
function bytesByKernel(model: Model, depth: number): Map<string, number> {
  const found = new Map<string, number>();
  const steps = generateStep(promptIds(depth, config.vocab_size), model, { maxTokens: 6 });
  steps.next();
  const remove = addTracer({ recorded: (node, kernel) => void found.set(kernel, (found.get(kernel) ?? 0) + bytesOfNode(node, depth)) });
  try {
    steps.next();
  } finally {
    remove();
    steps.return();
  }
  return found;
}

/** Microseconds that a dispatch takes which waits for the one before it, doing nothing. */
const dispatchUs = Number(options["dispatch-us"]);

/** Where the time of a step goes, beside what it can not be less than: a dispatch's own time and that of its bytes at the bandwidth of copies. */
function split(model: Model, depth: number, copy: number): Record<string, number> {
  const { launches, barriers } = recordedStep(model, depth);
  const kernels = byKernel(model, depth);
  const bytes = bytesByKernel(model, depth);
  const all = [...kernels.values()].reduce((n, k) => n + k.us, 0);
  let floor = 0;
  console.log(`  one recorded step: ${launches} launches, ${barriers} barriers, ${digits(all)} us on the device while it is profiled`);
  console.log(`    ${"kernel".padEnd(40)}      us  share  calls      MB floor us  gap us`);
  for (const [kernel, { us, calls }] of kernels) {
    const read = bytes.get(kernel) ?? 0;
    const least = calls * dispatchUs + (1e6 * read) / copy;
    floor += least;
    console.log(`    ${kernel.padEnd(40)} ${digits(us).padStart(7)} ${((100 * us) / all).toFixed(1).padStart(5)}% ${digits(calls).padStart(6)} ${digits(read / 1e6).padStart(7)} ${digits(least).padStart(8)} ${digits(us - least).padStart(7)}`);
  }
  console.log(`    floor ${digits(floor)} us (${digits(dispatchUs)} us per dispatch, bytes at ${digits(copy / 1e9)} GB/s), gap ${digits(all - floor)} us`);
  return { launches, barriers, "floor us": floor, ...Object.fromEntries([...kernels].map(([kernel, { us }]) => [`us ${kernel}`, us])) };
}

const results: Result[] = [];
function report(what: string, unit: string, value: Summary, extra: Record<string, number> = {}): void {
  results.push({ name: `gpu model ${name} ${format}, ${what}`, unit, better: unit === "ms" ? "lower" : "higher", value, extra });
  console.log(`${what.padEnd(40)} ${spread(value)} ${unit}`);
}

function measureDecode(vulkan: VulkanBackend, model: Model, depth: number, copy: number): void {
  const bytes = bytesPerToken(config, formats[format]);
  timed(vulkan, model, depth, 4);
  const before = stats.fallbacks;
  const runs = Array.from({ length: 5 }, () => timed(vulkan, model, depth, tokens));
  const speed = summarize(runs.map((r) => tokens / r.decode));
  const fallbacks = stats.fallbacks - before;
  const host = summarize(runs.map((r) => (1e6 * r.host) / tokens));
  const share = (speed.median * bytes) / copy;
  report(`decode ${tokens} at ${depth}`, "tok/s", speed, { "bytes per token": bytes, "share of copy bandwidth": share, "host us per token": host.median, fallbacks, ...split(model, depth, copy) });
  console.log(`  host ${spread(host)} us per token; weights ${digits(bytes / 1e6)} MB per token, ${(100 * share).toFixed(0)} % of the copy bandwidth; ${fallbacks} fallbacks`);
  report(`recording at ${depth}`, "ms", summarize(runs.map((r) => 1000 * r.first)));
}

function measurePrefill(vulkan: VulkanBackend, model: Model, length: number): void {
  for (let i = 0; i < 3; i++) timed(vulkan, model, length, 1);
  const runs = Array.from({ length: 15 }, () => timed(vulkan, model, length, 1));
  const host = summarize(runs.map((r) => 1000 * r.prefillHost));
  report(`prefill ${length}`, "tok/s", summarize(runs.map((r) => length / r.prefill)), { "host ms": host.median });
  console.log(`  host ${spread(host)} ms of ${spread(summarize(runs.map((r) => 1000 * r.prefill)))} ms`);
  const profile = mx.profile(() => {
    generateStep(promptIds(length, config.vocab_size), model, { maxTokens: 1 }).next();
  });
  console.log(`  ${digits(profile.gpuMs)} ms on the device while it is profiled`);
  for (const r of profile.rows) if (r.gpuMs > 0) console.log(`    ${r.kernel.padEnd(34)} ${r.op.padEnd(34)} ${digits(1000 * r.gpuMs).padStart(7)} us ${String(r.calls).padStart(4)} calls`);
}

async function main(): Promise<void> {
  console.log(header(machine()));
  if (!options["no-check"]) await compare();
  mx.setDefaultDevice("gpu");
  const start = performance.now();
  const { model } = await load(path);
  mx.synchronize();
  const vulkan = vulkanBackend();
  const seconds = (performance.now() - start) / 1000;
  console.log(`${name} ${format} on ${vulkan.info.name}, driver ${vulkan.info.driver}; loaded in ${seconds.toFixed(2)} s, ${(vulkan.memory.counters.active / 1e6).toFixed(0)} MB`);
  const copy = copyBandwidth(vulkan);
  report("roof copy", "GB/s", { ...copy, min: copy.min / 1e9, p10: copy.p10 / 1e9, median: copy.median / 1e9, p90: copy.p90 / 1e9, max: copy.max / 1e9 });
  for (const depth of depthList.split(",").map(Number)) measureDecode(vulkan, model, depth, copy.median);
  for (const length of options.prefill.split(",").map(Number)) measurePrefill(vulkan, model, length);
  if (options.json) writeFileSync(options.json, `${JSON.stringify({ device: vulkan.info.name, driver: vulkan.info.driver, results }, null, 1)}\n`);
}

await main();
