/**
 * Our ops beside @frost-beta/mlx (MLX's C++ backend for the CPU), jax-js, tfjs (wasm) and onnxruntime-node, row by row: each library has a process of its own,
 * its results are compared with float64 first, and then they take turns. A ratio above 1 means that we are faster than the fastest of them in that round.
 * Use: node --import tsx bench/ops/run.ts [filter ...] [--rounds 9] [--threads 2] [--list]
 */
import { parseArgs } from "node:util";
import { type Result, header, machine, writeReport } from "../harness.ts";
import type { OpRow } from "../peers/report.ts";
import { cases } from "./cases.ts";
import { compareOps, opText } from "./compare.ts";

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "9" }, threads: { type: "string", default: "2" }, list: { type: "boolean", default: false } },
});

function results(r: OpRow): Result[] {
  const each = Object.entries(r.seconds).map(([name, value]): Result => ({ name: `${r.op}, ${name}`, unit: "s", better: "lower", value }));
  return r.ratio ? [...each, { name: `${r.op}, ratio`, unit: "x", better: "higher", value: r.ratio }] : each;
}

async function main(): Promise<void> {
  const selected = cases.filter((c) => filters.length === 0 || filters.some((f) => c.name.includes(f)));
  if (options.list) for (const c of selected) console.log(c.name);
  if (options.list) return;
  if (selected.length === 0) throw new Error(`nothing is called ${filters.join(" or ")}; --list shows all names`);
  process.env["MLX_THREADS"] = options.threads;
  const m = machine(Number(options.threads));
  console.log(header(m));
  console.log(`${"row".padEnd(34)} ${"times as fast".padEnd(20)} medians`);
  const rows = await compareOps(selected, { threads: Number(options.threads), rounds: Number(options.rounds), rowMs: 6000, sampleMs: 30, say: (r) => console.log(opText(r)) });
  const all = rows.flatMap((r) => (r.ratio ? [r.ratio.median] : []));
  if (all.length > 0) console.log(`at least as fast in ${all.filter((r) => r >= 1).length} of ${all.length} rows; least ratio ${Math.min(...all).toFixed(2)}`);
  console.log(writeReport("ops", { machine: m, results: rows.flatMap(results) }));
}

await main();
