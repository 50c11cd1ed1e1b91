/** Float64 references of the ops in decompositions.ts, by other and plainer methods than the kernels' where there is one. Written for clarity, not speed. */
import { eigenvaluesByIteration, inverseIteration } from "./eigen-reference.ts";

type Rows = number[][];
const get = (a: Rows, i: number, j: number): number => (a[i] as number[])[j] as number;
const rowOf = (a: Rows, i: number): number[] => a[i] as number[];

/** Matrix number `i` of a batch, as an Array of rows. */
export const matrixAt = (data: Float64Array, i: number, m: number, n: number): Rows =>
  Array.from({ length: m }, (_, r) => Array.from(data.subarray((i * m + r) * n, (i * m + r + 1) * n)));
const identity = (n: number): Rows => Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i === j)));
const transposed = (a: Rows, columns: number): Rows => Array.from({ length: columns }, (_, j) => a.map((r) => r[j] as number));
const inner = (x: readonly number[], y: readonly number[]): number => x.reduce((sum, v, i) => sum + v * (y[i] as number), 0);
const flat = (matrices: readonly Rows[]): Float64Array => Float64Array.from(matrices.flat(2));
const countOf = (data: Float64Array, m: number, n: number): number => (m * n === 0 ? 0 : data.length / (m * n));
const finite = (a: Rows): boolean => a.every((r) => r.every(Number.isFinite));
const noNumbers = (m: number, n: number): Rows => Array.from({ length: m }, () => new Array<number>(n).fill(Number.NaN));

/** Gauss-Jordan elimination with partial pivoting; undefined for a singular matrix. */
function eliminate(a: Rows, b: Rows): Rows | undefined {
  const n = a.length;
  const w = a.map((r, i) => [...r, ...rowOf(b, i)]);
  for (let j = 0; j < n; j++) {
    let p = j;
    for (let i = j + 1; i < n; i++) if (Math.abs(get(w, i, j)) > Math.abs(get(w, p, j))) p = i;
    if (!(Math.abs(get(w, p, j)) > 0)) return undefined;
    [w[j], w[p]] = [rowOf(w, p), rowOf(w, j)];
    const pivot = rowOf(w, j).map((x) => x / get(w, j, j));
    w[j] = pivot;
    for (let i = 0; i < n; i++) {
      const f = get(w, i, j);
      if (i !== j && f !== 0) w[i] = rowOf(w, i).map((x, c) => (c < j ? x : x - f * (pivot[c] as number)));
    }
  }
  return w.map((r) => r.slice(n));
}

export function referenceSolve(a: Float64Array, b: Float64Array | undefined, n: number, k: number, kind: "general" | "lower" | "upper"): Float64Array {
  const inside = (i: number, j: number): boolean => kind === "general" || (kind === "lower" ? j <= i : j >= i);
  return flat(
    Array.from({ length: countOf(a, n, n) }, (_, i) => {
      const matrix = matrixAt(a, i, n, n).map((r, y) => r.map((v, x) => (inside(y, x) ? v : 0)));
      return eliminate(matrix, b ? matrixAt(b, i, n, k) : identity(n)) ?? noNumbers(n, k);
    }),
  );
}

/** `rounding`: the part of a diagonal element that a pivot may be below 0 by. */
export function referenceCholesky(a: Float64Array, n: number, upper: boolean, rounding: number): Float64Array {
  const factor = (m: Rows): Rows => {
    const l = noNumbers(n, n).map((r) => r.fill(0));
    for (let j = 0; j < n; j++) {
      const least = rounding * Math.abs(get(m, j, j));
      const pivot = get(m, j, j) - inner(rowOf(l, j), rowOf(l, j));
      const rest = pivot > -least ? Math.max(pivot, least) : pivot;
      if (!(rest > 0)) return noNumbers(n, n);
      for (let i = j; i < n; i++) rowOf(l, i)[j] = i === j ? Math.sqrt(rest) : (get(m, i, j) - inner(rowOf(l, i), rowOf(l, j))) / get(l, j, j);
    }
    return l;
  };
  return flat(
    Array.from({ length: countOf(a, n, n) }, (_, i) => {
      const m = matrixAt(a, i, n, n);
      return upper ? transposed(factor(transposed(m, n)), n) : factor(m);
    }),
  );
}

/** LU column by column (the kernel goes by rows), with the exchanges done on an Array of rows. */
export function referenceLu(a: Float64Array, m: number, n: number, count: number): Float64Array[] {
  const k = Math.min(m, n);
  const factors: Rows[] = [];
  const exchanges: number[] = [];
  const orders: number[] = [];
  for (let i = 0; i < count; i++) {
    const w = matrixAt(a, i, m, n);
    const order = Array.from({ length: m }, (_, r) => r);
    for (let j = 0; j < k; j++) {
      let p = j;
      for (let r = j + 1; r < m; r++) if (Math.abs(get(w, r, j)) > Math.abs(get(w, p, j))) p = r;
      exchanges.push(p);
      [w[j], w[p]] = [rowOf(w, p), rowOf(w, j)];
      [order[j], order[p]] = [order[p] as number, order[j] as number];
      for (let r = j + 1; get(w, j, j) !== 0 && r < m; r++) {
        const row = rowOf(w, r);
        row[j] = get(w, r, j) / get(w, j, j);
        for (let c = j + 1; c < n; c++) row[c] = get(w, r, c) - get(w, r, j) * get(w, j, c);
      }
    }
    factors.push(w);
    // Row order[r] of A is row r of L U, so the permutation asked for is the inverse.
    const inverse = new Array<number>(m);
    order.forEach((from, r) => {
      inverse[from] = r;
    });
    orders.push(...inverse);
  }
  return [flat(factors), Float64Array.from(exchanges), Float64Array.from(orders)];
}

/** Gram-Schmidt (twice) on the columns; a column that depends on those before it gets the unit vector that is farthest from them. */
export function referenceQr(a: Float64Array, m: number, n: number): Float64Array[] {
  const k = Math.min(m, n);
  const qs: Rows[] = [];
  const rs: Rows[] = [];
  for (let i = 0; i < countOf(a, m, n); i++) {
    const columns = transposed(matrixAt(a, i, m, n), n);
    const basis: Rows = [];
    for (let j = 0; j < k; j++) basis.push(unit(remainder(rowOf(columns, j), basis), basis, 1e-12 * Math.hypot(...rowOf(columns, j))));
    qs.push(transposed(basis, m));
    rs.push(basis.map((q, r) => columns.map((c, j) => (j < r ? 0 : inner(q, c)))));
  }
  return [flat(qs), flat(rs)];
}
function remainder(x: readonly number[], basis: Rows): number[] {
  let v = x.slice();
  for (let pass = 0; pass < 2; pass++) {
    for (const q of basis) {
      const f = inner(q, v);
      v = v.map((e, i) => e - f * (q[i] as number));
    }
  }
  return v;
}
/** v with length 1; where it is (nearly) zero, the remainder of a unit vector instead. */
function unit(v: number[], basis: Rows, negligible: number): number[] {
  if (Math.hypot(...v) > negligible) return v.map((x) => x / Math.hypot(...v));
  const candidates = v.map((_, e) =>
    remainder(
      v.map((_, i) => Number(i === e)),
      basis,
    ),
  );
  const best = candidates.sort((x, y) => Math.hypot(...y) - Math.hypot(...x))[0] as number[];
  return best.map((x) => x / Math.hypot(...best));
}

/** Cyclic two-sided Jacobi (the kernel uses tridiagonal QL): eigenvalues and eigenvectors (as rows), unsorted. */
function jacobi(matrix: Rows): { values: number[]; vectors: Rows } {
  const n = matrix.length;
  const a = matrix.map((r) => r.slice());
  const v = identity(n);
  for (let sweep = 0; sweep < 60; sweep++) {
    const scale = Math.max(1e-300, ...a.flat().map(Math.abs));
    let off = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        off = Math.max(off, Math.abs(get(a, p, q)) / scale);
        if (Math.abs(get(a, p, q)) > 1e-18 * scale) turn(a, v, p, q);
      }
    }
    if (off < 1e-16) break;
  }
  return { values: a.map((r, i) => r[i] as number), vectors: v };
}
function turn(a: Rows, v: Rows, p: number, q: number): void {
  const theta = 0.5 * Math.atan2(2 * get(a, p, q), get(a, q, q) - get(a, p, p));
  const [c, s] = [Math.cos(theta), Math.sin(theta)];
  const mix = (x: number[], y: number[]): void =>
    x.forEach((e, i) => {
      x[i] = c * e - s * (y[i] as number);
      y[i] = s * e + c * (y[i] as number);
    });
  mix(rowOf(a, p), rowOf(a, q));
  for (const r of a) [r[p], r[q]] = [c * (r[p] as number) - s * (r[q] as number), s * (r[p] as number) + c * (r[q] as number)];
  mix(rowOf(v, p), rowOf(v, q));
}

export function referenceEigh(a: Float64Array, n: number, upper: boolean): Float64Array[] {
  const results = Array.from({ length: countOf(a, n, n) }, (_, i) => {
    const m = matrixAt(a, i, n, n);
    const full = m.map((r, y) => r.map((_, x) => (x > y === upper ? get(m, y, x) : get(m, x, y))));
    if (!finite(full)) return { values: [new Array<number>(n).fill(Number.NaN)], vectors: noNumbers(n, n) };
    const { values, vectors } = jacobi(full);
    const order = values.map((_, j) => j).sort((x, y) => (values[x] as number) - (values[y] as number));
    return {
      values: [order.map((j) => values[j] as number)],
      vectors: transposed(
        order.map((j) => rowOf(vectors, j)),
        n,
      ),
    };
  });
  return [flat(results.map((r) => r.values)), flat(results.map((r) => r.vectors))];
}

/** Singular values as eigenvalues of [[0, A], [A^T, 0]], whose eigenvectors for s > 0 are (u, v) / sqrt 2; bases are completed by Gram-Schmidt. */
function svdOf(a: Rows, m: number, n: number): { u: Rows; s: number[]; vt: Rows } {
  const k = Math.min(m, n);
  if (!finite(a)) return { u: noNumbers(m, m), s: new Array<number>(k).fill(Number.NaN), vt: noNumbers(n, n) };
  const size = m + n;
  const both = Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => (i < m && j >= m ? get(a, i, j - m) : i >= m && j < m ? get(a, j, i - m) : 0)));
  const { values, vectors } = jacobi(both);
  const order = values
    .map((_, j) => j)
    .sort((x, y) => (values[y] as number) - (values[x] as number))
    .slice(0, k);
  const s = order.map((j) => Math.max(0, values[j] as number));
  const negligible = 1e-12 * Math.max(0, ...s);
  const [u, vt]: [Rows, Rows] = [[], []];
  const grow = (basis: Rows, x: number[], ok: boolean): void => void basis.push(unit(ok ? remainder(x, basis) : x.map(() => 0), basis, 0));
  order.forEach((j, r) => {
    const x = rowOf(vectors, j);
    grow(u, x.slice(0, m), (s[r] as number) > negligible);
    grow(vt, x.slice(m), (s[r] as number) > negligible);
  });
  while (u.length < m) grow(u, new Array<number>(m).fill(0), false);
  while (vt.length < n) grow(vt, new Array<number>(n).fill(0), false);
  return { u: transposed(u, m), s, vt };
}
export function referenceSvd(a: Float64Array, m: number, n: number, count: number, vectors: boolean): Float64Array[] {
  const results = Array.from({ length: count }, (_, i) => svdOf(matrixAt(a, i, m, n), m, n));
  const s = Float64Array.from(results.flatMap((r) => r.s));
  return vectors ? [flat(results.map((r) => r.u)), s, flat(results.map((r) => r.vt))] : [s];
}

export function referenceEig(a: Float64Array, n: number, vectors: boolean): Float64Array[] {
  const values: number[] = [];
  const columns: number[] = [];
  for (let i = 0; i < countOf(a, n, n); i++) {
    const m = matrixAt(a, i, n, n);
    const found = finite(m) ? eigenvaluesByIteration(m) : m.map(() => ({ re: Number.NaN, im: Number.NaN }));
    for (const l of found) values.push(l.re, l.im);
    const pairs = vectors ? found.map((l) => inverseIteration(m, l)) : [];
    for (let r = 0; vectors && r < n; r++) for (const v of pairs) columns.push(v[2 * r] as number, v[2 * r + 1] as number);
  }
  return vectors ? [Float64Array.from(values), Float64Array.from(columns)] : [Float64Array.from(values)];
}
