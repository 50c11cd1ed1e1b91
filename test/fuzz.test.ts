/**
 * Random programs: ops, views, writes in place, evaluations in any order, on both devices where there are two. The expectation comes from plain Arrays of
 * numbers, computed beside the program. All values are small integers, so every dtype holds them exactly and results must be equal, not close.
 * MLX_FUZZ=<n> runs n programs per kind; MLX_FUZZ_SEED=<n> starts elsewhere.
 */
import { describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import { randomSource } from "./helpers/check.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { type Plain, plain } from "./helpers/plain.ts";
import { skipReason } from "./helpers/vulkan.ts";

const programs = Number(process.env["MLX_FUZZ"] ?? 40);
const first = Number(process.env["MLX_FUZZ_SEED"] ?? 1);
chooseTestDevice();

/** An array of the program and what it must hold. */
interface Value {
  array: mx.MxArray;
  want: Plain;
}
interface Program {
  readonly random: () => number;
  readonly values: Value[];
  readonly log: string[];
  /** Devices an op may go to. */
  readonly streams: readonly (mx.StreamOrDevice | undefined)[];
}

const int = (p: Program, n: number): number => Math.floor(p.random() * n);
const pick = <T>(p: Program, list: readonly T[]): T => list[int(p, list.length)] as T;
const chance = (p: Program, share: number): boolean => p.random() < share;
const stream = (p: Program): mx.StreamOrDevice | undefined => pick(p, p.streams);
const dtypes = [mx.float32, mx.int32, mx.bfloat16, mx.float16, mx.int16];

function fresh(p: Program): Value {
  const shape = Array.from({ length: int(p, 4) }, () => pick(p, [1, 2, 3, 4, 5, 8, 17, 33]));
  const data = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => int(p, 19) - 9);
  const array = mx.reshape(mx.array(Float32Array.from(data)), shape).astype(pick(p, dtypes));
  return { array, want: plain(shape, data) };
}

/** Numbers between -48 and 48 again, so that the next op stays exact; computed in int32. */
function small(p: Program, array: mx.MxArray, want: Plain): Value {
  const wide = mx.remainder(array.astype(mx.int32, stream(p)), mx.array(97, mx.int32), stream(p));
  const centred = mx.subtract(wide, mx.array(48, mx.int32), stream(p));
  return { array: centred.astype(pick(p, dtypes), stream(p)), want: want.map((x) => (((x % 97) + 97) % 97) - 48) };
}
/** Room for products and sums: int32 or float32. */
const widened = (p: Program, v: Value): mx.MxArray => v.array.astype(pick(p, [mx.int32, mx.float32]), stream(p));

type Move = (p: Program, v: Value) => Value | undefined;
const axisOf = (p: Program, v: Value): number => int(p, v.want.shape.length);
/** Another value that broadcasts with this one: one of the program, or a row or column made for it. */
function partner(p: Program, v: Value): Value {
  const fits = p.values.filter((o) => o.want.broadcasts(v.want));
  if (fits.length > 0 && chance(p, 0.7)) return pick(p, fits);
  const shape = v.want.shape.map((d) => (chance(p, 0.5) ? 1 : d)).slice(int(p, v.want.shape.length + 1));
  const data = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => int(p, 19) - 9);
  return { array: mx.reshape(mx.array(Float32Array.from(data)), shape).astype(pick(p, dtypes)), want: plain(shape, data) };
}

const binary: Record<string, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  maximum: Math.max,
  minimum: Math.min,
};
const unary: Record<string, (a: number) => number> = { negative: (a) => -a, abs: Math.abs, square: (a) => a * a, sign: Math.sign };
const reductions: Record<string, (xs: number[]) => number> = {
  sum: (xs) => xs.reduce((a, b) => a + b, 0),
  max: (xs) => Math.max(...xs),
  min: (xs) => Math.min(...xs),
  argmax: (xs) => xs.indexOf(Math.max(...xs)),
  argmin: (xs) => xs.indexOf(Math.min(...xs)),
};
type Unary = (a: mx.MxArray, s?: mx.StreamOrDevice) => mx.MxArray;
type Binary = (a: mx.MxArray, b: mx.MxArray, s?: mx.StreamOrDevice) => mx.MxArray;
type Reduction = (a: mx.MxArray, axis: number, keep: boolean, s?: mx.StreamOrDevice) => mx.MxArray;
const named = <F>(name: string): F => (mx as unknown as Record<string, F>)[name] as F;

const moves: Record<string, Move> = {
  unary(p, v) {
    const name = pick(p, Object.keys(unary));
    return small(p, named<Unary>(name)(widened(p, v), stream(p)), v.want.map(unary[name] as (a: number) => number));
  },
  binary(p, v) {
    const name = pick(p, Object.keys(binary));
    const o = partner(p, v);
    return small(p, named<Binary>(name)(widened(p, v), widened(p, o), stream(p)), v.want.zip(o.want, binary[name] as (a: number, b: number) => number));
  },
  select(p, v) {
    const o = partner(p, v);
    const condition = mx.greater(v.array, o.array, stream(p));
    return { array: mx.where(condition, v.array, o.array, stream(p)), want: v.want.zip(o.want, (a, b) => (a > b ? a : b)) };
  },
  cast: (p, v) => ({ array: v.array.astype(pick(p, dtypes), stream(p)), want: v.want }),
  reduce(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const name = pick(p, Object.keys(reductions));
    const axis = axisOf(p, v);
    const keep = chance(p, 0.5);
    return small(p, named<Reduction>(name)(widened(p, v), axis, keep, stream(p)), v.want.reduce(axis, keep, reductions[name] as (xs: number[]) => number));
  },
  cumsum(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const axis = axisOf(p, v);
    const reverse = chance(p, 0.3);
    return small(p, mx.cumsum(widened(p, v), axis, reverse, true, undefined, stream(p)), v.want.scan(axis, reverse));
  },
  sort(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const axis = axisOf(p, v);
    return { array: mx.sort(v.array, axis, stream(p)), want: v.want.lines(axis, (xs) => xs.sort((a, b) => a - b)) };
  },
  transpose(p, v) {
    const axes = v.want.shape.map((_, i) => i).sort(() => p.random() - 0.5);
    return { array: mx.transpose(v.array, axes), want: v.want.transpose(axes) };
  },
  reshape(p, v) {
    const n = v.want.data.length;
    const divisors = Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
    const a = pick(p, divisors);
    const shape = pick(p, [[n], [a, n / a], [1, a, n / a], [a, 1, n / a]]);
    return { array: mx.reshape(v.array, shape, stream(p)), want: v.want.reshape(shape) };
  },
  slice(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const ranges = v.want.shape.map((d) => range(p, d));
    const index = ranges.map((r) => mx.Slice(r.start, r.stop, r.step));
    return { array: v.array.index(...index), want: v.want.slice(ranges.map((r) => r.picks)) };
  },
  broadcast(p, v) {
    if (v.want.data.length > 400) return undefined;
    const shape = [pick(p, [1, 2, 3]), ...v.want.shape.map((d) => (d === 1 ? pick(p, [1, 2, 5]) : d))];
    return { array: mx.broadcastTo(v.array, shape, stream(p)), want: v.want.broadcastTo(shape) };
  },
  concatenate(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const axis = axisOf(p, v);
    const others = p.values.filter((o) => o.want.shape.length === v.want.shape.length && o.want.shape.every((d, i) => i === axis || d === v.want.shape[i]));
    const list = [v, pick(p, others), ...(chance(p, 0.3) ? [pick(p, others)] : [])];
    return { array: mx.concatenate(list.map((o) => o.array), axis, stream(p)), want: v.want.concatenate(list.slice(1).map((o) => o.want), axis) };
  },
  take(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const axis = axisOf(p, v);
    const size = v.want.shape[axis] as number;
    const rows = Array.from({ length: 1 + int(p, 6) }, () => int(p, size));
    const picks = v.want.shape.map((d, i) => (i === axis ? rows : Array.from({ length: d }, (_, k) => k)));
    return { array: mx.take(v.array, mx.array(Int32Array.from(rows)), axis, stream(p)), want: v.want.slice(picks) };
  },
  matmul(p, v) {
    const [m, k] = [v.want.shape.at(-2), v.want.shape.at(-1)];
    if (m === undefined || k === undefined || v.want.shape.length !== 2) return undefined;
    const shape = chance(p, 0.5) ? [k, pick(p, [1, 3, 16, 33])] : [m, k];
    const data = Array.from({ length: (shape[0] as number) * (shape[1] as number) }, () => int(p, 19) - 9);
    const other = mx.reshape(mx.array(Float32Array.from(data)), shape);
    const a = v.array.astype(mx.float32, stream(p));
    const transposed = shape[0] === m && shape[1] === k;
    const right = transposed ? mx.transpose(other, [1, 0]) : other;
    const want = transposed ? plain(shape, data).transpose([1, 0]) : plain(shape, data);
    return small(p, mx.matmul(a, right, stream(p)), v.want.matmul(want));
  },
  /** A write through a view of a copy: the source must keep its values. */
  put(p, v) {
    if (v.want.shape.length === 0) return undefined;
    const ranges = v.want.shape.map((d) => range(p, d));
    const target = mx.add(v.array, mx.array(0, v.array.dtype), stream(p));
    const alias = chance(p, 0.5) ? mx.reshape(target, v.want.shape) : undefined;
    const value = int(p, 50);
    target.indexPut_(ranges.map((r) => mx.Slice(r.start, r.stop, r.step)), mx.array(value, mx.float32));
    if (alias) p.values.push({ array: alias, want: v.want });
    return { array: target, want: v.want.put(ranges.map((r) => r.picks), value) };
  },
};

interface Range {
  start: number;
  stop: number | null;
  step: number;
  picks: number[];
}
/** A slice that is never empty, forwards or backwards. */
function range(p: Program, size: number): Range {
  const step = pick(p, [1, 1, 1, 2, -1, -2]);
  const start = int(p, size);
  const stop = step > 0 ? start + 1 + int(p, size - start) : chance(p, 0.3) ? null : start - 1 - int(p, start + 1);
  const picks: number[] = [];
  const end = stop === null ? -1 : stop;
  for (let i = start; step > 0 ? i < end : i > end; i += step) picks.push(i);
  return { start, stop: stop !== null && stop < 0 ? null : stop, step, picks };
}

function check(v: Value, what: string): void {
  expect(v.array.shape, what).toEqual(v.want.shape);
  const got = mx.reshape(v.array, [-1]).astype(mx.float32).tolist() as number[];
  const wrong = got.findIndex((x, i) => x !== v.want.data[i]);
  if (wrong >= 0 || got.length !== v.want.data.length) throw new Error(`${what}, shape (${v.want.shape.join(",")}): element ${wrong} is ${got[wrong]}, not ${v.want.data[wrong]}`);
}

/** Between ops: evaluate, start evaluating, check or forget something. */
function disturb(p: Program): void {
  if (chance(p, 0.15)) mx.eval(...[pick(p, p.values), pick(p, p.values)].map((v) => v.array));
  if (chance(p, 0.1)) void mx.asyncEval(pick(p, p.values).array);
  if (chance(p, 0.1)) check(pick(p, p.values), "a value on the way");
  if (p.values.length > 8 && chance(p, 0.5)) p.values.splice(int(p, p.values.length), 1);
}

function run(seed: number, streams: Program["streams"]): void {
  const p: Program = { random: randomSource(seed), values: [], log: [], streams };
  try {
    for (let i = 0; i < 3; i++) p.values.push(fresh(p));
    for (let step = 0; step < 25; step++) {
      const at = int(p, p.values.length);
      const v = p.values[at] as Value;
      const name = pick(p, Object.keys(moves));
      const made = (moves[name] as Move)(p, v);
      if (!made || made.want.data.length > 4000) continue;
      p.log.push(`${name} (${v.want.shape.join(",")}) ${v.array.dtype} -> (${made.want.shape.join(",")}) ${made.array.dtype}`);
      p.values.push(made);
      disturb(p);
    }
    if (chance(p, 0.5)) mx.eval(...p.values.map((v) => v.array));
    p.values.forEach((v, i) => check(v, `value ${i}`));
  } catch (error) {
    (error as Error).message = `program of seed ${seed}:\n  ${p.log.join("\n  ")}\n${(error as Error).message}`;
    throw error;
  }
}

describe("random programs", () => {
  const some = Array.from({ length: programs }, (_, i) => first + i);
  it.each(some)("on the default device, seed %d", (seed) => run(seed, [undefined]));
  it.skipIf(skipReason).each(some)("on both devices in turns, seed %d", (seed) => run(seed + 1000, [mx.cpu, mx.gpu]));
});
