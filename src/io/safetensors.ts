/**
 * Safetensors: eight bytes of header length, a JSON header, the tensors' bytes. Files are checked in full before anything is allocated, and
 * bytes go straight into the arrays' storage. Format: https://huggingface.co/docs/safetensors (checks after its reference implementation's rules).
 */
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type ArrayDesc, MxArray } from "../core/array.ts";
import {
  type Dtype, type DtypeName, bfloat16, bool, complex64, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8,
} from "../core/dtype.ts";
import { defaultDevice } from "../core/device.ts";
import { opError } from "../core/error.ts";
import { formatShape } from "../core/shape.ts";
import { type ByteSource, type FileLike, allocateAll, checkedSize, fill, formatBytes, loadError, loadOnDevice, openSource, releaseAll, withSource } from "./source.ts";
import { bytesOf, withExtension, writeFile } from "./write.ts";

/** Header limit of the format's reference implementation. */
const maxHeaderBytes = 100_000_000;

const dtypeOf: ReadonlyMap<string, Dtype> = new Map([
  ["BOOL", bool], ["U8", uint8], ["U16", uint16], ["U32", uint32], ["U64", uint64], ["I8", int8], ["I16", int16], ["I32", int32], ["I64", int64],
  ["F16", float16], ["BF16", bfloat16], ["F32", float32], ["F64", float64], ["C64", complex64],
]);
/** Types whose bytes are loaded as uint8. */
const asBytes: ReadonlyMap<string, Dtype> = new Map([["F8_E4M3", uint8]]);
const nameOf = Object.fromEntries([...dtypeOf].map(([name, dtype]) => [dtype.name, name])) as Record<DtypeName, string>;

/** One tensor of a file. `begin` and `end` count bytes from the start of the file. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}
export interface SafetensorsHeader {
  readonly entries: readonly SafetensorsEntry[];
  readonly metadata: Record<string, string>;
}
export interface LoadOptions {
  /** Called as bytes arrive, with the number of bytes read and the number of bytes in all. */
  readonly onProgress?: (done: number, total: number) => void;
}

const isObject = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && !Array.isArray(x);
const show = (x: unknown): string => {
  const text = JSON.stringify(x) ?? String(x);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
};

/** A key that some object of a valid JSON text has twice; JSON.parse would keep the last one silently. */
export function duplicateKey(json: string): string | undefined {
  const open: (Set<string> | undefined)[] = [];
  let expectKey = false;
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === "{" || c === "[") {
      open.push(c === "{" ? new Set() : undefined);
      expectKey = c === "{";
    } else if (c === "}" || c === "]") {
      open.pop();
      expectKey = false;
    } else if (c === ",") expectKey = open[open.length - 1] !== undefined;
    else if (c === '"') {
      const start = i++;
      while (json[i] !== '"') i += json[i] === "\\" ? 2 : 1;
      if (!expectKey) continue;
      expectKey = false;
      const key = JSON.parse(json.slice(start, i + 1)) as string;
      const keys = open[open.length - 1] as Set<string>;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

function readJson(source: ByteSource): { header: Record<string, unknown>; dataStart: number } {
  if (source.size < 8) throw loadError(source, `a safetensors file has at least 8 bytes, got ${source.size}`);
  const prefix = new Uint8Array(8);
  source.read(prefix, 0);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(source.size - 8)) throw loadError(source, `the header is longer than the file, got a header of ${length} bytes in a file of ${source.size}`);
  if (length > BigInt(maxHeaderBytes)) throw loadError(source, `the header may have at most ${maxHeaderBytes} bytes, got ${length}`);
  const bytes = new Uint8Array(Number(length));
  source.read(bytes, 8);
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (error) {
    throw loadError(source, `the header is not valid JSON: ${(error as Error).message}`);
  }
  if (!isObject(header)) throw loadError(source, `the header must be a JSON object, got ${show(header)}`);
  const twice = duplicateKey(text);
  if (twice !== undefined) throw loadError(source, `the header has the key ${show(twice)} twice`);
  return { header, dataStart: 8 + Number(length) };
}

function readMetadata(source: ByteSource, value: unknown): Record<string, string> {
  // MLX writes null when there is no metadata.
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw loadError(source, `__metadata__ must be an object of strings, got ${show(value)}`);
  for (const [k, v] of Object.entries(value)) if (typeof v !== "string") throw loadError(source, `__metadata__ must hold strings only, got ${show(v)} for ${show(k)}`);
  return value as Record<string, string>;
}

function readEntry(source: ByteSource, name: string, value: unknown, dataStart: number): SafetensorsEntry {
  const what = `tensor ${show(name)}`;
  if (!isObject(value)) throw loadError(source, `${what} must be described by an object, got ${show(value)}`);
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  const dtype = typeof dtypeName === "string" ? (dtypeOf.get(dtypeName) ?? asBytes.get(dtypeName)) : undefined;
  if (!dtype) throw loadError(source, `${what} has an unsupported dtype, got ${show(dtypeName)}; supported: ${[...dtypeOf.keys(), ...asBytes.keys()].join(" ")}`);
  if (!Array.isArray(shape)) throw loadError(source, `${what} needs a shape, a list of integers, got ${show(shape)}`);
  const bytes = checkedSize(source, what, shape, dtype.size) * dtype.size;
  const dataBytes = source.size - dataStart;
  const ok = Array.isArray(offsets) && offsets.length === 2 && offsets.every((o) => typeof o === "number" && Number.isInteger(o) && o >= 0);
  if (!ok) throw loadError(source, `${what} needs data_offsets, two non-negative integers, got ${show(offsets)}`);
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataBytes) throw loadError(source, `${what} lies outside the file's ${dataBytes} bytes of data, got data_offsets ${show(offsets)}`);
  if (end - begin !== bytes)
    throw loadError(source, `${what} of shape ${formatShape(shape)} and dtype ${dtypeName} needs ${bytes} bytes, got data_offsets ${show(offsets)} (${end - begin} bytes)`);
  return { name, dtype, shape: shape as number[], begin: dataStart + begin, end: dataStart + end };
}

/** The tensors must fill the data part: no overlaps, no holes. */
function checkCoverage(source: ByteSource, entries: readonly SafetensorsEntry[], dataStart: number): void {
  let at = dataStart;
  let last = "the header";
  for (const e of entries) {
    if (e.begin < at) throw loadError(source, `tensors ${show(last)} and ${show(e.name)} overlap`);
    if (e.begin > at) throw loadError(source, `there is a hole of ${e.begin - at} bytes before tensor ${show(e.name)}`);
    at = e.end;
    last = e.name;
  }
  if (at !== source.size) throw loadError(source, `${source.size - at} bytes at the end belong to no tensor`);
}

/** Reads and checks the header. Entries come in the order of their bytes. */
export function parseHeader(source: ByteSource): SafetensorsHeader {
  const { header, dataStart } = readJson(source);
  const metadata = readMetadata(source, header["__metadata__"]);
  const entries: SafetensorsEntry[] = [];
  for (const [name, value] of Object.entries(header)) if (name !== "__metadata__") entries.push(readEntry(source, name, value, dataStart));
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(source, entries, dataStart);
  return { entries, metadata };
}

/** Names, dtypes, shapes and metadata of a safetensors file, without its data. Throws as `loadSafetensors` does. */
export const readSafetensorsHeader = (file: FileLike): SafetensorsHeader => withSource(file, parseHeader);

interface Part {
  readonly source: ByteSource;
  readonly entries: readonly SafetensorsEntry[];
}

/** Loads the entries of several sources, all or nothing. */
function readParts(name: string, parts: readonly Part[], options: LoadOptions): Record<string, MxArray> {
  const all = parts.flatMap(({ source, entries }) => entries.map((entry) => ({ source, entry })));
  const total = all.reduce((sum, { entry }) => sum + entry.end - entry.begin, 0);
  const onDevice = defaultDevice().type === "gpu";
  const descs = onDevice ? [] : allocateAll(name, all.map(({ entry }) => entry));
  try {
    let done = 0;
    all.forEach(({ source, entry }, i) => {
      if (onDevice) descs.push(loadOnDevice(entry, source, entry.begin));
      else fill(descs[i] as ArrayDesc, source, entry.begin);
      done += entry.end - entry.begin;
      options.onProgress?.(done, total);
    });
  } catch (error) {
    releaseAll(descs);
    throw error;
  }
  return Object.fromEntries(all.map(({ entry }, i) => [entry.name, new MxArray(descs[i] as ArrayDesc)]));
}

/** Arrays and metadata of an open safetensors source. */
export function readSafetensors(source: ByteSource, options: LoadOptions = {}): { arrays: Record<string, MxArray>; metadata: Record<string, string> } {
  const { entries, metadata } = parseHeader(source);
  return { arrays: readParts(source.name, [{ source, entries }], options), metadata };
}

/**
 * Loads a safetensors file (a path, a URL, or its bytes): an object from name to array. The whole file is checked first; on an error nothing
 * stays allocated. Throws `[load] <file>: ...` when the file is missing, truncated or malformed, has an unsupported dtype, or does not fit memory.
 */
export const loadSafetensors = (file: FileLike, options: LoadOptions = {}): Record<string, MxArray> =>
  withSource(file, (source) => readSafetensors(source, options).arrays);

function readWeightMap(indexFile: string): Map<string, string[]> {
  const file = { name: indexFile };
  let index: unknown;
  try {
    index = JSON.parse(readFileSync(indexFile, "utf8"));
  } catch (error) {
    throw loadError(file, `can not read the index: ${(error as Error).message}`);
  }
  const map = isObject(index) ? index["weight_map"] : undefined;
  if (!isObject(map)) throw loadError(file, `the index needs a weight_map, an object from weight to file name, got ${show(map)}`);
  const byShard = new Map<string, string[]>();
  for (const [weight, shard] of Object.entries(map)) {
    // A shard lies beside its index: a path would let a downloaded index name any file of the machine.
    if (typeof shard !== "string" || shard === "" || shard === ".." || basename(shard) !== shard || shard.includes("\\"))
      throw loadError(file, `weight ${show(weight)} needs a plain file name, got ${show(shard)}`);
    const weights = byShard.get(shard);
    if (weights) weights.push(weight);
    else byShard.set(shard, [weight]);
  }
  return byShard;
}

/**
 * Loads a sharded checkpoint by its index (`model.safetensors.index.json`): an object from weight to array, over all shards. Every weight
 * of the index must be in its shard; all headers are checked before anything is allocated. Throws as `loadSafetensors` does.
 */
export function loadShards(indexFile: string, options: LoadOptions = {}): Record<string, MxArray> {
  const sources: ByteSource[] = [];
  try {
    const parts: Part[] = [];
    for (const [shard, weights] of readWeightMap(indexFile)) {
      const source = openSource(join(dirname(indexFile), shard));
      sources.push(source);
      const wanted = new Set(weights);
      const entries = parseHeader(source).entries.filter((e) => wanted.delete(e.name));
      const [missing] = wanted;
      if (missing !== undefined) throw loadError({ name: indexFile }, `weight ${show(missing)} is not in its shard ${shard}`);
      parts.push({ source, entries });
    }
    return readParts(indexFile, parts, options);
  } finally {
    for (const s of sources) s.close();
  }
}

/** The header of a file with these tensors, padded to a multiple of 8 bytes. */
function makeHeader(arrays: readonly (readonly [string, MxArray])[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let at = 0;
  for (const [name, a] of arrays) {
    header.push([name, { dtype: nameOf[a.dtype.name], shape: a.shape, data_offsets: [at, at + a.nbytes] }]);
    at += a.nbytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const length = Math.ceil(json.length / 8) * 8;
  if (length > maxHeaderBytes) throw opError("saveSafetensors", `the header may have at most ${formatBytes(maxHeaderBytes)}, got ${formatBytes(length)}`);
  const out = new Uint8Array(8 + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(json, 8);
  return out;
}

/** Writes a safetensors file at exactly this path. `op`: the name in errors. */
export function writeSafetensors(op: string, path: string, arrays: Record<string, MxArray>, metadata: Readonly<Record<string, string>>): void {
  const list = Object.entries(arrays);
  for (const [name, a] of list) {
    if (name === "__metadata__") throw opError(op, 'an array can not have the name "__metadata__"');
    if (!(a instanceof MxArray)) throw opError(op, `${show(name)} must be an array, got ${typeof a}`);
  }
  for (const [k, v] of Object.entries(metadata)) if (typeof v !== "string") throw opError(op, `metadata must be strings, got ${show(v)} for ${show(k)}`);
  // Widest elements first, so that every tensor is aligned in the file.
  list.sort(([n, a], [m, b]) => b.itemsize - a.itemsize || (n < m ? -1 : 1));
  writeFile(op, path, (write) => {
    write(makeHeader(list, metadata));
    for (const [, a] of list) write(bytesOf(a));
  });
}

/**
 * Saves arrays by name, with metadata (strings only), as a safetensors file; `.safetensors` is added to a path without it. The file appears
 * whole or not at all. Throws when a value is not an array or the file can not be written.
 */
export function saveSafetensors(path: string, arrays: Record<string, MxArray>, metadata: Record<string, string> = {}): void {
  writeSafetensors("saveSafetensors", withExtension(path, ".safetensors"), arrays, metadata ?? {});
}
