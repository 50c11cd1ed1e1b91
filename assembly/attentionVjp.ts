/**
 * Gradient of scaled dot product attention without a matrix of scores (FlashAttention-2, Dao 2023): weights are computed again tile by tile from the maximum and
 * the sum of each row, which the first step finds; the gradient of a row's scores is weight * (output gradient . value - D), D = output gradient . output.
 * All sums are float32; results are rounded once.
 */
import { block, BLOCK_BYTES, cacheRow, ceilDiv, clearUnseen, exp1, expNegative, findSeen, headOf, HIDDEN, locate, maskSeen, NEG_INF, outputRow, packQueries, queryRow, SCRATCH, softmaxStep, up8, word } from "./lib/attention-block";
import { even, gatherTile, packKeys, packValues, scoreTile, storeTransposed, TILE, weighTile } from "./lib/attention-tiles";
import { even8, join8, load1, load4, loadAny, madd, odd8, raw8, store1, store8, sum4 } from "./lib/half";

// Words: those of lib/attention-block.ts, with 3 the output of attention, 7 statistics of all rows [B, H, Tq, 4] (maximum, 1 / sum, D, nothing; float32), 32 ranges of the keys, and
// 33 gradient of the output, 34-36 gradients of q, k, v, 37 part of each row in the gradient of its head's sink (float32 [B, H, Tq]), all row-major,
// 38 gradients of q by range of keys, float32 [ranges, rows, up8(D)] in split order, 39 rows (B H Tq), 40 maximum and sum of each row as the tiles of attention found them (float32 [B, H, Tq, 2]), or 0.

/** Rows of a block at most. */
const ROWS: u32 = 32;

/** Address of row r of the block in a row-major [B, H, Tq, n]. */
// @ts-ignore: decorator
@inline
function plainRow<T>(a: usize, pointer: usize, r: u32, n: u32): usize {
  return word(a, pointer) + outputRow(a, r) * n * sizeof<T>();
}
// @ts-ignore: decorator
@inline
function statisticsOf(a: usize, r: u32): usize {
  return word(a, 7) + 16 * outputRow(a, r);
}
/** Bytes of a panel of `n` rows. */
// @ts-ignore: decorator
@inline
function panel(n: u32): usize {
  return 4 * TILE * n;
}

/** D of one row: the product of the output and its gradient. */
function rowProduct<T>(x: usize, y: usize, n: u32): f32 {
  let t = f32x4.splat(0);
  let i: u32 = 0;
  for (; i + 4 <= n; i += 4) t = madd(load4<T>(x + i * sizeof<T>()), load4<T>(y + i * sizeof<T>()), t);
  let s = sum4(t);
  for (; i < n; i++) s += load1<T>(x + i * sizeof<T>()) * load1<T>(y + i * sizeof<T>());
  return s;
}

/** Maximum and sum of each row of the block, from the keys. */
function findStatistics<T>(a: usize, high: usize, sum: usize): void {
  const rows = block(5);
  const rows4 = (rows + 3) & ~3;
  const d = word(a, 11);
  const seen = sum + 4 * ROWS;
  const q = seen + 8 * ROWS;
  const keys = q + 4 * ROWS * even(d);
  const s = keys + panel(even(d));
  const end = block(6);
  packQueries<T>(a, q, rows);
  for (let r: u32 = 0; r < rows; r++) {
    store<f32>(high + 4 * r, NEG_INF);
    store<f32>(sum + 4 * r, 0);
  }
  const stepK: u32 = word(a, 18) * <u32>sizeof<T>();
  const k = cacheRow<T>(a, 1, 16);
  for (let k0: u32 = 0; k0 < end; k0 += TILE) {
    const n = min<u32>(TILE, end - k0);
    packKeys<T>(k + k0 * stepK, stepK, n, d, keys);
    findSeen(a, k0, n, seen);
    scoreTile(q, rows4, keys, d, n, s, seen);
    maskSeen(a, s, TILE, k0, n, seen);
    for (let r: u32 = 0; r < rows; r++) {
      const count = load<u32>(seen + 4 * r);
      if (count > 0) softmaxStep(s + 4 * r * TILE, min<u32>(n, up8(count)), high + 4 * r, sum + 4 * r);
    }
  }
}

/** Statistics of one block of rows, and the rows' parts in the gradient of the sinks. */
function statisticsUnit<T>(a: usize, u: u32): void {
  locate(a, u);
  const rows = block(5);
  const dv = word(a, 12);
  const high = SCRATCH + BLOCK_BYTES;
  const sum = high + 4 * ROWS;
  const kept = <usize>word(a, 40);
  if (kept) for (let r: u32 = 0; r < rows; r++) {
    store<f32>(high + 4 * r, load<f32>(kept + 8 * outputRow(a, r)));
    store<f32>(sum + 4 * r, load<f32>(kept + 8 * outputRow(a, r), 4));
  }
  else findStatistics<T>(a, high, sum);
  const code = <i32>word(a, 28);
  for (let r: u32 = 0; r < rows; r++) {
    let top = load<f32>(high + 4 * r);
    let total = load<f32>(sum + 4 * r);
    let sinkPart: f32 = 0;
    if (code >= 0) {
      const sink = loadAny(code, <usize>word(a, 5) + headOf(r) * (code == 10 ? 4 : 2));
      const before = top;
      top = max<f32>(top, sink);
      sinkPart = sink == NEG_INF ? 0 : exp1(sink - top);
      total = (before == NEG_INF ? 0 : total * exp1(before - top)) + sinkPart;
    }
    // A row without any weight has no gradient; a NaN stays one.
    const inverse: f32 = total == 0 ? 0 : 1 / total;
    const product = rowProduct<T>(plainRow<T>(a, 3, r, dv), plainRow<T>(a, 33, r, dv), dv);
    v128.store(statisticsOf(a, r), f32x4(top == NEG_INF ? 0 : top, inverse, product, 0));
    if (code >= 0) store<f32>(word(a, 37) + 4 * outputRow(a, r), -sinkPart * inverse * product);
  }
}

/** Packs the gradient of the output of the block's rows as panels [rows / 4][even(dv)][4] of float32. Missing rows of the last panel repeat the last row. */
function packGradients<T>(a: usize, to: usize, rows: u32): void {
  const dv = word(a, 12);
  for (let r: u32 = 0; r < rows; r += 4) {
    const p0 = plainRow<T>(a, 33, r, dv);
    const p1 = plainRow<T>(a, 33, min<u32>(r + 1, rows - 1), dv);
    const p2 = plainRow<T>(a, 33, min<u32>(r + 2, rows - 1), dv);
    const p3 = plainRow<T>(a, 33, min<u32>(r + 3, rows - 1), dv);
    const y = to + 4 * r * even(dv);
    let i: u32 = 0;
    for (; i + 4 <= dv; i += 4) {
      const at = i * sizeof<T>();
      storeTransposed(load4<T>(p0 + at), load4<T>(p1 + at), load4<T>(p2 + at), load4<T>(p3 + at), y + 16 * i, 16);
    }
    for (; i < dv; i++) {
      const at = i * sizeof<T>();
      v128.store(y + 16 * i, f32x4(load1<T>(p0 + at), load1<T>(p1 + at), load1<T>(p2 + at), load1<T>(p3 + at)));
    }
    if (dv & 1) v128.store(y + 16 * dv, f32x4.splat(0));
  }
}

/** Puts one row, times a factor, in place r of panels [n / 8][TILE][8] of float32, in split order. Columns beyond n are 0. */
function packRow<T>(p: usize, n: u32, factor: f32, to: usize, r: u32): void {
  const f = f32x4.splat(factor);
  let i: u32 = 0;
  for (; i + 8 <= n; i += 8) {
    const y = to + 4 * (i * TILE + r * 8);
    const at = p + i * sizeof<T>();
    const raw = raw8<T>(at);
    v128.store(y, f32x4.mul(even8<T>(raw), f));
    v128.store(y, f32x4.mul(odd8<T>(raw, at), f), 16);
  }
  if (i < n) {
    const y = to + 4 * (i * TILE + r * 8);
    for (let c: u32 = 0; c < 8; c++) store<f32>(y + 4 * c, i + c < n ? load1<T>(p + (i + c) * sizeof<T>()) * factor : 0);
  }
}
/** One more row of zeros behind an odd number of rows. */
function padPanels(to: usize, n: u32, rows: u32): void {
  if (rows & 1) for (let i: u32 = 0; i < n; i += 8) memory.fill(to + 4 * (i * TILE + rows * 8), 0, 32);
}

/**
 * Scores to weights, and products of output gradient and value to gradients of scores, in place, for the `seen` of `n` keys of one row, with zeros up to a multiple of 8.
 * A score equal to `hidden` (NaN: none) was replaced by a mask, so nothing flows to it.
 */
function weighRow(s: usize, g: usize, seen: u32, n: u32, statistics: usize, hidden: f32): void {
  const high = v128.load_splat<f32>(statistics);
  const inverse = v128.load_splat<f32>(statistics, 4);
  const product = v128.load_splat<f32>(statistics, 8);
  const h = f32x4.splat(hidden);
  const end = up8(seen);
  for (let j = n; j < end; j++) {
    store<f32>(s + 4 * j, NEG_INF);
    store<f32>(g + 4 * j, 0);
  }
  clearUnseen(s, seen, n);
  clearUnseen(g, seen, n);
  for (let j: u32 = 0; j < end; j += 4) {
    const x = v128.load(s + 4 * j);
    const p = f32x4.mul(expNegative(f32x4.sub(x, high)), inverse);
    v128.store(s + 4 * j, p);
    v128.store(g + 4 * j, v128.andnot(f32x4.mul(p, f32x4.sub(v128.load(g + 4 * j), product)), f32x4.eq(x, h)));
  }
}

/** Rounds `n` elements in split order, times a factor. */
function storeRow<T>(o: usize, n: u32, factor: f32, to: usize): void {
  const f = f32x4.splat(factor);
  let i: u32 = 0;
  for (; i + 8 <= n; i += 8) {
    const x = f32x4.mul(v128.load(o + 4 * i), f);
    const y = f32x4.mul(v128.load(o + 4 * i, 16), f);
    store8<T>(to + i * sizeof<T>(), join8<T>(x, y, false), join8<T>(x, y, true));
  }
  for (; i < n; i++) store1<T>(to + i * sizeof<T>(), load<f32>(o + 4 * i) * factor);
}

// Scratch of one thread behind the block: keys and values as panels for scores, keys as panels for sums, gradients of keys and values of the tile, factors of one;
// then of the block of rows: queries and output gradients as panels for scores, and as panels for sums, weights, gradients of scores, gradients of queries, keys that count.

/** One range of the keys of one key head, against all rows that see it. */
function tilesUnit<T>(a: usize, u: u32): void {
  const splits = word(a, 32);
  const d = word(a, 11);
  const dv = word(a, 12);
  const blocks = ceilDiv(word(a, 9), word(a, 30)) * ceilDiv(word(a, 10), word(a, 31));
  const head = u / splits;
  locate(a, head * blocks);
  const length = load<u32>(word(a, 6));
  const per = ceilDiv(ceilDiv(length, splits), TILE) * TILE;
  const from = min<u32>(length, (u % splits) * per);
  const to = min<u32>(length, from + per);

  const keys = SCRATCH + BLOCK_BYTES;
  const values = keys + panel(even(d));
  const keySums = values + panel(even(dv));
  const keyGradients = keySums + panel(up8(d));
  const valueGradients = keyGradients + panel(up8(d));
  const ones = valueGradients + panel(up8(dv));
  const ofBlock = ones + 4 * TILE;
  for (let i: usize = 0; i < TILE; i++) store<f32>(ones + 4 * i, 1);
  const partial = <usize>word(a, 38) + 4 * ((u % splits) * word(a, 39)) * up8(d);
  memory.fill(partial + 4 * head * word(a, 9) * word(a, 10) * up8(d), 0, 4 * word(a, 9) * word(a, 10) * up8(d));

  const stepK: u32 = word(a, 18) * <u32>sizeof<T>();
  const stepV: u32 = word(a, 21) * <u32>sizeof<T>();
  const k = cacheRow<T>(a, 1, 16);
  const v = cacheRow<T>(a, 2, 19);
  for (let k0 = from; k0 < to; k0 += TILE) {
    const n = min<u32>(TILE, to - k0);
    packKeys<T>(k + k0 * stepK, stepK, n, d, keys);
    packKeys<T>(v + k0 * stepV, stepV, n, dv, values);
    packValues<T>(k + k0 * stepK, stepK, n, d, keySums);
    memory.fill(keyGradients, 0, panel(up8(d)));
    memory.fill(valueGradients, 0, panel(up8(dv)));
    for (let i: u32 = 0; i < blocks; i++) {
      locate(a, head * blocks + i);
      if (k0 < block(6)) blockGradients<T>(a, k0, min<u32>(n, block(6) - k0), keys, ofBlock, partial);
    }
    const row = head * length + k0;
    for (let j: u32 = 0; j < n; j++) {
      storeRow<T>(keyGradients + 4 * j * up8(d), d, 1, word(a, 35) + (row + j) * d * sizeof<T>());
      storeRow<T>(valueGradients + 4 * j * up8(dv), dv, 1, word(a, 36) + (row + j) * dv * sizeof<T>());
    }
  }
}

/** Adds what one block of rows gives to the gradients of a tile of keys and values, and of its queries. */
function blockGradients<T>(a: usize, k0: u32, n: u32, keys: usize, ofBlock: usize, partial: usize): void {
  const d = word(a, 11);
  const dv = word(a, 12);
  const rows = block(5);
  const rows4 = (rows + 3) & ~3;
  const values = keys + panel(even(d));
  const keySums = values + panel(even(dv));
  const keyGradients = keySums + panel(up8(d));
  const valueGradients = keyGradients + panel(up8(d));
  const ones = valueGradients + panel(up8(dv));
  const q = ofBlock;
  const g = q + panel(even(d));
  const qSums = g + panel(even(dv));
  const gSums = qSums + panel(up8(d));
  const s = gSums + panel(up8(dv));
  const ds = s + 4 * ROWS * TILE;
  const dq = ds + 4 * ROWS * TILE;
  const seen = dq + 4 * ROWS * up8(d);

  packQueries<T>(a, q, rows);
  packGradients<T>(a, g, rows);
  const scale = load<f32>(a, 4 * 29);
  for (let r: u32 = 0; r < rows; r++) {
    packRow<T>(queryRow<T>(a, r), d, scale, qSums, r);
    packRow<T>(plainRow<T>(a, 33, r, dv), dv, 1, gSums, r);
  }
  padPanels(qSums, d, rows);
  padPanels(gSums, dv, rows);

  findSeen(a, k0, n, seen);
  scoreTile(q, rows4, keys, d, n, s, seen);
  scoreTile(g, rows4, values, dv, n, ds, seen);
  maskSeen(a, s, TILE, k0, n, seen);
  const hides = word(a, 26) == 1 || (word(a, 26) == 2 && word(a, 27) == 0);
  for (let r: u32 = 0; r < rows; r++) weighRow(s + 4 * r * TILE, ds + 4 * r * TILE, load<u32>(seen + 4 * r), n, statisticsOf(a, r), hides ? HIDDEN : NaN);
  memory.fill(s + 4 * rows * TILE, 0, 4 * (rows4 - rows) * TILE);
  memory.fill(ds + 4 * rows * TILE, 0, 4 * (rows4 - rows) * TILE);

  gatherTile(s, rows, gSums, dv, n, valueGradients, up8(dv), seen);
  gatherTile(ds, rows, qSums, d, n, keyGradients, up8(d), seen);
  memory.fill(dq, 0, 4 * rows4 * up8(d));
  weighTile(ds, rows4, keySums, d, dq, up8(d), ones, seen);
  for (let r: u32 = 0; r < rows; r++) {
    const x = dq + 4 * r * up8(d);
    const y = partial + 4 * outputRow(a, r) * up8(d);
    for (let i: u32 = 0; i < up8(d); i += 4) v128.store(y + 4 * i, f32x4.add(v128.load(y + 4 * i), v128.load(x + 4 * i)));
  }
}

/** Gradients of queries: sums over the ranges of keys. One unit is one row (batch, head, query). */
function queries<T>(a: usize, begin: u32, end: u32): void {
  const d = word(a, 11);
  const ld = up8(d);
  const splits = word(a, 32);
  const step = 4 * word(a, 39) * ld;
  for (let row = begin; row < end; row++) {
    const x = <usize>word(a, 38) + 4 * row * ld;
    for (let i: u32 = 0; i < ld; i += 4) {
      let t = v128.load(x + 4 * i);
      for (let p: u32 = 1; p < splits; p++) t = f32x4.add(t, v128.load(x + p * step + 4 * i));
      v128.store(SCRATCH + 4 * i, t);
    }
    storeRow<T>(SCRATCH, d, load<f32>(a, 4 * 29), word(a, 34) + row * d * sizeof<T>());
  }
}

export function statistics_f32(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) statisticsUnit<f32>(a, u);
}
export function statistics_bf16(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) statisticsUnit<u16>(a, u);
}
export function statistics_f16(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) statisticsUnit<i16>(a, u);
}
export function tiles_f32(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) tilesUnit<f32>(a, u);
}
export function tiles_bf16(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) tilesUnit<u16>(a, u);
}
export function tiles_f16(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) tilesUnit<i16>(a, u);
}
export function queries_f32(a: usize, begin: i32, end: i32): void {
  queries<f32>(a, begin, end);
}
export function queries_bf16(a: usize, begin: i32, end: i32): void {
  queries<u16>(a, begin, end);
}
export function queries_f16(a: usize, begin: i32, end: i32): void {
  queries<i16>(a, begin, end);
}
