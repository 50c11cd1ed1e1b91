import type { Variants } from "../variant.ts";

export const variants: Variants = {
  bits: { source: "bits.comp" },
  bits_bytes: { source: "bits.comp", defines: { BYTES: 1 } },
  key: { source: "key.comp" },
};
