/** What this machine offers to the backends, and what of it is used. */
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from "node:os";
import { loadAddon } from "../backend/vulkan/addon.ts";
import { vulkanStatus } from "../backend/vulkan/device.ts";
import { vulkanBackend } from "../backend/vulkan/index.ts";
import { cpuFeatures } from "../backend/wasm/features.ts";
import { wasmBackend } from "../backend/wasm/index.ts";
import { relaxedSimdWorks } from "../backend/wasm/modules.ts";
import { type Device, type DeviceType, backends, defaultDevice, defaultStream, isAvailable } from "../core/device.ts";
import { env } from "../core/env.ts";

export interface SystemInfo {
  /** Versions of Node and of its engine. */
  node: string;
  v8: string;
  system: string;
  cpu: string;
  /** Those that matter for kernels; undefined where the system does not tell. */
  cpuFeatures: string[] | undefined;
  /** Cores this process may use. */
  cores: number;
  threads: number;
  /** Which build of the kernels runs, and why. */
  kernels: string;
  /** Whether V8 pairs vectors (MLX_WASM_REVEC), and why. */
  pairing: string;
  /** Bytes: of the machine, free, and that arrays may take. */
  memoryTotal: number;
  memoryFree: number;
  memoryLimit: number;
  backends: { device: string; available: boolean; reason?: string }[];
  /** The Vulkan device that the GPU backend takes, or in one line why there is none and what to do about it. */
  vulkan: VulkanInfo;
}

export interface VulkanInfo {
  /** The native addon is built and loads. */
  addon: boolean;
  device?: string;
  driver?: string;
  /** Version of Vulkan that the device offers. */
  api?: string;
  /** Bytes of its largest heap of device memory. */
  memory?: number;
  subgroupSize?: number;
  /** Kernels for matrix units can run. */
  cooperativeMatrix?: boolean;
  reason?: string;
}

const apiText = (v: number): string => `${v >>> 22}.${(v >>> 12) & 1023}.${v & 4095}`;
/** Opens the device: its memory and features are not known before. */
function vulkanInfo(): VulkanInfo {
  const addon = loadAddon().addon !== undefined;
  const status = vulkanStatus();
  if (!status.available) return { addon, reason: status.reason };
  const { name, driver, apiVersion } = status.device;
  const found = { addon, device: name, driver, api: apiText(apiVersion) };
  try {
    const { info, addon: open } = vulkanBackend();
    return { ...found, memory: open.memoryInfo()[0] ?? 0, subgroupSize: info.subgroup.size, cooperativeMatrix: info.features.cooperativeMatrix };
  } catch (error) {
    return { ...found, reason: (error as Error).message.split("\n", 1)[0] as string };
  }
}

/** What this machine offers, and what of it is used. */
export function systemInfo(): SystemInfo {
  const { memory, pool, pairing } = wasmBackend();
  const relaxed = relaxedSimdWorks(env("MLX_RELAXED_SIMD"));
  const why = env("MLX_RELAXED_SIMD") === "0" ? "MLX_RELAXED_SIMD=0" : "Node 22 or newer is needed";
  return {
    node: process.versions.node,
    v8: process.versions.v8,
    system: `${platform()} ${release()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cpuFeatures: cpuFeatures(),
    cores: availableParallelism(),
    threads: pool.threads,
    kernels: relaxed ? "relaxed SIMD" : `plain SIMD (${why} for relaxed SIMD)`,
    pairing: `${pairing.on ? "on" : "off"} (${pairing.reason})`,
    memoryTotal: totalmem(),
    memoryFree: freemem(),
    memoryLimit: memory.counters.limit,
    backends: [...backends].map(([device, state]) => ({ device, available: state.available, ...(state.reason === undefined ? {} : { reason: state.reason }) })),
    vulkan: vulkanInfo(),
  };
}

export interface DeviceInfo {
  readonly deviceName: string;
  /** Of the processor, as Node names it: x64, arm64, ... */
  readonly architecture: string;
  /** Bytes that arrays on the device may take. */
  readonly memorySize: number;
}
/** What is known about a device (default: the default device). Throws when it is not available. */
export function deviceInfo(d: Device | DeviceType = defaultDevice()): DeviceInfo {
  const { device } = defaultStream(d);
  if (device.type === "gpu") {
    const { info, addon } = vulkanBackend();
    return { deviceName: info.name, architecture: "vulkan", memorySize: addon.memoryInfo()[0] ?? 0 };
  }
  return { deviceName: cpus()[0]?.model.trim() ?? "unknown", architecture: arch(), memorySize: wasmBackend().memory.counters.limit };
}
/** Number of devices of a type that work can run on. */
export const deviceCount = (d: Device | DeviceType = defaultDevice()): number => Number(isAvailable(d));
