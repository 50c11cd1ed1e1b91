/** Pipelines made on demand, and the driver's compiled code kept on disk per device and driver. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { env } from "../../core/env.ts";
import type { GpuStep } from "../../core/gpu.ts";
import type { Addon, DeviceIdentity, PipelineOptions } from "./addon.ts";

export interface PipelineSource extends PipelineOptions {
  /** SPIR-V, made when the pipeline is. */
  readonly code: () => Uint32Array;
}

/** Pipelines by key. Equal keys must mean equal sources. */
export class Pipelines {
  private readonly addon: Addon;
  private readonly made = new Map<string, number>();
  /** Pipelines of steps that were asked for before. */
  readonly ofSteps = new WeakMap<GpuStep, number>();
  private readonly making = new Map<string, Promise<number>>();
  /** Pipelines made since the cache file was written. */
  private unsaved = 0;

  constructor(addon: Addon) {
    this.addon = addon;
  }
  get size(): number {
    return this.made.size;
  }

  /** The pipeline of this key; made at once where there is none. */
  get(key: string, source: PipelineSource): number {
    const known = this.made.get(key);
    return known ?? this.add(key, this.addon.createPipeline(source.code(), source));
  }

  /** Like `get`, compiling on another thread. */
  async prepare(key: string, source: PipelineSource): Promise<number> {
    const known = this.made.get(key);
    if (known !== undefined) return known;
    let promise = this.making.get(key);
    if (!promise) {
      promise = this.addon
        .createPipelineAsync(source.code(), source)
        .then((id) => {
          const first = this.made.get(key);
          if (first === undefined) return this.add(key, id);
          // `get` was quicker.
          this.addon.destroyPipeline(id);
          return first;
        })
        .finally(() => this.making.delete(key));
      this.making.set(key, promise);
    }
    return promise;
  }

  private add(key: string, id: number): number {
    this.made.set(key, id);
    this.unsaved++;
    return id;
  }

  /** Writes the driver's compiled code to the file, if there is any that was not written. Never throws: a cache may be lost. */
  save(file: string | undefined): boolean {
    if (file === undefined || this.unsaved === 0) return false;
    const saved = writeCache(file, this.addon.pipelineCacheData());
    if (saved) this.unsaved = 0;
    return saved;
  }
}

/** Folder of what is kept between processes; undefined when MLX_VK_CACHE is 0. */
export function cacheFolder(): string | undefined {
  const folder = env("MLX_VK_CACHE");
  if (folder === "0") return undefined;
  return folder === "" ? join(homedir(), ".cache", "mlx-vk") : folder;
}
/** File of a device's compiled pipelines; undefined when MLX_VK_CACHE is 0. */
export function cacheFile(device: DeviceIdentity): string | undefined {
  const folder = cacheFolder();
  if (folder === undefined) return undefined;
  const identity = [device.vendorId, device.deviceId, device.driverVersion, device.cacheUuid, device.name, device.driver].join("/");
  const hash = createHash("sha256").update(identity).digest("hex").slice(0, 16);
  return join(folder, `pipelines-${hash}.bin`);
}

const checksumBytes = 32;
const checksum = (data: Uint8Array): Uint8Array => createHash("sha256").update(data).digest();

/** Contents of a cache file; undefined when it is missing, damaged or of another device. Drivers trust what they are given, so this does not. */
export function readCache(file: string | undefined, device: DeviceIdentity): Uint8Array | undefined {
  if (file === undefined) return undefined;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch {
    return undefined;
  }
  // Vulkan's header: its length, version 1, vendor, device, 16 bytes of the driver's id.
  const data = bytes.subarray(checksumBytes);
  if (data.length < 32 || !Buffer.from(checksum(data)).equals(bytes.subarray(0, checksumBytes))) return undefined;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const uuid = Buffer.from(data.subarray(16, 32)).toString("hex");
  const fits = view.getUint32(4, true) === 1 && view.getUint32(8, true) === device.vendorId && view.getUint32(12, true) === device.deviceId && uuid === device.cacheUuid;
  return fits ? data : undefined;
}

/** Written beside and renamed, so that other processes never read half a file. */
function writeCache(file: string, data: Uint8Array): boolean {
  try {
    mkdirSync(dirname(file), { recursive: true });
    const temporary = `${file}.${process.pid}`;
    writeFileSync(temporary, Buffer.concat([checksum(data), data]));
    renameSync(temporary, file);
    return true;
  } catch {
    return false;
  }
}
