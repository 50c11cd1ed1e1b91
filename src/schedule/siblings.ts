/** Products that share their left operand (q, k and v; gate and up) and do not need each other's results: found in a plan's items, for both backends. */
import type { ArrayDesc } from "../core/array.ts";
import type { Node } from "../core/op.ts";
import type { Item } from "./plan.ts";

/** What a backend takes together. */
export interface SiblingRule {
  /** Ops whose products may have siblings, by name; the left operand is input 0. */
  readonly ops: ReadonlySet<string>;
  readonly device: "cpu" | "gpu";
  /** Most products of a group. */
  readonly most: number;
  /** True when one command can compute both: called for products of the same op on the same left operand. */
  fits(first: Node, other: Node): boolean;
}

const alone = (item: Item): boolean => !item.absorbed && !item.stored && !item.rows && !item.product;
const isView = ({ node }: Item): boolean => node.op.view !== undefined && node.inputs.length === 1;

/**
 * Groups of siblings as places of items, in order. All members of a group can run where its first one does: their other inputs are there by then, or are views of
 * what is; those views' places are `views`.
 */
export function siblingsOf(items: readonly Item[], rule: SiblingRule): { readonly members: readonly number[]; readonly views: readonly number[] }[] {
  const byOperand = new Map<ArrayDesc, number[]>();
  items.forEach((item, i) => {
    const { node } = item;
    const [left] = node.inputs;
    if (!left || left.consumers < 2 || !rule.ops.has(node.op.name) || node.stream.device.type !== rule.device || !alone(item)) return;
    const places = byOperand.get(left) ?? [];
    places.push(i);
    byOperand.set(left, places);
  });
  const candidates = [...byOperand.values()].filter((places) => places.length > 1);
  if (candidates.length === 0) return [];
  const placeOf = new Map<Node, number>();
  items.forEach(({ node, absorbed = [] }, i) => {
    for (const n of [node, ...absorbed]) placeOf.set(n, i);
  });
  /** Adds the views that have to come first; false when something is not there. */
  const reach = (d: ArrayDesc, before: number, views: number[]): boolean => {
    const at = d.storage || !d.node ? undefined : placeOf.get(d.node);
    if (at === undefined) return d.storage !== undefined || d.scalar !== undefined || !d.node;
    if (at < before || views.includes(at)) return true;
    const item = items[at] as Item;
    if (!alone(item) || !isView(item) || !reach(item.node.inputs[0] as ArrayDesc, before, views)) return false;
    views.push(at);
    return true;
  };
  return candidates.flatMap((places) => groupsOf(places, items, rule, reach)).sort((a, b) => (a.members[0] as number) - (b.members[0] as number));
}

type Reach = (d: ArrayDesc, before: number, views: number[]) => boolean;
/** Divides the products of one left operand. */
function groupsOf(places: readonly number[], items: readonly Item[], rule: SiblingRule, reach: Reach): { members: number[]; views: number[] }[] {
  const groups: { members: number[]; views: number[] }[] = [];
  const nodeAt = (i: number): Node => (items[i] as Item).node;
  for (const at of places) {
    const node = nodeAt(at);
    const home = groups.find(({ members, views }) => {
      const first = members[0] as number;
      const more = [...views];
      if (members.length >= rule.most || nodeAt(first).op !== node.op || !rule.fits(nodeAt(first), node) || !node.inputs.every((d) => reach(d, first, more))) return false;
      views.splice(0, views.length, ...more);
      return true;
    });
    if (home) home.members.push(at);
    else groups.push({ members: [at], views: [] });
  }
  return groups.filter((g) => g.members.length > 1);
}

/** The items with each group of siblings as one item, at the place of its first member. */
export const joinSiblings = (items: readonly Item[], rule: SiblingRule): readonly Item[] =>
  regroup(items, rule, ([first, ...others]) => [{ ...(first as Item), siblings: others.map((item) => item.node) }]);
/** The same items; the members of each group come right after the first of them. */
export const siblingsTogether = (items: readonly Item[], rule: SiblingRule): readonly Item[] => regroup(items, rule, (members) => members);

function regroup(items: readonly Item[], rule: SiblingRule, how: (members: readonly Item[]) => readonly Item[]): readonly Item[] {
  const groups = siblingsOf(items, rule);
  if (groups.length === 0) return items;
  const gone = new Set<number>(groups.flatMap(({ members, views }) => [...members, ...views]));
  const joined = new Map<number, readonly Item[]>();
  const moved = new Set<number>();
  const at = (i: number): Item => items[i] as Item;
  for (const { members, views } of groups) {
    // Groups may share a view: the first of them in the order of work brings it along.
    const own = views.filter((v) => !moved.has(v));
    for (const v of own) moved.add(v);
    joined.set(members[0] as number, [...own.map(at), ...how(members.map(at))]);
  }
  return items.flatMap((item, i) => joined.get(i) ?? (gone.has(i) ? [] : [item]));
}

/** Products of one row on the CPU by several packed matrices, whose commands run side by side (schedule/record.ts). Off: `wasm/together` in MLX_DISABLE. */
export const rowsOnCpu: SiblingRule = {
  ops: new Set(["quantizedMatmul"]),
  device: "cpu",
  most: 8,
  fits: (first, other) => [first, other].every(({ inputs: [x] }) => (x as ArrayDesc).size === (x as ArrayDesc).shape.at(-1)),
};
