/** Llama 1 to 3 (Meta) and models of the same shape, such as Mistral. */
import { decoderSchema, type DecoderConfig } from "../config.ts";
import { CausalLM, windowsOf } from "../transformer.ts";

export const schema = decoderSchema;

export const create = (config: DecoderConfig, eosTokenIds: readonly number[]): CausalLM =>
  new CausalLM(config, { qkvBias: config.attention_bias, outputBias: config.attention_bias, mlpBias: config.mlp_bias, windowOf: windowsOf(config) }, eosTokenIds);
