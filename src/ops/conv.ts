/** Convolutions over channels-last arrays: convGeneral, conv1d to conv3d, their transposed forms, convolve. */
import type { Aval, MxArray } from "../core/array.ts";
import { isStreamOrDevice, type StreamOrDevice } from "../core/device.ts";
import { promote } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { defineOp } from "../core/op.ts";
import { formatShape, sizeOf } from "../core/shape.ts";
import { astype } from "./cast.ts";
import { convKernels, type ConvParams } from "./conv-launch.ts";
import { convRules } from "./conv-rules.ts";
import { type ArrayLike, streamArg, toArray } from "./convert.ts";
import { reshape } from "./movement.ts";
import { within } from "./scope.ts";
import { sliceAxis, sliceRegion } from "./region.ts";

type S = StreamOrDevice | null;
type Sizes = number | readonly number[];

/** Spatial sizes of a convolution's output. */
function outputSizes(x: Aval, w: Aval, p: ConvParams): number[] {
  return x.shape.slice(1, -1).map((n, i) => {
    const extent = (size: number, dilation: number): number => 1 + dilation * (size - 1);
    const taken = extent(w.shape[i + 1] as number, p.kernelDilation[i] as number);
    const given = extent(n, p.inputDilation[i] as number) + (p.paddingLow[i] as number) + (p.paddingHigh[i] as number);
    const size = Math.floor((given - taken) / (p.stride[i] as number)) + 1;
    if (given < taken || (w.shape[i + 1] as number) < 1) {
      throw opError("conv", `spatial dimensions of the input after padding must not be smaller than the kernel's, got axis ${i + 1} of input ${formatShape(x.shape)}, padding ${formatShape(p.paddingLow)} and ${formatShape(p.paddingHigh)}, weight ${formatShape(w.shape)}`);
    }
    if (Math.max(given, taken) >= 2 ** 31) throw opError("conv", `sizes must be below 2^31, got ${Math.max(given, taken)}`);
    return size;
  });
}

/** Calls `visit` for every output pixel and tap that lies inside the input, with their row-major numbers. */
function forEachTap(x: Aval, w: Aval, out: Aval, p: ConvParams, visit: (pixel: number, tap: number, from: number) => void): void {
  const [inSizes, kernel, outSizes] = [x.shape.slice(1, -1), w.shape.slice(1, -1), out.shape.slice(1, -1)];
  const at = (i: number, sizes: readonly number[]): number[] => {
    const list = new Array<number>(sizes.length);
    for (let d = sizes.length - 1; d >= 0; d--) {
      list[d] = i % (sizes[d] as number);
      i = Math.floor(i / (sizes[d] as number));
    }
    return list;
  };
  const [pixels, taps] = [sizeOf(outSizes), sizeOf(kernel)];
  for (let image = 0; image < (x.shape[0] as number); image++) {
    for (let pixel = 0; pixel < pixels; pixel++) {
      const o = at(pixel, outSizes);
      for (let tap = 0; tap < taps; tap++) {
        let from = image;
        for (const [d, k] of at(tap, kernel).entries()) {
          const t = p.flip ? (kernel[d] as number) - 1 - k : k;
          const dilated = (o[d] as number) * (p.stride[d] as number) - (p.paddingLow[d] as number) + t * (p.kernelDilation[d] as number);
          const place = dilated / (p.inputDilation[d] as number);
          from = Number.isInteger(place) && place >= 0 && place < (inSizes[d] as number) ? from * (inSizes[d] as number) + place : Number.NaN;
        }
        if (!Number.isNaN(from)) visit(image * pixels + pixel, tap, from);
      }
    }
  }
}

/** Inputs: x (N, ...spatial, C), weight (O, ...kernel, C / groups). */
const applyConvolution = defineOp<ConvParams>({
  name: "convolution",
  infer: ([x, w], p) => {
    const [a, b] = [x as Aval, w as Aval];
    return [{ shape: [a.shape[0] as number, ...outputSizes(a, b, p), b.shape[0] as number], dtype: a.dtype }];
  },
  reference: ([x, w], [ax, aw], p, [ao]) => {
    const [a, b, o] = [ax as Aval, aw as Aval, ao as Aval];
    const channels = a.shape[a.shape.length - 1] as number;
    const filters = b.shape[0] as number;
    const [own, each] = [channels / p.groups, filters / p.groups];
    const taps = sizeOf(b.shape.slice(1, -1));
    const out = new Float64Array(sizeOf(o.shape));
    forEachTap(a, b, o, p, (pixel, tap, from) => {
      for (let f = 0; f < filters; f++) {
        const first = from * channels + Math.floor(f / each) * own;
        let sum = 0;
        for (let c = 0; c < own; c++) sum += (x?.[first + c] as number) * (w?.[(f * taps + tap) * own + c] as number);
        out[pixel * filters + f] = (out[pixel * filters + f] as number) + sum;
      }
    });
    return [out];
  },
  ...convRules,
  kernels: convKernels,
});

/** Throws unless input and weight fit each other for a convolution over `dims` spatial dimensions. */
function checkOperands(x: Aval, w: Aval, dims: number, groups: number): void {
  if (!Number.isInteger(groups) || groups < 1) throw opError("conv", `groups must be a positive integer, got ${groups}`);
  if (groups !== 1 && x.shape.length !== 3 && x.shape.length !== 4) throw opError("conv", `groups are only supported in 1D and 2D convolutions, got ${groups} groups and input ${formatShape(x.shape)}`);
  if (dims < 1 || dims > 3) throw opError("conv", `inputs must have 1 to 3 spatial dimensions in the format (N, ..., C), got ${formatShape(x.shape)}`);
  if (!x.dtype.isFloat) throw opError("conv", `only real floating point types are supported, got an input of ${x.dtype}`);
  for (const [name, a, format] of [["input", x, "(N, ..., C)"], ["weight", w, "(O, ..., C)"]] as const) {
    if (a.shape.length !== dims + 2) throw opError("conv", `a ${dims}D convolution needs ${name}s with ${dims + 2} dimensions in the format ${format}, got ${formatShape(a.shape)}`);
  }
  const [channels, filters, own] = [x.shape[dims + 1] as number, w.shape[0] as number, w.shape[dims + 1] as number];
  if (channels % groups !== 0) throw opError("conv", `input channels must be divisible by groups, got input ${formatShape(x.shape)} and ${groups} groups`);
  if (filters % groups !== 0) throw opError("conv", `output channels must be divisible by groups, got ${filters} output channels and ${groups} groups`);
  if (channels !== groups * own) throw opError("conv", `channels of input and weight times groups must be equal, got input ${formatShape(x.shape)}, weight ${formatShape(w.shape)} and ${groups} group${groups === 1 ? "" : "s"}`);
}

/** One entry per spatial dimension from a number, a list, or nothing. */
function perDimension(name: string, value: Sizes | null | undefined, dims: number, missing: number, least: number): number[] {
  const given = value === undefined || value === null ? [missing] : typeof value === "number" ? [value] : [...value];
  const list = given.length === 1 ? new Array<number>(dims).fill(given[0] as number) : given.length === 0 ? new Array<number>(dims).fill(missing) : given;
  if (list.length !== dims) throw opError("conv", `${name} must have one entry per spatial dimension, got ${JSON.stringify(value)} for a ${dims}D convolution`);
  for (const v of list) {
    if (!Number.isInteger(v) || v < least || Math.abs(v) >= 2 ** 31) throw opError("conv", `${name} must hold ${least > 0 ? "positive " : ""}integers, got ${JSON.stringify(value)}`);
  }
  return list;
}

const noLeast = Number.NEGATIVE_INFINITY;
type Padding = Sizes | readonly [readonly number[], readonly number[]];
interface Settings {
  stride?: Sizes | null | undefined;
  paddingLow?: Sizes | null | undefined;
  paddingHigh?: Sizes | null | undefined;
  kernelDilation?: Sizes | null | undefined;
  inputDilation?: Sizes | null | undefined;
  groups?: number | null | undefined;
  flip?: boolean | null | undefined;
}
/** Checks, promotes, cuts off what negative padding removes, and applies the op. `dims` undefined: as many as the input has. */
function convolution(x: ArrayLike, w: ArrayLike, dims: number | undefined, settings: Settings, s: S | undefined): MxArray {
  const [a, b] = [toArray(x), toArray(w)];
  const rank = dims ?? a.ndim - 2;
  const groups = settings.groups ?? 1;
  checkOperands(a.desc, b.desc, rank, groups);
  const dtype = promote(a.dtype, b.dtype);
  if (!dtype.isFloat) throw opError("conv", `only real floating point types are supported, got ${a.dtype} and ${b.dtype}`);
  const list = (name: keyof Settings, label: string, missing: number, least: number): number[] => perDimension(label, settings[name] as Sizes, rank, missing, least);
  const [low, high] = [list("paddingLow", "padding", 0, noLeast), list("paddingHigh", "padding", 0, noLeast)];
  const params: ConvParams = {
    stride: list("stride", "stride", 1, 1), kernelDilation: list("kernelDilation", "kernel dilation", 1, 1), inputDilation: list("inputDilation", "input dilation", 1, 1),
    paddingLow: low.map((v) => Math.max(0, v)), paddingHigh: high.map((v) => Math.max(0, v)), groups, flip: settings.flip === true,
  };
  return within(() => {
    let cut = a.dtype === dtype ? a : astype(a, dtype, s);
    for (let i = 0; i < rank; i++) {
      const [from, size] = [Math.max(0, -(low[i] as number)), a.desc.shape[i + 1] as number];
      const to = size - Math.max(0, -(high[i] as number));
      if (from > 0 || to < size) cut = sliceAxis(cut, i + 1, Math.min(from, size), Math.max(to, Math.min(from, size)), s);
    }
    return applyConvolution([cut, b.dtype === dtype ? b : astype(b, dtype, s)], params, s)[0] as MxArray;
  });
}

/**
 * General convolution (cross-correlation unless `flip`). input (N, ...spatial, C) with 1 to 3 spatial dimensions and weight (O, ...kernel, C / groups)
 * give (N, ...out, O), in the dtype both promote to (real floats). `stride`, `kernelDilation` and `inputDilation`: one number or one per dimension.
 * `padding`: zeros on both sides, or [before, after] as two lists; negative padding cuts. Sums of float16 and bfloat16 are made in float32 and rounded once.
 */
export function convGeneral(
  input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Padding | S, kernelDilation?: Sizes | S, inputDilation?: Sizes | S, groups?: number | S, flip?: boolean | S, s?: S,
): MxArray {
  return within(() => {
    const { args, stream } = streamArg([stride, padding, kernelDilation, inputDilation, groups, flip, s]);
    const [step, pad, kernel, dilated, count, turn] = args as [Sizes, Padding, Sizes, Sizes, number, boolean];
    const pairs = Array.isArray(pad) && pad.some((v) => Array.isArray(v));
    if (pairs && (pad.length !== 2 || !pad.every((v) => Array.isArray(v)))) throw opError("conv", `padding must be a number, a list, or two lists, got ${JSON.stringify(pad)}`);
    const [paddingLow, paddingHigh] = pairs ? (pad as [number[], number[]]) : [pad as Sizes, pad as Sizes];
    return convolution(input, weight, undefined, { stride: step, paddingLow, paddingHigh, kernelDilation: kernel, inputDilation: dilated, groups: count, flip: turn }, stream);
  });
}

function plain(dims: number, x: ArrayLike, w: ArrayLike, rest: unknown[]): MxArray {
  const { args, stream } = streamArg(rest);
  const [stride, padding, kernelDilation, groups] = args as [Sizes, Sizes, Sizes, number];
  const a = toArray(x);
  // In MLX conv1d takes its one number for every dimension that there is.
  return convolution(a, w, dims === 1 && a.ndim > 3 ? undefined : dims, { stride, paddingLow: padding, paddingHigh: padding, kernelDilation, groups }, stream);
}
/** 1D convolution: input (N, L, C) and weight (O, K, C / groups) give (N, out, O). See `convGeneral`. */
export function conv1d(input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Sizes | S, dilation?: Sizes | S, groups?: number | S, s?: S): MxArray {
  return within(() => plain(1, input, weight, [stride, padding, dilation, groups, s]));
}
/** 2D convolution: input (N, H, W, C) and weight (O, KH, KW, C / groups) give (N, outH, outW, O). See `convGeneral`. */
export function conv2d(input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Sizes | S, dilation?: Sizes | S, groups?: number | S, s?: S): MxArray {
  return within(() => plain(2, input, weight, [stride, padding, dilation, groups, s]));
}
/** 3D convolution: input (N, D, H, W, C) and weight (O, KD, KH, KW, C) give (N, outD, outH, outW, O); groups must be 1. See `convGeneral`. */
export function conv3d(input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Sizes | S, dilation?: Sizes | S, groups?: number | S, s?: S): MxArray {
  return within(() => plain(3, input, weight, [stride, padding, dilation, groups, s]));
}

/** A transposed convolution is one with a dilated input and a flipped kernel. */
function transposed(dims: number, x: ArrayLike, w: ArrayLike, rest: unknown[]): MxArray {
  const { args, stream } = streamArg(rest);
  const [a, b] = [toArray(x), toArray(w)];
  const [given, pad, dilation, groups, extra] = args as [Sizes, Sizes, Sizes, number, Sizes];
  checkOperands(a.desc, b.desc, dims, groups ?? 1);
  const stride = perDimension("stride", given, dims, 1, 1);
  const [padding, output] = [perDimension("padding", pad, dims, 0, noLeast), perDimension("output padding", extra, dims, 0, noLeast)];
  const kernelDilation = perDimension("kernel dilation", dilation, dims, 1, 1);
  const paddingLow = padding.map((p, i) => (kernelDilation[i] as number) * ((b.desc.shape[i + 1] as number) - 1) - p);
  const paddingHigh = paddingLow.map((p, i) => p + (output[i] as number));
  return convolution(a, b, dims, { stride: 1, paddingLow, paddingHigh, kernelDilation, inputDilation: stride, groups, flip: true }, stream);
}
/**
 * Transposed 1D convolution: input (N, L, C) and weight (O, K, C / groups) give (N, out, O), out = (L - 1) * stride - 2 * padding + dilation * (K - 1) + 1 +
 * outputPadding. The gradient of `conv1d` with respect to its input, for a weight with input and output channels exchanged.
 */
export function convTranspose1d(input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Sizes | S, dilation?: Sizes | S, groups?: number | S, outputPadding?: Sizes | S, s?: S): MxArray {
  return within(() => transposed(1, input, weight, [stride, padding, dilation, groups, outputPadding, s]));
}
/** Transposed 2D convolution: input (N, H, W, C) and weight (O, KH, KW, C / groups) give (N, outH, outW, O); sizes as in `convTranspose1d`. */
export function convTranspose2d(input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Sizes | S, dilation?: Sizes | S, groups?: number | S, outputPadding?: Sizes | S, s?: S): MxArray {
  return within(() => transposed(2, input, weight, [stride, padding, dilation, groups, outputPadding, s]));
}
/** Transposed 3D convolution: input (N, D, H, W, C) and weight (O, KD, KH, KW, C) give (N, outD, outH, outW, O); sizes as in `convTranspose1d`. */
export function convTranspose3d(input: ArrayLike, weight: ArrayLike, stride?: Sizes | S, padding?: Sizes | S, dilation?: Sizes | S, groups?: number | S, outputPadding?: Sizes | S, s?: S): MxArray {
  return within(() => transposed(3, input, weight, [stride, padding, dilation, groups, outputPadding, s]));
}

/**
 * Discrete convolution of two 1-D arrays (the longer one first, whatever their order): sums of products with one of them reversed. `mode`: "full" (all
 * overlaps, n + m - 1 values, the default), "same" (as many values as the longer array), "valid" (full overlaps only).
 */
export function convolve(a: ArrayLike, v: ArrayLike, mode?: string | S, s?: S): MxArray {
  return within(() => {
    const stream = s ?? (isStreamOrDevice(mode) ? mode : undefined);
    const how = typeof mode === "string" && !isStreamOrDevice(mode) ? mode : "full";
    const [x, y] = [toArray(a), toArray(v)];
    if (x.ndim !== 1 || y.ndim !== 1) throw opError("convolve", `inputs must have one dimension, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    if (x.size === 0 || y.size === 0) throw opError("convolve", `inputs must not be empty, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    const [long, short] = x.size < y.size ? [y, x] : [x, y];
    const n = short.size;
    const paddings: Readonly<Record<string, readonly [number, number]>> = { full: [n - 1, n - 1], valid: [0, 0], same: [Math.floor(n / 2), Math.floor((n - 1) / 2)] };
    const padding = paddings[how];
    if (!padding) throw opError("convolve", `mode must be "full", "same" or "valid", got ${JSON.stringify(mode)}`);
    return within(() => {
      const row = (m: MxArray): MxArray => reshape(m, [1, m.size, 1], stream);
      const reversed = sliceRegion(short, { start: [n - 1], step: [-1], shape: [n] }, stream);
      return reshape(convolution(row(long), row(reversed), 1, { paddingLow: padding[0], paddingHigh: padding[1] }, stream), [-1], stream);
    });
  });
}
