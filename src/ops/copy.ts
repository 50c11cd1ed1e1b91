/** Copies from any layout to any layout: the `copy` op, and the launch steps that other ops place their data with. */
import type { View } from "../core/array.ts";
import { type Arg, type Pointer, type Step, defineOp, input, output } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { type Shape, collapseDims, rowStrides } from "../core/shape.ts";
import { gpuCopy } from "./copy-gpu.ts";

/** Bytes that one thread should take at a time: some 10 us of copying. */
const chunkBytes = 131072;
const segmentBytes = 65536;

/** Start indices that a kernel reads when it runs, so that a recorded list can be replayed with others. */
export interface Starts {
  /** Address of the i32 indices. */
  readonly pointer: Pointer;
  /** The side that they move. */
  readonly moves: "src" | "dst";
  /** Elements per step of each index. */
  readonly strides: readonly number[];
  /** Largest value of each index (it is clamped to 0 .. largest), -1: not clamped. */
  readonly largest: readonly number[];
}

interface Dim {
  size: number;
  src: number;
  dst: number;
}

/** Arguments that all kernels of assembly/copy.ts share, around the inner part's words 6 .. 10. */
function copyArgs(src: Pointer, dst: Pointer, outer: readonly Dim[], inner: readonly number[], starts: Starts | undefined, size: number): Arg[] {
  const args: Arg[] = [src, dst, starts ? starts.pointer : 0, starts ? starts.strides.length : 0, starts?.moves === "dst" ? 1 : 0, outer.length];
  for (let i = 0; i < 5; i++) args.push((inner[i] ?? 0) | 0);
  for (const d of outer) args.push(d.size, d.src | 0, d.dst | 0);
  if (starts) for (let i = 0; i < starts.strides.length; i++) args.push(((starts.strides[i] as number) * size) | 0, starts.largest[i] as number);
  return args;
}

const product = (dims: readonly Dim[]): number => dims.reduce((n, d) => n * d.size, 1);

/**
 * Steps that copy `shape` elements of `elementSize` bytes between two places that do not overlap. Strides in elements. Rows that are contiguous on both
 * sides are copied whole, transpositions go in tiles, everything else element by element.
 */
export function copySteps(elementSize: number, shape: Shape, src: Pointer, srcStrides: Shape, dst: Pointer, dstStrides: Shape, starts?: Starts): Step[] {
  const c = collapseDims(shape, srcStrides, dstStrides);
  let dims = c.shape.map((size, i): Dim => ({ size, src: (c.strides[0]?.[i] as number) * elementSize, dst: (c.strides[1]?.[i] as number) * elementSize }));
  if (dims.some((d) => d.size === 0)) return [];
  let size = elementSize;
  const run = dims[dims.length - 1];
  if (!run) return [{ entry: "copy/rows", args: copyArgs(src, dst, [], [size, 1, size], starts, elementSize), units: 1, grain: 1 }];
  if (run.src === size && run.dst === size) {
    const bytes = run.size * size;
    // A row of 2, 4 or 8 bytes counts as one wider element.
    const wide = bytes <= 8 && (bytes & (bytes - 1)) === 0 && dims.length > 1;
    dims = dims.slice(0, -1);
    if (!wide) return [rowStep(src, dst, dims, bytes, starts, elementSize)];
    size = bytes;
  }
  const last = dims[dims.length - 1] as Dim;
  const across = dims.findIndex((d) => d.src === size && d !== last && d.size >= 4);
  if (across >= 0 && last.dst === size && last.size >= 4) {
    const t = dims[across] as Dim;
    const outer = dims.filter((d) => d !== t && d !== last);
    const units = product(outer) * Math.ceil(t.size / 32) * Math.ceil(last.size / 32);
    return [{ entry: `copy/tiles${size}`, args: copyArgs(src, dst, outer, [t.size, last.size, last.src, t.dst], starts, elementSize), units, grain: 16 }];
  }
  return [elementStep(src, dst, dims, size, starts, elementSize)];
}

function rowStep(src: Pointer, dst: Pointer, outer: readonly Dim[], bytes: number, starts: Starts | undefined, elementSize: number): Step {
  const piece = Math.min(bytes, segmentBytes);
  const segments = Math.ceil(bytes / piece);
  // A row costs about as much as 64 bytes before its first byte is moved.
  const grain = Math.max(1, Math.floor(chunkBytes / (piece + 64)));
  return { entry: "copy/rows", args: copyArgs(src, dst, outer, [bytes, segments, piece], starts, elementSize), units: product(outer) * segments, grain };
}

function elementStep(src: Pointer, dst: Pointer, dims: readonly Dim[], size: number, starts: Starts | undefined, elementSize: number): Step {
  // A short inner loop pays the walk over the outer dimensions too often: take the longest dimension instead.
  let inner = dims[dims.length - 1] as Dim;
  if (inner.size < 8) for (const d of dims) if (d.size > inner.size) inner = d;
  const outer = dims.filter((d) => d !== inner);
  const piece = Math.min(inner.size, 8192);
  const segments = Math.ceil(inner.size / piece);
  const grain = Math.max(1, Math.floor(16384 / (piece + 8)));
  return { entry: `copy/elements${size}`, args: copyArgs(src, dst, outer, [inner.size, segments, piece, inner.src, inner.dst], starts, elementSize), units: product(outer) * segments, grain };
}

/** Step that fills `bytes` bytes with the value (of `size` bytes) at an address. */
export const fillStep = (dst: Pointer, value: Pointer, size: number, bytes: number): Step => ({ entry: "fill/fill", args: [dst, value, size, bytes | 0], units: Math.ceil(bytes / 65536), grain: 2 });

/** Row-major copy of an array of any layout. */
const behind = noRule("made by the scheduler, behind all transforms");
export const copyOp = defineOp({
  name: "copy",
  infer: ([a]) => [a as View],
  reference: ([a]) => [a as Float64Array],
  vjp: behind,
  jvp: behind,
  vmap: behind,
  kernels: [
    {
      name: "wasm/copy/strided",
      layout: ["any"],
      launch: ([a], [out]) => ({ steps: copySteps((out as View).dtype.size, (a as View).shape, input(0), (a as View).strides, output(0), rowStrides((a as View).shape)) }),
    },
  ],
  gpu: gpuCopy,
});
