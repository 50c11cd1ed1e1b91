/** Derivatives and batching of convolutions: convolutions again. */
import type { MxArray } from "../core/array.ts";
import type { Op } from "../core/op.ts";
import type { Batching, Reverse } from "../core/rules.ts";
import { add } from "./binary.ts";
import type { ConvParams } from "./conv-launch.ts";
import { zeros } from "./creation.ts";
import { moveaxis, reshape, swapaxes, transpose } from "./movement.ts";
import { sliceAxis, sliceRegion } from "./region.ts";

type Rule = Pick<Op<ConvParams>, "vjp" | "jvp" | "vmap">;
const sizeAt = (a: MxArray, axis: number): number => a.desc.shape[axis] as number;
const extent = (size: number, dilation: number): number => 1 + dilation * (size - 1);

/** Gradients of convolutions need paddings of a dilated array that may be negative: those cut off whole elements, and pad what that was too much. */
function cut(a: MxArray, low: readonly number[], high: readonly number[], dilation: readonly number[]): { array: MxArray; low: number[]; high: number[] } | undefined {
  let array = a;
  const paddings = [[...low], [...high]] as [number[], number[]];
  for (const [i, step] of dilation.entries()) {
    const [from, to] = paddings.map((p) => Math.max(0, Math.ceil(-(p[i] as number) / step))) as [number, number];
    const size = sizeAt(array, i + 1);
    if (from + to >= size) return undefined;
    if (from + to > 0) array = sliceAxis(array, i + 1, from, size - to);
    (paddings[0][i] as number) += from * step;
    (paddings[1][i] as number) += to * step;
  }
  return { array, low: paddings[0], high: paddings[1] };
}

/** Weight (O, ...kernel, C / groups) with the channels of each group exchanged: (C, ...kernel, O / groups). */
function exchanged(w: MxArray, groups: number): MxArray {
  const { shape } = w.desc;
  const [each, own] = [(shape[0] as number) / groups, shape[shape.length - 1] as number];
  const kernel = shape.slice(1, -1);
  return reshape(swapaxes(reshape(w, [groups, each, ...kernel, own]), 1, -1), [groups * own, ...kernel, each]);
}

/** Cotangent of the input: the cotangent of the output under the turned kernel, dilated by the stride. */
function inputGradient({ inputs, cotangents, params: p, apply }: Reverse<ConvParams>): MxArray {
  const [x, w, g] = [inputs[0] as MxArray, inputs[1] as MxArray, cotangents[0] as MxArray];
  const reach = p.kernelDilation.map((d, i) => d * (sizeAt(w, i + 1) - 1));
  const low = reach.map((r, i) => r - (p.paddingLow[i] as number));
  const high = p.inputDilation.map((d, i) => extent(sizeAt(x, i + 1), d) - extent(sizeAt(g, i + 1), p.stride[i] as number) + (p.paddingLow[i] as number));
  const c = cut(g, low, high, p.stride);
  if (!c) return zeros(x.desc.shape, x.dtype);
  const turned: ConvParams = { stride: p.inputDilation, paddingLow: c.low, paddingHigh: c.high, kernelDilation: p.kernelDilation, inputDilation: p.stride, groups: p.groups, flip: !p.flip };
  return apply([c.array, exchanged(w, p.groups)], turned)[0] as MxArray;
}

/** Cotangent of the weight: the input with images as channels under the cotangent of the output as a kernel; stride and dilation change places. */
function weightGradient({ inputs, cotangents, params: p, apply }: Reverse<ConvParams>): MxArray {
  const [x, w, g] = [inputs[0] as MxArray, inputs[1] as MxArray, cotangents[0] as MxArray];
  const dims = p.stride.length;
  const high = p.kernelDilation.map((d, i) => extent(sizeAt(w, i + 1), d) - 1 + extent(sizeAt(g, i + 1), p.stride[i] as number) - extent(sizeAt(x, i + 1), p.inputDilation[i] as number) - (p.paddingLow[i] as number));
  const c = cut(x, p.paddingLow, high, p.inputDilation);
  if (!c) return zeros(w.desc.shape, w.dtype);
  const { shape } = c.array.desc;
  const [images, spatial, channels] = [shape[0] as number, shape.slice(1, -1), shape[dims + 1] as number];
  const order = spatial.map((_, i) => i + 1);
  // (N, ..., groups, own) as (own, ..., groups * N): a group's images are the channels of that group.
  const split = reshape(c.array, [images, ...spatial, p.groups, channels / p.groups]);
  const turned = reshape(transpose(split, [dims + 2, ...order, dims + 1, 0]), [channels / p.groups, ...spatial, p.groups * images]);
  const settings: ConvParams = { stride: p.kernelDilation, paddingLow: c.low, paddingHigh: c.high, kernelDilation: p.stride, inputDilation: p.inputDilation, groups: p.groups, flip: false };
  const taps = swapaxes(apply([turned, swapaxes(g, 0, -1)], settings)[0] as MxArray, 0, -1);
  if (!p.flip) return taps;
  const { shape: to } = taps.desc;
  const kernel = to.map((_, i) => i > 0 && i <= dims);
  return sliceRegion(taps, { start: to.map((n, i) => (kernel[i] ? n - 1 : 0)), step: kernel.map((k) => (k ? -1 : 1)), shape: to });
}

/** A batch of inputs is more images; a batch of weights more filters; a batch of both more groups. */
function batchConvolution({ inputs, batched, size, spread, params: p, apply }: Batching<ConvParams>): MxArray[] {
  if (!batched[1]) {
    const { shape } = (inputs[0] as MxArray).desc;
    const [y] = apply([reshape(inputs[0] as MxArray, [size * (shape[1] as number), ...shape.slice(2)]), inputs[1] as MxArray], p) as [MxArray];
    return [reshape(y, [size, shape[1] as number, ...y.desc.shape.slice(1)])];
  }
  const w = inputs[1] as MxArray;
  const filters = sizeAt(w, 1);
  const merged = reshape(w, [size * filters, ...w.desc.shape.slice(2)]);
  const together = batched[0] || p.groups > 1;
  const x = together ? spread(0) : (inputs[0] as MxArray);
  // Channels (B, C) become B * C.
  const wide = together ? moveaxis(x, 0, -2) : x;
  const { shape } = wide.desc;
  const channels = together ? reshape(wide, [...shape.slice(0, -2), size * (shape[shape.length - 1] as number)]) : wide;
  const [y] = apply([channels, merged], together ? { ...p, groups: p.groups * size } : p) as [MxArray];
  return [moveaxis(reshape(y, [...y.desc.shape.slice(0, -1), size, filters]), -2, 0)];
}

export const convRules: Rule = {
  vjp: (r) => [r.needs[0] ? inputGradient(r) : undefined, r.needs[1] ? weightGradient(r) : undefined],
  jvp: ({ inputs: [x, w], tangents: [s, t], params, apply }) => {
    const left = s && apply([s, w as MxArray], params)[0];
    const right = t && apply([x as MxArray, t], params)[0];
    return [left && right ? add(left, right) : (left ?? right)];
  },
  vmap: batchConvolution,
};
