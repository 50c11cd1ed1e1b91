/** Conversion to and from 8-bit floats e4m3 (1 bit of sign, 4 of exponent, 3 of fraction, no infinities), kept as uint8. */
import type { Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, bfloat16, float32, roundTo, uint8 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { notDifferentiable } from "../core/rules.ts";
import { type ArrayLike, requireDtype, toArray } from "./convert.ts";
import { decodeE4M3, encodeE4M3 } from "./quantized-float.ts";

const applyTo = defineOp<Record<string, never>>({
  name: "toFp8",
  infer([a]) {
    const { shape, dtype } = a as Aval;
    if (!dtype.isFloat) throw opError("toFp8", `only real floating types are supported, got ${dtype}`);
    return [{ shape, dtype: uint8 }];
  },
  expr(e, [x]) {
    const bits = e.bitcast(e.cast(x as Value, float32), "u32");
    const n = (v: number): Value => e.const("u32", v);
    const a = e.and(bits, n(0x7fffffff));
    const odd = e.and(e.shr(a, n(20)), n(1));
    const normal = e.shr(e.add(e.add(a, odd), n(0x7ffff - (120 << 23))), n(20));
    // A unit in the last place of 2^14 is 2^-9, the step of the numbers below 2^-6.
    const tiny = e.sub(e.bitcast(e.add(e.bitcast(a, "f32"), e.const("f32", 16384)), "u32"), n(0x46800000));
    const size = e.select(e.ge(a, n(0x43e00000)), n(0x7e), e.select(e.lt(a, n(0x3c800000)), tiny, normal));
    // The sign of NaN is nobody's choice: it does not count.
    const sign = e.select(e.gt(a, n(0x7f800000)), n(0), e.and(e.shr(bits, n(24)), n(128)));
    return e.convert(e.or(size, sign), "i32");
  },
  reference: ([x]) => [(x as Float64Array).map((v) => encodeE4M3(roundTo(float32, v)))],
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "elementwise",
  kernels: [],
});

const applyFrom = defineOp<{ readonly dtype: Dtype }>({
  name: "fromFp8",
  infer([a], { dtype }) {
    const x = a as Aval;
    if (x.dtype !== uint8) throw opError("fromFp8", `the array must be uint8, got ${x.dtype}`);
    if (!dtype.isFloat) throw opError("fromFp8", `only real floating types are supported, got ${dtype}`);
    return [{ shape: x.shape, dtype }];
  },
  expr(e, [x], { dtype }) {
    const bits = e.convert(x as Value, "u32");
    const n = (v: number): Value => e.const("u32", v);
    const f = (v: number): Value => e.const("f32", v);
    const v = e.bitcast(e.add(e.shl(e.and(bits, n(127)), n(20)), n(120 << 23)), "f32");
    // With exponent 0 there is no leading one.
    const size = e.select(e.lt(e.and(bits, n(127)), n(8)), e.sub(e.mul(v, f(2)), f(2 ** -6)), v);
    return e.cast(e.bitcast(e.or(e.bitcast(size, "u32"), e.shl(e.and(bits, n(128)), n(24))), "f32"), dtype);
  },
  reference: ([x]) => [(x as Float64Array).map(decodeE4M3)],
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "elementwise",
  kernels: [],
});

/**
 * e4m3 codes of floats, as uint8: rounded to nearest even, at most 448, which NaN gives too.
 * @param x floats of any shape
 */
export const toFp8 = (x: ArrayLike, s?: StreamOrDevice | null): MxArray => applyTo([toArray(x)], {}, s)[0] as MxArray;

/**
 * Floats of e4m3 codes. All codes are numbers: 0x7f is 480, as in MLX.
 * @param x uint8 of any shape
 * @param dtype of the result, a real floating type
 */
export function fromFp8(x: ArrayLike, dtype?: Dtype | StreamOrDevice | null, s?: StreamOrDevice | null): MxArray {
  const stream = isStreamOrDevice(dtype) ? dtype : s;
  const out = dtype === undefined || dtype === null || isStreamOrDevice(dtype) ? bfloat16 : requireDtype("fromFp8", dtype);
  return applyFrom([toArray(x)], { dtype: out }, stream)[0] as MxArray;
}
