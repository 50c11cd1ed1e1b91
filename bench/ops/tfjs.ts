/** The rows in TensorFlow.js's functions, on its WebAssembly backend: one thread with SIMD, since in Node it starts no workers. */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Tensor } from "./cases.ts";
import type { Engine, Row } from "./engine.ts";

interface A {
  readonly dtype: string;
  dataSync(): Float32Array;
  dispose(): void;
}
/** As much of the library's types as is used here. */
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tensor(data: Float32Array | Int32Array, shape: readonly number[], dtype: "float32" | "int32"): A;
  matMul(a: A, b: A): A;
  softmax(a: A, axis: number): A;
  sum(a: A, axis?: number): A;
  exp(a: A): A;
  sin(a: A): A;
  tanh(a: A): A;
  add(a: A, b: A | number): A;
  sub(a: A, b: A): A;
  mul(a: A, b: A): A;
  mean(a: A, axis: number, keep: boolean): A;
  square(a: A): A;
  rsqrt(a: A): A;
  conv2d(x: A, w: A, stride: number, pad: "same"): A;
  transpose(a: A, axes: readonly number[]): A;
  topk(a: A, k: number, sorted: boolean): { values: A };
  reverse(a: A, axis: number): A;
  cumsum(a: A, axis: number): A;
  gather(a: A, ids: A, axis: number): A;
  tidy<T>(f: () => T): T;
}

/** @param core URL of @tensorflow/tfjs-core, @param wasm of its WebAssembly backend, whose binaries lie beside it */
export async function tfjsEngine(core: string, wasm: string): Promise<Engine<A>> {
  const backend = (await import(wasm)) as { default?: { setWasmPaths(folder: string): void }; setWasmPaths?(folder: string): void };
  (backend.setWasmPaths ?? backend.default?.setWasmPaths)?.(`${dirname(fileURLToPath(wasm))}/`);
  const module = (await import(core)) as Tf & { default?: Tf };
  const tf = module.default ?? module;
  if (!(await tf.setBackend("wasm"))) throw new Error("tfjs does not open its WebAssembly backend");
  await tf.ready();
  const one = (f: (...xs: A[]) => A): Row<A> => (xs) => [tf.tidy(() => f(...xs))];
  const norm = (x: A, w: A, b: A): A => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const scale = tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), 1e-5));
    return tf.add(tf.mul(tf.mul(centred, scale), w), b);
  };
  const matmul = one((a, b) => tf.matMul(a as A, b as A));
  const rows: Record<string, Row<A>> = {
    "matmul 512": matmul,
    "matmul 1024": matmul,
    softmax: one((x) => tf.softmax(x as A, -1)),
    sum: one((x) => tf.sum(x as A)),
    "sum axis 0": one((x) => tf.sum(x as A, 0)),
    "sum axis 1": one((x) => tf.sum(x as A, 1)),
    "sum axis 2": one((x) => tf.sum(x as A, 2)),
    exp: one((x) => tf.exp(x as A)),
    sin: one((x) => tf.sin(x as A)),
    tanh: one((x) => tf.tanh(x as A)),
    add: one((a, b) => tf.add(a as A, b as A)),
    layer_norm: one((x, w, b) => norm(x as A, w as A, b as A)),
    conv2d: one((x, w) => tf.conv2d(x as A, w as A, 1, "same")),
    "cumsum axis 0": one((x) => tf.cumsum(x as A, 0)),
    "cumsum axis 1": one((x) => tf.cumsum(x as A, 1)),
    "gather rows": one((x, ids) => tf.gather(x as A, ids as A, 0)),
    "gather elements": one((x, ids) => tf.gather(x as A, ids as A, 0)),
  };
  const put = ({ data, shape }: Tensor): A => tf.tensor(data, shape, data instanceof Int32Array ? "int32" : "float32");
  return {
    rows,
    // Filters are (height, width, in, out) there; they are moved when the data is made.
    put: (name, tensors) => tensors.map((t, i) => (name === "conv2d" && i === 1 ? tf.tidy(() => tf.transpose(put(t), [1, 2, 3, 0])) : put(t))),
    read: async (_, outputs) => outputs.map((a) => Float32Array.from(a.dataSync())),
    // Its WebAssembly backend computes at once.
    finish: () => undefined,
    dispose: (arrays) => {
      for (const a of arrays) a.dispose();
    },
  };
}
