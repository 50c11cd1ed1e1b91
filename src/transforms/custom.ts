/** Functions with rules of their own: customFunction and checkpoint. */
import type { Aval, MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { defineOp } from "../core/op.ts";
import type { Batching, Forward, Reverse } from "../core/rules.ts";
import { untraced } from "../core/trace.ts";
import { broadcastTo, moveaxis, reshape } from "../ops/movement.ts";
import { batchFunction } from "./batch.ts";
import { pushforward } from "./forward.ts";
import { pullback } from "./reverse.ts";
import { type Tree, arraysOf, axesOf, withArrays } from "./tree.ts";

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments and results
type AnyFunction = (...args: any[]) => any;

interface CustomParams {
  /** Number of the function's inputs; its results, computed beforehand, follow them. */
  readonly count: number;
  reverse(r: Reverse<CustomParams>): readonly (MxArray | undefined)[];
  forward(f: Forward<CustomParams>): readonly (MxArray | undefined)[];
  batch(b: Batching<CustomParams>): readonly MxArray[];
}

const customOp = defineOp<CustomParams>({
  name: "custom",
  infer: (inputs, { count }) => inputs.slice(count).map(({ shape, dtype }): Aval => ({ shape, dtype })),
  composite: (inputs, { count }) => inputs.slice(count),
  vjp: (r) => r.params.reverse(r),
  jvp: (f) => f.params.forward(f),
  vmap: (b) => b.params.batch(b),
  kernels: [],
});

/** Cotangents of all primals from the primals, the cotangents and the outputs: Arrays with an entry for each argument and each result, in the form of that argument or result. */
export type CustomVjp = (primals: Tree[], cotangents: Tree[], outputs: Tree[]) => Tree;
/** Tangents of all outputs from the primals and their tangents (null: zero). */
export type CustomJvp = (primals: Tree[], tangents: Tree[]) => Tree;
/** Outputs and their batch axes from the inputs and theirs (null: not batched). */
export type CustomVmap = (inputs: Tree[], axes: Tree[]) => readonly [Tree, Tree];

interface Rules {
  vjp?: CustomVjp;
  jvp?: CustomJvp;
  vmap?: CustomVmap;
}
/** The same with flat lists of arrays. */
interface FlatRules {
  vjp?(primals: MxArray[], cotangents: readonly MxArray[], outputs: readonly MxArray[]): readonly (MxArray | undefined)[];
  jvp?(primals: MxArray[], tangents: readonly (MxArray | undefined)[]): readonly (MxArray | undefined)[];
  vmap?(inputs: MxArray[], axes: readonly (number | null)[]): { outputs: readonly MxArray[]; axes: readonly (number | null)[] };
}

const asList = (x: Tree): Tree[] => (Array.isArray(x) ? x : [x]);
const spread = (x: MxArray, size: number): MxArray => broadcastTo(reshape(x, [1, ...x.shape]), [size, ...x.shape]);

function applyCustom(f: (inputs: MxArray[]) => readonly MxArray[], inputs: readonly MxArray[], rules: FlatRules): MxArray[] {
  const results = untraced(() => f([...inputs]));
  const count = inputs.length;
  const reverse = ({ inputs: all, outputs, cotangents }: Reverse<CustomParams>): readonly (MxArray | undefined)[] => {
    const primals = all.slice(0, count);
    return rules.vjp ? rules.vjp(primals, cotangents, outputs) : pullback((xs) => f(xs), primals, () => cotangents).gradients;
  };
  const forward = ({ inputs: all, tangents }: Forward<CustomParams>): readonly (MxArray | undefined)[] => {
    const primals = all.slice(0, count);
    const given = tangents.slice(0, count);
    return rules.jvp ? rules.jvp(primals, given) : pushforward((xs) => f(xs), primals, given).tangents;
  };
  const batch = ({ inputs: all, batched, size }: Batching<CustomParams>): readonly MxArray[] => {
    const own = all.slice(0, count);
    const shapes = own.map((x, i) => (batched[i] ? x.desc.shape.slice(1) : x.desc.shape));
    if (!rules.vmap) return batchFunction(f, own, batched.slice(0, count), size, shapes).outputs;
    const { outputs, axes } = rules.vmap(own, own.map((_, i) => (batched[i] ? 0 : null)));
    return outputs.map((o, i) => {
      const axis = axes[i];
      return axis === null || axis === undefined ? spread(o, size) : moveaxis(o, axis, 0);
    });
  };
  return customOp([...inputs, ...results], { count, reverse, forward, batch });
}

/** Arrays of the entries of a rule's result, one entry for each of `forms`; null or undefined stands for zeros. */
function entriesOf(what: string, given: Tree, forms: readonly Tree[]): (MxArray | undefined)[] {
  const list = asList(given);
  if (list.length !== forms.length) throw opError("customFunction", `the ${what} must give one entry for each of ${forms.length}, got ${list.length}`);
  return forms.flatMap((form, i) => {
    const wanted = arraysOf(form).length;
    if (list[i] === null || list[i] === undefined) return new Array<undefined>(wanted).fill(undefined);
    const found = arraysOf(list[i]);
    if (found.length !== wanted) throw opError("customFunction", `the ${what} must give entry ${i} in the form of what it belongs to, with ${wanted} arrays, got ${found.length}`);
    return found;
  });
}
/** Rules over lists of arrays from rules over the forms of arguments and results. */
function flatRules(rules: Rules, args: readonly Tree[], results: () => Tree[]): FlatRules {
  const { vjp, jvp, vmap } = rules;
  const inForm = (xs: readonly Tree[]): Tree[] => withArrays(args, xs) as Tree[];
  return {
    ...(vjp ? { vjp: (primals, cotangents, outputs) => entriesOf("vjp", vjp(inForm(primals), withArrays(results(), cotangents), withArrays(results(), outputs)), args) } : {}),
    ...(jvp ? { jvp: (primals, tangents) => entriesOf("jvp", jvp(inForm(primals), inForm(tangents.map((t) => t ?? null))), results()) } : {}),
    ...(vmap ? { vmap: (inputs, axes) => batchedBy(vmap(inForm(inputs), inForm(axes)), results()) } : {}),
  };
}
function batchedBy(given: readonly [Tree, Tree], results: readonly Tree[]): { outputs: readonly MxArray[]; axes: readonly (number | null)[] } {
  if (!Array.isArray(given) || given.length !== 2) throw opError("customFunction", `the vmap must give an Array of the outputs and their axes, got ${Array.isArray(given) ? `${given.length} entries` : typeof given}`);
  const outputs = entriesOf("vmap", given[0], results);
  if (outputs.some((o) => o === undefined)) throw opError("customFunction", "the vmap must give all outputs, got null");
  return { outputs: outputs as MxArray[], axes: axesOf("customFunction", "axes of the vmap", given[1], given[0]) };
}

export interface CustomFunction {
  (...inputs: Tree[]): Tree;
  /** Sets the reverse rule. Returns it. */
  vjp(rule: CustomVjp): CustomVjp;
  /** Sets the forward rule. Returns it. */
  jvp(rule: CustomJvp): CustomJvp;
  /** Sets the batching rule. Returns it. */
  vmap(rule: CustomVmap): CustomVmap;
}

/**
 * Function like `f` whose derivatives and batched form can be given: `g.vjp(rule)`, `g.jvp(rule)`, `g.vmap(rule)`. Rules that are not given come from `f`. Arguments and
 * results are arrays or trees of arrays. Once a rule is given, only the arguments are differentiated, not arrays that `f` captures.
 */
export function customFunction(f: AnyFunction): CustomFunction {
  if (typeof f !== "function") throw new TypeError(`[customFunction] expected a function, got ${typeof f}`);
  const rules: Rules = {};
  const call = (...args: Tree[]): Tree => {
    if (!rules.vjp && !rules.jvp && !rules.vmap) return f(...args);
    let form: Tree;
    const run = (xs: MxArray[]): MxArray[] => {
      form = f(...(withArrays(args, xs) as Tree[]));
      const found = arraysOf(form);
      if (found.length === 0) throw opError("customFunction", `the function must return arrays, got ${form === null ? "null" : typeof form}`);
      return found;
    };
    const outputs = applyCustom(run, arraysOf(args), flatRules(rules, args, () => asList(form)));
    return withArrays(form, outputs);
  };
  const set = <K extends keyof Rules>(name: K) => (rule: NonNullable<Rules[K]>): NonNullable<Rules[K]> => {
    rules[name] = rule;
    return rule;
  };
  return Object.assign(call, { vjp: set("vjp"), jvp: set("jvp"), vmap: set("vmap") });
}

/**
 * Function like `f` that keeps nothing for its gradient but its arguments, and computes the rest a second time when it is differentiated. Arguments and results
 * are trees of arrays; arrays that `f` captures are not differentiated.
 */
export function checkpoint<F extends AnyFunction>(f: F): F {
  if (typeof f !== "function") throw new TypeError(`[checkpoint] expected a function, got ${typeof f}`);
  const wrapped = (...args: Tree[]): Tree => {
    let form: Tree;
    const run = (xs: MxArray[]): MxArray[] => {
      form = f(...(withArrays(args, xs) as Tree[]));
      return arraysOf(form);
    };
    const outputs = applyCustom(run, arraysOf(args), {});
    return withArrays(form, outputs);
  };
  return wrapped as F;
}
