/** Array descriptors (the graph's side) and `MxArray` (the user's handle). */
import { type Dtype, bitsArray } from "./dtype.ts";
import { MxError } from "./error.ts";
import type { Node } from "./op.ts";
import { type Shape, isContiguous, rowStrides, sizeOf } from "./shape.ts";
import { noteSizes, onesCount } from "./sizes.ts";
import { Storage, hostMemory } from "./storage.ts";

/** What shape inference sees. */
export interface Aval {
  readonly shape: Shape;
  readonly dtype: Dtype;
}
/** What a launch sees. Strides and offset count elements. */
export interface View extends Aval {
  readonly strides: Shape;
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
  /** Row-major without gaps. */
  readonly contiguous: boolean;
}

export type Status = "unscheduled" | "evaluated" | "available";

/** A submitted list of work: what its outputs wait for. */
export interface Epoch {
  /** True when the work is over, well or not. */
  readonly done: boolean;
  /** Blocks until done; throws the list's error. */
  wait(): void;
  /** Settles when done, without blocking. */
  promise(): Promise<void>;
}

/** Sizes of dimensions are 32-bit integers, as in MLX: kernels count with them. */
const maxDimension = 2 ** 31 - 1;
function requireDimensions(shape: Shape): void {
  for (const d of shape) if (d > maxDimension) throw new MxError(`[array] a dimension is outside the supported range, at most ${maxDimension}, got ${d}`);
}

/** The graph side of an array. Nodes point at descriptors, never at handles. */
export class ArrayDesc implements View {
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly size: number;
  strides: Shape;
  offset = 0;
  contiguous = true;
  storage: Storage | undefined = undefined;
  /** The op that makes this array; dropped once its work is submitted. */
  node: Node | undefined = undefined;
  /** The work in flight that writes this array. */
  epoch: Epoch | undefined = undefined;
  /** Value of a 0-d constant that has no storage yet. */
  scalar: number | undefined = undefined;
  /** Open user handles. */
  handles = 0;
  /** Unscheduled nodes that read this array. */
  consumers = 0;
  /** Estimate of the bytes that have to be computed for this array, its own included (schedule/flush.ts). */
  pending = 0;
  /** Made while a function transform was at work: worth keeping once computed (schedule/flush.ts). */
  lasting = false;
  /** Stamp of the last graph walk that met this descriptor. */
  mark = 0;
  /** For schedule/plan.ts, while it groups a tape. */
  readers = 0;
  /** True while an open function transform records what is computed from this array (core/trace.ts). */
  traced = false;

  private constructor(shape: Shape, dtype: Dtype) {
    this.shape = shape;
    this.dtype = dtype;
    this.size = sizeOf(shape);
    if (this.size > maxDimension) requireDimensions(shape);
    this.strides = rowStrides(shape);
  }
  static lazy(shape: Shape, dtype: Dtype): ArrayDesc {
    return new ArrayDesc(shape, dtype);
  }
  /** A 0-d constant. */
  static constant(value: number, dtype: Dtype): ArrayDesc {
    const d = new ArrayDesc([], dtype);
    d.scalar = value;
    return d;
  }
  /** A contiguous array over fresh storage whose bytes the caller fills. Waits for work in flight that could touch the memory. */
  static fresh(shape: Shape, dtype: Dtype): ArrayDesc {
    const d = new ArrayDesc(shape, dtype);
    hostMemory().quiesce();
    d.attach(new Storage(d.size * dtype.size));
    return d;
  }
  get status(): Status {
    if (!this.storage && this.scalar === undefined) return "unscheduled";
    return this.epoch && !this.epoch.done ? "evaluated" : "available";
  }
  /** Byte address of the first element. */
  get address(): number {
    return (this.storage as Storage).address + this.offset * this.dtype.size;
  }
  attach(storage: Storage): void {
    storage.retain();
    this.storage = storage;
  }
  /** Places this array in a storage as a view. */
  place(storage: Storage, strides: Shape, offset: number): void {
    this.attach(storage);
    this.strides = strides;
    this.offset = offset;
    this.contiguous = isContiguous(this.shape, strides);
  }
}

/** Gives back what a descriptor holds when nothing can use it any more, and follows its inputs (without recursion: graphs are deep). */
export function releaseDesc(desc: ArrayDesc): void {
  const stack = [desc];
  for (let d = stack.pop(); d; d = stack.pop()) {
    if (d.handles > 0 || d.consumers > 0) continue;
    const { storage, node } = d;
    if (storage) {
      d.storage = undefined;
      storage.release();
    }
    if (!node) continue;
    if (node.outputs.some((o) => o.handles > 0 || o.consumers > 0)) continue;
    for (const o of node.outputs) o.node = undefined;
    for (const i of node.inputs) if (--i.consumers === 0) stack.push(i);
  }
}

/** What `core/` needs of the scheduler; installed by schedule/run.ts. */
export interface Evaluator {
  evaluate(targets: readonly ArrayDesc[]): void;
}
let evaluator: Evaluator | undefined;
export const installEvaluator = (e: Evaluator): void => {
  evaluator = e;
};
/** Evaluates and waits, so that the bytes of `desc` can be read. */
export function materialize(desc: ArrayDesc): void {
  if (!desc.storage) {
    if (!evaluator) throw new Error("no scheduler is loaded");
    evaluator.evaluate([desc]);
  }
  desc.epoch?.wait();
  desc.storage?.needHost();
}

const collected = new FinalizationRegistry<{ desc: ArrayDesc | undefined }>((cell) => closeCell(cell));
interface Cell {
  desc: ArrayDesc | undefined;
}
let wrappers = 0;
function closeCell(cell: Cell): void {
  const d = cell.desc;
  if (!d) return;
  cell.desc = undefined;
  wrappers--;
  d.handles--;
  releaseDesc(d);
}
/** Number of array handles that are open. */
export const getWrappersCount = (): number => wrappers;

/** Open scopes of `tidy`, innermost last. Each collects the handles made inside it. */
const scopes: MxArray[][] = [];
export const openScope = (): number => scopes.push([]);
export const inScope = (): boolean => scopes.length > 0;
/** Ends the innermost scope: handles in `keep` pass to the scope around it, all others are closed. */
export function closeScope(keep: ReadonlySet<MxArray>): void {
  const made = scopes.pop() ?? [];
  const outer = scopes[scopes.length - 1];
  for (const a of made) {
    if (!keep.has(a)) a.dispose();
    else if (outer) outer.push(a);
    else a.watch();
  }
}

/** Runs `f` as if no scope were open: handles that it makes outlive those that are. */
export function unscoped<T>(f: () => T): T {
  const open = scopes.splice(0);
  try {
    return f();
  } finally {
    scopes.push(...open);
  }
}

/** User handle of an array. Exported as `array`; ops/methods.ts adds the op methods. */
export class MxArray {
  /** Shared with the finalizer, so it must not point back at the handle. */
  private readonly cell: Cell;

  constructor(desc: ArrayDesc) {
    desc.handles++;
    wrappers++;
    this.cell = { desc };
    const scope = scopes[scopes.length - 1];
    if (scope) scope.push(this);
    else this.watch();
  }
  /** Closes the handle when the garbage collector finds it unreachable. Inside `tidy` the scope does it sooner and cheaper. */
  watch(): void {
    if (this.cell.desc) collected.register(this, this.cell, this.cell);
  }
  /** The graph side. Throws when the array was disposed. */
  get desc(): ArrayDesc {
    const d = this.cell.desc;
    if (!d) throw new MxError('Error converting "this" to mx.array. The array was disposed.');
    return d;
  }
  get disposed(): boolean {
    return this.cell.desc === undefined;
  }
  /** Makes this handle stand for another array (in-place updates). */
  replaceDesc(desc: ArrayDesc): void {
    const old = this.desc;
    desc.handles++;
    this.cell.desc = desc;
    old.handles--;
    releaseDesc(old);
  }
  /** Closes the handle. Graphs and pending work that use the array go on. */
  dispose(): void {
    if (!this.cell.desc) return;
    collected.unregister(this.cell);
    closeCell(this.cell);
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
  /** A fresh Array of the dimensions. */
  get shape(): number[] {
    if (this.desc.traced) noteSizes(onesCount);
    return this.desc.shape.slice();
  }
  get dtype(): Dtype {
    return this.desc.dtype;
  }
  get ndim(): number {
    return this.desc.shape.length;
  }
  /** Number of elements. */
  get size(): number {
    if (this.desc.traced) noteSizes(onesCount);
    return this.desc.size;
  }
  /** Bytes of one element. */
  get itemsize(): number {
    return this.desc.dtype.size;
  }
  /** Bytes of all elements. */
  get nbytes(): number {
    return this.desc.size * this.desc.dtype.size;
  }
}

/** Bytes of a contiguous, evaluated array, in place: valid until the array is disposed or its storage is given away. */
export function hostBytes(desc: ArrayDesc): Uint8Array {
  desc.storage?.needHost();
  return hostMemory().bytes(desc.address, desc.size * desc.dtype.size);
}

/** Row-major copy of the elements as the typed array that holds this dtype's bits (complex64: interleaved pairs). Evaluates and waits. */
export function readBits(desc: ArrayDesc): InstanceType<(typeof bitsArray)[keyof typeof bitsArray]> {
  const Bits = bitsArray[desc.dtype.name];
  if (desc.scalar !== undefined && !desc.storage) materialize(desc);
  materialize(desc);
  const pairs = desc.dtype.kind === "complex" ? 2 : 1;
  const storage = desc.storage as Storage;
  const bytes = hostMemory().bytes(storage.address, storage.bytes);
  const all = new Bits(bytes.buffer as ArrayBuffer, bytes.byteOffset, Math.floor(storage.bytes / Bits.BYTES_PER_ELEMENT));
  if (desc.contiguous) return all.slice(desc.offset * pairs, (desc.offset + desc.size) * pairs) as never;
  const out = new Bits(desc.size * pairs);
  const { shape, strides } = desc;
  const index = new Array<number>(shape.length).fill(0);
  let at = desc.offset;
  for (let i = 0; i < desc.size; i++) {
    for (let p = 0; p < pairs; p++) out[i * pairs + p] = all[at * pairs + p] as never;
    for (let d = shape.length - 1; d >= 0; d--) {
      index[d] = (index[d] as number) + 1;
      at += strides[d] as number;
      if ((index[d] as number) < (shape[d] as number)) break;
      at -= (strides[d] as number) * (shape[d] as number);
      index[d] = 0;
    }
  }
  return out as never;
}
