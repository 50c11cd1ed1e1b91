/** transformers.js (over onnxruntime-node) with its own `generate`. Arguments: folder of syntheticOnnx, threads. */
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { ModelConfig } from "../models/configs.ts";
import { type Engine, promptIds, serve } from "./engine.ts";
import { load, version } from "./installed.ts";

type Ids = readonly (readonly bigint[])[];
interface Library {
  readonly env: { allowRemoteModels: boolean; localModelPath: string };
  readonly Tensor: new (type: "int64", data: BigInt64Array, dims: readonly number[]) => object;
  readonly AutoModelForCausalLM: { from_pretrained(name: string, options: object): Promise<{ generate(options: object): Promise<{ tolist(): Ids }> }> };
}

async function open(folder: string, threads: number): Promise<Engine> {
  const { env, Tensor, AutoModelForCausalLM } = await load<Library>("@huggingface/transformers");
  env.allowRemoteModels = false;
  env.localModelPath = dirname(folder);
  const { vocab_size } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as ModelConfig;
  const start = performance.now();
  const model = await AutoModelForCausalLM.from_pretrained(basename(folder), { dtype: "q4", device: "cpu", session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 } });
  const loadSeconds = (performance.now() - start) / 1000;
  const ints = (values: readonly number[]): object => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  /** Seconds to the first token and of `more` further ones. Its streamer gets the prompt first, then each token. */
  const run = async (ids: readonly number[], more: number): Promise<{ first: number; rest: number; tokens: number[] }> => {
    const times: number[] = [];
    const begin = performance.now();
    const out = await model.generate({
      input_ids: ints(ids), attention_mask: ints(ids.map(() => 1)), max_new_tokens: more + 1, do_sample: false, eos_token_id: null,
      streamer: { put: () => times.push(performance.now()), end: () => undefined },
    });
    if (times.length !== more + 2) throw new Error(`${times.length - 1} tokens instead of ${more + 1}`);
    return { first: ((times[1] as number) - begin) / 1000, rest: ((times.at(-1) as number) - (times[1] as number)) / 1000, tokens: (out.tolist()[0] ?? []).slice(ids.length).map(Number) };
  };
  return {
    loadSeconds,
    about: `${version("@huggingface/transformers")} with onnxruntime-node ${version("onnxruntime-node")}`,
    prefill: async (tokens) => (await run(promptIds(tokens, vocab_size), 0)).first,
    decode: async (depth, tokens) => (await run(promptIds(depth, vocab_size), tokens)).rest,
    generate: async (ids, count) => (await run(ids, count - 1)).tokens,
  };
}

const [folder, threads] = process.argv.slice(2);
await serve(() => open(folder as string, Number(threads)));
