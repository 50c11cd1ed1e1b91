/**
 * GGUF, the file format of llama.cpp: magic, counts, metadata, descriptions of the tensors, and their aligned bytes. Files are checked in full before anything is allocated.
 * Format: ggml's docs/gguf.md, versions 2 and 3 (little-endian).
 */
import { type ArrayDesc, MxArray, hostBytes } from "../core/array.ts";
import { type Dtype, bfloat16, bool, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { formatShape } from "../core/shape.ts";
import { type ArrayLike, toArray } from "../ops/convert.ts";
import { type AffineBlocks, type Dequantize, affineBlocks, dequantizers, halfBits } from "./gguf-blocks.ts";
import { type ByteSource, type FileLike, type Plan, allocateAll, checkedSize, fill, loadError, releaseAll, withSource } from "./source.ts";
import { bytesOf, withExtension, writeFile } from "./write.ts";

const magic = 0x46554747;
const defaultAlignment = 32;
/** ggml itself has at most 4. */
const mostDimensions = 8;

/** A metadata value: numbers are arrays (0-d, or 1-d for a list; float64 becomes float32), strings and lists of strings are themselves. */
export type GGUFValue = MxArray | string | string[];
export type GGUFMetadata = Record<string, GGUFValue>;

/** What one type of tensor is made of, and what it becomes. */
interface TensorType {
  readonly name: string;
  /** Weights per block, and its bytes. */
  readonly block: number;
  readonly bytes: number;
  readonly dtype?: Dtype;
  readonly affine?: AffineBlocks;
  readonly dequantize?: Dequantize;
}
const plain = (name: string, dtype: Dtype): TensorType => ({ name, block: 1, bytes: dtype.size, dtype });
const affine = (name: keyof typeof affineBlocks, bytes: number): TensorType => ({ name, block: 32, bytes, affine: affineBlocks[name] });
const dequantized = (name: keyof typeof dequantizers, block: number, bytes: number): TensorType => ({ name, block, bytes, dequantize: dequantizers[name] });
const tensorTypes: ReadonlyMap<number, TensorType> = new Map([
  [0, plain("F32", float32)],
  [1, plain("F16", float16)],
  [24, plain("I8", int8)],
  [25, plain("I16", int16)],
  [26, plain("I32", int32)],
  [27, plain("I64", int64)],
  [28, plain("F64", float64)],
  [30, plain("BF16", bfloat16)],
  [2, affine("Q4_0", 18)],
  [3, affine("Q4_1", 20)],
  [8, affine("Q8_0", 34)],
  [6, dequantized("Q5_0", 32, 22)],
  [7, dequantized("Q5_1", 32, 24)],
  [10, dequantized("Q2_K", 256, 84)],
  [11, dequantized("Q3_K", 256, 110)],
  [12, dequantized("Q4_K", 256, 144)],
  [13, dequantized("Q5_K", 256, 176)],
  [14, dequantized("Q6_K", 256, 210)],
]);

/** Types of metadata values, by their number. */
const valueDtypes: readonly (Dtype | undefined)[] = [uint8, int8, uint16, int16, uint32, int32, float32, bool, undefined, undefined, uint64, int64, float64];
const [stringType, arrayType] = [8, 9];

/** Reads little-endian fields one after another, with checks against the end of the file. */
class Cursor {
  at = 0;
  private start = 0;
  private buffer = Buffer.alloc(0);
  private readonly source: ByteSource;
  constructor(source: ByteSource) {
    this.source = source;
  }
  get left(): number {
    return this.source.size - this.at;
  }
  /** The next n bytes. */
  bytes(n: number, what: string): Buffer {
    if (n > this.left) throw loadError(this.source, `the file ends inside ${what}, which needs ${n} bytes at byte ${this.at} of ${this.source.size}`);
    if (this.at + n > this.start + this.buffer.length || this.at < this.start) {
      this.buffer = Buffer.alloc(Math.min(this.left, Math.max(n, 1 << 18)));
      this.source.read(this.buffer, this.at);
      this.start = this.at;
    }
    const from = this.at - this.start;
    this.at += n;
    return this.buffer.subarray(from, from + n);
  }
  u32(what: string): number {
    return this.bytes(4, what).readUInt32LE();
  }
  /** A count: at most 2^53, or it could not be. */
  u64(what: string): number {
    const x = this.bytes(8, what).readBigUInt64LE();
    if (x > BigInt(Number.MAX_SAFE_INTEGER)) throw loadError(this.source, `${what} can not be, got ${x}`);
    return Number(x);
  }
  string(what: string): string {
    const b = this.bytes(this.u64(`the length of ${what}`), what);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(b);
    } catch {
      throw loadError(this.source, `${what} is not valid UTF-8`);
    }
  }
}

/** A metadata value as it stands in the file; numbers stay bytes until arrays are wanted. */
type RawValue = string | string[] | { readonly dtype: Dtype; readonly shape: readonly number[]; readonly bytes: Uint8Array };

function readValue(source: ByteSource, c: Cursor, type: number, what: string): RawValue {
  if (type === stringType) return c.string(what);
  if (type !== arrayType) {
    const dtype = valueDtypes[type];
    if (!dtype) throw loadError(source, `${what} has an unknown type, got ${type}`);
    return { dtype, shape: [], bytes: Uint8Array.from(c.bytes(dtype.size, what)) };
  }
  const of = c.u32(`the type of ${what}`);
  const n = c.u64(`the length of ${what}`);
  if (of === arrayType) throw loadError(source, `${what} is a list of lists, which is not supported`);
  const dtype = valueDtypes[of];
  if (of !== stringType && !dtype) throw loadError(source, `${what} is a list of an unknown type, got ${of}`);
  // Each string has eight bytes of length at least, so a length that passes here can not exhaust memory.
  if (n * (dtype?.size ?? 8) > c.left) throw loadError(source, `the file ends inside ${what}, a list of ${n} elements at byte ${c.at} of ${source.size}`);
  if (!dtype) return Array.from({ length: n }, () => c.string(what));
  return { dtype, shape: [n], bytes: Uint8Array.from(c.bytes(n * dtype.size, what)) };
}

interface Tensor {
  readonly name: string;
  readonly type: TensorType;
  readonly shape: readonly number[];
  /** Byte of the file where the data begins, and their number. */
  readonly begin: number;
  readonly bytes: number;
}
interface Header {
  readonly metadata: ReadonlyMap<string, RawValue>;
  readonly tensors: readonly Tensor[];
}

const show = (s: string): string => JSON.stringify(s.length > 80 ? `${s.slice(0, 77)}...` : s);

function readMetadata(source: ByteSource, c: Cursor, count: number): Map<string, RawValue> {
  const metadata = new Map<string, RawValue>();
  for (let i = 0; i < count; i++) {
    const key = c.string("a metadata key");
    if (metadata.has(key)) throw loadError(source, `the metadata has the key ${show(key)} twice`);
    const what = `metadata ${show(key)}`;
    metadata.set(key, readValue(source, c, c.u32(`the type of ${what}`), what));
  }
  return metadata;
}

function alignmentOf(source: ByteSource, metadata: ReadonlyMap<string, RawValue>): number {
  const value = metadata.get("general.alignment");
  if (value === undefined) return defaultAlignment;
  const n = typeof value === "object" && !Array.isArray(value) && value.dtype === uint32 && value.shape.length === 0 ? Buffer.from(value.bytes).readUInt32LE() : 0;
  if (n === 0 || n % 8 !== 0) throw loadError(source, `general.alignment must be a uint32 that is a multiple of 8, got ${n || "another type or 0"}`);
  return n;
}

/** A tensor's description; `begin` is still relative to the data. */
function readTensor(source: ByteSource, c: Cursor): Tensor {
  const name = c.string("a tensor's name");
  const what = `tensor ${show(name)}`;
  const rank = c.u32(`${what}'s description`);
  if (rank > mostDimensions) throw loadError(source, `${what} has too many dimensions, got ${rank}`);
  // ggml counts dimensions from the innermost one.
  const shape = Array.from({ length: rank }, () => c.u64(`${what}'s shape`)).reverse();
  const id = c.u32(`${what}'s description`);
  const type = tensorTypes.get(id);
  if (!type) throw loadError(source, `${what} has an unsupported type, got ${id}; supported: ${[...tensorTypes.values()].map((t) => t.name).join(" ")}`);
  const size = checkedSize(source, what, shape, Math.max(8, type.bytes));
  const row = shape[rank - 1] ?? 1;
  if (row % type.block !== 0) throw loadError(source, `${what} of type ${type.name} needs rows of a multiple of ${type.block} elements, got shape ${formatShape(shape)}`);
  return { name, type, shape, begin: c.u64(`${what}'s offset`), bytes: (size / type.block) * type.bytes };
}

function placeTensors(source: ByteSource, relative: readonly Tensor[], dataStart: number, alignment: number): Tensor[] {
  const tensors = relative.map((t) => ({ ...t, begin: dataStart + t.begin }));
  for (const [i, t] of tensors.entries()) {
    const offset = (relative[i] as Tensor).begin;
    if (offset % alignment !== 0) throw loadError(source, `tensor ${show(t.name)} must begin at a multiple of ${alignment} bytes, got offset ${offset}`);
    if (t.begin + t.bytes > source.size)
      throw loadError(source, `tensor ${show(t.name)} lies outside the file of ${source.size} bytes, got ${t.bytes} bytes from byte ${t.begin} on`);
  }
  tensors.sort((a, b) => a.begin - b.begin || a.bytes - b.bytes);
  let last: Tensor | undefined;
  for (const t of tensors) {
    if (last && t.begin < last.begin + last.bytes) throw loadError(source, `tensors ${show(last.name)} and ${show(t.name)} overlap`);
    if (t.bytes > 0) last = t;
  }
  return tensors;
}

function parseHeader(source: ByteSource): Header {
  const c = new Cursor(source);
  if (source.size < 24 || c.u32("the magic") !== magic)
    throw loadError(source, `a GGUF file begins with "GGUF" and has at least 24 bytes, got ${source.size} bytes of something else`);
  const version = c.u32("the version");
  if (version !== 2 && version !== 3) {
    const why = version > 0xffff ? "; the file is big-endian" : "";
    throw loadError(source, `only versions 2 and 3 of GGUF are supported, got ${version}${why}`);
  }
  const count = c.u64("the number of tensors");
  const keys = c.u64("the number of metadata keys");
  // A tensor's description has 24 bytes at least, a key and its value 13.
  if (count * 24 > c.left || keys * 13 > c.left) throw loadError(source, `the file is too short for ${count} tensors and ${keys} metadata keys, got ${source.size} bytes`);
  const metadata = readMetadata(source, c, keys);
  const alignment = alignmentOf(source, metadata);
  const tensors: Tensor[] = [];
  for (let i = 0; i < count; i++) tensors.push(readTensor(source, c));
  return { metadata, tensors: placeTensors(source, tensors, Math.ceil(c.at / alignment) * alignment, alignment) };
}

/** The arrays that a tensor becomes, by name. */
function plansOf({ name, type, shape }: Tensor): readonly (Plan & { readonly name: string })[] {
  if (!type.affine) return [{ name, shape, dtype: type.dtype ?? float16 }];
  const prefix = name.endsWith(".weight") ? name.slice(0, -".weight".length) : name;
  const last = shape[shape.length - 1] as number;
  const groups = [...shape.slice(0, -1), last / type.block];
  return [
    { name, shape: [...shape.slice(0, -1), (last * type.affine.bits) / 32], dtype: uint32 },
    { name: `${prefix}.scales`, shape: groups, dtype: float16 },
    { name: `${prefix}.biases`, shape: groups, dtype: float16 },
  ];
}

/** Bytes that are read at a time of tensors that are not copied as they are. */
const chunkBytes = 1 << 18;

function readBlocks(source: ByteSource, { begin, bytes, type }: Tensor, visit: (chunk: Uint8Array, blocks: number, first: number) => void): void {
  const step = Math.floor(chunkBytes / type.bytes) * type.bytes;
  for (let done = 0; done < bytes; done += step) {
    const chunk = new Uint8Array(Math.min(step, bytes - done));
    source.read(chunk, begin + done);
    visit(chunk, chunk.length / type.bytes, done / type.bytes);
  }
}
const halfWords = (d: ArrayDesc): Uint16Array => {
  const b = hostBytes(d);
  return new Uint16Array(b.buffer as ArrayBuffer, b.byteOffset, d.size);
};

function fillTensor(source: ByteSource, tensor: Tensor, descs: readonly ArrayDesc[]): void {
  const { affine: blocks, dequantize, block } = tensor.type;
  const first = descs[0] as ArrayDesc;
  if (blocks) {
    const [weights, scales, biases] = [hostBytes(first), halfWords(descs[1] as ArrayDesc), halfWords(descs[2] as ArrayDesc)];
    readBlocks(source, tensor, (chunk, n, start) => {
      for (let b = 0; b < n; b++) {
        const both = blocks.unpack(chunk, b, weights, (start + b) * 4 * blocks.bits);
        scales[start + b] = both & 0xffff;
        biases[start + b] = both >>> 16;
      }
    });
  } else if (dequantize) {
    const out = halfWords(first);
    const values = new Float32Array(block);
    readBlocks(source, tensor, (chunk, n, start) => {
      for (let b = 0; b < n; b++) {
        dequantize(chunk, b * tensor.type.bytes, values);
        for (let i = 0; i < block; i++) out[(start + b) * block + i] = halfBits(values[i] as number);
      }
    });
  } else fill(first, source, tensor.begin);
}

/** Fills arrays with metadata. float64 becomes float32, as in MLX. */
function fillValue(desc: ArrayDesc, { dtype, bytes }: Exclude<RawValue, string | string[]>): void {
  const to = hostBytes(desc);
  if (dtype === float64) new Float32Array(to.buffer as ArrayBuffer, to.byteOffset, desc.size).set(new Float64Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, desc.size));
  else to.set(dtype === bool ? bytes.map((x) => Number(x !== 0)) : bytes);
}

/** Arrays (and metadata, when wanted) of an open GGUF source: all or nothing. */
export function readGGUF(source: ByteSource, withMetadata: boolean): { arrays: Record<string, MxArray>; metadata: GGUFMetadata } {
  const { metadata, tensors } = parseHeader(source);
  const plans = tensors.map(plansOf);
  const names = new Set<string>();
  for (const { name } of plans.flat()) {
    if (names.has(name)) throw loadError(source, `two tensors become an array of the name ${show(name)}`);
    names.add(name);
  }
  const numbers = withMetadata
    ? [...metadata].flatMap(([key, v]) => (typeof v === "string" || Array.isArray(v) ? [] : [{ key, ...v, stored: v, dtype: v.dtype === float64 ? float32 : v.dtype }]))
    : [];
  const descs = allocateAll(source.name, [...plans.flat(), ...numbers]);
  let used = 0;
  const take = (n: number): ArrayDesc[] => descs.slice(used, (used += n));
  const arrays: [string, ArrayDesc][] = [];
  const values = new Map<string, ArrayDesc>();
  try {
    tensors.forEach((t, i) => {
      const own = plans[i] as readonly (Plan & { readonly name: string })[];
      const made = take(own.length);
      fillTensor(source, t, made);
      own.forEach(({ name }, k) => arrays.push([name, made[k] as ArrayDesc]));
    });
    for (const v of numbers) {
      const [desc] = take(1) as [ArrayDesc];
      fillValue(desc, v.stored);
      values.set(v.key, desc);
    }
  } catch (error) {
    releaseAll(descs);
    throw error;
  }
  const valueOf = (key: string, raw: RawValue): GGUFValue => (typeof raw === "string" || Array.isArray(raw) ? raw : new MxArray(values.get(key) as ArrayDesc));
  return {
    arrays: Object.fromEntries(arrays.map(([name, desc]) => [name, new MxArray(desc)])),
    metadata: withMetadata ? Object.fromEntries([...metadata].map(([key, raw]) => [key, valueOf(key, raw)])) : {},
  };
}

/**
 * Loads a GGUF file (a path, a URL, or its bytes): [arrays by name, metadata]. F32, F16, BF16, F64 and integer tensors keep their type. Q4_0, Q4_1 and Q8_0 become MLX's affine
 * quantization with groups of 32: `x.weight` (uint32), `x.scales` and `x.biases` (float16). Q5_0, Q5_1 and the K-quants Q2_K to Q6_K are dequantized to float16. Throws
 * `[load] <file>: ...` when the file is missing, truncated or malformed, or has another type; nothing stays allocated then.
 */
export function loadGGUF(file: FileLike): [Record<string, MxArray>, GGUFMetadata] {
  return withSource(file, (source) => {
    const { arrays, metadata } = readGGUF(source, true);
    return [arrays, metadata];
  });
}

const plainIds: ReadonlyMap<Dtype, number> = new Map([...tensorTypes].flatMap(([id, t]) => (t.dtype ? [[t.dtype, id] as const] : [])));

const u32Bytes = (x: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(x);
  return b;
};
const u64Bytes = (x: number): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(x));
  return b;
};
const stringBytes = (s: string): Buffer => {
  const text = Buffer.from(s);
  return Buffer.concat([u64Bytes(text.length), text]);
};

function valueBytes(key: string, value: unknown): Buffer {
  if (typeof value === "string") return Buffer.concat([u32Bytes(stringType), stringBytes(value)]);
  const list: unknown[] | undefined = Array.isArray(value) ? value : undefined;
  if (list?.some((v) => typeof v === "string")) {
    if (!list.every((v): v is string => typeof v === "string")) throw opError("saveGGUF", `a list of metadata must hold strings only or numbers only, got both for ${show(key)}`);
    return Buffer.concat([u32Bytes(arrayType), u32Bytes(stringType), u64Bytes(list.length), ...list.map(stringBytes)]);
  }
  const a = toArray(value as ArrayLike);
  const type = a.dtype === float64 ? -1 : valueDtypes.indexOf(a.dtype);
  if (type < 0) throw opError("saveGGUF", `metadata can not be of this type, got ${a.dtype} for ${show(key)}`);
  if (a.ndim > 1 || a.size === 0) throw opError("saveGGUF", `metadata arrays must have 0 or 1 dimensions and not be empty, got shape ${formatShape(a.shape)} for ${show(key)}`);
  const data = bytesOf(a);
  return Buffer.concat(a.ndim === 0 ? [u32Bytes(type), data] : [u32Bytes(arrayType), u32Bytes(type), u64Bytes(a.size), data]);
}

function saveAlignment(value: unknown): number {
  if (value === undefined) return defaultAlignment;
  const a = toArray(value as ArrayLike);
  const n = a.dtype === uint32 && a.ndim === 0 ? Buffer.from(bytesOf(a)).readUInt32LE() : 0;
  if (n === 0 || n % 8 !== 0 || n > 1 << 20) throw opError("saveGGUF", "general.alignment must be a 0-d uint32 array, a multiple of 8 up to 1048576");
  return n;
}

/**
 * Saves arrays by name as a GGUF file; `.gguf` is added to a path without it. Arrays are float32, float16, bfloat16, float64, int8, int16, int32 or int64. Metadata are strings,
 * lists of strings, and numbers, booleans or arrays with 0 or 1 dimensions (plain numbers are stored as float32). The file appears whole or not at all. Throws when a value
 * has another type or the file can not be written.
 */
export function saveGGUF(path: string, arrays: Record<string, MxArray>, metadata: Readonly<Record<string, string | readonly string[] | ArrayLike>> = {}): void {
  const list = Object.entries(arrays);
  const alignment = saveAlignment(metadata?.["general.alignment"]);
  const padding = (n: number): Buffer => Buffer.alloc(Math.ceil(n / alignment) * alignment - n);
  const keys = Object.entries(metadata ?? {});
  const head = [u32Bytes(magic), u32Bytes(3), u64Bytes(list.length), u64Bytes(keys.length), ...keys.flatMap(([key, value]) => [stringBytes(key), valueBytes(key, value)])];
  let offset = 0;
  for (const [name, a] of list) {
    if (!(a instanceof MxArray)) throw opError("saveGGUF", `${show(name)} must be an array, got ${typeof a}`);
    const id = plainIds.get(a.dtype);
    if (id === undefined) throw opError("saveGGUF", `arrays of this type can not be saved, got ${a.dtype} for ${show(name)}`);
    if (a.ndim > mostDimensions) throw opError("saveGGUF", `arrays may have at most ${mostDimensions} dimensions, got shape ${formatShape(a.shape)} for ${show(name)}`);
    head.push(stringBytes(name), u32Bytes(a.ndim), ...a.shape.reverse().map(u64Bytes), u32Bytes(id), u64Bytes(offset));
    offset = Math.ceil((offset + a.nbytes) / alignment) * alignment;
  }
  const start = Buffer.concat(head);
  writeFile("saveGGUF", withExtension(path, ".gguf"), (write) => {
    write(start);
    write(padding(start.length));
    for (const [, a] of list) {
      write(bytesOf(a));
      write(padding(a.nbytes));
    }
  });
}
