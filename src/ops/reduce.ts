/** Reductions over any set of axes: sum, prod, max, min, all, any, mean, and variance and std made of them. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, type DtypeName, bool, float32, float64, int32, int64, toInexact, uint32, uint64 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Value, computeType } from "../core/expr.ts";
import { type Apply, type Kernel, type Launch, type Op, type Pointer, type RowForm, type Step, defineOp, input, output, scratch } from "../core/op.ts";
import { type Shape, normalizeAxes, reducedShape, sizeOf } from "../core/shape.ts";
import { noteSizes, sizesCount } from "../core/sizes.ts";
import type { Batching } from "../core/rules.ts";
import { divide, maximum, minimum, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { equal } from "./compare.ts";
import { conjugate, real } from "./complex.ts";
import { concatenate } from "./concat.ts";
import { type ArrayLike, type AxisArgument, reductionArgs, toArray } from "./convert.ts";
import { ones } from "./creation.ts";
import type { Binary } from "./elementwise.ts";
import { reshape, transpose } from "./movement.ts";
import { forEachIndex } from "./oracle.ts";
import { gpuReduce } from "./reduce-gpu.ts";
import { sliceAxis } from "./region.ts";
import { reshapeTo } from "./reshape.ts";
import { cumprod } from "./scan.ts";
import { within } from "./scope.ts";
import { type Section, grainFor, lastAxes, otherAxes, sectionsOf, sizeOfSections, storedNames } from "./sections.ts";
import { sqrt, square } from "./unary.ts";

type S = StreamOrDevice;
export interface ReduceParams {
  /** Sorted, not negative. */
  readonly axes: readonly number[];
  readonly keepdims: boolean;
}
type Rule = "sum" | "prod" | "max" | "min" | "all" | "any";

/** Wrapping sums and products do not depend on the sign. */
const wrapping: Partial<Record<DtypeName, string>> = { ...storedNames, uint32: "i32", uint64: "i64", complex64: "f32" };
/** Tests for zero do not either. */
const truth: Partial<Record<DtypeName, string>> = { ...storedNames, int8: "u8", int16: "u16", uint32: "i32", uint64: "i64", bfloat16: "f16", complex64: "c64" };
const bytesOf: Readonly<Record<string, number>> = { u8: 1, i8: 1, u16: 2, i16: 2, f16: 2, bf16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8, c64: 8 };

/** Stored types of input, partial results and output. */
function idsOf(rule: Rule, from: Dtype, to: Dtype): { from: string; partial: string; to: string } {
  if (rule === "all" || rule === "any") return { from: truth[from.name] as string, partial: "u8", to: "u8" };
  const table = rule === "max" || rule === "min" ? storedNames : wrapping;
  const [a, b] = [table[from.name] as string, table[to.name] as string];
  const half = (rule === "sum" || rule === "prod") && (b === "f16" || b === "bf16");
  return { from: a, partial: half ? "f32" : b, to: b };
}

/** Fixed cuts of the reduced dimension: results must not depend on the number of threads. */
const rowChunk = 16384;
const columnChunk = 512;
const columnWidth = 1024;
/** Units that share the work well between threads, and the narrowest block of columns to make them: two cache lines of float32. Wide blocks read whole pages of each row. */
const unitsWanted = 8;
const narrowestBlock = 32;

/** Chain of passes, innermost reduced section first. Each pass reduces n of [outer, n, inner]; what is cut into chunks takes a further pass. */
class Passes {
  readonly steps: Step[] = [];
  readonly scratch: number[] = [];
  private source: Pointer = input(0);
  private stored: string;
  private readonly rule: Rule;
  private readonly ids: { from: string; partial: string; to: string };
  private readonly divisor: number;
  constructor(rule: Rule, ids: { from: string; partial: string; to: string }, divisor: number) {
    this.rule = rule;
    this.ids = ids;
    this.stored = ids.from;
    this.divisor = divisor;
  }
  add(outer: number, n: number, inner: number, last: boolean): void {
    const fold = foldOf(n, inner);
    if (fold > 1) {
      this.add(outer, n / fold, inner * fold, false);
      this.add(outer, fold, inner, last);
      return;
    }
    const chunk = inner === 1 ? rowChunk : columnChunk;
    const chunks = Math.max(1, Math.ceil(n / chunk));
    const final = last && chunks === 1;
    const to = final ? this.ids.to : this.ids.partial;
    const target = final ? output(0) : scratch(this.scratch.push(outer * chunks * inner * (bytesOf[to] as number)) - 1);
    const divisor = final ? this.divisor : 1;
    const name = `reduce/${this.rule}_${this.stored}_${to}`;
    const bytes = bytesOf[this.stored] as number;
    const rows = Math.min(n, chunk);
    if (inner === 1) {
      this.steps.push({ entry: `${name}_row`, args: [this.source, target, n, rows, chunks, divisor], units: outer * chunks, grain: grainFor(rows * bytes) });
    } else {
      // Sums do not depend on how columns are shared out.
      const wanted = Math.ceil(inner / Math.ceil(unitsWanted / (outer * chunks)) / 16) * 16;
      const width = Math.min(inner, columnWidth, Math.max(narrowestBlock, wanted));
      const blocks = Math.ceil(inner / width);
      const args = [this.source, target, n, inner, width, blocks, rows, chunks, divisor];
      this.steps.push({ entry: `${name}_col`, args, units: outer * chunks * blocks, grain: grainFor(rows * width * bytes) });
    }
    this.source = target;
    this.stored = to;
    if (chunks > 1) this.add(outer, chunks, inner, last);
  }
}
/** How many rows to lay side by side when a row is too short for vectors: their columns are reduced first, then the rows inside each. */
function foldOf(n: number, inner: number): number {
  if (inner === 1 || inner >= 32 || n < 64) return 1;
  let fold = 1;
  while (fold < 16 && n % (fold * 2) === 0) fold *= 2;
  return fold;
}

/** Launches by what they depend on: to make one takes longer than many a reduction. */
const launches = new Map<string, Launch>();
const launchLimit = 1024;
function launchReduce(rule: Rule, x: View, out: View, axes: readonly number[], divisor = 1): Launch {
  const key = `${rule}${x.dtype.code}.${out.dtype.code}/${x.shape.join()}/${x.strides.join()}/${axes.join()}/${divisor}`;
  let launch = launches.get(key);
  if (!launch) {
    if (launches.size >= launchLimit) launches.clear();
    launch = makeLaunch(rule, x, out, axes, divisor);
    launches.set(key, launch);
  }
  return launch;
}
function makeLaunch(rule: Rule, x: View, out: View, axes: readonly number[], divisor: number): Launch {
  if (out.size === 0) return { steps: [] };
  let sections: readonly Section[] = sectionsOf(x, axes) ?? [];
  if (x.size === 0) sections = [{ size: out.size, reduced: false }, { size: 0, reduced: true }];
  else if (!sections.some((s) => s.reduced)) sections = [...sections, { size: 1, reduced: true }];
  if (x.dtype.kind === "complex" && rule === "sum") sections = [...sections, { size: 2, reduced: false }];
  const passes = new Passes(rule, idsOf(rule, x.dtype, out.dtype), divisor);
  for (let left = sections.filter((s) => s.reduced).length; left > 0; left--) {
    const at = sections.findLastIndex((s) => s.reduced);
    passes.add(sizeOfSections(sections.slice(0, at)), (sections[at] as Section).size, sizeOfSections(sections.slice(at + 1)), left === 1);
    sections = [...sections.slice(0, at), ...sections.slice(at + 1)];
  }
  return { steps: passes.steps, scratch: passes.scratch };
}

const kernelOf = (rule: Rule, divisor: (x: View, out: View) => number = () => 1): Kernel<ReduceParams> => ({
  name: `wasm/reduce/${rule}`,
  layout: ([x], { axes }) => ((x as View).contiguous || sectionsOf(x as View, axes) ? ["any"] : ["row"]),
  launch: ([x], [out], { axes }) => launchReduce(rule, x as View, out as View, axes, divisor(x as View, out as View)),
});

/** Float64 reduction by definition. Complex values are pairs. */
function referenceReduce(x: Float64Array, aval: Aval, axes: readonly number[], out: Aval, identity: number, f: (acc: number, x: number) => number): Float64Array {
  const pairs = aval.dtype.kind === "complex" ? 2 : 1;
  const result = new Float64Array(sizeOf(out.shape) * (out.dtype.kind === "complex" ? 2 : 1)).fill(identity);
  const kept = aval.shape.map((d, i) => (axes.includes(i) ? 1 : d));
  forEachIndex(aval.shape, (index, i) => {
    let at = 0;
    for (let d = 0; d < kept.length; d++) at = at * (kept[d] as number) + (kept[d] === 1 ? 0 : (index[d] as number));
    if (out.dtype.kind === "complex") for (let p = 0; p < 2; p++) result[2 * at + p] = f(result[2 * at + p] as number, x[2 * i + p] as number);
    else result[at] = f(result[at] as number, pairs === 2 ? Number(x[2 * i] !== 0 || x[2 * i + 1] !== 0) : (x[i] as number));
  });
  return result;
}

function requireElements(op: string, shape: Shape, axes: readonly number[]): void {
  for (const a of axes) if (shape[a] === 0) throw opError(op, `can not reduce over axis ${a} with size 0, got shape (${shape.join(",")})`);
}

interface Definition {
  readonly rule: Rule;
  readonly dtype: (d: Dtype) => Dtype;
  readonly identity: number;
  readonly f: (acc: number, x: number) => number;
  readonly complex: boolean;
  /** There is no result for an empty axis. */
  readonly nonEmpty?: boolean;
  /** Derivative by the input, of the input's shape, from input and output (with all dimensions kept). A number for sums; "zero" for truth values. */
  readonly derivative: Derivative | number | "zero";
}
type Derivative = (x: MxArray, y: MxArray, axes: readonly number[]) => MxArray;
/** The result with reduced dimensions of size 1. The transform broadcasts it to the input's shape. */
const kept = (y: MxArray, x: MxArray, axes: readonly number[]): MxArray => reshapeTo(y, reducedShape(x.desc.shape, axes, true));
function reductionRules(derivative: Derivative): Pick<Op<ReduceParams>, "vjp" | "jvp" | "vmap"> {
  const by = (x: MxArray, y: MxArray, axes: readonly number[]): MxArray => derivative(x, kept(y, x, axes), axes);
  return {
    vjp: ({ inputs: [x], outputs: [y], cotangents: [g], params: { axes } }) => [multiply(kept(g as MxArray, x as MxArray, axes), by(x as MxArray, y as MxArray, axes))],
    jvp: ({ inputs: [x], outputs: [y], tangents: [t], params: { axes, keepdims } }) => [t && sum(multiply(t, by(x as MxArray, y as MxArray, axes)), axes, keepdims)],
    vmap: batchReduce,
  };
}
const batchReduce = ({ inputs, params: { axes, keepdims }, apply }: Batching<ReduceParams>): MxArray[] => apply(inputs, { axes: axes.map((axis) => axis + 1), keepdims });
/** An extreme value's derivative: shared evenly among equals, as in MLX. */
const share: Derivative = (x, y, axes) => {
  const mask = astype(equal(x, y), x.dtype);
  return divide(mask, sum(mask, axes, true));
};
/** Product of all other elements, without division: of those before and those behind. */
const othersProduct: Derivative = (x, _y, axes) => {
  const rest = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const order = [...rest, ...axes];
  const moved = transpose(x, order);
  const lines = reshapeTo(moved, [...rest.map((i) => x.desc.shape[i] as number), axes.reduce((n, i) => n * (x.desc.shape[i] as number), 1)]);
  const last = rest.length;
  const others = multiply(cumprod(lines, last, false, false), cumprod(lines, last, true, false));
  return transpose(reshapeTo(others, moved.desc.shape), order.map((_, i) => order.indexOf(i)));
};
const rowsOf = (rule: Rule): RowForm<ReduceParams> => ({
  span: (x, { axes }) => lastAxes(x, axes),
  axes: (x, { axes }) => otherAxes(x, axes),
  perRow: true,
  // Of truth values the greatest is whether there is any, the least whether all are.
  formula: (r, [x], _params, { dtype }) => r.reduce(dtype !== bool ? rule : rule === "max" ? "any" : rule === "min" ? "all" : rule, r.e.convert(x as Value, computeType(dtype)), dtype),
});
function reduction({ rule, dtype, identity, f, complex, nonEmpty, derivative }: Definition): Apply<ReduceParams> {
  const constant = { vjp: "zero", jvp: "zero", vmap: batchReduce } as const;
  const linear: Pick<Op<ReduceParams>, "vjp" | "jvp" | "vmap"> = { vjp: ({ inputs: [x], cotangents: [g], params }) => [kept(g as MxArray, x as MxArray, params.axes)], jvp: "linear", vmap: batchReduce };
  return defineOp<ReduceParams>({
    name: rule,
    ...(derivative === "zero" ? constant : typeof derivative === "number" ? linear : reductionRules(derivative)),
    infer([x], { axes, keepdims }) {
      const { shape, dtype: d } = x as Aval;
      if (d.kind === "complex" && !complex) throw opError(rule, `complex arrays are not supported, got ${d}`);
      if (nonEmpty) requireElements(rule, shape, axes);
      return [{ shape: reducedShape(shape, axes, keepdims), dtype: dtype(d) }];
    },
    reference: ([x], [aval], { axes }, [out]) => [referenceReduce(x as Float64Array, aval as Aval, axes, out as Aval, identity, f)],
    rows: rowsOf(rule),
    kernels: [kernelOf(rule)],
    gpu: gpuReduce(rule),
  });
}
const same = (d: Dtype): Dtype => d;
/** Type of a sum: integers narrower than 32 bits are added up in 32. */
function sumDtype(d: Dtype): Dtype {
  if (d === bool) return int32;
  if (d.kind === "signed") return d.size <= 4 ? int32 : int64;
  if (d.kind === "unsigned") return d.size <= 4 ? uint32 : uint64;
  return d;
}

const sumOp = reduction({ rule: "sum", dtype: sumDtype, identity: 0, f: (a, x) => a + x, complex: true, derivative: 1 });
const prodOp = reduction({ rule: "prod", dtype: sumDtype, identity: 1, f: (a, x) => a * x, complex: false, derivative: othersProduct });
const maxOp = reduction({ rule: "max", dtype: same, identity: Number.NEGATIVE_INFINITY, f: Math.max, complex: false, nonEmpty: true, derivative: share });
const minOp = reduction({ rule: "min", dtype: same, identity: Number.POSITIVE_INFINITY, f: Math.min, complex: false, nonEmpty: true, derivative: share });
const allOp = reduction({ rule: "all", dtype: () => bool, identity: 1, f: (a, x) => Number(a !== 0 && x !== 0), complex: true, derivative: "zero" });
const anyOp = reduction({ rule: "any", dtype: () => bool, identity: 0, f: (a, x) => Number(a !== 0 || x !== 0), complex: true, derivative: "zero" });
const countOf = (x: Aval, out: Aval): number => Math.round(sizeOf(x.shape) / Math.max(1, sizeOf(out.shape)));
const meanOp = defineOp<ReduceParams>({
  name: "mean",
  vjp: ({ inputs: [x], outputs: [y], cotangents: [g], params }) => [kept(divide(g as MxArray, countOf((x as MxArray).desc, (y as MxArray).desc)), x as MxArray, params.axes)],
  jvp: "linear",
  vmap: batchReduce,
  infer([x], { axes, keepdims }) {
    return [{ shape: reducedShape((x as Aval).shape, axes, keepdims), dtype: (x as Aval).dtype }];
  },
  reference([x], [aval], { axes }, [out]) {
    const n = countOf(aval as Aval, out as Aval);
    return [referenceReduce(x as Float64Array, aval as Aval, axes, out as Aval, 0, (a, v) => a + v).map((v) => v / n)];
  },
  // The division happens before the one rounding to a 16-bit type, so a mean of large float16 values does not overflow.
  rows: {
    span: (x, { axes }) => lastAxes(x, axes),
    axes: (x, { axes }) => otherAxes(x, axes),
    perRow: true,
    formula(r, [x], _params, { dtype }) {
      const wide = dtype === float64 ? float64 : float32;
      return r.e.div(r.reduce("sum", x as Value, wide), r.count(wide));
    },
  },
  kernels: [kernelOf("sum", countOf)],
  gpu: gpuReduce("sum", countOf),
});

type Reduce = (a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | S | null, s?: S | null) => MxArray;
/** Public form; `noAxes` is the result for an empty axis list when that is the array itself. */
const reducer = (name: string, apply: Apply<ReduceParams>, returnsInput: boolean): Reduce => (a, axis, keepdims, s) => {
  const x = toArray(a);
  const args = reductionArgs(axis, keepdims, s);
  const axes = normalizeAxes(name, args.axis, x.ndim);
  if (axes.length === 0 && returnsInput) return new MxArray(x.desc);
  return apply([x], { axes, keepdims: args.keepdims }, args.stream)[0] as MxArray;
};

/**
 * Sum over axes (all when none is given). bool and narrow signed integers give int32, narrow unsigned ones uint32; wider integers wrap.
 * float16 and bfloat16 are added in float32 and rounded once. `sum(a, true)` reduces everything and keeps the dimensions.
 */
export const sum: Reduce = reducer("sum", sumOp, true);
/** Product over axes (all when none is given); dtypes as `sum`. */
export const prod: Reduce = (a, axis, keepdims, s) => {
  const x = toArray(a);
  if (x.dtype.kind !== "complex") return realProduct(x, axis, keepdims, s);
  const args = reductionArgs(axis, keepdims, s);
  const axes = normalizeAxes("prod", args.axis, x.ndim);
  return within(() => foldComplex(x, axes, args.keepdims, multiply, args.stream));
};
const realProduct = reducer("prod", prodOp, true);
/** Halves the reduced dimension until one number is left: log2(n) elementwise steps. Of nothing: 1. */
function foldComplex(x: MxArray, axes: readonly number[], keepdims: boolean, combine: Binary, s: S | undefined): MxArray {
  noteSizes(sizesCount);
  const { shape } = x.desc;
  const kept = shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const sizes = kept.map((i) => shape[i] as number);
  let n = axes.reduce((m, i) => m * (shape[i] as number), 1);
  const final = reducedShape(shape, axes, keepdims);
  if (n === 0) return ones(final, x.dtype, s);
  let rest = reshape(transpose(x, [...axes, ...kept], s), [n, ...sizes], s);
  const rows = (from: number, to: number): MxArray => sliceAxis(rest, 0, from, to, s);
  while (n > 1) {
    const half = Math.floor(n / 2);
    const pairs = combine(rows(0, half), rows(half, 2 * half), s);
    rest = n % 2 === 1 ? concatenate([pairs, rows(n - 1, n)], 0, s) : pairs;
    n = half + (n % 2);
  }
  return reshape(rest, final, s);
}
/** An extremum: complex numbers are ordered by their real parts, then by their imaginary ones. `combine` is called late: its module may load after this one. */
function extremum(name: "max" | "min", apply: Apply<ReduceParams>, combine: Binary): Reduce {
  const ofReal = reducer(name, apply, true);
  return (a, axis, keepdims, s) => {
    const x = toArray(a);
    if (x.dtype.kind !== "complex") return ofReal(x, axis, keepdims, s);
    const args = reductionArgs(axis, keepdims, s);
    const axes = normalizeAxes(name, args.axis, x.ndim);
    requireElements(name, x.desc.shape, axes);
    return within(() => foldComplex(x, axes, args.keepdims, combine, args.stream));
  };
}
/** Largest element over axes (all when none is given). NaN wins. Throws for an empty axis. */
export const max: Reduce = extremum("max", maxOp, (a, b, s) => maximum(a, b, s));
/** Smallest element over axes (all when none is given). NaN wins. Throws for an empty axis. */
export const min: Reduce = extremum("min", minOp, (a, b, s) => minimum(a, b, s));
/** True where no element over the axes is zero (bool; true for an empty axis). */
export const all: Reduce = reducer("all", allOp, false);
/** True where some element over the axes is not zero (bool; false for an empty axis). */
export const any: Reduce = reducer("any", anyOp, false);

/** Mean over axes (all when none is given). Integers and bool give float32. NaN for an empty axis. */
export const mean: Reduce = (a, axis, keepdims, s) => {
  return within(() => {
    const x = toArray(a);
    const args = reductionArgs(axis, keepdims, s);
    const axes = normalizeAxes("mean", args.axis, x.ndim);
    const dtype = toInexact(x.dtype);
    return meanOp([astype(x, dtype, args.stream)], { axes, keepdims: args.keepdims }, args.stream)[0] as MxArray;
  });
};

/** Arguments of variance and std by type: besides those of a reduction, a number behind the axis is ddof. */
function varianceArgs(rest: readonly unknown[]): { axis: AxisArgument | undefined; keepdims: boolean; ddof: number; stream: S | undefined } {
  const stream = rest.find(isStreamOrDevice);
  const [axis, keepdims, ddof] = rest.filter((v) => !isStreamOrDevice(v));
  if (typeof axis === "boolean") return { axis: undefined, keepdims: axis, ddof: Number(keepdims ?? 0), stream };
  return { axis: (axis ?? undefined) as AxisArgument | undefined, keepdims: keepdims === true, ddof: Number(ddof ?? 0), stream };
}

/**
 * Variance over axes (all when none is given): the mean squared distance from the mean, with n - ddof in the denominator. Integers give float32; 16-bit
 * floats are computed in float32 and rounded once.
 */
export function variance(a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | number | S | null, ddof?: number | S | null, s?: S | null): MxArray {
  return within(() => {
    const args = varianceArgs([axis, keepdims, ddof, s]);
    const x = toArray(a);
    const dtype = varianceDtype(x.dtype);
    return astype(wideVariance(x, "variance", args), dtype, args.stream);
  });
}
/** A complex number's distance is real. */
const varianceDtype = (d: Dtype): Dtype => (d.kind === "complex" ? float32 : toInexact(d));
/** Variance in float32, or float64 for float64. */
function wideVariance(x: MxArray, op: string, { axis, keepdims, ddof, stream }: ReturnType<typeof varianceArgs>): MxArray {
  const axes = normalizeAxes(op, axis, x.ndim);
  const wide = astype(x, x.dtype.size === 8 && x.dtype.isInexact ? x.dtype : float32, stream);
  const distance = subtract(wide, mean(wide, axes, true, stream), stream);
  const squares = x.dtype.kind === "complex" ? real(multiply(distance, conjugate(distance, stream), stream), stream) : square(distance, stream);
  if (ddof === 0) return mean(squares, axes, keepdims, stream);
  noteSizes(sizesCount);
  const n = axes.reduce((m, i) => m * (x.desc.shape[i] as number), 1);
  return divide(sumOp([squares], { axes, keepdims }, stream)[0] as MxArray, Math.max(0, n - ddof), stream);
}
/** Standard deviation over axes: the square root of `variance`. */
export function std(a: ArrayLike, axis?: AxisArgument | boolean | S, keepdims?: boolean | number | S | null, ddof?: number | S | null, s?: S | null): MxArray {
  return within(() => {
    const args = varianceArgs([axis, keepdims, ddof, s]);
    const x = toArray(a);
    return astype(sqrt(wideVariance(x, "std", args), args.stream), varianceDtype(x.dtype), args.stream);
  });
}
