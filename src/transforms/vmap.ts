/** vmap: a function of single elements made into one of batches. */
import { MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { formatShape, normalizeAxis } from "../core/shape.ts";
import { moveaxis } from "../ops/movement.ts";
import { type ArrayFunction, listOf } from "./autodiff.ts";
import { batchFunction } from "./batch.ts";

export type BatchAxes = number | null | readonly (number | null)[];

function axesFor(what: string, axes: BatchAxes | undefined, n: number): (number | null)[] {
  if (axes === undefined || axes === null) return new Array<number>(n).fill(0);
  if (!Array.isArray(axes)) return new Array<number | null>(n).fill(axes as number);
  if (axes.length !== n) throw opError("vmap", `${what} must have one entry for each of ${n} arrays, got ${axes.length}`);
  // In a list -1 means "not batched", as in MLX's C++ and in node-mlx; a single -1 is the last axis, as in Python.
  return what === "inAxes" ? (axes as (number | null)[]).map((axis) => (axis === -1 ? null : axis)) : [...(axes as (number | null)[])];
}
const toFront = (x: MxArray, axis: number): MxArray => (axis === 0 ? x : moveaxis(x, axis, 0));

/**
 * Function that does `f` for every element of an axis of its arguments, as one computation.
 *
 * @param f takes and returns arrays without the batch axis
 * @param inAxes batch axis of every argument, or a list with one per argument (null or -1: not batched); default 0
 * @param outAxes batch axis of every result, or a list with one per result; default 0
 */
export function vmap<F extends ArrayFunction>(f: F, inAxes?: BatchAxes, outAxes?: BatchAxes): (...args: MxArray[]) => ReturnType<F> {
  if (typeof f !== "function") throw new TypeError(`[vmap] expected a function, got ${typeof f}`);
  return (...args) => {
    for (const a of args) if (!(a instanceof MxArray)) throw opError("vmap", `arguments must be arrays, got ${a === null ? "null" : typeof a}`);
    const axes = axesFor("inAxes", inAxes, args.length).map((axis, i) => (axis === null ? null : normalizeAxis("vmap", axis, (args[i] as MxArray).ndim)));
    const batched = axes.map((axis) => axis !== null);
    const sizes = args.flatMap((a, i) => (batched[i] ? [a.desc.shape[axes[i] as number] as number] : []));
    const size = sizes[0];
    if (size === undefined) throw opError("vmap", `at least one argument must be batched, got inAxes ${JSON.stringify(inAxes ?? null)} for ${args.length} arguments`);
    if (sizes.some((n) => n !== size)) throw opError("vmap", `batch axes must have the same size, got ${args.map((a) => formatShape(a.desc.shape)).join(", ")}`);
    const inputs = args.map((a, i) => (batched[i] ? toFront(a, axes[i] as number) : a));
    const shapes = inputs.map((x, i) => (batched[i] ? x.desc.shape.slice(1) : x.desc.shape));
    let single = false;
    const run = (xs: MxArray[]): MxArray[] => {
      const result = f(...xs);
      single = !Array.isArray(result);
      return listOf("vmap", result);
    };
    const { outputs } = batchFunction(run, inputs, batched, size, shapes);
    const places = axesFor("outAxes", outAxes, outputs.length);
    const moved = outputs.map((o, i) => {
      const at = places[i];
      if (at === null || at === undefined) throw opError("vmap", "outAxes must be integers, got null");
      const axis = normalizeAxis("vmap", at, o.ndim);
      return axis === 0 ? o : moveaxis(o, 0, axis);
    });
    return (single ? moved[0] : moved) as ReturnType<F>;
  };
}
