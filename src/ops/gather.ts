/** Gathers and scatters through index arrays: the ops beneath take, putAlongAxis and array indexing. */
import type { Aval, MxArray, View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { opError } from "../core/error.ts";
import type { Value } from "../core/expr.ts";
import { type Arg, type Pointer, type Step, defineOp, input, output } from "../core/op.ts";
import { type Shape, broadcastShapes, collapseDims, formatShape, sizeOf } from "../core/shape.ts";
import { float32, int32, uint32 } from "../core/dtype.ts";
import { minimum, multiply } from "./binary.ts";
import { astype } from "./cast.ts";
import { arange, zeros, zerosLike } from "./creation.ts";
import { equal } from "./compare.ts";
import { conjugate } from "./complex.ts";
import { toArray } from "./convert.ts";
import { gpuGather, gpuMaskedScatter, gpuPutAlongAxis, gpuScatter, gpuTakeAlongAxis } from "./gather-gpu.ts";
import { broadcastTo, expandDims, moveaxis } from "./movement.ts";
import { where } from "./select.ts";
import { blank, flatIndex, forEachIndex, move, widthOf } from "./oracle.ts";
import { type Region, batchRegion, sliceRegion } from "./region.ts";
import { reshapeTo } from "./reshape.ts";
import { cumsum } from "./scan.ts";

type S = StreamOrDevice | null | undefined;

/** How a scattered element meets what is already there. */
export type ScatterMode = "assign" | "add" | "multiply" | "maximum" | "minimum";
const modes: readonly ScatterMode[] = ["assign", "add", "multiply", "maximum", "minimum"];

/** An index array as a kernel sees it: where it lies, and the dimension that it indexes. */
interface IndexArray {
  readonly pointer: Pointer;
  readonly code: number;
  readonly size: number;
  /** Bytes per index step. */
  readonly stride: number;
}
/** A dimension that a kernel walks; strides in bytes. */
interface Walk {
  size: number;
  strides: number[];
}

const walks = (shape: Shape, strides: readonly Shape[]): Walk[] => {
  const c = collapseDims(shape, ...strides);
  return c.shape.map((size, i) => ({ size, strides: c.strides.map((list) => list[i] as number) }));
};
const scaled = (strides: Shape, size: number): number[] => strides.map((n) => n * size);
const product = (dims: readonly Walk[]): number => dims.reduce((n, d) => n * d.size, 1);
/** The element that an index means: negative counts from the end; outside goes to the nearest. */
const wrapped = (i: number, size: number): number => Math.max(0, Math.min(i < 0 ? i + size : i, size - 1));

/** Steps that gather into a row-major output; srcStrides are 0 along dimensions that only indices know. Strides in bytes. */
function gatherSteps(size: number, shape: Shape, srcStrides: Shape, indexStrides: readonly Shape[], arrays: readonly IndexArray[]): Step[] {
  if (sizeOf(shape) === 0) return [];
  const dims = walks(shape, [srcStrides, ...indexStrides]);
  const last = dims[dims.length - 1];
  const whole = !last || (last.strides[0] === size && last.strides.every((n, i) => i === 0 || n === 0));
  const inner = last ? last.size : 1;
  const outer = dims.slice(0, -1);
  const args: Arg[] = [input(0), output(0), arrays.length, outer.length, whole ? inner * size : inner, (last?.strides[0] ?? 0) | 0];
  arrays.forEach((x, k) => {
    args.push(x.pointer, x.code, x.size, x.stride | 0, (last?.strides[k + 1] ?? 0) | 0);
  });
  for (const d of outer) args.push(d.size, ...d.strides.map((n) => n | 0));
  const grain = whole ? Math.floor(131072 / (inner * size + 64)) : Math.floor(8192 / (inner + 8));
  return [{ entry: whole ? "gather/rows" : `gather/elements${size}`, args, units: product(outer), grain: Math.max(1, grain) }];
}

interface ScatterDims {
  readonly shape: number[];
  readonly dst: number[];
  readonly updates: number[];
  readonly indices: number[][];
}
const noDims = (arrays: number): ScatterDims => ({ shape: [], dst: [], updates: [], indices: Array.from({ length: arrays }, () => []) });

/** Steps that scatter. Updates along parallel dimensions never meet; those along serial ones may, and are done in order by one thread. */
function scatterSteps(out: View, mode: ScatterMode, parallel: ScatterDims, serial: ScatterDims, arrays: readonly IndexArray[]): Step[] {
  if (sizeOf(parallel.shape) === 0 || sizeOf(serial.shape) === 0) return [];
  const { size, code } = out.dtype;
  const p = walks(parallel.shape, [parallel.dst, parallel.updates, ...parallel.indices]);
  const q = walks(serial.shape, [serial.dst, serial.updates, ...serial.indices]);
  const last = p[p.length - 1];
  const run = last?.strides.every((n, i) => i < 2 || n === 0) ? last : undefined;
  if (run) p.pop();
  const count = run?.size ?? 1;
  // Few rows: split the run so that every thread gets work, in pieces that are whole cache lines for the smallest type.
  const pieces = product(p) >= 8 || count < 1024 ? 1 : 8;
  const piece = pieces === 1 ? count : Math.ceil(count / pieces / 64) * 64;
  const segments = Math.ceil(count / piece);
  const args: Arg[] = [output(0), input(1), arrays.length, p.length, q.length, count, (run?.strides[0] ?? size) | 0, (run?.strides[1] ?? size) | 0, segments, piece, modes.indexOf(mode), code, size];
  for (const x of arrays) args.push(x.pointer, x.code, x.size, x.stride | 0);
  for (const d of [...p, ...q]) args.push(d.size, ...d.strides.map((n) => n | 0));
  const work = product(q) * (piece + 16);
  return [{ entry: "scatter/scatter", args, units: product(p) * segments, grain: Math.max(1, Math.floor(16384 / work)) }];
}

const indexArrays = (views: readonly View[], first: number, axes: readonly number[], of: View): IndexArray[] =>
  axes.map((axis, k) => ({
    pointer: input(first + k),
    code: (views[first + k] as View).dtype.code,
    size: of.shape[axis] as number,
    stride: (of.strides[axis] as number) * of.dtype.size,
  }));

// gather

interface GatherParams {
  /** Dimensions of the input that the index arrays index. */
  readonly axes: readonly number[];
  /** Number of other dimensions that come before the index arrays' dimensions in the output. */
  readonly at: number;
}
const others = (rank: number, axes: readonly number[]): number[] => Array.from({ length: rank }, (_, i) => i).filter((i) => !axes.includes(i));
/** `list` taken at `kept`, with `middle` put in before place `at`. */
const around = (list: Shape, kept: readonly number[], at: number, middle: Shape): number[] => [...kept.slice(0, at).map((i) => list[i] as number), ...middle, ...kept.slice(at).map((i) => list[i] as number)];

/** Throws when a derivative by index arrays is asked for. */
const requireFixed = (op: string, asked: readonly unknown[]): void => {
  if (asked.some((a) => a !== undefined && a !== false)) throw opError(op, "there is no derivative by the indices: use stopGradient (stop_gradient in MLX) on them, got one asked for");
};
const rowNumbers = (size: number, rank: number): MxArray => reshapeTo(arange(size, int32), [size, ...new Array<number>(rank).fill(1)]);
const wholeOf = (shape: Shape): Region => ({ start: shape.map(() => 0), step: shape.map(() => 1), shape });

const gatherOp = defineOp<GatherParams>({
  name: "gather",
  vjp: ({ inputs: [x, ...indices], cotangents: [g], needs, params: { axes, at } }) => {
    requireFixed("gather", needs.slice(1));
    const a = x as MxArray;
    return [scatter("gather", zerosLike(a), g as MxArray, indices, axes, at, wholeOf(a.desc.shape), "add")];
  },
  jvp: ({ inputs: [, ...indices], tangents: [t, ...others], params, apply }) => {
    requireFixed("gather", others);
    return t ? apply([t, ...indices], params) : [undefined];
  },
  vmap: ({ inputs: [x, ...indices], batched: [one, ...several], size, params: { axes, at } }) => {
    const behind = axes.map((axis) => axis + 1);
    if (!several.some(Boolean)) return [gather("gather", x as MxArray, indices, behind, at + 1)];
    const rank = Math.max(...indices.map((i, k) => i.ndim - Number(several[k])));
    const out = one ? gather("gather", x as MxArray, [rowNumbers(size, rank), ...indices], [0, ...behind], at) : gather("gather", x as MxArray, indices, axes, at);
    return [moveaxis(out, at, 0)];
  },
  infer(inputs, p) {
    const a = inputs[0] as Aval;
    return [{ shape: around(a.shape, others(a.shape.length, p.axes), p.at, (inputs[1] as Aval).shape), dtype: a.dtype }];
  },
  reference([a, ...indices], avals, p, [out]) {
    const { shape } = avals[0] as Aval;
    const kept = others(shape.length, p.axes);
    const middle = (avals[1] as Aval).shape;
    const width = widthOf(out as Aval);
    const result = blank((out as Aval).shape, width);
    forEachIndex((out as Aval).shape, (index, n) => {
      const from = shape.map(() => 0);
      kept.forEach((axis, i) => {
        from[axis] = index[i < p.at ? i : i + middle.length] as number;
      });
      const place = flatIndex(middle, index.slice(p.at, p.at + middle.length));
      p.axes.forEach((axis, k) => {
        from[axis] = wrapped((indices[k] as Float64Array)[place] as number, shape[axis] as number);
      });
      move(result, n, a as Float64Array, flatIndex(shape, from), width);
    });
    return [result];
  },
  kernels: [
    {
      name: "wasm/gather/run",
      layout: ["any", "row"],
      gate: {
        refuse([a, ids, ...more]) {
          if (more.length > 0 || (a as View).shape.length !== 1) return "cannot: only one index array into one dimension";
          if ((ids as View).dtype !== int32 && (ids as View).dtype !== uint32) return `cannot: only int32 and uint32 indices, got ${(ids as View).dtype}`;
          return undefined;
        },
      },
      launch(inputs, [out]) {
        const [a, ids] = inputs as [View, View];
        const { size } = a.dtype;
        const args = [input(0), output(0), input(1), ids.dtype.code, a.shape[0] as number, ((a.strides[0] as number) * size) | 0];
        const units = sizeOf((out as View).shape);
        return { steps: units === 0 ? [] : [{ entry: `gather/run${size}`, args, units, grain: 8192 }] };
      },
    },
    {
      name: "wasm/gather/gather",
      layout: ["any"],
      launch(inputs, [out], p) {
        const a = inputs[0] as View;
        const kept = others(a.shape.length, p.axes);
        const zeros = a.shape.map(() => 0);
        const middle = (inputs[1] as View).shape;
        const src = around(scaled(a.strides, a.dtype.size), kept, p.at, middle.map(() => 0));
        const indexStrides = inputs.slice(1).map((x) => around(zeros, kept, p.at, scaled(x.strides, x.dtype.size)));
        return { steps: gatherSteps(a.dtype.size, (out as View).shape, src, indexStrides, indexArrays(inputs, 1, p.axes, a)) };
      },
    },
  ],
  gpu: gpuGather,
});

/** Checks index arrays and broadcasts them to one shape. */
export function alignIndices(op: string, indices: readonly MxArray[], s?: S): MxArray[] {
  for (const x of indices) if (!x.dtype.isInteger) throw opError(op, `indices must be integers, got ${x.dtype}`);
  if (indices.length === 1) return [indices[0] as MxArray];
  const shape = broadcastShapes(op, ...indices.map((x) => x.desc.shape));
  return indices.map((x) => broadcastTo(x, shape, s));
}
function requireElements(op: string, shape: Shape, axes: readonly number[], indices: MxArray): void {
  for (const axis of axes) if (shape[axis] === 0 && indices.size > 0) throw opError(op, `cannot index an empty dimension, got axis ${axis} of shape ${formatShape(shape)}`);
}

/**
 * Elements at the places that index arrays (one per axis in `axes`, broadcast together) name. The output has the other dimensions in order, with the index
 * arrays' dimensions put in before place `at`. Negative indices count from the end; indices outside are clamped to the nearest element.
 */
export function gather(op: string, x: MxArray, indices: readonly MxArray[], axes: readonly number[], at: number, s?: S): MxArray {
  const list = alignIndices(op, indices, s);
  requireElements(op, x.desc.shape, axes, list[0] as MxArray);
  return gatherOp([x, ...list], { axes, at }, s)[0] as MxArray;
}

/** Longer rows are cut into chunks that would all have to look for the element. */
const longestPick = 16384;
const takeAlongAxisOp = defineOp<{ axis: number }>({
  name: "takeAlongAxis",
  vjp: ({ inputs: [x, i], cotangents: [g], needs, params: { axis } }) => {
    requireFixed("takeAlongAxis", needs.slice(1));
    return [scatterAlong(zerosLike(x as MxArray), i as MxArray, g as MxArray, axis, "add")];
  },
  jvp: ({ inputs: [, i], tangents: [t, other], params, apply }) => {
    requireFixed("takeAlongAxis", [other]);
    return t ? apply([t, i as MxArray], params) : [undefined];
  },
  vmap: ({ spread, params: { axis }, apply }) => apply([spread(0), spread(1)], { axis: axis + 1 }),
  infer: ([a, indices]) => [{ shape: (indices as Aval).shape, dtype: (a as Aval).dtype }],
  reference([a, indices], avals, { axis }) {
    const { shape } = avals[0] as Aval;
    const width = widthOf(avals[0] as Aval);
    const result = blank((avals[1] as Aval).shape, width);
    forEachIndex((avals[1] as Aval).shape, (index, n) => {
      const from = [...index];
      from[axis] = wrapped((indices as Float64Array)[n] as number, shape[axis] as number);
      move(result, n, a as Float64Array, flatIndex(shape, from), width);
    });
    return [result];
  },
  // One element of each row: the loss of a class.
  rows: {
    span: ({ shape, dtype }, { axis }, [, i]) => {
      const { shape: places, dtype: kind } = i as Aval;
      const last = shape.length - 1;
      const one = axis === last && places[last] === 1 && places.every((n, d) => d === last || n === shape[d]);
      return one && dtype.isFloat && dtype.size <= 4 && kind.isInteger && kind.size <= 4 && (shape[last] as number) <= longestPick ? 1 : undefined;
    },
    perRow: true,
    formula(r, [x, i], _params, { dtype }) {
      const { e } = r;
      const index = i as Value;
      const n = e.convert(r.count(float32), index.type);
      const last = e.sub(n, e.like(n, 1));
      const positive = index.type === "i32" ? e.select(e.lt(index, e.like(index, 0)), e.add(index, n), index) : index;
      const inside = e.select(e.gt(positive, last), last, positive);
      return r.pick(x as Value, e.convert(index.type === "i32" ? e.select(e.lt(inside, e.like(inside, 0)), e.like(inside, 0), inside) : inside, "u32"), dtype);
    },
  },
  kernels: [
    {
      name: "wasm/gather/takeAlongAxis",
      layout: ["any"],
      launch(inputs, [out], { axis }) {
        const [a, x] = inputs as [View, View];
        const src = scaled(a.strides, a.dtype.size);
        src[axis] = 0;
        return { steps: gatherSteps(a.dtype.size, (out as View).shape, src, [scaled(x.strides, x.dtype.size)], indexArrays(inputs, 1, [axis], a)) };
      },
    },
  ],
  gpu: gpuTakeAlongAxis,
});

/** Elements along one axis; `indices` has x's shape except along that axis. */
export function gatherAlong(x: MxArray, indices: MxArray, axis: number, s?: S): MxArray {
  requireElements("takeAlongAxis", x.desc.shape, [axis], indices);
  return takeAlongAxisOp([x, indices], { axis }, s)[0] as MxArray;
}

// scatter

/** Float64 model of the modes; NaN wins in maximum and minimum. */
function combine(mode: ScatterMode, x: number, y: number): number {
  switch (mode) {
    case "assign": return y;
    case "add": return x + y;
    case "multiply": return x * y;
    case "maximum": return Number.isNaN(x) || x > y ? x : y;
    case "minimum": return Number.isNaN(x) || x < y ? x : y;
  }
}

/** Combines element i of `values` into element `at` of `out`. Complex numbers are ordered by real part, then imaginary part. */
function meet(mode: ScatterMode, out: Float64Array, at: number, values: Float64Array, i: number, width: number): void {
  if (width === 1) {
    out[at] = combine(mode, out[at] as number, values[i] as number);
    return;
  }
  const [a, b] = out.subarray(2 * at, 2 * at + 2) as unknown as [number, number];
  const [c, d] = values.subarray(2 * i, 2 * i + 2) as unknown as [number, number];
  const greater = a > c || (a === c && b > d);
  if (mode === "add") out.set([a + c, b + d], 2 * at);
  else if (mode === "multiply") out.set([a * c - b * d, a * d + b * c], 2 * at);
  else if (mode === "assign" || (mode === "maximum" ? !greater : greater)) out.set([c, d], 2 * at);
}

interface ScatterParams extends GatherParams {
  readonly mode: ScatterMode;
  /** The part of the input that the other dimensions of the updates cover. */
  readonly region: Region;
}

/** Assign and add are linear in the array and the updates. */
const isLinear = (mode: ScatterMode): boolean => mode === "assign" || mode === "add";
const requireLinear = (op: string, mode: ScatterMode): void => {
  if (!isLinear(mode)) throw opError(op, `there is no derivative for this way of updating through index arrays, as in MLX, got ${mode}`);
};
/** Elements of v at the places of the updates. */
const chosenBy = (v: MxArray, indices: readonly MxArray[], p: ScatterParams): MxArray => (p.axes.length === 0 ? sliceRegion(v, p.region) : gather("scatter", sliceRegion(v, p.region), indices, p.axes, p.at));
/** Whoever has the extreme value takes part; equals all do, as in MLX. */
const winner = (v: MxArray, best: MxArray, flow: MxArray): MxArray => where(equal(v, best), flow, 0);
const scatterOp = defineOp<ScatterParams>({
  name: "scatter",
  vjp: ({ inputs: [x, u, ...indices], outputs: [y], cotangents: [g], needs, params: p, apply }) => {
    requireFixed("scatter", needs.slice(2));
    const [a, updates, flow] = [x as MxArray, u as MxArray, g as MxArray];
    const own = chosenBy(flow, indices, p);
    if (p.mode === "maximum" || p.mode === "minimum") return [winner(a, y as MxArray, flow), winner(updates, chosenBy(y as MxArray, indices, p), own)];
    if (p.mode === "multiply" && indices.length === 0) return [apply([flow, conjugate(updates)], p)[0], multiply(own, conjugate(sliceRegion(a, p.region)))];
    requireLinear("scatter", p.mode);
    return [p.mode === "add" ? flow : apply([flow, zerosLike(updates), ...indices], p)[0], own];
  },
  jvp: ({ inputs: [x, u, ...indices], outputs: [y], tangents: [s, t, ...others], params: p, apply }) => {
    requireFixed("scatter", others);
    const [a, updates] = [x as MxArray, u as MxArray];
    const [da, du] = [s ?? zerosLike(a), t ?? zerosLike(updates)];
    if (isLinear(p.mode)) return apply([da, du, ...indices], p);
    const sums = { ...p, mode: "add" } as const;
    if (p.mode !== "multiply") return apply([winner(a, y as MxArray, da), winner(updates, chosenBy(y as MxArray, indices, p), du), ...indices], sums);
    if (indices.length > 0) requireLinear("scatter", p.mode);
    return apply([apply([da, updates], p)[0] as MxArray, multiply(sliceRegion(a, p.region), du)], sums);
  },
  vmap: ({ inputs: [, , ...indices], batched, spread, size, params: p }) => {
    const several = batched.slice(2);
    const behind = p.axes.map((axis) => axis + 1);
    const region = batchRegion(p.region, size);
    if (!several.some(Boolean)) return [scatter("scatter", spread(0), spread(1), indices, behind, p.at + 1, region, p.mode)];
    const rank = Math.max(...indices.map((i, k) => i.ndim - Number(several[k])));
    return [scatter("scatter", spread(0), moveaxis(spread(1), 0, p.at), [rowNumbers(size, rank), ...indices], [0, ...behind], p.at, region, p.mode)];
  },
  infer: ([a]) => [a as Aval],
  reference([a, updates, ...indices], avals, p) {
    const { shape } = avals[0] as Aval;
    const kept = others(shape.length, p.axes);
    const middle = p.axes.length > 0 ? (avals[2] as Aval).shape : [];
    const result = (a as Float64Array).slice();
    forEachIndex((avals[1] as Aval).shape, (index, n) => {
      const to = shape.map(() => 0);
      kept.forEach((axis, i) => {
        to[axis] = (p.region.start[axis] as number) + (index[i < p.at ? i : i + middle.length] as number) * (p.region.step[axis] as number);
      });
      const place = flatIndex(middle, index.slice(p.at, p.at + middle.length));
      p.axes.forEach((axis, k) => {
        to[axis] = wrapped((indices[k] as Float64Array)[place] as number, shape[axis] as number);
      });
      const at = flatIndex(shape, to);
      meet(p.mode, result, at, updates as Float64Array, n, widthOf(avals[0] as Aval));
    });
    return [result];
  },
  kernels: [
    {
      name: "wasm/scatter/scatter",
      layout: ["row", "any"],
      base: 0,
      launch: (inputs, [out], p) => ({ steps: scatterLaunch(inputs, out as View, p) }),
    },
  ],
  gpu: gpuScatter,
});

function scatterLaunch(inputs: readonly View[], out: View, p: ScatterParams): Step[] {
  const updates = inputs[1] as View;
  const { size } = out.dtype;
  const kept = others(out.shape.length, p.axes);
  const middle = p.axes.length > 0 ? (inputs[2] as View).shape.length : 0;
  const parallel = noDims(p.axes.length);
  const serial = noDims(p.axes.length);
  let start = 0;
  kept.forEach((axis, i) => {
    const from = i < p.at ? i : i + middle;
    parallel.shape.push(updates.shape[from] as number);
    parallel.dst.push((out.strides[axis] as number) * (p.region.step[axis] as number) * size);
    parallel.updates.push((updates.strides[from] as number) * size);
    for (const list of parallel.indices) list.push(0);
    start += (out.strides[axis] as number) * (p.region.start[axis] as number) * size;
  });
  for (let d = 0; d < middle; d++) {
    serial.shape.push(updates.shape[p.at + d] as number);
    serial.dst.push(0);
    serial.updates.push((updates.strides[p.at + d] as number) * size);
    serial.indices.forEach((list, k) => {
      list.push(((inputs[2 + k] as View).strides[d] as number) * (inputs[2 + k] as View).dtype.size);
    });
  }
  const steps = scatterSteps(out, p.mode, parallel, serial, indexArrays(inputs, 2, p.axes, out));
  return steps.map((step) => ({ ...step, args: [output(0, start), ...step.args.slice(1)] }));
}

/**
 * `x` with updates written to, or combined with, the places that the index arrays name. The updates' dimensions are those of the region without `axes`, with the
 * index arrays' dimensions before place `at`. Where updates meet, assign keeps the last in row-major order and the other modes count all.
 */
export function scatter(op: string, x: MxArray, updates: MxArray, indices: readonly MxArray[], axes: readonly number[], at: number, region: Region, mode: ScatterMode, s?: S): MxArray {
  const list = axes.length === 0 ? [] : alignIndices(op, indices, s);
  if (list[0]) requireElements(op, x.desc.shape, axes, list[0]);
  const shape = around(region.shape, others(x.ndim, axes), at, list[0]?.desc.shape ?? []);
  return scatterOp([x, broadcastTo(updates, shape, s), ...list], { axes, at, mode, region }, s)[0] as MxArray;
}

const scatterAlongOp = defineOp<{ axis: number; mode: ScatterMode }>({
  name: "putAlongAxis",
  vjp: ({ inputs: [, i, u], cotangents: [g], needs, params: { axis, mode }, apply }) => {
    requireFixed("putAlongAxis", [needs[1]]);
    requireLinear("putAlongAxis", mode);
    return [mode === "add" ? g : apply([g as MxArray, i as MxArray, zerosLike(u as MxArray)], { axis, mode })[0], undefined, gatherAlong(g as MxArray, i as MxArray, axis)];
  },
  jvp: ({ inputs: [x, i, u], tangents: [a, other, b], params, apply }) => {
    requireFixed("putAlongAxis", [other]);
    requireLinear("putAlongAxis", params.mode);
    return apply([a ?? zerosLike(x as MxArray), i as MxArray, b ?? zerosLike(u as MxArray)], params);
  },
  vmap: ({ spread, params: { axis, mode }, apply }) => apply([spread(0), spread(1), spread(2)], { axis: axis + 1, mode }),
  infer: ([a]) => [a as Aval],
  reference([a, indices, updates], avals, { axis, mode }) {
    const { shape } = avals[0] as Aval;
    const result = (a as Float64Array).slice();
    forEachIndex((avals[1] as Aval).shape, (index, n) => {
      const to = [...index];
      to[axis] = wrapped((indices as Float64Array)[n] as number, shape[axis] as number);
      const at = flatIndex(shape, to);
      meet(mode, result, at, updates as Float64Array, n, widthOf(avals[0] as Aval));
    });
    return [result];
  },
  kernels: [
    {
      name: "wasm/scatter/putAlongAxis",
      layout: ["row", "any"],
      base: 0,
      launch(inputs, [out], { axis, mode }) {
        const [, indices, updates] = inputs as [View, View, View];
        const to = out as View;
        const parallel = noDims(1);
        const serial = noDims(1);
        for (let d = 0; d < to.shape.length; d++) {
          const dims = d === axis ? serial : parallel;
          dims.shape.push(indices.shape[d] as number);
          dims.dst.push(d === axis ? 0 : (to.strides[d] as number) * to.dtype.size);
          dims.updates.push((updates.strides[d] as number) * to.dtype.size);
          dims.indices[0]?.push((indices.strides[d] as number) * indices.dtype.size);
        }
        const steps = scatterSteps(to, mode, parallel, serial, indexArrays(inputs, 1, [axis], to));
        return { steps: steps.map((step) => ({ ...step, args: [output(0), input(2), ...step.args.slice(2)] })) };
      },
    },
  ],
  gpu: gpuPutAlongAxis,
});

/** `x` with values put at (or combined with) places along one axis; indices and values have x's shape except along that axis. */
export function scatterAlong(x: MxArray, indices: MxArray, values: MxArray, axis: number, mode: ScatterMode, s?: S): MxArray {
  requireElements("putAlongAxis", x.desc.shape, [axis], indices);
  return scatterAlongOp([x, indices, values], { axis, mode }, s)[0] as MxArray;
}

// boolean masks

/** Row of the values that goes to each place of the first dimensions (flattened, along the last axis of `mask`) if the mask is true there. */
const rowsTaken = (mask: MxArray, rows: number): MxArray => minimum(cumsum(astype(mask, int32), mask.ndim - 1, false, false), toArray(rows - 1, int32));
/** x with its first `depth` dimensions as one, and the rest as another. */
const asRows = (x: MxArray, depth: number, lead: Shape = []): MxArray => {
  const from = lead.length;
  const { shape } = x.desc;
  return reshapeTo(x, [...lead, sizeOf(shape.slice(from, from + depth)), sizeOf(shape.slice(from + depth))]);
};
const maskedScatterOp = defineOp<{ depth: number }>({
  name: "maskedScatter",
  vjp: ({ inputs: [x, m, v], cotangents: [g], params: { depth } }) => {
    const [a, values] = [x as MxArray, v as MxArray];
    const mask = reshapeTo(m as MxArray, [(m as MxArray).size, 1]);
    const [flow, rows] = [asRows(g as MxArray, depth), sizeOf(a.desc.shape.slice(depth))];
    const count = values.size / Math.max(1, rows);
    const taken = rowsTaken(reshapeTo(mask, [mask.size]), count);
    const blank = zeros([count, rows], flow.dtype);
    const own = scatter("maskedScatter", blank, where(mask, flow, 0), [taken], [0], 0, wholeOf(blank.desc.shape), "add");
    return [reshapeTo(where(mask, 0, flow), a.desc.shape), undefined, reshapeTo(own, values.desc.shape)];
  },
  jvp: ({ inputs: [x, m, v], tangents: [a, , b], params, apply }) => apply([a ?? zerosLike(x as MxArray), m as MxArray, b ?? zerosLike(v as MxArray)], params),
  // Every element of the batch starts with its first row of values again.
  vmap: ({ spread, size, params: { depth } }) => {
    const [x, m, v] = [spread(0), spread(1), spread(2)];
    const a = asRows(x, depth, [size]);
    const mask = reshapeTo(m, [size, m.size / size]);
    const run = a.desc.shape[2] as number;
    const values = reshapeTo(v, [size, v.size / Math.max(1, size * run), run]);
    const taken = broadcastTo(expandDims(rowsTaken(mask, values.desc.shape[1] as number), 2), a.desc.shape);
    return [reshapeTo(where(expandDims(mask, 2), gatherAlong(values, taken, 1), a), x.desc.shape)];
  },
  infer: ([a]) => [a as Aval],
  reference([a, mask, values], avals, { depth }) {
    const result = (a as Float64Array).slice();
    const run = sizeOf((avals[0] as Aval).shape.slice(depth)) * widthOf(avals[0] as Aval);
    const rows = (values as Float64Array).length / run;
    let next = 0;
    (mask as Float64Array).forEach((set, i) => {
      if (set === 0) return;
      result.set((values as Float64Array).subarray(next * run, (next + 1) * run), i * run);
      if (next < rows - 1) next++;
    });
    return [result];
  },
  kernels: [
    {
      name: "wasm/scatter/masked",
      layout: ["row"],
      base: 0,
      launch([a, mask, values], [out], { depth }) {
        const run = sizeOf((a as View).shape.slice(depth));
        if ((out as View).size === 0) return { steps: [] };
        const args = [output(0), input(1), input(2), (mask as View).size, run * (out as View).dtype.size, (values as View).size / run];
        return { steps: [{ entry: "scatter/masked", args, units: 1, grain: 1 }] };
      },
    },
  ],
  gpu: gpuMaskedScatter,
});

/**
 * `x` with consecutive rows of `values` put where `mask`, whose shape is that of x's first dimensions, is true; when the rows run out the last one stays in use.
 */
export function maskedScatter(x: MxArray, mask: MxArray, values: MxArray, s?: S): MxArray {
  return maskedScatterOp([x, mask, values], { depth: mask.ndim }, s)[0] as MxArray;
}
