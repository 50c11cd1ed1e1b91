/** What tuning keeps between processes: a small JSON file per device, driver (for the CPU: engine, build of the kernels and threads) and version of the package. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { arch, cpus } from "node:os";
import { dirname, join } from "node:path";
import type { DeviceType } from "../core/device.ts";
import { env } from "../core/env.ts";
import { type Choices, type Kernel, type Op, ops } from "../core/op.ts";
import type { GpuKernel } from "../core/gpu.ts";
import { vulkanBackend } from "../backend/vulkan/index.ts";
import { cacheFolder } from "../backend/vulkan/pipelines.ts";
import { wasmBackend } from "../backend/wasm/index.ts";
import { relaxedSimdWorks } from "../backend/wasm/modules.ts";
import { packageInfo } from "../package.ts";

/** Outcome for one bucket. Without a kernel: nothing was faster than what runs anyway. */
export interface Entry {
  readonly kernel?: string;
  readonly values?: Choices;
  /** Time of what runs without tuning over that of the choice, and in milliseconds. */
  readonly ratio: number;
  readonly ms: number;
}
export type Entries = Map<string, Entry>;

/** What measurements hold for. */
export interface Identity {
  readonly device: string;
  readonly driver: string;
  readonly version: string;
  /** Changes with the kernels and their parameters. */
  readonly kernels: string;
}

type AnyKernel = Kernel | GpuKernel;
export const kernelsOf = (op: Op, device: DeviceType): readonly AnyKernel[] => (device === "gpu" ? (op.gpu ?? []) : op.kernels);

const hash = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);
const stateOf = (device: DeviceType): string =>
  hash([...ops.values()].map((op) => `${op.name} ${kernelsOf(op, device).map((k) => k.name + JSON.stringify(k.tune ?? {})).join(" ")}`).sort().join("\n"));

export function identityOf(device: DeviceType): Identity {
  const common = { version: packageInfo().version, kernels: stateOf(device) };
  if (device === "gpu") {
    const { name, driver, driverVersion } = vulkanBackend().info;
    return { device: name, driver: `${driver} ${driverVersion}`, ...common };
  }
  const build = relaxedSimdWorks(env("MLX_RELAXED_SIMD")) ? "relaxed" : "plain";
  return { device: `${arch()} ${cpus()[0]?.model.trim() ?? "unknown"}`, driver: `V8 ${process.versions.v8} ${build} ${wasmBackend().pool.threads} threads`, ...common };
}

const slug = (text: string): string => text.toLowerCase().replaceAll(/[^a-z0-9.]+/g, "-").replaceAll(/^-|-$/g, "").slice(0, 60);
/** Undefined when MLX_VK_CACHE is 0. */
export function fileOf({ device, driver, version }: Identity): string | undefined {
  const folder = cacheFolder();
  return folder === undefined ? undefined : join(folder, `tune-${slug(device)}-${slug(driver)}-${slug(version)}.json`);
}

const format = 1;
const isObject = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && !Array.isArray(x);

/** An entry with what this version knows of it; undefined when it does not know the op or the kernel. */
function entryOf(bucket: string, value: unknown, device: DeviceType): Entry | undefined {
  if (!isObject(value) || typeof value["ratio"] !== "number" || typeof value["ms"] !== "number") return undefined;
  const op = ops.get(bucket.slice(0, bucket.indexOf(" ")));
  if (!op) return undefined;
  const { ratio, ms, kernel: name, values } = value as { ratio: number; ms: number; kernel?: unknown; values?: unknown };
  if (name === undefined) return { ratio, ms };
  const kernel = kernelsOf(op, device).find((k) => k.name === name);
  if (!kernel) return undefined;
  const known = Object.entries(isObject(values) ? values : {}).filter(([n, v]) => kernel.tune?.[n]?.includes(v as number));
  return { kernel: kernel.name, ...(known.length > 0 ? { values: Object.fromEntries(known) as Choices } : {}), ratio, ms };
}

function parse(text: string, identity: Identity, device: DeviceType): Entries | string {
  let all: unknown;
  try {
    all = JSON.parse(text);
  } catch {
    return "it is damaged";
  }
  if (!isObject(all) || !isObject(all["choices"])) return "it is damaged";
  if (all["format"] !== format) return `its format is ${JSON.stringify(all["format"])}, not ${format}`;
  for (const key of ["device", "driver", "version", "kernels"] as const) if (all[key] !== identity[key]) return `it is of another ${key === "kernels" ? "set of kernels" : key}`;
  const entries: Entries = new Map();
  for (const [bucket, value] of Object.entries(all["choices"])) {
    const entry = entryOf(bucket, value, device);
    if (entry) entries.set(bucket, entry);
  }
  return entries;
}

/** Entries of a file; none when it is missing, damaged, or of something else. */
export function readTuned(file: string | undefined, identity: Identity, device: DeviceType): Entries {
  if (file === undefined) return new Map();
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return new Map();
  }
  const read = parse(text, identity, device);
  if (typeof read !== "string") return read;
  if (env("MLX_DEBUG") >= 1) process.stderr.write(`mlx-vk: ${file} is not used: ${read}\n`);
  return new Map();
}

/** Written beside and renamed, so that other processes never read half a file. False when that fails: measurements may be lost. */
export function writeTuned(file: string | undefined, identity: Identity, entries: Entries): boolean {
  if (file === undefined) return false;
  try {
    mkdirSync(dirname(file), { recursive: true });
    const temporary = `${file}.${process.pid}`;
    writeFileSync(temporary, `${JSON.stringify({ format, ...identity, choices: Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1))) }, null, 1)}\n`);
    renameSync(temporary, file);
    return true;
  } catch {
    return false;
  }
}
