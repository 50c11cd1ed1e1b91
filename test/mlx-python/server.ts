/**
 * The JavaScript side of the Python bridge: serves calls of the library's functions on two pipes, one request after the other. Arrays and other objects stay
 * here and go over the pipe as numbers. A Python function that is passed as an argument is called back on the same pipes while the call that got it is open.
 *
 * A message is two uint32 (lengths), JSON text, and bytes that the JSON refers to.
 */
import { readSync, writeSync } from "node:fs";

const [inFd, outFd, firstId, library = "../../src/index.ts"] = process.argv.slice(2) as [string, string, string, string?];
const { core, utils } = (await import(library)) as { core: Record<string, never>; utils: unknown };
const mx = core as Record<string, never> & { array: new (value: unknown) => Arr; Dtype: new () => object; Slice: (...s: unknown[]) => unknown; Complex: (re: number, im: number) => unknown };
void utils;

interface Arr {
  readonly shape: number[];
  readonly dtype: { toString(): string };
  readonly size: number;
  dispose(): void;
}
type Json = null | boolean | number | string | Json[] | { [tag: string]: Json };
/** What a callback threw in Python: passes through the library unchanged. */
class PythonError extends Error {
  readonly id: number;
  constructor(id: number, message: string) {
    super(message);
    this.id = id;
  }
}

const objects = new Map<number, unknown>();
let lastId = Number(firstId);
const keep = (value: unknown): number => {
  objects.set(++lastId, value);
  return lastId;
};
let freed: number[] = [];
const unused = new FinalizationRegistry<number>((id) => freed.push(id));
/** One JavaScript function for each Python function that is in use here, so that the library can tell them apart. */
const functions = new Map<number, WeakRef<(...args: unknown[]) => unknown>>();

// --- the pipe ---

function readExactly(n: number): Buffer {
  const buffer = Buffer.allocUnsafe(n);
  for (let at = 0; at < n; ) {
    const got = readSync(Number(inFd), buffer, at, n - at, null);
    if (got === 0) process.exit(0);
    at += got;
  }
  return buffer;
}
function writeAll(buffer: Uint8Array): void {
  for (let at = 0; at < buffer.length; ) at += writeSync(Number(outFd), buffer, at);
}
interface Message {
  readonly json: { [key: string]: Json };
  readonly bytes: Buffer;
}
function receive(): Message {
  const head = readExactly(8);
  const json = JSON.parse(readExactly(head.readUInt32LE(0)).toString("utf8")) as Message["json"];
  return { json, bytes: readExactly(head.readUInt32LE(4)) };
}
function send(message: object, blobs: Uint8Array[] = []): void {
  const text = Buffer.from(JSON.stringify(freed.length > 0 ? { ...message, freed } : message), "utf8");
  freed = [];
  const head = Buffer.alloc(8);
  head.writeUInt32LE(text.length, 0);
  head.writeUInt32LE(blobs.reduce((n, b) => n + b.length, 0), 4);
  writeAll(head);
  writeAll(text);
  for (const b of blobs) writeAll(b);
}

// --- values ---

const numbers: Record<string, number> = { nan: Number.NaN, inf: Number.POSITIVE_INFINITY, "-inf": Number.NEGATIVE_INFINITY };
const typed: Record<string, new (buffer: ArrayBuffer) => unknown> = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array,
};

/** A value from Python. Objects of one key are tags. With `copies`, arrays get a handle of their own: Python may release its one at once. */
function decode(v: Json, bytes: Buffer, copies = false): unknown {
  if (v === null || typeof v !== "object") return v;
  if (Array.isArray(v)) return v.map((x) => decode(x, bytes, copies));
  const [tag, x] = Object.entries(v)[0] as [string, never];
  switch (tag) {
    case "undefined": return undefined;
    case "number": return numbers[x];
    case "big": return BigInt(x);
    case "constant": return core[x];
    case "object": {
      const value = objects.get(x);
      return copies && isArray(value) ? new mx.array(value) : value;
    }
    case "function": return functionOf(x);
    case "slice": return mx.Slice(...(x as unknown[]));
    case "complex": return mx.Complex(x[0], x[1]);
    case "map": return Object.fromEntries((x as [string, Json][]).map(([k, value]) => [k, decode(value, bytes, copies)]));
    case "bytes": {
      const part = Uint8Array.prototype.slice.call(bytes, x[0], x[0] + x[1]);
      return new (typed[x[2]] as (typeof typed)[string])(part.buffer as ArrayBuffer);
    }
    default: throw new Error(`unknown tag ${tag}`);
  }
}
const isArray = (v: unknown): v is Arr => v instanceof mx.array;

/** Handles that Python will release. */
const lent = new WeakSet<Arr>();
function lend(a: Arr, copy: boolean): number {
  const handle = copy || lent.has(a) ? (new mx.array(a) as unknown as Arr) : a;
  lent.add(handle);
  return keep(handle);
}

/** A value for Python. With `copies`, arrays get a handle of their own: what Python releases stays open here. */
function encode(v: unknown, copies: boolean): Json {
  if (v === undefined || v === null) return null;
  switch (typeof v) {
    case "number": return Number.isFinite(v) ? v : { number: Number.isNaN(v) ? "nan" : v > 0 ? "inf" : "-inf" };
    case "boolean":
    case "string": return v;
    case "bigint": return { big: String(v) };
    case "function": return { object: keep(v) };
    case "object": break;
    default: throw new Error(`can not send a ${typeof v}`);
  }
  if (isArray(v)) return { array: [lend(v, copies), String(v.dtype), [...(v as unknown as { desc: { shape: readonly number[] } }).desc.shape]] };
  if (v instanceof mx.Dtype) return { dtype: String(v) };
  if (Array.isArray(v)) return v.map((x) => encode(x, copies));
  if (Object.getPrototypeOf(v) === Object.prototype && Object.getOwnPropertySymbols(v).length === 0 && Object.values(v).every((x) => typeof x !== "function")) return { map: Object.entries(v).map(([k, x]) => [k, encode(x, copies)]) };
  const device = v as { type?: string; index?: number; device?: { type: string; index: number } };
  if (device.device) return { stream: [keep(v), device.device.type, device.index ?? 0] };
  if (device.type && "index" in device) return { device: [device.type, device.index ?? 0] };
  return { object: keep(v) };
}

/** The JavaScript function for a Python function. */
function functionOf(id: number): (...args: unknown[]) => unknown {
  const known = functions.get(id)?.deref();
  if (known) return known;
  const f = (...args: unknown[]): unknown => {
    send({ callback: id, args: encode(args, true) });
    for (;;) {
      const m = receive();
      if ("returned" in m.json) {
        release(m.json);
        return decode(m.json.returned as Json, m.bytes, true);
      }
      if ("raised" in m.json) {
        release(m.json);
        const [exception, message] = m.json.raised as [number, string];
        throw new PythonError(exception, message);
      }
      serve(m);
    }
  };
  functions.set(id, new WeakRef(f));
  unused.register(f, id);
  return f;
}

// --- requests ---

function release(json: Message["json"]): void {
  for (const id of (json.release ?? []) as number[]) {
    const value = objects.get(id);
    objects.delete(id);
    if (isArray(value)) value.dispose();
  }
}
function place(path: string): { self: Record<string, unknown> | undefined; name: string } {
  const parts = path.split(".");
  const name = parts.pop() as string;
  return { self: parts.reduce<Record<string, unknown> | undefined>((o, p) => o?.[p] as Record<string, unknown> | undefined, core), name };
}
function callNamed(path: string, args: readonly unknown[]): unknown {
  const { self, name } = place(path);
  const f = self?.[name];
  if (typeof f !== "function") throw new Error(`the library has no function ${path}`);
  return f.apply(self, args);
}
/** Bits of an array in row-major order, read as a typed array of unsigned integers. */
function bitsOf(a: Arr): Uint8Array {
  const bits = { 1: "uint8", 2: "uint16", 4: "uint32", 8: "uint32" } as const;
  const size = (a.dtype as unknown as { size: 1 | 2 | 4 | 8 }).size;
  // biome-ignore lint/suspicious/noExplicitAny: methods of the library under test
  const flat = (a as any).reshape([-1]);
  const viewed = flat.view(core[bits[size]]);
  const values = viewed.toTypedArray() as Uint8Array;
  flat.dispose();
  viewed.dispose();
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function serve({ json, bytes }: Message): void {
  release(json);
  try {
    const args = decode(json.args ?? [], bytes) as unknown[];
    if (json.op === "bits") {
      const data = bitsOf(args[0] as Arr);
      send({ value: data.length }, [data]);
      return;
    }
    let value: unknown;
    if (json.op === "call") value = callNamed(json.name as string, args);
    else if (json.op === "get" || json.op === "set") {
      const { self, name } = place(json.name as string);
      if (!self) throw new Error(`the library has no ${json.name}`);
      if (json.op === "set") self[name] = args[0];
      else value = Array.isArray(self[name]) ? [...self[name]] : self[name];
    } else if (json.op === "method") {
      const name = json.name === "dispose" ? Symbol.dispose : (json.name as string);
      value = (args[0] as Record<string | symbol, (...a: unknown[]) => unknown>)[name]?.(...args.slice(1));
    } else if (json.op === "new") value = new (core[json.name as string] as unknown as new (...a: unknown[]) => unknown)(...args);
    else if (json.op === "apply") value = (args[0] as (...a: unknown[]) => unknown)(...args.slice(1));
    else throw new Error(`unknown request ${json.op}`);
    // A promise (asyncEval) is not waited for; its error would end the process.
    if (value instanceof Promise) value = void value.catch(() => undefined);
    send({ value: encode(value, false) });
  } catch (error) {
    const e = error as Error;
    send(e instanceof PythonError ? { python: e.id } : { error: [e?.name ?? "", e?.message ?? String(e), process.env.MLX_BRIDGE_STACK ? (e?.stack ?? "") : ""] });
  }
}

for (let count = 1; ; count++) {
  serve(receive());
  // Lets finalizers and settled promises run.
  if (count % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
}
