/** Measuring: samples, their statistics, interleaved comparison, the machine's description, and the result file. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";

/** Statistics of samples, in the samples' unit. */
export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly p10: number;
  readonly median: number;
  readonly p90: number;
  readonly max: number;
}

/** Value below which a part `q` (0 to 1) of the sorted samples lies, interpolated linearly between neighbours. */
export function quantile(sorted: readonly number[], q: number): number {
  if (sorted.length === 0) throw new Error("a quantile needs at least one sample");
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

export function summarize(samples: readonly number[]): Summary {
  const s = [...samples].sort((a, b) => a - b);
  return { count: s.length, min: quantile(s, 0), p10: quantile(s, 0.1), median: quantile(s, 0.5), p90: quantile(s, 0.9), max: quantile(s, 1) };
}

export interface MeasureOptions {
  /** Samples to take. */
  readonly samples?: number;
  /** Least time of one sample, in milliseconds; short work is repeated to fill it. */
  readonly sampleMs?: number;
  /** Time to warm up (compilation, caches), in milliseconds. */
  readonly warmupMs?: number;
}
const defaults = { samples: 15, sampleMs: 10, warmupMs: 100 };

const now = (): number => performance.now();

/** How many calls of `run` take about `ms`, found while warming up. */
function callsPerSample(run: () => void, ms: number, warmupMs: number): number {
  const start = now();
  let calls = 0;
  do {
    run();
    calls++;
  } while (now() - start < warmupMs);
  // The second half of the warm-up is steady; its speed decides.
  const again = now();
  run();
  const one = Math.min(now() - again, (now() - start) / calls);
  return Math.max(1, Math.ceil(ms / Math.max(one, 1e-4)));
}

/** Seconds per call of each function. The functions take turns, so that a change of the machine's speed meets all of them alike. */
export function measureTogether<N extends string>(runs: Readonly<Record<N, () => void>>, options: MeasureOptions = {}): Record<N, number[]> {
  const { samples, sampleMs, warmupMs } = { ...defaults, ...options };
  const names = Object.keys(runs) as N[];
  const calls = new Map(names.map((n) => [n, callsPerSample(runs[n], sampleMs, warmupMs)]));
  const out = Object.fromEntries(names.map((n) => [n, [] as number[]])) as Record<N, number[]>;
  for (let i = 0; i < samples; i++) {
    // Every other round runs backwards: no function always follows the same neighbour.
    for (const n of i % 2 === 0 ? names : [...names].reverse()) {
      const run = runs[n];
      const count = calls.get(n) as number;
      const start = now();
      for (let c = 0; c < count; c++) run();
      out[n].push((now() - start) / count / 1000);
    }
  }
  return out;
}

/** Statistics of the ratios a/b of samples taken in the same round. */
export function ratios(a: readonly number[], b: readonly number[]): Summary {
  if (a.length !== b.length) throw new Error(`ratios need samples in pairs, got ${a.length} and ${b.length}`);
  return summarize(a.map((x, i) => x / (b[i] as number)));
}

/** One line of a result file. `value` is in `unit`; `lower` tells which direction is better. */
export interface Result {
  readonly name: string;
  readonly unit: string;
  readonly better: "lower" | "higher";
  readonly value: Summary;
  /** Further numbers, e.g. GB/s or a share of the roof. */
  readonly extra?: Readonly<Record<string, number>>;
}
export interface Report {
  readonly machine: Machine;
  readonly results: readonly Result[];
}
export interface Machine {
  readonly commit: string;
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly node: string;
  readonly v8: string;
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly threads: number;
}

function commit(): string {
  try {
    const git = (...args: string[]): string => execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], cwd: import.meta.dirname }).trim();
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain") === "" ? "" : "+changes");
  } catch {
    return "unknown";
  }
}

export function machine(threads: number = availableParallelism()): Machine {
  return {
    commit: commit(),
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    v8: process.versions.v8,
    flags: process.execArgv.filter((a) => !a.includes("tsx") && a !== "--import" && a !== "--require"),
    env: Object.fromEntries(Object.entries(process.env).filter((e): e is [string, string] => e[0].startsWith("MLX_") && e[1] !== undefined)),
    threads,
  };
}

export function header(m: Machine): string {
  const settings = [...m.flags, ...Object.entries(m.env).map(([k, v]) => `${k}=${v}`)].join(" ") || "none";
  return [
    `${m.cpu}, ${m.cores} cores, ${m.memoryGiB} GiB; Node ${m.node} (V8 ${m.v8}), ${m.threads} threads`,
    `commit ${m.commit}, ${m.date}; flags and MLX_ environment: ${settings}`,
  ].join("\n");
}

/** A number with three significant digits. */
export const digits = (x: number): string => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x >= 1 ? x.toFixed(2) : x.toPrecision(3));
/** A duration in the unit that suits it. */
export const duration = (seconds: number): string =>
  seconds >= 1 ? `${digits(seconds)} s` : seconds >= 1e-3 ? `${digits(seconds * 1e3)} ms` : `${digits(seconds * 1e6)} us`;
export const spread = (s: Summary): string => `${digits(s.median)} (${digits(s.p10)}-${digits(s.p90)})`;

/** Writes a report to bench/results and returns its path. */
export function writeReport(name: string, report: Report): string {
  const folder = join(import.meta.dirname, "results");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${report.machine.date.replace(/[:.]/g, "-")}-${name}.json`);
  writeFileSync(path, `${JSON.stringify(report, null, 1)}\n`);
  return path;
}
