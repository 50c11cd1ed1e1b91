/**
 * One GPU kernel alone, without the scheduler: operands between guard bytes, outputs poisoned, the result against the op's float64 reference.
 * `testKernel` is what the kernel tests of each family use.
 */
import { expect } from "vitest";
import type { BufferKind } from "../../src/backend/vulkan/addon.ts";
import { gpuDevice } from "../../src/backend/vulkan/device.ts";
import { CommandStream } from "../../src/backend/vulkan/commands.ts";
import { type Placed, encodeLaunch } from "../../src/backend/vulkan/encode.ts";
import type { Allocation } from "../../src/backend/vulkan/memory.ts";
import type { View } from "../../src/core/array.ts";
import { type Dtype, bitsArray } from "../../src/core/dtype.ts";
import { type GpuDevice, type GpuFeature, type GpuKernel, missingFeature } from "../../src/core/gpu.ts";
import { shaderCode } from "../../src/backend/vulkan/shaders.ts";
import { type Op, ops } from "../../src/core/op.ts";
import { isContiguous, rowStrides, sizeOf } from "../../src/core/shape.ts";
import { decode, encode } from "./group.ts";
import { type TestDevice, testMemory } from "./vulkan.ts";

export { gpuDevice };

/** An operand: values of a dense block, and how the view lies in it (default: row-major over all of it). */
export interface TestArray {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Values of the whole block, in its order; rounded to the dtype. */
  readonly values: ArrayLike<number>;
  readonly strides?: readonly number[];
  readonly offset?: number;
}
export const viewOf = (a: { dtype: Dtype; shape: readonly number[]; strides?: readonly number[]; offset?: number }): View => {
  const shape = a.shape.slice();
  const strides = (a.strides ?? rowStrides(shape)).slice();
  return { shape, dtype: a.dtype, strides, offset: a.offset ?? 0, size: sizeOf(shape), contiguous: isContiguous(shape, strides) };
};

const guard = 256;
const poison = 0xa5;

/** Elements of the view, row-major, as numbers. */
export function elementsOf(a: TestArray): Float64Array {
  const v = viewOf(a);
  const block = decode(a.dtype, encode(a.dtype, Array.from(a.values)));
  const out = new Float64Array(v.size);
  const index = new Array<number>(v.shape.length).fill(0);
  for (let i = 0; i < v.size; i++) {
    let at = v.offset;
    for (let d = 0; d < index.length; d++) at += (index[d] as number) * (v.strides[d] as number);
    out[i] = Number(block[at]);
    for (let d = index.length - 1; d >= 0; d--) {
      index[d] = (index[d] as number) + 1;
      if ((index[d] as number) < (v.shape[d] as number)) break;
      index[d] = 0;
    }
  }
  return out;
}

/** Memory of one run, which is given back when it ends. */
interface RunMemory {
  readonly allocate: (bytes: number, kind?: BufferKind) => Allocation;
}
function withMemory<R>(device: TestDevice, work: (memory: RunMemory) => R): R {
  const memory = testMemory(device);
  const held: Allocation[] = [];
  try {
    return work({
      allocate: (bytes, kind) => {
        const m = memory.allocate(bytes, kind);
        held.push(m);
        return m;
      },
    });
  } finally {
    for (const m of held) memory.free(m);
  }
}

/** Runs a kernel's launch on the device; returns each output's elements. Throws when the gate refuses or a guard byte changed. Outputs with a base begin as the elements of that input. */
export function runKernel<P extends object>(device: TestDevice, kernel: GpuKernel<P>, inputs: readonly TestArray[], outputs: readonly { dtype: Dtype; shape: readonly number[] }[], params: P): Float64Array[] {
  return withMemory(device, (memory) => runIn(memory, device, kernel, inputs, outputs, params));
}
function runIn<P extends object>(memory: RunMemory, device: TestDevice, kernel: GpuKernel<P>, inputs: readonly TestArray[], outputs: readonly { dtype: Dtype; shape: readonly number[] }[], params: P): Float64Array[] {
  const { addon, pipelines, info } = device;
  const gpu = gpuDevice(info);
  const views = inputs.map(viewOf);
  const outs = outputs.map(viewOf);
  const missing = missingFeature(kernel.gate, views, gpu.features);
  if (missing !== undefined) throw new Error(`needs ${missing}`);
  const refusal = kernel.gate?.refuse?.(views, params, outs, gpu);
  if (refusal !== undefined) throw new Error(`refused: ${refusal}`);
  const launch = kernel.launch(views, outs, params, gpu);
  const stream = new CommandStream({ debug: true });
  const place = (bytes: number, content?: Uint8Array): Placed => {
    const m = memory.allocate(bytes + 2 * guard);
    const up = memory.allocate(m.bytes, 1);
    const all = new Uint8Array(m.bytes).fill(poison);
    if (content) all.set(content, guard);
    addon.writeBuffer(up.buffer, up.offset, all);
    stream.copy({ buffer: up.buffer, offset: up.offset, bytes: m.bytes }, { buffer: m.buffer, offset: m.offset, bytes: m.bytes });
    return { memory: m, bytes: guard };
  };
  const bytesOf = (values: ArrayLike<number>, dtype: Dtype): Uint8Array => {
    const bits = encode(dtype, Array.from(values));
    return new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
  };
  const ins = inputs.map((a) => place(bytesOf(a.values, a.dtype).length, bytesOf(a.values, a.dtype)));
  const bases = new Map(kernel.bases ?? (kernel.base === undefined ? [] : [[0, kernel.base] as const]));
  const outPlaces = outs.map((o, i) => {
    const base = bases.get(i);
    return place(o.size * o.dtype.size, base === undefined ? undefined : bytesOf(elementsOf(inputs[base] as TestArray), o.dtype));
  });
  const scratch = (launch.scratch ?? []).map((n) => place(n));
  const words = (w: readonly number[]): Placed => place(4 * w.length, new Uint8Array(Uint32Array.from(w, (x) => x >>> 0).buffer));
  encodeLaunch(
    stream,
    pipelines,
    launch,
    (p) => {
      const m = (p.of === "input" ? ins : p.of === "output" ? outPlaces : scratch)[p.index] as Placed;
      const view = p.of === "input" ? views[p.index] : p.of === "output" ? outs[p.index] : undefined;
      return { memory: m.memory, bytes: m.bytes + (view ? view.offset * view.dtype.size : 0) + p.bytes };
    },
    words,
    kernel.name,
  );
  const backs = [...outPlaces, ...scratch].map((p) => {
    const down = memory.allocate(p.memory.bytes, 2);
    const target = { buffer: down.buffer, offset: down.offset, bytes: p.memory.bytes };
    stream.copy({ buffer: p.memory.buffer, offset: p.memory.offset, bytes: p.memory.bytes }, target);
    stream.hostReads([target]);
    return down;
  });
  expect(stream.hazards()).toEqual([]);
  addon.waitSync(addon.submit(stream.words, stream.length));
  const results: Float64Array[] = [];
  backs.forEach((down, i) => {
    const all = new Uint8Array(down.bytes);
    addon.readBuffer(down.buffer, down.offset, all);
    const used = i < outs.length ? (outs[i] as View).size * (outs[i] as View).dtype.size : (launch.scratch?.[i - outs.length] as number);
    for (let b = 0; b < guard; b++) if (all[b] !== poison || (i < outs.length && all[guard + used + b] !== poison)) throw new Error(`${kernel.name}: bytes outside of ${i < outs.length ? "output" : "scratch"} ${i} were written`);
    if (i >= outs.length) return;
    const { dtype, size } = outs[i] as View;
    const Bits = bitsArray[dtype.name];
    const bits = new Bits(all.slice(guard, guard + used).buffer as ArrayBuffer);
    results.push(Float64Array.from(decode(dtype, bits as never) as ArrayLike<number>, Number).subarray(0, size));
  });
  return results;
}

export const opNamed = (name: string): Op => {
  const op = ops.get(name);
  if (!op) throw new Error(`no op ${name}`);
  return op;
};

/** Features by the capabilities of SPIR-V that stand for them (the specification's numbers). */
const capabilities: Readonly<Record<number, GpuFeature>> = {
  9: "shaderFloat16", 10: "shaderFloat64", 11: "shaderInt64", 22: "shaderInt16", 39: "shaderInt8", 4433: "storageBuffer16BitAccess", 4448: "storageBuffer8BitAccess",
  5116: "bfloat16", 5345: "vulkanMemoryModel", 6019: "shaderIntegerDotProduct", 6022: "cooperativeMatrix",
};
function declared(code: Uint32Array): GpuFeature[] {
  const found: GpuFeature[] = [];
  // Capabilities (opcode 17) come first.
  for (let at = 5; ((code[at] as number) & 0xffff) === 17; at += 2) found.push(capabilities[code[at + 1] as number] as GpuFeature);
  return found.filter((f) => f !== undefined);
}
/** The gate must demand what the shaders of a launch declare, and float16 arithmetic only where they do. */
function checkFeatures<P extends object>(kernel: GpuKernel<P>, views: readonly View[], outs: readonly View[], params: P, gpu: GpuDevice): void {
  const without = (f: GpuFeature): GpuDevice => ({ ...gpu, features: { ...gpu.features, [f]: false } });
  const demanded = (f: GpuFeature): boolean => missingFeature(kernel.gate, views, without(f).features) !== undefined || kernel.gate?.refuse?.(views, params, outs, without(f))?.startsWith("cannot:") === true;
  const shaders = kernel.launch(views, outs, params, gpu).steps.map((s) => s.shader).filter((s) => typeof s === "string");
  const needed = new Set(shaders.flatMap((s) => declared(shaderCode(s))));
  for (const f of needed) if (!demanded(f)) throw new Error(`${kernel.name}: the gate does not demand ${f}, which ${shaders.join(", ")} declares`);
  if (!needed.has("shaderFloat16") && demanded("shaderFloat16")) throw new Error(`${kernel.name}: the gate demands shaderFloat16, which ${shaders.join(", ")} do not need`);
}

/** Runs every GPU kernel of an op whose gate opens (or the one named) and compares with the op's reference: |got - want| <= absolute + relative * |want|. Returns the kernels that ran. */
export function testKernel(device: TestDevice, opName: string, inputs: readonly TestArray[], params: object, tolerance: { relative: number; absolute: number }, only?: string): string[] {
  const op = opNamed(opName);
  const avals = inputs.map((a) => ({ shape: a.shape, dtype: a.dtype }));
  const outputs = op.infer(avals, params);
  const want = op.reference?.(inputs.map(elementsOf), avals, params, outputs);
  if (!want) throw new Error(`${opName} has no reference`);
  const ran: string[] = [];
  for (const kernel of op.gpu ?? []) {
    if (only !== undefined && kernel.name !== only) continue;
    const views = inputs.map(viewOf);
    const why = kernel.gate?.refuse?.(views, params, outputs.map(viewOf), gpuDevice(device.info));
    if (missingFeature(kernel.gate, views, gpuDevice(device.info).features) !== undefined || why?.startsWith("cannot:")) continue;
    checkFeatures(kernel, views, outputs.map(viewOf), params, gpuDevice(device.info));
    const open = { ...kernel, gate: {} };
    const got = runKernel(device, open, inputs, outputs, params);
    got.forEach((g, i) => {
      const w = want[i] as Float64Array;
      expect(g.length).toBe(w.length);
      for (let j = 0; j < w.length; j++) {
        const [x, y] = [g[j] as number, w[j] as number];
        if (Object.is(x, y) || x === y || (Number.isNaN(x) && Number.isNaN(y))) continue;
        const error = Math.abs(x - y);
        if (!(error <= tolerance.absolute + tolerance.relative * Math.abs(y))) throw new Error(`${kernel.name}: output ${i}[${j}] is ${x}, expected ${y} (${JSON.stringify({ params, shapes: inputs.map((a) => a.shape) })})`);
      }
    });
    ran.push(kernel.name);
  }
  return ran;
}
