/** Products with few rows on the left: every element of the right operand is read once, in order. See gemm.ts. */
import { hoist, hoisted, type Kind, kinds, load8, range } from "./gemm-common.ts";

/**
 * Dot products of ROWS float32 rows (xs bytes apart) with two rows of the matrix that lie far apart: two long streams keep the
 * hardware prefetchers busy where neighbouring rows do not. Sums go to res: [matrix row][x row].
 */
function dots(rows: number, kind: Kind): string {
  // One row alone needs several sums per stream to hide the latency of the addition.
  const parts = rows === 1 ? 4 : rows === 2 ? 2 : 1;
  const step = rows === 1 ? 16 : 8;
  const each = (f: (s: number, i: number, j: number) => string): string => range(2).flatMap((s) => range(rows).flatMap((i) => range(parts).map((j) => f(s, i, j)))).join("");
  let body = "";
  for (let h = 0; h < step; h += 8) {
    for (const s of range(2)) {
      body += `    ${load8(kind, `w${s}${h}l`, `w${s}${h}h`, h ? `w${s} + ${h * kind.bytes}` : `w${s}`, rows === 1 ? hoisted : undefined)}\n`;
      for (const i of range(rows)) {
        const [p0, p1] = [(h / 4) % parts, (h / 4 + 1) % parts];
        const x = i === 0 ? "x" : `x${i}`;
        body += `    s${s}${i}${p0} = madd(v128.load(${x}, ${h * 4}), w${s}${h}l, s${s}${i}${p0}); s${s}${i}${p1} = madd(v128.load(${x}, ${h * 4 + 16}), w${s}${h}h, s${s}${i}${p1});\n`;
      }
    }
  }
  const rest = range(rows).slice(1);
  return `
function dot${rows}_${kind.name}(x: usize, xs: usize, w0: usize, w1: usize, K: i32, res: usize): void {
${rows === 1 ? hoist(kind) : ""}${rest.map((i) => `  let x${i} = x + xs * ${i};\n`).join("")}${each((s, i, j) => `  let s${s}${i}${j} = f32x4.splat(0);\n`)}  let k = 0;
  for (; k + ${step} <= K; k += ${step}) {
${body}    w0 += ${step * kind.bytes}; w1 += ${step * kind.bytes}; x += ${step * 4};${rest.map((i) => ` x${i} += ${step * 4};`).join("")}
  }
${range(2).flatMap((s) => range(rows).map((i) => `  let t${s}${i} = sum4(${range(parts).map((j) => `s${s}${i}${j}`).reduce((p, q) => `f32x4.add(${p}, ${q})`)});\n`)).join("")}
  for (; k < K; k++) {
    let b0 = load1<${kind.type}>(w0), b1 = load1<${kind.type}>(w1);
${range(rows).map((i) => `    let v${i} = load<f32>(${i === 0 ? "x" : `x${i}`}); t0${i} += v${i} * b0; t1${i} += v${i} * b1;\n`).join("")}    w0 += ${kind.bytes}; w1 += ${kind.bytes}; x += 4;${rest.map((i) => ` x${i} += 4;`).join("")}
  }
${range(2).flatMap((s) => range(rows).map((i) => `  store<f32>(res, t${s}${i}, ${(s * 4 + i) * 4});\n`)).join("")}}
`;
}

const dispatch = `
function dots(rows: i32, x: usize, xs: usize, w0: usize, w1: usize, K: i32, dtype: i32): void {
${kinds.map((k) => `  if (dtype == ${k.code}) {
    if (rows == 1) dot1_${k.name}(x, xs, w0, w1, K, SCRATCH);
    else if (rows == 2) dot2_${k.name}(x, xs, w0, w1, K, SCRATCH);
    else if (rows == 3) dot3_${k.name}(x, xs, w0, w1, K, SCRATCH);
    else dot4_${k.name}(x, xs, w0, w1, K, SCRATCH);
  }
`).join("")}}
`;

/** acc[0 .. n) += x0 * row w0 [+ x1 * row w1 + ...]: `rows` rows of the matrix at once, so that acc is loaded and stored once for all of them. */
function axpys(rows: number, kind: Kind): string {
  const names = range(rows);
  return `
function axpy${rows}_${kind.name}(acc: usize, x: usize, w: usize, ws: i32, n: i32): void {
${hoist(kind)}  let ${names.map((i) => `w${i} = w + ws * ${i}`).join(", ")};
  let ${names.map((i) => `x${i} = v128.load_splat<f32>(x, ${i * 4})`).join(", ")};
  for (; n >= 8; n -= 8) {
    let lo = v128.load(acc), hi = v128.load(acc, 16);
${names.map((i) => `    ${load8(kind, `v${i}l`, `v${i}h`, `w${i}`, hoisted)} lo = madd(x${i}, v${i}l, lo); hi = madd(x${i}, v${i}h, hi); w${i} += ${8 * kind.bytes};\n`).join("")}    v128.store(acc, lo); v128.store(acc, hi, 16);
    acc += 32;
  }
  for (; n > 0; n--, acc += 4) {
    let t = load<f32>(acc);
${names.map((i) => `    t += load<f32>(x, ${i * 4}) * load1<${kind.type}>(w${i}); w${i} += ${kind.bytes};\n`).join("")}    store<f32>(acc, t);
  }
}
`;
}

const kernels = `
/**
 * Copies matrices as float32 rows without gaps. Units: rows of all matrices. Words: 0 source, 1 destination, 2 dtype, 3 rows of a matrix, 4 K,
 * 5 row stride, 6 k stride (elements), 7 ... dimensions of the matrices.
 */
export function rows(a: usize, begin: i32, end: i32): void {
  let dtype = load<i32>(a, 8), M = load<i32>(a, 12), K = load<i32>(a, 16), shift = shiftOf(dtype), sm = load<i32>(a, 20) << shift, sk = load<i32>(a, 24) << shift;
  for (let u = begin; u < end; u++) {
    let g = u / M, p = load<usize>(a) + (offsetOf(a + 28, g) << shift) + (u - g * M) * sm;
    let d = load<usize>(a, 4) + (<usize>u * <usize>K << 2), k = 0;
    if (sk == 1 << shift) for (; k + 8 <= K; k += 8, p += 8 << shift, d += 32) widen8(p, dtype, d);
    for (; k < K; k++, p += sk, d += 4) store<f32>(d, loadAny(dtype, p));
  }
}

/**
 * out = alpha * (x times matrix) + beta * c for a matrix whose N rows run along k. One layout of words for dot, dotRuns and axpy:
 * 0 x (float32, k stride 1), 1 matrix, 2 out, 3 c or 0, 4 dtype, 5 rows of x, 6 N, 7 K, 8 row stride of x, 9 row stride of the matrix (axpy: k stride),
 * 10 row stride, 11 column stride and 12 matrix stride of out, 13 alpha, 14 beta, 15 row stride and 16 column stride of c,
 * 17 index list of the matrices or 0, 18 number of matrices behind it, 19 index list of x or 0, 20 number of matrices behind it,
 * 21, 22, 23 words before the dimensions of x, of the matrices and of c, 24 units of one matrix (ceil(N / 2); axpy: column blocks), 25 matrices of out (axpy: columns of a block). All strides in elements.
 * Units: matrices of out times pairs of rows (i, i + ceil(N / 2)).
 */
export function dot(a: usize, begin: i32, end: i32): void {
  let half = load<i32>(a, 96);
  for (let u = begin; u < end; ) {
    let g = u / half, i = u - g * half, e = min(half, i + end - u);
    dotBlock(a, xOf(a, g), load<i32>(a, 32) << 2, load<i32>(a, 20), g, load<i32>(a, 40), i, e);
    u += e - i;
  }
}
/**
 * As dot with one row of x per matrix of out, and the index list decides which matrix: neighbours that use the same one share its read.
 * Units: pairs of rows.
 */
export function dotRuns(a: usize, begin: i32, end: i32): void {
  let entries = load<i32>(a, 100), list = load<usize>(a, 68), limit = load<u32>(a, 72);
  for (let g = 0; g < entries; ) {
    let x = xOf(a, g), which = chosen(list, limit, g), n = 1, step: i32 = 0;
    for (; g + n < entries && chosen(list, limit, g + n) == which; n++) {
      let next = <i32>(xOf(a, g + n) - x);
      if (n == 1) step = next;
      else if (next != step * n) break;
    }
    dotBlock(a, x, step, n, g, load<i32>(a, 48), begin, end);
    g += n;
  }
}
function xOf(a: usize, g: u32): usize {
  return load<usize>(a) + (offsetOf(a + (load<usize>(a, 84) << 2), chosen(load<usize>(a, 76), load<u32>(a, 80), g)) << 2);
}
/** All rows of x (\`m\` of them, xs bytes apart) with the row pairs i .. e; outputs of neighbouring x rows are \`os\` elements apart. */
function dotBlock(a: usize, x: usize, xs: i32, m: i32, g: i32, os: i32, i: i32, e: i32): void {
  let dtype = load<i32>(a, 16), shift = shiftOf(dtype), N = load<i32>(a, 24), K = load<i32>(a, 28), half = load<i32>(a, 96);
  let ws = load<i32>(a, 36) << shift, on = load<i32>(a, 44) << shift, c = load<usize>(a, 12);
  let w = load<usize>(a, 4) + (offsetOf(a + (load<usize>(a, 88) << 2), chosen(load<usize>(a, 68), load<u32>(a, 72), g)) << shift);
  let out = load<usize>(a, 8) + ((<usize>g * load<usize>(a, 48)) << shift);
  let cm = load<i32>(a, 60) << shift, cn = load<i32>(a, 64) << shift;
  if (c) c += offsetOf(a + (load<usize>(a, 92) << 2), g) << shift;
  // Four rows of x and a few of the matrix stay in the first-level cache while they meet.
  for (let i0 = i; i0 < e; i0 += 4) for (let r = 0; r < m; r += 4) for (i = i0; i < min(e, i0 + 4); i++) {
    let two = i + half < N, far = two ? i + half : i, n = min(4, m - r);
    dots(n, x + r * xs, xs, w + i * ws, w + far * ws, K, dtype);
    for (let q = 0; q < n; q++) {
      let o = out + ((r + q) * os << shift), cq = c ? c + (r + q) * cm : 0;
      put(o + i * on, dtype, blend(a, load<f32>(SCRATCH + (q << 2)), cq ? cq + i * cn : 0, dtype));
      if (two) put(o + far * on, dtype, blend(a, load<f32>(SCRATCH + (q << 2), 16), cq ? cq + far * cn : 0, dtype));
    }
  }
}
// @ts-ignore: decorator
@inline function blend(a: usize, v: f32, c: usize, dtype: i32): f32 {
  v *= load<f32>(a, 52);
  return c ? v + load<f32>(a, 56) * loadAny(dtype, c) : v;
}

/** As dot, for a matrix [K, N] whose rows run along n. Units: matrices of out times column blocks. */
export function axpy(a: usize, begin: i32, end: i32): void {
  let dtype = load<i32>(a, 16), shift = shiftOf(dtype), M = load<i32>(a, 20), N = load<i32>(a, 24), K = load<i32>(a, 28), blocks = load<i32>(a, 96), NB = load<i32>(a, 100);
  let ws = load<i32>(a, 36) << shift, om = load<i32>(a, 40) << shift, on = load<i32>(a, 44) << shift, cm = load<i32>(a, 60) << shift, cn = load<i32>(a, 64) << shift;
  for (let u = begin; u < end; u++) {
    let g = u / blocks, n0 = (u - g * blocks) * NB, n = min(NB, N - n0), x = xOf(a, g), xs = load<i32>(a, 32) << 2;
    let w = load<usize>(a, 4) + (offsetOf(a + (load<usize>(a, 88) << 2), chosen(load<usize>(a, 68), load<u32>(a, 72), g)) << shift) + (n0 << shift);
    memory.fill(SCRATCH, 0, <usize>(M * NB) << 2);
    let k = 0;
    for (; k + 4 <= K; k += 4, w += ws << 2) for (let m = 0; m < M; m++) axpy4(SCRATCH + (m * NB << 2), x + m * xs + (k << 2), w, ws, n, dtype);
    for (; k < K; k++, w += ws) for (let m = 0; m < M; m++) axpy1(SCRATCH + (m * NB << 2), x + m * xs + (k << 2), w, ws, n, dtype);
    let c = load<usize>(a, 12);
    if (c) c += (offsetOf(a + (load<usize>(a, 92) << 2), g) << shift) + n0 * cn;
    let out = load<usize>(a, 8) + ((<usize>g * load<usize>(a, 48)) << shift) + n0 * on;
    for (let m = 0; m < M; m++, out += om) for (let i = 0; i < n; i++) {
      put(out + i * on, dtype, blend(a, load<f32>(SCRATCH + ((m * NB + i) << 2)), c ? c + m * cm + i * cn : 0, dtype));
    }
  }
}
${[1, 4].map((r) => `function axpy${r}(acc: usize, x: usize, w: usize, ws: i32, n: i32, dtype: i32): void {
  if (dtype == 10) axpy${r}_f32(acc, x, w, ws, n); else if (dtype == 12) axpy${r}_bf16(acc, x, w, ws, n); else axpy${r}_f16(acc, x, w, ws, n);
}
`).join("")}`;

export const rowsSource = (): string =>
  kinds.flatMap((k) => [1, 2, 3, 4].map((r) => dots(r, k))).join("") + dispatch + kinds.flatMap((k) => [1, 4].map((r) => axpys(r, k))).join("") + kernels;
