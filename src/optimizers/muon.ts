/** Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal. */
import { core as mx, type MxArray } from "../index.ts";
import { type LearningRate, Optimizer, type ParameterState } from "./optimizer.ts";

const { add, addmm, divide, matmul, multiply, subtract } = mx;
/** Coefficients of Jordan's quintic iteration: fast growth of small singular values, at the price of ending near 1 instead of at 1. */
const [a, b, c] = [3.4445, -4.775, 2.0315];

/** Nearest orthogonal matrix, approximately: singular values go to about 0.7 .. 1.2. */
function orthogonalized(x: MxArray, steps: number): MxArray {
  const tall = (x.shape[0] as number) > (x.shape[1] as number);
  let y = tall ? x.T : x;
  y = divide(y, add(mx.sqrt(mx.sum(mx.square(y))), 1e-7));
  for (let i = 0; i < steps; i++) {
    const gram = matmul(y, y.T);
    y = addmm(multiply(y, a), addmm(multiply(gram, b), gram, gram, c, 1), y, 1, 1);
  }
  return tall ? y.T : y;
}

/**
 * v = momentum v + (1 - momentum) g; w = w - lr update, where the update v (with nesterov: (1 - momentum) g + momentum v) of arrays with two or more dimensions is
 * made orthogonal as a matrix (shape[0], rest). Weight decay adds weightDecay w to g.
 */
export class Muon extends Optimizer {
  momentum: number;
  weightDecay: number;
  nesterov: boolean;
  nsSteps: number;
  constructor(learningRate: LearningRate, momentum = 0.95, weightDecay = 0.01, nesterov = true, nsSteps = 5) {
    super();
    this.maybeSchedule("learningRate", learningRate);
    this.momentum = momentum;
    this.weightDecay = weightDecay;
    this.nesterov = nesterov;
    this.nsSteps = nsSteps;
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    state.v = mx.zerosLike(parameter);
  }
  override applySingle(gradient: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const g = this.weightDecay === 0 ? gradient : add(gradient, multiply(parameter, this.weightDecay));
    const fresh = multiply(g, 1 - this.momentum);
    const v = add(multiply(state.v as MxArray, this.momentum), fresh);
    state.v = v;
    let update = this.nesterov ? add(fresh, multiply(v, this.momentum)) : v;
    let lr = this.rate(g);
    if (update.ndim >= 2) {
      const { shape } = update;
      update = mx.reshape(orthogonalized(mx.reshape(update, [shape[0] as number, -1]), this.nsSteps), shape);
      const [rows, columns] = shape.slice(-2) as [number, number];
      lr = multiply(lr, Math.sqrt(Math.max(1, rows / columns)));
    }
    return subtract(parameter, multiply(lr, update));
  }
}
