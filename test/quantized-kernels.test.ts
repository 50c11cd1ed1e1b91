/** The quantized kernels alone, in both builds: launches of src/ops/quantized-launch.ts run on one thread against plain float64. */
import { describe, expect, it } from "vitest";
import type { View } from "../src/core/array.ts";
import { type Dtype, bfloat16, float16, float32, fromBfloat16Bits, fromFloat16Bits, roundTo, toBfloat16Bits, toFloat16Bits, uint32 } from "../src/core/dtype.ts";
import type { Launch, Pointer } from "../src/core/op.ts";
import { rowStrides, sizeOf } from "../src/core/shape.ts";
import { launchDequantize, launchGather, launchQmm, launchQmm16, launchQmmHalf, launchQmv, launchQmvRow, launchQuantize, launchQvm } from "../src/ops/quantized-launch.ts";
import { type Build, KernelBench, builds } from "./helpers/kernels.ts";

const widths = [2, 3, 4, 5, 6, 8];
const groupSizes = [32, 64, 128];
const floats = [float32, bfloat16, float16];

function randomSource(seed: number): () => number {
  let s = (seed * 2654435761) >>> 0 || 1;
  return () => {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    return (s >>> 0) / 2 ** 32;
  };
}
/** Values of a dtype, roughly normal. */
function normals(n: number, dtype: Dtype, seed: number, size = 1): Float64Array {
  const r = randomSource(seed);
  return Float64Array.from({ length: n }, () => roundTo(dtype, (r() + r() + r() + r() - 2) * 1.7 * size));
}

// ---- MLX's format, written plainly

/** Rounds to the nearest integer, halves to even. */
const rint = (x: number): number => {
  const f = Math.floor(x);
  return x - f > 0.5 || (x - f === 0.5 && f % 2 !== 0) ? f + 1 : f;
};
interface Quantized {
  q: number[];
  scales: number[];
  biases: number[];
}
function mlxQuantize(x: Float64Array, groupSize: number, bits: number): Quantized {
  const f = Math.fround;
  const bins = 2 ** bits - 1;
  const result: Quantized = { q: [], scales: [], biases: [] };
  for (let at = 0; at < x.length; at += groupSize) {
    const group = [...x.subarray(at, at + groupSize)];
    const max = Math.max(...group);
    const min = Math.min(...group);
    const mask = Math.abs(min) > Math.abs(max);
    let scale = Math.max(f(f(max - min) / bins), f(1e-7));
    if (!mask) scale = -scale;
    const edge = mask ? min : max;
    const q0 = rint(f(edge / scale));
    let bias = 0;
    if (q0 !== 0) {
      scale = f(edge / q0);
      bias = edge;
    }
    for (const v of group) result.q.push(Math.min(Math.max(rint(f(f(v - bias) / scale)), 0), bins));
    result.scales.push(scale);
    result.biases.push(bias);
  }
  return result;
}
/** Little-endian bit stream in 32-bit words. */
function pack(q: readonly number[], bits: number): Uint32Array {
  const words = new Uint32Array((q.length * bits) / 32);
  q.forEach((value, i) => {
    for (let b = 0; b < bits; b++) {
      const bit = i * bits + b;
      if ((value >> b) & 1) words[bit >> 5] = (words[bit >> 5] as number) | (1 << (bit & 31));
    }
  });
  return words;
}

// ---- running launches

function toBits(values: ArrayLike<number>, dtype: Dtype): Uint32Array | Uint16Array | Float32Array {
  if (dtype === uint32) return Uint32Array.from(values);
  if (dtype === float32) return Float32Array.from(values);
  return Uint16Array.from(values, dtype === bfloat16 ? toBfloat16Bits : toFloat16Bits);
}
function readValues(bench: KernelBench, at: number, n: number, dtype: Dtype): number[] {
  if (dtype === uint32) return [...bench.u32(at, n)];
  if (dtype === float32) return [...bench.f32(at, n)];
  return [...bench.u16(at, n)].map(dtype === bfloat16 ? fromBfloat16Bits : fromFloat16Bits);
}
interface Tensor {
  view: View;
  values: ArrayLike<number>;
}
const tensor = (shape: number[], dtype: Dtype, values: ArrayLike<number> = []): Tensor => ({
  view: { shape, dtype, strides: rowStrides(shape), offset: 0, size: sizeOf(shape), contiguous: true },
  values,
});
const benches = new Map<Build, KernelBench>();
function benchOf(build: Build): KernelBench {
  let b = benches.get(build);
  if (!b) benches.set(build, (b = new KernelBench("quantized", build)));
  return b;
}
const guard = 64;
/** Runs a launch, its units split in two uneven parts; checks that nothing is written behind the outputs. */
function runLaunch(build: Build, launch: Launch, inputs: Tensor[], outputs: Tensor[]): number[][] {
  const bench = benchOf(build);
  const put = (t: Tensor): number => bench.put(toBits(t.values, t.view.dtype));
  const at = { input: inputs.map(put), output: outputs.map((o) => bench.alloc(o.view.size * o.view.dtype.size + guard)), scratch: (launch.scratch ?? []).map((n) => bench.alloc(n + guard)) };
  for (const step of launch.steps) {
    const words = step.args.map((a) => (typeof a === "object" && "of" in a ? (at[a.of as "input"][(a as Pointer).index] as number) + (a as Pointer).bytes : a));
    const middle = Math.ceil(step.units / 3);
    const name = (step.entry as string).slice("quantized/".length);
    bench.run(name, words, 0, middle);
    if (middle < step.units) bench.run(name, words, middle, step.units);
  }
  const check = (address: number, bytes: number): void => expect(new Set(new Uint8Array(bench.memory.buffer, address + bytes, guard))).toEqual(new Set([0xaa]));
  outputs.forEach((o, i) => check(at.output[i] as number, o.view.size * o.view.dtype.size));
  (launch.scratch ?? []).forEach((n, i) => check(at.scratch[i] as number, n));
  return outputs.map((o, i) => readValues(bench, at.output[i] as number, o.view.size, o.view.dtype));
}

interface Weights {
  tensors: [Tensor, Tensor, Tensor];
  /** Unpacked, row-major. */
  values: Float64Array;
}
/** Random packed matrices; integers cover the whole range of the width. */
function weights(shape: number[], groupSize: number, bits: number, dtype: Dtype, seed: number): Weights {
  const n = sizeOf(shape);
  const r = randomSource(seed);
  const q = Array.from({ length: n }, () => Math.floor(r() * 2 ** bits));
  const scales = Float64Array.from({ length: n / groupSize }, () => roundTo(dtype, (0.3 + r()) * (r() < 0.5 ? 1 : -1) * 2 ** -bits));
  const biases = scales.map((s) => roundTo(dtype, -s * 2 ** (bits - 1) * (0.9 + 0.2 * r())));
  const last = shape[shape.length - 1] as number;
  const lead = shape.slice(0, -1);
  return {
    tensors: [
      tensor([...lead, (last * bits) / 32], uint32, pack(q, bits)),
      tensor([...lead, last / groupSize], dtype, scales),
      tensor([...lead, last / groupSize], dtype, biases),
    ],
    values: Float64Array.from(q, (v, i) => v * (scales[Math.floor(i / groupSize)] as number) + (biases[Math.floor(i / groupSize)] as number)),
  };
}
interface Exact {
  value: number;
  /** Sum of the weights' magnitudes times the largest magnitude of x: what an error relative to the largest x adds up to at worst. */
  size: number;
  /** The same for the terms scale * q and bias of a weight, which cancel; they are at most 1.5 here. */
  terms: number;
}
/** x [M, K] times the matrix at `from`, [N, K] or [K, N]. */
function product(x: Float64Array, w: Float64Array, [M, N, K]: [number, number, number], transpose: boolean, xFrom = 0, from = 0): Exact[] {
  const out: Exact[] = [];
  for (let m = 0; m < M; m++) {
    const row = x.subarray(xFrom + m * K, xFrom + (m + 1) * K);
    const largest = row.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
    for (let n = 0; n < N; n++) {
      let value = 0;
      let size = 0;
      for (let k = 0; k < K; k++) {
        const v = w[from + (transpose ? n * K + k : k * N + n)] as number;
        value += (row[k] as number) * v;
        size += largest * Math.abs(v);
      }
      out.push({ value, size, terms: 1.5 * largest * K });
    }
  }
  return out;
}
/**
 * Results against exact ones. The integers of a group are off by up to half a step, and a step is the group's largest value over 8191 or 2^20 - 1
 * (two and three planes of 8-bit weights; half of that for the others); float32 sums of groups add a few 2^-24; at last the result is rounded to its dtype.
 */
function expectClose(got: number[], want: Exact[], dtype: Dtype, bits = 8): void {
  const rounding = dtype === float32 ? 2 ** -24 : dtype === bfloat16 ? 2 ** -8 : 2 ** -11;
  const step = (dtype === float32 ? 2 ** -20 : 1 / 8191) / (bits === 8 ? 1 : 2);
  want.forEach(({ value, size, terms }, i) => {
    const error = Math.abs((got[i] as number) - value);
    const bound = 1.01 * rounding * Math.abs(value) + (step / 2 + 2e-7) * size + 2 ** -23 * terms;
    if (!(error <= bound)) expect({ i, got: got[i], want: value, error }).toEqual({ bound });
  });
}

const promoted = (a: Dtype, b: Dtype): Dtype => (a === b ? a : float32);
interface Case {
  M: number;
  N: number;
  K: number;
  groupSize: number;
  bits: number;
  x: Dtype;
  s: Dtype;
}
type Launcher = typeof launchQmv;
const launchQmmPaired: Launcher = (inputs, outputs, p) => launchQmmHalf(inputs, outputs, p, undefined, true);
/** Runs a product of the case in a build and returns results. */
function runProduct(build: Build, launcher: Launcher, c: Case, transpose: boolean): number[] {
  const { M, N, K, groupSize, bits } = c;
  const x = normals(M * K, c.x, M + N + K);
  const w = weights(transpose ? [N, K] : [K, N], groupSize, bits, c.s, bits + groupSize);
  const inputs = [tensor([M, K], c.x, x), ...w.tensors];
  const out = tensor([M, N], promoted(c.x, c.s));
  const launch = launcher(inputs.map((t) => t.view), [out.view], { transpose, groupSize, bits });
  const [got] = runLaunch(build, launch, inputs, [out]) as [number[]];
  expectClose(got, product(x, w.values, [M, N, K], transpose), out.view.dtype, bits);
  return got;
}

describe.each(builds)("%s build", (build) => {
  describe.each(widths)("%i bits", (bits) => {
    it.each(groupSizes)("quantizes groups of %i as MLX does", (groupSize) => {
      for (const dtype of floats) {
        const x = normals(7 * groupSize, dtype, bits, 3);
        x.fill(0, groupSize, 2 * groupSize);
        x.fill(roundTo(dtype, -1.3), 2 * groupSize, 3 * groupSize);
        for (let i = 3 * groupSize; i < 4 * groupSize; i++) x[i] = Math.abs(x[i] as number);
        for (let i = 4 * groupSize; i < 5 * groupSize; i++) x[i] = roundTo(dtype, 1e-9 * (x[i] as number));
        const want = mlxQuantize(x, groupSize, bits);
        const input = tensor([1, x.length], dtype, x);
        const outputs = [tensor([1, (x.length * bits) / 32], uint32), tensor([1, 7], dtype), tensor([1, 7], dtype)];
        const [packed, scales, biases] = runLaunch(build, launchQuantize([input.view], [], { groupSize, bits }), [input], outputs) as [number[], number[], number[]];
        expect(packed).toEqual([...pack(want.q, bits)]);
        expect(scales).toEqual(want.scales.map((v) => roundTo(dtype, v)));
        expect(biases.map((v) => v + 0)).toEqual(want.biases.map((v) => roundTo(dtype, v) + 0));
      }
    });

    it.each(groupSizes)("dequantizes groups of %i", (groupSize) => {
      for (const dtype of floats) {
        const w = weights([3, 2 * groupSize], groupSize, bits, dtype, 5);
        const out = tensor([3, 2 * groupSize], dtype);
        const [got] = runLaunch(build, launchDequantize(w.tensors.map((t) => t.view), [out.view], { groupSize, bits }), w.tensors, [out]) as [number[]];
        expectClose(got, [...w.values].map((value) => ({ value, size: Math.abs(value), terms: 1.5 })), dtype);
      }
    });

    it.each(groupSizes)("multiplies with transposed weights in groups of %i", (groupSize) => {
      for (const M of [1, 2, 3, 5, 8, 9, 33]) {
        for (const [x, s] of [[float32, float32], [bfloat16, bfloat16], [float16, float16], [bfloat16, float16], [float32, bfloat16]] as const) {
          const c: Case = { M, N: M === 5 ? 1 : 19, K: groupSize * (M % 4 === 1 ? 5 : 2), groupSize, bits, x, s };
          runProduct(build, launchQmv, c, true);
          const got = runProduct(build, launchQmm, c, true);
          if (build === "relaxed" && bits <= 4) expect(runProduct(build, launchQmm16, c, true)).toEqual(got);
          expect(runProduct(build, M % 2 ? launchQmmHalf : launchQmmPaired, c, true)).toEqual(got);
        }
      }
    });

    it.each(groupSizes)("multiplies with plain weights in groups of %i", (groupSize) => {
      for (const M of [1, 3, 9]) {
        for (const [x, s] of [[float32, float32], [bfloat16, bfloat16], [float16, float16], [float32, bfloat16]] as const) {
          for (const K of [1, 37, 150]) runProduct(build, launchQvm, { M, N: 3 * groupSize, K, groupSize, bits, x, s }, false);
        }
      }
    });

    it.each(groupSizes)("multiplies chosen matrices in groups of %i", (groupSize) => {
      const [E, B, N] = [5, 3, 2 * groupSize];
      for (const transpose of [true, false]) {
        for (const M of [1, 2]) {
          const K = 2 * groupSize;
          const x = normals(B * M * K, bfloat16, 3);
          const w = weights([E, N, K], groupSize, bits, bfloat16, 9);
          const [lhs, rhs] = [[0, 2, 2, 1, 0, 1], [4, 0, 4, 2, 4, 0]];
          const inputs = [tensor([B, M, K], bfloat16, x), ...w.tensors, tensor([2, 3], uint32, lhs), tensor([2, 3], uint32, rhs)];
          const out = tensor([2, 3, M, N], bfloat16);
          const launch = (transpose ? launchGather : launchQvm)(inputs.map((t) => t.view), [out.view], { transpose, groupSize, bits });
          const [got] = runLaunch(build, launch, inputs, [out]) as [number[]];
          const want = lhs.flatMap((l, i) => product(x, w.values, [M, N, K], transpose, l * M * K, (rhs[i] as number) * N * K));
          expectClose(got, want, bfloat16, bits);
        }
      }
    });

    it("survives extreme integers without overflow", () => {
      const groupSize = 128;
      for (const dtype of [float32, bfloat16]) {
        for (const sign of [1, -1]) {
          const [M, N, K] = [4, 8, 256];
          const x = new Float64Array(M * K).fill(sign * 3);
          const q = new Array<number>(N * K).fill(2 ** bits - 1);
          const groups = (N * K) / groupSize;
          const inputs = [tensor([M, K], dtype, x), tensor([N, (K * bits) / 32], uint32, pack(q, bits)), tensor([N, 2], dtype, new Array(groups).fill(0.5)), tensor([N, 2], dtype, new Array(groups).fill(0))];
          const out = tensor([M, N], dtype);
          const want = sign * 3 * K * 0.5 * (2 ** bits - 1);
          for (const launcher of [launchQmv, launchQmm, launchQmmHalf, launchQmmPaired, ...(build === "relaxed" && bits <= 4 ? [launchQmm16] : [])]) {
            const [got] = runLaunch(build, launcher(inputs.map((t) => t.view), [out.view], { transpose: true, groupSize, bits }), inputs, [out]) as [number[]];
            for (const v of got) expect(Math.abs(v / want - 1)).toBeLessThan(dtype === float32 ? 1e-6 : 2 ** -8);
          }
        }
      }
    });
  });

  it.skipIf(build === "plain").each(["Row", "Row16", "Pair16", "Pair32"] as const)("qmv%s: one row of 4 bits gives the bits of qmv, at extreme integers too", (kind) => {
    for (const groupSize of kind.startsWith("Pair") ? [64, 128] : groupSizes) {
      for (const dtype of [float32, bfloat16, float16]) {
        const [N, K] = [12, 4 * groupSize];
        const ones = tensor([N, K / groupSize], bfloat16, new Array((N * K) / groupSize).fill(1));
        const extreme = [tensor([N, K / 8], uint32, new Array((N * K) / 8).fill(0xffffffff)), ones, ones];
        const alternating = Float64Array.from({ length: K }, (_, i) => (i % 3 === 0 ? -3 : 3));
        for (const [x, w] of [[normals(K, dtype, 2), weights([N, K], groupSize, 4, bfloat16, 3).tensors], [new Float64Array(K).fill(3), extreme], [new Float64Array(K).fill(-3), extreme], [alternating, extreme]] as const) {
          const inputs = [tensor([1, K], dtype, x), ...w];
          const out = tensor([1, N], promoted(dtype, bfloat16));
          const run = (launcher: Launcher): number[] => runLaunch(build, launcher(inputs.map((t) => t.view), [out.view], { transpose: true, groupSize, bits: 4 }), inputs, [out])[0] as number[];
          const got = run(launchQmvRow(`quantized/qmv${kind}`));
          expect(got).toEqual(run(launchQmv));
          if (x[0] === 3) expect(got.every((v) => Math.abs(v / (3 * 16 * K) - 1) < 2 ** -8)).toBe(true);
        }
      }
    }
  });

  it("computes rows with infinities, NaN and tiny values as float32 would", () => {
    for (const [bits, groupSize] of [[4, 64], [8, 32], [3, 128], [2, 32], [6, 64], [5, 128]] as const) {
      for (const dtype of [float32, bfloat16]) {
        const [M, N, K] = [6, 11, 256];
        const x = normals(M * K, dtype, 11);
        x[K + 70] = Infinity;
        x[2 * K + 3] = NaN;
        x[3 * K + 9] = -Infinity;
        x[3 * K + 200] = Infinity;
        for (let k = 0; k < groupSize; k++) x[5 * K + k] = roundTo(dtype, (x[5 * K + k] as number) * 1e-30);
        const w = weights([N, K], groupSize, bits, dtype, 4);
        const inputs = [tensor([M, K], dtype, x), ...w.tensors];
        const out = tensor([M, N], dtype);
        const want = product(x, w.values, [M, N, K], true);
        for (const launcher of [launchQmv, launchQmm]) {
          const [got] = runLaunch(build, launcher(inputs.map((t) => t.view), [out.view], { transpose: true, groupSize, bits }), inputs, [out]) as [number[]];
          want.forEach((v, i) => {
            if (Number.isFinite(v.value)) expectClose([got[i] as number], [v], dtype, bits);
            else expect(got[i]).toBe(v.value);
          });
        }
      }
    }
  });

  it("accumulates bfloat16 in float32: under 4e-3 at K = 3072", () => {
    const c: Case = { M: 1, N: 64, K: 3072, groupSize: 128, bits: 4, x: bfloat16, s: bfloat16 };
    const got = runProduct(build, launchQmv, c, true);
    const x = normals(c.K, bfloat16, 1 + 64 + 3072);
    const want = product(x, weights([64, 3072], 128, 4, bfloat16, 132).values, [1, 64, 3072], true);
    const scale = Math.max(...want.map((v) => Math.abs(v.value)));
    expect(Math.max(...want.map((v, i) => Math.abs((got[i] as number) - v.value))) / scale).toBeLessThan(4e-3);
  });

  it("keeps float32: under 2e-6 of the largest result at K = 3072", () => {
    const c: Case = { M: 1, N: 64, K: 3072, groupSize: 64, bits: 4, x: float32, s: float32 };
    const got = runProduct(build, launchQmv, c, true);
    const want = product(normals(c.K, float32, 1 + 64 + 3072), weights([64, 3072], 64, 4, float32, 68).values, [1, 64, 3072], true);
    const scale = Math.max(...want.map((v) => Math.abs(v.value)));
    expect(Math.max(...want.map((v, i) => Math.abs((got[i] as number) - v.value))) / scale).toBeLessThan(2e-6);
  });
});

describe.runIf(builds.length === 2)("both builds", () => {
  it.each(widths)("give the same bits (%i-bit weights)", (bits) => {
    for (const groupSize of groupSizes) {
      for (const x of [float32, bfloat16]) {
        const c: Case = { M: 5, N: 21, K: 3 * groupSize, groupSize, bits, x, s: x };
        for (const launcher of [launchQmv, launchQmm]) expect(runProduct("plain", launcher, c, true)).toEqual(runProduct("relaxed", launcher, c, true));
      }
    }
  });
});
