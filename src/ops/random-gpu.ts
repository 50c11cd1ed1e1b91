/** Random bits on the GPU, equal to those of the CPU. */
import type { View } from "../core/array.ts";
import { type GpuKernel, gpuInput, gpuOutput, groupLimit } from "../core/gpu.ts";
import { type Shape, sizeOf } from "../core/shape.ts";

const lanes = 256;
interface Bits {
  readonly shape: Shape;
  readonly width: number;
}
export const gpuRandomBits: readonly GpuKernel<Bits>[] = [
  {
    name: "vulkan/random/bits",
    gate: {
      needs: ["storageBuffer8BitAccess"],
      refuse(_inputs, { width }, [out]) {
        const { size, offset } = out as View;
        if ((offset * width) % 4 !== 0) return "cannot: the output is not aligned";
        return size >= 2 ** 31 - 2 ** 20 || (width < 4 && size * width >= 2 ** 31) ? "cannot: more than 2^31 elements or bytes" : undefined;
      },
    },
    launch([keys], _outputs, { shape, width }) {
      const count = (keys as View).size / 2;
      const bytes = sizeOf(shape) * width;
      const words = Math.ceil(bytes / 4);
      const groups = Math.min(groupLimit, Math.ceil((count * Math.ceil(words / 2)) / lanes));
      return { steps: [{ shader: bytes % 4 === 0 ? "random/bits" : "random/bits_bytes", buffers: [gpuInput(0), gpuOutput(0)], words: [count, bytes, words], groups: [groups, 1, 1] }] };
    },
  },
];
export const gpuRandomKey: readonly GpuKernel<{ words: readonly [number, number] }>[] = [
  { name: "vulkan/random/key", launch: (_inputs, _outputs, { words }) => ({ steps: [{ shader: "random/key", buffers: [gpuOutput(0)], words, groups: [1, 1, 1] }] }) },
];
