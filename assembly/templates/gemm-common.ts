/** What both ways of the dense matrix products share. */

/** Element types that a float32 kernel reads; `type` is how lib/half.ts names it. */
export const kinds = [
  { name: "f32", type: "f32", code: 10, bytes: 4 },
  { name: "bf16", type: "u16", code: 12, bytes: 2 },
  { name: "f16", type: "i16", code: 9, bytes: 2 },
] as const;
export type Kind = (typeof kinds)[number];

export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Masks and the scale of the float16 conversion, as vectors. */
const halfConstants = { mask: "i32x4.splat(<i32>0x8fffe000)", top: "i32x4.splat(0x0f800000)", scale: "i32x4.splat(0x77800000)", inf: "i32x4.splat(0x7f800000)" };
type HalfConstants = Readonly<Record<keyof typeof halfConstants, string>>;
const names = Object.keys(halfConstants) as (keyof HalfConstants)[];
/** Local variables that hold them. */
export const hoisted: HalfConstants = { mask: "hMask", top: "hTop", scale: "hScale", inf: "hInf" };
/**
 * Statements that fill these variables. They go through memory because constants that the optimiser can see are moved into the loop, where
 * V8 builds them anew at every use: 1.6 times slower where registers are free for them, but faster where they are not.
 */
export function hoist(kind: Kind): string {
  if (kind.name !== "f16") return "";
  const stores = names.map((n, i) => `v128.store(SCRATCH + CONSTANTS, ${halfConstants[n]}, ${16 * i});`);
  return `  ${stores.join(" ")}\n  let ${names.map((n, i) => `${hoisted[n]} = v128.load(SCRATCH + CONSTANTS, ${16 * i})`).join(", ")};\n`;
}

/** Statements that put the 8 elements at `p` into the float32 vectors `lo` and `hi`. */
export function load8(kind: Kind, lo: string, hi: string, p: string, c: HalfConstants = halfConstants): string {
  if (kind.name !== "f16") return `let ${lo}r = raw8<${kind.type}>(${p}); let ${lo} = low8<${kind.type}>(${lo}r, ${p}), ${hi} = high8<${kind.type}>(${lo}r, ${p});`;
  // As lib/half.ts: sign and magnitude in their float32 places, times 2^112; an exponent of all ones (infinity, NaN) stays all ones.
  const widen = (v: string, half: "low" | "high"): string =>
    `let ${v}e = v128.and(i32x4.shl(i32x4.extend_${half}_i16x8_s(${lo}r), 13), ${c.mask}); let ${v} = v128.or(f32x4.mul(${v}e, ${c.scale}), v128.and(i32x4.eq(v128.and(${v}e, ${c.top}), ${c.top}), ${c.inf}));`;
  return `let ${lo}r = v128.load(${p}); ${widen(lo, "low")} ${widen(hi, "high")}`;
}

export const common = `
import { high8, load1, load4, loadAny, low8, madd, raw8, store1, store8, sum4 } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch") declare const SCRATCH: usize;
/** Place in SCRATCH behind everything else. */
// @ts-ignore: decorator
@inline const CONSTANTS: usize = 0x3fff00;

// @ts-ignore: decorator
@inline function shiftOf(dtype: i32): i32 { return dtype == 10 ? 2 : dtype == 11 ? 3 : 1; }

/** Rounds one float32 into an element. */
function put(p: usize, dtype: i32, v: f32): void {
  if (dtype == 10) store<f32>(p, v);
  else if (dtype == 12) store1<u16>(p, v);
  else store1<i16>(p, v);
}
/** Rounds 8 float32 into 8 neighbouring elements. */
function put8(p: usize, dtype: i32, a: v128, b: v128): void {
  if (dtype == 10) store8<f32>(p, a, b);
  else if (dtype == 12) store8<u16>(p, a, b);
  else store8<i16>(p, a, b);
}
/** Copies 8 neighbouring elements as float32. */
function widen8(p: usize, dtype: i32, to: usize): void {
  let r = v128.load(p);
  if (dtype == 10) { v128.store(to, r); v128.store(to, v128.load(p, 16), 16); }
  else if (dtype == 12) { v128.store(to, low8<u16>(r, p)); v128.store(to, high8<u16>(r, p), 16); }
  else { v128.store(to, low8<i16>(r, p)); v128.store(to, high8<i16>(r, p), 16); }
}

/** Elements from a base to matrix \`i\`: \`at\` holds the number of dimensions, then (size, stride) of each. */
function offsetOf(at: usize, i: u32): i32 {
  let off = 0;
  for (let p = at + (<usize>load<u32>(at) << 3); p > at; p -= 8) {
    let d = load<u32>(p - 4);
    let q = i / d;
    off += <i32>(i - q * d) * load<i32>(p);
    i = q;
  }
  return off;
}
/** Number of the matrix that entry \`i\` uses: itself, or what the index list says, kept inside the list of matrices. */
function chosen(list: usize, limit: u32, i: u32): u32 {
  if (!list) return i;
  let v = load<u32>(list + (<usize>i << 2));
  return v < limit ? v : limit - 1;
}
`;
