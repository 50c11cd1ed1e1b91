/**
 * Plans the dispatch of a fused elementwise group on the GPU: the same expressions and lowering as codegen/elementwise.ts. An invocation
 * computes one element, or several neighbours that it loads and stores in wide accesses. A kernel depends only on structure: expression,
 * dtypes, access, number of dimensions; sizes, strides and addresses are push constants (or a table, when those are too short).
 *
 * Results are those of the WebAssembly kernels, bit for bit, except where the device's own arithmetic differs: division (half an
 * ulp and a little) and square root (up to 3 ulp) on devices that do not round them correctly, and subnormal float32 numbers (which a device may flush to zero).
 *
 * In place: output 0 may lie over an input of the same element size that is row-major contiguous over the group's shape, because each
 * invocation reads all its elements before it writes, and no other reads them.
 */
import { type Value, reachable } from "../core/expr.ts";
import { type GeneratedShader, type GpuDevice, type GpuStep, gpuInput, gpuOutput, spreadGroups } from "../core/gpu.ts";
import { type Group, type Space, mergeDimensions } from "./elementwise.ts";
import { weigh } from "./kernel.ts";
import { type SpirvAccess, type SpirvFeatures, type SpirvPlan, emitSpirvKernel, groupSize, isFlat, tileShape } from "./kernel-spirv.ts";
import { type Stored, lower } from "./lower.ts";

export type { SpirvFeatures } from "./kernel-spirv.ts";

/** What of a device the kernels depend on. */
export interface SpirvDevice {
  readonly features: SpirvFeatures;
  readonly vendorId?: number;
}
/** Mesa's lavapipe runs on the CPU, whose division is rounded correctly, and its fma is not one operation. */
export const roundsDivision = (vendorId: number | undefined): boolean => vendorId === 0x10005;

export interface StepOptions {
  /** For the inputs, then the outputs: the address of the first element is a multiple of 16. Inputs are taken not to be unless it is said, outputs to be. */
  readonly aligned?: readonly boolean[] | undefined;
  /** Most elements per invocation; by default as many as fill 16 bytes where there is enough work for it. */
  readonly lanes?: number | undefined;
  /** Tiles where an input's neighbours lie along another dimension than the output's; by default where there is enough work for it. */
  readonly tiled?: boolean | undefined;
  /** The device rounds float32 division correctly, so that the instruction is enough; by default what is known of its vendor. */
  readonly roundsDivision?: boolean | undefined;
}

/** Push constants that every device takes, in bytes. */
export const pushLimit = 128;
/** Below this many elements more invocations are better than wide accesses: a large GPU needs tens of thousands to be busy. */
const wideSize = 1 << 17;
/** Most instructions of a kernel by unrolling. */
export const unrolledWeight = 800;

/** The dispatch that computes the group, or the reason why there is none ("cannot: ..."). `aligned`: see StepOptions. */
export function elementwiseStep(group: Group, device: GpuDevice, aligned?: readonly boolean[]): GpuStep | string {
  return elementwiseSpirv(group, device, { aligned });
}

export function elementwiseSpirv(group: Group, device: SpirvDevice, options: StepOptions = {}): GpuStep | string {
  const { inputs, outputs } = group;
  let size = 1;
  for (const d of group.shape) size *= d;
  if (size >= 2 ** 31) return `cannot: ${size} elements are more than a kernel can count`;
  const n = inputs.length;
  const merged = mergeDimensions(group.shape, inputs);
  const flat = flatness(merged, n);
  const strided = flat.includes("s");
  if (strided && !countable(merged, n)) return "cannot: a stride goes further than a kernel can count";
  const most = options.lanes ?? (size < wideSize ? 1 : lanesOf(group, lowered(group).weight));
  const lanes = strided ? divisor(most, merged.dims[0] as number) : most;
  const tiled = strided && (options.tiled ?? size >= wideSize) ? tiledSpace(merged, n) : undefined;
  const space = tiled ?? merged;
  const aligned = (i: number): boolean => options.aligned?.[i] ?? i >= n;
  const access = inputs.map((_, i): SpirvAccess => (flat[i] === "s" ? stridedAccess(space, n, i, lanes, aligned(i)) : flat[i] === "f" && !aligned(i) ? "e" : (flat[i] as "f" | "o")));
  const stores = outputs.map((_, j): SpirvAccess => (aligned(n + j) ? "f" : "e"));
  const form: Form = { access, stores, dims: strided ? space.dims.length : 0, lanes, tiled: tiled !== undefined };
  const words = wordsOf(space, form, size);
  const operands = n + outputs.length;
  const table = 8 * operands + 4 * words.length > pushLimit;
  if (table && 8 * (operands + 1) > pushLimit) return `cannot: ${operands} operands need ${8 * (operands + 1)} bytes of push constants for their addresses, ${pushLimit} are portable`;
  const shader = shaderOf(group, form, table, device, options.roundsDivision);
  if (typeof shader === "string") return shader;
  const whole = Math.floor(size / lanes);
  // Elements that fill no whole invocation have one each.
  const invocations = whole + (size - whole * lanes);
  const groups = tiled ? (words[0] as number) : Math.ceil(invocations / groupSize);
  const buffers = [...inputs.map((_, i) => gpuInput(i)), ...outputs.map((_, j) => gpuOutput(j))];
  return { shader, buffers, ...(table ? { table: words, words: [] } : { words }), groups: spreadGroups(groups) };
}

/** A plan without what the group itself says. */
type Form = Pick<SpirvPlan, "access" | "stores" | "dims" | "lanes" | "tiled">;

/**
 * The space with a dimension along which an input's neighbours lie in place 1, when they do not lie along the inner one and both are long enough for tiles; or
 * undefined.
 */
function tiledSpace({ dims, strides }: Space, n: number): TiledSpace | undefined {
  if (dims.length < 2 || (dims[0] as number) < 16) return undefined;
  for (let i = 0; i < n; i++) {
    if (Math.abs(strides[i] as number) <= 1) continue;
    for (let d = 1; d < dims.length; d++) {
      if (Math.abs(strides[d * n + i] as number) !== 1 || (dims[d] as number) < 8) continue;
      const order = [0, d, ...dims.map((_, k) => k).filter((k) => k !== 0 && k !== d)];
      const products = dims.map((_, k) => dims.slice(0, k).reduce((a, b) => a * b, 1));
      return { dims: order.map((k) => dims[k] as number), strides: order.flatMap((k) => strides.slice(k * n, (k + 1) * n)), output: order.map((k) => products[k] as number) };
    }
  }
  return undefined;
}
interface TiledSpace extends Space {
  /** Strides of the outputs. */
  readonly output: readonly number[];
}

/** How each input lies in the group's space: `f` row-major contiguous, `o` one value, `s` anything else. */
function flatness(space: Space, n: number): ("f" | "o" | "s")[] {
  const kinds = new Array<"f" | "o" | "s">(n).fill("f");
  for (let i = 0; i < n; i++) {
    let step = 1;
    let once = space.dims.length > 0;
    for (let d = 0; d < space.dims.length; d++) {
      const stride = space.strides[d * n + i];
      if (stride !== step) kinds[i] = "s";
      if (stride !== 0) once = false;
      step *= space.dims[d] as number;
    }
    if (once) kinds[i] = "o";
  }
  return kinds;
}

/** True when positions of all inputs fit signed 32-bit integers. */
export function countable(space: Space, n: number): boolean {
  for (let i = 0; i < n; i++) {
    let [low, high] = [0, 0];
    for (let d = 0; d < space.dims.length; d++) {
      const reach = (space.strides[d * n + i] as number) * ((space.dims[d] as number) - 1);
      if (reach > 0) high += reach;
      else low += reach;
    }
    if (high >= 2 ** 31 || low < -(2 ** 31)) return false;
  }
  return true;
}

/** Elements of the widest type in 16 bytes, but no more than 8, and fewer when the formula is long. */
function lanesOf(group: Group, weight: number): number {
  let bytes = 2;
  for (const x of group.inputs) bytes = Math.max(bytes, x.dtype.size);
  for (const o of group.outputs) bytes = Math.max(bytes, o.dtype.size);
  let lanes = 16 / bytes;
  while (lanes > 1 && lanes * weight > unrolledWeight) lanes /= 2;
  return lanes;
}
/** The largest power of two up to `most` that divides n. */
export function divisor(most: number, n: number): number {
  let lanes = most;
  while (lanes > 1 && n % lanes !== 0) lanes /= 2;
  return lanes;
}

/** `w` wide accesses, `u` neighbours one by one, `r` the same value for all of an invocation, `g` neighbours a stride apart. */
function stridedAccess(space: Space, n: number, i: number, lanes: number, aligned: boolean): SpirvAccess {
  const inner = space.strides[i] as number;
  if (inner === 0) return "r";
  if (inner !== 1) return "g";
  if (lanes === 1 || !aligned) return "u";
  for (let d = 1; d < space.dims.length; d++) if ((space.strides[d * n + i] as number) % lanes !== 0) return "u";
  return "w";
}

/** Words that the kernel reads, in the order of kernel-spirv.ts. */
function wordsOf(space: Space | TiledSpace, { access, dims, lanes }: Form, size: number): number[] {
  if (dims === 0) return lanes > 1 ? [Math.floor(size / lanes), size] : [size];
  const inner = (space.dims[0] as number) / lanes;
  const counts = [inner, ...space.dims.slice(1)];
  const output = "output" in space ? space.output : undefined;
  if (output) tileShape(lanes).forEach((t, d) => (counts[d] = Math.ceil((counts[d] as number) / t)));
  const words = [counts.reduce((a, b) => a * b, 1)];
  const shifts: number[] = [];
  for (let d = 0; d < dims - 1; d++) {
    const [multiplier, shift] = reciprocal(counts[d] as number);
    words.push(counts[d] as number, multiplier);
    shifts.push(shift);
  }
  for (let d = 0; d < shifts.length; d += 6) words.push(shifts.slice(d, d + 6).reduce((word, s, i) => word + s * 2 ** (5 * i), 0));
  if (output) words.push(inner, space.dims[1] as number, ...output.slice(1).map((s) => s / lanes));
  access.forEach((a, i) => {
    if (isFlat(a)) return;
    for (let d = a === "g" ? 0 : 1; d < dims; d++) {
      const stride = space.strides[d * access.length + i] as number;
      words.push((a === "w" ? stride / lanes : stride) >>> 0);
    }
  });
  return words;
}

/** Division by an invariant integer (Granlund and Montgomery, 1994): for 0 <= n < 2^31, floor(n / d) is the high word of 2n * multiplier, shifted right. */
export function reciprocal(d: number): [multiplier: number, shift: number] {
  const shift = d === 1 ? 0 : 32 - Math.clz32(d - 1);
  return [Number((2n ** BigInt(31 + shift) + BigInt(d) - 1n) / BigInt(d)), shift];
}

interface Lowered {
  readonly outputs: readonly Stored[];
  readonly weight: number;
}
const lowerings = new Map<string, Lowered>();
const outputsKey = (group: Group): string => {
  let key = "";
  for (const o of group.outputs) key += `${o.value.id}.${o.dtype.code},`;
  return key;
};
function lowered(group: Group): Lowered {
  const key = outputsKey(group);
  let known = lowerings.get(key);
  if (!known) {
    if (lowerings.size >= shaderLimit) lowerings.clear();
    const outputs = lower(group.outputs, { division32: true, subnormals: false });
    known = { outputs, weight: weigh(outputs) };
    lowerings.set(key, known);
  }
  return known;
}

const shaders = new Map<string, GeneratedShader | string>();
const shaderLimit = 4096;
/** What code depends on, by name; the same for a device's whole life. */
const featureNames = [
  "shaderInt64", "shaderFloat64", "shaderInt8", "shaderInt16", "storageBuffer8BitAccess", "storageBuffer16BitAccess", "signedZeroInfNanPreserveFloat32", "signedZeroInfNanPreserveFloat64",
] as const satisfies readonly (keyof SpirvFeatures)[];
const featureKeys = new WeakMap<object, string>();
export function featureKey(features: SpirvFeatures): string {
  let key = featureKeys.get(features);
  if (key === undefined) {
    key = featureNames.reduce((word, name, i) => word + (features[name] ? 2 ** i : 0), 0).toString(36);
    featureKeys.set(features, key);
  }
  return key;
}

function shaderOf(group: Group, form: Form, table: boolean, device: SpirvDevice, rounds = roundsDivision(device.vendorId)): GeneratedShader | string {
  const { features } = device;
  const { access, stores, dims, lanes, tiled } = form;
  const flags = `${tiled ? "q" : ""}${table ? "t" : ""}${rounds ? "r" : ""}.${featureKey(features)}`;
  const key = `${outputsKey(group)}${access.join("")}${stores.join("")}${dims}x${lanes}${flags}`;
  const known = shaders.get(key);
  if (known !== undefined) return known;
  if (shaders.size >= shaderLimit) shaders.clear();
  const plan: SpirvPlan = { outputs: lowered(group).outputs, inputs: group.inputs.map((x) => x.dtype), ...form, table, features, roundsDivision: rounds };
  const refusal = lacks(plan.outputs.map((o) => o.value), [...plan.inputs.map((d) => d.size), ...plan.outputs.map((o) => o.bytes)], features);
  let code: Uint32Array | undefined;
  const made = refusal ?? {
    key: `elementwise/${key}`,
    code: () => {
      code ??= emitSpirvKernel(plan);
      return code;
    },
  };
  shaders.set(key, made);
  return made;
}

/** Why a device cannot compute these values of elements of these sizes, or undefined. */
export function lacks(values: readonly Value[], bytes: readonly number[], features: SpirvFeatures): string | undefined {
  const types = new Set(reachable(values).map((v) => v.type));
  const sizes = new Set(bytes);
  if (types.has("f64") && !features.shaderFloat64) return "cannot: the device has no float64";
  if ((types.has("i64") || types.has("u64")) && !features.shaderInt64) return "cannot: the device has no int64";
  if (sizes.has(1) && !(features.shaderInt8 && features.storageBuffer8BitAccess)) return "cannot: the device cannot address 8-bit elements";
  if (sizes.has(2) && !(features.shaderInt16 && features.storageBuffer16BitAccess)) return "cannot: the device cannot address 16-bit elements";
  return undefined;
}
