/** Everything in `mx`: ops, dtypes, devices, memory, files. Names are MLX's in camelCase. */
import { openVulkan, setDeviceCacheLimit, setDeviceMemoryLimit } from "./backend/vulkan/index.ts";
import { wasmBackend } from "./backend/wasm/index.ts";
import { type DeviceType, defaultDevice, forgetStreams } from "./core/device.ts";
import "./debug/check.ts";
import { deviceInfo } from "./debug/info.ts";
import "./debug/routes.ts";
import "./debug/self-check.ts";
import "./schedule/compiled.ts";
import "./schedule/flush.ts";

export { MxArray, getWrappersCount } from "./core/array.ts";
export {
  Dtype, DtypeCategory, bfloat16, bool, bool as bool_, complex64, complexfloating, float16, float32, float64, floating, generic, inexact, int16, int32, int64,
  int8, integer, issubdtype, number, signedinteger, uint16, uint32, uint64, uint8, unsignedinteger,
} from "./core/dtype.ts";
export {
  Device, Stream, cpu, defaultDevice, defaultStream, gpu, isAvailable, newStream, setDefaultDevice, setDefaultStream, stream, toStream,
  type DeviceType, type StreamOrDevice,
} from "./core/device.ts";
export { MxError } from "./core/error.ts";
export { dispose, tidy } from "./core/memory.ts";
export { type PrintOptions, getPrintoptions, printoptions, setPrintoptions } from "./core/print.ts";
export { complex as Complex, type ArrayLike, type NestedArray, type Scalar } from "./ops/convert.ts";
export { array } from "./ops/methods.ts";
export * from "./ops/argreduce.ts";
export * from "./ops/binary.ts";
export * from "./ops/cast.ts";
export * from "./ops/compare.ts";
export { conj, conjugate, imag, real } from "./ops/complex.ts";
export * from "./ops/concat.ts";
export * from "./ops/conv.ts";
export * from "./ops/creation.ts";
export { depends } from "./ops/depends.ts";
export * from "./ops/einsum.ts";
export * from "./ops/fp8.ts";
export * from "./ops/hadamard.ts";
export * from "./ops/indexing.ts";
export * from "./ops/masked.ts";
export * from "./ops/matmul.ts";
export * from "./ops/movement.ts";
export * from "./ops/pad.ts";
export * from "./ops/qqmm.ts";
export * from "./ops/quantized.ts";
export * from "./ops/reduce.ts";
export * from "./ops/scan.ts";
export * from "./ops/select.ts";
export * from "./ops/slice.ts";
export * from "./ops/softmax.ts";
export * from "./ops/sort.ts";
export * from "./ops/standard.ts";
export * from "./ops/types.ts";
export * from "./ops/unary.ts";
export * as random from "./ops/random.ts";
/** Building blocks of a decode step: what models use on the GPU. */
export * as decode from "./ops/decode.ts";
export * as fast from "./ops/fast.ts";
export * as fft from "./ops/fft.ts";
export * as linalg from "./ops/linalg.ts";
export { norm as matrixNorm } from "./ops/linalg.ts";
export * from "./io/index.ts";
export { explain } from "./debug/explain.ts";
export { type Profile, type ProfileRow, formatProfile, profile } from "./debug/profile.ts";
export { type TuneOptions, type TuneReport, type TuneRow, tune } from "./debug/tune.ts";
export { type DeviceInfo, type SystemInfo, type VulkanInfo, deviceCount, deviceInfo, systemInfo } from "./debug/info.ts";
export { grad, jvp, valueAndGrad, vjp } from "./transforms/autodiff.ts";
export { compile, disableCompile, enableCompile } from "./transforms/compile.ts";
export { checkpoint, customFunction } from "./transforms/custom.ts";
export { type TextWriter, exportToDot } from "./transforms/dot.ts";
export { type ExportArgument, type ExportEvent, type Exporter, type ImportedFunction, exportFunction, exporter, importFunction } from "./transforms/export.ts";
export { vmap } from "./transforms/vmap.ts";
export { start, startsEarly } from "./schedule/early.ts";
export { type PlanBuffer, type PlanOperand, type PlanReport, type PlanStep, formatPlan, plan } from "./schedule/plan-report.ts";
export { type LoopArrays, Recording, loopHistory, overwrite } from "./schedule/replay.ts";
export { asyncEval, evalArrays as eval } from "./schedule/run.ts";

export const e = Math.E;
export const eulerGamma = 0.5772156649015329;
export const inf = Number.POSITIVE_INFINITY;
export const nan = Number.NaN;
export const pi = Math.PI;
/** A new axis in an index. */
export const newaxis = null;
/** Further names of the same constants, as in numpy. */
export { inf as Inf, inf as Infinity, inf as PINF, inf as infty, nan as NAN, nan as NaN };
export const NINF = Number.NEGATIVE_INFINITY;
export const NZERO = -0;
export const PZERO = 0;

/** Bytes of all living arrays. */
export const getActiveMemory = (): number => wasmBackend().memory.counters.active + (openVulkan()?.memory.counters.active ?? 0);
/** Most bytes that arrays took at one time since the start or `resetPeakMemory`: 0 until memory is taken again. */
export const getPeakMemory = (): number => wasmBackend().memory.counters.peak + (openVulkan()?.memory.counters.peak ?? 0);
export function resetPeakMemory(): void {
  wasmBackend().memory.counters.peak = 0;
  openVulkan()?.memory.resetPeak();
}
/** Bytes of freed memory that is kept for later arrays: freed blocks on the CPU, and buffers on the GPU in which nothing is left. */
export const getCacheMemory = (): number => wasmBackend().memory.counters.cache + (openVulkan()?.memory.counters.cached ?? 0);
/** Sets the most bytes that arrays may take on a device (default: the default device); returns the limit before. An evaluation that needs more throws. */
export const setMemoryLimit = (limit: number, device: DeviceType = defaultDevice().type): number =>
  device === "gpu" ? setDeviceMemoryLimit(limit) : wasmBackend().memory.setLimit(limit);
/** Merges freed blocks, and gives unused memory of the GPU back. WebAssembly can not hand pages back to the system. */
export function clearCache(): void {
  wasmBackend().memory.trim();
  openVulkan()?.trim();
}

/** Waits for all submitted work (of one stream or of all). */
export function synchronize(): void {
  wasmBackend().pool.drain();
  openVulkan()?.synchronize();
}

let wiredLimit = 0;
/**
 * Sets the most bytes of freed memory to keep for later arrays, on each device; returns the limit before (of the default device). What is freed beyond it is merged at once
 * on the CPU, because WebAssembly can not hand pages back to the system; the GPU gets its buffers back when no work uses them any more.
 */
export function setCacheLimit(limit: number): number {
  const before = { cpu: wasmBackend().memory.setCacheLimit(limit), gpu: setDeviceCacheLimit(limit) };
  return before[defaultDevice().type];
}
/** Keeps a limit for memory that must not be paged out and returns the one before. A process can not pin WebAssembly memory, so it changes nothing. */
export function setWiredLimit(limit: number): number {
  const before = wiredLimit;
  wiredLimit = limit;
  return before;
}

/** Waits for all submitted work, and forgets the default streams. */
export function clearStreams(): void {
  synchronize();
  forgetStreams();
}

/** Older homes of the memory functions, and Apple's Metal, which is never there. */
export const metal = {
  isAvailable: (): boolean => false,
  deviceInfo,
  /** There is nothing to capture, so this gives false. */
  startCapture: (_path: string): boolean => false,
  stopCapture: (): void => {},
  clearCache, getActiveMemory, getCacheMemory, getPeakMemory, resetPeakMemory, setCacheLimit, setMemoryLimit, setWiredLimit,
} as const;

/** NVIDIA's CUDA, which is never used: GPUs of all makers are driven through Vulkan. */
export const cuda = { isAvailable: (): boolean => false } as const;
