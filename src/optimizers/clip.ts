/** Gradient clipping. */
import { core as mx, type MxArray } from "../index.ts";
import { treeFlatten, treeMap } from "../trees.ts";
import type { ArrayTree } from "./optimizer.ts";

/**
 * Scales gradients so that their norm, taken over all of them together, is at most `maxNorm`. Throws when `maxNorm` is negative.
 * @returns [scaled gradients, the norm before]
 */
export function clipGradNorm(grads: ArrayTree, maxNorm: number): [ArrayTree, MxArray] {
  if (!(maxNorm >= 0)) throw new Error(`[clipGradNorm] maxNorm must not be negative, got ${maxNorm}`);
  const squares = treeFlatten(grads).map(([, g]): MxArray => mx.sum(mx.square(g)));
  const total = mx.sqrt(squares.length > 0 ? squares.reduce((a, b) => mx.add(a, b)) : mx.array(0));
  const normalizer = mx.minimum(mx.divide(maxNorm, mx.add(total, 1e-6)), 1);
  return [treeMap((g: MxArray) => mx.multiply(g, normalizer), grads), total];
}
