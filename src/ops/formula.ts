/** Formulas on plain numbers: what tests and MLX_CHECK compare kernels with. Real types only; nothing is rounded to float32. */
import { type Dtype, roundTo } from "../core/dtype.ts";
import { type Value, expr as e, reachable } from "../core/expr.ts";
import { erf, erfinv, roundEven } from "./special.ts";

type Plain = (a: number, b: number, c: number) => number;
const plain: Readonly<Record<string, Plain>> = {
  add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b, neg: (a) => -a, abs: Math.abs,
  min: (a, b) => Math.min(a, b), max: (a, b) => Math.max(a, b), pmin: (a, b) => (b < a ? b : a), pmax: (a, b) => (a < b ? b : a),
  sqrt: Math.sqrt, floor: Math.floor, ceil: Math.ceil, trunc: Math.trunc, round: roundEven,
  eq: (a, b) => Number(a === b), ne: (a, b) => Number(a !== b), lt: (a, b) => Number(a < b), le: (a, b) => Number(a <= b), gt: (a, b) => Number(a > b), ge: (a, b) => Number(a >= b),
  and: (a, b) => a & b, or: (a, b) => a | b, xor: (a, b) => a ^ b, not: (a) => Number(a === 0), select: (a, b, c) => (a ? b : c),
  exp: Math.exp, expm1: Math.expm1, log: Math.log, log1p: Math.log1p, log2: Math.log2, log10: Math.log10,
  sin: Math.sin, cos: Math.cos, tan: Math.tan, asin: Math.asin, acos: Math.acos, atan: Math.atan,
  sinh: Math.sinh, cosh: Math.cosh, tanh: Math.tanh, asinh: Math.asinh, acosh: Math.acosh, atanh: Math.atanh,
  erf, erfinv, sigmoid: (a) => 1 / (1 + Math.exp(-a)), atan2: (a, b) => Math.atan2(a, b), pow: (a, b) => a ** b,
};

/** Value of a formula of floats and truth values for the given inputs. */
export function interpret(value: Value, inputs: readonly number[]): number {
  const known = new Map<Value, number>();
  for (const v of reachable([value])) {
    const [a = 0, b = 0, c = 0] = v.args.map((x) => known.get(x) as number);
    if (v.op === "input") known.set(v, inputs[v.imm as number] as number);
    else if (v.op === "const") known.set(v, Number(v.imm));
    else if (v.op === "convert") known.set(v, v.type === "bool" ? Number(a !== 0) : a);
    else if (v.op === "narrow") known.set(v, roundTo(v.dtype as Dtype, a));
    else known.set(v, (plain[v.op] as Plain)(a, b, c));
  }
  return known.get(value) as number;
}

/** The formula with other values in the place of its inputs. */
export function substitute(value: Value, inputs: readonly Value[]): Value {
  const made = new Map<Value, Value>();
  for (const v of reachable([value])) made.set(v, v.op === "input" ? (inputs[v.imm as number] as Value) : rebuild(v, v.args.map((x) => made.get(x) as Value)));
  return made.get(value) as Value;
}
type Builder = Readonly<Record<string, (...args: readonly Value[]) => Value>>;
function rebuild(v: Value, args: readonly Value[]): Value {
  const [a, b, c] = args as [Value, Value, Value];
  if (v.op === "const") return v;
  if (v.op === "select") return e.select(a, b, c);
  if (v.op === "convert") return e.convert(a, v.type);
  if (v.op === "narrow") return e.narrow(a, v.dtype as Dtype);
  if (v.op in e) return ((e as unknown as Builder)[v.op] as (...x: readonly Value[]) => Value).call(e, ...args);
  return e.math(v.op as Parameters<typeof e.math>[0], a);
}

/** The inputs of a formula that is not applied to anything yet. */
export const placeholders = (count: number, dtype: Dtype): Value[] => Array.from({ length: count }, (_, i) => e.input(i, dtype));
