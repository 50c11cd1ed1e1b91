/** Pooling over channels-last inputs: a view of sliding windows, and a reduction over them. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

type Sizes = number | readonly number[];

/**
 * Windows of x (N, ...spatial, C) as (N, ...counts, ...window, C). Windows that tile the input exactly need no overlapping view, which keeps them
 * reshapes of it.
 */
function slidingWindows(x: MxArray, window: readonly number[], stride: readonly number[]): MxArray {
  const shape = x.shape;
  const spatial = shape.slice(1, -1);
  const [batch, channels] = [shape[0] as number, shape[shape.length - 1] as number];
  const counts = spatial.map((n, i) => Math.floor((n - (window[i] as number)) / (stride[i] as number)) + 1);
  const order = spatial.map((_, i) => i);
  if (spatial.every((n, i) => window[i] === stride[i] && n % (window[i] as number) === 0)) {
    const parts = mx.reshape(x, [batch, ...order.flatMap((i) => [counts[i] as number, window[i] as number]), channels]);
    return mx.transpose(parts, [0, ...order.map((i) => 1 + 2 * i), ...order.map((i) => 2 + 2 * i), 1 + 2 * order.length]);
  }
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((n, d) => n * d, 1));
  const along = strides.slice(1, -1);
  return mx.asStrided(x, [batch, ...counts, ...window, channels], [strides[0] as number, ...along.map((s, i) => s * (stride[i] as number)), ...along, 1]);
}

/** What all pooling layers share: x (N, ...spatial, C) -> (N, ...counts, C), count = floor((size + 2 * padding - kernelSize) / stride) + 1. */
abstract class Pool extends Module {
  #kernelSize: readonly number[];
  #stride: readonly number[];
  #padding: readonly number[];

  constructor(dims: number, kernelSize: Sizes, stride: Sizes | null, padding: Sizes) {
    super();
    this.#kernelSize = this.#list("kernelSize", kernelSize, dims, 1);
    this.#stride = stride === null ? this.#kernelSize : this.#list("stride", stride, dims, 1);
    this.#padding = this.#list("padding", padding, dims, 0);
  }
  #list(name: string, value: Sizes, dims: number, least: number): readonly number[] {
    const list = typeof value === "number" ? new Array<number>(dims).fill(value) : value;
    const sound = Array.isArray(list) && list.length === dims && list.every((v) => Number.isInteger(v) && v >= least);
    if (!sound) throw new Error(`[${this.constructor.name}] ${name} must be one or ${dims} ${least > 0 ? "positive integers" : "integers of at least 0"}, got ${JSON.stringify(value)}`);
    return list;
  }
  /** Value of padded elements. */
  protected abstract readonly filler: number;
  protected abstract reduce(windows: MxArray, axes: number[]): MxArray;

  protected override extraRepr(): string {
    return `kernelSize=${this.#kernelSize}, stride=${this.#stride}, padding=${this.#padding}`;
  }
  override forward(x: MxArray): MxArray {
    const dims = this.#kernelSize.length;
    const name = this.constructor.name;
    if (x.ndim !== dims + 2) throw new Error(`[${name}] input must have ${dims + 2} dimensions, (N, ...spatial, C), got shape (${x.shape})`);
    const padded = this.#padding.some((p) => p > 0) ? mx.pad(x, [[0, 0], ...this.#padding.map((p) => [p, p] as [number, number]), [0, 0]], this.filler) : x;
    if (this.#kernelSize.some((k, i) => k > (padded.shape[i + 1] as number))) throw new Error(`[${name}] padded input must not be smaller than the window (${this.#kernelSize}), got shape (${padded.shape})`);
    return this.reduce(slidingWindows(padded, this.#kernelSize, this.#stride), this.#kernelSize.map((_, i) => 1 + dims + i));
  }
}
abstract class MaxPool extends Pool {
  protected override get filler(): number {
    return Number.NEGATIVE_INFINITY;
  }
  protected override reduce(windows: MxArray, axes: number[]): MxArray {
    return mx.max(windows, axes);
  }
}
abstract class AvgPool extends Pool {
  protected override get filler(): number {
    return 0;
  }
  protected override reduce(windows: MxArray, axes: number[]): MxArray {
    return mx.mean(windows, axes);
  }
}

/** Largest element of each window: x (N, L, C) -> (N, count, C). `stride` null: windows side by side. Padding counts as -infinity. */
export class MaxPool1d extends MaxPool {
  constructor(kernelSize: Sizes, stride: Sizes | null = null, padding: Sizes = 0) {
    super(1, kernelSize, stride, padding);
  }
}
/** Mean of each window: x (N, L, C) -> (N, count, C). `stride` null: windows side by side. Padding counts as zeros that are part of the mean. */
export class AvgPool1d extends AvgPool {
  constructor(kernelSize: Sizes, stride: Sizes | null = null, padding: Sizes = 0) {
    super(1, kernelSize, stride, padding);
  }
}
/** Largest element of each window: x (N, H, W, C) -> (N, countH, countW, C). See `MaxPool1d`. */
export class MaxPool2d extends MaxPool {
  constructor(kernelSize: Sizes, stride: Sizes | null = null, padding: Sizes = 0) {
    super(2, kernelSize, stride, padding);
  }
}
/** Mean of each window: x (N, H, W, C) -> (N, countH, countW, C). See `AvgPool1d`. */
export class AvgPool2d extends AvgPool {
  constructor(kernelSize: Sizes, stride: Sizes | null = null, padding: Sizes = 0) {
    super(2, kernelSize, stride, padding);
  }
}
/** Largest element of each window: x (N, D, H, W, C) -> (N, countD, countH, countW, C). See `MaxPool1d`. */
export class MaxPool3d extends MaxPool {
  constructor(kernelSize: Sizes, stride: Sizes | null = null, padding: Sizes = 0) {
    super(3, kernelSize, stride, padding);
  }
}
/** Mean of each window: x (N, D, H, W, C) -> (N, countD, countH, countW, C). See `AvgPool1d`. */
export class AvgPool3d extends AvgPool {
  constructor(kernelSize: Sizes, stride: Sizes | null = null, padding: Sizes = 0) {
    super(3, kernelSize, stride, padding);
  }
}
