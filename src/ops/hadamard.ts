/** Hadamard transforms. */
import type { MxArray } from "../core/array.ts";
import { isStreamOrDevice, type StreamOrDevice } from "../core/device.ts";
import { float32, float64 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { formatShape } from "../core/shape.ts";
import { noteSizes, sizesCount } from "../core/sizes.ts";
import { multiply } from "./binary.ts";
import { type ArrayLike, fromNumbers, toArray } from "./convert.ts";
import { matmul } from "./matmul.ts";
import { reshape, swapaxes } from "./movement.ts";
import { castTo } from "./region.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice | null;

/** Rows of the matrices of order 12, 20 and 28 that MLX uses, from Sloane's table (neilsloane.com/hadamard): one bit per entry, 1 for +1. */
const rows: Readonly<Record<number, string>> = {
  12: "bff 2aa ec3 896 fb0 a25 cec 989 c3b 962 f0e a58",
  20: "84336 4238b 211d5 108fa 0866d 7c139 ba29c d914e e88a7 f0653 35a0f 1ad17 8d49b c685d 6343e 49a10 a0d08 54484 2e042 93021",
  28: "818694c 41c14a6 20e2a13 1071549 0838ae4 041e532 030d299 3d019d2 1e82ca9 8e43654 c621b2a e210d95 f00a6ca 7807325 5b3201e ac9900f 564c847 ab24463 d590271 6ac8178 b4640bc 66b70c0 b35b820 d8adc10 6d54e08 37a8704 9ad4382 cd6a181",
};
/** Powers of two are applied in factors of at most this size: one product with a matrix instead of many passes. */
const largestFactor = 64;

/** Entry (i, j) of Sylvester's matrix, whose order is a power of two: -1 to the number of ones that i and j share. */
function sylvester(i: number, j: number): number {
  let sign = 1;
  for (let both = i & j; both > 0; both &= both - 1) sign = -sign;
  return sign;
}
function tabulated(order: number): (i: number, j: number) => number {
  const lines = (rows[order] as string).split(" ").map((line) => Number.parseInt(line, 16));
  return (i, j) => (((lines[i] as number) >> (order - 1 - j)) & 1 ? 1 : -1);
}

/** The factors of an order: one of the tabulated matrices (or 1) and a power of two. */
function decompose(size: number): { tabled: number; power: number } {
  const isPower = (n: number): boolean => n >= 1 && Number.isInteger(Math.log2(n));
  const tabled = isPower(size) ? 1 : [12, 20, 28].find((m) => isPower(size / m));
  if (tabled === undefined) throw opError("hadamardTransform", `the last dimension must be m * 2^k with m 1, 12, 20 or 28, got ${size}`);
  return { tabled, power: size / tabled };
}

/**
 * Product of the last dimension (size m * 2^k, m = 1, 12, 20 or 28) with a Hadamard matrix, times `scale` (default: 1 / sqrt of the size, which makes
 * the matrix orthonormal). Shape and float dtype stay, other dtypes give float32; float16 and bfloat16 are computed in float32 and rounded once.
 * Throws for empty arrays and other sizes.
 */
export function hadamardTransform(array: ArrayLike, scale?: number | S, s?: S): MxArray {
  const stream = s ?? (isStreamOrDevice(scale) ? scale : undefined);
  const x = toArray(array);
  if (x.size === 0) throw opError("hadamardTransform", `empty arrays are not supported, got shape ${formatShape(x.desc.shape)}`);
  if (x.dtype.kind === "complex") throw opError("hadamardTransform", `complex arrays are not supported, got ${x.dtype}`);
  const size = x.desc.shape[x.ndim - 1] ?? 1;
  noteSizes(sizesCount);
  const { tabled, power } = decompose(size);
  const factor = typeof scale === "number" ? scale : 1 / Math.sqrt(size);
  const dtype = x.dtype.isFloat ? x.dtype : float32;
  const wide = dtype === float64 ? float64 : float32;
  const matrix = (order: number, entry: (i: number, j: number) => number, by: number): MxArray =>
    fromNumbers([order, order], wide, Array.from({ length: order * order }, (_, at) => by * entry(Math.floor(at / order), at % order)));
  return within(() => {
    // The scale goes into the first matrix that is applied.
    let rest = factor;
    const scaled = (order: number, entry: (i: number, j: number) => number): MxArray => {
      const m = matrix(order, entry, rest);
      rest = 1;
      return m;
    };
    let y = reshape(castTo(x, wide, stream), [-1, tabled, power], stream);
    // Sylvester's matrix is the Kronecker product of those of its factors, each of which works along a dimension of its own.
    for (let inner = 1; inner < power; ) {
      const order = Math.min(largestFactor, power / inner);
      const parts = reshape(y, [-1, order, inner], stream);
      y = inner === 1 ? matmul(swapaxes(parts, 1, 2, stream), scaled(order, sylvester), stream) : matmul(scaled(order, sylvester), parts, stream);
      inner *= order;
    }
    if (tabled > 1) y = matmul(scaled(tabled, tabulated(tabled)), reshape(y, [-1, tabled, power], stream), stream);
    const whole = reshape(y, x.desc.shape, stream);
    return castTo(rest === 1 ? whole : multiply(whole, rest, stream), dtype, stream);
  });
}
