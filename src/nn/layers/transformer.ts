/** Attention with several heads, and the encoder-decoder transformer (Vaswani et al. 2017). */
import { core as mx, type Dtype, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";
import { checkpoint as checkpointed } from "../transforms.ts";
import { relu } from "./activations.ts";
import { Dropout } from "./dropout.ts";
import { Linear } from "./linear.ts";
import { LayerNorm } from "./normalization.ts";

/** Mask of attention: additive or boolean, broadcast to (batch, numHeads, queries, keys); null: none. */
export type Mask = MxArray | "causal" | null;
type Activation = (x: MxArray) => MxArray;

/** Scaled dot-product attention of projected inputs, with numHeads heads; the heads' results are joined and projected. */
export class MultiHeadAttention extends Module {
  numHeads: number;
  queryProj: Linear;
  keyProj: Linear;
  valueProj: Linear;
  outProj: Linear;

  /**
   * @param dims features of the projected queries and keys; default of all others
   * @param valueInputDims default: keyInputDims
   * @throws unless dims is a multiple of numHeads
   */
  constructor(
    dims: number, numHeads: number, queryInputDims: number | null = null, keyInputDims: number | null = null, valueInputDims: number | null = null, valueDims: number | null = null, valueOutputDims: number | null = null, bias = false,
  ) {
    super();
    if (dims % numHeads !== 0) throw new Error(`[MultiHeadAttention] dims must be divisible by numHeads, got ${dims} and ${numHeads}`);
    this.numHeads = numHeads;
    this.queryProj = new Linear(queryInputDims ?? dims, dims, bias);
    this.keyProj = new Linear(keyInputDims ?? dims, dims, bias);
    this.valueProj = new Linear(valueInputDims ?? keyInputDims ?? dims, valueDims ?? dims, bias);
    this.outProj = new Linear(valueDims ?? dims, valueOutputDims ?? dims, bias);
  }
  /** queries (N, L, queryInputDims), keys (N, S, keyInputDims), values (N, S, valueInputDims) -> (N, L, valueOutputDims). */
  override forward(queries: MxArray, keys: MxArray, values: MxArray, mask: Mask = null): MxArray {
    const heads = (x: MxArray): MxArray => mx.transpose(mx.unflatten(x, -1, [this.numHeads, -1]), [0, 2, 1, 3]);
    const q = heads(this.queryProj.forward(queries));
    const scale = Math.sqrt(1 / (q.shape[3] as number));
    const out = mx.fast.scaledDotProductAttention(q, heads(this.keyProj.forward(keys)), heads(this.valueProj.forward(values)), scale, mask);
    return this.outProj.forward(mx.flatten(mx.transpose(out, [0, 2, 1, 3]), -2, -1));
  }
  /** (N, N) mask: 0 up to the diagonal, above it the least finite number of the dtype, which stays finite where -infinity would give NaN. */
  static createAdditiveCausalMask(N: number, dtype: Dtype = mx.float32): MxArray {
    const indices = mx.arange(N);
    const later = mx.less(mx.expandDims(indices, 1), mx.expandDims(indices, 0));
    return mx.multiply(later.astype(dtype), mx.array(mx.finfo(dtype).min, dtype));
  }
}

/** Self-attention and a perceptron with one hidden layer, each with dropout, a residual and a norm (before it with `normFirst`, else after the sum). */
export class TransformerEncoderLayer extends Module {
  mlpDims: number;
  attention: MultiHeadAttention;
  ln1: LayerNorm;
  ln2: LayerNorm;
  linear1: Linear;
  linear2: Linear;
  dropout1: Dropout;
  dropout2: Dropout;
  activation: Activation;
  normFirst: boolean;

  constructor(dims: number, numHeads: number, mlpDims: number | null = null, dropout = 0, activation: Activation = relu, normFirst = true) {
    super();
    this.mlpDims = mlpDims ?? dims * 4;
    this.attention = new MultiHeadAttention(dims, numHeads);
    this.ln1 = new LayerNorm(dims);
    this.ln2 = new LayerNorm(dims);
    this.linear1 = new Linear(dims, this.mlpDims);
    this.linear2 = new Linear(this.mlpDims, dims);
    this.dropout1 = new Dropout(dropout);
    this.dropout2 = new Dropout(dropout);
    this.activation = activation;
    this.normFirst = normFirst;
  }
  #attend(x: MxArray, mask: Mask): MxArray {
    return this.dropout1.forward(this.attention.forward(x, x, x, mask));
  }
  #mlp(x: MxArray): MxArray {
    return this.linear2.forward(this.dropout2.forward(this.activation(this.linear1.forward(x))));
  }
  /** x (N, L, dims) -> the same shape. */
  override forward(x: MxArray, mask: Mask = null): MxArray {
    if (this.normFirst) {
      const y = mx.add(x, this.#attend(this.ln1.forward(x), mask));
      return mx.add(y, this.#mlp(this.ln2.forward(y)));
    }
    const y = this.ln1.forward(mx.add(x, this.#attend(x, mask)));
    return this.ln2.forward(mx.add(y, this.#mlp(y)));
  }
}

/** numLayers encoder layers and a norm. With `checkpoint` layers are computed again for the gradient instead of kept. */
export class TransformerEncoder extends Module {
  layers: TransformerEncoderLayer[];
  ln: LayerNorm;
  checkpoint: boolean;

  constructor(numLayers: number, dims: number, numHeads: number, mlpDims: number | null = null, dropout = 0, activation: Activation = relu, normFirst = true, checkpoint = false) {
    super();
    this.layers = Array.from({ length: numLayers }, () => new TransformerEncoderLayer(dims, numHeads, mlpDims, dropout, activation, normFirst));
    this.ln = new LayerNorm(dims);
    this.checkpoint = checkpoint;
  }
  /** x (N, L, dims) -> the same shape. */
  override forward(x: MxArray, mask: Mask = null): MxArray {
    let y = x;
    for (const layer of this.layers) y = this.checkpoint ? checkpointed(layer)(y, mask) : layer.forward(y, mask);
    return this.ln.forward(y);
  }
}

/** As an encoder layer, with attention to the encoder's output ("memory") after the self-attention. */
export class TransformerDecoderLayer extends Module {
  mlpDims: number;
  selfAttention: MultiHeadAttention;
  crossAttention: MultiHeadAttention;
  ln1: LayerNorm;
  ln2: LayerNorm;
  ln3: LayerNorm;
  linear1: Linear;
  linear2: Linear;
  dropout1: Dropout;
  dropout2: Dropout;
  dropout3: Dropout;
  activation: Activation;
  normFirst: boolean;

  constructor(dims: number, numHeads: number, mlpDims: number | null = null, dropout = 0, activation: Activation = relu, normFirst = true) {
    super();
    this.mlpDims = mlpDims ?? dims * 4;
    this.selfAttention = new MultiHeadAttention(dims, numHeads);
    this.crossAttention = new MultiHeadAttention(dims, numHeads);
    this.ln1 = new LayerNorm(dims);
    this.ln2 = new LayerNorm(dims);
    this.ln3 = new LayerNorm(dims);
    this.linear1 = new Linear(dims, this.mlpDims);
    this.linear2 = new Linear(this.mlpDims, dims);
    this.dropout1 = new Dropout(dropout);
    this.dropout2 = new Dropout(dropout);
    this.dropout3 = new Dropout(dropout);
    this.activation = activation;
    this.normFirst = normFirst;
  }
  #attend(x: MxArray, mask: Mask): MxArray {
    return this.dropout1.forward(this.selfAttention.forward(x, x, x, mask));
  }
  #remember(x: MxArray, memory: MxArray, mask: Mask): MxArray {
    return this.dropout2.forward(this.crossAttention.forward(x, memory, memory, mask));
  }
  #mlp(x: MxArray): MxArray {
    return this.linear2.forward(this.dropout3.forward(this.activation(this.linear1.forward(x))));
  }
  /** x (N, L, dims) and memory (N, S, dims) -> (N, L, dims). */
  override forward(x: MxArray, memory: MxArray, xMask: Mask = null, memoryMask: Mask = null): MxArray {
    if (this.normFirst) {
      const y = mx.add(x, this.#attend(this.ln1.forward(x), xMask));
      const z = mx.add(y, this.#remember(this.ln2.forward(y), memory, memoryMask));
      return mx.add(z, this.#mlp(this.ln3.forward(z)));
    }
    const y = this.ln1.forward(mx.add(x, this.#attend(x, xMask)));
    const z = this.ln2.forward(mx.add(y, this.#remember(y, memory, memoryMask)));
    return this.ln3.forward(mx.add(z, this.#mlp(z)));
  }
}

/** numLayers decoder layers and a norm. With `checkpoint` layers are computed again for the gradient instead of kept. */
export class TransformerDecoder extends Module {
  layers: TransformerDecoderLayer[];
  ln: LayerNorm;
  checkpoint: boolean;

  constructor(numLayers: number, dims: number, numHeads: number, mlpDims: number | null = null, dropout = 0, activation: Activation = relu, normFirst = true, checkpoint = false) {
    super();
    this.layers = Array.from({ length: numLayers }, () => new TransformerDecoderLayer(dims, numHeads, mlpDims, dropout, activation, normFirst));
    this.ln = new LayerNorm(dims);
    this.checkpoint = checkpoint;
  }
  /** x (N, L, dims) and memory (N, S, dims) -> (N, L, dims). */
  override forward(x: MxArray, memory: MxArray, xMask: Mask = null, memoryMask: Mask = null): MxArray {
    let y = x;
    for (const layer of this.layers) y = this.checkpoint ? checkpointed(layer)(y, memory, xMask, memoryMask) : layer.forward(y, memory, xMask, memoryMask);
    return this.ln.forward(y);
  }
}

/** Encoder and decoder. */
export class Transformer extends Module {
  encoder: Module;
  decoder: Module;

  /** @param customEncoder stands for the encoder: `forward(src, mask)`; customDecoder: `forward(tgt, memory, tgtMask, memoryMask)` */
  constructor(
    dims = 512, numHeads = 8, numEncoderLayers = 6, numDecoderLayers = 6, mlpDims: number | null = null, dropout = 0, activation: Activation = relu, customEncoder: Module | null = null, customDecoder: Module | null = null, normFirst = true,
    checkpoint = false,
  ) {
    super();
    this.encoder = customEncoder ?? new TransformerEncoder(numEncoderLayers, dims, numHeads, mlpDims, dropout, activation, normFirst, checkpoint);
    this.decoder = customDecoder ?? new TransformerDecoder(numDecoderLayers, dims, numHeads, mlpDims, dropout, activation, normFirst, checkpoint);
  }
  /** src (N, S, dims) and tgt (N, L, dims) -> (N, L, dims). */
  override forward(src: MxArray, tgt: MxArray, srcMask: Mask = null, tgtMask: Mask = null, memoryMask: Mask = null): MxArray {
    return this.decoder.forward(tgt, this.encoder.forward(src, srcMask), tgtMask, memoryMask) as MxArray;
  }
}
