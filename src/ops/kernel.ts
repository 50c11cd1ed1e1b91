/** mx.fast.kernel: elementwise kernels of the user's, written once as a formula; compiled for the CPU and the GPU, with gradients by the formula. */
import { type Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, bool, float32, float64, promote, toInexact } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Expr, type Value, computeType, expr as builder } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { derivatives } from "../core/derivative.ts";
import { interpret, placeholders, substitute } from "./formula.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { commonShape, expand, requireReal } from "./elementwise.ts";

/** A value inside a formula, or a number. */
export type Operand = Value | number;
type One = (x: Operand) => Value;
type Two = (x: Operand, y: Operand) => Value;

const ones = {
  negative: "neg", abs: "abs", sqrt: "sqrt", floor: "floor", ceil: "ceil", trunc: "trunc", round: "round",
  exp: "exp", expm1: "expm1", log: "log", log1p: "log1p", log2: "log2", log10: "log10", sin: "sin", cos: "cos", tan: "tan",
  arcsin: "asin", arccos: "acos", arctan: "atan", sinh: "sinh", cosh: "cosh", tanh: "tanh", arcsinh: "asinh", arccosh: "acosh", arctanh: "atanh",
  erf: "erf", erfinv: "erfinv", sigmoid: "sigmoid",
} as const;
const twos = {
  add: "add", subtract: "sub", multiply: "mul", divide: "div", minimum: "min", maximum: "max", power: "pow", arctan2: "atan2",
  equal: "eq", notEqual: "ne", less: "lt", lessEqual: "le", greater: "gt", greaterEqual: "ge", logicalAnd: "and", logicalOr: "or",
} as const;
/** Operations on elements, by MLX's names. Numbers may stand for operands, but not for all of them. */
export interface KernelMath extends Readonly<Record<keyof typeof ones, One>>, Readonly<Record<keyof typeof twos, Two>> {
  readonly square: One;
  readonly reciprocal: One;
  readonly rsqrt: One;
  readonly logicalNot: One;
  /** `x` where the condition holds, else `y`. */
  where(condition: Value, x: Operand, y: Operand): Value;
}

/** Numbers take the type of the other operand; a truth value beside a number counts as 0 or 1. */
function lift(name: string, xs: readonly Operand[]): Value[] {
  for (const x of xs) if (typeof x !== "number" && (typeof x !== "object" || x === null || !("op" in x))) throw opError("fast.kernel", `${name} takes values of the formula and numbers, got ${x === null ? "null" : typeof x}`);
  const values = xs.filter((x) => typeof x !== "number");
  const typed = values.find((x) => x.type !== "bool") ?? values[0];
  if (!typed) throw opError("fast.kernel", `${name} needs an operand that is not a number, got ${xs.join(", ")}`);
  return xs.map((x) => (typeof x === "number" ? builder.like(typed, x) : builder.convert(x, typed.type)));
}
const call = (op: string, args: readonly Value[]): Value => (op in builder ? (builder as unknown as Record<string, (...xs: readonly Value[]) => Value>)[op]?.(...args) : builder.math(op as "exp", args[0] as Value)) as Value;
const math = Object.freeze({
  ...Object.fromEntries(Object.entries(ones).map(([name, op]) => [name, (x: Operand) => call(op, lift(name, [x]))])),
  ...Object.fromEntries(Object.entries(twos).map(([name, op]) => [name, (x: Operand, y: Operand) => call(op, lift(name, [x, y]))])),
  square: (x: Value) => builder.mul(x, x),
  reciprocal: (x: Value) => builder.div(builder.like(x, 1), x),
  rsqrt: (x: Value) => builder.div(builder.like(x, 1), builder.sqrt(x)),
  logicalNot: (x: Value) => builder.not(x),
  where: (condition: Value, x: Operand, y: Operand) => {
    const [a, b] = lift("where", [x, y]);
    return builder.select(condition, a as Value, b as Value);
  },
}) as unknown as KernelMath;

export interface KernelSpec<I extends string = string, O extends string = string> {
  /** Shown in errors and by `mx.explain`. Default `kernel`. */
  readonly name?: string;
  /** Names of the inputs, in the order of the arguments. */
  readonly inputs: readonly I[];
  /** Names of the outputs, in the order of the results. */
  readonly outputs: readonly O[];
  /** Formula of one element: the outputs from the inputs. Runs once per type that it is compiled for, so it must not have other effects. */
  readonly expr: (x: Readonly<Record<I, Value>>, math: KernelMath) => Readonly<Record<O, Value>>;
}

/** Formulas of the outputs over placeholders, by the type that is computed in. */
interface Definition {
  readonly name: string;
  readonly inputs: number;
  build(dtype: Dtype): readonly Value[];
  readonly partials: Definition[];
}
function define(name: string, inputs: number, build: (xs: readonly Value[], dtype: Dtype) => readonly Value[]): Definition {
  const built = new Map<Dtype, readonly Value[]>();
  return {
    name,
    inputs,
    partials: [],
    build(dtype) {
      const old = built.get(dtype) ?? build(placeholders(inputs, dtype), dtype);
      built.set(dtype, old);
      return old;
    },
  };
}
/** The kernel that gives the cotangents of all inputs from the inputs and the cotangent of output `index`. */
function partialsOf(d: Definition, index: number): Definition {
  const old = d.partials[index];
  if (old) return old;
  const made = define(`${d.name}.gradient`, d.inputs + 1, (xs, dtype) => {
    const values = placeholders(d.inputs, dtype);
    const zero = builder.const(computeType(dtype), 0);
    return derivatives(d.build(dtype)[index] as Value, values, xs[d.inputs] as Value).map((v) => v ?? zero);
  });
  d.partials[index] = made;
  return made;
}

interface Params {
  readonly definition: Definition;
  readonly output: number;
}
const typeOf = (inputs: readonly Aval[]): Dtype => toInexact(inputs.map((a) => a.dtype).reduce(promote));
const computed = (d: Dtype): Dtype => (d === float64 ? float64 : float32);
const formula = (p: Params, dtype: Dtype): Value => p.definition.build(computed(dtype))[p.output] as Value;

const kernelOp = defineOp<Params>({
  name: "fast.kernel",
  infer(inputs, p) {
    const dtype = typeOf(inputs);
    const shape = inputs.map((a) => a.shape).reduce((a, b) => commonShape(p.definition.name, a, b));
    return [{ shape, dtype: formula(p, dtype).type === "bool" ? bool : dtype }];
  },
  expr(e: Expr, xs, p, _out, inputs) {
    const dtype = typeOf(inputs);
    return substitute(formula(p, dtype), xs.map((x) => e.cast(x, computed(dtype))));
  },
  reference(xs, avals, p, [out]) {
    const { shape } = out as Aval;
    const columns = xs.map((x, i) => expand(x, (avals[i] as Aval).shape, shape));
    const value = p.definition.build(float64)[p.output] as Value;
    return [Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => interpret(value, columns.map((c) => c[i] as number)))];
  },
  vjp: ({ inputs, cotangents, params, needs, apply }) => {
    const definition = partialsOf(params.definition, params.output);
    return inputs.map((_, i) => (needs[i] ? apply([...inputs, cotangents[0] as MxArray], { definition, output: i })[0] : undefined));
  },
  jvp: "vjp",
  vmap: "elementwise",
  kernels: [],
});

/** The outputs by name, checked. */
function outputsOf<I extends string, O extends string>(name: string, spec: KernelSpec<I, O>, xs: readonly Value[]): Value[] {
  const made = spec.expr(Object.fromEntries(spec.inputs.map((n, i) => [n, xs[i]])) as Record<I, Value>, math) as Record<string, Value>;
  if (typeof made !== "object" || made === null) throw opError(name, `the formula must return its outputs by name, got ${made === null ? "null" : typeof made}`);
  for (const n of Object.keys(made)) if (!spec.outputs.includes(n as O)) throw opError(name, `the formula returns only its outputs (${spec.outputs.join(", ")}), got ${n}`);
  return spec.outputs.map((n) => {
    const v = made[n];
    if (typeof v !== "object" || v === null || !("op" in v)) throw opError(name, `output ${n} must be a value of the formula, got ${v === null ? "null" : typeof v}`);
    return v;
  });
}

/** A kernel: takes one array or number per input and, at the end, a stream or device. Gives one array, or a list where there are several outputs. */
export type KernelFunction = (...args: (ArrayLike | StreamOrDevice | null | undefined)[]) => MxArray | MxArray[];

/**
 * Makes an elementwise function out of the formula of one element. The same formula is compiled to WebAssembly for the CPU and to SPIR-V for the GPU, is fused with
 * the ops around it, and is differentiated (any order) by its own graph; `vmap` and `compile` work as with other ops.
 *
 * Inputs broadcast together and may have any real dtypes; the formula computes in float32 (float64 where an input is float64), and results have the dtype that the
 * inputs promote to (float32 for integers), or bool for truth values. Throws when the formula does not return every output, and, at call time, for shapes that do
 * not broadcast, complex64 or another number of arguments.
 *
 *     const swiglu = mx.fast.kernel({ inputs: ["x", "gate"], outputs: ["y"], expr: ({ x, gate }, m) => ({ y: m.multiply(m.multiply(gate, m.sigmoid(gate)), x) }) });
 *     const y = swiglu(a, b);
 */
export function kernel<I extends string, O extends string>(spec: KernelSpec<I, O>): KernelFunction {
  const name = spec.name ?? "kernel";
  if (spec.inputs.length === 0 || spec.outputs.length === 0) throw opError(name, `needs at least one input and one output, got ${spec.inputs.length} and ${spec.outputs.length}`);
  const definition = define(name, spec.inputs.length, (xs) => outputsOf(name, spec, xs));
  // Mistakes in the formula show where it is written.
  definition.build(float32);
  return (...args) => {
    const last = args[args.length - 1];
    const stream = args.length > spec.inputs.length && (last === undefined || last === null || isStreamOrDevice(last)) ? (last as StreamOrDevice | undefined | null) : undefined;
    const given = args.length > spec.inputs.length ? args.slice(0, -1) : args;
    if (given.length !== spec.inputs.length || (args.length > spec.inputs.length && last !== undefined && last !== null && !stream)) throw opError(name, `takes ${spec.inputs.length} arguments (${spec.inputs.join(", ")}), got ${args.length}`);
    const arrays = operands(name, given as readonly ArrayLike[]);
    const results = spec.outputs.map((_, output) => kernelOp(arrays, { definition, output }, stream)[0] as MxArray);
    return results.length === 1 ? (results[0] as MxArray) : results;
  };
}

/** Numbers take the dtype of the arrays beside them where that is a float. */
function operands(name: string, args: readonly ArrayLike[]): MxArray[] {
  const beside = args.find((a): a is MxArray => a instanceof MxArray && a.dtype.isInexact)?.dtype;
  return args.map((a) => {
    if (a === undefined || a === null) throw opError(name, `an argument is missing, got ${a}`);
    const made = a instanceof MxArray ? a : typeof a === "number" ? toArray(a, beside ?? float32) : toArray(a);
    requireReal(name, made.dtype);
    return made;
  });
}
