/** Matrix products of which parts are left out: blockMaskedMM, segmentedMM. */
import type { MxArray } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { type Dtype, bool, promote, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { formatShape, sizeOf } from "../core/shape.ts";
import { multiply } from "./binary.ts";
import { greaterEqual, less, logicalAnd } from "./compare.ts";
import { type ArrayLike, streamArg, toArray } from "./convert.ts";
import { arange } from "./creation.ts";
import { matmul } from "./matmul.ts";
import { broadcastTo, expandDims, reshape } from "./movement.ts";
import { castTo, sliceAxis } from "./region.ts";
import { within } from "./scope.ts";
import { where } from "./select.ts";

type S = StreamOrDevice | null;

/** Both operands in the float dtype that they promote to. */
function floats(op: string, a: MxArray, b: MxArray, s: S | undefined): [MxArray, MxArray, Dtype] {
  const dtype = promote(a.dtype, b.dtype);
  if (!dtype.isFloat) throw opError(op, `only real floating point types are supported, got ${a.dtype} and ${b.dtype}`);
  return [castTo(a, dtype, s), castTo(b, dtype, s), dtype];
}

/** One mask entry per block spread to one per element of matrices (rows, columns). */
function spread(mask: MxArray, rows: number, columns: number, block: number, s: S | undefined): MxArray {
  const [y, x] = [Math.ceil(rows / block), Math.ceil(columns / block)];
  const { shape } = mask.desc;
  const lead = shape.slice(0, -2);
  if (mask.ndim < 2 || ![1, y].includes(shape[shape.length - 2] as number) || ![1, x].includes(shape[shape.length - 1] as number)) {
    throw opError("blockMaskedMM", `a mask of a (${rows},${columns}) matrix with blocks of ${block} must have shape (..., ${y}, ${x}), got ${formatShape(shape)}`);
  }
  const tiles = broadcastTo(mask, [...lead, y, x], s);
  const whole = reshape(broadcastTo(reshape(tiles, [...lead, y, 1, x, 1], s), [...lead, y, block, x, block], s), [...lead, y * block, x * block], s);
  return sliceAxis(sliceAxis(whole, lead.length, 0, rows, s), lead.length + 1, 0, columns, s);
}
/** Elements where a mask of truth values holds, else 0; or elements times a mask of numbers. */
const masked = (x: MxArray, mask: MxArray, s: S | undefined): MxArray => (mask.dtype === bool ? where(mask, x, toArray(0, x.dtype), s) : multiply(x, castTo(mask, x.dtype, s), s));

/**
 * Matrix product of which whole blocks are left out or scaled. a (..., M, K), b (..., K, N); `blockSize` 32 or 64. Masks have one entry per block, truth values
 * or factors, and broadcast over the batch: maskOut (..., M / blockSize, N / blockSize) for the result, maskLhs (..., M / blockSize, K / blockSize) for a,
 * maskRhs (..., K / blockSize, N / blockSize) for b, sizes rounded up. Without masks: `matmul`.
 */
export function blockMaskedMM(
  a: ArrayLike, b: ArrayLike, blockSize?: number | S, maskOut?: ArrayLike | S, maskLhs?: ArrayLike | S, maskRhs?: ArrayLike | S, s?: S,
): MxArray {
  return within(() => {
    const { args, stream } = streamArg([blockSize, maskOut, maskLhs, maskRhs, s] as unknown[]);
    const block = (args[0] as number | undefined) ?? 64;
    const masks = args.slice(1, 4) as (ArrayLike | null | undefined)[];
    if (masks.every((m) => m === undefined || m === null)) return matmul(a, b, stream);
    if (block !== 32 && block !== 64) throw opError("blockMaskedMM", `blockSize must be 32 or 64, got ${block}`);
    return within(() => {
      const [x, y, dtype] = floats("blockMaskedMM", toArray(a), toArray(b), stream);
      if (x.ndim === 0 || y.ndim === 0) throw opError("blockMaskedMM", `inputs must have at least one dimension, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
      const left = x.ndim === 1 ? expandDims(x, 0, stream) : x;
      const right = y.ndim === 1 ? expandDims(y, 1, stream) : y;
      const [M, K, N] = [left.desc.shape[left.ndim - 2] as number, left.desc.shape[left.ndim - 1] as number, right.desc.shape[right.ndim - 1] as number];
      if (right.desc.shape[right.ndim - 2] !== K) throw opError("blockMaskedMM", `last dimension of a must equal second last of b, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
      const mask = (m: ArrayLike | null | undefined, rows: number, columns: number, vectors: readonly number[]): MxArray | undefined => {
        if (m === undefined || m === null) return undefined;
        const given = toArray(m);
        return spread(vectors.length > 0 ? expandDims(given, vectors, stream) : given, rows, columns, block, stream);
      };
      const [row, column] = [x.ndim === 1 ? [-2] : [], y.ndim === 1 ? [-1] : []];
      const [out, lhs, rhs] = [mask(masks[0], M, N, [...row, ...column]), mask(masks[1], M, K, row), mask(masks[2], K, N, column)];
      const product = matmul(lhs ? masked(left, lhs, stream) : left, rhs ? masked(right, rhs, stream) : right, stream);
      return castTo(out ? masked(product, out, stream) : product, dtype, stream);
    });
  });
}

/**
 * Products over ranges of the inner dimension: a (M, K), b (K, N) and segments (..., 2) of integers give (..., M, N), the product of the columns
 * start .. end - 1 of a with the same rows of b for each segment (start, end). An empty range gives zeros.
 */
export function segmentedMM(a: ArrayLike, b: ArrayLike, segments: ArrayLike, s?: S): MxArray {
  return within(() => {
    const ranges = toArray(segments);
    const [x, y] = floats("segmentedMM", toArray(a), toArray(b), s);
    const { shape } = ranges.desc;
    if (x.ndim !== 2 || y.ndim !== 2) throw opError("segmentedMM", `a and b must be matrices, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    if (x.desc.shape[1] !== y.desc.shape[0]) throw opError("segmentedMM", `last dimension of a must equal first of b, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    if (shape[shape.length - 1] !== 2) throw opError("segmentedMM", `segments must have shape (..., 2), got ${formatShape(shape)}`);
    if (!ranges.dtype.isInteger) throw opError("segmentedMM", `segments must be integers, got ${ranges.dtype}`);
    const [M, K] = x.desc.shape as [number, number];
    const N = y.desc.shape[1] as number;
    const count = sizeOf(shape) / 2;
    const limits = reshape(castTo(ranges, uint32, s), [count, 2], s);
    const k = reshape(arange(K, uint32, s), [1, K], s);
    const inside = logicalAnd(greaterEqual(k, sliceAxis(limits, 1, 0, 1, s), s), less(k, sliceAxis(limits, 1, 1, 2, s), s), s);
    // Both sides are masked, so that infinities outside of a range stay outside.
    const left = masked(reshape(x, [1, M, K], s), reshape(inside, [count, 1, K], s), s);
    const right = masked(reshape(y, [1, K, N], s), reshape(inside, [count, K, 1], s), s);
    return reshape(matmul(left, right, s), [...shape.slice(0, -1), M, N], s);
  });
}
