/**
 * compile: a function is run once for each kind of arguments; what it recorded is done again for later calls. The scheduler compiles the elementwise parts
 * of any graph, so nothing else is to be gained here but the time of the function itself.
 */
import { type ArrayDesc, MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import type { Node } from "../core/op.ts";
import { withTape } from "../core/trace.ts";
import { applier, handle, placeholder } from "./tracer.ts";
import { type Tree, arraysOf, withArrays } from "./tree.ts";

let enabled = true;
/** Compiled functions run as they are from now on. */
export const disableCompile = (): void => {
  enabled = false;
};
/** Takes back `disableCompile`. */
export const enableCompile = (): void => {
  enabled = true;
};

/** What one kind of arguments gave. */
interface Program {
  readonly inputs: readonly ArrayDesc[];
  readonly nodes: readonly Node[];
  /** Arrays that the function captured or made of nothing; held so that they stay. */
  readonly constants: ReadonlyMap<ArrayDesc, MxArray>;
  readonly outputs: readonly ArrayDesc[];
  /** The result, whose arrays stand for the outputs. */
  readonly form: Tree;
  /** True when the nodes hold no shapes, so that the program is right for other shapes of the same rank. */
  readonly anyShape: boolean;
}

/** Ops beside the elementwise ones whose parameters hold no shape. */
const shapeless = new Set(["sum", "prod", "max", "min", "all", "any", "mean", "matmul", "softmax", "logsumexp", "transpose", "expandDims", "squeeze", "stopGradient", "tracer", "rmsNorm", "layerNorm", "sort", "argsort", "cumsum", "cumprod", "cummax", "cummin"]);

/** Key of the arguments: forms, dtypes and shapes (or ranks) of arrays, and the values of everything else. */
function keyOf(tree: Tree, ranks: boolean): string {
  if (tree instanceof MxArray) return `<${tree.dtype}[${ranks ? tree.ndim : tree.desc.shape.join(",")}]>`;
  if (Array.isArray(tree)) return `[${tree.map((child) => keyOf(child, ranks)).join(",")}]`;
  switch (typeof tree) {
    case "number": return Object.is(tree, -0) ? "-0" : String(tree);
    case "boolean":
    case "bigint": return String(tree);
    case "string": return JSON.stringify(tree);
    case "undefined": return "undefined";
    case "object":
      if (tree === null) return "null";
      if (Object.getPrototypeOf(tree) === Object.prototype || Object.getPrototypeOf(tree) === null) return `{${Object.entries(tree).map(([k, v]) => `${JSON.stringify(k)}:${keyOf(v, ranks)}`).join(",")}}`;
      break;
  }
  throw opError("compile", `arguments must be arrays, numbers, booleans, strings, or Arrays and plain objects of them, got ${typeof tree === "object" ? tree.constructor.name : typeof tree}`);
}

/** Nodes that the outputs need, in order. */
function needed(nodes: readonly Node[], outputs: readonly ArrayDesc[]): Node[] {
  const wanted = new Set(outputs);
  const kept: Node[] = [];
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i] as Node;
    if (!node.outputs.some((o) => wanted.has(o))) continue;
    for (const d of node.inputs) wanted.add(d);
    kept.push(node);
  }
  return kept.reverse();
}

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments and results
type AnyFunction = (...args: any[]) => any;

function traceProgram(f: AnyFunction, args: readonly Tree[]): Program {
  const inputs = arraysOf(args).map((a) => placeholder(a.desc, "a compiled function"));
  const starts = inputs.map((i) => i.desc);
  return withTape(
    () => f(...(withArrays(args, inputs) as Tree[])),
    (form: Tree, nodes) => {
      const outputs = arraysOf(form).map((o) => o.desc);
      const kept = needed(nodes, outputs);
      const made = new Set<ArrayDesc>(starts);
      for (const node of kept) for (const o of node.outputs) made.add(o);
      const constants = new Map<ArrayDesc, MxArray>();
      for (const d of [...kept.flatMap((n) => n.inputs), ...outputs]) if (!made.has(d) && !constants.has(d)) constants.set(d, handle(d));
      const anyShape = kept.every((n) => n.op.expr || shapeless.has(n.op.name)) && [...constants.keys()].every((d) => d.shape.length === 0);
      // A copy: what the function returned may be an object that it changes in the next call.
      return { inputs: starts, nodes: kept, constants, outputs, form: withArrays(form, arraysOf(form)), anyShape };
    },
  );
}

function run(program: Program, args: readonly Tree[]): Tree {
  const outputs = tidy(() => {
    const done = new Map<ArrayDesc, MxArray>(program.constants);
    arraysOf(args).forEach((a, i) => {
      done.set(program.inputs[i] as ArrayDesc, a);
    });
    for (const node of program.nodes) {
      const results = applier(node)(node.inputs.map((d) => done.get(d) as MxArray), node.params);
      node.outputs.forEach((o, i) => {
        done.set(o, results[i] as MxArray);
      });
    }
    return program.outputs.map((o) => new MxArray((done.get(o) as MxArray).desc));
  });
  return withArrays(program.form, outputs);
}

/**
 * Function like `f` that runs it once for each kind of arguments, and repeats the recorded computation in later calls. Arrays count by shape and dtype; numbers,
 * booleans and strings by value. What `f` captures is kept as it was. Arrays inside can not be evaluated.
 *
 * @param f takes and returns arrays, other values, and Arrays and plain objects of them
 * @param shapeless arrays count by dtype and rank only, unless what was recorded depends on their shapes
 */
export function compile<F extends AnyFunction>(f: F, shapelessKey = false): F {
  if (typeof f !== "function") throw new TypeError(`[compile] expected a function, got ${typeof f}`);
  const programs = new Map<string, Program>();
  const compiled = (...args: Tree[]): Tree => {
    if (!enabled) return f(...args);
    const key = keyOf(args, false);
    const rankKey = shapelessKey ? keyOf(args, true) : undefined;
    let program = (rankKey !== undefined ? programs.get(rankKey) : undefined) ?? programs.get(key);
    if (!program) {
      program = traceProgram(f, args);
      programs.set(rankKey !== undefined && program.anyShape ? rankKey : key, program);
    }
    return run(program, args);
  };
  return compiled as F;
}
