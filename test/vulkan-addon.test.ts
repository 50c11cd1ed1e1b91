/** The native addon on a device: work, refusals, faults, lifetimes. The process must survive all of it. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test } from "vitest";
import type { Addon } from "../src/backend/vulkan/addon.ts";
import { CommandStream } from "../src/backend/vulkan/commands.ts";
import { DeviceMemory } from "../src/backend/vulkan/memory.ts";
import { Pipelines, readCache } from "../src/backend/vulkan/pipelines.ts";
import type { Group } from "../src/codegen/elementwise.ts";
import { elementwiseSpirv } from "../src/codegen/elementwise-spirv.ts";
import { float32 } from "../src/core/dtype.ts";
import { expr as e } from "../src/core/expr.ts";
import { addressWords, addon as device, directKernel, noFeatures, openTestDevice, skipReason, vulkanRequired } from "./helpers/vulkan.ts";

const path = join(import.meta.dirname, "..", "native", "build", "Release", "mlx_vk.node");
const code = (f: () => unknown): string | undefined => {
  try {
    f();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
};

describe.skipIf(skipReason !== undefined)(`addon${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  const addon: Addon = device;
  afterEach(() => addon.closeDevice());

  /** The kernel out = in + 1 on n numbers. */
  function increment(n: number): ReturnType<typeof directKernel> {
    return directKernel(
      elementwiseSpirv(
        { shape: [n], inputs: [{ dtype: float32, strides: [1] }], outputs: [{ dtype: float32, value: e.add(e.input(0, float32), e.const("f32", 1)) }], expr: e },
        { features: noFeatures },
      ),
    );
  }
  /** A stream that adds 1 to every number of a buffer, `times` times. */
  function incrementStream(buffer: number, n: number, times: number): { stream: CommandStream; pipeline: number } {
    const launch = increment(n);
    const pipeline = addon.createPipeline(launch.code(), launch);
    const at = addressWords(addon.bufferAddress(buffer));
    const stream = new CommandStream({ debug: true });
    const range = { buffer, offset: 0, bytes: 4 * n };
    for (let i = 0; i < times; i++) stream.dispatch(pipeline, launch.groups, launch.push([at, at]), [range], [range]);
    stream.hostReads([range]);
    return { stream, pipeline };
  }
  const floats = (buffer: number, n: number): number[] => {
    const out = new Float32Array(n);
    addon.readBuffer(buffer, 0, out);
    return Array.from(out);
  };

  test("submits in order, with narrow barriers between dependent kernels", () => {
    openTestDevice();
    const buffer = addon.createBuffer(4000, 2);
    addon.writeBuffer(
      buffer,
      0,
      Float32Array.from({ length: 1000 }, (_, i) => i),
    );
    const { stream } = incrementStream(buffer, 1000, 5);
    expect(stream.barriers.barrier).toBe(4);
    expect(stream.hazards()).toEqual([]);
    const first = addon.submit(stream.words, stream.length);
    const second = addon.submit(stream.words, stream.length);
    expect(second).toBe(first + 1);
    expect(addon.waitSync(second)).toBe(true);
    expect(addon.completed()).toBe(second);
    expect(floats(buffer, 1000)).toEqual(Array.from({ length: 1000 }, (_, i) => i + 10));
  });
  test("recorded commands are replayed until they are freed", () => {
    openTestDevice();
    const buffer = addon.createBuffer(400, 2);
    addon.writeBuffer(buffer, 0, new Float32Array(100));
    const { stream } = incrementStream(buffer, 100, 3);
    const commands = addon.record(stream.words, stream.length);
    let last = 0;
    for (let i = 0; i < 20; i++) last = addon.replay(commands);
    addon.freeCommands(commands);
    addon.waitSync(last);
    expect(floats(buffer, 100)).toEqual(new Array(100).fill(60));
    expect(code(() => addon.replay(commands))).toBe("BAD_ID");
  });
  test("copy, fill, update, indirect dispatch, timestamps", () => {
    const { info } = openTestDevice();
    const [a, b, counts] = [addon.createBuffer(4096, 0), addon.createBuffer(4096, 2), addon.createBuffer(256, 0)];
    const launch = increment(64);
    const pipeline = addon.createPipeline(launch.code(), launch);
    const stream = new CommandStream({ debug: true });
    stream.timestamp(0);
    stream.fill({ buffer: a, offset: 0, bytes: 4096 }, 0x3f800000);
    stream.update({ buffer: a, offset: 8, bytes: 8 }, [0x40000000, 0x40400000]);
    stream.update({ buffer: counts, offset: 0, bytes: 12 }, [1, 1, 1]);
    const range = { buffer: a, offset: 0, bytes: 256 };
    const at = addressWords(addon.bufferAddress(a));
    stream.dispatchIndirect(pipeline, { buffer: counts, offset: 0, bytes: 12 }, launch.push([at, at]), [range], [range]);
    stream.copy({ buffer: a, offset: 0, bytes: 4096 }, { buffer: b, offset: 0, bytes: 4096 });
    stream.hostReads([{ buffer: b, offset: 0, bytes: 4096 }]);
    stream.timestamp(1);
    expect(stream.hazards()).toEqual([]);
    addon.waitSync(addon.submit(stream.words, stream.length));
    const got = floats(b, 1024);
    expect(got.slice(0, 5)).toEqual([2, 2, 3, 4, 2]);
    expect([got[63], got[64], got[1023]]).toEqual([2, 1, 1]);
    if (info.limits.timestampPeriod === 0) return;
    const times = new Float64Array(2);
    addon.timestamps(0, 2, times);
    expect(times[0]).toBe(0);
    expect(times[1]).toBeGreaterThan(0);
  });
  test("waits: promises in any order, time-outs, closing rejects what is pending", async () => {
    openTestDevice();
    const buffer = addon.createBuffer(4e6, 2);
    addon.writeBuffer(buffer, 0, new Float32Array(1e6));
    const { stream } = incrementStream(buffer, 1e6, 20);
    const values = [1, 2, 3].map(() => addon.submit(stream.words, stream.length));
    expect(addon.waitSync(values[2] as number, 0)).toBe(false);
    await Promise.all(values.reverse().map((v) => addon.waitAsync(v)));
    expect(addon.completed()).toBe(values[0]);
    await addon.waitAsync(1);
    expect(code(() => addon.waitSync(99))).toBe("BAD_RANGE");
    const pending = addon.waitAsync(addon.submit(stream.words, stream.length));
    addon.closeDevice();
    // Closing waits for the work: the promise is settled either way, never left hanging.
    await pending.catch((error) => expect(error).toMatchObject({ code: "DEVICE_CLOSED" }));
    expect(code(() => addon.completed())).toBe("DEVICE_NOT_OPEN");
  });
  test("pipelines compile on other threads; closing meanwhile rejects", async () => {
    openTestDevice();
    const launch = increment(10);
    const pipelines = new Pipelines(addon);
    const [a, b] = await Promise.all([pipelines.prepare("k", launch), pipelines.prepare("k", launch)]);
    expect(a).toBe(b);
    expect(pipelines.get("k", launch)).toBe(a);
    expect(pipelines.size).toBe(1);
    expect(addon.pipelineCacheData().length).toBeGreaterThanOrEqual(32);
    const pending = [1, 2, 3, 4, 5, 6].map(() =>
      addon.createPipelineAsync(launch.code(), launch).then(
        () => "made",
        (error: { code: string }) => error.code,
      ),
    );
    addon.closeDevice();
    for (const result of await Promise.all(pending)) expect(result).toBe("DEVICE_CLOSED");
  });

  test("compiled pipelines come back from the cache file", () => {
    const { info } = openTestDevice();
    const folder = mkdtempSync(join(tmpdir(), "mlx-vk-cache-"));
    try {
      const file = join(folder, "deep", "cache.bin");
      const pipelines = new Pipelines(addon);
      expect(pipelines.save(file)).toBe(false);
      const launch = increment(10);
      pipelines.get("k", launch);
      expect(pipelines.save(file)).toBe(true);
      expect(pipelines.save(file)).toBe(false);
      const cache = readCache(file, info);
      expect(cache?.length).toBeGreaterThanOrEqual(32);
      addon.closeDevice();
      openTestDevice(cache ? { cache } : {});
      expect(new Pipelines(addon).get("k", launch)).toBe(0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("bad arguments are refused with a code", () => {
    const { info } = openTestDevice();
    const buffer = addon.createBuffer(64, 2);
    const launch = increment(4);
    const pipeline = addon.createPipeline(launch.code(), launch);
    const stream = (...words: number[]) => code(() => addon.submit(Uint32Array.from(words), words.length));
    const push = new Array<number>(launch.pushBytes / 4).fill(0);
    expect(stream(1, pipeline, 0, 1, 1, push.length, ...push)).toBeUndefined();
    expect(stream(1, 99, 1, 1, 1, push.length, ...push)).toBe("BAD_ID");
    expect(stream(1, pipeline, 1, 1, 1, push.length - 1, ...push.slice(1))).toBe("BAD_RANGE");
    expect(stream(1, pipeline, 1, 1, 1, push.length, 0)).toBe("BAD_STREAM");
    expect(stream(1, pipeline, info.limits.groupCount[0] + 1, 1, 1, push.length, ...push)).toBe("BAD_RANGE");
    expect(stream(2, pipeline, buffer, 56, 0, push.length, ...push)).toBe("BAD_RANGE");
    expect(stream(2, pipeline, buffer, 2, 0, push.length, ...push)).toBe("BAD_RANGE");
    expect(stream(7, buffer, 0, 0, buffer, 32, 0, 40, 0)).toBe("BAD_RANGE");
    expect(stream(7, buffer, 0, 0, buffer, 16, 0, 32, 0)).toBe("BAD_RANGE");
    expect(stream(7, buffer, 8, 0xffffffff, buffer, 0, 0, 32, 0)).toBe("BAD_RANGE");
    expect(stream(7, buffer, 0, 0, 77, 0, 0, 32, 0)).toBe("BAD_ID");
    expect(stream(8, buffer, 0, 0, 68, 0, 1)).toBe("BAD_RANGE");
    expect(stream(8, buffer, 2, 0, 4, 0, 1)).toBe("BAD_RANGE");
    expect(stream(9, buffer, 60, 0, 2, 1, 1)).toBe("BAD_RANGE");
    expect(stream(10, 4096)).toBe("BAD_RANGE");
    expect(stream(11)).toBe("BAD_STREAM");
    expect(stream(7, buffer)).toBe("BAD_STREAM");
    expect(code(() => addon.submit(new Uint32Array(4), 5))).toBe("BAD_RANGE");
    expect(code(() => addon.submit(new Float32Array(4) as never, 4))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.createBuffer(0, 0))).toBe("BAD_RANGE");
    expect(code(() => addon.createBuffer(-1, 0))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.createBuffer(1.5, 0))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.createBuffer(2 ** 52, 0))).toBe("BAD_RANGE");
    expect(code(() => addon.createBuffer(4, 4 as 2))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.writeBuffer(buffer, 60, new Uint8Array(5)))).toBe("BAD_RANGE");
    expect(code(() => addon.readBuffer(buffer, 2 ** 50, new Uint8Array(5)))).toBe("BAD_RANGE");
    expect(code(() => addon.readBuffer(5, 0, new Uint8Array(5)))).toBe("BAD_ID");
    expect(code(() => addon.writeBuffer(buffer, 0, "text" as never))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.createPipeline(new Uint32Array(8), { pushBytes: 0 }))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.createPipeline(launch.code(), { pushBytes: 6 }))).toBe("BAD_RANGE");
    expect(code(() => addon.createPipeline(launch.code(), { pushBytes: 1 << 20 }))).toBe("BAD_RANGE");
    expect(code(() => addon.createPipeline(launch.code(), { ...launch, constants: new Uint32Array(3) }))).toBe("BAD_ARGUMENT");
    expect(code(() => addon.createPipeline(launch.code(), { ...launch, subgroupSize: 3 }))).toBe("BAD_RANGE");
    expect(code(() => addon.timestamps(0, 5000, new Float64Array(5000)))).toBe("BAD_RANGE");
    expect(code(() => addon.destroyBuffer(9))).toBe("BAD_ID");
    expect(code(() => addon.destroyPipeline(9))).toBe("BAD_ID");
    expect(code(() => addon.openDevice(0))).toBe("DEVICE_OPEN");
    addon.closeDevice();
    expect(code(() => addon.openDevice(99))).toBe("NO_VULKAN_DEVICE");
    expect(code(() => addon.createBuffer(4, 0))).toBe("DEVICE_NOT_OPEN");
    openTestDevice();
    expect(addon.createBuffer(4, 0)).toBe(0);
  });
  test("what a stream or pending work uses may be destroyed at once", () => {
    openTestDevice();
    const n = 1e6;
    const [buffer, out] = [addon.createBuffer(4 * n, 0), addon.createBuffer(4 * n, 2)];
    const { stream, pipeline } = incrementStream(buffer, n, 30);
    stream.copy({ buffer, offset: 0, bytes: 4 * n }, { buffer: out, offset: 0, bytes: 4 * n });
    stream.hostReads([{ buffer: out, offset: 0, bytes: 4 * n }]);
    const value = addon.submit(stream.words, stream.length);
    addon.destroyBuffer(buffer);
    addon.destroyPipeline(pipeline);
    expect(code(() => addon.submit(stream.words, stream.length))).toBe("BAD_ID");
    addon.waitSync(value);
    expect(addon.completed()).toBe(value);
    const again = addon.createBuffer(64, 2);
    expect(again).toBe(buffer);
  });
  test("mapped views are empty after the buffer is gone", () => {
    openTestDevice();
    const buffer = addon.createBuffer(64, 2);
    const view = addon.mapBuffer(buffer);
    expect(addon.mapBuffer(buffer)).toBe(view);
    new Float32Array(view)[3] = 7;
    expect(floats(buffer, 16)[3]).toBe(7);
    addon.destroyBuffer(buffer);
    expect(view.byteLength).toBe(0);
    const last = addon.mapBuffer(addon.createBuffer(64, 2));
    addon.closeDevice();
    expect(last.byteLength).toBe(0);
  });
  test("WebAssembly memory is used in place", () => {
    const { info } = openTestDevice();
    const memory = new WebAssembly.Memory({ initial: 4, maximum: 16, shared: true });
    if (!info.features.hostImport) {
      expect(code(() => addon.importHost(new Uint8Array(memory.buffer)))).toBe("VULKAN_FEATURES");
      return;
    }
    const alignment = info.limits.importAlignment;
    const view = new Uint8Array(memory.buffer, 65536, 2 * alignment);
    const data = new Float32Array(memory.buffer, 65536, 512).fill(2);
    const buffer = addon.importHost(view);
    const { stream } = incrementStream(buffer, 512, 2);
    addon.waitSync(addon.submit(stream.words, stream.length));
    expect(Array.from(data)).toEqual(new Array(512).fill(4));
    expect(code(() => addon.importHost(new Uint8Array(memory.buffer, 65536 + 8, alignment)))).toBe("BAD_RANGE");
    expect(code(() => addon.importHost(new Uint8Array(memory.buffer, 65536, 100)))).toBe("BAD_RANGE");
  });
  test("a lost device: every use says so, waits are rejected, a new one can be opened", async () => {
    openTestDevice({ loseAfter: 1 });
    const buffer = addon.createBuffer(4e6, 2);
    const { stream } = incrementStream(buffer, 1e6, 10);
    const pending = addon.waitAsync(addon.submit(stream.words, stream.length)).then(
      () => "done",
      (error: { code: string }) => error.code,
    );
    expect(code(() => addon.submit(stream.words, stream.length))).toBe("DEVICE_LOST");
    for (const use of [() => addon.createBuffer(4, 0), () => addon.completed(), () => addon.waitSync(1), () => addon.memoryInfo()]) expect(code(use)).toBe("DEVICE_LOST");
    expect(["done", "DEVICE_LOST"]).toContain(await pending);
    addon.destroyBuffer(buffer);
    addon.closeDevice();
    openTestDevice();
    expect(addon.completed()).toBe(0);
  });
  test("ten thousand steps leave nothing behind", () => {
    openTestDevice();
    const memory = new DeviceMemory(addon, { blockBytes: 2 ** 20 });
    const held = memory.allocate(4096, 2);
    const { stream } = incrementStream(held.buffer, 64, 1);
    const commands = addon.record(stream.words, stream.length);
    let value = 0;
    for (let i = 0; i < 10000; i++) {
      const temporary = memory.allocate(1000 + (i % 7) * 5000, 2);
      value = addon.replay(commands);
      memory.free(temporary, value);
      if (i % 64 === 63) {
        addon.waitSync(value);
        memory.collect(addon.completed());
      }
    }
    addon.waitSync(value);
    memory.collect(addon.completed());
    expect(memory.counters.active).toBe(held.bytes);
    expect(memory.counters.reserved).toBeLessThanOrEqual(4 * 2 ** 20);
  });

  const busy = (end: string): string => `
    const a = require(${JSON.stringify(path)});
    const p = a.probe();
    a.openDevice(Math.max(0, p.devices.findIndex((d) => d.type === 4)));
    const b = a.createBuffer(1 << 26, 2);
    a.mapBuffer(b);
    const fill = Uint32Array.from([8, b, 0, 0, 1 << 26, 0, 7]);
    let v = 0;
    for (let i = 0; i < 50; i++) v = a.submit(fill, fill.length);
    ${end}`;
  test.each([
    "process.exit(0)",
    "a.waitAsync(v).then(() => process.exit(0)); ",
    "a.waitAsync(v); setTimeout(() => process.exit(0), 5)",
    "",
  ])("the process ends well with work in flight: %s", (end) => {
    const run = spawnSync(process.execPath, ["-e", busy(end)], { encoding: "utf8", timeout: 60000 });
    expect([run.status, run.signal, run.stderr]).toEqual([0, null, ""]);
  });
  test("a worker ends well with work in flight, and has a device of its own", async () => {
    openTestDevice();
    for (const end of [
      "require('node:worker_threads').parentPort.postMessage(v)",
      "a.waitAsync(v); require('node:worker_threads').parentPort.postMessage(v); setInterval(() => {}, 1000)",
    ]) {
      const worker = new Worker(busy(end), { eval: true });
      const value = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
      expect(value).toBe(50);
      await worker.terminate();
    }
    const buffer = addon.createBuffer(256, 2);
    addon.writeBuffer(buffer, 0, new Float32Array(64));
    const { stream } = incrementStream(buffer, 64, 1);
    addon.waitSync(addon.submit(stream.words, stream.length));
    expect(floats(buffer, 64)).toEqual(new Array(64).fill(1));
  });
});

describe.skipIf(skipReason !== undefined)("validation layers", () => {
  /** False where no validation layer is installed. */
  function openValidated(): boolean {
    try {
      openTestDevice({ validation: true, sync: true });
      return true;
    } catch (error) {
      if ((error as { code?: string }).code === "NO_VALIDATION_LAYER" && !vulkanRequired) return false;
      throw error;
    }
  }
  afterEach(() => device.closeDevice());

  test("report a fault, and the call that made it fails", (context) => {
    if (!openValidated()) return context.skip("no validation layer is installed");
    const launch = directKernel(elementwiseSpirv({ shape: [4], inputs: [], outputs: [{ dtype: float32, value: e.const("f32", 1) }], expr: e }, { features: noFeatures }));
    const spirv = launch.code();
    // OpCapability Geometry behind the header: a feature that is never turned on.
    const faulty = Uint32Array.from([...spirv.subarray(0, 5), 0x00020011, 2, ...spirv.subarray(5)]);
    expect(code(() => device.createPipeline(faulty, launch))).toBe("VULKAN_ERROR");
    const messages = device.takeMessages();
    expect(messages.length).toBeGreaterThan(0);
    expect(messages[0]).toMatch(/^error VUID-/);
    expect(device.takeMessages()).toEqual([]);
  });
  test("have nothing to say about ordinary work", (context) => {
    if (!openValidated()) return context.skip("no validation layer is installed");
    const [a, b] = [device.createBuffer(4096, 0), device.createBuffer(4096, 2)];
    const group: Group = { shape: [64], inputs: [{ dtype: float32, strides: [1] }], outputs: [{ dtype: float32, value: e.exp(e.input(0, float32)) }], expr: e };
    const launch = directKernel(elementwiseSpirv(group, { features: { ...noFeatures, signedZeroInfNanPreserveFloat32: true } }));
    const pipeline = device.createPipeline(launch.code(), launch);
    const stream = new CommandStream();
    const range = { buffer: a, offset: 0, bytes: 256 };
    const at = addressWords(device.bufferAddress(a));
    stream.timestamp(0);
    stream.fill(range, 0);
    for (let i = 0; i < 3; i++) stream.dispatch(pipeline, launch.groups, launch.push([at, at]), [range], [range]);
    stream.copy(range, { ...range, buffer: b });
    stream.hostReads([{ ...range, buffer: b }]);
    const commands = device.record(stream.words, stream.length);
    for (let i = 0; i < 3; i++) device.replay(commands);
    device.freeCommands(commands);
    const value = device.submit(stream.words, stream.length);
    device.destroyBuffer(a);
    device.waitSync(value);
    const out = new Float32Array(64);
    device.readBuffer(b, 0, out);
    expect(out[5]).toBeCloseTo(Math.exp(Math.E), 4);
    device.closeDevice();
    expect(device.takeMessages()).toEqual([]);
  });
});
