/** Dropout: in training parts of the input become zero at random and the rest grows, so that means stay; otherwise inputs pass unchanged. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

/** What the dropout layers share: which elements share their fate, as the shape of the mask. */
abstract class DropoutLayer extends Module {
  #p: number;

  constructor(p: number) {
    super();
    if (!(p >= 0 && p < 1)) throw new Error(`[${new.target.name}] p must be in [0, 1), got ${p}`);
    this.#p = p;
  }
  protected override extraRepr(): string {
    return `p=${this.#p}`;
  }
  /** Shape of the mask for an input; throws on an input that the layer is not for. */
  protected abstract maskShape(x: MxArray): number[];

  override forward(x: MxArray): MxArray {
    const shape = this.maskShape(x);
    if (this.#p === 0 || !this.training) return x;
    const keep = 1 - this.#p;
    return mx.multiply(mx.multiply(mx.random.bernoulli(keep, shape), x), 1 / keep);
  }
}

/** In training, zeroes each element with probability `p` and scales the rest by 1 / (1 - p) (Srivastava et al. 2014). */
export class Dropout extends DropoutLayer {
  constructor(p = 0.5) {
    super(p);
  }
  protected override maskShape(x: MxArray): number[] {
    return x.shape;
  }
}

/** Mask shape that zeroes whole channels of (N, ...spatial, C) or (...spatial, C). */
function channelMask(name: string, x: MxArray, spatial: number): number[] {
  if (x.ndim !== spatial + 1 && x.ndim !== spatial + 2) throw new Error(`[${name}] input must have ${spatial + 1} or ${spatial + 2} dimensions, got shape (${x.shape})`);
  return x.shape.map((n, i) => (i < x.ndim - 1 - spatial || i === x.ndim - 1 ? n : 1));
}

/** In training, zeroes whole channels of x (N, H, W, C) or (H, W, C) with probability `p` and scales the rest by 1 / (1 - p) (Tompson et al. 2015). */
export class Dropout2d extends DropoutLayer {
  constructor(p = 0.5) {
    super(p);
  }
  protected override maskShape(x: MxArray): number[] {
    return channelMask("Dropout2d", x, 2);
  }
}

/** In training, zeroes whole channels of x (N, D, H, W, C) or (D, H, W, C) with probability `p` and scales the rest by 1 / (1 - p). */
export class Dropout3d extends DropoutLayer {
  constructor(p = 0.5) {
    super(p);
  }
  protected override maskShape(x: MxArray): number[] {
    return channelMask("Dropout3d", x, 3);
  }
}
