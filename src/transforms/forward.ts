/** Forward mode: tangents pushed over a slice of the tape. */
import type { ArrayDesc, MxArray } from "../core/array.ts";
import { bool } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import type { Node } from "../core/op.ts";
import { isMissing } from "../core/rules.ts";
import { withTape } from "../core/trace.ts";
import { add } from "../ops/binary.ts";
import { zeros } from "../ops/creation.ts";
import { rebroadcast, scale } from "./fit.ts";
import { pullback } from "./reverse.ts";
import { applier, handle, tracerOf } from "./tracer.ts";

type Tangents = readonly (MxArray | undefined)[];

/** The reverse rule is linear in the cotangents; its transpose is the forward rule. */
function transposed(node: Node, inputs: readonly MxArray[], outputs: readonly MxArray[], tangents: Tangents): Tangents {
  const rule = node.op.vjp;
  if (typeof rule !== "function") throw opError(node.op.name, "has no reverse rule to be transposed, got a forward derivative asked for");
  const needs = tangents.map((t) => t !== undefined);
  const blank = outputs.map((o) => zeros(o.desc.shape, o.desc.dtype));
  const given = tangents.filter((t) => t !== undefined);
  const reverse = (cotangents: MxArray[]): MxArray[] => {
    const all = rule({ inputs, outputs, cotangents, params: node.params, needs, apply: applier(node) });
    return needs.flatMap((need, i) => (need ? [all[i] ?? zeros((inputs[i] as MxArray).desc.shape, (inputs[i] as MxArray).desc.dtype)] : []));
  };
  return pullback(reverse, blank, (grads) => grads.map((g, i) => rebroadcast(given[i] as MxArray, g.desc))).gradients;
}

function partialSum(node: Node, inputs: readonly MxArray[], outputs: readonly MxArray[], tangents: Tangents): Tangents {
  const rule = node.op.vjp;
  if (typeof rule !== "object" || isMissing(rule)) return transposed(node, inputs, outputs, tangents);
  let total: MxArray | undefined;
  rule.partials.forEach((partial, i) => {
    const t = tangents[i];
    const by = t && partial?.(inputs, outputs[0] as MxArray, node.params);
    if (t === undefined || by === undefined) return;
    const term = scale(t, by);
    total = total ? add(total, term) : term;
  });
  return [total];
}

function push(node: Node, tangents: Tangents): Tangents {
  const { op, params } = node;
  const inputs = node.inputs.map(handle);
  const outputs = node.outputs.map(handle);
  if (typeof op.jvp === "function") return op.jvp({ inputs, outputs, tangents, params, apply: applier(node) });
  if (op.jvp === "linear") return applier(node)(inputs.map((x, i) => tangents[i] ?? zeros(x.desc.shape, x.desc.dtype)), params);
  if (op.jvp === "vjp") return partialSum(node, inputs, outputs, tangents);
  if (op.jvp === "composite" && op.composite) {
    const some = tangents.flatMap((t, i) => (t ? [i] : []));
    const f = (xs: MxArray[]): readonly MxArray[] => op.composite?.(inputs.map((x, i) => (some.includes(i) ? (xs[some.indexOf(i)] as MxArray) : x)), params) as readonly MxArray[];
    return pushforward(f, some.map((i) => inputs[i] as MxArray), some.map((i) => tangents[i] as MxArray)).tangents;
  }
  throw opError(op.name, `has no forward derivative (${isMissing(op.jvp) ? op.jvp.none : "no definition to be differentiated by"}), got one asked for`);
}

function sweep(nodes: readonly Node[], inputs: readonly ArrayDesc[], given: Tangents): Map<ArrayDesc, MxArray> {
  const tangents = new Map<ArrayDesc, MxArray>();
  inputs.forEach((d, i) => {
    const t = given[i];
    if (t) tangents.set(d, t);
  });
  for (const node of nodes) {
    if (node.op.jvp === "zero" || !node.inputs.some((d) => tangents.has(d))) continue;
    if (node.outputs.every((o) => o.dtype === bool)) continue;
    push(node, node.inputs.map((d) => tangents.get(d))).forEach((t, i) => {
      const o = node.outputs[i] as ArrayDesc;
      if (t && o.dtype !== bool) tangents.set(o, rebroadcast(t, o));
    });
  }
  return tangents;
}

/** Runs `f` on tracers of the primals; gives its outputs and their tangents, undefined where they are zero. */
export function pushforward<T extends readonly MxArray[]>(f: (tracers: MxArray[]) => T, primals: readonly MxArray[], given: Tangents): { outputs: T; tangents: Tangents } {
  const tracers = primals.map(tracerOf);
  // Taken before the function runs, which may update the tracers in place.
  const inputs = tracers.map((t) => t.desc);
  return withTape(
    () => f(tracers),
    (outputs, nodes) => {
      const tangents = tidy(() => {
        const all = sweep(nodes, inputs, given);
        return outputs.map((o) => all.get(o.desc));
      });
      return { outputs, tangents };
    },
  );
}
