/**
 * Kernels of a decode step at the sizes of Qwen3-0.6B and 4B. Run by itself (`node --import tsx bench/gpu/decode.ts [0.6B] [4B] [8B] [--depth 500] [--tokens 8] [--bits 4]`)
 * it measures whole steps: embedding, all layers, output layer and choice of the token, recorded for several tokens and replayed, with synthetic weights.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import "../../src/mx.ts";
import { CommandStream } from "../../src/backend/vulkan/commands.ts";
import { type Placed, encodeLaunch } from "../../src/backend/vulkan/encode.ts";
import { DeviceMemory } from "../../src/backend/vulkan/memory.ts";
import { type Dtype, bfloat16, float32, int32, uint32 } from "../../src/core/dtype.ts";
import type { GpuKernel } from "../../src/core/gpu.ts";
import { ops } from "../../src/core/op.ts";
import { isContiguous, rowStrides, sizeOf } from "../../src/core/shape.ts";
import { productKernel } from "../../src/ops/decode-gpu.ts";
import { type AttentionStepParams, type Packing, leastSplit, splitsFor } from "../../src/ops/decode.ts";
import { summarize } from "../harness.ts";
import { type BenchDevice, type GpuCase, type GpuInput, closeBenchDevice, openBenchDevice } from "./harness.ts";

interface Model {
  readonly name: string;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlp: number;
  readonly vocabulary: number;
}
const models: readonly Model[] = [
  { name: "0.6B", hidden: 1024, layers: 28, heads: 16, kvHeads: 8, headDim: 128, mlp: 3072, vocabulary: 151936 },
  { name: "4B", hidden: 2560, layers: 36, heads: 32, kvHeads: 8, headDim: 128, mlp: 9728, vocabulary: 151936 },
  { name: "8B", hidden: 4096, layers: 36, heads: 32, kvHeads: 8, headDim: 128, mlp: 12288, vocabulary: 151936 },
  { name: "tiny", hidden: 256, layers: 2, heads: 4, kvHeads: 2, headDim: 64, mlp: 512, vocabulary: 2000 },
];

// ---- kernels alone

const dtype = bfloat16;
function matrix(N: number, K: number, p: Packing | null): GpuInput[] {
  if (!p) return [{ dtype, shape: [N, K], range: [-0.05, 0.05], cold: true }];
  const terms: GpuInput = { dtype, shape: [N, K / p.groupSize], cold: true };
  return [{ dtype: uint32, shape: [N, (K * p.bits) / 32], cold: true }, { ...terms, range: [0.05 / 2 ** p.bits, 0.15 / 2 ** p.bits] }, { ...terms, range: [-0.07, -0.03] }];
}
const vector = (n: number): GpuInput => ({ dtype, shape: [1, n] });
const norm = (n: number): GpuInput => ({ dtype, shape: [n], range: [0.5, 1.5] });
const whole = (value: number): GpuInput => ({ dtype: int32, shape: [1], values: () => value });
const bytesOf = (inputs: readonly GpuInput[]): number => inputs.reduce((n, x) => n + sizeOf(x.shape) * x.dtype.size, 0);
const tolerance = { relative: 2 ** -6, absolute: 1e-2 };

type Product = Parameters<typeof productKernel>[0];
function product(m: Model, what: string, op: Product, K: number, rows: readonly number[], p: Packing | null): GpuCase {
  const normed = op.startsWith("norm");
  const inputs = (ns: readonly number[]): GpuInput[] => [vector(K), normed ? norm(K) : vector(ns[0] as number), ...ns.flatMap((n) => matrix(n, K, p))];
  return {
    name: `${m.name} ${what} ${rows.join("+")}x${K} ${p ? `${p.bits} bits` : "bfloat16"}`,
    op,
    inputs: inputs(rows),
    params: { packings: rows.map(() => p), bias: false, ...(normed ? { eps: 1e-6 } : {}) },
    bytes: bytesOf(inputs(rows)),
    check: { inputs: inputs(rows.map(() => 21)) },
    tolerance,
  };
}
/** The same product with other grids: which one is best at which size. */
const gridsOf = (c: GpuCase): GpuCase => ({
  ...c,
  name: `${c.name} grids`,
  usual: false,
  variants: [64, 128, 256, 512].flatMap((threads) => [1, 2, 4].flatMap((rows) => [264, 528, 1056, 8192].map((groups) => productKernel(c.op as Product, { threads, rows, groups }) as GpuKernel<never>))),
});
const attentionParams = (m: Model, capacity: number): AttentionStepParams => ({
  heads: m.heads, kvHeads: m.kvHeads, headDim: m.headDim, scale: m.headDim ** -0.5, rope: { dims: m.headDim, traditional: false, scale: 1, base: 1e6 },
  eps: 1e-6, queryNorm: true, keyNorm: true, splits: splitsFor(m.kvHeads, capacity), least: leastSplit,
});
function attention(m: Model, length: number): GpuCase {
  const capacity = Math.ceil(length / 256) * 256;
  const cache: GpuInput = { dtype, shape: [1, m.kvHeads, capacity, m.headDim] };
  return {
    name: `${m.name} attentionStep behind ${length} positions`,
    op: "attentionStep",
    inputs: [vector((m.heads + 2 * m.kvHeads) * m.headDim), whole(length - 1), cache, cache, norm(m.headDim), norm(m.headDim)],
    params: attentionParams(m, capacity),
    bytes: 4 * length * m.kvHeads * m.headDim,
    tolerance: { relative: 3e-2, absolute: 3e-2 },
  };
}
function combine(m: Model, length: number, p: Packing): GpuCase {
  const splits = splitsFor(m.kvHeads, Math.ceil(length / 256) * 256);
  // Every number between 1 and 2: a greatest score and a sum of weights may be that, too.
  const inputs = (n: number): GpuInput[] => [{ dtype: float32, shape: [splits, m.heads, m.headDim + 4], range: [1, 2] }, vector(n), whole(length - 1), ...matrix(n, m.heads * m.headDim, p)];
  return {
    name: `${m.name} o_proj ${m.hidden}x${m.heads * m.headDim} behind ${length} positions`,
    op: "combineProjectAdd",
    inputs: inputs(m.hidden),
    params: { packings: [p], bias: false, least: leastSplit },
    bytes: bytesOf(inputs(m.hidden).slice(3)),
    // The reference adds up all splits, so the smaller case must use them all.
    check: { inputs: [...inputs(21).slice(0, 2), whole(splits * leastSplit - 1), ...inputs(21).slice(3)] },
    tolerance,
  };
}
function casesOf(m: Model): GpuCase[] {
  const p4 = { bits: 4, groupSize: 64 };
  const H = m.hidden;
  const qkv = [m.heads * m.headDim, m.kvHeads * m.headDim, m.kvHeads * m.headDim];
  const products = (p: Packing | null): GpuCase[] => [product(m, "qkv", "normProject", H, qkv, p), product(m, "gate+up", "normGateUp", H, [m.mlp, m.mlp], p), product(m, "down", "projectAdd", m.mlp, [H], p)];
  const head = product(m, "lm_head", "normProject", H, [m.vocabulary], p4);
  return [
    ...[p4, { bits: 8, groupSize: 64 }, null].flatMap(products),
    head,
    ...[...products(p4), head].map(gridsOf),
    ...[100, 1000, 4096].flatMap((n) => [attention(m, n), combine(m, n, p4)]),
    { name: `${m.name} embedRow`, op: "embedRow", inputs: [whole(77), ...matrix(m.vocabulary, H, p4).map((x) => ({ ...x, cold: false }))], params: { packing: p4 }, check: { inputs: [whole(20), ...matrix(33, H, p4)] }, tolerance },
    ...[0, 0.7].map((temperature) => ({
      name: `${m.name} chooseToken at temperature ${temperature}`, op: "chooseToken", inputs: [vector(m.vocabulary), { dtype: int32, shape: [4], values: () => 1 }, { dtype: int32, shape: [64], values: () => 0 }],
      params: { temperature, seed: 1 }, tolerance: { relative: 0, absolute: 0 },
    })),
  ];
}
export const cases: readonly GpuCase[] = models.slice(0, 2).flatMap(casesOf);

// ---- whole steps

interface Operand {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly at: Placed;
}
/** Operands on the device, and kernels applied to them as they are encoded. */
class Bench {
  readonly memory: DeviceMemory;
  readonly fills = new CommandStream();
  private readonly tables = new Map<string, Placed>();
  private readonly d: BenchDevice;
  dispatches = 0;
  constructor(d: BenchDevice) {
    this.d = d;
    this.memory = new DeviceMemory(d.addon, { blockBytes: 256 * 2 ** 20 });
  }
  /** An operand whose words are all equal. */
  make(type: Dtype, shape: readonly number[], word = 0): Operand {
    const bytes = Math.ceil((sizeOf(shape) * type.size) / 256) * 256;
    const m = this.memory.allocate(bytes);
    this.fills.fill({ buffer: m.buffer, offset: m.offset, bytes }, word);
    return { dtype: type, shape, at: { memory: m, bytes: 0 } };
  }
  part(x: Operand, from: number, to: number): Operand {
    return { ...x, shape: [to - from], at: { memory: x.at.memory, bytes: x.at.bytes + from * x.dtype.size } };
  }
  matrix(N: number, K: number, p: Packing): Operand[] {
    // bfloat16 pairs: scales of 0.004, biases of -0.03.
    return [this.make(uint32, [N, (K * p.bits) / 32], 0x5b93d1e7), this.make(bfloat16, [N, K / p.groupSize], 0x3b803b80), this.make(bfloat16, [N, K / p.groupSize], 0xbcf5bcf5)];
  }
  /** Encodes an op. `into`: outputs that exist already. */
  apply(stream: CommandStream, op: string, inputs: readonly Operand[], params: object, into: readonly Operand[]): void {
    const kernel = ops.get(op)?.gpu?.[0] as GpuKernel;
    const viewOf = (x: Operand) => ({ shape: x.shape, dtype: x.dtype, strides: rowStrides(x.shape), offset: 0, size: sizeOf(x.shape), contiguous: isContiguous(x.shape, rowStrides(x.shape)) });
    const [ins, outs] = [inputs.map(viewOf), into.map(viewOf)];
    const why = kernel.gate?.refuse?.(ins, params, outs, this.d.gpu);
    if (why !== undefined) throw new Error(`${kernel.name}: ${why}`);
    const launch = kernel.launch(ins, outs, params, this.d.gpu);
    const scratch = (launch.scratch ?? []).map((n): Placed => ({ memory: this.memory.allocate(n), bytes: 0 }));
    const place = (p: { of: string; index: number; bytes: number }): Placed => {
      const at = p.of === "scratch" ? scratch[p.index] : (p.of === "input" ? inputs : into)[p.index]?.at;
      return { memory: (at as Placed).memory, bytes: (at as Placed).bytes + p.bytes };
    };
    const words = (w: readonly number[]): Placed => {
      const known = this.tables.get(w.join());
      if (known) return known;
      const memory = this.memory.allocate(4 * w.length);
      this.fills.update({ buffer: memory.buffer, offset: memory.offset, bytes: 4 * w.length }, Uint32Array.from(w, (x) => x >>> 0));
      const made = { memory, bytes: 0 };
      this.tables.set(w.join(), made);
      return made;
    };
    this.dispatches += encodeLaunch(stream, this.d.pipelines, launch, place, words, kernel.name);
  }
}

/** Encodes steps of a model: `tokens` of them, one behind the other. */
function encodeSteps(b: Bench, stream: CommandStream, m: Model, p: Packing, depth: number, tokens: number): Operand {
  const { hidden, heads, kvHeads, headDim, mlp, vocabulary } = m;
  const capacity = Math.ceil((depth + 64) / 256) * 256;
  const params = attentionParams(m, capacity);
  const rows = (heads + 2 * kvHeads) * headDim;
  const one = 0x3f803f80;
  const table = b.matrix(vocabulary, hidden, p);
  const last = b.make(bfloat16, [hidden], one);
  const layers = Array.from({ length: m.layers }, () => ({
    norms: [b.make(bfloat16, [hidden], one), b.make(bfloat16, [hidden], one)] as const,
    headNorms: [b.make(bfloat16, [headDim], one), b.make(bfloat16, [headDim], one)],
    qkv: [heads, kvHeads, kvHeads].flatMap((h) => b.matrix(h * headDim, hidden, p)),
    o: b.matrix(hidden, heads * headDim, p),
    gateUp: [...b.matrix(mlp, hidden, p), ...b.matrix(mlp, hidden, p)],
    down: b.matrix(hidden, mlp, p),
    keys: b.make(bfloat16, [1, kvHeads, capacity, headDim], one),
    values: b.make(bfloat16, [1, kvHeads, capacity, headDim], one),
  }));
  const state = b.make(int32, [4]);
  const history = b.make(int32, [tokens]);
  const position = b.part(state, 1, 2);
  const [x, h, qkv, act, logits] = [hidden, hidden, rows, mlp, vocabulary].map((n) => b.make(bfloat16, [1, n])) as [Operand, Operand, Operand, Operand, Operand];
  const parts = b.make(float32, [params.splits, heads, headDim + 4]);
  for (let t = 0; t < tokens; t++) {
    b.apply(stream, "embedRow", [b.part(state, 0, 1), ...table], { packing: p }, [x]);
    for (const l of layers) {
      b.apply(stream, "normProject", [x, l.norms[0], ...l.qkv], { eps: 1e-6, packings: [p, p, p], bias: false }, [qkv]);
      b.apply(stream, "attentionStep", [qkv, position, l.keys, l.values, ...l.headNorms], params, [parts, l.keys, l.values]);
      b.apply(stream, "combineProjectAdd", [parts, x, position, ...l.o], { packings: [p], bias: false, least: params.least }, [h]);
      b.apply(stream, "normGateUp", [h, l.norms[1], ...l.gateUp], { eps: 1e-6, packings: [p, p], bias: false }, [act]);
      b.apply(stream, "projectAdd", [act, h, ...l.down], { packings: [p], bias: false }, [x]);
    }
    b.apply(stream, "normProject", [x, last, ...table], { eps: 1e-6, packings: [p], bias: false }, [logits]);
    b.apply(stream, "chooseToken", [logits, state, history], { temperature: 0, seed: 1 }, [state, history]);
  }
  return state;
}

function measureSteps(d: BenchDevice, m: Model, p: Packing, depth: number, tokens: number, count: number): void {
  const b = new Bench(d);
  const stream = new CommandStream();
  const start = new CommandStream();
  stream.timestamp(0);
  const state = encodeSteps(b, stream, m, p, depth, tokens);
  stream.timestamp(1);
  d.addon.waitSync(d.addon.submit(b.fills.words, b.fills.length));
  start.update({ buffer: state.at.memory.buffer, offset: state.at.memory.offset, bytes: 16 }, [0, depth, depth + 1, 0]);
  const commands = d.addon.record(stream.words, stream.length);
  const times = new Float64Array(2);
  const samples = Array.from({ length: count + 5 }, () => {
    d.addon.submit(start.words, start.length);
    const from = performance.now();
    d.addon.waitSync(d.addon.replay(commands));
    const wall = ((performance.now() - from) * 1000) / tokens;
    d.addon.timestamps(0, 2, times);
    return [(times[1] as number) / 1000 / tokens, wall] as const;
  }).slice(5);
  const us = summarize(samples.map((s) => s[0])).median;
  const wall = summarize(samples.map((s) => s[1])).median;
  console.log(`${m.name} ${p.bits} bits, depth ${depth}, ${tokens} tokens a replay: ${us.toFixed(1)} us a token = ${(1e6 / us).toFixed(0)} tok/s on the device (${wall.toFixed(1)} us = ${(1e6 / wall).toFixed(0)} tok/s with submit and wait), ${b.dispatches / tokens} dispatches a token, ${stream.barriers.barrier / tokens} barriers`);
  d.addon.freeCommands(commands);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { depth: { type: "string", default: "500" }, tokens: { type: "string", default: "8" }, bits: { type: "string", default: "4" }, samples: { type: "string", default: "20" } },
  });
  const d = openBenchDevice();
  const p = { bits: Number(values.bits), groupSize: 64 };
  const wanted = models.filter((m) => (positionals.length === 0 ? m.name === "0.6B" : positionals.includes(m.name)));
  for (const m of wanted) for (const depth of values.depth.split(",")) measureSteps(d, m, p, Number(depth), Number(values.tokens), Number(values.samples));
  closeBenchDevice(d);
}
