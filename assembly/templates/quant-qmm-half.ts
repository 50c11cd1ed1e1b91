/**
 * Matrix-matrix kernels whose integers lie in 16-bit lanes: products and their sums in pairs are one instruction in either build. 16 weight rows are unpacked for some groups at a
 * time, so that they and 4 rows of activations stay in the first-level cache, and the sums wait in the scratch area.
 */
import { type Bits, type Planes, halfConstants, lines, range, unpackHalves, widths } from "./quant-layout.ts";

/** Stores four vectors (one per row, a lane per step) as four steps of four rows. */
function transposed(names: readonly string[], t: string, put: (lane: number, value: string) => string): string[] {
  const [a, b, c, d] = names as [string, string, string, string];
  return ["0, 4, 1, 5", "2, 6, 3, 7"].flatMap((lanes, h) => [
    `const ${t}${h}a = v128.shuffle<i32>(${a}, ${b}, ${lanes}), ${t}${h}b = v128.shuffle<i32>(${c}, ${d}, ${lanes});`,
    ...[0, 1].map((l) => put(2 * h + l, `v128.shuffle<i64>(${t}${h}a, ${t}${h}b, ${l}, ${l + 2})`)),
  ]);
}
const store = (step: number, value: string): string => `v128.store(d, ${value}, ${32 * step});`;

/** 4- and 8-bit weights are unpacked within 32-bit lanes, so whole words change places first. */
function wordPanel(bits: 4 | 8): string[] {
  return range(bits / 4).flatMap((j) => {
    const raws = range(4).map((r) => `r${j}${r}`);
    const out = raws.map((name, r) => `const ${name} = v128.load(p${r}, ${16 * j});`);
    out.push(...transposed(raws, `t${j}`, (l, value) => `const v${j}${l} = ${value};`));
    for (const l of range(4)) {
      const v = `v${j}${l}`;
      const parts =
        bits === 4
          ? [`v128.and(${v}, mask)`, `v128.and(i16x8.shr_u(${v}, 8), mask)`, `v128.and(i16x8.shr_u(${v}, 4), mask)`, `i16x8.shr_u(${v}, 12)`]
          : [`i16x8.shr_s(i16x8.shl(v128.xor(${v}, sign), 8), 8)`, `i16x8.shr_s(v128.xor(${v}, sign), 8)`];
      parts.forEach((value, i) => out.push(store(4 * (parts.length * j + i) + l, value)));
    }
    return out;
  });
}
/** The other widths: rows are unpacked one by one. */
function rowPanel(bits: Bits): string[] {
  const names = ["a", "b", "c", "e"];
  const rows = range(4).flatMap((r) => unpackHalves(bits, `p${r}`, 0, names.map((n) => `${n}${r}`)));
  return [...rows, ...names.flatMap((n, v) => transposed(range(4).map((r) => `${n}${r}`), `${n}t`, (l, value) => store(4 * v + l, value)))];
}
/** `halfPanel<bits>(p0, p1, p2, p3, d, K)`: four weight rows into half of a list of steps of 32 bytes; a step holds two values of each of 8 rows. */
const panelSource = (bits: Bits): string =>
  lines(
    `function halfPanel${bits}(p0: usize, p1: usize, p2: usize, p3: usize, d: usize, K: i32): void {`,
    halfConstants(bits),
    "for (let k = 0; k < K; k += 32) {",
    bits === 4 || bits === 8 ? wordPanel(bits) : rowPanel(bits),
    range(4).map((r) => `p${r} += ${4 * bits};`).join(" "),
    "d += 512;",
    "}",
    "}",
  );

const tileRows = range(4);
/** Steps of the panel in one pass of the innermost loop. */
const unrolled = 8;

/** Products of one plane of a group; `vectors` of 4 columns. The rows' addresses differ in constants that do not grow: V8 keeps them in registers. */
function planeLoop(vectors: number): string[] {
  const out = [`for (const e = w + groupBytes; w < e; w += ${32 * unrolled}) {`];
  for (const u of range(unrolled)) {
    const x = u ? `x${u}` : "x";
    if (u) out.push(`const x${u} = x + ${16 * u};`);
    for (const n of range(vectors)) out.push(`const c${u}${n} = v128.load(${n < 2 ? "w" : "v"}, ${u * 32 + (n & 1) * 16});`);
    for (const m of tileRows) {
      out.push(`const r${u}${m} = v128.load_splat<u32>(${x}, ${m * 4});`);
      for (const n of range(vectors)) out.push(`a${m}${n} = i32x4.add(a${m}${n}, i32x4.dot_i16x8_s(r${u}${m}, c${u}${n}));`);
    }
  }
  out.push(`x += ${16 * unrolled};`);
  if (vectors > 2) out.push(`v += ${32 * unrolled};`);
  return [...out, "}"];
}

/**
 * `halfTile<planes><columns>(w, v, table, x, xs, sx, groups, groupBytes, d)`: adds 4 rows of x times 8 or 16 weight rows, over some groups, to the float32 at d (4 x 8 each 8
 * columns). v: the steps of the second 8 rows; their scales follow those of the first.
 */
function tileSource(planes: Planes, vectors: 2 | 4): string {
  const each = (f: (m: number, n: number) => string): string[] => tileRows.flatMap((m) => range(vectors).map((n) => f(m, n)));
  const at = (m: number, n: number): number => (n >> 1) * 128 + m * 32 + (n & 1) * 16;
  const scaled = (first: boolean): string[] =>
    each((m, n) => {
      const t = `f32x4.mul(s${n}, ${planes === 3 && first ? `f32x4.mul(q${m}, f32x4.splat(128))` : `q${m}`})`;
      return `f${m}${n} = f32x4.add(f${m}${n}, f32x4.mul(f32x4.convert_i32x4_s(a${m}${n}), ${t}));`;
    });
  const terms = (name: string, offset: number): string => `const ${range(vectors).map((n) => `${name}${n} = v128.load(table, ${(n >> 1) * 64 + (n & 1) * 16 + offset})`).join(", ")};`;
  return lines(
    `function halfTile${planes}${vectors === 2 ? "" : "p"}(w: usize, v: usize, table: usize, x: usize, xs: usize, sx: usize, groups: i32, groupBytes: usize, d: usize): void {`,
    each((m, n) => `let f${m}${n} = v128.load(d, ${at(m, n)});`),
    "for (let g = 0; g < groups; g++) {",
    each((m, n) => `let a${m}${n} = i32x4.splat(0);`),
    planes === 3 ? ["const w0 = w;", vectors > 2 ? "const v0 = v;" : ""] : [],
    planeLoop(vectors),
    terms("s", 0),
    tileRows.map((m) => `const q${m} = v128.load_splat<f32>(xs, ${m * 4}), y${m} = v128.load_splat<f32>(sx, ${m * 4});`),
    scaled(true),
    planes === 3 ? ["w = w0;", vectors > 2 ? "v = v0;" : "", ...each((m, n) => `a${m}${n} = i32x4.splat(0);`), ...planeLoop(vectors), ...scaled(false)] : [],
    terms("b", 32),
    each((m, n) => `f${m}${n} = f32x4.add(f${m}${n}, f32x4.mul(b${n}, y${m}));`),
    "table += 128; xs += 16; sx += 16;",
    "}",
    each((m, n) => `v128.store(d, f${m}${n}, ${at(m, n)});`),
    "}",
  );
}

const kernel = `
/** Adds rows m.. and columns n.. of the M x N array at c to the 4 x 8 float32 tile at t. */
function addToTile(t: usize, c: usize, code: i32, m: i32, n: i32, M: i32, N: i32): void {
  const size = <usize>sizeOfCode(code), rows = min<i32>(4, M - m), columns = min<i32>(8, N - n);
  for (let i = 0; i < rows; i++, t += 32) {
    const p = c + (<usize>(m + i) * <usize>N + <usize>n) * size;
    if (columns == 8 && code == 12) {
      v128.store(t, f32x4.add(v128.load(t), load4<u16>(p)));
      v128.store(t, f32x4.add(v128.load(t, 16), load4<u16>(p + 8)), 16);
    } else if (columns == 8 && code == 10) {
      v128.store(t, f32x4.add(v128.load(t), v128.load(p)));
      v128.store(t, f32x4.add(v128.load(t, 16), v128.load(p, 16)), 16);
    } else for (let j: usize = 0; j < <usize>columns; j++) store<f32>(t + (j << 2), load<f32>(t + (j << 2)) + loadAny(code, p + j * size));
  }
}

/** Unpacks k0 .. k0 + depth of the 16 weight rows from n on (beyond N: the last one again), 8 by 8, and their scales and biases (128 bytes a group). */
function unpackHalfPanel(a: usize, n: i32, k0: i32, depth: i32, d: usize, table: usize): void {
  const w = load<usize>(a), N = load<i32>(a, 28), K = load<i32>(a, 32), group = load<i32>(a, 36), bits = load<i32>(a, 40), code = load<i32>(a, 52);
  const wr = <usize>(K >> 3) * <usize>bits, size = <usize>sizeOfCode(code), sr = <usize>(K / group) * size;
  const first = w + <usize>(k0 >> 3) * <usize>bits, groups = depth / group;
  for (let h = 0; h < 4; h++) {
    const i = n + 4 * h, p = first + <usize>min<i32>(i, N - 1) * wr, q = first + <usize>min<i32>(i + 1, N - 1) * wr;
    const r = first + <usize>min<i32>(i + 2, N - 1) * wr, s = first + <usize>min<i32>(i + 3, N - 1) * wr;
    halfPanel(bits, p, q, r, s, d + <usize>((h >> 1) * 16 * depth + (h & 1) * 16), depth);
  }
  const shift: f32 = bits == 8 ? 128 : 0;
  for (let r = 0; r < 16; r++) {
    const row = <usize>min<i32>(n + r, N - 1) * sr + <usize>(k0 / group) * size;
    let sp = load<usize>(a, 4) + row, bp = load<usize>(a, 8) + row, t = table + <usize>(4 * r + 32 * (r >> 3));
    for (let g = 0; g < groups; g++, sp += size, bp += size, t += 128) {
      const s = loadAny(code, sp);
      store<f32>(t, s);
      store<f32>(t, loadAny(code, bp) + shift * s, 32);
    }
  }
}

/**
 * As qmm, with integers in 16-bit lanes (prepared with word 8 set). Words: the common ones, 15 rows of x per block (a multiple of 4), 16 whether vectors are paired, 17 an array like the
 * output that is added before it is rounded, or 0.
 * Unit: a panel of 16 columns for one block of rows; panels of a block follow each other.
 */
export function qmmHalf(a: usize, begin: i32, end: i32): void {
  const prep = load<usize>(a, 16), out = load<usize>(a, 20), M = load<i32>(a, 24), N = load<i32>(a, 28), K = load<i32>(a, 32), group = load<i32>(a, 36);
  const planes = load<i32>(a, 44), outCode = load<i32>(a, 56), rows = load<i32>(a, 60), paired = load<i32>(a, 64) != 0, c = load<usize>(a, 68);
  const groups = K / group, panels = (N + 15) >> 4, tiles = (M + 3) >> 2, tileBytes = <usize>(4 * planeBytes(K, planes)), xGroup = <usize>(4 * planeBytes(group, planes));
  const scales = prep + <usize>tiles * tileBytes, sumsOfX = scales + (<usize>(tiles * groups) << 4), flags = sumsOfX + (<usize>(tiles * groups) << 4);
  const depth = max<i32>(512 / group, 1) * group, groupBytes = <usize>(16 * group);
  const w = SCRATCH, table = w + <usize>(32 * depth), sums = table + 2048;
  for (let u = begin; u < end; u++) {
    const block = u / panels, n = (u - block * panels) * 16, m0 = block * rows, m1 = min<i32>(m0 + rows, M), second = n + 8 < N;
    memory.fill(sums, 0, <usize>(m1 - m0 + 3) << 6);
    for (let k = 0; k < K; k += depth) {
      const length = min<i32>(depth, K - k), count = length / group, g = <usize>(k / group), v = w + <usize>(16 * length);
      unpackHalfPanel(a, n, k, length, w, table);
      let d = sums;
      for (let m = m0; m < m1; m += 4, d += 256) {
        const t = <usize>(m >> 2), x = prep + t * tileBytes + g * xGroup, xs = scales + (t * <usize>groups + g << 4), sx = sumsOfX + (t * <usize>groups + g << 4);
        if (paired) {
          if (planes == 2) halfTile2p(w, v, table, x, xs, sx, count, groupBytes, d);
          else halfTile3p(w, v, table, x, xs, sx, count, groupBytes, d);
        } else if (planes == 2) {
          halfTile2(w, 0, table, x, xs, sx, count, groupBytes, d);
          if (second) halfTile2(v, 0, table + 64, x, xs, sx, count, groupBytes, d + 128);
        } else {
          halfTile3(w, 0, table, x, xs, sx, count, groupBytes, d);
          if (second) halfTile3(v, 0, table + 64, x, xs, sx, count, groupBytes, d + 128);
        }
      }
    }
    let flagged = 0, d = sums;
    for (let m = m0; m < m1; m += 4, d += 256) {
      if (c) {
        addToTile(d, c, outCode, m, n, M, N);
        if (second) addToTile(d + 128, c, outCode, m, n + 8, M, N);
      }
      storeTile(d, out, outCode, m, n, M, N);
      if (second) storeTile(d + 128, out, outCode, m, n + 8, M, N);
      for (let i = m; i < min<i32>(m + 4, M); i++) flagged |= load<i32>(flags + (<usize>i << 2));
    }
    if (flagged) exactBlockOf(a, flags, m0, m1, n, min<i32>(n + 16, N), c);
  }
}
`;

export const qmmHalfSource = (): string =>
  lines(
    widths.map(panelSource),
    "function halfPanel(bits: i32, p0: usize, p1: usize, p2: usize, p3: usize, d: usize, K: i32): void {",
    "switch (bits) {",
    widths.map((b) => `case ${b}: halfPanel${b}(p0, p1, p2, p3, d, K); break;`),
    "}",
    "}",
    ([2, 3] as const).flatMap((p) => ([2, 4] as const).map((v) => tileSource(p, v))),
    kernel,
  );
