/** Layers whose weights are kept in MLX's affine quantization: packed uint32 words, a scale and a bias per group. */
import { core as mx, type MxArray } from "../../index.ts";
import { mapLeafModules, Module } from "../module.ts";
import type { Embedding } from "./embedding.ts";
import type { Linear } from "./linear.ts";

interface Quantizable {
  toQuantized(groupSize?: number, bits?: number): Module;
}
const isQuantizable = (m: Module): m is Module & Quantizable => "toQuantized" in m && typeof m.toQuantized === "function";

/**
 * Replaces layers by their quantized form, in place.
 * @param classPredicate gets each layer's dotted snake_case path and the layer; gives whether to quantize it, or `[groupSize, bits]` for
 *   this one. By default all layers with a `toQuantized` method.
 */
export function quantize(
  model: Module,
  groupSize = 64,
  bits = 4,
  classPredicate: (path: string, module: Module) => boolean | readonly [groupSize: number, bits: number] = (_path, m) => isQuantizable(m),
): void {
  mapLeafModules(model, (path, module) => {
    const answer = classPredicate(path, module);
    if (answer === false) return module;
    if (!isQuantizable(module)) throw new Error(`[nn.quantize] ${path} can not be quantized: ${module.constructor.name} has no toQuantized method`);
    const [g, b] = answer === true ? [groupSize, bits] : answer;
    return module.toQuantized(g, b);
  });
}

function requireQuantized(layer: string, w: readonly MxArray[]): [MxArray, MxArray, MxArray] {
  const [weight, scales, biases] = w;
  if (!weight || !scales || !biases) throw new Error(`[${layer}] mx.quantize must give three arrays, got ${w.length}`);
  return [weight, scales, biases];
}

/** Linear layer with quantized weights: x (..., inDims) -> (..., outDims), in x's dtype. Its parameters are never trained. */
export class QuantizedLinear extends Module {
  groupSize: number;
  bits: number;
  weight: MxArray;
  scales: MxArray;
  biases: MxArray;
  bias?: MxArray;

  constructor(inDims: number, outDims: number, bias = true, groupSize = 64, bits = 4, weight?: MxArray) {
    super();
    this.groupSize = groupSize;
    this.bits = bits;
    const scale = Math.sqrt(1 / inDims);
    const full = weight ?? mx.random.uniform(-scale, scale, [outDims, inDims]);
    [this.weight, this.scales, this.biases] = requireQuantized("QuantizedLinear", mx.quantize(full, groupSize, bits));
    if (bias) this.bias = mx.zeros([outDims]);
    this.freeze();
  }
  static fromLinear(linear: Linear, groupSize = 64, bits = 4): QuantizedLinear {
    const [outDims = 0, inDims = 0] = linear.weight.shape;
    const q = new QuantizedLinear(inDims, outDims, false, groupSize, bits, linear.weight);
    if (linear.bias) {
      q.bias = linear.bias;
      q.freeze(false, "bias");
    }
    return q;
  }
  protected override refreeze(): void {
    this.freeze(false);
  }
  protected override extraRepr(): string {
    const [outDims, words = 0] = this.weight.shape;
    return `inputDims=${(words * 32) / this.bits}, outputDims=${outDims}, bias=${this.bias !== undefined}, groupSize=${this.groupSize}, bits=${this.bits}`;
  }
  override forward(x: MxArray): MxArray {
    const y = mx.quantizedMatmul(x, this.weight, this.scales, this.biases, true, this.groupSize, this.bits);
    return this.bias ? mx.add(y, this.bias) : y;
  }
}

/** Lookup table with quantized rows: ids (...) -> (..., dims), in the scales' dtype. Starts frozen. */
export class QuantizedEmbedding extends Module {
  groupSize: number;
  bits: number;
  numEmbeddings: number;
  dims: number;
  weight: MxArray;
  scales: MxArray;
  biases: MxArray;

  constructor(numEmbeddings: number, dims: number, groupSize = 64, bits = 4, weight?: MxArray) {
    super();
    this.groupSize = groupSize;
    this.bits = bits;
    this.numEmbeddings = numEmbeddings;
    this.dims = dims;
    const full = weight ?? mx.random.normal([numEmbeddings, dims], mx.float32, 0, Math.sqrt(1 / dims));
    [this.weight, this.scales, this.biases] = requireQuantized("QuantizedEmbedding", mx.quantize(full, groupSize, bits));
    this.freeze();
  }
  static fromEmbedding(embedding: Embedding, groupSize = 64, bits = 4): QuantizedEmbedding {
    const [numEmbeddings = 0, dims = 0] = embedding.weight.shape;
    return new QuantizedEmbedding(numEmbeddings, dims, groupSize, bits, embedding.weight);
  }
  protected override extraRepr(): string {
    return `${this.numEmbeddings}, ${this.dims}, groupSize=${this.groupSize}, bits=${this.bits}`;
  }
  override forward(ids: MxArray): MxArray {
    const rows = (table: MxArray): MxArray => mx.take(table, ids, 0);
    return mx.dequantize(rows(this.weight), rows(this.scales), rows(this.biases), this.groupSize, this.bits);
  }
  /** The table as an output layer: x (..., dims) -> (..., numEmbeddings). */
  asLinear(x: MxArray): MxArray {
    return mx.quantizedMatmul(x, this.weight, this.scales, this.biases, true, this.groupSize, this.bits);
  }
}
