/** rmsNorm, layerNorm, rope, softmax and logsumexp at the shapes of decode steps (one row) and prompts. */
import { bfloat16, type Dtype, float32, int32 } from "../../src/core/dtype.ts";
import type { GpuCase } from "./harness.ts";

const tolerance = (d: Dtype): GpuCase["tolerance"] => (d.size === 2 ? { relative: 2 ** -7, absolute: 1e-2 } : { relative: 4e-6, absolute: 4e-6 });

const norms: readonly GpuCase[] = (
  [[bfloat16, 1, 1024], [bfloat16, 1, 4096], [bfloat16, 24, 128], [bfloat16, 512, 1024], [bfloat16, 4096, 4096], [float32, 4096, 4096], [bfloat16, 65536, 128], [float32, 16, 65536]] as const
).flatMap(([dtype, rows, width]) =>
  (["rmsNorm", "layerNorm"] as const).map((op): GpuCase => {
    const weights = [{ dtype, shape: [width] }, ...(op === "layerNorm" ? [{ dtype, shape: [width] }] : [])];
    return {
      name: `${op} ${dtype} ${rows}x${width}`,
      op,
      inputs: [{ dtype, shape: [rows, width], cold: rows > 64 }, ...weights],
      params: { eps: 1e-6, weight: true, bias: op === "layerNorm" },
      bytes: 2 * rows * width * dtype.size,
      // The reference takes time by the square of the width.
      check: { inputs: [{ dtype, shape: [Math.min(rows, 3), Math.min(width, 4096)] }, ...weights.map((w) => ({ ...w, shape: [Math.min(width, 4096)] }))] },
      tolerance: tolerance(dtype),
    };
  }),
);

const plain = { dims: 128, traditional: false, base: 1e6, scale: 1, offset: 1000, freqs: false };
const rope = (name: string, heads: number, length: number, params: object, more: GpuCase["inputs"] = [], strides?: readonly number[]): GpuCase => {
  const x = { dtype: bfloat16, shape: [1, heads, length, 128], cold: length > 1, ...(strides ? { strides } : {}) };
  return { name: `rope bfloat16 ${name} ${heads}x${length}x128`, op: "rope", inputs: [x, ...more], params: { ...plain, ...params }, bytes: 4 * heads * length * 128, tolerance: tolerance(bfloat16) };
};
const offset = { dtype: int32, shape: [1], values: () => 1000 };
const freqs = { dtype: float32, shape: [64], values: (i: number) => 1e6 ** (i / 64) };
const ropes: readonly GpuCase[] = [
  rope("decode", 16, 1, {}),
  rope("decode, offset in memory", 16, 1, { offset: undefined }, [offset]),
  rope("decode, offset and freqs in memory", 16, 1, { offset: undefined, freqs: true }, [offset, freqs]),
  rope("prompt", 32, 512, {}, [], [512 * 4096, 128, 4096, 1]),
  rope("prompt, freqs in memory", 32, 512, { freqs: true }, [freqs], [512 * 4096, 128, 4096, 1]),
  rope("long prompt", 32, 4096, {}, [], [4096 * 4096, 128, 4096, 1]),
  rope("long prompt, traditional", 32, 4096, { traditional: true }, [], [4096 * 4096, 128, 4096, 1]),
];

const logsumexps: readonly GpuCase[] = ([[float32, 1, 151936], [bfloat16, 512, 151936], [float32, 4096, 1024]] as const).map(([dtype, rows, width]) => ({
  name: `logsumexp ${dtype} ${rows}x${width}`,
  op: "logsumexp",
  inputs: [{ dtype, shape: [rows, width], cold: rows > 1 }],
  params: {},
  bytes: rows * width * dtype.size,
  check: { inputs: [{ dtype, shape: [Math.min(rows, 3), width] }] },
  tolerance: tolerance(dtype),
}));

export const cases: readonly GpuCase[] = [...norms, ...ropes, ...logsumexps];
