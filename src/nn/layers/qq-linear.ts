/** A linear layer that quantizes its input as well as its weights. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";
import type { Linear } from "./linear.ts";
import { packed } from "./quantized.ts";

const modes = ["nvfp4", "mxfp8"] as const;

/**
 * x (..., inDims) -> (..., outDims), where both operands are rounded to the mode's small floats. In training the weights are kept as they are and rounded on the way,
 * so that they can be trained; `eval` packs them, `train` unpacks them. There is no bias.
 */
export class QQLinear extends Module {
  groupSize: number;
  bits: number;
  mode: string;
  weight: MxArray;
  /** Only while the weights are packed. */
  scales?: MxArray | undefined;

  constructor(inDims: number, outDims: number, groupSize?: number | null, bits?: number | null, mode = "nvfp4", weight?: MxArray) {
    super();
    if (!modes.some((m) => m === mode)) throw new Error(`[QQLinear] mode must be ${modes.map((m) => `"${m}"`).join(" or ")}, got ${JSON.stringify(mode)}`);
    const scale = Math.sqrt(1 / inDims);
    this.weight = weight ?? mx.random.uniform(-scale, scale, [outDims, inDims]);
    const sizes = packed("QQLinear", this.weight, groupSize, bits, mode);
    this.groupSize = sizes.groupSize;
    this.bits = sizes.bits;
    this.mode = mode;
  }
  static fromLinear(linear: Linear, groupSize?: number | null, bits?: number | null, mode = "nvfp4"): QQLinear {
    if (linear.bias) throw new Error("[QQLinear] there is no bias, got a layer with one");
    const [outDims = 0, inDims = 0] = linear.weight.shape;
    return new QQLinear(inDims, outDims, groupSize, bits, mode, linear.weight).train(linear.training);
  }
  protected override modeChanged(): void {
    if (this.training === (this.scales === undefined)) return;
    if (this.scales) {
      this.weight = mx.dequantize(this.weight, this.scales, null, this.groupSize, this.bits, this.mode);
      this.scales = undefined;
    } else {
      const p = packed("QQLinear", this.weight, this.groupSize, this.bits, this.mode);
      this.weight = p.weight;
      this.scales = p.scales;
    }
  }
  protected override extraRepr(): string {
    const [outDims, columns = 0] = this.weight.shape;
    return `inputDims=${this.scales ? (columns * 32) / this.bits : columns}, outputDims=${outDims}, groupSize=${this.groupSize}, bits=${this.bits}, mode=${this.mode}`;
  }
  override forward(x: MxArray): MxArray {
    return mx.qqmm(x, this.weight, this.scales, this.groupSize, this.bits, this.mode);
  }
}
