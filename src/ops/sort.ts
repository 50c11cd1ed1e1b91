/** sort, argsort and what is made of them. The kernels sort the last axis; other axes are moved there. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Launch, defineOp, input, output, scratch } from "../core/op.ts";
import { formatShape, normalizeAxis } from "../core/shape.ts";
import { noteSizes, sizesCount } from "../core/sizes.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { zerosLike } from "./creation.ts";
import { gatherAlong, scatterAlong } from "./gather.ts";
import { imag, real } from "./complex.ts";
import { moveaxis, reshape } from "./movement.ts";
import { sliceAxis } from "./region.ts";
import { gpuArgsort, gpuSort } from "./sort-gpu.ts";
import { within } from "./scope.ts";
import { isnan } from "./unary.ts";

type S = StreamOrDevice;
/** Scratch that every thread has (assembly/README.md). */
const threadScratch = 4 << 20;
const infinities: Readonly<Record<string, readonly [low: number, high: number]>> = { float16: [0x7c00, 0], bfloat16: [0x7f80, 0], float32: [0x7f800000, 0], float64: [0, 0x7ff00000] };

function launchSort(name: "sort" | "argsort", x: View): Launch {
  if (x.size === 0) return { steps: [] };
  const n = x.shape[x.shape.length - 1] as number;
  const rows = x.size / n;
  const { size, kind } = x.dtype;
  const entryBytes = name === "sort" ? size : size === 8 ? 16 : 8;
  const areaBytes = 2 * (Math.ceil((n * entryBytes) / 16) * 16);
  const own = areaBytes + 1024 * size <= threadScratch;
  const mode = kind === "float" ? 2 : kind === "signed" ? 1 : 0;
  const [low, high] = infinities[x.dtype.name] ?? [0, 0];
  const args = [input(0), output(0), n, mode, low, high, own ? 0 : scratch(0), areaBytes];
  return { steps: [{ entry: `sort/${name}_${8 * size}`, args, units: rows, grain: Math.max(1, Math.round(2048 / n)) }], scratch: own ? [] : [rows * areaBytes] };
}

/** Positions of a line in ascending order of its values, NaN last, equal values in their order. */
function orderOf(line: Float64Array): number[] {
  const key = (i: number): number => line[i] as number;
  return Array.from(line, (_, i) => i).sort((i, j) => Number(Number.isNaN(key(i))) - Number(Number.isNaN(key(j))) || (key(i) < key(j) ? -1 : key(i) > key(j) ? 1 : 0) || i - j);
}
function referenceSort(x: Float64Array, { shape }: Aval, pick: (line: Float64Array, i: number) => number): Float64Array {
  const n = shape[shape.length - 1] as number;
  const out = new Float64Array(x.length);
  for (let r = 0; n > 0 && r < x.length / n; r++) {
    const line = x.subarray(r * n, (r + 1) * n);
    orderOf(line).forEach((from, i) => {
      out[r * n + i] = pick(line, from);
    });
  }
  return out;
}
const sortOp = defineOp({
  name: "sort",
  vjp: ({ inputs: [x], cotangents: [g] }) => {
    const last = (x as MxArray).ndim - 1;
    return [scatterAlong(zerosLike(x as MxArray), argsort(x as MxArray, last), g as MxArray, last, "assign")];
  },
  jvp: ({ inputs: [x], tangents: [t] }) => [t && gatherAlong(t, argsort(x as MxArray, -1), t.ndim - 1)],
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer([x]) {
    return [x as Aval];
  },
  reference: ([x], [aval]) => [referenceSort(x as Float64Array, aval as Aval, (line, i) => line[i] as number)],
  kernels: [{ name: "wasm/sort/sort", inPlace: [0], launch: ([x]) => launchSort("sort", x as View) }],
  gpu: gpuSort,
});
const argsortOp = defineOp({
  name: "argsort",
  vjp: "zero",
  jvp: "zero",
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer([x]) {
    return [{ shape: (x as Aval).shape, dtype: uint32 }];
  },
  reference: ([x], [aval]) => [referenceSort(x as Float64Array, aval as Aval, (_line, i) => i)],
  kernels: [{ name: "wasm/sort/argsort", launch: ([x]) => launchSort("argsort", x as View) }],
  gpu: gpuArgsort,
});

type Axis = number | null | S;
/** The array (flattened for `null`) and the axis to sort: the last one when none is given. */
function along(op: string, a: ArrayLike, axis: Axis | undefined, s: S | null | undefined): { x: MxArray; axis: number; stream: S | undefined } {
  const stream = [axis, s].find(isStreamOrDevice);
  const array = toArray(a);
  if (axis === null) return { x: reshape(array, [array.size], stream), axis: 0, stream };
  return { x: array, axis: normalizeAxis(op, typeof axis === "number" ? axis : -1, array.ndim), stream };
}
/** Indices that sort complex numbers along an axis: by their real parts, then by their imaginary ones, and what has a NaN last. Each key keeps the order of the one before. */
function complexOrder({ x, axis, stream }: ReturnType<typeof along>): MxArray {
  let order = argsort(imag(x, stream), axis, stream);
  for (const key of [real(x, stream), isnan(x, stream)]) order = gatherAlong(order, argsort(gatherAlong(key, order, axis, stream), axis, stream), axis, stream);
  return order;
}
function sorted(apply: typeof sortOp, target: ReturnType<typeof along>): MxArray {
  const { x, axis, stream } = target;
  if (x.dtype.kind === "complex" && x.size > 0) {
    const order = complexOrder(target);
    return apply === argsortOp ? order : gatherAlong(x, order, axis, stream);
  }
  const last = x.ndim - 1;
  if (axis === last) return apply([x], {}, stream)[0] as MxArray;
  return moveaxis(apply([moveaxis(x, axis, last, stream)], {}, stream)[0] as MxArray, last, axis, stream);
}

/** Sorted copy in ascending order along an axis (default the last; `null`: of the flattened array). NaN goes to the end; complex numbers are ordered by real, then imaginary parts. */
export const sort = (a: ArrayLike, axis?: Axis, s?: S | null): MxArray => within(() => sorted(sortOp, along("sort", a, axis, s)));
/** Indices (uint32) that sort along an axis (default the last; `null`: of the flattened array). Equal values keep their order; NaN goes to the end. */
export const argsort = (a: ArrayLike, axis?: Axis, s?: S | null): MxArray => within(() => sorted(argsortOp, along("argsort", a, axis, s)));

function requireKth(op: string, kth: number, { x, axis }: ReturnType<typeof along>): void {
  const n = x.desc.shape[axis] as number;
  if (!Number.isInteger(kth) || kth < -n || kth >= n) throw opError(op, `kth must be an index of axis ${axis}, got ${kth} for shape ${formatShape(x.shape)}`);
}
/** Copy in which the element at `kth` along an axis is where sorting puts it, none before it is greater and none behind it is less. It is sorted altogether. */
export function partition(a: ArrayLike, kth: number, axis?: Axis, s?: S | null): MxArray {
  return within(() => {
    const target = along("partition", a, axis, s);
    requireKth("partition", kth, target);
    return sorted(sortOp, target);
  });
}
/** Indices (uint32) that partition along an axis, as `partition` does. They sort it altogether. */
export function argpartition(a: ArrayLike, kth: number, axis?: Axis, s?: S | null): MxArray {
  return within(() => {
    const target = along("argpartition", a, axis, s);
    requireKth("argpartition", kth, target);
    return sorted(argsortOp, target);
  });
}
/** The k largest elements along an axis (default the last; `null`: of the flattened array), in ascending order. */
export function topk(a: ArrayLike, k: number, axis?: Axis, s?: S | null): MxArray {
  return within(() => {
    const target = along("topk", a, axis, s);
    noteSizes(sizesCount);
    const n = target.x.desc.shape[target.axis] as number;
    if (!Number.isInteger(k) || k < 0 || k > n) throw opError("topk", `k must be between 0 and the size of axis ${target.axis}, got ${k} for shape ${formatShape(target.x.shape)}`);
    if (k === n) return new MxArray(target.x.desc);
    return sliceAxis(sorted(sortOp, target), target.axis, n - k, n, target.stream);
  });
}
