import type { Variants } from "../variant.ts";

const types = { f32: 0, f16: 1, bf16: 2 } as const;
/** One build of a source per element type. */
const each = (name: string, source: string, defines: Readonly<Record<string, string | number>> = {}): Variants =>
  Object.fromEntries(Object.entries(types).map(([suffix, T]) => [`${name}_${suffix}`, { source, defines: { T, ...defines } }]));

export const variants: Variants = {
  ...each("tiled4", "tiled.comp", { R: 4 }),
  ...each("tiled8", "tiled.comp", { R: 8 }),
  ...each("gemv", "gemv.comp"),
  ...each("gemv_siblings", "gemv.comp", { SIBLINGS: 1 }),
  ...each("gevm", "gevm.comp"),
  ...each("sum", "sum.comp"),
  ...each("tiled4e", "tiled.comp", { R: 4, EPILOGUE: 1 }),
  ...each("tiled8e", "tiled.comp", { R: 8, EPILOGUE: 1 }),
  ...each("gemve", "gemv.comp", { EPILOGUE: 1 }),
  ...each("gevme", "gevm.comp", { EPILOGUE: 1 }),
  ...each("sume", "sum.comp", { EPILOGUE: 1 }),
  coopmate_f16: { source: "coopmat.comp", defines: { T: 1, EPILOGUE: 1 } },
  coopmate_bf16: { source: "coopmat.comp", defines: { T: 2, EPILOGUE: 1 } },
  coopmat_f16: { source: "coopmat.comp", defines: { T: 1 } },
  coopmat_bf16: { source: "coopmat.comp", defines: { T: 2 } },
};
