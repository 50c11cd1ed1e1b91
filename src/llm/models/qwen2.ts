/** Qwen2 and Qwen2.5 (Alibaba): as Llama, with biases on queries, keys and values. */
import * as v from "valibot";
import { decoderKeys, type DecoderConfig } from "../config.ts";
import { CausalLM, windowsOf } from "../transformer.ts";

/** A window in the file counts only when `use_sliding_window` says so. */
export const schema = v.looseObject({ ...decoderKeys, use_sliding_window: v.optional(v.boolean(), false) });

export const create = (config: DecoderConfig, eosTokenIds: readonly number[]): CausalLM => new CausalLM(config, { qkvBias: true, windowOf: windowsOf(config) }, eosTokenIds);
