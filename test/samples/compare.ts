/** Samples of src/ops/compare.ts. */
import { bool, float32, int32 } from "../../src/core/dtype.ts";
import type * as compare from "../../src/ops/compare.ts";
import { type Sample, tensor } from "../helpers/check.ts";
import { binarySamples, floatTypes, integerTypes } from "./elementwise.ts";

const all = binarySamples([...floatTypes, ...integerTypes, bool]);
const near = (offset: number): number[] => [1, 2, 1e3, 1e-9, -5].map((x) => x * (1 + offset));
const closeness: Sample[] = [
  ...all.filter((s) => !s.name?.includes("with")),
  { args: [tensor([15], { values: near(0) }), tensor([15], { values: near(9e-6) })] },
  { args: [tensor([15], { values: near(0) }), tensor([15], { values: near(2e-5) })] },
  { args: [tensor([15], { values: near(0) }), tensor([15], { values: near(2e-5) }), 1e-4] },
  { args: [tensor([15], { values: near(0) }), tensor([15], { values: near(0.1) }), 0, 200] },
  { args: [tensor([4], { values: [1, Number.NaN] }), tensor([4], { values: [1, Number.NaN] }), 1e-5, 1e-8, true] },
  { args: [tensor([4], { values: [1, Number.NaN] }), tensor([4], { values: [1, Number.NaN] })] },
];
const same = (shape: number[], dtype = float32): Sample => ({ args: [tensor(shape, { dtype }), tensor(shape, { dtype, layout: "transposed" })] });

export const samples: Record<keyof typeof compare, Sample[]> = {
  equal: all, notEqual: all, less: all, lessEqual: all, greater: all, greaterEqual: all, logicalAnd: all, logicalOr: all,
  isclose: closeness,
  allclose: closeness,
  arrayEqual: [
    same([]), same([0, 4]), same([3, 5]), same([3, 5], int32), same([2, 3, 4]),
    { args: [tensor([3, 5]), tensor([3, 5], { seed: 2 })] },
    { args: [tensor([4], { dtype: int32 }), tensor([4])] },
    { args: [tensor([4], { values: [1, Number.NaN] }), tensor([4], { values: [1, Number.NaN] }), true] },
    { args: [tensor([4], { values: [1, Number.NaN] }), tensor([4], { values: [1, Number.NaN] })] },
  ],
};
