/** softmax and logsumexp. The kernels work on the last axis; other axes are moved there. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { float32, float64, toInexact } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Value } from "../core/expr.ts";
import { type Launch, type Step, defineOp, input, output, scratch } from "../core/op.ts";
import { formatShape, normalizeAxes, reducedShape, sizeOf } from "../core/shape.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, type AxisArgument, reductionArgs, toArray } from "./convert.ts";
import { multiply, subtract } from "./binary.ts";
import { expandDims, reshape, transpose } from "./movement.ts";
import { sum } from "./reduce.ts";
import { gpuLogsumexp, gpuSoftmax } from "./softmax-gpu.ts";
import { grainFor, storedNames } from "./sections.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice;
/** Rows longer than this are cut, so that one row can use all threads; the cut does not depend on their number. */
const rowChunk = 16384;
/** An exponential costs as much as this many bytes of a plain reduction. */
const workPerElement = 16;

/** Step that makes (maximum, sum of exponentials) of every chunk of every row in scratch buffer 0. */
function partialStep(id: string, rows: number, n: number): { step: Step; chunks: number; bytes: number } {
  const chunks = Math.ceil(n / rowChunk);
  const chunk = Math.min(n, rowChunk);
  return { step: { entry: `softmax/partial_${id}`, args: [input(0), scratch(0), n, chunk, chunks], units: rows * chunks, grain: grainFor(chunk * workPerElement) }, chunks, bytes: rows * chunks * 16 };
}
function launchSoftmax(x: View): Launch {
  if (x.size === 0) return { steps: [] };
  const n = x.shape[x.shape.length - 1] as number;
  const rows = x.size / n;
  const id = storedNames[x.dtype.name] as string;
  if (n <= rowChunk || id === "f64") return { steps: [{ entry: `softmax/softmax_${id}`, args: [input(0), output(0), n], units: rows, grain: grainFor(n * workPerElement) }] };
  const { step, chunks, bytes } = partialStep(id, rows, n);
  const scale: Step = { entry: `softmax/scale_${id}`, args: [input(0), output(0), scratch(0), n, rowChunk, chunks], units: rows * chunks, grain: 1 };
  return { steps: [step, scale], scratch: [bytes] };
}
function launchLogsumexp(x: View, out: View): Launch {
  if (out.size === 0) return { steps: [] };
  const n = x.shape[x.shape.length - 1] as number;
  const rows = x.size / n;
  const id = storedNames[x.dtype.name] as string;
  if (id === "f64") return { steps: [{ entry: "softmax/logsumexp_f64", args: [input(0), output(0), n], units: rows, grain: grainFor(n * workPerElement) }] };
  const { step, chunks, bytes } = partialStep(id, rows, n);
  return { steps: [step, { entry: `softmax/logsumexp_${id}`, args: [scratch(0), output(0), chunks], units: rows, grain: 256 }], scratch: [bytes] };
}

/** Maximum and sum of exponentials of a line; MLX's maximum passes NaN over, the sum keeps it. */
function lineOf(line: Float64Array): { m: number; total: number } {
  const m = line.reduce((a, v) => (Math.max(v , a)), Number.NEGATIVE_INFINITY);
  const from = m === Number.NEGATIVE_INFINITY ? 0 : m;
  return { m: from, total: line.reduce((s, v) => s + Math.exp(v - from), 0) };
}
const linesOf = (x: Float64Array, { shape }: Aval): Float64Array[] => {
  const n = shape[shape.length - 1] as number;
  return Array.from({ length: n === 0 ? 0 : x.length / n }, (_, r) => x.subarray(r * n, (r + 1) * n));
};

const softmaxOp = defineOp({
  name: "softmax",
  vjp: ({ outputs: [y], cotangents: [g] }) => [projected(y as MxArray, g as MxArray)],
  jvp: ({ outputs: [y], tangents: [t] }) => [t && projected(y as MxArray, t)],
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer: ([x]) => [x as Aval],
  reference: ([x], [aval]) => [
    Float64Array.from(
      linesOf(x as Float64Array, aval as Aval).flatMap((line) => {
        const { m, total } = lineOf(line);
        return Array.from(line, (v) => Math.exp(v - m) / total);
      }),
    ),
  ],
  rows: {
    span: () => 1,
    perRow: false,
    // A row without a finite element gives NaN, whatever it is measured from.
    formula(r, [x], _params, { dtype }) {
      const { e } = r;
      const wide = dtype === float64 ? float64 : float32;
      const powers = e.exp(e.sub(x as Value, r.reduce("max", x as Value, wide)));
      const total = r.reduce("sum", powers, wide);
      return e.mul(powers, e.div(e.like(total, 1), total));
    },
  },
  kernels: [{ name: "wasm/softmax/softmax", inPlace: [0], launch: ([x]) => launchSoftmax(x as View) }],
  gpu: gpuSoftmax,
});
/** y (v - sum(v y)): the Jacobian of softmax, which is symmetric, times v. */
function projected(y: MxArray, v: MxArray): MxArray {
  const weighted = multiply(v, y);
  return subtract(weighted, multiply(y, sum(weighted, -1, true)));
}
const logsumexpOp = defineOp({
  name: "logsumexp",
  vjp: ({ inputs: [x], cotangents: [g] }) => [multiply(softmax(x as MxArray, -1), expandDims(g as MxArray, -1))],
  jvp: ({ inputs: [x], tangents: [t] }) => [t && sum(multiply(softmax(x as MxArray, -1), t), -1)],
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer: ([x]) => [{ shape: (x as Aval).shape.slice(0, -1), dtype: (x as Aval).dtype }],
  reference: ([x], [aval]) => [
    Float64Array.from(linesOf(x as Float64Array, aval as Aval), (line) => {
      const { m, total } = lineOf(line);
      return m === Number.POSITIVE_INFINITY ? m : m + Math.log(total);
    }),
  ],
  rows: {
    span: () => 1,
    perRow: true,
    formula(r, [x], _params, { dtype }) {
      const { e } = r;
      const wide = dtype === float64 ? float64 : float32;
      const m = r.reduce("max", x as Value, wide);
      const infinite = (v: number): Value => e.eq(m, e.like(m, v));
      // A row without a finite element is measured from 0; sums of shorter spans have smaller errors, so that float32 does.
      const origin = e.select(infinite(Number.NEGATIVE_INFINITY), e.like(m, 0), m);
      const total = r.reduce("sum", e.exp(e.sub(x as Value, origin)), wide);
      return e.select(infinite(Number.POSITIVE_INFINITY), m, e.add(e.log(total), origin));
    },
  },
  kernels: [{ name: "wasm/softmax/logsumexp", launch: ([x], [out]) => launchLogsumexp(x as View, out as View) }],
  gpu: gpuLogsumexp,
});

/** The array with the given axes moved behind the others and flattened, and the order of axes that does it. */
function axesLast(x: MxArray, axes: readonly number[], s: S | undefined): { lines: MxArray; order: number[] } {
  const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const order = [...kept, ...axes];
  const moved = order.every((axis, i) => axis === i) ? x : transpose(x, order, s);
  const shape = [...kept.map((i) => x.desc.shape[i] as number), axes.reduce((n, i) => n * (x.desc.shape[i] as number), 1)];
  return { lines: axes.length === 1 ? moved : reshape(moved, shape, s), order };
}
function requireReal(op: string, x: MxArray): void {
  if (x.dtype.kind === "complex") throw opError(op, `complex arrays are not supported, got ${x.dtype}`);
}

/**
 * exp(x) / sum(exp(x)) over axes (all when none is given), without overflow. Integers give float32. 16-bit floats are always computed in float32 and
 * rounded once, so `precise` changes nothing.
 */
export function softmax(a: ArrayLike, axis?: AxisArgument | S, _precise?: boolean | S | null, s?: S | null): MxArray {
  return within(() => {
    const stream = [axis, _precise, s].find(isStreamOrDevice);
    const input = toArray(a);
    requireReal("softmax", input);
    const x = astype(input, toInexact(input.dtype), stream);
    const axes = normalizeAxes("softmax", isStreamOrDevice(axis) ? undefined : axis, x.ndim);
    if (x.size === 0) return new MxArray(x.desc);
    const { lines, order } = axesLast(x, axes, stream);
    const y = softmaxOp([lines], {}, stream)[0] as MxArray;
    const moved = axes.length === 1 ? y : reshape(y, order.map((i) => x.desc.shape[i] as number), stream);
    const back = order.map((_, i) => order.indexOf(i));
    return back.every((axis, i) => axis === i) ? moved : transpose(moved, back, stream);
  });
}

/** log(sum(exp(x))) over axes (all when none is given), without overflow. Integers give float32; 16-bit floats are computed in float32. Throws for an empty array. */
export function logsumexp(a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | S | null, s?: S | null): MxArray {
  return within(() => {
    const args = reductionArgs(axis, keepdims, s);
    const input = toArray(a);
    requireReal("logsumexp", input);
    if (input.size === 0) throw opError("logsumexp", `needs at least one element, got shape ${formatShape(input.shape)}`);
    const x = astype(input, toInexact(input.dtype), args.stream);
    const axes = normalizeAxes("logsumexp", args.axis, x.ndim);
    const { lines } = axesLast(x, axes, args.stream);
    const y = logsumexpOp([lines], {}, args.stream)[0] as MxArray;
    const shape = reducedShape(x.shape, axes, args.keepdims);
    return sizeOf(shape) === y.size && shape.length === y.ndim ? y : reshape(y, shape, args.stream);
  });
}
