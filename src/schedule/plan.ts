/** From a lazy graph to a tape: order, and groups of elementwise ops that one generated kernel computes. */
import type { ArrayDesc } from "../core/array.ts";
import type { Node } from "../core/op.ts";
import { type Shape, sameShape } from "../core/shape.ts";

/** The elements of a row group (schedule/rows.ts): rows are made up by the last `rank` dimensions, or by `axes`, in their order, which are as many. */
export interface RowSpace {
  readonly shape: Shape;
  readonly rank: number;
  /** Set when they are not the last ones. */
  readonly axes?: readonly number[];
}
/** One step of a tape: a node, and the elementwise nodes that are computed inside it. */
export interface Item {
  readonly node: Node;
  /** Absorbed nodes, or undefined when the node stands alone. */
  absorbed: Node[] | undefined;
  /** Those of them whose results are stored as well, because somebody else can see them. */
  stored: Node[] | undefined;
  /** Set when the nodes are a row group. */
  rows?: RowSpace;
  /** Set when the node, which is not one of the tape, stands for this product and a sum (schedule/residual.ts). */
  readonly product?: Node;
  /** Set when the elementwise nodes finish the result of this product, one of the absorbed nodes (schedule/epilogue.ts). */
  epilogue?: Node;
  /** Further products that are computed together with the node (schedule/siblings.ts). */
  siblings?: readonly Node[];
}

let stamp = 0;

/** Unscheduled nodes that the targets need, inputs first. Iterative: graphs may be millions of nodes deep. */
export function tapeOf(targets: readonly ArrayDesc[]): Node[] {
  const mark = ++stamp;
  const tape: Node[] = [];
  const stack: Node[] = [];
  const next: number[] = [];
  const enter = (d: ArrayDesc): void => {
    const node = d.node;
    if (d.storage || !node) return;
    const head = node.outputs[0] as ArrayDesc;
    if (head.mark === mark) return;
    head.mark = mark;
    stack.push(node);
    next.push(0);
  };
  for (const t of targets) {
    enter(t);
    while (stack.length > 0) {
      const top = stack.length - 1;
      const node = stack[top] as Node;
      const i = next[top] as number;
      if (i < node.inputs.length) {
        next[top] = i + 1;
        enter(node.inputs[i] as ArrayDesc);
      } else {
        tape.push(node);
        stack.pop();
        next.pop();
      }
    }
  }
  return tape;
}

export const mostNodes = 48;
/** Inputs and outputs of a group: the addresses of 15 fit into the push constants that every GPU has. */
export const mostOperands = 14;
export const mostOutputs = 4;

export const fusible = (node: Node): boolean => node.op.expr !== undefined && node.outputs.length === 1;

/**
 * Groups elementwise nodes: a node absorbs the producers of the same shape whose results nobody on the tape reads before it. The group runs at the place of its last
 * node. A result that nobody else can see (no handle, all readers inside the group) is never stored; others are further outputs of the kernel. Around ops on rows,
 * `rows` makes row groups. `join` is asked about what is in no group, `finish` about the groups of elementwise nodes.
 */
export function fuse(tape: readonly Node[], enabled: boolean, rows?: GrowRows, join?: JoinProduct, finish?: JoinEpilogue): Item[] {
  const items: Item[] = [];
  if (enabled) countReaders(tape);
  const grow = enabled && tape.some((node) => node.op.rows !== undefined) ? rows : undefined;
  const gone = enabled ? new Set<Node>() : undefined;
  for (let i = tape.length - 1; i >= 0; i--) {
    const node = tape[i] as Node;
    if (gone?.has(node)) continue;
    const item: Item = { node, absorbed: undefined, stored: undefined };
    if (gone && grow?.(item, gone)) {
      items.push(item);
      continue;
    }
    if (gone && fusible(node)) absorb(item, gone);
    else if (gone) for (const d of node.inputs) d.readers--;
    const joined = gone && !item.absorbed ? join?.(node, gone) : undefined;
    if (gone && !joined && fusible(node)) finish?.(item, gone);
    items.push(joined ?? item);
  }
  return items.reverse();
}

/** Turns an item into a row group if that is worth it: absorbs into it, marks what is absorbed as gone, and keeps the counts of readers. */
export type GrowRows = (item: Item, gone: Set<Node>) => boolean;

export interface JoinProduct {
  /** The item that computes a node together with the product among its inputs, if one does: marks the product as gone, and keeps the counts of readers. */
  (node: Node, gone: Set<Node>): Item | undefined;
  /** Whether there is one; changes nothing. */
  would(node: Node, gone: ReadonlySet<Node>): boolean;
}

/** Adds to a group of elementwise nodes the product whose result they finish, if there is one: marks the product as gone, and keeps the counts of readers. */
export type JoinEpilogue = (item: Item, gone: Set<Node>) => void;

/** `readers`: nodes of the tape that read an array and have no place yet. */
function countReaders(tape: readonly Node[]): void {
  for (const node of tape) for (const o of node.outputs) o.readers = 0;
  for (const node of tape) for (const d of node.inputs) d.readers++;
}

function absorb(item: Item, gone: Set<Node>): void {
  const root = item.node;
  const shape = (root.outputs[0] as ArrayDesc).shape;
  /** Reads by nodes of the group. */
  let inside: Map<ArrayDesc, number> | undefined;
  const leaves = new Set(root.inputs);
  const queue: Node[] = [root];
  for (let node = queue.pop(); node; node = queue.pop()) {
    for (const d of node.inputs) {
      d.readers--;
      if (d.consumers === 1) continue;
      inside ??= new Map();
      inside.set(d, 1 + (inside.get(d) ?? 0));
    }
    for (const d of node.inputs) {
      const p = d.node;
      if (!p || d.storage || d.readers > 0 || gone.has(p) || !fusible(p) || p.stream.device !== root.stream.device || !sameShape(d.shape, shape)) continue;
      const seen = d.handles > 0 || (d.consumers > 1 && (inside?.get(d) ?? 0) < d.consumers);
      const outputs = 1 + (item.stored?.length ?? 0) + Number(seen);
      if (outputs > mostOutputs || leavesWith(leaves, p) + outputs > mostOperands || (item.absorbed?.length ?? 0) >= mostNodes) continue;
      if (seen) {
        item.stored ??= [];
        item.stored.push(p);
      }
      leaves.delete(d);
      for (const x of p.inputs) leaves.add(x);
      item.absorbed ??= [];
      item.absorbed.push(p);
      gone.add(p);
      queue.push(p);
    }
  }
}

/** Inputs of a group once it has absorbed a node that makes one of them. */
function leavesWith(leaves: ReadonlySet<ArrayDesc>, p: Node): number {
  let n = leaves.size - 1;
  for (const x of p.inputs) if (!leaves.has(x)) n++;
  return n;
}
