/** Arrays in containers that a compiled function reads and changes: modules, optimizers' states, the key of random numbers. */
import { MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import type { Tree } from "./tree.ts";

/** Where an array stands: in which container, under which key, and how to get there from the root. */
export interface Place {
  readonly holder: Record<string, unknown>;
  readonly path: readonly string[];
  readonly array: MxArray;
}

const isContainer = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && !(x instanceof MxArray) && !ArrayBuffer.isView(x) && !(x instanceof Promise) && !(x instanceof Map) && !(x instanceof Set);

/** The root of captured state: undefined for none. */
export function requireContainer(name: string, root: Tree): Record<string, unknown> | undefined {
  if (root === undefined || root === null) return undefined;
  if (!isContainer(root)) throw opError("compile", `${name} must be an object, an Array or a module that holds arrays, got ${root instanceof MxArray ? "an array" : typeof root}`);
  return root;
}

/** Every array below a container, in the order of its keys. A container that is reached twice counts once. */
export function placesIn(root: Record<string, unknown> | undefined): Place[] {
  const places: Place[] = [];
  const seen = new Set<object>();
  const walk = (holder: Record<string, unknown>, path: readonly string[]): void => {
    if (seen.has(holder)) return;
    seen.add(holder);
    for (const key of Object.keys(holder)) {
      const value = holder[key];
      if (value instanceof MxArray) places.push({ holder, path: [...path, key], array: value });
      else if (isContainer(value)) walk(value, [...path, key]);
    }
  };
  if (root) walk(root, []);
  return places;
}

/** Puts an array at a path; containers that are missing on the way are made. */
export function putAt(root: Record<string, unknown>, path: readonly string[], array: MxArray): void {
  let holder = root;
  path.slice(0, -1).forEach((key, i) => {
    if (!isContainer(holder[key])) holder[key] = /^\d+$/.test(path[i + 1] as string) ? [] : {};
    holder = holder[key] as Record<string, unknown>;
  });
  holder[path[path.length - 1] as string] = array;
}

/** Runs `f` with other arrays in the places, and puts the places' own back. */
export function withPlaced<T>(places: readonly Place[], arrays: readonly MxArray[], f: () => T): T {
  places.forEach(({ holder, path }, i) => {
    holder[path[path.length - 1] as string] = arrays[i];
  });
  try {
    return f();
  } finally {
    for (const { holder, path, array } of places) holder[path[path.length - 1] as string] = array;
  }
}
