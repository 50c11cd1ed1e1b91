/** Choices between elements. */
import { type Aval, MxArray } from "../core/array.ts";
import { type StreamOrDevice, isStreamOrDevice } from "../core/device.ts";
import { type Dtype, promote, roundTo } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Value } from "../core/expr.ts";
import { defineOp } from "../core/op.ts";
import { maximum, minimum } from "./binary.ts";
import { astype } from "./cast.ts";
import { type ArrayLike, promoteOperands, toArray } from "./convert.ts";
import { type C, commonShape, expand, interleaved, partsOf, requireReal } from "./elementwise.ts";
import { isfinite } from "./unary.ts";
import { within } from "./scope.ts";

type S = StreamOrDevice | null | undefined;

const whereOp = defineOp({
  name: "where",
  infer: ([c, x, y]) => {
    const [condition, a, b] = [c as Aval, x as Aval, y as Aval];
    const dtype = promote(a.dtype, b.dtype);
    return [{ shape: commonShape("where", commonShape("where", a.shape, b.shape), condition.shape), dtype }];
  },
  expr: (e, [c, x, y], _p, out) => e.select(e.convert(c as Value, "bool"), e.cast(x as Value, out.dtype), e.cast(y as Value, out.dtype)),
  reference: (values, avals, _p, [out]) => {
    const { shape, dtype } = out as Aval;
    if (avals.some((a) => a.dtype.kind === "complex")) {
      const [p, q, r] = values.map((v, i) => partsOf(v, avals[i] as Aval, shape)) as [C[], C[], C[]];
      return [interleaved(p.map(([truth], i) => ((truth !== 0 ? q[i] : r[i]) as C)).map((z) => (dtype.kind === "complex" ? z : z[0])))];
    }
    const [c, x, y] = values.map((v, i) => expand(v, (avals[i] as Aval).shape, shape)) as [Float64Array, Float64Array, Float64Array];
    return [c.map((v, i) => roundTo(dtype, (v !== 0 ? x[i] : y[i]) as number))];
  },
  vjp: ({ inputs: [c], cotangents: [g] }) => [undefined, where(c as MxArray, g as MxArray, 0), where(c as MxArray, 0, g as MxArray)],
  jvp: ({ inputs: [c], tangents: [, x, y] }) => [where(c as MxArray, x ?? 0, y ?? 0)],
  vmap: "elementwise",
  kernels: [],
});
/** Elements of x where the condition is true (not 0), else of y. All three are broadcast; x and y are promoted to one dtype. */
export function where(condition: ArrayLike, x: ArrayLike, y: ArrayLike, s?: S): MxArray {
  const p = promoteOperands("where", x, y);
  return whereOp([toArray(condition), p.a, p.b], {}, s)[0] as MxArray;
}

/** Limits elements to min .. max; either bound may be null, and both are broadcast. NaN stays. */
export function clip(a: ArrayLike, min?: ArrayLike | null, max?: ArrayLike | null, s?: S): MxArray {
  return within(() => {
    const [low, high] = [min ?? undefined, max ?? undefined];
    if (low === undefined && high === undefined) throw opError("clip", "at most one of min and max may be missing, got neither");
    const x = toArray(a);
    const raised = low === undefined ? x : maximum(x, low, s);
    return high === undefined ? raised : minimum(raised, high, s);
  });
}

interface Replacements {
  readonly nan: number;
  readonly posinf: number;
  readonly neginf: number;
}
const nanToNumOp = defineOp<Replacements>({
  name: "nanToNum",
  vjp: { partials: [([x], y) => astype(isfinite(x as MxArray), y.dtype)] },
  jvp: "vjp",
  vmap: "elementwise",
  infer: ([a]) => {
    requireReal("nanToNum", (a as Aval).dtype);
    return [{ shape: (a as Aval).shape, dtype: (a as Aval).dtype }];
  },
  expr: (e, [v], { nan, posinf, neginf }) => {
    const x = v as Value;
    const low = e.select(e.eq(x, e.like(x, Number.NEGATIVE_INFINITY)), e.like(x, neginf), x);
    const high = e.select(e.eq(x, e.like(x, Number.POSITIVE_INFINITY)), e.like(x, posinf), low);
    return e.select(e.isNaN(x), e.like(x, nan), high);
  },
  reference: ([x], _avals, { nan, posinf, neginf }) => [
    (x as Float64Array).map((v) => (Number.isNaN(v) ? nan : v === Number.POSITIVE_INFINITY ? posinf : v === Number.NEGATIVE_INFINITY ? neginf : v)),
  ],
  kernels: [],
});
const largest: Readonly<Record<string, number>> = { float16: 65504, bfloat16: 2 ** 128 - 2 ** 120, float32: 2 ** 128 - 2 ** 104, float64: Number.MAX_VALUE };
const largestOf = (d: Dtype): number => largest[d.name] ?? 0;

/** Replaces NaN by `nan` (default 0) and infinities by `posinf` and `neginf` (default: the dtype's largest numbers). Integers pass unchanged. */
export function nanToNum(a: ArrayLike, nan?: number | S, posinf?: number | S, neginf?: number | S, s?: S): MxArray {
  const x = toArray(a);
  const stream = s ?? [nan, posinf, neginf].find(isStreamOrDevice);
  const { dtype } = x.desc;
  if (!dtype.isInexact) return new MxArray(x.desc);
  const number = (v: number | S, otherwise: number): number => (typeof v === "number" ? v : otherwise);
  const params = { nan: number(nan, 0), posinf: number(posinf, largestOf(dtype)), neginf: number(neginf, -largestOf(dtype)) };
  return nanToNumOp([x], params, stream)[0] as MxArray;
}
