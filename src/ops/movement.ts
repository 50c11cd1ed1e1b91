/** Views: ops that look at the same data with another shape. Data is copied only where no strides can express the result. */
import { type Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, bitsArray, int32, fromBfloat16Bits, fromFloat16Bits } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Layout, defineOp } from "../core/op.ts";
import { notDifferentiable } from "../core/rules.ts";
import { type Shape, broadcastShapes, broadcastStrides, formatShape, normalizeAxes, normalizeAxis, rowStrides, sameShape, sizeOf } from "../core/shape.ts";
import { noteSizes, onesCount } from "../core/sizes.ts";
import { type ArrayLike, requireDtype, shapeArgument, storeNumbers, toArray } from "./convert.ts";
import { multiply } from "./binary.ts";
import { arange, eye, zeros } from "./creation.ts";
import { scatterAddAxis } from "./indexing.ts";
import { byIndex } from "./oracle.ts";
import { pad } from "./pad.ts";
import { reshapeTo, same } from "./reshape.ts";

type S = StreamOrDevice | null | undefined;

/** Splits trailing streams off a variadic list of numbers, and takes the numbers from one list if they are given so. */
function variadic(args: readonly unknown[]): { list: readonly number[] | undefined; stream: S } {
  let stream: S;
  let n = args.length;
  if (n > 0 && isStreamOrDevice(args[n - 1])) stream = args[--n] as StreamOrDevice;
  while (n > 0 && (args[n - 1] === undefined || args[n - 1] === null)) n--;
  if (n === 0) return { list: undefined, stream };
  const first = args[0];
  return { list: Array.isArray(first) ? (first as number[]) : (args.slice(0, n) as number[]), stream };
}

// reshape

function resolveShape(a: Aval & { size: number }, shape: readonly number[], op: string): number[] {
  const out = new Array<number>(shape.length);
  let known = 1;
  let free = -1;
  for (let i = 0; i < shape.length; i++) {
    const d = shape[i] as number;
    if (d === -1 && free < 0) free = i;
    else if (Number.isInteger(d) && d >= 0) known *= d;
    else throw opError(op, `shape must hold non-negative integers and at most one -1, got ${formatShape(shape)}`);
    out[i] = d;
  }
  if (free >= 0) {
    if (known === 0 || a.size % known !== 0) throw opError(op, `cannot infer the size of dimension ${free}, got an array of size ${a.size} and shape ${formatShape(shape)}`);
    out[free] = a.size / known;
  } else if (known !== a.size) throw opError(op, `cannot reshape array of size ${a.size} into shape ${formatShape(shape)}, got ${formatShape(a.shape)}`);
  return out;
}

/** The array with another shape of the same size. One dimension may be -1. `reshape(a, [2, -1])` or `reshape(a, 2, -1)`. */
export function reshape(a: ArrayLike, ...shape: (number | readonly number[] | S)[]): MxArray {
  const x = toArray(a);
  const { list, stream } = variadic(shape);
  return reshapeTo(x, resolveShape(x.desc, list ?? [], "reshape"), stream, { given: list ?? [] });
}
/** Merges the dimensions startAxis .. endAxis (both included; defaults: all) into one. A 0-d array becomes 1-d. */
export function flatten(a: ArrayLike, startAxis?: number | S, endAxis?: number | S, s?: S): MxArray {
  const x = toArray(a);
  const stream = s ?? (isStreamOrDevice(endAxis) ? endAxis : isStreamOrDevice(startAxis) ? startAxis : undefined);
  const { shape } = x.desc;
  if (shape.length === 0) return reshapeTo(x, [1], stream);
  const clip = (axis: number): number => Math.max(0, Math.min(shape.length - 1, axis < 0 ? axis + shape.length : axis));
  const from = clip(typeof startAxis === "number" ? startAxis : 0);
  const to = clip(typeof endAxis === "number" ? endAxis : -1);
  if (to < from) throw opError("flatten", `startAxis must not be after endAxis, got ${startAxis} and ${endAxis}`);
  return reshapeTo(x, [...shape.slice(0, from), sizeOf(shape.slice(from, to + 1)), ...shape.slice(to + 1)], stream);
}

/** Splits dimension `axis` into the given shape, one of whose dimensions may be -1. */
export function unflatten(a: ArrayLike, axis: number, shape: readonly number[], s?: S): MxArray {
  const x = toArray(a);
  const at = normalizeAxis("unflatten", axis, x.ndim);
  if (!Array.isArray(shape) || shape.length === 0) throw opError("unflatten", `shape must not be empty, got ${JSON.stringify(shape)}`);
  const size = x.desc.shape[at] as number;
  const parts = resolveShape({ shape: [size], size, dtype: x.desc.dtype }, shape, "unflatten");
  const free = shape.indexOf(-1);
  return reshapeTo(x, [...x.desc.shape.slice(0, at), ...parts, ...x.desc.shape.slice(at + 1)], s, free < 0 ? {} : { free: at + free });
}

// dimensions of size 1

const expandDimsOp = defineOp<{ axes: readonly number[] }>({
  name: "expandDims",
  infer: ([a], p) => [{ shape: inserted((a as Aval).shape, p.axes, 1), dtype: (a as Aval).dtype }],
  view: (a, p) => ({ strides: inserted(a.strides, p.axes, 1), offset: a.offset }),
  vjp: ({ cotangents: [g], params }) => [squeeze(g as MxArray, params.axes)],
  jvp: "linear",
  vmap: ({ inputs, params, apply }) => apply(inputs, behindBatch(params)),
  reference: ([a]) => [a as Float64Array],
  kernels: [],
});
/** Axes of an element as axes of a batch. */
const behindBatch = ({ axes }: { axes: readonly number[] }): { axes: readonly number[] } => ({ axes: axes.map((axis) => axis + 1) });
/** `list` with `value` put in so that it stands at the places `axes` (ascending) of the result. */
function inserted(list: Shape, axes: readonly number[], value: number): number[] {
  const n = list.length + axes.length;
  const out = new Array<number>(n);
  for (let i = 0, from = 0, next = 0; i < n; i++) {
    if (axes[next] === i) {
      out[i] = value;
      next++;
    } else out[i] = list[from++] as number;
  }
  return out;
}

/** Puts dimensions of size 1 in, so that they stand at `dims` of the result. */
export function expandDims(a: ArrayLike, dims: number | readonly number[], s?: S): MxArray {
  const x = toArray(a);
  const rank = x.desc.shape.length + (typeof dims === "number" ? 1 : dims.length);
  const axes = typeof dims === "number" ? [normalizeAxis("expandDims", dims, rank)] : normalizeAxes("expandDims", dims, rank);
  return axes.length === 0 ? same(x) : (expandDimsOp([x], { axes }, s)[0] as MxArray);
}

const squeezeOp = defineOp<{ axes: readonly number[] }>({
  name: "squeeze",
  infer([a], { axes }) {
    const { shape, dtype } = a as Aval;
    for (const i of axes) if (shape[i] !== 1) throw opError("squeeze", `cannot squeeze axis ${i} of size ${shape[i]}, got an array of shape ${formatShape(shape)}`);
    return [{ shape: without(shape, axes), dtype }];
  },
  view: (a, p) => ({ strides: without(a.strides, p.axes), offset: a.offset }),
  vjp: ({ cotangents: [g], params }) => [expandDims(g as MxArray, params.axes)],
  jvp: "linear",
  vmap: ({ inputs, params, apply }) => apply(inputs, behindBatch(params)),
  reference: ([a]) => [a as Float64Array],
  kernels: [],
});
/** `list` without the places `axes` (ascending). */
function without(list: Shape, axes: readonly number[]): number[] {
  const out = new Array<number>(list.length - axes.length);
  for (let i = 0, to = 0, next = 0; i < list.length; i++) {
    if (axes[next] === i) next++;
    else out[to++] = list[i] as number;
  }
  return out;
}

/** Drops dimensions of size 1: the named ones, or all. Throws when a named one has another size. */
export function squeeze(a: ArrayLike, axis?: number | readonly number[] | S, s?: S): MxArray {
  const x = toArray(a);
  const { shape } = x.desc;
  const given = axis === undefined || axis === null || isStreamOrDevice(axis) ? undefined : axis;
  const axes: number[] = given === undefined ? [] : normalizeAxes("squeeze", given, shape.length);
  if (given === undefined) noteSizes(onesCount);
  if (given === undefined) for (let i = 0; i < shape.length; i++) if (shape[i] === 1) axes.push(i);
  return axes.length === 0 ? same(x) : (squeezeOp([x], { axes }, s ?? (isStreamOrDevice(axis) ? axis : undefined))[0] as MxArray);
}

// transpose

const transposeOp = defineOp<{ axes: readonly number[] }>({
  name: "transpose",
  infer: ([a], p) => [{ shape: permuted((a as Aval).shape, p.axes), dtype: (a as Aval).dtype }],
  view: (a, p) => ({ strides: permuted(a.strides, p.axes), offset: a.offset }),
  vjp: ({ cotangents: [g], params }) => [permute(g as MxArray, params.axes.map((_, i) => params.axes.indexOf(i)))],
  jvp: "linear",
  vmap: ({ inputs, params, apply }) => apply(inputs, { axes: [0, ...behindBatch(params).axes] }),
  reference: ([a], [x], p, [out]) => [
    byIndex(a as Float64Array, x as Aval, (out as Aval).shape, (index) => {
      const from: number[] = [];
      p.axes.forEach((axis, i) => {
        from[axis] = index[i] as number;
      });
      return from;
    }),
  ],
  kernels: [],
});
function permuted(list: Shape, axes: readonly number[]): number[] {
  const out = new Array<number>(axes.length);
  for (let i = 0; i < axes.length; i++) out[i] = list[axes[i] as number] as number;
  return out;
}
/** Transposes by axes that are known to be a permutation. */
function permute(x: MxArray, axes: readonly number[], s?: S): MxArray {
  for (let i = 0; i < axes.length; i++) if (axes[i] !== i) return transposeOp([x], { axes }, s)[0] as MxArray;
  return same(x);
}

/** The array with its dimensions in another order (default: reversed). `transpose(a, [1, 0])` or `transpose(a, 1, 0)`. */
export function transpose(a: ArrayLike, ...axes: (number | readonly number[] | S)[]): MxArray {
  const x = toArray(a);
  const rank = x.desc.shape.length;
  const { list, stream } = variadic(axes);
  const order = new Array<number>(rank);
  if (list === undefined) {
    for (let i = 0; i < rank; i++) order[i] = rank - 1 - i;
    return permute(x, order, stream);
  }
  if (list.length !== rank) throw opError("transpose", `axes must name every dimension of an array with ${rank} dimensions, got ${JSON.stringify(list)}`);
  let seen = 0;
  for (let i = 0; i < rank; i++) {
    const axis = normalizeAxis("transpose", list[i] as number, rank);
    if (seen & (1 << axis)) throw opError("transpose", `axes must be different, got ${JSON.stringify(list)}`);
    seen |= 1 << axis;
    order[i] = axis;
  }
  return permute(x, order, stream);
}
/** Same as `transpose`. */
export const permuteDims = transpose;

/** Moves dimensions to new places; the others keep their order. */
export function moveaxis(a: ArrayLike, source: number | readonly number[], destination: number | readonly number[], s?: S): MxArray {
  const x = toArray(a);
  const rank = x.ndim;
  const from = (typeof source === "number" ? [source] : source).map((i) => normalizeAxis("moveaxis", i, rank));
  const to = (typeof destination === "number" ? [destination] : destination).map((i) => normalizeAxis("moveaxis", i, rank));
  if (from.length !== to.length || new Set(from).size !== from.length || new Set(to).size !== to.length) {
    throw opError("moveaxis", `source and destination must be as many different axes, got ${JSON.stringify(source)} and ${JSON.stringify(destination)}`);
  }
  const rest: number[] = [];
  for (let i = 0; i < rank; i++) if (!from.includes(i)) rest.push(i);
  const order: number[] = [];
  for (let i = 0, next = 0; i < rank; i++) {
    const moved = to.indexOf(i);
    order.push(moved >= 0 ? (from[moved] as number) : (rest[next++] as number));
  }
  return permute(x, order, s);
}

/** Exchanges two dimensions. */
export function swapaxes(a: ArrayLike, axis1: number, axis2: number, s?: S): MxArray {
  const x = toArray(a);
  const rank = x.desc.shape.length;
  const i = normalizeAxis("swapaxes", axis1, rank);
  const j = normalizeAxis("swapaxes", axis2, rank);
  const order = new Array<number>(rank);
  for (let d = 0; d < rank; d++) order[d] = d === i ? j : d === j ? i : d;
  return permute(x, order, s);
}

// broadcast

const broadcastOp = defineOp<{ shape: Shape }>({
  name: "broadcastTo",
  infer: ([a], p) => [{ shape: p.shape, dtype: (a as Aval).dtype }],
  view: (a, p) => ({ strides: broadcastStrides(a.shape, a.strides, p.shape), offset: a.offset }),
  // The transform sums what was broadcast.
  vjp: ({ cotangents }) => cotangents,
  jvp: "linear",
  vmap: ({ inputs: [a], size, params, apply }) => {
    const shape = (a as MxArray).desc.shape;
    const missing = new Array<number>(params.shape.length - (shape.length - 1)).fill(1);
    return apply([reshapeTo(a as MxArray, [size, ...missing, ...shape.slice(1)])], { shape: [size, ...params.shape] });
  },
  reference: ([a], [x], p) => {
    const { shape } = x as Aval;
    const lead = p.shape.length - shape.length;
    return [byIndex(a as Float64Array, x as Aval, p.shape, (index) => shape.map((d, i) => (d === 1 ? 0 : (index[lead + i] as number))))];
  },
  kernels: [],
});

/** The array repeated along dimensions of size 1 and new leading dimensions, without a copy. */
export function broadcastTo(a: ArrayLike, shape: number | readonly number[], s?: S): MxArray {
  const x = toArray(a);
  const to = shapeArgument("broadcastTo", shape);
  const from = x.desc.shape;
  noteSizes(onesCount);
  if (sameShape(from, to)) return same(x);
  const lead = to.length - from.length;
  for (let i = 0; i < from.length; i++) {
    if (lead < 0 || (from[i] !== 1 && from[i] !== to[lead + i])) throw opError("broadcastTo", `cannot broadcast array of shape ${formatShape(from)} into shape ${formatShape(to)}, got dimension ${i} of size ${from[i]}`);
  }
  return broadcastOp([x], { shape: to }, s)[0] as MxArray;
}

/** All arrays broadcast to their common shape. */
export function broadcastArrays(arrays: readonly ArrayLike[], s?: S): MxArray[] {
  const list = arrays.map((a) => toArray(a));
  const shape = broadcastShapes("broadcastArrays", ...list.map((a) => a.desc.shape));
  return list.map((a) => broadcastTo(a, shape, s));
}

// strides given by hand

const asStridedOp = defineOp<{ shape: Shape; strides: Shape; offset: number }>({
  name: "asStrided",
  infer: ([a], p) => [{ shape: p.shape, dtype: (a as Aval).dtype }],
  view: (a, p) => (a.contiguous ? { strides: p.strides, offset: a.offset + p.offset } : undefined),
  vjp: ({ inputs: [x], cotangents: [g], params }) => {
    const { size, shape, dtype } = (x as MxArray).desc;
    const places = asStrided(arange(size, int32), params.shape, params.strides, params.offset);
    return [reshapeTo(scatterAddAxis(zeros([size], dtype), reshapeTo(places, [places.size]), reshapeTo(g as MxArray, [places.size]), 0), shape)];
  },
  jvp: "linear",
  vmap: ({ inputs: [x], size, params, apply }) => {
    const step = (x as MxArray).size / Math.max(1, size);
    return apply([x as MxArray], { shape: [size, ...params.shape], strides: [step, ...params.strides], offset: params.offset });
  },
  reference: ([a], [x], p) => {
    const flat = { shape: [sizeOf((x as Aval).shape)], dtype: (x as Aval).dtype };
    return [byIndex(a as Float64Array, flat, p.shape, (index) => [index.reduce((at, i, d) => at + i * (p.strides[d] as number), p.offset)])];
  },
  kernels: [],
});

/**
 * View of the array's row-major elements with any shape, strides and offset, counted in elements. Throws when an element would lie outside the array.
 */
export function asStrided(a: ArrayLike, shape?: readonly number[] | null, strides?: readonly number[] | null, offset?: number | null, s?: S): MxArray {
  const x = toArray(a);
  const to = shape ? shapeArgument("asStrided", shape) : x.shape;
  const steps = strides ? [...strides] : rowStrides(to);
  const start = offset ?? 0;
  if (steps.length !== to.length || !steps.every(Number.isInteger) || !Number.isInteger(start)) throw opError("asStrided", `strides must be one integer per dimension of ${formatShape(to)}, got ${JSON.stringify(strides)}`);
  let low = start;
  let high = start;
  for (let i = 0; i < to.length; i++) {
    const reach = ((to[i] as number) - 1) * (steps[i] as number);
    if (reach < 0) low += reach;
    else high += reach;
  }
  if (sizeOf(to) > 0 && (low < 0 || high >= x.size)) throw opError("asStrided", `elements ${low} to ${high} must lie inside the array, got an array of size ${x.size}`);
  return asStridedOp([x], { shape: to, strides: steps, offset: start }, s)[0] as MxArray;
}

// bits as another dtype

const viewOp = defineOp<{ dtype: Dtype }>({
  name: "view",
  infer: ([a], p) => [{ shape: viewShape(a as Aval, p.dtype), dtype: p.dtype }],
  view(a, p): Layout | undefined {
    const from = a.dtype.size;
    const to = p.dtype.size;
    if (from === to) return { strides: a.strides, offset: a.offset };
    const rank = a.shape.length;
    if (a.contiguous) return (a.offset * from) % to === 0 ? { strides: rowStrides(viewShape(a, p.dtype)), offset: (a.offset * from) / to } : undefined;
    const strides = new Array<number>(rank);
    for (let i = 0; i < rank; i++) strides[i] = i === rank - 1 ? 1 : ((a.strides[i] as number) * from) / to;
    const whole = strides.every(Number.isInteger) && (a.offset * from) % to === 0;
    return whole && (a.strides[rank - 1] === 1 || a.shape[rank - 1] === 1) ? { strides, offset: (a.offset * from) / to } : undefined;
  },
  reference: ([a], [x], p) => [numbersOf(bytesOf(a as Float64Array, (x as Aval).dtype), p.dtype)],
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: ({ inputs: [x], params, apply }) => {
    const one = (x as MxArray).ndim === 1 && (x as MxArray).dtype.size !== params.dtype.size;
    return one ? [squeeze(apply([expandDims(x as MxArray, 1)], params)[0] as MxArray, 1)] : apply([x as MxArray], params);
  },
  kernels: [],
});
function viewShape(a: Aval, dtype: Dtype): Shape {
  if (a.dtype.size === dtype.size) return a.shape;
  const bytes = (a.shape[a.shape.length - 1] ?? 0) * a.dtype.size;
  return [...a.shape.slice(0, -1), bytes / dtype.size];
}
function bytesOf(values: Float64Array, dtype: Dtype): Uint8Array {
  if (dtype.kind === "complex") return new Uint8Array(Float32Array.from(values).buffer);
  const bytes = new Uint8Array(values.length * dtype.size);
  storeNumbers(bytes, dtype, values.length, (i) => values[i] as number);
  return bytes;
}
function numbersOf(bytes: Uint8Array, dtype: Dtype): Float64Array {
  const bits = new bitsArray[dtype.name](bytes.buffer as ArrayBuffer);
  const number = dtype.name === "bfloat16" ? fromBfloat16Bits : dtype.name === "float16" ? fromFloat16Bits : Number;
  return Float64Array.from({ length: bits.length }, (_, i) => number(bits[i] as number));
}

/** The same bytes as elements of another dtype; the last dimension grows or shrinks with the element size. */
export function view(a: ArrayLike, dtype: Dtype, s?: S): MxArray {
  const x = toArray(a);
  const to = requireDtype("view", dtype);
  const { shape } = x.desc;
  if (x.dtype === to) return same(x);
  if (x.dtype.size !== to.size) {
    if (shape.length === 0) throw opError("view", `a 0-d array can only become a dtype of the same size, got ${x.dtype} to ${to}`);
    if (((shape[shape.length - 1] as number) * x.dtype.size) % to.size !== 0) throw opError("view", `the last dimension's bytes must be a multiple of ${to}'s ${to.size}, got ${formatShape(shape)} of ${x.dtype}`);
  }
  return viewOp([x], { dtype: to }, s)[0] as MxArray;
}

// layout

const contiguousOp = defineOp({
  name: "contiguous",
  infer: ([a]) => [a as Aval],
  view: (a) => (a.contiguous ? { strides: a.strides, offset: a.offset } : undefined),
  vjp: ({ cotangents }) => cotangents,
  jvp: "linear",
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  reference: ([a]) => [a as Float64Array],
  kernels: [],
});

/** The same array with its elements in row-major order without gaps; shares the data when it already is. `allowColMajor` is accepted for MLX's sake and not used. */
export function contiguous(a: ArrayLike, allowColMajor?: boolean | StreamOrDevice, s?: StreamOrDevice | null): MxArray {
  const stream = s ?? (typeof allowColMajor === "boolean" ? undefined : allowColMajor);
  return contiguousOp([toArray(a)], {}, stream)[0] as MxArray;
}

// diagonal

const diagonalOp = defineOp<{ offset: number; axis1: number; axis2: number }>({
  name: "diagonal",
  vjp: ({ inputs: [x], cotangents: [g], params: p }) => {
    const { shape } = (x as MxArray).desc;
    const [h, w] = [shape[p.axis1] as number, shape[p.axis2] as number];
    const n = (g as MxArray).desc.shape[(g as MxArray).ndim - 1] as number;
    // Rows of the plane that the diagonal crosses, each with its element at its place.
    const low = Math.max(0, -p.offset);
    const square = multiply(expandDims(g as MxArray, -1), eye(n, n, 0, (g as MxArray).dtype));
    const pads = [...new Array<[number, number]>(shape.length - 2).fill([0, 0]), [low, h - low - n], [Math.max(0, p.offset), w - Math.max(0, p.offset) - n]] as [number, number][];
    return [moveaxis(pad(square, pads), [-2, -1], [p.axis1, p.axis2])];
  },
  jvp: "linear",
  vmap: ({ inputs, params: p, apply }) => apply(inputs, { offset: p.offset, axis1: p.axis1 + 1, axis2: p.axis2 + 1 }),
  infer: ([a], p) => [{ shape: [...rest((a as Aval).shape, p), diagonalLength(a as Aval, p)], dtype: (a as Aval).dtype }],
  view(a, p) {
    const s1 = a.strides[p.axis1] as number;
    const s2 = a.strides[p.axis2] as number;
    const move = diagonalLength(a, p) === 0 ? 0 : p.offset >= 0 ? p.offset * s2 : -p.offset * s1;
    return { strides: [...rest(a.strides, p), s1 + s2], offset: a.offset + move };
  },
  reference: ([a], [x], p, [out]) => [
    byIndex(a as Float64Array, x as Aval, (out as Aval).shape, (index) => {
      const i = index[index.length - 1] as number;
      let next = 0;
      return (x as Aval).shape.map((_, d) => (d === p.axis1 ? i + Math.max(0, -p.offset) : d === p.axis2 ? i + Math.max(0, p.offset) : (index[next++] as number)));
    }),
  ],
  kernels: [],
});
const rest = (list: Shape, p: { axis1: number; axis2: number }): number[] => list.filter((_, i) => i !== p.axis1 && i !== p.axis2);
function diagonalLength(a: Aval, p: { offset: number; axis1: number; axis2: number }): number {
  const h = (a.shape[p.axis1] as number) + Math.min(0, p.offset);
  const w = (a.shape[p.axis2] as number) - Math.max(0, p.offset);
  return Math.max(0, Math.min(h, w));
}

/** The diagonal of each matrix in the plane of two axes, as the last dimension; `offset` > 0 is above the main one. */
export function diagonal(a: ArrayLike, offset?: number | S, axis1?: number | S, axis2?: number | S, s?: S): MxArray {
  const x = toArray(a);
  if (x.ndim < 2) throw opError("diagonal", `needs at least two dimensions, got ${formatShape(x.shape)}`);
  const number = (v: number | S, otherwise: number): number => (typeof v === "number" ? v : otherwise);
  const i = normalizeAxis("diagonal", number(axis1, 0), x.ndim);
  const j = normalizeAxis("diagonal", number(axis2, 1), x.ndim);
  if (i === j) throw opError("diagonal", `axes must be different, got ${axis1} and ${axis2}`);
  const stream = s ?? [offset, axis1, axis2].find(isStreamOrDevice);
  return diagonalOp([x], { offset: number(offset, 0), axis1: i, axis2: j }, stream)[0] as MxArray;
}

// at least n dimensions

type Several = readonly (ArrayLike | readonly MxArray[] | S)[];
/** One array in, one array out; several arrays or a list in, a list out. */
function each(args: Several, f: (a: MxArray, s: S) => MxArray): MxArray | MxArray[] {
  const stream = args.find(isStreamOrDevice);
  const given = args.filter((a) => a !== undefined && a !== null && !isStreamOrDevice(a)) as ArrayLike[];
  const first = given[0];
  if (given.length === 1 && Array.isArray(first) && first.length > 0 && first.every((a) => a instanceof MxArray)) return (first as unknown as MxArray[]).map((a) => f(a, stream));
  return given.length === 1 ? f(toArray(first as ArrayLike), stream) : given.map((a) => f(toArray(a), stream));
}
/** Each array with at least one dimension. Takes one array, several, or a list of them. */
export const atleast1d = (...arrays: Several): MxArray | MxArray[] => each(arrays, (a, s) => (a.ndim < 1 ? reshapeTo(a, [1], s) : same(a)));
/** Each array with at least two dimensions: 1-d arrays become rows. */
export const atleast2d = (...arrays: Several): MxArray | MxArray[] => each(arrays, (a, s) => (a.ndim < 2 ? reshapeTo(a, [1, a.size], s) : same(a)));
/** Each array with at least three dimensions: (n) becomes (1,n,1) and (m,n) becomes (m,n,1). */
export const atleast3d = (...arrays: Several): MxArray | MxArray[] => each(arrays, (a, s) => (a.ndim < 2 ? reshapeTo(a, [1, a.size, 1], s) : a.ndim === 2 ? reshapeTo(a, [...a.shape, 1], s) : same(a)));
