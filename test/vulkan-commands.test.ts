/** Streams and device memory, without a device: the addon is a stand-in that hands out numbers. */
import { describe, expect, test } from "vitest";
import type { Addon } from "../src/backend/vulkan/addon.ts";
import { CommandStream, type Range } from "../src/backend/vulkan/commands.ts";
import { type Allocation, DeviceMemory } from "../src/backend/vulkan/memory.ts";

const range = (buffer: number, offset = 0, bytes = 64): Range => ({ buffer, offset, bytes });
const words = (s: CommandStream): number[] => Array.from(s.words.subarray(0, s.length));
const one = [1, 1, 1] as const;

describe("streams", () => {
  test("encode what they are told, 64-bit numbers as low and high words", () => {
    const s = new CommandStream({ ordered: false });
    s.dispatch(7, [1, 2, 3], [10, 11], [], []);
    s.copy(range(1, 2 ** 32 + 4, 8), range(2, 16, 8));
    s.fill(range(3, 0, 12), 0xffffffff);
    s.update(range(4, 8, 8), [5, 6]);
    s.timestamp(9);
    expect(words(s)).toEqual([1, 7, 1, 2, 3, 2, 10, 11, 7, 1, 4, 1, 2, 16, 0, 8, 0, 8, 3, 0, 0, 12, 0, 0xffffffff, 9, 4, 8, 0, 2, 5, 6, 10, 9]);
    expect(() => s.copy(range(1, 0, 8), range(2, 0, 4))).toThrow("[vulkan] copy: sizes differ, got 8 and 4 bytes");
  });
  test("independent kernels get no barrier; dependent ones the narrow one", () => {
    const s = new CommandStream({ ordered: false, debug: true });
    s.dispatch(0, one, [], [range(1)], [range(2)]);
    s.dispatch(0, one, [], [range(1)], [range(3)]);
    expect(s.barriers).toEqual({ barrier: 0, transferBarrier: 0, indirectBarrier: 0, hostBarrier: 0 });
    // Read after write; then another read of the same needs none.
    s.dispatch(0, one, [], [range(2), range(3)], [range(4)]);
    s.dispatch(0, one, [], [range(2)], [range(5)]);
    expect(s.barriers.barrier).toBe(1);
    // Write after read, write after write.
    s.dispatch(0, one, [], [], [range(2)]);
    s.dispatch(0, one, [], [], [range(2)]);
    expect(s.barriers).toEqual({ barrier: 3, transferBarrier: 0, indirectBarrier: 0, hostBarrier: 0 });
    expect(s.hazards()).toEqual([]);
  });
  test("disjoint parts of one buffer are independent", () => {
    const s = new CommandStream({ ordered: false });
    s.dispatch(0, one, [], [], [range(1, 0, 64)]);
    s.dispatch(0, one, [], [range(1, 64, 64)], [range(1, 128, 64)]);
    expect(s.barriers.barrier).toBe(0);
    s.dispatch(0, one, [], [range(1, 60, 8)], []);
    expect(s.barriers.barrier).toBe(1);
  });
  test("copies, indirect dispatches and the host have barriers of their own", () => {
    const s = new CommandStream({ ordered: false, debug: true });
    s.fill(range(1), 0);
    s.dispatch(0, one, [], [range(1)], [range(2)]);
    expect(s.barriers).toEqual({ barrier: 0, transferBarrier: 1, indirectBarrier: 0, hostBarrier: 0 });
    // A narrow barrier does not order the kernel before the copy.
    s.dispatch(0, one, [], [range(2)], [range(3)]);
    s.copy(range(2), range(4));
    expect(s.barriers).toEqual({ barrier: 1, transferBarrier: 2, indirectBarrier: 0, hostBarrier: 0 });
    s.dispatchIndirect(0, range(4, 0, 12), [], [], [range(5)]);
    expect(s.barriers.indirectBarrier).toBe(1);
    s.dispatch(0, one, [], [], [range(4)]);
    expect(s.barriers.transferBarrier).toBe(3);
    s.hostReads([range(5)]);
    expect(s.barriers.hostBarrier).toBe(1);
    expect(s.hazards()).toEqual([]);
  });
  test("by hand: the checker names what is not ordered", () => {
    const s = new CommandStream({ automatic: false, ordered: false, debug: true });
    s.dispatch(0, one, [], [], [range(1)], "first");
    s.dispatch(0, one, [], [range(1)], [range(2)], "second");
    expect(s.hazards()).toEqual(["second reads what first writes: buffer 1, bytes 0 and on"]);
    s.clear();
    s.dispatch(0, one, [], [], [range(1)], "first");
    s.barrier("barrier");
    s.copy(range(1), range(2));
    expect(s.hazards()).toEqual(["copy reads what first writes: buffer 1, bytes 0 and on"]);
    s.clear();
    s.dispatch(0, one, [], [], [range(1)], "first");
    s.barrier("transferBarrier");
    s.copy(range(1), range(2));
    s.hostReads([range(2)]);
    expect(s.hazards()).toEqual(["host reads what copy writes: buffer 2, bytes 0 and on"]);
  });
  test("random streams with automatic barriers have no hazards, and would have without", () => {
    let seed = 12345;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    let bare = 0;
    for (let round = 0; round < 30; round++) {
      const some = (): Range => range(random(3), 16 * random(8), 16 * (1 + random(3)));
      const streams = [new CommandStream({ debug: true }), new CommandStream({ automatic: false, debug: true })];
      for (let i = 0; i < 40; i++) {
        const [a, b, c, kind] = [some(), some(), some(), random(5)];
        for (const s of streams) {
          if (kind < 3) s.dispatch(0, one, [i], [a, b], [c]);
          else if (kind === 3) s.copy(a, { ...c, bytes: a.bytes });
          else s.dispatchIndirect(0, range(a.buffer, a.offset, 12), [], [b], [c]);
        }
      }
      expect(streams[0]?.hazards()).toEqual([]);
      bare += streams[1]?.hazards().length ?? 0;
    }
    expect(bare).toBeGreaterThan(1000);
  });
});

describe("memory", () => {
  function standIn(limit = Number.POSITIVE_INFINITY) {
    const live = new Map<number, number>();
    let next = 0;
    let used = 0;
    const addon = {
      completed: () => 0,
      createBuffer: (bytes: number) => {
        if (used + bytes > limit) throw Object.assign(new Error("vkAllocateMemory failed"), { code: "OUT_OF_DEVICE_MEMORY" });
        used += bytes;
        live.set(next, bytes);
        return next++;
      },
      destroyBuffer: (id: number) => {
        used -= live.get(id) as number;
        live.delete(id);
      },
      bufferAddress: (id: number) => BigInt(id + 1) << 40n,
    } as unknown as Addon;
    return { addon, live };
  }
  test("pieces never overlap, are aligned, and all of it comes back", () => {
    const { addon, live } = standIn();
    const memory = new DeviceMemory(addon, { blockBytes: 2 ** 16 });
    const held: Allocation[] = [];
    let seed = 7;
    for (let i = 0; i < 3000; i++) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      if (held.length > 0 && seed % 5 < 2) memory.free(held.splice((seed >>> 8) % held.length, 1)[0] as Allocation);
      else {
        const a = memory.allocate((seed >>> 8) % 9000);
        expect(a.offset % 256).toBe(0);
        expect(a.offset + a.bytes).toBeLessThanOrEqual(live.get(a.buffer) as number);
        expect((BigInt(a.high) << 32n) + BigInt(a.low)).toBe(addon.bufferAddress(a.buffer) + BigInt(a.offset));
        for (const b of held) if (b.buffer === a.buffer) expect(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset).toBe(true);
        held.push(a);
      }
      if (i % 50 === 0) {
        const empty = [...live].filter(([buffer]) => !held.some((a) => a.buffer === buffer));
        expect(memory.counters.cached).toBe(empty.reduce((n, [, bytes]) => n + bytes, 0));
      }
    }
    expect(memory.counters.active).toBe(held.reduce((n, a) => n + a.bytes, 0));
    for (const a of held) memory.free(a);
    memory.trim();
    expect([live.size, memory.counters.active, memory.counters.reserved, memory.counters.cached]).toEqual([0, 0, 0, 0]);
  });
  test("frees wait for the timeline; double frees are errors", () => {
    const { addon } = standIn();
    const memory = new DeviceMemory(addon, { blockBytes: 4096 });
    const a = memory.allocate(4096);
    memory.free(a, 5);
    expect(memory.counters.active).toBe(4096);
    memory.collect(4);
    expect(memory.counters.active).toBe(4096);
    memory.collect(5);
    expect(memory.counters.active).toBe(0);
    expect(() => memory.free(a)).toThrow("not allocated");
    expect(memory.allocate(100)).toMatchObject({ buffer: a.buffer, offset: 0, bytes: 256 });
  });
  test("uploads and device memory lie in different buffers; `separate` gives each its own", () => {
    const memory = new DeviceMemory(standIn().addon);
    expect(memory.allocate(10, 0).buffer).not.toBe(memory.allocate(10, 1).buffer);
    expect(memory.allocate(10, 1).buffer).toBe(memory.allocate(10, 1).buffer);
    const { addon, live } = standIn();
    const separate = new DeviceMemory(addon, { separate: true });
    const [a, b] = [separate.allocate(10), separate.allocate(10)];
    expect(a.buffer).not.toBe(b.buffer);
    separate.free(a);
    separate.trim();
    expect(live.size).toBe(1);
  });
  test("memory on the device that the host writes is taken in small blocks", () => {
    const { addon, live } = standIn();
    const memory = new DeviceMemory(addon);
    const [table, data] = [memory.allocate(100, 3), memory.allocate(100, 1)];
    expect([live.get(table.buffer), live.get(data.buffer)]).toEqual([4 << 20, 64 << 20]);
    expect(memory.allocate(3 << 20, 3).bytes).toBe(3 << 20);
  });
  test("an allocation that fits is not refused because a whole block does not", () => {
    const { addon, live } = standIn(3000);
    const memory = new DeviceMemory(addon, { blockBytes: 2048 });
    const [a, b] = [memory.allocate(1024), memory.allocate(700, 1)];
    expect([live.get(a.buffer), live.get(b.buffer)]).toEqual([2048, 768]);
    expect(() => memory.allocate(512, 2)).toThrow(expect.objectContaining({ code: "OUT_OF_DEVICE_MEMORY" }));
    expect(memory.allocate(1024).buffer).toBe(a.buffer);
  });
  test("out of memory: empty buffers go back first, then an error with a code; later work is right", () => {
    const { addon } = standIn(10000);
    const memory = new DeviceMemory(addon, { blockBytes: 1024 });
    memory.free(memory.allocate(8000));
    const a = memory.allocate(9000);
    expect(() => memory.allocate(5000)).toThrow(expect.objectContaining({ code: "OUT_OF_DEVICE_MEMORY" }));
    memory.free(a);
    expect(memory.allocate(9900).bytes).toBe(9984);
    const limited = new DeviceMemory(standIn().addon, { limit: 5000, blockBytes: 1024 });
    limited.allocate(4000);
    expect(() => limited.allocate(4000)).toThrow("the limit is 5000");
  });
});
