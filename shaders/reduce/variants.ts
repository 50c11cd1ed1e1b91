import type { Variant, Variants } from "../variant.ts";

const build = (SIZE: number, TO: number, more: Variant["defines"] = {}): Variant => ({ source: "reduce.comp", defines: { SIZE, TO, ...more } });
const sizes = [1, 2, 4, 8] as const;
const bySize = (name: string, make: (size: number) => Variant): Variants => Object.fromEntries(sizes.map((size) => [`${name}_${size}`, make(size)]));

const macros = { int: {}, float: { FLOATING: 1 }, double: { DOUBLE: 1 }, extreme: { EXTREME: 1 } } as const;
const scanned: readonly (readonly [keyof typeof macros, number, number])[] = [
  ["int", 1, 1], ["int", 2, 2], ["int", 4, 4], ["int", 8, 8], ["int", 1, 4], ["float", 4, 4], ["float", 2, 2], ["double", 8, 8],
  ["extreme", 1, 1], ["extreme", 2, 2], ["extreme", 4, 4], ["extreme", 8, 8],
];
const scans: Variants = Object.fromEntries(
  scanned.flatMap(([family, SIZE, TO]) =>
    [true, false].map((part) => [
      `scan_${part ? "part_" : ""}${family}_${family === "extreme" ? SIZE : `${SIZE}_${TO}`}`,
      { source: "scan.comp", defines: { SIZE, TO, ...macros[family], ...(part ? { PART: 1 } : {}) } },
    ]),
  ),
);

/** Names end in the bytes of an element, sums in those of input and output. */
export const variants: Variants = {
  ...scans,
  ...Object.fromEntries(([[4, 4], [2, 4], [2, 2], [4, 2]] as const).map(([from, to]) => [`sum_float_${from}_${to}`, build(from, to, { FLOATING: 1 })])),
  ...Object.fromEntries(([[1, 4], [2, 4], [4, 4], [8, 8]] as const).map(([from, to]) => [`sum_int_${from}_${to}`, build(from, to)])),
  sum_double_8_8: build(8, 8, { DOUBLE: 1 }),
  ...bySize("extreme", (size) => build(size, size, { EXTREME: 1 })),
  ...bySize("truth", (size) => build(size, 1, { TRUTH: 1 })),
  ...bySize("arg", (size) => build(size, 4, { ARG: 1 })),
  ...bySize("arg_part", (size) => build(size, 4, { ARG: 1, TO_PAIRS: 1 })),
  arg_last_4: build(4, 4, { ARG: 1, FROM_PAIRS: 1 }),
  arg_last_8: build(8, 4, { ARG: 1, FROM_PAIRS: 1 }),
};
