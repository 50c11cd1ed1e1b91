/** Row by row, ours and the other libraries take turns; each has a process of its own, and its results are compared with float64 first. */
import { join } from "node:path";
import { duration, ratios, spread, summarize } from "../harness.ts";
import type { OpRow } from "../peers/report.ts";
import type { OpCase } from "./cases.ts";
import { Remote } from "./engine.ts";

export interface OpOptions {
  readonly threads: number;
  /** At most; at least two. */
  readonly rounds: number;
  /** Time after which a row gets no further round, and least time of a sample. */
  readonly rowMs: number;
  readonly sampleMs: number;
  readonly say: (row: OpRow) => void;
}
const us = "mlx-vk";

/** Names in the table, and arguments of child.ts. jax-js runs alone and with threads: a row counts with the faster. */
const libraries = (threads: number): (readonly [string, ...string[]])[] => [
  [us, us], ["@frost-beta/mlx", "@frost-beta/mlx"], ["jax-js", "jax-js", "1"], [`jax-js ${threads} threads`, "jax-js", String(threads)], ["tfjs wasm", "tfjs"],
  ["onnxruntime-node", "onnxruntime-node", String(threads)],
];
const firstLine = (error: unknown): string => (error as Error).message.split("\n")[0] ?? "";

/** Results of the row, checked. A library that is wrong or fails is left out, and said so. */
async function prepared(c: OpCase, remotes: readonly Remote[], reasons: Record<string, string>): Promise<Remote[]> {
  const inputs = c.inputs();
  const good: Remote[] = [];
  for (const remote of remotes) {
    try {
      const outputs = await remote.prepare(c.name, inputs);
      if (!outputs) {
        reasons[remote.name] = "has no such op";
        continue;
      }
      c.check(inputs, outputs);
      good.push(remote);
    } catch (error) {
      if (remote.name === us) throw error;
      reasons[remote.name] = firstLine(error);
    }
  }
  return good;
}

async function compare(c: OpCase, remotes: readonly Remote[], o: OpOptions): Promise<OpRow> {
  const reasons: Record<string, string> = {};
  const all = await prepared(c, remotes, reasons);
  const warm = new Map<Remote, number>();
  for (const remote of all) warm.set(remote, await remote.measure(o.sampleMs));
  const best = Math.min(...warm.values());
  // Who takes ten times as long as the best can not be the faster peer: one sample says enough.
  const good = all.filter((r) => r.name === us || (warm.get(r) as number) < 10 * best);
  const slow = all.filter((r) => !good.includes(r));
  const times = new Map(good.map((r) => [r.name, [] as number[]]));
  const start = performance.now();
  for (let i = 0; i < o.rounds && (i < 2 || performance.now() - start < o.rowMs); i++) {
    for (const remote of i % 2 === 0 ? good : [...good].reverse()) times.get(remote.name)?.push(await remote.measure(o.sampleMs));
  }
  const [ours = [], ...theirs] = [...times.values()];
  for (const remote of slow) times.set(remote.name, [warm.get(remote) as number]);
  const faster = theirs.length === 0 ? undefined : theirs.reduce((a, b) => (summarize(a).median <= summarize(b).median ? a : b));
  // Where all peers are slow, the best of them against our median.
  const least = Math.min(...slow.map((r) => warm.get(r) as number));
  const ratio = faster ? ratios(faster, ours) : slow.length > 0 ? summarize(ours.map((t) => least / t)) : undefined;
  return { op: c.name, seconds: Object.fromEntries([...times].map(([name, t]) => [name, summarize(t)])), reasons, ...(ratio ? { ratio } : {}) };
}

/** Measures the cases. A library that does not start has its reason in every row. */
export async function compareOps(cases: readonly OpCase[], o: OpOptions): Promise<OpRow[]> {
  const remotes: Remote[] = [];
  const absent: Record<string, string> = {};
  for (const [name, ...args] of libraries(o.threads)) {
    try {
      remotes.push(await Remote.start(name, join(import.meta.dirname, "child.ts"), args));
    } catch (error) {
      if (name === us) throw error;
      absent[name] = firstLine(error);
      console.log(`${name}: ${absent[name]}`);
    }
  }
  const rows: OpRow[] = [];
  try {
    for (const c of cases) {
      const row = await compare(c, remotes, o);
      rows.push({ ...row, reasons: { ...absent, ...row.reasons } });
      o.say(rows.at(-1) as OpRow);
    }
  } finally {
    for (const remote of remotes) remote.stop();
  }
  return rows;
}

export function opText(r: OpRow): string {
  const each = Object.entries(r.seconds).map(([name, s]) => `${name} ${duration(s.median)}`).join(", ");
  const left = Object.entries(r.reasons).map(([name, reason]) => `\n  ${name} is left out: ${reason}`).join("");
  return `${r.op.padEnd(34)} ${(r.ratio ? spread(r.ratio) : "-").padEnd(20)} ${each}${left}`;
}
