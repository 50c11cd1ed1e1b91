/** MLX_DISABLE=wasm/generated: elementwise ops without compiled kernels give the same bits. */
import { afterEach, describe, expect, it } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { readBits } from "../src/core/array.ts";
import { core as mx } from "../src/index.ts";
import { setTracer } from "../src/schedule/run.ts";
import { build, randomSource, tensor } from "./helpers/check.ts";

// Both are ways of the CPU.
mx.setDefaultDevice("cpu");
afterEach(() => {
  delete process.env["MLX_DISABLE"];
  setTracer(undefined);
});

type Make = () => MxArray;
/** Bits of the result and the kernels that made it. */
function run(make: Make, disable: string): { bits: number[]; kernels: string[] } {
  process.env["MLX_DISABLE"] = disable;
  const kernels: string[] = [];
  setTracer({ recorded: (_, kernel) => kernels.push(kernel) });
  const y = mx.tidy(make);
  mx.eval(y);
  setTracer(undefined);
  const infinity = y.dtype === mx.float16 ? 0x7c00 : y.dtype === mx.bfloat16 ? 0x7f80 : Number.POSITIVE_INFINITY;
  // NaNs may differ in sign and payload; 16-bit floats come as integers.
  return { bits: Array.from(readBits(y.desc) as ArrayLike<number | bigint>, (b) => ((Number(b) & 0x7fff) > infinity ? Number.NaN : Number(b))), kernels };
}
function same(make: Make): void {
  const compiled = run(make, "");
  const interpreted = run(make, "wasm/generated");
  expect(compiled.kernels).toContain("wasm/generated");
  expect(interpreted.kernels).toContain("interpreter");
  expect(interpreted.kernels).not.toContain("wasm/generated");
  const wrong = compiled.bits.findIndex((b, i) => !Object.is(b, interpreted.bits[i]));
  if (wrong >= 0) throw new Error(`element ${wrong}: compiled ${compiled.bits[wrong]}, interpreted ${interpreted.bits[wrong]}`);
}

const special = [0, -0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-40, -1e-40, 3e38, -3e38, 1e10, -1e10, 2 ** 31, -(2 ** 31), 2 ** 63, 65504, 65520, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];
const random = randomSource(11);
const numbers = [...special, ...Array.from({ length: 100 }, () => (random() - 0.5) * 2 ** Math.floor(random() * 40 - 20))];
const floats = (dtype: mx.Dtype, layout?: "reversed" | "broadcast"): MxArray => build(tensor(layout === "broadcast" ? [3, numbers.length] : [numbers.length], { dtype, values: numbers, ...(layout && { layout }) }));
const integers = (dtype: mx.Dtype): MxArray => mx.array(Int32Array.from({ length: 120 }, (_, i) => (i < 8 ? (i - 3) * 7 : Math.floor((random() - 0.5) * 2 ** 32)))).astype(dtype);

describe("the interpreter gives the bits of compiled kernels", () => {
  for (const dtype of [mx.float32, mx.float16, mx.bfloat16, mx.float64]) {
    for (const name of ["exp", "log", "sin", "cos", "tanh", "erf", "sigmoid", "sqrt", "round", "floor", "abs", "negative", "expm1", "log1p", "arctan", "arcsinh", "square", "reciprocal", "sign"] as const) {
      it(`${name} ${dtype}`, () => {
        const x = floats(dtype);
        same(() => mx[name](x));
      });
    }
    for (const name of ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "remainder", "floorDivide", "logaddexp", "arctan2"] as const) {
      it(`${name} ${dtype}`, () => {
        const [x, y] = [floats(dtype), floats(dtype, "reversed")];
        same(() => mx[name](x, y));
      });
    }
  }
  const kinds = [mx.bool, mx.int8, mx.uint8, mx.int16, mx.uint16, mx.int32, mx.uint32, mx.int64, mx.uint64, mx.float16, mx.bfloat16, mx.float32, mx.float64];
  for (const from of kinds) {
    it(`casts from ${from}`, () => {
      const x = from.isInexact ? floats(from) : integers(from);
      for (const to of kinds) if (to !== from) same(() => x.astype(to));
    });
  }
  for (const dtype of kinds.filter((d) => d.isInteger)) {
    it(`integer arithmetic on ${dtype}`, () => {
      const [x, y] = [integers(dtype), integers(dtype)];
      for (const name of ["add", "subtract", "multiply", "floorDivide", "remainder", "maximum", "bitwiseAnd", "bitwiseXor", "less", "notEqual"] as const) same(() => mx[name](x, y));
      for (const name of ["leftShift", "rightShift"] as const) same(() => mx[name](x, mx.remainder(y, mx.array(7, dtype))));
      same(() => mx.negative(x));
    });
  }
  it("complex numbers, selection, broadcast and fused groups", () => {
    const z = mx.add(floats(mx.float32), mx.multiply(floats(mx.float32, "reversed"), mx.array({ re: 0, im: 1 } as never)));
    mx.eval(z);
    same(() => mx.multiply(z, mx.conjugate(z)));
    same(() => mx.abs(mx.exp(z)));
    const wide = floats(mx.float32, "broadcast");
    const row = floats(mx.bfloat16);
    same(() => mx.where(mx.greater(wide, row), mx.multiply(mx.exp(mx.negative(wide)), 2), mx.add(row, wide)));
  });
});
