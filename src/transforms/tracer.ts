/** Arrays that stand for the inputs of a transformed function while it runs. */
import { type Aval, type ArrayDesc, MxArray } from "../core/array.ts";
import { opError } from "../core/error.ts";
import { type Node, applierOf, defineOp } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { traceFrom } from "../core/trace.ts";

const tracerOp = defineOp({
  name: "tracer",
  infer: ([a]) => [{ shape: (a as Aval).shape, dtype: (a as Aval).dtype }],
  view: (a) => ({ strides: a.strides, offset: a.offset }),
  reference: ([a]) => [a as Float64Array],
  vjp: ({ cotangents }) => cotangents,
  jvp: "linear",
  vmap: ({ inputs }) => inputs,
  kernels: [],
});

/** A new array with the value of `a`: what is computed from it can be told from what is computed from `a`. */
export function tracerOf(a: MxArray): MxArray {
  const t = tracerOp([a], {})[0] as MxArray;
  traceFrom(t.desc);
  return t;
}

const placeholderOp = defineOp<{ aval: Aval; transform: string }>({
  name: "placeholder",
  infer: (_inputs, { aval }) => [aval],
  composite: (_inputs, { transform }) => {
    throw opError("eval", `an array inside ${transform} has no value yet and can not be evaluated, got one`);
  },
  vjp: "zero",
  jvp: "zero",
  vmap: noRule("it has no inputs"),
  kernels: [],
});

/** An array of a shape and dtype without a value: evaluating it throws. */
export function placeholder(aval: Aval, transform: string): MxArray {
  const t = placeholderOp([], { aval: { shape: aval.shape, dtype: aval.dtype }, transform })[0] as MxArray;
  traceFrom(t.desc);
  return t;
}

/** Handle on a descriptor of a recorded node. */
export const handle = (d: ArrayDesc): MxArray => new MxArray(d);

/** Applies the op of a recorded node, on its stream. */
export const applier = (node: Node) => (inputs: readonly MxArray[], params: object): MxArray[] => applierOf(node.op)(inputs, params, node.stream);
