/** Eigenvalues and eigenvectors of general real matrices through a complex Schur form. One unit takes every `step`-th matrix of a batch; the arithmetic is float64. */
import { axpy, dot, largest, loadVector, reflector, scale, setIdentity, storeNaN } from "./lib/dense";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

// @ts-ignore: decorator
@inline const EPS: f64 = 2.220446049250313e-16;

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
/** Element (i, j) of an n x n matrix of complex numbers (pairs of float64). */
// @ts-ignore: decorator
@inline
function cell(x: usize, i: i32, j: i32, n: i32): usize {
  return x + ((<usize>i * <usize>n + <usize>j) << 4);
}
// @ts-ignore: decorator
@inline
function size1(p: usize): f64 {
  return Math.abs(load<f64>(p)) + Math.abs(load<f64>(p, 8));
}

/** Householder reduction to Hessenberg form (Golub and Van Loan, algorithm 7.4.2). Rows of z become those of Q^T. v and t are vectors of work. */
function hessenberg(w: usize, z: usize, v: usize, t: usize, n: i32): void {
  setIdentity(z, n);
  for (let k = 0; k < n - 2; k++) {
    const size = n - k - 1;
    for (let i = 0; i < size; i++) store<f64>(at(v, i), load<f64>(at(row(w, k + 1 + i, n), k)));
    const tau = reflector(v, size);
    if (tau == 0) continue;
    store<f64>(v, 1);
    reflectRows(w, v, t, tau, k + 1, size, n);
    reflectRows(z, v, t, tau, k + 1, size, n);
    for (let i = 0; i < n; i++) {
      const r = at(row(w, i, n), k + 1);
      axpy(-tau * dot(r, v, size), v, r, size);
    }
    for (let i = 1; i < size; i++) store<f64>(at(row(w, k + 1 + i, n), k), 0);
  }
}
/** Rows first .. first + size of x are reflected: x becomes (1 - tau v v^T) x. */
function reflectRows(x: usize, v: usize, t: usize, tau: f64, first: i32, size: i32, n: i32): void {
  memory.fill(t, 0, <usize>n << 3);
  for (let i = 0; i < size; i++) axpy(load<f64>(at(v, i)), row(x, first + i, n), t, n);
  for (let i = 0; i < size; i++) axpy(-tau * load<f64>(at(v, i)), t, row(x, first + i, n), n);
}

function toComplex(dst: usize, src: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) {
    store<f64>(dst + (i << 4), load<f64>(src + (i << 3)));
    store<f64>(dst + (i << 4), 0, 8);
  }
}

/** Complex vectors: (x, y) becomes (c x + s y, c y - conj(s) x). */
function rotateComplex(x: usize, y: usize, n: i32, c: f64, sr: f64, si: f64): void {
  for (const stop = x + (<usize>n << 4); x < stop; x += 16, y += 16) {
    const xr = load<f64>(x), xi = load<f64>(x, 8), yr = load<f64>(y), yi = load<f64>(y, 8);
    store<f64>(x, c * xr + sr * yr - si * yi);
    store<f64>(x, c * xi + sr * yi + si * yr, 8);
    store<f64>(y, c * yr - sr * xr - si * xi);
    store<f64>(y, c * yi - sr * xi + si * xr, 8);
  }
}

/** Puts into `mu` the eigenvalue of the 2 x 2 block that ends at `h` which is nearer to its last element (Wilkinson's shift). */
function wilkinson(w: usize, h: i32, n: i32, mu: usize): void {
  const pa = cell(w, h - 1, h - 1, n), pb = cell(w, h - 1, h, n), pc = cell(w, h, h - 1, n), pd = cell(w, h, h, n);
  const dr = load<f64>(pd), di = load<f64>(pd, 8);
  // With p = (a - d) / 2 and q = b c the eigenvalues are d + p +- sqrt(p^2 + q); d - q / (p +- sqrt(p^2 + q)) is the same without cancellation.
  const pr = 0.5 * (load<f64>(pa) - dr), pi = 0.5 * (load<f64>(pa, 8) - di);
  const br = load<f64>(pb), bi = load<f64>(pb, 8), cr = load<f64>(pc), ci = load<f64>(pc, 8);
  const qr = br * cr - bi * ci, qi = br * ci + bi * cr;
  const zr = pr * pr - pi * pi + qr, zi = 2.0 * pr * pi + qi;
  const modulus = Math.sqrt(zr * zr + zi * zi);
  let rr = Math.sqrt(max(0.0, 0.5 * (modulus + zr)));
  let ri = Math.sqrt(max(0.0, 0.5 * (modulus - zr)));
  if (zi < 0) ri = -ri;
  if (pr * rr + pi * ri < 0) {
    rr = -rr;
    ri = -ri;
  }
  const er = pr + rr, ei = pi + ri;
  const square = er * er + ei * ei;
  store<f64>(mu, square > 0 ? dr - (qr * er + qi * ei) / square : dr);
  store<f64>(mu, square > 0 ? di - (qi * er - qr * ei) / square : di, 8);
}

/** One explicitly shifted QR step on rows l .. h of the Hessenberg matrix w; zt holds the columns of the transformation as rows. Rotations go to `turns` (4 float64 each). */
function stepQR(w: usize, zt: usize, turns: usize, mu: usize, l: i32, h: i32, n: i32): void {
  const mr = load<f64>(mu), mi = load<f64>(mu, 8);
  for (let k = l; k <= h; k++) shift(cell(w, k, k, n), -mr, -mi);
  for (let k = l; k < h; k++) {
    const p = cell(w, k, k, n), q = cell(w, k + 1, k, n);
    const ar = load<f64>(p), ai = load<f64>(p, 8), br = load<f64>(q), bi = load<f64>(q, 8);
    const a = Math.sqrt(ar * ar + ai * ai);
    const r = Math.sqrt(a * a + br * br + bi * bi);
    let c = 1.0, sr = 0.0, si = 0.0;
    if (r > 0) {
      c = a / r;
      const ur = a > 0 ? ar / a : 1.0, ui = a > 0 ? ai / a : 0.0;
      sr = (ur * br + ui * bi) / r;
      si = (ui * br - ur * bi) / r;
    }
    rotateComplex(p, q, n - k, c, sr, si);
    const turn = turns + (<usize>k << 5);
    store<f64>(turn, c);
    store<f64>(turn, sr, 8);
    store<f64>(turn, si, 16);
  }
  for (let k = l; k < h; k++) {
    const turn = turns + (<usize>k << 5);
    const c = load<f64>(turn), sr = load<f64>(turn, 8), si = load<f64>(turn, 16);
    for (let i = 0; i <= min(k + 1, h); i++) rotateComplex(cell(w, i, k, n), cell(w, i, k + 1, n), 1, c, sr, -si);
    rotateComplex(cell(zt, k, 0, n), cell(zt, k + 1, 0, n), n, c, sr, -si);
  }
  for (let k = l; k <= h; k++) shift(cell(w, k, k, n), mr, mi);
}
function shift(p: usize, re: f64, im: f64): void {
  store<f64>(p, load<f64>(p) + re);
  store<f64>(p, load<f64>(p, 8) + im, 8);
}

/** Complex Schur form of a Hessenberg matrix by single-shift QR (Golub and Van Loan, section 7.5). Returns false when it does not converge. */
function schurForm(w: usize, zt: usize, turns: usize, n: i32): bool {
  const mu = turns + (<usize>n << 5);
  let h = n - 1;
  for (let iteration = 0; h > 0; iteration++) {
    let l = h;
    for (; l > 0; l--) {
      const beside = cell(w, l, l - 1, n);
      if (size1(beside) <= EPS * (size1(cell(w, l - 1, l - 1, n)) + size1(cell(w, l, l, n))) + 1e-290) {
        store<f64>(beside, 0);
        store<f64>(beside, 0, 8);
        break;
      }
    }
    if (l == h) {
      h--;
      iteration = -1;
      continue;
    }
    if (iteration == 200) return false;
    wilkinson(w, h, n, mu);
    // Symmetric patterns can make the shift a fixed point: now and then another one is taken.
    if (iteration % 10 == 9) shift(mu, size1(cell(w, h, h - 1, n)), 0.5 * size1(cell(w, h, h - 1, n)));
    stepQR(w, zt, turns, mu, l, h, n);
  }
  return true;
}

/** Coefficients x[0 .. k] of eigenvector k of the triangular matrix w in its Schur vectors, by back substitution. */
function backSubstitute(w: usize, x: usize, k: i32, n: i32): void {
  const kr = load<f64>(cell(w, k, k, n)), ki = load<f64>(cell(w, k, k, n), 8);
  store<f64>(x + (<usize>k << 4), 1);
  store<f64>(x + (<usize>k << 4), 0, 8);
  for (let i = k - 1; i >= 0; i--) {
    let sr = 0.0, si = 0.0;
    for (let j = i + 1; j <= k; j++) {
      const t = cell(w, i, j, n), y = x + (<usize>j << 4);
      sr -= load<f64>(t) * load<f64>(y) - load<f64>(t, 8) * load<f64>(y, 8);
      si -= load<f64>(t) * load<f64>(y, 8) + load<f64>(t, 8) * load<f64>(y);
    }
    let dr = load<f64>(cell(w, i, i, n)) - kr, di = load<f64>(cell(w, i, i, n), 8) - ki;
    // Equal eigenvalues: a difference of rounding size gives a vector that is as good as any.
    if (Math.abs(dr) + Math.abs(di) < EPS) {
      dr = EPS;
      di = 0;
    }
    const d = dr * dr + di * di;
    const xr = (sr * dr + si * di) / d, xi = (si * dr - sr * di) / d;
    store<f64>(x + (<usize>i << 4), xr);
    store<f64>(x + (<usize>i << 4), xi, 8);
    if (Math.abs(xr) + Math.abs(xi) > 1e100) scale(1e-100, x + (<usize>i << 4), 2 * (k - i + 1));
  }
}

/** Eigenvector v from its coefficients: unit length, its largest component real. For a real eigenvalue the real part is an eigenvector as well, and the result. */
function eigenvector(zt: usize, x: usize, v: usize, k: i32, n: i32, real: bool): void {
  memory.fill(v, 0, <usize>n << 4);
  const most = largest(x, <usize>(2 * (k + 1)));
  scale(1.0 / most, x, 2 * (k + 1));
  for (let j = 0; j <= k; j++) {
    const xr = load<f64>(x + (<usize>j << 4)), xi = load<f64>(x + (<usize>j << 4), 8);
    for (let i = 0; i < n; i++) {
      const z = cell(zt, j, i, n);
      shift(v + (<usize>i << 4), load<f64>(z) * xr - load<f64>(z, 8) * xi, load<f64>(z) * xi + load<f64>(z, 8) * xr);
    }
  }
  let best = 0.0, br = 1.0, bi = 0.0;
  for (let i = 0; i < n; i++) {
    const vr = load<f64>(v + (<usize>i << 4)), vi = load<f64>(v + (<usize>i << 4), 8);
    const s = vr * vr + vi * vi;
    // Components of equal size differ by rounding: the first of them counts.
    if (s > best * 1.000001) {
      best = s;
      br = vr;
      bi = vi;
    }
  }
  for (let i = 0; i < n; i++) {
    const p = v + (<usize>i << 4);
    const vr = load<f64>(p), vi = load<f64>(p, 8);
    store<f64>(p, vr * br + vi * bi);
    store<f64>(p, real ? 0.0 : vi * br - vr * bi, 8);
  }
  scale(1.0 / Math.sqrt(dot(v, v, 2 * n)), v, 2 * n);
}

/**
 * Eigenvalues (output 0, complex64), in no particular order, and with word 13 eigenvectors in columns (output 1, complex64). Words as in linalg.ts. A matrix with NaN or
 * infinities gives NaN. Work: 6 n^2 + 10 n + 2 float64.
 */
export function eig(a: usize, begin: i32, end: i32): void {
  const n = load<i32>(a, 20), count = load<i32>(a, 28), step = load<i32>(a, 32);
  const double = load<i32>(a, 44) != 0, vectors = load<i32>(a, 52) != 0;
  const values = load<usize>(a, 8), columns = load<usize>(a, 12), areas = load<usize>(a, 36);
  const size = <usize>n * <usize>n;
  for (let u = begin; u < end; u++) {
    const real = areas ? areas + <usize>u * load<usize>(a, 40) : SCRATCH;
    const z = real + (size << 3);
    const w = z + (size << 3);
    const zt = w + (size << 4);
    const x = zt + (size << 4), v = x + (<usize>n << 4), turns = v + (<usize>n << 4);
    for (let i = u; i < count; i += step) {
      loadVector(real, load<usize>(a), <usize>i * size, n * n, double);
      const most = largest(real, size);
      let ok = most - most == 0;
      if (ok) {
        if (most > 0) scale(1.0 / most, real, n * n);
        hessenberg(real, z, x, v, n);
        toComplex(w, real, size);
        toComplex(zt, z, size);
        ok = schurForm(w, zt, turns, n);
      }
      if (!ok) {
        storeNaN(values, <usize>i * <usize>n * 2, <usize>n * 2, false);
        if (vectors) storeNaN(columns, <usize>i * size * 2, size * 2, false);
        continue;
      }
      for (let k = 0; k < n; k++) {
        const p = cell(w, k, k, n);
        const isReal = Math.abs(load<f64>(p, 8)) <= 16.0 * EPS * <f64>n;
        const out = values + (<usize>i * <usize>n + <usize>k) * 8;
        store<f32>(out, <f32>(most * load<f64>(p)));
        store<f32>(out, isReal ? <f32>0 : <f32>(most * load<f64>(p, 8)), 4);
        if (!vectors) continue;
        backSubstitute(w, x, k, n);
        eigenvector(zt, x, v, k, n, isReal);
        for (let j = 0; j < n; j++) {
          const to = columns + (<usize>i * size + <usize>j * <usize>n + <usize>k) * 8;
          store<f32>(to, <f32>load<f64>(v + (<usize>j << 4)));
          store<f32>(to, <f32>load<f64>(v + (<usize>j << 4), 8), 4);
        }
      }
    }
  }
}
