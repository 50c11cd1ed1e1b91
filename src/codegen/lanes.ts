/**
 * Instruction selection: one basic operation on four elements. A value of a 4-byte type lies in one v128; a value of an 8-byte type in
 * two (elements 0-1 and 2-3); a bool is a 32-bit lane mask (0 or -1) in one, also where 8-byte values were compared.
 */
import { type ExprOp, type ScalarType, type Value, isWide } from "../core/expr.ts";
import { type Code, isRelaxed, op, saturating, simd } from "./wasm.ts";

/** Number of v128 that hold four elements. */
export const parts = (t: ScalarType): number => (isWide(t) ? 2 : 1);

type Table = Partial<Record<ExprOp, number>>;
const f32: Table = {
  add: 0xe4, sub: 0xe5, mul: 0xe6, div: 0xe7, neg: 0xe1, abs: 0xe0, sqrt: 0xe3, pmin: 0xea, pmax: 0xeb,
  ceil: 0x67, floor: 0x68, trunc: 0x69, round: 0x6a, eq: 0x41, ne: 0x42, lt: 0x43, gt: 0x44, le: 0x45, ge: 0x46,
};
const f64: Table = {
  add: 0xf0, sub: 0xf1, mul: 0xf2, div: 0xf3, neg: 0xed, abs: 0xec, sqrt: 0xef, pmin: 0xf6, pmax: 0xf7,
  ceil: 0x74, floor: 0x75, trunc: 0x7a, round: 0x94, eq: 0x47, ne: 0x48, lt: 0x49, gt: 0x4a, le: 0x4b, ge: 0x4c,
};
const bits: Table = { and: simd.and, or: simd.or, xor: simd.xor, not: simd.not };
const i32: Table = {
  ...bits, add: 0xae, sub: 0xb1, mul: 0xb5, neg: 0xa1, abs: 0xa0, min: 0xb6, max: 0xb8, eq: 0x37, ne: 0x38, lt: 0x39, gt: 0x3b, le: 0x3d, ge: 0x3f,
};
const u32: Table = { ...i32, min: 0xb7, max: 0xb9, lt: 0x3a, gt: 0x3c, le: 0x3e, ge: 0x40 };
const i64: Table = { ...bits, add: 0xce, sub: 0xd1, mul: 0xd5, neg: 0xc1, abs: 0xc0, eq: 0xd6, ne: 0xd7, lt: 0xd8, gt: 0xd9, le: 0xda, ge: 0xdb };
// Unsigned 64-bit comparisons do not exist; codegen/lower.ts replaces them.
const u64: Table = { ...bits, add: 0xce, sub: 0xd1, mul: 0xd5, neg: 0xc1, eq: 0xd6, ne: 0xd7 };
const bool: Table = { ...bits, eq: 0x37, ne: 0x38 };
// Pairs are gone after codegen/lower.ts.
const tables: Record<ScalarType, Table> = { f32, f64, i32, u32, i64, u64, bool, c64: {} };

/** Bytes 0-3 and 8-11 of both vectors: the low halves of four 8-byte elements. */
const lowHalves = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27];
const lowQuads = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];
const highQuad = [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15];

/** Pushes part `h` of argument `i`. */
export type PushArg = (i: number, h: number) => void;

/** Pushes part `h` of the result of `v`. */
export function emitOp(c: Code, v: Value, h: number, arg: PushArg): void {
  const [a, b] = v.args as [Value, Value];
  switch (v.op) {
    case "select": case "rare": emitSelect(c, v, h, arg); return;
    case "bitcast": arg(0, h); return;
    case "convert": emitConvert(c, a.type, v.type, h, arg); return;
    case "shl": case "shr": emitShift(c, v, h, arg); return;
    case "quot": emitQuotient(c, v.type, h, arg); return;
    case "fma": case "fnma":
      for (let i = 0; i < 3; i++) arg(i, h);
      c.simd(v.op === "fma" ? simd.f32x4_relaxed_madd : simd.f32x4_relaxed_nmadd);
      return;
    case "eq": case "ne": case "lt": case "le": case "gt": case "ge": emitCompare(c, v.op, a.type, arg); return;
    default: break;
  }
  const code = tables[v.type][v.op];
  if (code === undefined) throw new Error(`no instruction for ${v.op}.${v.type}`);
  arg(0, h);
  if (b) arg(1, h);
  c.simd(code);
}

function emitCompare(c: Code, compare: ExprOp, type: ScalarType, arg: PushArg): void {
  const code = tables[type][compare];
  if (code === undefined) throw new Error(`no instruction for ${compare}.${type}`);
  for (let h = 0; h < parts(type); h++) {
    arg(0, h);
    arg(1, h);
    c.simd(code);
  }
  if (isWide(type)) c.shuffle(lowHalves);
}

/** True for constants whose bits are all 0. */
const isZero = (v: Value): boolean => v.op === "const" && (Object.is(v.imm, 0) || v.imm === 0n);

/** One instruction instead of the three that a bitselect becomes, where one side is 0. */
function emitSelect(c: Code, v: Value, h: number, arg: PushArg): void {
  const [, a, b] = v.args as [Value, Value, Value];
  const [zeroA, zeroB] = [isZero(a), isZero(b)];
  if (!zeroA || zeroB) arg(1, h);
  if (!zeroB) arg(2, h);
  arg(0, 0);
  if (isWide(v.type)) c.simd(h === 0 ? simd.i64x2_extend_low_s : simd.i64x2_extend_high_s);
  // Masks are whole lanes: all engines give the same.
  const select = !isRelaxed() ? simd.bitselect : isWide(v.type) ? simd.i64x2_relaxed_laneselect : simd.i32x4_relaxed_laneselect;
  c.simd(zeroB ? simd.and : zeroA ? simd.andnot : select);
}

/** The count of a shift by a constant; such a constant needs no register. */
export function shiftCount(v: Value): number | undefined {
  const b = v.args[1];
  if ((v.op !== "shl" && v.op !== "shr") || b?.op !== "const") return undefined;
  return Number(BigInt.asUintN(8, BigInt(b.imm))) & (isWide(v.type) ? 63 : 31);
}

function emitShift(c: Code, v: Value, h: number, arg: PushArg): void {
  const wide = isWide(v.type);
  const signed = v.type === "i32" || v.type === "i64";
  const count = shiftCount(v);
  if (count !== undefined) {
    arg(0, h);
    c.i32(count);
    if (v.op === "shl") c.simd(wide ? simd.i64x2_shl : simd.i32x4_shl);
    else if (wide) c.simd(signed ? simd.i64x2_shr_s : simd.i64x2_shr_u);
    else c.simd(signed ? simd.i32x4_shr_s : simd.i32x4_shr_u);
    return;
  }
  // Counts that differ by lane: there is no such vector instruction.
  const scalar = v.op === "shl" ? (wide ? op.i64_shl : op.i32_shl) : wide ? (signed ? op.i64_shr_s : op.i64_shr_u) : signed ? op.i32_shr_s : op.i32_shr_u;
  perLane(c, wide ? i64Lanes : i32Lanes, (lane) => {
    arg(0, h);
    c.lane(wide ? simd.i64x2_extract : simd.i32x4_extract, lane);
    arg(1, h);
    c.lane(wide ? simd.i64x2_extract : simd.i32x4_extract, lane);
    c.op(scalar);
  });
}

interface Lanes {
  readonly count: number;
  readonly splat: number;
  readonly replace: number;
}
const i32Lanes: Lanes = { count: 4, splat: simd.i32x4_splat, replace: simd.i32x4_replace };
const f32Lanes: Lanes = { count: 4, splat: simd.f32x4_splat, replace: simd.f32x4_replace };
const i64Lanes: Lanes = { count: 2, splat: simd.i64x2_splat, replace: simd.i64x2_replace };
const f64Lanes: Lanes = { count: 2, splat: simd.f64x2_splat, replace: simd.f64x2_replace };

/** Builds a vector from scalars that `push` leaves on the stack, lane by lane. */
function perLane(c: Code, lanes: Lanes, push: (lane: number) => void): void {
  push(0);
  c.simd(lanes.splat);
  for (let lane = 1; lane < lanes.count; lane++) {
    push(lane);
    c.lane(lanes.replace, lane);
  }
}

/** 64-bit division, the divisor being neither 0 nor -1 (codegen/lower.ts). */
function emitQuotient(c: Code, type: ScalarType, h: number, arg: PushArg): void {
  if (!isWide(type)) throw new Error(`no instruction for quot.${type}`);
  perLane(c, i64Lanes, (lane) => {
    arg(0, h);
    c.lane(simd.i64x2_extract, lane);
    arg(1, h);
    c.lane(simd.i64x2_extract, lane);
    c.op(type === "i64" ? op.i64_div_s : op.i64_div_u);
  });
}

function emitConvert(c: Code, from: ScalarType, to: ScalarType, h: number, arg: PushArg): void {
  const unsigned = from[0] === "u";
  if (isWide(from)) {
    if (isWide(to)) convertWide(c, from, to, h, arg);
    else convertNarrower(c, from, to, arg);
  } else if (to === "f64") {
    arg(0, 0);
    if (h === 1) {
      arg(0, 0);
      c.shuffle(highQuad);
    }
    if (from === "f32") c.simd(simd.promote);
    else c.simd(unsigned ? simd.f64x2_convert_low_i32_u : simd.f64x2_convert_low_i32_s);
  } else if (isWide(to)) {
    if (from === "f32") {
      perLane(c, i64Lanes, (lane) => {
        arg(0, 0);
        c.lane(simd.f32x4_extract, 2 * h + lane);
        c.saturating(to === "i64" ? saturating.i64_f32_s : saturating.i64_f32_u);
      });
      return;
    }
    arg(0, 0);
    if (h === 0) c.simd(unsigned ? simd.i64x2_extend_low_u : simd.i64x2_extend_low_s);
    else c.simd(unsigned ? simd.i64x2_extend_high_u : simd.i64x2_extend_high_s);
  } else {
    arg(0, 0);
    if (to === "f32") c.simd(unsigned ? simd.f32x4_convert_i32_u : simd.f32x4_convert_i32_s);
    else if (from === "f32") c.simd(to === "u32" ? simd.i32x4_trunc_sat_f32_u : simd.i32x4_trunc_sat_f32_s);
  }
}

/** Between 8-byte types. */
function convertWide(c: Code, from: ScalarType, to: ScalarType, h: number, arg: PushArg): void {
  if (from !== "f64" && to !== "f64") {
    arg(0, h);
    return;
  }
  perLane(c, to === "f64" ? f64Lanes : i64Lanes, (lane) => {
    arg(0, h);
    if (from === "f64") {
      c.lane(simd.f64x2_extract, lane);
      c.saturating(to === "i64" ? saturating.i64_f64_s : saturating.i64_f64_u);
    } else {
      c.lane(simd.i64x2_extract, lane);
      c.op(from === "i64" ? op.f64_convert_i64_s : op.f64_convert_i64_u);
    }
  });
}

/** From an 8-byte type to a 4-byte one. */
function convertNarrower(c: Code, from: ScalarType, to: ScalarType, arg: PushArg): void {
  if (from === "f64") {
    const code = to === "f32" ? simd.demote : to === "u32" ? simd.i32x4_trunc_sat_f64_u_zero : simd.i32x4_trunc_sat_f64_s_zero;
    for (let h = 0; h < 2; h++) {
      arg(0, h);
      c.simd(code);
    }
    c.shuffle(lowQuads);
  } else if (to === "f32") {
    perLane(c, f32Lanes, (lane) => {
      arg(0, lane >> 1);
      c.lane(simd.i64x2_extract, lane & 1);
      c.op(from === "i64" ? op.f32_convert_i64_s : op.f32_convert_i64_u);
    });
  } else {
    arg(0, 0);
    arg(0, 1);
    c.shuffle(lowHalves);
  }
}
