/** GPU kernels of the dense products (shaders/matmul): matmul, addmm and gatherMM. */
import type { View } from "../core/array.ts";
import {
  type GeneratedShader, type GpuDevice, type GpuFeature, type GpuKernel, type GpuLaunch, type GpuPointer, type GpuStep, type MatrixShape, floatWord, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, groupLimit,
  spreadGroups,
  halfNeeds, matrixNeeds, mostEpilogueOperands,
} from "../core/gpu.ts";
import type { Choices, InputLayout, Tunables } from "../core/op.ts";
import { broadcastStrides, collapseDims, sizeOf } from "../core/shape.ts";

/** An operand: strides of rows, columns, outer and inner matrices, in elements, from element `at` of input `input`. */
interface Operand {
  readonly input: number;
  readonly at: number;
  readonly row: number;
  readonly column: number;
  readonly outer: number;
  readonly inner: number;
  /** The first element and the matrices begin at multiples of 16 bytes. */
  readonly whole: boolean;
}
/** out = alpha * a b + beta * c for `count` matrices, `inner` of them in the inner batch dimension. */
interface Product {
  readonly suffix: string;
  readonly size: number;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly count: number;
  readonly inner: number;
  readonly a: Operand;
  readonly b: Operand;
  readonly c: Operand | undefined;
  /** Inputs that list the matrices of a and b, and how many there are to choose from. */
  readonly lists: { readonly inputs: readonly [number, number]; readonly counts: readonly [number, number] } | undefined;
  readonly alpha: number;
  readonly beta: number;
  readonly oRow: number;
  readonly oColumn: number;
  readonly oAt: number;
}
interface Scales {
  readonly alpha?: number;
  readonly beta?: number;
}

const suffixes: Readonly<Record<string, string>> = { float32: "f32", float16: "f16", bfloat16: "bf16" };
const flag = { c: 1, gather: 2, parts: 4 } as const;
const ceilTo = (x: number, to: number): number => Math.ceil(x / to) * to;

/** Workgroups that fill a large GPU about twice; fewer tiles than that are worth dividing K for. */
const fillGroups = 264;

// ---- what is to be multiplied

/** A view as matrices: a vector is a row on the left side and a column on the right one. */
function matrixOf(v: View, side: "left" | "right"): { shape: readonly number[]; strides: readonly number[] } {
  if (v.shape.length !== 1) return v;
  const [n, s] = [v.shape[0] as number, v.strides[0] as number];
  return side === "left" ? { shape: [1, n], strides: [0, s] } : { shape: [n, 1], strides: [s, 0] };
}
const lead = (shape: readonly number[]): readonly number[] => shape.slice(0, -2);
const fromEnd = (list: readonly number[], i: number): number => list[list.length - i] as number;

function operandOf(view: View, input: number, at: number, row: number, column: number, outer: number, inner: number): Operand {
  const whole = [view.offset + at, outer, inner].every((x) => (x * view.dtype.size) % 16 === 0);
  return { input, at, row, column, outer, inner, whole };
}
/** Elements that follow each other along rows (columns) can be read 16 bytes at a time. */
const wideRows = (o: Operand, size: number): boolean => o.whole && o.column === 1 && (o.row * size) % 16 === 0;
const wideColumns = (o: Operand, size: number): boolean => o.whole && o.row === 1 && (o.column * size) % 16 === 0;

/** Batch dimensions beyond the inner two become products of their own: element offsets of each. */
function outerOffsets(shape: readonly number[], strides: readonly (readonly number[])[]): number[][] {
  let all: number[][] = [strides.map(() => 0)];
  shape.forEach((n, d) => {
    all = all.flatMap((from) => Array.from({ length: n }, (_, i) => from.map((x, k) => x + i * ((strides[k] as readonly number[])[d] as number))));
  });
  return all;
}

/** Inputs: a, b and, for addmm, c. Usually one product; several when the batch has more than two dimensions that do not merge. */
function productsOf([a, b, c]: readonly View[], out: View, { alpha = 1, beta = 0 }: Scales): Product[] {
  const [A, B, dtype] = [a as View, b as View, out.dtype];
  const [x, y] = [matrixOf(A, "left"), matrixOf(B, "right")];
  const [M, N, K] = [fromEnd(x.shape, 2), fromEnd(y.shape, 1), fromEnd(x.shape, 1)];
  const batch = out.shape.slice(0, out.shape.length - Number(A.shape.length > 1) - Number(B.shape.length > 1));
  const full = c ? broadcastStrides(c.shape, c.strides, out.shape) : [];
  const cColumn = c && B.shape.length > 1 ? fromEnd(full, 1) : 0;
  const cRow = c && A.shape.length > 1 ? (full[batch.length] as number) : 0;
  const of = (m: { shape: readonly number[]; strides: readonly number[] }): number[] => broadcastStrides(lead(m.shape), lead(m.strides), batch);
  const { shape, strides } = collapseDims(batch, of(x), of(y), c ? full.slice(0, batch.length) : batch.map(() => 0));
  const [aRow, aColumn, bRow, bColumn] = [fromEnd(x.strides, 2), fromEnd(x.strides, 1), fromEnd(y.strides, 2), fromEnd(y.strides, 1)];
  const common = { suffix: suffixes[dtype.name] as string, size: dtype.size, N, K, lists: undefined, alpha, beta, oRow: N, oColumn: 1 };
  const tall = shape.length === 1 ? tallRows(strides.map((s) => s[0] as number), M, aRow, c ? cRow : undefined) : undefined;
  if (tall) {
    const rows = M * (shape[0] as number);
    return [{ ...common, M: rows, count: 1, inner: 1, oAt: 0, a: operandOf(A, 0, 0, tall.a, aColumn, 0, 0), b: operandOf(B, 1, 0, bRow, bColumn, 0, 0), c: c && operandOf(c, 2, 0, tall.c, cColumn, 0, 0) }];
  }
  const cut = Math.max(0, shape.length - 2);
  const inside = shape.slice(cut);
  const stride = (operand: number, dim: number): number => strides[operand]?.[shape.length - dim] ?? 0;
  const count = sizeOf(inside);
  return outerOffsets(shape.slice(0, cut), strides.map((s) => s.slice(0, cut))).map(([atA, atB, atC], i) => ({
    ...common, M, count, inner: inside[inside.length - 1] ?? 1, oAt: i * count * M * N,
    a: operandOf(A, 0, atA as number, aRow, aColumn, stride(0, 2), stride(0, 1)),
    b: operandOf(B, 1, atB as number, bRow, bColumn, stride(1, 2), stride(1, 1)),
    c: c && operandOf(c, 2, atC as number, cRow, cColumn, stride(2, 2), stride(2, 1)),
  }));
}
/** One right operand for all matrices: the batch is just more rows, when those of a (and c) follow each other. Gives the row strides. */
function tallRows([a, b, c]: readonly number[], M: number, aRow: number, cRow: number | undefined): { a: number; c: number } | undefined {
  if (b !== 0) return undefined;
  const row = (matrix: number, own: number): number | undefined => (M === 1 ? matrix : matrix === M * own ? own : undefined);
  const [x, y] = [row(a as number, aRow), cRow === undefined ? 0 : row(c as number, cRow)];
  return x === undefined || y === undefined ? undefined : { a: x, c: y };
}

/** gatherMM: inputs a, b and the lists of their matrices. Each operand's batch is one dimension (see `gatherLayout`). */
function gatherProduct([a, b, left]: readonly View[], out: View): Product {
  const [A, B] = [a as View, b as View];
  const matrices = (v: View): { stride: number; count: number } => {
    const { strides } = collapseDims(lead(v.shape), lead(v.strides));
    return { stride: strides[0]?.[0] ?? 0, count: sizeOf(lead(v.shape)) };
  };
  const [x, y] = [matrices(A), matrices(B)];
  const [M, N, K] = [fromEnd(A.shape, 2), fromEnd(B.shape, 1), fromEnd(A.shape, 1)];
  return {
    suffix: suffixes[out.dtype.name] as string, size: out.dtype.size, M, N, K, count: (left as View).size, inner: 1, alpha: 1, beta: 0, oRow: N, oColumn: 1, oAt: 0, c: undefined,
    a: operandOf(A, 0, 0, fromEnd(A.strides, 2), fromEnd(A.strides, 1), 0, x.stride),
    b: operandOf(B, 1, 0, fromEnd(B.strides, 2), fromEnd(B.strides, 1), 0, y.stride),
    lists: { inputs: [2, 3], counts: [x.count, y.count] },
  };
}

/** The same product with the result turned: rows of out are columns of b. */
function turned(p: Product): Product {
  const flip = (o: Operand): Operand => ({ ...o, row: o.column, column: o.row });
  const lists = p.lists && { inputs: [p.lists.inputs[1], p.lists.inputs[0]] as const, counts: [p.lists.counts[1], p.lists.counts[0]] as const };
  return { ...p, M: p.N, N: p.M, a: flip(p.b), b: flip(p.a), c: p.c && flip(p.c), lists, oRow: p.oColumn, oColumn: p.oRow };
}

// ---- steps

/** How K is divided; with more than one part the sums go to a scratch buffer, and a second step adds them. */
export interface Parts {
  readonly parts: number;
  readonly kPart: number;
}
/** Parts of K that bring tiles to about one workgroup for each processor of a large GPU. */
export const whenFull = (groups: number): number => Math.floor(fillGroups / 2 / groups);
/** Parts of at least `least` of K, whole multiples of `unit`, for about `wanted` parts. */
export function divide(K: number, wanted: number, least: number, unit: number, partBytes: number): Parts {
  const most = Math.min(Math.floor(K / least), Math.floor((64 << 20) / partBytes), 64);
  const parts = Math.max(1, Math.min(wanted, most));
  const kPart = Math.max(unit, ceilTo(Math.ceil(K / parts), unit));
  return { kPart, parts: Math.max(1, Math.ceil(K / kPart)) };
}

/** Push constants of shaders/matmul/product.glsl. */
function buffersOf(p: Product, to: GpuPointer, a: GpuPointer): GpuPointer[] {
  const operand = (o: Operand): GpuPointer => gpuInput(o.input, o.at * p.size);
  const [c, d] = p.lists ? p.lists.inputs.map((i) => gpuInput(i)) : [p.c ? operand(p.c) : a, a];
  return [a, operand(p.b), to, c as GpuPointer, d as GpuPointer];
}
function wordsOf(p: Product, kPart: number): number[] {
  const { a, b, c, lists } = p;
  const cStrides = lists ? lists.counts : [c?.outer ?? 0, c?.inner ?? 0];
  return [
    p.M, p.N, p.K, a.row, a.column, b.row, b.column, p.oRow, p.oColumn, c?.row ?? 0, c?.column ?? 0, floatWord(p.alpha), floatWord(p.beta),
    p.count, p.inner, a.outer, a.inner, b.outer, b.inner, ...cStrides, kPart,
  ];
}
/** What a kernel says about its main step. */
interface Main extends Parts {
  readonly shader: string;
  readonly constants: readonly number[];
  readonly groups: readonly [number, number, number];
  readonly subgroupSize?: number;
}
/** Steps of a product: the main one and, with divided K, the one that adds the parts. */
function stepsOf(p: Product, { shader, constants, groups, parts, kPart, ...rest }: Main): { steps: GpuStep[]; scratch: number } {
  const aAt = gpuInput(p.a.input, p.a.at * p.size);
  const out = gpuOutput(0, p.oAt * p.size);
  const gather = p.lists ? flag.gather : 0;
  const last = p.c ? flag.c : 0;
  const main = (flags: number, to: GpuPointer): GpuStep => ({ shader, constants: [flags, ...constants], buffers: buffersOf(p, to, aAt), words: wordsOf(p, kPart), groups, ...rest });
  if (parts === 1) return { steps: [main(gather | last, out)], scratch: 0 };
  const size = p.count * p.M * p.N;
  const sum: GpuStep = {
    shader: `matmul/sum_${p.suffix}`, constants: [last], buffers: buffersOf({ ...p, lists: undefined }, out, gpuScratchIn(0)),
    words: wordsOf({ ...p, lists: undefined }, parts), groups: spreadGroups(Math.ceil(size / 256)),
  };
  return { steps: [main(gather | flag.parts, gpuScratchOut(0)), sum], scratch: parts * size * 4 };
}
/** One launch of the products' steps; they share a scratch buffer. */
function launchOf(products: readonly Product[], plan: (p: Product) => Main): GpuLaunch {
  const all = products.map((p) => stepsOf(p, plan(p)));
  const scratch = Math.max(0, ...all.map((x) => x.scratch));
  const steps = all.flatMap((x) => x.steps);
  return scratch > 0 ? { steps, scratch: [scratch] } : { steps };
}

// ---- elementwise ops on the result

/** What finishes the elements of a product, and how its further operands lie (shaders/common/epilogue.glsl). */
export interface ProductEpilogue {
  /** The build of a shader (of those with EPILOGUE) that ends with it. */
  readonly shader: (build: string) => GeneratedShader;
  readonly kinds: readonly EpilogueOperand[];
}
/** An array of the result's shape, a row for all rows, or one value. */
export type EpilogueOperand = "result" | "row" | "value";
const kindNumbers = { result: 1, row: 2, value: 3 } as const;
/** The kinds in the kernel's flags. */
export const kindBits = (kinds: readonly EpilogueOperand[]): number => kinds.reduce((bits, kind, k) => bits + kindNumbers[kind] * 2 ** (8 + 2 * k), 0);
/** Addresses of the further operands, inputs from `first` on; `none` where there are less than the kernel takes. */
export const epilogueBuffers = (kinds: readonly EpilogueOperand[], first: number, none: GpuPointer): GpuPointer[] =>
  Array.from({ length: mostEpilogueOperands }, (_, k) => (k < kinds.length ? gpuInput(first + k) : none));
/** The build of a shader that ends with the epilogue: `tiled4_f32` -> `tiled4e_f32`. */
export const epilogueShader = (shader: string, finish: ProductEpilogue): GeneratedShader => finish.shader(shader.replace(/(_[a-z0-9]+)?$/, (type) => `e${type}`));

/** As `stepsOf`, of a product whose result is finished by an epilogue; its operands are inputs from 2 on. */
function stepsWithEpilogue(p: Product, main: Main, finish: ProductEpilogue): GpuLaunch {
  const { shader, constants, groups, parts, kPart, ...rest } = main;
  const { a, b } = p;
  const words = (first: number): number[] => [p.M, p.N, p.K, a.row, a.column, b.row, b.column, p.count, p.inner, a.outer, a.inner, b.outer, b.inner, first];
  const at = (o: Operand): GpuPointer => gpuInput(o.input, o.at * p.size);
  const own = kindBits(finish.kinds);
  if (parts === 1) {
    const buffers = [at(a), at(b), gpuOutput(0), ...epilogueBuffers(finish.kinds, 2, at(a))];
    return { steps: [{ shader: epilogueShader(shader, finish), constants: [own, ...constants], buffers, words: words(kPart), groups, ...rest }] };
  }
  const { steps, scratch } = stepsOf(p, main);
  const sums: GpuStep = {
    shader: epilogueShader(`matmul/sum_${p.suffix}`, finish), constants: [own], buffers: [gpuScratchIn(0), gpuScratchIn(0), gpuOutput(0), ...epilogueBuffers(finish.kinds, 2, gpuScratchIn(0))],
    words: words(parts), groups: spreadGroups(Math.ceil((p.count * p.M * p.N) / 256)),
  };
  return { steps: [steps[0] as GpuStep, sums], scratch: [scratch] };
}

// ---- few rows

const rowsAtOnce = (M: number): number => (M <= 1 ? 1 : M <= 2 ? 2 : M <= 4 ? 4 : 8);
/** Workgroups over x, and everything else over y and z. */
const rowGroups = (x: number, others: number): [number, number, number] => [Math.min(x, groupLimit), Math.min(others, groupLimit), Math.ceil(others / groupLimit)];

/** Columns of b lie along K: subgroups share K. */
function planGemv(p: Product, device: GpuDevice, choices: Choices): Main {
  const MT = rowsAtOnce(p.M);
  const R = choices["rows"] || (MT > 1 || p.N >= 8192 ? 2 : 1);
  const lanes = Math.min(choices["lanes"] || (p.N >= 8192 ? 256 : 128), device.groupInvocations);
  const chunks = Math.ceil(p.M / MT);
  const others = chunks * p.count;
  const busy = Math.ceil(p.N / R) * others;
  const { parts, kPart } = divide(p.K, choices["parts"] || Math.ceil(1024 / busy), 4096, 512, p.count * p.M * p.N * 4);
  const perGroup = Math.max(1, lanes / device.subgroupSize) * R;
  return { shader: `matmul/gemv_${p.suffix}`, constants: [lanes, MT, R, Number(wideRows(p.a, p.size)), Number(wideColumns(p.b, p.size))], groups: rowGroups(Math.ceil(p.N / perGroup), others * parts), parts, kPart };
}
/** Rows of b lie along N (or b has any strides): invocations side by side take columns. */
function planGevm(p: Product, choices: Choices): Main {
  const MT = rowsAtOnce(p.M);
  const C = wideRows(p.b, p.size) && p.N % (16 / p.size) === 0 ? 16 / p.size : 1;
  const blocks = Math.ceil(p.N / (32 * C));
  const others = Math.ceil(p.M / MT) * p.count;
  const { parts, kPart } = divide(p.K, choices["parts"] || (p.K <= 256 ? 1 : Math.ceil(fillGroups / (blocks * others))), 64, 32, p.count * p.M * p.N * 4);
  return { shader: `matmul/gevm_${p.suffix}`, constants: [MT, C], groups: rowGroups(blocks, others * parts), parts, kPart };
}
/** The side with fewer rows goes left; columns of b that lie along K are shared out along K, others along N. */
const fewFirst = (p: Product): Product => (p.N < p.M ? turned(p) : p);
const planFewRows: Plan = (p, device, choices) => (p.b.row === 1 || p.K === 1 ? planGemv(p, device, choices) : planGevm(p, choices));

/** Most products of `gemvSiblings`. */
export const mostDenseSiblings = 3;
/**
 * Up to three products of few rows of a with matrices whose columns lie along K at one distance, in one launch: the same bits as one after the other. Inputs: a, then each b.
 * Undefined when the matrices differ in more than their columns.
 */
export function gemvSiblings([a, ...bs]: readonly View[], outs: readonly View[], device: GpuDevice): GpuLaunch | undefined {
  const products = bs.map((b, i) => productsOf([a as View, b], outs[i] as View, {}));
  const [p] = products[0] as [Product];
  const same = (q: Product): boolean => q.M === p.M && q.N >= q.M && q.count === 1 && q.b.row === 1 && q.b.column === p.b.column && q.suffix === p.suffix;
  if (outs.length > mostDenseSiblings || !products.every((list) => list.length === 1 && same(list[0] as Product))) return undefined;
  const all = products.map(([q]) => q as Product);
  const N = all.reduce((n, q) => n + q.N, 0);
  const { shader, constants, parts } = planGemv({ ...p, N, b: { ...p.b, whole: all.every((q) => q.b.whole) } }, device, {});
  // Sums in parts depend on the number of columns.
  if (parts > 1 || all.some((q) => planGemv(q, device, {}).parts > 1)) return undefined;
  const [lanes, MT, R] = constants as [number, number, number];
  const perGroup = Math.max(1, lanes / device.subgroupSize) * R;
  const groups = all.reduce((n, q) => n + Math.ceil(q.N / perGroup), 0);
  if (groups > groupLimit) return undefined;
  const at = (i: number): number => (i < all.length ? i : 0);
  const buffers = Array.from({ length: mostDenseSiblings }, (_, i) => [gpuInput(1 + at(i)), gpuOutput(at(i))]).flat();
  const sizes = Array.from({ length: mostDenseSiblings }, (_, i) => all[i]?.N ?? 0);
  return {
    steps: [{ shader: shader.replace("gemv_", "gemv_siblings_"), constants: [0, ...constants], buffers: [gpuInput(0), ...buffers], words: [p.M, p.K, p.a.row, p.a.column, p.b.column, ...sizes], groups: rowGroups(groups, Math.ceil(p.M / MT)) }],
  };
}

// ---- tiles

function planTiled(p: Product, choices: Choices): Main {
  const tiles = (side: number): number => Math.ceil(p.M / side) * Math.ceil(p.N / side) * p.count;
  const R = choices["tile"] || (p.M > 64 && p.N > 64 && tiles(128) >= fillGroups / 2 ? 8 : 4);
  const groups = tiles(16 * R);
  const { parts, kPart } = divide(p.K, choices["parts"] || whenFull(groups), 512, 16, p.count * p.M * p.N * 4);
  const alongK = [p.a.column === 1 || p.a.row !== 1, p.b.row === 1 && p.b.column !== 1];
  return { shader: `matmul/tiled${R}_${p.suffix}`, constants: alongK.map(Number), groups: spreadGroups(groups * parts), parts, kPart };
}

// ---- matrix units

/** A workgroup's tile, what a subgroup makes of it, and whether tiles in shared memory are double-buffered. */
export interface MatrixTile {
  readonly BM: number;
  readonly BN: number;
  readonly BK: number;
  readonly WM: number;
  readonly WN: number;
  readonly stages: 1 | 2;
}
/** Biggest first; one is taken when it gives a large GPU enough workgroups. */
export const matrixTiles: readonly MatrixTile[] = [
  { BM: 128, BN: 128, BK: 32, WM: 64, WN: 64, stages: 2 },
  { BM: 64, BN: 64, BK: 64, WM: 32, WN: 32, stages: 2 },
  { BM: 32, BN: 64, BK: 64, WM: 16, WN: 32, stages: 2 },
];
/** Vulkan's numbers of component types. */
const component = { float16: 0, float32: 1, bfloat16: 1000141000 } as const;

/** The device's fragments of float16 or bfloat16 with float32 sums that the kernels can use: 16 x 16 x 16 when there are such. */
export function matrixShape(device: GpuDevice, dtype: string): MatrixShape | undefined {
  const type = dtype === "float16" || dtype === "bfloat16" ? component[dtype] : undefined;
  if (type === undefined || !device.features.cooperativeMatrix || !device.features.subgroupSizeControl) return undefined;
  if (dtype === "bfloat16" && !device.features.bfloat16) return undefined;
  const fits = device.cooperativeMatrix.filter(
    (s) => s.a === type && s.b === type && s.c === component.float32 && s.result === component.float32 && s.scope === 3 && [s.m, s.n, s.k].every((x) => x === 8 || x === 16),
  );
  return fits.find((s) => s.m === 16 && s.n === 16 && s.k === 16) ?? fits[0];
}
/** Bytes of shared memory that a tile takes; lines of a and b are along K or across it. */
function matrixBytes(t: MatrixTile, fragment: MatrixShape, aAlongK: boolean, bAlongK: boolean): number {
  const lines = (alongK: boolean, across: number): number => (alongK ? across * (t.BK / 8 + 1) : t.BK * (across / 8 + 1));
  const tiles = t.stages * (lines(aAlongK, t.BM) + lines(bAlongK, t.BN));
  const strips = (t.BM / t.WM) * (t.BN / t.WN) * fragment.m * (t.WN / 4 + 1);
  return 16 * Math.max(tiles, strips);
}
/** Compiling a tile for a software rasterizer takes minutes unless it is small. */
const softwareTile: MatrixTile = { BM: 16, BN: 16, BK: 16, WM: 8, WN: 8, stages: 1 };
const mesa = 0x10005;
export const tilesFor = (device: GpuDevice, tiles: readonly MatrixTile[]): readonly MatrixTile[] => (device.vendorId === mesa ? [softwareTile] : tiles);
/** The biggest tile that gives a large GPU one workgroup for each processor (smaller tiles: fewer, that they may take), in as many stages as shared memory takes. */
export function chooseTile(device: GpuDevice, fragment: MatrixShape, M: number, N: number, count: number, aAlongK: boolean, bAlongK: boolean, tiles: readonly MatrixTile[]): MatrixTile | undefined {
  const fitting = tiles.flatMap((t) => {
    const small = (x: MatrixTile): boolean => matrixBytes(x, fragment, aAlongK, bAlongK) <= device.sharedMemoryBytes;
    return [t, { ...t, stages: 1 } as const].filter((x) => x.WM % fragment.m === 0 && x.WN % fragment.n === 0 && x.BK % fragment.k === 0 && small(x)).slice(0, 1);
  });
  const enough = (t: MatrixTile): number => (fillGroups / 2) * Math.min(1, (t.BM * t.BN) / 128 ** 2);
  return fitting.find((t) => Math.ceil(M / t.BM) * Math.ceil(N / t.BN) * count >= enough(t)) ?? fitting[fitting.length - 1];
}
/** Spec constants 1 to 9 of shaders/matmul/coopmat.comp (lanes, tile, fragment). */
export const tileConstants = (t: MatrixTile, fragment: MatrixShape, subgroupSize: number): number[] => [
  (t.BM / t.WM) * (t.BN / t.WN) * subgroupSize, t.BM, t.BN, t.BK, t.WM, t.WN, fragment.m, fragment.n, fragment.k,
];

type Products = (inputs: readonly View[], out: View, params: Scales) => readonly Product[];
type Plan = (p: Product, device: GpuDevice, choices: Choices) => Main;
/** Parts of K that may be measured; 0 here and below: by the sizes. */
const partsTunable = [0, 1, 2, 4, 8] as const;
const dtypeOf: Readonly<Record<string, string>> = { f16: "float16", bf16: "bfloat16" };
const planMatrix = (tiles?: readonly MatrixTile[]): Plan => (p, device, choices) => {
  const fragment = matrixShape(device, dtypeOf[p.suffix] as string) as MatrixShape;
  const alongK = [p.a.column === 1 || p.a.row !== 1, p.b.row === 1 && p.b.column !== 1] as const;
  const { tile = 0 } = choices;
  const choose = (list: readonly MatrixTile[]): MatrixTile | undefined => chooseTile(device, fragment, p.M, p.N, p.count, ...alongK, list);
  const t = ((tile > 0 && choose(tilesFor(device, matrixTiles.slice(tile - 1, tile)))) || choose(tiles ?? tilesFor(device, matrixTiles))) as MatrixTile;
  const groups = Math.ceil(p.M / t.BM) * Math.ceil(p.N / t.BN) * p.count;
  const { parts, kPart } = divide(p.K, choices["parts"] || whenFull(groups), 512, t.BK, p.count * p.M * p.N * 4);
  const whole = (n: number): boolean => n % 8 === 0;
  const aWide = alongK[0] ? wideRows(p.a, 2) && whole(p.K) : wideColumns(p.a, 2) && whole(p.M);
  const bWide = alongK[1] ? wideColumns(p.b, 2) && whole(p.K) : wideRows(p.b, 2) && whole(p.N);
  // The result begins at a multiple of 256 bytes; products of an outer batch begin within it.
  const oWide = whole(p.N) && whole(p.oAt) && (parts > 1 || !p.c);
  return {
    shader: `matmul/coopmat_${p.suffix}`, constants: [...tileConstants(t, fragment, device.subgroupSize), ...[...alongK, aWide, bWide, oWide].map(Number), t.stages],
    groups: spreadGroups(groups * parts), parts, kPart, subgroupSize: device.subgroupSize,
  };
};
const noMatrixUnits = (tiles?: readonly MatrixTile[]) => (p: Product, device: GpuDevice): string | undefined => {
  const fragment = matrixShape(device, dtypeOf[p.suffix] ?? "");
  if (!fragment) return `cannot: the device has no matrix units for ${p.suffix}`;
  return chooseTile(device, fragment, p.M, p.N, p.count, true, false, tiles ?? tilesFor(device, matrixTiles)) ? undefined : "cannot: too little shared memory";
};

// ---- records

const span = (v: View): number => v.shape.reduce((sum, n, i) => sum + (n - 1) * Math.abs(v.strides[i] as number), 1);
function refusal(inputs: readonly View[], [out]: readonly View[]): string | undefined {
  const [a] = inputs as [View];
  if (!suffixes[a.dtype.name]) return `cannot: dtype ${a.dtype}`;
  return [...inputs, out as View].some((v) => Math.max(v.size, span(v)) >= 2 ** 31) ? "cannot: more than 2^31 elements" : undefined;
}
const ascending = (v: View): boolean => v.strides.every((s) => s >= 0);
/** Any layout without negative strides. */
const productLayout = (inputs: readonly View[]): readonly InputLayout[] => inputs.map((v) => (ascending(v) ? "any" : "row"));
/** Matrices of an operand that follow each other at one distance; lists row-major. */
const gatherLayout = (inputs: readonly View[]): readonly InputLayout[] =>
  inputs.map((v, i) => (i < 2 && ascending(v) && collapseDims(lead(v.shape), lead(v.strides)).shape.length <= 1 ? "any" : "row"));

/** How an op's inputs become products, and the layouts they need. */
interface Family {
  readonly products: Products;
  readonly layout: typeof productLayout;
}
const dense: Family = { products: productsOf, layout: productLayout };
const gathered: Family = { products: (inputs, out) => [gatherProduct(inputs, out)], layout: gatherLayout };

/** A kernel of a family; `refuse` looks at the first product. */
function kernelOf(name: GpuKernel["name"], { products, layout }: Family, plan: Plan, tune: Tunables, refuse?: (p: Product, device: GpuDevice) => string | undefined, more: readonly GpuFeature[] = []): GpuKernel {
  return {
    name,
    layout,
    tune,
    gate: {
      needs: more,
      typeNeeds: more.length > 0 ? matrixNeeds : halfNeeds,
      refuse: (inputs, params, outputs, device) => {
        const out = outputs[0] as View;
        const why = refusal(inputs, outputs);
        if (why !== undefined || out.size === 0) return why;
        return refuse?.(products(inputs, out, params)[0] as Product, device);
      },
    },
    launch: (inputs, [out], params, device, choices = {}) => launchOf(products(inputs, out as View, params), (p) => plan(p, device, choices)),
  };
}
const manyRows = (p: Product): string | undefined => (Math.min(p.M, p.N) > 8 ? "slower: more than 8 rows and columns" : undefined);
/** Tiles by their place in `matrixTiles`. */
const matrixTunables: Tunables = { tile: [0, ...matrixTiles.map((_, i) => i + 1)], parts: partsTunable };
const matrixKernel = (family: Family, tiles?: readonly MatrixTile[]): GpuKernel =>
  kernelOf("vulkan/matmul/coopmat", family, planMatrix(tiles), matrixTunables, noMatrixUnits(tiles), ["cooperativeMatrix", "subgroupSizeControl", "vulkanMemoryModel"]);
/** The kernel of matmul on matrix units with tiles to choose from: for benches and tests. */
export const matmulWithTiles = (tiles: readonly MatrixTile[]): GpuKernel => matrixKernel(dense, tiles);
const kernelsOf = (family: Family): readonly GpuKernel[] => [
  kernelOf("vulkan/matmul/gemv", { ...family, products: (...x) => family.products(...x).map(fewFirst) }, planFewRows, { rows: [0, 1, 2], lanes: [0, 128, 256], parts: partsTunable }, manyRows),
  matrixKernel(family),
  // Rows and columns of an invocation's tile.
  kernelOf("vulkan/matmul/tiled", family, (p, _device, choices) => planTiled(p, choices), { tile: [0, 4, 8], parts: partsTunable }),
];
export const gpuMatmul: readonly GpuKernel[] = kernelsOf(dense);
/**
 * The launch of matmul(inputs 0 and 1), with `finish` applied to its result, by the kernel of this name, or the reason why there is none. Further inputs are the operands of
 * `finish`, in the result's dtype, row-major.
 */
export function matmulEpilogue(kernel: string, inputs: readonly View[], [out]: readonly View[], finish: ProductEpilogue, device: GpuDevice, choices: Choices = {}): GpuLaunch | string {
  const plans: Readonly<Record<string, Plan>> = { "vulkan/matmul/tiled": (p, _device, c) => planTiled(p, c), "vulkan/matmul/coopmat": planMatrix(), "vulkan/matmul/gemv": planFewRows };
  const plan = plans[kernel];
  if (!plan) return `cannot: ${kernel} takes no epilogue`;
  const [product, ...more] = productsOf(inputs.slice(0, 2), out as View, {});
  if (!product || more.length > 0) return "cannot: several products";
  if (kernel === "vulkan/matmul/gemv" && fewFirst(product) !== product) return "cannot: the result is made turned";
  const reached = inputs.slice(2).filter((_, k) => finish.kinds[k] !== "value");
  if (kernel === "vulkan/matmul/coopmat" && reached.some((v) => (v.offset * v.dtype.size) % 16 !== 0)) return "cannot: an operand does not begin at a multiple of 16 bytes";
  return stepsWithEpilogue(product, plan(product, device, choices), finish);
}
export const gpuGatherMM: readonly GpuKernel[] = kernelsOf(gathered);
