/** Padding with a constant, with the edge's values, or with the array mirrored at its edges. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { int32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { defineOp, input, output } from "../core/op.ts";
import { type Shape, formatShape, rowStrides } from "../core/shape.ts";
import { concatenate } from "./concat.ts";
import { copySteps, fillStep } from "./copy.ts";
import { type ArrayLike, fromNumbers, toArray } from "./convert.ts";
import { gather } from "./gather.ts";
import { broadcastTo } from "./movement.ts";
import { blank, flatIndex, forEachIndex, move, widthOf } from "./oracle.ts";
import { within } from "./scope.ts";
import { subtract } from "./binary.ts";
import { sum } from "./reduce.ts";
import { castTo, sliceAxis, sliceRegion } from "./region.ts";
import { gpuPad } from "./pad-gpu.ts";
import { reshapeTo } from "./reshape.ts";

type S = StreamOrDevice | null | undefined;

const padOp = defineOp<{ low: Shape; high: Shape }>({
  name: "pad",
  infer: ([a], p) => [{ shape: (a as Aval).shape.map((d, i) => d + (p.low[i] as number) + (p.high[i] as number)), dtype: (a as Aval).dtype }],
  reference: ([a, value], [x], p, [out]) => {
    const width = widthOf(x as Aval);
    const result = blank((out as Aval).shape, width).map((_, i) => (value as Float64Array)[i % width] as number);
    forEachIndex((x as Aval).shape, (index, n) => move(result, flatIndex((out as Aval).shape, index.map((i, d) => i + (p.low[d] as number))), a as Float64Array, n, width));
    return [result];
  },
  vjp: ({ inputs: [x, value], cotangents: [g], needs, params: { low } }) => {
    const { shape } = (x as MxArray).desc;
    const inner = sliceRegion(g as MxArray, { start: low, step: shape.map(() => 1), shape });
    return [inner, needs[1] ? reshapeTo(subtract(sum(g as MxArray), sum(inner)), (value as MxArray).desc.shape) : undefined];
  },
  jvp: "linear",
  vmap: ({ batched, spread, inputs, params: { low, high }, apply }) => {
    if (batched[1]) throw opError("pad", "the constant can not be batched, got one value per element");
    return apply([spread(0), inputs[1] as MxArray], { low: [0, ...low], high: [0, ...high] });
  },
  kernels: [
    {
      name: "wasm/copy/pad",
      layout: ["any", "row"],
      launch([a], [out], p) {
        const from = a as View;
        const to = out as View;
        if (to.size === 0) return { steps: [] };
        const { size } = to.dtype;
        const strides = rowStrides(to.shape);
        const at = p.low.reduce((sum, n, i) => sum + n * (strides[i] as number), 0);
        return { steps: [fillStep(output(0), input(1), size, to.size * size), ...copySteps(size, from.shape, input(0), from.strides, output(0, at * size), strides)] };
      },
    },
  ],
  gpu: gpuPad,
});

type PadWidth = number | readonly number[] | readonly (readonly number[])[];
/** Padding before and after each dimension: one number for all, [both] or [before, after] for all, or one pair per dimension. */
function widths(padWidth: PadWidth, rank: number): [number, number][] {
  const bad = (): never => {
    throw opError("pad", `padWidth must be a non-negative integer, [n], [before, after], or one pair for each of ${rank} dimensions, got ${JSON.stringify(padWidth)}`);
  };
  const pair = (w: number | readonly number[]): [number, number] => {
    const list = typeof w === "number" ? [w] : w;
    const [low, high = low] = list as readonly number[];
    if (list.length > 2 || !Number.isInteger(low) || !Number.isInteger(high) || (low as number) < 0 || (high as number) < 0) return bad();
    return [low as number, high as number];
  };
  if (typeof padWidth === "number" || typeof padWidth[0] === "number") return Array.from({ length: rank }, () => pair(padWidth as number | readonly number[]));
  const list = padWidth as readonly (readonly number[])[];
  if (list.length === 1 && rank !== 1) return Array.from({ length: rank }, () => pair(list[0] as readonly number[]));
  if (list.length !== rank) return bad();
  return list.map(pair);
}

/**
 * The array with elements added around it. `padWidth`: one number, [n], [before, after], or a pair per dimension. `mode`: "constant" (with `constantValue`,
 * default 0), "edge" (the outermost elements repeated), "reflect" (mirrored at the outermost elements) or "symmetric" (mirrored with these repeated).
 */
export function pad(array: ArrayLike, padWidth: PadWidth, constantValue?: ArrayLike | S, mode?: string | S, s?: S): MxArray {
  const x = toArray(array);
  const stream = s ?? [mode, constantValue].find(isStreamOrDevice);
  const pads = widths(padWidth, x.ndim);
  const how = typeof mode === "string" ? mode : "constant";
  if (pads.every(([low, high]) => low === 0 && high === 0)) return new MxArray(x.desc);
  if (how === "edge") return within(() => padEdge(x, pads, stream));
  if (how === "reflect" || how === "symmetric") return within(() => padMirrored(x, pads, how === "reflect", stream));
  if (how !== "constant") throw opError("pad", `mode must be "constant", "edge", "reflect" or "symmetric", got ${JSON.stringify(mode)}`);
  const given = constantValue === undefined || constantValue === null || isStreamOrDevice(constantValue) ? 0 : constantValue;
  return within(() => {
    const value = typeof given === "number" ? toArray(given, x.dtype) : castTo(toArray(given), x.dtype, stream);
    if (value.size !== 1) throw opError("pad", `constantValue must be one value, got shape ${formatShape(value.shape)}`);
    return padOp([x, value], { low: pads.map((p) => p[0]), high: pads.map((p) => p[1]) }, stream)[0] as MxArray;
  });
}

function padEdge(x: MxArray, pads: readonly (readonly [number, number])[], s: S): MxArray {
  let out = x;
  pads.forEach(([low, high], axis) => {
    const size = out.desc.shape[axis] as number;
    if (low + high === 0) return;
    if (size === 0) throw opError("pad", `cannot repeat the edge of an empty dimension, got shape ${formatShape(x.shape)}`);
    const edge = (at: number, n: number): MxArray => broadcastTo(sliceAxis(out, axis, at, at + 1, s), out.shape.map((d, i) => (i === axis ? n : d)), s);
    const parts = [out];
    if (low > 0) parts.unshift(edge(0, low));
    if (high > 0) parts.push(edge(size - 1, high));
    out = concatenate(parts, axis, s);
  });
  return out;
}

/** Index of the element that place `i` of an axis of `size` shows when the array goes on as its mirror image in both directions. */
function mirrored(i: number, size: number, reflect: boolean): number {
  const period = reflect ? 2 * (size - 1) : 2 * size;
  if (period === 0) return 0;
  const at = ((i % period) + period) % period;
  if (at < size) return at;
  return reflect ? period - at : period - 1 - at;
}
function padMirrored(x: MxArray, pads: readonly (readonly [number, number])[], reflect: boolean, s: S): MxArray {
  let out = x;
  pads.forEach(([low, high], axis) => {
    const size = out.desc.shape[axis] as number;
    if (low + high === 0) return;
    if (size === 0) throw opError("pad", `cannot mirror an empty dimension, got shape ${formatShape(x.shape)}`);
    const places = Array.from({ length: low + size + high }, (_, i) => mirrored(i - low, size, reflect));
    out = gather("pad", out, [fromNumbers([places.length], int32, places)], [axis], axis, s);
  });
  return out;
}
