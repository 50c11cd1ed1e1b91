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
];

const product = (name: string, a: number[], b: number[]): Case => ({ name: `matmul ${name}`, f: (x, y) => mx.matmul(x as A, y as A), shapes: [a, b] });
export const products: Case[] = [
  product("2 x 2", [2, 3], [3, 4]), product("batch", [5, 2, 3], [5, 3, 2]), product("batch, matrix", [5, 2, 3], [3, 2]), product("matrix, batch", [2, 3], [4, 3, 2]),
  product("broadcast batches", [2, 1, 2, 3], [4, 3, 2]), product("vector, vector", [3], [3]), product("vector, matrix", [3], [3, 2]), product("matrix, vector", [2, 3], [3]), product("batch, vector", [4, 2, 3], [3]), product("vector, batch", [3], [4, 3, 2]),
  { name: "addmm", f: (c, a, b) => mx.addmm(c as A, a as A, b as A, 0.5, 2), shapes: [[2], [3, 4], [4, 2]] },
  { name: "gatherMM", f: (a, b) => mx.gatherMM(a as A, b as A, ints([1, 0, 1]), ints([2, 2, 0])), shapes: [[2, 2, 3], [3, 3, 2]] },
  { name: "inner, outer, tensordot", f: (a, b) => mx.add(mx.inner(a as A, b as A), mx.sum(mx.multiply(mx.outer(a as A, b as A), mx.tensordot(a as A, b as A, 2)))), shapes: [[2, 3], [2, 3]] },
  { name: "einsum", f: (a, b) => mx.einsum("ij,kj->ki", [a as A, b as A]), shapes: [[2, 3], [4, 3]] },
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
  { name: "astype", f: (x) => mx.multiply((x as A).astype(mx.float32), 2).astype(mx.float32), shapes: [[2, 3]], single: true },
];
export const allCases: readonly (readonly [string, readonly Case[]])[] = [["elementwise", elementwise], ["movement", movement], ["reductions", reductions], ["indexing", indexing], ["products", products], ["layers", layers]];

/** Repeatable numbers in a range. */
export function numbers(seed: number, n: number, [low, high]: readonly [number, number] = [-2, 2]): number[] {
  let a = (seed * 2654435761) >>> 0;
  return Array.from({ length: n }, () => {
    a = (Math.imul(a, 1664525) + 1013904223) >>> 0;
    return low + ((high - low) * a) / 4294967296;
  });
}
export const arrayFrom = (values: readonly number[], shape: readonly number[], dtype: mx.Dtype): A => mx.reshape(mx.array([...values], dtype), shape);
export const listOf = (x: A | readonly A[]): A[] => (Array.isArray(x) ? [...x] : [x as A]);
/** Elements as float64 numbers. */
export const flat = (a: A): number[] => mx.tidy(() => mx.reshape(a.astype(mx.float64), [-1]).tolist() as number[]);
