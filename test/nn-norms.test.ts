/** Norms over positions, groups and batches, position encodings, Bilinear and dropout of channels, against plain loops. */
import { describe, expect, test } from "vitest";
import { core as mx, nn } from "../src/index.ts";
import { randomFrom, values } from "./helpers/llm.ts";

type A = mx.MxArray;
const random = randomFrom(17);
const numbers = (n: number): number[] => Array.from({ length: n }, () => Math.fround(random() * 4 - 1));
const near = (list: readonly number[], digits = 5): unknown[] => list.map((x) => expect.closeTo(x, digits));
const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const arrayOf = (data: readonly number[], shape: readonly number[], dtype?: mx.Dtype): A => mx.reshape(mx.array(Float32Array.from(data)), shape).astype(dtype ?? mx.float32);

/** (x - mean) / sqrt(var + eps) within the elements that share a key. */
function normalized(x: readonly number[], keyOf: (i: number) => string | number, eps = 1e-5): number[] {
  const groups = new Map<string | number, number[]>();
  x.forEach((v, i) => {
    groups.set(keyOf(i), [...(groups.get(keyOf(i)) ?? []), v]);
  });
  const stats = new Map([...groups].map(([k, list]) => {
    const mean = list.reduce((a, b) => a + b, 0) / list.length;
    return [k, [mean, list.reduce((s, v) => s + (v - mean) ** 2, 0) / list.length] as const];
  }));
  return x.map((v, i) => {
    const [mean, variance] = stats.get(keyOf(i)) as readonly [number, number];
    return (v - mean) / Math.sqrt(variance + eps);
  });
}
const scaled = (x: readonly number[], weight: readonly number[], bias: readonly number[]): number[] => x.map((v, i) => v * (weight[i % weight.length] as number) + (bias[i % bias.length] as number));

describe("InstanceNorm", () => {
  test.each([[[2, 5, 3]], [[2, 3, 4, 3]], [[1, 2, 2, 3, 3]]])("shape %j, with and without weights", (shape) => {
    const x = numbers(product(shape));
    const perExample = product(shape) / (shape[0] as number);
    const want = normalized(x, (i) => `${Math.floor(i / perExample)} ${i % 3}`);
    expect(values(new nn.InstanceNorm(3).forward(arrayOf(x, shape)))).toEqual(near(want));
    const layer = new nn.InstanceNorm(3, 1e-5, true);
    const [w, b] = [numbers(3), numbers(3)];
    layer.update({ weight: mx.array(w), bias: mx.array(b) });
    expect(values(layer.forward(arrayOf(x, shape)))).toEqual(near(scaled(want, w, b)));
  });
  test("text and errors", () => {
    expect(String(new nn.InstanceNorm(3))).toBe("InstanceNorm(3, eps=1e-5, affine=false)");
    expect(() => new nn.InstanceNorm(3).forward(mx.zeros([2, 3]))).toThrow(/at least 3 dimensions/);
    for (const make of [() => new nn.InstanceNorm(3, 0), () => new nn.LayerNorm(3, -1), () => new nn.RMSNorm(3, 0), () => new nn.GroupNorm(1, 3, 0), () => new nn.BatchNorm(3, 0)]) expect(make).toThrow(/eps must be positive/);
  });
});

describe("GroupNorm", () => {
  const shape = [2, 3, 2, 6];
  const x = numbers(product(shape));
  const group = (i: number, of: (feature: number) => number): string => `${Math.floor(i / 36)} ${of(i % 6)}`;
  test("groups of every numGroups-th feature", () => {
    expect(values(new nn.GroupNorm(2, 6).forward(arrayOf(x, shape)))).toEqual(near(normalized(x, (i) => group(i, (f) => f % 2))));
  });
  test("groups of neighbours, as in PyTorch, with weights", () => {
    const layer = new nn.GroupNorm(3, 6, 1e-3, true, true);
    const [w, b] = [numbers(6), numbers(6)];
    layer.update({ weight: mx.array(w), bias: mx.array(b) });
    expect(values(layer.forward(arrayOf(x, shape)))).toEqual(near(scaled(normalized(x, (i) => group(i, (f) => Math.floor(f / 2)), 1e-3), w, b)));
  });
  test("text, parameters and errors", () => {
    expect(String(new nn.GroupNorm(2, 6, 1e-5, false))).toBe("GroupNorm(2, 6, eps=1e-5, affine=false, pyTorchCompatible=false)");
    expect(Object.keys(new nn.GroupNorm(2, 6, 1e-5, false).parameters()).sort()).toEqual([]);
    expect(() => new nn.GroupNorm(4, 6)).toThrow(/positive multiple of numGroups, got 6 and 4/);
    expect(() => new nn.GroupNorm(0, 6)).toThrow(/numGroups/);
    expect(() => new nn.GroupNorm(2, 6).forward(mx.zeros([2, 5]))).toThrow(/\(N, ...spatial, 6\), got shape \(2,5\)/);
  });
});

describe("BatchNorm", () => {
  test.each([[[5, 4]], [[2, 3, 4]], [[2, 3, 2, 4]]])("shape %j: batch statistics in training, running ones in eval", (shape) => {
    const [x, y] = [numbers(product(shape)), numbers(product(shape))];
    const n = product(shape) / 4;
    for (const ddof of [0, 1]) {
      const layer = new nn.BatchNorm(4, 1e-5, 0.2, true, true, ddof);
      expect(values(layer.forward(arrayOf(x, shape)))).toEqual(near(normalized(x, (i) => i % 4)));
      const column = (f: number): number[] => x.filter((_, i) => i % 4 === f);
      const means = [0, 1, 2, 3].map((f) => column(f).reduce((a, b) => a + b, 0) / n);
      const vars = means.map((m, f) => column(f).reduce((s, v) => s + (v - m) ** 2, 0) / (n - ddof));
      const [mean, variance] = [means.map((m) => 0.2 * m), vars.map((v) => 0.8 + 0.2 * v)];
      expect(values(layer.runningMean as A)).toEqual(near(mean));
      expect(values(layer.runningVar as A)).toEqual(near(variance));
      layer.eval();
      expect(values(layer.forward(arrayOf(y, shape)))).toEqual(near(y.map((v, i) => (v - (mean[i % 4] as number)) / Math.sqrt((variance[i % 4] as number) + 1e-5))));
      expect(values(layer.runningMean as A)).toEqual(near(mean));
    }
  });
  test("without running statistics eval normalizes by the batch, too", () => {
    const layer = new nn.BatchNorm(3, 1e-5, 0.1, false, false);
    const x = numbers(12);
    layer.eval();
    expect(values(layer.forward(arrayOf(x, [4, 3])))).toEqual(near(normalized(x, (i) => i % 3)));
    expect(Object.keys(layer.parameters())).toEqual([]);
  });
  test("running statistics are parameters that are never trained", () => {
    const layer = new nn.BatchNorm(3);
    const trainable = (): string[] => Object.keys(layer.trainableParameters()).sort();
    expect(Object.keys(layer.parameters()).sort()).toEqual(["bias", "runningMean", "runningVar", "weight"]);
    expect(trainable()).toEqual(["bias", "weight"]);
    layer.unfreeze();
    expect(trainable()).toEqual(["bias", "weight"]);
    layer.freeze();
    layer.unfreeze(true, ["weight", "runningMean"]);
    expect(trainable()).toEqual(["weight"]);
  });
  test("text and errors", () => {
    expect(String(new nn.BatchNorm(3))).toBe("BatchNorm(3, eps=1e-5, momentum=0.1, affine=true, trackRunningStats=true)");
    expect(() => new nn.BatchNorm(3).forward(mx.zeros([3]))).toThrow(/2, 3 or 4 dimensions/);
    expect(() => new nn.BatchNorm(3).forward(mx.zeros([1, 3]))).toThrow(/more than one value per feature/);
  });
});

describe("position encodings", () => {
  test("SinusoidalPositionalEncoding", () => {
    const positions = [0, 1, 2.5, 7];
    const make = (cosFirst: boolean, turn: number, scale: number): number[] =>
      positions.flatMap((p) => {
        const angles = [0, 1, 2].map((i) => turn * p * 0.01 ** (i / 2));
        const [s, c] = [angles.map(Math.sin), angles.map(Math.cos)] as [number[], number[]];
        return [...(cosFirst ? c : s), ...(cosFirst ? s : c)].map((v) => v * scale);
      });
    const x = mx.array(positions);
    expect(values(new nn.SinusoidalPositionalEncoding(6, 0.01).forward(x))).toEqual(near(make(false, 1, Math.sqrt(2 / 6))));
    expect(values(new nn.SinusoidalPositionalEncoding(6, 0.01, 1, 1, true, true).forward(x))).toEqual(near(make(true, 2 * Math.PI, 1), 4));
    expect(new nn.SinusoidalPositionalEncoding(2).forward(x).shape).toEqual([4, 2]);
    expect(Object.keys(new nn.SinusoidalPositionalEncoding(6).parameters())).toEqual([]);
    expect(() => new nn.SinusoidalPositionalEncoding(3)).toThrow(/positive and even, got 3/);
  });
  test("ALiBi: slopes of the paper, distance to the query's position", () => {
    expect(values(nn.ALiBi.createAlibiSlope(8))).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((i) => 2 ** -i));
    // No power of two: the slopes for 4 heads, then the first and third of those for 8.
    expect(values(nn.ALiBi.createAlibiSlope(6))).toEqual(near([0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]));
    const scores = numbers(2 * 2 * 5);
    const mask = numbers(10);
    const x = arrayOf(scores, [1, 2, 2, 5]);
    const want = scores.map((v, i) => v - Math.abs(3 + (Math.floor(i / 5) % 2) - (i % 5)) * (i < 10 ? 1 / 16 : 1 / 256));
    expect(values(new nn.ALiBi().forward(x, 3))).toEqual(near(want));
    expect(values(new nn.ALiBi().forward(x, 3, arrayOf(mask, [2, 5])))).toEqual(near(want.map((v, i) => v + (mask[i % 10] as number))));
    expect(new nn.ALiBi().forward(x.astype(mx.float16)).dtype).toBe(mx.float16);
    expect(() => new nn.ALiBi().forward(mx.zeros([2, 2]))).toThrow(/scores must be/);
  });
});

test("Bilinear", () => {
  const layer = new nn.Bilinear(3, 2, 4);
  const [x1, x2] = [numbers(2 * 5 * 3), numbers(2 * 5 * 2)];
  const w = values(layer.weight);
  const b = values(layer.bias as A);
  const want = Array.from({ length: 10 * 4 }, (_, k) => {
    const [row, i] = [Math.floor(k / 4), k % 4];
    let sum = b[i] as number;
    for (let p = 0; p < 2; p++) for (let q = 0; q < 3; q++) sum += (x2[row * 2 + p] as number) * (w[(i * 2 + p) * 3 + q] as number) * (x1[row * 3 + q] as number);
    return sum;
  });
  const y = layer.forward(arrayOf(x1, [2, 5, 3]), arrayOf(x2, [2, 5, 2]));
  expect(y.shape).toEqual([2, 5, 4]);
  expect(values(y)).toEqual(near(want));
  expect(String(layer)).toBe("Bilinear(input1Dims=3, input2Dims=2, outputDims=4, bias=true)");
  expect(new nn.Bilinear(3, 2, 4, false).bias).toBeUndefined();
});

describe("dropout of channels", () => {
  test.each([
    ["Dropout2d", nn.Dropout2d, [[8, 3, 3, 16], [3, 3, 64]]],
    ["Dropout3d", nn.Dropout3d, [[8, 2, 2, 3, 16], [2, 2, 3, 64]]],
  ] as const)("%s zeroes whole channels and scales the rest", (name, Layer, shapes) => {
    const layer = new Layer(0.25);
    for (const shape of shapes) {
      const channels = shape[shape.length - 1] as number;
      const batch = shape === shapes[0] ? 8 : 1;
      const data = values(layer.forward(mx.ones([...shape])));
      const inside = data.length / batch / channels;
      const kinds = Array.from({ length: batch * channels }, (_, k) => new Set(Array.from({ length: inside }, (__, i) => data[Math.floor(k / channels) * inside * channels + i * channels + (k % channels)])));
      expect(kinds.every((k) => k.size === 1)).toBe(true);
      expect(new Set(data)).toEqual(new Set([0, Math.fround(1 / 0.75)]));
    }
    const x = mx.ones([...shapes[0]], mx.bfloat16);
    expect(layer.forward(x).dtype).toBe(mx.bfloat16);
    layer.eval();
    expect(layer.forward(x)).toBe(x);
    expect(() => layer.forward(mx.ones([2, 2]))).toThrow(new RegExp(`\\[${name}\\] input must have`));
    expect(() => new Layer(1)).toThrow(/p must be in \[0, 1\), got 1/);
  });
});
