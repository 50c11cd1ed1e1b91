/** Device memory: suballocation from large buffers, frees that wait for the timeline, limits. */
import { opError } from "../../core/error.ts";
import type { Addon, BufferKind } from "./addon.ts";

/** A piece of device memory. Belongs to who allocated it until `free`. */
export interface Allocation {
  readonly buffer: number;
  /** Bytes from the start of the buffer. */
  readonly offset: number;
  readonly bytes: number;
  /** Device address, as the two words that kernels take. */
  readonly low: number;
  readonly high: number;
}

/** A part of a block; no two free ones are neighbours. */
interface Piece {
  readonly block: Block;
  offset: number;
  bytes: number;
  free: boolean;
  previous: Piece | undefined;
  next: Piece | undefined;
}
interface Block {
  readonly buffer: number;
  readonly kind: BufferKind;
  readonly bytes: number;
  readonly address: bigint;
  /** Bytes of it that are allocated. */
  used: number;
}

export interface MemoryOptions {
  /** Bytes of one buffer that is cut into pieces. */
  readonly blockBytes?: number;
  /** Most bytes of device memory that allocations may take together. */
  readonly limit?: number;
  /** Most bytes of one buffer. */
  readonly largest?: number;
  /** Every allocation its own buffer (given back by `trim`), for validation that checks the bounds of buffers. */
  readonly separate?: boolean;
}

/** Alignment of every allocation: enough for the widest load, and a cache line of its own. */
const alignment = 256;

/** Bytes of a block of memory on the device that the host writes: it may be scarce. */
const directBlockBytes = 4 * 2 ** 20;

const onDevice = (kind: BufferKind): boolean => kind === 0 || kind === 3;
const isFull = (error: unknown): boolean => (error as { code?: string }).code === "OUT_OF_DEVICE_MEMORY";

interface Binned {
  readonly allocation: Allocation;
  readonly piece: Piece;
}
const binOf = (size: number, kind: BufferKind): number => 4 * size + kind;

/** Allocates pieces of large buffers, best fit. A driver takes about a millisecond for a buffer; this takes microseconds. */
export class DeviceMemory {
  private readonly addon: Addon;
  private readonly blockBytes: number;
  /** Most bytes of all buffers on the device together; what copies to and from the host pass through does not count. */
  limit: number;
  private readonly largest: number;
  private readonly separate: boolean;
  /** Free pieces by kind. They are few: what was given back lies in bins until neighbours are merged. */
  private readonly loose: readonly Set<Piece>[] = [new Set(), new Set(), new Set(), new Set()];
  private readonly owners = new Map<Allocation, Piece>();
  private readonly pending: { readonly allocation: Allocation; readonly after: number }[] = [];
  private deviceBytes = 0;
  /** Freed pieces by size and kind, for the next allocation of the same size: most work asks for the same sizes again and again, and searching takes longer than a kernel. */
  private readonly bins = new Map<number, Binned[]>();
  private binned = 0;
  private readonly counts = { active: 0, peak: 0, reserved: 0, cached: 0 };

  constructor(addon: Addon, options: MemoryOptions = {}) {
    this.addon = addon;
    this.blockBytes = options.blockBytes ?? 64 * 2 ** 20;
    this.limit = options.limit ?? Number.POSITIVE_INFINITY;
    this.largest = options.largest ?? Number.POSITIVE_INFINITY;
    this.separate = options.separate ?? false;
  }

  /** Bytes allocated now and at most, bytes of all buffers, and of those among them that hold nothing: what `trim` gives back. */
  get counters(): { readonly active: number; readonly peak: number; readonly reserved: number; readonly cached: number } {
    return this.counts;
  }

  resetPeak(): void {
    this.counts.peak = 0;
  }

  /**
   * Memory of at least one byte. When the device has none left, the work in flight is waited for (`reclaim`), so that all frees are finished, empty buffers are
   * given back and the attempt is repeated; then an error with the sizes (code OUT_OF_DEVICE_MEMORY) is thrown.
   */
  allocate(bytes: number, kind: BufferKind = 0): Allocation {
    if (!Number.isSafeInteger(bytes) || bytes < 0) throw new Error(`[vulkan] bytes must be a non-negative integer, got ${bytes}`);
    const size = Math.max(alignment, Math.ceil(bytes / alignment) * alignment);
    if (size > this.largest) throw opError("memory", `${bytes} bytes requested, the device allows at most ${this.largest} in one buffer`);
    const found = this.fitting(size, kind);
    if (found) return found;
    this.collect(this.addon.completed());
    const again = this.fitting(size, kind);
    if (again) return again;
    try {
      return this.fresh(size, kind);
    } catch (error) {
      if (!isFull(error)) throw error;
    }
    this.reclaim();
    this.collect(this.addon.completed());
    return this.fitting(size, kind) ?? this.fresh(size, kind);
  }
  private fitting(size: number, kind: BufferKind): Allocation | undefined {
    const again = this.bins.get(binOf(size, kind))?.pop();
    if (again) return this.reuse(again);
    const found = this.bestFit(size, kind) ?? (this.mergeBins() ? this.bestFit(size, kind) : undefined);
    return found && this.take(found, size);
  }
  private reuse({ allocation, piece }: Binned): Allocation {
    const own = { ...allocation };
    this.binned -= own.bytes;
    this.own(own, piece);
    return own;
  }
  private own(allocation: Allocation, piece: Piece): void {
    const { block } = piece;
    this.owners.set(allocation, piece);
    if (block.used === 0) this.counts.cached -= block.bytes;
    block.used += allocation.bytes;
    this.counts.active += allocation.bytes;
    this.counts.peak = Math.max(this.counts.peak, this.counts.active);
  }
  private fresh(size: number, kind: BufferKind): Allocation {
    return this.take(this.addBlock(size, kind), size);
  }

  /** Gives memory back once the timeline has reached `after` (0: at once). */
  free(allocation: Allocation, after = 0): void {
    if (!this.owners.has(allocation)) throw new Error("[vulkan] this memory is not allocated");
    if (after === 0) this.release(allocation);
    else this.pending.push({ allocation, after });
  }

  /** Releases what was freed for values of the timeline up to `completed`. */
  collect(completed: number): void {
    for (let i = this.pending.length - 1; i >= 0; i--) {
      const { allocation, after } = this.pending[i] as (typeof this.pending)[number];
      if (after > completed) continue;
      this.pending.splice(i, 1);
      this.release(allocation);
    }
  }

  /** Called before buffers are given back: commands that are recorded may name them, so they must be submitted first. */
  beforeTrim = (): void => {};

  /** Called when memory has run out: submits what is recorded and waits for all work. */
  reclaim = (): void => {};

  /** Gives buffers without allocations back to the driver. */
  trim(): void {
    this.beforeTrim();
    this.mergeBins();
    for (const pieces of this.loose) for (const piece of pieces) if (piece.bytes === piece.block.bytes) this.removeBlock(piece);
  }

  private bestFit(size: number, kind: BufferKind): Piece | undefined {
    let best: Piece | undefined;
    if (this.separate) return undefined;
    for (const piece of this.loose[kind] as Set<Piece>) if (piece.bytes >= size && (!best || piece.bytes < best.bytes)) best = piece;
    return best;
  }

  private take(piece: Piece, size: number): Allocation {
    const { block } = piece;
    const loose = this.loose[block.kind] as Set<Piece>;
    loose.delete(piece);
    if (piece.bytes > size) {
      const rest: Piece = { block, offset: piece.offset + size, bytes: piece.bytes - size, free: true, previous: piece, next: piece.next };
      if (piece.next) piece.next.previous = rest;
      piece.next = rest;
      loose.add(rest);
    }
    piece.bytes = size;
    piece.free = false;
    const address = block.address + BigInt(piece.offset);
    const allocation: Allocation = { buffer: block.buffer, offset: piece.offset, bytes: size, low: Number(address & 0xffffffffn), high: Number(address >> 32n) };
    this.own(allocation, piece);
    return allocation;
  }

  private release(allocation: Allocation): void {
    const piece = this.owners.get(allocation) as Piece;
    this.owners.delete(allocation);
    this.counts.active -= allocation.bytes;
    const { block } = piece;
    block.used -= allocation.bytes;
    if (block.used === 0) this.counts.cached += block.bytes;
    const key = binOf(allocation.bytes, block.kind);
    const bin = this.bins.get(key);
    if (bin) bin.push({ allocation, piece });
    else this.bins.set(key, [{ allocation, piece }]);
    this.binned += allocation.bytes;
    if (this.separate) this.mergeBins();
  }
  /** Makes one free piece of neighbours that lie in bins. False when there are none. */
  private mergeBins(): boolean {
    if (this.binned === 0) return false;
    for (const bin of this.bins.values()) for (const { piece } of bin.splice(0)) this.merge(piece);
    this.bins.clear();
    this.binned = 0;
    return true;
  }
  private merge(piece: Piece): void {
    const loose = this.loose[piece.block.kind] as Set<Piece>;
    piece.free = true;
    loose.add(piece);
    if (piece.next?.free) this.join(piece, piece.next);
    if (piece.previous?.free) this.join(piece.previous, piece);
  }
  /** Adds a free piece to the free one before it. */
  private join(piece: Piece, next: Piece): void {
    piece.bytes += next.bytes;
    piece.next = next.next;
    if (next.next) next.next.previous = piece;
    (this.loose[piece.block.kind] as Set<Piece>).delete(next);
  }

  /** A new block, as the one free piece that it is. */
  private addBlock(size: number, kind: BufferKind): Piece {
    const blockBytes = kind === 3 ? Math.min(this.blockBytes, directBlockBytes) : this.blockBytes;
    if (this.separate || size > blockBytes / 2 || blockBytes > this.largest) return this.makeBlock(size, kind);
    try {
      return this.makeBlock(blockBytes, kind);
    } catch (error) {
      if (!isFull(error)) throw error;
    }
    // No room for a whole block, but perhaps for this.
    return this.makeBlock(size, kind);
  }

  private makeBlock(bytes: number, kind: BufferKind): Piece {
    if (this.exceeds(bytes, kind)) this.trim();
    if (this.exceeds(bytes, kind)) throw this.full(bytes, `the limit is ${this.limit}`);
    const buffer = this.createBuffer(bytes, kind);
    const block: Block = { buffer, kind, bytes, address: this.addon.bufferAddress(buffer), used: 0 };
    const piece: Piece = { block, offset: 0, bytes, free: true, previous: undefined, next: undefined };
    (this.loose[kind] as Set<Piece>).add(piece);
    this.counts.reserved += bytes;
    this.counts.cached += bytes;
    if (onDevice(kind)) this.deviceBytes += bytes;
    return piece;
  }
  private exceeds(bytes: number, kind: BufferKind): boolean {
    return onDevice(kind) && this.deviceBytes + bytes > this.limit;
  }

  private createBuffer(bytes: number, kind: BufferKind): number {
    try {
      return this.addon.createBuffer(bytes, kind);
    } catch (error) {
      if (!isFull(error)) throw error;
    }
    this.trim();
    try {
      return this.addon.createBuffer(bytes, kind);
    } catch (error) {
      if (!isFull(error)) throw error;
      throw this.full(bytes, (error as Error).message);
    }
  }
  private full(bytes: number, why: string): Error {
    const { active, reserved } = this.counts;
    const error = opError("memory", `out of device memory: ${bytes} bytes requested, ${active} in use, ${reserved - active} kept for later (${why})`);
    return Object.assign(error, { code: "OUT_OF_DEVICE_MEMORY" });
  }

  private removeBlock(piece: Piece): void {
    const { block } = piece;
    (this.loose[block.kind] as Set<Piece>).delete(piece);
    this.counts.reserved -= block.bytes;
    this.counts.cached -= block.bytes;
    if (onDevice(block.kind)) this.deviceBytes -= block.bytes;
    this.addon.destroyBuffer(block.buffer);
  }
}
