/** Batching: the nodes of a slice of the tape done again for a whole batch, whose axis is 0 in every batched array. */
import { type ArrayDesc, MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { tidy } from "../core/memory.ts";
import type { Node } from "../core/op.ts";
import { isMissing } from "../core/rules.ts";
import { type Shape, sameShape } from "../core/shape.ts";
import { withTape } from "../core/trace.ts";
import { broadcastTo } from "../ops/movement.ts";
import { reshapeTo } from "../ops/reshape.ts";
import { applier, handle, placeholder } from "./tracer.ts";

/** Batched array with dimensions of size 1 put in behind the batch, so that its elements have `rank` dimensions. */
function withRank(x: MxArray, rank: number): MxArray {
  const { shape } = x.desc;
  const missing = rank - (shape.length - 1);
  return missing <= 0 ? x : reshapeTo(x, [shape[0] as number, ...new Array<number>(missing).fill(1), ...shape.slice(1)]);
}
const spreadTo = (x: MxArray, size: number): MxArray => broadcastTo(reshapeTo(x, [1, ...x.desc.shape]), [size, ...x.desc.shape]);

function batchNode(node: Node, inputs: readonly MxArray[], batched: readonly boolean[], size: number): readonly MxArray[] {
  const { op, params } = node;
  const apply = applier(node);
  if (typeof op.vmap === "function") {
    const outputs = op.vmap({ inputs, batched, size, params, apply, spread: (i) => (batched[i] ? (inputs[i] as MxArray) : spreadTo(inputs[i] as MxArray, size)) });
    if (outputs) return outputs;
  }
  if (op.vmap === "leading") return apply(inputs.map((x, i) => (batched[i] ? x : spreadTo(x, size))), params);
  if (op.vmap === "elementwise") {
    const rank = Math.max(...node.inputs.map((d) => d.shape.length));
    return apply(inputs.map((x, i) => (batched[i] ? withRank(x, rank) : x)), params);
  }
  if ((op.vmap === "composite" || typeof op.vmap === "function") && op.composite) {
    return batchFunction((xs) => op.composite?.(xs, params) as readonly MxArray[], inputs, batched, size, node.inputs.map((d) => d.shape)).outputs;
  }
  throw opError(op.name, `can not be used in vmap (${isMissing(op.vmap) ? op.vmap.none : "no definition to be batched by"}), got a batched input`);
}

/**
 * Runs `f` once on placeholders of single elements and does what it recorded for the whole batch. Batched inputs have the batch in axis 0. Outputs that do
 * not depend on a batched input are repeated.
 */
export function batchFunction(f: (elements: MxArray[]) => readonly MxArray[], inputs: readonly MxArray[], batched: readonly boolean[], size: number, shapes: readonly Shape[]): { outputs: MxArray[] } {
  const elements = inputs.map((x, i) => (batched[i] ? placeholder({ shape: shapes[i] as Shape, dtype: x.desc.dtype }, "vmap") : new MxArray(x.desc)));
  // Taken before the function runs, which may update its arguments in place.
  const starts = elements.map((e) => e.desc);
  return withTape(
    () => f(elements),
    (results, nodes) => ({
      outputs: tidy(() => {
        const done = new Map<ArrayDesc, MxArray>();
        starts.forEach((d, i) => {
          if (batched[i]) done.set(d, inputs[i] as MxArray);
        });
        for (const node of nodes) {
          if (!node.inputs.some((d) => done.has(d))) continue;
          const flags = node.inputs.map((d) => done.has(d));
          const outputs = batchNode(node, node.inputs.map((d) => done.get(d) ?? handle(d)), flags, size);
          node.outputs.forEach((o, i) => {
            const out = outputs[i] as MxArray;
            if (!sameShape(out.desc.shape, [size, ...o.shape])) throw opError(node.op.name, `batching gave shape (${out.shape}), got (${o.shape}) for one element`);
            done.set(o, out);
          });
        }
        return results.map((r) => {
          const x = done.get(r.desc);
          return x ? new MxArray(x.desc) : spreadTo(r, size);
        });
      }),
    }),
  );
}
