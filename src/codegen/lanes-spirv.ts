/** Instruction selection for SPIR-V: one basic operation on one element. Integers of a width share one type; a bool is a SPIR-V bool. */
import { type ExprOp, type ScalarType, type Value, isFloatType, isWide } from "../core/expr.ts";
import { type Id, type SpirvModule, constantWords, decoration, glsl, spv } from "./spirv.ts";

type Table = Partial<Record<ExprOp, number>>;
const float: Table = {
  add: spv.fAdd,
  sub: spv.fSub,
  mul: spv.fMul,
  div: spv.fDiv,
  neg: spv.fNegate,
  eq: spv.fOrdEqual,
  ne: spv.fUnordNotEqual,
  lt: spv.fOrdLessThan,
  le: spv.fOrdLessThanEqual,
  gt: spv.fOrdGreaterThan,
  ge: spv.fOrdGreaterThanEqual,
};
const unsigned: Table = {
  add: spv.iAdd,
  sub: spv.iSub,
  mul: spv.iMul,
  quot: spv.uDiv,
  neg: spv.sNegate,
  and: spv.bitwiseAnd,
  or: spv.bitwiseOr,
  xor: spv.bitwiseXor,
  not: spv.bitwiseNot,
  eq: spv.iEqual,
  ne: spv.iNotEqual,
  lt: spv.uLessThan,
  le: spv.uLessThanEqual,
  gt: spv.uGreaterThan,
  ge: spv.uGreaterThanEqual,
  shl: spv.shiftLeft,
  shr: spv.shiftRightLogical,
};
const signed: Table = { ...unsigned, quot: spv.sDiv, lt: spv.sLessThan, le: spv.sLessThanEqual, gt: spv.sGreaterThan, ge: spv.sGreaterThanEqual, shr: spv.shiftRightArithmetic };
const bool: Table = { and: spv.logicalAnd, or: spv.logicalOr, xor: spv.logicalNotEqual, not: spv.logicalNot, eq: spv.logicalEqual, ne: spv.logicalNotEqual };
// Complex values are lowered to pairs of floats before they get here.
const tables: Record<ScalarType, Table> = { f32: float, f64: float, i32: signed, i64: signed, u32: unsigned, u64: unsigned, bool, c64: {} };

const functions: Table = { sqrt: glsl.sqrt, floor: glsl.floor, ceil: glsl.ceil, trunc: glsl.trunc, round: glsl.roundEven };
const comparisons: ReadonlySet<ExprOp> = new Set(["eq", "ne", "lt", "le", "gt", "ge"]);

export function typeId(m: SpirvModule, t: ScalarType): Id {
  if (t === "bool") return m.bool();
  return isFloatType(t) ? m.float(t === "f64" ? 64 : 32) : m.int(isWide(t) ? 64 : 32);
}
export function constantId(m: SpirvModule, t: ScalarType, value: number | bigint): Id {
  if (t === "bool") return m.boolean(value !== 0);
  const kind = isFloatType(t) ? (t as "f32" | "f64") : isWide(t) ? "i64" : "i32";
  return m.constant(typeId(m, t), constantWords(kind, value));
}

/** Emits `v` of arguments that are emitted. Float arithmetic is never contracted, so that results do not depend on the driver. */
export function emitScalar(m: SpirvModule, v: Value, args: readonly Id[]): Id {
  const [x, y, z] = args as [Id, Id, Id];
  const from = v.args[0]?.type ?? v.type;
  const type = typeId(m, v.type);
  switch (v.op) {
    case "const":
      return constantId(m, v.type, v.imm);
    case "select":
    case "rare":
      return m.op(spv.select, type, x, y, z);
    case "bitcast":
      return typeId(m, from) === type ? x : m.op(spv.bitcast, type, x);
    case "convert":
      return emitConvert(m, from, v.type, x);
    case "abs":
      return isFloatType(v.type) ? m.glsl(glsl.fAbs, type, x) : m.op(spv.select, type, m.op(spv.sLessThan, m.bool(), x, constantId(m, v.type, 0)), m.op(spv.sNegate, type, x), x);
    case "min":
    case "max":
    case "pmin":
    case "pmax":
      return emitExtreme(m, v, x, y);
    case "shl":
    case "shr": {
      // More than the width is undefined in SPIR-V.
      const count = m.op(spv.bitwiseAnd, type, y, constantId(m, v.type, isWide(v.type) ? 63 : 31));
      return m.op(tables[v.type][v.op] as number, type, x, count);
    }
    case "round":
    case "trunc":
      if (v.type === "f64") return emitWhole64(m, v.op === "round", x);
      break;
    default:
      break;
  }
  if (v.op === "div" && v.type === "f32" && !m.roundsDivision) return emitDivision32(m, x, y);
  const instruction = functions[v.op];
  if (instruction !== undefined) return exact(m, m.glsl(instruction, type, x), isFloatType(v.type));
  const op = tables[comparisons.has(v.op) ? from : v.type][v.op];
  if (op === undefined) throw new Error(`no instruction for ${v.op}.${v.type}`);
  return exact(m, y === undefined ? m.op(op, type, x) : m.op(op, type, x, y), isFloatType(from));
}

function exact(m: SpirvModule, id: Id, isFloat: boolean): Id {
  if (isFloat) m.decorate(id, decoration.noContraction);
  return id;
}

/**
 * x / y to half an ulp and a little: Vulkan allows the instruction 2.5 ulp, and nothing for divisors of 2^126 and more. One step of Newton's method with the remainder
 * that fma leaves (Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990). Powers of two keep the remainder and the reciprocal
 * normal. Where the quotient is zero, subnormal, infinite or NaN, it is an instruction's own.
 */
function emitDivision32(m: SpirvModule, x: Id, y: Id): Id {
  const type = typeId(m, "f32");
  const c = (value: number): Id => constantId(m, "f32", value);
  const op = (code: number, ...args: Id[]): Id => exact(m, m.op(code, type, ...args), true);
  const fma = (...args: Id[]): Id => exact(m, m.glsl(glsl.fma, type, ...args), true);
  const less = (a: Id, b: Id): Id => exact(m, m.op(spv.fOrdLessThan, m.bool(), a, b), true);
  const choose = (when: Id, a: number, b: number): Id => m.op(spv.select, type, when, c(a), c(b));
  const small = less(m.glsl(glsl.fAbs, type, x), c(2 ** -96));
  const great = less(c(2 ** 120), m.glsl(glsl.fAbs, type, y));
  const a = op(spv.fMul, x, choose(small, 2 ** 48, 1));
  const b = op(spv.fMul, y, choose(great, 2 ** -16, 1));
  const first = op(spv.fDiv, a, b);
  const rest = fma(op(spv.fNegate, first), b, a);
  const better = fma(rest, op(spv.fDiv, c(1), b), first);
  const quotient = op(spv.fMul, op(spv.fMul, better, choose(great, 2 ** -16, 1)), choose(small, 2 ** -48, 1));
  const size = m.glsl(glsl.fAbs, type, quotient);
  const between = (low: number, value: Id): Id => m.op(spv.logicalAnd, m.bool(), less(c(low), value), less(value, c(Number.POSITIVE_INFINITY)));
  // Devices give NaN for an infinity divided by a number whose reciprocal they flush to zero, so the scaled quotient stands where there are no digits to correct.
  const special = m.op(spv.select, type, between(0, m.glsl(glsl.fAbs, type, first)), op(spv.fDiv, x, y), first);
  return m.op(spv.select, type, between(2 ** -126, size), quotient, special);
}

/** float64 to a whole number, to the nearest (ties to even) or towards zero. Drivers that emulate these instructions lose the sign of zero or halve ties wrongly. */
function emitWhole64(m: SpirvModule, nearest: boolean, x: Id): Id {
  const type = typeId(m, "f64");
  const op = (code: number, ...args: Id[]): Id => exact(m, m.op(code, type, ...args), true);
  // From 2^52 on every number is whole; below, adding it rounds.
  const limit = constantId(m, "f64", 2 ** 52);
  const magnitude = m.glsl(glsl.fAbs, type, x);
  const whole = nearest ? op(spv.fSub, op(spv.fAdd, magnitude, limit), limit) : exact(m, m.glsl(glsl.floor, type, magnitude), true);
  const zero = constantId(m, "f64", 0);
  const signed = m.op(spv.select, type, m.op(spv.fOrdLessThan, m.bool(), x, zero), op(spv.fNegate, whole), whole);
  const inside = m.op(spv.logicalAnd, m.bool(), m.op(spv.fOrdLessThan, m.bool(), magnitude, limit), m.op(spv.logicalNot, m.bool(), m.op(spv.fOrdEqual, m.bool(), x, zero)));
  return m.op(spv.select, type, inside, signed, x);
}

function emitExtreme(m: SpirvModule, v: Value, x: Id, y: Id): Id {
  const type = typeId(m, v.type);
  const min = v.op === "min" || v.op === "pmin";
  if (isFloatType(v.type)) {
    // pmin: y < x ? y : x; pmax: x < y ? y : x.
    const better = exact(m, min ? m.op(spv.fOrdLessThan, m.bool(), y, x) : m.op(spv.fOrdLessThan, m.bool(), x, y), true);
    return m.op(spv.select, type, better, y, x);
  }
  const isSigned = v.type === "i32" || v.type === "i64";
  return m.glsl(min ? (isSigned ? glsl.sMin : glsl.uMin) : isSigned ? glsl.sMax : glsl.uMax, type, x, y);
}

function emitConvert(m: SpirvModule, from: ScalarType, to: ScalarType, x: Id): Id {
  const type = typeId(m, to);
  if (isFloatType(from)) return isFloatType(to) ? m.op(spv.fConvert, type, x) : emitTruncation(m, from, to, x);
  const isSigned = from === "i32" || from === "i64";
  if (isFloatType(to)) return m.op(isSigned ? spv.convertSToF : spv.convertUToF, type, x);
  if (isWide(from) === isWide(to)) return x;
  return m.op(isSigned ? spv.sConvert : spv.uConvert, type, x);
}

/** Float to integer as core/expr.ts wants it: NaN gives 0, values out of range the nearest integer. */
function emitTruncation(m: SpirvModule, from: ScalarType, to: ScalarType, x: Id): Id {
  const type = typeId(m, to);
  const isSigned = to === "i32" || to === "i64";
  const bits = isWide(to) ? 64 : 32;
  const limit = constantId(m, from, 2 ** (isSigned ? bits - 1 : bits));
  const lowest = constantId(m, from, isSigned ? -(2 ** (bits - 1)) : 0);
  const integer = (value: bigint): Id => m.constant(type, constantWords(bits === 64 ? "i64" : "i32", bits === 64 ? value : Number(BigInt.asUintN(32, value))));
  const high = m.op(spv.fOrdGreaterThanEqual, m.bool(), x, limit);
  const low = m.op(spv.fOrdLessThan, m.bool(), x, lowest);
  const nan = m.op(spv.fUnordNotEqual, m.bool(), x, x);
  const outside = m.op(spv.logicalOr, m.bool(), m.op(spv.logicalOr, m.bool(), high, low), nan);
  for (const id of [high, low, nan]) m.decorate(id, decoration.noContraction);
  const safe = m.op(spv.select, typeId(m, from), outside, constantId(m, from, 0), x);
  const inside = m.op(isSigned ? spv.convertFToS : spv.convertFToU, type, safe);
  const most = isSigned ? (1n << BigInt(bits - 1)) - 1n : (1n << BigInt(bits)) - 1n;
  const least = isSigned ? -(1n << BigInt(bits - 1)) : 0n;
  return m.op(spv.select, type, high, integer(most), m.op(spv.select, type, low, integer(least), inside));
}
