/** Normalisation over the last axis. One unit is one row; sums are float32 and the result is rounded once. */
import { high8, load1, load4, low8, madd, raw8, store1, store4, store8, sum4 } from "./lib/half";

// Words of all kernels here: 0 x, 1 weight or 0, 2 bias or 0 (layerNorm), 3 out, 4 N (row length), 5 eps (f32),
// 6 rows per outer step, 7 stride of the outer step, 8 stride of a row (elements). Row r starts at (r / w6) * w7 + (r % w6) * w8.

// @ts-ignore: decorator
@inline
function rowStart<T>(a: usize, r: u32): usize {
  const inner = load<u32>(a, 24);
  const at = (r / inner) * load<u32>(a, 28) + (r % inner) * load<u32>(a, 32);
  return load<u32>(a) + at * sizeof<T>();
}

function sumSquares<T>(x: usize, n: u32): f32 {
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  let i: u32 = 0;
  for (; i + 16 <= n; i += 16) {
    const p = x + i * sizeof<T>();
    const q = p + 8 * sizeof<T>();
    const r = raw8<T>(p);
    const t = raw8<T>(q);
    const v0 = low8<T>(r, p);
    const v1 = high8<T>(r, p);
    const v2 = low8<T>(t, q);
    const v3 = high8<T>(t, q);
    s0 = madd(v0, v0, s0);
    s1 = madd(v1, v1, s1);
    s2 = madd(v2, v2, s2);
    s3 = madd(v3, v3, s3);
  }
  for (; i + 4 <= n; i += 4) {
    const v = load4<T>(x + i * sizeof<T>());
    s0 = madd(v, v, s0);
  }
  let s = sum4(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  for (; i < n; i++) {
    const v = load1<T>(x + i * sizeof<T>());
    s += v * v;
  }
  return s;
}

function rms<T>(a: usize, begin: i32, end: i32): void {
  const n = load<u32>(a, 16);
  const w = <usize>load<u32>(a, 4);
  const eps = load<f32>(a, 20);
  for (let r: u32 = begin; r < <u32>end; r++) {
    const x = rowStart<T>(a, r);
    const out = <usize>load<u32>(a, 12) + r * n * sizeof<T>();
    const k: f32 = <f32>1 / sqrt<f32>(sumSquares<T>(x, n) / <f32>n + eps);
    const kv = f32x4.splat(k);
    let i: u32 = 0;
    if (w) {
      for (; i + 8 <= n; i += 8) {
        const p = x + i * sizeof<T>();
        const q = w + i * sizeof<T>();
        const v = raw8<T>(p);
        const g = raw8<T>(q);
        store8<T>(out + i * sizeof<T>(), f32x4.mul(f32x4.mul(low8<T>(v, p), kv), low8<T>(g, q)), f32x4.mul(f32x4.mul(high8<T>(v, p), kv), high8<T>(g, q)));
      }
      for (; i < n; i++) store1<T>(out + i * sizeof<T>(), load1<T>(x + i * sizeof<T>()) * k * load1<T>(w + i * sizeof<T>()));
    } else {
      for (; i + 8 <= n; i += 8) {
        const p = x + i * sizeof<T>();
        const v = raw8<T>(p);
        store8<T>(out + i * sizeof<T>(), f32x4.mul(low8<T>(v, p), kv), f32x4.mul(high8<T>(v, p), kv));
      }
      for (; i < n; i++) store1<T>(out + i * sizeof<T>(), load1<T>(x + i * sizeof<T>()) * k);
    }
  }
}

function mean<T>(x: usize, n: u32): f32 {
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let i: u32 = 0;
  for (; i + 8 <= n; i += 8) {
    const p = x + i * sizeof<T>();
    const r = raw8<T>(p);
    s0 = f32x4.add(s0, low8<T>(r, p));
    s1 = f32x4.add(s1, high8<T>(r, p));
  }
  let s = sum4(f32x4.add(s0, s1));
  for (; i < n; i++) s += load1<T>(x + i * sizeof<T>());
  return s / <f32>n;
}

/** Mean of the squared distances from `mu`: a second pass, because E[x^2] - mu^2 cancels. */
function variance<T>(x: usize, n: u32, mu: f32): f32 {
  const m = f32x4.splat(mu);
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let i: u32 = 0;
  for (; i + 8 <= n; i += 8) {
    const p = x + i * sizeof<T>();
    const r = raw8<T>(p);
    const d0 = f32x4.sub(low8<T>(r, p), m);
    const d1 = f32x4.sub(high8<T>(r, p), m);
    s0 = madd(d0, d0, s0);
    s1 = madd(d1, d1, s1);
  }
  let s = sum4(f32x4.add(s0, s1));
  for (; i < n; i++) {
    const d = load1<T>(x + i * sizeof<T>()) - mu;
    s += d * d;
  }
  return s / <f32>n;
}

function layer<T>(a: usize, begin: i32, end: i32): void {
  const n = load<u32>(a, 16);
  const w = <usize>load<u32>(a, 4);
  const b = <usize>load<u32>(a, 8);
  const eps = load<f32>(a, 20);
  for (let r: u32 = begin; r < <u32>end; r++) {
    const x = rowStart<T>(a, r);
    const out = <usize>load<u32>(a, 12) + r * n * sizeof<T>();
    const mu = mean<T>(x, n);
    const k: f32 = <f32>1 / sqrt<f32>(variance<T>(x, n, mu) + eps);
    const mv = f32x4.splat(mu);
    const kv = f32x4.splat(k);
    let i: u32 = 0;
    for (; i + 4 <= n; i += 4) {
      let v = f32x4.mul(f32x4.sub(load4<T>(x + i * sizeof<T>()), mv), kv);
      if (w) v = f32x4.mul(v, load4<T>(w + i * sizeof<T>()));
      if (b) v = f32x4.add(v, load4<T>(b + i * sizeof<T>()));
      store4<T>(out + i * sizeof<T>(), v);
    }
    for (; i < n; i++) {
      let v = (load1<T>(x + i * sizeof<T>()) - mu) * k;
      if (w) v *= load1<T>(w + i * sizeof<T>());
      if (b) v += load1<T>(b + i * sizeof<T>());
      store1<T>(out + i * sizeof<T>(), v);
    }
  }
}

export function rms_f32(a: usize, begin: i32, end: i32): void {
  rms<f32>(a, begin, end);
}
export function rms_bf16(a: usize, begin: i32, end: i32): void {
  rms<u16>(a, begin, end);
}
export function rms_f16(a: usize, begin: i32, end: i32): void {
  rms<i16>(a, begin, end);
}
export function layer_f32(a: usize, begin: i32, end: i32): void {
  layer<f32>(a, begin, end);
}
export function layer_bf16(a: usize, begin: i32, end: i32): void {
  layer<u16>(a, begin, end);
}
export function layer_f16(a: usize, begin: i32, end: i32): void {
  layer<i16>(a, begin, end);
}
