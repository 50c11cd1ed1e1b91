import { afterEach, describe, expect, it } from "vitest";
import { SharedMemory } from "../src/backend/wasm/memory.ts";
import { type CommandList, WorkerPool } from "../src/backend/wasm/pool.ts";

/** Writes commands of one kernel each. */
function list(pool: WorkerPool, shared: SharedMemory, commands: { entry: string | { key: string; bytes(): Uint8Array }; units: number; grain: number; args: number[]; members?: number }[]): CommandList {
  const start = shared.reserve(commands.length * 48 + 64);
  const words = new Int32Array(shared.memory.buffer, 0, 2 ** 29);
  let at = start / 4;
  for (const c of commands) {
    const size = 6 + c.args.length + ((6 + c.args.length) & 1);
    words.set([pool.modules.indexOf(c.entry), Math.ceil(c.units / c.grain), c.units, c.grain, (at + size) * 4, c.members ?? 0, ...c.args], at);
    at += size;
  }
  return { start, end: at * 4 };
}
/** (func (export "k") (param i32 i32 i32) unreachable) */
const trapping = { key: "test/trap", bytes: () => Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 3, 127, 127, 127, 0, 3, 2, 1, 0, 7, 5, 1, 1, 107, 0, 0, 10, 5, 1, 3, 0, 0, 11]) };

const shared = new SharedMemory();
let pool: WorkerPool | undefined;
const make = (threads: number): WorkerPool => {
  process.env["MLX_THREADS"] = String(threads);
  pool = new WorkerPool(shared);
  return pool;
};
afterEach(() => {
  pool?.stop();
  delete process.env["MLX_THREADS"];
});
const read = (at: number, n: number): Uint32Array => new Uint32Array(shared.memory.buffer, at, n).slice();

describe.each([1, 2])("command lists on %i threads", (threads) => {
  it("run every unit once and commands in order", () => {
    const p = make(threads);
    for (let round = 0; round < 30; round++) {
      const n = 1 + ((round * 997) % 5000);
      const at = shared.alloc(n * 4);
      new Uint32Array(shared.memory.buffer, at, n).fill(7);
      const commands = Array.from({ length: 40 }, (_, i) => ({ entry: "probe/chain", units: n, grain: i % 3 === 0 ? n : 1 + (i % 64), args: [at, i] }));
      p.run(list(p, shared, commands));
      let want = 7;
      for (let i = 0; i < 40; i++) want = (Math.imul(want, 3) + i) >>> 0;
      expect(new Set(read(at, n))).toEqual(new Set([want]));
      shared.free(at, n * 4);
    }
  });
  it("run asynchronously, in order, with modules that are added meanwhile", async () => {
    const p = make(threads);
    const n = 3000;
    const at = shared.alloc(n * 4);
    new Uint32Array(shared.memory.buffer, at, n).fill(1);
    let over = 0;
    let want = 1;
    const epochs = [];
    for (let i = 0; i < 20; i++) {
      // A module that no thread has seen: an empty kernel under a new key.
      const empty = { key: `test/empty${i}`, bytes: () => Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 3, 127, 127, 127, 0, 3, 2, 1, 0, 7, 5, 1, 1, 107, 0, 0, 10, 4, 1, 2, 0, 11]) };
      epochs.push(p.submit(list(p, shared, [{ entry: empty, units: 1, grain: 1, args: [] }, { entry: "probe/chain", units: n, grain: 50, args: [at, i] }, { entry: empty, units: 4, grain: 1, args: [] }]), () => over++));
      want = (Math.imul(want, 3) + i) >>> 0;
    }
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await Promise.all(epochs.map((e) => e.promise()));
    clearInterval(timer);
    expect(over).toBe(20);
    expect(p.busy).toBe(false);
    expect(new Set(read(at, n))).toEqual(new Set([want]));
  });
  it("run commands that belong together at the same time, and the next one after all of them", () => {
    for (const threads of [1, 2, 4]) {
      const p = make(threads);
      const sizes = [700, 1, 300];
      const arrays = sizes.map((n) => shared.reserve(4 * n));
      const words = new Uint32Array(shared.memory.buffer);
      sizes.forEach((n, i) => words.fill(1, (arrays[i] as number) / 4, (arrays[i] as number) / 4 + n));
      const chain = (i: number, addend: number, members: number) => ({ entry: "probe/chain", units: sizes[i] as number, grain: 7, args: [arrays[i] as number, addend], members });
      const commands = list(p, shared, Array.from({ length: 10 }, (_, r) => [chain(0, r, 2), chain(1, r, 0), chain(2, r, 0), chain(0, 1, 0), chain(1, 1, 1), chain(2, 1, 0)]).flat());
      p.run(commands);
      let want = 1;
      for (let r = 0; r < 10; r++) want = (Math.imul((Math.imul(want, 3) + r) | 0, 3) + 1) >>> 0;
      sizes.forEach((n, i) => expect(new Set(words.subarray((arrays[i] as number) / 4, (arrays[i] as number) / 4 + n)), `${threads} threads`).toEqual(new Set([want])));
      p.stop();
    }
  });
  it("a synchronous list after asynchronous ones waits for them", () => {
    const p = make(threads);
    const n = 2000;
    const at = shared.alloc(n * 4);
    new Uint32Array(shared.memory.buffer, at, n).fill(1);
    let want = 1;
    for (let i = 0; i < 30; i++) {
      const l = list(p, shared, [{ entry: "probe/chain", units: n, grain: 16, args: [at, i] }]);
      if (i % 3 === 2) p.run(l);
      else p.submit(l, () => {});
      want = (Math.imul(want, 3) + i) >>> 0;
    }
    p.drain();
    expect(new Set(read(at, n))).toEqual(new Set([want]));
  });
  it("a kernel that traps gives an error that names it, and the pool works on", async () => {
    const p = make(threads);
    const at = shared.alloc(400);
    const good = (): CommandList => list(p, shared, [{ entry: "probe/count", units: 100, grain: 5, args: [at] }]);
    for (let i = 0; i < 3; i++) {
      expect(() => p.run(list(p, shared, [{ entry: trapping, units: 100, grain: 10, args: [] }]))).toThrow(/test\/trap/);
      new Uint32Array(shared.memory.buffer, at, 100).fill(0);
      p.run(good());
      expect(read(at, 100).every((x) => x === 1)).toBe(true);
    }
    await expect(p.submit(list(p, shared, [{ entry: trapping, units: 8, grain: 1, args: [] }]), () => {}).promise()).rejects.toThrow(/test\/trap/);
    p.run(good());
    expect(read(at, 100).every((x) => x === 2)).toBe(true);
  });
});

describe("a worker that dies", () => {
  it("while idle is replaced", async () => {
    const p = make(2);
    const at = shared.alloc(4000);
    new Uint32Array(shared.memory.buffer, at, 1000).fill(0);
    p.run(list(p, shared, [{ entry: "probe/count", units: 1000, grain: 10, args: [at] }]));
    await p.workerThreads[0]?.terminate();
    p.run(list(p, shared, [{ entry: "probe/count", units: 1000, grain: 10, args: [at] }]));
    expect(read(at, 1000).every((x) => x === 2)).toBe(true);
    expect(p.alive).toBe(1);
  });
  it("with work in flight rejects that work and the pool recovers", async () => {
    const p = make(2);
    const out = shared.alloc(16 * 4096);
    const epoch = p.submit(list(p, shared, [{ entry: "probe/multiplyAdd", units: 4096, grain: 8, args: [400_000, out] }]), () => {});
    const result = epoch.promise().then(() => "done", (e: Error) => e.message);
    await new Promise((r) => setTimeout(r, 50));
    for (const w of p.workerThreads) void w.terminate();
    expect(await result).toMatch(/worker thread died/);
    const at = shared.alloc(400);
    new Uint32Array(shared.memory.buffer, at, 100).fill(0);
    p.run(list(p, shared, [{ entry: "probe/count", units: 100, grain: 5, args: [at] }]));
    expect(read(at, 100).every((x) => x === 1)).toBe(true);
  });
});
