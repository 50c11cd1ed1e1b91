/** Walks over nested Arrays, plain objects and class instances that hold arrays. */
import { MxArray } from "./array.ts";

const children = (node: object): readonly unknown[] => {
  if (Array.isArray(node)) return node;
  if (node instanceof Map || node instanceof Set) return [...node.values()];
  if (ArrayBuffer.isView(node) || node instanceof Promise) return [];
  return Object.values(node);
};

/** Calls `visit` once for each array reachable from the trees, also in properties of class instances. */
export function forEachArray(trees: unknown, visit: (a: MxArray) => void): void {
  const seen = new Set<object>();
  const stack: unknown[] = [trees];
  while (stack.length > 0) {
    const node = stack.pop();
    if (typeof node !== "object" || node === null || seen.has(node)) continue;
    seen.add(node);
    if (node instanceof MxArray) visit(node);
    else for (const child of children(node)) if (typeof child === "object" && child !== null) stack.push(child);
  }
}
