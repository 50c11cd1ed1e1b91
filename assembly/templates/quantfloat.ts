/**
 * Kernels of the quantization into small floats: mxfp4 (mode 0), nvfp4 (1), mxfp8 (2). A value is scale * code: codes are e2m1 floats of 4 bits or e4m3 floats of 8 bits, a scale
 * belongs to 32 values and is a power of two (e8m0), or to 16 values and is an e4m3 float (nvfp4). Codes lie in the order of the values, the first in the lowest bits.
 */
import { type Planes, lines, range } from "./quant-layout.ts";
import { prepareSource } from "./quant-prepare.ts";

const head = `
import { largestBits, rowF32, sizeOfCode, storeEight, storeLanes, storeOne, storeTile, sumLanes, sum4, sums4, unquantizable } from "./lib/quant";
import { codes16, decode16, decodeScale, encode4, encode8, encodeScale, scaleRow } from "./lib/quantfloat";
import { loadAny, madd } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

/** Values that share a scale. */
// @ts-ignore: decorator
@inline
function groupOf(mode: i32): i32 {
  return mode == 1 ? 16 : 32;
}
/** log2 of the bytes of 32 codes. */
// @ts-ignore: decorator
@inline
function blockShift(mode: i32): i32 {
  return mode == 2 ? 5 : 4;
}
/** Blocks of 32 values in a row; the last one may be half empty. */
// @ts-ignore: decorator
@inline
function blocksOf(K: i32): i32 {
  return (K + 31) >> 5;
}
/** Bytes of a block of integers of a prepared row: the planes, and in the relaxed build a vector of corrections. The same for both builds, so that launches need not know. */
// @ts-ignore: decorator
@inline
function blockBytes(planes: i32): usize {
  return planes == 2 ? 80 : 128;
}
`;

const prepare = `
/** Row m of x as float32 in the scratch area, with zeros up to a multiple of 32 values. */
function paddedRow(x: usize, code: i32, K: i32, d: usize): usize {
  const p = rowF32(x, code, K, d);
  if ((K & 31) == 0) return p;
  if (p != d) memory.copy(d, p, <usize>K << 2);
  memory.fill(d + (<usize>K << 2), 0, 64);
  return d;
}

/**
 * Rows of x as integers, for codes of 4 bits. Unit: a row. Words: 0 x, 1 prepared, 2 rows, 3 K, 4 dtype code of x, 5 planes.
 * Prepared: blocks of 32 values [rows][K / 32]; scales [rows][K / 32] as float32; flags [rows] (1: the row can not become integers).
 */
export function prepare4(a: usize, begin: i32, end: i32): void {
  const M = load<i32>(a, 8), K = load<i32>(a, 12), code = load<i32>(a, 16), planes = load<i32>(a, 20);
  const kind = 4 + planes, blocks = blocksOf(K), block = blockBytes(planes), plane: usize = ASC_FEATURE_RELAXED_SIMD ? 32 : 64;
  const prep = load<usize>(a, 4), scales = prep + <usize>(M * blocks) * block, flags = scales + (<usize>(M * blocks) << 2);
  const top = largest(kind), step: f32 = 1 / top;
  for (let m = begin; m < end; m++) {
    let p = paddedRow(load<usize>(a) + <usize>m * <usize>(K * sizeOfCode(code)), code, K, SCRATCH), d = prep + <usize>(m * blocks) * block, flag = 0;
    for (let b = 0; b < blocks; b++, p += 128, d += block) {
      const bits = largestBits(p, 32);
      const bad = unquantizable(bits), zero = bad || bits == 0;
      if (bad) flag = 1;
      store<f32>(scales + (<usize>(m * blocks + b) << 2), zero ? 0 : reinterpret<f32>(bits) * step);
      groupRow(kind, p, f32x4.splat(zero ? 0 : top / reinterpret<f32>(bits)), d, plane, block, 1);
      if (ASC_FEATURE_RELAXED_SIMD) {
        // Codes come as 0 .. 24, which is 12 too much: the last plane's sums start with what that adds up to.
        const twelve = i8x16.splat(12);
        let sum = i32x4.splat(0);
        for (let q = d, e = d + 32 * <usize>planes; q < e; q += 32) {
          sum = i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(q, 16), twelve, i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(q), twelve, i32x4.shl(sum, 7)));
        }
        v128.store(d + 32 * <usize>planes, i32x4.neg(sum));
      }
    }
    store<i32>(flags + (<usize>m << 2), flag);
  }
}

/**
 * Rows of x as float32, padded with zeros to a multiple of 32 values. Unit: a row. Words: 0 x, 1 prepared, 2 K, 3 dtype code of x, 4 (1: of every 8 values the even ones come
 * first, then the odd ones).
 */
export function prepare32(a: usize, begin: i32, end: i32): void {
  const K = load<i32>(a, 8), code = load<i32>(a, 12), split = load<i32>(a, 16) != 0, padded = <usize>(blocksOf(K) << 7);
  for (let m = begin; m < end; m++) {
    const d = load<usize>(a, 4) + <usize>m * padded, p = paddedRow(load<usize>(a) + <usize>m * <usize>(K * sizeOfCode(code)), code, K, d);
    if (split) {
      for (let i: usize = 0; i < padded; i += 32) {
        const u = v128.load(p + i), v = v128.load(p + i, 16);
        v128.store(d + i, v128.shuffle<f32>(u, v, 0, 2, 4, 6));
        v128.store(d + i, v128.shuffle<f32>(u, v, 1, 3, 5, 7), 16);
      }
    } else if (p != d) memory.copy(d, p, padded);
  }
}
`;

/** Rows of the matrix that are multiplied at a time. */
const rows = [0, 1];

/** Products of the block at w0 and w1 (codes of 4 bits) with the integers at xp: sums of 8 values each in the lanes of d0 and d1. */
function integerBlock(planes: Planes, relaxed: boolean, load: string): string[] {
  const out = rows.flatMap((r) => [`const r${r} = ${load}(w${r});`, `const l${r} = i8x16.${relaxed ? "relaxed_" : ""}swizzle(table, v128.and(r${r}, mask)), h${r} = i8x16.${relaxed ? "relaxed_" : ""}swizzle(table, v128.and(i16x8.shr_u(r${r}, 4), mask));`]);
  if (relaxed) {
    for (const p of range(planes)) {
      const start = p === planes - 1 ? `v128.load(xp, ${32 * planes})` : "i32x4.splat(0)";
      out.push(`const x${p} = v128.load(xp, ${32 * p}), y${p} = v128.load(xp, ${32 * p + 16}), z${p} = ${start};`);
      for (const r of rows) out.push(`const a${r}${p} = i32x4.relaxed_dot_i8x16_i7x16_add_s(y${p}, h${r}, i32x4.relaxed_dot_i8x16_i7x16_add_s(x${p}, l${r}, z${p}));`);
    }
    for (const r of rows) out.push(`const d${r} = ${range(planes).slice(1).reduce((sum, p) => `i32x4.add(i32x4.shl(${sum}, 7), a${r}${p})`, `a${r}0`)};`);
    return out;
  }
  const parts = ["l", "h"];
  for (const r of rows) for (const v of parts) out.push(`const ${v}${r}e = i16x8.shr_s(i16x8.shl(${v}${r}, 8), 8), ${v}${r}o = i16x8.shr_s(${v}${r}, 8);`);
  for (const p of range(planes - 1)) {
    for (const r of rows) {
      const dots = parts.flatMap((v, i) => ["e", "o"].map((o, j) => `i32x4.dot_i16x8_s(v128.load(xp, ${64 * p + 16 * (2 * i + j)}), ${v}${r}${o})`));
      out.push(`const a${r}${p} = i32x4.add(i32x4.add(${dots[0]}, ${dots[1]}), i32x4.add(${dots[2]}, ${dots[3]}));`);
    }
  }
  for (const r of rows) out.push(`const d${r} = ${planes === 2 ? `a${r}0` : `i32x4.add(i32x4.shl(a${r}0, 7), a${r}1)`};`);
  return out;
}

/**
 * \`span4_<planes>\`: outputs of the rows 2 i, half + 2 i, 2 i + 1 and half + 2 i + 1 for i in i0 .. i1 of the codes at w; rows beyond \`last\` stand for the last one.
 * \`list\` holds \`count\` pairs (row of x, row of the output), or is 0 for the identity.
 */
function span4Source(planes: Planes, nv: boolean): string {
  const scale = (r: number): string => (nv ? `v128.shuffle<i32>(v128.load64_zero(t${r}), f0, 0, 0, 1, 1)` : `v128.load_splat<f32>(t${r})`);
  const step = nv ? 8 : 4;
  const block = (relaxed: boolean, load: string): string[] => [
    ...integerBlock(planes, relaxed, load),
    "const xg = v128.load_splat<f32>(xs);",
    ...rows.map((r) => `f${r} = f32x4.add(f${r}, f32x4.mul(f32x4.convert_i32x4_s(d${r}), f32x4.mul(${scale(r)}, xg)));`),
  ];
  const loop = (relaxed: boolean): string[] => [
    `const mask = i8x16.splat(15), table = i8x16(${[0, 1, 2, 3, 4, 6, 8, 12].flatMap((v) => [v]).concat([0, -1, -2, -3, -4, -6, -8, -12]).map((v) => v + (relaxed ? 12 : 0)).join(", ")});`,
    "for (let i = i0; i < i1; i++) {",
    "const n0 = min<i32>(2 * i, last), n1 = min<i32>(half + 2 * i, last), n2 = min<i32>(2 * i + 1, last), n3 = min<i32>(half + 2 * i + 1, last);",
    ...range(4).map((r) => `scaleRow(${nv ? 1 : 0}, sc + <usize>n${r} * sr, <i32>sr, 0.5, SCRATCH + ${r} * tr);`),
    "for (let c = 0; c < count; c++) {",
    "const xr = list ? load<i32>(list + (<usize>c << 3)) : c;",
    "const o = out + <usize>(list ? load<i32>(list + (<usize>c << 3), 4) : c) * outRow;",
    "if (load<i32>(flags + (<usize>xr << 2))) {",
    ...range(4).map((r) => `storeOne(outCode, o + <usize>n${r} * <usize>sizeOfCode(outCode), exact(a, xr, w + <usize>n${r} * wr, sc + <usize>n${r} * sr, SCRATCH + 4 * tr));`),
    "continue;",
    "}",
    "for (let h = 0; h < 2; h++) {",
    "let xp = prep + <usize>(xr * blocks) * size, xs = scales + (<usize>(xr * blocks) << 2), w0 = w + <usize>(h ? n2 : n0) * wr, w1 = w + <usize>(h ? n3 : n1) * wr;",
    "let t0 = SCRATCH + <usize>(2 * h) * tr, t1 = t0 + tr, f0 = f32x4.splat(0), f1 = f0;",
    "for (let b = 0; b < whole; b++) {",
    ...block(relaxed, "v128.load"),
    `w0 += 16; w1 += 16; t0 += ${step}; t1 += ${step}; xs += 4; xp += size;`,
    "}",
    ...(nv ? ["if (whole < blocks) {", ...block(relaxed, "v128.load64_zero"), "}"] : []),
    "const f = lanes + (<usize>h << 5);",
    "v128.store(f, f0); v128.store(f, f1, 16);",
    "}",
    "storeLanes(outCode, o, n0, n1, n2, n3, sums4(v128.load(lanes), v128.load(lanes, 16), v128.load(lanes, 32), v128.load(lanes, 48)));",
    "}",
    "}",
  ];
  return lines(
    `function span4_${planes}${nv ? "n" : ""}(a: usize, w: usize, sc: usize, i0: i32, i1: i32, half: i32, last: i32, list: usize, count: i32): void {`,
    "const prep = load<usize>(a, 12), out = load<usize>(a, 16), M = load<i32>(a, 20), N = load<i32>(a, 24), K = load<i32>(a, 28), outCode = load<i32>(a, 44);",
    `const blocks = blocksOf(K), whole = K >> 5, size = blockBytes(${planes}), wr = <usize>(K >> 1), sr = <usize>(K / ${nv ? 16 : 32}), outRow = <usize>(N * sizeOfCode(outCode));`,
    // A row of scales is written in whole vectors.
    "const scales = prep + <usize>(M * blocks) * size, flags = scales + (<usize>(M * blocks) << 2), tr = (sr + 19 & ~15) << 2;",
    "const lanes = SCRATCH + 4 * tr;",
    "if (ASC_FEATURE_RELAXED_SIMD) {",
    loop(true),
    "} else {",
    loop(false),
    "}",
    "}",
  );
}

/** \`span8\`: the same for codes of 8 bits, with rows of x as float32, even values first. Codes become the upper halves of float32, eight at a time. */
const span8 = `
${lines(
  "function span8(a: usize, w: usize, sc: usize, i0: i32, i1: i32, half: i32, last: i32, list: usize, count: i32): void {",
  "const prep = load<usize>(a, 12), out = load<usize>(a, 16), N = load<i32>(a, 24), K = load<i32>(a, 28), outCode = load<i32>(a, 44);",
  "const blocks = blocksOf(K), wr = <usize>K, sr = <usize>blocks, outRow = <usize>(N * sizeOfCode(outCode)), tr = (sr + 15 & ~15) << 2, lanes = SCRATCH + 4 * tr;",
  "const zero = i64x2.splat(0), keep = i32x4.splat(0x87f087f0), upper = i32x4.splat(0xffff0000), by = f32x4.splat(reinterpret<f32>(0x7b800000));",
  "for (let i = i0; i < i1; i++) {",
  "const n0 = min<i32>(2 * i, last), n1 = min<i32>(half + 2 * i, last), n2 = min<i32>(2 * i + 1, last), n3 = min<i32>(half + 2 * i + 1, last);",
  range(4).map((r) => `scaleRow(2, sc + <usize>n${r} * sr, blocks, 1, SCRATCH + ${r} * tr);`),
  "for (let c = 0; c < count; c++) {",
  "const xr = list ? load<i32>(list + (<usize>c << 3)) : c;",
  "const o = out + <usize>(list ? load<i32>(list + (<usize>c << 3), 4) : c) * outRow;",
  "for (let h = 0; h < 2; h++) {",
  "let x = prep + (<usize>(xr * blocks) << 7), w0 = w + <usize>(h ? n2 : n0) * wr, w1 = w + <usize>(h ? n3 : n1) * wr;",
  "let t0 = SCRATCH + <usize>(2 * h) * tr, t1 = t0 + tr, f0 = f32x4.splat(0), f1 = f0;",
  "for (let b = 0; b < blocks; b++) {",
  "let a0 = f32x4.splat(0), b0 = a0, a1 = a0, b1 = a0;",
  range(2).flatMap((v) => [
    ...rows.map((r) => `const r${r}${v} = v128.load(w${r}, ${16 * v});`),
    ...range(2).flatMap((h) => [
      `const x${v}${h} = v128.load(x, ${64 * v + 32 * h}), y${v}${h} = v128.load(x, ${64 * v + 32 * h + 16});`,
      ...rows.flatMap((r) => {
        const e = `e${r}${v}${h}`;
        return [
          `const ${e} = v128.and(i16x8.shr_s(i8x16.shuffle(zero, r${r}${v}, ${range(8).flatMap((k) => [8 * h + k, 16 + 8 * h + k]).join(", ")}), 4), keep);`,
          `a${r} = madd(f32x4.mul(i32x4.shl(${e}, 16), by), x${v}${h}, a${r}); b${r} = madd(f32x4.mul(v128.and(${e}, upper), by), y${v}${h}, b${r});`,
        ];
      }),
    ]),
  ]),
  rows.map((r) => `f${r} = f32x4.add(f${r}, f32x4.mul(f32x4.add(a${r}, b${r}), v128.load_splat<f32>(t${r})));`),
  "w0 += 32; w1 += 32; t0 += 4; t1 += 4; x += 128;",
  "}",
  "const f = lanes + (<usize>h << 5);",
  "v128.store(f, f0); v128.store(f, f1, 16);",
  "}",
  "storeLanes(outCode, o, n0, n1, n2, n3, sums4(v128.load(lanes), v128.load(lanes, 16), v128.load(lanes, 32), v128.load(lanes, 48)));",
  "}",
  "}",
  "}",
)}`;

const qmv = `
// Words that the kernels of products share: 0 codes, 1 scales, 2 x, 3 prepared x, 4 output, 5 rows of x, 6 N, 7 K, 8 mode, 9 planes, 10 dtype code of x, 11 of the output.

/** Row xr of x times the row of codes at w, value by value in float32: for rows with values that integers can not hold. */
function exact(a: usize, xr: i32, w: usize, sc: usize, d: usize): f32 {
  const K = load<i32>(a, 28), mode = load<i32>(a, 32), code = load<i32>(a, 40), group = groupOf(mode);
  let x = rowF32(load<usize>(a, 8) + <usize>xr * <usize>(K * sizeOfCode(code)), code, K, d + 64), acc = f32x4.splat(0), s: f32 = 0;
  for (let k = 0; k < K; k += 16, x += 64, w += mode == 2 ? 16 : 8) {
    if (k % group == 0) s = decodeScale(mode, sc++);
    decode16(mode, w, s, d);
    for (let i: usize = 0; i < 64; i += 16) acc = f32x4.add(acc, f32x4.mul(v128.load(d + i), v128.load(x + i)));
  }
  return sum4(acc);
}

function span(a: usize, w: usize, sc: usize, i0: i32, i1: i32, half: i32, last: i32, list: usize, count: i32): void {
  const mode = load<i32>(a, 32), planes = load<i32>(a, 36);
  if (mode == 2) span8(a, w, sc, i0, i1, half, last, list, count);
  else if (mode == 1 && planes == 2) span4_2n(a, w, sc, i0, i1, half, last, list, count);
  else if (mode == 1) span4_3n(a, w, sc, i0, i1, half, last, list, count);
  else if (planes == 2) span4_2(a, w, sc, i0, i1, half, last, list, count);
  else span4_3(a, w, sc, i0, i1, half, last, list, count);
}

/** Few rows of x times the transpose of codes [N, K]. Unit i: columns 2 i, 2 i + 1 and the two that lie 2 * ceil(N / 4) further on. */
export function qmv(a: usize, begin: i32, end: i32): void {
  const N = load<i32>(a, 24);
  span(a, load<usize>(a), load<usize>(a, 4), begin, end, ((N + 3) >> 2) << 1, N - 1, 0, load<i32>(a, 20));
}

/**
 * Rows of x times the transpose of the codes of their expert, by the plan of quantized/gatherPlan. Words: the shared ones, 12 plan, 13 most experts in use,
 * 14 columns of a block (a multiple of 4). Unit: a block of columns of one expert in use.
 */
export function gatherQmv(a: usize, begin: i32, end: i32): void {
  const N = load<i32>(a, 24), K = load<i32>(a, 28), mode = load<i32>(a, 32), plan = load<usize>(a, 48), most = load<i32>(a, 52), columns = load<i32>(a, 56);
  const used = load<i32>(plan), blocks = (N + columns - 1) / columns;
  const wBytes = <usize>N * <usize>(mode == 2 ? K : K >> 1), sBytes = <usize>N * <usize>(K / groupOf(mode));
  for (let u = begin; u < end; u++) {
    const r = u / blocks;
    if (r >= used) return;
    const run = plan + 16 + (<usize>r << 4), e = <usize>load<i32>(run);
    const first = (u - r * blocks) * columns, last = min<i32>(first + columns, N) - 1, quarter = (last - first + 4) >> 2;
    const list = plan + 16 + (<usize>most << 4) + (<usize>load<i32>(run, 4) << 3);
    span(a, load<usize>(a) + e * wBytes, load<usize>(a, 4) + e * sBytes, first >> 1, (first >> 1) + quarter, 2 * quarter, last, list, load<i32>(run, 8));
  }
}
`;

const tileRows = range(4);
const each = (f: (m: number, n: number) => string): string[] => tileRows.flatMap((m) => [0, 1].map((n) => f(m, n)));

const qmm = `
/** Eight rows of codes from n on (beyond N: the last one again) as float32, interleaved: [K, padded to 32][8]. Needs 1 KiB at t. */
function unpackPanel(a: usize, n: i32, d: usize, t: usize): void {
  const N = load<i32>(a, 24), K = load<i32>(a, 28), mode = load<i32>(a, 32), group = groupOf(mode), bytes: usize = mode == 2 ? 16 : 8;
  const wr = <usize>(mode == 2 ? K : K >> 1), sr = <usize>(K / group), blocks = blocksOf(K);
  for (let b = 0; b < blocks; b++, d += 1024) {
    for (let r = 0; r < 8; r++) {
      const row = <usize>min<i32>(n + r, N - 1);
      for (let h = 0; h < 2; h++) {
        const k = 32 * b + 16 * h, to = t + <usize>(128 * r + 64 * h);
        if (k < K) decode16(mode, load<usize>(a) + row * wr + <usize>(k >> 4) * bytes, decodeScale(mode, load<usize>(a, 4) + row * sr + <usize>(k / group)), to);
        else memory.fill(to, 0, 64);
      }
    }
    for (let h: usize = 0; h < 2; h++) {
      for (let k: usize = 0; k < 32; k += 4) {
        const s = t + 512 * h + 4 * k, o = d + 32 * k + 16 * h;
        const p = v128.load(s), q = v128.load(s, 128), u = v128.load(s, 256), v = v128.load(s, 384);
        const pq = v128.shuffle<i32>(p, q, 0, 4, 1, 5), uv = v128.shuffle<i32>(u, v, 0, 4, 1, 5), rs = v128.shuffle<i32>(p, q, 2, 6, 3, 7), xy = v128.shuffle<i32>(u, v, 2, 6, 3, 7);
        v128.store(o, v128.shuffle<i64>(pq, uv, 0, 2));
        v128.store(o, v128.shuffle<i64>(pq, uv, 1, 3), 32);
        v128.store(o, v128.shuffle<i64>(rs, xy, 0, 2), 64);
        v128.store(o, v128.shuffle<i64>(rs, xy, 1, 3), 96);
      }
    }
  }
}

/** Four rows of float32 x by a panel of K rows of 8 columns, to the 4 x 8 floats at d. */
function tile(x0: usize, x1: usize, x2: usize, x3: usize, panel: usize, K: i32, d: usize): void {
  ${each((m, n) => `let f${m}${n} = f32x4.splat(0);`).join(" ")}
  for (const e = panel + (<usize>K << 5); panel < e; panel += 64) {
    ${range(2)
      .flatMap((u) => [
        `const w${u}0 = v128.load(panel, ${32 * u}), w${u}1 = v128.load(panel, ${32 * u + 16});`,
        ...tileRows.flatMap((m) => [`const v${u}${m} = v128.load_splat<f32>(x${m}, ${4 * u});`, ...[0, 1].map((n) => `f${m}${n} = madd(v${u}${m}, w${u}${n}, f${m}${n});`)]),
      ])
      .join("\n    ")}
    ${tileRows.map((m) => `x${m} += 8;`).join(" ")}
  }
  ${each((m, n) => `v128.store(d, f${m}${n}, ${m * 32 + n * 16});`).join(" ")}
}

/** Rows of float32 x (prepare32) times the transpose of codes [N, K]. Words: the shared ones, 12 rows of x per block (a multiple of 4). Unit: 8 columns of a block of rows. */
export function qmm(a: usize, begin: i32, end: i32): void {
  const M = load<i32>(a, 20), N = load<i32>(a, 24), blocks = blocksOf(load<i32>(a, 28)), outCode = load<i32>(a, 44), rows = load<i32>(a, 48);
  const panels = (N + 7) >> 3, K = blocks << 5, row = <usize>K << 2, panel = SCRATCH + 1152, square = SCRATCH + 1024;
  for (let u = begin; u < end; u++) {
    const block = u / panels, n = (u - block * panels) * 8, m0 = block * rows, m1 = min<i32>(m0 + rows, M);
    unpackPanel(a, n, panel, SCRATCH);
    for (let m = m0; m < m1; m += 4) {
      const x = load<usize>(a, 12), l = M - 1;
      tile(x + <usize>m * row, x + <usize>min<i32>(m + 1, l) * row, x + <usize>min<i32>(m + 2, l) * row, x + <usize>min<i32>(m + 3, l) * row, panel, K, square);
      storeTile(square, load<usize>(a, 16), outCode, m, n, M, N);
    }
  }
}
`;

const eight = range(8);
const qvm = `
/** Adds x[0 .. depth] times the float32 matrix [depth, 32] at w to the 32 floats at d. */
function rowTimesBlock(x: usize, code: i32, w: usize, depth: i32, d: usize): void {
  ${eight.map((i) => `let f${i} = v128.load(d, ${16 * i});`).join(" ")}
  const size = <usize>sizeOfCode(code);
  for (let k = 0; k < depth; k++, x += size, w += 128) {
    const v = f32x4.splat(loadAny(code, x));
    ${eight.map((i) => `f${i} = madd(v, v128.load(w, ${16 * i}), f${i});`).join(" ")}
  }
  ${eight.map((i) => `v128.store(d, f${i}, ${16 * i});`).join(" ")}
}

/**
 * Rows of x times codes [K, N] (packed along N). Words: the shared ones (5: rows of one matrix of x), 12 lhs indices or 0, 13 rhs indices or 0, 14 index pairs, 15 matrices in w,
 * 16 matrices in x, 17 rows of a block. Unit: 32 columns (the last ones may be 16) of a block of rows of one pair.
 */
export function qvm(a: usize, begin: i32, end: i32): void {
  const M = load<i32>(a, 20), N = load<i32>(a, 24), K = load<i32>(a, 28), mode = load<i32>(a, 32), xCode = load<i32>(a, 40), outCode = load<i32>(a, 44);
  const lhs = load<usize>(a, 48), rhs = load<usize>(a, 52), rows = load<i32>(a, 68), group = groupOf(mode), bytes: usize = mode == 2 ? 16 : 8;
  const columns = blocksOf(N), rowBlocks = (M + rows - 1) / rows, outSize = <usize>sizeOfCode(outCode), wr = <usize>(N >> 4) * bytes, sr = <usize>(N / group), xr = <usize>(K * sizeOfCode(xCode));
  const weights = SCRATCH, sums = weights + 128 * 128;
  for (let u = begin; u < end; u++) {
    const c = u % columns, rest = u / columns, m0 = rest % rowBlocks * rows, m1 = min<i32>(m0 + rows, M), pair = rest / rowBlocks, n = 32 * c, width = min<i32>(32, N - n);
    const xi = lhs ? <usize>min<u32>(load<u32>(lhs + (<usize>pair << 2)), load<u32>(a, 64) - 1) : <usize>pair;
    const wi = rhs ? <usize>min<u32>(load<u32>(rhs + (<usize>pair << 2)), load<u32>(a, 60) - 1) : 0;
    const x = load<usize>(a, 8) + xi * <usize>M * xr, w = load<usize>(a) + wi * <usize>K * wr + <usize>(n >> 4) * bytes, sc = load<usize>(a, 4) + wi * <usize>K * sr + <usize>(n / group);
    memory.fill(sums, 0, <usize>(m1 - m0) << 7);
    for (let k = 0; k < K; k += 128) {
      const depth = min<i32>(128, K - k);
      for (let i = 0; i < depth; i++) {
        const p = w + <usize>(k + i) * wr, s = sc + <usize>(k + i) * sr, d = weights + (<usize>i << 7);
        const scale = decodeScale(mode, s);
        decode16(mode, p, scale, d);
        if (width == 32) decode16(mode, p + bytes, mode == 1 ? decodeScale(mode, s + 1) : scale, d + 64);
        else memory.fill(d + 64, 0, 64);
      }
      for (let m = m0; m < m1; m++) rowTimesBlock(x + <usize>m * xr + <usize>(k * sizeOfCode(xCode)), xCode, weights, depth, sums + (<usize>(m - m0) << 7));
    }
    for (let m = m0; m < m1; m++) {
      const o = load<usize>(a, 16) + ((<usize>pair * <usize>M + <usize>m) * <usize>N + <usize>n) * outSize, s = sums + (<usize>(m - m0) << 7);
      for (let i = 0; i < width; i += 8) storeEight(outCode, o + <usize>i * outSize, v128.load(s + (<usize>i << 2)), v128.load(s + (<usize>i << 2), 16));
    }
  }
}
`;

const packing = `
/**
 * Codes and scales of groups of floats. Unit: a group. Words: 0 input, 1 codes, 2 scales, 3 the global scale or 0, 4 mode, 5 dtype code of the input.
 */
export function quantize(a: usize, begin: i32, end: i32): void {
  const mode = load<i32>(a, 16), code = load<i32>(a, 20), group = groupOf(mode), global = load<usize>(a, 12), bytes: usize = mode == 2 ? 16 : 8;
  const enc: f32 = global ? 2688 / load<f32>(global) : 1, top: f32 = mode == 2 ? 448 : 6;
  for (let u = begin; u < end; u++) {
    let x = rowF32(load<usize>(a) + <usize>u * <usize>(group * sizeOfCode(code)), code, group, SCRATCH), most: f32 = 0;
    // NaN does not count.
    for (let i = 0; i < group; i++) {
      const v = abs(load<f32>(x + (<usize>i << 2)));
      if (v > most) most = v;
    }
    const q = encodeScale(mode, most / top * enc);
    store<u8>(load<usize>(a, 8) + <usize>u, q);
    const s = decodeScale(mode, load<usize>(a, 8) + <usize>u), by = f32x4.splat(s == 0 ? 0 : enc / s);
    for (let i = 0, d = load<usize>(a, 4) + (<usize>(u * group) >> (mode == 2 ? 0 : 1)); i < group; i += 16, x += 64, d += bytes) {
      const p = f32x4.mul(v128.load(x), by), r = f32x4.mul(v128.load(x, 16), by), t = f32x4.mul(v128.load(x, 32), by), v = f32x4.mul(v128.load(x, 48), by);
      if (mode == 2) {
        v128.store(d, codes16(encode8(p), encode8(r), encode8(t), encode8(v)));
      } else {
        const c = codes16(encode4(p), encode4(r), encode4(t), encode4(v));
        v128.store64_lane(d, i8x16.narrow_i16x8_u(v128.and(v128.or(c, i16x8.shr_u(c, 4)), i16x8.splat(255)), c), 0);
      }
    }
  }
}

/** scale * code, rounded once. Unit: a group. Words: 0 codes, 1 scales, 2 the global scale or 0, 3 output, 4 mode, 5 dtype code of the output. */
export function dequantize(a: usize, begin: i32, end: i32): void {
  const mode = load<i32>(a, 16), code = load<i32>(a, 20), group = groupOf(mode), global = load<usize>(a, 8), bytes: usize = mode == 2 ? 16 : 8, size = <usize>sizeOfCode(code);
  const by: f32 = global ? load<f32>(global) / 2688 : 1;
  for (let u = begin; u < end; u++) {
    const s = decodeScale(mode, load<usize>(a, 4) + <usize>u) * by;
    let w = load<usize>(a) + (<usize>(u * group) >> (mode == 2 ? 0 : 1)), o = load<usize>(a, 12) + <usize>(u * group) * size;
    for (let i = 0; i < group; i += 16, w += bytes, o += 16 * size) {
      decode16(mode, w, s, SCRATCH);
      for (let j: usize = 0; j < 16; j += 8) storeEight(code, o + j * size, v128.load(SCRATCH + (j << 2)), v128.load(SCRATCH + (j << 2), 16));
    }
  }
}
`;

export const source = (): string =>
  lines(head, prepareSource([1]), prepare, ([2, 3] as const).flatMap((planes) => [span4Source(planes, false), span4Source(planes, true)]), span8, qmv, qmm, qvm, packing);
