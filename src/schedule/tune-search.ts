/**
 * Measuring: before an evaluation, each op whose bucket is new is run by all the kernels that could take it, with the parameters that they offer, on its own operands (noise
 * stands in for those that are not computed yet). The fastest is kept when it computes the same and beats what runs anyway by more than 5 % in a second, direct comparison.
 */
import type { DeviceType } from "../core/device.ts";
import { env } from "../core/env.ts";
import type { GpuDevice, GpuKernel } from "../core/gpu.ts";
import type { Choices, Kernel, Node } from "../core/op.ts";
import { vulkanBackend } from "../backend/vulkan/index.ts";
import { type Switches, check, checkGpu, readSwitches } from "./gate.ts";
import { bucketOf, tableOf } from "./tune.ts";
import { kernelsOf } from "./tune-file.ts";
import { type Bench, DeviceBench, HostBench, type Prepared, type Subject, difference, poison, resultsOf, subjectOf } from "./tune-measure.ts";

type AnyKernel = Kernel | GpuKernel;

export interface TuneOptions {
  /** Seconds in all (default 30), and for one bucket (default: an eighth of them). */
  readonly seconds?: number;
  readonly opSeconds?: number;
  /** Measure what is known already once more. */
  readonly again?: boolean;
  /** Milliseconds on any clock, and the time of one run of a kernel, which `run` measures; for tests. */
  readonly clock?: () => number;
  readonly timer?: (kernel: string, choices: Choices, run: () => number) => number;
}
/** What was found for one bucket. */
export interface TuneRow {
  readonly op: string;
  readonly bucket: string;
  readonly device: DeviceType;
  /** The kernel that runs without tuning, and its time. */
  readonly usual: string;
  readonly ms: number;
  /** What is faster, if anything. */
  readonly chosen: { readonly kernel: string; readonly values: Choices } | undefined;
  /** Time of the usual kernel over that of the choice. */
  readonly ratio: number;
  /** Ways that were measured, and those that computed something else. */
  readonly tried: number;
  readonly wrong: readonly string[];
}

interface Way {
  readonly kernel: AnyKernel;
  readonly choices: Choices;
  readonly ms: number;
}

/** A choice is kept when it is so many times as fast, and faster in so many of the rounds. */
const leastGain = 1.05;
const leastWins = 0.8;
/** Samples of one way: as many as fit into this many milliseconds, within bounds. */
const sampleMs = 40;
const fewestSamples = 3;
const mostSamples = 9;
/** Rounds of the last comparison: as many as fit into this many milliseconds, within bounds. */
const duelMs = 60;
const fewestRounds = 7;
const mostRounds = 25;
/** Parameters are tried only of kernels that come this close to the best. */
const nearBest = 1.6;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;

/** Kernels that can take the node, the usual one first; undefined when there is nothing to choose. */
function kernelsFor(node: Node, subject: Subject, device: DeviceType, switches: Switches): readonly AnyKernel[] | undefined {
  const { op, params } = node;
  const { inputs, outputs } = subject;
  const open = (k: AnyKernel, forced: boolean): boolean =>
    device === "gpu"
      ? checkGpu(k as GpuKernel, inputs, params, outputs, switches, gpuDevice(), forced).open
      : check(k as Kernel, inputs, params, outputs, switches, forced).open;
  const all = kernelsOf(op, device);
  const usual = all.find((k) => open(k, false));
  // Scratch outputs do not begin as copies of inputs.
  if (!usual || all.some((k) => k.base !== undefined || "bases" in k)) return undefined;
  const kernels = [usual, ...all.filter((k) => k !== usual && open(k, true))];
  return kernels.length > 1 || usual.tune ? kernels : undefined;
}
const gpuDevice = (): GpuDevice => vulkanBackend().device;
/** Ops of which no kernel offers anything are left out early. */
const choosable = (node: Node, device: DeviceType): boolean => {
  const kernels = kernelsOf(node.op, device);
  return (kernels.length > 1 || kernels[0]?.tune !== undefined) && node.inputs.length > 0 && node.outputs.every((o) => o.size > 0) && node.inputs.every((i) => i.size > 0);
};

/** The search for one bucket. */
class Search {
  readonly wrong: string[] = [];
  tried = 0;
  private readonly seen = new Set<string>();
  private readonly subject: Subject;
  private readonly bench: Bench<AnyKernel>;
  private readonly expired: () => boolean;
  private readonly timer: NonNullable<TuneOptions["timer"]>;
  private want: Float64Array[] | undefined;
  constructor(subject: Subject, bench: Bench<AnyKernel>, expired: () => boolean, timer: NonNullable<TuneOptions["timer"]>) {
    this.subject = subject;
    this.bench = bench;
    this.expired = expired;
    this.timer = timer;
  }

  /** The usual way and, where there is one, a faster one with the ratio of their times. */
  run(kernels: readonly AnyKernel[]): { usual: Way; best: Way; ratio: number } | undefined {
    const usual = this.measure(kernels[0] as AnyKernel, {}, Number.POSITIVE_INFINITY);
    if (!usual) return undefined;
    const ways = [usual];
    for (const k of kernels.slice(1)) {
      const way = this.measure(k, {}, usual.ms);
      if (way) ways.push(way);
    }
    let best = fastest(ways);
    for (const way of ways) {
      if (way.ms > nearBest * best.ms) continue;
      best = fastest([best, this.refine(way)]);
    }
    // Without the time to try all, nothing is said about the others.
    if (best === usual) return this.expired() ? undefined : { usual, best, ratio: 1 };
    const { ratio, wins } = this.duel(usual, best);
    return ratio > leastGain && wins >= leastWins ? { usual, best, ratio } : { usual, best: usual, ratio: 1 };
  }
  /** Changes one parameter after the other, as long as that helps. */
  private refine(start: Way): Way {
    let best = start;
    for (const [name, values] of Object.entries(start.kernel.tune ?? {})) {
      for (const value of values.slice(1)) {
        const way = this.measure(start.kernel, { ...best.choices, [name]: value }, best.ms);
        if (way && way.ms < 0.98 * best.ms) best = way;
      }
    }
    return best;
  }
  /** Undefined for a way that is wrong, does the same as an earlier one, can not be made, or has no time left. */
  private measure(kernel: AnyKernel, choices: Choices, best: number): Way | undefined {
    if (this.expired()) return undefined;
    poison(this.subject);
    const prepared = this.bench.prepare(kernel, choices);
    if (!prepared) return undefined;
    try {
      if (this.seen.has(prepared.work)) return undefined;
      this.seen.add(prepared.work);
      const got = resultsOf(this.subject);
      this.want ??= got;
      const why = difference(this.subject, got, this.want);
      if (why !== undefined) {
        this.wrong.push(`${kernel.name} ${JSON.stringify(choices)}: ${why}`);
        return undefined;
      }
      this.tried++;
      return { kernel, choices, ms: this.time(kernel, choices, prepared, best) };
    } finally {
      prepared.dispose();
    }
  }
  private time(kernel: AnyKernel, choices: Choices, prepared: Prepared, best: number): number {
    const sample = (): number => this.timer(kernel.name, choices, prepared.run);
    const times = [sample()];
    // What is far behind needs no second look.
    if ((times[0] as number) > 4 * best) return times[0] as number;
    const count = Math.max(fewestSamples, Math.min(mostSamples, Math.floor(sampleMs / Math.max(1e-6, times[0] as number))));
    while (times.length < count && !this.expired()) times.push(sample());
    return median(times);
  }
  /** Both take turns, so that a machine whose speed changes favours neither. */
  private duel(a: Way, b: Way): { ratio: number; wins: number } {
    const both = [a, b].map((w) => ({ way: w, prepared: this.bench.prepare(w.kernel, w.choices) as Prepared, times: [] as number[] }));
    try {
      const rounds = Math.max(fewestRounds, Math.min(mostRounds, Math.floor(duelMs / Math.max(1e-6, a.ms + b.ms))));
      for (let round = 0; round < rounds && !(round > 2 && this.expired()); round++) {
        for (const { way, prepared, times } of round % 2 === 0 ? both : [...both].reverse()) times.push(this.timer(way.kernel.name, way.choices, prepared.run));
      }
      const [ours, theirs] = both.map(({ times }) => times) as [number[], number[]];
      const ratios = ours.map((ms, i) => ms / (theirs[i] as number));
      return { ratio: median(ratios), wins: ratios.filter((r) => r > 1).length / ratios.length };
    } finally {
      for (const { prepared } of both) prepared.dispose();
    }
  }
}
const fastest = (ways: readonly Way[]): Way => ways.reduce((a, b) => (b.ms < a.ms ? b : a));

/** Measures what it meets until its time is over. */
export class Tuner {
  readonly rows: TuneRow[] = [];
  private readonly clock: () => number;
  private readonly limit: number;
  private readonly opLimit: number;
  private readonly again: boolean;
  private readonly timer: NonNullable<TuneOptions["timer"]>;
  private readonly met = new Set<string>();
  /** Milliseconds spent on measuring. */
  spent = 0;
  constructor(options: TuneOptions = {}) {
    this.clock = options.clock ?? (() => performance.now());
    this.limit = 1000 * (options.seconds ?? 30);
    this.opLimit = options.opSeconds === undefined ? this.limit / 8 : 1000 * options.opSeconds;
    this.again = options.again ?? false;
    this.timer = options.timer ?? ((_kernel, _choices, run) => run());
  }
  get over(): boolean {
    return this.spent >= this.limit;
  }

  /** Measures the ops of a tape whose buckets are new, and writes the files of the devices that have something to keep. */
  tape(tape: readonly Node[]): void {
    const changed = new Set<DeviceType>();
    for (const node of tape) {
      if (this.over) break;
      const device = node.stream.device.type;
      if (!choosable(node, device)) continue;
      const start = this.clock();
      if (this.node(node, device)) changed.add(device);
      this.spent += this.clock() - start;
    }
    for (const device of changed) tableOf(device).save();
  }
  private node(node: Node, device: DeviceType): boolean {
    const switches = readSwitches();
    const made = subjectOf(node);
    if (!made) return false;
    try {
      const { subject } = made;
      const bucket = bucketOf(node.op, subject.inputs, node.params);
      const key = `${device} ${bucket}`;
      if (this.met.has(key) || (!this.again && tableOf(device).entries.has(bucket))) return false;
      this.met.add(key);
      const kernels = kernelsFor(node, subject, device, switches);
      return kernels !== undefined && this.search(node, subject, device, bucket, kernels, switches);
    } catch (error) {
      // No memory for it, or a device that is gone: the evaluation says so if it concerns it.
      if (switches.debug >= 1) process.stderr.write(`mlx-vk: ${node.op.name} is not tuned: ${(error as Error).message}\n`);
      return false;
    } finally {
      made.release();
    }
  }
  private search(node: Node, subject: Subject, device: DeviceType, bucket: string, kernels: readonly AnyKernel[], switches: Switches): boolean {
    const end = this.clock() + Math.min(this.opLimit, this.limit - this.spent);
    const bench = (device === "gpu" ? new DeviceBench(subject, switches) : new HostBench(subject)) as Bench<AnyKernel>;
    try {
      const search = new Search(subject, bench, () => this.clock() >= end, this.timer);
      const found = search.run(kernels);
      if (!found) return false;
      const { usual, best, ratio } = found;
      const better = best !== usual;
      const values = Object.keys(best.choices).length > 0 ? { values: best.choices } : {};
      tableOf(device).set(bucket, { ...(better ? { kernel: best.kernel.name, ...values } : {}), ratio: Number(ratio.toPrecision(3)), ms: Number(best.ms.toPrecision(3)) });
      const chosen = better ? { kernel: best.kernel.name, values: best.choices } : undefined;
      this.rows.push({ op: node.op.name, bucket, device, usual: usual.kernel.name, ms: usual.ms, chosen, ratio, tried: search.tried, wrong: search.wrong });
      return true;
    } finally {
      bench.dispose();
    }
  }
}

/** The one of `startTuner`. */
let active: Tuner | undefined;
/** The one of MLX_TUNE=1. */
let automatic: Tuner | undefined;
let off = 0;

/** Lets a tuner see all evaluations until the function it returns is called. */
export function startTuner(tuner: Tuner): () => void {
  const outer = active;
  active = tuner;
  return () => {
    active = outer;
  };
}
/** Does work that nothing is measured for. */
export function untuned<R>(work: () => R): R {
  off++;
  try {
    return work();
  } finally {
    off--;
  }
}
/** Measures what is new on a tape, if that is on. */
export function tuneFor(tape: readonly Node[]): void {
  if (off > 0) return;
  if (!active && env("MLX_TUNE") !== "1") return;
  const tuner = active ?? (automatic ??= new Tuner());
  if (!tuner.over) untuned(() => tuner.tape(tape));
}
