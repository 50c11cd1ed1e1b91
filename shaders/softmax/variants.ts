import type { Variants } from "../variant.ts";

const types = { f32: 0, f16: 1, bf16: 2 } as const;
const builds = {
  softmax: ["softmax.comp", {}],
  logsumexp: ["softmax.comp", { LOGARITHM: 1 }],
  part: ["chunks.comp", { PART: 1 }],
  part_log: ["chunks.comp", { PART: 1, LOGARITHM: 1 }],
  scale: ["chunks.comp", {}],
  log: ["chunks.comp", { LOGARITHM: 1 }],
} as const;

export const variants: Variants = Object.fromEntries(
  Object.entries(builds).flatMap(([name, [source, defines]]) => Object.entries(types).map(([type, T]) => [`${name}_${type}`, { source, defines: { T, ...defines } }])),
);
