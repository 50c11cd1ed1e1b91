/** Derivatives and batching of convolutions. */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { expectClose, randomSource } from "./helpers/check.ts";

const random = randomSource(31);
const make = (...shape: number[]): mx.MxArray => mx.reshape(mx.array(Float32Array.from({ length: shape.reduce((p, q) => p * q, 1) }, () => random() * 2 - 1)), shape);
const flat = (a: mx.MxArray): number[] => mx.flatten(a).tolist() as number[];
const dot = (a: mx.MxArray, b: mx.MxArray): number => {
  const [x, y] = [flat(a), flat(b)];
  return x.reduce((sum, v, i) => sum + v * (y[i] as number), 0);
};

type Case = [string, number[], number[], (x: mx.MxArray, w: mx.MxArray) => mx.MxArray];
const cases: Case[] = [
  ["conv1d", [2, 9, 3], [4, 3, 3], (x, w) => mx.conv1d(x, w)],
  ["stride, padding, dilation", [2, 11, 3], [4, 3, 3], (x, w) => mx.conv1d(x, w, 2, 1, 2)],
  ["rows that no stride reaches", [1, 12, 2], [3, 2, 2], (x, w) => mx.conv1d(x, w, 5)],
  ["more padding than kernel", [1, 6, 2], [3, 2, 2], (x, w) => mx.conv1d(x, w, 3, 4)],
  ["padding on one side", [1, 6, 2], [3, 2, 2], (x, w) => mx.convGeneral(x, w, 2, [[0], [5]])],
  ["groups", [2, 8, 6], [9, 3, 2], (x, w) => mx.conv1d(x, w, 2, 1, 1, 3)],
  ["depthwise", [2, 7, 8, 5], [5, 3, 3, 1], (x, w) => mx.conv2d(x, w, [1, 2], 1, 1, 5)],
  ["conv2d", [2, 7, 8, 3], [4, 3, 2, 3], (x, w) => mx.conv2d(x, w, [1, 2], [1, 0], [2, 1])],
  ["conv3d", [1, 4, 5, 4, 2], [3, 2, 3, 2, 2], (x, w) => mx.conv3d(x, w, [1, 2, 1], 1)],
  ["transposed", [2, 5, 4, 3], [4, 3, 3, 3], (x, w) => mx.convTranspose2d(x, w, 2, 1, 1, 1, 1)],
  ["transposed, groups", [2, 5, 6], [4, 3, 3], (x, w) => mx.convTranspose1d(x, w, 3, 0, 2, 2)],
  ["flipped, input dilation", [1, 6, 7, 3], [4, 3, 2, 3], (x, w) => mx.convGeneral(x, w, [1, 2], [[1, 0], [2, 3]], [1, 2], [2, 3], 1, true)],
  ["negative padding", [1, 9, 2], [3, 3, 2], (x, w) => mx.convGeneral(x, w, 1, [[-1], [-2]])],
];

describe("a convolution is linear in input and weight", () => {
  it.each(cases)("%s: reverse rule is the transpose of the forward map", (_name, xs, ws, f) => {
    const [x, w, dx, dw] = [make(...xs), make(...ws), make(...xs), make(...ws)];
    const g = make(...f(x, w).shape);
    const [, [gx, gw]] = mx.vjp(f, [x, w], [g]) as [mx.MxArray[], [mx.MxArray, mx.MxArray]];
    expect([gx.shape, gw.shape]).toEqual([xs, ws]);
    // Sums of at most 500 products below 1, each of which is a sum of at most 500.
    const allowed = 500 ** 1.5 * 2 ** -24 * 20;
    expect(Math.abs(dot(g, f(dx, w)) - dot(gx, dx))).toBeLessThan(allowed);
    expect(Math.abs(dot(g, f(x, dw)) - dot(gw, dw))).toBeLessThan(allowed);
    // Not by chance: the values themselves are large.
    expect(Math.abs(dot(gx, gx))).toBeGreaterThan(0.1);
    const [, [tangent]] = mx.jvp(f, [x, w], [dx, dw]) as [mx.MxArray[], [mx.MxArray]];
    expectClose(flat(tangent), flat(mx.add(f(dx, w), f(x, dw))), { rtol: 0, atol: 1e-5 });
  });
  it("second derivatives", () => {
    const [x, w, dw] = [make(1, 8, 2), make(3, 3, 2), make(3, 3, 2)];
    const g = make(1, 4, 3);
    const inner = (v: mx.MxArray): mx.MxArray => mx.sum(mx.multiply(mx.grad((u: mx.MxArray) => mx.sum(mx.multiply(mx.conv1d(u, v, 2, 1), g)))(x) as mx.MxArray, x));
    // The inner sum is linear in the weight, so its gradient times dw is its value at dw.
    expect(Math.abs(dot(mx.grad(inner)(w) as mx.MxArray, dw) - (inner(dw).item() as number))).toBeLessThan(1e-4);
  });
});

describe("vmap", () => {
  const stacked = (list: mx.MxArray[]): number[] => flat(mx.stack(list));
  it.each(cases)("%s", (_name, xs, ws, f) => {
    const [x, w] = [make(3, ...xs), make(3, ...ws)];
    const row = (a: mx.MxArray, i: number): mx.MxArray => a.index(i);
    const all = [0, 1, 2];
    const near = { rtol: 0, atol: 1e-5 };
    expectClose(flat(mx.vmap(f, [0, null])(x, row(w, 0)) as mx.MxArray), stacked(all.map((i) => f(row(x, i), row(w, 0)))), near, "input");
    expectClose(flat(mx.vmap(f, [null, 0])(row(x, 0), w) as mx.MxArray), stacked(all.map((i) => f(row(x, 0), row(w, i)))), near, "weight");
    expectClose(flat(mx.vmap(f, [0, 0])(x, w) as mx.MxArray), stacked(all.map((i) => f(row(x, i), row(w, i)))), near, "both");
  });
});
