/** One thing to measure, and its data. */
import { type MxArray, readBits } from "../../src/core/array.ts";
import { fromBfloat16Bits, toBfloat16Bits } from "../../src/core/dtype.ts";
import { core as mx } from "../../src/index.ts";
import { randomStream } from "../models/synthetic.ts";

export interface KernelCase {
  readonly name: string;
  /** Floating-point operations, or bytes read and written, of one call. */
  readonly flops?: number;
  readonly bytes?: number;
  /** Also gives the time relative to that of a copy that moves as many bytes. */
  readonly besideCopy?: boolean;
  /** Makes the inputs; called when the case is selected. */
  prepare(): Prepared;
}
export interface Prepared {
  /** The lazy result of call number `i`. */
  run(i: number): MxArray;
  /** What element `at` of call 0 must be, in float64. */
  expected(at: number): number;
  /** Greatest error allowed, absolute. */
  readonly tolerance: number;
  dispose(): void;
}

/** Numbers uniform in -1 .. 1; exactly representable in bfloat16 if asked. */
export function floats(n: number, seed: number, dtype: "float32" | "bfloat16" = "float32"): Float32Array {
  const random = randomStream(seed);
  const out = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    const x = random() * 2 - 1;
    out[i] = dtype === "bfloat16" ? fromBfloat16Bits(toBfloat16Bits(x)) : x;
  }
  return out;
}

/** An evaluated array of these numbers. */
export function put(data: Float32Array, shape: readonly number[], dtype: "float32" | "bfloat16" = "float32"): MxArray {
  return mx.tidy(() => {
    const a = mx.reshape(mx.array(data), [...shape]).astype(mx[dtype]);
    mx.eval(a);
    return a;
  });
}

/** Throws unless elements all over the result are what they must be. */
export function check(name: string, p: Prepared): void {
  const y = mx.tidy(() => p.run(0).astype(mx.float32));
  const got = readBits(y.desc) as Float32Array;
  y.dispose();
  const random = randomStream(99);
  for (let i = 0; i < 64; i++) {
    const at = i === 0 ? 0 : i === 1 ? got.length - 1 : Math.floor(random() * got.length);
    const want = p.expected(at);
    if (!(Math.abs((got[at] as number) - want) <= p.tolerance)) throw new Error(`${name}: element ${at} is ${got[at]}, expected ${want} within ${p.tolerance}`);
  }
}

/** One call: builds the graph, computes it, gives the result back. */
export function call(p: Prepared, i: number): void {
  const y = p.run(i);
  mx.eval(y);
  y.dispose();
}

export const dot = (n: number, f: (k: number) => number): number => {
  let sum = 0;
  for (let k = 0; k < n; k++) sum += f(k);
  return sum;
};
