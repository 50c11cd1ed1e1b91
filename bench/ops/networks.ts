/** The two networks whose training step is measured: shapes of their parameters, and their loss in plain float64. */
import type { Tensor } from "./cases.ts";

/** Pixels (128, 784) through a hidden layer of 512 with ReLU to 10 classes. Parameters: w1, b1, w2, b2. */
export const twoLayers = { name: "2-layer MLP", batch: 128, width: 784, hidden: 512, classes: 10, integerInput: false, inputShape: [128, 784], targetShape: [128], ones: new Set<number>() } as const;
/**
 * Two pre-norm blocks of width 128 with 4 heads and a GELU-free MLP of 512 (ReLU), 64 tokens of 64 kinds, 8 sequences; causal attention; positions are learned.
 * Parameters: embedding, positions; per block norm1 (gain, shift), q, k, v, o, norm2 (gain, shift), up, down; output.
 */
export const transformer = {
  name: "small transformer", batch: 8, length: 64, width: 128, heads: 4, hidden: 512, layers: 2, classes: 64, integerInput: true, inputShape: [8, 64], targetShape: [8, 64],
  ones: new Set([2, 8, 12, 18]),
} as const;
type Network = typeof twoLayers | typeof transformer;
export const perBlock = 10;

export function modelParameters(n: Network): number[][] {
  if (n.name === "2-layer MLP") return [[n.width, n.hidden], [n.hidden], [n.hidden, n.classes], [n.classes]];
  const { width: w, hidden, classes, length } = n;
  const block = [[w], [w], [w, w], [w, w], [w, w], [w, w], [w], [w], [w, hidden], [hidden, w]];
  return [[classes, w], [length, w], ...Array.from({ length: n.layers }, () => block).flat(), [w, classes]];
}

/** (rows, inner) x (inner, columns). */
function product(a: Float64Array, b: Float64Array, rows: number, inner: number, columns: number): Float64Array {
  const y = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < inner; k++) {
      const f = a[i * inner + k] as number;
      if (f !== 0) for (let j = 0; j < columns; j++) y[i * columns + j] = (y[i * columns + j] as number) + f * (b[k * columns + j] as number);
    }
  }
  return y;
}
const relu = (x: Float64Array): Float64Array => x.map((v) => Math.max(v, 0));
const plus = (a: Float64Array, b: Float64Array): Float64Array => a.map((v, i) => v + (b[i % b.length] as number));

function crossEntropy(logits: Float64Array, targets: Tensor, classes: number): number {
  let sum = 0;
  for (const [i, target] of targets.data.entries()) {
    const row = logits.subarray(i * classes, (i + 1) * classes);
    const top = Math.max(...row);
    sum += top + Math.log(row.reduce((s, v) => s + Math.exp(v - top), 0)) - (row[target] as number);
  }
  return sum / targets.data.length;
}

function layerNorm(x: Float64Array, gain: Float64Array, shift: Float64Array): Float64Array {
  const n = gain.length;
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += n) {
    const row = x.subarray(start, start + n);
    const mean = row.reduce((s, v) => s + v, 0) / n;
    const deviation = Math.sqrt(row.reduce((s, v) => s + (v - mean) ** 2, 0) / n + 1e-5);
    for (let k = 0; k < n; k++) y[start + k] = (((row[k] as number) - mean) / deviation) * (gain[k] as number) + (shift[k] as number);
  }
  return y;
}

/** Causal attention of q, k, v (batch * length, width). */
function attention(q: Float64Array, k: Float64Array, v: Float64Array): Float64Array {
  const { batch, length, width, heads } = transformer;
  const size = width / heads;
  const y = new Float64Array(q.length);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const place = (t: number): number => (b * length + t) * width + h * size;
      for (let t = 0; t < length; t++) {
        const scores = new Float64Array(t + 1);
        for (let s = 0; s <= t; s++) for (let d = 0; d < size; d++) scores[s] = (scores[s] as number) + ((q[place(t) + d] as number) * (k[place(s) + d] as number)) / Math.sqrt(size);
        const top = Math.max(...scores);
        const weights = scores.map((x) => Math.exp(x - top));
        const sum = weights.reduce((a, x) => a + x, 0);
        for (let s = 0; s <= t; s++) for (let d = 0; d < size; d++) y[place(t) + d] = (y[place(t) + d] as number) + ((weights[s] as number) / sum) * (v[place(s) + d] as number);
      }
    }
  }
  return y;
}

function transformerLoss(x: Tensor, y: Tensor, parameters: readonly Float64Array[]): number {
  const { batch, length, width, hidden, layers, classes } = transformer;
  const rows = batch * length;
  const [embedding, positions] = parameters as [Float64Array, Float64Array];
  let h: Float64Array = new Float64Array(rows * width);
  for (let i = 0; i < rows; i++) for (let d = 0; d < width; d++) h[i * width + d] = (embedding[(x.data[i] as number) * width + d] as number) + (positions[(i % length) * width + d] as number);
  for (let l = 0; l < layers; l++) {
    const [g1, s1, wq, wk, wv, wo, g2, s2, up, down] = parameters.slice(2 + l * perBlock) as Float64Array[] as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
    const n = layerNorm(h, g1, s1);
    const [q, k, v] = [wq, wk, wv].map((w) => product(n, w, rows, width, width)) as [Float64Array, Float64Array, Float64Array];
    h = plus(h, product(attention(q, k, v), wo, rows, width, width));
    h = plus(h, product(relu(product(layerNorm(h, g2, s2), up, rows, width, hidden)), down, rows, hidden, width));
  }
  return crossEntropy(product(h, parameters.at(-1) as Float64Array, rows, width, classes), y, classes);
}

export function modelLoss(n: Network, x: Tensor, y: Tensor, parameters: readonly Float64Array[]): number {
  if (n.name !== "2-layer MLP") return transformerLoss(x, y, parameters);
  const [w1, b1, w2, b2] = parameters as [Float64Array, Float64Array, Float64Array, Float64Array];
  const h = relu(plus(product(Float64Array.from(x.data), w1, n.batch, n.width, n.hidden), b1));
  return crossEntropy(plus(product(h, w2, n.batch, n.hidden, n.classes), b2), y, n.classes);
}
