/**
 * Products whose GPU kernels can add an array as they store their result, D = A B + C: the residual connection or the bias of a layer without a pass of its own.
 * The sum is rounded once, where two ops would round the product too.
 */
import type { Aval } from "../core/array.ts";
import type { GpuKernel } from "../core/gpu.ts";
import { gpuMatmul } from "./matmul-gpu.ts";
import { gpuQuantizedResidual } from "./quantized-mm-gpu.ts";

export interface Residual {
  /** The inputs are those of the product, then the addend; in order of preference. */
  readonly kernels: readonly GpuKernel[];
  readonly params: object;
}

/** How `product` (an op's name and parameters) with this result is computed with `addend` added to it, or undefined when no kernel does that. */
export function residualOf(product: { readonly name: string; readonly params: object }, result: Aval, addend: Aval): Residual | undefined {
  if (addend.dtype !== result.dtype || result.dtype.kind !== "float") return undefined;
  const [from, to] = [addend.shape, result.shape];
  if (product.name === "matmul") {
    const fits = from.length <= to.length && from.every((d, i) => d === 1 || d === to[to.length - from.length + i]);
    return fits ? { kernels: gpuMatmul, params: { alpha: 1, beta: 1 } } : undefined;
  }
  if (product.name !== "quantizedMatmul" || (product.params as { mode?: string }).mode) return undefined;
  const equal = from.length === to.length && from.every((d, i) => d === to[i]);
  return equal ? { kernels: gpuQuantizedResidual as readonly GpuKernel[], params: product.params } : undefined;
}
