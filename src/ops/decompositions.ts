/**
 * Op records of mx.linalg: factorizations, inverses and eigenvalues of the matrices in the last two dimensions. The kernels (assembly/linalg.ts, eigen.ts, schur.ts) take one
 * matrix at a time and compute in float64 for both element types.
 */
import type { Aval, View } from "../core/array.ts";
import { complex64, float32, float64, uint32 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Arg, type Launch, defineOp, input, output, scratch } from "../core/op.ts";
import { notDifferentiable } from "../core/rules.ts";
import { type Shape, formatShape, sizeOf } from "../core/shape.ts";
import { eigenpairInvariant, eigenvalueInvariant, qrInvariant, svdInvariant, symmetricInvariant } from "./decomposition-invariants.ts";
import { referenceCholesky, referenceEig, referenceEigh, referenceLu, referenceQr, referenceSolve, referenceSvd } from "./decomposition-references.ts";

/** Scratch that every thread has (assembly/README.md). */
const threadScratch = 4 << 20;
/** Work areas when a matrix needs more than that: more threads than this take turns. */
const mostAreas = 16;

export const batchOf = (shape: Shape): number[] => shape.slice(0, -2);
export const rowsOf = (shape: Shape): number => shape[shape.length - 2] as number;
export const columnsOf = (shape: Shape): number => shape[shape.length - 1] as number;

/** Throws unless `a` holds matrices of float32 or float64. `op` is the public name. */
export function requireMatrices(op: string, a: Aval, square = false): void {
  if (a.dtype !== float32 && a.dtype !== float64) throw opError(op, `arrays must have type float32 or float64, got ${a.dtype}`);
  if (a.shape.length < 2) throw opError(op, `arrays must have at least 2 dimensions, got ${formatShape(a.shape)}`);
  if (square && rowsOf(a.shape) !== columnsOf(a.shape)) throw opError(op, `matrices must be square, got ${formatShape(a.shape)}`);
}

interface Work {
  readonly entry: string;
  readonly outputs: readonly [Arg, Arg, Arg];
  /** Bytes of work area per matrix. */
  readonly area: number;
  /** Rough number of operations per matrix. */
  readonly cost: number;
  readonly right?: Arg;
  readonly flag?: number;
  /** Word 13. */
  readonly extra?: number;
}
function launchMatrices({ shape, dtype }: View, work: Work): Launch {
  const count = sizeOf(batchOf(shape));
  if (count === 0) return { steps: [] };
  const area = Math.ceil(work.area / 16) * 16;
  const own = area <= threadScratch;
  const units = own ? count : Math.min(count, mostAreas);
  const [first, second, third] = work.outputs;
  const args = [
    input(0),
    work.right ?? 0,
    first,
    second,
    third,
    rowsOf(shape),
    columnsOf(shape),
    count,
    units,
    own ? 0 : scratch(0),
    area,
    Number(dtype === float64),
    work.flag ?? 0,
    work.extra ?? 0,
  ];
  return { steps: [{ entry: work.entry, args, units, grain: own ? Math.max(1, Math.round(50_000 / work.cost)) : 1 }], scratch: own ? [] : [units * area] };
}

const valuesShape = (a: Aval): number[] => a.shape.slice(0, -1);

/** Which matrix a solution is for: all of it, or one triangle (the other is not read). */
export type SystemKind = "general" | "lower" | "upper";
const kinds: readonly SystemKind[] = ["general", "lower", "upper"];

/** A^-1 B for inputs (..., n, n) and (..., n, k) of one batch shape; with one input A^-1. NaN where a matrix is singular. */
export const solveOp = defineOp<{ kind: SystemKind }>({
  name: "solve",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer: ([a, b]) => [(b ?? a) as Aval],
  reference: ([a, b], [matrix, right], { kind }) => [
    referenceSolve(a as Float64Array, b, rowsOf((matrix as Aval).shape), right ? columnsOf(right.shape) : rowsOf((matrix as Aval).shape), kind),
  ],
  kernels: [
    {
      name: "wasm/linalg/solve",
      launch([a, b], [out], { kind }) {
        const n = rowsOf((a as View).shape);
        const k = columnsOf((out as View).shape);
        if ((out as View).size === 0) return { steps: [] };
        const work = { area: 8 * (n * n + n * k) + 4 * n, cost: n * n * (n + 2 * k), ...(b ? { right: input(1) } : {}), flag: kinds.indexOf(kind), extra: k };
        return launchMatrices(a as View, { entry: "linalg/solve", outputs: [output(0), 0, 0], ...work });
      },
    },
  ],
});

/** Triangular factor L with A = L L^T, or U with A = U^T U; only that triangle is read. NaN where a matrix is not positive definite, but for the rounding of float32. */
export const choleskyOp = defineOp<{ upper: boolean }>({
  name: "cholesky",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer: ([a]) => [a as Aval],
  reference: ([a], [aval], { upper }) => [referenceCholesky(a as Float64Array, rowsOf((aval as Aval).shape), upper, (aval as Aval).dtype === float32 ? 2 ** -23 : 0)],
  kernels: [
    {
      name: "wasm/linalg/cholesky",
      launch([a], _outputs, { upper }) {
        const n = rowsOf((a as View).shape);
        return launchMatrices(a as View, { entry: "linalg/cholesky", outputs: [output(0), 0, 0], area: 8 * n * n, cost: n ** 3 / 3, flag: Number(upper) });
      },
    },
  ],
});

/** L (unit lower) and U in one matrix, row exchanges (uint32), and the permutation P (uint32) with A = (L U)[P]. */
export const luOp = defineOp<object>({
  name: "lu",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer([a]) {
    const { shape, dtype } = a as Aval;
    return [
      { shape, dtype },
      { shape: [...batchOf(shape), Math.min(rowsOf(shape), columnsOf(shape))], dtype: uint32 },
      { shape: valuesShape(a as Aval), dtype: uint32 },
    ];
  },
  reference: ([a], [aval]) => referenceLu(a as Float64Array, rowsOf((aval as Aval).shape), columnsOf((aval as Aval).shape), sizeOf(batchOf((aval as Aval).shape))),
  kernels: [
    {
      name: "wasm/linalg/lu",
      launch([a]) {
        const [m, n] = [rowsOf((a as View).shape), columnsOf((a as View).shape)];
        return launchMatrices(a as View, { entry: "linalg/lu", outputs: [output(0), output(1), output(2)], area: 8 * m * n + 4 * m, cost: m * n * Math.min(m, n) });
      },
    },
  ],
});

/** Q (..., m, k) and R (..., k, n), k = min(m, n). */
export const qrOp = defineOp<object>({
  name: "qr",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer([a]) {
    const { shape, dtype } = a as Aval;
    const k = Math.min(rowsOf(shape), columnsOf(shape));
    return [
      { shape: [...shape.slice(0, -1), k], dtype },
      { shape: [...batchOf(shape), k, columnsOf(shape)], dtype },
    ];
  },
  reference: ([a], [aval]) => referenceQr(a as Float64Array, rowsOf((aval as Aval).shape), columnsOf((aval as Aval).shape)),
  invariant: (_inputs, [a], [q, r]) => qrInvariant(q as Float64Array, r as Float64Array, rowsOf((a as Aval).shape), columnsOf((a as Aval).shape)),
  kernels: [
    {
      name: "wasm/linalg/qr",
      launch([a]) {
        const [m, n] = [rowsOf((a as View).shape), columnsOf((a as View).shape)];
        const k = Math.min(m, n);
        return launchMatrices(a as View, { entry: "linalg/qr", outputs: [output(0), output(1), 0], area: 8 * (n * m + k * m + k), cost: 4 * m * n * k });
      },
    },
  ],
});

/** U (..., m, m), S (..., k) in descending order, V^T (..., n, n), k = min(m, n); without vectors S only. NaN for a matrix that has NaN or infinities. */
export const svdOp = defineOp<{ vectors: boolean }>({
  name: "svd",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer([a], { vectors }) {
    const { shape, dtype } = a as Aval;
    const [batch, m, n] = [batchOf(shape), rowsOf(shape), columnsOf(shape)];
    const s = { shape: [...batch, Math.min(m, n)], dtype };
    return vectors ? [{ shape: [...batch, m, m], dtype }, s, { shape: [...batch, n, n], dtype }] : [s];
  },
  reference: ([a], [aval], { vectors }) =>
    referenceSvd(a as Float64Array, rowsOf((aval as Aval).shape), columnsOf((aval as Aval).shape), sizeOf(batchOf((aval as Aval).shape)), vectors),
  invariant: (_inputs, [a], outputs) => svdInvariant(outputs, rowsOf((a as Aval).shape), columnsOf((a as Aval).shape)),
  kernels: [
    {
      name: "wasm/eigen/svd",
      launch([a], _outputs, { vectors }) {
        const [m, n] = [rowsOf((a as View).shape), columnsOf((a as View).shape)];
        const [long, short] = [Math.max(m, n), Math.min(m, n)];
        return launchMatrices(a as View, {
          entry: "eigen/svd",
          outputs: vectors ? [output(0), output(1), output(2)] : [0, output(0), 0],
          area: 8 * (long * short + 2 * short * short + long + 3 * short) + 4 * short,
          cost: 30 * short ** 3 + 4 * short * long * (vectors ? long : short) + 1,
          extra: Number(vectors),
        });
      },
    },
  ],
});

/** Ascending eigenvalues of symmetric matrices, from one triangle, and with `vectors` orthonormal eigenvectors in columns. NaN for a matrix that has NaN or infinities there. */
export const eighOp = defineOp<{ upper: boolean; vectors: boolean }>({
  name: "eigh",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer([a], { vectors }) {
    const { shape, dtype } = a as Aval;
    const values = { shape: valuesShape(a as Aval), dtype };
    return vectors ? [values, { shape, dtype }] : [values];
  },
  reference: ([a], [aval], { upper, vectors }) => referenceEigh(a as Float64Array, rowsOf((aval as Aval).shape), upper).slice(0, vectors ? 2 : 1),
  invariant: (_inputs, [a], outputs) => symmetricInvariant(outputs, rowsOf((a as Aval).shape)),
  kernels: [
    {
      name: "wasm/eigen/eigh",
      launch([a], _outputs, { upper, vectors }) {
        const n = rowsOf((a as View).shape);
        if (n === 0) return { steps: [] };
        const outputs = [output(0), vectors ? output(1) : 0, 0] as const;
        return launchMatrices(a as View, {
          entry: "eigen/eigh",
          outputs,
          area: 8 * ((vectors ? 2 : 1) * n * n + 4 * n),
          cost: 9 * n ** 3,
          flag: Number(upper),
          extra: Number(vectors),
        });
      },
    },
  ],
});

/** Eigenvalues (complex64, in no particular order) and with `vectors` eigenvectors of unit length in columns (complex64). NaN for a matrix that has NaN or infinities. */
export const eigOp = defineOp<{ vectors: boolean }>({
  name: "eig",
  vjp: notDifferentiable,
  jvp: notDifferentiable,
  vmap: "leading",
  infer([a], { vectors }) {
    const values = { shape: valuesShape(a as Aval), dtype: complex64 };
    return vectors ? [values, { shape: (a as Aval).shape, dtype: complex64 }] : [values];
  },
  reference: ([a], [aval], { vectors }) => referenceEig(a as Float64Array, rowsOf((aval as Aval).shape), vectors),
  invariant: ([a], [aval], outputs) => {
    const n = rowsOf((aval as Aval).shape);
    return outputs.length > 1 ? eigenpairInvariant(a as Float64Array, outputs, n) : eigenvalueInvariant(outputs[0] as Float64Array, n);
  },
  kernels: [
    {
      name: "wasm/schur/eig",
      launch([a], _outputs, { vectors }) {
        const n = rowsOf((a as View).shape);
        if (n === 0) return { steps: [] };
        const outputs = [output(0), vectors ? output(1) : 0, 0] as const;
        return launchMatrices(a as View, { entry: "schur/eig", outputs, area: 8 * (6 * n * n + 10 * n + 2), cost: 60 * n ** 3, extra: Number(vectors) });
      },
    },
  ],
});
