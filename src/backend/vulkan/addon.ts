/**
 * The native addon (native/), typed. It is loaded when first asked for; without it, or when it does not fit this system, there is a reason
 * in one line and nothing else of the package is touched.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { GpuFeature, MatrixShape } from "../../core/gpu.ts";

/** Stable codes of the errors that the addon throws (property `code`). */
export type VulkanErrorCode =
  | "NO_VULKAN_LOADER"
  | "NO_VULKAN_DRIVER"
  | "NO_VULKAN_DEVICE"
  | "NO_VALIDATION_LAYER"
  | "VULKAN_TOO_OLD"
  | "VULKAN_FEATURES"
  | "VULKAN_ERROR"
  | "DEVICE_OPEN"
  | "DEVICE_NOT_OPEN"
  | "DEVICE_CLOSED"
  | "DEVICE_LOST"
  | "OUT_OF_DEVICE_MEMORY"
  | "OUT_OF_HOST_MEMORY"
  | "BAD_ID"
  | "BAD_RANGE"
  | "BAD_ARGUMENT"
  | "BAD_STREAM"
  | "NOT_MAPPED"
  | "NOT_READY"
  | "NO_EXTERNAL_BUFFERS"
  | "ENVIRONMENT_CLOSED"
  | "INTERNAL";

export interface DeviceIdentity {
  readonly name: string;
  /** 0 other, 1 integrated, 2 discrete, 3 virtual GPU, 4 CPU (VkPhysicalDeviceType). */
  readonly type: number;
  /** Packed as Vulkan does: major << 22 | minor << 12 | patch. */
  readonly apiVersion: number;
  readonly driver: string;
  readonly driverVersion: number;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly uuid: string;
  /** Changes whenever compiled pipelines of an earlier driver are of no use. */
  readonly cacheUuid: string;
}

export interface DeviceInfo extends DeviceIdentity {
  /** Bytes, counts; timestampPeriod in nanoseconds per tick (0: no timestamps); importAlignment 0: no import. */
  readonly limits: {
    readonly pushConstantBytes: number;
    readonly sharedMemoryBytes: number;
    readonly groupInvocations: number;
    readonly groupCount: readonly [number, number, number];
    readonly bufferBytes: number;
    readonly allocationBytes: number;
    readonly allocations: number;
    readonly importAlignment: number;
    readonly timestampPeriod: number;
  };
  readonly features: Readonly<Record<GpuFeature, boolean>>;
  readonly subgroup: { readonly size: number; readonly min: number; readonly max: number; readonly operations: number };
  /** Device memory is the host's memory. */
  readonly unified: boolean;
  /** There is memory on the device that the host can write (kind 3). */
  readonly directUpload: boolean;
  /** Shapes of cooperative matrices; component types and scope are Vulkan's numbers. */
  readonly cooperativeMatrix: readonly MatrixShape[];
}

export type Probe =
  | { readonly ok: true; readonly loader: number; readonly devices: readonly DeviceIdentity[] }
  | { readonly ok: false; readonly code: VulkanErrorCode; readonly message: string };

export interface OpenOptions {
  /** Turn on the validation layer; messages go to stderr and `takeMessages`. */
  readonly validation?: boolean;
  /** Synchronization validation too. */
  readonly sync?: boolean;
  /** Contents of a pipeline cache of the same device and driver. */
  readonly cache?: Uint8Array;
  /** Loader library to use instead of the system's. */
  readonly loader?: string;
  /** Simulate the loss of the device after this many submissions. */
  readonly loseAfter?: number;
}

/**
 * Where a buffer's memory lies: 0 on the device, 1 written by the host, 2 read by the host, 3 on the device and written by the host (like 1 where there is no
 * such memory, `DeviceInfo.directUpload`, or none left). 1 to 3 can be mapped; so can 0 where all memory is the host's.
 */
export type BufferKind = 0 | 1 | 2 | 3;
export interface PipelineOptions {
  /** Size of the push constants; every dispatch gives exactly as many. */
  readonly pushBytes: number;
  /** Specialization constants: id, value, id, value, ... */
  readonly constants?: Uint32Array;
  readonly subgroupSize?: number;
}

/** Functions of the addon. Objects are numbers; values of the timeline are numbers that `submit` and `replay` return. One device at a time. */
export interface Addon {
  /** Never throws. */
  probe(options?: { readonly loader?: string }): Probe;
  openDevice(index: number, options?: OpenOptions): DeviceInfo;
  /** Waits for all work, destroys everything; pending waits are rejected with DEVICE_CLOSED. */
  closeDevice(): void;
  /** Size, budget, usage in bytes of each heap. */
  memoryInfo(): Float64Array;
  createBuffer(bytes: number, kind: BufferKind): number;
  /** Uses host memory in place; it must begin and end at multiples of `limits.importAlignment` and not move. */
  importHost(memory: Uint8Array): number;
  /** Views become empty at once; the memory goes when all work submitted so far is done. */
  destroyBuffer(buffer: number): void;
  bufferAddress(buffer: number): bigint;
  mapBuffer(buffer: number): ArrayBuffer;
  writeBuffer(buffer: number, offset: number, source: ArrayBufferView): void;
  readBuffer(buffer: number, offset: number, target: ArrayBufferView): void;
  createPipeline(spirv: Uint32Array, options: PipelineOptions): number;
  createPipelineAsync(spirv: Uint32Array, options: PipelineOptions): Promise<number>;
  destroyPipeline(pipeline: number): void;
  pipelineCacheData(): Uint8Array;
  submit(words: Uint32Array, count: number): number;
  record(words: Uint32Array, count: number): number;
  replay(commands: number): number;
  freeCommands(commands: number): void;
  completed(): number;
  /** False when the time is over. */
  waitSync(value: number, milliseconds?: number): boolean;
  waitAsync(value: number): Promise<void>;
  /** Nanoseconds since query `first`. */
  timestamps(first: number, count: number, out: Float64Array): void;
  takeMessages(): string[];
}

/** The addon, or a line that says why there is none, under the package's folder; both are written by native/install.mjs. */
const place = join("native", "build", "Release", "mlx_vk.node");
const notePlace = join("native", "build", "not-built.txt");

/** A file of the package, looked for in this folder and those above: sources lie three folders below the package, bundles one or two. */
function findUp(from: string, file: string): string | undefined {
  for (let folder = from, i = 0; i < 5; i++, folder = dirname(folder)) {
    const path = join(folder, file);
    if (existsSync(path)) return path;
  }
  return undefined;
}

export type Loaded = { readonly addon: Addon } | { readonly addon: undefined; readonly reason: string };
let loaded: Loaded | undefined;

/** Loads the addon once per thread. */
export function loadAddon(): Loaded {
  loaded ??= loadAddonFrom(dirname(fileURLToPath(import.meta.url)));
  return loaded;
}

export function loadAddonFrom(folder: string): Loaded {
  try {
    const path = findUp(folder, place);
    if (path !== undefined) return { addon: createRequire(import.meta.url)(path) as Addon };
  } catch (error) {
    return { addon: undefined, reason: `the Vulkan addon cannot be loaded (${(error as Error).message.split("\n")[0]})` };
  }
  return { addon: undefined, reason: `the Vulkan addon is not built${noteOf(folder)}` };
}

function noteOf(folder: string): string {
  try {
    const path = findUp(folder, notePlace);
    const line = path === undefined ? "" : readFileSync(path, "utf8").split("\n")[0];
    return line ? ` (${line})` : "";
  } catch {
    return "";
  }
}
