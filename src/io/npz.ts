/** NumPy's .npz format: a zip file of .npy files. */
import { MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { npyHeader, readNpy } from "./npy.ts";
import { type ByteSource, loadError } from "./source.ts";
import { bytesOf, withExtension, writeFile } from "./write.ts";
import { ZipWriter, openEntry, readEntries } from "./zip.ts";

/** Reads all arrays of an npz file, all or nothing. Names lose their `.npy`. */
export function readNpz(source: ByteSource): Record<string, MxArray> {
  const arrays = new Map<string, MxArray>();
  try {
    for (const entry of readEntries(source)) {
      const name = entry.name.replace(/\.npy$/, "");
      if (arrays.has(name)) throw loadError(source, `there are two arrays with the name ${JSON.stringify(name)}`);
      arrays.set(name, readNpy(openEntry(source, entry)));
    }
  } catch (error) {
    for (const a of arrays.values()) a.dispose();
    throw error;
  }
  return Object.fromEntries(arrays);
}

/** Arrays by name: those of records under their keys, bare ones as arr_0, arr_1, ... */
function namedArrays(op: string, args: readonly (MxArray | Record<string, MxArray>)[]): [string, MxArray][] {
  const named = new Map<string, MxArray>();
  let bare = 0;
  for (const arg of args) {
    for (const [name, a] of arg instanceof MxArray ? [[`arr_${bare++}`, arg] as const] : Object.entries(arg)) {
      if (!(a instanceof MxArray)) throw opError(op, `${JSON.stringify(name)} must be an array, got ${typeof a}`);
      if (named.has(name)) throw opError(op, `the name ${JSON.stringify(name)} is used twice`);
      named.set(name, a);
    }
  }
  return [...named];
}

function writeNpz(op: string, path: string, args: readonly (MxArray | Record<string, MxArray>)[], deflate: boolean): void {
  const arrays = namedArrays(op, args);
  writeFile(op, withExtension(path, ".npz"), (write) => {
    const zip = new ZipWriter(op, write);
    for (const [name, a] of arrays) zip.add(`${name}.npy`, [npyHeader(a), bytesOf(a)], deflate);
    zip.end();
  });
}

/**
 * Saves arrays as .npz, uncompressed: `savez(path, {name: array})`; arrays given without a name become `arr_0`, `arr_1`, ... `.npz` is added to a
 * path without it. The file appears whole or not at all. Throws when a value is not an array or the file can not be written.
 */
export const savez = (path: string, ...arrays: (MxArray | Record<string, MxArray>)[]): void => writeNpz("savez", path, arrays, false);

/** As `savez`, deflated. */
export const savezCompressed = (path: string, ...arrays: (MxArray | Record<string, MxArray>)[]): void => writeNpz("savezCompressed", path, arrays, true);
