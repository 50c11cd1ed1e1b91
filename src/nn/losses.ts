/** Loss functions, exported as `nn.losses`. `reduction`: "none" keeps one loss per element (or per line along `axis`), "mean" and "sum" give a 0-d array. */
import { core as mx, type MxArray } from "../index.ts";
import { deepEqual } from "../trees.ts";

export type Reduction = "none" | "mean" | "sum";

function reduce(loss: MxArray, reduction: Reduction): MxArray {
  if (reduction === "mean") return mx.mean(loss);
  if (reduction === "sum") return mx.sum(loss);
  if (reduction !== "none") throw new Error(`[losses] reduction must be "none", "mean" or "sum", got ${JSON.stringify(reduction)}`);
  return loss;
}
function requireShape(op: string, name: string, shape: readonly number[], wanted: readonly number[]): void {
  if (!deepEqual(shape, wanted)) throw new Error(`[${op}] ${name} must have shape (${wanted}), got (${shape})`);
}
const without = (shape: readonly number[], axis: number): number[] => shape.filter((_, i) => i !== (axis < 0 ? axis + shape.length : axis));
/** Element of each line along an axis that an integer array names. */
const chosen = (x: MxArray, targets: MxArray, axis: number): MxArray => mx.squeeze(mx.takeAlongAxis(x, mx.expandDims(targets, axis), axis), axis);

/**
 * -log softmax(logits)[target]. Targets are class numbers (logits' shape without `axis`) or probabilities (logits' shape).
 *
 * @param weights one per loss
 * @param labelSmoothing part of the target's weight that is spread over all classes, 0 <= labelSmoothing < 1
 * @throws when shapes do not fit or labelSmoothing is out of range
 */
export function crossEntropy(logits: MxArray, targets: MxArray, weights?: MxArray | null, axis = -1, labelSmoothing = 0, reduction: Reduction = "none"): MxArray {
  if (!(labelSmoothing >= 0 && labelSmoothing < 1)) throw new Error(`[crossEntropy] labelSmoothing must be at least 0 and less than 1, got ${labelSmoothing}`);
  const probabilities = targets.ndim === logits.ndim;
  requireShape("crossEntropy", "targets", targets.shape, probabilities ? logits.shape : without(logits.shape, axis));
  // Large logits leave more digits of the small difference when their maximum is taken off first; of the chosen one alone, so that the others need not be stored.
  const greatest = mx.stopGradient(mx.max(logits, axis, true));
  const moved = mx.subtract(logits, greatest);
  const score = probabilities ? mx.sum(mx.multiply(moved, targets), axis) : mx.subtract(chosen(logits, targets, axis), mx.squeeze(greatest, axis));
  const normalizer = mx.logsumexp(moved, axis);
  let loss = mx.subtract(normalizer, labelSmoothing > 0 ? mx.multiply(score, 1 - labelSmoothing) : score);
  if (labelSmoothing > 0) loss = mx.subtract(loss, mx.multiply(mx.mean(moved, axis), labelSmoothing));
  if (weights) {
    requireShape("crossEntropy", "weights", weights.shape, loss.shape);
    loss = mx.multiply(loss, weights);
  }
  return reduce(loss, reduction);
}

/** -(t log p + (1 - t) log(1 - p)) with p = sigmoid(inputs), or p = inputs without `withLogits` (logarithms are then at least -100). */
export function binaryCrossEntropy(inputs: MxArray, targets: MxArray, weights?: MxArray | null, withLogits = true, reduction: Reduction = "mean"): MxArray {
  requireShape("binaryCrossEntropy", "inputs", inputs.shape, targets.shape);
  const bounded = (p: MxArray): MxArray => mx.maximum(mx.log(p), -100);
  let loss = withLogits
    ? mx.subtract(mx.logaddexp(inputs, 0), mx.multiply(inputs, targets))
    : mx.negative(mx.add(mx.multiply(targets, bounded(inputs)), mx.multiply(mx.subtract(1, targets), bounded(mx.subtract(1, inputs)))));
  if (weights) {
    requireShape("binaryCrossEntropy", "weights", weights.shape, targets.shape);
    loss = mx.multiply(loss, weights);
  }
  return reduce(loss, reduction);
}

/** |predictions - targets|. */
export function l1Loss(predictions: MxArray, targets: MxArray, reduction: Reduction = "mean"): MxArray {
  requireShape("l1Loss", "predictions", predictions.shape, targets.shape);
  return reduce(mx.abs(mx.subtract(predictions, targets)), reduction);
}
/** (predictions - targets)^2. */
export function mseLoss(predictions: MxArray, targets: MxArray, reduction: Reduction = "mean"): MxArray {
  requireShape("mseLoss", "predictions", predictions.shape, targets.shape);
  return reduce(mx.square(mx.subtract(predictions, targets)), reduction);
}
/** -inputs[target], where the inputs are logarithms of probabilities. */
export const nllLoss = (inputs: MxArray, targets: MxArray, axis = -1, reduction: Reduction = "none"): MxArray => reduce(mx.negative(chosen(inputs, targets, axis)), reduction);

/** (log v + (targets - inputs)^2 / v) / 2 with v = max(vars, eps); `full` adds log(2 pi) / 2. */
export function gaussianNllLoss(inputs: MxArray, targets: MxArray, vars: MxArray, full = false, eps = 1e-6, reduction: Reduction = "mean"): MxArray {
  requireShape("gaussianNllLoss", "inputs", inputs.shape, targets.shape);
  requireShape("gaussianNllLoss", "vars", vars.shape, inputs.shape);
  const v = mx.maximum(vars, eps);
  const loss = mx.multiply(mx.add(mx.log(v), mx.divide(mx.square(mx.subtract(targets, inputs)), v)), 0.5);
  return reduce(full ? mx.add(loss, 0.5 * Math.log(2 * Math.PI)) : loss, reduction);
}
/** sum(exp(targets) (targets - inputs)) along an axis: both are logarithms of probabilities. */
export const klDivLoss = (inputs: MxArray, targets: MxArray, axis = -1, reduction: Reduction = "none"): MxArray =>
  reduce(mx.sum(mx.multiply(mx.exp(targets), mx.subtract(targets, inputs)), axis), reduction);

/** d^2 / (2 beta) for d = |predictions - targets| < beta, else d - beta / 2. */
export function smoothL1Loss(predictions: MxArray, targets: MxArray, beta = 1, reduction: Reduction = "mean"): MxArray {
  requireShape("smoothL1Loss", "predictions", predictions.shape, targets.shape);
  const d = mx.abs(mx.subtract(predictions, targets));
  return reduce(mx.where(mx.less(d, beta), mx.divide(mx.multiply(mx.square(d), 0.5), beta), mx.subtract(d, 0.5 * beta)), reduction);
}
/** max(d(anchor, positive) - d(anchor, negative) + margin, 0), d = (sum(|x - y|^p) + eps)^(1 / p) along an axis. */
export function tripletLoss(anchors: MxArray, positives: MxArray, negatives: MxArray, axis = -1, p = 2, margin = 1, eps = 1e-6, reduction: Reduction = "none"): MxArray {
  const distance = (x: MxArray): MxArray => mx.power(mx.add(mx.sum(mx.power(mx.abs(mx.subtract(anchors, x)), p), axis), eps), 1 / p);
  return reduce(mx.maximum(mx.add(mx.subtract(distance(positives), distance(negatives)), margin), 0), reduction);
}
/** max(1 - inputs targets, 0), targets -1 or 1. */
export const hingeLoss = (inputs: MxArray, targets: MxArray, reduction: Reduction = "none"): MxArray => reduce(mx.maximum(mx.subtract(1, mx.multiply(inputs, targets)), 0), reduction);

/** d^2 / 2 for d = |inputs - targets| <= delta, else delta (d - delta / 2). */
export function huberLoss(inputs: MxArray, targets: MxArray, delta = 1, reduction: Reduction = "none"): MxArray {
  const d = mx.abs(mx.subtract(inputs, targets));
  const quadratic = mx.minimum(d, delta);
  return reduce(mx.add(mx.multiply(mx.square(quadratic), 0.5), mx.multiply(mx.subtract(d, quadratic), delta)), reduction);
}
/** log(cosh(inputs - targets)). */
export function logCoshLoss(inputs: MxArray, targets: MxArray, reduction: Reduction = "none"): MxArray {
  const d = mx.subtract(inputs, targets);
  return reduce(mx.subtract(mx.logaddexp(d, mx.negative(d)), Math.LN2), reduction);
}
/** Cosine of the angle between x1 and x2 along an axis; the product of their norms counts as at least eps. */
export function cosineSimilarityLoss(x1: MxArray, x2: MxArray, axis = 1, eps = 1e-8, reduction: Reduction = "none"): MxArray {
  const norm = (x: MxArray): MxArray => mx.sqrt(mx.sum(mx.square(x), axis));
  return reduce(mx.divide(mx.sum(mx.multiply(x1, x2), axis), mx.maximum(mx.multiply(norm(x1), norm(x2)), eps)), reduction);
}
/** max(margin - targets (inputs1 - inputs2), 0), targets -1 or 1. */
export function marginRankingLoss(inputs1: MxArray, inputs2: MxArray, targets: MxArray, margin = 0, reduction: Reduction = "none"): MxArray {
  requireShape("marginRankingLoss", "inputs2", inputs2.shape, inputs1.shape);
  requireShape("marginRankingLoss", "targets", targets.shape, inputs1.shape);
  return reduce(mx.maximum(mx.subtract(margin, mx.multiply(targets, mx.subtract(inputs1, inputs2))), 0), reduction);
}
