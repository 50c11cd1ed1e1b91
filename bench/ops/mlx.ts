/** The rows as a user of MLX writes them. Our library and @frost-beta/mlx have the same functions, so both run this code. */
import type { MxArray } from "../../src/index.ts";
import type { Tensor } from "./cases.ts";
import type { Engine, Row } from "./engine.ts";
import { perBlock, transformer, twoLayers } from "./networks.ts";

type Library = Pick<typeof import("../../src/index.ts"), "core" | "nn">;

// By nested Arrays: the peer has no typed arrays.
const put = (mx: Library["core"], t: Tensor): MxArray => {
  const a = mx.array(Array.from(t.data), t.data instanceof Int32Array ? mx.int32 : mx.float32).reshape([...t.shape]);
  mx.eval(a);
  return a;
};
type Complex = { readonly re: number; readonly im: number };
const list = (a: MxArray): unknown[] => [a.reshape([-1]).tolist()].flat();
const numbers = (a: MxArray): Float32Array => Float32Array.from(list(a) as number[]);
const parts = (z: MxArray): Float32Array[] => (["re", "im"] as const).map((part) => Float32Array.from(list(z) as Complex[], (c) => c[part]));

/** Loss of the two networks of networks.ts. */
function losses({ core: mx, nn }: Library) {
  const mean = (logits: MxArray, y: MxArray): MxArray => mx.mean(nn.losses.crossEntropy(logits, y));
  const relu = (x: MxArray): MxArray => mx.maximum(x, 0);
  const mlp = ([w1, b1, w2, b2]: MxArray[], x: MxArray, y: MxArray): MxArray =>
    mean(mx.add(mx.matmul(relu(mx.add(mx.matmul(x, w1 as MxArray), b1 as MxArray)), w2 as MxArray), b2 as MxArray), y);
  const { batch: B, length: T, heads, width } = transformer;
  const size = width / heads;
  const mask = put(mx, { data: Float32Array.from({ length: T * T }, (_, i) => (i % T > Math.floor(i / T) ? -1e9 : 0)), shape: [T, T] });
  const split = (x: MxArray): MxArray => x.reshape([B, T, heads, size]).transpose([0, 2, 1, 3]);
  const gpt = (p: MxArray[], x: MxArray, y: MxArray): MxArray => {
    let h = mx.add(mx.take(p[0] as MxArray, x, 0), p[1] as MxArray);
    for (let l = 0; l < transformer.layers; l++) {
      const [g1, s1, wq, wk, wv, wo, g2, s2, up, down] = p.slice(2 + l * perBlock) as [MxArray, MxArray, MxArray, MxArray, MxArray, MxArray, MxArray, MxArray, MxArray, MxArray];
      const n = mx.fast.layerNorm(h, g1, s1, 1e-5);
      const [q, k, v] = [wq, wk, wv].map((w) => split(mx.matmul(n, w))) as [MxArray, MxArray, MxArray];
      const a = mx.fast.scaledDotProductAttention(q, k, v, 1 / Math.sqrt(size), mask);
      h = mx.add(h, mx.matmul(a.transpose([0, 2, 1, 3]).reshape([B, T, width]), wo));
      h = mx.add(h, mx.matmul(relu(mx.matmul(mx.fast.layerNorm(h, g2, s2, 1e-5), up)), down));
    }
    return mean(mx.matmul(h, p.at(-1) as MxArray), y);
  };
  return { mlp, gpt };
}

/** A step of gradient descent as (inputs) -> [loss, new parameters]. */
function trainingStep({ core: mx }: Library, loss: (p: MxArray[], x: MxArray, y: MxArray) => MxArray, rate: number, compiled: boolean): Row<MxArray> {
  const both = mx.valueAndGrad(loss);
  const step = (x: MxArray, y: MxArray, p: MxArray[]): MxArray[] => {
    const [value, gradients] = both(p, x, y) as [MxArray, MxArray[]];
    return [value, ...p.map((w, i) => mx.subtract(w, mx.multiply(gradients[i] as MxArray, rate)))];
  };
  const run = compiled ? mx.compile(step) : step;
  return ([x, y, ...p]) => run(x as MxArray, y as MxArray, p);
}

/** @param compiled training steps go through `mx.compile` */
export function mlxEngine(library: Library, rate: number, compiled: boolean): Engine<MxArray> {
  const mx = library.core;
  const { mlp, gpt } = losses(library);
  const one = (f: (...xs: MxArray[]) => MxArray): Row<MxArray> => (xs) => [f(...xs)];
  const rows: Record<string, Row<MxArray>> = {
    "matmul 512": one((a, b) => mx.matmul(a as MxArray, b as MxArray)),
    "matmul 1024": one((a, b) => mx.matmul(a as MxArray, b as MxArray)),
    softmax: one((x) => mx.softmax(x as MxArray, -1)),
    sum: one((x) => mx.sum(x as MxArray)),
    "sum axis 0": one((x) => mx.sum(x as MxArray, 0)),
    "sum axis 1": one((x) => mx.sum(x as MxArray, 1)),
    "sum axis 2": one((x) => mx.sum(x as MxArray, 2)),
    exp: one((x) => mx.exp(x as MxArray)),
    sin: one((x) => mx.sin(x as MxArray)),
    tanh: one((x) => mx.tanh(x as MxArray)),
    add: one((a, b) => mx.add(a as MxArray, b as MxArray)),
    layer_norm: one((x, w, b) => mx.fast.layerNorm(x as MxArray, w as MxArray, b as MxArray, 1e-5)),
    conv2d: one((x, w) => mx.conv2d(x as MxArray, w as MxArray, 1, 1)),
    "sort rows": one((x) => mx.sort(x as MxArray, -1)),
    "sort all": one((x) => mx.sort(x as MxArray, -1)),
    "cumsum axis 0": one((x) => mx.cumsum(x as MxArray, 0)),
    "cumsum axis 1": one((x) => mx.cumsum(x as MxArray, 1)),
    "gather rows": one((x, ids) => mx.take(x as MxArray, ids as MxArray, 0)),
    "gather elements": one((x, ids) => mx.take(x as MxArray, ids as MxArray)),
    fft: one((z) => mx.fft.fft(z as MxArray, undefined, -1)),
    [`training step, ${twoLayers.name}`]: trainingStep(library, mlp, rate, compiled),
    [`training step, ${transformer.name}`]: trainingStep(library, gpt, rate, compiled),
  };
  return {
    rows,
    put: (name, tensors) => {
      const arrays = tensors.map((t) => put(mx, t));
      if (name !== "fft") return arrays;
      const z = mx.add(arrays[0] as MxArray, mx.multiply(arrays[1] as MxArray, mx.array(mx.Complex(0, 1))));
      mx.eval(z);
      return [z];
    },
    read: async (name, outputs) => (name === "fft" ? parts(outputs[0] as MxArray) : outputs.map(numbers)),
    finish: (outputs) => {
      mx.eval(...outputs);
      return undefined;
    },
    // The peer leaves its arrays to garbage collection.
    dispose: (arrays) => void mx.dispose?.(...arrays),
  };
}
