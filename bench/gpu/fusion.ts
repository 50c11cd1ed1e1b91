/**
 * node --import tsx bench/gpu/fusion.ts [--samples 15] [--only TEXT] [--small] [--json]: what joining saves on the GPU: elementwise ops after a product in the product's kernel
 * (MLX_DISABLE=vulkan/epilogue,vulkan/residual), and products of the same input in one launch (vulkan/siblings). Each row is recorded joined and apart and both recordings run in
 * turns, without the host's work; their results are compared first and must have the same bits.
 */
import { parseArgs } from "node:util";
import { core as mx, type MxArray } from "../../src/index.ts";
import { gelu, silu } from "../../src/nn/layers/activations.ts";
import { stats } from "../../src/schedule/run.ts";
import { digits, duration, measureTogether, ratios, summarize } from "../harness.ts";

const { values: options } = parseArgs({ options: { samples: { type: "string", default: "15" }, only: { type: "string" }, small: { type: "boolean", default: false }, json: { type: "boolean", default: false } } });
const small = options.small;
mx.setDefaultDevice("gpu");

type A = MxArray;
interface Row {
  readonly name: string;
  readonly off: string;
  /** Arrays of one layer from its input; layers follow each other. */
  readonly layer: (x: A) => A;
  readonly input: () => A;
}
type Dtype = typeof mx.float32;
const random = (shape: readonly number[], dtype: Dtype, scale = 1): A => {
  const a = mx.tidy(() => mx.multiply(mx.random.normal([...shape]), scale).astype(dtype));
  mx.eval(a);
  return a;
};
const side = (n: number): number => (small ? Math.min(n, 64) : n);

function dense(what: string, dtype: Dtype, M: number, width: number, after: (y: A, bias: A, x: A) => A): Row {
  const [m, n] = [side(M), side(width)];
  const [w, bias] = [random([n, n], dtype, 1 / Math.sqrt(n)), random([n], dtype, 0.1)];
  return { name: `${what}, ${m}x${n}x${n} ${dtype}`, off: "vulkan/epilogue,vulkan/residual", input: () => random([m, n], dtype), layer: (x) => after(mx.matmul(x, w), bias, x) };
}
function quantized(what: string, M: number, width: number, after: (y: A, x: A) => A): Row {
  const [m, n] = [side(M), side(width)];
  const [w, scales, biases] = mx.quantize(random([n, n], mx.bfloat16, 1 / Math.sqrt(n)), 64, 4) as [A, A, A];
  mx.eval(w, scales, biases);
  return { name: `${what}, quantized ${m}x${n}x${n} bfloat16`, off: "vulkan/epilogue,vulkan/residual", input: () => random([m, n], mx.bfloat16), layer: (x) => after(mx.quantizedMatmul(x, w, scales, biases, true, 64, 4), x) };
}
/** q, k and v (or gate and up) of these widths, and a product back to the input's width. */
function siblings(what: string, M: number, width: number, widths: readonly number[], packed: boolean): Row {
  const [K, all] = [small ? 256 : width, widths.map((n) => (small ? 64 : n))];
  const matrices = all.map((n) => random([n, K], mx.bfloat16, 1 / Math.sqrt(K)));
  const weights = matrices.map((m) => (packed ? (mx.quantize(m, 64, 4) as [A, A, A]) : undefined));
  mx.eval(weights.flatMap((w) => w ?? []));
  const times = (x: A, i: number): A => {
    const w = weights[i];
    return w ? mx.quantizedMatmul(x, ...w, true, 64, 4) : mx.matmul(x, (matrices[i] as A).T);
  };
  return {
    name: `${what}, ${packed ? "quantized " : ""}${M}x(${all.join(" + ")})x${K} bfloat16`,
    off: "vulkan/siblings",
    input: () => random([M, K], mx.bfloat16),
    // The next layer needs a part of every result.
    layer: (x) => mx.tanh(mx.add(x, all.map((_, i) => (mx.split(times(x, i), [1], 1)[0] as A)).reduce((a, b) => mx.add(a, b)))),
  };
}

const rows: (() => Row)[] = [
  () => dense("bias", mx.bfloat16, 512, 1024, (y, b) => mx.add(y, b)),
  () => dense("bias, gelu", mx.bfloat16, 512, 1024, (y, b) => gelu(mx.add(y, b))),
  () => dense("silu, times x", mx.bfloat16, 512, 2048, (y, _b, x) => mx.multiply(silu(y), x)),
  () => dense("bias, gelu, residual", mx.bfloat16, 2048, 2048, (y, b, x) => mx.add(gelu(mx.add(y, b)), x)),
  () => dense("bias, gelu, residual", mx.float32, 512, 1024, (y, b, x) => mx.add(gelu(mx.add(y, b)), x)),
  () => dense("bias, gelu, residual", mx.float32, 2048, 2048, (y, b, x) => mx.add(gelu(mx.add(y, b)), x)),
  () => quantized("silu, times x", 512, 2048, (y, x) => mx.multiply(silu(y), x)),
  () => quantized("residual", 512, 2048, (y, x) => mx.add(y, x)),
  () => quantized("silu, times x", 1, 2048, (y, x) => mx.multiply(silu(y), x)),
  () => dense("bias, gelu, residual", mx.bfloat16, 1, 2048, (y, b, x) => mx.add(gelu(mx.add(y, b)), x)),
  () => siblings("q, k, v", 1, 1024, [2048, 1024, 1024], true),
  () => siblings("gate, up", 1, 1024, [3072, 3072], true),
  () => siblings("q, k, v", 4, 1024, [2048, 1024, 1024], true),
  () => siblings("q, k, v", 1, 2560, [4096, 1024, 1024], true),
  () => siblings("q, k, v", 1, 1024, [2048, 1024, 1024], false),
];

function disabling<T>(names: string, work: () => T): T {
  const before = process.env["MLX_DISABLE"];
  process.env["MLX_DISABLE"] = [before ?? "", names].filter((n) => n !== "").join(",");
  try {
    return work();
  } finally {
    if (before === undefined) delete process.env["MLX_DISABLE"];
    else process.env["MLX_DISABLE"] = before;
  }
}

const layers = small ? 2 : 16;
function measure({ name, off, layer, input }: Row): object {
  const x = input();
  const record = (): { recording: mx.Recording; result: A; dispatches: number } => {
    const result = mx.tidy(() => {
      let h = x;
      for (let i = 0; i < layers; i++) h = layer(h);
      return h;
    });
    const before = stats.dispatches;
    const recording = mx.Recording.evaluate(result);
    if (recording.refused !== undefined) throw new Error(`${name}: ${recording.refused}`);
    return { recording, result, dispatches: stats.dispatches - before };
  };
  const [joined, apart] = [record(), disabling(off, record)];
  if (joined.dispatches >= apart.dispatches) throw new Error(`${name}: nothing was joined (${joined.dispatches} dispatches, ${apart.dispatches} apart)`);
  const numbers = (a: A): number[] => mx.tidy(() => a.astype(mx.float32).reshape([-1]).tolist() as number[]);
  const [got, want] = [numbers(joined.result), numbers(apart.result)];
  const wrong = got.findIndex((v, i) => !Object.is(v, want[i]));
  // A plain sum with a product is rounded once where it is joined.
  const close = wrong >= 0 && off.includes("residual") && got.every((v, i) => Math.abs(v - (want[i] as number)) <= layers * 2 ** -7 * (1 + Math.abs(want[i] as number)));
  if (wrong >= 0 && !close) throw new Error(`${name}: [${wrong}] is ${got[wrong]} joined and ${want[wrong]} apart`);
  const run = (r: mx.Recording) => (): void => {
    r.run();
    r.submitted?.wait();
  };
  const times = measureTogether({ joined: run(joined.recording), apart: run(apart.recording) }, { samples: Number(options.samples), sampleMs: 20, warmupMs: 100 });
  joined.recording.dispose();
  apart.recording.dispose();
  const perLayer = (s: number): number => s / layers;
  return { name, dispatches: [joined.dispatches, apart.dispatches], equal: wrong < 0, joined: perLayer(summarize(times.joined).median), apart: perLayer(summarize(times.apart).median), ratio: ratios(times.apart, times.joined) };
}

for (const make of rows) {
  const row = make();
  if (options.only !== undefined && !row.name.includes(options.only)) continue;
  try {
    const r = measure(row) as { name: string; dispatches: number[]; equal: boolean; joined: number; apart: number; ratio: ReturnType<typeof summarize> };
    if (options.json) console.log(JSON.stringify(r));
    else console.log(`${r.name}: ${duration(r.joined)} a layer joined, ${duration(r.apart)} apart: ${digits(r.ratio.median)}x (${digits(r.ratio.p10)} to ${digits(r.ratio.p90)}); ${r.dispatches.join(" and ")} dispatches${r.equal ? ", same bits" : ", rounded once"}`);
  } catch (error) {
    console.log(`${row.name}: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
process.exit();
