/** Elements by index arrays: take, takeAlongAxis, putAlongAxis. */
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { opError } from "../core/error.ts";
import { MxArray } from "../core/array.ts";
import { type Shape, broadcastShapes, formatShape, normalizeAxis } from "../core/shape.ts";
import { elementIndex, indexValues } from "./array-index.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { type ScatterMode, alignIndices, gather, gatherAlong, scatterAlong } from "./gather.ts";
import { broadcastTo, squeeze } from "./movement.ts";
import { arrayOf, sliceAxis } from "./region.ts";
import { reshapeTo } from "./reshape.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice | null | undefined;

/**
 * Elements at `indices` along `axis` (without an axis: of the flattened array); the output has the indices' shape in the axis' place. Negative indices count from
 * the end. An integer index must be in range; in index arrays, which are read when the work runs, what is out of range is clamped to the nearest element.
 */
export function take(a: ArrayLike, indices: ArrayLike, axis?: number | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  return within(() => {
    const given = toArray(a);
    const x = typeof axis === "number" ? given : reshapeTo(given, [given.size], stream);
    const at = normalizeAxis("take", typeof axis === "number" ? axis : 0, x.ndim);
    if (typeof indices !== "number") return gather("take", x, [indexValues(indices)], [at], at, stream);
    const i = elementIndex("take", indices, x.desc.shape[at] as number);
    return squeeze(sliceAxis(x, at, i, i + 1, stream), at, stream);
  });
}

/** Shape of indices broadcast against an array in all dimensions but one. */
function alongShape(op: string, a: Shape, indices: Shape, axis: number): { array: number[]; indices: number[] } {
  if (a.length !== indices.length) throw opError(op, `indices must have as many dimensions as the array, got ${formatShape(indices)} and ${formatShape(a)}`);
  const one = (shape: Shape): number[] => shape.map((d, i) => (i === axis ? 1 : d));
  const common = broadcastShapes(op, one(a), one(indices));
  const put = (shape: Shape): number[] => common.map((d, i) => (i === axis ? (shape[i] as number) : d));
  return { array: put(a), indices: put(indices) };
}

/** Elements along an axis at indices that have the array's shape (or broadcast to it) in the other dimensions. Without an axis both are flattened. */
export function takeAlongAxis(a: ArrayLike, indices: ArrayLike, axis?: number | S, s?: S): MxArray {
  return within(() => {
    let x = toArray(a);
    let i = indexValues(indices);
    const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
    return within(() => {
      if (typeof axis !== "number") {
        x = reshapeTo(x, [x.size], stream);
        i = reshapeTo(i, [i.size], stream);
      }
      const at = normalizeAxis("takeAlongAxis", typeof axis === "number" ? axis : 0, x.ndim);
      alignIndices("takeAlongAxis", [i]);
      const shapes = alongShape("takeAlongAxis", x.desc.shape, i.desc.shape, at);
      return gatherAlong(broadcastTo(x, shapes.array, stream), broadcastTo(i, shapes.indices, stream), at, stream);
    });
  });
}

function putAlong(op: string, mode: ScatterMode, a: ArrayLike, indices: ArrayLike, values: ArrayLike, axis: number | S, s: S): MxArray {
  let x = toArray(a);
  const { shape } = x.desc;
  let i = indexValues(indices);
  if (x.size === 0 || i.size === 0) return new MxArray(x.desc);
  let v = arrayOf(values, x.dtype, s);
  const flat = typeof axis !== "number";
  if (flat) {
    v = reshapeTo(broadcastTo(v, i.desc.shape, s), [i.size], s);
    x = reshapeTo(x, [x.size], s);
    i = reshapeTo(i, [i.size], s);
  }
  const at = normalizeAxis(op, flat ? 0 : (axis as number), x.ndim);
  alignIndices(op, [i]);
  const shapes = alongShape(op, x.desc.shape, i.desc.shape, at);
  if (formatShape(shapes.array) !== formatShape(x.desc.shape)) throw opError(op, `indices must broadcast to the array, got ${formatShape(i.desc.shape)} and ${formatShape(x.desc.shape)}`);
  const out = scatterAlong(x, broadcastTo(i, shapes.indices, s), broadcastTo(v, shapes.indices, s), at, mode, s);
  return flat ? reshapeTo(out, shape, s) : out;
}

/** The array with `values` (broadcast to the indices' shape) put at indices along an axis. Without an axis the array is taken as flat. */
export function putAlongAxis(a: ArrayLike, indices: ArrayLike, values: ArrayLike, axis?: number | S, s?: S): MxArray {
  return within(() => putAlong("putAlongAxis", "assign", a, indices, values, axis, s ?? (isStreamOrDevice(axis) ? axis : undefined)));
}
/** Like `putAlongAxis`, but values are added to what is there; repeated indices all count. */
export function scatterAddAxis(a: ArrayLike, indices: ArrayLike, values: ArrayLike, axis?: number | S, s?: S): MxArray {
  return within(() => putAlong("scatterAddAxis", "add", a, indices, values, axis, s ?? (isStreamOrDevice(axis) ? axis : undefined)));
}
