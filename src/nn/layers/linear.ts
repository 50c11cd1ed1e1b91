/** Affine layers. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";
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
  toQuantized(groupSize = 64, bits = 4): QuantizedLinear {
    return QuantizedLinear.fromLinear(this, groupSize, bits);
  }
}
