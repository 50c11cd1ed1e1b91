/** Position encodings. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

/**
 * Rotary position embedding (Su et al. 2021): rotates the first `dims` features of x (..., T, D) by angles that grow with the position.
 * `traditional` pairs neighbours, otherwise the two halves are paired.
 */
export class RoPE extends Module {
  dims: number;
  traditional: boolean;
  base: number;
  scale: number;

  constructor(dims: number, traditional = false, base = 10000, scale = 1.0) {
    super();
    this.dims = dims;
    this.traditional = traditional;
    this.base = base;
    this.scale = scale;
  }
  protected override extraRepr(): string {
    return `${this.dims}, traditional=${this.traditional}, base=${this.base}, scale=${this.scale}`;
  }
  /** @param offset position of the first row of x */
  override forward(x: MxArray, offset: number | MxArray = 0): MxArray {
    return mx.fast.rope(x, this.dims, this.traditional, this.base, this.scale, offset);
  }
}
