/** Parameters and sizes of attention, for the kernels of both devices. */
import type { Aval } from "../core/array.ts";

export interface AttentionParams {
  readonly scale: number;
  /** "array": input 3 is an additive or a bool mask. */
  readonly mask: "none" | "causal" | "array";
  /** Input 3 holds the number of keys that count, an int32 read when the kernel runs. Without mask only. */
  readonly length: boolean;
  /** The last input holds one sink per query head. */
  readonly sinks: boolean;
}
/** Sizes by the names of the docs: q [B, H, Tq, D], k [B, Hkv, Tk, D], v [B, Hkv, Tk, Dv], H = Hkv * G. */
export interface Sizes {
  B: number;
  H: number;
  Hkv: number;
  G: number;
  Tq: number;
  Tk: number;
  D: number;
  Dv: number;
}
export function sizesOf([q, k, v]: readonly Aval[]): Sizes {
  const [B, H, Tq, D] = (q as Aval).shape as [number, number, number, number];
  const [, Hkv, Tk] = (k as Aval).shape as [number, number, number];
  return { B, H, Hkv, G: H / Hkv, Tq, Tk, D, Dv: (v as Aval).shape[3] as number };
}
