/** Launches of the dense matrix products (assembly/templates/gemm.ts): which kernel, how the work is cut, what its words are. */
import { type Dtype, float32, float64 } from "../core/dtype.ts";
import { type Arg, type Choices, f32, type Launch, output, type Pointer, type Step, scratch, type Tunables } from "../core/op.ts";
import { collapseDims, sizeOf } from "../core/shape.ts";

/** Where the matrices of an operand lie, in elements: one (size, stride) per batch dimension. */
export interface Matrices {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}
/** An operand: matrices with a row and a column stride. `list` chooses a matrix for each matrix of the result. */
export interface Operand {
  readonly at: Pointer;
  readonly row: number;
  readonly column: number;
  readonly matrices: Matrices;
  readonly list?: Pointer;
}
/** out[batch, M, N] = alpha * a[batch, M, K] b[batch, K, N] + beta * c, out row-major. */
export interface Product {
  readonly dtype: Dtype;
  readonly batch: readonly number[];
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly a: Operand;
  readonly b: Operand;
  readonly c?: Operand;
  readonly alpha: number;
  readonly beta: number;
  /** Row and column stride of out, when they are not N and 1; the packed product takes only the column stride 1. */
  readonly out?: readonly [row: number, column: number];
  /** Elements between matrices of out, when not M * N (packed product only). */
  readonly outMatrix?: number;
}

/** At most this many rows share one read of the other operand without packing. */
const fewRows = { alongK: 10, alongN: 8 };
/**
 * What may be measured: whether the left operand is multiplied without packing (0: by the sizes, 1: never, 2: few rows are, up to `mostRows`), rows and columns of a packed block (0: by the sizes),
 * and the work of a thread at a time.
 */
export const productTunables = { way: [0, 1, 2], rows: [0, 48, 96, 252, 504], columns: [0, 16, 32, 64], grain: [1, 0.5, 2, 4] } as const satisfies Tunables;
const mostRows = 32;
/** Packed left operands take at most this many bytes at a time. */
const packedBytes = 16 << 20;
/** Packed rows come in groups of this many, and k in steps of `kStep`. */
export const rowGroup = 12;
export const kStep = 4;

export const ceilTo = (x: number, to: number): number => Math.ceil(x / to) * to;
export const clamp = (x: number, low: number, high: number): number => Math.max(low, Math.min(high, Math.floor(x)));

/** Fewest dimensions that walk the matrices; those of size 1 are dropped. */
const collapse = (m: Matrices): { shape: number[]; strides: number[] } => {
  const { shape, strides } = collapseDims(m.shape, m.strides);
  return { shape, strides: strides[0] as number[] };
};
const wordsOf = (m: Matrices): number[] => {
  const { shape, strides } = collapse(m);
  return [shape.length, ...shape.flatMap((d, i) => [d, strides[i] as number])];
};
const isShared = (o: Operand): boolean => !o.list && o.matrices.strides.every((s, i) => s === 0 || o.matrices.shape[i] === 1);
const none: Matrices = { shape: [], strides: [] };

/** Row stride when the matrices of an operand follow each other like rows of one tall matrix. */
function tallStride(o: Operand, M: number): number | undefined {
  if (o.list) return undefined;
  const { shape, strides } = collapse(o.matrices);
  if (shape.length > 1) return undefined;
  const stride = strides[0];
  if (stride === undefined || M === 1) return stride ?? o.row;
  return stride === M * o.row ? o.row : undefined;
}

/** One right operand for all matrices: then the batch is just more rows. */
function mergeBatch(p: Product): Product {
  const count = sizeOf(p.batch);
  if (count === 1 || !isShared(p.b)) return p;
  const row = tallStride(p.a, p.M);
  const cRow = p.c ? tallStride(p.c, p.M) : 0;
  if (row === undefined || cRow === undefined) return p;
  const b = { ...p.b, matrices: none };
  const merged = { ...p, batch: [], M: count * p.M, a: { ...p.a, row, matrices: none }, b };
  return p.c ? { ...merged, c: { ...p.c, row: cRow, matrices: none } } : merged;
}

/** The same product with out transposed: rows of out are columns of b. */
function transposed(p: Product): Product {
  const flip = (o: Operand): Operand => ({ ...o, row: o.column, column: o.row });
  const [row, column] = p.out ?? [p.N, 1];
  const q = { ...p, M: p.N, N: p.M, a: flip(p.b), b: flip(p.a), out: [column, row] as const };
  return p.c ? { ...q, c: flip(p.c) } : q;
}

type Way = "dot" | "axpy" | "packed";
/** How to multiply when a has few rows; "packed" when that does not fit. */
function fewRowsWay(p: Product, wish = 0): Way {
  if (p.dtype === float64 || wish === 1) return "packed";
  if (p.M <= (wish === 2 ? mostRows : fewRows.alongK) && (p.b.row === 1 || p.K === 1)) return "dot";
  return p.M <= (wish === 2 ? mostRows : fewRows.alongN) && (p.b.column === 1 || p.N === 1) ? "axpy" : "packed";
}

/** Work of a product of matrices; `choices` of `productTunables`. */
export function launchProduct(product: Product, choices: Choices = {}): Launch {
  const p = mergeBatch(product);
  if (sizeOf(p.batch) * p.M * p.N === 0) return { steps: [] };
  let way = fewRowsWay(p, choices["way"]);
  if (way !== "packed") return rowsProduct(p, way, choices);
  if (p.N < p.M) {
    const t = transposed(p);
    way = fewRowsWay(t, choices["way"]);
    if (way !== "packed") return rowsProduct(t, way, choices);
  }
  return isDirect(p) && choices["way"] !== 1 ? directProduct(p, choices) : packedProduct(p, choices);
}

/** Up to these sizes packing the left operand does not pay: `K` when it lies in rows, `M` when it lies transposed. */
const directMost = { N: 256, K: 256, M: 256 };
/** Whether the left operand may be read where it lies: float32, one matrix, nothing to add or to scale. */
function isDirect(p: Product): boolean {
  if (p.dtype !== float32 || p.K === 0 || p.K % kStep !== 0 || p.N > directMost.N || sizeOf(p.batch) !== 1) return false;
  if (p.a.column === 1 ? p.K > directMost.K : p.a.row !== 1 || p.M > directMost.M) return false;
  return (p.out?.[1] ?? 1) === 1 && !p.a.list && !p.b.list && !p.c && p.alpha === 1;
}
function directProduct(p: Product, choices: Choices): Launch {
  const inRows = p.a.column === 1;
  const cut = cutPacked(p, p.M, 1, choices);
  // Narrow blocks of many rows read the panels of the right operand most often. Runs of k are those of the packed product, so that its sums have the same bits.
  const blocks = inRows ? cut : { ...cut, columns: choices["columns"] || Math.min(cut.columns, 32) };
  const args = packedWords(p, { rows: p.M, row0: 0, count: 1, g0: 0, stride: (inRows ? p.a.row : p.a.column) * p.dtype.size }, blocks);
  args[0] = p.a.at;
  const units = Math.ceil(p.M / blocks.rows) * Math.ceil(p.N / blocks.columns);
  return { steps: [{ entry: `gemm/direct${inRows ? "" : "Columns"}`, args, units, grain: blocks.grain }] };
}

/** A float32 copy of x, each of its distinct matrices once, as an operand of `rowsProduct`. */
function widened(p: Product): { step: Step; x: Operand; bytes: number } {
  const { shape, strides } = p.a.matrices;
  const distinct = { shape: shape.filter((_, i) => strides[i] !== 0), strides: strides.filter((s) => s !== 0) };
  const to = new Array<number>(shape.length).fill(0);
  let step = p.M * p.K;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (strides[i] === 0) continue;
    to[i] = step;
    step *= shape[i] as number;
  }
  const units = sizeOf(distinct.shape) * p.M;
  const args = [p.a.at, scratch(0), p.dtype.code, p.M, p.K, p.a.row, p.a.column, ...wordsOf(distinct)];
  return {
    step: { entry: "gemm/rows", args, units, grain: clamp(16384 / Math.max(1, p.K), 1, units) },
    x: { ...p.a, at: scratch(0), row: p.K, column: 1, matrices: { shape, strides: to } },
    bytes: Math.max(64, units * p.K * 4),
  };
}

/** Few rows on the left: the right operand is read once, in order, without packing. */
function rowsProduct(p: Product, way: "dot" | "axpy", choices: Choices): Launch {
  const direct = p.dtype === float32 && (p.a.column === 1 || p.K === 1);
  const wide = direct ? undefined : widened(p);
  const x = wide ? wide.x : p.a;
  const count = sizeOf(p.batch);
  const runs = way === "dot" && p.b.list !== undefined && p.M === 1 && !p.c && count > 16;
  const cut = way === "dot" ? cutDot(p, runs ? count : 1, choices) : cutAxpy(p, count, choices);
  const [outRow, outColumn] = p.out ?? [p.N, 1];
  const head: Arg[] = [
    x.at, p.b.at, output(0), p.c ? p.c.at : 0, p.dtype.code, p.M, p.N, p.K, x.row, way === "dot" ? p.b.column : p.b.row,
    outRow, outColumn, p.M * p.N, f32(p.alpha), f32(p.beta), p.c?.row ?? 0, p.c?.column ?? 0,
    p.b.list ?? 0, sizeOf(p.b.matrices.shape), x.list ?? 0, sizeOf(x.matrices.shape),
  ];
  const [xs, bs, cs] = [wordsOf(x.matrices), wordsOf(p.b.matrices), wordsOf(p.c?.matrices ?? none)];
  const first = head.length + 5;
  const args = [...head, first, first + xs.length, first + xs.length + bs.length, cut.units, runs ? count : cut.block, ...xs, ...bs, ...cs];
  const main: Step = { entry: `gemm/${runs ? "dotRuns" : way}`, args, units: runs ? cut.units : cut.units * count, grain: cut.grain };
  return wide ? { steps: [wide.step, main], scratch: [wide.bytes] } : { steps: [main] };
}

interface Cut {
  /** Units of one matrix. */
  readonly units: number;
  readonly block: number;
  readonly grain: number;
}
/** Pairs of matrix rows; a chunk reads about 128 KB of each of its two streams. Multiples of 32 keep threads on different cache lines. */
function cutDot(p: Product, entries: number, { grain: wish = 1 }: Choices): Cut {
  const units = Math.ceil(p.N / 2);
  const work = (Math.max(1, p.K) * p.dtype.size * Math.max(1, p.M / 2) * entries) / wish;
  return { units, block: 0, grain: entries > 1 ? clamp((1 << 20) / work, 8, 512) : Math.max(32, Math.floor((1 << 17) / work / 32) * 32) };
}
/** Column blocks, as wide as leaves work for many threads. */
function cutAxpy(p: Product, count: number, { grain: wish = 1 }: Choices): Cut {
  const each = Math.max(1, p.M * p.K);
  let block = Math.min(2048, ceilTo(p.N, 32));
  while (block > 128 && count * Math.ceil(p.N / block) < 16 && block * each > 1 << 16) block = ceilTo(block / 2, 32);
  return { units: Math.ceil(p.N / block), block, grain: clamp((wish * (1 << 17)) / (block * each), 1, 1024) };
}

interface Blocks {
  readonly rows: number;
  readonly columns: number;
  readonly k: number;
  readonly grain: number;
}
/** Block sizes of the packed product: big enough to use caches well, small enough to keep 16 threads busy. */
function cutPacked(p: Product, rows: number, count: number, choices: Choices): Blocks {
  const k = p.dtype === float64 ? 128 : 256;
  const flops = (r: number, c: number): number => 2 * r * c * Math.max(1, p.K);
  let columns = Math.min(choices["columns"] || 64, ceilTo(p.N, 8));
  let block = Math.min(choices["rows"] || 504, ceilTo(rows, rowGroup));
  const units = (): number => count * Math.ceil(rows / block) * Math.ceil(p.N / columns);
  if (!choices["columns"] && columns === 64 && units() < 32 && flops(block, 64) > 1 << 22) columns = 32;
  while (!choices["rows"] && block > 48 && units() < 32 && flops(block, columns) > 1 << 22) block = ceilTo(block / 2, rowGroup);
  return { rows: block, columns, k, grain: clamp(((choices["grain"] ?? 1) * (1 << 20)) / flops(block, columns), 1, 256) };
}

/** General product: the left operand is packed by a step of its own, the right one by each unit. */
function packedProduct(p: Product, choices: Choices): Launch {
  const suffix = p.dtype === float64 ? "64" : "";
  const kp = ceilTo(p.K, kStep);
  const rowBytes = kp * (p.dtype === float64 ? 8 : 4);
  const count = sizeOf(p.batch);
  const shared = isShared(p.a);
  const rowsAtOnce = Math.min(ceilTo(p.M, rowGroup), Math.max(rowGroup, Math.floor(packedBytes / Math.max(1, rowBytes) / rowGroup) * rowGroup));
  const matrixBytes = rowsAtOnce * rowBytes;
  const atOnce = shared ? count : clamp(rowsAtOnce < p.M ? 1 : packedBytes / Math.max(1, matrixBytes), 1, count);
  const steps: Step[] = [];
  for (let row0 = 0; row0 < p.M; row0 += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, p.M - row0);
    const groups = Math.ceil(rows / rowGroup);
    for (let g0 = 0; g0 < count; g0 += atOnce) {
      const n = Math.min(atOnce, count - g0);
      const packs = (shared ? 1 : n) * groups;
      const at: Pointer = { ...p.a.at, bytes: p.a.at.bytes + row0 * p.a.row * p.dtype.size };
      const left = [at, scratch(0), p.dtype.code, rows, p.K, p.a.row, p.a.column, groups, shared ? 0 : g0, p.a.list ?? 0, sizeOf(p.a.matrices.shape), ...wordsOf(p.a.matrices)];
      if (p.K > 0) steps.push({ entry: `gemm/pack${suffix}`, args: left, units: packs, grain: clamp(16384 / (rowGroup * kp), 1, 1024) });
      steps.push(packedStep(p, { rows, row0, count: n, g0, stride: shared ? 0 : groups * rowGroup * rowBytes }, choices));
    }
  }
  return { steps, scratch: [Math.max(64, matrixBytes * (shared ? 1 : atOnce))] };
}

/** Rows of the left operand that lie packed in scratch buffer 0: `rows` from `row0` on, of `count` matrices from `g0` on, `stride` bytes apart. */
interface Packed {
  readonly rows: number;
  readonly row0: number;
  readonly count: number;
  readonly g0: number;
  readonly stride: number;
}
/** The product of packed rows with the right operand. */
export function packedStep(p: Product, left: Packed, choices: Choices = {}): Step {
  const blocks = cutPacked(p, left.rows, left.count, choices);
  const units = left.count * Math.ceil(left.rows / blocks.rows) * Math.ceil(p.N / blocks.columns);
  return { entry: `gemm/gemm${p.dtype === float64 ? "64" : ""}`, args: packedWords(p, left, blocks), units, grain: blocks.grain };
}

function packedWords(p: Product, { rows, row0, g0, stride }: Packed, blocks: Blocks): Arg[] {
  const b = wordsOf(p.b.matrices);
  return [
    scratch(0), p.b.at, output(0), p.c ? p.c.at : 0, p.dtype.code, rows, p.N, p.K, row0, blocks.rows, blocks.columns, p.b.row, p.b.column,
    f32(p.alpha), f32(p.beta), p.c?.row ?? 0, p.c?.column ?? 0, g0, stride, p.b.list ?? 0, sizeOf(p.b.matrices.shape),
    p.outMatrix ?? p.M * p.N, 25 + b.length, blocks.k, p.out?.[0] ?? p.N, ...b, ...wordsOf(p.c?.matrices ?? none),
  ];
}
