/**
 * Checks public functions against the float64 oracle (src/debug/oracle.ts).
 *
 *   describe("sum", () => checkSamples(mx.sum, [{ args: [tensor([2, 3]), 1] }, ...]));
 *
 * A sample's arguments may hold `tensor(...)` specs; they become arrays of that shape, dtype and layout when the sample runs. The call builds a lazy
 * graph, the oracle computes it from the op records' references, then it is evaluated and compared. Blocks have guard bytes and start poisoned.
 */
import { expect, it } from "vitest";
import { ArrayDesc, MxArray, type View } from "../../src/core/array.ts";
import type { Dtype } from "../../src/core/dtype.ts";
import { float32 } from "../../src/core/dtype.ts";
import { rowStrides, sizeOf } from "../../src/core/shape.ts";
import { Storage, hostMemory } from "../../src/core/storage.ts";
import { vulkanBackend } from "../../src/backend/vulkan/index.ts";
import { wasmBackend } from "../../src/backend/wasm/index.ts";
import { oracle, valuesOf } from "../../src/debug/oracle.ts";
import { storeNumbers } from "../../src/ops/convert.ts";
import { addTracer, evalArrays } from "../../src/schedule/run.ts";
import { roundedReference } from "./matrix-units.ts";

export type Layout = "row" | "transposed" | "sliced" | "reversed" | "broadcast";
export interface TensorOptions {
  dtype?: Dtype;
  layout?: Layout;
  /** Range of uniform random values (integers when the dtype is one). Default -2 .. 2, integers -4 .. 9 (unsigned 0 .. 9). */
  low?: number;
  high?: number;
  seed?: number;
  /** These values instead of random ones, in row-major order, repeated as needed. */
  values?: readonly number[];
}
export class Tensor {
  readonly shape: readonly number[];
  readonly options: TensorOptions;
  constructor(shape: readonly number[], options: TensorOptions) {
    this.shape = shape;
    this.options = options;
  }
  toString(): string {
    const { dtype = float32, layout = "row" } = this.options;
    return `${dtype}[${this.shape.join(",")}]${layout === "row" ? "" : ` ${layout}`}`;
  }
}
/** Spec of an array argument. */
export const tensor = (shape: readonly number[], options: TensorOptions = {}): Tensor => new Tensor(shape, options);

/** Repeatable random numbers in [0, 1) (mulberry32). */
export function randomSource(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Makes the array of a spec, in the memory layout it names. */
export function build(t: Tensor): MxArray {
  const { dtype = float32, layout = "row", seed = 1, values } = t.options;
  const floating = dtype.isInexact;
  const low = t.options.low ?? (floating ? -2 : dtype.kind === "signed" ? -4 : 0);
  const high = t.options.high ?? (floating ? 2 : dtype.kind === "bool" ? 2 : 9);
  const random = randomSource(seed * 7919 + sizeOf(t.shape));
  const n = sizeOf(t.shape);
  const data = Array.from({ length: n }, (_, i) => {
    if (values) return values[i % values.length] as number;
    const x = low + (high - low) * random();
    return floating ? x : Math.floor(x);
  });
  const { strides, offset, extent } = place(t.shape, layout);
  const desc = ArrayDesc.lazy(t.shape, dtype);
  const storage = new Storage(extent * dtype.size);
  desc.place(storage, strides, offset);
  // Elements that do not belong to the view get a value that would show.
  const all = new Array<number>(extent).fill(77);
  const own = rowStrides(t.shape);
  for (let i = 0; i < n; i++) {
    let at = offset;
    for (let d = 0; d < t.shape.length; d++) at += (Math.floor(i / (own[d] as number)) % (t.shape[d] as number)) * (strides[d] as number);
    all[at] = data[i] as number;
  }
  storeNumbers(hostMemory().bytes(storage.address, storage.bytes), dtype, extent, (i) => all[i] as number);
  return new MxArray(desc);
}

function place(shape: readonly number[], layout: Layout): { strides: number[]; offset: number; extent: number } {
  const n = sizeOf(shape);
  const row = rowStrides(shape);
  switch (layout) {
    case "transposed": {
      const reversed = rowStrides([...shape].reverse()).reverse();
      return { strides: reversed, offset: 0, extent: n };
    }
    case "sliced": {
      // Rows two elements longer than the array, starting at the second element; outer dimensions keep every row.
      const last = shape.length - 1;
      if (last < 0) return { strides: [], offset: 1, extent: 2 };
      const padded = shape.map((d, i) => (i === last ? d + 2 : d));
      return { strides: rowStrides(padded), offset: 1, extent: sizeOf(padded) + 1 };
    }
    case "reversed":
      return { strides: row.map((s) => -s), offset: Math.max(0, n - 1), extent: Math.max(1, n) };
    case "broadcast": {
      const strides = row.slice();
      if (strides.length > 0) strides[0] = 0;
      return { strides, offset: 0, extent: Math.max(1, n / (shape[0] || 1)) };
    }
    default:
      return { strides: row, offset: 0, extent: n };
  }
}

export interface Tolerance {
  rtol: number;
  atol: number;
}
/** Half an ulp of the result's type for one rounding, times a few for the arithmetic before it. */
export const tolerances: Readonly<Record<string, Tolerance>> = {
  float32: { rtol: 2e-6, atol: 2e-6 },
  float64: { rtol: 1e-12, atol: 1e-12 },
  bfloat16: { rtol: 2 ** -7, atol: 1e-6 },
  float16: { rtol: 2 ** -10, atol: 1e-6 },
  complex64: { rtol: 2e-6, atol: 2e-6 },
};
const exact: Tolerance = { rtol: 0, atol: 0 };

export interface Sample {
  args: readonly unknown[];
  name?: string;
  tolerance?: Partial<Tolerance>;
}

/** Throws unless got equals want within the tolerance; NaN equals NaN, infinities must match. `slack`: what elements may be off besides that. */
export function expectClose(got: ArrayLike<number>, want: ArrayLike<number>, { rtol, atol }: Tolerance, what = "value", slack?: Float64Array): void {
  expect(got.length, `${what}: number of elements`).toBe(want.length);
  for (let i = 0; i < want.length; i++) {
    const g = got[i] as number;
    const w = want[i] as number;
    if (Object.is(g, w) || g === w || (Number.isNaN(g) && Number.isNaN(w))) continue;
    const ok = Math.abs(g - w) <= atol + rtol * Math.abs(w) + (slack?.[i] ?? 0);
    if (!ok) throw new Error(`${what} [${i}]: got ${g}, want ${w} (difference ${Math.abs(g - w)}, allowed ${atol + rtol * Math.abs(w)})`);
  }
}

const realize = (x: unknown): unknown => (x instanceof Tensor ? build(x) : Array.isArray(x) ? x.map(realize) : x);
const arraysIn = (x: unknown): MxArray[] => (x instanceof MxArray ? [x] : Array.isArray(x) ? x.flatMap(arraysIn) : []);

/** What a gate sees of an operand; the descriptor itself changes when it is evaluated. */
const viewAlone = ({ shape, dtype, strides, offset, size, contiguous }: View): View => ({ shape, dtype, strides, offset, size, contiguous });
let verify: (() => void) | undefined;

/** Runs one sample. */
export function checkOp(fn: (...args: never[]) => unknown, sample: Sample): void {
  verify ??= wasmBackend().memory.guardBlocks();
  const results = arraysIn((fn as (...args: unknown[]) => unknown)(...sample.args.map(realize)));
  expect(results.length, "number of arrays returned").toBeGreaterThan(0);
  const want = results.map((r) => oracle(r.desc));
  const node = results[0]?.desc.node;
  const inputs = node?.inputs.map((d) => oracle(d)) ?? [];
  const views = node && { inputs: node.inputs.map(viewAlone), outputs: node.outputs.map(viewAlone) };
  let kernel = "";
  const remove = addTracer({ recorded: (n, name) => void (n === node && (kernel = name)) });
  evalArrays(results);
  remove();
  verify();
  const rounded = node && views && kernel.startsWith("vulkan/") ? roundedReference(node, kernel, inputs, views.inputs, views.outputs, vulkanBackend().device) : undefined;
  if (node?.op.invariant && results.length === node.outputs.length && results.every((r, i) => r.desc === node.outputs[i])) {
    const { invariant } = node.op;
    const tolerance = { ...(tolerances[results[0]?.dtype.name ?? ""] ?? exact), ...sample.tolerance };
    const found = invariant(inputs, node.inputs, results.map((r) => valuesOf(r.desc)));
    invariant(inputs, node.inputs, want).forEach((w, i) => expectClose(found[i] as Float64Array, w, tolerance, `invariant ${i}`));
    return;
  }
  results.forEach((r, i) => {
    const tolerance = { ...(tolerances[r.dtype.name] ?? exact), ...sample.tolerance };
    const own = rounded && r.desc === node?.outputs[0] ? rounded : undefined;
    expectClose(valuesOf(r.desc), own?.want ?? (want[i] as Float64Array), tolerance, results.length > 1 ? `output ${i}` : "output", own?.slack);
  });
}

const show = (x: unknown): string => (x instanceof MxArray ? "array" : Array.isArray(x) ? `[${x.map(show).join(", ")}]` : String(x));

/** One test per sample. */
export function checkSamples(fn: (...args: never[]) => unknown, samples: readonly Sample[]): void {
  samples.forEach((s, i) => it(`${i}: ${s.name ?? s.args.map(show).join(", ")}`, () => checkOp(fn, s)));
}
