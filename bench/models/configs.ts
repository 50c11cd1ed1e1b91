/** Real model configurations (from the models' config.json on the Hugging Face hub) and the formats in which they are measured. */

export interface ModelConfig {
  readonly model_type: "qwen3";
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly vocab_size: number;
  readonly rms_norm_eps: number;
  readonly rope_theta: number;
  readonly max_position_embeddings: number;
  readonly tie_word_embeddings: boolean;
}

const qwen3 = {
  model_type: "qwen3", num_hidden_layers: 28, num_key_value_heads: 8, head_dim: 128, vocab_size: 151936, rms_norm_eps: 1e-6, rope_theta: 1e6,
  max_position_embeddings: 40960, tie_word_embeddings: true,
} as const;

export const configs = {
  "qwen3-0.6b": { ...qwen3, hidden_size: 1024, intermediate_size: 3072, num_attention_heads: 16 },
  "qwen3-1.7b": { ...qwen3, hidden_size: 2048, intermediate_size: 6144, num_attention_heads: 16 },
  "qwen3-4b": { ...qwen3, hidden_size: 2560, intermediate_size: 9728, num_attention_heads: 32, num_hidden_layers: 36 },
  /** For tests: every part of the architecture, few bytes. */
  "qwen3-tiny": { ...qwen3, hidden_size: 128, intermediate_size: 256, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 64, num_hidden_layers: 2, vocab_size: 512 },
} as const satisfies Record<string, ModelConfig>;
export type ConfigName = keyof typeof configs;

/** Weight format: affine quantization, or bfloat16 when `bits` is 16. */
export interface Format {
  readonly bits: 4 | 8 | 16;
  readonly groupSize: number;
}
export const formats = {
  "4bit-g128": { bits: 4, groupSize: 128 },
  "4bit-g64": { bits: 4, groupSize: 64 },
  "8bit-g64": { bits: 8, groupSize: 64 },
  bf16: { bits: 16, groupSize: 0 },
} as const satisfies Record<string, Format>;
export type FormatName = keyof typeof formats;

/** Shape [out, in] of every matrix of a model, by its name in the checkpoint. */
export function matrices(c: ModelConfig): [string, number, number][] {
  const list: [string, number, number][] = [["model.embed_tokens", c.vocab_size, c.hidden_size]];
  const q = c.num_attention_heads * c.head_dim;
  const kv = c.num_key_value_heads * c.head_dim;
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    list.push([`${layer}.self_attn.q_proj`, q, c.hidden_size], [`${layer}.self_attn.k_proj`, kv, c.hidden_size], [`${layer}.self_attn.v_proj`, kv, c.hidden_size]);
    list.push([`${layer}.self_attn.o_proj`, c.hidden_size, q], [`${layer}.mlp.gate_proj`, c.intermediate_size, c.hidden_size]);
    list.push([`${layer}.mlp.up_proj`, c.intermediate_size, c.hidden_size], [`${layer}.mlp.down_proj`, c.hidden_size, c.intermediate_size]);
  }
  if (!c.tie_word_embeddings) list.push(["lm_head", c.vocab_size, c.hidden_size]);
  return list;
}

/** Length of every norm's weight, by its name in the checkpoint. */
export function norms(c: ModelConfig): [string, number][] {
  const list: [string, number][] = [["model.norm", c.hidden_size]];
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    list.push([`${layer}.input_layernorm`, c.hidden_size], [`${layer}.post_attention_layernorm`, c.hidden_size]);
    list.push([`${layer}.self_attn.q_norm`, c.head_dim], [`${layer}.self_attn.k_norm`, c.head_dim]);
  }
  return list;
}

/** Bytes of weights that one decoded token reads: all matrices once (a tied embedding as the output matrix). */
export function bytesPerToken(c: ModelConfig, f: Format): number {
  const perWeight = f.bits === 16 ? 2 : f.bits / 8 + 4 / f.groupSize;
  return matrices(c).reduce((n, [name, rows, columns]) => (name === "model.embed_tokens" && !c.tie_word_embeddings ? n : n + rows * columns * perWeight), 0);
}
