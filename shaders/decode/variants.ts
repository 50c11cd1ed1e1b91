import type { Variants } from "../variant.ts";

const types = { f32: 0, f16: 1, bf16: 2 } as const;
/** What comes before and after the product: project.comp's INTO and AFTER. */
const products = { normProject: [0, 0], normGateUp: [0, 2], projectAdd: [1, 1], combineProjectAdd: [2, 1] } as const;

const projections = (type: string, T: number): Variants =>
  Object.fromEntries(
    Object.entries(products).flatMap(([name, [INTO, AFTER]]) => [
      [`${name}_${type}`, { source: "project.comp", defines: { T, INTO, AFTER } }],
      [`${name}_dense_${type}`, { source: "project.comp", defines: { T, INTO, AFTER, DENSE: 1 } }],
    ]),
  );
const others = (type: string, T: number): Variants => ({
  [`attention_${type}`]: { source: "attention.comp", defines: { T } },
  [`embed_${type}`]: { source: "embed.comp", defines: { T } },
  [`embed_dense_${type}`]: { source: "embed.comp", defines: { T, DENSE: 1 } },
  [`best_${type}`]: { source: "choose.comp", defines: { T, STEP: 0 } },
  [`advance_${type}`]: { source: "choose.comp", defines: { T, STEP: 1 } },
});

export const variants: Variants = Object.assign({ given: { source: "given.comp" } }, ...Object.entries(types).map(([type, T]) => ({ ...projections(type, T), ...others(type, T) }))) as Variants;
