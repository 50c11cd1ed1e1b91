/** Conversion of arguments: what users may pass where an array, an axis list or a stream is expected. */
import { ArrayDesc, MxArray, hostBytes } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import {
  Dtype, type NumericArray, bitsArray, bool, complex64, float32, float64, int16, int32, int64, int8, promote,
  toBfloat16Bits, toFloat16Bits, uint16, uint32, uint64, uint8,
} from "../core/dtype.ts";
import { opError } from "../core/error.ts";

export interface Complex {
  readonly re: number;
  readonly im: number;
}
export type Scalar = number | boolean | Complex;
export type NestedArray = readonly (Scalar | NestedArray)[];
/** Anything that can become an array. */
export type ArrayLike = MxArray | Scalar | NestedArray | NumericArray;

/** A complex number. */
export const complex = (re: number, im = 0): Complex => ({ re, im });

const typedDtypes = new Map<string, Dtype>([
  ["Int8Array", int8], ["Uint8Array", uint8], ["Uint8ClampedArray", uint8], ["Buffer", uint8], ["Int16Array", int16], ["Uint16Array", uint16],
  ["Int32Array", int32], ["Uint32Array", uint32], ["Float32Array", float32], ["Float64Array", float64], ["BigInt64Array", int64], ["BigUint64Array", uint64],
]);

const isComplex = (x: unknown): x is Complex => typeof x === "object" && x !== null && "re" in x;

/** Stores numbers as elements of a dtype; integers wrap as in C. */
export function storeNumbers(bytes: Uint8Array, dtype: Dtype, n: number, value: (i: number) => number): void {
  const Bits = bitsArray[dtype.name];
  const out = new Bits(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / Bits.BYTES_PER_ELEMENT) as unknown as { [i: number]: number | bigint };
  switch (dtype.name) {
    case "bfloat16":
      for (let i = 0; i < n; i++) out[i] = toBfloat16Bits(value(i));
      break;
    case "float16":
      for (let i = 0; i < n; i++) out[i] = toFloat16Bits(value(i));
      break;
    case "int64":
    case "uint64":
      for (let i = 0; i < n; i++) out[i] = toBigInt(value(i));
      break;
    case "bool":
      for (let i = 0; i < n; i++) out[i] = value(i) ? 1 : 0;
      break;
    case "complex64":
      for (let i = 0; i < n; i++) {
        out[2 * i] = value(i);
        out[2 * i + 1] = 0;
      }
      break;
    default:
      for (let i = 0; i < n; i++) out[i] = value(i);
  }
}
const toBigInt = (x: number): bigint => (Number.isFinite(x) ? BigInt(Math.trunc(x)) : 0n);

/** Array of a dtype from row-major numbers. */
export function fromNumbers(shape: readonly number[], dtype: Dtype, values: { readonly [i: number]: number }): MxArray {
  const desc = ArrayDesc.fresh(shape, dtype);
  storeNumbers(hostBytes(desc), dtype, desc.size, (i) => values[i] as number);
  return new MxArray(desc);
}

function fromTyped(data: NumericArray): MxArray {
  const dtype = typedDtypes.get(data.constructor.name) ?? uint8;
  const desc = ArrayDesc.fresh([data.length], dtype);
  hostBytes(desc).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return new MxArray(desc);
}

/** Shape of a rectangular nested Array; its leaves go to `leaves`. */
function flattenNested(value: NestedArray, leaves: Scalar[]): { shape: number[]; arrays: MxArray[] } {
  const shape: number[] = [];
  const arrays: MxArray[] = [];
  for (let v: unknown = value; Array.isArray(v); v = v[0]) shape.push(v.length);
  const walk = (v: unknown, depth: number): void => {
    if (Array.isArray(v)) {
      if (depth >= shape.length || v.length !== shape[depth]) throw new TypeError(`[array] initialisation needs a rectangular nesting of Arrays, got rows of different lengths`);
      for (let i = 0; i < v.length; i++) walk(v[i], depth + 1);
      return;
    }
    if (depth !== shape.length) throw new TypeError("[array] initialisation needs a rectangular nesting of Arrays, got numbers beside Arrays");
    if (v === undefined) leaves.push(0);
    else if (typeof v === "number" || typeof v === "boolean" || isComplex(v)) leaves.push(v);
    else throw new TypeError(`[array] elements must be numbers, booleans or complex numbers, got ${v instanceof MxArray ? "an array" : typeof v}`);
  };
  walk(value, 0);
  return { shape, arrays };
}

function fromNested(value: NestedArray, dtype?: Dtype): MxArray {
  const leaves: Scalar[] = [];
  const { shape } = flattenNested(value, leaves);
  const anyComplex = leaves.some(isComplex);
  const natural = anyComplex ? complex64 : leaves.length > 0 && leaves.every((v) => typeof v === "boolean") ? bool : float32;
  if (anyComplex) {
    if (dtype && dtype !== complex64) throw new TypeError(`[array] complex values need complex64, got ${dtype}`);
    const flat = new Float32Array(2 * leaves.length);
    leaves.forEach((v, i) => {
      flat[2 * i] = isComplex(v) ? v.re : Number(v);
      flat[2 * i + 1] = isComplex(v) ? (v.im ?? 0) : 0;
    });
    const desc = ArrayDesc.fresh(shape, complex64);
    hostBytes(desc).set(new Uint8Array(flat.buffer));
    return new MxArray(desc);
  }
  return fromNumbers(shape, dtype ?? natural, leaves.map(Number));
}

/** The array meant by a value. Numbers become float32 unless `dtype` says otherwise; arrays pass through untouched. */
export function toArray(x: ArrayLike, dtype?: Dtype): MxArray {
  if (x instanceof MxArray) return x;
  if (typeof x === "number") return new MxArray(ArrayDesc.constant(x, dtype ?? float32));
  if (typeof x === "boolean") return new MxArray(ArrayDesc.constant(x ? 1 : 0, dtype ?? bool));
  if (typeof x === "bigint") return fromNumbersBig(x, dtype ?? int64);
  if (Array.isArray(x)) return fromNested(x, dtype);
  if (ArrayBuffer.isView(x)) return fromTyped(x as NumericArray);
  if (isComplex(x)) {
    const desc = ArrayDesc.fresh([], complex64);
    hostBytes(desc).set(new Uint8Array(new Float32Array([x.re, x.im ?? 0]).buffer));
    return new MxArray(desc);
  }
  throw new TypeError(`[array] expected an array, number, boolean, nested Array or TypedArray, got ${x === null ? "null" : typeof x}`);
}
function fromNumbersBig(x: bigint, dtype: Dtype): MxArray {
  const desc = ArrayDesc.fresh([], dtype);
  if (dtype === int64 || dtype === uint64) new BigInt64Array(hostBytes(desc).buffer as ArrayBuffer, hostBytes(desc).byteOffset, 1)[0] = BigInt.asIntN(64, x);
  else storeNumbers(hostBytes(desc), dtype, 1, () => Number(x));
  return new MxArray(desc);
}

/** Both operands as arrays, and the dtype they promote to. JS numbers are weak: they take the array's dtype if it is inexact, else float32; booleans take the array's dtype. */
export function promoteOperands(op: string, a: ArrayLike, b: ArrayLike): { a: MxArray; b: MxArray; dtype: Dtype } {
  const x = weak(op, a, b);
  const y = weak(op, b, a);
  return { a: x, b: y, dtype: promote(x.dtype, y.dtype) };
}
function weak(op: string, value: ArrayLike, other: ArrayLike): MxArray {
  if (value instanceof MxArray) return value;
  if (value === undefined || value === null) throw new TypeError(`[${op}] expected an array or a number, got ${value === null ? "null" : "undefined"}`);
  const d = other instanceof MxArray ? other.desc.dtype : undefined;
  if (d && typeof value === "number") return toArray(value, d.isInexact ? d : float32);
  if (d && typeof value === "boolean") return toArray(value, d);
  return toArray(value);
}

export type AxisArgument = number | readonly number[] | null;
/**
 * The arguments of a reduction by type, wherever they stand: an integer or list is the axis, a boolean is keepdims, a stream or device the stream.
 */
export function reductionArgs(axis?: AxisArgument | boolean | StreamOrDevice, keepdims?: boolean | StreamOrDevice | null, s?: StreamOrDevice | null): { axis: AxisArgument | undefined; keepdims: boolean; stream: StreamOrDevice | undefined } {
  let ax: AxisArgument | undefined;
  let keep = false;
  let stream: StreamOrDevice | undefined;
  for (const v of [axis, keepdims, s]) {
    if (v === undefined || v === null) continue;
    if (typeof v === "boolean") keep = v;
    else if (isStreamOrDevice(v)) stream = v;
    else ax = v;
  }
  return { axis: ax, keepdims: keep, stream };
}

/** The stream among trailing arguments, recognised by type; the others keep their places (a stream's place becomes undefined). */
export function streamArg<T extends unknown[]>(args: T): { args: T; stream: StreamOrDevice | undefined } {
  const at = args.findIndex(isStreamOrDevice);
  if (at < 0) return { args, stream: undefined };
  const rest = args.slice() as T;
  const stream = rest[at] as StreamOrDevice;
  rest[at] = undefined;
  return { args: rest, stream };
}

/** Throws unless `d` is a Dtype. */
export function requireDtype(op: string, d: unknown): Dtype {
  if (!(d instanceof Dtype)) throw new TypeError(`[${op}] expected a dtype such as mx.float32, got ${typeof d === "string" ? JSON.stringify(d) : String(d)}`);
  return d;
}

/** A shape argument: one number or a list of non-negative integers. */
export function shapeArgument(op: string, shape: number | readonly number[]): number[] {
  const list = typeof shape === "number" ? [shape] : [...shape];
  for (const d of list) if (!Number.isInteger(d) || d < 0) throw opError(op, `shape must hold non-negative integers, got ${JSON.stringify(shape)}`);
  return list;
}
