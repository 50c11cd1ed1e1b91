/**
 * node --import tsx bench/gpu/run.ts [filter ...] [--json file] [--list] [--samples 9] [--ms 20] [--no-check]: measures GPU kernels alone. Every file beside this
 * one that exports `cases` is a family; a filter is part of a case's or a family's name. MLX_VK_DEVICE chooses the device.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import "../../src/mx.ts";
import { digits } from "../harness.ts";
import { type GpuCase, type GpuResult, closeBenchDevice, measureCase, openBenchDevice } from "./harness.ts";

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "string" }, list: { type: "boolean", default: false }, samples: { type: "string", default: "9" }, ms: { type: "string", default: "20" },
    "no-check": { type: "boolean", default: false },
  },
});

async function allCases(): Promise<GpuCase[]> {
  const here = new URL(".", import.meta.url);
  const self = basename(fileURLToPath(import.meta.url));
  const found: GpuCase[] = [];
  for (const file of readdirSync(here).sort()) {
    if (file === self || !/\.(ts|js|mjs)$/.test(file) || file.startsWith("harness.") || file.startsWith("chunk")) continue;
    const family = basename(file, extname(file));
    try {
      const { cases } = (await import(new URL(file, here).href)) as { cases?: readonly GpuCase[] };
      if (Array.isArray(cases)) found.push(...cases.map((c) => ({ ...c, name: `${family}: ${c.name}` })));
    } catch (error) {
      console.log(`${family}: not loaded (${(error as Error).message})`);
    }
  }
  const wanted = (c: GpuCase, filter: string): boolean => (c.usual === false ? c.name.includes(`: ${filter}`) : c.name.includes(filter));
  return filters.length === 0 ? found.filter((c) => c.usual !== false) : found.filter((c) => filters.some((f) => wanted(c, f)));
}

const version = (v: number): string => `${v >>> 22}.${(v >>> 12) & 1023}.${v & 4095}`;
const line = (r: GpuResult): string =>
  [
    r.name.padEnd(56), r.kernel.replace("vulkan/", "").padEnd(30), `${digits(r.us.median).padStart(7)} us (${digits(r.us.p10)}-${digits(r.us.p90)})`.padEnd(30),
    r.gbPerSecond === undefined ? "" : `${digits(r.gbPerSecond)} GB/s`.padEnd(12), r.gflops === undefined ? "" : `${digits(r.gflops)} GFLOP/s`.padEnd(16), `wall ${digits(r.wallUs)} us, ${r.launches} launches, ${r.copies} copies`,
  ].join(" ");

async function main(): Promise<void> {
  const cases = await allCases();
  if (options.list) {
    for (const c of cases) console.log(c.name);
    return;
  }
  const d = openBenchDevice();
  const { name, driver, driverVersion, apiVersion, vendorId } = d.info;
  // NVIDIA packs its driver's version in its own way.
  const driverText = vendorId === 0x10de ? `${driverVersion >>> 22}.${(driverVersion >>> 14) & 255}.${(driverVersion >>> 6) & 255}` : version(driverVersion);
  console.log(`${name}; ${driver} ${driverText}, Vulkan ${version(apiVersion)}; Node ${process.version}; ${new Date().toISOString()}`);
  const results: GpuResult[] = [];
  for (const c of cases) {
    try {
      const { results: some, refusals } = measureCase(d, c, { samples: Number(options.samples), replayMs: Number(options.ms), check: !options["no-check"] });
      for (const r of some) console.log(line(r));
      for (const r of some.length === 0 ? refusals : []) console.log(`${c.name.padEnd(56)} not run: ${r}`);
      results.push(...some);
    } catch (error) {
      console.log(`${c.name.padEnd(56)} FAILED: ${(error as Error).message}`);
      process.exitCode = 1;
    }
  }
  if (options.json) writeFileSync(options.json, `${JSON.stringify({ device: name, driver: driverText, node: process.version, date: new Date().toISOString(), results }, null, 1)}\n`);
  closeBenchDevice(d);
}

await main();
