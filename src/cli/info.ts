/** `mlx-vk info`: what this machine offers, and what of it is used. */
import { core as mx } from "../index.ts";
import { packageInfo } from "../package.ts";

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function gpuLine(v: mx.VulkanInfo): string {
  const addon = v.addon ? "addon built" : "no addon";
  if (v.device === undefined) return `none, ${addon}: ${v.reason ?? "no reason known"}`;
  const device = `${v.device}, driver ${v.driver}, Vulkan ${v.api}`;
  if (v.reason !== undefined) return `${device}, ${addon}; it does not open: ${v.reason}`;
  return `${device}, ${gib(v.memory ?? 0)}, subgroups of ${v.subgroupSize}, cooperative matrix ${v.cooperativeMatrix ? "yes" : "no"}, ${addon}`;
}

export function infoCommand(options: { json?: boolean }): void {
  const i = { version: packageInfo().version, ...mx.systemInfo() };
  if (options.json) {
    process.stdout.write(`${JSON.stringify(i)}\n`);
    return;
  }
  const rows: [string, string][] = [
    ["mlx-vk", i.version],
    ["Node", `${i.node} (V8 ${i.v8})`],
    ["System", i.system],
    ["CPU", i.cpu],
    ["CPU features", i.cpuFeatures?.join(" ") || "unknown"],
    ["Cores", `${i.cores} usable, ${i.threads} threads used (MLX_THREADS)`],
    ["Kernels", i.kernels],
    ["Vector pairs", i.pairing],
    ["Memory", `${gib(i.memoryTotal)}, ${gib(i.memoryFree)} free; arrays may take ${gib(i.memoryLimit)}`],
    ...i.backends.map((b): [string, string] => [`Backend ${b.device}`, b.available ? "available" : `not available: ${b.reason ?? "no reason known"}`]),
    ["GPU", gpuLine(i.vulkan)],
  ];
  for (const [name, value] of rows) process.stdout.write(`${`${name}:`.padEnd(14)} ${value}\n`);
}
