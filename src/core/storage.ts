/**
 * Storage: the bytes behind arrays. Views, reshapes and slices of one array share one storage. The bytes may lie in host memory, in the memory of a GPU, or
 * in both: which copies are right is kept here, on the storage, and nowhere else, so that no two views can disagree.
 */
import { storageMade } from "./collect.ts";

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

/** A piece of a GPU's memory; only the backend that made it knows what it is. */
export interface DeviceBlock {
  /** Its bytes are gone, because the device is. */
  readonly lost: boolean;
  /** Address in host memory, where the device uses the storage's only bytes in place (a device whose memory is the host's). */
  readonly hostAddress?: number | undefined;
  /**
   * Gives it back. Work that was recorded before may still use it. A block in host memory gives that back too, in time; `hostUsed`: commands of the host that have
   * not run may use it.
   */
  release(hostUsed: boolean): void;
  /** Waits for the work that writes it and copies its bytes to host memory. Throws when they are lost. */
  download(to: Uint8Array): void;
  /** In host memory: work that was recorded, or is submitted already, writes it. */
  wrote?(submitted: boolean): void;
  /** In host memory: waits for the work that writes it. Throws when the device was lost before that was done. */
  finish?(): void;
  /** In host memory: waits for all work that uses it. */
  settle?(): void;
  /** Overwrites bytes, behind all recorded work. */
  write(offset: number, from: Uint8Array): void;
}

/** Where arrays of the GPU are made. The Vulkan backend installs it. */
export interface DeviceMemory {
  /** A block whose bytes come piece by piece: `read` fills `into` with the bytes from `at` on. They do not pass through host memory of arrays. */
  load(bytes: number, read: (into: Uint8Array, at: number) => void): DeviceBlock;
}
let deviceMemory_: DeviceMemory | undefined;
export const installDeviceMemory = (m: DeviceMemory): void => {
  deviceMemory_ = m;
};
export function deviceMemory(): DeviceMemory {
  if (!deviceMemory_) throw new Error("no GPU backend is loaded");
  return deviceMemory_;
}

let memory: HostMemory | undefined;
export const installHostMemory = (m: HostMemory): void => {
  memory = m;
};
export function hostMemory(): HostMemory {
  if (!memory) throw new Error("no backend is loaded");
  return memory;
}

/** Makes room in host memory by waiting for the device; false when that gives nothing. The Vulkan backend installs it. */
let reclaimHost = (): boolean => false;
export const installReclaim = (f: () => boolean): void => {
  reclaimHost = f;
};
function allocate(bytes: number): number {
  try {
    return hostMemory().alloc(bytes);
  } catch (error) {
    if (!reclaimHost()) throw error;
    return hostMemory().alloc(bytes);
  }
}

interface Cell {
  /** -1: no host memory. */
  address: number;
  readonly bytes: number;
  device: DeviceBlock | undefined;
  freed: boolean;
}
function free(cell: Cell, hostUsed = true): void {
  if (cell.freed) return;
  cell.freed = true;
  if (cell.address >= 0 && cell.device?.hostAddress === undefined) memory?.free(cell.address, cell.bytes);
  cell.device?.release(hostUsed);
  cell.device = undefined;
}
/** Storages that the garbage collector found unreachable before anything released them. */
const lost = new FinalizationRegistry<Cell>((cell) => free(cell));

export class Storage {
  readonly bytes: number;
  /** Number of live descriptors (arrays and views) and running lists that use it. */
  refs = 0;
  /** The host's copy is right (or will be, when the lists recorded so far have run). */
  hostValid: boolean;
  /** The device's copy is right (or will be). */
  deviceValid: boolean;
  private readonly cell: Cell;

  /** In host memory, or where `device` says. */
  constructor(bytes: number, device?: DeviceBlock) {
    this.bytes = bytes;
    this.hostValid = device === undefined;
    this.deviceValid = device !== undefined;
    this.cell = { address: device ? (device.hostAddress ?? -1) : allocate(bytes), bytes, device, freed: false };
    lost.register(this, this.cell, this.cell);
    storageMade(bytes);
  }
  /** Byte address in the shared memory, which is taken now if there was none. */
  get address(): number {
    const { cell } = this;
    if (cell.address < 0) cell.address = allocate(cell.bytes);
    return cell.address;
  }
  get device(): DeviceBlock | undefined {
    return this.cell.device;
  }
  /** Gives it a place on the device. */
  set device(block: DeviceBlock) {
    this.cell.device = block;
  }
  get freed(): boolean {
    return this.cell.freed;
  }
  /** Makes the host's copy right: waits for the device and copies, when needed. */
  needHost(): void {
    if (this.hostValid) return;
    const { cell, inPlace } = this;
    const host = hostMemory();
    if (inPlace) {
      inPlace.finish?.();
      this.hostValid = true;
      return;
    }
    // A block of freed host memory may still be used by commands that are only recorded.
    host.quiesce();
    (cell.device as DeviceBlock).download(host.bytes(this.address, cell.bytes));
    this.hostValid = true;
  }
  /** The device's block, when it is host memory. */
  private get inPlace(): DeviceBlock | undefined {
    const { device } = this.cell;
    return device?.hostAddress === undefined ? undefined : device;
  }
  /** The host's copy is the only right one from now on. */
  wroteHost(): void {
    // The device may still read bytes that the host is about to overwrite.
    if (this.deviceValid) this.inPlace?.settle?.();
    this.hostValid = true;
    this.deviceValid = false;
  }
  /** The device is about to write: lets the host's commands run that were recorded before and may use the same bytes. */
  yieldHost(): void {
    if (this.hostValid && this.inPlace) hostMemory().quiesce();
  }
  /** The device's copy is the only right one from now on. Comes before the work is submitted, or behind `yieldHost` and the submission. */
  wroteDevice(submitted = false): void {
    if (!submitted) this.yieldHost();
    this.inPlace?.wrote?.(submitted);
    this.deviceValid = true;
    this.hostValid = false;
  }
  /** Overwrites bytes wherever they are right. */
  write(offset: number, from: Uint8Array): void {
    if (this.inPlace) {
      this.needHost();
      if (this.deviceValid) this.inPlace.settle?.();
    }
    if (this.hostValid) {
      hostMemory().quiesce();
      hostMemory().bytes(this.address + offset, from.length).set(from);
    }
    if (this.hostValid && this.cell.device?.lost) this.deviceValid = false;
    if (this.deviceValid && !this.inPlace) (this.cell.device as DeviceBlock).write(offset, from);
  }
  retain(): void {
    this.refs++;
  }
  release(): void {
    if (--this.refs > 0 || this.cell.freed) return;
    lost.unregister(this.cell);
    free(this.cell, this.hostValid);
  }
}
