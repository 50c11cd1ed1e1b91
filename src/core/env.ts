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
  MLX_FLUSH_BYTES: { type: "integer", default: 1.5 * 2 ** 30, doc: "bytes of arrays between, which a graph not yet evaluated may need, beyond which its newest array is computed early; 0: never" },
  MLX_COLLECT: { type: "boolean", default: true, doc: "ask V8 now and then, between events, to look for arrays that nobody holds (1 % of the time at most)" },
  MLX_REPLAY: { type: "boolean", default: true, doc: "record the work of a decode step once and run it again for each token" },
  MLX_DISABLE_COMPILE: { type: "boolean", default: false, doc: "functions that `mx.compile` gives run as they are, as after `mx.disableCompile()`" },
  MLX_PLAN_CACHE: { type: "boolean", default: true, doc: "plan what a compiled function does once for each kind of arguments; off: each call puts its ops into the graph again" },
  MLX_RELAXED_SIMD: { type: "string", default: "auto", doc: "`auto`, `0` (plain SIMD kernels only) or `1` (relaxed SIMD where the engine runs it correctly)" },
  MLX_WASM_REVEC: { type: "boolean", default: false, doc: "let V8 pair the vector instructions of CPU kernels (its experimental flag `--experimental-wasm-revectorize`, Node 24 or newer on x64), if kernels give the same results in a test at the start" },
  MLX_MEMORY_LIMIT: { type: "integer", default: 0, doc: "most bytes that arrays may take; 0 means all that 32-bit WebAssembly can address" },
  MLX_STALL_SECONDS: { type: "integer", default: 60, doc: "seconds without any progress of the worker threads after which a wait gives up with an error" },
  MLX_VK_DEVICE: { type: "string", default: "", doc: "Vulkan device by number or part of its name; empty: the best one that is not a software rasterizer" },
  MLX_VK_CACHE: { type: "string", default: "", doc: "folder for compiled Vulkan pipelines and measured choices of kernels; empty: `~/.cache/mlx-vk`; `0`: none" },
  MLX_VK_FUSED_STEP: { type: "boolean", default: true, doc: "decode on the GPU by the fused ops of a step (about five kernels per layer) instead of one kernel per op" },
  MLX_VK_SELF_CHECK: { type: "string", default: "auto", doc: "check the GPU's kernels against the CPU's before the first work on a driver: `auto` (not on software rasterizers), `0` or `1`" },
  MLX_VK_PROFILE: { type: "boolean", default: false, doc: "measure the work of the GPU by op and kernel and print a table on stderr when the process ends" },
  MLX_VK_PROFILE_PRINT_EACH: { type: "boolean", default: false, doc: "as `MLX_VK_PROFILE`, with a line per op and per kernel as they run" },
  MLX_VK_PROFILE_TRACE: { type: "string", default: "", doc: "file for the profile's events in Chrome's trace format (with `MLX_VK_PROFILE` or `mx.profile`)" },
  MLX_VK_DEBUG_ROPE_HIT: { type: "boolean", default: false, doc: "print each rope that a GPU kernel computes, with shapes and strides" },
  MLX_VK_DEBUG_ROPE_REJECT: { type: "boolean", default: false, doc: "print each rope that a GPU kernel refused, with the reason, shapes and strides" },
  MLX_VK_DEBUG_SDPA_HIT: { type: "boolean", default: false, doc: "the same for attention that a GPU kernel computes" },
  MLX_VK_DEBUG_SDPA_REJECT: { type: "boolean", default: false, doc: "the same for attention that a GPU kernel refused" },
  MLX_VK_DEBUG_QMM_HIT: { type: "boolean", default: false, doc: "the same for quantized products that a GPU kernel computes" },
  MLX_VK_DEBUG_QMM_REJECT: { type: "boolean", default: false, doc: "the same for quantized products that a GPU kernel refused" },
  MLX_VK_HAZARDS: { type: "boolean", default: false, doc: "check every list of GPU commands for missing barriers before it is submitted (slow)" },
  MLX_VK_MASK: { type: "string", default: "", doc: "comma-separated features of the Vulkan device to treat as absent, e.g. `cooperativeMatrix,shaderFloat16`" },
  MLX_VK_VALIDATION: { type: "boolean", default: false, doc: "open the Vulkan device with the validation layers; their messages go to stderr (slow)" },
  MLX_VK_IMPORT: { type: "boolean", default: false, doc: "copy arrays of 1 MiB and more between host and GPU without staging memory, by importing the host's memory (where the driver can)" },
  MLX_VK_UNIFIED: { type: "string", default: "auto", doc: "kernels use arrays in place in the host's memory, without copies: `auto` (on integrated GPUs, where a check at the start finds that it works), `0`, or `1` (on any device that passes the check)" },
  MLX_VK_MEMORY_LIMIT: { type: "integer", default: 0, doc: "most bytes of GPU memory that buffers may take together; 0 means no limit" },
  MLX_VK_ENABLE_QMM_NATIVE: { type: "boolean", default: true, doc: "quantized products by GPU kernels (quantizedMatmul and gatherQMM); off: the weights are dequantized first" },
  MLX_VK_ENABLE_QMM_NATIVE_M1: { type: "boolean", default: true, doc: "the kernel for a single row or few; off: the kernels for many rows take them" },
  MLX_VK_ENABLE_RMSNORM_NATIVE: { type: "boolean", default: true, doc: "RMS norms by a GPU kernel; off: by their definition in other ops" },
  MLX_VK_ENABLE_ROPE_NATIVE: { type: "boolean", default: true, doc: "rotary positions by a GPU kernel" },
  MLX_VK_ENABLE_SDPA_NATIVE: { type: "boolean", default: true, doc: "attention by GPU kernels; off: by its definition in other ops" },
  MLX_VK_SDPA_MAX_K_LEN: { type: "integer", default: 0, doc: "most keys that the attention kernels take; 0: any number, as they have no limit of their own" },
  MLX_VK_SDPA_MAX_Q_LEN: { type: "integer", default: 0, doc: "most queries that the attention kernels take; 0: any number" },
  MLX_VK_SDPA_SPLIT_K: { type: "integer", default: 0, doc: "ranges into which the attention kernels divide the keys; 0: chosen by the sizes. This flag and the next three do not concern the fused ops of a decode step" },
  MLX_VK_SDPA_SPLITK_MIN_K_LEN: { type: "integer", default: 0, doc: "fewest keys that are divided; 0: chosen by the sizes" },
  MLX_VK_SDPA_SPLITK_TARGET_CHUNK: { type: "integer", default: 0, doc: "keys of a range; 0: chosen by the sizes" },
  MLX_VK_SDPA_SPLITK_MAX_PARTS: { type: "integer", default: 0, doc: "most ranges; 0: what the kernels have room for" },
  MLX_VK_MAX_OPS_PER_BUFFER: { type: "integer", default: 128, doc: "commands after which a list is submitted to the GPU although more is to come" },
  MLX_VK_EARLY_START: { type: "boolean", default: true, doc: "start the first layers of a prompt on the GPU while the later ones are still being recorded" },
  MLX_VK_KNOWN_LAUNCHES: { type: "boolean", default: true, doc: "choose the GPU's kernel and describe its work once for equal ops, parameters, shapes and layouts; off: every time" },
  MLX_STRICT: { type: "boolean", default: false, doc: "an op of a GPU stream that would run on the CPU is an error" },
  DEVICE: { type: "string", default: "", doc: "device that ops use when none is named: `cpu` (default) or `gpu`" },
  TARGET_DEVICE: { type: "string", default: "", doc: "the same as DEVICE, which wins" },
  MLX_CHECK: { type: "boolean", default: false, doc: "compute every op a second time in float64 and throw where the results differ (slow; without fusion and recordings)" },
  MLX_TUNE: { type: "string", default: "auto", doc: "choices of kernels and of their parameters that were measured on this machine: `auto` (use those that `mlx-vk tune` has kept), `0` (ignore them) or `1` (measure each new kind of work as it comes, for 30 seconds at most, and keep the outcome)" },
  MLX_DEBUG: { type: "integer", default: 0, doc: "1 prints each evaluation on stderr, 2 also each op with its kernel, shapes and the kernels that refused, 3 also the plan: groups, buffers, bytes moved" },
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

/** The texts of flags as they are set, as one: equal as long as none of them changes. */
export const environmentOf = (names: readonly FlagName[]): string => names.map((n) => process.env[n] ?? "").join("|");
