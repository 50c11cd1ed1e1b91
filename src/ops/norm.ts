/** Normalisation over the last axis: rmsNorm and layerNorm of mx.fast. */
import type { Aval, MxArray, View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { bfloat16, type Dtype, float16, float32, float64, promote } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Value } from "../core/expr.ts";
import { type Arg, defineOp, f32, type InputLayout, input, type Kernel, type Launch, output, type RowForm, type RowScope } from "../core/op.ts";
import { formatShape, type Shape } from "../core/shape.ts";
import type { Batching } from "../core/rules.ts";
import { add, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, streamArg, toArray } from "./convert.ts";
import { gpuNorm } from "./norm-gpu.ts";
import { mean } from "./reduce.ts";
import { rsqrt, square } from "./unary.ts";

/** Suffix of the kernels for a float type. float64 has none: the public functions compute it in float32. */
export const kernelSuffix = (dtype: Dtype): "f32" | "bf16" | "f16" => (dtype === float32 ? "f32" : dtype === bfloat16 ? "bf16" : "f16");
/** The type that kernels compute a result of type `dtype` in. */
export const kernelDtype = (dtype: Dtype): Dtype => (dtype === float64 ? float32 : dtype);
export const castTo = (x: MxArray, dtype: Dtype, s?: StreamOrDevice | null): MxArray => (x.desc.dtype === dtype ? x : astype(x, dtype, s ?? undefined));

export interface Dim {
  size: number;
  stride: number;
}
/** Dimensions that are left when neighbours with matching strides are merged and those of size 1 dropped, outermost first. */
export function mergeDims(shape: Shape, strides: Shape): Dim[] {
  const dims: Dim[] = [];
  for (let i = 0; i < shape.length; i++) {
    const size = shape[i] as number;
    const stride = strides[i] as number;
    if (size === 1) continue;
    const last = dims[dims.length - 1];
    if (last && last.stride === size * stride) {
      last.size *= size;
      last.stride = stride;
    } else dims.push({ size, stride });
  }
  return dims;
}

interface NormParams {
  readonly eps: number;
  readonly weight: boolean;
  readonly bias: boolean;
}

function infer(op: string, inputs: readonly Aval[], params: NormParams): Aval[] {
  const x = inputs[0] as Aval;
  if (x.shape.length === 0) throw opError(op, "input must have at least 1 dimension, got 0 dimensions");
  const n = x.shape[x.shape.length - 1] as number;
  inputs.slice(1).forEach((v, i) => {
    const name = i === 0 && params.weight ? "weight" : "bias";
    if (v.shape.length !== 1 || v.shape[0] !== n) throw opError(op, `${name} must have shape (${n}), the last dimension of x, got ${formatShape(v.shape)}`);
  });
  for (const v of inputs) if (v.dtype !== float32 && v.dtype !== bfloat16 && v.dtype !== float16) throw opError(op, `input must be a floating point array, got ${v.dtype}`);
  return [{ shape: x.shape, dtype: x.dtype }];
}

const outer = (x: View): Dim[] => mergeDims(x.shape.slice(0, -1), x.strides.slice(0, -1));

/** Rows may lie anywhere as long as each is contiguous and their positions are a walk over at most two dimensions. */
function layout(inputs: readonly View[]): readonly InputLayout[] {
  const x = inputs[0] as View;
  return x.contiguous || outer(x).length > 2 ? allRows : anyRows;
}
const allRows: readonly InputLayout[] = ["row"];
const anyRows: readonly InputLayout[] = ["last", "row"];

/** How the kernel finds row r: (r / inner) * outer stride + (r % inner) * inner stride. */
function rowWalk(x: View, rows: number, n: number): { inner: number; outerStride: number; innerStride: number } {
  if (x.contiguous) return { inner: Math.max(1, rows), outerStride: 0, innerStride: n };
  const dims = outer(x);
  const last = dims[dims.length - 1];
  return { inner: Math.max(1, last?.size ?? 1), outerStride: dims.length > 1 ? (dims[0] as Dim).stride : 0, innerStride: last?.stride ?? 0 };
}

function launch(entry: string, inputs: readonly View[], params: NormParams): Launch {
  const x = inputs[0] as View;
  const n = x.shape[x.shape.length - 1] as number;
  const rows = n === 0 ? 0 : x.size / n;
  const { inner, outerStride, innerStride } = rowWalk(x, rows, n);
  const weight: Arg = params.weight ? input(1) : 0;
  const bias: Arg = params.bias ? input(params.weight ? 2 : 1) : 0;
  const args = [input(0), weight, bias, output(0), n, f32(params.eps), inner, outerStride, innerStride];
  return { steps: [{ entry: `norm/${entry}_${kernelSuffix(x.dtype)}`, args, units: rows, grain: Math.max(1, Math.floor(32768 / Math.max(1, n))) }] };
}

const kernelOf = (name: "rms" | "layer"): Kernel<NormParams> => ({
  name: `wasm/norm/${name}`,
  layout,
  inPlace: [0],
  launch: (inputs, _outputs, params) => launch(name, inputs, params),
});

/** Applies `normalise` to every row, then weight and bias. */
function reference(data: readonly Float64Array[], avals: readonly Aval[], params: NormParams, normalise: (row: Float64Array) => Float64Array): Float64Array[] {
  const x = data[0] as Float64Array;
  const n = (avals[0] as Aval).shape.at(-1) as number;
  const weight = params.weight ? data[1] : undefined;
  const bias = params.bias ? data[params.weight ? 2 : 1] : undefined;
  const out = new Float64Array(x.length);
  for (let r = 0; r < x.length; r += n) {
    const row = normalise(x.subarray(r, r + n));
    for (let i = 0; i < n; i++) out[r + i] = (row[i] as number) * (weight?.[i] ?? 1) + (bias?.[i] ?? 0);
  }
  return [out];
}
const average = (xs: Float64Array): number => xs.reduce((s, x) => s + x, 0) / xs.length;

/** The definition in plain ops, in float32: what gradients come from. */
function definition(inputs: readonly MxArray[], params: NormParams, normalise: (x: MxArray) => MxArray): MxArray[] {
  const [x, ...rest] = inputs.map((v) => castTo(v, float32));
  const [weight, bias] = params.weight ? rest : [undefined, rest[0]];
  const y = normalise(x as MxArray);
  const scaled = weight ? multiply(y, weight) : y;
  return [castTo(bias ? add(scaled, bias) : scaled, (inputs[0] as MxArray).dtype)];
}
/** The same as a formula on rows: `centre` makes of an element what is scaled. Nothing is rounded before the result is. */
const rowsOf = (centre: (r: RowScope, x: Value) => Value): RowForm<NormParams> => ({
  span: () => 1,
  perRow: false,
  formula(r, [x, ...rest], { eps, weight, bias }) {
    const { e } = r;
    const centred = centre(r, x as Value);
    const squares = e.div(r.reduce("sum", e.mul(centred, centred), float32), r.count(float32));
    let y = e.mul(centred, e.div(e.const("f32", 1), e.sqrt(e.add(squares, e.const("f32", eps)))));
    if (weight) y = e.mul(y, rest[0] as Value);
    return bias ? e.add(y, rest[weight ? 1 : 0] as Value) : y;
  },
});
/** Rows are normalised one by one, so a batch is more rows; weights that differ within the batch take the definition. */
const rules = {
  vjp: "composite",
  jvp: "composite",
  vmap: ({ inputs, batched, params, apply }: Batching<NormParams>): MxArray[] | undefined => (batched.slice(1).some(Boolean) ? undefined : apply(inputs, params)),
} as const;

const applyRms = defineOp<NormParams>({
  name: "rmsNorm",
  ...rules,
  composite: (inputs, params) => definition(inputs, params, (x) => multiply(x, rsqrt(add(mean(square(x), -1, true), params.eps)))),
  infer: (inputs, params) => infer("rmsNorm", inputs, params),
  reference: (data, avals, params) => reference(data, avals, params, (row) => row.map((x) => x / Math.sqrt(average(row.map((v) => v * v)) + params.eps))),
  rows: rowsOf((_r, x) => x),
  kernels: [kernelOf("rms")],
  gpu: gpuNorm("rms"),
});
const applyLayer = defineOp<NormParams>({
  name: "layerNorm",
  ...rules,
  composite: (inputs, params) =>
    definition(inputs, params, (x) => {
      const centred = subtract(x, mean(x, -1, true));
      return multiply(centred, rsqrt(add(mean(square(centred), -1, true), params.eps)));
    }),
  infer: (inputs, params) => infer("layerNorm", inputs, params),
  reference: (data, avals, params) =>
    reference(data, avals, params, (row) => {
      const mean = average(row);
      const deviation = Math.sqrt(average(row.map((x) => (x - mean) ** 2)) + params.eps);
      return row.map((x) => (x - mean) / deviation);
    }),
  rows: rowsOf((r, x) => r.e.sub(x, r.e.div(r.reduce("sum", x, float32), r.count(float32)))),
  kernels: [kernelOf("layer")],
  gpu: gpuNorm("layer"),
});

/** Casts all inputs to their common type and applies. */
function norm(apply: typeof applyRms, x: MxArray, weight: MxArray | undefined, bias: MxArray | undefined, eps: number, s: StreamOrDevice | undefined): MxArray {
  const op = apply.op.name;
  const out = [weight, bias].reduce((d, v) => (v ? promote(d, v.desc.dtype) : d), x.desc.dtype);
  if (!out.isFloat) throw opError(op, `input must be a floating point array, got ${out}`);
  if (typeof eps !== "number") throw opError(op, `eps must be a number, got ${typeof eps}`);
  const inputs = [x, weight, bias].filter((v) => v !== undefined).map((v) => castTo(v, kernelDtype(out), s));
  return castTo(apply(inputs, { eps, weight: weight !== undefined, bias: bias !== undefined }, s)[0] as MxArray, out, s);
}
const optional = (x: ArrayLike | null | undefined): MxArray | undefined => (x === null || x === undefined ? undefined : toArray(x));

/**
 * Root mean square normalisation over the last axis: x / sqrt(mean(x^2) + eps) * weight.
 *
 * @param x floats, [..., N]
 * @param weight [N], or null for none
 * @param eps added to the mean of squares
 * @returns [..., N] of the promoted type of x and weight. Sums are float32 (float64 input is computed in float32 too) and the result is rounded once.
 * @throws when x is 0-d or not of a float type, or weight is not [N]
 */
export function rmsNorm(x: ArrayLike, weight: ArrayLike | null | undefined, eps: number, s?: StreamOrDevice | null): MxArray {
  const { args, stream } = streamArg<[unknown, unknown]>([eps, s]);
  return norm(applyRms, toArray(x), optional(weight), undefined, args[0] as number, stream);
}

/**
 * Layer normalisation over the last axis: (x - mean) / sqrt(variance + eps) * weight + bias.
 *
 * @param x floats, [..., N]
 * @param weight [N], or null for none
 * @param bias [N], or null for none
 * @param eps added to the variance
 * @returns [..., N] of the promoted type of the arrays. Sums are float32 (float64 input is computed in float32 too) and the result is rounded once.
 * @throws when x is 0-d or not of a float type, or weight or bias is not [N]
 */
export function layerNorm(x: ArrayLike, weight: ArrayLike | null | undefined, bias: ArrayLike | null | undefined, eps: number, s?: StreamOrDevice | null): MxArray {
  return norm(applyLayer, toArray(x), optional(weight), optional(bias), eps, streamArg<unknown[]>([s]).stream);
}
