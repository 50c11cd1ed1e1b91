/** Choice of the device, reasons and remedies, pipeline cache files: no device needed. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { type DeviceIdentity, type DeviceInfo, loadAddon, loadAddonFrom } from "../src/backend/vulkan/addon.ts";
import { addonReason, chooseDevice, distributionOf, maskFeatures, probeReason, rankDevices } from "../src/backend/vulkan/device.ts";
import { cacheFile, readCache } from "../src/backend/vulkan/pipelines.ts";
import { skipReason } from "./helpers/vulkan.ts";

const device = (name: string, type: number, minor = 3): DeviceIdentity => ({
  name,
  type,
  apiVersion: (1 << 22) | (minor << 12),
  driver: "d",
  driverVersion: 1,
  vendorId: 0x10de,
  deviceId: 7,
  uuid: "",
  cacheUuid: "000102030405060708090a0b0c0d0e0f",
});
const devices = [device("llvmpipe (LLVM 15)", 4), device("Virtio", 3), device("Intel Iris", 1), device("NVIDIA A", 2), device("NVIDIA B", 2)];

test("discrete before integrated before virtual; software apart", () => {
  expect(rankDevices(devices)).toEqual({ hardware: [3, 4, 2, 1], software: [0] });
  expect(chooseDevice(devices, "")).toEqual({ index: 3 });
});
test("MLX_VK_DEVICE is a number or part of a name", () => {
  expect(chooseDevice(devices, "4")).toEqual({ index: 4 });
  expect(chooseDevice(devices, "nvidia")).toEqual({ index: 3 });
  expect(chooseDevice(devices, "LLVMPIPE")).toEqual({ index: 0 });
  expect(chooseDevice(devices, "radeon")).toEqual({
    index: undefined,
    reason: "MLX_VK_DEVICE=radeon names no device; there is 0 llvmpipe (LLVM 15), 1 Virtio, 2 Intel Iris, 3 NVIDIA A, 4 NVIDIA B",
  });
  expect(chooseDevice(devices, "5")).toMatchObject({ index: undefined });
  expect(chooseDevice([], "0")).toEqual({ index: undefined, reason: "MLX_VK_DEVICE=0 names no device; there are none" });
});
test("devices with less than Vulkan 1.3 are passed over, and named where there is nothing else", () => {
  const old = device("Old GPU", 2, 2);
  expect(chooseDevice([old, device("Intel Iris", 1)], "")).toEqual({ index: 1 });
  expect(chooseDevice([old, device("Old GPU Pro", 2)], "old")).toEqual({ index: 1 });
  const reason = "Old GPU offers only Vulkan 1.2, 1.3 is needed; update its driver";
  expect(chooseDevice([old], "")).toEqual({ index: undefined, reason });
  expect(chooseDevice([device("llvmpipe", 4), old], "")).toEqual({ index: undefined, reason });
  for (const wanted of ["0", "old"]) expect(chooseDevice([old], wanted)).toEqual({ index: undefined, reason: `MLX_VK_DEVICE=${wanted}: ${reason}` });
});

test("MLX_VK_MASK takes features away, with what depends on them", () => {
  const shape = { m: 16, n: 16, k: 16, a: 0, b: 0, c: 1, result: 1, scope: 3 };
  const bfloat = { ...shape, a: 1000141000, b: 1000141000 };
  const int8 = { ...shape, a: 3, b: 3, c: 5, result: 5 };
  const names = ["shaderFloat16", "shaderFloat64", "shaderInt8", "vulkanMemoryModel", "hostImport", "cooperativeMatrix", "bfloat16", "subgroupSizeControl", "timelineSemaphore"];
  const info = {
    ...device("GPU", 2),
    features: Object.fromEntries(names.map((n) => [n, true])),
    limits: { importAlignment: 4096 },
    subgroup: { size: 32, min: 8, max: 64, operations: 0 },
    unified: false,
    directUpload: true,
    cooperativeMatrix: [shape, bfloat, int8],
  } as unknown as DeviceInfo;
  expect(maskFeatures(info, "")).toBe(info);
  expect(maskFeatures(info, " cooperativeMatrix, ")).toMatchObject({ features: { cooperativeMatrix: false, bfloat16: false, shaderFloat16: true }, cooperativeMatrix: [], directUpload: true });
  expect(maskFeatures(info, "vulkanMemoryModel").features).toMatchObject({ vulkanMemoryModel: false, cooperativeMatrix: false, bfloat16: false });
  expect(maskFeatures(info, "bfloat16")).toMatchObject({ features: { bfloat16: false, cooperativeMatrix: true }, cooperativeMatrix: [shape, int8] });
  expect(maskFeatures(info, "shaderFloat16").cooperativeMatrix).toEqual([bfloat, int8]);
  expect(maskFeatures(info, "shaderInt8,directUpload")).toMatchObject({ cooperativeMatrix: [shape, bfloat], directUpload: false });
  expect(maskFeatures(info, "hostImport,subgroupSizeControl")).toMatchObject({ limits: { importAlignment: 0 }, subgroup: { size: 32, min: 32, max: 32 } });
  expect(info.features.cooperativeMatrix).toBe(true);
  expect(() => maskFeatures(info, "shaderFloat16,float8")).toThrow(/MLX_VK_MASK=shaderFloat16,float8: there is no feature "float8"; there are shaderFloat16, /);
  expect(() => maskFeatures(info, "timelineSemaphore")).toThrow(/no device is used without timelineSemaphore/);
});

test("a software rasterizer is used only when asked for", () => {
  const choice = chooseDevice([device("llvmpipe", 4)], "", "debian");
  expect(choice).toEqual({
    index: undefined,
    reason: "Vulkan finds only a software rasterizer (0 llvmpipe); apt install mesa-vulkan-drivers (AMD, Intel) or nvidia-driver, or set MLX_VK_DEVICE to use it all the same",
  });
});
test("reasons are one line and name the remedy for the distribution", () => {
  expect(distributionOf('ID=ubuntu\nID_LIKE="debian"\n')).toBe("debian");
  expect(distributionOf('NAME="Rocky"\nID="rocky"\nID_LIKE="rhel centos fedora"\n')).toBe("fedora");
  expect(distributionOf("ID=arch\n")).toBe("arch");
  expect(distributionOf("ID=alpine\n")).toBe("other");
  for (const where of ["debian", "fedora", "arch", "windows", "macos", "other"] as const) {
    const reasons = [
      addonReason("the Vulkan addon is not built", where),
      probeReason({ ok: false, code: "NO_VULKAN_LOADER", message: "" }, where),
      probeReason({ ok: false, code: "NO_VULKAN_DRIVER", message: "" }, where),
    ];
    for (const r of reasons) expect(r).toMatch(/^[^\n]+; .*(install|pacman -S)/);
    expect(new Set(reasons).size).toBe(3);
  }
  expect(addonReason("the Vulkan addon is not built", "fedora")).toBe("the Vulkan addon is not built; dnf install cmake gcc-c++, then npm rebuild mlx-vk");
});

const folders: string[] = [];
const folder = (): string => {
  const f = mkdtempSync(join(tmpdir(), "mlx-vk-"));
  folders.push(f);
  return f;
};
afterEach(() => {
  for (const f of folders.splice(0)) rmSync(f, { recursive: true });
});

test("a missing or broken addon is a reason, not an exception", () => {
  const f = folder();
  expect(loadAddonFrom(f)).toEqual({ addon: undefined, reason: "the Vulkan addon is not built" });
  mkdirSync(join(f, "native", "build", "Release"), { recursive: true });
  writeFileSync(join(f, "native", "build", "Release", "mlx_vk.node"), "not a library");
  expect(loadAddonFrom(join(f, "dist", "chunks"))).toMatchObject({ addon: undefined, reason: expect.stringMatching(/^the Vulkan addon cannot be loaded \([^\n]*\)$/) });
});

test("a cache file is used only whole and for its own device and driver", () => {
  const d = device("NVIDIA A", 2);
  const file = join(folder(), "cache.bin");
  const header = new Uint8Array(40);
  const view = new DataView(header.buffer);
  [32, 1, 0x10de, 7].forEach((x, i) => {
    view.setUint32(4 * i, x, true);
  });
  for (let i = 0; i < 16; i++) header[16 + i] = i;
  const write = (data: Uint8Array): void => writeFileSync(file, Buffer.concat([createHash("sha256").update(data).digest(), data]));
  expect(readCache(file, d)).toBeUndefined();
  expect(readCache(undefined, d)).toBeUndefined();
  write(header);
  expect(Array.from(readCache(file, d) ?? [])).toEqual(Array.from(header));
  expect(readCache(file, { ...d, deviceId: 8 })).toBeUndefined();
  expect(readCache(file, { ...d, cacheUuid: "ff" })).toBeUndefined();
  writeFileSync(file, Buffer.concat([createHash("sha256").update(header).digest(), header.subarray(0, 39)]));
  expect(readCache(file, d)).toBeUndefined();
  writeFileSync(file, "short");
  expect(readCache(file, d)).toBeUndefined();
  expect(cacheFile(d)).not.toBe(cacheFile({ ...d, driverVersion: 2 }));
});

test.skipIf(!loadAddon().addon)("no loader, no driver: each has its code, and the process lives", () => {
  const addon = JSON.stringify(join(import.meta.dirname, "..", "native", "build", "Release", "mlx_vk.node"));
  const probe = (options: string, environment: Record<string, string>): { ok: boolean; code?: string; devices?: unknown[] } => {
    const script = `const a = require(${addon}); const p = a.probe(${options}); let code; try { a.openDevice(0, ${options || "undefined"}) } catch (e) { code = e.code } console.log(JSON.stringify({ ...p, open: code }))`;
    const run = spawnSync(process.execPath, ["-e", script], { encoding: "utf8", env: { ...process.env, ...environment } });
    expect(run.status).toBe(0);
    return JSON.parse(run.stdout) as { ok: boolean };
  };
  expect(probe('{ loader: "/no/such/library.so" }', {})).toMatchObject({ ok: false, code: "NO_VULKAN_LOADER", open: "NO_VULKAN_LOADER" });
  if (skipReason !== undefined) return;
  const none = probe("", { VK_DRIVER_FILES: "/no/such/driver.json", VK_ICD_FILENAMES: "/no/such/driver.json" });
  // Newer loaders start without a driver and list no device.
  if (none.ok) expect(none).toMatchObject({ devices: [], open: "NO_VULKAN_DEVICE" });
  else expect(none).toMatchObject({ code: "NO_VULKAN_DRIVER", open: "NO_VULKAN_DRIVER" });
});
