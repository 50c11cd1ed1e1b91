// Small floats: e2m1 (4 bits), e4m3 (8 bits, without infinities) and e8m0 (powers of two). Modes: 0 mxfp4, 1 nvfp4, 2 mxfp8.

/** Sixteen codes at p as floats, times s, to the 16 floats at d. Reads 8 bytes, of mode 2 16 bytes. */
export function decode16(mode: i32, p: usize, s: f32, d: usize): void {
  const scale = f32x4.splat(s);
  if (mode == 2) {
    const raw = v128.load(p), zero = i64x2.splat(0);
    v128.store(d, f32x4.mul(widen8(i8x16.shuffle(zero, raw, 0, 0, 0, 16, 0, 0, 0, 17, 0, 0, 0, 18, 0, 0, 0, 19)), scale));
    v128.store(d, f32x4.mul(widen8(i8x16.shuffle(zero, raw, 0, 0, 0, 20, 0, 0, 0, 21, 0, 0, 0, 22, 0, 0, 0, 23)), scale), 16);
    v128.store(d, f32x4.mul(widen8(i8x16.shuffle(zero, raw, 0, 0, 0, 24, 0, 0, 0, 25, 0, 0, 0, 26, 0, 0, 0, 27)), scale), 32);
    v128.store(d, f32x4.mul(widen8(i8x16.shuffle(zero, raw, 0, 0, 0, 28, 0, 0, 0, 29, 0, 0, 0, 30, 0, 0, 0, 31)), scale), 48);
    return;
  }
  const raw = v128.load64_zero(p), mask = i8x16.splat(15);
  const low = v128.and(raw, mask), high = v128.and(i16x8.shr_u(raw, 4), mask);
  const codes = i8x16.shuffle(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  // The upper byte of a float32: with the sign, 2 bits of the exponent less 126 would do, but zero and 0.5 are exceptions. So twice the value as a small integer.
  const twice = i8x16.swizzle(i8x16(0, 1, 2, 3, 4, 6, 8, 12, 0, 1, 2, 3, 4, 6, 8, 12), codes), sign = v128.and(codes, i8x16.splat(8));
  const t0 = i16x8.extend_low_i8x16_u(twice), t1 = i16x8.extend_high_i8x16_u(twice), s0 = i16x8.extend_low_i8x16_u(sign), s1 = i16x8.extend_high_i8x16_u(sign);
  v128.store(d, f32x4.mul(half4(i32x4.extend_low_i16x8_u(t0), i32x4.extend_low_i16x8_u(s0)), scale));
  v128.store(d, f32x4.mul(half4(i32x4.extend_high_i16x8_u(t0), i32x4.extend_high_i16x8_u(s0)), scale), 16);
  v128.store(d, f32x4.mul(half4(i32x4.extend_low_i16x8_u(t1), i32x4.extend_low_i16x8_u(s1)), scale), 32);
  v128.store(d, f32x4.mul(half4(i32x4.extend_high_i16x8_u(t1), i32x4.extend_high_i16x8_u(s1)), scale), 48);
}
/** Half of four integers, with the sign in bit 3 of `sign`: zero keeps its sign. */
// @ts-ignore: decorator
@inline
function half4(twice: v128, sign: v128): v128 {
  return v128.or(f32x4.mul(f32x4.convert_i32x4_u(twice), f32x4.splat(0.5)), i32x4.shl(sign, 28));
}
/** Four e4m3 codes in the upper bytes of the lanes as floats. */
// @ts-ignore: decorator
@inline
export function widen8(x: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shr_s(x, 4), i32x4.splat(0x87ffffff)), f32x4.splat(reinterpret<f32>(0x7b800000)));
}

/** The scale at p: e8m0 with 2^-127 as the smallest, or (mode 1) e4m3. */
export function decodeScale(mode: i32, p: usize): f32 {
  const b = <u32>load<u8>(p);
  if (mode == 1) return f32x4.extract_lane(widen8(i32x4.splat(b << 24)), 0);
  return reinterpret<f32>(b == 0 ? 0x400000 : b << 23);
}
/** n scales at p, times `by`, as floats at d; one zero behind them. */
export function scaleRow(mode: i32, p: usize, n: i32, by: f32, d: usize): void {
  const factor = f32x4.splat(by);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    const codes = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(p + <usize>i)));
    const powers = v128.bitselect(i32x4.splat(0x400000), i32x4.shl(codes, 23), i32x4.eq(codes, i32x4.splat(0)));
    v128.store(d + (<usize>i << 2), f32x4.mul(mode == 1 ? widen8(i32x4.shl(codes, 24)) : powers, factor));
  }
  for (; i < n; i++) store<f32>(d + (<usize>i << 2), decodeScale(mode, p + <usize>i) * by);
  store<f32>(d + (<usize>n << 2), 0);
}

/** The code of a positive scale. Powers of two are the nearest in logarithm; anything infinite gives 255. */
export function encodeScale(mode: i32, x: f32): i32 {
  if (mode == 1) return i32x4.extract_lane(encode8(f32x4.splat(x)), 0);
  const u = reinterpret<u32>(x);
  if (u >= 0x7f800000) return 255;
  if (u < 0x800000) return u > 0x5a8279 ? 1 : 0;
  // From 2^n * sqrt(2) on, 2^(n + 1) is nearer.
  return min<i32>((u + 0x4afb0c) >> 23, 254);
}

/** e4m3 codes of four floats, in the lanes: rounded to nearest even, at most 448; NaN gives 448. */
export function encode8(x: v128): v128 {
  // The sign of NaN is nobody's choice: it does not count.
  const a = v128.and(x, i32x4.splat(0x7fffffff)), sign = v128.and(v128.and(i32x4.shr_u(x, 24), i32x4.splat(128)), f32x4.eq(x, x));
  const odd = v128.and(i32x4.shr_u(a, 20), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, odd), i32x4.splat(0x7ffff - (120 << 23))), 20);
  // A unit in the last place of 2^14 is 2^-9, the step of the numbers below 2^-6.
  const tiny = i32x4.sub(f32x4.add(a, f32x4.splat(16384)), i32x4.splat(0x46800000));
  const finite = v128.bitselect(tiny, normal, i32x4.lt_s(a, i32x4.splat(0x3c800000)));
  return v128.or(sign, v128.bitselect(i32x4.splat(0x7e), finite, i32x4.gt_s(a, i32x4.splat(0x43dfffff))));
}

/** e2m1 codes of four floats, in the lanes: rounded to nearest even, at most 6; NaN gives 6. */
export function encode4(x: v128): v128 {
  const a = f32x4.abs(x);
  let n = i32x4.add(i32x4.add(f32x4.gt(a, f32x4.splat(0.25)), f32x4.ge(a, f32x4.splat(0.75))), i32x4.add(f32x4.gt(a, f32x4.splat(1.25)), f32x4.ge(a, f32x4.splat(1.75))));
  n = i32x4.add(n, i32x4.add(i32x4.add(f32x4.gt(a, f32x4.splat(2.5)), f32x4.ge(a, f32x4.splat(3.5))), f32x4.gt(a, f32x4.splat(5))));
  const code = v128.or(i32x4.neg(n), v128.and(i32x4.shr_u(x, 28), i32x4.splat(8)));
  return v128.bitselect(code, i32x4.splat(7), f32x4.eq(x, x));
}
/** Sixteen codes as bytes. */
export function codes16(a: v128, b: v128, c: v128, d: v128): v128 {
  return i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_u(a, b), i16x8.narrow_i32x4_u(c, d));
}
