import type { Variants } from "../variant.ts";

export const variants: Variants = {
  keep: { source: "keep.comp" },
};
