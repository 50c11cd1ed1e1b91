/** Convolution, pooling and upsampling layers, against plain loops and known values. */
import { describe, expect, it } from "vitest";
import { core as mx, nn } from "../src/index.ts";
import { expectClose, randomSource } from "./helpers/check.ts";

const random = randomSource(11);
interface Block {
  shape: number[];
  data: number[];
  array: mx.MxArray;
}
function block(...shape: number[]): Block {
  const data = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.fround(random() * 2 - 1));
  return { shape, data, array: mx.reshape(mx.array(new Float32Array(data)), shape) };
}
const flat = (a: mx.MxArray): number[] => mx.flatten(a).tolist() as number[];
/** All index lists below `shape`, row-major. */
const indices = (shape: readonly number[]): number[][] => shape.reduce<number[][]>((lists, n) => lists.flatMap((l) => Array.from({ length: n }, (_, i) => [...l, i])), [[]]);
const at = (b: Block, index: readonly number[]): number => b.data[index.reduce((n, i, d) => n * (b.shape[d] as number) + i, 0)] as number;

describe("convolution layers", () => {
  const cases: [nn.Module & { weight: mx.MxArray; bias?: mx.MxArray }, number[], number[], number, string][] = [
    [new nn.Conv1d(6, 4, 3, 2, 1, 1, 2), [2, 9, 6], [4, 3, 3], 18, "Conv1d(6, 4, kernelSize=3, stride=2, padding=1, dilation=1, groups=2, bias=true)"],
    [new nn.Conv2d(3, 8, [3, 2], 2, 1), [2, 7, 8, 3], [8, 3, 2, 3], 18, "Conv2d(3, 8, kernelSize=3,2, stride=2,2, padding=1,1, dilation=1, groups=1, bias=true)"],
    [new nn.Conv3d(2, 3, 2, 1, 0, 1, false), [1, 4, 4, 4, 2], [3, 2, 2, 2, 2], 16, "Conv3d(2, 3, kernelSize=2,2,2, stride=1,1,1, padding=0,0,0, dilation=1, bias=false)"],
    [new nn.ConvTranspose1d(4, 5, 3, 2, 1, 1, true, 1), [2, 5, 4], [5, 3, 4], 12, "ConvTranspose1d(4, 5, kernelSize=3, stride=2, padding=1, dilation=1, outputPadding=1, bias=true)"],
    [new nn.ConvTranspose2d(4, 5, 3, 2), [2, 5, 4, 4], [5, 3, 3, 4], 36, "ConvTranspose2d(4, 5, kernelSize=3,3, stride=2,2, padding=0,0, dilation=1, outputPadding=0,0, bias=true)"],
    [new nn.ConvTranspose3d(2, 3, 2), [1, 3, 3, 3, 2], [3, 2, 2, 2, 2], 16, "ConvTranspose3d(2, 3, kernelSize=2,2,2, stride=1,1,1, padding=0,0,0, dilation=1,1,1, outputPadding=0,0,0, bias=true)"],
  ];
  it.each(cases.map((c) => [c[4], ...c] as const))("%s", (_name, layer, input, weight, fanIn, text) => {
    expect(layer.toString()).toBe(text);
    expect(layer.weight.shape).toEqual(weight);
    const bound = Math.sqrt(1 / fanIn);
    const values = flat(layer.weight);
    expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(Math.fround(bound));
    // The largest of n uniform values is below half the bound with probability 2^-n.
    expect(Math.max(...values.map(Math.abs))).toBeGreaterThan(bound / 2);
    if (layer.bias) expect(flat(layer.bias)).toEqual(new Array<number>(weight[0] as number).fill(0));
    const x = block(...input).array;
    const before = layer.forward(x) as mx.MxArray;
    if (!layer.bias) return;
    layer.bias = mx.arange(weight[0] as number);
    const after = flat(layer.forward(x) as mx.MxArray);
    const plain = flat(before);
    expectClose(after, plain.map((v, i) => v + (i % (weight[0] as number))), { rtol: 0, atol: 1e-6 });
  });
  it("use their settings", () => {
    const x = block(2, 9, 6).array;
    const a = new nn.Conv1d(6, 4, 3, 2, 1, 2, 2, false);
    expect(flat(a.forward(x))).toEqual(flat(mx.conv1d(x, a.weight, 2, 1, 2, 2)));
    const b = new nn.ConvTranspose2d(6, 4, 3, [2, 1], 1, 2, false, [1, 0]);
    const y = block(1, 4, 5, 6).array;
    expect(flat(b.forward(y))).toEqual(flat(mx.convTranspose2d(y, b.weight, [2, 1], 1, 2, 1, [1, 0])));
    expect(b.forward(y).shape).toEqual([1, 10, 7, 4]);
  });
  it("refuse channels that do not divide into groups", () => {
    expect(() => new nn.Conv1d(5, 4, 3, 1, 0, 1, 2)).toThrow("[Conv1d] inChannels must be divisible by groups, got 5 and 2");
    expect(() => new nn.Conv2d(5, 4, 3, 1, 0, 1, 2)).toThrow("[Conv2d] inChannels must be divisible by groups");
  });
});

describe("pooling layers", () => {
  /** Windows of every output position, by loops. */
  function pooled(x: Block, kernel: number[], stride: number[], padding: number[], fold: (values: number[]) => number, filler: number): number[] {
    const spatial = x.shape.slice(1, -1);
    const counts = spatial.map((n, i) => Math.floor((n + 2 * (padding[i] as number) - (kernel[i] as number)) / (stride[i] as number)) + 1);
    return indices([x.shape[0] as number, ...counts, x.shape[x.shape.length - 1] as number]).map((o) => {
      const values = indices(kernel).map((k) => {
        const p = k.map((t, i) => (o[i + 1] as number) * (stride[i] as number) - (padding[i] as number) + t);
        return p.every((v, i) => v >= 0 && v < (spatial[i] as number)) ? at(x, [o[0] as number, ...p, o[o.length - 1] as number]) : filler;
      });
      return fold(values);
    });
  }
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const cases: [number[], number[], number[], number[]][] = [
    [[2, 8, 3], [2], [2], [0]], [[2, 9, 3], [3], [2], [1]], [[1, 5, 2], [5], [1], [2]], [[2, 6, 8, 3], [2, 4], [2, 4], [0, 0]], [[2, 7, 8, 5], [3, 2], [2, 1], [1, 0]], [[1, 4, 4, 6, 2], [2, 2, 3], [2, 2, 3], [0, 0, 0]],
    [[1, 5, 4, 6, 2], [3, 2, 2], [1, 2, 3], [1, 0, 1]], [[2, 5, 3], [2], [2], [0]],
  ];
  it.each(cases)("x %j, window %j, stride %j, padding %j", (shape, kernel, stride, padding) => {
    const x = block(...shape);
    const Max = [nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d][kernel.length - 1] as typeof nn.MaxPool1d;
    const Avg = [nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d][kernel.length - 1] as typeof nn.AvgPool1d;
    expect(flat(new Max(kernel, stride, padding).forward(x.array))).toEqual(pooled(x, kernel, stride, padding, (v) => Math.max(...v), Number.NEGATIVE_INFINITY));
    expectClose(flat(new Avg(kernel, stride, padding).forward(x.array)), pooled(x, kernel, stride, padding, mean, 0), { rtol: 0, atol: 1e-6 });
    const turned = mx.swapaxes(x.array, 0, 1);
    expect(flat(new Max(kernel, stride, padding).forward(mx.swapaxes(mx.contiguous(turned), 0, 1)))).toEqual(pooled(x, kernel, stride, padding, (v) => Math.max(...v), Number.NEGATIVE_INFINITY));
  });
  it("show their settings and take numbers", () => {
    expect(new nn.MaxPool1d(3, undefined, 2).toString()).toBe("MaxPool1d(kernelSize=3, stride=3, padding=2)");
    expect(new nn.AvgPool2d([1, 2], 2, [1, 2]).toString()).toBe("AvgPool2d(kernelSize=1,2, stride=2,2, padding=1,2)");
    expect(new nn.AvgPool3d(3, 3, 2).toString()).toBe("AvgPool3d(kernelSize=3,3,3, stride=3,3,3, padding=2,2,2)");
  });
  it("refuse what does not fit", () => {
    expect(() => new nn.MaxPool2d([1, 2, 3])).toThrow("[MaxPool2d] kernelSize must be one or 2 positive integers, got [1,2,3]");
    expect(() => new nn.MaxPool1d(2, 0)).toThrow("[MaxPool1d] stride must be one or 1 positive integers, got 0");
    expect(() => new nn.AvgPool1d(2, 1, -1)).toThrow("[AvgPool1d] padding must be one or 1 integers of at least 0, got -1");
    expect(() => new nn.MaxPool1d(2).forward(mx.zeros([2, 3]))).toThrow("[MaxPool1d] input must have 3 dimensions");
    expect(() => new nn.MaxPool1d(4).forward(mx.zeros([2, 3, 1]))).toThrow("[MaxPool1d] padded input must not be smaller than the window");
  });
});

describe("upsampling", () => {
  const small = mx.reshape(mx.arange(1, 5), [1, 2, 2, 1]);
  it("gives the values of MLX's documentation", () => {
    expect(flat(new nn.Upsample(2).forward(small))).toEqual([1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
    expect(flat(new nn.Upsample(2, "linear").forward(small))).toEqual([1, 1.25, 1.75, 2, 1.5, 1.75, 2.25, 2.5, 2.5, 2.75, 3.25, 3.5, 3, 3.25, 3.75, 4]);
    const third = [1, 4 / 3, 5 / 3, 2];
    expectClose(flat(new nn.Upsample(2, "linear", true).forward(small)), [0, 2 / 3, 4 / 3, 2].flatMap((y) => third.map((x) => x + y)), { rtol: 1e-6, atol: 0 });
  });
  /** Sum over the window of all axes at once, in float64; a place lies between floor and floor + 1. */
  function sampled(x: Block, scales: number[], place: (i: number, n: number, m: number, s: number) => number, reach: number, weight: (distance: number) => number, clampPlace: boolean): number[] {
    const spatial = x.shape.slice(1, -1);
    const sizes = spatial.map((n, i) => Math.trunc(n * (scales[i] as number)));
    return indices([x.shape[0] as number, ...sizes, x.shape[x.shape.length - 1] as number]).map((o) => {
      const places = spatial.map((n, i) => {
        const p = place(o[i + 1] as number, n, sizes[i] as number, scales[i] as number);
        return clampPlace ? Math.max(0, Math.min(n - 1, p)) : p;
      });
      let sum = 0;
      for (const k of indices(spatial.map(() => 2 * reach))) {
        const grid = places.map((p, i) => Math.floor(p) + (k[i] as number) - reach + 1);
        const w = grid.reduce((product, g, i) => product * weight(Math.abs((places[i] as number) - g)), 1);
        if (w !== 0) sum += w * at(x, [o[0] as number, ...grid.map((g, i) => Math.max(0, Math.min((spatial[i] as number) - 1, g))), o[o.length - 1] as number]);
      }
      return sum;
    });
  }
  const corners = (i: number, n: number, m: number): number => (m > 1 ? (i * (n - 1)) / (m - 1) : 0);
  const centres = (i: number, _n: number, _m: number, s: number): number => (i + 0.5) / s - 0.5;
  const hat = (d: number): number => Math.max(0, 1 - d);
  const keys = (d: number): number => (d < 1 ? 1.25 * d ** 3 - 2.25 * d ** 2 + 1 : d < 2 ? -0.75 * d ** 3 + 3.75 * d ** 2 - 6 * d + 3 : 0);
  // Places err by up to 1e-6 in float32, and with them the weights.
  const tolerance = { rtol: 0, atol: 2e-5 };
  it.each([[[2, 5, 3], [2]], [[1, 4, 6, 2], [2, 0.5]], [[1, 4, 6, 2], [1.5, 3]], [[1, 3, 4, 2, 2], [2, 1.5, 3]], [[1, 8, 1], [0.25]]])("interpolates x %j by %j", (shape, scales) => {
    const x = block(...shape);
    for (const align of [false, true]) {
      const place = align ? corners : centres;
      expectClose(flat(nn.upsampleLinear(x.array, scales, align)), sampled(x, scales, place, 1, hat, true), tolerance, `linear ${align}`);
      expectClose(flat(nn.upsampleCubic(x.array, scales, align)), sampled(x, scales, place, 2, keys, false), tolerance, `cubic ${align}`);
    }
  });
  // Places half-way between two positions go to the even one.
  it("picks the nearest for scales that are no integers", () => {
    const x = mx.reshape(mx.arange(6), [1, 6, 1]);
    expect(flat(nn.upsampleNearest(x, [0.5]))).toEqual([0, 2, 4]);
    expect(flat(nn.upsampleNearest(x, [1.5]))).toEqual([0, 0, 1, 2, 2, 3, 4, 4, 5]);
    expect(nn.upsampleNearest(mx.zeros([2, 4, 6, 3]), [0.5, 1.5]).shape).toEqual([2, 2, 9, 3]);
  });
  it("filters when antialiased", () => {
    const x = mx.reshape(mx.array([1, 2, 3, 4, 5, 6, 7, 8]), [1, 8, 1]);
    // Half size: a triangle of four positions, 1/8 3/8 3/8 1/8; at the border the three inside.
    expectClose(flat(nn.upsampleLinear(x, [0.5], false, true)), [(3 + 6 + 3) / 7, 3.5, 5.5, 9 - 12 / 7], { rtol: 1e-6, atol: 0 });
    const flatInput = mx.ones([1, 9, 7, 2]);
    expectClose(flat(nn.upsampleCubic(flatInput, [0.5, 0.7], false, true)), new Array(4 * 4 * 2).fill(1), { rtol: 1e-6, atol: 0 });
  });
  it("shows its settings and refuses what does not fit", () => {
    expect(new nn.Upsample([2, 3]).toString()).toBe("Upsample(scaleFactor=2,3, mode='nearest', alignCorners=false)");
    expect(() => new nn.Upsample(2, "other" as "linear")).toThrow('[Upsample] mode must be "nearest", "linear" or "cubic", got "other"');
    expect(() => new nn.Upsample(2, "nearest", false, true)).toThrow("[Upsample] antialias needs mode");
    expect(() => new nn.Upsample(2, "linear", true, true)).toThrow("[Upsample] antialias can not be used with alignCorners");
    expect(() => new nn.Upsample([2]).forward(mx.zeros([1, 2, 2, 1]))).toThrow("[Upsample] one scale per spatial dimension is needed, got 1");
    expect(() => new nn.Upsample(2).forward(mx.zeros([1, 2]))).toThrow("[Upsample] input must have at least one spatial dimension");
  });
});
