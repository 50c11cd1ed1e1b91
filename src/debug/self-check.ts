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
import { env } from "../core/env.ts";
import { tidy } from "../core/memory.ts";
import { ops } from "../core/op.ts";
import { vulkanBackend } from "../backend/vulkan/index.ts";
import { cacheFile } from "../backend/vulkan/pipelines.ts";
import { shaderFiles } from "../backend/vulkan/shaders.ts";
import { closedKernels } from "../schedule/gate.ts";
import { addTracer, evaluate, installBeforeGpu, stats, untraced } from "../schedule/run.ts";
import { valuesOf } from "./oracle.ts";
import { type Sample, samplesOf } from "./samples.ts";

export type { Sample } from "./samples.ts";

const circumstances: ReadonlySet<string> = new Set(["DEVICE_LOST", "DEVICE_CLOSED", "OUT_OF_DEVICE_MEMORY", "OUT_OF_HOST_MEMORY"]);

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
    // A device that is gone, or full, says nothing about its kernels.
    if (circumstances.has((error as { code?: string }).code ?? "")) throw error;
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
