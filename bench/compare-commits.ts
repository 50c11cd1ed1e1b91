/**
 * Two commits side by side: npm run bench:compare BASE HEAD [filter ...] [--rounds 5] [--samples 9]. Each is checked out in a temporary worktree and built;
 * then `npm run bench -- filter ...` of both takes turns, round by round. A ratio is HEAD's value over BASE's in the same round (over 1: HEAD is better); it
 * counts only outside the band of noise.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { change } from "./compare.ts";
import { type Report, type Result, type Summary, digits, spread, summarize } from "./harness.ts";

export interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly base: Summary;
  readonly head: Summary;
  /** How much better HEAD is, round by round. */
  readonly ratio: Summary;
  readonly low: number;
  readonly high: number;
  readonly verdict: "better" | "worse" | "same";
}

/** What both sides measured in every round, by name. The noise is the widest of three bands: that of a run's own samples, that of the ratios from round to round, and by how much the roofs differ, whose code is the same. */
export function compareRounds(base: readonly (readonly Result[])[], head: readonly (readonly Result[])[]): Comparison[] {
  const found = (rounds: readonly (readonly Result[])[], name: string): Result[] => rounds.flatMap((r) => r.find((x) => x.name === name) ?? []);
  const roofs = (head[0] ?? []).filter((r) => r.name.startsWith("roof ")).map((r) => {
    const pairs = found(base, r.name).flatMap((b, i) => (found(head, r.name)[i] ? [change(b, found(head, r.name)[i] as Result).ratio] : []));
    return Math.abs(Math.log(pairs.length > 0 ? summarize(pairs).median : 1));
  });
  const drift = Math.exp(Math.max(0, ...roofs));
  return (head[0] ?? []).flatMap((first): Comparison[] => {
    const [b, h] = [found(base, first.name), found(head, first.name)];
    if (b.length !== base.length || h.length !== head.length) return [];
    const pairs = b.map((r, i) => change(r, h[i] as Result));
    const ratio = summarize(pairs.map((p) => p.ratio));
    const noise = Math.max(summarize(pairs.map((p) => p.high)).median, ratio.p90 / ratio.median, ratio.median / ratio.p10, first.name.startsWith("roof ") ? 1 : drift);
    const verdict = ratio.median > noise ? "better" : ratio.median < 1 / noise ? "worse" : "same";
    const medians = (side: readonly Result[]): Summary => summarize(side.map((r) => r.value.median));
    return [{ name: first.name, unit: first.unit, base: medians(b), head: medians(h), ratio, low: 1 / noise, high: noise, verdict }];
  });
}

const root = join(import.meta.dirname, "..");
const git = (...args: string[]): string => execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }).trim();

/** A built checkout of a commit. It shares this one's installed modules when its lock file is the same, and its native addon when its sources are. */
function checkout(folder: string, commit: string): void {
  git("worktree", "add", "--detach", folder, commit);
  const same = (path: string): boolean => spawnSync("git", ["diff", "--quiet", "HEAD", commit, "--", path], { cwd: root }).status === 0;
  const run = (...args: string[]): void => void execFileSync("npm", args, { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  if (same("package-lock.json")) symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  else run("ci", "--ignore-scripts");
  if (existsSync(join(root, "native/build")) && same("native")) symlinkSync(join(root, "native/build"), join(folder, "native/build"));
  run("run", "gen");
}

/** Runs a checkout's own benches; gives what they wrote. */
function measure(folder: string, args: readonly string[]): readonly Result[] {
  const results = join(folder, "bench/results");
  rmSync(results, { recursive: true, force: true });
  const { status } = spawnSync(process.execPath, ["--import", "tsx", "bench/run.ts", ...args], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) throw new Error(`the benches of ${folder} failed`);
  return readdirSync(results).flatMap((file) => (JSON.parse(readFileSync(join(results, file), "utf8")) as Report).results);
}

export const comparisonText = (c: Comparison): string =>
  `${c.name.padEnd(64)} ${spread(c.base)} -> ${spread(c.head)} ${c.unit}, ${spread(c.ratio)}x ${c.verdict} (noise ${c.low.toFixed(2)}-${c.high.toFixed(2)})`;

function main(): void {
  const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { rounds: { type: "string", default: "5" }, samples: { type: "string", default: "9" } } });
  const [baseName, headName, ...filters] = positionals;
  if (!baseName || !headName) throw new Error("give two commits: npm run bench:compare BASE HEAD [filter ...]");
  const [base, head] = [git("rev-parse", "--verify", `${baseName}^{commit}`), git("rev-parse", "--verify", `${headName}^{commit}`)];
  const folder = mkdtempSync(join(tmpdir(), "mlx-vk-compare-"));
  const places = { base: join(folder, "base"), head: join(folder, "head") };
  try {
    checkout(places.base, base);
    checkout(places.head, head);
    const rounds = { base: [] as (readonly Result[])[], head: [] as (readonly Result[])[] };
    for (let i = 0; i < Number(options.rounds); i++) {
      for (const side of i % 2 === 0 ? (["base", "head"] as const) : (["head", "base"] as const)) rounds[side].push(measure(places[side], [...filters, "--samples", options.samples]));
      console.log(`round ${i + 1} of ${options.rounds}`);
    }
    console.log(`${base.slice(0, 9)} -> ${head.slice(0, 9)}, median (10-90 %) of ${options.rounds} rounds`);
    const all = compareRounds(rounds.base, rounds.head);
    for (const c of all) console.log(comparisonText(c));
    for (const verdict of ["better", "worse", "same"] as const) console.log(`${verdict}: ${all.filter((c) => c.verdict === verdict).length}`);
    const gains = all.filter((c) => !c.name.startsWith("roof")).map((c) => Math.log(c.ratio.median));
    if (gains.length > 0) console.log(`geometric mean of the ratios: ${digits(Math.exp(gains.reduce((a, b) => a + b, 0) / gains.length))}`);
  } finally {
    for (const place of Object.values(places)) if (existsSync(place)) git("worktree", "remove", "--force", place);
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === import.meta.filename) main();
