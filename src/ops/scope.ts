/** Handles of intermediate results: an op made of others must close them, or they would keep their buffers from being reused. */
import { type MxArray, closeScope, openScope } from "../core/array.ts";

const nothing: ReadonlySet<MxArray> = new Set();

/** Runs `f` and closes every handle made meanwhile but the one that it returns. */
export function within(f: () => MxArray): MxArray {
  openScope();
  let result: MxArray;
  try {
    result = f();
  } catch (error) {
    closeScope(nothing);
    throw error;
  }
  closeScope(new Set([result]));
  return result;
}
