/** A model and its sampler, as the commands' options ask for them. */
import { core as mx } from "../index.ts";
import { load, type LoadedModel, makeSampler, type Sampler } from "../llm/index.ts";
import { defaultModel } from "../package.ts";
import { progressBar } from "./terminal.ts";

export interface ModelOptions {
  model?: string;
  revision?: string;
  dtype?: string;
  verbose?: boolean;
}
export interface SamplingOptions {
  maxTokens: number;
  temp: number;
  topP: number;
  topK: number;
  minP: number;
  seed?: number;
  systemPrompt?: string;
}

export async function loadModel(options: ModelOptions): Promise<LoadedModel> {
  const source = options.model ?? defaultModel();
  const start = performance.now();
  const bar = await progressBar();
  try {
    const loaded = await load(source, {
      progress: bar.update,
      ...(options.revision === undefined ? {} : { revision: options.revision }),
      ...(options.dtype === undefined ? {} : { dtype: options.dtype }),
    });
    if (options.verbose) {
      const ms = (performance.now() - start).toFixed(0);
      process.stderr.write(`${source}: ${loaded.config.model_type}, ${(mx.getActiveMemory() / 1e6).toFixed(1)} MB, loaded in ${ms} ms\n`);
    }
    return loaded;
  } finally {
    bar.stop();
  }
}

/** The device that ops run on, as the summaries name it. */
export function deviceText(): string {
  const { type } = mx.defaultDevice();
  return type === "gpu" ? `gpu (${mx.deviceInfo().deviceName})` : type;
}

/** Sets the seed and makes the sampler. */
export function samplerOf(options: SamplingOptions): Sampler {
  if (options.seed !== undefined) mx.random.seed(options.seed);
  return makeSampler({ temp: options.temp, topP: options.topP, topK: options.topK, minP: options.minP });
}
