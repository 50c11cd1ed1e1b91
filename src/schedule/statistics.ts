/**
 * Attention whose gradient is computed in the same evaluation keeps the maximum and the sum of each row for it (FlashAttention-2, Dao 2023, keeps their logarithm), so that
 * the gradient does not compute all scores twice.
 */
import { ArrayDesc } from "../core/array.ts";
import type { Node, Op } from "../core/op.ts";
import { attentionKeeping } from "../ops/attention.ts";
import { attentionVjpKeeping } from "../ops/attention-vjp.ts";
import { type Switches, route } from "./gate.ts";
import { routeTuned } from "./tune.ts";

/** The output of attention among the inputs of its gradient. */
const outAt = 3;

/** The attention whose gradient this node computes, when it is still to be computed, and on the CPU by the kernels that can hand on what they found out. */
function forwardOf(node: Node, switches: Switches): Node | undefined {
  if (node.op.name !== "scaledDotProductAttentionVjp" || node.stream.device.type !== "cpu") return undefined;
  const out = node.inputs[outAt] as ArrayDesc;
  const forward = out.node;
  if (!forward || out.storage || forward.op.name !== "scaledDotProductAttention" || forward.stream !== node.stream) return undefined;
  const same = [...node.inputs.slice(0, outAt), ...node.inputs.slice(outAt + 2)];
  if (same.length !== forward.inputs.length || same.some((d, i) => d !== forward.inputs[i])) return undefined;
  const kernel = routeTuned(forward.op, forward.inputs, forward.params, forward.outputs, switches, [])?.kernel;
  if (kernel?.name !== "wasm/attention/tiles") return undefined;
  return route(node.op, node.inputs, node.params, node.outputs, switches, []) ? forward : undefined;
}

/** The tape, with attention and its gradients replaced by forms that hand on the statistics of rows. */
export function keepStatistics(tape: readonly Node[], switches: Switches): readonly Node[] {
  if (switches.disabled("wasm/attention/statistics")) return tape;
  /** By attention: its form that keeps them. */
  let forwards: Map<Node, Node> | undefined;
  let gradients: Map<Node, Node> | undefined;
  for (const node of tape) {
    const forward = forwardOf(node, switches);
    if (!forward) continue;
    forwards ??= new Map();
    gradients ??= new Map();
    let keeping = forwards.get(forward);
    if (!keeping) {
      const { shape, dtype } = attentionKeeping.infer(forward.inputs, forward.params as never)[1] as ArrayDesc;
      keeping = { ...forward, op: attentionKeeping as unknown as Op, outputs: [...forward.outputs, ArrayDesc.lazy(shape, dtype)] };
      forwards.set(forward, keeping);
    }
    const statistics = keeping.outputs[1] as ArrayDesc;
    statistics.consumers++;
    gradients.set(node, { ...node, op: attentionVjpKeeping as unknown as Op, inputs: [...node.inputs, statistics] });
  }
  return forwards && gradients ? tape.map((n) => forwards.get(n) ?? gradients.get(n) ?? n) : tape;
}
