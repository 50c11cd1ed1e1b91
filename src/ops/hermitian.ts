/** Eigenvalues and eigenvectors of complex Hermitian matrices, by real symmetric ones of twice the size. */
import type { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { complex64, float32, float64 } from "../core/dtype.ts";
import { tidy } from "../core/memory.ts";
import { add, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { greater } from "./compare.ts";
import { complexFromParts, imag, real } from "./complex.ts";
import { concatenate } from "./concat.ts";
import { fromNumbers } from "./convert.ts";
import { tril, triu, zeros } from "./creation.ts";
import { eighOp, rowsOf } from "./decompositions.ts";
import { gatherAlong } from "./gather.ts";
import { matmul } from "./matmul.ts";
import { broadcastTo, expandDims, swapaxes } from "./movement.ts";
import { max, sum } from "./reduce.ts";
import { sliceAxis, sliceRegion } from "./region.ts";
import { where } from "./select.ts";
import { argsort } from "./sort.ts";
import { abs, negative } from "./unary.ts";

type S = StreamOrDevice | undefined;

/** Half the spacing of float32 at 1: what the matrix is moved by at most. */
export const nudge = 2 ** -25;
/** A fixed matrix (n, n), float64, of numbers between -1 and 1 without pattern: symmetric for sign 1, antisymmetric for -1. */
function noise(n: number, sign: 1 | -1): MxArray {
  const values = new Array<number>(n * n).fill(0);
  let state = sign === 1 ? 12345 : 67891;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const v = i === j && sign === -1 ? 0 : state / 2 ** 31 - 1;
      values[i * n + j] = v;
      values[j * n + i] = sign * v;
    }
  }
  return fromNumbers([n, n], float64, values);
}

/** The matrix that one triangle of a Hermitian matrix's real (sign 1) or imaginary part (sign -1) stands for, float64. */
function whole(part: MxArray, upper: boolean, sign: 1 | -1, s: S): MxArray {
  const x = astype(part, float64, s);
  const [strict, inclusive] = upper ? [triu(x, 1, s), triu(x, 0, s)] : [tril(x, -1, s), tril(x, 0, s)];
  const other = swapaxes(strict, -1, -2, s);
  return sign === 1 ? add(inclusive, other, s) : subtract(strict, other, s);
}

/**
 * Ascending eigenvalues (float32) of complex Hermitian matrices (..., n, n), from one triangle, and with `vectors` orthonormal eigenvectors in columns (complex64).
 *
 * [[Re, -Im], [Im, Re]] has every eigenvalue twice; each eigenvector (p, q) of it gives p + iq. So that every second one is taken from a space of its own also where A
 * has equal eigenvalues, the matrix is moved by less than float32 can tell; the eigenvalues are the vectors' Rayleigh quotients with the matrix itself.
 */
export function hermitian(a: MxArray, upper: boolean, vectors: boolean, s: S): MxArray[] {
  const { shape } = a.desc;
  const n = rowsOf(shape);
  if (a.size === 0) return [zeros(shape.slice(0, -1), float32, s), ...(vectors ? [zeros(shape, complex64, s)] : [])];
  return tidy(() => {
    const [re, im] = [whole(real(a, s), upper, 1, s), whole(imag(a, s), upper, -1, s)];
    const largest = max(add(abs(re, s), abs(im, s), s), [-2, -1], true, s);
    const scale = multiply(where(greater(largest, 0, s), largest, 1, s), nudge, s);
    const [x, y] = [add(re, multiply(scale, noise(n, 1), s), s), add(im, multiply(scale, noise(n, -1), s), s)];
    const both = concatenate([concatenate([x, negative(y, s)], -1, s), concatenate([y, x], -1, s)], -2, s);
    const columns = eighOp([both], { upper: false, vectors: true }, s)[1] as MxArray;
    const last = shape.length - 1;
    const every = columns.desc.shape.map((_, i) => (i === last ? 2 : 1));
    const picked = sliceRegion(columns, { start: every.map(() => 0), step: every, shape: columns.desc.shape.map((d, i) => (i === last ? n : d)) }, s);
    const [p, q] = [sliceAxis(picked, last - 1, 0, n, s), sliceAxis(picked, last - 1, n, 2 * n, s)];
    const product = (m: MxArray, v: MxArray): MxArray => matmul(m, v, s);
    const quotient = add(multiply(p, subtract(product(re, p), product(im, q), s), s), multiply(q, add(product(im, p), product(re, q), s), s), s);
    const values = sum(quotient, -2, false, s);
    const order = argsort(values, -1, s);
    const sorted = astype(gatherAlong(values, order, last - 1, s), float32, s);
    if (!vectors) return [sorted];
    const along = broadcastTo(expandDims(order, -2, s), p.desc.shape, s);
    const column = (v: MxArray): MxArray => astype(gatherAlong(v, along, last, s), float32, s);
    return [sorted, complexFromParts(column(p), column(q), s)];
  });
}
