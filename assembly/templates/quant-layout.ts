/**
 * How quantized weights are unpacked. Weights are little-endian bit streams; 32 of them take 4 * bits bytes. They are unpacked
 * into vectors in whatever order is cheap for the width, and the activations are permuted once to the same order.
 */

export const widths = [2, 3, 4, 5, 6, 8] as const;
export type Bits = (typeof widths)[number];
/** Number of quantized values' integer planes: 2 for results in 16-bit floats, 3 for float32. */
export type Planes = 2 | 3;

export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const lines = (...parts: (string | readonly string[])[]): string => parts.flat().join("\n");

/**
 * The order of 4 bits for groups of two or four blocks: for each pair of blocks and plane the vectors [low 0, low 1, high 0, high 1], so that the same work on both blocks uses
 * neighbouring vectors, which V8's vector pairing joins.
 */
export const pairedOrder = 4;
/** Code of the order in which a block is unpacked; widths with one code share prepared activations. */
export const orderOf = (bits: number): number => (bits === 4 ? 1 : bits === 2 ? 2 : bits === 8 ? 3 : 0);

/** Weight indices (0 .. 31) of the lanes of the two byte vectors of a block. */
export function byteOrder(order: number): number[][] {
  const by = (step: number, first: number): number[] => range(32 / step).map((i) => first + step * i);
  if (order === 1 || order === pairedOrder) return [by(2, 0), by(2, 1)];
  if (order === 2) return [[...by(4, 0), ...by(4, 2)], [...by(4, 1), ...by(4, 3)]];
  return [range(16), range(16).map((i) => i + 16)];
}

/** The same for the four vectors of 16-bit lanes of the plain build: even bytes, then odd bytes, so that both builds add the same products into a lane. */
export const halfOrder = (order: number): number[][] =>
  byteOrder(order).flatMap((v) => [v.filter((_, i) => i % 2 === 0), v.filter((_, i) => i % 2 === 1)]);

const at = (p: string, offset: number): string => (offset ? `${p}, ${offset}` : p);

/** Byte shuffle that puts the 16-bit words holding the bit fields of `values` into 8 lanes, and the factors that move each field to `bit`. */
function fields(bits: number, values: readonly number[], firstByte: number, bit: number): { shuffle: number[]; factors: number[] } {
  const shuffle: number[] = [];
  const factors: number[] = [];
  for (const v of values) {
    const start = v * bits;
    const byte = (start >> 3) - firstByte;
    shuffle.push(byte, Math.min(byte + 1, 15));
    factors.push(2 ** (bit - (start & 7)));
  }
  return { shuffle, factors };
}
const isOdd = (bits: number): boolean => bits === 3 || bits === 5 || bits === 6;
/** First byte of the vector that holds half h of a block: loads must not leave the 4 * bits bytes of the block. */
const firstByteOf = (bits: number, h: number): number => (bits !== 3 && h ? 4 * bits - 16 : 0);
const fieldsOf = (bits: number, h: number, odd: number, bit: number) =>
  fields(bits, range(8).map((i) => 16 * h + 2 * i + odd), firstByteOf(bits, h), bit);

/** Declarations that `unpackBytes` needs at the top of a function: V8 rebuilds a vector constant that stands inside a loop. */
export function byteConstants(bits: number): string[] {
  if (bits === 2) return ["const mask = i8x16.splat(3);"];
  if (bits === 4) return ["const mask = i8x16.splat(15);"];
  if (bits === 8) return ["const sign = i8x16.splat(-128);"];
  return oddConstants(bits, 8, [`const maskOdd = i16x8.splat(${(2 ** bits - 1) << 8});`]);
}
/** The same for `unpackHalves`. */
export function halfConstants(bits: number): string[] {
  if (bits === 2) return ["const mask = i8x16.splat(3), low = i16x8.splat(255);"];
  if (bits === 4) return ["const mask = i16x8.splat(15);"];
  if (bits === 8) return ["const sign = i8x16.splat(-128);"];
  return oddConstants(bits, 7, []);
}
function oddConstants(bits: number, oddBit: number, more: string[]): string[] {
  const shuffles = [0, 1].flatMap((h) => [0, 1].map((odd) => `const at${h}${odd} = i8x16(${fieldsOf(bits, h, odd, 7).shuffle.join(", ")});`));
  const factors = [0, 1].map((odd) => `const by${odd} = i16x8(${fieldsOf(bits, 0, odd, odd ? oddBit : 7).factors.join(", ")});`);
  return [...shuffles, ...factors, `const mask = i16x8.splat(${2 ** bits - 1});`, ...more];
}

/** Weights of widths that do not divide 8: each 16-bit word holding a field is fetched by a shuffle and aligned by a multiplication. */
function unpackOdd(bits: number, p: string, offset: number, names: readonly string[], halves: boolean): string[] {
  const out: string[] = [];
  const swizzle = halves ? "i8x16.swizzle" : "i8x16.relaxed_swizzle";
  for (const h of [0, 1]) {
    const raw = `${names[0]}r${h}`;
    if (bits !== 3) out.push(`const ${raw} = v128.load(${at(p, offset + firstByteOf(bits, h))});`);
    else if (h === 0) out.push(`const ${raw} = v128.load32_lane(${p}, v128.load64_zero(${at(p, offset)}), 2, ${offset + 8});`);
    else out.push(`const ${raw} = ${names[0]}r0;`);
    const word = (odd: number): string => `i16x8.mul(${swizzle}(${raw}, at${h}${odd}), by${odd})`;
    const even = `v128.and(i16x8.shr_u(${word(0)}, 7), mask)`;
    if (halves) out.push(`const ${names[2 * h]} = ${even};`, `const ${names[2 * h + 1]} = v128.and(i16x8.shr_u(${word(1)}, 7), mask);`);
    else out.push(`const ${names[h]} = v128.or(${even}, v128.and(${word(1)}, maskOdd));`);
  }
  return out;
}

/** Two byte vectors of 2-bit weights: the second half of each is shifted by 4 before both are masked. */
function unpackPairs(p: string, offset: number, [a, b]: readonly string[]): string[] {
  return [
    `const ${a}q = v128.load64_splat(${at(p, offset)});`,
    `const ${a}r = v128.shuffle<i64>(${a}q, i16x8.shr_u(${a}q, 4), 0, 3);`,
    `const ${a} = v128.and(${a}r, mask), ${b} = v128.and(i16x8.shr_u(${a}r, 2), mask);`,
  ];
}

/**
 * Statements that unpack the block of 32 weights at p + offset into two byte vectors. 8-bit weights come less 128, as signed bytes,
 * unless `unsigned`. Needs the relaxed build for 3, 5 and 6 bits.
 */
export function unpackBytes(bits: number, p: string, offset: number, names: readonly string[], unsigned = false): string[] {
  const [a, b] = names as [string, string];
  if (bits === 2) return unpackPairs(p, offset, names);
  if (isOdd(bits)) return unpackOdd(bits, p, offset, names, false);
  if (bits === 4) {
    const nibbles = `const ${a} = v128.and(${a}r, mask), ${b} = v128.and(i16x8.shr_u(${a}r, 4), mask);`;
    return [`const ${a}r = v128.load(${at(p, offset)});`, nibbles];
  }
  const load = (o: number): string => (unsigned ? `v128.load(${at(p, o)})` : `v128.xor(v128.load(${at(p, o)}), sign)`);
  return [`const ${a} = ${load(offset)}, ${b} = ${load(offset + 16)};`];
}

/** The same into four vectors of 16-bit lanes, in the order of `halfOrder`. */
export function unpackHalves(bits: number, p: string, offset: number, names: readonly string[]): string[] {
  const [a, b, c, d] = names as [string, string, string, string];
  switch (bits) {
    case 4:
      return [
        `const ${a}r = v128.load(${at(p, offset)});`,
        `const ${a} = v128.and(${a}r, mask), ${b} = v128.and(i16x8.shr_u(${a}r, 8), mask);`,
        `const ${c} = v128.and(i16x8.shr_u(${a}r, 4), mask), ${d} = i16x8.shr_u(${a}r, 12);`,
      ];
    case 2:
      return [
        ...unpackPairs(p, offset, [`${a}u`, `${a}v`]),
        `const ${a} = v128.and(${a}u, low), ${b} = i16x8.shr_u(${a}u, 8);`,
        `const ${c} = v128.and(${a}v, low), ${d} = i16x8.shr_u(${a}v, 8);`,
      ];
    case 8:
      return [
        ...unpackBytes(8, p, offset, [`${a}u`, `${a}v`]),
        `const ${a} = i16x8.shr_s(i16x8.shl(${a}u, 8), 8), ${b} = i16x8.shr_s(${a}u, 8);`,
        `const ${c} = i16x8.shr_s(i16x8.shl(${a}v, 8), 8), ${d} = i16x8.shr_s(${a}v, 8);`,
      ];
    default:
      return unpackOdd(bits, p, offset, names, true);
  }
}

/** Function `natural<bits>(p, d)` that unpacks the block at p to 32 bytes at d in the weights' own order. */
export function naturalSource(bits: Bits): string {
  const head = [`/** Unpacks the 32 ${bits}-bit weights at p to bytes at d, in their order. */`, `function natural${bits}(p: usize, d: usize): void {`];
  if (isOdd(bits)) {
    const join = (a: string, b: string): string => `v128.or(${a}, i16x8.shl(${b}, 8))`;
    const stores = [`v128.store(d, ${join("a", "b")});`, `v128.store(d, ${join("c", "e")}, 16);`];
    return lines(head, halfConstants(bits), unpackHalves(bits, "p", 0, ["a", "b", "c", "e"]), stores, "}");
  }
  const order = byteOrder(orderOf(bits)).flat();
  const shuffled = (first: number): string => `i8x16.shuffle(a, b, ${range(16).map((i) => order.indexOf(first + i)).join(", ")})`;
  const stores = bits === 8 ? ["v128.store(d, a);", "v128.store(d, b, 16);"] : [`v128.store(d, ${shuffled(0)});`, `v128.store(d, ${shuffled(16)}, 16);`];
  return lines(head, bits === 8 ? [] : byteConstants(bits), unpackBytes(bits, "p", 0, ["a", "b"], true), stores, "}");
}
