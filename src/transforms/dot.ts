/** A graph as text for Graphviz. */
import { writeFileSync } from "node:fs";
import { type ArrayDesc, MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import type { Node } from "../core/op.ts";

/** Something text is written to: a stream of Node, or any object with `write`. */
export interface TextWriter {
  write(text: string): unknown;
}

/** Nodes that the arrays are computed from, inputs first. Iterative: graphs may be deep. */
function nodesOf(targets: readonly ArrayDesc[]): Node[] {
  const found: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; next: number }[] = [];
  const enter = (d: ArrayDesc): void => {
    if (!d.node || seen.has(d.node)) return;
    seen.add(d.node);
    stack.push({ node: d.node, next: 0 });
  };
  for (const t of targets) {
    enter(t);
    for (let top = stack[stack.length - 1]; top; top = stack[stack.length - 1]) {
      const input = top.node.inputs[top.next++];
      if (input) enter(input);
      else {
        found.push(top.node);
        stack.pop();
      }
    }
  }
  return found;
}

/** Names of arrays: those given, then A, B, ..., Z, AA, ... */
function namer(given: ReadonlyMap<ArrayDesc, string>): (d: ArrayDesc) => string {
  const names = new Map(given);
  const taken = new Set(given.values());
  let count = 0;
  const fresh = (): string => {
    let name = "";
    for (let n = count++; n >= 0; n = Math.floor(n / 26) - 1) name = String.fromCharCode(65 + (n % 26)) + name;
    return taken.has(name) ? fresh() : name;
  };
  return (d) => {
    const known = names.get(d) ?? fresh();
    names.set(d, known);
    return JSON.stringify(known);
  };
}

/**
 * Writes the graph of arrays that are not evaluated as a DOT file for Graphviz: boxes are ops, ellipses are arrays.
 *
 * @param file a path, or an object with `write(text)`
 * @param arrays arrays, or objects from name to array, whose names are shown
 */
export function exportToDot(file: string | TextWriter, ...arrays: (MxArray | Readonly<Record<string, MxArray>>)[]): void {
  const named = new Map<ArrayDesc, string>();
  const targets: ArrayDesc[] = [];
  const add = (a: unknown, name?: string): void => {
    if (!(a instanceof MxArray)) throw opError("exportToDot", `expected arrays or objects of arrays, got ${a === null ? "null" : typeof a}`);
    targets.push(a.desc);
    if (name !== undefined) named.set(a.desc, name);
  };
  for (const x of arrays) {
    if (x instanceof MxArray || typeof x !== "object" || x === null) add(x);
    else for (const [name, a] of Object.entries(x)) add(a, name);
  }
  const name = namer(named);
  const nodes = nodesOf(targets);
  const made = new Set(nodes.flatMap((n) => n.outputs));
  const lines = ["digraph {"];
  for (const d of new Set([...nodes.flatMap((n) => n.inputs), ...targets])) if (!made.has(d)) lines.push(`  { rank=source; ${name(d)}; }`);
  nodes.forEach((node, i) => {
    lines.push(`  { op${i} [label=${JSON.stringify(node.op.name)}, shape=rectangle]; }`);
    for (const d of node.inputs) lines.push(`  ${name(d)} -> op${i}`);
    for (const d of node.outputs) lines.push(`  op${i} -> ${name(d)}`);
  });
  for (const d of targets) if (made.has(d)) lines.push(`  { rank=sink; ${name(d)}; }`);
  const text = `${lines.join("\n")}\n}\n`;
  if (typeof file === "string") writeFileSync(file, text);
  else file.write(text);
}
