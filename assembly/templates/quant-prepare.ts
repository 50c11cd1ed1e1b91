/**
 * Preparation of activations: each group of a row becomes integers x = scale * v, split into planes of 7 bits for the int8 dot product
 * (relaxed build) or into 16-bit planes (plain build), in the order in which weights are unpacked.
 */
import { type Planes, byteOrder, halfOrder, lines, pairedOrder, range } from "./quant-layout.ts";

/** Largest |v|. 8-bit weights need unsigned planes, which leave one bit less. */
export const largest = (order: number, planes: Planes): number =>
  order === 3 ? (planes === 2 ? 8191 : 1048575) : planes === 2 ? 127 * 128 : 127 * 16384;

/** 16-bit vectors q0..q7 of integers (4 each) narrowed to `n0..n3` (8 each). */
const narrow16 = (q: (i: number) => string, n: string): string[] => range(4).map((i) => `const ${n}${i} = i16x8.narrow_i32x4_s(${q(2 * i)}, ${q(2 * i + 1)});`);

/** A vector of 8 lanes picked from the 32 lanes of n0..n3. */
function pick16(n: string, ks: readonly number[]): string {
  const from = (a: number): string => `v128.shuffle<i16>(${n}${a}, ${n}${a + 1}, ${ks.map((k) => (k >> 4 === a >> 1 ? k & 15 : 0)).join(", ")})`;
  return `v128.shuffle<i16>(${from(0)}, ${from(2)}, ${ks.map((k, i) => (k >> 4) * 8 + i).join(", ")})`;
}

/** Statements that store a vector: in one piece, or its 32-bit lanes 16 bytes apart (four rows interleaved, for tiles). */
const put = (tile: boolean, index: number, d: string, value: string, name: string): string[] =>
  tile
    ? [`const ${name} = ${value};`, ...range(4).map((l) => `v128.store32_lane(${d}, ${name}, ${l}, ${(index * 4 + l) * 16});`)]
    : [`v128.store(${d}, ${value}, ${index * 16});`];

/** Bytes between the two vectors of a block of one plane: in pairs of blocks, vectors of one kind lie next to each other. */
const vectorGap = (order: number): number => (order === pairedOrder ? 2 : 1);

function relaxedPlanes(order: number, planes: Planes, tile: boolean): string[] {
  const out: string[] = [];
  const split = (p: number): ((i: number) => string) => {
    if (order === 3) {
      const shift = 7 * (planes - 1 - p);
      const moved = (i: number): string => (shift ? `i32x4.shr_u(u${i}, ${shift})` : `u${i}`);
      return (i) => (p === 0 ? moved(i) : `v128.and(${moved(i)}, i32x4.splat(127))`);
    }
    if (planes === 2) return (i) => (p === 0 ? `h${i}` : `i32x4.sub(v${i}, i32x4.shl(h${i}, 7))`);
    return (i) => (p === 0 ? `t${i}` : p === 1 ? `i32x4.sub(h${i}, i32x4.shl(t${i}, 7))` : `i32x4.sub(v${i}, i32x4.shl(h${i}, 7))`);
  };
  for (const i of range(8)) {
    if (order === 3) out.push(`const u${i} = i32x4.add(v${i}, i32x4.splat(${planes === 2 ? 8192 : 1048576}));`);
    else out.push(`const h${i} = i32x4.shr_s(i32x4.add(v${i}, i32x4.splat(64)), 7);`);
    if (order !== 3 && planes === 3) out.push(`const t${i} = i32x4.shr_s(i32x4.add(h${i}, i32x4.splat(64)), 7);`);
  }
  const vectors = byteOrder(order);
  for (const p of range(planes)) {
    const n = `n${p}`;
    out.push(...narrow16(split(p), n), `const l${p} = i8x16.narrow_i16x8_s(${n}0, ${n}1), m${p} = i8x16.narrow_i16x8_s(${n}2, ${n}3);`);
    vectors.forEach((ks, v) => {
      const whole = ks.every((k, i) => k === ks[0] as number + i);
      const value = whole ? (v === 0 ? `l${p}` : `m${p}`) : `i8x16.shuffle(l${p}, m${p}, ${ks.join(", ")})`;
      out.push(...put(tile, v * vectorGap(order), `d + ${p} * plane`, value, `s${p}${v}`));
    });
  }
  return out;
}

function plainPlanes(order: number, planes: Planes, tile: boolean): string[] {
  const out: string[] = [];
  if (planes === 3) {
    // Upper plane in units of 128, lower plane the rest: the sums of the relaxed build's upper two planes and of its last one.
    for (const i of range(8)) out.push(`const h${i} = i32x4.shr_s(${order === 3 ? `v${i}` : `i32x4.add(v${i}, i32x4.splat(64))`}, 7);`);
  }
  const parts = planes === 2 ? [(i: number) => `v${i}`] : [(i: number) => `h${i}`, (i: number) => `i32x4.sub(v${i}, i32x4.shl(h${i}, 7))`];
  parts.forEach((part, p) => {
    out.push(...narrow16(part, `n${p}`));
    halfOrder(order).forEach((ks, v) => out.push(...put(tile, v, `d + ${p} * plane`, pick16(`n${p}`, ks), `s${p}${v}`)));
  });
  return out;
}

/** Where the integers go: a row for itself, or four rows interleaved in bytes (relaxed build) or in 16-bit lanes. */
type Target = "row" | "bytes" | "halves";
const suffixes: Readonly<Record<Target, string>> = { row: "", bytes: "t", halves: "h" };

/**
 * `group<order>_<planes><suffix>`: integers of the 32 * blocks values at p, times r, to d; planes are `plane` bytes apart, blocks `block` bytes.
 * Returns the sums of the integers.
 */
function groupSource(order: number, planes: Planes, target: Target): string {
  const tile = target !== "row";
  const bytes = [...relaxedPlanes(order, planes, tile), order === pairedOrder ? `d += blocks & 1 ? ${64 * planes - 16} : 16;` : "d += block;"];
  const halves = [...plainPlanes(order, planes, tile), "d += block;"];
  return lines(
    `function group${order}_${planes}${suffixes[target]}(p: usize, r: v128, d: usize, plane: usize, block: usize, blocks: i32): v128 {`,
    "const magic = f32x4.splat(12582912), bits = i32x4.splat(0x4b400000);",
    "let sum = i32x4.splat(0);",
    order === pairedOrder ? "if (ASC_FEATURE_RELAXED_SIMD) plane = 64;" : "",
    "for (; blocks > 0; blocks--, p += 128) {",
    range(8).map((i) => `const v${i} = i32x4.sub(f32x4.add(f32x4.mul(v128.load(p, ${16 * i}), r), magic), bits);`),
    target === "row" ? ["if (ASC_FEATURE_RELAXED_SIMD) {", ...bytes, "} else {", ...halves, "}"] : target === "bytes" ? bytes : halves,
    "sum = i32x4.add(sum, i32x4.add(i32x4.add(i32x4.add(v0, v1), i32x4.add(v2, v3)), i32x4.add(i32x4.add(v4, v5), i32x4.add(v6, v7))));",
    "}",
    "return sum;",
    "}",
  );
}

/** Functions `groupRow` and `groupTile`, which choose by the kind of planes, order * 4 + planes, and for tiles by the build: 32 more means bytes. */
export function prepareSource(orders: readonly number[] = [0, 1, 2, 3, pairedOrder]): string {
  const kinds = ([2, 3] as const).flatMap((planes) => orders.map((order) => ({ order, planes })));
  const tileKinds = kinds.filter((k) => k.order !== pairedOrder);
  const call = (target: Target) => (k: { order: number; planes: Planes }): string =>
    `case ${k.order * 4 + k.planes + (target === "bytes" ? 32 : 0)}: return group${k.order}_${k.planes}${suffixes[target]}(p, r, d, plane, block, blocks);`;
  const choose = (name: string, cases: readonly string[], more: string[] = []): string[] => [
    `function ${name}(kind: i32, p: usize, r: v128, d: usize, plane: usize, block: usize, blocks: i32): v128 {`,
    "switch (kind) {",
    ...cases,
    "}",
    ...more,
    "return r;",
    "}",
  ];
  return lines(
    kinds.map((k) => groupSource(k.order, k.planes, "row")),
    tileKinds.flatMap((k) => [groupSource(k.order, k.planes, "bytes"), groupSource(k.order, k.planes, "halves")]),
    choose("groupRow", kinds.map(call("row"))),
    choose("groupTile", tileKinds.map(call("halves")), ["if (ASC_FEATURE_RELAXED_SIMD) {", "switch (kind) {", ...tileKinds.map(call("bytes")), "}", "}"]),
    "/** Largest |v| of a kind of planes. */",
    "function largest(kind: i32): f32 {",
    "switch (kind) {",
    kinds.map((k) => `case ${k.order * 4 + k.planes}: return ${largest(k.order, k.planes)};`),
    "}",
    "return 0;",
    "}",
  );
}
