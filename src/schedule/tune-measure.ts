/** One node's work, run again and again by different kernels on scratch outputs: times and results. */
import { ArrayDesc, type View, readBits, releaseDesc } from "../core/array.ts";
import { bool, float32, fromBfloat16Bits, fromFloat16Bits } from "../core/dtype.ts";
import type { GpuKernel, GpuLaunch } from "../core/gpu.ts";
import { type Choices, type Kernel, type Launch, type Node, input, output } from "../core/op.ts";
import { Storage, hostMemory } from "../core/storage.ts";
import { setVulkanProfiler } from "../backend/vulkan/index.ts";
import { wasmBackend } from "../backend/wasm/index.ts";
import { storeNumbers } from "../ops/convert.ts";
import { copyOp, fillStep } from "../ops/copy.ts";
import { gpuFill } from "../ops/creation-gpu.ts";
import { type Switches, routeGpu, satisfies } from "./gate.ts";
import { type Kept, Recorder, releaseKept } from "./record.ts";
import { GpuRecorder } from "./record-gpu.ts";

/** A node with operands that are there: its own, or others in their place. */
export interface Subject {
  readonly node: Node;
  readonly inputs: readonly ArrayDesc[];
  readonly outputs: readonly ArrayDesc[];
}
/** A kernel with parameters, ready to run. */
export interface Prepared {
  /** Equal for equal work. */
  readonly work: string;
  /** Runs it once; milliseconds. */
  run(): number;
  dispose(): void;
}
export interface Bench<K> {
  /** Runs a kernel for the first time. Undefined when it can not be made. */
  prepare(kernel: K, choices: Choices): Prepared | undefined;
  dispose(): void;
}

// ---- operands

/** Most bytes of one stand-in. */
const mostBytes = 512 << 20;
const patternLength = 65521;
let pattern: Float32Array | undefined;
/** Numbers between -1.7 and 1.7 with mean 0 and variance 1, the same each time. */
function noise(): Float32Array {
  if (pattern) return pattern;
  let state = 1;
  pattern = Float32Array.from({ length: patternLength }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * Math.sqrt(3);
  });
  return pattern;
}
function filled(d: ArrayDesc): ArrayDesc | undefined {
  const { dtype, size } = d;
  if (size * dtype.size > mostBytes || !(dtype === bool || dtype.kind === "float")) return undefined;
  const out = ArrayDesc.fresh(d.shape, dtype);
  const bytes = hostMemory().bytes(out.address, size * dtype.size);
  const values = noise();
  const first = Math.min(size, patternLength);
  storeNumbers(bytes, dtype, first, (i) => (dtype === bool ? 1 : (values[i] as number)));
  for (let done = first * dtype.size; done < bytes.length; done *= 2) bytes.copyWithin(done, 0, Math.min(done, bytes.length - done));
  return out;
}
/**
 * An array in the place of one that may not be computed yet: of the same shape, dtype and layout, with noise in it. Undefined for integers, which may be indices. What is
 * made goes to `made`.
 */
function standIn(d: ArrayDesc, made: ArrayDesc[], depth = 0): ArrayDesc | undefined {
  if (d.storage) {
    d.epoch?.wait();
    return d;
  }
  if (d.scalar !== undefined || !d.node) return d.scalar === undefined ? undefined : d;
  const { op, params, inputs } = d.node;
  const source = op.view && depth < 64 ? standIn(inputs[0] as ArrayDesc, made, depth + 1) : undefined;
  const layout = source?.storage && op.view?.(source, params);
  let out: ArrayDesc | undefined;
  if (source?.storage && layout) {
    out = ArrayDesc.lazy(d.shape, d.dtype);
    out.place(source.storage, layout.strides, layout.offset);
  } else out = filled(d);
  if (out) made.push(out);
  return out;
}
/** The node with operands to measure on; the function gives them back. Undefined when there can be none. */
export function subjectOf(node: Node): { subject: Subject; release: () => void } | undefined {
  const made: ArrayDesc[] = [];
  const release = (): void => made.forEach(releaseDesc);
  const inputs: ArrayDesc[] = [];
  for (const d of node.inputs) {
    const s = standIn(d, made);
    if (!s) {
      release();
      return undefined;
    }
    inputs.push(s);
  }
  const outputs = node.outputs.map((o) => ArrayDesc.lazy(o.shape, o.dtype));
  made.push(...outputs);
  return { subject: { node, inputs, outputs }, release };
}

// ---- results

const mostCompared = 1 << 22;
/** Values of an output: all of them, or of a large one evenly many. */
function valuesOf(d: ArrayDesc): Float64Array {
  const bits = readBits(d);
  const step = bits.length <= mostCompared ? 1 : Math.ceil(bits.length / mostCompared) | 1;
  const { name } = d.dtype;
  const decode = name === "bfloat16" ? fromBfloat16Bits : name === "float16" ? fromFloat16Bits : Number;
  return Float64Array.from({ length: Math.ceil(bits.length / step) }, (_, i) => decode(bits[i * step] as number));
}
export const resultsOf = ({ outputs }: Subject): Float64Array[] => outputs.map(valuesOf);
/** Overwrites the outputs, so that what a kernel leaves out shows. */
export function poison({ outputs }: Subject): void {
  for (const { storage } of outputs) storage?.write(0, new Uint8Array(storage.bytes).fill(0xff));
}

/** Largest difference that a sum in another order makes, with respect to the largest value. */
export const tolerance: Readonly<Record<string, number>> = { float64: 1e-10, float32: 1e-4, complex64: 1e-4, bfloat16: 2e-2, float16: 4e-3 };
/** The first difference between results that is more than rounding, in words. */
export function difference({ outputs }: Subject, got: readonly Float64Array[], want: readonly Float64Array[]): string | undefined {
  for (const [o, w] of want.entries()) {
    const g = got[o] as Float64Array;
    const allowed = tolerance[outputs[o]?.dtype.name ?? ""] ?? 0;
    let scale = 0;
    for (const x of w) if (Number.isFinite(x) && Math.abs(x) > scale) scale = Math.abs(x);
    for (let i = 0; i < w.length; i++) {
      const [a, b] = [g[i] as number, w[i] as number];
      if (a !== b && !(Number.isNaN(a) && Number.isNaN(b)) && !(Math.abs(a - b) <= allowed * scale)) return `value ${i} is ${a}, not ${b}`;
    }
  }
  return undefined;
}

// ---- runs

const bytesOf = (d: View): number => d.size * d.dtype.size;
/** Operands from this size on are measured as they come in real work, from memory: what was read before is pushed out of the caches. */
const coldBytes = 1 << 20;
const isCold = ({ inputs }: Subject): boolean => inputs.reduce((n, d) => n + bytesOf(d), 0) >= coldBytes;
/** Milliseconds, and runs, before the first sample on the CPU: an engine compiles better what has run for a while. */
const warmUp = { ms: 3, runs: 100 };
/** Shorter work is run several times for one sample, in milliseconds. */
const leastSample = 0.2;

/** Inputs in the layout that a kernel wants, and those of them that are copies. */
function arranged(kernel: Kernel | GpuKernel, { node, inputs }: Subject): { operands: ArrayDesc[]; copies: [from: ArrayDesc, to: ArrayDesc][] } {
  const layouts = typeof kernel.layout === "function" ? kernel.layout(inputs, node.params) : kernel.layout;
  const copies: [ArrayDesc, ArrayDesc][] = [];
  const operands = inputs.map((d, i) => {
    if (satisfies(d, layouts ? (layouts[Math.min(i, layouts.length - 1)] ?? "row") : "row")) return d;
    const copy = ArrayDesc.lazy(d.shape, d.dtype);
    copies.push([d, copy]);
    return copy;
  });
  return { operands, copies };
}
const workOf = (launch: Launch | GpuLaunch, copies: readonly unknown[]): string => `${copies.length} ${JSON.stringify(launch)}`;

const hostPushBytes = 64 << 20;
/** Commands of the CPU as a list that can run again. */
class HostList {
  readonly kept: Kept = { lists: [], storages: [], written: new Set(), refused: undefined };
  private readonly recorder = new Recorder(false, this.kept);
  launch(launch: Launch, inputs: readonly ArrayDesc[], outputs: readonly ArrayDesc[]): void {
    this.recorder.launch(launch, inputs, outputs);
  }
  /** Ends the recording and runs it. */
  close(): void {
    this.recorder.flush(true);
  }
  run(): void {
    for (const list of this.kept.lists) if ("start" in list) wasmBackend().pool.run(list);
  }
  dispose(): void {
    releaseKept(this.kept);
  }
}

export class HostBench implements Bench<Kernel> {
  private readonly subject: Subject;
  private readonly push: { list: HostList; to: ArrayDesc } | undefined;
  constructor(subject: Subject) {
    this.subject = subject;
    hostMemory().quiesce();
    for (const o of subject.outputs) o.attach(new Storage(bytesOf(o)));
    if (!isCold(subject)) return;
    const to = ArrayDesc.lazy([hostPushBytes / 4], float32);
    to.attach(new Storage(hostPushBytes));
    const list = new HostList();
    list.launch({ steps: [fillStep(output(0), input(0), 4, hostPushBytes)] }, [ArrayDesc.constant(0, float32)], [to]);
    list.close();
    this.push = { list, to };
  }
  prepare(kernel: Kernel, choices: Choices): Prepared {
    const { node, outputs } = this.subject;
    const { operands, copies } = arranged(kernel, this.subject);
    for (const [, to] of copies) to.attach(new Storage(bytesOf(to)));
    const list = new HostList();
    for (const [from, to] of copies) list.launch((copyOp.op.kernels[0] as Kernel).launch([from], [to], {}), [from], [to]);
    const launch = kernel.launch(operands, outputs, node.params, choices);
    list.launch(launch, operands, outputs);
    const start = performance.now();
    list.close();
    for (let i = 0; i < warmUp.runs && performance.now() - start < warmUp.ms; i++) list.run();
    return {
      work: workOf(launch, copies),
      run: () => this.time(list),
      dispose: () => {
        list.dispose();
        for (const [, to] of copies) releaseDesc(to);
      },
    };
  }
  private time(list: HostList): number {
    this.push?.list.run();
    const start = performance.now();
    list.run();
    const first = performance.now() - start;
    if (this.push || first >= leastSample) return first;
    const times = Math.min(64, Math.ceil(leastSample / Math.max(first, 1e-3)));
    const again = performance.now();
    for (let i = 0; i < times; i++) list.run();
    return (performance.now() - again) / times;
  }
  dispose(): void {
    this.push?.list.dispose();
    if (this.push) releaseDesc(this.push.to);
  }
}

/** Discrete GPUs have up to 100 MB of caches; others share the host's. */
const devicePushBytes = (type: number): number => (type === 2 ? 128 << 20 : 32 << 20);

export class DeviceBench implements Bench<GpuKernel> {
  private readonly subject: Subject;
  private readonly switches: Switches;
  private readonly recorder = new GpuRecorder();
  private readonly push: ArrayDesc | undefined;
  constructor(subject: Subject, switches: Switches) {
    this.subject = subject;
    this.switches = switches;
    const { recorder } = this;
    // What was recorded before has its own profile.
    recorder.backend.synchronize();
    for (const o of subject.outputs) o.attach(recorder.storage(bytesOf(o)));
    if (!isCold(subject)) return;
    const bytes = devicePushBytes(recorder.backend.info.type);
    const push = ArrayDesc.lazy([bytes / 4], float32);
    push.attach(recorder.storage(bytes));
    this.push = push;
  }
  prepare(kernel: GpuKernel, choices: Choices): Prepared | undefined {
    const recorder = this.recorder;
    const { node, outputs } = this.subject;
    const { device } = recorder.backend;
    const { operands, copies } = arranged(kernel, this.subject);
    for (const [, to] of copies) to.attach(recorder.storage(bytesOf(to)));
    const dispose = (): void => {
      for (const [, to] of copies) releaseDesc(to);
    };
    const moves = copies.map(([from, to]) => ({ from, to, kernel: routeGpu(copyOp.op, [from], {}, [to], this.switches, device, []) }));
    const launch = kernel.launch(operands, outputs, node.params, device, choices);
    if (moves.some((m) => !m.kernel) || recorder.backend.refusal(launch) !== undefined) {
      dispose();
      return undefined;
    }
    const record = (): void => {
      for (const { from, to, kernel: k } of moves) recorder.launch((k as GpuKernel).launch([from], [to], {}, device), [from], [to], (k as GpuKernel).name);
      recorder.launch(launch, operands, outputs, kernel.name);
    };
    record();
    recorder.flush();
    recorder.backend.synchronize();
    return { work: workOf(launch, copies), run: () => this.time(record), dispose };
  }
  /** By the device's clock, where it has one. */
  private time(record: () => void): number {
    const recorder = this.recorder;
    const { backend } = recorder;
    const { push } = this;
    if (push) {
      recorder.launch({ steps: [gpuFill(0, push)] }, [ArrayDesc.constant(0, float32)], [push], "vulkan/copy/full");
      recorder.flush();
    }
    backend.synchronize();
    let launches = 0;
    const nothing = (): void => {};
    const stamped = backend.info.limits.timestampPeriod > 0;
    const outer = setVulkanProfiler({
      launching: (stream) => {
        if (stamped && launches === 0) stream.timestamp(0);
      },
      launched: (stream) => {
        launches++;
        if (stamped) stream.timestamp(launches);
      },
      submitted: nothing, recorded: nothing, replayed: nothing, released: nothing,
    });
    const start = performance.now();
    try {
      record();
      recorder.flush();
      backend.synchronize();
    } finally {
      setVulkanProfiler(outer);
    }
    if (!stamped) return performance.now() - start;
    const stamps = new Float64Array(launches + 1);
    backend.addon.timestamps(0, launches + 1, stamps);
    return ((stamps[launches] as number) - (stamps[0] as number)) / 1e6;
  }
  dispose(): void {
    if (this.push) releaseDesc(this.push);
  }
}
