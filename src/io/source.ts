/** Random access to the bytes of a file, or of a buffer that holds one. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { ArrayDesc } from "../core/array.ts";
import type { Dtype } from "../core/dtype.ts";
import { type MxError, opError } from "../core/error.ts";
import { type Shape, formatShape } from "../core/shape.ts";
import { Storage, deviceMemory, hostMemory } from "../core/storage.ts";

/** A path, a `file:` URL, or the bytes of a file. */
export type FileLike = string | URL | Uint8Array;

export interface ByteSource {
  /** Name for messages. */
  readonly name: string;
  /** Number of bytes. */
  readonly size: number;
  /** Fills `into` with the bytes from `position` on. Throws when the source ends before. */
  read(into: Uint8Array, position: number): void;
  close(): void;
}

/** "[load] <file>: what is wrong, got what". */
export const loadError = (source: { readonly name: string }, message: string): MxError => opError("load", `${source.name}: ${message}`);

/** Largest single read: keeps each system call short. */
const blockBytes = 16 << 20;

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "no permission to read it",
  EISDIR: "it is a folder, not a file",
  ENOTDIR: "no such file (a part of its path is not a folder)",
};
const reasonOf = (error: unknown): string => reasons[(error as NodeJS.ErrnoException).code ?? ""] ?? (error as Error).message;

function fileSource(path: string): ByteSource {
  const name = path;
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw loadError({ name }, `can not open it: ${reasonOf(error)}`);
  }
  const stat = fstatSync(fd);
  if (!stat.isFile()) {
    closeSync(fd);
    throw loadError({ name }, stat.isDirectory() ? "it is a folder, not a file" : "it is not a regular file");
  }
  return {
    name,
    size: stat.size,
    read(into, position) {
      for (let done = 0; done < into.length; ) {
        let n: number;
        try {
          n = readSync(fd, into, done, Math.min(blockBytes, into.length - done), position + done);
        } catch (error) {
          throw loadError({ name }, `can not read it: ${reasonOf(error)}`);
        }
        if (n === 0) throw loadError({ name }, `the file ends early, got ${position + done} of ${position + into.length} bytes`);
        done += n;
      }
    },
    close: () => closeSync(fd),
  };
}

function bytesSource(bytes: Uint8Array, name: string): ByteSource {
  return {
    name,
    size: bytes.length,
    read(into, position) {
      const part = bytes.subarray(position, position + into.length);
      if (part.length < into.length) throw loadError({ name }, `the data ends early, got ${bytes.length} of ${position + into.length} bytes`);
      into.set(part);
    },
    close: () => {},
  };
}

/** Path of a file, or undefined for bytes. */
export const pathOf = (file: FileLike): string | undefined => (file instanceof URL ? fileURLToPath(file) : typeof file === "string" ? file : undefined);

export function openSource(file: FileLike): ByteSource {
  if (file instanceof Uint8Array) return bytesSource(file, "(bytes)");
  const path = pathOf(file);
  if (path === undefined) throw opError("load", `the file must be a path, a URL or a Uint8Array, got ${typeof file}`);
  return fileSource(path);
}

/** A part of a source as a source of its own. */
export const sliceSource = (source: ByteSource, name: string, start: number, size: number): ByteSource => ({
  name: `${source.name} (${basename(name)})`,
  size,
  read(into, position) {
    if (position + into.length > size) throw loadError(this, `the entry ends early, got ${size} of ${position + into.length} bytes`);
    source.read(into, start + position);
  },
  close: () => {},
});
/** Bytes that were unpacked in memory, as a source. */
export const memorySource = (bytes: Uint8Array, source: ByteSource, name: string): ByteSource => bytesSource(bytes, `${source.name} (${basename(name)})`);

/** Opens a source for the time of `body`. */
export function withSource<T>(file: FileLike, body: (source: ByteSource) => T): T {
  const source = openSource(file);
  try {
    return body(source);
  } finally {
    source.close();
  }
}

/** A size for people. */
export const formatBytes = (n: number): string =>
  n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(2)} GiB` : n >= 2 ** 20 ? `${(n / 2 ** 20).toFixed(1)} MiB` : `${n} bytes`;

/** Most bytes that the shared memory of the CPU backend can hold. */
const addressable = 2 ** 32;

/** Number of elements of a shape from a file; throws when a dimension or the byte size can not be. */
export function checkedSize(source: ByteSource, what: string, shape: readonly unknown[], itemsize: number): number {
  let n = 1;
  let zero = false;
  for (const d of shape) {
    if (typeof d !== "number" || !Number.isInteger(d) || d < 0 || d > 0x7fffffff)
      throw loadError(source, `${what} has a dimension that is not an integer from 0 to 2147483647, got shape [${shape.slice(0, 8).join(",")}]`);
    if (d === 0) zero = true;
    else n *= d;
    if (n * itemsize > Number.MAX_SAFE_INTEGER) throw loadError(source, `${what} is too large to exist, got shape ${formatShape(shape.slice(0, 8) as number[])}`);
  }
  return zero ? 0 : n;
}

/** What a loader wants to make. */
export interface Plan {
  readonly shape: Shape;
  readonly dtype: Dtype;
}

/**
 * Fresh contiguous arrays for all plans, or none: when memory does not suffice, those made are given back and an error with the sizes is thrown.
 * Nothing may be computed between this call and the filling of the bytes.
 */
export function allocateAll(name: string, plans: readonly Plan[]): ArrayDesc[] {
  const total = plans.reduce((sum, p) => sum + p.shape.reduce((n, d) => n * d, 1) * p.dtype.size, 0);
  if (total >= addressable) throw loadError({ name }, `its arrays need ${formatBytes(total)}, but the CPU backend's memory holds at most 4 GiB`);
  const made: ArrayDesc[] = [];
  try {
    for (const p of plans) made.push(ArrayDesc.fresh(p.shape, p.dtype));
  } catch (error) {
    releaseAll(made);
    throw loadError({ name }, `its ${plans.length} arrays need ${formatBytes(total)}: ${(error as Error).message}`);
  }
  hostMemory().quiesce();
  return made;
}
/** Gives back descriptors that never got a handle. */
export function releaseAll(made: readonly ArrayDesc[]): void {
  for (const d of made) (d.storage as Storage).release();
}

/** Bytes of a fresh array, read from a source straight into its storage. */
export function fill(desc: ArrayDesc, source: ByteSource, position: number): Uint8Array {
  const bytes = hostMemory().bytes(desc.address, desc.size * desc.dtype.size);
  source.read(bytes, position);
  // Kernels take a bool to be 0 or 1.
  if (desc.dtype.kind === "bool") for (let i = 0; i < bytes.length; i++) if ((bytes[i] as number) > 1) bytes[i] = 1;
  return bytes;
}

/** A fresh array on the GPU, read from a source straight into device memory. The caller releases it. */
export function loadOnDevice(plan: Plan, source: ByteSource, position: number): ArrayDesc {
  const desc = ArrayDesc.lazy(plan.shape, plan.dtype);
  const bytes = desc.size * desc.dtype.size;
  const isBool = desc.dtype.kind === "bool";
  const block = deviceMemory().load(bytes, (into, at) => {
    source.read(into, position + at);
    if (isBool) for (let i = 0; i < into.length; i++) if ((into[i] as number) > 1) into[i] = 1;
  });
  desc.attach(new Storage(bytes, block));
  return desc;
}
