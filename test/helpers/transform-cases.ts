/** Functions that differentiate and batch, one per op or per way of calling it: for the tests of gradients and of vmap. */
import { core as mx } from "../../src/index.ts";

type A = mx.MxArray;
export interface Case {
  readonly name: string;
  readonly f: (...xs: A[]) => A | A[];
  /** Shapes of the inputs. */
  readonly shapes: readonly (readonly number[])[];
  /** Range of the values, default -2 .. 2. */
  readonly range?: readonly [number, number];
  /** float32 where the kernels compute in float32 whatever the input is. */
  readonly single?: boolean;
  /** Inputs that vmap can not batch. */
  readonly unbatched?: readonly number[];
  /** vmap is not defined. */
  readonly noVmap?: boolean;
  /** Forward mode is not defined. */
  readonly noJvp?: boolean;
}

/** Repeatable numbers in a range. */
export function numbers(seed: number, n: number, [low, high]: readonly [number, number] = [-2, 2]): number[] {
  let a = (seed * 2654435761) >>> 0;
  return Array.from({ length: n }, () => {
    a = (Math.imul(a, 1664525) + 1013904223) >>> 0;
    return low + ((high - low) * a) / 4294967296;
  });
}
export const arrayFrom = (values: readonly number[], shape: readonly number[], dtype: mx.Dtype): A => mx.reshape(mx.array([...values], dtype), shape);

const one = (name: keyof typeof mx, range?: readonly [number, number], shape: readonly number[] = [2, 3]): Case => ({ name, f: mx[name] as Case["f"], shapes: [shape], ...(range ? { range } : {}) });
const two = (name: keyof typeof mx, range?: readonly [number, number]): Case[] => [
  { name, f: mx[name] as Case["f"], shapes: [[2, 3], [2, 3]], ...(range ? { range } : {}) },
  { name: `${name}, broadcast`, f: mx[name] as Case["f"], shapes: [[2, 1, 3], [4, 1]], ...(range ? { range } : {}) },
];
const ints = (values: readonly number[], shape: readonly number[] = [values.length]): A => mx.reshape(mx.array([...values], mx.int32), shape);

export const elementwise: Case[] = [
  ...(["abs", "negative", "square", "exp", "expm1", "sin", "cos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "erf", "sigmoid", "degrees", "radians"] as const).map((n) => one(n)),
  ...(["reciprocal", "sqrt", "rsqrt", "log", "log2", "log10", "log1p"] as const).map((n) => one(n, [0.5, 3])),
  one("tan", [-1, 1]), one("arcsin", [-0.9, 0.9]), one("arccos", [-0.9, 0.9]), one("arctanh", [-0.9, 0.9]), one("erfinv", [-0.9, 0.9]), one("arccosh", [1.2, 3]), one("exp", undefined, []),
  ...two("add"), ...two("subtract"), ...two("multiply"), ...two("divide", [0.5, 3]), ...two("power", [0.5, 3]), ...two("arctan2", [0.5, 3]), ...two("maximum"), ...two("minimum"), ...two("logaddexp"), ...two("remainder", [1.1, 1.9]),
  { name: "power by 3", f: (x) => mx.power(x as A, 3), shapes: [[2, 3]] },
  { name: "where", f: (x, y) => mx.where(mx.array([true, false, true]), x as A, y as A), shapes: [[2, 3], [1]] },
  { name: "clip", f: (x) => mx.clip(x as A, -0.7, 0.9), shapes: [[3, 4]] },
  { name: "nanToNum", f: (x) => mx.nanToNum(x as A), shapes: [[4]] },
  { name: "variance", f: (x) => mx.variance(x as A, 1), shapes: [[2, 5]] },
  { name: "x used twice", f: (x) => mx.multiply(mx.sin(x as A), x as A), shapes: [[2, 3]] },
];

export const movement: Case[] = [
  { name: "reshape", f: (x) => mx.reshape(x as A, [3, -1]), shapes: [[2, 3, 2]] },
  { name: "transpose", f: (x) => mx.transpose(x as A, [2, 0, 1]), shapes: [[2, 3, 4]] },
  { name: "expandDims, squeeze", f: (x) => mx.multiply(mx.expandDims(x as A, [0, 2]), mx.expandDims(mx.squeeze(mx.expandDims(x as A, 1), 1), [0, 2])), shapes: [[2, 3]] },
  { name: "broadcastTo", f: (x) => mx.broadcastTo(x as A, [4, 2, 3]), shapes: [[2, 1]] },
  { name: "asStrided, overlapping", f: (x) => mx.asStrided(x as A, [3, 3], [1, 2], 1), shapes: [[9]] },
  { name: "diagonal", f: (x) => mx.diagonal(x as A, 1, 0, 2), shapes: [[3, 2, 4]] },
  { name: "diagonal below", f: (x) => mx.diagonal(x as A, -1), shapes: [[4, 3]] },
  { name: "diag", f: (x) => mx.diag(x as A, -1), shapes: [[3]] },
  { name: "tril, triu", f: (x) => mx.subtract(mx.tril(x as A), mx.triu(x as A, 1)), shapes: [[2, 3, 3]] },
  { name: "contiguous", f: (x) => mx.contiguous(mx.transpose(x as A)), shapes: [[2, 3]] },
  { name: "slice with steps", f: (x) => (x as A).index(mx.Slice(null, null, -2), mx.Slice(1, 4, 2)), shapes: [[5, 4]] },
  { name: "split", f: (x) => mx.split(x as A, 2, 1), shapes: [[2, 4]] },
  { name: "sliceUpdate", f: (x, u) => mx.sliceUpdate(x as A, u as A, [1, 0], [0, 1]), shapes: [[4, 3], [2, 2]] },
  { name: "slice at array", f: (x) => mx.slice(x as A, ints([1]), [1], [3, 2]), shapes: [[3, 4]] },
  { name: "sliceUpdate at array", f: (x, u) => mx.sliceUpdate(x as A, u as A, ints([1]), [1]), shapes: [[3, 4], [3, 2]] },
  { name: "concatenate", f: (x, y) => mx.concatenate([x as A, y as A, x as A], 1), shapes: [[2, 3], [2, 1]] },
  { name: "stack", f: (x, y) => mx.stack([x as A, y as A], 1), shapes: [[2, 3], [2, 3]] },
  { name: "pad", f: (x) => mx.pad(x as A, [[1, 0], [2, 1]]), shapes: [[2, 3]] },
  { name: "pad with value", f: (x, v) => mx.pad(x as A, [[1, 2]], v as A), shapes: [[3], []], unbatched: [1] },
  { name: "roll, repeat, tile", f: (x) => mx.add(mx.repeat(mx.roll(x as A, 1, 0), 2, 0), mx.tile(x as A, [2, 1])), shapes: [[3, 2]] },
  { name: "full of an array", f: (x) => mx.full([2, 3], x as A), shapes: [[]] },
];

export const reductions: Case[] = [
  ...(["sum", "mean", "prod", "max", "min", "logsumexp"] as const).flatMap((name): Case[] => {
    const f = mx[name] as (x: A, axis?: number | number[], keep?: boolean) => A;
    return [
      { name, f: (x) => f(x as A), shapes: [[2, 3]] },
      { name: `${name}, axis`, f: (x) => f(x as A, 1), shapes: [[2, 3, 2]] },
      { name: `${name}, axes kept`, f: (x) => f(x as A, [0, 2], true), shapes: [[2, 3, 2]] },
    ];
  }),
  { name: "prod with a zero", f: (x) => mx.prod(mx.multiply(x as A, mx.array([1, 0, 1], mx.float64)), 0), shapes: [[3]] },
  { name: "softmax", f: (x) => mx.softmax(x as A, 0), shapes: [[4, 2]] },
  { name: "softmax of all", f: (x) => mx.softmax(x as A), shapes: [[2, 3]] },
  { name: "cumsum", f: (x) => mx.cumsum(x as A, 0), shapes: [[4, 2]] },
  { name: "cumsum, reversed, exclusive", f: (x) => mx.cumsum(x as A, 1, true, false), shapes: [[2, 4]] },
  ...[false, true].flatMap((reverse) => [false, true].map((inclusive): Case => ({ name: `cumprod with zeros, reverse ${reverse}, inclusive ${inclusive}`, f: (x) => mx.cumprod(mx.multiply(x as A, mx.array([1, 0, 1, 0, 1], mx.float64)), 1, reverse, inclusive), shapes: [[2, 5]] }))),
  { name: "cumprod", f: (x) => mx.cumprod(x as A, 0), shapes: [[4, 2]] },
  { name: "logcumsumexp", f: (x) => mx.logcumsumexp(x as A, 1), shapes: [[2, 4]] },
  { name: "sort", f: (x) => mx.sort(x as A, 0), shapes: [[4, 2]] },
  { name: "topk", f: (x) => mx.topk(x as A, 2), shapes: [[2, 5]] },
  { name: "partition", f: (x) => mx.partition(x as A, 2, 0), shapes: [[5, 2]] },
  ...(["cummax", "cummin"] as const).flatMap((name) => [false, true].flatMap((reverse) => [false, true].map((inclusive): Case => ({
    name: `${name}, reverse ${reverse}, inclusive ${inclusive}`,
    // What an exclusive scan starts with is infinite.
    f: (x) => mx.nanToNum(mx[name](x as A, 1, reverse, inclusive), 0, 0, 0),
    shapes: [[2, 5]],
  })))),
  { name: "std", f: (x) => mx.std(x as A, 0, false, 1), shapes: [[4, 2]] },
];

export const indexing: Case[] = [
  { name: "take", f: (x) => mx.take(x as A, ints([2, 0, 2, -1]), 1), shapes: [[2, 3]] },
  { name: "take of all", f: (x) => mx.take(x as A, ints([5, 1, 1, 0], [2, 2])), shapes: [[2, 3]] },
  { name: "index with arrays and slices", f: (x) => (x as A).index(ints([1, 0, 1]), mx.Slice(0, 2), ints([0, 3, 0])), shapes: [[2, 3, 4]] },
  { name: "takeAlongAxis", f: (x) => mx.takeAlongAxis(x as A, ints([2, 0, 0, 1], [2, 2]), 1), shapes: [[2, 3]] },
  { name: "putAlongAxis", f: (x, v) => mx.putAlongAxis(x as A, ints([2, 0, 0, 1], [2, 2]), v as A, 1), shapes: [[2, 3], [2, 2]] },
  { name: "scatterAddAxis", f: (x, v) => mx.scatterAddAxis(x as A, ints([2, 2, 0, 1], [2, 2]), v as A, 1), shapes: [[2, 3], [2, 2]] },
  { name: "at.add", f: (x, v) => (x as A).at(ints([1, 1, 0])).add(v as A), shapes: [[2, 3], [3, 3]] },
  { name: "at.add with a slice", f: (x, v) => (x as A).at(mx.Slice(1, 3), ints([1, 1])).add(v as A), shapes: [[4, 3], [2, 2]] },
  {
    name: "indexPut_",
    f: (x, v) => {
      const y = mx.multiply(x as A, 2);
      y.indexPut_([ints([1, 3])], v as A);
      return y;
    },
    shapes: [[4, 2], [2, 2]],
  },
  { name: "at.multiply with a slice", f: (x, v) => (x as A).at(mx.Slice(1, 3)).multiply(v as A), shapes: [[4, 3], [2, 3]] },
  { name: "at.maximum", f: (x, v) => (x as A).at(ints([1, 3])).maximum(v as A), shapes: [[4], [2]] },
  { name: "at.minimum with a slice", f: (x, v) => (x as A).at(mx.Slice(1, 3)).minimum(v as A), shapes: [[4, 3], [2, 3]] },
  ...([["a mask of all dimensions", [[true, false, true], [false, true, true]], [3]], ["a mask of rows", [true, true], [2, 3]], ["a mask, one row for all", [true, true], [3]]] as const).map(([name, mask, values]): Case => ({
    name: `indexPut_ by ${name}`,
    f: (x, v) => {
      const y = mx.multiply(x as A, 2);
      y.indexPut_(mx.array(mask as never), v as A);
      return y;
    },
    shapes: [[2, 3], values],
  })),
];

const product = (name: string, a: number[], b: number[]): Case => ({ name: `matmul ${name}`, f: (x, y) => mx.matmul(x as A, y as A), shapes: [a, b] });
export const products: Case[] = [
  product("2 x 2", [2, 3], [3, 4]), product("batch", [5, 2, 3], [5, 3, 2]), product("batch, matrix", [5, 2, 3], [3, 2]), product("matrix, batch", [2, 3], [4, 3, 2]),
  product("broadcast batches", [2, 1, 2, 3], [4, 3, 2]), product("vector, vector", [3], [3]), product("vector, matrix", [3], [3, 2]), product("matrix, vector", [2, 3], [3]), product("batch, vector", [4, 2, 3], [3]), product("vector, batch", [3], [4, 3, 2]),
  { name: "addmm", f: (c, a, b) => mx.addmm(c as A, a as A, b as A, 0.5, 2), shapes: [[2], [3, 4], [4, 2]] },
  { name: "gatherMM", f: (a, b) => mx.gatherMM(a as A, b as A, ints([1, 0, 1]), ints([2, 2, 0])), shapes: [[2, 2, 3], [3, 3, 2]] },
  { name: "inner, outer, tensordot", f: (a, b) => mx.add(mx.inner(a as A, b as A), mx.sum(mx.multiply(mx.outer(a as A, b as A), mx.tensordot(a as A, b as A, 2)))), shapes: [[2, 3], [2, 3]] },
  { name: "conv1d with groups", f: (x, w) => mx.conv1d(x as A, w as A, 2, 1, 1, 2), shapes: [[1, 5, 4], [2, 2, 2]], single: true },
  { name: "convTranspose2d", f: (x, w) => mx.convTranspose2d(x as A, w as A, 2, 1), shapes: [[1, 3, 2, 2], [2, 2, 2, 2]], single: true },
  { name: "segmentedMM", f: (a, b) => mx.segmentedMM(a as A, b as A, ints([0, 2, 2, 2, 1, 4], [3, 2])), shapes: [[2, 4], [4, 3]] },
  { name: "blockMaskedMM", f: (a, b) => mx.blockMaskedMM(a as A, b as A, 32, null, mx.array([[true, false]]), mx.array([[1], [0.5]])), shapes: [[2, 33], [33, 2]], single: true },
  { name: "hadamardTransform", f: (x) => mx.hadamardTransform(x as A), shapes: [[2, 12]] },
  { name: "kron", f: (a, b) => mx.kron(a as A, b as A), shapes: [[2, 2], [3]] },
  { name: "einsum", f: (a, b) => mx.einsum("ij,kj->ki", [a as A, b as A]), shapes: [[2, 3], [4, 3]] },
];

/** A function of complex numbers as one of their parts, whose derivatives are real: then both conventions for complex ones are tested by differences. */
const ofParts = (f: (...zs: A[]) => A): Case["f"] => (...parts) => {
  const zs = Array.from({ length: parts.length / 2 }, (_, i) => mx.add(parts[2 * i] as A, mx.multiply(parts[2 * i + 1] as A, mx.array(mx.Complex(0, 1)))));
  const y = f(...zs);
  return y.dtype === mx.complex64 ? [mx.real(y), mx.imag(y)] : y;
};
const complexCase = (name: string, f: (...zs: A[]) => A, shapes: readonly (readonly number[])[] = [[2, 3]], range?: readonly [number, number]): Case => ({
  name: `${name} of complex numbers`, f: ofParts(f), shapes: shapes.flatMap((s) => [s, s]), single: true, ...(range ? { range } : {}),
});
/** Away from 0, 1 and -1, and from cuts. */
const off: readonly [number, number] = [0.3, 0.9];
export const complexes: Case[] = [
  ...(["negative", "square", "exp", "sin", "cos", "sinh", "cosh", "tanh", "degrees", "radians", "conjugate", "abs", "real", "imag"] as const).map((n) => complexCase(n, mx[n] as (z: A) => A, [[2, 3]], [0.1, 1])),
  ...(["reciprocal", "sqrt", "rsqrt", "log", "log2", "log10", "log1p", "tan", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"] as const).map((n) => complexCase(n, mx[n] as (z: A) => A, [[2, 3]], off)),
  ...(["add", "subtract", "multiply", "divide", "power", "logaddexp", "maximum", "minimum"] as const).map((n) => complexCase(n, mx[n] as (z: A, w: A) => A, [[2, 3], [3]], off)),
  complexCase("real times", (z) => mx.multiply(mx.multiply(mx.real(z), z), mx.array([1, 2, 3]))),
  complexCase("matmul", (z, w) => mx.matmul(z, w), [[2, 3], [3, 2]]),
  complexCase("addmm", (z, w) => mx.addmm(z, z, w, 0.5, 2), [[2, 2], [2, 2]]),
  ...(["sum", "mean", "prod"] as const).map((n) => complexCase(n, (z) => (mx[n] as (z: A, axis: number) => A)(z, 0), [[3, 2]])),
  complexCase("cumsum", (z) => mx.cumsum(z, 0, true), [[3, 2]]),
  complexCase("variance", (z) => mx.variance(z, 0), [[3, 2]]),
  complexCase("where", (z, w) => mx.where(mx.array([true, false, true]), z, w), [[2, 3], [3]]),
  complexCase("takeAlongAxis, with a place twice", (z) => mx.takeAlongAxis(z, ints([2, 2], [1, 2]), 1), [[1, 3]]),
  complexCase("slices and transposes", (z) => mx.concatenate([mx.transpose(z).index(mx.Slice(0, 2)), mx.pad(z, [[0, 0], [0, 1]]).index(mx.Slice(), mx.Slice(0, 2))]), [[2, 3]]),
  complexCase("at.add", (z, w) => z.at(ints([1, 1])).add(w), [[3], [2]]),
];

const wave = (name: string, f: (x: A) => A, shape: readonly number[]): Case => ({ ...complexCase(name, f, [shape]), name: `${name} (${shape})` });
const realWave = (name: string, f: (x: A) => A, shape: readonly number[]): Case => ({ name: `${name} (${shape})`, f: (x) => { const y = f(x as A); return y.dtype === mx.complex64 ? [mx.real(y), mx.imag(y)] : y; }, shapes: [shape], single: true });
/** Lengths of all kinds of plans: powers of two, mixed factors, primes. */
export const transforms: Case[] = [
  ...[1, 2, 3, 4, 5, 8, 12, 15, 37].flatMap((n) => [wave("fft", (z) => mx.fft.fft(z), [n]), wave("ifft", (z) => mx.fft.ifft(z), [n]), realWave("rfft", (x) => mx.fft.rfft(x), [n]), wave("irfft", (z) => mx.fft.irfft(z, n), [Math.floor(n / 2) + 1])]),
  ...([["fft2", [2, 3, 4]], ["ifft2", [3, 4]], ["fftn", [2, 3, 2]], ["ifftn", [2, 3, 2]]] as const).map(([n, shape]) => wave(n, (z) => mx.fft[n](z), shape)),
  ...([["rfft2", [2, 3, 4]], ["rfftn", [2, 3, 5]]] as const).map(([n, shape]) => realWave(n, (x) => mx.fft[n](x), shape)),
  ...([["irfft2", [2, 3, 3]], ["irfftn", [2, 3, 3]]] as const).map(([n, shape]) => wave(n, (z) => mx.fft[n](z), shape)),
  wave("fft, along another axis, cut", (z) => mx.fft.fft(z, 3, 0), [4, 2]),
  wave("ifft, along another axis, filled up", (z) => mx.fft.ifft(z, 5, 0), [4, 2]),
  realWave("rfft, orthonormal, along axis 0", (x) => mx.fft.rfft(x, 6, 0, "ortho"), [4, 2]),
  wave("irfft, forward, along axis 0, odd", (z) => mx.fft.irfft(z, 5, 0, "forward"), [4, 2]),
  wave("fftshift", (z) => mx.fft.ifftshift(mx.fft.fftshift(mx.fft.fft(z))), [5]),
];

const mask = mx.array([[true, false, true, true], [true, true, false, true], [false, true, true, true]]);
const attention = (name: string, extra: unknown[], shapes: number[][] = [[2, 4, 3, 5], [2, 2, 4, 5], [2, 2, 4, 3]]): Case => ({
  name: `scaledDotProductAttention ${name}`,
  f: (q, k, v, ...rest) => mx.fast.scaledDotProductAttention(q as A, k as A, v as A, 0.4, ...(extra as [null]), ...(rest as [A])),
  shapes,
  single: true,
});
export const layers: Case[] = [
  { name: "rmsNorm", f: (x, w) => mx.fast.rmsNorm(x as A, w as A, 1e-3), shapes: [[2, 3, 4], [4]], single: true },
  { name: "rmsNorm, no weight", f: (x) => mx.fast.rmsNorm(x as A, null, 1e-3), shapes: [[3, 4]], single: true },
  { name: "layerNorm", f: (x, w, b) => mx.fast.layerNorm(x as A, w as A, b as A, 1e-3), shapes: [[2, 4], [4], [4]], single: true },
  { name: "layerNorm, bias only", f: (x, b) => mx.fast.layerNorm(x as A, null, b as A, 1e-3), shapes: [[2, 4], [4]], single: true },
  { name: "rope", f: (x) => mx.fast.rope(x as A, 4, false, 10000, 1, 3), shapes: [[1, 2, 3, 6]], single: true },
  { name: "rope, traditional, offsets", f: (x) => mx.fast.rope(x as A, 6, true, 10000, 0.5, ints([1, 5])), shapes: [[2, 2, 3, 6]], single: true },
  attention("", [null]), attention("causal", ["causal"]), attention("bool mask", [mask]),
  { ...attention("additive mask", []), f: (q, k, v, m) => mx.fast.scaledDotProductAttention(q as A, k as A, v as A, 0.4, m as A), shapes: [[2, 4, 3, 5], [2, 2, 4, 5], [2, 2, 4, 3], [4, 3, 4]], unbatched: [3] },
  { ...attention("sinks", []), f: (q, k, v, s) => mx.fast.scaledDotProductAttention(q as A, k as A, v as A, 0.4, null, s as A), shapes: [[2, 4, 3, 5], [2, 2, 4, 5], [2, 2, 4, 3], [4]], unbatched: [3] },
  {
    name: "the gradients of scaledDotProductAttention",
    f: (q, k, v, g) => mx.vjp((a, b, c) => mx.fast.scaledDotProductAttention(a, b, c, 0.4, "causal"), [q as A, k as A, v as A], [g as A])[1],
    shapes: [[1, 2, 2, 3], [1, 1, 3, 3], [1, 1, 3, 2], [1, 2, 2, 2]],
    range: [-1, 1],
    single: true,
  },
  { name: "astype", f: (x) => mx.multiply((x as A).astype(mx.float32), 2).astype(mx.float32), shapes: [[2, 3]], single: true },
];
const [codes, scales, biases] = mx.quantize(arrayFrom(numbers(3, 3 * 64), [3, 64], mx.float32), 32, 4);
const several = (x: A): A => mx.stack([x, mx.roll(x, 1, 0)]);
export const quantized: Case[] = [
  { name: "dequantize", f: (s, b) => mx.dequantize(codes, s as A, b as A, 32, 4), shapes: [[3, 2], [3, 2]], single: true },
  { name: "quantizedMatmul", f: (x, s, b) => mx.quantizedMatmul(x as A, codes, s as A, b as A, true, 32, 4), shapes: [[2, 64], [3, 2], [3, 2]], range: [-0.5, 0.5], single: true, noJvp: true },
  { name: "quantizedMatmul, not transposed", f: (x, s, b) => mx.quantizedMatmul(x as A, codes, s as A, b as A, false, 32, 4), shapes: [[2, 3], [3, 2], [3, 2]], range: [-0.5, 0.5], single: true, noJvp: true },
  { name: "quantizedMatmul by x", f: (x) => mx.quantizedMatmul(x as A, codes, scales, biases, true, 32, 4), shapes: [[2, 64]], single: true },
  ...[true, false].map((transpose): Case => ({
    name: `gatherQMM, a matrix used twice, transpose ${transpose}`,
    f: (x, s, b) => mx.gatherQMM(x as A, several(codes), s as A, b as A, ints([0, 1, 0]), ints([1, 1, 0]), transpose, 32, 4),
    shapes: [[2, 2, transpose ? 64 : 3], [2, 3, 2], [2, 3, 2]],
    range: [-0.5, 0.5],
    single: true,
    noJvp: true,
  })),
  ...(["mxfp4", "mxfp8", "nvfp4"] as const).flatMap((mode): Case[] => {
    const [c, s] = mx.quantize(arrayFrom(numbers(3, 32 * 64), [32, 64], mx.float32), null, null, mode);
    return [
      { name: `quantizedMatmul ${mode}`, f: (x) => mx.quantizedMatmul(x as A, c, s, null, true, null, null, mode), shapes: [[2, 64]], single: true },
      { name: `quantizedMatmul ${mode}, not transposed`, f: (x) => mx.quantizedMatmul(x as A, c, s, null, false, null, null, mode), shapes: [[2, 32]], single: true },
      { name: `gatherQMM ${mode}`, f: (x) => mx.gatherQMM(x as A, several(c), several(s), null, ints([0, 1, 0]), ints([1, 1, 0]), true, null, null, false, mode), shapes: [[2, 2, 64]], single: true },
    ];
  }),
  { name: "gatherQMM by x", f: (x) => mx.gatherQMM(x as A, several(codes), several(scales), several(biases), ints([0, 1, 0]), ints([1, 1, 0]), true, 32, 4), shapes: [[2, 2, 64]], single: true },
];

/** y = x^2 w with its own rules, which are right. */
const ownRules = mx.customFunction((x: A, w: A) => mx.multiply(mx.square(x), w));
ownRules.vjp(([x, w], [g]) => [mx.multiply(g, mx.multiply(mx.multiply(x, 2), w)), mx.multiply(g, mx.square(x))]);
ownRules.jvp(([x, w], [t, u]) => mx.add(t ? mx.multiply(t, mx.multiply(mx.multiply(x, 2), w)) : 0, u ? mx.multiply(u, mx.square(x)) : 0));
const silu = mx.fast.kernel({ name: "silu", inputs: ["x", "y"], outputs: ["z"], expr: ({ x, y }, m) => ({ z: m.multiply(m.multiply(x, m.sigmoid(x)), y) }) });
export const functions: Case[] = [
  { name: "customFunction with rules", f: (x, w) => ownRules(x, w), shapes: [[2, 3], [2, 3]] },
  { name: "checkpoint", f: (x, w) => mx.checkpoint((a: A, b: A) => mx.multiply(mx.sin(a), b))(x as A, w as A), shapes: [[2, 3], [2, 3]] },
  { name: "a gradient", f: (x) => mx.grad((a: A) => mx.sum(mx.multiply(mx.square(a), a)))(x), shapes: [[2, 3]] },
  { name: "a compiled function", f: (x) => mx.compile((a: A) => mx.multiply(mx.sin(a), a))(x as A), shapes: [[2, 3]] },
  { name: "depends", f: (x, y) => mx.depends(x as A, y as A), shapes: [[2], [3]] },
  { name: "fast.kernel", f: (x, y) => silu(x as A, y as A), shapes: [[2, 3], [3]] },
  { name: "arrayEqual, with NaN", f: (x) => mx.where(mx.arrayEqual(x as A, x as A, true), x as A, 0), shapes: [[3]] },
];
export const allCases: readonly (readonly [string, readonly Case[]])[] = [["elementwise", elementwise], ["movement", movement], ["reductions", reductions], ["indexing", indexing], ["products", products], ["complex", complexes], ["fft", transforms], ["layers", layers], ["quantized", quantized], ["functions", functions]];

export const listOf = (x: A | readonly A[]): A[] => (Array.isArray(x) ? [...x] : [x as A]);
/** Elements as float64 numbers. */
export const flat = (a: A): number[] => mx.tidy(() => mx.reshape(a.astype(mx.float64), [-1]).tolist() as number[]);
