/** What storages hold of the GPU's memory. */
import { type DeviceBlock, hostMemory } from "../../core/storage.ts";
import type { VulkanBackend } from "./index.ts";
import type { Allocation } from "./memory.ts";

export class VulkanBlock implements DeviceBlock {
  readonly owner: VulkanBackend;
  readonly memory: Allocation;
  /** Memory that the host sees: read without a copy. */
  readonly mapped: boolean;
  readonly hostAddress: number | undefined = undefined;
  private live = true;
  constructor(owner: VulkanBackend, memory: Allocation, mapped = false) {
    this.owner = owner;
    this.memory = memory;
    this.mapped = mapped;
  }
  release(hostUsed = false): void {
    if (!this.live) return;
    this.live = false;
    this.giveBack(hostUsed);
  }
  protected giveBack(_hostUsed: boolean): void {
    if (this.owner.lost) return;
    this.owner.memory.free(this.memory, this.mapped ? this.owner.last + 1 : 0);
    this.owner.keepCacheLimit();
  }
  get lost(): boolean {
    return this.owner.lost !== undefined;
  }
  download(to: Uint8Array): void {
    this.owner.download(this, to);
  }
  write(offset: number, from: Uint8Array): void {
    this.owner.write(this, offset, from);
  }
}

/** A block in host memory, which the device uses in place. */
export class SharedBlock extends VulkanBlock {
  override readonly hostAddress: number;
  /** Value of the timeline at which the last work that writes it is done. */
  private written = 0;
  constructor(owner: VulkanBackend, memory: Allocation, address: number) {
    super(owner, memory);
    this.hostAddress = address;
  }
  protected override giveBack(hostUsed: boolean): void {
    this.owner.freeShared(this.hostAddress, this.memory.bytes, hostUsed);
  }
  wrote(submitted: boolean): void {
    this.written = this.owner.last + (submitted ? 0 : 1);
    this.owner.writesHost ||= !submitted;
  }
  finish(): void {
    if (this.written > this.owner.last) this.owner.submit();
    this.owner.wait(Math.min(this.written, this.owner.last));
  }
  override write(offset: number, from: Uint8Array): void {
    super.write(offset, from);
    this.wrote(false);
  }
  settle(): void {
    if (!this.lost) this.owner.synchronize();
  }
  override download(to: Uint8Array): void {
    this.finish();
    to.set(hostMemory().bytes(this.hostAddress, to.length));
  }
}
