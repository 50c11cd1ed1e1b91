/** Products of few rows of one array, in one launch on the GPU: their kernels are bound by what a launch costs and by how few workgroups each has. */
import type { ArrayDesc, View } from "../core/array.ts";
import type { GpuDevice, GpuLaunch } from "../core/gpu.ts";
import type { Node } from "../core/op.ts";
import { sizeOf } from "../core/shape.ts";
import { gemvSiblings, mostDenseSiblings } from "../ops/matmul-gpu.ts";
import { fewGpuRows, launchQmvSiblings, mostSiblings } from "../ops/quantized-gpu.ts";
import type { ProductParams } from "../ops/quantized-launch.ts";
import { type Switches, satisfies } from "./gate.ts";
import type { SiblingRule } from "./siblings.ts";
import { routeTunedGpu } from "./tune.ts";

const outOf = (node: Node): ArrayDesc => node.outputs[0] as ArrayDesc;
const rowsOf = (shape: readonly number[]): number => sizeOf(shape.slice(0, -1));
/** Packed in the same way. */
function samePacking(a: object, b: object): boolean {
  const [p, q] = [a as Partial<ProductParams>, b as Partial<ProductParams>];
  return p.transpose === q.transpose && p.bits === q.bits && p.groupSize === q.groupSize && p.mode === q.mode;
}
const sameDtypes = (a: Node, b: Node): boolean => a.inputs.length === b.inputs.length && a.inputs.every((d, i) => d.dtype === b.inputs[i]?.dtype);
/** A matrix on the right, and few rows on the left. */
const fewRows = ({ inputs: [x, w] }: Node): boolean => (x as ArrayDesc).shape.length > 1 && (w as ArrayDesc).shape.length === 2 && rowsOf((x as ArrayDesc).shape) <= fewGpuRows;

const rule: SiblingRule = {
  ops: new Set(["matmul", "quantizedMatmul"]),
  most: Math.min(mostSiblings, mostDenseSiblings),
  device: "gpu",
  fits: (a, b) => b.stream === a.stream && outOf(a).size > 0 && outOf(b).size > 0 && fewRows(a) && fewRows(b) && sameDtypes(a, b) && samePacking(a.params, b.params),
};
/** What may be joined, or undefined with `vulkan/siblings` in MLX_DISABLE. */
export const gpuSiblings = (switches: Switches): SiblingRule | undefined => (switches.disabled("vulkan/siblings") ? undefined : rule);

/** Kernels of which there is a build for siblings. */
const kernels: ReadonlySet<string> = new Set(["vulkan/quantized/qmv", "vulkan/quantfloat/qmv", "vulkan/matmul/gemv"]);

export interface PlannedSiblings {
  readonly kernel: string;
  readonly launch: GpuLaunch;
  /** The left operand, then the others of each product. */
  readonly operands: readonly ArrayDesc[];
}
/** The launch of all products, or undefined when one of them has another kernel than the one for few rows, or an operand lies so that it must be copied. */
export function planSiblings(nodes: readonly Node[], switches: Switches, device: GpuDevice): PlannedSiblings | undefined {
  const names = nodes.map(({ op, inputs, params, outputs }) => {
    const routed = routeTunedGpu(op, inputs, params, outputs, switches, device, []);
    const layouts = typeof routed?.kernel.layout === "function" ? routed.kernel.layout(inputs, params) : routed?.kernel.layout;
    const fits = inputs.every((d, i) => d.storage !== undefined && satisfies(d, layouts?.[Math.min(i, layouts.length - 1)] ?? "row"));
    return routed && !routed.tuned && fits ? routed.kernel.name : "";
  });
  const [kernel] = names as [string];
  const [first] = nodes as [Node];
  if (!kernels.has(kernel) || names.some((n) => n !== kernel)) return undefined;
  const operands = [first.inputs[0] as ArrayDesc, ...nodes.flatMap((n) => n.inputs.slice(1))];
  const outs: readonly View[] = nodes.map(outOf);
  const launch = first.op.name === "matmul" ? gemvSiblings(operands, outs, device) : launchQmvSiblings(operands, outs, first.params as ProductParams, device);
  return launch && { kernel: `${kernel}+siblings`, launch, operands };
}
