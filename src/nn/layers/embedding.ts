/** Lookup tables. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";
import { QuantizedEmbedding } from "./quantized.ts";

/** Row lookup: ids (...) of an integer dtype -> (..., dims). The weight has shape (numEmbeddings, dims) and starts normal, variance 1/dims. */
export class Embedding extends Module {
  weight: MxArray;

  constructor(numEmbeddings: number, dims: number) {
    super();
    this.weight = mx.random.normal([numEmbeddings, dims], mx.float32, 0, Math.sqrt(1 / dims));
  }
  protected override extraRepr(): string {
    const [numEmbeddings, dims] = this.weight.shape;
    return `${numEmbeddings}, ${dims}`;
  }
  override forward(ids: MxArray): MxArray {
    return mx.take(this.weight, ids, 0);
  }
  /** The table as an output layer: x (..., dims) -> (..., numEmbeddings). */
  asLinear(x: MxArray): MxArray {
    return mx.matmul(x, mx.transpose(this.weight));
  }
  /** Throws when `quantizeInput` is asked for: ids can not be quantized. */
  toQuantized(groupSize?: number | null, bits?: number | null, mode = "affine", quantizeInput = false): QuantizedEmbedding {
    if (quantizeInput) throw new Error("[Embedding.toQuantized] an embedding has no input that could be quantized");
    return QuantizedEmbedding.fromEmbedding(this, groupSize, bits, mode);
  }
}
