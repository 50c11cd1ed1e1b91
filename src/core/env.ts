/** The one table of environment flags, and the only reader of process.env. README's table is made from it. */

interface Flag {
  readonly type: "boolean" | "integer" | "string";
  readonly default: boolean | number | string;
  readonly doc: string;
}
export const flags = {
  MLX_THREADS: { type: "integer", default: 0, doc: "CPU threads in all, the calling one included; 0 means the number of cores the process may use" },
  MLX_DISABLE: { type: "string", default: "", doc: "comma-separated globs of kernel names that must not run, e.g. `wasm/quantized/*`" },
  MLX_FORCE: { type: "string", default: "", doc: "globs of kernel names whose speed thresholds (\"slower: ...\") are ignored" },
  MLX_FUSE: { type: "boolean", default: true, doc: "fuse runs of elementwise ops into one generated kernel" },
  MLX_REPLAY: { type: "boolean", default: true, doc: "record the work of a decode step once and run it again for each token" },
  MLX_RELAXED_SIMD: { type: "string", default: "auto", doc: "`auto`, `0` (plain SIMD kernels only) or `1` (relaxed SIMD where the engine runs it correctly)" },
  MLX_MEMORY_LIMIT: { type: "integer", default: 0, doc: "most bytes that arrays may take; 0 means all that 32-bit WebAssembly can address" },
  MLX_STALL_SECONDS: { type: "integer", default: 60, doc: "seconds without any progress of the worker threads after which a wait gives up with an error" },
  MLX_VK_DEVICE: { type: "string", default: "", doc: "Vulkan device by number or part of its name; empty: the best one that is not a software rasterizer" },
  MLX_VK_CACHE: { type: "string", default: "", doc: "folder for compiled Vulkan pipelines; empty: `~/.cache/mlx-vk`; `0`: none" },
  MLX_CHECK: { type: "boolean", default: false, doc: "compute every op a second time in float64 and throw where the results differ (slow; without fusion and recordings)" },
  MLX_DEBUG: { type: "integer", default: 0, doc: "1 prints each evaluation on stderr, 2 also each op with its kernel, shapes and the kernels that refused" },
} as const satisfies Record<string, Flag>;
export type FlagName = keyof typeof flags;
type FlagValue<N extends FlagName> = (typeof flags)[N]["type"] extends "boolean" ? boolean : (typeof flags)[N]["type"] extends "integer" ? number : string;

const falsy = new Set(["0", "false", "off", "no", ""]);

/** Value of a flag: from the environment if set and readable, else its default. */
export function env<N extends FlagName>(name: N): FlagValue<N> {
  const flag: Flag = flags[name];
  const text = process.env[name];
  if (text === undefined) return flag.default as FlagValue<N>;
  if (flag.type === "boolean") return !falsy.has(text.toLowerCase()) as FlagValue<N>;
  if (flag.type === "string") return text as FlagValue<N>;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name} must be a non-negative integer, got ${JSON.stringify(text)}`);
  return value as FlagValue<N>;
}
