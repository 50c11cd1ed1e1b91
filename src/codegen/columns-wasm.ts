/**
 * Plans the launch of a column group on the CPU: a row group (codegen/rows.ts) whose rows are columns of the arrays. One kernel whose units are blocks of columns; where
 * columns are long, each pass is a kernel that reduces chunks of rows and one that reduces their results. Cuts depend on sizes only, never on the number of threads, so
 * results do not either; up to 2^18 rows they are the bits that the hand-written kernels give.
 *
 * In place: an output of elements may lie over an input of the same element size that is row-major contiguous over the group's shape.
 */
import { type Dtype, bool } from "../core/dtype.ts";
import { type Value, expr as e, reachable } from "../core/expr.ts";
import { type Arg, type GeneratedKernel, type Launch, type Pointer, type Step, input, output, scratch } from "../core/op.ts";
import { rowStrides, sizeOf } from "../core/shape.ts";
import { type ColumnAccess, type ColumnPlan, emitColumnKernel, weighColumns, widestBlock } from "./columns-kernel.ts";
import { type GroupInput, type Space, elementwiseLaunch, mergeDimensions } from "./elementwise.ts";
import { passesOf, plainDtype, planOf, rowsLaunch } from "./rows-wasm.ts";
import { type RowGroup, type RowOutput, type RowReduce, elementStrides } from "./rows.ts";

/** One thread should work this long on what it takes at a time. */
const grainNanoseconds = 20000;
/** Rows of a chunk, as in ops/reduce.ts. */
const longestColumn = 512;
/** Fewer columns leave lanes of vectors empty. */
const leastColumns = 8;
/** Units that share the work well between threads, and the narrowest block of columns to make them: two cache lines. */
const unitsWanted = 8;
const narrowestBlock = 32;

interface Operands {
  readonly inputs: readonly Pointer[];
  readonly outputs: readonly Pointer[];
}

/**
 * Describes the launch of a group, or says why it has none; `input(i)` and `output(i)` count the group's operands in order. `forced`: thresholds of speed do not count.
 */
export function columnsLaunch(group: RowGroup, forced = false): Launch | string {
  const sizes: number[] = [];
  const operands = { inputs: group.inputs.map((_, i) => input(i)), outputs: group.outputs.map((_, j) => output(j)) };
  const place = placeOf(group);
  if (typeof place === "string") return place;
  if (liesInRows(group, place)) {
    const { order: _, ...rows } = group;
    return rowsLaunch(rows);
  }
  const { columns, n } = place;
  if (!forced && hasFunctions(group)) return "slower: functions cost more here than a pass over their results";
  if (!forced && columns < leastColumns) return "slower: there are few columns";
  if (n <= longestColumn) return { steps: [kernelStep(group, place, operands)] };
  const steps = longSteps(group, place, operands, sizes);
  return { steps, scratch: sizes };
}

/** Operations that are one instruction or a few. Elementwise kernels compute others faster, because they leave out what is rare and contract products. */
const basic = new Set<string>(["input", "const", "add", "sub", "mul", "div", "quot", "rem", "min", "max", "pmin", "pmax", "neg", "abs", "sqrt", "floor", "ceil", "trunc", "round", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "shl", "shr", "select", "convert", "bitcast", "narrow", "complex", "re", "im"]);
/** Whether elements are made by functions like exp; those of results do not count. */
function hasFunctions({ inputs, reduces, outputs }: RowGroup): boolean {
  const seen = new Set<Value>([...reduces, ...outputs.filter((o) => !o.perRow)].map((x) => x.value));
  for (const v of seen) {
    // Results of reductions alone are few.
    if (!reachable([v]).some((x) => x.op === "input" && Number(x.imm) < inputs.length && inputs[Number(x.imm)]?.strides.some((s) => s !== 0))) continue;
    if (!basic.has(v.op)) return true;
    for (const a of v.args) seen.add(a);
  }
  return false;
}

/** The dimensions of a group: rows in one, columns in the innermost of the kept ones, the others around. Strides of inputs, then of the elements themselves. */
interface Place {
  readonly n: number;
  readonly rows: readonly number[];
  readonly columns: number;
  readonly kept: Space;
  readonly outer: number;
}
function placeOf(group: RowGroup): Place | string {
  const { shape, rank = 1 } = group;
  const cut = shape.length - rank;
  const all: GroupInput[] = [...group.inputs, { dtype: (group.outputs[0] as RowOutput).dtype, strides: elementStrides(group) }];
  const part = (from: number, to: number): Space => mergeDimensions(shape.slice(from, to), all.map((x) => ({ dtype: x.dtype, strides: x.strides.slice(from, to) })));
  const reduced = part(cut, shape.length);
  const kept = part(0, cut);
  if (sizeOf(shape) === 0) return "cannot: there are no elements";
  if (reduced.dims.length > 1) return "cannot: the rows do not lie in even steps";
  const outer = Math.max(0, kept.dims.length - 1);
  return { n: reduced.dims[0] ?? 1, rows: reduced.dims.length === 0 ? all.map(() => 0) : reduced.strides, columns: kept.dims[0] ?? 1, kept, outer };
}
/** True when all that is read by elements lies one after another along what is reduced: columns of transposed arrays are rows in memory. */
function liesInRows({ inputs, outputs }: RowGroup, { rows, kept }: Place): boolean {
  const elements = inputs.flatMap((_, i) => (rows[i] !== 0 && kept.strides[i] !== 0 && kept.dims.length > 0 ? [i] : []));
  return outputs.every((o) => o.perRow) && elements.length > 0 && elements.every((i) => rows[i] === 1 && kept.strides[i] !== 1);
}

function accessOf({ rows, kept }: Place, inputs: number): ColumnAccess[] {
  return Array.from({ length: inputs }, (_, i) => {
    const across = kept.dims.length === 0 ? 0 : (kept.strides[i] as number);
    if (rows[i] === 0) return across === 0 ? "once" : across === 1 ? "column" : "gather";
    return across === 0 ? "row" : across === 1 ? "element" : "gather";
  });
}

function kernelStep(group: RowGroup, place: Place, operands: Operands, longest = longestColumn): Step {
  const { n, rows, columns, kept, outer } = place;
  const count = group.inputs.length;
  const access = accessOf(place, count);
  const { kernel, nanoseconds } = structureOf(group, access, outer);
  const chunk = Math.min(n, longest);
  const chunks = Math.ceil(n / chunk);
  const tall = chunks * kept.dims.slice(1).reduce((a, b) => a * b, 1);
  // Every block is a whole number of cache lines.
  const wanted = Math.ceil(columns / Math.ceil(unitsWanted / tall) / 16) * 16;
  const width = Math.min(columns, widestBlock, Math.max(narrowestBlock, wanted));
  const blocks = Math.ceil(columns / width);
  const bytes = (i: number): number => (group.inputs[i] as GroupInput).dtype.size;
  const withElements = group.outputs.some((o) => !o.perRow);
  const args: Arg[] = [...operands.inputs, 0, ...operands.outputs, n, columns, width, blocks, chunk, chunks];
  access.forEach((m, i) => {
    if (m === "element" || m === "gather" || m === "row") args.push((rows[i] as number) * bytes(i));
  });
  access.forEach((m, i) => {
    if (m === "gather") args.push((kept.strides[i] as number) * bytes(i));
  });
  if (withElements) args.push(rows[count] as number);
  for (let d = outer - 1; d >= 1; d--) args.push(kept.dims[d] as number);
  for (let i = 0; i < count + Number(withElements); i++) for (let d = outer; d >= 1; d--) args.push((kept.strides[d * (count + 1) + i] as number) * (i < count ? bytes(i) : 1));
  return { entry: kernel, args, units: tall * blocks, grain: Math.max(1, Math.round(grainNanoseconds / (nanoseconds * chunk * width))) };
}

interface Structure {
  readonly kernel: GeneratedKernel;
  /** Estimated time per element. */
  readonly nanoseconds: number;
}
const structures = new Map<string, Structure>();
const structureLimit = 1024;
const letter: Record<ColumnAccess, string> = { element: "e", gather: "g", column: "c", row: "r", once: "o" };

function structureOf(group: RowGroup, access: readonly ColumnAccess[], outer: number): Structure {
  let key = "";
  for (const r of group.reduces) key += `${r.rule}.${r.value.id}.${r.dtype.code},`;
  for (const o of group.outputs) key += `${o.perRow ? "c" : ""}${o.value.id}.${o.dtype.code},`;
  for (const a of access) key += letter[a];
  key += outer;
  const known = structures.get(key);
  if (known) return known;
  if (structures.size >= structureLimit) structures.clear();
  const made = makeStructure(`columns/${key}`, group, access, outer);
  structures.set(key, made);
  return made;
}
function makeStructure(key: string, group: RowGroup, access: readonly ColumnAccess[], outer: number): Structure {
  const plan: ColumnPlan = { ...planOf(group, [], outer, false), access };
  // As for elementwise kernels (codegen/elementwise.ts).
  let bytes = 0;
  access.forEach((m, i) => {
    if (m === "element" || m === "gather") bytes += (plan.inputBytes[i] as number) * (m === "gather" ? 4 : 1);
  });
  for (const o of plan.outputs) if (!o.perRow) bytes += o.bytes;
  let module: Uint8Array | undefined;
  const kernel: GeneratedKernel = {
    key,
    bytes: () => {
      module ??= emitColumnKernel(plan);
      return module;
    },
  };
  return { kernel, nanoseconds: 0.025 * weighColumns(plan) + 0.01 * bytes };
}

// ---- long columns

/** Each pass in two steps: chunks of rows to partial results (float32 for 16-bit floats), those to the results; then what is made of the results. */
function longSteps(group: RowGroup, place: Place, { inputs, outputs }: Operands, sizes: number[]): Step[] {
  const { shape, rank = 1, reduces } = group;
  const count = group.inputs.length;
  const lead = shape.slice(0, shape.length - rank);
  const perColumn: GroupInput["strides"] = [...rowStrides(lead), ...new Array<number>(rank).fill(0)];
  const results = reduces.map(({ dtype }, k) => {
    const whole = group.outputs.findIndex((o) => o.perRow && o.dtype === dtype && o.value === e.input(count + k, dtype));
    return whole >= 0 ? (outputs[whole] as Pointer) : scratch(sizes.push(sizeOf(lead) * dtype.size) - 1);
  });
  const given: GroupInput[] = [...group.inputs, ...reduces.map(({ dtype }) => ({ dtype, strides: perColumn }))];
  const pointers = [...inputs, ...results];
  const steps: Step[] = [];
  const stored = new Set<number>();
  const chunks = Math.ceil(place.n / longestColumn);
  const passes = passesOf(reduces, count);
  passes.forEach((pass, p) => {
    const parts = pass.map((k) => reduces[k] as RowReduce);
    const dtypes = parts.map(({ value }) => (value.type === "bool" ? bool : (plainDtype[value.type] as Dtype)));
    const own = new Set(pass.map((k) => e.input(count + k, (reduces[k] as RowReduce).dtype)));
    // Elements that need none of the last pass's results are stored by it.
    const along = p < passes.length - 1 ? [] : group.outputs.flatMap((o, j) => (!o.perRow && !reachable([o.value]).some((v) => own.has(v)) ? [j] : []));
    for (const j of along) stored.add(j);
    const partial: RowGroup = {
      ...group,
      inputs: given,
      reduces: parts.map(({ rule, value }, i) => ({ rule, value, dtype: dtypes[i] as Dtype })),
      outputs: [...dtypes.map((dtype, i) => ({ dtype, value: e.input(given.length + i, dtype), perRow: true })), ...along.map((j) => group.outputs[j] as RowOutput)],
    };
    const partials = dtypes.map((dtype) => scratch(sizes.push(sizeOf(lead) * chunks * dtype.size) - 1));
    steps.push(kernelStep(partial, placeOf(partial) as Place, { inputs: pointers, outputs: [...partials, ...along.map((j) => outputs[j] as Pointer)] }));
    const combined = combining(parts, dtypes, sizeOf(lead) / place.columns, chunks, place.columns);
    steps.push(kernelStep(combined, placeOf(combined) as Place, { inputs: partials, outputs: pass.map((k) => results[k] as Pointer) }, chunks));
  });
  for (const [j, to] of outputs.entries()) if (results.includes(to)) stored.add(j);
  steps.push(...outputSteps(group, given, { inputs: pointers, outputs }, stored));
  return steps;
}
/** The group that reduces the partial results of each column: [outer, chunks, columns] in memory. */
function combining(parts: readonly RowReduce[], dtypes: readonly Dtype[], outer: number, chunks: number, columns: number): RowGroup {
  return {
    shape: [outer, columns, chunks],
    order: [0, 2, 1],
    inputs: dtypes.map((dtype) => ({ dtype, strides: [chunks * columns, 1, columns] })),
    reduces: parts.map(({ rule, dtype }, i) => ({ rule, value: e.input(i, dtypes[i] as Dtype), dtype })),
    outputs: parts.map(({ dtype }, i) => ({ dtype, value: e.input(parts.length + i, dtype), perRow: true })),
    expr: e,
  };
}
/** Elements and results of columns that are not stored yet, by elementwise kernels. */
function outputSteps(group: RowGroup, given: readonly GroupInput[], { inputs, outputs }: Operands, stored: ReadonlySet<number>): Step[] {
  const { shape, rank = 1, expr, order = [] } = group;
  const cut = shape.length - rank;
  /** Where each dimension of the arrays is in the group's shape. */
  const back = order.map((_, axis) => order.indexOf(axis));
  const inOrder = (of: readonly number[]): number[] => back.map((d) => of[d] as number);
  return [true, false].flatMap((perRow) => {
    const mine = group.outputs.flatMap((o, j) => (o.perRow === perRow && !stored.has(j) ? [{ o, to: outputs[j] as Pointer }] : []));
    if (mine.length === 0) return [];
    const dims = (of: readonly number[]): readonly number[] => (perRow ? of.slice(0, cut) : inOrder(of));
    const launch = elementwiseLaunch({ shape: dims(shape), inputs: given.map((x) => ({ dtype: x.dtype, strides: dims(x.strides) })), outputs: mine.map(({ o }) => ({ dtype: o.dtype, value: o.value })), expr });
    const place = (a: Arg): Arg => (typeof a === "object" && "of" in a ? ((a.of === "input" ? inputs[a.index] : mine[a.index]?.to) as Pointer) : a);
    return launch.steps.map((s) => ({ ...s, args: s.args.map(place) }));
  });
}
