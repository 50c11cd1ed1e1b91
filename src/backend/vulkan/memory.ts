/** Device memory: suballocation from large buffers, frees that wait for the timeline, limits. */
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

interface Piece {
  offset: number;
  bytes: number;
  free: boolean;
}
interface Block {
  readonly buffer: number;
  readonly kind: BufferKind;
  readonly bytes: number;
  readonly address: bigint;
  /** In order of offset; no two free neighbours. */
  readonly pieces: Piece[];
}

export interface MemoryOptions {
  /** Bytes of one buffer that is cut into pieces. */
  readonly blockBytes?: number;
  /** Most bytes of device memory that allocations may take together. */
  readonly limit?: number;
  /** Most bytes kept in buffers without allocations. */
  readonly cacheLimit?: number;
  /** Every allocation its own buffer, for validation that checks the bounds of buffers. */
  readonly separate?: boolean;
}

/** Alignment of every allocation: enough for the widest load, and a cache line of its own. */
const alignment = 256;

/** Allocates pieces of large buffers, best fit. A driver takes about a millisecond for a buffer; this takes microseconds. */
export class DeviceMemory {
  private readonly addon: Addon;
  private readonly blockBytes: number;
  private readonly limit: number;
  private readonly cacheLimit: number;
  private readonly separate: boolean;
  private readonly blocks = new Map<number, Block>();
  private readonly owners = new Map<Allocation, Piece>();
  private readonly pending: { readonly allocation: Allocation; readonly after: number }[] = [];
  private readonly counts = { active: 0, peak: 0, reserved: 0 };

  constructor(addon: Addon, options: MemoryOptions = {}) {
    this.addon = addon;
    this.blockBytes = options.blockBytes ?? 64 * 2 ** 20;
    this.limit = options.limit ?? Number.POSITIVE_INFINITY;
    this.cacheLimit = options.cacheLimit ?? 512 * 2 ** 20;
    this.separate = options.separate ?? false;
  }

  /** Bytes allocated now and at most, and bytes of all buffers. */
  get counters(): { readonly active: number; readonly peak: number; readonly reserved: number } {
    return this.counts;
  }

  /**
   * Memory of at least one byte. When the device has none left, finished frees are collected, empty buffers given back and the attempt
   * repeated; then the driver's error (code OUT_OF_DEVICE_MEMORY) is thrown with the sizes.
   */
  allocate(bytes: number, kind: BufferKind = 0): Allocation {
    if (!Number.isSafeInteger(bytes) || bytes < 0) throw new Error(`[vulkan] bytes must be a non-negative integer, got ${bytes}`);
    const size = Math.max(alignment, Math.ceil(bytes / alignment) * alignment);
    const found = this.bestFit(size, kind);
    if (found) return this.take(found.block, found.piece, size);
    this.collect(this.addon.completed());
    const again = this.bestFit(size, kind);
    if (again) return this.take(again.block, again.piece, size);
    const block = this.addBlock(size, kind);
    return this.take(block, block.pieces[0] as Piece, size);
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

  /** Gives buffers without allocations back to the driver. */
  trim(): void {
    for (const block of this.blocks.values()) if (block.pieces.length === 1 && block.pieces[0]?.free) this.removeBlock(block);
  }

  private bestFit(size: number, kind: BufferKind): { block: Block; piece: Piece } | undefined {
    let best: { block: Block; piece: Piece } | undefined;
    if (this.separate) return undefined;
    for (const block of this.blocks.values()) {
      if (block.kind !== kind) continue;
      for (const piece of block.pieces) if (piece.free && piece.bytes >= size && (!best || piece.bytes < best.piece.bytes)) best = { block, piece };
    }
    return best;
  }

  private take(block: Block, piece: Piece, size: number): Allocation {
    if (piece.bytes > size) block.pieces.splice(block.pieces.indexOf(piece) + 1, 0, { offset: piece.offset + size, bytes: piece.bytes - size, free: true });
    piece.bytes = size;
    piece.free = false;
    const address = block.address + BigInt(piece.offset);
    const allocation: Allocation = { buffer: block.buffer, offset: piece.offset, bytes: size, low: Number(address & 0xffffffffn), high: Number(address >> 32n) };
    this.owners.set(allocation, piece);
    this.counts.active += size;
    this.counts.peak = Math.max(this.counts.peak, this.counts.active);
    return allocation;
  }

  private release(allocation: Allocation): void {
    const piece = this.owners.get(allocation) as Piece;
    const block = this.blocks.get(allocation.buffer) as Block;
    this.owners.delete(allocation);
    this.counts.active -= allocation.bytes;
    piece.free = true;
    const at = block.pieces.indexOf(piece);
    const next = block.pieces[at + 1];
    if (next?.free) {
      piece.bytes += next.bytes;
      block.pieces.splice(at + 1, 1);
    }
    const previous = block.pieces[at - 1];
    if (previous?.free) {
      previous.bytes += piece.bytes;
      block.pieces.splice(at, 1);
    }
    const empty = block.pieces.length === 1;
    if (empty && (this.separate || this.counts.reserved - this.counts.active > this.cacheLimit)) this.removeBlock(block);
  }

  private addBlock(size: number, kind: BufferKind): Block {
    const bytes = this.separate || size > this.blockBytes / 2 ? size : this.blockBytes;
    if (this.counts.reserved + bytes > this.limit) this.trim();
    if (this.counts.reserved + bytes > this.limit) {
      const error = new Error(`[vulkan] out of device memory: ${bytes} bytes more would exceed the limit of ${this.limit}; ${this.counts.active} are in use`);
      throw Object.assign(error, { code: "OUT_OF_DEVICE_MEMORY" });
    }
    const buffer = this.createBuffer(bytes, kind);
    const block: Block = { buffer, kind, bytes, address: this.addon.bufferAddress(buffer), pieces: [{ offset: 0, bytes, free: true }] };
    this.blocks.set(buffer, block);
    this.counts.reserved += bytes;
    return block;
  }

  private createBuffer(bytes: number, kind: BufferKind): number {
    try {
      return this.addon.createBuffer(bytes, kind);
    } catch (error) {
      if ((error as { code?: string }).code !== "OUT_OF_DEVICE_MEMORY") throw error;
    }
    this.trim();
    try {
      return this.addon.createBuffer(bytes, kind);
    } catch (error) {
      (error as Error).message = `[vulkan] out of device memory: ${bytes} bytes asked for, ${this.counts.active} in use (${(error as Error).message})`;
      throw error;
    }
  }

  private removeBlock(block: Block): void {
    this.blocks.delete(block.buffer);
    this.counts.reserved -= block.bytes;
    this.addon.destroyBuffer(block.buffer);
  }
}
