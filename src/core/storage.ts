/** Storage: the bytes behind arrays. Views, reshapes and slices of one array share one storage. */

/** Host memory that kernels can address. The WASM backend installs it. */
export interface HostMemory {
  /** Address of at least `bytes` bytes, 64-byte aligned. Throws MxError with the sizes when memory is full. */
  alloc(bytes: number): number;
  free(address: number, bytes: number): void;
  /** View of the bytes at an address. */
  bytes(address: number, length: number): Uint8Array;
  /** Waits until no submitted work can still write or read memory that the host is about to use. */
  quiesce(): void;
}

let memory: HostMemory | undefined;
export const installHostMemory = (m: HostMemory): void => {
  memory = m;
};
export function hostMemory(): HostMemory {
  if (!memory) throw new Error("no backend is loaded");
  return memory;
}

/** Addresses of storages that the garbage collector found unreachable before anything released them. */
const lost = new FinalizationRegistry<{ address: number; bytes: number; freed: boolean }>((block) => {
  if (!block.freed) {
    block.freed = true;
    memory?.free(block.address, block.bytes);
  }
});

export class Storage {
  readonly bytes: number;
  /** Number of live descriptors (arrays and views) and running lists that use it. */
  refs = 0;
  private readonly block: { address: number; bytes: number; freed: boolean };

  constructor(bytes: number) {
    this.bytes = bytes;
    this.block = { address: hostMemory().alloc(bytes), bytes, freed: false };
    lost.register(this, this.block, this.block);
  }
  /** Byte address in the shared memory. */
  get address(): number {
    return this.block.address;
  }
  get freed(): boolean {
    return this.block.freed;
  }
  retain(): void {
    this.refs++;
  }
  release(): void {
    if (--this.refs > 0 || this.block.freed) return;
    this.block.freed = true;
    lost.unregister(this.block);
    hostMemory().free(this.block.address, this.bytes);
  }
}
