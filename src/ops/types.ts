/** Facts about dtypes and shapes: finfo, iinfo, resultType, canCast, isdtype, broadcastShapes. */
import { MxArray } from "../core/array.ts";
import {
  Dtype, type DtypeName, bool, complex64, complexfloating, float32, floating, integer, issubdtype, number, promote, signedinteger, unsignedinteger,
} from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { broadcastShapes as broadcast } from "../core/shape.ts";
import { requireDtype } from "./convert.ts";

export interface FloatInfo {
  /** float32 for complex64, whose parts are float32. */
  readonly dtype: Dtype;
  readonly bits: number;
  /** Smallest and largest finite value. */
  readonly min: number;
  readonly max: number;
  /** Distance from 1 to the next larger value. */
  readonly eps: number;
  /** Smallest positive value with full precision. */
  readonly smallestNormal: number;
}
/** Bits of the significand behind the point, and of the largest exponent. */
const floats: Partial<Record<DtypeName, readonly [fraction: number, exponent: number]>> = { float16: [10, 15], bfloat16: [7, 127], float32: [23, 127], float64: [52, 1023] };

/** Limits of a floating point type. Throws for other types. */
export function finfo(dtype: Dtype): FloatInfo {
  const given = requireDtype("finfo", dtype);
  const d = given === complex64 ? float32 : given;
  const sizes = floats[d.name];
  if (!sizes) throw opError("finfo", `dtype must be a floating point type, got ${d}`);
  const [fraction, exponent] = sizes;
  const max = (2 - 2 ** -fraction) * 2 ** exponent;
  return { dtype: d, bits: 8 * d.size, min: -max, max, eps: 2 ** -fraction, smallestNormal: 2 ** (1 - exponent) };
}

export interface IntegerInfo {
  readonly dtype: Dtype;
  /** Smallest and largest value; for 64-bit types the nearest numbers that JavaScript has. */
  readonly min: number;
  readonly max: number;
}
/** Limits of an integer type. Throws for other types. */
export function iinfo(dtype: Dtype): IntegerInfo {
  const d = requireDtype("iinfo", dtype);
  if (!d.isInteger) throw opError("iinfo", `dtype must be an integer type, got ${d}`);
  const bits = 8 * d.size;
  return d.kind === "signed" ? { dtype: d, min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 } : { dtype: d, min: 0, max: 2 ** bits - 1 };
}

const dtypeOf = (op: string, x: MxArray | Dtype): Dtype => (x instanceof MxArray ? x.dtype : requireDtype(op, x));

/** The dtype that arrays and dtypes promote to when they meet in one operation. */
export function resultType(...arraysAndDtypes: (MxArray | Dtype)[]): Dtype {
  if (arraysAndDtypes.length === 0) throw opError("resultType", "at least one array or dtype is required, got none");
  return arraysAndDtypes.map((x) => dtypeOf("resultType", x)).reduce(promote);
}

/** True when promotion with `to` gives `to`: values of the first type can be converted without another type taking its place. */
export function canCast(from: MxArray | Dtype, to: Dtype): boolean {
  return promote(dtypeOf("canCast", from), requireDtype("canCast", to)) === to;
}

const kinds: Readonly<Record<string, (d: Dtype) => boolean>> = {
  bool: (d) => d === bool,
  "signed integer": (d) => issubdtype(d, signedinteger),
  "unsigned integer": (d) => issubdtype(d, unsignedinteger),
  integral: (d) => issubdtype(d, integer),
  "real floating": (d) => issubdtype(d, floating),
  "complex floating": (d) => issubdtype(d, complexfloating),
  numeric: (d) => issubdtype(d, number),
};
/** True when a dtype is of a kind, or of one of several: a dtype, or "bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating", "numeric". */
export function isdtype(dtype: Dtype, kind: Dtype | string | readonly (Dtype | string)[]): boolean {
  const d = requireDtype("isdtype", dtype);
  if (Array.isArray(kind)) return kind.some((k: Dtype | string) => isdtype(d, k));
  if (kind instanceof Dtype) return d === kind;
  const test = typeof kind === "string" && Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
  if (!test) throw opError("isdtype", `kind must be a dtype or one of ${Object.keys(kinds).join(", ")}, got ${JSON.stringify(kind)}`);
  return test(d);
}

/** The shape that shapes broadcast to: sizes are aligned at the end, and a size of 1 stretches. Throws when sizes differ otherwise. */
export function broadcastShapes(...shapes: readonly (readonly number[])[]): number[] {
  if (shapes.length === 0) throw opError("broadcastShapes", "at least one shape is required, got none");
  return broadcast("broadcastShapes", ...shapes);
}
