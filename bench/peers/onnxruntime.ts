/** onnxruntime-node on the CPU. Arguments: folder of syntheticOnnx, threads. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ModelConfig } from "../models/configs.ts";
import { type Engine, argmax, serve, timedEngine } from "./engine.ts";
import { load, version } from "./installed.ts";

type Tensor = { readonly data: Float32Array; readonly dims: readonly number[] };
interface Ort {
  readonly Tensor: new (type: "float32" | "int64", data: Float32Array | BigInt64Array, dims: readonly number[]) => Tensor;
  readonly InferenceSession: { create(path: string, options: object): Promise<{ run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> }> };
}
async function open(folder: string, threads: number): Promise<Engine> {
  const ort = await load<{ default?: Ort } & Ort>("onnxruntime-node");
  const { Tensor, InferenceSession } = ort.default ?? ort;
  const c = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as ModelConfig;
  const start = performance.now();
  const session = await InferenceSession.create(join(folder, "onnx", "model_q4.onnx"), { intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: "all" });
  const loadSeconds = (performance.now() - start) / 1000;
  const names = Array.from({ length: c.num_hidden_layers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
  const int64 = (values: readonly number[]): Tensor => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  // The cache grows by handing a call's outputs to the next. Buffers of fixed size, written in place, were half as fast.
  async function* generate(ids: readonly number[], more: number): AsyncGenerator<number> {
    let past = Object.fromEntries(names.map((name) => [`past_key_values.${name}`, new Tensor("float32", new Float32Array(0), [1, c.num_key_value_heads, 0, c.head_dim])]));
    let input = ids;
    for (let length = ids.length; length <= ids.length + more; length++) {
      const mask = int64(new Array<number>(length).fill(1));
      const out = await session.run({ input_ids: int64(input), attention_mask: mask, ...past });
      const token = argmax((out["logits"] as Tensor).data);
      yield token;
      past = Object.fromEntries(names.map((name) => [`past_key_values.${name}`, out[`present.${name}`] as Tensor]));
      input = [token];
    }
  }
  return { loadSeconds, about: `${version("onnxruntime-node")}`, ...timedEngine(generate, c.vocab_size) };
}

const [folder, threads] = process.argv.slice(2);
await serve(() => open(folder as string, Number(threads)));
