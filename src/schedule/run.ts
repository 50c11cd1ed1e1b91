/** Evaluation: from targets to recorded lists. Installs the evaluator that `item()`, `tolist()` and friends use. */
import { type Body, inlineBody } from "../core/body.ts";
import { ArrayDesc, type Epoch, MxArray, installEvaluator, releaseDesc } from "../core/array.ts";
import type { View } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { type Expr, type Value, expr } from "../core/expr.ts";
import { tidy } from "../core/memory.ts";
import { type InputLayout, type Kernel, type Launch, type Node, input, output } from "../core/op.ts";
import { formatShape } from "../core/shape.ts";
import { type Storage, hostMemory } from "../core/storage.ts";
import { forEachArray } from "../core/tree.ts";
import { stream } from "../core/device.ts";
import type { GeneratedShader, GpuDevice, GpuKernel, GpuLaunch, GpuStep } from "../core/gpu.ts";
import { type Group, type GroupInput, elementwiseLaunch } from "../codegen/elementwise.ts";
import { type Place, interpretGroup } from "../codegen/interpreter.ts";
import { elementwiseStep } from "../codegen/elementwise-spirv.ts";
import type { RowGroup } from "../codegen/rows.ts";
import { rowsLaunch as gpuRowsLaunch } from "../codegen/rows-spirv.ts";
import { rowsLaunch } from "../codegen/rows-wasm.ts";
import { columnsLaunch } from "../codegen/columns-wasm.ts";
import { copyOp, fillStep } from "../ops/copy.ts";
import { type Switches, closedKernels, generatedClosed, readSwitches, routeGpu, satisfies } from "./gate.ts";
import { type Item, fuse, tapeOf } from "./plan.ts";
import { Launches } from "./launches.ts";
import { type Kept, Recorder, scalarBits, storeScalar } from "./record.ts";
import { GpuRecorder } from "./record-gpu.ts";
import { type PlannedEpilogue, closedName, epilogueJoiner, planEpilogue } from "./epilogue.ts";
import { productJoiner } from "./residual.ts";
import { keepStatistics } from "./statistics.ts";
import { stats } from "./stats.ts";
import { rowGroup, rowsGrower } from "./rows.ts";
import { joinSiblings, rowsOnCpu, siblingsTogether } from "./siblings.ts";
import { gpuSiblings, planSiblings } from "./siblings-gpu.ts";
import { type Routed, type Tuned, dropTuned, routeTuned, routeTunedGpu, tunedText } from "./tune.ts";
import { tuneFor, untuned } from "./tune-search.ts";

export { type EvalStats, stats } from "./stats.ts";

/** Called for each recorded node with the kernel that runs it; set by debug tools. */
export interface Tracer {
  recorded(node: Node, kernel: string, refused: readonly string[], absorbed: readonly Node[]): void;
  /** An evaluation begins; it has run (or was submitted). */
  begin?(): void;
  end?(): void;
}
const tracers: Tracer[] = [];
/** Adds a tracer; the function it returns takes it away. */
export function addTracer(t: Tracer): () => void {
  tracers.push(t);
  return () => {
    const at = tracers.indexOf(t);
    if (at >= 0) tracers.splice(at, 1);
  };
}
/** Does work that the tracers set before do not see. */
export function untraced<R>(work: () => R): R {
  const outer = tracers.splice(0);
  try {
    return work();
  } finally {
    tracers.splice(0, tracers.length, ...outer);
  }
}
let removeTracer: (() => void) | undefined;
/** Sets one tracer in place of the one set before. */
export const setTracer = (t: Tracer | undefined): void => {
  removeTracer?.();
  removeTracer = t && addTracer(t);
};

/** Called once, before the first work on the GPU; set by debug/self-check.ts. */
let beforeGpu: (() => void) | undefined;
export const installBeforeGpu = (f: () => void): void => {
  beforeGpu = f;
};

/** Computes a node a second time from its evaluated inputs; the function it returns compares the outputs. Set by debug/check.ts. */
export type Checker = (node: Node) => () => void;
let checker: Checker | undefined;
export const installChecker = (c: Checker): void => {
  checker = c;
};

/** A row group, and its launch on one of the backends. */
interface PlannedRows {
  readonly group: RowGroup;
  readonly leaves: readonly ArrayDesc[];
  readonly outs: readonly ArrayDesc[];
  readonly launch?: Launch;
  readonly gpuLaunch?: GpuLaunch;
}

/** Writes a plan down instead of running anything (schedule/compiled.ts). */
export interface Planner {
  readonly recorder: Recorder;
  gpu(): GpuRecorder;
  recorded(node: Node, kernel: string, refused: readonly string[], absorbed: readonly Node[]): void;
  copied(from: ArrayDesc, to: ArrayDesc, kernel: string): void;
  /** There can be no plan. */
  refuse(why: string): never;
}
/** Evaluates a node with a body by its plan. Gives why it can not, having done nothing then. */
export type BodyRunner = (node: Node, body: Body, evaluation: Evaluation) => string | undefined;
let runBody: BodyRunner | undefined;
export const installBodyRunner = (r: BodyRunner): void => {
  runBody = r;
};
/** Text of the plan of a graph, for MLX_DEBUG; set by schedule/plan-report.ts. */
let describePlan: ((targets: readonly ArrayDesc[]) => string) | undefined;
export const installPlanText = (f: (targets: readonly ArrayDesc[]) => string): void => {
  describePlan = f;
};

export class Evaluation {
  readonly switches: Switches = readSwitches();
  readonly recorder: Recorder;
  /** Made when the first op of a GPU stream is met. */
  gpu: GpuRecorder | undefined;
  /** The node being recorded runs on the GPU. */
  private onGpu = false;
  private readonly kept: Kept | undefined;
  private readonly planner: Planner | undefined;
  /** Last nodes of row groups that are computed in parts, with the reason, while they are. */
  private readonly declined = new Map<Node, string>();
  constructor(asynchronous: boolean, kept?: Kept, planner?: Planner) {
    this.kept = kept;
    this.planner = planner;
    this.recorder = planner?.recorder ?? new Recorder(asynchronous, kept);
    this.recorder.joins = !this.switches.disabled("wasm/together");
  }
  get debug(): number {
    return this.switches.debug;
  }
  private allocate(d: ArrayDesc): void {
    const bytes = d.size * d.dtype.size;
    d.attach(this.onGpu ? this.gpuRecorder().storage(bytes) : this.recorder.storage(bytes));
  }
  gpuRecorder(): GpuRecorder {
    this.gpu ??= this.planner?.gpu() ?? new GpuRecorder(this.kept);
    return this.gpu;
  }
  /** Runs or submits all that was recorded. */
  flush(last: boolean): void {
    try {
      this.recorder.flush(last);
    } finally {
      this.gpu?.flush();
    }
  }

  record(tape: readonly Node[]): void {
    const { fuse: enabled, check } = this.switches;
    const device = (): GpuDevice => this.gpuRecorder().backend.device;
    const known = (d: GpuDevice): Launches | undefined => this.launches(d);
    const [join, finish] = [productJoiner(this.switches, device, known), epilogueJoiner(this.switches, device, known)];
    const nodes = enabled && !check ? keepStatistics(tape, this.switches) : tape;
    const items = fuse(nodes, enabled && !check, rowsGrower(this.switches, join), join, finish);
    const launched = enabled && !check ? gpuSiblings(this.switches) : undefined;
    const joined = launched ? joinSiblings(items, launched) : items;
    for (const item of this.recorder.joins ? siblingsTogether(joined, rowsOnCpu) : joined) this.item(item);
  }
  private report(node: Node, kernel: string, others: readonly string[], absorbed: readonly Node[], tuned?: Tuned): void {
    const group = this.declined.get(node);
    const refused = group === undefined ? others : [group, ...others];
    if (this.planner) {
      this.planner.recorded(node, kernel, refused, absorbed);
      return;
    }
    for (const t of tracers) t.recorded(node, kernel, refused, absorbed);
    if (this.switches.debug < 2) return;
    const form = (d: View): string => `${d.dtype}${formatShape(d.shape)}${d.contiguous ? "" : " strided"}`;
    const with_ = absorbed.length > 0 ? ` with ${absorbed.map((n) => n.op.name).join(" ")}` : "";
    const why = refused.length > 0 ? `; refused: ${refused.join("; ")}` : "";
    process.stderr.write(`  ${node.op.name}${with_} ${node.inputs.map(form).join(", ")} -> ${node.outputs.map(form).join(", ")}: ${kernel}${tuned ? ` (${tunedText(tuned)})` : ""}${why}\n`);
  }

  private item(item: Item): void {
    const { node } = item;
    const { op } = node;
    if (item.siblings) {
      this.siblings([node, ...item.siblings]);
      return;
    }
    for (const d of node.inputs) if (d.epoch) settled(d);
    const rows = item.rows && this.plannedRows(item);
    const finished = item.epilogue && this.plannedEpilogue(item);
    if (typeof rows === "string" || (item.epilogue && !finished)) {
      // None of the group is computed yet, all else that its last node needs is.
      if (typeof rows === "string") this.declined.set(node, `${this.onGpu ? "vulkan" : "wasm"}/generated-${item.rows?.axes ? "columns" : "rows"}: ${rows}`);
      for (const part of fuse(tapeOf([node, ...(item.stored ?? [])].map((n) => n.outputs[0] as ArrayDesc)), true)) this.item(part);
      this.declined.delete(node);
      return;
    }
    if (this.kept || this.planner) for (const n of [node, ...(item.absorbed ?? [])]) for (const d of n.inputs) this.recorder.reads(d);
    if (op.body) {
      this.body(node, op.body(node.params));
      return;
    }
    const verify = this.switches.check ? this.second(node) : undefined;
    this.onGpu = node.stream.device.type === "gpu";
    try {
      if (rows) this.rows(item, rows);
      else if (finished) this.epilogue(item, finished);
      else if (op.view) this.view(node);
      else if (op.expr) this.elementwise(item);
      else this.structured(node);
      if (item.product) stats.productSums++;
    } catch (error) {
      // Nothing was recorded that writes the outputs: they must not pass for computed, so that a later evaluation computes them.
      for (const n of [node, ...(item.stored ?? [])]) for (const o of n.outputs) dropStorage(o);
      throw error;
    }
    if (verify) {
      this.flush(false);
      verify();
    }
    for (const o of node.outputs) o.node = undefined;
    if (item.absorbed) for (const n of item.absorbed) for (const o of n.outputs) o.node = undefined;
    this.detach(node);
    if (item.absorbed) for (const n of item.absorbed) this.detach(n);
  }

  /** A node that stands for several ops: by its plan, or op by op. */
  private body(node: Node, body: Body): void {
    const outer = this.onGpu;
    const why = this.planner ? "it is part of a plan" : this.kept ? "it is recorded" : this.switches.check ? "MLX_CHECK" : tracers.length > 0 ? "ops are traced" : runBody?.(node, body, this);
    if (why === undefined) {
      for (const o of node.outputs) o.node = undefined;
      this.detach(node);
    } else {
      if (this.switches.debug >= 2 && !this.planner) process.stderr.write(`  ${node.op.name}: no plan: ${why}\n`);
      inlineBody(node, body);
      this.record(tapeOf(node.outputs));
    }
    this.onGpu = outer;
  }

  private second(node: Node): (() => void) | undefined {
    this.flush(false);
    return checker?.(node);
  }

  /** Gives back what nothing needs any more, once a node is recorded and cut out of the graph. */
  private detach(node: Node): void {
    for (const i of node.inputs) if (--i.consumers === 0) releaseDesc(i);
    for (const o of node.outputs) {
      if (o.storage?.hostValid) this.recorder.produces(o);
      else if (o.storage) this.gpu?.produces(o);
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
    // A list with nothing but views has no commands and no epoch of its own: readers wait for the work that writes the source.
    out.epoch = from.epoch;
    if (from !== source) releaseDesc(from);
    this.report(node, from === source ? "view" : copyKernel.name, [], []);
  }

  /**
   * Gives a 0-d constant storage that a command of this list fills. The host must not write it: the block may be one that was freed while recording
   * and that commands recorded before still read.
   */
  private storeConstant(d: ArrayDesc): void {
    if (d.storage || d.scalar === undefined) return;
    if (this.onGpu) {
      this.gpuRecorder().storeConstant(d);
      return;
    }
    const value = this.recorder.constantLike(d);
    this.allocate(d);
    this.recorder.launch({ steps: [fillStep(output(0), input(0), d.dtype.size, d.dtype.size)] }, [value], [d]);
  }

  /** A row-major copy in storage of its own; the caller releases it. */
  private contiguousCopy(d: ArrayDesc): ArrayDesc {
    const out = ArrayDesc.lazy(d.shape, d.dtype);
    this.allocate(out);
    this.copy(d, out);
    this.planner?.copied(d, out, copyKernel.name);
    stats.layoutCopies++;
    return out;
  }
  private copy(from: ArrayDesc, to: ArrayDesc): void {
    if (to.size === 0) return;
    if (!this.onGpu) {
      this.recorder.launch(copyKernel.launch([from], [to], {}), [from], [to]);
      return;
    }
    const gpu = this.gpuRecorder();
    const { device } = gpu.backend;
    const call = { op: copyOp.op, params: {}, inputs: [from], outputs: [to] };
    const launches = this.launches(device);
    const known = launches?.find(call);
    const refused: string[] = [];
    for (;;) {
      const kernel = known?.kernel ?? routeGpu(copyOp.op, [from], {}, [to], this.switches, device, refused);
      const launch = known?.launch ?? kernel?.launch([from], [to], {}, device) ?? identityLaunch(from, to, device);
      const name = kernel?.name ?? generatedName(launch.steps[0] as GpuStep);
      if (known || gpu.ready(launch, name, refused)) {
        if (kernel && !known) launches?.add(call, { kernel, tuned: undefined, layouts: undefined, launch, refused: [] });
        this.launchGpu(launch, [from], [to], kernel?.name ?? "vulkan/generated");
        return;
      }
      if (!kernel) throw opError("copy", `no kernel can run this: ${refused.join("; ")}`);
    }
  }
  private launchGpu(launch: GpuLaunch, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[], name: string): void {
    this.gpuRecorder().launch(launch, inputs, outputs, name);
  }
  /** The op of a GPU stream goes to the CPU. */
  private fallBack(node: Node, refused: readonly string[]): void {
    this.planner?.refuse(`${node.op.name} runs on the CPU: ${refused.length > 0 ? refused.join("; ") : "it has no kernel for the GPU"}`);
    if (this.switches.strict) throw opError(node.op.name, `MLX_STRICT: would run on the CPU: ${refused.length > 0 ? refused.join("; ") : "it has no kernel for the GPU"}`);
    stats.fallbacks++;
    this.onGpu = false;
  }

  private elementwise(item: Item): void {
    const { node, absorbed = [], stored = [] } = item;
    const outs = [node, ...stored].map((n) => n.outputs[0] as ArrayDesc);
    const [out] = outs as [ArrayDesc];
    const leaves: ArrayDesc[] = [];
    const builder = new GroupBuilder(node, absorbed, leaves);
    if (absorbed.length > 0) {
      stats.fusedGroups++;
      stats.absorbedNodes += absorbed.length;
      stats.storedNodes += stored.length;
    }
    // Views are taken before placing the outputs: taking over an input's buffer must not change what the kernel reads.
    const inputs: GroupInput[] = leaves.map((d) => ({ dtype: d.dtype, strides: broadcastStrides(d, out.shape) }));
    const group: Group = { shape: out.shape, inputs, outputs: outs.map((d) => ({ dtype: d.dtype, value: d === out ? builder.value : builder.of(d) })), expr };
    const refused: string[] = [];
    const step = this.onGpu && out.size > 0 ? this.generated(group, [...leaves, ...outs], refused) : undefined;
    if (this.onGpu && out.size > 0 && !step) this.fallBack(node, refused);
    this.placeElementwise(leaves, outs);
    let kernel = this.onGpu ? "vulkan/generated" : "wasm/generated";
    if (step) this.launchGpu({ steps: [step] }, leaves, outs, kernel);
    else if (out.size > 0 && this.switches.disabled(kernel)) {
      refused.push(`${kernel}: disabled by MLX_DISABLE`);
      kernel = "interpreter";
      this.interpret(group, leaves, outs);
    } else if (out.size > 0) this.recorder.launch(elementwiseLaunch(group), leaves, outs);
    this.report(node, kernel, refused, absorbed);
  }
  /** Products of one array: in one launch, or one after the other. */
  private siblings(nodes: readonly [Node, ...Node[]]): void {
    const [first, ...others] = nodes;
    for (const n of nodes) for (const d of n.inputs) if (d.epoch) settled(d);
    this.onGpu = true;
    const gpu = this.gpuRecorder();
    const planned = planSiblings(nodes, this.switches, gpu.backend.device);
    if (!planned || closedKernels.has(planned.kernel) || !gpu.ready(planned.launch, planned.kernel, [])) {
      for (const node of nodes) this.item({ node, absorbed: undefined, stored: undefined });
      return;
    }
    const outs = nodes.map((n) => n.outputs[0] as ArrayDesc);
    if (this.kept || this.planner) for (const d of planned.operands) this.recorder.reads(d);
    stats.siblingLaunches++;
    try {
      for (const o of outs) this.allocate(o);
      this.launchGpu(planned.launch, planned.operands, outs, planned.kernel);
    } catch (error) {
      for (const o of outs) dropStorage(o);
      throw error;
    }
    this.report(first, planned.kernel, [], others);
    for (const o of outs) o.node = undefined;
    for (const n of nodes) this.detach(n);
  }
  /** A product with the group that finishes it, or undefined when the two have to be computed one after the other. */
  private plannedEpilogue(item: Item): PlannedEpilogue | undefined {
    const { node, absorbed = [], epilogue } = item;
    this.onGpu = true;
    const leaves: ArrayDesc[] = [];
    const { value } = new GroupBuilder(node, absorbed.filter((n) => n !== epilogue), leaves);
    const gpu = this.gpuRecorder();
    const planned = planEpilogue(item, value, leaves, this.switches, gpu.backend.device, (d) => d, this.launches(gpu.backend.device));
    return planned && gpu.ready(planned.launch, closedName(planned.launch), []) ? planned : undefined;
  }
  private epilogue({ node, absorbed = [] }: Item, { kernel, launch, operands, donors }: PlannedEpilogue): void {
    stats.productEpilogues++;
    stats.absorbedNodes += absorbed.length;
    this.placeElementwise(donors, node.outputs);
    this.launchGpu(launch, operands, node.outputs, kernel);
    this.report(node, kernel, [], absorbed);
  }
  /** A row group and how it is computed, or the reason why it has to be computed in parts. */
  private plannedRows(item: Item): PlannedRows | string {
    this.onGpu = item.node.stream.device.type === "gpu";
    const outs = [item.node, ...(item.stored ?? [])].map((n) => n.outputs[0] as ArrayDesc);
    const { group, leaves } = rowGroup(item, outs, (d) => d);
    if (!this.onGpu) {
      const launch = group.order ? columnsLaunch(group, this.switches.forced("wasm/generated-columns")) : rowsLaunch(group, this.switches.forced("wasm/generated-rows"));
      return typeof launch === "string" ? launch : { group, leaves, outs, launch };
    }
    const gpu = this.gpuRecorder();
    const gpuLaunch = gpuRowsLaunch(group, gpu.backend.device, [...leaves, ...outs].map(alignedPart));
    if (typeof gpuLaunch === "string") return gpuLaunch;
    const names = gpuLaunch.steps.map(generatedName);
    const closed = names.map((n) => closedKernels.get(n)).find((why) => why !== undefined);
    if (closed !== undefined) return closed;
    const refused: string[] = [];
    if (!gpu.ready(gpuLaunch, names[0] as string, refused)) return refused[0] as string;
    return { group, leaves, outs, gpuLaunch };
  }
  private rows({ node, absorbed = [], stored = [] }: Item, { group, leaves, outs, launch, gpuLaunch }: PlannedRows): void {
    stats.fusedGroups++;
    stats.rowGroups++;
    stats.absorbedNodes += absorbed.length;
    stats.storedNodes += stored.length;
    const kernel = `${this.onGpu ? "vulkan" : "wasm"}/generated-${group.order ? "columns" : "rows"}`;
    if (group.order) stats.columnGroups++;
    this.placeElementwise(leaves, outs.filter((_, j) => !group.outputs[j]?.perRow));
    for (const [j, out] of outs.entries()) if (group.outputs[j]?.perRow) this.allocate(out);
    if (launch) this.recorder.launch(launch, leaves, outs);
    else if (gpuLaunch) this.launchGpu(gpuLaunch, leaves, outs, kernel);
    this.report(node, kernel, [], absorbed);
  }
  /** Outputs lie over inputs that are not needed any more, each over another one. */
  private placeElementwise(leaves: readonly ArrayDesc[], outs: readonly ArrayDesc[]): void {
    const taken = new Set<ArrayDesc>();
    for (const out of outs) {
      const donor = leaves.find((d) => !taken.has(d) && d.contiguous && d.size === out.size && d.dtype.size === out.dtype.size && this.reusable(d));
      if (donor) {
        taken.add(donor);
        this.takeOver(donor, out);
      } else this.allocate(out);
    }
  }
  /** In JavaScript, on the calling thread, once all that was recorded has run. */
  private interpret(group: Group, leaves: readonly ArrayDesc[], outs: readonly ArrayDesc[]): void {
    this.planner?.refuse("elementwise ops are interpreted");
    if (this.kept) this.kept.refused ??= "elementwise ops are interpreted";
    const place = (d: ArrayDesc): Place => {
      d.storage?.needHost();
      const words = d.storage ? undefined : Int32Array.from(scalarBits(d));
      return { data: new DataView(words?.buffer ?? hostMemory().bytes(0, 1).buffer), at: words ? 0 : d.address };
    };
    for (const d of leaves) d.storage?.needHost();
    hostMemory().quiesce();
    interpretGroup(group, leaves.map(place), outs.map(place));
    for (const d of outs) d.storage?.wroteHost();
  }

  private generated(group: Group, operands: readonly ArrayDesc[], refused: string[]): GpuStep | undefined {
    const gpu = this.gpuRecorder();
    const step = generatedClosed(this.switches) ?? elementwiseStep(group, gpu.backend.device, operands.map(alignedPart));
    if (typeof step === "string") refused.push(`vulkan/generated: ${step}`);
    else {
      const name = generatedName(step);
      const closed = closedKernels.get(name);
      if (closed !== undefined) refused.push(`${name}: ${closed}`);
      else if (gpu.ready({ steps: [step] }, name, refused)) return step;
    }
    return undefined;
  }

  /** True when the node being recorded is the last that can see this array's bytes. A recording that runs again needs its inputs unchanged. */
  reusable(d: ArrayDesc): boolean {
    return this.kept === undefined && this.donatable(d);
  }
  donatable(d: ArrayDesc): boolean {
    return d.handles === 0 && d.consumers === 1 && d.storage !== undefined && d.storage.refs === (this.recorder.holds(d.storage) || this.gpu?.holds(d.storage) ? 2 : 1) && d.offset === 0;
  }
  /** True when the bytes began in this recording. */
  private makes(d: ArrayDesc): boolean {
    return d.storage !== undefined && (this.recorder.makes(d.storage) || this.gpu?.holds(d.storage) === true);
  }
  private takeOver(from: ArrayDesc, out: ArrayDesc): void {
    out.attach(from.storage as Storage);
    stats.donations++;
  }

  private structured(node: Node): void {
    const refused: string[] = [];
    while (!this.tryStructured(node, refused)) {
      // The kernel that was chosen is closed now, so another one will be.
    }
  }
  /** False when the GPU's kernel turned out not to work; nothing was recorded of it then. */
  private tryStructured(node: Node, refused: string[]): boolean {
    const { op, params, inputs, outputs } = node;
    const device = this.onGpu ? this.gpuRecorder().backend.device : undefined;
    const launches = device && this.launches(device);
    const known = launches?.find(node);
    if (known) refused.push(...known.refused);
    const onDevice = known ?? (device && routeTunedGpu(op, inputs, params, outputs, this.switches, device, refused));
    const gpuKernel = onDevice?.kernel;
    const routed = onDevice ?? this.cpuKernel(node, refused);
    if (!routed) {
      this.composite(node, refused);
      return true;
    }
    const { kernel, tuned } = routed;
    const layouts = known ? known.layouts : layoutsOf(kernel, inputs, params);
    const { operands, temporaries } = this.arranged(layouts, inputs);
    try {
      const work = outputs.some((o) => o.size > 0);
      // Described before the outputs are placed: placing may give an input's buffer away.
      const launch = known?.launch ?? (gpuKernel && device && work ? gpuKernel.launch(operands, outputs, params, device, tuned?.values) : undefined);
      if (launch && gpuKernel && !known) {
        if (!this.ready(launch, kernel.name, tuned, refused)) {
          this.table = undefined;
          return false;
        }
        launches?.add(node, { kernel: gpuKernel, tuned, layouts, launch, refused: [...refused] });
      }
      this.placeOutputs(kernel, operands, outputs);
      if (launch) this.launchGpu(launch, operands, outputs, kernel.name);
      else if (!gpuKernel && (outputs.length > 1 || work) && this.recorder.launch((kernel as Kernel).launch(operands, outputs, params, tuned?.values), operands, outputs)) stats.together++;
    } finally {
      for (const t of temporaries) releaseDesc(t);
    }
    this.report(node, kernel.name, refused, [], tuned);
    return true;
  }
  /** True when the launch can be made. A choice that was measured is dropped where not, and the kernel itself closed only without one. */
  private ready(launch: GpuLaunch, name: string, tuned: Tuned | undefined, refused: string[]): boolean {
    const gpu = this.gpuRecorder();
    if (!tuned || gpu.backend.refusal(launch) === undefined) return gpu.ready(launch, name, refused);
    dropTuned(tuned);
    return false;
  }
  /** The inputs in the layouts that the kernel wants; copies that had to be made for it are the caller's to release. */
  private arranged(layouts: readonly InputLayout[] | undefined, inputs: readonly ArrayDesc[]): { operands: readonly ArrayDesc[]; temporaries: readonly ArrayDesc[] } {
    const temporaries: ArrayDesc[] = [];
    let operands: ArrayDesc[] = inputs as ArrayDesc[];
    for (let i = 0; i < inputs.length; i++) {
      const d = inputs[i] as ArrayDesc;
      const want = layouts ? (layouts[Math.min(i, layouts.length - 1)] ?? "row") : "row";
      if (satisfies(d, want)) continue;
      const c = this.contiguousCopy(d);
      if (operands === inputs) operands = inputs.slice();
      operands[i] = c;
      temporaries.push(c);
    }
    return { operands, temporaries };
  }
  /** Launches that are known for the device; looked up once. */
  private launches(device: GpuDevice): Launches | undefined {
    this.table ??= { launches: Launches.of(device) };
    return this.table.launches;
  }
  private table: { readonly launches: Launches | undefined } | undefined;
  /** The CPU's kernel: for an op of a GPU stream only where there is neither a kernel nor a definition for the GPU. */
  private cpuKernel(node: Node, refused: string[]): Routed<Kernel> | undefined {
    const { op, params, inputs, outputs } = node;
    if (this.onGpu && op.composite) return undefined;
    if (this.onGpu) this.fallBack(node, refused);
    return routeTuned(op, inputs, params, outputs, this.switches, refused);
  }

  private placeOutputs(kernel: Kernel | GpuKernel, operands: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): void {
    const bases = new Map<number, number>("bases" in kernel ? kernel.bases : undefined);
    if (kernel.base !== undefined) bases.set(0, kernel.base);
    for (let i = 0; i < outputs.length; i++) {
      const out = outputs[i] as ArrayDesc;
      const from = bases.get(i);
      if (from !== undefined) this.startAs(kernel.name, operands[from] as ArrayDesc, out);
      else if (i > 0 || !this.placeOver(kernel, operands, out)) this.allocate(out);
    }
  }
  /** Puts the output where one of the inputs lies that it may be written over. */
  private placeOver(kernel: Kernel | GpuKernel, operands: readonly ArrayDesc[], out: ArrayDesc): boolean {
    const donor = kernel.inPlace?.map((i) => operands[i] as ArrayDesc).find((d) => d.contiguous && d.size * d.dtype.size === out.size * out.dtype.size && this.reusable(d));
    if (donor) this.takeOver(donor, out);
    return donor !== undefined;
  }
  /** An output that begins as a copy of an input: the input's own buffer when nobody else can see it. */
  private startAs(name: string, base: ArrayDesc, out: ArrayDesc): void {
    this.storeConstant(base);
    // A temporary copy made for the layout is ours as well: it has no handle and no reader.
    if (base.contiguous && ((base.handles === 0 && base.consumers === 0) || this.donatable(base))) {
      this.takeOver(base, out);
      return;
    }
    // What the recording itself makes may be copied each time; a cache must be written in place.
    if (this.kept && !this.makes(base)) this.kept.refused ??= `${name} updates an array that is used elsewhere, so it can not work in place`;
    this.allocate(out);
    this.copy(base, out);
  }

  /** Runs an op through its definition in other ops, as part of the same list. */
  private composite(node: Node, refused: readonly string[]): void {
    const { op, outputs } = node;
    if (!op.composite) throw opError(op.name, `no kernel can run this: ${refused.length > 0 ? refused.join("; ") : "it has none for this backend"}`);
    stats.composites++;
    const results = definitionOf(node);
    const { onGpu } = this;
    this.record(tapeOf(results.map((r) => r.desc)));
    this.onGpu = onGpu;
    outputs.forEach((o, i) => {
      const r = (results[i] as MxArray).desc;
      this.storeConstant(r);
      o.place(r.storage as Storage, r.strides, r.offset);
      o.epoch = r.epoch;
    });
    for (const r of results) r.dispose();
    this.report(node, "composite", refused, []);
  }
}

/** What a node computes as other ops of the same stream: its op must have such a definition. */
export function definitionOf({ op, params, inputs, stream: own }: Node): readonly MxArray[] {
  const scope = stream(own);
  try {
    return tidy(() => (op.composite as NonNullable<typeof op.composite>)(inputs.map((d) => new MxArray(d)), params));
  } finally {
    scope[Symbol.dispose]();
  }
}

const copyKernel = copyOp.op.kernels[0] as Kernel;

/** True when the operand begins at a multiple of 16 bytes; storages begin at multiples of 256. */
export const alignedPart = (d: View): boolean => (d.offset * d.dtype.size) % 16 === 0;

/** A generated kernel by name, for `closedKernels`: one that the driver can not make says nothing about the others. */
const generatedName = (step: GpuStep): string => `vulkan/generated/${(step.shader as GeneratedShader).key}`;

/** A copy as a generated kernel. */
function identityLaunch(from: ArrayDesc, to: ArrayDesc, device: GpuDevice): GpuLaunch {
  const group: Group = { shape: to.shape, inputs: [{ dtype: from.dtype, strides: broadcastStrides(from, to.shape) }], outputs: [{ dtype: to.dtype, value: expr.input(0, from.dtype) }], expr };
  const step = elementwiseStep(group, device);
  if (typeof step === "string") throw opError("copy", step);
  return { steps: [step] };
}

function dropStorage(d: ArrayDesc): void {
  const { storage } = d;
  d.storage = undefined;
  storage?.release();
}

/** Throws the error of failed work; forgets work that is over. */
function settled(d: ArrayDesc): void {
  if (!d.epoch?.done) return;
  d.epoch.wait();
  d.epoch = undefined;
}

const layoutsOf = (kernel: Kernel | GpuKernel, inputs: readonly View[], params: object): readonly InputLayout[] | undefined =>
  typeof kernel.layout === "function" ? kernel.layout(inputs, params) : kernel.layout;

/** Strides of an input over the iteration space it is broadcast to. */
export function broadcastStrides(d: View, shape: readonly number[]): readonly number[] {
  const lead = shape.length - d.shape.length;
  if (lead === 0 && d.contiguous && d.shape.every((n, i) => n === shape[i])) return d.strides;
  const strides = new Array<number>(shape.length).fill(0);
  for (let i = 0; i < d.shape.length; i++) if (d.shape[i] !== 1) strides[lead + i] = d.strides[i] as number;
  return strides;
}

/** Expression of a node with the formulas of the nodes it absorbed; the remaining inputs are numbered in `leaves`. */
export class GroupBuilder {
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
  /** Value of an input of the group's nodes, or of what one of them computes. */
  of(d: ArrayDesc): Value {
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

let evaluating = 0;
/** True while a graph is being recorded: ops applied meanwhile belong to an op's definition. */
export const isEvaluating = (): boolean => evaluating > 0;

/** Evaluates arrays. Synchronous: returns when the results can be read. Asynchronous: returns the epoch of the submitted work. */
export function evaluate(targets: readonly ArrayDesc[], asynchronous = false, kept?: Kept): Epoch | undefined {
  for (const t of targets) storeScalar(t);
  const tape = tapeOf(targets);
  if (tape.length === 0) return undefined;
  if (beforeGpu && tape.some((n) => n.stream.device.type === "gpu")) {
    const first = beforeGpu;
    beforeGpu = undefined;
    try {
      untuned(first);
    } catch (error) {
      beforeGpu = first;
      throw error;
    }
  }
  // Inside another evaluation, inputs may be recorded and not yet computed.
  if (evaluating === 0) tuneFor(tape);
  const evaluation = new Evaluation(asynchronous, kept);
  if (evaluation.debug >= 3 && describePlan) process.stderr.write(`${describePlan(targets)}\n`);
  stats.evaluations++;
  for (const t of tracers) t.begin?.();
  evaluating++;
  try {
    evaluation.record(tape);
    if (evaluation.gpu) kept?.after?.(evaluation.gpu);
  } finally {
    evaluating--;
    // What was recorded before an error has left the graph, so it must run for later reads to be right.
    evaluation.flush(true);
    for (const t of tracers) t.end?.();
    stats.commands += evaluation.recorder.commands;
    stats.dispatches += evaluation.gpu?.commands ?? 0;
    if (kept && evaluation.gpu && evaluation.recorder.commands > 0) kept.refused ??= "parts of it run on the CPU and parts on the GPU";
    if (evaluation.debug >= 1) process.stderr.write(`eval: ${tape.length} ops, ${evaluation.recorder.commands} commands${evaluation.gpu ? `, ${evaluation.gpu.commands} dispatches` : ""}${asynchronous ? ", asynchronous" : ""}\n`);
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
