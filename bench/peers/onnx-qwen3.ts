/**
 * A Qwen3 decoder as an ONNX graph with random 4-bit weights, in the form that onnxruntime-genai's model builder makes (src/python/py/models/builders):
 * MatMulNBits, GroupQueryAttention with rotary positions, SkipSimplifiedLayerNormalization, a tied embedding through GatherBlockQuantized, and logits
 * of the last position only (its option prune_lm_head). Names of inputs and files are those that transformers.js expects.
 */
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ModelConfig, matrices, norms } from "../models/configs.ts";
import { cacheFolder, randomStream } from "../models/synthetic.ts";
import { type Attribute, type Graph, type Node, type Value, type Weight, WeightFile, encodeOnnx } from "./onnx.ts";

/** Weights that share a scale; a weight is (level - 8) * scale. */
const group = 32;
/** Positions of the rotary tables. */
const positions = 4096;
const groupsInPattern = 65_521;

export interface OnnxOptions {
  /** 4: MatMulNBits multiplies in int8, as the builder asks for on a CPU; 0: in float32. */
  readonly accuracy?: 0 | 4;
}

interface Pattern {
  readonly levels: Uint8Array;
  readonly scales: Float32Array;
}
const patterns = new Map<number, Pattern>();
/** Random groups for matrices of this many columns. */
function patternOf(columns: number): Pattern {
  const found = patterns.get(columns);
  if (found) return found;
  const random = randomStream(columns);
  const levels = Uint8Array.from({ length: (groupsInPattern * group) / 2 }, () => random() * 256);
  // Levels are uniform in 0 .. 15, so their variance is 255 / 12: this scale gives weights of deviation 1 / sqrt(columns).
  const scales = Float32Array.from({ length: groupsInPattern }, () => Math.sqrt(12 / 255 / columns) * (0.75 + random() / 2));
  const pattern = { levels, scales };
  patterns.set(columns, pattern);
  return pattern;
}
/** Matrices begin at different groups of the pattern, so that no two are equal. */
const firstGroup = (index: number): number => (index * 7919) % groupsInPattern;

/** The weights of the file as plain numbers, for references: matrices row by row, norms' gains. */
export function onnxWeights(c: ModelConfig): (name: string) => Float64Array {
  const all = new Map<string, Float64Array>(norms(c).map(([name, length]) => [name, new Float64Array(length).fill(1)]));
  for (const [index, [name, rows, columns]] of matrices(c).entries()) {
    const { levels, scales } = patternOf(columns);
    all.set(name, Float64Array.from({ length: rows * columns }, (_, i) => {
      const g = (firstGroup(index) + Math.floor(i / group)) % groupsInPattern;
      const byte = levels[(g * group + (i % group)) >> 1] as number;
      return ((i % 2 === 0 ? byte & 15 : byte >> 4) - 8) * (scales[g] as number);
    }));
  }
  return (name) => all.get(name) as Float64Array;
}

const bytesOf = (a: Float32Array | BigInt64Array | Int32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

/** Nodes and weights of a graph as it grows. */
class Builder {
  readonly nodes: Node[] = [];
  readonly weights: Weight[] = [];
  readonly config: ModelConfig;
  readonly #accuracy: number;
  readonly #sizes: ReadonlyMap<string, readonly [number, number]>;
  constructor(config: ModelConfig, accuracy: number) {
    this.config = config;
    this.#accuracy = accuracy;
    this.#sizes = new Map(matrices(config).map(([name, rows, columns]) => [name, [rows, columns]]));
  }
  add(op: string, inputs: readonly string[], output: string, attributes: Record<string, Attribute> = {}, more: readonly string[] = []): string {
    // SimplifiedLayerNormalization is onnxruntime's too, but lives in ONNX's own domain.
    const domain = ["MatMulNBits", "GroupQueryAttention", "SkipSimplifiedLayerNormalization", "GatherBlockQuantized"].includes(op) ? "com.microsoft" : "";
    this.nodes.push({ op, inputs, outputs: [output, ...more], domain, attributes });
    return output;
  }
  constant(name: string, values: readonly number[], shape: readonly number[] = [values.length]): string {
    this.weights.push({ name, type: "int64", shape, data: bytesOf(BigInt64Array.from(values, BigInt)) });
    return name;
  }
  /** x (batch, length, columns) times the transpose of a matrix (rows, columns). */
  product(x: string, matrix: string): string {
    const [rows, columns] = this.#sizes.get(matrix) as [number, number];
    return this.add("MatMulNBits", [x, `${matrix}.levels`, `${matrix}.scales`], `${matrix}.out`, {
      K: { i: columns }, N: { i: rows }, bits: { i: 4 }, block_size: { i: group }, accuracy_level: { i: this.#accuracy },
    });
  }
  norm(x: string, name: string): string {
    return this.add("SimplifiedLayerNormalization", [x, `${name}.weight`], `${name}.out`, { axis: { i: -1 }, epsilon: { f: this.config.rms_norm_eps }, stash_type: { i: 1 } });
  }
  /** Adds to the residual stream, then normalizes: [normalized, sum]. */
  skipNorm(x: string, residual: string, name: string): [string, string] {
    const sum = `${name}.sum`;
    return [this.add("SkipSimplifiedLayerNormalization", [residual, x, `${name}.weight`], `${name}.out`, { epsilon: { f: this.config.rms_norm_eps } }, ["", "", sum]), sum];
  }
  /** Norm of each head of (batch, length, heads * size). */
  headNorm(x: string, name: string, heads: number): string {
    const size = this.config.head_dim;
    const split = this.add("Reshape", [x, this.constant(`${name}.split`, [0, 0, heads, size])], `${name}.in`);
    return this.add("Reshape", [this.norm(split, name), this.constant(`${name}.join`, [0, 0, heads * size])], `${name}.joined`);
  }
}

/** Lengths from the attention mask, as GroupQueryAttention wants them. */
function lengths(b: Builder): void {
  const int32 = { to: { i: 6 } };
  const sum = b.add("ReduceSum", ["attention_mask", b.constant("one", [1])], "mask.sum", { keepdims: { i: 0 } });
  b.add("Cast", [b.add("Sub", [sum, "one"], "mask.last")], "seqlens_k", int32);
  const length = b.add("Gather", [b.add("Shape", ["attention_mask"], "mask.shape"), b.constant("second", [1], [])], "mask.length", { axis: { i: 0 } });
  b.add("Cast", [length], "total_length", int32);
}

function block(b: Builder, i: number, normed: string, residual: string, next: string): [string, string] {
  const { num_attention_heads: heads, num_key_value_heads: groups, head_dim } = b.config;
  const layer = `model.layers.${i}`;
  const self = `${layer}.self_attn`;
  const q = b.headNorm(b.product(normed, `${self}.q_proj`), `${self}.q_norm`, heads);
  const k = b.headNorm(b.product(normed, `${self}.k_proj`), `${self}.k_norm`, groups);
  const v = b.product(normed, `${self}.v_proj`);
  const past = `past_key_values.${i}`;
  const attended = b.add("GroupQueryAttention", [q, k, v, `${past}.key`, `${past}.value`, "seqlens_k", "total_length", "cos_cache", "sin_cache"], `${self}.out`, {
    num_heads: { i: heads }, kv_num_heads: { i: groups }, scale: { f: head_dim ** -0.5 }, do_rotary: { i: 1 }, rotary_interleaved: { i: 0 }, local_window_size: { i: -1 },
  }, [`present.${i}.key`, `present.${i}.value`]);
  const [inner, sum] = b.skipNorm(b.product(attended, `${self}.o_proj`), residual, `${layer}.post_attention_layernorm`);
  const gate = b.product(inner, `${layer}.mlp.gate_proj`);
  const silu = b.add("Mul", [gate, b.add("Sigmoid", [gate], `${layer}.sigmoid`)], `${layer}.silu`);
  const hidden = b.add("Mul", [silu, b.product(inner, `${layer}.mlp.up_proj`)], `${layer}.hidden`);
  return b.skipNorm(b.product(hidden, `${layer}.mlp.down_proj`), sum, next);
}

function rotaryTables(c: ModelConfig): Weight[] {
  const half = c.head_dim / 2;
  const table = (f: (x: number) => number): Uint8Array =>
    bytesOf(Float32Array.from({ length: positions * half }, (_, i) => f(Math.floor(i / half) * c.rope_theta ** (-(i % half) / half))));
  return [["cos_cache", Math.cos], ["sin_cache", Math.sin]].map(([name, f]) => ({ name: name as string, type: "float", shape: [positions, half], data: table(f as (x: number) => number) }));
}

function storedWeights(c: ModelConfig, file: WeightFile): Weight[] {
  const stored: Weight[] = norms(c).map(([name, length]) => ({ name: `${name}.weight`, type: "float", shape: [length], data: bytesOf(new Float32Array(length).fill(1)) }));
  for (const [index, [name, rows, columns]] of matrices(c).entries()) {
    const { levels, scales } = patternOf(columns);
    const groups = columns / group;
    const start = firstGroup(index);
    const data = file.repeat(levels, (start * group) / 2, (rows * columns) / 2);
    const factors = file.repeat(bytesOf(scales), start * 4, rows * groups * 4);
    stored.push({ name: `${name}.levels`, type: "uint8", shape: [rows, groups, group / 2], data }, { name: `${name}.scales`, type: "float", shape: [rows * groups], data: factors });
    // The embedding reads the same bytes under the shapes that its operator wants.
    if (name === "model.embed_tokens") stored.push({ name: "embedding.levels", type: "uint8", shape: [rows, columns / 2], data }, { name: "embedding.scales", type: "float", shape: [rows, groups], data: factors });
  }
  return stored;
}

/** The graph; its matrices are written to `file`. */
export function qwen3Graph(c: ModelConfig, file: WeightFile, { accuracy = 4 }: OnnxOptions = {}): Graph {
  const b = new Builder(c, accuracy);
  b.weights.push(...storedWeights(c, file), ...rotaryTables(c));
  lengths(b);
  let residual = b.add("GatherBlockQuantized", ["embedding.levels", "input_ids", "embedding.scales"], "embedded", { bits: { i: 4 }, block_size: { i: group }, gather_axis: { i: 0 }, quantize_axis: { i: 1 } });
  let normed = b.norm(residual, "model.layers.0.input_layernorm");
  for (let i = 0; i < c.num_hidden_layers; i++) {
    [normed, residual] = block(b, i, normed, residual, i + 1 < c.num_hidden_layers ? `model.layers.${i + 1}.input_layernorm` : "model.norm");
  }
  const last = b.add("Slice", [normed, b.constant("minus_one", [-1]), b.constant("end", [2 ** 31]), b.constant("axis", [1])], "last");
  const out = b.product(last, c.tie_word_embeddings ? "model.embed_tokens" : "lm_head");
  b.add("Identity", [out], "logits");
  const cache = (name: string, length: string): Value[] =>
    Array.from({ length: c.num_hidden_layers }, (_, i) => ["key", "value"].map((part): Value => ({ name: `${name}.${i}.${part}`, type: "float", shape: ["batch_size", c.num_key_value_heads, length, c.head_dim] }))).flat();
  return {
    nodes: b.nodes,
    weights: b.weights,
    inputs: [{ name: "input_ids", type: "int64", shape: ["batch_size", "sequence_length"] }, { name: "attention_mask", type: "int64", shape: ["batch_size", "total_sequence_length"] }, ...cache("past_key_values", "past_sequence_length")],
    outputs: [{ name: "logits", type: "float", shape: ["batch_size", 1, c.vocab_size] }, ...cache("present", "total_sequence_length")],
  };
}

/** Folder of a model as transformers.js loads it (config.json, onnx/model_q4.onnx and its data); written when it is not there. */
export function syntheticOnnx(name: string, c: ModelConfig, options: OnnxOptions = {}, folder = cacheFolder()): string {
  const target = join(folder, `${name}-onnx-q4${options.accuracy === 0 ? "-float32" : ""}`);
  if (existsSync(join(target, "config.json"))) return target;
  mkdirSync(join(target, "onnx"), { recursive: true });
  const data = "model_q4.onnx_data";
  const file = new WeightFile(join(target, "onnx", data));
  const graph = qwen3Graph(c, file, options);
  file.close();
  writeFileSync(join(target, "onnx", "model_q4.onnx"), encodeOnnx(graph, data));
  writeFileSync(join(target, "generation_config.json"), JSON.stringify({ eos_token_id: c.vocab_size - 1, do_sample: false }));
  // The config comes last and by renaming: a folder with a config is complete.
  const config = { ...c, architectures: ["Qwen3ForCausalLM"], "transformers.js_config": { dtype: "q4", use_external_data_format: true } };
  writeFileSync(join(target, "config.part"), JSON.stringify(config));
  renameSync(join(target, "config.part"), join(target, "config.json"));
  return target;
}
