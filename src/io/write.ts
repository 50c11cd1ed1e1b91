/** Writing files whole or not at all. */
import { closeSync, openSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type MxArray, hostBytes, materialize, readBits } from "../core/array.ts";
import { opError } from "../core/error.ts";

/** Row-major bytes of an array: evaluates and waits. In place when the array is contiguous: use them before anything else is computed. */
export function bytesOf(a: MxArray): Uint8Array {
  materialize(a.desc);
  if (a.desc.contiguous && a.desc.storage) return hostBytes(a.desc);
  const bits = readBits(a.desc);
  return new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
}

/** MLX adds the extension of the format to a path that lacks it. */
export const withExtension = (path: string, extension: string): string => (path.endsWith(extension) ? path : path + extension);

const blockBytes = 16 << 20;

/** Writes a file through a temporary one in the same folder, which takes the name when all is written and goes away on an error. */
export function writeFile(op: string, path: string, body: (write: (bytes: Uint8Array) => void) => void): void {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}-${Math.random().toString(36).slice(2, 10)}.tmp`);
  let fd: number;
  try {
    fd = openSync(temporary, "wx");
  } catch (error) {
    throw opError(op, `${path}: can not write it: ${(error as Error).message}`);
  }
  let open = true;
  try {
    body((bytes) => {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, Math.min(blockBytes, bytes.length - done));
    });
    open = false;
    closeSync(fd);
    renameSync(temporary, path);
  } catch (error) {
    if (open) closeSync(fd);
    unlinkSync(temporary);
    if ((error as NodeJS.ErrnoException).code) throw opError(op, `${path}: can not write it: ${(error as Error).message}`);
    throw error;
  }
}
