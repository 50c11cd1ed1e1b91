/** The references of kernels on matrix units: without roundings they are the ops' own; with them they differ by what roundings make. */
import { describe, expect, test } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { bfloat16, roundTo } from "../src/core/dtype.ts";
import type { Node } from "../src/core/op.ts";
import { oracle } from "../src/debug/oracle.ts";
import * as mx from "../src/mx.ts";
import { build, expectClose, tensor } from "./helpers/check.ts";
import { attention, exactly, quantizedProduct } from "./helpers/matrix-units.ts";

const random = (shape: readonly number[], seed: number): MxArray => build(tensor(shape, { dtype: bfloat16, seed }));
/** The node of a result, its inputs' values, and what the op's reference says. */
function given(result: MxArray): { node: Node; values: Float64Array[]; want: Float64Array } {
  const node = result.desc.node as Node;
  const values = node.inputs.map((d) => oracle(d));
  return { node, values, want: node.op.reference?.(values, node.inputs, node.params, node.outputs)[0] as Float64Array };
}
const toBfloat16 = (x: number): number => roundTo(bfloat16, x);
const distances = (a: Float64Array, b: Float64Array): number[] => Array.from(a, (x, i) => Math.abs(x - (b[i] as number)));
const exact = { rtol: 1e-12, atol: 1e-12 };

describe("the reference with rounded numbers", () => {
  test("of a quantized product", () => {
    const { node, values, want } = given(mx.quantizedMatmul(random([9, 128], 1), ...mx.quantize(random([19, 128], 2), 64, 4), true, 64, 4));
    expectClose(quantizedProduct(values, node.inputs, node.params, exactly).want, want, exact);
    const rounded = quantizedProduct(values, node.inputs, node.params, toBfloat16);
    const off = distances(rounded.want, want);
    expect(Math.max(...off)).toBeGreaterThan(1e-3);
    // Each of 128 products of numbers below 2 is off by half a step of 2^-8 at most.
    expect(Math.max(...off)).toBeLessThan(128 * 2 * 2 ** -8);
  });
  test.each([
    ["one tile", 70, { range: 96, tile: 96 }],
    ["several tiles", 70, { range: 96, tile: 32 }],
    ["several ranges", 150, { range: 64, tile: 16 }],
  ])("of attention, %s", (_name, Tk, walk) => {
    for (const mask of ["causal" as const, random([33, Tk], 5)]) {
      const { node, values, want } = given(mx.fast.scaledDotProductAttention(random([2, 4, 33, 16], 1), random([2, 2, Tk, 16], 2), random([2, 2, Tk, 24], 3), 0.25, mask, mask === "causal" ? random([4], 4) : undefined));
      expectClose(attention(values, node.inputs, node.params, walk, exactly).want, want, exact);
      const rounded = attention(values, node.inputs, node.params, walk, toBfloat16);
      const off = distances(rounded.want, want);
      expect(Math.max(...off)).toBeGreaterThan(1e-4);
      // Probabilities add up to 1 at most, and are off by half a step of 2^-8; values are below 2.
      expect(Math.max(...off)).toBeLessThan(2 * 2 ** -8);
      expect(Math.max(...rounded.slack)).toBeLessThan(2 * 2 ** -7);
    }
  });
});
