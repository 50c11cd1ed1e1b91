/** Dense matrix products: matmul, addmm, gatherMM, and inner, outer, tensordot, kron made of them. */
import type { Aval, MxArray, View } from "../core/array.ts";
import { isStreamOrDevice, type StreamOrDevice } from "../core/device.ts";
import { type Dtype, promote, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { GpuKernel } from "../core/gpu.ts";
import { type Apply, defineOp, input, type Kernel, type Pointer } from "../core/op.ts";
import { broadcastShapes, formatShape, normalizeAxis, type Shape, sizeOf } from "../core/shape.ts";
import { add, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { complexFromParts, imag, real } from "./complex.ts";
import { type ArrayLike, promoteOperands, toArray } from "./convert.ts";
import { arange } from "./creation.ts";
import { launchProduct, type Matrices, type Operand, productTunables } from "./gemm.ts";
import { take } from "./indexing.ts";
import { gpuGatherMM, gpuMatmul } from "./matmul-gpu.ts";
import { broadcastTo, expandDims, reshape, squeeze, swapaxes, transpose } from "./movement.ts";
import { within } from "./scope.ts";

/** A shape as matrices: a vector is a row on the left side and a column on the right one. */
const asMatrix = (shape: Shape, side: "left" | "right"): Shape => (shape.length !== 1 ? shape : side === "left" ? [1, shape[0] as number] : [shape[0] as number, 1]);
const batchOf = (shape: Shape): Shape => shape.slice(0, -2);
const rowsOf = (shape: Shape): number => shape[shape.length - 2] as number;
const columnsOf = (shape: Shape): number => shape[shape.length - 1] as number;

function requireFloats(op: string, avals: readonly Aval[]): void {
  for (const { dtype } of avals) {
    if (!dtype.isInexact) throw opError(op, `only floating point types are supported, got ${avals.map((a) => a.dtype).join(" and ")}`);
  }
}

/** Shapes of a product, checked: the batch, M, N, K, and the result with the dimensions of vectors left out. */
function productShapes(op: string, a: Aval, b: Aval): { batch: number[]; M: number; N: number; K: number; shape: number[] } {
  requireFloats(op, [a, b]);
  if (a.shape.length === 0 || b.shape.length === 0) throw opError(op, `inputs must have at least one dimension, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
  const [x, y] = [asMatrix(a.shape, "left"), asMatrix(b.shape, "right")];
  if (columnsOf(x) !== rowsOf(y)) throw opError(op, `last dimension of a must equal second last of b, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
  const batch = broadcastShapes(op, batchOf(x), batchOf(y));
  const [M, N] = [rowsOf(x), columnsOf(y)];
  const shape = [...batch, ...(a.shape.length === 1 ? [] : [M]), ...(b.shape.length === 1 ? [] : [N])];
  return { batch, M, N, K: columnsOf(x), shape };
}

/** Strides of an operand broadcast to `shape` (missing and size-1 dimensions repeat). */
function broadcastStrides(from: Shape, strides: Shape, shape: Shape): number[] {
  const pad = shape.length - from.length;
  return shape.map((_, i) => (i < pad || from[i - pad] === 1 ? 0 : (strides[i - pad] as number)));
}

/** An operand whose matrices are broadcast to the batch of the result. */
function operand(at: Pointer, view: View, side: "left" | "right", batch: Shape): Operand {
  const vector = view.shape.length === 1;
  const shape = asMatrix(view.shape, side);
  const step = view.strides[view.strides.length - 1] as number;
  const strides = !vector ? view.strides : side === "left" ? [0, step] : [step, 0];
  const matrices: Matrices = { shape: batch, strides: broadcastStrides(batchOf(shape), strides.slice(0, -2), batch) };
  return { at, row: strides[strides.length - 2] as number, column: strides[strides.length - 1] as number, matrices };
}

/** c of addmm, broadcast to the result. */
function addend(at: Pointer, c: View, a: View, b: View, out: View, batch: Shape): Operand {
  const strides = broadcastStrides(c.shape, c.strides, out.shape);
  const column = b.shape.length === 1 ? 0 : (strides.pop() as number);
  const row = a.shape.length === 1 ? 0 : (strides.pop() as number);
  return { at, row, column, matrices: { shape: batch, strides } };
}

interface Scales {
  readonly alpha: number;
  readonly beta: number;
}

/** Inputs: a, b and, for addmm, c. */
const productKernel: Kernel<Partial<Scales>> = {
  name: "wasm/gemm/gemm",
  layout: ["any"],
  tune: productTunables,
  launch: ([a, b, c], [out], params, choices) => {
    const { batch, M, N, K } = productShapes("matmul", a as View, b as View);
    const [x, y] = [operand(input(0), a as View, "left", batch), operand(input(1), b as View, "right", batch)];
    const product = { dtype: (out as View).dtype, batch, M, N, K, a: x, b: y, alpha: params.alpha ?? 1, beta: params.beta ?? 0 };
    return launchProduct(c ? { ...product, c: addend(input(2), c, a as View, b as View, out as View, batch) } : product, choices);
  },
};

/** Row-major index of the element that broadcasting pairs with element `i` of `shape`. */
function broadcastIndex(i: number, shape: Shape, from: Shape): number {
  let index = 0;
  let step = 1;
  for (let d = 1; d <= shape.length; d++) {
    const size = shape[shape.length - d] as number;
    const at = i % size;
    i = Math.floor(i / size);
    const own = from[from.length - d];
    if (own === undefined) continue;
    if (own !== 1) index += at * step;
    step *= own;
  }
  return index;
}

/** Plain triple loop in float64. `which(g)` names the matrices of a and b that make matrix `g` of the result. */
function multiplyMatrices(a: Float64Array, b: Float64Array, M: number, N: number, K: number, count: number, which: (g: number) => readonly [number, number]): Float64Array {
  const out = new Float64Array(count * M * N);
  for (let g = 0; g < count; g++) {
    const [ga, gb] = which(g);
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += (a[(ga * M + m) * K + k] as number) * (b[(gb * K + k) * N + n] as number);
        out[(g * M + m) * N + n] = sum;
      }
    }
  }
  return out;
}
function referenceProduct(inputs: readonly Float64Array[], avals: readonly Aval[]): Float64Array {
  const [a, b] = avals as [Aval, Aval];
  const { batch, M, N, K } = productShapes("matmul", a, b);
  const which = (g: number) => [broadcastIndex(g, batch, batchOf(asMatrix(a.shape, "left"))), broadcastIndex(g, batch, batchOf(asMatrix(b.shape, "right")))] as const;
  return multiplyMatrices(inputs[0] as Float64Array, inputs[1] as Float64Array, M, N, K, sizeOf(batch), which);
}

/** Cotangents of both operands. The transform sums over batch dimensions that were broadcast. */
function productGradients(a: MxArray, b: MxArray, g: MxArray, needs: readonly boolean[]): (MxArray | undefined)[] {
  const x = a.ndim === 1 ? expandDims(a, 0) : a;
  const y = b.ndim === 1 ? expandDims(b, 1) : b;
  let d = b.ndim === 1 ? expandDims(g, -1) : g;
  if (a.ndim === 1) d = expandDims(d, -2);
  const left = needs[0] ? matmul(d, swapaxes(y, -1, -2)) : undefined;
  if (!needs[1]) return [left];
  // One product over all rows instead of one per batch and a sum.
  const flat = y.ndim === 2 && x.ndim > 2;
  const [rows, outs] = flat ? [reshape(x, [-1, columnsOf(x.desc.shape)]), reshape(d, [-1, columnsOf(d.desc.shape)])] : [x, d];
  const right = matmul(swapaxes(rows, -1, -2), outs);
  return [left, b.ndim === 1 ? squeeze(right, -1) : right];
}
/** Operand as matrices with `rank` dimensions behind the batch. Made without naming sizes, so that a compiled function holds none. */
function batchedMatrices(x: MxArray, batched: boolean, side: "left" | "right", rank: number): MxArray {
  const own = x.ndim - Number(batched);
  if (!batched) return own === 1 ? expandDims(x, side === "left" ? 0 : 1) : x;
  const lead = Array.from({ length: rank - Math.max(2, own) }, (_, i) => i + 1);
  const axes = own === 1 ? [...lead, side === "left" ? lead.length + 1 : lead.length + 2] : lead;
  return axes.length === 0 ? x : expandDims(x, axes);
}

const applyMatmul: Apply<object> = defineOp<object>({
  name: "matmul",
  vjp: ({ inputs: [a, b], cotangents: [g], needs }) => productGradients(a as MxArray, b as MxArray, g as MxArray, needs),
  jvp: ({ inputs: [a, b], tangents: [s, t] }) => {
    const left = s && matmul(s, b as MxArray);
    const right = t && matmul(a as MxArray, t);
    return [left && right ? add(left, right) : (left ?? right)];
  },
  vmap: ({ inputs: [a, b], batched: [p, q] }) => {
    const ranks = [(a as MxArray).ndim - Number(p), (b as MxArray).ndim - Number(q)] as const;
    const rank = Math.max(2, ...ranks);
    let out = matmul(batchedMatrices(a as MxArray, p === true, "left", rank), batchedMatrices(b as MxArray, q === true, "right", rank));
    if (ranks[1] === 1) out = squeeze(out, -1);
    return [ranks[0] === 1 ? squeeze(out, ranks[1] === 1 ? -1 : -2) : out];
  },
  infer: ([a, b]) => [{ shape: productShapes("matmul", a as Aval, b as Aval).shape, dtype: (a as Aval).dtype }],
  reference: (inputs, avals) => [referenceProduct(inputs, avals)],
  kernels: [productKernel],
  gpu: gpuMatmul,
});

/** Shape of the product, which c must broadcast to. */
function addmmShape(a: Aval, b: Aval, c: Aval): Shape {
  const { shape } = productShapes("addmm", a, b);
  const from = c.shape;
  const fits = from.length <= shape.length && from.every((d, i) => d === 1 || d === shape[shape.length - from.length + i]);
  if (!fits) throw opError("addmm", `c must broadcast to the product's shape ${formatShape(shape)}, got ${formatShape(from)}`);
  return shape;
}
/** Params: alpha and beta. Inputs: a, b, c. */
const applyAddmm = defineOp<Scales>({
  name: "addmm",
  composite: ([a, b, c], { alpha, beta }) => [add(multiply(matmul(a as MxArray, b as MxArray), alpha), multiply(c as MxArray, beta))],
  vjp: "composite",
  jvp: "composite",
  vmap: "composite",
  infer: ([a, b, c]) => [{ shape: addmmShape(a as Aval, b as Aval, c as Aval), dtype: (a as Aval).dtype }],
  reference: (inputs, avals, { alpha, beta }, [out]) => {
    const product = referenceProduct(inputs, avals);
    const [c, from] = [inputs[2] as Float64Array, (avals[2] as Aval).shape];
    return [product.map((v, i) => alpha * v + beta * (c[broadcastIndex(i, (out as Aval).shape, from)] as number))];
  },
  kernels: [productKernel as Kernel<Scales>],
  gpu: gpuMatmul as readonly GpuKernel<Scales>[],
});

/** An operand whose matrices an index list chooses; a list of size 1 in a dimension repeats. */
function chosenOperand(at: Pointer, view: View, list: Pointer): Operand {
  const rank = view.shape.length;
  return { at, row: view.strides[rank - 2] as number, column: view.strides[rank - 1] as number, matrices: { shape: batchOf(view.shape), strides: batchOf(view.strides) }, list };
}

/** Inputs: a, b, and for each matrix of the result the number of the matrix of a and of b, row-major over their batch dimensions. */
const applyGather = defineOp<object>({
  name: "gatherMM",
  composite: ([a, b, left, right]) => {
    const chosen = (x: MxArray, list: MxArray): MxArray => take(reshape(x, [-1, ...x.desc.shape.slice(-2)]), list, 0);
    return [matmul(chosen(a as MxArray, left as MxArray), chosen(b as MxArray, right as MxArray))];
  },
  vjp: "composite",
  indices: 2,
  jvp: "composite",
  vmap: "composite",
  infer: ([a, b, left]) => {
    const { M, N } = gatherShapes(a as Aval, b as Aval);
    return [{ shape: [...(left as Aval).shape, M, N], dtype: (a as Aval).dtype }];
  },
  reference: ([a, b, left, right], avals) => {
    const { M, N, K } = gatherShapes(avals[0] as Aval, avals[1] as Aval);
    const which = (g: number) => [left?.[g] as number, right?.[g] as number] as const;
    return [multiplyMatrices(a as Float64Array, b as Float64Array, M, N, K, (left as Float64Array).length, which)];
  },
  kernels: [
    {
      name: "wasm/gemm/dotRuns",
      layout: ["any", "any", "row"],
      tune: productTunables,
      launch: ([a, b, left], [out], _params, choices) => {
        const { M, N, K } = gatherShapes(a as View, b as View);
        const operands = { a: chosenOperand(input(0), a as View, input(2)), b: chosenOperand(input(1), b as View, input(3)) };
        return launchProduct({ dtype: (out as View).dtype, batch: (left as View).shape, M, N, K, ...operands, alpha: 1, beta: 0 }, choices);
      },
    },
  ],
  gpu: gpuGatherMM,
});
function gatherShapes(a: Aval, b: Aval): { M: number; N: number; K: number } {
  requireFloats("gatherMM", [a, b]);
  if (a.dtype.kind === "complex") throw opError("gatherMM", `complex arrays are not supported, got ${a.dtype}`);
  if (a.shape.length < 2 || b.shape.length < 2) throw opError("gatherMM", `inputs must have at least two dimensions, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
  const K = columnsOf(a.shape);
  if (K !== rowsOf(b.shape)) throw opError("gatherMM", `last dimension of a must equal second last of b, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
  return { M: rowsOf(a.shape), N: columnsOf(b.shape), K };
}

/** Arrays of one dtype, the one that all promote to. */
function common(arrays: readonly MxArray[], s?: StreamOrDevice | null): MxArray[] {
  const dtype = arrays.map((a) => a.dtype).reduce(promote);
  return arrays.map((a) => cast(a, dtype, s));
}
const cast = (a: MxArray, dtype: Dtype, s?: StreamOrDevice | null): MxArray => (a.dtype === dtype ? a : astype(a, dtype, s));

/**
 * Matrix product. Operands are (..., M, K) and (..., K, N) and give (..., M, N); the dimensions in front broadcast. A vector on the left
 * counts as one row, on the right as one column, and that dimension is left out of the result. Sums are made in float32 for float16 and
 * bfloat16, and rounded once. complex64 takes four real products. Throws for 0-d operands, for dimensions that do not fit, and for integers.
 */
export function matmul(a: ArrayLike, b: ArrayLike, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const [x, y] = common([toArray(a), toArray(b)], s) as [MxArray, MxArray];
    return x.dtype.kind === "complex" ? complexProduct(x, y, s) : (applyMatmul([x, y], {}, s)[0] as MxArray);
  });
}

function complexProduct(x: MxArray, y: MxArray, s?: StreamOrDevice | null): MxArray {
  productShapes("matmul", x.desc, y.desc);
  return within(() => {
    const [a, b, c, d] = [real(x, s), imag(x, s), real(y, s), imag(y, s)];
    const product = (p: MxArray, q: MxArray): MxArray => applyMatmul([p, q], {}, s)[0] as MxArray;
    return complexFromParts(subtract(product(a, c), product(b, d), s), add(product(a, d), product(b, c), s), s);
  });
}

/** `alpha * matmul(a, b) + beta * c`, with c broadcast to the product's shape. All three promote to one dtype. */
export function addmm(c: ArrayLike, a: ArrayLike, b: ArrayLike, alpha?: number | StreamOrDevice | null, beta?: number | StreamOrDevice | null, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const scales = { alpha: typeof alpha === "number" ? alpha : 1, beta: typeof beta === "number" ? beta : 1 };
    const stream = s ?? [beta, alpha].find((v): v is StreamOrDevice => v !== undefined && v !== null && typeof v !== "number");
    const [x, y, z] = common([toArray(a), toArray(b), toArray(c)], stream) as [MxArray, MxArray, MxArray];
    if (x.dtype.kind === "complex") {
      addmmShape(x.desc, y.desc, z.desc);
      return within(() => add(multiply(complexProduct(x, y, stream), scales.alpha, stream), multiply(z, scales.beta, stream), stream));
    }
    return applyAddmm([x, y, z], scales, stream)[0] as MxArray;
  });
}

/**
 * Products of chosen matrices. a is (..., M, K), b is (..., K, N); an index counts the matrices of its operand in row-major order.
 * The index arrays broadcast to shape I, and the result is (...I, M, N). A missing list means all matrices of that operand, in its own
 * batch shape. Indices beyond the last matrix use the last one. With `sortedIndices` the caller says that equal right indices are
 * neighbours; the result does not depend on it.
 */
export function gatherMM(a: ArrayLike, b: ArrayLike, indicesLhs?: ArrayLike | null, indicesRhs?: ArrayLike | null, sortedIndices?: boolean | StreamOrDevice | null, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const stream = s ?? (typeof sortedIndices === "boolean" ? undefined : sortedIndices);
    const given = (v: ArrayLike | null | undefined): v is ArrayLike => v !== undefined && v !== null;
    if (!given(indicesLhs) && !given(indicesRhs)) return matmul(a, b, stream);
    const [x, y] = common([toArray(a), toArray(b)], stream) as [MxArray, MxArray];
    gatherShapes(x.desc, y.desc);
    const [left, right] = [matrixIndices(x, indicesLhs, stream), matrixIndices(y, indicesRhs, stream)];
    const shape = broadcastShapes("gatherMM", left.desc.shape, right.desc.shape);
    return applyGather([x, y, spread(left, shape, stream), spread(right, shape, stream)], {}, stream)[0] as MxArray;
  });
}
/** The numbers of matrices that a product takes of an operand, as uint32; all in order when no list is given. */
function matrixIndices(a: MxArray, list: ArrayLike | null | undefined, s?: StreamOrDevice | null): MxArray {
  const batch = batchOf(a.desc.shape);
  const count = sizeOf(batch);
  if (list === undefined || list === null) return reshape(arange(count, uint32, s), batch, s);
  const indices = toArray(list);
  const { dtype, size } = indices;
  if (!dtype.isInteger && (indices === list || dtype.kind !== "float")) throw opError("gatherMM", `indices must be integers, got ${dtype}`);
  if (count === 0 && size > 0) throw opError("gatherMM", `there is no matrix to choose from in an operand of shape ${formatShape(a.desc.shape)}`);
  return cast(indices, uint32, s);
}
const spread = (a: MxArray, shape: Shape, s?: StreamOrDevice | null): MxArray => broadcastTo(a, shape, s);

/** Sum of products over the last dimensions of a and b: (...A, K) and (...B, K) give (...A, ...B). With a 0-d operand: the plain product. */
export function inner(a: ArrayLike, b: ArrayLike, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const { a: x, b: y } = promoteOperands("inner", a, b);
    if (x.ndim === 0 || y.ndim === 0) return multiply(x, y, s);
    if (columnsOf(x.desc.shape) !== columnsOf(y.desc.shape)) throw opError("inner", `last dimensions must be equal, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    return tensordot(x, y, [-1, -1], s);
  });
}

/** All products of an element of a with one of b: shape (a.size, b.size). */
export function outer(a: ArrayLike, b: ArrayLike, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const { a: x, b: y } = promoteOperands("outer", a, b);
    return multiply(reshape(x, [x.size, 1], s), reshape(y, [1, y.size], s), s);
  });
}

export type TensordotAxes = number | readonly [number | readonly number[], number | readonly number[]];
/**
 * Sum of products over paired axes. `axes` n: the last n of a with the first n of b (default 2); `axes` [p, q]: axes p of a with axes q of b.
 * The result has the other dimensions of a, then those of b.
 */
export function tensordot(a: ArrayLike, b: ArrayLike, axes?: TensordotAxes | StreamOrDevice | null, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const given = isStreamOrDevice(axes) ? undefined : axes;
    const stream = isStreamOrDevice(axes) ? axes : s;
    const { a: x, b: y } = promoteOperands("tensordot", a, b);
    const [p, q] = pairedAxes(x, y, given ?? 2);
    for (const [i, axis] of p.entries()) {
      if (x.desc.shape[axis] !== y.desc.shape[q[i] as number]) throw opError("tensordot", `paired axes must have equal sizes, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)} with axes ${JSON.stringify([p, q])}`);
    }
    const free = (v: MxArray, used: readonly number[]): number[] => v.shape.map((_, i) => i).filter((i) => !used.includes(i));
    const [freeX, freeY] = [free(x, p), free(y, q)];
    const sizes = (v: MxArray, list: readonly number[]): number[] => list.map((i) => v.desc.shape[i] as number);
    const K = sizeOf(sizes(x, p));
    const left = reshape(transpose(x, [...freeX, ...p], stream), [sizeOf(sizes(x, freeX)), K], stream);
    const right = reshape(transpose(y, [...q, ...freeY], stream), [K, sizeOf(sizes(y, freeY))], stream);
    return reshape(matmul(left, right, stream), [...sizes(x, freeX), ...sizes(y, freeY)], stream);
  });
}
function pairedAxes(a: MxArray, b: MxArray, axes: TensordotAxes): [number[], number[]] {
  if (typeof axes === "number") {
    if (!Number.isInteger(axes) || axes < 0 || axes > Math.min(a.ndim, b.ndim)) throw opError("tensordot", `axes must be between 0 and the number of dimensions, got ${axes} for ${formatShape(a.desc.shape)} and ${formatShape(b.desc.shape)}`);
    const n = Array.from({ length: axes }, (_, i) => i);
    return [n.map((i) => a.ndim - axes + i), n];
  }
  const list = (v: number | readonly number[], rank: number): number[] => (typeof v === "number" ? [v] : [...v]).map((i) => normalizeAxis("tensordot", i, rank));
  const [p, q] = [list(axes[0], a.ndim), list(axes[1], b.ndim)];
  if (p.length !== q.length) throw opError("tensordot", `axes must be lists of the same length, got ${JSON.stringify(axes)}`);
  if (new Set(p).size !== p.length || new Set(q).size !== q.length) throw opError("tensordot", `axes must be different, got ${JSON.stringify(axes)}`);
  return [p, q];
}

/** Kronecker product: each element of a times the whole of b. Dimension i of the result is a.shape[i] * b.shape[i]; the shorter shape gets leading ones. */
export function kron(a: ArrayLike, b: ArrayLike, s?: StreamOrDevice | null): MxArray {
  return within(() => {
    const { a: x, b: y } = promoteOperands("kron", a, b);
    if (x.size === 0 || y.size === 0) throw opError("kron", `arrays must not be empty, got ${formatShape(x.desc.shape)} and ${formatShape(y.desc.shape)}`);
    const rank = Math.max(x.ndim, y.ndim);
    const padded = (v: MxArray): number[] => [...new Array<number>(rank - v.ndim).fill(1), ...v.shape];
    const [p, q] = [padded(x), padded(y)];
    const left = reshape(x, p.flatMap((d) => [d, 1]), s);
    const right = reshape(y, q.flatMap((d) => [1, d]), s);
    return reshape(multiply(left, right, s), p.map((d, i) => d * (q[i] as number)), s);
  });
}
