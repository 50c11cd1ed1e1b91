/** Softmax: rows of attention scores, and of logits. */
import { bfloat16, float32 } from "../../src/core/dtype.ts";
import type { GpuCase } from "./harness.ts";

export const cases: readonly GpuCase[] = ([[float32, 4096, 1024], [bfloat16, 4096, 1024], [float32, 1, 151936]] as const).map(([dtype, rows, width]) => ({
  name: `softmax ${dtype} ${rows}x${width}`,
  op: "softmax",
  inputs: [{ dtype, shape: [rows, width], cold: true }],
  params: {},
  bytes: 2 * rows * width * dtype.size,
  check: { inputs: [{ dtype, shape: [3, width] }] },
  tolerance: { relative: dtype.size === 2 ? 2 ** -7 : 4e-6, absolute: 1e-7 },
}));
