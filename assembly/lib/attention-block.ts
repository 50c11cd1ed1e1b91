/**
 * What the kernels of attention and of its gradient share: the words of their argument block, blocks of rows, masks, and a step of the online softmax.
 *
 * A block of rows is `heads per block` query heads of one key/value head times `queries per block` queries; row r is head r / queries, query r % queries.
 */
import { even, storeTransposed } from "./attention-tiles";
import { load1, load4, madd } from "./half";

// @ts-ignore: decorator
@external("env", "scratch")
export declare const SCRATCH: usize;

// Words of all kernels here:
//  0 q, 1 k, 2 v, 3 out (row-major [B, H, Tq, Dv]), 4 mask, 5 sinks, 6 key length (pointer to i32), 7 partial results (splits > 1),
//  8 kv heads, 9 query heads per kv head, 10 Tq, 11 D, 12 Dv, 13-15 strides of q over batch, head, position (elements), 16-18 of k, 19-21 of v,
// 22-25 strides of mask over batch, query head, query, key, 26 mask kind (0 none, 1 causal, 2 array), 27 dtype code of mask, 28 of sinks (-1: none),
// 29 scale (f32), 30 heads per block, 31 queries per block, 32 splits of the keys.
// Scratch of one thread: the block (see below), Q, O (R rows each), scores (R rows of one tile), running maximum, running sum, correction per row, then packed K and V (tiles only).

/** Score of a key that a bool or causal mask hides: a row that sees no key at all becomes the mean of all values, as in MLX. */
export const HIDDEN: f32 = -f32.MAX_VALUE;
export const NEG_INF: f32 = -Infinity;

// @ts-ignore: decorator
@inline
export function word(a: usize, i: usize): u32 {
  return load<u32>(a + 4 * i);
}
// @ts-ignore: decorator
@inline
export function ceilDiv(x: u32, y: u32): u32 {
  return (x + y - 1) / y;
}
// @ts-ignore: decorator
@inline
export function up8(x: u32): u32 {
  return (x + 7) & ~7;
}

/** e^x for x <= 0: relative error 1e-7, exactly 0 below -87.3 (and for -Infinity). */
// @ts-ignore: decorator
@inline
export function expNegative(x: v128): v128 {
  const magic = f32x4.splat(12582912);
  const t = madd(x, f32x4.splat(1.4426950408889634), magic);
  const n = f32x4.sub(t, magic);
  // ln 2 in two parts: the first has few bits, so that n times it is exact.
  const r = madd(n, f32x4.splat(2.12194440e-4), madd(n, f32x4.splat(-0.693359375), x));
  let p = madd(r, f32x4.splat(0.0013814629), f32x4.splat(0.0083687175));
  p = madd(r, p, f32x4.splat(0.041668388));
  p = madd(r, p, f32x4.splat(0.16666521));
  p = madd(r, p, f32x4.splat(0.49999993));
  p = madd(f32x4.mul(r, r), p, f32x4.add(r, f32x4.splat(1)));
  const power = i32x4.shl(i32x4.add(t, i32x4.splat(127)), 23);
  return v128.andnot(f32x4.mul(p, power), f32x4.lt(x, f32x4.splat(-87.3)));
}
// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(expNegative(f32x4.splat(x)), 0);
}

// The block of a unit stands at the start of the scratch. Words: 0 batch entry, 1 kv head, 2 first query head, 3 first query, 4 queries, 5 rows,
// 6 keys that some row sees, 7 key length - Tq (i32): with a causal mask query i sees keys up to this + i.
export const BLOCK_BYTES: usize = 64;
// @ts-ignore: decorator
@inline
export function block(i: usize): u32 {
  return load<u32>(SCRATCH + 4 * i);
}

/** Finds the block of unit u (without its split): ((batch * kv heads + kv head) * head blocks + head block) * query blocks + query block. */
export function locate(a: usize, u: u32): void {
  const tq = word(a, 10);
  const group = word(a, 9);
  const blocksQ = ceilDiv(tq, word(a, 31));
  const q0 = (u % blocksQ) * word(a, 31);
  u /= blocksQ;
  const blocksH = ceilDiv(group, word(a, 30));
  const h0 = (u % blocksH) * word(a, 30);
  u /= blocksH;
  const kv = u % word(a, 8);
  const qn = min<u32>(word(a, 31), tq - q0);
  const length = load<u32>(word(a, 6));
  const shift = <i32>(length - tq);
  // A row that sees no key takes the mean over all, so then all count.
  const all = word(a, 26) != 1 || shift + <i32>q0 < 0;
  store<u32>(SCRATCH, u / word(a, 8), 0);
  store<u32>(SCRATCH, kv, 4);
  store<u32>(SCRATCH, kv * group + h0, 8);
  store<u32>(SCRATCH, q0, 12);
  store<u32>(SCRATCH, qn, 16);
  store<u32>(SCRATCH, qn * min<u32>(word(a, 30), group - h0), 20);
  store<u32>(SCRATCH, all ? length : min<u32>(length, <u32>shift + q0 + qn), 24);
  store<i32>(SCRATCH, shift, 28);
}

/** Query head and query of row r of the block. */
// @ts-ignore: decorator
@inline
export function headOf(r: u32): u32 {
  return block(2) + r / block(4);
}
// @ts-ignore: decorator
@inline
export function queryOf(r: u32): u32 {
  return block(3) + (r % block(4));
}
/** Address of row r of q. */
// @ts-ignore: decorator
@inline
export function queryRow<T>(a: usize, r: u32): usize {
  return word(a, 0) + (block(0) * word(a, 13) + headOf(r) * word(a, 14) + queryOf(r) * word(a, 15)) * sizeof<T>();
}
/** Row r of the block among all output rows [B, H, Tq]. */
// @ts-ignore: decorator
@inline
export function outputRow(a: usize, r: u32): u32 {
  return (block(0) * word(a, 8) * word(a, 9) + headOf(r)) * word(a, 10) + queryOf(r);
}

/** Packs the block's queries, times the scale, as panels [rows / 4][even(d)][4] of float32. Missing rows of the last panel repeat the last row. */
export function packQueries<T>(a: usize, to: usize, rows: u32): void {
  const d = word(a, 11);
  const scale = v128.load_splat<f32>(a + 4 * 29);
  for (let r: u32 = 0; r < rows; r += 4) {
    const p0 = queryRow<T>(a, r);
    const p1 = queryRow<T>(a, min<u32>(r + 1, rows - 1));
    const p2 = queryRow<T>(a, min<u32>(r + 2, rows - 1));
    const p3 = queryRow<T>(a, min<u32>(r + 3, rows - 1));
    const y = to + 4 * r * even(d);
    let i: u32 = 0;
    for (; i + 4 <= d; i += 4) {
      const at = i * sizeof<T>();
      storeTransposed(f32x4.mul(load4<T>(p0 + at), scale), f32x4.mul(load4<T>(p1 + at), scale), f32x4.mul(load4<T>(p2 + at), scale), f32x4.mul(load4<T>(p3 + at), scale), y + 16 * i, 16);
    }
    for (; i < d; i++) {
      const at = i * sizeof<T>();
      v128.store(y + 16 * i, f32x4.mul(f32x4(load1<T>(p0 + at), load1<T>(p1 + at), load1<T>(p2 + at), load1<T>(p3 + at)), scale));
    }
    if (d & 1) v128.store(y + 16 * d, f32x4.splat(0));
  }
}

/** Adds one row of a float mask to `n` scores. */
function addMask<T>(m: usize, step: u32, s: usize, n: u32): void {
  let j: u32 = 0;
  if (step == 1) for (; j + 4 <= n; j += 4) v128.store(s + 4 * j, f32x4.add(v128.load(s + 4 * j), load4<T>(m + j * sizeof<T>())));
  for (; j < n; j++) store<f32>(s + 4 * j, load<f32>(s + 4 * j) + load1<T>(m + j * step * sizeof<T>()));
}
function hideMask(m: usize, step: u32, s: usize, n: u32): void {
  for (let j: u32 = 0; j < n; j++) if (!load<u8>(m + j * step)) store<f32>(s + 4 * j, HIDDEN);
}

/** Applies the mask to scores (rows of `ld`) of keys k0 .. k0 + n for all rows of the block. */
export function applyMask(a: usize, s: usize, ld: u32, k0: u32, n: u32): void {
  const kind = word(a, 26);
  if (kind == 0) return;
  const rows = block(5);
  if (kind == 1) {
    for (let r: u32 = 0; r < rows; r++) {
      const first = max<i32>(<i32>(block(7) + queryOf(r) + 1 - k0), 0);
      for (let j: u32 = first; j < n; j++) store<f32>(s + 4 * (r * ld + j), HIDDEN);
    }
    return;
  }
  const code = word(a, 27);
  const step = word(a, 25);
  for (let r: u32 = 0; r < rows; r++) {
    const at = block(0) * word(a, 22) + headOf(r) * word(a, 23) + queryOf(r) * word(a, 24) + k0 * step;
    const row = s + 4 * r * ld;
    const m = <usize>word(a, 4);
    if (code == 0) hideMask(m + at, step, row, n);
    else if (code == 10) addMask<f32>(m + 4 * at, step, row, n);
    else if (code == 12) addMask<u16>(m + 2 * at, step, row, n);
    else addMask<i16>(m + 2 * at, step, row, n);
  }
}

/**
 * Which of the keys k0 .. k0 + n of a tile count for a row: `seen` gets their number for each row of the block (0 for missing rows of the last four), then the most of each four rows.
 * Those that a causal mask hides behind the last visible one do not; a row that sees no key at all takes the mean over all, so there all do.
 */
export function findSeen(a: usize, k0: u32, n: u32, seen: usize): void {
  const rows = block(5);
  const rows4 = (rows + 3) & ~3;
  for (let r: u32 = 0; r < rows4; r++) {
    let count: u32 = r < rows ? n : 0;
    if (word(a, 26) == 1 && r < rows) {
      const last = <i32>(block(7) + queryOf(r));
      if (last >= 0) count = <u32>max<i32>(0, min<i32>(<i32>n, last + 1 - <i32>k0));
    }
    store<u32>(seen + 4 * r, count);
    const most = seen + 4 * rows4 + (r & ~3);
    store<u32>(most, r & 3 ? max<u32>(load<u32>(most), count) : count);
  }
}
/** Hides what is masked among the scores that count, and up to a multiple of 8. */
export function maskSeen(a: usize, s: usize, ld: u32, k0: u32, n: u32, seen: usize): void {
  if (word(a, 26) != 1) {
    applyMask(a, s, ld, k0, n);
    return;
  }
  const rows = block(5);
  for (let r: u32 = 0; r < rows; r++) {
    const end = min<u32>(n, up8(load<u32>(seen + 4 * r)));
    const blind = <i32>(block(7) + queryOf(r)) < 0;
    for (let j: u32 = blind ? 0 : load<u32>(seen + 4 * r); j < end; j++) store<f32>(s + 4 * (r * ld + j), HIDDEN);
  }
}
/** Zeros behind the `seen` weights of a row, from the next multiple of 8 up to that of n. */
// @ts-ignore: decorator
@inline
export function clearUnseen(s: usize, seen: u32, n: u32): void {
  for (let j = up8(seen); j < up8(n); j += 4) v128.store(s + 4 * j, f32x4.splat(0));
}

/**
 * One step of the online softmax over `n` scores of one row: turns them into exp(score - maximum), updates maximum and sum,
 * and returns the factor that brings earlier sums to the new maximum. Pads with zeros to a multiple of 8.
 */
export function softmaxStep(s: usize, n: u32, maxAt: usize, sumAt: usize): f32 {
  const padded = up8(n);
  for (let j = n; j < padded; j++) store<f32>(s + 4 * j, NEG_INF);
  let mv = v128.load(s);
  for (let j: u32 = 4; j < padded; j += 4) mv = f32x4.pmax(mv, v128.load(s + 4 * j));
  const before = load<f32>(maxAt);
  const high = max<f32>(max<f32>(f32x4.extract_lane(mv, 0), f32x4.extract_lane(mv, 1)), max<f32>(f32x4.extract_lane(mv, 2), f32x4.extract_lane(mv, 3)));
  const now = max<f32>(before, high);
  store<f32>(maxAt, now);
  // While every score is -Infinity any finite base will do: all terms are 0.
  const base: f32 = now == NEG_INF ? 0 : now;
  const bv = f32x4.splat(base);
  let t0 = f32x4.splat(0);
  let t1 = t0;
  for (let j: u32 = 0; j < padded; j += 8) {
    const e0 = expNegative(f32x4.sub(v128.load(s + 4 * j), bv));
    const e1 = expNegative(f32x4.sub(v128.load(s + 4 * j, 16), bv));
    v128.store(s + 4 * j, e0);
    v128.store(s + 4 * j, e1, 16);
    t0 = f32x4.add(t0, e0);
    t1 = f32x4.add(t1, e1);
  }
  t0 = f32x4.add(t0, t1);
  const factor: f32 = before == now ? 1 : exp1(before - base);
  const sum: f32 = f32x4.extract_lane(t0, 0) + f32x4.extract_lane(t0, 1) + (f32x4.extract_lane(t0, 2) + f32x4.extract_lane(t0, 3));
  store<f32>(sumAt, load<f32>(sumAt) * factor + sum);
  return factor;
}

/** Address of the first key (words 1, 16, 17) or value (words 2, 19, 20) of the block. */
// @ts-ignore: decorator
@inline
export function cacheRow<T>(a: usize, pointer: usize, strides: usize): usize {
  return word(a, pointer) + (block(0) * word(a, strides) + block(1) * word(a, strides + 1)) * sizeof<T>();
}
