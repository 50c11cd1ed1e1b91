/** Composed functions against plain JavaScript: trace, flip, diff, median, searchsorted, windows, Hadamard transforms, masked products; facts about types and devices. */
import { afterEach, describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { expectClose, randomSource } from "./helpers/check.ts";

const random = randomSource(21);
interface Block {
  data: number[];
  array: mx.MxArray;
}
function block(shape: number[], dtype: mx.Dtype = mx.float32): Block {
  const n = shape.reduce((p, q) => p * q, 1);
  const array = mx.reshape(mx.array(Float32Array.from({ length: n }, () => random() * 4 - 2)), shape).astype(dtype);
  return { data: flat(array.astype(mx.float32)), array };
}
const flat = (a: mx.MxArray): number[] => mx.flatten(a).tolist() as number[];
const counting = (...shape: number[]): mx.MxArray => mx.reshape(mx.arange(shape.reduce((p, q) => p * q, 1)), shape);

describe("trace", () => {
  it("adds up diagonals", () => {
    expect(mx.trace(counting(3, 4)).item()).toBe(0 + 5 + 10);
    expect(mx.trace(counting(3, 4), 1).item()).toBe(1 + 6 + 11);
    expect(mx.trace(counting(3, 4), -1).item()).toBe(4 + 9);
    expect(mx.trace(counting(2, 3, 3), 0, 1, 2).tolist()).toEqual([0 + 4 + 8, 9 + 13 + 17]);
    expect(mx.trace(counting(2, 2, 3), 0, 0, -1).tolist()).toEqual([0 + 7, 3 + 10]);
    expect(`${mx.trace(counting(3, 3), 0, 0, 1, mx.int32).dtype}`).toBe("int32");
  });
  it("refuses vectors and equal axes", () => {
    expect(() => mx.trace(counting(3))).toThrow("[trace] the array must have at least two dimensions, got (3)");
    expect(() => mx.trace(counting(3, 3), 0, 1, -1)).toThrow("[trace] axis1 and axis2 must differ");
    expect(() => mx.trace(counting(3, 3), 0, 0, 2)).toThrow("[trace]");
  });
});

describe("functions of the array standard", () => {
  it("flip", () => {
    expect(mx.flip(counting(2, 3)).tolist()).toEqual([[5, 4, 3], [2, 1, 0]]);
    expect(mx.flip(counting(2, 3), 1).tolist()).toEqual([[2, 1, 0], [5, 4, 3]]);
    expect(mx.flip(counting(2, 3), [0]).tolist()).toEqual([[3, 4, 5], [0, 1, 2]]);
    expect(mx.flip(mx.zeros([0, 3])).shape).toEqual([0, 3]);
    expect(() => mx.flip(counting(2, 3), 2)).toThrow("[flip]");
  });
  it("diff", () => {
    expect(mx.diff([1, 4, 9, 16]).tolist()).toEqual([3, 5, 7]);
    expect(mx.diff([1, 4, 9, 16], 2).tolist()).toEqual([2, 2]);
    expect(mx.diff([[1, 4], [9, 16]], 1, 0).tolist()).toEqual([[8, 12]]);
    expect(mx.diff([1, 2], 0).tolist()).toEqual([1, 2]);
    expect(mx.diff([1, 2], 3).shape).toEqual([0]);
    expect(() => mx.diff([1, 2], -1)).toThrow("[diff] n must be an integer of at least 0, got -1");
  });
  it("countNonzero", () => {
    const x = mx.array([[0, 1, Number.NaN], [0, 0, -2]]);
    expect(mx.countNonzero(x).item()).toBe(3);
    expect(mx.countNonzero(x, 1).tolist()).toEqual([2, 1]);
    expect(mx.countNonzero(x, 0, true).tolist()).toEqual([[0, 1, 2]]);
    expect(`${mx.countNonzero(x).dtype}`).toBe("int32");
  });
  it("median", () => {
    expect(mx.median([3, 1, 2]).item()).toBe(2);
    expect(mx.median([4, 1, 3, 2]).item()).toBe(2.5);
    expect(mx.median([[3, 1, 2], [9, 7, 8]], 1).tolist()).toEqual([2, 8]);
    expect(mx.median([[3, 1, 2], [9, 7, 8]], 0, true).tolist()).toEqual([[6, 4, 5]]);
    expect(mx.median(mx.array([3, 1, 2, 9], mx.int32)).item()).toBe(2.5);
    expect(mx.median([[1, Number.NaN], [2, 3]], 1).tolist()).toEqual([Number.NaN, 2.5]);
    expect(() => mx.median(mx.zeros([0]))).toThrow("[median] there is no median of an empty axis");
  });
  it("unstack, vecdot, logicalXor, trunc, fullLike", () => {
    expect(mx.unstack(counting(2, 3)).map((a) => a.tolist())).toEqual([[0, 1, 2], [3, 4, 5]]);
    expect(mx.unstack(counting(2, 3), 1).map((a) => a.tolist())).toEqual([[0, 3], [1, 4], [2, 5]]);
    expect(mx.vecdot([[1, 2], [3, 4]], [[5, 6], [7, 8]]).tolist()).toEqual([17, 53]);
    expect(mx.vecdot([[1, 2], [3, 4]], [[5, 6], [7, 8]], 0).tolist()).toEqual([26, 44]);
    const c = mx.Complex;
    expect(mx.vecdot(mx.array([c(1, 2), c(3, 4)]), mx.array([c(5, 6), c(7, 8)])).tolist()).toEqual(c(70, -8));
    expect(() => mx.vecdot([1, 2], [1, 2, 3])).toThrow("[vecdot] both arrays must have the same size");
    expect(mx.logicalXor([0, 1, 2, 0], [0, 0, 3, 5]).tolist()).toEqual([false, true, false, true]);
    expect(mx.trunc([-1.5, -0.5, 0.5, 2.9, Number.POSITIVE_INFINITY]).tolist()).toEqual([-1, -0, 0, 2, Number.POSITIVE_INFINITY]);
    expect(mx.trunc(mx.array([3], mx.int32)).tolist()).toEqual([3]);
    expect(mx.fullLike(counting(2, 2), 7).tolist()).toEqual([[7, 7], [7, 7]]);
    expect(mx.fullLike(counting(2, 2), [1, 2], mx.int32).tolist()).toEqual([[1, 2], [1, 2]]);
    expect(`${mx.asarray([1, 2], mx.int32).dtype}`).toBe("int32");
    expect(mx.positive([1, -2]).tolist()).toEqual([1, -2]);
  });
  it("second names", () => {
    expect([mx.pow, mx.acos, mx.atan2, mx.empty, mx.matrixTranspose, mx.bitwiseLeftShift, mx.cumulativeSum]).toEqual([mx.power, mx.arccos, mx.arctan2, mx.zeros, mx.transpose, mx.leftShift, mx.cumsum]);
  });
  it("searchsorted batches values, not sequences", () => {
    const values = mx.array([[0.5, 1.5], [2.5, 9]]);
    expect(mx.vmap((v) => mx.searchsorted(mx.array([1, 2, 3]), v))(values).tolist()).toEqual([[0, 1], [2, 3]]);
    expect(() => mx.vmap((a) => mx.searchsorted(a, mx.array([1])))(mx.zeros([2, 3]))).toThrow("[searchsorted]");
  });
  it("broadcastShapes needs a shape, arange ends, kron needs elements", () => {
    expect(() => mx.broadcastShapes()).toThrow("[broadcastShapes]");
    expect(() => mx.arange(0, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)).toThrow("[arange]");
    expect(() => mx.kron(mx.zeros([0]), mx.zeros([2]))).toThrow("[kron]");
  });
  it.each([0, 1, 2, 7, 64, 100])("searchsorted in %d elements", (n) => {
    const sequence = Array.from({ length: n }, () => Math.floor(random() * 20)).sort((p, q) => p - q);
    const values = [-1, 0, 3, 3.5, 10, 19, 20, Number.POSITIVE_INFINITY, Number.NaN];
    const count = (f: (x: number, v: number) => boolean): number[] => values.map((v) => (Number.isNaN(v) ? n : sequence.filter((x) => f(x, v)).length));
    expect(mx.searchsorted(mx.array(new Float32Array(sequence)), values).tolist()).toEqual(count((x, v) => x < v));
    expect(mx.searchsorted(mx.array(new Float32Array(sequence)), values, "right").tolist()).toEqual(count((x, v) => x <= v));
    expect(`${mx.searchsorted(mx.array(new Int32Array(sequence)), mx.array([3], mx.int32)).dtype}`).toBe("uint32");
  });
  it("searchsorted counts NaN as largest, and refuses what does not fit", () => {
    const sequence = mx.array([1, 2, Number.NaN, Number.NaN]);
    expect(mx.searchsorted(sequence, [3, Number.NaN]).tolist()).toEqual([2, 2]);
    expect(mx.searchsorted(sequence, [3, Number.NaN], "right").tolist()).toEqual([2, 4]);
    expect(() => mx.searchsorted([[1]], [1])).toThrow("[searchsorted] the sorted sequence must have one dimension, got (1,1)");
    expect(() => mx.searchsorted([1], [1], "middle")).toThrow('[searchsorted] side must be "left" or "right", got "middle"');
  });
  it("windows", () => {
    const close = (a: mx.MxArray, want: number[]): void => expectClose(flat(a), want, { rtol: 0, atol: 2 ** -24 });
    close(mx.bartlett(5), [0, 0.5, 1, 0.5, 0]);
    close(mx.hanning(5), [0, 0.5, 1, 0.5, 0]);
    close(mx.hamming(5), [0.08, 0.54, 1, 0.54, 0.08]);
    close(mx.blackman(5), [0, 0.34, 1, 0.34, 0]);
    for (const window of [mx.bartlett, mx.hanning, mx.hamming, mx.blackman]) {
      expect(window(1).tolist()).toEqual([1]);
      expect(window(0).tolist()).toEqual([]);
    }
  });
});

describe("hadamardTransform", () => {
  /** The definition for powers of two: signs by the ones that both indices share; for tabulated orders the matrix as MLX's transform of the unit vectors. */
  const sign = (i: number, j: number): number => ([...(i & j).toString(2)].filter((c) => c === "1").length % 2 ? -1 : 1);
  it.each([1, 2, 4, 32, 64, 128, 1024])("of size %d is Sylvester's", (n) => {
    const x = block([3, n]);
    const want = [0, 1, 2].flatMap((r) => Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => sign(i, j) * (x.data[r * n + j] as number)).reduce((p, q) => p + q) / Math.sqrt(n)));
    expectClose(flat(mx.hadamardTransform(x.array)), want, { rtol: 0, atol: 2 ** -22 * n ** 0.5 });
  });
  it.each([12, 20, 28, 24, 80, 56])("of size %d has orthogonal rows of ones", (n) => {
    const matrix = mx.hadamardTransform(mx.eye(n), 1);
    expect(flat(matrix).every((v) => Math.abs(v) === 1)).toBe(true);
    expect(flat(mx.matmul(matrix, mx.transpose(matrix)))).toEqual(flat(mx.multiply(mx.eye(n), n)));
  });
  it("uses MLX's matrices", () => {
    // First column of the transform of unit vector j is entry (0, j): the first rows of the published tables.
    const row = (n: number): string => (mx.hadamardTransform(mx.eye(n), 1).tolist() as number[][]).map((r) => ((r[0] as number) > 0 ? "+" : "-")).join("");
    expect(row(12)).toBe("+-++++++++++");
    expect(row(20)).toBe("+----+----++--++-++-");
    expect(row(28)).toBe("+------++----++-+--+-+--++--");
    // Composite orders apply the tabulated matrix across runs of the power of two.
    expect(row(24)).toBe([..."+-++++++++++"].map((c) => c + c).join(""));
  });
  it("scales, keeps float dtypes, and undoes itself", () => {
    expect(mx.hadamardTransform([1, 2], 1).tolist()).toEqual([3, -1]);
    expect(mx.hadamardTransform(mx.array([[3], [4]]), 0.5).tolist()).toEqual([[1.5], [2]]);
    const half = block([2, 64], mx.float16);
    expect(`${mx.hadamardTransform(half.array).dtype}`).toBe("float16");
    // Two roundings of values up to about 8: 2 * 2^-9 each way, and a sum of 64 of them.
    expectClose(flat(mx.hadamardTransform(mx.hadamardTransform(half.array)).astype(mx.float32)), half.data, { rtol: 2 ** -10, atol: 2 ** -8 });
    expect(`${mx.hadamardTransform(mx.array([1, 2], mx.int32)).dtype}`).toBe("float32");
  });
  it("refuses other sizes", () => {
    expect(() => mx.hadamardTransform(mx.zeros([2, 7]))).toThrow("[hadamardTransform] the last dimension must be m * 2^k with m 1, 12, 20 or 28, got 7");
    expect(() => mx.hadamardTransform(mx.zeros([0]))).toThrow("[hadamardTransform] empty arrays are not supported");
  });
});

describe("masked products", () => {
  function product(a: number[], b: number[], M: number, K: number, N: number, keep: (m: number, k: number, n: number) => number): number[] {
    return Array.from({ length: M * N }, (_, at) => {
      const [m, n] = [Math.floor(at / N), at % N];
      let sum = 0;
      for (let k = 0; k < K; k++) sum += (a[m * K + k] as number) * (b[k * N + n] as number) * keep(m, k, n);
      return sum;
    });
  }
  const tolerance = { rtol: 0, atol: 2 ** -24 * 4 * 100 ** 1.5 };
  it("blockMaskedMM leaves out and scales blocks", () => {
    const [M, K, N] = [70, 100, 40];
    const [a, b] = [block([M, K]), block([K, N])];
    const bools = (rows: number, columns: number): { list: boolean[][]; array: mx.MxArray } => {
      const list = Array.from({ length: rows }, () => Array.from({ length: columns }, () => random() < 0.5));
      return { list, array: mx.array(list) };
    };
    const [out, lhs, rhs] = [bools(3, 2), bools(3, 4), bools(4, 2)];
    const at = (m: { list: boolean[][] }, i: number, j: number): number => Number(m.list[i >> 5]?.[j >> 5]);
    expectClose(flat(mx.blockMaskedMM(a.array, b.array, 32, out.array, lhs.array, rhs.array)), product(a.data, b.data, M, K, N, (m, k, n) => at(out, m, n) * at(lhs, m, k) * at(rhs, k, n)), tolerance);
    expectClose(flat(mx.blockMaskedMM(a.array, b.array, 32, undefined, lhs.array)), product(a.data, b.data, M, K, N, (m, k) => at(lhs, m, k)), tolerance);
    const factors = mx.array([[0.5], [2]]);
    expectClose(flat(mx.blockMaskedMM(a.array, b.array, 64, factors)), product(a.data, b.data, M, K, N, (m) => (m < 64 ? 0.5 : 2)), tolerance);
    expectClose(flat(mx.blockMaskedMM(a.array, b.array)), product(a.data, b.data, M, K, N, () => 1), tolerance);
    const vector = mx.blockMaskedMM(a.array, mx.array(b.data.slice(0, K)), 64, mx.array([true, false]));
    expect(vector.shape).toEqual([M, 1]);
    expectClose(flat(vector), product(a.data, b.data.slice(0, K), M, K, 1, (m) => Number(m < 64)), tolerance);
  });
  it("blockMaskedMM keeps a NaN in a block that is left out from spreading", () => {
    const a = mx.concatenate([mx.full([1, 32], Number.NaN), mx.ones([1, 32])], 1);
    expect(mx.blockMaskedMM(a, mx.ones([64, 1]), 32, undefined, mx.array([[false, true]])).tolist()).toEqual([[32]]);
  });
  it("segmentedMM multiplies ranges", () => {
    const [M, K, N] = [5, 30, 4];
    const [a, b] = [block([M, K]), block([K, N])];
    const segments = [[0, 10], [10, 30], [7, 7], [3, 29]];
    const got = mx.segmentedMM(a.array, b.array, mx.array(segments, mx.int32));
    expect(got.shape).toEqual([4, M, N]);
    expectClose(flat(got), segments.flatMap(([from, to]) => product(a.data, b.data, M, K, N, (_m, k) => Number(k >= (from as number) && k < (to as number)))), tolerance);
  });
  it("refuse what does not fit", () => {
    const f = mx.ones([64, 64]);
    expect(() => mx.blockMaskedMM(f, f, 16, mx.ones([4, 4]))).toThrow("[blockMaskedMM] blockSize must be 32 or 64, got 16");
    expect(() => mx.blockMaskedMM(f, f, 32, mx.ones([3, 2]))).toThrow("[blockMaskedMM] a mask of a (64,64) matrix with blocks of 32 must have shape (..., 2, 2), got (3,2)");
    expect(() => mx.blockMaskedMM(f, mx.ones([3, 4]), 32, mx.ones([2, 1]))).toThrow("[blockMaskedMM] last dimension of a must equal second last of b");
    expect(() => mx.segmentedMM(f, f, mx.array([[0, 1]]))).toThrow("[segmentedMM] segments must be integers, got float32");
    expect(() => mx.segmentedMM(f, f, mx.array([0, 1, 2], mx.int32))).toThrow("[segmentedMM] segments must have shape (..., 2), got (3)");
  });
});

describe("types", () => {
  it("finfo and iinfo", () => {
    expect(mx.finfo(mx.float32)).toEqual({ dtype: mx.float32, bits: 32, min: -3.4028234663852886e38, max: 3.4028234663852886e38, eps: 1.1920928955078125e-7, smallestNormal: 1.1754943508222875e-38 });
    expect(mx.finfo(mx.float16)).toMatchObject({ bits: 16, max: 65504, eps: 0.0009765625, smallestNormal: 0.00006103515625 });
    expect(mx.finfo(mx.bfloat16)).toMatchObject({ max: 3.3895313892515355e38, eps: 0.0078125 });
    expect(mx.finfo(mx.float64)).toMatchObject({ max: Number.MAX_VALUE, eps: Number.EPSILON });
    expect(mx.finfo(mx.complex64).dtype).toBe(mx.float32);
    expect(mx.iinfo(mx.int8)).toEqual({ dtype: mx.int8, min: -128, max: 127 });
    expect(mx.iinfo(mx.uint32)).toMatchObject({ min: 0, max: 4294967295 });
    expect(() => mx.finfo(mx.int8)).toThrow("[finfo] dtype must be a floating point type, got int8");
    expect(() => mx.iinfo(mx.bool)).toThrow("[iinfo] dtype must be an integer type, got bool");
  });
  it("resultType, canCast, isdtype, broadcastShapes", () => {
    expect(mx.resultType(mx.float16, mx.array([1], mx.int32), mx.bfloat16)).toBe(mx.float32);
    expect(mx.resultType(mx.int8)).toBe(mx.int8);
    expect(() => mx.resultType()).toThrow("[resultType] at least one");
    expect([mx.canCast(mx.int8, mx.int16), mx.canCast(mx.int16, mx.int8), mx.canCast(mx.array([1]), mx.float16)]).toEqual([true, false, false]);
    expect([mx.isdtype(mx.int8, "signed integer"), mx.isdtype(mx.int8, "real floating"), mx.isdtype(mx.bool, "numeric"), mx.isdtype(mx.float16, [mx.int8, "real floating"]), mx.isdtype(mx.int8, mx.int8)]).toEqual([true, false, false, true, true]);
    expect(() => mx.isdtype(mx.int8, "toString")).toThrow("[isdtype] kind must be");
    expect(mx.broadcastShapes([3, 1], [4], [2, 1, 1])).toEqual([2, 3, 4]);
    expect(() => mx.broadcastShapes([3], [4])).toThrow("[broadcastShapes] shapes do not broadcast, got (3) and (4)");
  });
});

describe("printing", () => {
  afterEach(() => mx.setPrintoptions());
  it("with fixed digits", () => {
    const x = mx.array([1, -2.5, 1 / 3, Number.NaN]);
    mx.setPrintoptions({ precision: 2 });
    expect(`${x}`).toBe("array([1.00, -2.50, 0.33, nan], dtype=float32)");
    expect(mx.getPrintoptions()).toEqual({ precision: 2 });
    mx.setPrintoptions();
    expect(`${x}`).toBe("array([1, -2.5, 0.333333, nan], dtype=float32)");
    expect(() => mx.setPrintoptions({ precision: -2 })).toThrow("[setPrintoptions] precision must be");
  });
  it("with fixed digits rounds ties to even, as C++ does", () => {
    const show = (precision: number, ...x: number[]): string => {
      mx.setPrintoptions({ precision });
      return String(mx.array(x)).replace(/array\(|, dtype.*/g, "");
    };
    expect(show(1, 0.25, 0.75, 0.35, -0.25, 0.125)).toBe("[0.2, 0.8, 0.3, -0.2, 0.1]");
    expect(show(0, 0.5, 1.5, 2.5, 3)).toBe("[0, 2, 2, 3]");
    expect(show(1, 2 ** 80)).toBe("[1208925819614629174706176.0]");
    expect(show(2, 0.125, 0.375, 1000000.125)).toBe("[0.12, 0.38, 1000000.12]");
  });
  it("for the time of a scope", () => {
    mx.setPrintoptions(4);
    const scope = mx.printoptions({ precision: 1 });
    expect(`${mx.array([0.25])}`).toBe("array([0.2], dtype=float32)");
    const close = (scope as unknown as Record<symbol, () => void>)[Symbol.dispose ?? Symbol.for("nodejs.dispose")] as () => void;
    close.call(scope);
    expect(mx.getPrintoptions()).toEqual({ precision: 4 });
    mx.setPrintoptions(2);
    close.call(scope);
    expect(mx.getPrintoptions()).toEqual({ precision: 2 });
  });
});

it("real and imag of an array, and numpy's names of constants", () => {
  const z = mx.array([{ re: 1, im: -2 }]);
  expect([z.real.tolist(), z.imag.tolist(), mx.array([3]).imag.tolist()]).toEqual([[1], [-2], [0]]);
  expect([mx.Inf, mx.Infinity, mx.infty, mx.PINF, mx.NINF, mx.NAN, mx.NaN, mx.NZERO, mx.PZERO]).toEqual([Infinity, Infinity, Infinity, Infinity, -Infinity, NaN, NaN, -0, 0]);
});

describe("device facts", () => {
  it("streams can be forgotten: the next default stream is a new one", () => {
    const before = mx.defaultStream(mx.cpu);
    const y = mx.add(mx.ones([3]), 1, before);
    mx.clearStreams();
    expect(mx.defaultStream(mx.cpu).index).not.toBe(before.index);
    expect(mx.defaultStream(mx.cpu)).toBe(mx.defaultStream(mx.cpu));
    expect(y.tolist()).toEqual([2, 2, 2]);
  });
  it("neither Metal nor CUDA is there", () => {
    expect([mx.cuda.isAvailable(), mx.metal.startCapture("trace")]).toEqual([false, false]);
    expect(mx.metal.stopCapture()).toBeUndefined();
    expect(mx.metal.deviceInfo(mx.cpu)).toEqual(mx.deviceInfo(mx.cpu));
  });
  it("of the CPU, and the shims of Metal", () => {
    const info = mx.deviceInfo(mx.cpu);
    expect([typeof info.deviceName, typeof info.architecture]).toEqual(["string", "string"]);
    expect(info.memorySize).toBeGreaterThan(0);
    expect(mx.deviceCount(mx.cpu)).toBe(1);
    expect(mx.metal.isAvailable()).toBe(false);
    expect(mx.metal.getPeakMemory()).toBe(mx.getPeakMemory());
    const before = mx.setCacheLimit(1000);
    expect(mx.setCacheLimit(before)).toBe(1000);
    const wired = mx.setWiredLimit(5);
    expect(mx.metal.setWiredLimit(wired)).toBe(5);
  });
});
