/** take and friends against float64; Python's indexing and assignment against plain JavaScript; errors. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { checkSamples, randomSource } from "./helpers/check.ts";
import { samples } from "./samples/indexing.ts";

for (const [name, list] of Object.entries(samples)) describe(name, () => checkSamples(mx[name as keyof typeof samples] as never, list));

const { Slice, newaxis } = mx;
const ints = (...values: number[]): mx.MxArray => mx.array(values, mx.int32);
const grid = (): mx.MxArray => mx.reshape(mx.arange(24), [2, 3, 4]);

describe("index", () => {
  it.each([
    [[1], [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]]],
    [[-1, 2], [20, 21, 22, 23]],
    [[1, 2, 3], 23],
    [["...", 0], [[0, 4, 8], [12, 16, 20]]],
    [[0, "...", Slice(null, null, 2)], [[0, 2], [4, 6], [8, 10]]],
    [[Slice(1), Slice(null, null, -1), 1], [[21, 17, 13]]],
    [[0, Slice(-2, 9), Slice(3, 0, -2)], [[7, 5], [11, 9]]],
    [[0, 0, null], [[0, 1, 2, 3]]],
    [[0, 0, Slice(), null], [[0], [1], [2], [3]]],
    [[0, 0, Slice(2, 1)], []],
    [[Slice(), 1, ints(0, 3)], [[4, 7], [16, 19]]],
    [[0, Slice(), ints(0, 3)], [[0, 4, 8], [3, 7, 11]]],
    [[Slice(), ints(0, -1)], [[[0, 1, 2, 3], [8, 9, 10, 11]], [[12, 13, 14, 15], [20, 21, 22, 23]]]],
    [[ints(1, 0), ints(2, 1)], [[20, 21, 22, 23], [4, 5, 6, 7]]],
    [[ints(1, 0), Slice(0, 2), ints(2, 1)], [[14, 18], [1, 5]]],
    [[mx.array([[1], [0]], mx.int32), ints(2, 1), 0], [[20, 16], [8, 4]]],
    [[0, null, ints(1)], [[[4, 5, 6, 7]]]],
    [[mx.array(1, mx.int32), 1, 1], 17],
    [[mx.array(1, mx.uint32), Slice(0, 1)], [[12, 13, 14, 15]]],
    [[[0, 0], 1, 1], [5, 5]],
  ] as [unknown[], unknown][])("%#: %j", (index, want) => expect(grid().index(...(index as [number])).tolist()).toEqual(want));

  it("gives the same array without an index", () => expect(grid().index().tolist()).toEqual(grid().tolist()));
  it("iterates over the first axis", () => expect([...mx.array([[1, 2], [3, 4]])].map((a) => a.tolist())).toEqual([[1, 2], [3, 4]]));
  it("clips slices as Python does", () => {
    const a = mx.arange(5);
    const range = (start: number | null, stop: number | null, step: number): number[] => {
      // The definition: start, start + step, ... with bounds taken relative to the length and cut to the array.
      const cut = (x: number, low: number, high: number): number => Math.min(high, Math.max(low, x < 0 ? x + 5 : x));
      const out: number[] = [];
      if (step > 0) for (let i = start === null ? 0 : cut(start, 0, 5); i < (stop === null ? 5 : cut(stop, 0, 5)); i += step) out.push(i);
      else for (let i = start === null ? 4 : cut(start, -1, 4); i > (stop === null ? -1 : cut(stop, -1, 4)); i += step) out.push(i);
      return out;
    };
    const bounds = [null, -9, -5, -2, 0, 1, 4, 5, 9];
    for (const start of bounds) for (const stop of bounds) for (const step of [1, 2, 7, -1, -3]) expect(a.index(Slice(start, stop, step)).tolist()).toEqual(range(start, stop, step));
  });
});

describe("indexPut_", () => {
  const changed = (f: (a: mx.MxArray) => void, start = mx.reshape(mx.arange(6), [2, 3])): unknown => {
    f(start);
    return start.tolist();
  };
  it("integers and slices", () => {
    expect(changed((a) => a.indexPut_(0, 9))).toEqual([[9, 9, 9], [3, 4, 5]]);
    expect(changed((a) => a.indexPut_([0, 1], 9))).toEqual([[0, 9, 2], [3, 4, 5]]);
    expect(changed((a) => a.indexPut_([Slice(), -1], [7, 8]))).toEqual([[0, 1, 7], [3, 4, 8]]);
    expect(changed((a) => a.indexPut_([Slice(), Slice(null, null, -2)], [[7, 8]]))).toEqual([[8, 1, 7], [8, 4, 7]]);
    expect(changed((a) => a.indexPut_("...", 1))).toEqual([[1, 1, 1], [1, 1, 1]]);
    expect(changed((a) => a.indexPut_(Slice(1, 1), 5))).toEqual([[0, 1, 2], [3, 4, 5]]);
    expect(changed((a) => a.indexPut_([null, 1, "..."], [[[[7, 8, 9]]]]))).toEqual([[0, 1, 2], [7, 8, 9]]);
  });
  it("index arrays", () => {
    expect(changed((a) => a.indexPut_(ints(1), [7, 8, 9]))).toEqual([[0, 1, 2], [7, 8, 9]]);
    expect(changed((a) => a.indexPut_([ints(0, 1), ints(2, 0)], [7, 8]))).toEqual([[0, 1, 7], [8, 4, 5]]);
    expect(changed((a) => a.indexPut_([Slice(), ints(0, -1)], [[7, 8]]))).toEqual([[7, 1, 8], [7, 4, 8]]);
    expect(changed((a) => a.indexPut_([1, ints(0, 2)], 7))).toEqual([[0, 1, 2], [7, 4, 7]]);
    expect(changed((a) => a.indexPut_([ints(1, 0), Slice(null, null, -2)], [[1, 2], [3, 4]]))).toEqual([[4, 1, 3], [2, 4, 1]]);
    // Which of two rows for one place stays is defined on the CPU only.
    const twice = changed((a) => a.indexPut_(ints(0, 0), [[1, 1, 1], [2, 2, 2]])) as number[][];
    if (mx.defaultDevice().type === "cpu") expect(twice).toEqual([[2, 2, 2], [3, 4, 5]]);
    else expect([[1, 1, 1], [2, 2, 2]]).toContainEqual(twice[0]);
  });
  it("boolean masks", () => {
    const mask = mx.array([[true, false, true], [false, false, true]]);
    expect(changed((a) => a.indexPut_(mask, 9))).toEqual([[9, 1, 9], [3, 4, 9]]);
    expect(changed((a) => a.indexPut_(mask, [7, 8, 9]))).toEqual([[7, 1, 8], [3, 4, 9]]);
    expect(changed((a) => a.indexPut_(mx.array([false, true]), [7, 8, 9]))).toEqual([[0, 1, 2], [7, 8, 9]]);
    expect(changed((a) => a.indexPut_(mx.array([true, true]), [[1, 2, 3], [7, 8, 9]]))).toEqual([[1, 2, 3], [7, 8, 9]]);
    expect(changed((a) => a.indexPut_(mx.array([false, false]), 1))).toEqual([[0, 1, 2], [3, 4, 5]]);
  });
  it("keeps the object and the dtype", () => {
    const a = ints(1, 2, 3);
    const before = a;
    a.indexPut_(0, 16777217);
    a.indexPut_(1, 2.9);
    expect(before.tolist()).toEqual([16777217, 2, 3]);
    expect(a.dtype).toBe(mx.int32);
  });
  it("leaves other arrays alone", () => {
    const a = mx.arange(4);
    const b = a.index(Slice(0, 2));
    const c = mx.reshape(a, [2, 2]);
    a.indexPut_(0, 9);
    expect([a.tolist(), b.tolist(), c.tolist()]).toEqual([[9, 1, 2, 3], [0, 1], [[0, 1], [2, 3]]]);
  });
  it("agrees with loops on random indices", () => {
    const random = randomSource(7);
    const pick = (n: number): number => Math.floor(random() * n);
    for (let round = 0; round < 60; round++) {
      const shape = [1 + pick(4), 1 + pick(4), 1 + pick(4)];
      const index: unknown[] = [];
      const lists: number[][] = [];
      for (const d of shape) {
        const start = pick(d);
        const step = pick(2) ? 1 : -1;
        const list: number[] = [];
        for (let i = start; i >= 0 && i < d; i += step) list.push(i);
        lists.push(list);
        index.push(Slice(start, null, step));
      }
      const total = shape.reduce((x, y) => x * y, 1);
      const a = mx.reshape(mx.arange(total), shape);
      const part = lists.map((l) => l.length);
      const values = mx.reshape(mx.arange(100, 100 + part.reduce((x, y) => x * y, 1)), part);
      const want = Array.from({ length: total }, (_, i) => i);
      let next = 100;
      for (const i of lists[0] as number[]) for (const j of lists[1] as number[]) for (const k of lists[2] as number[]) want[(i * (shape[1] as number) + j) * (shape[2] as number) + k] = next++;
      expect(a.index(...(index as [number])).shape).toEqual(part);
      a.indexPut_(index as [number], values);
      expect(mx.flatten(a).tolist()).toEqual(want);
    }
  });
});

describe("at", () => {
  const a = (): mx.MxArray => mx.array([10, 20, 30]);
  const twice = ints(0, 2, 0);
  it("counts repeated indices", () => {
    expect(a().at(twice).add(1).tolist()).toEqual([12, 20, 31]);
    expect(a().at(twice).subtract([1, 2, 3]).tolist()).toEqual([6, 20, 28]);
    expect(a().at(twice).multiply(2).tolist()).toEqual([40, 20, 60]);
    expect(a().at(twice).divide([2, 2, 4]).tolist()).toEqual([1.25, 20, 15]);
    expect(a().at(twice).maximum([5, 40, 25]).tolist()).toEqual([25, 20, 40]);
    expect(a().at(twice).minimum([5, 40, 25]).tolist()).toEqual([5, 20, 30]);
  });
  it("takes integers and slices", () => {
    expect(a().at(1).add(5).tolist()).toEqual([10, 25, 30]);
    expect(a().at(Slice(null, null, -1)).add([1, 2, 3]).tolist()).toEqual([13, 22, 31]);
    expect(mx.zeros([2, 2]).at(Slice(), ints(0, 0)).add(1).tolist()).toEqual([[2, 0], [2, 0]]);
  });
});

describe("nothing to put", () => {
  it("leaves the array, whatever the type of the empty indices", () => {
    expect(mx.putAlongAxis(mx.array([]), mx.array([]), mx.array([])).shape).toEqual([0]);
    expect(mx.putAlongAxis(mx.array([1, 2]), mx.zeros([0]), mx.zeros([0])).tolist()).toEqual([1, 2]);
  });
});

describe("errors", () => {
  const a = grid();
  it.each([
    [() => a.index(2), "[index] index is out of bounds for an axis of size 2, got 2"],
    [() => a.index(0, 0, 0, 0), "[index] too many indices for an array of shape (2,3,4), got 4"],
    [() => a.index("...", 0, "..."), "[index] an index can only have one ellipsis"],
    [() => mx.zeros([2, 2]).index("...", "..."), "[index] an index can only have one ellipsis"],
    [() => mx.zeros([2]).index("...", Slice(), Slice()), "[index] too many indices for an array of shape (2), got 2"],
    [() => a.index(Slice(), Slice(), Slice(), Slice()), "[index] too many indices"],
    [() => a.index(0.5), "[index] index is out of bounds"],
    [() => a.index(mx.array([0.5])), "[index] indices must be integers, got float32"],
    [() => a.index(mx.array([true, false])), "[index] boolean masks"],
    [() => a.index("x" as never), "[index] an index must be"],
    [() => a.index(Slice(0, 1, 0)), "[index] slice step must be an integer other than zero"],
    [() => a.index(ints(0, 1), ints(0, 1, 2)), "[index] shapes do not broadcast"],
    [() => a.indexPut_(0, mx.zeros([5])), "[indexPut_] the value does not fit the indexed part, got (5) for (3,4)"],
    [() => a.indexPut_(0, mx.zeros([2, 3, 4])), "[indexPut_] the value does not fit"],
    [() => a.indexPut_(mx.array([true]), 1), "[indexPut_] a mask must have the shape of the array's first dimensions"],
    [() => mx.take(a, 5, 1), "[take] index is out of bounds for an axis of size 3, got 5"],
    [() => mx.take(a, ints(0), 3), "[take] axis is out of range"],
    [() => mx.take(mx.zeros([0, 2]), ints(0), 0), "[take] cannot index an empty dimension"],
    [() => mx.takeAlongAxis(a, ints(0), 1), "[takeAlongAxis] indices must have as many dimensions as the array"],
    [() => mx.takeAlongAxis(a, mx.zeros([2, 3, 4]), 1), "[takeAlongAxis] indices must be integers"],
    [() => mx.putAlongAxis(a, mx.zeros([5, 3, 4], mx.int32), 0, 1), "[putAlongAxis]"],
  ])("%#", (f, message) => expect(f).toThrow(message));
  it("uses newaxis", () => expect(a.index(newaxis).shape).toEqual([1, 2, 3, 4]));
});
