/** Inner loops of the tile kernel of attention: float32 panels, 4 rows by 8 columns at a time. Depths are padded to even with zeros, for loops of two steps. */
import { even8, load1, load4, madd, odd8, raw8 } from "./half";

/** Keys per tile: the leading dimension of scores. */
export const TILE: u32 = 64;

// @ts-ignore: decorator
@inline
export function even(n: u32): u32 {
  return (n + 1) & ~1;
}

/** Stores the transpose of four vectors, rows `step` bytes apart. */
// @ts-ignore: decorator
@inline
export function storeTransposed(x0: v128, x1: v128, x2: v128, x3: v128, z: usize, step: usize): void {
  const a = i8x16.shuffle(x0, x1, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const b = i8x16.shuffle(x2, x3, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const c = i8x16.shuffle(x0, x1, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const e = i8x16.shuffle(x2, x3, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  v128.store(z, i8x16.shuffle(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  v128.store(z + step, i8x16.shuffle(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
  v128.store(z + 2 * step, i8x16.shuffle(c, e, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  v128.store(z + 3 * step, i8x16.shuffle(c, e, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
}

/** Packs `n` keys as panels [keys / 8][even(d)][8] of float32. What missing keys of the last panel hold does not matter. */
export function packKeys<T>(k: usize, step: u32, n: u32, d: u32, to: usize): void {
  for (let j: u32 = 0; j < n; j += 4) {
    const p0 = k + j * step;
    const p1 = k + min<u32>(j + 1, n - 1) * step;
    const p2 = k + min<u32>(j + 2, n - 1) * step;
    const p3 = k + min<u32>(j + 3, n - 1) * step;
    const y = to + 32 * (j >> 3) * even(d) + 4 * (j & 4);
    let i: u32 = 0;
    for (; i + 4 <= d; i += 4) {
      const at = i * sizeof<T>();
      storeTransposed(load4<T>(p0 + at), load4<T>(p1 + at), load4<T>(p2 + at), load4<T>(p3 + at), y + 32 * i, 32);
    }
    for (; i < d; i++) {
      const at = i * sizeof<T>();
      v128.store(y + 32 * i, f32x4(load1<T>(p0 + at), load1<T>(p1 + at), load1<T>(p2 + at), load1<T>(p3 + at)));
    }
    if (d & 1) v128.store(y + 32 * d, f32x4.splat(0));
  }
}

/** Packs values of `n` keys as panels [dv / 8][TILE][8] of float32, in split order. Columns beyond dv are 0, and so is one more key when n is odd. */
export function packValues<T>(v: usize, step: u32, n: u32, dv: u32, to: usize): void {
  for (let j: u32 = 0; j < n; j++) {
    const p = v + j * step;
    let i: u32 = 0;
    for (; i + 8 <= dv; i += 8) {
      const y = to + 4 * (i * TILE + j * 8);
      const at = p + i * sizeof<T>();
      const raw = raw8<T>(at);
      v128.store(y, even8<T>(raw));
      v128.store(y, odd8<T>(raw, at), 16);
    }
    if (i < dv) {
      const y = to + 4 * (i * TILE + j * 8);
      for (let c: u32 = 0; c < 8; c++) store<f32>(y + 4 * c, i + c < dv ? load1<T>(p + (i + c) * sizeof<T>()) : 0);
    }
  }
  if (n & 1) for (let i: u32 = 0; i < dv; i += 8) memory.fill(to + 4 * (i * TILE + n * 8), 0, 32);
}

/** 4 rows x 8 keys: c = a (panel [n][4]) times b (panel [n][8]); n is even. */
// @ts-ignore: decorator
@inline
function score4x8(a: usize, b: usize, n: u32, c: usize, ldc: u32): void {
  const c1 = c + 4 * ldc;
  const c2 = c1 + 4 * ldc;
  const c3 = c2 + 4 * ldc;
  let x0 = f32x4.splat(0), y0 = x0, x1 = x0, y1 = x0, x2 = x0, y2 = x0, x3 = x0, y3 = x0, w = x0;
  for (let i = n >> 1; i > 0; i--) {
    let u = v128.load(b, 0);
    let v = v128.load(b, 16);
    w = v128.load_splat<f32>(a, 0);
    x0 = madd(w, u, x0);
    y0 = madd(w, v, y0);
    w = v128.load_splat<f32>(a, 4);
    x1 = madd(w, u, x1);
    y1 = madd(w, v, y1);
    w = v128.load_splat<f32>(a, 8);
    x2 = madd(w, u, x2);
    y2 = madd(w, v, y2);
    w = v128.load_splat<f32>(a, 12);
    x3 = madd(w, u, x3);
    y3 = madd(w, v, y3);
    u = v128.load(b, 32);
    v = v128.load(b, 48);
    w = v128.load_splat<f32>(a, 16);
    x0 = madd(w, u, x0);
    y0 = madd(w, v, y0);
    w = v128.load_splat<f32>(a, 20);
    x1 = madd(w, u, x1);
    y1 = madd(w, v, y1);
    w = v128.load_splat<f32>(a, 24);
    x2 = madd(w, u, x2);
    y2 = madd(w, v, y2);
    w = v128.load_splat<f32>(a, 28);
    x3 = madd(w, u, x3);
    y3 = madd(w, v, y3);
    a += 32;
    b += 64;
  }
  v128.store(c, x0);
  v128.store(c, y0, 16);
  v128.store(c1, x1);
  v128.store(c1, y1, 16);
  v128.store(c2, x2);
  v128.store(c2, y2, 16);
  v128.store(c3, x3);
  v128.store(c3, y3, 16);
}

/** 4 rows x 8 columns: c = f * c + a (4 rows of weights, TILE apart) times b (panel [n][8]); n is even. */
// @ts-ignore: decorator
@inline
function weigh4x8(a: usize, b: usize, n: u32, c: usize, ldc: u32, f: usize): void {
  const c1 = c + 4 * ldc;
  const c2 = c1 + 4 * ldc;
  const c3 = c2 + 4 * ldc;
  let w = v128.load_splat<f32>(f);
  let x0 = f32x4.mul(w, v128.load(c));
  let y0 = f32x4.mul(w, v128.load(c, 16));
  w = v128.load_splat<f32>(f, 4);
  let x1 = f32x4.mul(w, v128.load(c1));
  let y1 = f32x4.mul(w, v128.load(c1, 16));
  w = v128.load_splat<f32>(f, 8);
  let x2 = f32x4.mul(w, v128.load(c2));
  let y2 = f32x4.mul(w, v128.load(c2, 16));
  w = v128.load_splat<f32>(f, 12);
  let x3 = f32x4.mul(w, v128.load(c3));
  let y3 = f32x4.mul(w, v128.load(c3, 16));
  for (let i = n >> 1; i > 0; i--) {
    let u = v128.load(b, 0);
    let v = v128.load(b, 16);
    w = v128.load_splat<f32>(a, 0);
    x0 = madd(w, u, x0);
    y0 = madd(w, v, y0);
    w = v128.load_splat<f32>(a, 256);
    x1 = madd(w, u, x1);
    y1 = madd(w, v, y1);
    w = v128.load_splat<f32>(a, 512);
    x2 = madd(w, u, x2);
    y2 = madd(w, v, y2);
    w = v128.load_splat<f32>(a, 768);
    x3 = madd(w, u, x3);
    y3 = madd(w, v, y3);
    u = v128.load(b, 32);
    v = v128.load(b, 48);
    w = v128.load_splat<f32>(a, 4);
    x0 = madd(w, u, x0);
    y0 = madd(w, v, y0);
    w = v128.load_splat<f32>(a, 260);
    x1 = madd(w, u, x1);
    y1 = madd(w, v, y1);
    w = v128.load_splat<f32>(a, 516);
    x2 = madd(w, u, x2);
    y2 = madd(w, v, y2);
    w = v128.load_splat<f32>(a, 772);
    x3 = madd(w, u, x3);
    y3 = madd(w, v, y3);
    a += 8;
    b += 64;
  }
  v128.store(c, x0);
  v128.store(c, y0, 16);
  v128.store(c1, x1);
  v128.store(c1, y1, 16);
  v128.store(c2, x2);
  v128.store(c2, y2, 16);
  v128.store(c3, x3);
  v128.store(c3, y3, 16);
}

/** 4 keys x 8 columns: c += a (rows of 4 weights, TILE apart) transposed times b (panel [n][8]); n is even. */
// @ts-ignore: decorator
@inline
function gather4x8(a: usize, b: usize, n: u32, c: usize, ldc: u32): void {
  const c1 = c + 4 * ldc;
  const c2 = c1 + 4 * ldc;
  const c3 = c2 + 4 * ldc;
  let x0 = v128.load(c), y0 = v128.load(c, 16), x1 = v128.load(c1), y1 = v128.load(c1, 16);
  let x2 = v128.load(c2), y2 = v128.load(c2, 16), x3 = v128.load(c3), y3 = v128.load(c3, 16), w = x0;
  for (let i = n >> 1; i > 0; i--) {
    let u = v128.load(b, 0);
    let v = v128.load(b, 16);
    w = v128.load_splat<f32>(a, 0);
    x0 = madd(w, u, x0);
    y0 = madd(w, v, y0);
    w = v128.load_splat<f32>(a, 4);
    x1 = madd(w, u, x1);
    y1 = madd(w, v, y1);
    w = v128.load_splat<f32>(a, 8);
    x2 = madd(w, u, x2);
    y2 = madd(w, v, y2);
    w = v128.load_splat<f32>(a, 12);
    x3 = madd(w, u, x3);
    y3 = madd(w, v, y3);
    u = v128.load(b, 32);
    v = v128.load(b, 48);
    w = v128.load_splat<f32>(a, 256);
    x0 = madd(w, u, x0);
    y0 = madd(w, v, y0);
    w = v128.load_splat<f32>(a, 260);
    x1 = madd(w, u, x1);
    y1 = madd(w, v, y1);
    w = v128.load_splat<f32>(a, 264);
    x2 = madd(w, u, x2);
    y2 = madd(w, v, y2);
    w = v128.load_splat<f32>(a, 268);
    x3 = madd(w, u, x3);
    y3 = madd(w, v, y3);
    a += 512;
    b += 64;
  }
  v128.store(c, x0);
  v128.store(c, y0, 16);
  v128.store(c1, x1);
  v128.store(c1, y1, 16);
  v128.store(c2, x2);
  v128.store(c2, y2, 16);
  v128.store(c3, x3);
  v128.store(c3, y3, 16);
}

// `seen` of the next functions: for each row of the block the keys of the tile that count for it, then for each four rows the most of them (lib/attention-block.ts).

/** Scores of the keys that count; panels of 8 keys that no row of four sees are left as they are. */
export function scoreTile(q: usize, rows4: u32, panels: usize, d: u32, n: u32, s: usize, seen: usize, from: u32 = 0): void {
  const most = seen + 4 * rows4;
  for (let j = from; j < n; j += 8) {
    for (let r: u32 = 0; r < rows4; r += 4) if (j < load<u32>(most + r)) score4x8(q + 4 * r * even(d), panels + 4 * j * even(d), even(d), s + 4 * (r * TILE + j), TILE);
  }
}
export function weighTile(p: usize, rows4: u32, panels: usize, dv: u32, o: usize, ldo: u32, factors: usize, seen: usize): void {
  const most = seen + 4 * rows4;
  for (let i: u32 = 0; i < dv; i += 8) {
    for (let r: u32 = 0; r < rows4; r += 4) weigh4x8(p + 4 * r * TILE, panels + 4 * i * TILE, even(load<u32>(most + r)), o + 4 * (r * ldo + i), ldo, factors + 4 * r);
  }
}
/** o[key] += sum over rows of p[row][key] panels[row], for `n` keys in fours; rows before the first that sees a key are left out. */
export function gatherTile(p: usize, rows: u32, panels: usize, dv: u32, n: u32, o: usize, ldo: u32, seen: usize): void {
  let first: u32 = 0;
  for (let j: u32 = 0; j < n; j += 4) {
    while (first < rows && load<u32>(seen + 4 * first) <= j) first++;
    const from = first & ~1;
    for (let i: u32 = 0; i < dv; i += 8) gather4x8(p + 4 * (from * TILE + j), panels + 4 * (i * TILE + from * 8), even(rows - from), o + 4 * (j * ldo + i), ldo);
  }
}
