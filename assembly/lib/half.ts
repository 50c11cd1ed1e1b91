/**
 * Loads and stores of the three float types as float32 vectors. The type parameter names how an element is stored:
 * `f32` float32, `u16` bfloat16, `i16` float16. Stores round to nearest even; NaN stays NaN.
 */

/** a * b + c: fused in the relaxed build, rounded twice in the plain one. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** float32 of four float16 in the low halves of 32-bit lanes (high halves zero). */
// @ts-ignore: decorator
@inline
export function widenF16(h: v128): v128 {
  const m = i32x4.shl(v128.and(h, i32x4.splat(0x7fff)), 13);
  // 2^112 moves the exponent bias from 15 to 127, for subnormals too; infinities and NaN need the full exponent.
  const x = f32x4.mul(m, f32x4.splat(reinterpret<f32>(0x77800000)));
  const top = v128.and(i32x4.gt_s(m, i32x4.splat(0x0f7fffff)), i32x4.splat(0x7f800000));
  return v128.or(v128.or(x, top), i32x4.shl(v128.and(h, i32x4.splat(0x8000)), 16));
}

/** float16 bits of four float32, in the low halves of 32-bit lanes. */
// @ts-ignore: decorator
@inline
export function narrowF16(x: v128): v128 {
  const a = v128.and(x, i32x4.splat(0x7fffffff));
  const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(i32x4.add(a, odd), i32x4.splat(0x0fff - (112 << 23))), 13);
  const normal = i32x4.min_s(rounded, i32x4.splat(0x7c00));
  // Below 2^-14: one unit in the last place of 0.5 is 2^-24, so the addition rounds to float16's subnormals.
  const tiny = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  const finite = v128.bitselect(tiny, normal, i32x4.lt_s(a, i32x4.splat(0x38800000)));
  const r = v128.bitselect(i32x4.splat(0x7e00), finite, i32x4.gt_s(a, i32x4.splat(0x7f800000)));
  return v128.or(r, v128.and(i32x4.shr_u(x, 16), i32x4.splat(0x8000)));
}

/** bfloat16 bits of four float32, in the low halves of 32-bit lanes. */
// @ts-ignore: decorator
@inline
export function narrowBF16(x: v128): v128 {
  const high = i32x4.shr_u(x, 16);
  const odd = v128.and(high, i32x4.splat(1));
  const r = i32x4.shr_u(i32x4.add(i32x4.add(x, odd), i32x4.splat(0x7fff)), 16);
  return v128.bitselect(r, v128.or(high, i32x4.splat(0x40)), f32x4.eq(x, x));
}

/** Four elements at p. */
// @ts-ignore: decorator
@inline
export function load4<T>(p: usize): v128 {
  if (isFloat<T>()) return v128.load(p);
  const h = v128.load_ext<u16>(p);
  return isSigned<T>() ? widenF16(h) : i32x4.shl(h, 16);
}

/** What `low8` and `high8` need of the eight elements at p. */
// @ts-ignore: decorator
@inline
export function raw8<T>(p: usize): v128 {
  return v128.load(p);
}
/** First four of the eight elements at p. */
// @ts-ignore: decorator
@inline
export function low8<T>(raw: v128, p: usize): v128 {
  if (isFloat<T>()) return raw;
  if (isSigned<T>()) return widenF16(i32x4.extend_low_i16x8_u(raw));
  return i8x16.shuffle(i64x2.splat(0), raw, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
}
/** Last four of the eight elements at p. */
// @ts-ignore: decorator
@inline
export function high8<T>(raw: v128, p: usize): v128 {
  if (isFloat<T>()) return v128.load(p, 16);
  if (isSigned<T>()) return widenF16(i32x4.extend_high_i16x8_u(raw));
  return i8x16.shuffle(i64x2.splat(0), raw, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31);
}

/**
 * The eight elements at p as two vectors in the cheapest order, the "split order": even then odd elements of a 16-bit type, first four then last four of float32.
 * Sums do not mind; `join8` restores the order.
 */
// @ts-ignore: decorator
@inline
export function even8<T>(raw: v128): v128 {
  if (isFloat<T>()) return raw;
  if (isSigned<T>()) return widenF16(v128.and(raw, i32x4.splat(0xffff)));
  return i32x4.shl(raw, 16);
}
// @ts-ignore: decorator
@inline
export function odd8<T>(raw: v128, p: usize): v128 {
  if (isFloat<T>()) return v128.load(p, 16);
  if (isSigned<T>()) return widenF16(i32x4.shr_u(raw, 16));
  return v128.and(raw, i32x4.splat(0xffff0000));
}
/** Elements 0 .. 3 (`high` false) or 4 .. 7 of two vectors in split order. */
// @ts-ignore: decorator
@inline
export function join8<T>(even: v128, odd: v128, high: bool): v128 {
  if (isFloat<T>()) return high ? odd : even;
  return high
    ? i8x16.shuffle(even, odd, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)
    : i8x16.shuffle(even, odd, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
}

/** One element at p. */
// @ts-ignore: decorator
@inline
export function load1<T>(p: usize): f32 {
  if (isFloat<T>()) return load<f32>(p);
  const h = <i32>load<u16>(p);
  if (isSigned<T>()) return f32x4.extract_lane(widenF16(i32x4.splat(h)), 0);
  return reinterpret<f32>(h << 16);
}

/** Stores four elements at p. */
// @ts-ignore: decorator
@inline
export function store4<T>(p: usize, x: v128): void {
  if (isFloat<T>()) {
    v128.store(p, x);
    return;
  }
  const h = isSigned<T>() ? narrowF16(x) : narrowBF16(x);
  v128.store_lane<u64>(p, i16x8.narrow_i32x4_u(h, h), 0);
}

/** Stores eight elements at p. */
// @ts-ignore: decorator
@inline
export function store8<T>(p: usize, x: v128, y: v128): void {
  if (isFloat<T>()) {
    v128.store(p, x);
    v128.store(p, y, 16);
    return;
  }
  if (isSigned<T>()) v128.store(p, i16x8.narrow_i32x4_u(narrowF16(x), narrowF16(y)));
  else v128.store(p, i16x8.narrow_i32x4_u(narrowBF16(x), narrowBF16(y)));
}

/** Stores one element at p. */
// @ts-ignore: decorator
@inline
export function store1<T>(p: usize, x: f32): void {
  if (isFloat<T>()) {
    store<f32>(p, x);
    return;
  }
  const v = f32x4.splat(x);
  store<u16>(p, i32x4.extract_lane(isSigned<T>() ? narrowF16(v) : narrowBF16(v), 0));
}

/** One element of a run-time dtype (float16, float32 or bfloat16 by its code). */
export function loadAny(code: i32, p: usize): f32 {
  if (code == 10) return load<f32>(p);
  return code == 9 ? load1<i16>(p) : load1<u16>(p);
}

/** Sum of the four lanes. */
// @ts-ignore: decorator
@inline
export function sum4(x: v128): f32 {
  const y = f32x4.add(x, i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return f32x4.extract_lane(y, 0) + f32x4.extract_lane(y, 1);
}
