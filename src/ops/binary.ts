/** Elementwise arithmetic of two arrays, which are promoted to one dtype and broadcast to one shape. JS numbers take the array's float dtype. */
import { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import type { Dtype } from "../core/dtype.ts";
import type { Expr, Value } from "../core/expr.ts";
import { astype } from "./cast.ts";
import { equal, greater, greaterEqual, less, lessEqual } from "./compare.ts";
import { binaryForms } from "./complex-forms.ts";
import type { ArrayLike } from "./convert.ts";
import { type Binary, binary } from "./elementwise.ts";
import { where } from "./select.ts";
import { within } from "./scope.ts";
import { exp, log, negative, reciprocal, sigmoid, square, stopGradient } from "./unary.ts";

/** a + b; for bool, logical or. */
export const add = binary("add", { expr: (e, x, y) => e.add(x, y), reference: (x, y) => x + y, partials: [() => 1, () => 1], complex: binaryForms.add });
/** a - b; unsigned integers wrap. */
export const subtract = binary("subtract", { expr: (e, x, y) => e.sub(x, y), reference: (x, y) => x - y, partials: [() => 1, () => -1], complex: binaryForms.subtract });
/** a * b; for bool, logical and. */
export const multiply = binary("multiply", {
  partials: [(_x, y) => y, (x) => x],
  expr: (e, x, y) => e.mul(x, y),
  reference: (x, y, d) => (d.isInteger && d.size < 8 ? Math.imul(x, y) : x * y),
  complex: binaryForms.multiply,
});
/** a / b; float32 for integers. */
export const divide = binary("divide", { result: "float", expr: (e, x, y) => e.div(x, y), reference: (x, y) => x / y, partials: [(_x, y) => reciprocal(y), (_x, y, z) => negative(divide(z, y))], complex: binaryForms.divide });

/** Quotient of integers rounded down, and the remainder with the sign of the divisor; both 0 for a divisor of 0. */
function floorQuotient(e: Expr, x: Value, y: Value): { quotient: Value; remainder: Value } {
  const zero = e.like(x, 0);
  const q = e.quot(x, y);
  const r = e.sub(x, e.mul(q, y));
  const away = e.and(e.ne(r, zero), e.xor(e.lt(r, zero), e.lt(y, zero)));
  const none = e.eq(y, zero);
  return {
    quotient: e.select(none, zero, e.select(away, e.sub(q, e.like(x, 1)), q)),
    remainder: e.select(none, zero, e.select(away, e.add(r, y), r)),
  };
}
/** The upper 26 bits of a float64's mantissa, and the rest. */
function split(e: Expr, x: Value): [Value, Value] {
  const high = e.bitcast(e.and(e.bitcast(x, "i64"), e.const("i64", -(1n << 27n))), "f64");
  return [high, e.sub(x, high)];
}
/** Python's % of floats, exact while |x / y| < 2^53: x - trunc(x / y) y in float64, with the rounding error of the product (T. J. Dekker, 1971). */
function floatRemainder(e: Expr, x: Value, y: Value): Value {
  const a = e.convert(x, "f64");
  const b = e.convert(y, "f64");
  const zero = e.const("f64", 0);
  const infinity = e.const("f64", Number.POSITIVE_INFINITY);
  const q = e.trunc(e.div(a, b));
  const product = e.mul(q, b);
  const [qh, ql] = split(e, q);
  const [bh, bl] = split(e, b);
  const error = e.add(e.add(e.add(e.sub(e.mul(qh, bh), product), e.mul(qh, bl)), e.mul(ql, bh)), e.mul(ql, bl));
  const rest = e.sub(e.sub(a, product), error);
  // The quotient may have been rounded over an integer: then the rest has the other sign than a.
  const size = e.abs(b);
  const step = e.select(e.lt(a, zero), e.neg(size), size);
  const over = e.and(e.ne(rest, zero), e.xor(e.lt(rest, zero), e.lt(a, zero)));
  const corrected = e.select(over, e.add(rest, step), rest);
  const rounded = e.select(e.and(e.eq(size, infinity), e.lt(e.abs(a), infinity)), a, corrected);
  // A remainder of zero has the sign of a, as C's fmod gives it.
  const r = e.select(e.eq(rounded, zero), e.mul(a, zero), rounded);
  const away = e.and(e.ne(r, zero), e.xor(e.lt(r, zero), e.lt(b, zero)));
  return e.convert(e.select(away, e.add(r, b), r), x.type);
}
const isFloat = (v: Value): boolean => v.type === "f32" || v.type === "f64";
const pythonRemainder = (x: number, y: number, d: Dtype): number => {
  if (!d.isFloat && y === 0) return 0;
  const r = x % y;
  return r !== 0 && r < 0 !== y < 0 ? r + y : r;
};

/** Quotient rounded down (toward negative infinity, as in Python); same dtype. Integer division by 0 gives 0. */
export const floorDivide = binary("floorDivide", {
  partials: "zero",
  expr: (e, x, y) => (isFloat(x) ? e.floor(e.div(x, y)) : floorQuotient(e, x, y).quotient),
  // The quotient of floats is rounded before it is rounded down.
  reference: (x, y, d) => (!d.isFloat && y === 0 ? 0 : Math.floor(d.isFloat && d.size < 8 ? Math.fround(x / y) : x / y)),
});
/** What is left of a after floorDivide: it has the sign of b, as in Python. Integer remainder by 0 is 0. */
export const remainder = binary("remainder", {
  partials: [() => 1, (x, y) => negative(floorDivide(x, y))],
  expr: (e, x, y) => (isFloat(x) ? floatRemainder(e, x, y) : floorQuotient(e, x, y).remainder),
  reference: pythonRemainder,
});
/** [floorDivide(a, b), remainder(a, b)]. Neither has a gradient, as in MLX. */
export const divmod = (a: ArrayLike, b: ArrayLike, s?: StreamOrDevice | null): [MxArray, MxArray] => [floorDivide(a, b, s), within(() => stopGradient(remainder(a, b, s), s))];

/** Integer power by repeated squaring, bit by bit of the exponent; wraps. A negative exponent gives 0, as in MLX. */
function integerPower(e: Expr, x: Value, y: Value): Value {
  const one = e.like(x, 1);
  const zero = e.like(x, 0);
  const bits = x.type === "i64" || x.type === "u64" ? 64 : 32;
  let result = one;
  let base = x;
  for (let i = 0; i < bits; i++) {
    const set = e.ne(e.and(e.shr(y, e.like(y, i)), one), zero);
    result = e.select(set, e.mul(result, base), result);
    base = e.mul(base, base);
  }
  return e.select(e.lt(y, zero), zero, result);
}
const anyPower = binary("power", {
  // By the exponent: 0 where the base is 0, whose logarithm is not finite.
  partials: [(x, y) => multiply(power(x, subtract(y, 1)), y), (x, _y, z) => multiply(z, where(equal(x, 0), 0, log(x)))],
  expr: (e, x, y) => (isFloat(x) ? e.pow(x, y) : integerPower(e, x, y)),
  reference: (x, y, d) => {
    if (d.isFloat) return x === 1 || (x === -1 && !Number.isNaN(y) && !Number.isFinite(y)) ? 1 : x ** y;
    return y < 0 ? 0 : x ** y;
  },
  complex: binaryForms.power,
});
/** a to the power b. Integers stay integers and wrap. */
export const power: Binary = (a, b, s) => (b === 2 && a instanceof MxArray && a.desc.dtype.isInexact ? square(a, s) : anyPower(a, b, s));

/** Angle of the point (b, a) in -pi .. pi: the inverse tangent of a / b in the right quadrant. */
export const arctan2 = binary("arctan2", { result: "float", expr: (e, y, x) => e.atan2(y, x), reference: Math.atan2, partials: [(y, x) => divide(x, add(square(x), square(y))), (y, x) => negative(divide(y, add(square(x), square(y))))] });
/** The greater of a and b; NaN where one is NaN. */
export const maximum = binary("maximum", { expr: (e, x, y) => e.max(x, y), reference: (x, y) => (Number.isNaN(x) || x > y ? x : y), partials: [(x, y, z) => astype(greater(x, y), z.dtype), (x, y, z) => astype(lessEqual(x, y), z.dtype)], complex: binaryForms.maximum });
/** The smaller of a and b; NaN where one is NaN. */
export const minimum = binary("minimum", { expr: (e, x, y) => e.min(x, y), reference: (x, y) => (Number.isNaN(x) || x < y ? x : y), partials: [(x, y, z) => astype(less(x, y), z.dtype), (x, y, z) => astype(greaterEqual(x, y), z.dtype)], complex: binaryForms.minimum });
/** exp(x - z), where z = log(exp(x) + exp(y)); for real numbers also where they are infinite. */
const share = (x: MxArray, y: MxArray, z: MxArray): MxArray => (z.dtype.kind === "complex" ? exp(subtract(x, z)) : sigmoid(subtract(x, y)));
/** log(exp(a) + exp(b)) without overflow. */
export const logaddexp = binary("logaddexp", {
  partials: [(x, y, z) => share(x, y, z), (x, y, z) => share(y, x, z)],
  result: "float",
  expr: (e, x, y) => {
    const [high, low] = [e.max(x, y), e.min(x, y)];
    const infinity = e.like(x, Number.POSITIVE_INFINITY);
    const alone = e.or(e.eq(low, e.neg(infinity)), e.eq(high, infinity));
    return e.select(alone, high, e.add(high, e.log1p(e.exp(e.sub(low, high)))));
  },
  reference: (x, y) => {
    const high = Math.max(x, y);
    return Math.abs(high) === Number.POSITIVE_INFINITY ? high : high + Math.log1p(Math.exp(Math.min(x, y) - high));
  },
  complex: binaryForms.logaddexp,
});

const bitwise = (f: (x: bigint, y: bigint) => bigint) => (x: number, y: number): number => Number(f(BigInt(x), BigInt(y)));
/** Bitwise and of integers or bool. */
export const bitwiseAnd = binary("bitwiseAnd", { result: "integer", expr: (e, x, y) => e.and(x, y), reference: bitwise((x, y) => x & y) });
/** Bitwise or of integers or bool. */
export const bitwiseOr = binary("bitwiseOr", { result: "integer", expr: (e, x, y) => e.or(x, y), reference: bitwise((x, y) => x | y) });
/** Bitwise exclusive or of integers or bool. */
export const bitwiseXor = binary("bitwiseXor", { result: "integer", expr: (e, x, y) => e.xor(x, y), reference: bitwise((x, y) => x ^ y) });
/** a shifted left by b bits; integers, uint8 for bool. */
export const leftShift = binary("leftShift", { result: "shift", expr: (e, x, y) => e.shl(x, y), reference: bitwise((x, y) => x << y) });
/** a shifted right by b bits; integers, uint8 for bool. Keeps the sign of signed integers. */
export const rightShift = binary("rightShift", { result: "shift", expr: (e, x, y) => e.shr(x, y), reference: bitwise((x, y) => x >> y) });
