/**
 * What goes wrong on the GPU under the scheduler: devices that are lost, memory that runs out, kernels that can not be made, features that are missing, processes
 * that end with work in flight. After each fault, later work must be right.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { setVulkanOpenOptions, vulkanBackend } from "../src/backend/vulkan/index.ts";
import { elementwiseStep } from "../src/codegen/elementwise-spirv.ts";
import { float32 } from "../src/core/dtype.ts";
import { expr } from "../src/core/expr.ts";
import type { GpuKernel, GpuStep } from "../src/core/gpu.ts";
import { gpuInput, gpuOutput } from "../src/core/gpu.ts";
import { load } from "../src/llm/load.ts";
import { generateStep, makePromptCache } from "../src/llm/index.ts";
import * as mx from "../src/mx.ts";
import { closedKernels } from "../src/schedule/gate.ts";
import { addTracer, stats } from "../src/schedule/run.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { opNamed } from "./helpers/gpu.ts";
import { demo4bit } from "./helpers/llm.ts";
import { skipReason } from "./helpers/vulkan.ts";

const root = join(import.meta.dirname, "..");
// Faults come after a number of submissions, which the check would use up.
vi.stubEnv("MLX_VK_SELF_CHECK", "0");
const lost = /^\[vulkan\] the device .+ was lost \(.+\); arrays that only it held are gone, the next use opens it again$/;
const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => i + from);
const host = (n: number, from = 0): mx.MxArray => mx.array(Float32Array.from(range(n, from)));
/** Closes the device, so that the next use opens it as `options` and flags say. */
function reopen(options: Parameters<typeof setVulkanOpenOptions>[0] = {}): void {
  vulkanBackend().close();
  setVulkanOpenOptions(options);
  vulkanBackend();
  setVulkanOpenOptions({});
}
/** Works until the device is lost. */
function lose(): void {
  expect(() => {
    for (let i = 0; i < 100; i++) mx.eval(mx.add(host(4), i));
  }).toThrow(lost);
}
/** Kernels that computed `work`. */
function kernelsOf(work: () => void): string[] {
  const seen: string[] = [];
  const remove = addTracer({ recorded: (node, kernel) => void seen.push(`${node.op.name} ${kernel}`) });
  try {
    work();
  } finally {
    remove();
  }
  return seen;
}

beforeAll(() => {
  if (skipReason) return;
  chooseTestDevice();
  process.env["MLX_VK_HAZARDS"] = "0";
  // Faults of memory that only the device has; test/gpu-unified.test.ts has the others.
  process.env["MLX_VK_UNIFIED"] = "0";
  mx.setDefaultDevice("gpu");
});
afterAll(() => {
  if (skipReason) return;
  mx.setDefaultDevice("cpu");
  vulkanBackend().close();
});

describe.skipIf(skipReason)("words of launches", () => {
  it("a page that fills up in the middle of a launch does not part the launch from its words", () => {
    const backend = vulkanBackend();
    // Three constants of 16 bytes: the end of a page lies inside a launch. Two more pages are filled behind it.
    const inputs = [0, 1, 2].map(() => ({ dtype: float32, strides: [0] }));
    const sum = expr.add(expr.add(expr.input(0, float32), expr.input(1, float32)), expr.input(2, float32));
    const step = elementwiseStep({ shape: [1], inputs, outputs: [{ dtype: float32, value: sum }], expr }, backend.device) as GpuStep;
    const runs = 4500;
    const out = backend.block(4 * runs);
    const bits = (x: number): number => new Uint32Array(Float32Array.of(x).buffer)[0] as number;
    for (let i = 0; i < runs; i++) {
      const values = [i, 10_000 * (i % 7), 100_000 * (i % 5)];
      backend.launch(
        { steps: [step] },
        (p) => (p.of === "output" ? { memory: out.memory, bytes: 4 * i } : backend.words([bits(values[p.index] as number), 0])),
        "sum",
        (p) => p.of === "input",
      );
    }
    const got = new Float32Array(runs);
    out.download(new Uint8Array(got.buffer));
    out.release();
    expect(Array.from(got)).toEqual(range(runs).map((i) => i + 10_000 * (i % 7) + 100_000 * (i % 5)));
  });
});

describe.skipIf(skipReason)("a device that is lost", () => {
  afterEach(() => reopen());

  it("says so, what the host has goes on to work, what only the device had is gone", () => {
    reopen({ loseAfter: 3 });
    const first = vulkanBackend();
    const both = mx.add(host(100), 1);
    const onHost = both.tolist();
    const input = host(100);
    const gone = mx.add(input, 5);
    mx.eval(gone);
    lose();
    expect(first.lost).toBeDefined();
    expect(() => gone.tolist()).toThrow(lost);
    expect(both.tolist()).toEqual(onHost);
    expect(mx.add(both, input).tolist()).toEqual(range(100).map((i) => 2 * i + 1));
    expect(vulkanBackend()).not.toBe(first);
    expect(() => mx.add(gone, 1).tolist()).toThrow(lost);
    // Both copies were there: the write goes to the one that is left.
    mx.overwrite(both, range(100, 7));
    expect(mx.add(both, 0).tolist()).toEqual(range(100, 7));
  });

  it("what was not yet computed is computed on the new device", () => {
    reopen({ loseAfter: 0 });
    const y = mx.sum(mx.softmax(host(50), -1));
    expect(() => y.item()).toThrow(lost);
    expect((mx.add(host(3), 1)).tolist()).toEqual([1, 2, 3]);
  });

  it("blocks that are released after the loss leave the new device alone", () => {
    reopen({ loseAfter: 6 });
    const old = range(20).map((i) => host(1000, i));
    const results = old.map((a) => mx.add(a, 1));
    mx.eval(results);
    lose();
    const fresh = range(20).map((i) => mx.add(host(1000, 2 * i), 3));
    mx.eval(fresh);
    const { active } = vulkanBackend().memory.counters;
    mx.dispose(results);
    expect(vulkanBackend().memory.counters.active).toBe(active);
    const more = range(20).map(() => mx.add(host(1000), 9));
    mx.eval(more);
    fresh.forEach((f, i) => expect(f.tolist()).toEqual(range(1000, 2 * i + 3)));
  });

  it("recordings of it throw, new ones work", () => {
    const x = host(8);
    const record = (): [mx.Recording, mx.MxArray] => {
      const y = mx.multiply(mx.add(x, 1), 2);
      return [mx.Recording.evaluate(y), y];
    };
    reopen({ loseAfter: 12 });
    const [recording, y] = record();
    recording.run();
    expect(y.tolist()).toEqual(range(8).map((i) => 2 * i + 2));
    lose();
    expect(() => recording.run()).toThrow(lost);
    vulkanBackend();
    expect(() => recording.run()).toThrow(lost);
    expect(() => recording.dispose()).not.toThrow();
    const [again, z] = record();
    again.run();
    expect(z.tolist()).toEqual(range(8).map((i) => 2 * i + 2));
    again.dispose();
  });

  it("in the middle of generation: an error; a model that is loaded again generates the same", async () => {
    const prompt = range(8, 300);
    const tokens = async (most: number): Promise<number[]> => {
      const { model } = await load(join(root, demo4bit));
      const found: number[] = [];
      for (const [t] of generateStep(prompt, model, { maxTokens: most })) found.push(t as number);
      return found;
    };
    const want = await tokens(14);
    reopen();
    await tokens(8);
    const submissions = vulkanBackend().last;
    reopen({ loseAfter: submissions });
    await expect(tokens(14)).rejects.toThrow(lost);
    expect(await tokens(14)).toEqual(want);
  });
});

describe.skipIf(skipReason)("a device that is opened anew", () => {
  it("20 times in one process: subgroups, staging and words work each time", () => {
    for (let i = 0; i < 20; i++) {
      reopen();
      expect(mx.sum(mx.multiply(host(1000, i), 2)).item()).toBe(1000 * (999 + 2 * i));
      expect(mx.softmax(mx.zeros([64])).tolist()).toEqual(new Array(64).fill(1 / 64));
    }
  });
});

describe.skipIf(skipReason)("memory that runs out", () => {
  afterEach(() => {
    mx.setMemoryLimit(Number.POSITIVE_INFINITY, "gpu");
    reopen();
  });
  const mib = 1 << 18;

  it("is an error with sizes; nothing is lost, and later work is right", () => {
    reopen();
    expect(mx.setMemoryLimit(16 << 20)).toBe(Number.POSITIVE_INFINITY);
    const made: mx.MxArray[] = [];
    const make = (): void => {
      for (let i = made.length; i < 100; i++) {
        const y = mx.full([mib], i, mx.float32);
        mx.eval(y);
        made.push(y);
      }
    };
    expect(make).toThrow(/^\[memory\] out of device memory: 1048576 bytes requested, \d+ in use, \d+ kept for later \(the limit is 16777216\)$/);
    expect(made.length).toBeGreaterThan(8);
    expect(made.length).toBeLessThan(17);
    const late = mx.add(made[3] as mx.MxArray, 0.5);
    expect(() => mx.eval(late)).toThrow(/out of device memory/);
    mx.dispose(made.splice(4));
    // The evaluation that failed is done now.
    expect((late.index(mib - 1)).item()).toBe(3.5);
    made.forEach((m, i) => expect(m.index(i).item()).toBe(i));
    expect(make).toThrow(/out of device memory/);
    expect(made.length).toBeGreaterThan(8);
    made.forEach((m, i) => expect(m.index(i).item()).toBe(i));
    mx.dispose(made, late);
  }, 60_000);

  it("work in flight is waited for before that", () => {
    reopen();
    mx.setMemoryLimit(16 << 20);
    const a = mx.full([mib], 1, mx.float32);
    mx.eval(a);
    // Each result is freed while the next is recorded; together they would not fit.
    let y = a;
    for (let i = 0; i < 40; i++) {
      const next = mx.tidy(() => mx.add(mx.transpose(mx.reshape(y, [512, 512])), 1));
      mx.eval(next);
      y.dispose();
      y = next;
    }
    expect(y.index(5, 7).item()).toBe(41);
    // Copies to the device take staging memory, which is given back when they are done.
    const sums = range(12).map((i) => mx.tidy(() => mx.sum(mx.array(new Float32Array(mib).fill(i))).item()));
    expect(sums).toEqual(range(12).map((i) => i * mib));
  });

  it("more than one buffer can have is refused with the limit", () => {
    const { limits } = vulkanBackend().info;
    const most = Math.min(limits.bufferBytes, limits.allocationBytes);
    expect(() => vulkanBackend().block(most + 256)).toThrow(`[memory] ${most + 256} bytes requested, the device allows at most ${most} in one buffer`);
  });

  it("MLX_VK_MEMORY_LIMIT sets the limit of a device that is opened", () => {
    const { limit } = vulkanBackend().memory;
    expect(mx.setMemoryLimit(1e9, "gpu")).toBe(limit);
    expect(mx.setMemoryLimit(Number.POSITIVE_INFINITY, "gpu")).toBe(1e9);
  });
});

describe.skipIf(skipReason)("a kernel that can not be made", () => {
  const planted = (name: string, shader: GpuStep["shader"]): GpuKernel => ({
    name: `vulkan/test/${name}`,
    launch: (_i, outputs) => ({ steps: [{ shader, buffers: [gpuInput(0), gpuOutput(0)], words: [outputs[0]?.size ?? 0], groups: [1, 1, 1] }] }),
  });
  it.each([
    ["softmax", "missing", "test/no-such-shader", /no compiled shader test\/no-such-shader/],
    ["softmax", "broken", { key: "test/broken", code: () => new Uint32Array(64) }, /spirv is not a SPIR-V module/],
  ] as const)("%s, %s: it is closed with one line on stderr, and the next one is used", (opName, name, shader, why) => {
    const op = opNamed(opName) as unknown as { gpu: GpuKernel[] };
    const before = op.gpu;
    const kernel = planted(name, shader);
    const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      op.gpu = [kernel, ...before];
      const x = host(64);
      const want = mx.softmax(x, -1, false, "cpu").tolist() as number[];
      const work = (): void => (mx.softmax(x, -1).tolist() as number[]).forEach((v, i) => expect(v).toBeCloseTo(want[i] as number, 5));
      const { fallbacks } = stats;
      for (let i = 0; i < 2; i++) expect(kernelsOf(work).filter((k) => k.startsWith("softmax"))).toEqual([expect.stringMatching(/^softmax vulkan\/(?!test)/)]);
      expect(stats.fallbacks).toBe(fallbacks);
      expect(closedKernels.get(kernel.name)).toMatch(why);
      const lines = err.mock.calls.map((c) => String(c[0]));
      expect(lines).toEqual([expect.stringMatching(new RegExp(`^mlx-vk: ${kernel.name} is not used: `))]);
    } finally {
      err.mockRestore();
      op.gpu = before;
      closedKernels.delete(kernel.name);
    }
  });

  it("a generated kernel goes to the CPU, others of its kind do not", () => {
    const { pipelines } = vulkanBackend();
    const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const get = vi.spyOn(pipelines, "get").mockImplementationOnce(() => {
      throw Object.assign(new Error("vkCreateComputePipelines failed with VkResult -13"), { code: "VULKAN_ERROR" });
    });
    const x = host(10);
    try {
      const { fallbacks } = stats;
      expect(mx.add(x, 3).tolist()).toEqual(range(10, 3));
      expect(stats.fallbacks).toBe(fallbacks + 1);
      expect(mx.multiply(x, 3).tolist()).toEqual(range(10).map((i) => 3 * i));
      expect(stats.fallbacks).toBe(fallbacks + 1);
      expect(mx.add(x, 5).tolist()).toEqual(range(10, 5));
      expect(stats.fallbacks).toBe(fallbacks + 2);
      expect(err).toHaveBeenCalledTimes(1);
    } finally {
      get.mockRestore();
      err.mockRestore();
      for (const k of [...closedKernels.keys()]) if (k.startsWith("vulkan/generated/")) closedKernels.delete(k);
    }
  });

  it("memory that runs out while a pipeline is made closes nothing", () => {
    const get = vi.spyOn(vulkanBackend().pipelines, "get").mockImplementationOnce(() => {
      throw Object.assign(new Error("no memory"), { code: "OUT_OF_DEVICE_MEMORY" });
    });
    const y = mx.add(host(10), 3);
    expect(() => y.tolist()).toThrow("no memory");
    get.mockRestore();
    expect(closedKernels.size).toBe(0);
    expect(y.tolist()).toEqual(range(10, 3));
  });
});

describe.skipIf(skipReason)("features that are missing", () => {
  const before = process.env["MLX_VK_MASK"];
  afterEach(() => {
    if (before === undefined) delete process.env["MLX_VK_MASK"];
    else process.env["MLX_VK_MASK"] = before;
    reopen();
  });
  /** Results and kernels of work that uses many features. */
  function work(): { values: unknown[]; kernels: string[] } {
    const f16 = mx.divide(host(64), 64).astype(mx.float16);
    const long = mx.array(range(10, 5), mx.int64);
    const a = mx.divide(mx.reshape(host(64 * 64), [64, 64]), 4096);
    const values: unknown[] = [];
    const kernels = kernelsOf(() => {
      for (const r of [mx.softmax(f16, -1), mx.multiply(long, long), mx.matmul(a.astype(mx.bfloat16), a.astype(mx.bfloat16)), mx.matmul(a.astype(mx.float16), a.astype(mx.float16)), mx.sum(long)]) values.push(r.tolist());
    });
    return { values, kernels };
  }
  const numbers = (x: unknown): number[] => [x].flat(9).map(Number);

  it.each(["shaderFloat16", "shaderInt64", "cooperativeMatrix", "bfloat16", "shaderFloat16,shaderInt64,shaderInt8,shaderInt16,storageBuffer16BitAccess"])("%s: other routes, the same results", (mask) => {
    delete process.env["MLX_VK_MASK"];
    reopen();
    const { features } = vulkanBackend().info;
    const full = work();
    process.env["MLX_VK_MASK"] = mask;
    reopen();
    for (const f of mask.split(",")) expect(vulkanBackend().device.features[f as keyof typeof features]).toBe(false);
    const masked = work();
    masked.values.forEach((v, i) => {
      const want = numbers(full.values[i]);
      numbers(v).forEach((x, j) => expect(Math.abs(x - (want[j] as number))).toBeLessThanOrEqual(2 ** -7 * Math.abs(want[j] as number)));
    });
    // A device that lacks the feature anyway takes the same route. Only kernels on matrix units compute in float16.
    const used = (f: string): boolean => features[f as keyof typeof features] && (f !== "shaderFloat16" || features.cooperativeMatrix);
    if (mask.split(",").some(used)) expect(masked.kernels).not.toEqual(full.kernels);
    else expect(masked.kernels).toEqual(full.kernels);
  });

  it("a name that is no feature is an error, and the device can be opened afterwards", () => {
    vulkanBackend().close();
    process.env["MLX_VK_MASK"] = "float8";
    expect(() => vulkanBackend()).toThrow(/there is no feature "float8"/);
    delete process.env["MLX_VK_MASK"];
    expect(mx.add(host(2), 1).tolist()).toEqual([1, 2]);
  });
});

describe.skipIf(skipReason)("the validation layers", () => {
  it("MLX_VK_VALIDATION=1 turns them on; what they say is an error when the device is closed", () => {
    vulkanBackend().close();
    const before = process.env["MLX_VK_VALIDATION"];
    process.env["MLX_VK_VALIDATION"] = "1";
    try {
      let backend: ReturnType<typeof vulkanBackend>;
      try {
        backend = vulkanBackend();
      } catch (error) {
        expect((error as { code?: string }).code).toBe("NO_VALIDATION_LAYER");
        return;
      }
      expect(mx.sum(mx.softmax(mx.matmul(mx.reshape(host(16), [4, 4]), mx.reshape(host(16), [4, 4])), -1)).item()).toBeCloseTo(4, 5);
      expect(() => backend.close()).not.toThrow();
      backend = vulkanBackend();
      const take = vi.spyOn(backend.addon, "takeMessages").mockReturnValueOnce(["a message"]);
      expect(() => backend.close()).toThrow("[vulkan] validation: a message");
      take.mockRestore();
    } finally {
      if (before === undefined) delete process.env["MLX_VK_VALIDATION"];
      else process.env["MLX_VK_VALIDATION"] = before;
    }
  });
});

describe.skipIf(skipReason)("memory over time", () => {
  /** Bytes of the heap and of the device, after collecting garbage. */
  async function measure(): Promise<{ heap: number; active: number; reserved: number }> {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as () => void;
    for (let i = 0; i < 3; i++) {
      gc();
      await new Promise((r) => setTimeout(r, 10));
    }
    mx.synchronize();
    const { active, reserved } = vulkanBackend().memory.counters;
    return { heap: process.memoryUsage().heapUsed, active, reserved };
  }

  it("10,000 replays of a recorded step leave the memory of the device as it was, and the heap", async () => {
    const x = host(64);
    mx.eval(x);
    const y = mx.sum(mx.softmax(mx.multiply(mx.add(x, 1), 0.5), -1));
    const recording = mx.Recording.evaluate(y);
    expect(recording.refused).toBeUndefined();
    const replay = (times: number): void => {
      for (let i = 0; i < times; i++) {
        mx.overwrite(x, range(64, i % 5));
        recording.run();
        if (i % 50 === 49) expect(y.item()).toBeCloseTo(1, 5);
      }
    };
    replay(3000);
    const before = await measure();
    replay(10_000);
    const after = await measure();
    expect(after.active).toBe(before.active);
    expect(after.reserved).toBe(before.reserved);
    // The epoch of each replay, if it were kept, would be 320 kB (an object of four words).
    expect(after.heap - before.heap).toBeLessThan(300_000);
    recording.dispose();
  }, 120_000);

  it("300 decode steps across growths of the cache give all memory back", async () => {
    const { model } = await load(join(root, demo4bit));
    const steps = (each: number): number => {
      const cache = makePromptCache(model);
      const { evaluations } = stats;
      let made = 0;
      for (let part = 0; part < 3; part++) for (const _ of generateStep(range(8, 300), model, { maxTokens: each, promptCache: cache })) made++;
      expect(cache[0]?.offset).toBeGreaterThanOrEqual(3 * each);
      // Most steps ran a recording again.
      expect(stats.evaluations - evaluations).toBeLessThan(each === 100 ? 150 : 80);
      mx.dispose(cache);
      return made;
    };
    expect(steps(20)).toBe(60);
    const before = await measure();
    expect(steps(100)).toBe(300);
    const after = await measure();
    expect(after.active).toBe(before.active);
  }, 240_000);
});

describe.skipIf(skipReason)("host memory that is imported", () => {
  const before = process.env["MLX_VK_IMPORT"];
  afterEach(() => {
    if (before === undefined) delete process.env["MLX_VK_IMPORT"];
    else process.env["MLX_VK_IMPORT"] = before;
  });
  it.each([1 << 18, (1 << 18) + 3])("%d floats go up and down as through staging memory, and no other byte changes", (n) => {
    const can = vulkanBackend().info.limits.importAlignment > 0;
    const data = Float32Array.from({ length: n }, (_, i) => i % 1013);
    const roundTrip = (on: string): { values: Float32Array; imports: number; active: number } => {
      process.env["MLX_VK_IMPORT"] = on;
      const { counters, memory } = vulkanBackend();
      const { imports } = counters;
      // Neighbours on the host, before and behind the pages.
      const [left, x, right] = [host(1000, 1), mx.array(data), host(1000, 2)];
      const y = mx.multiply(x, 2);
      mx.eval(y);
      // The host's array may be overwritten at once.
      x.dispose();
      const other = mx.array(new Float32Array(n).fill(-1));
      const values = Float32Array.from(y.tolist() as number[]);
      expect(left.tolist()).toEqual(range(1000, 1));
      expect(right.tolist()).toEqual(range(1000, 2));
      expect(other.index(n - 1).item()).toBe(-1);
      mx.dispose(left, right, other, y);
      return { values, imports: counters.imports - imports, active: memory.counters.active };
    };
    const staged = roundTrip("0");
    const imported = roundTrip("1");
    expect(staged.imports).toBe(0);
    // Up: x, and perhaps the other array; down: y.
    expect(imported.imports).toBeGreaterThanOrEqual(can ? 2 : 0);
    const bytes = (a: Float32Array): Buffer => Buffer.from(a.buffer);
    expect(bytes(imported.values).equals(bytes(data.map((v) => 2 * v)))).toBe(true);
    expect(bytes(staged.values).equals(bytes(imported.values))).toBe(true);
    expect(imported.active).toBe(staged.active);
  });
  it("a driver that refuses gets staging memory", () => {
    process.env["MLX_VK_IMPORT"] = "1";
    const refuse = vi.spyOn(vulkanBackend().addon, "importHost").mockImplementation(() => {
      throw Object.assign(new Error("no"), { code: "VULKAN_ERROR" });
    });
    const { imports } = vulkanBackend().counters;
    const y = mx.add(mx.array(new Float32Array(1 << 18).fill(3)), 1);
    expect(y.index(77).item()).toBe(4);
    expect(vulkanBackend().counters.imports).toBe(imports);
    if (vulkanBackend().info.limits.importAlignment > 0) expect(refuse).toHaveBeenCalled();
    refuse.mockRestore();
  });
});

/** Runs a script in a process of its own, on the GPU; gives the exit status or signal, the milliseconds from its line "working" to its end, and what it wrote. */
function run(script: string): Promise<{ status: number | string; ms: number; out: string; err: string }> {
  const source = `import { core as mx } from ${JSON.stringify(join(root, "src", "index.ts"))};\nimport { Worker, isMainThread } from "node:worker_threads";\n${script}`;
  const args = ["--import", "tsx", "--input-type=module", "-e", source];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, DEVICE: "gpu", MLX_VK_DEVICE: process.env["MLX_VK_DEVICE"] ?? "0" } });
  let [out, err, began] = ["", "", 0];
  child.stdout.on("data", (d) => {
    out += d;
    if (began === 0 && out.includes("working")) began = performance.now();
  });
  child.stderr.on("data", (d) => void (err += d));
  return new Promise((resolve) => child.once("close", (status, signal) => resolve({ status: signal ?? status ?? -1, ms: began === 0 ? Number.NaN : performance.now() - began, out, err })));
}
/** Starts work of about `rounds` matrix products. */
const busy = (rounds: number): string => `let y = mx.divide(mx.ones([256, 256]), 256); const first = mx.asyncEval(mx.matmul(y, y)); await first;
  for (let i = 0; i < ${rounds}; i++) y = mx.matmul(y, y); const pending = mx.asyncEval(y); pending.catch(() => {}); console.log("working");`;

describe.skipIf(skipReason)("processes and threads that end with work in flight", () => {
  it.each([
    ["at the end of the program", ""],
    ["by process.exit", "process.exit(0);"],
    ["while a promise is waited for", "void pending.then(() => {}); setImmediate(() => process.exit(0));"],
  ])("%s: status 0, at once, without a word", async (_, end) => {
    const { status, ms, err } = await run(`${busy(30)} ${end}`);
    expect([status, err]).toEqual([0, ""]);
    expect(ms).toBeLessThan(10_000);
  });

  it("an error that nobody catches: status 1 and the error, no abort", async () => {
    const { status, err } = await run(`${busy(30)} throw new Error("nobody catches this");`);
    expect(status).toBe(1);
    expect(err).toMatch(/nobody catches this/);
  });

  it("a worker thread that ends, or is terminated", async () => {
    const worker = (after: string): string =>
      JSON.stringify(`import("tsx/esm/api").then(async ({ register }) => { register(); const { core: mx } = await import(${JSON.stringify(join(root, "src", "index.ts"))}); mx.setDefaultDevice("gpu");
        ${busy(30)} (await import("node:worker_threads")).parentPort.postMessage("working"); ${after} });`);
    const { status, err, out } = await run(`
      for (const [source, terminate] of [[${worker("process.exit(0);")}, false], [${worker("setInterval(() => {}, 1000);")}, true]]) {
        const w = new Worker(source, { eval: true });
        const ended = new Promise((resolve, reject) => { w.once("exit", resolve); w.once("error", reject); });
        await new Promise((resolve, reject) => { w.once("message", resolve); w.once("error", reject); });
        if (terminate) await w.terminate();
        await ended;
      }
      console.log("sum", mx.sum(mx.add(mx.arange(10), 1)).item());`);
    expect([status, err]).toEqual([0, ""]);
    expect(out).toMatch(/sum 55/);
  });

  it("two processes on one device at once get their own results", async () => {
    const script = (mark: number): string => `for (let i = 0; i < 30; i++) {
        const got = mx.tidy(() => mx.sum(mx.add(mx.multiply(mx.ones([1000]), ${mark}), i)).item());
        if (got !== 1000 * (${mark} + i)) throw new Error("got " + got);
      } console.log("done");`;
    const ends = await Promise.all([run(script(3)), run(script(50))]);
    expect(ends.map((e) => [e.status, e.err, e.out])).toEqual(ends.map(() => [0, "", "done\n"]));
  });
});
