/** Arrays made from nothing: zeros, ones, full, arange, linspace, eye, tri, diag, meshgrid, and the triangles of matrices. */
import { type Aval, ArrayDesc, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { Dtype, bool, float32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Arg, defineOp, input, output } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { type Shape, formatShape } from "../core/shape.ts";
import { copySteps, fillStep } from "./copy.ts";
import { gpuBand, gpuBandPart, gpuDiag, gpuFull, gpuRange } from "./creation-gpu.ts";
import { type ArrayLike, requireDtype, shapeArgument, toArray } from "./convert.ts";
import { multiply } from "./binary.ts";
import { broadcastArrays, broadcastTo, diagonal, expandDims } from "./movement.ts";
import { pad } from "./pad.ts";
import { reshapeTo } from "./reshape.ts";
import { blank, move, widthOf } from "./oracle.ts";
import { tidy } from "../core/memory.ts";
import { within } from "./scope.ts";
import { castTo } from "./region.ts";

type S = StreamOrDevice | null | undefined;
type DtypeArgument = Dtype | S;

/** A dtype argument, or the default when a stream or nothing stands in its place. */
const dtypeOr = (op: string, d: unknown, otherwise: Dtype): Dtype => (d === undefined || d === null || isStreamOrDevice(d) ? otherwise : requireDtype(op, d));
const streamOf = (s: S, ...places: unknown[]): S => s ?? places.find(isStreamOrDevice);
const constant = (value: number, dtype: Dtype): MxArray => new MxArray(ArrayDesc.constant(value, dtype));

// one value

const fullOp = defineOp<{ shape: Shape }>({
  name: "full",
  // The transform sums what was broadcast.
  vjp: ({ cotangents }) => cotangents,
  jvp: "linear",
  vmap: ({ inputs: [value], size, params: { shape } }) => [broadcastTo(reshapeTo(value as MxArray, [size, ...shape.map(() => 1)]), [size, ...shape])],
  infer: ([value], p) => [{ shape: p.shape, dtype: (value as Aval).dtype }],
  reference: ([value], [x], p) => [blank(p.shape, widthOf(x as Aval)).map((_, i) => (value as Float64Array)[i % widthOf(x as Aval)] as number)],
  kernels: [
    {
      name: "wasm/fill/full",
      layout: ["row"],
      launch(_inputs, [out]) {
        const { size, dtype } = out as View;
        return { steps: size === 0 ? [] : [fillStep(output(0), input(0), dtype.size, size * dtype.size)] };
      },
    },
  ],
  gpu: gpuFull,
});

/** An array of one value (or of an array broadcast to the shape), by default of the value's dtype. */
export function full(shape: number | readonly number[], fillValue: ArrayLike, dtype?: DtypeArgument, s?: S): MxArray {
  const stream = streamOf(s, dtype);
  const to = shapeArgument("full", shape);
  const d = dtypeOr("full", dtype, typeof fillValue === "number" ? float32 : typeof fillValue === "boolean" ? bool : toArray(fillValue).dtype);
  return within(() => {
    const value = castTo(typeof fillValue === "number" || typeof fillValue === "boolean" ? constant(Number(fillValue), d) : toArray(fillValue), d, stream);
    if (value.size !== 1 || value.ndim > to.length) return broadcastTo(value, to, stream);
    return fullOp([value.ndim === 0 ? value : reshapeTo(value, [], stream)], { shape: to }, stream)[0] as MxArray;
  });
}
/** Zeros, float32 by default. */
export const zeros = (shape: number | readonly number[], dtype?: DtypeArgument, s?: S): MxArray => full(shape, 0, dtypeOr("zeros", dtype, float32), streamOf(s, dtype));
/** Ones, float32 by default. */
export const ones = (shape: number | readonly number[], dtype?: DtypeArgument, s?: S): MxArray => full(shape, 1, dtypeOr("ones", dtype, float32), streamOf(s, dtype));
/** Zeros of the array's shape, and of its dtype unless another is given. */
export function zerosLike(array: ArrayLike, dtype?: DtypeArgument, s?: S): MxArray {
  const a = toArray(array);
  return full(a.shape, 0, dtypeOr("zerosLike", dtype, a.dtype), streamOf(s, dtype));
}
/** Ones of the array's shape, and of its dtype unless another is given. */
export function onesLike(array: ArrayLike, dtype?: DtypeArgument, s?: S): MxArray {
  const a = toArray(array);
  return full(a.shape, 1, dtypeOr("onesLike", dtype, a.dtype), streamOf(s, dtype));
}

// ranges

const words = new DataView(new ArrayBuffer(8));
/** The two words of a float64 argument. */
function f64(value: number): [Arg, Arg] {
  words.setFloat64(0, value, true);
  return [words.getInt32(0, true), words.getInt32(4, true)];
}

const rangeOp = defineOp<{ size: number; start: number; step: number; last: number | undefined; dtype: Dtype }>({
  name: "arange",
  vjp: "zero",
  jvp: "zero",
  vmap: noRule("it has no inputs"),
  infer: (_inputs, p) => [{ shape: [p.size], dtype: p.dtype }],
  reference: (_inputs, _avals, p, [out]) => {
    const width = widthOf(out as Aval);
    const result = blank([p.size], width);
    for (let i = 0; i < p.size; i++) result[i * width] = p.last !== undefined && i === p.size - 1 && i > 0 ? p.last : p.start + i * p.step;
    return [result];
  },
  kernels: [
    {
      name: "wasm/fill/range",
      launch(_inputs, _outputs, p) {
        const args: Arg[] = [output(0), p.dtype.code, ...f64(p.start), ...f64(p.step), ...f64(p.last ?? 0), p.last === undefined ? 0 : 1, p.size, p.dtype.size];
        return { steps: p.size === 0 ? [] : [{ entry: "fill/range", args, units: Math.ceil(p.size / 1024), grain: 8 }] };
      },
    },
  ],
  gpu: gpuRange,
});

/**
 * start, start + step, ... before stop: `arange(stop)`, `arange(stop, dtype)`, `arange(start, stop, step?, dtype?)`. float32 by default; computed in float64 and rounded
 * once. For integer dtypes start and step are cut to integers first.
 */
export function arange(start: number, stop?: number | DtypeArgument, step?: number | DtypeArgument, dtype?: DtypeArgument, s?: S): MxArray {
  const stream = streamOf(s, stop, step, dtype);
  const d = dtypeOr("arange", [stop, step, dtype].find((x) => x instanceof Dtype), float32);
  const one = typeof stop !== "number";
  const from = one ? 0 : start;
  const to = one ? start : stop;
  const by = typeof step === "number" ? step : 1;
  for (const x of [from, to, by]) if (typeof x !== "number" || Number.isNaN(x)) throw opError("arange", `start, stop and step must be numbers, got ${from}, ${to} and ${by}`);
  if (by === 0) throw opError("arange", "step must not be zero, got 0");
  if (!Number.isFinite(from) || !Number.isFinite(to)) throw opError("arange", `the number of elements must be finite, got start ${from} and stop ${to}`);
  if (d === bool) throw opError("arange", "bool is not supported, got bool");
  // An infinite step leaves the start alone, if it lies before stop.
  const size = Math.max(0, Number.isFinite(by) ? Math.ceil((to - from) / by) : to !== from && to > from === by > 0 ? 1 : 0);
  if (size > 2 ** 31 - 1) throw opError("arange", `at most 2147483647 elements, got ${size}`);
  const first = d.isInteger ? Math.trunc(from) : from;
  const move = !Number.isFinite(by) ? 0 : d.isInteger ? Math.trunc(from + by) - first : by;
  return rangeOp([], { size, start: first, step: move, last: undefined, dtype: d }, stream)[0] as MxArray;
}

/** `num` values from start to stop at equal distances; stop is the last one unless `endpoint` is false. float32 by default. */
export function linspace(start: number, stop: number, num?: number | S, dtype?: DtypeArgument, endpoint?: boolean | S, s?: S): MxArray {
  const n = typeof num === "number" ? num : 50;
  if (!Number.isInteger(n) || n < 0) throw opError("linspace", `num must be a non-negative integer, got ${n}`);
  const closed = endpoint !== false;
  const step = n > 1 || !closed ? (stop - start) / (closed ? n - 1 : Math.max(1, n)) : 0;
  const params = { size: n, start, step, last: closed && n > 1 ? stop : undefined, dtype: dtypeOr("linspace", dtype, float32) };
  return rangeOp([], params, streamOf(s, num, dtype, endpoint))[0] as MxArray;
}

// bands of matrices

const limit = 2 ** 30;
const clipped = (k: number): number => Math.max(-limit, Math.min(limit, k));
interface Band {
  /** Elements (i, j) with low <= j - i <= high belong to the band. */
  readonly low: number;
  readonly high: number;
}
const inside = (p: Band, i: number, j: number): boolean => p.low <= j - i && j - i <= p.high;

const bandOp = defineOp<Band & { rows: number; columns: number }>({
  name: "band",
  vjp: "zero",
  jvp: "zero",
  vmap: noRule("its only input is a constant that the op is made with"),
  infer: ([value], p) => [{ shape: [p.rows, p.columns], dtype: (value as Aval).dtype }],
  reference: ([value], [x], p) => {
    const width = widthOf(x as Aval);
    const result = blank([p.rows, p.columns], width);
    for (let i = 0; i < p.rows; i++) for (let j = 0; j < p.columns; j++) if (inside(p, i, j)) move(result, i * p.columns + j, value as Float64Array, 0, width);
    return [result];
  },
  kernels: [
    {
      name: "wasm/fill/band",
      layout: ["row"],
      launch: (_inputs, [out], p) => ({ steps: bandSteps(out as View, p, 1) }),
    },
  ],
  gpu: gpuBand,
});
function bandSteps(out: View, p: Band, single: 0 | 1) {
  const rows = out.shape[out.shape.length - 2] as number;
  const columns = out.shape[out.shape.length - 1] as number;
  if (out.size === 0) return [];
  const args: Arg[] = [output(0), input(0), single, out.dtype.size, rows, columns, p.low, p.high];
  return [{ entry: "fill/band", args, units: out.size / columns, grain: Math.max(1, Math.floor(32768 / (columns + 16))) }];
}
const integer = (op: string, name: string, n: unknown): number => {
  if (!Number.isInteger(n)) throw opError(op, `${name} must be an integer, got ${String(n)}`);
  return n as number;
};
/** Sizes and diagonal of a band-shaped matrix from optional arguments. */
function bandMatrix(op: string, n: number, m: unknown, k: unknown, dtype: unknown, band: (k: number) => Band, s: S): MxArray {
  const rows = integer(op, "n", n);
  const columns = typeof m === "number" ? integer(op, "m", m) : rows;
  if (rows < 0 || columns < 0) throw opError(op, `sizes must not be negative, got ${rows} and ${columns}`);
  const diagonalIndex = typeof k === "number" ? clipped(integer(op, "k", k)) : 0;
  const stream = streamOf(s, m, k, dtype);
  const d = dtypeOr(op, [m, k, dtype].find((x) => x instanceof Dtype), float32);
  return within(() => bandOp([constant(1, d)], { ...band(diagonalIndex), rows, columns }, stream)[0] as MxArray);
}
/** n x m matrix (m = n by default) with ones on diagonal k and zeros elsewhere. */
export const eye = (n: number, m?: number | DtypeArgument, k?: number | DtypeArgument, dtype?: DtypeArgument, s?: S): MxArray => bandMatrix("eye", n, m, k, dtype, (d) => ({ low: d, high: d }), s);
/** n x n matrix with ones on the main diagonal. */
export const identity = (n: number, dtype?: DtypeArgument, s?: S): MxArray => eye(n, n, 0, dtype, s);
/** n x m matrix (m = n by default) with ones on and below diagonal k. */
export const tri = (n: number, m?: number | DtypeArgument, k?: number | DtypeArgument, dtype?: DtypeArgument, s?: S): MxArray => bandMatrix("tri", n, m, k, dtype, (d) => ({ low: -limit * 2, high: d }), s);

const bandPartOp = defineOp<Band>({
  name: "bandPart",
  vjp: ({ cotangents, params, apply }) => apply(cotangents, params),
  jvp: "linear",
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer: ([a]) => [a as Aval],
  reference: ([a], [x], p) => {
    const [rows, columns] = (x as Aval).shape.slice(-2) as [number, number];
    const width = widthOf(x as Aval);
    return [(a as Float64Array).map((v, n) => (inside(p, Math.floor(n / width / columns) % rows, Math.floor(n / width) % columns) ? v : 0))];
  },
  kernels: [
    {
      name: "wasm/fill/bandPart",
      layout: ["row"],
      launch: (_inputs, [out], p) => ({ steps: bandSteps(out as View, p, 0) }),
    },
  ],
  gpu: gpuBandPart,
});
function triangle(op: string, array: ArrayLike, k: unknown, band: (k: number) => Band, s: S): MxArray {
  const a = toArray(array);
  if (a.ndim < 2) throw opError(op, `needs at least two dimensions, got ${formatShape(a.shape)}`);
  return bandPartOp([a], band(typeof k === "number" ? clipped(integer(op, "k", k)) : 0), streamOf(s, k))[0] as MxArray;
}
/** The matrices with zeros above diagonal k. */
export const tril = (array: ArrayLike, k?: number | S, s?: S): MxArray => triangle("tril", array, k, (d) => ({ low: -limit * 2, high: d }), s);
/** The matrices with zeros below diagonal k. */
export const triu = (array: ArrayLike, k?: number | S, s?: S): MxArray => triangle("triu", array, k, (d) => ({ low: d, high: limit * 2 - 1 }), s);

const diagOp = defineOp<{ k: number }>({
  name: "diag",
  vjp: ({ cotangents: [g], params: { k } }) => [diagonal(g as MxArray, k, 0, 1)],
  jvp: "linear",
  vmap: ({ inputs: [x], params: { k } }) => {
    const n = (x as MxArray).desc.shape[1] as number;
    const square = multiply(expandDims(x as MxArray, -1), eye(n, n, 0, (x as MxArray).dtype));
    return [pad(square, [[0, 0], [Math.max(0, -k), Math.max(0, k)], [Math.max(0, k), Math.max(0, -k)]])];
  },
  infer: ([a], { k }) => {
    const n = ((a as Aval).shape[0] as number) + Math.abs(k);
    return [{ shape: [n, n], dtype: (a as Aval).dtype }];
  },
  reference: ([a], _avals, { k }, [out]) => {
    const n = (out as Aval).shape[0] as number;
    const width = widthOf(out as Aval);
    const result = blank([n, n], width);
    for (let i = 0; i < n - Math.abs(k); i++) move(result, (i + Math.max(0, -k)) * n + i + Math.max(0, k), a as Float64Array, i, width);
    return [result];
  },
  kernels: [
    {
      name: "wasm/copy/diag",
      layout: ["any", "row"],
      launch([a], [out], { k }) {
        const to = out as View;
        if (to.size === 0) return { steps: [] };
        const { size } = to.dtype;
        const n = to.shape[0] as number;
        const at = (k >= 0 ? k : -k * n) * size;
        return { steps: [fillStep(output(0), input(1), size, to.size * size), ...copySteps(size, (a as View).shape, input(0), (a as View).strides, output(0, at), [n + 1])] };
      },
    },
  ],
  gpu: gpuDiag,
});

/** The matrix with a 1-d array on diagonal k, or diagonal k of a 2-d array. */
export function diag(array: ArrayLike, k?: number | S, s?: S): MxArray {
  const a = toArray(array);
  const stream = streamOf(s, k);
  const offset = typeof k === "number" ? integer("diag", "k", k) : 0;
  if (a.ndim === 2) return diagonal(a, offset, 0, 1, stream);
  if (a.ndim !== 1) throw opError("diag", `needs one or two dimensions, got ${formatShape(a.shape)}`);
  return within(() => diagOp([a, constant(0, a.dtype)], { k: offset }, stream)[0] as MxArray);
}

/**
 * Coordinate matrices of 1-d arrays: `meshgrid(x, y, ..., sparse?, indexing?)`. `indexing` "xy" (default) has the second array along the first axis, "ij" keeps the order;
 * sparse results keep size 1 along the other axes.
 */
export function meshgrid(...args: readonly (ArrayLike | readonly MxArray[] | string | S)[]): MxArray[] {
  const stream = args.find(isStreamOrDevice);
  const indexing = args.find((x) => typeof x === "string" && !isStreamOrDevice(x)) ?? "xy";
  if (indexing !== "xy" && indexing !== "ij") throw opError("meshgrid", `indexing must be "xy" or "ij", got ${JSON.stringify(indexing)}`);
  const sparse = args.includes(true);
  const first = args[0];
  const spread = Array.isArray(first) && first.length > 0 && first.every((x) => x instanceof MxArray);
  const given = spread ? (first as unknown as MxArray[]) : (args.filter((x) => x !== undefined && x !== null && typeof x !== "string" && typeof x !== "boolean" && !isStreamOrDevice(x)) as ArrayLike[]);
  const arrays = given.map((x) => toArray(x));
  const swap = indexing === "xy" && arrays.length > 1;
  return tidy(() => {
    const grids = arrays.map((a, i) => {
      if (a.ndim > 1) throw opError("meshgrid", `arrays must have one dimension, got ${formatShape(a.shape)}`);
      const axis = swap && i < 2 ? 1 - i : i;
      return reshapeTo(a, arrays.map((_, d) => (d === axis ? a.size : 1)), stream);
    });
    return sparse ? grids : broadcastArrays(grids, stream);
  });
}
