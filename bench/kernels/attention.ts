/** Attention, norms, rotary embedding. */
import { core as mx } from "../../src/index.ts";
import { type KernelCase, dot, floats, put } from "./case.ts";

interface Attention {
  readonly heads: number;
  readonly kvHeads: number;
  readonly queries: number;
  readonly keys: number;
  readonly dim: number;
}

const attention = ({ heads, kvHeads, queries, keys, dim }: Attention): KernelCase => ({
  name: `scaledDotProductAttention ${queries === 1 ? "decode" : "causal"} ${heads}/${kvHeads} heads ${queries}x${keys}x${dim} bfloat16`,
  flops: 4 * heads * queries * keys * dim * (queries === 1 ? 1 : 0.5),
  bytes: 2 * 2 * kvHeads * keys * dim,
  prepare() {
    const [dq, dk, dv] = [floats(heads * queries * dim, 1, "bfloat16"), floats(kvHeads * keys * dim, 2, "bfloat16"), floats(kvHeads * keys * dim, 3, "bfloat16")];
    const q = put(dq, [1, heads, queries, dim], "bfloat16");
    const [k, v] = [put(dk, [1, kvHeads, keys, dim], "bfloat16"), put(dv, [1, kvHeads, keys, dim], "bfloat16")];
    const scale = 1 / Math.sqrt(dim);
    return {
      run: () => mx.fast.scaledDotProductAttention(q, k, v, scale, queries === 1 ? null : "causal"),
      expected: (at) => {
        const [d, t, h] = [at % dim, Math.floor(at / dim) % queries, Math.floor(at / dim / queries)];
        const kv = Math.floor((h * kvHeads) / heads) * keys;
        const seen = keys - queries + t + 1;
        const score = (j: number): number => Math.exp(scale * dot(dim, (i) => (dq[(h * queries + t) * dim + i] as number) * (dk[(kv + j) * dim + i] as number)));
        const scores = Array.from({ length: seen }, (_, j) => score(j));
        return dot(seen, (j) => (scores[j] as number) * (dv[(kv + j) * dim + d] as number)) / dot(seen, (j) => scores[j] as number);
      },
      // Weighted means of values up to 1, rounded to bfloat16.
      tolerance: 2 ** -7,
      dispose: () => mx.dispose(q, k, v),
    };
  },
});

const norm = (name: "rmsNorm" | "layerNorm", rows: number, n: number, dtype: "float32" | "bfloat16"): KernelCase => ({
  name: `${name} ${rows}x${n} ${dtype}`,
  bytes: 2 * rows * n * (dtype === "float32" ? 4 : 2),
  prepare() {
    const [data, weights] = [floats(rows * n, 1, dtype), floats(n, 2, dtype)];
    const [x, w, b] = [put(data, [rows, n], dtype), put(weights, [n], dtype), put(new Float32Array(n), [n], dtype)];
    return {
      run: () => (name === "rmsNorm" ? mx.fast.rmsNorm(x, w, 1e-6) : mx.fast.layerNorm(x, w, b, 1e-6)),
      expected: (at) => {
        const row = at - (at % n);
        const mean = name === "rmsNorm" ? 0 : dot(n, (i) => data[row + i] as number) / n;
        const square = dot(n, (i) => ((data[row + i] as number) - mean) ** 2) / n;
        return (((data[at] as number) - mean) / Math.sqrt(square + 1e-6)) * (weights[at % n] as number);
      },
      // Values up to sqrt(3).
      tolerance: dtype === "float32" ? 2 ** -20 : 2 ** -7,
      dispose: () => mx.dispose(x, w, b),
    };
  },
});

const rope = (heads: number, length: number, dim: number): KernelCase => ({
  name: `rope ${heads}x${length}x${dim} bfloat16`,
  bytes: 4 * heads * length * dim,
  prepare() {
    const data = floats(heads * length * dim, 1, "bfloat16");
    const x = put(data, [1, heads, length, dim], "bfloat16");
    const half = dim / 2;
    return {
      run: () => mx.fast.rope(x, dim, false, 1e6, 1, 5),
      expected: (at) => {
        const [i, t] = [at % dim, Math.floor(at / dim) % length];
        const angle = (t + 5) * 1e6 ** (-(i % half) / half);
        const [re, im] = [data[at - i + (i % half)] as number, data[at - i + (i % half) + half] as number];
        return i < half ? re * Math.cos(angle) - im * Math.sin(angle) : re * Math.sin(angle) + im * Math.cos(angle);
      },
      // Values up to sqrt(2) in bfloat16.
      tolerance: 2 ** -7,
      dispose: () => x.dispose(),
    };
  },
});

const heads = { heads: 16, kvHeads: 8, dim: 128 };
export const cases: readonly KernelCase[] = [
  attention({ ...heads, queries: 1, keys: 512 }), attention({ ...heads, queries: 1, keys: 4096 }), attention({ ...heads, queries: 128, keys: 128 }),
  attention({ ...heads, queries: 512, keys: 512 }), norm("rmsNorm", 1, 1024, "bfloat16"), norm("rmsNorm", 128, 1024, "bfloat16"),
  norm("layerNorm", 128, 1024, "float32"), rope(16, 1, 128), rope(16, 128, 128),
];
