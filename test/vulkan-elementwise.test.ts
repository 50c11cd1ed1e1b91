/**
 * Generated SPIR-V, one element per invocation: valid, and equal to the WebAssembly kernels bit for bit on devices that round division and square root correctly
 * (lavapipe does); NaN payloads and subnormal float32 numbers may differ. Several elements per invocation: gpu-elementwise.test.ts.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type SpirvFeatures, elementwiseSpirv, reciprocal } from "../src/codegen/elementwise-spirv.ts";
import * as dt from "../src/core/dtype.ts";
import { type MathOp, type Value, expr as e } from "../src/core/expr.ts";
import { rowStrides } from "../src/core/shape.ts";
import { type Output, type SameOptions, row, same as sameOnDevice } from "./helpers/elementwise.ts";
import { type TestInput, encode } from "./helpers/group.ts";
import { type TestDevice, closeTestDevice, directKernel, openTestDevice, runOnDevice, skipReason, vulkanRequired } from "./helpers/vulkan.ts";

const scalarDtypes = dt.dtypes.filter((d) => d !== dt.complex64);

const everything: SpirvFeatures = {
  shaderInt64: true,
  shaderFloat64: true,
  shaderInt8: true,
  shaderInt16: true,
  storageBuffer8BitAccess: true,
  storageBuffer16BitAccess: true,
  signedZeroInfNanPreserveFloat32: true,
  signedZeroInfNanPreserveFloat64: true,
};
const unary: MathOp[] = [
  "exp",
  "expm1",
  "log",
  "log1p",
  "log2",
  "log10",
  "sin",
  "cos",
  "tan",
  "asin",
  "acos",
  "atan",
  "sinh",
  "cosh",
  "tanh",
  "asinh",
  "acosh",
  "atanh",
  "erf",
  "erfinv",
  "sigmoid",
];

/** One expression per dtype that uses most operations of the type. */
function mixture(dtype: dt.Dtype): Value {
  const [a, b] = [e.input(0, dtype), e.input(1, dtype)];
  if (dtype === dt.bool) return e.or(e.xor(a, b), e.not(e.and(a, b)));
  if (dtype.isFloat) {
    const t = e.select(e.lt(a, b), e.div(a, b), e.mul(e.floor(a), e.sub(b, a)));
    return e.narrow(e.add(e.max(t, e.neg(b)), e.min(e.abs(a), e.round(b))), dtype);
  }
  const t = e.select(e.ge(a, b), e.quot(a, b), e.rem(b, a));
  return e.narrow(e.add(e.max(t, e.shl(b, e.like(b, 3))), e.xor(e.shr(a, e.and(b, e.like(b, 7))), e.min(a, b))), dtype);
}
const ramp = (n: number, dtype: dt.Dtype, seed = 0): number[] =>
  Array.from({ length: n }, (_, i) => {
    const x = (((i + seed) * 37) % 101) - 50;
    return dtype.kind === "bool" ? x & 1 : dtype.kind === "unsigned" ? Math.abs(x) : dtype.isFloat ? x / 4 : x;
  });

const validator = spawnSync("spirv-val", ["--version"]).status === 0;
describe("modules", () => {
  test("spirv-val is there where Vulkan is required", () => {
    expect(validator || !vulkanRequired).toBe(true);
  });
  test.skipIf(!validator)("pass spirv-val", () => {
    const folder = mkdtempSync(join(tmpdir(), "mlx-vk-spv-"));
    try {
      const check = (name: string, group: { shape: number[]; strides: number[][]; dtypes: dt.Dtype[]; outputs: Output[]; lanes?: number; tiled?: boolean }): void => {
        const step = elementwiseSpirv(
          { shape: group.shape, inputs: group.dtypes.map((dtype, i) => ({ dtype, strides: group.strides[i] as number[] })), outputs: group.outputs, expr: e },
          { features: everything },
          { lanes: group.lanes ?? 1, tiled: group.tiled, aligned: group.dtypes.map(() => true) },
        );
        const file = join(folder, `${name}.spv`);
        writeFileSync(file, directKernel(step).code());
        const run = spawnSync("spirv-val", ["--target-env", "vulkan1.3", "--scalar-block-layout", file], { encoding: "utf8" });
        expect(`${name}: ${run.stdout}${run.stderr}`).toBe(`${name}: `);
      };
      for (const dtype of scalarDtypes) {
        check(dtype.name, { shape: [8], strides: [[1], [1]], dtypes: [dtype, dtype], outputs: [{ dtype, value: mixture(dtype) }] });
        for (const lanes of [2, 4, 8]) {
          check(`${dtype.name}-${lanes}`, { shape: [8], strides: [[1], [1]], dtypes: [dtype, dtype], outputs: [{ dtype, value: mixture(dtype) }], lanes });
          check(`${dtype.name}-rows-${lanes}`, {
            shape: [2, 3, 8],
            strides: [
              [0, 0, 1],
              [0, 2, 0],
            ],
            dtypes: [dtype, dtype],
            outputs: [{ dtype, value: mixture(dtype) }],
            lanes,
          });
        }
        check(`${dtype.name}-strided`, {
          shape: [2, 3, 4],
          strides: [
            [1, 2, 6],
            [0, 0, 0],
          ],
          dtypes: [dtype, dtype],
          outputs: [{ dtype, value: mixture(dtype) }],
        });
        const casts = scalarDtypes.map((to) => ({ dtype: to, value: e.cast(e.input(0, dtype), to) }));
        check(`${dtype.name}-casts`, { shape: [8], strides: [[1]], dtypes: [dtype], outputs: casts.slice(0, 7) });
        check(`${dtype.name}-casts2`, { shape: [8], strides: [[1]], dtypes: [dtype], outputs: casts.slice(7) });
      }
      check("tiles", { shape: [40, 64], strides: [[1, 40], [64, 1]], dtypes: [dt.bfloat16, dt.float32], outputs: [{ dtype: dt.bfloat16, value: e.add(e.input(0, dt.bfloat16), e.input(1, dt.float32)) }], lanes: 4, tiled: true });
      for (const op of unary) check(op, { shape: [8], strides: [[1]], dtypes: [dt.float32], outputs: [{ dtype: dt.float32, value: e.math(op as "exp", e.input(0, dt.float32)) }] });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
  test("what a device cannot do is refused with the reason", () => {
    const group = (dtype: dt.Dtype, n = 8): Parameters<typeof elementwiseSpirv>[0] => ({
      shape: [n],
      inputs: [{ dtype, strides: [1] }],
      outputs: [{ dtype, value: e.neg(e.input(0, dtype)) }],
      expr: e,
    });
    const none: SpirvFeatures = {
      ...everything,
      shaderInt64: false,
      shaderFloat64: false,
      storageBuffer8BitAccess: false,
      storageBuffer16BitAccess: false,
      signedZeroInfNanPreserveFloat32: false,
      signedZeroInfNanPreserveFloat64: false,
    };
    const step = (g: Parameters<typeof elementwiseSpirv>[0]): ReturnType<typeof elementwiseSpirv> => elementwiseSpirv(g, { features: none });
    expect(step(group(dt.float64))).toBe("cannot: the device has no float64");
    expect(step(group(dt.int64))).toBe("cannot: the device has no int64");
    expect(step(group(dt.int8))).toBe("cannot: the device cannot address 8-bit elements");
    expect(step(group(dt.bfloat16))).toBe("cannot: the device cannot address 16-bit elements");
    expect(step(group(dt.float32, 2 ** 31))).toMatch("cannot: 2147483648 elements");
    expect(typeof step(group(dt.float32))).toBe("object");
    const sum = (n: number): ReturnType<typeof elementwiseSpirv> =>
      step({
        shape: [8],
        inputs: Array.from({ length: n }, () => ({ dtype: dt.float32, strides: [1] })),
        outputs: [{ dtype: dt.float32, value: Array.from({ length: n }, (_, i) => e.input(i, dt.float32)).reduce((a, b) => e.add(a, b)) }],
        expr: e,
      });
    expect(sum(16)).toBe("cannot: 17 operands need 144 bytes of push constants for their addresses, 128 are portable");
    expect(typeof sum(14)).toBe("object");
  });
  test("words that do not fit the push constants go to a table", () => {
    const strides = [120, 24, 6, 2, 1].map((s) => 2 * s);
    const step = (n: number): ReturnType<typeof elementwiseSpirv> =>
      elementwiseSpirv(
        { shape: [2, 5, 4, 3, 2], inputs: Array.from({ length: n }, (_, i) => ({ dtype: dt.float32, strides: strides.map((s) => s * (i + 1)) })), outputs: [{ dtype: dt.float32, value: e.input(0, dt.float32) }], expr: e },
        { features: everything },
      );
    const [one, many] = [step(1), step(12)];
    if (typeof one === "string" || typeof many === "string") throw new Error("refused");
    expect(one.table).toBeUndefined();
    expect(many.words).toEqual([]);
    expect(many.table?.length).toBeGreaterThan(12);
  });
  test("division by multiplication is exact below 2^31", () => {
    const divisors = [1, 2, 3, 5, 7, 8, 12, 100, 641, 65535, 65536, 1000003, 2 ** 30 - 1, 2 ** 30, 2 ** 30 + 1, 2 ** 31 - 1];
    for (const d of divisors) {
      const [multiplier, shift] = reciprocal(d);
      expect(multiplier).toBeLessThan(2 ** 32);
      const ks = [0, 1, 2, 3, 1000, Math.floor((2 ** 31 - 1) / d) - 1, Math.floor((2 ** 31 - 1) / d)];
      const ns = ks.flatMap((k) => [k * d - 1, k * d, k * d + d - 1]).concat(2 ** 31 - 1, 2 ** 31 - 2);
      for (const n of ns) if (n >= 0 && n < 2 ** 31) expect(Number((BigInt(2 * n) * BigInt(multiplier)) >> 32n) >>> shift).toBe(Math.floor(n / d));
    }
  });
  test("a kernel depends on structure only; large sizes use rows of workgroups", () => {
    const launch = (n: number) =>
      elementwiseSpirv({ shape: [n], inputs: [{ dtype: dt.float32, strides: [1] }], outputs: [{ dtype: dt.float32, value: e.neg(e.input(0, dt.float32)) }], expr: e }, { features: everything }, { lanes: 1 });
    const [a, b] = [launch(5), launch(100_000_000)];
    if (typeof a === "string" || typeof b === "string") throw new Error("refused");
    expect(a.shader).toBe(b.shader);
    expect(a.groups).toEqual([1, 1, 1]);
    expect(b.groups).toEqual([65535, 12, 1]);
  });
});

describe.skipIf(skipReason !== undefined)(`on the device${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  const same = (shape: readonly number[], inputs: readonly TestInput[], outputs: readonly Output[], options: SameOptions = {}): void => sameOnDevice(device, shape, inputs, outputs, options);

  test.each(scalarDtypes.map((d) => [d.name, d] as const))("%s: arithmetic, every tail", (_, dtype) => {
    const value = mixture(dtype);
    for (const n of [0, 1, 3, 255, 256, 257, 1000]) same([n], [row(dtype, ramp(n, dtype)), row(dtype, ramp(n, dtype, 7))], [{ dtype, value }]);
  });
  test.each(scalarDtypes.map((d) => [d.name, d] as const))("%s: casts to all types, special values", (_, dtype) => {
    const special = dtype.isFloat
      ? [
          0,
          -0,
          1.5,
          -1.5,
          2.5,
          255.5,
          -129,
          65504,
          70000,
          -70000,
          2 ** 31,
          -(2 ** 31),
          2 ** 32,
          3e9,
          1e19,
          -1e19,
          1e30,
          Number.NaN,
          Number.POSITIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
        ]
      : [];
    const values = [...ramp(200, dtype), ...special.map((x) => dt.roundTo(dtype, x))];
    const casts = scalarDtypes.map((to) => ({ dtype: to, value: e.cast(e.input(0, dtype), to) }));
    same([values.length], [row(dtype, values)], casts.slice(0, 7));
    same([values.length], [row(dtype, values)], casts.slice(7));
  });
  test("every float16 and bfloat16 number is loaded, stored and copied exactly", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of [dt.bfloat16, dt.float16]) {
      const x = e.input(0, dtype);
      const input: TestInput = { dtype, strides: [1], data: all };
      same([65536], [input], [{ dtype: dt.float32, value: x }]);
      const [copy] = runOnDevice(device, [65536], [input], [{ dtype, value: x }]);
      expect(copy).toEqual(all);
    }
  });
  test("float32 rounds to 16-bit floats to nearest even", () => {
    const floats = new Float32Array(Uint32Array.from({ length: 1 << 16 }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 0).buffer);
    same(
      [floats.length],
      [{ dtype: dt.float32, strides: [1], data: floats }],
      [
        { dtype: dt.bfloat16, value: e.input(0, dt.float32) },
        { dtype: dt.float16, value: e.input(0, dt.float32) },
      ],
    );
  });
  test.each(unary)("%s of float32", (op) => {
    // All exponents and signs, and the range where the functions bend.
    const words = new Float32Array(Uint32Array.from({ length: 4096 }, (_, i) => i * 1048576 + ((i * 7919) & 1048575)).buffer);
    const data = Float32Array.from([
      ...words,
      ...Array.from({ length: 2000 }, (_, i) => (i - 1000) / 100),
      0,
      -0,
      1,
      -1,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      Number.NaN,
    ]).filter((x) => Math.abs(x) >= 2 ** -126 || x === 0 || Number.isNaN(x));
    same([data.length], [{ dtype: dt.float32, strides: [1], data }], [{ dtype: dt.float32, value: e.math(op as "exp", e.input(0, dt.float32)) }], { ulps: 8 });
  });
  test.each(["sin", "cos", "tan"] as const)("%s of a large angle among ordinary ones, several elements per invocation", (op) => {
    const data = Float32Array.from({ length: 61 }, (_, i) => (i % 9 === 4 ? (i - 30) * 3.7e9 ** (1 + (i % 4)) : i / 7));
    const value = e.math(op, e.input(0, dt.float32));
    same([data.length], [{ dtype: dt.float32, strides: [1], data }], [{ dtype: dt.float32, value }], { lanes: 4, ulps: 2 });
  });
  test.each([
    ["as the device needs it", undefined],
    ["corrected", false],
  ])("division of float32, %s, is within 1 ulp, also of the smallest and greatest numbers", (_, roundsDivision) => {
    const special = [0, -0, 1, -3, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 2 ** -126, 2 ** 127, -1.9999998807907104 * 2 ** 127, 1.5 * 2 ** -120, 2 ** 100];
    const words = new Float32Array(Uint32Array.from({ length: 1 << 15 }, (_, i) => Math.imul(i + 1, 0x9e3779b1) >>> 0).buffer).filter((x) => !(Math.abs(x) < 2 ** -126));
    const near = Float32Array.from({ length: 8192 }, (_, i) => 1 + Math.fround(((i * 7919) % 8192) / 8192));
    const all = [...words, ...near];
    const pairs = [...special.flatMap((a) => special.map((b) => [a, b] as const)), ...all.map((a, i) => [a, all[(i * 31 + 17) % all.length] as number] as const)];
    const [a, b] = [pairs.map((p) => p[0]), pairs.map((p) => p[1])];
    const [out] = runOnDevice(device, [pairs.length], [row(dt.float32, a), row(dt.float32, b)], [{ dtype: dt.float32, value: e.div(e.input(0, dt.float32), e.input(1, dt.float32)) }], { roundsDivision });
    const flushes = !device.info.features.denormPreserveFloat32;
    for (const [i, got] of (out as Float32Array).entries()) {
      const want = Math.fround((a[i] as number) / (b[i] as number));
      const size = Math.abs(want);
      if (Object.is(got, want) || (flushes && size < 2 ** -126 && got === 0)) continue;
      const ulp = 2 ** (Math.max(-126, Math.floor(Math.log2(size))) - 23);
      if (!(Number.isFinite(want) && want !== 0 && Math.abs(got - want) <= ulp)) throw new Error(`${a[i]} / ${b[i]} is ${got}, expected ${want}`);
    }
  });
  test("pow, atan2, and functions of float64", () => {
    const some = [0, -0, 1, -1, 2, -2, 0.5, 3, 1.5, 1e10, 1e-10, -1e10, 30, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];
    const pairs = some.flatMap((a) => some.map((b) => [a, b] as const));
    const [x, y] = [e.input(0, dt.float32), e.input(1, dt.float32)];
    const inputs = [
      row(
        dt.float32,
        pairs.map((p) => p[0]),
      ),
      row(
        dt.float32,
        pairs.map((p) => p[1]),
      ),
    ];
    same([pairs.length], inputs, [
      { dtype: dt.float32, value: e.pow(x, y) },
      { dtype: dt.float32, value: e.atan2(x, y) },
    ], { ulps: 8 });
    const z = e.input(0, dt.float64);
    same(
      [400],
      [
        row(
          dt.float64,
          Array.from({ length: 400 }, (_, i) => (i - 200) / 40),
        ),
      ],
      [
        { dtype: dt.float64, value: e.exp(z) },
        { dtype: dt.float64, value: e.tanh(z) },
        { dtype: dt.float64, value: e.erf(z) },
      ],
    );
  });

  test("layouts: contiguous, broadcast, transposed, strided, reversed", () => {
    const layouts: Record<string, (s: readonly number[]) => { strides: number[]; offset?: number; size: number }> = {
      contiguous: (s) => ({ strides: rowStrides(s), size: s.reduce((a, b) => a * b, 1) }),
      scalar: (s) => ({ strides: s.map(() => 0), size: 1 }),
      rowVector: (s) => ({ strides: s.map((_, i) => (i === s.length - 1 ? 1 : 0)), size: s[s.length - 1] ?? 1 }),
      column: (s) => ({
        strides: [...rowStrides(s.slice(0, -1)), ...(s.length ? [0] : [])],
        size: Math.max(
          1,
          s.slice(0, -1).reduce((a, b) => a * b, 1),
        ),
      }),
      transposed: (s) => {
        let step = 1;
        const strides = s.map((d) => {
          const t = step;
          step *= d;
          return t;
        });
        return { strides, size: Math.max(1, step) };
      },
      everyOther: (s) => ({ strides: rowStrides(s).map((x) => 2 * x), size: Math.max(1, 2 * s.reduce((a, b) => a * b, 1)) }),
      reversed: (s) => {
        const n = s.reduce((a, b) => a * b, 1);
        return { strides: rowStrides(s).map((x) => -x), size: Math.max(1, n), offset: Math.max(0, n - 1) };
      },
    };
    const value = e.sub(e.convert(e.input(0, dt.int16), "f32"), e.mul(e.input(1, dt.bfloat16), e.const("f32", 64)));
    for (const shape of [[], [6], [3, 5], [2, 3, 4], [2, 2, 3, 20], [0, 4], [2, 1, 3, 1, 5]]) {
      for (const a of Object.keys(layouts)) {
        for (const b of ["contiguous", "rowVector", "transposed"]) {
          const make = (name: string, dtype: dt.Dtype): TestInput => {
            const { size, ...place } = (layouts[name] as (typeof layouts)[string])(shape);
            return {
              dtype,
              ...place,
              data: encode(
                dtype,
                Array.from({ length: size }, (_, i) => (i * 31) % 97),
              ),
            };
          };
          same(shape, [make(a, dt.int16), make(b, dt.bfloat16)], [{ dtype: dt.float32, value }]);
        }
      }
    }
  });
  test("an output may lie over a contiguous input", () => {
    for (const dtype of [dt.uint8, dt.bfloat16, dt.float32, dt.int64]) {
      const values = ramp(1000, dtype);
      same([1000], [row(dtype, values), row(dtype, values)], [{ dtype, value: e.narrow(e.add(e.input(0, dtype), e.input(1, dtype)), dtype) }], { over: 1 });
    }
  });
  test("more workgroups than fit in one row", () => {
    const n = 65535 * 128 + 12345;
    const data = new Uint8Array(n).map((_, i) => i * 7);
    const [got] = runOnDevice(
      device,
      [n],
      [{ dtype: dt.uint8, strides: [1], data }],
      [{ dtype: dt.uint8, value: e.narrow(e.add(e.input(0, dt.uint8), e.const("i32", 1)), dt.uint8) }],
      { lanes: 1 },
    );
    const bad = (got as Uint8Array).findIndex((x, i) => x !== (((data[i] as number) + 1) & 255));
    expect(bad).toBe(-1);
  });
});
