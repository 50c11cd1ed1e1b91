/** What a checkpoint's config.json says: checked by a schema per model, with defaults filled in. */
import * as v from "valibot";

const count = v.pipe(v.number(), v.integer(), v.minValue(1));
const positive = v.pipe(v.number(), v.gtValue(0));

/** One value that should be there, or null, as Hugging Face writes it for "not used". */
const optionalNull = <T extends v.GenericSchema>(schema: T) => v.optional(v.nullable(schema));

const factors = v.union([v.array(v.number()), v.number()]);
const ropeParameters = v.looseObject({
  rope_type: v.optional(v.string()),
  type: v.optional(v.string()),
  rope_theta: v.optional(positive),
  factor: v.optional(positive),
  low_freq_factor: v.optional(positive),
  high_freq_factor: v.optional(positive),
  original_max_position_embeddings: v.optional(count),
  beta_fast: v.optional(positive),
  beta_slow: v.optional(positive),
  mscale: v.optional(v.number()),
  mscale_all_dim: v.optional(v.number()),
  attention_factor: optionalNull(v.number()),
  short_factor: v.optional(factors),
  long_factor: v.optional(factors),
});
export type RopeParameters = v.InferOutput<typeof ropeParameters>;

const quantizationOf = v.object({ group_size: count, bits: count, mode: v.string() });
/** `quantization` of config.json: sizes for all layers, and overrides by layer path (`false`: this layer is not quantized). */
const quantization = v.objectWithRest(
  { group_size: count, bits: count, mode: v.optional(v.string(), "affine") },
  v.union([v.boolean(), v.string(), v.number(), v.looseObject({ group_size: v.optional(count), bits: v.optional(count), mode: v.optional(v.string()) })]),
);
export type Quantization = v.InferOutput<typeof quantizationOf> & Record<string, unknown>;

/** Keys that all decoder models here share. Spread it into a model's schema and override what differs. */
export const decoderKeys = {
  model_type: v.string(),
  hidden_size: count,
  num_hidden_layers: count,
  intermediate_size: count,
  num_attention_heads: count,
  num_key_value_heads: optionalNull(count),
  head_dim: optionalNull(count),
  rms_norm_eps: v.pipe(v.number(), v.minValue(0)),
  vocab_size: count,
  max_position_embeddings: optionalNull(count),
  rope_theta: v.optional(positive),
  rope_traditional: v.optional(v.boolean(), false),
  rope_scaling: optionalNull(ropeParameters),
  rope_parameters: optionalNull(ropeParameters),
  tie_word_embeddings: v.optional(v.boolean(), false),
  hidden_act: v.optional(v.string(), "silu"),
  attention_bias: v.optional(v.boolean(), false),
  mlp_bias: v.optional(v.boolean(), false),
  sliding_window: optionalNull(count),
  use_sliding_window: v.optional(v.boolean()),
  max_window_layers: optionalNull(v.pipe(v.number(), v.integer(), v.minValue(0))),
  layer_types: optionalNull(v.array(v.string())),
  eos_token_id: optionalNull(v.union([v.number(), v.array(v.number())])),
  bos_token_id: optionalNull(v.union([v.number(), v.array(v.number())])),
  quantization: v.optional(quantization),
} as const;

/** The decoder config that all models here start from; `head_dim` and `num_key_value_heads` are filled in by `checkConfig`. */
export const decoderSchema = v.looseObject(decoderKeys);
export type DecoderConfig = v.InferOutput<typeof decoderSchema>;

/** Checks config.json against a model's schema. `where` names the file in errors. */
export function checkConfig<T extends v.GenericSchema>(schema: T, config: unknown, where: string): v.InferOutput<T> {
  const result = v.safeParse(schema, config);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue) ?? "";
  const missing = issue.input === undefined || issue.received === "undefined";
  throw new Error(
    missing
      ? `[load] ${where} lacks the key ${JSON.stringify(path)}`
      : `[load] ${where} has a wrong value at ${JSON.stringify(path)}: expected ${issue.expected ?? issue.requirement}, got ${issue.received}`,
  );
}

/** Sizes of attention, with the defaults of Hugging Face filled in. Throws when they do not fit together. */
export function attentionSizes(config: DecoderConfig): { heads: number; kvHeads: number; headDim: number } {
  const heads = config.num_attention_heads;
  const kvHeads = config.num_key_value_heads ?? heads;
  if (heads % kvHeads !== 0) throw new Error(`[load] num_attention_heads must be a multiple of num_key_value_heads, got ${heads} and ${kvHeads}`);
  const headDim = config.head_dim ?? config.hidden_size / heads;
  if (!Number.isInteger(headDim)) throw new Error(`[load] hidden_size must be a multiple of num_attention_heads, got ${config.hidden_size} and ${heads}`);
  return { heads, kvHeads, headDim };
}

/** Token ids that end a text: from generation_config.json if it names them, else from config.json. */
export function eosTokenIds(config: { eos_token_id?: unknown }, generationConfig?: { eos_token_id?: unknown }): number[] {
  const ids = generationConfig?.eos_token_id ?? config.eos_token_id ?? [];
  return (Array.isArray(ids) ? ids : [ids]).filter((id): id is number => typeof id === "number");
}
