/** Lifetimes of handles: `tidy` and `dispose`. Counters and limits live with the allocator (backend/wasm/memory.ts). */
import { type MxArray, closeScope, openScope } from "./array.ts";
import { forEachArray } from "./tree.ts";

const arraysOf = (tree: unknown): Set<MxArray> => {
  const kept = new Set<MxArray>();
  forEachArray(tree, (a) => kept.add(a));
  return kept;
};

/**
 * Runs `f` and disposes every array made meanwhile that its result does not hold. `f` may be async: then arrays are disposed when
 * the promise settles, and calls must not overlap. Returns what `f` returned.
 */
export function tidy<U>(f: () => U): U {
  openScope();
  let result: U;
  try {
    result = f();
  } catch (error) {
    closeScope(new Set());
    throw error;
  }
  if (result instanceof Promise) {
    return result.then(
      (value) => {
        closeScope(arraysOf(value));
        return value;
      },
      (error) => {
        closeScope(new Set());
        throw error;
      },
    ) as U;
  }
  closeScope(arraysOf(result));
  return result;
}

/** Disposes every array found in the trees. */
export function dispose(...trees: unknown[]): void {
  forEachArray(trees, (a) => a.dispose());
}
