/** Reshape without checks: what `reshape`, `flatten` and ops made of others use. */
import { type Aval, MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { defineOp } from "../core/op.ts";
import { type Shape, reshapeStrides, rowStrides, sameShape } from "../core/shape.ts";
import { noteSizes, onesCount, sizesCount } from "../core/sizes.ts";

/** Another handle on the same array: what an op returns that has nothing to do. */
export const same = (a: MxArray): MxArray => new MxArray(a.desc);

/** For inputs of other shapes: the whole shape as the user wrote it, with the dimension that is to be inferred as -1; or the number of that dimension. */
interface Inferred {
  readonly given?: Shape;
  readonly free?: number;
}
const reshapeOp = defineOp<{ shape: Shape } & Inferred>({
  name: "reshape",
  infer: ([a], p) => [{ shape: p.shape, dtype: (a as Aval).dtype }],
  view(a, p) {
    if (a.contiguous) return { strides: rowStrides(p.shape), offset: a.offset };
    const strides = reshapeStrides(a.shape, a.strides, p.shape);
    return strides && { strides, offset: a.offset };
  },
  reference: ([a]) => [a as Float64Array],
  vjp: ({ inputs: [x], cotangents: [g] }) => [reshapeTo(g as MxArray, (x as MxArray).desc.shape)],
  jvp: "linear",
  vmap: ({ inputs, size, params, apply }) => apply(inputs, { shape: [size, ...params.shape] }),
  kernels: [],
});

/** The array with another shape, whose size is known to agree. */
export function reshapeTo(x: MxArray, shape: Shape, s?: StreamOrDevice | null, inferred?: Inferred): MxArray {
  const nothing = sameShape(x.desc.shape, shape);
  // For other sizes there may be something to do, unless a list stays a list.
  if (nothing && x.desc.traced && !(inferred?.given?.length === 1 && inferred.given[0] === -1)) noteSizes(inferred?.given ? sizesCount : onesCount);
  return nothing ? same(x) : (reshapeOp([x], { shape, ...inferred }, s)[0] as MxArray);
}
