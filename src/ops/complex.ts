/** Parts of complex arrays. */
import { type Aval, MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { complex64, float32 } from "../core/dtype.ts";
import type { Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { zerosLike } from "./creation.ts";
import { commonShape, expand, unary } from "./elementwise.ts";

type S = StreamOrDevice | null | undefined;
const isComplex = (a: MxArray): boolean => a.desc.dtype.kind === "complex";

const realPart = unary("real", { derivative: () => 1, expr: (_e, x) => x, reference: (x) => x, complex: { real: true, expr: (_e, [re]) => re, reference: ([re]) => re } });
const imaginaryPart = unary("imag", { derivative: () => toArray({ re: 0, im: -1 }), expr: (e, x) => e.like(x, 0), reference: () => 0, complex: { real: true, expr: (_e, [, im]) => im, reference: ([, im]) => im } });
const conjugateOp = unary("conjugate", { derivative: { vjp: ({ cotangents: [g] }) => [conjugate(g as MxArray)], jvp: "linear" }, expr: (_e, x) => x, reference: (x) => x, complex: { expr: (e, [re, im]) => [re, e.neg(im)], reference: ([re, im]) => [re, -im] } });

/** Real part: float32 for complex64; a real array as it is. */
export function real(a: ArrayLike, s?: S): MxArray {
  const x = toArray(a);
  return isComplex(x) ? realPart(x, s) : new MxArray(x.desc);
}
/** Imaginary part: float32 for complex64; zeros of the same dtype for a real array. */
export function imag(a: ArrayLike, s?: S): MxArray {
  const x = toArray(a);
  return isComplex(x) ? imaginaryPart(x, s) : zerosLike(x, s);
}
/** Complex conjugate: the imaginary part changes its sign; a real array as it is. */
export function conjugate(a: ArrayLike, s?: S): MxArray {
  const x = toArray(a);
  return isComplex(x) ? conjugateOp(x, s) : new MxArray(x.desc);
}
/** The same as `conjugate`. */
export const conj = conjugate;

const joinOp = defineOp({
  name: "complexFromParts",
  infer: ([a, b]) => [{ shape: commonShape("complexFromParts", (a as Aval).shape, (b as Aval).shape), dtype: complex64 }],
  expr: (e, [re, im]) => e.complex(e.cast(re as Value, float32), e.cast(im as Value, float32)),
  reference: ([re, im], [a, b], _p, [out]) => {
    const { shape } = out as Aval;
    const ys = expand(im as Float64Array, (b as Aval).shape, shape);
    return [Float64Array.from([...expand(re as Float64Array, (a as Aval).shape, shape)].flatMap((x, i) => [x, ys[i] as number]))];
  },
  vjp: ({ cotangents: [g] }) => [real(g as MxArray), imag(g as MxArray)],
  jvp: "linear",
  vmap: "elementwise",
  kernels: [],
});
/** complex64 from real and imaginary parts, which are real arrays. */
export const complexFromParts = (re: MxArray, im: MxArray, s?: S): MxArray => joinOp([re, im], {}, s)[0] as MxArray;
