/** Matrix-vector kernels over packed rows: few rows of activations, or single rows with their own experts. */
import { type Bits, type Planes, byteConstants, halfConstants, lines, range, unpackBytes, unpackHalves, widths } from "./quant-layout.ts";

/** Group size that a function is made for; "any" reads it at run time. */
export type Group = 32 | 64 | 128 | "any";
/** The widths that models ship with have their groups unrolled. */
export const groupsOf = (bits: Bits): readonly Group[] => (bits === 4 || bits === 8 ? [32, 64, 128] : ["any"]);
const spanName = (bits: Bits, group: Group, planes: Planes): string => `span${bits}_${group}_${planes}`;

/** Rows that are multiplied at a time. */
const rows = [0, 1];

/** The groups whose activations lie in pairs of blocks (see `pairedOrder`). */
const isPaired = (bits: Bits, group: Group): boolean => bits === 4 && (group === 64 || group === 128);
/** Place of vector `v` of plane `p` of block `b`, in vectors. */
const vectorAt = (paired: boolean, planes: Planes, b: number, p: number, v: number): number => (paired ? ((b >> 1) * planes + p) * 4 + v * 2 + (b & 1) : (b * planes + p) * 2 + v);

/** Products of one block of both rows with the planes of x, relaxed build: vectors of bytes. */
function relaxedBlock(bits: Bits, planes: Planes, b: number, group: Group): string[] {
  const out: string[] = [];
  for (const r of rows) out.push(...unpackBytes(bits, `w${r}`, b * 4 * bits, [`p${r}_${b}`, `q${r}_${b}`]));
  for (const p of range(planes)) {
    for (const [v, half] of ["p", "q"].entries()) {
      const x = `x${b}_${p}${v}`;
      out.push(`const ${x} = v128.load(xp, ${16 * vectorAt(isPaired(bits, group), planes, b, p, v)});`);
      for (const r of rows) {
        const w = `${half}${r}_${b}`;
        out.push(`a${r}${p} = i32x4.relaxed_dot_i8x16_i7x16_add_s(${bits === 8 ? `${w}, ${x}` : `${x}, ${w}`}, a${r}${p});`);
      }
    }
  }
  if (bits === 8) for (const r of rows) for (const half of ["p", "q"]) out.push(`z${r} = i32x4.relaxed_dot_i8x16_i7x16_add_s(${half}${r}_${b}, ones, z${r});`);
  return out;
}

/** The same for 4 bits with sums in 16-bit lanes; the first block of a group starts them. */
function narrowBlock(planes: Planes, b: number, group: Group): string[] {
  const out: string[] = [];
  for (const r of rows) out.push(...unpackBytes(4, `w${r}`, b * 16, [`p${r}_${b}`, `q${r}_${b}`]));
  for (const p of range(planes)) for (const [v, half] of ["p", "q"].entries()) {
    out.push(`const x${b}_${p}${v} = v128.load(xp, ${16 * vectorAt(isPaired(4, group), planes, b, p, v)});`);
    for (const r of rows) {
      const product = `i16x8.relaxed_dot_i8x16_i7x16_s(x${b}_${p}${v}, ${half}${r}_${b})`;
      out.push(b === 0 && v === 0 ? `let n${r}${p} = ${product};` : `n${r}${p} = i16x8.add(n${r}${p}, ${product});`);
    }
  }
  return out;
}
/** Factors of the planes, as declarations: a plane counts 128 times the next one. V8 would build the ones of `extadd_pairwise` anew at each use. */
const planeUnits = (planes: Planes): string => `const ${range(planes).map((p) => `unit${p} = i16x8.splat(${128 ** (planes - 1 - p)})`).join(", ")};`;
/** The sum of the planes' 16-bit sums times their factors, in 32 bits. */
const widened = (planes: Planes, sum: (p: number) => string): string =>
  range(planes).slice(1).reduce((all, p) => `i32x4.add(${all}, i32x4.dot_i16x8_s(${sum(p)}, unit${p}))`, `i32x4.dot_i16x8_s(${sum(0)}, unit0)`);

/** The same in the plain build: vectors of 16-bit lanes, one plane less. */
function plainBlock(bits: Bits, planes: Planes, b: number): string[] {
  const out: string[] = [];
  const names = ["p", "q", "u", "v"];
  for (const r of rows) out.push(...unpackHalves(bits, `w${r}`, b * 4 * bits, names.map((n) => `${n}${r}_${b}`)));
  for (const p of range(planes - 1)) {
    for (const [v, n] of names.entries()) {
      const x = `x${b}_${p}${v}`;
      out.push(`const ${x} = v128.load(xp, ${((b * (planes - 1) + p) * 4 + v) * 16});`);
      for (const r of rows) out.push(`a${r}${p} = i32x4.add(a${r}${p}, i32x4.dot_i16x8_s(${x}, ${n}${r}_${b}));`);
    }
  }
  return out;
}

/** Adds the group's integer sums, times its scale, to the row's lanes. The integers are the same in both builds. */
function groupEnd(bits: Bits, planes: Planes, relaxed: boolean): string[] {
  const out: string[] = [];
  for (const r of rows) {
    // Planes of 8-bit weights are unsigned: the upper one is 64 too large.
    const offset = relaxed && bits === 8;
    const top = offset ? `i32x4.sub(a${r}0, i32x4.shl(z${r}, 6))` : `a${r}0`;
    const upper = relaxed ? `i32x4.add(i32x4.shl(${top}, 7), a${r}1)` : `a${r}0`;
    const lower = relaxed ? `a${r}2` : `a${r}1`;
    // Three planes of more than 5 bits do not fit 32 bits.
    const wide = `f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(${upper}), f32x4.splat(128)), f32x4.convert_i32x4_s(${lower}))`;
    const sum = planes === 2 ? `f32x4.convert_i32x4_s(${upper})` : bits > 5 ? wide : `f32x4.convert_i32x4_s(i32x4.add(i32x4.shl(${upper}, 7), ${lower}))`;
    out.push(`f${r} = f32x4.add(f${r}, f32x4.mul(${sum}, v128.load_splat<f32>(t${r})));`);
  }
  return out;
}

function groupLoop(bits: Bits, group: Group, planes: Planes, relaxed: boolean): string[] {
  const accumulators = relaxed ? planes : planes - 1;
  const zeros = rows.flatMap((r) => [...range(accumulators).map((p) => `a${r}${p}`), ...(relaxed && bits === 8 ? [`z${r}`] : [])]);
  const block = (b: number): string[] => (relaxed ? relaxedBlock(bits, planes, b, group) : plainBlock(bits, planes, b));
  const blockBytes = relaxed ? 32 * planes : 64 * (planes - 1);
  const advance = (n: number): string => `${rows.map((r) => `w${r} += ${4 * bits * n};`).join(" ")} xp += ${blockBytes * n};`;
  const body = group === "any" ? ["for (let b = 0; b < blocks; b++) {", ...block(0), advance(1), "}"] : [...range(group / 32).flatMap(block), advance(group / 32)];
  return [
    "for (let g = 0; g < groups; g++) {",
    `let ${zeros.map((z) => `${z} = i32x4.splat(0)`).join(", ")};`,
    ...body,
    ...groupEnd(bits, planes, relaxed),
    "t0 += 4; t1 += 4;",
    "}",
  ];
}

/**
 * `terms(...)`: for the groups of weight row n0 .. n3 (byte offsets): t[row][g] = scale[g] * xs[g], and the lanes of the sum of bias[g] * sx[g] behind the t of all rows.
 * `terms128` adds 128 times the scale to the bias: 8-bit weights come less 128. Made for each storage type of scales: u16 bfloat16, f32, i16 float16.
 */
function termsSource(name: string, shift: number): string {
  const four = range(4);
  const names = four.map((r) => `n${r}`);
  const list = (type: string): string => names.map((n) => `${n}: ${type}`).join(", ");
  const shared = "xs: usize, sx: usize, t: usize, padded: usize, groups: i32";
  const bias = (r: number): string => (shift ? `f32x4.add(load4<S>(bi + n${r}), f32x4.mul(s${r}, f32x4.splat(${shift})))` : `load4<S>(bi + n${r})`);
  const body = (r: number): string[] => [
    `const s${r} = load4<S>(sc + n${r});`,
    `v128.store(t + ${r} * padded, f32x4.mul(s${r}, x));`,
    `f${r} = f32x4.add(f${r}, f32x4.mul(${bias(r)}, y));`,
    `n${r} += 4 * sizeof<S>();`,
  ];
  const tail = (r: number): string[] => [
    `const s${r} = load1<S>(sc + n${r});`,
    `store<f32>(t + ${r} * padded, s${r} * load<f32>(xs));`,
    `f${r} = f32x4.add(f${r}, f32x4.replace_lane(f32x4.splat(0), 0, (load1<S>(bi + n${r}) + s${r} * ${shift}) * load<f32>(sx)));`,
    `n${r} += sizeof<S>();`,
  ];
  const step = (n: number): string => `xs += ${4 * n}; sx += ${4 * n}; t += ${4 * n};`;
  return lines(
    `function ${name}Of<S>(sc: usize, bi: usize, ${list("usize")}, ${shared}): void {`,
    "const out = t + 4 * padded;",
    `let ${four.map((r) => `f${r} = f32x4.splat(0)`).join(", ")};`,
    "let g = 4;",
    "for (; g <= groups; g += 4) {",
    "const x = v128.load(xs), y = v128.load(sx);",
    four.flatMap(body),
    step(4),
    "}",
    "for (g -= 4; g < groups; g++) {",
    four.flatMap(tail),
    step(1),
    "}",
    four.map((r) => `v128.store(out, f${r}, ${16 * r});`),
    "}",
    `function ${name}(code: i32, sc: usize, bi: usize, ${list("usize")}, ${shared}): void {`,
    ["u16", "f32", "i16"].map((type, i) => `${["if (code == 12) ", "else if (code == 10) ", "else "][i]}${name}Of<${type}>(sc, bi, ${names.join(", ")}, xs, sx, t, padded, groups);`),
    "}",
  );
}

/**
 * `span<bits>_<group>_<planes>`: outputs of the rows 2 i, half + 2 i, 2 i + 1 and half + 2 i + 1 for i in i0 .. i1 of the weights at w; rows beyond `last` are left
 * out. Pairs of rows far from each other make two long sequential streams, which the hardware prefetches better than four neighbouring rows.
 * `list` holds `count` pairs (row of x, row of the output), or is 0 for the identity.
 */
function spanSource(bits: Bits, group: Group, planes: Planes): string {
  const loop = (relaxed: boolean): string[] => [
    ...(relaxed ? byteConstants(bits) : halfConstants(bits)),
    ...(relaxed && bits === 8 ? ["const ones = i8x16.splat(1);"] : []),
    "for (let i = i0; i < i1; i++) {",
    // A row that stands for one beyond the last computes and stores the last one's result once more.
    "const n0 = min<i32>(2 * i, last), n1 = min<i32>(half + 2 * i, last), n2 = min<i32>(2 * i + 1, last), n3 = min<i32>(half + 2 * i + 1, last);",
    "for (let c = 0; c < count; c++) {",
    "const xr = list ? load<i32>(list + (<usize>c << 3)) : c;",
    "const o = out + <usize>(list ? load<i32>(list + (<usize>c << 3), 4) : c) * outRow;",
    "if (load<i32>(flags + (<usize>xr << 2))) {",
    ...range(4).map((r) => `exactRow(a, xr, o, w, sc, bi, n${r}, n${r} + 1, 0);`),
    "continue;",
    "}",
    "const xs = scales + <usize>xr * padded, sx = sums + <usize>xr * padded;",
    `${bits === 8 ? "terms128" : "terms"}(code, sc, bi, ${range(4).map((r) => `<usize>n${r} * sr`).join(", ")}, xs, sx, SCRATCH, padded, groups);`,
    "for (let h = 0; h < 2; h++) {",
    "let xp = prep + <usize>xr * xRow, w0 = w + <usize>(h ? n2 : n0) * wr, w1 = w + <usize>(h ? n3 : n1) * wr;",
    "const f = lanes + (<usize>h << 5);",
    "let t0 = SCRATCH + <usize>(2 * h) * padded, t1 = t0 + padded, f0 = v128.load(f), f1 = v128.load(f, 16);",
    ...groupLoop(bits, group, planes, relaxed),
    "v128.store(f, f0); v128.store(f, f1, 16);",
    "}",
    "storeLanes(outCode, o, n0, n1, n2, n3, sums4(v128.load(lanes), v128.load(lanes, 16), v128.load(lanes, 32), v128.load(lanes, 48)));",
    "}",
    "}",
  ];
  return lines(
    `function ${spanName(bits, group, planes)}(a: usize, w: usize, sc: usize, bi: usize, i0: i32, i1: i32, half: i32, last: i32, list: usize, count: i32): void {`,
    "const prep = load<usize>(a, 16), out = load<usize>(a, 20), M = load<i32>(a, 24), N = load<i32>(a, 28), K = load<i32>(a, 32);",
    `const group = ${group === "any" ? "load<i32>(a, 36)" : group}, code = load<i32>(a, 52), outCode = load<i32>(a, 56);`,
    `const groups = K / group${group === "any" ? ", blocks = group >> 5" : ""};`,
    `const wr = <usize>(K >> 3) * ${bits}, sr = <usize>(groups * sizeOfCode(code)), outRow = <usize>(N * sizeOfCode(outCode));`,
    `const xRow = <usize>planeBytes(K, ${planes}), padded = <usize>paddedGroups(groups) << 2;`,
    "const scales = prep + <usize>M * xRow, sums = scales + <usize>M * padded, flags = sums + <usize>M * padded, lanes = SCRATCH + 4 * padded;",
    "if (ASC_FEATURE_RELAXED_SIMD) {",
    loop(true),
    "} else {",
    loop(false),
    "}",
    "}",
  );
}

const oneRowParameters =
  "w: usize, sc: usize, bi: usize, n0: i32, n1: i32, half: i32, wr: usize, sr: usize, groups: i32, prep: usize, scales: usize, sums: usize, out: usize, outCode: i32";
const oneRowPointers =
  "let w0 = w + <usize>n0 * wr, w1 = w0 + <usize>half * wr, s0 = sc + <usize>n0 * sr, s1 = s0 + <usize>half * sr, b0 = bi + <usize>n0 * sr, b1 = b0 + <usize>half * sr;";

/** Groups that the loop for one row of x is made for. */
const oneRowGroups = [32, 64, 128] as const;
const oneRowName = (group: number, planes: Planes, narrow = false): string => `one4_${group}_${planes}${narrow ? "_16" : ""}`;

/**
 * `one4_<group>_<planes>`: the rows n0 .. n1 and half + n0 .. half + n1 of 4-bit weights with bfloat16 scales times one row of x: what decoding does all the time.
 * The same operations in the same order as `span`, so the results have the same bits; scales are read in the loop instead of being prepared for four rows.
 * `narrow` is for processors whose int8 dot product with 32-bit sums is three instructions: products of a group (at most 16 of 15 * 127 in a lane) are added up in 16 bits first.
 */
function oneRowSource(group: number, planes: Planes, narrow: boolean): string {
  const accumulators = (relaxed: boolean): string[] => rows.flatMap((r) => range(relaxed ? planes : planes - 1).map((p) => `a${r}${p}`));
  const blockBytes = (relaxed: boolean): number => (relaxed ? 32 * planes : 64 * (planes - 1));
  const scale = (r: number): string => `f32x4.mul(i32x4.shl(v128.load_splat<u16>(s${r}), 16), xg)`;
  const bias = (r: number): string => `f${r} = f32x4.add(f${r}, f32x4.mul(i32x4.shl(i32x4.extend_low_i16x8_u(v128.load64_zero(b${r})), 16), yy));`;
  const narrowEnd = (): string[] =>
    rows.map((r) => `f${r} = f32x4.add(f${r}, f32x4.mul(f32x4.convert_i32x4_s(${widened(planes, (p) => `n${r}${p}`)}), ${scale(r)}));`);
  const end = (relaxed: boolean): string[] => groupEnd(4, planes, relaxed).map((line, r) => line.replace(`v128.load_splat<f32>(t${r})`, scale(r)));
  const body = (relaxed: boolean): string[] => [
    ...(relaxed ? byteConstants(4) : halfConstants(4)),
    ...(narrow ? [planeUnits(planes)] : []),
    oneRowPointers,
    "for (let n = n0; n < n1; n++) {",
    "let xp = prep, xs = scales, f0 = f32x4.splat(0), f1 = f32x4.splat(0);",
    "for (let y = sums, e = sums + (<usize>groups << 2); y < e; y += 16) {",
    "const yy = v128.load(y);",
    ...rows.map(bias),
    "b0 += 8; b1 += 8;",
    "}",
    "for (let g = 0; g < groups; g++) {",
    ...(narrow ? [] : [`let ${accumulators(relaxed).map((z) => `${z} = i32x4.splat(0)`).join(", ")};`]),
    ...range(group / 32).flatMap((b) => (narrow ? narrowBlock(planes, b, group as Group) : relaxed ? relaxedBlock(4, planes, b, group as Group) : plainBlock(4, planes, b))),
    "const xg = v128.load_splat<f32>(xs);",
    ...(narrow ? narrowEnd() : end(relaxed)),
    `w0 += ${group / 2}; w1 += ${group / 2}; s0 += 2; s1 += 2; xs += 4; xp += ${blockBytes(relaxed) * (group / 32)};`,
    "}",
    "storePair(outCode, out, n, half + n, sums4(f0, f1, f0, f1));",
    "}",
  ];
  return lines(
    `function ${oneRowName(group, planes, narrow)}(${oneRowParameters}): void {`,
    "if (ASC_FEATURE_RELAXED_SIMD) {",
    body(true),
    ...(narrow ? [] : ["} else {", ...body(false)]),
    "}",
    "}",
  );
}

/** Groups of whole pairs of blocks, which the loop below is made for. */
const pairedGroups = [64, 128] as const;
const pairedName = (group: number, planes: Planes, sums: 16 | 32): string => `pair4_${group}_${planes}_${sums}`;

/** Products of a group of both rows, in lanes of 16 or 32 bits: `s<row><half><plane>`. */
function pairedProducts(group: number, planes: Planes, sums: 16 | 32): string[] {
  const out: string[] = [];
  const started = new Set<string>();
  const halves = [0, 1];
  for (const q of range(group / 64)) {
    for (const r of rows) out.push(`const v${q}${r}0 = v128.load(w${r}, ${32 * q}), v${q}${r}1 = v128.load(w${r}, ${32 * q + 16});`);
    for (const r of rows) for (const h of halves) out.push(`const p${q}${r}${h} = v128.and(v${q}${r}${h}, mask);`);
    for (const r of rows) for (const h of halves) out.push(`const q${q}${r}${h} = v128.and(i16x8.shr_u(v${q}${r}${h}, 4), mask);`);
    for (const p of range(planes)) {
      for (const [v, part] of ["p", "q"].entries()) {
        for (const h of halves) out.push(`const x${q}${p}${v}${h} = v128.load(xp, ${((q * planes + p) * 4 + 2 * v + h) * 16});`);
        for (const r of rows) for (const h of halves) {
          const sum = `s${r}${h}${p}`;
          const factors = `x${q}${p}${v}${h}, ${part}${q}${r}${h}`;
          const product = `i16x8.relaxed_dot_i8x16_i7x16_s(${factors})`;
          if (sums === 32) out.push(`${started.has(sum) ? "" : "let "}${sum} = i32x4.relaxed_dot_i8x16_i7x16_add_s(${factors}, ${started.has(sum) ? sum : "zero"});`);
          else out.push(started.has(sum) ? `${sum} = i16x8.add(${sum}, ${product});` : `let ${sum} = ${product};`);
          started.add(sum);
        }
      }
    }
  }
  return out;
}
/** The products of planes, widened and added up; both halves of a row go to neighbouring places of the scratch area. */
function pairedStores(planes: Planes, sums: 16 | 32): string[] {
  const out: string[] = [];
  for (const r of rows) for (const h of [0, 1]) {
    const at = (p: number): string => `s${r}${h}${p}`;
    const wide = range(planes).slice(1).reduce((sum, p) => `i32x4.add(i32x4.shl(${sum}, 7), ${at(p)})`, at(0));
    out.push(`const t${r}${h} = ${sums === 32 ? wide : widened(planes, at)};`);
  }
  for (const r of rows) out.push(`v128.store(tmp, t${r}0, ${32 * r}); v128.store(tmp, t${r}1, ${32 * r + 16});`);
  return out;
}

/**
 * `pair4_<group>_<planes>_<sums>`: as one4, with the same bits in the results. Everything is done twice, on neighbouring vectors, and ends in neighbouring stores: V8's vector pairing
 * makes one 256-bit instruction of two. Without it, twice the accumulators do not fit the registers.
 */
function pairedSource(group: number, planes: Planes, sums: 16 | 32): string {
  const scale = (r: number): string => `f32x4.mul(i32x4.shl(v128.load_splat<u16>(s${r}), 16), xg)`;
  const bias = (r: number): string => `f${r} = f32x4.add(f${r}, f32x4.mul(i32x4.shl(i32x4.extend_low_i16x8_u(v128.load64_zero(b${r})), 16), yy));`;
  return lines(
    `function ${pairedName(group, planes, sums)}(${oneRowParameters}): void {`,
    byteConstants(4),
    sums === 32 ? "const zero = i32x4.splat(0);" : planeUnits(planes),
    oneRowPointers,
    "let tmp = SCRATCH;",
    "for (let n = n0; n < n1; n++) {",
    "let xp = prep, xs = scales, f0 = f32x4.splat(0), f1 = f32x4.splat(0);",
    "for (let y = sums, e = sums + (<usize>groups << 2); y < e; y += 16) {",
    "const yy = v128.load(y);",
    rows.map(bias),
    "b0 += 8; b1 += 8;",
    "}",
    "for (let g = 0; g < groups; g++) {",
    pairedProducts(group, planes, sums),
    pairedStores(planes, sums),
    "const xg = v128.load_splat<f32>(xs);",
    rows.map((r) => `f${r} = f32x4.add(f${r}, f32x4.mul(f32x4.convert_i32x4_s(i32x4.add(v128.load(tmp, ${32 * r}), v128.load(tmp, ${32 * r + 16}))), ${scale(r)}));`),
    `w0 += ${group / 2}; w1 += ${group / 2}; s0 += 2; s1 += 2; xs += 4; xp += ${group * planes};`,
    "}",
    "storePair(outCode, out, n, half + n, sums4(f0, f1, f0, f1));",
    "}",
    "}",
  );
}

const pairedKinds = ([16, 32] as const).flatMap((sums) => pairedGroups.flatMap((group) => ([2, 3] as const).map((planes) => ({ group, planes, sums }))));

/** True when it took the work; false for a row with special values and for groups it is not made for. */
function oneRowDispatch(): string {
  const args = "w, sc, bi, 2 * begin, 2 * end, N >> 1, <usize>K >> 1, <usize>groups << 1, groups, prep, scales, sums, out, outCode";
  return lines(
    "/** `bits`: of the sums; `pairs`: blocks are taken in pairs. */",
    "function oneRow(a: usize, begin: i32, end: i32, bits: i32, pairs: bool): bool {",
    "const N = load<i32>(a, 28), K = load<i32>(a, 32), group = load<i32>(a, 36), planes = load<i32>(a, 44), outCode = load<i32>(a, 56);",
    "const groups = K / group;",
    "const w = load<usize>(a), sc = load<usize>(a, 4), bi = load<usize>(a, 8), prep = load<usize>(a, 16), out = load<usize>(a, 20);",
    "const scales = prep + <usize>planeBytes(K, planes), sums = scales + (<usize>groups << 2);",
    "if (load<i32>(sums + (<usize>groups << 2))) return false;",
    "if (ASC_FEATURE_RELAXED_SIMD) {",
    pairedKinds.map(({ group, planes, sums }) => `if (pairs && bits == ${sums} && group == ${group} && planes == ${planes}) { ${pairedName(group, planes, sums)}(${args}); return true; }`),
    oneRowGroups.flatMap((g) => ([2, 3] as const).map((planes) => `if (bits == 16 && group == ${g} && planes == ${planes}) { ${oneRowName(g, planes, true)}(${args}); return true; }`)),
    "}",
    oneRowGroups.flatMap((g) => ([2, 3] as const).map((planes) => `if (group == ${g} && planes == ${planes}) { ${oneRowName(g, planes)}(${args}); return true; }`)),
    "return false;",
    "}",
  );
}

/** Calls the span function for the widths and planes in the argument block. */
function dispatchSource(): string {
  const args = "a, w, sc, bi, i0, i1, half, last, list, count";
  const cases = widths.flatMap((bits) =>
    ([2, 3] as const).flatMap((planes) =>
      groupsOf(bits).map((g) => {
        const condition = g === "any" ? "" : g === 128 ? "" : `if (group == ${g}) `;
        return `${condition}{ ${spanName(bits, g, planes)}(${args}); return; }`;
      }).reduce((all, c, i, list) => (i === 0 ? `case ${bits * 4 + planes}: ${c}` : `${all} ${c}`) + (i === list.length - 1 ? " " : ""), ""),
    ),
  );
  return lines(
    "function span(a: usize, w: usize, sc: usize, bi: usize, i0: i32, i1: i32, half: i32, last: i32, list: usize, count: i32): void {",
    "const group = load<i32>(a, 36);",
    "switch (load<i32>(a, 40) * 4 + load<i32>(a, 44)) {",
    cases,
    "}",
    "}",
  );
}

export const qmvSource = (): string =>
  lines(
    termsSource("terms", 0),
    termsSource("terms128", 128),
    widths.flatMap((bits) => ([2, 3] as const).flatMap((planes) => groupsOf(bits).map((g) => spanSource(bits, g, planes)))),
    dispatchSource(),
    oneRowGroups.flatMap((g) => ([2, 3] as const).flatMap((planes) => [oneRowSource(g, planes, false), oneRowSource(g, planes, true)])),
    pairedKinds.map(({ group, planes, sums }) => pairedSource(group, planes, sums)),
    oneRowDispatch(),
  );
