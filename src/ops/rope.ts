/** Rotary position embedding of mx.fast. */
import { type Aval, MxArray, type View } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { bfloat16, float16, float32, int32, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Arg, defineOp, type InputLayout, input, type Kernel, type Launch, output, word } from "../core/op.ts";
import { formatShape } from "../core/shape.ts";
import type { Batching } from "../core/rules.ts";
import { type ArrayLike, streamArg, toArray } from "./convert.ts";
import { broadcastTo, reshape } from "./movement.ts";
import { oneByOne } from "./one-by-one.ts";
import { castTo, kernelDtype, kernelSuffix, mergeDims } from "./norm.ts";
import { gpuRope } from "./rope-gpu.ts";

export interface RopeParams {
  readonly dims: number;
  readonly traditional: boolean;
  /** Unused with freqs. */
  readonly base: number;
  readonly scale: number;
  /** Position of the first row; undefined when input 1 holds it. */
  readonly offset: number | undefined;
  /** The last input holds the frequencies. */
  readonly freqs: boolean;
}
/** The kernel keeps dims / 2 cosines and sines in a thread's scratch of 4 MiB. */
const maxDims = 1 << 19;

function infer(inputs: readonly Aval[], params: RopeParams): Aval[] {
  const op = "rope";
  const x = inputs[0] as Aval;
  const d = x.shape[x.shape.length - 1] as number;
  const { dims } = params;
  if (x.shape.length < 3) throw opError(op, `input must have at least 3 dimensions, got ${x.shape.length}`);
  if (x.dtype !== float32 && x.dtype !== bfloat16 && x.dtype !== float16) throw opError(op, `input must be a floating point array, got ${x.dtype}`);
  if (!Number.isInteger(dims) || dims <= 0 || dims % 2 !== 0) throw opError(op, `dims must be a positive even integer, got ${dims}`);
  if (dims > d || dims > maxDims) throw opError(op, `dims must not exceed the last dimension of the input (${d}) or ${maxDims}, got ${dims}`);
  if (params.offset === undefined) {
    const { shape, dtype } = inputs[1] as Aval;
    const size = shape.reduce((a, b) => a * b, 1);
    if (shape.length > 1 || (size !== 1 && size !== x.shape[0])) throw opError(op, `offset must be a scalar or have ${x.shape[0]} elements, got shape ${formatShape(shape)}`);
    if (dtype !== int32 && dtype !== uint32) throw opError(op, `offset must be of an integer type, got ${dtype}`);
  }
  if (params.freqs) {
    const { shape } = inputs[inputs.length - 1] as Aval;
    if (shape.length !== 1 || shape[0] !== dims / 2) throw opError(op, `freqs must have shape (${dims / 2}), got ${formatShape(shape)}`);
  }
  return [{ shape: x.shape, dtype: x.dtype }];
}

/** All dimensions between batch and position, as one dimension of heads if their strides allow it. */
const headDims = (x: View): { size: number; stride: number }[] => mergeDims(x.shape.slice(1, -2), x.strides.slice(1, -2));

function layout(inputs: readonly View[]): readonly InputLayout[] {
  const x = inputs[0] as View;
  return x.shape.length <= 4 || headDims(x).length <= 1 ? anyRows : allRows;
}
const allRows: readonly InputLayout[] = ["row"];
const anyRows: readonly InputLayout[] = ["last", "row"];

const float64 = new Float64Array(1);
const halves = new Int32Array(float64.buffer);
/** The two words of a float64. */
function float64Words(x: number): [number, number] {
  float64[0] = x;
  return [halves[0] as number, halves[1] as number];
}

function launch(inputs: readonly View[], params: RopeParams): Launch {
  const x = inputs[0] as View;
  const rank = x.shape.length;
  const [B, T, D] = [x.shape[0] as number, x.shape[rank - 2] as number, x.shape[rank - 1] as number];
  const heads = headDims(x)[0];
  const H = x.shape.slice(1, -2).reduce((a, b) => a * b, 1);
  const offsets = inputs[1];
  const perBatch = params.offset === undefined && (offsets as View).size > 1 ? 1 : 0;
  const args: Arg[] = [
    input(0), output(0), params.freqs ? input(inputs.length - 1) : 0, params.offset === undefined ? input(1) : word(params.offset), perBatch,
    H, T, D, params.dims, x.strides[0] as number, heads?.stride ?? 0, x.strides[rank - 2] as number, params.traditional ? 1 : 0, 0,
    ...float64Words(params.scale), ...float64Words(params.base ** (-2 / params.dims)),
  ];
  return { steps: [{ entry: `rope/rope_${kernelSuffix(x.dtype)}`, args, units: x.size === 0 ? 0 : B * T, grain: Math.max(1, Math.floor(16384 / Math.max(1, H * D))) }] };
}

/** Plain float64: pairs of elements are turned by the angle position * scale * frequency. */
function reference(data: readonly Float64Array[], avals: readonly Aval[], params: RopeParams): Float64Array[] {
  const out = (data[0] as Float64Array).slice();
  const { shape } = avals[0] as Aval;
  const [T, D] = shape.slice(-2) as [number, number];
  const half = params.dims / 2;
  const rowsPerBatch = out.length / D / (shape[0] as number);
  const freqs = params.freqs ? (data[data.length - 1] as Float64Array) : undefined;
  for (let row = 0; row < out.length / D; row++) {
    const offsets = data[1] as Float64Array;
    const offset = params.offset ?? (offsets[offsets.length > 1 ? Math.floor(row / rowsPerBatch) : 0] as number);
    for (let i = 0; i < half; i++) {
      const angle = (offset + (row % T)) * params.scale * (freqs ? 1 / (freqs[i] as number) : params.base ** (-i / half));
      const p = row * D + (params.traditional ? 2 * i : i);
      const q = p + (params.traditional ? 1 : half);
      const [a, b] = [out[p] as number, out[q] as number];
      out[p] = a * Math.cos(angle) - b * Math.sin(angle);
      out[q] = a * Math.sin(angle) + b * Math.cos(angle);
    }
  }
  return [out];
}

const kernel: Kernel<RopeParams> = { name: "wasm/rope/rope", layout, inPlace: [0], launch: (inputs, _outputs, params) => launch(inputs, params) };
/** Rows of the batch and of x's first dimension become one dimension, each with its own offset. */
function batch(b: Batching<RopeParams>): MxArray[] {
  const { inputs, batched, size, spread, params, apply: again } = b;
  if (params.freqs && batched[inputs.length - 1]) return oneByOne(b);
  const x = spread(0);
  const [first, ...rest] = x.shape.slice(1) as [number, ...number[]];
  const others = inputs.slice(1);
  if (params.offset === undefined) {
    const offset = inputs[1] as MxArray;
    const own = batched[1] ? reshape(offset, [size, -1]) : reshape(offset, [1, -1]);
    others[0] = reshape(broadcastTo(own, [size, first]), [size * first]);
  }
  return [reshape(again([reshape(x, [size * first, ...rest]), ...others], params)[0] as MxArray, x.shape)];
}
const apply = defineOp<RopeParams>({
  name: "rope",
  infer,
  reference,
  // A rotation: its transpose turns the other way.
  vjp: ({ inputs: [, ...rest], cotangents: [g], params, apply: again }) => again([g as MxArray, ...rest], { ...params, scale: -params.scale }),
  jvp: ({ inputs: [, ...rest], tangents: [t], params, apply: again }) => (t ? again([t, ...rest], params) : [undefined]),
  vmap: batch,
  kernels: [kernel],
  gpu: gpuRope,
});

/** The offset as a parameter (number) or as an input (array). */
function offsetArgument(offset: number | MxArray, s: StreamOrDevice | undefined): { offset: number | undefined; inputs: MxArray[] } {
  if (!(offset instanceof MxArray)) {
    if (!Number.isInteger(offset) || Math.abs(offset) >= 2 ** 31) throw opError("rope", `offset must be an integer or an array, got ${offset}`);
    return { offset, inputs: [] };
  }
  const { dtype } = offset;
  if (!dtype.isInteger) throw opError("rope", `offset must be of an integer type, got ${dtype}`);
  return { offset: undefined, inputs: [dtype === uint32 ? offset : castTo(offset, int32, s)] };
}

/**
 * Rotary position embedding (Su et al. 2021, "RoFormer"). The first `dims` elements of each row are taken as pairs and each pair i is turned by
 * the angle (offset + position) * scale / base^(2 i / dims), or (offset + position) * scale / freqs[i]. Angles are computed in float64.
 *
 * @param x floats, [B, ..., T, D]; the position runs along the second last axis
 * @param dims even number of leading elements to turn, at most D
 * @param traditional pairs are (2 i, 2 i + 1); otherwise (i, i + dims / 2)
 * @param base of the frequencies; null or undefined when freqs are given
 * @param scale factor of the positions
 * @param offset position of the first row: an integer, or an integer array, 0-d, [1] or [B]
 * @param freqs wavelengths / (2 pi), [dims / 2], instead of base
 * @returns array like x, rounded once
 * @throws when both or neither of base and freqs are given, or a shape or type does not fit
 */
export function rope(
  x: ArrayLike, dims: number, traditional: boolean, base: number | null | undefined, scale: number, offset: number | MxArray, freqs?: ArrayLike | StreamOrDevice | null, s?: StreamOrDevice | null,
): MxArray {
  const { args, stream } = streamArg<unknown[]>([freqs, s]);
  const f = args[0] as ArrayLike | null | undefined;
  const hasFreqs = f !== null && f !== undefined;
  const hasBase = base !== null && base !== undefined;
  if (hasFreqs === hasBase) throw opError("rope", `exactly one of base and freqs must be given, got ${hasBase ? "both" : "neither"}`);
  if (typeof scale !== "number" || (hasBase && typeof base !== "number")) throw opError("rope", `base and scale must be numbers, got ${typeof base} and ${typeof scale}`);
  const a = toArray(x);
  const { dtype } = a;
  if (!dtype.isFloat) throw opError("rope", `input must be a floating point array, got ${dtype}`);
  const at = offsetArgument(offset, stream);
  const inputs = [castTo(a, kernelDtype(dtype), stream), ...at.inputs, ...(hasFreqs ? [castTo(toArray(f), float32, stream)] : [])];
  const params = { dims, traditional: Boolean(traditional), base: hasBase ? base : 1, scale, offset: at.offset, freqs: hasFreqs };
  return castTo(apply(inputs, params, stream)[0] as MxArray, dtype, stream);
}
