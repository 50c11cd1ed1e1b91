/**
 * Drivers lie at times: a kernel that is right elsewhere computes nonsense on one of them. Before the first work on a driver, small samples run on each kernel of the
 * GPU that takes them, and the results are compared with the CPU's. A kernel that lies is closed for good on this driver, with the reason; what came out is kept
 * beside the compiled pipelines. MLX_VK_SELF_CHECK=0 leaves it out.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { ArrayDesc, MxArray } from "../core/array.ts";
import { stream } from "../core/device.ts";
import { type Dtype, bfloat16, float16, float32 } from "../core/dtype.ts";
import { env } from "../core/env.ts";
import { tidy } from "../core/memory.ts";
import { ops } from "../core/op.ts";
import { vulkanBackend } from "../backend/vulkan/index.ts";
import { cacheFile } from "../backend/vulkan/pipelines.ts";
import { shaderFiles } from "../backend/vulkan/shaders.ts";
import { argmax } from "../ops/argreduce.ts";
import { scaledDotProductAttention } from "../ops/attention.ts";
import { add, divide, multiply } from "../ops/binary.ts";
import { astype } from "../ops/cast.ts";
import { concatenate } from "../ops/concat.ts";
import { take } from "../ops/indexing.ts";
import { matmul } from "../ops/matmul.ts";
import { array } from "../ops/methods.ts";
import { contiguous, reshape, transpose } from "../ops/movement.ts";
import { layerNorm, rmsNorm } from "../ops/norm.ts";
import { quantize, quantizedMatmul } from "../ops/quantized.ts";
import { bits, key } from "../ops/random.ts";
import { max, sum } from "../ops/reduce.ts";
import { rope } from "../ops/rope.ts";
import { cumsum } from "../ops/scan.ts";
import { logsumexp, softmax } from "../ops/softmax.ts";
import { sort } from "../ops/sort.ts";
import { exp, sigmoid } from "../ops/unary.ts";
import { closedKernels } from "../schedule/gate.ts";
import { addTracer, evaluate, installBeforeGpu, stats, untraced } from "../schedule/run.ts";
import { valuesOf } from "./oracle.ts";

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

/** Ops that are parts of others come first, so that no other kernel is blamed for them. */
function samplesOf(): Sample[] {
  const samples: Sample[] = [];
  const put = (name: string, tolerance: number, inputs: Sample["inputs"], compute: Sample["compute"]): number => samples.push({ name, tolerance, inputs, compute });
  for (const [dtype, tolerance] of [[float32, 2e-5], [bfloat16, 2e-2], [float16, 4e-3]] as const) {
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
  put("random bits", 0, () => [key(7)], (k) => bits([1000], 4, k as MxArray));
  return samples;
}

interface Outcome {
  readonly values: Float64Array;
  /** The GPU kernels that took part. */
  readonly kernels: readonly string[];
  /** An op was computed by its definition in other ops. */
  readonly apart: boolean;
}
/** What the CPU or the GPU makes of a sample. */
function run(sample: Sample, device: "cpu" | "gpu", inputs: readonly MxArray[]): Outcome {
  const kernels = new Set<string>();
  let apart = false;
  const remove = addTracer({
    recorded: (_node, kernel) => {
      if (kernel.startsWith("vulkan/")) kernels.add(kernel);
      else if (kernel === "composite") apart = true;
    },
  });
  const scope = stream(device);
  try {
    return tidy(() => {
      const desc: ArrayDesc = sample.compute(...inputs).desc;
      evaluate([desc]);
      return { values: valuesOf(desc), kernels: [...kernels], apart };
    });
  } catch (error) {
    // Under MLX_STRICT an op whose kernels are all closed is an error.
    return { values: Float64Array.of(), kernels: (error as Error).message.includes("MLX_STRICT") ? [] : [...kernels], apart };
  } finally {
    scope[Symbol.dispose]();
    remove();
  }
}
/** What is wrong with the values, or undefined. */
function difference(got: Float64Array, want: Float64Array, tolerance: number): string | undefined {
  if (got.length !== want.length) return "it fails";
  let scale = 0;
  for (const w of want) if (Number.isFinite(w)) scale = Math.max(scale, Math.abs(w));
  for (let i = 0; i < want.length; i++) {
    const [g, w] = [got[i] as number, want[i] as number];
    if (g === w || (Number.isNaN(g) && Number.isNaN(w)) || Math.abs(g - w) <= tolerance * scale) continue;
    return `element ${i} is ${g}, the CPU has ${w}`;
  }
  return undefined;
}

/** Runs the samples on every kernel that takes them. Returns those that lie, with the reason. */
export function checkKernels(samples: readonly Sample[] = samplesOf()): Map<string, string> {
  const lies = new Map<string, string>();
  const right = new Set<string>();
  const before = new Map(closedKernels);
  const saved = { stats: { ...stats }, counters: { ...vulkanBackend().counters } };
  try {
    for (const sample of samples) {
      const inputs = tidyInputs(sample);
      const want = run(sample, "cpu", inputs).values;
      // Each round closes the kernels of the one before it, so that the next best ones get their turn.
      for (let round = 0; round < 8; round++) {
        const { values, kernels, apart } = run(sample, "gpu", inputs);
        // Definitions in other ops round more often, so they are no measure; their ops have samples of their own.
        if (kernels.length === 0 || apart) break;
        const wrong = difference(values, want, sample.tolerance);
        // Of several kernels those are blamed that no sample has found right.
        const blamed = kernels.length === 1 ? kernels : kernels.filter((k) => !right.has(k));
        for (const k of kernels) {
          if (wrong === undefined) right.add(k);
          else if (blamed.includes(k)) lies.set(k, `cannot: it is wrong on this driver (${sample.name}: ${wrong})`);
          closedKernels.set(k, "cannot: closed for the self-check");
        }
      }
      closedKernels.clear();
      for (const [k, why] of [...before, ...lies]) closedKernels.set(k, why);
      for (const x of inputs) x.dispose();
    }
  } finally {
    closedKernels.clear();
    for (const [k, why] of before) closedKernels.set(k, why);
    Object.assign(stats, saved.stats);
    Object.assign(vulkanBackend().counters, saved.counters);
  }
  return lies;
}
function tidyInputs(sample: Sample): readonly MxArray[] {
  const scope = stream("cpu");
  try {
    const inputs = tidy(() => sample.inputs() as MxArray[]);
    evaluate(inputs.map((x) => x.desc));
    return inputs;
  } finally {
    scope[Symbol.dispose]();
  }
}

interface Kept {
  readonly state: string;
  readonly closed: Readonly<Record<string, string>>;
}
/** Changes with the kernels and their samples. */
function stateOf(samples: readonly Sample[]): string {
  const kernels = [...ops.values()].flatMap((op) => (op.gpu ?? []).map((k) => k.name));
  return createHash("sha256").update([...kernels, ...shaderFiles(), ...samples.map((s) => s.name)].sort().join()).digest("hex");
}
function readKept(file: string | undefined, state: string): Kept | undefined {
  if (file === undefined) return undefined;
  try {
    const kept = JSON.parse(readFileSync(file, "utf8")) as Kept;
    return kept.state === state ? kept : undefined;
  } catch {
    return undefined;
  }
}
function writeKept(file: string | undefined, kept: Kept): void {
  if (file === undefined) return;
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(`${file}.${process.pid}`, `${JSON.stringify(kept, null, 1)}\n`);
    renameSync(`${file}.${process.pid}`, file);
  } catch {
    // Then the next process checks again.
  }
}

/** Checks the kernels of the open device, unless that was done before on this driver, and closes those that lie. */
export function selfCheck(samples: readonly Sample[] = samplesOf()): void {
  const flag = env("MLX_VK_SELF_CHECK");
  const { info } = vulkanBackend();
  // A software rasterizer takes seconds, and is checked by the tests.
  if (flag === "0" || (flag !== "1" && info.type === 4)) return;
  const file = cacheFile(info)?.replace(/\.bin$/, ".checks.json");
  const state = stateOf(samples);
  let kept = readKept(file, state);
  if (!kept) {
    const lies = untraced(() => checkKernels(samples));
    kept = { state, closed: Object.fromEntries(lies) };
    writeKept(file, kept);
    for (const [k, why] of lies) process.stderr.write(`mlx-vk: ${k} is not used: ${why}; MLX_VK_SELF_CHECK=0 leaves this check out\n`);
  }
  for (const [k, why] of Object.entries(kept.closed)) closedKernels.set(k, why);
}

installBeforeGpu(() => selfCheck());
