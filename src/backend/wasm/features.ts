/** Features of the processor that kernels are chosen by. */
import { readFileSync } from "node:fs";

/** CPU features that matter for the kernels, by the names /proc/cpuinfo has for them. */
const interesting = ["sse4_1", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16"];

/** Features of the CPU that the system names; undefined where it does not. */
export function cpuFeatures(): string[] | undefined {
  try {
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
    const flags = new Set(line?.trim().split(/\s+/));
    return line === undefined ? undefined : interesting.filter((name) => flags.has(name));
  } catch {
    return undefined;
  }
}

/** V8's major version from which on the int8 dot product becomes one instruction where the processor has it (Node 24). */
const dotVersion = 13;
/** True when the int8 dot product with 32-bit sums is one instruction: vpdpbusd of AVX-VNNI (not that of AVX-512, which V8 does not use), sdot of Arm. */
export function hasInt8Dot(arch: string, v8: string, features: readonly string[] | undefined): boolean {
  if (arch === "arm64") return features?.includes("asimddp") ?? true;
  return Number(v8.split(".")[0]) >= dotVersion && (features?.includes("avx_vnni") ?? false);
}
