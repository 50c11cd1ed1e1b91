/**
 * MLX_VK_PROFILE and `profile`: time on the GPU (by its own clock) and on the host, calls, fallbacks, waits and copied bytes, by op and kernel. While it measures,
 * every list of GPU commands is waited for, so the host no longer runs ahead: the sums by kernel are right, the total is longer than without.
 */
import { writeFileSync } from "node:fs";
import { env } from "../core/env.ts";
import type { Node } from "../core/op.ts";
import { type RecordedList, type VulkanBackend, type VulkanProfiler, openVulkan, setVulkanProfiler } from "../backend/vulkan/index.ts";
import type { CommandStream } from "../backend/vulkan/commands.ts";
import { type Tracer, addTracer, evalArrays, stats } from "../schedule/run.ts";

export interface ProfileRow {
  /** Name of the op, with those that were fused into it; in parentheses what belongs to no op. */
  readonly op: string;
  readonly kernel: string;
  /** Runs of the kernel; for views and definitions in other ops how often they were met. */
  calls: number;
  gpuMs: number;
  /** Time of the host to plan and record it. The work of the CPU's own kernels is in the row "(run)". */
  hostMs: number;
  /** Ops of GPU streams that ran on the CPU. */
  fallbacks: number;
  /** Waits of the host for the GPU. */
  syncs: number;
  /** Between host and GPU, both ways. */
  copiedBytes: number;
}
export interface Profile {
  /** Those that took the GPU longest first, then by the host's time. */
  readonly rows: readonly ProfileRow[];
  readonly wallMs: number;
  readonly gpuMs: number;
}

/** A launch, and what is known of it: its op when the op is recorded, its time when it has run. */
interface Sample {
  readonly kernel: string;
  op: string | undefined;
  ms: number | undefined;
}
/** Launches of a list, with a timestamp in front of the first and behind each. */
interface Timed {
  readonly base: number;
  readonly samples: Sample[];
}
/** One in Chrome's trace format; times in microseconds. */
interface TraceEvent {
  readonly name: string;
  readonly cat: string;
  readonly ph: "X";
  readonly ts: number;
  readonly dur: number;
  readonly pid: 1;
  readonly tid: "GPU" | "host";
}

/** Timestamps of a device: the first half for lists that run once, the second for recordings, which keep theirs. */
const onceStamps = 2048;
const allStamps = 4096;
const mostEvents = 200_000;

class Meter implements Tracer, Omit<VulkanProfiler, "recorded"> {
  private readonly rows = new Map<string, ProfileRow>();
  readonly events: TraceEvent[] = [];
  private readonly tracing = env("MLX_VK_PROFILE_TRACE") !== "";
  private readonly printing = env("MLX_VK_PROFILE_PRINT_EACH");
  /** Launches whose op is not recorded yet. */
  private pending: Sample[] = [];
  private once: Timed | undefined;
  private keeping: Timed | undefined;
  private readonly kept = new Map<RecordedList, Timed>();
  private nextKept = onceStamps;
  private mark = performance.now();
  private before = counts();

  private row(op: string, kernel: string): ProfileRow {
    const key = `${op}|${kernel}`;
    let row = this.rows.get(key);
    if (!row) {
      row = { op, kernel, calls: 0, gpuMs: 0, hostMs: 0, fallbacks: 0, syncs: 0, copiedBytes: 0 };
      this.rows.set(key, row);
    }
    return row;
  }
  /** A copy of all rows. */
  snapshot(): Map<string, ProfileRow> {
    this.between();
    return new Map([...this.rows].map(([key, row]) => [key, { ...row }]));
  }

  // ---- ops

  begin(): void {
    this.between();
    this.mark = performance.now();
  }
  recorded(node: Node, kernel: string, _refused: readonly string[], absorbed: readonly Node[]): void {
    const op = [node, ...absorbed].map((n) => n.op.name).join("+").slice(0, 60);
    const row = this.row(op, kernel);
    const start = this.mark;
    this.charge(row);
    if (!kernel.startsWith("vulkan/")) row.calls++;
    if (this.tracing) this.event({ name: kernel, cat: op, ph: "X", ts: start * 1000, dur: (this.mark - start) * 1000, pid: 1, tid: "host" });
    if (this.printing) process.stderr.write(`${op} ${kernel}: host ${((this.mark - start) * 1000).toFixed(1)} us\n`);
    this.settle(op);
  }
  end(): void {
    this.charge(this.row("(run)", ""));
  }
  /** What happened outside of evaluations: the host reads and writes arrays. */
  private between(): void {
    this.settle("(other)");
    const { syncs, bytes } = this.before;
    const now = counts();
    if (now.syncs === syncs && now.bytes === bytes) return;
    this.mark = performance.now();
    this.charge(this.row("(host reads and writes)", ""));
  }
  /** Adds the host's time and what was counted since the last op. */
  private charge(row: ProfileRow): void {
    const [now, then, time] = [counts(), this.before, performance.now()];
    row.hostMs += time - this.mark;
    row.syncs += now.syncs - then.syncs;
    row.copiedBytes += now.bytes - then.bytes;
    row.fallbacks += now.fallbacks - then.fallbacks;
    this.mark = time;
    this.before = now;
  }
  private settle(op: string): void {
    for (const s of this.pending) {
      s.op = op;
      if (s.ms !== undefined) this.book(s, s.ms);
    }
    this.pending = [];
  }
  private book(s: Sample, ms: number): void {
    const row = this.row(s.op as string, s.kernel);
    row.calls++;
    row.gpuMs += ms;
    if (this.printing) process.stderr.write(`${s.op} ${s.kernel}: GPU ${(ms * 1000).toFixed(1)} us\n`);
  }
  private event(e: TraceEvent): void {
    if (this.events.length < mostEvents) this.events.push(e);
  }

  // ---- launches

  launching(stream: CommandStream, kept: boolean): void {
    if ((kept ? this.keeping : this.once) || (openVulkan()?.info.limits.timestampPeriod ?? 0) === 0) return;
    const timed: Timed = { base: kept ? this.nextKept : 0, samples: [] };
    if (kept) this.keeping = timed;
    else this.once = timed;
    if (timed.base < allStamps) stream.timestamp(timed.base);
  }
  launched(stream: CommandStream, kept: boolean, name: string): void {
    const sample: Sample = { kernel: name, op: undefined, ms: undefined };
    this.pending.push(sample);
    const timed = kept ? this.keeping : this.once;
    const stamp = timed ? timed.base + timed.samples.length + 1 : allStamps;
    if (!timed || stamp >= (kept ? allStamps : onceStamps)) {
      // There are no timestamps left: it is counted without a time.
      sample.ms = 0;
      return;
    }
    timed.samples.push(sample);
    stream.timestamp(stamp);
  }
  submitted(backend: VulkanBackend): void {
    // A recording that is submitted in pieces has stamps of its own range.
    for (const timed of [this.once, this.keeping]) if (timed) this.read(backend, timed);
    this.once = undefined;
    this.keeping = undefined;
  }
  /** The stream has become a recording. */
  closed(list: RecordedList): void {
    const timed = this.keeping;
    this.keeping = undefined;
    if (!timed) return;
    this.kept.set(list, timed);
    this.nextKept = Math.min(allStamps, timed.base + timed.samples.length + 1);
  }
  replayed(backend: VulkanBackend, list: RecordedList): void {
    const timed = this.kept.get(list);
    if (timed) this.read(backend, timed);
  }
  released(list: RecordedList): void {
    this.kept.delete(list);
    this.nextKept = Math.max(onceStamps, ...[...this.kept.values()].map((t) => t.base + t.samples.length + 1));
  }
  /** Waits for a list and books the times of its launches. */
  private read(backend: VulkanBackend, { base, samples }: Timed): void {
    if (samples.length === 0) return;
    backend.addon.waitSync(backend.last);
    const over = performance.now();
    const times = new Float64Array(samples.length + 1);
    backend.addon.timestamps(base, samples.length + 1, times);
    const start = over - (times[samples.length] as number) / 1e6;
    samples.forEach((s, i) => {
      const ms = ((times[i + 1] as number) - (times[i] as number)) / 1e6;
      if (this.tracing) this.event({ name: s.kernel, cat: s.op ?? "", ph: "X", ts: (start + (times[i] as number) / 1e6) * 1000, dur: ms * 1000, pid: 1, tid: "GPU" });
      if (s.op === undefined) s.ms = ms;
      else this.book(s, ms);
    });
  }
}

/** Counters that ops are charged with. */
function counts(): { syncs: number; bytes: number; fallbacks: number } {
  const c = openVulkan()?.counters;
  return { syncs: c?.syncs ?? 0, bytes: (c?.uploadedBytes ?? 0) + (c?.downloadedBytes ?? 0), fallbacks: stats.fallbacks };
}

let meter: Meter | undefined;
let users = 0;
let remove: (() => void) | undefined;
function start(): Meter {
  users++;
  if (meter) return meter;
  const made = new Meter();
  meter = made;
  remove = addTracer(made);
  setVulkanProfiler({
    launching: (stream, kept) => made.launching(stream, kept),
    launched: (stream, kept, name) => made.launched(stream, kept, name),
    submitted: (backend) => made.submitted(backend),
    recorded: (list) => made.closed(list),
    replayed: (backend, list) => made.replayed(backend, list),
    released: (list) => made.released(list),
  });
  return made;
}
function stop(): void {
  if (--users > 0) return;
  remove?.();
  setVulkanProfiler(undefined);
  meter = undefined;
}

function difference(after: Map<string, ProfileRow>, before: Map<string, ProfileRow>): ProfileRow[] {
  const rows: ProfileRow[] = [];
  for (const [key, a] of after) {
    const b = before.get(key);
    const row: ProfileRow = {
      op: a.op, kernel: a.kernel, calls: a.calls - (b?.calls ?? 0), gpuMs: a.gpuMs - (b?.gpuMs ?? 0), hostMs: a.hostMs - (b?.hostMs ?? 0), fallbacks: a.fallbacks - (b?.fallbacks ?? 0),
      syncs: a.syncs - (b?.syncs ?? 0), copiedBytes: a.copiedBytes - (b?.copiedBytes ?? 0),
    };
    if (row.calls > 0 || row.hostMs > 0 || row.copiedBytes > 0 || row.syncs > 0) rows.push(row);
  }
  return rows.sort((x, y) => y.gpuMs - x.gpuMs || y.hostMs - x.hostMs);
}

function writeTrace(m: Meter): void {
  const path = env("MLX_VK_PROFILE_TRACE");
  if (path !== "") writeFileSync(path, JSON.stringify({ traceEvents: m.events, displayTimeUnit: "ms" }));
}

/**
 * Measures what `fn` evaluates, with the arrays that it returns (or resolves to): rows by op and kernel. MLX_VK_PROFILE_TRACE=path also writes the events as a
 * file for chrome://tracing or Perfetto.
 */
export function profile(fn: () => Promise<unknown>): Promise<Profile>;
export function profile(fn: () => unknown): Profile;
export function profile(fn: () => unknown): Profile | Promise<Profile> {
  const m = start();
  const before = m.snapshot();
  const begun = performance.now();
  const finish = (result: unknown): Profile => {
    evalArrays(result);
    openVulkan()?.synchronize();
    const wallMs = performance.now() - begun;
    const rows = difference(m.snapshot(), before);
    writeTrace(m);
    return { rows, wallMs, gpuMs: rows.reduce((sum, r) => sum + r.gpuMs, 0) };
  };
  let waits = false;
  try {
    const result = fn();
    if (!(result instanceof Promise)) return finish(result);
    waits = true;
    return result.then(finish).finally(stop);
  } finally {
    if (!waits) stop();
  }
}

/** The rows of a profile as text. */
export function formatProfile({ rows, wallMs, gpuMs }: Profile): string {
  const width = Math.max(4, ...rows.map((r) => r.op.length));
  const kernelWidth = Math.max(6, ...rows.map((r) => r.kernel.length));
  const head = `${"op".padEnd(width)}  ${"kernel".padEnd(kernelWidth)}  ${"calls".padStart(8)} ${"GPU ms".padStart(10)} ${"%".padStart(5)} ${"host ms".padStart(10)} ${"fallbacks".padStart(9)} ${"syncs".padStart(6)} ${"copied MB".padStart(10)}`;
  const lines = rows.map((r) =>
    [
      `${r.op.padEnd(width)}  ${r.kernel.padEnd(kernelWidth)} `, String(r.calls).padStart(8), r.gpuMs.toFixed(3).padStart(10), (gpuMs > 0 ? (100 * r.gpuMs) / gpuMs : 0).toFixed(1).padStart(5),
      r.hostMs.toFixed(3).padStart(10), String(r.fallbacks).padStart(9), String(r.syncs).padStart(6), (r.copiedBytes / 1e6).toFixed(3).padStart(10),
    ].join(" "),
  );
  const sum = (of: (r: ProfileRow) => number): number => rows.reduce((n, r) => n + of(r), 0);
  return [head, ...lines, `${sum((r) => r.calls)} calls, GPU ${gpuMs.toFixed(3)} ms, ${sum((r) => r.fallbacks)} fallbacks, ${sum((r) => r.syncs)} syncs, ${(sum((r) => r.copiedBytes) / 1e6).toFixed(3)} MB copied, ${wallMs.toFixed(1)} ms in all`].join("\n");
}

if (env("MLX_VK_PROFILE") || env("MLX_VK_PROFILE_PRINT_EACH")) {
  const m = start();
  const begun = performance.now();
  process.once("exit", () => {
    const rows = difference(m.snapshot(), new Map());
    process.stderr.write(`${formatProfile({ rows, wallMs: performance.now() - begun, gpuMs: rows.reduce((sum, r) => sum + r.gpuMs, 0) })}\n`);
    writeTrace(m);
  });
}
