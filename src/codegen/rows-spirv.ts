/**
 * Plans the dispatches of a row group on the GPU (codegen/rows.ts): reductions of rows with what comes before and after them. A row is the work of one invocation
 * (very short rows), of a power of two of invocations that reduce over subgroups (several rows per workgroup), or of a workgroup; its elements stay in registers when
 * each invocation has few. Long rows of which there are few are cut into chunks: one dispatch for each phase of reductions, one for the outputs.
 * Formulas are lowered and rounded as in elementwise-spirv.ts. Sums of 16-bit floats are accumulated in float32; the order of a sum is a tree that depends on the device.
 *
 * In place: an output of elements may lie over an input of the same element size that is row-major contiguous over the group's shape.
 */
import { type Value, expr as e, reachable } from "../core/expr.ts";
import { type GeneratedShader, type GpuDevice, type GpuLaunch, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, gpuScratchUpdate, spreadGroups } from "../core/gpu.ts";
import { uint32 } from "../core/dtype.ts";
import { type GroupInput, type Space, mergeDimensions } from "./elementwise.ts";
import { countable, divisor, featureKey, lacks, pushLimit, reciprocal, roundsDivision, unrolledWeight } from "./elementwise-spirv.ts";
import { weigh } from "./kernel.ts";
import { type Stored, lower } from "./lower.ts";
import type { SpirvAccess } from "./operands-spirv.ts";
import { accumulatorOf, plainDtype } from "./row-rules.ts";
import { type RowGroup, elementStrides } from "./rows.ts";
import { partWords, sharedWords } from "./rows-combine-spirv.ts";
import { type RowKernelPlan, type RowStepReduce, emitRowKernel } from "./rows-kernel-spirv.ts";

/** Fewest invocations of a workgroup; every device has as many. */
const leastGroup = 128;
/** Most invocations of a row. */
const mostAcross = 512;
/** Most blocks, and most elements, that an invocation keeps. */
const mostBlocks = 8;
const mostElements = 16;
/** Rows from which on there are workgroups enough to fill a large device with one row each; as many as fill it with one invocation each. */
const manyRows = 256;
const veryManyRows = 1 << 14;
/** Rows longer than this are cut into chunks when there are at most so many; workgroups that fill a large device, and the shortest chunk that is worth one. */
const longRow = 8192;
const fewRows = 64;
const groupsWanted = 256;
const shortestChunk = 2048;
const chunkAcross = 256;
/** Rows from which on columns are cut into chunks when they are few: each cut is one more dispatch. */
const longColumn = 512;

export interface RowOptions {
  /** For the inputs, then the outputs: the address of the first element is a multiple of 16. Inputs are taken not to be unless it is said, outputs to be. */
  readonly aligned?: readonly boolean[] | undefined;
  /** Parts of the plan that are not chosen by size; for tests. */
  readonly force?: Partial<Pick<RowKernelPlan, "across" | "unroll" | "subgroups">> & { readonly chunks?: number };
}

/** The one dispatch that computes the group, or the reason why there is none ("cannot: ..."). `aligned`: see RowOptions. */
export function rowsStep(group: RowGroup, device: GpuDevice, aligned?: readonly boolean[]): GpuStep | string {
  const made = rowsSpirv(group, device, { aligned, force: { chunks: 1 } });
  return typeof made === "string" ? made : (made.steps[0] as GpuStep);
}
/** The dispatches that compute the group: several where rows are long and few. Otherwise as `rowsStep`. */
export function rowsLaunch(group: RowGroup, device: GpuDevice, aligned?: readonly boolean[]): GpuLaunch | string {
  return rowsSpirv(group, device, { aligned });
}

/** The group with rows of one dimension; undefined where an input does not lie along it in even steps. */
function withRowsOfOneDimension(group: RowGroup): RowGroup | undefined {
  const { shape, rank = 1 } = group;
  if (rank === 1) return group;
  const first = shape.length - rank;
  const inputs: GroupInput[] = [];
  for (const { dtype, strides } of group.inputs) {
    let step: number | undefined;
    let length = 1;
    for (let i = shape.length - 1; i >= first; i--) {
      const n = shape[i] as number;
      if (n === 1) continue;
      step ??= strides[i] as number;
      if (strides[i] !== step * length) return undefined;
      length *= n;
    }
    inputs.push({ dtype, strides: [...strides.slice(0, first), step ?? 0] });
  }
  return { ...group, shape: [...shape.slice(0, first), shape.slice(first).reduce((a, b) => a * b, 1)], rank: 1, inputs };
}

export function rowsSpirv(given: RowGroup, device: GpuDevice, options: RowOptions = {}): GpuLaunch | string {
  const made = withRowsOfOneDimension(given.order ? withPlaces(given) : given);
  if (!made) return "cannot: rows of several dimensions along which an input does not lie in even steps";
  // Of columns the last one says where the elements lie.
  const places = made.inputs;
  const group = given.order ? { ...made, inputs: places.slice(0, -1) } : made;
  const { shape, inputs } = group;
  const length = shape[shape.length - 1] ?? 1;
  const dims = shape.slice(0, -1);
  const rows = dims.reduce((a, b) => a * b, 1);
  if (rows * length >= 2 ** 31) return `cannot: ${rows * length} elements are more than a kernel can count`;
  if (length === 0 || rows === 0) return "cannot: rows without elements";
  const formulas = formulasOf(group);
  if (typeof formulas === "string") return formulas;
  const n = inputs.length;
  const outer = mergeDimensions(dims, places.map(({ dtype, strides }) => ({ dtype, strides: strides.slice(0, -1) })));
  const inner = places.map((x) => x.strides[x.strides.length - 1] ?? 0);
  if (!countable({ dims: [length, ...outer.dims], strides: [...inner, ...outer.strides] }, places.length)) return "cannot: a stride goes further than a kernel can count";
  const mixed = mixedRow(group, formulas, inner.slice(0, n));
  if (mixed !== undefined) return mixed;
  const aligned = (i: number): boolean => options.aligned?.[i] ?? i >= n;
  const columns = given.order !== undefined;
  const lanes = columns ? 1 : lanesOf(group, formulas, inner, outer, length, aligned);
  const access = inner.map((s, i) => (i < n ? accessOf(s, i, outer, lanes, aligned(i)) : "g"));
  const stores = group.outputs.map((o, j): SpirvAccess => (aligned(n + j) && !o.perRow ? "f" : "e"));
  const layout = columns ? columnLayout(rows, length, formulas, device, options) : layoutOf(rows, length / lanes, lanes, formulas, device, options);
  const signed = [...inner, ...outer.strides].some((s) => s < 0);
  const form: Form = { access, columns, stores, lanes, dims: outer.dims.length, signed, ...layout };
  return launchOf(group, formulas, form, { rows, blocks: length / lanes, inner, outer }, device);
}

/** A plan without what the group itself and the device say, for all its dispatches. */
type Form = Pick<RowKernelPlan, "access" | "columns" | "stores" | "lanes" | "dims" | "signed" | "across" | "group" | "unroll" | "loop" | "subgroups"> & { readonly chunk: number; readonly chunks: number };
interface Sizes {
  readonly rows: number;
  readonly blocks: number;
  readonly inner: readonly number[];
  readonly outer: Space;
}

interface Formulas {
  readonly key: string;
  readonly outputs: readonly Stored[];
  readonly phases: readonly (readonly RowStepReduce[])[];
  readonly weight: number;
}
const known = new Map<string, Formulas | string>();
const knownLimit = 4096;
function formulasOf(group: RowGroup): Formulas | string {
  const key = `${group.inputs.length}:${group.reduces.map((r) => `${r.rule}${r.value.id}.${r.at?.id ?? ""}.${r.dtype.code}`).join()}:${group.outputs.map((o) => `${o.value.id}.${o.dtype.code}${o.perRow ? "r" : ""}`).join()}`;
  let made = known.get(key);
  if (made === undefined) {
    if (known.size >= knownLimit) known.clear();
    made = makeFormulas(group, key);
    known.set(key, made);
  }
  return made;
}
const target = { division32: true, subnormals: false };
function makeFormulas(group: RowGroup, key: string): Formulas | string {
  const n = group.inputs.length;
  const place = e.input(n + group.reduces.length, uint32);
  const depth: number[] = [];
  const phases: RowStepReduce[][] = [];
  const work: Stored[] = [];
  for (const [k, reduce] of group.reduces.entries()) {
    const accumulator = accumulatorOf(reduce, place);
    if (typeof accumulator === "string") return accumulator;
    const parts = accumulator.parts.map((p) => ({ ...p, take: (lower([{ dtype: plainDtype[p.type], value: p.take }], target)[0] as Stored).value }));
    let phase = 0;
    for (const v of reachable(reduce.at ? [reduce.value, reduce.at] : [reduce.value])) if (v.op === "input" && Number(v.imm) >= n) phase = Math.max(phase, 1 + (depth[Number(v.imm) - n] as number));
    depth.push(phase);
    phases[phase] ??= [];
    (phases[phase] as RowStepReduce[]).push({ index: k, parts, result: accumulator.result });
    for (const p of parts) work.push({ bytes: 4, value: p.take });
  }
  const outputs = lower(group.outputs, target);
  return { key, outputs, phases, weight: Math.max(1, weigh([...work, ...outputs])) };
}

/** Why a result of a row cannot be one, or undefined. */
function mixedRow(group: RowGroup, { outputs }: Formulas, inner: readonly number[]): string | undefined {
  const n = inner.length;
  const single = outputs.filter((_, j) => group.outputs[j]?.perRow).map((o) => o.value);
  return reachable(single).some((v) => v.op === "input" && Number(v.imm) < n && inner[Number(v.imm)] !== 0) ? "cannot: a result of a row that reads its elements" : undefined;
}

const isWide = (outer: Space, n: number, i: number, lanes: number): boolean => outer.dims.every((_, d) => (outer.strides[d * n + i] as number) % lanes === 0);
/** Elements in a block: as many as fill 16 bytes, if all that is read by elements can be read so. */
function lanesOf(group: RowGroup, { weight }: Formulas, inner: readonly number[], outer: Space, length: number, aligned: (i: number) => boolean): number {
  const n = inner.length;
  let bytes = 2;
  group.inputs.forEach((x, i) => {
    if (inner[i] !== 0) bytes = Math.max(bytes, x.dtype.size);
  });
  for (const o of group.outputs) if (!o.perRow) bytes = Math.max(bytes, o.dtype.size);
  let lanes = divisor(16 / bytes, length);
  while (lanes > 1 && lanes * weight > unrolledWeight) lanes /= 2;
  while (lanes > 1 && inner.some((s, i) => s !== 0 && !(s === 1 && aligned(i) && isWide(outer, n, i, lanes)))) lanes /= 2;
  return lanes;
}
function accessOf(stride: number, i: number, outer: Space, lanes: number, aligned: boolean): SpirvAccess {
  if (stride === 0) return "r";
  if (stride !== 1) return "g";
  return lanes > 1 && aligned && isWide(outer, outer.strides.length / Math.max(1, outer.dims.length), i, lanes) ? "w" : "u";
}

const powerOfTwo = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, n)));
type Layout = Pick<Form, "across" | "group" | "unroll" | "loop" | "subgroups" | "chunk" | "chunks">;
/** How many invocations a row has, and what each of them takes. */
function layoutOf(rows: number, blocks: number, lanes: number, { weight, phases }: Formulas, device: GpuDevice, { force = {} }: RowOptions): Layout {
  const subgroups = force.subgroups ?? device.subgroupSize > 1;
  let most = Math.max(1, Math.min(mostBlocks, mostElements / lanes));
  while (most > 1 && most * lanes * weight > unrolledWeight) most /= 2;
  const chunks = force.chunks ?? (phases.length > 0 && blocks * lanes > longRow && rows <= fewRows ? Math.min(Math.ceil((blocks * lanes) / shortestChunk), Math.ceil(groupsWanted / rows)) : 1);
  if (chunks > 1) {
    const chunk = Math.ceil(blocks / chunks);
    const across = force.across ?? chunkAcross;
    const unroll = force.unroll ?? Math.min(most, powerOfTwo(chunk / across));
    return { across, group: Math.max(leastGroup, across), unroll, loop: true, subgroups, chunk, chunks: Math.ceil(blocks / chunk) };
  }
  const across = force.across ?? acrossOf(rows, blocks, most, subgroups ? device.subgroupSize : 1, device.groupInvocations);
  const unroll = force.unroll ?? Math.min(most, powerOfTwo(blocks / across));
  return { across, group: Math.max(leastGroup, across), unroll, loop: across * unroll < blocks, subgroups, chunk: blocks, chunks: 1 };
}
function acrossOf(rows: number, blocks: number, most: number, subgroup: number, limit: number): number {
  if (blocks === 1 || (blocks <= most && rows >= veryManyRows)) return 1;
  // Rows of one subgroup need no barrier.
  if (subgroup > 1 && subgroup < leastGroup && blocks <= most * subgroup && (rows > 1 || blocks <= subgroup)) return subgroup;
  if (subgroup <= 1 && blocks <= leastGroup / 2) return powerOfTwo(blocks);
  // With few rows each has as many invocations as it has blocks; with many, fewer invocations keep more in flight each.
  const wanted = powerOfTwo(rows < manyRows ? blocks : blocks / most);
  return Math.min(Math.max(leastGroup, wanted), mostAcross, 2 ** Math.floor(Math.log2(limit)));
}

/** The group with one more input: the places of its elements. */
const withPlaces = (group: RowGroup): RowGroup => ({ ...group, inputs: [...group.inputs, { dtype: uint32, strides: elementStrides(group) }] });
/** Neighbouring columns whose elements of a row fill cache lines, invocations that fill a large device, most invocations of a column, and least rows of each. */
const columnsTogether = 32;
const invocationsWanted = 1 << 17;
const mostAcrossColumn = 8;
const rowsEach = 8;
/** How many invocations a column has, which lie a row apart from each other, and into how many chunks it is cut. */
function columnLayout(columns: number, rows: number, { weight, phases }: Formulas, device: GpuDevice, { force = {} }: RowOptions): Layout {
  let most = mostBlocks;
  while (most > 1 && most * weight > unrolledWeight) most /= 2;
  const limit = Math.min(mostAcrossColumn, 2 ** Math.floor(Math.log2(device.groupInvocations / columnsTogether)));
  const across = force.across ?? Math.min(limit, powerOfTwo(rows / rowsEach), powerOfTwo(invocationsWanted / columns));
  const wanted = Math.min(Math.floor(rows / (across * rowsEach)), Math.ceil(invocationsWanted / (columns * across)));
  const chunks = force.chunks ?? (phases.length > 0 && across === limit && rows >= longColumn ? Math.max(1, wanted) : 1);
  const chunk = Math.ceil(rows / chunks);
  const unroll = force.unroll ?? Math.min(most, powerOfTwo(chunk / across));
  return { across, group: Math.max(leastGroup, across * columnsTogether), unroll, loop: chunks > 1 || across * unroll < rows, subgroups: false, chunk, chunks: Math.ceil(rows / chunk) };
}

function launchOf(group: RowGroup, formulas: Formulas, form: Form, sizes: Sizes, device: GpuDevice): GpuLaunch | string {
  const { chunks } = form;
  const cut = chunks > 1;
  const stages = cut ? formulas.phases.length + 1 : 1;
  const addresses = group.inputs.length + group.outputs.length + Number(cut);
  const words = wordsOf(form, sizes, cut);
  const table = 8 * addresses + 4 * words.length > pushLimit;
  if (table && 8 * (addresses + 1) > pushLimit) return `cannot: ${addresses} operands need ${8 * (addresses + 1)} bytes of push constants for their addresses, ${pushLimit} are portable`;
  const buffers = [...group.inputs.map((_, i) => gpuInput(i)), ...group.outputs.map((_, j) => gpuOutput(j))];
  const steps: GpuStep[] = [];
  for (let stage = 0; stage < stages; stage++) {
    const last = stage === stages - 1;
    const shader = shaderOf(group, formulas, form, cut ? stage : undefined, table, device);
    if (typeof shader === "string") return shader;
    const scratch = cut ? [stage === 0 ? gpuScratchOut(0) : last ? gpuScratchIn(0) : gpuScratchUpdate(0)] : [];
    const count = Math.ceil(sizes.rows / (form.group / form.across)) * (cut && !(last && oneChunk(group.outputs)) ? chunks : 1);
    steps.push({ shader, buffers: [...buffers, ...scratch], ...(table ? { table: words, words: [] } : { words }), groups: spreadGroups(count) });
  }
  return cut ? { steps, scratch: [4 * partWords(formulas.phases.flat()) * sizes.rows * chunks] } : { steps };
}
const oneChunk = (outputs: RowGroup["outputs"]): boolean => outputs.every((o) => o.perRow);

/** Words that the kernel reads, in the order of rows-kernel-spirv.ts. */
function wordsOf({ access, lanes, dims, chunk, chunks }: Form, { rows, blocks, inner, outer }: Sizes, cut: boolean): number[] {
  const words = [rows, blocks, ...(cut ? [chunk, chunks] : [])];
  const shifts: number[] = [];
  for (let d = 0; d < dims - 1; d++) {
    const [multiplier, shift] = reciprocal(outer.dims[d] as number);
    words.push(outer.dims[d] as number, multiplier);
    shifts.push(shift);
  }
  for (let d = 0; d < shifts.length; d += 6) words.push(shifts.slice(d, d + 6).reduce((word, s, i) => word + s * 2 ** (5 * i), 0));
  access.forEach((a, i) => {
    if (a === "g") words.push((inner[i] as number) >>> 0);
    for (let d = 0; d < dims; d++) {
      const stride = outer.strides[d * access.length + i] as number;
      words.push((a === "w" ? stride / lanes : stride) >>> 0);
    }
  });
  return words;
}

const shaders = new Map<string, GeneratedShader | string>();
const shaderLimit = 4096;
/** Kernels in the cache. */
export const rowShaders = (): number => shaders.size;

function shaderOf(group: RowGroup, formulas: Formulas, form: Form, stage: number | undefined, table: boolean, device: GpuDevice): GeneratedShader | string {
  const { features } = device;
  const { access, columns, stores, dims, lanes, signed, across, unroll, loop, subgroups } = form;
  const rounds = roundsDivision(device.vendorId);
  const flags = `${columns ? `c${form.group}` : ""}${loop ? "l" : ""}${subgroups ? "s" : ""}${signed ? "n" : ""}${table ? "t" : ""}${rounds ? "r" : ""}${stage ?? ""}.${featureKey(features)}`;
  const key = `${formulas.key}:${access.join("")}${stores.join("")}${dims}x${lanes}x${across}x${unroll}${flags}`;
  const old = shaders.get(key);
  if (old !== undefined) return old;
  if (shaders.size >= shaderLimit) shaders.clear();
  const inputs = group.inputs.map((x) => x.dtype);
  const perRow = group.outputs.map((o) => o.perRow);
  const plan: RowKernelPlan = {
    inputs, access, columns, outputs: formulas.outputs, perRow, stores, phases: formulas.phases, reduces: group.reduces.length, dims, lanes, across, group: form.group, unroll, loop, subgroups, stage, table, signed,
    features, roundsDivision: rounds,
  };
  let code: Uint32Array | undefined;
  const made = refusalOf(plan, device) ?? {
    key: `rows/${key}`,
    code: () => {
      code ??= emitRowKernel(plan);
      return code;
    },
  };
  shaders.set(key, made);
  return made;
}

/** Why the device cannot run it, or undefined. */
function refusalOf(plan: RowKernelPlan, device: GpuDevice): string | undefined {
  const reduces = plan.phases.flat();
  const values: Value[] = [...plan.outputs.map((o) => o.value), ...reduces.flatMap((r) => [r.result, ...r.parts.map((p) => p.take)])];
  const bytes = 4 * sharedWords(plan);
  if (bytes > device.sharedMemoryBytes) return `cannot: ${bytes} bytes of shared memory, the device has ${device.sharedMemoryBytes}`;
  return lacks(values, [...plan.inputs.map((d) => d.size), ...plan.outputs.map((o) => o.bytes)], plan.features);
}
