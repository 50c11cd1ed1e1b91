/** Kernels on the GPU as data: what an op's record says about them, and what a launch is. Knows nothing of Vulkan's objects. */
import type { View } from "./array.ts";
import type { FlagName } from "./env.ts";
import type { Choices, InputLayout, Tunables } from "./op.ts";

/** What a device may offer, by the names of Vulkan's features; the last two are extensions. */
export type GpuFeature =
  | "shaderFloat64"
  | "shaderInt64"
  | "shaderInt16"
  | "storageBuffer16BitAccess"
  | "storageBuffer8BitAccess"
  | "shaderFloat16"
  | "shaderInt8"
  | "scalarBlockLayout"
  | "shaderSubgroupExtendedTypes"
  | "timelineSemaphore"
  | "bufferDeviceAddress"
  | "vulkanMemoryModel"
  | "vulkanMemoryModelDeviceScope"
  | "subgroupSizeControl"
  | "computeFullSubgroups"
  | "synchronization2"
  | "shaderIntegerDotProduct"
  | "maintenance4"
  | "signedZeroInfNanPreserveFloat32"
  | "signedZeroInfNanPreserveFloat64"
  | "denormPreserveFloat32"
  | "denormPreserveFloat64"
  | "memoryBudget"
  | "hostImport"
  | "cooperativeMatrix"
  | "bfloat16";

/** Shape of a cooperative matrix product; component types and scope are Vulkan's numbers (0 float16, 1 float32, 3 int8, 5 int32, 1000141000 bfloat16; scope 3 subgroup). */
export interface MatrixShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly result: number;
  readonly scope: number;
}

/** What gates and launches may know of the device. */
export interface GpuDevice {
  /** Invocations that run in step; a power of two from 1 to 128. Kernels take it as a parameter and never assume it. */
  readonly subgroupSize: number;
  readonly sharedMemoryBytes: number;
  /** Most invocations of a workgroup. */
  readonly groupInvocations: number;
  /** Most workgroups in x, y and z (65535 is what every device has). */
  readonly groupCount: readonly [number, number, number];
  readonly features: { readonly [F in GpuFeature]: boolean };
  readonly cooperativeMatrix: readonly MatrixShape[];
  /** PCI vendor: 0x10de NVIDIA, 0x1002 AMD, 0x8086 Intel, 0x10005 Mesa (lavapipe). */
  readonly vendorId: number;
}

/** A hand-written kernel: a variant of shaders/variants.ts with its conditions. */
export interface GpuKernel<P extends object = object> {
  /** `vulkan/<family>/<kernel>`: also the name in MLX_DISABLE, traces, tests and benches. */
  readonly name: `vulkan/${string}`;
  readonly gate?: GpuGate<P>;
  /** As for CPU kernels (core/op.ts). Default "row". */
  readonly layout?: readonly InputLayout[] | ((inputs: readonly View[], params: P) => readonly InputLayout[]);
  /** Output 0 starts as a copy of this input; no copy is made when the input's buffer can be taken over. */
  readonly base?: number;
  /** As `base`, for any outputs: pairs of an output and the input that it starts as a copy of. */
  readonly bases?: readonly (readonly [output: number, input: number])[];
  /** Output 0 may be written over these inputs (same byte size, row-major, each invocation reads before it writes). */
  readonly inPlace?: readonly number[];
  readonly tune?: Tunables;
  /** Pure: describes the work, does not run it. Never called when output 0 is empty. */
  launch(inputs: readonly View[], outputs: readonly View[], params: P, device: GpuDevice, choices?: Choices): GpuLaunch;
}

export interface GpuGate<P extends object = object> {
  readonly needs?: readonly GpuFeature[];
  /** More of them, by the dtype of input 0: what that variant of the shader declares. */
  readonly typeNeeds?: TypeNeeds;
  /** Environment flags (core/env.ts, boolean), each of which switches the kernel off. */
  readonly env?: FlagName | readonly FlagName[];
  /** A reason when the kernel can not take these arguments: "cannot: ..." (correctness) or "slower: ..." (speed, can be forced). */
  refuse?(inputs: readonly View[], params: P, outputs: readonly View[], device: GpuDevice): string | undefined;
}

export type TypeNeeds = Readonly<Record<string, readonly GpuFeature[]>>;
/** Of shaders that keep 16-bit elements in memory and compute in float32. */
export const halfNeeds: TypeNeeds = { float16: ["storageBuffer16BitAccess", "shaderInt16"], bfloat16: ["storageBuffer16BitAccess", "shaderInt16"] };
/** Of those that multiply them on matrix units. */
export const matrixNeeds: TypeNeeds = { float16: ["storageBuffer16BitAccess", "shaderInt16", "shaderFloat16"], bfloat16: ["storageBuffer16BitAccess", "shaderInt16", "bfloat16"] };
/** A feature that the gate demands for these inputs and the device lacks. */
export function missingFeature<P extends object>(gate: GpuGate<P> | undefined, inputs: readonly View[], features: GpuDevice["features"]): GpuFeature | undefined {
  const lacks = (f: GpuFeature): boolean => !features[f];
  const [x] = inputs;
  return gate?.needs?.find(lacks) ?? (x ? gate?.typeNeeds?.[x.dtype.name]?.find(lacks) : undefined);
}

/** Steps run in order; one that reads or writes what an earlier one wrote waits for it, others may overlap. */
export interface GpuLaunch {
  readonly steps: readonly GpuStep[];
  /** Bytes of each temporary buffer. */
  readonly scratch?: readonly number[];
}

/** One dispatch. */
export interface GpuStep {
  /** Name of a variant in shaders/variants.ts, or a kernel made at run time. */
  readonly shader: string | GeneratedShader;
  /** Specialization constants 0, 1, 2, ... (32-bit words; floats by `floatWord`). */
  readonly constants?: readonly number[];
  /** Demands this subgroup size of the device (needs subgroupSizeControl). */
  readonly subgroupSize?: number;
  /** The push constants begin with the addresses of these buffers, 8 bytes each ... */
  readonly buffers: readonly GpuPointer[];
  /** ... then of a buffer that holds these words, when given (for more than the push constants' 128 bytes can take) ... */
  readonly table?: readonly number[];
  /** ... then these 32-bit words. */
  readonly words: readonly number[];
  /** Workgroups. A zero means that there is nothing to do. */
  readonly groups: readonly [number, number, number];
}
export interface GeneratedShader {
  /** Equal for equal code. */
  readonly key: string;
  /** A variant of shaders/variants.ts that the code is made from. */
  readonly base?: string;
  readonly code: (base?: Uint32Array) => Uint32Array;
}

/** Further operands of the function that finishes a product's elements (shaders/common/epilogue.glsl). */
export const mostEpilogueOperands = 6;

/** Address of an operand's first element plus `bytes`, and what the kernel does there. */
export interface GpuPointer {
  readonly of: "input" | "output" | "scratch";
  readonly index: number;
  readonly bytes: number;
  readonly access: "read" | "write" | "both";
}
export const gpuInput = (index: number, bytes = 0): GpuPointer => ({ of: "input", index, bytes, access: "read" });
export const gpuOutput = (index: number, bytes = 0): GpuPointer => ({ of: "output", index, bytes, access: "write" });
/** An output that the kernel also reads, or writes only in part (kernels with a `base`, atomics). */
export const gpuUpdate = (index: number, bytes = 0): GpuPointer => ({ of: "output", index, bytes, access: "both" });
export const gpuScratchIn = (index: number, bytes = 0): GpuPointer => ({ of: "scratch", index, bytes, access: "read" });
export const gpuScratchOut = (index: number, bytes = 0): GpuPointer => ({ of: "scratch", index, bytes, access: "write" });
export const gpuScratchUpdate = (index: number, bytes = 0): GpuPointer => ({ of: "scratch", index, bytes, access: "both" });

const cell = new DataView(new ArrayBuffer(4));
/** Bits of a float32, as a word. */
export function floatWord(value: number): number {
  cell.setFloat32(0, value);
  return cell.getUint32(0);
}

/** Most workgroups in one dimension that every device has. */
export const groupLimit = 65535;
/** Spreads `count` workgroups over x and y; the kernel's index is `y * groups.x + x` and must be compared with the count. */
export function spreadGroups(count: number): [number, number, number] {
  const x = Math.min(count, groupLimit);
  return [x, x === 0 ? 0 : Math.ceil(count / x), 1];
}
