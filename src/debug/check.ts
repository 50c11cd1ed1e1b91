/** MLX_CHECK: every op of an evaluation is computed again by the oracle, from the true values of its inputs, and the results are compared. */
import type { ArrayDesc } from "../core/array.ts";
import { opError } from "../core/error.ts";
import type { Node } from "../core/op.ts";
import { installChecker } from "../schedule/run.ts";
import { tolerance } from "../schedule/tune-measure.ts";
import { oracle, valuesOf } from "./oracle.ts";

function compare(op: string, got: Float64Array, want: Float64Array, allowed: number): void {
  let scale = 0;
  for (const w of want) if (Number.isFinite(w) && Math.abs(w) > scale) scale = Math.abs(w);
  for (let i = 0; i < want.length; i++) {
    const g = got[i] as number;
    const w = want[i] as number;
    if (Object.is(g, w) || g === w || (Number.isNaN(g) && Number.isNaN(w)) || Math.abs(g - w) <= allowed * scale) continue;
    throw opError(op, `MLX_CHECK: element ${i} differs from the float64 reference, got ${g}, want ${w}`);
  }
}

function check(node: Node): () => void {
  const known = new Map<ArrayDesc, Float64Array>();
  const want = node.outputs.map((o) => oracle(o, known));
  return () => {
    const { invariant, name } = node.op;
    if (invariant && node.outputs.every((o) => o.storage)) {
      const inputs = node.inputs.map((d) => known.get(d) as Float64Array);
      const [right, found] = [want, node.outputs.map(valuesOf)].map((outputs) => invariant(inputs, node.inputs, outputs as Float64Array[]));
      right?.forEach((w, i) => compare(name, found?.[i] as Float64Array, w, tolerance[node.outputs[0]?.dtype.name ?? ""] ?? 0));
      return;
    }
    node.outputs.forEach((o, i) => {
      if (o.storage) compare(name, valuesOf(o), want[i] as Float64Array, tolerance[o.dtype.name] ?? 0);
    });
  };
}

installChecker(check);
