/** Attention: decode steps over caches of several lengths, and prompts. Shapes of Qwen3-0.6B (16 query heads, 8 key heads of 128) where none are named. */
import { type Dtype, bfloat16, float16, float32, int32 } from "../../src/core/dtype.ts";
import type { GpuCase, GpuInput } from "./harness.ts";

const op = "scaledDotProductAttention";
interface Shape {
  dtype?: Dtype;
  H?: number;
  Hkv?: number;
  Tq: number;
  Tk: number;
  D?: number;
  /** Rows of the cache of which the keys are the first. */
  capacity?: number;
}
function inputs({ dtype = bfloat16, H = 16, Hkv = 8, Tq, Tk, D = 128, capacity = Tk }: Shape): GpuInput[] {
  const cache: GpuInput = { dtype, shape: [1, Hkv, Tk, D], strides: [Hkv * capacity * D, capacity * D, D, 1], cold: true };
  return [{ dtype, shape: [1, H, Tq, D] }, cache, cache];
}
const tolerance = (dtype: Dtype): GpuCase["tolerance"] => (dtype === float32 ? { relative: 1e-5, absolute: 2e-6 } : { relative: 2 ** -7, absolute: dtype === float16 ? 2 ** -10 : 2 ** -7 });
const params = { scale: 128 ** -0.5, mask: "none", length: false, sinks: false };
const cacheBytes = ({ dtype = bfloat16, Hkv = 8, D = 128 }: Shape, keys: number): number => 2 * keys * Hkv * D * dtype.size;

const step = (label: string, s: Shape, kernel?: readonly string[]): GpuCase => ({
  name: `decode ${label}`, op, inputs: inputs(s), params, bytes: cacheBytes(s, s.Tk), tolerance: tolerance(s.dtype ?? bfloat16),
  ...(kernel ? { kernel: kernel.map((k) => `vulkan/attention/${k}`) } : {}), ...(s.Tk > 20000 ? { check: { inputs: inputs({ ...s, Tk: 20000 }) } } : {}),
});
/** A recorded step: the number of keys is read when the kernel runs. */
const recorded = (capacity: number, length: number): GpuCase => ({
  name: `decode, ${length} keys recorded of ${capacity}`, op, inputs: [...inputs({ Tq: 1, Tk: capacity }), { dtype: int32, shape: [1], values: () => length }],
  params: { ...params, length: true },
  ...(capacity > 20000 ? { check: { inputs: [...inputs({ Tq: 1, Tk: 20000 }), { dtype: int32, shape: [1], values: () => length }] } } : {}), bytes: cacheBytes({ Tq: 1, Tk: length }, length), tolerance: tolerance(bfloat16),
});
const prompt = (label: string, s: Shape, kernel: readonly string[]): GpuCase => {
  const { dtype = bfloat16, H = 16, D = 128, Tq, Tk } = s;
  const seen = Tq * (Tk - Tq) + (Tq * (Tq + 1)) / 2;
  return {
    name: `prompt ${label}`, op, kernel: kernel.map((k) => `vulkan/attention/${k}`), inputs: inputs(s), params: { ...params, mask: "causal" }, flops: 4 * H * D * seen,
    check: { inputs: inputs({ ...s, Tq: 75, Tk: 75 + Math.min(60, Tk - Tq) }) }, tolerance: tolerance(dtype),
  };
};

export const cases: readonly GpuCase[] = [
  ...[32, 128, 256, 512, 1024, 4096, 16384, 65536].map((Tk) => step(`bf16 ${Tk}`, { Tq: 1, Tk })),
  step("bf16 4096 of 8192 rows", { Tq: 1, Tk: 4096, capacity: 8192 }),
  step("f16 4096", { Tq: 1, Tk: 4096, dtype: float16 }),
  step("f32 4096", { Tq: 1, Tk: 4096, dtype: float32 }),
  step("bf16 4096, 32 heads of 8", { Tq: 1, Tk: 4096, H: 32 }),
  step("bf16 4096, 64 heads of 8", { Tq: 1, Tk: 4096, H: 64 }),
  step("bf16 4096, 4 queries", { Tq: 4, Tk: 4096 }, ["decode", "matrix"]),
  step("bf16 4096, 8 queries, 32 heads of 8", { Tq: 8, Tk: 4096, H: 32 }, ["decode", "matrix"]),
  step("bf16 4096, head of 64", { Tq: 1, Tk: 4096, D: 64 }),
  step("bf16 4096, head of 256", { Tq: 1, Tk: 4096, D: 256 }),
  ...([[512, 128], [4096, 300], [4096, 4096], [65536, 1000]] as const).map(([capacity, length]) => recorded(capacity, length)),
  prompt("bf16 512", { Tq: 512, Tk: 512 }, ["matrix", "tiles"]),
  prompt("f16 512", { Tq: 512, Tk: 512, dtype: float16 }, ["matrix", "tiles"]),
  prompt("f32 512", { Tq: 512, Tk: 512, dtype: float32 }, ["tiles"]),
  prompt("bf16 2048", { Tq: 2048, Tk: 2048 }, ["matrix"]),
  prompt("bf16 4096", { Tq: 4096, Tk: 4096 }, ["matrix"]),
  prompt("bf16 512 after 4096", { Tq: 512, Tk: 4608 }, ["matrix", "tiles"]),
  prompt("bf16 16 after 4096", { Tq: 16, Tk: 4112 }, ["decode", "matrix", "tiles"]),
  prompt("bf16 512, head of 64", { Tq: 512, Tk: 512, D: 64 }, ["matrix"]),
  prompt("bf16 512, head of 256", { Tq: 512, Tk: 512, D: 256 }, ["matrix"]),
];
