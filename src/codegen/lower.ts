/**
 * Rewrites expressions to what instruction selection knows: storage formats become integer arithmetic on raw bits, mathematical
 * functions become polynomials, and operations without an instruction become several that have one.
 */
import { type Dtype, bfloat16, bool, complex64, float16, int16, int8, uint16, uint64, uint8 } from "../core/dtype.ts";
import { type Value, expr as e, isFloatType, isWide, reachable } from "../core/expr.ts";
import { lowerMath } from "./math.ts";
import { isRelaxed } from "./wasm.ts";

/** A value whose low bytes are the stored element. */
export interface Stored {
  readonly bytes: number;
  readonly value: Value;
}

/** What a target can do that WebAssembly's SIMD cannot, or the other way round. */
export interface Target {
  /** Has a division of 32-bit integers (the divisor being neither 0 nor, for signed ones, -1). */
  readonly division32: boolean;
  /** Computes with subnormal float32 numbers. */
  readonly subnormals: boolean;
  /** Has a float32 multiply-add that rounds once. */
  readonly fma?: boolean;
}
const plainWasm: Target = { division32: false, subnormals: true };
const relaxedWasm: Target = { ...plainWasm, fma: true };
const wasm = (): Target => (isRelaxed() ? relaxedWasm : plainWasm);
/** The target of the lowering that is going on. */
let target = plainWasm;

/** Lowers the outputs of a group. Inputs of the result have the dtypes uint8, int8, uint16, int16 or a 4- or 8-byte type. */
export function lower(outputs: readonly { readonly dtype: Dtype; readonly value: Value }[], to: Target = wasm(), maxima: Maxima = none): Stored[] {
  target = to;
  const lowered = new Map<Value, Value>();
  const at = (v: Value): Value => lowered.get(v) as Value;
  // A store wraps and rounds anyway.
  const stripped = outputs.map(({ dtype, value }) => ({ dtype, value: value.op === "narrow" && value.dtype === dtype ? (value.args[0] as Value) : value }));
  for (const v of reachable(stripped.map((o) => o.value))) lowered.set(v, lowerNode(v, v.args.map(at), maxima));
  return stripped.map(({ dtype, value }) => {
    const raw = value.op === "input" && value.dtype === dtype ? rawInput(value) : undefined;
    return { bytes: dtype.size, value: raw ?? storedBits(at(value), dtype) };
  });
}

/** For inputs that are the greatest of some values: the formula of those. */
export type Maxima = ReadonlyMap<Value, Value>;
const none: Maxima = new Map();
/** Whether a value is at most 0 or NaN wherever it is computed, as far as its formula shows: x minus the greatest x, also where 0 stands for a greatest x of -infinity. */
function notPositive(v: Value, maxima: Maxima): boolean {
  if (v.op === "narrow") return notPositive(v.args[0] as Value, maxima);
  if (v.op !== "sub") return false;
  const [x, origin] = v.args as [Value, Value];
  if (origin.op !== "select") return maxima.get(origin) === x;
  const [condition, instead, m] = origin.args as [Value, Value, Value];
  return maxima.get(m) === x && instead.op === "const" && Number(instead.imm) === 0 && condition === e.eq(m, e.like(m, Number.NEGATIVE_INFINITY));
}

/** The bits of a 16-bit input, or undefined. A copy must keep even the payload of a NaN. */
const rawInput = (v: Value): Value | undefined => (v.dtype === bfloat16 || v.dtype === float16 ? e.input(Number(v.imm), uint16) : undefined);

/** Lowered outputs for elements of which none is rare (see `Expr.rare`). */
export interface CommonForm {
  readonly outputs: readonly Stored[];
  /** Where one of these holds, the outputs are wrong. */
  readonly unless: readonly Value[];
}
/** The outputs without what is rare in them; undefined where nothing is. */
export function commonForm(outputs: readonly Stored[]): CommonForm | undefined {
  const made = new Map<Value, Value>();
  const unless = new Set<Value>();
  for (const v of reachable(outputs.map((o) => o.value))) {
    const args = v.args.map((a) => made.get(a) as Value);
    if (v.op === "rare") unless.add(args[0] as Value);
    made.set(v, v.op === "rare" ? (args[2] as Value) : e.again(v, args));
  }
  if (unless.size === 0) return undefined;
  return { outputs: outputs.map((o) => ({ bytes: o.bytes, value: made.get(o.value) as Value })), unless: [...unless] };
}

function storedBits(v: Value, dtype: Dtype): Value {
  switch (dtype) {
    case bool: return e.select(v, e.const("i32", 1), e.const("i32", 0));
    case bfloat16: return bfloat16Bits(v);
    case float16: return float16Bits(v);
    default: return v;
  }
}

function lowerNode(v: Value, args: readonly Value[], maxima: Maxima): Value {
  const [a, b, c] = args as [Value, Value, Value];
  switch (v.op) {
    case "const": return v;
    case "input": return lowerInput(v);
    case "narrow": return lowerNarrow(a, v.dtype as Dtype);
    case "convert": return lowerConvert(a, v);
    case "bitcast": return e.bitcast(a, v.type);
    case "select": return e.select(a, b, c);
    case "complex": return packed(a, b);
    case "re": return e.bitcast(e.convert(a, "u32"), "f32");
    case "im": return e.bitcast(e.convert(e.shr(a, e.const("u64", 32)), "u32"), "f32");
    case "quot": return lowerQuotient(a, b);
    case "rem": return e.sub(a, e.mul(lowerQuotient(a, b), b));
    case "min": case "max": case "pmin": case "pmax": return lowerExtreme(v.op, a, b);
    case "lt": case "le": case "gt": case "ge":
      return a.type === "u64" ? e[v.op](flipSign(a), flipSign(b)) : e[v.op](a, b);
    case "eq": case "ne": return lowerEquality(v.op, a, b);
    case "add": case "sub": case "mul": case "div": case "and": case "or": case "xor": case "shl": case "shr":
      return e[v.op](a, b);
    case "neg": case "abs": case "sqrt": case "floor": case "ceil": case "trunc": case "round": case "not":
      return e[v.op](a);
    case "fma": case "fnma": return e[v.op](a, b, c);
    default: return lowerMath(v.op, a, b, { fma: target.fma === true, notPositive: notPositive(v.args[0] as Value, maxima) });
  }
}

function lowerInput(v: Value): Value {
  const index = Number(v.imm);
  switch (v.dtype) {
    case bool: return e.ne(e.input(index, uint8), e.const("i32", 0));
    case bfloat16: return bfloat16Value(e.bitcast(e.input(index, uint16), "u32"));
    case float16: return float16Value(e.bitcast(e.input(index, uint16), "u32"));
    case complex64: return e.input(index, uint64);
    default: return v;
  }
}

const u = (x: number): Value => e.const("u32", x);

/** A complex64 as it lies in memory: the real part in the lower half of 8 bytes. */
const packed = (re: Value, im: Value): Value =>
  e.or(e.convert(e.bitcast(re, "u32"), "u64"), e.shl(e.convert(e.bitcast(im, "u32"), "u64"), e.const("u64", 32)));

function lowerNarrow(a: Value, dtype: Dtype): Value {
  switch (dtype) {
    case uint8: return e.and(a, e.const("i32", 0xff));
    case uint16: return e.and(a, e.const("i32", 0xffff));
    case int8: return e.shr(e.shl(a, e.const("i32", 24)), e.const("i32", 24));
    case int16: return e.shr(e.shl(a, e.const("i32", 16)), e.const("i32", 16));
    case bfloat16: return bfloat16Value(bfloat16Bits(a));
    case float16: return float16Value(float16Bits(a));
    default: throw new Error(`narrow to ${dtype}`);
  }
}

const bfloat16Value = (bits: Value): Value => e.bitcast(e.shl(bits, u(16)), "f32");

/** Rounds to nearest even; NaN stays NaN. */
function bfloat16Bits(x: Value): Value {
  const bits = e.bitcast(x, "u32");
  const odd = e.and(e.shr(bits, u(16)), u(1));
  const rounded = e.shr(e.add(bits, e.add(odd, u(0x7fff))), u(16));
  return e.or(rounded, e.select(e.ne(x, x), u(0x7fc0), u(0)));
}

/** Exact, subnormals included: the bits are read as a float32 whose exponent is too small by 112. */
function float16Value(bits: Value): Value {
  const magnitude = e.and(bits, u(0x7fff));
  if (!target.subnormals) return float16WithoutSubnormals(bits, magnitude);
  const scaled = e.mul(e.bitcast(e.shl(magnitude, u(13)), "f32"), e.const("f32", 2 ** 112));
  const special = e.select(e.gt(magnitude, u(0x7bff)), u(0x7f800000), u(0));
  const sign = e.shl(e.and(bits, u(0x8000)), u(16));
  return e.bitcast(e.or(e.or(e.bitcast(scaled, "u32"), special), sign), "f32");
}

/** The same in integer arithmetic, but for subnormal float16 numbers, which are multiples of 2^-24. */
function float16WithoutSubnormals(bits: Value, magnitude: Value): Value {
  const normal = e.add(e.shl(magnitude, u(13)), u(112 << 23));
  const special = e.or(e.shl(magnitude, u(13)), u(0x7f800000));
  const small = e.bitcast(e.mul(e.convert(e.bitcast(magnitude, "i32"), "f32"), e.const("f32", 2 ** -24)), "u32");
  const value = e.select(e.lt(magnitude, u(0x400)), small, e.select(e.gt(magnitude, u(0x7bff)), special, normal));
  return e.bitcast(e.or(value, e.shl(e.and(bits, u(0x8000)), u(16))), "f32");
}

/** Rounds to nearest even; from 65520 on infinite. */
function float16Bits(x: Value): Value {
  const bits = e.bitcast(x, "u32");
  const magnitude = e.and(bits, u(0x7fffffff));
  const odd = e.and(e.shr(magnitude, u(13)), u(1));
  const normal = e.shr(e.add(e.add(magnitude, odd), u(0x100000000 - (112 << 23) + 0xfff)), u(13));
  // Below 2^-14: adding 0.5 aligns the mantissa to units of 2^-24 and rounds.
  const small = e.sub(e.bitcast(e.add(e.bitcast(magnitude, "f32"), e.const("f32", 0.5)), "u32"), u(0x3f000000));
  const large = e.select(e.gt(magnitude, u(0x7f800000)), u(0x7e00), u(0x7c00));
  const finite = e.select(e.lt(magnitude, u(113 << 23)), small, normal);
  const result = e.select(e.ge(magnitude, u(143 << 23)), large, finite);
  return e.or(result, e.and(e.shr(bits, u(16)), u(0x8000)));
}

function lowerConvert(a: Value, v: Value): Value {
  const to = v.type;
  if (a.type === "bool") return e.select(a, e.const(to, 1), e.const(to, 0));
  if (isFloatType(a.type) && (to === "u32" || to === "u64")) {
    const signed = e.bitcast(e.convert(a, to === "u32" ? "i32" : "i64"), to);
    return e.select(e.lt(a, e.like(a, 0)), signed, e.convert(a, to));
  }
  return e.convert(a, to);
}

const isZero32 = (v: Value): boolean => v.op === "const" && v.type === "f32" && Number(v.imm) === 0;
/** Where a comparison may take a subnormal number for 0, the bits below the sign tell whether a float32 is 0. */
function lowerEquality(op: "eq" | "ne", a: Value, b: Value): Value {
  if (target.subnormals || isZero32(a) === isZero32(b)) return e[op](a, b);
  return e[op](e.and(e.bitcast(isZero32(a) ? b : a, "u32"), u(0x7fffffff)), u(0));
}

/** Orders u64 as i64. */
const flipSign = (a: Value): Value => e.bitcast(e.xor(a, e.const("u64", 1n << 63n)), "i64");

function lowerExtreme(op: "min" | "max" | "pmin" | "pmax", a: Value, b: Value): Value {
  if (isFloatType(a.type)) {
    if (op === "pmin" || op === "pmax") return e[op](a, b);
    const better = op === "min" ? e.lt(a, b) : e.gt(a, b);
    return e.select(e.or(better, e.ne(a, a)), a, b);
  }
  const min = op === "min" || op === "pmin";
  if (!isWide(a.type)) return min ? e.min(a, b) : e.max(a, b);
  const [x, y] = a.type === "u64" ? [flipSign(a), flipSign(b)] : [a, b];
  return e.select(min ? e.lt(x, y) : e.gt(x, y), a, b);
}

function lowerQuotient(a: Value, b: Value): Value {
  const zero = e.like(a, 0);
  const none = e.eq(b, zero);
  const signed = a.type === "i32" || a.type === "i64";
  const minusOne = e.like(a, -1);
  let q: Value;
  if (isWide(a.type) || target.division32) {
    // The scalar instruction traps on these divisors.
    const bad = signed ? e.or(none, e.eq(b, minusOne)) : none;
    q = e.quot(a, e.select(bad, e.like(a, 1), b));
  } else {
    // The quotient of 32-bit integers, truncated, is exact in float64.
    q = e.convert(e.trunc(e.div(e.convert(a, "f64"), e.convert(b, "f64"))), a.type);
  }
  if (signed) q = e.select(e.eq(b, minusOne), e.neg(a), q);
  return e.select(none, zero, q);
}
