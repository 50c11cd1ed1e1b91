/** Ops that are also methods of arrays: one table, typed by mapping, attached to the prototype once. */
import { MxArray, type ArrayDesc, readBits } from "../core/array.ts";
import type { Dtype, NumericArray } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type ScalarValue, formatArray, readValues } from "../core/print.ts";
import { argmax, argmin } from "./argreduce.ts";
import { astype } from "./cast.ts";
import { conj, imag, real } from "./complex.ts";
import { abs, cos, exp, log, log10, log1p, log2, reciprocal, round, rsqrt, sin, sqrt, square } from "./unary.ts";
import { power } from "./binary.ts";
import { diag } from "./creation.ts";
import { type ArrayAt, type ArrayIndex, at, indexArray, indexAssign } from "./array-index.ts";
import { diagonal, flatten, moveaxis, reshape, squeeze, swapaxes, transpose, view } from "./movement.ts";
import { split } from "./slice.ts";
import { all, any, max, mean, min, prod, std, sum, variance } from "./reduce.ts";
import { logsumexp } from "./softmax.ts";
import { cummax, cummin, cumprod, cumsum, logcumsumexp } from "./scan.ts";
import { type ArrayLike, toArray } from "./convert.ts";

const table = {
  abs, all, any, argmax, argmin, astype, conj, cos, cummax, cummin, cumprod, cumsum, diag, diagonal, exp, flatten, log, log10, log1p, log2,
  logcumsumexp, logsumexp, max, mean, min, moveaxis, power, prod, reciprocal, reshape, round, rsqrt, sin, split, sqrt, square, squeeze, std, sum,
  swapaxes, transpose, variance, view,
} as const;

type Rest<F> = F extends (a: infer _A, ...rest: infer R) => infer X ? (...rest: R) => X : never;
type Table = { [K in keyof typeof table]: Rest<(typeof table)[K]> };
export type NestedValues = ScalarValue | NestedValues[];

declare module "../core/array.ts" {
  interface MxArray extends Table {
    /** The transpose: all axes reversed. */
    readonly T: MxArray;
    /** Real and imaginary parts, of numbers that are not complex themselves and zeros. */
    readonly real: MxArray;
    readonly imag: MxArray;
    /** First dimension. TypeError for a 0-d array. */
    readonly length: number;
    /** The value of an array of size 1. Evaluates and waits. */
    item(): ScalarValue;
    /** Nested Arrays of the values; for a 0-d array the value. */
    tolist(): NestedValues;
    /** Copy of a 1-D array as the TypedArray of its dtype. TypeError for other ranks and for dtypes that have none. */
    toTypedArray(): NumericArray;
    /** Python's `a[i, j, ...]`. */
    index(...index: ArrayIndex[]): MxArray;
    /** Python's `a[i, j, ...] = value`: this object then stands for the new value. */
    indexPut_(index: ArrayIndex | ArrayIndex[], value: ArrayLike): void;
    /** `a.at(i).add(v)` and others: updates in which repeated indices all count. */
    at(...index: ArrayIndex[]): ArrayAt;
    toString(): string;
    [Symbol.iterator](): Iterator<MxArray>;
  }
}

for (const [name, fn] of Object.entries(table)) {
  Object.defineProperty(MxArray.prototype, name, {
    value(this: MxArray, ...args: unknown[]) {
      return (fn as (...a: unknown[]) => unknown)(this, ...args);
    },
    writable: true,
    configurable: true,
  });
}

const nest = (values: readonly ScalarValue[], desc: ArrayDesc): NestedValues => {
  let level: NestedValues[] = values as ScalarValue[];
  for (let d = desc.shape.length - 1; d > 0; d--) {
    const n = desc.shape[d] as number;
    const rows = desc.shape.slice(0, d).reduce((a, b) => a * b, 1);
    level = Array.from({ length: rows }, (_, i) => level.slice(i * n, (i + 1) * n));
  }
  return desc.shape.length === 0 ? (level[0] as ScalarValue) : level;
};

/** Dtypes whose bits are the values of a TypedArray. */
const hasTyped = (d: Dtype): boolean => d.isInteger || d.name === "float32" || d.name === "float64";

const own = {
  item(this: MxArray): ScalarValue {
    const d = this.desc;
    if (d.size !== 1) throw opError("item", `needs an array of size 1, got shape (${d.shape.join(",")})`);
    return readValues(d)[0] as ScalarValue;
  },
  tolist(this: MxArray): NestedValues {
    return nest(readValues(this.desc), this.desc);
  },
  toTypedArray(this: MxArray): NumericArray {
    const d = this.desc;
    if (d.shape.length !== 1) throw new TypeError(`[toTypedArray] needs a 1-D array, got ${d.shape.length} dimensions`);
    if (!hasTyped(d.dtype)) throw new TypeError(`[toTypedArray] there is no TypedArray for ${d.dtype}`);
    return readBits(d) as NumericArray;
  },
  index(this: MxArray, ...index: ArrayIndex[]): MxArray {
    return indexArray(this, index);
  },
  indexPut_(this: MxArray, index: ArrayIndex | ArrayIndex[], value: ArrayLike): void {
    const result = indexAssign(this, Array.isArray(index) ? index : [index], value);
    this.replaceDesc(result.desc);
    result.dispose();
  },
  at(this: MxArray, ...index: ArrayIndex[]): ArrayAt {
    return at(this, ...index);
  },
  toString(this: MxArray): string {
    return formatArray(this.desc);
  },
  *[Symbol.iterator](this: MxArray): Iterator<MxArray> {
    for (let i = 0; i < this.length; i++) yield indexArray(this, [i]);
  },
  [Symbol.for("nodejs.util.inspect.custom")](this: MxArray): string {
    return this.disposed ? "array(disposed)" : formatArray(this.desc);
  },
};
for (const key of Reflect.ownKeys(own)) Object.defineProperty(MxArray.prototype, key, { ...Object.getOwnPropertyDescriptor(own, key), enumerable: false });
Object.defineProperties(MxArray.prototype, {
  T: {
    get(this: MxArray): MxArray {
      return transpose(this);
    },
    configurable: true,
  },
  real: {
    get(this: MxArray): MxArray {
      return real(this);
    },
    configurable: true,
  },
  imag: {
    get(this: MxArray): MxArray {
      return imag(this);
    },
    configurable: true,
  },
  length: {
    get(this: MxArray): number {
      const { shape } = this.desc;
      if (shape.length === 0) throw new TypeError("[length] a 0-d array has no length");
      return shape[0] as number;
    },
    configurable: true,
  },
});

/**
 * The array class as users see it: `mx.array(value, dtype?)` and `new mx.array(value, dtype?)` make an array, `x instanceof mx.array` tests for one.
 */
export interface ArrayConstructor {
  new (value: ArrayLike, dtype?: Dtype): MxArray;
  (value: ArrayLike, dtype?: Dtype): MxArray;
  readonly prototype: MxArray;
}
export const array: ArrayConstructor = Object.assign(
  function array(value: ArrayLike, dtype?: Dtype): MxArray {
    if (value instanceof MxArray) return dtype ? astype(value, dtype) : new MxArray(value.desc);
    return toArray(value, dtype);
  },
  { prototype: MxArray.prototype },
) as unknown as ArrayConstructor;


