/** The rows in jax-js. Its functions take over the arrays they get; `.ref` keeps one. What it can compile goes through `jit`. */
import { type Blob as NodeBlob, resolveObjectURL } from "node:buffer";
import { Worker as NodeWorker } from "node:worker_threads";
import type { Tensor } from "./cases.ts";
import type { Engine, Row } from "./engine.ts";
import { perBlock, transformer, twoLayers } from "./networks.ts";

/** As much of the library's types as is used here. */
interface A {
  readonly ref: A;
  reshape(shape: readonly number[]): A;
  dispose(): void;
  blockUntilReady(): Promise<A>;
  data(): Promise<Float32Array>;
}
type Function = (...args: never[]) => A;
interface Jax {
  init(device: string): Promise<unknown>;
  defaultDevice(device: string): void;
  // biome-ignore lint/suspicious/noExplicitAny: functions of any arguments
  jit<F extends (...args: any[]) => unknown>(f: F): F;
  valueAndGrad(f: Function): (...args: unknown[]) => [A, A[]];
  // biome-ignore lint/suspicious/noExplicitAny: a namespace of functions
  readonly numpy: any;
  // biome-ignore lint/suspicious/noExplicitAny: the same
  readonly nn: any;
  // biome-ignore lint/suspicious/noExplicitAny: the same
  readonly lax: any;
}

/** The browser's workers, on Node's: jax-js starts its threads from a Blob. */
function provideWorkers(threads: number): void {
  class WebWorker {
    onmessage: ((e: { data: unknown }) => void) | undefined;
    onerror: ((e: Error) => void) | undefined;
    readonly #worker: Promise<NodeWorker>;
    constructor(url: string) {
      const prelude = 'const { parentPort } = require("node:worker_threads"); const self = {}; const postMessage = (m) => parentPort.postMessage(m); parentPort.on("message", (data) => self.onmessage({ data }));\n';
      this.#worker = (resolveObjectURL(url) as NodeBlob).text().then((code) => {
        const worker = new NodeWorker(prelude + code, { eval: true });
        worker.on("message", (data) => this.onmessage?.({ data }));
        worker.on("error", (error) => this.onerror?.(error));
        worker.unref();
        return worker;
      });
    }
    postMessage(message: unknown): void {
      void this.#worker.then((w) => w.postMessage(message));
    }
  }
  Object.assign(globalThis, { Worker: WebWorker });
  Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: threads }, configurable: true });
}

function losses({ numpy: np, nn }: Jax) {
  const mean = (logits: A, y: A, classes: number): A => np.negative(np.mean(np.sum(np.multiply(nn.logSoftmax(logits, -1), nn.oneHot(y, classes)), -1)));
  const mlp = ([w1, b1, w2, b2]: A[], x: A, y: A): A => mean(np.add(np.matmul(nn.relu(np.add(np.matmul(x, w1), b1)), w2), b2), y, twoLayers.classes);
  const { batch: B, length: T, heads, width } = transformer;
  const norm = (x: A, gain: A, shift: A): A => {
    const centred = np.subtract(x.ref, np.mean(x, -1, { keepdims: true })) as A;
    const variance = np.mean(np.square(centred.ref), -1, { keepdims: true }) as A;
    return np.add(np.multiply(np.divide(centred, np.sqrt(np.add(variance, 1e-5))), gain), shift);
  };
  // Its own attention needs iterator helpers, which Node 20 lacks.
  const attention = (q: A, k: A, v: A): A => {
    const scores = np.multiply(np.matmul(q, np.transpose(k, [0, 1, 3, 2])), 1 / Math.sqrt(width / heads));
    return np.matmul(nn.softmax(np.where(np.tri(T, T, 0, { dtype: np.bool }), scores, -1e9), -1), v);
  };
  const gpt = (p: A[], x: A, y: A): A => {
    let h = np.add(np.take(p[0], x, 0), p[1]) as A;
    for (let l = 0; l < transformer.layers; l++) {
      const [g1, s1, wq, wk, wv, wo, g2, s2, up, down] = p.slice(2 + l * perBlock) as [A, A, A, A, A, A, A, A, A, A];
      const n = norm(h.ref, g1, s1);
      const [q, k, v] = [wq, wk, wv].map((w, i) => np.transpose(np.matmul(i < 2 ? n.ref : n, w).reshape([B, T, heads, width / heads]), [0, 2, 1, 3]) as A);
      h = np.add(h, np.matmul(np.transpose(attention(q as A, k as A, v as A), [0, 2, 1, 3]).reshape([B, T, width]), wo));
      h = np.add(h.ref, np.matmul(nn.relu(np.matmul(norm(h, g2, s2), up)), down));
    }
    return mean(np.matmul(h, p.at(-1)), y, transformer.classes);
  };
  return { mlp, gpt, norm };
}

function trainingStep(jax: Jax, loss: (p: A[], x: A, y: A) => A, rate: number): Row<A> {
  const { numpy: np } = jax;
  const both = jax.valueAndGrad(loss as Function);
  const step = jax.jit((x: A, y: A, p: A[]): A[] => {
    const [value, gradients] = both(p.map((w) => w.ref), x, y);
    return [value, ...p.map((w, i) => np.subtract(w, np.multiply(gradients[i], rate)))];
  });
  return ([x, y, ...p]) => step((x as A).ref, (y as A).ref, p.map((w) => w.ref));
}

export async function jaxEngine(url: string, threads: number, rate: number): Promise<Engine<A>> {
  if (threads > 1) provideWorkers(threads);
  const jax = (await import(url)) as Jax;
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  const { numpy: np, nn, lax } = jax;
  const { mlp, gpt, norm } = losses(jax);
  const one = (f: (...xs: A[]) => A): Row<A> => {
    const compiled = jax.jit(f);
    return (xs) => [compiled(...xs.map((x) => x.ref))];
  };
  const eager = (f: (...xs: A[]) => A | A[]): Row<A> => (xs) => [f(...xs.map((x) => x.ref))].flat();
  const rows: Record<string, Row<A>> = {
    "matmul 512": one((a, b) => np.matmul(a, b)),
    "matmul 1024": one((a, b) => np.matmul(a, b)),
    softmax: one((x) => nn.softmax(x, -1)),
    sum: one((x) => np.sum(x)),
    "sum axis 0": one((x) => np.sum(x, 0)),
    "sum axis 1": one((x) => np.sum(x, 1)),
    "sum axis 2": one((x) => np.sum(x, 2)),
    exp: one((x) => np.exp(x)),
    sin: one((x) => np.sin(x)),
    tanh: one((x) => np.tanh(x)),
    add: one((a, b) => np.add(a, b)),
    layer_norm: one((x, w, b) => norm(x as A, w as A, b as A)),
    // Channels first, as it wants them; they are moved when the data is made.
    conv2d: one((x, w) => lax.convGeneralDilated(x, w, [1, 1], "SAME")),
    "sort rows": eager((x) => np.sort(x, -1)),
    "sort all": eager((x) => np.sort(x, -1)),
    "cumsum axis 0": one((x) => np.cumsum(x, 0)),
    "cumsum axis 1": one((x) => np.cumsum(x, 1)),
    "gather rows": one((x, ids) => np.take(x, ids, 0)),
    "gather elements": one((x, ids) => np.take(x, ids)),
    fft: eager((re, im) => {
      const { real, imag } = np.fft.fft({ real: re, imag: im }, -1) as { real: A; imag: A };
      return [real, imag];
    }),
    [`training step, ${twoLayers.name}`]: trainingStep(jax, mlp, rate),
    [`training step, ${transformer.name}`]: trainingStep(jax, gpt, rate),
  };
  const put = async ({ data, shape }: Tensor): Promise<A> => (np.array(data).reshape([...shape]) as A).blockUntilReady();
  return {
    rows,
    put: async (name, tensors) => {
      const arrays = await Promise.all(tensors.map(put));
      return name === "conv2d" ? Promise.all(arrays.map((a) => jax.jit((x: A) => np.transpose(x, [0, 3, 1, 2]))(a).blockUntilReady())) : arrays;
    },
    read: async (name, outputs) => Promise.all((name === "conv2d" ? outputs.map((a) => np.transpose(a, [0, 2, 3, 1]) as A) : outputs).map((a) => a.data())),
    finish: (outputs) => Promise.all(outputs.map((a) => a.blockUntilReady())),
    dispose: (arrays) => {
      for (const a of arrays) a.dispose();
    },
  };
}
