/** What the rules of function transforms see of one application of an op. Rules stand in the op's record and make arrays out of other ops. */
import type { MxArray } from "./array.ts";

interface Application<P> {
  readonly params: P;
  /** The op itself, on the same stream. */
  apply(inputs: readonly MxArray[], params: P): MxArray[];
}

/** For a reverse rule. */
export interface Reverse<P = object> extends Application<P> {
  readonly inputs: readonly MxArray[];
  readonly outputs: readonly MxArray[];
  /** One per output; zeros where nothing flows. */
  readonly cotangents: readonly MxArray[];
  /** Inputs whose cotangents are asked for. A rule may give more; undefined means zero. What is broadcast is summed, and cast, by the transform. */
  readonly needs: readonly boolean[];
}

/** For a forward rule. */
export interface Forward<P = object> extends Application<P> {
  readonly inputs: readonly MxArray[];
  readonly outputs: readonly MxArray[];
  /** One per input; undefined where it is zero. */
  readonly tangents: readonly (MxArray | undefined)[];
}

/** For a batching rule. */
export interface Batching<P = object> extends Application<P> {
  /** Batched inputs have the batch in axis 0. */
  readonly inputs: readonly MxArray[];
  readonly batched: readonly boolean[];
  /** Size of the batch. */
  readonly size: number;
  /** Input i with the batch in axis 0, repeated if it is not batched. */
  spread(i: number): MxArray;
}

/** Derivatives of an elementwise op by each input: arrays that broadcast to the output, or numbers. Undefined: zero. */
export interface Partials<P = object> {
  readonly partials: readonly (((inputs: readonly MxArray[], output: MxArray, params: P) => MxArray | number) | undefined)[];
}
