/** Arrays in nested Arrays and plain objects: what transforms take as arguments and give as results. */
import { MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";

// biome-ignore lint/suspicious/noExplicitAny: trees are untyped containers
export type Tree = any;

export const isPlain = (x: object): boolean => {
  const proto = Object.getPrototypeOf(x);
  return proto === Object.prototype || proto === null;
};

/** Arrays in the order of the tree's keys. Other values are passed over. */
export function arraysOf(tree: Tree, found: MxArray[] = []): MxArray[] {
  if (tree instanceof MxArray) found.push(tree);
  else if (Array.isArray(tree)) for (const child of tree) arraysOf(child, found);
  else if (typeof tree === "object" && tree !== null && isPlain(tree)) for (const child of Object.values(tree)) arraysOf(child, found);
  return found;
}

/** A tree of the same form with other arrays (or values) in place of the arrays, in the order of `arraysOf`. Other values stay. */
export function withArrays(tree: Tree, arrays: Iterable<unknown>): Tree {
  const next = arrays[Symbol.iterator]();
  const build = (node: Tree): Tree => {
    if (node instanceof MxArray) return next.next().value;
    if (Array.isArray(node)) return node.map(build);
    if (typeof node === "object" && node !== null && isPlain(node)) return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, build(v)]));
    return node;
  };
  return build(tree);
}

/** Batch axes for a tree of arrays: one for all, or a tree of the same form whose leaves may stand for whole branches. */
export type AxesTree = number | null | readonly AxesTree[] | { readonly [key: string]: AxesTree };

/** The axis of every array of a tree, in the order of `arraysOf`. Throws where the axes do not fit the tree. */
export function axesOf(op: string, what: string, axes: AxesTree, tree: Tree): (number | null)[] {
  const wrong = (got: string): Error => opError(op, `${what} must be integers or null in the form of the arrays they belong to, got ${got}`);
  if (tree instanceof MxArray) {
    const axis = Array.isArray(axes) && axes.length === 1 ? (axes[0] as AxesTree) : axes;
    if (axis !== null && !Number.isInteger(axis)) throw wrong(typeof axis === "object" ? "a list or object for one array" : JSON.stringify(axis));
    return [axis as number | null];
  }
  if (typeof tree !== "object" || tree === null) return [];
  const branches = Object.entries(tree);
  if (axes === null || typeof axes === "number") return branches.flatMap(([, child]) => axesOf(op, what, axes, child));
  if (typeof axes !== "object" || Array.isArray(axes) !== Array.isArray(tree) || Object.keys(axes).length !== branches.length) throw wrong(JSON.stringify(axes) ?? typeof axes);
  return branches.flatMap(([key, child]) => {
    const own = (axes as { readonly [key: string]: AxesTree })[key];
    if (own === undefined) throw wrong(`none for ${JSON.stringify(key)}`);
    return axesOf(op, what, own, child);
  });
}
