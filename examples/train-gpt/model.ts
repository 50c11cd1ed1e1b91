/** A small GPT of Llama's shape: RMSNorm, rotary attention, gated MLP. Members are named as in Llama checkpoints, so that the weights load as one. */
import { core as mx, nn, type MxArray } from "mlx-vk";

export interface ModelConfig {
  /** Number of different characters. */
  vocabulary: number;
  /** Features per position; a multiple of `heads` and of the group size of quantization. */
  width: number;
  layers: number;
  heads: number;
  /** Positions of a training sequence. */
  context: number;
}
export const ropeBase = 10000;
export const normEps = 1e-5;
/** Features between the two halves of the MLP: 8/3 of the width, as in Llama, in whole groups of quantization. */
export const hiddenWidth = (width: number): number => Math.ceil((8 * width) / 3 / 32) * 32;

class Attention extends nn.Module {
  qProj: nn.Linear;
  kProj: nn.Linear;
  vProj: nn.Linear;
  oProj: nn.Linear;
  readonly heads: number;

  constructor({ width, heads }: ModelConfig) {
    super();
    this.heads = heads;
    this.qProj = new nn.Linear(width, width, false);
    this.kProj = new nn.Linear(width, width, false);
    this.vProj = new nn.Linear(width, width, false);
    this.oProj = new nn.Linear(width, width, false);
  }
  override forward(x: MxArray): MxArray {
    const [B, T, width] = x.shape as [number, number, number];
    const size = width / this.heads;
    /** (B, T, width) -> (B, heads, T, size) */
    const split = (y: MxArray): MxArray => y.reshape([B, T, this.heads, size]).transpose([0, 2, 1, 3]);
    const rotate = (y: MxArray): MxArray => mx.fast.rope(y, size, false, ropeBase, 1, 0);
    const q = rotate(split(this.qProj.forward(x)));
    const k = rotate(split(this.kProj.forward(x)));
    const v = split(this.vProj.forward(x));
    const y = mx.fast.scaledDotProductAttention(q, k, v, 1 / Math.sqrt(size), "causal");
    return this.oProj.forward(y.transpose([0, 2, 1, 3]).reshape([B, T, width]));
  }
}

class MLP extends nn.Module {
  gateProj: nn.Linear;
  upProj: nn.Linear;
  downProj: nn.Linear;

  constructor({ width }: ModelConfig) {
    super();
    const hidden = hiddenWidth(width);
    this.gateProj = new nn.Linear(width, hidden, false);
    this.upProj = new nn.Linear(width, hidden, false);
    this.downProj = new nn.Linear(hidden, width, false);
  }
  override forward(x: MxArray): MxArray {
    return this.downProj.forward(mx.multiply(nn.silu(this.gateProj.forward(x)), this.upProj.forward(x)));
  }
}

class Block extends nn.Module {
  selfAttn: Attention;
  mlp: MLP;
  inputLayernorm: nn.RMSNorm;
  postAttentionLayernorm: nn.RMSNorm;

  constructor(config: ModelConfig) {
    super();
    this.selfAttn = new Attention(config);
    this.mlp = new MLP(config);
    this.inputLayernorm = new nn.RMSNorm(config.width, normEps);
    this.postAttentionLayernorm = new nn.RMSNorm(config.width, normEps);
  }
  override forward(x: MxArray): MxArray {
    const h = mx.add(x, this.selfAttn.forward(this.inputLayernorm.forward(x)));
    return mx.add(h, this.mlp.forward(this.postAttentionLayernorm.forward(h)));
  }
}

class Decoder extends nn.Module {
  embedTokens: nn.Embedding;
  layers: Block[];
  norm: nn.RMSNorm;

  constructor(config: ModelConfig) {
    super();
    this.embedTokens = new nn.Embedding(config.vocabulary, config.width);
    this.layers = Array.from({ length: config.layers }, () => new Block(config));
    this.norm = new nn.RMSNorm(config.width, normEps);
  }
  override forward(ids: MxArray): MxArray {
    const x = this.layers.reduce((h, layer) => layer.forward(h), this.embedTokens.forward(ids));
    return this.norm.forward(x);
  }
}

/** Ids (B, T) -> logits (B, T, vocabulary). The embedding is the output layer, too. */
export class GPT extends nn.Module {
  model: Decoder;

  constructor(config: ModelConfig) {
    super();
    this.model = new Decoder(config);
  }
  override forward(ids: MxArray): MxArray {
    return this.model.embedTokens.asLinear(this.model.forward(ids));
  }
}

/** Mean loss per character of ids (B, T + 1), in nats: each position predicts the next. */
export function lossOf(model: GPT, ids: MxArray): MxArray {
  const T = (ids.shape[1] as number) - 1;
  const logits = model.forward(ids.index(mx.Slice(), mx.Slice(0, T)));
  return nn.losses.crossEntropy(logits, ids.index(mx.Slice(), mx.Slice(1)), undefined, -1, 0, "mean");
}
