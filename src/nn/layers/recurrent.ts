/**
 * Recurrent layers over sequences x (N, L, inputDims) or (L, inputDims). What depends on x alone is computed for all positions at once; the loop over positions
 * makes one lazy graph.
 */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

/** Weights start uniform in +-1 / sqrt(hiddenDims). */
const start = (hiddenDims: number, shape: number[]): MxArray => {
  const scale = 1 / Math.sqrt(hiddenDims);
  return mx.random.uniform(-scale, scale, shape);
};
/** x W^T + b. */
const affine = (x: MxArray, w: MxArray, b: MxArray | undefined): MxArray => (b ? mx.addmm(b, x, w.T) : mx.matmul(x, w.T));
/** Position i of a sequence. */
const at = (x: MxArray, i: number): MxArray => x.index("...", i, mx.Slice());
const lengthOf = (x: MxArray): number => x.shape[x.ndim - 2] as number;
function requireSequence(name: string, x: MxArray): void {
  if (x.ndim < 2) throw new Error(`[${name}] input must be (N, L, inputDims) or (L, inputDims), got shape (${x.shape})`);
  if (lengthOf(x) === 0) throw new Error(`[${name}] input must hold at least one position, got shape (${x.shape})`);
}

/** h = nonlinearity(Wxh x + Whh h + bias) at each position (Elman 1990); by default nonlinearity is tanh. */
export class RNN extends Module {
  nonlinearity: (x: MxArray) => MxArray;
  hiddenDims: number;
  Wxh: MxArray;
  Whh: MxArray;
  bias?: MxArray;

  constructor(inputDims: number, hiddenDims: number, bias = true, nonlinearity: ((x: MxArray) => MxArray) | null = null) {
    super();
    this.nonlinearity = nonlinearity ?? mx.tanh;
    if (typeof this.nonlinearity !== "function") throw new Error(`[RNN] nonlinearity must be a function, got ${nonlinearity}`);
    this.hiddenDims = hiddenDims;
    this.Wxh = start(hiddenDims, [hiddenDims, inputDims]);
    this.Whh = start(hiddenDims, [hiddenDims, hiddenDims]);
    if (bias) this.bias = start(hiddenDims, [hiddenDims]);
  }
  protected override extraRepr(): string {
    return `inputDims=${this.Wxh.shape[1]}, hiddenDims=${this.hiddenDims}, nonlinearity=${this.nonlinearity.name || "function"}, bias=${this.bias !== undefined}`;
  }
  /** @param hidden state before the first position, (N, hiddenDims) or (hiddenDims); zero when left out
   *  @returns the state after each position, (N, L, hiddenDims) or (L, hiddenDims) */
  override forward(x: MxArray, hidden?: MxArray | null): MxArray {
    requireSequence("RNN", x);
    const input = affine(x, this.Wxh, this.bias);
    const states: MxArray[] = [];
    let h = hidden ?? undefined;
    for (let i = 0; i < lengthOf(x); i++) {
      h = this.nonlinearity(h ? mx.addmm(at(input, i), h, this.Whh.T) : at(input, i));
      states.push(h);
    }
    return mx.stack(states, -2);
  }
}

/**
 * Gated recurrent unit (Cho et al. 2014): r = sigmoid(Wx_r x + Wh_r h + b_r), z likewise, n = tanh(Wx_n x + b_n + r (Wh_n h + bhn)), h = (1 - z) n + z h. The rows
 * of Wx, Wh and b are those of r, z and n, in this order.
 */
export class GRU extends Module {
  hiddenDims: number;
  Wx: MxArray;
  Wh: MxArray;
  b?: MxArray;
  bhn?: MxArray;

  constructor(inputDims: number, hiddenDims: number, bias = true) {
    super();
    this.hiddenDims = hiddenDims;
    this.Wx = start(hiddenDims, [3 * hiddenDims, inputDims]);
    this.Wh = start(hiddenDims, [3 * hiddenDims, hiddenDims]);
    if (bias) {
      this.b = start(hiddenDims, [3 * hiddenDims]);
      this.bhn = start(hiddenDims, [hiddenDims]);
    }
  }
  protected override extraRepr(): string {
    return `inputDims=${this.Wx.shape[1]}, hiddenDims=${this.hiddenDims}, bias=${this.b !== undefined}`;
  }
  #step(input: MxArray, h: MxArray | undefined): MxArray {
    const [xr, xz, xn] = mx.split(input, 3, -1) as [MxArray, MxArray, MxArray];
    if (!h) {
      const n = mx.tanh(this.bhn ? mx.add(xn, mx.multiply(mx.sigmoid(xr), this.bhn)) : xn);
      return mx.multiply(mx.subtract(1, mx.sigmoid(xz)), n);
    }
    const [hr, hz, hn] = mx.split(mx.matmul(h, this.Wh.T), 3, -1) as [MxArray, MxArray, MxArray];
    const r = mx.sigmoid(mx.add(xr, hr));
    const z = mx.sigmoid(mx.add(xz, hz));
    const n = mx.tanh(mx.add(xn, mx.multiply(r, this.bhn ? mx.add(hn, this.bhn) : hn)));
    return mx.add(mx.multiply(mx.subtract(1, z), n), mx.multiply(z, h));
  }
  /** Arguments and result as those of `RNN`. */
  override forward(x: MxArray, hidden?: MxArray | null): MxArray {
    requireSequence("GRU", x);
    const input = affine(x, this.Wx, this.b);
    const states: MxArray[] = [];
    let h = hidden ?? undefined;
    for (let i = 0; i < lengthOf(x); i++) {
      h = this.#step(at(input, i), h);
      states.push(h);
    }
    return mx.stack(states, -2);
  }
}

/**
 * Long short-term memory (Hochreiter and Schmidhuber 1997): i, f, o = sigmoid(Wx x + Wh h + bias), g = tanh of its part, c = f c + i g, h = o tanh(c). The rows of
 * Wx, Wh and bias are those of i, f, g and o, in this order.
 */
export class LSTM extends Module {
  hiddenDims: number;
  Wx: MxArray;
  Wh: MxArray;
  bias?: MxArray;

  constructor(inputDims: number, hiddenDims: number, bias = true) {
    super();
    this.hiddenDims = hiddenDims;
    this.Wx = start(hiddenDims, [4 * hiddenDims, inputDims]);
    this.Wh = start(hiddenDims, [4 * hiddenDims, hiddenDims]);
    if (bias) this.bias = start(hiddenDims, [4 * hiddenDims]);
  }
  protected override extraRepr(): string {
    return `inputDims=${this.Wx.shape[1]}, hiddenDims=${this.hiddenDims}, bias=${this.bias !== undefined}`;
  }
  /** @param hidden state h, @param cell state c before the first position, (N, hiddenDims) or (hiddenDims); zero when left out
   *  @returns h and c after each position, both (N, L, hiddenDims) or (L, hiddenDims) */
  override forward(x: MxArray, hidden?: MxArray | null, cell?: MxArray | null): [hidden: MxArray, cell: MxArray] {
    requireSequence("LSTM", x);
    const input = affine(x, this.Wx, this.bias);
    const hiddens: MxArray[] = [];
    const cells: MxArray[] = [];
    let h = hidden ?? undefined;
    let c = cell ?? undefined;
    for (let t = 0; t < lengthOf(x); t++) {
      const gates = h ? mx.addmm(at(input, t), h, this.Wh.T) : at(input, t);
      const [i, f, g, o] = mx.split(gates, 4, -1) as [MxArray, MxArray, MxArray, MxArray];
      const fresh = mx.multiply(mx.sigmoid(i), mx.tanh(g));
      c = c ? mx.add(mx.multiply(mx.sigmoid(f), c), fresh) : fresh;
      h = mx.multiply(mx.sigmoid(o), mx.tanh(c));
      cells.push(c);
      hiddens.push(h);
    }
    return [mx.stack(hiddens, -2), mx.stack(cells, -2)];
  }
}
