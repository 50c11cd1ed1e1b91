/** Affine layers. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";
import { QQLinear } from "./qq-linear.ts";
import { QuantizedLinear } from "./quantized.ts";

/** Gives its input back; takes any constructor arguments. */
export class Identity extends Module {
  // biome-ignore lint/suspicious/noExplicitAny: accepts anything, so that it can stand for any other layer
  constructor(..._args: any[]) {
    super();
  }
  override forward(x: MxArray): MxArray {
    return x;
  }
}

/**
 * `y = x W^T + b`: x (..., inputDims) -> (..., outputDims), in the weights' dtype. The weight has shape (outputDims, inputDims); both
 * start uniform in +-1/sqrt(inputDims).
 */
export class Linear extends Module {
  weight: MxArray;
  bias?: MxArray;

  constructor(inputDims: number, outputDims: number, bias = true) {
    super();
    const scale = Math.sqrt(1 / inputDims);
    this.weight = mx.random.uniform(-scale, scale, [outputDims, inputDims]);
    if (bias) this.bias = mx.random.uniform(-scale, scale, [outputDims]);
  }
  protected override extraRepr(): string {
    const [outputDims, inputDims] = this.weight.shape;
    return `inputDims=${inputDims}, outputDims=${outputDims}, bias=${this.bias !== undefined}`;
  }
  override forward(x: MxArray): MxArray {
    const w = mx.transpose(this.weight);
    return this.bias ? mx.addmm(this.bias, x, w) : mx.matmul(x, w);
  }
  toQuantized(groupSize?: number | null, bits?: number | null, mode?: string, quantizeInput?: false): QuantizedLinear;
  toQuantized(groupSize: number | null | undefined, bits: number | null | undefined, mode: string, quantizeInput: boolean): QuantizedLinear | QQLinear;
  /** With `quantizeInput` a `QQLinear`, for which the mode must be "nvfp4" or "mxfp8" and the layer without bias. */
  toQuantized(groupSize?: number | null, bits?: number | null, mode = "affine", quantizeInput = false): QuantizedLinear | QQLinear {
    if (quantizeInput) return QQLinear.fromLinear(this, groupSize, bits, mode);
    return QuantizedLinear.fromLinear(this, groupSize, bits, mode);
  }
}

/**
 * `y_i = x2^T W_i x1 + b_i`: x1 (..., input1Dims) and x2 (..., input2Dims) -> (..., outputDims). The weight has shape (outputDims, input2Dims, input1Dims); both start
 * uniform in +-1/sqrt(input1Dims).
 */
export class Bilinear extends Module {
  weight: MxArray;
  bias?: MxArray;

  constructor(input1Dims: number, input2Dims: number, outputDims: number, bias = true) {
    super();
    const scale = Math.sqrt(1 / input1Dims);
    this.weight = mx.random.uniform(-scale, scale, [outputDims, input2Dims, input1Dims]);
    if (bias) this.bias = mx.random.uniform(-scale, scale, [outputDims]);
  }
  protected override extraRepr(): string {
    const [outputDims, input2Dims, input1Dims] = this.weight.shape;
    return `input1Dims=${input1Dims}, input2Dims=${input2Dims}, outputDims=${outputDims}, bias=${this.bias !== undefined}`;
  }
  override forward(x1: MxArray, x2: MxArray): MxArray {
    const [out, in2, in1] = this.weight.shape as [number, number, number];
    const products = mx.matmul(mx.reshape(x1, [-1, in1]), mx.reshape(this.weight, [out * in2, in1]).T);
    const sums = mx.matmul(mx.reshape(products, [-1, out, in2]), mx.reshape(x2, [-1, in2, 1]));
    const y = mx.reshape(sums, [...x1.shape.slice(0, -1), out]);
    return this.bias ? mx.add(y, this.bias) : y;
  }
}
