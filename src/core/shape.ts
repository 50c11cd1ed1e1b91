/** Shapes and strides. Strides count elements, not bytes. */
import { opError } from "./error.ts";

export type Shape = readonly number[];

export function sizeOf(shape: Shape): number {
  let n = 1;
  for (let i = 0; i < shape.length; i++) n *= shape[i] as number;
  return n;
}

/** Row-major strides of a contiguous array. */
export function rowStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i] as number;
  }
  return strides;
}

/** True when elements lie in row-major order without gaps (dimensions of size 1 may have any stride; empty arrays count). */
export function isContiguous(shape: Shape, strides: Shape): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    const d = shape[i] as number;
    if (d === 0) return true;
    if (d !== 1) {
      if (strides[i] !== step) return false;
      step *= d;
    }
  }
  return true;
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export const formatShape = (shape: Shape): string => `(${shape.join(",")})`;

/** Shape that all given shapes broadcast to. */
export function broadcastShapes(op: string, ...shapes: Shape[]): number[] {
  const out: number[] = [];
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  for (let i = 0; i < rank; i++) {
    let d = 1;
    for (const s of shapes) {
      const x = s[i - (rank - s.length)] ?? 1;
      if (x === d || x === 1) continue;
      if (d !== 1) throw opError(op, `shapes do not broadcast, got ${shapes.map(formatShape).join(" and ")}`);
      d = x;
    }
    out.push(d);
  }
  return out;
}

/** Axis in 0 .. rank-1; negative counts from the end. */
export function normalizeAxis(op: string, axis: number, rank: number): number {
  const a = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(a) || a < 0 || a >= rank) throw opError(op, `axis is out of range for an array with ${rank} dimensions, got ${axis}`);
  return a;
}

/** Sorted, unique, non-negative axes. `undefined` and `null` mean all. */
export function normalizeAxes(op: string, axes: number | readonly number[] | null | undefined, rank: number): number[] {
  if (axes === undefined || axes === null) return Array.from({ length: rank }, (_, i) => i);
  const list = (typeof axes === "number" ? [axes] : axes).map((a) => normalizeAxis(op, a, rank));
  const unique = [...new Set(list)].sort((a, b) => a - b);
  if (unique.length !== list.length) throw opError(op, `axes must be different, got ${JSON.stringify(axes)}`);
  return unique;
}

/** Shape after a reduction over `axes`. */
export const reducedShape = (shape: Shape, axes: readonly number[], keepdims: boolean): number[] =>
  keepdims ? shape.map((d, i) => (axes.includes(i) ? 1 : d)) : shape.filter((_, i) => !axes.includes(i));

/**
 * Strides that give `shape` over the same elements as (from, strides), or undefined when a copy is needed.
 * Groups of dimensions that are contiguous among themselves may be split and merged freely.
 */
export function reshapeStrides(from: Shape, strides: Shape, shape: Shape): number[] | undefined {
  if (sizeOf(from) === 0) return rowStrides(shape);
  const dims: number[] = [];
  const steps: number[] = [];
  for (let i = 0; i < from.length; i++) {
    const d = from[i] as number;
    if (d === 1) continue;
    const s = strides[i] as number;
    const last = dims.length - 1;
    if (last >= 0 && steps[last] === s * d) {
      dims[last] = (dims[last] as number) * d;
      steps[last] = s;
    } else {
      dims.push(d);
      steps.push(s);
    }
  }
  const out = new Array<number>(shape.length);
  let g = dims.length - 1;
  let left = g >= 0 ? (dims[g] as number) : 1;
  let step = g >= 0 ? (steps[g] as number) : 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    const d = shape[i] as number;
    out[i] = step;
    if (d === 1) continue;
    if (left === 1 && g > 0) {
      g--;
      left = dims[g] as number;
      step = steps[g] as number;
      out[i] = step;
    }
    if (left % d !== 0) return undefined;
    left /= d;
    step *= d;
  }
  return out;
}

/** Strides of `shape` broadcast to `to` (which must be possible): 0 where a dimension is repeated. */
export function broadcastStrides(shape: Shape, strides: Shape, to: Shape): number[] {
  const out = new Array<number>(to.length);
  const lead = to.length - shape.length;
  for (let i = 0; i < to.length; i++) out[i] = i < lead || (shape[i - lead] === 1 && to[i] !== 1) ? 0 : (strides[i - lead] as number);
  return out;
}

/** Dimensions without those of size 1, and neighbours merged where every list of strides allows it. Outermost first. */
export function collapseDims(shape: Shape, ...strides: readonly Shape[]): { shape: number[]; strides: number[][] } {
  const dims: number[] = [];
  const out: number[][] = strides.map(() => []);
  for (let i = 0; i < shape.length; i++) {
    const d = shape[i] as number;
    if (d === 1) continue;
    const last = dims.length - 1;
    let merge = last >= 0;
    for (let k = 0; merge && k < strides.length; k++) merge = (out[k] as number[])[last] === d * ((strides[k] as Shape)[i] as number);
    for (let k = 0; k < strides.length; k++) (out[k] as number[])[merge ? last : last + 1] = (strides[k] as Shape)[i] as number;
    if (merge) dims[last] = (dims[last] as number) * d;
    else dims.push(d);
  }
  return { shape: dims, strides: out };
}
