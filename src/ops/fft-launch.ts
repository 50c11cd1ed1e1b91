/** Launches of assembly/fft.ts: a plan as passes over lines. */
import { type Launch, type Pointer, type Step, f32, input, scratch } from "../core/op.ts";
import type { Plan } from "./fft-plan.ts";

/** One side of a transform: `outer` blocks of `stored` elements of lines that lie `inner` side by side. */
export interface Side {
  readonly at: Pointer;
  /** Bytes of an element: 4 for real, 8 for complex. */
  readonly bytes: number;
  /** Elements per line in memory. */
  readonly stored: number;
  /** Positions that exist: beyond them an input is 0 and an output is dropped. */
  readonly limit: number;
  /** The second half of the line is the conjugate of the first, which alone is stored. */
  readonly hermitian?: boolean;
  /** Real and imaginary parts change places. */
  readonly swap?: boolean;
  /** They change places before the factors of the table, too (outputs). */
  readonly swapBefore?: boolean;
  /** Factors by position. */
  readonly table?: Pointer;
}

const flag = { realIn: 1, hermitianIn: 2, wholeIn: 4, swapIn: 8, swapBefore: 16, swapAfter: 32, realOut: 64, wholeOut: 128 } as const;

/** Byte and position steps of one side of a pass. */
interface Walk {
  readonly outer: number;
  readonly lane: number;
  readonly step: number;
  readonly lanePosition: number;
  readonly stepPosition: number;
}
interface Pass {
  readonly plan: Plan & { readonly kind: "direct" };
  readonly lines: number;
  readonly inner: number;
  readonly stages: Pointer;
  readonly scale: number;
  readonly from: Side;
  readonly fromWalk: Walk;
  readonly to: Side;
  readonly toWalk: Walk;
  /** Length of the whole transform. */
  readonly total: number;
}

function passStep({ plan, lines, inner, stages, scale, from, fromWalk, to, toWalk, total }: Pass): Step {
  let flags = 0;
  if (from.hermitian) flags |= flag.hermitianIn;
  else if (from.bytes === 4) flags |= flag.realIn;
  if (from.limit === total) flags |= flag.wholeIn;
  if (from.swap) flags |= flag.swapIn;
  if (to.swapBefore) flags |= flag.swapBefore;
  if (to.swap) flags |= flag.swapAfter;
  if (to.bytes === 4) flags |= flag.realOut;
  if (to.limit === total) flags |= flag.wholeOut;
  const words = (w: Walk, limit: number): number[] => [w.outer, w.lane, w.step, w.lanePosition, w.stepPosition, limit];
  const args = [
    from.at, to.at, plan.n, lines, inner, stages, plan.radices.length, flags, f32(scale), from.table ?? 0, to.table ?? 0,
    ...words(fromWalk, from.limit), ...words(toWalk, to.limit), from.limit, ...plan.radices,
  ];
  // Four lines take about 2 ns per element and stage.
  const nanoseconds = 2 * plan.n * (2 + plan.radices.reduce((t, r) => t + (r > 5 ? r : 2), 0));
  return { entry: "fft/lines", args, units: Math.ceil(lines / 4), grain: Math.max(1, Math.round(20000 / nanoseconds)) };
}

class Passes {
  readonly steps: Step[] = [];
  readonly scratch: number[] = [];
  private buffer(bytes: number): Pointer {
    return scratch(this.scratch.push(bytes) - 1);
  }
  /** Adds the passes of `outer` blocks of `inner` transforms; `table` is the input that holds the plan's first table. Only direct plans take inner > 1. */
  add(plan: Plan, outer: number, inner: number, from: Side, to: Side, table: number, scale: number): void {
    if (plan.kind === "direct") this.direct(plan, outer, inner, from, to, table, scale);
    else if (plan.kind === "split") this.split(plan, outer, from, to, table, scale);
    else if (plan.kind === "chirp") this.chirp(plan, outer, from, to, table, scale);
    else this.packed(plan, outer, from, to, table, scale);
  }
  private direct(plan: Plan & { kind: "direct" }, outer: number, inner: number, from: Side, to: Side, table: number, scale: number): void {
    const walk = (s: Side): Walk => ({ outer: s.stored * inner * s.bytes, lane: s.bytes, step: inner * s.bytes, lanePosition: 0, stepPosition: 1 });
    this.steps.push(passStep({ plan, lines: outer * inner, inner, stages: input(table), scale, from, fromWalk: walk(from), to, toWalk: walk(to), total: plan.n }));
  }
  /** x[j1 b + j2]: transforms over j1 (length a), factors, then transforms over j2 (length b), whose result k2 belongs to position k1 + a k2. */
  private split(plan: Plan & { kind: "split" }, outer: number, from: Side, to: Side, table: number, scale: number): void {
    const { first, second, n } = plan;
    if (first.kind !== "direct" || second.kind !== "direct") throw new Error("the factors of a split plan must be direct");
    const [a, b] = [first.n, second.n];
    const between: Side = { at: this.buffer(8 * n * outer), bytes: 8, stored: n, limit: n };
    const columns = (s: Side): Walk => ({ outer: s.stored * s.bytes, lane: s.bytes, step: b * s.bytes, lanePosition: 1, stepPosition: b });
    const factored = { ...between, table: input(table + 1) };
    this.steps.push(passStep({ plan: first, lines: outer * b, inner: b, stages: input(table), scale: 1, from, fromWalk: columns(from), to: factored, toWalk: columns(between), total: n }));
    const rows: Walk = { outer: 8 * n, lane: 8 * b, step: 8, lanePosition: b, stepPosition: 1 };
    const spread: Walk = { outer: to.stored * to.bytes, lane: to.bytes, step: a * to.bytes, lanePosition: 1, stepPosition: a };
    this.steps.push(passStep({ plan: second, lines: outer * a, inner: a, stages: input(table + 2), scale, from: between, fromWalk: rows, to, toWalk: spread, total: n }));
  }
  /** Neighbouring reals as parts of complex numbers: one pass more, over half as many elements. */
  private packed({ inner }: Plan & { kind: "packed" }, outer: number, from: Side, to: Side, table: number, scale: number): void {
    const h = inner.n;
    const half = { bytes: 8, stored: h, limit: h };
    const between: Side = { ...half, at: this.buffer(8 * h * outer) };
    const chunks = Math.ceil(h / mixChunk);
    const grain = Math.max(1, Math.round(20000 / Math.min(h, mixChunk)));
    const mix = (entry: string, src: Pointer, dst: Pointer, factor: number): void => {
      this.steps.push({ entry, args: [src, dst, h, input(table), f32(factor), mixChunk, chunks], units: outer * chunks, grain });
    };
    if (from.hermitian) {
      mix("fft/packed", from.at, between.at, scale);
      this.add(inner, outer, 1, { ...between, swap: true }, { ...half, at: to.at, swap: true }, table + 1, 1);
    } else {
      this.add(inner, outer, 1, { ...half, at: from.at }, between, table + 1, 1);
      mix("fft/spectra", between.at, to.at, scale);
    }
  }
  /** Convolution with the chirp: a transform of the padded product, factors, and an inverse transform with the parts exchanged. */
  private chirp({ n, inner }: Plan & { kind: "chirp" }, outer: number, from: Side, to: Side, table: number, scale: number): void {
    const between: Side = { at: this.buffer(8 * inner.n * outer), bytes: 8, stored: inner.n, limit: inner.n };
    const first = table + 2;
    // The Hermitian symmetry is that of length n.
    this.add(inner, outer, 1, { ...from, limit: n, table: input(table) }, { ...between, table: input(table + 1) }, first, 1);
    this.add(inner, outer, 1, { ...between, swap: true }, { ...to, swapBefore: true, table: input(table) }, first, scale);
  }
}

/** Elements of a chunk of the steps between real and half-length lines. */
const mixChunk = 4096;

/** Work of `outer` blocks of `inner` transforms. Input 0 is the data, the tables follow. */
export function launchFft(plan: Plan, outer: number, inner: number, from: Side, to: Side, scale: number): Launch {
  const passes = new Passes();
  passes.add(plan, outer, inner, from, to, 1, scale);
  return { steps: passes.steps, scratch: passes.scratch };
}
