import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import { type MatrixTile, matrixShape } from "../src/ops/matmul-gpu.ts";
import { quantizedTiles, quantizedWithTiles } from "../src/ops/quantized-mm-gpu.ts";
import { type TestArray, elementsOf, gpuDevice, opNamed, runKernel, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

let state = 11;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
interface Case {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly bits: number;
  readonly groupSize: number;
  readonly x: dt.Dtype;
  readonly terms?: dt.Dtype;
  readonly transpose?: boolean;
  /** Elements before x in its storage. */
  readonly offset?: number;
}
/** Weights between -1 and 1. */
function operands({ M, N, K, bits, groupSize, x, terms = x, transpose = true, offset = 0 }: Case): TestArray[] {
  const [rows, length] = transpose ? [N, K] : [K, N];
  const groups = rows * (length / groupSize);
  const list = (n: number, f: () => number): number[] => Array.from({ length: n }, f);
  return [
    { dtype: x, shape: [M, K], offset, values: list(M * K + offset, () => 2 * random() - 1) },
    { dtype: dt.uint32, shape: [rows, (length * bits) / 32], values: list((rows * length * bits) / 32, () => Math.floor(random() * 2 ** 32)) },
    { dtype: terms, shape: [rows, length / groupSize], values: list(groups, () => (1 + random()) / 2 ** bits) },
    { dtype: terms, shape: [rows, length / groupSize], values: list(groups, () => -1 + random() / 8) },
  ];
}
const paramsOf = ({ bits, groupSize, transpose = true }: Case) => ({ bits, groupSize, transpose });
// The result's rounding; on matrix units also that of the weights to x's type (half a unit each, of up to 1, over K products of numbers below 1: their root).
const tolerance = ({ x, K }: Case, matrix: boolean) => {
  const unit = x === dt.float32 ? 2 ** -20 : x === dt.float16 ? 2 ** -11 : 2 ** -8;
  return { relative: 1.01 * unit, absolute: matrix ? unit * Math.sqrt(K) : 2e-5 };
};
const mine = ["vulkan/quantized/mm_coopmat", "vulkan/quantized/mm_tiled"];

describe.skipIf(skipReason)("quantized products of many rows on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));
  const check = (c: Case): string[] => mine.flatMap((name) => testKernel(device, "quantizedMatmul", operands(c), paramsOf(c), tolerance(c, name === mine[0]), name));

  for (const bits of [2, 3, 4, 5, 6, 8])
    test(`${bits} bits: both orders of the weights, groups of 32, 64 and 128`, () => {
      const [x, groupSize] = [[dt.float32, 32], [dt.bfloat16, 64], [dt.float16, 128]][bits % 3] as [dt.Dtype, number];
      expect(check({ M: 17, N: 70, K: 256, bits, groupSize, x })).toContain("vulkan/quantized/mm_tiled");
      expect(check({ M: 9, N: 2 * groupSize, K: 19, bits, groupSize, x, transpose: false })).toContain("vulkan/quantized/mm_tiled");
    });

  test.each([dt.bfloat16, dt.float16])("%s, weights not transposed: added up in float32 with weights that are not rounded, and rounded once", (x) => {
    const c = { M: 33, N: 128, K: 64, bits: 4, groupSize: 32, x, transpose: false };
    const inputs = operands(c);
    const op = opNamed("quantizedMatmul");
    const kernel = op.gpu?.find((k) => k.name === mine[1]) as Parameters<typeof runKernel>[1];
    const outputs = op.infer(inputs, paramsOf(c));
    const want = op.reference?.(inputs.map(elementsOf), inputs, paramsOf(c), outputs)[0] as Float64Array;
    const got = runKernel(device, kernel, inputs, outputs, paramsOf(c))[0] as Float64Array;
    const digits = x === dt.bfloat16 ? 7 : 10;
    want.forEach((w, i) => {
      // Half a unit of the type, and what 64 sums in float32 may lose.
      const half = 2 ** (Math.floor(Math.log2(Math.abs(w))) - digits - 1);
      expect(Math.abs((got[i] as number) - w)).toBeLessThanOrEqual(half + 64 * 2 ** -24);
    });
  });

  const matrixUnits = (x: dt.Dtype): boolean => matrixShape(gpuDevice(device.info), x.name) !== undefined;
  test("x and scales of different types, x at odd places, long sums in parts, sizes around a tile", () => {
    for (const [x, terms] of [[dt.float32, dt.bfloat16], [dt.float16, dt.bfloat16], [dt.bfloat16, dt.float16], [dt.bfloat16, dt.float32]] as const) {
      // The result is float32.
      const c = { M: 20, N: 33, K: 64, bits: 4, groupSize: 32, x, terms };
      expect(testKernel(device, "quantizedMatmul", operands(c), paramsOf(c), tolerance({ ...c, x: dt.float32 }, false), mine[1])).toEqual([mine[1]]);
    }
    for (const x of [dt.float16, dt.bfloat16])
      for (const sizes of [{ M: 64, N: 64, K: 128 }, { M: 65, N: 129, K: 64, offset: 3 }, { M: 63, N: 72, K: 192, offset: 8 }, { M: 12, N: 24, K: 1024 }, { M: 12, N: 25, K: 1088 }]) {
        const ran = check({ ...sizes, bits: 4, groupSize: 64, x });
        expect(ran).toEqual(matrixUnits(x) ? mine : [mine[1]]);
      }
  });

  for (const x of [dt.float16, dt.bfloat16])
    test(`${x}: matrix units, every tile and number of bits`, { timeout: 180_000 }, ({ skip }) => {
      if (!matrixUnits(x)) skip("the device has no matrix units for it");
      const software = device.info.vendorId === 0x10005;
      const tiles: readonly MatrixTile[] = software ? [{ BM: 32, BN: 16, BK: 16, WM: 16, WN: 16, stages: 2 }] : quantizedTiles.flatMap((t) => [t, { ...t, stages: 1 }]);
      for (const t of tiles)
        for (const bits of software ? [3, 4] : [2, 3, 4, 5, 6, 8]) {
          const c = { M: t.BM + 5, N: 2 * t.BN + 8, K: 256, bits, groupSize: 64, x };
          const inputs = operands(c);
          const op = opNamed("quantizedMatmul");
          const outputs = op.infer(inputs, paramsOf(c));
          const want = op.reference?.(inputs.map(elementsOf), inputs, paramsOf(c), outputs)[0] as Float64Array;
          const got = runKernel(device, { ...quantizedWithTiles([t]), gate: {} }, inputs, outputs, paramsOf(c))[0] as Float64Array;
          const { relative, absolute } = tolerance(c, true);
          want.forEach((w, i) => {
            if (!(Math.abs((got[i] as number) - w) <= absolute + relative * Math.abs(w))) throw new Error(`${JSON.stringify(t)}, ${bits} bits: [${i}] is ${got[i]}, expected ${w}`);
          });
        }
    });
});
