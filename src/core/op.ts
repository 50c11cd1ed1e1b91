/** The op record, kernels as data, and `apply`, which adds a node to the lazy graph. */
import type { Aval, View } from "./array.ts";
import { ArrayDesc, MxArray, inScope } from "./array.ts";
import type { Body } from "./body.ts";
import { type Stream, type StreamOrDevice, toStream } from "./device.ts";
import type { Dtype } from "./dtype.ts";
import type { Expr, Value } from "./expr.ts";
import type { GpuKernel } from "./gpu.ts";
import type { BatchRule, ForwardRule, ReverseRule } from "./rules.ts";
import { isTransforming, recordNode } from "./trace.ts";

/** Everything the system knows about one op. One `const` per op, in src/ops/<family>.ts. */
export interface Op<P extends object = object> {
  /** MLX's name in camelCase. */
  readonly name: string;
  /** Shapes and dtypes of the outputs. Throws `[name] what is wrong, got what`. Never touches data. */
  infer(inputs: readonly Aval[], params: P): readonly Aval[];
  /** For ops that only look at input 0 in another way: where output 0 lies in the same storage, or undefined when a copy is needed. */
  view?(input: View, params: P): Layout | undefined;
  /** Scalar formula: the op is elementwise over inputs that were broadcast to the output's shape. Fused and compiled at run time. */
  readonly expr?: (e: Expr, xs: readonly Value[], params: P, out: Aval, inputs: readonly Aval[]) => Value;
  /** For ops on rows of input 0: the formula by which they can be compiled together with elementwise ops around them. */
  readonly rows?: RowForm<P>;
  /** Definition in other ops, used when no kernel is open. */
  readonly composite?: (inputs: readonly MxArray[], params: P) => readonly MxArray[];
  /**
   * Plain float64 oracle over row-major data of the inputs; required without composite. Integers and bool come as numbers.
   * The caller rounds the result to the output's dtype.
   */
  readonly reference?: (inputs: readonly Float64Array[], avals: readonly Aval[], params: P, out: readonly Aval[]) => readonly Float64Array[];
  /**
   * For ops with several right results (the basis of an eigenspace is a choice): numbers that all of them have in common, made of inputs and outputs. Checks compare
   * these instead of the outputs.
   */
  readonly invariant?: (inputs: readonly Float64Array[], avals: readonly Aval[], outputs: readonly Float64Array[]) => readonly Float64Array[];
  /** The op stands for these steps: the scheduler plans them together, or does them one by one. */
  readonly body?: (params: P) => Body;
  /** Rules of function transforms (core/rules.ts). Each is a rule, or says why there is none. */
  readonly vjp: ReverseRule<P>;
  /** How many of the last inputs are indices that refuse a gradient even where it is zero almost everywhere, as those that argsort gives. */
  readonly indices?: number;
  readonly jvp: ForwardRule<P>;
  readonly vmap: BatchRule<P>;
  /** Hand-written kernels, best first. The first whose gate opens runs. */
  readonly kernels: readonly Kernel<P>[];
  /** Hand-written kernels for the GPU, best first. Elementwise ops have none: their formula is compiled. */
  readonly gpu?: readonly GpuKernel<P>[];
}

/**
 * How the elements of a row become one: as the op of that name does. Extremes: a NaN wins over all numbers. Arguments of extremes: the first of equals, and a NaN wins
 * only as the first element.
 */
export type RowRule = "sum" | "prod" | "max" | "min" | "argmax" | "argmin" | "all" | "any" | "pick";
/** What formulas on rows are made with. */
export interface RowScope {
  readonly e: Expr;
  /** Reduces a value of each element to one of each row, of type `dtype`; `value` has the type that `dtype` is computed in (truth values for all and any). */
  reduce(rule: RowRule, value: Value, dtype: Dtype): Value;
  /** The value of one element of each row: of number `at`, a u32 that is the same for all elements of a row and below their number. `value` is a float32. */
  pick(value: Value, at: Value, dtype: Dtype): Value;
  /** Number of elements of a row, in a float type. */
  count(dtype: Dtype): Value;
}
export interface RowForm<P extends object = object> {
  /** How many of the last dimensions of input 0 make up a row, or undefined when the op with these parameters does something else. */
  span(input: Aval, params: P, inputs: readonly Aval[]): number | undefined;
  /** Sorted dimensions of input 0 that the op reduces where they are not the last ones, or undefined. Only of ops with a result per row whose formula has no places. */
  axes?(input: Aval, params: P): readonly number[] | undefined;
  /** The result is one element per row (dropped dimensions or dimensions of size 1), else it has the shape of input 0. */
  readonly perRow: boolean;
  /** The result from elements of the inputs; inputs behind the first are broadcast to its shape. */
  formula(r: RowScope, xs: readonly Value[], params: P, out: Aval, inputs: readonly Aval[]): Value;
}

/** Place of a view in its storage; strides and offset in elements of the output's dtype. */
export interface Layout {
  readonly strides: readonly number[];
  readonly offset: number;
}

/** What a kernel needs of an input's layout. The scheduler inserts a copy when it does not hold. */
export type InputLayout =
  /** any strides */
  | "any"
  /** row-major without gaps */
  | "row"
  /** the last dimension has stride 1 (or size 1) */
  | "last";

/**
 * Parameters of a kernel that schedule/tune.ts may choose by measuring: values by name, first what the launch takes without a choice. Any of them is right for whatever
 * the gate takes; one that does not fit the arguments or the device counts as the first.
 */
export type Tunables = Readonly<Record<string, readonly number[]>>;
/** Values chosen for parameters; those left out keep their first value. */
export type Choices = Readonly<Record<string, number>>;

export interface Kernel<P extends object = object> {
  /** `wasm/<module>/<export>`: also the name in MLX_DISABLE, traces, tests and benches. */
  readonly name: `wasm/${string}`;
  readonly gate?: Gate<P>;
  /** Layout per input; the last one given counts for all further inputs. Default "row". */
  readonly layout?: readonly InputLayout[] | ((inputs: readonly View[], params: P) => readonly InputLayout[]);
  /** Output 0 starts as a copy of this input; no copy is made when the input's buffer can be taken over. */
  readonly base?: number;
  /** Output 0 may be written over these inputs (same byte size, row-major, each unit reads before it writes). */
  readonly inPlace?: readonly number[];
  readonly tune?: Tunables;
  /** Pure: describes the work, does not run it. */
  launch(inputs: readonly View[], outputs: readonly View[], params: P, choices?: Choices): Launch;
}

/** When a kernel may run. */
export interface Gate<P extends object = object> {
  readonly needs?: readonly Feature[];
  /** Environment flag (core/env.ts) that switches the kernel off. */
  readonly env?: string;
  /** A reason when the kernel can not take these arguments: "cannot: ..." (correctness) or "slower: ..." (speed, can be forced). */
  refuse?(inputs: readonly View[], params: P, outputs: readonly View[]): string | undefined;
}
export type Feature = "simd" | "relaxedSimd" | "threads";

/** Work as data. Steps run in order, with a barrier between them. */
export interface Launch {
  readonly steps: readonly Step[];
  /** Bytes of each buffer shared by the steps of this launch. */
  readonly scratch?: readonly number[];
  /**
   * The first `steps` steps write only the scratch buffers listed and depend only on input 0. A later launch on the same input with an
   * equal key finds those buffers filled, so the scheduler drops the steps (q/k/v and gate/up projections quantize their input once).
   */
  readonly shared?: { readonly steps: number; readonly scratch: readonly number[]; readonly key: string };
  /** There is one step behind the shared ones, and it reads nothing but its inputs and the shared buffers: it may run at the same time as that of another such launch. */
  readonly together?: boolean;
}
export interface Step {
  /** "<module>/<export>" of assembly/, or a module made at run time. */
  readonly entry: string | GeneratedKernel;
  /** Words of the argument block. */
  readonly args: readonly Arg[];
  /** Number of units of work, and how many of them one thread should take at a time (about 5-50 us of work). */
  readonly units: number;
  readonly grain: number;
}
/** A kernel made by codegen: `key` names it in caches, `bytes` makes its module (export "k" with the kernel ABI). */
export interface GeneratedKernel {
  readonly key: string;
  bytes(): Uint8Array;
}
/** One 32-bit word: an integer, a float, or an address. */
export type Arg = number | { readonly f32: number } | Pointer;
export interface Pointer {
  readonly of: "input" | "output" | "scratch" | "word";
  /** Which input, output or scratch buffer; for "word" the i32 value that a word placed behind the block holds. */
  readonly index: number;
  /** Bytes to add to the address of the view's first element. */
  readonly bytes: number;
}
export const f32 = (value: number): Arg => ({ f32: value });
/** Address of the first element of input `index` (its view's offset is included) plus `bytes`. */
export const input = (index: number, bytes = 0): Pointer => ({ of: "input", index, bytes });
export const output = (index: number, bytes = 0): Pointer => ({ of: "output", index, bytes });
export const scratch = (index: number, bytes = 0): Pointer => ({ of: "scratch", index, bytes });
/** Address of a word that holds `value`: for kernels that read a scalar through a pointer. */
export const word = (value: number): Pointer => ({ of: "word", index: value, bytes: 0 });

/** An op applied to arrays. */
export interface Node<P extends object = object> {
  readonly op: Op<P>;
  readonly params: P;
  readonly inputs: readonly ArrayDesc[];
  readonly outputs: readonly ArrayDesc[];
  readonly stream: Stream;
}

/** Computes the outputs of a node early; set by schedule/flush.ts. */
let flusher: ((node: Node) => void) | undefined;
let flushBytes = Number.POSITIVE_INFINITY;
export function installFlusher(bytes: number, f: (node: Node) => void): void {
  flushBytes = bytes;
  flusher = f;
}
/** Bytes of all outputs that were ever to be computed, and how many that must be before the next flush. */
let made = 0;
let nextFlush = 0;
/** After a graph was found to be `bytes` below the budget: none can be above it before so many more were made. Without this, an estimate that doubles would have it walked over and over. */
export const postponeFlush = (bytes: number): void => {
  nextFlush = made + bytes;
};
/**
 * Bytes that have to be computed for the outputs of a new node, before it counts as a reader. The first reader of an input takes on what that needs; for further ones,
 * which share it, only the largest share counts.
 */
function pendingBytes(op: Op<never>, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): number {
  let sum = 0;
  let shared = 0;
  for (let i = 0; i < inputs.length; i++) {
    const d = inputs[i] as ArrayDesc;
    if (!d.node || d.storage || inputs.indexOf(d) < i) continue;
    if (d.consumers === 0) sum += d.pending;
    else if (d.pending > shared) shared = d.pending;
  }
  if (op.view) return sum + shared;
  // What starts as a copy of an input mostly takes its place.
  const { base } = op.kernels[0] ?? {};
  let own = 0;
  for (const d of base === undefined ? outputs : inputs.filter((_, i) => i !== base)) own += d.size * d.dtype.size;
  made += own;
  return sum + own + shared;
}

const registry = new Map<string, Op>();
/** Every op of the library, by name. */
export const ops: ReadonlyMap<string, Op> = registry;

const appliers = new Map<Op, Apply<object>>();
/** The function that applies an op: what rules use. */
export const applierOf = (op: Op): Apply<object> => appliers.get(op) as Apply<object>;

export type Apply<P extends object> = ((inputs: readonly MxArray[], params: P, stream?: StreamOrDevice | null) => MxArray[]) & { readonly op: Op<P> };

/** Registers an op and returns the function that applies it: infers the outputs' shapes at once and computes nothing. */
export function defineOp<P extends object>(op: Op<P>): Apply<P> {
  if (registry.has(op.name)) throw new Error(`op ${op.name} is defined twice`);
  if (!op.composite && !op.reference) throw new Error(`op ${op.name} has neither composite nor reference`);
  registry.set(op.name, op as unknown as Op);
  const apply = (inputs: readonly MxArray[], params: P, stream?: StreamOrDevice | null): MxArray[] => {
    const descs = new Array<ArrayDesc>(inputs.length);
    for (let i = 0; i < inputs.length; i++) descs[i] = (inputs[i] as MxArray).desc;
    const avals = op.infer(descs, params);
    const outputs = new Array<ArrayDesc>(avals.length);
    for (let i = 0; i < avals.length; i++) outputs[i] = ArrayDesc.lazy((avals[i] as Aval).shape, (avals[i] as Aval).dtype);
    const node: Node<P> = { op, params, inputs: descs, outputs, stream: toStream(stream) };
    const handles = new Array<MxArray>(outputs.length);
    for (let i = 0; i < outputs.length; i++) {
      const d = outputs[i] as ArrayDesc;
      d.node = node as unknown as Node;
      handles[i] = new MxArray(d);
    }
    const pending = pendingBytes(op as unknown as Op<never>, descs, outputs);
    const lasting = isTransforming();
    for (let i = 0; i < outputs.length; i++) {
      const d = outputs[i] as ArrayDesc;
      d.pending = pending;
      d.lasting = lasting;
    }
    for (let i = 0; i < descs.length; i++) (descs[i] as ArrayDesc).consumers++;
    recordNode(node as unknown as Node);
    // A scope closes its handles before its results are computed, so nothing between is held then.
    if (pending > flushBytes && made >= nextFlush && !lasting && !inScope()) flusher?.(node as unknown as Node);
    return handles;
  };
  const applied = Object.assign(apply, { op });
  appliers.set(op as unknown as Op, applied as unknown as Apply<object>);
  return applied;
}
