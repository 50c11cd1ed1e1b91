/** The model in plain float64: what every library's answer is compared with before it is timed. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fromBfloat16Bits } from "../../src/core/dtype.ts";
import { type ModelConfig, matrices, norms } from "../models/configs.ts";

/** Matrices (out, in) row by row and gains, by their names in the checkpoint without ".weight". */
export type Weights = (name: string) => Float64Array;
type Rows = Float64Array[];

/** The weights of a checkpoint of bench/models with 4 bits, as plain numbers: level * scale + bias, 8 levels in a word, lowest bits first. */
export function checkpointWeights(folder: string, c: ModelConfig): Weights {
  const file = readFileSync(join(folder, "model.safetensors"));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start)) as Record<string, { data_offsets: [number, number] }>;
  const bytes = (name: string): Buffer => file.subarray(...((header[name]?.data_offsets ?? [0, 0]).map((at) => start + at) as [number, number]));
  const bfloat16 = (name: string): Float64Array => {
    const b = bytes(name);
    return Float64Array.from({ length: b.length / 2 }, (_, i) => fromBfloat16Bits(b.readUInt16LE(2 * i)));
  };
  const all = new Map(norms(c).map(([name]) => [name, bfloat16(`${name}.weight`)]));
  for (const [name, rows, columns] of matrices(c)) {
    const words = bytes(`${name}.weight`);
    const [scales, biases] = [bfloat16(`${name}.scales`), bfloat16(`${name}.biases`)];
    const group = (rows * columns) / scales.length;
    all.set(name, Float64Array.from({ length: rows * columns }, (_, i) => {
      const byte = words[i >> 1] as number;
      const g = Math.floor(i / group);
      return (i % 2 === 0 ? byte & 15 : byte >> 4) * (scales[g] as number) + (biases[g] as number);
    }));
  }
  return (name) => all.get(name) as Float64Array;
}

/** Each row times the transpose of a matrix (out, columns). */
const product = (x: Rows, w: Float64Array): Rows =>
  x.map((row) => Float64Array.from({ length: w.length / row.length }, (_, o) => row.reduce((s, v, k) => s + v * (w[o * row.length + k] as number), 0)));
const rmsNorm = (x: Float64Array, gain: Float64Array, eps: number): Float64Array => {
  const scale = 1 / Math.sqrt(x.reduce((s, v) => s + v * v, 0) / x.length + eps);
  return x.map((v, i) => v * scale * (gain[i] as number));
};
const plus = (a: Rows, b: Rows): Rows => a.map((row, i) => row.map((v, k) => v + (b[i]?.[k] as number)));

/** The heads of a row, normalized and turned by its position (halves of a head are the two parts of a pair). */
function heads(row: Float64Array, position: number, gain: Float64Array, c: ModelConfig): Rows {
  const size = c.head_dim;
  return Array.from({ length: row.length / size }, (_, h) => {
    const x = rmsNorm(row.slice(h * size, (h + 1) * size), gain, c.rms_norm_eps);
    return x.map((v, i) => {
      const pair = i % (size / 2);
      const angle = position * c.rope_theta ** (-pair / (size / 2));
      return v * Math.cos(angle) + (i < size / 2 ? -1 : 1) * (x[(i + size / 2) % size] as number) * Math.sin(angle);
    });
  });
}

function attention(q: Rows, k: Rows, v: Rows, self: string, w: Weights, c: ModelConfig): Rows {
  const queries = q.map((row, t) => heads(row, t, w(`${self}.q_norm`), c));
  const keys = k.map((row, t) => heads(row, t, w(`${self}.k_norm`), c));
  const shared = c.num_attention_heads / c.num_key_value_heads;
  return queries.map((row, t) => {
    const out = new Float64Array(c.num_attention_heads * c.head_dim);
    for (const [h, query] of row.entries()) {
      const g = Math.floor(h / shared);
      const scores = keys.slice(0, t + 1).map((key) => query.reduce((s, x, d) => s + x * (key[g]?.[d] as number), 0) / Math.sqrt(c.head_dim));
      const top = Math.max(...scores);
      const shares = scores.map((s) => Math.exp(s - top));
      const sum = shares.reduce((a, b) => a + b, 0);
      for (const [s, share] of shares.entries()) {
        for (let d = 0; d < c.head_dim; d++) out[h * c.head_dim + d] = (out[h * c.head_dim + d] as number) + (share / sum) * (v[s]?.[g * c.head_dim + d] as number);
      }
    }
    return out;
  });
}

/** Logits (vocabulary) after a prompt. */
export function referenceLogits(c: ModelConfig, w: Weights, ids: readonly number[]): Float64Array {
  const embedding = w("model.embed_tokens");
  let x: Rows = ids.map((id) => embedding.slice(id * c.hidden_size, (id + 1) * c.hidden_size));
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    const self = `${layer}.self_attn`;
    const n = x.map((row) => rmsNorm(row, w(`${layer}.input_layernorm`), c.rms_norm_eps));
    const [q, k, v] = ["q", "k", "v"].map((part) => product(n, w(`${self}.${part}_proj`))) as [Rows, Rows, Rows];
    x = plus(x, product(attention(q, k, v, self, w, c), w(`${self}.o_proj`)));
    const inner = x.map((row) => rmsNorm(row, w(`${layer}.post_attention_layernorm`), c.rms_norm_eps));
    const up = product(inner, w(`${layer}.mlp.up_proj`));
    const hidden = product(inner, w(`${layer}.mlp.gate_proj`)).map((row, t) => row.map((g, o) => (g / (1 + Math.exp(-g))) * (up[t]?.[o] as number)));
    x = plus(x, product(hidden, w(`${layer}.mlp.down_proj`)));
  }
  const last = rmsNorm(x.at(-1) as Float64Array, w("model.norm"), c.rms_norm_eps);
  return product([last], c.tie_word_embeddings ? embedding : w("lm_head"))[0] as Float64Array;
}
