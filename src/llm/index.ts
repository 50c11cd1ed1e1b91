/** Language models from MLX checkpoints: load, generate, stream. Names follow mlx-lm, in camelCase. */
export { canTrimPromptCache, KVCache, makePromptCache, type PromptCache, trimPromptCache } from "./cache.ts";
export type { DecoderConfig } from "./config.ts";
export type { StreamingDetokenizer } from "./detokenizer.ts";
export {
  generate,
  type GenerateStepOptions,
  type GenerationResponse,
  generateStep,
  type LanguageModel,
  type Prompt,
  streamGenerate,
  type StreamGenerateOptions,
  type TokenAndLogprobs,
} from "./generate.ts";
export { type DownloadOptions, type DownloadProgress, snapshotDownload } from "./hub.ts";
export { load, type LoadedModel, type LoadOptions, type LoadProgress } from "./load.ts";
export { type Architecture, architectures } from "./models/index.ts";
export {
  applyMinP,
  applyTopK,
  applyTopP,
  applyXtc,
  categoricalSampling,
  type LogitsProcessor,
  type LogitsProcessorOptions,
  makeLogitsProcessors,
  makeSampler,
  type Sampler,
  type SamplerOptions,
} from "./sample.ts";
export { type ChatMessage, type ChatTemplateOptions, loadTokenizer, Tokenizer } from "./tokenizer.ts";
export { attentionMask, CausalLM } from "./transformer.ts";
