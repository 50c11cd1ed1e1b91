/** The trained model as a checkpoint that `mlx-vk generate` and other MLX programs load: quantized to 4 bits, with a character tokenizer. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { core as mx, nn, utils } from "mlx-vk";
import { type GPT, type ModelConfig, hiddenWidth, normEps, ropeBase } from "./model.ts";

export const quantization = { group_size: 32, bits: 4 } as const;

const configOf = (model: ModelConfig): object => ({
  model_type: "llama",
  vocab_size: model.vocabulary,
  hidden_size: model.width,
  intermediate_size: hiddenWidth(model.width),
  num_hidden_layers: model.layers,
  num_attention_heads: model.heads,
  num_key_value_heads: model.heads,
  max_position_embeddings: model.context,
  rms_norm_eps: normEps,
  rope_theta: ropeBase,
  tie_word_embeddings: true,
  hidden_act: "silu",
  quantization,
});

/** Byte-pair encoding without any pair to merge: each character is a token. Its first token stands for characters it does not know. */
const tokenizerOf = (characters: readonly string[]): object => ({
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: { type: "Fuse" },
  model: {
    type: "BPE", dropout: null, unk_token: characters[0], continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false,
    vocab: Object.fromEntries(characters.map((c, id) => [c, id])),
    merges: [],
  },
});

/** Quantizes the model in place and writes it to `folder`. */
export function exportQuantized(folder: string, model: GPT, config: ModelConfig, characters: readonly string[]): void {
  nn.quantize(model, quantization.group_size, quantization.bits);
  mkdirSync(folder, { recursive: true });
  const weights = Object.fromEntries(utils.treeFlatten(model.parameters(), "", undefined, utils.toSnakeCase));
  mx.saveSafetensors(join(folder, "model.safetensors"), weights, { format: "mlx" });
  const write = (name: string, value: object): void => writeFileSync(join(folder, name), `${JSON.stringify(value, null, 1)}\n`);
  write("config.json", configOf(config));
  write("tokenizer.json", tokenizerOf(characters));
  write("tokenizer_config.json", { tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false, model_max_length: config.context });
}
