/** Slices: strided parts of an array as views, and arrays with such a part replaced. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { int32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Apply, type Pointer, defineOp, input, output } from "../core/op.ts";
import { type Shape, formatShape, normalizeAxis, rowStrides } from "../core/shape.ts";
import { copySteps } from "./copy.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { zerosLike } from "./creation.ts";
import { broadcastTo } from "./movement.ts";
import { oneByOne } from "./one-by-one.ts";
import { byIndex, flatIndex, forEachIndex, move, widthOf } from "./oracle.ts";
import { type Region, type Slice as SliceParts, SliceIndex, arrayOf, castTo, sliceAxis, sliceRegion, updateRegion } from "./region.ts";
import { gpuDynamicSlice, gpuDynamicSliceUpdate } from "./slice-gpu.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice | null | undefined;

/** An index for `array.index`: the elements start, start + step, ... before stop, as Python's `start:stop:step`. */
export function Slice(start?: number | null, stop?: number | null, step?: number | null): SliceParts {
  return new SliceIndex(start ?? null, stop ?? null, step ?? null);
}

// start indices that are only known when the work runs

const bounded = (i: number, largest: number): number => Math.max(0, Math.min(i, largest));

const dynamicSliceOp: Apply<{ axes: readonly number[]; shape: Shape }> = defineOp<{ axes: readonly number[]; shape: Shape }>({
  name: "dynamicSlice",
  vjp: ({ inputs: [x, starts], cotangents: [g], params: { axes } }) => [dynamicSliceUpdateOp([zerosLike(x as MxArray), g as MxArray, starts as MxArray], { axes })[0]],
  jvp: ({ inputs, tangents: [t], params, apply }) => (t ? apply([t, inputs[1] as MxArray], params) : [undefined]),
  vmap: (b) => {
    const { inputs, batched, size, params: { axes, shape }, apply, spread } = b;
    if (batched[1]) return oneByOne(b);
    return apply([spread(0), inputs[1] as MxArray], { axes: axes.map((axis) => axis + 1), shape: [size, ...shape] });
  },
  infer: ([a], p) => [{ shape: p.shape, dtype: (a as Aval).dtype }],
  reference: ([a, starts], [x], p) => {
    const { shape } = x as Aval;
    return [
      byIndex(a as Float64Array, x as Aval, p.shape, (index) => {
        const from = [...index];
        p.axes.forEach((axis, i) => {
          from[axis] = (from[axis] as number) + bounded((starts as Float64Array)[i] as number, (shape[axis] as number) - (p.shape[axis] as number));
        });
        return from;
      }),
    ];
  },
  kernels: [
    {
      name: "wasm/copy/dynamicSlice",
      layout: ["any", "row"],
      launch([a], [out], p) {
        const { shape, strides, dtype } = a as View;
        const starts = movedBy(input(1), "src", shape, strides, p.shape, p.axes);
        return { steps: copySteps(dtype.size, p.shape, input(0), strides, output(0), rowStrides((out as View).shape), starts) };
      },
    },
  ],
  gpu: gpuDynamicSlice,
});

function movedBy(pointer: Pointer, moves: "src" | "dst", shape: Shape, strides: Shape, part: Shape, axes: readonly number[]) {
  return {
    pointer,
    moves,
    strides: axes.map((axis) => strides[axis] as number),
    largest: axes.map((axis) => (shape[axis] as number) - (part[axis] as number)),
  };
}

const dynamicSliceUpdateOp: Apply<{ axes: readonly number[] }> = defineOp<{ axes: readonly number[] }>({
  name: "dynamicSliceUpdate",
  vjp: ({ inputs: [, u, starts], cotangents: [g], params, apply }) => [
    apply([g as MxArray, zerosLike(u as MxArray), starts as MxArray], params)[0],
    dynamicSliceOp([g as MxArray, starts as MxArray], { axes: params.axes, shape: (u as MxArray).desc.shape })[0],
  ],
  jvp: ({ inputs: [x, u, starts], tangents: [a, b], params, apply }) => apply([a ?? zerosLike(x as MxArray), b ?? zerosLike(u as MxArray), starts as MxArray], params),
  vmap: (b) => {
    const { inputs, batched, params: { axes }, apply, spread } = b;
    if (batched[2]) return oneByOne(b);
    return apply([spread(0), spread(1), inputs[2] as MxArray], { axes: axes.map((axis) => axis + 1) });
  },
  infer: ([a]) => [a as Aval],
  reference: ([a, update, starts], [x, u], p) => {
    const out = (a as Float64Array).slice();
    const { shape } = x as Aval;
    forEachIndex((u as Aval).shape, (index, n) => {
      const to = [...index];
      p.axes.forEach((axis, i) => {
        to[axis] = (to[axis] as number) + bounded((starts as Float64Array)[i] as number, (shape[axis] as number) - ((u as Aval).shape[axis] as number));
      });
      move(out, flatIndex(shape, to), update as Float64Array, n, widthOf(x as Aval));
    });
    return [out];
  },
  kernels: [
    {
      name: "wasm/copy/dynamicSliceUpdate",
      layout: ["row", "any", "row"],
      base: 0,
      launch([, update], [out], p) {
        const { shape, strides } = update as View;
        const to = out as View;
        const starts = movedBy(input(2), "dst", to.shape, to.strides, shape, p.axes);
        return { steps: copySteps(to.dtype.size, shape, input(1), strides, output(0), to.strides, starts) };
      },
    },
  ],
  gpu: gpuDynamicSliceUpdate,
});

type StartIndices = ArrayLike | readonly number[] | Int32Array;
/** Start indices known now, or undefined when they are an array whose values are only known later. */
function staticStarts(starts: StartIndices): number[] | undefined {
  if (starts instanceof MxArray) return undefined;
  if (typeof starts === "number") return [starts];
  return Array.from(starts as ArrayLike & ArrayLike as unknown as readonly number[], Number);
}
/** The i32 start indices of an array, one per axis. */
function runtimeStarts(op: string, starts: MxArray, axes: readonly number[], s: S): MxArray {
  if (!starts.dtype.isInteger || starts.ndim > 1 || starts.size !== axes.length) throw opError(op, `start indices must be integers, one for each of ${axes.length} axes, got ${formatShape(starts.shape)} of ${starts.dtype}`);
  return castTo(starts, int32, s);
}
function regionAt(op: string, shape: Shape, part: Shape, starts: readonly number[], axes: readonly number[]): Region {
  const start = new Array<number>(shape.length).fill(0);
  axes.forEach((axis, i) => {
    const at = starts[i] as number;
    if (!Number.isInteger(at) || at < 0 || at + (part[axis] as number) > (shape[axis] as number)) throw opError(op, `start ${at} with size ${part[axis]} does not fit axis ${axis}, got an array of shape ${formatShape(shape)}`);
    start[axis] = at;
  });
  return { start, step: shape.map(() => 1), shape: part };
}
const axesOf = (op: string, axes: readonly number[], rank: number, n: number): number[] => {
  const list = axes.map((axis) => normalizeAxis(op, axis, rank));
  if (list.length !== n || (n > 1 && new Set(list).size !== n)) throw opError(op, `axes must be different and as many as start indices, got ${JSON.stringify(axes)} and ${n}`);
  return list;
};

/**
 * The part of `array` of `sliceSize` (one size per dimension) that starts at `startIndices` along `axes` and at 0 along the others. Start indices given as
 * numbers make a view and must fit; given as an integer array they are read when the work runs and are clamped so that the part lies inside.
 */
export function slice(array: ArrayLike, startIndices: StartIndices, axes: readonly number[], sliceSize: readonly number[], s?: S): MxArray {
  const x = toArray(array);
  const { shape } = x.desc;
  if (sliceSize.length !== shape.length) throw opError("slice", `sliceSize must have one size per dimension of ${formatShape(shape)}, got ${formatShape(sliceSize)}`);
  sliceSize.forEach((n, i) => {
    if (!Number.isInteger(n) || n < 0 || n > (shape[i] as number)) throw opError("slice", `sliceSize must lie inside the array of shape ${formatShape(shape)}, got ${formatShape(sliceSize)}`);
  });
  const known = staticStarts(startIndices);
  const list = axesOf("slice", axes, shape.length, known ? known.length : (startIndices as MxArray).size);
  if (known) return sliceRegion(x, regionAt("slice", shape, sliceSize, known, list), s);
  return within(() => dynamicSliceOp([x, runtimeStarts("slice", startIndices as MxArray, list, s)], { axes: list, shape: [...sliceSize] }, s)[0] as MxArray);
}

/**
 * `src` with the part that starts at `startIndices` along `axes` (and at 0 along the others) replaced by `update`, whose shape is the part's. No copy of `src`
 * is made when nothing else uses it. Start indices as in `slice`.
 */
export function sliceUpdate(src: ArrayLike, update: ArrayLike, startIndices: StartIndices, axes: readonly number[], s?: S): MxArray {
  const x = toArray(src);
  // Within no scope when no intermediate array is made.
  if (update instanceof MxArray && update.desc.dtype === x.desc.dtype && update.ndim === x.ndim && !(startIndices instanceof MxArray)) return updateAt(x, update, startIndices, axes, s);
  return within(() => updateAt(x, arrayOf(update, x.dtype, s), startIndices, axes, s));
}
function updateAt(x: MxArray, u: MxArray, startIndices: StartIndices, axes: readonly number[], s: S): MxArray {
  const { shape } = x.desc;
  if (u.ndim > shape.length) throw opError("sliceUpdate", `update must not have more dimensions than src, got ${formatShape(u.shape)} and ${formatShape(shape)}`);
  const lead = shape.length - u.ndim;
  const part = shape.map((_, i) => (i < lead ? 1 : (u.desc.shape[i - lead] as number)));
  if (part.some((n, i) => n > (shape[i] as number))) throw opError("sliceUpdate", `update must fit into src, got ${formatShape(u.shape)} and ${formatShape(shape)}`);
  const known = staticStarts(startIndices);
  const list = axesOf("sliceUpdate", axes, shape.length, known ? known.length : (startIndices as MxArray).size);
  if (known) return updateRegion(x, regionAt("sliceUpdate", shape, part, known, list), u, s);
  return dynamicSliceUpdateOp([x, broadcastTo(u, part, s), runtimeStarts("sliceUpdate", startIndices as MxArray, list, s)], { axes: list }, s)[0] as MxArray;
}

/** Parts of an array along an axis, as views: `n` equal parts, or the parts between the given indices. */
export function split(array: ArrayLike, indicesOrSections?: number | readonly number[], axis?: number | S, s?: S): MxArray[] {
  const x = toArray(array);
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const at = normalizeAxis("split", typeof axis === "number" ? axis : 0, x.ndim);
  const size = x.desc.shape[at] as number;
  const given = indicesOrSections ?? 1;
  const cuts: number[] = [];
  if (typeof given === "number") {
    if (!Number.isInteger(given) || given <= 0 || size % given !== 0) throw opError("split", `an axis of size ${size} must divide into equal parts, got ${given} parts of shape ${formatShape(x.shape)}`);
    for (let i = 1; i < given; i++) cuts.push((i * size) / given);
  } else for (const i of given) cuts.push(Math.max(0, Math.min(size, i < 0 ? i + size : i)));
  const out: MxArray[] = [];
  for (let i = 0, from = 0; i <= cuts.length; i++) {
    const to = i < cuts.length ? (cuts[i] as number) : size;
    out.push(sliceAxis(x, at, Math.min(from, to), to, stream));
    from = to;
  }
  return out;
}

