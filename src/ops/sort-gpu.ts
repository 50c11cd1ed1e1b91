/** Sorting on the GPU: workgroups sort blocks of 2048 elements in shared memory, then passes over the rows merge them pairwise. Stable, NaN last. */
import type { View } from "../core/array.ts";
import { type GpuKernel, type GpuLaunch, type GpuPointer, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, spreadGroups } from "../core/gpu.ts";
import { moverNeeds, refuseLarge } from "./copy-gpu.ts";

/** Elements that a workgroup sorts (shaders/sort/merge.glsl), and the fewest that count as a segment. */
const block = 2048;
const least = 8;
/** Infinity's bits, of float64 the high word. */
const infinity: Readonly<Record<string, number>> = { float16: 0x7c00, bfloat16: 0x7f80, float32: 0x7f800000, float64: 0x7ff00000 };

/** Scratch buffers: keys 0 and 1, indices 2 and 3. Where a pass puts its keys and indices, or the results. */
const between = (which: number, pairs: boolean, pointer: (index: number) => GpuPointer): GpuPointer[] => (pairs ? [pointer(which), pointer(2 + which)] : [pointer(which)]);

function launchSort(x: View, pairs: boolean): GpuLaunch {
  const { size, kind, name } = x.dtype;
  const width = x.shape[x.shape.length - 1] as number;
  const rows = x.size / width;
  const suffix = `${size === 8 ? "_wide" : ""}${pairs ? "_pairs" : ""}`;
  const form = size + 256 * (kind === "float" ? 2 : kind === "signed" ? 1 : 0);
  /** The last words of both kernels. */
  const type = (last: boolean): number[] => [form + (last ? 65536 : 0), infinity[name] ?? 0];
  const blocks = Math.ceil(width / block);
  const passes = Math.ceil(Math.log2(blocks));
  const results = pairs ? [gpuOutput(0), gpuOutput(0)] : [gpuOutput(0)];
  const segmentShift = Math.log2(Math.min(block, Math.max(least, 2 ** Math.ceil(Math.log2(width)))));
  const segments = Math.ceil(width / 2 ** segmentShift);
  const first = Math.ceil((rows * segments) / (block / 2 ** segmentShift));
  const steps: GpuStep[] = [
    {
      shader: `sort/blocks${suffix}`,
      buffers: [gpuInput(0), ...(passes === 0 ? results : between(0, pairs, gpuScratchOut))],
      words: [width, rows, segmentShift, segments, first, ...type(passes === 0)],
      groups: spreadGroups(first),
    },
  ];
  for (let pass = 0; pass < passes; pass++) {
    const last = pass === passes - 1;
    const [src, srcIds] = between(pass % 2, pairs, gpuScratchIn);
    const [dst, dstIds] = last ? results : between((pass + 1) % 2, pairs, gpuScratchOut);
    steps.push({
      shader: `sort/merge${suffix}`,
      buffers: [src, dst, srcIds, dstIds].filter((p) => p !== undefined),
      words: [width, block * 2 ** pass, blocks, rows * blocks, ...type(last)],
      groups: spreadGroups(rows * blocks),
    });
  }
  const keys = x.size * (size === 8 ? 8 : 4);
  const second = passes > 1 ? 1 : 0;
  const scratch = passes === 0 ? [] : [keys, second * keys, ...(pairs ? [x.size * 4, second * x.size * 4] : [])].map((n) => Math.max(4, n));
  return { steps, scratch };
}

const gate = { needs: moverNeeds, refuse: ([x]: readonly View[]) => refuseLarge(x as View) };
export const gpuSort: readonly GpuKernel[] = [{ name: "vulkan/sort/sort", gate, launch: ([x]) => launchSort(x as View, false) }];
export const gpuArgsort: readonly GpuKernel[] = [{ name: "vulkan/sort/argsort", gate, launch: ([x]) => launchSort(x as View, true) }];
