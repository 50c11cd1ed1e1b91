import type { Variants } from "../variant.ts";

export const variants: Variants = {
  rms_f32: { source: "norm.comp", defines: { T: 0 } },
  rms_f16: { source: "norm.comp", defines: { T: 1 } },
  rms_bf16: { source: "norm.comp", defines: { T: 2 } },
  layer_f32: { source: "norm.comp", defines: { T: 0, LAYER: 1 } },
  layer_f16: { source: "norm.comp", defines: { T: 1, LAYER: 1 } },
  layer_bf16: { source: "norm.comp", defines: { T: 2, LAYER: 1 } },
};
