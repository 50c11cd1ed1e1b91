/**
 * A recorded computation: what a function did with placeholders of its inputs, to be done again for other inputs. `compile` and `exportFunction` are made of it.
 * Values are numbered: inputs, then constants, then the outputs of the steps in order.
 */
import { type Aval, type ArrayDesc, MxArray, unscoped } from "../core/array.ts";
import type { Step } from "../core/body.ts";
import { Dtype } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import { type Node, applierOf } from "../core/op.ts";
import { formatShape, sameShape } from "../core/shape.ts";
import { type SizeUse, onesCount, sizesCount, sizesUsedBy } from "../core/sizes.ts";
import { withTape } from "../core/trace.ts";
import { wrongStep } from "./function-checks.ts";
import { type Other, adaptParams, broadcastsAnew, shapeless } from "./shapeless.ts";
import { handle, placeholder } from "./tracer.ts";

export interface Program {
  readonly inputs: readonly Aval[];
  /** Arrays that the function captured, or made of nothing. */
  readonly constants: readonly MxArray[];
  readonly steps: readonly Step[];
  /** Numbers of the results. */
  readonly outputs: readonly number[];
}

const avalOf = ({ shape, dtype }: Aval): Aval => ({ shape, dtype });

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

/** Nodes that the arrays are still to be computed from, inputs first; none when one of them has parameters that are more than plain values. Iterative: graphs may be deep. */
function pendingNodes(targets: readonly ArrayDesc[]): Node[] {
  const found: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; next: number }[] = [];
  const enter = (d: ArrayDesc): void => {
    if (d.storage || !d.node || seen.has(d.node)) return;
    seen.add(d.node);
    stack.push({ node: d.node, next: 0 });
  };
  for (const t of targets) {
    enter(t);
    for (let top = stack[stack.length - 1]; top; top = stack[stack.length - 1]) {
      const input = top.node.inputs[top.next++];
      if (input) enter(input);
      else found.push((stack.pop() as typeof top).node);
    }
  }
  return found.every((node) => paramsKey(node.params) !== undefined) ? found : [];
}
/** Arrays that nodes and outputs read and nobody of them makes. */
function leavesOf(inputs: readonly ArrayDesc[], nodes: readonly Node[], outputs: readonly ArrayDesc[]): ArrayDesc[] {
  const made = new Set<ArrayDesc>(inputs);
  for (const node of nodes) for (const o of node.outputs) made.add(o);
  return [...new Set([...nodes.flatMap((n) => n.inputs), ...outputs])].filter((d) => !made.has(d));
}

/** A text that is equal for equal parameters, or undefined when they hold something else than plain values. */
function paramsKey(params: object): string | undefined {
  let plain = true;
  const text = JSON.stringify(params, (_key, value: unknown) => {
    if (value instanceof Dtype) return `dtype ${value.name}`;
    if (typeof value === "function" || value instanceof MxArray) plain = false;
    if (typeof value === "number" && !Number.isFinite(value)) return `number ${value}`;
    return Object.is(value, -0) ? "number -0" : value;
  });
  return plain ? text : undefined;
}

/** Numbers the values of recorded nodes. Equal steps become one; tracers become what they stand for. */
class Builder {
  readonly steps: Step[] = [];
  readonly constants: MxArray[] = [];
  private readonly numbers = new Map<ArrayDesc, number>();
  private readonly known = new Map<string, number>();
  private count: number;
  constructor(inputs: readonly ArrayDesc[], nodes: readonly Node[], outputs: readonly ArrayDesc[]) {
    inputs.forEach((d, i) => {
      this.numbers.set(d, i);
    });
    this.count = inputs.length;
    for (const d of leavesOf(inputs, nodes, outputs)) this.addConstant(d);
    for (const node of nodes) this.add(node);
  }
  of(d: ArrayDesc): number {
    return this.numbers.get(d) as number;
  }
  /** Equal numbers are one constant. */
  private addConstant(d: ArrayDesc): void {
    const key = d.scalar === undefined ? undefined : `${d.dtype} ${Object.is(d.scalar, -0) ? "-0" : d.scalar}`;
    const known = key === undefined ? undefined : this.known.get(key);
    const n = known ?? this.count++;
    this.numbers.set(d, n);
    if (known !== undefined) return;
    if (key !== undefined) this.known.set(key, n);
    // A function may run for the first time inside a scope, which must not close them.
    this.constants.push(unscoped(() => handle(d)));
  }
  private add({ op, params, stream, inputs, outputs }: Node): void {
    const from = inputs.map((d) => this.of(d));
    let first = op.name === "tracer" ? from[0] : undefined;
    const key = paramsKey(params);
    const name = key === undefined ? undefined : `${op.name} ${stream.device.type} ${stream.index} ${from.join(",")} ${key}`;
    if (first === undefined && name !== undefined) first = this.known.get(name);
    if (first === undefined) {
      first = this.count;
      this.count += outputs.length;
      this.steps.push({ op, params, stream, inputs: from, outputs: outputs.map(avalOf) });
      if (name !== undefined) this.known.set(name, first);
    }
    outputs.forEach((o, i) => {
      this.numbers.set(o, (first as number) + i);
    });
  }
}

/** Throws when an array of `given` is among the arrays that are not inputs of the program, or is what they are computed from. */
function refuseUncaptured(what: string, constants: readonly ArrayDesc[], given: ReadonlySet<ArrayDesc>): void {
  const stack = [...constants];
  const seen = new Set<ArrayDesc>(stack);
  for (let d = stack.pop(); d; d = stack.pop()) {
    if (given.has(d)) throw opError(what, "the function reaches one of its inputs other than through its arguments; capture it, or pass it only, got an input that is used both ways");
    for (const i of d.storage ? [] : (d.node?.inputs ?? [])) {
      if (seen.has(i)) continue;
      seen.add(i);
      stack.push(i);
    }
  }
}

/**
 * Runs `f` once on placeholders and gives what it did. Gives the program, what `f` returned beside the arrays, and which sizes of the inputs it depends on.
 *
 * @param what name in errors
 * @param given arrays that the placeholders stand for: `f` must not use these
 */
export function traceProgram<T>(what: "compile" | "exportFunction", given: readonly MxArray[], f: (inputs: MxArray[]) => { outputs: readonly MxArray[]; rest: T }): { program: Program; rest: T; sizes: SizeUse } {
  const inputs = given.map((a) => placeholder(a.desc, what === "compile" ? "a compiled function" : "an exported function"));
  // Taken before the function runs, which may update its arguments in place.
  const starts = inputs.map((i) => i.desc);
  return withTape(
    () => sizesUsedBy(() => f(inputs)),
    ({ result: { outputs, rest }, use: sizes }, nodes) => {
      const results = outputs.map((o) => o.desc);
      let kept = needed(nodes, results);
      const leaves = leavesOf(starts, kept, results);
      refuseUncaptured(what, leaves, new Set(given.map((a) => a.desc)));
      // A file holds how a captured array is computed, a compiled function the array itself, which is computed once.
      if (what === "exportFunction") kept = [...pendingNodes(leaves), ...kept];
      const built = new Builder(starts, kept, results);
      return { program: { inputs: starts.map(avalOf), constants: built.constants, steps: built.steps, outputs: results.map((d) => built.of(d)) }, rest, sizes };
    },
  );
}

/** Whether the program can run on arrays of other shapes of the same rank: no op holds sizes of the inputs that can not be told from the new ones. */
export const runsOnOtherShapes = ({ steps, inputs, constants }: Program, sizes: SizeUse): boolean => {
  if (sizes === sizesCount) return false;
  const avals: Aval[] = [...inputs, ...constants.map((c) => c.desc)];
  return steps.every((step) => {
    const from = step.inputs.map((i) => avals[i] as Aval);
    avals.push(...step.outputs);
    return shapeless(step, from);
  });
};

/** Whether that is so also where a dimension of size 1 becomes longer, or the other way round: the ops themselves see what is to be broadcast. */
export const runsOnOtherOnes = ({ steps }: Program, sizes: SizeUse): boolean => sizes < onesCount && steps.every(broadcastsAnew);

/** The steps for inputs of other shapes. Throws when an op can not be done for these. */
export function adaptSteps(what: string, { inputs, constants, steps }: Program, given: readonly Aval[]): readonly Step[] {
  if (given.every((a, i) => sameShape(a.shape, (inputs[i] as Aval).shape))) return steps;
  const fixed = constants.map((c) => c.desc);
  const before: Aval[] = [...inputs, ...fixed];
  const values: Aval[] = [...given, ...fixed];
  return steps.map((step) => {
    const now = step.inputs.map((i) => values[i] as Aval);
    const params = adaptParams(what, { step, was: step.inputs.map((i) => before[i] as Aval), now });
    const outputs = step.op.infer(now, params);
    before.push(...step.outputs);
    values.push(...outputs);
    return { ...step, params, outputs };
  });
}

/**
 * Does the steps again.
 *
 * @param otherShapes the inputs may have other shapes than those it was recorded with
 * @throws when an op can not be done for these shapes
 */
export function runProgram(what: string, { inputs, constants, steps, outputs }: Program, given: readonly MxArray[], otherShapes: boolean): MxArray[] {
  const adapt = otherShapes && given.some((a, i) => !sameShape(a.desc.shape, (inputs[i] as Aval).shape));
  return tidy(() => {
    const values: MxArray[] = [...given, ...constants];
    const before: Aval[] | undefined = adapt ? [...inputs, ...constants.map((c) => c.desc)] : undefined;
    for (const step of steps) {
      const from = step.inputs.map((i) => values[i] as MxArray);
      let { params } = step;
      if (before) {
        const other: Other = { step, was: step.inputs.map((i) => before[i] as Aval), now: from.map((x) => x.desc) };
        params = adaptParams(what, other);
        // A file was checked for the shapes that it was recorded with.
        const wrong = what === "importFunction" ? wrongStep(step.op, params as Record<string, unknown>, other.now, step.outputs) : undefined;
        if (wrong !== undefined) throw opError(what, `${step.op.name} can not be done for ${other.now.map((x) => formatShape(x.shape)).join(", ")}: ${wrong}`);
        before.push(...step.outputs);
      }
      for (const r of applierOf(step.op)(from, params, step.stream)) values.push(r);
    }
    return outputs.map((i) => new MxArray((values[i] as MxArray).desc));
  });
}
