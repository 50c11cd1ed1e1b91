/**
 * Devices whose memory is the host's (integrated GPUs): kernels use arrays where they lie in the shared memory of WebAssembly, and nothing is copied. That memory
 * does not move, so windows of it are imported (VK_EXT_external_memory_host) when first used, and stay imported.
 */
import { float32 } from "../../core/dtype.ts";
import { expr } from "../../core/expr.ts";
import type { GpuDevice } from "../../core/gpu.ts";
import type { HostMemory } from "../../core/storage.ts";
import { elementwiseStep } from "../../codegen/elementwise-spirv.ts";
import type { Addon } from "./addon.ts";
import { CommandStream, type Range } from "./commands.ts";
import { encodeLaunch } from "./encode.ts";
import type { Allocation } from "./memory.ts";
import type { Pipelines } from "./pipelines.ts";

/**
 * Windows of level l begin at multiples of 2^l times this and are twice as long, so that every block of up to half a window lies whole inside one. Windows overlap;
 * Vulkan allows it, and a driver that does not refuses the import.
 */
const windowStep = 16 << 20;
/** Stands for the host's memory where ranges are compared. */
const hostBuffer = -1;

interface Window {
  readonly buffer: number;
  readonly start: number;
  readonly bytes: number;
  readonly address: bigint;
}

/** The host's memory as the device sees it. */
export class HostWindows {
  private readonly addon: Addon;
  private readonly memory: HostMemory;
  /** Most bytes of a window. */
  private readonly largest: number;
  private readonly alignment: number;
  /** By start and level; undefined: the driver refused it. */
  private readonly windows = new Map<string, Window | undefined>();
  private readonly starts = new Map<number, number>();

  constructor(addon: Addon, memory: HostMemory, alignment: number, largest: number) {
    this.addon = addon;
    this.memory = memory;
    this.alignment = alignment;
    this.largest = largest;
  }
  /** Where the device finds the bytes at an address of the host's memory, in a window for blocks of `span`. Undefined where they can not be imported. Throws DEVICE_LOST. */
  place(address: number, bytes: number, span = bytes): Allocation | undefined {
    const window = this.window(address, span);
    if (!window || address + bytes > window.start + window.bytes) return undefined;
    const offset = address - window.start;
    const at = window.address + BigInt(offset);
    return { buffer: window.buffer, offset, bytes, low: Number(at & 0xffffffffn), high: Number(at >> 32n) };
  }
  /** A range by its place in the host's memory, if it lies there: different windows show the same bytes. */
  readonly canonical = (range: Range): Range => {
    const start = this.starts.get(range.buffer);
    return start === undefined ? range : { buffer: hostBuffer, offset: start + range.offset, bytes: range.bytes };
  };
  private window(address: number, span: number): Window | undefined {
    let step = windowStep;
    while (step < span) step *= 2;
    const start = Math.floor(address / step) * step;
    const key = `${start} ${step}`;
    if (!this.windows.has(key)) {
      const all = this.memory.bytes(0, 0).buffer.byteLength;
      const bytes = Math.min(2 * step, Math.floor((all - start) / this.alignment) * this.alignment);
      this.windows.set(key, bytes > this.largest ? undefined : this.import(start, bytes));
    }
    return this.windows.get(key);
  }
  private import(start: number, bytes: number): Window | undefined {
    let buffer: number;
    try {
      buffer = this.addon.importHost(this.memory.bytes(start, bytes));
    } catch (error) {
      if ((error as { code?: string }).code === "DEVICE_LOST") throw error;
      return undefined;
    }
    this.starts.set(buffer, start);
    return { buffer, start, bytes, address: this.addon.bufferAddress(buffer) };
  }
}

interface Freed {
  readonly address: number;
  readonly bytes: number;
  /** Value of the timeline at which no work uses it any more. */
  readonly after: number;
}

/** Blocks of host memory that arrays gave back while work of the device may still use them. */
export class HostFrees {
  private readonly memory: HostMemory;
  private readonly list = new Set<Freed>();
  /** By size: blocks that only the device used. Work behind may use them at once. */
  private readonly bins = new Map<number, Freed[]>();
  constructor(memory: HostMemory) {
    this.memory = memory;
  }
  get pending(): boolean {
    return this.list.size > 0;
  }
  add(block: Freed, deviceOnly: boolean): void {
    this.list.add(block);
    if (!deviceOnly) return;
    const bin = this.bins.get(block.bytes);
    if (bin) bin.push(block);
    else this.bins.set(block.bytes, [block]);
  }
  /** Address of a block for the device's next result. */
  take(bytes: number): number | undefined {
    const block = this.bins.get(bytes)?.pop();
    if (!block) return undefined;
    this.list.delete(block);
    return block.address;
  }
  /** Gives the host what no work up to `completed` uses any more. */
  collect(completed: number): void {
    for (const block of this.list) {
      if (block.after > completed) continue;
      this.list.delete(block);
      const bin = this.bins.get(block.bytes);
      const at = bin?.indexOf(block) ?? -1;
      if (bin && at >= 0) bin.splice(at, 1);
      if (bin?.length === 0) this.bins.delete(block.bytes);
      this.memory.free(block.address, block.bytes);
    }
  }
}

/** Numbers of the start-up check, and the time after which the device is taken to hang. */
const sampleSize = 1024;
const checkMilliseconds = 60_000;

/**
 * Whether the device sees what the host writes and the other way round: a kernel adds 1 to numbers in host memory and a copy moves the result, each through another
 * window, and the host reads it. The device is idle before and after.
 */
export function checkWindows(windows: HostWindows, memory: HostMemory, addon: Addon, pipelines: Pipelines, device: GpuDevice): boolean {
  const bytes = 4 * sampleSize;
  memory.quiesce();
  const address = memory.alloc(3 * bytes);
  try {
    const inputs = [{ dtype: float32, strides: [1] }];
    const step = elementwiseStep({ shape: [sampleSize], inputs, outputs: [{ dtype: float32, value: expr.add(expr.input(0, float32), expr.const("f32", 1)) }], expr }, device);
    const [input, result, target] = [0, 1, 2].map((i) => windows.place(address + i * bytes, bytes)) as (Allocation | undefined)[];
    const source = windows.place(address + bytes, bytes, 2 * windowStep);
    if (typeof step === "string" || !input || !result || !source || !target) return false;
    const view = memory.bytes(address, 3 * bytes);
    const numbers = new Float32Array(view.buffer as ArrayBuffer, view.byteOffset, 3 * sampleSize);
    for (let round = 0; round < 2; round++) {
      numbers.fill(-1);
      for (let i = 0; i < sampleSize; i++) numbers[i] = i + round;
      const stream = new CommandStream({ canonical: windows.canonical });
      encodeLaunch(stream, pipelines, { steps: [step] }, (p) => ({ memory: p.of === "input" ? input : result, bytes: 0 }), () => ({ memory: input, bytes: 0 }), "check");
      stream.copy(source, target);
      stream.hostReads([target]);
      if (!addon.waitSync(addon.submit(stream.words, stream.length), checkMilliseconds)) throw Object.assign(new Error("no answer"), { code: "DEVICE_LOST" });
      if (numbers.some((x, i) => x !== (i % sampleSize) + round + (i < sampleSize ? 0 : 1))) return false;
    }
    return true;
  } finally {
    memory.free(address, 3 * bytes);
  }
}
