/**
 * Early evaluation: a long loop that is never evaluated would hold memory for all that it computes once it is. When the arrays that have to be computed for one new array
 * exceed a budget of bytes, the new array is computed at once.
 *
 * The work is done on a copy of the graph in which nobody holds the arrays between: their memory goes back as soon as the next one is computed, even if a handle on
 * them is still open (the garbage collector closes handles only between turns of the event loop). Such an array stays what it was, lazy, and is computed again if it is
 * asked for. Kept are the values that are likely to be needed: those that other parts of the graph wait for, gradients, the last state of an array that is updated in
 * parts (a cache), and what a second flush meets.
 */
import { ArrayDesc, releaseDesc } from "../core/array.ts";
import { env } from "../core/env.ts";
import { type Node, installFlusher, postponeFlush } from "../core/op.ts";
import { evaluate, isEvaluating, stats } from "./run.ts";
import { tapeOf } from "./plan.ts";

const bytesOf = (nodes: readonly Node[]): number => nodes.reduce((sum, n) => sum + n.outputs.reduce((s, o) => s + o.size * o.dtype.size, 0), 0);

/** Arrays between that a flush has computed, and not kept, before. */
const met = new WeakSet<ArrayDesc>();

/** Nodes whose outputs keep their values besides the new array. */
function lasting(tape: readonly Node[]): Node[] {
  const readers = new Map<ArrayDesc, number>();
  const updated = new Set<ArrayDesc>();
  for (const { op, inputs } of tape) {
    for (const d of inputs) readers.set(d, (readers.get(d) ?? 0) + 1);
    const { base } = op.kernels[0] ?? {};
    if (base !== undefined) updated.add(inputs[base] as ArrayDesc);
  }
  const keeps = (n: Node, o: ArrayDesc): boolean =>
    o.consumers > (readers.get(o) ?? 0) || (o.handles > 0 && (o.lasting || met.has(o) || (n.op.kernels[0]?.base !== undefined && !updated.has(o))));
  return tape.slice(0, -1).filter((n) => n.outputs.some((o) => keeps(n, o)));
}

/** The same graph with new arrays; leaves are shared. */
function copyGraph(tape: readonly Node[]): Map<ArrayDesc, ArrayDesc> {
  const copies = new Map<ArrayDesc, ArrayDesc>();
  for (const node of tape) {
    const inputs = node.inputs.map((d) => copies.get(d) ?? d);
    for (const d of inputs) d.consumers++;
    const outputs = node.outputs.map((o) => ArrayDesc.lazy(o.shape, o.dtype));
    const copy: Node = { ...node, inputs, outputs };
    node.outputs.forEach((o, i) => {
      const d = outputs[i] as ArrayDesc;
      d.node = copy;
      copies.set(o, d);
    });
  }
  return copies;
}

/** Gives the outputs of a node what was computed for their copies, and cuts the node out of the graph. */
function settle(node: Node, copies: ReadonlyMap<ArrayDesc, ArrayDesc>): void {
  for (const o of node.outputs) {
    const done = copies.get(o) as ArrayDesc;
    if (!done.storage) return;
    o.place(done.storage, done.strides, done.offset);
    o.epoch = done.epoch;
    o.pending = 0;
    o.node = undefined;
  }
  for (const i of node.inputs) if (--i.consumers === 0) releaseDesc(i);
}

function flush(node: Node, budget: number): void {
  if (isEvaluating()) return;
  const tape = tapeOf(node.outputs);
  const between = bytesOf(tape) - bytesOf([node]);
  // What a descriptor says is an estimate: ways that meet again count twice.
  for (const o of node.outputs) o.pending = between;
  if (between <= budget) {
    postponeFlush(budget - between);
    return;
  }
  const kept = [...lasting(tape), node];
  const copies = copyGraph(tape);
  const targets = kept.flatMap((n) => n.outputs.map((o) => copies.get(o) as ArrayDesc));
  for (const t of targets) t.handles++;
  try {
    evaluate(targets, true);
    for (const n of kept) settle(n, copies);
    for (const n of tape) for (const o of n.outputs) if (o.handles > 0) met.add(o);
    stats.flushes++;
  } catch {
    // The graph is as it was; whoever reads the array gets the error.
  } finally {
    for (const t of targets) {
      t.handles--;
      releaseDesc(t);
    }
  }
}

const budget = env("MLX_FLUSH_BYTES");
if (budget > 0) installFlusher(budget, (node) => flush(node, budget));
