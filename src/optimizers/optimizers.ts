/** First-order optimizers. `lr` is the learning rate, g the gradient, w the parameter; state is made of arrays like w. */
import { core as mx, type MxArray } from "../index.ts";
import { type LearningRate, Optimizer, type ParameterState } from "./optimizer.ts";

const { add, divide, multiply, sqrt, square, subtract } = mx;

/** A number that must not be negative. */
function nonNegative(optimizer: string, name: string, value: number): number {
  if (!(value >= 0)) throw new Error(`[${optimizer}] ${name} must not be negative, got ${value}`);
  return value;
}
function positive(optimizer: string, name: string, value: number): number {
  if (!(value > 0)) throw new Error(`[${optimizer}] ${name} must be positive, got ${value}`);
  return value;
}
function requireBetas(optimizer: string, betas: readonly number[]): void {
  if (!betas.every((b) => b >= 0 && b < 1)) throw new Error(`[${optimizer}] betas must be in [0, 1), got ${betas}`);
}
/** rate * old + (1 - rate) * value, with one constant: a fused update has room for few operands. */
const average = (old: MxArray, value: MxArray, rate: number): MxArray => add(old, multiply(subtract(value, old), 1 - rate));
const slot = (state: ParameterState, name: string): MxArray => state[name] as MxArray;

/** Gradient descent: v = momentum v + (1 - dampening) g; w = w - lr v (with nesterov: w - lr (g + momentum v)). Weight decay adds weightDecay w to g. */
export class SGD extends Optimizer {
  momentum: number;
  weightDecay: number;
  dampening: number;
  nesterov: boolean;
  constructor(learningRate: LearningRate, momentum = 0, weightDecay = 0, dampening = 0, nesterov = false) {
    super();
    if (nesterov && (momentum <= 0 || dampening !== 0)) throw new Error(`[SGD] nesterov needs a momentum and no dampening, got ${momentum} and ${dampening}`);
    this.maybeSchedule("learningRate", learningRate);
    this.momentum = momentum;
    this.weightDecay = weightDecay;
    this.dampening = dampening;
    this.nesterov = nesterov;
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.v = mx.zerosLike(parameter);
  }
  override applySingle(gradient: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const g = this.weightDecay === 0 ? gradient : add(gradient, multiply(parameter, this.weightDecay));
    if (this.momentum <= 0) return subtract(parameter, multiply(this.rate(g), g));
    const v = add(multiply(slot(state, "v"), this.momentum), this.dampening > 0 ? multiply(g, 1 - this.dampening) : g);
    state.v = v;
    return subtract(parameter, multiply(this.rate(g), this.nesterov ? add(g, multiply(v, this.momentum)) : v));
  }
}

/** v = alpha v + (1 - alpha) g^2; w = w - lr g / (sqrt(v) + eps) (Tieleman and Hinton 2012). */
export class RMSprop extends Optimizer {
  alpha: number;
  eps: number;
  constructor(learningRate: LearningRate, alpha = 0.99, eps = 1e-8) {
    super();
    this.maybeSchedule("learningRate", learningRate);
    this.alpha = nonNegative("RMSprop", "alpha", alpha);
    this.eps = positive("RMSprop", "eps", eps);
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.v = mx.zerosLike(parameter);
  }
  override applySingle(g: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const v = average(slot(state, "v"), square(g), this.alpha);
    state.v = v;
    return subtract(parameter, divide(multiply(this.rate(g), g), add(sqrt(v), this.eps)));
  }
}

/** v = v + g^2; w = w - lr g / (sqrt(v) + eps) (Duchi et al. 2011). */
export class Adagrad extends Optimizer {
  eps: number;
  constructor(learningRate: LearningRate, eps = 1e-8) {
    super();
    this.maybeSchedule("learningRate", learningRate);
    this.eps = positive("Adagrad", "eps", eps);
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.v = mx.zerosLike(parameter);
  }
  override applySingle(g: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const v = add(slot(state, "v"), square(g));
    state.v = v;
    return subtract(parameter, divide(multiply(this.rate(g), g), add(sqrt(v), this.eps)));
  }
}

/** v = rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u = rho u + (1 - rho) d^2; w = w - lr d (Zeiler 2012). */
export class AdaDelta extends Optimizer {
  rho: number;
  eps: number;
  constructor(learningRate: LearningRate, rho = 0.9, eps = 1e-6) {
    super();
    this.maybeSchedule("learningRate", learningRate);
    this.rho = nonNegative("AdaDelta", "rho", rho);
    this.eps = positive("AdaDelta", "eps", eps);
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.v = mx.zerosLike(parameter);
    state.u = mx.zerosLike(parameter);
  }
  override applySingle(g: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const u = slot(state, "u");
    const v = average(slot(state, "v"), square(g), this.rho);
    const d = multiply(divide(sqrt(add(u, this.eps)), sqrt(add(v, this.eps))), g);
    state.v = v;
    state.u = average(u, square(d), this.rho);
    return subtract(parameter, multiply(this.rate(g), d));
  }
}

/**
 * m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w = w - lr m / (sqrt(v) + eps) (Kingma and Ba 2015). With `biasCorrection` m and v are divided by 1 - b^step;
 * as in MLX that is off by default.
 */
export class Adam extends Optimizer {
  betas: [number, number];
  eps: number;
  biasCorrection: boolean;
  constructor(learningRate: LearningRate, betas: [number, number] = [0.9, 0.999], eps = 1e-8, biasCorrection = false) {
    super();
    requireBetas(new.target.name, betas);
    this.maybeSchedule("learningRate", learningRate);
    this.betas = betas;
    this.eps = nonNegative(new.target.name, "eps", eps);
    this.biasCorrection = biasCorrection;
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.m = mx.zerosLike(parameter);
    state.v = mx.zerosLike(parameter);
  }
  override applySingle(g: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const [b1, b2] = this.betas;
    const m = average(slot(state, "m"), g, b1);
    const v = average(slot(state, "v"), square(g), b2);
    state.m = m;
    state.v = v;
    if (!this.biasCorrection) return subtract(parameter, divide(multiply(this.rate(g), m), add(sqrt(v), this.eps)));
    const c1 = divide(this.learningRate, subtract(1, mx.power(b1, this.step))).astype(g.dtype);
    const c2 = mx.rsqrt(subtract(1, mx.power(b2, this.step))).astype(g.dtype);
    return subtract(parameter, divide(multiply(c1, m), add(multiply(sqrt(v), c2), this.eps)));
  }
}

/** Adam on w (1 - lr weightDecay) (Loshchilov and Hutter 2019). */
export class AdamW extends Adam {
  weightDecay: number;
  constructor(learningRate: LearningRate, betas: [number, number] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, biasCorrection = false) {
    super(learningRate, betas, eps, biasCorrection);
    this.weightDecay = weightDecay;
  }
  override applySingle(gradient: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const kept = subtract(1, multiply(this.rate(gradient), this.weightDecay));
    return super.applySingle(gradient, multiply(parameter, kept), state);
  }
}

/** m = b1 m + (1 - b1) g; v = max(b2 v, |g|); w = w - lr m / (v + eps) (Kingma and Ba 2015). */
export class Adamax extends Adam {
  constructor(learningRate: LearningRate, betas: [number, number] = [0.9, 0.999], eps = 1e-8) {
    super(learningRate, betas, eps);
  }
  override applySingle(g: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const [b1, b2] = this.betas;
    const m = average(slot(state, "m"), g, b1);
    const v = mx.maximum(multiply(slot(state, "v"), b2), mx.abs(g));
    state.m = m;
    state.v = v;
    return subtract(parameter, divide(multiply(this.rate(g), m), add(v, this.eps)));
  }
}

/** c = b1 m + (1 - b1) g; m = b2 m + (1 - b2) g; w = w (1 - lr weightDecay) - lr sign(c) (Chen et al. 2023). */
export class Lion extends Optimizer {
  betas: [number, number];
  weightDecay: number;
  constructor(learningRate: LearningRate, betas: [number, number] = [0.9, 0.99], weightDecay = 0) {
    super();
    requireBetas("Lion", betas);
    this.maybeSchedule("learningRate", learningRate);
    this.betas = betas;
    this.weightDecay = weightDecay;
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.m = mx.zerosLike(parameter);
  }
  override applySingle(g: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const [b1, b2] = this.betas;
    const m = slot(state, "m");
    const lr = this.rate(g);
    const c = average(m, g, b1);
    state.m = average(m, g, b2);
    const w = this.weightDecay > 0 ? multiply(parameter, subtract(1, multiply(lr, this.weightDecay))) : parameter;
    return subtract(w, multiply(lr, mx.sign(c)));
  }
}
