/** Decides which kernel may run. One function for routing, reports and tests. */
import picomatch from "picomatch";
import type { View } from "../core/array.ts";
import { env } from "../core/env.ts";
import { type GpuDevice, type GpuKernel, missingFeature } from "../core/gpu.ts";
import type { Feature, InputLayout, Kernel, Op } from "../core/op.ts";

export type Verdict = { readonly open: true } | { readonly open: false; readonly why: string };
const open: Verdict = { open: true };

type Matcher = (name: string) => boolean;
const never: Matcher = () => false;
const matcher = (globs: string): Matcher => {
  const list = globs.split(",").map((g) => g.trim()).filter((g) => g !== "");
  return list.length === 0 ? never : (name) => namesOf(name).some((n) => list.some((g) => picomatch.isMatch(n, g)));
};
/** A kernel's name, with and without its backend. Generated kernels also go by `gen_elementwise`, `gen_rows` and `gen_columns`, so that one glob, `gen_*`, has them all. */
function namesOf(name: string): string[] {
  const cut = name.indexOf("/") + 1;
  const [backend, kernel] = [name.slice(0, cut), name.slice(cut)];
  const alias = kernel === "generated" ? "gen_elementwise" : kernel === "generated-rows" ? "gen_rows" : kernel === "generated-columns" ? "gen_columns" : undefined;
  return alias === undefined ? [name, kernel] : [name, kernel, backend + alias, alias];
}

/** The switches of one evaluation. */
export interface Switches {
  readonly disabled: Matcher;
  readonly forced: Matcher;
  readonly fuse: boolean;
  readonly debug: number;
  readonly check: boolean;
  readonly strict: boolean;
  /** MLX_TUNE. */
  readonly tune: string;
}
let cached: { key: string; switches: Switches } | undefined;
/** Reads the flags; cheap when they have not changed. */
export function readSwitches(): Switches {
  const key = `${process.env["MLX_DISABLE"]}|${process.env["MLX_FORCE"]}|${process.env["MLX_FUSE"]}|${process.env["MLX_DEBUG"]}|${process.env["MLX_CHECK"]}|${process.env["MLX_STRICT"]}|${process.env["MLX_TUNE"]}`;
  if (cached?.key !== key) {
    cached = { key, switches: { disabled: matcher(env("MLX_DISABLE")), forced: matcher(env("MLX_FORCE")), fuse: env("MLX_FUSE"), debug: env("MLX_DEBUG"), check: env("MLX_CHECK"), strict: env("MLX_STRICT"), tune: env("MLX_TUNE") } };
  }
  return cached.switches;
}

/** Features of the CPU backend; set when it starts. */
export const features = new Set<Feature>(["simd", "threads"]);

/** Says whether a kernel may run on these arguments, and if not why not. `forced`: thresholds of speed do not count. */
export function check<P extends object>(kernel: Kernel<P>, inputs: readonly View[], params: P, outputs: readonly View[], switches: Switches, forced = false): Verdict {
  if (switches.disabled !== never && switches.disabled(kernel.name)) return { open: false, why: "disabled by MLX_DISABLE" };
  const gate = kernel.gate;
  if (!gate) return open;
  if (gate.needs) for (const f of gate.needs) if (!features.has(f)) return { open: false, why: `cannot: this machine lacks ${f}` };
  const why = gate.refuse?.(inputs, params, outputs);
  if (why === undefined) return open;
  if (why.startsWith("slower:") && (forced || switches.forced(kernel.name))) return open;
  return { open: false, why };
}

/** True when an operand lies as a kernel wants it. */
export function satisfies(d: View, want: InputLayout): boolean {
  if (want === "any" || d.contiguous) return true;
  if (want === "row") return false;
  const last = d.shape.length - 1;
  return last < 0 || d.strides[last] === 1 || d.shape[last] === 1;
}

/** First open kernel of an op; refusals go to `refused`. */
export function route<P extends object>(op: Op<P>, inputs: readonly View[], params: P, outputs: readonly View[], switches: Switches, refused: string[]): Kernel<P> | undefined {
  for (const kernel of op.kernels) {
    const verdict = check(kernel, inputs, params, outputs, switches);
    if (verdict.open) return kernel;
    refused.push(`${kernel.name}: ${verdict.why}`);
  }
  return undefined;
}

/** GPU kernels that failed in this process, with the reason. */
export const closedKernels = new Map<string, string>();
const reported = new Set<string>();
/** Takes a kernel that the driver can not make out of this process; says so once. */
export function closeKernel(name: string, why: string): void {
  closedKernels.set(name, `cannot: the driver can not make it (${why})`);
  if (reported.has(name)) return;
  reported.add(name);
  process.stderr.write(`mlx-vk: ${name} is not used: ${why}\n`);
}

/** Says whether a GPU kernel may run on these arguments, and if not why not. `forced`: thresholds of speed do not count. */
export function checkGpu<P extends object>(kernel: GpuKernel<P>, inputs: readonly View[], params: P, outputs: readonly View[], switches: Switches, device: GpuDevice, forced = false): Verdict {
  if (switches.disabled !== never && switches.disabled(kernel.name)) return { open: false, why: "disabled by MLX_DISABLE" };
  const closed = closedKernels.get(kernel.name);
  if (closed !== undefined) return { open: false, why: closed };
  const { gate } = kernel;
  if (!gate) return open;
  if (gate.env !== undefined) for (const flag of typeof gate.env === "string" ? [gate.env] : gate.env) if (!env(flag)) return { open: false, why: `switched off by ${flag}` };
  const missing = missingFeature(gate, inputs, device.features);
  if (missing !== undefined) return { open: false, why: `cannot: the device lacks ${missing}` };
  const why = gate.refuse?.(inputs, params, outputs, device);
  if (why === undefined) return open;
  if (why.startsWith("slower:") && (forced || switches.forced(kernel.name))) return open;
  return { open: false, why };
}

/** Why no generated kernel may run on the GPU, or undefined. */
export const generatedClosed = (switches: Switches): string | undefined => (switches.disabled("vulkan/generated") ? "disabled by MLX_DISABLE" : closedKernels.get("vulkan/generated"));

/** Whether generated kernels of a kind may run on a backend. Where no generated kernel may, these may not either. */
const generatedOpen = (switches: Switches, backend: "wasm" | "vulkan", kind: "rows" | "columns"): boolean =>
  !switches.disabled(`${backend}/generated-${kind}`) && !switches.disabled(`${backend}/generated`) && (backend === "wasm" || !closedKernels.has("vulkan/generated"));
export const rowsOpen = (switches: Switches, backend: "wasm" | "vulkan"): boolean => generatedOpen(switches, backend, "rows");
export const columnsOpen = (switches: Switches, backend: "wasm" | "vulkan"): boolean => generatedOpen(switches, backend, "columns");

/** First open GPU kernel of an op; refusals go to `refused`. */
export function routeGpu<P extends object>(
  op: Op<P>,
  inputs: readonly View[],
  params: P,
  outputs: readonly View[],
  switches: Switches,
  device: GpuDevice,
  refused: string[],
): GpuKernel<P> | undefined {
  for (const kernel of op.gpu ?? []) {
    const verdict = checkGpu(kernel, inputs, params, outputs, switches, device);
    if (verdict.open) return kernel;
    refused.push(`${kernel.name}: ${verdict.why}`);
  }
  return undefined;
}
