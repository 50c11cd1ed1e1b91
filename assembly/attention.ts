/**
 * Scaled dot product attention with an online softmax (Milakov and Gimelshein 2018; tiled as in FlashAttention, Dao et al. 2022):
 * the score matrix exists one tile at a time. All sums are float32; the result is rounded once.
 *
 * Queries of the row kernel and all outputs in progress are kept in the split order of lib/half.ts, in groups of 8; a last group of fewer is in plain order.
 */
import { applyMask, block, BLOCK_BYTES, cacheRow, ceilDiv, clearUnseen, exp1, findSeen, headOf, locate, maskSeen, NEG_INF, outputRow, packQueries, queryRow, SCRATCH, softmaxStep, up8, word } from "./lib/attention-block";
import { ROW_TILE, scoreRows, weighRows } from "./lib/attention-rows";
import { even, packKeys, packValues, scoreTile, TILE, weighTile } from "./lib/attention-tiles";
import { scoreTilePaired, weighTilePaired } from "./lib/attention-pairs";
import { even8, join8, load1, loadAny, madd, odd8, raw8, store1, store8 } from "./lib/half";

// The words are those of lib/attention-block.ts.

/** Copies the block's queries, in split order, to float32 rows of `ld`, times the scale. */
function loadQueries<T>(a: usize, to: usize, ld: u32, rows: u32): void {
  const d = word(a, 11);
  const scale = load<f32>(a, 4 * 29);
  const sv = f32x4.splat(scale);
  for (let r: u32 = 0; r < rows; r++) {
    const p = queryRow<T>(a, r);
    const y = to + 4 * r * ld;
    let i: u32 = 0;
    for (; i + 8 <= d; i += 8) {
      const at = p + i * sizeof<T>();
      const raw = raw8<T>(at);
      v128.store(y + 4 * i, f32x4.mul(even8<T>(raw), sv));
      v128.store(y + 4 * i, f32x4.mul(odd8<T>(raw, at), sv), 16);
    }
    for (; i < d; i++) store<f32>(y + 4 * i, load1<T>(p + i * sizeof<T>()) * scale);
  }
}

/** Writes one finished row: o / sum, with the head's sink as one more key that has no value. A row without any weight is 0. */
function finishRow<T>(a: usize, o: usize, high: f32, sum: f32, head: u32, to: usize): void {
  const dv = word(a, 12);
  const code = <i32>word(a, 28);
  let k: f32 = 1;
  if (code >= 0) {
    const sink = loadAny(code, <usize>word(a, 5) + head * (code == 10 ? 4 : 2));
    const top = max<f32>(high, sink);
    k = high == NEG_INF ? 0 : exp1(high - top);
    sum = sum * k + (sink == NEG_INF ? 0 : exp1(sink - top));
  }
  // `sum == 0` and not `sum > 0`: a NaN must stay one.
  k = sum == 0 ? 0 : k / sum;
  const kv = f32x4.splat(k);
  let i: u32 = 0;
  for (; i + 8 <= dv; i += 8) {
    const x = f32x4.mul(v128.load(o + 4 * i), kv);
    const y = f32x4.mul(v128.load(o + 4 * i, 16), kv);
    store8<T>(to + i * sizeof<T>(), join8<T>(x, y, false), join8<T>(x, y, true));
  }
  for (; i < dv; i++) store1<T>(to + i * sizeof<T>(), load<f32>(o + 4 * i) * k);
}

/** o *= factor. */
// @ts-ignore: decorator
@inline
function scaleRow(o: usize, n: u32, factor: f32): void {
  const f = f32x4.splat(factor);
  for (let i: u32 = 0; i < n; i += 4) v128.store(o + 4 * i, f32x4.mul(v128.load(o + 4 * i), f));
}

/** Stores what a split found: maximum, sum, and the weighted values, in the row's own cache lines. */
// @ts-ignore: decorator
@inline
function storePart(a: usize, r: u32, split: u32, high: f32, sum: f32, o: usize, ldo: u32): void {
  const part = <usize>word(a, 7) + 4 * (outputRow(a, r) * word(a, 32) + split) * (ldo + 16);
  store<f32>(part, high);
  store<f32>(part, sum, 4);
  memory.copy(part + 64, o, 4 * ldo);
}

/** One block of rows against one range of keys, keys and values read in place. */
function rowsUnit<T>(a: usize, u: u32): void {
  const splits = word(a, 32);
  const split = u % splits;
  locate(a, u / splits);
  const rows = block(5);
  const d = word(a, 11);
  const dv = word(a, 12);
  const ldq = up8(d);
  const ldo = up8(dv);
  const q = SCRATCH + BLOCK_BYTES;
  const o = q + 4 * rows * ldq;
  const s = o + 4 * rows * ldo;
  const high = s + 4 * rows * ROW_TILE;
  const sum = high + 4 * rows;
  // Ranges in steps of 32 keys, so that splits seldom share a cache line.
  const per = ceilDiv(ceilDiv(block(6), splits), 32) * 32;
  const from = min<u32>(block(6), split * per);
  const to = min<u32>(block(6), from + per);

  loadQueries<T>(a, q, ldq, rows);
  memory.fill(o, 0, 4 * rows * ldo);
  for (let r: u32 = 0; r < rows; r++) {
    store<f32>(high + 4 * r, NEG_INF);
    store<f32>(sum + 4 * r, 0);
  }
  const stepK: u32 = word(a, 18) * <u32>sizeof<T>();
  const stepV: u32 = word(a, 21) * <u32>sizeof<T>();
  const k = cacheRow<T>(a, 1, 16);
  const v = cacheRow<T>(a, 2, 19);
  for (let k0 = from; k0 < to; k0 += ROW_TILE) {
    const n = min<u32>(ROW_TILE, to - k0);
    scoreRows<T>(q, ldq, rows, k + k0 * stepK, stepK, d, n, s);
    applyMask(a, s, ROW_TILE, k0, n);
    for (let r: u32 = 0; r < rows; r++) {
      const factor = softmaxStep(s + 4 * r * ROW_TILE, n, high + 4 * r, sum + 4 * r);
      if (factor != 1 && k0 > from) scaleRow(o + 4 * r * ldo, ldo, factor);
    }
    weighRows<T>(s, rows, v + k0 * stepV, stepV, dv, n, o, ldo);
  }
  for (let r: u32 = 0; r < rows; r++) {
    const at = o + 4 * r * ldo;
    if (splits == 1) finishRow<T>(a, at, load<f32>(high + 4 * r), load<f32>(sum + 4 * r), headOf(r), <usize>word(a, 3) + outputRow(a, r) * dv * sizeof<T>());
    else storePart(a, r, split, load<f32>(high + 4 * r), load<f32>(sum + 4 * r), at, ldo);
  }
}

/** Joins the partial results of all splits. One unit is one output row (batch, head, query). */
function combine<T>(a: usize, begin: u32, end: u32): void {
  const splits = word(a, 32);
  const dv = word(a, 12);
  const ldo = up8(dv);
  const heads = word(a, 8) * word(a, 9);
  const step: u32 = 4 * (ldo + 16);
  for (let row = begin; row < end; row++) {
    const first = <usize>word(a, 7) + row * splits * step;
    let high = NEG_INF;
    for (let i: u32 = 0; i < splits; i++) high = max<f32>(high, load<f32>(first + i * step));
    let sum: f32 = 0;
    memory.fill(SCRATCH, 0, 4 * ldo);
    for (let i: u32 = 0; i < splits; i++) {
      const part = first + i * step;
      const m = load<f32>(part);
      if (m == NEG_INF) continue;
      const f = exp1(m - high);
      sum += load<f32>(part, 4) * f;
      const fv = f32x4.splat(f);
      for (let j: u32 = 0; j < ldo; j += 4) v128.store(SCRATCH + 4 * j, madd(v128.load(part + 64 + 4 * j), fv, v128.load(SCRATCH + 4 * j)));
    }
    finishRow<T>(a, SCRATCH, high, sum, (row / word(a, 10)) % heads, <usize>word(a, 3) + row * dv * sizeof<T>());
  }
}

/** One block of rows against all its keys, which are packed tile by tile for all rows of the block. Word 33: whether vectors are paired. */
function tilesUnit<T>(a: usize, u: u32): void {
  locate(a, u);
  const rows = block(5);
  const rows4 = (rows + 3) & ~3;
  const d = word(a, 11);
  const dv = word(a, 12);
  const ldo = up8(dv);
  const q = SCRATCH + BLOCK_BYTES;
  const o = q + 4 * rows4 * even(d);
  const s = o + 4 * rows4 * ldo;
  const high = s + 4 * rows4 * TILE;
  const sum = high + 4 * rows4;
  const factors = sum + 4 * rows4;
  const seen = factors + 4 * rows4;
  const keys = seen + 8 * rows4;
  const values = keys + 4 * TILE * even(d);
  const end = block(6);
  const paired = word(a, 33) != 0;

  packQueries<T>(a, q, rows);
  memory.fill(o, 0, 4 * rows4 * ldo);
  for (let r: u32 = 0; r < rows4; r++) {
    store<f32>(high + 4 * r, NEG_INF);
    store<f32>(sum + 4 * r, 0);
    store<f32>(factors + 4 * r, 1);
  }
  const stepK: u32 = word(a, 18) * <u32>sizeof<T>();
  const stepV: u32 = word(a, 21) * <u32>sizeof<T>();
  const k = cacheRow<T>(a, 1, 16);
  const v = cacheRow<T>(a, 2, 19);
  for (let k0: u32 = 0; k0 < end; k0 += TILE) {
    const n = min<u32>(TILE, end - k0);
    packKeys<T>(k + k0 * stepK, stepK, n, d, keys);
    packValues<T>(v + k0 * stepV, stepV, n, dv, values);
    findSeen(a, k0, n, seen);
    if (paired) scoreTilePaired(q, rows4, keys, d, n, s, seen);
    else scoreTile(q, rows4, keys, d, n, s, seen);
    maskSeen(a, s, TILE, k0, n, seen);
    for (let r: u32 = 0; r < rows; r++) {
      const count = load<u32>(seen + 4 * r);
      const row = s + 4 * r * TILE;
      store<f32>(factors + 4 * r, count == 0 ? 1 : softmaxStep(row, min<u32>(n, up8(count)), high + 4 * r, sum + 4 * r));
      clearUnseen(row, count, n);
    }
    if (paired) weighTilePaired(s, rows4, values, dv, o, ldo, factors, seen);
    else weighTile(s, rows4, values, dv, o, ldo, factors, seen);
  }
  const kept = <usize>word(a, 7);
  for (let r: u32 = 0; r < rows; r++) {
    finishRow<T>(a, o + 4 * r * ldo, load<f32>(high + 4 * r), load<f32>(sum + 4 * r), headOf(r), <usize>word(a, 3) + outputRow(a, r) * dv * sizeof<T>());
    if (!kept) continue;
    store<f32>(kept + 8 * outputRow(a, r), load<f32>(high + 4 * r));
    store<f32>(kept + 8 * outputRow(a, r), load<f32>(sum + 4 * r), 4);
  }
}

export function rows_f32(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) rowsUnit<f32>(a, u);
}
export function rows_bf16(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) rowsUnit<u16>(a, u);
}
export function rows_f16(a: usize, begin: i32, end: i32): void {
  for (let u = begin; u < end; u++) rowsUnit<i16>(a, u);
}
export function combine_f32(a: usize, begin: i32, end: i32): void {
  combine<f32>(a, begin, end);
}
export function combine_bf16(a: usize, begin: i32, end: i32): void {
  combine<u16>(a, begin, end);
}
export function combine_f16(a: usize, begin: i32, end: i32): void {
  combine<i16>(a, begin, end);
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
