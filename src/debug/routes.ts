/** MLX_VK_DEBUG_<family>_HIT and _REJECT: a line on stderr for each op of a family that a GPU kernel computes, or refused, with what decides about it. */
import type { View } from "../core/array.ts";
import { type FlagName, env } from "../core/env.ts";
import type { Node } from "../core/op.ts";
import { formatShape } from "../core/shape.ts";
import { addTracer } from "../schedule/run.ts";

interface Family {
  readonly name: string;
  readonly ops: readonly string[];
  readonly hit: FlagName;
  readonly reject: FlagName;
}
const families: readonly Family[] = [
  { name: "ROPE", ops: ["rope"], hit: "MLX_VK_DEBUG_ROPE_HIT", reject: "MLX_VK_DEBUG_ROPE_REJECT" },
  { name: "SDPA", ops: ["scaledDotProductAttention", "attentionStep"], hit: "MLX_VK_DEBUG_SDPA_HIT", reject: "MLX_VK_DEBUG_SDPA_REJECT" },
  { name: "QMM", ops: ["quantizedMatmul", "quantizedAddmm", "gatherQMM"], hit: "MLX_VK_DEBUG_QMM_HIT", reject: "MLX_VK_DEBUG_QMM_REJECT" },
];

const form = (d: View): string => `${d.dtype}${formatShape(d.shape)}/strides${formatShape(d.strides)}/offset ${d.offset}${d.contiguous ? "/dense" : ""}`;
const details = (node: Node): string => `inputs=[${node.inputs.map(form).join(", ")}] outputs=[${node.outputs.map(form).join(", ")}] params=${JSON.stringify(node.params)}`;

/** Lines for a node that ran with `kernel`; empty when its family is not watched. */
export function routeLines(node: Node, kernel: string, refused: readonly string[]): string[] {
  const family = families.find((f) => f.ops.includes(node.op.name));
  if (!family || node.stream.device.type !== "gpu") return [];
  const lines: string[] = [];
  const reasons = refused.filter((r) => r.startsWith("vulkan/"));
  const hit = kernel.startsWith("vulkan/");
  if (env(family.reject) && (reasons.length > 0 || !hit)) lines.push(`Vulkan${family.name}Reject ran=${kernel} reasons=[${reasons.join("; ") || "no kernel for the GPU"}] ${details(node)}`);
  if (env(family.hit) && hit) lines.push(`Vulkan${family.name}Hit kernel=${kernel} ${details(node)}`);
  return lines;
}

let remove: (() => void) | undefined;
/** Watches from now on, if a flag is set. */
export function watchRoutes(): void {
  remove?.();
  remove = undefined;
  if (!families.some((f) => env(f.hit) || env(f.reject))) return;
  remove = addTracer({
    recorded: (node, kernel, refused) => {
      for (const line of routeLines(node, kernel, refused)) process.stderr.write(`${line}\n`);
    },
  });
}
watchRoutes();
