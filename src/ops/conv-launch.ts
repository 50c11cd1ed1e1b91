/** Kernels of the convolutions (assembly/templates/conv.ts): when each may run and what its words are. */
import type { View } from "../core/array.ts";
import { float64 } from "../core/dtype.ts";
import { type Arg, input, type Kernel, type Launch, output, scratch, type Step } from "../core/op.ts";
import { sizeOf } from "../core/shape.ts";
import { ceilTo, clamp, kStep, launchProduct, packedStep, type Product, rowGroup } from "./gemm.ts";

/** Parameters of a convolution; lists have one entry per spatial dimension, none is negative. */
export interface ConvParams {
  readonly stride: readonly number[];
  readonly paddingLow: readonly number[];
  readonly paddingHigh: readonly number[];
  readonly kernelDilation: readonly number[];
  readonly inputDilation: readonly number[];
  readonly groups: number;
  readonly flip: boolean;
}

/** Packed patches take at most this many bytes at a time, so that they are still in a cache when the product reads them. */
const packedBytes = 4 << 20;

/** Sizes that all launches need. */
interface Sizes {
  readonly channels: number;
  readonly filters: number;
  /** Channels and filters of one group. */
  readonly ownChannels: number;
  readonly ownFilters: number;
  /** Positions of the kernel. */
  readonly taps: number;
  /** Output pixels of all images. */
  readonly pixels: number;
}
function sizesOf(x: View, w: View, out: View, { groups }: ConvParams): Sizes {
  const channels = x.shape[x.shape.length - 1] as number;
  const filters = w.shape[0] as number;
  return { channels, filters, ownChannels: channels / groups, ownFilters: filters / groups, taps: sizeOf(w.shape.slice(1, -1)), pixels: sizeOf(out.shape.slice(0, -1)) };
}

/** A list per spatial dimension as depth, height and width. */
const triple = (list: readonly number[], missing: number): number[] => [...new Array<number>(3 - list.length).fill(missing), ...list];
const spatial = (v: View): readonly number[] => v.shape.slice(1, -1);
const geometry = (x: View, w: View, out: View, p: ConvParams): number[] => [
  ...triple(spatial(x), 1), ...triple(spatial(out), 1), ...triple(spatial(w), 1), ...triple(p.stride, 1), ...triple(p.paddingLow, 0),
  ...triple(p.kernelDilation, 1), ...triple(p.inputDilation, 1), Number(p.flip),
];
const all = (list: readonly number[], value: number): boolean => list.every((v) => v === value);

/** Kernels of one position that visit every pixel once: a plain product of pixels and weights. */
const pointwise: Kernel<ConvParams> = {
  name: "wasm/gemm/gemm",
  gate: {
    refuse: ([, w], p) =>
      p.groups === 1 && all(spatial(w as View), 1) && all([...p.stride, ...p.inputDilation], 1) && all([...p.paddingLow, ...p.paddingHigh], 0)
        ? undefined
        : "cannot: only kernels of one position, without stride, padding, dilation or groups",
  },
  launch: ([x, w], [out], p) => {
    const { channels: K, filters: N, pixels: M } = sizesOf(x as View, w as View, out as View, p);
    const none = { shape: [], strides: [] };
    const a = { at: input(0), row: K, column: 1, matrices: none };
    return launchProduct({ dtype: (out as View).dtype, batch: [], M, N, K, a, b: { at: input(1), row: 1, column: K, matrices: none }, alpha: 1, beta: 0 });
  },
};

/** One filter per channel. */
const depthwise: Kernel<ConvParams> = {
  name: "wasm/conv/depthwise",
  gate: {
    refuse: ([x, w], p) => {
      const channels = (x as View).shape[(x as View).shape.length - 1] as number;
      if (p.groups !== channels || (w as View).shape[0] !== channels) return "cannot: only one filter per channel and one channel per group";
      if (!all(p.inputDilation, 1)) return "cannot: input dilation";
      if ((x as View).dtype === float64) return "cannot: float64";
      return channels < 4 ? "slower: fewer than 4 channels" : undefined;
    },
  },
  launch: ([x, w], [out], p) => {
    const { channels, taps, pixels } = sizesOf(x as View, w as View, out as View, p);
    if (pixels === 0) return { steps: [] };
    const code = (out as View).dtype.code;
    const order: Step = { entry: "conv/taps", args: [input(1), scratch(0), code, channels, taps, Number(p.flip)], units: taps, grain: clamp(16384 / channels, 1, taps) };
    const args: Arg[] = [input(0), scratch(0), output(0), code, channels, ...geometry(x as View, w as View, out as View, p)];
    const main: Step = { entry: "conv/depthwise", args, units: pixels, grain: clamp((1 << 17) / (channels * taps), 1, 4096) };
    return { steps: [order, main], scratch: [Math.max(64, channels * taps * 4)] };
  },
};

/** Product of the patches under the kernel with the weights. Patches are packed as the product reads them, a few megabytes at a time. */
const packed: Kernel<ConvParams> = {
  name: "wasm/conv/pack",
  gate: {
    refuse: ([x, w], p) => {
      if ((x as View).dtype === float64) return "cannot: float64";
      return p.groups > 1 && ((w as View).shape[0] as number) < 4 * p.groups ? "slower: groups with fewer than 4 filters" : undefined;
    },
  },
  launch: ([x, w], [out], p) => packedLaunch(x as View, w as View, out as View, p),
};

function packedLaunch(x: View, w: View, out: View, p: ConvParams): Launch {
  const { channels, filters, ownChannels, ownFilters, taps, pixels } = sizesOf(x, w, out, p);
  if (pixels * filters === 0) return { steps: [] };
  const K = taps * ownChannels;
  const rowBytes = ceilTo(K, kStep) * 4;
  const atOnce = Math.min(ceilTo(pixels, rowGroup), Math.max(rowGroup, Math.floor(packedBytes / Math.max(1, rowBytes * p.groups) / rowGroup) * rowGroup));
  const width = p.kernelDilation.length - 1;
  // Along the width, taps are neighbours in memory when nothing lies between them; with one tap there is nothing to be between.
  const single = (w.shape[w.shape.length - 2] as number) === 1;
  const neighbours = p.groups === 1 && p.inputDilation[width] === 1 && (single || (p.kernelDilation[width] === 1 && !p.flip));
  const product: Product = {
    dtype: out.dtype, batch: [p.groups], M: pixels, N: ownFilters, K, alpha: 1, beta: 0, out: [filters, 1], outMatrix: ownFilters,
    a: { at: input(0), row: 0, column: 0, matrices: { shape: [p.groups], strides: [0] } },
    b: { at: input(1), row: 1, column: K, matrices: { shape: [p.groups], strides: [ownFilters * K] } },
  };
  const words = geometry(x, w, out, p);
  const steps: Step[] = [];
  for (let row0 = 0; row0 < pixels; row0 += atOnce) {
    const rows = Math.min(atOnce, pixels - row0);
    const blocks = Math.ceil(rows / rowGroup);
    const args = [input(0), scratch(0), out.dtype.code, row0, rows, blocks, channels, ownChannels, Number(neighbours), ...words];
    if (K > 0) steps.push({ entry: "conv/pack", args, units: p.groups * blocks, grain: clamp(32768 / (rowGroup * K), 1, 1024) });
    steps.push(packedStep(product, { rows, row0, count: p.groups, g0: 0, stride: blocks * rowGroup * rowBytes }));
  }
  return { steps, scratch: [Math.max(64, atOnce * rowBytes * p.groups)] };
}

/** Anything valid. */
const direct: Kernel<ConvParams> = {
  name: "wasm/conv/direct",
  launch: ([x, w], [out], p) => {
    const { channels, filters, ownChannels, ownFilters, taps, pixels } = sizesOf(x as View, w as View, out as View, p);
    if (pixels * filters === 0) return { steps: [] };
    const args: Arg[] = [input(0), input(1), output(0), (out as View).dtype.code, channels, ownChannels, filters, ownFilters, ...geometry(x as View, w as View, out as View, p)];
    return { steps: [{ entry: "conv/direct", args, units: pixels, grain: clamp((1 << 17) / Math.max(1, filters * taps * ownChannels), 1, 4096) }] };
  },
};

export const convKernels: readonly Kernel<ConvParams>[] = [pointwise, depthwise, packed, direct];
