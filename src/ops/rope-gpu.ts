/** GPU kernel of rope. */
import type { View } from "../core/array.ts";
import { type GpuKernel, type GpuLaunch, gpuInput, gpuOutput, halfNeeds, spreadGroups } from "../core/gpu.ts";
import type { InputLayout } from "../core/op.ts";
import { floatSuffix, reachOf, wholeRows } from "./norm-gpu.ts";
import type { RopeParams } from "./rope.ts";

const lanes = 128;
/** Invocations that fill a large device; more of them take several heads each and so share their angles. */
const enough = 1 << 17;
const mostHeads = 8;

/** The fraction of |turns| modulo 1 as a 64-bit number, negated for negative ones: [low, high]. */
export function fixedTurns(turns: number): [number, number] {
  const size = Math.abs(turns);
  const scaled = (size - Math.floor(size)) * 2 ** 32;
  const high = Math.floor(scaled);
  const low = Math.floor((scaled - high) * 2 ** 32);
  if (turns >= 0) return [low, high];
  return low === 0 ? [0, -high >>> 0] : [-low >>> 0, ~high >>> 0];
}
const tables = new Map<string, readonly number[]>();
/** Turns per position of every pair, in fixed point. */
function turnsTable({ dims, base, scale }: RopeParams): readonly number[] {
  const key = `${dims},${base},${scale}`;
  let table = tables.get(key);
  if (!table) {
    const half = dims / 2;
    table = Array.from({ length: half }, (_, i) => fixedTurns((scale * base ** (-i / half)) / (2 * Math.PI))).flat();
    if (tables.size >= 64) tables.clear();
    tables.set(key, table);
  }
  return table;
}
/** |x| as a 53-bit integer (two words) times a power of two. */
function mantissaOf(x: number): { low: number; high: number; exponent: number } {
  let [m, exponent] = [Math.abs(x), 0];
  if (m === 0 || !Number.isFinite(m)) return { low: 0, high: 0, exponent: 0 };
  for (; m >= 2 ** 53; exponent++) m /= 2;
  for (; m < 2 ** 52; exponent--) m *= 2;
  return { low: m % 2 ** 32, high: Math.floor(m / 2 ** 32), exponent };
}

/** Dimensions between batch and position as one, or undefined when their strides do not allow it. */
function headsOf(x: View): { size: number; stride: number } | undefined {
  let merged = { size: 1, stride: 0 };
  for (let i = 1; i < x.shape.length - 2; i++) {
    const [size, stride] = [x.shape[i] as number, x.strides[i] as number];
    if (size === 1) continue;
    if (merged.size !== 1 && merged.stride !== size * stride) return undefined;
    merged = { size: merged.size * size, stride };
  }
  return merged;
}
const walks = (x: View): boolean => headsOf(x) !== undefined && x.strides.every((s) => s >= 0);

function launch(inputs: readonly View[], out: View, params: RopeParams): GpuLaunch {
  const x = inputs[0] as View;
  const rank = x.shape.length;
  const [batch, length, width] = [x.shape[0] as number, x.shape[rank - 2] as number, x.shape[rank - 1] as number];
  const heads = headsOf(x) as { size: number; stride: number };
  const half = params.dims / 2;
  const rest = width - params.dims;
  const strides = [x.strides[0] as number, heads.stride, x.strides[rank - 2] as number];
  const whole = half % 4 === 0 && rest % 8 === 0 && wholeRows(width, [x, out], strides);
  const rows = batch * length * (Math.ceil(half / 4) + Math.ceil(rest / 8));
  const headsEach = Math.max(1, Math.min(mostHeads, heads.size, Math.floor((rows * heads.size) / enough)));
  const count = rows * Math.ceil(heads.size / headsEach);
  const { low, high, exponent } = mantissaOf(params.scale / (2 * Math.PI));
  const offsets = params.offset === undefined ? (inputs[1] as View) : undefined;
  return {
    steps: [
      {
        shader: `rope/rope_${floatSuffix(x)}`,
        constants: [lanes, Number(whole), Number(params.traditional), Number(params.freqs), offsets ? (offsets.size > 1 ? 2 : 1) : 0],
        buffers: [gpuInput(0), gpuOutput(0), gpuInput(offsets ? 1 : 0), ...(params.freqs ? [gpuInput(inputs.length - 1)] : [])],
        ...(params.freqs ? {} : { table: turnsTable(params) }),
        words: [count, heads.size, length, width, half, ...strides, headsEach, params.offset ?? 0, low, high, exponent, Number(params.scale < 0)],
        groups: spreadGroups(Math.ceil(count / lanes)),
      },
    ],
  };
}

const anyRows: readonly InputLayout[] = ["last", "row"];
const allRows: readonly InputLayout[] = ["row"];
export const gpuRope: readonly GpuKernel<RopeParams>[] = [
  {
    name: "vulkan/rope/rope",
    layout: ([x]) => (walks(x as View) ? anyRows : allRows),
    inPlace: [0],
    gate: {
      typeNeeds: halfNeeds,
      env: "MLX_VK_ENABLE_ROPE_NATIVE",
      refuse: ([x]) => {
        const v = x as View;
        if (!floatSuffix(v)) return `cannot: dtype ${v.dtype}`;
        return v.size >= 2 ** 31 || (walks(v) && reachOf(v) >= 2 ** 32) ? "cannot: more than 2^31 elements" : undefined;
      },
    },
    launch: (inputs, [out], params) => launch(inputs, out as View, params),
  },
];
