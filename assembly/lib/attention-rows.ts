/** Inner loops of the row kernel of attention: keys and values are read in place, in any of the three float types, two rows of queries at a time. */
import { even8, load1, madd, odd8, raw8 } from "./half";

/** Keys per tile: the leading dimension of scores. */
export const ROW_TILE: u32 = 128;

/** Sums of the lanes of four vectors, as one vector. */
// @ts-ignore: decorator
@inline
function sums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(i8x16.shuffle(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23), i8x16.shuffle(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31));
  const cd = f32x4.add(i8x16.shuffle(c, d, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23), i8x16.shuffle(c, d, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31));
  return f32x4.add(
    i8x16.shuffle(ab, cd, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
    i8x16.shuffle(ab, cd, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31),
  );
}

/** Scores of 2 rows x 4 keys. */
// @ts-ignore: decorator
@inline
function score2x4<T>(q: usize, ldq: u32, k: usize, step: u32, d: u32, s: usize, lds: u32): void {
  const k1 = k + step;
  const k2 = k1 + step;
  const k3 = k2 + step;
  const p = q + 4 * ldq;
  let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  let i: u32 = 0;
  for (; i + 8 <= d; i += 8) {
    const at = i * sizeof<T>();
    const x0 = v128.load(q + 4 * i);
    const x1 = v128.load(q + 4 * i, 16);
    const y0 = v128.load(p + 4 * i);
    const y1 = v128.load(p + 4 * i, 16);
    let raw = raw8<T>(k + at);
    let u = even8<T>(raw);
    a0 = madd(u, x0, a0);
    b0 = madd(u, y0, b0);
    u = odd8<T>(raw, k + at);
    a0 = madd(u, x1, a0);
    b0 = madd(u, y1, b0);
    raw = raw8<T>(k1 + at);
    u = even8<T>(raw);
    a1 = madd(u, x0, a1);
    b1 = madd(u, y0, b1);
    u = odd8<T>(raw, k1 + at);
    a1 = madd(u, x1, a1);
    b1 = madd(u, y1, b1);
    raw = raw8<T>(k2 + at);
    u = even8<T>(raw);
    a2 = madd(u, x0, a2);
    b2 = madd(u, y0, b2);
    u = odd8<T>(raw, k2 + at);
    a2 = madd(u, x1, a2);
    b2 = madd(u, y1, b2);
    raw = raw8<T>(k3 + at);
    u = even8<T>(raw);
    a3 = madd(u, x0, a3);
    b3 = madd(u, y0, b3);
    u = odd8<T>(raw, k3 + at);
    a3 = madd(u, x1, a3);
    b3 = madd(u, y1, b3);
  }
  let sa = sums(a0, a1, a2, a3);
  let sb = sums(b0, b1, b2, b3);
  for (; i < d; i++) {
    const at = i * sizeof<T>();
    const u = f32x4(load1<T>(k + at), load1<T>(k1 + at), load1<T>(k2 + at), load1<T>(k3 + at));
    sa = madd(u, v128.load_splat<f32>(q + 4 * i), sa);
    sb = madd(u, v128.load_splat<f32>(p + 4 * i), sb);
  }
  v128.store(s, sa);
  v128.store(s + 4 * lds, sb);
}

/** Score of 1 row with 1 key. */
function score1<T>(q: usize, k: usize, d: u32): f32 {
  let a0 = f32x4.splat(0), a1 = a0;
  let i: u32 = 0;
  for (; i + 8 <= d; i += 8) {
    const at = k + i * sizeof<T>();
    const raw = raw8<T>(at);
    a0 = madd(even8<T>(raw), v128.load(q + 4 * i), a0);
    a1 = madd(odd8<T>(raw, at), v128.load(q + 4 * i, 16), a1);
  }
  a0 = f32x4.add(a0, a1);
  let s: f32 = f32x4.extract_lane(a0, 0) + f32x4.extract_lane(a0, 1) + (f32x4.extract_lane(a0, 2) + f32x4.extract_lane(a0, 3));
  for (; i < d; i++) s += load1<T>(k + i * sizeof<T>()) * load<f32>(q + 4 * i);
  return s;
}

/** Scores of all rows with `n` keys. An odd last row is computed with its neighbour or, alone, with itself. */
export function scoreRows<T>(q: usize, ldq: u32, rows: u32, k: usize, step: u32, d: u32, n: u32, s: usize): void {
  const quads = n & ~3;
  for (let r: u32 = 0; r + 2 <= rows; r += 2) {
    for (let j: u32 = 0; j < quads; j += 4) score2x4<T>(q + 4 * r * ldq, ldq, k + j * step, step, d, s + 4 * (r * ROW_TILE + j), ROW_TILE);
  }
  if (rows & 1) {
    const r = rows - 1;
    for (let j: u32 = 0; j < quads; j += 4) score1x4<T>(q + 4 * r * ldq, k + j * step, step, d, s + 4 * (r * ROW_TILE + j));
  }
  for (let j = quads; j < n; j++) {
    for (let r: u32 = 0; r < rows; r++) store<f32>(s + 4 * (r * ROW_TILE + j), score1<T>(q + 4 * r * ldq, k + j * step, d));
  }
}

/** Scores of 1 row x 4 keys. */
// @ts-ignore: decorator
@inline
function score1x4<T>(q: usize, k: usize, step: u32, d: u32, s: usize): void {
  const k1 = k + step;
  const k2 = k1 + step;
  const k3 = k2 + step;
  let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  let i: u32 = 0;
  for (; i + 8 <= d; i += 8) {
    const at = i * sizeof<T>();
    const x0 = v128.load(q + 4 * i);
    const x1 = v128.load(q + 4 * i, 16);
    const r0 = raw8<T>(k + at);
    const r1 = raw8<T>(k1 + at);
    const r2 = raw8<T>(k2 + at);
    const r3 = raw8<T>(k3 + at);
    a0 = madd(even8<T>(r0), x0, a0);
    b0 = madd(odd8<T>(r0, k + at), x1, b0);
    a1 = madd(even8<T>(r1), x0, a1);
    b1 = madd(odd8<T>(r1, k1 + at), x1, b1);
    a2 = madd(even8<T>(r2), x0, a2);
    b2 = madd(odd8<T>(r2, k2 + at), x1, b2);
    a3 = madd(even8<T>(r3), x0, a3);
    b3 = madd(odd8<T>(r3, k3 + at), x1, b3);
  }
  let sa = sums(f32x4.add(a0, b0), f32x4.add(a1, b1), f32x4.add(a2, b2), f32x4.add(a3, b3));
  for (; i < d; i++) {
    const at = i * sizeof<T>();
    sa = madd(f32x4(load1<T>(k + at), load1<T>(k1 + at), load1<T>(k2 + at), load1<T>(k3 + at)), v128.load_splat<f32>(q + 4 * i), sa);
  }
  v128.store(s, sa);
}

/** Columns i .. dv of o += p x values of 4 keys. */
function weighTail<T>(p: usize, v: usize, step: u32, i: u32, dv: u32, o: usize): void {
  for (; i < dv; i++) {
    let sum = load<f32>(o + 4 * i);
    for (let j: u32 = 0; j < 4; j++) sum += load<f32>(p + 4 * j) * load1<T>(v + j * step + i * sizeof<T>());
    store<f32>(o + 4 * i, sum);
  }
}

/** o[0..1] += p[0..1] x values of 4 keys. */
// @ts-ignore: decorator
@inline
function weigh2x4<T>(p: usize, ldp: u32, v: usize, step: u32, dv: u32, o: usize, ldo: u32): void {
  const p0 = v128.load_splat<f32>(p);
  const p1 = v128.load_splat<f32>(p, 4);
  const p2 = v128.load_splat<f32>(p, 8);
  const p3 = v128.load_splat<f32>(p, 12);
  const r = p + 4 * ldp;
  const r0 = v128.load_splat<f32>(r);
  const r1 = v128.load_splat<f32>(r, 4);
  const r2 = v128.load_splat<f32>(r, 8);
  const r3 = v128.load_splat<f32>(r, 12);
  const v1 = v + step;
  const v2 = v1 + step;
  const v3 = v2 + step;
  const n = o + 4 * ldo;
  let i: u32 = 0;
  for (; i + 8 <= dv; i += 8) {
    const at = i * sizeof<T>();
    let x0 = v128.load(o + 4 * i);
    let x1 = v128.load(o + 4 * i, 16);
    let y0 = v128.load(n + 4 * i);
    let y1 = v128.load(n + 4 * i, 16);
    let raw = raw8<T>(v + at);
    let u = even8<T>(raw);
    x0 = madd(u, p0, x0);
    y0 = madd(u, r0, y0);
    u = odd8<T>(raw, v + at);
    x1 = madd(u, p0, x1);
    y1 = madd(u, r0, y1);
    raw = raw8<T>(v1 + at);
    u = even8<T>(raw);
    x0 = madd(u, p1, x0);
    y0 = madd(u, r1, y0);
    u = odd8<T>(raw, v1 + at);
    x1 = madd(u, p1, x1);
    y1 = madd(u, r1, y1);
    raw = raw8<T>(v2 + at);
    u = even8<T>(raw);
    x0 = madd(u, p2, x0);
    y0 = madd(u, r2, y0);
    u = odd8<T>(raw, v2 + at);
    x1 = madd(u, p2, x1);
    y1 = madd(u, r2, y1);
    raw = raw8<T>(v3 + at);
    u = even8<T>(raw);
    x0 = madd(u, p3, x0);
    y0 = madd(u, r3, y0);
    u = odd8<T>(raw, v3 + at);
    x1 = madd(u, p3, x1);
    y1 = madd(u, r3, y1);
    v128.store(o + 4 * i, x0);
    v128.store(o + 4 * i, x1, 16);
    v128.store(n + 4 * i, y0);
    v128.store(n + 4 * i, y1, 16);
  }
  if (i < dv) {
    weighTail<T>(p, v, step, i, dv, o);
    weighTail<T>(r, v, step, i, dv, n);
  }
}

/** o += p x values of `n` (1 to 4) keys, one row. */
function weigh1<T>(p: usize, v: usize, step: u32, n: u32, dv: u32, o: usize): void {
  for (let j: u32 = 0; j < n; j++) {
    const w = load<f32>(p + 4 * j);
    const wv = f32x4.splat(w);
    const at = v + j * step;
    let i: u32 = 0;
    for (; i + 8 <= dv; i += 8) {
      const raw = raw8<T>(at + i * sizeof<T>());
      v128.store(o + 4 * i, madd(even8<T>(raw), wv, v128.load(o + 4 * i)));
      v128.store(o + 4 * i, madd(odd8<T>(raw, at + i * sizeof<T>()), wv, v128.load(o + 4 * i, 16)), 16);
    }
    for (; i < dv; i++) store<f32>(o + 4 * i, load<f32>(o + 4 * i) + w * load1<T>(at + i * sizeof<T>()));
  }
}

/** o += p x values of 4 keys, one row. */
// @ts-ignore: decorator
@inline
function weigh1x4<T>(p: usize, v: usize, step: u32, dv: u32, o: usize): void {
  const p0 = v128.load_splat<f32>(p);
  const p1 = v128.load_splat<f32>(p, 4);
  const p2 = v128.load_splat<f32>(p, 8);
  const p3 = v128.load_splat<f32>(p, 12);
  const v1 = v + step;
  const v2 = v1 + step;
  const v3 = v2 + step;
  let i: u32 = 0;
  for (; i + 8 <= dv; i += 8) {
    const at = i * sizeof<T>();
    const r0 = raw8<T>(v + at);
    const r1 = raw8<T>(v1 + at);
    const r2 = raw8<T>(v2 + at);
    const r3 = raw8<T>(v3 + at);
    let x = madd(even8<T>(r0), p0, v128.load(o + 4 * i));
    let y = madd(odd8<T>(r0, v + at), p0, v128.load(o + 4 * i, 16));
    x = madd(even8<T>(r1), p1, x);
    y = madd(odd8<T>(r1, v1 + at), p1, y);
    x = madd(even8<T>(r2), p2, x);
    y = madd(odd8<T>(r2, v2 + at), p2, y);
    x = madd(even8<T>(r3), p3, x);
    y = madd(odd8<T>(r3, v3 + at), p3, y);
    v128.store(o + 4 * i, x);
    v128.store(o + 4 * i, y, 16);
  }
  if (i < dv) weighTail<T>(p, v, step, i, dv, o);
}

export function weighRows<T>(p: usize, rows: u32, v: usize, step: u32, dv: u32, n: u32, o: usize, ldo: u32): void {
  const quads = n & ~3;
  for (let r: u32 = 0; r + 2 <= rows; r += 2) {
    for (let j: u32 = 0; j < quads; j += 4) weigh2x4<T>(p + 4 * (r * ROW_TILE + j), ROW_TILE, v + j * step, step, dv, o + 4 * r * ldo, ldo);
  }
  if (rows & 1) {
    const r = rows - 1;
    for (let j: u32 = 0; j < quads; j += 4) weigh1x4<T>(p + 4 * (r * ROW_TILE + j), v + j * step, step, dv, o + 4 * r * ldo);
  }
  if (quads < n) for (let r: u32 = 0; r < rows; r++) weigh1<T>(p + 4 * (r * ROW_TILE + quads), v + quads * step, step, n - quads, dv, o + 4 * r * ldo);
}
