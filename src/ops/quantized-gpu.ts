/** GPU kernels of the quantized ops. */
import type { View } from "../core/array.ts";
import { type GpuDevice, type GpuGate, type GpuKernel, type GpuLaunch, type GpuPointer, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, groupLimit, spreadGroups } from "../core/gpu.ts";
import type { Tunables } from "../core/op.ts";
import { sizeOf } from "../core/shape.ts";
import { type ProductEpilogue, epilogueBuffers, epilogueShader, kindBits } from "./matmul-gpu.ts";
import { type Packing, type ProductParams, last, rowsOf } from "./quantized-launch.ts";

/** Element types as the shaders number them (shaders/quantized/elements.glsl). */
const types: Readonly<Record<string, number>> = { float32: 0, float16: 1, bfloat16: 2 };
const typeOf = (v: View): number => types[v.dtype.name] as number;
/** The view begins at a multiple of `bytes`: storage begins at a multiple of 256. */
const aligned = (v: View, bytes: number): boolean => (v.offset * v.dtype.size) % bytes === 0;
const needs = ["storageBuffer16BitAccess"] as const;
const matrices = (v: View): number => sizeOf(v.shape.slice(0, -2));
const tooLarge = (views: readonly View[]): string | undefined => (views.some((v) => v.size >= 2 ** 31) ? "cannot: more than 2^31 elements" : undefined);

/** Build of a shader for the packing. */
const buildOf = ({ bits, mode }: Packing): string => mode ?? String(bits);
/** The packed matrices' buffers: words, scales and, affine, biases are inputs from `first` on. */
const packedFrom = (first: number, { mode }: Packing): GpuPointer[] => [gpuInput(first), gpuInput(first + 1), ...(mode ? [] : [gpuInput(first + 2)])];
/** The indices of a gathered product, and where they stand among the inputs. */
const indicesAt = ({ mode }: Packing): number => (mode ? 3 : 4);
const indicesFrom = (p: Packing): GpuPointer[] => [gpuInput(indicesAt(p)), gpuInput(indicesAt(p) + 1)];
/** Kernels by their last name that take affine integers only. */
const integersOnly = /\/mm_coopmat$/;
/** Each kernel once for affine integers and once, as `vulkan/quantfloat/...`, for small floats: a name stands for one way of computing, which flags and the self-check close. */
export function bothModes<P extends Packing>(kernels: readonly GpuKernel<P>[]): GpuKernel<P>[] {
  const affine = kernels.map((k): GpuKernel<P> => ({
    ...k, gate: { ...k.gate, refuse: (inputs, p, outputs, device) => (p.mode ? `cannot: the quantization is ${p.mode}` : k.gate?.refuse?.(inputs, p, outputs, device)) },
  }));
  const floats = kernels.filter((k) => !integersOnly.test(k.name)).map((k): GpuKernel<P> => ({
    ...k,
    name: k.name.replace("/quantized/", "/quantfloat/") as GpuKernel<P>["name"],
    gate: {
      ...k.gate,
      needs: [...(k.gate?.needs ?? []), "storageBuffer8BitAccess"],
      refuse: (inputs, p, outputs, device) => (p.mode ? k.gate?.refuse?.(inputs, p, outputs, device) : "cannot: the quantization is affine"),
    },
  }));
  return [...affine, ...floats];
}

/** Lanes that are sure to run as one subgroup. */
const fixed = (device: GpuDevice): { subgroupSize?: number } => (device.features.subgroupSizeControl ? { subgroupSize: device.subgroupSize } : {});

// ---- rows times packed [N, K]

/** How a product of few rows is cut up (shaders/quantized/qmv.comp). */
export interface QmvShape {
  /** Rows of the matrix in a subgroup. */
  readonly rows: number;
  /** Steps of 32 values per lane that are read at once. */
  readonly steps: number;
  /** Subgroups that share the length of a row. */
  readonly split: number;
  /** Subgroups in a workgroup, a multiple of `split`. */
  readonly subgroups: number;
}

/** Bytes of x in shared memory at once; their sums take a quarter more, and 32 KiB are portable. */
const stagedBytes = 24576;
/** Rows of x that one pass over the weights serves: as many as there are, while 32 values of each for every lane have room. */
function tileOf(M: number, xBytes: number, sub: number): number {
  const most = Math.max(1, Math.floor(stagedBytes / (32 * sub * xBytes)));
  return [1, 2, 3, 4, 6, 8].filter((n) => n <= most).reduce((best, n) => (best >= M ? best : n));
}

/** How a row of this many steps is shared: the fewest idle lanes, then the fewest passes, then the most subgroups (up to 4 or 5: all their loads are under way at once). */
function shareLength(length: number, room: number, wish: Partial<QmvShape>): { split: number; steps: number } {
  let best = { split: 1, steps: 1 };
  let least = Number.POSITIVE_INFINITY;
  for (const split of wish.split ? [wish.split] : [4, 5, 3, 2, 1]) {
    for (const steps of wish.steps ? [wish.steps] : [1, 2, 3]) {
      if (split * steps > room) continue;
      const passes = Math.ceil(length / (split * steps));
      const cost = passes * split * steps + passes / 16;
      if (cost >= least) continue;
      least = cost;
      best = { split, steps };
    }
  }
  return least === Number.POSITIVE_INFINITY && (wish.split || wish.steps) ? shareLength(length, room, {}) : best;
}

/** What may be measured of it; 0: by the sizes. */
export const qmvTunables = { rows: [0, 1, 2, 4], split: [0, 1, 2, 4], subgroups: [0, 4, 8, 16] } as const satisfies Tunables;

/** The shape for a product; parts of it that are given (and not 0) stay, if they fit the device. */
export function qmvShape(N: number, K: number, M: number, xBytes: number, device: GpuDevice, given: Partial<QmvShape> = {}): QmvShape {
  const sub = device.subgroupSize;
  const room = Math.max(1, Math.floor(stagedBytes / (tileOf(M, xBytes, sub) * 32 * sub * xBytes)));
  const { split, steps } = shareLength(Math.max(1, Math.ceil(K / 32 / sub)), room, given);
  // A large GPU wants about a thousand subgroups; further rows go to the same subgroups and workgroups, so that x is read less often.
  const rows = given.rows || (N >= 32768 ? (M > 4 ? 2 : 4) : N >= 3072 && M <= 4 ? 2 : 1);
  const wanted = given.subgroups || (M > 4 && N >= 4096 ? 16 : split === 3 ? 12 : M > 1 || split > 1 ? 8 : 4);
  const most = Math.min(16, Math.floor(device.groupInvocations / sub));
  return { rows, steps, split, subgroups: Math.min(Math.ceil(wanted / split), Math.max(1, Math.floor(most / split))) * split };
}

/** As `launchQmv`, its result finished by an epilogue, whose operands are inputs from 4 on. */
export function qmvEpilogue(inputs: readonly View[], outputs: readonly View[], p: ProductParams, finish: ProductEpilogue, device: GpuDevice, given?: Partial<QmvShape>): GpuLaunch {
  const { steps } = launchQmv(inputs.slice(0, 4), outputs, p, device, given);
  return {
    steps: steps.map((s) => ({
      ...s, shader: epilogueShader(s.shader as string, finish), constants: [...(s.constants ?? []), kindBits(finish.kinds)], buffers: [...s.buffers, ...epilogueBuffers(finish.kinds, 4, gpuInput(0))],
    })),
  };
}

export function launchQmv(inputs: readonly View[], [out]: readonly View[], p: ProductParams, device: GpuDevice, given?: Partial<QmvShape>): GpuLaunch {
  const [x, w, s] = inputs as readonly [View, View, View];
  const lhs = inputs[indicesAt(p)];
  const [K, N] = [last(x), last(out as View)];
  const M = lhs ? (x.shape[x.shape.length - 2] as number) : rowsOf(x);
  const tile = tileOf(M, x.dtype.size, device.subgroupSize);
  const tiles = Math.ceil(M / tile);
  const { rows, steps, split, subgroups } = qmvShape(N, K, M, x.dtype.size, device, given);
  const sub = device.subgroupSize;
  const even = (K / 32) % (steps * split * sub) === 0;
  const constants = [
    subgroups * sub, sub, rows, steps, split, tile, p.mode ? 0 : Math.log2(p.groupSize / 32), typeOf(x), p.mode ? 0 : typeOf(s), typeOf(out as View), Number(aligned(x, 16)), Number(aligned(w, 16)), Number(even),
  ];
  const [gx, gy] = spreadGroups(Math.ceil(N / (rows * (subgroups / split))));
  const count = tiles * (lhs ? lhs.size : 1);
  const made: GpuStep[] = [];
  for (let first = 0; first < count; first += groupLimit) {
    made.push({
      shader: `quantized/${lhs ? "gather_qmv" : "qmv"}_${buildOf(p)}`,
      constants,
      ...fixed(device),
      buffers: [gpuInput(0), ...packedFrom(1, p), gpuOutput(0), ...(lhs ? indicesFrom(p) : [])],
      words: lhs ? [M, N, K / 32, tiles, first, matrices(x), matrices(w)] : [M, N, K / 32, first],
      groups: [gx, gy, Math.min(groupLimit, count - first)],
    });
  }
  return { steps: made };
}

/** Most products of `launchQmvSiblings`. */
export const mostSiblings = 3;
/**
 * Up to three products of few rows of x with packed [N, K] in one launch, the same bits as one after the other: how a row's sum is made depends on K alone. Inputs: x, then the
 * words, scales and (integers) biases of each matrix; `outs`: the results. Undefined when the matrices differ in more than their rows.
 */
export function launchQmvSiblings([x, ...packed]: readonly View[], outs: readonly View[], p: ProductParams, device: GpuDevice): GpuLaunch | undefined {
  const each = p.mode ? 2 : 3;
  const matrix = (i: number): readonly View[] => packed.slice(i * each, (i + 1) * each);
  const [own, first] = [x as View, outs[0] as View];
  const scales = matrix(0)[1] as View;
  if (outs.length > mostSiblings || outs.some((o, i) => o.dtype !== first.dtype || (matrix(i)[1] as View).dtype !== scales.dtype)) return undefined;
  const [K, M] = [last(own), rowsOf(own)];
  const tile = tileOf(M, own.dtype.size, device.subgroupSize);
  const rowsOfAll = outs.reduce((n, o) => n + last(o), 0);
  const { rows, steps, split, subgroups } = qmvShape(rowsOfAll, K, M, own.dtype.size, device);
  const sub = device.subgroupSize;
  const wide = outs.every((_, i) => aligned(matrix(i)[0] as View, 16));
  const constants = [
    subgroups * sub, sub, rows, steps, split, tile, p.mode ? 0 : Math.log2(p.groupSize / 32), typeOf(own), p.mode ? 0 : typeOf(scales), typeOf(first), Number(aligned(own, 16)), Number(wide),
    Number((K / 32) % (steps * split * sub) === 0),
  ];
  const perGroup = rows * (subgroups / split);
  const groups = outs.reduce((n, o) => n + Math.ceil(last(o) / perGroup), 0);
  if (groups > groupLimit) return undefined;
  // A matrix that is not there has no rows.
  const buffers = Array.from({ length: mostSiblings }, (_, i) => [...packedFrom(1 + (i < outs.length ? i : 0) * each, p), gpuOutput(i < outs.length ? i : 0)]).flat();
  const sizes = Array.from({ length: mostSiblings }, (_, i) => (i < outs.length ? last(outs[i] as View) : 0));
  return { steps: [{ shader: `quantized/qmv_siblings_${buildOf(p)}`, constants, ...fixed(device), buffers: [gpuInput(0), ...buffers], words: [M, ...sizes, K / 32, 0], groups: [groups, 1, Math.ceil(M / tile)] }] };
}

/** Rows of x from which kernels for many rows are faster. */
export const fewGpuRows = 8;

const refuseQmv = (inputs: readonly View[], p: ProductParams, outputs: readonly View[]): string | undefined => {
  if (!p.transpose) return "cannot: the weights are not transposed";
  if (last(inputs[0] as View) % 32 !== 0) return `cannot: rows of ${last(inputs[0] as View)} values do not come in whole blocks of 32`;
  return tooLarge([...inputs, ...outputs]);
};
const qmvGate = (few: boolean): GpuGate<ProductParams> => ({
  needs,
  env: few ? ["MLX_VK_ENABLE_QMM_NATIVE", "MLX_VK_ENABLE_QMM_NATIVE_M1"] : "MLX_VK_ENABLE_QMM_NATIVE",
  refuse: (inputs, p, outputs) => refuseQmv(inputs, p, outputs) ?? (few && rowsOf(inputs[0] as View) > fewGpuRows ? `slower: more than ${fewGpuRows} rows` : undefined),
});

/** Few rows times packed [N, K]. */
export const gpuQmv: GpuKernel<ProductParams> = { name: "vulkan/quantized/qmv", gate: qmvGate(true), tune: qmvTunables, launch: launchQmv };
/** The same for any number of rows: where no other kernel takes the arguments. */
export const gpuQmvAny: GpuKernel<ProductParams> = { name: "vulkan/quantized/qmvAny", gate: qmvGate(false), tune: qmvTunables, launch: launchQmv };
/** Rows times the packed [N, K] that indices choose. */
export const gpuGatherQmv: GpuKernel<ProductParams> = { name: "vulkan/quantized/gatherQmv", gate: qmvGate(false), tune: qmvTunables, launch: launchQmv };

// ---- rows times packed [K, N]

/** Workgroups that keep a large GPU busy. */
const manyGroups = 264;

function launchQvm(inputs: readonly View[], [out]: readonly View[], p: ProductParams, device: GpuDevice): GpuLaunch {
  const [x, w, s] = inputs as readonly [View, View, View];
  const lhs = inputs[indicesAt(p)];
  const [K, N] = [last(x), last(out as View)];
  const M = lhs ? (x.shape[x.shape.length - 2] as number) : rowsOf(x);
  const tile = M <= 2 ? M : 4;
  const tiles = Math.ceil(M / tile);
  const count = tiles * (lhs ? lhs.size : 1);
  const across = Math.max(8, Math.min(32, device.subgroupSize));
  const lanes = 8 * across;
  const blocks = Math.ceil(N / (8 * across));
  // A part has at least 32 rows of the matrix; one part needs no second pass.
  const length = Math.max(1, Math.ceil(K / Math.max(1, Math.min(Math.ceil(manyGroups / (blocks * count)), Math.floor(K / 32)))));
  const parts = Math.max(1, Math.ceil(K / length));
  const o = out as View;
  const constants = [lanes, across, 4, tile, Math.log2(p.groupSize / 8), typeOf(x), p.mode ? 0 : typeOf(s), parts > 1 ? 0 : typeOf(o), Number(aligned(w, 8))];
  const steps: GpuStep[] = [];
  for (let first = 0; first < count; first += groupLimit) {
    steps.push({
      shader: `quantized/${lhs ? "gather_qvm" : "qvm"}_${buildOf(p)}`,
      constants,
      buffers: [gpuInput(0), ...packedFrom(1, p), parts > 1 ? gpuScratchOut(0) : gpuOutput(0), ...(lhs ? indicesFrom(p) : [])],
      words: [M, K, N / 8, length, o.size / N, first, ...(lhs ? [tiles, matrices(x), matrices(w)] : [])],
      groups: [blocks, parts, Math.min(groupLimit, count - first)],
    });
  }
  if (parts > 1) steps.push({ shader: "quantized/sum", constants: [128, typeOf(o)], buffers: [gpuScratchIn(0), gpuOutput(0), gpuScratchIn(0)], words: [o.size, parts], groups: spreadGroups(Math.ceil(o.size / 128)) });
  return { steps, ...(parts > 1 ? { scratch: [4 * parts * o.size] } : {}) };
}

/** Rows times packed [K, N]; with indices as inputs 4 and 5, the one that they choose. */
export const gpuQvm: GpuKernel<ProductParams> = {
  name: "vulkan/quantized/qvm",
  gate: {
    needs,
    env: "MLX_VK_ENABLE_QMM_NATIVE",
    refuse: (inputs, p, outputs) => {
      if (p.transpose) return "cannot: the weights are transposed";
      return tooLarge([...inputs, ...outputs]) ?? (manyGroups * (outputs[0] as View).size >= 2 ** 31 ? "cannot: the partial sums have more than 2^31 elements" : undefined);
    },
  },
  launch: launchQvm,
};

// ---- packing

const packLanes = 128;
/** Small floats: the global scale is input `at`, if there is one; the shader wants an address in any case. */
const globalScale = (inputs: readonly View[], at: number): { given: number; buffer: GpuPointer } => ({ given: Number(inputs.length > at), buffer: gpuInput(inputs.length > at ? at : 0) });

export const gpuQuantize: GpuKernel<Packing> = {
  name: "vulkan/quantized/quantize",
  gate: { needs, refuse: (inputs) => tooLarge(inputs) },
  launch: (inputs, _outputs, p) => {
    const x = inputs[0] as View;
    const global = globalScale(inputs, 1);
    return {
      steps: [
        {
          shader: `quantized/quantize_${buildOf(p)}`,
          constants: [packLanes, Math.log2(p.groupSize / 8), typeOf(x), Number(aligned(x, 16)), ...(p.mode ? [global.given] : [])],
          buffers: [gpuInput(0), gpuOutput(0), gpuOutput(1), p.mode ? global.buffer : gpuOutput(2)],
          words: [x.size / 8],
          groups: spreadGroups(Math.ceil(x.size / 8 / packLanes)),
        },
      ],
    };
  },
};

export const gpuDequantize: GpuKernel<Packing> = {
  name: "vulkan/quantized/dequantize",
  gate: { needs, refuse: (inputs, _p, outputs) => tooLarge([...inputs, ...outputs]) },
  launch: (inputs, [out], p) => {
    const [w, s] = inputs as readonly [View, View];
    const o = out as View;
    const global = globalScale(inputs, 2);
    return {
      steps: [
        {
          shader: `quantized/dequantize_${buildOf(p)}`,
          constants: [packLanes, Math.log2(p.groupSize / 8), p.mode ? 0 : typeOf(s), typeOf(o), Number(aligned(w, 8)), Number(aligned(o, 16)), Number(p.mode !== undefined && global.given === 1)],
          buffers: [gpuInput(0), gpuInput(1), p.mode ? global.buffer : gpuInput(2), gpuOutput(0)],
          words: [o.size / 8],
          groups: spreadGroups(Math.ceil(o.size / 8 / packLanes)),
        },
      ],
    };
  },
};
