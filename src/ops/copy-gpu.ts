/** Copies on the GPU from any layout to any layout: the kernels of `copy` and of the ops that place their data with copies. */
import type { View } from "../core/array.ts";
import { type GpuKernel, type GpuPointer, type GpuStep, gpuInput, gpuOutput, gpuUpdate, groupLimit, spreadGroups } from "../core/gpu.ts";
import { type Shape, collapseDims, rowStrides } from "../core/shape.ts";

/** Invocations of a workgroup of the copying kernels. */
export const lanes = 256;
export const moverNeeds = ["storageBuffer8BitAccess", "storageBuffer16BitAccess"] as const;

/** One side of a copy. Strides count elements. */
export interface Side {
  readonly pointer: GpuPointer;
  readonly strides: Shape;
  /** Address of the pointer in bytes, as far as is known: a multiple of 16 when this is. */
  readonly at: number;
}
export const sourceSide = (views: readonly View[], i: number, strides: Shape = (views[i] as View).strides): Side => ({
  pointer: gpuInput(i),
  strides,
  at: (views[i] as View).offset * (views[i] as View).dtype.size,
});
/** A place in output 0, `elements` behind its first element. `whole`: the copy writes all of the output. */
export const targetSide = (out: View, strides: Shape, elements = 0, whole = false): Side => {
  const bytes = elements * out.dtype.size;
  return { pointer: (whole ? gpuOutput : gpuUpdate)(0, bytes), strides, at: out.offset * out.dtype.size + bytes };
};

/** Start indices (int32) that the kernel reads and that move one of the sides. */
export interface GpuStarts {
  readonly pointer: GpuPointer;
  readonly moves: "src" | "dst";
  /** Elements per step of each index, and its largest value (it is clamped to 0 .. largest). */
  readonly strides: readonly number[];
  readonly largest: readonly number[];
}

/** A dimension that a kernel walks; one stride for each operand. */
export interface Walk {
  readonly size: number;
  readonly strides: readonly number[];
}
export const walksOf = (shape: Shape, strides: readonly Shape[]): Walk[] => {
  const c = collapseDims(shape, ...strides);
  return c.shape.map((size, i) => ({ size, strides: c.strides.map((list) => list[i] as number) }));
};
export const product = (dims: readonly { readonly size: number }[]): number => dims.reduce((n, d) => n * d.size, 1);
const wider = (x: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, x)));

/** Bytes of the widest unit (1 to 16) that divides all these numbers of bytes; at least `size`. */
export function unitOf(size: number, bytes: readonly number[]): number {
  let unit = 16;
  while (unit > size && bytes.some((n) => n % unit !== 0)) unit /= 2;
  return unit;
}

/** How the invocations of copying kernels stand: `shift` of rowOf and firstOf in units.glsl, and the workgroups. */
export function spreadRows(inner: number, rows: number, unit: number): { shift: number; groups: [number, number, number] } {
  const total = inner * rows;
  // Large copies have four units in flight per invocation, small ones as many invocations as they can get.
  const each = total >= 2 ** 20 ? 4 : total >= 2 ** 19 ? 2 : 1;
  const least = Math.min(wider(inner), wider(64 / unit));
  const width = Math.min(lanes, Math.max(least, wider(inner / each)));
  const x = Math.min(groupLimit, Math.ceil(inner / (width * each)));
  const groups = Math.ceil(rows / (lanes / width));
  const y = Math.min(groups, groupLimit);
  return { shift: Math.log2(width), groups: [x, y, Math.ceil(groups / y)] };
}

export const padded = (words: readonly number[], length: number): number[] => [...words, ...new Array<number>(length - words.length).fill(0)];

/** Dispatches that copy `shape` elements of `size` bytes between two places that do not overlap. */
export function gpuCopySteps(size: number, shape: Shape, src: Side, dst: Side, starts?: GpuStarts): GpuStep[] {
  let dims = walksOf(shape, [src.strides, dst.strides]);
  if (dims.some((d) => d.size === 0)) return [];
  let last = dims[dims.length - 1] ?? { size: 1, strides: [1, 1] };
  if (last.strides.some((n) => n !== 1)) return transposed(size, dims, src, dst, starts) ?? [strided(size, dims, src, dst, starts, 1)];
  const outer = dims.slice(0, -1);
  const aligned = [src.at, dst.at, ...outer.flatMap((d) => d.strides.map((n) => n * size)), ...(starts?.strides ?? []).map((n) => n * size)];
  if (outer.length === 0 && !starts && src.at % 16 === 0 && dst.at % 16 === 0) return [flat(last.size * size, src, dst)];
  const unit = unitOf(size, [last.size * size, ...aligned]);
  const ratio = unit / size;
  last = { size: last.size / ratio, strides: [1, 1] };
  dims = outer.map((d) => ({ size: d.size, strides: d.strides.map((n) => n / ratio) }));
  // A run of one unit is an element of that size.
  if (last.size > 1 || dims.length === 0) return [strided(unit, [...dims, last], src, dst, starts, ratio)];
  return (unit < 16 ? transposed(unit, dims, src, dst, starts) : undefined) ?? [strided(unit, dims, src, dst, starts, ratio)];
}

function flat(bytes: number, src: Side, dst: Side): GpuStep {
  const units = Math.floor(bytes / 16);
  const each = units >= 2 ** 20 ? 4 : units >= 2 ** 19 ? 2 : 1;
  return { shader: "copy/flat", buffers: [src.pointer, dst.pointer], words: [units, bytes % 16], groups: [Math.min(groupLimit, Math.max(1, Math.ceil(units / (lanes * each)))), 1, 1] };
}

/** Words of outer dimensions as the kernels of shaders/copy take them. */
const dimWords = (dims: readonly Walk[]): number[] => dims.flatMap((d) => [d.size, d.strides[0] as number, d.strides[1] as number]);

/** Copy in units of `unit` bytes, `ratio` elements; dims in units. */
function strided(unit: number, dims: readonly Walk[], src: Side, dst: Side, starts: GpuStarts | undefined, ratio: number): GpuStep {
  const inner = dims[dims.length - 1] ?? { size: 1, strides: [1, 1] };
  const outer = dims.slice(0, -1);
  const rows = product(outer);
  const { shift, groups } = spreadRows(inner.size, rows, unit);
  const head = [inner.size, inner.strides[0] as number, inner.strides[1] as number, rows, outer.length, shift];
  if (!starts && outer.length <= 7) return { shader: `copy/strided_${unit}`, buffers: [src.pointer, dst.pointer], words: padded([...head, ...dimWords(outer)], 28), groups };
  const moves = starts?.strides.length ?? 0;
  const table = [...Array.from({ length: moves }, (_, i) => [(starts?.strides[i] as number) / ratio, starts?.largest[i] as number]).flat(), ...dimWords(outer)];
  // Without start indices their address is not read.
  return { shader: `copy/tabled_${unit}`, buffers: [src.pointer, dst.pointer, starts?.pointer ?? src.pointer], table: [...table, 0], words: [...head, moves, starts?.moves === "dst" ? 1 : 0], groups };
}

/** Copy through tiles when another dimension than the last one is contiguous at the source; undefined when it is not such a copy. */
function transposed(unit: number, dims: readonly Walk[], src: Side, dst: Side, starts: GpuStarts | undefined): GpuStep[] | undefined {
  const along = dims[dims.length - 1];
  const across = dims.find((d) => d !== along && d.strides[0] === 1 && d.size >= 8);
  if (starts || !along || !across || along.strides[1] !== 1 || along.size < 8) return undefined;
  const outer = dims.filter((d) => d !== along && d !== across);
  if (outer.length > 6) return undefined;
  const side = unit <= 2 ? 64 : 32;
  const [acrossTiles, alongTiles] = [Math.ceil(across.size / side), Math.ceil(along.size / side)];
  const tiles = acrossTiles * alongTiles * product(outer);
  const head = [across.size, across.strides[1] as number, along.size, along.strides[0] as number, acrossTiles, alongTiles, tiles, outer.length];
  return [{ shader: `copy/tiles_${unit}`, buffers: [src.pointer, dst.pointer], words: padded([...head, ...dimWords(outer)], 28), groups: spreadGroups(tiles) }];
}

/** Elements between the first and the last one that a view reaches. */
const extent = (v: View): number => v.shape.reduce((n, d, i) => n + Math.max(0, d - 1) * Math.abs(v.strides[i] as number), 0);
/** Indices in the kernels have 31 bits. */
export const refuseLarge = (...views: readonly View[]): string | undefined => (views.some((v) => extent(v) >= 2 ** 31 - 2 ** 20) ? "cannot: more than 2^31 elements" : undefined);

export const gpuCopy: readonly GpuKernel[] = [
  {
    name: "vulkan/copy/strided",
    layout: ["any"],
    gate: { needs: moverNeeds, refuse: ([a], _params, [out]) => refuseLarge(a as View, out as View) },
    launch: (inputs, [out]) => {
      const { dtype, shape } = out as View;
      return { steps: gpuCopySteps(dtype.size, shape, sourceSide(inputs, 0), targetSide(out as View, rowStrides(shape), 0, true)) };
    },
  },
];
