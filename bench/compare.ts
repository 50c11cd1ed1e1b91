/** Compares two result files: node --import tsx bench/compare.ts <before.json> <after.json>. A ratio counts only outside the band of noise of both runs. */
import { readFileSync } from "node:fs";
import { type Report, type Result, digits, header } from "./harness.ts";

/** How much better `after` is than `before` (over 1: better), and the ratios that noise alone would explain. */
export function change(before: Result, after: Result): { ratio: number; low: number; high: number; verdict: "better" | "worse" | "same" } {
  const gain = (a: number, b: number): number => (after.better === "higher" ? b / a : a / b);
  const ratio = gain(before.value.median, after.value.median);
  const band = (r: Result): number => Math.max(r.value.p90 / r.value.median, r.value.median / r.value.p10);
  const noise = Math.max(band(before), band(after));
  return { ratio, low: 1 / noise, high: noise, verdict: ratio > noise ? "better" : ratio < 1 / noise ? "worse" : "same" };
}

function main(paths: readonly string[]): void {
  if (paths.length !== 2) throw new Error("give two result files: before and after");
  const [before, after] = paths.map((p) => JSON.parse(readFileSync(p, "utf8")) as Report) as [Report, Report];
  console.log(`before: ${header(before.machine)}\nafter:  ${header(after.machine)}\n`);
  const old = new Map(before.results.map((r) => [r.name, r]));
  for (const r of after.results) {
    const b = old.get(r.name);
    if (!b) {
      console.log(`${r.name.padEnd(60)} new: ${digits(r.value.median)} ${r.unit}`);
      continue;
    }
    const c = change(b, r);
    console.log(`${r.name.padEnd(60)} ${digits(b.value.median)} -> ${digits(r.value.median)} ${r.unit}, ${c.ratio.toFixed(2)}x ${c.verdict} (noise ${c.low.toFixed(2)}-${c.high.toFixed(2)})`);
  }
}

if (process.argv[1] === import.meta.filename) main(process.argv.slice(2));
