/** The Vulkan device that tests use: any, software rasterizers included. Where there is none, tests skip, or fail under MLX_REQUIRE=vulkan. */
import { join } from "node:path";
import { type Addon, type DeviceInfo, type OpenOptions, loadAddon } from "../../src/backend/vulkan/addon.ts";
import { CommandStream } from "../../src/backend/vulkan/commands.ts";
import { addonReason, chooseDevice, maskFeatures, probeReason, rankDevices } from "../../src/backend/vulkan/device.ts";
import { Pipelines, cacheFile, readCache } from "../../src/backend/vulkan/pipelines.ts";
import { encodeLaunch } from "../../src/backend/vulkan/encode.ts";
import { type Allocation, DeviceMemory } from "../../src/backend/vulkan/memory.ts";
import { type SpirvFeatures, type StepOptions, elementwiseSpirv } from "../../src/codegen/elementwise-spirv.ts";
import { type Dtype, bitsArray } from "../../src/core/dtype.ts";
import { env } from "../../src/core/env.ts";
import { type Value, expr } from "../../src/core/expr.ts";
import type { GeneratedShader, GpuStep } from "../../src/core/gpu.ts";
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
/**
 * Opens the device, as MLX_VK_VALIDATION and MLX_VK_MASK want it; `closeTestDevice` when done, which fails if the validation layers had something to say.
 * Compiled pipelines are kept on disk between processes, because lavapipe is slow to make them.
 */
export function openTestDevice(options: OpenOptions = {}): TestDevice {
  if (!found.addon) throw new Error(found.reason);
  const probe = found.addon.probe();
  const identity = probe.ok ? probe.devices[found.index] : undefined;
  const cache = identity && readCache(cacheFile(identity), identity);
  const opened = found.addon.openDevice(found.index, { validation: env("MLX_VK_VALIDATION"), ...(cache ? { cache } : {}), ...options });
  const info = maskFeatures(opened, env("MLX_VK_MASK"));
  return { addon: found.addon, info, pipelines: new Pipelines(found.addon) };
}
/** Memory that the tests on a device share: a driver takes a millisecond or more for a buffer. */
export function testMemory(device: TestDevice): DeviceMemory {
  let memory = memories.get(device);
  if (!memory) {
    memory = new DeviceMemory(device.addon, { blockBytes: 4 * 2 ** 20 });
    memories.set(device, memory);
  }
  return memory;
}
const memories = new WeakMap<TestDevice, DeviceMemory>();

export function closeTestDevice(device: TestDevice): void {
  memories.get(device)?.trim();
  device.pipelines.save(cacheFile(device.info));
  device.addon.closeDevice();
  const messages = device.addon.takeMessages();
  if (messages.length > 0) throw new Error(`validation: ${[...new Set(messages)].slice(0, 5).join("\n")}`);
}

const guard = 256;
const poison = 0xaa;

/** Two words of an address. */
export function addressWords(address: bigint): { low: number; high: number } {
  return { low: Number(address & 0xffffffffn), high: Number(address >> 32n) };
}

/** A device that offers nothing: what float32 kernels get by with. */
export const noFeatures: SpirvFeatures = {
  shaderInt64: false, shaderFloat64: false, shaderInt8: false, shaderInt16: false, storageBuffer8BitAccess: false, storageBuffer16BitAccess: false,
  signedZeroInfNanPreserveFloat32: false, signedZeroInfNanPreserveFloat64: false,
};

/** A generated step as the addon's own functions take it: code, size of the push constants, and their words for given addresses. */
export function directKernel(step: GpuStep | string): { code: () => Uint32Array; pushBytes: number; groups: GpuStep["groups"]; push: (at: readonly { low: number; high: number }[]) => number[] } {
  if (typeof step === "string") throw new Error(step);
  if (step.table) throw new Error("the step needs a table");
  return {
    code: (step.shader as GeneratedShader).code,
    pushBytes: 8 * step.buffers.length + 4 * step.words.length,
    groups: step.groups,
    push: (at) => [...at.flatMap((a) => [a.low, a.high]), ...step.words],
  };
}

/**
 * Runs a group on the device and gives the bits of each output. Operands lie in one buffer, between guard bytes; throws when a guard byte of an output changed.
 * `over`: output 0 lies over this input. `lanes`: most elements per invocation. Operands are declared aligned when they are, or never (`aligned: false`).
 */
export function runOnDevice(
  device: TestDevice,
  shape: readonly number[],
  inputs: readonly TestInput[],
  outputs: readonly { dtype: Dtype; value: Value }[],
  options: { over?: number | undefined; lanes?: number | undefined; aligned?: false | undefined; tiled?: boolean | undefined; roundsDivision?: boolean | undefined } = {},
) {
  const { addon } = device;
  const { over } = options;
  const aligned = [...inputs.map((x) => ((x.offset ?? 0) * x.dtype.size) % 16 === 0), ...outputs.map(() => true)];
  const how: StepOptions = { lanes: options.lanes, tiled: options.tiled, roundsDivision: options.roundsDivision, aligned: options.aligned === false ? aligned.map(() => false) : aligned };
  const step = elementwiseSpirv({ shape, inputs, outputs, expr }, device.info, how);
  if (typeof step === "string") throw new Error(step);
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
  const memory = testMemory(device);
  const all = memory.allocate(top, 2);
  addon.writeBuffer(all.buffer, all.offset, staging);
  const stream = new CommandStream();
  const tables: Allocation[] = [];
  const words = (w: readonly number[]): { memory: Allocation; bytes: number } => {
    const m = memory.allocate(4 * w.length, 1);
    tables.push(m);
    addon.writeBuffer(m.buffer, m.offset, Uint32Array.from(w, (x) => x >>> 0));
    return { memory: m, bytes: 0 };
  };
  encodeLaunch(
    stream,
    device.pipelines,
    { steps: [step] },
    (p) => {
      const x = p.of === "input" ? inputs[p.index] : undefined;
      return { memory: all, bytes: (places[p.of === "input" ? p.index : inputs.length + p.index] as number) + (x?.offset ?? 0) * (x?.dtype.size ?? 0) };
    },
    words,
    "elementwise",
  );
  const whole = { buffer: all.buffer, offset: all.offset, bytes: all.bytes };
  stream.hostReads([whole]);
  addon.waitSync(addon.submit(stream.words, stream.length));
  addon.readBuffer(all.buffer, all.offset, staging);
  for (const m of [all, ...tables]) memory.free(m);
  return outputs.map((o, j) => {
    const at = places[inputs.length + j] as number;
    const end = at + size * o.dtype.size;
    for (const g of [...staging.subarray(at - guard, at), ...staging.subarray(end, end + 64)]) if (g !== poison) throw new Error(`${(step.shader as GeneratedShader).key} wrote outside output ${j}`);
    const Bits = bitsArray[o.dtype.name];
    return new Bits(staging.slice(at, end).buffer as ArrayBuffer);
  });
}
