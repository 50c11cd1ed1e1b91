/** Concatenation on the GPU: up to four arrays per dispatch when their parts of a row lie together, otherwise a copy for each. */
import type { View } from "../core/array.ts";
import { type GpuKernel, type GpuStep, gpuInput, gpuUpdate, groupLimit } from "../core/gpu.ts";
import { collapseDims, isContiguous, rowStrides } from "../core/shape.ts";
import { gpuCopySteps, moverNeeds, padded, refuseLarge, sourceSide, spreadRows, targetSide, unitOf } from "./copy-gpu.ts";

/** An array as rows: elements of a row and the distance of two rows. */
interface Rows {
  readonly input: number;
  readonly run: number;
  readonly step: number;
  /** Place in a row of the output. */
  readonly place: number;
  readonly at: number;
}
function rowsOf(v: View, input: number, axis: number, place: number): Rows | undefined {
  const { shape, strides } = v;
  if (!isContiguous(shape.slice(axis), strides.slice(axis))) return undefined;
  const before = collapseDims(shape.slice(0, axis), strides.slice(0, axis));
  if (before.shape.length > 1) return undefined;
  const run = shape.slice(axis).reduce((a, b) => a * b, 1);
  return { input, run, step: before.strides[0]?.[0] ?? run, place, at: v.offset * v.dtype.size };
}

function joined(out: View, rows: number, width: number, parts: readonly Rows[]): GpuStep {
  const { size } = out.dtype;
  const unit = unitOf(size, [width * size, out.offset * size, ...parts.flatMap((p) => [p.run * size, p.step * size, p.place * size, p.at])]);
  const ratio = unit / size;
  const longest = Math.max(...parts.map((p) => p.run)) / ratio;
  const { shift, groups } = spreadRows(longest, rows, unit);
  const words = [rows, width / ratio, shift];
  for (const list of [parts.map((p) => p.run), parts.map((p) => p.place), parts.map((p) => p.step)]) words.push(...padded(list.map((n) => n / ratio), 4));
  const all = [0, 1, 2, 3].map((k) => gpuInput((parts[k] ?? (parts[0] as Rows)).input));
  return { shader: `copy/joined_${unit}`, buffers: [gpuUpdate(0), ...all], words, groups: [groups[0], Math.min(groups[1], groupLimit), parts.length] };
}

export const gpuConcatenate: readonly GpuKernel<{ axis: number }>[] = [
  {
    name: "vulkan/copy/concatenate",
    layout: ["any"],
    gate: { needs: moverNeeds, refuse: (inputs, _params, [out]) => refuseLarge(...inputs, out as View) },
    launch(inputs, [out], { axis }) {
      const to = out as View;
      const { size } = to.dtype;
      const strides = rowStrides(to.shape);
      const width = to.shape.slice(axis).reduce((a, b) => a * b, 1);
      const steps: GpuStep[] = [];
      let group: Rows[] = [];
      const flush = (): void => {
        if (group.length > 0) steps.push(joined(to, to.size / width, width, group));
        group = [];
      };
      let at = 0;
      inputs.forEach((from, k) => {
        const place = at;
        at += (from.shape[axis] as number) * (strides[axis] as number);
        if (from.size === 0) return;
        const rows = rowsOf(from, k, axis, place);
        if (rows) group.push(rows);
        else steps.push(...gpuCopySteps(size, from.shape, sourceSide(inputs, k), targetSide(to, strides, place)));
        if (group.length === 4) flush();
      });
      flush();
      return { steps };
    },
  },
];
