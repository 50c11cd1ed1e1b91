/**
 * The reductions of a row as formulas: what an element gives, how two partial results become one, what the result is. Extremes are found by unsigned keys in the
 * order of the elements, so that one instruction orders every type and a NaN, which wins, is the outermost key; arguments are pairs of a key and an index.
 */
import { type Dtype, complex64, float32, float64, int32, uint32, uint64 } from "../core/dtype.ts";
import { type ScalarType, type Value, computeType, expr as e, isFloatType, isWide } from "../core/expr.ts";
import { lower } from "./lower.ts";
import type { RowReduce } from "./rows.ts";

/** How a part of two partial results becomes that of both. `first`: the index that goes with the greater key before it, the smaller one of equal keys. */
export type Combination = "add" | "mul" | "min" | "max" | "first";
export interface Part {
  readonly type: "f32" | "f64" | "u32" | "u64";
  readonly combination: Combination;
  /** Changes nothing it is combined with. */
  readonly identity: number | bigint;
  /** What an element gives; not lowered. */
  readonly take: Value;
}
export interface Accumulator {
  readonly parts: readonly Part[];
  /** The result as the dtype's elements are loaded, of `input(j)` for part j; lowered. */
  readonly result: Value;
}

type Word = "u32" | "u64";
const word = (type: ScalarType): Word => (isWide(type) ? "u64" : "u32");
const ones = (type: Word): number | bigint => (type === "u64" ? (1n << 64n) - 1n : 0xffffffff);
const signBit = (type: Word): Value => e.const(type, type === "u64" ? 1n << 63n : 0x80000000);
/** A dtype whose elements are these values as they are. */
export const plainDtype = { f32: float32, f64: float64, u32: uint32, u64: uint64 } as const;

/** Unsigned number in the order of the elements; NaN has none of its own. */
function keyOf(x: Value): Value {
  if (x.type === "bool") return e.select(x, e.const("u32", 1), e.const("u32", 0));
  const type = word(x.type);
  const raw = e.bitcast(x, type);
  const sign = signBit(type);
  if (!isFloatType(x.type)) return x.type === type ? raw : e.xor(raw, sign);
  // -0 is 0.
  const bits = e.select(e.eq(raw, sign), e.const(type, 0), raw);
  return e.select(e.ge(bits, sign), e.not(bits), e.xor(bits, sign));
}
/** The element with this key; that of the outermost ones is a NaN. */
function fromKey(key: Value, type: ScalarType): Value {
  if (type === "bool") return e.ne(key, e.like(key, 0));
  if (!isFloatType(type)) return key.type === type ? key : e.bitcast(e.xor(key, signBit(key.type as Word)), type);
  return e.bitcast(e.select(e.ge(key, signBit(key.type as Word)), e.xor(key, signBit(key.type as Word)), e.not(key)), type);
}
const truth = (x: Value): Value => {
  if (x.type === "bool") return x;
  if (x.type === "c64") return e.or(truth(e.re(x)), truth(e.im(x)));
  return e.ne(x, e.like(x, 0));
};

function partsOf({ rule, value: x, dtype, at }: RowReduce, index: Value): { parts: Part[]; result: Value } {
  if (rule === "sum" || rule === "prod") {
    const compute = computeType(dtype);
    // Sums of integers wrap, so the sign does not matter.
    const type = compute === "f32" || compute === "f64" ? compute : word(compute);
    const total = e.input(0, plainDtype[type]);
    const take = isFloatType(compute) ? e.convert(x, compute) : e.bitcast(e.convert(x, compute), type);
    return { parts: [{ type, combination: rule === "sum" ? "add" : "mul", identity: rule === "sum" ? 0 : 1, take }], result: isFloatType(compute) ? total : e.bitcast(total, compute) };
  }
  if (rule === "all" || rule === "any") {
    const all = rule === "all";
    const take = e.select(truth(x), e.const("u32", 1), e.const("u32", 0));
    return { parts: [{ type: "u32", combination: all ? "min" : "max", identity: all ? 1 : 0, take }], result: e.ne(e.input(0, uint32), e.const("u32", 0)) };
  }
  if (rule === "pick") {
    // Of all elements but one the bits count as 0.
    const take = e.select(e.eq(index, at as Value), e.bitcast(x, "u32"), e.const("u32", 0));
    return { parts: [{ type: "u32", combination: "max", identity: 0, take }], result: e.bitcast(e.input(0, uint32), "f32") };
  }
  const type = word(x.type);
  const [low, high] = [e.const(type, 0), e.const(type, ones(type))];
  const key = keyOf(x);
  if (rule === "max" || rule === "min") {
    const max = rule === "max";
    const take = isFloatType(x.type) ? e.select(e.ne(x, x), max ? high : low, key) : key;
    return { parts: [{ type, combination: rule, identity: max ? 0 : ones(type), take }], result: e.convert(fromKey(e.input(0, plainDtype[type]), x.type), computeType(dtype)) };
  }
  const ordered = rule === "argmax" ? key : e.not(key);
  // Nothing is greater than a NaN at the beginning, and a later one is greater than nothing.
  const take = isFloatType(x.type) ? e.select(e.ne(x, x), e.select(e.eq(index, e.const("u32", 0)), high, low), ordered) : ordered;
  return {
    parts: [
      { type, combination: "max", identity: 0, take },
      { type: "u32", combination: "first", identity: 0xffffffff, take: index },
    ],
    result: e.input(1, uint32),
  };
}

/** `index`: the place of an element in its row, of type u32. A text is the reason why there is none. */
export function accumulatorOf(reduce: RowReduce, index: Value): Accumulator | string {
  const { rule, value, dtype } = reduce;
  if (dtype === complex64 || (value.type === "c64" && rule !== "all" && rule !== "any")) return `cannot: ${rule} of complex numbers`;
  const { parts, result } = partsOf(reduce, index);
  return { parts, result: storedResult(result, dtype) };
}

/** What a load of the dtype would give: whole words, small integers widened. */
function storedResult(x: Value, dtype: Dtype): Value {
  const small = dtype.isInteger && dtype.size < 4;
  const target = small ? int32 : dtype;
  const typed = e.convert(x, computeType(dtype));
  return (lower([{ dtype: target, value: small ? e.narrow(typed, dtype) : typed }], { division32: true, subnormals: false })[0] as { value: Value }).value;
}
