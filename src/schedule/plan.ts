/** From a lazy graph to a tape: order, and groups of elementwise ops that one generated kernel computes. */
import type { ArrayDesc } from "../core/array.ts";
import type { Node } from "../core/op.ts";
import { sameShape } from "../core/shape.ts";

/** One step of a tape: a node, and the elementwise nodes that are computed inside it (their results are never stored). */
export interface Item {
  readonly node: Node;
  /** Absorbed nodes, or undefined when the node stands alone. */
  absorbed: Node[] | undefined;
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

const mostNodes = 48;
const mostInputs = 12;

const fusible = (node: Node): boolean => node.op.expr !== undefined && node.outputs.length === 1;

/**
 * Groups elementwise nodes: a node absorbs a producer of the same shape whose result nobody else can see (no handle, all readers inside
 * the group). The group runs at the place of its last node.
 */
export function fuse(tape: readonly Node[], enabled: boolean): Item[] {
  const items: Item[] = [];
  const gone = enabled ? new Set<Node>() : undefined;
  for (let i = tape.length - 1; i >= 0; i--) {
    const node = tape[i] as Node;
    if (gone?.has(node)) continue;
    items.push({ node, absorbed: gone && fusible(node) ? absorb(node, gone) : undefined });
  }
  return items.reverse();
}

function absorb(root: Node, gone: Set<Node>): Node[] | undefined {
  const shape = (root.outputs[0] as ArrayDesc).shape;
  let absorbed: Node[] | undefined;
  let readers: Map<ArrayDesc, number> | undefined;
  let inputs = root.inputs.length;
  const queue: Node[] = [root];
  for (let node = queue.pop(); node; node = queue.pop()) {
    for (const d of node.inputs) {
      const p = d.node;
      if (!p || d.storage || d.handles > 0 || !fusible(p) || p.stream.device !== root.stream.device) continue;
      let count = 1;
      if (d.consumers > 1) {
        readers ??= new Map();
        count += readers.get(d) ?? 0;
        readers.set(d, count);
      }
      if (count < d.consumers || !sameShape(d.shape, shape)) continue;
      if (inputs + p.inputs.length - 1 > mostInputs || (absorbed?.length ?? 0) >= mostNodes) continue;
      inputs += p.inputs.length - 1;
      absorbed ??= [];
      absorbed.push(p);
      gone.add(p);
      queue.push(p);
    }
  }
  return absorbed;
}
