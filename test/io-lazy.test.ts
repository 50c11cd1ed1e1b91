/** Files and the lazy graph: what is saved is computed first; what is loaded takes part in graphs and lifetimes like any array. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type MxArray, core as mx } from "../src/index.ts";

const folder = mkdtempSync(join(tmpdir(), "mlx-vk-io-lazy-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("lazy, transposed and sliced arrays are computed and saved row by row, in every format", () => {
  const x = mx.reshape(mx.arange(12), [3, 4]);
  const arrays = { sum: mx.add(x, 1), transposed: mx.transpose(x), sliced: x.index(mx.Slice(1, 3), mx.Slice(1, 3)), constant: mx.array(7) };
  const expected = {
    sum: [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]],
    transposed: [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]],
    sliced: [[5, 6], [9, 10]],
    constant: 7,
  };
  mx.saveSafetensors(join(folder, "a"), arrays);
  mx.savez(join(folder, "a"), arrays);
  for (const file of ["a.safetensors", "a.npz"]) {
    const back = mx.load(join(folder, file));
    expect(Object.fromEntries(Object.entries(back).map(([k, v]) => [k, v.tolist()]))).toEqual(expected);
  }
  mx.save(join(folder, "s"), arrays.sliced);
  expect(mx.load(`${join(folder, "s")}.npy`).tolist()).toEqual(expected.sliced);
});

test("loaded arrays are operands, belong to tidy, and are counted as memory until disposed", () => {
  const path = join(folder, "m.safetensors");
  mx.saveSafetensors(path, { w: mx.ones([256, 1024], mx.bfloat16) });
  const before = mx.getActiveMemory();
  const total = mx.tidy(() => {
    const { w } = mx.load(path);
    expect(mx.getActiveMemory() - before).toBeGreaterThanOrEqual(256 * 1024 * 2);
    return mx.sum(mx.multiply(w as MxArray, 2).astype(mx.float32));
  });
  expect(total.item()).toBe(2 * 256 * 1024);
  expect(mx.getActiveMemory() - before).toBeLessThan(4096);
});

test("a file that does not fit says how much is needed, and the memory limit, and leaves nothing", () => {
  const path = join(folder, "big.safetensors");
  mx.saveSafetensors(path, { a: mx.zeros([1 << 20], mx.uint8), b: mx.zeros([1 << 20], mx.uint8) });
  const active = mx.getActiveMemory();
  const limit = mx.setMemoryLimit(active + (3 << 19));
  try {
    expect(() => mx.load(path)).toThrow(/^\[load\] .*big\.safetensors: its 2 arrays need 2\.0 MiB: .*out of memory/);
    expect(mx.getActiveMemory()).toBe(active);
  } finally {
    mx.setMemoryLimit(limit);
  }
  expect(mx.load(path)["b"]?.shape).toEqual([1 << 20]);
});
