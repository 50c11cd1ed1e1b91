/** CPU kernels of the quantization into small floats, alone, in both builds: values, equal bits of the two builds, no writes outside of the outputs. */
import { describe, expect, it } from "vitest";
import type { View } from "../src/core/array.ts";
import { type Dtype, bfloat16, float16, float32, fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits, uint32, uint8 } from "../src/core/dtype.ts";
import type { Launch, Pointer } from "../src/core/op.ts";
import { rowStrides, sizeOf } from "../src/core/shape.ts";
import { packFloats } from "../src/ops/quantized-float.ts";
import { floatProductKernels, launchFloatDequantize, launchFloatQuantize } from "../src/ops/quantized-float-launch.ts";
import { randomSource } from "./helpers/check.ts";
import { type Build, KernelBench, builds } from "./helpers/kernels.ts";
import { type SmallMode, bitsOf, groupOf, multiply, smallModes, unpack } from "./helpers/small-floats.ts";

const floats = [float32, bfloat16, float16] as const;
interface Tensor {
  readonly view: View;
  readonly values: ArrayLike<number>;
}
const tensor = (shape: number[], dtype: Dtype, values: ArrayLike<number> = []): Tensor => ({ view: { shape, dtype, strides: rowStrides(shape), offset: 0, size: sizeOf(shape), contiguous: true }, values });
const rounded = (dtype: Dtype, x: number): number => (dtype === float32 ? Math.fround(x) : dtype === bfloat16 ? fromBfloat16Bits(toBfloat16Bits(x)) : fromFloat16Bits(toFloat16Bits(x)));
function bytesOf({ view: { dtype }, values }: Tensor): Uint8Array | Uint16Array | Uint32Array | Float32Array {
  if (dtype === uint32) return Uint32Array.from(values);
  if (dtype === uint8) return Uint8Array.from(values);
  if (dtype === float32) return Float32Array.from(values);
  return Uint16Array.from(values, dtype === bfloat16 ? toBfloat16Bits : toFloat16Bits);
}
function read(bench: KernelBench, at: number, { view: { dtype, size } }: Tensor): number[] {
  if (dtype === uint32) return [...bench.u32(at, size)];
  if (dtype === uint8) return [...new Uint8Array(bench.memory.buffer, at, size).slice()];
  if (dtype === float32) return [...bench.f32(at, size)];
  return [...bench.u16(at, size)].map(dtype === bfloat16 ? fromBfloat16Bits : fromFloat16Bits);
}
const benches = new Map<Build, KernelBench>();
function benchOf(build: Build): KernelBench {
  const bench = benches.get(build) ?? new KernelBench("quantfloat", build);
  benches.set(build, bench);
  return bench;
}
const guard = 64;
/** Runs a launch, its units in two uneven parts. */
function run(build: Build, launch: Launch, inputs: readonly Tensor[], outputs: readonly Tensor[]): number[][] {
  const bench = benchOf(build);
  const bytes = outputs.map((o) => o.view.size * o.view.dtype.size);
  const at = { input: inputs.map((t) => bench.put(bytesOf(t))), output: bytes.map((n) => bench.alloc(n + guard)), scratch: (launch.scratch ?? []).map((n) => bench.alloc(n + guard)) };
  for (const step of launch.steps) {
    const words = step.args.map((a) => (typeof a === "object" && "of" in a ? (at[a.of as "input"][(a as Pointer).index] as number) + (a as Pointer).bytes : a));
    const [name, middle] = [(step.entry as string).slice("quantfloat/".length), Math.ceil(step.units / 3)];
    bench.run(name, words, 0, middle);
    if (middle < step.units) bench.run(name, words, middle, step.units);
  }
  const untouched = (address: number): void => expect(new Set(new Uint8Array(bench.memory.buffer, address, guard))).toEqual(new Set([0xaa]));
  at.output.forEach((address, i) => untouched(address + (bytes[i] as number)));
  (launch.scratch ?? []).forEach((n, i) => untouched((at.scratch[i] as number) + n));
  return outputs.map((o, i) => read(bench, at.output[i] as number, o));
}
const numbers = (n: number, dtype: Dtype, seed: number): Float64Array => {
  const r = randomSource(seed);
  return Float64Array.from({ length: n }, () => rounded(dtype, (r() * 2 - 1) * 2 ** Math.floor(4 * r())));
};
interface Matrix {
  readonly inputs: [Tensor, Tensor];
  readonly values: Float64Array;
}
function matrix(shape: [number, number], mode: SmallMode, seed: number): Matrix {
  const packed: [number, number] = [shape[0], (shape[1] * bitsOf(mode)) / 32];
  const [words, scales] = packFloats(numbers(shape[0] * shape[1], float32, seed), packed, mode) as [Float64Array, Float64Array];
  return { inputs: [tensor(packed, uint32, words), tensor([shape[0], shape[1] / groupOf(mode)], uint8, scales)], values: unpack(words, scales, mode) };
}
const paramsOf = (mode: SmallMode, transpose: boolean) => ({ mode, transpose, groupSize: groupOf(mode), bits: bitsOf(mode) });
const kernelNamed = (name: string) => floatProductKernels.find((k) => k.name === `wasm/quantfloat/${name}`) as (typeof floatProductKernels)[number];

/** Result of a kernel on [M, K] and the matrix; compared with exact sums. */
function product(build: Build, name: string, mode: SmallMode, [M, N, K]: readonly [number, number, number], dtype: Dtype, x = numbers(M * K, dtype, M + K)): number[] {
  const transposed = name !== "qvm";
  const w = matrix(transposed ? [N, K] : [K, N], mode, N);
  const inputs = [tensor([M, K], dtype, x), ...w.inputs];
  const out = tensor([M, N], dtype);
  const [got] = run(build, kernelNamed(name).launch(inputs.map((t) => t.view), [out.view], paramsOf(mode, transposed)), inputs, [out]) as [number[]];
  // x's integers are off by half a step of their group's largest value; float32 sums add units of 2^-24; then the result is rounded.
  const step = name !== "qmv" || mode === "mxfp8" ? 0 : dtype === float32 ? 1 / (127 * 16384) : 1 / (127 * 128);
  const rounding = dtype === float32 ? 2 ** -24 : dtype === bfloat16 ? 2 ** -8 : 2 ** -11;
  multiply(x, 0, w.values, 0, [M, N, K], transposed).forEach(({ value, size, most }, i) => {
    if (!Number.isFinite(value)) return expect(got[i]).toBe(value);
    const bound = 1.01 * rounding * Math.abs(value) + (step / 2) * most + 2 ** -24 * (K / 4 + 8) * size + 1e-30;
    if (!(Math.abs((got[i] as number) - value) <= bound)) expect({ i, got: got[i], value }).toEqual({ bound });
  });
  return got;
}

describe.each(builds)("%s build", (build) => {
  describe.each(smallModes)("%s", (mode) => {
    const group = groupOf(mode);
    it("packs and unpacks groups", () => {
      for (const dtype of floats) {
        for (const global of mode === "nvfp4" ? [undefined, 2.5] : [undefined]) {
          const x = numbers(7 * group, dtype, 3);
          x.fill(0, group, 2 * group);
          for (let i = 2 * group; i < 3 * group; i++) x[i] = rounded(dtype, 1e-7 * (x[i] as number));
          const inputs = [tensor([1, x.length], dtype, x), ...(global === undefined ? [] : [tensor([1], float32, [global])])];
          const packed: [number, number] = [1, (x.length * bitsOf(mode)) / 32];
          const outputs = [tensor(packed, uint32), tensor([1, 7], uint8)];
          const [words, scales] = run(build, launchFloatQuantize(inputs.map((t) => t.view), [], paramsOf(mode, true)), inputs, outputs) as [number[], number[]];
          expect([words, scales]).toEqual(packFloats(x, packed, mode, global).map((a) => [...a]));
          const back = [tensor(packed, uint32, words), tensor([1, 7], uint8, scales), ...inputs.slice(1)];
          const out = tensor([1, x.length], dtype);
          const [values] = run(build, launchFloatDequantize(back.map((t) => t.view), [out.view], paramsOf(mode, true)), back, [out]) as [number[]];
          unpack(words, scales, mode, global).forEach((v, i) => expect(Math.abs((values[i] as number) - v)).toBeLessThanOrEqual((dtype === float32 ? 2e-7 : dtype === bfloat16 ? 2 ** -8 : 2 ** -11) * Math.abs(v) + (dtype === float16 ? 2 ** -24 : 0)));
        }
      }
    });
    it("multiplies with [N, K], few rows and many", () => {
      for (const dtype of floats) {
        for (const [M, N, K] of [[1, 1, group], [1, 19, 3 * group], [3, 5, 5 * group], [5, 8, 8 * group], [9, 33, 2 * group]] as const) {
          product(build, "qmv", mode, [M, N, K], dtype);
          product(build, "qmm", mode, [M, N, K], dtype);
        }
      }
    });
    it("multiplies with [K, N]", () => {
      for (const dtype of floats) for (const [M, N, K] of [[1, group, 1], [3, 3 * group, 37], [130, 2 * group, 150]] as const) product(build, "qvm", mode, [M, N, K], dtype);
    });
    it("computes rows with infinities, NaN and tiny values as float32 would", () => {
      const [M, N, K] = [5, 11, 96];
      const x = numbers(M * K, float32, 11);
      x[K + 70] = Infinity;
      x[2 * K + 3] = NaN;
      x[3 * K + 9] = -Infinity;
      for (let k = 0; k < 32; k++) x[4 * K + k] = Math.fround((x[4 * K + k] as number) * 1e-30);
      for (const name of ["qmv", "qmm"]) product(build, name, mode, [M, N, K], float32, x);
    });
  });
});

describe.runIf(builds.length === 2)("both builds", () => {
  it("give the same bits where integers are multiplied", () => {
    for (const mode of ["mxfp4", "nvfp4"] as const) for (const dtype of floats) expect(product("plain", "qmv", mode, [3, 21, 7 * groupOf(mode)], dtype)).toEqual(product("relaxed", "qmv", mode, [3, 21, 7 * groupOf(mode)], dtype));
  });
});
