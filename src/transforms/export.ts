/** Functions saved to files and loaded from them: exportFunction, exporter, importFunction. transforms/function-file.ts describes the files. */
import { MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { formatShape, sameShape } from "../core/shape.ts";
import type { FileLike } from "../io/source.ts";
import { type Trace, readFunction, writeFunction } from "./function-file.ts";
import type { Step } from "../core/body.ts";
import { runProgram, traceProgram } from "./program.ts";

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments
type AnyFunction = (...args: any[]) => MxArray | readonly MxArray[];
type Keywords = Readonly<Record<string, MxArray>>;
/** Arrays, or one Array of them; behind them arrays by name. */
export type ExportArgument = MxArray | readonly MxArray[] | Keywords | null | undefined;

interface Arguments {
  readonly positional: readonly MxArray[];
  readonly keywords: Keywords;
}
const isPlain = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && [Object.prototype, null].includes(Object.getPrototypeOf(x));

/** Arguments by position and by name. */
function argumentsOf(op: string, args: readonly unknown[]): Arguments {
  const list = [...args];
  while (list.length > 0 && (list[list.length - 1] === undefined || list[list.length - 1] === null)) list.pop();
  const keywords = isPlain(list[list.length - 1]) ? (list.pop() as Record<string, unknown>) : {};
  const positional = list.length === 1 && Array.isArray(list[0]) ? (list[0] as unknown[]) : list;
  for (const x of [...positional, ...Object.values(keywords)]) {
    if (!(x instanceof MxArray)) throw opError(op, `arguments must be arrays, or an Array of them, and behind them an object of arrays, got ${Array.isArray(x) ? "an Array" : x === null ? "null" : typeof x}`);
  }
  return { positional: positional as MxArray[], keywords: keywords as Keywords };
}
const namesOf = (keywords: Keywords): string[] => Object.keys(keywords).sort();
const flat = ({ positional, keywords }: Arguments): MxArray[] => [...positional, ...namesOf(keywords).map((name) => keywords[name] as MxArray)];

function traceOf(f: AnyFunction, args: Arguments): Trace {
  const keywords = namesOf(args.keywords);
  const count = args.positional.length;
  const { program } = traceProgram("exportFunction", flat(args), (inputs) => {
    const named = Object.fromEntries(keywords.map((name, i) => [name, inputs[count + i]]));
    const result: unknown = f(...inputs.slice(0, count), ...(keywords.length > 0 ? [named] : []));
    const outputs = Array.isArray(result) ? result : [result];
    for (const o of outputs) if (!(o instanceof MxArray)) throw opError("exportFunction", `the function must return an array or an Array of arrays, got ${Array.isArray(o) ? "an Array in it" : o === null ? "null" : typeof o}`);
    return { outputs: outputs as MxArray[], rest: undefined };
  });
  return { positional: count, keywords, program };
}

function requireExport(op: string, f: unknown, metadata: unknown): string {
  if (typeof f !== "function") throw new TypeError(`[${op}] expected a function, got ${typeof f}`);
  if (metadata !== undefined && metadata !== null && typeof metadata !== "string") throw new TypeError(`[${op}] metadata must be a string, got ${typeof metadata}`);
  return metadata ?? "";
}

/** Part of an exported function, for a callback: names of values are "A0", "A1", ... */
export type ExportEvent =
  | { readonly type: "inputs" | "outputs"; readonly [list: string]: unknown }
  | { readonly type: "keyword_inputs"; readonly keywords: readonly (readonly [string, string])[] }
  | { readonly type: "constants"; readonly constants: readonly (readonly [string, MxArray])[] }
  | { readonly type: "primitive"; readonly name: string; readonly inputs: readonly string[]; readonly outputs: readonly unknown[]; readonly arguments: readonly unknown[] };

/** Op names as MLX's primitives have them. */
const primitiveName = (name: string): string => (name === "astype" ? "AsType" : name.charAt(0).toUpperCase() + name.slice(1));
/** MLX has one primitive for three logarithms; its argument numbers the base. */
const logBases = new Map([["log2", 0], ["log10", 1], ["log", 2]]);
const argumentsOfStep = ({ op, params }: Step): unknown[] => {
  const base = logBases.get(op.name);
  return base === undefined ? Object.values(params) : [base];
};

function tell(callback: (event: ExportEvent) => void, { positional, keywords, program }: Trace): void {
  const { inputs, constants, steps, outputs } = program;
  const avals = [...inputs, ...constants.map((c) => c.desc), ...steps.flatMap((s) => s.outputs)];
  const name = (i: number): string => `A${i}`;
  const described = (i: number): unknown[] => [name(i), avals[i]?.shape, avals[i]?.dtype];
  callback({ type: "inputs", inputs: inputs.map((_, i) => described(i)) });
  callback({ type: "keyword_inputs", keywords: keywords.map((k, i) => [k, name(positional + i)] as const) });
  callback({ type: "outputs", outputs: outputs.map(described) });
  callback({ type: "constants", constants: constants.map((c, i) => [name(inputs.length + i), c] as const) });
  let next = inputs.length + constants.length;
  for (const step of steps) {
    const first = next;
    next += step.outputs.length;
    callback({ type: "primitive", name: primitiveName(step.op.name), inputs: step.inputs.map(name), outputs: step.outputs.map((_, i) => described(first + i)), arguments: argumentsOfStep(step) });
  }
}

/**
 * Saves what `f` computes for arguments of these shapes and dtypes. What `f` captures becomes part of the file.
 *
 * @param file path, which is replaced; or a function that is called with each part of the computation: inputs, keyword_inputs, outputs, constants, and every op in order
 * @param f takes the arrays, and behind them an object of those by name, if there are any; returns an array or an Array of arrays
 * @param args an array or an Array of arrays
 * @param keywords arrays by name
 * @param shapeless the function may be called with arrays of other shapes of the same rank, as far as what it recorded does not hold sizes
 * @param metadata a text that is stored beside it
 * @throws when an argument or a result is not an array, or an op has parameters that no file can hold (customFunction, kernels of the user)
 */
export function exportFunction(file: string | ((event: ExportEvent) => void), f: AnyFunction, args?: MxArray | readonly MxArray[] | null, keywords?: Keywords | null, shapeless?: boolean | null, metadata?: string | null): void {
  const text = requireExport("exportFunction", f, metadata);
  if (typeof file === "function" && text !== "") throw opError("exportFunction", "metadata is stored in files only, got a callback");
  const list = args === undefined || args === null ? [] : [args];
  const trace = traceOf(f, argumentsOf("exportFunction", keywords ? [...list, keywords] : list));
  if (typeof file === "function") tell(file, trace);
  else writeFunction(file, { shapeless: shapeless === true, metadata: text, traces: [trace] });
}

/** Calls add what the function computes for their arguments; `close` (or the end of a `using` block) writes the file. */
export interface Exporter {
  (...args: ExportArgument[]): void;
  close(): void;
  [Symbol.dispose](): void;
}
/**
 * Saves a function for several sets of arguments in one file, with the constants that they share.
 *
 * @param path the file, which is replaced when the exporter is closed
 * @param f as in `exportFunction`
 * @returns a function that is called once for each set: `e(x, y)`, `e([x, y])`, `e(x, { name: y })`
 */
export function exporter(path: string, f: AnyFunction, shapeless?: boolean | null, metadata?: string | null): Exporter {
  const text = requireExport("exporter", f, metadata);
  const traces: Trace[] = [];
  let open = true;
  const add = (...args: ExportArgument[]): void => {
    if (!open) throw opError("exporter", "the file was written already, got another call");
    traces.push(traceOf(f, argumentsOf("exporter", args)));
  };
  const close = (): void => {
    if (!open) return;
    open = false;
    writeFunction(path, { shapeless: shapeless === true, metadata: text, traces });
  };
  return Object.assign(add, { close, [Symbol.dispose]: close });
}

/** A function from a file: takes arrays (or one Array of them), and behind them an object of those by name; gives an Array of arrays. */
export type ImportedFunction = (...args: ExportArgument[]) => MxArray[];

const describe = ({ positional, keywords }: Arguments): string =>
  `(${[...positional.map((x) => `${x.dtype}${formatShape(x.desc.shape)}`), ...namesOf(keywords).map((k) => `${k}: ${keywords[k]?.dtype}${formatShape(keywords[k]?.desc.shape ?? [])}`)].join(", ")})`;

function fits(trace: Trace, given: Arguments, shapeless: boolean): boolean {
  const names = namesOf(given.keywords);
  if (trace.positional !== given.positional.length || names.length !== trace.keywords.length || !names.every((k, i) => k === trace.keywords[i])) return false;
  return flat(given).every((x, i) => {
    const want = trace.program.inputs[i];
    return want !== undefined && x.dtype === want.dtype && (shapeless ? x.ndim === want.shape.length : sameShape(x.desc.shape, want.shape));
  });
}

/**
 * Loads a function that `exportFunction` or `exporter` saved. It can be transformed and compiled as any other.
 *
 * @param file a path, a URL, or the bytes of a file
 * @param returnMetadata gives [function, metadata]
 * @returns a function; it throws for arguments that none of the saved sets fits
 * @throws `[importFunction] <file>: ...` when the file is no exported function, or is damaged
 */
export function importFunction(file: FileLike): ImportedFunction;
export function importFunction(file: FileLike, returnMetadata: true): [ImportedFunction, string];
export function importFunction(file: FileLike, returnMetadata?: boolean): ImportedFunction | [ImportedFunction, string];
export function importFunction(file: FileLike, returnMetadata?: boolean): ImportedFunction | [ImportedFunction, string] {
  const { shapeless, metadata, traces } = readFunction(file);
  const imported = (...args: ExportArgument[]): MxArray[] => {
    const given = argumentsOf("importFunction", args);
    const exact = traces.find((t) => fits(t, given, false)) ?? (shapeless ? traces.find((t) => fits(t, given, true)) : undefined);
    if (!exact) throw opError("importFunction", `the function was not exported for these arguments, got ${describe(given)}`);
    return runProgram("importFunction", exact.program, flat(given), shapeless);
  };
  return returnMetadata ? [imported, metadata] : imported;
}
