/** Qwen3 (Alibaba), dense: as Llama, with a norm on the queries and keys of each head. */
import * as v from "valibot";
import { decoderKeys, type DecoderConfig } from "../config.ts";
import { CausalLM, windowsOf } from "../transformer.ts";

/** A window in the file counts only when `use_sliding_window` says so; heads have 128 features unless the file differs. */
export const schema = v.looseObject({
  ...decoderKeys,
  use_sliding_window: v.optional(v.boolean(), false),
  head_dim: v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1))), 128),
});

export const create = (config: DecoderConfig, eosTokenIds: readonly number[]): CausalLM =>
  new CausalLM(config, { qkNorm: true, qkvBias: config.attention_bias, outputBias: config.attention_bias, windowOf: windowsOf(config) }, eosTokenIds);
