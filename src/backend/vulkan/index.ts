/**
 * The GPU of this process: opened on first use. One queue; work runs in the order in which it is recorded, so memory can be given back and used again at
 * once, and copies to the device are ordered like kernels.
 */
import type { Epoch } from "../../core/array.ts";
import { backends } from "../../core/device.ts";
import { env } from "../../core/env.ts";
import { type MxError, opError } from "../../core/error.ts";
import type { GpuDevice, GpuLaunch, GpuPointer } from "../../core/gpu.ts";
import { type Storage, hostMemory, installDeviceMemory, installReclaim } from "../../core/storage.ts";
import type { Addon, BufferKind, DeviceInfo, OpenOptions } from "./addon.ts";
import { loadAddon } from "./addon.ts";
import { SharedBlock, VulkanBlock } from "./blocks.ts";
import { CommandStream, type Range } from "./commands.ts";
import { type VulkanStatus, maskFeatures, vulkanStatus, gpuDevice } from "./device.ts";
import { type Placed, encodeLaunch, pipelineOf, pushBytesOf, tableBytes, wordBytes } from "./encode.ts";
import { type Allocation, DeviceMemory } from "./memory.ts";
import { Pipelines, cacheFile, readCache } from "./pipelines.ts";
import { HostFrees, HostWindows, checkWindows } from "./unified.ts";

/** Bytes of one copy through staging memory, and of all that may wait for their copies at once. */
const stagingPiece = 16 << 20;
const stagingLimit = 64 << 20;
/** Fewer bytes are copied through staging memory: importing takes longer. */
const leastImport = 1 << 20;
const wordPageBytes = 64 << 10;
/** Type of a device that has no memory but the host's (VkPhysicalDeviceType). */
const integrated = 1;

const outOfMemory = (error: unknown): boolean => ["OUT_OF_DEVICE_MEMORY", "OUT_OF_HOST_MEMORY"].includes((error as { code?: string }).code ?? "");

const rangeOf = (a: Allocation, offset = 0, bytes = a.bytes - offset): Range => ({ buffer: a.buffer, offset: a.offset + offset, bytes });

/** Words that kernels read, gathered on the host and copied to the device in front of the list that uses them. */
interface WordPage {
  readonly host: Allocation;
  readonly device: Allocation;
  readonly words: Uint32Array;
  used: number;
}

/** What a recorded list needs as long as it may run again. */
export interface RecordedList {
  readonly commands: number;
  readonly memory: readonly Allocation[];
}

class TimelineEpoch implements Epoch {
  private readonly owner: VulkanBackend;
  private readonly value: number;
  private over = false;
  constructor(owner: VulkanBackend, value: number) {
    this.owner = owner;
    this.value = value;
  }
  get done(): boolean {
    this.over ||= this.owner.lost !== undefined || this.owner.reached(this.value);
    return this.over;
  }
  wait(): void {
    this.owner.wait(this.value);
  }
  promise(): Promise<void> {
    return this.owner.waitAsync(this.value);
  }
}

/** Measures work by timestamps; set by debug/profile.ts and, for a moment, by schedule/tune-measure.ts. */
export interface VulkanProfiler {
  /** Before a launch's commands are put into the stream, and after. `kept`: they belong to a recording. */
  launching(stream: CommandStream, kept: boolean): void;
  launched(stream: CommandStream, kept: boolean, name: string): void;
  /** The stream was submitted. */
  submitted(backend: VulkanBackend): void;
  /** The stream has become a recording; it runs; it is no more. */
  recorded(list: RecordedList): void;
  replayed(backend: VulkanBackend, list: RecordedList): void;
  released(list: RecordedList): void;
}
let profiler: VulkanProfiler | undefined;
/** Returns the one set before. */
export function setVulkanProfiler(p: VulkanProfiler | undefined): VulkanProfiler | undefined {
  const before = profiler;
  profiler = p;
  return before;
}

let openOptions: OpenOptions = {};
/** How the device is opened from now on; for tests. */
export const setVulkanOpenOptions = (options: OpenOptions): void => {
  openOptions = options;
};
let memoryLimit: number | undefined;
let cacheLimit: number | undefined;
/** Least bytes of unused buffers that are kept where nobody says how many. */
const leastCache = 2 ** 30;

export interface VulkanCounters {
  submissions: number;
  dispatches: number;
  /** Copies from the host to the device and back, and their bytes. */
  uploads: number;
  uploadedBytes: number;
  downloads: number;
  downloadedBytes: number;
  /** Copies that went through memory of the host that was imported, not through staging memory (MLX_VK_IMPORT). */
  imports: number;
  /** Times that an array of the host or a result was placed so that the device uses it in the host's memory, without copies (MLX_VK_UNIFIED). */
  inPlace: number;
  /** Waits of the host for the device. */
  syncs: number;
}

export class VulkanBackend {
  readonly addon: Addon;
  readonly info: DeviceInfo;
  readonly device: GpuDevice;
  readonly memory: DeviceMemory;
  readonly pipelines: Pipelines;
  readonly counters: VulkanCounters = { submissions: 0, dispatches: 0, uploads: 0, uploadedBytes: 0, downloads: 0, downloadedBytes: 0, imports: 0, inPlace: 0, syncs: 0 };
  /** Most bytes of unused buffers that are kept for later: by default a quarter of the device's memory. */
  cacheLimit: number;
  /** Timeline value of the last submission. */
  last = 0;
  /** Why the device is gone, if it is. */
  lost: MxError | undefined;
  private done = 0;
  private readonly stream: CommandStream;
  private operations = 0;
  /** Commands after which a list is submitted although more is to come, so that the device starts early. */
  private readonly operationsPerSubmission = Math.max(1, env("MLX_VK_MAX_OPS_PER_BUFFER"));
  private page: WordPage | undefined;
  /**
   * Device memory of word pages and nothing else. A page is filled in front of the list that is being recorded, so its memory must not be a piece that an earlier
   * command of the same list wrote before it was freed.
   */
  private readonly wordMemory: DeviceMemory;
  /** Staging memory of copies that are recorded, given back when their list is done. */
  private staging: Allocation[] = [];
  private stagingBytes = 0;
  /** Memory that a recording keeps; set while one is made. */
  private keeping: Allocation[] | undefined;
  /** The recording was submitted in pieces, so it can not run again. */
  private broken = false;
  /** Arrays are used in the host's memory, if that is on and works here. */
  private readonly windows: HostWindows | undefined;
  private readonly hostFrees: HostFrees | undefined;
  /** What was recorded writes host memory. */
  writesHost = false;
  /** The device is closed: nothing uses host memory any more. */
  private shut = false;

  constructor(addon: Addon, index: number) {
    const probe = addon.probe();
    const identity = probe.ok ? probe.devices[index] : undefined;
    const cache = identity && readCache(cacheFile(identity), identity);
    this.addon = addon;
    this.info = this.open(index, { ...(cache ? { cache } : {}), validation: env("MLX_VK_VALIDATION"), ...openOptions });
    const { info } = this;
    this.device = gpuDevice(info);
    const { bufferBytes, allocationBytes } = info.limits;
    const limit = memoryLimit ?? (env("MLX_VK_MEMORY_LIMIT") || Number.POSITIVE_INFINITY);
    this.memory = new DeviceMemory(addon, { limit, largest: Math.min(bufferBytes, allocationBytes) });
    this.cacheLimit = cacheLimit ?? Math.max(leastCache, Math.floor((addon.memoryInfo()[0] ?? 0) / 4));
    this.wordMemory = new DeviceMemory(addon, { blockBytes: 4 * wordPageBytes });
    this.memory.beforeTrim = () => {
      if (!this.keeping) this.submit();
    };
    this.memory.reclaim = () => {
      if (!this.keeping) this.submit();
      this.wait(this.last);
    };
    this.pipelines = new Pipelines(addon);
    this.windows = this.hostWindows();
    this.hostFrees = this.windows && new HostFrees(hostMemory());
    this.stream = new CommandStream({ debug: env("MLX_VK_HAZARDS"), ...(this.windows ? { canonical: this.windows.canonical } : {}) });
  }
  /** The device's view of the host's memory, where MLX_VK_UNIFIED allows it and it works. */
  private hostWindows(): HostWindows | undefined {
    const { type, limits } = this.info;
    const wish = env("MLX_VK_UNIFIED");
    if (limits.importAlignment === 0 || !(wish === "1" || (wish === "auto" && type === integrated))) return undefined;
    const windows = new HostWindows(this.addon, hostMemory(), limits.importAlignment, Math.min(limits.bufferBytes, limits.allocationBytes));
    let works = false;
    try {
      works = checkWindows(windows, hostMemory(), this.addon, this.pipelines, this.device);
      this.last = this.done = this.addon.completed();
    } catch (error) {
      // A device that is lost here says so at its first use.
      this.failure(error);
    }
    return works ? windows : undefined;
  }
  /** True when arrays are used in the host's memory. */
  get unified(): boolean {
    return this.windows !== undefined;
  }
  private open(index: number, options: OpenOptions): DeviceInfo {
    const info = this.addon.openDevice(index, options);
    try {
      return maskFeatures(info, env("MLX_VK_MASK"));
    } catch (error) {
      this.addon.closeDevice();
      throw error;
    }
  }

  /** Fresh memory for a storage. `kind` 2: the host reads it without a copy. */
  block(bytes: number, kind: BufferKind = 0): VulkanBlock {
    this.usable();
    return new VulkanBlock(this, this.guard(() => this.memory.allocate(Math.max(1, bytes), kind)), kind === 2);
  }
  /** Fresh memory for a result of the device: in the host's memory, if the device uses that in place. */
  result(bytes: number): VulkanBlock {
    return this.sharedResult(Math.max(1, bytes)) ?? this.block(bytes);
  }
  private sharedResult(bytes: number): SharedBlock | undefined {
    const { windows, hostFrees } = this;
    if (!windows || !hostFrees) return undefined;
    this.usable();
    let address = hostFrees.take(bytes);
    if (address === undefined) {
      // The host's commands that were recorded may use memory that was given back since.
      hostMemory().quiesce();
      address = this.hostBlock(bytes);
    }
    const memory = address === undefined ? undefined : this.guard(() => windows.place(address, bytes));
    if (memory) return this.shared(memory, address as number);
    if (address !== undefined) hostMemory().free(address, bytes);
    return undefined;
  }
  private hostBlock(bytes: number): number | undefined {
    for (const again of [true, false]) {
      try {
        return hostMemory().alloc(bytes);
      } catch {
        if (!again || !this.reclaimHost()) return undefined;
      }
    }
    return undefined;
  }
  private shared(memory: Allocation, address: number): SharedBlock {
    this.counters.inPlace++;
    return new SharedBlock(this, memory, address);
  }
  /** Waits until the host's memory that was given back is free. False when there was none. */
  reclaimHost(): boolean {
    if (!this.hostFrees?.pending || this.lost) return false;
    try {
      if (!this.keeping) this.submit();
      this.wait(this.last);
      this.collect();
      return true;
    } catch {
      return false;
    }
  }
  freeShared(address: number, bytes: number, hostUsed: boolean): void {
    const { hostFrees } = this;
    const after = this.operations > 0 || this.keeping ? this.last + 1 : this.last;
    if (!hostFrees || this.shut || this.over(after)) hostMemory().free(address, bytes);
    else hostFrees.add({ address, bytes, after }, !hostUsed);
  }
  private over(value: number): boolean {
    try {
      return value <= this.done || (value <= this.last && !this.lost && this.reached(value));
    } catch {
      return false;
    }
  }
  private collect(): void {
    this.memory.collect(this.done);
    this.hostFrees?.collect(this.done);
    this.keepCacheLimit();
  }

  /** The storage's memory on this device with the right bytes: copied from the host only when the device's are not right. */
  resident(storage: Storage): VulkanBlock {
    let block = storage.device as VulkanBlock | undefined;
    if (block && block.owner !== this) {
      if (!storage.hostValid && block.hostAddress !== undefined) storage.needHost();
      if (!storage.hostValid) throw block.owner.lost ?? opError("vulkan", "this array belongs to another device");
      storage.wroteHost();
      block = undefined;
    }
    if (!block) {
      const memory = this.windows && this.guard(() => this.windows?.place(storage.address, Math.max(1, storage.bytes)));
      block = memory ? this.shared(memory, storage.address) : this.block(storage.bytes);
      storage.device = block;
    }
    if (!storage.deviceValid) {
      hostMemory().quiesce();
      if (block.hostAddress === undefined) this.upload(block, 0, hostMemory().bytes(storage.address, storage.bytes));
      storage.deviceValid = true;
    }
    return block;
  }

  /** Makes the pipelines of a launch. Returns why one of them can not be made: then nothing of the launch may be recorded. */
  refusal(launch: GpuLaunch): string | undefined {
    this.usable();
    try {
      for (const step of launch.steps) if (step.groups.every((n) => n > 0)) pipelineOf(this.pipelines, step, pushBytesOf(step));
    } catch (error) {
      const failure = this.failure(error);
      if (failure === this.lost || outOfMemory(failure)) throw failure;
      return failure.message;
    }
    return undefined;
  }
  /** Records a launch. `constant` says for which operands `place` asks for words. Returns the number of dispatches. */
  launch(launch: GpuLaunch, place: (p: GpuPointer) => Placed, name: string, constant: (p: GpuPointer) => boolean = () => false): number {
    this.usable();
    this.makeRoom(tableBytes(launch, constant));
    profiler?.launching(this.stream, this.keeping !== undefined);
    const n = encodeLaunch(this.stream, this.pipelines, launch, place, this.words, name);
    profiler?.launched(this.stream, this.keeping !== undefined, name);
    this.operations += n;
    this.counters.dispatches += n;
    return n;
  }
  /** Records commands that were encoded before: `write` puts them into the stream. `table`: words that they read. Returns the number of dispatches. */
  append(table: readonly number[], dispatches: number, write: (stream: CommandStream, table: Placed | undefined) => void): number {
    this.usable();
    this.makeRoom(wordBytes(table.length));
    write(this.stream, table.length > 0 ? this.words(table) : undefined);
    this.operations += Math.max(1, dispatches);
    this.counters.dispatches += dispatches;
    return dispatches;
  }
  /** Temporary memory of a launch: given back at once, because work runs in order; a recording keeps it. */
  scratch(bytes: number): Allocation {
    this.usable();
    const a = this.memory.allocate(Math.max(4, bytes));
    if (this.keeping) this.keeping.push(a);
    return a;
  }
  freeScratch(a: Allocation): void {
    if (!this.keeping && !this.lost) this.memory.free(a);
  }
  /** True when enough is recorded for the device to start. */
  get ripe(): boolean {
    return this.operations >= this.operationsPerSubmission && !this.keeping;
  }

  /**
   * Sees to it that the page takes this many bytes more. A full page goes with its list, and may be used again behind it, so this comes before the commands that
   * will read the words.
   */
  private makeRoom(bytes: number): void {
    if (bytes === 0) return;
    if (this.page && this.page.used + bytes > this.page.host.bytes) {
      if (this.keeping) this.closePage();
      else this.submit();
    }
    this.page ??= this.openPage(Math.max(bytes, wordPageBytes));
  }
  /** Words in memory that the kernels of the launch that is being recorded can read. */
  readonly words = (words: readonly number[]): Placed => {
    const bytes = wordBytes(words.length);
    const { page } = this;
    if (!page || page.used + bytes > page.host.bytes) throw new Error("[vulkan] no room was made for the words of a launch");
    page.words.set(
      words.map((w) => w >>> 0),
      page.used / 4,
    );
    const placed = { memory: page.device, bytes: page.used };
    page.used += bytes;
    return placed;
  };
  private openPage(bytes: number): WordPage {
    const host = this.memory.allocate(bytes, 1);
    // A recording frees nothing while it is made, and keeps its pages.
    const device = (this.keeping ? this.memory : this.wordMemory).allocate(bytes);
    return { host, device, words: new Uint32Array(this.addon.mapBuffer(host.buffer), host.offset, Math.floor(bytes / 4)), used: 0 };
  }
  /** Recordings only: copies the page at once, since the recorded list will read it again and again. */
  private closePage(): void {
    const { page } = this;
    if (!page) return;
    this.page = undefined;
    const side = new CommandStream();
    if (page.used > 0) side.copy(rangeOf(page.host, 0, page.used), rangeOf(page.device, 0, page.used));
    this.last = this.guard(() => this.addon.submit(side.words, side.length));
    this.memory.free(page.host, this.last);
    this.keeping?.push(page.device);
  }

  /** Copies host bytes to the device, behind everything recorded. During a recording: before it. */
  private upload(block: VulkanBlock, offset: number, from: Uint8Array): void {
    if (!this.keeping && this.copyImported(from, (range) => this.stream.copy(range, rangeOf(block.memory, offset, from.length)))) {
      this.counters.uploads++;
      this.counters.uploadedBytes += from.length;
      return;
    }
    this.fill(block, offset, from.length, (into, at) => into.set(from.subarray(at, at + into.length)));
  }
  /** Fills device memory piece by piece: `read` writes the bytes from `at` on into staging memory. */
  fill(block: VulkanBlock, offset: number, bytes: number, read: (into: Uint8Array, at: number) => void): void {
    this.usable();
    this.counters.uploads++;
    this.counters.uploadedBytes += bytes;
    const stream = this.keeping ? new CommandStream() : this.stream;
    const used: Allocation[] = [];
    for (let at = 0; at < bytes; at += stagingPiece) {
      const n = Math.min(stagingPiece, bytes - at);
      if (!this.keeping && this.stagingBytes + n > stagingLimit) this.drainStaging();
      const piece = this.memory.allocate(n, 1);
      if (this.keeping) used.push(piece);
      else {
        this.staging.push(piece);
        this.stagingBytes += n;
      }
      read(new Uint8Array(this.addon.mapBuffer(piece.buffer), piece.offset, n), at);
      stream.copy(rangeOf(piece, 0, n), rangeOf(block.memory, offset + at, n));
    }
    if (!this.keeping) {
      this.operations++;
      return;
    }
    this.last = this.guard(() => this.addon.submit(stream.words, stream.length));
    for (const piece of used) this.memory.free(piece, this.last);
  }
  /**
   * Records a copy from or to host bytes that the device uses in place, and waits for it, since the host may change them afterwards. False when they can not be
   * imported: shared memory of WebAssembly does not move, other memory may.
   */
  private copyImported(bytes: Uint8Array, record: (range: Range) => void): boolean {
    const alignment = this.info.limits.importAlignment;
    if (bytes.length < leastImport || alignment === 0 || !env("MLX_VK_IMPORT") || !(bytes.buffer instanceof SharedArrayBuffer)) return false;
    this.usable();
    const start = Math.floor(bytes.byteOffset / alignment) * alignment;
    const end = Math.ceil((bytes.byteOffset + bytes.length) / alignment) * alignment;
    if (end > bytes.buffer.byteLength) return false;
    let buffer: number;
    try {
      buffer = this.addon.importHost(new Uint8Array(bytes.buffer, start, end - start));
    } catch (error) {
      const failure = this.failure(error);
      if (failure === this.lost) throw failure;
      return false;
    }
    record({ buffer, offset: bytes.byteOffset - start, bytes: bytes.length });
    this.operations++;
    this.wait(this.submit());
    this.addon.destroyBuffer(buffer);
    this.counters.imports++;
    return true;
  }
  private drainStaging(): void {
    this.wait(this.submit());
  }
  /** Overwrites bytes of a block, in order with the recorded work. */
  write(block: VulkanBlock, offset: number, from: Uint8Array): void {
    this.usable();
    if (offset % 4 === 0 && from.length % 4 === 0 && from.length <= 65536) {
      const words = new Uint32Array(from.slice().buffer);
      this.stream.update(rangeOf(block.memory, offset, from.length), words);
      this.operations++;
    } else this.upload(block, offset, from);
  }
  /** Waits for all work and copies a block to the host. */
  download(block: VulkanBlock, to: Uint8Array): void {
    this.usable();
    this.counters.downloads++;
    this.counters.downloadedBytes += to.length;
    if (block.mapped) {
      this.wait(this.submit());
      this.addon.readBuffer(block.memory.buffer, block.memory.offset, to);
      return;
    }
    const source = rangeOf(block.memory, 0, to.length);
    const imported = this.copyImported(to, (range) => {
      this.stream.copy(source, range);
      this.stream.hostReads([range]);
    });
    for (let at = imported ? to.length : 0; at < to.length; at += stagingPiece) {
      const n = Math.min(stagingPiece, to.length - at);
      const piece = this.memory.allocate(n, 2);
      const range = rangeOf(piece, 0, n);
      this.stream.copy(rangeOf(block.memory, at, n), range);
      this.stream.hostReads([range]);
      this.operations++;
      this.wait(this.submit());
      this.addon.readBuffer(piece.buffer, piece.offset, to.subarray(at, at + n));
      this.memory.free(piece);
    }
  }

  /** The host will read a mapped block when the recorded work is done. */
  hostReads(block: VulkanBlock): void {
    this.stream.hostReads([rangeOf(block.memory)]);
  }

  /** Submits what was recorded. Returns the timeline value that the device will have reached when it is done. */
  submit(): number {
    this.usable();
    if (this.operations === 0) return this.last;
    const recording = this.keeping !== undefined;
    if (recording) this.broken = true;
    const { stream, page } = this;
    this.hostBarrier();
    // What is known to be done survives the loss of the device.
    if (this.windows) this.reached(this.last);
    this.reportHazards();
    let words = stream.words;
    let length = stream.length;
    if (page && page.used > 0) {
      const front = new CommandStream();
      front.copy(rangeOf(page.host, 0, page.used), rangeOf(page.device, 0, page.used));
      words = new Uint32Array(front.length + length);
      words.set(front.words.subarray(0, front.length));
      words.set(stream.words.subarray(0, length), front.length);
      length = words.length;
    }
    this.operations = 0;
    this.writesHost = false;
    this.page = undefined;
    const staging = this.staging;
    this.staging = [];
    this.stagingBytes = 0;
    try {
      this.last = this.send(words, length);
    } finally {
      stream.clear();
      for (const s of staging) this.memory.free(s, this.last);
      if (page) {
        this.memory.free(page.host, this.last);
        (recording ? this.memory : this.wordMemory).free(page.device);
      }
    }
    this.counters.submissions++;
    profiler?.submitted(this);
    this.collect();
    return this.last;
  }
  /** A list that the driver has no memory for is tried again when the device is idle. If that fails too, the content of its results is lost. */
  private send(words: Uint32Array, length: number): number {
    try {
      return this.addon.submit(words, length);
    } catch (error) {
      const failure = this.failure(error);
      if (!outOfMemory(failure)) throw failure;
    }
    this.wait(this.last);
    try {
      return this.addon.submit(words, length);
    } catch (error) {
      throw this.lost ?? this.lose(error as Error);
    }
  }
  /** The host will see what the list writes in its memory, once the list is done. */
  private hostBarrier(): void {
    if (this.writesHost) this.stream.barrier("hostBarrier");
  }
  private reportHazards(): void {
    if (!env("MLX_VK_HAZARDS")) return;
    const found = this.stream.hazards();
    if (found.length > 0) throw opError("vulkan", `commands without a barrier between them: ${found.slice(0, 3).join("; ")}`);
  }

  /** From now on commands belong to a recording. */
  beginRecording(): void {
    if (this.keeping) throw opError("Recording", "a recording is being made already");
    this.submit();
    this.keeping = [];
    this.broken = false;
  }
  /** Ends a recording: its commands, to be run by `replay`. Undefined when it was submitted in pieces because the host had to read results. */
  endRecording(): RecordedList | undefined {
    const { stream, keeping } = this;
    if (this.broken) {
      this.submit();
      this.keeping = undefined;
      for (const a of keeping as Allocation[]) this.memory.free(a);
      return undefined;
    }
    try {
      this.closePage();
      this.hostBarrier();
      this.reportHazards();
      const list = { commands: this.guard(() => this.addon.record(stream.words, stream.length)), memory: keeping as Allocation[] };
      profiler?.recorded(list);
      return list;
    } finally {
      stream.clear();
      this.operations = 0;
      this.writesHost = false;
      this.keeping = undefined;
    }
  }
  replay(list: RecordedList): number {
    this.submit();
    this.last = this.guard(() => this.addon.replay(list.commands));
    this.counters.submissions++;
    profiler?.replayed(this, list);
    return this.last;
  }
  releaseRecording(list: RecordedList): void {
    profiler?.released(list);
    if (this.lost) return;
    this.addon.freeCommands(list.commands);
    for (const a of list.memory) this.memory.free(a);
  }

  epoch(value: number): Epoch {
    return new TimelineEpoch(this, value);
  }
  reached(value: number): boolean {
    if (value <= this.done) return true;
    this.done = this.guard(() => this.addon.completed());
    return value <= this.done;
  }
  /** Work that was over before the device was lost is over. */
  wait(value: number): void {
    if (value <= this.done) return;
    if (this.lost) throw this.lost;
    this.counters.syncs++;
    const stall = env("MLX_STALL_SECONDS");
    if (!this.guard(() => this.addon.waitSync(value, stall * 1000))) throw this.lose(new Error(`no answer for ${stall} s`));
    this.done = Math.max(this.done, value);
    this.collect();
  }
  async waitAsync(value: number): Promise<void> {
    if (value <= this.done) return;
    if (this.lost) throw this.lost;
    try {
      await this.addon.waitAsync(value);
    } catch (error) {
      throw this.failure(error);
    }
    this.done = Math.max(this.done, value);
  }
  private usable(): void {
    if (this.lost) throw this.lost;
  }
  private guard<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw this.failure(error);
    }
  }
  private failure(error: unknown): Error {
    const code = (error as { code?: string }).code;
    if (code === "DEVICE_LOST" || code === "DEVICE_CLOSED") return this.lost ?? this.lose(error as Error);
    return error as Error;
  }
  private lose(cause: Error): MxError {
    const error = opError("vulkan", `the device ${this.info.name} was lost (${cause.message}); arrays that only it held are gone, the next use opens it again`);
    this.lost = Object.assign(error, { code: "DEVICE_LOST" });
    return this.lost;
  }
  synchronize(): void {
    this.wait(this.submit());
    this.collect();
  }
  /** Gives unused buffers back where more are kept than wanted. Not between commands of a list, which may name them: at its end it is done. */
  keepCacheLimit(): void {
    if (this.memory.counters.cached > this.cacheLimit && this.operations === 0 && !this.keeping) this.memory.trim();
  }
  /** Gives buffers without arrays back to the driver. */
  trim(): void {
    this.synchronize();
    this.memory.trim();
  }
  /** Writes the driver's compiled code to disk. */
  save(): void {
    if (!this.lost) this.pipelines.save(cacheFile(this.info));
  }
  /** Closes a device that is lost, or about to be. */
  shutDown(): void {
    try {
      this.addon.closeDevice();
    } finally {
      this.shut = true;
      this.hostFrees?.collect(Number.POSITIVE_INFINITY);
    }
  }
  /** Throws what the validation layers said, if they are on. */
  close(): void {
    this.save();
    this.lost ??= opError("vulkan", "the device was closed");
    this.shutDown();
    const messages = this.addon.takeMessages();
    if (messages.length > 0) throw opError("vulkan", `validation: ${[...new Set(messages)].slice(0, 5).join("\n")}`);
  }
}

let backend: VulkanBackend | undefined;
let status: VulkanStatus | undefined;
/** What there is, looked up once per process. */
export function gpuStatus(): VulkanStatus {
  status ??= vulkanStatus();
  return status;
}
let saved = false;
/** The GPU. Throws with reason and remedy when there is none; after a loss it is opened again. */
export function vulkanBackend(): VulkanBackend {
  if (backend && !backend.lost) return backend;
  if (backend) {
    try {
      backend.shutDown();
    } catch {
      // It is gone either way.
    }
    backend = undefined;
  }
  const found = gpuStatus();
  if (!found.available) throw opError("gpu", found.reason);
  const { addon } = loadAddon();
  const opened = new VulkanBackend(addon as Addon, found.index);
  if (!saved) {
    saved = true;
    process.once("exit", () => {
      try {
        backend?.save();
      } catch {
        // A cache may be lost.
      }
    });
  }
  backend = opened;
  return opened;
}
/** Sets the most bytes of device memory that buffers may take together; returns the limit before. */
export function setDeviceMemoryLimit(bytes: number): number {
  const before = openVulkan()?.memory.limit ?? memoryLimit ?? (env("MLX_VK_MEMORY_LIMIT") || Number.POSITIVE_INFINITY);
  memoryLimit = Math.max(0, bytes);
  const open = openVulkan();
  if (open) open.memory.limit = memoryLimit;
  return before;
}
/** Sets the most bytes of unused buffers that are kept; returns the limit before. */
export function setDeviceCacheLimit(bytes: number): number {
  const open = openVulkan();
  const before = open?.cacheLimit ?? cacheLimit ?? leastCache;
  cacheLimit = Math.max(0, bytes);
  if (open) {
    open.cacheLimit = cacheLimit;
    open.keepCacheLimit();
  }
  return before;
}
/** The GPU if it is in use. */
export const openVulkan = (): VulkanBackend | undefined => (backend && !backend.lost ? backend : undefined);

backends.set("gpu", {
  get available(): boolean {
    return gpuStatus().available;
  },
  get reason(): string {
    const s = gpuStatus();
    return s.available ? "" : s.reason;
  },
});
installReclaim(() => openVulkan()?.reclaimHost() ?? false);
installDeviceMemory({
  load: (bytes, read) => {
    const gpu = vulkanBackend();
    const block = gpu.block(bytes);
    try {
      gpu.fill(block, 0, bytes, read);
    } catch (error) {
      block.release();
      throw error;
    }
    return block;
  },
});
