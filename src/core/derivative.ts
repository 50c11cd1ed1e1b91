/** Derivatives of scalar expressions: reverse accumulation over the graph of a formula (Griewank and Walther, "Evaluating Derivatives", chapter 3). */
import { type Value, expr as e, isFloatType, reachable } from "./expr.ts";

/** Adds `g` to the adjoint of an argument. */
type Give = (arg: Value, g: Value) => void;
type Rule = (v: Value, g: Value, give: Give) => void;

const k = (v: Value, x: number): Value => e.like(v, x);
const zeroOf = (v: Value): Value => k(v, 0);
const arg = (v: Value, i = 0): Value => v.args[i] as Value;
/** Rule of a function of one argument from dy/dx, given x and y. */
const times = (d: (x: Value, y: Value) => Value): Rule => (v, g, give) => give(arg(v), e.mul(g, d(arg(v), v)));
/** Rule of a function of one argument from 1 / (dy/dx). */
const over = (d: (x: Value, y: Value) => Value): Rule => (v, g, give) => give(arg(v), e.div(g, d(arg(v), v)));
/** The cotangent goes to the argument that was chosen; to the second one where they are equal. */
const chosen = (first: (a: Value, b: Value) => Value): Rule => (v, g, give) => {
  const [a, b] = [arg(v, 0), arg(v, 1)];
  const c = first(a, b);
  give(a, e.select(c, g, zeroOf(g)));
  give(b, e.select(c, zeroOf(g), g));
};
const square = (x: Value): Value => e.mul(x, x);
const plus = (x: Value, c: number): Value => e.add(x, k(x, c));
const oneMinusSquare = (x: Value): Value => e.sub(k(x, 1), square(x));

const rules: Readonly<Record<string, Rule>> = {
  add: (v, g, give) => v.args.forEach((a) => give(a, g)),
  sub: (v, g, give) => {
    give(arg(v, 0), g);
    give(arg(v, 1), e.neg(g));
  },
  mul: (v, g, give) => {
    give(arg(v, 0), e.mul(g, arg(v, 1)));
    give(arg(v, 1), e.mul(g, arg(v, 0)));
  },
  div: (v, g, give) => {
    const q = e.div(g, arg(v, 1));
    give(arg(v, 0), q);
    give(arg(v, 1), e.neg(e.mul(q, v)));
  },
  neg: (v, g, give) => give(arg(v), e.neg(g)),
  abs: times((x) => e.select(e.lt(x, zeroOf(x)), k(x, -1), e.select(e.gt(x, zeroOf(x)), k(x, 1), zeroOf(x)))),
  min: chosen((a, b) => e.lt(a, b)),
  max: chosen((a, b) => e.gt(a, b)),
  pmin: chosen((a, b) => e.lt(a, b)),
  pmax: chosen((a, b) => e.gt(a, b)),
  sqrt: over((_, y) => e.add(y, y)),
  select: (v, g, give) => {
    give(arg(v, 1), e.select(arg(v, 0), g, zeroOf(g)));
    give(arg(v, 2), e.select(arg(v, 0), zeroOf(g), g));
  },
  convert: (v, g, give) => {
    if (isFloatType(arg(v).type)) give(arg(v), e.convert(g, arg(v).type));
  },
  // Rounding to a narrower type counts as the identity.
  narrow: (v, g, give) => give(arg(v), g),
  exp: times((_, y) => y),
  expm1: times((_, y) => plus(y, 1)),
  log: over((x) => x),
  log1p: over((x) => plus(x, 1)),
  log2: over((x) => e.mul(x, k(x, Math.LN2))),
  log10: over((x) => e.mul(x, k(x, Math.LN10))),
  sin: times((x) => e.math("cos", x)),
  cos: times((x) => e.neg(e.math("sin", x))),
  tan: times((_, y) => plus(square(y), 1)),
  asin: over((x) => e.sqrt(oneMinusSquare(x))),
  acos: over((x) => e.neg(e.sqrt(oneMinusSquare(x)))),
  atan: over((x) => plus(square(x), 1)),
  sinh: times((x) => e.math("cosh", x)),
  cosh: times((x) => e.math("sinh", x)),
  tanh: times((_, y) => oneMinusSquare(y)),
  asinh: over((x) => e.sqrt(plus(square(x), 1))),
  acosh: over((x) => e.sqrt(plus(square(x), -1))),
  atanh: over((x) => oneMinusSquare(x)),
  erf: times((x) => e.mul(k(x, 2 / Math.sqrt(Math.PI)), e.exp(e.neg(square(x))))),
  erfinv: times((_, y) => e.mul(k(y, Math.sqrt(Math.PI) / 2), e.exp(square(y)))),
  sigmoid: times((_, y) => e.mul(y, e.sub(k(y, 1), y))),
  atan2: (v, g, give) => {
    const [y, x] = [arg(v, 0), arg(v, 1)];
    const q = e.div(g, e.add(square(x), square(y)));
    give(y, e.mul(q, x));
    give(x, e.neg(e.mul(q, y)));
  },
  pow: (v, g, give) => {
    const [a, b] = [arg(v, 0), arg(v, 1)];
    give(a, e.mul(g, e.mul(b, e.pow(a, plus(b, -1)))));
    // a^b is constant in b at a = 0, where log(a) has no value.
    const zero = e.eq(a, zeroOf(a));
    give(b, e.select(zero, zeroOf(g), e.mul(g, e.mul(v, e.log(e.select(zero, k(a, 1), a))))));
  },
};
/** Constant almost everywhere, or not numbers. */
const flat = new Set(["input", "const", "floor", "ceil", "trunc", "round", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "quot", "rem", "shl", "shr"]);

/**
 * Partial derivatives of `value` by each of `inputs`, times `seed`. Undefined where `value` does not depend on an input in a differentiable way. Real floats only.
 */
export function derivatives(value: Value, inputs: readonly Value[], seed: Value): (Value | undefined)[] {
  const adjoint = new Map<Value, Value>([[value, seed]]);
  const give: Give = (a, g) => {
    if (!isFloatType(a.type)) return;
    const before = adjoint.get(a);
    adjoint.set(a, before ? e.add(before, g) : g);
  };
  // Arguments come before their users, so each adjoint is complete when its turn comes.
  for (const v of reachable([value]).reverse()) {
    const g = adjoint.get(v);
    if (!g || flat.has(v.op)) continue;
    const rule = rules[v.op];
    if (!rule) throw new Error(`${v.op} has no derivative`);
    rule(v, g, give);
  }
  return inputs.map((x) => adjoint.get(x));
}
