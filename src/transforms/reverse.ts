/**
 * Reverse mode: cotangents pushed back over a slice of the tape. Iterative, so graphs may be of any depth. Complex numbers count as pairs of real ones: the cotangent of z
 * has the derivatives by its real and its imaginary part as its parts, so for a holomorphic f it is the output's cotangent times the conjugate of f'(z).
 */
import type { ArrayDesc, MxArray } from "../core/array.ts";
import { bool } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import type { Node } from "../core/op.ts";
import { isMissing } from "../core/rules.ts";
import { withTape } from "../core/trace.ts";
import { add } from "../ops/binary.ts";
import { conjugate } from "../ops/complex.ts";
import { zeros } from "../ops/creation.ts";
import { scale, unbroadcast } from "./fit.ts";
import { applier, handle, tracerOf } from "./tracer.ts";

type Grads = readonly (MxArray | undefined)[];

/** Arrays that depend on the inputs in a differentiable way. Integers count, as in MLX: their derivatives are rounded to integers; truth values do not. */
function dependents(nodes: readonly Node[], inputs: readonly ArrayDesc[]): Set<ArrayDesc> {
  const found = new Set(inputs);
  for (const node of nodes) {
    if (node.op.vjp === "zero" || !node.inputs.some((d) => found.has(d))) continue;
    for (const o of node.outputs) if (o.dtype !== bool) found.add(o);
  }
  return found;
}

/** Arrays that are computed of the inputs in any way, but for what stopGradient cut off. */
function computedOf(nodes: readonly Node[], inputs: readonly ArrayDesc[]): Set<ArrayDesc> {
  const found = new Set(inputs);
  for (const { op, inputs: from, outputs } of nodes) if (op.name !== "stopGradient" && from.some((d) => found.has(d))) for (const o of outputs) found.add(o);
  return found;
}
/** Throws when gradients of the outputs would flow into indices of an op that refuses them, even by way of ops whose gradient is zero. */
function refuseIndices(nodes: readonly Node[], inputs: readonly ArrayDesc[], outputs: Iterable<ArrayDesc>): void {
  if (nodes.every((node) => node.op.indices === undefined)) return;
  const computed = computedOf(nodes, inputs);
  const wanted = new Set(outputs);
  for (let i = nodes.length - 1; i >= 0; i--) {
    const { op, inputs: from, outputs: made } = nodes[i] as Node;
    if (op.vjp === "zero" || !made.some((d) => wanted.has(d))) continue;
    if (from.slice(from.length - (op.indices ?? 0)).some((d) => computed.has(d))) throw opError(op.name, "there is no derivative by the indices: use stopGradient (stop_gradient in MLX) on them, got one asked for");
    for (const d of from) if (computed.has(d)) wanted.add(d);
  }
}

/** Cotangents of a node's inputs from those of its outputs, in any shape that broadcasting gives. */
function pull(node: Node, cotangents: readonly MxArray[], needs: readonly boolean[]): Grads {
  const { op, params } = node;
  const rule = op.vjp;
  const inputs = node.inputs.map(handle);
  const outputs = node.outputs.map(handle);
  if (typeof rule === "function") return rule({ inputs, outputs, cotangents, params, needs, apply: applier(node) });
  if (isMissing(rule)) throw opError(op.name, `has no gradient (${rule.none}), got one asked for`);
  if (typeof rule === "object") {
    return rule.partials.map((partial, i) => {
      const by = needs[i] ? partial?.(inputs, outputs[0] as MxArray, params) : undefined;
      return by === undefined ? undefined : scale(cotangents[0] as MxArray, typeof by === "number" ? by : conjugate(by));
    });
  }
  if (rule === "composite" && op.composite) {
    const asked = needs.flatMap((need, i) => (need ? [i] : []));
    const f = (xs: MxArray[]): readonly MxArray[] => op.composite?.(inputs.map((x, i) => xs[asked.indexOf(i)] ?? x), params) as readonly MxArray[];
    const { gradients } = pullback(f, asked.map((i) => inputs[i] as MxArray), () => cotangents);
    return inputs.map((_, i) => gradients[asked.indexOf(i)]);
  }
  throw opError(op.name, "has no definition to be differentiated by, got a gradient asked for");
}

function sweep(nodes: readonly Node[], inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[], cotangents: Grads): Grads {
  refuseIndices(nodes, inputs, outputs.filter((_, i) => cotangents[i]));
  const depends = dependents(nodes, inputs);
  const grads = new Map<ArrayDesc, MxArray>();
  const accumulate = (d: ArrayDesc, g: MxArray): void => {
    const fitted = unbroadcast(g, d);
    const before = grads.get(d);
    grads.set(d, before ? add(before, fitted) : fitted);
  };
  outputs.forEach((d, i) => {
    const c = cotangents[i];
    if (c && depends.has(d)) accumulate(d, c);
  });
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i] as Node;
    if (!node.outputs.some((o) => grads.has(o))) continue;
    const needs = node.inputs.map((d) => depends.has(d));
    const given = node.outputs.map((o) => grads.get(o) ?? zeros(o.shape, o.dtype));
    for (const o of node.outputs) grads.delete(o);
    pull(node, given, needs).forEach((g, k) => {
      if (g && needs[k]) accumulate(node.inputs[k] as ArrayDesc, g);
    });
  }
  return inputs.map((d) => grads.get(d));
}

/**
 * Runs `f` on tracers of the primals and pulls cotangents of its outputs back. `seed` makes the cotangents from the outputs; gradients are undefined
 * where nothing flows.
 */
export function pullback<T extends readonly MxArray[]>(f: (tracers: MxArray[]) => T, primals: readonly MxArray[], seed: (outputs: T) => Grads): { outputs: T; gradients: Grads } {
  const tracers = primals.map(tracerOf);
  // Taken before the function runs, which may update the tracers in place.
  const inputs = tracers.map((t) => t.desc);
  return withTape(
    () => f(tracers),
    (outputs, nodes) => {
      const gradients = tidy(() => sweep(nodes, inputs, outputs.map((o) => o.desc), seed(outputs)));
      return { outputs, gradients };
    },
  );
}
/** Zeros where nothing flows. */
export const filled = (gradients: Grads, primals: readonly MxArray[]): MxArray[] => primals.map((p, i) => gradients[i] ?? zeros(p.desc.shape, p.desc.dtype));
