import type { Variant, Variants } from "../variant.ts";

const types = ["f32", "f16", "bf16"];
const build = (name: string): [string, Variant][] => types.map((type, T) => [`${name}_${type}`, { source: `${name}.comp`, defines: { T } }]);

export const variants: Variants = Object.fromEntries([...["decode", "combine", "tiles"].flatMap(build), ...build("matrix").slice(1)]);
