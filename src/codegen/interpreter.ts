/**
 * Generated kernels without code generation: the lowered formula, computed element by element in JavaScript. Gives the bits that the compiled kernel gives, slowly;
 * MLX_DISABLE=wasm/generated takes it in place of compiled kernels.
 */
import type { Dtype } from "../core/dtype.ts";
import { type ScalarType, type Value, reachable } from "../core/expr.ts";
import type { Group } from "./elementwise.ts";
import { lower } from "./lower.ts";

/** A register's content: bool as 0 and 1, 64-bit integers as bigint. */
type Cell = number | bigint;
type Step = (r: Cell[]) => Cell;

const scratch = new DataView(new ArrayBuffer(8));
const wrap = (type: ScalarType, x: Cell): Cell => {
  switch (type) {
    case "f32": return Math.fround(x as number);
    case "i32": return Number(x) | 0;
    case "u32": return Number(x) >>> 0;
    case "i64": return BigInt.asIntN(64, x as bigint);
    case "u64": return BigInt.asUintN(64, x as bigint);
    default: return x;
  }
};
/** a * b + c of float32 numbers, rounded once: the product is exact in float64, and a sum that is not is made odd in its last place, so that rounding again does no harm. */
function fusedMultiplyAdd(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  const part = sum - product;
  const lost = product - (sum - part) + (c - part);
  // Also false where the sum is not finite.
  if (!(Math.abs(lost) > 0)) return Math.fround(sum);
  scratch.setFloat64(0, sum);
  const bits = scratch.getBigInt64(0);
  if ((bits & 1n) === 0n) scratch.setBigInt64(0, bits + (lost > 0 === sum > 0 ? 1n : -1n));
  return Math.fround(scratch.getFloat64(0));
}
const wideTypes: ReadonlySet<ScalarType> = new Set(["i64", "u64"]);
/** Nearest integer, halves to even, keeping the sign of zero. */
function nearest(x: number): number {
  const down = Math.floor(x);
  const part = x - down;
  const up = part > 0.5 || (part === 0.5 && down % 2 !== 0);
  const y = up ? down + 1 : down;
  return y === 0 && (x < 0 || Object.is(x, -0)) ? -0 : y;
}

/** Integers do not care which way a bit pattern is signed; `as never` because both kinds of cell have the operators. */
function arithmetic(op: string, type: ScalarType): ((a: never, b: never) => Cell) | undefined {
  const wide = wideTypes.has(type);
  switch (op) {
    case "add": return (a, b) => wrap(type, (a as number) + (b as number));
    case "sub": return (a, b) => wrap(type, (a as number) - (b as number));
    case "mul": return type === "i32" || type === "u32" ? (a, b) => wrap(type, Math.imul(a, b)) : (a, b) => wrap(type, (a as number) * (b as number));
    case "div": case "quot": return (a, b) => wrap(type, (a as number) / (b as number));
    case "neg": return (a) => wrap(type, -(a as number));
    case "abs": return (a) => wrap(type, (a as number) < 0 || Object.is(a, -0) ? -(a as number) : a);
    case "sqrt": return (a) => wrap(type, Math.sqrt(a));
    case "floor": return Math.floor;
    case "ceil": return Math.ceil;
    case "trunc": return Math.trunc;
    case "round": return nearest;
    case "min": case "pmin": return (a, b) => (b < a ? b : a);
    case "max": case "pmax": return (a, b) => (a < b ? b : a);
    case "and": return (a, b) => wrap(type, (a as number) & (b as number));
    case "or": return (a, b) => wrap(type, (a as number) | (b as number));
    case "xor": return (a, b) => wrap(type, (a as number) ^ (b as number));
    case "not": return type === "bool" ? (a) => Number(!a) : (a) => wrap(type, ~(a as number));
    case "shl": return wide ? (a, b) => wrap(type, (a as bigint) << ((b as bigint) & 63n)) : (a, b) => wrap(type, (a as number) << (b as number));
    case "shr":
      if (wide) return (a, b) => wrap(type, (a as bigint) >> ((b as bigint) & 63n));
      return type === "u32" ? (a, b) => (a as number) >>> (b as number) : (a, b) => (a as number) >> (b as number);
    default: return undefined;
  }
}
function comparison(op: string): ((a: Cell, b: Cell) => number) | undefined {
  switch (op) {
    case "eq": return (a, b) => Number(a === b);
    case "ne": return (a, b) => Number(a !== b);
    case "lt": return (a, b) => Number(a < b);
    case "le": return (a, b) => Number(a <= b);
    case "gt": return (a, b) => Number(a > b);
    case "ge": return (a, b) => Number(a >= b);
    default: return undefined;
  }
}

/** Float to integer truncates, NaN gives 0, values out of range saturate; all else wraps or rounds. */
function converted(x: Cell, from: ScalarType, to: ScalarType): Cell {
  const fromFloat = from === "f32" || from === "f64";
  if (to === "f32" || to === "f64") return wrap(to, typeof x === "bigint" ? exactFloat(x, to) : x);
  if (fromFloat) {
    const bits = wideTypes.has(to) ? 64 : 32;
    const low = to[0] === "u" ? 0 : -(2 ** (bits - 1));
    const high = to[0] === "u" ? 2 ** bits : 2 ** (bits - 1);
    const t = Math.trunc(x as number);
    const inside = Number.isNaN(t) ? 0 : Math.min(Math.max(t, low), high);
    if (bits === 32) return wrap(to, inside >= high ? high - 1 : inside);
    return inside >= high ? BigInt(high) - 1n : BigInt(inside);
  }
  return wideTypes.has(to) ? wrap(to, BigInt(x)) : wrap(to, Number(BigInt.asIntN(32, BigInt(x))));
}
/** A 64-bit integer rounded once: by way of float64 it would be rounded twice. */
function exactFloat(x: bigint, to: ScalarType): number {
  if (to === "f64") return Number(x);
  const bits = (x < 0n ? -x : x).toString(2).length;
  if (bits <= 53) return Number(x);
  // Odd in the last place that float64 holds: keeps halves apart from what is above them (rounding to odd).
  const drop = BigInt(bits - 53);
  const kept = x >> drop;
  return Number((kept << drop) === x ? kept : kept | 1n) * 2 ** Number(drop);
}

function recast(x: Cell, from: ScalarType, to: ScalarType): Cell {
  if (wideTypes.has(from)) scratch.setBigUint64(0, BigInt.asUintN(64, x as bigint));
  else if (from === "f32") scratch.setFloat32(0, x as number);
  else if (from === "f64") scratch.setFloat64(0, x as number);
  else scratch.setInt32(0, (x as number) | 0);
  switch (to) {
    case "f32": return scratch.getFloat32(0);
    case "f64": return scratch.getFloat64(0);
    case "i64": return scratch.getBigInt64(0);
    case "u64": return scratch.getBigUint64(0);
    case "u32": return scratch.getUint32(0);
    default: return scratch.getInt32(0);
  }
}

/** One operation on registers. `load` reads an element of an input. */
function stepOf(v: Value, args: readonly number[], load: (input: number, dtype: Dtype) => Cell): Step {
  const [a = 0, b = 0, c = 0] = args;
  const from = v.args[0]?.type as ScalarType;
  switch (v.op) {
    case "const": return () => v.imm;
    case "input": return () => load(Number(v.imm), v.dtype as Dtype);
    case "select": case "rare": return (r) => (r[a] ? r[b] : r[c]) as Cell;
    case "convert": return (r) => converted(r[a] as Cell, from, v.type);
    case "bitcast": return (r) => recast(r[a] as Cell, from, v.type);
    default: break;
  }
  if (v.op === "fma") return (r) => fusedMultiplyAdd(r[a] as number, r[b] as number, r[c] as number);
  if (v.op === "fnma") return (r) => fusedMultiplyAdd(-(r[a] as number), r[b] as number, r[c] as number);
  const compare = comparison(v.op);
  if (compare) return (r) => compare(r[a] as Cell, r[b] as Cell);
  const f = arithmetic(v.op, v.type);
  if (!f) throw new Error(`the interpreter has no ${v.op}.${v.type}`);
  return (r) => f(r[a] as never, r[b] as never);
}

const getters: Readonly<Record<string, (d: DataView, at: number) => Cell>> = {
  bool: (d, i) => d.getUint8(i), uint8: (d, i) => d.getUint8(i), int8: (d, i) => d.getInt8(i), uint16: (d, i) => d.getUint16(i, true), int16: (d, i) => d.getInt16(i, true),
  uint32: (d, i) => d.getUint32(i, true), int32: (d, i) => d.getInt32(i, true), uint64: (d, i) => d.getBigUint64(i, true), int64: (d, i) => d.getBigInt64(i, true),
  float32: (d, i) => d.getFloat32(i, true), float64: (d, i) => d.getFloat64(i, true),
};
function store(d: DataView, at: number, bytes: number, type: ScalarType, x: Cell): void {
  const raw = type === "f32" || type === "f64" ? recast(x, type, type === "f32" ? "u32" : "u64") : x;
  if (bytes === 8) d.setBigUint64(at, BigInt.asUintN(64, BigInt(raw)), true);
  else if (bytes === 4) d.setInt32(at, Number(raw) | 0, true);
  else if (bytes === 2) d.setInt16(at, Number(raw), true);
  else d.setInt8(at, Number(raw));
}

/** Where operands lie: a view of the memory, and the byte of the first element. */
export interface Place {
  readonly data: DataView;
  readonly at: number;
}

/** Computes a group. Outputs are row-major; they may lie over inputs as with the compiled kernel, since each element is read before it is written. */
export function interpretGroup(group: Group, inputs: readonly Place[], outputs: readonly Place[]): void {
  const stored = lower(group.outputs);
  const order = reachable(stored.map((s) => s.value));
  const register = new Map(order.map((v, i) => [v, i]));
  const at = new Array<number>(inputs.length).fill(0);
  const load = (i: number, dtype: Dtype): Cell => (getters[dtype.name] as (d: DataView, k: number) => Cell)((inputs[i] as Place).data, at[i] as number);
  const steps = order.map((v) => stepOf(v, v.args.map((x) => register.get(x) as number), load));
  const r = new Array<Cell>(order.length).fill(0);
  const size = group.shape.reduce((x, y) => x * y, 1);
  const index = group.shape.map(() => 0);
  for (let i = 0; i < size; i++) {
    group.inputs.forEach((input, k) => {
      at[k] = (inputs[k] as Place).at + index.reduce((sum, x, d) => sum + x * (input.strides[d] as number), 0) * input.dtype.size;
    });
    for (let k = 0; k < steps.length; k++) r[k] = (steps[k] as Step)(r);
    stored.forEach((s, k) => {
      const { data, at: base } = outputs[k] as Place;
      store(data, base + i * s.bytes, s.bytes, s.value.type, r[register.get(s.value) as number] as Cell);
    });
    for (let d = index.length - 1; d >= 0; d--) {
      index[d] = (index[d] as number) + 1;
      if ((index[d] as number) < (group.shape[d] as number)) break;
      index[d] = 0;
    }
  }
}
