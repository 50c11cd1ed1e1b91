/** Kernels of affine quantization: packing, unpacking and the matrix products with packed weights. */
import { lines, naturalSource, widths } from "./quant-layout.ts";
import { prepareSource } from "./quant-prepare.ts";
import { qmmSource } from "./quant-qmm.ts";
import { qmmHalfSource } from "./quant-qmm-half.ts";
import { qmvSource } from "./quant-qmv.ts";

const head = `
import { exactBlock, largestBits, paddedGroups, planeBytes, rowF32, sizeOfCode, storeEight, storeLanes, storePair, storeOne, storeTile, sum4, sumLanes, sums4, unquantizable } from "./lib/quant";
import { load1, load4, loadAny } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;
`;

/** Rows of activations that can not become integers are computed in float32, each weight dequantized first. */
const exact = `
function natural(bits: i32, p: usize, d: usize): void {
  switch (bits) {
    ${widths.map((b) => `case ${b}: natural${b}(p, d); break;`).join("\n    ")}
  }
}

/** Dot product of the float32 row at x with the weight row at w, its scales at sp and its biases at bp. Uses the first 32 bytes of the scratch area. */
function exactDot(bits: i32, w: usize, sp: usize, bp: usize, code: i32, x: usize, K: i32, group: i32): f32 {
  let acc = f32x4.splat(0);
  const size = <usize>sizeOfCode(code);
  for (let k = 0; k < K; k += group, sp += size, bp += size) {
    const s = loadAny(code, sp), b = loadAny(code, bp);
    for (let j = 0; j < group; j += 32, w += <usize>(4 * bits), x += 128) {
      natural(bits, w, SCRATCH);
      acc = exactBlock(SCRATCH, x, s, b, acc);
    }
  }
  return sum4(acc);
}

/** Outputs n0 .. n1 of row xr of x, exactly, at o; plus those of the row at c (0: nothing). */
function exactRow(a: usize, xr: i32, o: usize, w: usize, sc: usize, bi: usize, n0: i32, n1: i32, c: usize): void {
  const K = load<i32>(a, 32), group = load<i32>(a, 36), bits = load<i32>(a, 40), xCode = load<i32>(a, 48), code = load<i32>(a, 52), outCode = load<i32>(a, 56);
  const x = rowF32(load<usize>(a, 12) + <usize>xr * <usize>(K * sizeOfCode(xCode)), xCode, K, SCRATCH + 64);
  const wr = <usize>(K >> 3) * <usize>bits, sr = <usize>(K / group * sizeOfCode(code)), size = <usize>sizeOfCode(outCode);
  for (let n = n0; n < n1; n++) {
    const i = <usize>n;
    const sum = exactDot(bits, w + i * wr, sc + i * sr, bi + i * sr, code, x, K, group);
    storeOne(outCode, o + i * size, c ? sum + loadAny(outCode, c + i * size) : sum);
  }
}
`;

const exactRows = `
/** The outputs n0 .. n1 of those rows m0 .. m1 of x that have a flag, plus those of c (0: nothing). */
function exactBlockOf(a: usize, flags: usize, m0: i32, m1: i32, n0: i32, n1: i32, c: usize): void {
  const out = load<usize>(a, 20), bytes = <usize>load<i32>(a, 28) * <usize>sizeOfCode(load<i32>(a, 56));
  for (let m = m0; m < m1; m++) {
    const row = <usize>m * bytes;
    if (load<i32>(flags + (<usize>m << 2))) exactRow(a, m, out + row, load<usize>(a), load<usize>(a, 4), load<usize>(a, 8), n0, n1, c ? c + row : 0);
  }
}
`;

const prepare = `
/**
 * Prepares rows of activations for qmv. Unit: a row.
 * Words: 0 x, 1 prepared, 2 rows, 3 K, 4 group size, 5 dtype code of x, 6 order, 7 planes.
 * Prepared: planes [rows][K / 32][plane], scales [rows][groups] and sums [rows][groups] as float32 (groups rounded up to 4), flags [rows] (1: the row is not quantizable).
 */
export function prepare(a: usize, begin: i32, end: i32): void {
  const M = load<i32>(a, 8), K = load<i32>(a, 12), group = load<i32>(a, 16), code = load<i32>(a, 20), planes = load<i32>(a, 28);
  const kind = load<i32>(a, 24) * 4 + planes;
  const groups = K / group, padded = paddedGroups(groups), xRow = <usize>planeBytes(K, planes);
  const plane: usize = ASC_FEATURE_RELAXED_SIMD ? 32 : 64;
  const block = plane * <usize>(ASC_FEATURE_RELAXED_SIMD ? planes : planes - 1);
  const prep = load<usize>(a, 4), scales = prep + <usize>M * xRow, sums = scales + <usize>(M * padded << 2), flags = sums + <usize>(M * padded << 2);
  const top = largest(kind), step: f32 = 1 / top;
  for (let m = begin; m < end; m++) {
    let p = rowF32(load<usize>(a) + <usize>m * <usize>(K * sizeOfCode(code)), code, K, SCRATCH), d = prep + <usize>m * xRow;
    let flag = 0;
    for (let g = 0; g < padded; g++) {
      const at = <usize>(m * padded + g) << 2;
      const bits = g < groups ? largestBits(p, group) : 0;
      const bad = unquantizable(bits);
      if (bad) flag = 1;
      const zero = bad || bits == 0;
      const scale: f32 = zero ? 0 : reinterpret<f32>(bits) * step;
      store<f32>(scales + at, scale);
      store<f32>(sums + at, 0);
      if (g >= groups) continue;
      const r = f32x4.splat(zero ? 0 : top / reinterpret<f32>(bits));
      const sum = groupRow(kind, p, r, d, plane, block, group >> 5);
      p += <usize>group << 2;
      d += <usize>(group >> 5) * block;
      if (!zero) store<f32>(sums + at, <f32>sumLanes(sum) * scale);
    }
    store<i32>(flags + (<usize>m << 2), flag);
  }
}

/**
 * Prepares rows of activations for qmm. Unit: 4 rows; missing rows of the last unit become zero.
 * Words: as prepare, 8 whether the integers lie in 16-bit lanes (in the plain build they always do). Prepared: planes
 * [rows / 4][groups][plane][K of a group / 4][4 rows][4 bytes] (in 16-bit lanes: [.. / 2][4 rows][2 values]), scales and sums [rows / 4][groups][4 rows], flags [rows].
 */
export function prepareTiles(a: usize, begin: i32, end: i32): void {
  const M = load<i32>(a, 8), K = load<i32>(a, 12), group = load<i32>(a, 16), code = load<i32>(a, 20), planes = load<i32>(a, 28);
  const bytes = ASC_FEATURE_RELAXED_SIMD && load<i32>(a, 32) == 0;
  const kind = load<i32>(a, 24) * 4 + planes, tileKind = bytes ? kind + 32 : kind;
  const groups = K / group, tiles = (M + 3) >> 2, tileBytes = <usize>(4 * planeBytes(K, planes));
  const block: usize = bytes ? 128 : 256;
  const plane = block * <usize>(group >> 5), xGroup = plane * <usize>(bytes ? planes : planes - 1);
  const prep = load<usize>(a, 4), scales = prep + <usize>tiles * tileBytes, sums = scales + (<usize>(tiles * groups) << 4), flags = sums + (<usize>(tiles * groups) << 4);
  const top = largest(kind), step: f32 = 1 / top;
  for (let t = begin; t < end; t++) {
    for (let i = 0; i < 4; i++) {
      const m = 4 * t + i;
      let p = SCRATCH, flag = 0;
      if (m < M) p = rowF32(load<usize>(a) + <usize>m * <usize>(K * sizeOfCode(code)), code, K, SCRATCH);
      else memory.fill(SCRATCH, 0, <usize>K << 2);
      for (let g = 0; g < groups; g++) {
        const at = <usize>((t * groups + g) * 4 + i) << 2;
        const bits = largestBits(p, group);
        const bad = unquantizable(bits);
        if (bad) flag = 1;
        const zero = bad || bits == 0;
        const scale: f32 = zero ? 0 : reinterpret<f32>(bits) * step;
        const r = f32x4.splat(zero ? 0 : top / reinterpret<f32>(bits));
        const sum = groupTile(tileKind, p, r, prep + <usize>t * tileBytes + <usize>g * xGroup + <usize>(4 * i), plane, block, group >> 5);
        p += <usize>group << 2;
        store<f32>(scales + at, scale);
        store<f32>(sums + at, zero ? 0 : <f32>sumLanes(sum) * scale);
      }
      store<i32>(flags + (<usize>m << 2), flag);
    }
  }
}
`;

const qmv = `
/**
 * One row of x times the transpose of packed 4-bit weights [N, K] with bfloat16 scales; N and the number of groups in a row are multiples of 4. Words and units as
 * for qmv, which takes the row when it has special values.
 */
export function qmvRow(a: usize, begin: i32, end: i32): void {
  if (!oneRow(a, begin, end, 32, false)) qmv(a, begin, end);
}
/** The same with sums in 16 bits (relaxed build). */
export function qmvRow16(a: usize, begin: i32, end: i32): void {
  if (!oneRow(a, begin, end, 16, false)) qmv(a, begin, end);
}
/** The same with sums in 16 bits, for vector pairing (relaxed build, groups of 64 and 128). */
export function qmvPair16(a: usize, begin: i32, end: i32): void {
  if (!oneRow(a, begin, end, 16, true)) qmv(a, begin, end);
}
/** The same with sums in 32 bits, for vector pairing. */
export function qmvPair32(a: usize, begin: i32, end: i32): void {
  if (!oneRow(a, begin, end, 32, true)) qmv(a, begin, end);
}

/**
 * Few rows of x times the transpose of packed weights [N, K]. Words: the common ones. Unit i: columns 2 i, 2 i + 1 and the two that lie 2 * ceil(N / 4) further on.
 */
export function qmv(a: usize, begin: i32, end: i32): void {
  const N = load<i32>(a, 28);
  span(a, load<usize>(a), load<usize>(a, 4), load<usize>(a, 8), begin, end, ((N + 3) >> 2) << 1, N - 1, 0, load<i32>(a, 24));
}

/**
 * Sorts the pairs (row of x, row of the output) of a gathered product by expert. Unit: all of it.
 * Words: 0 lhs indices, 1 rhs indices (uint32; indices out of range go to the last matrix), 2 plan, 3 index pairs, 4 experts, 5 matrices in x, 6 rows of each.
 * Plan: word 0 number of experts in use; from byte 16 on, for each {expert, first pair, pairs, 0}; then the pairs; then a counter for each expert.
 */
export function gatherPlan(a: usize, begin: i32, end: i32): void {
  const lhs = load<usize>(a), rhs = load<usize>(a, 4), plan = load<usize>(a, 8), n = load<i32>(a, 12), experts = load<i32>(a, 16);
  const lastX = load<u32>(a, 20) - 1, rows = load<i32>(a, 24);
  const runs = plan + 16, pairs = runs + (<usize>min<i32>(n, experts) << 4), counters = pairs + (<usize>(n * rows) << 3);
  memory.fill(counters, 0, <usize>experts << 2);
  for (let i = 0; i < n; i++) {
    const c = counters + (<usize>min<u32>(load<u32>(rhs + (<usize>i << 2)), experts - 1) << 2);
    store<i32>(c, load<i32>(c) + 1);
  }
  let first = 0, used = 0;
  for (let e = 0; e < experts; e++) {
    const c = counters + (<usize>e << 2);
    const count = load<i32>(c) * rows;
    store<i32>(c, first);
    if (count == 0) continue;
    const run = runs + (<usize>used << 4);
    store<i32>(run, e);
    store<i32>(run, first, 4);
    store<i32>(run, count, 8);
    first += count;
    used++;
  }
  store<i32>(plan, used);
  for (let i = 0; i < n; i++) {
    const c = counters + (<usize>min<u32>(load<u32>(rhs + (<usize>i << 2)), experts - 1) << 2);
    const x = <i32>min<u32>(load<u32>(lhs + (<usize>i << 2)), lastX) * rows;
    let at = load<i32>(c);
    for (let m = 0; m < rows; m++, at++) {
      store<i32>(pairs + (<usize>at << 3), x + m);
      store<i32>(pairs + (<usize>at << 3), i * rows + m, 4);
    }
    store<i32>(c, at);
  }
}

/**
 * Rows of x times the transpose of the packed weights of their expert. Words: the common ones, 15 plan, 16 most experts in use, 17 columns of a block (a multiple of 4).
 * Unit: a block of columns of one expert in use.
 */
export function gatherQmv(a: usize, begin: i32, end: i32): void {
  const N = load<i32>(a, 28), K = load<i32>(a, 32), bits = load<i32>(a, 40), plan = load<usize>(a, 60), most = load<i32>(a, 64), columns = load<i32>(a, 68);
  const used = load<i32>(plan), blocks = (N + columns - 1) / columns;
  const wBytes = <usize>N * <usize>(K >> 3) * <usize>bits, sBytes = <usize>N * <usize>(K / load<i32>(a, 36) * sizeOfCode(load<i32>(a, 52)));
  for (let u = begin; u < end; u++) {
    const r = u / blocks;
    if (r >= used) return;
    const run = plan + 16 + (<usize>r << 4), e = <usize>load<i32>(run);
    const first = (u - r * blocks) * columns, last = min<i32>(first + columns, N) - 1, quarter = (last - first + 4) >> 2;
    const list = plan + 16 + (<usize>most << 4) + (<usize>load<i32>(run, 4) << 3);
    span(a, load<usize>(a) + e * wBytes, load<usize>(a, 4) + e * sBytes, load<usize>(a, 8) + e * sBytes, first >> 1, (first >> 1) + quarter, 2 * quarter, last, list, load<i32>(run, 8));
  }
}
`;

const qmm = `
/** Sums of the signed weights of a panel's groups, times -64: what the unsigned upper plane of x adds too much. */
function panelOffsets(wg: usize, table: usize, groups: i32, groupBytes: usize): void {
  if (ASC_FEATURE_RELAXED_SIMD) {
    const ones = i8x16.splat(1);
    for (let g = 0; g < groups; g++, table += 96) {
      let a = i32x4.splat(0), b = a;
      for (const e = wg + groupBytes; wg < e; wg += 32) {
        a = i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(wg), ones, a);
        b = i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(wg, 16), ones, b);
      }
      v128.store(table, i32x4.neg(i32x4.shl(a, 6)), 64);
      v128.store(table, i32x4.neg(i32x4.shl(b, 6)), 80);
    }
  }
}

/** Unpacks the 8 weight rows from n on (beyond N: the last one again) and their scales, biases and offsets (96 bytes a group). */
function unpackPanel(a: usize, n: i32, d: usize, table: usize): void {
  const w = load<usize>(a), N = load<i32>(a, 28), K = load<i32>(a, 32), group = load<i32>(a, 36), bits = load<i32>(a, 40), code = load<i32>(a, 52);
  const groups = K / group, wr = <usize>(K >> 3) * <usize>bits, size = <usize>sizeOfCode(code), sr = <usize>groups * size;
  for (let h = 0; h < 2; h++) {
    const i = n + 4 * h, p = w + <usize>min<i32>(i, N - 1) * wr, q = w + <usize>min<i32>(i + 1, N - 1) * wr;
    panel(bits, p, q, w + <usize>min<i32>(i + 2, N - 1) * wr, w + <usize>min<i32>(i + 3, N - 1) * wr, d + <usize>(16 * h), K);
  }
  const shift: f32 = bits == 8 ? 128 : 0;
  for (let r = 0; r < 8; r++) {
    const row = <usize>min<i32>(n + r, N - 1) * sr;
    let sp = load<usize>(a, 4) + row, bp = load<usize>(a, 8) + row, t = table + <usize>(4 * r);
    for (let g = 0; g < groups; g++, sp += size, bp += size, t += 96) {
      const s = loadAny(code, sp);
      store<f32>(t, s);
      store<f32>(t, loadAny(code, bp) + shift * s, 32);
    }
  }
  if (bits == 8) panelOffsets(d, table, groups, <usize>group << 3);
}

/**
 * Rows of x times the transpose of packed weights [N, K]. Words: the common ones, 15 rows of x per block (a multiple of 4), 16 whether
 * products are added up in 16 bits first (only in the relaxed build, and for weights of at most 4 bits).
 * Unit: a panel of 8 columns for one block of rows; panels of a block follow each other.
 */
export function qmm(a: usize, begin: i32, end: i32): void {
  const prep = load<usize>(a, 16), out = load<usize>(a, 20), M = load<i32>(a, 24), N = load<i32>(a, 28), K = load<i32>(a, 32), group = load<i32>(a, 36);
  const bits = load<i32>(a, 40), planes = load<i32>(a, 44), outCode = load<i32>(a, 56), rows = load<i32>(a, 60);
  const narrow = ASC_FEATURE_RELAXED_SIMD && bits <= 4 && load<i32>(a, 64) != 0;
  const groups = K / group, panels = (N + 7) >> 3, tiles = (M + 3) >> 2, tileBytes = <usize>(4 * planeBytes(K, planes));
  const scales = prep + <usize>tiles * tileBytes, sumsOfX = scales + (<usize>(tiles * groups) << 4), flags = sumsOfX + (<usize>(tiles * groups) << 4);
  const step: i32 = ASC_FEATURE_RELAXED_SIMD ? 8 : 16;
  const groupBytes = <usize>(step * group), wg = SCRATCH, table = wg + <usize>(step * K), square = table + <usize>(96 * groups);
  for (let u = begin; u < end; u++) {
    const block = u / panels, n = (u - block * panels) * 8, m0 = block * rows, m1 = min<i32>(m0 + rows, M);
    unpackPanel(a, n, wg, table);
    let flagged = 0;
    for (let m = m0; m < m1; m += 4) {
      const t = <usize>(m >> 2), xp = prep + t * tileBytes, xs = scales + (t * <usize>groups << 4), sx = sumsOfX + (t * <usize>groups << 4);
      if (bits == 8) {
        if (planes == 2) tile2s(wg, table, xp, xs, sx, groups, groupBytes, square);
        else tile3s(wg, table, xp, xs, sx, groups, groupBytes, square);
      } else if (narrow) {
        if (planes == 2) tile2n(wg, table, xp, xs, sx, groups, groupBytes, square);
        else tile3n(wg, table, xp, xs, sx, groups, groupBytes, square);
      } else if (planes == 2) tile2(wg, table, xp, xs, sx, groups, groupBytes, square);
      else tile3(wg, table, xp, xs, sx, groups, groupBytes, square);
      storeTile(square, out, outCode, m, n, M, N);
      for (let i = m; i < min<i32>(m + 4, M); i++) flagged |= load<i32>(flags + (<usize>i << 2));
    }
    if (flagged) exactBlockOf(a, flags, m0, m1, n, min<i32>(n + 8, N), 0);
  }
}
`;

const qvm = `
/** Dequantizes the 32 weights at p to float32 at d. */
function dequantizeBlock(bits: i32, p: usize, s: f32, b: f32, d: usize): void {
  natural(bits, p, SCRATCH);
  const sv = f32x4.splat(s), bv = f32x4.splat(b);
  for (let i: usize = 0; i < 32; i += 4) {
    const q = f32x4.convert_i32x4_u(i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(SCRATCH + i))));
    v128.store(d + (i << 2), f32x4.add(f32x4.mul(q, sv), bv));
  }
}

/** Adds x[0 .. depth] times the float32 matrix [depth, 32] at w to the 32 floats at d. */
function rowTimesBlock(x: usize, code: i32, w: usize, depth: i32, d: usize): void {
  ${Array.from({ length: 8 }, (_, i) => `let f${i} = v128.load(d, ${16 * i});`).join("\n  ")}
  const size = <usize>sizeOfCode(code);
  for (let k = 0; k < depth; k++, x += size, w += 128) {
    const v = f32x4.splat(loadAny(code, x));
    ${Array.from({ length: 8 }, (_, i) => `f${i} = f32x4.add(f${i}, f32x4.mul(v, v128.load(w, ${16 * i})));`).join("\n    ")}
  }
  ${Array.from({ length: 8 }, (_, i) => `v128.store(d, f${i}, ${16 * i});`).join("\n  ")}
}

/**
 * Rows of x times packed weights [K, N] (packed along N). Words: the common ones (6: rows of one matrix of x), 15 lhs indices or 0, 16 rhs indices or 0, 17 index pairs,
 * 18 matrices in w, 19 matrices in x, 20 rows of a block. Unit: 32 columns of a block of rows of one pair.
 */
export function qvm(a: usize, begin: i32, end: i32): void {
  const M = load<i32>(a, 24), N = load<i32>(a, 28), K = load<i32>(a, 32), group = load<i32>(a, 36), bits = load<i32>(a, 40);
  const xCode = load<i32>(a, 48), code = load<i32>(a, 52), outCode = load<i32>(a, 56), lhs = load<usize>(a, 60), rhs = load<usize>(a, 64), rows = load<i32>(a, 80);
  const columns = N >> 5, rowBlocks = (M + rows - 1) / rows, xSize = <usize>sizeOfCode(xCode), size = <usize>sizeOfCode(code), outSize = <usize>sizeOfCode(outCode);
  const wr = <usize>(N >> 3) * <usize>bits, sr = <usize>(N / group) * size, xr = <usize>K * xSize;
  const weights = SCRATCH + 64, sums = weights + 128 * 128;
  for (let u = begin; u < end; u++) {
    const c = u % columns, rest = u / columns, m0 = rest % rowBlocks * rows, m1 = min<i32>(m0 + rows, M), pair = rest / rowBlocks;
    const xi = lhs ? <usize>min<u32>(load<u32>(lhs + (<usize>pair << 2)), load<u32>(a, 76) - 1) : <usize>pair;
    const wi = rhs ? <usize>min<u32>(load<u32>(rhs + (<usize>pair << 2)), load<u32>(a, 72) - 1) : 0;
    const x = load<usize>(a, 12) + xi * <usize>M * xr;
    const w = load<usize>(a) + wi * <usize>K * wr + <usize>(4 * bits * c), at = wi * <usize>K * sr + <usize>(32 * c / group) * size;
    const sc = load<usize>(a, 4) + at, bi = load<usize>(a, 8) + at;
    memory.fill(sums, 0, <usize>(m1 - m0) << 7);
    for (let k = 0; k < K; k += 128) {
      const depth = min<i32>(128, K - k);
      for (let i = 0; i < depth; i++) {
        const j = <usize>(k + i);
        dequantizeBlock(bits, w + j * wr, loadAny(code, sc + j * sr), loadAny(code, bi + j * sr), weights + (<usize>i << 7));
      }
      for (let m = m0; m < m1; m++) rowTimesBlock(x + <usize>m * xr + <usize>k * xSize, xCode, weights, depth, sums + (<usize>(m - m0) << 7));
    }
    for (let m = m0; m < m1; m++) {
      const o = load<usize>(a, 20) + ((<usize>pair * <usize>M + <usize>m) * <usize>N + <usize>(32 * c)) * outSize, s = sums + (<usize>(m - m0) << 7);
      for (let i: usize = 0; i < 32; i += 8) storeEight(outCode, o + i * outSize, v128.load(s + (i << 2)), v128.load(s + (i << 2), 16));
    }
  }
}
`;

const packing = `
/** Largest (or smallest) lane; NaN is passed over as std::max does. */
function reduceLanes(v: v128, largest: bool): f32 {
  let r = f32x4.extract_lane(v, 0);
  for (let i = 1; i < 4; i++) {
    v = i8x16.shuffle(v, v, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3);
    const x = f32x4.extract_lane(v, 0);
    if (largest ? r < x : x < r) r = x;
  }
  return r;
}

/** Values of four floats: round((x - bias) / scale), clamped to 0 .. top. */
// @ts-ignore: decorator
@inline
function quantized4(x: v128, bias: v128, scale: v128, top: v128): v128 {
  const q = f32x4.nearest(f32x4.div(f32x4.sub(x, bias), scale));
  return i32x4.trunc_sat_f32x4_u(f32x4.pmin(top, f32x4.pmax(f32x4.splat(0), q)));
}
// @ts-ignore: decorator
@inline
function packLanes(v: v128, bits: u64): u64 {
  return <u64><u32>i32x4.extract_lane(v, 0) | <u64><u32>i32x4.extract_lane(v, 1) << bits | <u64><u32>i32x4.extract_lane(v, 2) << (2 * bits) | <u64><u32>i32x4.extract_lane(v, 3) << (3 * bits);
}

/**
 * Packs groups of floats with MLX's rule: the edge of larger magnitude is exactly representable. Unit: a group.
 * Words: 0 input, 1 packed, 2 scales, 3 biases, 4 group size, 5 bits, 6 dtype code of the input, the scales and the biases.
 */
export function quantize(a: usize, begin: i32, end: i32): void {
  const group = load<i32>(a, 16), bits = load<i32>(a, 20), code = load<i32>(a, 24), size = <usize>sizeOfCode(code);
  const bins = <f32>((1 << bits) - 1), top = f32x4.splat(bins);
  for (let u = begin; u < end; u++) {
    let x = rowF32(load<usize>(a) + <usize>u * <usize>group * size, code, group, SCRATCH), d = load<usize>(a, 4) + <usize>u * <usize>((group >> 3) * bits);
    let hi = f32x4.splat(-Infinity), lo = f32x4.splat(Infinity);
    for (let i = 0; i < group; i += 4) {
      const v = v128.load(x + (<usize>i << 2));
      hi = f32x4.pmax(hi, v);
      lo = f32x4.pmin(lo, v);
    }
    const largest = reduceLanes(hi, true), smallest = reduceLanes(lo, false);
    const low = abs(smallest) > abs(largest);
    let scale: f32 = (largest - smallest) / bins;
    if (scale < 1e-7) scale = 1e-7;
    if (!low) scale = -scale;
    const edge = low ? smallest : largest, steps = nearest(edge / scale);
    let bias: f32 = 0;
    if (steps != 0) {
      scale = edge / steps;
      bias = edge;
    }
    const sv = f32x4.splat(scale), bv = f32x4.splat(bias);
    for (let i = 0; i < group; i += 8, x += 32, d += bits) {
      const word = packLanes(quantized4(v128.load(x), bv, sv, top), bits) | packLanes(quantized4(v128.load(x, 16), bv, sv, top), bits) << (4 * bits);
      for (let b = 0; b < bits; b++) store<u8>(d + b, word >> (8 * b));
    }
    storeOne(code, load<usize>(a, 8) + <usize>u * size, scale);
    storeOne(code, load<usize>(a, 12) + <usize>u * size, bias);
  }
}

/**
 * scale * q + bias, rounded once. Unit: 32 weights.
 * Words: 0 packed, 1 scales, 2 biases, 3 output, 4 group size, 5 bits, 6 dtype code of scales and biases, 7 of the output.
 */
export function dequantize(a: usize, begin: i32, end: i32): void {
  const blocks = load<i32>(a, 16) >> 5, bits = load<i32>(a, 20), code = load<i32>(a, 24), outCode = load<i32>(a, 28), size = <usize>sizeOfCode(code), outSize = <usize>sizeOfCode(outCode);
  const d = SCRATCH + 64;
  for (let u = begin; u < end; u++) {
    const g = <usize>(u / blocks) * size, o = load<usize>(a, 12) + (<usize>u << 5) * outSize;
    dequantizeBlock(bits, load<usize>(a) + <usize>u * <usize>(4 * bits), loadAny(code, load<usize>(a, 4) + g), loadAny(code, load<usize>(a, 8) + g), d);
    for (let i: usize = 0; i < 32; i += 8) storeEight(outCode, o + i * outSize, v128.load(d + (i << 2)), v128.load(d + (i << 2), 16));
  }
}
`;

export const source = (): string => lines(head, widths.map(naturalSource), exact, exactRows, prepareSource(), prepare, qmvSource(), qmv, qmmSource(), qmm, qmmHalfSource(), qvm, packing);
