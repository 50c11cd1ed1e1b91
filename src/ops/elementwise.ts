/**
 * Makes elementwise ops from one line each. Inputs may have any shapes that broadcast together, and any dtypes: the formula converts
 * them, so that no copies or casts are put into the graph.
 */
import type { Aval, MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { type Dtype, bool, complex64, float32, promote, roundTo, toInexact, uint8 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Expr, Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import type { ForwardRule, ReverseRule } from "../core/rules.ts";
import { type Shape, broadcastShapes, rowStrides, sameShape, sizeOf } from "../core/shape.ts";
import { type ArrayLike, promoteOperands, toArray } from "./convert.ts";

type S = StreamOrDevice | null | undefined;
export type Unary = (a: ArrayLike, s?: S) => MxArray;
export type Binary = (a: ArrayLike, b: ArrayLike, s?: S) => MxArray;
type NoParams = Record<string, never>;
const none: NoParams = {};

/**
 * The dtype of the result for operands that promote to `d`: `same`: d; `float`: d, or float32 for integers and bool; `bool`: always bool;
 * `integer`: d, which must be an integer type or bool; `shift`: the same, with uint8 for bool; `number`: d, which must not be bool.
 */
export type ResultKind = "same" | "float" | "bool" | "integer" | "shift" | "number";

/** Results of truth values and bits: nothing is differentiated through them. */
type Discrete = "bool" | "integer" | "shift";
/** Rules of a function that is not differentiable as a complex one. */
interface OwnRules {
  readonly vjp: ReverseRule<NoParams>;
  readonly jvp: ForwardRule<NoParams>;
}
interface Spec {
  /** Default `same`. */
  readonly result?: ResultKind;
}
/** Derivative by an operand: an array that broadcasts to the result, or a number. */
type Derivative = (inputs: readonly MxArray[], output: MxArray) => MxArray | number;
/** Real and imaginary part: of an expression, of a number. */
export type Pair = readonly [Value, Value];
export type C = readonly [number, number];
/** A function on complex64. `real`: the result is float32 (or bool where the op's results are). */
export interface UnaryComplexForm {
  readonly real?: boolean;
  readonly expr: (e: Expr, z: Pair) => Pair | Value;
  readonly reference: (z: C) => C | number;
}
export interface BinaryComplexForm {
  readonly real?: boolean;
  readonly expr: (e: Expr, x: Pair, y: Pair) => Pair | Value;
  readonly reference: (x: C, y: C) => C | number;
}
/**
 * dy/dx from x and y, or "zero" where it is zero almost everywhere. For a real y of a complex z it is the d with dy = Re(d dz).
 */
type UnaryDerivative = ((x: MxArray, y: MxArray) => MxArray | number) | "zero" | OwnRules;
interface UnaryForms {
  /** Formula over the operand in its compute type (bool comes as integer 0 or 1). */
  readonly expr: (e: Expr, x: Value, dtype: Dtype) => Value;
  /** Plain number; integers and bool come as numbers. */
  readonly reference: (x: number, dtype: Dtype) => number;
  /** Form for complex64, which is refused without one. */
  readonly complex?: UnaryComplexForm;
}
export type UnarySpec = UnaryForms & ({ readonly result: Discrete } | { readonly result?: Exclude<ResultKind, Discrete>; readonly derivative: UnaryDerivative });
interface BinaryForms {
  readonly expr: (e: Expr, x: Value, y: Value, dtype: Dtype) => Value;
  readonly reference: (x: number, y: number, dtype: Dtype) => number;
  readonly complex?: BinaryComplexForm;
}

/** dz/dx and dz/dy from x, y and z (undefined: zero), or "zero". Operands come as they were given: not promoted, not broadcast. */
type BinaryPartials = readonly [BinaryDerivative | undefined, BinaryDerivative | undefined] | "zero";
export type BinarySpec = BinaryForms & ({ readonly result: Discrete } | { readonly result?: Exclude<ResultKind, Discrete>; readonly partials: BinaryPartials });

type BinaryDerivative = (x: MxArray, y: MxArray, z: MxArray) => MxArray | number;
/** Rules of an elementwise op from its derivatives. */
const rulesOf = (partials: readonly (Derivative | undefined)[] | "zero") =>
  partials === "zero" ? ({ vjp: "zero", jvp: "zero", vmap: "elementwise" } as const) : ({ vjp: { partials }, jvp: "vjp", vmap: "elementwise" } as const);
function unaryRules(spec: UnarySpec) {
  if (!("derivative" in spec)) return rulesOf("zero");
  const d = spec.derivative;
  if (typeof d === "object") return { ...d, vmap: "elementwise" } as const;
  return rulesOf(typeof d === "function" ? [([x], y) => d(x as MxArray, y)] : d);
}
function binaryRules(spec: BinarySpec) {
  if (!("partials" in spec) || spec.partials === "zero") return rulesOf("zero");
  return rulesOf(spec.partials.map((d) => d && (([x, y]: readonly MxArray[], z: MxArray) => d(x as MxArray, y as MxArray, z))));
}

/** Refuses complex64. */
export function requireReal(op: string, d: Dtype): void {
  if (d.kind === "complex") throw opError(op, `complex64 is not supported, got ${d}`);
}
function resultDtype(op: string, kind: ResultKind, d: Dtype, form?: { readonly real?: boolean }): Dtype {
  if (d.kind === "complex" && form) return kind === "bool" ? bool : form.real ? float32 : complex64;
  requireReal(op, d);
  switch (kind) {
    case "float": return toInexact(d);
    case "bool": return bool;
    case "integer":
    case "shift":
      if (!d.isInteger && d !== bool) throw opError(op, `operands must be integers or bool, got ${d}`);
      return kind === "shift" ? arithmeticDtype(d) : d;
    case "number":
      if (d === bool) throw opError(op, `bool is not supported, got ${d}`);
      return d;
    default: return d;
  }
}
/** Bool has no arithmetic: it is computed as 0 and 1. */
const arithmeticDtype = (d: Dtype): Dtype => (d === bool ? uint8 : d);
/** Dtype that operands are converted to. */
const computeDtype = (spec: Spec, d: Dtype): Dtype => (spec.result === "float" ? toInexact(d) : arithmeticDtype(d));
/** A formula's result in the type that the output is stored from. */
const finish = (e: Expr, v: Value, out: Dtype): Value => (out === bool ? e.convert(v, "bool") : v);

/** The parts of a complex value, of a real one with 0. */
export const pairOf = (e: Expr, x: Value): Pair => {
  const z = e.convert(x, "c64");
  return [e.re(z), e.im(z)];
};
const isPair = (v: Pair | Value): v is Pair => Array.isArray(v);
/** What a form gives, as one value. */
const joined = (e: Expr, v: Pair | Value): Value => (isPair(v) ? e.complex(v[0], v[1]) : v);

/** Real and imaginary parts of row-major values, broadcast to a shape: for references. */
export function partsOf(values: Float64Array, a: Aval, shape: Shape): C[] {
  const complex = a.dtype.kind === "complex";
  const re = expand(complex ? values.filter((_, i) => i % 2 === 0) : values.map((v) => roundTo(float32, v)), a.shape, shape);
  const im = complex ? expand(values.filter((_, i) => i % 2 === 1), a.shape, shape) : undefined;
  return Array.from(re, (v, i) => [v, im ? (im[i] as number) : 0] as const);
}
/** Interleaved parts where results are pairs. */
export const interleaved = (results: readonly (C | number)[]): Float64Array => Float64Array.from(results.flat());

/** Makes a function of one operand. The result has the operand's shape. */
export function unary(name: string, spec: UnarySpec): Unary {
  const kind = spec.result ?? "same";
  const apply = defineOp<NoParams>({
    name,
    infer: ([a]) => [{ shape: (a as Aval).shape, dtype: resultDtype(name, kind, (a as Aval).dtype, spec.complex) }],
    expr: (e, [x], _p, out, [a]) => {
      if (spec.complex && (a as Aval).dtype.kind === "complex") return joined(e, spec.complex.expr(e, pairOf(e, x as Value)));
      const d = computeDtype(spec, (a as Aval).dtype);
      return finish(e, spec.expr(e, e.cast(x as Value, d), d), out.dtype);
    },
    reference: ([x], [a]) => {
      if (spec.complex && (a as Aval).dtype.kind === "complex") return [interleaved(partsOf(x as Float64Array, a as Aval, (a as Aval).shape).map(spec.complex.reference))];
      const d = computeDtype(spec, (a as Aval).dtype);
      return [(x as Float64Array).map((v) => spec.reference(roundTo(d, v), d))];
    },
    ...unaryRules(spec),
    kernels: [],
  });
  return (a, s) => apply([toArray(a)], none, s)[0] as MxArray;
}

/** Makes a function of two operands, which are promoted and broadcast. */
export function binary(name: string, spec: BinarySpec): Binary {
  const kind = spec.result ?? "same";
  const apply = defineOp<NoParams>({
    name,
    infer: ([a, b]) => {
      const [x, y] = [a as Aval, b as Aval];
      return [{ shape: commonShape(name, x.shape, y.shape), dtype: resultDtype(name, kind, promote(x.dtype, y.dtype), spec.complex) }];
    },
    expr: (e, [x, y], _p, out, [a, b]) => {
      const d = computeDtype(spec, promote((a as Aval).dtype, (b as Aval).dtype));
      if (spec.complex && d.kind === "complex") return joined(e, spec.complex.expr(e, pairOf(e, x as Value), pairOf(e, y as Value)));
      return finish(e, spec.expr(e, e.cast(x as Value, d), e.cast(y as Value, d), d), out.dtype);
    },
    reference: ([x, y], [a, b], _p, [out]) => {
      const d = computeDtype(spec, promote((a as Aval).dtype, (b as Aval).dtype));
      if (spec.complex && d.kind === "complex") {
        const ys = partsOf(y as Float64Array, b as Aval, (out as Aval).shape);
        const { reference } = spec.complex;
        return [interleaved(partsOf(x as Float64Array, a as Aval, (out as Aval).shape).map((z, i) => reference(z, ys[i] as C)))];
      }
      const xs = expand(x as Float64Array, (a as Aval).shape, (out as Aval).shape);
      const ys = expand(y as Float64Array, (b as Aval).shape, (out as Aval).shape);
      return [xs.map((v, i) => spec.reference(roundTo(d, v), roundTo(d, ys[i] as number), d))];
    },
    ...binaryRules(spec),
    kernels: [],
  });
  return (a, b, s) => {
    const p = promoteOperands(name, a, b);
    return apply([p.a, p.b], none, s)[0] as MxArray;
  };
}

/** Shape that two shapes broadcast to. */
export const commonShape = (op: string, a: Shape, b: Shape): Shape => (sameShape(a, b) || b.length === 0 ? a : a.length === 0 ? b : broadcastShapes(op, a, b));

/** Row-major values of an operand over the shape it is broadcast to: for references. */
export function expand(values: Float64Array, from: Shape, to: Shape): Float64Array {
  if (sameShape(from, to)) return values;
  const strides = rowStrides(from);
  const steps = rowStrides(to);
  const lead = to.length - from.length;
  return Float64Array.from({ length: sizeOf(to) }, (_, i) => {
    let at = 0;
    for (let d = 0; d < from.length; d++) if (from[d] !== 1) at += (Math.floor(i / (steps[lead + d] as number)) % (from[d] as number)) * (strides[d] as number);
    return values[at] as number;
  });
}

