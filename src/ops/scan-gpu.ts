/** GPU kernels of the running reductions. */
import type { View } from "../core/array.ts";
import { type Dtype, bool, float64, toBfloat16Bits, toFloat16Bits } from "../core/dtype.ts";
import { type GpuKernel, type GpuLaunch, type GpuStep, floatWord, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, spreadGroups } from "../core/gpu.ts";
import { sizeOf } from "../core/shape.ts";
import { orderOf, reduceGate } from "./reduce-gpu.ts";

interface ScanParams {
  readonly axis: number;
  readonly reverse: boolean;
  readonly inclusive: boolean;
}
interface ScanPlan {
  readonly lanes: number;
  readonly across: number;
  readonly chunk: number;
  readonly chunks: number;
  readonly tiles: number;
}
/** Workgroups that a large device is to have, and tiles of four elements per invocation that make a chunk worth one. */
const groupsWanted = 1024;
const tilesPerChunk = 4;
/** How lines of n elements, `inner` apart, are laid over workgroups. Few widths, because each is a pipeline. */
export function planScan(lines: number, n: number, inner: number): ScanPlan {
  const across = inner === 1 ? (n <= 16 ? 1 : n <= 512 ? 32 : 256) : n < 16 || lines >= 8192 ? 1 : lines <= 8 ? 64 : 8;
  const lanes = across === 1 || (inner === 1 && across === 32) ? 128 : 256;
  const tiles = Math.ceil(lines / (lanes / across));
  const unit = 4 * across;
  const cuts = across === 1 ? 1 : Math.min(Math.ceil(n / (unit * tilesPerChunk)), Math.floor(groupsWanted / tiles));
  const chunk = cuts <= 1 ? n : Math.ceil(n / cuts / unit) * unit;
  return { lanes, across, chunk, chunks: Math.ceil(n / chunk), tiles };
}

/** Lowest (or highest) value of a type as words, high word first when there are two: what a running maximum (minimum) begins with. */
function limitOf(d: Dtype, highest: boolean): [number, number] {
  const value = highest ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
  if (d === float64) return [highest ? 0x7ff00000 : 0xfff00000, 0];
  if (d.isInexact) return [d.size !== 2 ? floatWord(value) : d.name === "float16" ? toFloat16Bits(value) : toBfloat16Bits(value), 0];
  if (d === bool) return [Number(highest), 0];
  const bits = Math.min(32, 8 * d.size);
  const low = d.size === 8 && highest ? 0xffffffff : 0;
  if (d.kind === "unsigned") return [highest ? 2 ** bits - 1 : 0, low];
  return [highest ? 2 ** (bits - 1) - 1 : 2 ** (bits - 1), low];
}
const rules: Readonly<Record<string, number>> = { cumsum: 0, cumprod: 1, logcumsumexp: 2, cummax: 0, cummin: 1 };
/** What stands behind `scan_` in the shader's name, and the constants that say what elements are. */
function shaderOf(name: string, from: Dtype, to: Dtype): { build: string; kinds: readonly number[] } {
  if (name === "cummax" || name === "cummin") return { build: `extreme_${from.size}`, kinds: orderOf(from) };
  const size = (d: Dtype): number => (d.kind === "complex" ? 4 : d.size);
  const family = !from.isInexact ? "int" : size(from) === 8 ? "double" : "float";
  return { build: `${family}_${size(from)}_${size(to)}`, kinds: family === "float" ? [Number(from.name === "bfloat16")] : [] };
}

function launch(name: string, x: View, out: View, { axis, reverse, inclusive }: ScanParams): GpuLaunch {
  const n = x.shape[axis] as number;
  // A complex number is two independent sums.
  const inner = sizeOf(x.shape.slice(axis + 1)) * (x.dtype.kind === "complex" ? 2 : 1);
  const lines = sizeOf(x.shape.slice(0, axis)) * inner;
  const { lanes, across, chunk, chunks, tiles } = planScan(lines, n, inner);
  const { build, kinds } = shaderOf(name, x.dtype, out.dtype);
  const packed = inner === 1 && n % 4 === 0 && x.dtype.size < 8 && x.offset % 4 === 0 && out.offset % 4 === 0;
  const step = (part: boolean): GpuStep => ({
    shader: `reduce/scan_${part ? "part_" : ""}${build}`,
    constants: [lanes, across, Number(inner === 1), Number(packed), rules[name] as number, ...kinds],
    buffers: [gpuInput(0), part ? gpuInput(0) : gpuOutput(0), chunks === 1 ? gpuInput(0) : part ? gpuScratchOut(0) : gpuScratchIn(0)],
    words: [lines, n, inner, chunk, chunks, tiles, Number(reverse), Number(inclusive), ...limitOf(x.dtype, name === "cummin")],
    groups: spreadGroups(tiles * chunks),
  });
  return chunks === 1 ? { steps: [step(false)] } : { steps: [step(true), step(false)], scratch: [lines * chunks * 8] };
}

export const gpuScan = (name: string): readonly GpuKernel<ScanParams>[] => {
  const gate = reduceGate((x) => x.dtype === float64 && (name === "cumsum" || name === "cumprod"));
  return [
    {
      name: `vulkan/scan/${name}`,
      inPlace: [0],
      gate: {
        ...gate,
        refuse: (inputs, params, outputs, device) =>
          name === "logcumsumexp" && (inputs[0] as View).dtype === float64 ? "cannot: float64 has no exponential in a shader" : gate.refuse?.(inputs, params, outputs, device),
      },
      launch: ([x], [out], params) => launch(name, x as View, out as View, params),
    },
  ];
};
