import type { Variant, Variants } from "../variant.ts";

const allBits = [2, 3, 4, 5, 6, 8];
/** A build for every width of the packed integers: `<name>_<bits>`. */
const perBits = (name: string, source: string, defines: Variant["defines"] = {}): Variants =>
  Object.fromEntries(allBits.map((bits) => [`${name}_${bits}`, { source, defines: { BITS: bits, ...defines } }]));

const modes: readonly (readonly [name: string, bits: number])[] = [["mxfp4", 4], ["nvfp4", 4], ["mxfp8", 8]];
/** A build for every mode of small floats: `<name>_<mode>`. */
const perMode = (name: string, source: string, defines: Variant["defines"] = {}): Variants =>
  Object.fromEntries(modes.map(([mode, bits], i) => [`${name}_${mode}`, { source, defines: { BITS: bits, FLOATS: i + 1, ...defines } }]));

export const variants: Variants = {
  ...perBits("qmv", "qmv.comp"),
  ...perBits("qmv_siblings", "qmv.comp", { SIBLINGS: 1 }),
  ...perBits("qmve", "qmv.comp", { EPILOGUE: 1 }),
  ...perBits("gather_qmv", "qmv.comp", { GATHER: 1 }),
  ...perBits("qvm", "qvm.comp"),
  ...perBits("gather_qvm", "qvm.comp", { GATHER: 1 }),
  ...perBits("quantize", "quantize.comp"),
  ...perBits("dequantize", "dequantize.comp"),
  ...perMode("qmv", "qmv.comp"),
  ...perMode("qmv_siblings", "qmv.comp", { SIBLINGS: 1 }),
  ...perMode("gather_qmv", "qmv.comp", { GATHER: 1 }),
  ...perMode("qvm", "qvm.comp"),
  ...perMode("gather_qvm", "qvm.comp", { GATHER: 1 }),
  ...perMode("quantize", "quantize_floats.comp"),
  ...perMode("dequantize", "dequantize.comp"),
  mm_small_f32: { source: "mm_tiled.comp", defines: { T: 0, SMALL: 1 } },
  mm_small_f16: { source: "mm_tiled.comp", defines: { T: 1, SMALL: 1 } },
  mm_small_bf16: { source: "mm_tiled.comp", defines: { T: 2, SMALL: 1 } },
  sum: { source: "sum.comp" },
  sume: { source: "sum.comp", defines: { EPILOGUE: 1 } },
  mm_tilede_f32: { source: "mm_tiled.comp", defines: { T: 0, EPILOGUE: 1 } },
  mm_tilede_f16: { source: "mm_tiled.comp", defines: { T: 1, EPILOGUE: 1 } },
  mm_tilede_bf16: { source: "mm_tiled.comp", defines: { T: 2, EPILOGUE: 1 } },
  mm_tiled_f32: { source: "mm_tiled.comp", defines: { T: 0 } },
  mm_tiled_f16: { source: "mm_tiled.comp", defines: { T: 1 } },
  mm_tiled_bf16: { source: "mm_tiled.comp", defines: { T: 2 } },
  mm_coopmat_f16: { source: "mm_coopmat.comp", defines: { T: 1 } },
  mm_coopmat_bf16: { source: "mm_coopmat.comp", defines: { T: 2 } },
};
