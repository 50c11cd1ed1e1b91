// Parts of the quantized kernels that do not depend on the width of the weights.
import { load4, narrowBF16, store1, store8, sum4 } from "./half";

// Words of the argument block that all matrix kernels share:
// 0 weights, 1 scales, 2 biases, 3 x, 4 prepared activations, 5 output, 6 rows of x, 7 N, 8 K, 9 group size, 10 bits, 11 planes,
// 12 dtype code of x, 13 of scales and biases, 14 of the output.

/** Bytes of the planes of one prepared row of K values; enough for both builds. */
// @ts-ignore: decorator
@inline
export function planeBytes(K: i32, planes: i32): i32 {
  return planes == 2 ? K * 2 : K * 4;
}
/** Groups of a row, rounded up to whole vectors. */
// @ts-ignore: decorator
@inline
export function paddedGroups(groups: i32): i32 {
  return (groups + 3) & ~3;
}

/** Row of n floats as float32: in place, or converted to `d`. n is a multiple of 8. */
export function rowF32(p: usize, code: i32, n: i32, d: usize): usize {
  if (code == 10) return p;
  if (code == 9) {
    for (let i = 0; i < n; i += 4) v128.store(d + (<usize>i << 2), load4<i16>(p + (<usize>i << 1)));
  } else {
    for (let i = 0; i < n; i += 4) v128.store(d + (<usize>i << 2), load4<u16>(p + (<usize>i << 1)));
  }
  return d;
}

// @ts-ignore: decorator
@inline
export function sizeOfCode(code: i32): i32 {
  return code == 10 ? 4 : 2;
}

export function storeOne(code: i32, p: usize, x: f32): void {
  if (code == 10) store<f32>(p, x);
  else if (code == 9) store1<i16>(p, x);
  else store1<u16>(p, x);
}
/** Sums of the lanes of four vectors. */
// @ts-ignore: decorator
@inline
export function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const x = f32x4.add(v128.shuffle<f32>(a, b, 0, 1, 4, 5), v128.shuffle<f32>(a, b, 2, 3, 6, 7));
  const y = f32x4.add(v128.shuffle<f32>(c, d, 0, 1, 4, 5), v128.shuffle<f32>(c, d, 2, 3, 6, 7));
  return f32x4.add(v128.shuffle<f32>(x, y, 0, 2, 4, 6), v128.shuffle<f32>(x, y, 1, 3, 5, 7));
}
/** Stores the lanes of x as elements a, b, c, d of the row at p. */
// @ts-ignore: decorator
@inline
export function storeLanes(code: i32, p: usize, a: i32, b: i32, c: i32, d: i32, x: v128): void {
  if (code == 12) {
    const h = narrowBF16(x);
    v128.store16_lane(p + (<usize>a << 1), h, 0);
    v128.store16_lane(p + (<usize>b << 1), h, 2);
    v128.store16_lane(p + (<usize>c << 1), h, 4);
    v128.store16_lane(p + (<usize>d << 1), h, 6);
  } else {
    const size = <usize>sizeOfCode(code);
    storeOne(code, p + <usize>a * size, f32x4.extract_lane(x, 0));
    storeOne(code, p + <usize>b * size, f32x4.extract_lane(x, 1));
    storeOne(code, p + <usize>c * size, f32x4.extract_lane(x, 2));
    storeOne(code, p + <usize>d * size, f32x4.extract_lane(x, 3));
  }
}
/** Stores the first two lanes of x as elements a and b of the row at p. */
// @ts-ignore: decorator
@inline
export function storePair(code: i32, p: usize, a: i32, b: i32, x: v128): void {
  if (code == 12) {
    const h = narrowBF16(x);
    v128.store16_lane(p + (<usize>a << 1), h, 0);
    v128.store16_lane(p + (<usize>b << 1), h, 2);
  } else {
    const size = <usize>sizeOfCode(code);
    storeOne(code, p + <usize>a * size, f32x4.extract_lane(x, 0));
    storeOne(code, p + <usize>b * size, f32x4.extract_lane(x, 1));
  }
}
export function storeEight(code: i32, p: usize, x: v128, y: v128): void {
  if (code == 10) store8<f32>(p, x, y);
  else if (code == 9) store8<i16>(p, x, y);
  else store8<u16>(p, x, y);
}

/** Bits of the largest magnitude of n floats: above 0x7f800000 when there is a NaN. n is a multiple of 16. */
export function largestBits(p: usize, n: i32): i32 {
  const mask = i32x4.splat(0x7fffffff);
  let a = i32x4.splat(0), b = a, c = a, d = a;
  for (let e = p + (<usize>n << 2); p < e; p += 64) {
    a = i32x4.max_s(a, v128.and(v128.load(p), mask));
    b = i32x4.max_s(b, v128.and(v128.load(p, 16), mask));
    c = i32x4.max_s(c, v128.and(v128.load(p, 32), mask));
    d = i32x4.max_s(d, v128.and(v128.load(p, 48), mask));
  }
  a = i32x4.max_s(i32x4.max_s(a, b), i32x4.max_s(c, d));
  a = i32x4.max_s(a, i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return max<i32>(i32x4.extract_lane(a, 0), i32x4.extract_lane(a, 1));
}

/** True for a largest magnitude whose group can not become integers: infinite, NaN, or so small that its scale would be subnormal. */
// @ts-ignore: decorator
@inline
export function unquantizable(bits: i32): boolean {
  return bits >= 0x7f800000 || (bits != 0 && bits < 0x17800000);
}

// @ts-ignore: decorator
@inline
export function sumLanes(v: v128): i32 {
  return i32x4.extract_lane(v, 0) + i32x4.extract_lane(v, 1) + i32x4.extract_lane(v, 2) + i32x4.extract_lane(v, 3);
}

/** Dot product of 32 bytes at q, dequantized as s * q + b, with 32 floats at x, added to acc. */
export function exactBlock(q: usize, x: usize, s: f32, b: f32, acc: v128): v128 {
  const sv = f32x4.splat(s), bv = f32x4.splat(b);
  for (let i: usize = 0; i < 32; i += 4) {
    const v = f32x4.convert_i32x4_u(i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(q + i))));
    acc = f32x4.add(acc, f32x4.mul(f32x4.add(f32x4.mul(v, sv), bv), v128.load(x + (i << 2))));
  }
  return acc;
}

/** Writes the 4 x 8 float32 tile at t to rows m.. and columns n.. of the M x N output. */
export function storeTile(t: usize, out: usize, code: i32, m: i32, n: i32, M: i32, N: i32): void {
  const size = <usize>sizeOfCode(code);
  const rows = min<i32>(4, M - m);
  for (let i = 0; i < rows; i++, t += 32) {
    const p = out + (<usize>(m + i) * <usize>N + <usize>n) * size;
    if (n + 8 <= N) storeEight(code, p, v128.load(t), v128.load(t, 16));
    else for (let j = 0; n + j < N; j++) storeOne(code, p + <usize>j * size, load<f32>(t + (<usize>j << 2)));
  }
}

export { sum4 };
