import type { Variants } from "../variant.ts";

export const variants: Variants = {
  rope_f32: { source: "rope.comp", defines: { T: 0 } },
  rope_f16: { source: "rope.comp", defines: { T: 1 } },
  rope_bf16: { source: "rope.comp", defines: { T: 2 } },
};
