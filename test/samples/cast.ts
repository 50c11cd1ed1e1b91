/** Samples of src/ops/cast.ts. */
import type * as cast from "../../src/ops/cast.ts";
import { type Sample, tensor } from "../helpers/check.ts";
import { realTypes } from "./elementwise.ts";

/** float64 becomes a 16-bit float through float32, which may round twice: one more half ulp. */
export const samples: Record<keyof typeof cast, Sample[]> = {
  astype: realTypes.flatMap((from) =>
    realTypes.flatMap((to): Sample[] => [
      { name: `${from} to ${to}`, args: [tensor([3, 23], { dtype: from, low: from.isFloat ? -120 : from.kind === "signed" ? -120 : 0, high: from.kind === "bool" ? 2 : 120 }), to] },
      ...(from.size === to.size ? [] : [{ name: `${from} to ${to}, transposed`, args: [tensor([5, 3], { dtype: from, layout: "transposed" }), to] }]),
    ]),
  ),
};
