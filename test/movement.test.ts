/** Views, slices, joining, padding: samples against float64, values written out, sharing of data, errors. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { stats } from "../src/schedule/run.ts";
import { checkOp, checkSamples, randomSource, tensor } from "./helpers/check.ts";
import { samples as concat } from "./samples/concat.ts";
import { samples as movement } from "./samples/movement.ts";
import { samples as pad } from "./samples/pad.ts";
import { samples as slice } from "./samples/slice.ts";

for (const [name, list] of Object.entries({ ...movement, ...slice, ...concat, ...pad })) describe(name, () => checkSamples(mx[name as "reshape"] as never, list));

const a23 = (): mx.MxArray => mx.array([[0, 1, 2], [3, 4, 5]]);

describe("values", () => {
  it("views", () => {
    const a = a23();
    expect(mx.reshape(a, 3, -1).tolist()).toEqual([[0, 1], [2, 3], [4, 5]]);
    expect(mx.transpose(a).tolist()).toEqual([[0, 3], [1, 4], [2, 5]]);
    expect(mx.reshape(mx.transpose(a), [6]).tolist()).toEqual([0, 3, 1, 4, 2, 5]);
    expect(mx.moveaxis(mx.zeros([2, 3, 4]), 0, -1).shape).toEqual([3, 4, 2]);
    expect(mx.swapaxes(mx.zeros([2, 3, 4]), 0, 2).shape).toEqual([4, 3, 2]);
    expect(mx.diagonal(a, 1).tolist()).toEqual([1, 5]);
    expect(mx.asStrided(a, [2, 2], [1, 2], 1).tolist()).toEqual([[1, 3], [2, 4]]);
    expect(mx.view(mx.array([1, -1]), mx.uint32).tolist()).toEqual([0x3f800000, 0xbf800000]);
    expect(mx.view(mx.array([1, 256], mx.int16), mx.uint8).tolist()).toEqual([1, 0, 0, 1]);
    expect(mx.broadcastTo(mx.array([1, 2]), [2, 2]).tolist()).toEqual([[1, 2], [1, 2]]);
    expect((mx.atleast2d(mx.array([1, 2])) as mx.MxArray).shape).toEqual([1, 2]);
    expect((mx.atleast3d([mx.array(1), a]) as mx.MxArray[]).map((x) => x.shape)).toEqual([[1, 1, 1], [2, 3, 1]]);
    expect(mx.unflatten(mx.zeros([2, 6]), 1, [-1, 3]).shape).toEqual([2, 2, 3]);
    expect(mx.flatten(mx.array(3)).shape).toEqual([1]);
  });
  it("joins and splits", () => {
    const a = a23();
    expect(mx.concatenate([a, [[6, 7, 8]]]).tolist()).toEqual([[0, 1, 2], [3, 4, 5], [6, 7, 8]]);
    expect(mx.stack([[1, 2], [3, 4]], 1).tolist()).toEqual([[1, 3], [2, 4]]);
    expect(mx.split(a, [1], 1).map((x) => x.tolist())).toEqual([[[0], [3]], [[1, 2], [4, 5]]]);
    expect(mx.repeat(mx.array([1, 2]), 2).tolist()).toEqual([1, 1, 2, 2]);
    expect(mx.tile(mx.array([1, 2]), [2, 2]).tolist()).toEqual([[1, 2, 1, 2], [1, 2, 1, 2]]);
    expect(mx.roll(a, 1).tolist()).toEqual([[5, 0, 1], [2, 3, 4]]);
    expect(mx.roll(a, 1, 1).tolist()).toEqual([[2, 0, 1], [5, 3, 4]]);
    expect(mx.pad(mx.array([1, 2]), [1, 2], 9).tolist()).toEqual([9, 1, 2, 9, 9]);
    expect(mx.pad(mx.array([1, 2]), 2, 0, "edge").tolist()).toEqual([1, 1, 1, 2, 2, 2]);
    expect(mx.slice(a, mx.array([1, 1], mx.int32), [0, 1], [1, 2]).tolist()).toEqual([[4, 5]]);
    expect(mx.sliceUpdate(a, mx.array([[9]]), mx.array([1], mx.int32), [1]).tolist()).toEqual([[0, 9, 2], [3, 4, 5]]);
  });
});

describe("data", () => {
  it("is shared by views", () => {
    const a = mx.zeros([4, 6]);
    mx.eval(a);
    const views = [mx.reshape(a, [24]), mx.transpose(a), mx.broadcastTo(a, [2, 4, 6]), mx.split(a, 2)[1] as mx.MxArray, mx.expandDims(a, 0), mx.view(a, mx.int32), mx.contiguous(a)];
    mx.eval(views);
    for (const v of views) expect(v.desc.storage).toBe(a.desc.storage);
  });
  it("is written in place when nobody else can see it", () => {
    let cache = mx.zeros([1, 2, 64, 8]);
    mx.eval(cache);
    const before = stats.donations;
    const { storage } = cache.desc;
    for (let i = 0; i < 5; i++) {
      const next = mx.sliceUpdate(cache, mx.full([1, 2, 1, 8], i), [i], [2]);
      cache.dispose();
      cache = next;
      mx.eval(cache);
    }
    expect(stats.donations - before).toBe(5);
    expect(cache.desc.storage).toBe(storage);
    expect(mx.split(cache, [6], 2)[0]?.index(0, 1, "...", 0).tolist()).toEqual([0, 1, 2, 3, 4, 0]);
  });
  it("is copied by an update when it has another reader", () => {
    const a = mx.zeros([4]);
    const b = mx.sliceUpdate(a, mx.ones([1]), [2], [0]);
    expect(b.tolist()).toEqual([0, 0, 1, 0]);
    expect(a.tolist()).toEqual([0, 0, 0, 0]);
  });
  it("of an update may overlap its place", () => {
    const a = mx.arange(6);
    a.indexPut_(mx.Slice(1), a.index(mx.Slice(0, 5)));
    expect(a.tolist()).toEqual([0, 0, 1, 2, 3, 4]);
  });
  it("leaves no handles of intermediate arrays", () => {
    const a = a23();
    const before = mx.getWrappersCount();
    const made = [mx.repeat(a, 2), mx.tile(a, 2), mx.roll(a, 1), mx.pad(a, 1), mx.pad(a, 1, 0, "edge"), mx.stack([a, a]), mx.take(a, 1, 0), mx.full([2], 3), mx.eye(3), mx.sliceUpdate(a, a, [0], [0])];
    expect(mx.getWrappersCount() - before).toBe(made.length);
  });
});

/** One random op that any array can take. */
function step(a: mx.MxArray, pick: (n: number) => number): mx.MxArray {
  const { shape } = a;
  const rank = shape.length;
  const axis = pick(Math.max(1, rank));
  const factor = [5, 3, 2].find((f) => rank > 0 && (shape[axis] as number) % f === 0);
  switch (pick(rank === 0 ? 2 : 11)) {
    case 0: return mx.expandDims(a, pick(rank + 1));
    case 1: return mx.flatten(a);
    case 2: return mx.transpose(a);
    case 3: return mx.swapaxes(a, axis, pick(rank));
    case 4: return a.index(...Array.from({ length: axis }, () => mx.Slice()), mx.Slice(pick(3) - 1, null, pick(2) ? 1 : -2));
    case 5: return mx.roll(a, pick(5) - 2, axis);
    case 6: return a.size > 4000 ? mx.contiguous(a) : mx.concatenate([a, mx.contiguous(a)], axis);
    case 7: return factor && factor !== shape[axis] ? mx.unflatten(a, axis, [-1, factor]) : mx.squeeze(a);
    case 8: return a.size > 4000 ? a : mx.broadcastTo(mx.expandDims(a, 0), [2, ...shape]);
    case 9: return mx.take(a, mx.array([0, -1], mx.int32), axis);
    default: return rank > 1 ? mx.diagonal(a, pick(3) - 1) : mx.pad(a, 1);
  }
}
describe("random programs", () => {
  it.each(Array.from({ length: 80 }, (_, seed) => seed))("seed %i", (seed) => {
    const random = randomSource(seed);
    const pick = (n: number): number => Math.floor(random() * n);
    const dtype = [mx.uint8, mx.bfloat16, mx.float32, mx.int64][seed % 4] as mx.Dtype;
    const program = (start: mx.MxArray): mx.MxArray => {
      let a = start;
      // An empty dimension cannot be indexed: then the program is over.
      for (let i = 0; i < 8 && a.size > 0; i++) a = step(a, pick);
      return a;
    };
    checkOp(program, { args: [tensor([6, 5, 4], { dtype })] });
  });
});

describe("errors", () => {
  const a = a23();
  it.each([
    [() => mx.reshape(a, [4]), "[reshape] cannot reshape array of size 6 into shape (4), got (2,3)"],
    [() => mx.reshape(a, [-1, 4]), "[reshape] cannot infer the size of dimension 0, got an array of size 6"],
    [() => mx.reshape(a, [-1, -1]), "[reshape] shape must hold"],
    [() => mx.transpose(a, [0]), "[transpose] axes must name every dimension"],
    [() => mx.transpose(a, [0, 0]), "[transpose] axes must be different"],
    [() => mx.transpose(a, [0, 2]), "[transpose] axis is out of range for an array with 2 dimensions, got 2"],
    [() => mx.squeeze(a, 0), "[squeeze] cannot squeeze axis 0 of size 2"],
    [() => mx.expandDims(a, 4), "[expandDims] axis is out of range"],
    [() => mx.broadcastTo(a, [2, 4]), "[broadcastTo] cannot broadcast array of shape (2,3) into shape (2,4)"],
    [() => mx.broadcastTo(a, [3]), "[broadcastTo] cannot broadcast"],
    [() => mx.asStrided(a, [3], [3]), "[asStrided] elements 0 to 6 must lie inside the array, got an array of size 6"],
    [() => mx.asStrided(a, [2], [-1]), "[asStrided] elements -1 to 0"],
    [() => mx.view(a, mx.float64), "[view] the last dimension's bytes must be a multiple of float64's 8, got (2,3) of float32"],
    [() => mx.view(mx.array(1), mx.int8), "[view] a 0-d array can only become a dtype of the same size"],
    [() => mx.diagonal(mx.zeros([3])), "[diagonal] needs at least two dimensions"],
    [() => mx.unflatten(a, 1, [2, 2]), "[unflatten] cannot reshape array of size 3 into shape (2,2)"],
    [() => mx.concatenate([]), "[concatenate] needs a list with at least one array"],
    [() => mx.concatenate([a, mx.zeros([2, 4])]), "[concatenate] shapes must be equal except along axis 0, got (2,3) and (2,4)"],
    [() => mx.concatenate([a, mx.zeros([3])]), "[concatenate] arrays must have the same number of dimensions"],
    [() => mx.stack([a, mx.zeros([3])]), "[stack] all arrays must have the same shape, got (2,3) and (3)"],
    [() => mx.split(a, 4, 1), "[split] an axis of size 3 must divide into equal parts, got 4 parts"],
    [() => mx.repeat(a, -1), "[repeat] repeats must be a non-negative integer"],
    [() => mx.tile(a, [-1]), "[tile] reps must be"],
    [() => mx.pad(a, [[1, 1]].concat([[1, 1], [0, 0]])), "[pad] padWidth must be"],
    [() => mx.pad(a, -1), "[pad] padWidth must be"],
    [() => mx.pad(a, 1, 0, "wrap"), '[pad] mode must be "constant", "edge", "reflect" or "symmetric", got "wrap"'],
    [() => mx.roll(a, 1.5), "[roll] shift must be an integer"],
    [() => mx.slice(a, [1], [0], [2, 3]), "[slice] start 1 with size 2 does not fit axis 0"],
    [() => mx.slice(a, [0], [0], [2, 4]), "[slice] sliceSize must lie inside"],
    [() => mx.slice(a, mx.array([0]), [0], [1, 3]), "[slice] start indices must be integers"],
    [() => mx.sliceUpdate(a, mx.zeros([3, 3]), [0], [0]), "[sliceUpdate] update must fit into src, got (3,3) and (2,3)"],
    [() => mx.sliceUpdate(a, mx.zeros([1, 3]), [0, 1], [0]), "[sliceUpdate] axes must be different and as many as start indices"],
  ])("%#", (f, message) => expect(f).toThrow(message));
});

describe("mirrored padding", () => {
  const x = mx.array([1, 2, 3, 4]);
  it("leaves the edge out or repeats it, again and again", () => {
    expect(mx.pad(x, [2, 3], 0, "reflect").tolist()).toEqual([3, 2, 1, 2, 3, 4, 3, 2, 1]);
    expect(mx.pad(x, [2, 3], 0, "symmetric").tolist()).toEqual([2, 1, 1, 2, 3, 4, 4, 3, 2]);
    expect(mx.pad(mx.array([1, 2]), [3, 4], 0, "reflect").tolist()).toEqual([2, 1, 2, 1, 2, 1, 2, 1, 2]);
    expect(mx.pad(mx.array([7]), [1, 2], 0, "reflect").tolist()).toEqual([7, 7, 7, 7]);
    expect(mx.pad(mx.array([1, 2]), [3, 3], 0, "symmetric").tolist()).toEqual([2, 2, 1, 1, 2, 2, 1, 1]);
  });
  it("of two dimensions, and its gradient", () => {
    const m = mx.array([[1, 2], [3, 4]]);
    expect(mx.pad(m, [[1, 0], [0, 1]], 0, "reflect").tolist()).toEqual([[3, 4, 3], [1, 2, 1], [3, 4, 3]]);
    const g = mx.grad((a) => mx.sum(mx.pad(a, [[1, 0], [0, 1]], 0, "reflect")))(m);
    expect(g.tolist()).toEqual([[2, 1], [4, 2]]);
  });
  it("an empty dimension has no mirror image", () => {
    expect(() => mx.pad(mx.zeros([0, 3]), [[1, 1], [0, 0]], 0, "reflect")).toThrow("[pad] cannot mirror an empty dimension");
    expect(mx.pad(mx.zeros([0, 3]), [[0, 0], [1, 0]], 0, "symmetric").shape).toEqual([0, 4]);
    expect(() => mx.pad(x, 1, 0, "wrap")).toThrow('[pad] mode must be "constant", "edge", "reflect" or "symmetric"');
  });
});

describe("roll", () => {
  it("several shifts of one axis add up, one shift counts for all axes", () => {
    const m = mx.array([[1, 2, 3], [4, 5, 6]]);
    expect(mx.roll(m, [1, 1], 1).tolist()).toEqual([[2, 3, 1], [5, 6, 4]]);
    expect(mx.roll(m, 1, [0, 1]).tolist()).toEqual([[6, 4, 5], [3, 1, 2]]);
    expect(() => mx.roll(m, [1, 2, 3], [0, 1])).toThrow("[roll]");
  });
});

describe("sizes", () => {
  it("a dimension beyond 2^31 - 1 is an error that names it", () => {
    expect(() => mx.zeros(2 ** 31)).toThrow("2147483648");
    const big = mx.zeros(2 ** 30);
    expect(() => mx.concatenate([big, big, big])).toThrow("3221225472");
    expect(() => mx.broadcastTo(mx.zeros([1]), [2 ** 31])).toThrow("2147483648");
  });
});
