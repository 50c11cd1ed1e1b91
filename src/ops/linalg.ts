/**
 * The namespace mx.linalg. Matrices are the last two dimensions of float32 or float64 arrays, all dimensions in front are a batch; results are computed in float64 and
 * rounded once unless a function says otherwise. A matrix without a result (singular, not positive definite, with NaN) gives NaN: evaluation does not throw.
 */
import { ArrayDesc, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, float32, float64, int32, promote, toInexact, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import { broadcastShapes, formatShape, normalizeAxis } from "../core/shape.ts";
import { add, multiply, remainder, subtract } from "./binary.ts";
import { equal, greater, less, notEqual } from "./compare.ts";
import { complexEig, complexSvd } from "./complex-decompositions.ts";
import { concatenate } from "./concat.ts";
import { type ArrayLike, streamArg, toArray } from "./convert.ts";
import { arange, eye, tril, triu, zeros, zerosLike } from "./creation.ts";
import { type SystemKind, batchOf, choleskyOp, columnsOf, eigOp, eighOp, luOp, qrOp, requireMatrices, rowsOf, solveOp, svdOp } from "./decompositions.ts";
import { hermitian } from "./hermitian.ts";
import { matmul } from "./matmul.ts";
import { broadcastTo, diagonal, expandDims, reshape, squeeze, swapaxes } from "./movement.ts";
import { any, max, sum } from "./reduce.ts";
import { castTo, sliceAxis } from "./region.ts";
import { within } from "./scope.ts";
import { where } from "./select.ts";
import { split } from "./slice.ts";
import { abs, exp, log, negative, reciprocal, sign } from "./unary.ts";

export { norm } from "./linalg-norm.ts";

type S = StreamOrDevice | null | undefined;
const constant = (value: number, dtype: Dtype): MxArray => new MxArray(ArrayDesc.constant(value, dtype));

/** The array, when it holds matrices. */
function matrices(op: string, a: ArrayLike, square: boolean): MxArray {
  const x = toArray(a);
  requireMatrices(`linalg.${op}`, x.desc, square);
  return x;
}
/** As `matrices`, for functions that take complex64 as well. */
function complexOrReal(op: string, a: ArrayLike, square: boolean): MxArray {
  const x = toArray(a);
  requireMatrices(`linalg.${op}`, x.dtype.kind === "complex" ? { shape: x.desc.shape, dtype: float32 } : x.desc, square);
  return x;
}

/** Inverses of square matrices (..., n, n), by LU factorization with partial pivoting. A singular matrix gives NaN (MLX throws when it is evaluated). */
export const inv = (a: ArrayLike, s?: S): MxArray => solveOp([matrices("inv", a, true)], { kind: "general" }, s)[0] as MxArray;

/** Inverses of triangular matrices (..., n, n): of the upper triangle if `upper`, else of the lower one; the other triangle is not read. A zero on the diagonal gives NaN. */
export function triInv(a: ArrayLike, upper?: boolean | S, s?: S): MxArray {
  const { args, stream } = streamArg([upper, s]);
  return solveOp([matrices("triInv", a, true)], { kind: args[0] === true ? "upper" : "lower" }, stream)[0] as MxArray;
}

/**
 * Cholesky factors of symmetric positive definite matrices (..., n, n): L with A = L L^T, or with `upper` U with A = U^T U. Only that triangle of A is read. A matrix that
 * is not positive definite gives NaN.
 */
export function cholesky(a: ArrayLike, upper?: boolean | S, s?: S): MxArray {
  const { args, stream } = streamArg([upper, s]);
  return choleskyOp([matrices("cholesky", a, true)], { upper: args[0] === true }, stream)[0] as MxArray;
}

/** Inverses of A from Cholesky factors (..., n, n) of A, lower or `upper` ones. */
export function choleskyInv(l: ArrayLike, upper?: boolean | S, s?: S): MxArray {
  const { args, stream } = streamArg([upper, s]);
  const factor = matrices("choleskyInv", l, true);
  return within(() => {
    const inverse = triInv(factor, args[0] === true, stream);
    const other = swapaxes(inverse, -1, -2, stream ?? undefined);
    return args[0] === true ? matmul(inverse, other, stream) : matmul(other, inverse, stream);
  });
}

/**
 * Moore-Penrose pseudo-inverses (..., n, m) of matrices (..., m, n), from their singular values; those up to 10 max(m, n) eps times the largest count as zero. The product
 * is made in the array's dtype.
 */
export function pinv(a: ArrayLike, s?: S): MxArray {
  const x = matrices("pinv", a, false);
  const [m, n] = [rowsOf(x.desc.shape), columnsOf(x.desc.shape)];
  if (x.size === 0) return zeros([...batchOf(x.desc.shape), n, m], x.dtype, s);
  const stream = s ?? undefined;
  return within(() => {
    const k = Math.min(m, n);
    const [u, values, vt] = svdOp([x], { vectors: true }, s) as [MxArray, MxArray, MxArray];
    const ut = swapaxes(sliceAxis(u, u.ndim - 1, 0, k, stream), -1, -2, stream);
    const v = swapaxes(sliceAxis(vt, vt.ndim - 2, 0, k, stream), -1, -2, stream);
    const row = expandDims(values, -2, stream);
    const eps = x.dtype === float64 ? 2 ** -52 : 2 ** -23;
    const cutoff = multiply(constant(10 * Math.max(m, n) * eps, x.dtype), max(row, -1, true, stream), s);
    const inverse = where(greater(row, cutoff, s), reciprocal(row, s), constant(0, x.dtype), stream);
    return matmul(multiply(v, inverse, s), ut, s);
  });
}

/** QR factorization [Q, R] of matrices (..., m, n): Q (..., m, k) has orthonormal columns, R (..., k, n) is upper triangular, k = min(m, n). Signs are LAPACK's. */
export const qr = (a: ArrayLike, s?: S): [MxArray, MxArray] => qrOp([matrices("qr", a, false)], {}, s) as [MxArray, MxArray];

/**
 * Singular value decomposition [U, S, V^T] of matrices (..., m, n): U (..., m, m), S (..., min(m, n)) in descending order, V^T (..., n, n). With `computeUv` false it returns
 * the array S. Of complex64 matrices U is complex64, S float32, and the third result is V^H, the conjugate transpose, complex64.
 */
export function svd(a: ArrayLike, computeUv?: true | S, s?: S): [MxArray, MxArray, MxArray];
export function svd(a: ArrayLike, computeUv: false, s?: S): MxArray;
export function svd(a: ArrayLike, computeUv?: boolean | S, s?: S): MxArray | [MxArray, MxArray, MxArray];
export function svd(a: ArrayLike, computeUv?: boolean | S, s?: S): MxArray | [MxArray, MxArray, MxArray] {
  const { args, stream } = streamArg([computeUv, s]);
  const vectors = args[0] !== false;
  const x = complexOrReal("svd", a, false);
  const results = x.dtype.kind === "complex" ? complexSvd(x, vectors, stream ?? undefined) : svdOp([x], { vectors }, stream);
  return vectors ? (results as [MxArray, MxArray, MxArray]) : (results[0] as MxArray);
}

function symmetric(op: string, a: ArrayLike, uplo: string | S, s: S, vectors: boolean): MxArray[] {
  // A device's name is a string as well, so the triangle is told apart by its letter.
  const { args, stream } = streamArg([uplo, s]);
  const triangle = args[0] ?? "L";
  if (triangle !== "L" && triangle !== "U") throw opError(`linalg.${op}`, `uplo must be "L" or "U", got ${JSON.stringify(triangle)}`);
  const x = complexOrReal(op, a, true);
  if (x.dtype.kind === "complex") return hermitian(x, triangle === "U", vectors, stream ?? undefined);
  return eighOp([x], { upper: triangle === "U", vectors }, stream);
}
/** Eigenvalues (..., n), ascending, and eigenvectors (..., n, n), the columns, of symmetric or complex Hermitian matrices. `uplo` ("L", the default, or "U") names the triangle that is read. */
export const eigh = (a: ArrayLike, uplo?: string | S, s?: S): [MxArray, MxArray] => symmetric("eigh", a, uplo, s, true) as [MxArray, MxArray];
/** Eigenvalues (..., n) of symmetric or complex Hermitian matrices, ascending. `uplo` ("L", the default, or "U") names the triangle that is read. */
export const eigvalsh = (a: ArrayLike, uplo?: string | S, s?: S): MxArray => symmetric("eigvalsh", a, uplo, s, false)[0] as MxArray;

function general(op: string, a: ArrayLike, vectors: boolean, s: S): MxArray[] {
  const x = complexOrReal(op, a, true);
  return x.dtype.kind === "complex" ? complexEig(x, vectors, s ?? undefined) : eigOp([x], { vectors }, s);
}
/** Eigenvalues (..., n) and eigenvectors (..., n, n), the columns, of square real or complex matrices; both complex64. Vectors have unit length and a real largest component. The order is not defined. */
export const eig = (a: ArrayLike, s?: S): [MxArray, MxArray] => general("eig", a, true, s) as [MxArray, MxArray];
/** Eigenvalues (..., n) of square real or complex matrices, complex64. The order is not defined. */
export const eigvals = (a: ArrayLike, s?: S): MxArray => general("eigvals", a, false, s)[0] as MxArray;

/**
 * LU factorization [P, L, U] with partial pivoting of matrices (..., m, n): L (..., m, k) has ones on its diagonal, U (..., k, n) is upper triangular, k = min(m, n), and
 * P (..., m), uint32, is the permutation with A = (L U) taken at rows P.
 */
export function lu(a: ArrayLike, s?: S): [MxArray, MxArray, MxArray] {
  const x = matrices("lu", a, false);
  const [m, n] = [rowsOf(x.desc.shape), columnsOf(x.desc.shape)];
  const k = Math.min(m, n);
  const stream = s ?? undefined;
  const [both, pivots, order] = luOp([x], {}, s) as [MxArray, MxArray, MxArray];
  pivots.dispose();
  const l = within(() => add(sliceAxis(tril(both, -1, stream), x.ndim - 1, 0, k, stream), eye(m, k, 0, x.dtype, stream), s));
  const u = within(() => sliceAxis(triu(both, 0, stream), x.ndim - 2, 0, k, stream));
  both.dispose();
  return [order, l, u];
}

/** LU factorization [LU, pivots] of matrices (..., m, n): both factors in one matrix, and pivots (..., k), uint32: row i was exchanged with row pivots[i]. */
export function luFactor(a: ArrayLike, s?: S): [MxArray, MxArray] {
  const [both, pivots, order] = luOp([matrices("luFactor", a, false)], {}, s) as [MxArray, MxArray, MxArray];
  order.dispose();
  return [both, pivots];
}

function solveSystem(op: string, a: ArrayLike, b: ArrayLike, kind: SystemKind, s: S): MxArray {
  const [x, y] = [toArray(a), toArray(b)];
  const dtype = promote(x.dtype, y.dtype);
  const name = `linalg.${op}`;
  if (dtype !== float32 && dtype !== float64) throw opError(name, `arrays must promote to float32 or float64, got ${x.dtype} and ${y.dtype}`);
  if (y.ndim < 1) throw opError(name, `the right side must have at least 1 dimension, got ${formatShape(y.desc.shape)}`);
  return within(() => {
    const matrix = castTo(x, dtype, s ?? undefined);
    requireMatrices(name, matrix.desc, true);
    const vector = y.ndim === 1;
    const right = castTo(vector ? reshape(y, [y.size, 1], s ?? undefined) : y, dtype, s ?? undefined);
    const [n, k] = [rowsOf(matrix.desc.shape), columnsOf(right.desc.shape)];
    if (rowsOf(right.desc.shape) !== n)
      throw opError(name, `the right side must have as many rows as the matrix, got shapes ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    const batch = broadcastShapes(name, batchOf(matrix.desc.shape), batchOf(right.desc.shape));
    const inputs = [broadcastTo(matrix, [...batch, n, n], s ?? undefined), broadcastTo(right, [...batch, n, k], s ?? undefined)];
    const result = solveOp(inputs, { kind }, s)[0] as MxArray;
    return vector ? squeeze(result, -1, s ?? undefined) : result;
  });
}
/**
 * Solution X of A X = B for square matrices (..., n, n) and right sides (..., n, k) or (n), whose batches broadcast, by LU factorization with partial pivoting. A singular
 * matrix gives NaN.
 */
export const solve = (a: ArrayLike, b: ArrayLike, s?: S): MxArray => solveSystem("solve", a, b, "general", s);
/** As `solve`, for triangular matrices: the upper triangle if `upper`, else the lower one; the other triangle is not read. */
export function solveTriangular(a: ArrayLike, b: ArrayLike, upper?: boolean | S, s?: S): MxArray {
  const { args, stream } = streamArg([upper, s]);
  return solveSystem("solveTriangular", a, b, args[0] === true ? "upper" : "lower", stream);
}

/** The array in a float type, when it holds real square matrices. */
function determinantInput(op: string, a: ArrayLike, s: S): MxArray {
  const x = toArray(a);
  const { shape, dtype } = x.desc;
  if (dtype.kind === "complex") throw opError(`linalg.${op}`, `complex arrays are not supported, got ${dtype}`);
  if (shape.length < 2) throw opError(`linalg.${op}`, `arrays must have at least 2 dimensions, got ${formatShape(shape)}`);
  if (rowsOf(shape) !== columnsOf(shape)) throw opError(`linalg.${op}`, `matrices must be square, got ${formatShape(shape)}`);
  return castTo(x, toInexact(dtype), s ?? undefined);
}
/** Determinants of matrices up to 3 x 3 by their formula, in the array's dtype. */
function smallDeterminant(x: MxArray, s: S): MxArray {
  const { shape, dtype } = x.desc;
  const n = rowsOf(shape);
  const stream = s ?? undefined;
  if (n === 0) return broadcastTo(constant(1, dtype), batchOf(shape), stream);
  const cell = (i: number, j: number): MxArray => squeeze(sliceAxis(sliceAxis(x, x.ndim - 2, i, i + 1, stream), x.ndim - 1, j, j + 1, stream), [-1, -2], stream);
  if (n === 1) return cell(0, 0);
  const minor = (r0: number, r1: number, c0: number, c1: number): MxArray => subtract(multiply(cell(r0, c0), cell(r1, c1), s), multiply(cell(r0, c1), cell(r1, c0), s), s);
  if (n === 2) return minor(0, 1, 0, 1);
  const [first, second, third] = [multiply(cell(0, 0), minor(1, 2, 1, 2), s), multiply(cell(0, 1), minor(1, 2, 0, 2), s), multiply(cell(0, 2), minor(1, 2, 0, 1), s)];
  return add(subtract(first, second, s), third, s);
}
/** Signs, and logarithms of absolute values, from an LU factorization. */
function luDeterminant(op: string, x: MxArray, s: S): { sign: MxArray; logabs: MxArray } {
  requireMatrices(`linalg.${op}`, x.desc, true);
  const { dtype, shape } = x.desc;
  const stream = s ?? undefined;
  const [both, pivots] = luFactor(x, s);
  const diag = diagonal(both, 0, -2, -1, stream);
  const exchanges = sum(notEqual(pivots, arange(rowsOf(shape), uint32, stream), s), -1, false, stream);
  const negatives = sum(less(diag, constant(0, dtype), s), -1, false, stream);
  const odd = remainder(add(castTo(exchanges, int32, stream), castTo(negatives, int32, stream), s), constant(2, int32), s);
  const parity = castTo(subtract(constant(1, int32), multiply(constant(2, int32), odd, s), s), dtype, stream);
  const singular = any(equal(diag, constant(0, dtype), s), -1, false, stream);
  const logs = sum(log(abs(diag, s), s), -1, false, stream);
  return { sign: where(singular, constant(0, dtype), parity, stream), logabs: where(singular, constant(Number.NEGATIVE_INFINITY, dtype), logs, stream) };
}

/** Determinants (...) of square matrices (..., n, n), n > 3 by LU factorization. Integers give float32; 16-bit floats are possible up to 3 x 3. */
export function det(a: ArrayLike, s?: S): MxArray {
  return within(() => {
    const x = determinantInput("det", a, s);
    if (rowsOf(x.desc.shape) <= 3) return smallDeterminant(x, s);
    const { sign: signs, logabs } = luDeterminant("det", x, s);
    return multiply(signs, exp(logabs, s), s);
  });
}
/** [sign, logarithm of the absolute value] of the determinants of square matrices (..., n, n), both (...). A singular matrix gives 0 and -inf. */
export function slogdet(a: ArrayLike, s?: S): [MxArray, MxArray] {
  return tidy((): [MxArray, MxArray] => {
    const x = determinantInput("slogdet", a, s);
    if (rowsOf(x.desc.shape) > 3) {
      const { sign: signs, logabs } = luDeterminant("slogdet", x, s);
      return [signs, logabs];
    }
    const raw = smallDeterminant(x, s);
    return [sign(raw, s), log(abs(raw, s), s)];
  });
}

/**
 * Cross products of the vectors along an axis (default the last) of size 2 or 3; the other dimensions broadcast. A vector of 2 has zero as its third component. The result
 * has 3 components.
 */
export function cross(a: ArrayLike, b: ArrayLike, axis?: number | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const along = typeof axis === "number" ? axis : -1;
  const operands = [toArray(a), toArray(b)] as const;
  const dtype = promote(operands[0].dtype, operands[1].dtype);
  const shapes = operands.map((x) => {
    const at = normalizeAxis("linalg.cross", along, x.ndim);
    const size = x.desc.shape[at] as number;
    if (size !== 2 && size !== 3) throw opError("linalg.cross", `axis ${along} must have size 2 or 3, got shape ${formatShape(x.desc.shape)}`);
    return x.desc.shape.map((d, i) => (i === at ? 3 : d));
  });
  const shape = broadcastShapes("linalg.cross", ...shapes);
  const at = along < 0 ? along + shape.length : along;
  return within(() => {
    const parts = operands.map((x) => {
      const size = x.desc.shape[along < 0 ? along + x.ndim : along] as number;
      return split(
        broadcastTo(
          castTo(x, dtype, stream),
          shape.map((d, i) => (i === at ? size : d)),
          stream,
        ),
        size,
        at,
        stream,
      );
    });
    return concatenate(crossParts(parts[0] as MxArray[], parts[1] as MxArray[], stream), at, stream);
  });
}
function crossParts(x: readonly MxArray[], y: readonly MxArray[], s: S): MxArray[] {
  const product = (i: number, j: number): MxArray => multiply(x[i] as MxArray, y[j] as MxArray, s);
  const third = subtract(product(0, 1), product(1, 0), s);
  if (x.length === 2 && y.length === 2) {
    const zero = zerosLike(third, third.dtype, s);
    return [zero, zero, third];
  }
  if (y.length === 2) return [negative(product(2, 1), s), product(2, 0), third];
  if (x.length === 2) return [product(1, 2), negative(product(0, 2), s), third];
  return [subtract(product(1, 2), product(2, 1), s), subtract(product(2, 0), product(0, 2), s), third];
}
