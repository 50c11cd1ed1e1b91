/** Order between computations that do not use each other's results. */
import { type Aval, MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { opError } from "../core/error.ts";
import { defineOp } from "../core/op.ts";

/** Input 0, once the others are computed. */
const apply = defineOp({
  name: "depends",
  infer: ([a]) => [{ shape: (a as Aval).shape, dtype: (a as Aval).dtype }],
  view: (a) => ({ strides: a.strides, offset: a.offset }),
  reference: ([a]) => [a as Float64Array],
  vjp: ({ inputs, cotangents }) => inputs.map((_, i) => (i === 0 ? cotangents[0] : undefined)),
  jvp: ({ tangents }) => [tangents[0]],
  vmap: ({ inputs, spread, params, apply: again }) => again([spread(0), ...inputs.slice(1)], params),
  kernels: [],
});

const listOf = (what: string, x: MxArray | readonly MxArray[]): readonly MxArray[] => {
  const list = Array.isArray(x) ? (x as readonly MxArray[]) : [x as MxArray];
  for (const a of list) if (!(a instanceof MxArray)) throw opError("depends", `${what} must be arrays, got ${a === null ? "null" : typeof a}`);
  return list;
};

/**
 * The inputs, unchanged, whose evaluation also evaluates the dependencies, first.
 *
 * @param inputs an array or an Array of arrays
 * @param dependencies an array or an Array of arrays
 * @returns in the form of `inputs`
 */
export function depends<T extends MxArray | readonly MxArray[]>(inputs: T, dependencies: MxArray | readonly MxArray[]): T extends MxArray ? MxArray : MxArray[] {
  const on = listOf("dependencies", dependencies);
  const out = listOf("inputs", inputs).map((x) => orderedAfter(x, on));
  return (Array.isArray(inputs) ? out : out[0]) as never;
}
/** One array that is computed after others. */
export const orderedAfter = (x: MxArray, others: readonly MxArray[], s?: StreamOrDevice | null): MxArray => (others.length === 0 ? x : (apply([x, ...others], {}, s)[0] as MxArray));
