/**
 * Plain walks over multi-dimensional indices, for the float64 references of ops that move elements. Written for clarity, not speed. Values of complex64 arrays are
 * pairs, so an element is one or two numbers.
 */
import type { Aval } from "../core/array.ts";
import type { Shape } from "../core/shape.ts";

/** Row-major position of an index; the index may have any rank that matches `shape`. */
export function flatIndex(shape: Shape, index: readonly number[]): number {
  let at = 0;
  for (let d = 0; d < shape.length; d++) at = at * (shape[d] as number) + (index[d] as number);
  return at;
}

/** Calls `visit` for every index of `shape` in row-major order. The index Array is reused. */
export function forEachIndex(shape: Shape, visit: (index: readonly number[], position: number) => void): void {
  const index = shape.map(() => 0);
  const n = shape.reduce((a, b) => a * b, 1);
  for (let i = 0; i < n; i++) {
    visit(index, i);
    for (let d = shape.length - 1; d >= 0; d--) {
      index[d] = (index[d] as number) + 1;
      if ((index[d] as number) < (shape[d] as number)) break;
      index[d] = 0;
    }
  }
}

/** Numbers per element. */
export const widthOf = (a: Aval): number => (a.dtype.kind === "complex" ? 2 : 1);

/** Zeros for the elements of a shape. */
export const blank = (shape: Shape, width: number): Float64Array => new Float64Array(shape.reduce((a, b) => a * b, width));

/** Copies element `i` of `from` to element `to` of `out`. */
export function move(out: Float64Array, to: number, from: Float64Array, i: number, width: number): void {
  for (let k = 0; k < width; k++) out[to * width + k] = from[i * width + k] as number;
}

/** Output whose element at each index is the source's element at the index that `from` names. */
export function byIndex(data: Float64Array, a: Aval, out: Shape, from: (index: readonly number[]) => readonly number[]): Float64Array {
  const width = widthOf(a);
  const result = blank(out, width);
  forEachIndex(out, (index, i) => move(result, i, data, flatIndex(a.shape, from(index)), width));
  return result;
}
