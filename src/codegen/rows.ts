/**
 * Row groups: elementwise ops around reductions of rows, computed by one kernel. A row is reduced by one formula after another, each of which may use the results
 * of those before it; outputs are elements of the same rows, or one element per row. Softmax is two reductions (max, sum of exp) and one output of elements.
 */
import type { Dtype } from "../core/dtype.ts";
import type { Expr, Value } from "../core/expr.ts";
import type { RowRule } from "../core/op.ts";
import { rowStrides } from "../core/shape.ts";
import type { GroupInput } from "./elementwise.ts";

export type { RowRule } from "../core/op.ts";

export interface RowReduce {
  readonly rule: RowRule;
  /** What is reduced: of the inputs, and of the results of the reductions before this one. */
  readonly value: Value;
  /** Type of the result, as later formulas read it. Sums of bfloat16 and float16 are accumulated in float32 and rounded to it once. */
  readonly dtype: Dtype;
  /** With the rule `pick`: number of the element whose value is the result. */
  readonly at?: Value;
}
export interface RowOutput {
  readonly dtype: Dtype;
  /** Of the inputs and of all reductions. With `perRow` of inputs whose last stride is 0 only, and of reductions. */
  readonly value: Value;
  /** One element per row; otherwise one per element. Row-major contiguous both. */
  readonly perRow: boolean;
}
export interface RowGroup {
  /** Rows by all dimensions but the last, which is the length of a row. A reduction of all elements has one row. */
  readonly shape: readonly number[];
  /** Number of the last dimensions that make up a row together, where that is not 1: inputs may then lie in any way within a row. */
  readonly rank?: number;
  /**
   * Set for reductions of other than the last dimensions: which dimension of the arrays each one of `shape` is. Rows are then columns of the arrays, and outputs of elements
   * are row-major contiguous in the arrays' own order.
   */
  readonly order?: readonly number[];
  /** Value number i is `expr.input(i, dtype)`. A last stride of 0: one element per row. */
  readonly inputs: readonly GroupInput[];
  /** Value number `inputs.length + k` is the result of reduction k. */
  readonly reduces: readonly RowReduce[];
  readonly outputs: readonly RowOutput[];
  /** Some of it is what a hand-written kernel computes with all its reductions (softmax, norms), so that less is saved than where each reduction is a pass. */
  readonly ownKernel?: boolean;
  /** The builder that holds the values. */
  readonly expr: Expr;
}

/** Strides of the arrays' elements over the group's shape. */
export function elementStrides({ shape, order = shape.map((_, i) => i) }: Pick<RowGroup, "shape" | "order">): number[] {
  const own: number[] = [];
  order.forEach((axis, d) => {
    own[axis] = shape[d] as number;
  });
  const strides = rowStrides(own);
  return order.map((axis) => strides[axis] as number);
}
