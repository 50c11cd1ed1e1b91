/**
 * References of kernels on matrix units. They multiply elements of the type of x only, so the weights of a quantized product and the probabilities of attention are rounded
 * to it first; everything else stays float64. Where a number lies so close to the middle of two neighbours that float32 may round it either way, both count.
 */
import type { Aval, View } from "../../src/core/array.ts";
import { type Dtype, roundTo } from "../../src/core/dtype.ts";
import type { GpuDevice, GpuStep } from "../../src/core/gpu.ts";
import { type Node, ops } from "../../src/core/op.ts";

/** What comes out, and by how much each element may differ because of numbers that can be rounded either way. */
export interface Rounded {
  readonly want: Float64Array;
  readonly slack: Float64Array;
}
/** How numbers are rounded: `exactly` in tests of this file, else to a dtype. */
export type Rounding = (x: number) => number;
export const exactly: Rounding = (x) => x;

type Values = readonly Float64Array[];
/** Relative error of the float32 numbers that are rounded. */
const ofWeights = 2 ** -23;
const ofProbabilities = 8e-6;
const eitherWay = (round: Rounding, x: number, error: number): number => Math.abs(round(x * (1 + error)) - round(x * (1 - error)));
const last = (a: Aval): number => a.shape[a.shape.length - 1] as number;
const reference = (op: string, values: Values, avals: readonly Aval[], params: object): Float64Array => ops.get(op)?.reference?.(values, avals, params, [])[0] as Float64Array;

/** x [M, K] times the transpose of packed [N, K]. */
export function quantizedProduct(values: Values, avals: readonly Aval[], params: object, round: Rounding): Rounded {
  const [x, ...packed] = values as [Float64Array, ...Float64Array[]];
  const weights = reference("dequantize", packed, avals.slice(1), params);
  const K = last(avals[0] as Aval);
  const [M, N] = [x.length / K, weights.length / K];
  const [want, slack] = [new Float64Array(M * N), new Float64Array(M * N)];
  const [rounded, either] = [weights.map(round), weights.map((w) => eitherWay(round, w, ofWeights))];
  for (let i = 0; i < M * N; i++) {
    const [m, n] = [Math.floor(i / N), i % N];
    for (let k = 0; k < K; k++) {
      want[i] = (want[i] as number) + (x[m * K + k] as number) * (rounded[n * K + k] as number);
      slack[i] = (slack[i] as number) + Math.abs(x[m * K + k] as number) * (either[n * K + k] as number);
    }
  }
  return { want, slack };
}

/** How the kernel walks over the keys: `range` of them one after the other, in tiles of `tile`. */
export interface Walk {
  readonly range: number;
  readonly tile: number;
}
/** The online softmax rounds probabilities with respect to the greatest one so far. */
export function attention(values: Values, avals: readonly Aval[], params: object, { range, tile }: Walk, round: Rounding): Rounded {
  const [q, k, v] = avals as [Aval, Aval, Aval];
  const [B, H, Tq] = q.shape as [number, number, number];
  const [Hkv, Tk, Dv] = [k.shape[1] as number, k.shape[2] as number, last(v)];
  // With the unit matrix in place of the values, attention gives the probabilities.
  const unit = Float64Array.from({ length: B * Hkv * Tk * Tk }, (_, i) => (i % Tk === Math.floor(i / Tk) % Tk ? 1 : 0));
  const shares = reference("scaledDotProductAttention", [values[0] as Float64Array, values[1] as Float64Array, unit, ...values.slice(3)], [q, k, { ...v, shape: [B, Hkv, Tk, Tk] }, ...avals.slice(3)], params);
  const [want, slack] = [new Float64Array(B * H * Tq * Dv), new Float64Array(B * H * Tq * Dv)];
  for (let row = 0; row < B * H * Tq; row++) {
    const kv = Math.floor(row / (H * Tq)) * Hkv + Math.floor((Math.floor(row / Tq) % H) / (H / Hkv));
    const share = (j: number): number => shares[row * Tk + j] as number;
    let top = 0;
    for (let j = 0; j < Tk; j++) {
      if (j % range === 0) top = 0;
      if ((j % range) % tile === 0) for (let n = j; n < Math.min(j + tile, Tk, (Math.floor(j / range) + 1) * range); n++) top = Math.max(top, share(n));
      if (top === 0) continue;
      const [weight, either] = [round(share(j) / top) * top, eitherWay(round, share(j) / top, ofProbabilities) * top];
      for (let e = 0; e < Dv; e++) {
        const x = (values[2] as Float64Array)[(kv * Tk + j) * Dv + e] as number;
        want[row * Dv + e] = (want[row * Dv + e] as number) + weight * x;
        slack[row * Dv + e] = (slack[row * Dv + e] as number) + either * Math.abs(x);
      }
    }
  }
  return { want, slack };
}

/** The walk of a launch of vulkan/attention/matrix over `keys` keys (rangeLength of shaders/attention/ranges.glsl). */
function walkOf({ constants, groups }: GpuStep, keys: number): Walk {
  const tile = constants?.[13] as number;
  return { tile, range: Math.max(1, Math.ceil(Math.ceil(keys / groups[2]) / tile)) * tile };
}
/** Kernels that round weights or probabilities, by op. */
const kernels: Readonly<Record<string, readonly string[]>> = {
  quantizedMatmul: ["vulkan/quantized/mm_coopmat", "vulkan/quantized/mm_unpacked"],
  scaledDotProductAttention: ["vulkan/attention/matrix"],
};
/** The reference of what a kernel computed of a node, when it rounds; undefined when the op's own reference is right. */
export function roundedReference(node: Pick<Node, "op" | "params">, kernel: string, values: Values, inputs: readonly View[], outputs: readonly View[], device: GpuDevice): Rounded | undefined {
  const { op, params } = node;
  if (!kernels[op.name]?.includes(kernel)) return undefined;
  const round: Rounding = (x) => roundTo((inputs[0] as { dtype: Dtype }).dtype, x);
  const found = (): Rounded => {
    if (op.name === "quantizedMatmul") return quantizedProduct(values, inputs, params, round);
    const step = op.gpu?.find((k) => k.name === kernel)?.launch(inputs, outputs, params, device).steps[0] as GpuStep;
    return attention(values, inputs, params, walkOf(step, inputs[1]?.shape[2] as number), round);
  };
  const { want, slack } = found();
  return { want: want.map((x) => roundTo((outputs[0] as View).dtype, x)), slack };
}
