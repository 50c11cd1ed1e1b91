/** Functions made of other functions must close the handles of what they compute on the way: nothing else frees it before the garbage collector runs. */
import { expect, it } from "vitest";
import { mx } from "../src/index.ts";

type A = InstanceType<typeof mx.MxArray>;
const f = mx.array([[0.5, 0.25, 0.125], [0.75, 0.375, 0.0625], [0.1, 0.2, 0.7]]);
const h = mx.array([[0.5, 0.25, 0.125], [0.75, 0.375, 0.0625], [0.1, 0.2, 0.7]], mx.bfloat16);
const d = mx.array([[2, 1, 0], [1, 3, 1], [0, 1, 4]], mx.float64);
const i = mx.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], mx.int32);
const z = mx.astype(f, mx.complex64);
const at = mx.array([2, 0, 1], mx.int32);
const key = mx.random.key(7);
const image = mx.ones([1, 8, 8, 4]);
const line = mx.ones([1, 8, 4]);
const weight = mx.random.normal([16, 64]);
const packed = mx.quantize(weight, 64, 4);
const [words, scales, biases] = packed as [A, A, A];
const x = mx.ones([2, 64]);
const xh = mx.ones([2, 64], mx.bfloat16);
const heads = mx.ones([1, 2, 4, 32]);
const [column, inner, outer, ones3, kernel1, kernel2, stackA, stackB, order, whole, blocks, longA, longB, segments, floats] = [
  mx.reshape(at, [3, 1]), mx.reshape(at, [1, 3]), mx.reshape(at, [3]), mx.ones([2]), mx.ones([3, 2, 4]), mx.ones([3, 2, 2, 4]), mx.ones([2, 3, 4]), mx.ones([2, 4, 5], mx.float16),
  mx.array([1, 0], mx.uint32), mx.ones([64, 64]), mx.ones([2, 2], mx.bool_), mx.ones([4, 8]), mx.ones([8, 4]), mx.array([[0, 4], [4, 8]], mx.uint32), mx.array([0, 1, 2]),
] as A[] as [A, A, A, A, A, A, A, A, A, A, A, A, A, A, A];
const headsHalf = mx.ones([1, 2, 4, 32], mx.float16);
mx.eval(f, h, d, i, z, at, key, image, line, weight, words, scales, biases, x, xh, heads, headsHalf);

const reductions = ["sum", "prod", "max", "min", "mean", "variance", "std", "all", "any", "logsumexp", "softmax", "median", "countNonzero", "argmax", "argmin"] as const;
const scans = ["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"] as const;
const binaries = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "logaddexp", "remainder", "floorDivide", "divmod", "equal", "less", "arctan2", "logicalAnd", "logicalXor", "matmul", "inner", "outer", "kron", "tensordot", "vecdot", "isclose", "allclose", "arrayEqual"] as const;
const unaries = ["abs", "exp", "sin", "tanh", "erf", "sigmoid", "sqrt", "square", "floor", "trunc", "round", "isnan", "nanToNum", "sign", "negative", "real", "imag", "conj", "flip", "sort", "argsort", "diff", "flatten", "squeeze", "tril", "triu", "diag", "trace", "zerosLike", "onesLike", "stopGradient", "contiguous", "degrees"] as const;
const decompositions = ["inv", "pinv", "qr", "svd", "lu", "luFactor", "det", "slogdet", "eig", "eigh", "eigvals", "eigvalsh", "cholesky", "choleskyInv", "triInv"] as const;
const transforms = ["fft", "ifft", "rfft", "irfft", "fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn", "fftshift", "ifftshift"] as const;
// biome-ignore lint/suspicious/noExplicitAny: functions by name
const named = (space: any, name: string): ((...a: unknown[]) => unknown) => space[name];
const each = (names: readonly string[], calls: (name: string) => [string, () => unknown][]): [string, () => unknown][] => names.flatMap(calls);

const cases: [string, () => unknown][] = [
  ...each(reductions, (n) => [f, h, i].flatMap((a) => [[`${n} of ${a.dtype}`, () => named(mx, n)(a)], [`${n} of ${a.dtype} along axis 0`, () => named(mx, n)(a, 0, true)]] as [string, () => unknown][])),
  ...each(scans, (n) => [[n, () => named(mx, n)(f)], [`${n} along axis 0`, () => named(mx, n)(i, 0)]]),
  ...each(binaries, (n) => [[n, () => named(mx, n)(f, f)], [`${n} of two dtypes`, () => named(mx, n)(f, h)], [`${n} with integers`, () => named(mx, n)(i, f)]]),
  ...each(unaries, (n) => [[n, () => named(mx, n)(f)], [`${n} of integers`, () => named(mx, n)(i)]]),
  ...each(["exp", "sqrt", "abs", "sin", "sum", "cumsum", "matmul", "multiply", "divide", "power"], (n) => [[`complex ${n}`, () => named(mx, n)(z, z)]].slice(0, ["matmul", "multiply", "divide", "power"].includes(n) ? 1 : 0) as [string, () => unknown][]),
  ...each(decompositions, (n) => [[`linalg.${n}`, () => named(mx.linalg, n)(d)]]),
  ...each(transforms, (n) => [[`fft.${n}`, () => named(mx.fft, n)(f)]]),
  ["linalg.norm", () => mx.linalg.norm(f)],
  ["linalg.norm along an axis", () => mx.linalg.norm(f, 1, 0)],
  ["linalg.norm nuc", () => mx.linalg.norm(d, "nuc")],
  ["linalg.cross", () => mx.linalg.cross(f, h)],
  ["linalg.solve", () => mx.linalg.solve(d, d)],
  ["linalg.solveTriangular", () => mx.linalg.solveTriangular(d, d)],
  ["random.uniform", () => mx.random.uniform(0, 2, [4])],
  ["random.uniform of a key", () => mx.random.uniform(0, 1, [4], mx.float16, key)],
  ["random.normal", () => mx.random.normal([4], mx.float16, 1, 2)],
  ["random.normal complex", () => mx.random.normal([4], mx.complex64)],
  ["random.randint", () => mx.random.randint(0, 9, [4])],
  ["random.bernoulli", () => mx.random.bernoulli(0.5, [4])],
  ["random.categorical", () => mx.random.categorical(f)],
  ["random.categorical samples", () => mx.random.categorical(f, -1, undefined, 3)],
  ["random.gumbel", () => mx.random.gumbel([4])],
  ["random.laplace", () => mx.random.laplace([4], mx.float16, 1, 2)],
  ["random.truncatedNormal", () => mx.random.truncatedNormal(-1, 1, [4])],
  ["random.multivariateNormal", () => mx.random.multivariateNormal(floats, f, [2])],
  ["random.permutation", () => mx.random.permutation(5)],
  ["random.permutation of an array", () => mx.random.permutation(f, 1)],
  ["random.split", () => mx.random.split(key)],
  ["random.key", () => mx.random.key(3)],
  ["where", () => mx.where(i, f, h)],
  ["clip", () => mx.clip(f, 0, 1)],
  ["pad", () => mx.pad(f, 1)],
  ["pad edge", () => mx.pad(f, 1, 0, "edge")],
  ["pad reflect", () => mx.pad(f, 1, 0, "reflect")],
  ["roll", () => mx.roll(f, 1)],
  ["roll along axes", () => mx.roll(f, [1, 2], [0, 1])],
  ["take", () => mx.take(f, at, 1)],
  ["take flat", () => mx.take(f, at)],
  ["takeAlongAxis", () => mx.takeAlongAxis(f, inner, 0)],
  ["putAlongAxis", () => mx.putAlongAxis(f, i, f, 0)],
  ["searchsorted", () => mx.searchsorted(outer, f)],
  ["topk", () => mx.topk(f, 2, 0)],
  ["partition", () => mx.partition(f, 1, 0)],
  ["sort along axis 0", () => mx.sort(f, 0)],
  ["repeat", () => mx.repeat(f, 2, 1)],
  ["tile", () => mx.tile(f, [2, 2])],
  ["stack", () => mx.stack([f, h])],
  ["concatenate", () => mx.concatenate([f, h], 1)],
  ["split", () => mx.split(f, 3)],
  ["unstack", () => mx.unstack(f)],
  ["meshgrid", () => mx.meshgrid(at, at)],
  ["broadcastArrays", () => mx.broadcastArrays([f, column])],
  ["einsum", () => mx.einsum("ij,jk->ik", [f, h])],
  ["einsum of three", () => mx.einsum("ij,jk,kl->il", [f, f, f])],
  ["addmm", () => mx.addmm(f, f, h)],
  ["addmm complex", () => mx.addmm(z, z, z)],
  ["linspace", () => mx.linspace(0, 1, 5)],
  ["arange", () => mx.arange(5)],
  ["eye", () => mx.eye(3)],
  ["tri", () => mx.tri(3)],
  ["full of an array", () => mx.full([2, 3], at)],
  ["fullLike", () => mx.fullLike(f, 2)],
  ["hanning", () => mx.hanning(5)],
  ["hadamardTransform", () => mx.hadamardTransform(x)],
  ["conv1d", () => mx.conv1d(line, kernel1)],
  ["conv2d", () => mx.conv2d(image, kernel2, 1, 1)],
  ["convTranspose2d", () => mx.convTranspose2d(image, kernel2, 2)],
  ["convolve", () => mx.convolve(floats, ones3)],
  ["quantize", () => mx.quantize(weight)],
  ["dequantize", () => mx.dequantize(words, scales, biases)],
  ["quantizedMatmul", () => mx.quantizedMatmul(x, words, scales, biases)],
  ["quantizedMatmul of two dtypes", () => mx.quantizedMatmul(xh, words, scales, biases)],
  ["gatherMM", () => mx.gatherMM(stackA, stackB, null, order)],
  ["blockMaskedMM", () => mx.blockMaskedMM(whole, whole, 32, blocks)],
  ["segmentedMM", () => mx.segmentedMM(longA, longB, segments)],
  ["fast.rmsNorm", () => mx.fast.rmsNorm(x, null, 1e-5)],
  ["fast.layerNorm", () => mx.fast.layerNorm(xh, null, null, 1e-5)],
  ["fast.rope", () => mx.fast.rope(heads, 32, false, 10000, 1, 0)],
  ["fast.scaledDotProductAttention", () => mx.fast.scaledDotProductAttention(heads, heads, heads, 1)],
  ["fast.scaledDotProductAttention of two dtypes", () => mx.fast.scaledDotProductAttention(heads, headsHalf, headsHalf, 1, "causal")],
  ["index", () => f.index(mx.Slice(0, 2), at)],
  ["at add", () => f.at(at).add(1)],
  ["indexPut_", () => mx.tidy(() => {
    const a = mx.array(f);
    a.indexPut_([at], 1);
    return a;
  })],
];

/** Number of arrays in what a function returned. */
function arraysIn(value: unknown): number {
  if (value instanceof mx.array) return 1;
  if (Array.isArray(value)) return value.reduce((n, v) => n + arraysIn(v), 0);
  return 0;
}

it.each(cases)("%s leaves no handles but its results", (_name, call) => {
  const before = mx.getWrappersCount();
  const result = call();
  const left = mx.getWrappersCount() - before - arraysIn(result);
  mx.dispose(result);
  expect(left).toBe(0);
});
