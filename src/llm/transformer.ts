/**
 * The pre-norm decoder that the Llama and Qwen families share: RMSNorm, rotary grouped-query attention, gated MLP, residuals.
 * Shapes: B sequences, T new positions, H query heads, K key-value heads, D features per head, S visible positions.
 */
import { core as mx, nn, type MxArray } from "../index.ts";
import { KVCache, type PromptCache } from "./cache.ts";
import { attentionSizes, type DecoderConfig } from "./config.ts";
import { canFuse, fusedStep } from "./fused-step.ts";
import { contextLength, makeRope, type ScaledRoPE } from "./rope.ts";

/** New positions from which the device is kept busy long enough by a layer for the host to record the next one meanwhile. */
const manyPositions = 32;
/** Layers that are handed to the device together. */
const startedLayers = 4;

/** What differs between the models of the family. */
export interface DecoderTraits {
  /** RMSNorm on each head's queries and keys before the rotation (Qwen3). */
  qkNorm?: boolean;
  qkvBias?: boolean;
  outputBias?: boolean;
  mlpBias?: boolean;
  /** Sliding window of each layer; undefined: the layer sees everything. */
  windowOf?: (layer: number) => number | undefined;
}

/** `null`: nothing is hidden; `causal`: queries are the last T of the S positions; else bool (T, S), true where a query may look. */
export type AttentionMask = MxArray | "causal" | null;

/** Where one new position stands, for work that is recorded once and run for every token: int32 arrays of one element. */
export interface StepPosition {
  readonly position: MxArray;
  /** Positions that the new one sees, itself included. */
  readonly length: MxArray;
}

/** Mask for T new positions behind `past` ones, of which a query sees itself and the `window - 1` before it. */
export function attentionMask(length: number, past: number, window?: number): AttentionMask {
  if (length === 1) return null;
  if (window === undefined || past + length <= window) return "causal";
  const first = past - Math.min(past, window - 1);
  const column = (start: number): MxArray => mx.reshape(mx.arange(start, start + length, 1, mx.int32), [length, 1]);
  const positions = mx.arange(first, past + length, 1, mx.int32);
  return mx.logicalAnd(mx.lessEqual(positions, column(past)), mx.greater(positions, column(past - window)));
}

const activations: Readonly<Record<string, (x: MxArray) => MxArray>> = {
  silu: nn.silu,
  swish: nn.silu,
  gelu: nn.gelu,
  gelu_new: nn.geluApprox,
  gelu_pytorch_tanh: nn.geluApprox,
  relu: nn.relu,
};

function activationOf(name: string): (x: MxArray) => MxArray {
  const f = activations[name];
  if (!f) throw new Error(`[load] hidden_act ${JSON.stringify(name)} is not supported; supported: ${Object.keys(activations).join(", ")}`);
  return f;
}

/** A layer with weights, quantized or not. */
export type Projection = nn.Linear | nn.QuantizedLinear;

export class Attention extends nn.Module {
  qProj: Projection;
  kProj: Projection;
  vProj: Projection;
  oProj: Projection;
  qNorm?: nn.RMSNorm;
  kNorm?: nn.RMSNorm;
  rope: ScaledRoPE;
  readonly #heads: number;
  readonly #kvHeads: number;
  readonly #headDim: number;
  readonly #scale: number;

  constructor(config: DecoderConfig, traits: DecoderTraits) {
    super();
    const { heads, kvHeads, headDim } = attentionSizes(config);
    const bias = traits.qkvBias ?? false;
    this.qProj = new nn.Linear(config.hidden_size, heads * headDim, bias);
    this.kProj = new nn.Linear(config.hidden_size, kvHeads * headDim, bias);
    this.vProj = new nn.Linear(config.hidden_size, kvHeads * headDim, bias);
    this.oProj = new nn.Linear(heads * headDim, config.hidden_size, traits.outputBias ?? false);
    if (traits.qkNorm) {
      this.qNorm = new nn.RMSNorm(headDim, config.rms_norm_eps);
      this.kNorm = new nn.RMSNorm(headDim, config.rms_norm_eps);
    }
    this.rope = makeRope(config, headDim);
    this.#heads = heads;
    this.#kvHeads = kvHeads;
    this.#headDim = headDim;
    this.#scale = this.rope.attentionFactor ** 2 / Math.sqrt(headDim);
  }
  /** x (B, T, hidden) -> (B, T, hidden). */
  override forward(x: MxArray, B: number, T: number, mask: AttentionMask, cache?: KVCache, at?: StepPosition): MxArray {
    const offset = at?.position ?? cache?.offset ?? 0;
    const q = this.rope.forward(this.#split(this.qProj.forward(x), B, T, this.#heads, this.qNorm), offset);
    let k = this.rope.forward(this.#split(this.kProj.forward(x), B, T, this.#kvHeads, this.kNorm), offset);
    let v = this.#split(this.vProj.forward(x), B, T, this.#kvHeads);
    if (cache) [k, v] = at ? cache.append(k, v, at.position) : cache.update(k, v);
    const out = mx.fast.scaledDotProductAttention(q, k, v, this.#scale, at ?? mask);
    const joined = T === 1 ? out : mx.transpose(out, [0, 2, 1, 3]);
    return this.oProj.forward(mx.reshape(joined, [B, T, this.#heads * this.#headDim]));
  }
  /** For the fused step. */
  get sizes(): { heads: number; kvHeads: number; headDim: number; scale: number } {
    return { heads: this.#heads, kvHeads: this.#kvHeads, headDim: this.#headDim, scale: this.#scale };
  }
  /** (B, T, heads * D) -> (B, heads, T, D). With one position no transpose is needed. */
  #split(x: MxArray, B: number, T: number, heads: number, norm?: nn.RMSNorm): MxArray {
    const split = mx.reshape(x, T === 1 ? [B, heads, 1, this.#headDim] : [B, T, heads, this.#headDim]);
    const normed = norm ? norm.forward(split) : split;
    return T === 1 ? normed : mx.transpose(normed, [0, 2, 1, 3]);
  }
}

export class MLP extends nn.Module {
  gateProj: Projection;
  upProj: Projection;
  downProj: Projection;
  readonly #activation: (x: MxArray) => MxArray;

  constructor(config: DecoderConfig, bias: boolean) {
    super();
    this.gateProj = new nn.Linear(config.hidden_size, config.intermediate_size, bias);
    this.upProj = new nn.Linear(config.hidden_size, config.intermediate_size, bias);
    this.downProj = new nn.Linear(config.intermediate_size, config.hidden_size, bias);
    this.#activation = activationOf(config.hidden_act);
  }
  /** True when the activation is x * sigmoid(x). */
  get isSilu(): boolean {
    return this.#activation === nn.silu;
  }
  override forward(x: MxArray): MxArray {
    return this.downProj.forward(mx.multiply(this.#activation(this.gateProj.forward(x)), this.upProj.forward(x)));
  }
}

class DecoderLayer extends nn.Module {
  selfAttn: Attention;
  mlp: MLP;
  inputLayernorm: nn.RMSNorm;
  postAttentionLayernorm: nn.RMSNorm;

  constructor(config: DecoderConfig, traits: DecoderTraits) {
    super();
    this.selfAttn = new Attention(config, traits);
    this.mlp = new MLP(config, traits.mlpBias ?? false);
    this.inputLayernorm = new nn.RMSNorm(config.hidden_size, config.rms_norm_eps);
    this.postAttentionLayernorm = new nn.RMSNorm(config.hidden_size, config.rms_norm_eps);
  }
  override forward(x: MxArray, B: number, T: number, mask: AttentionMask, cache?: KVCache, at?: StepPosition): MxArray {
    const h = mx.add(x, this.selfAttn.forward(this.inputLayernorm.forward(x), B, T, mask, cache, at));
    return mx.add(h, this.mlp.forward(this.postAttentionLayernorm.forward(h)));
  }
}

export class Decoder extends nn.Module {
  embedTokens: nn.Embedding | nn.QuantizedEmbedding;
  layers: DecoderLayer[];
  norm: nn.RMSNorm;
  readonly #windows: readonly (number | undefined)[];

  constructor(config: DecoderConfig, traits: DecoderTraits) {
    super();
    this.#windows = Array.from({ length: config.num_hidden_layers }, (_, i) => traits.windowOf?.(i));
    this.embedTokens = new nn.Embedding(config.vocab_size, config.hidden_size);
    this.layers = this.#windows.map(() => new DecoderLayer(config, traits));
    this.norm = new nn.RMSNorm(config.hidden_size, config.rms_norm_eps);
  }
  /** ids (B, T) -> hidden states (B, T, hidden) before the last norm. */
  override forward(ids: MxArray, cache?: PromptCache, at?: StepPosition): MxArray {
    const [B, T] = ids.shape as [number, number];
    const past = cache?.[0]?.offset ?? 0;
    const masks = new Map<number | undefined, AttentionMask>();
    const early = cache !== undefined && !at && T >= manyPositions && mx.startsEarly();
    let h = this.embedTokens.forward(ids);
    for (const [i, layer] of this.layers.entries()) {
      const window = this.#windows[i];
      let mask = masks.get(window);
      if (mask === undefined) masks.set(window, (mask = attentionMask(T, past, window)));
      h = early ? this.#startedLayer(i, h, B, T, mask, cache) : layer.forward(h, B, T, mask, cache?.[i], at);
    }
    return h;
  }
  /** A layer whose work the device gets before the next ones are recorded: the first at once, then a few at a time. What is between is closed, so that its memory serves again. */
  #startedLayer(i: number, h: MxArray, B: number, T: number, mask: AttentionMask, cache: PromptCache): MxArray {
    const [out] = mx.tidy(() => [(this.layers[i] as DecoderLayer).forward(h, B, T, mask, cache[i]), cache[i]] as const);
    h.dispose();
    // Of the last layer perhaps only keys and values are asked for.
    if (i < this.layers.length - 1 && i % startedLayers === 0) mx.start(out, cache.slice(0, i + 1).map((c) => c.state));
    return out;
  }
  makeCache(): PromptCache {
    return this.#windows.map((window) => new KVCache(window));
  }
}

/** A decoder with its output layer: token ids in, logits out. */
export class CausalLM extends nn.Module {
  model: Decoder;
  lmHead?: Projection;
  readonly #config: DecoderConfig;
  /** Token ids that end a text. */
  readonly #eosTokenIds: ReadonlySet<number>;

  constructor(config: DecoderConfig, traits: DecoderTraits = {}, eosTokenIds: readonly number[] = []) {
    super();
    this.#config = config;
    this.#eosTokenIds = new Set(eosTokenIds);
    this.model = new Decoder(config, traits);
    if (!config.tie_word_embeddings) this.lmHead = new nn.Linear(config.hidden_size, config.vocab_size, false);
  }
  get config(): DecoderConfig {
    return this.#config;
  }
  get eosTokenIds(): ReadonlySet<number> {
    return this.#eosTokenIds;
  }
  /** Number of positions the model can tell apart. */
  get contextLength(): number {
    return contextLength(this.#config);
  }
  get layers(): nn.Module[] {
    return this.model.layers;
  }

  /** Logits of every position: ids (B, T) of an integer dtype -> (B, T, vocabulary) in the weights' dtype. Extends `cache`. */
  override forward(ids: MxArray, cache?: PromptCache): MxArray {
    return this.#logits(this.model.forward(ids, cache));
  }
  /** Logits of the last position only: ids (B, T) -> (B, vocabulary). What generation needs, without T - 1 passes through the output layer. */
  nextLogits(ids: MxArray, cache?: PromptCache, at?: StepPosition): MxArray {
    const [B, T] = ids.shape as [number, number];
    const output = this.lmHead ?? this.model.embedTokens;
    if (at && cache && B === 1 && mx.decode.fusedSteps() && canFuse(this.model, output)) return fusedStep(this.model, output, ids, cache, at);
    const h = this.model.forward(ids, cache, at);
    const last = T === 1 ? h : h.index(mx.Slice(), mx.Slice(T - 1, T), mx.Slice());
    return mx.reshape(this.#logits(last), [B, this.#config.vocab_size]);
  }
  #logits(h: MxArray): MxArray {
    const normed = this.model.norm.forward(h);
    return this.lmHead ? this.lmHead.forward(normed) : this.model.embedTokens.asLinear(normed);
  }
  /** True when a step can be recorded: positions matter only through arrays. */
  get recordable(): boolean {
    return this.model.layers.every((l) => l.selfAttn.rope.fixed);
  }
  /** Empty caches, one per layer. */
  makeCache(): PromptCache {
    return this.model.makeCache();
  }
  /** Weights as this model names them: drops tables that are computed and an output layer that is tied to the embedding. */
  sanitize(weights: Record<string, MxArray>): Record<string, MxArray> {
    const unused = (name: string): boolean => name.includes("rotary_emb.inv_freq") || (this.#config.tie_word_embeddings && name.startsWith("lm_head."));
    return Object.fromEntries(Object.entries(weights).filter(([name]) => !unused(name)));
  }
}

/** Window per layer as Qwen's configs give it: by `layer_types`, or for all layers from `max_window_layers` on. */
export function windowsOf(config: DecoderConfig): (layer: number) => number | undefined {
  const window = config.sliding_window ?? undefined;
  if (window === undefined || config.use_sliding_window === false) return () => undefined;
  const types = config.layer_types;
  if (types) return (i) => (types[i] === "sliding_attention" ? window : undefined);
  return (i) => (i >= (config.max_window_layers ?? 0) ? window : undefined);
}
