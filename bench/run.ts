/**
 * npm run bench [-- filter ...] [--list] [--samples 15]: measures the roofs of the machine, then every kernel and model whose name contains a filter. Each
 * case is checked against a reference first, then timed. Results go to bench/results as JSON; bench/compare.ts compares two of them.
 * npm run bench -- ops [filter ...]: our ops beside those of MLX and jax-js (bench/ops).
 * npm run bench -- gpu [filter ...]: the same for the GPU: kernels alone (bench/gpu), then a model (bench/models/gpu.ts).
 * npm run bench -- peers [...], npm run bench -- profile [...]: other libraries side by side (bench/peers), where a token's time goes (bench/models/profile.ts).
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Result, digits, duration, header, machine, measureTogether, ratios, spread, summarize, writeReport } from "./harness.ts";
import { cases as attention } from "./kernels/attention.ts";
import { type KernelCase, call, check } from "./kernels/case.ts";
import { cases as elementwise } from "./kernels/elementwise.ts";
import type { GpuResult } from "./gpu/harness.ts";
import { cases as matmul } from "./kernels/matmul.ts";
import { cases as rows } from "./kernels/rows.ts";
import { type ConfigName, type FormatName, bytesPerToken, configs, formats } from "./models/configs.ts";
import { syntheticCheckpoint } from "./models/synthetic.ts";
import { RemoteEngine, type Task } from "./peers/engine.ts";
import { type Roofs, openRoofs } from "./roof.ts";

/** Benches with arguments of their own. */
const others: Readonly<Record<string, string>> = { peers: "peers/run.ts", profile: "models/profile.ts" };
const other = others[process.argv[2] ?? ""];
if (other) process.exit(spawnSync(process.execPath, ["--import", "tsx", join(import.meta.dirname, other), ...process.argv.slice(3)], { stdio: "inherit" }).status ?? 1);

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: { list: { type: "boolean", default: false }, samples: { type: "string", default: "15" } },
});

interface ModelCase {
  readonly name: string;
  readonly config: ConfigName;
  readonly format: FormatName;
  /** Measured without a filter too. */
  readonly usual: boolean;
}
const kernels: readonly (KernelCase & { name: string })[] = [...matmul, ...attention, ...elementwise, ...rows].map((c) => ({ ...c, name: `kernel ${c.name}` }));
const models: readonly ModelCase[] = (Object.keys(configs) as ConfigName[]).flatMap((config) =>
  (Object.keys(formats) as FormatName[]).map((format) => ({ name: `model ${config} ${format}`, config, format, usual: config === "qwen3-0.6b" })),
);
const selected = (name: string, usual = true): boolean => (filters.length === 0 ? usual : filters.some((f) => name.includes(f)));

const samples = Number(options.samples);

/** Rates of a case, and the shares of the roofs that it reaches: ratios to probes that took turns with it. */
function rates(c: KernelCase, times: Record<"run" | "read" | "copy" | "fma", number[]>, roofs: Roofs): Record<string, number> {
  const seconds = summarize(times.run).median;
  const extra: Record<string, number> = {};
  if (c.bytes) extra["GB/s"] = c.bytes / seconds / 1e9;
  if (c.flops) extra["GFLOP/s"] = c.flops / seconds / 1e9;
  if (c.bytes) extra["share of read bandwidth"] = (ratios(times.read, times.run).median * c.bytes) / roofs.readBytes;
  if (c.bytes && c.besideCopy) extra["of a copy's time"] = (ratios(times.run, times.copy).median * roofs.copyBytes) / c.bytes;
  if (c.flops) extra["share of float32 roof"] = (ratios(times.fma, times.run).median * c.flops) / roofs.fmaFlops;
  return extra;
}
const show = (extra: Record<string, number>): string =>
  Object.entries(extra).map(([k, v]) => (k.startsWith("share") ? `${Math.round(v * 100)} %${k.slice(5)}` : `${digits(v)} ${k}`)).join(", ");

function kernelResult(c: KernelCase, roofs: Roofs): Result {
  const p = c.prepare();
  try {
    check(c.name, p);
    let i = 0;
    const times = measureTogether({ run: () => call(p, i++), read: roofs.read, copy: roofs.copy, fma: roofs.fma }, { samples });
    const s = summarize(times.run);
    const extra = rates(c, times, roofs);
    console.log(`${c.name.padEnd(72)} ${duration(s.median).padStart(8)} (${duration(s.p10)}-${duration(s.p90)})  ${show(extra)}`);
    return { name: c.name, unit: "s", better: "lower", value: s, extra };
  } finally {
    p.dispose();
  }
}

function roofResults(roofs: Roofs): Result[] {
  const times = measureTogether({ read: roofs.read, copy: roofs.copy, fma: roofs.fma }, { samples });
  const amounts = { read: roofs.readBytes, copy: roofs.copyBytes, fma: roofs.fmaFlops };
  return (["read", "copy", "fma"] as const).map((name) => {
    const unit = name === "fma" ? "GFLOP/s" : "GB/s";
    const value = summarize(times[name].map((t) => amounts[name] / t / 1e9));
    console.log(`${`roof ${name}`.padEnd(72)} ${spread(value)} ${unit}`);
    return { name: `roof ${name}`, unit, better: "higher", value };
  });
}

/** A model runs in a process of its own, so that its peak memory is its own. */
async function modelResults(c: ModelCase): Promise<Result[]> {
  const config = configs[c.config];
  const engine = await RemoteEngine.start(join(import.meta.dirname, "peers", "mlx-vk.ts"), [syntheticCheckpoint(c.config, config, c.format)]);
  const results: Result[] = [];
  const bytes = bytesPerToken(config, formats[c.format]);
  const report = (what: string, unit: string, values: readonly number[], extra: Record<string, number> = {}): void => {
    const value = summarize(values);
    console.log(`${`${c.name}, ${what}`.padEnd(72)} ${spread(value)} ${unit}  ${show(extra)}`);
    results.push({ name: `${c.name}, ${what}`, unit, better: unit === "tok/s" ? "higher" : "lower", value, extra });
  };
  const repeat = async (task: Task, count: number): Promise<number[]> => {
    await engine.run(task);
    const speeds: number[] = [];
    for (let i = 0; i < count; i++) speeds.push(await engine.run(task));
    return speeds;
  };
  try {
    for (const [depth, tokens] of [[16, 48], [1024, 32]] as const) {
      const speeds = await repeat({ kind: "decode", depth, tokens }, depth === 16 ? 7 : 3);
      const median = summarize(speeds).median;
      report(`decode ${tokens} at ${depth}`, "tok/s", speeds, { "ms per token": 1000 / median, "GB/s of weights": (median * bytes) / 1e9 });
    }
    for (const tokens of [128, 512]) report(`prefill ${tokens}`, "tok/s", await repeat({ kind: "prefill", tokens, depth: 0 }, 3));
    report("first token after a prompt of 16", "s", (await repeat({ kind: "prefill", tokens: 16, depth: 0 }, 5)).map((speed) => 16 / speed));
    report("loading", "s", [engine.loadSeconds]);
    report("peak memory of the process", "MiB", [engine.peakBytes / 2 ** 20], { "MiB of weights": bytes / 2 ** 20 });
  } finally {
    await engine.stop();
  }
  return results;
}

/** Runs a bench of the GPU in a process of its own (each opens the device), and gives what it wrote. */
function gpuBench<R>(folder: string, script: string, args: readonly string[]): readonly R[] {
  const json = join(folder, `${script.replace("/", "-")}.json`);
  const { status } = spawnSync(process.execPath, ["--import", "tsx", join(import.meta.dirname, script), ...args, "--json", json], { stdio: "inherit" });
  if (status !== 0) throw new Error(`bench/${script} failed`);
  return (JSON.parse(readFileSync(json, "utf8")) as { results: readonly R[] }).results;
}
/** Kernels alone and a model on the GPU. Both compare with a reference or the CPU first; the roof is the copy bandwidth that the model's run measured. */
function gpuResults(wanted: readonly string[]): Result[] {
  const folder = mkdtempSync(join(tmpdir(), "mlx-vk-bench-"));
  try {
    const model = wanted.length === 0 || wanted.includes("model") ? gpuBench<Result>(folder, "models/gpu.ts", ["qwen3-0.6b", "4bit-g128", "128,4096"]) : [];
    const families = wanted.filter((f) => f !== "model");
    const kernelsToo = wanted.length === 0 || families.length > 0;
    const roof = model.find((r) => r.name.endsWith("roof copy"))?.value.median;
    const alone = kernelsToo ? gpuBench<GpuResult>(folder, "gpu/run.ts", families) : [];
    const rows = alone.map(({ name, kernel, us, gbPerSecond, gflops }): Result => ({
      name: `gpu ${name} ${kernel}`, unit: "us", better: "lower", value: us,
      extra: { ...(gbPerSecond === undefined ? {} : { "GB/s": gbPerSecond, ...(roof === undefined ? {} : { "share of copy bandwidth": gbPerSecond / roof }) }), ...(gflops === undefined ? {} : { "GFLOP/s": gflops }) },
    }));
    return [...model, ...rows];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function main(): Promise<void> {
  if (filters[0] === "ops") {
    const { status } = spawnSync(process.execPath, ["--import", "tsx", join(import.meta.dirname, "ops/run.ts"), ...filters.slice(1), ...(options.list ? ["--list"] : [])], { stdio: "inherit" });
    process.exitCode = status ?? 1;
    return;
  }
  if (filters[0] === "gpu") {
    if (options.list) spawnSync(process.execPath, ["--import", "tsx", join(import.meta.dirname, "gpu/run.ts"), ...filters.slice(1), "--list"], { stdio: "inherit" });
    else console.log(writeReport("gpu", { machine: machine(), results: gpuResults(filters.slice(1)) }));
    return;
  }
  const chosenKernels = kernels.filter((c) => selected(c.name));
  const chosenModels = models.filter((c) => selected(c.name, c.usual));
  if (options.list) {
    for (const c of [...chosenKernels, ...chosenModels]) console.log(c.name);
    return;
  }
  if (chosenKernels.length + chosenModels.length === 0) throw new Error(`nothing is called ${filters.join(" or ")}; --list shows all names`);
  const threads = Number(process.env["MLX_THREADS"] ?? 0);
  const m = machine(threads > 0 ? threads : undefined);
  console.log(header(m));
  const roofs = await openRoofs();
  const results = roofResults(roofs);
  for (const c of chosenKernels) results.push(kernelResult(c, roofs));
  roofs.dispose();
  for (const c of chosenModels) results.push(...(await modelResults(c)));
  console.log(writeReport("bench", { machine: m, results }));
}

await main();
