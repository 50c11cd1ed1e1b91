/** Padding on the GPU. */
import type { View } from "../core/array.ts";
import { type GpuKernel, type GpuStep, gpuInput, gpuOutput } from "../core/gpu.ts";
import { type Shape, rowStrides } from "../core/shape.ts";
import { gpuCopySteps, moverNeeds, padded, product, refuseLarge, sourceSide, spreadRows, targetSide, unitOf } from "./copy-gpu.ts";
import { gpuFill } from "./creation-gpu.ts";

/** A dimension of the output, with the place and stride of the source in it. */
interface Dim {
  readonly size: number;
  readonly low: number;
  readonly inside: number;
  readonly stride: number;
}
/** Dimensions without those of size 1; one that is not padded joins the one before it when the source allows. */
function dimsOf(a: View, out: View, low: Shape): Dim[] {
  const dims: Dim[] = [];
  out.shape.forEach((size, i) => {
    if (size === 1 && low[i] === 0) return;
    const d: Dim = { size, low: low[i] as number, inside: a.shape[i] as number, stride: a.strides[i] as number };
    const before = dims[dims.length - 1];
    if (before && d.inside === size && before.stride === size * d.stride) {
      dims[dims.length - 1] = { size: before.size * size, low: before.low * size, inside: before.inside * size, stride: d.stride };
    } else dims.push(d);
  });
  return dims;
}

function padStep(a: View, out: View, low: Shape): GpuStep | undefined {
  const { size } = out.dtype;
  const dims = dimsOf(a, out, low);
  const last = dims.pop() ?? { size: 1, low: 0, inside: 1, stride: 1 };
  if (dims.length > 4) return undefined;
  const lengths = [last.size, last.low, last.inside, ...dims.map((d) => d.stride)].map((n) => n * size);
  const unit = last.stride === 1 ? unitOf(size, [...lengths, a.offset * size, out.offset * size]) : size;
  const ratio = unit / size;
  const inner = { size: last.size / ratio, low: last.low / ratio, inside: last.inside / ratio, stride: last.stride };
  const words = [inner, ...dims.map((d) => ({ ...d, stride: d.stride / ratio }))].flatMap((d) => [d.size, d.low, d.inside, d.stride]);
  const rows = product(dims);
  const { shift, groups } = spreadRows(inner.size, rows, unit);
  return { shader: `copy/pad_${unit}`, buffers: [gpuInput(0), gpuInput(1), gpuOutput(0)], words: [rows, dims.length, shift, size, ...padded(words, 20)], groups };
}

export const gpuPad: readonly GpuKernel<{ low: Shape; high: Shape }>[] = [
  {
    name: "vulkan/copy/pad",
    layout: ["any", "row"],
    gate: { needs: moverNeeds, refuse: (inputs, _params, [out]) => refuseLarge(...inputs, out as View) },
    launch(inputs, [out], { low }) {
      const [a, to] = [inputs[0] as View, out as View];
      const step = padStep(a, to, low);
      if (step) return { steps: [step] };
      const strides = rowStrides(to.shape);
      const at = low.reduce((n, l, i) => n + l * (strides[i] as number), 0);
      return { steps: [gpuFill(1, to), ...gpuCopySteps(to.dtype.size, a.shape, sourceSide(inputs, 0), targetSide(to, strides, at))] };
    },
  },
];
