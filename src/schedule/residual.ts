/** Sums that a product's GPU kernel makes as it stores its result, instead of a pass of their own (ops/residual-gpu.ts). */
import type { ArrayDesc, MxArray } from "../core/array.ts";
import { type Node, type Op, ops } from "../core/op.ts";
import { add } from "../ops/binary.ts";
import { residualOf } from "../ops/residual-gpu.ts";
import { quantizedMatmul } from "../ops/quantized.ts";

/** `quantizedMatmul` with a further input that is added. Where no kernel of it is open, its definition is computed. */
let packedSum: Op | undefined;
function packedOp(product: Op): Op {
  packedSum ??= {
    ...product,
    kernels: [],
    composite: (inputs, params) => {
      const [x, w, scales, biases, c] = inputs as [MxArray, MxArray, MxArray, MxArray, MxArray];
      const { transpose, groupSize, bits } = params as { transpose: boolean; groupSize: number; bits: number };
      return [add(quantizedMatmul(x, w, scales, biases, transpose, groupSize, bits), c)];
    },
  };
  return packedSum;
}

/**
 * A node that computes what this sum does, the product in it included, in one kernel on the GPU; undefined when the sum has no product that nobody else can see, or no
 * kernel takes its addend. For sums on the GPU; the caller leaves the product's node out.
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
