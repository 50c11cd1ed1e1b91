/** Samples of src/ops/unary.ts. */
import { bool } from "../../src/core/dtype.ts";
import type * as unary from "../../src/ops/unary.ts";
import { type Sample, type TensorOptions, tensor } from "../helpers/check.ts";
import { floatTypes, integerTypes, realTypes, unarySamples } from "./elementwise.ts";

const all = (range?: TensorOptions): Sample[] => unarySamples([...floatTypes, ...integerTypes, bool], range);
const wide: TensorOptions = { low: -30, high: 30 };
const positive: TensorOptions = { low: 1e-3, high: 50 };
const unit: TensorOptions = { low: -1, high: 1 };

export const samples: Record<keyof typeof unary, Sample[]> = {
  abs: all(), sign: all(), reciprocal: all(), square: all(), sqrt: all(positive), rsqrt: all(positive),
  negative: unarySamples([...floatTypes, ...integerTypes]),
  exp: all(), expm1: all(), log: all(positive), log2: all(positive), log10: all(positive), log1p: all({ low: -0.99, high: 3 }),
  sin: all(wide), cos: all(wide), tan: all(unit), arcsin: all(unit), arccos: all(unit), arctan: all(wide),
  sinh: all(), cosh: all(), tanh: all(), arcsinh: all(wide), arccosh: all({ low: 1, high: 40 }), arctanh: all(unit),
  erf: all(), erfinv: all({ low: -0.999, high: 0.999 }), sigmoid: all(wide),
  degrees: all(), radians: all(wide),
  floor: all(wide), ceil: all(wide),
  round: [
    ...all(wide),
    ...[1, 2, -1].map((decimals): Sample => ({ args: [tensor([50], { low: -300, high: 300 }), decimals] })),
    { args: [tensor([9], { dtype: integerTypes[2], low: -300, high: 300 }), -2] },
  ],
  isnan: all(), isinf: all(), isfinite: all(), isposinf: all(), isneginf: all(), logicalNot: all(),
  bitwiseInvert: unarySamples([...integerTypes, bool]),
  stopGradient: unarySamples(realTypes),
};
