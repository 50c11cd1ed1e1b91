/** Quantization into small floats (mxfp4, mxfp8, nvfp4) through the library, against the formats' definitions in float64. */
import { afterEach, describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import type { MxArray } from "../src/core/array.ts";
import type { Dtype } from "../src/core/dtype.ts";
import { valuesOf } from "../src/debug/oracle.ts";
import { setTracer } from "../src/schedule/run.ts";
import { checkSamples } from "./helpers/check.ts";
import { type SmallMode, bitsOf, codeAt, codesOf, e2m1, e4m3, groupOf, multiply, scaleOf, smallModes, unpack, valueOf } from "./helpers/small-floats.ts";
import { fp8Samples, qqmmSamples } from "./samples/quantized-modes.ts";

afterEach(() => {
  delete process.env["MLX_DISABLE"];
  delete process.env["MLX_FORCE"];
});

const onGpu = mx.defaultDevice().type === "gpu";
const floats = [mx.float32, mx.bfloat16, mx.float16] as const;
function read(a: MxArray): number[] {
  mx.eval(a);
  return [...valuesOf(a.desc)];
}
const normal = (shape: number[], seed: number, dtype: Dtype = mx.float32): MxArray => mx.random.normal(shape, mx.float32, 0, 1, mx.random.key(seed)).astype(dtype);
const words = (values: readonly number[], shape: number[]): MxArray => mx.reshape(mx.array(new Uint32Array(values)), shape);
const bytes = (values: readonly number[], shape: number[]): MxArray => mx.reshape(mx.array(new Uint8Array(values)), shape);

/** A packed matrix as arrays and as numbers. */
interface Packed {
  q: MxArray;
  s: MxArray;
  values: Float64Array;
}
function pack(shape: number[], mode: SmallMode, seed: number): Packed {
  const [q, s] = mx.quantize(normal(shape, seed), null, null, mode);
  return { q, s, values: unpack(read(q), read(s), mode) };
}
/**
 * Results against exact ones: the result's rounding; integers of x off by half a step of their group's largest value over 127 * 128 (16-bit results) or 127 * 16384, at worst
 * all of them; float32 sums of K products.
 */
function expectClose(got: readonly number[], want: readonly { value: number; size: number; most: number }[], dtype: Dtype, K: number): void {
  expect(got.length).toBe(want.length);
  const rounding = dtype === mx.float32 ? 2 ** -24 : dtype === mx.bfloat16 ? 2 ** -8 : 2 ** -11;
  const step = dtype === mx.float32 ? 1 / (127 * 16384) : 1 / (127 * 128);
  want.forEach(({ value, size, most }, i) => {
    const error = Math.abs((got[i] as number) - value);
    const bound = rounding * Math.abs(value) + (step / 2) * most + 2 ** -24 * (Math.sqrt(K) + 8) * size + 1e-7;
    if (!(error <= bound)) expect({ i, got: got[i], want: value, error }).toEqual({ bound });
  });
}

describe("fp8", () => {
  describe("toFp8", () => checkSamples(mx.toFp8, fp8Samples.toFp8));
  describe("fromFp8", () => checkSamples(mx.fromFp8, fp8Samples.fromFp8));

  it("gives every code its value", () => {
    const all = mx.arange(256, mx.uint8);
    for (const d of floats) expect(read(mx.fromFp8(all, d))).toEqual(Array.from({ length: 256 }, (_, i) => e4m3(i)));
    expect(mx.fromFp8(all).dtype).toBe(mx.bfloat16);
  });
  it("rounds to the nearest code, to even in the middle, and clamps", () => {
    const codes = codesOf("mxfp8").filter((c) => c < 127);
    const values = codes.map(e4m3);
    const middles = values.slice(1).map((v, i) => (v + (values[i] as number)) / 2);
    const xs = [...values, ...middles, ...middles.map((v) => Math.fround(v * (1 + 1e-6))), ...middles.map((v) => Math.fround(v * (1 - 1e-6))), 449, 464, 1e30, Infinity, 2 ** -30, 1e-42];
    const nearest = (x: number): number => {
      const distances = values.map((v) => Math.abs(v - Math.min(x, 448)));
      const least = Math.min(...distances);
      return codes.filter((_, i) => distances[i] === least).sort((a, b) => (a & 1) - (b & 1))[0] as number;
    };
    expect(read(mx.toFp8(mx.array(xs)))).toEqual(xs.map(nearest));
    expect(read(mx.toFp8(mx.negative(mx.array(xs))))).toEqual(xs.map((x) => nearest(x) | 128));
    expect(read(mx.toFp8(mx.array([Number.NaN])))).toEqual([0x7e]);
  });
});

describe("quantize", () => {
  it("dequantizes every code of every mode", () => {
    for (const mode of smallModes) {
      const bits = bitsOf(mode);
      const codes = Array.from({ length: bits === 8 ? 256 : 32 }, (_, i) => i % 2 ** bits);
      const packed = new Uint8Array(bits === 8 ? codes : codes.filter((_, i) => i % 2 === 0).map((c, i) => c | ((codes[2 * i + 1] as number) << 4)));
      const q = mx.reshape(mx.array(new Uint32Array(packed.buffer)), [1, -1]);
      const groups = codes.length / groupOf(mode);
      for (const scale of mode === "nvfp4" ? [0x38, 0x01, 0x7e, 0x4b, 0x80] : [127, 0, 1, 130, 200, 254]) {
        const s = bytes(new Array<number>(groups).fill(scale), [1, groups]);
        const want = codes.map((c) => Math.fround(scaleOf(mode, scale) * valueOf(mode, c)));
        const got = read(mx.dequantize(q, s, null, null, null, mode, null, mx.float32));
        // GPUs may flush subnormal numbers to zero: a result, or the scale 2^-127 that the results are made of.
        const small = (x: number): boolean => Math.abs(x) < 2 ** -126 || scaleOf(mode, scale) < 2 ** -126;
        expect(got.map((x, i) => (onGpu && x === 0 && small(want[i] as number) ? want[i] : x))).toEqual(want);
      }
    }
  });

  it("gives each value its nearest neighbour among scale times code", () => {
    for (const mode of smallModes) {
      const [group, bits] = [groupOf(mode), bitsOf(mode)];
      for (const dtype of floats) {
        for (const global of mode === "nvfp4" ? [undefined, 3.7, 41] : [undefined]) {
          const w = mx.multiply(normal([6, 4 * group], 5), mx.exp(normal([6, 1], 6))).astype(dtype);
          const g = global === undefined ? null : mx.array(global);
          const [q, s] = mx.quantize(w, null, null, mode, g);
          expect([q.dtype, s.dtype, q.shape, s.shape]).toEqual([mx.uint32, mx.uint8, [6, (4 * group * bits) / 32], [6, 4]]);
          const [x, packed, scales] = [read(w), read(q), read(s)];
          const by = global === undefined ? 1 : Math.fround(global) / 2688;
          const back = read(mx.dequantize(q, s, null, null, null, mode, g, mx.float32));
          x.forEach((v, i) => {
            const scale = scaleOf(mode, scales[Math.floor(i / group)] as number) * by;
            const distances = codesOf(mode).map((c) => Math.abs(v - scale * valueOf(mode, c)));
            const got = scale * valueOf(mode, codeAt(packed, i, bits));
            // In the middle between two, float32 steps decide.
            expect(Math.abs(v - got)).toBeLessThanOrEqual(Math.min(...distances) + 1e-6 * scale);
            expect(Math.abs((back[i] as number) - got)).toBeLessThanOrEqual(2e-7 * Math.abs(got));
          });
        }
      }
    }
  });

  it("rounds the middle between two codes to the even one, and clamps", () => {
    // The first value makes the scale 1 (6 / 6, 448 / 448).
    const four = [6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 5.1, 0.2499, 0.2501, -0.25, -0.75, -5, 0, -0];
    for (const mode of ["mxfp4", "nvfp4"] as const) {
      const x = groupOf(mode) === 32 ? [...four, ...four] : four;
      const [q, s] = mx.quantize(mx.array([x, x]), null, null, mode);
      expect(scaleOf(mode, read(s)[0] as number)).toBe(1);
      const codes = four.map((_, i) => codeAt(read(q), i, 4));
      expect(codes).toEqual([7, 0, 2, 2, 4, 4, 6, 6, 7, 0, 1, 8, 10, 14, 0, 8]);
    }
    const [q] = mx.quantize(mx.array([[448, 17, 19, -17, ...new Array<number>(28).fill(1.0625)]]).reshape([1, 32]), null, null, "mxfp8");
    expect([0, 1, 2, 3, 4].map((i) => e4m3(codeAt(read(q), i, 8)))).toEqual([448, 16, 20, -16, 1]);
  });

  it("takes the power of two that is nearest in logarithm", () => {
    // The edge lies at 1.41421...
    for (const [most, code] of [[6, 127], [6 * 1.4, 127], [6 * 1.43, 128], [6 * 2 ** 20, 147], [6 * 2 ** -30 * 1.4, 97], [0, 0], [3e38, 252]] as const) {
      const [, s] = mx.quantize(mx.array([[most, ...new Array<number>(31).fill(0)]]), null, null, "mxfp4");
      expect(read(s)).toEqual([code]);
    }
  });

  it("of zeros, infinities and NaN stays defined", () => {
    for (const mode of smallModes) {
      const [q, s] = mx.quantize(mx.zeros([2, 64]), null, null, mode);
      expect(new Set(read(mx.dequantize(q, s, null, null, null, mode)))).toEqual(new Set([0]));
      // NaN does not count for the scale, and becomes the greatest code.
      const x = [Number.NaN, ...new Array<number>(31).fill(bitsOf(mode) === 8 ? 448 : 6)];
      const back = read(mx.dequantize(...mx.quantize(mx.array([x]), null, null, mode), null, null, null, mode));
      expect(new Set(back)).toEqual(new Set([bitsOf(mode) === 8 ? 448 : 6]));
    }
    expect(read(mx.quantize(mx.array([[Infinity, ...new Array<number>(31).fill(1)]]), null, null, "mxfp4")[1])).toEqual([255]);
  });

  it("takes strided matrices and broadcast scales", () => {
    for (const mode of smallModes) {
      const w = normal([64, 64], 7);
      const [a, b] = [mx.quantize(mx.transpose(w), null, null, mode), mx.quantize(mx.contiguous(mx.transpose(w)), null, null, mode)];
      a.forEach((v, i) => expect(read(v)).toEqual(read(b[i] as MxArray)));
      const s = mx.broadcastTo(mx.array(56, mx.uint8), a[1].shape);
      expect(read(mx.dequantize(a[0], s, null, null, null, mode))).toEqual(read(mx.dequantize(a[0], mx.contiguous(s), null, null, null, mode)));
    }
  });
});

describe("quantizedMatmul", () => {
  for (const mode of smallModes)
    for (const dtype of floats)
      it(`${mode}, ${dtype}: every form`, () => {
        const group = groupOf(mode);
        for (const transposed of [true, false]) {
          const shapes = transposed ? [[19, 3 * group], [64, 4 * group], [1, group]] : [[37, 3 * group], [128, 2 * group], [1, group]];
          for (const shape of shapes as [number, number][]) {
            const w = pack(shape, mode, shape[0]);
            const [N, K] = transposed ? shape : [shape[1], shape[0]];
            for (const M of [1, 3, 16, 33]) {
              const x = normal([M, K], M, dtype);
              const y = mx.quantizedMatmul(x, w.q, w.s, null, transposed, null, null, mode);
              expect([y.dtype, y.shape]).toEqual([dtype, [M, N]]);
              expectClose(read(y), multiply(read(x), 0, w.values, 0, [M, N, K], transposed), dtype, K);
            }
          }
        }
      });

  it("takes vectors, batches of x, and batches of both that broadcast", () => {
    for (const mode of smallModes) {
      const w = pack([7, 64], mode, 1);
      for (const shape of [[64], [2, 3, 64], [2, 1, 5, 64]]) {
        const x = normal(shape, 2);
        const y = mx.quantizedMatmul(x, w.q, w.s, null, true, null, null, mode);
        expect(y.shape).toEqual([...shape.slice(0, -1), 7]);
        expectClose(read(y), multiply(read(x), 0, w.values, 0, [x.size / 64, 7, 64], true), mx.float32, 64);
      }
      const many = pack([3, 7, 64], mode, 3);
      const x = normal([2, 1, 4, 64], 4);
      const y = read(mx.quantizedMatmul(x, many.q, many.s, null, true, null, null, mode));
      const want = [0, 1].flatMap((b) => [0, 1, 2].flatMap((m) => multiply(read(x), b * 256, many.values, m * 448, [4, 7, 64], true)));
      expectClose(y, want, mx.float32, 64);
    }
  });

  it("of rows with infinities, NaN and tiny values is what float32 gives", () => {
    for (const mode of smallModes) {
      const w = pack([9, 96], mode, 5);
      const x = normal([5, 96], 6);
      x.indexPut_([0, 5], Infinity);
      x.indexPut_([1, 70], NaN);
      x.indexPut_(3, mx.multiply(x.index(3), 1e-30));
      const want = multiply(read(x), 0, w.values, 0, [5, 9, 96], true);
      const got = read(mx.quantizedMatmul(x, w.q, w.s, null, true, null, null, mode));
      want.forEach(({ value, size }, i) => {
        if (Number.isFinite(value)) expect(Math.abs((got[i] as number) - value)).toBeLessThanOrEqual(2e-6 * size + 1e-38);
        else expect(got[i]).toBe(value);
      });
    }
  });

  // Names of the CPU's kernels.
  it.skipIf(onGpu)("runs on its kernels, which agree with each other and with the definition in other ops", () => {
    for (const mode of smallModes) {
      const w = pack([33, 128], mode, 8);
      for (const [M, kernel] of [[1, "wasm/quantfloat/qmv"], [16, "wasm/quantfloat/qmm"]] as const) {
        const x = normal([M, 128], 9);
        const run = (): { values: number[]; kernels: string[] } => {
          const kernels: string[] = [];
          setTracer({ recorded: (node, name) => node.op.name === "quantizedMatmul" && kernels.push(name) });
          const values = read(mx.quantizedMatmul(x, w.q, w.s, null, true, null, null, mode));
          setTracer(undefined);
          return { values, kernels };
        };
        mx.eval(x, w.q, w.s);
        const own = run();
        expect(own.kernels).toEqual([kernel]);
        process.env["MLX_DISABLE"] = kernel;
        process.env["MLX_FORCE"] = "wasm/quantfloat/*";
        const other = run();
        expect(other.kernels).toEqual([kernel.endsWith("qmv") ? "wasm/quantfloat/qmm" : "wasm/quantfloat/qmv"]);
        delete process.env["MLX_FORCE"];
        process.env["MLX_DISABLE"] = "wasm/quantfloat/qm*";
        const apart = run();
        delete process.env["MLX_DISABLE"];
        expect(apart.kernels).toEqual(["composite"]);
        const largest = Math.max(...apart.values.map(Math.abs));
        for (const r of [own, other]) r.values.forEach((v, i) => expect(Math.abs(v - (apart.values[i] as number))).toBeLessThan(2e-6 * largest));
      }
    }
  });

  it.runIf(onGpu)("runs on the GPU's kernels, which agree with the definition in other ops; explain says why one is closed", () => {
    for (const mode of smallModes) {
      const w = pack([33, 128], mode, 8);
      for (const [M, names] of [[1, ["qmv"]], [40, ["mm_tiled", "mm_unpacked"]]] as const) {
        const x = normal([M, 128], 9);
        mx.eval(x, w.q, w.s);
        const run = (): { values: number[]; kernels: string[] } => {
          const kernels: string[] = [];
          setTracer({ recorded: (node, name) => node.op.name === "quantizedMatmul" && kernels.push(name) });
          const values = read(mx.quantizedMatmul(x, w.q, w.s, null, true, null, null, mode));
          setTracer(undefined);
          return { values, kernels };
        };
        const own = run();
        expect(names.map((n) => `vulkan/quantfloat/${n}`)).toContain(own.kernels[0]);
        process.env["MLX_DISABLE"] = "vulkan/quantfloat/*";
        const apart = run();
        delete process.env["MLX_DISABLE"];
        expect(apart.kernels.some((k) => k.startsWith("vulkan/quant"))).toBe(false);
        const largest = Math.max(...apart.values.map(Math.abs));
        own.values.forEach((v, i) => expect(Math.abs(v - (apart.values[i] as number))).toBeLessThan(2e-6 * largest));
      }
    }
    const half = pack([8, 48], "nvfp4", 10);
    expect(mx.explain(mx.quantizedMatmul(normal([1, 48], 11), half.q, half.s, null, true, null, null, "nvfp4"))).toContain("rows of 48 values do not come in whole blocks of 32");
  });

  it("uses every thread's part of a large matrix", () => {
    for (const mode of smallModes) {
      const [q, s] = mx.quantize(normal([4001, 512], 10), null, null, mode);
      const dense = mx.transpose(mx.dequantize(q, s, null, null, null, mode, null, mx.float32));
      for (const M of [1, 40]) {
        const x = normal([M, 512], 11);
        const want = read(mx.matmul(x, dense));
        const largest = want.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        const got = read(mx.quantizedMatmul(x, q, s, null, true, null, null, mode));
        expect(got.reduce((a, v, i) => Math.max(a, Math.abs(v - (want[i] as number))), 0)).toBeLessThan(3e-6 * largest);
      }
    }
  });
});

describe("gatherQMM", () => {
  for (const mode of smallModes)
    it(`${mode}: sorted, unsorted, broadcast and missing indices`, () => {
      for (const transposed of [true, false]) {
        const shape = transposed ? [5, 11, 96] : [5, 96, 64];
        const [N, K] = [transposed ? 11 : 64, 96];
        const w = pack(shape, mode, 12);
        for (const dtype of [mx.float32, mx.bfloat16]) {
          for (const M of [1, 3]) {
            const x = normal([4, M, K], 13, dtype);
            const at = (v: number[][]): MxArray => mx.array(v, mx.uint32);
            const cases: [MxArray | null, MxArray | null, number[], number[], boolean][] = [
              [at([[0, 1, 1, 2, 3, 3]]), at([[0, 0, 1, 2, 4, 4]]), [0, 1, 1, 2, 3, 3], [0, 0, 1, 2, 4, 4], true],
              [at([[3, 0, 2]]), at([[4, 1, 4]]), [3, 0, 2], [4, 1, 4], false],
              [at([[2], [0]]), at([[1, 3]]), [2, 2, 0, 0], [1, 3, 1, 3], false],
              [null, at([[4], [0]]), [0, 1, 2, 3, 0, 1, 2, 3], [4, 4, 4, 4, 0, 0, 0, 0], false],
            ];
            for (const [l, r, lhs, rhs, sorted] of cases) {
              const y = mx.gatherQMM(x, w.q, w.s, null, l, r, transposed, null, null, sorted, mode);
              const want = lhs.flatMap((a, i) => multiply(read(x), a * M * K, w.values, (rhs[i] as number) * N * K, [M, N, K], transposed));
              expect(y.dtype).toBe(dtype);
              expectClose(read(y), want, dtype, K);
            }
          }
        }
      }
    });

  it("keeps indices out of range inside the matrices", () => {
    const { q, s } = pack([3, 4, 64], "mxfp4", 14);
    const x = normal([2, 1, 64], 15);
    const run = (l: number, r: number): number[] => read(mx.gatherQMM(x, q, s, null, mx.array([l], mx.uint32), mx.array([r], mx.uint32), true, null, null, false, "mxfp4"));
    expect(run(0, 1000)).toEqual(run(0, 2));
    expect(run(4_000_000_000, 1)).toEqual(run(1, 1));
  });
});

describe("qqmm and gatherQQMM", () => {
  describe("qqmm", () => checkSamples(mx.qqmm, qqmmSamples.qqmm));
  describe("gatherQQMM", () => checkSamples(mx.gatherQQMM, qqmmSamples.gatherQQMM));

  /** Values of an array after quantization. */
  const through = (a: MxArray, mode: SmallMode, global: MxArray | null): Float64Array => {
    const [q, s] = mx.quantize(a, null, null, mode, global);
    return unpack(read(q), read(s), mode, global ? (read(global)[0] as number) : undefined);
  };
  it("are products of both operands' quantized values", () => {
    for (const mode of smallModes) {
      for (const dtype of floats) {
        for (const scaled of mode === "nvfp4" ? [false, true] : [false]) {
          for (const [M, N, K] of [[1, 67, 256], [3, 7, 96], [33, 32, 64]] as const) {
            const [x, w] = [normal([M, K], 16, dtype), normal([N, K], 17, dtype)];
            const top = (a: MxArray): MxArray | null => (scaled ? mx.max(mx.abs(a)).astype(mx.float32) : null);
            const [gx, gw] = [top(x), top(w)];
            const want = multiply(through(x, mode, gx), 0, through(w, mode, gw), 0, [M, N, K], true);
            const [q, s] = mx.quantize(w, null, null, mode, gw);
            const packed = mx.qqmm(x, q, s, null, null, mode, gx, gw);
            expect([packed.dtype, packed.shape]).toEqual([dtype, [M, N]]);
            expectClose(read(packed), want, dtype, K);
            expect(read(mx.qqmm(x, w, null, null, null, mode, gx, gw))).toEqual(read(packed));
          }
        }
      }
    }
    const w = normal([8, 32], 18);
    expect(mx.qqmm(normal([32], 19), w).shape).toEqual([8]);
    expect(mx.qqmm(normal([2, 3, 4, 32], 19), w, null, mx.cpu).shape).toEqual([2, 3, 4, 8]);
  });

  it("choose matrices", () => {
    for (const mode of smallModes) {
      const [x, w] = [normal([5, 2, 64], 20), normal([3, 6, 64], 21)];
      const [gx, gw] = mode === "nvfp4" ? [mx.max(mx.abs(x)), mx.max(mx.abs(w))] : [null, null];
      const [q, s] = mx.quantize(w, null, null, mode, gw);
      const [a, b] = [through(x, mode, gx), through(w, mode, gw)];
      const got = mx.gatherQQMM(x, q, s, mx.array([0, 2], mx.uint32), mx.array([2, 1], mx.uint32), null, null, mode, gx, gw);
      expect(got.shape).toEqual([2, 2, 6]);
      expectClose(read(got), [...multiply(a, 0, b, 2 * 384, [2, 6, 64], true), ...multiply(a, 2 * 128, b, 384, [2, 6, 64], true)], mx.float32, 64);
      expect(read(mx.gatherQQMM(x, w, null, mx.array([0, 2], mx.uint32), mx.array([2, 1], mx.uint32), null, null, mode, gx, gw))).toEqual(read(got));
      const all = mx.gatherQQMM(x, w, null, null, mx.array([[1]], mx.uint32), null, null, mode);
      expect(all.shape).toEqual([1, 5, 2, 6]);
    }
  });
});

describe("transforms", () => {
  it("the gradient by x is the product with the transposed matrix", () => {
    for (const mode of smallModes) {
      for (const transposed of [true, false]) {
        const w = pack([64, 96], mode, 22);
        const [N, K] = transposed ? [64, 96] : [96, 64];
        const [x, c] = [normal([3, K], 23), normal([3, N], 24)];
        const [, [dx]] = mx.vjp((v: MxArray) => mx.quantizedMatmul(v, w.q, w.s, null, transposed, null, null, mode), [x], [c]) as [unknown, [MxArray]];
        expectClose(read(dx), multiply(read(c), 0, w.values, 0, [3, K, N], !transposed), mx.float32, N);
        const [, [dy]] = mx.jvp((v: MxArray) => mx.quantizedMatmul(v, w.q, w.s, null, transposed, null, null, mode), [x], [x]) as [unknown, [MxArray]];
        expectClose(read(dy), multiply(read(x), 0, w.values, 0, [3, N, K], transposed), mx.float32, K);
      }
      const many = pack([3, 32, 64], mode, 25);
      const x = normal([4, 1, 64], 26);
      const [lhs, rhs] = [mx.array([3, 1, 3], mx.uint32), mx.array([2, 0, 1], mx.uint32)];
      const gradient = read(mx.grad((v: MxArray) => mx.sum(mx.gatherQMM(v, many.q, many.s, null, lhs, rhs, true, null, null, false, mode)))(x) as MxArray);
      const sums = [0, 1, 2].map((m) => multiply(new Array<number>(32).fill(1), 0, many.values, m * 2048, [1, 64, 32], false));
      const want = [null, [0], null, [2, 1]].flatMap((list) => Array.from({ length: 64 }, (_, k) => (list ?? []).reduce((t, m) => t + (sums[m]?.[k]?.value as number), 0)));
      gradient.forEach((v, i) => expect(v).toBeCloseTo(want[i] as number, 3));
    }
  });

  it("there is no gradient by scales or packed weights", () => {
    for (const mode of smallModes) {
      const { q, s } = pack([32, 64], mode, 27);
      const x = normal([2, 64], 28);
      expect(() => mx.grad((v: MxArray) => mx.sum(mx.quantizedMatmul(x, q, v, null, true, null, null, mode)))(s)).toThrow(`[quantizedMatmul] there is no gradient by the scales of ${mode}`);
      expect(() => mx.grad((v: MxArray) => mx.sum(mx.gatherQMM(mx.expandDims(x, 0), mx.expandDims(q, 0), mx.expandDims(v, 0), null, null, mx.array([0], mx.uint32), true, null, null, false, mode)))(s)).toThrow(`[gatherQMM] there is no gradient by the scales of ${mode}`);
      expect(() => mx.grad((v: MxArray) => mx.sum(mx.quantizedMatmul(x, v, s, null, true, null, null, mode)))(q)).toThrow("[quantizedMatmul]");
    }
  });

  it("qqmm: gradients are products of quantized cotangents and operands", () => {
    for (const mode of smallModes) {
      for (const scaled of mode === "nvfp4" ? [false, true] : [false]) {
        const [x, w, c] = [normal([32, 64], 29), normal([32, 64], 30), normal([32, 32], 31)];
        const top = (a: MxArray): MxArray | null => (scaled ? mx.max(mx.abs(a)) : null);
        const [gx, gw] = [top(x), top(w)];
        const [, [dx, dw]] = mx.vjp((a: MxArray, b: MxArray) => mx.qqmm(a, b, null, null, null, mode, gx, gw), [x, w], [c]) as [unknown, [MxArray, MxArray]];
        expect(read(dx)).toEqual(read(mx.qqmm(c, mx.transpose(w), null, null, null, mode, top(c), gw)));
        expect(read(dw)).toEqual(read(mx.qqmm(mx.transpose(c), mx.transpose(x), null, null, null, mode, top(c), gx)));
      }
      const { q, s, values } = pack([32, 64], mode, 32);
      const c = normal([3, 32], 33);
      const [, [dx]] = mx.vjp((v: MxArray) => mx.qqmm(v, q, s, null, null, mode), [normal([3, 64], 34)], [c]) as [unknown, [MxArray]];
      expectClose(read(dx), multiply(read(c), 0, values, 0, [3, 64, 32], false), mx.float32, 32);
    }
  });

  it("vmap is a loop", () => {
    for (const mode of smallModes) {
      const [x, w] = [normal([3, 4, 64], 35), normal([3, 8, 64], 36)];
      const [q, s] = mx.quantize(w, null, null, mode);
      const loop = (f: (i: number) => MxArray): number[] => [0, 1, 2].flatMap((i) => read(f(i)));
      const product = (a: MxArray, b: MxArray, c: MxArray): MxArray => mx.quantizedMatmul(a, b, c, null, true, null, null, mode);
      expectNear(read(mx.vmap(product)(x, q, s) as MxArray), loop((i) => product(x.index(i), q.index(i), s.index(i))));
      expectNear(read(mx.vmap((a: MxArray) => product(a, q.index(1), s.index(1)))(x) as MxArray), loop((i) => product(x.index(i), q.index(1), s.index(1))));
      const [vq, vs] = mx.vmap((a: MxArray) => mx.quantize(a, null, null, mode))(w) as [MxArray, MxArray];
      expect([read(vq), read(vs)]).toEqual([read(q), read(s)]);
      const values = (a: MxArray, b: MxArray): MxArray => mx.dequantize(a, b, null, null, null, mode);
      expect(read(mx.vmap(values)(q, s) as MxArray)).toEqual(read(values(q, s)));
      const both = (a: MxArray, b: MxArray): MxArray => mx.qqmm(a, b, null, null, null, mode);
      expectNear(read(mx.vmap(both)(x, w) as MxArray), loop((i) => both(x.index(i), w.index(i))));
    }
  });
  const expectNear = (got: number[], want: number[]): void => {
    expect(got.length).toBe(want.length);
    got.forEach((v, i) => expect(Math.abs(v - (want[i] as number))).toBeLessThan(3e-5));
  };
});

describe("arguments", () => {
  const w = (mode: SmallMode = "mxfp4"): [MxArray, MxArray] => mx.quantize(mx.ones([8, 128]), null, null, mode);
  const one = mx.array(1);
  const x = mx.ones([1, 128]);
  const cases: [name: string, call: () => unknown, message: string][] = [
    ["unknown mode", () => mx.quantize(mx.ones([2, 64]), null, null, "xyz"), '[quantize] mode must be "affine", "mxfp4", "mxfp8", "nvfp4", got "xyz"'],
    ["unknown mode of a product", () => mx.quantizedMatmul(x, ...w(), null, true, null, null, "xyz"), "[quantizedMatmul] mode must be"],
    ["unknown mode of a choice", () => mx.gatherQMM(x, ...w(), null, null, mx.array(0), true, null, null, false, "xyz"), "[gatherQMM] mode must be"],
    ["group size", () => mx.quantize(mx.ones([2, 64]), 64, null, "mxfp4"), "[quantize] the group size of mxfp4 is 32, got 64"],
    ["group size of nvfp4", () => mx.dequantize(...w("nvfp4"), null, 32, null, "nvfp4"), "[dequantize] the group size of nvfp4 is 16, got 32"],
    ["bits", () => mx.quantize(mx.ones([2, 64]), null, 3, "nvfp4"), "[quantize] nvfp4 has 4 bits, got 3"],
    ["bits of mxfp8", () => mx.quantizedMatmul(x, ...w("mxfp8"), null, true, null, 4, "mxfp8"), "[quantizedMatmul] mxfp8 has 8 bits, got 4"],
    ["integers", () => mx.quantize(mx.ones([2, 64], mx.int32), null, null, "mxfp8"), "[quantize] the matrix must be float32, float16 or bfloat16, got int32"],
    ["vector", () => mx.quantize(mx.ones([64]), null, null, "mxfp8"), "[quantize] the matrix must have at least 2 dimensions, got (64)"],
    ["ragged", () => mx.quantize(mx.ones([2, 40]), null, null, "nvfp4"), "[quantize] the last dimension must be a multiple of the group size 16, got (2,40)"],
    ["biases", () => mx.quantizedMatmul(x, ...w(), mx.ones([8, 4]), true, null, null, "mxfp4"), "[quantizedMatmul] mxfp4 has no biases, got some"],
    ["float scales", () => mx.dequantize(w()[0], mx.ones([8, 4]), null, null, null, "mxfp4"), "[dequantize] the scales of mxfp4 must be uint8, got float32"],
    ["affine with small scales", () => mx.quantizedMatmul(x, ...w()), "[quantizedMatmul] affine quantization needs biases, got none"],
    ["scales of another mode", () => mx.quantizedMatmul(x, ...w("nvfp4"), null, true, null, null, "mxfp4"), "[quantizedMatmul] weights and scales do not fit each other with groupSize=32 and bits=4, got weights (8,16) and scales (8,8)"],
    ["result's dtype", () => mx.dequantize(...w(), null, null, null, "mxfp4", null, mx.int32), "[dequantize] the result's dtype must be float32, float16 or bfloat16, got int32"],
    ["integer x", () => mx.quantizedMatmul(mx.ones([1, 128], mx.int32), ...w(), null, true, null, null, "mxfp4"), "[quantizedMatmul] x must be float32, float16 or bfloat16, got int32"],
    ["inner", () => mx.quantizedMatmul(mx.ones([1, 64]), ...w(), null, true, null, null, "mxfp4"), "[quantizedMatmul] last dimension of x must equal the rows of the unpacked matrix, got (1,64) and (128,8)"],
    ["global scale of affine", () => mx.quantize(mx.ones([2, 64]), 64, 4, "affine", one), "[quantize] a global scale belongs to the mode nvfp4, got one with affine"],
    ["global scale of mxfp4", () => mx.dequantize(...w(), null, null, null, "mxfp4", one), "[dequantize] a global scale belongs to the mode nvfp4, got one with mxfp4"],
    ["several global scales", () => mx.quantize(mx.ones([2, 64]), null, null, "nvfp4", mx.ones([2])), "[quantize] globalScale must be one number, got shape (2)"],
    ["dtype of a global scale", () => mx.quantize(mx.ones([2, 64]), null, null, "nvfp4", one.astype(mx.float16)), "[quantize] globalScale must be float32, got float16"],
    ["qqmm affine", () => mx.qqmm(x, mx.ones([8, 128]), null, null, null, "affine"), '[qqmm] mode must be "nvfp4", "mxfp8" or "mxfp4", got "affine"'],
    ["qqmm without scales", () => mx.qqmm(x, w("nvfp4")[0]), "[qqmm] packed weights need scales, got none"],
    ["qqmm one global scale", () => mx.qqmm(x, mx.ones([8, 128]), null, null, null, "nvfp4", one), "[qqmm] global scales belong to both operands or to none, got only that of x"],
    ["qqmm global scale of mxfp8", () => mx.qqmm(x, mx.ones([8, 128]), null, null, null, "mxfp8", one, one), "[qqmm] a global scale belongs to the mode nvfp4, got one with mxfp8"],
    ["qqmm batches of weights", () => mx.qqmm(x, mx.ones([2, 8, 128])), "[qqmm] the weights must have 2 dimensions, got (2,8,128)"],
    ["qqmm inner", () => mx.qqmm(mx.ones([1, 64]), mx.ones([8, 128])), "[qqmm] last dimension of x must equal the last one of the unpacked weights, got (1,64) and 128"],
    ["qqmm ragged", () => mx.qqmm(mx.ones([1, 24]), mx.ones([8, 24])), "[qqmm] the last dimension of x must be a multiple of the group size 16, got (1,24)"],
    ["qqmm integers", () => mx.qqmm(x, mx.ones([8, 128], mx.int32)), "[qqmm] weights that are not packed must be float32, float16 or bfloat16, got int32"],
    ["gatherQQMM vector", () => mx.gatherQQMM(mx.ones([128]), mx.ones([8, 128])), "[gatherQQMM] x must have at least 2 dimensions, got (128)"],
    ["gatherQQMM indices", () => mx.gatherQQMM(mx.ones([2, 1, 128]), mx.ones([3, 8, 128]), null, mx.array([0.5])), "[gatherQQMM] indices must be integers, got float32"],
    ["gatherQQMM batches", () => mx.gatherQQMM(mx.ones([2, 1, 128]), mx.ones([3, 8, 128])), "[gatherQQMM] shapes do not broadcast, got (2) and (3)"],
    ["toFp8 of integers", () => mx.toFp8(mx.ones([2], mx.int32)), "[toFp8] only real floating types are supported, got int32"],
    ["fromFp8 of floats", () => mx.fromFp8(mx.ones([2])), "[fromFp8] the array must be uint8, got float32"],
    ["fromFp8 to integers", () => mx.fromFp8(mx.ones([2], mx.uint8), mx.int32), "[fromFp8] only real floating types are supported, got int32"],
  ];
  it.each(cases)("%s", (_name, call, message) => {
    expect(call).toThrow(message);
  });

  it("have the defaults of the mode, and a stream may stand in any place", () => {
    for (const mode of smallModes) {
      const a = normal([4, 64], 37);
      const [q, s] = mx.quantize(a, null, null, mode, null, mx.cpu);
      const [p, t] = mx.quantize(a, groupOf(mode), bitsOf(mode), mode, mx.cpu);
      expect([read(q), read(s)]).toEqual([read(p), read(t)]);
      expect(mx.dequantize(q, s, null, null, null, mode, mx.cpu).dtype).toBe(mx.bfloat16);
      expect(read(mx.dequantize(q, s, null, groupOf(mode), bitsOf(mode), mode, null, mx.float32, mx.cpu))).toEqual([...unpack(read(q), read(s), mode)]);
    }
    expect(read(mx.fromFp8(mx.toFp8(mx.ones([3]), mx.cpu), mx.cpu))).toEqual([1, 1, 1]);
    expect(e2m1(words([7], [1]).item() as number)).toBe(6);
  });
});
