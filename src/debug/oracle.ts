/**
 * A second way to compute a graph: node by node, in plain float64 JavaScript, from each op's `reference` (or its definition in other ops). Knows
 * nothing of kernels, fusion, buffers or threads. Tests and MLX_CHECK compare against it.
 */
import { type ArrayDesc, type Aval, MxArray, readBits } from "../core/array.ts";
import { fromBfloat16Bits, fromFloat16Bits, roundTo } from "../core/dtype.ts";
import { tidy } from "../core/memory.ts";
import type { Node } from "../core/op.ts";
import { rowStrides, sizeOf } from "../core/shape.ts";

/** Row-major values of an evaluated array (complex64: interleaved pairs). */
export function valuesOf(desc: ArrayDesc): Float64Array {
  const bits = readBits(desc);
  const n = desc.dtype.kind === "complex" ? 2 * desc.size : desc.size;
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const b = bits[i] as number | bigint;
    out[i] = desc.dtype.name === "bfloat16" ? fromBfloat16Bits(b as number) : desc.dtype.name === "float16" ? fromFloat16Bits(b as number) : Number(b);
  }
  return out;
}

/** Values of a graph that has not been evaluated. The graph is left as it is. */
export function oracle(target: ArrayDesc, known: Map<ArrayDesc, Float64Array> = new Map()): Float64Array {
  const stack: ArrayDesc[] = [target];
  while (stack.length > 0) {
    const d = stack[stack.length - 1] as ArrayDesc;
    if (known.has(d)) {
      stack.pop();
      continue;
    }
    if (d.storage || d.scalar !== undefined || !d.node) {
      known.set(d, d.scalar !== undefined && !d.storage ? constantOf(d, d.scalar) : valuesOf(d));
      continue;
    }
    const missing = d.node.inputs.filter((i) => !known.has(i));
    if (missing.length > 0) stack.push(...missing);
    else compute(d.node, known);
  }
  return known.get(target) as Float64Array;
}

const constantOf = (d: ArrayDesc, value: number): Float64Array => (d.dtype.kind === "complex" ? Float64Array.of(roundTo(d.dtype, value), 0) : Float64Array.of(roundTo(d.dtype, value)));

function compute(node: Node, known: Map<ArrayDesc, Float64Array>): void {
  const { op, params, inputs, outputs } = node;
  const values = inputs.map((d) => known.get(d) as Float64Array);
  let results: readonly Float64Array[];
  if (op.reference) results = op.reference(values, inputs, params, outputs);
  else {
    results = tidy(() => {
      const wrapped = inputs.map((d) => new MxArray(d));
      return (op.composite as NonNullable<typeof op.composite>)(wrapped, params).map((r) => oracle(r.desc, known));
    });
  }
  outputs.forEach((o, i) => {
    const r = results[i] as Float64Array;
    const want = o.dtype.kind === "complex" ? 2 * o.size : o.size;
    if (r.length !== want) throw new Error(`reference of ${op.name} gave ${r.length} values for shape (${o.shape.join(",")})`);
    known.set(o, r.map((x) => roundTo(o.dtype, x)));
  });
}

/** Reads through broadcast strides: what a reference of an elementwise op sees of an input. */
export function broadcastTo(values: Float64Array, from: Aval, shape: readonly number[]): Float64Array {
  const out = new Float64Array(sizeOf(shape));
  const lead = shape.length - from.shape.length;
  const own = rowStrides(from.shape);
  const strides = shape.map((_, i) => (i < lead || from.shape[i - lead] === 1 ? 0 : (own[i - lead] as number)));
  const index = new Array<number>(shape.length).fill(0);
  let at = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = values[at] as number;
    for (let k = shape.length - 1; k >= 0; k--) {
      index[k] = (index[k] as number) + 1;
      at += strides[k] as number;
      if ((index[k] as number) < (shape[k] as number)) break;
      at -= (strides[k] as number) * (shape[k] as number);
      index[k] = 0;
    }
  }
  return out;
}
