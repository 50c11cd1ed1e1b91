/** A call of a compiled function as one node of the graph: nothing of what was recorded is done again before the call is evaluated, and then by its plan. */
import { type Aval, MxArray } from "../core/array.ts";
import { Body } from "../core/body.ts";
import { env } from "../core/env.ts";
import { applierOf, defineOp } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { sameShape } from "../core/shape.ts";
import { type Program, adaptSteps, runProgram } from "./program.ts";

const none = noRule("inside transforms the compiled function itself runs");

const compiledOp = defineOp<{ body: Body }>({
  name: "compiled",
  infer: (_inputs, { body }) => body.results,
  body: ({ body }) => body,
  composite: (inputs, { body }) => {
    const values = [...inputs];
    for (const step of body.steps) values.push(...applierOf(step.op)(step.inputs.map((i) => values[i] as MxArray), step.params, step.stream));
    return body.outputs.map((n) => values[n] as MxArray);
  },
  vjp: none,
  jvp: none,
  vmap: none,
  kernels: [],
});

/** Bodies of a shapeless function that are kept, for shapes that it was not recorded with. */
const mostBodies = 16;

/** A program that is called many times. */
export class Callable {
  readonly program: Program;
  /** For the shapes that it was recorded with. */
  private own: Body | undefined;
  /** For others, least recently used first. */
  private readonly others = new Map<string, Body>();
  /** Numbers of the results that steps make, without repetitions. */
  private readonly made: readonly number[];
  /** Nothing but elementwise ops and views: they join the groups of what is around them. */
  private readonly fusible: boolean;

  constructor(program: Program) {
    this.program = program;
    const first = program.inputs.length + program.constants.length;
    this.made = [...new Set(program.outputs)].filter((n) => n >= first);
    this.fusible = program.steps.every(({ op }) => op.expr !== undefined || op.view !== undefined);
  }

  /** @param otherShapes the inputs may have other shapes than those it was recorded with */
  call(given: readonly MxArray[], otherShapes: boolean): MxArray[] {
    const { program } = this;
    if (this.made.length === 0 || !this.planned(given)) return runProgram("compile", program, given, otherShapes);
    const inputs = [...given, ...program.constants];
    const body = this.bodyFor(given, otherShapes);
    const results = compiledOp(inputs, { body }, body.steps.find((s) => s.stream?.device.type === "gpu")?.stream ?? body.steps[0]?.stream);
    const taken = new Set<MxArray>();
    return program.outputs.map((n) => {
      const a = n < inputs.length ? (inputs[n] as MxArray) : (results[this.made.indexOf(n)] as MxArray);
      if (n >= inputs.length && !taken.has(a)) {
        taken.add(a);
        return a;
      }
      return new MxArray(a.desc);
    });
  }
  /** Whether a call is planned as a whole. */
  private planned(given: readonly MxArray[]): boolean {
    if (!env("MLX_PLAN_CACHE") || env("MLX_CHECK")) return false;
    const pending = ({ desc }: MxArray): boolean => desc.storage === undefined && desc.scalar === undefined;
    if (this.fusible && given.some(pending)) return false;
    return this.program.constants.every(({ desc }) => !desc.traced);
  }
  private bodyFor(given: readonly MxArray[], otherShapes: boolean): Body {
    const { program } = this;
    const make = (steps: Program["steps"]): Body => new Body(program.inputs.length + program.constants.length, steps, this.made);
    if (!otherShapes || given.every((a, i) => sameShape(a.desc.shape, (program.inputs[i] as Aval).shape))) {
      this.own ??= make(program.steps);
      return this.own;
    }
    const key = given.map((a) => a.desc.shape.join()).join(";");
    const body = this.others.get(key) ?? make(adaptSteps("compile", program, given.map((a) => a.desc)));
    this.others.delete(key);
    this.others.set(key, body);
    if (this.others.size > mostBodies) this.others.delete(this.others.keys().next().value as string);
    return body;
  }
}
