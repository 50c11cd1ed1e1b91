/**
 * What all right results of a decomposition have in common. Eigenvectors and singular vectors are determined up to sign, phase, or a choice of basis; products and
 * residuals made of them are not. Inputs and outputs are row-major float64, matrices one after another.
 */

/** op(A) op(B) for each pair of matrices of a batch; `ta` and `tb` say that a matrix lies transposed. */
function products(a: Float64Array, b: Float64Array, m: number, k: number, n: number, ta: boolean, tb: boolean): Float64Array {
  const count = m * k === 0 ? 0 : a.length / (m * k);
  const out = new Float64Array(count * m * n);
  for (let g = 0; g < count; g++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) sum += (a[g * m * k + (ta ? p * m + i : i * k + p)] as number) * (b[g * k * n + (tb ? j * k + p : p * n + j)] as number);
        out[(g * m + i) * n + j] = sum;
      }
    }
  }
  return out;
}
const gram = (q: Float64Array, rows: number, columns: number): Float64Array => products(q, q, columns, rows, columns, true, false);

/** Columns of each matrix (rows x columns) times a vector; extra columns of the matrix are dropped, missing ones do not occur. */
function scaleColumns(a: Float64Array, s: Float64Array, rows: number, columns: number, keep: number): Float64Array {
  const count = rows * columns === 0 ? 0 : a.length / (rows * columns);
  const out = new Float64Array(count * rows * keep);
  for (let g = 0; g < count; g++)
    for (let i = 0; i < rows; i++) for (let j = 0; j < keep; j++) out[(g * rows + i) * keep + j] = (a[(g * rows + i) * columns + j] as number) * (s[g * keep + j] as number);
  return out;
}
/** The first `keep` rows of each matrix. */
function firstRows(a: Float64Array, rows: number, columns: number, keep: number): Float64Array {
  return a.filter((_, i) => Math.floor(i / columns) % rows < keep);
}

/** Q R, Q^T Q, and R's elements below its diagonal. */
export function qrInvariant(q: Float64Array, r: Float64Array, m: number, n: number): Float64Array[] {
  const k = Math.min(m, n);
  return [products(q, r, m, k, n, false, false), gram(q, m, k), r.filter((_, i) => i % n < Math.floor(i / n) % k)];
}

/** S; and with vectors also U S V^T, U^T U, V V^T. */
export function svdInvariant(outputs: readonly Float64Array[], m: number, n: number): Float64Array[] {
  if (outputs.length === 1) return [...outputs];
  const [u, s, vt] = outputs as [Float64Array, Float64Array, Float64Array];
  const k = Math.min(m, n);
  return [s, products(scaleColumns(u, s, m, m, k), firstRows(vt, n, n, k), m, k, n, false, false), gram(u, m, m), gram(vt, n, n)];
}

/** Eigenvalues w; and with eigenvectors also V diag(w) V^T and V^T V. */
export function symmetricInvariant(outputs: readonly Float64Array[], n: number): Float64Array[] {
  if (outputs.length === 1) return [...outputs];
  const [w, v] = outputs as [Float64Array, Float64Array];
  return [w, products(scaleColumns(v, w, n, n, n), v, n, n, n, false, true), gram(v, n, n)];
}

/** Power sums of each matrix's eigenvalues (pairs), which do not depend on their order: sum of w, w^2, w^3, divided by the matching powers of the largest |w|. */
export function eigenvalueInvariant(values: Float64Array, n: number): Float64Array[] {
  const sums: number[] = [];
  for (let g = 0; n > 0 && g < values.length / (2 * n); g++) {
    const w = Array.from({ length: n }, (_, i) => [values[2 * (g * n + i)] as number, values[2 * (g * n + i) + 1] as number] as const);
    const largest = Math.max(...w.map(([re, im]) => Math.hypot(re, im)));
    sums.push(largest);
    let powers = w.map(() => [1, 0] as readonly [number, number]);
    for (let p = 0; p < 3; p++) {
      powers = powers.map(([a, b], i) => {
        const [re, im] = (w[i] as readonly [number, number]).map((x) => (largest > 0 ? x / largest : 0)) as [number, number];
        return [a * re - b * im, a * im + b * re];
      });
      sums.push(
        powers.reduce((sum, [re]) => sum + re, 0),
        powers.reduce((sum, [, im]) => sum + im, 0),
      );
    }
  }
  return [Float64Array.from(sums)];
}

/** The eigenvalues' invariant, the residuals A v - w v (which are zero), and the lengths of the eigenvectors (which are one). */
export function eigenpairInvariant(a: Float64Array, outputs: readonly Float64Array[], n: number): Float64Array[] {
  const [w, v] = outputs as [Float64Array, Float64Array];
  const residuals: number[] = [];
  const lengths: number[] = [];
  for (let g = 0; n > 0 && g < a.length / (n * n); g++) {
    for (let k = 0; k < n; k++) {
      const at = (i: number): number => 2 * ((g * n + i) * n + k);
      const [lr, li] = [w[2 * (g * n + k)] as number, w[2 * (g * n + k) + 1] as number];
      let square = 0;
      for (let i = 0; i < n; i++) {
        const [vr, vi] = [v[at(i)] as number, v[at(i) + 1] as number];
        let [re, im] = [-(lr * vr - li * vi), -(lr * vi + li * vr)];
        for (let j = 0; j < n; j++) {
          re += (a[(g * n + i) * n + j] as number) * (v[at(j)] as number);
          im += (a[(g * n + i) * n + j] as number) * (v[at(j) + 1] as number);
        }
        residuals.push(re, im);
        square += vr * vr + vi * vi;
      }
      lengths.push(Math.sqrt(square));
    }
  }
  return [...eigenvalueInvariant(w, n), Float64Array.from([...lengths, ...residuals])];
}
