/** The shared memory of the CPU backend and its allocator. */
import { env } from "../../core/env.ts";
import { opError } from "../../core/error.ts";

const page = 65536;
/** One page below 4 GiB, so that a typed array over the whole memory is legal in every V8. */
const mostPages = 65535;
/** Blocks up to this size are kept in bins of equal size and never merged. */
const smallest = 64;
const small = 32768;
const guardBytes = 64;
const guardByte = 0xa5;

interface Block {
  address: number;
  size: number;
}

export interface MemoryCounters {
  active: number;
  peak: number;
  /** Bytes of freed blocks that a later array will use again. */
  cache: number;
  limit: number;
}

const mb = (bytes: number): string => (bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${bytes} bytes`);

function reserve(): { memory: WebAssembly.Memory; pages: number } {
  // Address space, not memory: pages are taken from the system when first touched. A process with little address space gets less.
  for (let pages = mostPages; ; pages = Math.floor(pages / 2)) {
    try {
      return { memory: new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true }), pages };
    } catch (error) {
      if (pages < 512) throw opError("memory", `can not reserve address space for WebAssembly memory: ${(error as Error).message}`);
    }
  }
}

/**
 * Best-fit allocator with immediate merging for large blocks and bins of equal size for small ones. Small blocks are cut from large ones.
 */
export class SharedMemory {
  readonly memory: WebAssembly.Memory;
  readonly counters: MemoryCounters;
  /** First address past the memory. */
  private readonly end: number;
  private top = 2 * page;
  private readonly bins = new Map<number, number[]>();
  /** Free large blocks by address. */
  private readonly free_: Block[] = [];

  constructor() {
    const { memory, pages } = reserve();
    this.memory = memory;
    this.end = pages * page;
    this.cacheLimit = this.end;
    const limit = env("MLX_MEMORY_LIMIT");
    this.counters = { active: 0, peak: 0, cache: 0, limit: limit > 0 ? Math.min(limit, this.end) : this.end };
  }
  /** Address space for the backend itself; never freed and not counted. */
  reserve(bytes: number): number {
    const size = (bytes + page - 1) & ~(page - 1);
    const at = this.top;
    if (at + size > this.end) throw opError("memory", `no room for ${mb(size)} of the backend's own memory`);
    this.top += size;
    return at;
  }
  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length);
  }
  alloc(bytes: number): number {
    if (this.guarded) return this.allocGuarded(bytes);
    return this.allocPlain(bytes);
  }
  private allocPlain(bytes: number): number {
    const size = roundUp(bytes);
    const c = this.counters;
    if (c.active + size > c.limit) throw this.full(size);
    const at = size <= small ? this.allocSmall(size) : this.allocLarge(size);
    c.active += size;
    if (c.active > c.peak) c.peak = c.active;
    return at;
  }
  free(address: number, bytes: number): void {
    if (this.guarded?.has(address)) this.freeGuarded(address);
    else this.freePlain(address, bytes);
  }
  /**
   * For tests: from now on each block lies between guard bytes and starts filled with a pattern. Returns a function that throws when a guard of
   * a living or freed block was overwritten.
   */
  guardBlocks(): () => void {
    const guarded = new Map<number, number>();
    this.guarded = guarded;
    return () => {
      for (const address of guarded.keys()) this.checkGuards(address);
      for (const address of this.retired.splice(0)) {
        const bytes = guarded.get(address) as number;
        guarded.delete(address);
        this.freePlain(address - guardBytes, bytes + 2 * guardBytes);
      }
      const broken = this.broken.splice(0);
      if (broken.length > 0) throw new Error(broken.join("; "));
    };
  }
  private guarded: Map<number, number> | undefined;
  private readonly broken: string[] = [];
  private allocGuarded(bytes: number): number {
    const at = this.allocPlain(bytes + 2 * guardBytes) + guardBytes;
    this.bytes(at - guardBytes, bytes + 2 * guardBytes).fill(guardByte);
    this.guarded?.set(at, bytes);
    return at;
  }
  /** Blocks are freed while their list is recorded, before it runs; so that the guards hold still, none is used again before the next check. */
  private readonly retired: number[] = [];
  private freeGuarded(address: number): void {
    this.retired.push(address);
  }
  private checkGuards(address: number): void {
    const bytes = this.guarded?.get(address) as number;
    const bad = (from: number): boolean => this.bytes(from, guardBytes).some((b) => b !== guardByte);
    if (bad(address - guardBytes)) this.broken.push(`bytes before a block of ${bytes} bytes were overwritten`);
    if (bad(address + bytes)) this.broken.push(`bytes behind a block of ${bytes} bytes were overwritten`);
  }
  private freePlain(address: number, bytes: number): void {
    const size = roundUp(bytes);
    this.counters.active -= size;
    this.give(address, size);
  }
  setLimit(bytes: number): number {
    const before = this.counters.limit;
    this.counters.limit = Math.max(0, Math.min(bytes, this.end));
    return before;
  }
  /** Sets the most bytes of freed blocks to keep as they are before they are merged; returns the limit before. */
  setCacheLimit(bytes: number): number {
    const before = this.cacheLimit;
    this.cacheLimit = Math.max(0, bytes);
    if (this.counters.cache > this.cacheLimit) this.trim();
    return before;
  }
  private cacheLimit: number;
  /** Returns blocks in bins to the large free list, where neighbours merge: from now on they are plain unused memory and not counted as kept. */
  trim(): void {
    for (const [size, list] of this.bins) {
      for (const address of list) this.insert(address, size);
      list.length = 0;
    }
    this.lowerTop();
    this.counters.cache = 0;
  }
  private used(size: number): void {
    this.counters.cache = Math.max(0, this.counters.cache - size);
  }
  private give(address: number, size: number): void {
    this.counters.cache += size;
    if (size > small) {
      this.insert(address, size);
      this.lowerTop();
    } else {
      const bin = this.bins.get(size);
      if (bin) bin.push(address);
      else this.bins.set(size, [address]);
    }
    if (this.counters.cache > this.cacheLimit) this.trim();
  }
  private allocSmall(size: number): number {
    const bin = this.bins.get(size);
    if (bin && bin.length > 0) {
      this.used(size);
      return bin.pop() as number;
    }
    // Cut a run of equal blocks at once, so that small blocks lie together and do not split large free areas.
    const count = this.cacheLimit < page ? 1 : Math.max(1, Math.min(16, Math.floor(page / size)));
    let at: number;
    try {
      at = this.take(size * count);
    } catch {
      return this.take(size);
    }
    const list = this.bins.get(size) ?? [];
    for (let i = count - 1; i > 0; i--) list.push(at + i * size);
    this.bins.set(size, list);
    this.counters.cache += size * (count - 1);
    return at;
  }
  private allocLarge(size: number): number {
    try {
      return this.take(size);
    } catch {
      this.trim();
      return this.take(size);
    }
  }
  /** Best fit among the free blocks, else fresh memory. */
  private take(size: number): number {
    let best = -1;
    let bestSize = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.free_.length; i++) {
      const s = (this.free_[i] as Block).size;
      if (s >= size && s < bestSize) {
        best = i;
        bestSize = s;
        if (s === size) break;
      }
    }
    if (best >= 0) {
      const b = this.free_[best] as Block;
      const at = b.address;
      this.used(size);
      if (b.size === size) this.free_.splice(best, 1);
      else {
        b.address += size;
        b.size -= size;
      }
      return at;
    }
    if (this.top + size > this.end) throw this.full(size);
    const at = this.top;
    this.top += size;
    return at;
  }
  private insert(address: number, size: number): void {
    let lo = 0;
    let hi = this.free_.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if ((this.free_[mid] as Block).address < address) lo = mid + 1;
      else hi = mid;
    }
    const before = this.free_[lo - 1];
    const after = this.free_[lo];
    const joinsBefore = before !== undefined && before.address + before.size === address;
    const joinsAfter = after !== undefined && address + size === after.address;
    if (joinsBefore && joinsAfter) {
      before.size += size + after.size;
      this.free_.splice(lo, 1);
    } else if (joinsBefore) before.size += size;
    else if (joinsAfter) {
      after.address = address;
      after.size += size;
    } else this.free_.splice(lo, 0, { address, size });
  }
  private lowerTop(): void {
    const last = this.free_[this.free_.length - 1];
    if (!last || last.address + last.size !== this.top) return;
    this.top = last.address;
    this.used(last.size);
    this.free_.pop();
  }
  private full(size: number): Error {
    const { active, limit } = this.counters;
    return opError("memory", `out of memory: ${mb(size)} requested, ${mb(active)} in use, ${mb(limit)} allowed (32-bit WebAssembly addresses 4 GiB)`);
  }
}

/** Sizes grow in steps of at most an eighth, so that freed blocks fit again. */
function roundUp(bytes: number): number {
  if (bytes <= smallest) return smallest;
  if (bytes <= 1024) return (bytes + 63) & ~63;
  if (bytes > small) return Math.ceil(bytes / 4096) * 4096;
  const step = 2 ** (31 - Math.clz32(bytes - 1)) / 8;
  return Math.ceil(bytes / step) * step;
}
