/** Records launches for the GPU: finds their operands' memory, copies what is not there, sets epochs. */
import type { ArrayDesc, Epoch } from "../core/array.ts";
import type { GpuLaunch, GpuPointer } from "../core/gpu.ts";
import { Storage } from "../core/storage.ts";
import { type RecordedList, type VulkanBackend, vulkanBackend } from "../backend/vulkan/index.ts";
import type { Placed } from "../backend/vulkan/encode.ts";
import type { Allocation } from "../backend/vulkan/memory.ts";
import { closeKernel, closedKernels } from "./gate.ts";
import { type Kept, scalarBits } from "./record.ts";

export class GpuRecorder {
  readonly backend: VulkanBackend = vulkanBackend();
  private readonly kept: Kept | undefined;
  private readonly held = new Set<Storage>();
  private produced: ArrayDesc[] = [];
  commands = 0;

  constructor(kept?: Kept) {
    this.kept = kept;
    if (kept) this.backend.beginRecording();
  }
  /** Fresh storage on the device; a recording that runs again keeps it for itself. */
  storage(bytes: number): Storage {
    const s = new Storage(bytes, this.backend.result(bytes));
    if (this.kept) {
      s.retain();
      this.held.add(s);
      this.kept.storages.push(s);
    }
    return s;
  }
  holds(s: Storage): boolean {
    return this.held.has(s);
  }
  produces(d: ArrayDesc): void {
    this.produced.push(d);
  }

  /** True when the pipelines of a launch can be made. If not, its kernel is closed for this process, and the reason goes to `refused`. */
  ready(launch: GpuLaunch, name: string, refused: string[]): boolean {
    const why = this.backend.refusal(launch);
    if (why === undefined) return true;
    closeKernel(name, why);
    refused.push(`${name}: ${closedKernels.get(name)}`);
    return false;
  }
  launch(launch: GpuLaunch, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[], name: string): void {
    const { backend } = this;
    const scratch: Allocation[] = [];
    const operand = (p: GpuPointer): ArrayDesc => (p.of === "input" ? inputs : outputs)[p.index] as ArrayDesc;
    const constant = (p: GpuPointer): boolean => p.of !== "scratch" && !operand(p).storage;
    const place = (p: GpuPointer): Placed => {
      if (p.of === "scratch") return { memory: scratch[p.index] as Allocation, bytes: p.bytes };
      const d = operand(p);
      if (!d.storage) {
        const [lo, hi] = scalarBits(d);
        const placed = backend.words([lo, hi]);
        return { memory: placed.memory, bytes: placed.bytes + p.bytes };
      }
      return { memory: backend.resident(d.storage).memory, bytes: d.offset * d.dtype.size + p.bytes };
    };
    try {
      for (const n of launch.scratch ?? []) scratch.push(backend.scratch(n));
      // Copies to the device come before the kernel's own commands are encoded.
      for (const d of inputs) if (d.storage) backend.resident(d.storage);
      this.commands += backend.launch(launch, place, name, constant);
    } finally {
      for (const a of scratch) backend.freeScratch(a);
    }
    for (const d of outputs) (d.storage as Storage).wroteDevice();
    if (this.kept) for (const d of outputs) this.kept.written.add(d.storage as Storage);
    if (backend.ripe) this.flush();
  }
  /** Gives a 0-d constant a storage on the device. */
  storeConstant(d: ArrayDesc): void {
    if (d.storage || d.scalar === undefined) return;
    const [lo, hi] = scalarBits(d);
    d.attach(this.storage(8));
    const storage = d.storage as unknown as Storage;
    storage.device?.write(0, new Uint8Array(Uint32Array.of(lo >>> 0, hi >>> 0).buffer));
    this.commands++;
  }

  /** Submits what was recorded; a recording is run for the first time. */
  flush(): Epoch {
    const { backend, kept } = this;
    if (kept) {
      const list = backend.endRecording();
      if (list) {
        kept.lists.push({ list, backend });
        backend.replay(list);
        for (const s of kept.written) s.wroteDevice(true);
      } else kept.refused ??= "the CPU had to read results of the GPU in between";
    } else backend.submit();
    const epoch = backend.epoch(backend.last);
    for (const d of this.produced) d.epoch = epoch;
    this.produced = [];
    return epoch;
  }
}

/** A recorded list of the GPU. */
export interface GpuList {
  readonly list: RecordedList;
  readonly backend: VulkanBackend;
}
