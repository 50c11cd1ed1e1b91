/**
 * How a Fourier transform of one length is computed, and the tables it needs. Lengths whose prime factors are small go through mixed radix stages, in one
 * pass while a line fits the caches, else split in two factors (D. Bailey's four-step method). Other lengths become a convolution (L. Bluestein, 1970).
 */
import { ArrayDesc, MxArray, hostBytes, releaseDesc } from "../core/array.ts";
import { complex64 } from "../core/dtype.ts";

export type Plan =
  | { readonly kind: "direct"; readonly n: number; readonly radices: readonly number[] }
  | { readonly kind: "split"; readonly n: number; readonly first: Plan; readonly second: Plan }
  | { readonly kind: "chirp"; readonly n: number; readonly inner: Plan }
  /** n real numbers as n / 2 complex ones. */
  | { readonly kind: "packed"; readonly n: number; readonly inner: Plan };

/** Largest prime factor that a stage takes: it costs its square. */
const largestRadix = 31;
/** Elements of four lines in two copies: 256 KiB. */
const longestPass = 4096;
/** With fewer than four lines, a length from here on is split so that its own parts fill the vector lanes. */
const shortestSplit = 256;

/** Prime factors in rising order. */
export function primeFactors(n: number): number[] {
  const factors: number[] = [];
  let left = n;
  for (let p = 2; p * p <= left; p++) for (; left % p === 0; left /= p) factors.push(p);
  if (left > 1) factors.push(left);
  return factors;
}
const isSmooth = (n: number): boolean => n === 1 || (primeFactors(n).at(-1) as number) <= largestRadix;

/** Pairs of twos become fours. */
function radicesOf(n: number): number[] {
  const factors = primeFactors(n);
  const twos = factors.filter((p) => p === 2).length;
  return [...new Array<number>(Math.floor(twos / 2)).fill(4), ...(twos % 2 === 1 ? [2] : []), ...factors.filter((p) => p !== 2)];
}

/** The factor of n nearest below or at its square root. */
function halfOf(n: number): number {
  for (let f = Math.floor(Math.sqrt(n)); f > 1; f--) if (n % f === 0) return f;
  return 1;
}

/** Plan for `lines` transforms of length n. */
export function planOf(n: number, lines: number): Plan {
  if (!isSmooth(n)) {
    let m = 1;
    while (m < 2 * n - 1) m *= 2;
    return { kind: "chirp", n, inner: planOf(m, lines) };
  }
  const small = halfOf(n);
  const wanted = n > longestPass || (lines < 4 && n >= shortestSplit && small >= 8);
  if (!wanted) return { kind: "direct", n, radices: radicesOf(n) };
  const direct = (k: number): Plan => ({ kind: "direct", n: k, radices: radicesOf(k) });
  return { kind: "split", n, first: direct(small), second: direct(n / small) };
}

/** Plan for lines of real numbers that lie in one piece, on one side of the transform. */
export const realPlanOf = (n: number, lines: number): Plan => (n % 2 === 0 && n >= 8 ? { kind: "packed", n, inner: planOf(n / 2, lines) } : planOf(n, lines));

type Fill = (put: (index: number, re: number, im: number) => void) => void;
/** exp(-2 pi i k / n), from float64 sine and cosine of an exactly reduced angle. */
function rootOf(k: number, n: number): [number, number] {
  const angle = (-2 * Math.PI * (k % n)) / n;
  return [Math.cos(angle), Math.sin(angle)];
}

/** Twiddles of the stages in the order in which assembly/fft.ts reads them. */
const stageTable = (n: number, radices: readonly number[]): Fill => (put) => {
  let at = 0;
  let left = n;
  for (const r of radices) {
    const m = left / r;
    if (r > 5) for (let k = 0; k < r; k++) put(at++, ...rootOf(k, r));
    for (let p = 0; p < m; p++) for (let k = 1; k < r; k++) put(at++, ...rootOf(p * k, left));
    left = m;
  }
};
const stageSize = (n: number, radices: readonly number[]): number => {
  let size = 0;
  let left = n;
  for (const r of radices) {
    left /= r;
    size += (r - 1) * left + (r > 5 ? r : 0);
  }
  return size;
};
/** Roots of the first half of a turn. */
const rootTable = (n: number): Fill => (put) => {
  for (let k = 0; k < n / 2; k++) put(k, ...rootOf(k, n));
};
/** Factor of element k of the first pass's line j, at k * second + j. */
const splitTable = (first: number, second: number): Fill => (put) => {
  for (let k = 0; k < first; k++) for (let j = 0; j < second; j++) put(k * second + j, ...rootOf(j * k, first * second));
};
/** exp(-pi i j^2 / n); the square is reduced exactly. */
const chirpAt = (j: number, n: number): [number, number] => rootOf(j * j < Number.MAX_SAFE_INTEGER ? (j * j) % (2 * n) : Number((BigInt(j) * BigInt(j)) % BigInt(2 * n)), 2 * n);
const chirpTable = (n: number): Fill => (put) => {
  for (let j = 0; j < n; j++) put(j, ...chirpAt(j, n));
};
/** Transform of the conjugate chirp, symmetric around 0 modulo m, over m. */
const spectrumTable = (n: number, m: number): Fill => (put) => {
  const re = new Float64Array(m);
  const im = new Float64Array(m);
  for (let j = 0; j < n; j++) {
    const [c, s] = chirpAt(j, n);
    for (const i of j === 0 ? [0] : [j, m - j]) {
      re[i] = c;
      im[i] = -s;
    }
  }
  transformPowerOfTwo(re, im);
  for (let k = 0; k < m; k++) put(k, (re[k] as number) / m, (im[k] as number) / m);
};

/** In-place radix-2 transform in float64, for tables. */
function transformPowerOfTwo(re: Float64Array, im: Float64Array): void {
  const n = re.length;
  const bits = Math.log2(n);
  for (let i = 0; i < n; i++) {
    let j = 0;
    for (let b = 0; b < bits; b++) if (i & (1 << b)) j |= 1 << (bits - 1 - b);
    if (j <= i) continue;
    for (const x of [re, im]) [x[i], x[j]] = [x[j] as number, x[i] as number];
  }
  for (let half = 1; half < n; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [c, s] = rootOf(k, 2 * half);
      for (let i = k; i < n; i += 2 * half) {
        const [xr, xi] = [re[i + half] as number, im[i + half] as number];
        const [tr, ti] = [xr * c - xi * s, xr * s + xi * c];
        const [yr, yi] = [re[i] as number, im[i] as number];
        re[i] = yr + tr;
        im[i] = yi + ti;
        re[i + half] = yr - tr;
        im[i + half] = yi - ti;
      }
    }
  }
}

interface Table {
  readonly key: string;
  readonly size: number;
  readonly fill: Fill;
}
/** Tables in the order in which launches count them as inputs. */
function tablesOf(plan: Plan): Table[] {
  if (plan.kind === "direct") return [{ key: `stages ${plan.n}`, size: Math.max(1, stageSize(plan.n, plan.radices)), fill: stageTable(plan.n, plan.radices) }];
  if (plan.kind === "split") {
    const [a, b] = [plan.first.n, plan.second.n];
    return [...tablesOf(plan.first), { key: `split ${a} ${b}`, size: plan.n, fill: splitTable(a, b) }, ...tablesOf(plan.second)];
  }
  const { n, inner } = plan;
  if (plan.kind === "packed") return [{ key: `roots ${n}`, size: inner.n, fill: rootTable(n) }, ...tablesOf(inner)];
  return [{ key: `chirp ${n}`, size: n, fill: chirpTable(n) }, { key: `spectrum ${n}`, size: inner.n, fill: spectrumTable(n, inner.n) }, ...tablesOf(inner)];
}

/** Sizes of the tables of a plan. */
export const tableSizes = (plan: Plan): number[] => tablesOf(plan).map((t) => t.size);

/** Tables that were used last. Each holds one handle of its own, so scopes do not close it. */
const cache = new Map<string, ArrayDesc>();
const cacheBytes = 32 << 20;
let held = 0;

function tableDesc({ key, size, fill }: Table): ArrayDesc {
  const known = cache.get(key);
  if (known) {
    cache.delete(key);
    cache.set(key, known);
    return known;
  }
  const desc = ArrayDesc.fresh([size], complex64);
  const bytes = hostBytes(desc);
  const out = new Float32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, 2 * size);
  fill((i, re, im) => {
    out[2 * i] = re;
    out[2 * i + 1] = im;
  });
  desc.handles++;
  cache.set(key, desc);
  held += 8 * size;
  for (const [name, old] of cache) {
    if (held <= cacheBytes || old === desc) break;
    cache.delete(name);
    held -= 8 * old.size;
    old.handles--;
    releaseDesc(old);
  }
  return desc;
}

/** The tables of a plan as arrays. */
export const planTables = (plan: Plan): MxArray[] => tablesOf(plan).map((t) => new MxArray(tableDesc(t)));
