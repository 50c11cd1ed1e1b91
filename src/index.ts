/** The public surface: `core` (also `mx`), `nn`, `optimizers`, `utils`. */
export * as core from "./mx.ts";
export * as mx from "./mx.ts";
export type { Dtype, MxArray } from "./mx.ts";
export * as nn from "./nn/index.ts";
export * as optimizers from "./optimizers/index.ts";
export * as utils from "./trees.ts";
