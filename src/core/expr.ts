/**
 * Scalar expressions: the formula of an elementwise op, or of several fused ones, as an SSA graph. Backend-neutral: codegen turns a
 * graph into a kernel for its target. Nodes are interned for the whole process, so equal expressions are the same object, common
 * subexpressions cost nothing, and ids can stand for structure in cache keys.
 */
import { type Dtype, dtypes } from "./dtype.ts";

/** Types that arithmetic is done in. `c64` is a pair of f32: it is put together, taken apart and selected; formulas compute with the parts. */
export type ScalarType = "bool" | "i32" | "u32" | "i64" | "u64" | "f32" | "f64" | "c64";

/** Mathematical functions; codegen/math.ts gives each one as basic operations. */
export type MathOp =
  | "exp" | "expm1" | "log" | "log1p" | "log2" | "log10" | "sin" | "cos" | "tan" | "asin" | "acos" | "atan"
  | "sinh" | "cosh" | "tanh" | "asinh" | "acosh" | "atanh" | "erf" | "erfinv" | "sigmoid" | "atan2" | "pow";

/** Operations that every backend provides (the integer quotients through a few others). */
export type BasicOp =
  | "input" | "const" | "narrow" | "convert" | "bitcast" | "select" | "rare" | "complex" | "re" | "im"
  | "add" | "sub" | "mul" | "fma" | "fnma" | "div" | "quot" | "rem" | "neg" | "abs" | "min" | "max" | "pmin" | "pmax"
  | "sqrt" | "floor" | "ceil" | "trunc" | "round"
  | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "and" | "or" | "xor" | "not" | "shl" | "shr";

export type ExprOp = BasicOp | MathOp;

/** A node of the graph. Immutable and unique per structure: compare with `===`. */
export interface Value {
  /** Grows in order of creation, so arguments have smaller ids than their users. Never used twice in a process. */
  readonly id: number;
  readonly op: ExprOp;
  readonly type: ScalarType;
  readonly args: readonly Value[];
  /** input: index of the input. const: the value. */
  readonly imm: number | bigint;
  /** input, narrow: element type. */
  readonly dtype: Dtype | undefined;
}

/** The type in which elements of a dtype are computed. */
export const computeType = (d: Dtype): ScalarType => computeTypes[d.code] as ScalarType;
// Indexed by dtype code; see core/dtype.ts.
const computeTypes: readonly ScalarType[] = [
  "bool", "i32", "i32", "u32", "u64", "i32", "i32", "i32", "i64", "f32", "f32", "f64", "f32", "c64",
];

export const isFloatType = (t: ScalarType): boolean => t === "f32" || t === "f64";
/** True for types of 8 bytes. */
export const isWide = (t: ScalarType): boolean => t === "f64" || t === "i64" || t === "u64";

class Node implements Value {
  readonly id: number;
  readonly op: ExprOp;
  readonly type: ScalarType;
  readonly args: readonly Value[];
  readonly imm: number | bigint;
  readonly dtype: Dtype | undefined;
  constructor(op: ExprOp, type: ScalarType, args: readonly Value[], imm: number | bigint, dtype: Dtype | undefined) {
    this.id = nextId++;
    this.op = op;
    this.type = type;
    this.args = args;
    this.imm = imm;
    this.dtype = dtype;
  }
}

let nextId = 1;
/** Forgotten when full; ids go on, so caches that are keyed by ids stay right and only lose hits. */
const internLimit = 1 << 18;
const idLimit = 1 << 20;
/** Operations with one or two arguments, by (operation and type, ids); all others by text. */
let interned = new Map<number, Node>();
let internedByText = new Map<string, Node>();

const opCodes = new Map<string, number>();
/** Small number for an operation and its type. */
function codeOf(op: ExprOp, type: ScalarType): number {
  const text = op + type;
  let c = opCodes.get(text);
  if (c === undefined) {
    c = opCodes.size;
    opCodes.set(text, c);
  }
  return c;
}

function remember<K>(map: Map<K, Node>, key: K, node: Node): Node {
  if (interned.size + internedByText.size > internLimit) {
    interned = new Map();
    internedByText = new Map();
  } else map.set(key, node);
  return node;
}

function intern(op: ExprOp, type: ScalarType, a: Value, b?: Value): Value {
  if (nextId >= idLimit) return internText(op, type, b ? [a, b] : [a], 0, undefined);
  // 10 bits of operation, 2 x 20 bits of ids: exact in a double.
  const key = (codeOf(op, type) * idLimit + a.id) * idLimit + (b ? b.id : 0);
  const old = interned.get(key);
  if (old) return old;
  return remember(interned, key, new Node(op, type, b ? [a, b] : [a], 0, undefined));
}

function internText(op: ExprOp, type: ScalarType, args: readonly Value[], imm: number | bigint, dtype: Dtype | undefined): Value {
  let key = `${op},${type},${Object.is(imm, -0) ? "-0" : imm},${dtype ? dtype.code : ""}`;
  for (const a of args) key += `,${a.id}`;
  const old = internedByText.get(key);
  if (old) return old;
  return remember(internedByText, key, new Node(op, type, args, imm, dtype));
}

const inputCache: Node[] = [];
const narrowCodes = dtypes.map((d) => `narrow${d.code}` as ExprOp);

const wrap = (type: ScalarType, x: number | bigint): number | bigint => {
  switch (type) {
    case "f32": return Math.fround(Number(x));
    case "f64": return Number(x);
    case "bool": return Number(x) ? 1 : 0;
    case "i32": return Number(x) | 0;
    case "u32": return Number(x) >>> 0;
    case "i64": return BigInt.asIntN(64, toBigInt(x));
    default: return BigInt.asUintN(64, toBigInt(x));
  }
};
const toBigInt = (x: number | bigint): bigint => (typeof x === "bigint" ? x : BigInt(Number.isFinite(x) ? Math.trunc(x) : 0));

/** Folds an operation on constants of the 32-bit types and f64; undefined when it is not folded. */
function fold(op: ExprOp, type: ScalarType, a: number, b: number): number | undefined {
  const float = type === "f32" || type === "f64";
  // A float32 operation done in float64 and rounded again is correctly rounded for these operations.
  switch (op) {
    case "add": return wrap(type, a + b) as number;
    case "sub": return wrap(type, a - b) as number;
    case "mul": return float ? (wrap(type, a * b) as number) : (wrap(type, Math.imul(a, b)) as number);
    case "div": return wrap(type, a / b) as number;
    case "neg": return wrap(type, -a) as number;
    case "sqrt": return wrap(type, Math.sqrt(a)) as number;
    default: return undefined;
  }
}

const foldable = (v: Value): boolean => v.op === "const" && v.type !== "i64" && v.type !== "u64" && v.type !== "bool";

/**
 * Builds expressions. Has no state of its own: all builders share the interned nodes, and `e` of one may take values of another.
 * Arguments of one operation must have the same type unless said otherwise. NaN compares as in IEEE 754.
 */
export class Expr {
  /** Element of input `index` of a group, in the compute type of its dtype (bool: true where the byte is not 0). */
  input(index: number, dtype: Dtype): Value {
    const at = index * 16 + dtype.code;
    const old = inputCache[at];
    if (old) return old;
    const v = new Node("input", computeType(dtype), [], index, dtype);
    inputCache[at] = v;
    return v;
  }
  /** A constant; wraps for integers, rounds for f32. */
  const(type: ScalarType, value: number | bigint | boolean): Value {
    if (type === "c64") return this.complex(this.const("f32", value), this.const("f32", 0));
    return internText("const", type, [], wrap(type, typeof value === "boolean" ? Number(value) : value), undefined);
  }
  /** A constant of the type of `v`. */
  like(v: Value, value: number | bigint | boolean): Value {
    return this.const(v.type, value);
  }

  add(a: Value, b: Value): Value {
    return this.arith("add", a, b);
  }
  sub(a: Value, b: Value): Value {
    return this.arith("sub", a, b);
  }
  mul(a: Value, b: Value): Value {
    return this.arith("mul", a, b);
  }
  /** Division of floats. */
  div(a: Value, b: Value): Value {
    return this.arith("div", a, b);
  }
  /** Quotient of integers, truncated toward 0; 0 where b is 0; wraps for the most negative number divided by -1. */
  quot(a: Value, b: Value): Value {
    return this.arith("quot", a, b);
  }
  /** a - quot(a, b) * b of integers; 0 where b is 0. */
  rem(a: Value, b: Value): Value {
    return this.arith("rem", a, b);
  }
  /** a * b + c, rounded twice. */
  madd(a: Value, b: Value, c: Value): Value {
    return this.add(this.mul(a, b), c);
  }
  /** a * b + c of float32, rounded once. For codegen/math.ts, on targets that have it: what ops write has the same bits everywhere. */
  fma(a: Value, b: Value, c: Value): Value {
    return this.fused("fma", a, b, c);
  }
  /** c - a * b of float32, rounded once. */
  fnma(a: Value, b: Value, c: Value): Value {
    return this.fused("fnma", a, b, c);
  }
  neg(a: Value): Value {
    return foldable(a) ? this.const(a.type, fold("neg", a.type, a.imm as number, 0) as number) : intern("neg", a.type, a);
  }
  abs(a: Value): Value {
    return a.type === "u32" || a.type === "u64" ? a : intern("abs", a.type, a);
  }
  /** Smaller of two; NaN when one is NaN. */
  min(a: Value, b: Value): Value {
    return this.arith("min", a, b);
  }
  /** Greater of two; NaN when one is NaN. */
  max(a: Value, b: Value): Value {
    return this.arith("max", a, b);
  }
  /** `b < a ? b : a`: one machine instruction for floats. */
  pmin(a: Value, b: Value): Value {
    return this.arith("pmin", a, b);
  }
  /** `a < b ? b : a`. */
  pmax(a: Value, b: Value): Value {
    return this.arith("pmax", a, b);
  }
  sqrt(a: Value): Value {
    return foldable(a) ? this.const(a.type, fold("sqrt", a.type, a.imm as number, 0) as number) : intern("sqrt", a.type, a);
  }
  floor(a: Value): Value {
    return this.rounding("floor", a);
  }
  ceil(a: Value): Value {
    return this.rounding("ceil", a);
  }
  trunc(a: Value): Value {
    return this.rounding("trunc", a);
  }
  /** To the nearest integer, halves to even. */
  round(a: Value): Value {
    return this.rounding("round", a);
  }

  eq(a: Value, b: Value): Value {
    return this.compare("eq", a, b);
  }
  ne(a: Value, b: Value): Value {
    return this.compare("ne", a, b);
  }
  lt(a: Value, b: Value): Value {
    return this.compare("lt", a, b);
  }
  le(a: Value, b: Value): Value {
    return this.compare("le", a, b);
  }
  gt(a: Value, b: Value): Value {
    return this.compare("gt", a, b);
  }
  ge(a: Value, b: Value): Value {
    return this.compare("ge", a, b);
  }
  isNaN(a: Value): Value {
    return isFloatType(a.type) ? this.ne(a, a) : this.const("bool", false);
  }
  /** Bitwise on integers, logical on bool. */
  and(a: Value, b: Value): Value {
    return this.arith("and", a, b);
  }
  or(a: Value, b: Value): Value {
    return this.arith("or", a, b);
  }
  xor(a: Value, b: Value): Value {
    return this.arith("xor", a, b);
  }
  not(a: Value): Value {
    return a.op === "not" ? (a.args[0] as Value) : intern("not", a.type, a);
  }
  /** Shift of an integer by b bits; b has the same type and counts modulo the width. */
  shl(a: Value, b: Value): Value {
    return this.arith("shl", a, b);
  }
  /** Shift to the right: keeps the sign of signed types. */
  shr(a: Value, b: Value): Value {
    return this.arith("shr", a, b);
  }
  /** re + i im, both f32. */
  complex(re: Value, im: Value): Value {
    return re.op === "re" && im.op === "im" && re.args[0] === im.args[0] ? (re.args[0] as Value) : intern("complex", "c64", re, im);
  }
  /** Real part of a c64, as f32. */
  re(a: Value): Value {
    return a.op === "complex" ? (a.args[0] as Value) : intern("re", "f32", a);
  }
  /** Imaginary part of a c64, as f32. */
  im(a: Value): Value {
    return a.op === "complex" ? (a.args[1] as Value) : intern("im", "f32", a);
  }
  /** `condition` is bool; a and b have the type of the result. */
  select(condition: Value, a: Value, b: Value): Value {
    if (condition.type !== "bool") throw new Error(`select: condition must be bool, got ${condition.type}`);
    same("select", a, b);
    if (a === b) return a;
    if (condition.op === "const") return condition.imm ? a : b;
    if (a.type === "c64") return this.complex(this.select(condition, this.re(a), this.re(b)), this.select(condition, this.im(a), this.im(b)));
    return internText("select", a.type, [condition, a, b], 0, undefined);
  }

  /**
   * `select` of which `a` is hardly ever taken: a kernel may compute it only where the condition holds for an element at hand, and computes it with `common` of its
   * arguments elsewhere. For codegen/math.ts; formulas of ops have no branches.
   */
  rare(condition: Value, a: Value, common: Value): Value {
    const v = this.select(condition, a, common);
    return v.op === "select" && v.args[0] === condition ? internText("rare", v.type, v.args, 0, undefined) : v;
  }
  /** The operation of `v` on other arguments of the same types. */
  again(v: Value, args: readonly Value[]): Value {
    if (args.every((a, i) => a === v.args[i])) return v;
    const [a, b, c] = args as [Value, Value, Value];
    if (v.op === "select" || v.op === "rare" || v.op === "fma" || v.op === "fnma") return this[v.op](a, b, c);
    return v.op === "narrow" ? this.narrow(a, v.dtype as Dtype) : intern(v.op, v.type, a, b);
  }

  /**
   * Conversion of the value: integers wrap, floats round to nearest even, float to integer truncates (NaN gives 0, values out of
   * range saturate; negative ones wrap in unsigned types down to the signed minimum), anything to bool is `!= 0`. A c64 gives its real part.
   */
  convert(a: Value, type: ScalarType): Value {
    if (a.type === type) return a;
    if (type === "c64") return this.complex(this.convert(a, "f32"), this.const("f32", 0));
    if (a.type === "c64") return this.convert(this.re(a), type);
    if (type === "bool") return this.ne(a, this.const(a.type, 0));
    if (foldable(a) && isFloatType(type)) return this.const(type, a.imm);
    return intern("convert", type, a);
  }
  /** The same bits in another type of the same size. */
  bitcast(a: Value, type: ScalarType): Value {
    return a.type === type ? a : intern("bitcast", type, a);
  }
  /**
   * What is left of a value after it was stored as `dtype` and loaded again: 8- and 16-bit integers wrap, float16 and bfloat16 round.
   * Between fused ops it must stand for the integers, and for the floats where results must not depend on fusion.
   */
  narrow(a: Value, dtype: Dtype): Value {
    if (dtype.size > 2 || dtype.kind === "bool") return a;
    if ((a.op === "narrow" || a.op === "input") && a.dtype === dtype) return a;
    if (a.op === "select" && isNarrow(a.args[1] as Value, dtype) && isNarrow(a.args[2] as Value, dtype)) return a;
    const code = narrowCodes[dtype.code] as ExprOp;
    if (nextId >= idLimit) return internText("narrow", a.type, [a], 0, dtype);
    const key = (codeOf(code, a.type) * idLimit + a.id) * idLimit;
    return interned.get(key) ?? remember(interned, key, new Node("narrow", a.type, [a], 0, dtype));
  }
  /** `astype`: the value as it would be after a store in `dtype`. */
  cast(a: Value, dtype: Dtype): Value {
    return this.narrow(this.convert(a, computeType(dtype)), dtype);
  }
  /** A mathematical function of one float. */
  math(op: Exclude<MathOp, "atan2" | "pow">, a: Value): Value {
    if (!isFloatType(a.type)) throw new Error(`${op}: argument must be a float, got ${a.type}`);
    return intern(op, a.type, a);
  }
  exp(a: Value): Value {
    return this.math("exp", a);
  }
  log(a: Value): Value {
    return this.math("log", a);
  }
  log1p(a: Value): Value {
    return this.math("log1p", a);
  }
  tanh(a: Value): Value {
    return this.math("tanh", a);
  }
  erf(a: Value): Value {
    return this.math("erf", a);
  }
  /** 1 / (1 + exp(-a)) */
  sigmoid(a: Value): Value {
    return this.math("sigmoid", a);
  }
  /** Angle of the point (x, y) in -pi .. pi. */
  atan2(y: Value, x: Value): Value {
    return this.arith("atan2", y, x);
  }
  /** a to the power b, for floats; the rules of C's pow for special values. */
  pow(a: Value, b: Value): Value {
    return this.arith("pow", a, b);
  }

  private arith(op: ExprOp, a: Value, b: Value): Value {
    same(op, a, b);
    if (foldable(a) && foldable(b)) {
      const x = fold(op, a.type, a.imm as number, b.imm as number);
      if (x !== undefined) return this.const(a.type, x);
    }
    return intern(op, a.type, a, b);
  }
  private fused(op: "fma" | "fnma", a: Value, b: Value, c: Value): Value {
    same(op, a, b);
    same(op, b, c);
    return internText(op, a.type, [a, b, c], 0, undefined);
  }
  private rounding(op: "floor" | "ceil" | "trunc" | "round", a: Value): Value {
    return isFloatType(a.type) ? intern(op, a.type, a) : a;
  }
  private compare(op: ExprOp, a: Value, b: Value): Value {
    same(op, a, b);
    return intern(op, "bool", a, b);
  }
}

/** True when storing as `dtype` does not change the value. */
function isNarrow(v: Value, dtype: Dtype): boolean {
  return (v.op === "narrow" || v.op === "input") && v.dtype === dtype;
}

function same(op: ExprOp, a: Value, b: Value): void {
  if (a.type !== b.type) throw new Error(`${op}: types must be equal, got ${a.type} and ${b.type}`);
}

/** The builder that everybody may use. */
export const expr = new Expr();

/** Nodes that the values need, arguments first. */
export function reachable(values: readonly Value[]): Value[] {
  const seen = new Set<Value>(values);
  for (const v of seen) for (const a of v.args) seen.add(a);
  return [...seen].sort((a, b) => a.id - b.id);
}

/** Readable program, one node per line, numbered from 0: independent of ids. For traces and tests. */
export function exprText(values: readonly Value[]): string {
  const order = reachable(values);
  const number = new Map(order.map((v, i) => [v, i]));
  const lines = order.map((v, i) => {
    const args = v.args.map((a) => `%${number.get(a)}`);
    if (v.op === "input" || v.op === "const") args.push(Object.is(v.imm, -0) ? "-0" : String(v.imm));
    if (v.dtype) args.push(v.dtype.name);
    return `%${i} = ${v.op}.${v.type} ${args.join(" ")}`;
  });
  return [...lines, `return ${values.map((v) => `%${number.get(v)}`).join(" ")}`].join("\n");
}
