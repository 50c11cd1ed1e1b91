/** Every build of every shader: `<family>/<variant>`. A family is a folder with its sources and its table. */
import { variants as attention } from "./attention/variants.ts";
import { variants as copy } from "./copy/variants.ts";
import { variants as decode } from "./decode/variants.ts";
import { variants as gather } from "./gather/variants.ts";
import { variants as matmul } from "./matmul/variants.ts";
import { variants as norm } from "./norm/variants.ts";
import { variants as quantized } from "./quantized/variants.ts";
import { variants as random } from "./random/variants.ts";
import { variants as reduce } from "./reduce/variants.ts";
import { variants as replay } from "./replay/variants.ts";
import { variants as rope } from "./rope/variants.ts";
import { variants as softmax } from "./softmax/variants.ts";
import { variants as sort } from "./sort/variants.ts";
import type { Variant, Variants } from "./variant.ts";

const families: Readonly<Record<string, Variants>> = { attention, copy, decode, gather, matmul, norm, quantized, random, reduce, replay, rope, softmax, sort };

/** All variants by name. */
export const variants: ReadonlyMap<string, Variant & { readonly family: string }> = new Map(
  Object.entries(families).flatMap(([family, table]) => Object.entries(table).map(([name, v]) => [`${family}/${name}`, { ...v, family }] as const)),
);
