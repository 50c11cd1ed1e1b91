/** Functions with rules of their own: customFunction and checkpoint. */
import type { Aval, MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { defineOp } from "../core/op.ts";
import type { Batching, Forward, Reverse } from "../core/rules.ts";
import { untraced } from "../core/trace.ts";
import { broadcastTo, moveaxis, reshape } from "../ops/movement.ts";
import { type ArrayFunction, listOf } from "./autodiff.ts";
import { batchFunction } from "./batch.ts";
import { pushforward } from "./forward.ts";
import { pullback } from "./reverse.ts";
import { type Tree, arraysOf, withArrays } from "./tree.ts";

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

/** Cotangents of all primals from the primals, the cotangents and the outputs. */
export type CustomVjp = (primals: MxArray[], cotangents: MxArray[], outputs: MxArray[]) => MxArray | readonly (MxArray | null | undefined)[];
/** Tangents of all outputs from the primals and their tangents (null: zero). */
export type CustomJvp = (primals: MxArray[], tangents: (MxArray | null)[]) => MxArray | readonly MxArray[];
/** Outputs and their batch axes from the inputs and theirs (null: not batched). */
export type CustomVmap = (inputs: MxArray[], axes: (number | null)[]) => readonly [MxArray | readonly MxArray[], number | null | readonly (number | null)[]];

interface Rules {
  vjp?: CustomVjp;
  jvp?: CustomJvp;
  vmap?: CustomVmap;
}

const asList = <T>(x: T | readonly T[]): readonly T[] => (Array.isArray(x) ? x : [x as T]);
const spread = (x: MxArray, size: number): MxArray => broadcastTo(reshape(x, [1, ...x.shape]), [size, ...x.shape]);

function applyCustom(f: (inputs: MxArray[]) => readonly MxArray[], inputs: readonly MxArray[], rules: Rules): MxArray[] {
  const results = untraced(() => f([...inputs]));
  const count = inputs.length;
  const reverse = ({ inputs: all, outputs, cotangents }: Reverse<CustomParams>): readonly (MxArray | undefined)[] => {
    const primals = all.slice(0, count);
    if (!rules.vjp) return pullback((xs) => f(xs), primals, () => cotangents).gradients;
    const given = asList(rules.vjp(primals, [...cotangents], [...outputs]));
    if (given.length !== count) throw opError("customFunction", `the vjp must give one cotangent for each of ${count} inputs, got ${given.length}`);
    return given.map((g) => g ?? undefined);
  };
  const forward = ({ inputs: all, tangents }: Forward<CustomParams>): readonly (MxArray | undefined)[] => {
    const primals = all.slice(0, count);
    const given = tangents.slice(0, count);
    return rules.jvp ? asList(rules.jvp(primals, given.map((t) => t ?? null))) : pushforward((xs) => f(xs), primals, given).tangents;
  };
  const batch = ({ inputs: all, batched, size }: Batching<CustomParams>): readonly MxArray[] => {
    const own = all.slice(0, count);
    const shapes = own.map((x, i) => (batched[i] ? x.desc.shape.slice(1) : x.desc.shape));
    if (!rules.vmap) return batchFunction(f, own, batched.slice(0, count), size, shapes).outputs;
    const [outputs, axes] = rules.vmap(own, own.map((_, i) => (batched[i] ? 0 : null)));
    const list = asList(outputs);
    return list.map((o, i) => {
      const axis = Array.isArray(axes) ? (axes as (number | null)[])[i] : (axes as number | null);
      return axis === null || axis === undefined ? spread(o, size) : moveaxis(o, axis, 0);
    });
  };
  return customOp([...inputs, ...results], { count, reverse, forward, batch });
}

export interface CustomFunction {
  (...inputs: MxArray[]): MxArray | MxArray[];
  /** Sets the reverse rule. Returns it. */
  vjp(rule: CustomVjp): CustomVjp;
  /** Sets the forward rule. Returns it. */
  jvp(rule: CustomJvp): CustomJvp;
  /** Sets the batching rule. Returns it. */
  vmap(rule: CustomVmap): CustomVmap;
}

/**
 * Function like `f` whose derivatives and batched form can be given: `g.vjp(rule)`, `g.jvp(rule)`, `g.vmap(rule)`. Rules that are not given come from `f`.
 * Only the arguments are differentiated, not arrays that `f` captures.
 */
export function customFunction(f: ArrayFunction): CustomFunction {
  if (typeof f !== "function") throw new TypeError(`[customFunction] expected a function, got ${typeof f}`);
  const rules: Rules = {};
  const call = (...inputs: MxArray[]): MxArray | MxArray[] => {
    let single = false;
    const run = (xs: MxArray[]): MxArray[] => {
      const result = f(...xs);
      single = !Array.isArray(result);
      return listOf("customFunction", result);
    };
    const outputs = applyCustom(run, inputs, rules);
    return single ? (outputs[0] as MxArray) : outputs;
  };
  const set = <K extends keyof Rules>(name: K) => (rule: NonNullable<Rules[K]>): NonNullable<Rules[K]> => {
    rules[name] = rule;
    return rule;
  };
  return Object.assign(call, { vjp: set("vjp"), jvp: set("jvp"), vmap: set("vmap") });
}

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments and results
type AnyFunction = (...args: any[]) => any;

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
