/** Samples of mx.linalg. Results are rounded once from float64, so the default tolerances hold; where a product is made in float32 the sample says more. */
import { float64, int32 } from "../../src/core/dtype.ts";
import type * as linalg from "../../src/ops/linalg.ts";
import { type Sample, type TensorOptions, type Tolerance, randomSource, tensor } from "../helpers/check.ts";

/** Rounded factors (2^-24 each) multiply to a matrix of norm 2 sqrt(m n): the error of a sum of max(m, n) terms, times 4. */
const products = (m: number, n: number): Partial<Tolerance> => ({ rtol: 0, atol: 2 ** -24 * 8 * (Math.max(m, n) + 1) * Math.sqrt(m * n + 1) });
const matrix = (shape: readonly number[], options: TensorOptions = {}): Sample => {
  const [m, n] = shape.slice(-2) as [number, number];
  return { args: [tensor(shape, options)], tolerance: options.dtype === float64 ? { rtol: 1e-9, atol: 1e-10 } : products(m, n) };
};
const sizes = [1, 2, 3, 4, 5, 8, 17, 33];
const square: readonly Sample[] = [
  ...sizes.map((n) => matrix([n, n], { seed: n })),
  matrix([3, 2, 5, 5]),
  matrix([0, 3, 3]),
  matrix([2, 0, 0]),
  matrix([40, 3, 3]),
  matrix([4, 6, 6], { layout: "transposed" }),
  matrix([5, 5], { layout: "sliced" }),
  matrix([2, 4, 4], { layout: "reversed" }),
  matrix([3, 4, 4], { layout: "broadcast" }),
  matrix([2, 9, 9], { dtype: float64 }),
  { args: [tensor([7, 7], { low: -1e3, high: 1e3 })], tolerance: { rtol: 0, atol: 0.05 } },
];
const wide: readonly Sample[] = [
  ...[
    [1, 4],
    [4, 1],
    [2, 3],
    [3, 2],
    [5, 12],
    [12, 5],
    [20, 7],
    [3, 40],
  ].map((s) => matrix(s)),
  matrix([2, 3, 6, 4]),
  matrix([2, 4, 6], { dtype: float64 }),
  matrix([2, 6, 3], { layout: "transposed" }),
];
/** Rank-deficient and special matrices: zero, one entry, equal rows, rank one, identity, repeated values, NaN. */
const special = (n: number): Sample[] =>
  [
    [0],
    [1],
    [2, -1, 0.5],
    Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0)),
    Array.from({ length: n * n }, (_, i) => (Math.floor(i / n) + 1) * ((i % n) - 1)),
    Array.from({ length: n * n }, (_, i) => (i === 1 ? 3 : 0)),
    Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? (i < n * 2 ? 5 : 1) : 0)),
    Array.from({ length: n * n }, (_, i) => (i === n + 1 ? Number.NaN : i)),
  ].map((values, i) => ({ args: [tensor([n, n], { values })], name: `special ${i} of ${n}`, tolerance: products(n, n * n) }));

/** Values of symmetric positive definite matrices: B B^T + I with B uniform in -1 .. 1. */
function definite(n: number, batch = 1): number[] {
  const random = randomSource(n);
  return Array.from({ length: batch }, () => {
    const b = Array.from({ length: n }, () => Array.from({ length: n }, () => 2 * random() - 1));
    return b.flatMap((x, i) => b.map((y, j) => x.reduce((s, v, k) => s + v * (y[k] as number), Number(i === j))));
  }).flat();
}
const positive = (n: number, batch = 1, options: TensorOptions = {}): unknown => tensor([batch, n, n], { values: definite(n, batch), ...options });
/** Triangular matrices with a diagonal away from zero; what lies in the other triangle must not be read. */
const triangular = (n: number, upper: boolean, batch = 1): unknown => {
  const random = randomSource(n + 100);
  return tensor([batch, n, n], {
    values: Array.from({ length: batch * n * n }, (_, at) => {
      const [i, j] = [Math.floor(at / n) % n, at % n];
      return i === j ? 1 + random() : i < j === upper ? random() - 0.5 : Number.NaN;
    }),
  });
};
const both = [false, true];
const ords = [undefined, null, 0, 1, -1, 2, -2, 3, 0.5, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
const loose: Partial<Tolerance> = { rtol: 1e-4, atol: 1e-4 };

export const linalgSamples: Record<keyof typeof linalg, Sample[]> = {
  norm: [
    ...[tensor([5]), tensor([0]), tensor([2, 3, 4])].map((t) => ({ args: [t] })),
    { args: [tensor([2, 3, 4]), undefined, undefined, true] },
    { args: [tensor([2, 3, 4]), null, [0, 2], true] },
    { args: [tensor([6], { dtype: int32 }), 3], tolerance: { rtol: 1e-5 } },
    ...ords.flatMap((ord) => [1, -1].map((axis) => ({ args: [tensor([3, 4, 5]), ord, axis, axis > 0], tolerance: { rtol: 1e-5, atol: 1e-5 } }))),
    ...["fro", "f", "nuc", 1, -1, 2, -2, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].flatMap((ord) => [
      { args: [tensor([4, 6]), ord], tolerance: loose },
      ...[
        [0, 1],
        [2, 0],
        [-1, 1],
      ].flatMap((axes) => both.map((keep) => ({ args: [tensor([3, 4, 5]), ord, axes, keep], tolerance: loose }))),
    ]),
  ],
  inv: [...square.map(({ args }) => ({ args, tolerance: { rtol: 1e-4 } })), ...special(4).map(({ args, name }) => ({ args, name: name as string }))],
  triInv: both.flatMap((upper) => [1, 2, 7, 20].flatMap((n) => [{ args: [triangular(n, upper, 3), upper] }])),
  cholesky: both.flatMap((upper) => [
    ...[1, 2, 5, 16, 31].map((n) => ({ args: [positive(n, 2), upper] })),
    { args: [positive(6, 2, { dtype: float64 }), upper] },
    { args: [tensor([2, 2], { values: [1, 2, 2, 1] }), upper], name: "indefinite" },
    { args: [tensor([0, 3, 3]), upper] },
  ]),
  choleskyInv: both.flatMap((upper) => [1, 2, 7].map((n) => ({ args: [triangular(n, upper, 2), upper], tolerance: loose }))),
  pinv: [
    ...[
      [1, 1],
      [2, 3],
      [4, 4],
      [9, 4],
      [3, 8],
      [2, 5, 3],
      [0, 3],
      [2, 3, 0],
    ].map((s) => ({ args: [tensor(s)], tolerance: loose })),
    ...special(5)
      .slice(0, 7)
      .map((s) => ({ ...s, tolerance: loose })),
  ],
  cross: [
    ...[
      [3, 3],
      [2, 3],
      [3, 2],
      [2, 2],
    ].map(([x, y]) => ({ args: [tensor([4, x as number]), tensor([4, y as number], { seed: 2 })] })),
    { args: [tensor([3, 5]), tensor([3, 1], { seed: 2 }), 0] },
    { args: [tensor([2, 3]), tensor([3], { seed: 2 })] },
    { args: [tensor([2, 3], { dtype: int32 }), tensor([2, 3], { seed: 2 })] },
  ],
  // How far a NaN spreads is not defined for QR and LU.
  qr: [...square, ...wide, ...special(4).slice(0, 7), matrix([70, 60])],
  svd: [
    ...square,
    ...wide,
    ...special(4),
    ...special(5),
    { args: [tensor([3, 0])] },
    matrix([60, 50]),
    matrix([100, 6]),
    matrix([6, 100]),
    { args: [tensor([2, 30, 4], { values: [1, 2, 3, 6, 2, 4, 6, 12] })], name: "rank one, tall", tolerance: products(30, 40) },
    { args: [tensor([4, 30], { values: [1, 2, 3, 6, 2] })], name: "repeated rows, wide", tolerance: products(30, 40) },
    ...[
      [5, 3],
      [3, 5],
      [4, 4, 4],
    ].map((s) => ({ args: [tensor(s), false], tolerance: { rtol: 2e-6, atol: 2e-6 } })),
    ...special(4).map((s) => ({ ...s, args: [...s.args, false] })),
  ],
  eigh: ["L", "U", undefined].flatMap((uplo) => [...square, ...special(4), ...special(5), matrix([60, 60])].map((s) => ({ ...s, args: [...s.args, uplo] }))),
  eigvalsh: ["L", "U"].flatMap((uplo) => [...square, ...special(4)].map((s) => ({ ...s, args: [...s.args, uplo] }))),
  // Results are complex64 for float64 matrices as well.
  eig: [...square, ...special(4), ...special(5)].map((s) => ({ ...s, tolerance: { rtol: 0, atol: Math.max(1e-4, s.tolerance?.atol ?? 0) } })),
  eigvals: [...square, ...special(4)].map((s) => ({ ...s, tolerance: { rtol: 0, atol: Math.max(1e-4, s.tolerance?.atol ?? 0) } })),
  lu: [...square, ...wide, ...special(4).slice(0, 7)].map(({ args, name }) => ({ args, ...(name ? { name } : {}), tolerance: { rtol: 1e-5, atol: 1e-5 } })),
  luFactor: [...square, ...wide].map(({ args }) => ({ args, tolerance: { rtol: 1e-5, atol: 1e-5 } })),
  solve: [
    ...[1, 2, 3, 8, 30].flatMap((n) => [{ args: [tensor([n, n], { seed: n }), tensor([n])], tolerance: { rtol: 1e-4 } }, { args: [positive(n, 2), tensor([2, n, 3])] }]),
    { args: [tensor([3, 1, 4, 4]), tensor([2, 4, 2])], tolerance: { rtol: 1e-4 } },
    { args: [tensor([2, 2], { values: [1, 2, 2, 4] }), tensor([2])], name: "singular" },
    { args: [tensor([3, 3], { dtype: float64 }), tensor([3, 2])] },
    { args: [tensor([2, 4, 4], { layout: "transposed" }), tensor([2, 4, 3], { layout: "reversed" })], tolerance: { rtol: 1e-4 } },
    { args: [tensor([3, 3]), tensor([3, 0])] },
  ],
  solveTriangular: both.flatMap((upper) => [1, 2, 9].map((n) => ({ args: [triangular(n, upper, 2), tensor([2, n, 3]), upper] }))),
  det: [...sizes.slice(0, 6), 0].flatMap((n) => [
    { args: [tensor([2, n, n])], tolerance: loose },
    { args: [tensor([n, n], { dtype: int32 })], tolerance: loose },
  ]),
  slogdet: sizes.slice(0, 6).map((n) => ({ args: [tensor([3, n, n])], tolerance: loose })),
};
