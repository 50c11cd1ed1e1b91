/**
 * Sums that a product's kernel makes as it stores its result, instead of a pass of their own: on the GPU those of ops/residual-gpu.ts, on the CPU those of quantized products of
 * many rows. Dense products on the CPU stay apart: adding in the store was measured to take as long, or longer where the left operand need not be packed otherwise.
 */
import type { ArrayDesc, MxArray } from "../core/array.ts";
import type { GpuDevice } from "../core/gpu.ts";
import { type Node, type Op, ops } from "../core/op.ts";
import { add } from "../ops/binary.ts";
import { residualOf } from "../ops/residual-gpu.ts";
import { quantizedMatmul } from "../ops/quantized.ts";
import { type Switches, route, routeGpu } from "./gate.ts";
import type { Item, JoinProduct } from "./plan.ts";
import { productKernel } from "./epilogue.ts";
import type { Launches } from "./launches.ts";
import { routeTuned } from "./tune.ts";

/** `quantizedMatmul` with a further input that is added. Where no kernel of it is open, its definition is computed. */
let packedSum: Op | undefined;
function packedOp(product: Op): Op {
  packedSum ??= {
    ...product,
    name: "quantizedAddmm",
    kernels: product.kernels.filter((k) => k.name === "wasm/quantized/qmmHalf"),
    composite: (inputs, params) => {
      const [x, w, scales, biases, c] = inputs as [MxArray, MxArray, MxArray, MxArray, MxArray];
      const { transpose, groupSize, bits } = params as { transpose: boolean; groupSize: number; bits: number };
      return [add(quantizedMatmul(x, w, scales, biases, transpose, groupSize, bits), c)];
    },
  };
  return packedSum;
}

/**
 * A node that computes what this sum does, the product in it included, in one kernel; undefined when the sum has no product that nobody else can see, or no kernel takes its
 * addend. The caller leaves the product's node out.
 */
export function productWithAddend(sum: Node): { readonly node: Node; readonly product: Node } | undefined {
  const [out] = sum.outputs as [ArrayDesc];
  if (sum.op.name !== "add") return undefined;
  for (const [at, other] of [[0, 1], [1, 0]] as const) {
    const [d, addend] = [sum.inputs[at], sum.inputs[other]] as [ArrayDesc, ArrayDesc];
    const product = d.node;
    if (!product || d.storage || d.handles > 0 || d.consumers !== 1 || product.stream.device !== sum.stream.device || product.inputs.includes(d)) continue;
    if (d.shape.length !== out.shape.length || d.shape.some((n, i) => n !== out.shape[i])) continue;
    const residual = residualOf({ name: product.op.name, params: product.params }, d, addend);
    if (!residual) continue;
    const op = product.op.name === "matmul" ? (ops.get("addmm") as Op) : { ...packedOp(product.op), gpu: residual.kernels };
    return { node: { op, params: residual.params, inputs: [...product.inputs, addend], outputs: sum.outputs, stream: sum.stream }, product };
  }
  return undefined;
}

/**
 * Kernels that add an array for nothing. Products of few rows have others; those of matrix units store 16 bytes at a time only where nothing is added, and take sums as
 * epilogues (epilogue.ts).
 */
const paying: ReadonlySet<string> = new Set(["vulkan/matmul/tiled", "vulkan/quantized/mm_tiled"]);

/** True when the kernel that would compute the product computes the sum as well. What was measured for the product (tune.ts) says nothing about the sum. */
function pays(node: Node, product: Node, switches: Switches, device: GpuDevice, launches: Launches | undefined): boolean {
  const own = productKernel(product, switches, device, launches);
  if (!own || own.tuned || !paying.has(own.kernel.name)) return false;
  return routeGpu(node.op, node.inputs, node.params, node.outputs, switches, device, [])?.name === own.kernel.name;
}

/** The same on the CPU, for an addend that needs no copy. */
function paysOnCpu(node: Node, product: Node, switches: Switches): boolean {
  const addend = node.inputs[node.inputs.length - 1] as ArrayDesc;
  // How a view lies is not known before it is computed.
  if (product.op.name !== "quantizedMatmul" || !addend.contiguous || (!addend.storage && addend.node?.op.view)) return false;
  const own = routeTuned(product.op, product.inputs, product.params, product.outputs, switches, []);
  return own !== undefined && !own.tuned && route(node.op, node.inputs, node.params, node.outputs, switches, [])?.name === own.kernel.name;
}

/**
 * What joins products with the sums that they are part of; `vulkan/residual` and `wasm/residual` in MLX_DISABLE leave them apart. `device` is asked for where there is such a
 * sum on the GPU.
 */
export function productJoiner(switches: Switches, device: () => GpuDevice | undefined, launches?: (device: GpuDevice) => Launches | undefined): JoinProduct | undefined {
  const open = { gpu: !switches.disabled("vulkan/residual"), cpu: !switches.disabled("wasm/residual") };
  if (!open.gpu && !open.cpu) return undefined;
  const find = (sum: Node, gone: ReadonlySet<Node>): ReturnType<typeof productWithAddend> => {
    const { type } = sum.stream.device;
    const found = open[type] ? productWithAddend(sum) : undefined;
    if (!found || gone.has(found.product)) return undefined;
    const gpu = type === "gpu" ? device() : undefined;
    const paid = type === "gpu" ? gpu !== undefined && pays(found.node, found.product, switches, gpu, launches?.(gpu)) : paysOnCpu(found.node, found.product, switches);
    return paid ? found : undefined;
  };
  const join = (sum: Node, gone: Set<Node>): Item | undefined => {
    const found = find(sum, gone);
    if (!found) return undefined;
    gone.add(found.product);
    // The sum has its place, and the product has it too now.
    for (const d of found.product.inputs) d.readers--;
    return { node: found.node, absorbed: undefined, stored: undefined, product: found.product };
  };
  return Object.assign(join, { would: (sum: Node, gone: ReadonlySet<Node>): boolean => find(sum, gone) !== undefined });
}
