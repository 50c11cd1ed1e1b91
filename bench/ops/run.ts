/**
 * Our ops beside @frost-beta/mlx (MLX's C++ backend for the CPU) and jax-js, row by row: each library has a process of its own, its results are compared with
 * float64 first, and then they take turns. A ratio above 1 means that we are faster than the faster of the two in that round.
 * Use: node --import tsx bench/ops/run.ts [filter ...] [--rounds 9] [--threads 2] [--list]
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Result, duration, header, machine, ratios, spread, summarize, writeReport } from "../harness.ts";
import { cases, type OpCase } from "./cases.ts";
import { Remote } from "./engine.ts";

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "9" }, threads: { type: "string", default: "2" }, list: { type: "boolean", default: false } },
});
/** Least time of a sample, and time after which a row gets no further round. */
const sampleMs = 30;
const rowMs = 6000;

/** Results of the row, checked. A library that is wrong or fails is left out, and said so. */
async function prepared(c: OpCase, remotes: readonly Remote[]): Promise<Remote[]> {
  const inputs = c.inputs();
  const good: Remote[] = [];
  for (const remote of remotes) {
    try {
      const outputs = await remote.prepare(c.name, inputs);
      if (!outputs) continue;
      c.check(inputs, outputs);
      good.push(remote);
    } catch (error) {
      if (remote.name === "mlx-vk") throw error;
      console.log(`  ${remote.name} is left out of ${c.name}: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  return good;
}

async function compare(c: OpCase, remotes: readonly Remote[], rounds: number): Promise<Result[]> {
  const all = await prepared(c, remotes);
  const warm = new Map<Remote, number>();
  for (const remote of all) warm.set(remote, await remote.measure(sampleMs));
  const best = Math.min(...warm.values());
  // Who takes ten times as long as the best can not be the faster peer: one sample says enough.
  const good = all.filter((r) => r.name === "mlx-vk" || (warm.get(r) as number) < 10 * best);
  const slow = all.filter((r) => !good.includes(r));
  const times = new Map(good.map((r) => [r.name, [] as number[]]));
  const start = performance.now();
  for (let i = 0; i < rounds && (i < 3 || performance.now() - start < rowMs); i++) {
    for (const remote of i % 2 === 0 ? good : [...good].reverse()) times.get(remote.name)?.push(await remote.measure(sampleMs));
  }
  const [ours = [], ...theirs] = [...times.values()];
  for (const remote of slow) times.set(remote.name, [warm.get(remote) as number]);
  const faster = theirs.length === 0 ? undefined : theirs.reduce((a, b) => (summarize(a).median <= summarize(b).median ? a : b));
  // Where all peers are slow, the best of them against our median.
  const least = Math.min(...slow.map((r) => warm.get(r) as number));
  const ratio = faster ? ratios(faster, ours) : slow.length > 0 ? summarize(ours.map((t) => least / t)) : undefined;
  const each = [...times].map(([name, t]) => `${name} ${duration(summarize(t).median)}`).join(", ");
  console.log(`${c.name.padEnd(34)} ${(ratio ? spread(ratio) : "-").padEnd(20)} ${each}`);
  const results: Result[] = [...times].map(([name, t]) => ({ name: `${c.name}, ${name}`, unit: "s", better: "lower", value: summarize(t) }));
  return ratio ? [...results, { name: `${c.name}, ratio`, unit: "x", better: "higher", value: ratio }] : results;
}

async function main(): Promise<void> {
  const selected = cases.filter((c) => filters.length === 0 || filters.some((f) => c.name.includes(f)));
  if (options.list) for (const c of selected) console.log(c.name);
  if (options.list) return;
  if (selected.length === 0) throw new Error(`nothing is called ${filters.join(" or ")}; --list shows all names`);
  if (!existsSync(join(import.meta.dirname, "../peers/node_modules/@frost-beta/mlx"))) throw new Error("install the peers first: cd bench/peers && npm ci (and, for MLX, the Debian packages libblas3 and liblapack3)");
  process.env["MLX_THREADS"] = options.threads;
  const m = machine(Number(options.threads));
  console.log(header(m));
  const start = (name: string, ...args: string[]): Promise<Remote> => Remote.start([name, ...args.slice(1)].join(" "), join(import.meta.dirname, "child.ts"), args);
  const remotes = [
    await start("mlx-vk", "mlx-vk"), await start("@frost-beta/mlx", "@frost-beta/mlx"),
    // Alone and with threads: a row counts with the faster.
    await start("jax-js", "jax-js", "1"), await start("jax-js", "jax-js", options.threads),
  ];
  console.log(`${"row".padEnd(34)} ${"times as fast".padEnd(20)} medians`);
  const results: Result[] = [];
  for (const c of selected) results.push(...(await compare(c, remotes, Number(options.rounds))));
  const all = results.filter((r) => r.unit === "x").map((r) => r.value.median);
  console.log(`at least as fast in ${all.filter((r) => r >= 1).length} of ${all.length} rows; least ratio ${Math.min(...all).toFixed(2)}`);
  for (const remote of remotes) remote.stop();
  console.log(writeReport("ops", { machine: m, results }));
}

await main();
