/** Modules made of modules, and dropout. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

type Layer = Module | ((x: MxArray) => MxArray);

/** Calls modules or functions one after the other. */
export class Sequential extends Module {
  layers: Layer[];

  constructor(...modules: Layer[]) {
    super();
    this.layers = modules;
  }
  override forward(x: MxArray): MxArray {
    let y = x;
    for (const layer of this.layers) y = typeof layer === "function" ? layer(y) : (layer.forward(y) as MxArray);
    return y;
  }
}

/** In training, zeroes each element with probability `p` and scales the rest by 1 / (1 - p); otherwise gives its input back. */
export class Dropout extends Module {
  #p: number;

  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p < 1)) throw new Error(`[Dropout] p must be in [0, 1), got ${p}`);
    this.#p = p;
  }
  protected override extraRepr(): string {
    return `p=${this.#p}`;
  }
  override forward(x: MxArray): MxArray {
    if (this.#p === 0 || !this.training) return x;
    const keep = 1 - this.#p;
    return mx.multiply(mx.multiply(x, 1 / keep), mx.random.bernoulli(keep, x.shape).astype(x.dtype));
  }
}
