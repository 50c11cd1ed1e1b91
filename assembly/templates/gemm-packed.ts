/** Packed GEMM: both operands are copied into panels that the register tile reads in order. See gemm.ts. */
import { type Kind, kinds, range } from "./gemm-common.ts";

/** Element types of the arithmetic: float32 for f32, bf16 and f16 operands; float64 for itself. */
interface Math {
  /** Appended to exported names. */
  readonly suffix: "" | "64";
  readonly scalar: "f32" | "f64";
  readonly bytes: 4 | 8;
  /** Columns of a tile: two vectors. */
  readonly columns: 8 | 4;
}
const single: Math = { suffix: "", scalar: "f32", bytes: 4, columns: 8 };
const double: Math = { suffix: "64", scalar: "f64", bytes: 8, columns: 4 };
/** k unrolling of the tile; panels are padded with zeros to a multiple. */
const unroll = 4;

/** Four rows of float32 `r0..r3` (4 values of k each) become four vectors `t0..t3`, one per k. */
const transpose4 = (r: readonly string[], t: readonly string[], id: string): string => `
      let ${id}a = v128.shuffle<i32>(${r[0]}, ${r[1]}, 0, 4, 1, 5), ${id}b = v128.shuffle<i32>(${r[2]}, ${r[3]}, 0, 4, 1, 5), ${id}c = v128.shuffle<i32>(${r[0]}, ${r[1]}, 2, 6, 3, 7), ${id}d = v128.shuffle<i32>(${r[2]}, ${r[3]}, 2, 6, 3, 7);
      let ${t[0]} = v128.shuffle<i64>(${id}a, ${id}b, 0, 2), ${t[1]} = v128.shuffle<i64>(${id}a, ${id}b, 1, 3), ${t[2]} = v128.shuffle<i64>(${id}c, ${id}d, 0, 2), ${t[3]} = v128.shuffle<i64>(${id}c, ${id}d, 1, 3);`;

/** Body of the loop over 4 values of k in `rows` rows that run along k; `at(i)` is the address in row i. */
export function alongK(rows: number, kind: Kind, at = (i: number): string => `p + sr * ${i}`): string {
  let s = range(rows).map((i) => `      let r${i} = load4<${kind.type}>(${at(i)});\n`).join("");
  for (let g = 0; g + 4 <= rows; g += 4) {
    s += transpose4([`r${g}`, `r${g + 1}`, `r${g + 2}`, `r${g + 3}`], range(4).map((k) => `t${g}${k}`), `q${g}`);
    for (const k of range(4)) s += `\n      v128.store(d, t${g}${k}, ${(k * rows + g) * 4});`;
  }
  if (rows % 4 === 2) {
    const [x, y] = [`r${rows - 2}`, `r${rows - 1}`];
    s += `\n      let u0 = v128.shuffle<i32>(${x}, ${y}, 0, 4, 1, 5), u1 = v128.shuffle<i32>(${x}, ${y}, 2, 6, 3, 7);`;
    for (const k of range(4)) s += `\n      v128.store64_lane(d, u${k >> 1}, ${k & 1}, ${(k * rows + rows - 2) * 4});`;
  }
  return s;
}

/** Body of the loop over k for rows that lie next to each other. */
function alongRows(rows: number, kind: Kind): string {
  let s = range(rows >> 2).map((g) => `      v128.store(d, load4<${kind.type}>(p + ${g * 4 * kind.bytes}), ${g * 16});\n`).join("");
  for (let i = rows & ~3; i < rows; i++) s += `      store<f32>(d, load1<${kind.type}>(p + ${i * kind.bytes}), ${i * 4});\n`;
  return s;
}

/** Copies \`w\` rows (at most ROWS) of K values into a panel [kp][ROWS]; missing rows and k beyond K become zero. Strides in bytes. */
const panel = (rows: number, kind: Kind): string => `
function panel${rows}_${kind.name}(src: usize, d: usize, w: i32, K: i32, kp: i32, sr: i32, sk: i32): void {
  let p = src, k = 0;
  if (w == ${rows}) {
    if (sk == ${kind.bytes}) for (; k + 4 <= K; k += 4) {
${alongK(rows, kind)}
      p += ${4 * kind.bytes}; d += ${16 * rows};
    }
    else if (sr == ${kind.bytes}) for (; k < K; k++) {
${alongRows(rows, kind)}      p += sk; d += ${4 * rows};
    }
  }
  for (; k < K; k++, p += sk) for (let i = 0; i < ${rows}; i++, d += 4) store<f32>(d, i < w ? load1<${kind.type}>(p + i * sr) : 0);
  for (; k < kp; k++) for (let i = 0; i < ${rows}; i++, d += 4) store<f32>(d, 0);
}
`;
const panels = (rows: number): string => `${kinds.map((k) => panel(rows, k)).join("")}
function panel${rows}(src: usize, d: usize, w: i32, K: i32, kp: i32, sr: i32, sk: i32, dtype: i32): void {
  if (dtype == 10) panel${rows}_f32(src, d, w, K, kp, sr, sk);
  else if (dtype == 12) panel${rows}_bf16(src, d, w, K, kp, sr, sk);
  else panel${rows}_f16(src, d, w, K, kp, sr, sk);
}
`;

const panel64 = `
function panel4_64(src: usize, d: usize, w: i32, K: i32, kp: i32, sr: i32, sk: i32, dtype: i32): void {
  let p = src, k = 0;
  if (w == 4 && sk == 8) for (; k + 2 <= K; k += 2) {
    let r0 = v128.load(p), r1 = v128.load(p + sr), r2 = v128.load(p + sr * 2), r3 = v128.load(p + sr * 3);
    v128.store(d, v128.shuffle<i64>(r0, r1, 0, 2)); v128.store(d, v128.shuffle<i64>(r2, r3, 0, 2), 16);
    v128.store(d, v128.shuffle<i64>(r0, r1, 1, 3), 32); v128.store(d, v128.shuffle<i64>(r2, r3, 1, 3), 48);
    p += 16; d += 64;
  }
  for (; k < K; k++, p += sk) for (let i = 0; i < 4; i++, d += 8) store<f64>(d, i < w ? load<f64>(p + i * sr) : 0);
  for (; k < kp; k++) for (let i = 0; i < 4; i++, d += 8) store<f64>(d, 0);
}
`;

/** Register tile: c[ROWS][columns] (+)= panel a times panel b over kc values of k. */
function tile(rows: number, m: Math, fused: boolean): string {
  const v = `${m.scalar}x${m.columns / 2}`;
  const acc = (op: (i: number, j: number) => string): string => range(rows).map((i) => `  ${[0, 1].map((j) => op(i, j)).join(" ")}\n`).join("");
  const product = (x: string, y: string, c: string): string => (fused ? `${v}.relaxed_madd(${x}, ${y}, ${c})` : `${v}.add(${v}.mul(${x}, ${y}), ${c})`);
  let body = "";
  for (const u of range(unroll)) {
    body += `    let b${u}0 = v128.load(b, ${u * 32}), b${u}1 = v128.load(b, ${u * 32 + 16});\n`;
    for (const i of range(rows)) {
      body += `    let a${u}${i} = v128.load_splat<${m.scalar}>(a, ${(u * rows + i) * m.bytes});\n`;
      body += `    c${i}0 = ${product(`a${u}${i}`, `b${u}0`, `c${i}0`)}; c${i}1 = ${product(`a${u}${i}`, `b${u}1`, `c${i}1`)};\n`;
    }
  }
  return `
function tile${rows}${m.suffix}(a: usize, b: usize, c: usize, kc: i32, first: bool): void {
${acc((i, j) => `let c${i}${j} = ${v}.splat(0);`)}  for (let e = b + (<usize>kc << 5); b < e; b += ${unroll * 32}) {
${body}    a += ${unroll * rows * m.bytes};
  }
  if (!first) {
${acc((i, j) => `  c${i}${j} = ${v}.add(c${i}${j}, v128.load(c, ${(i * 2 + j) * 16}));`)}  }
${acc((i, j) => `v128.store(c, c${i}${j}, ${(i * 2 + j) * 16});`)}}
`;
}

/** `pack` and `gemm` for one arithmetic. TILE rows: 6 with fused multiply-add in the relaxed build, else 4. */
const kernels = (m: Math): string => {
  const shift = m.bytes === 4 ? 2 : 3;
  const tileRows = m.suffix ? "4" : "(ASC_FEATURE_RELAXED_SIMD ? 6 : 4)";
  const packA = m.suffix ? "panel4_64(p, d, w, K, kp, sm, sk, dtype);" : "if (ASC_FEATURE_RELAXED_SIMD) panel6(p, d, w, K, kp, sm, sk, dtype); else panel4(p, d, w, K, kp, sm, sk, dtype);";
  const packB = m.suffix ? "panel4_64" : "panel8";
  const run = m.suffix ? "tile464(ap, bp, cp, kc, k0 == 0);" : "if (ASC_FEATURE_RELAXED_SIMD) tile6(ap, bp, cp, kc, k0 == 0); else tile4(ap, bp, cp, kc, k0 == 0);";
  return `
/**
 * Copies the left operand into panels of TILE rows: [matrix][12-row group][panel][kp][TILE], kp = K rounded up to ${unroll}.
 * Units: matrices times groups of 12 rows. Words: 0 source, 1 destination, 2 dtype, 3 rows, 4 K, 5 row stride, 6 k stride (elements),
 * 7 groups per matrix, 8 first matrix, 9 index list or 0, 10 number of matrices behind the list, 11 ... dimensions of the source's matrices.
 */
export function pack${m.suffix}(a: usize, begin: i32, end: i32): void {
  const TILE: i32 = ${tileRows};
  let src = load<usize>(a), dst = load<usize>(a, 4), dtype = load<i32>(a, 8), rows = load<i32>(a, 12), K = load<i32>(a, 16);
  let shift = shiftOf(dtype), sm = load<i32>(a, 20) << shift, sk = load<i32>(a, 24) << shift, groups = load<i32>(a, 28);
  let kp = (K + ${unroll - 1}) & ${-unroll};
  for (let u = begin; u < end; u++) {
    let g = u / groups, r = (u - g * groups) * 12;
    let matrix = chosen(load<usize>(a, 36), load<u32>(a, 40), g + load<i32>(a, 32));
    let p = src + (offsetOf(a + 44, matrix) << shift) + r * sm;
    let d = dst + ((<usize>u * 12 * <usize>kp) << ${shift});
    for (let e = min(rows, r + 12); r < e; r += TILE) {
      let w = min(TILE, rows - r);
      ${packA}
      p += TILE * sm; d += <usize>(TILE * kp) << ${shift};
    }
  }
}

/**
 * out = alpha * (packed left operand times right operand) + beta * c, rounded once; elements of a row of out are neighbours.
 * Units: matrices times column blocks times row blocks. Words: 0 packed left operand, 1 right operand, 2 out, 3 c or 0, 4 dtype, 5 rows, 6 N, 7 K,
 * 8 first row, 9 rows of a block (multiple of 12), 10 columns of a block (multiple of 8), 11 k stride and 12 column stride of the right operand,
 * 13 alpha, 14 beta, 15 row stride and 16 column stride of c, 17 first matrix, 18 bytes between packed matrices, 19 index list of the right operand or 0,
 * 20 number of matrices behind it, 21 elements between matrices of out, 22 words before c's dimensions, 23 k of a block, 24 row stride of out, 25 ... dimensions of the right operand's matrices.
 */
export function gemm${m.suffix}(a: usize, begin: i32, end: i32): void {
  const TILE: i32 = ${tileRows};
  let dtype = load<i32>(a, 16), rows = load<i32>(a, 20), N = load<i32>(a, 24), K = load<i32>(a, 28);
  let RB = load<i32>(a, 36), NB = load<i32>(a, 40), KC = load<i32>(a, 92);
  let shift = shiftOf(dtype), sk = load<i32>(a, 44) << shift, sn = load<i32>(a, 48) << shift;
  let rowBlocks = (rows + RB - 1) / RB, colBlocks = (N + NB - 1) / NB, kp = (K + ${unroll - 1}) & ${-unroll};
  let bPanels = SCRATCH + 4096, acc = bPanels + (<usize>(KC * NB) << ${shift});
  for (let u = begin; u < end; u++) {
    let rb = u % rowBlocks, cb = (u / rowBlocks) % colBlocks, g = u / (rowBlocks * colBlocks);
    let r0 = rb * RB, n0 = cb * NB, nr = min(RB, rows - r0), nc = min(NB, N - n0), across = (nc + ${m.columns - 1}) / ${m.columns};
    let matrix = g + load<i32>(a, 68);
    let left = load<usize>(a) + <usize>g * load<usize>(a, 72) + ((<usize>r0 * <usize>kp) << ${shift});
    let right = load<usize>(a, 4) + (offsetOf(a + 100, chosen(load<usize>(a, 76), load<u32>(a, 80), matrix)) << shift) + n0 * sn;
    if (K == 0) memory.fill(acc, 0, <usize>((nr + 11) / 12 * 12 * across) << 5);
    for (let k0 = 0; k0 < K; k0 += KC) {
      let kIn = min(KC, K - k0), kc = (kIn + ${unroll - 1}) & ${-unroll};
      for (let j = 0; j < across; j++) ${packB}(right + k0 * sk + j * ${m.columns} * sn, bPanels + (<usize>(j * kc) << 5), min(${m.columns}, nc - j * ${m.columns}), kIn, kc, sn, sk, dtype);
      let ap = left + (<usize>(k0 * TILE) << ${shift}), cp = acc;
      for (let r = 0; r < nr; r += TILE) {
        for (let bp = bPanels, e = bPanels + (<usize>(across * kc) << 5); bp < e; bp += <usize>kc << 5) {
          ${run}
          cp += TILE * 32;
        }
        ap += <usize>(TILE * kp) << ${shift};
      }
    }
    finish${m.suffix}(a, acc, matrix, load<i32>(a, 32) + r0, n0, nr, nc, TILE);
  }
}

/** Writes a block of finished sums (tiles [row panel][column panel][TILE][${m.columns}]) to the output. */
function finish${m.suffix}(a: usize, acc: usize, matrix: i32, row: i32, n0: i32, nr: i32, nc: i32, TILE: i32): void {
  let dtype = load<i32>(a, 16), shift = shiftOf(dtype), pitch = load<i32>(a, 96), c = load<usize>(a, 12), across = (nc + ${m.columns - 1}) / ${m.columns};
  let alpha = load<f32>(a, 52), cm = load<i32>(a, 60) << shift, cn = load<i32>(a, 64) << shift;
  if (c) c += (offsetOf(a + (load<usize>(a, 88) << 2), matrix) << shift) + row * cm + n0 * cn;
  let out = load<usize>(a, 8) + ((<usize>matrix * load<usize>(a, 84) + <usize>row * <usize>pitch + <usize>n0) << shift);
  for (let r = 0; r < nr; r++, out += <usize>pitch << shift) {
    let from = acc + ((r / TILE * across) * TILE + r % TILE) * 32;
    for (let j = 0; j < nc; j += ${m.columns}, from += TILE * 32) {
      let w = min(${m.columns}, nc - j);
      if (c) plus${m.suffix}(from, alpha, load<f32>(a, 56), c + r * cm + j * cn, cn, w, dtype);
      else if (alpha != 1) plus${m.suffix}(from, alpha, 0, 0, 0, w, dtype);
      ${m.suffix ? "for (let i = 0; i < w; i++) store<f64>(out + ((j + i) << 3), load<f64>(from + (i << 3)));" : `if (w == 8) put8(out + (j << shift), dtype, v128.load(from), v128.load(from, 16));
      else for (let i = 0; i < w; i++) put(out + ((j + i) << shift), dtype, load<f32>(from + (i << 2)));`}
    }
  }
}
`;
};

const plus = `
/** 8 sums at \`p\` become alpha * sum + beta * c; \`cn\` is c's column stride in bytes. No c: its address is 0. */
function plus(p: usize, alpha: f32, beta: f32, c: usize, cn: i32, w: i32, dtype: i32): void {
  let v0 = f32x4.mul(v128.load(p), f32x4.splat(alpha)), v1 = f32x4.mul(v128.load(p, 16), f32x4.splat(alpha));
  if (c) {
    let b = f32x4.splat(beta);
    if (w == 8 && cn == 1 << shiftOf(dtype)) widen8(c, dtype, SCRATCH);
    else for (let i = 0; i < w; i++) store<f32>(SCRATCH + (i << 2), loadAny(dtype, c + i * cn));
    v0 = f32x4.add(v0, f32x4.mul(b, v128.load(SCRATCH)));
    v1 = f32x4.add(v1, f32x4.mul(b, v128.load(SCRATCH, 16)));
  }
  v128.store(p, v0); v128.store(p, v1, 16);
}
function plus64(p: usize, alpha: f32, beta: f32, c: usize, cn: i32, w: i32, dtype: i32): void {
  for (let i = 0; i < w; i++) {
    let v = <f64>alpha * load<f64>(p + (i << 3));
    store<f64>(p + (i << 3), c ? v + <f64>beta * load<f64>(c + i * cn) : v);
  }
}
`;

/** Register tile of `direct`: c[rows][8] = rows of a, `sr` bytes apart, times panel b over kc values of k; rows of c are `pitch` bytes apart. Rows behind `last` repeat it. */
function rowTile(rows: number, fused: boolean): string {
  const each = (op: (i: number) => string): string => range(rows).map((i) => `  ${op(i)}\n`).join("");
  const product = (x: string, y: string, c: string): string => (fused ? `f32x4.relaxed_madd(${x}, ${y}, ${c})` : `f32x4.add(f32x4.mul(${x}, ${y}), ${c})`);
  let body = "";
  for (const u of range(unroll)) {
    body += `    let b${u}0 = v128.load(b, ${u * 32}), b${u}1 = v128.load(b, ${u * 32 + 16});\n`;
    for (const i of range(rows)) body += `    let a${u}${i} = v128.load_splat<f32>(p${i}, ${u * 4}); c${i}0 = ${product(`a${u}${i}`, `b${u}0`, `c${i}0`)}; c${i}1 = ${product(`a${u}${i}`, `b${u}1`, `c${i}1`)};\n`;
  }
  return `
function rowTile${rows}(a: usize, sr: i32, last: i32, b: usize, c: usize, kc: i32, pitch: i32): void {
${each((i) => `let p${i} = a + ${i === 0 ? "0" : `sr * min(${i}, last)`}, c${i}0 = f32x4.splat(0), c${i}1 = f32x4.splat(0);`)}  for (let e = b + (<usize>kc << 5); b < e; b += ${unroll * 32}) {
${body}    ${range(rows).map((i) => `p${i} += ${unroll * 4};`).join(" ")}
  }
${each((i) => `v128.store(c, c${i}0); v128.store(c, c${i}1, 16); c += pitch;`)}}
`;
}

/** As `rowTile` for a left operand whose k are `sa` bytes apart and whose rows are neighbours; adds to c when this is not the first run of k. */
function columnTile(rows: number, fused: boolean): string {
  const each = (op: (i: number) => string): string => range(rows).map((i) => `  ${op(i)}\n`).join("");
  const product = (x: string, y: string, c: string): string => (fused ? `f32x4.relaxed_madd(${x}, ${y}, ${c})` : `f32x4.add(f32x4.mul(${x}, ${y}), ${c})`);
  let body = "";
  for (const u of range(unroll)) {
    body += `    let b${u}0 = v128.load(b, ${u * 32}), b${u}1 = v128.load(b, ${u * 32 + 16});\n`;
    for (const i of range(rows)) body += `    let a${u}${i} = v128.load_splat<f32>(a, ${i * 4}); c${i}0 = ${product(`a${u}${i}`, `b${u}0`, `c${i}0`)}; c${i}1 = ${product(`a${u}${i}`, `b${u}1`, `c${i}1`)};\n`;
    body += "    a += sa;\n";
  }
  return `
function columnTile${rows}(a: usize, sa: i32, b: usize, c: usize, kc: i32, pitch: i32, first: bool): void {
${each((i) => `let c${i}0 = f32x4.splat(0), c${i}1 = f32x4.splat(0);`)}  for (let e = b + (<usize>kc << 5); b < e; b += ${unroll * 32}) {
${body}  }
  if (!first) {
    let p = c;
${each((i) => `  c${i}0 = f32x4.add(c${i}0, v128.load(p)); c${i}1 = f32x4.add(c${i}1, v128.load(p, 16)); p += pitch;`)}  }
${each((i) => `v128.store(c, c${i}0); v128.store(c, c${i}1, 16); c += pitch;`)}}
`;
}

/** Where the direct products keep a tile that lies over the edge of out, a panel of left rows (at most 256 k of 6), and behind them panels of the right operand. */
const places = { corner: "(SCRATCH + 4096)", edge: "(SCRATCH + 4352)", right: "(SCRATCH + 12544)" } as const;
/** Products that do not pack the left operand, which is read where it lies; sums are written where they belong. */
const direct = `
/**
 * out = left operand times right operand, all float32; K is a multiple of ${unroll}.
 * Units and words as \`gemm\`, but word 0 is the left operand as it lies, a row of which has its elements next to each other, and word 18 the bytes between its rows;
 * one matrix, no c, no alpha.
 */
export function direct(a: usize, begin: i32, end: i32): void {
  const TILE: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 4;
  let rows = load<i32>(a, 20), N = load<i32>(a, 24), K = load<i32>(a, 28), RB = load<i32>(a, 36), NB = load<i32>(a, 40);
  let sk = load<i32>(a, 44) << 2, sn = load<i32>(a, 48) << 2, sr = load<i32>(a, 72), pitch = load<i32>(a, 96) << 2, rowBlocks = (rows + RB - 1) / RB;
  for (let u = begin; u < end; u++) {
    let rb = u % rowBlocks, r0 = rb * RB, n0 = u / rowBlocks * NB, nr = min(RB, rows - r0), nc = min(NB, N - n0);
    let right = load<usize>(a, 4) + n0 * sn, left = load<usize>(a) + <usize>r0 * sr, out = load<usize>(a, 8) + <usize>r0 * pitch + (<usize>n0 << 2);
    for (let j = 0; j < nc; j += 8) panel8_f32(right + j * sn, ${places.right} + (<usize>(j * K) << 2), min(8, nc - j), K, K, sn, sk);
    for (let r = 0; r < nr; r += TILE, left += TILE * sr, out += TILE * pitch) {
      let h = min(TILE, nr - r);
      for (let j = 0; j < nc; j += 8) {
        let w = min(8, nc - j), whole = h == TILE && w == 8, c = out + (j << 2), b = ${places.right} + (<usize>(j * K) << 2);
        let to = whole ? c : ${places.corner}, step = whole ? pitch : 32;
        if (ASC_FEATURE_RELAXED_SIMD) rowTile6(left, sr, h - 1, b, to, K, step); else rowTile4(left, sr, h - 1, b, to, K, step);
        if (!whole) for (let i = 0; i < h; i++, c += pitch) memory.copy(c, ${places.corner} + (i << 5), w << 2);
      }
    }
  }
}

/** Adds the first \`w\` elements of \`h\` rows of the corner to rows at \`c\`, or writes them there. */
function putCorner(c: usize, h: i32, w: i32, pitch: i32, first: bool): void {
  for (let i = 0; i < h; i++, c += pitch) for (let x = 0; x < w << 2; x += 4) {
    let v = load<f32>(${places.corner} + (i << 5) + x);
    store<f32>(c + x, first ? v : v + load<f32>(c + x));
  }
}

/** As \`direct\` for a left operand that is stored transposed: its rows are neighbours and word 18 is the bytes between its k. Any K that is a multiple of ${unroll}, in runs of word 23. */
export function directColumns(a: usize, begin: i32, end: i32): void {
  const TILE: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 4;
  let rows = load<i32>(a, 20), N = load<i32>(a, 24), K = load<i32>(a, 28), RB = load<i32>(a, 36), NB = load<i32>(a, 40), KC = load<i32>(a, 92);
  let sk = load<i32>(a, 44) << 2, sn = load<i32>(a, 48) << 2, sa = load<i32>(a, 72), pitch = load<i32>(a, 96) << 2, rowBlocks = (rows + RB - 1) / RB;
  for (let u = begin; u < end; u++) {
    let rb = u % rowBlocks, r0 = rb * RB, n0 = u / rowBlocks * NB, nr = min(RB, rows - r0), nc = min(NB, N - n0);
    for (let k0 = 0; k0 < K; k0 += KC) {
      let kc = min(KC, K - k0), first = k0 == 0;
      let right = load<usize>(a, 4) + n0 * sn + k0 * sk, left = load<usize>(a) + (<usize>r0 << 2) + <usize>k0 * sa, out = load<usize>(a, 8) + <usize>r0 * pitch + (<usize>n0 << 2);
      for (let j = 0; j < nc; j += 8) panel8_f32(right + j * sn, ${places.right} + (<usize>(j * kc) << 2), min(8, nc - j), kc, kc, sn, sk);
      for (let r = 0; r < nr; r += TILE, left += TILE << 2, out += TILE * pitch) {
        let h = min(TILE, nr - r), from = left, step = sa;
        if (h < TILE) {
          if (ASC_FEATURE_RELAXED_SIMD) panel6_f32(left, ${places.edge}, h, kc, kc, 4, sa); else panel4_f32(left, ${places.edge}, h, kc, kc, 4, sa);
          from = ${places.edge}; step = TILE << 2;
        }
        for (let j = 0; j < nc; j += 8) {
          let w = min(8, nc - j), whole = h == TILE && w == 8, c = out + (j << 2), b = ${places.right} + (<usize>(j * kc) << 2);
          let to = whole ? c : ${places.corner}, apart = whole ? pitch : 32;
          if (ASC_FEATURE_RELAXED_SIMD) columnTile6(from, step, b, to, kc, apart, first || !whole); else columnTile4(from, step, b, to, kc, apart, first || !whole);
          if (!whole) putCorner(c, h, w, pitch, first);
        }
      }
    }
  }
}
`;

export const packedSource = (): string =>
  panels(4) + panels(6) + panels(8) + panel64 + tile(4, single, false) + tile(6, single, true) + tile(4, double, false) + plus + kernels(single) + kernels(double) + rowTile(4, false) + rowTile(6, true) + columnTile(4, false) + columnTile(6, true) + direct;
