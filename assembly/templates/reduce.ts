/**
 * Source of the reduction kernels. A reduction is a chain of passes; each pass views its input as [outer, n, inner] and reduces n.
 * `row` passes have inner = 1, `col` passes are vectorised over inner. Long n is cut into fixed chunks whose partial results a further
 * pass combines, so the result does not depend on the number of threads.
 */
import { type Element, type Wide, elements, halfImport, isFloat, lanesOf, scratchDeclaration, shapeOf, wideBytes } from "./elements.ts";

type Id = Element["id"];
interface Rule {
  readonly identity: (w: Wide) => string;
  /** Vector form; w is the wide type. */
  readonly vector: (w: Wide, a: string, b: string) => string;
  readonly scalar: (w: Wide, a: string, b: string) => string;
}

const lowest: Readonly<Record<Wide, string>> = { f32: "-Infinity", f64: "-Infinity", i32: "i32.MIN_VALUE", u32: "0", i64: "i64.MIN_VALUE", u64: "0" };
const highest: Readonly<Record<Wide, string>> = { f32: "Infinity", f64: "Infinity", i32: "i32.MAX_VALUE", u32: "u32.MAX_VALUE", i64: "i64.MAX_VALUE", u64: "u64.MAX_VALUE" };

/** Larger (or smaller) of two vectors. Float forms keep NaN; i64x2 has only signed "greater", so u64 flips the sign bit. */
function extremum(max: boolean): Rule["vector"] {
  return (w, a, b) => {
    const name = max ? "max" : "min";
    if (isFloat(w)) return `${shapeOf(w)}.${name}(${a}, ${b})`;
    if (w === "i32" || w === "u32") return `i32x4.${name}_${w === "i32" ? "s" : "u"}(${a}, ${b})`;
    return `${name}2${w}(${a}, ${b})`;
  };
}
const rules: Readonly<Record<"sum" | "prod" | "max" | "min", Rule>> = {
  sum: { identity: () => "0", vector: (w, a, b) => `${shapeOf(w)}.add(${a}, ${b})`, scalar: (_w, a, b) => `${a} + ${b}` },
  prod: { identity: () => "1", vector: (w, a, b) => `${shapeOf(w)}.mul(${a}, ${b})`, scalar: (_w, a, b) => `${a} * ${b}` },
  max: { identity: (w) => lowest[w], vector: extremum(true), scalar: (w, a, b) => `max<${w}>(${a}, ${b})` },
  min: { identity: (w) => highest[w], vector: extremum(false), scalar: (w, a, b) => `min<${w}>(${a}, ${b})` },
};
const helpers = ["i64", "u64"].flatMap((w) =>
  ["max", "min"].map((name) => {
    const key = (x: string): string => (w === "u64" ? `v128.xor(${x}, i64x2.splat(i64.MIN_VALUE))` : x);
    const [p, q] = name === "max" ? ["a", "b"] : ["b", "a"];
    return `// @ts-ignore: decorator\n@inline function ${name}2${w}(a: v128, b: v128): v128 {\n  return v128.bitselect(a, b, i64x2.gt_s(${key(p as string)}, ${key(q as string)}));\n}\n`;
  }),
);

interface Kernel {
  /** sum_f32_bf16: rule, stored input type, stored output type. */
  readonly name: string;
  readonly from: Element;
  readonly to: Element;
  readonly wide: Wide;
  readonly rule: Rule;
  /** The result is divided by word 5 (row) or 8 (col): means. */
  readonly divides: boolean;
}

/** Vector and scalar loads of a test for "not zero" as a mask; -0 counts as zero, NaN does not. */
const maskOf = (e: Element): Element => {
  const half = e.id === "f16" || e.id === "bf16";
  const wide: Wide = e.bytes === 8 ? "i64" : "i32";
  const shape = half ? "i32x4" : shapeOf(e.wide);
  const loaded = (p: string, o?: number): string => (half ? `v128.and(v128.load_ext<u16>(${o ? `${p}, ${o}` : p}), i32x4.splat(0x7fff))` : e.vector(p, o));
  const one = (p: string): string => (half ? `(load<u16>(${p}) & 0x7fff) != 0` : `${e.get(p)} != 0`);
  return { ...e, wide, vector: (p, o) => `${shape}.ne(${loaded(p, o)}, ${shape}.splat(0))`, get: (p) => `-<${wide}>(${one(p)})`, put: (p, v) => `store<u8>(${p}, <u8>(${v}) & 1)` };
};
/** A complex number is not zero when a part is not. */
const complexMask: Element = {
  ...maskOf(elements.i64),
  vector: (p, o) => `i64x2.ne(f32x4.ne(v128.load(${o ? `${p}, ${o}` : p}), f32x4.splat(0)), i64x2.splat(0))`,
  get: (p) => `-<i64>(load<f32>(${p}) != 0 || load<f32>(${p}, 4) != 0)`,
};
const logical = (all: boolean): Rule => ({
  identity: () => (all ? "-1" : "0"),
  vector: (_w, a, b) => `v128.${all ? "and" : "or"}(${a}, ${b})`,
  scalar: (_w, a, b) => `${a} ${all ? "&" : "|"} ${b}`,
});

function kernels(): Kernel[] {
  const list: Kernel[] = [];
  const sums: [Id, Id][] = [["u8", "i32"], ["i8", "i32"], ["u16", "i32"], ["i16", "i32"], ["i32", "i32"], ["i64", "i64"], ["f32", "f32"], ["f64", "f64"], ["bf16", "f32"], ["bf16", "bf16"], ["f32", "bf16"], ["f16", "f32"], ["f16", "f16"], ["f32", "f16"]];
  for (const op of ["sum", "prod"] as const) {
    for (const [a, b] of sums) {
      const from = elements[a];
      const to = elements[b];
      const wide: Wide = isFloat(from.wide) ? from.wide : to.wide;
      list.push({ name: `${op}_${a}_${b}`, from: { ...from, get: (p) => `<${wide}>${from.get(p)}` }, to, wide, rule: rules[op], divides: op === "sum" && isFloat(wide) });
    }
  }
  for (const op of ["max", "min"] as const) for (const e of Object.values(elements)) list.push({ name: `${op}_${e.id}_${e.id}`, from: e, to: e, wide: e.wide, rule: rules[op], divides: false });
  for (const op of ["all", "any"] as const) {
    for (const id of ["u8", "u16", "f16", "i32", "i64", "f32", "f64"] as const) {
      const mask = maskOf(elements[id]);
      list.push({ name: `${op}_${id}_u8`, from: mask, to: mask, wide: mask.wide, rule: logical(op === "all"), divides: false });
    }
    list.push({ name: `${op}_c64_u8`, from: complexMask, to: complexMask, wide: "i64", rule: logical(op === "all"), divides: false });
  }
  return list;
}

const divided = (k: Kernel, value: string): string => (k.divides ? `${value} / divisor` : value);
const splat = (k: Kernel): string => `${shapeOf(k.wide)}.splat(${k.rule.identity(k.wide)})`;

/**
 * One round of a row: four vectors into four accumulators. f32x4.max keeps NaN but costs six instructions, so float maxima take pmax, which passes
 * NaN over, and a mask of the NaN met.
 */
function round(k: Kernel, extreme: "max" | "min" | undefined): string {
  const { from, wide: w } = k;
  const shape = shapeOf(w);
  const step = lanesOf(w) * from.bytes;
  return [0, 1, 2, 3]
    .map((i) => {
      const load = from.vector("p", i * step);
      if (!extreme) return `        x${i} = ${k.rule.vector(w, `x${i}`, load)};`;
      return `        const y${i} = ${load};\n        x${i} = ${shape}.p${extreme}(x${i}, y${i});\n        nan = v128.or(nan, ${shape}.ne(y${i}, y${i}));`;
    })
    .join("\n");
}

/** Sums of rows of few whole rounds, four rows at a time, each in the order of any row: they come out as one vector, without a fold and a tail for each. */
function shortRows(k: Kernel): string {
  const { from, to, rule, wide: w } = k;
  const lanes = lanesOf(w);
  if (lanes !== 4 || !k.divides) return "";
  const step = lanes * from.bytes;
  const v = (a: string, b: string): string => rule.vector(w, a, b);
  const rows = [0, 1, 2, 3];
  const line = (r: number): string => `      let x${r} = ${splat(k)}, y${r} = x${r}, z${r} = x${r}, w${r} = x${r};
      for (next += bytes; p < next; p += ${4 * step}) {
        ${["x", "y", "z", "w"].map((x, i) => `${x}${r} = ${v(`${x}${r}`, from.vector("p", i * step))};`).join("\n        ")}
      }
      const t${r} = ${v(splat(k), v(v(`x${r}`, `y${r}`), v(`z${r}`, `w${r}`)))};`;
  const shuffle = (a: string, b: string, x: readonly number[]): string => `i32x4.shuffle(${a}, ${b}, ${x.join(", ")})`;
  const pairs = (a: string, b: string): string => v(shuffle(a, b, [0, 4, 2, 6]), shuffle(a, b, [1, 5, 3, 7]));
  return `  if (chunks == 1 && n <= ${32 * lanes} && (n & ${4 * lanes - 1}) == 0 && n > 0) {
    const bytes = <usize>n * ${from.bytes};
    let p = src + <usize>begin * bytes, next = p;
    for (; begin + 4 <= end; begin += 4) {
${rows.map(line).join("\n")}
      // Lanes 0 and 1, 2 and 3 of each row, then both.
      const e01 = ${pairs("t0", "t1")}, e23 = ${pairs("t2", "t3")};
      const sums = ${v(shuffle("e01", "e23", [0, 1, 4, 5]), shuffle("e01", "e23", [2, 3, 6, 7]))};
${rows.map((r) => `      ${to.put(`dst + <usize>(begin + ${r}) * ${outBytes(k)}`, divided(k, `${shapeOf(w)}.extract_lane(sums, ${r})`))};`).join("\n")}
    }
  }
`;
}

/** Blocks of 32 rounds of four accumulators, added pairwise: the error of a sum grows with 32 + chunk / (128 lanes) terms instead of with chunk. */
function row(k: Kernel): string {
  const { from, rule, wide: w } = k;
  const lanes = lanesOf(w);
  const step = lanes * from.bytes;
  const extreme = extremeOf(k);
  const v = (a: string, b: string): string => rule.vector(w, a, b);
  const lane = (i: number): string => `${shapeOf(w)}.extract_lane(total, ${i})`;
  const fold = lanes === 4 ? rule.scalar(w, `(${rule.scalar(w, lane(0), lane(1))})`, `(${rule.scalar(w, lane(2), lane(3))})`) : rule.scalar(w, lane(0), lane(1));
  return `// words: src, dst, n, chunk, chunks per row${k.divides ? ", divisor" : ""}; unit: one chunk of one row
export function ${k.name}_row(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), chunk = load<i32>(a, 12), chunks = max(1, load<i32>(a, 16));
${k.divides ? `  const divisor = <${w}>load<u32>(a, 20);\n` : ""}${shortRows(k)}  for (let u = begin; u < end; u++) {
    const r = u / chunks, c = u - r * chunks;
    let left = min(chunk, n - c * chunk);
    let p = src + (<usize>r * <usize>n + <usize>(c * chunk)) * ${from.bytes};
    let total = ${splat(k)};
${extreme ? "    let nan = i32x4.splat(0);\n" : ""}    while (left >= ${4 * lanes}) {
      let rounds = min(left >> ${Math.log2(4 * lanes)}, 32);
      left -= rounds << ${Math.log2(4 * lanes)};
      let x0 = ${splat(k)}, x1 = x0, x2 = x0, x3 = x0;
      for (; rounds > 0; rounds--) {
${round(k, extreme)}
        p += ${4 * step};
      }
      total = ${v("total", v(v("x0", "x1"), v("x2", "x3")))};
    }
    let result: ${w} = ${fold};
${extreme ? "    if (v128.any_true(nan)) result = NaN;\n" : ""}    for (; left > 0; left--, p += ${from.bytes}) result = ${rule.scalar(w, "result", from.get("p"))};
    ${k.to.put(`dst + <usize>u * ${outBytes(k)}`, divided(k, "result"))};
  }
}
`;
}
const outBytes = (k: Kernel): number => (k.name.endsWith("_u8") ? 1 : k.to.bytes);

/** "max" or "min" where vectors of floats take the fast instruction. */
const extremeOf = ({ rule, wide: w }: Kernel): "max" | "min" | undefined => (isFloat(w) && rule === rules.max ? "max" : isFloat(w) && rule === rules.min ? "min" : undefined);
/** One step of columns: accumulator q with vectors of one row or of four. Float extremes as in `round`: pmax(q, x) keeps a NaN in q, and those of x are added to it as bits. */
function columnStep(k: Kernel, rows: readonly string[], at = 0): string {
  const { from, wide: w } = k;
  const loads = rows.map((p) => from.vector(p, at * lanesOf(w) * from.bytes));
  const extreme = extremeOf(k);
  const shape = shapeOf(w);
  const v = (a: string, b: string): string => (extreme ? `${shape}.p${extreme}(${a}, ${b})` : k.rule.vector(w, a, b));
  const ys = loads.map((_, i) => `y${i}`);
  const own = ys.length === 4 ? v(v("y0", "y1"), v("y2", "y3")) : "y0";
  const nan = (y: string): string => `${shape}.ne(${y}, ${y})`;
  const value = v(`v128.load(q, ${16 * at})`, own);
  const all = extreme ? ys.reduce((sum, y) => `v128.or(${sum}, ${nan(y)})`, value) : value;
  return `{
          ${loads.map((load, i) => `const y${i} = ${load};`).join(" ")}
          v128.store(q, ${all}, ${16 * at});
        }`;
}

/** Four rows at a time are added into accumulators that stay in the first-level cache. */
function col(k: Kernel): string {
  const { from, rule, wide: w } = k;
  const lanes = lanesOf(w);
  const wb = wideBytes(w);
  const s = (a: string, b: string): string => rule.scalar(w, `(${a})`, `(${b})`);
  const ps = ["p0", "p1", "p2", "p3"];
  const advance = (bytes: number): string => ps.map((p) => `${p} += ${bytes}`).join(", ");
  return `// words: src, dst, n, inner, width, blocks of width in inner, chunk, chunks in n${k.divides ? ", divisor" : ""}; unit: one block of columns of one chunk
export function ${k.name}_col(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), inner = load<i32>(a, 12), width = load<i32>(a, 16), blocks = max(1, load<i32>(a, 20)), chunk = load<i32>(a, 24), chunks = max(1, load<i32>(a, 28));
${k.divides ? `  const divisor = <${w}>load<u32>(a, 32);\n` : ""}  const stride = <usize>inner * ${from.bytes};
  for (let u = begin; u < end; u++) {
    const t = u / blocks, column = (u - t * blocks) * width;
    const o = t / chunks, first = (t - o * chunks) * chunk;
    const w = min(width, inner - column);
    let rows = min(chunk, n - first);
    let p0 = src + ((<usize>o * <usize>n + <usize>first) * <usize>inner + <usize>column) * ${from.bytes};
    for (let j = 0; j < w; j += ${lanes}) v128.store(SCRATCH + (<usize>j << ${Math.log2(wb)}), ${splat(k)});
    for (; rows >= 4; rows -= 4) {
      const next = p0 + 4 * stride;
      let p1 = p0 + stride, p2 = p1 + stride, p3 = p2 + stride, q = SCRATCH, j = ${4 * lanes};
      for (; j <= w; j += ${4 * lanes}, q += 64, ${advance(4 * lanes * from.bytes)}) {
        ${[0, 1, 2, 3].map((at) => columnStep(k, ps, at)).join("\n        ")}
      }
      for (j -= ${3 * lanes}; j <= w; j += ${lanes}, q += 16, ${advance(lanes * from.bytes)}) {
        ${columnStep(k, ps)}
      }
      for (j -= ${lanes}; j < w; j++, q += ${wb}, ${advance(from.bytes)}) {
        store<${w}>(q, ${s(`load<${w}>(q)`, s(s(from.get("p0"), from.get("p1")), s(from.get("p2"), from.get("p3"))))});
      }
      p0 = next;
    }
    for (; rows > 0; rows--) {
      const next = p0 + stride;
      let q = SCRATCH, j = ${lanes};
      for (; j <= w; j += ${lanes}, q += 16, p0 += ${lanes * from.bytes}) {
        ${columnStep(k, ["p0"])}
      }
      for (j -= ${lanes}; j < w; j++, q += ${wb}, p0 += ${from.bytes}) store<${w}>(q, ${s(`load<${w}>(q)`, from.get("p0"))});
      p0 = next;
    }
    let out = dst + (<usize>t * <usize>inner + <usize>column) * ${outBytes(k)};
    for (let j = 0, q = SCRATCH; j < w; j++, q += ${wb}, out += ${outBytes(k)}) {
      ${k.to.put("out", divided(k, `load<${w}>(q)`))};
    }
  }
}
`;
}

const ids = Object.keys(elements) as Id[];

const argName = (max: boolean, e: Element): string => `arg${max ? "max" : "min"}_${e.id}`;
const betterOf = (max: boolean): string => (max ? ">" : "<");

/** Index of the largest (smallest) element, the first one when several are equal. NaN never wins, except at index 0 (as in MLX). */
function argRow(max: boolean, e: Element): string {
  const w = e.wide;
  const worst = (max ? lowest : highest)[w];
  const better = betterOf(max);
  const lanes = lanesOf(w);
  const step = lanes * e.bytes;
  const pseudo = max ? "pmax" : "pmin";
  // pmax(best, x) keeps best when x is NaN.
  const pick = (a: string, b: string): string => (isFloat(w) ? `${shapeOf(w)}.${pseudo}(${a}, ${b})` : rules[max ? "max" : "min"].vector(w, a, b));
  const first = isFloat(w) ? `const v0: ${w} = ${e.get("base")};\n    if (c == 0 && v0 != v0) {\n      store<u32>(dst + (<usize>u << 2), 0);\n      continue;\n    }\n    ` : "";
  return `// words: src, dst (uint32, index in the row), n, chunk, chunks per row; unit: one chunk of one row
export function ${argName(max, e)}_row(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), chunk = load<i32>(a, 12), chunks = max(1, load<i32>(a, 16));
  for (let u = begin; u < end; u++) {
    const r = u / chunks, c = u - r * chunks;
    const len = min(chunk, n - c * chunk);
    const base = src + (<usize>r * <usize>n + <usize>(c * chunk)) * ${e.bytes};
    ${first}let best: ${w} = ${worst}, at = 0, done = 0;
    // The best of each block of 64 rounds; only the block that held the best is searched for its index.
    while (len - done >= ${4 * lanes}) {
      let p = base + <usize>done * ${e.bytes};
      let rounds = min((len - done) >> ${Math.log2(4 * lanes)}, 64);
      const start = done;
      done += rounds << ${Math.log2(4 * lanes)};
      let x0 = ${shapeOf(w)}.splat(${worst}), x1 = x0, x2 = x0, x3 = x0;
      for (; rounds > 0; rounds--) {
        x0 = ${pick("x0", e.vector("p", 0))};
        x1 = ${pick("x1", e.vector("p", step))};
        x2 = ${pick("x2", e.vector("p", 2 * step))};
        x3 = ${pick("x3", e.vector("p", 3 * step))};
        p += ${4 * step};
      }
      x0 = ${pick(pick("x0", "x1"), pick("x2", "x3"))};
      const m: ${w} = ${Array.from({ length: lanes }, (_, i) => `${shapeOf(w)}.extract_lane(x0, ${i})`).reduce((x, y) => `${max ? "max" : "min"}<${w}>(${x}, ${y})`)};
      if (m ${better} best) {
        best = m;
        at = start;
      }
    }
    let index = -1;
    for (let i = done; i < len; i++) {
      const x: ${w} = ${e.get(`base + <usize>i * ${e.bytes}`)};
      if (x ${better} best) {
        best = x;
        index = i;
      }
    }
    if (index < 0) {
      index = at;
      while (index < len && ${e.get(`base + <usize>index * ${e.bytes}`)} != best) index++;
      if (index == len) index = 0;
    }
    store<u32>(dst + (<usize>u << 2), <u32>(index + c * chunk));
  }
}
`;
}

/** Picks among the winners of a row's chunks. */
function argCombine(max: boolean, e: Element): string {
  const w = e.wide;
  return `// words: src, winners of the chunks (uint32), dst (uint32), n, chunks per row; unit: one row
export function ${argName(max, e)}_combine(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), winners = load<usize>(a, 4), dst = load<usize>(a, 8), n = load<usize>(a, 12);
  const chunks = load<i32>(a, 16);
  for (let r = begin; r < end; r++) {
    const base = src + <usize>r * n * ${e.bytes}, w = winners + ((<usize>r * <usize>chunks) << 2);
    let index = load<u32>(w);
    let best: ${w} = ${e.get(`base + <usize>index * ${e.bytes}`)};
    for (let c = 1; c < chunks; c++) {
      const i = load<u32>(w + (<usize>c << 2));
      const x: ${w} = ${e.get(`base + <usize>i * ${e.bytes}`)};
      if (x ${betterOf(max)} best) {
        best = x;
        index = i;
      }
    }
    store<u32>(dst + (<usize>r << 2), index);
  }
}
`;
}

function argCol(max: boolean, e: Element): string {
  const w = e.wide;
  return `// words: src, dst (uint32), n, inner, width, blocks of width in inner; unit: one block of columns
export function ${argName(max, e)}_col(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), inner = load<i32>(a, 12), width = load<i32>(a, 16), blocks = max(1, load<i32>(a, 20));
  for (let u = begin; u < end; u++) {
    const o = u / blocks, column = (u - o * blocks) * width;
    const w = min(width, inner - column);
    const base = src + (<usize>o * <usize>n * <usize>inner + <usize>column) * ${e.bytes};
    const out = dst + ((<usize>o * <usize>inner + <usize>column) << 2);
    for (let j = 0; j < w; j++) {
      store<${w}>(SCRATCH + (<usize>j << 3), ${e.get(`base + <usize>j * ${e.bytes}`)});
      store<u32>(out + (<usize>j << 2), 0);
    }
    for (let i = 1; i < n; i++) {
      let p = base + <usize>i * <usize>inner * ${e.bytes}, q = SCRATCH;
      for (let j = 0; j < w; j++, p += ${e.bytes}, q += 8) {
        const x: ${w} = ${e.get("p")};
        if (x ${betterOf(max)} load<${w}>(q)) {
          store<${w}>(q, x);
          store<u32>(out + (<usize>j << 2), <u32>i);
        }
      }
    }
  }
}
`;
}

export const source = (): string =>
  [halfImport, scratchDeclaration, ...helpers, ...kernels().flatMap((k) => [row(k), col(k)]), ...ids.flatMap((id) => [true, false].flatMap((max) => [argRow(max, elements[id]), argCombine(max, elements[id]), argCol(max, elements[id])]))].join("\n");
