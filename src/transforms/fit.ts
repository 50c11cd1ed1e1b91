/** Brings cotangents and tangents to the shape and dtype that they belong to. */
import type { Aval, MxArray } from "../core/array.ts";
import { sameShape } from "../core/shape.ts";
import { noteSizes, onesCount } from "../core/sizes.ts";
import { multiply } from "../ops/binary.ts";
import { astype } from "../ops/cast.ts";
import { broadcastTo } from "../ops/movement.ts";
import { sum } from "../ops/reduce.ts";
import { reshapeTo } from "../ops/reshape.ts";
import { negative } from "../ops/unary.ts";

/** Sums over the dimensions that `to` was broadcast along, and casts. */
export function unbroadcast(x: MxArray, to: Aval): MxArray {
  noteSizes(onesCount);
  let out = x;
  const { shape } = x.desc;
  if (!sameShape(shape, to.shape)) {
    const lead = shape.length - to.shape.length;
    const axes: number[] = [];
    for (let i = 0; i < shape.length; i++) if (i < lead || (to.shape[i - lead] === 1 && shape[i] !== 1)) axes.push(i);
    if (axes.length > 0) out = sum(out, axes, true);
    if (lead > 0) out = reshapeTo(out, out.desc.shape.slice(lead));
    if (!sameShape(out.desc.shape, to.shape)) out = broadcastTo(out, to.shape);
  }
  return out.desc.dtype === to.dtype ? out : astype(out, to.dtype);
}

/** Broadcasts and casts. */
export function rebroadcast(x: MxArray, to: Aval): MxArray {
  noteSizes(onesCount);
  const out = x.desc.dtype === to.dtype ? x : astype(x, to.dtype);
  return sameShape(out.desc.shape, to.shape) ? out : broadcastTo(out, to.shape);
}

/** x times a derivative. */
export function scale(x: MxArray, by: MxArray | number): MxArray {
  if (by === 1) return x;
  return by === -1 ? negative(x) : multiply(x, by);
}
