/** Plans for the GPU: dispatches recorded without memory, encoded once as a command stream with its barriers, and appended with the addresses of a run. */
import type { ArrayDesc } from "../core/array.ts";
import type { GpuLaunch, GpuPointer, GpuStep } from "../core/gpu.ts";
import type { Storage } from "../core/storage.ts";
import { CommandStream, type Range } from "../backend/vulkan/commands.ts";
import { type Placed, pipelineOf, pushBytesOf, wordBytes } from "../backend/vulkan/encode.ts";
import type { VulkanBackend } from "../backend/vulkan/index.ts";
import type { Allocation } from "../backend/vulkan/memory.ts";
import type { PlanMemory, Slot } from "./plan-memory.ts";
import type { ScalarPlace } from "./plan-record.ts";
import { scalarBits } from "./record.ts";
import { GpuRecorder } from "./record-gpu.ts";

/** Where an operand of a dispatch lies: in a slot, or among the words that travel with the plan. */
interface Place {
  readonly slot: Slot | undefined;
  readonly bytes: number;
}
interface Dispatch {
  readonly pipeline: number;
  readonly groups: readonly [number, number, number];
  readonly operands: readonly { readonly place: Place; readonly access: GpuPointer["access"] }[];
  /** Push constants behind the addresses. */
  readonly words: readonly number[];
  readonly name: string;
}
/** A 0-d constant that gets memory of its own. */
interface Constant {
  readonly slot: Slot;
  readonly bits: readonly [number, number];
  /** The input that it is. */
  readonly input: number | undefined;
}

export class GpuPlanRecorder extends GpuRecorder {
  readonly recorded: (Dispatch | Constant)[] = [];
  /** Words that kernels read: tables and 0-d constants. */
  readonly table: number[] = [];
  readonly scalars: ScalarPlace[] = [];
  private readonly memory: PlanMemory;
  private readonly inputs: ReadonlyMap<ArrayDesc, number>;
  /** `inputs`: numbers of those that are 0-d constants. */
  constructor(memory: PlanMemory, inputs: ReadonlyMap<ArrayDesc, number>) {
    super();
    this.memory = memory;
    this.inputs = inputs;
  }
  override storage(bytes: number): Storage {
    return this.memory.make(bytes);
  }
  override produces(): void {}

  private words(words: readonly number[]): Place {
    const bytes = 4 * this.table.length;
    for (const w of words) this.table.push(w >>> 0);
    while (4 * this.table.length < bytes + wordBytes(words.length)) this.table.push(0);
    return { slot: undefined, bytes };
  }
  private constant(d: ArrayDesc, bytes: number): Place {
    const place = this.words(scalarBits(d));
    const input = this.inputs.get(d);
    if (input !== undefined) this.scalars.push({ at: place.bytes / 4, input });
    return { slot: undefined, bytes: place.bytes + bytes };
  }
  override launch(launch: GpuLaunch, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[], name: string): void {
    const scratch = (launch.scratch ?? []).map((n) => {
      const s = this.memory.make(Math.max(4, n));
      s.retain();
      return s;
    });
    const place = (p: GpuPointer): Place => {
      if (p.of === "scratch") return { slot: this.memory.of(scratch[p.index] as Storage), bytes: p.bytes };
      const d = (p.of === "input" ? inputs : outputs)[p.index] as ArrayDesc;
      if (!d.storage) return this.constant(d, p.bytes);
      const slot = this.memory.of(d.storage);
      return { slot, bytes: d.offset * d.dtype.size + p.bytes - slot.start };
    };
    for (const step of launch.steps) if (step.groups.every((n) => n > 0)) this.dispatch(step, place, name);
    for (const s of scratch) s.release();
    for (const d of outputs) this.memory.of(d.storage as Storage).written = true;
  }
  private dispatch(step: GpuStep, place: (p: GpuPointer) => Place, name: string): void {
    const operands: Dispatch["operands"][number][] = step.buffers.map((p) => ({ place: place(p), access: p.access }));
    if (step.table) operands.push({ place: this.words(step.table), access: "read" });
    this.recorded.push({ pipeline: pipelineOf(this.backend.pipelines, step, pushBytesOf(step)), groups: step.groups, operands, words: step.words, name });
    this.commands++;
  }
  override storeConstant(d: ArrayDesc): void {
    if (d.storage || d.scalar === undefined) return;
    const bits = scalarBits(d);
    const input = this.inputs.get(d);
    const storage = this.storage(8);
    d.attach(storage);
    const slot = this.memory.of(storage);
    slot.written = true;
    this.recorded.push({ slot, bits, input });
    this.commands++;
  }
}

/** Commands for the GPU, with the places where addresses go. */
export interface GpuPlan {
  readonly backend: VulkanBackend;
  readonly stream: Uint32Array;
  readonly dispatches: number;
  /** Pairs of words that get an address: that of a base plus `bytes`. */
  readonly at: readonly number[];
  readonly of: readonly number[];
  readonly bytes: readonly number[];
  /** Words that get a buffer, behind them its offset as two words; the base, and bytes behind its first. */
  readonly buffers: readonly { readonly at: number; readonly of: number; readonly bytes: number }[];
  /** Words of the stream, and of the table, that get the bits of inputs which are 0-d constants. */
  readonly streamScalars: readonly ScalarPlace[];
  readonly table: number[];
  readonly tableScalars: readonly ScalarPlace[];
  /** Bases that are read, and those that are written, by kernels; those that are written by updates. */
  readonly reads: readonly number[];
  readonly writes: readonly number[];
  readonly updates: readonly number[];
}

/** The range of a slot in a stream whose buffers are bases. */
function rangeOf(slot: Slot | undefined, base: number): Range {
  if (slot?.kind === "temporary") return { buffer: base, offset: slot.offset, bytes: slot.bytes };
  return { buffer: base, offset: 0, bytes: slot?.bytes ?? 1 };
}

/** Encodes what was recorded. `baseOf` numbers the places that addresses count from; the words have that of undefined. */
export function encodePlan(recorder: GpuPlanRecorder, baseOf: (slot: Slot | undefined) => number): GpuPlan {
  // Barriers between the commands of the plan come from ranges in which every base is a buffer of its own.
  const stream = new CommandStream({ ordered: false });
  const plan = { at: [] as number[], of: [] as number[], bytes: [] as number[], buffers: [] as GpuPlan["buffers"][number][], streamScalars: [] as ScalarPlace[] };
  const [reads, writes, updates] = [new Set<number>(), new Set<number>(), new Set<number>()];
  const inside = (slot: Slot | undefined): number => (slot?.kind === "temporary" ? slot.offset : 0);
  for (const each of recorder.recorded) {
    if ("bits" in each) {
      const of = baseOf(each.slot);
      stream.update({ ...rangeOf(each.slot, of), bytes: 8 }, each.bits.map((w) => w >>> 0));
      // code, buffer, offset (2 words), count, data
      const end = stream.length;
      plan.buffers.push({ at: end - 6, of, bytes: inside(each.slot) });
      if (each.input !== undefined) plan.streamScalars.push({ at: end - 2, input: each.input });
      updates.add(of);
      continue;
    }
    const ranges = each.operands.map(({ place, access }) => ({ access, of: baseOf(place.slot), range: rangeOf(place.slot, baseOf(place.slot)) }));
    const read = ranges.filter((r) => r.access !== "write");
    const written = ranges.filter((r) => r.access !== "read");
    for (const r of read) reads.add(r.of);
    for (const r of written) writes.add(r.of);
    const push = [...each.operands.flatMap(() => [0, 0]), ...each.words];
    stream.dispatch(each.pipeline, each.groups, push, read.map((r) => r.range), written.map((r) => r.range), each.name);
    const start = stream.length - push.length;
    each.operands.forEach(({ place }, i) => {
      plan.at.push(start + 2 * i);
      plan.of.push((ranges[i] as { of: number }).of);
      plan.bytes.push(place.bytes + inside(place.slot));
    });
  }
  return {
    ...plan, backend: recorder.backend, stream: stream.words.slice(0, stream.length), dispatches: recorder.recorded.filter((r) => !("bits" in r)).length,
    table: recorder.table, tableScalars: recorder.scalars, reads: [...reads], writes: [...writes], updates: [...updates],
  };
}

const whole = (m: Allocation): Range => ({ buffer: m.buffer, offset: m.offset, bytes: m.bytes });
const addressOf = ({ memory, bytes }: Placed): number => memory.low + memory.high * 2 ** 32 + bytes;

function putScalars(words: { [i: number]: number }, start: number, places: readonly ScalarPlace[], inputs: readonly ArrayDesc[]): void {
  for (const { at, input } of places) {
    const [lo, hi] = scalarBits(inputs[input] as ArrayDesc);
    words[start + at] = lo >>> 0;
    words[start + at + 1] = hi >>> 0;
  }
}

/** Appends the commands of a plan to the list that is being recorded. `bases`: by number, with an empty place 0 for the plan's own words. Returns the number of dispatches. */
export function appendPlan(plan: GpuPlan, bases: (Placed | undefined)[], inputs: readonly ArrayDesc[]): number {
  putScalars(plan.table, 0, plan.tableScalars, inputs);
  return plan.backend.append(plan.table, plan.dispatches, (stream, table) => {
    bases[0] = table;
    const range = (n: number): Range => whole((bases[n] as Placed).memory);
    const start = stream.append(plan.stream, plan.reads.map(range), plan.writes.map(range), plan.updates.map(range), "plan");
    const { words } = stream;
    plan.at.forEach((at, i) => {
      const address = addressOf(bases[plan.of[i] as number] as Placed) + (plan.bytes[i] as number);
      words[start + at] = address % 2 ** 32;
      words[start + at + 1] = Math.floor(address / 2 ** 32);
    });
    for (const { at, of, bytes } of plan.buffers) {
      const { memory, bytes: first } = bases[of] as Placed;
      const offset = memory.offset + first + bytes;
      words[start + at] = memory.buffer;
      words[start + at + 1] = offset % 2 ** 32;
      words[start + at + 2] = Math.floor(offset / 2 ** 32);
    }
    putScalars(words, start, plan.streamScalars, inputs);
  });
}
