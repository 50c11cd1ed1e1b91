/**
 * What a step of a program in a file must satisfy before it runs: the parameters of its op, and what the op's public functions see to, so that its kernels may rely on it.
 * An op without an entry here (and without a formula) stands in no file.
 */
import type { Aval } from "../core/array.ts";
import { Dtype, complex64, float32, int32, uint32, uint8 } from "../core/dtype.ts";
import { type Op, ops } from "../core/op.ts";
import { type Shape, sameShape, sizeOf } from "../core/shape.ts";
import { type Plan, planOf, realPlanOf, tableSizes } from "../ops/fft-plan.ts";

type Params = Record<string, unknown>;
type Kind = (value: unknown) => boolean;
type Fits = (params: Params, inputs: readonly Aval[], outputs: readonly Aval[]) => boolean;

export const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
export const isShape = (x: unknown): x is number[] => Array.isArray(x) && x.length <= 64 && x.every(isCount) && x.every((n) => n < 2 ** 48) && Number.isSafeInteger(sizeOf(x));
const bool: Kind = (x) => typeof x === "boolean";
const number: Kind = (x) => typeof x === "number";
/** What kernels take as a word. */
const int: Kind = (x) => Number.isInteger(x) && Math.abs(x as number) <= 2 ** 31;
const text: Kind = (x) => typeof x === "string";
const dtype: Kind = (x) => x instanceof Dtype;
const listOf = (kind: Kind): Kind => (x) => Array.isArray(x) && x.length <= 64 && x.every(kind);
const ints = listOf(int);
/** No axis twice. That they exist is checked for all ops. */
const axes: Kind = (x) => listOf(isCount)(x) && new Set(x as number[]).size === (x as number[]).length;
const rising: Kind = (x) => axes(x) && (x as number[]).every((a, i) => i === 0 || a > ((x as number[])[i - 1] as number));
const or = (kind: Kind, ...others: unknown[]): Kind => (x) => others.includes(x) || kind(x);
const optional = (kind: Kind): Kind => or(kind, undefined);
const oneOf = (...values: unknown[]): Kind => (x) => values.includes(x);

interface Check {
  /** Number of operands: exactly, or at least and at most. */
  readonly inputs: number | readonly [number, number];
  readonly params?: Readonly<Record<string, Kind>>;
  readonly fits?: Fits;
  /** All operands have one dtype. */
  readonly oneDtype?: true;
}
const many = 2 ** 16;
const at = (list: readonly Aval[], i: number): Aval => list[i] as Aval;
const shapeOf = (list: readonly Aval[], i: number): Shape => at(list, i).shape;
const last = (shape: Shape): number => shape[shape.length - 1] ?? 1;
const isOne = (x: Aval): boolean => sizeOf(x.shape) === 1;
const ranks = (least: number): Fits => (_p, [x]) => (x as Aval).shape.length >= least;
const floating: Fits = (_p, inputs) => inputs.every((x) => x.dtype.isFloat);
const all = (...list: Fits[]): Fits => (p, i, o) => list.every((fits) => fits(p, i, o));
/** Real matrices that the decompositions take. */
const matrices = (square: boolean): Fits => (_p, inputs) =>
  inputs.every((x) => x.shape.length >= 2 && (x.dtype === float32 || x.dtype.name === "float64")) && (!square || last(shapeOf(inputs, 0)) === shapeOf(inputs, 0)[shapeOf(inputs, 0).length - 2]);

export function insideRegion({ start, step, shape }: Params, of: Shape): boolean {
  if (![start, step].every((l) => ints(l) && (l as number[]).length === of.length) || !isShape(shape) || shape.length !== of.length) return false;
  const [from, by] = [start as number[], step as number[]];
  return shape.every((n, i) => n === 0 || [from[i] as number, (from[i] as number) + (n - 1) * (by[i] as number)].every((place) => place >= 0 && place < (of[i] as number)));
}
const region = { start: ints, step: ints, shape: isShape };
const fitsBroadcast = (from: Shape, to: Shape): boolean => from.length <= to.length && from.every((n, i) => n === 1 || n === to[to.length - from.length + i]);

const insideStorage: Fits = ({ shape, strides, offset }, inputs) => {
  const [sizes, steps] = [shape as number[], strides as number[]];
  if (steps.length !== sizes.length) return false;
  if (sizeOf(sizes) === 0) return true;
  const reach = (sign: 1 | -1): number => sizes.reduce((place, n, i) => place + Math.max(0, sign * (steps[i] as number)) * (n - 1) * sign, offset as number);
  return reach(-1) >= 0 && reach(1) < sizeOf(shapeOf(inputs, 0));
};

/** Index arrays of one shape, for dimensions that are not empty. */
function goodIndices(indices: readonly Aval[], from: Shape, over: readonly number[]): boolean {
  const shape = indices[0]?.shape ?? [];
  return indices.every((x) => x.dtype.isInteger && sameShape(x.shape, shape)) && (sizeOf(shape) === 0 || over.every((axis) => (from[axis] as number) > 0));
}
/** The shape of what is taken, with the index arrays' dimensions in place `place`. */
function takenShape(from: Shape, over: readonly number[], place: number, indices: readonly Aval[]): number[] {
  const rest = from.filter((_, i) => !over.includes(i));
  return [...rest.slice(0, place), ...(indices[0]?.shape ?? []), ...rest.slice(place)];
}
const gathers: Fits = ({ axes: over, at: place }, [x, ...indices]) => {
  const [list, shape] = [over as number[], (x as Aval).shape];
  return list.length === indices.length && list.length > 0 && (place as number) <= shape.length - list.length && goodIndices(indices, shape, list);
};
const scatters: Fits = ({ axes: over, at: place, region: within }, [x, updates, ...indices]) => {
  const [list, { shape }] = [over as number[], x as Aval];
  const part = within as { shape: number[]; start: number[]; step: number[] };
  if (list.length !== indices.length || (place as number) > shape.length - list.length || !insideRegion(within as Params, shape) || !goodIndices(indices, shape, list)) return false;
  // Along the axes of the indices the region is all there is.
  if (!list.every((axis) => part.start[axis] === 0 && part.step[axis] === 1 && part.shape[axis] === shape[axis])) return false;
  return (updates as Aval).dtype === (x as Aval).dtype && sameShape((updates as Aval).shape, takenShape(part.shape, list, place as number, indices));
};
const along: Fits = ({ axis }, [x, indices, values]) => {
  const [from, list] = [(x as Aval).shape, (indices as Aval).shape];
  const agree = from.length === list.length && from.every((n, i) => i === axis || n === list[i]);
  return agree && isCount(axis) && goodIndices([indices as Aval], from, [axis]) && (!values || (values.dtype === (x as Aval).dtype && sameShape(values.shape, list)));
};
const scatterModes = oneOf("assign", "add", "multiply", "maximum", "minimum");

/** Starts are integers, one for each axis; the rest of the region is whole. */
const startsAt = (p: Params, x: Aval, starts: Aval, part: Shape): boolean => {
  const list = p["axes"] as number[];
  return starts.dtype === int32 && starts.shape.length === 1 && starts.shape[0] === list.length && part.length === x.shape.length && part.every((n, i) => (list.includes(i) ? n <= (x.shape[i] as number) : n === x.shape[i]));
};

// ---- quantized matrices

const packing = { groupSize: oneOf(16, 32, 64, 128), bits: oneOf(2, 3, 4, 5, 6, 8), mode: optional(oneOf("mxfp4", "mxfp8", "nvfp4")) };
const modeSizes: Readonly<Record<string, readonly [number, number]>> = { mxfp4: [32, 4], mxfp8: [32, 8], nvfp4: [16, 4] };
const goodPacking = ({ mode, groupSize, bits }: Params): boolean => mode === undefined || (modeSizes[mode as string]?.[0] === groupSize && modeSizes[mode as string]?.[1] === bits);
/** Packed integers with scales and, in the affine mode, biases. */
function packed(p: Params, [w, scales, biases]: readonly (Aval | undefined)[]): boolean {
  if (!w || !scales || !goodPacking(p) || w.dtype !== uint32 || w.shape.length < 2 || scales.shape.length !== w.shape.length) return false;
  if (!sameShape(w.shape.slice(0, -1), scales.shape.slice(0, -1)) || last(w.shape) * 32 !== last(scales.shape) * (p["groupSize"] as number) * (p["bits"] as number)) return false;
  if (p["mode"]) return scales.dtype === uint8;
  return scales.dtype.isFloat && scales.dtype.name !== "float64" && biases !== undefined && biases.dtype === scales.dtype && sameShape(biases.shape, scales.shape);
}
const isHalfOrSingle = (x: Aval): boolean => x.dtype.isFloat && x.dtype.size <= 4;
const isGlobal = (x: Aval | undefined): boolean => x === undefined || (x.dtype === float32 && isOne(x));
const terms = (p: Params): number => (p["mode"] ? 1 : 2);
const quantizes: Fits = (p, [w, global]) => goodPacking(p) && isHalfOrSingle(w as Aval) && (w as Aval).shape.length >= 2 && last((w as Aval).shape) % (p["groupSize"] as number) === 0 && isGlobal(global) && (!global || p["mode"] !== undefined);
const dequantizes: Fits = (p, inputs) => packed(p, inputs) && inputs.length <= 1 + terms(p) + (p["mode"] ? 1 : 0) && isGlobal(inputs[1 + terms(p)]) && (p["dtype"] as Dtype).isFloat && (p["dtype"] as Dtype).size <= 4;
const quantizedProduct: Fits = (p, [x, ...weights]) => isHalfOrSingle(x as Aval) && weights.length === 1 + terms(p) && packed(p, weights);
const chosenMatrices = (indices: readonly Aval[]): boolean => indices.length === 2 && indices.every((i) => i.dtype === uint32) && sameShape(shapeOf(indices, 0), shapeOf(indices, 1));
const gatherQuantized: Fits = (p, [x, ...rest]) => isHalfOrSingle(x as Aval) && (x as Aval).shape.length >= 2 && packed(p, rest) && rest.length === 3 + terms(p) && chosenMatrices(rest.slice(-2));
/** x and w, w perhaps packed; index arrays; global scales. */
const bothQuantized = (indices: number): Fits => (p, inputs) => {
  const [x, w] = [at(inputs, 0), at(inputs, 1)];
  const first = p["packed"] ? 3 : 2;
  if (inputs.length !== first + indices + (p["global"] ? 2 : 0) || !p["mode"] || !goodPacking(p) || !isHalfOrSingle(x) || x.shape.length < 1 || w.shape.length < 2) return false;
  const list = inputs.slice(first, first + indices);
  return (p["packed"] ? packed(p, inputs.slice(1, 3)) : w.dtype === x.dtype && last(w.shape) === last(x.shape)) && list.every((i) => i.dtype === uint32) && (!p["global"] || inputs.slice(-2).every(isGlobal));
};

// ---- the others

const isPlan = (plan: unknown, n: number): plan is Plan =>
  [1, 4].some((lines) => [planOf(n, lines), realPlanOf(n, lines)].some((own) => JSON.stringify(own) === JSON.stringify(plan)));
const transforms: Fits = ({ axis, n, kind, plan }, [x, ...tables]) => {
  const { shape, dtype: from } = x as Aval;
  if (!isCount(axis) || !isCount(n) || n < 1 || n > 2 ** 27 || !isPlan(plan, n)) return false;
  if ((kind === "complex" && plan.kind === "packed") || (plan.kind !== "direct" && axis !== shape.length - 1)) return false;
  const sizes = tableSizes(plan);
  const wanted = kind === "hermitian" ? Math.floor(n / 2) + 1 : n;
  return shape[axis] === wanted && from === (kind === "real" ? float32 : complex64) && sizes.length === tables.length && tables.every((t, i) => t.dtype === complex64 && sameShape(t.shape, [sizes[i] as number]));
};
const positive: Kind = (x) => isCount(x) && x >= 1 && x < 2 ** 31;
const convolves: Fits = (p, [x, w]) => {
  const [a, b] = [(x as Aval).shape, (w as Aval).shape];
  const dims = a.length - 2;
  const lists = ["stride", "kernelDilation", "inputDilation", "paddingLow", "paddingHigh"].every((k) => (p[k] as number[]).length === dims);
  const groups = p["groups"] as number;
  return dims >= 1 && dims <= 3 && lists && a.length === b.length && last(a) === groups * last(b) && (b[0] as number) % groups === 0 && isHalfOrSingle(x as Aval);
};
const attends: Fits = (p, inputs) => {
  const extra = inputs.slice(3, 3 + Number(p["mask"] === "array") + Number(p["length"]) + Number(p["sinks"]));
  return inputs.length === 3 + extra.length && (p["mask"] !== "array" || !p["length"]);
};
/** q, k, v, the result and its cotangent, and what else the op takes. */
const gradientOfAttention: Fits = (p, inputs) => {
  const forward = ops.get("scaledDotProductAttention") as Op;
  const own = [...inputs.slice(0, 3), ...inputs.slice(5)];
  if (inputs.length < 5 || p["length"] || !attends(p, own, [])) return false;
  const [out] = forward.infer(own, p) as [Aval];
  return inputs.slice(3, 5).every((x) => x.dtype === out.dtype && sameShape(x.shape, out.shape));
};
const attention = { scale: number, mask: oneOf("none", "causal", "array"), length: bool, sinks: bool };
const scan: Check = { inputs: 1, params: { axis: isCount, reverse: bool, inclusive: bool }, fits: ranks(1) };
const reduce: Check = { inputs: 1, params: { axes, keepdims: bool } };
const argreduce: Check = { inputs: 1, params: { axis: or(isCount, null), keepdims: bool } };
const norm: Check = { inputs: [1, 3], params: { eps: number, weight: bool, bias: bool }, oneDtype: true, fits: (p, inputs) => inputs.length === 1 + Number(p["weight"]) + Number(p["bias"]) };
const plain: Check = { inputs: 1 };
const lines: Check = { inputs: 1, fits: ranks(1) };

const checks: Readonly<Record<string, Check>> = {
  reshape: { inputs: 1, params: { shape: isShape, given: optional(ints), free: optional(int) }, fits: ({ shape }, inputs) => sizeOf(shape as Shape) === sizeOf(shapeOf(inputs, 0)) },
  broadcastTo: { inputs: 1, params: { shape: isShape }, fits: ({ shape }, inputs) => fitsBroadcast(shapeOf(inputs, 0), shape as Shape) },
  transpose: { inputs: 1, params: { axes }, fits: ({ axes: order }, inputs) => (order as number[]).length === shapeOf(inputs, 0).length },
  expandDims: { inputs: 1, params: { axes: rising }, fits: ({ axes: list }, inputs) => (list as number[]).every((a) => a < shapeOf(inputs, 0).length + (list as number[]).length) },
  squeeze: { inputs: 1, params: { axes: rising } },
  slice: { inputs: 1, params: region, fits: (p, inputs) => insideRegion(p, shapeOf(inputs, 0)) },
  sliceUpdate: { inputs: 2, oneDtype: true, params: region, fits: (p, inputs) => insideRegion(p, shapeOf(inputs, 0)) && sameShape(p["shape"] as Shape, shapeOf(inputs, 1)) },
  dynamicSlice: { inputs: 2, params: { axes, shape: isShape }, fits: (p, [x, starts]) => startsAt(p, x as Aval, starts as Aval, p["shape"] as Shape) },
  dynamicSliceUpdate: { inputs: 3, params: { axes }, fits: (p, [x, part, starts]) => (part as Aval).dtype === (x as Aval).dtype && startsAt(p, x as Aval, starts as Aval, (part as Aval).shape) },
  asStrided: { inputs: 1, params: { shape: isShape, strides: listOf(Number.isSafeInteger), offset: isCount }, fits: insideStorage },
  view: { inputs: 1, params: { dtype } },
  stopGradient: plain, contiguous: plain, searchsorted: plain,
  depends: { inputs: [1, many] },
  concatenate: { inputs: [1, many], oneDtype: true, params: { axis: isCount }, fits: (p, inputs) => (p["axis"] as number) < shapeOf(inputs, 0).length },
  pad: { inputs: 2, oneDtype: true, params: { low: isShape, high: isShape }, fits: ({ low, high }, inputs) => [low, high].every((l) => (l as number[]).length === shapeOf(inputs, 0).length) && isOne(at(inputs, 1)) },
  full: { inputs: 1, params: { shape: isShape }, fits: (_p, inputs) => isOne(at(inputs, 0)) },
  arange: { inputs: 0, params: { size: isCount, start: number, step: number, last: optional(number), dtype } },
  band: { inputs: 1, params: { low: int, high: int, rows: isCount, columns: isCount }, fits: (p, inputs) => isOne(at(inputs, 0)) && isShape([p["rows"], p["columns"]]) },
  bandPart: { inputs: 1, params: { low: int, high: int }, fits: ranks(2) },
  diag: { inputs: 2, oneDtype: true, params: { k: int }, fits: (_p, inputs) => shapeOf(inputs, 0).length === 1 && isOne(at(inputs, 1)) },
  diagonal: { inputs: 1, params: { offset: int, axis1: isCount, axis2: isCount }, fits: (p, inputs) => shapeOf(inputs, 0).length >= 2 && p["axis1"] !== p["axis2"] },
  randomBits: { inputs: 1, params: { shape: isShape, width: oneOf(1, 2, 4) }, fits: (_p, [keys]) => (keys as Aval).dtype === uint32 && last((keys as Aval).shape) === 2 && (keys as Aval).shape.length >= 1 },
  randomKey: { inputs: 0, params: { words: listOf((x) => isCount(x) && x < 2 ** 32) }, fits: ({ words }) => (words as number[]).length === 2 },
  gather: { inputs: [2, 64], params: { axes, at: isCount }, fits: gathers },
  takeAlongAxis: { inputs: 2, params: { axis: isCount }, fits: along },
  scatter: { inputs: [2, 64], params: { axes, at: isCount, mode: scatterModes, region: (x) => typeof x === "object" && x !== null }, fits: scatters },
  putAlongAxis: { inputs: 3, params: { axis: isCount, mode: scatterModes }, fits: along },
  maskedScatter: { inputs: 3, params: { depth: isCount }, fits: ({ depth }, [x, mask, values]) => {
    const [a, m, v] = [x as Aval, mask as Aval, values as Aval];
    const run = sizeOf(a.shape.slice(depth as number));
    return m.dtype.name === "bool" && sameShape(m.shape, a.shape.slice(0, depth as number)) && v.dtype === a.dtype && run > 0 && sizeOf(v.shape) > 0 && sizeOf(v.shape) % run === 0;
  } },
  sum: reduce, prod: reduce, max: reduce, min: reduce, all: reduce, any: reduce, mean: { ...reduce, fits: (_p, inputs) => at(inputs, 0).dtype.isInexact },
  argmax: argreduce, argmin: argreduce, cumsum: scan, cumprod: scan, cummax: scan, cummin: scan, logcumsumexp: { ...scan, fits: (_p, inputs) => shapeOf(inputs, 0).length > 0 && at(inputs, 0).dtype.isInexact },
  sort: lines, argsort: lines, softmax: { inputs: 1, fits: all(ranks(1), floating) }, logsumexp: { inputs: 1, fits: all(ranks(1), floating) },
  matmul: { inputs: 2, oneDtype: true },
  addmm: { inputs: 3, oneDtype: true, params: { alpha: number, beta: number } },
  gatherMM: { inputs: 4, fits: (_p, inputs) => at(inputs, 0).dtype === at(inputs, 1).dtype && chosenMatrices(inputs.slice(2)) },
  convolution: { inputs: 2, oneDtype: true, fits: convolves, params: { stride: listOf(positive), kernelDilation: listOf(positive), inputDilation: listOf(positive), paddingLow: ints, paddingHigh: ints, groups: positive, flip: bool } },
  rmsNorm: norm, layerNorm: norm,
  rope: { inputs: [1, 3], params: { dims: isCount, traditional: bool, base: number, scale: number, offset: optional(int), freqs: bool }, fits: (p, inputs) => inputs.length === 1 + Number(p["offset"] === undefined) + Number(p["freqs"]) },
  scaledDotProductAttention: { inputs: [3, 6], params: attention, fits: attends },
  scaledDotProductAttentionVjp: { inputs: [3, 8], params: attention, fits: gradientOfAttention },
  quantize: { inputs: [1, 2], params: packing, fits: quantizes },
  dequantize: { inputs: [2, 4], params: { ...packing, dtype }, fits: dequantizes },
  quantizedMatmul: { inputs: [3, 4], params: { ...packing, transpose: bool }, fits: quantizedProduct },
  gatherQMM: { inputs: [5, 6], params: { ...packing, transpose: bool }, fits: gatherQuantized },
  qqmm: { inputs: [2, 5], params: { ...packing, packed: bool, global: bool }, fits: bothQuantized(0) },
  gatherQQMM: { inputs: [4, 7], params: { ...packing, packed: bool, global: bool }, fits: bothQuantized(2) },
  solve: { inputs: [1, 2], oneDtype: true, params: { kind: oneOf("general", "lower", "upper") }, fits: (p, inputs, outputs) => {
    const [a, b] = inputs as [Aval, Aval?];
    return matrices(true)(p, inputs, outputs) && (!b || (b.shape[b.shape.length - 2] === last(a.shape) && sameShape(b.shape.slice(0, -2), a.shape.slice(0, -2))));
  } },
  cholesky: { inputs: 1, params: { upper: bool }, fits: matrices(true) },
  lu: { inputs: 1, fits: matrices(false) }, qr: { inputs: 1, fits: matrices(false) },
  svd: { inputs: 1, params: { vectors: bool }, fits: matrices(false) },
  eigh: { inputs: 1, params: { upper: bool, vectors: bool }, fits: matrices(true) },
  eig: { inputs: 1, params: { vectors: bool }, fits: matrices(true) },
  fft: { inputs: [1, 16], params: { axis: isCount, n: isCount, kind: oneOf("complex", "real", "hermitian"), inverse: bool, scale: number, plan: (x) => typeof x === "object" && x !== null }, fits: transforms },
};
/** Elementwise ops: formulas, whose parameters are numbers, types and switches. */
const simple: Kind = (x) => bool(x) || number(x) || dtype(x) || text(x);

/** Whether files may hold an op. */
export const isStorable = ({ name, expr }: Op): boolean => expr !== undefined || Object.hasOwn(checks, name);

/** What is wrong with a step, or undefined. Values are of JSON, or dtypes. */
export function wrongStep(op: Op, params: Params, inputs: readonly Aval[], outputs: readonly Aval[]): string | undefined {
  const check = Object.hasOwn(checks, op.name) ? checks[op.name] : undefined;
  if (!check) return Object.values(params).every(simple) ? undefined : "they are not numbers, types and switches";
  const [least, most] = typeof check.inputs === "number" ? [check.inputs, check.inputs] : check.inputs;
  if (inputs.length < least || inputs.length > most) return `it has ${inputs.length} operands`;
  const kinds = check.params ?? {};
  for (const key of Object.keys(params)) if (!Object.hasOwn(kinds, key)) return `there is no ${JSON.stringify(key)}`;
  for (const [key, kind] of Object.entries(kinds)) if (!kind(params[key])) return `${key} is ${JSON.stringify(params[key])}`;
  for (const key of ["axis", "axes", "axis1", "axis2"]) {
    const rank = Math.max(0, ...[...inputs, ...outputs].map((x) => x.shape.length));
    for (const axis of [params[key]].flat()) if (isCount(axis) && axis >= rank) return `${key} ${axis} is out of range`;
  }
  if (check.oneDtype && inputs.some((x) => x.dtype !== inputs[0]?.dtype)) return "its operands have different types";
  return (check.fits?.(params, inputs, outputs) ?? true) ? undefined : "they do not fit its operands";
}
