/**
 * Groups of elementwise nodes that a product's GPU kernel computes as it stores its result: bias, activation, residual connection, multiplication with another array, without a
 * pass of their own. The product is rounded to its dtype before them, as a result that is stored would be: the outcome is the same, bit for bit.
 */
import type { ArrayDesc, View } from "../core/array.ts";
import { float32 } from "../core/dtype.ts";
import { type Value, expr as e, reachable } from "../core/expr.ts";
import { type GpuDevice, type GpuLaunch, mostEpilogueOperands } from "../core/gpu.ts";
import type { Node, Op } from "../core/op.ts";
import { type Shape, sameShape } from "../core/shape.ts";
import { epilogueOf, withEpilogue } from "../codegen/epilogue-spirv.ts";
import { type EpilogueOperand, type ProductEpilogue, matmulEpilogue } from "../ops/matmul-gpu.ts";
import type { ProductParams } from "../ops/quantized-launch.ts";
import { quantizedEpilogue } from "../ops/quantized-mm-gpu.ts";
import { type Switches, closedKernels, generatedClosed, satisfies } from "./gate.ts";
import type { Call, Known, Launches } from "./launches.ts";
import type { Item, JoinEpilogue } from "./plan.ts";
import { routeTunedGpu } from "./tune.ts";

/** Kernels that end with an epilogue, for many rows and for few. */
const manyRows = ["vulkan/matmul/tiled", "vulkan/matmul/coopmat", "vulkan/quantized/mm_tiled", "vulkan/quantized/mm_unpacked"];
const fewRows: ReadonlySet<string> = new Set(["vulkan/matmul/gemv", "vulkan/quantized/qmv"]);
const finishing: ReadonlySet<string> = new Set([...manyRows, ...fewRows]);
/** Inputs that are the product's own; what comes after them is added (addmm). */
const operandCounts: Readonly<Record<string, number>> = { matmul: 2, addmm: 2, quantizedMatmul: 4 };
const dtypes: ReadonlySet<string> = new Set(["float32", "float16", "bfloat16"]);

/** How an array of this shape lies in a product's result, or undefined when kernels can not read it there. */
function kindOf(shape: Shape, result: Shape): EpilogueOperand | undefined {
  if (sameShape(shape, result)) return "result";
  if (shape.every((n) => n === 1)) return "value";
  const last = shape.length - 1;
  return shape.length <= result.length && shape[last] === result[result.length - 1] && shape.every((n, i) => i === last || n === 1) ? "row" : undefined;
}
const outOf = (node: Node): ArrayDesc => node.outputs[0] as ArrayDesc;

/** The product with a result like that of the group, its own operands, and what it adds. */
function productOf(d: ArrayDesc, out: ArrayDesc): Node | undefined {
  const p = d.node;
  const count = p && operandCounts[p.op.name];
  if (!p || count === undefined || p.stream.device.type !== "gpu" || !sameShape(d.shape, out.shape) || d.dtype !== out.dtype) return undefined;
  const { alpha = 1, beta = 1, mode } = p.params as { alpha?: number; beta?: number; mode?: string };
  const [x, w] = p.inputs as [ArrayDesc, ArrayDesc];
  return alpha === 1 && beta === 1 && !mode && x.shape.length > 1 && w.shape.length > 1 ? p : undefined;
}
const ownInputs = (p: Node): readonly ArrayDesc[] => p.inputs.slice(0, operandCounts[p.op.name]);
const addedTo = (p: Node): readonly ArrayDesc[] => p.inputs.slice(operandCounts[p.op.name]);

/** The product that a group of elementwise nodes finishes: nobody else sees its result, and all else that the group reads can be read by the product's kernel. */
function finishedProduct(item: Item, gone: ReadonlySet<Node>): Node | undefined {
  const out = outOf(item.node);
  if (item.stored || item.node.stream.device.type !== "gpu" || out.shape.length < 2 || out.size === 0 || !dtypes.has(out.dtype.name)) return undefined;
  const inside = new Set<Node>([item.node, ...(item.absorbed ?? [])]);
  const reads = new Map<ArrayDesc, number>();
  for (const n of inside) for (const d of n.inputs) if (!d.node || !inside.has(d.node)) reads.set(d, (reads.get(d) ?? 0) + 1);
  for (const [d, times] of reads) {
    const p = productOf(d, out);
    if (!p || d.storage || d.handles > 0 || d.readers > 0 || d.consumers !== times || gone.has(p)) continue;
    const others = [...addedTo(p), ...[...reads.keys()].filter((x) => x !== d)];
    if (others.length <= mostEpilogueOperands && others.every((x) => x.dtype === out.dtype && kindOf(x.shape, out.shape))) return p;
  }
  return undefined;
}

/** The group reads another product of the same array (silu(x A) * x B). Kernels of few rows run side by side; finishing one of them would make it wait for the other. */
function waitsForSibling(p: Node, { node, absorbed = [] }: Item): boolean {
  const sibling = ({ node: n }: ArrayDesc): boolean => n !== undefined && n !== p && operandCounts[n.op.name] !== undefined && n.inputs[0] === p.inputs[0];
  return [node, ...absorbed].some((n) => n.inputs.some(sibling));
}

/** Keys of what is kept about products in tables of launches: which kernel runs one, and how one with an epilogue is launched. */
const routes: ReadonlyMap<string, Op> = new Map(Object.keys(operandCounts).map((name) => [name, { name } as Op]));
const finished: ReadonlyMap<string, Op> = new Map(Object.keys(operandCounts).map((name) => [name, { name } as Op]));
/** The kernel that runs a matmul, addmm or quantizedMatmul. */
export function productKernel(p: Node, switches: Switches, device: GpuDevice, launches: Launches | undefined): Pick<Known, "kernel" | "tuned"> | undefined {
  const call: Call = { op: routes.get(p.op.name) as Op, params: p.params, inputs: p.inputs, outputs: p.outputs };
  const known = launches?.find(call);
  if (known) return known;
  const routed = routeTunedGpu(p.op, p.inputs, p.params, p.outputs, switches, device, []);
  if (routed) launches?.add(call, { kernel: routed.kernel, tuned: routed.tuned, layouts: undefined, launch: { steps: [] }, refused: [] });
  return routed;
}

/** What joins groups of elementwise nodes with the products that they finish, or undefined with `vulkan/epilogue` in MLX_DISABLE. `device` is asked for where there is such a group. */
export function epilogueJoiner(switches: Switches, device: () => GpuDevice | undefined, launches?: (device: GpuDevice) => Launches | undefined): JoinEpilogue | undefined {
  if (switches.disabled("vulkan/epilogue") || switches.disabled("vulkan/generated")) return undefined;
  return (item, gone) => {
    const p = finishedProduct(item, gone);
    const gpu = p && device();
    if (!p || !gpu || generatedClosed(switches) !== undefined) return;
    const kernel = productKernel(p, switches, gpu, launches?.(gpu))?.kernel.name;
    if (kernel === undefined || !finishing.has(kernel) || (fewRows.has(kernel) && waitsForSibling(p, item))) return;
    item.absorbed = [...(item.absorbed ?? []), p];
    item.epilogue = p;
    gone.add(p);
    // The group has its place, and the product has it too now.
    for (const d of p.inputs) d.readers--;
  };
}

/** A product with its epilogue, ready to run. */
export interface PlannedEpilogue {
  readonly kernel: string;
  readonly launch: GpuLaunch;
  readonly operands: readonly ArrayDesc[];
  /** Those that the result may be written over: each of its elements is read by the invocation that writes it, before that. */
  readonly donors: readonly ArrayDesc[];
}

/** The group's formula over the product's element, input 0, and the further operands, inputs from 1 on. */
function formulaOf(value: Value, leaves: readonly ArrayDesc[], operands: readonly ArrayDesc[], result: ArrayDesc, adds: boolean): Value {
  const own = e.input(0, float32);
  const product = e.narrow(adds ? e.add(own, e.input(1, float32)) : own, result.dtype);
  const made = new Map<Value, Value>();
  const place = (d: ArrayDesc): Value => (d === result ? product : e.input(1 + operands.lastIndexOf(d), float32));
  for (const v of reachable([value])) made.set(v, v.op === "input" ? place(leaves[Number(v.imm)] as ArrayDesc) : e.again(v, v.args.map((a) => made.get(a) as Value)));
  return made.get(value) as Value;
}

/**
 * How the product of an item computes its group, or undefined when it has to be computed in parts. `value` is the group's formula without the product, over `leaves`; `of`
 * gives where arrays lie.
 */
export function planEpilogue(item: Item, value: Value, leaves: readonly ArrayDesc[], switches: Switches, device: GpuDevice, of: (d: ArrayDesc) => View, launches?: Launches): PlannedEpilogue | undefined {
  const p = item.epilogue as Node;
  const [out, result] = [outOf(item.node), outOf(p)];
  const own = ownInputs(p);
  const operands = [...addedTo(p), ...leaves.filter((d) => d !== result)];
  const inputs = [...own, ...operands].map(of);
  const call: Call = { op: finished.get(p.op.name) as Op, params: { product: p.params, formula: value.id, at: leaves.indexOf(result) }, inputs: inputs as ArrayDesc[], outputs: [out] };
  const known = launches?.find(call);
  const kinds = operands.map((d) => kindOf(d.shape, out.shape) as EpilogueOperand);
  const made = known ?? launchOf(p, formulaOf(value, leaves, operands, result, addedTo(p).length > 0), { own: own.length, inputs, kinds }, out, switches, device);
  if (!made || closedKernels.has(closedName(made.launch))) return undefined;
  if (!known) launches?.add(call, made);
  return { kernel: `${made.kernel.name}+epilogue`, launch: made.launch, operands: [...own, ...operands], donors: operands.filter((_, k) => kinds[k] === "result") };
}

/** The launch of a product with what finishes it, or undefined. Of the inputs the first `own` are the product's, those behind them of these kinds. */
function launchOf(p: Node, formula: Value, { own, inputs, kinds }: { own: number; inputs: readonly View[]; kinds: readonly EpilogueOperand[] }, out: ArrayDesc, switches: Switches, device: GpuDevice): Known | undefined {
  const routed = routeTunedGpu(p.op, [...inputs.slice(0, own), ...inputs.slice(own, p.inputs.length)], p.params, p.outputs, switches, device, []);
  if (!routed || !finishing.has(routed.kernel.name)) return undefined;
  const { kernel, tuned } = routed;
  const layouts = typeof kernel.layout === "function" ? kernel.layout(inputs.slice(0, own), p.params) : kernel.layout;
  if (!inputs.slice(0, own).every((v, i) => satisfies(v, layouts ? (layouts[Math.min(i, layouts.length - 1)] ?? "row") : "row"))) return undefined;
  if (kinds.some((kind, k) => kind !== "value" && !(inputs[own + k] as View).contiguous)) return undefined;
  const made = epilogueOf(formula, device);
  if (typeof made === "string") return undefined;
  const finish: ProductEpilogue = { kinds, shader: (build) => withEpilogue(build, made, device) };
  const launch =
    p.op.name === "quantizedMatmul"
      ? quantizedEpilogue(kernel.name, inputs, [out], p.params as ProductParams, finish, device, tuned?.values)
      : matmulEpilogue(kernel.name, inputs, [out], finish, device, tuned?.values);
  return typeof launch === "string" ? undefined : { kernel, tuned, layouts: undefined, launch, refused: [] };
}
/** For `closedKernels`: a driver that can not make one says nothing about the others. */
export const closedName = (launch: GpuLaunch): string => `vulkan/epilogue/${launch.steps.map(({ shader }) => (typeof shader === "string" ? "" : shader.key)).join("")}`;
