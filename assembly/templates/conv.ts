/**
 * Source of the convolutions over channels-last arrays. Three ways, chosen by the gates in src/ops/conv.ts:
 * - `pack` writes the patches under the kernel straight into the panels that `gemm/gemm` reads, so the product with the weights needs no array of patches;
 * - `depthwise`: one filter per channel, channels in vector lanes; `taps` puts the weights in that order;
 * - `direct`: dot products, whatever the sizes.
 */
import { alongK } from "./gemm-packed.ts";
import { type Kind, kinds, range } from "./gemm-common.ts";

/** Names of the geometry's words, in order; three of each are depth, height, width. */
const triples = ["N", "O", "K", "S", "P", "D", "I"] as const;

const head = `
import { load1, load4, madd, store1, store4, sum4 } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch") declare const SCRATCH: usize;

// @ts-ignore: decorator
@inline function shiftOf(dtype: i32): i32 { return dtype == 10 ? 2 : dtype == 11 ? 3 : 1; }
// @ts-ignore: decorator
@inline function ceilDiv(x: i32, y: i32): i32 { return (x + y - 1) / y; }

/**
 * A launch's geometry is 22 words: sizes of the input, the output and the kernel, stride, padding in front, kernel dilation, input dilation
 * (each for depth, height, width; 1 where there is no such dimension), and 1 where the kernel is flipped.
 */
${triples.map((name, i) => `// @ts-ignore: decorator\n@inline const ${name}: usize = ${12 * i};`).join("\n")}
// @ts-ignore: decorator
@inline const FLIP: usize = ${12 * triples.length};

/** Position in the undilated input of tap \`t\` along axis \`x\` (0, 4, 8) for the dilated position \`from\` of tap 0, or -1 outside. */
// @ts-ignore: decorator
@inline function position(g: usize, x: usize, from: i32, t: i32): i32 {
  let step = load<i32>(g + x, I), size = load<i32>(g + x, N);
  let p = from + (load<i32>(g, FLIP) ? load<i32>(g + x, K) - 1 - t : t) * load<i32>(g + x, D);
  if (p < 0) return -1;
  if (step != 1) {
    if (p % step) return -1;
    p /= step;
  }
  return p < size ? p : -1;
}
`;

/** Table of the rows of a panel, at the start of SCRATCH: 16 bytes each (image, depth, height, width of tap 0), then (address, step) pairs and 16 zero bytes. */
const packHead = `
// @ts-ignore: decorator
@inline const RUNS: usize = 256;
// @ts-ignore: decorator
@inline const ZEROS: usize = 512;

/** Places of \`w\` output pixels from pixel \`row\` on. */
function places(g: usize, row: i32, w: i32, channels: i32, shift: i32): void {
  let OD = load<i32>(g, O), OH = load<i32>(g, O + 4), OW = load<i32>(g, O + 8), image = load<i32>(g, N) * load<i32>(g, N + 4) * load<i32>(g, N + 8) * channels << shift;
  let x = row % OW, q = row / OW, y = q % OH;
  q /= OH;
  let z = q % OD, n = q / OD;
  for (let t = SCRATCH, e = t + (w << 4); t < e; t += 16) {
    store<i32>(t, n * image);
    store<i32>(t, z * load<i32>(g, S) - load<i32>(g, P), 4);
    store<i32>(t, y * load<i32>(g, S + 4) - load<i32>(g, P + 4), 8);
    store<i32>(t, x * load<i32>(g, S + 8) - load<i32>(g, P + 8), 12);
    if (++x < OW) continue;
    x = 0;
    if (++y < OH) continue;
    y = 0;
    if (++z < OD) continue;
    z = 0;
    n++;
  }
}
/** True when every pixel has the whole kernel row inside the input, so that its taps are neighbours in memory. */
function inside(g: usize, w: i32): bool {
  let last = load<i32>(g, N + 8) - load<i32>(g, K + 8);
  for (let t = SCRATCH, e = t + (w << 4); t < e; t += 16) {
    let x = load<i32>(t, 12);
    if (x < 0 || x > last) return false;
  }
  return true;
}
/** Addresses of one tap in the input of each pixel; a row of zeros where the tap lies outside. */
function aim(g: usize, src: usize, w: i32, tile: i32, tz: i32, ty: i32, tx: i32, channels: i32, shift: i32): void {
  let H = load<i32>(g, N + 4), W = load<i32>(g, N + 8);
  for (let i = 0; i < tile; i++) {
    let t = SCRATCH + (i << 4), r = SCRATCH + RUNS + (i << 3), z = -1, y = -1, x = -1;
    if (i < w) {
      z = position(g, 0, load<i32>(t, 4), tz);
      y = position(g, 4, load<i32>(t, 8), ty);
      x = position(g, 8, load<i32>(t, 12), tx);
    }
    let zero = (z | y | x) < 0;
    store<usize>(r, zero ? SCRATCH + ZEROS : src + load<i32>(t) + (<usize>(((z * H + y) * W + x) * channels) << shift));
    store<i32>(r, zero ? 0 : 4 << shift, 4);
  }
}
`;

/** Copies `n` elements of each aimed row into a panel of ROWS rows. */
const run = (rows: number, kind: Kind): string => `
function run${rows}_${kind.name}(d: usize, n: i32): void {
  let q = SCRATCH + RUNS, k = 0;
${range(rows).map((i) => `  let p${i} = load<usize>(q, ${8 * i}), s${i} = load<i32>(q, ${8 * i + 4});\n`).join("")}  for (; k + 4 <= n; k += 4) {
${alongK(rows, kind, (i) => `p${i}`)}
      ${range(rows).map((i) => `p${i} += s${i};`).join(" ")}
      d += ${16 * rows};
  }
${range(rows).map((i) => `  s${i} >>= 2;\n`).join("")}  for (; k < n; k++) {
${range(rows).map((i) => `    store<f32>(d, load1<${kind.type}>(p${i}), ${4 * i}); p${i} += s${i};\n`).join("")}    d += ${4 * rows};
  }
}
`;
const runs = (rows: number): string => `${kinds.map((k) => run(rows, k)).join("")}
function run${rows}(d: usize, n: i32, dtype: i32): void {
  if (dtype == 10) run${rows}_f32(d, n);
  else if (dtype == 12) run${rows}_bf16(d, n);
  else run${rows}_f16(d, n);
}
`;

const pack = `
/**
 * Copies patches into panels of TILE rows, as \`gemm/pack\` does with rows of a matrix: [group][12-row group][panel][kp][TILE], kp = K rounded up to 4,
 * K = kernel positions times channels of a group. A row is one output pixel.
 * Units: groups times groups of 12 rows. Words: 0 input, 1 destination, 2 dtype, 3 first row, 4 rows, 5 groups of 12 rows, 6 channels, 7 channels of a group,
 * 8 whether the taps of a kernel row are neighbours in memory, 9 ... geometry.
 */
export function pack(a: usize, begin: i32, end: i32): void {
  const TILE: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 4;
  let dtype = load<i32>(a, 8), row0 = load<i32>(a, 12), rows = load<i32>(a, 16), blocks = load<i32>(a, 20), channels = load<i32>(a, 24), own = load<i32>(a, 28);
  let shift = shiftOf(dtype), g = a + 36, KD = load<i32>(g, K), KH = load<i32>(g, K + 4), KW = load<i32>(g, K + 8);
  let depth = KD * KH * KW * own, kp = (depth + 3) & -4;
  v128.store(SCRATCH + ZEROS, i64x2.splat(0));
  for (let u = begin; u < end; u++) {
    let block = u / blocks, r = (u - block * blocks) * 12;
    let src = load<usize>(a) + (<usize>(block * own) << shift);
    let d = load<usize>(a, 4) + ((<usize>u * 12 * <usize>kp) << 2);
    for (let e = min(rows, r + 12); r < e; r += TILE) {
      let w = min(TILE, rows - r);
      places(g, row0 + r, w, channels, shift);
      let long = load<i32>(a, 32) != 0 && inside(g, w), across = long ? 1 : KW, length = long ? KW * own : own;
      for (let tz = 0; tz < KD; tz++) for (let ty = 0; ty < KH; ty++) for (let tx = 0; tx < across; tx++) {
        aim(g, src, w, TILE, tz, ty, tx, channels, shift);
        if (ASC_FEATURE_RELAXED_SIMD) run6(d, length, dtype); else run4(d, length, dtype);
        d += <usize>(length * TILE) << 2;
      }
      let rest = <usize>((kp - depth) * TILE) << 2;
      memory.fill(d, 0, rest);
      d += rest;
    }
  }
}
`;

const taps = `
/**
 * Depthwise weights [channel][tap] as float32 [tap][channel], in the order in which the taps lie in the input.
 * Units: taps. Words: 0 weights, 1 destination, 2 dtype, 3 channels, 4 taps, 5 whether the kernel is flipped.
 */
export function taps(a: usize, begin: i32, end: i32): void {
  let src = load<usize>(a), dtype = load<i32>(a, 8), channels = load<i32>(a, 12), count = load<i32>(a, 16), shift = shiftOf(dtype);
  for (let u = begin; u < end; u++) {
    let p = src + ((load<i32>(a, 20) ? count - 1 - u : u) << shift), d = load<usize>(a, 4) + (<usize>(u * channels) << 2);
    for (let e = d + (<usize>channels << 2); d < e; d += 4, p += count << shift) store<f32>(d, dtype == 10 ? load<f32>(p) : dtype == 12 ? load1<u16>(p) : load1<i16>(p));
  }
}
`;

/** Channels \`c\` .. \`c + 4 * vectors - 1\` of one pixel: sums over the taps inside the input. */
const channels = (vectors: number, kind: Kind): string => `
    for (; c + ${4 * vectors} <= C; c += ${4 * vectors}) {
      let ${range(vectors).map((i) => `s${i} = f32x4.splat(0)`).join(", ")};
      for (let tz = z0; tz < z1; tz++) for (let ty = y0; ty < y1; ty++) {
        let t = w + (<usize>(((tz * KH + ty) * KW + x0) * C + c) << 2), p = src + (<usize>((((z + tz * dz) * H + y + ty * dy) * W + x + x0 * dx) * C + c) * ${kind.bytes});
        for (let n = x1 - x0; n > 0; n--) {
${range(vectors).map((i) => `          s${i} = madd(load4<${kind.type}>(p + ${4 * i * kind.bytes}), v128.load(t, ${16 * i}), s${i});\n`).join("")}          t += <usize>C << 2; p += <usize>(C * dx) * ${kind.bytes};
        }
      }
${range(vectors).map((i) => `      store4<${kind.type}>(out + <usize>(c + ${4 * i}) * ${kind.bytes}, s${i});\n`).join("")}    }`;
/** One tap range along an axis: the first and the one behind the last tap that lie inside. */
const span = (v: string, x: number): string =>
  `d${v} = load<i32>(g, D + ${x}), ${v} = o${v} * load<i32>(g, S + ${x}) - load<i32>(g, P + ${x}), ${v}0 = ${v} < 0 ? ceilDiv(-${v}, d${v}) : 0, ${v}1 = max(${v}0, min(load<i32>(g, K + ${x}), load<i32>(g, N + ${x}) > ${v} ? ceilDiv(load<i32>(g, N + ${x}) - ${v}, d${v}) : 0))`;
const depthwise = (kind: Kind): string => `
function depthwise_${kind.name}(a: usize, begin: i32, end: i32): void {
  let C = load<i32>(a, 16), g = a + 20, w = load<usize>(a, 4), H = load<i32>(g, N + 4), W = load<i32>(g, N + 8), KH = load<i32>(g, K + 4), KW = load<i32>(g, K + 8);
  let OD = load<i32>(g, O), OH = load<i32>(g, O + 4), OW = load<i32>(g, O + 8), image = load<i32>(g, N) * H * W;
  for (let u = begin; u < end; u++) {
    let q = u / OW, ox = u - q * OW, oy = q % OH;
    q /= OH;
    let oz = q % OD, src = load<usize>(a) + <usize>(q / OD * image * C) * ${kind.bytes}, out = load<usize>(a, 8) + <usize>(u * C) * ${kind.bytes}, c = 0;
    let ${span("z", 0)};
    let ${span("y", 4)};
    let ${span("x", 8)};${channels(4, kind)}${channels(1, kind)}
    for (; c < C; c++) {
      let s: f32 = 0;
      for (let tz = z0; tz < z1; tz++) for (let ty = y0; ty < y1; ty++) for (let tx = x0; tx < x1; tx++) {
        let at = ((z + tz * dz) * H + y + ty * dy) * W + x + tx * dx;
        s += load1<${kind.type}>(src + <usize>(at * C + c) * ${kind.bytes}) * load<f32>(w + (<usize>(((tz * KH + ty) * KW + tx) * C + c) << 2));
      }
      store1<${kind.type}>(out + <usize>c * ${kind.bytes}, s);
    }
  }
}
`;
const depthwiseEntry = `
/**
 * Each channel with its own filter. Units: output pixels. Words: 0 input, 1 weights from \`taps\`, 2 out, 3 dtype, 4 channels, 5 ... geometry (input dilation 1).
 */
export function depthwise(a: usize, begin: i32, end: i32): void {
  let dtype = load<i32>(a, 12);
  if (dtype == 10) depthwise_f32(a, begin, end);
  else if (dtype == 12) depthwise_bf16(a, begin, end);
  else depthwise_f16(a, begin, end);
}
`;

/** How `direct` adds up the products of two runs of channels. */
const dot = (kind: Kind): string => `
function dot_${kind.name}(p: usize, q: usize, n: i32, s: v128): v128 {
  for (; n >= 4; n -= 4) { s = madd(load4<${kind.type}>(p), load4<${kind.type}>(q), s); p += ${4 * kind.bytes}; q += ${4 * kind.bytes}; }
  for (; n > 0; n--) { s = f32x4.add(s, f32x4.replace_lane(f32x4.splat(0), 0, load1<${kind.type}>(p) * load1<${kind.type}>(q))); p += ${kind.bytes}; q += ${kind.bytes}; }
  return s;
}
`;
const dot64 = `
function dot_f64(p: usize, q: usize, n: i32, s: v128): v128 {
  for (; n > 0; n--) { s = f64x2.add(s, f64x2.replace_lane(f64x2.splat(0), 0, load<f64>(p) * load<f64>(q))); p += 8; q += 8; }
  return s;
}
`;
const direct = (name: string, bytes: number, store: string): string => `
function direct_${name}(a: usize, begin: i32, end: i32): void {
  let channels = load<i32>(a, 16), own = load<i32>(a, 20), filters = load<i32>(a, 24), each = load<i32>(a, 28), g = a + 32;
  let D = load<i32>(g, N), H = load<i32>(g, N + 4), W = load<i32>(g, N + 8), KD = load<i32>(g, K), KH = load<i32>(g, K + 4), KW = load<i32>(g, K + 8);
  let OD = load<i32>(g, O), OH = load<i32>(g, O + 4), OW = load<i32>(g, O + 8);
  for (let u = begin; u < end; u++) {
    let q = u / OW, x = (u - q * OW) * load<i32>(g, S + 8) - load<i32>(g, P + 8), y = q % OH * load<i32>(g, S + 4) - load<i32>(g, P + 4);
    q /= OH;
    let z = q % OD * load<i32>(g, S) - load<i32>(g, P), src = load<usize>(a) + <usize>(q / OD * D * H * W * channels) * ${bytes};
    let w = load<usize>(a, 4), out = load<usize>(a, 8) + <usize>(u * filters) * ${bytes};
    for (let o = 0; o < filters; o++) {
      let s = i64x2.splat(0), first = o / each * own;
      for (let tz = 0; tz < KD; tz++) for (let ty = 0; ty < KH; ty++) {
        let pz = position(g, 0, z, tz), py = position(g, 4, y, ty);
        if ((pz | py) < 0) { w += <usize>(KW * own) * ${bytes}; continue; }
        for (let tx = 0; tx < KW; tx++) {
          let px = position(g, 8, x, tx);
          if (px >= 0) s = dot_${name}(src + <usize>(((pz * H + py) * W + px) * channels + first) * ${bytes}, w, own, s);
          w += <usize>own * ${bytes};
        }
      }
      ${store};
      out += ${bytes};
    }
  }
}
`;
const directEntry = `
/**
 * Any convolution. Units: output pixels. Words: 0 input, 1 weights [filter][tap][channel of the group], 2 out, 3 dtype, 4 channels, 5 channels of a group,
 * 6 filters, 7 filters of a group, 8 ... geometry.
 */
export function direct(a: usize, begin: i32, end: i32): void {
  let dtype = load<i32>(a, 12);
  if (dtype == 10) direct_f32(a, begin, end);
  else if (dtype == 12) direct_bf16(a, begin, end);
  else if (dtype == 9) direct_f16(a, begin, end);
  else direct_f64(a, begin, end);
}
`;

export const source = (): string =>
  [
    head, packHead, runs(4), runs(6), pack, taps, ...kinds.map(depthwise), depthwiseEntry, ...kinds.map(dot), dot64,
    ...kinds.map((k) => direct(k.name, k.bytes, `store1<${k.type}>(out, sum4(s))`)), direct("f64", 8, "store<f64>(out, f64x2.extract_lane(s, 0))"), directEntry,
  ].join("");
