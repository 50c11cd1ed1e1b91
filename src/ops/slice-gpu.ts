/** Slices on the GPU that are written, or whose place is only known when the work runs. */
import type { View } from "../core/array.ts";
import { type GpuKernel, gpuInput } from "../core/gpu.ts";
import { type Shape, rowStrides } from "../core/shape.ts";
import { type GpuStarts, gpuCopySteps, moverNeeds, refuseLarge, sourceSide, targetSide } from "./copy-gpu.ts";

const refuse = (inputs: readonly View[], _params: object, outputs: readonly View[]): string | undefined => refuseLarge(...inputs, ...outputs);

export const gpuSliceUpdate: readonly GpuKernel<{ start: Shape; step: Shape; shape: Shape }>[] = [
  {
    name: "vulkan/copy/sliceUpdate",
    layout: ["row", "any"],
    base: 0,
    gate: { needs: moverNeeds, refuse },
    launch(inputs, [out], { start, step, shape }) {
      const to = out as View;
      const at = start.reduce((n, i, d) => n + i * (to.strides[d] as number), 0);
      return { steps: gpuCopySteps(to.dtype.size, shape, sourceSide(inputs, 1), targetSide(to, to.strides.map((n, d) => n * (step[d] as number)), at)) };
    },
  },
];

/** Start indices (input `i`) of a part of an array. */
const startsOf = (i: number, moves: "src" | "dst", { shape, strides }: View, part: Shape, axes: readonly number[]): GpuStarts => ({
  pointer: gpuInput(i),
  moves,
  strides: axes.map((axis) => strides[axis] as number),
  largest: axes.map((axis) => (shape[axis] as number) - (part[axis] as number)),
});

export const gpuDynamicSlice: readonly GpuKernel<{ axes: readonly number[]; shape: Shape }>[] = [
  {
    name: "vulkan/copy/dynamicSlice",
    layout: ["any", "row"],
    gate: { needs: moverNeeds, refuse },
    launch(inputs, [out], { axes, shape }) {
      const a = inputs[0] as View;
      return { steps: gpuCopySteps(a.dtype.size, shape, sourceSide(inputs, 0), targetSide(out as View, rowStrides(shape), 0, true), startsOf(1, "src", a, shape, axes)) };
    },
  },
];

export const gpuDynamicSliceUpdate: readonly GpuKernel<{ axes: readonly number[] }>[] = [
  {
    name: "vulkan/copy/dynamicSliceUpdate",
    layout: ["row", "any", "row"],
    base: 0,
    gate: { needs: moverNeeds, refuse },
    launch(inputs, [out], { axes }) {
      const to = out as View;
      const { shape } = inputs[1] as View;
      return { steps: gpuCopySteps(to.dtype.size, shape, sourceSide(inputs, 1), targetSide(to, to.strides), startsOf(2, "dst", to, shape, axes)) };
    },
  },
];
