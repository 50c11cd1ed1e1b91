/** The kernels of reduce, scan, softmax, sort and random, called directly and compared with plain float64 loops. */
import { describe, expect, it } from "vitest";
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "../src/core/dtype.ts";
import { type Build, KernelBench, builds } from "./helpers/kernels.ts";

/** Deterministic numbers in (-1, 1). */
function noise(n: number, seed = 1): Float64Array {
  let s = seed >>> 0 || 1;
  return Float64Array.from({ length: n }, () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return (s / 2 ** 32) * 2 - 1;
  });
}
type Bits = Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | BigInt64Array | BigUint64Array | Float32Array | Float64Array;
interface Type {
  readonly make: (x: Float64Array) => Bits;
  /** Spreads numbers in (-1, 1) over a good part of the type's range. */
  readonly fit: (x: number) => number;
  readonly read: (bits: Bits) => number[];
  readonly empty: (n: number) => Bits;
  /** Unit roundoff of a stored result; 0 for integers. */
  readonly eps: number;
}
const whole = <B extends Bits>(of: (x: number[]) => B, empty: (n: number) => B, low: number, high: number): Type => ({
  make: (x) => of(Array.from(x)),
  fit: (v) => Math.round(low + ((v + 1) / 2) * (high - low)),
  read: (b) => Array.from(b as Uint8Array, Number),
  empty,
  eps: 0,
});
const types: Record<string, Type> = {
  f32: { fit: (v) => v, make: (x) => Float32Array.from(x), read: (b) => Array.from(b as Float32Array), empty: (n) => new Float32Array(n), eps: 2 ** -24 },
  f64: { fit: (v) => v, make: (x) => Float64Array.from(x), read: (b) => Array.from(b as Float64Array), empty: (n) => new Float64Array(n), eps: 2 ** -53 },
  f16: { fit: (v) => v, make: (x) => Uint16Array.from(x, toFloat16Bits), read: (b) => Array.from(b as Uint16Array, fromFloat16Bits), empty: (n) => new Uint16Array(n), eps: 2 ** -11 },
  bf16: { fit: (v) => v, make: (x) => Uint16Array.from(x, toBfloat16Bits), read: (b) => Array.from(b as Uint16Array, fromBfloat16Bits), empty: (n) => new Uint16Array(n), eps: 2 ** -8 },
  i8: whole((x) => Int8Array.from(x), (n) => new Int8Array(n), -128, 127),
  u8: whole((x) => Uint8Array.from(x), (n) => new Uint8Array(n), 0, 255),
  i16: whole((x) => Int16Array.from(x), (n) => new Int16Array(n), -32768, 32767),
  u16: whole((x) => Uint16Array.from(x), (n) => new Uint16Array(n), 0, 65535),
  i32: whole((x) => Int32Array.from(x), (n) => new Int32Array(n), -(2 ** 20), 2 ** 20),
  u32: whole((x) => Uint32Array.from(x), (n) => new Uint32Array(n), 0, 2 ** 32 - 1),
  i64: whole((x) => BigInt64Array.from(x, BigInt), (n) => new BigInt64Array(n), -(2 ** 40), 2 ** 40),
  u64: whole((x) => BigUint64Array.from(x, BigInt), (n) => new BigUint64Array(n), 0, 2 ** 52),
};
const get = (name: string): Type => types[name] as Type;

class Bench extends KernelBench {
  input(t: Type, values: Float64Array): number {
    return this.put(t.make(values) as Float32Array);
  }
  output(t: Type, at: number, n: number): number[] {
    const bits = t.empty(n);
    const bytes = new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
    bytes.set(new Uint8Array(this.memory.buffer, at, bytes.length));
    return t.read(bits);
  }
}
/** What the type can hold of numbers in (-1, 1). */
const rounded = (t: Type, x: Float64Array): Float64Array => Float64Array.from(t.read(t.make(x.map(t.fit))));
const each = (f: (build: Build) => void): void => {
  for (const build of builds) describe(build, () => f(build));
};

each((build) => {
  const shapes: [number, number, number][] = [[1, 1, 1], [3, 7, 1], [2, 16, 1], [5, 1000, 1], [2, 3, 5], [1, 9, 64], [3, 13, 37], [2, 4, 1]];
  for (const [op, from, to] of [["sum", "f32", "f32"], ["sum", "f64", "f64"], ["sum", "bf16", "f32"], ["sum", "f16", "f16"], ["sum", "i8", "i32"], ["sum", "u8", "i32"], ["sum", "i16", "i32"], ["sum", "u16", "i32"], ["sum", "i32", "i32"], ["sum", "i64", "i64"], ["sum", "f32", "bf16"],
    ...["f32", "f64", "f16", "bf16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"].flatMap((t) => [["max", t, t], ["min", t, t]])] as [string, string, string][]) {
    it(`${op} ${from} to ${to}`, () => {
      const bench = new Bench("reduce", build);
      const [a, b] = [get(from), get(to)];
      for (const [outer, n, inner] of shapes) {
        const x = rounded(a, noise(outer * n * inner, outer + n));
        const src = bench.input(a, x);
        const dst = bench.alloc(outer * inner * 8);
        if (inner === 1) bench.run(`${op}_${from}_${to}_row`, [src, dst, n, n, 1, 1], 0, outer);
        else bench.run(`${op}_${from}_${to}_col`, [src, dst, n, inner, 16, Math.ceil(inner / 16), n, 1, 1], 0, outer * Math.ceil(inner / 16));
        const got = bench.output(b, dst, outer * inner);
        for (let o = 0; o < outer; o++) {
          for (let j = 0; j < inner; j++) {
            const line = Array.from({ length: n }, (_, i) => x[(o * n + i) * inner + j] as number);
            const want = op === "sum" ? line.reduce((s, v) => s + v, 0) : Math[op as "max" | "min"](...line);
            // At most 32 + n / 512 + 6 additions in a row of float32 (float64), then one rounding to the result's type.
            const magnitude = line.reduce((s, v) => s + Math.abs(v), 0);
            const bound = op === "sum" && a.eps > 0 ? magnitude * 48 * (from === "f64" ? 2 ** -53 : 2 ** -24) + Math.abs(want) * b.eps : 0;
            expect(Math.abs((got[o * inner + j] as number) - want), `${outer},${n},${inner} at ${o},${j}`).toBeLessThanOrEqual(bound);
          }
        }
      }
    });
  }
  it("max and min keep NaN, all and any count NaN as true and -0 as false", () => {
    const bench = new Bench("reduce", build);
    const x = new Float32Array(40).fill(1);
    x[33] = Number.NaN;
    const src = bench.put(x);
    const dst = bench.alloc(64);
    for (const op of ["max", "min"]) {
      bench.run(`${op}_f32_f32_row`, [src, dst, 40, 40, 1], 0, 1);
      expect(bench.f32(dst, 1)[0]).toBeNaN();
      bench.run(`${op}_f32_f32_col`, [src, dst, 5, 8, 8, 1, 5, 1], 0, 1);
      expect(Array.from(bench.f32(dst, 8), Number.isNaN)).toEqual([false, true, false, false, false, false, false, false]);
    }
    const truth = (op: string, type: string, at: number, n: number): number => {
      bench.run(`${op}_${type}_u8_row`, [at, dst, n, n, 1], 0, 1);
      return new Uint8Array(bench.memory.buffer, dst, 1)[0] as number;
    };
    expect(truth("all", "f32", src, 40)).toBe(1);
    const zeros = bench.put(Float32Array.from({ length: 21 }, (_, i) => (i % 2 ? -0 : 0)));
    expect(truth("any", "f32", zeros, 21)).toBe(0);
    const half = bench.put(Uint16Array.from({ length: 21 }, (_, i) => (i === 20 ? 1 : 0x8000)));
    expect(truth("any", "f16", half, 20)).toBe(0);
    expect(truth("any", "f16", half, 21)).toBe(1);
    expect(truth("all", "f16", half, 21)).toBe(0);
  });
  for (const type of Object.keys(types)) {
    it(`argmax and argmin ${type}`, () => {
      const bench = new Bench("reduce", build);
      const t = get(type);
      for (const [outer, n, inner] of [[2, 1, 1], [3, 5, 1], [2, 700, 1], [1, 1040, 1], [2, 9, 7]] as const) {
        const x = rounded(t, noise(outer * n * inner, n).map((v) => Math.round(v * 40) / 40));
        const src = bench.input(t, x);
        const dst = bench.alloc(outer * inner * 4);
        for (const op of ["argmax", "argmin"]) {
          if (inner === 1) bench.run(`${op}_${type}_row`, [src, dst, n, n, 1], 0, outer);
          else bench.run(`${op}_${type}_col`, [src, dst, n, inner, 4, Math.ceil(inner / 4)], 0, outer * Math.ceil(inner / 4));
          const want = Array.from({ length: outer * inner }, (_, u) => {
            const line = Array.from({ length: n }, (_, i) => x[(Math.floor(u / inner) * n + i) * inner + (u % inner)] as number);
            return line.indexOf(Math[op === "argmax" ? "max" : "min"](...line));
          });
          expect(Array.from(bench.u32(dst, outer * inner)), `${op} ${outer},${n},${inner}`).toEqual(want);
        }
      }
    });
  }
  it("argmax in chunks: the first of equal elements, NaN passed over except in front", () => {
    const bench = new Bench("reduce", build);
    const x = Float32Array.from(noise(100));
    x[64] = x[37] = 5;
    x[90] = Number.NaN;
    const run = (): number => {
      const src = bench.put(x);
      const parts = bench.alloc(64);
      const dst = bench.alloc(4);
      bench.run("argmax_f32_row", [src, parts, 100, 30, 4], 0, 4);
      bench.run("argmax_f32_combine", [src, parts, dst, 100, 4], 0, 1);
      return bench.u32(dst, 1)[0] as number;
    };
    expect(run()).toBe(37);
    x[0] = Number.NaN;
    expect(run()).toBe(0);
  });
  for (const type of ["f32", "f16", "bf16", "f64"]) {
    it(`softmax and logsumexp ${type}`, () => {
      const bench = new Bench("softmax", build);
      const t = get(type);
      // exp has 2e-7 relative error (float64: 4e-16), the sum and the scaling a few roundings more.
      const exact = type === "f64" ? 2e-15 : 6e-7;
      for (const [rows, n] of [[1, 1], [3, 5], [2, 64], [2, 1003]] as const) {
        const x = rounded(t, noise(rows * n, n).map((v) => v * 30));
        const src = bench.input(t, x);
        const want = Array.from({ length: rows }, (_, r) => {
          const line = x.subarray(r * n, (r + 1) * n);
          const m = Math.max(...line);
          const s = line.reduce((sum, v) => sum + Math.exp(v - m), 0);
          return { lse: m + Math.log(s), values: Array.from(line, (v) => ({ y: Math.exp(v - m) / s, distance: m - v })) };
        });
        const check = (dst: number, name: string): void => {
          const got = bench.output(t, dst, rows * n);
          want.flatMap((w) => w.values).forEach(({ y, distance }, i) => {
            // Rounding x - m changes exp by |x - m| roundoffs; below 2^-14 float16 steps are 2^-24 wide.
            const relative = exact + t.eps + distance * (type === "f64" ? 2 ** -53 : 2 ** -24);
            expect(Math.abs((got[i] as number) - y), `${name} ${rows},${n} at ${i}`).toBeLessThanOrEqual(y * relative + (type === "f16" ? 2 ** -25 : 1e-38));
          });
        };
        const checkLse = (dst: number): void => {
          const got = bench.output(t, dst, rows);
          want.forEach((w, r) => expect(Math.abs((got[r] as number) - w.lse)).toBeLessThanOrEqual(Math.abs(w.lse) * t.eps + exact));
        };
        const dst = bench.alloc(rows * n * 8);
        bench.run(`softmax_${type}`, [src, dst, n], 0, rows);
        check(dst, "rows");
        if (type === "f64") {
          bench.run("logsumexp_f64", [src, dst, n], 0, rows);
          checkLse(dst);
          continue;
        }
        const chunk = Math.max(1, Math.ceil(n / 3));
        const chunks = Math.ceil(n / chunk);
        const partials = bench.alloc(rows * chunks * 16);
        const dst2 = bench.alloc(rows * n * 8);
        bench.run(`partial_${type}`, [src, partials, n, chunk, chunks], 0, rows * chunks);
        bench.run(`scale_${type}`, [src, dst2, partials, n, chunk, chunks], 0, rows * chunks);
        check(dst2, "chunks");
        bench.run(`logsumexp_${type}`, [partials, dst, chunks], 0, rows);
        checkLse(dst);
      }
    });
  }
  it("softmax and logsumexp of infinities and NaN", () => {
    const bench = new Bench("softmax", build);
    const inf = Number.POSITIVE_INFINITY;
    const rows = [[-inf, 0, -inf, 0, 0, 0, -inf, -inf, 0], [-inf, -inf, -inf, -inf, -inf, -inf, -inf, -inf, -inf], [1, 2, inf, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8, Number.NaN], [Number.NaN, 2, 3, 4, 5, 6, 7, 8, 9]];
    const src = bench.put(Float32Array.from(rows.flat()));
    const dst = bench.alloc(4 * 45);
    bench.run("softmax_f32", [src, dst, 9], 0, 5);
    const got = Array.from(bench.f32(dst, 45));
    expect(got.slice(0, 9).map((v) => Math.round(v * 1e6) / 1e6)).toEqual([0, 0.2, 0, 0.2, 0.2, 0.2, 0, 0, 0.2]);
    expect(got.slice(9, 18).every(Number.isNaN)).toBe(true);
    expect(got.slice(27).every(Number.isNaN)).toBe(true);
    const partials = bench.alloc(16 * 10);
    bench.run("partial_f32", [src, partials, 9, 6, 2], 0, 10);
    bench.run("logsumexp_f32", [partials, dst, 2], 0, 5);
    const lse = Array.from(bench.f32(dst, 5));
    expect(lse[0]).toBeCloseTo(Math.log(5), 6);
    expect(lse.slice(1, 3)).toEqual([-inf, inf]);
    expect(lse.slice(3).every(Number.isNaN)).toBe(true);
  });
  for (const [op, from, to] of [["cumsum", "f32", "f32"], ["cumsum", "bf16", "bf16"], ["cumsum", "u8", "i32"], ["cumsum", "u16", "u16"], ["cumsum", "u64", "u64"], ["cumprod", "f64", "f64"], ["cummax", "f16", "f16"], ["cummax", "i8", "i8"], ["cummin", "u32", "u32"], ["cummin", "i64", "i64"], ["logcumsumexp", "f32", "f32"], ["logcumsumexp", "f64", "f64"]] as const) {
    it(`${op} ${from} to ${to}`, () => {
      const bench = new Bench("scan", build);
      const [a, b] = [get(from), get(to)];
      const steps = { cumsum: (s: number, v: number) => s + v, cumprod: (s: number, v: number) => s * v, cummax: Math.max, cummin: Math.min, logcumsumexp: (s: number, v: number) => Math.log(Math.exp(s) + Math.exp(v)) };
      const wide = to === "u16" ? (v: number) => v % 65536 : (v: number) => v;
      for (const [outer, n, inner] of [[1, 1, 1], [3, 50, 1], [2, 9, 5]] as const) {
        for (const [reverse, inclusive] of [[0, 1], [1, 1], [0, 0], [1, 0]] as const) {
          const x = rounded(a, noise(outer * n * inner, n));
          const src = bench.input(a, x);
          const dst = bench.alloc(x.length * 8);
          bench.run(`${op}_${from}_${to}`, [src, dst, n, inner, 3, Math.ceil(inner / 3), reverse, inclusive], 0, outer * Math.ceil(inner / 3));
          const got = bench.output(b, dst, x.length);
          for (let u = 0; u < outer * inner; u++) {
            let s: number | undefined;
            for (let i = 0; i < n; i++) {
              const at = (Math.floor(u / inner) * n + (reverse ? n - 1 - i : i)) * inner + (u % inner);
              const before = s;
              s = s === undefined ? (x[at] as number) : steps[op](s, x[at] as number);
              const want = inclusive ? s : before;
              if (want === undefined) continue;
              // Accumulated in float64 and rounded once; log and exp are good to 1e-15.
              const bound = Math.abs(want) * b.eps + (op === "logcumsumexp" ? 2e-15 * n : n * 2 ** -53);
              expect(Math.abs((got[at] as number) - wide(want)), `${outer},${n},${inner} reverse ${reverse} inclusive ${inclusive} at ${at}`).toBeLessThanOrEqual(a.eps ? bound : 0);
            }
          }
        }
      }
    });
  }
  const modes: Record<string, readonly [width: number, mode: number, infinity: bigint]> = {
    u8: [8, 0, 0n], i8: [8, 1, 0n], u16: [16, 0, 0n], i16: [16, 1, 0n], u32: [32, 0, 0n], i32: [32, 1, 0n], u64: [64, 0, 0n], i64: [64, 1, 0n],
    f16: [16, 2, 0x7c00n], bf16: [16, 2, 0x7f80n], f32: [32, 2, 0x7f800000n], f64: [64, 2, 0x7ff0000000000000n],
  };
  for (const [type, [width, mode, infinity]] of Object.entries(modes)) {
    it(`sort and argsort ${type}`, () => {
      const bench = new Bench("sort", build);
      const t = get(type);
      for (const [rows, n] of [[1, 1], [3, 17], [2, 49], [2, 3000]] as const) {
        const x = rounded(t, noise(rows * n, n).map((v) => Math.round(v * 500) / 500));
        if (mode === 2 && n > 4) x.set([Number.NaN, -0, 0, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN, -0], 3);
        const src = bench.input(t, x);
        const words = [n, mode, Number(infinity & 0xffffffffn), Number(infinity >> 32n)];
        for (const area of [0, bench.alloc(rows * n * 40 + 64)]) {
          const dst = bench.alloc(rows * n * 8);
          bench.run(`argsort_${width}`, [src, dst, ...words, area, n * 40], 0, rows);
          const got = bench.u32(dst, rows * n);
          bench.run(`sort_${width}`, [src, dst, ...words, area, n * 40], 0, rows);
          const values = bench.output(t, dst, rows * n);
          for (let r = 0; r < rows; r++) {
            const line = x.subarray(r * n, (r + 1) * n);
            const rank = (v: number): [number, number] => [Number.isNaN(v) ? 1 : 0, v];
            const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => {
              const [p, v] = rank(line[i] as number);
              const [q, w] = rank(line[j] as number);
              return p - q || (p ? 0 : v < w ? -1 : v > w ? 1 : 0) || i - j;
            });
            expect(Array.from(got.subarray(r * n, (r + 1) * n))).toEqual(order);
            expect(values.slice(r * n, (r + 1) * n).map((v) => v + 0)).toEqual(order.map((i) => (line[i] as number) + 0));
          }
        }
      }
    });
  }
  it("random bits match the known answers of MLX and JAX", () => {
    const bench = new Bench("random", build);
    const bits = (keys: number[], bytes: number, span = 4096): Uint8Array => {
      const words = Math.ceil(bytes / 4);
      const parts = Math.max(1, Math.ceil((words >> 1) / span));
      const dst = bench.alloc((bytes * keys.length) / 2);
      bench.run("bits", [bench.put(Uint32Array.from(keys)), dst, bytes, span, parts], 0, (parts * keys.length) / 2);
      return new Uint8Array(bench.memory.buffer.slice(dst, dst + (bytes * keys.length) / 2) as unknown as ArrayBuffer);
    };
    const u32 = (b: Uint8Array): number[] => Array.from(new Uint32Array(b.buffer));
    const u16 = (b: Uint8Array): number[] => Array.from(new Uint16Array(b.buffer));
    expect(u32(bits([0, 0], 4))).toEqual([1797259609]);
    expect(u32(bits([0, 1], 4))).toEqual([507451445]);
    expect(u16(bits([0, 0], 2))).toEqual([345]);
    expect(Array.from(bits([0, 0], 1))).toEqual([89]);
    expect(u32(bits([0, 0], 12))).toEqual([4146024105, 1351547692, 2718843009]);
    expect(u16(bits([0, 0], 10))).toEqual([20137, 63263, 64300, 20622, 16513]);
    expect(u16(bits([0, 0], 12))).toEqual([20137, 63263, 64300, 20622, 16513, 41486]);
    expect(u16(bits([0, 0], 14))).toEqual([20137, 63263, 1497, 14756, 16513, 41486, 44591]);
    expect(u16(bits([0, 0], 16))).toEqual([20137, 63263, 1497, 14756, 16513, 41486, 44591, 19423]);
    expect(u32(bits([0, 0], 16))).toEqual([4146024105, 967050713, 2718843009, 1272950319]);
    expect(u32(bits([0, 0, 1, 1], 12))).toEqual([4146024105, 1351547692, 2718843009, 3725146706, 1802982961, 1349634643]);
    // The cut into units must not show.
    for (const bytes of [4 * 37, 4 * 38, 151, 149]) expect(bits([5, 6], bytes, 4)).toEqual(bits([5, 6], bytes));
  });
});
