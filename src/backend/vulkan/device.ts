/** Which device is used, and in one line why there is none and what to do about it. */
import { readFileSync } from "node:fs";
import { env } from "../../core/env.ts";
import type { GpuDevice } from "../../core/gpu.ts";
import { opError } from "../../core/error.ts";
import type { GpuFeature, MatrixShape } from "../../core/gpu.ts";
import { type DeviceIdentity, type DeviceInfo, type Probe, loadAddon } from "./addon.ts";

/** Vulkan 1.3, packed as Vulkan does: the least that is used. */
const leastVersion = (1 << 22) | (3 << 12);
const tooOld = (d: DeviceIdentity): boolean => d.apiVersion < leastVersion;
const version = (d: DeviceIdentity): string => `${d.apiVersion >>> 22}.${(d.apiVersion >>> 12) & 1023}`;

/** Devices with Vulkan 1.3 best first: discrete, integrated, virtual. Software rasterizers (CPU devices) come apart, in `software`. */
export function rankDevices(devices: readonly DeviceIdentity[]): { hardware: number[]; software: number[] } {
  const rank = [3, 1, 0, 2, 4];
  const all = [...devices.keys()].filter((i) => !tooOld(devices[i] as DeviceIdentity)).sort((a, b) => (rank[(devices[a] as DeviceIdentity).type] ?? 3) - (rank[(devices[b] as DeviceIdentity).type] ?? 3) || a - b);
  const software = (i: number): boolean => (devices[i] as DeviceIdentity).type === 4;
  return { hardware: all.filter((i) => !software(i)), software: all.filter(software) };
}

export type Choice = { readonly index: number } | { readonly index: undefined; readonly reason: string };

/**
 * Chooses a device. `wanted` (MLX_VK_DEVICE) is the number of a device or part of its name, any case; empty: the best one that is not a
 * software rasterizer.
 */
export function chooseDevice(devices: readonly DeviceIdentity[], wanted: string, distribution: Distribution = systemDistribution()): Choice {
  const { hardware, software } = rankDevices(devices);
  const names = devices.map((d, i) => `${i} ${d.name}`).join(", ");
  if (wanted === "") {
    const best = hardware[0];
    if (best !== undefined) return { index: best };
    const old = devices.find((d) => tooOld(d) && d.type !== 4);
    if (old) return { index: undefined, reason: `${old.name} offers only Vulkan ${version(old)}, 1.3 is needed; update its driver` };
    if (software.length === 0) return { index: undefined, reason: `Vulkan finds no device; ${remedies.driver[distribution]}` };
    return { index: undefined, reason: `Vulkan finds only a software rasterizer (${names}); ${remedies.driver[distribution]}, or set MLX_VK_DEVICE to use it all the same` };
  }
  const named = (i: number): boolean => (/^\d+$/.test(wanted) ? i === Number(wanted) : (devices[i] as DeviceIdentity).name.toLowerCase().includes(wanted.toLowerCase()));
  const found = [...hardware, ...software].find(named);
  if (found !== undefined) return { index: found };
  const old = devices.find((_, i) => named(i));
  if (old) return { index: undefined, reason: `MLX_VK_DEVICE=${wanted}: ${old.name} offers only Vulkan ${version(old)}, 1.3 is needed; update its driver` };
  return { index: undefined, reason: `MLX_VK_DEVICE=${wanted} names no device; there ${devices.length === 0 ? "are none" : `is ${names}`}` };
}

export type Distribution = "debian" | "fedora" | "arch" | "windows" | "macos" | "other";

/** The distribution family of an os-release file's text. */
export function distributionOf(osRelease: string): Distribution {
  const ids = [...osRelease.matchAll(/^ID(?:_LIKE)?=(.*)$/gm)].flatMap((m) => (m[1] as string).replaceAll('"', "").trim().toLowerCase().split(/\s+/));
  if (ids.some((id) => id === "debian" || id === "ubuntu")) return "debian";
  if (ids.some((id) => id === "fedora" || id === "rhel")) return "fedora";
  return ids.includes("arch") ? "arch" : "other";
}
let distribution: Distribution | undefined;
function systemDistribution(): Distribution {
  distribution ??= readDistribution();
  return distribution;
}
function readDistribution(): Distribution {
  if (process.platform === "win32") return "windows";
  if (process.platform === "darwin") return "macos";
  try {
    return distributionOf(readFileSync("/etc/os-release", "utf8"));
  } catch {
    return "other";
  }
}

type Remedy = Readonly<Record<Distribution, string>>;
const remedies: { readonly addon: Remedy; readonly loader: Remedy; readonly driver: Remedy } = {
  addon: {
    debian: "apt install cmake g++, then npm rebuild mlx-vk",
    fedora: "dnf install cmake gcc-c++, then npm rebuild mlx-vk",
    arch: "pacman -S cmake gcc, then npm rebuild mlx-vk",
    windows: "install CMake and the Visual Studio C++ build tools, then npm rebuild mlx-vk",
    macos: "xcode-select --install and brew install cmake, then npm rebuild mlx-vk",
    other: "install CMake and a C++17 compiler, then npm rebuild mlx-vk",
  },
  loader: {
    debian: "apt install libvulkan1 mesa-vulkan-drivers (NVIDIA: its own driver)",
    fedora: "dnf install vulkan-loader mesa-vulkan-drivers (NVIDIA: its own driver)",
    arch: "pacman -S vulkan-icd-loader and the driver's package (vulkan-radeon, vulkan-intel, nvidia-utils)",
    windows: "install the GPU maker's current driver, which brings vulkan-1.dll",
    macos: "brew install vulkan-loader molten-vk",
    other: "install the Vulkan loader and the GPU's driver",
  },
  driver: {
    debian: "apt install mesa-vulkan-drivers (AMD, Intel) or nvidia-driver",
    fedora: "dnf install mesa-vulkan-drivers (AMD, Intel) or akmod-nvidia",
    arch: "pacman -S vulkan-radeon, vulkan-intel or nvidia-utils",
    windows: "install the GPU maker's current driver",
    macos: "brew install molten-vk",
    other: "install the GPU's Vulkan driver",
  },
};

/** Reason and remedy for a probe that failed. */
export function probeReason(probe: Extract<Probe, { ok: false }>, where: Distribution = systemDistribution()): string {
  switch (probe.code) {
    case "NO_VULKAN_LOADER":
      return `no Vulkan loader is installed; ${remedies.loader[where]}`;
    case "NO_VULKAN_DRIVER":
      return `the Vulkan loader finds no driver; ${remedies.driver[where]}`;
    case "VULKAN_TOO_OLD":
      return `${probe.message}; ${remedies.loader[where]}`;
    default:
      return `Vulkan does not start: ${probe.message}`;
  }
}

/** Reason and remedy for a missing addon. */
export const addonReason = (reason: string, where: Distribution = systemDistribution()): string => `${reason}; ${remedies.addon[where]}`;

export type VulkanStatus =
  | { readonly available: true; readonly index: number; readonly device: DeviceIdentity; readonly devices: readonly DeviceIdentity[] }
  | { readonly available: false; readonly reason: string; readonly devices: readonly DeviceIdentity[] };

/** What there is to run on, and why not. Opens nothing. */
export function vulkanStatus(): VulkanStatus {
  const loaded = loadAddon();
  if (!loaded.addon) return { available: false, reason: addonReason(loaded.reason), devices: [] };
  const probe = loaded.addon.probe();
  if (!probe.ok) return { available: false, reason: probeReason(probe), devices: [] };
  const choice = chooseDevice(probe.devices, env("MLX_VK_DEVICE"));
  if (choice.index === undefined) return { available: false, reason: choice.reason, devices: probe.devices };
  return { available: true, index: choice.index, device: probe.devices[choice.index] as DeviceIdentity, devices: probe.devices };
}

/** Without these nothing runs. */
const needed: readonly GpuFeature[] = ["timelineSemaphore", "bufferDeviceAddress", "synchronization2"];
/** Component types of cooperative matrices that need a feature (Vulkan's numbers). */
const componentTypes: readonly (readonly [GpuFeature, readonly number[]])[] = [
  ["shaderFloat16", [0]],
  ["shaderFloat64", [2]],
  ["shaderInt8", [3, 7]],
  ["bfloat16", [1000141000]],
];

/**
 * The device as if it lacked the features that `mask` (MLX_VK_MASK) names, and what depends on them: any device can stand for a lesser one. `directUpload` is
 * a name too. Kernels are chosen by this; the device itself has all features on.
 */
export function maskFeatures(info: DeviceInfo, mask: string): DeviceInfo {
  const names = mask.split(",").map((n) => n.trim()).filter((n) => n !== "");
  if (names.length === 0) return info;
  const known = [...Object.keys(info.features), "directUpload"];
  const unknown = names.find((n) => !known.includes(n));
  if (unknown !== undefined) throw opError("gpu", `MLX_VK_MASK=${mask}: there is no feature ${JSON.stringify(unknown)}; there are ${known.join(", ")}`);
  const vital = needed.find((n) => names.includes(n));
  if (vital !== undefined) throw opError("gpu", `MLX_VK_MASK=${mask}: no device is used without ${vital}`);
  const features: Record<GpuFeature, boolean> = { ...info.features };
  for (const n of names) if (n !== "directUpload") features[n as GpuFeature] = false;
  features.cooperativeMatrix &&= features.vulkanMemoryModel;
  features.bfloat16 &&= features.cooperativeMatrix;
  const fits = (s: MatrixShape): boolean => componentTypes.every(([feature, types]) => features[feature] || ![s.a, s.b, s.c, s.result].some((t) => types.includes(t)));
  const { size } = info.subgroup;
  return {
    ...info,
    features,
    directUpload: info.directUpload && !names.includes("directUpload"),
    limits: features.hostImport ? info.limits : { ...info.limits, importAlignment: 0 },
    subgroup: features.subgroupSizeControl ? info.subgroup : { ...info.subgroup, min: size, max: size },
    cooperativeMatrix: features.cooperativeMatrix ? info.cooperativeMatrix.filter(fits) : [],
  };
}

/** What gates and launches see of an open device. */
export const gpuDevice = (info: DeviceInfo): GpuDevice => ({
  subgroupSize: info.subgroup.size,
  sharedMemoryBytes: info.limits.sharedMemoryBytes,
  groupInvocations: info.limits.groupInvocations,
  groupCount: info.limits.groupCount,
  features: info.features,
  cooperativeMatrix: info.cooperativeMatrix,
  vendorId: info.vendorId,
});
