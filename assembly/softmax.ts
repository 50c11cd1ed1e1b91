// softmax and logsumexp over rows. float16 and bfloat16 (type parameters i16 and u16, see lib/half.ts) are computed in float32.
import { exp16, exp1d, exp2d, exp4, log1d } from "./lib/exponential";
import { load1, load4, store1, store4, sum4 } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

/** Largest element of a row; NaN is passed over. */
// @ts-ignore: decorator
@inline
function rowMax<T>(p: usize, n: i32): f32 {
  let a = f32x4.splat(-Infinity), b = a, c = a, d = a;
  let i = 16;
  for (; i <= n; i += 16, p += 16 * sizeof<T>()) {
    a = f32x4.pmax(a, load4<T>(p));
    b = f32x4.pmax(b, load4<T>(p + 4 * sizeof<T>()));
    c = f32x4.pmax(c, load4<T>(p + 8 * sizeof<T>()));
    d = f32x4.pmax(d, load4<T>(p + 12 * sizeof<T>()));
  }
  for (i -= 12; i <= n; i += 4, p += 4 * sizeof<T>()) a = f32x4.pmax(a, load4<T>(p));
  a = f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d));
  let m = max(max(f32x4.extract_lane(a, 0), f32x4.extract_lane(a, 1)), max(f32x4.extract_lane(a, 2), f32x4.extract_lane(a, 3)));
  for (i -= 4; i < n; i++, p += sizeof<T>()) {
    const x = load1<T>(p);
    if (x > m) m = x;
  }
  return m;
}

/** exp(x - m) summed over n elements; each is also stored as float32 at q, which moves on only with `keep`. Blocks of 512 are added in float64. */
// @ts-ignore: decorator
@inline
function expSum<T>(p: usize, n: i32, m: f32, q: usize, keep: bool): f64 {
  const mv = f32x4.splat(m);
  const step: usize = keep ? 64 : 0;
  let total: f64 = 0;
  let left = n;
  while (left >= 16) {
    let rounds = min(left >> 4, 32);
    left -= rounds << 4;
    let s = f32x4.splat(0);
    for (; rounds > 0; rounds--, p += 16 * sizeof<T>(), q += step) {
      const x0 = f32x4.sub(load4<T>(p), mv), x1 = f32x4.sub(load4<T>(p + 4 * sizeof<T>()), mv);
      const x2 = f32x4.sub(load4<T>(p + 8 * sizeof<T>()), mv), x3 = f32x4.sub(load4<T>(p + 12 * sizeof<T>()), mv);
      s = f32x4.add(s, exp16(x0, x1, x2, x3, q));
    }
    total += <f64>sum4(s);
  }
  for (; left >= 4; left -= 4, p += 4 * sizeof<T>(), q += step >> 2) {
    const e = exp4(f32x4.sub(load4<T>(p), mv));
    v128.store(q, e);
    total += <f64>sum4(e);
  }
  for (; left > 0; left--, p += sizeof<T>(), q += step >> 4) {
    const x = f32x4.extract_lane(exp4(f32x4.splat(load1<T>(p) - m)), 0);
    store<f32>(q, x);
    total += <f64>x;
  }
  return total;
}

/** A row without a finite element is measured from 0, so that -Infinity contributes nothing and NaN stays. */
// @ts-ignore: decorator
@inline
function origin(m: f32): f32 {
  return m == -Infinity ? 0 : m;
}

// @ts-ignore: decorator
@inline
function softmaxRows<T>(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8);
  const bytes = <usize>n * sizeof<T>();
  for (let u = begin; u < end; u++) {
    const p = src + <usize>u * bytes;
    let out = dst + <usize>u * bytes;
    let e = isFloat<T>() ? out : SCRATCH;
    const total = expSum<T>(p, n, origin(rowMax<T>(p, n)), e, true);
    const scale = <f32>(1 / total);
    const scales = f32x4.splat(scale);
    let i = 4;
    for (; i <= n; i += 4, e += 16, out += 4 * sizeof<T>()) store4<T>(out, f32x4.mul(v128.load(e), scales));
    for (i -= 4; i < n; i++, e += 4, out += sizeof<T>()) store1<T>(out, load<f32>(e) * scale);
  }
}
// words: src, dst, n (at most 2^20 for 16-bit types); unit: one row. dst may be src.
export function softmax_f32(a: usize, begin: i32, end: i32): void {
  softmaxRows<f32>(a, begin, end);
}
export function softmax_f16(a: usize, begin: i32, end: i32): void {
  softmaxRows<i16>(a, begin, end);
}
export function softmax_bf16(a: usize, begin: i32, end: i32): void {
  softmaxRows<u16>(a, begin, end);
}

// @ts-ignore: decorator
@inline
function partialRows<T>(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), chunk = load<i32>(a, 12), chunks = max(1, load<i32>(a, 16));
  for (let u = begin; u < end; u++) {
    const r = u / chunks, c = u - r * chunks;
    const len = min(chunk, n - c * chunk);
    const p = src + (<usize>r * <usize>n + <usize>(c * chunk)) * sizeof<T>();
    const m = rowMax<T>(p, len);
    const out = dst + (<usize>u << 4);
    store<f32>(out, m);
    store<f64>(out, expSum<T>(p, len, origin(m), SCRATCH, false), 8);
  }
}
// words: src, partials (per chunk: f32 maximum m, then at byte 8 the f64 sum of exp(x - m)), n, chunk, chunks per row; unit: one chunk
export function partial_f32(a: usize, begin: i32, end: i32): void {
  partialRows<f32>(a, begin, end);
}
export function partial_f16(a: usize, begin: i32, end: i32): void {
  partialRows<i16>(a, begin, end);
}
export function partial_bf16(a: usize, begin: i32, end: i32): void {
  partialRows<u16>(a, begin, end);
}

/** Largest of the maxima of a row's chunks. */
function partialsMax(p: usize, chunks: i32): f32 {
  let m: f32 = -Infinity;
  for (let c = 0; c < chunks; c++) m = max(m, load<f32>(p + (<usize>c << 4)));
  return m;
}
/** Sum of exp(x - m) over a row. */
function partialsSum(p: usize, chunks: i32, m: f32): f64 {
  let total: f64 = 0;
  for (let c = 0; c < chunks; c++, p += 16) total += load<f64>(p, 8) * exp1d(<f64>origin(load<f32>(p)) - <f64>max(m, origin(load<f32>(p))));
  return total;
}

// @ts-ignore: decorator
@inline
function scaleRows<T>(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4), partials = load<usize>(a, 8);
  const n = load<i32>(a, 12), chunk = load<i32>(a, 16), chunks = max(1, load<i32>(a, 20));
  for (let u = begin; u < end; u++) {
    const r = u / chunks, c = u - r * chunks;
    const row = partials + ((<usize>r * <usize>chunks) << 4);
    const m = origin(partialsMax(row, chunks));
    const scale = <f32>(1 / partialsSum(row, chunks, m));
    const len = min(chunk, n - c * chunk);
    const at = (<usize>r * <usize>n + <usize>(c * chunk)) * sizeof<T>();
    let p = src + at, q = dst + at;
    const mv = f32x4.splat(m), scales = f32x4.splat(scale);
    let i = 16;
    for (; i <= len; i += 16, p += 16 * sizeof<T>(), q += 16 * sizeof<T>()) {
      const x0 = f32x4.sub(load4<T>(p), mv), x1 = f32x4.sub(load4<T>(p + 4 * sizeof<T>()), mv);
      const x2 = f32x4.sub(load4<T>(p + 8 * sizeof<T>()), mv), x3 = f32x4.sub(load4<T>(p + 12 * sizeof<T>()), mv);
      exp16(x0, x1, x2, x3, SCRATCH);
      for (let j = 0; j < 4; j++) store4<T>(q + <usize>j * 4 * sizeof<T>(), f32x4.mul(v128.load(SCRATCH + (<usize>j << 4)), scales));
    }
    for (i -= 12; i <= len; i += 4, p += 4 * sizeof<T>(), q += 4 * sizeof<T>()) store4<T>(q, f32x4.mul(exp4(f32x4.sub(load4<T>(p), mv)), scales));
    for (i -= 4; i < len; i++, p += sizeof<T>(), q += sizeof<T>()) store1<T>(q, f32x4.extract_lane(exp4(f32x4.splat(load1<T>(p) - m)), 0) * scale);
  }
}
// words: src, dst, partials, n, chunk, chunks per row; unit: one chunk. dst may be src.
export function scale_f32(a: usize, begin: i32, end: i32): void {
  scaleRows<f32>(a, begin, end);
}
export function scale_f16(a: usize, begin: i32, end: i32): void {
  scaleRows<i16>(a, begin, end);
}
export function scale_bf16(a: usize, begin: i32, end: i32): void {
  scaleRows<u16>(a, begin, end);
}

// @ts-ignore: decorator
@inline
function logsumexpRows<T>(a: usize, begin: i32, end: i32): void {
  const partials = load<usize>(a), dst = load<usize>(a, 4);
  const chunks = load<i32>(a, 8);
  for (let u = begin; u < end; u++) {
    const row = partials + ((<usize>u * <usize>chunks) << 4);
    const m = partialsMax(row, chunks);
    const sum = partialsSum(row, chunks, origin(m));
    const y = m == Infinity ? m : <f32>(log1d(sum) + <f64>origin(m));
    store1<T>(dst + <usize>u * sizeof<T>(), y);
  }
}
// words: partials, dst, chunks per row; unit: one row
export function logsumexp_f32(a: usize, begin: i32, end: i32): void {
  logsumexpRows<f32>(a, begin, end);
}
export function logsumexp_f16(a: usize, begin: i32, end: i32): void {
  logsumexpRows<i16>(a, begin, end);
}
export function logsumexp_bf16(a: usize, begin: i32, end: i32): void {
  logsumexpRows<u16>(a, begin, end);
}

/** Largest element of a float64 row; NaN is passed over, and a row without a finite element gives `none`. */
function rowMax64(p: usize, n: i32, none: f64): f64 {
  let m: f64 = -Infinity;
  for (let i = 0; i < n; i++, p += 8) {
    const x = load<f64>(p);
    if (x > m) m = x;
  }
  return m == -Infinity ? none : m;
}
/** Sum of exp(x - m); with q each term is stored there. */
function expSum64(p: usize, n: i32, m: f64, q: usize): f64 {
  const mv = f64x2.splat(m);
  let s = f64x2.splat(0);
  let i = 2;
  for (; i <= n; i += 2, p += 16) {
    const e = exp2d(f64x2.sub(v128.load(p), mv));
    s = f64x2.add(s, e);
    if (q) {
      v128.store(q, e);
      q += 16;
    }
  }
  let total = f64x2.extract_lane(s, 0) + f64x2.extract_lane(s, 1);
  if (i - 2 < n) {
    const e = exp1d(load<f64>(p) - m);
    total += e;
    if (q) store<f64>(q, e);
  }
  return total;
}
// words: src, dst, n; unit: one row. dst may be src.
export function softmax_f64(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8);
  for (let u = begin; u < end; u++) {
    const p = src + ((<usize>u * <usize>n) << 3);
    let q = dst + ((<usize>u * <usize>n) << 3);
    const total = expSum64(p, n, rowMax64(p, n, 0), q);
    for (let i = 0; i < n; i++, q += 8) store<f64>(q, load<f64>(q) / total);
  }
}
// words: src, dst, n; unit: one row
export function logsumexp_f64(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8);
  for (let u = begin; u < end; u++) {
    const p = src + ((<usize>u * <usize>n) << 3);
    const m = rowMax64(p, n, 0);
    store<f64>(dst + (<usize>u << 3), m == Infinity ? m : log1d(expSum64(p, n, m, 0)) + m);
  }
}
