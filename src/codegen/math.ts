/**
 * Mathematical functions as basic operations, in operations that have instructions (no u32/u64 conversions, no min/max of floats).
 *
 * Largest errors, measured in test/codegen.test.ts. float32, with plain SIMD and with fused multiply-add (relaxed SIMD): exp 1.2 and 1 ulp; log 1.5, log1p 2; sin, cos 2;
 * sigmoid 2.5 (0 where it would be subnormal); tanh, erf 2; erfinv 5e-7 relative; the others are computed in float64 and rounded: 1 ulp. float64: 1e-14 relative (pow: 3e-13,
 * because the error of its logarithm is multiplied; erfinv: as far as the argument's own rounding allows; sin, cos, tan: for |x| < 1e6). No result depends on an element's place.
 *
 * Methods: exp: Cody and Waite's reduction; in float32 the exponent comes from the bits of the sum that rounds (N. Schraudolph's idea, made exact), the polynomial is a
 * minimax one of our own (E. Remez's condition, by C. Lawson's weights), as is that of erf in float32: 1 - exp of a polynomial in |x| (N. Juffa's form), with exp(r) - 1 so
 * that one formula serves all arguments; tanh in float32: (1 - exp(-2x)) / (1 + exp(-2x)) likewise. Taylor polynomials for exp in float64. log, atan, asin, erf in float64:
 * argument reductions and minimax coefficients of FreeBSD msun / fdlibm (Sun Microsystems, 1993); sin, cos in float32: Cephes polynomials (S. Moshier) after a reduction in
 * float64, of large numbers with the digits of 2/pi that count for them (M. Payne and R. Hanek, "Radian reduction for trigonometric functions", 1983); erfinv: M. Giles,
 * "Approximating the erfinv function", 2010.
 */
import { type ExprOp, type ScalarType, type Value, expr as e } from "../core/expr.ts";

type Fn = (x: Value) => Value;
const f64 = (x: number): Value => e.const("f64", x);
/** Whether the target of the lowering that is going on has `fma`. */
let fuses = false;
/** a*b + c and c - a*b: in float32 rounded once where the target can. float64 is always rounded twice. */
const madd = (a: Value, b: Value, c: Value): Value => (fuses && a.type === "f32" ? e.fma(a, b, c) : e.madd(a, b, c));
const nmadd = (a: Value, b: Value, c: Value): Value => (fuses && a.type === "f32" ? e.fnma(a, b, c) : e.sub(c, e.mul(a, b)));
/** a*b + c with c a number. */
const ma = (a: Value, b: Value, c: number): Value => madd(a, b, e.like(a, c));
const times = (a: Value, c: number): Value => e.mul(a, e.like(a, c));
const plus = (a: Value, c: number): Value => e.add(a, e.like(a, c));
const below = (a: Value, c: number): Value => e.lt(a, e.like(a, c));
const equals = (a: Value, c: number): Value => e.eq(a, e.like(a, c));
/** Polynomial by Horner's rule, highest coefficient first. */
function horner(x: Value, coefficients: readonly number[]): Value {
  let p = e.like(x, coefficients[0] as number);
  for (let i = 1; i < coefficients.length; i++) p = ma(p, x, coefficients[i] as number);
  return p;
}
const intOf = (t: ScalarType): "i32" | "i64" => (t === "f32" ? "i32" : "i64");
const signBit = (t: ScalarType): Value => (t === "f32" ? e.const("i32", -0x80000000) : e.const("i64", -(1n << 63n)));
/** `magnitude`, which is not negative, with the sign of `x`. */
function withSign(magnitude: Value, x: Value): Value {
  const t = intOf(x.type);
  return e.bitcast(e.or(e.bitcast(magnitude, t), e.and(e.bitcast(x, t), signBit(x.type))), x.type);
}
/** -|x|, in one instruction. */
const negated = (x: Value): Value => e.bitcast(e.or(e.bitcast(x, intOf(x.type)), signBit(x.type)), x.type);
const float32 = (bits: Value): Value => e.bitcast(bits, "f32");
const negativeSign = (x: Value): Value => e.lt(e.bitcast(x, intOf(x.type)), e.const(intOf(x.type), 0));
/** Limits x to lo .. hi and lets NaN pass. */
const clamp = (x: Value, lo: number, hi: number): Value => e.pmax(e.pmin(x, e.like(x, hi)), e.like(x, lo));

const formats = {
  f32: { mantissa: 23, bias: 127, magic: 12582912, magicBits: 0x4b400000 as number | bigint },
  f64: { mantissa: 52, bias: 1023, magic: 6755399441055744, magicBits: 0x4338000000000000n as number | bigint },
} as const;
const formatOf = (t: ScalarType): (typeof formats)["f32" | "f64"] => (t === "f32" ? formats.f32 : formats.f64);

/** Nearest integer of x, as a float and as an integer, for |x| < 2^22 (2^51): the magic number pushes the fraction out of the mantissa. */
function nearest(x: Value): { n: Value; i: Value } {
  const { magic, magicBits } = formatOf(x.type);
  const t = plus(x, magic);
  const int = intOf(x.type);
  return { n: plus(t, -magic), i: e.sub(e.bitcast(t, int), e.const(int, magicBits)) };
}
/** 2^i for i in the exponents of normal numbers; one more gives infinity. */
function pow2(i: Value): Value {
  const float = i.type === "i32" ? "f32" : "f64";
  const { bias, mantissa } = formatOf(float);
  return e.bitcast(e.shl(e.add(i, e.like(i, bias)), e.like(i, mantissa)), float);
}

/** 1/k! for k = n .. 2, the Taylor coefficients of exp. */
const taylor = (n: number): number[] => {
  const c: number[] = [];
  for (let k = 2, f = 2; k <= n; k++, f *= k) c.unshift(1 / f);
  return c;
};
const expCoefficients = { f32: [0.0013882520254238915, 0.008366527213755111, 0.04166720007202047, 0.16666543571857834, 0.4999999815294223], f64: taylor(13) };
const ln2Parts = { f32: [0.693359375, -2.12194440e-4], f64: [0.6931471803691238, 1.9082149292705877e-10] } as const;

/** 1.5 * 2^23 + 127: of t = x + this, the lowest bits of the mantissa are those of the exponent of 2^(nearest integer of x). */
const exponentMagic = 12583039;
/** In float32, x = n ln 2 + r; gives 2^(n + bias), which must be a normal number, and r. */
function reduce32(x: Value, bias = 0, parts: readonly number[] = ln2Parts.f32): { scale: Value; r: Value } {
  const t = ma(x, e.like(x, Math.LOG2E), exponentMagic + bias);
  const n = plus(t, -exponentMagic - bias);
  const r = parts.reduce((rest: Value, part) => nmadd(n, e.like(x, part), rest), x);
  return { scale: float32(e.shl(e.bitcast(t, "i32"), e.const("i32", 23))), r };
}
/** exp(r) of float32 |r| <= ln(2)/2. */
const expShort = (r: Value): Value => ma(ma(horner(r, expCoefficients.f32), r, 1), r, 1);
/** exp(r) - 1 of the same, with the relative error of r near 0. */
const expm1Short = (r: Value): Value => madd(horner(r, expCoefficients.f32), e.mul(r, r), r);
/** x = i ln 2 + r in float64; gives i and exp(r) - 1. */
function expReduced(x: Value): { i: Value; p: Value } {
  const { n, i } = nearest(times(x, Math.LOG2E));
  const [hi, lo] = ln2Parts.f64;
  const r = e.sub(e.sub(x, times(n, hi)), times(n, lo));
  return { i, p: madd(horner(r, expCoefficients.f64), e.mul(r, r), r) };
}
/** An exponent of float32 in place. */
const exponent32 = (n: number): Value => e.const("i32", n << 23);
/**
 * exp in float32. 2^n may be outside the normal range: of an argument that is not positive, 2^(n + 64) is not; otherwise 2^(n - 24) 2^24 for positive ones,
 * 2^(n + 24) 2^-24 for negative ones. The first product is exact, so that both ways round once, to the same bits.
 */
function exp32(x: Value, notPositive: boolean): Value {
  const low = e.pmax(x, e.like(x, -104));
  if (notPositive) {
    const { scale, r } = reduce32(low, 64);
    return times(e.mul(expShort(r), scale), 2 ** -64);
  }
  const limited = e.pmin(low, e.like(x, 89));
  const t = reduce32(limited, -24);
  const shift = e.and(e.shr(e.bitcast(limited, "i32"), e.const("i32", 31)), exponent32(48));
  const scale = float32(e.add(e.bitcast(t.scale, "i32"), shift));
  return e.mul(e.mul(expShort(t.r), scale), float32(e.sub(exponent32(127 + 24), shift)));
}
/** Any x; results may be subnormal. */
function exp(x: Value, notPositive = false): Value {
  if (x.type === "f32") return exp32(x, notPositive);
  const { i, p } = expReduced(clamp(x, -746, 710));
  // 2^i may be outside the normal range: in two factors.
  const half = e.shr(i, e.like(i, 1));
  return e.mul(e.mul(plus(p, 1), pow2(half)), pow2(e.sub(i, half)));
}
/** exp(x) - 1 in float64. */
function expm1(x: Value): Value {
  const { i, p } = expReduced(clamp(x, -40, 710));
  const half = e.shr(i, e.like(i, 1));
  const rest = e.sub(i, half);
  const a = pow2(half);
  const y = e.mul(madd(p, a, e.sub(a, pow2(e.neg(rest)))), pow2(rest));
  return e.select(equals(x, 0), x, y);
}

const logCoefficients = {
  f32: [0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693],
  f64: [0.14798198605116586, 0.15313837699209373, 0.1818357216161805, 0.22222198432149784, 0.2857142874366239, 0.3999999999940942, 0.6666666666666735],
};
/** x = 2^k m with m in sqrt(1/2) .. sqrt(2), f = m - 1; log(m) = f - (h - c). */
function logReduced(x: Value): { k: Value; f: Value; h: Value; c: Value } {
  const t = x.type as "f32" | "f64";
  const { mantissa, bias, magic, magicBits } = formatOf(t);
  const int = intOf(t);
  const c = (v: number | bigint): Value => e.const(int, v);
  const small = below(x, t === "f32" ? 2 ** -126 : 2 ** -1022);
  const scaled = e.select(small, times(x, 2 ** (mantissa + 2)), x);
  const [sqrtHalf, mask] = t === "f32" ? [0x3f3504f3, 0x7fffff] : [0x3fe6a09e667f3bcdn, (1n << 52n) - 1n];
  const one = t === "f32" ? 0x3f800000 : 0x3ff0000000000000n;
  const bits = e.add(e.bitcast(scaled, int), c(t === "f32" ? Number(one) - Number(sqrtHalf) : BigInt(one) - BigInt(sqrtHalf)));
  const exponent = e.sub(e.shr(bits, c(mantissa)), c(bias));
  const m = e.bitcast(e.add(e.and(bits, c(mask)), c(sqrtHalf)), t);
  const unscaled = plus(e.bitcast(e.add(exponent, c(magicBits)), t), -magic);
  const f = plus(m, -1);
  const s = e.div(f, plus(f, 2));
  const z = e.mul(s, s);
  const h = times(e.mul(f, f), 0.5);
  const poly = e.mul(z, horner(z, logCoefficients[t]));
  return { k: e.select(small, plus(unscaled, -(mantissa + 2)), unscaled), f, h, c: e.mul(s, e.add(h, poly)) };
}
/** Puts the special values of a logarithm around `y`: log(0), log(negative), log(inf). */
function logSpecial(x: Value, y: Value): Value {
  const infinite = e.select(equals(x, Number.POSITIVE_INFINITY), x, y);
  const zero = e.select(equals(x, 0), e.like(x, Number.NEGATIVE_INFINITY), infinite);
  return e.select(e.or(below(x, 0), e.ne(x, x)), e.like(x, Number.NaN), zero);
}
const logSplit = { f32: [6.9313812256e-1, 9.0580006145e-6], f64: [0.6931471803691238, 1.9082149292705877e-10] } as const;
function log(x: Value): Value {
  const { k, f, h, c } = logReduced(x);
  const [hi, lo] = logSplit[x.type as "f32" | "f64"];
  // k*hi - ((h - (c + k*lo)) - f): from the small terms to the large.
  const y = e.sub(times(k, hi), e.sub(e.sub(h, madd(k, e.like(k, lo), c)), f));
  return logSpecial(x, y);
}
/** Logarithm to a base: k times log_base(2), exact for powers of two where that is 1. */
const logBase = (log2: number, loge: number): Fn => (x) => {
  const { k, f, h, c } = logReduced(x);
  return logSpecial(x, madd(k, e.like(k, log2), times(e.sub(f, e.sub(h, c)), loge)));
};
/** log(u) with u = 1 + x, and the part of x that was lost in u. */
function log1p(x: Value): Value {
  const u = plus(x, 1);
  const y = e.add(log(u), e.div(e.sub(x, plus(u, -1)), u));
  const plain = e.or(equals(x, Number.POSITIVE_INFINITY), equals(x, 0));
  return e.select(plain, x, e.select(equals(u, 0), e.like(x, Number.NEGATIVE_INFINITY), y));
}

/** x = n pi/2 + r in float64, in three parts of pi/2 (33 + 33 + 53 bits): exact products for |n| < 2^20. */
function quadrant(x: Value): { r: Value; i: Value } {
  const { n, i } = nearest(times(x, 2 / Math.PI));
  const r = e.sub(e.sub(e.sub(x, times(n, 1.5707963267341256)), times(n, 6.077100506303966e-11)), times(n, 2.0222662487959506e-21));
  return { r, i };
}
/** From here on float32 numbers need more digits of pi than `quadrant` has. */
const largeAngle = 2 ** 20;
/** 2/pi as an integer times 2^-264. */
const twoOverPi = 0xa2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7n;
/**
 * Digits of 2/pi for numbers that are multiples of 2^unit, as three addends: those of more than 4 quadrants are left out, the rest is cut at the digits -27 and -56 of
 * (2/pi 2^unit), so that the products of the first two with 24 digits are exact in float64, and the third has 53 digits more.
 */
function digitsOfTwoOverPi(unit: number): [number, number, number] {
  const digits = BigInt.asUintN(266 - unit, twoOverPi);
  const cuts = [264 - unit - 27, 264 - unit - 56, 264 - unit - 109];
  const parts = cuts.map((cut, i) => (i === 0 ? digits : BigInt.asUintN(cuts[i - 1] as number, digits)) >> BigInt(cut));
  return parts.map((part, i) => Number(part) * 2 ** ((cuts[i] as number) - 264)) as [number, number, number];
}
/** Exponents of the large float32 numbers, 22 at a time: the products with the digits then stay below 2^51. */
const largeExponents = [20, 42, 64, 86, 108];
/** `quadrant` of a number from `largeAngle` to 2^128 with 24 digits: r to 2^-60. */
function largeQuadrant(x: Value): { r: Value; i: Value } {
  const magnitude = e.abs(x);
  const tables = largeExponents.map((exponent) => digitsOfTwoOverPi(exponent - 23));
  const digits = [0, 1, 2].map((k) =>
    tables.reduce((chosen: Value, table, i) => e.select(below(magnitude, 2 ** (largeExponents[i] as number)), chosen, f64(table[k] as number)), f64((tables[0] as number[])[k] as number)),
  );
  const [first, second, third] = digits.map((d) => e.mul(x, d)) as [Value, Value, Value];
  const [a, b] = [nearest(first), nearest(second)];
  const [high, low] = [e.sub(first, a.n), e.sub(second, b.n)];
  // The sum, and exactly what its rounding lost (D. Knuth): where the sum is near a whole number, that counts.
  const sum = e.add(high, low);
  const part = e.sub(sum, high);
  const lost = e.add(e.sub(high, e.sub(sum, part)), e.sub(low, part));
  const c = nearest(sum);
  const turns = e.add(e.sub(sum, c.n), e.add(lost, third));
  return { r: times(turns, Math.PI / 2), i: e.add(e.add(a.i, b.i), c.i) };
}
/** x = i pi/2 + r, r in float64: of any float32 number, of float64 numbers below 1e6. */
function reduceAngle(x: Value): { r: Value; i: Value } {
  const wide = e.convert(x, "f64");
  const common = quadrant(wide);
  if (x.type === "f64") return common;
  const isLarge = e.ge(e.abs(x), e.like(x, largeAngle));
  const large = largeQuadrant(wide);
  return { r: e.rare(isLarge, large.r, common.r), i: e.rare(isLarge, large.i, common.i) };
}
const sinCoefficients = {
  f32: [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1],
  f64: [1.58969099521155e-10, -2.5050760253406863e-8, 0.0000027557313707070068, -0.0001984126982985795, 0.00833333333332249, -0.16666666666666632],
};
const cosCoefficients = {
  f32: [0.00002443315711809948, -0.001388731625493765, 0.04166664568298827],
  f64: [-1.1359647557788195e-11, 2.087572321298175e-9, -2.7557314351390663e-7, 0.00002480158728947673, -0.001388888888887411, 0.0416666666666666],
};
/** sin(r) and cos(r) for |r| < 0.8. */
function sinCos(r: Value): { sin: Value; cos: Value } {
  const t = r.type as "f32" | "f64";
  const z = e.mul(r, r);
  const sin = madd(e.mul(r, z), horner(z, sinCoefficients[t]), r);
  const half = e.sub(e.like(z, 1), times(z, 0.5));
  return { sin, cos: madd(e.mul(z, z), horner(z, cosCoefficients[t]), half) };
}
/** Of a float64 number beyond 1e6, where the reduction has lost all digits, at least something that gives a sine between -1 and 1. */
const limited = (r: Value, x: Value): Value => (x.type === "f64" ? clamp(r, -0.8, 0.8) : r);
/** sin for shift 0, cos for shift 1. */
const trig = (shift: 0 | 1): Fn => (x) => {
  const wide = reduceAngle(x);
  const r = e.convert(limited(wide.r, x), x.type);
  const i = e.convert(wide.i, intOf(x.type));
  const { sin, cos } = sinCos(r);
  const q = e.add(i, e.like(i, shift));
  const odd = e.ne(e.and(q, e.like(q, 1)), e.like(q, 0));
  const sign = e.shl(e.and(q, e.like(q, 2)), e.like(q, x.type === "f32" ? 30 : 62));
  const y = e.bitcast(e.xor(e.bitcast(e.select(odd, cos, sin), i.type), sign), x.type);
  return shift === 0 ? e.select(equals(x, 0), x, y) : y;
};
function tan(x: Value): Value {
  const { r, i } = reduceAngle(x);
  const { sin, cos } = sinCos(limited(r, x));
  const odd = e.ne(e.and(i, e.like(i, 1)), e.like(i, 0));
  const y = e.div(e.select(odd, e.neg(cos), sin), e.select(odd, sin, cos));
  return e.select(equals(x, 0), x, e.convert(y, x.type));
}

const atanCoefficients = [
  0.016285820115365782, -0.036531572744216916, 0.049768779946159324, -0.058335701337905735, 0.06661073137387531, -0.0769187620504483,
  0.09090887133436507, -0.11111110405462356, 0.14285714272503466, -0.19999999999876483, 0.3333333333333293,
];
/** Limit of |x|, c with atan(x) = atan(c) + atan((x - c) / (1 + c x)), atan(c) in two parts. */
const atanRanges = [
  [11 / 16, 0.5, 0.4636476090008061, 2.2698777452961687e-17],
  [19 / 16, 1, 0.7853981633974483, 3.061616997868383e-17],
  [39 / 16, 1.5, 0.982793723247329, 1.3903311031230998e-17],
] as const;
/** Arc tangent of a number that is not negative. */
function atanPositive(a: Value): Value {
  let numerator: Value = f64(-1);
  let denominator = a;
  let hi: Value = f64(1.5707963267948966);
  let lo: Value = f64(6.123233995736766e-17);
  for (const [limit, c, h, l] of [...atanRanges].reverse()) {
    const here = below(a, limit);
    numerator = e.select(here, plus(a, -c), numerator);
    denominator = e.select(here, ma(a, f64(c), 1), denominator);
    hi = e.select(here, f64(h), hi);
    lo = e.select(here, f64(l), lo);
  }
  const direct = below(a, 7 / 16);
  const zero = f64(0);
  const t = e.div(e.select(direct, a, numerator), e.select(direct, f64(1), denominator));
  const z = e.mul(t, t);
  const tail = e.mul(t, e.mul(z, horner(z, atanCoefficients)));
  return e.sub(e.select(direct, zero, hi), e.sub(e.sub(tail, e.select(direct, zero, lo)), t));
}
const atan: Fn = (x) => withSign(atanPositive(e.abs(x)), x);
function atan2(y: Value, x: Value): Value {
  const [a, b] = [e.abs(y), e.abs(x)];
  const infinite = e.and(equals(a, Number.POSITIVE_INFINITY), equals(b, Number.POSITIVE_INFINITY));
  const acute = e.select(equals(y, 0), f64(0), e.select(infinite, f64(Math.PI / 4), atanPositive(e.div(a, b))));
  const angle = e.select(negativeSign(x), e.sub(f64(Math.PI), plus(acute, -1.2246467991473532e-16)), acute);
  return e.select(e.or(e.ne(x, x), e.ne(y, y)), f64(Number.NaN), withSign(angle, y));
}

/** (asin(sqrt(z)) / sqrt(z)) - 1 for z < 1/4. */
function asinRatio(z: Value): Value {
  const p = horner(z, [0.00003479331075960212, 0.0007915349942898145, -0.04005553450067941, 0.20121253213486293, -0.3255658186224009, 0.16666666666666666]);
  const q = horner(z, [0.07703815055590194, -0.6882839716054533, 2.0209457602335057, -2.403394911734414, 1]);
  return e.div(e.mul(z, p), q);
}
/** For |x| = a > 1/2 the half angle: asin(a) = pi/2 - 2 asin(sqrt((1 - a)/2)). */
function asinParts(x: Value): { small: Value; direct: Value; double: Value } {
  const a = e.abs(x);
  const small = below(a, 0.5);
  const z = e.select(small, e.mul(a, a), times(e.sub(f64(1), a), 0.5));
  const s = e.select(small, a, e.sqrt(z));
  const y = madd(s, asinRatio(z), s);
  return { small, direct: y, double: times(y, 2) };
}
function asin(x: Value): Value {
  const { small, direct, double } = asinParts(x);
  return withSign(e.select(small, direct, e.sub(f64(Math.PI / 2), plus(double, -6.123233995736766e-17))), x);
}
function acos(x: Value): Value {
  const { small, direct, double } = asinParts(x);
  const middle = e.sub(f64(Math.PI / 2), plus(withSign(direct, x), -6.123233995736766e-17));
  return e.select(small, middle, e.select(below(x, 0), e.sub(f64(Math.PI), plus(double, -1.2246467991473532e-16)), double));
}

/** exp(a) / 2 without early overflow. */
function halfExp(a: Value): Value {
  const h = exp(times(a, 0.5));
  return e.mul(times(h, 0.5), h);
}
function sinh(x: Value): Value {
  const a = e.abs(x);
  const t = expm1(clamp(a, 0, 40));
  const y = times(e.add(t, e.div(t, plus(t, 1))), 0.5);
  return withSign(e.select(below(a, 40), y, halfExp(a)), x);
}
function cosh(x: Value): Value {
  const y = halfExp(e.abs(x));
  return e.add(y, e.div(f64(0.25), y));
}
function tanh64(x: Value): Value {
  const t = expm1(times(clamp(e.abs(x), 0, 22), 2));
  return withSign(e.div(t, plus(t, 2)), x);
}
/** (1 - exp(-2|x|)) / (1 + exp(-2|x|)), both from exp(r) - 1, so that nothing is lost near 0. */
function tanh32(x: Value): Value {
  const { scale, r } = reduce32(times(e.pmax(negated(x), e.like(x, -10)), 2));
  const p = expm1Short(r);
  return withSign(e.div(nmadd(scale, p, e.sub(e.like(x, 1), scale)), madd(scale, p, plus(scale, 1))), x);
}
function asinh(x: Value): Value {
  const a = e.abs(x);
  const z = e.mul(a, a);
  const y = log1p(e.add(a, e.div(z, plus(e.sqrt(plus(z, 1)), 1))));
  return withSign(e.select(below(a, 2 ** 28), y, plus(log(a), Math.LN2)), x);
}
function acosh(x: Value): Value {
  const t = plus(x, -1);
  const y = log1p(e.add(t, e.sqrt(madd(t, t, times(t, 2)))));
  return e.select(below(x, 1), f64(Number.NaN), e.select(below(x, 2 ** 28), y, plus(log(x), Math.LN2)));
}
function atanh(x: Value): Value {
  const a = e.abs(x);
  return withSign(times(log1p(e.div(times(a, 2), e.sub(f64(1), a))), 0.5), x);
}

function sigmoid(x: Value): Value {
  if (x.type === "f64") return e.div(e.like(x, 1), plus(exp(e.neg(x)), 1));
  // Here exp needs no subnormal results: what it is added to is 1.
  const { scale, r } = reduce32(clamp(e.neg(x), -87.3, 88.7));
  return e.div(e.like(x, 1), ma(expShort(r), scale, 1));
}

/** log(erfc(-b)) / b - 1 for b in -4 .. 0, so well as 1 - exp(b (1 + this)) needs it. */
const erfcExponent = [
  -9.302793148377974e-6, -1.1807398875791261e-4, -6.344504205325803e-4, -1.6701319460287803e-3, -1.6369867166319516e-4, 1.9151132734023205e-2, 0.10277725181930822,
  -0.6366194568339795, 0.128379168937264,
];
/** 1 - erfc(|x|), by way of exp(r) - 1, so that nothing is lost near 0. From 3.92 on the result is 1; before that, n is too small for parts of ln 2 to matter. */
function erf32(x: Value): Value {
  const b = e.pmax(negated(x), e.like(x, -4));
  const { scale, r } = reduce32(madd(b, horner(b, erfcExponent), b), 0, [Math.LN2]);
  return withSign(nmadd(scale, expm1Short(r), e.sub(e.like(x, 1), scale)), x);
}
const erfTables = {
  small: [
    [-0.000023763016656650163, -0.005770270296489442, -0.02848174957559851, -0.3250421072470015, 0.12837916709551256],
    [-0.000003960228278775368, 0.00013249473800432164, 0.005081306281875766, 0.0650222499887673, 0.39791722395915535, 1],
  ],
  middle: [
    [-0.002166375594868791, 0.035478304325618236, -0.11089469428239668, 0.31834661990116175, -0.3722078760357013, 0.41485611868374833, -0.0023621185607526594],
    [0.011984499846799107, 0.01363708391202905, 0.12617121980876164, 0.07182865441419627, 0.540397917702171, 0.10642088040084423, 1],
  ],
  large: [
    [-9.814329344169145, -81.2874355063066, -184.60509290671104, -162.39666946257347, -62.375332450326006, -10.558626225323291, -0.6938585727071818, -0.009864944034847148],
    [-0.0604244152148581, 6.570249770319282, 108.63500554177944, 429.00814002756783, 645.3872717332679, 434.56587747522923, 137.65775414351904, 19.651271667439257, 1],
  ],
  huge: [
    [-483.5191916086514, -1025.0951316110772, -637.5664433683896, -160.63638485582192, -17.757954917754752, -0.799283237680523, -0.0098649429247001],
    [-22.44095244658582, 474.52854120695537, 2553.0504064331644, 3199.8582195085955, 1536.729586084437, 325.7925129965739, 30.33806074348246, 1],
  ],
} as const;
function erf64(x: Value): Value {
  const a = e.abs(x);
  const ratio = (z: Value, [p, q]: readonly [readonly number[], readonly number[]]): Value => e.div(horner(z, p), horner(z, q));
  const small = madd(ratio(e.mul(a, a), erfTables.small), a, a);
  const middle = plus(ratio(plus(a, -1), erfTables.middle), 0.8450629115104675);
  const b = clamp(a, 0.5, 6);
  const s = e.div(f64(1), e.mul(b, b));
  const tail = e.select(below(a, 1 / 0.35), ratio(s, erfTables.large), ratio(s, erfTables.huge));
  const large = e.sub(f64(1), e.div(exp(e.sub(plus(tail, -0.5625), e.mul(b, b))), b));
  return withSign(e.select(below(a, 0.84375), small, e.select(below(a, 1.25), middle, large)), x);
}

/** Giles' approximation: relative error below 5e-7 in float32. */
function erfinvEstimate(x: Value): Value {
  const w = e.neg(log(e.mul(e.sub(e.like(x, 1), x), plus(x, 1))));
  const inner = horner(plus(w, -2.5), [2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 2.1858087e-4, -1.25372503e-3, -4.17768164e-3, 2.46640727e-1, 1.50140941]);
  const outer = horner(plus(e.sqrt(w), -3), [-2.00214257e-4, 1.00950558e-4, 1.34934322e-3, -3.67342844e-3, 5.73950773e-3, -7.6224613e-3, 9.43887047e-3, 1.00167406, 2.83297682]);
  const y = e.mul(e.select(below(w, 5), inner, outer), x);
  return e.select(equals(e.abs(x), 1), e.mul(x, e.like(x, Number.POSITIVE_INFINITY)), y);
}
/** Two steps of Newton's method from the estimate. */
function erfinv64(x: Value): Value {
  const start = erfinvEstimate(x);
  let y = start;
  for (let step = 0; step < 2; step++) y = e.sub(y, e.mul(times(e.sub(erf64(y), x), Math.sqrt(Math.PI) / 2), exp(e.mul(y, y))));
  return e.select(e.lt(e.abs(x), f64(1)), y, start);
}

function pow(a: Value, b: Value): Value {
  const one = f64(1);
  const magnitude = e.abs(a);
  const power = e.select(e.or(equals(magnitude, 1), equals(b, 0)), one, exp(e.mul(b, log(magnitude))));
  const whole = e.eq(e.floor(b), b);
  const halfB = times(b, 0.5);
  const odd = e.and(whole, e.and(e.ne(e.floor(halfB), halfB), e.ne(e.abs(b), f64(Number.POSITIVE_INFINITY))));
  const signed = e.select(e.and(odd, negativeSign(a)), e.neg(power), power);
  const undefinedSign = e.and(e.and(below(a, 0), e.not(whole)), e.ne(a, f64(Number.NEGATIVE_INFINITY)));
  const y = e.select(undefinedSign, f64(Number.NaN), signed);
  // NaN arguments count except in 1^b and a^0.
  const nan = e.or(e.ne(a, a), e.ne(b, b));
  return e.select(e.or(equals(a, 1), equals(b, 0)), one, e.select(nan, f64(Number.NaN), y));
}

/** Functions that are written for both float types. */
const direct: Partial<Record<ExprOp, Fn>> = {
  log, log1p, sigmoid, sin: trig(0), cos: trig(1), tan,
  tanh: (x) => (x.type === "f32" ? tanh32(x) : tanh64(x)),
  erf: (x) => (x.type === "f32" ? erf32(x) : erf64(x)),
  erfinv: (x) => (x.type === "f32" ? erfinvEstimate(x) : erfinv64(x)),
};
/** Functions that are computed in float64. */
const wide: Partial<Record<ExprOp, (x: Value, y: Value) => Value>> = {
  expm1, atan, asin, acos, sinh, cosh, asinh, acosh, atanh, atan2, pow,
  log2: logBase(1, Math.LOG2E), log10: logBase(Math.LOG10E * Math.LN2, Math.LOG10E),
};

/** True for operations that are many instructions. */
export const isMath = (op: ExprOp): boolean => op === "exp" || op in direct || op in wide;

/** The function `op` of lowered arguments (`b` only for atan2 and pow). `fma`: the target has it; `notPositive`: `a` is 0, negative or NaN. */
export function lowerMath(op: ExprOp, a: Value, b: Value | undefined, { fma, notPositive }: { readonly fma: boolean; readonly notPositive: boolean }): Value {
  fuses = fma;
  if (op === "exp") return exp(a, notPositive);
  const both = direct[op];
  if (both) return both(a);
  const f = wide[op];
  if (!f) throw new Error(`no definition of ${op}`);
  const up = (v: Value): Value => e.convert(v, "f64");
  return e.convert(f(up(a), b ? up(b) : up(a)), a.type);
}
