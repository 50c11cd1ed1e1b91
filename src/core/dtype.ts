/** Element types: sizes, categories, promotion, conversion of single values. */

export type DtypeName =
  | "bool" | "uint8" | "uint16" | "uint32" | "uint64" | "int8" | "int16" | "int32" | "int64"
  | "float16" | "float32" | "float64" | "bfloat16" | "complex64";

export type DtypeKind = "bool" | "unsigned" | "signed" | "float" | "complex";

/** An element type. Each is a singleton: compare with `===`. */
export class Dtype {
  readonly name: DtypeName;
  /** Bytes of one element. */
  readonly size: number;
  readonly kind: DtypeKind;
  /** Number that kernels get for this type (see assembly/README.md). */
  readonly code: number;
  constructor(name: DtypeName, size: number, kind: DtypeKind, code: number) {
    this.name = name;
    this.size = size;
    this.kind = kind;
    this.code = code;
    Object.freeze(this);
  }
  toString(): string {
    return this.name;
  }
  /** True for float16, bfloat16, float32, float64. */
  get isFloat(): boolean {
    return this.kind === "float";
  }
  /** True for float and complex types. */
  get isInexact(): boolean {
    return this.kind === "float" || this.kind === "complex";
  }
  /** True for signed and unsigned integers, not for bool. */
  get isInteger(): boolean {
    return this.kind === "signed" || this.kind === "unsigned";
  }
}

export const bool = new Dtype("bool", 1, "bool", 0);
export const uint8 = new Dtype("uint8", 1, "unsigned", 1);
export const uint16 = new Dtype("uint16", 2, "unsigned", 2);
export const uint32 = new Dtype("uint32", 4, "unsigned", 3);
export const uint64 = new Dtype("uint64", 8, "unsigned", 4);
export const int8 = new Dtype("int8", 1, "signed", 5);
export const int16 = new Dtype("int16", 2, "signed", 6);
export const int32 = new Dtype("int32", 4, "signed", 7);
export const int64 = new Dtype("int64", 8, "signed", 8);
export const float16 = new Dtype("float16", 2, "float", 9);
export const float32 = new Dtype("float32", 4, "float", 10);
export const float64 = new Dtype("float64", 8, "float", 11);
export const bfloat16 = new Dtype("bfloat16", 2, "float", 12);
export const complex64 = new Dtype("complex64", 8, "complex", 13);

/** All types, at the index of their code. */
export const dtypes: readonly Dtype[] = [
  bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, float32, float64, bfloat16, complex64,
];
const byName = new Map<string, Dtype>(dtypes.map((d) => [d.name, d]));

/** The type of this name, or undefined. */
export const dtypeNamed = (name: string): Dtype | undefined => byName.get(name);

/** A group of types, for `issubdtype`. */
export class DtypeCategory {
  readonly name: string;
  readonly parent: DtypeCategory | undefined;
  constructor(name: string, parent?: DtypeCategory) {
    this.name = name;
    this.parent = parent;
    Object.freeze(this);
  }
  toString(): string {
    return this.name;
  }
}
export const generic = new DtypeCategory("generic");
export const number = new DtypeCategory("number", generic);
export const integer = new DtypeCategory("integer", number);
export const signedinteger = new DtypeCategory("signedinteger", integer);
export const unsignedinteger = new DtypeCategory("unsignedinteger", integer);
export const inexact = new DtypeCategory("inexact", number);
export const floating = new DtypeCategory("floating", inexact);
export const complexfloating = new DtypeCategory("complexfloating", inexact);

const categoryOf = (d: Dtype): DtypeCategory => {
  if (d.kind === "bool") return generic;
  if (d.kind === "unsigned") return unsignedinteger;
  if (d.kind === "signed") return signedinteger;
  return d.kind === "float" ? floating : complexfloating;
};

/** True when `a` is `b` or belongs to the category `b`. */
export function issubdtype(a: Dtype | DtypeCategory, b: Dtype | DtypeCategory): boolean {
  if (b instanceof Dtype) return a === b;
  for (let c: DtypeCategory | undefined = a instanceof Dtype ? categoryOf(a) : a; c; c = c.parent) if (c === b) return true;
  return false;
}

const signedOf: Readonly<Record<number, Dtype>> = { 1: int8, 2: int16, 4: int32, 8: int64 };

/**
 * The type both operands are converted to. MLX's table: a float wins over any integer; two different 16-bit floats give float32;
 * signed with unsigned gives the next wider signed type, uint64 with a signed type gives float32.
 */
export function promote(a: Dtype, b: Dtype): Dtype {
  if (a === b) return a;
  if (a.kind === "complex" || b.kind === "complex") return complex64;
  if (a.kind === "float" || b.kind === "float") {
    if (a.kind !== "float") return b;
    if (b.kind !== "float") return a;
    if (a.size === 2 && b.size === 2) return float32;
    return a.size > b.size ? a : b;
  }
  if (a.kind === "bool") return b;
  if (b.kind === "bool") return a;
  if (a.kind === b.kind) return a.size > b.size ? a : b;
  const [u, s] = a.kind === "unsigned" ? [a, b] : [b, a];
  if (s.size > u.size) return s;
  return u.size === 8 ? float32 : (signedOf[u.size * 2] ?? int64);
}

/** Integers and bool become float32; inexact types stay. */
export const toInexact = (d: Dtype): Dtype => (d.isInexact ? d : float32);

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** bfloat16 bits of a number, rounded to nearest even. */
export function toBfloat16Bits(x: number): number {
  f32[0] = x;
  const u = u32[0] as number;
  if ((u & 0x7fffffff) > 0x7f800000) return (u >>> 16) | 0x40;
  return ((u + 0x7fff + ((u >>> 16) & 1)) >>> 16) & 0xffff;
}
export function fromBfloat16Bits(bits: number): number {
  u32[0] = bits << 16;
  return f32[0] as number;
}

/** float16 bits of a number, rounded to nearest even (from float64 directly, so no double rounding). */
export function toFloat16Bits(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  if (Number.isNaN(x)) return 0x7e00;
  const a = Math.abs(x);
  if (a >= 65520) return sign | 0x7c00;
  if (a < 2 ** -14) return sign | roundEven(a * 2 ** 24);
  const e = Math.floor(Math.log2(a));
  const exponent = a < 2 ** e ? e - 1 : a >= 2 ** (e + 1) ? e + 1 : e;
  return sign | (((exponent + 15) << 10) + roundEven((a / 2 ** exponent - 1) * 1024));
}
export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const e = (bits >> 10) & 31;
  const m = bits & 1023;
  if (e === 31) return m ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (e === 0 ? m * 2 ** -24 : (1 + m / 1024) * 2 ** (e - 15));
}
function roundEven(x: number): number {
  const f = Math.floor(x);
  const d = x - f;
  return d > 0.5 || (d === 0.5 && f & 1) ? f + 1 : f;
}

/** The value nearest to `x` that the type can hold, as a number (integers wrap as in C; 64-bit integers lose precision beyond 2^53). */
export function roundTo(d: Dtype, x: number): number {
  switch (d) {
    case float32: case complex64: return Math.fround(x);
    case bfloat16: return fromBfloat16Bits(toBfloat16Bits(x));
    case float16: return fromFloat16Bits(toFloat16Bits(x));
    case float64: return x;
    case bool: return x ? 1 : 0;
    default: break;
  }
  const t = Number.isFinite(x) ? Math.trunc(x) : 0;
  if (d.size === 8) return d.kind === "unsigned" && t < 0 ? t + 2 ** 64 : t;
  const m = 2 ** (8 * d.size);
  const w = ((t % m) + m) % m;
  return d.kind === "signed" && w >= m / 2 ? w - m : w;
}

export type NumericArray =
  | Int8Array | Uint8Array | Uint8ClampedArray | Int16Array | Uint16Array | Int32Array | Uint32Array
  | Float32Array | Float64Array | BigInt64Array | BigUint64Array;

/** The typed array that holds this type's bits (bool: bytes; 16-bit floats: Uint16Array; complex64: pairs in a Float32Array). */
export const bitsArray = {
  bool: Uint8Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  float16: Uint16Array, float32: Float32Array, float64: Float64Array, bfloat16: Uint16Array, complex64: Float32Array,
} as const;
