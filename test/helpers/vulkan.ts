/** The Vulkan device that tests use: any, software rasterizers included. Where there is none, tests skip, or fail under MLX_REQUIRE=vulkan. */
import { join } from "node:path";
import { type Addon, type DeviceInfo, type OpenOptions, loadAddon } from "../../src/backend/vulkan/addon.ts";
import { CommandStream } from "../../src/backend/vulkan/commands.ts";
import { addonReason, chooseDevice, probeReason, rankDevices } from "../../src/backend/vulkan/device.ts";
import { Pipelines, cacheFile, readCache } from "../../src/backend/vulkan/pipelines.ts";
import { elementwiseSpirv, pushWords } from "../../src/codegen/elementwise-spirv.ts";
import { type Dtype, bitsArray } from "../../src/core/dtype.ts";
import { type Value, expr } from "../../src/core/expr.ts";
import type { TestInput } from "./group.ts";

// Compiled pipelines of tests stay in the checkout.
process.env["MLX_VK_CACHE"] ??= join(import.meta.dirname, "..", "..", ".cache", "vulkan");

export const vulkanRequired = (process.env["MLX_REQUIRE"] ?? "").split(",").includes("vulkan");

type Found = { readonly addon: Addon; readonly index: number } | { readonly addon: undefined; readonly reason: string };
function find(): Found {
  const loaded = loadAddon();
  if (!loaded.addon) return { addon: undefined, reason: addonReason(loaded.reason) };
  const probe = loaded.addon.probe();
  if (!probe.ok) return { addon: undefined, reason: probeReason(probe) };
  const choice = chooseDevice(probe.devices, process.env["MLX_VK_DEVICE"] ?? "");
  const index = choice.index ?? rankDevices(probe.devices).software[0];
  return index === undefined ? { addon: undefined, reason: "no device" } : { addon: loaded.addon, index };
}
const found = find();
if (!found.addon && vulkanRequired) throw new Error(`MLX_REQUIRE=vulkan: ${found.reason}`);
/** Why device tests are skipped; undefined when they run. */
export const skipReason = found.addon ? undefined : found.reason;

export interface TestDevice {
  readonly addon: Addon;
  readonly info: DeviceInfo;
  readonly pipelines: Pipelines;
}
export const addon = found.addon as Addon;
/** Opens the device; `addon.closeDevice()` when done. Compiled pipelines are kept on disk between processes, because lavapipe is slow to make them. */
export function openTestDevice(options: OpenOptions = {}): TestDevice {
  if (!found.addon) throw new Error(found.reason);
  const probe = found.addon.probe();
  const identity = probe.ok ? probe.devices[found.index] : undefined;
  const cache = identity && readCache(cacheFile(identity), identity);
  const info = found.addon.openDevice(found.index, { ...(cache ? { cache } : {}), ...options });
  return { addon: found.addon, info, pipelines: new Pipelines(found.addon) };
}
export function closeTestDevice(device: TestDevice): void {
  device.pipelines.save(cacheFile(device.info));
  device.addon.closeDevice();
}

const guard = 256;
const poison = 0xaa;

/** Two words of an address. */
export function addressWords(address: bigint): { low: number; high: number } {
  return { low: Number(address & 0xffffffffn), high: Number(address >> 32n) };
}

/**
 * Runs a group on the device and gives the bits of each output. Operands lie in one buffer, between guard bytes; throws when a guard byte of an output changed.
 * `over`: output 0 lies over this input.
 */
export function runOnDevice(device: TestDevice, shape: readonly number[], inputs: readonly TestInput[], outputs: readonly { dtype: Dtype; value: Value }[], over?: number) {
  const { addon } = device;
  const launch = elementwiseSpirv({ shape, inputs, outputs, expr }, device.info.features);
  if (typeof launch === "string") throw new Error(launch);
  const size = shape.reduce((a, b) => a * b, 1);
  const bytes = [...inputs.map((x) => x.data.byteLength), ...outputs.map((o) => size * o.dtype.size)];
  let top = guard;
  const places = bytes.map((n) => {
    const at = top;
    top = (at + n + guard + 63) & ~63;
    return at;
  });
  if (over !== undefined) places[inputs.length] = places[over] as number;
  const staging = new Uint8Array(top).fill(poison);
  inputs.forEach((x, i) => {
    staging.set(new Uint8Array(x.data.buffer, x.data.byteOffset, x.data.byteLength), places[i] as number);
  });
  const buffer = addon.createBuffer(top, 2);
  try {
    addon.writeBuffer(buffer, 0, staging);
    const base = addon.bufferAddress(buffer);
    const at = (i: number, elements: number, dtype: Dtype): { low: number; high: number } => addressWords(base + BigInt((places[i] as number) + elements * dtype.size));
    const push = pushWords(
      launch,
      inputs.map((x, i) => at(i, x.offset ?? 0, x.dtype)),
      outputs.map((o, j) => at(inputs.length + j, 0, o.dtype)),
    );
    const stream = new CommandStream();
    const whole = { buffer, offset: 0, bytes: top };
    const pipeline = device.pipelines.get(launch.kernel.key, launch.kernel);
    if (launch.groups[0] > 0) stream.dispatch(pipeline, launch.groups, push, [whole], [whole]);
    stream.hostReads([whole]);
    addon.waitSync(addon.submit(stream.words, stream.length));
    addon.readBuffer(buffer, 0, staging);
  } finally {
    addon.destroyBuffer(buffer);
  }
  return outputs.map((o, j) => {
    const at = places[inputs.length + j] as number;
    const end = at + size * o.dtype.size;
    for (const g of [...staging.subarray(at - guard, at), ...staging.subarray(end, end + 64)]) if (g !== poison) throw new Error(`${launch.kernel.key} wrote outside output ${j}`);
    const Bits = bitsArray[o.dtype.name];
    return new Bits(staging.slice(at, end).buffer as ArrayBuffer);
  });
}
