/** Gathers and scatters on the GPU. Every invocation moves or combines units of its own; updates that meet do so by atomics, in any order. */
import type { View } from "../core/array.ts";
import { type GpuGate, type GpuKernel, type GpuPointer, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, gpuUpdate, spreadGroups } from "../core/gpu.ts";
import type { InputLayout } from "../core/op.ts";
import { type Shape, rowStrides } from "../core/shape.ts";
import { type Walk, moverNeeds, padded, product, refuseLarge, spreadRows, unitOf, walksOf } from "./copy-gpu.ts";

type Mode = "assign" | "add" | "multiply" | "maximum" | "minimum";
const modes: readonly Mode[] = ["assign", "add", "multiply", "maximum", "minimum"];

/** An index array: where it lies, its type, and the dimension that it indexes (elements per step). */
interface IndexArray {
  readonly pointer: GpuPointer;
  readonly code: number;
  readonly size: number;
  readonly stride: number;
}
/** What a kernel of shaders/gather works on; the strides of `dims` are those of source, destination and each index array, in elements. */
interface Work {
  readonly size: number;
  readonly dims: readonly Walk[];
  readonly src: GpuPointer;
  readonly dst: GpuPointer;
  readonly arrays: readonly IndexArray[];
}
const stride = (d: Walk, i: number): number => d.strides[i] as number;

/** Index arrays that the push constants' addresses leave room for. */
const mostArrays = 13;
/** Outer dimensions that fit the push constants beside one index array. */
const mostOuter = 4;

interface WalkOptions {
  /** Behind the shader's name. */
  readonly suffix?: string;
  readonly unit?: number;
  /** Take the dimensions from a table in any case; one invocation for each outer index; the element at which the destination begins. */
  readonly table?: boolean;
  readonly alone?: boolean;
  readonly first?: number;
}
/** A dispatch with the operands of walk.glsl; `shader` is the name without `_table`. */
function walkStep(w: Work, shader: string, constants: readonly number[], { suffix = "", unit = w.size, table = false, alone = false, first = 0 }: WalkOptions): GpuStep {
  const inner = w.dims[w.dims.length - 1] as Walk;
  const outer = w.dims.slice(0, -1);
  const rows = product(outer);
  const { shift, groups } = spreadRows(alone ? 1 : inner.size, rows, unit);
  const words = [inner.size, stride(inner, 0), stride(inner, 1), rows, outer.length + 256 * first, shift];
  w.arrays.forEach((a, k) => {
    words.push(a.code, a.size, a.stride, stride(inner, 2 + k));
  });
  for (const d of outer) words.push(d.size, ...d.strides);
  const k = w.arrays.length;
  const buffers = [w.src, w.dst, ...w.arrays.map((a) => a.pointer)];
  if (!table && k === 1 && outer.length <= mostOuter) return { shader: shader + suffix, constants: [k, ...constants], buffers, words: padded(words, 26), groups };
  return { shader: `${shader}_table${suffix}`, constants: [k, ...constants], buffers, table: words, words: padded([], 2 * (mostArrays - k)), groups };
}

/** Dispatch that moves every element; `at` are known addresses in bytes, as in copy-gpu.ts. */
function moveStep(w: Work, scatters: boolean, at: readonly number[]): GpuStep {
  const inner = w.dims[w.dims.length - 1] ?? { size: 1, strides: [1, 1, ...w.arrays.map(() => 0)] };
  const outer = w.dims.slice(0, -1);
  const whole = inner.strides.every((n, i) => n === (i < 2 ? 1 : 0));
  if (!whole) return walkStep(w, "gather/move", [Number(scatters), 0], { suffix: `_${w.size}` });
  const unit = unitOf(w.size, [inner.size * w.size, ...at, ...w.arrays.map((a) => a.stride * w.size), ...outer.flatMap((d) => [stride(d, 0) * w.size, stride(d, 1) * w.size])]);
  const ratio = unit / w.size;
  const dims = [...outer.map((d) => ({ size: d.size, strides: d.strides.map((n, i) => (i < 2 ? n / ratio : n)) })), { ...inner, size: inner.size / ratio }];
  return walkStep({ ...w, dims, arrays: w.arrays.map((a) => ({ ...a, stride: a.stride / ratio })) }, "gather/move", [Number(scatters), 1], { suffix: `_${unit}`, unit });
}

const others = (rank: number, axes: readonly number[]): number[] => Array.from({ length: rank }, (_, i) => i).filter((i) => !axes.includes(i));
/** `list` taken at `kept`, with `middle` put in before place `at`. */
const around = (list: Shape, kept: readonly number[], at: number, middle: Shape): number[] => [...kept.slice(0, at).map((i) => list[i] as number), ...middle, ...kept.slice(at).map((i) => list[i] as number)];
const arraysOf = (inputs: readonly View[], first: number, axes: readonly number[], of: View): IndexArray[] =>
  axes.map((axis, k) => ({ pointer: gpuInput(first + k), code: (inputs[first + k] as View).dtype.code, size: of.shape[axis] as number, stride: of.strides[axis] as number }));
const addressOf = (v: View, elements = 0): number => (v.offset + elements) * v.dtype.size;

function refuseIndices(inputs: readonly View[], outputs: readonly View[], arrays: number): string | undefined {
  if (arrays > mostArrays) return `cannot: ${arrays} index arrays`;
  return refuseLarge(...inputs, ...outputs);
}

// gather

interface GatherParams {
  readonly axes: readonly number[];
  readonly at: number;
}
export const gpuGather: readonly GpuKernel<GatherParams>[] = [
  {
    name: "vulkan/gather/gather",
    layout: ["any"],
    gate: { needs: moverNeeds, refuse: (inputs, p, outputs) => refuseIndices(inputs, outputs, p.axes.length) },
    launch(inputs, [out], { axes, at }) {
      const [a, first] = inputs as [View, View];
      const to = out as View;
      const kept = others(a.shape.length, axes);
      const zeros = a.shape.map(() => 0);
      const src = around(a.strides, kept, at, first.shape.map(() => 0));
      const indices = inputs.slice(1).map((x) => around(zeros, kept, at, x.strides));
      const dims = walksOf(to.shape, [src, rowStrides(to.shape), ...indices]);
      const arrays = arraysOf(inputs, 1, axes, a);
      const one = { size: 1, strides: [1, 1, ...arrays.map(() => 0)] };
      const work = { size: a.dtype.size, dims: dims.length > 0 ? dims : [one], src: gpuInput(0), dst: gpuOutput(0), arrays };
      return { steps: [moveStep(work, false, [addressOf(a), addressOf(to)])] };
    },
  },
];
export const gpuTakeAlongAxis: readonly GpuKernel<{ axis: number }>[] = [
  {
    name: "vulkan/gather/takeAlongAxis",
    layout: ["any"],
    gate: { needs: moverNeeds, refuse: (inputs, _params, outputs) => refuseIndices(inputs, outputs, 1) },
    launch(inputs, [out], { axis }) {
      const [a, x] = inputs as [View, View];
      const to = out as View;
      const dims = walksOf(to.shape, [a.strides.map((n, i) => (i === axis ? 0 : n)), rowStrides(to.shape), x.strides]);
      const work = { size: a.dtype.size, dims, src: gpuInput(0), dst: gpuOutput(0), arrays: arraysOf(inputs, 1, [axis], a) };
      return { steps: [moveStep(work, false, [addressOf(a), addressOf(to)])] };
    },
  },
];

// scatter

/** A dimension of the updates; strides of updates, output and each index array. Updates may meet along some of them. */
interface ScatterDim extends Walk {
  readonly meets: boolean;
}
interface Scatter {
  readonly mode: Mode;
  /** In the order of the updates. */
  readonly dims: readonly ScatterDim[];
  /** Input with the updates, and where output 0 begins, in elements. */
  readonly updates: number;
  readonly start: number;
  readonly arrays: readonly IndexArray[];
}
const walksOfDims = (dims: readonly Walk[], operands: number): Walk[] =>
  walksOf(
    dims.map((d) => d.size),
    Array.from({ length: operands }, (_, i) => dims.map((d) => stride(d, i))),
  );

function scatterStep(inputs: readonly View[], out: View, s: Scatter): GpuStep[] {
  const { size, code } = out.dtype;
  const from = inputs[s.updates] as View;
  if (from.size === 0) return [];
  const operands = 2 + s.arrays.length;
  const one = { size: 1, strides: new Array<number>(operands).fill(0) };
  const dims = walksOfDims(s.dims, operands);
  const work = { size, src: gpuInput(s.updates), dst: gpuUpdate(0, s.start * size), arrays: s.arrays, dims: dims.length > 0 ? dims : [one] };
  if (s.mode === "assign") return [moveStep(work, true, [addressOf(from), addressOf(out, s.start)])];
  const constants = [modes.indexOf(s.mode), code];
  if (size === 8) {
    const [apart, meeting] = [false, true].map((meets) => walksOfDims(s.dims.filter((d) => d.meets === meets), operands)) as [Walk[], Walk[]];
    return [{ ...walkStep({ ...work, dims: [...apart, meeting[0] ?? one] }, "gather/serial", constants, { table: true, alone: true }), shader: "gather/serial" }];
  }
  // Elements are found in 32-bit words, so the kernel's address must be one of a word.
  const beyond = addressOf(out, s.start) % 4;
  return [walkStep({ ...work, dst: gpuUpdate(0, s.start * size - beyond) }, "gather/combine", constants, { first: beyond / size })];
}

/** Elements of 64 bits are combined along one dimension in which updates meet: index arrays and updates must be row-major for that. */
const scatterLayout = (inputs: readonly View[], { mode }: { mode: Mode }): readonly InputLayout[] => (mode !== "assign" && (inputs[0] as View).dtype.size === 8 ? ["row"] : ["row", "any"]);
function scatterGate<P extends { mode: Mode }>(arrays: (params: P) => number): GpuGate<P> {
  return {
    needs: moverNeeds,
    refuse(inputs, params, outputs) {
      if (params.mode !== "assign" && (outputs[0] as View).dtype.name === "float64") return "cannot: float64";
      return refuseIndices(inputs, outputs, arrays(params));
    },
  };
}

interface ScatterParams extends GatherParams {
  readonly mode: Mode;
  readonly region: { readonly start: Shape; readonly step: Shape };
}
export const gpuScatter: readonly GpuKernel<ScatterParams>[] = [
  {
    name: "vulkan/gather/scatter",
    layout: scatterLayout,
    base: 0,
    gate: scatterGate((p) => p.axes.length),
    launch(inputs, [out], { axes, at, mode, region }) {
      const to = out as View;
      const updates = inputs[1] as View;
      const indices = inputs.slice(2);
      const middle = indices[0]?.shape.length ?? 0;
      // Without index arrays the updates serve as one that is never looked at twice: every step of it is zero.
      const arrays = axes.length > 0 ? arraysOf(inputs, 2, axes, to) : [{ pointer: gpuInput(1), code: 1, size: 1, stride: 0 }];
      const kept = others(to.shape.length, axes);
      const dims = updates.shape.map((size, d): ScatterDim => {
        const meets = d >= at && d < at + middle;
        const axis = kept[d < at ? d : d - middle] as number;
        const place = meets ? 0 : (to.strides[axis] as number) * (region.step[axis] as number);
        return { size, meets, strides: [updates.strides[d] as number, place, ...arrays.map((_, k) => (meets ? (indices[k]?.strides[d - at] as number) : 0))] };
      });
      const start = kept.reduce((n, axis) => n + (to.strides[axis] as number) * (region.start[axis] as number), 0);
      return { steps: scatterStep(inputs, to, { mode, dims, updates: 1, start, arrays }) };
    },
  },
];
export const gpuPutAlongAxis: readonly GpuKernel<{ axis: number; mode: Mode }>[] = [
  {
    name: "vulkan/gather/putAlongAxis",
    layout: scatterLayout,
    base: 0,
    gate: scatterGate(() => 1),
    launch(inputs, [out], { axis, mode }) {
      const [, x, updates] = inputs as [View, View, View];
      const to = out as View;
      const dims = x.shape.map((size, d): ScatterDim => ({ size, meets: d === axis, strides: [updates.strides[d] as number, d === axis ? 0 : (to.strides[d] as number), x.strides[d] as number] }));
      return { steps: scatterStep(inputs, to, { mode, dims, updates: 2, start: 0, arrays: arraysOf(inputs, 1, [axis], to) }) };
    },
  },
];

// masks

/** Elements of the mask per workgroup, as in masked.comp. */
const maskBlock = 1024;
export const gpuMaskedScatter: readonly GpuKernel<{ depth: number }>[] = [
  {
    name: "vulkan/gather/maskedScatter",
    layout: ["row"],
    base: 0,
    gate: { needs: moverNeeds, refuse: (inputs, _params, outputs) => refuseIndices(inputs, outputs, 0) },
    launch([a, mask, values], [out], { depth }) {
      const { shape, dtype } = a as View;
      const run = shape.slice(depth).reduce((n, d) => n * d, 1);
      const elements = (mask as View).size;
      if (run === 0 || elements === 0 || (values as View).size === 0) return { steps: [] };
      const unit = unitOf(dtype.size, [run * dtype.size, addressOf(out as View), addressOf(values as View)]);
      const words = [elements, (run * dtype.size) / unit, (values as View).size / run - 1];
      const blocks = Math.ceil(elements / maskBlock);
      const groups = spreadGroups(blocks);
      const operands = [gpuInput(2), gpuInput(1)];
      return {
        scratch: [4 * blocks],
        steps: [
          { shader: "gather/masked_count", buffers: [gpuInput(1), ...operands, gpuScratchOut(0)], words, groups },
          { shader: `gather/masked_${unit}`, buffers: [gpuUpdate(0), ...operands, gpuScratchIn(0)], words, groups },
        ],
      };
    },
  },
];
