/**
 * Arrays that the GPU uses where they lie in the host's memory (MLX_VK_UNIFIED=1): nothing is copied, results are those of the copying path, and no byte is read
 * before it is written or overwritten while it is in use.
 */
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Addon } from "../src/backend/vulkan/addon.ts";
import { CommandStream } from "../src/backend/vulkan/commands.ts";
import { setVulkanOpenOptions, vulkanBackend } from "../src/backend/vulkan/index.ts";
import type { Allocation } from "../src/backend/vulkan/memory.ts";
import { HostWindows } from "../src/backend/vulkan/unified.ts";
import { wasmBackend } from "../src/backend/wasm/index.ts";
import { generateStep } from "../src/llm/index.ts";
import { load } from "../src/llm/load.ts";
import * as mx from "../src/mx.ts";
import { stats } from "../src/schedule/run.ts";
import { chooseTestDevice, counted } from "./helpers/gpu-scheduler.ts";
import { demoBf16 } from "./helpers/llm.ts";
import { skipReason } from "./helpers/vulkan.ts";

const root = join(import.meta.dirname, "..");
const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => i + from);
const host = (n: number, from = 0): mx.MxArray => mx.array(Float32Array.from(range(n, from)));
const onCpu = (a: mx.MxArray): mx.MxArray => mx.add(a, a, "cpu");
const none = { uploads: 0, uploadedBytes: 0, downloads: 0, downloadedBytes: 0 };

/** Closes the device; the next use opens it with this value of MLX_VK_UNIFIED. */
function reopen(unified: string, options: Parameters<typeof setVulkanOpenOptions>[0] = {}): void {
  vulkanBackend().close();
  process.env["MLX_VK_UNIFIED"] = unified;
  setVulkanOpenOptions(options);
  vulkanBackend();
  setVulkanOpenOptions({});
}
/** The same work on a device that copies and on one that does not. */
function both<T>(work: () => T): { copied: T; inPlace: T; counts: ReturnType<typeof counted> } {
  reopen("0");
  const copied = work();
  reopen("1");
  let inPlace: T | undefined;
  const counts = counted(() => (inPlace = work()));
  return { copied, inPlace: inPlace as T, counts };
}

const before = process.env["MLX_VK_UNIFIED"];
/** Why the tests do not run: no device, or one that can not import host memory. */
let why = skipReason;
if (!why) {
  chooseTestDevice();
  process.env["MLX_VK_UNIFIED"] = "0";
  if (vulkanBackend().info.limits.importAlignment === 0) why = "the device can not import host memory";
}

describe.skipIf(why)(`arrays in host memory that the device uses in place${why ? ` (skipped: ${why})` : ""}`, () => {
  beforeAll(() => {
    process.env["MLX_VK_HAZARDS"] = "1";
    mx.setDefaultDevice("gpu");
    reopen("1");
  });
  afterAll(() => {
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
    process.env["MLX_VK_HAZARDS"] = "0";
    if (before === undefined) delete process.env["MLX_VK_UNIFIED"];
    else process.env["MLX_VK_UNIFIED"] = before;
  });
  afterEach(() => {
    vi.restoreAllMocks();
    if (vulkanBackend().unified) mx.synchronize();
    else reopen("1");
  });

  it("is on with 1, off with 0; auto leaves it to integrated GPUs", () => {
    expect(vulkanBackend().unified).toBe(true);
    reopen("0");
    expect(vulkanBackend().unified).toBe(false);
    expect(counted(() => expect(mx.add(host(10), 1).tolist()).toEqual(range(10, 1)))).toMatchObject({ inPlace: 0, uploads: 1, downloads: 1 });
    reopen("auto");
    expect(vulkanBackend().unified).toBe(vulkanBackend().info.type === 1);
  });

  it("copies nothing: not up, not down, not between the devices", () => {
    const a = host(1000);
    let y: mx.MxArray | undefined;
    const seen = counted(() => {
      y = mx.add(onCpu(mx.add(onCpu(mx.add(a, 1)), a)), 1);
      expect(y.tolist()).toEqual(range(1000).map((i) => 2 * (2 * (i + 1) + i) + 1));
    });
    expect(seen).toMatchObject({ ...none, dispatches: 3, fallbacks: 0 });
    expect(seen.inPlace).toBeGreaterThanOrEqual(3);
    expect(counted(() => y?.tolist())).toMatchObject({ ...none, syncs: 0 });
  });

  it("kernels write the bytes that the host reads, at one address", () => {
    const y = mx.add(host(64), 1);
    mx.eval(y);
    const { storage } = y.desc;
    expect(storage?.device?.hostAddress).toBe(storage?.address);
    mx.synchronize();
    const { memory } = wasmBackend().memory;
    expect(Array.from(new Float32Array(memory.buffer, storage?.address, 64))).toEqual(range(64, 1));
  });

  it("mixed graphs give the same bits as with copies", () => {
    const work = (): number[][] => {
      mx.random.seed(7);
      const x = mx.random.normal([64, 96]);
      const w = mx.random.normal([96, 96]);
      const outs: number[][] = [];
      let h = x;
      for (let i = 0; i < 6; i++) {
        h = mx.softmax(mx.matmul(h, w), -1);
        h = i % 2 ? mx.subtract(h, mx.mean(h, -1, true, "cpu")) : mx.multiply(mx.transpose(mx.transpose(mx.exp(h, "cpu"))), 2);
        if (i % 3 === 0) outs.push(mx.sum(h, 0).tolist() as number[]);
        h = mx.putAlongAxis(h, mx.zeros([64, 1], mx.int32), mx.full([64, 1], i, mx.float32), 1);
      }
      outs.push(mx.reshape(h, [-1]).tolist() as number[], mx.sort(mx.reshape(h, [-1]).index(mx.Slice(0, 500)), 0, "cpu").tolist() as number[]);
      return outs;
    };
    const { copied, inPlace, counts } = both(work);
    expect(inPlace).toEqual(copied);
    expect(counts).toMatchObject(none);
  });

  it("a write by the CPU over what the device still reads waits for it, and the other way round", () => {
    const n = 1 << 18;
    for (let i = 0; i < 5; i++) {
      // The device reads x many times while the CPU's result takes over its memory; then the device's result takes over that.
      const x = mx.add(host(n, i), 1);
      const uses = range(6).map((k) => mx.multiply(x, k + 1));
      mx.eval(uses);
      const late = range(6).map((k) => mx.add(x, k));
      const z = mx.tidy(() => {
        const c = mx.negative(x, "cpu");
        void mx.asyncEval(...late, c);
        return mx.add(mx.multiply(c, 2, "cpu"), 3);
      });
      mx.overwrite(x, new Float32Array(n).fill(-9) as unknown as number[]);
      for (const k of [0, 5]) {
        expect((uses[k] as mx.MxArray).index(n - 1).item()).toBe((n + i) * (k + 1));
        expect((late[k] as mx.MxArray).index(n - 1).item()).toBe(n + i + k);
      }
      expect(z.index(n - 1).item()).toBe(-2 * (n + i) + 3);
      expect(x.index(n - 1).item()).toBe(-9);
      mx.dispose(x, uses, late, z);
    }
  });

  describe("commands of one side that have not run yet keep the other from their bytes", () => {
    const n = 1 << 18;
    const square = (k: number, device: "cpu" | "gpu"): mx.MxArray => mx.multiply(mx.sum(mx.matmul(mx.ones([k, k]), mx.ones([k, k]), device), undefined, false, device), 0, device);
    /** Begins a copy of a by the CPU, or by the device, behind work that takes a while. */
    const copying = (a: mx.MxArray, device: "cpu" | "gpu"): mx.MxArray => begin(() => mx.add(a, square(device === "cpu" ? 768 : 256, device), device));
    const begin = (graph: () => mx.MxArray): mx.MxArray => {
      const made = mx.tidy(graph);
      void mx.asyncEval(made);
      return made;
    };
    /** The same for an array that is given back at once. */
    const last = (a: mx.MxArray, graph: (a: mx.MxArray) => mx.MxArray): mx.MxArray => {
      const made = mx.tidy(() => graph(a));
      a.dispose();
      void mx.asyncEval(made);
      return made;
    };
    const evaluated = (a: mx.MxArray): mx.MxArray => {
      mx.eval(a);
      return a;
    };
    const bytes = (a: mx.MxArray): Buffer => Buffer.from(Float32Array.from(a.tolist() as number[]).buffer);
    const holds = (a: mx.MxArray, value: (i: number) => number): void => expect(bytes(a).equals(Buffer.from(Float32Array.from({ length: n }, (_, i) => value(i)).buffer))).toBe(true);

    it.each([
      ["the device reads what the CPU has still to write", () => [last(copying(host(n), "cpu"), (c) => mx.add(c, 1))], [(i: number) => i + 1]],
      [
        "the device's result takes over what the CPU has still to read",
        () => {
          const x = evaluated(mx.add(host(n), 1));
          return [copying(x, "cpu"), last(x, (a) => mx.add(a, 1000))];
        },
        [(i: number) => i + 1, (i: number) => i + 1001],
      ],
      [
        "the device's result lies in memory that the CPU has still to read and gave back",
        () => {
          const x = evaluated(mx.add(host(n), 1, "cpu"));
          const copy = copying(x, "cpu");
          x.dispose();
          return [copy, begin(() => mx.full([n], -5, mx.float32))];
        },
        [(i: number) => i + 1, () => -5],
      ],
      [
        "... that both used and gave back",
        () => {
          const x = evaluated(mx.add(host(n), 1));
          // The device must be done first, but not before x is given back.
          const made = [begin(() => mx.add(mx.max(x), square(100, "gpu"))), copying(x, "cpu")];
          x.dispose();
          return [...made, begin(() => mx.full([n], -5, mx.float32))];
        },
        [undefined, (i: number) => i + 1, () => -5],
      ],
      [
        "the CPU's result takes over what the device has still to read",
        () => {
          const x = evaluated(mx.add(host(n), 1));
          return [copying(x, "gpu"), last(x, (a) => mx.negative(a, "cpu"))];
        },
        [(i: number) => i + 1, (i: number) => -i - 1],
      ],
    ] as [string, () => mx.MxArray[], (((i: number) => number) | undefined)[]][])("%s", (_, work, want) => {
      const seen = counted(() => {
        for (let time = 0; time < 3; time++) {
          const made = work();
          want.forEach((value, k) => value && holds(made[k] as mx.MxArray, value));
          mx.dispose(made);
        }
      });
      expect(seen).toMatchObject(none);
    });
  });

  it("a block that only the device used goes to its next result at once; one that the host read goes back to the host first", () => {
    const n = 1 << 18;
    const again = (read: boolean): boolean => {
      const x = mx.add(host(n), 1);
      mx.eval(x);
      if (read) x.tolist();
      const at = x.desc.storage?.address;
      const uses = mx.tidy(() => mx.add(x, mx.sum(mx.matmul(mx.ones([256, 256]), mx.ones([256, 256])))));
      void mx.asyncEval(uses);
      x.dispose();
      const next = mx.full([n], -5, mx.float32);
      void mx.asyncEval(next);
      const same = next.desc.storage?.address === at;
      mx.dispose(uses, next);
      return same;
    };
    expect([again(false), again(true)]).toEqual([true, false]);
  });

  it("two windows over the same bytes: a barrier parts a write through one from a read through the other", () => {
    const memory = { alloc: () => 0, free: () => {}, quiesce: () => {}, bytes: (at: number, length: number) => new Uint8Array(new SharedArrayBuffer(256 << 20), at, length) };
    let buffers = 0;
    const fake = { importHost: () => buffers++, bufferAddress: (b: number) => BigInt(b) << 40n } as unknown as Addon;
    const windows = new HostWindows(fake, memory, 4096, 2 ** 31);
    const at = (20 << 20) + 64;
    const [narrow, wide] = [windows.place(at, 256), windows.place(at, 256, 40 << 20)] as [Allocation, Allocation];
    expect([narrow.buffer, narrow.offset, narrow.high, wide.buffer, wide.offset, wide.high]).toEqual([0, (4 << 20) + 64, 0, 1, at, 256]);
    // The windows of one level overlap by half, so that nothing lies across a border.
    expect(windows.place((32 << 20) - 128, 256)).toMatchObject({ buffer: 0 });
    expect(windows.place((16 << 20) - 128, 256)).toMatchObject({ buffer: 2, offset: (16 << 20) - 128 });
    const stream = new CommandStream({ debug: true, canonical: windows.canonical });
    const { barriers } = stream;
    const start = barriers.transferBarrier;
    stream.fill(narrow, 1);
    stream.copy({ ...wide, offset: wide.offset + 4096 }, { buffer: 99, offset: 0, bytes: 256 });
    expect(barriers.transferBarrier).toBe(start);
    stream.copy(wide, { buffer: 99, offset: 256, bytes: 256 });
    expect(barriers.transferBarrier).toBe(start + 1);
    expect(stream.hazards()).toEqual([]);
  });

  it("memory that is given back while the device uses it goes to nobody else before that is done", () => {
    const n = 1 << 18;
    const want: [mx.MxArray, number][] = [];
    for (let i = 0; i < 30; i++) {
      const a = host(n, i);
      const y = mx.tidy(() => mx.add(mx.multiply(mx.add(a, 1), 2), a));
      void mx.asyncEval(y);
      a.dispose();
      // The host asks for blocks of the same size at once, and fills them; every other one through the CPU's kernels.
      const other = i % 2 ? mx.array(new Float32Array(n).fill(-1)) : mx.full([n], -1, mx.float32, "cpu");
      mx.eval(other);
      want.push([y, 2 * (n + i) + n - 1 + i]);
      expect(other.index(n - 1).item()).toBe(-1);
      other.dispose();
      if (i % 3 === 0) mx.dispose((want.shift() as [mx.MxArray, number])[0]);
    }
    for (const [y, last] of want) expect(y.index(n - 1).item()).toBe(last);
    mx.dispose(want.map(([y]) => y));
    mx.synchronize();
  });

  it("host memory stays flat while work is repeated, and all of it comes back", () => {
    const { counters } = wasmBackend().memory;
    const step = (): void => mx.tidy(() => mx.eval(mx.sum(mx.multiply(onCpu(mx.add(host(5000), 1)), mx.softmax(host(5000))))));
    for (let i = 0; i < 10; i++) step();
    mx.synchronize();
    mx.clearCache();
    const { active } = counters;
    for (let i = 0; i < 200; i++) step();
    mx.synchronize();
    mx.clearCache();
    expect(counters.active).toBeLessThanOrEqual(active + 4096);
  });

  it("the host's memory may grow while the device works on it, over the ends of windows", () => {
    const n = 3 << 20;
    const first = mx.add(host(n), 1);
    const made: mx.MxArray[] = [];
    void mx.asyncEval(first);
    const { inPlace } = vulkanBackend().counters;
    // 12 MiB each: most lie across a border of 16 MiB.
    for (let i = 0; i < 8; i++) {
      const y = mx.add(mx.full([n], i, mx.float32, i % 2 ? "cpu" : "gpu"), first);
      void mx.asyncEval(y);
      made.push(y);
    }
    const addresses = made.map((m) => m.desc.storage?.address as number);
    expect(Math.max(...addresses)).toBeGreaterThan(first.desc.storage?.address as number);
    made.forEach((m, i) => expect([m.index(0).item(), m.index(n - 1).item()]).toEqual([i + 1, n + i]));
    expect(vulkanBackend().counters.inPlace).toBeGreaterThanOrEqual(inPlace + 8);
    // A block larger than the smallest window.
    const big = mx.add(mx.full([10 << 20], 2, mx.float32, "cpu"), 1);
    expect(counted(() => mx.eval(big))).toMatchObject(none);
    expect(big.index((10 << 20) - 1).item()).toBe(3);
    mx.dispose(first, made, big);
  });

  it("WebAssembly memory that grows keeps its place for the device", () => {
    const { addon } = vulkanBackend();
    const memory = new WebAssembly.Memory({ initial: 4, maximum: 64, shared: true });
    const early = addon.importHost(new Uint8Array(memory.buffer, 0, 1 << 18));
    const fill = (buffer: number, value: number): number => addon.submit(Uint32Array.from([8, buffer, 0, 0, 1 << 18, 0, value, 6]), 8);
    vulkanBackend().synchronize();
    const value = fill(early, 7);
    memory.grow(60);
    const late = addon.importHost(new Uint8Array(memory.buffer, 32 << 16, 1 << 18));
    addon.waitSync(fill(late, 9));
    addon.waitSync(value);
    const words = new Int32Array(memory.buffer);
    expect([words[0], words[65535], words[65536], words[32 << 14], words[(32 << 14) + 65535]]).toEqual([7, 7, 0, 9, 9]);
    for (const b of [early, late]) addon.destroyBuffer(b);
    reopen("1");
  });

  it("full host memory: the device's work is waited for, then results lie in the device's memory", () => {
    const n = 1 << 20;
    const { counters } = wasmBackend().memory;
    mx.clearCache();
    const limit = wasmBackend().memory.setLimit(counters.active + 6 * 4 * n + (1 << 20));
    try {
      let y = mx.full([n], 0, mx.float32);
      for (let i = 0; i < 40; i++) {
        const next = mx.tidy(() => mx.add(mx.transpose(mx.reshape(mx.add(y, 0.5), [1024, 1024])), mx.full([1024], 0.5, mx.float32)));
        void mx.asyncEval(next);
        y.dispose();
        y = mx.reshape(next, [n]);
        next.dispose();
      }
      expect(y.index(5).item()).toBe(40);
      // More than there is room for: some have memory of their own, and are right all the same.
      const many = range(12).map((i) => mx.add(y, i));
      mx.eval(many);
      expect(many.some((m) => m.desc.storage?.device?.hostAddress === undefined)).toBe(true);
      expect(many.map((m) => mx.sum(m).item())).toEqual(range(12).map((i) => n * (40 + i)));
      mx.dispose(many, y);
    } finally {
      wasmBackend().memory.setLimit(limit);
    }
  });

  it("a driver that refuses windows gets copies", () => {
    const { addon } = vulkanBackend();
    vulkanBackend().close();
    const real = addon.importHost.bind(addon);
    let allowed = 0;
    const refuse = vi.spyOn(addon, "importHost").mockImplementation((m) => {
      if (allowed-- > 0) return real(m);
      throw Object.assign(new Error("no"), { code: "VULKAN_ERROR" });
    });
    const work = (): void => expect(mx.add(onCpu(mx.add(host(100), 1)), 1).tolist()).toEqual(range(100).map((i) => 2 * (i + 1) + 1));
    expect(counted(work)).toMatchObject({ inPlace: 0, uploads: 2 });
    expect(vulkanBackend().unified).toBe(false);
    expect(refuse).toHaveBeenCalled();
    // Refused after the check has passed: those arrays are copied.
    vulkanBackend().close();
    allowed = 2;
    expect(vulkanBackend().unified).toBe(true);
    const far = mx.full([12 << 20], 1, mx.float32, "cpu");
    mx.eval(far);
    const y = mx.add(far, 1);
    expect(counted(() => mx.eval(y))).toMatchObject({ uploads: 1, uploadedBytes: 48 << 20 });
    expect(y.index(12345).item()).toBe(2);
    refuse.mockRestore();
    reopen("1");
  });

  it("a device that is lost loses nothing that was done", () => {
    reopen("1", { loseAfter: 8 });
    const first = vulkanBackend();
    const input = host(100);
    const done = mx.add(input, 5);
    mx.eval(done);
    mx.synchronize();
    let late: mx.MxArray | undefined;
    expect(() => {
      for (let i = 0; i < 100; i++) {
        late = mx.add(input, i);
        mx.eval(late);
      }
    }).toThrow(/was lost/);
    expect(first.lost).toBeDefined();
    expect(done.tolist()).toEqual(range(100, 5));
    expect(input.tolist()).toEqual(range(100));
    // What was under way is not known.
    expect(() => (late as mx.MxArray).tolist()).toThrow(/was lost/);
    expect(mx.add(done, input).tolist()).toEqual(range(100).map((i) => 2 * i + 5));
    expect(vulkanBackend()).not.toBe(first);
    // Blocks of the lost device are given back once.
    const { active } = wasmBackend().memory.counters;
    mx.dispose(done, input, late);
    expect(wasmBackend().memory.counters.active).toBeLessThan(active);
    reopen("1");
  });

  it("recordings read what the host writes, and their results are read in place", () => {
    const x = host(8);
    mx.eval(x);
    const y = mx.multiply(mx.add(x, 1), 2);
    const recording = mx.Recording.evaluate(y);
    expect(recording.refused).toBeUndefined();
    const seen = counted(() => {
      for (let i = 0; i < 5; i++) {
        mx.overwrite(x, range(8, i));
        recording.run();
        expect(y.tolist()).toEqual(range(8, i).map((v) => 2 * v + 2));
        // The CPU's command may still be on its way when the next run overwrites what it reads.
        void mx.asyncEval(onCpu(y));
      }
    });
    expect(seen).toMatchObject(none);
    recording.dispose();
  });

  it("a bfloat16 model with ops that fall back to the CPU makes the same tokens, step by step and recorded", async () => {
    const tokens = async (): Promise<number[]> => {
      const { model } = await load(join(root, demoBf16));
      const found: number[] = [];
      for (const [t] of generateStep(range(8, 300), model, { maxTokens: 8 })) found.push(t as number);
      return found;
    };
    const run = async (unified: string, disable: string): Promise<{ made: number[]; fallbacks: number }> => {
      reopen(unified);
      process.env["MLX_DISABLE"] = disable;
      const { fallbacks } = stats;
      try {
        return { made: await tokens(), fallbacks: stats.fallbacks - fallbacks };
      } finally {
        delete process.env["MLX_DISABLE"];
      }
    };
    const some = "vulkan/softmax/*,vulkan/rope/*,vulkan/generated";
    const copied = await run("0", some);
    const inPlace = await run("1", some);
    expect(inPlace.fallbacks).toBe(copied.fallbacks);
    expect(inPlace.fallbacks).toBeGreaterThan(8);
    expect(inPlace.made).toEqual(copied.made);
    expect((await run("1", "")).made).toEqual((await run("0", "")).made);
    reopen("1");
  }, 120_000);
});
