/** Layers whose weights are kept quantized: packed uint32 words and a scale per group; in the mode "affine" also a bias per group. */
import { core as mx, type MxArray } from "../../index.ts";
import { mapLeafModules, Module } from "../module.ts";
import type { Embedding } from "./embedding.ts";
import type { Linear } from "./linear.ts";

/** How a layer is quantized; what is left out has the mode's default. */
export interface QuantizationOptions {
  groupSize?: number;
  bits?: number;
  mode?: string;
  /** Whether the layer's input is quantized as well (`QQLinear`). */
  quantizeInput?: boolean;
}
type Maybe<T> = T | null | undefined;
interface Quantizable {
  toQuantized(groupSize?: Maybe<number>, bits?: Maybe<number>, mode?: string, quantizeInput?: boolean): Module;
}
const isQuantizable = (m: Module): m is Module & Quantizable => "toQuantized" in m && typeof m.toQuantized === "function";
const isPair = (x: unknown): x is readonly [number, number] => Array.isArray(x);

/**
 * Replaces layers by their quantized form, in place.
 * @param groupSize, bits default: those of the mode (affine: 64 and 4)
 * @param classPredicate gets each layer's dotted snake_case path and the layer; gives whether to quantize it, or options (`[groupSize, bits]` or an object) for this
 *   one. By default all layers with a `toQuantized` method.
 * @param mode "affine", "mxfp4", "mxfp8" or "nvfp4"
 * @param quantizeInput see `QuantizationOptions`; only for layers that can
 */
export function quantize(
  model: Module,
  groupSize?: Maybe<number>,
  bits?: Maybe<number>,
  classPredicate?: Maybe<(path: string, module: Module) => boolean | readonly [groupSize: number, bits: number] | QuantizationOptions>,
  mode = "affine",
  quantizeInput = false,
): void {
  mapLeafModules(model, (path, module) => {
    const answer = classPredicate ? classPredicate(path, module) : isQuantizable(module);
    if (answer === false) return module;
    if (!isQuantizable(module)) throw new Error(`[nn.quantize] ${path} can not be quantized: ${module.constructor.name} has no toQuantized method`);
    if (answer === true) return module.toQuantized(groupSize, bits, mode, quantizeInput);
    if (isPair(answer)) return module.toQuantized(answer[0], answer[1], mode, quantizeInput);
    return module.toQuantized(answer.groupSize, answer.bits, answer.mode, answer.quantizeInput);
  });
}

/** What the quantized layers share: the packed weights, and how they are packed. */
export interface Packed {
  weight: MxArray;
  scales: MxArray;
  biases?: MxArray;
  groupSize: number;
  bits: number;
}
/** Quantizes (rows, columns). Group size and bits follow from the sizes of the results, whose defaults are the mode's. */
export function packed(layer: string, weight: MxArray, groupSize: Maybe<number>, bits: Maybe<number>, mode: string): Packed {
  const [words, scales, biases] = mx.quantize(weight, groupSize, bits, mode);
  if (!words || !scales) throw new Error(`[${layer}] mx.quantize must give packed weights and scales`);
  const columns = weight.shape[1] as number;
  const sizes = { groupSize: columns / (scales.shape[1] as number), bits: ((words.shape[1] as number) * 32) / columns };
  return { weight: words, scales, ...sizes, ...(biases ? { biases } : {}) };
}

/** Linear layer with quantized weights: x (..., inDims) -> (..., outDims), in x's dtype. It starts frozen; its weights are trained only if `unfreeze` names them. */
export class QuantizedLinear extends Module {
  groupSize: number;
  bits: number;
  mode: string;
  weight: MxArray;
  scales: MxArray;
  biases?: MxArray;
  bias?: MxArray;

  constructor(inDims: number, outDims: number, bias = true, groupSize?: Maybe<number>, bits?: Maybe<number>, mode = "affine", weight?: MxArray) {
    super();
    const scale = Math.sqrt(1 / inDims);
    const p = packed("QuantizedLinear", weight ?? mx.random.uniform(-scale, scale, [outDims, inDims]), groupSize, bits, mode);
    this.groupSize = p.groupSize;
    this.bits = p.bits;
    this.mode = mode;
    this.weight = p.weight;
    this.scales = p.scales;
    if (p.biases) this.biases = p.biases;
    if (bias) this.bias = mx.zeros([outDims]);
    this.freeze();
  }
  static fromLinear(linear: Linear, groupSize?: Maybe<number>, bits?: Maybe<number>, mode = "affine"): QuantizedLinear {
    const [outDims = 0, inDims = 0] = linear.weight.shape;
    const q = new QuantizedLinear(inDims, outDims, false, groupSize, bits, mode, linear.weight);
    if (linear.bias) {
      q.bias = linear.bias;
      q.freeze(false, "bias");
    }
    return q;
  }
  protected override refreeze(ofKeys: boolean): void {
    if (!ofKeys) this.freeze(false);
  }
  protected override extraRepr(): string {
    const [outDims, words = 0] = this.weight.shape;
    return `inputDims=${(words * 32) / this.bits}, outputDims=${outDims}, bias=${this.bias !== undefined}, groupSize=${this.groupSize}, bits=${this.bits}, mode=${this.mode}`;
  }
  override forward(x: MxArray): MxArray {
    const y = mx.quantizedMatmul(x, this.weight, this.scales, this.biases, true, this.groupSize, this.bits, this.mode);
    return this.bias ? mx.add(y, this.bias) : y;
  }
}

/** Lookup table with quantized rows: ids (...) -> (..., dims), in the scales' dtype (bfloat16 in modes other than affine). Starts frozen. */
export class QuantizedEmbedding extends Module {
  groupSize: number;
  bits: number;
  mode: string;
  numEmbeddings: number;
  dims: number;
  weight: MxArray;
  scales: MxArray;
  biases?: MxArray;

  constructor(numEmbeddings: number, dims: number, groupSize?: Maybe<number>, bits?: Maybe<number>, mode = "affine", weight?: MxArray) {
    super();
    const p = packed("QuantizedEmbedding", weight ?? mx.random.normal([numEmbeddings, dims], mx.float32, 0, Math.sqrt(1 / dims)), groupSize, bits, mode);
    this.groupSize = p.groupSize;
    this.bits = p.bits;
    this.mode = mode;
    this.numEmbeddings = numEmbeddings;
    this.dims = dims;
    this.weight = p.weight;
    this.scales = p.scales;
    if (p.biases) this.biases = p.biases;
    this.freeze();
  }
  static fromEmbedding(embedding: Embedding, groupSize?: Maybe<number>, bits?: Maybe<number>, mode = "affine"): QuantizedEmbedding {
    const [numEmbeddings = 0, dims = 0] = embedding.weight.shape;
    return new QuantizedEmbedding(numEmbeddings, dims, groupSize, bits, mode, embedding.weight);
  }
  protected override extraRepr(): string {
    return `${this.numEmbeddings}, ${this.dims}, groupSize=${this.groupSize}, bits=${this.bits}, mode=${this.mode}`;
  }
  override forward(ids: MxArray): MxArray {
    const rows = (table: MxArray): MxArray => mx.take(table, ids, 0);
    return mx.dequantize(rows(this.weight), rows(this.scales), this.biases && rows(this.biases), this.groupSize, this.bits, this.mode);
  }
  /** The table as an output layer: x (..., dims) -> (..., numEmbeddings). */
  asLinear(x: MxArray): MxArray {
    return mx.quantizedMatmul(x, this.weight, this.scales, this.biases, true, this.groupSize, this.bits, this.mode);
  }
}
