/** Writes launches as commands into shared memory: resolves pointers, places buffers, runs or submits the list. */
import { ArrayDesc, type Epoch } from "../core/array.ts";
import { bitsArray, toBfloat16Bits, toFloat16Bits } from "../core/dtype.ts";
import type { Arg, Launch, Step } from "../core/op.ts";
import { Storage, hostMemory } from "../core/storage.ts";
import type { CommandList } from "../backend/wasm/pool.ts";
import type { GpuList, GpuRecorder } from "./record-gpu.ts";
import { type WasmBackend, onHostWrite, wasmBackend } from "../backend/wasm/index.ts";

const listBytes = 1 << 20;
/** Room that the largest single command may need. */
const reserveBytes = 16384;
/** Recycled buffers for lists. They never hold array data, so writing them needs no wait. */
const buffers: number[] = [];

/** A buffer that several launches on the same input share. */
interface SharedScratch {
  readonly desc: ArrayDesc;
  readonly key: string;
  readonly storages: readonly Storage[];
}

/** Commands that run at the same time: launches on the same shared buffers, one behind the other. */
interface Together {
  /** Words where the first command begins and the last one ends. */
  readonly head: number;
  readonly end: number;
  readonly chunks: number;
  /** What they read, and what they write. */
  readonly reads: readonly Storage[];
  readonly writes: readonly Storage[];
}
/** Most chunks that are published at once. */
const mostChunks = 65535;

/** The word behind a command and those that run together with it. */
export function commandEnd(words: Int32Array, at: number): number {
  let end = (words[at + 4] as number) >>> 2;
  for (let i = words[at + 5] as number; i > 0; i--) end = (words[end + 4] as number) >>> 2;
  return end;
}

const storagesOf = (arrays: readonly ArrayDesc[]): Storage[] => arrays.flatMap((d) => d.storage ?? []);

const bits = new DataView(new ArrayBuffer(8));
/** Bits of a constant, as two words. */
export function scalarBits(d: ArrayDesc): [number, number] {
  const value = d.scalar as number;
  bits.setBigInt64(0, 0n, true);
  switch (d.dtype.name) {
    case "float32": case "complex64": bits.setFloat32(0, value, true); break;
    case "float64": bits.setFloat64(0, value, true); break;
    case "bfloat16": bits.setUint16(0, toBfloat16Bits(value), true); break;
    case "float16": bits.setUint16(0, toFloat16Bits(value), true); break;
    case "int64": case "uint64": bits.setBigInt64(0, Number.isFinite(value) ? BigInt.asIntN(64, BigInt(Math.trunc(value))) : 0n, true); break;
    default: bits.setInt32(0, value, true);
  }
  return [bits.getInt32(0, true), bits.getInt32(4, true)];
}

/** Gives a 0-d constant a storage of its own. */
export function storeScalar(d: ArrayDesc): void {
  if (d.storage || d.scalar === undefined) return;
  const backend = wasmBackend();
  if (backend.pool.busy) backend.pool.drain();
  d.attach(new Storage(Math.max(8, bitsArray[d.dtype.name].BYTES_PER_ELEMENT)));
  new Int32Array(backend.memory.memory.buffer, d.address, 2).set(scalarBits(d));
}

/** What a recording that runs again holds on to: its lists, and every buffer they use. */
export interface Kept {
  readonly lists: (CommandList | GpuList)[];
  readonly storages: Storage[];
  /** Storages that lists of the GPU write. */
  readonly written: Set<Storage>;
  /** Why the lists must not run again, if so. */
  refused: string | undefined;
  /** Further work for the end of the recording. */
  after?: (gpu: GpuRecorder) => void;
}

/** Gives the list buffers and storages of a recording back. */
export function releaseKept(kept: Kept): void {
  for (const l of kept.lists.splice(0)) {
    if ("start" in l) buffers.push(l.start);
    else l.backend.releaseRecording(l.list);
  }
  for (const s of kept.storages.splice(0)) s.release();
}

/** Recorders with commands that have not run yet: one, and more while an op's definition is evaluated inside another evaluation. */
const unfinished = new Set<Recorder>();
// Freed blocks are handed out again while commands that use them are still only recorded, so a host write must let those run first.
onHostWrite(() => {
  for (const r of unfinished) r.flush(false);
});

export class Recorder {
  protected readonly backend: WasmBackend = wasmBackend();
  private readonly asynchronous: boolean;
  private readonly kept: Kept | undefined;
  private readonly held = new Set<Storage>();
  /** Those of `held` that began here; the others are read. */
  private readonly made = new Set<Storage>();
  protected words: Int32Array;
  protected floats: Float32Array;
  protected base = 0;
  /** Next free word. */
  protected at = 0;
  protected limit = 0;
  /** First word of the last command. */
  private last = 0;
  private shared: SharedScratch[] = [];
  private together: Together | undefined;
  /** Launches that allow it run together with one before. */
  joins = true;
  /** Epoch of the last list submitted asynchronously. */
  epoch: Epoch | undefined;
  /** Arrays whose work is in the list that is being recorded. */
  private produced: ArrayDesc[] = [];
  commands = 0;

  constructor(asynchronous: boolean, kept?: Kept) {
    this.asynchronous = asynchronous;
    this.kept = kept;
    const buffer = this.backend.memory.memory.buffer;
    this.words = new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
    this.floats = new Float32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
  }
  /** Memory that arrays have given back may be among it, so commands that still use those must have run. */
  private newBuffer(): number {
    hostMemory().quiesce();
    return this.backend.memory.reserve(listBytes);
  }
  protected open(): void {
    this.base = buffers.pop() ?? this.newBuffer();
    this.at = this.base >>> 2;
    this.limit = (this.base + listBytes - reserveBytes) >>> 2;
    this.together = undefined;
    unfinished.add(this);
  }
  /** Fresh storage; a recording that runs again keeps it for itself. */
  storage(bytes: number): Storage {
    const s = new Storage(bytes);
    if (this.kept) {
      s.retain();
      this.held.add(s);
      this.made.add(s);
      this.kept.storages.push(s);
    }
    return s;
  }
  /** True for storages that began in this recording. */
  makes(s: Storage): boolean {
    return this.made.has(s);
  }
  /** A recording that runs again needs the arrays it reads. */
  reads(d: ArrayDesc): void {
    if (!this.kept || !d.storage || this.held.has(d.storage)) return;
    this.held.add(d.storage);
    d.storage.retain();
    this.kept.storages.push(d.storage);
  }
  /** True for storages that this recording keeps, with one reference of its own. */
  holds(s: Storage): boolean {
    return this.kept !== undefined && this.held.has(s);
  }
  produces(d: ArrayDesc): void {
    this.produced.push(d);
  }

  /**
   * Records a launch over these inputs and outputs; scratch buffers come from the allocator and go back at once, since commands run in order. True when it runs together
   * with one before.
   */
  launch(launch: Launch, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): boolean {
    this.touch(inputs, outputs);
    const found = launch.shared ? this.findShared(inputs[0] as ArrayDesc, launch.shared.key) : undefined;
    const scratch: Storage[] = [];
    const sizes = launch.scratch ?? [];
    for (let i = 0; i < sizes.length; i++) {
      const place = launch.shared ? launch.shared.scratch.indexOf(i) : -1;
      const s = found && place >= 0 ? (found.storages[place] as Storage) : this.storage(sizes[i] as number);
      s.retain();
      scratch.push(s);
    }
    const first = found && launch.shared ? launch.shared.steps : 0;
    const before = this.commands;
    for (let i = first; i < launch.steps.length; i++) this.step(launch.steps[i] as Step, inputs, outputs, scratch);
    if (launch.shared && !found) this.keepShared(inputs[0] as ArrayDesc, launch.shared.key, launch.shared.scratch.map((i) => scratch[i] as Storage));
    const joined = launch.together === true && this.joins && this.commands > before && this.join(found !== undefined, [...storagesOf(inputs), ...scratch], storagesOf(outputs));
    for (const s of scratch) s.release();
    return joined;
  }
  /**
   * The last command, which reads and writes these storages, joins those right before it that do not concern it. All that they use must still be alive: then nothing that was
   * made since lies in the same memory.
   */
  private join(found: boolean, reads: readonly Storage[], writes: readonly Storage[]): boolean {
    const { words, at } = this;
    const last = this.last;
    const before = this.together;
    const chunks = words[last + 1] as number;
    const apart = (a: readonly Storage[], b: readonly Storage[]): boolean => a.every((s) => !b.includes(s));
    const joined = found && before !== undefined && before.end === last && before.chunks + chunks <= mostChunks
      && before.reads.every((s) => s.refs > 0) && before.writes.every((s) => s.refs > 0)
      && apart(writes, before.reads) && apart(writes, before.writes) && apart(reads, before.writes);
    if (joined) words[before.head + 5] = (words[before.head + 5] as number) + 1;
    this.together = joined
      ? { head: before.head, end: at, chunks: before.chunks + chunks, reads: [...before.reads, ...reads], writes: [...before.writes, ...writes] }
      : { head: last, end: at, chunks, reads, writes };
    return joined;
  }

  /** Before a launch: what it reads is right in host memory, what it writes will be. */
  protected touch(inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): void {
    for (const d of inputs) if (d.storage && !d.storage.hostValid) d.storage.needHost();
    for (const d of outputs) (d.storage as Storage).wroteHost();
  }
  /** Writes the address of a byte of a storage. */
  protected point(at: number, storage: Storage, bytes: number): void {
    this.words[at] = storage.address + bytes;
  }
  /** Writes the address of a word of the list itself. */
  protected local(at: number, word: number): void {
    this.words[at] = word * 4;
  }
  /** Writes the bits of a constant. */
  protected constant(at: number, d: ArrayDesc): void {
    const [lo, hi] = scalarBits(d);
    this.words[at] = lo;
    this.words[at + 1] = hi;
  }
  /** Another descriptor of a 0-d constant. */
  constantLike(d: ArrayDesc): ArrayDesc {
    return ArrayDesc.constant(d.scalar as number, d.dtype);
  }

  /**
   * Appends commands that were written before. `place` finishes them where they lie now: it gets the number of the piece and its first word. A piece that does not fit
   * behind the others begins the next list.
   */
  append(pieces: readonly Int32Array[], place: (piece: number, at: number, words: Int32Array) => void): void {
    pieces.forEach((piece, i) => {
      if (this.base === 0) this.open();
      else if (this.at + piece.length >= this.limit) this.flush(false);
      if (this.base === 0) this.open();
      this.words.set(piece, this.at);
      place(i, this.at, this.words);
      this.at += piece.length;
    });
  }

  private step(step: Step, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[], scratch: readonly Storage[]): void {
    if (step.units <= 0) return;
    const index = this.backend.pool.modules.indexOf(step.entry);
    if (this.base === 0) this.open();
    else if (this.at >= this.limit) this.flush(false);
    if (this.base === 0) this.open();
    const { words, floats, at } = this;
    const { args } = step;
    const grain = Math.max(1, step.grain, Math.ceil(step.units / mostChunks));
    words[at] = index;
    words[at + 1] = Math.ceil(step.units / grain);
    words[at + 2] = step.units;
    words[at + 3] = grain;
    words[at + 5] = 0;
    this.last = at;
    let tail = at + 6 + args.length;
    tail += tail & 1;
    for (let i = 0; i < args.length; i++) {
      const arg = args[i] as Arg;
      const to = at + 6 + i;
      if (typeof arg === "number") words[to] = arg;
      else if ("f32" in arg) floats[to] = arg.f32;
      else if (arg.of === "scratch") this.point(to, scratch[arg.index] as Storage, arg.bytes);
      else if (arg.of === "word") {
        words[tail] = arg.index;
        this.local(to, tail);
        tail += 2;
      } else {
        const d = (arg.of === "input" ? inputs[arg.index] : outputs[arg.index]) as ArrayDesc;
        if (d.storage) this.point(to, d.storage, d.offset * d.dtype.size + arg.bytes);
        else {
          this.constant(tail, d);
          this.local(to, tail);
          tail += 2;
        }
      }
    }
    this.local(at + 4, tail);
    this.at = tail;
    this.commands++;
  }

  private findShared(desc: ArrayDesc, key: string): SharedScratch | undefined {
    for (const s of this.shared) if (s.desc === desc && s.key === key) return s;
    return undefined;
  }
  private keepShared(desc: ArrayDesc, key: string, storages: Storage[]): void {
    for (const s of storages) s.retain();
    this.shared.push({ desc, key, storages });
    if (this.shared.length > 2) this.dropShared(1);
  }
  protected dropShared(count = this.shared.length): void {
    for (const s of this.shared.splice(0, count)) for (const x of s.storages) x.release();
  }

  /** Runs (or submits) what was recorded. */
  flush(last: boolean): void {
    if (last) this.dropShared();
    if (this.base === 0) return;
    const list = { start: this.base, end: this.at * 4 };
    const { base, produced } = this;
    unfinished.delete(this);
    this.base = 0;
    this.produced = [];
    if (list.start === list.end) {
      buffers.push(base);
      return;
    }
    if (this.asynchronous) {
      const epoch = this.backend.pool.submit(list, () => buffers.push(base));
      for (const d of produced) d.epoch = epoch;
      this.epoch = epoch;
      return;
    }
    try {
      this.backend.pool.run(list);
    } catch (error) {
      const failed: Epoch = {
        done: true,
        wait: () => {
          throw error;
        },
        promise: () => Promise.reject(error),
      };
      for (const d of produced) d.epoch = failed;
      throw error;
    } finally {
      if (this.kept) this.kept.lists.push(list);
      else buffers.push(base);
    }
  }
}
