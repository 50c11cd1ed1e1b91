// exp and log for kernels that cannot come from the run-time generator. The standard library's versions need tables, which a kernel may not have.
import { madd } from "./half";

/**
 * exp of four float32 that are not positive (NaN stays NaN). Below -87 the result is 0. Relative error below 2e-7.
 * x = k ln 2 + r with |r| <= ln 2 / 2; the polynomial is the one of Cephes' expf.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  // Adding 1.5 * 2^23 + 127 leaves round(x / ln 2) + 127 in the low mantissa bits: shifted, they are the exponent of 2^k.
  const t = madd(x, f32x4.splat(1.44269504), f32x4.splat(12583039));
  const k = f32x4.sub(t, f32x4.splat(12583039));
  const r = madd(k, f32x4.splat(2.12194440e-4), madd(k, f32x4.splat(-0.693359375), x));
  let p = madd(r, f32x4.splat(1.9875691500e-4), f32x4.splat(1.3981999507e-3));
  p = madd(p, r, f32x4.splat(8.3334519073e-3));
  p = madd(p, r, f32x4.splat(4.1665795894e-2));
  p = madd(p, r, f32x4.splat(1.6666665459e-1));
  p = madd(p, r, f32x4.splat(5.0000001201e-1));
  p = f32x4.add(madd(p, f32x4.mul(r, r), r), f32x4.splat(1));
  const y = f32x4.mul(p, i32x4.shl(t, 23));
  return v128.andnot(y, f32x4.lt(x, f32x4.splat(-87)));
}

/** Stores exp of 16 float32 (as exp4) at q and returns the sum of the four vectors. Four at a time share the loads of the constants. */
// @ts-ignore: decorator
@inline
export function exp16(x0: v128, x1: v128, x2: v128, x3: v128, q: usize): v128 {
  let c = f32x4.splat(1.44269504), d = f32x4.splat(12583039);
  const t0 = madd(x0, c, d), t1 = madd(x1, c, d), t2 = madd(x2, c, d), t3 = madd(x3, c, d);
  const k0 = f32x4.sub(t0, d), k1 = f32x4.sub(t1, d), k2 = f32x4.sub(t2, d), k3 = f32x4.sub(t3, d);
  c = f32x4.splat(-0.693359375);
  let r0 = madd(k0, c, x0), r1 = madd(k1, c, x1), r2 = madd(k2, c, x2), r3 = madd(k3, c, x3);
  c = f32x4.splat(2.12194440e-4);
  r0 = madd(k0, c, r0), r1 = madd(k1, c, r1), r2 = madd(k2, c, r2), r3 = madd(k3, c, r3);
  c = f32x4.splat(1.9875691500e-4), d = f32x4.splat(1.3981999507e-3);
  let p0 = madd(r0, c, d), p1 = madd(r1, c, d), p2 = madd(r2, c, d), p3 = madd(r3, c, d);
  c = f32x4.splat(8.3334519073e-3);
  p0 = madd(p0, r0, c), p1 = madd(p1, r1, c), p2 = madd(p2, r2, c), p3 = madd(p3, r3, c);
  c = f32x4.splat(4.1665795894e-2);
  p0 = madd(p0, r0, c), p1 = madd(p1, r1, c), p2 = madd(p2, r2, c), p3 = madd(p3, r3, c);
  c = f32x4.splat(1.6666665459e-1);
  p0 = madd(p0, r0, c), p1 = madd(p1, r1, c), p2 = madd(p2, r2, c), p3 = madd(p3, r3, c);
  c = f32x4.splat(5.0000001201e-1);
  p0 = madd(p0, r0, c), p1 = madd(p1, r1, c), p2 = madd(p2, r2, c), p3 = madd(p3, r3, c);
  c = f32x4.splat(1);
  p0 = f32x4.add(madd(p0, f32x4.mul(r0, r0), r0), c), p1 = f32x4.add(madd(p1, f32x4.mul(r1, r1), r1), c);
  p2 = f32x4.add(madd(p2, f32x4.mul(r2, r2), r2), c), p3 = f32x4.add(madd(p3, f32x4.mul(r3, r3), r3), c);
  c = f32x4.splat(-87);
  p0 = v128.andnot(f32x4.mul(p0, i32x4.shl(t0, 23)), f32x4.lt(x0, c)), p1 = v128.andnot(f32x4.mul(p1, i32x4.shl(t1, 23)), f32x4.lt(x1, c));
  p2 = v128.andnot(f32x4.mul(p2, i32x4.shl(t2, 23)), f32x4.lt(x2, c)), p3 = v128.andnot(f32x4.mul(p3, i32x4.shl(t3, 23)), f32x4.lt(x3, c));
  v128.store(q, p0);
  v128.store(q, p1, 16);
  v128.store(q, p2, 32);
  v128.store(q, p3, 48);
  return f32x4.add(f32x4.add(p0, p1), f32x4.add(p2, p3));
}

/** exp of two float64 that are not positive (NaN stays NaN). Below -708 the result is 0. Relative error below 4e-16. */
// @ts-ignore: decorator
@inline
export function exp2d(x: v128): v128 {
  const t = f64x2.add(f64x2.mul(x, f64x2.splat(1.4426950408889634)), f64x2.splat(6755399441056767));
  const k = f64x2.sub(t, f64x2.splat(6755399441056767));
  let r = f64x2.sub(x, f64x2.mul(k, f64x2.splat(6.93147180369123816490e-1)));
  r = f64x2.sub(r, f64x2.mul(k, f64x2.splat(1.90821492927058770002e-10)));
  // Taylor series: the term r^14 / 14! is below 5e-18.
  let p = f64x2.splat(1.0 / 6227020800);
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 479001600));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 39916800));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 3628800));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 362880));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 40320));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 5040));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 720));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 120));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 24));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(1.0 / 6));
  p = f64x2.add(f64x2.mul(p, r), f64x2.splat(0.5));
  p = f64x2.add(f64x2.add(f64x2.mul(f64x2.mul(p, r), r), r), f64x2.splat(1));
  const y = f64x2.mul(p, i64x2.shl(t, 52));
  return v128.andnot(y, f64x2.lt(x, f64x2.splat(-708)));
}

/** exp of a float64 that is not positive. */
// @ts-ignore: decorator
@inline
export function exp1d(x: f64): f64 {
  return f64x2.extract_lane(exp2d(f64x2.splat(x)), 0);
}

/** Natural logarithm of a normal positive float64; relative error below 1e-15. log(0) is -Infinity, infinity and NaN stay. */
export function log1d(x: f64): f64 {
  if (!(x > 0)) return x == 0 ? -Infinity : NaN;
  if (x == Infinity) return x;
  const bits = reinterpret<u64>(x);
  // Mantissa in [sqrt(1/2), sqrt(2)).
  let k = <i64>((bits + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd)) >> 52) - 1023;
  const m = reinterpret<f64>(bits - (<u64>k << 52));
  // log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.1716.
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let p: f64 = 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  return <f64>k * 0.6931471805599453 + 2 * (s + s * z * p);
}

/** log(1 + x) for 0 <= x <= 1, without the loss of digits that 1 + x has for small x. */
// @ts-ignore: decorator
@inline
export function log1p1d(x: f64): f64 {
  const u = 1 + x;
  // The rounding error of 1 + x, to first order.
  return log1d(u) + (x - (u - 1)) / u;
}
