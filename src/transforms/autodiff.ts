/** Automatic differentiation: vjp, jvp, grad, valueAndGrad. Names and behaviour are MLX's. */
import { MxArray } from "../core/array.ts";
import { type Dtype, bool, float32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { formatShape, sameShape } from "../core/shape.ts";
import { ones, zeros } from "../ops/creation.ts";
import { pushforward } from "./forward.ts";
import { filled, pullback } from "./reverse.ts";
import { type Tree, arraysOf, isPlain, withArrays } from "./tree.ts";

export type ArrayFunction = (...inputs: MxArray[]) => MxArray | readonly MxArray[];

/** Result of a user's function as a list. */
export function listOf(op: string, result: unknown): MxArray[] {
  const list = Array.isArray(result) ? result : [result];
  for (const x of list) if (!(x instanceof MxArray)) throw opError(op, `the function must return an array or an Array of arrays, got ${x === null ? "null" : typeof x}`);
  return list as MxArray[];
}
function requireArrays(op: string, what: string, list: readonly unknown[]): void {
  if (!Array.isArray(list)) throw opError(op, `${what} must be an Array of arrays, got ${typeof list}`);
  for (const x of list) if (!(x instanceof MxArray)) throw opError(op, `${what} must be arrays, got ${x === null ? "null" : typeof x}`);
}
function requireShapes(op: string, what: string, given: readonly MxArray[], of: readonly MxArray[]): void {
  if (given.length !== of.length) throw opError(op, `needs as many ${what}, got ${given.length} for ${of.length}`);
  given.forEach((g, i) => {
    const want = (of[i] as MxArray).desc.shape;
    if (!sameShape(g.desc.shape, want)) throw opError(op, `${what} must have the shape ${formatShape(want)}, got ${formatShape(g.desc.shape)}`);
  });
}

/**
 * Vector-Jacobian product.
 *
 * @param f takes the primals, returns an array or an Array of arrays
 * @param cotangents one per output, of its shape
 * @returns [outputs, one product per primal, of its shape and dtype]
 */
export function vjp(f: ArrayFunction, primals: readonly MxArray[], cotangents: readonly MxArray[]): [MxArray[], MxArray[]] {
  requireArrays("vjp", "primals", primals);
  requireArrays("vjp", "cotangents", cotangents);
  const { outputs, gradients } = pullback((xs) => listOf("vjp", f(...xs)), primals, (out) => {
    requireShapes("vjp", "cotangents", cotangents, out);
    return cotangents;
  });
  return [outputs, filled(gradients, primals)];
}

/**
 * Jacobian-vector product.
 *
 * @param f takes the primals, returns an array or an Array of arrays
 * @param tangents one per primal, of its shape
 * @returns [outputs, one product per output, of its shape and dtype (for truth values the first tangent's dtype)]
 */
export function jvp(f: ArrayFunction, primals: readonly MxArray[], tangents: readonly MxArray[]): [MxArray[], MxArray[]] {
  requireArrays("jvp", "primals", primals);
  requireArrays("jvp", "tangents", tangents);
  requireShapes("jvp", "tangents", tangents, primals);
  const { outputs, tangents: results } = pushforward((xs) => listOf("jvp", f(...xs)), primals, tangents);
  // Truth values have no tangents of their own type.
  const dtypeOf = (o: MxArray): Dtype => (o.dtype === bool ? (tangents[0]?.dtype ?? float32) : o.dtype);
  return [outputs, outputs.map((o, i) => results[i] ?? zeros(o.desc.shape, dtypeOf(o)))];
}

function argumentNumbers(op: string, argnums: number | readonly number[]): number[] {
  const list = typeof argnums === "number" ? [argnums] : [...argnums];
  if (list.length === 0) throw opError(op, "at least one argument number is needed, got none");
  for (const i of list) if (!Number.isInteger(i) || i < 0) throw opError(op, `argument numbers must be non-negative integers, got ${i}`);
  if (new Set(list).size !== list.length) throw opError(op, `argument numbers must be different, got [${list.join(", ")}]`);
  return list;
}

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments and results
type AnyFunction = (...args: any[]) => any;

function lossOf(op: string, result: unknown, aux: boolean): MxArray {
  const loss = aux && Array.isArray(result) ? result[0] : result;
  if (!(loss instanceof MxArray)) throw opError(op, `the function must return a scalar array${aux ? " or an Array that starts with one" : ""}, got ${Array.isArray(result) ? "an Array" : typeof loss}`);
  if (loss.size !== 1 || loss.ndim !== 0) throw opError(op, `the function must return a scalar array, got shape ${formatShape(loss.desc.shape)}`);
  return loss;
}

/** What holds parameters and lets them be replaced: a module. It is differentiated by all of them; while the function runs it holds their tracers. */
interface Holder {
  parameters(): Tree;
  update(parameters: Tree, strict: boolean): unknown;
}
const isHolder = (x: unknown): x is Holder => typeof x === "object" && x !== null && "parameters" in x && typeof x.parameters === "function" && "update" in x && typeof x.update === "function";

/** The tree of arrays that an argument is, or holds. */
function treeOf(op: string, i: number, args: readonly Tree[]): Tree {
  if (i >= args.length) throw opError(op, `can not differentiate by argument ${i}, got ${args.length} arguments`);
  const x = args[i];
  if (isHolder(x)) return x.parameters();
  if (arraysOf(x).length > 0 || Array.isArray(x) || (typeof x === "object" && x !== null && isPlain(x))) return x;
  throw opError(op, `argument ${i} must be an array or a tree of arrays, got ${typeof x === "object" && x !== null ? x.constructor.name : typeof x}`);
}

function differentiate(op: string, f: AnyFunction, argnums: number | readonly number[], aux: boolean): (...args: Tree[]) => [Tree, Tree] {
  if (typeof f !== "function") throw new TypeError(`[${op}] expected a function, got ${typeof f}`);
  const numbers = argumentNumbers(op, argnums);
  return (...args) => {
    const trees = numbers.map((i) => treeOf(op, i, args));
    const primals = arraysOf(trees);
    let value: Tree;
    const run = (tracers: MxArray[]): MxArray[] => {
      const replaced = withArrays(trees, tracers) as Tree[];
      const all = [...args];
      const put = (values: readonly Tree[]): void =>
        numbers.forEach((i, k) => {
          if (isHolder(args[i])) args[i].update(values[k], false);
          else all[i] = values[k];
        });
      put(replaced);
      try {
        value = f(...all);
      } finally {
        put(trees);
      }
      return [lossOf(op, value, aux)];
    };
    const { gradients } = pullback(run, primals, ([loss]) => [ones([], (loss as MxArray).dtype)]);
    const grads = withArrays(trees, filled(gradients, primals)) as Tree[];
    return [value, grads.length === 1 ? grads[0] : grads];
  };
}

/**
 * Function that gives the value of `f` and its gradient with respect to the arguments `argnums`.
 *
 * @param f returns a scalar array, or an Array that starts with one (the rest is passed on)
 * @param argnums argument, or list of arguments, to differentiate by: arrays, Arrays and plain objects that hold arrays, or modules, whose gradient has the form of
 *   their parameters
 * @returns [value, gradient in the form of the argument; a list of them for several argnums]
 */
export const valueAndGrad = (f: AnyFunction, argnums: number | readonly number[] = 0): ((...args: Tree[]) => [Tree, Tree]) => differentiate("valueAndGrad", f, argnums, true);

/** Function that gives the gradient of `f`, which returns a scalar array. Arguments as `valueAndGrad`. */
export function grad(f: AnyFunction, argnums: number | readonly number[] = 0): (...args: Tree[]) => Tree {
  const both = differentiate("grad", f, argnums, false);
  return (...args) => both(...args)[1];
}
