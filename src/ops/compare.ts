/** Comparisons: of elements (bool arrays) and of whole arrays (0-d bool). */
import type { Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { bool, promote, roundTo, toInexact } from "../core/dtype.ts";
import type { Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { sameShape } from "../core/shape.ts";
import { noteSizes, sizesCount } from "../core/sizes.ts";
import { binaryForms, closeForm } from "./complex-forms.ts";
import { type ArrayLike, promoteOperands, toArray } from "./convert.ts";
import { type C, binary, commonShape, expand, pairOf, partsOf } from "./elementwise.ts";
import { all } from "./reduce.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice | null | undefined;

/** a == b. */
export const equal = binary("equal", { result: "bool", expr: (e, x, y) => e.eq(x, y), reference: (x, y) => Number(x === y), complex: binaryForms.equal });
/** a != b. */
export const notEqual = binary("notEqual", { result: "bool", expr: (e, x, y) => e.ne(x, y), reference: (x, y) => Number(x !== y), complex: binaryForms.notEqual });
/** a < b. */
export const less = binary("less", { result: "bool", expr: (e, x, y) => e.lt(x, y), reference: (x, y) => Number(x < y), complex: binaryForms.less });
/** a <= b. */
export const lessEqual = binary("lessEqual", { result: "bool", expr: (e, x, y) => e.le(x, y), reference: (x, y) => Number(x <= y), complex: binaryForms.lessEqual });
/** a > b. */
export const greater = binary("greater", { result: "bool", expr: (e, x, y) => e.gt(x, y), reference: (x, y) => Number(x > y), complex: binaryForms.greater });
/** a >= b. */
export const greaterEqual = binary("greaterEqual", { result: "bool", expr: (e, x, y) => e.ge(x, y), reference: (x, y) => Number(x >= y), complex: binaryForms.greaterEqual });
/** True where both are true (not 0). */
export const logicalAnd = binary("logicalAnd", {
  result: "bool",
  expr: (e, x, y) => e.and(e.convert(x, "bool"), e.convert(y, "bool")),
  reference: (x, y) => Number(x !== 0 && y !== 0),
  complex: binaryForms.logicalAnd,
});
/** True where one is true (not 0). */
export const logicalOr = binary("logicalOr", {
  result: "bool",
  expr: (e, x, y) => e.or(e.convert(x, "bool"), e.convert(y, "bool")),
  reference: (x, y) => Number(x !== 0 || y !== 0),
  complex: binaryForms.logicalOr,
});
const nanEqual = binary("nanEqual", {
  result: "bool",
  expr: (e, x, y) => e.or(e.eq(x, y), e.and(e.isNaN(x), e.isNaN(y))),
  reference: (x, y) => Number(x === y || (Number.isNaN(x) && Number.isNaN(y))),
  complex: binaryForms.nanEqual,
});

interface Closeness {
  readonly rtol: number;
  readonly atol: number;
  readonly equalNan: boolean;
}
function closePairs(xs: readonly C[], ys: readonly C[], rtol: number, atol: number, equalNan: boolean): Float64Array {
  const close = ([a, b]: C, [c, d]: C): boolean =>
    (a === c && b === d) || (Number.isFinite(c + d) && Math.hypot(a - c, b - d) <= atol + rtol * Math.hypot(c, d)) || (equalNan && Number.isNaN(a + b) && Number.isNaN(c + d));
  return Float64Array.from(xs, (x, i) => Number(close(x, ys[i] as C)));
}
const iscloseOp = defineOp<Closeness>({
  name: "isclose",
  vjp: "zero",
  jvp: "zero",
  vmap: "elementwise",
  infer: ([a, b]) => {
    return [{ shape: commonShape("isclose", (a as Aval).shape, (b as Aval).shape), dtype: bool }];
  },
  expr: (e, [a, b], { rtol, atol, equalNan }, _out, [p, q]) => {
    const dtype = toInexact(promote((p as Aval).dtype, (q as Aval).dtype));
    if (dtype.kind === "complex") return closeForm(e, pairOf(e, a as Value), pairOf(e, b as Value), rtol, atol, equalNan);
    const [x, y] = [e.cast(a as Value, dtype), e.cast(b as Value, dtype)];
    const limit = e.add(e.like(x, atol), e.mul(e.like(x, rtol), e.abs(y)));
    const finite = e.lt(e.abs(y), e.like(x, Number.POSITIVE_INFINITY));
    const close = e.or(e.eq(x, y), e.and(finite, e.le(e.abs(e.sub(x, y)), limit)));
    return equalNan ? e.or(close, e.and(e.isNaN(x), e.isNaN(y))) : close;
  },
  reference: ([a, b], [p, q], { rtol, atol, equalNan }, [out]) => {
    const dtype = toInexact(promote((p as Aval).dtype, (q as Aval).dtype));
    if (dtype.kind === "complex") return [closePairs(partsOf(a as Float64Array, p as Aval, (out as Aval).shape), partsOf(b as Float64Array, q as Aval, (out as Aval).shape), rtol, atol, equalNan)];
    const xs = expand(a as Float64Array, (p as Aval).shape, (out as Aval).shape);
    const ys = expand(b as Float64Array, (q as Aval).shape, (out as Aval).shape);
    const close = (x: number, y: number): boolean =>
      x === y || (Number.isFinite(x) && Number.isFinite(y) && Math.abs(x - y) <= atol + rtol * Math.abs(y)) || (equalNan && Number.isNaN(x) && Number.isNaN(y));
    return [xs.map((x, i) => Number(close(roundTo(dtype, x), roundTo(dtype, ys[i] as number))))];
  },
  kernels: [],
});

/** True where |a - b| <= atol + rtol |b| (defaults 1e-5 and 1e-8), or both are the same infinity, or both are NaN and `equalNan` is set. */
export function isclose(a: ArrayLike, b: ArrayLike, rtol?: number | S, atol?: number | S, equalNan?: boolean | S, s?: S): MxArray {
  const p = promoteOperands("isclose", a, b);
  const params = { rtol: typeof rtol === "number" ? rtol : 1e-5, atol: typeof atol === "number" ? atol : 1e-8, equalNan: equalNan === true };
  return iscloseOp([p.a, p.b], params, s ?? [rtol, atol, equalNan].find(isStreamOrDevice))[0] as MxArray;
}
/** True when all elements are close: see isclose. A 0-d bool array. */
export function allclose(a: ArrayLike, b: ArrayLike, rtol?: number | S, atol?: number | S, equalNan?: boolean | S, s?: S): MxArray {
  return within(() => all(isclose(a, b, rtol, atol, equalNan, s), s ?? [rtol, atol, equalNan].find(isStreamOrDevice)));
}
/** True when the shapes and all elements are equal; NaN equals NaN only with `equalNan`. A 0-d bool array. */
export function arrayEqual(a: ArrayLike, b: ArrayLike, equalNan?: boolean | S, s?: S): MxArray {
  return within(() => {
    const p = promoteOperands("arrayEqual", a, b);
    noteSizes(sizesCount);
    if (!sameShape(p.a.desc.shape, p.b.desc.shape)) return toArray(false);
    const stream = s ?? (isStreamOrDevice(equalNan) ? equalNan : undefined);
    return all((equalNan === true ? nanEqual : equal)(p.a, p.b, stream), stream);
  });
}
