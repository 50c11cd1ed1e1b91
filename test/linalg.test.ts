/** mx.linalg: against the float64 references, by the properties that define a result, with values known from elsewhere, and its errors. */
import { describe, expect, it } from "vitest";
import { valuesOf } from "../src/debug/oracle.ts";
import { core as mx } from "../src/index.ts";
import { checkSamples, expectClose } from "./helpers/check.ts";
import { linalgSamples } from "./samples/linalg.ts";

const { linalg } = mx;
type Fn = (...args: never[]) => unknown;
for (const [name, samples] of Object.entries(linalgSamples)) describe(name, () => checkSamples(linalg[name as keyof typeof linalgSamples] as Fn, samples));

const close = (a: InstanceType<typeof mx.MxArray>, b: readonly number[], tolerance: number): void => expectClose(valuesOf(a.desc), b, { rtol: tolerance, atol: tolerance });
const identity = (n: number): number[] => Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0));

describe("known values", () => {
  it("norms", () => {
    const a = mx.reshape(mx.arange(9), [3, 3]);
    close(linalg.norm(a), [Math.sqrt(204)], 1e-6);
    close(linalg.norm(a, "nuc"), [Math.sqrt(240)], 1e-5);
    close(linalg.norm(a, Number.POSITIVE_INFINITY), [21], 0);
    close(linalg.norm(a, 1), [15], 0);
    close(linalg.norm(mx.array([3, -4]), 1), [7], 0);
  });
  it("symmetric eigenvalues", () => {
    const [w, v] = linalg.eigh(
      mx.array([
        [2, -1, 0],
        [-1, 2, -1],
        [0, -1, 2],
      ]),
    );
    close(w, [2 - Math.SQRT2, 2, 2 + Math.SQRT2], 1e-6);
    close(mx.matmul(v.T, v), identity(3), 1e-6);
  });
  it("a rotation has complex eigenvalues, with vectors whose largest component is real", () => {
    const w = valuesOf(
      linalg.eigvals(
        mx.array([
          [0, -1],
          [1, 0],
        ]),
      ).desc,
    );
    expect([...w].map((x) => Math.round(x * 1e6) / 1e6 + 0).sort()).toEqual([-1, 0, 0, 1]);
    const [values, vectors] = linalg.eig(
      mx.array([
        [2, 0],
        [0, 3],
      ]),
    );
    expect(values.dtype).toBe(mx.complex64);
    expect(vectors.dtype).toBe(mx.complex64);
    expect([...valuesOf(values.desc)].filter((_, i) => i % 2 === 1)).toEqual([0, 0]);
  });
  it("companion matrix of (x-1)(x-2)(x-3)(x-4)", () => {
    const w = linalg.eigvals(
      mx.array([
        [10, -35, 50, -24],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
      ]),
    );
    const real = [...valuesOf(w.desc)].filter((_, i) => i % 2 === 0).sort((a, b) => a - b);
    expectClose(real, [1, 2, 3, 4], { rtol: 1e-6, atol: 0 });
  });
  it("determinants", () => {
    close(
      linalg.det(
        mx.array([
          [1, 2],
          [3, 4],
        ]),
      ),
      [-2],
      1e-6,
    );
    close(
      linalg.det(
        mx.array([
          [4, 3, 2, 1],
          [0, 2, 1, 5],
          [0, 0, -3, 2],
          [0, 0, 0, 0.5],
        ]),
      ),
      [-12],
      1e-5,
    );
    const [sign, logabs] = linalg.slogdet(mx.multiply(0.1, mx.eye(100)));
    close(sign, [1], 0);
    close(logabs, [100 * Math.log(0.1)], 1e-5);
    const [zero, infinite] = linalg.slogdet(mx.ones([5, 5]));
    expect([zero.item(), infinite.item()]).toEqual([0, Number.NEGATIVE_INFINITY]);
    expect(linalg.det(mx.zeros([0, 0])).item()).toBe(1);
  });
  it("QR has LAPACK's signs: the diagonal of R is opposite to the leading elements", () => {
    const [q, r] = linalg.qr(
      mx.array([
        [3, 1],
        [4, 2],
      ]),
    );
    close(r, [-5, -2.2, 0, 0.4], 1e-6);
    close(q, [-0.6, -0.8, -0.8, 0.6], 1e-6);
  });
});

describe("properties", () => {
  it("A = (L U)[P], and pivots give the same exchange", () => {
    const a = mx.random.normal([3, 7, 5]);
    const [p, l, u] = linalg.lu(a);
    const product = mx.takeAlongAxis(mx.matmul(l, u), mx.expandDims(p, -1), -2);
    close(mx.subtract(product, a), new Array<number>(3 * 7 * 5).fill(0), 1e-5);
    const [, pivots] = linalg.luFactor(a.index(0));
    const order = [0, 1, 2, 3, 4, 5, 6];
    (pivots.tolist() as number[]).forEach((j, i) => {
      [order[i], order[j]] = [order[j] as number, order[i] as number];
    });
    expect((p.index(0).tolist() as number[]).map((i) => order[i])).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });
  it("large matrices work outside of a thread's own scratch", () => {
    const n = 300;
    const a = mx.random.normal([2, n, n], mx.float32, 0, 1, mx.random.key(3));
    const b = mx.random.normal([2, n, 2], mx.float32, 0, 1, mx.random.key(4));
    const residual = mx.subtract(mx.matmul(a, linalg.solve(a, b)), b);
    expect(mx.max(mx.abs(residual)).item()).toBeLessThan(2e-3);
    const symmetric = mx.add(a, mx.swapaxes(a, -1, -2));
    const [w, v] = linalg.eigh(symmetric);
    const difference = mx.subtract(mx.matmul(symmetric, v), mx.multiply(v, mx.expandDims(w, -2)));
    // Values up to 50, sums of 300 terms with factors rounded to 2^-24.
    expect(mx.max(mx.abs(difference)).item()).toBeLessThan(50 * 300 * 2 ** -24);
  });
  it("singular values and eigenvalues of 400 x 400 matrices, in scratch of the launch", () => {
    const a = mx.random.normal([400, 400], mx.float32, 0, 1, mx.random.key(5));
    const [u, s, vt] = linalg.svd(a);
    const back = mx.matmul(mx.multiply(u, s), vt);
    expect(mx.max(mx.abs(mx.subtract(back, a))).item()).toBeLessThan(40 * 400 * 2 ** -24);
    const trace = mx.sum(mx.diagonal(a)).item() as number;
    const w = linalg.eigvals(a);
    const sum = valuesOf(w.desc).reduce((t, x, i) => (i % 2 ? t : t + x), 0);
    expect(Math.abs(sum - trace)).toBeLessThan(400 * 20 * 2 ** -24);
  });
  it("pinv satisfies A X A = A for a rank-deficient matrix", () => {
    const a = mx.matmul(mx.random.normal([2, 6, 3]), mx.random.normal([2, 3, 5]));
    close(mx.subtract(mx.matmul(mx.matmul(a, linalg.pinv(a)), a), a), new Array<number>(60).fill(0), 2e-4);
  });
});

describe("Hermitian matrices", () => {
  const random = (...shape: number[]) => mx.random.normal(shape, mx.complex64, undefined, undefined, mx.random.key(shape.length));
  const adjoint = (a: ReturnType<typeof random>) => mx.conj(mx.swapaxes(a, -1, -2));
  const worst = (a: ReturnType<typeof random>): number => mx.max(mx.abs(a)).item() as number;
  const check = (a: ReturnType<typeof random>, uplo: "L" | "U" = "L"): number[][] => {
    const n = a.shape.at(-1) as number;
    const [values, vectors] = linalg.eigh(a, uplo);
    expect([values.dtype, vectors.dtype, vectors.shape]).toEqual([mx.float32, mx.complex64, a.shape]);
    const size = Math.max(1, worst(a));
    expect(worst(mx.subtract(mx.matmul(a, vectors), mx.multiply(vectors, mx.expandDims(values, -2)))) / size).toBeLessThan(4e-6);
    expect(worst(mx.subtract(mx.matmul(adjoint(vectors), vectors), mx.eye(n)))).toBeLessThan(1e-5);
    expect(linalg.eigvalsh(a, uplo).tolist()).toEqual(values.tolist());
    return values.tolist() as number[][];
  };
  it("values and orthonormal vectors, also of equal eigenvalues", () => {
    const b = random(3, 7, 7);
    check(mx.add(b, adjoint(b)));
    const [, u] = linalg.eigh(mx.add(b, adjoint(b)).index(0));
    const diagonal = mx.diag(mx.array([2, 2, 2, -1, 5, 5, 0]));
    const equal = mx.matmul(mx.matmul(u, diagonal), adjoint(u));
    const values = check(equal) as unknown as number[];
    [-1, 0, 2, 2, 2, 5, 5].forEach((want, i) => {
      expect(values[i]).toBeCloseTo(want, 5);
    });
    expect(check(mx.zeros([4, 4], mx.complex64))).toEqual([0, 0, 0, 0]);
    expect(check(mx.astype(mx.eye(3), mx.complex64))).toEqual([1, 1, 1]);
  });
  it("reads one triangle; known values", () => {
    const c = mx.Complex;
    const lower = mx.array([[c(2, 9), c(77, 77)], [c(1, 1), c(3, -9)]]);
    const upper = mx.array([[c(2, 9), c(1, -1)], [c(77, 77), c(3, -9)]]);
    for (const [a, uplo] of [[lower, "L"], [upper, "U"]] as const) {
      const values = linalg.eigvalsh(a, uplo).tolist() as number[];
      expect(values[0]).toBeCloseTo(1, 6);
      expect(values[1]).toBeCloseTo(4, 6);
    }
    expect(linalg.eigh(mx.zeros([2, 0, 0], mx.complex64)).map((x) => x.shape)).toEqual([[2, 0], [2, 0, 0]]);
    expect(() => linalg.eigh(mx.zeros([2, 3], mx.complex64))).toThrow("[linalg.eigh]");
  });
});

describe("cholesky of a singular matrix", () => {
  it("gives a factor when float32 can not tell the last pivot from 0, and NaN for an indefinite one", () => {
    const root = mx.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    const a = mx.divide(mx.matmul(mx.transpose(root), root), 81);
    const lower = linalg.cholesky(a);
    expect(mx.allclose(mx.matmul(lower, mx.transpose(lower)), a, 1e-5, 1e-7).item()).toBe(true);
    expect(mx.isnan(linalg.cholesky(mx.array([[1, 2], [2, 3.999]]))).tolist()).toEqual([[true, true], [true, true]]);
    expect(mx.isnan(linalg.cholesky(mx.array([[1, 2], [2, 4 - 1e-12]], mx.float64))).tolist()).toEqual([[true, true], [true, true]]);
  });
});

describe("arguments", () => {
  it("errors name the function and what it got", () => {
    const square = mx.ones([2, 2]);
    const whole = mx.ones([2, 2], mx.int32);
    for (const name of ["inv", "triInv", "cholesky", "choleskyInv", "eigh", "eigvalsh", "eig", "eigvals", "det", "slogdet"] as const) {
      const f = linalg[name] as (a: unknown) => unknown;
      expect(() => f(mx.ones([2, 3])), name).toThrow(`[linalg.${name}]`);
      expect(() => f(mx.ones([2])), name).toThrow(`[linalg.${name}]`);
    }
    for (const name of ["inv", "qr", "svd", "lu", "luFactor", "pinv", "eigh", "eig", "cholesky"] as const) {
      expect(() => (linalg[name] as (a: unknown) => unknown)(whole), name).toThrow(`[linalg.${name}] arrays must have type float32 or float64, got int32`);
      expect(() => (linalg[name] as (a: unknown) => unknown)(mx.array(1)), name).toThrow(`[linalg.${name}]`);
    }
    expect(() => linalg.eigh(square, "X")).toThrow("uplo");
    expect(() => linalg.solve(square, mx.ones([3]))).toThrow("[linalg.solve]");
    expect(() => linalg.solve(mx.ones([2, 3]), mx.ones([2]))).toThrow("[linalg.solve]");
    expect(() => linalg.solveTriangular(square, mx.array(1))).toThrow("[linalg.solveTriangular]");
    expect(() => linalg.norm(mx.ones([2, 2, 2]), 2)).toThrow("[linalg.norm]");
    expect(() => linalg.norm(mx.ones([2]), "fro")).toThrow("[linalg.norm]");
    expect(() => linalg.norm(square, 3)).toThrow("[linalg.norm]");
    expect(() => linalg.norm(square, 2, [0, 0])).toThrow("[linalg.norm]");
    expect(() => linalg.cross(mx.ones([4]), mx.ones([4]))).toThrow("[linalg.cross]");
  });
  it("a stream may stand behind or in the place of options", () => {
    const a = mx.array([
      [2, 0],
      [0, 3],
    ]);
    close(linalg.inv(a, mx.cpu), [0.5, 0, 0, 1 / 3], 1e-6);
    close(linalg.svd(a, false, mx.cpu), [3, 2], 1e-6);
    expect(linalg.svd(a, mx.cpu).length).toBe(3);
    close(linalg.eigvalsh(a, mx.cpu), [2, 3], 1e-6);
    close(linalg.norm(a, mx.cpu), [Math.sqrt(13)], 1e-6);
    close(linalg.cholesky(mx.multiply(a, a), mx.cpu), [2, 0, 0, 3], 1e-6);
  });
});

describe("MLX_CHECK", () => {
  it("compares what right results have in common", () => {
    process.env["MLX_CHECK"] = "1";
    try {
      // Repeated eigenvalues and a null space: the reference finds other bases than the kernels.
      const a = mx.matmul(mx.ones([4, 4]), mx.eye(4));
      for (const results of [linalg.eigh(a), linalg.svd(a), linalg.qr(a), linalg.eig(a), [linalg.inv(mx.add(a, mx.eye(4)))]]) mx.eval(results);
    } finally {
      delete process.env["MLX_CHECK"];
    }
  });
});
