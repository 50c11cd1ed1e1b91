/** What a run of bench/peers found, as a table of Markdown and as a chart: pure functions of the result. */
import type { Machine, Summary } from "../harness.ts";
import { digits, duration } from "../harness.ts";

/** One library at one work, in turns with ours. Speeds in tokens per second; the ratio is ours over theirs, round by round. */
export interface LlmRow {
  readonly device: "cpu" | "gpu";
  readonly work: string;
  readonly peer: string;
  readonly weights: string;
  /** Version and device, as the library gives them. */
  readonly about?: string;
  readonly ours?: Summary;
  readonly theirs?: Summary;
  readonly ratio?: Summary;
  readonly peakMiB?: number;
  /** Why there are no numbers. */
  readonly reason?: string;
}
/** One op: seconds of each library, or why it has none. The ratio is the time of the fastest other library over ours, round by round. */
export interface OpRow {
  readonly op: string;
  readonly seconds: Readonly<Record<string, Summary>>;
  readonly reasons: Readonly<Record<string, string>>;
  readonly ratio?: Summary;
}
export interface Section<R> {
  readonly machine: Machine;
  /** Fewer and shorter rounds. */
  readonly quick?: boolean;
  readonly rows: readonly R[];
}
export interface PeerResult {
  readonly model: string;
  readonly llm?: Section<LlmRow>;
  readonly ops?: Section<OpRow>;
}

const llmKey = (r: LlmRow): string => `${r.device}/${r.work}/${r.peer}/${r.weights}`;
/** A later run of a part replaces the rows that it has; rows of another machine or Node go. */
function mergeSection<R>(old: Section<R> | undefined, now: Section<R> | undefined, key: (r: R) => string): Section<R> | undefined {
  if (!old || !now) return now ?? old;
  const same = old.machine.cpu === now.machine.cpu && old.machine.node === now.machine.node && old.machine.threads === now.machine.threads;
  const fresh = new Map(now.rows.map((r) => [key(r), r]));
  const kept = same ? old.rows.map((r) => fresh.get(key(r)) ?? r) : [];
  const known = new Set(kept.map(key));
  return { machine: now.machine, ...(now.quick ? { quick: true } : {}), rows: [...kept, ...now.rows.filter((r) => !known.has(key(r)))] };
}
export function merge(old: PeerResult | undefined, now: PeerResult): PeerResult {
  if (!old || old.model !== now.model) return now;
  const llm = mergeSection(old.llm, now.llm, llmKey);
  const ops = mergeSection(old.ops, now.ops, (r) => r.op);
  return { model: now.model, ...(llm ? { llm } : {}), ...(ops ? { ops } : {}) };
}

const ratioText = (s: Summary): string => `**${digits(s.median)}** (${digits(s.p10)}-${digits(s.p90)})`;
const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
/** Text of others inside a cell. */
const cell = (text: string): string => text.replace(/\s+/g, " ").replaceAll("|", "\\|").trim();

/** Node 20 has no Map.groupBy. */
function groupBy<R>(rows: readonly R[], key: (r: R) => string): Map<string, R[]> {
  const groups = new Map<string, R[]>();
  for (const r of rows) groups.set(key(r), [...(groups.get(key(r)) ?? []), r]);
  return groups;
}
/** A reason, short enough for a table. */
const short = (reason: string): string => (reason.length > 150 ? `${reason.slice(0, 147).trimEnd()}...` : reason);
/** Rows without numbers: one for all works that a library lacks for the same reason. */
function reasonRows(rows: readonly LlmRow[]): string[] {
  const groups = groupBy(rows.filter((r) => !r.ratio), (r) => JSON.stringify([r.peer, r.weights, r.reason]));
  return [...groups.values()].map((group) => {
    const [first] = group as [LlmRow];
    return line([group.map((r) => r.work).join(", "), cell(first.peer), first.weights, "", "", cell(short(first.reason ?? ""))]);
  });
}
function llmTable(section: Section<LlmRow>): string[] {
  const rows = section.rows.flatMap((r) => (r.ratio && r.ours && r.theirs ? [line([r.work, cell(r.peer), r.weights, digits(r.ours.median), digits(r.theirs.median), ratioText(r.ratio)])] : []));
  return [line(["work", "library", "its weights", "ours, tok/s", "theirs, tok/s", "times as fast (10-90 %)"]), "|---|---|---|--:|--:|---|", ...rows, ...reasonRows(section.rows)];
}
/** Names of all libraries that have a time or a reason, ours first. */
const libraries = (rows: readonly OpRow[]): string[] => [...new Set(rows.flatMap((r) => [...Object.keys(r.seconds), ...Object.keys(r.reasons)]))];
function opTable(section: Section<OpRow>): string[] {
  const names = libraries(section.rows);
  const rows = section.rows.map((r) => line([r.op, ...names.map((n) => (r.seconds[n] ? duration(r.seconds[n].median) : "-")), r.ratio ? ratioText(r.ratio) : "-"]));
  return [line(["op", ...names, "times as fast as the best other"]), `|---|${"--:|".repeat(names.length)}---|`, ...rows];
}
const where = ({ machine: m, quick }: Section<unknown>): string => `${m.cpu}, ${m.threads} threads, Node ${m.node}, commit ${m.commit}, ${m.date.slice(0, 10)}${quick ? ", a quick run" : ""}`;

/** Tables for the README. */
export function markdown(result: PeerResult): string {
  const parts: string[] = [];
  if (result.llm) parts.push(`${result.model} with random weights; ${where(result.llm)}:`, "", ...llmTable(result.llm), "");
  if (result.ops) parts.push(`Ops in float32; ${where(result.ops)}:`, "", ...opTable(result.ops), "");
  return parts.join("\n").trim();
}

// ---- chart

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
const layout = { width: 720, label: 210, bar: 16, row: 24, title: 30, right: 130 } as const;

interface Bar {
  readonly name: string;
  /** Speed as a part of ours. */
  readonly part: number;
  readonly text: string;
  readonly ours: boolean;
}
/** Bars of one work: ours is 1, each library's speed a part of it, or no bar but a word. */
function barsOf(rows: readonly LlmRow[]): Bar[] {
  const measured = rows.filter((r) => r.ratio && r.theirs);
  const bars = measured.map((r): Bar => ({
    name: `${r.peer}, ${r.weights}`.length > 34 ? r.peer : `${r.peer}, ${r.weights}`, part: 1 / (r.ratio as Summary).median, text: `${digits((r.theirs as Summary).median)} tok/s`, ours: false,
  }));
  const absent = rows.filter((r) => !r.ratio).map((r): Bar => ({ name: r.peer, part: 0, text: "not measured", ours: false }));
  const speed = measured[0]?.ours?.median;
  return [{ name: "mlx-vk", part: 1, text: speed === undefined ? "" : `${digits(speed)} tok/s`, ours: true }, ...bars.sort((a, b) => b.part - a.part), ...absent];
}

/** A chart of the language model's rows: bars of speed against ours, a group per work. Colours follow the reader's light or dark scheme. */
export function svg(result: PeerResult): string {
  const rows = result.llm?.rows ?? [];
  const groups = [...new Set(rows.map((r) => `${r.device}/${r.work}`))].map((key) => ({
    title: `${key.split("/")[1]}${key.startsWith("gpu") ? " on the GPU" : " on the CPU"}`, bars: barsOf(rows.filter((r) => `${r.device}/${r.work}` === key)),
  }));
  const { width, label, bar, row, title, right } = layout;
  const most = Math.max(1, ...groups.flatMap((g) => g.bars.map((b) => b.part)));
  const body: string[] = [];
  let y = 34;
  for (const g of groups) {
    body.push(`<text class="title" x="12" y="${y + 18}">${escape(g.title)}</text>`);
    y += title;
    for (const b of g.bars) {
      const length = Math.max(1, Math.round(((width - label - right) * b.part) / most));
      const middle = y + bar - 4;
      body.push(`<text class="label" x="${label - 8}" y="${middle}" text-anchor="end">${escape(b.name)}</text>`);
      body.push(`<rect class="${b.ours ? "ours" : "theirs"}" x="${label}" y="${y}" width="${length}" height="${bar}" rx="2"/>`);
      body.push(`<text class="label" x="${label + length + 6}" y="${middle}">${escape(b.text)}</text>`);
      y += row;
    }
    y += 8;
  }
  const style = "text{font:12px system-ui,sans-serif}.title{font-weight:600}.title,.label{fill:#1f2328}.ours{fill:#0969da}.theirs{fill:#8c959f}" +
    "@media(prefers-color-scheme:dark){.title,.label{fill:#e6edf3}.ours{fill:#4493f8}.theirs{fill:#6e7681}}";
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}" role="img" aria-label="Speed of ${escape(result.model)} beside other libraries">`,
    `<style>${style}</style>`,
    `<text class="title" x="12" y="20">${escape(result.model)}, 4 bits: tokens per second, each beside ours in turns</text>`,
    ...body, "</svg>", "",
  ].join("\n");
}
