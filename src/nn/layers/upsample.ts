/** Upsampling of the spatial dimensions of channels-last inputs. */
import { core as mx, type MxArray } from "../../index.ts";
import { Module } from "../module.ts";

/** Positions are computed in float32, as MLX does, so that ties and borders fall on the same side. */
const f = Math.fround;

/** One term of an interpolation along an axis: for each output position, the input position and its weight. */
interface Tap {
  readonly index: number[];
  readonly weight: number[];
}
type Taps = (size: number, scale: number, alignCorners: boolean) => Tap[];

const clip = (i: number, size: number): number => Math.max(0, Math.min(size - 1, i));

/** Places of the output positions in the input. With alignCorners the first and the last position of both coincide, else the outer edges of their pixels. */
function places(size: number, scale: number, alignCorners: boolean): number[] {
  const count = Math.trunc(scale * size);
  const step = alignCorners ? (size - 1) / Math.max(count - 1, 1) : 1 / scale;
  const start = alignCorners ? 0 : ((count - 1) * step - size + 1) / 2;
  return Array.from({ length: count }, (_, i) => f(f(i * f(step)) - f(start)));
}

const linearTaps: Taps = (size, scale, alignCorners) => {
  const at = places(size, scale, alignCorners).map((x) => clip(x, size));
  const fraction = at.map((x) => f(x - Math.floor(x)));
  return [
    { index: at.map(Math.floor), weight: fraction.map((w) => f(1 - w)) },
    { index: at.map(Math.ceil), weight: fraction },
  ];
};

/** Keys' cubic convolution kernel (1981) at a distance of less than 1, and between 1 and 2. */
const near = (a: number, x: number): number => ((a + 2) * x - (a + 3)) * x * x + 1;
const far = (a: number, x: number): number => (((x - 5) * x + 8) * x - 4) * a;

/** a = -0.75, positions beyond the border take the border's value. */
const cubicTaps: Taps = (size, scale, alignCorners) => {
  const at = places(size, scale, alignCorners);
  return [-1, 0, 1, 2].map((k) => ({
    index: at.map((x) => clip(Math.floor(x) + k, size)),
    weight: at.map((x) => (k === 0 || k === 1 ? near : far)(-0.75, Math.abs(x - Math.floor(x) - k))),
  }));
};

/** When the output is smaller, the kernel is widened to the distance of output positions, so that it filters; positions outside do not count. */
function antialiased(size: number, scale: number, alignCorners: boolean, radius: number, kernel: (x: number) => number): Tap[] {
  const at = places(size, scale, alignCorners);
  const wide = scale < 1 ? 1 / scale : 1;
  const reach = Math.ceil(radius * wide) + 1;
  const taps: Tap[] = [];
  for (let k = 1 - reach; k < reach; k++) {
    const index = at.map((x) => Math.floor(x) + k);
    taps.push({ index, weight: index.map((j, i) => (j >= 0 && j < size ? kernel(Math.abs((at[i] as number) - j) / wide) : 0)) });
  }
  const totals = at.map((_, i) => taps.reduce((sum, t) => sum + (t.weight[i] as number), 0) || 1);
  // A tap that counts nowhere is left out, but for the first, so that there always is one.
  const used = taps.filter((t, i) => i === 0 || t.weight.some((w) => w !== 0));
  return used.map((t) => ({ index: t.index.map((j) => clip(j, size)), weight: t.weight.map((w, i) => w / (totals[i] as number)) }));
}
const antialiasedLinearTaps: Taps = (size, scale, align) => antialiased(size, scale, align, 1, (x) => Math.max(0, 1 - x));
/** Keys' kernel with a = -0.5. */
const antialiasedCubicTaps: Taps = (size, scale, align) => antialiased(size, scale, align, 2, (x) => (x <= 1 ? near(-0.5, x) : x <= 2 ? far(-0.5, x) : 0));

function checkScale(x: MxArray, scaleFactor: readonly number[]): void {
  if (x.ndim - 2 !== scaleFactor.length) throw new Error(`[Upsample] one scale per spatial dimension is needed, got ${scaleFactor.length} for shape (${x.shape})`);
  if (!scaleFactor.every((v) => v > 0 && Number.isFinite(v))) throw new Error(`[Upsample] scales must be positive, got ${scaleFactor}`);
}
/** Weighted sums along one axis after the other, which is the same as a sum over all products of taps. */
function interpolate(x: MxArray, scaleFactor: readonly number[], taps: Taps, alignCorners: boolean): MxArray {
  checkScale(x, scaleFactor);
  let out = x;
  for (const [i, scale] of scaleFactor.entries()) {
    const list = taps(x.shape[i + 1] as number, scale, alignCorners);
    const along = (weight: number[]): MxArray => mx.reshape(mx.array(new Float32Array(weight)), x.shape.map((_, d) => (d === i + 1 ? weight.length : 1)));
    const terms = list.map(({ index, weight }) => mx.multiply(mx.take(out, mx.array(new Uint32Array(index)), i + 1), along(weight)));
    out = terms.reduce((a, b) => mx.add(a, b));
  }
  return out;
}

const halfEven = (x: number): number => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
function nearestIndex(size: number, scale: number): Uint32Array {
  const count = Math.trunc(scale * size);
  const step = f(size / count);
  return Uint32Array.from({ length: count }, (_, i) => clip(count > size ? halfEven(f(f((i + 0.5) * step) - 0.5)) : Math.trunc(f(i * step)), size));
}

/** Nearest neighbours: x (N, ...spatial, C) -> (N, ...trunc(scale * size), C), one scale per spatial dimension. */
export function upsampleNearest(x: MxArray, scaleFactor: number[]): MxArray {
  checkScale(x, scaleFactor);
  if (!scaleFactor.every(Number.isInteger)) return scaleFactor.reduce((y, scale, i) => mx.take(y, mx.array(nearestIndex(x.shape[i + 1] as number, scale)), i + 1), x);
  const shape = x.shape;
  const [batch, channels] = [shape[0] as number, shape[shape.length - 1] as number];
  const spatial = shape.slice(1, -1);
  const spread = mx.broadcastTo(mx.reshape(x, [batch, ...spatial.flatMap((n) => [n, 1]), channels]), [batch, ...spatial.flatMap((n, i) => [n, scaleFactor[i] as number]), channels]);
  return mx.reshape(spread, [batch, ...spatial.map((n, i) => n * (scaleFactor[i] as number)), channels]);
}

function checkAntialias(alignCorners: boolean, antialias: boolean): void {
  if (antialias && alignCorners) throw new Error("[Upsample] antialias can not be used with alignCorners");
}
/**
 * Linear interpolation in each spatial dimension: x (N, ...spatial, C) -> (N, ...trunc(scale * size), C). With `antialias` a smaller output
 * is filtered over the distance of its positions.
 */
export function upsampleLinear(x: MxArray, scaleFactor: number[], alignCorners = false, antialias = false): MxArray {
  checkAntialias(alignCorners, antialias);
  return interpolate(x, scaleFactor, antialias ? antialiasedLinearTaps : linearTaps, alignCorners);
}
/** Cubic interpolation (Keys 1981, a = -0.75; with `antialias` a = -0.5) in each spatial dimension: shapes as `upsampleLinear`. */
export function upsampleCubic(x: MxArray, scaleFactor: number[], alignCorners = false, antialias = false): MxArray {
  checkAntialias(alignCorners, antialias);
  return interpolate(x, scaleFactor, antialias ? antialiasedCubicTaps : cubicTaps, alignCorners);
}

const modes = ["nearest", "linear", "cubic"] as const;

/**
 * Scales the spatial dimensions: x (N, ...spatial, C) -> (N, ...trunc(scale * size), C). `scaleFactor`: one for all or one per spatial dimension.
 * `alignCorners`: whether corner pixels stay in place (linear and cubic). `antialias`: see `upsampleLinear`.
 */
export class Upsample extends Module {
  scaleFactor: number | number[];
  mode: (typeof modes)[number];
  alignCorners: boolean;
  antialias: boolean;

  constructor(scaleFactor: number | number[], mode: (typeof modes)[number] = "nearest", alignCorners = false, antialias = false) {
    super();
    if (!modes.includes(mode)) throw new Error(`[Upsample] mode must be "nearest", "linear" or "cubic", got ${JSON.stringify(mode)}`);
    if (antialias && mode === "nearest") throw new Error('[Upsample] antialias needs mode "linear" or "cubic", got "nearest"');
    checkAntialias(alignCorners, antialias);
    this.scaleFactor = scaleFactor;
    this.mode = mode;
    this.alignCorners = alignCorners;
    this.antialias = antialias;
  }
  protected override extraRepr(): string {
    return `scaleFactor=${this.scaleFactor}, mode='${this.mode}', alignCorners=${this.alignCorners}${this.antialias ? ", antialias=true" : ""}`;
  }
  override forward(x: MxArray): MxArray {
    const dims = x.ndim - 2;
    if (dims <= 0) throw new Error(`[Upsample] input must have at least one spatial dimension, (N, ...spatial, C), got shape (${x.shape})`);
    const scales = typeof this.scaleFactor === "number" ? new Array<number>(dims).fill(this.scaleFactor) : this.scaleFactor;
    if (this.mode === "nearest") return upsampleNearest(x, scales);
    return (this.mode === "linear" ? upsampleLinear : upsampleCubic)(x, scales, this.alignCorners, this.antialias);
  }
}
