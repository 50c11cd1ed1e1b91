/** Float64 reference of general eigenvalues: QR iteration on full complex matrices, then inverse iteration. Plain and slow. */

interface Complex {
  readonly re: number;
  readonly im: number;
}
const add = (x: Complex, y: Complex): Complex => ({ re: x.re + y.re, im: x.im + y.im });
const sub = (x: Complex, y: Complex): Complex => ({ re: x.re - y.re, im: x.im - y.im });
const mul = (x: Complex, y: Complex): Complex => ({ re: x.re * y.re - x.im * y.im, im: x.re * y.im + x.im * y.re });
const conj = (x: Complex): Complex => ({ re: x.re, im: -x.im });
const size = (x: Complex): number => Math.hypot(x.re, x.im);
const div = (x: Complex, y: Complex): Complex => {
  const d = y.re * y.re + y.im * y.im;
  const p = mul(x, conj(y));
  return { re: p.re / d, im: p.im / d };
};
const times = (x: Complex, f: number): Complex => ({ re: x.re * f, im: x.im * f });
const zero: Complex = { re: 0, im: 0 };
type Matrix = Complex[][];
const get = (a: Matrix, i: number, j: number): Complex => (a[i] as Complex[])[j] as Complex;

/** Q and R by Gram-Schmidt, twice, on columns; then R Q. */
function qrStep(a: Matrix): Matrix {
  const n = a.length;
  const q: Complex[][] = [];
  const r: Matrix = Array.from({ length: n }, () => new Array<Complex>(n).fill(zero));
  for (let j = 0; j < n; j++) {
    let v = a.map((row) => row[j] as Complex);
    for (let pass = 0; pass < 2; pass++) {
      q.forEach((b, i) => {
        const f = b.reduce((sum, x, k) => add(sum, mul(conj(x), v[k] as Complex)), zero);
        (r[i] as Complex[])[j] = add(get(r, i, j), f);
        v = v.map((x, k) => sub(x, mul(f, b[k] as Complex)));
      });
    }
    const length = Math.hypot(...v.map(size));
    (r[j] as Complex[])[j] = { re: length, im: 0 };
    q.push(length > 0 ? v.map((x) => times(x, 1 / length)) : v);
  }
  return r.map((row) => q.map((column) => row.reduce((sum, x, k) => add(sum, mul(x, column[k] as Complex)), zero)));
}
const shifted = (a: Matrix, mu: Complex): Matrix => a.map((row, i) => row.map((x, j) => (i === j ? sub(x, mu) : x)));
const scaleOf = (a: Matrix): number => Math.max(1e-300, ...a.flat().map(size));

/**
 * Eigenvalues of a real matrix. Each step shifts by the last diagonal element (at first by a complex number, for real matrices have complex eigenvalues), moved a little so
 * that no column vanishes; when the last row is zero but for its diagonal, that is an eigenvalue and the matrix shrinks.
 */
export function eigenvaluesByIteration(matrix: readonly (readonly number[])[]): Complex[] {
  let a: Matrix = matrix.map((r) => r.map((re) => ({ re, im: 0 })));
  const scale = scaleOf(a);
  const found: Complex[] = [];
  for (let step = 0; a.length > 0; step++) {
    const last = a.length - 1;
    const beside = (a[last] as Complex[]).slice(0, last).reduce((sum, x) => sum + size(x), 0);
    if (beside <= 1e-15 * scale || step > 2000) {
      found.push(step > 2000 ? { re: Number.NaN, im: Number.NaN } : get(a, last, last));
      a = a.slice(0, last).map((r) => r.slice(0, last));
      step = -1;
      continue;
    }
    const kick = step % 40 < 3 ? 0.7 * beside : 1e-8 * beside + 1e-13 * scale;
    const mu = add(get(a, last, last), { re: 0.6 * kick, im: 0.8 * kick });
    a = shifted(qrStep(shifted(a, mu)), times(mu, -1));
  }
  return found;
}

/** Solution of a x = b by elimination with partial pivoting. */
function solve(a: Matrix, b: readonly Complex[]): Complex[] {
  const n = a.length;
  const w = a.map((r, i) => [...r, b[i] as Complex]);
  for (let j = 0; j < n; j++) {
    let p = j;
    for (let i = j + 1; i < n; i++) if (size(get(w, i, j)) > size(get(w, p, j))) p = i;
    [w[j], w[p]] = [w[p] as Complex[], w[j] as Complex[]];
    for (let i = 0; i < n; i++) {
      if (i === j || size(get(w, i, j)) === 0) continue;
      const f = div(get(w, i, j), get(w, j, j));
      // Columns before j are zero by construction; what rounding left there must not be multiplied by a large f.
      w[i] = (w[i] as Complex[]).map((x, c) => (c < j ? x : sub(x, mul(f, get(w, j, c)))));
    }
  }
  return w.map((r, i) => div(r[n] as Complex, r[i] as Complex));
}

/** Unit eigenvector of a real matrix for one of its eigenvalues, as interleaved pairs. */
export function inverseIteration(matrix: readonly (readonly number[])[], value: Complex): number[] {
  const a: Matrix = matrix.map((r) => r.map((re) => ({ re, im: 0 })));
  const offset = 1e-11 * scaleOf(a);
  if (Number.isNaN(value.re) || offset < 1e-300) return a.flatMap((_, i) => [Number.isNaN(value.re) ? Number.NaN : Number(i === 0), 0]);
  const m = shifted(a, add(value, { re: offset, im: offset / 3 }));
  let x: Complex[] = a.map((_, i) => ({ re: 1 + ((i * 7919) % 101) / 101, im: ((i * 104729) % 89) / 89 }));
  for (let step = 0; step < 4; step++) {
    const y = solve(m, x);
    const length = Math.hypot(...y.map(size));
    x = y.map((v) => times(v, 1 / length));
  }
  return x.flatMap((v) => [v.re, v.im]);
}
