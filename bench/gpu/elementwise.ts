/** Generated elementwise kernels. They belong to no op's list of kernels, so each case has an op of its own made of its formula. */
import { elementwiseStep } from "../../src/codegen/elementwise-spirv.ts";
import { type Dtype, bfloat16, float32, roundTo, uint8 } from "../../src/core/dtype.ts";
import { type Value, expr as e } from "../../src/core/expr.ts";
import type { GpuKernel } from "../../src/core/gpu.ts";
import { defineOp } from "../../src/core/op.ts";
import { noRule } from "../../src/core/rules.ts";
import type { GpuCase, GpuInput } from "./harness.ts";

const none = noRule("an op of a benchmark");

interface Formula {
  readonly name: string;
  readonly shape: readonly number[];
  readonly inputs: readonly GpuInput[];
  readonly out: Dtype;
  readonly value: (...xs: readonly Value[]) => Value;
  /** The same on numbers. */
  readonly number: (...xs: readonly number[]) => number;
  readonly relative?: number;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
/** Strides over the whole shape of an input that is broadcast to it. */
const stridesOf = (x: { shape: readonly number[]; strides: readonly number[] }, shape: readonly number[]): number[] => {
  const lead = shape.length - x.shape.length;
  return shape.map((_, d) => (d < lead || x.shape[d - lead] === 1 ? 0 : (x.strides[d - lead] as number)));
};
/** Row-major index over the shape to the place in an input's block. */
function placeOf(x: GpuInput, shape: readonly number[], i: number): number {
  const strides = x.strides ?? x.shape.map((_, d) => sizeOf(x.shape.slice(d + 1)));
  const over = stridesOf({ shape: x.shape, strides }, shape);
  let [place, rest] = [x.offset ?? 0, i];
  for (let d = shape.length - 1; d >= 0; d--) {
    place += (rest % (shape[d] as number)) * (over[d] as number);
    rest = Math.floor(rest / (shape[d] as number));
  }
  return place;
}

/** A case of the full size, checked in full at a smaller one. */
function caseOf(f: Formula, small: Formula): GpuCase {
  const op = `bench ${f.name}`;
  const value = f.value(...f.inputs.map((x, i) => e.input(i, x.dtype)));
  const kernel: GpuKernel = {
    name: "vulkan/generated/elementwise",
    layout: ["any"],
    launch: (inputs, outputs, _params, device) => {
      const shape = (outputs[0] as { shape: readonly number[] }).shape;
      const aligned = [...inputs.map((v) => (v.offset * v.dtype.size) % 16 === 0), true];
      const step = elementwiseStep({ shape, inputs: inputs.map((v) => ({ dtype: v.dtype, strides: stridesOf(v, shape) })), outputs: [{ dtype: f.out, value }], expr: e }, device, aligned);
      if (typeof step === "string") throw new Error(step);
      return { steps: [step] };
    },
  };
  defineOp<{ readonly shape: readonly number[] }>({
    name: op,
    infer: (_, { shape }) => [{ shape: shape.slice(), dtype: f.out }],
    // The elements come row-major, whatever the strides.
    reference: (xs, avals, { shape }) => [Float64Array.from({ length: sizeOf(shape) }, (_, i) => f.number(...xs.map((x, k) => x[placeOf(avals[k] as GpuInput, shape, i)] as number)))],
    vjp: none,
    jvp: none,
    vmap: none,
    kernels: [],
    gpu: [kernel],
  });
  const bytes = f.out.size * sizeOf(f.shape) + f.inputs.reduce((n, x) => n + x.dtype.size * sizeOf(x.shape), 0);
  return {
    name: f.name, op, inputs: f.inputs, params: { shape: f.shape }, bytes,
    check: { inputs: small.inputs, params: { shape: small.shape } },
    expected: (xs, i) => f.number(...f.inputs.map((x, k) => (xs[k] as ArrayLike<number>)[placeOf(x, f.shape, i)] as number)),
    tolerance: { relative: f.relative ?? (f.out.size === 2 ? 2 ** -8 : 1e-6), absolute: 1e-7 },
  };
}

const cold = (dtype: Dtype, shape: readonly number[], more: Partial<GpuInput> = {}): GpuInput => ({ dtype, shape, cold: true, ...more });
const silu = (x: Value): Value => e.mul(x, e.math("sigmoid", x));
const siluNumber = (x: number): number => x / (1 + Math.exp(-x));
const addition = { value: (a: Value, b: Value) => e.add(a, b), number: (a: number, b: number) => a + b } as unknown as Pick<Formula, "value" | "number">;
const product = { value: (a: Value, b: Value) => e.mul(a, b), number: (a: number, b: number) => a * b } as unknown as Pick<Formula, "value" | "number">;
const identity = { value: (a: Value) => a, number: (a: number) => a } as unknown as Pick<Formula, "value" | "number">;
const gate = {
  value: (a: Value, b: Value) => e.mul(e.narrow(silu(a), bfloat16), b), number: (a: number, b: number) => roundTo(bfloat16, siluNumber(a)) * b, relative: 2 ** -7,
} as unknown as Pick<Formula, "value" | "number" | "relative">;

/** For x > 0: Abramowitz and Stegun 7.1.5, summed until nothing changes. */
function erf(x = 0): number {
  let [sum, term] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-18; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const formulas = (large: number, side: number): readonly Formula[] => [
  { name: "add float32 16M", shape: [large], inputs: [cold(float32, [large]), cold(float32, [large])], out: float32, ...addition },
  { name: "add bfloat16 16M", shape: [large], inputs: [cold(bfloat16, [large]), cold(bfloat16, [large])], out: bfloat16, ...addition },
  { name: "add bfloat16 16M, from an odd element", shape: [large], inputs: [cold(bfloat16, [large], { strides: [1], offset: 1 }), cold(bfloat16, [large])], out: bfloat16, ...addition },
  ...[1024, 4096, 12288, 1 << 17, 1 << 20].map((n): Formula => ({ name: `silu * mul bfloat16 ${n}`, shape: [n], inputs: [cold(bfloat16, [n]), cold(bfloat16, [n])], out: bfloat16, ...gate })),
  { name: "silu * mul bfloat16 16M", shape: [large], inputs: [cold(bfloat16, [large]), cold(bfloat16, [large])], out: bfloat16, ...gate },
  { name: "erf float32 16M", shape: [large], inputs: [cold(float32, [large], { range: [0.5, 2] })], out: float32, value: (a) => e.math("erf", a as Value), number: erf, relative: 1e-6 },
  { name: "cast bfloat16 to float32 16M", shape: [large], inputs: [cold(bfloat16, [large])], out: float32, ...identity },
  { name: "cast float32 to bfloat16 16M", shape: [large], inputs: [cold(float32, [large])], out: bfloat16, ...identity },
  {
    name: "greater uint8 16M", shape: [large], inputs: [cold(uint8, [large]), cold(uint8, [large])], out: uint8,
    value: (a, b) => e.select(e.gt(a as Value, b as Value), e.const("i32", 1), e.const("i32", 0)), number: (a = 0, b = 0) => (a > b ? 1 : 0),
  },
  { name: "add float32 4096^2 + row", shape: [side, side], inputs: [cold(float32, [side, side]), { dtype: float32, shape: [side] }], out: float32, ...addition },
  { name: "mul bfloat16 4096^2 * column", shape: [side, side], inputs: [cold(bfloat16, [side, side]), { dtype: bfloat16, shape: [side, 1] }], out: bfloat16, ...product },
  { name: "add float32 4096x4095 + row", shape: [side, side - 1], inputs: [cold(float32, [side, side - 1]), { dtype: float32, shape: [side - 1] }], out: float32, ...addition },
  { name: "add float32 4096^2 + transposed", shape: [side, side], inputs: [cold(float32, [side, side]), cold(float32, [side, side], { strides: [1, side] })], out: float32, ...addition },
  { name: "copy bfloat16 4096^2 transposed", shape: [side, side], inputs: [cold(bfloat16, [side, side], { strides: [1, side] })], out: bfloat16, ...identity },
  { name: "copy bfloat16 8x512x16x128, heads first", shape: [8, 16, 512, 128], inputs: [cold(bfloat16, [8, 16, 512, 128], { strides: [512 * 16 * 128, 128, 16 * 128, 1] })], out: bfloat16, ...identity },
];

const small = formulas(1 << 18, 512);
export const cases: readonly GpuCase[] = formulas(1 << 24, 4096).map((f, i) => caseOf(f, small[i] as Formula));
