/**
 * Writes ONNX files: a graph of nodes, and large weights in a file beside it. Format: onnx/onnx.proto3 (field numbers below), in protobuf's wire
 * format (https://protobuf.dev/programming-guides/encoding). Only what bench/peers and bench/ops need.
 */
import { closeSync, openSync, writeSync } from "node:fs";

/** Numbers of TensorProto.DataType. */
export const types = { float: 1, uint8: 2, int32: 6, int64: 7 } as const;
export type ElementType = keyof typeof types;
export type Attribute = { readonly i: number } | { readonly f: number } | { readonly ints: readonly number[] };
export interface Node {
  readonly op: string;
  /** Names; an empty one leaves an optional input out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** "" is ONNX itself, "com.microsoft" what onnxruntime adds. */
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, Attribute>>;
}
/** An input or output. A dimension with a name may change from call to call. */
export interface Value {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly (number | string)[];
}
export interface Weight {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  /** The bytes, or where they lie in the file beside. */
  readonly data: Uint8Array | { readonly offset: number; readonly length: number };
}
export interface Graph {
  readonly nodes: readonly Node[];
  readonly weights: readonly Weight[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** A message of protobuf. Each field is a number and its value. */
class Message {
  private readonly parts: Uint8Array[] = [];
  private varint(x: number): void {
    const bytes: number[] = [];
    // Negative numbers are written as 64 bits of two's complement.
    let left = BigInt.asUintN(64, BigInt(x));
    for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
    bytes.push(Number(left));
    this.parts.push(Uint8Array.from(bytes));
  }
  int(field: number, x: number): this {
    this.varint(field << 3);
    this.varint(x);
    return this;
  }
  float(field: number, x: number): this {
    this.varint((field << 3) | 5);
    this.parts.push(new Uint8Array(Float32Array.of(x).buffer));
    return this;
  }
  bytes(field: number, x: Uint8Array | string | Message): this {
    const data = typeof x === "string" ? new TextEncoder().encode(x) : x instanceof Message ? x.whole() : x;
    this.varint((field << 3) | 2);
    this.varint(data.length);
    this.parts.push(data);
    return this;
  }
  whole(): Uint8Array {
    return Buffer.concat(this.parts);
  }
}

function attribute(name: string, a: Attribute): Message {
  const m = new Message().bytes(1, name);
  if ("i" in a) return m.int(3, a.i).int(20, 2);
  if ("f" in a) return m.float(2, a.f).int(20, 1);
  for (const i of a.ints) m.int(8, i);
  return m.int(20, 7);
}
function node(n: Node): Message {
  const m = new Message();
  for (const name of n.inputs) m.bytes(1, name);
  for (const name of n.outputs) m.bytes(2, name);
  m.bytes(3, n.outputs[0] as string).bytes(4, n.op);
  for (const [name, a] of Object.entries(n.attributes ?? {})) m.bytes(5, attribute(name, a));
  return m.bytes(7, n.domain ?? "");
}
function weight(w: Weight, file: string): Message {
  const m = new Message();
  for (const d of w.shape) m.int(1, d);
  m.int(2, types[w.type]).bytes(8, w.name);
  if (w.data instanceof Uint8Array) return m.bytes(9, w.data);
  for (const [key, value] of [["location", file], ["offset", String(w.data.offset)], ["length", String(w.data.length)]] as const) {
    m.bytes(13, new Message().bytes(1, key).bytes(2, value));
  }
  return m.int(14, 1);
}
function value(v: Value): Message {
  const shape = new Message();
  for (const d of v.shape) shape.bytes(1, typeof d === "number" ? new Message().int(1, d) : new Message().bytes(2, d));
  const tensor = new Message().int(1, types[v.type]).bytes(2, shape);
  return new Message().bytes(1, v.name).bytes(2, new Message().bytes(1, tensor));
}

/** The bytes of a model. @param file name of the file beside it that holds weights */
export function encodeOnnx(graph: Graph, file = ""): Uint8Array {
  const g = new Message();
  for (const n of graph.nodes) g.bytes(1, node(n));
  g.bytes(2, "graph");
  for (const w of graph.weights) g.bytes(5, weight(w, file));
  for (const v of graph.inputs) g.bytes(11, value(v));
  for (const v of graph.outputs) g.bytes(12, value(v));
  const opset = (domain: string, version: number): Message => new Message().bytes(1, domain).int(2, version);
  return new Message().int(1, 10).bytes(2, "mlx-vk bench").bytes(7, g).bytes(8, opset("", 21)).bytes(8, opset("com.microsoft", 1)).whole();
}

/** Large weights, one after another in a file. They may be memory-mapped, so each begins a page. */
export class WeightFile {
  private readonly fd: number;
  private at = 0;
  constructor(path: string) {
    this.fd = openSync(path, "w");
  }
  /** Writes a pattern again and again, beginning at byte `start` of it, until there are `length` bytes; gives their place. */
  repeat(pattern: Uint8Array, start: number, length: number): { offset: number; length: number } {
    const offset = Math.ceil(this.at / 4096) * 4096;
    let from = start;
    for (let done = 0; done < length; from = 0) {
      const part = pattern.subarray(from, from + Math.min(pattern.length - from, length - done));
      writeSync(this.fd, part, 0, part.length, offset + done);
      done += part.length;
    }
    this.at = offset + length;
    return { offset, length };
  }
  close(): void {
    closeSync(this.fd);
  }
}

