/** Joining arrays: concatenate, stack, repeat, tile, roll. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { promote } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Step, defineOp, input, output } from "../core/op.ts";
import { formatShape, normalizeAxis, rowStrides } from "../core/shape.ts";
import { gpuConcatenate } from "./concat-gpu.ts";
import { copySteps } from "./copy.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { broadcastTo, expandDims } from "./movement.ts";
import { reshapeTo } from "./reshape.ts";
import { blank, flatIndex, forEachIndex, move, widthOf } from "./oracle.ts";
import { within } from "./scope.ts";
import { castTo, sliceAxis } from "./region.ts";

type S = StreamOrDevice | null | undefined;

const concatenateOp = defineOp<{ axis: number }>({
  name: "concatenate",
  infer(inputs, { axis }) {
    const first = inputs[0] as Aval;
    const shape = first.shape.slice();
    for (let k = 1; k < inputs.length; k++) {
      const other = (inputs[k] as Aval).shape;
      let fits = other.length === shape.length;
      for (let i = 0; fits && i < shape.length; i++) fits = i === axis || other[i] === shape[i];
      if (!fits) throw opError("concatenate", `shapes must be equal except along axis ${axis}, got ${formatShape(first.shape)} and ${formatShape(other)}`);
      shape[axis] = (shape[axis] as number) + (other[axis] as number);
    }
    return [{ shape, dtype: first.dtype }];
  },
  reference(inputs, avals, { axis }, [out]) {
    const width = widthOf(out as Aval);
    const result = blank((out as Aval).shape, width);
    let from = 0;
    inputs.forEach((data, k) => {
      const { shape } = avals[k] as Aval;
      forEachIndex(shape, (index, n) => {
        move(result, flatIndex((out as Aval).shape, index.map((i, d) => (d === axis ? i + from : i))), data, n, width);
      });
      from += shape[axis] as number;
    });
    return [result];
  },
  vjp: ({ inputs, cotangents: [g], params: { axis } }) => {
    let at = 0;
    return inputs.map((x) => {
      const from = at;
      at += x.desc.shape[axis] as number;
      return sliceAxis(g as MxArray, axis, from, at);
    });
  },
  jvp: "linear",
  vmap: ({ inputs, spread, params, apply }) => apply(inputs.map((_, i) => spread(i)), { axis: params.axis + 1 }),
  kernels: [
    {
      name: "wasm/copy/concatenate",
      layout: ["any"],
      launch(inputs, [out], { axis }) {
        const to = out as View;
        const strides = rowStrides(to.shape);
        const steps: Step[] = [];
        let at = 0;
        for (let k = 0; k < inputs.length; k++) {
          const from = inputs[k] as View;
          steps.push(...copySteps(to.dtype.size, from.shape, input(k), from.strides, output(0, at * to.dtype.size), strides));
          at += (from.shape[axis] as number) * (strides[axis] as number);
        }
        return { steps };
      },
    },
  ],
  gpu: gpuConcatenate,
});

/** The arrays as members of one dtype. */
function unify(op: string, arrays: readonly ArrayLike[] | undefined, s: S): MxArray[] {
  if (!Array.isArray(arrays) || arrays.length === 0) throw opError(op, `needs a list with at least one array, got ${Array.isArray(arrays) ? "an empty list" : typeof arrays}`);
  const list = arrays.map((a) => toArray(a));
  let dtype = (list[0] as MxArray).dtype;
  for (const a of list) dtype = promote(dtype, a.dtype);
  return list.map((a) => castTo(a, dtype, s));
}

/** The arrays one after the other along an axis (default 0; null: each flattened first). Shapes must agree in the other dimensions. */
export function concatenate(arrays: readonly ArrayLike[], axis?: number | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  return within(() => join(unify("concatenate", arrays, stream), axis, stream));
}
function join(arrays: MxArray[], axis: number | S, stream: S): MxArray {
  let list = arrays;
  if (axis === null) list = list.map((a) => reshapeTo(a, [a.size], stream));
  const at = normalizeAxis("concatenate", typeof axis === "number" ? axis : 0, (list[0] as MxArray).ndim);
  for (const a of list) if (a.ndim !== list[0]?.ndim) throw opError("concatenate", `arrays must have the same number of dimensions, got ${list.map((b) => formatShape(b.shape)).join(" and ")}`);
  return list.length === 1 ? new MxArray((list[0] as MxArray).desc) : (concatenateOp(list, { axis: at }, stream)[0] as MxArray);
}
/** Same as `concatenate`. */
export const concat = concatenate;

/** The arrays, all of one shape, along a new axis (default 0). */
export function stack(arrays: readonly ArrayLike[], axis?: number | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  return within(() => pile(unify("stack", arrays, stream), typeof axis === "number" ? axis : 0, stream));
}
function pile(list: readonly MxArray[], axis: number, stream: S): MxArray {
  const first = list[0] as MxArray;
  for (const a of list) if (formatShape(a.desc.shape) !== formatShape(first.desc.shape)) throw opError("stack", `all arrays must have the same shape, got ${formatShape(first.shape)} and ${formatShape(a.shape)}`);
  const at = normalizeAxis("stack", axis, first.ndim + 1);
  return concatenate(list.map((a) => expandDims(a, at, stream)), at, stream);
}

/** Each element `repeats` times along an axis; without an axis the array is flattened first. */
export function repeat(array: ArrayLike, repeats?: number, axis?: number | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const n = repeats ?? 1;
  if (!Number.isInteger(n) || n < 0) throw opError("repeat", `repeats must be a non-negative integer, got ${n}`);
  return within(() => {
    let x = toArray(array);
    if (typeof axis !== "number") x = reshapeTo(x, [x.size], stream);
    const at = normalizeAxis("repeat", typeof axis === "number" ? axis : 0, x.ndim);
    const shape = x.shape;
    const wide = broadcastTo(expandDims(x, at + 1, stream), [...shape.slice(0, at + 1), n, ...shape.slice(at + 1)], stream);
    return reshapeTo(wide, shape.map((d, i) => (i === at ? d * n : d)), stream);
  });
}

/** The whole array repeated `reps[i]` times along dimension i (counted from the last). */
export function tile(array: ArrayLike, reps: number | readonly number[], s?: S): MxArray {
  const x = toArray(array);
  const given = typeof reps === "number" ? [reps] : [...reps];
  for (const n of given) if (!Number.isInteger(n) || n < 0) throw opError("tile", `reps must be non-negative integers, got ${JSON.stringify(reps)}`);
  const rank = Math.max(x.ndim, given.length);
  const shape = [...new Array<number>(rank - x.ndim).fill(1), ...x.shape];
  const times = [...new Array<number>(rank - given.length).fill(1), ...given];
  const apart = shape.flatMap((d) => [1, d]);
  return within(() => {
    const wide = broadcastTo(reshapeTo(x, apart, s), shape.flatMap((d, i) => [times[i] as number, d]), s);
    return reshapeTo(wide, shape.map((d, i) => d * (times[i] as number)), s);
  });
}

/** Elements moved by `shift` places along an axis; those pushed out come back at the other end. Without an axis the array is rolled as if flat. */
export function roll(array: ArrayLike, shift: number | readonly number[], axis?: number | readonly number[] | S, s?: S): MxArray {
  const x = toArray(array);
  const stream = s ?? (isStreamOrDevice(axis) ? axis : undefined);
  const axes = typeof axis === "number" ? [axis] : Array.isArray(axis) ? (axis as number[]) : undefined;
  const shifts = typeof shift === "number" ? [shift] : [...shift];
  if (!axes) {
    const total = shifts.reduce((a, b) => a + b, 0);
    return within(() => reshapeTo(rollAxis(reshapeTo(x, [x.size], stream), total, 0, stream), x.shape, stream));
  }
  if (shifts.length !== 1 && axes.length !== 1 && shifts.length !== axes.length) throw opError("roll", `shift and axis must be single numbers or lists of one length, got ${JSON.stringify(shift)} and ${JSON.stringify(axes)}`);
  return within(() => {
    let out = new MxArray(x.desc);
    const at = (list: readonly number[], i: number): number => list[list.length === 1 ? 0 : i] as number;
    for (let i = 0; i < Math.max(shifts.length, axes.length); i++) out = rollAxis(out, at(shifts, i), normalizeAxis("roll", at(axes, i), x.ndim), stream);
    return out;
  });
}
function rollAxis(x: MxArray, shift: number, axis: number, s: S): MxArray {
  if (!Number.isInteger(shift)) throw opError("roll", `shift must be an integer, got ${shift}`);
  const size = x.desc.shape[axis] as number;
  const by = size === 0 ? 0 : ((shift % size) + size) % size;
  if (by === 0) return new MxArray(x.desc);
  return concatenate([sliceAxis(x, axis, size - by, size, s), sliceAxis(x, axis, 0, size - by, s)], axis, s);
}
