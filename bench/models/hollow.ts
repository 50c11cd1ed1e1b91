/**
 * A GPU that does nothing at once: the functions of the native addon that reach a device, replaced. What is left of a measurement is the host's work. It says of itself
 * what an H200 says (driver 580), so that the same kernels are chosen as there. Results are zeros.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Addon, DeviceInfo } from "../../src/backend/vulkan/addon.ts";
import type { GpuFeature, MatrixShape } from "../../src/core/gpu.ts";

const lacking: readonly GpuFeature[] = ["shaderSubgroupExtendedTypes"];
const featureNames = [
  "shaderFloat64", "shaderInt64", "shaderInt16", "storageBuffer16BitAccess", "storageBuffer8BitAccess", "shaderFloat16", "shaderInt8", "scalarBlockLayout", "timelineSemaphore",
  "bufferDeviceAddress", "vulkanMemoryModel", "vulkanMemoryModelDeviceScope", "subgroupSizeControl", "computeFullSubgroups", "synchronization2", "shaderIntegerDotProduct", "maintenance4",
  "signedZeroInfNanPreserveFloat32", "signedZeroInfNanPreserveFloat64", "denormPreserveFloat32", "denormPreserveFloat64", "memoryBudget", "hostImport", "cooperativeMatrix", "bfloat16",
] as const satisfies readonly GpuFeature[];
const matrix = (k: number, a: number, c: number): MatrixShape => ({ m: 16, n: 16, k, a, b: a, c, result: c, scope: 3 });

const info: DeviceInfo = {
  name: "hollow", type: 2, apiVersion: (1 << 22) | (4 << 12), driver: "hollow", driverVersion: 1, vendorId: 0x10de, deviceId: 1, uuid: "0", cacheUuid: "0",
  limits: {
    pushConstantBytes: 256, sharedMemoryBytes: 49152, groupInvocations: 1024, groupCount: [2 ** 31 - 1, 65535, 65535], bufferBytes: 2 ** 40, allocationBytes: 2 ** 32 - 1,
    allocations: 2 ** 32 - 1, importAlignment: 4096, timestampPeriod: 1,
  },
  features: Object.fromEntries([...featureNames.map((f) => [f, true]), ...lacking.map((f) => [f, false])]) as DeviceInfo["features"],
  subgroup: { size: 32, min: 32, max: 32, operations: 0xff },
  unified: false,
  directUpload: true,
  cooperativeMatrix: [matrix(16, 0, 1), matrix(16, 1000141000, 1), matrix(16, 0, 0), matrix(32, 3, 5)],
};

/** What the device was given to do. */
export const given = { submissions: 0, words: 0, firstAt: 0 };

/** Puts the hollow device in the place of all others in this process. Call it before the GPU is first used. */
export function useHollowDevice(): void {
  // It would be found wrong, and nothing that it compiles is worth keeping.
  Object.assign(process.env, { MLX_VK_SELF_CHECK: "0", MLX_VK_CACHE: "0", MLX_STRICT: "1" });
  const folder = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
  const addon = createRequire(import.meta.url)(join(folder, "native", "build", "Release", "mlx_vk.node")) as Addon;
  const sizes = new Map<number, number>();
  const mapped = new Map<number, ArrayBuffer>();
  let ids = 0;
  let timeline = 0;
  const next = (): number => ++ids;
  const send = (_words: Uint32Array, count: number): number => {
    if (given.submissions++ === 0) given.firstAt = performance.now();
    given.words += count;
    return ++timeline;
  };
  const hollow: Addon = {
    probe: () => ({ ok: true, loader: info.apiVersion, devices: [info] }),
    openDevice: () => info,
    closeDevice: () => {},
    memoryInfo: () => Float64Array.of(2 ** 37, 2 ** 37, 0),
    createBuffer: (bytes) => {
      sizes.set(next(), bytes);
      return ids;
    },
    importHost: next,
    destroyBuffer: (b) => {
      sizes.delete(b);
      mapped.delete(b);
    },
    bufferAddress: (b) => BigInt(b) << 34n,
    mapBuffer: (b) => {
      const known = mapped.get(b) ?? new ArrayBuffer(sizes.get(b) as number);
      mapped.set(b, known);
      return known;
    },
    writeBuffer: () => {},
    readBuffer: (_b, _at, to) => {
      new Uint8Array(to.buffer, to.byteOffset, to.byteLength).fill(0);
    },
    createPipeline: next,
    createPipelineAsync: () => Promise.resolve(next()),
    destroyPipeline: () => {},
    pipelineCacheData: () => new Uint8Array(),
    submit: send,
    record: next,
    replay: () => ++timeline,
    freeCommands: () => {},
    completed: () => timeline,
    waitSync: () => true,
    waitAsync: () => Promise.resolve(),
    timestamps: (_first, _count, out) => {
      out.fill(0);
    },
    takeMessages: () => [],
  };
  Object.assign(addon, hollow);
}
