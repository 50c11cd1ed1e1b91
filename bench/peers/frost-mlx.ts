/**
 * @frost-beta/mlx: MLX's C++ backend for the CPU. It brings no language models, so this is Qwen3 in its functions, as mlx-lm writes it. Arguments: folder of
 * a 4-bit checkpoint of bench/models.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ModelConfig, matrices, norms } from "../models/configs.ts";
import { type Engine, serve, timedEngine } from "./engine.ts";
import { load, version } from "./installed.ts";

interface A {
  readonly shape: readonly number[];
  readonly dtype: unknown;
  reshape(...shape: number[]): A;
  transpose(...axes: number[]): A;
  astype(dtype: unknown): A;
  item(): number;
}
interface Mx {
  readonly bfloat16: unknown;
  readonly float32: unknown;
  readonly int32: unknown;
  array(data: unknown, dtype?: unknown): A;
  load(path: string): Record<string, A>;
  take(a: A, ids: A, axis: number): A;
  dequantize(w: A, scales: A, biases: A, group: number, bits: number): A;
  quantizedMatmul(x: A, w: A, scales: A, biases: A, transpose: boolean, group: number, bits: number): A;
  add(a: A, b: A): A;
  multiply(a: A, b: A | number): A;
  sigmoid(a: A): A;
  concatenate(arrays: readonly A[], axis: number): A;
  argmax(a: A, axis: number): A;
  arange(n: number): A;
  less(a: A, b: A): A;
  eval(...arrays: unknown[]): void;
  readonly fast: {
    rmsNorm(x: A, weight: A, eps: number): A;
    rope(x: A, dims: number, traditional: boolean, base: number, scale: number, offset: number): A;
    scaledDotProductAttention(q: A, k: A, v: A, scale: number, mask?: A): A;
  };
}
interface Quantized {
  readonly weight: A;
  readonly scales: A;
  readonly biases: A;
}
type Cache = (readonly [A, A] | undefined)[];
interface Config extends ModelConfig {
  readonly quantization: { readonly group_size: number; readonly bits: number };
}

/** Logits (vocabulary) of the last of `ids`, which come after the cache's tokens; the cache grows. */
function step(mx: Mx, c: Config, matrix: (name: string) => Quantized, gain: (name: string) => A, ids: readonly number[], cache: Cache): { token: A; cache: Cache } {
  const { group_size, bits } = c.quantization;
  const product = (x: A, name: string): A => {
    const { weight, scales, biases } = matrix(name);
    return mx.quantizedMatmul(x, weight, scales, biases, true, group_size, bits);
  };
  const norm = (x: A, name: string): A => mx.fast.rmsNorm(x, gain(name), c.rms_norm_eps);
  const T = ids.length;
  const offset = cache[0]?.[0].shape[2] ?? 0;
  const embedding = matrix("model.embed_tokens");
  const rows = (a: A): A => mx.take(a, mx.array([...ids], mx.int32), 0);
  let h = mx.dequantize(rows(embedding.weight), rows(embedding.scales), rows(embedding.biases), group_size, bits).reshape(1, T, c.hidden_size);
  const mask = T > 1 ? mx.multiply(mx.less(mx.arange(T).reshape(T, 1), mx.arange(T).reshape(1, T)), -1e9) : undefined;
  const split = (x: A, heads: number): A => x.reshape(1, T, heads, c.head_dim);
  const turn = (x: A): A => mx.fast.rope(x.transpose(0, 2, 1, 3), c.head_dim, false, c.rope_theta, 1, offset);
  const next: Cache = [];
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    const self = `${layer}.self_attn`;
    const n = norm(h, `${layer}.input_layernorm`);
    const q = turn(norm(split(product(n, `${self}.q_proj`), c.num_attention_heads), `${self}.q_norm`));
    let k = turn(norm(split(product(n, `${self}.k_proj`), c.num_key_value_heads), `${self}.k_norm`));
    let v = split(product(n, `${self}.v_proj`), c.num_key_value_heads).transpose(0, 2, 1, 3);
    const old = cache[i];
    if (old) [k, v] = [mx.concatenate([old[0], k], 2), mx.concatenate([old[1], v], 2)];
    next.push([k, v]);
    const attended = mx.fast.scaledDotProductAttention(q, k, v, c.head_dim ** -0.5, mask).transpose(0, 2, 1, 3);
    h = mx.add(h, product(attended.reshape(1, T, c.num_attention_heads * c.head_dim), `${self}.o_proj`));
    const inner = norm(h, `${layer}.post_attention_layernorm`);
    const gate = product(inner, `${layer}.mlp.gate_proj`);
    h = mx.add(h, product(mx.multiply(mx.multiply(gate, mx.sigmoid(gate)), product(inner, `${layer}.mlp.up_proj`)), `${layer}.mlp.down_proj`));
  }
  const last = mx.take(h, mx.array([T - 1], mx.int32), 1);
  const token = mx.argmax(product(norm(last, "model.norm"), c.tie_word_embeddings ? "model.embed_tokens" : "lm_head"), -1);
  mx.eval(token, next.flatMap((x) => x ?? []));
  return { token, cache: next };
}

async function open(folder: string): Promise<Engine> {
  const { core: mx } = (await load<{ default: { core: Mx } }>("@frost-beta/mlx")).default;
  const c = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Config;
  const start = performance.now();
  // Its products on the CPU are float32 only.
  const weights = Object.fromEntries(Object.entries(mx.load(join(folder, "model.safetensors"))).map(([name, a]) => [name, a.dtype === mx.bfloat16 ? a.astype(mx.float32) : a]));
  mx.eval(Object.values(weights));
  const loadSeconds = (performance.now() - start) / 1000;
  const all = new Map(matrices(c).map(([name]) => [name, { weight: weights[`${name}.weight`], scales: weights[`${name}.scales`], biases: weights[`${name}.biases`] } as Quantized]));
  const gains = new Map(norms(c).map(([name]) => [name, weights[`${name}.weight`] as A]));
  async function* generate(ids: readonly number[], more: number): AsyncGenerator<number> {
    let cache: Cache = [];
    let input = ids;
    for (let i = 0; i <= more; i++) {
      const out = step(mx, c, (name) => all.get(name) as Quantized, (name) => gains.get(name) as A, input, cache);
      const token = out.token.item();
      cache = out.cache;
      yield token;
      input = [token];
    }
  }
  return { loadSeconds, about: `${version("@frost-beta/mlx")}`, ...timedEngine(generate, c.vocab_size) };
}

const [folder] = process.argv.slice(2);
await serve(() => open(folder as string));
