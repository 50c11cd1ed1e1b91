/** Singular values and eigenvalues of complex matrices, by real ones of twice the size: [[Re, -Im], [Im, Re]] maps (p, q) as A maps p + iq. The arithmetic is float64. */
import type { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { complex64, float32, float64 } from "../core/dtype.ts";
import { tidy } from "../core/memory.ts";
import type { Shape } from "../core/shape.ts";
import { argmax } from "./argreduce.ts";
import { add, divide, maximum, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { greater } from "./compare.ts";
import { complexFromParts, conjugate, imag, real } from "./complex.ts";
import { concatenate } from "./concat.ts";
import { fromNumbers } from "./convert.ts";
import { eye, zeros } from "./creation.ts";
import { batchOf, columnsOf, eigOp, rowsOf, svdOp } from "./decompositions.ts";
import { gatherAlong } from "./gather.ts";
import { hermitian, nudge } from "./hermitian.ts";
import { matmul } from "./matmul.ts";
import { broadcastTo, expandDims, swapaxes } from "./movement.ts";
import { max, sum } from "./reduce.ts";
import { sliceAxis, sliceRegion } from "./region.ts";
import { where } from "./select.ts";
import { argsort } from "./sort.ts";
import { abs, negative, sqrt, square } from "./unary.ts";

type S = StreamOrDevice | undefined;
/** A complex matrix (..., m, n) in two float64 arrays. */
type Parts = readonly [re: MxArray, im: MxArray];

const partsOf = (a: MxArray, s: S): Parts => [astype(real(a, s), float64, s), astype(imag(a, s), float64, s)];
const rounded = ([re, im]: Parts, s: S): MxArray => complexFromParts(astype(re, float32, s), astype(im, float32, s), s);
const each = ([re, im]: Parts, f: (x: MxArray) => MxArray): Parts => [f(re), f(im)];
const embedded = ([x, y]: Parts, s: S): MxArray => concatenate([concatenate([x, negative(y, s)], -1, s), concatenate([y, x], -1, s)], -2, s);
const product = ([a, b]: Parts, [c, d]: Parts, s: S): Parts => [subtract(matmul(a, c, s), matmul(b, d, s), s), add(matmul(a, d, s), matmul(b, c, s), s)];
/** Columns in the order `order` (..., k). */
const columnsAt = (x: MxArray, order: MxArray, s: S): MxArray => {
  const row = expandDims(order, -2, s);
  return gatherAlong(x, broadcastTo(row, [...x.desc.shape.slice(0, -1), columnsOf(row.desc.shape)], s), x.ndim - 1, s);
};

/** A fixed matrix (m, n), float64, of numbers between -1 and 1 without pattern. */
function noise(m: number, n: number, seed: number): MxArray {
  let state = seed;
  const values = Array.from({ length: m * n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
  return fromNumbers([m, n], float64, values);
}
/** The matrix moved by less than float32 can tell, so that no two of its singular values are equal. */
function moved([re, im]: Parts, s: S): Parts {
  const [m, n] = [rowsOf(re.desc.shape), columnsOf(re.desc.shape)];
  const largest = max(maximum(abs(re, s), abs(im, s), s), [-2, -1], true, s);
  const scale = multiply(where(greater(largest, 0, s), largest, 1, s), nudge, s);
  return [add(re, multiply(scale, noise(m, n, 12345), s), s), add(im, multiply(scale, noise(m, n, 67891), s), s)];
}
/** The first of every pair of columns of an embedding's (..., 2m, *) vectors, k of them: the complex columns (..., m, k). */
function firstOfPairs(x: MxArray, k: number, s: S): Parts {
  const { shape } = x.desc;
  const [last, m] = [shape.length - 1, rowsOf(shape) / 2];
  const picked = sliceRegion(x, { start: shape.map(() => 0), step: shape.map((_, i) => (i === last ? 2 : 1)), shape: shape.map((d, i) => (i === last ? k : d)) }, s);
  return [sliceAxis(picked, last - 1, 0, m, s), sliceAxis(picked, last - 1, m, 2 * m, s)];
}
/** k orthonormal columns (..., m, k), complex64, completed to m by eigenvectors, for the eigenvalue 1, of the projection onto what they leave. */
function completed(u: MxArray, s: S): MxArray {
  const [m, k] = [rowsOf(u.desc.shape), columnsOf(u.desc.shape)];
  if (m === k) return u;
  const projection = subtract(eye(m, m, 0, complex64, s), matmul(u, conjugate(swapaxes(u, -1, -2, s), s), s), s);
  const vectors = hermitian(projection, false, true, s)[1] as MxArray;
  return concatenate([u, sliceAxis(vectors, vectors.ndim - 1, k, m, s)], -1, s);
}
function emptySvd(shape: Shape, vectors: boolean, s: S): MxArray[] {
  const [batch, m, n] = [batchOf(shape), rowsOf(shape), columnsOf(shape)];
  const values = zeros([...batch, Math.min(m, n)], float32, s);
  const identity = (d: number): MxArray => broadcastTo(eye(d, d, 0, complex64, s), [...batch, d, d], s);
  return vectors ? [identity(m), values, identity(n)] : [values];
}

/**
 * U (..., m, m), S (..., k), V^H (..., n, n) of complex64 matrices (..., m, n), k = min(m, n): S is float32 and descends; without `vectors` S only.
 *
 * The embedding has every singular value twice, and each pair of its vectors (p, q) gives p + iq. The values are Re(u^H A v) with the matrix itself.
 */
export function complexSvd(a: MxArray, vectors: boolean, s: S): MxArray[] {
  const { shape } = a.desc;
  if (a.size === 0) return emptySvd(shape, vectors, s);
  return tidy(() => {
    const k = Math.min(rowsOf(shape), columnsOf(shape));
    const parts = partsOf(a, s);
    const [left, , right] = svdOp([embedded(moved(parts, s), s)], { vectors: true }, s) as [MxArray, MxArray, MxArray];
    const u = firstOfPairs(left, k, s);
    const v = firstOfPairs(swapaxes(right, -1, -2, s), k, s);
    const [p, q] = product(parts, v, s);
    const values = maximum(sum(add(multiply(u[0], p, s), multiply(u[1], q, s), s), -2, false, s), 0, s);
    const order = argsort(negative(values, s), -1, s);
    const sorted = astype(gatherAlong(values, order, values.ndim - 1, s), float32, s);
    if (!vectors) return [sorted];
    const whole = (x: Parts): MxArray => completed(rounded(each(x, (c) => columnsAt(c, order, s)), s), s);
    return [whole(u), sorted, conjugate(swapaxes(whole(v), -1, -2, s), s)];
  });
}

/** Columns of length 1 whose largest component is real. */
function normalized([x, y]: Parts, s: S): Parts {
  const squares = add(square(x, s), square(y, s), s);
  const at = argmax(squares, -2, true, s);
  const [c, d, size] = [x, y, squares].map((z) => gatherAlong(z, at, z.ndim - 2, s)) as [MxArray, MxArray, MxArray];
  const length = sqrt(multiply(sum(squares, -2, true, s), size, s), s);
  return [divide(add(multiply(x, c, s), multiply(y, d, s), s), length, s), divide(subtract(multiply(y, c, s), multiply(x, d, s), s), length, s)];
}

/**
 * Eigenvalues (..., n) and with `vectors` eigenvectors (..., n, n), the columns, of complex64 matrices; both complex64.
 *
 * The embedding has the eigenvalues of A, with vectors (x, -ix), and their conjugates. Of A / |A| + 2i (Frobenius norm) the former all lie in the upper half plane and the
 * latter in the lower, so they are told apart; the values are the vectors' Rayleigh quotients with the matrix itself.
 */
export function complexEig(a: MxArray, vectors: boolean, s: S): MxArray[] {
  const { shape } = a.desc;
  const n = rowsOf(shape);
  if (a.size === 0) return [zeros(shape.slice(0, -1), complex64, s), ...(vectors ? [zeros(shape, complex64, s)] : [])];
  return tidy(() => {
    const parts = partsOf(a, s);
    const length = sqrt(sum(add(square(parts[0], s), square(parts[1], s), s), [-2, -1], true, s), s);
    const unit = where(greater(length, 0, s), length, 1, s);
    const shifted: Parts = [divide(parts[0], unit, s), add(divide(parts[1], unit, s), multiply(eye(n, n, 0, float64, s), 2, s), s)];
    const [values, columns] = eigOp([embedded(shifted, s)], { vectors: true }, s) as [MxArray, MxArray];
    const order = sliceAxis(argsort(negative(imag(values, s), s), -1, s), values.ndim - 1, 0, n, s);
    const [re, im] = each(partsOf(columns, s), (x) => columnsAt(x, order, s));
    const row = re.ndim - 2;
    const half = (x: MxArray, i: number): MxArray => sliceAxis(x, row, i * n, (i + 1) * n, s);
    const x = normalized([subtract(half(re, 0), half(im, 1), s), add(half(im, 0), half(re, 1), s)], s);
    const [p, q] = product(parts, x, s);
    const along = (y: MxArray): MxArray => sum(y, -2, false, s);
    const quotients: Parts = [along(add(multiply(x[0], p, s), multiply(x[1], q, s), s)), along(subtract(multiply(x[0], q, s), multiply(x[1], p, s), s))];
    return vectors ? [rounded(quotients, s), rounded(x, s)] : [rounded(quotients, s)];
  });
}
