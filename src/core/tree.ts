/** Walks over nested Arrays, plain objects and class instances that hold arrays. */
import { MxArray } from "./array.ts";

const children = (node: object): readonly unknown[] => {
  if (Array.isArray(node)) return node;
  if (node instanceof Map || node instanceof Set) return [...node.values()];
  if (ArrayBuffer.isView(node) || node instanceof Promise) return [];
  return Object.values(node);
};

/** Calls `visit` once for each array reachable from the trees, also in properties of class instances, in the order in which they stand there. */
export function forEachArray(trees: unknown, visit: (a: MxArray) => void): void {
  const seen = new Set<object>();
  const stack: unknown[] = [trees];
  while (stack.length > 0) {
    const node = stack.pop();
    if (typeof node !== "object" || node === null || seen.has(node)) continue;
    seen.add(node);
    if (node instanceof MxArray) {
      visit(node);
      continue;
    }
    const below = children(node);
    for (let i = below.length - 1; i >= 0; i--) if (typeof below[i] === "object" && below[i] !== null) stack.push(below[i]);
  }
}
