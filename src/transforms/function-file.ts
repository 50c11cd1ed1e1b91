/**
 * Files of exported functions. A file is a safetensors file: its tensors are the constants of the function, named "0", "1", ..., and its metadata hold
 *
 * - `format`: "mlx-vk.function", and `version`: "1",
 * - `metadata`: a text of the user's,
 * - `program`: JSON `{ shapeless, traces: [{ positional, keywords, inputs, constants, steps, outputs }] }`, one trace per set of arguments: `positional` is the number
 *   of arguments by position, `keywords` the sorted names of those by name, which stand behind them in `inputs`; an input is `[dtype, shape]`; `constants` are numbers of tensors; a step is
 *   `[op, params, numbers of the values it reads, [[dtype, shape] of each output]]`; values are numbered inputs first, then constants, then the outputs of the steps; `outputs` are numbers of values.
 *   In params a dtype is `{ "$dtype": name }` and a number that JSON does not have `{ "$number": text }`.
 *
 * A file is checked before anything of it runs: every op, its parameters and its operands (function-checks.ts); a shapeless one also when it is called. No code is in it.
 */
import type { Aval } from "../core/array.ts";
import type { MxArray } from "../core/array.ts";
import type { Step } from "../core/body.ts";
import { Dtype, dtypes } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Op, ops } from "../core/op.ts";
import { type Shape, formatShape, sameShape } from "../core/shape.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import { type FileLike, withSource } from "../io/source.ts";
import { isCount, isShape, isStorable, wrongStep } from "./function-checks.ts";
import type { Program } from "./program.ts";

const format = "mlx-vk.function";
const version = "1";

/** What a function did for one set of arguments. */
export interface Trace {
  readonly positional: number;
  /** Sorted names of the arguments that are given by name. */
  readonly keywords: readonly string[];
  readonly program: Program;
}
export interface FunctionFile {
  readonly shapeless: boolean;
  readonly metadata: string;
  readonly traces: readonly Trace[];
}

// ---- writing

function encode(op: string, value: unknown): unknown {
  if (value instanceof Dtype) return { $dtype: value.name };
  if (typeof value === "number") return Number.isFinite(value) && !Object.is(value, -0) ? value : { $number: Object.is(value, -0) ? "-0" : String(value) };
  if (typeof value === "boolean" || typeof value === "string" || value === null) return value;
  if (Array.isArray(value)) return value.map((x) => encode(op, x));
  const proto = typeof value === "object" ? Object.getPrototypeOf(value) : undefined;
  if (proto === Object.prototype) return Object.fromEntries(Object.entries(value as object).flatMap(([k, x]) => (x === undefined ? [] : [[k, encode(op, x)]])));
  throw opError("exportFunction", `${op} can not be exported: its parameters hold a ${typeof value === "object" ? (proto?.constructor?.name ?? "value") : typeof value}`);
}
const avalText = ({ dtype, shape }: Aval): [string, Shape] => [dtype.name, shape];

/** Writes a file; constants that several traces share are stored once. */
export function writeFunction(path: string, { shapeless, metadata, traces }: FunctionFile): void {
  const numbers = new Map<object, number>();
  const tensors: Record<string, MxArray> = {};
  const numberOf = (c: MxArray): number => {
    const known = numbers.get(c.desc);
    if (known !== undefined) return known;
    const n = numbers.size;
    numbers.set(c.desc, n);
    tensors[n] = c;
    return n;
  };
  const list = traces.map(({ positional, keywords, program: p }) => ({
    positional, keywords, inputs: p.inputs.map(avalText), constants: p.constants.map(numberOf),
    steps: p.steps.map(({ op, params, inputs, outputs }) => [op.name, encode(op.name, params), inputs, outputs.map(avalText)]), outputs: p.outputs,
  }));
  for (const { program } of traces) for (const { op } of program.steps) if (!isStorable(op)) throw opError("exportFunction", `${op.name} can not be exported: no file may hold it`);
  writeSafetensors("exportFunction", path, tensors, { format, version, metadata, program: JSON.stringify({ shapeless, traces: list }) });
}

// ---- reading

class Malformed extends Error {}
function need(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Malformed(what);
}
const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && !Array.isArray(x);

function decode(value: unknown, depth = 0): unknown {
  need(depth < 32, "parameters are nested too deep");
  if (Array.isArray(value)) return value.map((x) => decode(x, depth + 1));
  if (!isRecord(value)) return value;
  const { $dtype, $number } = value;
  if ($dtype !== undefined) return dtypeOf($dtype);
  if ($number !== undefined) {
    need(["NaN", "Infinity", "-Infinity", "-0"].includes($number as string), `a number can not be ${JSON.stringify($number)}`);
    return Number($number);
  }
  return Object.fromEntries(Object.entries(value).map(([k, x]) => [k, decode(x, depth + 1)]));
}
function dtypeOf(name: unknown): Dtype {
  const found = dtypes.find((d) => d.name === name);
  need(found, `there is no dtype ${JSON.stringify(name)}`);
  return found;
}
function readAval(x: unknown): Aval {
  need(Array.isArray(x) && x.length === 2 && isShape(x[1]), `an array must be [dtype, shape], got ${JSON.stringify(x)}`);
  return { dtype: dtypeOf(x[0]), shape: x[1] as number[] };
}
function readList<T>(what: string, x: unknown, read: (item: unknown) => T): T[] {
  need(Array.isArray(x), `${what} must be a list`);
  return x.map(read);
}

function readStep(item: unknown, avals: Aval[]): Step {
  need(Array.isArray(item) && item.length === 4, "a step must be [op, params, inputs, outputs]");
  const [name, rawParams, rawInputs, rawOutputs] = item as unknown[];
  const op: Op | undefined = typeof name === "string" ? ops.get(name) : undefined;
  need(op && isStorable(op), `there is no op ${JSON.stringify(name)}`);
  need(isRecord(rawParams), `the parameters of ${op.name} must be an object`);
  const params = decode(rawParams) as Record<string, never>;
  const inputs = readList(`the inputs of ${op.name}`, rawInputs, (i) => {
    need(isCount(i) && i < avals.length, `${op.name} reads value ${JSON.stringify(i)}, there are ${avals.length}`);
    return i;
  });
  const outputs = readList(`the outputs of ${op.name}`, rawOutputs, readAval);
  const from = inputs.map((i) => avals[i] as Aval);
  let inferred: readonly Aval[];
  try {
    const wrong = wrongStep(op, params, from, outputs);
    need(wrong === undefined, wrong ?? "");
    inferred = op.infer(from, params);
  } catch (error) {
    throw new Malformed(`the parameters of ${op.name} are wrong: ${(error as Error).message}`);
  }
  const same = inferred.length === outputs.length && inferred.every((x, i) => x.dtype === outputs[i]?.dtype && sameShape(x.shape, outputs[i]?.shape as Shape));
  need(same, `${op.name} gives ${inferred.map((x) => `${x.dtype}${formatShape(x.shape)}`).join(", ")}, the file says ${outputs.map((x) => `${x.dtype}${formatShape(x.shape)}`).join(", ")}`);
  avals.push(...outputs);
  return { op, params, stream: undefined, inputs, outputs };
}

function readTrace(item: unknown, tensors: Readonly<Record<string, MxArray>>): Trace {
  need(isRecord(item), "a trace must be an object");
  const inputs = readList("the inputs", item["inputs"], readAval);
  const keywords = readList("the keywords", item["keywords"], (k) => {
    need(typeof k === "string", `a keyword must be a text, got ${JSON.stringify(k)}`);
    return k;
  });
  const { positional } = item;
  need(isCount(positional) && positional + keywords.length === inputs.length && new Set(keywords).size === keywords.length, "the arguments do not fit the inputs");
  const constants = readList("the constants", item["constants"], (n) => {
    need(isCount(n) && Object.hasOwn(tensors, n), `there is no constant ${JSON.stringify(n)}`);
    return tensors[n] as MxArray;
  });
  const avals: Aval[] = [...inputs, ...constants.map((c) => c.desc)];
  const steps = readList("the steps", item["steps"], (s) => readStep(s, avals));
  const outputs = readList("the outputs", item["outputs"], (i) => {
    need(isCount(i) && i < avals.length, `output ${JSON.stringify(i)} is no value, there are ${avals.length}`);
    return i;
  });
  return { positional, keywords, program: { inputs, constants, steps, outputs } };
}

/** Reads and checks a file (a path, a URL, or its bytes). Throws `[importFunction] <file>: what is wrong`. */
export function readFunction(file: FileLike): FunctionFile {
  return withSource(file, (source) => {
    const { arrays, metadata } = readSafetensors(source);
    try {
      need(metadata["format"] === format, `not an exported function (format ${JSON.stringify(metadata["format"])})`);
      need(metadata["version"] === version, `version ${JSON.stringify(metadata["version"])} is not supported, only ${version}`);
      let program: unknown;
      try {
        program = JSON.parse(metadata["program"] ?? "");
      } catch {
        throw new Malformed("the program is no JSON");
      }
      need(isRecord(program) && typeof program["shapeless"] === "boolean", "the program must be an object with shapeless and traces");
      const traces = readList("traces", program["traces"], (t) => readTrace(t, arrays));
      return { shapeless: program["shapeless"], metadata: metadata["metadata"] ?? "", traces };
    } catch (error) {
      for (const a of Object.values(arrays)) a.dispose();
      if (error instanceof Malformed) throw opError("importFunction", `${source.name}: ${error.message}`);
      throw error;
    }
  });
}
