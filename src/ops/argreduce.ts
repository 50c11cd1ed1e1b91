/** argmax and argmin. */
import type { Aval, MxArray, View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Value } from "../core/expr.ts";
import { type Apply, type Launch, defineOp, input, output, scratch } from "../core/op.ts";
import { formatShape, normalizeAxis, reducedShape, sizeOf } from "../core/shape.ts";
import { gpuArgReduce } from "./argreduce-gpu.ts";
import { type ArrayLike, type AxisArgument, reductionArgs, toArray } from "./convert.ts";
import { reshapeTo } from "./reshape.ts";
import { grainFor, lastAxes, linesOf, storedNames } from "./sections.ts";

type S = StreamOrDevice;
export interface ArgReduceParams {
  /** null: the flattened array. */
  readonly axis: number | null;
  readonly keepdims: boolean;
}
const rowChunk = 16384;
const columnWidth = 256;

function launchArgReduce(op: string, x: View, out: View, axis: number | null): Launch {
  if (out.size === 0) return { steps: [] };
  const { outer, n, inner } = linesOf(x, axis) as NonNullable<ReturnType<typeof linesOf>>;
  const entry = `reduce/${op}_${storedNames[x.dtype.name]}`;
  if (inner > 1) {
    const width = Math.min(inner, columnWidth);
    const blocks = Math.ceil(inner / width);
    return { steps: [{ entry: `${entry}_col`, args: [input(0), output(0), n, inner, width, blocks], units: outer * blocks, grain: grainFor(n * width * x.dtype.size) }] };
  }
  const chunk = Math.min(n, rowChunk);
  const chunks = Math.ceil(n / chunk);
  const target = chunks > 1 ? scratch(0) : output(0);
  const row = { entry: `${entry}_row`, args: [input(0), target, n, chunk, chunks], units: outer * chunks, grain: grainFor(chunk * x.dtype.size) };
  if (chunks === 1) return { steps: [row] };
  return { steps: [row, { entry: `${entry}_combine`, args: [input(0), target, output(0), n, chunks], units: outer, grain: 64 }], scratch: [outer * chunks * 4] };
}

/** First index of the extreme value of each line; a NaN wins only at index 0, because nothing compares greater (less) than it. */
function referenceArgReduce(x: Float64Array, { shape }: Aval, axis: number | null, better: (a: number, b: number) => boolean): Float64Array {
  const n = axis === null ? x.length : (shape[axis] as number);
  const inner = axis === null ? 1 : sizeOf(shape.slice(axis + 1));
  const out = new Float64Array(n === 0 ? 0 : x.length / n);
  for (let u = 0; u < out.length; u++) {
    const base = Math.floor(u / inner) * n * inner + (u % inner);
    let best = 0;
    for (let i = 1; i < n; i++) if (better(x[base + i * inner] as number, x[base + best * inner] as number)) best = i;
    out[u] = best;
  }
  return out;
}

const argReduction = (name: "argmax" | "argmin", better: (a: number, b: number) => boolean): Apply<ArgReduceParams> =>
  defineOp<ArgReduceParams>({
    name,
    vjp: "zero",
    jvp: "zero",
    vmap: ({ inputs: [x], size, params: { axis, keepdims }, apply }) => {
      if (axis !== null) return apply([x as MxArray], { axis: axis + 1, keepdims });
      const out = apply([reshapeTo(x as MxArray, [size, (x as MxArray).size / Math.max(1, size)])], { axis: 1, keepdims: false })[0] as MxArray;
      return [keepdims ? reshapeTo(out, [size, ...new Array<number>((x as MxArray).ndim - 1).fill(1)]) : out];
    },
    infer([x], { axis, keepdims }) {
      const { shape, dtype } = x as Aval;
      if (dtype.kind === "complex") throw opError(name, `complex arrays are not supported, got ${dtype}`);
      if (sizeOf(shape) === 0) throw opError(name, `can not reduce an array of size 0, got shape ${formatShape(shape)}`);
      const axes = axis === null ? shape.map((_, i) => i) : [axis];
      return [{ shape: reducedShape(shape, axes, keepdims), dtype: uint32 }];
    },
    reference: ([x], [aval], { axis }) => [referenceArgReduce(x as Float64Array, aval as Aval, axis, better)],
    rows: {
      span: ({ shape, dtype }, { axis }) => (dtype.size === 8 ? undefined : lastAxes({ shape, dtype }, axis === null ? shape.map((_, i) => i) : [axis])),
      perRow: true,
      formula: (r, [x], _params, out) => r.reduce(name, (x as Value).type === "bool" ? r.e.convert(x as Value, "i32") : (x as Value), out.dtype),
    },
    kernels: [
      {
        name: `wasm/reduce/${name}`,
        layout: ([x], { axis }) => (linesOf(x as View, axis) ? ["any"] : ["row"]),
        launch: ([x], [out], { axis }) => launchArgReduce(name, x as View, out as View, axis),
      },
    ],
    gpu: gpuArgReduce(name),
  });
const argmaxOp = argReduction("argmax", (a, b) => a > b);
const argminOp = argReduction("argmin", (a, b) => a < b);

type ArgReduce = (a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | S | null, s?: S | null) => MxArray;
const argReducer = (name: string, apply: Apply<ArgReduceParams>): ArgReduce => (a, axis, keepdims, s) => {
  const x = toArray(a);
  const args = reductionArgs(axis, keepdims, s);
  if (typeof args.axis === "object" && args.axis !== null) throw opError(name, `axis must be one integer, got [${args.axis.join(", ")}]`);
  return apply([x], { axis: args.axis === undefined || args.axis === null ? null : normalizeAxis(name, args.axis, x.ndim), keepdims: args.keepdims }, args.stream)[0] as MxArray;
};

/** Index (uint32) of the largest element along an axis, or of the flattened array when none is given; the first one of equals. NaN is passed over except at index 0. */
export const argmax: ArgReduce = argReducer("argmax", argmaxOp);
/** Index (uint32) of the smallest element along an axis, or of the flattened array when none is given; the first one of equals. NaN is passed over except at index 0. */
export const argmin: ArgReduce = argReducer("argmin", argminOp);
