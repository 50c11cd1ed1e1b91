/** Batching of ops that can only be done for one element at a time. */
import type { MxArray } from "../core/array.ts";
import type { Batching } from "../core/rules.ts";
import { stack } from "./concat.ts";
import { sliceAxis } from "./region.ts";
import { reshapeTo } from "./reshape.ts";

/** The op once for each element of the batch. */
export function oneByOne<P>({ inputs, batched, size, params, apply }: Batching<P>): MxArray[] {
  const element = (x: MxArray, n: number): MxArray => reshapeTo(sliceAxis(x, 0, n, n + 1), x.desc.shape.slice(1));
  const all = Array.from({ length: size }, (_, n) => apply(inputs.map((x, i) => (batched[i] ? element(x, n) : x)), params));
  return (all[0] ?? []).map((_, k) => stack(all.map((outputs) => outputs[k] as MxArray)));
}
