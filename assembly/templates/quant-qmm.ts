/** Matrix-matrix kernels: 8 weight rows are unpacked once into a panel, then multiplied with tiles of 4 rows of activations. */
import { type Bits, type Planes, byteConstants, halfConstants, lines, range, unpackBytes, unpackHalves, widths } from "./quant-layout.ts";

/**
 * `panel<bits>(p0, p1, p2, p3, d, K)`: unpacks four weight rows into half of a panel. A panel is a list of steps of 32 bytes; a step holds, for each of the 8
 * rows, the weights that lie in one 32-bit lane of an unpacked vector (4 bytes, or 2 16-bit values in the plain build).
 */
function panelSource(bits: Bits): string {
  const body = (names: readonly string[], unpack: typeof unpackBytes): string[] => {
    const out: string[] = [];
    for (const r of range(4)) out.push(...unpack(bits, `p${r}`, 0, names.map((n) => `${n}${r}`)));
    names.forEach((n, v) => {
      for (const [h, lanes] of ["0, 4, 1, 5", "2, 6, 3, 7"].entries()) {
        const t = `${n}t${h}`;
        out.push(`const ${t}a = v128.shuffle<i32>(${n}0, ${n}1, ${lanes}), ${t}b = v128.shuffle<i32>(${n}2, ${n}3, ${lanes});`);
        for (const l of [0, 1]) out.push(`v128.store(d, v128.shuffle<i64>(${t}a, ${t}b, ${l}, ${l + 2}), ${(v * 4 + h * 2 + l) * 32});`);
      }
    });
    return out;
  };
  const loop = (constants: string[], statements: string[], bytes: number): string[] => [
    ...constants,
    "for (let k = 0; k < K; k += 32) {",
    ...statements,
    range(4).map((r) => `p${r} += ${4 * bits};`).join(" "),
    `d += ${bytes};`,
    "}",
  ];
  return lines(
    `function panel${bits}(p0: usize, p1: usize, p2: usize, p3: usize, d: usize, K: i32): void {`,
    "if (ASC_FEATURE_RELAXED_SIMD) {",
    loop(byteConstants(bits), body(["a", "b"], unpackBytes), 256),
    "} else {",
    loop(halfConstants(bits), body(["a", "b", "c", "e"], unpackHalves), 512),
    "}",
    "}",
  );
}

const tileRows = range(4);
const tileColumns = [0, 1];
const each = (f: (m: number, n: number) => string): string[] => tileRows.flatMap((m) => tileColumns.map((n) => f(m, n)));

/** Products of one plane of a group, over `steps` steps of the panel. */
function planeLoop(relaxed: boolean, signedWeights: boolean): string[] {
  const out = ["for (let wp = wg, e = wg + groupBytes; wp < e; wp += 128) {"];
  for (const u of range(4)) {
    out.push(`const w${u}0 = v128.load(wp, ${u * 32}), w${u}1 = v128.load(wp, ${u * 32 + 16});`);
    for (const m of tileRows) {
      out.push(`const x${u}${m} = v128.load_splat<u32>(xp, ${u * 16 + m * 4});`);
      for (const n of tileColumns) {
        const a = `a${m}${n}`;
        const w = `w${u}${n}`;
        const x = `x${u}${m}`;
        if (relaxed) out.push(`${a} = i32x4.relaxed_dot_i8x16_i7x16_add_s(${signedWeights ? `${w}, ${x}` : `${x}, ${w}`}, ${a});`);
        else out.push(`${a} = i32x4.add(${a}, i32x4.dot_i16x8_s(${x}, ${w}));`);
      }
    }
  }
  out.push("xp += 64;", "}");
  return out;
}

/** Steps of the panel whose products are added up in 16 bits: at most 2 * 15 * 127 each. */
const narrowSteps = 8;
/**
 * As `planeLoop` for weights of at most 4 bits on processors whose int8 dot product with 32-bit sums is three instructions: the products of 8 steps are added up in 16 bits first.
 * The integers are the same.
 */
function narrowLoop(): string[] {
  const out = [`for (let wp = wg, e = wg + groupBytes; wp < e; wp += ${32 * narrowSteps}) {`];
  for (const u of range(narrowSteps)) {
    out.push(`const w${u}0 = v128.load(wp, ${u * 32}), w${u}1 = v128.load(wp, ${u * 32 + 16});`);
    for (const m of tileRows) {
      out.push(`const x${u}${m} = v128.load_splat<u32>(xp, ${u * 16 + m * 4});`);
      for (const n of tileColumns) {
        const product = `i16x8.relaxed_dot_i8x16_i7x16_s(x${u}${m}, w${u}${n})`;
        out.push(u === 0 ? `let t${m}${n} = ${product};` : `t${m}${n} = i16x8.add(t${m}${n}, ${product});`);
      }
    }
  }
  return [...out, ...each((m, n) => `a${m}${n} = i32x4.add(a${m}${n}, i32x4.dot_i16x8_s(t${m}${n}, ones));`), `xp += ${16 * narrowSteps};`, "}"];
}

/** The group loop of a tile: planes run one after another into the same 8 accumulators. */
function tileLoop(planes: Planes, signedWeights: boolean, relaxed: boolean, narrow: boolean): string[] {
  // Sums of the upper planes, in units of 128 when there are three.
  const scaled = (first: boolean): string[] =>
    each((m, n) => {
      const t = `f32x4.mul(s${n}, ${planes === 3 && first ? `f32x4.mul(q${m}, f32x4.splat(128))` : `q${m}`})`;
      return `f${m}${n} = f32x4.add(f${m}${n}, f32x4.mul(f32x4.convert_i32x4_s(a${m}${n}), ${t}));`;
    });
  const shift = each((m, n) => `a${m}${n} = i32x4.shl(a${m}${n}, 7);`);
  const clear = each((m, n) => `a${m}${n} = i32x4.splat(0);`);
  const loop = narrow ? narrowLoop() : planeLoop(relaxed, signedWeights);
  const start = relaxed && signedWeights ? "z" : "i32x4.splat(0)";
  const init = each((m, n) => `let a${m}${n} = ${start === "z" ? `z${n}` : start};`);
  const upper = relaxed ? [...loop, ...shift, ...loop] : loop;
  return [
    "for (let g = 0; g < groups; g++) {",
    "const s0 = v128.load(table), s1 = v128.load(table, 16), b0 = v128.load(table, 32), b1 = v128.load(table, 48);",
    ...(start === "z" ? ["const z0 = v128.load(table, 64), z1 = v128.load(table, 80);"] : []),
    ...init,
    ...upper,
    ...tileRows.map((m) => `const q${m} = v128.load_splat<f32>(xs, ${m * 4}), y${m} = v128.load_splat<f32>(sx, ${m * 4});`),
    ...scaled(true),
    ...(planes === 3 ? [...clear, ...loop, ...scaled(false)] : []),
    ...each((m, n) => `f${m}${n} = f32x4.add(f${m}${n}, f32x4.mul(b${n}, y${m}));`),
    "wg += groupBytes; table += 96; xs += 16; sx += 16;",
    "}",
  ];
}

/** `tile<planes>(wg, table, xp, xs, sx, groups, groupBytes, d)`: 4 rows of x by 8 weight rows, to the 4 x 8 float32 at d. */
function tileSource(planes: Planes, signedWeights: boolean, narrow: boolean): string {
  return lines(
    `function tile${planes}${signedWeights ? "s" : ""}${narrow ? "n" : ""}(wg: usize, table: usize, xp: usize, xs: usize, sx: usize, groups: i32, groupBytes: usize, d: usize): void {`,
    each((m, n) => `let f${m}${n} = f32x4.splat(0);`),
    // V8 would build the ones of `extadd_pairwise` anew at each use.
    narrow ? "const ones = i16x8.splat(1);" : "",
    "if (ASC_FEATURE_RELAXED_SIMD) {",
    tileLoop(planes, signedWeights, true, narrow),
    ...(narrow ? [] : ["} else {", ...tileLoop(planes, signedWeights, false, false)]),
    "}",
    each((m, n) => `v128.store(d, f${m}${n}, ${m * 32 + n * 16});`),
    "}",
  );
}

export const qmmSource = (): string =>
  lines(
    widths.map(panelSource),
    "function panel(bits: i32, p0: usize, p1: usize, p2: usize, p3: usize, d: usize, K: i32): void {",
    "switch (bits) {",
    widths.map((b) => `case ${b}: panel${b}(p0, p1, p2, p3, d, K); break;`),
    "}",
    "}",
    ([2, 3] as const).flatMap((p) => [tileSource(p, true, false), tileSource(p, false, false), tileSource(p, false, true)]),
  );
