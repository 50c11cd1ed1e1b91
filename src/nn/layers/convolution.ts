/** Convolutions and transposed convolutions over channels-last inputs. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

type Sizes = number | number[];
/** One entry per spatial dimension. */
const perDimension = (value: Sizes, dims: number): number[] => (typeof value === "number" ? new Array<number>(dims).fill(value) : value);

/** Filters (out, ...kernel, channels), uniform in +-1 / sqrt(inputs of a filter without groups), as MLX starts them. */
function filters(inChannels: number, outChannels: number, kernel: readonly number[], groups = 1): MxArray {
  const scale = Math.sqrt(1 / kernel.reduce((n, k) => n * k, inChannels));
  return mx.random.uniform(-scale, scale, [outChannels, ...kernel, inChannels / groups]);
}
function checkGroups(name: string, inChannels: number, groups: number): void {
  if (inChannels % groups !== 0) throw new Error(`[${name}] inChannels must be divisible by groups, got ${inChannels} and ${groups}`);
}
const plus = (y: MxArray, bias: MxArray | undefined): MxArray => (bias ? mx.add(y, bias) : y);

interface Shown {
  weight: MxArray;
  stride: Sizes;
  padding: Sizes;
  dilation: Sizes;
  bias?: MxArray;
  groups?: number;
  outputPadding?: Sizes;
}
/** What stands in the brackets of `toString()`. */
function show(m: Shown): string {
  const shape = m.weight.shape;
  const parts = [`${(shape[shape.length - 1] as number) * (m.groups ?? 1)}`, `${shape[0]}`, `kernelSize=${shape.slice(1, -1)}`, `stride=${m.stride}`, `padding=${m.padding}`, `dilation=${m.dilation}`];
  if (m.groups !== undefined) parts.push(`groups=${m.groups}`);
  if (m.outputPadding !== undefined) parts.push(`outputPadding=${m.outputPadding}`);
  return [...parts, `bias=${m.bias !== undefined}`].join(", ");
}

/** 1D convolution: x (N, L, inChannels) -> (N, out, outChannels). The weight has shape (outChannels, kernelSize, inChannels / groups). */
export class Conv1d extends Module {
  stride: number;
  padding: number;
  dilation: number;
  groups: number;
  weight: MxArray;
  bias?: MxArray;

  constructor(inChannels: number, outChannels: number, kernelSize: number, stride = 1, padding = 0, dilation = 1, groups = 1, bias = true) {
    super();
    checkGroups("Conv1d", inChannels, groups);
    this.weight = filters(inChannels, outChannels, [kernelSize], groups);
    if (bias) this.bias = mx.zeros([outChannels]);
    this.stride = stride;
    this.padding = padding;
    this.dilation = dilation;
    this.groups = groups;
  }
  protected override extraRepr(): string {
    return show(this);
  }
  override forward(x: MxArray): MxArray {
    return plus(mx.conv1d(x, this.weight, this.stride, this.padding, this.dilation, this.groups), this.bias);
  }
}

/** 2D convolution: x (N, H, W, inChannels) -> (N, outH, outW, outChannels). The weight has shape (outChannels, ...kernelSize, inChannels / groups). */
export class Conv2d extends Module {
  stride: number[];
  padding: number[];
  dilation: Sizes;
  groups: number;
  weight: MxArray;
  bias?: MxArray;

  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, stride: Sizes = [1, 1], padding: Sizes = [0, 0], dilation: Sizes = 1, groups = 1, bias = true) {
    super();
    checkGroups("Conv2d", inChannels, groups);
    this.weight = filters(inChannels, outChannels, perDimension(kernelSize, 2), groups);
    if (bias) this.bias = mx.zeros([outChannels]);
    this.stride = perDimension(stride, 2);
    this.padding = perDimension(padding, 2);
    this.dilation = dilation;
    this.groups = groups;
  }
  protected override extraRepr(): string {
    return show(this);
  }
  override forward(x: MxArray): MxArray {
    return plus(mx.conv2d(x, this.weight, this.stride, this.padding, this.dilation, this.groups), this.bias);
  }
}

/** 3D convolution: x (N, D, H, W, inChannels) -> (N, outD, outH, outW, outChannels). The weight has shape (outChannels, ...kernelSize, inChannels). */
export class Conv3d extends Module {
  stride: number[];
  padding: number[];
  dilation: Sizes;
  weight: MxArray;
  bias?: MxArray;

  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, stride: Sizes = [1, 1, 1], padding: Sizes = [0, 0, 0], dilation: Sizes = [1, 1, 1], bias = true) {
    super();
    this.weight = filters(inChannels, outChannels, perDimension(kernelSize, 3));
    if (bias) this.bias = mx.zeros([outChannels]);
    this.stride = perDimension(stride, 3);
    this.padding = perDimension(padding, 3);
    this.dilation = dilation;
  }
  protected override extraRepr(): string {
    return show(this);
  }
  override forward(x: MxArray): MxArray {
    return plus(mx.conv3d(x, this.weight, this.stride, this.padding, this.dilation), this.bias);
  }
}

/** Transposed 1D convolution: x (N, L, inChannels) -> (N, (L - 1) * stride - 2 * padding + dilation * (kernelSize - 1) + 1 + outputPadding, outChannels). */
export class ConvTranspose1d extends Module {
  stride: number;
  padding: number;
  dilation: number;
  outputPadding: number;
  weight: MxArray;
  bias?: MxArray;

  constructor(inChannels: number, outChannels: number, kernelSize: number, stride = 1, padding = 0, dilation = 1, bias = true, outputPadding = 0) {
    super();
    this.weight = filters(inChannels, outChannels, [kernelSize]);
    if (bias) this.bias = mx.zeros([outChannels]);
    this.stride = stride;
    this.padding = padding;
    this.dilation = dilation;
    this.outputPadding = outputPadding;
  }
  protected override extraRepr(): string {
    return show(this);
  }
  override forward(x: MxArray): MxArray {
    return plus(mx.convTranspose1d(x, this.weight, this.stride, this.padding, this.dilation, 1, this.outputPadding), this.bias);
  }
}

/** Transposed 2D convolution: x (N, H, W, inChannels) -> (N, outH, outW, outChannels); sizes as `ConvTranspose1d` gives them. */
export class ConvTranspose2d extends Module {
  stride: number[];
  padding: number[];
  dilation: Sizes;
  outputPadding: number[];
  weight: MxArray;
  bias?: MxArray;

  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, stride: Sizes = [1, 1], padding: Sizes = [0, 0], dilation: Sizes = 1, bias = true, outputPadding: Sizes = 0) {
    super();
    this.weight = filters(inChannels, outChannels, perDimension(kernelSize, 2));
    if (bias) this.bias = mx.zeros([outChannels]);
    this.stride = perDimension(stride, 2);
    this.padding = perDimension(padding, 2);
    this.dilation = dilation;
    this.outputPadding = perDimension(outputPadding, 2);
  }
  protected override extraRepr(): string {
    return show(this);
  }
  override forward(x: MxArray): MxArray {
    return plus(mx.convTranspose2d(x, this.weight, this.stride, this.padding, this.dilation, 1, this.outputPadding), this.bias);
  }
}

/** Transposed 3D convolution: x (N, D, H, W, inChannels) -> (N, outD, outH, outW, outChannels); sizes as `ConvTranspose1d` gives them. */
export class ConvTranspose3d extends Module {
  stride: number[];
  padding: number[];
  dilation: Sizes;
  outputPadding: number[];
  weight: MxArray;
  bias?: MxArray;

  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, stride: Sizes = [1, 1, 1], padding: Sizes = [0, 0, 0], dilation: Sizes = [1, 1, 1], bias = true, outputPadding: Sizes = 0) {
    super();
    this.weight = filters(inChannels, outChannels, perDimension(kernelSize, 3));
    if (bias) this.bias = mx.zeros([outChannels]);
    this.stride = perDimension(stride, 3);
    this.padding = perDimension(padding, 3);
    this.dilation = dilation;
    this.outputPadding = perDimension(outputPadding, 3);
  }
  protected override extraRepr(): string {
    return show(this);
  }
  override forward(x: MxArray): MxArray {
    return plus(mx.convTranspose3d(x, this.weight, this.stride, this.padding, this.dilation, 1, this.outputPadding), this.bias);
  }
}
