/** Samples of src/ops/fp8.ts and src/ops/qqmm.ts, and of the quantized functions in the modes of small floats. */
import { bfloat16, float16, float32, uint32, uint8 } from "../../src/core/dtype.ts";
import type * as fp8 from "../../src/ops/fp8.ts";
import type * as qqmm from "../../src/ops/qqmm.ts";
import { type Sample, type Tensor, tensor } from "../helpers/check.ts";
import { bitsOf, groupOf, smallModes } from "../helpers/small-floats.ts";

const floats = [float32, bfloat16, float16];
const special = [0, -0, 1, -1.5, 2 ** -9, 3 * 2 ** -10, 2 ** -10, 1e-9, 448, 449, -1e6, Number.POSITIVE_INFINITY, Number.NaN, 0.01, 17, 19];

export const fp8Samples: Record<keyof typeof fp8, Sample[]> = {
  toFp8: [
    ...floats.map((dtype): Sample => ({ args: [tensor([5, 7], { dtype, low: -500, high: 500 })] })),
    { args: [tensor([16], { values: special })], name: "special" },
    { args: [tensor([3, 4], { layout: "transposed" })] },
    { args: [tensor([], {})] },
    { args: [tensor([0])] },
  ],
  fromFp8: [
    ...floats.map((dtype): Sample => ({ args: [tensor([4, 64], { dtype: uint8, low: 0, high: 256 }), dtype] })),
    { args: [tensor([3, 4], { dtype: uint8, high: 256, layout: "sliced" })] },
    { args: [tensor([0], { dtype: uint8 })] },
  ],
};

/** Codes and scales around 1; `shape` is the unpacked one. */
export function packedFloats(shape: readonly number[], mode: (typeof smallModes)[number], seed = 3): [Tensor, Tensor] {
  const lead = shape.slice(0, -1);
  const n = shape[shape.length - 1] as number;
  const scale = mode === "nvfp4" ? { low: 0x28, high: 0x40 } : mode === "mxfp8" ? { low: 118, high: 121 } : { low: 124, high: 128 };
  // Bytes below 0x78 in every place, so that no code is larger than 240.
  const words = Array.from({ length: 64 }, (_, i) => ((i * 2654435761 + seed * 40503) >>> 0) % 0x77777777);
  return [tensor([...lead, (n * bitsOf(mode)) / 32], { dtype: uint32, values: words }), tensor([...lead, n / groupOf(mode)], { dtype: uint8, ...scale, seed })];
}
/** Steps of x's integers (a 127 * 128th or 127 * 16384th of the largest value, 2) in K products with weights of at most 12, and float32 sums. */
const tolerance = (K: number, exact: boolean) => ({ atol: K * 12 * ((exact ? 1 / (127 * 16384) : 1 / (127 * 128)) + 2e-7) });

export const quantizeFloats: Sample[] = smallModes.flatMap((mode): Sample[] => [
  ...floats.map((dtype): Sample => ({ args: [tensor([3, 64], { dtype }), null, null, mode] })),
  { args: [tensor([2, 3, 64], { layout: "transposed" }), null, null, mode] },
  { args: [tensor([2, 64], { values: [0] }), null, null, mode], name: `zeros ${mode}` },
  { args: [tensor([2, 64], { low: 1e-12, high: 1e-10 }), null, null, mode], name: `tiny ${mode}` },
  { args: [tensor([0, 64]), null, null, mode] },
]).concat(floats.map((dtype): Sample => ({ args: [tensor([3, 64], { dtype }), null, null, "nvfp4", tensor([1], { values: [1.9] })], name: `global scale ${dtype}` })));

export const dequantizeFloats: Sample[] = smallModes.flatMap((mode): Sample[] => [
  ...floats.map((dtype): Sample => ({ args: [...packedFloats([3, 64], mode), null, null, null, mode, null, dtype] })),
  { args: [...packedFloats([2, 3, 64], mode), null, null, null, mode] },
  { args: [...packedFloats([0, 64], mode), null, null, null, mode] },
]).concat([{ args: [...packedFloats([3, 64], "nvfp4"), null, null, null, "nvfp4", tensor([1], { values: [700] }), float32], name: "global scale", tolerance: { atol: 1e-6 } }]);

export const productFloats: Sample[] = smallModes.flatMap((mode) =>
  floats.flatMap((dtype) =>
    [true, false].flatMap((transpose) =>
      [1, 9].map((M): Sample => ({
        args: [tensor([M, 96], { dtype }), ...packedFloats(transpose ? [19, 96] : [96, 64], mode), null, transpose, null, null, mode], tolerance: tolerance(96, dtype === float32),
      })),
    ),
  ),
);
export const gatherFloats: Sample[] = smallModes.flatMap((mode) =>
  floats.map((dtype): Sample => ({
    args: [tensor([3, 2, 64], { dtype }), ...packedFloats([4, 6, 64], mode), null, tensor([3], { dtype: uint32, values: [2, 0, 2] }), tensor([3], { dtype: uint32, values: [0, 3, 1] }), true, null, null, false, mode],
    tolerance: tolerance(64, dtype === float32),
  })),
);

const number = (v: number): Tensor => tensor([1], { values: [v] });
export const qqmmSamples: Record<keyof typeof qqmm, Sample[]> = {
  qqmm: smallModes.flatMap((mode) => floats.flatMap((dtype): Sample[] => [
    { args: [tensor([3, 64], { dtype }), tensor([5, 64], { dtype, seed: 2 }), null, null, null, mode], tolerance: tolerance(64, dtype === float32) },
    { args: [tensor([1, 64], { dtype }), ...packedFloats([5, 64], mode), null, null, mode], tolerance: tolerance(64, dtype === float32) },
  ])).concat([{ args: [tensor([3, 64]), tensor([5, 64], { seed: 2 }), null, null, null, "nvfp4", number(2), number(2)], tolerance: tolerance(64, true) }]),
  gatherQQMM: smallModes.map((mode): Sample => ({
    args: [tensor([3, 2, 64]), tensor([4, 6, 64], { seed: 2 }), null, tensor([3], { dtype: uint32, values: [2, 0, 2] }), tensor([3], { dtype: uint32, values: [0, 3, 1] }), null, null, mode], tolerance: tolerance(64, true),
  })),
};
