/** `explain`: which kernel would compute each op of a graph, and why the others would not, on both devices. Nothing runs. */
import type { ArrayDesc, MxArray, View } from "../core/array.ts";
import { type Value, expr } from "../core/expr.ts";
import type { GpuDevice } from "../core/gpu.ts";
import type { Kernel, Layout, Node } from "../core/op.ts";
import { formatShape, isContiguous, rowStrides } from "../core/shape.ts";
import { gpuStatus, vulkanBackend } from "../backend/vulkan/index.ts";
import { elementwiseStep } from "../codegen/elementwise-spirv.ts";
import { columnsLaunch } from "../codegen/columns-wasm.ts";
import { rowsLaunch as gpuRowsLaunch } from "../codegen/rows-spirv.ts";
import { rowsLaunch } from "../codegen/rows-wasm.ts";
import { type Switches, type Verdict, check, checkGpu, generatedClosed, readSwitches, satisfies } from "../schedule/gate.ts";
import { type Item, fuse, tapeOf } from "../schedule/plan.ts";
import { epilogueJoiner, planEpilogue } from "../schedule/epilogue.ts";
import { productJoiner } from "../schedule/residual.ts";
import { keepStatistics } from "../schedule/statistics.ts";
import { rowGroup, rowsGrower } from "../schedule/rows.ts";
import { type Routed, routeTuned, routeTunedGpu, tunedText } from "../schedule/tune.ts";
import { GroupBuilder, alignedPart, broadcastStrides, definitionOf, descsOf } from "../schedule/run.ts";

/** What one device would do with an op. */
interface Choice {
  /** Name of the kernel; undefined when none is open. */
  readonly kernel: string | undefined;
  readonly layout: Kernel["layout"];
  readonly refused: readonly string[];
  /** What was measured led to it, with these parameters. */
  readonly tuned?: string | undefined;
}

const withNames = (absorbed: readonly Node[]): string => (absorbed.length > 0 ? ` with ${absorbed.map((n) => n.op.name).join(" ")}` : "");
const formatView = (d: View): string => `${d.dtype}${formatShape(d.shape)}${d.contiguous ? "" : ` strides ${formatShape(d.strides)}`}${d.offset === 0 ? "" : ` offset ${d.offset}`}`;

class Explainer {
  readonly lines: string[] = [];
  private readonly switches: Switches = readSwitches();
  private readonly gpu: GpuDevice | undefined;
  /** Why there is no GPU. */
  private readonly noGpu: string = "";
  /** Where arrays would lie that are not row-major. */
  private readonly views = new Map<ArrayDesc, View>();
  private depth = 0;

  constructor() {
    const status = gpuStatus();
    if (status.available) this.gpu = vulkanBackend().device;
    else this.noGpu = status.reason;
  }
  private say(text: string): void {
    this.lines.push(`${"  ".repeat(this.depth)}${text}`);
  }
  private of(d: ArrayDesc): View {
    return this.views.get(d) ?? d;
  }

  tape(tape: readonly Node[]): void {
    const join = productJoiner(this.switches, () => this.gpu);
    const finish = epilogueJoiner(this.switches, () => this.gpu);
    const enabled = this.switches.fuse && !this.switches.check;
    for (const item of fuse(enabled ? keepStatistics(tape, this.switches) : tape, enabled, rowsGrower(this.switches, join), join, finish)) this.item(item);
  }
  private item(item: Item): void {
    if (item.rows) {
      this.rows(item);
      return;
    }
    if (item.epilogue) {
      this.epilogue(item);
      return;
    }
    const { node, absorbed = [], product } = item;
    const { op, outputs } = node;
    const fused = product ? ` for ${product.op.name} and add` : withNames(absorbed);
    const leaves: ArrayDesc[] = [];
    const value = op.expr && !op.view ? new GroupBuilder(node, absorbed, leaves).value : undefined;
    const inputs = value ? leaves : node.inputs;
    this.say(`${op.name}${fused}: ${inputs.map((d) => formatView(this.of(d))).join(", ")} -> ${outputs.map(formatView).join(", ")} [${node.stream.device.type}]`);
    if (op.view) this.view(node);
    else if (value) this.elementwise(node, value, leaves);
    else this.structured(node);
  }

  private inParts({ node, absorbed = [], stored = [] }: Item): void {
    const outs = [node, ...stored].map((n) => n.outputs[0] as ArrayDesc);
    for (const part of fuse(tapeOf(outs).filter((n) => n === node || absorbed.includes(n)), true)) this.item(part);
  }
  /** Elementwise ops that a product's kernel computes as it stores its result. */
  private epilogue(item: Item): void {
    const { node, absorbed = [], epilogue } = item;
    const leaves: ArrayDesc[] = [];
    const { value } = new GroupBuilder(node, absorbed.filter((n) => n !== epilogue), leaves);
    const planned = this.gpu && planEpilogue(item, value, leaves, this.switches, this.gpu, (d) => this.of(d));
    if (!planned) {
      this.inParts(item);
      return;
    }
    this.say(`${node.op.name}${withNames(absorbed)}: ${planned.operands.map((d) => formatView(this.of(d))).join(", ")} -> ${node.outputs.map(formatView).join(", ")} [gpu]`);
    this.say(`  gpu: ${planned.kernel}`);
  }

  private rows(item: Item): void {
    const { node, absorbed = [], stored = [] } = item;
    const outs = [node, ...stored].map((n) => n.outputs[0] as ArrayDesc);
    const { group, leaves } = rowGroup(item, outs, (d) => this.of(d));
    const onGpu = node.stream.device.type === "gpu";
    const made = onGpu ? this.gpu && gpuRowsLaunch(group, this.gpu, [...leaves, ...outs].map((d) => alignedPart(this.of(d)))) : group.order ? columnsLaunch(group, this.switches.forced("wasm/generated-columns")) : rowsLaunch(group, this.switches.forced("wasm/generated-rows"));
    if (made === undefined || typeof made === "string") {
      if (made !== undefined) this.say(`${node.op.name}${withNames(absorbed)}: in parts; refused: ${onGpu ? "vulkan" : "wasm"}/generated-${group.order ? "columns" : "rows"}: ${made}`);
      this.inParts(item);
      return;
    }
    this.say(`${node.op.name}${withNames(absorbed)}: ${leaves.map((d) => formatView(this.of(d))).join(", ")} -> ${outs.map(formatView).join(", ")} [${node.stream.device.type}]`);
    this.say(`  ${onGpu ? "gpu: vulkan" : "cpu: wasm"}/generated-${group.order ? "columns" : "rows"}`);
  }

  private view(node: Node): void {
    const source = this.of(node.inputs[0] as ArrayDesc);
    const out = node.outputs[0] as ArrayDesc;
    const direct = node.op.view?.(source, node.params);
    const layout = direct ?? node.op.view?.(dense(source), node.params);
    this.say(`  both: a view${direct ? ", no work" : " of a row-major copy"}`);
    if (layout) this.place(out, layout);
  }
  private place(d: ArrayDesc, { strides, offset }: Layout): void {
    this.views.set(d, { shape: d.shape, dtype: d.dtype, size: d.size, strides, offset, contiguous: isContiguous(d.shape, strides) });
  }

  private elementwise(node: Node, value: Value, leaves: readonly ArrayDesc[]): void {
    const out = node.outputs[0] as ArrayDesc;
    const views = leaves.map((d) => this.of(d));
    const group = { shape: out.shape, inputs: views.map((d) => ({ dtype: d.dtype, strides: broadcastStrides(d, out.shape) })), outputs: [{ dtype: out.dtype, value }], expr };
    const step = this.gpu && (generatedClosed(this.switches) ?? elementwiseStep(group, this.gpu, [...views, out].map(alignedPart)));
    const refused = typeof step === "string" ? [`vulkan/generated: ${step}`] : [];
    const gpu: Choice | undefined = this.gpu && { kernel: refused.length > 0 ? undefined : "vulkan/generated", layout: undefined, refused };
    this.choices(node, { kernel: "wasm/generated", layout: undefined, refused: [] }, gpu);
  }

  private structured(node: Node): void {
    const { op, params, outputs } = node;
    const inputs = node.inputs.map((d) => this.of(d));
    const cpu = choose(op.kernels, routeTuned(op, inputs, params, outputs, this.switches, []), (k) => check(k, inputs, params, outputs, this.switches));
    const device = this.gpu;
    const gpu = device && choose(op.gpu ?? [], routeTunedGpu(op, inputs, params, outputs, this.switches, device, []), (k) => checkGpu(k, inputs, params, outputs, this.switches, device));
    this.choices(node, cpu, gpu);
    const onGpu = node.stream.device.type === "gpu";
    const mine = onGpu ? gpu : cpu;
    if (mine?.kernel !== undefined) this.copies(inputs, mine, node);
    else if (op.composite) this.composite(node);
    else if (onGpu && cpu.kernel !== undefined) this.copies(inputs, cpu, node);
  }
  /** One line per device. */
  private choices(node: Node, cpu: Choice, gpu: Choice | undefined): void {
    const { composite } = node.op;
    const describe = (c: Choice, otherwise: string): string => `${c.kernel ?? (composite ? "by its definition in other ops" : otherwise)}${c.tuned ? ` (${c.tuned})` : ""}${c.refused.length > 0 ? `; refused: ${c.refused.join("; ")}` : ""}`;
    this.say(`  cpu: ${describe(cpu, "no kernel")}`);
    this.say(`  gpu: ${gpu ? describe(gpu, `falls back to the CPU${gpu.refused.length > 0 ? "" : ", it has no kernel for the GPU"}`) : `not available: ${this.noGpu}`}`);
  }
  /** Inputs that must be copied first. */
  private copies(inputs: readonly View[], choice: Choice, node: Node): void {
    const layouts = typeof choice.layout === "function" ? choice.layout(inputs, node.params) : choice.layout;
    inputs.forEach((d, i) => {
      const want = layouts ? (layouts[Math.min(i, layouts.length - 1)] ?? "row") : "row";
      if (!satisfies(d, want)) this.say(`  input ${i} is copied first: the kernel wants ${want === "row" ? "it row-major" : "its last dimension dense"}`);
    });
  }
  /** The ops that an op is made of. The graph is put together and taken apart again. */
  private composite(node: Node): void {
    const results = definitionOf(node);
    this.depth += 2;
    this.tape(tapeOf(results.map((r) => r.desc)));
    this.depth -= 2;
    node.outputs.forEach((o, i) => this.place(o, this.of((results[i] as MxArray).desc)));
    for (const r of results) r.dispose();
  }
}

function choose<K extends { readonly name: string; readonly layout?: unknown }>(kernels: readonly K[], routed: Routed<K> | undefined, verdict: (k: K) => Verdict): Choice {
  const refused: string[] = [];
  for (const k of kernels) {
    const v = verdict(k);
    if (!v.open && k !== routed?.kernel) refused.push(`${k.name}: ${v.why}`);
  }
  return { kernel: routed?.kernel.name, layout: routed?.kernel.layout as Kernel["layout"], refused, tuned: routed?.tuned && tunedText(routed.tuned) };
}
const dense = (d: View): View => ({ shape: d.shape, dtype: d.dtype, size: d.size, strides: rowStrides(d.shape), offset: 0, contiguous: true });

/**
 * Says for each op that the arrays in the trees still need which kernel would run, on the CPU and on the GPU, and why the others would not. Computes nothing
 * and leaves the graph as it is.
 */
export function explain(...trees: unknown[]): string {
  const tape = tapeOf(descsOf(trees));
  if (tape.length === 0) return "nothing is left to compute";
  const explainer = new Explainer();
  explainer.tape(tape);
  return explainer.lines.join("\n");
}
