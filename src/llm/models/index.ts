/** Supported architectures: one file per `model_type`. */
import type { GenericSchema } from "valibot";
import type { DecoderConfig } from "../config.ts";
import type { CausalLM } from "../transformer.ts";
import * as llama from "./llama.ts";
import * as qwen2 from "./qwen2.ts";
import * as qwen3 from "./qwen3.ts";

export interface Architecture {
  /** What config.json must hold. */
  readonly schema: GenericSchema<unknown, DecoderConfig>;
  create(config: DecoderConfig, eosTokenIds: readonly number[]): CausalLM;
}

/** By `model_type`; Mistral's checkpoints are Llamas with another name. */
export const architectures: ReadonlyMap<string, Architecture> = new Map<string, Architecture>([
  ["llama", llama],
  ["mistral", llama],
  ["qwen2", qwen2],
  ["qwen3", qwen3],
]);

/** The architecture named in config.json. Throws with the list of those supported. */
export function architectureOf(modelType: unknown, where: string): Architecture {
  if (typeof modelType !== "string") throw new Error(`[load] ${where} lacks the key "model_type"`);
  const found = architectures.get(modelType);
  if (!found) throw new Error(`[load] model_type ${JSON.stringify(modelType)} is not supported; supported: ${[...architectures.keys()].sort().join(", ")}`);
  return found;
}
