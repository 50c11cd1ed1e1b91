import type { Variants } from "../variant.ts";

/** Elements of up to 32 bits or of 64; alone or with their indices. */
const each = (name: string): Variants =>
  Object.fromEntries(
    [["", {}], ["_pairs", { PAIRS: 1 }], ["_wide", { WIDE: 1 }], ["_wide_pairs", { WIDE: 1, PAIRS: 1 }]].map(([suffix, defines]) => [
      `${name}${suffix}`,
      { source: `${name}.comp`, defines: defines as Readonly<Record<string, number>> },
    ]),
  );

export const variants: Variants = { ...each("blocks"), ...each("merge") };
