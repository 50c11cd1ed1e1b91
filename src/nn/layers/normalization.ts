/** Normalization over the last axis (there sums are taken in float32 whatever the input's dtype is), over positions, groups of features, and batches. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module, showNumber } from "../module.ts";

function requireEps(layer: string, eps: number): number {
  if (!(eps > 0)) throw new Error(`[${layer}] eps must be positive, got ${eps}`);
  return eps;
}
/** x weight + bias, where the layer has them. */
const scaled = (x: MxArray, weight: MxArray | undefined, bias: MxArray | undefined): MxArray => (weight && bias ? mx.add(mx.multiply(weight, x), bias) : x);
/** (x - mean) / sqrt(variance + eps). */
const standardized = (x: MxArray, mean: MxArray, variance: MxArray, eps: number): MxArray => mx.multiply(mx.subtract(x, mean), mx.rsqrt(mx.add(variance, eps)));

/** `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019): x (..., dims) -> the same shape and dtype. */
export class RMSNorm extends Module {
  weight: MxArray;
  eps: number;

  constructor(dims: number, eps = 1e-5) {
    super();
    this.weight = mx.ones([dims]);
    this.eps = requireEps("RMSNorm", eps);
  }
  protected override extraRepr(): string {
    return `${this.weight.shape[0]}, eps=${showNumber(this.eps)}`;
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
    this.eps = requireEps("LayerNorm", eps);
    if (affine) {
      this.weight = mx.ones([dims]);
      if (bias) this.bias = mx.zeros([dims]);
    }
  }
  protected override extraRepr(): string {
    return `${this.dims}, eps=${showNumber(this.eps)}, affine=${this.weight !== undefined}`;
  }
  override forward(x: MxArray): MxArray {
    return mx.fast.layerNorm(x, this.weight ?? null, this.bias ?? null, this.eps);
  }
}

/** Normalizes each feature of each example over its positions (Ulyanov et al. 2016): x (N, ...spatial, dims) -> the same shape. */
export class InstanceNorm extends Module {
  dims: number;
  eps: number;
  weight?: MxArray;
  bias?: MxArray;

  constructor(dims: number, eps = 1e-5, affine = false) {
    super();
    this.dims = dims;
    this.eps = requireEps("InstanceNorm", eps);
    if (affine) {
      this.weight = mx.ones([dims]);
      this.bias = mx.zeros([dims]);
    }
  }
  protected override extraRepr(): string {
    return `${this.dims}, eps=${showNumber(this.eps)}, affine=${this.weight !== undefined}`;
  }
  override forward(x: MxArray): MxArray {
    if (x.ndim < 3) throw new Error(`[InstanceNorm] input must have at least 3 dimensions, (N, ...spatial, dims), got shape (${x.shape})`);
    const [batch, features] = [x.shape[0] as number, x.shape[x.ndim - 1] as number];
    const rows = mx.moveaxis(x, -1, 1);
    const normal = mx.fast.layerNorm(mx.reshape(rows, [batch, features, -1]), null, null, this.eps);
    return scaled(mx.moveaxis(mx.reshape(normal, rows.shape), 1, -1), this.weight, this.bias);
  }
}

/**
 * Normalizes each group of features of each example over the group and all positions (Wu and He 2018): x (N, ...spatial, dims) -> the same shape. Group g holds the
 * features with number g modulo numGroups; with `pyTorchCompatible` neighbouring features, as in PyTorch.
 */
export class GroupNorm extends Module {
  numGroups: number;
  dims: number;
  eps: number;
  pyTorchCompatible: boolean;
  weight?: MxArray;
  bias?: MxArray;

  constructor(numGroups: number, dims: number, eps = 1e-5, affine = true, pyTorchCompatible = false) {
    super();
    if (!(numGroups > 0 && dims > 0 && dims % numGroups === 0)) throw new Error(`[GroupNorm] dims must be a positive multiple of numGroups, got ${dims} and ${numGroups}`);
    this.numGroups = numGroups;
    this.dims = dims;
    this.eps = requireEps("GroupNorm", eps);
    this.pyTorchCompatible = pyTorchCompatible;
    if (affine) {
      this.weight = mx.ones([dims]);
      this.bias = mx.zeros([dims]);
    }
  }
  protected override extraRepr(): string {
    return `${this.numGroups}, ${this.dims}, eps=${showNumber(this.eps)}, affine=${this.weight !== undefined}, pyTorchCompatible=${this.pyTorchCompatible}`;
  }
  #neighbours(x: MxArray): MxArray {
    const [batch, groups, size] = [x.shape[0] as number, this.numGroups, this.dims / this.numGroups];
    const rows = mx.reshape(mx.transpose(mx.reshape(x, [batch, -1, groups, size]), [0, 2, 1, 3]), [batch, groups, -1]);
    const normal = mx.reshape(mx.fast.layerNorm(rows, null, null, this.eps), [batch, groups, -1, size]);
    return mx.reshape(mx.transpose(normal, [0, 2, 1, 3]), x.shape);
  }
  #strided(x: MxArray): MxArray {
    const rows = mx.reshape(x, [x.shape[0] as number, -1, this.numGroups]);
    return mx.reshape(standardized(rows, mx.mean(rows, 1, true), mx.variance(rows, 1, true), this.eps), x.shape);
  }
  override forward(x: MxArray): MxArray {
    if (x.ndim < 2 || x.shape[x.ndim - 1] !== this.dims) throw new Error(`[GroupNorm] input must be (N, ...spatial, ${this.dims}), got shape (${x.shape})`);
    return scaled(this.pyTorchCompatible ? this.#neighbours(x) : this.#strided(x), this.weight, this.bias);
  }
}

/**
 * Normalizes each feature over the batch and all positions (Ioffe and Szegedy 2015): x (N, C), (N, L, C) or (N, H, W, C) -> the same shape. In training, running
 * averages of mean and variance are kept, by which `eval` mode normalizes: running = (1 - momentum) running + momentum fresh. They are never trained.
 */
export class BatchNorm extends Module {
  numFeatures: number;
  eps: number;
  momentum: number;
  trackRunningStats: boolean;
  ddof: number;
  weight?: MxArray;
  bias?: MxArray;
  runningMean?: MxArray;
  runningVar?: MxArray;

  /** @param ddof what the sum of squares for `runningVar` is divided by is the number of values less this: 0 as in node-mlx, 1 as in MLX 0.32 and PyTorch */
  constructor(numFeatures: number, eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true, ddof = 0) {
    super();
    this.numFeatures = numFeatures;
    this.eps = requireEps("BatchNorm", eps);
    this.momentum = momentum;
    this.trackRunningStats = trackRunningStats;
    this.ddof = ddof;
    if (affine) {
      this.weight = mx.ones([numFeatures]);
      this.bias = mx.zeros([numFeatures]);
    }
    if (trackRunningStats) {
      this.runningMean = mx.zeros([numFeatures]);
      this.runningVar = mx.ones([numFeatures]);
      this.#freezeStats();
    }
  }
  #freezeStats(): void {
    this.freeze(false, ["runningMean", "runningVar"]);
  }
  protected override refreeze(): void {
    this.#freezeStats();
  }
  protected override extraRepr(): string {
    return `${this.numFeatures}, eps=${showNumber(this.eps)}, momentum=${this.momentum}, affine=${this.weight !== undefined}, trackRunningStats=${this.trackRunningStats}`;
  }
  #track(mean: MxArray, variance: MxArray): void {
    const average = (old: MxArray | undefined, fresh: MxArray): MxArray => mx.add(mx.multiply(old as MxArray, 1 - this.momentum), mx.multiply(fresh, this.momentum));
    this.runningMean = average(this.runningMean, mean);
    this.runningVar = average(this.runningVar, variance);
  }
  override forward(x: MxArray): MxArray {
    if (x.ndim < 2 || x.ndim > 4) throw new Error(`[BatchNorm] input must have 2, 3 or 4 dimensions, got shape (${x.shape})`);
    if (this.training && x.shape.slice(0, -1).every((n) => n === 1)) throw new Error(`[BatchNorm] training needs more than one value per feature, got shape (${x.shape})`);
    if (!this.training && this.runningMean && this.runningVar) return scaled(standardized(x, this.runningMean, this.runningVar, this.eps), this.weight, this.bias);
    const axes = x.shape.slice(0, -1).map((_, i) => i);
    const mean = mx.mean(x, axes);
    const variance = mx.variance(x, axes);
    if (this.training && this.trackRunningStats) this.#track(mean, this.ddof === 0 ? variance : mx.variance(x, axes, false, this.ddof));
    return scaled(standardized(x, mean, variance, this.eps), this.weight, this.bias);
  }
}
