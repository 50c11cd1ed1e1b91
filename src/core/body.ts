/**
 * Bodies: an op that stands for a recorded computation. A call of a compiled function is one node of the graph; its body is planned once for each kind of inputs
 * (schedule/compiled.ts), or put into the graph in place of the node.
 */
import { type Aval, ArrayDesc, releaseDesc } from "./array.ts";
import type { Stream } from "./device.ts";
import type { Node, Op } from "./op.ts";

/** One op of a recorded computation. */
export interface Step {
  readonly op: Op;
  readonly params: object;
  /** Undefined: the default stream when it runs. */
  readonly stream: Stream | undefined;
  /** Numbers of the values that it reads. */
  readonly inputs: readonly number[];
  /** What it gives for the inputs that it was recorded with. */
  readonly outputs: readonly Aval[];
}

/** Values are numbered: inputs, then the outputs of the steps in order. */
export class Body {
  readonly inputs: number;
  readonly steps: readonly Step[];
  /** Numbers of the results, each made by a step, none twice. */
  readonly outputs: readonly number[];
  readonly results: readonly Aval[];
  /** Plans made of it, by what they were made for; the scheduler's. */
  plans: unknown;

  constructor(inputs: number, steps: readonly Step[], outputs: readonly number[]) {
    this.inputs = inputs;
    this.steps = steps;
    this.outputs = outputs;
    const made = steps.flatMap((s) => s.outputs);
    this.results = outputs.map((n) => made[n - inputs] as Aval);
  }
  /** No plain value: what holds a body can not be written to a file. */
  toJSON(): () => void {
    return () => {};
  }
}

const used = (d: ArrayDesc): boolean => d.handles > 0 || d.consumers > 0;

/** Numbers of the steps that make what somebody can still see. */
function neededSteps(body: Body, outputs: readonly ArrayDesc[]): Set<number> {
  const wanted = new Set<number>();
  outputs.forEach((o, i) => {
    if (used(o)) wanted.add(body.outputs[i] as number);
  });
  const steps = new Set<number>();
  let end = body.inputs + body.steps.reduce((n, s) => n + s.outputs.length, 0);
  for (let i = body.steps.length - 1; i >= 0; i--) {
    const { inputs, outputs: made } = body.steps[i] as Step;
    const first = end - made.length;
    if (made.some((_, k) => wanted.has(first + k))) {
      steps.add(i);
      for (const n of inputs) wanted.add(n);
    }
    end = first;
  }
  return steps;
}

/** Puts the steps of a node's body into the graph in its place, as far as they are needed. The node's outputs stay the arrays that they are. */
export function inlineBody(node: Node, body: Body): void {
  const needed = neededSteps(body, node.outputs);
  const own = new Map<number, ArrayDesc>();
  body.outputs.forEach((n, i) => {
    const o = node.outputs[i] as ArrayDesc;
    o.node = undefined;
    own.set(n, o);
  });
  const values: (ArrayDesc | undefined)[] = node.inputs.slice();
  body.steps.forEach(({ op, params, stream, inputs, outputs: avals }, i) => {
    if (!needed.has(i)) {
      for (let k = 0; k < avals.length; k++) values.push(undefined);
      return;
    }
    const from = inputs.map((n) => values[n] as ArrayDesc);
    for (const d of from) d.consumers++;
    const outputs = avals.map((a, k) => own.get(values.length + k) ?? ArrayDesc.lazy(a.shape, a.dtype));
    const inner: Node = { op, params, inputs: from, outputs, stream: stream ?? node.stream };
    for (const o of outputs) o.node = inner;
    values.push(...outputs);
  });
  for (const d of node.inputs) if (--d.consumers === 0) releaseDesc(d);
}
