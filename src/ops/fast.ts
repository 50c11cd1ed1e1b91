/** The namespace mx.fast. */
export { scaledDotProductAttention } from "./attention.ts";
export { type KernelFunction, type KernelMath, type KernelSpec, kernel } from "./kernel.ts";
export { layerNorm, rmsNorm } from "./norm.ts";
export { rope } from "./rope.ts";
