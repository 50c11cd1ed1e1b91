import { describe, expect, test } from "vitest";
import { relaxedSimdWorks } from "../src/backend/wasm/modules.ts";
import { elementwiseLaunch } from "../src/codegen/elementwise.ts";
import { type CommonForm, commonForm, lower } from "../src/codegen/lower.ts";
import { fusesMultiplyAdd, setRelaxed } from "../src/codegen/wasm.ts";
import * as dt from "../src/core/dtype.ts";
import { type MathOp, type Value, expr as e, exprText, reachable } from "../src/core/expr.ts";
import { rowStrides } from "../src/core/shape.ts";
import { type TestInput, decode, encode, runGroup } from "./helpers/group.ts";

const scalarDtypes = dt.dtypes.filter((d) => d !== dt.complex64);
const ramp = (n: number): number[] => Array.from({ length: n }, (_, i) => ((i * 37) % 101) - 50);
const row = (dtype: dt.Dtype, values: readonly (number | bigint)[]): TestInput => ({ dtype, strides: [1], data: encode(dtype, values) });
/** Applies a formula to numbers, in one dtype. */
function apply(f: (...xs: Value[]) => Value, out: dt.Dtype, ...inputs: { dtype: dt.Dtype; values: readonly (number | bigint)[] }[]): (number | bigint)[] {
  const value = f(...inputs.map((x, i) => e.input(i, x.dtype)));
  const [bits] = runGroup([inputs[0]?.values.length ?? 0], inputs.map((x) => row(x.dtype, x.values)), [{ dtype: out, value }]);
  return decode(out, bits as ArrayLike<number | bigint>);
}

describe("targets that may flush subnormal numbers", () => {
  const values = [0, -0, 1, -2.5, Number.POSITIVE_INFINITY, Number.NaN, 1.4e-45, -1e-40, 1.1754942e-38];
  const zeros = [1, 1, 0, 0, 0, 0, 0, 0, 0];
  const forms: [string, (x: Value) => Value, (x: number) => number][] = [
    ["cast to bool", (x) => e.cast(x, dt.bool), (isZero) => 1 - isZero],
    ["x != 0", (x) => e.ne(x, e.const("f32", 0)), (isZero) => 1 - isZero],
    ["0 == x", (x) => e.eq(e.const("f32", -0), x), (isZero) => isZero],
  ];
  test.each(forms)("float32, %s: no float is compared, and the result is that of other targets", (_, form, wanted) => {
    const outputs = [{ dtype: dt.bool, value: form(e.input(0, dt.float32)) }];
    const [stored] = lower(outputs, { division32: true, subnormals: false });
    const bits = (stored as { value: Value }).value;
    expect(reachable([bits]).some((v) => (v.op === "eq" || v.op === "ne") && (v.args[0] as Value).type === "f32")).toBe(false);
    for (const value of [bits, (outputs[0] as { value: Value }).value]) {
      const [got] = runGroup([values.length], [row(dt.float32, values)], [{ dtype: dt.bool, value: value === bits ? e.ne(bits, e.const("i32", 0)) : value }]);
      expect(Array.from(got as Uint8Array)).toEqual(zeros.map(wanted));
    }
  });
  test.each([dt.bfloat16, dt.float16])("%s: the least number is true", (dtype) => {
    const [stored] = lower([{ dtype: dt.bool, value: e.cast(e.input(0, dtype), dt.bool) }], { division32: true, subnormals: false });
    const bits: TestInput = { dtype: dt.uint16, strides: [1], data: Uint16Array.of(0, 0x8000, 1, 0x8001, 0x7fff) };
    const [got] = runGroup([5], [bits], [{ dtype: dt.bool, value: e.ne((stored as { value: Value }).value, e.const("i32", 0)) }]);
    expect(Array.from(got as Uint8Array)).toEqual([0, 0, 1, 1, 1]);
  });
});

describe("memory", () => {
  test.each(scalarDtypes.map((d) => [d.name, d] as const))("%s: every size, nothing outside the arrays is touched", (_, dtype) => {
    for (const n of [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 67]) {
      const values = ramp(n).map((x) => (dtype.kind === "unsigned" ? Math.abs(x) : dtype.kind === "bool" ? x & 1 : x));
      for (const last of [0, 1, 2]) {
        const x = row(dtype, values);
        const cast = e.select(e.eq(e.convert(e.input(0, dtype), "f64"), e.const("f64", 3)), e.input(1, dtype), e.input(0, dtype));
        const [bits] = runGroup([n], [x, x], [{ dtype, value: cast }], { last });
        expect(decode(dtype, bits as never)).toEqual(decode(dtype, x.data as never));
      }
    }
  });
  test("units split anywhere", () => {
    const n = 5000;
    const x = row(dt.float32, ramp(n));
    const value = e.add(e.input(0, dt.float32), e.const("f32", 1));
    for (const step of [1, 2, 3]) {
      const [bits] = runGroup([n], [x], [{ dtype: dt.float32, value }], { step });
      expect(Array.from(bits as Float32Array)).toEqual(ramp(n).map((v) => v + 1));
    }
  });
  test.each([dt.uint8, dt.bfloat16, dt.float32, dt.int64])("%s: an output may lie over a contiguous input", (dtype) => {
    for (const n of [1, 5, 16, 50, 1500]) {
      const values = ramp(n).map((v) => (v + 50) >> 1);
      const value = e.add(e.input(0, dtype), e.input(1, dtype));
      const [bits] = runGroup([n], [row(dtype, values), row(dtype, values)], [{ dtype, value }], { over: 1 });
      expect(decode(dtype, bits as never).map(Number)).toEqual(values.map((v) => 2 * v));
    }
  });
});

/** Elements of a strided input in row-major order of the shape. */
function gather(shape: readonly number[], x: TestInput): number[] {
  const values = decode(x.dtype, x.data as never).map(Number);
  const out: number[] = [];
  const visit = (d: number, at: number): void => {
    if (d === shape.length) out.push(values[at] as number);
    else for (let i = 0; i < (shape[d] as number); i++) visit(d + 1, at + i * (x.strides[d] as number));
  };
  visit(0, x.offset ?? 0);
  return out;
}

describe("access", () => {
  const shapes = [[], [1], [6], [3, 5], [2, 3, 4], [4, 1, 17], [2, 2, 3, 20], [3, 4100], [0, 4], [2, 1, 3, 1, 5]];
  const layouts: Record<string, (shape: readonly number[]) => { strides: number[]; offset?: number; size: number }> = {
    contiguous: (s) => ({ strides: rowStrides(s), size: s.reduce((a, b) => a * b, 1) }),
    scalar: (s) => ({ strides: s.map(() => 0), size: 1 }),
    rowVector: (s) => ({ strides: s.map((_, i) => (i === s.length - 1 ? 1 : 0)), size: s[s.length - 1] ?? 1 }),
    column: (s) => ({ strides: rowStrides(s.slice(0, -1)).concat(s.length ? [0] : []), size: Math.max(1, s.slice(0, -1).reduce((a, b) => a * b, 1)) }),
    transposed: (s) => {
      const n = s.reduce((a, b) => a * b, 1);
      let step = 1;
      return { strides: s.map((d) => { const t = step; step *= d; return t; }), size: Math.max(1, n) };
    },
    everyOther: (s) => ({ strides: rowStrides(s).map((x) => 2 * x), size: 2 * s.reduce((a, b) => a * b, 1) }),
    reversed: (s) => {
      const n = s.reduce((a, b) => a * b, 1);
      return { strides: rowStrides(s).map((x) => -x), size: n, offset: Math.max(0, n - 1) };
    },
  };
  const names = Object.keys(layouts);
  const pairs = names.flatMap((a) => names.map((b) => [a, b] as const));
  test.each(pairs)("%s with %s", (a, b) => {
    for (const shape of shapes) {
      const make = (name: string, dtype: dt.Dtype, seed: number): TestInput => {
        const { size, ...place } = (layouts[name] as (typeof layouts)[string])(shape);
        return { dtype, ...place, data: encode(dtype, Array.from({ length: size }, (_, i) => (i * 31 + seed) % 97)) };
      };
      for (const [p, q] of [[dt.float32, dt.uint8], [dt.int16, dt.float64], [dt.int8, dt.bfloat16]] as const) {
        const [x, y] = [make(a, p, 1), make(b, q, 5)];
        const value = e.sub(e.convert(e.input(0, p), "f64"), e.mul(e.convert(e.input(1, q), "f64"), e.const("f64", 100)));
        for (const step of [undefined, 1]) {
          const [bits] = runGroup(shape, [x, y], [{ dtype: dt.float64, value }], step ? { step } : {});
          const [xs, ys] = [gather(shape, x), gather(shape, y)];
          expect(Array.from(bits as Float64Array)).toEqual(xs.map((v, i) => v - 100 * (ys[i] as number)));
        }
      }
    }
  });
  test("the key depends on structure only", () => {
    const x = e.input(0, dt.float32);
    const key = (shape: number[], strides: number[], value: Value): string =>
      (elementwiseLaunch({ shape, inputs: [{ dtype: dt.float32, strides }], outputs: [{ dtype: dt.float32, value }], expr: e }).steps[0] as { entry: { key: string } }).entry.key;
    expect(key([4, 8], [8, 1], e.neg(x))).toBe(key([1000], [1], e.neg(x)));
    expect(key([4, 8], [8, 1], e.neg(x))).not.toBe(key([4, 8], [16, 1], e.neg(x)));
    expect(key([4, 8], [16, 1], e.neg(x))).toBe(key([5, 9], [100, 1], e.neg(x)));
    expect(key([8], [1], e.neg(x))).not.toBe(key([8], [1], e.abs(x)));
  });
});

describe("expressions", () => {
  test("equal expressions are one object, constants fold", () => {
    const x = e.input(0, dt.float32);
    expect(e.add(x, e.const("f32", 1))).toBe(e.add(x, e.const("f32", 1)));
    expect(e.const("f32", 0)).not.toBe(e.const("f32", -0));
    expect(e.mul(e.const("f32", 3), e.const("f32", 0.1))).toBe(e.const("f32", Math.fround(3 * Math.fround(0.1))));
    expect(e.narrow(e.narrow(x, dt.bfloat16), dt.bfloat16)).toBe(e.narrow(x, dt.bfloat16));
    expect(exprText([e.mul(e.sigmoid(x), x)])).toBe("%0 = input.f32 0 float32\n%1 = sigmoid.f32 %0\n%2 = mul.f32 %1 %0\nreturn %2");
    expect(() => e.add(x, e.const("i32", 1))).toThrow("types must be equal");
  });
  test("several outputs share their work", () => {
    const x = e.input(0, dt.float32);
    const y = e.mul(x, x);
    const [a, b, c] = runGroup([21], [row(dt.float32, ramp(21))], [{ dtype: dt.float32, value: y }, { dtype: dt.bool, value: e.gt(y, e.const("f32", 100)) }, { dtype: dt.int64, value: e.convert(x, "i64") }]);
    expect(Array.from(a as Float32Array)).toEqual(ramp(21).map((v) => v * v));
    expect(Array.from(b as Uint8Array)).toEqual(ramp(21).map((v) => (v * v > 100 ? 1 : 0)));
    expect(Array.from(c as BigInt64Array)).toEqual(ramp(21).map(BigInt));
  });
});

// Node 20 has no relaxed SIMD.
const relaxedWorks = relaxedSimdWorks("auto") && fusesMultiplyAdd();
const variants = relaxedWorks ? ([false, true] as const) : ([false] as const);
/** With the kernels of one variant. */
function inVariant(relaxed: boolean, run: () => void): void {
  setRelaxed(relaxed);
  try {
    run();
  } finally {
    setRelaxed(false);
  }
}
test("multiply-add is fused on the engines that have it", () => {
  expect(relaxedSimdWorks("auto")).toBe(Number(process.versions.node.split(".")[0]) >= 22);
});
test.runIf(relaxedWorks)("relaxed SIMD: only mathematical functions fuse, and names are kept apart", () => {
  const [x, y] = [e.input(0, dt.float32), e.input(1, dt.float32)];
  const formula = e.select(e.lt(x, y), e.madd(x, y, e.const("f32", 0.1)), e.sub(y, e.mul(x, x)));
  const values = [ramp(100).map((v) => v * 1.1), ramp(100).map((v, i) => v / (i + 1))].map((v) => row(dt.float32, v));
  const outputs = [{ dtype: dt.float32, value: formula }, { dtype: dt.float32, value: e.exp(x) }];
  const [plain, relaxed]: Float32Array[][] = [[], []];
  const keys = new Set<string>();
  for (const [on, to] of [[false, plain], [true, relaxed]] as const) {
    inVariant(on, () => {
      to?.push(...(runGroup([100], values, outputs) as Float32Array[]));
      keys.add((elementwiseLaunch({ shape: [100], inputs: values, outputs, expr: e }).steps[0] as { entry: { key: string } }).entry.key);
    });
  }
  expect(keys.size).toBe(2);
  expect(relaxed?.[0]).toEqual(plain?.[0]);
  expect(relaxed?.[1]).not.toEqual(plain?.[1]);
});

/** What a store of a number in a dtype must give. NaN becomes 0 in integers; values out of range are left to the tests below. */
describe("casts", () => {
  const specials: Record<string, readonly (number | bigint)[]> = {
    float: [0, -0, 1, -1, 0.5, 1.5, 2.5, -2.5, 100.7, -100.7, 1e-5, 6e-8, 3e-8, 2.98e-8, -6.1e-5, 6.103515625e-5, 65504, 65519, 65520, 1e-40, 1.17e-38, 3.3895e38, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    signed: [0, 1, -1, 2, 99, -100, 127, -128],
    unsigned: [0, 1, 2, 99, 200, 255],
    bool: [0, 1, 1, 0, 1],
  };
  const inRange = (x: number, d: dt.Dtype): boolean => d.isFloat || d.kind === "bool" || (Number.isFinite(x) ? Math.abs(x) < 2 ** 31 : Number.isNaN(x));
  test.each(scalarDtypes.flatMap((a) => scalarDtypes.map((b) => [a.name, b.name, a, b] as const)))("%s to %s", (_a, _b, from, to) => {
    const given = decode(from, encode(from, specials[from.kind] as number[]) as never);
    const values = given.filter((x) => inRange(Number(x), to));
    const got = apply((x) => e.cast(x, to), to, { dtype: from, values });
    // float64 to a 16-bit float goes through float32.
    const want = values.map((x) => dt.roundTo(to, to.isFloat && to.size < 4 ? Math.fround(Number(x)) : Number.isNaN(Number(x)) && to.kind === "bool" ? 1 : Number(x)));
    const unsigned64 = (x: number): number => (to === dt.uint64 && x < 0 ? x + 2 ** 64 : to.isFloat ? x : x + 0);
    expect(got.map(Number)).toEqual(want.map(unsigned64));
  });
  test("floats beyond an integer's range do not trap", () => {
    const values = [1e10, -1e10, 1e30, -1e30, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, -1, -3.7];
    expect(apply((x) => e.convert(x, "i32"), dt.int32, { dtype: dt.float32, values })).toEqual([2147483647, -2147483648, 2147483647, -2147483648, 2147483647, -2147483648, 0, -1, -3]);
    expect(apply((x) => e.convert(x, "u32"), dt.uint32, { dtype: dt.float64, values })).toEqual([4294967295, 2147483648, 4294967295, 2147483648, 4294967295, 2147483648, 0, 4294967295, 4294967293]);
    expect(apply((x) => e.convert(x, "i64"), dt.int64, { dtype: dt.float32, values: values.slice(2) })).toEqual([2n ** 63n - 1n, -(2n ** 63n), 2n ** 63n - 1n, -(2n ** 63n), 0n, -1n, -3n]);
  });
  test("every bfloat16 and float16 survives a copy and widens exactly", () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of [dt.bfloat16, dt.float16]) {
      const x = e.input(0, dtype);
      const input = { dtype, strides: [1], data: bits };
      const [same, wide, back] = runGroup([65536], [input], [{ dtype, value: x }, { dtype: dt.float32, value: x }, { dtype, value: e.mul(x, e.const("f32", 1)) }]);
      expect(same).toEqual(bits);
      for (let i = 0; i < 65536; i++) {
        const want = dtype === dt.bfloat16 ? dt.fromBfloat16Bits(i) : dt.fromFloat16Bits(i);
        if (!Object.is((wide as Float32Array)[i], want)) throw new Error(`${dtype} ${i}: ${(wide as Float32Array)[i]} for ${want}`);
        if (!Number.isNaN(want) && (back as Uint16Array)[i] !== i) throw new Error(`${dtype} ${i} came back as ${(back as Uint16Array)[i]}`);
      }
    }
  });
  test("float32 rounds to bfloat16 and float16 as the library does on the host", () => {
    const words = Uint32Array.from({ length: 1 << 18 }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 0);
    const floats = new Float32Array(words.buffer);
    const x = e.input(0, dt.float32);
    const [b, h, n] = runGroup([floats.length], [{ dtype: dt.float32, strides: [1], data: floats }], [{ dtype: dt.bfloat16, value: x }, { dtype: dt.float16, value: x }, { dtype: dt.float32, value: e.narrow(x, dt.float16) }]);
    for (let i = 0; i < floats.length; i++) {
      const v = floats[i] as number;
      if (!Object.is(dt.fromBfloat16Bits((b as Uint16Array)[i] as number), dt.roundTo(dt.bfloat16, v))) throw new Error(`bfloat16 of ${v}`);
      if (!Object.is(dt.fromFloat16Bits((h as Uint16Array)[i] as number), dt.roundTo(dt.float16, v))) throw new Error(`float16 of ${v}`);
      if (!Object.is((n as Float32Array)[i], dt.roundTo(dt.float16, v))) throw new Error(`narrow of ${v}`);
    }
  });
});

describe("integers", () => {
  const cases: [dt.Dtype, bigint[]][] = [
    [dt.int32, [0n, 1n, -1n, 7n, -7n, 2147483647n, -2147483648n, 1000000007n]],
    [dt.uint32, [0n, 1n, 7n, 2147483648n, 4294967295n, 1000000007n]],
    [dt.int64, [0n, 1n, -1n, 7n, -7n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n]],
    [dt.uint64, [0n, 1n, 7n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 53n + 1n]],
  ];
  const wrap = (d: dt.Dtype, x: bigint): bigint => (d.kind === "signed" ? BigInt.asIntN(8 * d.size, x) : BigInt.asUintN(8 * d.size, x));
  const operations: Record<string, [(a: Value, b: Value) => Value, (a: bigint, b: bigint, d: dt.Dtype) => bigint]> = {
    add: [(a, b) => e.add(a, b), (a, b) => a + b],
    mul: [(a, b) => e.mul(a, b), (a, b) => a * b],
    quot: [(a, b) => e.quot(a, b), (a, b) => (b === 0n ? 0n : a / b)],
    rem: [(a, b) => e.rem(a, b), (a, b) => (b === 0n ? a : a % b)],
    min: [(a, b) => e.min(a, b), (a, b) => (b > a ? a : b)],
    max: [(a, b) => e.max(a, b), (a, b) => (a > b ? a : b)],
    xor: [(a, b) => e.xor(a, b), (a, b) => a ^ b],
    shl: [(a, b) => e.shl(a, e.and(b, e.like(b, 31))), (a, b) => a << (b & 31n)],
    shr: [(a, b) => e.shr(a, e.and(b, e.like(b, 31))), (a, b) => a >> (b & 31n)],
    shrConst: [(a) => e.shr(a, e.like(a, 5)), (a) => a >> 5n],
    less: [(a, b) => e.convert(e.lt(a, b), a.type), (a, b) => (a < b ? 1n : 0n)],
    atLeast: [(a, b) => e.convert(e.ge(a, b), a.type), (a, b) => (a >= b ? 1n : 0n)],
  };
  for (const [dtype, values] of cases) {
    test.each(Object.keys(operations))(`${dtype} %s`, (name) => {
      const [f, want] = operations[name] as (typeof operations)[string];
      const pairs = values.flatMap((a) => values.map((b) => [a, b] as const));
      const got = apply(f, dtype, { dtype, values: pairs.map((p) => p[0]) }, { dtype, values: pairs.map((p) => p[1]) });
      expect(got.map(BigInt)).toEqual(pairs.map(([a, b]) => wrap(dtype, want(a, b, dtype))));
    });
  }
});

describe("floats", () => {
  const special = [0, -0, 1, -1, 2.5, -2.5, 3.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 8388609, 1e-30];
  test.each([dt.float32, dt.float64])("%s: comparisons, extremes and rounding", (dtype) => {
    const pairs = special.flatMap((a) => special.map((b) => [a, b] as const));
    const both = [{ dtype, values: pairs.map((p) => p[0]) }, { dtype, values: pairs.map((p) => p[1]) }] as const;
    const check = (f: (a: Value, b: Value) => Value, want: (a: number, b: number) => number): void =>
      expect(apply(f as never, dtype, ...both)).toEqual(pairs.map(([a, b]) => dt.roundTo(dtype, want(dt.roundTo(dtype, a), dt.roundTo(dtype, b)))));
    const nan = (a: number, b: number): boolean => Number.isNaN(a) || Number.isNaN(b);
    check((a, b) => e.max(a, b), (a, b) => (nan(a, b) ? Number.NaN : a > b ? a : b));
    check((a, b) => e.min(a, b), (a, b) => (nan(a, b) ? Number.NaN : a < b ? a : b));
    check((a, b) => e.convert(e.le(a, b), a.type), (a, b) => Number(a <= b));
    check((a, b) => e.convert(e.ne(a, b), a.type), (a, b) => Number(a !== b));
    check((a, b) => e.div(a, b), (a, b) => a / b);
    check((a) => e.round(a), (a) => (Math.abs(a % 1) === 0.5 ? 2 * Math.round(a / 2) : Math.abs(a) === 0 ? a : Math.round(a)));
    check((a) => e.floor(a), Math.floor);
  });

  /** erf by a series of positive terms (small |x|) or a continued fraction of erfc. */
  function erf(x: number): number {
    const a = Math.abs(x);
    if (a < 2.5) {
      let sum = 0;
      for (let n = 0, term = a; n < 120; n++) {
        sum += term;
        term *= (2 * a * a) / (2 * n + 3);
      }
      return Math.sign(x) * sum * Math.exp(-a * a) * (2 / Math.sqrt(Math.PI));
    }
    let c = 0;
    for (let k = 80; k >= 1; k--) c = k / 2 / (a + c);
    return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + c) * Math.sqrt(Math.PI)));
  }
  const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
  /** Function, reference, largest error in float32 ulp and in float64 relative, largest float64 |x|, smallest |y| that counts. */
  const functions: [Exclude<MathOp, "atan2" | "pow" | "erfinv">, (x: number) => number, number, number, (number | undefined)?, number?][] = [
    ["exp", Math.exp, 1.5, 1e-15], ["expm1", Math.expm1, 0.51, 1e-15], ["log", Math.log, 1.5, 1e-15], ["log1p", Math.log1p, 2, 1e-15],
    ["log2", Math.log2, 0.51, 1e-15], ["log10", Math.log10, 0.51, 1e-15], ["sin", Math.sin, 2, 1e-15, 1e6], ["cos", Math.cos, 2, 1e-15, 1e6],
    ["tan", Math.tan, 0.51, 1e-15, 1e6], ["asin", Math.asin, 0.51, 1e-15], ["acos", Math.acos, 0.51, 1e-15], ["atan", Math.atan, 0.51, 1e-15],
    ["sinh", Math.sinh, 0.51, 2e-15], ["cosh", Math.cosh, 0.51, 2e-15], ["tanh", Math.tanh, 2, 2e-15], ["asinh", Math.asinh, 0.51, 1e-15],
    ["acosh", Math.acosh, 0.51, 1e-15], ["atanh", Math.atanh, 0.51, 1e-15], ["erf", erf, 2, 2e-15], ["sigmoid", sigmoid, 2.5, 1e-15, undefined, 1.2e-38],
  ];
  const ulp = (x: number): number => 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(x)))) - 23);
  test.each(functions)("%s", (name, f, maxUlp, maxRelative, limit = Number.POSITIVE_INFINITY, floor = 0) => {
    // float32 numbers spread evenly over all bit patterns, then float64 numbers of many sizes.
    const words = Uint32Array.from({ length: 1 << 18 }, (_, i) => i * 16384 + ((i * 7919) & 16383));
    const special = [0, -0, 1, -1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 0.5, -0.5, 88.72, -103.9];
    const x32 = Float32Array.from([...new Float32Array(words.buffer), ...special]);
    for (const relaxed of variants) inVariant(relaxed, () => {
      const [y32] = runGroup([x32.length], [{ dtype: dt.float32, strides: [1], data: x32 }], [{ dtype: dt.float32, value: e.math(name, e.input(0, dt.float32)) }]) as Float32Array[];
      x32.forEach((x, i) => {
        const [got, want] = [(y32 as Float32Array)[i] as number, f(x)];
        if (Object.is(got, Math.fround(want)) || Math.abs(want) < floor) return;
        // Beyond the largest number an error of one ulp may decide about infinity.
        const error = Number.isFinite(got) === Number.isFinite(Math.fround(want)) ? Math.abs(got - want) / ulp(want) : Math.abs(Math.abs(want) / 2 ** 128 - 1) * 2 ** 24;
        if (!(error <= maxUlp)) throw new Error(`${name}(${x}) is ${got}, not ${want}: ${error} ulp`);
      });
    });
    const x64 = Float64Array.from({ length: 60000 }, (_, i) => {
      const r = ((i * 0.6180339887498949) % 1) * 2 - 1;
      return [r, r * 20, r * 700, Math.sign(r) * Math.exp(r * 700), Math.sign(r) * Math.exp(-Math.abs(r) * 40)][i % 5] as number;
    }).filter((x) => Math.abs(x) <= limit);
    const data = Float64Array.from([...x64, ...special.filter((x) => !(Math.abs(x) > limit))]);
    const [y64] = runGroup([data.length], [{ dtype: dt.float64, strides: [1], data }], [{ dtype: dt.float64, value: e.math(name, e.input(0, dt.float64)) }]) as Float64Array[];
    data.forEach((x, i) => {
      const [got, want] = [(y64 as Float64Array)[i] as number, f(x)];
      if (Object.is(got, want)) return;
      const error = Math.abs(got - want) / Math.max(Math.abs(want), 1e-300);
      if (!(error <= maxRelative)) throw new Error(`${name}(${x}) is ${got}, not ${want}: relative error ${error}`);
    });
  });
  describe.each(variants)("relaxed SIMD: %s", (relaxed) => {
    const places = ["exp", "erf", "tanh", "sigmoid", "log"] as const;
    test.each(places)("%s has the same bits in every lane and in the rest of a row", (name) => {
      inVariant(relaxed, () => {
        const values = Array.from({ length: 61 }, (_, i) => Math.fround((i - 20) * 1.7));
        const alone = values.map((v) => apply((x) => e.math(name, x), dt.float32, { dtype: dt.float32, values: [v] })[0]);
        for (const from of [0, 1, 2, 3, 7]) expect(apply((x) => e.math(name, x), dt.float32, { dtype: dt.float32, values: values.slice(from) })).toEqual(alone.slice(from));
      });
    });
    test("erf and tanh of large numbers are 1, of small ones in proportion", () => {
      inVariant(relaxed, () => {
        for (const [name, from, slope] of [["erf", 3.92, 2 / Math.sqrt(Math.PI)], ["tanh", 9.02, 1]] as const) {
          const large = [from, 1.5 * from, 100, 1e20, 3e38, Number.POSITIVE_INFINITY];
          const f = (values: number[]): number[] => apply((x) => e.math(name, x), dt.float32, { dtype: dt.float32, values }).map(Number);
          expect(f([...large, ...large.map((x) => -x)])).toEqual([...large.map(() => 1), ...large.map(() => -1)]);
          for (const x of [1e-30, -1e-20, 3e-5]) expect(Math.abs((f([x])[0] as number) / Math.fround(x) / slope - 1)).toBeLessThan(2 ** -23);
          expect(f([0, -0])).toEqual([0, -0]);
        }
      });
    });
    test("exp of what is known not to be positive has the bits of exp, in fewer operations", () => {
      inVariant(relaxed, () => {
        const [x, m] = [e.input(0, dt.float32), e.input(1, dt.float32)];
        const origin = e.select(e.eq(m, e.like(m, Number.NEGATIVE_INFINITY)), e.like(m, 0), m);
        const values = [...Array.from({ length: 4000 }, (_, i) => -i * 0.0291), -Number.MIN_VALUE, -0, -1e-30, Number.NEGATIVE_INFINITY, Number.NaN, -3e38];
        const inputs = [row(dt.float32, values), row(dt.float32, values.map((_, i) => (i % 3 === 0 ? 0 : values[i] as number)))];
        for (const from of [m, origin]) {
          const formula = { dtype: dt.float32, value: e.exp(e.sub(x, from)) };
          const [known, any, other] = [new Map([[m, x]]), undefined, new Map([[x, m]])].map((maxima) => (lower([formula], undefined, maxima)[0] as { value: Value }).value) as [Value, Value, Value];
          expect(other).toBe(any);
          expect(reachable([known]).length).toBeLessThan(reachable([any]).length);
          const [a, b] = [known, any].map((value) => runGroup([values.length], inputs, [{ dtype: dt.float32, value }])[0]);
          expect(a).toEqual(b);
        }
      });
    });
  });
  describe("large angles", () => {
    // Every exponent with mantissas from everywhere; 16367173 2^72 is the float32 number that comes nearest to a multiple of pi/2 (J.-M. Muller, "Elementary Functions").
    const exponents = Array.from({ length: 110 }, (_, i) => 18 + i);
    const large = exponents.flatMap((n) => Array.from({ length: 64 }, (_, k) => Math.fround(2 ** n * (1 + ((k * 0.6180339887498949) % 1)))));
    const angles = [...large, ...large.map((x) => -x), 16367173 * 2 ** 72, 3.4028234663852886e38, 2 ** 127, 2 ** 20, 1048575.9375, 1e8, 1e30];
    const special = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 0, -0, 1.4e-45, -1e-40];
    const trig = [["sin", Math.sin, 2], ["cos", Math.cos, 2], ["tan", Math.tan, 0.51]] as const;
    test.each(trig)("float32 %s", (name, f, maxUlp) => {
      const values = [...angles, ...special].map(Math.fround);
      const y = apply((x) => e.math(name, x), dt.float32, { dtype: dt.float32, values }).map(Number);
      y.forEach((got, i) => {
        const want = f(values[i] as number);
        if (!Object.is(got, Math.fround(want)) && !(Math.abs(got - want) <= maxUlp * ulp(want))) throw new Error(`${name}(${values[i]}) is ${got}, not ${want}`);
      });
      // Neighbours that are not large have the bits they have alone, and so has each large one: 17 has a part of a block at the end.
      for (const at of [0, 3, 16]) {
        const mixed = Array.from({ length: 17 }, (_, i) => (i === at ? 1e20 : Math.fround(0.37 * i)));
        const alone = mixed.map((v) => apply((x) => e.math(name, x), dt.float32, { dtype: dt.float32, values: [v] })[0]);
        expect(apply((x) => e.math(name, x), dt.float32, { dtype: dt.float32, values: mixed })).toEqual(alone);
      }
    });
    test.each([dt.bfloat16, dt.float16])("%s sin", (dtype) => {
      const values = decode(dtype, Uint16Array.from({ length: 0x7f80 }, (_, i) => i)).map(Number).filter(Number.isFinite);
      const got = apply((x) => e.math("sin", x), dtype, { dtype, values }).map(Number);
      // float32 within 2 ulp, rounded again: one unit of the smaller format where the two roundings differ.
      const unit = dtype === dt.bfloat16 ? 2 ** -8 : 2 ** -11;
      got.forEach((y, i) => expect(Math.abs(y - Math.sin(values[i] as number))).toBeLessThanOrEqual(unit * Math.abs(y) * 1.001 + 2 ** -24));
    });
    test("what only they need is left out of the common form", () => {
      const stored = lower([{ dtype: dt.float32, value: e.math("sin", e.input(0, dt.float32)) }]);
      const common = commonForm(stored) as CommonForm;
      const count = (values: readonly Value[]): number => reachable(values).length;
      expect(common.unless).toHaveLength(1);
      expect(2 * count([...common.outputs.map((o) => o.value), ...common.unless])).toBeLessThan(count(stored.map((o) => o.value)));
      expect(commonForm(lower([{ dtype: dt.float32, value: e.exp(e.input(0, dt.float32)) }]))).toBeUndefined();
    });
    test("a kernel reads strided inputs twice, and inner angles may be large too", () => {
      const data = Float32Array.from({ length: 60 }, (_, i) => (i % 7 === 3 ? 1e12 + i * 1e9 : i * 0.1));
      const x = e.input(0, dt.float32);
      const value = e.math("sin", e.mul(e.math("sin", x), e.const("f32", 2 ** 30)));
      for (const strides of [[6, 2], [1, 10], [-6, -1], [0, 1], [6, 0]]) {
        const input: TestInput = { dtype: dt.float32, strides, data, offset: (strides[0] as number) < 0 ? 59 : 0 };
        const [got] = runGroup([10, 3], [input], [{ dtype: dt.float32, value }]) as Float32Array[];
        const [inner] = runGroup([10, 3], [input], [{ dtype: dt.float32, value: e.math("sin", x) }]) as Float32Array[];
        (inner as Float32Array).forEach((v, i) => {
          const want = Math.sin(v * 2 ** 30);
          expect(Math.abs(((got as Float32Array)[i] as number) - want)).toBeLessThanOrEqual(2 * ulp(want));
        });
      }
    });
  });
  test.each([[dt.float32, 5e-7], [dt.float64, 1e-13]] as const)("%s: erfinv inverts erf", (dtype, tolerance) => {
    const values = Array.from({ length: 4001 }, (_, i) => dt.roundTo(dtype, (i - 2000) / 2001));
    const y = apply((x) => e.math("erfinv", x), dtype, { dtype, values }).map(Number);
    // The error of the argument: d erfinv(x) = sqrt(pi)/2 exp(y^2) dx.
    y.forEach((v, i) => {
      expect(Math.abs(erf(v) - (values[i] as number)) * (Math.sqrt(Math.PI) / 2) * Math.exp(v * v)).toBeLessThanOrEqual(tolerance * Math.max(Math.abs(v), 1e-3));
    });
    expect(apply((x) => e.math("erfinv", x), dtype, { dtype, values: [1, -1, 2, 0, Number.NaN] })).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 0, Number.NaN]);
  });
  const pairTest = (name: "pow" | "atan2", f: (a: number, b: number) => number, tolerance: Record<string, number>): void => {
    test.each([dt.float32, dt.float64])(`%s: ${name}`, (dtype) => {
      const some = [0, -0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 1.5, 1e10, 1e-10, -1e10, 1000.5, 30, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN].map((x) => dt.roundTo(dtype, x));
      const pairs = some.flatMap((a) => some.map((b) => [a, b] as const));
      const got = apply((a, b) => e[name](a, b), dtype, { dtype, values: pairs.map((p) => p[0]) }, { dtype, values: pairs.map((p) => p[1]) }).map(Number);
      pairs.forEach(([a, b], i) => {
        const want = dt.roundTo(dtype, f(a, b));
        const g = got[i] as number;
        if (Object.is(g, want)) return;
        if (!(Math.abs(g - want) <= (tolerance[dtype.name] as number) * Math.abs(want))) throw new Error(`${name}(${a}, ${b}) is ${g}, not ${want}`);
      });
    });
  };
  // C's pow(1, NaN) is 1, JavaScript's is NaN; likewise for -1 and infinity.
  pairTest("pow", (a, b) => (a === 1 || (a === -1 && Math.abs(b) === Number.POSITIVE_INFINITY) ? 1 : a ** b), { float32: 1.2e-7, float64: 3e-13 });
  pairTest("atan2", Math.atan2, { float32: 1.2e-7, float64: 1e-15 });
});
