/** Functions of the Python array API and of NumPy that are made of other ops, and MLX's second names. */
import { type Aval, MxArray } from "../core/array.ts";
import { isStreamOrDevice, type StreamOrDevice } from "../core/device.ts";
import { type Dtype, bool, float32, int32, promote, toInexact, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import { defineOp } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { formatShape, normalizeAxes, normalizeAxis, reducedShape } from "../core/shape.ts";
import { noteSizes, sizesCount } from "../core/sizes.ts";
import { add, multiply, subtract } from "./binary.ts";
import { conj } from "./complex.ts";
import { less, logicalAnd, logicalOr, notEqual } from "./compare.ts";
import { type ArrayLike, type AxisArgument, fromNumbers, reductionArgs, requireDtype, streamArg, toArray } from "./convert.ts";
import { full } from "./creation.ts";
import { take } from "./indexing.ts";
import { broadcastTo, diagonal, reshape, squeeze, transpose } from "./movement.ts";
import { any, sum } from "./reduce.ts";
import { castTo, sliceAxis, sliceRegion } from "./region.ts";
import { within } from "./scope.ts";
import { where } from "./select.ts";
import { split } from "./slice.ts";
import { sort } from "./sort.ts";
import { ceil, floor, isnan, logicalNot } from "./unary.ts";

type S = StreamOrDevice | null;

/**
 * Sum of a diagonal of the matrices along `axis1` and `axis2` (default 0 and 1): the dimensions left over. `offset` as in `diagonal`. Computed in `dtype`
 * (default: the array's); sums of narrow integers widen as in `sum`.
 */
export function trace(array: ArrayLike, offset?: number | S, axis1?: number | S, axis2?: number | S, dtype?: Dtype | S, s?: S): MxArray {
  const { args, stream } = streamArg([offset, axis1, axis2, dtype, s] as unknown[]);
  const [shift, first, second] = [(args[0] as number | undefined) ?? 0, (args[1] as number | undefined) ?? 0, (args[2] as number | undefined) ?? 1];
  const x = toArray(array);
  if (x.ndim < 2) throw opError("trace", `the array must have at least two dimensions, got ${formatShape(x.desc.shape)}`);
  const [p, q] = [normalizeAxis("trace", first, x.ndim), normalizeAxis("trace", second, x.ndim)];
  if (p === q) throw opError("trace", `axis1 and axis2 must differ, got ${first} and ${second}`);
  const to = args[3] === undefined || args[3] === null ? x.dtype : requireDtype("trace", args[3]);
  return within(() => sum(castTo(diagonal(x, shift, p, q, stream), to, stream), -1, false, stream));
}

/** The elements in reverse order along axes (all when none is given), as a view. */
export function flip(a: ArrayLike, axis?: AxisArgument | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const x = toArray(a);
  const axes = normalizeAxes("flip", isStreamOrDevice(axis) ? undefined : axis, x.ndim);
  const { shape } = x.desc;
  const turned = shape.map((_, i) => axes.includes(i));
  return sliceRegion(x, { start: shape.map((n, i) => (turned[i] ? Math.max(0, n - 1) : 0)), step: turned.map((t) => (t ? -1 : 1)), shape }, stream);
}

/** Differences of neighbours along an axis (default the last), taken `n` times (default 1). */
export function diff(a: ArrayLike, n?: number | S, axis?: number | S, s?: S): MxArray {
  const { args, stream } = streamArg([n, axis, s] as unknown[]);
  const times = (args[0] as number | undefined) ?? 1;
  const given = toArray(a);
  const at = normalizeAxis("diff", (args[1] as number | undefined) ?? -1, given.ndim);
  if (!Number.isInteger(times) || times < 0) throw opError("diff", `n must be an integer of at least 0, got ${times}`);
  return within(() => {
    let x = new MxArray(given.desc);
    for (let i = 0; i < times; i++) {
      const size = x.desc.shape[at] as number;
      if (size === 0) break;
      x = subtract(sliceAxis(x, at, 1, size, stream), sliceAxis(x, at, 0, size - 1, stream), stream);
    }
    return x;
  });
}

/** Number of elements that are not zero, over axes (all when none is given), as int32. */
export function countNonzero(a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | S, s?: S): MxArray {
  const x = toArray(a);
  const { axis: over, keepdims: keep, stream } = reductionArgs(axis, keepdims, s);
  return within(() => sum(castTo(castTo(x, bool, stream), int32, stream), over ?? null, keep, stream));
}

/**
 * Median over axes (all when none is given): the middle of the sorted elements, or the mean of the two in the middle. NaN where there is a NaN. Integers and
 * bool give float32. Throws for an empty axis.
 */
export function median(a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | S, s?: S): MxArray {
  const x = toArray(a);
  const { axis: over, keepdims: keep, stream } = reductionArgs(axis, keepdims, s);
  const axes = normalizeAxes("median", over, x.ndim);
  const rest = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  noteSizes(sizesCount);
  const size = axes.reduce((n, i) => n * (x.desc.shape[i] as number), 1);
  if (size === 0) throw opError("median", `there is no median of an empty axis, got shape ${formatShape(x.desc.shape)}`);
  const dtype = toInexact(x.dtype);
  return within(() => {
    const lines = reshape(transpose(x, [...rest, ...[...axes].sort((p, q) => p - q)], stream), [...rest.map((i) => x.desc.shape[i] as number), size], stream);
    const sorted = sort(lines, -1, stream);
    const at = (i: number): MxArray => castTo(sliceAxis(sorted, rest.length, i, i + 1, stream), dtype, stream);
    const middle = Math.floor(size / 2);
    let m = size % 2 === 1 ? at(middle) : multiply(add(at(middle - 1), at(middle), stream), 0.5, stream);
    if (x.dtype.isInexact) m = where(any(isnan(lines, stream), -1, true, stream), toArray(Number.NaN, dtype), m, stream);
    return reshape(m, reducedShape(x.desc.shape, axes, keep), stream);
  });
}

/** The parts of size 1 along an axis (default 0), without that dimension. */
export function unstack(a: ArrayLike, axis?: number | S, s?: S): MxArray[] {
  const x = toArray(a);
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const at = normalizeAxis("unstack", typeof axis === "number" ? axis : 0, x.ndim);
  const n = x.desc.shape[at] as number;
  return n === 0 ? [] : tidy(() => split(x, n, at, stream).map((part) => squeeze(part, at, stream)));
}

/** Sum of products along one axis (default the last) of two arrays that broadcast; of complex arrays the first is conjugated. */
export function vecdot(a: ArrayLike, b: ArrayLike, axis?: number | S, s?: S): MxArray {
  const [x, y] = [toArray(a), toArray(b)];
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const given = typeof axis === "number" ? axis : -1;
  if (x.ndim === 0 || y.ndim === 0) throw opError("vecdot", `inputs must have at least one dimension, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
  const [p, q] = [normalizeAxis("vecdot", given, x.ndim), normalizeAxis("vecdot", given, y.ndim)];
  if (p !== q || x.desc.shape[p] !== y.desc.shape[q]) throw opError("vecdot", `both arrays must have the same size along the axis, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)} with axis ${given}`);
  return within(() => sum(multiply(x.dtype.kind === "complex" ? conj(x, stream) : x, y, stream), p, false, stream));
}

/** The sorted sequence itself, which all elements of a batch share. */
const sequenceOp = defineOp({
  name: "searchsorted",
  infer: ([a]) => [{ shape: (a as Aval).shape, dtype: (a as Aval).dtype }],
  view: (a) => ({ strides: a.strides, offset: a.offset }),
  reference: ([a]) => [a as Float64Array],
  vjp: "zero",
  jvp: "zero",
  vmap: noRule("the sorted sequence can not be batched"),
  kernels: [],
});

/**
 * Where values would be inserted into a sorted 1-D sequence to keep it sorted: for each value the number of elements below it (`side` "left", the default) or
 * not above it ("right"), as uint32. NaN counts as the largest value.
 */
export function searchsorted(sortedSequence: ArrayLike, values: ArrayLike, side?: string | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(side) ? side : undefined);
  const which = typeof side === "string" && !isStreamOrDevice(side) ? side : "left";
  if (which !== "left" && which !== "right") throw opError("searchsorted", `side must be "left" or "right", got ${JSON.stringify(side)}`);
  const [a, b] = [toArray(sortedSequence), toArray(values)];
  if (a.ndim !== 1) throw opError("searchsorted", `the sorted sequence must have one dimension, got ${formatShape(a.desc.shape)}`);
  const dtype = promote(a.dtype, b.dtype);
  if (dtype.kind === "complex") throw opError("searchsorted", `complex arrays are not supported, got ${a.dtype} and ${b.dtype}`);
  const size = a.size;
  return within(() => {
    const [sequence, v] = [sequenceOp([castTo(a, dtype, stream)], {}, stream)[0] as MxArray, castTo(b, dtype, stream)];
    let count = full(v.desc.shape, 0, uint32, stream);
    const below = (x: MxArray, y: MxArray): MxArray => (dtype.isFloat ? logicalOr(less(x, y, stream), logicalAnd(isnan(y, stream), logicalNot(isnan(x, stream), stream), stream), stream) : less(x, y, stream));
    // Bisection from the largest power of two on: the count grows by a step when the element that far is still below.
    for (let step = size === 0 ? 0 : 2 ** Math.floor(Math.log2(size)); step >= 1; step /= 2) {
      const next = add(count, toArray(step, uint32), stream);
      const last = toArray(size, uint32);
      const element = take(sequence, where(less(last, next, stream), toArray(size - 1, uint32), subtract(next, toArray(1, uint32), stream), stream), 0, stream);
      const fits = which === "left" ? below(element, v) : logicalNot(below(v, element), stream);
      count = where(logicalAnd(logicalNot(less(last, next, stream), stream), fits, stream), next, count, stream);
    }
    return count;
  });
}

/** True where exactly one of both is not zero. */
export function logicalXor(a: ArrayLike, b: ArrayLike, s?: S): MxArray {
  return within(() => notEqual(castTo(toArray(a), bool, s), castTo(toArray(b), bool, s), s));
}

/** Rounds towards zero. Integers stay as they are; complex arrays throw. */
export function trunc(a: ArrayLike, s?: S): MxArray {
  const x = toArray(a);
  if (x.dtype.kind === "complex") throw opError("trunc", `complex arrays are not supported, got ${x.dtype}`);
  if (!x.dtype.isFloat) return new MxArray(x.desc);
  return within(() => where(less(x, toArray(0, x.dtype), s), ceil(x, s), floor(x, s), s));
}

/** The array itself. */
export const positive = (a: ArrayLike, _s?: S): MxArray => new MxArray(toArray(a).desc);

/** An array of the given one's shape filled with values that broadcast to it, in `dtype` (default: the array's). */
export function fullLike(a: ArrayLike, values: ArrayLike, dtype?: Dtype | S, s?: S): MxArray {
  const x = toArray(a);
  const stream = s ?? (isStreamOrDevice(dtype) ? dtype : undefined);
  const to = dtype === undefined || dtype === null || isStreamOrDevice(dtype) ? x.dtype : requireDtype("fullLike", dtype);
  return within(() => broadcastTo(castTo(toArray(values, to), to, stream), x.desc.shape, stream));
}

/** An array from anything that can become one; an array stays itself unless another dtype is asked for. */
export function asarray(a: ArrayLike, dtype?: Dtype | null): MxArray {
  const x = toArray(a, dtype ?? undefined);
  return dtype && x.dtype !== dtype ? within(() => castTo(x, dtype)) : new MxArray(x.desc);
}

/** A window of M float32 samples from its formula at i / (M - 1); one sample is 1, and less than one gives none. */
function samples(op: string, M: number, f: (t: number) => number): MxArray {
  if (!Number.isInteger(M)) throw opError(op, `the number of samples must be an integer, got ${M}`);
  const n = Math.max(0, M);
  return fromNumbers([n], float32, Array.from({ length: n }, (_, i) => (n === 1 ? 1 : f(i / (n - 1)))));
}
/** Triangular window of M samples. */
export const bartlett = (M: number, _s?: S): MxArray => samples("bartlett", M, (t) => 1 - Math.abs(2 * t - 1));
/** Hann window of M samples: sin^2. */
export const hanning = (M: number, _s?: S): MxArray => samples("hanning", M, (t) => Math.sin(Math.PI * t) ** 2);
/** Hamming window of M samples. */
export const hamming = (M: number, _s?: S): MxArray => samples("hamming", M, (t) => 0.54 - 0.46 * Math.cos(2 * Math.PI * t));
/** Blackman window of M samples. */
export const blackman = (M: number, _s?: S): MxArray => samples("blackman", M, (t) => 0.42 - 0.5 * Math.cos(2 * Math.PI * t) + 0.08 * Math.cos(4 * Math.PI * t));

export { leftShift as bitwiseLeftShift, power as pow, rightShift as bitwiseRightShift } from "./binary.ts";
export { zeros as empty, zerosLike as emptyLike } from "./creation.ts";
export { transpose as matrixTranspose } from "./movement.ts";
export { cumprod as cumulativeProd, cumsum as cumulativeSum } from "./scan.ts";
export {
  arccos as acos, arccosh as acosh, arcsin as asin, arcsinh as asinh, arctan as atan, arctanh as atanh,
} from "./unary.ts";
export { arctan2 as atan2 } from "./binary.ts";
