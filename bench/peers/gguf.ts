/**
 * Writes GGUF files with random weights, for llama.cpp: the same Qwen3 configurations as bench/models. Format: ggml's docs/gguf.md, version 3.
 * Block formats (32 weights each): Q4_0 = f16 scale, 16 bytes of nibbles; Q4_1 = f16 scale, f16 minimum, 16 bytes of nibbles.
 */
import { closeSync, existsSync, openSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fromFloat16Bits, toFloat16Bits } from "../../src/core/dtype.ts";
import { type ModelConfig, matrices, norms } from "../models/configs.ts";
import { cacheFolder, randomStream } from "../models/synthetic.ts";

export type GgufType = "Q4_0" | "Q4_1";
/** Number of the type in ggml, bytes of a block of 32 weights, number of the file type. */
const blockTypes = { Q4_0: { id: 2, bytes: 18, fileType: 2 }, Q4_1: { id: 3, bytes: 20, fileType: 3 } } as const;
const float32 = 0;
const alignment = 32;
/** Value types of metadata. */
const kinds = { u32: 4, i32: 5, f32: 6, string: 8, array: 9 } as const;

export type GgufValue =
  | { readonly u32: number } | { readonly f32: number } | { readonly string: string } | { readonly strings: readonly string[] } | { readonly i32s: readonly number[] };

/** Collects little-endian bytes. */
class Bytes {
  private readonly parts: Buffer[] = [];
  private put(size: number, write: (b: Buffer) => void): void {
    const b = Buffer.alloc(size);
    write(b);
    this.parts.push(b);
  }
  u32(x: number): void {
    this.put(4, (b) => b.writeUInt32LE(x));
  }
  u64(x: number): void {
    this.put(8, (b) => b.writeBigUInt64LE(BigInt(x)));
  }
  f32(x: number): void {
    this.put(4, (b) => b.writeFloatLE(x));
  }
  string(text: string): void {
    const b = Buffer.from(text);
    this.u64(b.length);
    this.parts.push(b);
  }
  value(v: GgufValue): void {
    if ("u32" in v) {
      this.u32(kinds.u32);
      this.u32(v.u32);
    } else if ("f32" in v) {
      this.u32(kinds.f32);
      this.f32(v.f32);
    } else if ("string" in v) {
      this.u32(kinds.string);
      this.string(v.string);
    } else {
      const items = "strings" in v ? v.strings : v.i32s;
      this.u32(kinds.array);
      this.u32("strings" in v ? kinds.string : kinds.i32);
      this.u64(items.length);
      for (const x of items) typeof x === "string" ? this.string(x) : this.u32(x);
    }
  }
  whole(): Buffer {
    return Buffer.concat(this.parts);
  }
}

/** The 256 characters that stand for bytes in GPT-2's tokenizer. */
function byteCharacters(): string[] {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
}

/** A vocabulary of this size: the characters of ASCII, then numbered words. So every token is text, and every text of a token tells which one it is. */
const vocabulary = (size: number): string[] => {
  const bytes = byteCharacters().slice(0, 128);
  return Array.from({ length: size }, (_, i) => bytes[i] ?? `w${i}`);
};

export function metadataOf(name: string, c: ModelConfig, type: GgufType): Record<string, GgufValue> {
  const arch = c.model_type;
  return {
    "general.architecture": { string: arch },
    "general.name": { string: `${name} ${type}, random weights` },
    "general.alignment": { u32: alignment },
    "general.file_type": { u32: blockTypes[type].fileType },
    [`${arch}.context_length`]: { u32: c.max_position_embeddings },
    [`${arch}.embedding_length`]: { u32: c.hidden_size },
    [`${arch}.block_count`]: { u32: c.num_hidden_layers },
    [`${arch}.feed_forward_length`]: { u32: c.intermediate_size },
    [`${arch}.attention.head_count`]: { u32: c.num_attention_heads },
    [`${arch}.attention.head_count_kv`]: { u32: c.num_key_value_heads },
    [`${arch}.attention.key_length`]: { u32: c.head_dim },
    [`${arch}.attention.value_length`]: { u32: c.head_dim },
    [`${arch}.attention.layer_norm_rms_epsilon`]: { f32: c.rms_norm_eps },
    [`${arch}.rope.freq_base`]: { f32: c.rope_theta },
    "tokenizer.ggml.model": { string: "gpt2" },
    "tokenizer.ggml.pre": { string: "qwen2" },
    "tokenizer.ggml.tokens": { strings: vocabulary(c.vocab_size) },
    "tokenizer.ggml.token_type": { i32s: new Array<number>(c.vocab_size).fill(1) },
    "tokenizer.ggml.merges": { strings: ["a b"] },
    "tokenizer.ggml.eos_token_id": { u32: c.vocab_size - 1 },
  };
}

const renamed: readonly (readonly [RegExp, string])[] = [
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj$/, "blk.$1.attn_$2"],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj$/, "blk.$1.attn_output"],
  [/^model\.layers\.(\d+)\.self_attn\.([qk])_norm$/, "blk.$1.attn_$2_norm"],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj$/, "blk.$1.ffn_$2"],
  [/^model\.layers\.(\d+)\.input_layernorm$/, "blk.$1.attn_norm"],
  [/^model\.layers\.(\d+)\.post_attention_layernorm$/, "blk.$1.ffn_norm"],
  [/^model\.embed_tokens$/, "token_embd"],
  [/^model\.norm$/, "output_norm"],
  [/^lm_head$/, "output"],
];
/** llama.cpp's name of a weight. */
export function ggufName(name: string): string {
  for (const [from, to] of renamed) if (from.test(name)) return `${name.replace(from, to)}.weight`;
  throw new Error(`no GGUF name for ${name}`);
}

interface Tensor {
  readonly name: string;
  /** Innermost dimension first, as GGUF has it. */
  readonly dims: readonly number[];
  readonly type: number;
  readonly bytes: number;
  /** Bytes that are written again and again, and the one to begin with. */
  readonly pattern: Buffer;
  readonly start: number;
}

/** Random blocks: more than a prime number of them would add nothing, since no row has that many. */
const blocksInPattern = 65_521;
function blocks(type: GgufType, columns: number): Buffer {
  const { bytes } = blockTypes[type];
  const random = randomStream(columns);
  const out = Buffer.alloc(blocksInPattern * bytes);
  for (let i = 0; i < out.length; i += 4) out.writeUInt32LE(random() * 2 ** 32, Math.min(i, out.length - 4));
  // Levels are uniform in 0 .. 15, so their variance is 255 / 12: this scale gives weights of deviation 1 / sqrt(columns).
  const scale = Math.sqrt(12 / 255 / columns);
  for (let i = 0; i < out.length; i += bytes) {
    const d = scale * (0.75 + random() / 2);
    out.writeUInt16LE(toFloat16Bits(d), i);
    if (type === "Q4_1") out.writeUInt16LE(toFloat16Bits(-7.5 * d), i + 2);
  }
  return out;
}

/** Matrices begin at different blocks of the pattern, so that no two are equal. */
const firstBlock = (index: number): number => (index * 7919) % blocksInPattern;

/** The weights of the file as plain numbers, for references: matrices row by row, norms' gains. */
export function ggufWeights(c: ModelConfig, type: GgufType): (name: string) => Float64Array {
  const all = new Map<string, Float64Array>(norms(c).map(([name, length]) => [name, new Float64Array(length).fill(1)]));
  const { bytes } = blockTypes[type];
  for (const [index, [name, rows, columns]] of matrices(c).entries()) {
    const pattern = blocks(type, columns);
    all.set(name, Float64Array.from({ length: rows * columns }, (_, i) => {
      const at = ((firstBlock(index) + Math.floor(i / 32)) % blocksInPattern) * bytes;
      const scale = fromFloat16Bits(pattern.readUInt16LE(at));
      // The low halves of a block's bytes are its first 16 weights, the high halves the others.
      const byte = pattern[at + bytes - 16 + (i % 16)] as number;
      const level = i % 32 < 16 ? byte & 15 : byte >> 4;
      return type === "Q4_0" ? (level - 8) * scale : level * scale + fromFloat16Bits(pattern.readUInt16LE(at + 2));
    }));
  }
  return (name) => all.get(name) as Float64Array;
}

function tensorsOf(c: ModelConfig, type: GgufType): Tensor[] {
  const patterns = new Map<number, Buffer>();
  const tensors: Tensor[] = [];
  for (const [index, [name, rows, columns]] of matrices(c).entries()) {
    const pattern = patterns.get(columns) ?? blocks(type, columns);
    patterns.set(columns, pattern);
    const { id, bytes } = blockTypes[type];
    tensors.push({ name: ggufName(name), dims: [columns, rows], type: id, bytes: ((rows * columns) / 32) * bytes, pattern, start: firstBlock(index) * bytes });
  }
  for (const [name, length] of norms(c)) {
    const ones = Buffer.from(new Float32Array(length).fill(1).buffer);
    tensors.push({ name: ggufName(name), dims: [length], type: float32, bytes: ones.length, pattern: ones, start: 0 });
  }
  return tensors;
}

const aligned = (n: number): number => Math.ceil(n / alignment) * alignment;

/** Path of the GGUF file of a configuration; written when it is not there. */
export function syntheticGguf(name: string, c: ModelConfig, type: GgufType, folder = cacheFolder()): string {
  const path = join(folder, `${name}-${type}.gguf`);
  if (existsSync(path)) return path;
  const tensors = tensorsOf(c, type);
  const metadata = Object.entries(metadataOf(name, c, type));
  const head = new Bytes();
  head.u32(0x46554747);
  head.u32(3);
  head.u64(tensors.length);
  head.u64(metadata.length);
  for (const [key, value] of metadata) {
    head.string(key);
    head.value(value);
  }
  let at = 0;
  for (const t of tensors) {
    head.string(t.name);
    head.u32(t.dims.length);
    for (const d of t.dims) head.u64(d);
    head.u32(t.type);
    head.u64(at);
    at = aligned(at + t.bytes);
  }
  const start = head.whole();
  const fd = openSync(`${path}.part`, "w");
  try {
    writeSync(fd, Buffer.concat([start, Buffer.alloc(aligned(start.length) - start.length)]));
    for (const t of tensors) {
      for (let left = t.bytes, from = t.start; left > 0; from = 0) left -= writeSync(fd, t.pattern.subarray(from, Math.min(from + left, t.pattern.length)));
      writeSync(fd, Buffer.alloc(aligned(t.bytes) - t.bytes));
    }
  } finally {
    closeSync(fd);
  }
  renameSync(`${path}.part`, path);
  return path;
}
