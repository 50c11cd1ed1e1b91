/** Losses, initialisers and activations against plain JavaScript. */
import { describe, expect, test } from "vitest";
import { core as mx, nn } from "../src/index.ts";
import { arrayFrom, flat, numbers } from "./helpers/transform-cases.ts";

type A = mx.MxArray;
const near = (list: readonly number[], digits = 5): unknown[] => list.map((x) => expect.closeTo(x, digits));
const rows = (values: readonly number[], n: number): number[][] => Array.from({ length: values.length / n }, (_, i) => values.slice(i * n, (i + 1) * n));
const total = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
const [P, T] = [numbers(1, 6), numbers(2, 6)];
const [p, t] = [arrayFrom(P, [2, 3], mx.float32), arrayFrom(T, [2, 3], mx.float32)];
const each = (f: (x: number, y: number) => number): number[] => P.map((x, i) => f(x, T[i] as number));
const signs = T.map((x) => (x > 0 ? 1 : -1));
const s = arrayFrom(signs, [2, 3], mx.float32);
const lse = (row: readonly number[]): number => Math.log(total(row.map(Math.exp)));

describe("elementwise losses", () => {
  const { losses } = nn;
  const cases: [string, (r: "none" | "mean" | "sum") => A, number[]][] = [
    ["l1Loss", (r) => losses.l1Loss(p, t, r), each((x, y) => Math.abs(x - y))],
    ["mseLoss", (r) => losses.mseLoss(p, t, r), each((x, y) => (x - y) ** 2)],
    ["smoothL1Loss", (r) => losses.smoothL1Loss(p, t, 0.8, r), each((x, y) => (Math.abs(x - y) < 0.8 ? (x - y) ** 2 / 1.6 : Math.abs(x - y) - 0.4))],
    ["huberLoss", (r) => losses.huberLoss(p, t, 0.7, r), each((x, y) => (Math.abs(x - y) <= 0.7 ? (x - y) ** 2 / 2 : 0.7 * (Math.abs(x - y) - 0.35)))],
    ["logCoshLoss", (r) => losses.logCoshLoss(p, t, r), each((x, y) => Math.log(Math.cosh(x - y)))],
    ["hingeLoss", (r) => losses.hingeLoss(p, s, r), P.map((x, i) => Math.max(0, 1 - x * (signs[i] as number)))],
    ["marginRankingLoss", (r) => losses.marginRankingLoss(p, t, s, 0.3, r), each((x, y) => x - y).map((d, i) => Math.max(0, 0.3 - d * (signs[i] as number)))],
    ["gaussianNllLoss", (r) => losses.gaussianNllLoss(p, t, mx.abs(t), true, 0.5, r), each((x, y) => 0.5 * (Math.log(Math.max(Math.abs(y), 0.5)) + (y - x) ** 2 / Math.max(Math.abs(y), 0.5) + Math.log(2 * Math.PI)))],
    ["binaryCrossEntropy of logits", (r) => losses.binaryCrossEntropy(p, mx.sigmoid(t), undefined, true, r), each((x, y) => Math.log(1 + Math.exp(x)) - x / (1 + Math.exp(-y)))],
    [
      "binaryCrossEntropy of probabilities, weighted",
      (r) => losses.binaryCrossEntropy(mx.sigmoid(p), mx.sigmoid(t), t, false, r),
      each((x, y) => {
        const [q, u] = [1 / (1 + Math.exp(-x)), 1 / (1 + Math.exp(-y))];
        return -y * (u * Math.log(q) + (1 - u) * Math.log(1 - q));
      }),
    ],
  ];
  for (const [name, f, want] of cases) {
    test(name, () => {
      expect(flat(f("none"))).toEqual(near(want));
      expect(f("none").shape).toEqual([2, 3]);
      expect(f("mean").item()).toBeCloseTo(total(want) / 6, 5);
      expect(f("sum").item()).toBeCloseTo(total(want), 4);
      expect(() => f("average" as never)).toThrow("reduction");
    });
  }
  test("probabilities of 0 and 1 stay finite", () => {
    expect(nn.losses.binaryCrossEntropy(mx.array([0, 1]), mx.array([1, 0]), undefined, false, "none").tolist()).toEqual([100, 100]);
  });
});

describe("losses along an axis", () => {
  const classes = [2, 0];
  const targets = mx.array(classes, mx.int32);
  const lines = rows(P, 3);
  test("crossEntropy", () => {
    const plain = lines.map((row, i) => lse(row) - (row[classes[i] as number] as number));
    expect(flat(nn.losses.crossEntropy(p, targets))).toEqual(near(plain));
    expect(flat(nn.losses.crossEntropy(p.T, targets, undefined, 0))).toEqual(near(plain));
    expect(flat(nn.losses.crossEntropy(p, targets, mx.array([2, 3])))).toEqual(near([2 * (plain[0] as number), 3 * (plain[1] as number)]));
    const smooth = lines.map((row, i) => lse(row) - 0.9 * (row[classes[i] as number] as number) - (0.1 * total(row)) / 3);
    expect(flat(nn.losses.crossEntropy(p, targets, undefined, -1, 0.1))).toEqual(near(smooth));
    const probabilities = mx.softmax(t, -1);
    const want = rows(flat(probabilities), 3).map((q, i) => lse(lines[i] as number[]) - total(q.map((v, k) => v * (lines[i]?.[k] as number))));
    expect(flat(nn.losses.crossEntropy(p, probabilities))).toEqual(near(want));
    expect(nn.losses.crossEntropy(p, targets, undefined, -1, 0, "mean").item()).toBeCloseTo(total(plain) / 2, 5);
    expect(() => nn.losses.crossEntropy(p, mx.zeros([3], mx.int32))).toThrow("targets must have shape (2), got (3)");
    expect(() => nn.losses.crossEntropy(p, targets, undefined, -1, 1)).toThrow("labelSmoothing");
  });
  test("its gradient is softmax minus the target", () => {
    const g = mx.grad((x: A) => nn.losses.crossEntropy(x, targets, undefined, -1, 0, "sum"))(p);
    expect(flat(g)).toEqual(near(lines.flatMap((row, i) => row.map((v, k) => Math.exp(v - lse(row)) - Number(k === classes[i])))));
  });
  test("crossEntropy of large logits; tripletLoss of another power", () => {
    expect(nn.losses.crossEntropy(mx.array([[10000, 10000.5]]), mx.array([0], mx.int32)).item()).toBeCloseTo(Math.log(1 + Math.exp(0.5)), 5);
    const [a, b, c] = [[0, 0], [1, -2], [-2, 3]].map((v) => mx.array([v])) as [A, A, A];
    const distance = (v: number[]): number => (v.reduce((s, x) => s + Math.abs(x) ** 3, 0) + 1e-6) ** (1 / 3);
    expect(nn.losses.tripletLoss(a, c, b, -1, 3, 0.5).item()).toBeCloseTo(distance([-2, 3]) - distance([1, -2]) + 0.5, 5);
  });
  test("nllLoss, klDivLoss, cosineSimilarityLoss, tripletLoss", () => {
    expect(flat(nn.losses.nllLoss(p, targets))).toEqual(near(lines.map((row, i) => -(row[classes[i] as number] as number))));
    expect(flat(nn.losses.klDivLoss(p, t))).toEqual(near(rows(each((x, y) => Math.exp(y) * (y - x)), 3).map(total)));
    const norms = (v: number[]): number[] => rows(v.map((x) => x * x), 3).map((r) => Math.sqrt(total(r)));
    expect(flat(nn.losses.cosineSimilarityLoss(p, t))).toEqual(near(rows(each((x, y) => x * y), 3).map((r, i) => total(r) / ((norms(P)[i] as number) * (norms(T)[i] as number)))));
    const to = (y: number[]): number[] => norms(P.map((x, i) => x - (y[i] as number)));
    const zero = [0, 0, 0, 0, 0, 0];
    expect(flat(nn.losses.tripletLoss(p, t, mx.zeros([2, 3]), -1, 2, 0.5))).toEqual(near(to(T).map((d, i) => Math.max(0, d - (to(zero)[i] as number) + 0.5)), 4));
  });
});

describe("init", () => {
  const of = (shape: number[]): A => mx.zeros(shape);
  const spread = (a: A): { mean: number; std: number; most: number } => {
    const v = flat(a);
    const mean = total(v) / v.length;
    return { mean, std: Math.sqrt(total(v.map((x) => (x - mean) ** 2)) / v.length), most: Math.max(...v.map(Math.abs)) };
  };
  test("values and spreads", () => {
    mx.random.seed(1);
    const shape = [64, 9, 32];
    // 18,432 samples: the standard deviation is known to about 0.6 percent.
    const close = (a: A, std: number): void => {
      expect(spread(a).std / std).toBeCloseTo(1, 1);
      expect(Math.abs(spread(a).mean) / std).toBeLessThan(0.05);
      expect(a.shape).toEqual(shape);
    };
    expect(flat(nn.init.constant(3)(of([2])))).toEqual([3, 3]);
    close(nn.init.normal(0, 2)(of(shape)), 2);
    close(nn.init.uniform(-1, 1)(of(shape)), 1 / Math.sqrt(3));
    close(nn.init.glorotNormal()(of(shape), 2), 2 * Math.sqrt(2 / (9 * 96)));
    close(nn.init.glorotUniform()(of(shape)), Math.sqrt(2 / (9 * 96)));
    close(nn.init.heNormal()(of(shape)), 1 / Math.sqrt(9 * 32));
    close(nn.init.heUniform()(of(shape), "fanOut", 3), 3 / Math.sqrt(9 * 64));
    expect(spread(nn.init.heUniform()(of(shape))).most).toBeLessThanOrEqual(Math.sqrt(3 / (9 * 32)));
    expect(nn.init.normal(0, 1, mx.float16)(of([2])).dtype).toBe(mx.float16);
    expect(() => nn.init.heNormal()(of([3]))).toThrow("at least two dimensions");
    expect(() => nn.init.heNormal()(of([3, 3]), "fan" as never)).toThrow("mode");
  });
  test("identity, sparse, orthogonal", () => {
    expect(nn.init.identity()(of([2, 2])).tolist()).toEqual([[1, 0], [0, 1]]);
    expect(() => nn.init.identity()(of([2, 3]))).toThrow("square");
    for (const row of nn.init.sparse(0.3)(of([5, 10])).tolist() as number[][]) expect(row.filter((x) => x === 0)).toHaveLength(3);
    for (const shape of [[3, 7], [7, 3], [5, 5]]) {
      const q = nn.init.orthogonal(2)(of(shape));
      const gram = (shape[0] as number) > (shape[1] as number) ? mx.matmul(q.T, q) : mx.matmul(q, q.T);
      expect(flat(gram)).toEqual(near(flat(mx.multiply(mx.eye(gram.shape[0] as number), 4))));
    }
    for (const f of [nn.init.sparse(0.5), nn.init.orthogonal()]) expect(() => f(of([3]))).toThrow("needs a matrix");
  });
});

test("activations", () => {
  const xs = [-4, -1, -0.3, 0, 0.2, 1, 5];
  const x = mx.array(xs);
  const sp = (v: number): number => Math.log1p(Math.exp(v));
  const elu = (v: number, a: number): number => (v > 0 ? v : a * (Math.exp(v) - 1));
  const cases: [(a: A) => A, (v: number) => number][] = [
    [(a) => nn.elu(a, 0.5), (v) => elu(v, 0.5)],
    [nn.softplus, sp],
    [nn.softsign, (v) => v / (1 + Math.abs(v))],
    [(a) => new nn.SoftShrink(0.4).forward(a), (v) => (Math.abs(v) > 0.4 ? v - Math.sign(v) * 0.4 : 0)],
    [(a) => new nn.CELU(2).forward(a), (v) => Math.max(v, 0) + 2 * (Math.exp(Math.min(v, 0) / 2) - 1)],
    [nn.logSigmoid, (v) => -sp(-v)],
    [(a) => new nn.Step(0.5).forward(a), (v) => Number(v > 0.5)],
    [nn.selu, (v) => 1.0507 * elu(v, 1.67326)],
    [(a) => new nn.PReLU().forward(a), (v) => (v > 0 ? v : 0.25 * v)],
    [nn.mish, (v) => v * Math.tanh(sp(v))],
    [nn.hardswish, (v) => (v * Math.min(Math.max(v + 3, 0), 6)) / 6],
    [(a) => nn.hardTanh(a), (v) => Math.max(-1, Math.min(1, v))],
    [(a) => new nn.HardShrink().forward(a), (v) => (Math.abs(v) > 0.5 ? v : 0)],
    [(a) => new nn.ELU().forward(a), (v) => elu(v, 1)],
  ];
  for (const [f, want] of cases) expect(flat(f(x))).toEqual(near(xs.map((v) => want(Math.fround(v)))));
  const sum = total(xs.map((v) => Math.exp(-v)));
  expect(flat(new nn.Softmin().forward(x))).toEqual(near(xs.map((v) => Math.exp(-v) / sum)));
});
