/** Conversion between dtypes. */
import { type Aval, MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import type { Dtype } from "../core/dtype.ts";
import type { Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { type ArrayLike, requireDtype, toArray } from "./convert.ts";
import { interleaved, partsOf } from "./elementwise.ts";

const astypeOp = defineOp<{ dtype: Dtype }>({
  name: "astype",
  infer: ([a], { dtype }) => [{ shape: (a as Aval).shape, dtype }],
  expr: (e, [x], { dtype }) => e.cast(x as Value, dtype),
  reference: ([x], [a], { dtype }) => {
    const [values, from] = [x as Float64Array, a as Aval];
    if (from.dtype.kind !== "complex" && dtype.kind !== "complex") return [values];
    const pairs = partsOf(values, from, from.shape);
    return [interleaved(dtype.kind === "complex" ? pairs : pairs.map(([re]) => re))];
  },
  vjp: { partials: [() => 1] },
  jvp: "vjp",
  vmap: "elementwise",
  kernels: [],
});

/**
 * The values in another dtype. Floats round to nearest even; float to integer truncates toward 0; integers wrap; to bool is `!= 0`. NaN becomes integer 0,
 * floats beyond an integer type's range saturate (types of 8 and 16 bits: at 32 bits, then wrap). A complex number gives its real part.
 */
export function astype(a: ArrayLike, dtype: Dtype, s?: StreamOrDevice | null): MxArray {
  const x = toArray(a);
  if (x.desc.dtype === requireDtype("astype", dtype)) return new MxArray(x.desc);
  return astypeOp([x], { dtype }, s)[0] as MxArray;
}
