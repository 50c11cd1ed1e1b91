import type { Variants } from "../variant.ts";

const units = [1, 2, 4, 8, 16];
/** One build per unit, `<name>_<unit>`. */
const each = (name: string, sizes: readonly number[], source: string, defines: Readonly<Record<string, number>> = {}): Variants =>
  Object.fromEntries(sizes.map((UNIT) => [`${name}_${UNIT}`, { source, defines: { UNIT, ...defines } }]));

export const variants: Variants = {
  flat: { source: "flat.comp" },
  ...each("strided", units, "strided.comp"),
  ...each("tabled", units, "strided.comp", { TABLE: 1 }),
  fill: { source: "fill.comp" },
  range: { source: "range.comp" },
  range_doubles: { source: "range.comp", defines: { DOUBLES: 1 } },
  ...each("pad", units, "pad.comp"),
  ...each("joined", units, "joined.comp"),
  ...each("band", [1, 2, 4, 8], "band.comp"),
  ...each("tiles", [1, 2, 4, 8], "tiles.comp"),
};
