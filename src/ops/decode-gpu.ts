/** GPU kernels of a decode step. Each workgroup prepares the vector itself, so that a layer takes five dispatches and none waits for another workgroup. */
import type { View } from "../core/array.ts";
import { type GpuDevice, type GpuKernel, type GpuLaunch, type GpuPointer, floatWord, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, gpuUpdate, halfNeeds } from "../core/gpu.ts";
import type { Tunables } from "../core/op.ts";
import { floatSuffix } from "./norm-gpu.ts";
import { fixedTurns } from "./rope-gpu.ts";
import type { AttentionStepParams, ChooseParams, CombineParams, Packing, ProjectionParams, Rope } from "./decode.ts";

const suffixOf = (v: View): string => floatSuffix(v) as string;
const last = (v: View): number => v.shape[v.shape.length - 1] as number;
const needs = ["storageBuffer16BitAccess", "shaderInt16"] as const;
const threads = 256;

/** Invocations that run in step are a parameter of these kernels, so the size is demanded where that can be done. */
const subgroup = (device: GpuDevice): { subgroupSize?: number } => (device.features.subgroupSizeControl ? { subgroupSize: device.subgroupSize } : {});

function refuseDevice(element: View, device: GpuDevice): string | undefined {
  if (!floatSuffix(element)) return `cannot: dtype ${element.dtype}`;
  if (device.subgroupSize < 4) return "cannot: subgroups of less than 4";
  return device.groupInvocations < threads ? `cannot: workgroups of less than ${threads}` : undefined;
}
const aligned = (v: View): boolean => (v.offset * v.dtype.size) % 16 === 0;
const tooBig = (v: View): boolean => v.size >= 2 ** 31;

// ---- products

/** Where the parts of a product stand among the inputs. */
interface Plan {
  /** Input with the element type; input 0 is the vector. */
  readonly element: number;
  /** Inputs in front of the matrices, in the order of the push constants. */
  readonly head: readonly number[];
  readonly matrices: number;
  /** Matrices that the push constants have room for. */
  readonly slots: number;
  /** Inputs behind the matrices. */
  readonly tail: readonly number[];
  readonly gated: boolean;
  /** The vector is given as the parts of an attention. */
  readonly combines: boolean;
}
interface ProductParams {
  readonly packings: readonly (Packing | null)[];
  readonly bias: boolean;
  readonly eps?: number;
  readonly least?: number;
}
const widthOf = (plan: Plan, inputs: readonly View[]): number => {
  const x = inputs[0] as View;
  return plan.combines ? (x.shape[1] as number) * (last(x) - 4) : last(x);
};

/** Bytes of shared memory: project.comp's planes and block terms, or its floats, and the words of a reduction. */
function sharedBytes(K: number, dense: boolean, single: boolean): number {
  return (dense ? 4 * K : (K / 32) * (32 * (single ? 3 : 2) + 8)) + 512;
}
function refuseProduct(plan: Plan, inputs: readonly View[], p: ProductParams, device: GpuDevice): string | undefined {
  const element = inputs[plan.element] as View;
  const K = widthOf(plan, inputs);
  const [packing] = p.packings as [Packing | null];
  if (p.packings.some((q) => q?.bits !== packing?.bits || q?.groupSize !== packing?.groupSize)) return "cannot: the matrices are packed in different ways";
  if (packing && !device.features.shaderIntegerDotProduct) return "cannot: needs the integer dot product";
  if (K % (packing ? 32 : 8) !== 0) return `cannot: rows of ${K} elements do not come in whole blocks`;
  for (const [i, v] of inputs.entries()) {
    const name = v.dtype.name;
    if (name !== "uint32" && name !== "int32" && name !== element.dtype.name && !(plan.combines && i === 0)) return `cannot: ${name} and ${element.dtype.name} mixed`;
    if (name !== "int32" && !aligned(v)) return "cannot: an operand is not aligned to 16 bytes";
    if (tooBig(v)) return "cannot: more than 2^31 elements";
  }
  if (plan.combines && (last(inputs[0] as View) - 4) % 8 !== 0) return "cannot: heads are not in whole pieces of 8";
  const bytes = sharedBytes(K, !packing, element.dtype.name === "float32");
  if (bytes > device.sharedMemoryBytes) return `cannot: ${bytes} bytes of shared memory`;
  return refuseDevice(element, device);
}

/** What may be measured of a grid; 0: by the sizes. */
const gridTunables = { threads: [0, 64, 128, 256, 512], rows: [0, 1, 2, 4], groups: [0, 132, 264, 528, 1056] } as const satisfies Tunables;
/** Invocations of a workgroup, rows that a subgroup takes at a time, and workgroups. */
export interface Grid {
  readonly threads: number;
  readonly rows: number;
  readonly groups: number;
}
/**
 * The grid that was fastest on an H200 (subgroups of 32). Plain products like workgroups of 16 subgroups: each prepares the vector once for many rows; two rows at a time
 * where the vector is long and there are rows enough. Gated ones keep two sums per row: small workgroups, or four rows at a time where there are many.
 */
function gridOf(counts: readonly number[], K: number, device: GpuDevice, gated: boolean, given: Partial<Grid> = {}): Grid {
  const total = counts.reduce((a, b) => a + b, 0);
  const many = total >= 8192;
  const subgroups = gated ? (many ? 4 : 8) : 16;
  const size = Math.max(device.subgroupSize, Math.min(given.threads || subgroups * device.subgroupSize, 512, device.groupInvocations));
  const perGroup = size / device.subgroupSize;
  const rows = given.rows || (gated ? (many ? 4 : 1) : K >= 2048 && total >= 2 * perGroup * 80 ? 2 : 1);
  const most = given.groups || (gated ? 1056 : 528 / rows);
  const needed = Math.ceil(counts.reduce((a, n) => a + Math.ceil(n / rows), 0) / perGroup);
  return { threads: size, rows, groups: Math.ceil(needed / Math.ceil(needed / most)) };
}

function launchProduct(name: string, plan: Plan, inputs: readonly View[], p: ProductParams, device: GpuDevice, given?: Partial<Grid>): GpuLaunch {
  const [packing] = p.packings as [Packing | null];
  const each = packing ? 3 : 1;
  const matrices = p.packings.map((_, i) => plan.matrices + each * i);
  // Unused matrices and biases get an address that is there.
  const slots = Array.from({ length: plan.slots }, (_, i) => matrices[i] ?? plan.matrices);
  const counts = matrices.map((at) => (inputs[at] as View).shape[0] as number);
  const grid = gridOf(plan.gated ? counts.slice(0, 1) : counts, widthOf(plan, inputs), device, plan.gated, given);
  const pointers: GpuPointer[] = [...plan.head, ...slots.flatMap((at) => Array.from({ length: each }, (_, i) => at + i)), ...plan.tail, p.bias ? inputs.length - 1 : 0].map((i) => gpuInput(i));
  const words = [counts[0] as number, counts[1] ?? 0, counts[2] ?? 0];
  if (plan.combines) {
    const [splits, heads, width] = (inputs[0] as View).shape as [number, number, number];
    words.push(heads, width - 4, splits, p.least ?? 1);
  }
  return {
    steps: [
      {
        shader: `decode/${name}_${packing ? "" : "dense_"}${suffixOf(inputs[plan.element] as View)}`,
        constants: [grid.threads, device.subgroupSize, widthOf(plan, inputs), packing?.bits ?? 0, packing?.groupSize ?? 0, grid.rows, floatWord(p.eps ?? 0), p.bias ? 1 : 0],
        ...subgroup(device),
        buffers: [...pointers, gpuOutput(0)],
        words,
        groups: [grid.groups, 1, 1],
      },
    ],
  };
}
const plans = {
  normProject: { element: 0, head: [0, 1], matrices: 2, slots: 3, tail: [], gated: false, combines: false },
  normGateUp: { element: 0, head: [0, 1], matrices: 2, slots: 2, tail: [], gated: true, combines: false },
  projectAdd: { element: 0, head: [0], matrices: 2, slots: 1, tail: [1], gated: false, combines: false },
  combineProjectAdd: { element: 1, head: [0, 2], matrices: 3, slots: 1, tail: [1], gated: false, combines: true },
} as const satisfies Readonly<Record<string, Plan>>;

/** The kernel of a product; `given` fixes parts of its grid, for measurements. */
export function productKernel<P extends object>(name: keyof typeof plans, given?: Partial<Grid>): GpuKernel<P> {
  const plan: Plan = plans[name];
  return {
    name: `vulkan/decode/${name}${given ? JSON.stringify(given) : ""}`,
    ...(plan.tail.length > 0 ? { inPlace: plan.tail } : {}),
    gate: { ...(plan.combines ? { needs } : { typeNeeds: halfNeeds }), refuse: (inputs, p, _outputs, device) => refuseProduct(plan, inputs, p as unknown as ProductParams, device) },
    ...(given ? {} : { tune: gridTunables }),
    launch: (inputs, _outputs, p, device, choices) => launchProduct(name, plan, inputs, p as unknown as ProductParams, device, given ?? choices),
  };
}
export const gpuProducts = {
  normProject: [productKernel<ProjectionParams>("normProject")],
  normGateUp: [productKernel<ProjectionParams>("normGateUp")],
  projectAdd: [productKernel<Omit<ProjectionParams, "eps">>("projectAdd")],
  combineProjectAdd: [productKernel<CombineParams>("combineProjectAdd")],
} as const;

// ---- attention

/** Query heads of a workgroup: the most, up to 8, that divide those of a key head. */
function groupOf({ heads, kvHeads }: AttentionStepParams): number {
  const all = heads / kvHeads;
  for (let g = Math.min(8, all); g > 1; g--) if (all % g === 0) return g;
  return 1;
}
/** Turns per position of each pair, as 64-bit fractions: only what is left after whole turns matters. */
function fractionsOf(rope: Rope): number[] {
  const words: number[] = [];
  for (let i = 0; i < rope.dims / 2; i++) {
    const frequency = rope.wavelengths ? 1 / Math.fround(rope.wavelengths[i] as number) : (rope.base as number) ** ((-2 * i) / rope.dims);
    const [low, high] = fixedTurns((rope.scale * frequency) / (2 * Math.PI));
    words.push(high, low);
  }
  return words;
}
function attentionShared(p: AttentionStepParams): number {
  const group = groupOf(p);
  const rowsAtOnce = Math.floor(threads / (p.headDim / 8));
  const all = rowsAtOnce * group * p.headDim;
  const batch = all > 4096 ? 1 : group;
  return 4 * ((group + 2) * p.headDim + (group * threads) / 4 + 3 * group + batch * rowsAtOnce * p.headDim);
}
export const gpuAttentionStep: readonly GpuKernel<AttentionStepParams>[] = [
  {
    name: "vulkan/decode/attentionStep",
    bases: [
      [1, 2],
      [2, 3],
    ],
    gate: {
      typeNeeds: halfNeeds,
      refuse([qkv, , keys, values, ...norms], p, _outputs, device) {
        const element = qkv as View;
        if (p.headDim % 8 !== 0 || p.headDim > 8 * threads) return `cannot: heads of ${p.headDim} elements`;
        if (norms.some((n) => n.dtype !== element.dtype)) return "cannot: norms and vectors have different dtypes";
        if (tooBig(keys as View)) return "cannot: more than 2^31 elements";
        if (!aligned(keys as View) || !aligned(values as View)) return "cannot: a cache is not aligned to 16 bytes";
        const bytes = attentionShared(p);
        return bytes > device.sharedMemoryBytes ? `cannot: ${bytes} bytes of shared memory` : refuseDevice(element, device);
      },
    },
    launch([qkv, , keys], _outputs, p, device) {
      const group = groupOf(p);
      const { heads, kvHeads, headDim, rope } = p;
      const blocks = heads / kvHeads / group;
      const constants = [threads, device.subgroupSize, headDim, group, rope.dims, Number(rope.traditional), Number(p.queryNorm), Number(p.keyNorm), floatWord(p.eps), floatWord(p.scale)];
      return {
        steps: [
          {
            shader: `decode/attention_${suffixOf(qkv as View)}`,
            constants,
            ...subgroup(device),
            buffers: [gpuInput(0), gpuInput(1), gpuUpdate(1), gpuUpdate(2), gpuInput(p.queryNorm ? 4 : 0), gpuInput(p.keyNorm ? (p.queryNorm ? 5 : 4) : 0), gpuOutput(0)],
            table: fractionsOf(rope),
            words: [heads, kvHeads, (keys as View).shape[2] as number, p.splits, p.least, blocks],
            groups: [kvHeads * blocks, p.splits, 1],
          },
        ],
      };
    },
  },
];

// ---- tokens

const embedThreads = 128;
export const gpuEmbed: readonly GpuKernel<{ packing: Packing | null }>[] = [
  {
    name: "vulkan/decode/embedRow",
    gate: {
      needs,
      refuse(inputs, { packing }, outputs, device) {
        const out = outputs[0] as View;
        const table = inputs[1] as View;
        if (packing && last(out) % 32 !== 0) return "cannot: rows do not come in whole blocks";
        if (packing && inputs[3]?.dtype !== out.dtype) return "cannot: scales and biases have different dtypes";
        if (table.size >= 2 ** 32) return "cannot: more than 2^32 elements";
        return refuseDevice(out, device);
      },
    },
    launch(inputs, [out], { packing }) {
      const width = last(out as View);
      const tables = packing ? [1, 2, 3] : [1];
      return {
        steps: [
          {
            shader: `decode/embed_${packing ? "" : "dense_"}${suffixOf(out as View)}`,
            constants: [embedThreads, packing?.bits ?? 0, packing?.groupSize ?? 0],
            buffers: [gpuInput(0), ...tables.map((i) => gpuInput(i)), gpuOutput(0)],
            words: [width, (inputs[1] as View).shape[0] as number],
            groups: [Math.ceil(width / embedThreads), 1, 1],
          },
        ],
      };
    },
  },
];

export const gpuChoose: readonly GpuKernel<ChooseParams>[] = [
  {
    name: "vulkan/decode/chooseToken",
    bases: [
      [0, 1],
      [1, 2],
    ],
    gate: { typeNeeds: halfNeeds, refuse: ([logits], _p, _outputs, device) => (tooBig(logits as View) ? "cannot: more than 2^31 elements" : refuseDevice(logits as View, device)) },
    launch([logits, , history], _outputs, { temperature, seed }) {
      const n = (logits as View).size;
      const parts = Math.max(1, Math.min(128, Math.ceil(n / (4 * threads))));
      const type = suffixOf(logits as View);
      const drawn = temperature === 0 ? 0 : 1;
      const best = {
        shader: `decode/best_${type}`,
        constants: [threads, drawn],
        buffers: [gpuInput(0), { ...gpuUpdate(0), access: "read" as const }, gpuScratchOut(0)],
        words: [n, floatWord(drawn ? 1 / temperature : 1), seed >>> 0],
        groups: [parts, 1, 1] as const,
      };
      const advance = {
        shader: `decode/advance_${type}`,
        constants: [threads, drawn],
        buffers: [gpuInput(0), gpuScratchIn(0), gpuUpdate(0), gpuUpdate(1)],
        words: [parts, (history as View).size],
        groups: [1, 1, 1] as const,
      };
      return { steps: [best, advance], scratch: [8 * parts] };
    },
  },
];
export const gpuAdvance: readonly GpuKernel[] = [
  {
    name: "vulkan/decode/advance",
    bases: [
      [0, 1],
      [1, 2],
    ],
    launch: (_inputs, [, history]) => ({ steps: [{ shader: "decode/given", buffers: [gpuInput(0), gpuUpdate(0), gpuUpdate(1)], words: [(history as View).size], groups: [1, 1, 1] }] }),
  },
];
