/** Factorizations and solutions of dense matrices. One unit takes every `step`-th matrix of a batch; the arithmetic is float64 for both element types. */
import { axpy, dot, loadTransposed, loadVector, put, reflector, scale, setIdentity, storeNaN, storeTransposed, storeVector, swapRows } from "./lib/dense";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

// Words of all kernels: 0 matrices, 1 right sides or 0, 2 3 4 outputs, 5 rows, 6 columns, 7 number of matrices, 8 step, 9 work areas (0: this thread's scratch),
// 10 bytes of a work area, 11 1 for float64 elements and 0 for float32, 12 a flag of the kernel, 13 columns of a right side.

// @ts-ignore: decorator
@inline
function areaOf(a: usize, unit: i32): usize {
  const areas = load<usize>(a, 36);
  return areas ? areas + <usize>unit * load<usize>(a, 40) : SCRATCH;
}
// @ts-ignore: decorator
@inline
function row(x: usize, i: i32, n: i32): usize {
  return x + ((<usize>i * <usize>n) << 3);
}
// @ts-ignore: decorator
@inline
function at(x: usize, i: i32): usize {
  return x + (<usize>i << 3);
}

/** LU with partial pivoting, row by row (Golub and Van Loan, algorithm 3.4.1). Returns false when a pivot is zero or no number; its column is then left as it is. */
function factorize(lu: usize, pivots: usize, m: i32, n: i32): bool {
  const k = min(m, n);
  let regular = true;
  for (let j = 0; j < k; j++) {
    let p = j;
    let best = Math.abs(load<f64>(at(row(lu, j, n), j)));
    for (let i = j + 1; i < m; i++) {
      const v = Math.abs(load<f64>(at(row(lu, i, n), j)));
      if (v > best) {
        best = v;
        p = i;
      }
    }
    store<i32>(pivots + (<usize>j << 2), p);
    const top = row(lu, j, n);
    if (p != j) swapRows(top, row(lu, p, n), n);
    if (!(best > 0)) {
      regular = false;
      continue;
    }
    const d = load<f64>(at(top, j));
    for (let i = j + 1; i < m; i++) {
      const r = row(lu, i, n);
      const f = load<f64>(at(r, j)) / d;
      store<f64>(at(r, j), f);
      if (f != 0) axpy(-f, at(top, j + 1), at(r, j + 1), n - j - 1);
    }
  }
  return regular;
}

/** X becomes L^-1 X; L is the lower triangle of the n x n matrix, with ones on its diagonal when `unit`. X has k columns. */
function solveLower(l: usize, x: usize, n: i32, k: i32, unit: bool): void {
  for (let i = 0; i < n; i++) {
    const target = row(x, i, k);
    const r = row(l, i, n);
    for (let j = 0; j < i; j++) {
      const f = load<f64>(at(r, j));
      if (f != 0) axpy(-f, row(x, j, k), target, k);
    }
    if (!unit) scale(1.0 / load<f64>(at(r, i)), target, k);
  }
}
function solveUpper(u: usize, x: usize, n: i32, k: i32): void {
  for (let i = n - 1; i >= 0; i--) {
    const target = row(x, i, k);
    const r = row(u, i, n);
    for (let j = i + 1; j < n; j++) {
      const f = load<f64>(at(r, j));
      if (f != 0) axpy(-f, row(x, j, k), target, k);
    }
    scale(1.0 / load<f64>(at(r, i)), target, k);
  }
}

/** Factors in one matrix (output 0), row exchanges (output 1, uint32) and the permutation P with A = L[P] U (output 2, uint32). Work: rows * cols float64, then rows int32. */
export function lu(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), m = load<i32>(a, 20), n = load<i32>(a, 24);
  const count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0;
  const k = min(m, n);
  const size = <usize>m * <usize>n;
  for (let u = begin; u < end; u++) {
    const w = areaOf(a, u);
    const pivots = w + (size << 3);
    for (let i = u; i < count; i += step) {
      loadVector(w, src, <usize>i * size, m * n, double);
      factorize(w, pivots, m, n);
      storeVector(load<usize>(a, 8), <usize>i * size, w, m * n, double);
      const exchanges = load<usize>(a, 12) + ((<usize>i * <usize>k) << 2);
      const order = load<usize>(a, 16) + ((<usize>i * <usize>m) << 2);
      memory.copy(exchanges, pivots, <usize>k << 2);
      for (let j = 0; j < m; j++) store<i32>(order + (<usize>j << 2), j);
      for (let j = k - 1; j >= 0; j--) {
        const p = order + (<usize>load<i32>(pivots + (<usize>j << 2)) << 2);
        const q = order + (<usize>j << 2);
        const t = load<i32>(p);
        store<i32>(p, load<i32>(q));
        store<i32>(q, t);
      }
    }
  }
}

/** True when the diagonal has no zero and no NaN. */
function regularDiagonal(w: usize, n: i32): bool {
  for (let i = 0; i < n; i++) if (!(Math.abs(load<f64>(at(row(w, i, n), i))) > 0)) return false;
  return true;
}

/**
 * X = A^-1 B (output 0); without right sides B is the identity. Flag: 0 general, 1 lower triangle, 2 upper triangle (the other triangle is not read).
 * A singular matrix gives NaN. Work: n^2 + n k float64, then n int32.
 */
export function solve(a: usize, begin: i32, end: i32): void {
  const b = load<usize>(a, 4), out = load<usize>(a, 8), n = load<i32>(a, 20), count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0, kind = load<i32>(a, 48), k = load<i32>(a, 52);
  const size = <usize>n * <usize>n, result = <usize>n * <usize>k;
  for (let u = begin; u < end; u++) {
    const w = areaOf(a, u);
    const x = w + (size << 3);
    const pivots = x + (result << 3);
    for (let i = u; i < count; i += step) {
      loadVector(w, load<usize>(a), <usize>i * size, <i32>size, double);
      if (b) loadVector(x, b, <usize>i * result, <i32>result, double);
      else setIdentity(x, n);
      if (!(kind == 0 ? factorize(w, pivots, n, n) : regularDiagonal(w, n))) {
        storeNaN(out, <usize>i * result, result, double);
        continue;
      }
      if (kind == 0) {
        for (let j = 0; j < n; j++) {
          const p = load<i32>(pivots + (<usize>j << 2));
          if (p != j) swapRows(row(x, j, k), row(x, p, k), k);
        }
      }
      if (kind != 2) solveLower(w, x, n, k, kind == 0);
      if (kind != 1) solveUpper(w, x, n, k);
      storeVector(out, <usize>i * result, x, <i32>result, double);
    }
  }
}

/** Lower triangle L with A = L L^T in place (Cholesky-Banachiewicz); the upper triangle is not read. Returns false when A is not positive definite. */
/** Part of a float32 diagonal element that its rounding alone can be off by: a pivot of no more than that below 0 counts as that. */
const singleRounding: f64 = 1.1920928955078125e-7;
function choleskyInPlace(w: usize, n: i32, double: bool): bool {
  for (let i = 0; i < n; i++) {
    const ri = row(w, i, n);
    for (let j = 0; j < i; j++) {
      const rj = row(w, j, n);
      store<f64>(at(ri, j), (load<f64>(at(ri, j)) - dot(ri, rj, j)) / load<f64>(at(rj, j)));
    }
    const whole = load<f64>(at(ri, i));
    const rounding = double ? 0.0 : singleRounding * Math.abs(whole);
    let d = whole - dot(ri, ri, i);
    if (!(d > -rounding)) return false;
    d = max(d, rounding);
    if (!(d > 0)) return false;
    store<f64>(at(ri, i), Math.sqrt(d));
    for (let j = i + 1; j < n; j++) store<f64>(at(ri, j), 0);
  }
  return true;
}

/** Cholesky factor (output 0); flag 1: the upper one, from the upper triangle. A matrix that is not positive definite gives NaN. Work: n^2 float64. */
export function cholesky(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), out = load<usize>(a, 8), n = load<i32>(a, 20), count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0, upper = load<i32>(a, 48) != 0;
  const size = <usize>n * <usize>n;
  for (let u = begin; u < end; u++) {
    const w = areaOf(a, u);
    for (let i = u; i < count; i += step) {
      const first = <usize>i * size;
      if (upper) loadTransposed(w, src, first, n, n, double);
      else loadVector(w, src, first, <i32>size, double);
      if (!choleskyInPlace(w, n, double)) storeNaN(out, first, size, double);
      else if (upper) storeTransposed(out, first, n, n, w, double);
      else storeVector(out, first, w, <i32>size, double);
    }
  }
}

/** Householder QR of the m x n matrix whose columns are the rows of w (Golub and Van Loan, algorithm 5.2.1): reflectors below the diagonal, their factors in tau. */
function reflectColumns(w: usize, tau: usize, m: i32, n: i32): void {
  const k = min(m, n);
  for (let j = 0; j < k; j++) {
    const v = at(row(w, j, m), j);
    const t = reflector(v, m - j);
    store<f64>(at(tau, j), t);
    if (t == 0) continue;
    const beta = load<f64>(v);
    store<f64>(v, 1);
    for (let c = j + 1; c < n; c++) {
      const x = at(row(w, c, m), j);
      axpy(-t * dot(v, x, m - j), v, x, m - j);
    }
    store<f64>(v, beta);
  }
}

/** Q (output 0, m x k) and R (output 1, k x n), k = min(m, n). Work: n m + k m + k float64. */
export function qr(a: usize, begin: i32, end: i32): void {
  const m = load<i32>(a, 20), n = load<i32>(a, 24), count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0;
  const k = min(m, n);
  for (let u = begin; u < end; u++) {
    const w = areaOf(a, u);
    const q = row(w, n, m);
    const tau = row(q, k, m);
    for (let i = u; i < count; i += step) {
      loadTransposed(w, load<usize>(a), <usize>i * <usize>m * <usize>n, m, n, double);
      reflectColumns(w, tau, m, n);
      const r = load<usize>(a, 12);
      for (let j = 0; j < k; j++) {
        const first = (<usize>i * <usize>k + <usize>j) * <usize>n;
        for (let c = 0; c < n; c++) put(r, first + <usize>c, c < j ? 0.0 : load<f64>(at(row(w, c, m), j)), double);
      }
      memory.fill(q, 0, (<usize>k * <usize>m) << 3);
      for (let j = k - 1; j >= 0; j--) {
        store<f64>(at(row(q, j, m), j), 1);
        const t = load<f64>(at(tau, j));
        if (t == 0) continue;
        const v = at(row(w, j, m), j);
        store<f64>(v, 1);
        for (let c = j; c < k; c++) {
          const x = at(row(q, c, m), j);
          axpy(-t * dot(v, x, m - j), v, x, m - j);
        }
      }
      storeTransposed(load<usize>(a, 8), <usize>i * <usize>m * <usize>k, m, k, q, double);
    }
  }
}
