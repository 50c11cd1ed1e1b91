/** Mixed execution: storages on the host and on the device, what is copied between them and when, what holds memory, what errors say. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { pipelineKey } from "../src/backend/vulkan/encode.ts";
import * as mx from "../src/mx.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { chooseTestDevice, counted } from "./helpers/gpu-scheduler.ts";
import { skipReason } from "./helpers/vulkan.ts";

const env = (flags: Record<string, string>, work: () => void): void => {
  const before = Object.keys(flags).map((k) => [k, process.env[k]] as const);
  Object.assign(process.env, flags);
  try {
    work();
  } finally {
    for (const [k, v] of before) v === undefined ? delete process.env[k] : (process.env[k] = v);
  }
};
/** An array whose bytes lie on the host. */
const host = (n: number, from = 0): mx.MxArray => mx.array(Float32Array.from({ length: n }, (_, i) => i + from));
const onCpu = (a: mx.MxArray): mx.MxArray => mx.add(a, a, "cpu");

describe.skipIf(skipReason)("mixed execution", () => {
  beforeAll(() => {
    chooseTestDevice();
    process.env["MLX_VK_HAZARDS"] = "1";
    // Copies are counted here; test/gpu-unified.test.ts has devices that need none.
    process.env["MLX_VK_UNIFIED"] = "0";
    mx.setDefaultDevice("gpu");
  });
  afterAll(() => {
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
  });
  afterEach(() => setTracer(undefined));

  it("copies an input once, an output never, a result once", () => {
    const a = host(100);
    const y = mx.add(a, 1);
    expect(counted(() => mx.eval(y))).toMatchObject({ uploads: 1, uploadedBytes: 400, downloads: 0, fallbacks: 0 });
    expect(counted(() => mx.eval(mx.multiply(a, y)))).toMatchObject({ uploads: 0, downloads: 0 });
    expect(counted(() => expect(y.tolist()).toEqual(Array.from({ length: 100 }, (_, i) => i + 1)))).toMatchObject({ downloads: 1, downloadedBytes: 400 });
    expect(counted(() => y.tolist())).toMatchObject({ downloads: 0, syncs: 0 });
  });

  it("a view finds the memory of its storage: nothing is copied for reshapes, slices and transposes", () => {
    const a = mx.add(host(24), 0);
    mx.eval(a);
    const views = [mx.reshape(a, [4, 6]), mx.transpose(mx.reshape(a, [4, 6])), a.index(mx.Slice(5, 9))];
    const sums = counted(() => mx.eval(views.map((v) => mx.add(v, 1))));
    expect(sums).toMatchObject({ uploads: 0, downloads: 0 });
    expect(mx.add(views[2] as mx.MxArray, 1).tolist()).toEqual([6, 7, 8, 9]);
  });

  it("a view of a host array larger than the view brings the whole storage, so that other views of it are right as well", () => {
    const cache = host(1000);
    const early = cache.index(mx.Slice(0, 3));
    const late = cache.index(mx.Slice(990, 1000));
    expect(mx.add(early, 0).tolist()).toEqual([0, 1, 2]);
    expect(counted(() => expect(mx.add(late, 0).tolist()).toEqual(Array.from({ length: 10 }, (_, i) => 990 + i)))).toMatchObject({ uploads: 0 });
  });

  it("what the CPU writes is seen by the device and the other way round, through every view", () => {
    const a = mx.add(host(8), 0);
    const tail = a.index(mx.Slice(4, 8));
    mx.eval(a, tail);
    expect(tail.tolist()).toEqual([4, 5, 6, 7]);
    mx.overwrite(a, [8, 7, 6, 5, 4, 3, 2, 1]);
    expect(tail.tolist()).toEqual([4, 3, 2, 1]);
    expect(mx.add(tail, 0).tolist()).toEqual([4, 3, 2, 1]);
    expect(onCpu(tail).tolist()).toEqual([8, 6, 4, 2]);
  });

  it("work on both devices in one graph runs in order, with only the copies that are needed", () => {
    const a = host(64);
    let y: mx.MxArray | undefined;
    const seen = counted(() => {
      y = mx.add(onCpu(mx.add(a, 1)), 1);
      mx.eval(y);
    });
    // a goes up, a + 1 comes down, its double goes up.
    expect(seen).toMatchObject({ uploads: 2, downloads: 1, fallbacks: 0 });
    expect(y?.tolist()).toEqual(Array.from({ length: 64 }, (_, i) => 2 * (i + 1) + 1));
  });

  it("asyncEval of mixed work does not wait for events of its own", async () => {
    const a = host(64);
    const y = mx.add(onCpu(mx.add(onCpu(mx.add(a, 1)), 1)), 1);
    const z = mx.multiply(y, 2);
    await mx.asyncEval(y, z);
    expect(z.index(3).item()).toBe(2 * (2 * (2 * (3 + 1) + 1) + 1));
  });

  it("work holds what it uses: inputs may be disposed at once, and their memory used again", async () => {
    const results: mx.MxArray[] = [];
    for (let i = 0; i < 20; i++) {
      const a = mx.add(host(5000, i), 1);
      const b = mx.multiply(a, 2);
      results.push(b);
      const done = mx.asyncEval(b);
      a.dispose();
      mx.eval(mx.zeros([5000]));
      if (i % 5 === 0) await done;
    }
    results.forEach((b, i) => expect(b.index(mx.Slice(0, 3)).tolist()).toEqual([2 * (i + 1), 2 * (i + 2), 2 * (i + 3)]));
  });

  it("a buffer is taken over only when nobody else can see it", () => {
    const a = mx.add(host(256), 1);
    mx.eval(a);
    const before = stats.donations;
    const b = mx.negative(a);
    mx.eval(b);
    expect(stats.donations).toBe(before);
    expect(a.index(mx.Slice(0, 2)).tolist()).toEqual([1, 2]);
    const c = mx.tidy(() => mx.exp(mx.softmax(mx.multiply(host(256), 0))));
    mx.eval(c);
    expect(stats.donations).toBeGreaterThan(before);
    expect(c.index(0).item()).toBeCloseTo(Math.exp(1 / 256), 6);
  });

  it("arrays without elements have results without elements", () => {
    const empty = mx.zeros([0, 3]);
    expect(mx.add(empty, 1).shape).toEqual([0, 3]);
    expect(mx.add(empty, 1).tolist()).toEqual([]);
    expect(mx.softmax(empty, -1).tolist()).toEqual([]);
    expect(mx.sum(empty).item()).toBe(0);
  });

  it("constants are read where the kernel runs", () => {
    const y = mx.add(mx.array(2), mx.array(3));
    expect(counted(() => mx.eval(y))).toMatchObject({ fallbacks: 0 });
    expect(y.item()).toBe(5);
    expect(mx.broadcastTo(mx.array(7), [3]).tolist()).toEqual([7, 7, 7]);
  });

  it("MLX_STRICT makes a fallback an error that lists the reasons, and nothing is lost", () => {
    const a = host(6);
    env({ MLX_STRICT: "1", MLX_DISABLE: "vulkan/softmax/*" }, () => {
      expect(() => mx.softmax(a).tolist()).toThrow(/\[softmax\] MLX_STRICT.*vulkan\/softmax\/.*disabled by MLX_DISABLE/);
    });
    env({ MLX_DISABLE: "vulkan/softmax/*" }, () => {
      const y = mx.softmax(a);
      expect(counted(() => mx.eval(y)).fallbacks).toBe(1);
      expect(mx.sum(y).item()).toBeCloseTo(1, 6);
    });
  });

  it("MLX_DISABLE=vulkan/generated sends elementwise ops to the CPU, with the same result", () => {
    const a = host(50);
    // Fused into one kernel: nobody else holds the product.
    const y = (): mx.MxArray => mx.tidy(() => mx.subtract(mx.multiply(a, 3), 1));
    const want = y().tolist();
    env({ MLX_DISABLE: "vulkan/generated" }, () => {
      const z = y();
      expect(mx.explain(z)).toMatch(/vulkan\/generated: disabled by MLX_DISABLE/);
      expect(counted(() => mx.eval(z))).toMatchObject({ fallbacks: 1, dispatches: 0 });
      expect(z.tolist()).toEqual(want);
    });
    expect(counted(() => mx.eval(y())).fallbacks).toBe(0);
  });

  it("pipelines differ when anything that goes into them does", () => {
    const step = { shader: "x", buffers: [], words: [1], groups: [1, 1, 1] as const };
    const keys = [
      pipelineKey(step, 4),
      pipelineKey(step, 8),
      pipelineKey({ ...step, constants: [1] }, 4),
      pipelineKey({ ...step, constants: [1, 2] }, 4),
      pipelineKey({ ...step, subgroupSize: 32 }, 4),
      pipelineKey({ ...step, shader: { key: "y", code: () => new Uint32Array() } }, 4),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });

  it("unused memory is counted, kept up to the limit, and given back", () => {
    // Larger than half a block, so that it has a buffer of its own.
    const n = 10 * 2 ** 20;
    const counters = (): { active: number; cached: number } => vulkanBackend().memory.counters;
    const kept = mx.add(host(1000), 1);
    mx.eval(kept);
    const make = (): void => mx.tidy(() => mx.eval(mx.zeros([n])));
    make();
    mx.synchronize();
    mx.clearCache();
    expect([mx.getCacheMemory(), counters().cached]).toEqual([0, 0]);
    const { active } = counters();
    const before = mx.setCacheLimit(0);
    for (const wait of [true, false]) {
      make();
      if (wait) mx.synchronize();
      expect([mx.getCacheMemory(), counters().active]).toEqual([0, active]);
    }
    expect(mx.setCacheLimit(before)).toBe(0);
    expect(mx.setCacheLimit(before)).toBe(before);
    make();
    mx.synchronize();
    expect(counters().active).toBe(active);
    expect(mx.getCacheMemory()).toBeGreaterThanOrEqual(4 * n);
    const reserved = vulkanBackend().memory.counters.reserved;
    make();
    expect(vulkanBackend().memory.counters.reserved).toBe(reserved);
    // A lower limit counts at once.
    mx.setCacheLimit(4 * n - 1);
    expect(counters().cached).toBe(0);
    mx.setCacheLimit(before);
    expect(kept.tolist()).toEqual(Array.from({ length: 1000 }, (_, i) => i + 1));
  });

  it("device memory stays flat while work is repeated", () => {
    const a = mx.add(host(1000), 1);
    mx.eval(a);
    const step = (): void => mx.tidy(() => mx.eval(mx.sum(mx.multiply(mx.add(a, 1), mx.softmax(a)))));
    for (let i = 0; i < 20; i++) step();
    const { active, reserved } = vulkanBackend().memory.counters;
    for (let i = 0; i < 300; i++) step();
    mx.synchronize();
    expect(vulkanBackend().memory.counters.active).toBeLessThanOrEqual(active + 4096);
    expect(vulkanBackend().memory.counters.reserved).toBe(reserved);
  });
});
