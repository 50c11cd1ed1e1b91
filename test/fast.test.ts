/** mx.fast: samples against float64, errors, and the choice of kernels. */
import { describe, expect, it } from "vitest";
import { bfloat16, bool, int32 } from "../src/core/dtype.ts";
import { ops, type Kernel, type Op } from "../src/core/op.ts";
import { core as mx } from "../src/index.ts";
import type { MxArray, View } from "../src/core/array.ts";
import { isContiguous, rowStrides, sizeOf } from "../src/core/shape.ts";
import { build, checkOp, checkSamples, tensor } from "./helpers/check.ts";
import { samples } from "./samples/fast.ts";

for (const name of Object.keys(samples) as (keyof typeof samples)[]) {
  describe(name, () => checkSamples(mx.fast[name] as (...args: never[]) => unknown, samples[name]));
}

/** Runs `f` with an environment flag set. */
function withFlag(name: string, value: string, f: () => void): void {
  const before = process.env[name];
  process.env[name] = value;
  try {
    f();
  } finally {
    if (before === undefined) delete process.env[name];
    else process.env[name] = before;
  }
}
describe.each([["MLX_DISABLE", "the row kernel"], ["MLX_FORCE", "the tile kernel"]])("attention with %s=attention/tiles, all by %s", (flag) => {
  it.each(samples.scaledDotProductAttention.map((s, i) => [i, s] as const))("sample %i", (_i, s) => {
    withFlag(flag, "attention/tiles", () => checkOp(mx.fast.scaledDotProductAttention as (...args: never[]) => unknown, s));
  });
});

const view = (shape: number[], strides = rowStrides(shape)): View => ({ shape, strides, dtype: bfloat16, offset: 0, size: sizeOf(shape), contiguous: isContiguous(shape, strides) });
describe("choice of kernels", () => {
  const op = ops.get("scaledDotProductAttention") as Op;
  const params = { scale: 1, mask: "none", sinks: false };
  const [tiles, rows] = op.kernels as [Op["kernels"][0], Op["kernels"][0]];
  const inputs = (tq: number, d: number, tk = 100): View[] => [view([1, 4, tq, d]), view([1, 2, tk, d]), view([1, 2, tk, d])];
  it("tiles are for 8 queries or more, with heads that fit", () => {
    expect(tiles.gate?.refuse?.(inputs(8, 128), params, [])).toBeUndefined();
    expect(tiles.gate?.refuse?.(inputs(7, 128), params, [])).toMatch(/^slower: 7 queries/);
    expect(tiles.gate?.refuse?.(inputs(8, 8192), params, [])).toMatch(/^cannot: .* 8192/);
    expect(rows.gate).toBeUndefined();
  });
  it("long keys are split, with a second step that joins the parts", () => {
    expect(rows.launch(inputs(1, 128, 1000), [], params).steps.length).toBe(1);
    const long = rows.launch(inputs(1, 128, 8192), [], params);
    expect(long.steps.map((s) => s.entry)).toEqual(["attention/rows_bf16", "attention/combine_bf16"]);
    expect(long.steps[0]?.units).toBe(2 * 16);
  });
  it("a slice of a cache and transposed heads are read in place", () => {
    const layout = rows.layout as (inputs: readonly View[], params: object) => string[];
    expect(layout(inputs(1, 8), params)).toEqual(["last", "last", "last", "row"]);
    const rope = ops.get("rope") as Op;
    const heads = view([2, 4, 3, 8], [96, 8, 32, 1]);
    const ropeLayout = (rope.kernels[0] as Kernel).layout as typeof layout;
    expect(ropeLayout([heads], {})[0]).toBe("last");
  });
  it("huge head dimensions work, by the row kernel", () => {
    checkOp(mx.fast.scaledDotProductAttention as (...args: never[]) => unknown, { args: [tensor([1, 1, 9, 20000], { low: -0.1, high: 0.1 }), tensor([1, 1, 5, 20000], { low: -0.1, high: 0.1 }), tensor([1, 1, 5, 24]), 1], tolerance: { atol: 5e-5 } });
  });
});

describe("errors", () => {
  const t = (shape: number[], options = {}): MxArray => build(tensor(shape, options));
  const cases: [string, () => unknown, RegExp][] = [
    ["rmsNorm of a scalar", () => mx.fast.rmsNorm(t([]), null, 1e-5), /^\[rmsNorm\] input must have at least 1 dimension/],
    ["rmsNorm weight of another size", () => mx.fast.rmsNorm(t([2, 4]), t([3]), 1e-5), /^\[rmsNorm\] weight must have shape \(4\).*got \(3\)/],
    ["rmsNorm of integers", () => mx.fast.rmsNorm(t([2, 4], { dtype: int32 }), null, 1e-5), /^\[rmsNorm\] .*int32/],
    ["layerNorm weight with two dimensions", () => mx.fast.layerNorm(t([2, 4]), t([4, 4]), null, 1e-5), /^\[layerNorm\] weight .*\(4,4\)/],
    ["layerNorm bias of another size", () => mx.fast.layerNorm(t([2, 4]), null, t([5]), 1e-5), /^\[layerNorm\] bias .*\(5\)/],
    ["rope of a matrix", () => mx.fast.rope(t([4, 8]), 8, false, 1e4, 1, 0), /^\[rope\] input must have at least 3 dimensions/],
    ["rope with odd dims", () => mx.fast.rope(t([1, 4, 8]), 3, false, 1e4, 1, 0), /^\[rope\] dims must be a positive even integer, got 3/],
    ["rope with too many dims", () => mx.fast.rope(t([1, 4, 8]), 10, false, 1e4, 1, 0), /^\[rope\] dims must not exceed/],
    ["rope with base and freqs", () => mx.fast.rope(t([1, 4, 8]), 8, false, 1e4, 1, 0, t([4])), /^\[rope\] exactly one of base and freqs.*both/],
    ["rope without base and freqs", () => mx.fast.rope(t([1, 4, 8]), 8, false, null, 1, 0), /^\[rope\] exactly one of base and freqs.*neither/],
    ["rope with freqs of another size", () => mx.fast.rope(t([1, 4, 8]), 8, false, null, 1, 0, t([3])), /^\[rope\] freqs must have shape \(4\)/],
    ["rope with a fractional offset", () => mx.fast.rope(t([1, 4, 8]), 8, false, 1e4, 1, 0.5), /^\[rope\] offset must be an integer/],
    ["rope with a float offset array", () => mx.fast.rope(t([1, 4, 8]), 8, false, 1e4, 1, t([1])), /^\[rope\] offset must be of an integer type, got float32/],
    ["rope with too many offsets", () => mx.fast.rope(t([2, 4, 8]), 8, false, 1e4, 1, t([3], { dtype: int32 })), /^\[rope\] offset .*\(3\)/],
    ["attention of rank 3", () => mx.fast.scaledDotProductAttention(t([2, 4, 8]), t([1, 2, 4, 8]), t([1, 2, 4, 8]), 1), /queries must have 4 dimensions/],
    ["attention with other head dimensions", () => mx.fast.scaledDotProductAttention(t([1, 2, 4, 8]), t([1, 2, 4, 6]), t([1, 2, 4, 8]), 1), /same last dimension.*\(1,2,4,6\)/],
    ["attention with heads that do not divide", () => mx.fast.scaledDotProductAttention(t([1, 3, 4, 8]), t([1, 2, 4, 8]), t([1, 2, 4, 8]), 1), /multiple .*got 3 and 2/],
    ["attention with keys and values of other lengths", () => mx.fast.scaledDotProductAttention(t([1, 2, 4, 8]), t([1, 2, 4, 8]), t([1, 2, 5, 8]), 1), /keys and values must have the same length/],
    ["attention with an unknown mask", () => mx.fast.scaledDotProductAttention(t([1, 2, 4, 8]), t([1, 2, 4, 8]), t([1, 2, 4, 8]), 1, "casual" as never), /mask must be an array, "causal" or null, got "casual"/],
    ["attention with a mask of another shape", () => mx.fast.scaledDotProductAttention(t([1, 2, 4, 8]), t([1, 2, 4, 8]), t([1, 2, 4, 8]), 1, t([3, 4], { dtype: bool })), /must broadcast to \(1,2,4,4\), got \(3,4\)/],
    ["attention with a mask of a wider type", () => mx.fast.scaledDotProductAttention(t([1, 2, 4, 8], { dtype: bfloat16 }), t([1, 2, 4, 8], { dtype: bfloat16 }), t([1, 2, 4, 8], { dtype: bfloat16 }), 1, t([4, 4])), /type of mask must promote to bfloat16, got float32/],
    ["attention with sinks of another size", () => mx.fast.scaledDotProductAttention(t([1, 2, 4, 8]), t([1, 2, 4, 8]), t([1, 2, 4, 8]), 1, null, t([3])), /sinks must have shape \(2\).*\(3\)/],
  ];
  it.each(cases)("%s", (_name, call, message) => {
    expect(call).toThrow(message);
  });
});
