/** The namespace mx.fast. */
export { scaledDotProductAttention } from "./attention.ts";
export { layerNorm, rmsNorm } from "./norm.ts";
export { rope } from "./rope.ts";
