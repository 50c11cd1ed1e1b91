/** vmap: a function of single elements made into one of batches. */
import { MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { formatShape, normalizeAxis } from "../core/shape.ts";
import { moveaxis } from "../ops/movement.ts";
import { batchFunction } from "./batch.ts";
import { type AxesTree, type Tree, arraysOf, axesOf, withArrays } from "./tree.ts";

export type BatchAxes = AxesTree;

/** Axes of the arrays in the arguments. A list has one entry for each argument; anything else is for the only one. */
function inputAxes(axes: BatchAxes | undefined, args: readonly Tree[]): (number | null)[] {
  if (axes === undefined || axes === null) return axesOf("vmap", "inAxes", 0, args);
  if (!Array.isArray(axes)) return axesOf("vmap", "inAxes", axes, args.length === 1 ? args[0] : args);
  if (axes.length !== args.length) {
    if (args.length === 1 && Array.isArray(args[0])) return axesOf("vmap", "inAxes", axes, args[0]);
    throw opError("vmap", `inAxes must have one entry for each of ${args.length} arguments, got ${axes.length}`);
  }
  // In a list -1 means "not batched", as in MLX's C++ and in node-mlx; a single -1 is the last axis, as in Python.
  return axesOf("vmap", "inAxes", axes.map((axis) => (axis === -1 ? null : axis)), args);
}
const toFront = (x: MxArray, axis: number): MxArray => (axis === 0 ? x : moveaxis(x, axis, 0));

/** Throws unless the tree holds arrays and nothing else. */
function requireArrays(what: string, tree: Tree): void {
  if (tree instanceof MxArray) return;
  if (typeof tree !== "object" || tree === null) throw opError("vmap", `${what} must be arrays or trees of arrays, got ${tree === null ? "null" : typeof tree}`);
  for (const child of Object.values(tree)) requireArrays(what, child);
}

/** The size that all batch axes have. */
function batchSize(inputs: readonly MxArray[], axes: readonly (number | null)[], given: unknown): number {
  const sizes = inputs.flatMap((a, i) => (axes[i] === null ? [] : [a.desc.shape[axes[i] as number] as number]));
  const size = sizes[0];
  if (size === undefined) throw opError("vmap", `at least one argument must be batched, got inAxes ${JSON.stringify(given ?? null)} for ${inputs.length} arrays`);
  if (sizes.some((n) => n !== size)) throw opError("vmap", `batch axes must have the same size, got ${inputs.map((a) => formatShape(a.desc.shape)).join(", ")}`);
  return size;
}

/**
 * Function that does `f` for every element of an axis of its arguments, as one computation.
 *
 * @param f takes and returns arrays without the batch axis, or trees (Arrays and plain objects) of them
 * @param inAxes batch axis of all arrays, or a list with an entry for each argument (null or -1: not batched); for trees an entry may be a tree of the same form. Default 0
 * @param outAxes batch axis of all results, or a tree in the form of the result; default 0
 */
export function vmap<F extends (...args: Tree[]) => Tree>(f: F, inAxes?: BatchAxes, outAxes?: BatchAxes): (...args: Parameters<F>) => ReturnType<F> {
  if (typeof f !== "function") throw new TypeError(`[vmap] expected a function, got ${typeof f}`);
  return (...args) => {
    requireArrays("arguments", args);
    const arrays = arraysOf(args);
    const axes = inputAxes(inAxes, args).map((axis, i) => (axis === null ? null : normalizeAxis("vmap", axis, (arrays[i] as MxArray).ndim)));
    const batched = axes.map((axis) => axis !== null);
    const size = batchSize(arrays, axes, inAxes);
    const inputs = arrays.map((a, i) => (batched[i] ? toFront(a, axes[i] as number) : a));
    const shapes = inputs.map((x, i) => (batched[i] ? x.desc.shape.slice(1) : x.desc.shape));
    let form: Tree;
    const run = (xs: MxArray[]): MxArray[] => {
      form = f(...(withArrays(args, xs) as Parameters<F>));
      requireArrays("results", form);
      return arraysOf(form);
    };
    const { outputs } = batchFunction(run, inputs, batched, size, shapes);
    const places = axesOf("vmap", "outAxes", outAxes ?? 0, form);
    const moved = outputs.map((o, i) => {
      const at = places[i];
      if (at === null || at === undefined) throw opError("vmap", "outAxes must be integers, got null");
      const axis = normalizeAxis("vmap", at, o.ndim);
      return axis === 0 ? o : moveaxis(o, 0, axis);
    });
    return withArrays(form, moved);
  };
}
