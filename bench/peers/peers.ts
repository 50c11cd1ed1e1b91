/** Which library does which work, with which weights: the one table of bench/peers. */
import { join } from "node:path";
import { cacheFolder, syntheticCheckpoint } from "../models/synthetic.ts";
import { type ConfigName, configs } from "../models/configs.ts";
import type { StartOptions, Task } from "./engine.ts";
import { type GgufType, ggufWeights, syntheticGguf } from "./gguf.ts";
import { onnxWeights, syntheticOnnx } from "./onnx-qwen3.ts";
import { type Weights, checkpointWeights } from "./reference.ts";

export const works: readonly (Task & { readonly name: string })[] = [
  { name: "decode", kind: "decode", tokens: 48, depth: 16 },
  { name: "prefill 128", kind: "prefill", tokens: 128, depth: 0 },
  { name: "prefill 512", kind: "prefill", tokens: 512, depth: 0 },
];

/** How a process of a library starts with a model. */
export interface Start {
  readonly script: string;
  readonly args: readonly string[];
  readonly options?: StartOptions;
  /** The same weights as plain numbers. */
  readonly weights: () => Weights;
}
export interface Context {
  readonly model: ConfigName;
  readonly threads: number;
  /** Folder for the models' files. */
  readonly folder: string;
  /** Vulkan drivers that compute on the CPU count too. */
  readonly software: boolean;
}
export interface LlmPeer {
  readonly name: string;
  /** The package in bench/peers/package.json. */
  readonly package: string;
  readonly device: "cpu" | "gpu";
  /** Its weights, in words. */
  readonly weights: string;
  readonly start: (c: Context) => Start;
}

const script = (name: string): string => join(import.meta.dirname, `${name}.ts`);
const ourWeights = (c: Context): Pick<Start, "args" | "weights"> => {
  const path = syntheticCheckpoint(c.model, configs[c.model], "4bit-g128", c.folder);
  return { args: [path], weights: () => checkpointWeights(path, configs[c.model]) };
};
export const ours: Readonly<Record<"cpu" | "gpu", LlmPeer>> = {
  cpu: { name: "mlx-vk", package: "mlx-vk", device: "cpu", weights: "4 bits, scale and bias per 128", start: (c) => ({ script: script("mlx-vk"), ...ourWeights(c) }) },
  gpu: {
    name: "mlx-vk, Vulkan", package: "mlx-vk", device: "gpu", weights: "4 bits, scale and bias per 128",
    start: (c) => ({ script: script("mlx-vk"), ...ourWeights(c), options: { env: { DEVICE: "gpu", ...(c.software ? { MLX_VK_DEVICE: process.env["MLX_VK_DEVICE"] ?? "llvmpipe" } : {}) } } }),
  },
};

const gguf = (name: string, pack: string, type: GgufType, device: "cpu" | "gpu", start: (path: string, vocabulary: string, c: Context) => Omit<Start, "weights">): LlmPeer => ({
  name, package: pack, device, weights: type === "Q4_0" ? "Q4_0" : "Q4_1",
  start: (c) => ({ ...start(syntheticGguf(c.model, configs[c.model], type, c.folder), String(configs[c.model].vocab_size), c), weights: () => ggufWeights(configs[c.model], type) }),
});
const llamaCpp = (name: string, type: GgufType, build: "cpu" | "vulkan"): LlmPeer =>
  gguf(name, "node-llama-cpp", type, build === "cpu" ? "cpu" : "gpu", (path, vocabulary, c) => ({
    script: script("llama-cpp"), args: [path, vocabulary, String(c.threads), build, c.software ? "any" : ""],
    // llama.cpp leaves software devices out unless devices are named.
    options: { env: c.software ? { GGML_VK_VISIBLE_DEVICES: process.env["GGML_VK_VISIBLE_DEVICES"] ?? "0" } : {} },
  }));
const wllama = (name: string, threads: (c: Context) => number): LlmPeer =>
  gguf(name, "@wllama/wllama", "Q4_0", "cpu", (path, vocabulary, c) => ({
    // Version 24 of Node has JSPI behind a flag; where the flag is unknown, Node would not start, and the engine says what is missing.
    script: script("wllama"), args: [path, vocabulary, String(threads(c))], options: { execArgv: Number(process.versions.node.split(".")[0]) >= 24 ? ["--experimental-wasm-jspi"] : [] },
  }));
const onnx = (name: string, pack: string, file: string): LlmPeer => ({
  name, package: pack, device: "cpu", weights: "MatMulNBits, 4 bits, scale per 32",
  start: (c) => ({ script: script(file), args: [syntheticOnnx(c.model, configs[c.model], {}, c.folder), String(c.threads)], weights: () => onnxWeights(configs[c.model]) }),
});

export const llmPeers: readonly LlmPeer[] = [
  llamaCpp("node-llama-cpp", "Q4_0", "cpu"),
  llamaCpp("node-llama-cpp", "Q4_1", "cpu"),
  onnx("onnxruntime-node", "onnxruntime-node", "onnxruntime"),
  onnx("transformers.js", "@huggingface/transformers", "transformers-js"),
  wllama("wllama, 1 thread", () => 1),
  wllama("wllama, threads", (c) => c.threads),
  { name: "@frost-beta/mlx", package: "@frost-beta/mlx", device: "cpu", weights: "ours", start: (c) => ({ script: script("frost-mlx"), ...ourWeights(c) }) },
  llamaCpp("node-llama-cpp, Vulkan", "Q4_0", "vulkan"),
];

/** Rows that no process can fill, and why. */
export const notRunnable: readonly { readonly name: string; readonly package: string; readonly reason: string }[] = [
  { name: "jax-js", package: "@jax-js/jax", reason: "not measured: it has no quantized products, so it would read 2.4 GB of float32 weights per token; it is among the ops" },
  { name: "tfjs (wasm)", package: "@tensorflow/tfjs-backend-wasm", reason: "it is among the ops: it has no language models and no quantized products" },
];

export const defaultFolder = cacheFolder;
