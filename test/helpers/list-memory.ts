/** Second-order gradients of layer norms, with parts of the graph computed early (MLX_FLUSH_BYTES): lists begin while others are in flight. Prints relative differences between two forms. */
import { core as mx, type MxArray } from "../../src/index.ts";

type A = MxArray;
type Loss = (x: A, w: A, b: A, y: A) => A;
const norm = (x: A, w: A, b: A): A => {
  const mean = mx.mean(x, -1, true);
  const variance = mx.variance(x, -1, true);
  return mx.add(mx.multiply(mx.multiply(mx.subtract(x, mean), mx.rsqrt(mx.add(variance, 1e-5))), w), b);
};
const plain: Loss = (x, w, b, y) => mx.sum(mx.multiply(norm(x, w, b), y));
const fast: Loss = (x, w, b, y) => mx.sum(mx.multiply(mx.fast.layerNorm(x, w, b, 1e-5), y));
const ofGradients =
  (f: Loss): Loss =>
  (x, w, b, y) => {
    const [gx, gw, gb] = mx.grad(f, [0, 1, 2])(x, w, b, y) as unknown as [A, A, A];
    return mx.sum(mx.multiply(mx.add(mx.add(gx, gw), gb), y));
  };

mx.random.seed(1);
const x = mx.random.uniform(0, 1, [8, 2, 8192]);
const w = mx.random.uniform(0, 1, [8192]);
const b = mx.random.uniform(0, 1, [8192]);
const y = mx.random.uniform(0, 1, [8, 2, 8192]);
const one = mx.grad(ofGradients(plain), [0, 1, 2])(x, w, b, y) as unknown as A[];
const two = mx.grad(ofGradients(fast), [0, 1, 2])(x, w, b, y) as unknown as A[];
const differences = [0, 1].map((i) => mx.divide(mx.max(mx.abs(mx.subtract(one[i] as A, two[i] as A))), mx.mean(mx.abs(one[i] as A))).item());
console.log(JSON.stringify([...differences, mx.max(mx.abs(one[2] as A)).item()]));
