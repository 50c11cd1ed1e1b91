/** What the self-check computes on each kernel: small inputs, of every family and element type. */
import type { MxArray } from "../core/array.ts";
import { type Dtype, bfloat16, float16, float32, int32 } from "../core/dtype.ts";
import { argmax } from "../ops/argreduce.ts";
import { scaledDotProductAttention } from "../ops/attention.ts";
import { add, divide, multiply } from "../ops/binary.ts";
import { astype } from "../ops/cast.ts";
import { concatenate } from "../ops/concat.ts";
import { zeros } from "../ops/creation.ts";
import { type DecodeMatrix, attentionStep, chooseToken, combineProjectAdd, embedRow, normGateUp, normProject, projectAdd } from "../ops/decode.ts";
import { take } from "../ops/indexing.ts";
import { matmul } from "../ops/matmul.ts";
import { array } from "../ops/methods.ts";
import { contiguous, reshape, transpose } from "../ops/movement.ts";
import { layerNorm, rmsNorm } from "../ops/norm.ts";
import { dequantize, quantize, quantizedMatmul } from "../ops/quantized.ts";
import { bits, key } from "../ops/random.ts";
import { max, sum } from "../ops/reduce.ts";
import { rope } from "../ops/rope.ts";
import { cumsum } from "../ops/scan.ts";
import { logsumexp, softmax } from "../ops/softmax.ts";
import { sort } from "../ops/sort.ts";
import { exp, sigmoid } from "../ops/unary.ts";

/** Inputs, made on the CPU, and what is computed of them. */
export interface Sample {
  readonly name: string;
  readonly inputs: () => readonly MxArray[];
  readonly compute: (...xs: MxArray[]) => MxArray;
  /** Allowed difference with respect to the largest value; 0: bits. */
  readonly tolerance: number;
}

/** Numbers from -1 to 1 that look random (fractions of multiples of the golden ratio). */
const numbers = (shape: readonly number[], dtype: Dtype, seed = 0): MxArray => {
  const size = shape.reduce((a, b) => a * b, 1);
  return astype(reshape(array(Float32Array.from({ length: size }, (_, i) => 2 * (((i + 1 + seed * 7919) * 0.6180339887498949) % 1) - 1)), shape), dtype);
};

/** Element types, with what is allowed of the largest value. */
const types = [[float32, 2e-5], [bfloat16, 2e-2], [float16, 4e-3]] as const;

/** Ops that are parts of others come first, so that no other kernel is blamed for them. */
export function samplesOf(): Sample[] {
  const samples: Sample[] = [];
  const put = (name: string, tolerance: number, inputs: Sample["inputs"], compute: Sample["compute"]): number => samples.push({ name, tolerance, inputs, compute });
  for (const [dtype, tolerance] of types) {
    const x = (...shape: number[]) => () => [numbers(shape, dtype)];
    const two = (a: readonly number[], b: readonly number[]) => () => [numbers(a, dtype), numbers(b, dtype, 1)];
    put(`elementwise ${dtype}`, tolerance, two([131, 40], [40]), (a, b) => divide(multiply(sigmoid(a as MxArray), b as MxArray), add(exp(a as MxArray), 1)));
    put(`wide elementwise ${dtype}`, tolerance, two([1 << 18], [1 << 18]), (a, b) => add(multiply(a as MxArray, 2), b as MxArray));
    put(`copy ${dtype}`, 0, x(33, 70), (a) => contiguous(transpose(a as MxArray)));
    put(`concatenate ${dtype}`, 0, two([5, 33], [5, 40]), (a, b) => concatenate([a as MxArray, b as MxArray], 1));
    put(`take ${dtype}`, 0, () => [numbers([50, 64], dtype), array(Int32Array.from({ length: 17 }, (_, i) => (i * 13) % 50))], (a, i) => take(a as MxArray, i as MxArray, 0));
    put(`softmax ${dtype}`, tolerance, x(5, 1000), (a) => softmax(a as MxArray, -1));
    put(`logsumexp ${dtype}`, tolerance, x(5, 1000), (a) => logsumexp(a as MxArray, -1));
    put(`rmsNorm ${dtype}`, tolerance, two([7, 512], [512]), (a, b) => rmsNorm(a as MxArray, b as MxArray, 1e-5));
    put(`layerNorm ${dtype}`, tolerance, two([7, 512], [512]), (a, b) => layerNorm(a as MxArray, b as MxArray, null, 1e-5));
    put(`rope ${dtype}`, tolerance, x(1, 4, 9, 64), (a) => rope(a as MxArray, 64, false, 10000, 1, 3));
    put(`sum of rows ${dtype}`, tolerance, x(9, 1000), (a) => sum(a as MxArray, -1));
    put(`sum of columns ${dtype}`, tolerance, x(300, 70), (a) => sum(a as MxArray, 0));
    put(`max ${dtype}`, 0, x(9, 1000), (a) => max(a as MxArray, -1));
    put(`argmax ${dtype}`, 0, () => [reshape(astype(array(Float32Array.from({ length: 5000 }, (_, i) => (i * 611) % 4999)), float32), [5, 1000])], (a) => argmax(a as MxArray, -1));
    put(`sort ${dtype}`, 0, x(5, 300), (a) => sort(a as MxArray, -1));
    put(`cumsum ${dtype}`, 4 * tolerance, x(4, 300), (a) => cumsum(a as MxArray, -1));
    put(`matrix * vector ${dtype}`, tolerance, two([1, 256], [256, 96]), (a, b) => matmul(a as MxArray, b as MxArray));
    put(`vector * transposed ${dtype}`, tolerance, two([1, 256], [96, 256]), (a, b) => matmul(a as MxArray, transpose(b as MxArray)));
    put(`matmul ${dtype}`, tolerance, two([2, 130, 96], [2, 96, 160]), (a, b) => matmul(a as MxArray, b as MxArray));
    put(`attention of one query ${dtype}`, tolerance, () => [numbers([1, 8, 1, 64], dtype), numbers([1, 2, 40, 64], dtype, 1), numbers([1, 2, 40, 64], dtype, 2)], (q, k, v) => scaledDotProductAttention(q as MxArray, k as MxArray, v as MxArray, 0.125));
    put(`causal attention ${dtype}`, tolerance, () => [numbers([1, 4, 70, 64], dtype), numbers([1, 2, 70, 64], dtype, 1), numbers([1, 2, 70, 64], dtype, 2)], (q, k, v) => scaledDotProductAttention(q as MxArray, k as MxArray, v as MxArray, 0.125, "causal"));
    for (const width of [4, 8])
      for (const rows of [1, 70])
        put(`quantizedMatmul ${width} bits, ${rows} rows, ${dtype}`, tolerance, () => [numbers([rows, 512], dtype), ...quantize(numbers([128, 512], dtype, 1), 64, width)], (a, w, scales, biases) =>
          quantizedMatmul(a as MxArray, w as MxArray, scales as MxArray, biases as MxArray, true, 64, width));
  }
  for (const [dtype, tolerance] of types) samples.push(...decodeSamples(dtype, tolerance));
  for (const mode of ["mxfp4", "nvfp4", "mxfp8"] as const) {
    const matrix = (): MxArray[] => [...quantize(numbers([128, 512], bfloat16, 1), null, null, mode)];
    for (const rows of [1, 70])
      put(`quantizedMatmul ${mode}, ${rows} rows`, 2e-2, () => [numbers([rows, 512], bfloat16), ...matrix()], (a, w, scales) => quantizedMatmul(a as MxArray, w as MxArray, scales as MxArray, null, true, null, null, mode));
    put(`dequantize ${mode}`, 1e-2, matrix, (w, scales) => dequantize(w as MxArray, scales as MxArray, null, null, null, mode));
  }
  put("random bits", 0, () => [key(7)], (k) => bits([1000], 4, k as MxArray));
  return samples;
}

/** The ops of a decode step, whose kernels are fused: the CPU computes them by their definitions. */
function decodeSamples(dtype: Dtype, tolerance: number): Sample[] {
  const samples: Sample[] = [];
  const [K, N, eps] = [256, 40, 1e-6];
  const place = (): MxArray => array(Int32Array.of(37), int32);
  const put = (name: string, allowed: number, inputs: Sample["inputs"], compute: (...xs: MxArray[]) => MxArray): number => samples.push({ name: `${name} ${dtype}`, tolerance: allowed, inputs, compute });
  for (const packed of [true, false]) {
    const rows = (n: number, seed: number): MxArray[] => (packed ? [...quantize(numbers([n, K], dtype, seed), 64, 4)] : [numbers([n, K], dtype, seed)]);
    const each = packed ? 3 : 1;
    const matrices = (xs: readonly MxArray[]): DecodeMatrix[] =>
      Array.from({ length: xs.length / each }, (_, i) => {
        const [weight, scales, biases] = xs.slice(each * i, each * (i + 1)) as [MxArray, MxArray, MxArray];
        return packed ? { weight, scales, biases, groupSize: 64, bits: 4 } : { weight };
      });
    const kind = packed ? "4 bits" : "dense";
    const x = (): MxArray[] => [numbers([1, K], dtype), numbers([K], dtype, 1)];
    put(`normProject, ${kind},`, tolerance, () => [...x(), ...rows(N, 2), ...rows(16, 3)], (a, norm, ...ms) => normProject(a as MxArray, norm as MxArray, eps, matrices(ms)));
    put(`normGateUp, ${kind},`, tolerance, () => [...x(), ...rows(N, 2), ...rows(N, 3)], (a, norm, ...ms) => {
      const [gate, up] = matrices(ms) as [DecodeMatrix, DecodeMatrix];
      return normGateUp(a as MxArray, norm as MxArray, eps, gate, up);
    });
    put(`projectAdd, ${kind},`, tolerance, () => [numbers([1, K], dtype), numbers([1, N], dtype, 1), ...rows(N, 2)], (a, residual, ...ms) => projectAdd(a as MxArray, matrices(ms)[0] as DecodeMatrix, residual as MxArray));
    // Two ranges of positions with sums of 1 to 2.
    const parts = (): MxArray => concatenate([numbers([2, 4, K / 4 + 1], float32), add(numbers([2, 4, 1], float32, 1), 2), zeros([2, 4, 2])], -1);
    put(`combineProjectAdd, ${kind},`, tolerance, () => [parts(), numbers([1, N], dtype, 1), place(), ...rows(N, 2)], (a, residual, at, ...ms) =>
      combineProjectAdd(a as MxArray, at as MxArray, 32, matrices(ms)[0] as DecodeMatrix, residual as MxArray));
    put(`embedRow, ${kind},`, tolerance, () => [place(), ...rows(N, 2)], (token, ...ms) => embedRow(token as MxArray, matrices(ms)[0] as DecodeMatrix));
  }
  const params = { heads: 4, kvHeads: 2, headDim: 64, scale: 0.125, rope: { dims: 64, traditional: false, scale: 1, base: 10000 }, eps, splits: 2, least: 16 };
  const cache = (seed: number): MxArray => numbers([1, 2, 64, 64], dtype, seed);
  const inputs = (): MxArray[] => [numbers([1, 512], dtype), place(), cache(1), cache(2), numbers([64], dtype, 3), numbers([64], dtype, 4)];
  for (const [i, what] of ["sums", "keys", "values"].entries())
    put(`attentionStep, ${what},`, tolerance, inputs, (qkv, at, k, v, qn, kn) => attentionStep(qkv as MxArray, at as MxArray, k as MxArray, v as MxArray, [qn as MxArray, kn as MxArray], params)[i] as MxArray);
  for (const temperature of [0, 1])
    put(`chooseToken at temperature ${temperature}`, 0, () => [numbers([1, 3000], dtype), array(Int32Array.of(3, 17, 18, 5), int32), zeros([8], int32)], (logits, state, history) =>
      chooseToken(logits as MxArray, state as MxArray, history as MxArray, { temperature, seed: 7 })[0]);
  return samples;
}
