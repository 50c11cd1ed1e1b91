/** GPU kernels of scaledDotProductAttention: few queries against long caches (split over the keys), and many queries (tiles). */
import type { View } from "../core/array.ts";
import { bool } from "../core/dtype.ts";
import { env } from "../core/env.ts";
import { type GpuDevice, type GpuFeature, type GpuKernel, type GpuLaunch, type GpuPointer, type GpuStep, type MatrixShape, floatWord, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, groupLimit, halfNeeds, matrixNeeds, spreadGroups } from "../core/gpu.ts";
import type { Choices, InputLayout, Tunables } from "../core/op.ts";
import { type AttentionParams, type Sizes, sizesOf } from "./attention-sizes.ts";
import { matrixShape } from "./matmul-gpu.ts";

const types: Readonly<Record<string, number>> = { float32: 0, float16: 1, bfloat16: 2 };
const suffix = ["f32", "f16", "bf16"];
const typeOf = (x: View): number => types[x.dtype.name] as number;

const needs: readonly GpuFeature[] = ["storageBuffer16BitAccess", "storageBuffer8BitAccess"];

/** Rows of heads, positions and masks may lie anywhere, but not in reverse: the kernels' indices are unsigned. A head's vector must be contiguous. */
function layout(inputs: readonly View[], params: AttentionParams): InputLayout[] {
  const wanted: InputLayout[] = params.mask === "array" ? ["last", "last", "last", "any", "row"] : ["last", "last", "last", "row"];
  return wanted.map((w, i) => (inputs[i]?.strides.some((s) => s < 0) ? "row" : w));
}

/** Elements from the first to behind the last one of a view. */
const reachOf = (v: View): number => v.shape.reduce((n, s, d) => n + (s - 1) * Math.abs(v.strides[d] as number), 1);

function refuseAny(inputs: readonly View[], params: AttentionParams): string | undefined {
  const s = sizesOf(inputs);
  for (const x of inputs.slice(0, 3)) if (types[x.dtype.name] === undefined) return `cannot: dtype ${x.dtype}`;
  if (s.Tk === 0) return "cannot: no keys";
  const [mostKeys, mostQueries] = [env("MLX_VK_SDPA_MAX_K_LEN"), env("MLX_VK_SDPA_MAX_Q_LEN")];
  if (mostKeys > 0 && s.Tk > mostKeys) return `cannot: ${s.Tk} keys, MLX_VK_SDPA_MAX_K_LEN is ${mostKeys}`;
  if (mostQueries > 0 && s.Tq > mostQueries) return `cannot: ${s.Tq} queries, MLX_VK_SDPA_MAX_Q_LEN is ${mostQueries}`;
  if (s.B * s.H > groupLimit) return `cannot: ${s.B * s.H} heads, one dimension of a dispatch has ${groupLimit} workgroups`;
  if (inputs.some((x) => reachOf(x) >= 2 ** 31) || s.B * s.H * s.Tq * s.Dv >= 2 ** 31) return "cannot: an operand reaches over 2^31 elements";
  if (Math.max(s.D, s.Dv) > 1024) return `cannot: head dimensions ${s.D} and ${s.Dv} (at most 1024)`;
  if (params.mask === "array" && inputs[3]?.dtype !== bool && types[(inputs[3] as View).dtype.name] === undefined) return `cannot: mask of ${(inputs[3] as View).dtype}`;
  return undefined;
}

/** Kinds of masks and sinks in shaders/attention/operands.glsl. */
const floats = 3;
function maskKind(inputs: readonly View[], { mask }: AttentionParams): number {
  if (mask !== "array") return mask === "causal" ? 1 : 0;
  const m = inputs[3] as View;
  return m.dtype === bool ? 2 : floats + typeOf(m);
}
const sinkKind = (inputs: readonly View[], { sinks }: AttentionParams): number => (sinks ? floats + typeOf(inputs[inputs.length - 1] as View) : 0);

/** Whether the rows of q, k and v can be read in units of 16 bytes: storages are aligned to 256 bytes. */
function alignedRows(inputs: readonly View[]): boolean {
  return inputs.slice(0, 3).every((x) => {
    const unit = 16 / x.dtype.size;
    return x.offset % unit === 0 && (x.shape[3] as number) % unit === 0 && [0, 1, 2].every((d) => x.shape[d] === 1 || (x.strides[d] as number) % unit === 0);
  });
}

/** Operands that all kernels begin with, in the order of shaders/attention/operands.glsl. */
function operands(inputs: readonly View[], params: AttentionParams, result: GpuPointer, splits: number): Pick<GpuStep, "buffers" | "words"> {
  const [q, k, v] = inputs as [View, View, View];
  const { Hkv, Tq, Tk } = sizesOf(inputs);
  const mask = params.mask === "array" ? inputs[3] : undefined;
  const pad = 4 - (mask?.shape.length ?? 0);
  const maskStrides = [0, 1, 2, 3].map((i) => (!mask || i < pad || mask.shape[i - pad] === 1 ? 0 : (mask.strides[i - pad] as number)));
  const last = inputs.length - 1;
  return {
    buffers: [gpuInput(0), gpuInput(1), gpuInput(2), result, gpuInput(mask ? 3 : 0), gpuInput(params.sinks ? last : 0), gpuInput(params.length ? 3 : 0)],
    words: [...q.strides.slice(0, 3), ...k.strides.slice(0, 3), ...v.strides.slice(0, 3), ...maskStrides, Tq, Tk, Hkv, splits, floatWord(params.scale)],
  };
}

// ---- keys in ranges

/** Most ranges that the combining kernel has room for. */
const maxSplits = 1024;
/** Ranges that may be measured; 0: by the sizes. */
const splitsTunable = { splits: [0, 1, 2, 4, 8, 16, 32] } as const satisfies Tunables;
/** Ranges of `Tk` keys: those that the flags ask for, else `automatic`; each has at least `unit` keys. */
function splitsOf(Tk: number, unit: number, automatic: number): number {
  const most = Math.max(1, Math.min(Math.ceil(Tk / unit), maxSplits));
  const forced = env("MLX_VK_SDPA_SPLIT_K");
  if (forced > 0) return Math.min(forced, most);
  if (Tk < env("MLX_VK_SDPA_SPLITK_MIN_K_LEN")) return 1;
  const chunk = env("MLX_VK_SDPA_SPLITK_TARGET_CHUNK");
  const parts = env("MLX_VK_SDPA_SPLITK_MAX_PARTS") || maxSplits;
  return Math.max(1, Math.min(chunk > 0 ? Math.ceil(Tk / chunk) : automatic, parts, most));
}

function combineStep(inputs: readonly View[], params: AttentionParams, { splits, pass }: { splits: number; pass: number }, device: GpuDevice): GpuStep {
  const { B, H, Tq, Tk, Dv } = sizesOf(inputs);
  const count = B * H * Tq;
  return {
    shader: `attention/combine_${suffix[typeOf(inputs[0] as View)]}`,
    constants: [Math.min(256, device.groupInvocations), Dv, sinkKind(inputs, params), params.length ? 1 : 0, pass],
    buffers: [gpuScratchIn(0), gpuOutput(0), gpuInput(params.sinks ? inputs.length - 1 : 0), gpuInput(params.length ? 3 : 0)],
    words: [count, Tk, splits, Tq, H],
    groups: spreadGroups(count),
  };
}
function splitLaunch(first: Omit<GpuStep, "buffers" | "words">, inputs: readonly View[], params: AttentionParams, device: GpuDevice, splits: number, pass: number): GpuLaunch {
  const { B, H, Tq, Dv } = sizesOf(inputs);
  const step: GpuStep = { ...first, ...operands(inputs, params, splits === 1 ? gpuOutput(0) : gpuScratchOut(0), splits) };
  if (splits === 1) return { steps: [step] };
  return { steps: [step, combineStep(inputs, params, { splits, pass }, device)], scratch: [B * H * Tq * splits * (4 + 4 * Math.ceil(Dv / 4)) * 4] };
}
/** Why the partial results of a launch with this many ranges can not be merged. */
function refuseSplits(inputs: readonly View[], splits: number, device: GpuDevice): string | undefined {
  const { B, H, Tq, Dv } = sizesOf(inputs);
  if (splits === 1) return undefined;
  if (B * H * Tq * splits * (Dv + 8) >= 2 ** 31) return "cannot: partial results reach over 2^31 elements";
  return Dv > 4 * Math.min(256, device.groupInvocations) ? `cannot: values of ${Dv} with workgroups of ${device.groupInvocations}` : undefined;
}
/** The ranges of a choice, when their results can be merged; else undefined. */
function chosenSplits(inputs: readonly View[], unit: number, device: GpuDevice, choices: Choices | undefined): number | undefined {
  const wish = choices?.["splits"];
  if (!wish) return undefined;
  const splits = splitsOf(sizesOf(inputs).Tk, unit, wish);
  return refuseSplits(inputs, splits, device) === undefined ? splits : undefined;
}
const required = (device: GpuDevice): { subgroupSize?: number } => (device.features.subgroupSizeControl ? { subgroupSize: device.subgroupSize } : {});

// ---- few queries

/** How the decode kernel divides its work; the names are those of shaders/attention/decode.comp. */
interface DecodePlan {
  readonly lanes: number;
  readonly subgroup: number;
  readonly keyLanes: number;
  readonly depth: number;
  readonly rows: number;
  readonly blocks: number;
  readonly splits: number;
  readonly pass: number;
}

/** Lanes that read one key, 16 bytes each at a time: few idle ones, and few turns each. */
function keyLanesOf(chunks: number, subgroup: number): number {
  let best = 1;
  let least = Number.POSITIVE_INFINITY;
  for (let lanes = 1; lanes <= subgroup; lanes *= 2) {
    const turns = Math.ceil(chunks / lanes);
    const cost = lanes * turns * (1 + turns / 6);
    if (cost <= least) [best, least] = [lanes, cost];
  }
  return best;
}

/** Workgroups that keep the memory of a large GPU busy. */
const wantedGroups = 512;
const sharedLimit = 32768 - 1024;

function decodePlan(inputs: readonly View[], device: GpuDevice): DecodePlan {
  const { B, Hkv, G, Tq, Tk, D, Dv } = sizesOf(inputs);
  const unit = 16 / (inputs[0] as View).dtype.size;
  const subgroup = device.subgroupSize;
  const chunks = Math.ceil(Math.max(D, Dv) / unit);
  const keyLanes = keyLanesOf(chunks, subgroup);
  const turns = Math.ceil(chunks / keyLanes);
  // Registers: a row takes 2 * turns * unit of them for the query and the values.
  const most = Math.max(1, Math.min(8, Math.floor(64 / (turns * unit))));
  const blocks = Math.ceil((G * Tq) / most);
  const rows = Math.ceil((G * Tq) / blocks);
  const depth = subgroup < 16 ? 2 : Math.max(1, Math.floor((rows > 2 ? 4 : 8) / turns));
  const fits = (n: number): boolean => n * subgroup <= device.groupInvocations && n * rows * (Dv + 2) * 4 <= sharedLimit;
  let subgroups = 8;
  // Short contexts take one workgroup per key head: a second dispatch costs more than what more workgroups gain.
  const passOf = (n: number): number => (n * subgroup * depth) / keyLanes;
  const whole = Tk <= 2 * passOf(subgroups) && fits(subgroups);
  if (!whole) subgroups = 4;
  while (subgroups > 1 && !fits(subgroups)) subgroups /= 2;
  const pass = passOf(subgroups);
  const splits = splitsOf(Tk, pass, whole ? 1 : Math.ceil(wantedGroups / (B * Hkv * blocks)));
  return { lanes: subgroups * subgroup, subgroup, keyLanes, depth, rows, blocks, splits, pass };
}

const decode: GpuKernel<AttentionParams> = {
  name: "vulkan/attention/decode",
  layout,
  gate: {
    needs,
    typeNeeds: halfNeeds,
    env: "MLX_VK_ENABLE_SDPA_NATIVE",
    refuse(inputs, params, _outputs, device) {
      const { G, Tq } = sizesOf(inputs);
      const why = refuseAny(inputs, params) ?? refuseSplits(inputs, decodePlan(inputs, device).splits, device);
      // A workgroup serves 8 rows at most: many read the keys several times, which only matrix units can make up for.
      const most = matrixPlan(inputs, device) ? 16 : 8 * G;
      return why ?? (Tq > 8 || G * Tq > most ? `slower: ${G * Tq} rows per key head, which tiles serve better` : undefined);
    },
  },
  tune: splitsTunable,
  launch(inputs, _outputs, params, device, choices): GpuLaunch {
    const { B, Hkv, G, Tq, D, Dv } = sizesOf(inputs);
    const plan = decodePlan(inputs, device);
    const { lanes, subgroup, keyLanes, depth, rows, blocks, pass } = plan;
    const splits = chosenSplits(inputs, pass, device, choices) ?? plan.splits;
    const whole = splits === 1;
    // One query sees all keys under a causal mask.
    const mask = Tq === 1 && params.mask === "causal" ? 0 : maskKind(inputs, params);
    const first = {
      shader: `attention/decode_${suffix[typeOf(inputs[0] as View)]}`,
      constants: [lanes, subgroup, keyLanes, depth, rows, D, Dv, G, Tq, mask, whole ? sinkKind(inputs, params) : 0, alignedRows(inputs) ? 1 : 0, params.length ? 1 : 0, whole ? 1 : 0],
      ...required(device),
      groups: [blocks, B * Hkv, splits] as const,
    };
    return splitLaunch(first, inputs, params, device, splits, pass);
  },
};

// ---- many queries

/** Rows and keys of a tile in shaders/attention/tiles.comp. */
const tileRows = 32;
const tileKeys = 64;
const tileShared = (Dv: number): number => 4 * (Math.max(96 * 36, 16 * 64 * Math.ceil(Dv / 64)) + 32 * 68 + 512);

/** Ranges of the keys, when there are few tiles of rows and many keys: merging costs more than it gains otherwise. */
function tileSplits({ B, Hkv, G, Tq, Tk }: Sizes, rows: number, keys: number, wanted: number): number {
  const tiles = B * Hkv * Math.ceil((G * Tq) / rows);
  return splitsOf(Tk, keys, 4 * tiles > wanted ? 1 : Math.min(Math.floor(Tk / (4 * keys)), Math.floor(wanted / tiles)));
}

const tiles: GpuKernel<AttentionParams> = {
  name: "vulkan/attention/tiles",
  layout,
  gate: {
    needs,
    typeNeeds: halfNeeds,
    env: "MLX_VK_ENABLE_SDPA_NATIVE",
    refuse(inputs, params, _outputs, device) {
      const s = sizesOf(inputs);
      const why = refuseAny(inputs, params) ?? refuseSplits(inputs, tileSplits(s, tileRows, tileKeys, 256), device);
      if (why !== undefined) return why;
      if (tileShared(s.Dv) > device.sharedMemoryBytes) return `cannot: tiles of values of ${s.Dv} need ${tileShared(s.Dv)} bytes of shared memory, there are ${device.sharedMemoryBytes}`;
      return undefined;
    },
  },
  tune: splitsTunable,
  launch(inputs, _outputs, params, device, choices): GpuLaunch {
    const s = sizesOf(inputs);
    const splits = chosenSplits(inputs, tileKeys, device, choices) ?? tileSplits(s, tileRows, tileKeys, 256);
    const first = {
      shader: `attention/tiles_${suffix[typeOf(inputs[0] as View)]}`,
      constants: [s.D, s.Dv, maskKind(inputs, params), splits === 1 ? sinkKind(inputs, params) : 0, alignedRows(inputs) ? 1 : 0, params.length ? 1 : 0, splits === 1 ? 1 : 0, s.G],
      groups: [Math.ceil((s.G * s.Tq) / tileRows), s.B * s.Hkv, splits] as const,
    };
    return splitLaunch(first, inputs, params, device, splits, tileKeys);
  },
};

// ---- many queries on matrix units

/** Subgroups of a workgroup, which take a fragment of rows each, and keys of a tile. */
interface MatrixPlan {
  readonly shape: MatrixShape;
  readonly subgroups: number;
  readonly keys: number;
}
const mesaVendor = 0x10005;
const up = (n: number, unit: number): number => Math.ceil(n / unit) * unit;

/** Shared memory of shaders/attention/matrix.comp. */
function matrixBytes({ shape, subgroups, keys }: MatrixPlan, D: number, Dv: number): number {
  const line = (n: number, unit: number): number => Math.floor(Math.ceil(up(n, unit) / 8) / 2) * 2 + 1;
  const rows = subgroups * shape.m;
  const lineK = line(D, shape.k);
  return 16 * (Math.max(keys * (lineK + line(Dv, shape.n)), rows * lineK) + rows * (keys / 4 + 1) + rows * (keys / 8 + 1));
}
/** The most rows that shared memory takes, but not many more than there are. */
function matrixPlan(inputs: readonly View[], device: GpuDevice): MatrixPlan | undefined {
  const { G, Tq, D, Dv } = sizesOf(inputs);
  const shape = matrixShape(device, (inputs[0] as View).dtype.name);
  // A lane has one row and at least 8 keys of a tile.
  if (!shape || device.subgroupSize % shape.m !== 0) return undefined;
  const plans = [[4, 32], [2, 32], [1, 32], [2, 16], [1, 16]].map(([subgroups, keys]) => ({ shape, subgroups: subgroups as number, keys: keys as number }));
  return plans.find(
    (p) => matrixBytes(p, D, Dv) <= device.sharedMemoryBytes && p.subgroups * device.subgroupSize <= device.groupInvocations && (p.keys * shape.m) / device.subgroupSize >= 8 && (p.subgroups === 1 || (p.subgroups / 2) * shape.m < G * Tq),
  );
}
const matrixSplits = (inputs: readonly View[], { shape, subgroups, keys }: MatrixPlan): number => tileSplits(sizesOf(inputs), subgroups * shape.m, keys, 256);

const matrix: GpuKernel<AttentionParams> = {
  name: "vulkan/attention/matrix",
  layout,
  gate: {
    needs: [...needs, "cooperativeMatrix", "subgroupSizeControl", "vulkanMemoryModel"],
    typeNeeds: matrixNeeds,
    env: "MLX_VK_ENABLE_SDPA_NATIVE",
    refuse(inputs, params, _outputs, device) {
      const why = refuseAny(inputs, params);
      if (why !== undefined) return why;
      const plan = matrixPlan(inputs, device);
      if (!plan) return `cannot: no matrix units for ${(inputs[0] as View).dtype} of this size`;
      return refuseSplits(inputs, matrixSplits(inputs, plan), device);
    },
  },
  tune: splitsTunable,
  launch(inputs, _outputs, params, device, choices): GpuLaunch {
    const s = sizesOf(inputs);
    const plan = matrixPlan(inputs, device) as MatrixPlan;
    const { shape, subgroups, keys } = plan;
    const splits = chosenSplits(inputs, keys, device, choices) ?? matrixSplits(inputs, plan);
    const first = {
      shader: `attention/matrix_${suffix[typeOf(inputs[0] as View)]}`,
      constants: [
        s.D, s.Dv, maskKind(inputs, params), splits === 1 ? sinkKind(inputs, params) : 0, alignedRows(inputs) ? 1 : 0, params.length ? 1 : 0, splits === 1 ? 1 : 0, s.G,
        subgroups * device.subgroupSize, device.subgroupSize, shape.m, shape.n, shape.k, keys, Math.max(s.D, s.Dv) <= 128 ? 1 : 0, device.vendorId !== mesaVendor || subgroups === 1 ? 1 : 0,
      ],
      ...required(device),
      groups: [Math.ceil((s.G * s.Tq) / (subgroups * shape.m)), s.B * s.Hkv, splits] as const,
    };
    return splitLaunch(first, inputs, params, device, splits, keys);
  },
};

export const gpuAttention: readonly GpuKernel<AttentionParams>[] = [decode, matrix, tiles];
