/**
 * Random numbers, exported as `random`. Bits come from Threefry-2x32 (Salmon et al., 2011) laid out as MLX and JAX do, so a key gives the same bits as there.
 * Every function takes a key (uint32, shape [2]); without one it takes the next key of the global sequence, which `seed` sets.
 */
import { type Aval, ArrayDesc, MxArray, type View, readBits, releaseDesc } from "../core/array.ts";
import type { StreamOrDevice } from "../core/device.ts";
import { type Dtype, complex64, float32, fromBfloat16Bits, fromFloat16Bits, int32, uint16, uint32, uint8 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Launch, defineOp, input, output } from "../core/op.ts";
import { noRule } from "../core/rules.ts";
import { type Shape, broadcastShapes, formatShape, normalizeAxis, sameShape, sizeOf } from "../core/shape.ts";
import { argmax } from "./argreduce.ts";
import { add, divide, maximum, minimum, multiply, subtract } from "./binary.ts";
import { astype } from "./cast.ts";
import { less } from "./compare.ts";
import { zeros } from "./creation.ts";
import { type ArrayLike, shapeArgument, streamArg, toArray } from "./convert.ts";
import { take } from "./indexing.ts";
import { svd } from "./linalg.ts";
import { matmul } from "./matmul.ts";
import { expandDims, reshape, squeeze, view } from "./movement.ts";
import { sliceAxis } from "./region.ts";
import { gpuRandomBits, gpuRandomKey } from "./random-gpu.ts";
import { within } from "./scope.ts";
import { argsort } from "./sort.ts";
import { abs, erf, erfinv, floor, log, log1p, negative, sign, sqrt } from "./unary.ts";

type S = StreamOrDevice;
type Key = readonly [number, number];
type ShapeArgument = number | readonly number[] | null;

const rotations: readonly (readonly number[])[] = [[13, 15, 26, 6], [17, 29, 16, 24]];
/** Threefry-2x32 with 20 rounds of one counter. */
function threefry([k0, k1]: Key, c0: number, c1: number): Key {
  const ks = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  let x = (c0 + k0) | 0;
  let y = (c1 + k1) | 0;
  for (let g = 0; g < 5; g++) {
    for (const r of rotations[g % 2] as readonly number[]) {
      x = (x + y) | 0;
      y = ((y << r) | (y >>> (32 - r))) ^ x;
    }
    x = (x + (ks[(g + 1) % 3] as number)) | 0;
    y = (y + (ks[(g + 2) % 3] as number) + g + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}
/** The bytes that a key gives. */
function bytesOf(key: Key, bytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  const half = words.length >> 1;
  const odd = words.length & 1;
  for (let i = 0; i < half; i++) [words[i], words[half + odd + i]] = threefry(key, i, half + odd + i);
  if (odd) words[half] = threefry(key, half, 0)[0];
  return new Uint8Array(words.buffer, 0, bytes);
}

interface BitsParams {
  readonly shape: Shape;
  /** Bytes of one element: 1, 2 or 4. */
  readonly width: 1 | 2 | 4;
}
const unsigned: Readonly<Record<number, Dtype>> = { 1: uint8, 2: uint16, 4: uint32 };
/** Counters that one unit hashes; each gives two words. */
const countersPerUnit = 4096;

function launchBits(keys: View, { shape, width }: BitsParams): Launch {
  const bytes = sizeOf(shape) * width;
  const count = keys.size / 2;
  if (bytes === 0 || count === 0) return { steps: [] };
  const parts = Math.max(1, Math.ceil((Math.ceil(bytes / 4) >> 1) / countersPerUnit));
  return { steps: [{ entry: "random/bits", args: [input(0), output(0), bytes, countersPerUnit, parts], units: count * parts, grain: 1 }] };
}
/** Keys of shape [..., 2] give bits of shape [..., ...shape]. */
const bitsOp = defineOp<BitsParams>({
  name: "randomBits",
  vjp: "zero",
  jvp: "zero",
  vmap: ({ inputs, params, apply }) => apply(inputs, params),
  infer: ([keys], { shape, width }) => [{ shape: [...(keys as Aval).shape.slice(0, -1), ...shape], dtype: unsigned[width] as Dtype }],
  reference([keys], _avals, { shape, width }) {
    const n = sizeOf(shape);
    const out: number[] = [];
    for (let k = 0; k < (keys as Float64Array).length; k += 2) {
      const bytes = bytesOf([keys?.[k] as number, keys?.[k + 1] as number], n * width).slice();
      const padded = new Uint8Array(n * width);
      padded.set(bytes);
      out.push(...(width === 4 ? new Uint32Array(padded.buffer) : width === 2 ? new Uint16Array(padded.buffer) : padded));
    }
    return [Float64Array.from(out)];
  },
  kernels: [{ name: "wasm/random/bits", launch: ([keys], _out, params) => launchBits(keys as View, params) }],
  gpu: gpuRandomBits,
});
/** A key whose words are known now. It stays lazy, so that making one never waits for work in flight. */
const keyOp = defineOp<{ words: Key }>({
  name: "randomKey",
  vjp: "zero",
  jvp: "zero",
  vmap: noRule("it has no inputs"),
  infer: () => [{ shape: [2], dtype: uint32 }],
  reference: (_inputs, _avals, { words }) => [Float64Array.from(words)],
  kernels: [{ name: "wasm/random/key", launch: (_inputs, _outputs, { words }) => ({ steps: [{ entry: "random/key", args: [output(0), words[0] | 0, words[1] | 0], units: 1, grain: 1 }] }) }],
  gpu: gpuRandomKey,
});
const keyArray = (words: Key, s?: S | null): MxArray => keyOp([], { words }, s)[0] as MxArray;

/** The two words of a seed: its high and low 32 bits. */
function wordsOf(op: string, seed: number | bigint): Key {
  if (typeof seed === "number" && !Number.isSafeInteger(seed)) throw opError(op, `seed must be an integer, got ${seed}`);
  const bits = BigInt.asUintN(64, BigInt(seed));
  return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
}
/** The global key: its words, or an array (held by a handle of its own) once one was put into `state`. */
let globalKey: Key | ArrayDesc = wordsOf("seed", Date.now());
function setGlobalKey(key: Key | ArrayDesc): void {
  const before = globalKey;
  if (key instanceof ArrayDesc) key.handles++;
  globalKey = key;
  if (!(before instanceof ArrayDesc)) return;
  before.handles--;
  releaseDesc(before);
}
/** Sets the global key sequence. */
export const seed = (value: number | bigint): void => setGlobalKey(wordsOf("seed", value));
/** Words of a key that can be read without computing anything. */
function knownWords(key: ArrayDesc): Key | undefined {
  if (key.traced) return undefined;
  const { node } = key;
  if (node?.op.name === keyOp.op.name) return (node.params as { words: Key }).words;
  if (key.status !== "available" || !key.storage?.hostValid) return undefined;
  return [...readBits(key)] as unknown as Key;
}
/** Next key of the global sequence: the current one is split in two, the second half is used. */
function nextKey(s?: S | null): MxArray {
  const known = globalKey instanceof ArrayDesc ? knownWords(globalKey) : globalKey;
  if (known) {
    const words = new Uint32Array(bytesOf(known, 16).buffer);
    setGlobalKey([words[0] as number, words[1] as number]);
    return keyArray([words[2] as number, words[3] as number], s);
  }
  const halves = bitsOp([new MxArray(globalKey as ArrayDesc)], { shape: [2, 2], width: 4 }, s)[0] as MxArray;
  setGlobalKey(reshape(sliceAxis(halves, 0, 0, 1, s), [2]).desc);
  return reshape(sliceAxis(halves, 0, 1, 2, s), [2]);
}
/**
 * The global key as an Array of one uint32 array of shape [2]: what a compiled function captures that draws random numbers,
 * `mx.compile(f, false, [mx.random.state], [mx.random.state])`.
 */
export const state: MxArray[] = Object.defineProperty([], 0, {
  enumerable: true,
  get: (): MxArray => (globalKey instanceof ArrayDesc ? new MxArray(globalKey) : keyArray(globalKey)),
  set: (value: MxArray): void => setGlobalKey(requireKey("random.state", value, undefined).desc),
});
function requireKey(op: string, key: MxArray | null | undefined, s: S | undefined): MxArray {
  if (key === undefined || key === null) return nextKey(s);
  if (key.dtype !== uint32) throw opError(op, `key must be uint32, got ${key.dtype}`);
  if (!sameShape(key.desc.shape, [2])) throw opError(op, `key must have shape (2), got ${formatShape(key.shape)}`);
  return key;
}

/** Key of a seed: uint32 of shape [2], the seed's high and low 32 bits. */
export const key = (seed: number | bigint, s?: S | null): MxArray => keyArray(wordsOf("key", seed), s);

/** Splits a key into `num` keys: uint32 of shape [num, 2]. */
export function split(key: MxArray, num?: number | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([num, s] as unknown[]);
    const n = (args[0] ?? 2) as number;
    if (!Number.isInteger(n) || n < 0) throw opError("split", `num must be a non-negative integer, got ${n}`);
    return bitsOp([requireKey("split", toArray(key), stream)], { shape: [n, 2], width: 4 }, stream)[0] as MxArray;
  });
}

/** Uniform random bits of a shape. `width` is the bytes of an element: 4 (uint32, default), 2 (uint16) or 1 (uint8). */
export function bits(shape?: ShapeArgument | S, width?: number | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, width, key, s] as unknown[]);
    const bytes = (args[1] ?? 4) as number;
    if (bytes !== 1 && bytes !== 2 && bytes !== 4) throw opError("bits", `width must be 1, 2 or 4, got ${bytes}`);
    return bitsOp([requireKey("bits", args[2] as MxArray | null, stream)], { shape: shapeArgument("bits", (args[0] ?? []) as number[]), width: bytes }, stream)[0] as MxArray;
  });
}

/** Largest value below 1 of each type that uniform numbers can have. */
const belowOne: Readonly<Record<string, number>> = { float32: 1 - 2 ** -24, float16: fromFloat16Bits(0x3bff), bfloat16: fromBfloat16Bits(0x3f7f) };
function requireFloat(op: string, dtype: Dtype): Dtype {
  if (!(dtype.name in belowOne)) throw opError(op, `dtype must be float32, float16 or bfloat16, got ${dtype}`);
  return dtype;
}
function requireBroadcast(op: string, shape: readonly number[], ...others: MxArray[]): void {
  const all = broadcastShapes(op, shape, ...others.map((o) => o.shape));
  if (!sameShape(all, shape)) throw opError(op, `arguments of shape ${others.map((o) => formatShape(o.shape)).join(" and ")} do not broadcast to the requested shape, got ${formatShape(shape)}`);
}
/** Uniform numbers of [low, high). The scaling by 2^-32 may round up to 1, so it is cut below. */
function uniformIn(op: string, low: ArrayLike, high: ArrayLike, shape: readonly number[], dtype: Dtype, key: MxArray, s: S | undefined): MxArray {
  const [lo, hi] = [astype(toArray(low, dtype), dtype, s), astype(toArray(high, dtype), dtype, s)];
  requireBroadcast(op, shape, lo, hi);
  const words = astype(bitsOp([key], { shape, width: 4 }, s)[0] as MxArray, float32, s);
  const unit = astype(minimum(multiply(words, 2 ** -32, s), belowOne[dtype.name] as number, s), dtype, s);
  if (low === 0 && high === 1) return unit;
  return add(multiply(subtract(hi, lo, s), unit, s), lo, s);
}

/** Uniform numbers of [low, high) (default 0 and 1; arrays must broadcast to `shape`), dtype float32 (default), float16 or bfloat16. */
export function uniform(low?: ArrayLike | null | S, high?: ArrayLike | null | S, shape?: ShapeArgument | S, dtype?: Dtype | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([low, high, shape, dtype, key, s] as unknown[]);
    const type = requireFloat("uniform", (args[3] ?? float32) as Dtype);
    const size = shapeArgument("uniform", (args[2] ?? []) as number[]);
    return uniformIn("uniform", (args[0] ?? 0) as ArrayLike, (args[1] ?? 1) as ArrayLike, size, type, requireKey("uniform", args[4] as MxArray | null, stream), stream);
  });
}

/** The float32 next to -1 towards 0: the open end of the interval that inverse distributions take. */
const aboveMinusOne = -(1 - 2 ** -24);
const symmetric = (op: string, shape: readonly number[], key: MxArray, s: S | undefined): MxArray => uniformIn(op, aboveMinusOne, 1, shape, float32, key, s);

/** Normal numbers with mean `loc` and standard deviation `scale` (default 0 and 1; arrays must broadcast with `shape`), dtype float32 (default), float16, bfloat16 or complex64. */
export function normal(shape?: ShapeArgument | S, dtype?: Dtype | null | S, loc?: ArrayLike | null | S, scale?: ArrayLike | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, dtype, loc, scale, key, s] as unknown[]);
    const size = shapeArgument("normal", (args[0] ?? []) as number[]);
    const type = (args[1] ?? float32) as Dtype;
    const [mean, deviation] = [args[2], args[3]] as (ArrayLike | null | undefined)[];
    const source = requireKey("normal", args[4] as MxArray | null, stream);
    let samples: MxArray;
    if (type === complex64) {
      // Real and imaginary parts have variance 1/2 each: erfinv without the factor sqrt(2).
      samples = squeeze(view(erfinv(symmetric("normal", [...size, 2], source, stream), stream), complex64, stream), -1, stream);
      if (deviation !== undefined && deviation !== null) samples = multiply(deviation, samples, stream);
    } else {
      requireFloat("normal", type);
      const root = toArray(Math.SQRT2, type);
      const factor = deviation === undefined || deviation === null ? root : multiply(root, astype(toArray(deviation, type), type, stream), stream);
      samples = multiply(factor, astype(erfinv(symmetric("normal", size, source, stream), stream), type, stream), stream);
    }
    if (mean === undefined || mean === null) return samples;
    return add(type === complex64 ? mean : astype(toArray(mean, type), type, stream), samples, stream);
  });
}

/**
 * Vectors of a normal distribution with mean (..., n) and covariance (..., n, n), symmetric positive semidefinite; both batches broadcast with `shape`, and the result has that
 * shape and n behind it. float32 only. The covariance's root comes from its singular value decomposition.
 */
export function multivariateNormal(mean: ArrayLike, cov: ArrayLike, shape?: ShapeArgument | S, dtype?: Dtype | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, dtype, key, s] as unknown[]);
    const [center, covariance] = [toArray(mean), toArray(cov)];
    const type = (args[1] ?? float32) as Dtype;
    if (type !== float32) throw opError("multivariateNormal", `dtype must be float32, got ${type}`);
    const [m, c] = [center.shape, covariance.shape];
    const n = m[m.length - 1];
    if (m.length < 1 || c.length < 2 || c[c.length - 1] !== n || c[c.length - 2] !== n) throw opError("multivariateNormal", `mean must be (..., n) and cov (..., n, n), got ${formatShape(m)} and ${formatShape(c)}`);
    const batch = broadcastShapes("multivariateNormal", c.slice(0, -2), m.slice(0, -1), shapeArgument("multivariateNormal", (args[0] ?? []) as number[]));
    const source = requireKey("multivariateNormal", args[2] as MxArray | null, stream);
    return within(() => {
      const [u, values, vt] = svd(astype(covariance, float32, stream), true, stream) as [MxArray, MxArray, MxArray];
      const root = matmul(multiply(u, expandDims(sqrt(values, stream), -2, stream), stream), vt, stream);
      const standard = normal([...batch, n as number], float32, undefined, undefined, source, stream);
      return add(center, squeeze(matmul(expandDims(standard, -2, stream), root, stream), -2, stream), stream);
    });
  });
}

/** Laplace numbers with mean `loc` and scale `scale` (numbers, default 0 and 1), dtype float32 (default), float16 or bfloat16. */
export function laplace(shape?: ShapeArgument | S, dtype?: Dtype | null | S, loc?: number | null | S, scale?: number | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, dtype, loc, scale, key, s] as unknown[]);
    const size = shapeArgument("laplace", (args[0] ?? []) as number[]);
    const type = requireFloat("laplace", (args[1] ?? float32) as Dtype);
    const [mean, width] = [args[2] ?? 0, args[3] ?? 1] as [number, number];
    const u = symmetric("laplace", size, requireKey("laplace", args[4] as MxArray | null, stream), stream);
    let samples = astype(multiply(sign(u, stream), log1p(negative(abs(u, stream), stream), stream), stream), type, stream);
    if (width !== 1) samples = multiply(samples, width, stream);
    if (mean !== 0) samples = add(samples, mean, stream);
    return samples;
  });
}

/** Normal numbers cut to [lower, upper] (arrays broadcast; the default shape is theirs), dtype float32 (default), float16 or bfloat16. */
export function truncatedNormal(lower: ArrayLike, upper: ArrayLike, shape?: ShapeArgument | S, dtype?: Dtype | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, dtype, key, s] as unknown[]);
    const type = requireFloat("truncatedNormal", (args[1] ?? float32) as Dtype);
    const [lo, hi] = [astype(toArray(lower, type), type, stream), astype(toArray(upper, type), type, stream)];
    const size = args[0] === undefined || args[0] === null ? broadcastShapes("truncatedNormal", lo.shape, hi.shape) : shapeArgument("truncatedNormal", args[0] as number[]);
    const [a, b] = [lo, hi].map((x) => erf(divide(x, toArray(Math.SQRT2, type), stream), stream)) as [MxArray, MxArray];
    const u = uniformIn("truncatedNormal", a, b, size, type, requireKey("truncatedNormal", args[2] as MxArray | null, stream), stream);
    const samples = multiply(toArray(Math.SQRT2, type), erfinv(u, stream), stream);
    return maximum(minimum(hi, samples, stream), lo, stream);
  });
}

/** Numbers of the standard Gumbel distribution, dtype float32 (default), float16 or bfloat16. */
export function gumbel(shape?: ShapeArgument | S, dtype?: Dtype | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, dtype, key, s] as unknown[]);
    const size = shapeArgument("gumbel", (args[0] ?? []) as number[]);
    const u = uniformIn("gumbel", 0, 1, size, requireFloat("gumbel", (args[1] ?? float32) as Dtype), requireKey("gumbel", args[2] as MxArray | null, stream), stream);
    return negative(log(negative(log(u, stream), stream), stream), stream);
  });
}

/** Integers of [low, high) (arrays broadcast to `shape`), dtype int32 (default), another integer type or bool. */
export function randint(low: ArrayLike, high: ArrayLike, shape?: ShapeArgument | S, dtype?: Dtype | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([shape, dtype, key, s] as unknown[]);
    const type = (args[1] ?? int32) as Dtype;
    if (type.isInexact) throw opError("randint", `dtype must be an integer type or bool, got ${type}`);
    const size = shapeArgument("randint", (args[0] ?? []) as number[]);
    const u = uniformIn("randint", low, high, size, float32, requireKey("randint", args[2] as MxArray | null, stream), stream);
    // float32 may not hold the bounds, so the result is cut to them; the casts go through the bounds' own types.
    const top = typeof high === "number" ? toArray(high - 1, type) : astype(subtract(high, toArray(1, toArray(high).dtype), stream), type, stream);
    const bottom = typeof low === "number" ? toArray(low, type) : astype(toArray(low), type, stream);
    return maximum(minimum(astype(floor(u, stream), type, stream), top, stream), bottom, stream);
  });
}

/** True with probability p (default 0.5; an array must have a float type). The default shape is that of p. */
export function bernoulli(p?: ArrayLike | null | S, shape?: ShapeArgument | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([p, shape, key, s] as unknown[]);
    const probability = toArray((args[0] ?? 0.5) as ArrayLike);
    if (!probability.dtype.isFloat) throw opError("bernoulli", `p must have a float type, got ${probability.dtype}`);
    const size = args[1] === undefined || args[1] === null ? probability.shape : shapeArgument("bernoulli", args[1] as number[]);
    requireBroadcast("bernoulli", size, probability);
    const words = bitsOp([requireKey("bernoulli", args[2] as MxArray | null, stream)], { shape: size, width: 4 }, stream)[0] as MxArray;
    // The float32 above 2^32, so that p = 1 is always true.
    return less(words, multiply(astype(probability, float32, stream), 4294967808, stream), stream);
  });
}

/**
 * Indices (uint32) drawn with probabilities softmax(logits, axis), by the Gumbel-max trick. The result has the shape of logits without `axis` (default -1);
 * or `shape`, which that must broadcast to; or it with `numSamples` behind.
 */
export function categorical(logits: ArrayLike, axis?: number | null | S, shape?: readonly number[] | null | S, numSamples?: number | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([axis, shape, numSamples, key, s] as unknown[]);
    let x = toArray(logits);
    const at = normalizeAxis("categorical", (args[0] ?? -1) as number, x.ndim);
    const [wanted, samples] = [args[1], args[2]] as [readonly number[] | null | undefined, number | null | undefined];
    const given = wanted !== undefined && wanted !== null;
    let size = x.shape.filter((_, i) => i !== at);
    if (samples !== undefined && samples !== null) {
      if (given) throw opError("categorical", `shape and numSamples exclude each other, got ${formatShape(wanted)} and ${samples}`);
      size = shapeArgument("categorical", [...size, samples]);
      x = expandDims(x, -1, stream);
    } else if (given) {
      const all = broadcastShapes("categorical", wanted, size);
      if (!sameShape(all, wanted)) throw opError("categorical", `logits without the axis, ${formatShape(size)}, do not broadcast to shape, got ${formatShape(wanted)}`);
      size = shapeArgument("categorical", wanted);
    }
    if (sizeOf(size) === 0) return zeros(size, uint32, stream);
    const place = at + size.length - x.ndim + 1;
    const noise = gumbel([...size.slice(0, place), x.desc.shape[at] as number, ...size.slice(place)], float32, requireKey("categorical", args[3] as MxArray | null, stream), stream);
    return argmax(add(noise, x, stream), place, false, stream);
  });
}

/** A random permutation of 0 .. x-1 (uint32), or the entries of an array in random order along an axis (default 0). */
export function permutation(x: number | MxArray, axis?: number | MxArray | null | S, key?: MxArray | null | S, s?: S | null): MxArray {
  return within(() => {
    const { args, stream } = streamArg([axis, key, s] as unknown[]);
    const rest = args as unknown[];
    // permutation(n, key) has the key in the axis's place.
    const [at, source] = typeof x === "number" && typeof rest[0] === "object" && rest[0] !== null ? [0, rest[0]] : [(rest[0] ?? 0) as number, rest[1]];
    if (typeof x === "number" && (!Number.isInteger(x) || x < 0)) throw opError("permutation", `x must be an array or a non-negative integer, got ${x}`);
    const along = typeof x === "number" ? 0 : normalizeAxis("permutation", at, x.ndim);
    const n = typeof x === "number" ? x : (x.desc.shape[along] as number);
    const order = argsort(bits([n], 4, source as MxArray | null, stream), -1, stream);
    return typeof x === "number" ? order : take(x, order, along, stream);
  });
}
