/** Normalization over the last axis. Sums are taken in float32 whatever the input's dtype is. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

/** `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019): x (..., dims) -> the same shape and dtype. */
export class RMSNorm extends Module {
  weight: MxArray;
  eps: number;

  constructor(dims: number, eps = 1e-5) {
    super();
    this.weight = mx.ones([dims]);
    this.eps = eps;
  }
  protected override extraRepr(): string {
    return `${this.weight.shape[0]}, eps=${this.eps}`;
  }
  override forward(x: MxArray): MxArray {
    return mx.fast.rmsNorm(x, this.weight, this.eps);
  }
}

/** `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` (Ba et al. 2016): x (..., dims) -> the same shape and dtype. */
export class LayerNorm extends Module {
  dims: number;
  eps: number;
  weight?: MxArray;
  bias?: MxArray;

  constructor(dims: number, eps = 1e-5, affine = true, bias = true) {
    super();
    this.dims = dims;
    this.eps = eps;
    if (affine) {
      this.weight = mx.ones([dims]);
      if (bias) this.bias = mx.zeros([dims]);
    }
  }
  protected override extraRepr(): string {
    return `${this.dims}, eps=${this.eps}, affine=${this.weight !== undefined}`;
  }
  override forward(x: MxArray): MxArray {
    return mx.fast.layerNorm(x, this.weight ?? null, this.bias ?? null, this.eps);
  }
}
