import type { Variants } from "../variant.ts";

/** One build per unit, `<name>_<unit>`. */
const each = (name: string, source: string, defines: Readonly<Record<string, number>> = {}): Variants =>
  Object.fromEntries([1, 2, 4, 8, 16].map((UNIT) => [`${name}_${UNIT}`, { source, defines: { UNIT, ...defines } }]));

export const variants: Variants = {
  ...each("move", "move.comp"),
  ...each("move_table", "move.comp", { TABLE: 1 }),
  combine: { source: "combine.comp" },
  combine_table: { source: "combine.comp", defines: { TABLE: 1 } },
  serial: { source: "serial.comp" },
  masked_count: { source: "masked.comp", defines: { UNIT: 4, COUNT: 1 } },
  ...each("masked", "masked.comp"),
};
