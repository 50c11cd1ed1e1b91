/** Dense and quantized matrix products. */
import type { MxArray } from "../../src/core/array.ts";
import { fromBfloat16Bits, toBfloat16Bits } from "../../src/core/dtype.ts";
import { core as mx } from "../../src/index.ts";
import { randomStream } from "../models/synthetic.ts";
import { type KernelCase, dot, floats, put } from "./case.ts";

type Float = "float32" | "bfloat16";

const dense = (n: number, dtype: Float): KernelCase => ({
  name: `matmul ${n}x${n}x${n} ${dtype}`,
  flops: 2 * n ** 3,
  prepare() {
    const [da, db] = [floats(n * n, 1, dtype), floats(n * n, 2, dtype)];
    const [a, b] = [put(da, [n, n], dtype), put(db, [n, n], dtype)];
    return {
      run: () => mx.matmul(a, b),
      expected: (at) => dot(n, (k) => (da[Math.floor(at / n) * n + k] as number) * (db[k * n + (at % n)] as number)),
      // Sums of n products of deviation 1/3: rounding to bfloat16 (2^-9 of a value of up to about 4 deviations) dominates.
      tolerance: (dtype === "bfloat16" ? 2 ** -8 : 2 ** -20) * 4 * Math.sqrt(n),
      dispose: () => mx.dispose(a, b),
    };
  },
});

interface Quantized {
  readonly bits: 4 | 8;
  readonly group: number;
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly dtype: Float;
}

/** Matrices taken in turn, so that weights come from memory and not from the caches: more than 256 MiB in all. */
const copiesFor = (q: Quantized): number => (q.m > 1 ? 1 : Math.max(1, Math.ceil((256 << 20) / ((q.n * q.k * q.bits) / 8))));

const quantized = (q: Quantized): KernelCase => ({
  name: `quantizedMatmul ${q.bits}bit g${q.group} ${q.dtype} ${q.m}x${q.k}x${q.n}${q.m === 1 ? " cold" : ""}`,
  flops: 2 * q.m * q.k * q.n,
  bytes: q.n * q.k * (q.bits / 8 + 4 / q.group),
  prepare() {
    const { bits, group, m, k, n } = q;
    const random = randomStream(5);
    const words = Uint32Array.from({ length: (n * k * bits) / 32 }, () => random() * 2 ** 32);
    const scaleOf = (): number => fromBfloat16Bits(toBfloat16Bits(0.01 * (0.5 + random())));
    const scales = Float32Array.from({ length: (n * k) / group }, scaleOf);
    const biases = scales.map((s) => fromBfloat16Bits(toBfloat16Bits(-s * (2 ** (bits - 1) - 0.5))));
    const data = floats(m * k, 6, q.dtype);
    const x = put(data, [m, k], q.dtype);
    const [s, b] = [put(scales, [n, k / group], "bfloat16"), put(biases, [n, k / group], "bfloat16")];
    const weights: MxArray[] = [];
    for (let i = 0; i < copiesFor(q); i++) weights.push(mx.tidy(() => mx.reshape(mx.array(words, mx.uint32), [n, (k * bits) / 32])));
    mx.eval(weights);
    const perWord = 32 / bits;
    const weight = (row: number, at: number): number => {
      const word = words[(row * k + at) / perWord | 0] as number;
      const level = (word >>> (bits * (at % perWord))) & (2 ** bits - 1);
      const g = (row * k + at) / group | 0;
      return (scales[g] as number) * level + (biases[g] as number);
    };
    const deviation = (0.01 * 2 ** bits) / Math.sqrt(12);
    return {
      run: (i) => mx.quantizedMatmul(x, weights[i % weights.length] as MxArray, s, b, true, group, bits),
      expected: (at) => dot(k, (i) => (data[Math.floor(at / n) * k + i] as number) * weight(at % n, i)),
      // Products of deviation `deviation`/sqrt(3) add up like a random walk; bfloat16 results are rounded to 8 bits.
      tolerance: (q.dtype === "bfloat16" ? 2 ** -7 : 2 ** -16) * 4 * deviation * Math.sqrt(k / 3),
      dispose: () => mx.dispose(x, s, b, weights),
    };
  },
});

const qwen = { bits: 4, group: 128, m: 1, k: 1024, n: 3072, dtype: "bfloat16" } as const;
export const cases: readonly KernelCase[] = [
  dense(512, "float32"), dense(1024, "float32"), dense(512, "bfloat16"),
  quantized(qwen), quantized({ ...qwen, n: 1024 }), quantized({ ...qwen, k: 3072, n: 1024 }), quantized({ ...qwen, n: 151936 }),
  quantized({ ...qwen, group: 64 }), quantized({ ...qwen, bits: 8, group: 64 }), quantized({ ...qwen, dtype: "float32" }),
  quantized({ ...qwen, m: 4 }), quantized({ ...qwen, m: 32 }), quantized({ ...qwen, m: 128 }), quantized({ ...qwen, m: 128, dtype: "float32" }),
  quantized({ ...qwen, m: 128, bits: 8, group: 64 }), quantized({ ...qwen, m: 128, k: 3072, n: 1024 }),
];
