/** Activation functions and the layers that call them. All keep shape and floating dtype. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

export const sigmoid = (x: MxArray): MxArray => mx.sigmoid(x);
export const tanh = (x: MxArray): MxArray => mx.tanh(x);
export const relu = (x: MxArray): MxArray => mx.maximum(x, 0);
/** max(x, 0)^2 (So et al. 2021). */
export const relu2 = (x: MxArray): MxArray => mx.square(mx.maximum(x, 0));
export const relu6 = (x: MxArray): MxArray => mx.minimum(mx.maximum(x, 0), 6);
export const leakyRelu = (x: MxArray, negativeSlope = 0.01): MxArray => mx.maximum(mx.multiply(x, negativeSlope), x);
export const softmax = (x: MxArray, axis = -1): MxArray => mx.softmax(x, axis);
export function logSoftmax(x: MxArray, axis = -1): MxArray {
  const moved = mx.subtract(x, mx.stopGradient(mx.max(x, axis, true)));
  return mx.subtract(moved, mx.logsumexp(moved, axis, true));
}

/** `x * sigmoid(x)`, also called swish. */
export const silu = (x: MxArray): MxArray => mx.multiply(x, mx.sigmoid(x));

/** `x * P(N(0, 1) <= x)` (Hendrycks and Gimpel 2016), by the error function. */
export const gelu = (x: MxArray): MxArray => mx.multiply(mx.multiply(x, 0.5), mx.add(mx.erf(mx.multiply(x, Math.SQRT1_2)), 1));

/** GELU by a tanh, within 5e-4 of it. */
export function geluApprox(x: MxArray): MxArray {
  const inner = mx.multiply(mx.add(x, mx.multiply(mx.multiply(mx.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI));
  return mx.multiply(mx.multiply(x, 0.5), mx.add(mx.tanh(inner), 1));
}

/** GELU by a sigmoid, within 2.1e-2 of it. */
export const geluFastApprox = (x: MxArray): MxArray => mx.multiply(x, mx.sigmoid(mx.multiply(x, 1.702)));

/** Splits the axis in halves a, b and gives `a * sigmoid(b)`. */
export function glu(x: MxArray, axis = -1): MxArray {
  const [a, b] = mx.split(x, 2, axis) as [MxArray, MxArray];
  return mx.multiply(a, mx.sigmoid(b));
}

export interface ActivationLayer extends Module {
  forward(x: MxArray): MxArray;
}
/** A layer without parameters that calls one function. */
export function activationLayer(name: string, f: (x: MxArray) => MxArray): new () => ActivationLayer {
  const layer = class extends Module {
    override forward(x: MxArray): MxArray {
      return f(x);
    }
  };
  Object.defineProperty(layer, "name", { value: name });
  return layer;
}
export const Sigmoid = activationLayer("Sigmoid", sigmoid);
export const Tanh = activationLayer("Tanh", tanh);
export const ReLU = activationLayer("ReLU", relu);
export const ReLU2 = activationLayer("ReLU2", relu2);
export const ReLU6 = activationLayer("ReLU6", relu6);
export const SiLU = activationLayer("SiLU", silu);
export const Softmax = activationLayer("Softmax", (x) => softmax(x));
export const LogSoftmax = activationLayer("LogSoftmax", (x) => logSoftmax(x));

export class LeakyReLU extends Module {
  negativeSlope: number;
  constructor(negativeSlope = 1e-2) {
    super();
    this.negativeSlope = negativeSlope;
  }
  override forward(x: MxArray): MxArray {
    return leakyRelu(x, this.negativeSlope);
  }
}

export class GLU extends Module {
  axis: number;
  constructor(axis = -1) {
    super();
    this.axis = axis;
  }
  override forward(x: MxArray): MxArray {
    return glu(x, this.axis);
  }
}

const geluKinds = { none: gelu, precise: geluApprox, tanh: geluApprox, fast: geluFastApprox } as const;

/** GELU, exact (`none`) or approximated (`precise` and `tanh` by a tanh, `fast` by a sigmoid). */
export class GELU extends Module {
  #f: (x: MxArray) => MxArray;
  constructor(approx: keyof typeof geluKinds = "none") {
    super();
    const f = geluKinds[approx];
    if (!f) throw new Error(`[GELU] approx must be one of ${Object.keys(geluKinds).join(", ")}, got ${approx}`);
    this.#f = f;
  }
  override forward(x: MxArray): MxArray {
    return this.#f(x);
  }
}
