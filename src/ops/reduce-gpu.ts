/** GPU kernels of the reductions, and how a reduction is cut into passes and workgroups. */
import type { View } from "../core/array.ts";
import type { Dtype } from "../core/dtype.ts";
import { type GpuGate, type GpuKernel, type GpuLaunch, type GpuPointer, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, spreadGroups } from "../core/gpu.ts";
import { type Section, sectionsOf, sizeOfSections } from "./sections.ts";

export type Rule = "sum" | "prod" | "max" | "min" | "all" | "any";
interface ReduceParams {
  readonly axes: readonly number[];
  readonly keepdims: boolean;
}

/** Invocations that fill a large device, and workgroups that give each of its processors several. */
const invocationsWanted = 1 << 17;
const groupsWanted = 512;
/** Loads of an invocation below which another workgroup does not pay. */
const fewLoads = 4;

/** How one pass is laid over the device: the words and constants that shaders/reduce/reduce.comp takes. */
export interface PassPlan {
  readonly lanes: number;
  readonly across: number;
  readonly rowwise: boolean;
  readonly packed: boolean;
  readonly chunk: number;
  readonly chunks: number;
  readonly tiles: number;
}
/** `aligned`: memory can be read four elements at a time from any multiple of four on. `whole`: n must not be cut. */
export function planPass(outer: number, n: number, inner: number, aligned: boolean, whole = false): PassPlan {
  const outputs = outer * inner;
  const rowwise = inner === 1;
  if (rowwise) {
    const packed = aligned && n % 4 === 0;
    const loads = Math.max(1, packed ? n / 4 : n);
    // Short rows take one invocation each, so that a subgroup reads neighbouring rows. Few widths, because each is a pipeline.
    const busy = outputs * loads > invocationsWanted ? loads / fewLoads : loads;
    const across = loads <= 4 || busy <= 1 ? 1 : busy <= 12 ? 8 : busy <= 48 ? 32 : 256;
    const lanes = Math.max(128, across);
    const tiles = Math.ceil(outputs / (lanes / across));
    const cuts = whole ? 1 : Math.min(Math.ceil(loads / (across * fewLoads)), Math.ceil(groupsWanted / tiles));
    const unit = 4 * across;
    const chunk = cuts <= 1 ? n : Math.ceil(n / cuts / unit) * unit;
    return { lanes, across, rowwise, packed, chunk, chunks: Math.max(1, Math.ceil(n / Math.max(1, chunk))), tiles };
  }
  const packed = aligned && inner % 4 === 0;
  const columns = packed ? outputs / 4 : outputs;
  const across = columns <= 8 ? 64 : columns >= invocationsWanted || n < 8 ? 1 : 8;
  const lanes = across === 1 ? 128 : 256;
  const tiles = Math.ceil(columns / (lanes / across));
  const cuts = whole || across === 1 ? 1 : Math.min(Math.ceil(n / (across * fewLoads)), Math.ceil(groupsWanted / tiles));
  const chunk = cuts <= 1 ? n : Math.ceil(n / cuts);
  return { lanes, across, rowwise, packed, chunk, chunks: Math.max(1, Math.ceil(n / Math.max(1, chunk))), tiles };
}
export const passStep = (shader: string, plan: PassPlan, more: readonly number[], from: GpuPointer, to: GpuPointer, outer: number, n: number, inner: number, divisor = 1): GpuStep => ({
  shader: `reduce/${shader}`,
  constants: [plan.lanes, plan.across, Number(plan.rowwise), Number(plan.packed), ...more],
  buffers: [from, to],
  words: [outer * inner, n, inner, plan.chunk, plan.chunks, plan.tiles, divisor],
  groups: spreadGroups(plan.tiles * plan.chunks),
});

/** Bits of infinity at the top of a word, for kinds of keys. */
const infinities: Readonly<Record<string, number>> = { float16: 0x7c000000, bfloat16: 0x7f800000, float32: 0x7f800000, float64: 0x7ff00000 };
/** The constants that say how elements are ordered (shaders/reduce/keys.glsl): kind and infinity. */
export const orderOf = (d: Dtype): [number, number] => [d.kind === "float" ? 2 : d.kind === "signed" ? 1 : 0, infinities[d.name] ?? 0];

/** What is stored between two passes. */
type Stored = "input" | "partial" | "output";
/** Shader, constants from the rule on, and bytes of the result, by what a pass reads and writes. */
interface Form {
  readonly bytes: (stored: Stored) => number;
  readonly shader: (from: Stored, to: Stored) => { name: string; constants: readonly number[] };
}
function sumForm(product: boolean, from: Dtype, to: Dtype): Form {
  const rule = Number(product);
  // Complex numbers are two floats.
  const size = (d: Dtype): number => (d.kind === "complex" ? 4 : d.size);
  const floating = from.isInexact;
  const bytes = (s: Stored): number => (s === "input" ? size(from) : s === "partial" && floating && size(to) < 8 ? 4 : size(to));
  const family = !floating ? "int" : size(from) === 8 ? "double" : "float";
  const kind = Number(floating ? from.name === "bfloat16" : from.kind === "signed");
  return { bytes, shader: (a, b) => ({ name: `sum_${family}_${bytes(a)}_${bytes(b)}`, constants: [rule, kind] }) };
}
const extremeForm = (min: boolean, d: Dtype): Form => ({ bytes: () => d.size, shader: () => ({ name: `extreme_${d.size}`, constants: [Number(min), ...orderOf(d)] }) });
/** The bits that make an element true, of 64 bits high word first: not the sign of floats. */
function truthMasks(d: Dtype): [number, number] {
  if (d.kind === "complex") return [0x7fffffff, 0x7fffffff];
  if (d.kind === "float") return [d.size === 2 ? 0x7fff : 0x7fffffff, 0xffffffff];
  return [0xffffffff, 0xffffffff];
}
const truthForm = (any: boolean, d: Dtype): Form => ({
  bytes: (s) => (s === "input" ? d.size : 1),
  shader: (from) => (from === "input" ? { name: `truth_${d.size}`, constants: [Number(any), ...truthMasks(d)] } : { name: "truth_1", constants: [Number(any), 0xffffffff, 0xffffffff] }),
});
function formOf(rule: Rule, from: Dtype, to: Dtype): Form {
  if (rule === "sum" || rule === "prod") return sumForm(rule === "prod", from, to);
  return rule === "max" || rule === "min" ? extremeForm(rule === "min", from) : truthForm(rule === "any", from);
}

/** Chain of passes, innermost reduced section first; what is cut into chunks takes a further pass. */
class Passes {
  readonly steps: GpuStep[] = [];
  readonly scratch: number[] = [];
  private source: GpuPointer = gpuInput(0);
  private stored: Stored = "input";
  private readonly form: Form;
  private readonly divisor: number;
  private readonly aligned: boolean;
  /** `aligned`: the input begins at a multiple of four elements. */
  constructor(form: Form, divisor: number, aligned: boolean) {
    this.form = form;
    this.divisor = divisor;
    this.aligned = aligned;
  }
  add(outer: number, n: number, inner: number, last: boolean): void {
    const plan = planPass(outer, n, inner, this.form.bytes(this.stored) < 8 && (this.stored !== "input" || this.aligned));
    const final = last && plan.chunks === 1;
    const to: Stored = final ? "output" : "partial";
    const index = final ? 0 : this.scratch.push(outer * plan.chunks * inner * this.form.bytes(to)) - 1;
    const { name, constants } = this.form.shader(this.stored, to);
    this.steps.push(passStep(name, plan, constants, this.source, final ? gpuOutput(0) : gpuScratchOut(index), outer, n, inner, final ? this.divisor : 1));
    this.source = gpuScratchIn(index);
    this.stored = to;
    if (plan.chunks > 1) this.add(outer, plan.chunks, inner, last);
  }
}

function launch(rule: Rule, x: View, out: View, axes: readonly number[], divisor: number): GpuLaunch {
  let sections: readonly Section[] = sectionsOf(x, axes) ?? [];
  if (x.size === 0) sections = [{ size: out.size, reduced: false }, { size: 0, reduced: true }];
  else if (!sections.some((s) => s.reduced)) sections = [...sections, { size: 1, reduced: true }];
  if (x.dtype.kind === "complex" && rule === "sum") sections = [...sections, { size: 2, reduced: false }];
  const passes = new Passes(formOf(rule, x.dtype, out.dtype), divisor, x.offset % 4 === 0);
  for (let left = sections.filter((s) => s.reduced).length; left > 0; left--) {
    const at = sections.findLastIndex((s) => s.reduced);
    passes.add(sizeOfSections(sections.slice(0, at)), (sections[at] as Section).size, sizeOfSections(sections.slice(at + 1)), left === 1);
    sections = [...sections.slice(0, at), ...sections.slice(at + 1)];
  }
  return { steps: passes.steps, scratch: passes.scratch };
}

/** `isDouble`: the kernel computes in float64. */
export const reduceGate = (isDouble: (x: View) => boolean): GpuGate => ({
  needs: ["storageBuffer16BitAccess", "storageBuffer8BitAccess"],
  refuse: ([x], _params, _outputs, device) => {
    const v = x as View;
    if (isDouble(v) && !device.features.shaderFloat64) return "cannot: needs shaderFloat64";
    return v.size >= 2 ** 31 ? "cannot: more than 2^31 elements" : undefined;
  },
});
/** `divisor`: what sums are divided by. */
export const gpuReduce = (rule: Rule, divisor: (x: View, out: View) => number = () => 1): readonly GpuKernel<ReduceParams>[] => [
  {
    name: `vulkan/reduce/${rule}`,
    layout: ([x], { axes }) => (sectionsOf(x as View, axes) ? ["any"] : ["row"]),
    gate: reduceGate((x) => (rule === "sum" || rule === "prod") && x.dtype.name === "float64"),
    launch: ([x], [out], { axes }) => launch(rule, x as View, out as View, axes, divisor(x as View, out as View)),
  },
];
