/** Python's indexing of arrays with integers, slices, new axes, ellipsis, index arrays and masks: what the array methods index, indexPut_ and at do. */
import { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { bool, int32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Shape, formatShape, sameShape, sizeOf } from "../core/shape.ts";
import { type ArrayLike, type NestedArray, toArray } from "./convert.ts";
import { type ScatterMode, alignIndices, gather, maskedScatter, scatter } from "./gather.ts";
import { broadcastTo, expandDims, squeeze } from "./movement.ts";
import { type Region, type Slice, arrayOf, isSlice, resolveSlice, sliceRegion, updateRegion } from "./region.ts";
import { reshapeTo } from "./reshape.ts";
import { within } from "./scope.ts";
import { negative, reciprocal, stopGradient } from "./unary.ts";

type S = StreamOrDevice | null | undefined;

/** One element of an index: an integer, a slice, a new axis, an ellipsis, or an array of integers. */
export type ArrayIndex = number | Slice | null | "..." | MxArray | NestedArray | Int32Array | Uint32Array;

/** Index values as an array: numbers and nested Arrays become int32. */
export const indexValues = (x: ArrayLike): MxArray => toArray(x, int32);

/** The index of an element, counted from the end if negative. Throws when there is no such element. */
export function elementIndex(op: string, i: number, size: number): number {
  const at = i < 0 ? i + size : i;
  if (!Number.isInteger(i) || at < 0 || at >= size) throw opError(op, `index is out of bounds for an axis of size ${size}, got ${i}`);
  return at;
}

/** What an index means for an array of a shape. */
interface Parsed {
  /** The part of the array that integers and slices select; dimensions with an index array are whole. */
  readonly region: Region;
  /** Dimensions that an integer selects one element of. */
  readonly dropped: number[];
  /** Places of new axes among the dimensions that are left. */
  readonly newAxes: number[];
  readonly arrays: MxArray[];
  /** Dimension of the array that each index array indexes. */
  readonly axes: number[];
  /** The same among the dimensions that are left, new axes included. */
  readonly axesLeft: number[];
  /** Dimensions before the index arrays' ones in the result: new axes included, and without them. */
  readonly at: number;
  readonly atOld: number;
}

/** Index elements with the ellipsis written out, so that there is one for every dimension (beside the new axes). */
function expanded(op: string, shape: Shape, index: readonly ArrayIndex[]): ArrayIndex[] {
  const used = index.filter((i) => i !== null && i !== "...").length;
  if (used > shape.length) throw opError(op, `too many indices for an array of shape ${formatShape(shape)}, got ${used}`);
  const dots = index.indexOf("...");
  if (dots !== index.lastIndexOf("...")) throw opError(op, "an index can only have one ellipsis, got more");
  const fill = new Array<ArrayIndex>(shape.length - used).fill(everything);
  return dots < 0 ? [...index, ...fill] : [...index.slice(0, dots), ...fill, ...index.slice(dots + 1)];
}
const everything: Slice = { start: null, stop: null, step: null };

function parseIndex(op: string, shape: Shape, index: readonly ArrayIndex[]): Parsed {
  const region = { start: [] as number[], step: [] as number[], shape: [] as number[] };
  const out = { region, dropped: [] as number[], newAxes: [] as number[], arrays: [] as MxArray[], axes: [] as number[], axesLeft: [] as number[] };
  const select = (start: number, step: number, count: number): void => {
    region.start.push(start);
    region.step.push(step);
    region.shape.push(count);
  };
  let left = 0;
  // Integers beside index arrays count as such for the place of the result's index dimensions, as in NumPy.
  let seen: "none" | "together" | "ended" | "apart" = "none";
  let at = 0;
  let atOld = 0;
  const plain = (old: boolean): void => {
    left++;
    if (seen === "together") seen = "ended";
    if (seen !== "none") return;
    at++;
    if (old) atOld++;
  };
  for (const element of expanded(op, shape, index)) {
    const axis = region.shape.length;
    if (element === null) {
      out.newAxes.push(left);
      plain(false);
    } else if (isSlice(element)) {
      const { start, step, count } = resolveSlice(op, element, shape[axis] as number);
      select(start, step, count);
      plain(true);
    } else {
      seen = seen === "none" || seen === "together" ? "together" : "apart";
      if (typeof element === "number") {
        select(elementIndex(op, element, shape[axis] as number), 1, 1);
        out.dropped.push(axis);
      } else {
        out.arrays.push(indexOf(op, element));
        out.axes.push(axis);
        out.axesLeft.push(left++);
        select(0, 1, shape[axis] as number);
      }
    }
  }
  return seen === "apart" ? { ...out, at: 0, atOld: 0 } : { ...out, at, atOld };
}
function indexOf(op: string, element: ArrayIndex): MxArray {
  if (typeof element !== "object" || element === null) throw new TypeError(`[${op}] an index must be an integer, Slice, null, "..." or an integer array, got ${typeof element}`);
  const x = indexValues(element as ArrayLike);
  if (x.dtype === bool) throw opError(op, "boolean masks can only be the single index of an assignment, got one as an index");
  return x;
}

/** Region of an index that holds nothing but slices and an ellipsis: what caches and masks do for every token. Otherwise undefined. */
function plainRegion(op: string, shape: Shape, index: readonly ArrayIndex[]): Region | undefined {
  const rank = shape.length;
  const fill = rank - index.length;
  const start = new Array<number>(rank).fill(0);
  const step = new Array<number>(rank).fill(1);
  const counts = shape.slice();
  let axis = 0;
  let dots = false;
  for (let i = 0; i < index.length; i++) {
    const element = index[i] as ArrayIndex;
    if (element === "..." && !dots && fill >= -1) {
      dots = true;
      axis += fill + 1;
    } else if (!isSlice(element) || axis >= rank) return undefined;
    else {
      if (element.start !== null || element.stop !== null || element.step !== null) {
        const part = resolveSlice(op, element, shape[axis] as number);
        start[axis] = part.start;
        step[axis] = part.step;
        counts[axis] = part.count;
      }
      axis++;
    }
  }
  return axis > rank ? undefined : { start, step, shape: counts };
}

/** `a[index]` as in Python; no index at all gives the same array. Integers and slices make views, index arrays gather (out of range: as in `take`). */
export function indexArray(a: MxArray, index: readonly ArrayIndex[], s?: S): MxArray {
  if (index.length === 0) return new MxArray(a.desc);
  const region = plainRegion("index", a.desc.shape, index);
  if (region) return sliceRegion(a, region, s);
  return within(() => select(a, parseIndex("index", a.desc.shape, index), s));
}
function select(a: MxArray, p: Parsed, s: S): MxArray {
  let x = sliceRegion(a, p.region, s);
  if (p.dropped.length > 0) x = squeeze(x, p.dropped, s);
  if (p.newAxes.length > 0) x = expandDims(x, p.newAxes, s);
  if (p.arrays.length === 0) return x;
  // Where an element stands is no differentiable choice: as in node-mlx, nothing flows into the indices. `take` and its like throw, as in MLX.
  const fixed = p.arrays.map((i) => (i.desc.traced ? stopGradient(i, s) : i));
  return gather("index", x, fixed, p.axesLeft, p.at, s);
}

/** Value broadcast to a shape; leading dimensions of size 1 that the shape does not have are dropped. */
function fitValue(op: string, value: MxArray, shape: Shape, s: S): MxArray {
  const from = value.desc.shape;
  let extra = 0;
  while (from.length - extra > shape.length && from[extra] === 1) extra++;
  const x = extra > 0 ? reshapeTo(value, from.slice(extra), s) : value;
  const lead = shape.length - x.ndim;
  if (lead < 0 || x.desc.shape.some((d, i) => d !== 1 && d !== shape[lead + i])) throw opError(op, `the value does not fit the indexed part, got ${formatShape(from)} for ${formatShape(shape)}`);
  return broadcastTo(x, shape, s);
}

/** Shape of `a[index]` from the parts of a parsed index: the dimensions left, with the index arrays' shape before place `at`. */
function resultShape(p: Parsed, middle: Shape): number[] {
  const sizes = p.region.shape.filter((_, axis) => !p.dropped.includes(axis) && !p.axes.includes(axis));
  const left = sizes.length + p.newAxes.length + p.axesLeft.length;
  const plain: number[] = [];
  for (let i = 0, next = 0; i < left; i++) {
    if (p.newAxes.includes(i)) plain.push(1);
    else if (!p.axesLeft.includes(i)) plain.push(sizes[next++] as number);
  }
  return [...plain.slice(0, p.at), ...middle, ...plain.slice(p.at)];
}

/** `a` with `value` written to, or combined with, `a[index]`. Where index arrays repeat a place, assign keeps the last value and the other modes count all. */
export function indexScatter(a: MxArray, index: readonly ArrayIndex[], value: ArrayLike, mode: ScatterMode, s?: S): MxArray {
  if (mode === "assign" && value instanceof MxArray && value.desc.dtype === a.desc.dtype) {
    const region = plainRegion("indexPut_", a.desc.shape, index);
    if (region && sameShape(region.shape, value.desc.shape)) return updateRegion(a, region, value, s);
  }
  return within(() => change(a, index, value, mode, s));
}
function change(a: MxArray, index: readonly ArrayIndex[], value: ArrayLike, mode: ScatterMode, s: S): MxArray {
  const op = mode === "assign" ? "indexPut_" : "at";
  const v = arrayOf(value, a.dtype, s);
  const mask = index.length === 1 ? index[0] : undefined;
  if (mask instanceof MxArray && mask.dtype === bool) return assignMasked(op, a, mask, v, mode, s);
  const p = parseIndex(op, a.desc.shape, index);
  const arrays = p.arrays.length > 0 ? alignIndices(op, p.arrays, s) : [];
  const middle = arrays[0]?.desc.shape ?? [];
  const fitted = fitValue(op, v, resultShape(p, middle), s);
  const kept = p.region.shape.filter((_, axis) => !p.axes.includes(axis));
  const updates = reshapeTo(fitted, [...kept.slice(0, p.atOld), ...middle, ...kept.slice(p.atOld)], s);
  if (arrays.length === 0 && mode === "assign") return updateRegion(a, p.region, updates, s);
  return scatter(op, a, updates, arrays, p.axes, p.atOld, p.region, mode, s);
}

function assignMasked(op: string, a: MxArray, mask: MxArray, value: MxArray, mode: ScatterMode, s: S): MxArray {
  const { shape } = a.desc;
  if (mode !== "assign") throw opError(op, `boolean masks can only be assigned to, got ${mode}`);
  if (mask.ndim > shape.length || mask.desc.shape.some((d, i) => d !== shape[i])) throw opError(op, `a mask must have the shape of the array's first dimensions, got ${formatShape(mask.shape)} and ${formatShape(shape)}`);
  const rest = shape.slice(mask.ndim);
  // One dimension more than a row: consecutive rows for the true elements, in order.
  const rows = value.ndim > rest.length ? (value.desc.shape[value.ndim - rest.length - 1] as number) : 1;
  if (rows === 0 || sizeOf(shape) === 0) return new MxArray(a.desc);
  return maskedScatter(a, mask, fitValue(op, value, [rows, ...rest], s), s);
}

/** `a` with `value`, cast to a's dtype and broadcast, in place of `a[index]`. A single boolean mask selects elements as in NumPy. */
export const indexAssign = (a: MxArray, index: readonly ArrayIndex[], value: ArrayLike, s?: S): MxArray => indexScatter(a, index, value, "assign", s);

/** Updates of the part `a[index]`, in which repeated indices all count. Each gives a new array. */
export interface ArrayAt {
  add(value: ArrayLike): MxArray;
  subtract(value: ArrayLike): MxArray;
  multiply(value: ArrayLike): MxArray;
  divide(value: ArrayLike): MxArray;
  maximum(value: ArrayLike): MxArray;
  minimum(value: ArrayLike): MxArray;
}
/** The helper of `array.at(...)`. */
export function at(a: MxArray, ...index: readonly ArrayIndex[]): ArrayAt {
  const cast = (value: ArrayLike): MxArray => arrayOf(value, a.dtype);
  return {
    add: (value) => indexScatter(a, index, value, "add"),
    subtract: (value) => within(() => indexScatter(a, index, negative(cast(value)), "add")),
    multiply: (value) => indexScatter(a, index, value, "multiply"),
    divide: (value) => within(() => indexScatter(a, index, reciprocal(cast(value)), "multiply")),
    maximum: (value) => indexScatter(a, index, value, "maximum"),
    minimum: (value) => indexScatter(a, index, value, "minimum"),
  };
}
