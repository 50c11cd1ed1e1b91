/** The part of the ZIP format that .npz files use: stored and deflated entries; ZIP64 when reading. Format: PKWARE's APPNOTE 6.3. */
import { crc32, deflateRawSync, inflateRawSync } from "node:zlib";
import { opError } from "../core/error.ts";
import { type ByteSource, loadError, memorySource, sliceSource } from "./source.ts";

const endSignature = 0x06054b50;
const end64Signature = 0x06064b50;
const locator64Signature = 0x07064b50;
const centralSignature = 0x02014b50;
const localSignature = 0x04034b50;
const all32 = 0xffffffff;

export interface ZipEntry {
  readonly name: string;
  /** 0: stored, 8: deflated. */
  readonly method: number;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  /** Position of the local header. */
  readonly local: number;
}

function view(source: ByteSource, position: number, length: number): DataView {
  const bytes = new Uint8Array(length);
  source.read(bytes, position);
  return new DataView(bytes.buffer);
}

interface Directory {
  readonly count: number;
  readonly start: number;
  readonly length: number;
}

function readDirectory(source: ByteSource): Directory {
  // The end record may be followed by a comment of up to 65535 bytes.
  const length = Math.min(source.size, 22 + 65535);
  const from = source.size - length;
  const tail = length >= 22 ? view(source, from, length) : undefined;
  let at = length - 22;
  while (tail && at >= 0 && tail.getUint32(at, true) !== endSignature) at--;
  if (!tail || at < 0) throw loadError(source, "it is not a zip file: it has no end record");
  const plain = { count: tail.getUint16(at + 10, true), length: tail.getUint32(at + 12, true), start: tail.getUint32(at + 16, true) };
  const directory = readDirectory64(source, from + at) ?? plain;
  if (directory.start + directory.length > source.size) throw loadError(source, "the zip directory lies outside the file");
  return directory;
}

function readDirectory64(source: ByteSource, end: number): Directory | undefined {
  if (end < 20) return undefined;
  const locator = view(source, end - 20, 20);
  if (locator.getUint32(0, true) !== locator64Signature) return undefined;
  const at = Number(locator.getBigUint64(8, true));
  if (at + 56 > source.size) throw loadError(source, "the zip64 end record lies outside the file");
  const record = view(source, at, 56);
  if (record.getUint32(0, true) !== end64Signature) throw loadError(source, "the zip64 end record is damaged");
  return { count: Number(record.getBigUint64(32, true)), length: Number(record.getBigUint64(40, true)), start: Number(record.getBigUint64(48, true)) };
}

/** The 64-bit values of an entry whose 32-bit fields are all ones, in the order in which the format stores them. */
function wideFields(d: DataView, from: number, to: number): bigint[] {
  for (let at = from; at + 4 <= to; ) {
    const length = d.getUint16(at + 2, true);
    if (d.getUint16(at, true) === 1) {
      const fields: bigint[] = [];
      for (let i = at + 4; i + 8 <= Math.min(to, at + 4 + length); i += 8) fields.push(d.getBigUint64(i, true));
      return fields;
    }
    at += 4 + length;
  }
  return [];
}

/** Entries of a zip file, checked to lie inside it. */
export function readEntries(source: ByteSource): ZipEntry[] {
  const { count, start, length } = readDirectory(source);
  const d = view(source, start, length);
  const entries: ZipEntry[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > length || d.getUint32(at, true) !== centralSignature) throw loadError(source, `the zip directory is damaged at entry ${i} of ${count}`);
    const nameLength = d.getUint16(at + 28, true);
    const next = at + 46 + nameLength + d.getUint16(at + 30, true) + d.getUint16(at + 32, true);
    if (next > length) throw loadError(source, `the zip directory is damaged at entry ${i} of ${count}`);
    const name = new TextDecoder().decode(new Uint8Array(d.buffer, at + 46, nameLength));
    if (d.getUint16(at + 8, true) & 1) throw loadError(source, `entry ${JSON.stringify(name)} is encrypted`);
    const wide = wideFields(d, at + 46 + nameLength, at + 46 + nameLength + d.getUint16(at + 30, true));
    const number = (offset: number): number => {
      const value = d.getUint32(at + offset, true);
      return value === all32 && wide.length > 0 ? Number(wide.shift()) : value;
    };
    const size = number(24);
    const packed = number(20);
    const local = number(42);
    if (local + 30 + packed > source.size) throw loadError(source, `entry ${JSON.stringify(name)} lies outside the file`);
    entries.push({ name, method: d.getUint16(at + 10, true), crc: d.getUint32(at + 16, true), packed, size, local });
    at = next;
  }
  return entries;
}

/** The unpacked bytes of an entry: in place for stored ones. Deflated bytes are checked against the CRC here, stored ones in `checkStored`. */
export function openEntry(source: ByteSource, e: ZipEntry): ByteSource {
  const what = `entry ${JSON.stringify(e.name)}`;
  const header = view(source, e.local, 30);
  if (header.getUint32(0, true) !== localSignature) throw loadError(source, `${what} is damaged`);
  const start = e.local + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + e.packed > source.size) throw loadError(source, `${what} lies outside the file`);
  if (e.method === 0) {
    if (e.packed !== e.size) throw loadError(source, `${what} is stored but its sizes differ, got ${e.packed} and ${e.size}`);
    const part = sliceSource(source, e.name, start, e.size);
    checkStored(part, e.crc);
    return part;
  }
  if (e.method !== 8) throw loadError(source, `${what} must be stored or deflated, got compression method ${e.method}`);
  const packed = new Uint8Array(e.packed);
  source.read(packed, start);
  let bytes: Uint8Array;
  try {
    bytes = inflateRawSync(packed, { maxOutputLength: Math.max(1, e.size) });
  } catch (error) {
    throw loadError(source, `${what} can not be unpacked: ${(error as Error).message}`);
  }
  if (bytes.length !== e.size || crc32(bytes) !== e.crc) throw loadError(source, `${what} is damaged: its size or checksum is wrong`);
  return memorySource(bytes, source, e.name);
}

function checkStored(part: ByteSource, expected: number): void {
  const block = new Uint8Array(Math.min(part.size, 1 << 20));
  let crc = 0;
  for (let at = 0; at < part.size; at += block.length) {
    const bytes = block.subarray(0, Math.min(block.length, part.size - at));
    part.read(bytes, at);
    crc = crc32(bytes, crc);
  }
  if (crc !== expected) throw loadError(part, "the data is damaged: its checksum is wrong");
}

/** Date of every entry written, so that equal arrays give equal files: 1 January 1980, the first date the format knows. */
const dosDate = (1 << 5) | 1;

function entryHeader(central: boolean, e: ZipEntry, name: Uint8Array): Uint8Array {
  const out = new Uint8Array((central ? 46 : 30) + name.length);
  const d = new DataView(out.buffer);
  d.setUint32(0, central ? centralSignature : localSignature, true);
  if (central) d.setUint16(4, 20, true);
  const at = central ? 6 : 4;
  d.setUint16(at, 20, true);
  d.setUint16(at + 2, 0x0800, true);
  d.setUint16(at + 4, e.method, true);
  d.setUint16(at + 8, dosDate, true);
  d.setUint32(at + 10, e.crc, true);
  d.setUint32(at + 14, e.packed, true);
  d.setUint32(at + 18, e.size, true);
  d.setUint16(at + 22, name.length, true);
  if (central) d.setUint32(42, e.local, true);
  out.set(name, central ? 46 : 30);
  return out;
}

/** Writes entries one by one, then the directory. */
export class ZipWriter {
  private readonly entries: { readonly entry: ZipEntry; readonly name: Uint8Array }[] = [];
  private at = 0;
  private readonly sink: (bytes: Uint8Array) => void;
  private readonly op: string;
  constructor(op: string, sink: (bytes: Uint8Array) => void) {
    this.op = op;
    this.sink = sink;
  }
  private write(bytes: Uint8Array): void {
    this.at += bytes.length;
    if (this.at >= all32) throw opError(this.op, "a zip file of 4 GiB or more is not written; use saveSafetensors");
    this.sink(bytes);
  }
  add(name: string, parts: readonly Uint8Array[], deflate: boolean): void {
    const size = parts.reduce((n, p) => n + p.length, 0);
    const crc = parts.reduce((c, p) => crc32(p, c), 0);
    const data = deflate ? [deflateRawSync(Buffer.concat(parts))] : parts;
    const packed = data.reduce((n, p) => n + p.length, 0);
    const entry = { name, method: deflate ? 8 : 0, crc, packed, size, local: this.at };
    const nameBytes = new TextEncoder().encode(name);
    if (nameBytes.length > 65535) throw opError(this.op, `a name may have at most 65535 bytes, got ${nameBytes.length}`);
    this.write(entryHeader(false, entry, nameBytes));
    for (const p of data) this.write(p);
    this.entries.push({ entry, name: nameBytes });
  }
  end(): void {
    const count = this.entries.length;
    if (count >= 65535) throw opError(this.op, `a zip file holds fewer than 65535 arrays here, got ${count}; use saveSafetensors`);
    const start = this.at;
    for (const { entry, name } of this.entries) this.write(entryHeader(true, entry, name));
    const d = new DataView(new ArrayBuffer(22));
    d.setUint32(0, endSignature, true);
    d.setUint16(8, count, true);
    d.setUint16(10, count, true);
    d.setUint32(12, this.at - start, true);
    d.setUint32(16, start, true);
    this.write(new Uint8Array(d.buffer));
  }
}
