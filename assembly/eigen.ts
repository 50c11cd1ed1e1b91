/** Singular values and eigenvalues of dense matrices. One unit takes every `step`-th matrix of a batch; the arithmetic is float64 for both element types. */
import { axpy, dot, largest, loadTransposed, loadVector, put, reflector, rotate, scale, setIdentity, storeNaN, storeTransposed, storeVector, swapRows } from "./lib/dense";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

// Words as in linalg.ts: 0 matrices, 1 unused, 2 3 4 outputs, 5 rows, 6 columns, 7 number of matrices, 8 step, 9 work areas (0: this thread's scratch),
// 10 bytes of a work area, 11 1 for float64 elements and 0 for float32, 12 a flag of the kernel, 13 1 when vectors are wanted.

/** Relative size of what is rounding noise. */
// @ts-ignore: decorator
@inline const EPS: f64 = 2.220446049250313e-16;

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

// ---- singular values

/** Rotates rows p and q of g (and of v) so that they are orthogonal. Returns false when they were. `squares` holds the squared lengths of g's rows. */
function orthogonalize(g: usize, v: usize, squares: usize, p: i32, q: i32, n: i32, noise: f64, tolerance: f64): bool {
  const a = load<f64>(at(squares, p));
  const b = load<f64>(at(squares, q));
  if (a <= noise || b <= noise) return false;
  const c = dot(row(g, p, n), row(g, q, n), n);
  if (Math.abs(c) <= tolerance * Math.sqrt(a * b)) return false;
  const zeta = (b - a) / (2.0 * c);
  const t = (zeta >= 0 ? 1.0 : -1.0) / (Math.abs(zeta) + Math.sqrt(1.0 + zeta * zeta));
  const cosine = 1.0 / Math.sqrt(1.0 + t * t);
  rotate(row(g, p, n), row(g, q, n), n, cosine, cosine * t);
  if (v) rotate(row(v, p, n), row(v, q, n), n, cosine, cosine * t);
  // The update cancels for the shorter one: then it is measured again.
  let x = a - t * c;
  let y = b + t * c;
  if (x < 0.01 * a) x = dot(row(g, p, n), row(g, p, n), n);
  if (y < 0.01 * b) y = dot(row(g, q, n), row(g, q, n), n);
  store<f64>(at(squares, p), x);
  store<f64>(at(squares, q), y);
  return true;
}

/** One-sided Jacobi (Hestenes 1958): makes the n rows of g orthogonal by rotations that v collects (0: not wanted). Rows shorter than `noise` are left alone. */
function hestenes(g: usize, v: usize, squares: usize, n: i32, noise: f64, tolerance: f64): void {
  if (v) setIdentity(v, n);
  for (let sweep = 0; sweep < 60; sweep++) {
    let longest = 0.0;
    for (let j = 0; j < n; j++) {
      const s = dot(row(g, j, n), row(g, j, n), n);
      store<f64>(at(squares, j), s);
      longest = max(longest, s);
    }
    let rotated = false;
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) if (orthogonalize(g, v, squares, p, q, n, longest * noise * noise, tolerance)) rotated = true;
    }
    if (!rotated) return;
  }
}

/** Puts the n rows in descending order of length and makes them unit vectors; their lengths go to s. Returns how many are longer than `noise` times the first. */
function sortRows(g: usize, v: usize, s: usize, n: i32, noise: f64): i32 {
  for (let j = 0; j < n; j++) store<f64>(at(s, j), Math.sqrt(dot(row(g, j, n), row(g, j, n), n)));
  for (let j = 0; j < n; j++) {
    let best = j;
    for (let i = j + 1; i < n; i++) if (load<f64>(at(s, i)) > load<f64>(at(s, best))) best = i;
    if (best == j) continue;
    swapRows(at(s, j), at(s, best), 1);
    swapRows(row(g, j, n), row(g, best, n), n);
    if (v) swapRows(row(v, j, n), row(v, best, n), n);
  }
  let rank = 0;
  for (let j = 0; j < n; j++) {
    const length = load<f64>(at(s, j));
    if (!(length > load<f64>(s) * noise)) break;
    scale(1.0 / length, row(g, j, n), n);
    rank++;
  }
  return rank;
}

/** Completes k orthonormal rows of length n to n of them: unit vectors, the farthest from what is there first, by Gram-Schmidt done twice. */
function complete(g: usize, left: usize, k: i32, n: i32): void {
  for (let c = 0; c < n; c++) {
    let inside = 0.0;
    for (let j = 0; j < k; j++) {
      const x = load<f64>(at(row(g, j, n), c));
      inside += x * x;
    }
    store<f64>(at(left, c), 1.0 - inside);
  }
  for (let j = k; j < n; j++) {
    let best = 0;
    for (let c = 1; c < n; c++) if (load<f64>(at(left, c)) > load<f64>(at(left, best))) best = c;
    const x = row(g, j, n);
    memory.fill(x, 0, <usize>n << 3);
    store<f64>(at(x, best), 1);
    for (let pass = 0; pass < 2; pass++) for (let i = 0; i < j; i++) axpy(-dot(row(g, i, n), x, n), row(g, i, n), x, n);
    scale(1.0 / Math.sqrt(dot(x, x, n)), x, n);
    for (let c = 0; c < n; c++) {
      const y = load<f64>(at(x, c));
      store<f64>(at(left, c), load<f64>(at(left, c)) - y * y);
    }
  }
}

/** Householder QR with column pivoting (Businger and Golub 1965) of the matrix whose n columns of length m >= n are the rows of w; `order` tells which column stands where. */
function pivotedReflectors(w: usize, tau: usize, order: usize, m: i32, n: i32): void {
  for (let j = 0; j < n; j++) store<i32>(order + (<usize>j << 2), j);
  for (let j = 0; j < n; j++) {
    let best = j;
    let most = -1.0;
    for (let c = j; c < n; c++) {
      const x = at(row(w, c, m), j);
      const s = dot(x, x, m - j);
      if (s > most) {
        most = s;
        best = c;
      }
    }
    if (best != j) {
      swapRows(row(w, j, m), row(w, best, m), m);
      const o = load<i32>(order + (<usize>j << 2));
      store<i32>(order + (<usize>j << 2), load<i32>(order + (<usize>best << 2)));
      store<i32>(order + (<usize>best << 2), o);
    }
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

/** x becomes Q x, for the reflectors in w. */
function applyReflectors(w: usize, tau: usize, x: usize, m: i32, n: i32): void {
  for (let j = n - 1; j >= 0; j--) {
    const t = load<f64>(at(tau, j));
    if (t == 0) continue;
    const v = at(row(w, j, m), j);
    const beta = load<f64>(v);
    store<f64>(v, 1);
    axpy(-t * dot(v, at(x, j), m - j), v, at(x, j), m - j);
    store<f64>(v, beta);
  }
}

/** The factor of the longer side, m x m, one vector at a time: Q (v[j], 0) for j < n, and Q e_j. They are columns of `out` if `columns`, else rows. */
function storeLong(out: usize, w: usize, tau: usize, v: usize, x: usize, m: i32, n: i32, columns: bool, double: bool): void {
  for (let j = 0; j < m; j++) {
    memory.fill(x, 0, <usize>m << 3);
    if (j < n) memory.copy(x, row(v, j, n), <usize>n << 3);
    else store<f64>(at(x, j), 1);
    applyReflectors(w, tau, x, m, n);
    for (let i = 0; i < m; i++) put(out, columns ? <usize>i * <usize>m + <usize>j : <usize>j * <usize>m + <usize>i, load<f64>(at(x, i)), double);
  }
}
/** The factor of the shorter side, n x n: rows of g with their elements back in the order before pivoting. */
function storeShort(out: usize, g: usize, order: usize, n: i32, columns: bool, double: bool): void {
  for (let j = 0; j < n; j++) {
    for (let c = 0; c < n; c++) {
      const i = load<i32>(order + (<usize>c << 2));
      put(out, columns ? <usize>i * <usize>n + <usize>j : <usize>j * <usize>n + <usize>i, load<f64>(at(row(g, j, n), c)), double);
    }
  }
}

/**
 * U (word 2, rows^2), S (word 3) and V^T (word 4, cols^2); without vectors only S. Descending singular values; a matrix with NaN or infinities gives NaN. B, the matrix or its
 * transpose, with M >= N, is factored as Q R P^T; Jacobi makes the rows of R orthogonal, which converges faster than on B (Drmac and Veselic 2008).
 * Work: M N + 2 N^2 + M + 3 N float64 and N int32.
 */
export function svd(a: usize, begin: i32, end: i32): void {
  const rows = load<i32>(a, 20), cols = load<i32>(a, 24), count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0, vectors = load<i32>(a, 52) != 0;
  const tall = rows >= cols;
  const m = max(rows, cols), n = min(rows, cols);
  const noise = EPS * <f64>(m + n);
  const items = element(double);
  for (let u = begin; u < end; u++) {
    const w = areaOf(a, u);
    const g = row(w, n, m), acc = row(g, n, n), x = row(acc, n, n), s = at(x, m), left = at(s, n), tau = at(left, n), order = at(tau, n);
    const v: usize = vectors ? acc : 0;
    for (let i = u; i < count; i += step) {
      const first = <usize>i * <usize>rows * <usize>cols;
      if (tall) loadTransposed(w, load<usize>(a), first, rows, cols, double);
      else loadVector(w, load<usize>(a), first, rows * cols, double);
      const size = largest(w, <usize>m * <usize>n);
      if (size - size != 0) {
        noDecomposition(a, i, rows, cols, vectors, double);
        continue;
      }
      if (size > 0) scale(1.0 / size, w, m * n);
      pivotedReflectors(w, tau, order, m, n);
      for (let j = 0; j < n; j++) for (let c = 0; c < n; c++) store<f64>(at(row(g, j, n), c), c < j ? 0.0 : load<f64>(at(row(w, c, m), j)));
      // Angles below float32's precision need no rotation when the result is float32.
      hestenes(g, v, s, n, noise, double ? 1e-15 : 1e-10);
      const rank = sortRows(g, v, s, n, noise);
      scale(size, s, n);
      storeVector(load<usize>(a, 12), <usize>i * <usize>n, s, n, double);
      if (!vectors) continue;
      complete(g, left, rank, n);
      const uOut = load<usize>(a, 8) + <usize>i * <usize>rows * <usize>rows * items;
      const vOut = load<usize>(a, 16) + <usize>i * <usize>cols * <usize>cols * items;
      storeLong(tall ? uOut : vOut, w, tau, v, x, m, n, tall, double);
      storeShort(tall ? vOut : uOut, g, order, n, !tall, double);
    }
  }
}
// @ts-ignore: decorator
@inline
function element(double: bool): usize {
  return double ? 8 : 4;
}
function noDecomposition(a: usize, i: i32, rows: i32, cols: i32, vectors: bool, double: bool): void {
  const n = min(rows, cols);
  storeNaN(load<usize>(a, 12), <usize>i * <usize>n, n, double);
  if (!vectors) return;
  storeNaN(load<usize>(a, 8), <usize>i * <usize>rows * <usize>rows, <usize>rows * <usize>rows, double);
  storeNaN(load<usize>(a, 16), <usize>i * <usize>cols * <usize>cols, <usize>cols * <usize>cols, double);
}

// ---- symmetric matrices

/** Householder reduction of a symmetric matrix to tridiagonal form (Golub and Van Loan, algorithm 8.3.1): d the diagonal, e what lies beside it, reflectors in the rows of w. */
function tridiagonalize(w: usize, d: usize, e: usize, tau: usize, p: usize, n: i32): void {
  for (let k = 0; k < n - 1; k++) {
    const size = n - k - 1;
    const v = at(row(w, k, n), k + 1);
    store<f64>(at(d, k), load<f64>(at(row(w, k, n), k)));
    const t = reflector(v, size);
    store<f64>(at(tau, k), t);
    store<f64>(at(e, k), load<f64>(v));
    if (t == 0) continue;
    store<f64>(v, 1);
    for (let i = 0; i < size; i++) store<f64>(at(p, i), t * dot(at(row(w, k + 1 + i, n), k + 1), v, size));
    axpy(-0.5 * t * dot(p, v, size), v, p, size);
    for (let i = 0; i < size; i++) {
      const r = at(row(w, k + 1 + i, n), k + 1);
      axpy(-load<f64>(at(v, i)), p, r, size);
      axpy(-load<f64>(at(p, i)), v, r, size);
    }
  }
  store<f64>(at(d, n - 1), load<f64>(at(row(w, n - 1, n), n - 1)));
  store<f64>(at(e, n - 1), 0);
}

/** Rows of z become those of Q^T, for the reflectors that `tridiagonalize` left in w. */
function collectReflectors(w: usize, z: usize, tau: usize, n: i32): void {
  setIdentity(z, n);
  for (let k = n - 2; k >= 0; k--) {
    const t = load<f64>(at(tau, k));
    if (t == 0) continue;
    const v = at(row(w, k, n), k + 1);
    for (let i = k + 1; i < n; i++) {
      const r = at(row(z, i, n), k + 1);
      axpy(-t * dot(r, v, n - k - 1), v, r, n - k - 1);
    }
  }
}

/** One implicit QL step with Wilkinson's shift on rows l .. m of a tridiagonal matrix; the rotations are applied to the rows of z (0: not wanted). */
function stepQL(d: usize, e: usize, z: usize, l: i32, m: i32, n: i32): void {
  let g = (load<f64>(at(d, l + 1)) - load<f64>(at(d, l))) / (2.0 * load<f64>(at(e, l)));
  const r0 = Math.sqrt(g * g + 1.0);
  g = load<f64>(at(d, m)) - load<f64>(at(d, l)) + load<f64>(at(e, l)) / (g + (g >= 0 ? r0 : -r0));
  let s = 1.0, c = 1.0, p = 0.0;
  for (let i = m - 1; i >= l; i--) {
    const f = s * load<f64>(at(e, i));
    const b = c * load<f64>(at(e, i));
    const r = Math.sqrt(f * f + g * g);
    store<f64>(at(e, i + 1), r);
    if (r == 0) {
      store<f64>(at(d, i + 1), load<f64>(at(d, i + 1)) - p);
      store<f64>(at(e, m), 0);
      return;
    }
    s = f / r;
    c = g / r;
    g = load<f64>(at(d, i + 1)) - p;
    const q = (load<f64>(at(d, i)) - g) * s + 2.0 * c * b;
    p = s * q;
    store<f64>(at(d, i + 1), g + p);
    g = c * q - b;
    if (z) rotate(row(z, i, n), row(z, i + 1, n), n, c, s);
  }
  store<f64>(at(d, l), load<f64>(at(d, l)) - p);
  store<f64>(at(e, l), g);
  store<f64>(at(e, m), 0);
}

/** Eigenvalues (in d) of a tridiagonal matrix by the implicit QL method (Dubrulle, Martin and Wilkinson 1968). Returns false when it does not converge. */
function diagonalize(d: usize, e: usize, z: usize, n: i32): bool {
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      for (; m < n - 1; m++) {
        const size = Math.abs(load<f64>(at(d, m))) + Math.abs(load<f64>(at(d, m + 1)));
        if (Math.abs(load<f64>(at(e, m))) <= EPS * size + 1e-290) break;
      }
      if (m == l) break;
      if (iteration == 60) return false;
      stepQL(d, e, z, l, m, n);
    }
  }
  return true;
}

function sortAscending(d: usize, z: usize, n: i32): void {
  for (let j = 0; j < n; j++) {
    let best = j;
    for (let i = j + 1; i < n; i++) if (load<f64>(at(d, i)) < load<f64>(at(d, best))) best = i;
    if (best == j) continue;
    swapRows(at(d, j), at(d, best), 1);
    if (z) swapRows(row(z, j, n), row(z, best, n), n);
  }
}

/** Copies one triangle (`upper`) over the other. */
function symmetrize(w: usize, n: i32, upper: bool): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const low = at(row(w, i, n), j);
      const high = at(row(w, j, n), i);
      if (upper) store<f64>(low, load<f64>(high));
      else store<f64>(high, load<f64>(low));
    }
  }
}

/**
 * Ascending eigenvalues (output 0) and, when wanted, eigenvectors in columns (output 1). Flag 1: the upper triangle is read, 0: the lower. A matrix with NaN or
 * infinities gives NaN. Work: 2 n^2 + 4 n float64 (without vectors n^2 + 4 n).
 */
export function eigh(a: usize, begin: i32, end: i32): void {
  const n = load<i32>(a, 20), count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0, upper = load<i32>(a, 48) != 0, vectors = load<i32>(a, 52) != 0;
  const size = <usize>n * <usize>n;
  for (let u = begin; u < end; u++) {
    const w = areaOf(a, u);
    const d = w + (size << 3);
    const e = at(d, n), tau = at(e, n), p = at(tau, n);
    const z: usize = vectors ? at(p, n) : 0;
    for (let i = u; i < count; i += step) {
      loadVector(w, load<usize>(a), <usize>i * size, n * n, double);
      symmetrize(w, n, upper);
      const most = largest(w, size);
      let ok = most - most == 0;
      if (ok) {
        if (most > 0) scale(1.0 / most, w, n * n);
        tridiagonalize(w, d, e, tau, p, n);
        if (z) collectReflectors(w, z, tau, n);
        ok = diagonalize(d, e, z, n);
      }
      if (!ok) {
        storeNaN(load<usize>(a, 8), <usize>i * <usize>n, n, double);
        if (z) storeNaN(load<usize>(a, 12), <usize>i * size, size, double);
        continue;
      }
      sortAscending(d, z, n);
      scale(most, d, n);
      storeVector(load<usize>(a, 8), <usize>i * <usize>n, d, n, double);
      if (z) storeTransposed(load<usize>(a, 12), <usize>i * size, n, n, z, double);
    }
  }
}
