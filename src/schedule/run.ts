/** Evaluation: from targets to recorded lists. Installs the evaluator that `item()`, `tolist()` and friends use. */
import { ArrayDesc, type Epoch, MxArray, installEvaluator, releaseDesc } from "../core/array.ts";
import type { View } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { type Expr, type Value, expr } from "../core/expr.ts";
import { tidy } from "../core/memory.ts";
import { type InputLayout, type Kernel, type Node, input, output } from "../core/op.ts";
import { formatShape } from "../core/shape.ts";
import type { Storage } from "../core/storage.ts";
import { forEachArray } from "../core/tree.ts";
import { type Group, type GroupInput, elementwiseLaunch } from "../codegen/elementwise.ts";
import { copyOp, fillStep } from "../ops/copy.ts";
import { type Switches, readSwitches, route } from "./gate.ts";
import { type Item, fuse, tapeOf } from "./plan.ts";
import { type Kept, Recorder, storeScalar } from "./record.ts";

/** What an evaluation did; read by tests and reports. */
export interface EvalStats {
  evaluations: number;
  commands: number;
  fusedGroups: number;
  absorbedNodes: number;
  donations: number;
  layoutCopies: number;
  composites: number;
}
export const stats: EvalStats = { evaluations: 0, commands: 0, fusedGroups: 0, absorbedNodes: 0, donations: 0, layoutCopies: 0, composites: 0 };

/** Called for each recorded node with the kernel that runs it; set by debug tools. */
export interface Tracer {
  recorded(node: Node, kernel: string, refused: readonly string[], absorbed: readonly Node[]): void;
}
let tracer: Tracer | undefined;
export const setTracer = (t: Tracer | undefined): void => {
  tracer = t;
};

/** Computes a node a second time from its evaluated inputs; the function it returns compares the outputs. Set by debug/check.ts. */
export type Checker = (node: Node) => () => void;
let checker: Checker | undefined;
export const installChecker = (c: Checker): void => {
  checker = c;
};

class Evaluation {
  private readonly switches: Switches = readSwitches();
  readonly recorder: Recorder;
  private readonly kept: Kept | undefined;
  constructor(asynchronous: boolean, kept?: Kept) {
    this.kept = kept;
    this.recorder = new Recorder(asynchronous, kept);
  }
  get debug(): number {
    return this.switches.debug;
  }
  private allocate(d: ArrayDesc): void {
    d.attach(this.recorder.storage(d.size * d.dtype.size));
  }

  record(tape: readonly Node[]): void {
    const { fuse: enabled, check } = this.switches;
    for (const item of fuse(tape, enabled && !check)) this.item(item);
  }
  private report(node: Node, kernel: string, refused: readonly string[], absorbed: readonly Node[]): void {
    tracer?.recorded(node, kernel, refused, absorbed);
    if (this.switches.debug < 2) return;
    const form = (d: View): string => `${d.dtype}${formatShape(d.shape)}${d.contiguous ? "" : " strided"}`;
    const with_ = absorbed.length > 0 ? ` with ${absorbed.map((n) => n.op.name).join(" ")}` : "";
    const why = refused.length > 0 ? `; refused: ${refused.join("; ")}` : "";
    process.stderr.write(`  ${node.op.name}${with_} ${node.inputs.map(form).join(", ")} -> ${node.outputs.map(form).join(", ")}: ${kernel}${why}\n`);
  }

  private item(item: Item): void {
    const { node } = item;
    const { op } = node;
    for (const d of node.inputs) if (d.epoch) settled(d);
    if (this.kept) for (const n of [node, ...(item.absorbed ?? [])]) for (const d of n.inputs) this.recorder.reads(d);
    const verify = this.switches.check ? this.second(node) : undefined;
    if (op.view) this.view(node);
    else if (op.expr) this.elementwise(node, item.absorbed ?? []);
    else this.structured(node);
    if (verify) {
      this.recorder.flush(false);
      verify();
    }
    for (const o of node.outputs) o.node = undefined;
    if (item.absorbed) for (const n of item.absorbed) for (const o of n.outputs) o.node = undefined;
    this.detach(node);
    if (item.absorbed) for (const n of item.absorbed) this.detach(n);
  }

  private second(node: Node): (() => void) | undefined {
    this.recorder.flush(false);
    return checker?.(node);
  }

  /** Gives back what nothing needs any more, once a node is recorded and cut out of the graph. */
  private detach(node: Node): void {
    for (const i of node.inputs) if (--i.consumers === 0) releaseDesc(i);
    for (const o of node.outputs) {
      if (o.storage) this.recorder.produces(o);
      if (o.handles === 0 && o.consumers === 0) releaseDesc(o);
    }
  }

  private view(node: Node): void {
    const source = node.inputs[0] as ArrayDesc;
    const out = node.outputs[0] as ArrayDesc;
    this.storeConstant(source);
    let from = source;
    let layout = node.op.view?.(source, node.params);
    if (!layout) {
      from = this.contiguousCopy(source);
      layout = node.op.view?.(from, node.params);
      if (!layout) throw opError(node.op.name, "has no view of a contiguous array");
    }
    out.place(from.storage as Storage, layout.strides, layout.offset);
    if (from !== source) releaseDesc(from);
    this.report(node, from === source ? "view" : copyKernel.name, [], []);
  }

  /**
   * Gives a 0-d constant storage that a command of this list fills. The host must not write it: the block may be one that was freed while recording
   * and that commands recorded before still read.
   */
  private storeConstant(d: ArrayDesc): void {
    if (d.storage || d.scalar === undefined) return;
    const value = ArrayDesc.constant(d.scalar, d.dtype);
    this.allocate(d);
    this.recorder.launch({ steps: [fillStep(output(0), input(0), d.dtype.size, d.dtype.size)] }, [value], [d]);
  }

  /** A row-major copy in storage of its own; the caller releases it. */
  private contiguousCopy(d: ArrayDesc): ArrayDesc {
    const out = ArrayDesc.lazy(d.shape, d.dtype);
    this.allocate(out);
    if (out.size > 0) this.recorder.launch(copyKernel.launch([d], [out], {}), [d], [out]);
    stats.layoutCopies++;
    return out;
  }

  private elementwise(node: Node, absorbed: readonly Node[]): void {
    const out = node.outputs[0] as ArrayDesc;
    const leaves: ArrayDesc[] = [];
    const value = new GroupBuilder(node, absorbed, leaves).value;
    if (absorbed.length > 0) {
      stats.fusedGroups++;
      stats.absorbedNodes += absorbed.length;
    }
    // Views are taken before placing the output: taking over an input's buffer must not change what the kernel reads.
    const inputs: GroupInput[] = leaves.map((d) => ({ dtype: d.dtype, strides: broadcastStrides(d, out.shape) }));
    const donor = leaves.find((d) => d.contiguous && d.size === out.size && d.dtype.size === out.dtype.size && this.reusable(d));
    if (donor) this.takeOver(donor, out);
    else this.allocate(out);
    if (out.size > 0) {
      const group: Group = { shape: out.shape, inputs, outputs: [{ dtype: out.dtype, value }], expr };
      this.recorder.launch(elementwiseLaunch(group), leaves, [out]);
    }
    this.report(node, "wasm/generated", [], absorbed);
  }

  /** True when the node being recorded is the last that can see this array's bytes. A recording that runs again needs its inputs unchanged. */
  private reusable(d: ArrayDesc): boolean {
    return this.kept === undefined && this.donatable(d);
  }
  private donatable(d: ArrayDesc): boolean {
    return d.handles === 0 && d.consumers === 1 && d.storage !== undefined && d.storage.refs === (this.recorder.holds(d.storage) ? 2 : 1) && d.offset === 0;
  }
  private takeOver(from: ArrayDesc, out: ArrayDesc): void {
    out.attach(from.storage as Storage);
    stats.donations++;
  }

  private structured(node: Node): void {
    const { op, params, inputs, outputs } = node;
    const refused: string[] = [];
    const kernel = route(op, inputs, params, outputs, this.switches, refused);
    if (!kernel) {
      this.composite(node, refused);
      return;
    }
    const layouts = typeof kernel.layout === "function" ? kernel.layout(inputs, params) : kernel.layout;
    let temporaries: ArrayDesc[] | undefined;
    let operands: ArrayDesc[] = inputs as ArrayDesc[];
    for (let i = 0; i < inputs.length; i++) {
      const d = inputs[i] as ArrayDesc;
      const want = layouts ? (layouts[Math.min(i, layouts.length - 1)] ?? "row") : "row";
      if (satisfies(d, want)) continue;
      const c = this.contiguousCopy(d);
      if (operands === inputs) operands = inputs.slice();
      operands[i] = c;
      (temporaries ??= []).push(c);
    }
    this.placeOutputs(kernel, operands, outputs);
    if ((outputs[0] as ArrayDesc).size > 0 || outputs.length > 1) this.recorder.launch(kernel.launch(operands, outputs, params), operands, outputs);
    if (temporaries) for (const t of temporaries) releaseDesc(t);
    this.report(node, kernel.name, refused, []);
  }

  private placeOutputs(kernel: Kernel, operands: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): void {
    const out = outputs[0] as ArrayDesc;
    if (kernel.base !== undefined) {
      const base = operands[kernel.base] as ArrayDesc;
      this.storeConstant(base);
      // A temporary copy made for the layout is ours as well: it has no handle and no reader.
      if (base.contiguous && ((base.handles === 0 && base.consumers === 0) || this.donatable(base))) this.takeOver(base, out);
      else {
        if (this.kept) this.kept.refused ??= `${kernel.name} updates an array that is used elsewhere, so it can not work in place`;
        this.allocate(out);
        if (out.size > 0) this.recorder.launch(copyKernel.launch([base], [out], {}), [base], [out]);
      }
    } else {
      const donor = kernel.inPlace?.map((i) => operands[i] as ArrayDesc).find((d) => d.contiguous && d.size * d.dtype.size === out.size * out.dtype.size && this.reusable(d));
      if (donor) this.takeOver(donor, out);
      else this.allocate(out);
    }
    for (let i = 1; i < outputs.length; i++) this.allocate(outputs[i] as ArrayDesc);
  }

  /** Runs an op through its definition in other ops, as part of the same list. */
  private composite(node: Node, refused: readonly string[]): void {
    const { op, params, inputs, outputs } = node;
    if (!op.composite) throw opError(op.name, `no kernel can run this: ${refused.length > 0 ? refused.join("; ") : "it has none for this backend"}`);
    stats.composites++;
    const results = tidy(() => (op.composite as NonNullable<typeof op.composite>)(inputs.map((d) => new MxArray(d)), params));
    this.record(tapeOf(results.map((r) => r.desc)));
    outputs.forEach((o, i) => {
      const r = (results[i] as MxArray).desc;
      this.storeConstant(r);
      o.place(r.storage as Storage, r.strides, r.offset);
    });
    for (const r of results) r.dispose();
    this.report(node, "composite", refused, []);
  }
}

const copyKernel = copyOp.op.kernels[0] as Kernel;

/** Throws the error of failed work; forgets work that is over. */
function settled(d: ArrayDesc): void {
  if (!d.epoch?.done) return;
  d.epoch.wait();
  d.epoch = undefined;
}

function satisfies(d: ArrayDesc, want: InputLayout): boolean {
  if (want === "any" || d.contiguous) return true;
  if (want === "row") return false;
  const last = d.shape.length - 1;
  return last < 0 || d.strides[last] === 1 || d.shape[last] === 1;
}

/** Strides of an input over the iteration space it is broadcast to. */
function broadcastStrides(d: View, shape: readonly number[]): readonly number[] {
  const lead = shape.length - d.shape.length;
  if (lead === 0 && d.contiguous && d.shape.every((n, i) => n === shape[i])) return d.strides;
  const strides = new Array<number>(shape.length).fill(0);
  for (let i = 0; i < d.shape.length; i++) if (d.shape[i] !== 1) strides[lead + i] = d.strides[i] as number;
  return strides;
}

/** Expression of a node with the formulas of the nodes it absorbed; the remaining inputs are numbered in `leaves`. */
class GroupBuilder {
  readonly value: Value;
  private readonly memo = new Map<ArrayDesc, Value>();
  private readonly inside: Set<Node>;
  private readonly leaves: ArrayDesc[];
  private readonly e: Expr = expr;
  constructor(root: Node, absorbed: readonly Node[], leaves: ArrayDesc[]) {
    this.inside = new Set(absorbed);
    this.leaves = leaves;
    this.value = this.formula(root);
  }
  /** Recursion is bounded by the size of a group. */
  private formula(node: Node): Value {
    const xs = node.inputs.map((d) => this.of(d));
    return node.op.expr?.(this.e, xs, node.params, node.outputs[0] as ArrayDesc, node.inputs) as Value;
  }
  private of(d: ArrayDesc): Value {
    const known = this.memo.get(d);
    if (known) return known;
    let v: Value;
    if (d.node && this.inside.has(d.node)) v = this.e.narrow(this.formula(d.node), d.dtype);
    else {
      v = this.e.input(this.leaves.length, d.dtype);
      this.leaves.push(d);
    }
    this.memo.set(d, v);
    return v;
  }
}

/** Evaluates arrays. Synchronous: returns when the results can be read. Asynchronous: returns the epoch of the submitted work. */
export function evaluate(targets: readonly ArrayDesc[], asynchronous = false, kept?: Kept): Epoch | undefined {
  for (const t of targets) storeScalar(t);
  const tape = tapeOf(targets);
  if (tape.length === 0) return undefined;
  const evaluation = new Evaluation(asynchronous, kept);
  stats.evaluations++;
  try {
    evaluation.record(tape);
  } finally {
    // What was recorded before an error has left the graph, so it must run for later reads to be right.
    evaluation.recorder.flush(true);
    stats.commands += evaluation.recorder.commands;
    if (evaluation.debug >= 1) process.stderr.write(`eval: ${tape.length} ops, ${evaluation.recorder.commands} commands${asynchronous ? ", asynchronous" : ""}\n`);
  }
  return evaluation.recorder.epoch;
}

installEvaluator({
  evaluate: (targets) => {
    evaluate(targets);
  },
});

export const descsOf = (trees: unknown[]): ArrayDesc[] => {
  const found: ArrayDesc[] = [];
  forEachArray(trees, (a) => found.push(a.desc));
  return found;
};

/** Evaluates every array in the trees (nested Arrays, objects, class instances) and waits for the results; other values are ignored. */
export function evalArrays(...trees: unknown[]): void {
  const descs = descsOf(trees);
  evaluate(descs);
  for (const d of descs) d.epoch?.wait();
}

/**
 * Starts the evaluation of every array in the trees and returns at once; the promise settles when all are computed. Throws for an array that a function
 * transform is recording.
 */
export function asyncEval(...trees: unknown[]): Promise<void> {
  const descs = descsOf(trees);
  for (const d of descs) if (d.traced) throw opError("asyncEval", "not allowed inside a function transformation, got an array that is being traced");
  const epoch = evaluate(descs, true);
  const pending = new Set<Epoch>(epoch ? [epoch] : []);
  for (const d of descs) if (d.epoch && !d.epoch.done) pending.add(d.epoch);
  return Promise.all([...pending].map((e) => e.promise())).then(() => undefined);
}
