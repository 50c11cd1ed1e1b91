/**
 * Discrete Fourier transforms, exported as `mx.fft`. Results are complex64 (float32 for the inverse real transforms); integers and other floats are converted to
 * float32 first. `norm` says where the factor 1/n is applied: "backward" (default) on the inverse, "forward" on the forward transform, "ortho" as 1/sqrt(n) on both.
 */
import { type Aval, MxArray, type View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { complex64, float32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { defineOp, input, output } from "../core/op.ts";
import { formatShape, normalizeAxis, sizeOf } from "../core/shape.ts";
import { multiply } from "./binary.ts";
import { real } from "./complex.ts";
import { concatenate, roll } from "./concat.ts";
import { type ArrayLike, fromNumbers, streamArg, toArray } from "./convert.ts";
import { arange } from "./creation.ts";
import { launchFft } from "./fft-launch.ts";
import { type Plan, planOf, planTables, primeFactors, realPlanOf } from "./fft-plan.ts";
import { moveaxis } from "./movement.ts";
import { pad } from "./pad.ts";
import { castTo, sliceAxis } from "./region.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice | null;
/** Where the factor 1/n is applied. */
export type FftNorm = "backward" | "ortho" | "forward";
/** Complex to complex, real to half of a Hermitian line, and back. */
type Kind = "complex" | "real" | "hermitian";

interface FftParams {
  readonly axis: number;
  /** Length of the transform. */
  readonly n: number;
  readonly kind: Kind;
  readonly inverse: boolean;
  readonly scale: number;
  readonly plan: Plan;
}
const halfLength = (n: number): number => Math.floor(n / 2) + 1;
const lengthIn = ({ n, kind }: FftParams): number => (kind === "hermitian" ? halfLength(n) : n);
const lengthOut = ({ n, kind }: FftParams): number => (kind === "real" ? halfLength(n) : n);

/** Four lines of either factor of a longer length would not fit a thread's scratch area. */
const longest = 2 ** 27;

/** Float64 transform by splitting off the smallest prime factor; primes by definition. */
function transform(x: Float64Array): Float64Array {
  const n = x.length / 2;
  const out = new Float64Array(2 * n);
  const p = primeFactors(n)[0] ?? 1;
  const m = n / p;
  const parts = Array.from({ length: p }, (_, r) => {
    const part = Float64Array.from({ length: 2 * m }, (_v, i) => x[2 * (Math.floor(i / 2) * p + r) + (i % 2)] as number);
    return p === n ? part : transform(part);
  });
  for (let k = 0; k < n; k++) {
    for (let r = 0; r < p; r++) {
      const angle = (-2 * Math.PI * ((r * k) % n)) / n;
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      const [re, im] = [parts[r]?.[2 * (k % m)] as number, parts[r]?.[2 * (k % m) + 1] as number];
      out[2 * k] = (out[2 * k] as number) + re * c - im * s;
      out[2 * k + 1] = (out[2 * k + 1] as number) + re * s + im * c;
    }
  }
  return out;
}
/** One line as n complex numbers. `at(i)` is the place of its stored element i. */
function lineOf(x: Float64Array, a: Aval, p: FftParams, at: (i: number) => number): Float64Array {
  const line = new Float64Array(2 * p.n);
  for (let i = 0; i < p.n; i++) {
    const mirrored = p.kind === "hermitian" && 2 * i > p.n;
    const e = at(mirrored ? p.n - i : i);
    line[2 * i] = (a.dtype === complex64 ? x[2 * e] : x[e]) as number;
    if (a.dtype !== complex64) continue;
    const fixed = p.kind === "hermitian" && (i === 0 || 2 * i === p.n);
    line[2 * i + 1] = fixed ? 0 : (mirrored ? -1 : 1) * (x[2 * e + 1] as number);
  }
  return line;
}
const exchanged = (x: Float64Array): Float64Array => x.map((_, i) => x[i ^ 1] as number);

function referenceFft(x: Float64Array, a: Aval, p: FftParams, out: Aval): Float64Array {
  const outer = sizeOf(a.shape.slice(0, p.axis));
  const inner = sizeOf(a.shape.slice(p.axis + 1));
  const width = out.dtype === complex64 ? 2 : 1;
  const [from, to] = [lengthIn(p), lengthOut(p)];
  const result = new Float64Array(width * sizeOf(out.shape));
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const line = lineOf(x, a, p, (k) => (o * from + k) * inner + i);
      const done = p.inverse ? exchanged(transform(exchanged(line))) : transform(line);
      for (let k = 0; k < to; k++) for (let w = 0; w < width; w++) result[((o * to + k) * inner + i) * width + w] = (done[2 * k + w] as number) * p.scale;
    }
  }
  return result;
}

/**
 * Adjoint of a transform, for cotangents g: the same exponentials with the other sign. Half a line stands for a whole one, in which each inner entry counts twice, so those
 * entries are halved before a sum over the half line, and doubled where the half line is the result.
 */
function adjoint(g: MxArray, { axis, n, kind, inverse, scale }: FftParams): MxArray {
  if (kind === "complex") return alongAxis(g, axis, n, kind, !inverse, scale, undefined);
  const half = halfLength(n);
  const inner = (by: number): MxArray => {
    const weights = Array.from({ length: half }, (_, k) => (k === 0 || 2 * k === n ? 1 : by));
    return fromNumbers(g.desc.shape.map((_, i) => (i === axis ? half : 1)), float32, weights);
  };
  return kind === "real" ? alongAxis(multiply(g, inner(0.5)), axis, n, "hermitian", !inverse, scale, undefined) : multiply(alongAxis(g, axis, n, "real", !inverse, scale, undefined), inner(2));
}

/** Inputs: the data (float32 for the kind real, else complex64), the tables of the plan. */
const fftOp = defineOp<FftParams>({
  name: "fft",
  vjp: ({ cotangents: [g], params }) => [adjoint(g as MxArray, params)],
  jvp: ({ inputs: [, ...tables], tangents: [t], params, apply }) => (t ? apply([t, ...tables], params) : [undefined]),
  // The plan is for a number of lines, so it is made anew.
  vmap: ({ inputs: [x], params: p }) => [alongAxis(x as MxArray, p.axis + 1, p.n, p.kind, p.inverse, p.scale, undefined)],
  infer: ([a], p) => [{ shape: (a as Aval).shape.map((d, i) => (i === p.axis ? lengthOut(p) : d)), dtype: p.kind === "hermitian" ? float32 : complex64 }],
  reference: ([x], [a], p, [out]) => [referenceFft(x as Float64Array, a as Aval, p, out as Aval)],
  kernels: [
    {
      name: "wasm/fft/lines",
      launch([a, ..._tables], [out], p) {
        const [x, y] = [a as View, out as View];
        if (y.size === 0) return { steps: [] };
        const outer = sizeOf(x.shape.slice(0, p.axis));
        const inner = sizeOf(x.shape.slice(p.axis + 1));
        const from = { at: input(0), bytes: x.dtype.size, stored: lengthIn(p), limit: p.n, hermitian: p.kind === "hermitian", swap: p.inverse };
        const to = { at: output(0), bytes: y.dtype.size, stored: lengthOut(p), limit: lengthOut(p), swap: p.inverse };
        return launchFft(p.plan, outer, inner, from, to, p.scale);
      },
    },
  ],
});

/** One axis, whose stored length fits already. */
function alongAxis(x: MxArray, axis: number, n: number, kind: Kind, inverse: boolean, scale: number, s: S | undefined): MxArray {
  const { shape } = x.desc;
  const last = shape.length - 1;
  const lines = sizeOf(shape) / (shape[axis] as number);
  const plan = kind !== "complex" && axis === last ? realPlanOf(n, lines) : planOf(n, lines);
  // Only plans of one pass walk lines that lie side by side.
  const aside = plan.kind !== "direct" && axis !== last;
  const source = aside ? moveaxis(x, axis, last, s) : x;
  const result = fftOp([source, ...planTables(plan)], { axis: aside ? last : axis, n, kind, inverse, scale, plan }, s)[0] as MxArray;
  return aside ? moveaxis(result, last, axis, s) : result;
}

/** The array with one dimension cut or filled with zeros. */
function fitted(x: MxArray, axis: number, size: number, s: S | undefined): MxArray {
  const now = x.desc.shape[axis] as number;
  if (size < now) return sliceAxis(x, axis, 0, size, s);
  return size > now ? pad(x, x.shape.map((_, i): [number, number] => [0, i === axis ? size - now : 0]), 0, "constant", s) : x;
}

function scaleOf(op: string, norm: unknown, n: number, inverse: boolean): number {
  switch (norm ?? "backward") {
    case "backward": return inverse ? 1 / n : 1;
    case "forward": return inverse ? 1 : 1 / n;
    case "ortho": return 1 / Math.sqrt(n);
    default: throw opError(op, `norm must be "backward", "ortho" or "forward", got ${JSON.stringify(norm)}`);
  }
}

interface Request {
  readonly op: string;
  readonly kind: Kind;
  readonly inverse: boolean;
}
function compute(r: Request, array: ArrayLike, sizes: readonly number[] | undefined, given: readonly number[], norm: unknown, s: S | undefined): MxArray {
  const x = toArray(array);
  if (x.ndim < 1) throw opError(r.op, `array must have at least one dimension, got ${formatShape(x.desc.shape)}`);
  if (sizes && sizes.length !== given.length) throw opError(r.op, `there must be one size per axis, got sizes ${JSON.stringify(sizes)} and axes ${JSON.stringify(given)}`);
  const axes = given.map((a) => normalizeAxis(r.op, a, x.ndim));
  if (new Set(axes).size !== axes.length) throw opError(r.op, `axes must be different, got ${JSON.stringify(given)}`);
  const final = axes.length - 1;
  const lengths = axes.map((a, i) => sizes?.[i] ?? (r.kind === "hermitian" && i === final ? 2 * ((x.desc.shape[a] as number) - 1) : (x.desc.shape[a] as number)));
  for (const n of lengths) if (!Number.isInteger(n) || n <= 0) throw opError(r.op, `output sizes must be positive integers, got ${JSON.stringify(lengths)}`);
  for (const n of lengths) if (n > longest) throw opError(r.op, `lengths beyond ${longest} are not supported, got ${n}`);
  const scale = scaleOf(r.op, norm, lengths.reduce((a, b) => a * b, 1), r.inverse);
  if (axes.length === 0) return new MxArray(x.desc);
  return within(() => {
    let out = r.kind === "real" ? castTo(real(x, s), float32, s) : castTo(x, complex64, s);
    axes.forEach((a, i) => {
      out = fitted(out, a, r.kind === "hermitian" && i === final ? halfLength(lengths[i] as number) : (lengths[i] as number), s);
    });
    // The axis with the real side is first for a real input and last for a real output.
    const order = axes.map((_, i) => i);
    if (r.kind === "real") order.reverse();
    order.forEach((i, at) => {
      const kind = i === final ? r.kind : "complex";
      out = alongAxis(out, axes[i] as number, lengths[i] as number, kind, r.inverse, at === final ? scale : 1, s);
    });
    return out;
  });
}

const isGiven = <T>(v: T | null | undefined): v is T => v !== undefined && v !== null;
type OneAxis = (array: ArrayLike, n?: number | S, axis?: number | S, norm?: FftNorm | S, s?: S) => MxArray;
type ManyAxes = (array: ArrayLike, sizes?: readonly number[] | S, axes?: readonly number[] | S, norm?: FftNorm | S, s?: S) => MxArray;

function oneAxis(op: string, kind: Kind, inverse: boolean): OneAxis {
  return (array, ...rest) => {
    const { args, stream } = streamArg<unknown[]>(rest);
    const [n, axis, norm] = args as [number | undefined, number | undefined, unknown];
    return compute({ op, kind, inverse }, array, isGiven(n) ? [n] : undefined, [isGiven(axis) ? axis : -1], norm, stream);
  };
}
/** `axes` when none are given: the fixed ones (null: Python's None, not even these), else the last ones that sizes are given for, else all. */
function manyAxes(op: string, kind: Kind, inverse: boolean, fixed?: readonly number[]): ManyAxes {
  return (array, ...rest) => {
    const { args, stream } = streamArg<unknown[]>(rest);
    const [sizes, axes, norm] = args as [readonly number[] | undefined, readonly number[] | undefined, unknown];
    const x = toArray(array);
    const count = isGiven(sizes) ? sizes.length : x.ndim;
    const chosen = isGiven(axes) ? axes : ((axes === null ? undefined : fixed) ?? Array.from({ length: count }, (_, i) => i - count));
    return compute({ op, kind, inverse }, x, isGiven(sizes) ? sizes : undefined, chosen, norm, stream);
  };
}

/** Transform along one axis (default the last) of length n (default the axis's; cut or filled with zeros). `fft(a, n?, axis?, norm?, s?)`. */
export const fft = oneAxis("fft", "complex", false);
/** Inverse of `fft`. */
export const ifft = oneAxis("ifft", "complex", true);
/** Transform over two axes (default the last two) of the given sizes. `fft2(a, s?, axes?, norm?, stream?)`. */
export const fft2 = manyAxes("fft2", "complex", false, [-2, -1]);
/** Inverse of `fft2`. */
export const ifft2 = manyAxes("ifft2", "complex", true, [-2, -1]);
/** Transform over the given axes; default: the last ones that sizes are given for, or all. */
export const fftn = manyAxes("fftn", "complex", false);
/** Inverse of `fftn`. */
export const ifftn = manyAxes("ifftn", "complex", true);
/** Transform of real numbers along one axis: the first n / 2 + 1 results, the others being their conjugates. An imaginary part is dropped. */
export const rfft = oneAxis("rfft", "real", false);
/** Inverse of `rfft`: n real numbers (default 2 (m - 1) from m). */
export const irfft = oneAxis("irfft", "hermitian", true);
/** Transform of real numbers over two axes (default the last two); the last one of them is halved as in `rfft`. */
export const rfft2 = manyAxes("rfft2", "real", false, [-2, -1]);
/** Inverse of `rfft2`. */
export const irfft2 = manyAxes("irfft2", "hermitian", true, [-2, -1]);
/** Transform of real numbers over several axes; the last one of them is halved as in `rfft`. */
export const rfftn = manyAxes("rfftn", "real", false);
/** Inverse of `rfftn`. */
export const irfftn = manyAxes("irfftn", "hermitian", true);

function shifted(op: string, inverse: boolean): (array: ArrayLike, axes?: number | readonly number[] | S, s?: S) => MxArray {
  return (array, ...rest) => {
    const { args, stream } = streamArg<unknown[]>(rest);
    const x = toArray(array);
    const given = typeof args[0] === "number" ? [args[0]] : (args[0] as readonly number[] | undefined | null);
    const axes = (given ?? x.shape.map((_, i) => i)).map((a) => normalizeAxis(op, a, x.ndim));
    if (axes.length === 0) return new MxArray(x.desc);
    const shifts = axes.map((a) => Math.floor((x.desc.shape[a] as number) / 2) * (inverse ? -1 : 1));
    return roll(x, shifts, axes, stream);
  };
}
/** Moves frequency 0 to the middle of the axes (default all). */
export const fftshift = shifted("fftshift", false);
/** Inverse of `fftshift`. */
export const ifftshift = shifted("ifftshift", true);

function frequencies(op: string, n: number, d: unknown, s: S | undefined, values: (stream: S | undefined) => MxArray): MxArray {
  const step = isGiven(d) ? Number(d) : 1;
  if (!Number.isInteger(n) || n <= 0) throw opError(op, `n must be a positive integer, got ${n}`);
  if (!Number.isFinite(step) || step === 0) throw opError(op, `d must be a number other than 0, got ${d}`);
  return within(() => multiply(values(s), 1 / (n * step), s));
}
/** Frequencies of the results of `fft` of n samples that are `d` apart (default 1): 0, 1, ..., -2, -1 over n d. float32. */
export function fftfreq(n: number, d?: number | S, s?: S): MxArray {
  const { args, stream } = streamArg<unknown[]>([d, s]);
  return frequencies("fftfreq", n, args[0], stream, (t) => {
    const half = Math.floor(n / 2);
    return concatenate([arange(0, n - half, 1, float32, t), arange(-half, 0, 1, float32, t)], 0, t);
  });
}
/** Frequencies of the results of `rfft`: 0, 1, ..., n / 2 over n d. float32. */
export function rfftfreq(n: number, d?: number | S, s?: S): MxArray {
  const { args, stream } = streamArg<unknown[]>([d, s]);
  return frequencies("rfftfreq", n, args[0], stream, (t) => arange(0, halfLength(n), 1, float32, t));
}
