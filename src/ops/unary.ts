/** Elementwise functions of one array. Each takes an array (or what can become one) and an optional stream, and keeps the shape. */
import type { Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { bool, toInexact } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Expr, MathOp, Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { add, divide, multiply, subtract } from "./binary.ts";
import { conjugate } from "./complex.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { unaryForms } from "./complex-forms.ts";
import { type Unary, type UnaryComplexForm, unary } from "./elementwise.ts";
import { erf as erf64, erfinv as erfinv64, roundEven } from "./special.ts";

/** The form for complex64, where there is one. */
const complexForm = (name: string): { complex?: UnaryComplexForm } => {
  const complex = (unaryForms as Readonly<Record<string, UnaryComplexForm>>)[name];
  return complex ? { complex } : {};
};
/** A mathematical function: float32 for integers and bool, else the operand's dtype. */
const math = (name: string, fn: Exclude<MathOp, "atan2" | "pow">, reference: (x: number) => number, derivative: (x: MxArray, y: MxArray) => MxArray): Unary =>
  unary(name, { result: "float", expr: (e, x) => e.math(fn, x), reference, derivative, ...complexForm(name) });
const like = (e: Expr, x: Value, value: number): Value => e.like(x, value);
const oneOrZero = (e: Expr, condition: Value, x: Value): Value => e.select(condition, like(e, x, 1), like(e, x, 0));

/** Absolute value; same dtype. */
export const abs = unary("abs", { expr: (e, x) => e.abs(x), reference: Math.abs, derivative: (x) => conjugate(sign(x)), complex: unaryForms.abs });
/** -a; same dtype, not for bool. Unsigned integers wrap. */
export const negative = unary("negative", { result: "number", expr: (e, x) => e.neg(x), reference: (x) => -x, derivative: () => -1, complex: unaryForms.negative });
/** -1, 0 or 1 with the sign of the element (0 for NaN); same dtype. */
export const sign = unary("sign", {
  derivative: "zero",
  expr: (e, x) => e.sub(oneOrZero(e, e.gt(x, like(e, x, 0)), x), oneOrZero(e, e.lt(x, like(e, x, 0)), x)),
  reference: (x) => Number(x > 0) - Number(x < 0),
  complex: unaryForms.sign,
});
/** 1 / a. */
export const reciprocal = unary("reciprocal", { result: "float", expr: (e, x) => e.div(like(e, x, 1), x), reference: (x) => 1 / x, derivative: (_x, y) => negative(square(y)), complex: unaryForms.reciprocal });
/** a * a; same dtype. */
export const square = unary("square", { expr: (e, x) => e.mul(x, x), reference: (x) => x * x, derivative: (x) => multiply(x, 2), complex: unaryForms.square });
/** Square root. */
export const sqrt = unary("sqrt", { result: "float", expr: (e, x) => e.sqrt(x), reference: Math.sqrt, derivative: (_x, y) => divide(0.5, y), complex: unaryForms.sqrt });
/** 1 / sqrt(a). */
export const rsqrt = unary("rsqrt", { result: "float", expr: (e, x) => e.div(like(e, x, 1), e.sqrt(x)), reference: (x) => 1 / Math.sqrt(x), derivative: (x, y) => multiply(divide(y, x), -0.5), complex: unaryForms.rsqrt });

/** e to the power a. */
export const exp = math("exp", "exp", Math.exp, (_x, y) => y);
/** exp(a) - 1, exact for small a. */
export const expm1 = math("expm1", "expm1", Math.expm1, (_x, y) => add(y, 1));
/** Natural logarithm. */
export const log = math("log", "log", Math.log, (x) => reciprocal(x));
/** Logarithm to base 2. */
export const log2 = math("log2", "log2", Math.log2, (x) => reciprocal(multiply(x, Math.LN2)));
/** Logarithm to base 10. */
export const log10 = math("log10", "log10", Math.log10, (x) => reciprocal(multiply(x, Math.LN10)));
/** log(1 + a), exact for small a. */
export const log1p = math("log1p", "log1p", Math.log1p, (x) => reciprocal(add(x, 1)));
/** Sine of an angle in radians. */
export const sin = math("sin", "sin", Math.sin, (x) => cos(x));
/** Cosine of an angle in radians. */
export const cos = math("cos", "cos", Math.cos, (x) => negative(sin(x)));
/** Tangent of an angle in radians. */
export const tan = math("tan", "tan", Math.tan, (_x, y) => add(square(y), 1));
/** Inverse sine in -pi/2 .. pi/2; NaN outside -1 .. 1. */
export const arcsin = math("arcsin", "asin", Math.asin, (x) => rsqrt(subtract(1, square(x))));
/** Inverse cosine in 0 .. pi; NaN outside -1 .. 1. */
export const arccos = math("arccos", "acos", Math.acos, (x) => negative(rsqrt(subtract(1, square(x)))));
/** Inverse tangent in -pi/2 .. pi/2. */
export const arctan = math("arctan", "atan", Math.atan, (x) => reciprocal(add(square(x), 1)));
/** Hyperbolic sine. */
export const sinh = math("sinh", "sinh", Math.sinh, (x) => cosh(x));
/** Hyperbolic cosine. */
export const cosh = math("cosh", "cosh", Math.cosh, (x) => sinh(x));
/** Hyperbolic tangent. */
export const tanh = math("tanh", "tanh", Math.tanh, (_x, y) => subtract(1, square(y)));
/** Inverse hyperbolic sine. */
export const arcsinh = math("arcsinh", "asinh", Math.asinh, (x) => rsqrt(add(square(x), 1)));
/** Inverse hyperbolic cosine; NaN below 1. */
export const arccosh = math("arccosh", "acosh", Math.acosh, (x) => (x.dtype.kind === "complex" ? reciprocal(multiply(sqrt(subtract(x, 1)), sqrt(add(x, 1)))) : rsqrt(subtract(square(x), 1))));
/** Inverse hyperbolic tangent; NaN outside -1 .. 1. */
export const arctanh = math("arctanh", "atanh", Math.atanh, (x) => reciprocal(subtract(1, square(x))));
/** Error function. */
export const erf = math("erf", "erf", erf64, (x) => multiply(exp(negative(square(x))), 2 / Math.sqrt(Math.PI)));
/** Inverse of the error function; infinite at -1 and 1, NaN beyond. */
export const erfinv = math("erfinv", "erfinv", erfinv64, (_x, y) => multiply(exp(square(y)), Math.sqrt(Math.PI) / 2));
/** 1 / (1 + exp(-a)). */
export const sigmoid = math("sigmoid", "sigmoid", (x) => 1 / (1 + Math.exp(-x)), (_x, y) => multiply(y, subtract(1, y)));
/** Radians to degrees. */
export const degrees = unary("degrees", { result: "float", expr: (e, x) => e.mul(x, like(e, x, 180 / Math.PI)), reference: (x) => x * (180 / Math.PI), derivative: () => 180 / Math.PI, complex: unaryForms.degrees });
/** Degrees to radians. */
export const radians = unary("radians", { result: "float", expr: (e, x) => e.mul(x, like(e, x, Math.PI / 180)), reference: (x) => x * (Math.PI / 180), derivative: () => Math.PI / 180, complex: unaryForms.radians });

/** Greatest integer that is not greater; same dtype. */
export const floor = unary("floor", { expr: (e, x) => e.floor(x), reference: Math.floor, derivative: "zero" });
/** Least integer that is not less; same dtype. */
export const ceil = unary("ceil", { expr: (e, x) => e.ceil(x), reference: Math.ceil, derivative: "zero" });

const roundOp = defineOp<{ decimals: number }>({
  name: "round",
  infer: ([a]) => {
    return [{ shape: (a as Aval).shape, dtype: (a as Aval).dtype }];
  },
  expr: (e, [x], { decimals }, out) => {
    if (out.dtype.kind === "complex") {
      const scaled = (part: Value): Value => e.mul(e.round(e.mul(part, e.like(part, 10 ** decimals))), e.like(part, 1 / 10 ** decimals));
      return e.complex(scaled(e.re(x as Value)), scaled(e.im(x as Value)));
    }
    if (decimals === 0) return e.round(x as Value);
    const v = e.cast(x as Value, toInexact(out.dtype));
    return e.cast(e.mul(e.round(e.mul(v, e.like(v, 10 ** decimals))), e.like(v, 1 / 10 ** decimals)), out.dtype);
  },
  vjp: "zero",
  jvp: "zero",
  vmap: "elementwise",
  reference: ([x], _avals, { decimals }) => [(x as Float64Array).map((v) => (decimals === 0 ? roundEven(v) : roundEven(v * 10 ** decimals) * (1 / 10 ** decimals)))],
  kernels: [],
});
/** Rounds to `decimals` digits behind the decimal point (negative: before it), halves to even; same dtype, both parts of complex64. Scales by 10^decimals as MLX does. */
export function round(a: ArrayLike, decimals?: number | StreamOrDevice | null, s?: StreamOrDevice | null): MxArray {
  const digits = decimals === undefined || decimals === null || isStreamOrDevice(decimals) ? 0 : decimals;
  if (!Number.isInteger(digits)) throw opError("round", `decimals must be an integer, got ${digits}`);
  return roundOp([toArray(a)], { decimals: digits }, s ?? (isStreamOrDevice(decimals) ? decimals : undefined))[0] as MxArray;
}

/** True where the element is NaN. */
export const isnan = unary("isnan", { result: "bool", expr: (e, x) => e.isNaN(x), reference: (x) => Number(Number.isNaN(x)), complex: unaryForms.isnan });
const infinity = Number.POSITIVE_INFINITY;
const isFloat = (x: Value): boolean => x.type === "f32" || x.type === "f64";
/** True where the element is infinite. */
export const isinf = unary("isinf", {
  result: "bool",
  expr: (e, x) => (isFloat(x) ? e.eq(e.abs(x), like(e, x, infinity)) : e.const("bool", false)),
  reference: (x) => Number(Math.abs(x) === infinity),
  complex: unaryForms.isinf,
});
/** True where the element is neither infinite nor NaN. */
export const isfinite = unary("isfinite", {
  result: "bool",
  expr: (e, x) => (isFloat(x) ? e.lt(e.abs(x), like(e, x, infinity)) : e.const("bool", true)),
  reference: (x) => Number(Number.isFinite(x)),
  complex: unaryForms.isfinite,
});
/** True where the element is positive infinity; complex numbers: where the real part is and the imaginary part is 0. */
export const isposinf = unary("isposinf", {
  result: "bool",
  expr: (e, x) => (isFloat(x) ? e.eq(x, like(e, x, infinity)) : e.const("bool", false)),
  reference: (x) => Number(x === infinity),
  complex: unaryForms.isposinf,
});
/** True where the element is negative infinity; complex numbers: where the real part is and the imaginary part is 0. */
export const isneginf = unary("isneginf", {
  result: "bool",
  expr: (e, x) => (isFloat(x) ? e.eq(x, like(e, x, -infinity)) : e.const("bool", false)),
  reference: (x) => Number(x === -infinity),
  complex: unaryForms.isneginf,
});
/** True where the element is 0 or false. */
export const logicalNot = unary("logicalNot", { result: "bool", expr: (e, x) => e.eq(x, like(e, x, 0)), reference: (x) => Number(x === 0), complex: unaryForms.logicalNot });
const invertOp = defineOp({
  name: "bitwiseInvert",
  infer: ([a]) => {
    const { shape, dtype } = a as Aval;
    if (!dtype.isInteger && dtype !== bool) throw opError("bitwiseInvert", `operand must be integer or bool, got ${dtype}`);
    return [{ shape, dtype }];
  },
  expr: (e, [x]) => e.not(x as Value),
  vjp: "zero",
  jvp: "zero",
  vmap: "elementwise",
  reference: ([x], [a]) => [(x as Float64Array).map((v) => ((a as Aval).dtype === bool ? 1 - v : -v - 1))],
  kernels: [],
});
/** All bits flipped, for integers; the other truth value for bool. */
export const bitwiseInvert: Unary = (a, s) => invertOp([toArray(a)], {}, s)[0] as MxArray;

const stopGradientOp = defineOp({
  name: "stopGradient",
  infer: ([a]) => [{ shape: (a as Aval).shape, dtype: (a as Aval).dtype }],
  view: (a) => ({ strides: a.strides, offset: a.offset }),
  reference: ([a]) => [a as Float64Array],
  vjp: "zero",
  jvp: "zero",
  vmap: "elementwise",
  kernels: [],
});
/** The same values; gradients do not flow through. */
export const stopGradient: Unary = (a, s) => stopGradientOp([toArray(a)], {}, s)[0] as MxArray;
