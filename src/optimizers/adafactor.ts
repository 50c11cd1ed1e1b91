/** Adafactor (Shazeer and Stern 2018). */
import { core as mx, type MxArray } from "../index.ts";
import { type LearningRate, Optimizer, type ParameterState } from "./optimizer.ts";

const { add, divide, maximum, mean, multiply, rsqrt, square, subtract } = mx;
const rms = (x: MxArray): MxArray => mx.sqrt(mean(square(x)));

/** g over the root of its second moment, which is kept for matrices as the product of a row and a column. */
export class Adafactor extends Optimizer {
  eps: [number, number];
  clipThreshold: number;
  decayRate: number;
  beta1: number | null;
  weightDecay: number;
  scaleParameter: boolean;
  relativeStep: boolean;
  warmupInit: boolean;

  /**
   * @param learningRate null: relative to the step and, with `scaleParameter`, to the size of the parameter
   * @param eps added to squared gradients; least size of a parameter
   * @param clipThreshold largest root mean square of an update
   * @param decayRate exponent of the second moment's decay
   * @param beta1 decay of the first moment; null: none is kept
   * @param relativeStep the learning rate is 1 / sqrt(step), at most 0.01 (with `warmupInit` 1e-6 step)
   */
  constructor(
    learningRate: LearningRate | null = null, eps: [number, number] = [1e-30, 1e-3], clipThreshold = 1, decayRate = -0.8, beta1: number | null = null, weightDecay = 0, scaleParameter = true, relativeStep = true, warmupInit = false,
  ) {
    super();
    if (learningRate !== null && learningRate !== undefined) this.maybeSchedule("learningRate", learningRate);
    this.eps = eps;
    this.clipThreshold = clipThreshold;
    this.decayRate = decayRate;
    this.beta1 = beta1;
    this.weightDecay = weightDecay;
    this.scaleParameter = scaleParameter;
    this.relativeStep = relativeStep;
    this.warmupInit = warmupInit;
  }
  override initSingle(parameter: MxArray, state: ParameterState): void {
    const { shape, dtype } = parameter;
    if (shape.length >= 2) {
      state.expAvgSqRow = mx.zeros(shape.slice(0, -1), dtype);
      state.expAvgSqCol = mx.zeros([...shape.slice(0, -2), shape[shape.length - 1] as number], dtype);
    } else state.expAvgSq = mx.zerosLike(parameter);
    if (this.beta1 !== null) state.expAvg = mx.zerosLike(parameter);
  }
  #rateOf(size: MxArray): MxArray {
    const step = this.relativeStep ? mx.minimum(this.warmupInit ? multiply(this.step, 1e-6) : mx.array(1e-2), rsqrt(this.step)) : this.learningRate;
    const relative = step.astype(size.dtype);
    return this.scaleParameter ? multiply(maximum(size, this.eps[1]), relative) : relative;
  }
  /** Reciprocal root of the second moment, made of the means over columns and rows. */
  #factored(row: MxArray, column: MxArray): MxArray {
    const r = rsqrt(divide(row, mean(row, -1, true)));
    return mx.matmul(mx.expandDims(r, -1), mx.expandDims(rsqrt(column), -2));
  }
  #normalized(g: MxArray, state: ParameterState): MxArray {
    const beta2 = subtract(1, mx.power(this.step, this.decayRate)).astype(g.dtype);
    const rest = subtract(1, beta2);
    const moment = (old: MxArray | undefined, value: MxArray): MxArray => add(multiply(old as MxArray, beta2), multiply(value, rest));
    const squares = add(square(g), this.eps[0]);
    if (g.ndim < 2) {
      state.expAvgSq = moment(state.expAvgSq, squares);
      return multiply(rsqrt(state.expAvgSq), g);
    }
    state.expAvgSqRow = moment(state.expAvgSqRow, mean(squares, -1));
    state.expAvgSqCol = moment(state.expAvgSqCol, mean(squares, -2));
    return multiply(this.#factored(state.expAvgSqRow, state.expAvgSqCol), g);
  }
  override applySingle(gradient: MxArray, parameter: MxArray, state: ParameterState): MxArray {
    const lr = this.#rateOf(rms(parameter));
    const raw = this.#normalized(gradient, state);
    let update = multiply(divide(raw, maximum(divide(rms(raw), this.clipThreshold), 1)), lr);
    if (this.beta1 !== null) {
      update = add(multiply(state.expAvg as MxArray, this.beta1), multiply(update, 1 - this.beta1));
      state.expAvg = update;
    }
    const w = this.weightDecay === 0 ? parameter : add(parameter, multiply(parameter, multiply(lr, -this.weightDecay)));
    return subtract(w, update);
  }
}
