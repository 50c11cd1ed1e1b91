/**
 * Nested containers of arrays ("trees"), exported as `utils`. Arrays, plain objects and Modules are containers, everything else is a leaf.
 * Follows mlx.utils; paths are dotted: `layers.0.weight`.
 */

/** Marks Module, so that this file needs no import of it. */
export const moduleBrand = Symbol("mlx.module");
interface ModuleLike {
  readonly [moduleBrand]: true;
  items(): [string, unknown][];
}
type Leaf = (node: unknown) => boolean;
// biome-ignore lint/suspicious/noExplicitAny: trees are untyped containers, as in mlx.utils
export type Tree = any;

const isModuleLike = (node: unknown): node is ModuleLike => typeof node === "object" && node !== null && moduleBrand in node;

/** True for plain objects and Modules. */
export function isDict(node: unknown): node is Record<string, unknown> {
  if (typeof node !== "object" || node === null) return false;
  const proto = Object.getPrototypeOf(node);
  return proto === Object.prototype || proto === null || isModuleLike(node);
}

/** Name -> value pairs of a dictionary. */
const entriesOf = (dict: Record<string, unknown>): [string, unknown][] => (isModuleLike(dict) ? dict.items() : Object.entries(dict));

const joinPath = (prefix: string, key: string | number): string => (prefix === "" ? String(key) : `${prefix}.${key}`);

/** Applies `func` to every leaf of `tree`, with the leaves at the same place of the trees in `rest`; gives a tree of the same form. */
export function treeMap(func: (...args: Tree[]) => unknown, tree: Tree, rest: readonly Tree[] = [], isLeaf?: Leaf): Tree {
  return treeMapWithPath((_path, ...leaves) => func(...leaves), tree, rest, isLeaf);
}

/** As `treeMap`; `func` gets the leaf's dotted path first. */
export function treeMapWithPath(func: (path: string, ...args: Tree[]) => unknown, tree: Tree, rest: readonly Tree[] = [], isLeaf?: Leaf, path = ""): Tree {
  const descend = (key: string | number, child: unknown): unknown =>
    treeMapWithPath(
      func,
      child,
      rest.map((r) => r[key]),
      isLeaf,
      joinPath(path, key),
    );
  if (isLeaf?.(tree)) return func(path, tree, ...rest);
  if (Array.isArray(tree)) return tree.map((child, i) => descend(i, child));
  if (isDict(tree)) return Object.fromEntries(entriesOf(tree).map(([k, child]) => [k, descend(k, child)]));
  return func(path, tree, ...rest);
}

/** `[path, leaf]` pairs, or with `destination` an object that gets a member for each. `convertKey` changes each part of the path that is a name. */
export function treeFlatten(tree: Tree, prefix?: string, isLeaf?: Leaf, convertKey?: (key: string) => string, destination?: undefined): [string, Tree][];
export function treeFlatten(tree: Tree, prefix: string | undefined, isLeaf: Leaf | undefined, convertKey: ((key: string) => string) | undefined, destination: Record<string, Tree>): Record<string, Tree>;
export function treeFlatten(tree: Tree, prefix = "", isLeaf?: Leaf, convertKey?: (key: string) => string, destination?: Record<string, Tree>): [string, Tree][] | Record<string, Tree> {
  const out: [string, Tree][] = [];
  const walk = (node: unknown, path: string): void => {
    if (isLeaf?.(node)) out.push([path, node]);
    else if (Array.isArray(node)) for (const [i, child] of node.entries()) walk(child, joinPath(path, i));
    else if (isDict(node)) for (const [k, child] of entriesOf(node)) walk(child, joinPath(path, convertKey ? convertKey(k) : k));
    else out.push([path, node]);
  };
  walk(tree, prefix);
  return destination ? Object.assign(destination, Object.fromEntries(out)) : out;
}

/** Inverse of `treeFlatten`: numeric parts of a path become Arrays; gaps in them are filled with `{}`. */
export function treeUnflatten(pairs: readonly (readonly [string, unknown])[], convertKey?: (key: string) => string): Tree {
  const [first] = pairs;
  if (!first) return {};
  if (pairs.length === 1 && first[0] === "") return first[1];
  const groups = new Map<string, [string, unknown][]>();
  for (const [path, value] of pairs) {
    const dot = path.indexOf(".");
    const key = dot < 0 ? path : path.slice(0, dot);
    const group = groups.get(key);
    const item: [string, unknown] = [dot < 0 ? "" : path.slice(dot + 1), value];
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  const indices = new Map([...groups.keys()].map((k) => [Number(k), k]));
  // Names such as "01" and "1" would be the same place of a list.
  if (![...groups.keys()].every((k) => /^\d+$/.test(k)) || indices.size !== groups.size) {
    return Object.fromEntries([...groups].map(([k, group]) => [convertKey ? convertKey(k) : k, treeUnflatten(group, convertKey)]));
  }
  const list: unknown[] = [];
  for (const [index, key] of [...indices].sort(([a], [b]) => a - b)) {
    while (list.length < index) list.push({});
    list.push(treeUnflatten(groups.get(key) ?? [], convertKey));
  }
  return list;
}

/** Folds the leaves from left to right. Without `initializer` the first leaf is the start. */
export function treeReduce<U>(func: (accumulator: U, leaf: U) => U, tree: Tree, initializer?: U, isLeaf?: Leaf): U | undefined {
  let accumulator = initializer;
  for (const [, leaf] of treeFlatten(tree, "", isLeaf)) accumulator = accumulator === undefined ? leaf : func(accumulator, leaf);
  return accumulator;
}

const isEmpty = (tree: unknown): boolean => tree === undefined || tree === null || (Array.isArray(tree) && tree.length === 0) || (isDict(tree) && entriesOf(tree).length === 0);

/** Joins two trees. Where both have a leaf, `mergeFn` decides; without it that is an error. */
export function treeMerge(treeA: Tree, treeB: Tree, mergeFn?: (a: Tree, b: Tree) => unknown): Tree {
  const [emptyA, emptyB] = [isEmpty(treeA), isEmpty(treeB)];
  if (emptyA && emptyB && isDict(treeA) !== isDict(treeB) && Array.isArray(treeA) !== Array.isArray(treeB)) throw new Error("[treeMerge] a list and a dictionary can not be merged");
  if (emptyA) return treeB ?? treeA;
  if (emptyB) return treeA;
  if (Array.isArray(treeA) && Array.isArray(treeB)) {
    const length = Math.max(treeA.length, treeB.length);
    return Array.from({ length }, (_, i) => treeMerge(treeA[i], treeB[i], mergeFn));
  }
  if (isDict(treeA) && isDict(treeB)) {
    const a = Object.fromEntries(entriesOf(treeA));
    const b = Object.fromEntries(entriesOf(treeB));
    return Object.fromEntries([...new Set([...Object.keys(a), ...Object.keys(b)])].map((k) => [k, treeMerge(a[k], b[k], mergeFn)]));
  }
  if (!mergeFn) throw new Error("[treeMerge] both trees have a leaf at the same place and no mergeFn was given");
  return mergeFn(treeA, treeB);
}

/** True when two lists of numbers are equal. */
export const deepEqual = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((x, i) => x === b[i]);

const convertParts = (path: string, convert: (part: string) => string): string =>
  path
    .split(".")
    .map((part) => (/^[A-Z]/.test(part) ? part : convert(part)))
    .join(".");

/** `self_attn.q_proj` -> `selfAttn.qProj`. Parts that start with a capital stay, and so does `_` before a digit. */
export const toCamelCase = (name: string): string => convertParts(name, (p) => p.replace(/(?<=[A-Za-z0-9])_([a-z])/g, (_, c: string) => c.toUpperCase()));

/** `selfAttn.qProj` -> `self_attn.q_proj`. Parts that start with a capital stay. */
export const toSnakeCase = (name: string): string => convertParts(name, (p) => p.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`));
