/** Vector and matrix norms, in terms of other ops. */
import { ArrayDesc, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { toInexact } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { normalizeAxis } from "../core/shape.ts";
import { power } from "./binary.ts";
import { notEqual } from "./compare.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { requireMatrices, svdOp } from "./decompositions.ts";
import { expandDims, flatten, moveaxis, reshape } from "./movement.ts";
import { max, min, sum } from "./reduce.ts";
import { castTo } from "./region.ts";
import { within } from "./scope.ts";
import { abs, sqrt, square } from "./unary.ts";

type S = StreamOrDevice | undefined;
const constant = (value: number, like: MxArray): MxArray => new MxArray(ArrayDesc.constant(value, toInexact(like.dtype)));

const euclidean = (x: MxArray, axes: readonly number[], keepdims: boolean, s: S): MxArray => sqrt(sum(square(x.dtype.kind === "complex" ? abs(x, s) : x, s), axes, keepdims, s), s);

function vectorNorm(x: MxArray, ord: number, axis: number, keepdims: boolean, s: S): MxArray {
  const dtype = toInexact(x.dtype);
  if (ord === 0) return castTo(sum(notEqual(x, 0, s), axis, keepdims, s), dtype, s);
  if (ord === 1) return castTo(sum(abs(x, s), axis, keepdims, s), dtype, s);
  if (ord === 2) return euclidean(x, [axis], keepdims, s);
  if (ord === Number.POSITIVE_INFINITY) return castTo(max(abs(x, s), axis, keepdims, s), dtype, s);
  if (ord === Number.NEGATIVE_INFINITY) return castTo(min(abs(x, s), axis, keepdims, s), dtype, s);
  return power(sum(power(abs(x, s), constant(ord, x), s), axis, keepdims, s), constant(1 / ord, x), s);
}

/** Singular values of the matrices in the plane of two axes, as the last dimension. */
function singularValues(x: MxArray, row: number, column: number, s: S): MxArray {
  requireMatrices("linalg.norm", x.desc);
  return svdOp([moveaxis(x, [row, column], [-2, -1], s)], { vectors: false }, s)[0] as MxArray;
}

function matrixNorm(x: MxArray, ord: number | string, [row, column]: readonly [number, number], keepdims: boolean, s: S): MxArray {
  const dtype = toInexact(x.dtype);
  if (ord === "f" || ord === "fro") return euclidean(x, [row, column], keepdims, s);
  const back = (y: MxArray): MxArray =>
    keepdims
      ? expandDims(
          y,
          [row, column].sort((a, b) => a - b),
          s,
        )
      : y;
  if (ord === "nuc") return back(sum(singularValues(x, row, column, s), -1, false, s));
  if (ord === 2) return castTo(back(max(singularValues(x, row, column, s), -1, false, s)), dtype, s);
  if (ord === -2) return castTo(back(min(singularValues(x, row, column, s), -1, false, s)), dtype, s);
  if (typeof ord === "string" || (Math.abs(ord) !== 1 && Math.abs(ord) !== Number.POSITIVE_INFINITY))
    throw opError("linalg.norm", `a matrix has no norm of this order, got ${ord}`);
  const [inside, outside] = Math.abs(ord) === 1 ? [row, column] : [column, row];
  const sums = sum(abs(x, s), inside, keepdims, s);
  return castTo((ord > 0 ? max : min)(sums, !keepdims && outside > inside ? outside - 1 : outside, keepdims, s), dtype, s);
}

type Ord = number | string | null;
type Axes = number | readonly number[] | null;
/**
 * Norm of vectors (one axis) or matrices (two axes). Without `ord` it is the 2-norm, of the flattened array when there are no axes either. Vectors: any number, 0 (elements
 * that are not zero), Infinity, -Infinity. Matrices: "fro", "nuc" (sum of singular values), 1, -1, 2, -2 (singular values), Infinity, -Infinity; "nuc", 2 and -2 need
 * float32 or float64. Without `axes` an array with `ord` is taken as a vector or matrix by its rank. Integers give float32.
 */
export function norm(a: ArrayLike, ord?: Ord | S, axes?: Axes | boolean | S, keepdims?: boolean | S, stream?: S | null): MxArray {
  const given = [ord, axes, keepdims, stream];
  const s = given.find(isStreamOrDevice);
  const [order, axis, keep] = given.map((v) => (isStreamOrDevice(v) ? undefined : v)) as [Ord | undefined, Axes | boolean | undefined, boolean | undefined];
  const x = toArray(a);
  const list =
    axis === undefined || axis === null || typeof axis === "boolean" ? undefined : (typeof axis === "number" ? [axis] : axis).map((d) => normalizeAxis("linalg.norm", d, x.ndim));
  const kept = keep === true || axis === true;
  if (new Set(list).size !== (list?.length ?? 0)) throw opError("linalg.norm", `axes must be different, got ${JSON.stringify(axis)}`);
  if (list && list.length !== 1 && list.length !== 2) throw opError("linalg.norm", `one or two axes are possible, got ${list.length}`);
  return within(() => {
    if (order === undefined || order === null) {
      if (list) return euclidean(x, list, kept, s);
      const all = euclidean(flatten(x, 0, -1, s), [0], false, s);
      return kept
        ? reshape(
            all,
            x.desc.shape.map(() => 1),
            s,
          )
        : all;
    }
    const over = list ?? x.desc.shape.map((_, i) => i);
    if (over.length === 2) return matrixNorm(x, order, over as [number, number], kept, s);
    if (typeof order === "string") throw opError("linalg.norm", `the norm ${JSON.stringify(order)} is of matrices only, got ${over.length} axes`);
    if (over.length !== 1) throw opError("linalg.norm", `one or two axes are possible, got ${over.length}`);
    return vectorNorm(x, order, over[0] as number, kept, s);
  });
}
