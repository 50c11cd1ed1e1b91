/** The kernels of norm.ts, rope.ts, attention.ts and lib/half.ts, alone on one thread, against float64. */
import { describe, expect, it } from "vitest";
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "../src/core/dtype.ts";
import { type Build, KernelBench, builds } from "./helpers/kernels.ts";

type Name = "f32" | "bf16" | "f16";
const names: readonly Name[] = ["f32", "bf16", "f16"];
/** Half a unit in the last place, relative; float32 gets room for its sums. */
const roundoff = { f32: 2e-6, bf16: 2 ** -8, f16: 2 ** -11 } as const;
const bytesOf = (t: Name): number => (t === "f32" ? 4 : 2);
const f64bits = (x: number): number[] => [...new Int32Array(new Float64Array([x]).buffer)];

/** Deterministic numbers in (-1, 1). */
function noise(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return s / 2 ** 31 - 1;
  };
}
const encode = (t: Name, x: ArrayLike<number>): Float32Array | Uint16Array =>
  t === "f32" ? Float32Array.from(x) : Uint16Array.from(x, t === "bf16" ? toBfloat16Bits : toFloat16Bits);
const decode = (t: Name, x: Float32Array | Uint16Array): number[] => Array.from(x, t === "f32" ? (v) => v : t === "bf16" ? fromBfloat16Bits : fromFloat16Bits);
const rounded = (t: Name, x: ArrayLike<number>): number[] => decode(t, encode(t, x));
const read = (kb: KernelBench, t: Name, at: number, n: number): number[] => decode(t, t === "f32" ? kb.f32(at, n) : kb.u16(at, n));
const random = (n: number, seed: number, scale = 1): Float64Array => {
  const r = noise(seed);
  return Float64Array.from({ length: n }, () => scale * r());
};

function close(got: readonly number[], want: readonly number[], rel: number, abs: number): void {
  expect(got.length).toBe(want.length);
  for (let i = 0; i < got.length; i++) {
    const g = got[i] as number;
    const w = want[i] as number;
    if (Number.isNaN(w) ? !Number.isNaN(g) : !(Math.abs(g - w) <= abs + rel * Math.abs(w))) throw new Error(`element ${i}: got ${g}, want ${w}`);
  }
}

/** Runs rope over [1, 1, 1, 2] rows of pairs (x, 0) with one given angle and returns the first of each pair. */
function timesCos(kb: KernelBench, t: Name, xs: ArrayLike<number>, angle: number): Float32Array | Uint16Array {
  const n = xs.length;
  const pairs = new Float64Array(2 * n);
  for (let i = 0; i < n; i++) pairs[2 * i] = xs[i] as number;
  const x = kb.put(encode(t, pairs));
  const y = kb.alloc(2 * n * bytesOf(t));
  const offset = kb.put(new Int32Array([1]));
  kb.run(`rope_${t}`, [x, y, 0, offset, 0, n, 1, 2, 2, 2 * n, 2, 2, 0, 0, ...f64bits(angle), ...f64bits(1)], 0, 1);
  return (t === "f32" ? kb.f32(y, 2 * n) : kb.u16(y, 2 * n)).filter((_, i) => i % 2 === 0);
}

describe.each(builds)("half precision, %s build", (build) => {
  it.each(["bf16", "f16"] as const)("%s: every finite value loads and stores exactly", (t) => {
    const kb = new KernelBench("rope", build);
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((b) => Number.isFinite((t === "bf16" ? fromBfloat16Bits : fromFloat16Bits)(b)));
    const got = timesCos(kb, t, decode(t, bits), 0) as Uint16Array;
    for (let i = 0; i < bits.length; i++) if (got[i] !== bits[i]) throw new Error(`bits ${bits[i]} became ${got[i]}`);
  });
  it.each(["bf16", "f16"] as const)("%s: stores round to nearest even, with subnormals, infinity and NaN", (t) => {
    const kb = new KernelBench("rope", build);
    for (const angle of [0, 0.3, 1, 1.4, 1.5707]) {
      const c = (timesCos(kb, "f32", [1], angle) as Float32Array)[0] as number;
      const xs = rounded(t, Array.from({ length: 65536 }, (_, i) => (t === "bf16" ? fromBfloat16Bits : fromFloat16Bits)(i)).filter(Number.isFinite));
      const want = encode(t, xs.map((x) => Math.fround(Math.fround(x) * c)));
      const got = timesCos(kb, t, xs, angle);
      for (let i = 0; i < want.length; i++) if ((got[i] as number & 0x7fff) !== (want[i] as number & 0x7fff)) throw new Error(`${xs[i]} * ${c}: got ${got[i]}, want ${want[i]}`);
    }
    const odd = decode(t, timesCos(kb, t, [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN], 1));
    expect(odd).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]);
  });
  it("float32 beyond float16's range becomes infinity, 65519 does not", () => {
    const kb = new KernelBench("norm", build);
    // One element: x / |x| * w is w times 1 or nearly so; eps 0.
    const run = (w: number): number => {
      const out = kb.alloc(2);
      kb.run("rms_f16", [kb.put(encode("f16", [2])), kb.put(encode("f16", [w])), 0, out, 1, { f32: 0 }, 1, 1, 1], 0, 1);
      return read(kb, "f16", out, 1)[0] as number;
    };
    expect(run(65504)).toBe(65504);
    // x = 1 among 16 zeros gives 4: 4 * 65504 overflows.
    const out = kb.alloc(32);
    kb.run("rms_f16", [kb.put(encode("f16", [1, ...new Array(15).fill(0)])), kb.put(encode("f16", new Array(16).fill(65504))), 0, out, 16, { f32: 0 }, 1, 16, 16], 0, 1);
    expect(read(kb, "f16", out, 2)).toEqual([Number.POSITIVE_INFINITY, 0]);
  });
});

describe.each(builds)("norms, %s build", (build) => {
  const cases = names.flatMap((t) => [1, 3, 7, 8, 15, 16, 17, 64, 128, 1000, 1024].map((n) => [t, n] as const));
  it.each(cases)("rms and layer, %s, rows of %i", (t, n) => {
    const rows = 5;
    const kb = new KernelBench("norm", build);
    const x = rounded(t, random(rows * n, n, 3).map((v) => v + 1));
    const w = rounded(t, random(n, n + 1));
    const b = rounded(t, random(n, n + 2));
    const [px, pw, pb] = [kb.put(encode(t, x)), kb.put(encode(t, w)), kb.put(encode(t, b))] as const;
    const eps = 1e-5;
    for (const [hasW, hasB] of [[false, false], [true, false], [false, true], [true, true]] as const) {
      const rms: number[] = [];
      const layer: number[] = [];
      for (let r = 0; r < rows; r++) {
        const row = x.slice(r * n, r * n + n);
        const k = 1 / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / n + eps);
        const mu = row.reduce((s, v) => s + v, 0) / n;
        const kl = 1 / Math.sqrt(row.reduce((s, v) => s + (v - mu) ** 2, 0) / n + eps);
        row.forEach((v, i) => {
          rms.push(v * k * (hasW ? (w[i] as number) : 1));
          layer.push((v - mu) * kl * (hasW ? (w[i] as number) : 1) + (hasB ? (b[i] as number) : 0));
        });
      }
      const out = kb.alloc(rows * n * bytesOf(t));
      kb.run(`layer_${t}`, [px, hasW ? pw : 0, hasB ? pb : 0, out, n, { f32: eps }, rows, 0, n], 0, rows);
      // Mean and deviation carry errors of float32 relative to |x| up to 4; with one element (deviation 0) they are amplified by 1/sqrt(eps).
      close(read(kb, t, out, rows * n), layer, roundoff[t], n === 1 ? 0 : 4e-6);
      if (hasB) continue;
      kb.run(`rms_${t}`, [px, hasW ? pw : 0, 0, out, n, { f32: eps }, rows, 0, n], 0, 2);
      kb.run(`rms_${t}`, [px, hasW ? pw : 0, 0, out, n, { f32: eps }, rows, 0, n], 2, rows);
      // float16 has an absolute step of 2^-24 below 2^-14.
      close(read(kb, t, out, rows * n), rms, roundoff[t], t === "f16" ? 2 ** -25 : 0);
    }
  });
  it("rows with strides over two dimensions", () => {
    const kb = new KernelBench("norm", build);
    const x = random(200, 3);
    const out = kb.alloc(4 * 6 * 8);
    kb.run("rms_f32", [kb.put(Float32Array.from(x)), 0, 0, out, 8, { f32: 0 }, 3, 70, 20], 0, 6);
    const want = Array.from({ length: 6 }, (_, r) => {
      const at = Math.floor(r / 3) * 70 + (r % 3) * 20;
      const row = rounded("f32", x.slice(at, at + 8));
      const k = 1 / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / 8);
      return row.map((v) => v * k);
    }).flat();
    close(kb.f32(out, 48) as unknown as number[], want, 2e-6, 0);
  });
});

interface RopeCase {
  b: number;
  h: number;
  t: number;
  d: number;
  dims: number;
  traditional: boolean;
  offsets: number[];
  scale: number;
  base?: number;
  freqs?: number[];
}
function ropeWanted(x: readonly number[], c: RopeCase): number[] {
  const y = [...x];
  const half = c.dims / 2;
  for (let b = 0; b < c.b; b++) for (let h = 0; h < c.h; h++) for (let t = 0; t < c.t; t++) {
    const row = ((b * c.h + h) * c.t + t) * c.d;
    for (let i = 0; i < half; i++) {
      const angle = ((c.offsets[b] ?? (c.offsets[0] as number)) + t) * c.scale * (c.freqs ? 1 / Math.fround(c.freqs[i] as number) : (c.base as number) ** (-i / half));
      const [p, q] = c.traditional ? [row + 2 * i, row + 2 * i + 1] : [row + i, row + i + half];
      const [u, v] = [x[p] as number, x[q] as number];
      y[p] = u * Math.cos(angle) - v * Math.sin(angle);
      y[q] = u * Math.sin(angle) + v * Math.cos(angle);
    }
  }
  return y;
}

describe.each(builds)("rope, %s build", (build) => {
  const base = { b: 2, h: 3, t: 4, d: 16, dims: 16, traditional: false, offsets: [0], scale: 1, base: 10000 };
  const cases: [string, RopeCase][] = [
    ["whole rows", base],
    ["traditional", { ...base, traditional: true }],
    ["partial", { ...base, d: 20, dims: 12 }],
    ["partial, traditional, odd pairs", { ...base, d: 21, dims: 10, traditional: true }],
    ["two dims", { ...base, dims: 2 }],
    ["offset and scale", { ...base, offsets: [37], scale: 0.25 }],
    ["negative offset", { ...base, offsets: [-100] }],
    ["offsets per batch entry", { ...base, offsets: [5, 1000] }],
    ["far positions", { ...base, d: 128, dims: 128, offsets: [999_990], base: 1e6 }],
    ["freqs", { ...base, dims: 6, freqs: [1, 17.5, 900], offsets: [12] }],
    ["freqs, far, traditional", { ...base, dims: 14, freqs: [1, 3, 9, 27, 81, 243, 1e30], offsets: [123_456], traditional: true }],
    ["decode", { ...base, b: 1, h: 16, t: 1, d: 128, dims: 128, offsets: [511], base: 1e6 }],
  ];
  it.each(cases.flatMap(([name, c]) => names.map((t) => [name, t, c] as const)))("%s, %s", (_name, t, c) => {
    const kb = new KernelBench("rope", build);
    const n = c.b * c.h * c.t * c.d;
    const x = rounded(t, random(n, n));
    // The input lies as [B, T, H, D], as a projection leaves it.
    const moved = new Float64Array(n);
    for (let b = 0; b < c.b; b++) for (let h = 0; h < c.h; h++) for (let s = 0; s < c.t; s++) for (let i = 0; i < c.d; i++) moved[((b * c.t + s) * c.h + h) * c.d + i] = x[((b * c.h + h) * c.t + s) * c.d + i] as number;
    const out = kb.alloc(n * bytesOf(t));
    const words = [
      kb.put(encode(t, moved)), out, c.freqs ? kb.put(Float32Array.from(c.freqs)) : 0, kb.put(Int32Array.from(c.offsets)), c.offsets.length > 1 ? 1 : 0,
      c.h, c.t, c.d, c.dims, c.t * c.h * c.d, c.d, c.h * c.d, c.traditional ? 1 : 0, 0, ...f64bits(c.scale), ...f64bits((c.base ?? 1) ** (-2 / c.dims)),
    ];
    kb.run(`rope_${t}`, words, 0, 1);
    kb.run(`rope_${t}`, words, 1, c.b * c.t);
    // |cos|, |sin| are off by 4e-8 each, two products and a sum round once each.
    close(read(kb, t, out, n), ropeWanted(x, c), t === "f32" ? 0 : roundoff[t], 3e-7);
  });
  it("angles of a million radians keep their place in the circle", () => {
    const kb = new KernelBench("rope", build);
    let worst = 0;
    for (let i = 0; i < 2000; i++) {
      const angle = 1e6 - i * 417.77;
      worst = Math.max(worst, Math.abs((timesCos(kb, "f32", [1], angle)[0] as number) - Math.cos(angle)));
    }
    expect(worst).toBeLessThan(1.5e-7);
  });
});

interface AttentionCase {
  b: number;
  kv: number;
  group: number;
  tq: number;
  tk: number;
  d: number;
  dv: number;
  mask?: "causal" | "bool" | Name;
  /** Strides of the mask over (batch, head, query, key) are zero where this has 1. */
  spread?: readonly [number, number, number, number];
  sinks?: boolean;
  scale?: number;
}
type Kernel = { entry: "rows" | "tiles"; heads: number; queries: number; splits: number };
interface AttentionData {
  q: number[];
  k: number[];
  v: number[];
  mask: number[];
  sinks: number[];
}
const maskShape = (c: AttentionCase): number[] => [c.b, c.kv * c.group, c.tq, c.tk].map((n, i) => (c.spread?.[i] ? 1 : n));

function attentionData(t: Name, c: AttentionCase): AttentionData {
  const heads = c.kv * c.group;
  const size = maskShape(c).reduce((x, y) => x * y, 1);
  const noise01 = random(size, 7);
  const isFloat = c.mask === "f32" || c.mask === "bf16" || c.mask === "f16";
  return {
    q: rounded(t, random(c.b * heads * c.tq * c.d, 1, 2)),
    k: rounded(t, random(c.b * c.kv * c.tk * c.d, 2, 2)),
    v: rounded(t, random(c.b * c.kv * c.tk * c.dv, 3)),
    mask: c.mask === "bool" ? Array.from(noise01, (x) => (x > -0.2 ? 1 : 0)) : isFloat ? rounded(c.mask as Name, noise01.map((x) => (x < -0.7 ? Number.NEGATIVE_INFINITY : x))) : [],
    sinks: c.sinks ? rounded(t, random(heads, 5, 3)) : [],
  };
}

/** The definition, in float64. A bool or causal mask gives the lowest finite score, as in MLX; a row of -Infinity only gives zeros. */
function attentionWanted(c: AttentionCase, x: AttentionData): number[] {
  const heads = c.kv * c.group;
  const scale = c.scale ?? 1 / Math.sqrt(c.d);
  const [mb, mh, mq, mk] = maskShape(c) as [number, number, number, number];
  const out: number[] = [];
  for (let b = 0; b < c.b; b++) for (let h = 0; h < heads; h++) for (let i = 0; i < c.tq; i++) {
    const kv = b * c.kv + Math.floor(h / c.group);
    const scores = Array.from({ length: c.tk }, (_, j) => {
      let s = 0;
      for (let e = 0; e < c.d; e++) s += (x.q[((b * heads + h) * c.tq + i) * c.d + e] as number) * (x.k[(kv * c.tk + j) * c.d + e] as number);
      s *= scale;
      if (c.mask === "causal") return j <= c.tk - c.tq + i ? s : -3.4028234663852886e38;
      if (!c.mask) return s;
      const m = x.mask[(((b % mb) * mh + (h % mh)) * mq + (i % mq)) * mk + (j % mk)] as number;
      return c.mask === "bool" ? (m ? s : -3.4028234663852886e38) : s + m;
    });
    const all = c.sinks ? [...scores, x.sinks[h] as number] : scores;
    const high = Math.max(...all);
    const sum = high === Number.NEGATIVE_INFINITY ? 0 : all.reduce((s, y) => s + Math.exp(y - high), 0);
    for (let e = 0; e < c.dv; e++) {
      let o = 0;
      if (sum > 0) scores.forEach((y, j) => (o += (Math.exp(y - high) / sum) * (x.v[(kv * c.tk + j) * c.dv + e] as number)));
      out.push(o);
    }
  }
  return out;
}

/** Places [n0, n1, rows, d] in a larger buffer full of NaN, as a slice of a cache with `spare` more rows per head. */
function cacheOf(t: Name, x: readonly number[], n: number, rows: number, d: number, spare: number): Float32Array | Uint16Array {
  const y = new Float64Array(n * (rows + spare) * d).fill(Number.NaN);
  for (let h = 0; h < n; h++) for (let i = 0; i < rows * d; i++) y[h * (rows + spare) * d + i] = x[h * rows * d + i] as number;
  return encode(t, y);
}

function attend(build: Build, t: Name, c: AttentionCase, x: AttentionData, kernel: Kernel): number[] {
  const kb = new KernelBench("attention", build);
  const heads = c.kv * c.group;
  const spare = 3;
  const cap = c.tk + spare;
  const [, mh, mq, mk] = maskShape(c) as [number, number, number, number];
  const full = [mh * mq * mk, mq * mk, mk, 1].map((s, i) => (c.spread?.[i] ? 0 : s));
  const maskBits = c.mask === "bool" ? Uint8Array.from(x.mask) : c.mask && c.mask !== "causal" ? encode(c.mask, x.mask) : undefined;
  const code = { f32: 10, bf16: 12, f16: 9 } as const;
  const rows = c.b * heads * c.tq;
  const out = kb.alloc(rows * c.dv * bytesOf(t));
  const part = kb.alloc(rows * kernel.splits * (((c.dv + 7) & ~7) + 16) * 4);
  const words = [
    kb.put(encode(t, x.q)), kb.put(cacheOf(t, x.k, c.b * c.kv, c.tk, c.d, spare)), kb.put(cacheOf(t, x.v, c.b * c.kv, c.tk, c.dv, spare)), out,
    maskBits ? kb.put(maskBits) : 0, c.sinks ? kb.put(encode(t, x.sinks)) : 0, kb.put(Int32Array.from([c.tk])), part,
    c.kv, c.group, c.tq, c.d, c.dv, heads * c.tq * c.d, c.tq * c.d, c.d, c.kv * cap * c.d, cap * c.d, c.d, c.kv * cap * c.dv, cap * c.dv, c.dv, ...full,
    c.mask === "causal" ? 1 : c.mask ? 2 : 0, c.mask === "bool" ? 0 : c.mask && c.mask !== "causal" ? code[c.mask] : 0, c.sinks ? code[t] : -1,
    { f32: c.scale ?? 1 / Math.sqrt(c.d) }, kernel.heads, kernel.queries, kernel.splits,
  ];
  const units = c.b * c.kv * Math.ceil(c.group / kernel.heads) * Math.ceil(c.tq / kernel.queries) * kernel.splits;
  // Backwards, one by one: units may run in any order.
  for (let u = units - 1; u >= 0; u--) kb.run(`${kernel.entry}_${t}`, words, u, u + 1);
  if (kernel.splits > 1) kb.run(`combine_${t}`, words, 0, rows);
  return read(kb, t, out, rows * c.dv);
}
/** Scores up to 10 carry errors of sqrt(d) * 6e-8 * 10; weights share them; values are below 1. */
const check = (build: Build, t: Name, c: AttentionCase, kernel: Kernel): void => {
  const x = attentionData(t, c);
  close(attend(build, t, c, x, kernel), attentionWanted(c, x), t === "f32" ? 2e-6 : roundoff[t], 4e-6);
};

describe.each(builds)("attention, %s build", (build) => {
  const c: AttentionCase = { b: 2, kv: 2, group: 2, tq: 1, tk: 37, d: 16, dv: 16 };
  const whole: Kernel = { entry: "rows", heads: 8, queries: 8, splits: 1 };
  const split: Kernel = { entry: "rows", heads: 2, queries: 2, splits: 3 };
  const tiles: Kernel = { entry: "tiles", heads: 2, queries: 6, splits: 1 };
  const cases: [string, AttentionCase][] = [
    ["one key", { ...c, tk: 1 }],
    ["decode", { ...c, d: 128, dv: 128, tk: 130 }],
    ["three heads per kv head", { ...c, group: 3, tk: 33 }],
    ["five queries", { ...c, tq: 5, group: 1, tk: 261 }],
    ["causal", { ...c, tq: 13, tk: 70, mask: "causal" }],
    ["causal from the start", { ...c, tq: 67, tk: 67, mask: "causal" }],
    ["causal, more queries than keys", { ...c, tq: 13, tk: 9, mask: "causal" }],
    ["odd sizes", { ...c, d: 7, dv: 5, tk: 19, tq: 3 }],
    ["values wider than keys", { ...c, d: 24, dv: 44, tq: 4 }],
    ["D 1", { ...c, d: 1, dv: 1, tq: 3 }],
    ["bool mask", { ...c, tq: 6, tk: 140, mask: "bool" }],
    ["bool mask over keys only", { ...c, tq: 6, mask: "bool", spread: [1, 1, 1, 0] }],
    ["float32 mask", { ...c, tq: 6, tk: 140, mask: "f32" }],
    ["bfloat16 mask over queries only", { ...c, tq: 6, mask: "bf16", spread: [1, 0, 0, 1] }],
    ["float16 mask", { ...c, tq: 6, mask: "f16", spread: [0, 1, 0, 0] }],
    ["sinks", { ...c, tq: 3, sinks: true }],
    ["sinks, causal, queries without keys", { ...c, tq: 12, tk: 7, sinks: true, mask: "causal" }],
    ["large scores", { ...c, tq: 4, tk: 200, scale: 30 }],
    ["negative scale", { ...c, tq: 4, scale: -1 }],
  ];
  describe.each(Object.entries({ whole, split, tiles }))("%s", (_kernel, kernel) => {
    it.each(cases.flatMap(([name, x]) => names.map((t) => [name, t, x] as const)))("%s, %s", (_name, t, x) => {
      if (x.scale === 30) return void largeScores(build, t, x, kernel);
      check(build, t, x, kernel);
    });
  });
  it("a row hidden by a bool mask is the mean of all values, or zero beside a sink; a row of -Infinity is zero", () => {
    for (const kernel of [whole, split, tiles]) {
      const one = { ...c, tq: 2, tk: 150, mask: "bool" as const };
      const x = attentionData("f32", one);
      x.mask.fill(0);
      const got = attend(build, "f32", one, x, kernel);
      const mean = Array.from({ length: 16 }, (_, e) => x.v.slice(0, 150 * 16).filter((_, i) => i % 16 === e).reduce((s, v) => s + v, 0) / 150);
      close(got.slice(0, 16), mean, 2e-6, 1e-6);
      expect(attend(build, "f32", { ...one, sinks: true }, { ...x, sinks: [1, 2, 3, 4] }, kernel).every((v) => v === 0)).toBe(true);
      const low = { ...one, mask: "f32" as const };
      expect(attend(build, "f32", low, { ...x, mask: x.mask.map(() => Number.NEGATIVE_INFINITY) }, kernel).every((v) => v === 0)).toBe(true);
    }
  });
  it("infinite and NaN keys spread only where the definition lets them", () => {
    for (const kernel of [whole, split, tiles]) {
      const one = { ...c, b: 1, kv: 1, group: 1, tq: 2, tk: 40, d: 4 };
      const x = attentionData("f32", one);
      x.q.fill(1);
      for (let i = 0; i < 4; i++) x.k[i] = Number.NEGATIVE_INFINITY;
      close(attend(build, "f32", one, x, kernel), attentionWanted(one, x), 2e-6, 4e-6);
      x.k[9] = Number.NaN;
      expect(attend(build, "f32", one, x, kernel).every(Number.isNaN)).toBe(true);
    }
  });
  it("a shorter length behind the pointer leaves the rest of the cache unread", () => {
    const long = { ...c, tk: 300 };
    const x = attentionData("f32", long);
    for (const tk of [1, 64, 65, 299]) {
      const shorter = { ...c, tk };
      const cut = (a: number[]): number[] => Array.from({ length: 4 }, (_, h) => a.slice(h * 300 * 16, h * 300 * 16 + tk * 16)).flat();
      const y = { ...x, k: cut(x.k), v: cut(x.v) };
      close(attend(build, "f32", shorter, y, { ...split, splits: 7 }), attentionWanted(shorter, y), 2e-6, 4e-6);
    }
  });
});

/** Scores near 1000: their float32 error (about 1e-4) goes through exp, so weights are good to 3e-4 only. */
function largeScores(build: Build, t: Name, c: AttentionCase, kernel: Kernel): void {
  const x = attentionData(t, c);
  close(attend(build, t, c, x, kernel), attentionWanted(c, x), roundoff[t], 4e-4);
}
