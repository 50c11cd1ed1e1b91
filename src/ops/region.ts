/** Regions: parts of an array with a start, a step and a count per dimension, looked at as views or written to. Checks are the callers'. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import type { Dtype } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { defineOp, input, output, word } from "../core/op.ts";
import { type Shape, sameShape } from "../core/shape.ts";
import { noteSizes, onesCount } from "../core/sizes.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { copySteps } from "./copy.ts";
import { zerosLike } from "./creation.ts";
import { broadcastTo } from "./movement.ts";
import { byIndex, flatIndex, forEachIndex, move, widthOf } from "./oracle.ts";
import { gpuSliceUpdate } from "./slice-gpu.ts";

type S = StreamOrDevice | null | undefined;

/** A part of an array: per dimension the first index, the step (may be negative) and the number of elements. */
export interface Region {
  readonly start: Shape;
  readonly step: Shape;
  readonly shape: Shape;
}

/** Python's slice object. Missing parts are null. */
export interface Slice {
  readonly start: number | null;
  readonly stop: number | null;
  readonly step: number | null;
}
export class SliceIndex implements Slice {
  readonly start: number | null;
  readonly stop: number | null;
  readonly step: number | null;
  constructor(start: number | null, stop: number | null, step: number | null) {
    this.start = start;
    this.stop = stop;
    this.step = step;
  }
}
export const isSlice = (x: unknown): x is Slice => x instanceof SliceIndex || (typeof x === "object" && x !== null && !(x instanceof MxArray) && "start" in x && "stop" in x && "step" in x);

/** First index, step and count that a slice means in a dimension of `size` elements, clipped as in Python. */
export function resolveSlice(op: string, s: Slice, size: number): { start: number; step: number; count: number } {
  const step = s.step ?? 1;
  if (!Number.isInteger(step) || step === 0) throw opError(op, `slice step must be an integer other than zero, got ${step}`);
  const low = step > 0 ? 0 : -1;
  const high = step > 0 ? size : size - 1;
  const clip = (i: number): number => {
    if (!Number.isInteger(i)) throw opError(op, `slice bounds must be integers, got ${i}`);
    return Math.max(low, Math.min(high, i < 0 ? i + size : i));
  };
  const start = s.start === null ? (step > 0 ? low : high) : clip(s.start);
  const stop = s.stop === null ? (step > 0 ? high : low) : clip(s.stop);
  const count = Math.max(0, Math.ceil((stop - start) / step));
  return { start: count === 0 ? 0 : start, step, count };
}

const offsetOf = (strides: Shape, start: Shape): number => {
  let at = 0;
  for (let i = 0; i < start.length; i++) at += (start[i] as number) * (strides[i] as number);
  return at;
};
const stepped = (strides: Shape, step: Shape): number[] => {
  const out = new Array<number>(step.length);
  for (let i = 0; i < step.length; i++) out[i] = (strides[i] as number) * (step[i] as number);
  return out;
};
const placed = (p: Region, index: readonly number[]): number[] => index.map((i, d) => (p.start[d] as number) + i * (p.step[d] as number));

const sliceOp = defineOp<Region>({
  name: "slice",
  infer: ([a], p) => [{ shape: p.shape, dtype: (a as Aval).dtype }],
  view: (a, p) => ({ strides: stepped(a.strides, p.step), offset: a.offset + offsetOf(a.strides, p.start) }),
  reference: ([a], [x], p) => [byIndex(a as Float64Array, x as Aval, p.shape, (index) => placed(p, index))],
  vjp: ({ inputs: [x], cotangents: [g], params }) => [updateRegion(zerosLike(x as MxArray), params, g as MxArray)],
  jvp: "linear",
  vmap: ({ inputs, size, params, apply }) => apply(inputs, batchRegion(params, size)),
  kernels: [],
});

/** The same region in every element of a batch. */
export const batchRegion = (p: Region, size: number): Region => ({ start: [0, ...p.start], step: [1, ...p.step], shape: [size, ...p.shape] });

const isWhole = (shape: Shape, p: Region): boolean => sameShape(shape, p.shape) && p.step.every((step, i) => step === 1 || shape[i] === 1);

/** The part of an array that a region names, as a view. The region must lie inside the array. */
export function sliceRegion(x: MxArray, region: Region, s?: S): MxArray {
  noteSizes(onesCount);
  return isWhole(x.desc.shape, region) ? new MxArray(x.desc) : (sliceOp([x], region, s)[0] as MxArray);
}

/** The elements start .. stop-1 along one axis, as a view. Both must lie inside the array. */
export function sliceAxis(x: MxArray, axis: number, start: number, stop: number, s?: S): MxArray {
  const { shape } = x.desc;
  const sizes = shape.slice();
  sizes[axis] = stop - start;
  const starts = new Array<number>(shape.length).fill(0);
  starts[axis] = start;
  return sliceRegion(x, { start: starts, step: new Array<number>(shape.length).fill(1), shape: sizes }, s);
}

// update at a place that is known when the graph is built

const sliceUpdateOp = defineOp<Region>({
  name: "sliceUpdate",
  infer: ([a]) => [a as Aval],
  vjp: ({ inputs: [, u], cotangents: [g], params }) => [updateRegion(g as MxArray, params, zerosLike(u as MxArray)), sliceRegion(g as MxArray, params)],
  jvp: "linear",
  vmap: ({ spread, size, params, apply }) => apply([spread(0), spread(1)], batchRegion(params, size)),
  reference: ([a, update], [x], p) => {
    const out = (a as Float64Array).slice();
    forEachIndex(p.shape, (index, n) => move(out, flatIndex((x as Aval).shape, placed(p, index)), update as Float64Array, n, widthOf(x as Aval)));
    return [out];
  },
  kernels: [
    {
      name: "wasm/copy/sliceUpdate",
      layout: ["row", "any"],
      base: 0,
      launch([, update], [out], p) {
        const to = out as View;
        const at = offsetOf(to.strides, p.start);
        const strides = stepped(to.strides, p.step);
        const from = update as View;
        // The place stands in a word, so that a recorded list can be replayed with another position.
        const small = at < 2 ** 31;
        const starts = small ? { pointer: word(at), moves: "dst" as const, strides: [1], largest: [-1] } : undefined;
        return { steps: copySteps(to.dtype.size, p.shape, input(1), from.strides, output(0, small ? 0 : at * to.dtype.size), strides, starts) };
      },
    },
  ],
  gpu: gpuSliceUpdate,
});

/** `src` with the part that a region names replaced by `update`, which is cast and broadcast to the region's shape. */
export function updateRegion(src: MxArray, region: Region, update: MxArray, s?: S): MxArray {
  noteSizes(onesCount);
  const fits = update.desc.dtype === src.desc.dtype && sameShape(update.desc.shape, region.shape);
  const value = fits ? update : broadcastTo(castTo(update, src.dtype, s), region.shape, s);
  if (isWhole(src.desc.shape, region)) return fits ? new MxArray(value.desc) : value;
  return sliceUpdateOp([src, value], region, s)[0] as MxArray;
}

/** A value in a dtype; numbers, booleans and nested Arrays become that dtype at once. */
export const arrayOf = (value: ArrayLike, dtype: Dtype, s?: S): MxArray => castTo(toArray(value, dtype), dtype, s);
export const castTo = (x: MxArray, dtype: Dtype, s?: S): MxArray => (x.desc.dtype === dtype ? x : astype(x, dtype, s));
