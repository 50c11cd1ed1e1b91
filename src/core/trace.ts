/**
 * The tape of function transforms. While a transform runs the user's function, every node that is computed from its inputs is written down here in the
 * order of creation, which is a topological order: reverse and forward passes are plain loops over a slice of the tape, however deep the graph is.
 * Arrays on the tape are held, so that an evaluation inside the function can neither cut the graph nor free what rules will read.
 */
import { type ArrayDesc, releaseDesc } from "./array.ts";
import type { Node } from "./op.ts";

let depth = 0;
let recording = false;
let tape: Node[] = [];
let roots: ArrayDesc[] = [];

/** True while a function transform is at work: what its tape holds can not be freed by evaluating early. */
export const isTransforming = (): boolean => depth > 0;

/** Called for each new node. */
export function recordNode(node: Node): void {
  if (!recording) return;
  let traced = false;
  for (const d of node.inputs) traced ||= d.traced;
  if (!traced) return;
  for (const d of node.inputs) d.handles++;
  for (const d of node.outputs) {
    d.handles++;
    d.traced = true;
  }
  tape.push(node);
}

/** Runs `f` without recording: what it computes counts as constant. */
export function untraced<U>(f: () => U): U {
  const before = recording;
  recording = false;
  try {
    return f();
  } finally {
    recording = before;
  }
}

/** Marks an array as an input of a transform: what is computed from it is recorded. */
export function traceFrom(d: ArrayDesc): void {
  d.traced = true;
  roots.push(d);
}

/**
 * Opens the tape, calls `record`, and gives the nodes recorded meanwhile to `use`, which runs while they are still held. What `use` computes is recorded
 * only for the transforms around this one.
 */
export function withTape<T, U>(record: () => T, use: (recorded: T, nodes: readonly Node[]) => U): U {
  const before = recording;
  depth++;
  recording = true;
  const start = tape.length;
  try {
    const recorded = record();
    recording = before;
    return use(recorded, tape.slice(start));
  } finally {
    depth--;
    recording = before;
    if (depth === 0) release();
  }
}

/** Ends the outermost transform: nothing is traced any more, and what nobody else holds is freed. */
function release(): void {
  const nodes = tape;
  for (const d of roots) d.traced = false;
  tape = [];
  roots = [];
  const drop = (d: ArrayDesc): void => {
    d.traced = false;
    d.handles--;
    releaseDesc(d);
  };
  for (const node of nodes) {
    for (const d of node.inputs) drop(d);
    for (const d of node.outputs) drop(d);
  }
}
