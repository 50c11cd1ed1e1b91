/** The rows as ONNX graphs of one node, on onnxruntime-node. Its sessions run asynchronously, so each call also costs a turn of the event loop. */
import { type Attribute, type ElementType, type Node, encodeOnnx } from "../peers/onnx.ts";
import type { Tensor } from "./cases.ts";
import type { Engine, Row } from "./engine.ts";

interface A {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}
interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  run(feeds: Record<string, A>): Promise<Record<string, A>>;
}
interface Ort {
  readonly Tensor: new (type: "float32" | "int32", data: Float32Array | Int32Array, dims: readonly number[]) => A;
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
}
/** A node by its op, attributes, and constants that follow the inputs. */
interface Form {
  readonly op: string;
  readonly attributes?: Record<string, Attribute>;
  readonly constants?: readonly (readonly number[])[];
}
const i = (value: number): Attribute => ({ i: value });
const sum = (axis: number): Form => ({ op: "ReduceSum", attributes: { keepdims: i(0) }, constants: [[axis]] });
const forms: Readonly<Record<string, Form>> = {
  "matmul 512": { op: "MatMul" },
  "matmul 1024": { op: "MatMul" },
  softmax: { op: "Softmax", attributes: { axis: i(-1) } },
  sum: { op: "ReduceSum", attributes: { keepdims: i(0) } },
  "sum axis 0": sum(0),
  "sum axis 1": sum(1),
  "sum axis 2": sum(2),
  exp: { op: "Exp" },
  sin: { op: "Sin" },
  tanh: { op: "Tanh" },
  add: { op: "Add" },
  layer_norm: { op: "LayerNormalization", attributes: { axis: i(-1), epsilon: { f: 1e-5 } } },
  // Channels first, as it wants them; they are moved when the data is made.
  conv2d: { op: "Conv", attributes: { pads: { ints: [1, 1, 1, 1] } } },
  "cumsum axis 0": { op: "CumSum", constants: [[0]] },
  "cumsum axis 1": { op: "CumSum", constants: [[1]] },
  "gather rows": { op: "Gather", attributes: { axis: i(0) } },
  "gather elements": { op: "Gather", attributes: { axis: i(0) } },
};

function model({ op, attributes = {}, constants = [] }: Form, tensors: readonly Tensor[], rank: number): Uint8Array {
  const inputs = tensors.map((t, k) => ({ name: `x${k}`, type: (t.data instanceof Int32Array ? "int32" : "float") as ElementType, shape: t.shape }));
  const weights = constants.map((c, k) => ({ name: `c${k}`, type: "int64" as const, shape: op === "CumSum" ? [] : [c.length], data: new Uint8Array(BigInt64Array.from(c, BigInt).buffer) }));
  const node: Node = { op, inputs: [...inputs, ...weights].map((x) => x.name), outputs: ["y"], attributes };
  return encodeOnnx({ nodes: [node], weights, inputs, outputs: [{ name: "y", type: "float", shape: Array.from({ length: rank }, (_, d) => `d${d}`) }] });
}

/** (N, H, W, C) to (N, C, H, W), or back. */
function moveChannels({ data, shape }: Tensor, back: boolean): Tensor {
  const [n, p, q, r] = shape as [number, number, number, number];
  const to = back ? [n, q, r, p] : [n, r, p, q];
  const out = new Float32Array(data.length);
  const [channels, height, width] = back ? [p, q, r] : [r, p, q];
  for (let b = 0; b < n; b++) for (let c = 0; c < channels; c++) for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const last = ((b * height + y) * width + x) * channels + c;
    const first = ((b * channels + c) * height + y) * width + x;
    out[back ? last : first] = data[back ? first : last] as number;
  }
  return { data: out, shape: to };
}

export async function onnxEngine(url: string, threads: number): Promise<Engine<A>> {
  const module = (await import(url)) as Ort & { default?: Ort };
  const { Tensor: OrtTensor, InferenceSession } = module.default ?? module;
  let session: Session | undefined;
  /** A call begins when its results are awaited: outputs are filled by `finish`. */
  const pending = new Map<A[], Promise<Record<string, A>>>();
  const row: Row<A> = (inputs) => {
    const outputs: A[] = [];
    pending.set(outputs, (session as Session).run(Object.fromEntries(inputs.map((a, k) => [`x${k}`, a]))));
    return outputs;
  };
  return {
    rows: Object.fromEntries(Object.keys(forms).map((name) => [name, row])),
    put: async (name, tensors) => {
      const given = name === "conv2d" ? tensors.map((t) => moveChannels(t, false)) : tensors;
      const form = forms[name] as Form;
      const rank = (given[0] as Tensor).shape.length - (form.op === "ReduceSum" ? (form.constants ? 1 : (given[0] as Tensor).shape.length) : 0);
      session = await InferenceSession.create(model(form, given, rank), { intraOpNumThreads: threads, interOpNumThreads: 1 });
      return given.map((t) => new OrtTensor(t.data instanceof Int32Array ? "int32" : "float32", t.data, t.shape));
    },
    read: async (name, outputs) => outputs.map((a) => (name === "conv2d" ? (moveChannels({ data: a.data, shape: a.dims }, true).data as Float32Array) : Float32Array.from(a.data))),
    finish: async (outputs) => {
      const results = await pending.get(outputs);
      pending.delete(outputs);
      if (results) outputs.push(...Object.values(results));
    },
    dispose: () => undefined,
  };
}
