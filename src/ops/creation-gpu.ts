/** Arrays made on the GPU: one value, ranges, bands of matrices. */
import type { View } from "../core/array.ts";
import type { Dtype } from "../core/dtype.ts";
import { type GpuKernel, type GpuLaunch, type GpuStep, gpuInput, gpuOutput, groupLimit } from "../core/gpu.ts";
import type { Shape } from "../core/shape.ts";
import { lanes, moverNeeds, refuseLarge, spreadRows } from "./copy-gpu.ts";

/** Fills output 0 with the element at an input. */
export function gpuFill(value: number, out: View): GpuStep {
  const bytes = out.size * out.dtype.size;
  const units = Math.floor(bytes / 16);
  return { shader: "copy/fill", buffers: [gpuInput(value), gpuOutput(0)], words: [units, bytes % 16, out.dtype.size], groups: [Math.min(groupLimit, Math.max(1, Math.ceil(units / lanes))), 1, 1] };
}
/** Filling begins at a multiple of 16 and counts units in 32 bits. */
const refuseFill = (_inputs: readonly View[], _params: object, [out]: readonly View[]): string | undefined => {
  const { offset, size, dtype } = out as View;
  if ((offset * dtype.size) % 16 !== 0) return "cannot: the output is not aligned";
  return size * dtype.size >= 2 ** 35 ? "cannot: more than 2^35 bytes" : undefined;
};
export const gpuFull: readonly GpuKernel<{ shape: Shape }>[] = [
  { name: "vulkan/copy/full", layout: ["row"], gate: { needs: moverNeeds, refuse: refuseFill }, launch: (_inputs, [out]) => ({ steps: [gpuFill(0, out as View)] }) },
];

// ranges

interface Range {
  readonly size: number;
  readonly start: number;
  readonly step: number;
  readonly last: number | undefined;
  readonly dtype: Dtype;
}
const cell = new DataView(new ArrayBuffer(8));
const doubleWords = (value: number): [number, number] => {
  cell.setFloat64(0, value, true);
  return [cell.getUint32(0, true), cell.getUint32(4, true)];
};
const integerWords = (value: number): [number, number] => {
  cell.setBigInt64(0, BigInt(value), true);
  return [cell.getUint32(0, true), cell.getUint32(4, true)];
};
function launchRange(p: Range, shader: string, split: (value: number) => [number, number]): GpuLaunch {
  const words = [...split(p.start), ...split(p.step), ...split(p.last ?? 0), p.size, p.last === undefined ? 0 : 1];
  return { steps: [{ shader, constants: [p.dtype.code], buffers: [gpuOutput(0)], words, groups: [Math.min(groupLimit, Math.ceil(p.size / lanes)), 1, 1] }] };
}
/** Largest size of an element of the range. */
const reach = (p: Range): number => Math.max(Math.abs(p.start), Math.abs(p.start + p.step * p.size), Math.abs(p.last ?? 0));

export const gpuRange: readonly GpuKernel<Range>[] = [
  {
    name: "vulkan/copy/range",
    gate: {
      needs: moverNeeds,
      refuse: (_inputs, p) => {
        if (p.last !== undefined || !Number.isInteger(p.start) || !Number.isInteger(p.step)) return "cannot: elements are not integers";
        if (p.dtype.name === "float64") return "cannot: float64";
        return reach(p) >= (p.dtype.isInteger ? 2 ** 53 : 2 ** 31) ? "cannot: elements are too large" : undefined;
      },
    },
    launch: (_inputs, _outputs, p) => launchRange(p, "copy/range", integerWords),
  },
  {
    name: "vulkan/copy/rangeDoubles",
    gate: { needs: [...moverNeeds, "shaderFloat64"], refuse: (_inputs, p) => (!p.dtype.isInexact && reach(p) >= 2 ** 31 ? "cannot: elements are too large" : undefined) },
    launch: (_inputs, _outputs, p) => launchRange(p, "copy/range_doubles", doubleWords),
  },
];

// bands of matrices

interface Band {
  readonly low: number;
  readonly high: number;
}
const bandKind = { source: 0, single: 1, diagonal: 2 } as const;
function launchBand(out: View, { low, high }: Band, kind: keyof typeof bandKind, step: number): GpuLaunch {
  const [height, columns] = out.shape.slice(-2) as [number, number];
  const rows = out.size / columns;
  const { shift, groups } = spreadRows(columns, rows, out.dtype.size);
  const word = (n: number): number => Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, n));
  return { steps: [{ shader: `copy/band_${out.dtype.size}`, buffers: [gpuInput(0), gpuOutput(0)], words: [rows, height, columns, word(low), word(high), bandKind[kind], step, shift], groups }] };
}
const bandGate = { needs: moverNeeds, refuse: (inputs: readonly View[], _params: object, [out]: readonly View[]) => refuseLarge(...inputs, out as View) };

export const gpuBand: readonly GpuKernel<Band & { rows: number; columns: number }>[] = [
  { name: "vulkan/copy/band", layout: ["row"], gate: bandGate, launch: (_inputs, [out], p) => launchBand(out as View, p, "single", 0) },
];
export const gpuBandPart: readonly GpuKernel<Band>[] = [
  { name: "vulkan/copy/bandPart", layout: ["row"], inPlace: [0], gate: bandGate, launch: (_inputs, [out], p) => launchBand(out as View, p, "source", 0) },
];
export const gpuDiag: readonly GpuKernel<{ k: number }>[] = [
  { name: "vulkan/copy/diag", layout: ["any", "row"], gate: bandGate, launch: ([a], [out], { k }) => launchBand(out as View, { low: k, high: k }, "diagonal", (a as View).strides[0] as number) },
];
