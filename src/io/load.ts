/** `load`: arrays from a file, by its format. */
import { extname } from "node:path";
import type { MxArray } from "../core/array.ts";
import { type GGUFMetadata, readGGUF } from "./gguf.ts";
import { readNpy } from "./npy.ts";
import { readNpz } from "./npz.ts";
import { readSafetensors } from "./safetensors.ts";
import { type ByteSource, type FileLike, loadError, pathOf, withSource } from "./source.ts";

type Metadata = Record<string, string>;
type Loaded = MxArray | Record<string, MxArray> | [Record<string, MxArray>, Metadata | GGUFMetadata];

const formats: Readonly<Record<string, (source: ByteSource, returnMetadata: boolean) => Loaded>> = {
  npy: (source) => readNpy(source),
  npz: (source) => readNpz(source),
  safetensors: (source, returnMetadata) => {
    const { arrays, metadata } = readSafetensors(source);
    return returnMetadata ? [arrays, metadata] : arrays;
  },
  gguf: (source, returnMetadata) => {
    const { arrays, metadata } = readGGUF(source, returnMetadata);
    return returnMetadata ? [arrays, metadata] : arrays;
  },
};
const haveMetadata: readonly string[] = ["safetensors", "gguf"];

/**
 * Loads a file: `.npy` gives an array, `.npz`, `.safetensors` and `.gguf` an object from name to array; the last two with `returnMetadata` a pair of that object and the
 * file's metadata (safetensors: strings; GGUF: strings, lists of strings and arrays, see `loadGGUF` also for what becomes of quantized tensors). `file` is a path, a URL, or
 * the file's bytes; `format` ("npy", "npz", "safetensors", "gguf") is taken from the extension when not given. Throws `[load] <file>: ...` when the file is missing or
 * malformed, or the format has no metadata or is not supported; nothing stays allocated then.
 */
export function load(file: `${string}.npy`, format?: null, returnMetadata?: false): MxArray;
export function load(file: FileLike, format: "npy", returnMetadata?: false): MxArray;
export function load(file: `${string}.gguf`, format: null | undefined, returnMetadata: true): [Record<string, MxArray>, GGUFMetadata];
export function load(file: FileLike, format: "gguf", returnMetadata: true): [Record<string, MxArray>, GGUFMetadata];
export function load(file: FileLike, format: string | null | undefined, returnMetadata: true): [Record<string, MxArray>, Metadata];
export function load(file: FileLike, format?: string | null, returnMetadata?: boolean): Record<string, MxArray>;
export function load(file: FileLike, format?: string | null, returnMetadata = false): Loaded {
  const name = pathOf(file) ?? "(bytes)";
  const kind = format ?? extname(name).slice(1);
  const reader = Object.hasOwn(formats, kind) ? formats[kind] : undefined;
  if (!reader) {
    const supported = Object.keys(formats).join(", ");
    throw loadError({ name }, kind === "" ? `give the format, one of ${supported}: the name has no extension` : `unknown format, got ${JSON.stringify(kind)}; supported: ${supported}`);
  }
  if (returnMetadata && !haveMetadata.includes(kind)) throw loadError({ name }, `only ${haveMetadata.join(" and ")} files have metadata, got ${kind}`);
  return withSource(file, (source) => reader(source, returnMetadata));
}
