/** What the rules of function transforms see of one application of an op. Rules stand in the op's record and make arrays out of other ops. */
import type { MxArray } from "./array.ts";

/**
 * Says that an op has no rule of a kind, and why. Every op states each of its rules, so none is left out by mistake; the reason is part of the error when the rule is
 * asked for, and of the table of what is there.
 */
export interface NoRule {
  readonly none: string;
}
export const noRule = (reason: string): NoRule => ({ none: reason });
/** MLX has no derivative of the op either. */
export const notDifferentiable = noRule("not differentiable, as in MLX");
export const isMissing = (rule: unknown): rule is NoRule => typeof rule === "object" && rule !== null && "none" in rule;

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

/**
 * Cotangents of the inputs from those of the outputs. Partial derivatives for elementwise ops. `zero`: the results are constant almost everywhere, so nothing flows;
 * `composite`: by the rules of the op's definition.
 */
export type ReverseRule<P> = ((r: Reverse<P>) => readonly (MxArray | undefined)[]) | Partials<P> | "composite" | "zero" | NoRule;
/** Tangents of the outputs from those of the inputs. `linear`: the op applied to the tangents; `vjp`: by partials, or by transposing the reverse rule. */
export type ForwardRule<P> = ((f: Forward<P>) => readonly (MxArray | undefined)[]) | "linear" | "vjp" | "composite" | "zero" | NoRule;
/**
 * The op for every element of axis 0 of the batched inputs; outputs have the batch in axis 0. `elementwise`: ranks are aligned; `leading`: the op takes any dimensions
 * in front of those it works on, the same for all inputs, so all inputs get the batch there. A rule may give undefined: then the op's definition is batched.
 */
export type BatchRule<P> = ((b: Batching<P>) => readonly MxArray[] | undefined) | "elementwise" | "leading" | "composite" | NoRule;
