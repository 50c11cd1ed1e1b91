/**
 * compile: a function is run once for each kind of arguments; what it recorded is done again for later calls. The scheduler compiles the elementwise parts
 * of any graph, so that what is to be gained here is the time of the function itself, and of computing equal things twice.
 */
import { type Aval, MxArray } from "../core/array.ts";
import { env } from "../core/env.ts";
import { opError } from "../core/error.ts";
import { sameShape } from "../core/shape.ts";
import type { SizeUse } from "../core/sizes.ts";
import { Callable } from "./compiled.ts";
import { runsOnOtherOnes, runsOnOtherShapes, traceProgram } from "./program.ts";
import { type Place, placesIn, putAt, requireContainer, withPlaced } from "./state.ts";
import { type Tree, arraysOf, withArrays } from "./tree.ts";

let enabled = !env("MLX_DISABLE_COMPILE");
/** Compiled functions run as they are from now on. */
export const disableCompile = (): void => {
  enabled = false;
};
/** Takes back `disableCompile`. */
export const enableCompile = (): void => {
  enabled = true;
};

/** What one kind of arguments gave. */
interface Compiled {
  /** Its results are the arrays of `form`, then those of captured outputs. */
  readonly program: Callable;
  /** Places of the captured inputs. */
  readonly from: readonly (readonly string[])[];
  /** The result, whose arrays stand for the outputs. */
  readonly form: Tree;
  /** Places of the captured outputs. */
  readonly paths: readonly (readonly string[])[];
  /** Which sizes of the arguments it depends on, beside those that the ops hold. */
  readonly sizes: SizeUse;
}

/** What of a size counts in a key: whether it is 0; and whether it is 1, so that it may be broadcast; and all of it. */
type Detail = "rank" | "ones" | "shape";
const sizeKeys: Readonly<Record<Detail, (n: number) => string | number>> = { rank: (n) => (n === 0 ? 0 : "*"), ones: (n) => (n <= 1 ? n : "n"), shape: (n) => n };
const arrayKey = (a: MxArray, detail: Detail): string => `<${a.dtype}[${a.desc.shape.map(sizeKeys[detail]).join(",")}]>`;

/** Key of the arguments: forms, dtypes and shapes of arrays, and the values of everything else. */
function keyOf(tree: Tree, detail: Detail): string {
  if (tree instanceof MxArray) return arrayKey(tree, detail);
  if (Array.isArray(tree)) return `[${tree.map((child) => keyOf(child, detail)).join(",")}]`;
  switch (typeof tree) {
    case "number": return Object.is(tree, -0) ? "-0" : String(tree);
    case "boolean":
    case "bigint": return String(tree);
    case "string": return JSON.stringify(tree);
    case "undefined": return "undefined";
    case "object":
      if (tree === null) return "null";
      if (Object.getPrototypeOf(tree) === Object.prototype || Object.getPrototypeOf(tree) === null) return `{${Object.entries(tree).map(([k, v]) => `${JSON.stringify(k)}:${keyOf(v, detail)}`).join(",")}}`;
      break;
  }
  throw opError("compile", `arguments must be arrays, numbers, booleans, strings, or Arrays and plain objects of them, got ${typeof tree === "object" ? tree.constructor.name : typeof tree}`);
}

/** Whether captured inputs are those that a function was recorded with. */
function fits({ program: { program }, from }: Compiled, places: readonly Place[]): boolean {
  if (places.length !== from.length) return false;
  const given = program.inputs.length - from.length;
  return places.every(({ path, array: { desc } }, i) => {
    const { shape, dtype } = program.inputs[given + i] as Aval;
    const known = from[i] as readonly string[];
    return dtype === desc.dtype && sameShape(shape, desc.shape) && path.length === known.length && path.every((k, at) => k === known[at]);
  });
}

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments and results
type AnyFunction = (...args: any[]) => any;
type Container = Record<string, unknown> | undefined;

class CompiledFunction {
  private readonly programs = new Map<string, Compiled>();
  /** What the last call used, with the key of its arguments: most calls are like the one before. */
  private last: { readonly key: string; readonly compiled: Compiled } | undefined;
  private readonly f: AnyFunction;
  private readonly shapeless: boolean;
  private readonly inputs: Container;
  private readonly outputs: Container;
  /** What to look up, in order. */
  private readonly details: readonly Detail[];
  constructor(f: AnyFunction, shapeless: boolean, inputs: Container, outputs: Container) {
    this.f = f;
    this.shapeless = shapeless;
    this.details = shapeless ? ["rank", "ones", "shape"] : ["shape"];
    this.inputs = inputs;
    this.outputs = outputs;
  }

  call(args: readonly Tree[]): Tree {
    const given = arraysOf(args);
    const places = placesIn(this.inputs);
    const state = places.map((p) => p.array);
    // Inside another transform the ops themselves are recorded.
    if (!enabled || [...given, ...state].some((a) => a.desc.traced)) return this.f(...args);
    const found = this.find(args, places);
    const results = found.compiled.program.call([...given, ...state], found.otherShapes);
    const { form, paths } = found.compiled;
    const own = results.length - paths.length;
    paths.forEach((path, i) => {
      putAt(this.outputs as Record<string, unknown>, path, results[own + i] as MxArray);
    });
    return withArrays(form, results.slice(0, own));
  }
  /** What was recorded for such arguments; recorded now when there is nothing. */
  private find(args: readonly Tree[], places: readonly Place[]): { compiled: Compiled; otherShapes: boolean } {
    const own = keyOf(args, "shape");
    if (this.last?.key === own && fits(this.last.compiled, places)) return { compiled: this.last.compiled, otherShapes: false };
    const key = (detail: Detail): string => `${detail} ${detail === "shape" ? own : keyOf(args, detail)} ${places.map((p) => `${JSON.stringify(p.path)}${arrayKey(p.array, detail)}`).join()}`;
    let compiled: Compiled | undefined;
    for (const detail of this.details) {
      compiled = this.programs.get(key(detail));
      if (compiled && detail !== "shape") return { compiled, otherShapes: true };
    }
    if (!compiled) {
      compiled = this.trace(args);
      this.programs.set(key(this.shapeless ? this.detailOf(compiled) : "shape"), compiled);
    }
    this.last = { key: own, compiled };
    return { compiled, otherShapes: false };
  }

  private trace(args: readonly Tree[]): Compiled {
    const places = placesIn(this.inputs);
    const given = arraysOf(args);
    const { program, rest, sizes } = traceProgram("compile", [...given, ...places.map((p) => p.array)], (inputs) => {
      const own = inputs.slice(0, given.length);
      const changed = this.outputs && new Set(placesIn(this.outputs).map((p) => p.array));
      return withPlaced(places, inputs.slice(given.length), () => {
        let form: Tree;
        try {
          form = this.f(...(withArrays(args, own) as Tree[]));
        } catch (error) {
          this.removeNew(changed, new Set(inputs));
          throw error;
        }
        const out = placesIn(this.outputs);
        // A copy: what the function returned may be an object that it changes in the next call.
        return { outputs: [...arraysOf(form), ...out.map((p) => p.array)], rest: { form: withArrays(form, arraysOf(form)), paths: out.map((p) => p.path) } };
      });
    });
    return { program: new Callable(program), from: places.map((p) => p.path), ...rest, sizes };
  }
  /** After an exception no placeholder stays in captured outputs. */
  private removeNew(before: ReadonlySet<MxArray> | undefined, inputs: ReadonlySet<MxArray>): void {
    for (const { holder, path, array } of placesIn(this.outputs)) if (!before?.has(array) && !inputs.has(array)) delete holder[path[path.length - 1] as string];
  }
  /** Of the calls that the program is for. Constants that are not evaluated may have been made by the function, of the shapes of its arguments. */
  private detailOf({ program: { program }, sizes }: Compiled): Detail {
    if (!runsOnOtherShapes(program, sizes) || program.constants.some(({ desc }) => desc.shape.length > 0 && desc.storage === undefined)) return "shape";
    return runsOnOtherOnes(program, sizes) ? "rank" : "ones";
  }
}

/**
 * Function like `f` that runs it once for each kind of arguments, and repeats the recorded computation in later calls. Arrays count by shape and dtype; numbers,
 * booleans and strings by value. What `f` captures otherwise than by `inputs` is kept as it was. Arrays inside can not be evaluated. Inside another transform, `f` itself runs.
 *
 * @param f takes and returns arrays, other values, and Arrays and plain objects of them
 * @param shapeless arrays count by dtype and rank only, unless what was recorded depends on their shapes, or on which dimensions have size 1
 * @param inputs object, Array or module whose arrays `f` reads: their values at the time of each call count (`[model.state, optimizer.state, mx.random.state]`)
 * @param outputs object, Array or module whose arrays `f` replaces: they get the new values after each call
 * @throws when `f` uses an array that it is also given, or arrays do not fit what was recorded without their shapes
 */
export function compile<F extends AnyFunction>(f: F, shapeless?: boolean | null, inputs?: Tree, outputs?: Tree): F {
  if (typeof f !== "function") throw new TypeError(`[compile] expected a function, got ${typeof f}`);
  const compiled = new CompiledFunction(f, shapeless === true, requireContainer("inputs", inputs), requireContainer("outputs", outputs));
  return ((...args: Tree[]): Tree => compiled.call(args)) as F;
}
