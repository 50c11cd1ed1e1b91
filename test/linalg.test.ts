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

describe("complex matrices", () => {
  type Matrices = ReturnType<typeof mx.array>;
  type Pair = readonly [re: number, im: number];
  const c = mx.Complex;
  const random = (...shape: number[]): Matrices => mx.random.normal(shape, mx.complex64, undefined, undefined, mx.random.key(shape.reduce((a, b) => 31 * a + b, 7)));
  const complex = (a: Matrices): Matrices => mx.astype(a, mx.complex64);
  const times = ([a, b]: Pair, [x, y]: Pair): Pair => [a * x - b * y, a * y + b * x];
  const adjoint = (a: Pair[][], columns: number): Pair[][] => Array.from({ length: columns }, (_, j) => a.map((row) => [(row[j] as Pair)[0], -(row[j] as Pair)[1]]));
  /** Products in float64. */
  const product = (a: Pair[][], b: Pair[][]): Pair[][] =>
    a.map((row) =>
      (b[0] ?? []).map((_, j) =>
        row.reduce<Pair>(
          (sum, x, k) => {
            const [re, im] = times(x, (b[k] as Pair[])[j] as Pair);
            return [sum[0] + re, sum[1] + im];
          },
          [0, 0],
        ),
      ),
    );
  /** The matrices (..., m, n) of an array, real or complex, in float64. */
  function matrices(a: Matrices): Pair[][][] {
    const [m, n] = a.shape.slice(-2) as [number, number];
    const values = valuesOf(mx.astype(a, mx.complex64).desc);
    return Array.from({ length: a.size / (m * n) }, (_, g) =>
      Array.from({ length: m }, (_x, i) => Array.from({ length: n }, (_y, j): Pair => [values[2 * ((g * m + i) * n + j)] as number, values[2 * ((g * m + i) * n + j) + 1] as number])),
    );
  }
  const size = (a: Pair[][]): number => Math.sqrt(a.flat().reduce((sum, [re, im]) => sum + re * re + im * im, 0));
  const distance = (a: Pair[][], b: Pair[][]): number => size(a.map((row, i) => row.map(([re, im], j): Pair => [re - ((b[i] as Pair[])[j] as Pair)[0], im - ((b[i] as Pair[])[j] as Pair)[1]])));
  const unit = (n: number): Pair[][] => Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_x, j): Pair => [Number(i === j), 0]));
  /** Rounding of float32 in n^2 elements of three factors. */
  const bound = (n: number): number => 2 ** -24 * 6 * (n + 1);

  function checkSvd(a: Matrices): number[] {
    const [m, n] = a.shape.slice(-2) as [number, number];
    const batch = a.shape.slice(0, -2);
    const k = Math.min(m, n);
    const [u, s, vh] = linalg.svd(a);
    expect([u.dtype, s.dtype, vh.dtype]).toEqual([mx.complex64, mx.float32, mx.complex64]);
    expect([u.shape, s.shape, vh.shape]).toEqual([[...batch, m, m], [...batch, k], [...batch, n, n]]);
    const values = valuesOf(s.desc);
    const [us, vs] = [matrices(u), matrices(vh)];
    matrices(a).forEach((x, g) => {
      const [left, right] = [us[g] as Pair[][], vs[g] as Pair[][]];
      const own = [...values.slice(g * k, (g + 1) * k)];
      expect(own).toEqual([...own].sort((p, q) => q - p));
      expect(Math.min(...own)).toBeGreaterThanOrEqual(0);
      const scaled = left.map((row) => own.map((v, j) => times(row[j] as Pair, [v, 0])));
      expect(distance(product(scaled, right.slice(0, k)), x)).toBeLessThanOrEqual(bound(m + n) * size(x));
      expect(distance(product(adjoint(left, m), left), unit(m))).toBeLessThan(bound(m + n));
      expect(distance(product(right, adjoint(right, n)), unit(n))).toBeLessThan(bound(m + n));
    });
    expect(linalg.svd(a, false).tolist()).toEqual(s.tolist());
    return [...values];
  }
  it("svd: unitary factors, descending values, and the matrix as their product", () => {
    for (let n = 1; n <= 12; n++) checkSvd(random(n, n));
    for (const shape of [[9, 1], [1, 5], [7, 4], [3, 8], [2, 3, 6, 4], [2, 2, 5]]) checkSvd(random(...shape));
    checkSvd(mx.swapaxes(random(2, 3, 5), -1, -2));
    checkSvd(mx.multiply(random(5, 3), 1e-30));
  });
  it("svd of matrices with equal, zero or missing singular values", () => {
    expect(checkSvd(mx.zeros([3, 5], mx.complex64))).toEqual([0, 0, 0]);
    const turn = mx.array([c(0, 1)]);
    for (const a of [complex(mx.eye(4)), mx.multiply(mx.eye(4), turn)]) for (const s of checkSvd(a)) expect(s).toBeCloseTo(1, 6);
    const low = checkSvd(mx.matmul(random(7, 2), random(2, 5)));
    expect(Math.max(...low.slice(2))).toBeLessThan(1e-6 * (low[0] as number));
    close(linalg.svd(mx.array([[c(0, 3), c(0, 0)], [c(0, 0), c(-4, 0)], [c(0, 0), c(0, 0)]]), false), [4, 3], 1e-6);
    for (const [m, n] of [[5, 0], [0, 5], [0, 0]] as const) {
      const [u, s, vh] = linalg.svd(mx.zeros([2, m, n], mx.complex64));
      expect([u.tolist(), s.shape, vh.tolist()]).toEqual([mx.broadcastTo(complex(mx.eye(m)), [2, m, m]).tolist(), [2, 0], mx.broadcastTo(complex(mx.eye(n)), [2, n, n]).tolist()]);
    }
  });

  /** Residuals, lengths, and the traces of A, A^2 and A^3, which the values' power sums must be. */
  function checkEig(a: Matrices): void {
    const n = a.shape.at(-1) as number;
    const [w, v] = linalg.eig(a);
    expect([w.dtype, v.dtype, w.shape, v.shape]).toEqual([mx.complex64, mx.complex64, a.shape.slice(0, -1), a.shape]);
    const values = matrices(mx.expandDims(w, -2));
    const vectors = matrices(v);
    matrices(a).forEach((x, g) => {
      const [own, columns] = [(values[g] as Pair[][])[0] as Pair[], vectors[g] as Pair[][]];
      const scaled = columns.map((row) => row.map((y, j) => times(y, own[j] as Pair)));
      expect(distance(product(x, columns), scaled)).toBeLessThanOrEqual(bound(n) * size(x));
      for (const row of adjoint(columns, n)) expect(size([row])).toBeCloseTo(1, 6);
      let [power, powers] = [x, own];
      for (let p = 1; p <= 3; p++) {
        const trace = power.reduce<Pair>((sum, row, i) => [sum[0] + (row[i] as Pair)[0], sum[1] + (row[i] as Pair)[1]], [0, 0]);
        const sum = powers.reduce<Pair>(([re, im], y) => [re + y[0], im + y[1]], [0, 0]);
        expect(Math.hypot(trace[0] - sum[0], trace[1] - sum[1])).toBeLessThanOrEqual(p * n * bound(n) * size(x) ** p);
        [power, powers] = [product(power, x), powers.map((y, i) => times(y, own[i] as Pair))];
      }
    });
    expect(linalg.eigvals(a).tolist()).toEqual(w.tolist());
  }
  it("eig: residuals, lengths and traces", () => {
    for (let n = 1; n <= 12; n++) checkEig(random(n, n));
    checkEig(random(2, 3, 4, 4));
    checkEig(mx.swapaxes(random(3, 5, 5), -1, -2));
    const b = random(6, 6);
    checkEig(mx.add(b, mx.conj(b.T)));
    // Eigenvalues that the conjugate matrix has as well.
    checkEig(complex(mx.array([[0, -1, 0], [1, 0, 0], [0, 0, 2]])));
    checkEig(complex(mx.random.normal([5, 5], mx.float32, 0, 1, mx.random.key(9))));
  });
  it("eig of known, repeated and defective eigenvalues", () => {
    const sorted = (a: Matrices): Pair[] => (matrices(mx.expandDims(linalg.eigvals(a), -2))[0] as Pair[][])[0]?.slice().sort((x, y) => x[0] - y[0] || x[1] - y[1]) as Pair[];
    const expectValues = (a: Matrices, want: number[], digits: number): void => {
      sorted(a).flat().forEach((x, i) => {
        expect(x).toBeCloseTo(want[i] as number, digits);
      });
    };
    expectValues(mx.array([[c(1, 1), c(5, -2), c(0, 3)], [c(0, 0), c(2, -7), c(1, 1)], [c(0, 0), c(0, 0), c(3, 4)]]), [1, 1, 2, -7, 3, 4], 4);
    expectValues(mx.array([[c(1, 1), c(2, 2)], [c(3, 3), c(4, 4)]]), [(5 - Math.sqrt(33)) / 2, (5 - Math.sqrt(33)) / 2, (5 + Math.sqrt(33)) / 2, (5 + Math.sqrt(33)) / 2], 5);
    expectValues(complex(mx.eye(3)), [1, 0, 1, 0, 1, 0], 6);
    checkEig(mx.zeros([3, 3], mx.complex64));
    const block = mx.array([[c(0, 2), c(1, 0)], [c(0, 0), c(0, 2)]]);
    checkEig(block);
    expectValues(block, [0, 2, 0, 2], 6);
    expect(linalg.eig(mx.zeros([2, 0, 0], mx.complex64)).map((x) => x.shape)).toEqual([[2, 0], [2, 0, 0]]);
  });
  it("NaN in gives NaN; batching, and errors", () => {
    const bad = mx.array([[c(Number.NaN, 0), c(1, 0)], [c(0, 1), c(1, 1)]]);
    for (const x of [...linalg.svd(bad), ...linalg.eig(bad), linalg.eigvals(bad)]) expect(mx.all(mx.isnan(x)).item()).toBe(true);
    const a = random(3, 4, 4);
    expect(mx.vmap((x: Matrices) => linalg.svd(x, false))(a).tolist()).toEqual(linalg.svd(a, false).tolist());
    expect(mx.vmap((x: Matrices) => linalg.eigvals(x))(a).tolist()).toEqual(linalg.eigvals(a).tolist());
    for (const f of [linalg.eig, linalg.eigvals]) expect(() => f(mx.zeros([2, 3], mx.complex64))).toThrow("matrices must be square");
    expect(() => linalg.svd(mx.zeros([2], mx.complex64))).toThrow("[linalg.svd]");
    expect(() => mx.grad((x: Matrices) => mx.sum(linalg.svd(x, false)))(a)).toThrow("svd");
    expect(() => mx.grad((x: Matrices) => mx.sum(mx.abs(linalg.eigvals(x))))(a)).toThrow("eig");
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
