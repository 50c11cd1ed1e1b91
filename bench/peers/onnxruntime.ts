/** onnxruntime-node on the CPU. Arguments: folder of syntheticOnnx, threads. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ModelConfig } from "../models/configs.ts";
import { type Engine, argmax, serve, timedEngine } from "./engine.ts";
import { load, version } from "./installed.ts";

type Tensor = { readonly data: Float32Array; readonly dims: readonly number[] };
interface Ort {
  readonly Tensor: new (type: "float32" | "int64", data: Float32Array | BigInt64Array, dims: readonly number[]) => Tensor;
  readonly InferenceSession: { create(path: string, options: object): Promise<{ run(feeds: Record<string, Tensor>, fetches: Record<string, Tensor | null>): Promise<Record<string, Tensor>> }> };
}
/** Positions that the cache holds. */
const room = 640;

async function open(folder: string, threads: number): Promise<Engine> {
  const ort = await load<{ default?: Ort } & Ort>("onnxruntime-node");
  const { Tensor, InferenceSession } = ort.default ?? ort;
  const c = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as ModelConfig;
  const start = performance.now();
  const session = await InferenceSession.create(join(folder, "onnx", "model_q4.onnx"), { intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: "all" });
  const loadSeconds = (performance.now() - start) / 1000;
  // The cache's tensors are inputs and outputs at once: the operator then writes new rows in place instead of copying all of it every step.
  const names = Array.from({ length: c.num_hidden_layers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
  const shape = [1, c.num_key_value_heads, room, c.head_dim];
  const cache = names.map((name) => [name, new Tensor("float32", new Float32Array(c.num_key_value_heads * room * c.head_dim), shape)] as const);
  const past = Object.fromEntries(cache.map(([name, t]) => [`past_key_values.${name}`, t]));
  const present = Object.fromEntries(cache.map(([name, t]) => [`present.${name}`, t]));
  const int64 = (values: readonly number[]): Tensor => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  async function* generate(ids: readonly number[], more: number): AsyncGenerator<number> {
    if (ids.length + more > room) throw new Error(`the cache holds ${room} positions`);
    let input = ids;
    for (let length = ids.length; length <= ids.length + more; length++) {
      const mask = int64(new Array<number>(length).fill(1));
      const { logits } = await session.run({ input_ids: int64(input), attention_mask: mask, ...past }, { logits: null, ...present });
      const token = argmax((logits as Tensor).data);
      yield token;
      input = [token];
    }
  }
  return { loadSeconds, about: `${version("onnxruntime-node")}`, ...timedEngine(generate, c.vocab_size) };
}

const [folder, threads] = process.argv.slice(2);
await serve(() => open(folder as string, Number(threads)));
