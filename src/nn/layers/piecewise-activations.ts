/** Further activation functions, most of them defined by pieces, and their layers. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";
import { activationLayer } from "./activations.ts";

const { abs, add, divide, exp, greater, maximum, minimum, multiply, negative, subtract, where } = mx;

/** x, or alpha (exp(x) - 1) where x is negative (Clevert et al. 2016). */
export const elu = (x: MxArray, alpha = 1): MxArray => where(greater(x, 0), x, multiply(subtract(exp(x), 1), alpha));
/** log(1 + exp(x)). */
export const softplus = (x: MxArray): MxArray => mx.logaddexp(x, 0);
/** x / (1 + |x|). */
export const softsign = (x: MxArray): MxArray => divide(x, add(abs(x), 1));
/** x moved toward 0 by lambd; 0 within lambd. */
export const softshrink = (x: MxArray, lambd = 0.5): MxArray => where(greater(abs(x), lambd), subtract(x, multiply(mx.sign(x), lambd)), 0);
/** max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1) (Barron 2017). */
export const celu = (x: MxArray, alpha = 1): MxArray => add(maximum(x, 0), multiply(subtract(exp(divide(minimum(x, 0), alpha)), 1), alpha));
/** log(sigmoid(x)). */
export const logSigmoid = (x: MxArray): MxArray => negative(softplus(negative(x)));
/** 1 from the threshold on, 0 below it. */
export const step = (x: MxArray, threshold = 0): MxArray => where(mx.greaterEqual(x, threshold), 1, 0);
/** 1.0507 elu(x, 1.67326) (Klambauer et al. 2017). */
export const selu = (x: MxArray): MxArray => multiply(elu(x, 1.67326), 1.0507);
/** x, or alpha x where x is negative (He et al. 2015). */
export const prelu = (x: MxArray, alpha: MxArray): MxArray => add(maximum(x, 0), multiply(alpha, minimum(x, 0)));
/** x tanh(softplus(x)) (Misra 2019). */
export const mish = (x: MxArray): MxArray => multiply(x, mx.tanh(softplus(x)));
/** x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019). */
export const hardswish = (x: MxArray): MxArray => divide(multiply(x, minimum(maximum(add(x, 3), 0), 6)), 6);
/** x limited to minVal .. maxVal. */
export const hardTanh = (x: MxArray, minVal = -1, maxVal = 1): MxArray => minimum(maximum(x, minVal), maxVal);
/** x, or 0 within lambda. */
export const hardShrink = (x: MxArray, lambda = 0.5): MxArray => where(greater(abs(x), lambda), x, 0);
/** softmax(-x). */
export const softmin = (x: MxArray, axis = -1): MxArray => mx.softmax(negative(x), axis);

export const Softplus = activationLayer("Softplus", softplus);
export const Softsign = activationLayer("Softsign", softsign);
export const LogSigmoid = activationLayer("LogSigmoid", logSigmoid);
export const SELU = activationLayer("SELU", selu);
export const Mish = activationLayer("Mish", mish);
export const Hardswish = activationLayer("Hardswish", hardswish);
export const HardTanh = activationLayer("HardTanh", (x) => hardTanh(x));
export const Softmin = activationLayer("Softmin", (x) => softmin(x));

export class ELU extends Module {
  alpha: number;
  constructor(alpha = 1) {
    super();
    this.alpha = alpha;
  }
  override forward(x: MxArray): MxArray {
    return elu(x, this.alpha);
  }
}
export class CELU extends Module {
  alpha: number;
  constructor(alpha = 1) {
    super();
    this.alpha = alpha;
  }
  override forward(x: MxArray): MxArray {
    return celu(x, this.alpha);
  }
}
/** MLX writes it Softshrink, node-mlx SoftShrink; both names are exported. */
export class SoftShrink extends Module {
  lambd: number;
  constructor(lambd = 0.5) {
    super();
    this.lambd = lambd;
  }
  override forward(x: MxArray): MxArray {
    return softshrink(x, this.lambd);
  }
}
export { SoftShrink as Softshrink };
export class HardShrink extends Module {
  lambda: number;
  constructor(lambda = 0.5) {
    super();
    this.lambda = lambda;
  }
  override forward(x: MxArray): MxArray {
    return hardShrink(x, this.lambda);
  }
}
export class Step extends Module {
  threshold: number;
  constructor(threshold = 0) {
    super();
    this.threshold = threshold;
  }
  override forward(x: MxArray): MxArray {
    return step(x, this.threshold);
  }
}
/** prelu with a learned alpha: one number, or one per feature. */
export class PReLU extends Module {
  weight: MxArray;
  constructor(numParameters = 1, init = 0.25) {
    super();
    this.weight = mx.full([numParameters], init);
  }
  override forward(x: MxArray): MxArray {
    return prelu(x, this.weight);
  }
}
