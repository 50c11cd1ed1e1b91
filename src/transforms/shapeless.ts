/** How the parameters of a recorded op change when its inputs get other shapes of the same rank. */
import type { Aval } from "../core/array.ts";
import { opError } from "../core/error.ts";
import type { Op } from "../core/op.ts";
import { type Shape, formatShape, sameShape, sizeOf } from "../core/shape.ts";

interface Recorded {
  readonly op: Op;
  readonly params: object;
  readonly outputs: readonly Aval[];
}
/** A recorded step with the inputs that it was recorded with and those that it gets. */
export interface Other {
  readonly step: Recorded;
  readonly was: readonly Aval[];
  readonly now: readonly Aval[];
}
/** Parameters for the new inputs; undefined when they can not be told. */
type Adapter = (params: never, other: Other) => object | undefined;

/** Ops, beside the elementwise ones, whose parameters hold no sizes. */
const sizeless = new Set([
  "sum", "prod", "max", "min", "all", "any", "mean", "argmax", "argmin", "matmul", "addmm", "gatherMM", "softmax", "logsumexp", "sort", "argsort", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp",
  "transpose", "expandDims", "squeeze", "stopGradient", "contiguous", "depends", "view", "diagonal", "diag", "bandPart", "concatenate", "pad", "gather", "takeAlongAxis", "putAlongAxis", "maskedScatter",
  "dynamicSliceUpdate", "rmsNorm", "layerNorm", "rope", "scaledDotProductAttention", "quantize", "dequantize", "quantizedMatmul", "gatherQMM", "qqmm", "gatherQQMM", "convolution",
  "solve", "cholesky", "lu", "qr", "svd", "eigh", "eig", "randomBits",
]);

/** Those among them that mean the same whichever sizes are 1. */
const anyOnes = new Set([
  "sum", "prod", "max", "min", "all", "any", "mean", "argmax", "argmin", "matmul", "addmm", "gatherMM", "softmax", "logsumexp", "sort", "argsort", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp",
  "transpose", "expandDims", "squeeze", "stopGradient", "contiguous",
]);

/**
 * Sizes of `shape` in terms of other sizes of the input: groups of dimensions with equal products. A group keeps its form, or one of its dimensions (that numbered
 * `free`, or the only one that is not 1) takes what is left.
 */
function regroup(was: Shape, shape: Shape, now: Shape, free = -1): number[] | undefined {
  const out: number[] = [];
  for (let i = 0, k = 0; i < was.length || k < shape.length; ) {
    const [from, to] = [i, k];
    let a = was[i++] ?? 1;
    let b = shape[k++] ?? 1;
    while (a !== b) {
      if (a < b && i < was.length) a *= was[i++] as number;
      else if (k < shape.length) b *= shape[k++] as number;
      else return undefined;
    }
    const group = now.slice(from, i);
    const recorded = shape.slice(to, k);
    if (sameShape(group, was.slice(from, i))) out.push(...recorded);
    else if (group.length === recorded.length && sameShape(was.slice(from, i), recorded)) out.push(...group);
    else {
      const wide = recorded.filter((d) => d !== 1).length;
      const open = recorded.map((d, j) => (to + j === free || (free < 0 && wide === 1 && d !== 1) || recorded.length === 1 ? -1 : d));
      const sizes = open.includes(-1) ? resolved(open, sizeOf(group)) : undefined;
      if (!sizes) return undefined;
      out.push(...sizes);
    }
  }
  return out;
}
/** A shape with at most one -1, for an array of `size` elements. */
function resolved(given: Shape, size: number): number[] | undefined {
  const known = given.reduce((p, d) => (d === -1 ? p : p * d), 1);
  if (!given.includes(-1)) return known === size ? [...given] : undefined;
  return known > 0 && size % known === 0 ? given.map((d) => (d === -1 ? size / known : d)) : undefined;
}

interface Region {
  readonly start: Shape;
  readonly step: Shape;
  readonly shape: Shape;
}
/** True when a region fits in an array. */
const inside = ({ start, step, shape }: Region, of: Shape): boolean =>
  shape.every((n, i) => n === 0 || [start[i] as number, (start[i] as number) + (n - 1) * (step[i] as number)].every((at) => at >= 0 && at < (of[i] as number)));

const adapters: Readonly<Record<string, Adapter>> = {
  // What the user gave counts, with the dimension that he left open; a reshape within the library is told from the dimensions that it joins and parts.
  reshape: (params: { shape: Shape; given?: Shape; free?: number }, { was: [before], now: [x] }) => {
    const { shape, given, free } = params;
    const to = given ? resolved(given, sizeOf((x as Aval).shape)) : regroup((before as Aval).shape, shape, (x as Aval).shape, free);
    return to && { ...params, shape: to };
  },
  // A dimension that is not repeated follows the input.
  broadcastTo: ({ shape }: { shape: Shape }, { was: [before], now: [x] }) => {
    const lead = shape.length - (x as Aval).shape.length;
    return { shape: shape.map((n, i) => (i >= lead && (before as Aval).shape[i - lead] === n ? ((x as Aval).shape[i - lead] as number) : n)) };
  },
  // All of a dimension stays all of it; other bounds stay as they are.
  slice: (p: Region, { was: [before], now: [x] }) => {
    const shape = p.shape.map((n, i) => (p.start[i] === 0 && p.step[i] === 1 && n === (before as Aval).shape[i] ? ((x as Aval).shape[i] as number) : n));
    const next = { start: p.start, step: p.step, shape };
    return inside(next, (x as Aval).shape) ? next : undefined;
  },
  sliceUpdate: (p: Region, { now: [x, update] }) => {
    const next = { start: p.start, step: p.step, shape: (update as Aval).shape };
    return inside(next, (x as Aval).shape) ? next : undefined;
  },
};

/** Whether the sizes that a recorded op holds can be told from other inputs. */
export function shapeless({ op, params }: Recorded, inputs: readonly Aval[]): boolean {
  if (op.expr || sizeless.has(op.name)) return true;
  if (op.name !== "broadcastTo") return op.name in adapters;
  // Repeating along a dimension needs a size that the input does not have.
  const { shape } = params as { shape: Shape };
  const from = (inputs[0] as Aval).shape;
  return shape.every((n, i) => i >= shape.length - from.length && from[i - (shape.length - from.length)] === n);
}

/** Whether a recorded op does for other sizes what it would do if it were recorded with them, also where a size is 1 in one case only. */
export const broadcastsAnew = ({ op }: Pick<Recorded, "op">): boolean => op.expr !== undefined || anyOnes.has(op.name);

/** Parameters of a recorded op for other inputs. */
export function adaptParams(what: string, other: Other): object {
  const { step, was, now } = other;
  if (now.every((x, i) => sameShape(x.shape, (was[i] as Aval).shape)) || step.op.expr || sizeless.has(step.op.name)) return step.params;
  const params = adapters[step.op.name]?.(step.params as never, other);
  if (!params) throw opError(what, `${step.op.name} was recorded for shapes ${was.map((x) => formatShape(x.shape)).join(", ")} and can not be done for others, got ${now.map((x) => formatShape(x.shape)).join(", ")}`);
  return params;
}
