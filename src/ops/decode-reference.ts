/** Float64 oracles of the decode ops. They round where plain ops of the element type would: after the norm, each product, each bias, each factor. */
import type { Aval } from "../core/array.ts";
import { type Dtype, roundTo } from "../core/dtype.ts";
import type { AttentionStepParams, ChooseParams, CombineParams, Packing, ProjectionParams, Rope } from "./decode.ts";

const rounder = (d: Dtype) => (x: number): number => roundTo(d, x);
const last = (a: Aval): number => a.shape[a.shape.length - 1] as number;

/** Row r of a matrix, unpacked. */
function rowOf(data: readonly Float64Array[], r: number, K: number, p: Packing | null): Float64Array {
  const [w, scales, biases] = data as [Float64Array, Float64Array, Float64Array];
  if (!p) return w.subarray(r * K, (r + 1) * K);
  const words = (K / 32) * p.bits;
  const out = new Float64Array(K);
  for (let i = 0; i < K; i++) {
    let q = 0;
    for (let b = 0; b < p.bits; b++) {
      const bit = i * p.bits + b;
      q += (Math.floor((w[r * words + (bit >> 5)] as number) / 2 ** (bit & 31)) & 1) << b;
    }
    const g = Math.floor((r * K + i) / p.groupSize);
    out[i] = q * (scales[g] as number) + (biases[g] as number);
  }
  return out;
}
function product(x: Float64Array, data: readonly Float64Array[], N: number, p: Packing | null): Float64Array {
  return Float64Array.from({ length: N }, (_, r) => rowOf(data, r, x.length, p).reduce((s, w, i) => s + w * (x[i] as number), 0));
}
/** x / sqrt(mean(x^2) + eps) * weight. */
function normed(x: Float64Array, weight: Float64Array, eps: number, round: (x: number) => number): Float64Array {
  const inverse = 1 / Math.sqrt(x.reduce((s, v) => s + v * v, 0) / x.length + eps);
  return x.map((v, i) => round(v * inverse * (weight[i] as number)));
}

/** Splits the inputs from `at` on into one list per matrix. */
function matricesAt(data: readonly Float64Array[], at: number, packings: readonly (Packing | null)[]): Float64Array[][] {
  let next = at;
  return packings.map((p) => {
    const from = next;
    next += p ? 3 : 1;
    return data.slice(from, next);
  });
}
/** Products of x with the matrices behind input `at`, one behind the other, with the bias added. */
function projections(x: Float64Array, data: readonly Float64Array[], avals: readonly Aval[], at: number, params: { packings: readonly (Packing | null)[]; bias: boolean }, round: (x: number) => number): Float64Array {
  let next = at;
  const parts = matricesAt(data, at, params.packings).map((m, i) => {
    const N = (avals[next] as Aval).shape[0] as number;
    next += m.length;
    return product(x, m, N, params.packings[i] as Packing | null).map(round);
  });
  const all = Float64Array.from(parts.flatMap((p) => Array.from(p)));
  const bias = data[data.length - 1] as Float64Array;
  return params.bias ? all.map((v, i) => round(v + (bias[i] as number))) : all;
}
const added = (residual: Float64Array, y: Float64Array, round: (x: number) => number): Float64Array => y.map((v, i) => round(v + (residual[i] as number)));

export function referenceNormProject(data: readonly Float64Array[], avals: readonly Aval[], params: ProjectionParams): Float64Array[] {
  const round = rounder((avals[0] as Aval).dtype);
  const x = normed(data[0] as Float64Array, data[1] as Float64Array, params.eps, round);
  return [projections(x, data, avals, 2, params, round)];
}
export function referenceGateUp(data: readonly Float64Array[], avals: readonly Aval[], params: ProjectionParams): Float64Array[] {
  const round = rounder((avals[0] as Aval).dtype);
  const [both] = referenceNormProject(data, avals, params) as [Float64Array];
  const N = both.length / 2;
  return [both.slice(0, N).map((g, i) => round(round(g * round(1 / (1 + Math.exp(-g)))) * (both[N + i] as number)))];
}
export function referenceProjectAdd(data: readonly Float64Array[], avals: readonly Aval[], params: Omit<ProjectionParams, "eps">): Float64Array[] {
  const round = rounder((avals[0] as Aval).dtype);
  return [added(data[1] as Float64Array, projections(data[0] as Float64Array, data, avals, 2, params, round), round)];
}
export function referenceCombine(data: readonly Float64Array[], avals: readonly Aval[], params: CombineParams): Float64Array[] {
  const round = rounder((avals[1] as Aval).dtype);
  const [S, H, width] = (avals[0] as Aval).shape as [number, number, number];
  const D = width - 4;
  const parts = data[0] as Float64Array;
  const x = new Float64Array(H * D);
  for (let h = 0; h < H; h++) {
    const rows = Array.from({ length: S }, (_, s) => parts.subarray((s * H + h) * width, (s * H + h + 1) * width));
    const top = Math.max(...rows.map((r) => r[D] as number));
    const factors = rows.map((r) => Math.exp((r[D] as number) - top));
    const total = rows.reduce((t, r, s) => t + (factors[s] as number) * (r[D + 1] as number), 0);
    for (let i = 0; i < D; i++) x[h * D + i] = round(rows.reduce((t, r, s) => t + (factors[s] as number) * (r[i] as number), 0) / total);
  }
  return [added(data[1] as Float64Array, projections(x, data, avals, 3, params, round), round)];
}

/** Turns the pairs of a head's vector. */
function turned(x: Float64Array, position: number, rope: Rope, round: (x: number) => number): Float64Array {
  const out = x.slice();
  const half = rope.dims / 2;
  for (let i = 0; i < half; i++) {
    const frequency = rope.wavelengths ? 1 / Math.fround(rope.wavelengths[i] as number) : (rope.base as number) ** (-i / half);
    const angle = position * rope.scale * frequency;
    const [p, q] = rope.traditional ? [2 * i, 2 * i + 1] : [i, i + half];
    out[p] = round((x[p] as number) * Math.cos(angle) - (x[q] as number) * Math.sin(angle));
    out[q] = round((x[p] as number) * Math.sin(angle) + (x[q] as number) * Math.cos(angle));
  }
  return out;
}

export function referenceAttention(data: readonly Float64Array[], avals: readonly Aval[], p: AttentionStepParams): Float64Array[] {
  const [qkv, positions, oldKeys, oldValues] = data as [Float64Array, Float64Array, Float64Array, Float64Array];
  const round = rounder((avals[0] as Aval).dtype);
  const { heads: H, kvHeads: Hkv, headDim: D, splits: S } = p;
  const capacity = (avals[2] as Aval).shape[2] as number;
  const position = Math.min(positions[0] as number, capacity - 1);
  const headAt = (i: number): Float64Array => qkv.slice(i * D, (i + 1) * D);
  const prepare = (x: Float64Array, weight: Float64Array | undefined): Float64Array => turned(weight ? normed(x, weight, p.eps, round) : x, position, p.rope, round);
  const queryWeight = p.queryNorm ? data[4] : undefined;
  const keyWeight = p.keyNorm ? data[p.queryNorm ? 5 : 4] : undefined;
  const [keys, values] = [oldKeys.slice(), oldValues.slice()];
  for (let g = 0; g < Hkv; g++) {
    keys.set(prepare(headAt(H + g), keyWeight), (g * capacity + position) * D);
    values.set(headAt(H + Hkv + g), (g * capacity + position) * D);
  }
  const length = position + 1;
  const each = Math.max(p.least, Math.ceil(length / S));
  const out = new Float64Array(S * H * (D + 4));
  for (let h = 0; h < H; h++) {
    const q = prepare(headAt(h), queryWeight);
    const row = Math.floor(h / (H / Hkv)) * capacity;
    for (let s = 0; s < S; s++) splitSums(out.subarray((s * H + h) * (D + 4), (s * H + h + 1) * (D + 4)), q, keys, values, row, s * each, Math.min(length, (s + 1) * each), p.scale);
  }
  return [out, keys, values];
}
/** The sums over positions [first, end): exp(score - top) * value, then top and the sum of exp(score - top). */
function splitSums(out: Float64Array, q: Float64Array, keys: Float64Array, values: Float64Array, row: number, first: number, end: number, scale: number): void {
  const D = q.length;
  const scores = Array.from({ length: Math.max(0, end - first) }, (_, j) => scale * q.reduce((s, x, i) => s + x * (keys[(row + first + j) * D + i] as number), 0));
  const top = Math.max(Number.NEGATIVE_INFINITY, ...scores);
  out[D] = top;
  scores.forEach((score, j) => {
    const w = Math.exp(score - top);
    out[D + 1] = (out[D + 1] as number) + w;
    for (let i = 0; i < D; i++) out[i] = (out[i] as number) + w * (values[(row + first + j) * D + i] as number);
  });
}

export function referenceEmbed(data: readonly Float64Array[], avals: readonly Aval[], { packing }: { packing: Packing | null }): Float64Array[] {
  const table = avals[1] as Aval;
  const K = packing ? last(avals[2] as Aval) * packing.groupSize : last(table);
  const row = Math.min(Math.max((data[0] as Float64Array)[0] as number, 0), (table.shape[0] as number) - 1);
  return [rowOf(data.slice(1), row, K, packing).slice()];
}

/** 20 rounds of Threefry-2x32 of one counter. */
function threefry(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const ks = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
  let x = (c0 + k0) | 0;
  let y = (c1 + k1) | 0;
  for (let g = 0; g < 5; g++) {
    for (let r = 0; r < 4; r++) {
      const by = rotations[4 * (g % 2) + r] as number;
      x = (x + y) | 0;
      y = ((y << by) | (y >>> (32 - by))) ^ x;
    }
    x = (x + (ks[(g + 1) % 3] as number)) | 0;
    y = (y + (ks[(g + 2) % 3] as number) + g + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}
/** Gumbel noise i of n for a key. */
function gumbelAt(i: number, n: number, k0: number, k1: number): number {
  const half = Math.ceil(n / 2);
  const [first, second] = i < half ? [i, half + i < n ? half + i : 0] : [i - half, i];
  const bits = threefry(k0, k1, first, second)[i < half ? 0 : 1];
  return -Math.log(-Math.log(Math.min(Math.fround(Math.fround(bits) * 2 ** -32), 1 - 2 ** -24)));
}
export function referenceChoose(data: readonly Float64Array[], _avals: readonly Aval[], p: ChooseParams): Float64Array[] {
  const [logits, state, history] = data as readonly [Float64Array, Float64Array, Float64Array];
  const step = state[3] as number;
  const scores = p.temperature === 0 ? logits : logits.map((x, i) => x / p.temperature + gumbelAt(i, logits.length, p.seed, step));
  let token = 0;
  scores.forEach((s, i) => {
    if (s > (scores[token] as number)) token = i;
  });
  return referenceAdvance([Float64Array.of(token), state, history]);
}
export function referenceAdvance(data: readonly Float64Array[]): Float64Array[] {
  const [[token], state, old] = data as unknown as [[number], Float64Array, Float64Array];
  const history = old.slice();
  const step = state[3] as number;
  history[step % history.length] = token;
  return [Float64Array.of(token, (state[1] as number) + 1, (state[2] as number) + 1, step + 1), history];
}
