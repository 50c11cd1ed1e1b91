/**
 * Spaces of row and column groups: the shape of the elements, and which of its dimensions are reduced. Columns are what rows are with the dimensions in another order, so
 * that all else of a group (schedule/rows.ts, codegen/rows.ts) is said of rows alone.
 */
import { type Shape, sizeOf } from "../core/shape.ts";
import type { RowSpace } from "./plan.ts";

const isReduced = ({ shape, rank, axes }: RowSpace, axis: number): boolean => (axes ? axes.includes(axis) : axis >= shape.length - rank);
/** The dimensions that are kept. */
export const leadOf = (space: RowSpace): Shape => space.shape.filter((_, i) => !isReduced(space, i));
/** The shape with reduced dimensions of size 1. */
export const heldShape = (space: RowSpace): Shape => space.shape.map((d, i) => (isReduced(space, i) ? 1 : d));
/** Number of elements that are reduced to one. */
export const reducedSize = (space: RowSpace): number => sizeOf(space.shape.filter((_, i) => isReduced(space, i)));
/** Strides of the kept dimensions, over all of them. */
export function overSpace(space: RowSpace, lead: Shape): number[] {
  let next = 0;
  return space.shape.map((_, i) => (isReduced(space, i) ? 0 : (lead[next++] as number)));
}
/** Of strides over the kept dimensions, or over all, those of the kept ones. */
export const keptStrides = (space: RowSpace, strides: Shape): Shape => (space.axes && strides.length === space.shape.length ? strides.filter((_, i) => !isReduced(space, i)) : strides.slice(0, space.shape.length - space.rank));
/** The dimensions in the order in which rows are the last ones; undefined when they are. */
export function orderOf(space: RowSpace): number[] | undefined {
  const all = space.shape.map((_, i) => i);
  return space.axes && [...all.filter((i) => !isReduced(space, i)), ...space.axes];
}

/** Columns that are worth a kernel: fewer neighbouring ones leave lanes of vectors empty. */
const leastColumns = 8;
/** Whether the reduced dimensions of row-major arrays make up one, with columns enough behind it. Others lie so that no kernel takes them. */
export function columnsFit({ shape, axes = [] }: RowSpace): boolean {
  const last = axes[axes.length - 1] as number;
  return last - (axes[0] as number) === axes.length - 1 && sizeOf(shape.slice(last + 1)) >= leastColumns;
}
