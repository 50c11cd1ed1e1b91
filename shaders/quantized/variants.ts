import type { Variant, Variants } from "../variant.ts";

const allBits = [2, 3, 4, 5, 6, 8];
/** A build for every width of the packed integers: `<name>_<bits>`. */
const perBits = (name: string, source: string, defines: Variant["defines"] = {}): Variants =>
  Object.fromEntries(allBits.map((bits) => [`${name}_${bits}`, { source, defines: { BITS: bits, ...defines } }]));

export const variants: Variants = {
  ...perBits("qmv", "qmv.comp"),
  ...perBits("gather_qmv", "qmv.comp", { GATHER: 1 }),
  ...perBits("qvm", "qvm.comp"),
  ...perBits("gather_qvm", "qvm.comp", { GATHER: 1 }),
  ...perBits("quantize", "quantize.comp"),
  ...perBits("dequantize", "dequantize.comp"),
  sum: { source: "sum.comp" },
  mm_tiled_f32: { source: "mm_tiled.comp", defines: { T: 0 } },
  mm_tiled_f16: { source: "mm_tiled.comp", defines: { T: 1 } },
  mm_tiled_bf16: { source: "mm_tiled.comp", defines: { T: 2 } },
  mm_coopmat_f16: { source: "mm_coopmat.comp", defines: { T: 1 } },
  mm_coopmat_bf16: { source: "mm_coopmat.comp", defines: { T: 2 } },
};
