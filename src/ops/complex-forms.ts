/**
 * Formulas of elementwise functions on complex64: expressions over the pair (real part, imaginary part), and plain float64 references. Where float32 would lose
 * digits or overflow, expressions compute in float64. Branch cuts as in C99's Annex G; the inverse functions after W. Kahan, "Branch cuts for complex elementary
 * functions" (1987).
 */
import type { Expr, MathOp, Value } from "../core/expr.ts";
import type { BinaryComplexForm, C, Pair, UnaryComplexForm } from "./elementwise.ts";

const wide = (e: Expr, x: Value): Value => e.convert(x, "f64");
const single = (e: Expr, x: Value): Value => e.convert(x, "f32");
const wider = (e: Expr, [x, y]: Pair): Pair => [wide(e, x), wide(e, y)];
const singles = (e: Expr, [x, y]: Pair): Pair => [single(e, x), single(e, y)];
const fn = (e: Expr, name: Exclude<MathOp, "atan2" | "pow">, x: Value): Value => e.math(name, x);
const half = (e: Expr, x: Value): Value => e.mul(x, e.like(x, 0.5));
const normOf = (e: Expr, [x, y]: Pair): Value => e.add(e.mul(x, x), e.mul(y, y));
const isZero = (e: Expr, [x, y]: Pair): Value => e.and(e.eq(x, e.like(x, 0)), e.eq(y, e.like(y, 0)));
const infinite = (e: Expr, x: Value): Value => e.eq(e.abs(x), e.like(x, Number.POSITIVE_INFINITY));
const finite = (e: Expr, x: Value): Value => e.lt(e.abs(x), e.like(x, Number.POSITIVE_INFINITY));
/** |size| with the sign of f64 `sign`, that of a zero included. */
const copySign = (e: Expr, size: Value, sign: Value): Value =>
  e.bitcast(e.or(e.bitcast(e.abs(size), "i64"), e.and(e.bitcast(sign, "i64"), e.const("i64", -(1n << 63n)))), "f64");

/** Quotient in float64: nothing overflows. By 0: infinite or NaN as real numbers; a finite number by an infinite one: 0. */
function quotient(e: Expr, [a, b]: Pair, [c, d]: Pair): Pair {
  const norm = normOf(e, [c, d]);
  const zero = e.eq(norm, e.like(norm, 0));
  const vanishes = e.and(e.or(infinite(e, c), infinite(e, d)), e.and(finite(e, a), finite(e, b)));
  const part = (numerator: Value, over: Value): Value => e.select(vanishes, e.like(a, 0), e.select(zero, e.div(over, c), e.div(numerator, norm)));
  return [part(e.add(e.mul(a, c), e.mul(b, d)), a), part(e.sub(e.mul(b, c), e.mul(a, d)), b)];
}
/** Principal square root in float64. */
function root(e: Expr, [x, y]: Pair): Pair {
  const t = e.sqrt(half(e, e.add(e.sqrt(normOf(e, [x, y])), e.abs(x))));
  const other = e.select(e.eq(t, e.like(t, 0)), e.abs(y), e.div(e.abs(y), e.mul(t, e.like(t, 2))));
  const left = e.lt(x, e.like(x, 0));
  return [e.select(left, other, t), copySign(e, e.select(left, t, other), y)];
}
/** log |1 + shift| for shift given as (x, y) in float64: exact where |1 + shift| is near 1. */
function logSize(e: Expr, [x, y]: Pair): Value {
  const one = e.like(x, 1);
  const change = e.add(e.mul(x, e.add(x, e.like(x, 2))), e.mul(y, y));
  const plain = fn(e, "log", normOf(e, [e.add(x, one), y]));
  return half(e, e.select(e.lt(e.abs(change), e.like(x, 0.5)), fn(e, "log1p", change), plain));
}
function logarithm(e: Expr, [x, y]: Pair): Pair {
  // |x| and |y| in order: 1 is subtracted from the larger one.
  const [p, q] = [e.abs(x), e.abs(y)];
  const [high, low] = [e.max(p, q), e.min(p, q)];
  const near = logSize(e, [e.sub(high, e.like(x, 1)), low]);
  const norm = normOf(e, [x, y]);
  const around = e.and(e.gt(norm, e.like(x, 0.5)), e.lt(norm, e.like(x, 2)));
  return [e.select(around, near, half(e, fn(e, "log", norm))), e.atan2(y, x)];
}
function hyperbolicTangent(e: Expr, [x, y]: Pair): Pair {
  const limit = e.like(x, 40);
  const s = fn(e, "sinh", e.max(e.min(x, limit), e.neg(limit)));
  const t = fn(e, "tan", y);
  const one = e.like(x, 1);
  const beta = e.add(one, e.mul(t, t));
  const s2 = e.mul(s, s);
  const below = e.add(one, e.mul(beta, s2));
  return [e.div(e.mul(e.mul(beta, e.sqrt(e.add(one, s2))), s), below), e.div(t, below)];
}
/** sqrt(1 - z), sqrt(1 + z). */
const roots = (e: Expr, [x, y]: Pair): [Pair, Pair] => {
  const one = e.like(x, 1);
  return [root(e, [e.sub(one, x), e.neg(y)]), root(e, [e.add(one, x), y])];
};
/** Imaginary part of conj(p) q. */
const crossPart = (e: Expr, p: Pair, q: Pair): Value => e.sub(e.mul(p[0], q[1]), e.mul(p[1], q[0]));
function arcSine(e: Expr, z: Pair): Pair {
  const [minus, plus] = roots(e, z);
  const real = e.sub(e.mul(minus[0], plus[0]), e.mul(minus[1], plus[1]));
  return [e.atan2(z[0], real), fn(e, "asinh", crossPart(e, minus, plus))];
}
function arcCosine(e: Expr, z: Pair): Pair {
  const [minus, plus] = roots(e, z);
  const angle = e.atan2(minus[0], plus[0]);
  return [e.add(angle, angle), fn(e, "asinh", crossPart(e, plus, minus))];
}
function arcHyperbolicCosine(e: Expr, [x, y]: Pair): Pair {
  const one = e.like(x, 1);
  const [p, q] = [root(e, [e.sub(x, one), y]), root(e, [e.add(x, one), y])];
  const angle = e.atan2(p[1], q[0]);
  return [fn(e, "asinh", e.add(e.mul(p[0], q[0]), e.mul(p[1], q[1]))), e.add(angle, angle)];
}
function arcHyperbolicTangent(e: Expr, [x, y]: Pair): Pair {
  const one = e.like(x, 1);
  const [left, right] = [e.sub(one, x), e.add(one, x)];
  const size = fn(e, "log1p", e.div(e.mul(x, e.like(x, 4)), normOf(e, [left, y])));
  const angle = e.atan2(e.add(y, y), e.sub(e.mul(left, right), e.mul(y, y)));
  return [e.mul(size, e.like(x, 0.25)), half(e, angle)];
}

// references

const mul = ([a, b]: C, [c, d]: C): C => [a * c - b * d, a * d + b * c];
const add = ([a, b]: C, [c, d]: C): C => [a + c, b + d];
const div = ([a, b]: C, [c, d]: C): C => (c === 0 && d === 0 ? [a / c, b / c] : [(a * c + b * d) / (c * c + d * d), (b * c - a * d) / (c * c + d * d)]);
const scaled = ([a, b]: C, s: number): C => [a * s, b * s];
const exp = ([x, y]: C): C => [Math.exp(x) * Math.cos(y), y === 0 ? y : Math.exp(x) * Math.sin(y)];
const log = ([x, y]: C): C => [Math.log(Math.hypot(x, y)), Math.atan2(y, x)];
const sqrt = ([x, y]: C): C => {
  const [r, angle] = [Math.sqrt(Math.hypot(x, y)), Math.atan2(y, x) / 2];
  return [r * Math.cos(angle), r * Math.sin(angle)];
};
const tanh = (z: C): C => {
  const [p, q] = [exp(z), exp(scaled(z, -1))];
  return div(add(p, scaled(q, -1)), add(p, q));
};
/** f(i z) / i for odd f. */
const turned = (f: (z: C) => C) => ([x, y]: C): C => {
  const [a, b] = f([-y, x]);
  return [b, -a];
};
const turnedExpr = (f: (e: Expr, z: Pair) => Pair) => (e: Expr, [x, y]: Pair): Pair => {
  const [a, b] = f(e, [e.neg(y), x]);
  return [b, e.neg(a)];
};
const one: C = [1, 0];
const asin = (z: C): C => {
  const [a, b] = log(add(mul([0, 1], z), mul(sqrt(add(one, scaled(z, -1))), sqrt(add(one, z)))));
  return [b, -a];
};
const atanh = (z: C): C => scaled(add(log(add(one, z)), scaled(log(add(one, scaled(z, -1))), -1)), 0.5);

const form = (expr: UnaryComplexForm["expr"], reference: UnaryComplexForm["reference"]): UnaryComplexForm => ({ expr, reference });
/** A formula that is computed in float64. */
const wideForm = (f: (e: Expr, z: Pair) => Pair, reference: UnaryComplexForm["reference"]): UnaryComplexForm => form((e, z) => singles(e, f(e, wider(e, z))), reference);
const realForm = (expr: UnaryComplexForm["expr"], reference: UnaryComplexForm["reference"]): UnaryComplexForm => ({ real: true, expr, reference });
/** Both parts times a constant. */
const timesForm = (factor: number): UnaryComplexForm => form((e, [x, y]) => [e.mul(x, e.like(x, factor)), e.mul(y, e.like(y, factor))], (z) => scaled(z, factor));
const logTo = (base: number): UnaryComplexForm => {
  const factor = 1 / Math.log(base);
  return wideForm((e, z) => logarithm(e, z).map((v) => e.mul(v, e.like(v, factor))) as unknown as Pair, (z) => scaled(log(z), factor));
};
const math = (e: Expr, name: "sin" | "cos" | "sinh" | "cosh", x: Value): Value => fn(e, name, x);

/** Functions of one number, by the name of the op. */
export const unaryForms = {
  abs: realForm((e, z) => single(e, e.sqrt(normOf(e, wider(e, z)))), ([x, y]) => Math.hypot(x, y)),
  negative: form((e, [x, y]) => [e.neg(x), e.neg(y)], (z) => scaled(z, -1)),
  sign: wideForm(
    (e, z) => {
      const size = e.select(isZero(e, z), e.like(z[0], 1), e.sqrt(normOf(e, z)));
      return [e.div(z[0], size), e.div(z[1], size)];
    },
    ([x, y]) => (x === 0 && y === 0 ? [x, y] : [x / Math.hypot(x, y), y / Math.hypot(x, y)]),
  ),
  reciprocal: wideForm((e, z) => quotient(e, [e.like(z[0], 1), e.like(z[0], 0)], z), (z) => div(one, z)),
  square: form((e, [x, y]) => [e.sub(e.mul(x, x), e.mul(y, y)), e.mul(e.add(x, x), y)], (z) => mul(z, z)),
  sqrt: wideForm(root, sqrt),
  rsqrt: wideForm((e, z) => quotient(e, [e.like(z[0], 1), e.like(z[0], 0)], root(e, z)), (z) => div(one, sqrt(z))),
  exp: form(
    (e, [x, y]) => {
      const r = e.exp(x);
      return [e.mul(r, math(e, "cos", y)), e.select(e.eq(y, e.like(y, 0)), y, e.mul(r, math(e, "sin", y)))];
    },
    exp,
  ),
  log: wideForm(logarithm, log),
  log2: logTo(2),
  log10: logTo(10),
  log1p: wideForm((e, z) => [logSize(e, z), e.atan2(z[1], e.add(z[0], e.like(z[0], 1)))], ([x, y]) => log([1 + x, y])),
  sin: form((e, [x, y]) => [e.mul(math(e, "sin", x), math(e, "cosh", y)), e.mul(math(e, "cos", x), math(e, "sinh", y))], ([x, y]) => [Math.sin(x) * Math.cosh(y), Math.cos(x) * Math.sinh(y)]),
  cos: form((e, [x, y]) => [e.mul(math(e, "cos", x), math(e, "cosh", y)), e.neg(e.mul(math(e, "sin", x), math(e, "sinh", y)))], ([x, y]) => [Math.cos(x) * Math.cosh(y), -Math.sin(x) * Math.sinh(y)]),
  tan: wideForm(turnedExpr(hyperbolicTangent), turned(tanh)),
  sinh: form((e, [x, y]) => [e.mul(math(e, "sinh", x), math(e, "cos", y)), e.mul(math(e, "cosh", x), math(e, "sin", y))], ([x, y]) => [Math.sinh(x) * Math.cos(y), Math.cosh(x) * Math.sin(y)]),
  cosh: form((e, [x, y]) => [e.mul(math(e, "cosh", x), math(e, "cos", y)), e.mul(math(e, "sinh", x), math(e, "sin", y))], ([x, y]) => [Math.cosh(x) * Math.cos(y), Math.sinh(x) * Math.sin(y)]),
  tanh: wideForm(hyperbolicTangent, tanh),
  arcsin: wideForm(arcSine, asin),
  arccos: wideForm(arcCosine, (z) => add([Math.PI / 2, 0], scaled(asin(z), -1))),
  arctan: wideForm(turnedExpr(arcHyperbolicTangent), turned(atanh)),
  arcsinh: wideForm(turnedExpr(arcSine), turned(asin)),
  arccosh: wideForm(arcHyperbolicCosine, (z) => log(add(z, mul(sqrt(add(z, [-1, 0])), sqrt(add(z, one)))))),
  arctanh: wideForm(arcHyperbolicTangent, atanh),
  degrees: timesForm(180 / Math.PI),
  radians: timesForm(Math.PI / 180),
  isnan: realForm((e, [x, y]) => e.or(e.isNaN(x), e.isNaN(y)), ([x, y]) => Number(Number.isNaN(x) || Number.isNaN(y))),
  isinf: realForm((e, [x, y]) => e.or(infinite(e, x), infinite(e, y)), (z) => Number(z.some((v) => Math.abs(v) === Number.POSITIVE_INFINITY))),
  isposinf: realForm((e, [x, y]) => e.and(e.eq(x, e.like(x, Number.POSITIVE_INFINITY)), e.eq(y, e.like(y, 0))), ([x, y]) => Number(x === Number.POSITIVE_INFINITY && y === 0)),
  isneginf: realForm((e, [x, y]) => e.and(e.eq(x, e.like(x, Number.NEGATIVE_INFINITY)), e.eq(y, e.like(y, 0))), ([x, y]) => Number(x === Number.NEGATIVE_INFINITY && y === 0)),
  isfinite: realForm((e, [x, y]) => e.and(finite(e, x), finite(e, y)), (z) => Number(z.every(Number.isFinite))),
  logicalNot: realForm((e, [x]) => e.eq(x, e.like(x, 0)), ([x]) => Number(x === 0)),
} as const;

const before = (e: Expr, [a, b]: Pair, [c, d]: Pair, last: "lt" | "le"): Value => e.or(e.lt(a, c), e.and(e.eq(a, c), e[last](b, d)));
const precedes = ([a, b]: C, [c, d]: C): boolean => a < c || (a === c && b < d);
const same = ([a, b]: C, [c, d]: C): boolean => a === c && b === d;
const anyNaN = (z: C): boolean => z.some(Number.isNaN);
const choose = (e: Expr, condition: Value, x: Pair, y: Pair): Pair => [e.select(condition, x[0], y[0]), e.select(condition, x[1], y[1])];
const isNaNPair = (e: Expr, [x, y]: Pair): Value => e.or(e.isNaN(x), e.isNaN(y));
const equalPair = (e: Expr, x: Pair, y: Pair): Value => e.and(e.eq(x[0], y[0]), e.eq(x[1], y[1]));
const bothTrue = (e: Expr, x: Pair, y: Pair, op: "and" | "or"): Value => e[op](e.convert(x[0], "bool"), e.convert(y[0], "bool"));

function complexPower(e: Expr, z: Pair, w: Pair): Pair {
  const [size, angle] = logarithm(e, z);
  const [c, d] = w;
  const r = e.exp(e.sub(e.mul(c, size), e.mul(d, angle)));
  const turn = e.add(e.mul(d, size), e.mul(c, angle));
  const zero = e.like(c, 0);
  // 0 to the power 0 is 1, to a power with positive real part 0.
  const atZero = e.select(isZero(e, w), e.like(c, 1), e.select(e.gt(c, zero), zero, e.like(c, Number.NaN)));
  return choose(e, isZero(e, z), [atZero, e.select(e.eq(atZero, atZero), zero, atZero)], [e.mul(r, math(e, "cos", turn)), e.mul(r, math(e, "sin", turn))]);
}
function referencePower(z: C, w: C): C {
  if (z[0] !== 0 || z[1] !== 0) return exp(mul(w, log(z)));
  if (w[0] === 0 && w[1] === 0) return [1, 0];
  return w[0] > 0 ? [0, 0] : [Number.NaN, Number.NaN];
}

const binaryForm = (expr: BinaryComplexForm["expr"], reference: BinaryComplexForm["reference"]): BinaryComplexForm => ({ expr, reference });
const wideBinary = (f: (e: Expr, x: Pair, y: Pair) => Pair, reference: BinaryComplexForm["reference"]): BinaryComplexForm =>
  binaryForm((e, x, y) => singles(e, f(e, wider(e, x), wider(e, y))), reference);

/** Functions of two numbers, by the name of the op. Numbers are ordered by their real parts, then by their imaginary ones. Truth is a real part that is not 0. */
export const binaryForms = {
  add: binaryForm((e, [a, b], [c, d]) => [e.add(a, c), e.add(b, d)], add),
  subtract: binaryForm((e, [a, b], [c, d]) => [e.sub(a, c), e.sub(b, d)], ([a, b], [c, d]) => [a - c, b - d]),
  multiply: binaryForm((e, [a, b], [c, d]) => [e.sub(e.mul(a, c), e.mul(b, d)), e.add(e.mul(a, d), e.mul(b, c))], mul),
  divide: wideBinary(quotient, div),
  power: wideBinary(complexPower, referencePower),
  maximum: binaryForm((e, x, y) => choose(e, e.or(isNaNPair(e, x), before(e, y, x, "lt")), x, y), (x, y) => (anyNaN(x) || precedes(y, x) ? x : y)),
  minimum: binaryForm((e, x, y) => choose(e, e.or(isNaNPair(e, x), before(e, x, y, "lt")), x, y), (x, y) => (anyNaN(x) || precedes(x, y) ? x : y)),
  logaddexp: wideBinary(
    (e, x, y) => {
      const first = e.ge(x[0], y[0]);
      const [high, low] = [choose(e, first, x, y), choose(e, first, y, x)];
      const r = e.exp(e.sub(low[0], high[0]));
      const turn = e.sub(low[1], high[1]);
      const shift: Pair = [e.mul(r, math(e, "cos", turn)), e.mul(r, math(e, "sin", turn))];
      return [e.add(high[0], logSize(e, shift)), e.add(high[1], e.atan2(shift[1], e.add(shift[0], e.like(r, 1))))];
    },
    (x, y) => {
      const [high, low] = x[0] >= y[0] ? [x, y] : [y, x];
      return add(high, log(add([1, 0], exp(add(low, scaled(high, -1))))));
    },
  ),
  equal: binaryForm(equalPair, (x, y) => Number(same(x, y))),
  notEqual: binaryForm((e, x, y) => e.not(equalPair(e, x, y)), (x, y) => Number(!same(x, y))),
  less: binaryForm((e, x, y) => before(e, x, y, "lt"), (x, y) => Number(precedes(x, y))),
  lessEqual: binaryForm((e, x, y) => before(e, x, y, "le"), (x, y) => Number(precedes(x, y) || same(x, y))),
  greater: binaryForm((e, x, y) => before(e, y, x, "lt"), (x, y) => Number(precedes(y, x))),
  greaterEqual: binaryForm((e, x, y) => before(e, y, x, "le"), (x, y) => Number(precedes(y, x) || same(x, y))),
  logicalAnd: binaryForm((e, x, y) => bothTrue(e, x, y, "and"), (x, y) => Number(x[0] !== 0 && y[0] !== 0)),
  logicalOr: binaryForm((e, x, y) => bothTrue(e, x, y, "or"), (x, y) => Number(x[0] !== 0 || y[0] !== 0)),
  nanEqual: binaryForm(
    (e, x, y) => e.or(equalPair(e, x, y), e.and(isNaNPair(e, x), isNaNPair(e, y))),
    (x, y) => Number(same(x, y) || (anyNaN(x) && anyNaN(y))),
  ),
} as const;

/** |x - y| <= atol + rtol |y| in float64. */
export function closeForm(e: Expr, [a, b]: Pair, y: Pair, rtol: number, atol: number, equalNan: boolean): Value {
  const size = (z: Pair): Value => e.sqrt(normOf(e, wider(e, z)));
  const limit = e.add(e.const("f64", atol), e.mul(e.const("f64", rtol), size(y)));
  const close = e.or(equalPair(e, [a, b], y), e.and(e.and(finite(e, y[0]), finite(e, y[1])), e.le(size([e.sub(a, y[0]), e.sub(b, y[1])]), limit)));
  return equalNan ? e.or(close, e.and(isNaNPair(e, [a, b]), isNaNPair(e, y))) : close;
}
