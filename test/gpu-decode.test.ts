import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as mx from "../src/mx.ts";
import type { MxArray } from "../src/core/array.ts";
import * as dt from "../src/core/dtype.ts";
import { productKernel } from "../src/ops/decode-gpu.ts";
import { type AttentionStepParams, type DecodeMatrix, type Packing, advance, attentionStep, chooseToken, combineProjectAdd, embedRow, normGateUp, normProject, projectAdd, splitsFor } from "../src/ops/decode.ts";
import { type TestArray, elementsOf, opNamed, runKernel, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

/** Repeatable numbers in [-1, 1). */
function noise(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s ^ (s >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    s = (s ^ (s >>> 13)) >>> 0;
    return s / 2 ** 31 - 1;
  };
}
const floats = (dtype: dt.Dtype, shape: readonly number[], seed: number, scale = 1, middle = 0): TestArray => {
  const next = noise(seed);
  return { dtype, shape, values: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => middle + scale * next()) };
};
const ints = (...values: number[]): TestArray => ({ dtype: dt.int32, shape: [values.length], values });
/** A matrix [N, K]: packed words, scales and biases, or floats. */
function matrix(dtype: dt.Dtype, N: number, K: number, p: Packing | null, seed: number): TestArray[] {
  if (!p) return [floats(dtype, [N, K], seed, 0.05)];
  const next = noise(seed);
  const words = Array.from({ length: (N * K * p.bits) / 32 }, () => Math.floor((next() + 1) * 2 ** 31));
  const scale = 0.1 / 2 ** p.bits;
  return [{ dtype: dt.uint32, shape: [N, (K * p.bits) / 32], values: words }, floats(dtype, [N, K / p.groupSize], seed + 1, scale / 2, scale), floats(dtype, [N, K / p.groupSize], seed + 2, 0.02, -0.05)];
}

/** Compares what an op's definition gave with its float64 reference. */
function checkDefinition(op: string, inputs: readonly TestArray[], params: object, tolerance: { relative: number; absolute: number }, got: readonly MxArray[]): void {
  const avals = inputs.map((a) => ({ shape: a.shape, dtype: a.dtype }));
  const outs = opNamed(op).infer(avals, params);
  const want = opNamed(op).reference?.(inputs.map(elementsOf), avals, params, outs) as Float64Array[];
  got.forEach((g, i) => {
    expect(g.shape).toEqual(outs[i]?.shape);
    expect(g.dtype).toBe(outs[i]?.dtype);
    const values = (mx.reshape(g.astype(mx.float32), [-1]).tolist() as number[]).map(Number);
    values.forEach((x, j) => {
      const y = (want[i] as Float64Array)[j] as number;
      if (!(x === y || Math.abs(x - y) <= tolerance.absolute + tolerance.relative * Math.abs(y))) throw new Error(`${op}: output ${i}[${j}] is ${x}, expected ${y}`);
    });
  });
}
const arrayOf = (a: TestArray): MxArray => mx.reshape(mx.array(a.dtype === dt.uint32 ? Uint32Array.from(a.values) : Float32Array.from(a.values)).astype(a.dtype), a.shape);
const matrixOf = (m: readonly TestArray[], p: Packing | null): DecodeMatrix => {
  const [weight, scales, biases] = m.map(arrayOf) as [MxArray, MxArray, MxArray];
  return p ? { weight, scales, biases, ...p } : { weight };
};

/**
 * One step of the element type, and what the roundings inside leave: an element of the normed vector that rounds the other way, and the planes' 2^-15 (2^-21) of a block's
 * largest element, moves a sum of K products of about 0.03 by little more than that of one product.
 */
const tolerances: readonly (readonly [dt.Dtype, { relative: number; absolute: number }])[] = [
  [dt.float32, { relative: 4e-6, absolute: 4e-6 }],
  [dt.float16, { relative: 2 ** -10, absolute: 2e-4 }],
  [dt.bfloat16, { relative: 2 ** -7, absolute: 1e-3 }],
];
const exact = { relative: 0, absolute: 0 };
/**
 * Sums are float32, of up to 75 values of about 1; an element of q or k that rounds the other way changes a score by less than a step of the type,
 * and is itself one step off in the cache.
 */
const partTolerances = new Map<dt.Dtype, { relative: number; absolute: number }>([
  [dt.float32, { relative: 5e-6, absolute: 1e-5 }],
  [dt.float16, { relative: 2 ** -10, absolute: 1e-3 }],
  [dt.bfloat16, { relative: 2 ** -7, absolute: 8e-3 }],
]);
const packed4: Packing = { bits: 4, groupSize: 64 };

describe("decode ops by their definition in plain ops", () => {
  for (const [dtype, tolerance] of tolerances) {
    test(`${dtype}: equal the float64 references`, () => {
      for (const p of [packed4, null]) {
        const [x, norm, bias, residual] = [floats(dtype, [1, 128], 1), floats(dtype, [128], 2, 0.5, 1), floats(dtype, [10], 3), floats(dtype, [1, 5], 4)];
        const [a, b] = [matrix(dtype, 5, 128, p, 5), matrix(dtype, 5, 128, p, 8)];
        const [X, N, B, R, A, C] = [arrayOf(x), arrayOf(norm), arrayOf(bias), arrayOf(residual), matrixOf(a, p), matrixOf(b, p)];
        const both = [x, norm, ...a, ...b, bias];
        checkDefinition("normProject", both, { eps: 1e-6, packings: [p, p], bias: true }, tolerance, [normProject(X, N, 1e-6, [A, C], B)]);
        checkDefinition("normGateUp", both, { eps: 1e-6, packings: [p, p], bias: true }, tolerance, [normGateUp(X, N, 1e-6, A, C, B)]);
        checkDefinition("projectAdd", [x, residual, ...a], { packings: [p], bias: false }, tolerance, [projectAdd(X, A, R)]);
        const parts = { ...floats(dt.float32, [3, 2, 68], 11, 1, 2) };
        checkDefinition("combineProjectAdd", [parts, residual, ints(40), ...a], { packings: [p], bias: false, least: 2 }, tolerance, [combineProjectAdd(arrayOf(parts), arrayOf(ints(40)), 2, A, R)]);
        checkDefinition("embedRow", [ints(3), ...a], { packing: p }, { ...tolerance, absolute: 0 }, [embedRow(arrayOf(ints(3)), A)]);
      }
    });
    test(`${dtype}: attentionStep equals its reference`, () => {
      const [H, Hkv, D, capacity] = [4, 2, 16, 40];
      for (const position of [0, 3, 39]) {
        const params: AttentionStepParams = { heads: H, kvHeads: Hkv, headDim: D, scale: 0.25, rope: { dims: 16, traditional: false, scale: 1, base: 1e6 }, eps: 1e-6, queryNorm: true, keyNorm: true, splits: 5, least: 2 };
        const cache = [1, Hkv, capacity, D];
        const inputs = [floats(dtype, [1, (H + 2 * Hkv) * D], 1), ints(position), floats(dtype, cache, 2), floats(dtype, cache, 3), floats(dtype, [D], 4, 0.5, 2), floats(dtype, [D], 5, 0.5, 2)];
        const [qkv, at, k, v, qn, kn] = inputs.map(arrayOf) as [MxArray, MxArray, MxArray, MxArray, MxArray, MxArray];
        checkDefinition("attentionStep", inputs, params, partTolerances.get(dtype) as { relative: number; absolute: number }, attentionStep(qkv, at, k, v, [qn, kn], params));
      }
    });
    test(`${dtype}: chooseToken equals its reference`, () => {
      for (const temperature of [0, 0.7]) {
        const inputs = [floats(dtype, [1, 301], 1, 5), ints(3, 17, 18, 1), ints(-1, -1, -1)];
        const [logits, state, history] = inputs.map(arrayOf) as [MxArray, MxArray, MxArray];
        checkDefinition("chooseToken", inputs, { temperature, seed: 7 }, exact, chooseToken(logits, state, history, { temperature, seed: 7 }));
      }
    });
  }
  test("a step's attention, projected and added, is that of scaledDotProductAttention", () => {
    const [H, Hkv, D, capacity, position] = [4, 2, 16, 40, 29];
    const [qkv, k, v, w, residual] = [floats(dt.float32, [1, (H + 2 * Hkv) * D], 1), floats(dt.float32, [1, Hkv, capacity, D], 2), floats(dt.float32, [1, Hkv, capacity, D], 3), floats(dt.float32, [6, H * D], 4), floats(dt.float32, [1, 6], 5)].map(arrayOf) as [MxArray, MxArray, MxArray, MxArray, MxArray];
    const at = arrayOf(ints(position));
    const params = { heads: H, kvHeads: Hkv, headDim: D, scale: 0.25, rope: { dims: D, traditional: false, scale: 1, base: 1e4 }, eps: 1e-6, splits: splitsFor(Hkv, capacity), least: 8 };
    const [parts] = attentionStep(qkv, at, k, v, [null, null], params);
    const got = combineProjectAdd(parts, at, 8, { weight: w }, residual);
    const all = mx.reshape(qkv, [1, H + 2 * Hkv, 1, D]);
    const turn = (x: MxArray): MxArray => mx.fast.rope(x, D, false, 1e4, 1, position);
    const heads = (from: number, to: number): MxArray => all.index(mx.Slice(), mx.Slice(from, to));
    const keys = mx.concatenate([k.index("...", mx.Slice(0, position), mx.Slice()), turn(heads(H, H + Hkv))], 2);
    const values = mx.concatenate([v.index("...", mx.Slice(0, position), mx.Slice()), heads(H + Hkv, H + 2 * Hkv)], 2);
    const out = mx.fast.scaledDotProductAttention(turn(heads(0, H)), keys, values, 0.25, null);
    const want = mx.add(residual, mx.matmul(mx.reshape(out, [1, H * D]), mx.transpose(w)));
    expect(mx.allclose(got, want, 1e-5, 1e-5).item()).toBe(true);
  });
});

describe.skipIf(skipReason)("decode steps on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  for (const [dtype, tolerance] of tolerances) {
    for (const p of [packed4, null]) {
      const kind = `${dtype}, ${p ? "4 bits" : "dense"}`;
      test(`${kind}: normProject`, () => {
        for (const [K, rows, bias] of [[64, [5], false], [192, [7, 3, 4], true], [1088, [33, 8, 9], false]] as const) {
          const all = rows.reduce((a, b) => a + b, 0);
          const inputs = [floats(dtype, [1, K], 1), floats(dtype, [K], 2, 0.5, 1), ...rows.flatMap((n, i) => matrix(dtype, n, K, p, 3 + i)), ...(bias ? [floats(dtype, [all], 9)] : [])];
          expect(testKernel(device, "normProject", inputs, { eps: 1e-6, packings: rows.map(() => p), bias }, tolerance)).toEqual(["vulkan/decode/normProject"]);
        }
      });
      test(`${kind}: normGateUp`, () => {
        for (const [K, N, bias] of [[64, 3, true], [320, 37, false]] as const) {
          const inputs = [floats(dtype, [1, 1, K], 1), floats(dtype, [K], 2, 0.5, 1), ...matrix(dtype, N, K, p, 3), ...matrix(dtype, N, K, p, 7), ...(bias ? [floats(dtype, [2 * N], 9)] : [])];
          expect(testKernel(device, "normGateUp", inputs, { eps: 1e-5, packings: [p, p], bias }, tolerance)).toEqual(["vulkan/decode/normGateUp"]);
        }
      });
      test(`${kind}: projectAdd`, () => {
        for (const [K, N, bias] of [[128, 9, true], [3072, 17, false]] as const) {
          const inputs = [floats(dtype, [1, K], 1), floats(dtype, [1, N], 2), ...matrix(dtype, N, K, p, 3), ...(bias ? [floats(dtype, [N], 9)] : [])];
          expect(testKernel(device, "projectAdd", inputs, { packings: [p], bias }, tolerance)).toEqual(["vulkan/decode/projectAdd"]);
        }
      });
    }
    test(`${dtype}: attentionStep`, () => {
      const yarn = { dims: 32, traditional: true, scale: 0.5, wavelengths: Array.from({ length: 16 }, (_, i) => 3 ** i) };
      const plain = (dims: number): AttentionStepParams["rope"] => ({ dims, traditional: false, scale: 1, base: 10000 });
      for (const [H, Hkv, D, capacity, positions, norms, rope, splits, least] of [
        [4, 2, 64, 300, [0, 5, 63, 64, 200, 299], [true, true], plain(64), 4, 16],
        // Nine query heads of a key head take three workgroups.
        [9, 1, 40, 70, [0, 69], [false, false], yarn, 3, 64],
      ] as const) {
        for (const position of positions) {
          const cache = [1, Hkv, capacity, D];
          const params: AttentionStepParams = { heads: H, kvHeads: Hkv, headDim: D, scale: D ** -0.5, rope, eps: 1e-6, queryNorm: norms[0], keyNorm: norms[1], splits, least };
          const inputs = [floats(dtype, [1, (H + 2 * Hkv) * D], 1), ints(position), floats(dtype, cache, 2), floats(dtype, cache, 3), ...norms.filter(Boolean).map((_, i) => floats(dtype, [D], 4 + i, 0.5, 2))];
          expect(testKernel(device, "attentionStep", inputs, params, partTolerances.get(dtype) as { relative: number; absolute: number })).toEqual(["vulkan/decode/attentionStep"]);
        }
      }
    });
    test(`${dtype}: combineProjectAdd`, () => {
      for (const [position, splits, least, p, bias] of [[0, 1, 64, packed4, false], [300, 7, 50, packed4, true], [300, 7, 64, null, false]] as const) {
        const [H, D, N] = [4, 48, 19];
        const parts = floats(dt.float32, [splits, H, D + 4], 1);
        const used = Math.ceil((position + 1) / Math.max(least, Math.ceil((position + 1) / splits)));
        const values = Array.from(parts.values).map((v, i) => {
          const [s, at] = [Math.floor(i / (H * (D + 4))), i % (D + 4)];
          if (s >= used) return at === D ? Number.NEGATIVE_INFINITY : 0;
          return at === D ? 3 * v : at === D + 1 ? 2 + v : v;
        });
        const inputs = [{ ...parts, values }, floats(dtype, [1, N], 2), ints(position), ...matrix(dtype, N, H * D, p, 3), ...(bias ? [floats(dtype, [N], 9)] : [])];
        expect(testKernel(device, "combineProjectAdd", inputs, { packings: [p], bias, least }, tolerance)).toEqual(["vulkan/decode/combineProjectAdd"]);
      }
    });
    test(`${dtype}: embedRow and chooseToken`, () => {
      for (const p of [packed4, { bits: 3, groupSize: 32 }, null]) {
        for (const token of [0, 6, 100]) expect(testKernel(device, "embedRow", [ints(token), ...matrix(dtype, 7, 192, p, 3)], { packing: p }, { ...tolerance, absolute: 1e-7 })).toEqual(["vulkan/decode/embedRow"]);
      }
      for (const n of [1, 255, 256, 3001]) {
        for (const temperature of [0, 0.7]) {
          for (const step of [0, 2, 9]) {
            const inputs = [floats(dtype, [1, n], n, 5), ints(3, 17, 18, step), ints(-1, -1, -1)];
            expect(testKernel(device, "chooseToken", inputs, { temperature, seed: 12345 }, exact)).toEqual(["vulkan/decode/chooseToken"]);
          }
        }
      }
    });
  }

  test("advance moves state and history on, in a ring", () => {
    for (const step of [0, 2, 3, 11]) {
      const inputs = [{ dtype: dt.uint32, shape: [1], values: [77] }, ints(3, 17, 18, step), ints(-1, -2, -3)];
      expect(testKernel(device, "advance", inputs, {}, exact)).toEqual(["vulkan/decode/advance"]);
      const [token, state, history] = inputs.map(arrayOf) as [MxArray, MxArray, MxArray];
      checkDefinition("advance", inputs, {}, exact, advance(token, state, history));
    }
  });
  test("chooseToken takes the first of equal logits, and treats NaN as argmax does", () => {
    for (const values of [[1, 3, 3, 2], [Number.NaN, 3, 1, 2], [1, Number.NaN, 2, 0], new Array<number>(4).fill(Number.NEGATIVE_INFINITY)]) {
      expect(testKernel(device, "chooseToken", [{ dtype: dt.float32, shape: [4], values }, ints(0, 0, 1, 0), ints(0)], { temperature: 0, seed: 0 }, exact)).toHaveLength(1);
    }
  });
  for (const bits of [2, 3, 5, 6, 8]) {
    test(`${bits} bits: products`, () => {
      for (const groupSize of [32, 64, 128]) {
        const p = { bits, groupSize };
        const inputs = [floats(dt.bfloat16, [1, 384], 1), floats(dt.bfloat16, [1, 9], 2), ...matrix(dt.bfloat16, 9, 384, p, 3)];
        expect(testKernel(device, "projectAdd", inputs, { packings: [p], bias: false }, (tolerances[2] as (typeof tolerances)[number])[1])).toEqual(["vulkan/decode/projectAdd"]);
      }
      const p = { bits, groupSize: 64 };
      const inputs = [floats(dt.float32, [1, 192], 1), floats(dt.float32, [192], 2), ...matrix(dt.float32, 9, 192, p, 3)];
      expect(testKernel(device, "normProject", inputs, { eps: 0, packings: [p], bias: false }, (tolerances[0] as (typeof tolerances)[number])[1])).toEqual(["vulkan/decode/normProject"]);
    });
  }

  /** A product by a kernel with the grid of a large one: several rows at a time, several rounds. */
  function checkGrid(name: "normProject" | "normGateUp" | "projectAdd", inputs: readonly TestArray[], params: object, grid: { rows: number; groups: number }): void {
    const avals = inputs.map((a) => ({ shape: a.shape, dtype: a.dtype }));
    const outs = opNamed(name).infer(avals, params);
    const [want] = opNamed(name).reference?.(inputs.map(elementsOf), avals, params, outs) as [Float64Array];
    const [got] = runKernel(device, productKernel(name, grid), inputs, outs, params) as [Float64Array];
    const { relative, absolute } = (tolerances[2] as (typeof tolerances)[number])[1];
    want.forEach((y, j) => {
      const x = got[j] as number;
      if (!(Math.abs(x - y) <= absolute + relative * Math.abs(y))) throw new Error(`${name} ${JSON.stringify(grid)}: output[${j}] is ${x}, expected ${y}`);
    });
  }
  for (const p of [packed4, { bits: 8, groupSize: 32 }, null]) {
    test(`${p ? `${p.bits} bits` : "dense"}: several rows at a time in several rounds`, () => {
      // Blocks of a row all in flight, and more of them than that.
      for (const K of [192, 1088]) {
        const vectors = [floats(dt.bfloat16, [1, K], 1), floats(dt.bfloat16, [K], 2, 0.5, 1)];
        const rows = (...ns: number[]): TestArray[] => ns.flatMap((n, i) => matrix(dt.bfloat16, n, K, p, 3 + i));
        checkGrid("normProject", [...vectors, ...rows(281, 7, 9)], { eps: 1e-6, packings: [p, p, p], bias: false }, { rows: 4, groups: 1 });
        checkGrid("normGateUp", [...vectors, ...rows(141, 141)], { eps: 1e-6, packings: [p, p], bias: false }, { rows: 2, groups: 2 });
        checkGrid("projectAdd", [vectors[0] as TestArray, floats(dt.bfloat16, [1, 131], 2), ...rows(131)], { packings: [p], bias: false }, { rows: 2, groups: 1 });
      }
    });
  }
  test("a vector with an outlier keeps its small elements; one that is not finite gives NaN", () => {
    const values = Array.from({ length: 128 }, (_, i) => (i === 40 ? 300 : Math.sin(i)));
    const inputs = (x: number[]): TestArray[] => [{ dtype: dt.bfloat16, shape: [1, 128], values: x }, floats(dt.bfloat16, [1, 9], 2), ...matrix(dt.bfloat16, 9, 128, packed4, 3)];
    const params = { packings: [packed4], bias: false };
    testKernel(device, "projectAdd", inputs(values), params, { relative: 2 ** -7, absolute: 300 * 2 ** -15 });
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const [out] = runKernel(device, productKernel("projectAdd"), inputs(values.map((v, i) => (i === 77 ? bad : v))), [{ dtype: dt.bfloat16, shape: [1, 9] }], params) as [Float64Array];
      expect(out.every(Number.isNaN)).toBe(true);
    }
  });
});
