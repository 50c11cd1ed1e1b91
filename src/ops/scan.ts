/** Running reductions along one axis: cumsum, cumprod, cummax, cummin, logcumsumexp. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { Dtype, bool, int32, toInexact } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Apply, type Launch, type Op, defineOp, input, output } from "../core/op.ts";
import type { Reverse } from "../core/rules.ts";
import { normalizeAxis, sizeOf } from "../core/shape.ts";
import type { Binary } from "./elementwise.ts";
import { add, divide, logaddexp, maximum, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, toArray } from "./convert.ts";
import { equal, logicalAnd } from "./compare.ts";
import { concatenate } from "./concat.ts";
import { arange, full, zerosLike } from "./creation.ts";
import { scatterAlong } from "./gather.ts";
import { reshape } from "./movement.ts";
import { sliceAxis, sliceRegion } from "./region.ts";
import { reshapeTo } from "./reshape.ts";
import { within } from "./scope.ts";
import { gpuScan } from "./scan-gpu.ts";
import { where } from "./select.ts";
import { exp, log, negative } from "./unary.ts";
import { grainFor, storedNames } from "./sections.ts";

type S = StreamOrDevice;
export interface ScanParams {
  readonly axis: number;
  readonly reverse: boolean;
  readonly inclusive: boolean;
}
const columnWidth = 256;
/** Signed and unsigned wrap alike in sums and products. */
const wrapping: Readonly<Record<string, string>> = { i8: "u8", i16: "u16", i32: "u32", i64: "u64" };

function launchScan(name: string, x: View, out: View, { axis, reverse, inclusive }: ScanParams): Launch {
  if (out.size === 0) return { steps: [] };
  const wraps = name === "cumsum" || name === "cumprod";
  const nameOf = (d: Dtype): string => {
    if (name === "cummin" && d === bool) return "bool";
    const id = d.kind === "complex" ? "f32" : (storedNames[d.name] as string);
    return wraps ? (wrapping[id] ?? id) : id;
  };
  const from = nameOf(x.dtype);
  const to = x.dtype === bool && out.dtype === int32 ? "i32" : nameOf(out.dtype);
  const n = x.shape[axis] as number;
  // A complex number is two independent sums.
  const inner = sizeOf(x.shape.slice(axis + 1)) * (x.dtype.kind === "complex" ? 2 : 1);
  const width = Math.min(inner, columnWidth);
  const blocks = Math.ceil(inner / width);
  const args = [input(0), output(0), n, inner, width, blocks, Number(reverse), Number(inclusive)];
  // Some 8 times slower per byte than a reduction.
  return { steps: [{ entry: `scan/${name}_${from}_${to}`, args, units: sizeOf(x.shape.slice(0, axis)) * blocks, grain: grainFor(8 * n * width * x.dtype.size) }] };
}

function referenceScan(x: Float64Array, { shape, dtype }: Aval, { axis, reverse, inclusive }: ScanParams, start: number, f: (acc: number, x: number) => number): Float64Array {
  const n = shape[axis] as number;
  const inner = sizeOf(shape.slice(axis + 1)) * (dtype.kind === "complex" ? 2 : 1);
  const out = new Float64Array(x.length);
  for (let line = 0; line < x.length / Math.max(1, n); line++) {
    const base = Math.floor(line / inner) * n * inner + (line % inner);
    let acc = start;
    for (let i = 0; i < n; i++) {
      const at = base + (reverse ? n - 1 - i : i) * inner;
      const next = f(acc, x[at] as number);
      out[at] = inclusive ? next : acc;
      acc = next;
    }
  }
  return out;
}

interface Definition {
  readonly name: string;
  readonly f: (acc: number, x: number) => number;
  /** What an exclusive scan starts with. */
  readonly start: (d: Dtype) => number;
  readonly dtype?: (d: Dtype) => Dtype;
  readonly complex?: boolean;
  readonly vjp: Op<ScanParams>["vjp"];
  readonly jvp: Op<ScanParams>["jvp"];
}
const scan = ({ name, f, start, dtype = (d) => d, complex = false, vjp, jvp }: Definition): Apply<ScanParams> =>
  defineOp<ScanParams>({
    name,
    vjp,
    jvp,
    vmap: ({ inputs, params, apply }) => apply(inputs, { ...params, axis: params.axis + 1 }),
    infer([x]) {
      const { shape, dtype: d } = x as Aval;
      if (d.kind === "complex" && !complex) throw opError(name, `complex arrays are not supported, got ${d}`);
      return [{ shape, dtype: dtype(d) }];
    },
    reference: ([x], [aval], params) => [referenceScan(x as Float64Array, aval as Aval, params, start((aval as Aval).dtype), f)],
    kernels: [{ name: `wasm/scan/${name}`, inPlace: [0], launch: ([x], [out], params) => launchScan(name, x as View, out as View, params) }],
    gpu: gpuScan(name),
  });

/** Smallest and largest value of a type. */
function rangeOf(d: Dtype): readonly [number, number] {
  if (d.isInexact) return [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  if (d === bool) return [0, 1];
  const bits = 8 * d.size;
  return d.kind === "signed" ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
}
function logAddExp(x: number, y: number): number {
  const high = Math.max(x, y);
  const low = Math.min(x, y);
  return low === Number.NEGATIVE_INFINITY || high === Number.POSITIVE_INFINITY ? high : high + Math.log1p(Math.exp(low - high));
}
const reversed = (p: ScanParams): ScanParams => ({ ...p, reverse: !p.reverse });
/** exp(outer) times the running sum of v exp(inner). */
function weightedSums(v: MxArray, inner: MxArray, outer: MxArray, running: (x: MxArray) => MxArray): MxArray {
  const part = (w: MxArray): MxArray => exp(add(outer, running(add(log(maximum(w, 0)), inner))));
  return subtract(part(v), part(negative(v)));
}
const cumsumOp = scan({ name: "cumsum", f: (a, x) => a + x, start: () => 0, dtype: (d) => (d === bool ? int32 : d), complex: true, vjp: ({ cotangents, params, apply }) => apply(cotangents, reversed(params)), jvp: "linear" });
const cumprodOp = scan({
  name: "cumprod",
  f: (a, x) => a * x,
  start: () => 1,
  // g y / x summed from the other end; the first zero of a line is left out of the product instead, and what is behind it has no influence.
  vjp: ({ inputs: [a], outputs: [y], cotangents: [g], params, apply }) => {
    const x = a as MxArray;
    const back = (v: MxArray): MxArray => cumsumOp([multiply(g as MxArray, v)], reversed(params))[0] as MxArray;
    const zero = equal(x, 0);
    const first = logicalAnd(zero, equal(cumsumOp([zero], { ...params, inclusive: true })[0] as MxArray, 1));
    const without = apply([where(first, 1, x)], params)[0] as MxArray;
    return [where(first, back(without), where(zero, 0, divide(back(y as MxArray), where(zero, 1, x))))];
  },
  jvp: "vjp",
});
/** The gradient of a running extreme goes to the element that holds it: of equal ones to the last in the order of the scan, as in MLX. */
function extremeGradient({ inputs: [a], cotangents: [g], params: p, apply }: Reverse<ScanParams>): MxArray[] {
  const x = a as MxArray;
  const { axis, reverse, inclusive } = p;
  const n = x.desc.shape[axis] as number;
  const whole = { ...p, inclusive: true };
  const holds = equal(x, apply([x], whole)[0] as MxArray);
  const places = reshapeTo(arange(n, int32), x.desc.shape.map((_, i) => (i === axis ? n : 1)));
  const holders = where(holds, places, toArray(reverse ? n : -1, int32));
  let owner = (reverse ? cumminOp : cummaxOp)([holders], whole)[0] as MxArray;
  let flow = g as MxArray;
  if (!inclusive) {
    // Results lie one place further on; the first one holds no element.
    owner = sliceAxis(owner, axis, reverse ? 1 : 0, reverse ? n : n - 1);
    flow = sliceAxis(flow, axis, reverse ? 0 : 1, reverse ? n - 1 : n);
  }
  return [owner.size === 0 ? zerosLike(x) : scatterAlong(zerosLike(x), owner, flow, axis, "add")];
}
const cummaxOp: Apply<ScanParams> = scan({ name: "cummax", f: Math.max, start: (d) => rangeOf(d)[0], vjp: extremeGradient, jvp: "vjp" });
const cumminOp: Apply<ScanParams> = scan({ name: "cummin", f: Math.min, start: (d) => rangeOf(d)[1], vjp: extremeGradient, jvp: "vjp" });
const logcumsumexpOp = scan({
  name: "logcumsumexp",
  f: logAddExp,
  start: () => Number.NEGATIVE_INFINITY,
  // Sums of v exp(a) in log space, the positive and the negative part of v apart.
  vjp: ({ inputs: [x], outputs: [y], cotangents: [g], params, apply }) => [weightedSums(g as MxArray, negative(y as MxArray), x as MxArray, (v) => apply([v], reversed(params))[0] as MxArray)],
  jvp: ({ inputs: [x], outputs: [y], tangents: [t], params, apply }) => [t && weightedSums(t, x as MxArray, negative(y as MxArray), (v) => apply([v], params)[0] as MxArray)],
});

/** What scans of complex numbers repeat, and what an exclusive one starts with. */
const complexSteps: Readonly<Record<string, { readonly combine: Binary; readonly start: number }>> = {
  // Called late: modules import each other.
  cumprod: { combine: (a, b, s) => multiply(a, b, s), start: 1 },
  logcumsumexp: { combine: (a, b, s) => logaddexp(a, b, s), start: Number.NEGATIVE_INFINITY },
};
/** A scan by doubling (Hillis and Steele, 1986): after step k every element holds the last 2^k. log2(n) elementwise steps. */
function scanComplex(x: MxArray, { axis, reverse, inclusive }: ScanParams, { combine, start }: { combine: Binary; start: number }, s: S | undefined): MxArray {
  const { shape } = x.desc;
  const n = shape[axis] as number;
  const backwards = { start: shape.map((d, i) => (i === axis ? Math.max(0, d - 1) : 0)), step: shape.map((_, i) => (i === axis ? -1 : 1)), shape };
  const turned = (a: MxArray): MxArray => (reverse ? sliceRegion(a, backwards, s) : a);
  let y = turned(x);
  if (!inclusive && n > 0) {
    const first = full(shape.map((d, i) => (i === axis ? 1 : d)), start, x.dtype, s);
    y = concatenate([first, sliceAxis(y, axis, 0, n - 1, s)], axis, s);
  }
  for (let step = 1; step < n; step *= 2) {
    y = concatenate([sliceAxis(y, axis, 0, step, s), combine(sliceAxis(y, axis, 0, n - step, s), sliceAxis(y, axis, step, n, s), s)], axis, s);
  }
  return turned(y === x ? new MxArray(x.desc) : y);
}

type Scan = (a: ArrayLike, axis?: number | boolean | S | null, reverse?: boolean | S | null, inclusive?: boolean | S | null, s?: S | null) => MxArray;
/** Axis (an integer), then reverse and inclusive (booleans in this order), a dtype and a stream, each recognised by its type. */
function scanned(name: string, apply: Apply<ScanParams>, a: ArrayLike, rest: readonly unknown[], convert?: (d: Dtype) => Dtype): MxArray {
  const stream = rest.find(isStreamOrDevice);
  const dtype = rest.find((v) => v instanceof Dtype);
  const axis = rest.find((v) => typeof v === "number");
  const plain = rest.filter((v) => !isStreamOrDevice(v) && !(v instanceof Dtype));
  const [reverse, inclusive] = typeof plain[0] === "boolean" ? plain : plain.slice(1);
  return within(() => {
    let x = toArray(a);
    if (dtype) x = astype(x, dtype, stream);
    if (convert) x = astype(x, convert(x.dtype), stream);
    if (axis === undefined) x = reshape(x, [x.size], stream);
    const combine = x.dtype.kind === "complex" ? complexSteps[name] : undefined;
    if (combine) return scanComplex(x, { axis: normalizeAxis(name, axis ?? 0, x.ndim), reverse: reverse === true, inclusive: inclusive !== false }, combine, stream);
    return apply([x], { axis: normalizeAxis(name, axis ?? 0, x.ndim), reverse: reverse === true, inclusive: inclusive !== false }, stream)[0] as MxArray;
  });
}

/**
 * Running sum along an axis (of the flattened array when none is given). `reverse` starts at the end, `inclusive = false` leaves each element itself out.
 * The dtype stays (bool gives int32) unless one is given; integers wrap; floats are added in float64 and rounded once per element.
 */
export const cumsum = (a: ArrayLike, axis?: number | boolean | S | null, reverse?: boolean | S | null, inclusive?: boolean | Dtype | S | null, dtype?: Dtype | S | null, s?: S | null): MxArray =>
  scanned("cumsum", cumsumOp, a, [axis, reverse, inclusive, dtype, s]);
/** Running product along an axis (of the flattened array when none is given); arguments as `cumsum`. The dtype stays. */
export const cumprod = (a: ArrayLike, axis?: number | boolean | S | null, reverse?: boolean | S | null, inclusive?: boolean | Dtype | S | null, dtype?: Dtype | S | null, s?: S | null): MxArray =>
  scanned("cumprod", cumprodOp, a, [axis, reverse, inclusive, dtype, s]);
/** Running maximum along an axis (of the flattened array when none is given). From a NaN on the result is NaN. */
export const cummax: Scan = (a, ...rest) => scanned("cummax", cummaxOp, a, rest);
/** Running minimum along an axis (of the flattened array when none is given). From a NaN on the result is NaN. */
export const cummin: Scan = (a, ...rest) => scanned("cummin", cumminOp, a, rest);
/** Running log(sum(exp(x))) along an axis (of the flattened array when none is given). Integers give float32. */
export const logcumsumexp: Scan = (a, ...rest) => scanned("logcumsumexp", logcumsumexpOp, a, rest, toInexact);
