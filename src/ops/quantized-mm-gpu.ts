/** GPU kernels of the quantized product for many rows (shaders/quantized/mm_*). */
import type { View } from "../core/array.ts";
import { env } from "../core/env.ts";
import { type GpuDevice, type GpuKernel, type GpuLaunch, type GpuPointer, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, halfNeeds, matrixNeeds, spreadGroups } from "../core/gpu.ts";
import type { Choices } from "../core/op.ts";
import { type MatrixTile, type Parts, type ProductEpilogue, chooseTile, divide, epilogueBuffers, epilogueShader, gpuMatmul, kindBits, matmulEpilogue, matrixShape, tileConstants, tilesFor, whenFull } from "./matmul-gpu.ts";
import { gpuDequantize, qmvEpilogue } from "./quantized-gpu.ts";
import { type ProductParams, last, rowsOf } from "./quantized-launch.ts";

const suffixes: Readonly<Record<string, string>> = { float32: "f32", float16: "f16", bfloat16: "bf16" };
const types: Readonly<Record<string, number>> = { float32: 0, float16: 1, bfloat16: 2 };
/** As `matrixTiles`, with longer steps along K, so that a row's packed weights fill a cache sector. */
export const quantizedTiles: readonly MatrixTile[] = [
  { BM: 128, BN: 128, BK: 64, WM: 64, WN: 32, stages: 1 },
  { BM: 64, BN: 64, BK: 64, WM: 32, WN: 32, stages: 2 },
  { BM: 32, BN: 64, BK: 64, WM: 16, WN: 32, stages: 2 },
];
/** Parts of K that may be measured; 0: by the sizes. */
const partsTunable = [0, 1, 2, 4, 8] as const;
/** Rows of x up to which the kernels that read the weights once per row (or few rows) are better. */
const fewRows = 8;

interface Sizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}
const sizesOf = ([x]: readonly View[], [out]: readonly View[]): Sizes => ({ M: rowsOf(x as View), N: last(out as View), K: last(x as View) });

function refusal(inputs: readonly View[], outputs: readonly View[], { mode }: ProductParams): string | undefined {
  const [x, , scales] = inputs as readonly [View, View, View];
  if (!suffixes[x.dtype.name] || (!mode && !suffixes[scales.dtype.name])) return `cannot: dtypes ${x.dtype} and ${scales.dtype}`;
  if ([...inputs, ...outputs].some((v) => v.size >= 2 ** 31) || sizesOf(inputs, outputs).N * last(x) >= 2 ** 31) return "cannot: more than 2^31 elements";
  return undefined;
}
const slower = ({ M }: Sizes): string | undefined => (M <= fewRows && env("MLX_VK_ENABLE_QMM_NATIVE_M1") ? `slower: at most ${fewRows} rows` : undefined);

interface Main {
  readonly shader: GpuStep["shader"];
  readonly constants: readonly number[];
  readonly groups: readonly [number, number, number];
  readonly subgroupSize?: number;
}
/** The product's step and, with divided K, the one that adds the parts; `more` follows the place of the result in the buffers of the former, `c` is what the latter adds. */
function launchParts(inputs: readonly View[], outputs: readonly View[], { parts, kPart }: Parts, step: Main, { mode }: ProductParams, more: readonly GpuPointer[] = [], c?: GpuPointer): GpuLaunch {
  const { M, N, K } = sizesOf(inputs, outputs);
  const out = outputs[0] as View;
  const operands = [gpuInput(0), gpuInput(1), gpuInput(2), ...(mode ? [] : [gpuInput(3)])];
  const words = [M, N, K, kPart];
  if (parts === 1) return { steps: [{ ...step, buffers: [...operands, gpuOutput(0), ...more], words }] };
  const sum = {
    shader: "quantized/sum", constants: [256, types[out.dtype.name] as number, Number(c !== undefined)], buffers: [gpuScratchIn(0), gpuOutput(0), c ?? gpuScratchIn(0)], words: [M * N, parts],
    groups: spreadGroups(Math.ceil((M * N) / 256)),
  };
  return { steps: [{ ...step, buffers: [...operands, gpuScratchOut(0), ...more], words }, sum], scratch: [parts * M * N * 4] };
}
/** The place of c behind the operands of the product, in kernels that add it. */
const addendAt = ({ mode }: ProductParams): number => (mode ? 3 : 4);

const matrixKernel = (tiles?: readonly MatrixTile[]): GpuKernel<ProductParams> => {
  const tileFor = (device: GpuDevice, dtype: string, { M, N }: Sizes, { tile = 0 }: Choices = {}): MatrixTile | undefined => {
    const fragment = matrixShape(device, dtype);
    const choose = (list: readonly MatrixTile[]): MatrixTile | undefined => fragment && chooseTile(device, fragment, M, N, 1, true, true, list);
    const chosen = tile > 0 ? choose(tilesFor(device, quantizedTiles.slice(tile - 1, tile))) : undefined;
    return chosen ?? choose(tiles ?? tilesFor(device, quantizedTiles));
  };
  return {
    name: "vulkan/quantized/mm_coopmat",
    gate: {
      needs: ["storageBuffer16BitAccess", "cooperativeMatrix", "subgroupSizeControl", "vulkanMemoryModel"],
      typeNeeds: matrixNeeds,
      env: "MLX_VK_ENABLE_QMM_NATIVE",
      refuse: (inputs, p, outputs, device) => {
        const [x, , scales] = inputs as readonly [View, View, View];
        if (!p.transpose) return "cannot: the weights are not transposed";
        if (x.dtype !== scales.dtype) return `cannot: x is ${x.dtype} and the scales are ${scales.dtype}`;
        const sizes = sizesOf(inputs, outputs);
        if (!tileFor(device, x.dtype.name, sizes)) return `cannot: the device has no matrix units for ${x.dtype}, or too little shared memory`;
        return refusal(inputs, outputs, p) ?? slower(sizes);
      },
    },
    // Tiles by their place in `quantizedTiles`; 0: by the sizes.
    tune: { tile: [0, ...quantizedTiles.map((_, i) => i + 1)], parts: partsTunable },
    launch: (inputs, outputs, p, device, choices) => {
      const [x] = inputs as [View];
      const sizes = sizesOf(inputs, outputs);
      const { M, N, K } = sizes;
      const t = tileFor(device, x.dtype.name, sizes, choices) as MatrixTile;
      const groups = Math.ceil(M / t.BM) * Math.ceil(N / t.BN);
      const parts = divide(K, choices?.["parts"] || whenFull(groups), 256, t.BK, M * N * 4);
      const xWide = (x.offset * 2) % 16 === 0;
      const fragment = tileConstants(t, matrixShape(device, x.dtype.name) as NonNullable<ReturnType<typeof matrixShape>>, device.subgroupSize);
      const constants = [Number(parts.parts > 1), ...fragment, t.stages, p.bits, p.groupSize, Number(xWide), Number(N % 8 === 0)];
      return launchParts(inputs, outputs, parts, { shader: `quantized/mm_coopmat_${suffixes[x.dtype.name]}`, constants, groups: spreadGroups(groups * parts.parts), subgroupSize: device.subgroupSize }, p);
    },
  };
};
/** The kernel on matrix units with tiles to choose from: for benches and tests. */
export const quantizedWithTiles = (tiles: readonly MatrixTile[]): GpuKernel<ProductParams> => matrixKernel(tiles);

const tiledKernel = (residual: boolean): GpuKernel<ProductParams> => ({
  name: "vulkan/quantized/mm_tiled",
  gate: {
    needs: ["storageBuffer16BitAccess"],
    typeNeeds: halfNeeds,
    env: "MLX_VK_ENABLE_QMM_NATIVE",
    refuse: (inputs, p, outputs) => {
      const sizes = sizesOf(inputs, outputs);
      const packed = p.transpose ? sizes.K : sizes.N;
      if (packed % 32 !== 0) return `cannot: rows of ${packed} packed values do not come in whole blocks of 32`;
      return refusal(inputs, outputs, p) ?? slower(sizes);
    },
  },
  tune: { parts: partsTunable },
  launch: (inputs, outputs, p, _device, choices) => launchTiled(inputs, outputs, p, choices, residual ? "addend" : undefined),
});
/** `last`: input after the product's is added, or inputs after them are the epilogue's operands. */
function launchTiled(inputs: readonly View[], outputs: readonly View[], p: ProductParams, choices: Choices | undefined, last?: "addend" | ProductEpilogue): GpuLaunch {
  const [x, , scales] = inputs as readonly [View, View, View];
  const { M, N, K } = sizesOf(inputs, outputs);
  const groups = Math.ceil(M / 64) * Math.ceil(N / 64);
  const parts = divide(K, choices?.["parts"] || whenFull(groups), 256, 32, M * N * 4);
  const outType = parts.parts > 1 ? 0 : (types[(outputs[0] as View).dtype.name] as number);
  const shader = `quantized/mm_${p.mode ? "small" : "tiled"}_${suffixes[x.dtype.name]}`;
  const main = { shader, constants: [p.bits, p.groupSize, Number(p.transpose), p.mode ? 0 : (types[scales.dtype.name] as number), outType], groups: spreadGroups(groups * parts.parts) };
  const flagged = (shader: Main["shader"], flags: number): Main => ({ ...main, shader, constants: [...main.constants, flags] });
  if (typeof last !== "object") {
    const c = last ? gpuInput(addendAt(p)) : undefined;
    return launchParts(inputs, outputs, parts, flagged(shader, Number(last !== undefined && parts.parts === 1)), p, [c ?? gpuInput(0)], c);
  }
  const finish = (none: GpuPointer): GpuPointer[] => epilogueBuffers(last.kinds, addendAt(p), none);
  if (parts.parts === 1) return launchParts(inputs, outputs, parts, flagged(epilogueShader(shader, last), kindBits(last.kinds)), p, finish(gpuInput(0)));
  const { steps, ...rest } = launchParts(inputs, outputs, parts, flagged(shader, 0), p, [gpuInput(0)]);
  const sums = steps[1] as GpuStep;
  const [lanes, type] = sums.constants as [number, number];
  const finished = { ...sums, shader: epilogueShader("quantized/sum", last), constants: [lanes, type, kindBits(last.kinds)], buffers: [gpuScratchIn(0), gpuOutput(0), ...finish(gpuScratchIn(0))], words: [...sums.words, N] };
  return { steps: [steps[0] as GpuStep, finished], ...rest };
}
/** Most bytes of unpacked weights. */
const unpackedLimit = 512 << 20;
/** Rows from which unpacking the weights once is cheaper than unpacking them for every tile of rows. */
const manyRows = 32;
const matmulOnMatrixUnits = gpuMatmul.find((k) => k.name === "vulkan/matmul/coopmat") as GpuKernel;

/** The weights as a dense matrix [N, K] and as the right operand [K, N]. */
function unpackedViews(inputs: readonly View[], outputs: readonly View[]): { dense: View; right: View } {
  const { N, K } = sizesOf(inputs, outputs);
  const { dtype } = inputs[0] as View;
  const common = { dtype, offset: 0, size: N * K };
  return { dense: { ...common, shape: [N, K], strides: [K, 1], contiguous: true }, right: { ...common, shape: [K, N], strides: [1, K], contiguous: false } };
}
/** The same steps over other buffers. */
const moved = (steps: readonly GpuStep[], to: (p: GpuPointer) => GpuPointer): GpuStep[] => steps.map((s) => ({ ...s, buffers: s.buffers.map(to) }));

/** Unpacks the weights into scratch memory, once, and multiplies them as a dense matrix: unpacking inside the product repeats it for every tile of rows. */
const unpackedKernel = (residual: boolean): GpuKernel<ProductParams> => ({
  name: "vulkan/quantized/mm_unpacked",
  gate: {
    needs: ["storageBuffer16BitAccess", "cooperativeMatrix", "subgroupSizeControl", "vulkanMemoryModel"],
    typeNeeds: matrixNeeds,
    refuse: (inputs, p, outputs, device) => {
      if (!p.transpose) return "cannot: the weights are not transposed";
      const sizes = sizesOf(inputs, outputs);
      if (2 * sizes.N * sizes.K > unpackedLimit) return `cannot: the unpacked weights take more than ${unpackedLimit >> 20} MiB`;
      const { right } = unpackedViews(inputs, outputs);
      const why = refusal(inputs, outputs, p) ?? matmulOnMatrixUnits.gate?.refuse?.([inputs[0] as View, right], {}, outputs, device);
      return why ?? (sizes.M < manyRows ? `slower: less than ${manyRows} rows` : undefined);
    },
  },
  ...(matmulOnMatrixUnits.tune ? { tune: matmulOnMatrixUnits.tune } : {}),
  launch: (inputs, outputs, p, device, choices) =>
    launchUnpacked(inputs, outputs, p, device, (views) => matmulOnMatrixUnits.launch(residual ? views : views.slice(0, 2), outputs, residual ? { alpha: 1, beta: 1 } : {}, device, choices)),
});
/** Unpacking, and the product of [x, the weights as a matrix, what comes after the weights among the inputs]. */
function launchUnpacked(inputs: readonly View[], outputs: readonly View[], p: ProductParams, device: GpuDevice, multiply: (views: readonly View[]) => GpuLaunch): GpuLaunch {
  const first = addendAt(p);
  const [x, ...weights] = inputs.slice(0, first) as [View, ...View[]];
  const { dense, right } = unpackedViews(inputs, outputs);
  const unpack = gpuDequantize.launch(weights, [dense], p, device);
  const product = multiply([x, right, ...inputs.slice(first)]);
  return {
    steps: [
      ...moved(unpack.steps, (b) => (b.of === "input" ? { ...b, index: b.index + 1 } : gpuScratchOut(0, b.bytes))),
      ...moved(product.steps, (b) =>
        b.of === "scratch" ? { ...b, index: b.index + 1 } : b.of !== "input" || b.index === 0 ? b : b.index === 1 ? gpuScratchIn(0, b.bytes) : { ...b, index: b.index - 2 + first },
      ),
    ],
    scratch: [2 * dense.size, ...(product.scratch ?? [])],
  };
}
export const gpuQuantizedMM: readonly GpuKernel<ProductParams>[] = [unpackedKernel(false), matrixKernel(), tiledKernel(false)];
/** The same products with an array added before the one rounding: a further input of the result's shape and dtype, row-major. */
export const gpuQuantizedResidual: readonly GpuKernel<ProductParams>[] = [unpackedKernel(true), tiledKernel(true)];
/** As `matmulEpilogue`, for quantizedMatmul with integers; the operands of `finish` come after the product's four inputs. */
export function quantizedEpilogue(kernel: string, inputs: readonly View[], outputs: readonly View[], p: ProductParams, finish: ProductEpilogue, device: GpuDevice, choices: Choices = {}): GpuLaunch | string {
  if (p.mode) return `cannot: the quantization is ${p.mode}`;
  if (kernel === "vulkan/quantized/qmv") return qmvEpilogue(inputs, outputs, p, finish, device, choices);
  if (kernel === "vulkan/quantized/mm_tiled") return launchTiled(inputs, outputs, p, choices, finish);
  if (kernel !== "vulkan/quantized/mm_unpacked") return `cannot: ${kernel} takes no epilogue`;
  let why: string | undefined;
  const launch = launchUnpacked(inputs, outputs, p, device, (views) => {
    const made = matmulEpilogue(matmulOnMatrixUnits.name, views, outputs, finish, device, choices);
    why = typeof made === "string" ? made : undefined;
    return typeof made === "string" ? { steps: [] } : made;
  });
  return why ?? launch;
}
