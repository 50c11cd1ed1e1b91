/**
 * Rotary position embedding (Su et al. 2021). One unit is one position of one batch entry: its cosines and sines are computed once,
 * in this thread's scratch, and applied to every head.
 */
import { load4, store4, load1, store1 } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

// Words: 0 x, 1 out, 2 freqs (f32) or 0, 3 offsets (i32), 4 offsets per batch entry (0 or 1), 5 H, 6 T, 7 D, 8 dims,
// 9-11 strides of x over batch, head, position (elements), 12 traditional (0 or 1), 14-15 scale (f64),
// 16-17 base^(-2/dims) (f64). Unit b * T + t; out is row-major [B, H, T, D]. Scratch: dims / 2 rounded up to 4 cosines, then as many sines.

/** sin and cos of four float64 angles by Cody and Waite's reduction in float64 and Taylor's polynomials in float32 (error 4e-8 for |angle| <= 1e6). */
// @ts-ignore: decorator
@inline
function sincos4(lo: v128, hi: v128, cosAt: usize, sinAt: usize): void {
  const magic = f64x2.splat(6755399441055744);
  const twoOverPi = f64x2.splat(0.6366197723675814);
  const a = f64x2.add(f64x2.mul(lo, twoOverPi), magic);
  const b = f64x2.add(f64x2.mul(hi, twoOverPi), magic);
  const n0 = f64x2.sub(a, magic);
  const n1 = f64x2.sub(b, magic);
  // pi/2 in three parts; the first two have 33 bits, so that their products with n < 2^20 are exact.
  const p1 = f64x2.splat(1.57079632673412561417);
  const p2 = f64x2.splat(6.07710050630396597660e-11);
  const p3 = f64x2.splat(2.02226624879595063154e-21);
  const r0 = f64x2.sub(f64x2.sub(f64x2.sub(lo, f64x2.mul(n0, p1)), f64x2.mul(n0, p2)), f64x2.mul(n0, p3));
  const r1 = f64x2.sub(f64x2.sub(f64x2.sub(hi, f64x2.mul(n1, p1)), f64x2.mul(n1, p2)), f64x2.mul(n1, p3));
  const quadrant = i8x16.shuffle(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  const x = i8x16.shuffle(f32x4.demote_f64x2_zero(r0), f32x4.demote_f64x2_zero(r1), 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  const y = f32x4.mul(x, x);
  let s = f32x4.add(f32x4.mul(y, f32x4.splat(2.7557319e-6)), f32x4.splat(-1.9841270e-4));
  s = f32x4.add(f32x4.mul(y, s), f32x4.splat(8.3333333e-3));
  s = f32x4.add(f32x4.mul(y, s), f32x4.splat(-1.6666667e-1));
  s = f32x4.add(f32x4.mul(f32x4.mul(y, s), x), x);
  let c = f32x4.add(f32x4.mul(y, f32x4.splat(-2.7557319e-7)), f32x4.splat(2.4801587e-5));
  c = f32x4.add(f32x4.mul(y, c), f32x4.splat(-1.3888889e-3));
  c = f32x4.add(f32x4.mul(y, c), f32x4.splat(4.1666667e-2));
  c = f32x4.add(f32x4.mul(y, c), f32x4.splat(-0.5));
  c = f32x4.add(f32x4.mul(y, c), f32x4.splat(1));
  const swap = i32x4.ne(v128.and(quadrant, i32x4.splat(1)), i32x4.splat(0));
  const sinSign = i32x4.shl(v128.and(quadrant, i32x4.splat(2)), 30);
  const cosSign = i32x4.shl(v128.and(i32x4.add(quadrant, i32x4.splat(1)), i32x4.splat(2)), 30);
  v128.store(sinAt, v128.xor(v128.bitselect(c, s, swap), sinSign));
  v128.store(cosAt, v128.xor(v128.bitselect(s, c, swap), cosSign));
}

/** Fills the scratch with the cosines and sines of one position. */
function angles(position: f64, freqs: usize, ratio: f64, half: u32, cos: usize, sin: usize): void {
  if (freqs) {
    for (let i: u32 = 0; i < half; i += 4) {
      const last = half - 1;
      const f0 = <f64>load<f32>(freqs + 4 * i);
      const f1 = <f64>load<f32>(freqs + 4 * min(i + 1, last));
      const f2 = <f64>load<f32>(freqs + 4 * min(i + 2, last));
      const f3 = <f64>load<f32>(freqs + 4 * min(i + 3, last));
      const p = f64x2.splat(position);
      sincos4(f64x2.div(p, f64x2(f0, f1)), f64x2.div(p, f64x2(f2, f3)), cos + 4 * i, sin + 4 * i);
    }
    return;
  }
  // Angles are a geometric sequence. Repeated multiplication in float64 is good to half * 1.1e-16.
  const r2 = ratio * ratio;
  let lo = f64x2(position, position * ratio);
  let hi = f64x2.mul(lo, f64x2.splat(r2));
  const step = f64x2.splat(r2 * r2);
  for (let i: u32 = 0; i < half; i += 4) {
    sincos4(lo, hi, cos + 4 * i, sin + 4 * i);
    lo = f64x2.mul(lo, step);
    hi = f64x2.mul(hi, step);
  }
}

/** Pairs (i, i + half) of one row. */
// @ts-ignore: decorator
@inline
function rotateHalves<T>(x: usize, y: usize, half: u32, cos: usize, sin: usize): void {
  const far = half * sizeof<T>();
  let i: u32 = 0;
  for (; i + 4 <= half; i += 4) {
    const a = load4<T>(x + i * sizeof<T>());
    const b = load4<T>(x + far + i * sizeof<T>());
    const c = v128.load(cos + 4 * i);
    const s = v128.load(sin + 4 * i);
    store4<T>(y + i * sizeof<T>(), f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
    store4<T>(y + far + i * sizeof<T>(), f32x4.add(f32x4.mul(a, s), f32x4.mul(b, c)));
  }
  for (; i < half; i++) {
    const a = load1<T>(x + i * sizeof<T>());
    const b = load1<T>(x + far + i * sizeof<T>());
    const c = load<f32>(cos + 4 * i);
    const s = load<f32>(sin + 4 * i);
    store1<T>(y + i * sizeof<T>(), a * c - b * s);
    store1<T>(y + far + i * sizeof<T>(), a * s + b * c);
  }
}

/** Pairs (2i, 2i + 1) of one row ("traditional"). */
// @ts-ignore: decorator
@inline
function rotatePairs<T>(x: usize, y: usize, half: u32, cos: usize, sin: usize): void {
  let i: u32 = 0;
  for (; i + 4 <= half; i += 4) {
    const p = load4<T>(x + 2 * i * sizeof<T>());
    const q = load4<T>(x + (2 * i + 4) * sizeof<T>());
    const a = i8x16.shuffle(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const b = i8x16.shuffle(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    const c = v128.load(cos + 4 * i);
    const s = v128.load(sin + 4 * i);
    const u = f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s));
    const v = f32x4.add(f32x4.mul(a, s), f32x4.mul(b, c));
    store4<T>(y + 2 * i * sizeof<T>(), i8x16.shuffle(u, v, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23));
    store4<T>(y + (2 * i + 4) * sizeof<T>(), i8x16.shuffle(u, v, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31));
  }
  for (; i < half; i++) {
    const a = load1<T>(x + 2 * i * sizeof<T>());
    const b = load1<T>(x + (2 * i + 1) * sizeof<T>());
    const c = load<f32>(cos + 4 * i);
    const s = load<f32>(sin + 4 * i);
    store1<T>(y + 2 * i * sizeof<T>(), a * c - b * s);
    store1<T>(y + (2 * i + 1) * sizeof<T>(), a * s + b * c);
  }
}

function rope<T>(a: usize, begin: i32, end: i32): void {
  const heads = load<u32>(a, 20);
  const length = load<u32>(a, 24);
  const d = load<u32>(a, 28);
  const dims = load<u32>(a, 32);
  const half = dims >> 1;
  const cos = SCRATCH;
  const sin = cos + 4 * ((half + 3) & ~3);
  for (let u: u32 = begin; u < <u32>end; u++) {
    const b = u / length;
    const t = u - b * length;
    const offset = load<i32>(load<u32>(a, 12) + 4 * b * load<u32>(a, 16));
    angles((<f64>offset + <f64>t) * load<f64>(a, 56), load<u32>(a, 8), load<f64>(a, 64), half, cos, sin);
    let x = <usize>load<u32>(a) + (b * load<u32>(a, 36) + t * load<u32>(a, 44)) * sizeof<T>();
    let y = <usize>load<u32>(a, 4) + (b * heads * length + t) * d * sizeof<T>();
    for (let h: u32 = 0; h < heads; h++) {
      if (load<u32>(a, 48)) rotatePairs<T>(x, y, half, cos, sin);
      else rotateHalves<T>(x, y, half, cos, sin);
      if (dims != d && x != y) memory.copy(y + dims * sizeof<T>(), x + dims * sizeof<T>(), (d - dims) * sizeof<T>());
      x += load<u32>(a, 40) * sizeof<T>();
      y += length * d * sizeof<T>();
    }
  }
}

export function rope_f32(a: usize, begin: i32, end: i32): void {
  rope<f32>(a, begin, end);
}
export function rope_bf16(a: usize, begin: i32, end: i32): void {
  rope<u16>(a, begin, end);
}
export function rope_f16(a: usize, begin: i32, end: i32): void {
  rope<i16>(a, begin, end);
}
