/** Samples of src/ops/binary.ts. */
import { bool, int32, int64, int8, uint8 } from "../../src/core/dtype.ts";
import type * as binary from "../../src/ops/binary.ts";
import { type Sample, tensor } from "../helpers/check.ts";
import { binarySamples, floatTypes, integerTypes } from "./elementwise.ts";

const all = binarySamples([...floatTypes, ...integerTypes, bool]);
/** uint64 with a signed type promotes to float32. */
const integers = binarySamples([int32, ...integerTypes, bool]).filter((s) => s.name !== "int32 with uint64");
const smallPowers: Sample[] = [int8, int32, int64, uint8].map((dtype) => ({
  name: `${dtype} powers`,
  args: [tensor([40], { dtype, values: [0, 1, 2, 3, 5, 7, 1, 10] }), tensor([40], { dtype, values: [0, 1, 2, 3, 4] })],
}));

export const samples: Record<keyof typeof binary, Sample[]> = {
  add: all, subtract: all, multiply: all, divide: all, maximum: all, minimum: all, logaddexp: all, arctan2: all,
  floorDivide: all, remainder: all, divmod: all,
  power: [
    ...binarySamples([...floatTypes]),
    ...smallPowers,
    { name: "negative exponents", args: [tensor([12], { dtype: int32, values: [1, -1, -1, 2] }), tensor([12], { dtype: int32, values: [-2, -3, -4] })] },
    { name: "squares", args: [tensor([33]), 2] },
    { name: "number", args: [tensor([33], { low: 0, high: 3 }), 0.5] },
  ],
  bitwiseAnd: integers, bitwiseOr: integers, bitwiseXor: integers,
  leftShift: shifts(), rightShift: shifts(),
};
function shifts(): Sample[] {
  return [...integerTypes, bool].map((dtype) => ({
    args: [tensor([3, 11], { dtype, seed: 4 }), tensor([11], { dtype, values: dtype === bool ? [0, 1] : [0, 1, 2, 3, 5] })],
  }));
}
