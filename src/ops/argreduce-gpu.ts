/** GPU kernels of argmax and argmin. */
import type { View } from "../core/array.ts";
import { type GpuKernel, type GpuLaunch, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut } from "../core/gpu.ts";
import type { ArgReduceParams } from "./argreduce.ts";
import { orderOf, passStep, planPass, reduceGate } from "./reduce-gpu.ts";
import { linesOf } from "./sections.ts";

function launch(min: boolean, x: View, axis: number | null): GpuLaunch {
  const { outer, n, inner } = linesOf(x, axis) as { outer: number; n: number; inner: number };
  const { size } = x.dtype;
  const constants = [Number(min), ...orderOf(x.dtype)];
  const plan = planPass(outer, n, inner, size < 8 && x.offset % 4 === 0);
  if (plan.chunks === 1) return { steps: [passStep(`arg_${size}`, plan, constants, gpuInput(0), gpuOutput(0), outer, n, inner)] };
  const last = planPass(outer, plan.chunks, inner, false, true);
  const words = size === 8 ? 3 : 2;
  return {
    steps: [
      passStep(`arg_part_${size}`, plan, constants, gpuInput(0), gpuScratchOut(0), outer, n, inner),
      passStep(`arg_last_${size === 8 ? 8 : 4}`, last, constants, gpuScratchIn(0), gpuOutput(0), outer, plan.chunks, inner),
    ],
    scratch: [outer * plan.chunks * inner * 4 * words],
  };
}
export const gpuArgReduce = (name: "argmax" | "argmin"): readonly GpuKernel<ArgReduceParams>[] => [
  {
    name: `vulkan/reduce/${name}`,
    layout: ([x], { axis }) => (linesOf(x as View, axis) ? ["any"] : ["row"]),
    gate: reduceGate(() => false),
    launch: ([x], _outputs, { axis }) => launch(name === "argmin", x as View, axis),
  },
];
