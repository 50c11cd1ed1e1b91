/** Arrays in nested Arrays and plain objects: what transforms take as arguments and give as results. */
import { MxArray } from "../core/array.ts";

// biome-ignore lint/suspicious/noExplicitAny: trees are untyped containers
export type Tree = any;

const isPlain = (x: object): boolean => {
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

/** A tree of the same form with the arrays replaced, in the order of `arraysOf`. Other values stay. */
export function withArrays(tree: Tree, arrays: Iterable<MxArray>): Tree {
  const next = arrays[Symbol.iterator]();
  const build = (node: Tree): Tree => {
    if (node instanceof MxArray) return next.next().value;
    if (Array.isArray(node)) return node.map(build);
    if (typeof node === "object" && node !== null && isPlain(node)) return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, build(v)]));
    return node;
  };
  return build(tree);
}
