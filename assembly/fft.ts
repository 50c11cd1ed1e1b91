// Discrete Fourier transforms of many lines. Four lines are computed side by side, one per lane, as vectors of real and of imaginary parts,
// by Stockham's autosort algorithm (mixed radix, decimation in frequency); so no stage needs a special case. What surrounds a
// transform (twiddles of a split length, chirps, padding, exchange of the parts for the inverse) happens while elements are loaded and stored.

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

// Flags.
const REAL_IN = 1, HERMITIAN_IN = 2, WHOLE_IN = 4, SWAP_IN = 8, SWAP_BEFORE = 16, SWAP_AFTER = 32, REAL_OUT = 64, WHOLE_OUT = 128;

/** Address of the first element of a line: `end` points at the words of one side (outer, lane, step, position of the lane, position step, limit). */
// @ts-ignore: decorator
@inline
function baseOf(at: usize, end: usize, line: i32, inner: i32): usize {
  const o = line / inner;
  return at + <usize>o * load<usize>(end) + <usize>(line - o * inner) * load<usize>(end, 4);
}
// @ts-ignore: decorator
@inline
function positionOf(end: usize, line: i32, inner: i32): i32 {
  return (line % inner) * load<i32>(end, 12);
}
// @ts-ignore: decorator
@inline
function pair(p: usize, q: usize): v128 {
  return v128.load64_lane(q, v128.load64_zero(p), 1);
}
// @ts-ignore: decorator
@inline
function evens(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 0, 2, 4, 6);
}
// @ts-ignore: decorator
@inline
function odds(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 1, 3, 5, 7);
}

/** Complex elements, none of them missing. */
function loadWhole(a: usize, first: i32, x: usize): void {
  const end = a + 44;
  const n = load<i32>(a, 8), last = load<i32>(a, 12) - 1, inner = max(1, load<i32>(a, 16));
  const l1 = min(first + 1, last), l2 = min(first + 2, last), l3 = min(first + 3, last);
  const src = load<usize>(a), step = load<usize>(end, 8);
  let p0 = baseOf(src, end, first, inner), p1 = baseOf(src, end, l1, inner), p2 = baseOf(src, end, l2, inner), p3 = baseOf(src, end, l3, inner);
  const swap: usize = load<i32>(a, 28) & SWAP_IN ? 16 : 0;
  const table = load<usize>(a, 36), tableStep = load<usize>(end, 16) << 3;
  let t0 = table + (<usize>positionOf(end, first, inner) << 3), t1 = table + (<usize>positionOf(end, l1, inner) << 3);
  let t2 = table + (<usize>positionOf(end, l2, inner) << 3), t3 = table + (<usize>positionOf(end, l3, inner) << 3);
  for (let e = 0; e < n; e++, x += 32) {
    const lo = pair(p0, p1), hi = pair(p2, p3);
    v128.store(x + swap, evens(lo, hi));
    v128.store(x + (swap ^ 16), odds(lo, hi));
    if (table) {
      const tl = pair(t0, t1), th = pair(t2, t3);
      const re = v128.load(x), im = v128.load(x, 16), c = evens(tl, th), s = odds(tl, th);
      v128.store(x, f32x4.sub(f32x4.mul(re, c), f32x4.mul(im, s)));
      v128.store(x, f32x4.add(f32x4.mul(re, s), f32x4.mul(im, c)), 16);
      t0 += tableStep, t1 += tableStep, t2 += tableStep, t3 += tableStep;
    }
    p0 += step, p1 += step, p2 += step, p3 += step;
  }
}

/** Real elements, halves of Hermitian lines, lines that zeros follow. */
function loadParts(a: usize, first: i32, x: usize): void {
  const end = a + 44;
  const n = load<i32>(a, 8), last = load<i32>(a, 12) - 1, inner = max(1, load<i32>(a, 16)), flags = load<i32>(a, 28);
  const src = load<usize>(a), step = load<usize>(end, 8), table = load<usize>(a, 36);
  const positionStep = load<i32>(end, 16), limit = load<i32>(end, 20), total = load<i32>(a, 92);
  const stride = step / <usize>max(1, positionStep);
  for (let lane = 0; lane < 4; lane++) {
    const line = min(first + lane, last);
    const base = baseOf(src, end, line, inner);
    let position = positionOf(end, line, inner);
    const origin = base - <usize>position * stride;
    let q = x + <usize>(lane << 2);
    for (let e = 0; e < n; e++, q += 32, position += positionStep) {
      let re: f32 = 0, im: f32 = 0;
      if (position < limit) {
        if (flags & REAL_IN) re = load<f32>(origin + <usize>position * stride);
        else if (flags & HERMITIAN_IN) {
          const mirrored = position * 2 > total;
          const p = origin + <usize>(mirrored ? total - position : position) * stride;
          re = load<f32>(p);
          im = position == 0 || position * 2 == total ? 0 : mirrored ? -load<f32>(p, 4) : load<f32>(p, 4);
        } else {
          re = load<f32>(origin + <usize>position * stride);
          im = load<f32>(origin + <usize>position * stride, 4);
        }
        if (flags & SWAP_IN) {
          const t = re;
          re = im;
          im = t;
        }
        if (table) {
          const c = load<f32>(table + (<usize>position << 3)), s = load<f32>(table + (<usize>position << 3), 4);
          const t = re * c - im * s;
          im = re * s + im * c;
          re = t;
        }
      }
      store<f32>(q, re);
      store<f32>(q, im, 16);
    }
  }
}

/** Scaled results, multiplied by the table; only those below the limit. */
function storeLines(a: usize, first: i32, x: usize): void {
  const end = a + 68;
  const n = load<i32>(a, 8), lines = load<i32>(a, 12), inner = max(1, load<i32>(a, 16)), flags = load<i32>(a, 28);
  const dst = load<usize>(a, 4), step = load<usize>(end, 8), table = load<usize>(a, 40);
  const positionStep = load<i32>(end, 16), tableStep = <usize>positionStep << 3, limit = load<i32>(end, 20);
  const scale = f32x4.splat(load<f32>(a, 32));
  const last = lines - 1, count = lines - first;
  const l1 = min(first + 1, last), l2 = min(first + 2, last), l3 = min(first + 3, last);
  let p0 = baseOf(dst, end, first, inner), p1 = baseOf(dst, end, l1, inner), p2 = baseOf(dst, end, l2, inner), p3 = baseOf(dst, end, l3, inner);
  let n0 = positionOf(end, first, inner), n1 = positionOf(end, l1, inner), n2 = positionOf(end, l2, inner), n3 = positionOf(end, l3, inner);
  let t0 = table + (<usize>n0 << 3), t1 = table + (<usize>n1 << 3), t2 = table + (<usize>n2 << 3), t3 = table + (<usize>n3 << 3);
  const whole = (flags & WHOLE_OUT) != 0, before: usize = flags & SWAP_BEFORE ? 16 : 0, after = (flags & SWAP_AFTER) != 0;
  for (let e = 0; e < n; e++, x += 32) {
    let re = v128.load(x + before), im = v128.load(x + (before ^ 16));
    if (table) {
      // A lane beyond the limit would read beyond the table.
      const tl = whole ? pair(t0, t1) : pair(n0 < limit ? t0 : table, n1 < limit ? t1 : table), th = whole ? pair(t2, t3) : pair(n2 < limit ? t2 : table, n3 < limit ? t3 : table);
      const c = evens(tl, th), s = odds(tl, th), t = re;
      re = f32x4.sub(f32x4.mul(re, c), f32x4.mul(im, s));
      im = f32x4.add(f32x4.mul(t, s), f32x4.mul(im, c));
      t0 += tableStep, t1 += tableStep, t2 += tableStep, t3 += tableStep;
    }
    const r = f32x4.mul(after ? im : re, scale), i = f32x4.mul(after ? re : im, scale);
    if (flags & REAL_OUT) {
      if (whole || n0 < limit) v128.store32_lane(p0, r, 0);
      if (count > 1 && (whole || n1 < limit)) v128.store32_lane(p1, r, 1);
      if (count > 2 && (whole || n2 < limit)) v128.store32_lane(p2, r, 2);
      if (count > 3 && (whole || n3 < limit)) v128.store32_lane(p3, r, 3);
    } else {
      const lo = v128.shuffle<f32>(r, i, 0, 4, 1, 5), hi = v128.shuffle<f32>(r, i, 2, 6, 3, 7);
      if (whole && count > 3) {
        v128.store64_lane(p0, lo, 0);
        v128.store64_lane(p1, lo, 1);
        v128.store64_lane(p2, hi, 0);
        v128.store64_lane(p3, hi, 1);
      } else {
        if (whole || n0 < limit) v128.store64_lane(p0, lo, 0);
        if (count > 1 && (whole || n1 < limit)) v128.store64_lane(p1, lo, 1);
        if (count > 2 && (whole || n2 < limit)) v128.store64_lane(p2, hi, 0);
        if (count > 3 && (whole || n3 < limit)) v128.store64_lane(p3, hi, 1);
      }
    }
    p0 += step, p1 += step, p2 += step, p3 += step;
    n0 += positionStep, n1 += positionStep, n2 += positionStep, n3 += positionStep;
  }
}

/** Stores (re, im) times the twiddle at w. */
// @ts-ignore: decorator
@inline
function put(y: usize, re: v128, im: v128, w: usize): void {
  const c = v128.load32_splat(w), s = v128.load32_splat(w, 4);
  v128.store(y, f32x4.sub(f32x4.mul(re, c), f32x4.mul(im, s)));
  v128.store(y, f32x4.add(f32x4.mul(re, s), f32x4.mul(im, c)), 16);
}
// @ts-ignore: decorator
@inline
function keep(y: usize, re: v128, im: v128): void {
  v128.store(y, re);
  v128.store(y, im, 16);
}

// One stage: m groups of s butterflies. Input j of a butterfly lies m * s elements behind input j - 1, output k s elements behind output k - 1. Twiddles: radix - 1 per group.

function radix2(x: usize, y: usize, m: i32, s: i32, w: usize): void {
  const apart = <usize>(m * s) << 5, next = <usize>s << 5;
  for (let p = 0; p < m; p++, w += 8, y += next) {
    for (let q = 0; q < s; q++, x += 32, y += 32) {
      const ar = v128.load(x), ai = v128.load(x, 16), br = v128.load(x + apart), bi = v128.load(x + apart, 16);
      keep(y, f32x4.add(ar, br), f32x4.add(ai, bi));
      put(y + next, f32x4.sub(ar, br), f32x4.sub(ai, bi), w);
    }
  }
}

function radix3(x: usize, y: usize, m: i32, s: i32, w: usize): void {
  const apart = <usize>(m * s) << 5, next = <usize>s << 5;
  const half = f32x4.splat(0.5), sine = f32x4.splat(0.8660254037844386);
  for (let p = 0; p < m; p++, w += 16, y += 2 * next) {
    for (let q = 0; q < s; q++, x += 32, y += 32) {
      const x1 = x + apart, x2 = x1 + apart;
      const ar = v128.load(x), ai = v128.load(x, 16), br = v128.load(x1), bi = v128.load(x1, 16), cr = v128.load(x2), ci = v128.load(x2, 16);
      const tr = f32x4.add(br, cr), ti = f32x4.add(bi, ci);
      const mr = f32x4.sub(ar, f32x4.mul(half, tr)), mi = f32x4.sub(ai, f32x4.mul(half, ti));
      const dr = f32x4.mul(sine, f32x4.sub(br, cr)), di = f32x4.mul(sine, f32x4.sub(bi, ci));
      keep(y, f32x4.add(ar, tr), f32x4.add(ai, ti));
      put(y + next, f32x4.add(mr, di), f32x4.sub(mi, dr), w);
      put(y + 2 * next, f32x4.sub(mr, di), f32x4.add(mi, dr), w + 8);
    }
  }
}

function radix4(x: usize, y: usize, m: i32, s: i32, w: usize): void {
  const apart = <usize>(m * s) << 5, next = <usize>s << 5;
  for (let p = 0; p < m; p++, w += 24, y += 3 * next) {
    for (let q = 0; q < s; q++, x += 32, y += 32) {
      const x1 = x + apart, x2 = x1 + apart, x3 = x2 + apart;
      const ar = v128.load(x), ai = v128.load(x, 16), br = v128.load(x1), bi = v128.load(x1, 16);
      const cr = v128.load(x2), ci = v128.load(x2, 16), dr = v128.load(x3), di = v128.load(x3, 16);
      const er = f32x4.add(ar, cr), ei = f32x4.add(ai, ci), fr = f32x4.sub(ar, cr), fi = f32x4.sub(ai, ci);
      const gr = f32x4.add(br, dr), gi = f32x4.add(bi, di), hr = f32x4.sub(br, dr), hi = f32x4.sub(bi, di);
      keep(y, f32x4.add(er, gr), f32x4.add(ei, gi));
      put(y + next, f32x4.add(fr, hi), f32x4.sub(fi, hr), w);
      put(y + 2 * next, f32x4.sub(er, gr), f32x4.sub(ei, gi), w + 8);
      put(y + 3 * next, f32x4.sub(fr, hi), f32x4.add(fi, hr), w + 16);
    }
  }
}

function radix5(x: usize, y: usize, m: i32, s: i32, w: usize): void {
  const apart = <usize>(m * s) << 5, next = <usize>s << 5;
  const c1 = f32x4.splat(0.30901699437494742), c2 = f32x4.splat(-0.80901699437494742), s1 = f32x4.splat(0.95105651629515357), s2 = f32x4.splat(0.58778525229247313);
  for (let p = 0; p < m; p++, w += 32, y += 4 * next) {
    for (let q = 0; q < s; q++, x += 32, y += 32) {
      const x1 = x + apart, x2 = x1 + apart, x3 = x2 + apart, x4 = x3 + apart;
      const ar = v128.load(x), ai = v128.load(x, 16);
      const tr = f32x4.add(v128.load(x1), v128.load(x4)), ti = f32x4.add(v128.load(x1, 16), v128.load(x4, 16));
      const ur = f32x4.add(v128.load(x2), v128.load(x3)), ui = f32x4.add(v128.load(x2, 16), v128.load(x3, 16));
      const vr = f32x4.sub(v128.load(x1), v128.load(x4)), vi = f32x4.sub(v128.load(x1, 16), v128.load(x4, 16));
      const zr = f32x4.sub(v128.load(x2), v128.load(x3)), zi = f32x4.sub(v128.load(x2, 16), v128.load(x3, 16));
      const pr = f32x4.add(ar, f32x4.add(f32x4.mul(c1, tr), f32x4.mul(c2, ur))), pi = f32x4.add(ai, f32x4.add(f32x4.mul(c1, ti), f32x4.mul(c2, ui)));
      const qr = f32x4.add(ar, f32x4.add(f32x4.mul(c2, tr), f32x4.mul(c1, ur))), qi = f32x4.add(ai, f32x4.add(f32x4.mul(c2, ti), f32x4.mul(c1, ui)));
      const gr = f32x4.add(f32x4.mul(s1, vr), f32x4.mul(s2, zr)), gi = f32x4.add(f32x4.mul(s1, vi), f32x4.mul(s2, zi));
      const hr = f32x4.sub(f32x4.mul(s2, vr), f32x4.mul(s1, zr)), hi = f32x4.sub(f32x4.mul(s2, vi), f32x4.mul(s1, zi));
      keep(y, f32x4.add(ar, f32x4.add(tr, ur)), f32x4.add(ai, f32x4.add(ti, ui)));
      put(y + next, f32x4.add(pr, gi), f32x4.sub(pi, gr), w);
      put(y + 2 * next, f32x4.add(qr, hi), f32x4.sub(qi, hr), w + 8);
      put(y + 3 * next, f32x4.sub(qr, hi), f32x4.add(qi, hr), w + 16);
      put(y + 4 * next, f32x4.sub(pr, gi), f32x4.add(pi, gr), w + 24);
    }
  }
}

/** Any radix, by definition. The radix roots of 1 stand before the twiddles. */
function radixAny(x: usize, y: usize, r: i32, m: i32, s: i32, roots: usize): void {
  const apart = <usize>(m * s) << 5, next = <usize>s << 5;
  let w = roots + (<usize>r << 3);
  for (let p = 0; p < m; p++, w += <usize>(r - 1) << 3, y += <usize>(r - 1) * next) {
    for (let q = 0; q < s; q++, x += 32, y += 32) {
      for (let k = 0; k < r; k++) {
        let re = v128.load(x), im = v128.load(x, 16), at = 0, xj = x;
        for (let j = 1; j < r; j++) {
          xj += apart;
          at += k;
          if (at >= r) at -= r;
          const root = roots + (<usize>at << 3);
          const c = v128.load32_splat(root), t = v128.load32_splat(root, 4), br = v128.load(xj), bi = v128.load(xj, 16);
          re = f32x4.add(re, f32x4.sub(f32x4.mul(br, c), f32x4.mul(bi, t)));
          im = f32x4.add(im, f32x4.add(f32x4.mul(br, t), f32x4.mul(bi, c)));
        }
        if (k == 0) keep(y, re, im);
        else put(y + <usize>k * next, re, im, w + (<usize>(k - 1) << 3));
      }
    }
  }
}

// words: src, dst, n, lines, inner (lines that share an outer address), twiddles of all stages, number of stages, flags, scale (f32), table of factors for the
// input or 0, for the output or 0; then for input (44) and output (68) each: bytes between outer addresses, between lines, between elements, position of a line's
// first element per line, positions between elements, number of positions that exist; then (92) the length of the line whose halves are conjugate, and the radices.
// unit: four lines. The scratch area holds two copies of them, 64 n bytes.
export function lines(a: usize, begin: i32, end: i32): void {
  const n = load<i32>(a, 8), stages = load<i32>(a, 24), flags = load<i32>(a, 28);
  for (let u = begin; u < end; u++) {
    let x = SCRATCH, y = SCRATCH + (<usize>n << 5);
    if ((flags & WHOLE_IN) != 0 && (flags & (REAL_IN | HERMITIAN_IN)) == 0) loadWhole(a, u << 2, x);
    else loadParts(a, u << 2, x);
    let left = n, s = 1, w = load<usize>(a, 20);
    for (let i = 0; i < stages; i++) {
      const r = load<i32>(a + 96 + (<usize>i << 2));
      left /= max(1, r);
      if (r == 4) radix4(x, y, left, s, w);
      else if (r == 2) radix2(x, y, left, s, w);
      else if (r == 3) radix3(x, y, left, s, w);
      else if (r == 5) radix5(x, y, left, s, w);
      else {
        radixAny(x, y, r, left, s, w);
        w += <usize>r << 3;
      }
      w += <usize>((r - 1) * left) << 3;
      s *= r;
      const t = x;
      x = y;
      y = t;
    }
    storeLines(a, u << 2, x);
  }
}

/** Four consecutive complex elements in reverse order end at p: their real or imaginary parts. */
// @ts-ignore: decorator
@inline
function reversedEvens(lo: v128, hi: v128): v128 {
  return v128.shuffle<f32>(hi, lo, 2, 0, 6, 4);
}
// @ts-ignore: decorator
@inline
function reversedOdds(lo: v128, hi: v128): v128 {
  return v128.shuffle<f32>(hi, lo, 3, 1, 7, 5);
}

/** Elements k .. k + 3 of what `packed` computes, from those and from h - k - 3 .. h - k; `sign` is -1 on the way from half-length spectra, 1 back. */
// @ts-ignore: decorator
@inline
function mixFour(src: usize, mirror: usize, w: usize, dst: usize, scale: v128, sign: f32): void {
  const lo = v128.load(src), hi = v128.load(src, 16), ml = v128.load(mirror - 24), mh = v128.load(mirror - 8);
  const ar = evens(lo, hi), ai = odds(lo, hi), br = reversedEvens(ml, mh), bi = reversedOdds(ml, mh);
  const er = f32x4.add(ar, br), ei = f32x4.sub(ai, bi), dr = f32x4.sub(ar, br), di = f32x4.add(ai, bi);
  const wl = v128.load(w), wh = v128.load(w, 16), c = evens(wl, wh), s = f32x4.mul(odds(wl, wh), f32x4.splat(-sign));
  // (dr + i di) (c + i s), then times i sign.
  const tr = f32x4.sub(f32x4.mul(dr, c), f32x4.mul(di, s)), ti = f32x4.add(f32x4.mul(dr, s), f32x4.mul(di, c)), turn = f32x4.splat(sign);
  const re = f32x4.mul(scale, f32x4.sub(er, f32x4.mul(turn, ti))), im = f32x4.mul(scale, f32x4.add(ei, f32x4.mul(turn, tr)));
  v128.store(dst, v128.shuffle<f32>(re, im, 0, 4, 1, 5));
  v128.store(dst, v128.shuffle<f32>(re, im, 2, 6, 3, 7), 16);
}
// @ts-ignore: decorator
@inline
function mixOne(src: usize, mirror: usize, w: usize, dst: usize, scale: f32, sign: f32): void {
  const ar = load<f32>(src), ai = load<f32>(src, 4), br = load<f32>(mirror), bi = load<f32>(mirror, 4);
  const dr = ar - br, di = ai + bi, c = load<f32>(w), s = load<f32>(w, 4) * -sign;
  store<f32>(dst, scale * (ar + br - sign * (dr * s + di * c)));
  store<f32>(dst, scale * (ai - bi + sign * (dr * c - di * s)), 4);
}
// @ts-ignore: decorator
@inline
function mix(src: usize, dst: usize, w: usize, from: i32, to: i32, h: i32, scale: f32, sign: f32): void {
  const four = f32x4.splat(scale);
  let k = from;
  for (; k + 4 <= to; k += 4) mixFour(src + (<usize>k << 3), src + (<usize>(h - k) << 3), w + (<usize>k << 3), dst + (<usize>k << 3), four, sign);
  for (; k < to; k++) mixOne(src + (<usize>k << 3), src + (<usize>(h - k) << 3), w + (<usize>k << 3), dst + (<usize>k << 3), scale, sign);
}

// Transforms of 2 h real numbers through those of h complex ones, whose parts are neighbours. Words of both: src, dst, h, roots exp(-pi i k / h), scale (f32),
// elements per chunk, chunks per line; unit: one chunk of one line.

/** From spectra of h to the elements 0 .. h of spectra of 2 h. */
export function spectra(a: usize, begin: i32, end: i32): void {
  const h = load<i32>(a, 8), w = load<usize>(a, 12), scale = load<f32>(a, 16), chunk = load<i32>(a, 20), chunks = max(1, load<i32>(a, 24));
  for (let u = begin; u < end; u++) {
    const line = u / chunks, from = (u - line * chunks) * chunk;
    const src = load<usize>(a) + ((<usize>line * <usize>h) << 3), dst = load<usize>(a, 4) + ((<usize>line * <usize>(h + 1)) << 3);
    if (from == 0) {
      const re = load<f32>(src), im = load<f32>(src, 4), last = dst + (<usize>h << 3);
      store<f32>(dst, scale * (re + im));
      store<f32>(dst, 0, 4);
      store<f32>(last, scale * (re - im));
      store<f32>(last, 0, 4);
    }
    mix(src, dst, w, max(1, from), min(from + chunk, h), h, 0.5 * scale, -1);
  }
}

/** Back: from the elements 0 .. h of spectra of 2 h to twice the spectra of h. */
export function packed(a: usize, begin: i32, end: i32): void {
  const h = load<i32>(a, 8), w = load<usize>(a, 12), scale = load<f32>(a, 16), chunk = load<i32>(a, 20), chunks = max(1, load<i32>(a, 24));
  for (let u = begin; u < end; u++) {
    const line = u / chunks, from = (u - line * chunks) * chunk;
    const src = load<usize>(a) + ((<usize>line * <usize>(h + 1)) << 3), dst = load<usize>(a, 4) + ((<usize>line * <usize>h) << 3);
    if (from == 0) {
      const first = load<f32>(src), last = load<f32>(src + (<usize>h << 3));
      store<f32>(dst, scale * (first + last));
      store<f32>(dst, scale * (first - last), 4);
    }
    mix(src, dst, w, max(1, from), min(from + chunk, h), h, scale, 1);
  }
}
