/** Recording without memory: the commands of a plan for the CPU, and what was done for which op. */
import type { ArrayDesc, View } from "../core/array.ts";
import type { Node } from "../core/op.ts";
import type { Storage } from "../core/storage.ts";
import { PlanMemory, type Slot } from "./plan-memory.ts";
import { Recorder } from "./record.ts";

/** An array that an item of a plan reads or writes. */
export interface Operand {
  readonly view: Pick<View, "shape" | "dtype" | "contiguous">;
  /** Undefined for a 0-d constant. */
  readonly slot: Slot | undefined;
  /** That are moved, if each of its elements is touched once. */
  readonly bytes: number;
}
/** One kernel, view or copy of a plan. */
export interface Item {
  readonly op: string;
  /** Ops that are computed inside it. */
  readonly fused: readonly string[];
  readonly kernel: string;
  readonly refused: readonly string[];
  readonly reads: readonly Operand[];
  readonly writes: readonly Operand[];
  /** Commands of the list. */
  readonly commands: number;
}

/** Bytes of the elements of a view: what is repeated counts once. */
const bytesOf = (d: View): number => d.shape.reduce((n, size, i) => (d.strides[i] === 0 ? n : n * size), d.dtype.size);

/** Arrays that a node reads together with the nodes absorbed in it. */
function leavesOf(node: Node, absorbed: readonly Node[]): ArrayDesc[] {
  const inside = new Set(absorbed.flatMap((n) => n.outputs));
  return [...new Set([node, ...absorbed].flatMap((n) => n.inputs))].filter((d) => !inside.has(d));
}

/** Writes down what the scheduler does for each op. */
export class PlanLog {
  readonly items: Item[] = [];
  private readonly memory: PlanMemory;
  private readonly commands: () => number;
  private before = 0;
  constructor(memory: PlanMemory, commands: () => number) {
    this.memory = memory;
    this.commands = commands;
  }
  private operand(d: ArrayDesc, bytes: number): Operand {
    return { view: { shape: d.shape, dtype: d.dtype, contiguous: d.contiguous }, slot: d.storage && this.memory.of(d.storage), bytes: d.storage ? bytes : 0 };
  }
  private add(what: Pick<Item, "op" | "fused" | "kernel" | "refused">, from: readonly ArrayDesc[], to: readonly ArrayDesc[], base?: ArrayDesc): void {
    const commands = this.commands() - this.before;
    this.before += commands;
    // A definition in other ops has moved nothing itself, nor has a view. What is updated in place is written where the update goes.
    const inPlace = base !== undefined && base.storage === to[0]?.storage;
    const update = from.find((d) => d !== base);
    const moved = (d: ArrayDesc): number => (commands === 0 || (inPlace && d === base) ? 0 : bytesOf(inPlace && d === to[0] && update ? update : d));
    this.items.push({ ...what, reads: from.map((d) => this.operand(d, moved(d))), writes: to.map((d) => this.operand(d, moved(d))), commands });
  }
  recorded(node: Node, kernel: string, refused: readonly string[], absorbed: readonly Node[]): void {
    // Stand-ins of function transforms say nothing.
    if (node.op.name === "tracer") return;
    const stored = absorbed.flatMap((n) => n.outputs).filter((o) => o.storage !== undefined);
    const { base } = node.op.kernels[0] ?? {};
    const what = { op: node.op.name, fused: absorbed.map((n) => n.op.name), kernel, refused: [...refused] };
    this.add(what, leavesOf(node, absorbed), [...node.outputs, ...stored], base === undefined ? undefined : node.inputs[base]);
  }
  copied(from: ArrayDesc, to: ArrayDesc, kernel: string): void {
    this.add({ op: "copy", fused: [], kernel, refused: [] }, [from], [to]);
  }
}

/** A word of the commands that depends on where things lie. */
export interface Relocation {
  readonly at: number;
  /** Undefined: the list itself. */
  readonly slot: Slot | undefined;
  readonly bytes: number;
}
/** Two words that get the bits of an input that is a 0-d constant. */
export interface ScalarPlace {
  readonly at: number;
  readonly input: number;
}

const room = 4096;

export class PlanRecorder extends Recorder {
  /** What is recorded for the GPU, if anything is. */
  gpu: { readonly commands: number } | undefined;
  private readonly recorded = (): number => this.commands + (this.gpu?.commands ?? 0);
  readonly memory: PlanMemory = new PlanMemory(this.recorded);
  readonly log = new PlanLog(this.memory, this.recorded);
  readonly relocations: Relocation[] = [];
  readonly scalars: ScalarPlace[] = [];
  /** Numbers of inputs that are 0-d constants. */
  readonly constants = new Map<ArrayDesc, number>();

  constructor() {
    super(false);
    this.grow(2 * room);
  }
  private grow(length: number): void {
    const words = new Int32Array(length);
    if (this.at > 0) words.set(this.words.subarray(0, this.at));
    this.words = words;
    this.floats = new Float32Array(words.buffer);
    this.limit = length - room;
  }
  /** The words written so far. */
  get written(): Int32Array {
    return this.words.slice(0, this.at);
  }

  protected override open(): void {
    this.base = 1;
  }
  override storage(bytes: number): Storage {
    return this.memory.make(bytes);
  }
  /** Arrays of an op's definition stay as they are, for the next run. */
  override reads(d: ArrayDesc): void {
    if (d.storage) this.memory.of(d.storage);
  }
  override produces(): void {}
  protected override touch(_inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): void {
    for (const d of outputs) this.memory.of(d.storage as Storage).written = true;
  }
  protected override point(at: number, storage: Storage, bytes: number): void {
    const slot = this.memory.of(storage);
    this.relocations.push({ at, slot, bytes: bytes - slot.start });
  }
  protected override local(at: number, word: number): void {
    this.words[at] = word * 4;
    this.relocations.push({ at, slot: undefined, bytes: word * 4 });
  }
  protected override constant(at: number, d: ArrayDesc): void {
    const input = this.constants.get(d);
    if (input === undefined) super.constant(at, d);
    else this.scalars.push({ at, input });
  }
  override constantLike(d: ArrayDesc): ArrayDesc {
    const copy = super.constantLike(d);
    const input = this.constants.get(d);
    if (input !== undefined) this.constants.set(copy, input);
    return copy;
  }
  /** Nothing runs: a full buffer grows. */
  override flush(last: boolean): void {
    if (last) this.dropShared();
    else this.grow(2 * this.words.length);
  }
}
