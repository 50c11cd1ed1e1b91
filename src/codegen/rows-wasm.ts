/**
 * Plans the launch of a row group on the CPU: one kernel whose units are rows; or, where a row is too long for one thread, for each pass a kernel that reduces chunks and
 * one that reduces their results, and at the end elementwise kernels. Cuts depend on sizes only, never on the number of threads, so results do not either.
 *
 * In place: an output of elements may lie over an input of the same element size that is row-major contiguous over the group's shape.
 */
import { type Dtype, bool, float32, float64, int32, int64, uint32, uint64, uint8 } from "../core/dtype.ts";
import { type ScalarType, type Value, expr as e, isWide, reachable } from "../core/expr.ts";
import { type Arg, type GeneratedKernel, type Launch, type Pointer, type Step, input, output, scratch } from "../core/op.ts";
import { rowStrides, sizeOf } from "../core/shape.ts";
import { type Group, type GroupInput, elementwiseLaunch, mergeDimensions } from "./elementwise.ts";
import type { Access } from "./kernel.ts";
import { lower } from "./lower.ts";
import { isMath } from "./math.ts";
import { type LoweredReduce, type RowPlan, emitRowKernel, longestRow, weighRows } from "./rows-kernel.ts";
import type { RowGroup, RowReduce } from "./rows.ts";
import { isRelaxed } from "./wasm.ts";

/** One thread should work this long on what it takes at a time. */
const grainNanoseconds = 20000;
/** A long row in pieces shorter than this is not worth a kernel of its own. */
const leastPiece = 64;
/**
 * Where a hand-written kernel and one for elements would do the same, mathematical functions of the elements of shorter rows are computed faster by them: they take 16
 * elements at a time, the latter across the ends of rows (bench/row-groups.ts: as a group 1.1 to 1.3 times the time on rows of 8 to 24, no more than in parts from 32 on).
 */
const shortRow = 32;

/**
 * Describes the launch of a group, or says why it has none; `input(i)` and `output(i)` count the group's operands in order. `forced`: reasons of speed ("slower: ...") that
 * are no lack of a kernel do not count.
 */
export function rowsLaunch(group: RowGroup, forced = false): Launch | string {
  const sizes: number[] = [];
  const operands = { inputs: group.inputs.map((_, i) => input(i)), outputs: group.outputs.map((_, j) => output(j)) };
  const slow = forced ? undefined : slowerThanParts(group);
  if (slow !== undefined) return slow;
  const steps = stepsOf(group, operands, sizes);
  return typeof steps === "string" ? steps : { steps, scratch: sizes };
}

interface Operands {
  readonly inputs: readonly Pointer[];
  readonly outputs: readonly Pointer[];
}

/** The dimensions inside and around a row, merged, innermost first, with the strides of all inputs. */
interface Space {
  readonly inner: ReturnType<typeof mergeDimensions>;
  readonly outer: ReturnType<typeof mergeDimensions>;
  readonly n: number;
  readonly rows: number;
}
function spaceOf({ shape, rank = 1, inputs }: RowGroup): Space {
  const cut = shape.length - rank;
  const part = (from: number, to: number): ReturnType<typeof mergeDimensions> => mergeDimensions(shape.slice(from, to), inputs.map((x) => ({ dtype: x.dtype, strides: x.strides.slice(from, to) })));
  return { inner: part(cut, shape.length), outer: part(0, cut), n: sizeOf(shape.slice(cut)), rows: sizeOf(shape.slice(0, cut)) };
}

/** Why several kernels are faster than the group, or undefined. */
function slowerThanParts(group: RowGroup): string | undefined {
  const { reduces, outputs, ownKernel } = group;
  const { inner, n } = spaceOf(group);
  if (inner.dims.length <= 1 && n <= longestRow) {
    if (!ownKernel || n >= shortRow) return undefined;
    const dear = dearOf(group, [...reduces.map((r) => r.value), ...outputs.filter((o) => !o.perRow).map((o) => o.value)]);
    return dear.length > 0 ? `slower: mathematical functions in rows of ${n} elements, shorter than ${shortRow}` : undefined;
  }
  const [first] = reduces as [RowReduce];
  if (reduces.length === 1 && first.value.op === "input" && outputs.some((o) => !o.perRow)) return "slower: a long row is read as often as without a group";
  return computedAgain(group) ? "slower: a long row's mathematical functions are computed in several passes" : undefined;
}
/** Mathematical functions of elements that values are made of. */
function dearOf({ shape, rank = 1, inputs }: RowGroup, roots: readonly Value[]): Value[] {
  const ofElements = (v: Value): boolean => reachable([v]).some((x) => x.op === "input" && inputs[Number(x.imm)]?.strides.slice(shape.length - rank).some((s) => s !== 0));
  return reachable(roots).filter((v) => isMath(v.op) && ofElements(v));
}
/** True when such a function is part of what two passes compute, outputs counted as one. */
function computedAgain(group: RowGroup): boolean {
  const { inputs, reduces, outputs } = group;
  const seen = new Set<Value>();
  const passes = passesOf(reduces, inputs.length).map((pass) => pass.map((k) => (reduces[k] as RowReduce).value));
  return [...passes, outputs.filter((o) => !o.perRow).map((o) => o.value)].some((roots) => {
    const dear = dearOf(group, roots);
    const again = dear.some((v) => seen.has(v));
    for (const v of dear) seen.add(v);
    return again;
  });
}
function stepsOf(group: RowGroup, operands: Operands, sizes: number[]): Step[] | string {
  const space = spaceOf(group);
  const { inner, n, rows } = space;
  if (n === 0 || rows === 0) return "cannot: there are no elements";
  if (inner.dims.length <= 1 && n <= longestRow) return [kernelStep(group, space, operands)];
  if (group.reduces.some((r) => r.rule === "argmax" || r.rule === "argmin" || r.rule === "pick")) return "slower: one element of a long row is looked for in chunks";
  if (inner.dims.length > 1 && (inner.dims[0] as number) < leastPiece) return "slower: a row lies in short pieces";
  return longSteps(group, space, operands, sizes);
}

// ---- rows of one unit each, and chunks of rows

function accessOf({ inner, outer }: Space, inputs: number): Access[] {
  return Array.from({ length: inputs }, (_, i) => {
    const stride = inner.dims.length === 0 ? 0 : (inner.strides[i] as number);
    if (stride === 1) return "unit";
    if (stride !== 0) return "gather";
    return outer.dims.some((_d, k) => outer.strides[k * inputs + i] !== 0) ? "row" : "once";
  });
}

function kernelStep(group: RowGroup, space: Space, operands: Operands, chunked = false): Step {
  const { inner, outer } = space;
  const count = group.inputs.length;
  const n = inner.dims[0] ?? 1;
  const access = accessOf(space, count);
  const { kernel, nanoseconds } = structureOf(group, access, outer.dims.length, chunked);
  const chunk = Math.min(n, longestRow);
  const chunks = Math.ceil(n / chunk);
  const bytes = (d: number, i: number, strides: readonly number[]): number => (strides[d * count + i] as number) * (group.inputs[i] as GroupInput).dtype.size;
  const args: Arg[] = [...operands.inputs, ...operands.outputs, n];
  if (chunked) args.push(chunk, chunks);
  for (let i = 0; i < count; i++) if (access[i] === "gather") args.push(bytes(0, i, inner.strides));
  for (let d = outer.dims.length - 2; d >= 0; d--) args.push(outer.dims[d] as number);
  for (let i = 0; i < count; i++) {
    if (access[i] === "once") continue;
    for (let d = outer.dims.length - 1; d >= 0; d--) args.push(bytes(d, i, outer.strides));
  }
  let units = chunks;
  for (const d of outer.dims) units *= d;
  return { entry: kernel, args, units, grain: Math.max(1, Math.round(grainNanoseconds / (nanoseconds * chunk + 50))) };
}

interface Structure {
  readonly kernel: GeneratedKernel;
  /** Estimated time per element. */
  readonly nanoseconds: number;
}
const structures = new Map<string, Structure>();
const structureLimit = 1024;
const letter: Record<Access, string> = { unit: "u", row: "r", once: "o", gather: "g" };

function structureOf(group: RowGroup, access: readonly Access[], outer: number, chunked: boolean): Structure {
  let key = "";
  for (const r of group.reduces) key += `${r.rule}.${r.value.id}.${r.at ? `${r.at.id}.` : ""}${r.dtype.code},`;
  for (const o of group.outputs) key += `${o.perRow ? "r" : ""}${o.value.id}.${o.dtype.code},`;
  for (const a of access) key += letter[a];
  key += outer;
  if (chunked) key += "c";
  if (isRelaxed()) key += "~";
  const known = structures.get(key);
  if (known) return known;
  if (structures.size >= structureLimit) structures.clear();
  const made = makeStructure(`rows/${key}`, group, access, outer, chunked);
  structures.set(key, made);
  return made;
}

function makeStructure(key: string, group: RowGroup, access: readonly Access[], outer: number, chunked: boolean): Structure {
  const plan = planOf(group, access, outer, chunked);
  // As for elementwise kernels (codegen/elementwise.ts).
  let bytes = 0;
  access.forEach((m, i) => {
    if (m === "unit" || m === "gather") bytes += (plan.inputBytes[i] as number) * (m === "gather" ? 4 : 1);
  });
  for (const o of plan.outputs) if (!o.perRow) bytes += o.bytes;
  let module: Uint8Array | undefined;
  const kernel: GeneratedKernel = {
    key,
    bytes: () => {
      module ??= emitRowKernel(plan);
      return module;
    },
  };
  return { kernel, nanoseconds: 0.025 * weighRows(plan) + 0.01 * bytes };
}

/** A dtype whose elements are values of a type as they are. */
export const plainDtype: Partial<Record<ScalarType, Dtype>> = { f32: float32, f64: float64, i32: int32, u32: uint32, i64: int64, u64: uint64, bool: int32 };
/** Numbers of inputs that stand for results before they are rounded. */
const rawInputs = 1 << 10;

export function planOf(group: RowGroup, access: readonly Access[], outer: number, chunked: boolean): RowPlan {
  const { inputs, reduces, outputs } = withoutRepeatedMaxima(group);
  const lowered = lower([...reduces.map(({ value }) => ({ dtype: plainDtype[value.type] as Dtype, value })), ...outputs], undefined, maximaOf(reduces, inputs.length));
  const parts = reduces.map(({ rule, value, dtype, at }, k): LoweredReduce => {
    const type = rule === "argmax" || rule === "argmin" ? "u32" : value.type;
    const raw = e.input(rawInputs + k, type === "bool" ? bool : (plainDtype[type] as Dtype));
    const [stored] = lower([{ dtype, value: raw }]);
    const [result] = lower([{ dtype, value: e.input(inputs.length + k, dtype) }]);
    return { rule, value: (lowered[k] as { value: Value }).value, raw, bits: (stored as { value: Value }).value, result: dtype === bool ? e.input(inputs.length + k, uint8) : (result as { value: Value }).value, ...(at && { at: (lower([{ dtype: uint32, value: at }])[0] as { value: Value }).value }) };
  });
  return {
    passes: passesOf(reduces, inputs.length).map((pass) => pass.map((k) => parts[k] as LoweredReduce)),
    outputs: outputs.map((o, j) => ({ ...(lowered[reduces.length + j] as { bytes: number; value: Value }), perRow: o.perRow })),
    access,
    inputBytes: inputs.map((x) => x.dtype.size),
    outer,
    chunked,
  };
}

/** The reductions that give the greatest x unrounded, as m, and m - m, which is the greatest x - m: 0, or NaN where m is not finite. */
function maximaOf(reduces: readonly RowReduce[], first: number): Map<Value, Value> {
  const maxima = new Map<Value, Value>();
  reduces.forEach(({ rule, value, dtype }, k) => {
    if (rule !== "max" || (dtype !== plainDtype[value.type] && e.narrow(value, dtype) !== value)) return;
    const m = e.input(first + k, dtype);
    maxima.set(m, value);
    if (value.type === "f32" && dtype === float32) maxima.set(e.sub(m, m), e.sub(value, m));
  });
  return maxima;
}
/** The group without reductions that look for the greatest x - m. Results keep their order. */
function withoutRepeatedMaxima(group: RowGroup): RowGroup {
  const { inputs, reduces, outputs } = group;
  const first = inputs.length;
  const known = new Map([...maximaOf(reduces, first)].filter(([m]) => m.op === "sub").map(([m, x]) => [x, m]));
  if (!reduces.some(({ rule, value }) => rule === "max" && known.has(value))) return group;
  const made = new Map<Value, Value>();
  const rewritten = (root: Value): Value => {
    for (const v of reachable([root])) if (!made.has(v)) made.set(v, e.again(v, v.args.map((a) => made.get(a) as Value)));
    return made.get(root) as Value;
  };
  const kept: RowReduce[] = [];
  reduces.forEach((r, k) => {
    const m = r.rule === "max" && r.dtype === float32 ? known.get(r.value) : undefined;
    const value = rewritten(m ?? r.value);
    made.set(e.input(first + k, r.dtype), m ? value : e.input(first + kept.push({ ...r, value }) - 1, r.dtype));
  });
  return { ...group, reduces: kept, outputs: outputs.map((o) => ({ ...o, value: rewritten(o.value) })) };
}

/** Numbers of the reductions of each pass: as early as what they need allows; values of 4 and of 8 bytes in passes of their own. */
export function passesOf(reduces: readonly RowReduce[], first: number): number[][] {
  const needs = reduces.map(({ value, at }) => resultsIn(at ? [value, at] : [value], first));
  const passes: number[][] = [];
  const done = new Set<number>();
  while (done.size < reduces.length) {
    const ready = reduces.flatMap((_, k) => (!done.has(k) && [...(needs[k] as Set<number>)].every((x) => done.has(x)) ? [k] : []));
    const wide = isWide((reduces[ready[0] as number] as RowReduce).value.type);
    const pass = ready.filter((k) => isWide((reduces[k] as RowReduce).value.type) === wide);
    passes.push(pass);
    for (const k of pass) done.add(k);
  }
  return passes;
}
/** Results of reductions (inputs from `first` on) that values are made of. */
function resultsIn(values: readonly Value[], first: number): Set<number> {
  const found = new Set<number>();
  const seen = new Set<Value>(values);
  for (const v of seen) {
    if (v.op === "input" && Number(v.imm) >= first) found.add(Number(v.imm) - first);
    for (const a of v.args) seen.add(a);
  }
  return found;
}

// ---- long rows

/**
 * Each pass in two steps: chunks to partial results (float32 for 16-bit floats, which are rounded once), those to the results. Results are inputs of later steps, in their
 * place behind the group's own.
 */
function longSteps(group: RowGroup, space: Space, { inputs, outputs }: Operands, sizes: number[]): Step[] | string {
  const { shape, rank = 1, reduces } = group;
  const count = group.inputs.length;
  const lead = shape.slice(0, shape.length - rank);
  const perRow: GroupInput["strides"] = [...rowStrides(lead), ...new Array<number>(rank).fill(0)];
  const results = reduces.map(({ dtype }, k) => {
    const whole = group.outputs.findIndex((o) => o.perRow && o.dtype === dtype && o.value === e.input(count + k, dtype));
    return whole >= 0 ? (outputs[whole] as Pointer) : scratch(sizes.push(space.rows * dtype.size) - 1);
  });
  const given: GroupInput[] = [...group.inputs, ...reduces.map(({ dtype }) => ({ dtype, strides: perRow }))];
  const pointers = [...inputs, ...results];
  const steps: Step[] = [];
  for (const pass of passesOf(reduces, count)) {
    const parts = pass.map((k) => reduces[k] as RowReduce);
    const dtypes = parts.map(({ value }) => (value.type === "bool" ? bool : (plainDtype[value.type] as Dtype)));
    const made = given.length;
    const partial: RowGroup = {
      shape,
      rank,
      inputs: given,
      reduces: parts.map(({ rule, value }, i) => ({ rule, value, dtype: dtypes[i] as Dtype })),
      outputs: dtypes.map((dtype, i) => ({ dtype, value: e.input(made + i, dtype), perRow: true })),
      expr: group.expr,
    };
    const pieces = pieceSpace(spaceOf(partial), given.length);
    const chunks = Math.ceil(pieces.n / longestRow) * (pieces.rows / space.rows);
    if (chunks > longestRow) return "slower: a row has too many chunks";
    const partials = dtypes.map((dtype) => scratch(sizes.push(space.rows * chunks * dtype.size) - 1));
    steps.push(kernelStep(partial, pieces, { inputs: pointers, outputs: partials }, true));
    const combined = combining(parts, dtypes, space.rows, chunks, group);
    steps.push(kernelStep(combined, spaceOf(combined), { inputs: partials, outputs: pass.map((k) => results[k] as Pointer) }));
  }
  steps.push(...outputSteps(group, given, { inputs: pointers, outputs }, results));
  return steps;
}
/** The space of a kernel that reduces the innermost dimension only: the other dimensions of a row go to those around it. */
function pieceSpace({ inner, outer }: Space, inputs: number): Space {
  const dims = [...inner.dims.slice(1), ...outer.dims];
  const n = inner.dims[0] ?? 1;
  return { inner: { dims: inner.dims.slice(0, 1), strides: inner.strides.slice(0, inputs) }, outer: { dims, strides: [...inner.strides.slice(inputs), ...outer.strides] }, n, rows: sizeOf(dims) };
}
/** The group that reduces the partial results of each row. */
function combining(parts: readonly RowReduce[], dtypes: readonly Dtype[], rows: number, chunks: number, { expr }: RowGroup): RowGroup {
  return {
    shape: [rows, chunks],
    inputs: dtypes.map((dtype) => ({ dtype, strides: [chunks, 1] })),
    reduces: parts.map(({ rule, dtype }, i) => ({ rule, value: e.input(i, dtypes[i] as Dtype), dtype })),
    outputs: parts.map(({ dtype }, i) => ({ dtype, value: e.input(parts.length + i, dtype), perRow: true })),
    expr,
  };
}
/** Elements and results of rows, by elementwise kernels. Outputs that a reduction itself has written are done. */
function outputSteps(group: RowGroup, given: readonly GroupInput[], { inputs, outputs }: Operands, results: readonly Pointer[]): Step[] {
  const { shape, rank = 1, expr } = group;
  const cut = shape.length - rank;
  const left = group.outputs.map((o, j) => ({ o, to: outputs[j] as Pointer })).filter(({ to }) => !results.includes(to));
  return [true, false].flatMap((perRow) => {
    const mine = left.filter(({ o }) => o.perRow === perRow);
    if (mine.length === 0) return [];
    const space: Group = {
      shape: perRow ? shape.slice(0, cut) : shape,
      inputs: perRow ? given.map((x) => ({ dtype: x.dtype, strides: x.strides.slice(0, cut) })) : given,
      outputs: mine.map(({ o }) => ({ dtype: o.dtype, value: o.value })),
      expr,
    };
    const place = (a: Arg): Arg => (typeof a === "object" && "of" in a ? ((a.of === "input" ? inputs[a.index] : mine[a.index]?.to) as Pointer) : a);
    return elementwiseLaunch(space).steps.map((s) => ({ ...s, args: s.args.map(place) }));
  });
}
