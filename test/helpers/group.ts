/** Runs generated elementwise kernels on one thread over plain memory, with guard bytes around every array. */
import { type Group, elementwiseLaunch } from "../../src/codegen/elementwise.ts";
import { type Dtype, bitsArray, fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "../../src/core/dtype.ts";
import { type Value, expr } from "../../src/core/expr.ts";
import type { GeneratedKernel } from "../../src/core/op.ts";

const memory = new WebAssembly.Memory({ initial: 256, maximum: 65536, shared: true });
const compiled = new Map<string, (a: number, begin: number, end: number) => void>();
const guard = 64;
const poison = 0xaa;
const argumentsAt = 1024;

/** Bits of numbers in a dtype. 64-bit integers may be given as bigint. */
export function encode(dtype: Dtype, values: readonly (number | bigint)[]): InstanceType<(typeof bitsArray)["float32"]> {
  const Bits = bitsArray[dtype.name];
  const out = new Bits(values.length) as unknown as { [i: number]: number | bigint };
  values.forEach((x, i) => {
    if (dtype.size === 8 && dtype.isInteger) out[i] = BigInt(x);
    else if (dtype.name === "bfloat16") out[i] = toBfloat16Bits(Number(x));
    else if (dtype.name === "float16") out[i] = toFloat16Bits(Number(x));
    else out[i] = Number(x);
  });
  return out as never;
}
export function decode(dtype: Dtype, bits: ArrayLike<number | bigint>): (number | bigint)[] {
  return Array.from(bits, (b) => (dtype.name === "bfloat16" ? fromBfloat16Bits(Number(b)) : dtype.name === "float16" ? fromFloat16Bits(Number(b)) : b));
}

export interface TestInput {
  readonly dtype: Dtype;
  readonly strides: readonly number[];
  /** All elements that the strides can reach. */
  readonly data: ArrayLike<number> & { readonly buffer: ArrayBufferLike; readonly byteOffset: number; readonly byteLength: number };
  /** Index of the first element. */
  readonly offset?: number;
}

/**
 * Runs a group, each call of the kernel taking `step` units, and gives the bits of each output. Throws when a byte beside an output
 * changed. `last` is the number of the operand (inputs, then outputs) that ends at the last byte of the memory, so that any access
 * beyond it traps. `over`: output 0 lies over this input.
 */
export function runGroup(shape: readonly number[], inputs: readonly TestInput[], outputs: readonly { dtype: Dtype; value: Value }[], options: { step?: number; last?: number; over?: number } = {}) {
  const group: Group = { shape, inputs, outputs, expr };
  const { entry, args, units } = elementwiseLaunch(group).steps[0] as { entry: GeneratedKernel; args: readonly unknown[]; units: number };
  let kernel = compiled.get(entry.key);
  if (!kernel) {
    kernel = new WebAssembly.Instance(new WebAssembly.Module(entry.bytes()), { env: { memory } }).exports.k as never;
    compiled.set(entry.key, kernel as never);
  }
  const size = shape.reduce((a, b) => a * b, 1);
  const operandBytes = [...inputs.map((x) => x.data.byteLength), ...outputs.map((o) => size * o.dtype.size)];
  const bytes = operandBytes.reduce((a, b) => a + b + 2 * guard + 64, 65536);
  if (bytes > memory.buffer.byteLength / 2) memory.grow(Math.ceil((2 * bytes - memory.buffer.byteLength) / 65536));
  const all = new Uint8Array(memory.buffer);
  let top = 65536;
  const places = operandBytes.map((n, i) => {
    if (i === options.last) return memory.buffer.byteLength - n;
    const at = (top + guard + 63) & ~63;
    top = at + n + guard;
    return at;
  });
  all.fill(poison, 65536, top);
  if (options.over !== undefined) places[inputs.length] = places[options.over] as number;
  const firstOutput = inputs.length;
  outputs.forEach((o, j) => {
    const at = places[firstOutput + j] as number;
    all.fill(poison, at - guard, at + size * o.dtype.size);
  });
  inputs.forEach((x, i) => {
    all.set(new Uint8Array(x.data.buffer, x.data.byteOffset, x.data.byteLength), places[i] as number);
  });
  const view = new DataView(memory.buffer);
  args.forEach((a, i) => {
    const p = a as { of: string; index: number };
    const word = typeof a === "number" ? a : p.of === "input" ? (places[p.index] as number) + (inputs[p.index]?.offset ?? 0) * (inputs[p.index]?.dtype.size ?? 0) : (places[firstOutput + p.index] as number);
    view.setUint32(argumentsAt + 4 * i, word, true);
  });
  const step = options.step ?? units;
  for (let u = 0; u < units; u += step) kernel?.(argumentsAt, u, Math.min(u + step, units));
  return outputs.map((o, j) => {
    const at = places[firstOutput + j] as number;
    const n = size * o.dtype.size;
    for (const g of [...all.slice(at - guard, at), ...all.slice(at + n, at + n + guard)]) if (g !== poison && options.over === undefined) throw new Error(`kernel ${entry.key} wrote outside output ${j}`);
    const Bits = bitsArray[o.dtype.name];
    return new Bits(all.slice(at, at + n).buffer as ArrayBuffer);
  });
}
