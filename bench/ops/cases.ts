/** The rows of bench/ops: data, work in words, and what the result must be, in float64. How a library does the work stands in its engine. */
import { randomStream } from "../models/synthetic.ts";
import { modelLoss, modelParameters, transformer, twoLayers } from "./networks.ts";

export interface Tensor {
  readonly data: Float32Array | Int32Array;
  readonly shape: readonly number[];
}
export interface OpCase {
  readonly name: string;
  inputs(): Tensor[];
  /** Throws when the results (flat, one per output) are wrong. */
  check(inputs: readonly Tensor[], outputs: readonly ArrayLike<number>[]): void;
}

function normals(shape: readonly number[], seed: number, scale = 1): Tensor {
  const random = randomStream(seed);
  const n = shape.reduce((a, b) => a * b, 1);
  return { data: Float32Array.from({ length: n }, () => scale * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())), shape };
}
function integers(shape: readonly number[], below: number, seed: number): Tensor {
  const random = randomStream(seed);
  return { data: Int32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.floor(random() * below)), shape };
}
const at = (t: Tensor, i: number): number => t.data[i] as number;

/** Checks `count` elements spread over the result: |got - want| <= tolerance. */
function sampled(expected: (inputs: readonly Tensor[], i: number) => number, size: number, tolerance: number, count = 200): OpCase["check"] {
  return (inputs, [got]) => {
    if (got?.length !== size) throw new Error(`expected ${size} elements, got ${got?.length}`);
    const random = randomStream(99);
    for (let k = 0; k < count; k++) {
      const i = k === 0 ? 0 : k === 1 ? size - 1 : Math.floor(random() * size);
      const want = expected(inputs, i);
      if (!(Math.abs((got[i] as number) - want) <= tolerance)) throw new Error(`element ${i} is ${got[i]}, expected ${want} within ${tolerance}`);
    }
  };
}
const total = (n: number, f: (k: number) => number): number => {
  let sum = 0;
  for (let k = 0; k < n; k++) sum += f(k);
  return sum;
};

const side = 1024;
const size = side * side;
const square = (seed: number): Tensor => normals([side, side], seed);
const row = (x: Tensor, i: number, n: number): Float64Array => Float64Array.from(x.data.subarray(Math.floor(i / n) * n, Math.floor(i / n) * n + n));

/** n products of unit size each, summed in float32: errors of 1e-7 n at most, in the mean of sqrt(n) 1e-7. */
const matmul = (n: number): OpCase => ({
  name: `matmul ${n}`,
  inputs: () => [normals([n, n], 1), normals([n, n], 2)],
  check: sampled(([a, b], i) => total(n, (k) => at(a as Tensor, Math.floor(i / n) * n + k) * at(b as Tensor, k * n + (i % n))), n * n, 1e-6 * n, 64),
});
/** `names` of functions of Math that an op computes for each element, to a few units in the last place of values up to 5 sigma. */
const elementwise = (name: "exp" | "sin" | "tanh"): OpCase => ({ name, inputs: () => [square(1)], check: sampled(([x], i) => Math[name](at(x as Tensor, i)), size, name === "exp" ? 3e-5 : 1e-6) });

const cube = [128, 128, 64] as const;
const sumOver = (axis: 0 | 1 | 2): OpCase => {
  const strides = [128 * 64, 64, 1] as const;
  const others = [0, 1, 2].filter((a) => a !== axis) as [number, number];
  const inner = cube[others[1] as 0 | 1 | 2];
  return {
    name: `sum axis ${axis}`,
    inputs: () => [normals(cube, 3)],
    check: sampled(([x], i) => {
      const start = Math.floor(i / inner) * (strides[others[0] as 0 | 1 | 2] as number) + (i % inner) * (strides[others[1] as 0 | 1 | 2] as number);
      return total(cube[axis], (k) => at(x as Tensor, start + k * strides[axis]));
    }, size / cube[axis], 1e-4),
  };
};

const softmax: OpCase = {
  name: "softmax",
  inputs: () => [square(4)],
  check: sampled(([x], i) => {
    const r = row(x as Tensor, i, side);
    const top = Math.max(...r);
    return Math.exp((r[i % side] as number) - top) / total(side, (k) => Math.exp((r[k] as number) - top));
  }, size, 1e-6),
};
const layerNorm: OpCase = {
  name: "layer_norm",
  inputs: () => [square(5), normals([side], 6), normals([side], 7)],
  check: sampled(([x, w, b], i) => {
    const r = row(x as Tensor, i, side);
    const mean = total(side, (k) => r[k] as number) / side;
    const variance = total(side, (k) => ((r[k] as number) - mean) ** 2) / side;
    return (((r[i % side] as number) - mean) / Math.sqrt(variance + 1e-5)) * at(w as Tensor, i % side) + at(b as Tensor, i % side);
  }, size, 1e-4),
};

/** Images (4, 56, 56, 32), 64 filters of 3 x 3 x 32, a border of one. 288 products of unit size. */
const conv = { N: 4, H: 56, W: 56, C: 32, O: 64, K: 3 } as const;
const conv2d: OpCase = {
  name: "conv2d",
  inputs: () => [normals([conv.N, conv.H, conv.W, conv.C], 8), normals([conv.O, conv.K, conv.K, conv.C], 9)],
  check: sampled(([x, w], i) => {
    const { H, W, C, O, K } = conv;
    const [o, px, py, n] = [i % O, Math.floor(i / O) % W, Math.floor(i / (O * W)) % H, Math.floor(i / (O * W * H))];
    let sum = 0;
    for (let dy = 0; dy < K; dy++) {
      for (let dx = 0; dx < K; dx++) {
        const [y, xx] = [py + dy - 1, px + dx - 1];
        if (y < 0 || y >= H || xx < 0 || xx >= W) continue;
        sum += total(C, (c) => at(x as Tensor, ((n * H + y) * W + xx) * C + c) * at(w as Tensor, ((o * K + dy) * K + dx) * C + c));
      }
    }
    return sum;
  }, conv.N * conv.H * conv.W * conv.O, 3e-4),
};

const sorted = (name: string, shape: readonly number[]): OpCase => ({
  name,
  inputs: () => [normals(shape, 10)],
  check: ([x], [got]) => {
    const n = shape.at(-1) as number;
    for (let start = 0; start < (x as Tensor).data.length; start += n) {
      const want = (x as Tensor).data.slice(start, start + n).sort();
      for (let k = 0; k < n; k++) if (got?.[start + k] !== want[k]) throw new Error(`element ${start + k} is ${got?.[start + k]}, expected ${want[k]}`);
    }
  },
});
/** Sums of up to 1024 numbers of unit size: 1e-7 of values up to 100, times the number of additions in a chain. */
const cumsum = (axis: 0 | 1): OpCase => ({
  name: `cumsum axis ${axis}`,
  inputs: () => [square(11)],
  check: sampled(([x], i) => {
    const [r, c] = [Math.floor(i / side), i % side];
    return axis === 1 ? total(c + 1, (k) => at(x as Tensor, r * side + k)) : total(r + 1, (k) => at(x as Tensor, k * side + c));
  }, size, 1e-3),
});
const gather = { rows: 20000, columns: 256, count: 4096 } as const;
const gatherRows: OpCase = {
  name: "gather rows",
  inputs: () => [normals([gather.rows, gather.columns], 12), integers([gather.count], gather.rows, 13)],
  check: sampled(([x, ids], i) => at(x as Tensor, at(ids as Tensor, Math.floor(i / gather.columns)) * gather.columns + (i % gather.columns)), gather.count * gather.columns, 0),
};
const gatherElements: OpCase = {
  name: "gather elements",
  inputs: () => [normals([size], 14), integers([size], size, 15)],
  check: sampled(([x, ids], i) => at(x as Tensor, at(ids as Tensor, i)), size, 0),
};

/** 256 transforms of 4096 complex numbers; outputs are real and imaginary parts. Errors grow with log2(n): 12 roundings of values up to 64 times the inputs. */
const fftSizes = { count: 256, length: 4096 } as const;
const fft: OpCase = {
  name: "fft",
  inputs: () => [normals([fftSizes.count, fftSizes.length], 16), normals([fftSizes.count, fftSizes.length], 17)],
  check: (inputs, outputs) => {
    const { length: n, count } = fftSizes;
    const part = (which: 0 | 1) => sampled(([re, im], i) => {
      const [start, f] = [Math.floor(i / n) * n, i % n];
      return total(n, (k) => {
        const angle = (-2 * Math.PI * ((k * f) % n)) / n;
        const [a, b] = [at(re as Tensor, start + k), at(im as Tensor, start + k)];
        return which === 0 ? a * Math.cos(angle) - b * Math.sin(angle) : a * Math.sin(angle) + b * Math.cos(angle);
      });
    }, n * count, 1e-3, 64);
    part(0)(inputs, [outputs[0] as ArrayLike<number>]);
    part(1)(inputs, [outputs[1] as ArrayLike<number>]);
  },
};

/**
 * A step of gradient descent: outputs are the loss and the new parameters. The loss must be that of the float64 model; and so must the slope along a random
 * direction, which the gradients (parameters before minus after, over the learning rate) give: |difference| <= 1 % of the gradient's norm.
 */
const trainingStep = (network: typeof twoLayers | typeof transformer): OpCase => ({
  name: `training step, ${network.name}`,
  inputs: () => {
    const parameters = modelParameters(network).map((shape, i) => (shape.length === 1 ? { data: new Float32Array(shape[0] as number).fill(network.ones.has(i) ? 1 : 0), shape } : normals(shape, 20 + i, 1 / Math.sqrt(shape[0] as number))));
    const data = network.integerInput ? integers(network.inputShape, network.classes, 50) : normals(network.inputShape, 50);
    return [data, integers(network.targetShape, network.classes, 51), ...parameters];
  },
  check: ([x, y, ...parameters], [loss, ...updated]) => {
    const values = parameters.map((p) => Float64Array.from(p.data));
    const want = modelLoss(network, x as Tensor, y as Tensor, values);
    if (!(Math.abs((loss?.[0] as number) - want) <= 1e-4 * want)) throw new Error(`the loss is ${loss?.[0]}, expected ${want}`);
    const gradients = values.map((v, i) => v.map((p, k) => (p - (updated[i]?.[k] as number)) / learningRate));
    const direction = values.map((v, i) => Float64Array.from(normals([v.length], 70 + i).data));
    const norm = Math.sqrt(gradients.reduce((s, g) => s + total(g.length, (k) => (g[k] as number) ** 2), 0));
    const got = gradients.reduce((s, g, i) => s + total(g.length, (k) => (g[k] as number) * (direction[i]?.[k] as number)), 0);
    const h = 1e-5;
    const moved = (sign: number): number => modelLoss(network, x as Tensor, y as Tensor, values.map((v, i) => v.map((p, k) => p + sign * h * (direction[i]?.[k] as number))));
    const slope = (moved(1) - moved(-1)) / (2 * h);
    if (!(Math.abs(got - slope) <= 0.01 * norm)) throw new Error(`the slope is ${got}, expected ${slope}; the gradient's norm is ${norm}`);
  },
});
export const learningRate = 0.5;

export const cases: readonly OpCase[] = [
  matmul(512), matmul(1024), softmax,
  // Added up one by one, a million roundings of partial sums up to 3000: 6e-8 x 3000 x sqrt(1e6) = 0.2.
  { name: "sum", inputs: () => [normals(cube, 3)], check: sampled(([x]) => total(size, (k) => at(x as Tensor, k)), 1, 0.2, 1) },
  sumOver(0), sumOver(1), sumOver(2), elementwise("exp"), elementwise("sin"), elementwise("tanh"),
  { name: "add", inputs: () => [square(1), square(2)], check: sampled(([a, b], i) => at(a as Tensor, i) + at(b as Tensor, i), size, 1e-6) },
  layerNorm, conv2d, sorted("sort rows", [side, side]), sorted("sort all", [size]), cumsum(0), cumsum(1), gatherRows, gatherElements, fft, trainingStep(twoLayers), trainingStep(transformer),
];
