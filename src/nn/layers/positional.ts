/** Position encodings. */
import { core as mx, type Dtype, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

/**
 * Rotary position embedding (Su et al. 2021): rotates the first `dims` features of x (..., T, D) by angles that grow with the position.
 * `traditional` pairs neighbours, otherwise the two halves are paired.
 */
export class RoPE extends Module {
  dims: number;
  traditional: boolean;
  base: number;
  scale: number;

  constructor(dims: number, traditional = false, base = 10000, scale = 1.0) {
    super();
    this.dims = dims;
    this.traditional = traditional;
    this.base = base;
    this.scale = scale;
  }
  protected override extraRepr(): string {
    return `${this.dims}, traditional=${this.traditional}, base=${this.base}, scale=${this.scale}`;
  }
  /** @param offset position of the first row of x */
  override forward(x: MxArray, offset: number | MxArray = 0): MxArray {
    return mx.fast.rope(x, this.dims, this.traditional, this.base, this.scale, offset);
  }
}

/**
 * Sines and cosines of positions (Vaswani et al. 2017): x (...) -> (..., dims). The dims / 2 frequencies fall from maxFreq to minFreq in equal ratios; the first half
 * of the features holds the sines (with `cosFirst` the cosines).
 */
export class SinusoidalPositionalEncoding extends Module {
  scale: number;
  cosFirst: boolean;
  _sigmas: MxArray;

  /** @param scale factor of the result; null: sqrt(2 / dims). @param fullTurns positions count whole turns instead of radians */
  constructor(dims: number, minFreq = 0.0001, maxFreq = 1, scale: number | null = null, cosFirst = false, fullTurns = false) {
    super();
    if (!(Number.isInteger(dims) && dims > 0 && dims % 2 === 0)) throw new Error(`[SinusoidalPositionalEncoding] dims must be positive and even, got ${dims}`);
    const half = dims / 2;
    const [low, high] = [Math.log(minFreq), Math.log(maxFreq)];
    const turn = fullTurns ? 2 * Math.PI : 1;
    this._sigmas = mx.array(Float32Array.from({ length: half }, (_, i) => turn * Math.exp((half === 1 ? 1 : 1 - i / (half - 1)) * (high - low) + low)));
    this.scale = scale ?? Math.sqrt(2 / dims);
    this.cosFirst = cosFirst;
  }
  override forward(x: MxArray): MxArray {
    const angles = mx.multiply(mx.expandDims(x, -1), this._sigmas);
    const parts = [mx.sin(angles), mx.cos(angles)];
    const y = mx.concatenate(this.cosFirst ? parts.reverse() : parts, -1);
    return this.scale === 1 ? y : mx.multiply(y, this.scale);
  }
}

/** Slopes 2^(-8/n), 2^(-16/n), ... of n heads; where n is no power of two, those of the power below, and every other one of the power above. */
function slopes(n: number): number[] {
  const power = 2 ** Math.floor(Math.log2(n));
  const start = 2 ** (-8 / power);
  const list = Array.from({ length: power }, (_, i) => start ** (i + 1));
  return power === n ? list : [...list, ...slopes(2 * power).filter((_, i) => i % 2 === 0).slice(0, n - power)];
}

/** Attention with linear biases (Press et al. 2022): adds -slope * distance to scores (N, numHeads, queries, keys), with another slope for each head. */
export class ALiBi extends Module {
  /** (1, numHeads, qSequenceLength - offset, kSequenceLength), of dtype `dtype`; queries stand at positions offset .. qSequenceLength - 1. */
  static createAlibiMatrix(qSequenceLength: number, kSequenceLength: number, numHeads: number, offset: number, dtype: Dtype = mx.float32): MxArray {
    const distance = mx.abs(mx.subtract(mx.expandDims(mx.arange(offset, qSequenceLength), 1), mx.expandDims(mx.arange(0, kSequenceLength), 0)));
    return mx.multiply(mx.negative(mx.expandDims(distance, [0, 1])), ALiBi.createAlibiSlope(numHeads, dtype)).astype(dtype);
  }
  /** (numHeads, 1, 1). */
  static createAlibiSlope(numHeads: number, dtype: Dtype = mx.float32): MxArray {
    if (!(Number.isInteger(numHeads) && numHeads > 0)) throw new Error(`[ALiBi] the number of heads must be positive, got ${numHeads}`);
    return mx.reshape(mx.array(slopes(numHeads)), [numHeads, 1, 1]).astype(dtype);
  }
  /** @param offset position of the first query. @param mask added as well */
  override forward(attentionScores: MxArray, offset = 0, mask?: MxArray | null): MxArray {
    if (attentionScores.ndim !== 4) throw new Error(`[ALiBi] scores must be (N, numHeads, queries, keys), got shape (${attentionScores.shape})`);
    const [, heads = 0, queries = 0, keys = 0] = attentionScores.shape;
    const bias = ALiBi.createAlibiMatrix(queries + offset, keys, heads, offset, attentionScores.dtype);
    return mx.add(attentionScores, mask ? mx.add(bias, mask) : bias);
  }
}
