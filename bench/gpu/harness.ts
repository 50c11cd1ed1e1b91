/**
 * Measures GPU kernels alone, without the scheduler. A case is checked against its op's float64 reference first; then its launch is recorded many times back to back
 * into one command buffer, each waiting for the one before it, which is replayed several times and timed by the device's own clock.
 */
import { type Addon, type DeviceInfo, loadAddon } from "../../src/backend/vulkan/addon.ts";
import { CommandStream } from "../../src/backend/vulkan/commands.ts";
import { chooseDevice, rankDevices, gpuDevice } from "../../src/backend/vulkan/device.ts";
import { type Placed, encodeLaunch } from "../../src/backend/vulkan/encode.ts";
import { DeviceMemory } from "../../src/backend/vulkan/memory.ts";
import { Pipelines, cacheFile, readCache } from "../../src/backend/vulkan/pipelines.ts";
import type { View } from "../../src/core/array.ts";
import { type Dtype, bitsArray, fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "../../src/core/dtype.ts";
import { type GpuDevice, type GpuKernel, type GpuLaunch, missingFeature } from "../../src/core/gpu.ts";
import { type Op, ops } from "../../src/core/op.ts";
import { isContiguous, rowStrides, sizeOf } from "../../src/core/shape.ts";
import { type Summary, summarize } from "../harness.ts";

export interface GpuInput {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Range of the random values: floats uniform in [low, high) (default -1 and 1), integers from low up to high (default: every bit random; bool 0 or 1). */
  readonly range?: readonly [number, number];
  /** Values instead of random ones. */
  readonly values?: (i: number) => number;
  /** Each launch reads another copy, so that the data comes from memory and not from a cache. */
  readonly cold?: boolean;
  /** A strided view of the block (default row-major). Then `shape` is the view's and the block holds all that it reaches. */
  readonly strides?: readonly number[];
  readonly offset?: number;
}
export interface GpuCase {
  readonly name: string;
  readonly op: string;
  /** Name of the kernel, or of several to measure one after another; default: the first that takes the arguments. */
  readonly kernel?: string | readonly string[];
  readonly inputs: readonly GpuInput[];
  readonly params: object;
  /** Kernels to measure that the op does not list: the same one with other choices of tile and the like. */
  readonly variants?: readonly GpuKernel<never>[];
  /** False: measured only when a filter is the beginning of its name. */
  readonly usual?: boolean;
  /** Read and written by one launch. */
  readonly bytes?: number;
  readonly flops?: number;
  /** A smaller case of the same kind that is compared with the op's reference instead, when the reference is slow; `expected` checks the full size then. */
  readonly check?: { readonly inputs: readonly GpuInput[]; readonly params?: object };
  /** What element `at` of output 0 must be, in float64: compared at places all over the full size. */
  readonly expected?: (inputs: readonly ArrayLike<number>[], at: number) => number;
  /** |got - want| <= absolute + relative * |want| */
  readonly tolerance: { readonly relative: number; readonly absolute: number };
}
export interface GpuResult {
  readonly name: string;
  readonly kernel: string;
  /** Microseconds of one launch, by the device's clock and by the host's. */
  readonly us: Summary;
  readonly wallUs: number;
  readonly launches: number;
  readonly copies: number;
  readonly gbPerSecond?: number;
  readonly gflops?: number;
}

export interface BenchDevice {
  readonly addon: Addon;
  readonly info: DeviceInfo;
  readonly gpu: GpuDevice;
  readonly pipelines: Pipelines;
}

/** Opens the device that MLX_VK_DEVICE names, or the best one; a software rasterizer when there is nothing else. */
export function openBenchDevice(): BenchDevice {
  const { addon, ...rest } = loadAddon();
  if (!addon) throw new Error((rest as { reason: string }).reason);
  const probe = addon.probe();
  if (!probe.ok) throw new Error(probe.message);
  const index = chooseDevice(probe.devices, process.env["MLX_VK_DEVICE"] ?? "").index ?? rankDevices(probe.devices).software[0];
  if (index === undefined) throw new Error("no Vulkan device");
  const identity = probe.devices[index] as DeviceInfo;
  const cache = readCache(cacheFile(identity), identity);
  const info = addon.openDevice(index, cache ? { cache } : {});
  const gpu = gpuDevice(info);
  return { addon, info, gpu, pipelines: new Pipelines(addon) };
}
export function closeBenchDevice(d: BenchDevice): void {
  d.pipelines.save(cacheFile(d.info));
  d.addon.closeDevice();
}

// ---- data

/** Elements before random values repeat: a prime, so it divides no row. */
const period = 262_139;

/** Random numbers from 0 up to 1; the same sequence for the same seed (xorshift32, Marsaglia 2003). */
function randomStream(seed: number): () => number {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}
type Bits = { [i: number]: number | bigint; readonly length: number } & ArrayBufferView;

function valueMaker({ dtype, range, values }: GpuInput, seed: number): (i: number) => number {
  if (values) return values;
  const random = randomStream(seed);
  for (let i = 0; i < 16; i++) random();
  if (!dtype.isInteger && dtype.name !== "bool") {
    const [low, high] = range ?? [-1, 1];
    return () => low + random() * (high - low);
  }
  const [low, high] = range ?? [0, dtype.name === "bool" ? 2 : 2 ** Math.min(32, 8 * dtype.size)];
  return () => low + Math.floor(random() * (high - low));
}
/** Bits of the block of an input. */
function blockOf(input: GpuInput, seed: number): Bits {
  const { dtype } = input;
  const v = viewOf(input);
  const length = input.strides ? v.offset + 1 + v.shape.reduce((n, s, d) => n + (s - 1) * (v.strides[d] as number), 0) : v.size;
  const out = new bitsArray[dtype.name](Math.max(1, length)) as unknown as Bits;
  const value = valueMaker(input, seed);
  const made = input.values ? out.length : Math.min(period, out.length);
  for (let i = 0; i < made; i++) {
    const x = value(i);
    out[i] = dtype.name === "bfloat16" ? toBfloat16Bits(x) : dtype.name === "float16" ? toFloat16Bits(x) : dtype.isInteger && dtype.size === 8 ? BigInt(x) : x;
  }
  const typed = out as unknown as Uint8Array;
  for (let filled = made; filled < out.length; filled += made) typed.copyWithin(filled, 0, Math.min(made, out.length - filled));
  return out;
}
function numbersOf(dtype: Dtype, bits: Bits): ArrayLike<number> {
  if (dtype.name === "bfloat16") return Float64Array.from({ length: bits.length }, (_, i) => fromBfloat16Bits(Number(bits[i])));
  if (dtype.name === "float16") return Float64Array.from({ length: bits.length }, (_, i) => fromFloat16Bits(Number(bits[i])));
  return dtype.isInteger && dtype.size === 8 ? Float64Array.from({ length: bits.length }, (_, i) => Number(bits[i])) : (bits as unknown as ArrayLike<number>);
}
const viewOf = (a: { dtype: Dtype; shape: readonly number[]; strides?: readonly number[]; offset?: number }): View => {
  const shape = a.shape.slice();
  const strides = (a.strides ?? rowStrides(shape)).slice();
  return { shape, dtype: a.dtype, strides, offset: a.offset ?? 0, size: sizeOf(shape), contiguous: isContiguous(shape, strides) };
};
/** Elements of a view of a block, row-major. */
function elementsOf(v: View, block: ArrayLike<number>): Float64Array {
  const out = new Float64Array(v.size);
  const index = new Array<number>(v.shape.length).fill(0);
  let at = v.offset;
  for (let i = 0; i < v.size; i++) {
    out[i] = block[at] as number;
    for (let d = index.length - 1; d >= 0; d--) {
      at += v.strides[d] as number;
      if (++(index[d] as number) < (v.shape[d] as number)) break;
      at -= (v.shape[d] as number) * (v.strides[d] as number);
      index[d] = 0;
    }
  }
  return out;
}

// ---- one kernel with its operands on the device

interface Ready {
  readonly kernel: GpuKernel;
  readonly launch: GpuLaunch;
  readonly views: readonly View[];
  readonly outputs: readonly View[];
  readonly blocks: readonly Bits[];
  readonly memory: DeviceMemory;
  /** Encodes one launch that uses this copy of the cold inputs. */
  encode(stream: CommandStream, copy: number): void;
  /** Makes outputs that the kernel updates copies of their inputs. */
  begin(stream: CommandStream): void;
  readonly outPlaces: readonly Placed[];
  readonly copies: number;
  dispose(): void;
}

const opNamed = (name: string): Op => {
  const op = ops.get(name);
  if (!op) throw new Error(`no op ${name}`);
  return op;
};

/** Kernels of a case that take its arguments on this device, and why the others do not. */
export function openKernels(d: BenchDevice, c: GpuCase): { kernels: GpuKernel[]; refusals: string[] } {
  const op = opNamed(c.op);
  const views = c.inputs.map(viewOf);
  const outputs = op.infer(c.inputs, c.params).map(viewOf);
  const wanted = c.kernel === undefined ? undefined : new Set(typeof c.kernel === "string" ? [c.kernel] : c.kernel);
  const kernels: GpuKernel[] = [];
  const refusals: string[] = [];
  for (const k of op.gpu ?? []) {
    if (wanted && !wanted.has(k.name)) continue;
    const missing = missingFeature(k.gate, views, d.gpu.features);
    const why = missing === undefined ? k.gate?.refuse?.(views, c.params, outputs, d.gpu) : `cannot: needs ${missing}`;
    // Kernels asked for by name run although they are slow.
    if (why !== undefined && !(wanted && why.startsWith("slower:"))) refusals.push(`${k.name}: ${why}`);
    else kernels.push(k);
  }
  return { kernels: [...(wanted ? kernels : kernels.slice(0, 1)), ...((c.variants ?? []) as unknown as GpuKernel[])], refusals };
}

/** Bytes that the copies of cold inputs take together: several times the largest cache (50 MB on an H200). */
const coldBytes = 320 * 2 ** 20;

function prepare(d: BenchDevice, kernel: GpuKernel, c: Pick<GpuCase, "op" | "inputs" | "params">, cold: boolean): Ready {
  const views = c.inputs.map(viewOf);
  const outputs = opNamed(c.op).infer(c.inputs, c.params).map(viewOf);
  const launch = kernel.launch(views, outputs, c.params, d.gpu);
  const blocks = c.inputs.map((x, i) => blockOf(x, 17 + i));
  const memory = new DeviceMemory(d.addon, { blockBytes: 256 * 2 ** 20 });
  const coldSize = c.inputs.reduce((n, x, i) => n + (x.cold ? (blocks[i] as Bits).byteLength : 0), 0);
  const copies = cold && coldSize > 0 ? Math.min(1024, Math.max(1, Math.ceil(coldBytes / coldSize))) : 1;
  const stream = new CommandStream();
  const upload = (bits: Bits): Placed => {
    const bytes = (bits.byteLength + 3) & ~3;
    const up = memory.allocate(bytes, 1);
    d.addon.writeBuffer(up.buffer, up.offset, bits);
    const m = memory.allocate(bytes);
    stream.copy({ buffer: up.buffer, offset: up.offset, bytes }, { buffer: m.buffer, offset: m.offset, bytes });
    d.addon.waitSync(d.addon.submit(stream.words, stream.length));
    stream.clear();
    memory.free(up);
    return { memory: m, bytes: 0 };
  };
  const places = blocks.map((bits, i) => Array.from({ length: c.inputs[i]?.cold ? copies : 1 }, () => upload(bits)));
  const outPlaces = outputs.map((o): Placed => ({ memory: memory.allocate(o.size * o.dtype.size), bytes: 0 }));
  const scratch = (launch.scratch ?? []).map((n): Placed => ({ memory: memory.allocate(n), bytes: 0 }));
  const tables = new Map<string, Placed>();
  const words = (w: readonly number[]): Placed => {
    const key = w.join();
    const known = tables.get(key) ?? upload(Uint32Array.from(w, (x) => x >>> 0) as unknown as Bits);
    tables.set(key, known);
    return known;
  };
  const begin = (into: CommandStream): void => {
    for (const [output, input] of kernel.bases ?? (kernel.base === undefined ? [] : [[0, kernel.base] as const])) {
      const from = (places[input] as Placed[])[0] as Placed;
      const to = outPlaces[output] as Placed;
      into.copy({ buffer: from.memory.buffer, offset: from.memory.offset, bytes: to.memory.bytes }, { buffer: to.memory.buffer, offset: to.memory.offset, bytes: to.memory.bytes });
    }
  };
  const encode = (into: CommandStream, copy: number): void => {
    const place = (p: { of: string; index: number; bytes: number }): Placed => {
      const list = places[p.index] as Placed[];
      const m = (p.of === "input" ? list[copy % list.length] : p.of === "output" ? outPlaces[p.index] : scratch[p.index]) as Placed;
      const view = p.of === "input" ? views[p.index] : undefined;
      return { memory: m.memory, bytes: m.bytes + (view ? view.offset * view.dtype.size : 0) + p.bytes };
    };
    encodeLaunch(into, d.pipelines, launch, place, words, kernel.name);
  };
  const dispose = (): void => {
    for (const m of [...places.flat(), ...outPlaces, ...scratch, ...tables.values()]) memory.free(m.memory);
    memory.trim();
  };
  return { kernel, launch, views, outputs, blocks, memory, encode, begin, outPlaces, copies, dispose };
}

/** Runs one launch and gives the elements of its outputs. */
function runOnce(d: BenchDevice, r: Ready, copy: number): ArrayLike<number>[] {
  const stream = new CommandStream();
  // Outputs begin as NaN or large numbers, so that an element that is not written is found.
  for (const o of r.outPlaces) stream.fill({ buffer: o.memory.buffer, offset: o.memory.offset, bytes: o.memory.bytes }, 0x7fc17fc1);
  r.begin(stream);
  r.encode(stream, copy);
  const downs = r.outPlaces.map((o) => {
    const down = r.memory.allocate(o.memory.bytes, 2);
    const target = { buffer: down.buffer, offset: down.offset, bytes: o.memory.bytes };
    stream.copy({ buffer: o.memory.buffer, offset: o.memory.offset, bytes: o.memory.bytes }, target);
    stream.hostReads([target]);
    return down;
  });
  d.addon.waitSync(d.addon.submit(stream.words, stream.length));
  return downs.map((down, i) => {
    const { dtype, size } = r.outputs[i] as View;
    const bits = new bitsArray[dtype.name](size) as unknown as Bits;
    d.addon.readBuffer(down.buffer, down.offset, bits);
    r.memory.free(down);
    return numbersOf(dtype, bits);
  });
}

function compare(what: string, got: number, want: number, { relative, absolute }: GpuCase["tolerance"]): void {
  if (Object.is(got, want) || got === want || (Number.isNaN(got) && Number.isNaN(want))) return;
  if (!(Math.abs(got - want) <= absolute + relative * Math.abs(want))) throw new Error(`${what} is ${got}, expected ${want}`);
}

/** Compares all elements of the case, or of its smaller one, with the op's reference. */
function checkAll(d: BenchDevice, kernel: GpuKernel, c: GpuCase): void {
  const small = { op: c.op, inputs: c.check?.inputs ?? c.inputs, params: c.check?.params ?? c.params };
  const op = opNamed(c.op);
  const avals = small.inputs.map(({ shape, dtype }) => ({ shape, dtype }));
  const outputs = op.infer(avals, small.params);
  const r = prepare(d, kernel, small, false);
  try {
    const numbers = r.blocks.map((b, i) => elementsOf(r.views[i] as View, numbersOf((r.views[i] as View).dtype, b)));
    const want = op.reference?.(numbers, avals, small.params, outputs);
    if (!want) throw new Error(`${c.op} has no reference`);
    runOnce(d, r, 0).forEach((g, i) => {
      const w = want[i] as Float64Array;
      for (let j = 0; j < w.length; j++) compare(`${c.name}, ${kernel.name}: output ${i}[${j}]`, g[j] as number, w[j] as number, c.tolerance);
    });
  } finally {
    r.dispose();
  }
}
/** Compares elements all over the full size: the first, the last, and 61 between at odd distances. */
function checkSamples(d: BenchDevice, r: Ready, c: GpuCase): void {
  const { expected } = c;
  if (!expected) return;
  const numbers = r.blocks.map((b, i) => numbersOf((r.views[i] as View).dtype, b));
  const got = runOnce(d, r, r.copies - 1)[0] as ArrayLike<number>;
  for (let s = 0; s <= 62; s++) {
    const at = Math.floor(((got.length - 1) * s) / 62);
    compare(`${c.name}, ${r.kernel.name}: output 0[${at}]`, got[at] as number, expected(numbers, at), c.tolerance);
  }
}

// ---- timing

export interface TimingOptions {
  /** Replays that are timed. */
  readonly samples: number;
  /** Wanted length of one replay, in milliseconds. */
  readonly replayMs: number;
  /** Compare with references first. */
  readonly check: boolean;
}

/** Times one replay of `count` launches: [device, host] microseconds of one launch. */
function replayOnce(d: BenchDevice, commands: number, count: number): [number, number] {
  const times = new Float64Array(2);
  const start = performance.now();
  d.addon.waitSync(d.addon.replay(commands));
  const wall = ((performance.now() - start) * 1000) / count;
  if (d.info.limits.timestampPeriod === 0) return [wall, wall];
  d.addon.timestamps(0, 2, times);
  return [(times[1] as number) / 1000 / count, wall];
}
function record(d: BenchDevice, r: Ready, count: number): number {
  const stream = new CommandStream();
  const clock = d.info.limits.timestampPeriod > 0;
  if (clock) stream.timestamp(0);
  // Every launch writes the same output, so the stream puts a barrier between them.
  for (let i = 0; i < count; i++) r.encode(stream, i);
  if (clock) stream.timestamp(1);
  return d.addon.record(stream.words, stream.length);
}

function time(d: BenchDevice, r: Ready, options: TimingOptions): { us: Summary; wallUs: number; launches: number } {
  const first = record(d, r, 4);
  replayOnce(d, first, 4);
  const guess = Math.max(0.5, replayOnce(d, first, 4)[0]);
  d.addon.freeCommands(first);
  const launches = Math.max(2, Math.min(4000, Math.ceil((options.replayMs * 1000) / guess)));
  const commands = record(d, r, launches);
  try {
    // The clock of an idle device is low: it needs a moment to rise.
    for (let i = 0; i < 3; i++) replayOnce(d, commands, launches);
    const samples = Array.from({ length: options.samples }, () => replayOnce(d, commands, launches));
    return { us: summarize(samples.map((s) => s[0])), wallUs: summarize(samples.map((s) => s[1])).median, launches };
  } finally {
    d.addon.freeCommands(commands);
  }
}

/** Checks and measures a case with each of its kernels. */
export function measureCase(d: BenchDevice, c: GpuCase, options: TimingOptions): { results: GpuResult[]; refusals: string[] } {
  const { kernels, refusals } = openKernels(d, c);
  const results = kernels.map((kernel): GpuResult => {
    if (options.check) checkAll(d, kernel, c);
    // A software rasterizer has no memory of its own that could be cold.
    const r = prepare(d, kernel, c, d.info.type !== 4);
    try {
      if (options.check) checkSamples(d, r, c);
      const t = time(d, r, options);
      const seconds = t.us.median * 1e-6;
      return {
        name: c.name, kernel: kernel.name, ...t, copies: r.copies,
        ...(c.bytes === undefined ? {} : { gbPerSecond: c.bytes / seconds / 1e9 }),
        ...(c.flops === undefined ? {} : { gflops: c.flops / seconds / 1e9 }),
      };
    } finally {
      r.dispose();
    }
  });
  return { results, refusals };
}
