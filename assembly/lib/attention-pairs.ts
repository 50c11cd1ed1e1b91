/**
 * The inner loops of attention-tiles.ts for vector pairing: 4 rows by 16 columns, two panels at a time. Half as many registers hold the sums then, and 8 pairs of them
 * are needed to hide the latency of a multiply-add. The same sums in the same order.
 */
import { madd } from "./half";
import { even, scoreTile, TILE, weighTile } from "./attention-tiles";

/** 4 rows x 16 keys: z = x (panel [n][4]) times the panels b and e ([n][8]). */
function score4x16(x: usize, b: usize, e: usize, n: u32, z0: usize, ldz: u32): void {
  const z1 = z0 + 4 * ldz;
  const z2 = z1 + 4 * ldz;
  const z3 = z2 + 4 * ldz;
  let w = f32x4.splat(0);
  let a0 = w, b0 = w, c0 = w, d0 = w;
  let a1 = w, b1 = w, c1 = w, d1 = w;
  let a2 = w, b2 = w, c2 = w, d2 = w;
  let a3 = w, b3 = w, c3 = w, d3 = w;
  for (let i = n; i > 0; i--) {
    const u0 = v128.load(b), u1 = v128.load(b, 16), v0 = v128.load(e), v1 = v128.load(e, 16);
    w = v128.load_splat<f32>(x);
    a0 = madd(w, u0, a0);
    b0 = madd(w, u1, b0);
    c0 = madd(w, v0, c0);
    d0 = madd(w, v1, d0);
    w = v128.load_splat<f32>(x, 4);
    a1 = madd(w, u0, a1);
    b1 = madd(w, u1, b1);
    c1 = madd(w, v0, c1);
    d1 = madd(w, v1, d1);
    w = v128.load_splat<f32>(x, 8);
    a2 = madd(w, u0, a2);
    b2 = madd(w, u1, b2);
    c2 = madd(w, v0, c2);
    d2 = madd(w, v1, d2);
    w = v128.load_splat<f32>(x, 12);
    a3 = madd(w, u0, a3);
    b3 = madd(w, u1, b3);
    c3 = madd(w, v0, c3);
    d3 = madd(w, v1, d3);
    x += 16;
    b += 32;
    e += 32;
  }
  v128.store(z0, a0);
  v128.store(z0, b0, 16);
  v128.store(z0, c0, 32);
  v128.store(z0, d0, 48);
  v128.store(z1, a1);
  v128.store(z1, b1, 16);
  v128.store(z1, c1, 32);
  v128.store(z1, d1, 48);
  v128.store(z2, a2);
  v128.store(z2, b2, 16);
  v128.store(z2, c2, 32);
  v128.store(z2, d2, 48);
  v128.store(z3, a3);
  v128.store(z3, b3, 16);
  v128.store(z3, c3, 32);
  v128.store(z3, d3, 48);
}

/** 4 rows x 16 columns: z = f * z + x (4 rows of weights, TILE apart) times the panels b and e ([n][8]). */
function weigh4x16(x: usize, b: usize, e: usize, n: u32, z0: usize, ldz: u32, f: usize): void {
  const z1 = z0 + 4 * ldz;
  const z2 = z1 + 4 * ldz;
  const z3 = z2 + 4 * ldz;
  let w = v128.load_splat<f32>(f);
  let a0 = f32x4.mul(w, v128.load(z0)), b0 = f32x4.mul(w, v128.load(z0, 16)), c0 = f32x4.mul(w, v128.load(z0, 32)), d0 = f32x4.mul(w, v128.load(z0, 48));
  w = v128.load_splat<f32>(f, 4);
  let a1 = f32x4.mul(w, v128.load(z1)), b1 = f32x4.mul(w, v128.load(z1, 16)), c1 = f32x4.mul(w, v128.load(z1, 32)), d1 = f32x4.mul(w, v128.load(z1, 48));
  w = v128.load_splat<f32>(f, 8);
  let a2 = f32x4.mul(w, v128.load(z2)), b2 = f32x4.mul(w, v128.load(z2, 16)), c2 = f32x4.mul(w, v128.load(z2, 32)), d2 = f32x4.mul(w, v128.load(z2, 48));
  w = v128.load_splat<f32>(f, 12);
  let a3 = f32x4.mul(w, v128.load(z3)), b3 = f32x4.mul(w, v128.load(z3, 16)), c3 = f32x4.mul(w, v128.load(z3, 32)), d3 = f32x4.mul(w, v128.load(z3, 48));
  for (let i = n; i > 0; i--) {
    const u0 = v128.load(b), u1 = v128.load(b, 16), v0 = v128.load(e), v1 = v128.load(e, 16);
    w = v128.load_splat<f32>(x);
    a0 = madd(w, u0, a0);
    b0 = madd(w, u1, b0);
    c0 = madd(w, v0, c0);
    d0 = madd(w, v1, d0);
    w = v128.load_splat<f32>(x, 256);
    a1 = madd(w, u0, a1);
    b1 = madd(w, u1, b1);
    c1 = madd(w, v0, c1);
    d1 = madd(w, v1, d1);
    w = v128.load_splat<f32>(x, 512);
    a2 = madd(w, u0, a2);
    b2 = madd(w, u1, b2);
    c2 = madd(w, v0, c2);
    d2 = madd(w, v1, d2);
    w = v128.load_splat<f32>(x, 768);
    a3 = madd(w, u0, a3);
    b3 = madd(w, u1, b3);
    c3 = madd(w, v0, c3);
    d3 = madd(w, v1, d3);
    x += 4;
    b += 32;
    e += 32;
  }
  v128.store(z0, a0);
  v128.store(z0, b0, 16);
  v128.store(z0, c0, 32);
  v128.store(z0, d0, 48);
  v128.store(z1, a1);
  v128.store(z1, b1, 16);
  v128.store(z1, c1, 32);
  v128.store(z1, d1, 48);
  v128.store(z2, a2);
  v128.store(z2, b2, 16);
  v128.store(z2, c2, 32);
  v128.store(z2, d2, 48);
  v128.store(z3, a3);
  v128.store(z3, b3, 16);
  v128.store(z3, c3, 32);
  v128.store(z3, d3, 48);
}

/** As scoreTile. */
export function scoreTilePaired(q: usize, rows4: u32, panels: usize, d: u32, n: u32, s: usize, seen: usize): void {
  const depth = even(d);
  const most = seen + 4 * rows4;
  let j: u32 = 0;
  for (; j + 8 < n; j += 16) {
    const b = panels + 4 * j * depth;
    for (let r: u32 = 0; r < rows4; r += 4) if (j < load<u32>(most + r)) score4x16(q + 4 * r * depth, b, b + 32 * depth, depth, s + 4 * (r * TILE + j), TILE);
  }
  scoreTile(q, rows4, panels, d, n, s, seen, j);
}
/** As weighTile. */
export function weighTilePaired(p: usize, rows4: u32, panels: usize, dv: u32, o: usize, ldo: u32, factors: usize, seen: usize): void {
  const most = seen + 4 * rows4;
  let i: u32 = 0;
  for (; i + 8 < dv; i += 16) {
    const b = panels + 4 * i * TILE;
    for (let r: u32 = 0; r < rows4; r += 4) weigh4x16(p + 4 * r * TILE, b, b + 32 * TILE, even(load<u32>(most + r)), o + 4 * (r * ldo + i), ldo, factors + 4 * r);
  }
  if (i < dv) weighTile(p, rows4, panels + 4 * i * TILE, dv - i, o + 4 * i, ldo, factors, seen);
}
