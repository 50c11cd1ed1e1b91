/** Launches of copies, gathers, scatters and fills, run on one thread in chunks of random size and order, against each op's float64 reference. */
import { describe, expect, test } from "vitest";
import { modules } from "../src/backend/wasm/modules.gen.ts";
import type { Aval, View } from "../src/core/array.ts";
import { type Dtype, dtypes, bitsArray, fromBfloat16Bits, fromFloat16Bits, roundTo, bool, complex64, int32, uint32, int64, uint8, float32, bfloat16, float16 } from "../src/core/dtype.ts";
import { satisfies } from "../src/schedule/gate.ts";
import { type Arg, type Kernel, type Op, ops } from "../src/core/op.ts";
import { isContiguous, rowStrides, sizeOf } from "../src/core/shape.ts";
import { storeNumbers } from "../src/ops/convert.ts";
import { forEachIndex } from "../src/ops/oracle.ts";
import "../src/ops/copy.ts";
import "../src/ops/creation.ts";
import "../src/ops/concat.ts";
import "../src/ops/indexing.ts";
import "../src/ops/pad.ts";
import "../src/ops/slice.ts";
import { type Build, builds } from "./helpers/kernels.ts";

const guard = 64;
let seed = 12345;
const random = (n: number): number => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
};

/** Shared memory with the modules that launches name. */
class Machine {
  readonly memory = new WebAssembly.Memory({ initial: 1024, maximum: 65536, shared: true });
  private top = 65536 + (4 << 20);
  private readonly loaded = new Map<string, Record<string, unknown>>();
  private readonly build: Build;
  constructor(build: Build) {
    this.build = build;
  }
  alloc(bytes: number): number {
    const at = this.top;
    this.top = (this.top + bytes + 2 * guard + 63) & ~63;
    if (this.top > this.memory.buffer.byteLength) this.memory.grow(Math.ceil((this.top - this.memory.buffer.byteLength) / 65536));
    new Uint8Array(this.memory.buffer, at, bytes + 2 * guard).fill(0xaa);
    return at + guard;
  }
  /** Throws when the bytes around an allocation were written. */
  checkGuards(at: number, bytes: number): void {
    for (const from of [at - guard, at + bytes]) for (const b of new Uint8Array(this.memory.buffer, from, guard)) if (b !== 0xaa) throw new Error("guard bytes were written");
  }
  kernel(entry: string): (a: number, begin: number, end: number) => void {
    const [family, name] = entry.split("/") as [keyof typeof modules, string];
    let exports = this.loaded.get(family);
    if (!exports) {
      const scratch = new WebAssembly.Global({ value: "i32" }, 65536);
      exports = new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(modules[family][this.build], "base64")), { env: { memory: this.memory, scratch } }).exports as Record<string, unknown>;
      this.loaded.set(family, exports);
    }
    const f = exports[name];
    if (typeof f !== "function") throw new Error(`no kernel ${entry}`);
    return f as (a: number, begin: number, end: number) => void;
  }
}

interface Operand {
  view: View;
  /** Row-major values. */
  values: Float64Array;
  address: number;
}
interface Input {
  dtype: Dtype;
  shape: number[];
  /** Row-major values; made up when missing. */
  values?: number[];
  /** Order in which the dimensions lie in memory, gaps and direction: to test strides. */
  layout?: { order?: number[]; gap?: number; reverse?: boolean; broadcast?: number[] };
}
const read = (m: Machine, d: Dtype, address: number, n: number): Float64Array => {
  const bytes = new Uint8Array(m.memory.buffer, address, n * d.size).slice();
  const bits = new bitsArray[d.name](bytes.buffer as ArrayBuffer);
  const number = d.name === "bfloat16" ? fromBfloat16Bits : d.name === "float16" ? fromFloat16Bits : Number;
  return Float64Array.from({ length: bits.length }, (_, i) => number(bits[i] as number));
};

function place(m: Machine, input: Input): Operand {
  const { shape, dtype, layout = {} } = input;
  const repeated = new Set(layout.broadcast ?? []);
  const stored = shape.map((d, i) => (repeated.has(i) ? 1 : d));
  const order = layout.order ?? shape.map((_, i) => i);
  const strides = shape.map(() => 0);
  let step = 1;
  for (const axis of [...order].reverse()) {
    strides[axis] = repeated.has(axis) ? 0 : step;
    step *= (stored[axis] as number) + (layout.gap ?? 0);
  }
  const span = Math.max(1, step);
  let offset = 0;
  if (layout.reverse) shape.forEach((d, i) => { offset += (d - 1) * (strides[i] as number); strides[i] = -(strides[i] as number); });
  if (sizeOf(shape) === 0) offset = 0;
  const width = dtype === complex64 ? 2 : 1;
  const memory = new Float64Array(span * width);
  const values = new Float64Array(sizeOf(shape) * width);
  const made = Array.from({ length: span * width }, () => (dtype === bool ? random(2) : random(100) + (dtype.kind === "signed" || dtype.isFloat ? -50 : 0)));
  forEachIndex(shape, (index, n) => {
    const at = index.reduce((sum, i, d) => sum + i * (strides[d] as number), offset);
    for (let k = 0; k < width; k++) {
      memory[at * width + k] = ((k === 0 ? input.values?.[n] : undefined) ?? made[at * width + k]) as number;
      values[n * width + k] = memory[at * width + k] as number;
    }
  });
  const address = m.alloc(span * dtype.size);
  storeNumbers(new Uint8Array(m.memory.buffer, address, span * dtype.size), width === 2 ? float32 : dtype, span * width, (i) => memory[i] as number);
  return { view: { shape, dtype, strides, offset, size: sizeOf(shape), contiguous: isContiguous(shape, strides) }, values, address: address + offset * dtype.size };
}

function resolve(arg: Arg, m: Machine, inputs: Operand[], outputs: number[], scratch: number[]): number {
  if (typeof arg === "number") return arg;
  if ("f32" in arg) return new Int32Array(new Float32Array([arg.f32]).buffer)[0] as number;
  if (arg.of === "word") {
    const at = m.alloc(4);
    new Int32Array(m.memory.buffer, at, 1)[0] = arg.index;
    return at;
  }
  const base = arg.of === "input" ? (inputs[arg.index] as Operand).address : ((arg.of === "output" ? outputs : scratch)[arg.index] as number);
  return base + arg.bytes;
}

/** Runs every kernel of an op that takes these arguments and compares with its reference. */
function check(build: Build, name: string, params: object, given: Input[]): void {
  const op = ops.get(name) as Op;
  const taken = op.kernels.filter((kernel) => checkOne(build, op, kernel, params, given));
  if (taken.length === 0) throw new Error(`no kernel of ${name} takes this`);
}
/** False when the kernel's gate refuses, or it wants another layout. */
function checkOne(build: Build, op: Op, kernel: Kernel, params: object, given: Input[]): boolean {
  const m = new Machine(build);
  const inputs = given.map((i) => place(m, i));
  const avals: Aval[] = given.map((i) => ({ shape: i.shape, dtype: i.dtype }));
  const out = op.infer(avals, params);
  const outputs = out.map((o) => m.alloc(sizeOf(o.shape) * o.dtype.size));
  const views = out.map((o): View => ({ ...o, strides: rowStrides(o.shape), offset: 0, size: sizeOf(o.shape), contiguous: true }));
  const refusal = kernel.gate?.refuse?.(inputs.map((i) => i.view), params, views);
  if (refusal?.startsWith("cannot:")) return false;
  // The scheduler would make a copy.
  const layouts = typeof kernel.layout === "function" ? kernel.layout(inputs.map((i) => i.view), params) : kernel.layout;
  if (inputs.some((i, k) => !satisfies(i.view, layouts?.[Math.min(k, layouts.length - 1)] ?? "row"))) return false;
  if (kernel.base !== undefined) {
    const base = inputs[kernel.base] as Operand;
    const bytes = sizeOf((out[0] as Aval).shape) * (out[0] as Aval).dtype.size;
    new Uint8Array(m.memory.buffer, outputs[0], bytes).set(new Uint8Array(m.memory.buffer, base.address, bytes));
  }
  const launch = kernel.launch(inputs.map((i) => i.view), views, params);
  for (const step of launch.steps) {
    const words = step.args.map((a) => resolve(a, m, inputs, outputs, []));
    const block = m.alloc(words.length * 4);
    new Int32Array(m.memory.buffer, block, words.length).set(words.map((w) => w | 0));
    const run = m.kernel(step.entry as string);
    const chunks: [number, number][] = [];
    for (let u = 0; u < step.units; ) {
      const n = 1 + random(Math.max(1, Math.min(step.units, 7)));
      chunks.push([u, Math.min(step.units, u + n)]);
      u += n;
    }
    chunks.sort(() => random(3) - 1);
    for (const [begin, end] of chunks) run(block, begin, end);
  }
  const expected = (op.reference as NonNullable<typeof op.reference>)(inputs.map((i) => i.values), avals, params, out);
  out.forEach((o, i) => {
    m.checkGuards(outputs[i] as number, sizeOf(o.shape) * o.dtype.size);
    const got = read(m, o.dtype, outputs[i] as number, sizeOf(o.shape));
    expect([...got].map((v) => v + 0)).toEqual([...(expected[i] as Float64Array)].map((v) => roundTo(o.dtype, v) + 0));
  });
  return true;
}

const sizes: Dtype[] = [uint8, bfloat16, float32, int64];
const region = (start: number[], step: number[], shape: number[]) => ({ start, step, shape });

for (const build of builds) {
  describe(`${build} build`, () => {
    test.each(sizes)("copies from any layout, %s", (dtype) => {
      const shapes = [[], [0], [1], [7], [3, 0, 2], [5, 6], [33, 65], [2, 40, 37], [3, 4, 1, 9], [2, 3, 4, 5, 3], [3, 70000]];
      for (const shape of shapes) {
        check(build, "copy", {}, [{ dtype, shape }]);
        const big = sizeOf(shape) > 100000;
        const order = shape.map((_, i) => i).reverse();
        check(build, "copy", {}, [{ dtype, shape, layout: { order } }]);
        if (big) continue;
        check(build, "copy", {}, [{ dtype, shape, layout: { gap: 3 } }]);
        check(build, "copy", {}, [{ dtype, shape, layout: { order, gap: 1, reverse: true } }]);
        check(build, "copy", {}, [{ dtype, shape, layout: { reverse: true } }]);
        if (shape.length > 0) {
          check(build, "copy", {}, [{ dtype, shape, layout: { broadcast: [shape.length - 1] } }]);
          check(build, "copy", {}, [{ dtype, shape, layout: { broadcast: [0], gap: 1 } }]);
        }
        if (shape.length > 2) check(build, "copy", {}, [{ dtype, shape, layout: { order: [1, 0, ...order.slice(0, -2).reverse()] } }]);
      }
    });

    test.each(sizes)("writes slices, %s", (dtype) => {
      check(build, "sliceUpdate", region([1, 2, 0], [1, 2, 1], [2, 3, 5]), [{ dtype, shape: [4, 8, 5] }, { dtype, shape: [2, 3, 5] }]);
      check(build, "sliceUpdate", region([3, 7], [-1, -3], [4, 3]), [{ dtype, shape: [4, 8] }, { dtype, shape: [4, 3], layout: { order: [1, 0], gap: 2 } }]);
      check(build, "sliceUpdate", region([0, 0, 9, 0], [1, 1, 1, 1], [1, 4, 3, 16]), [{ dtype, shape: [1, 4, 20, 16] }, { dtype, shape: [1, 4, 3, 16], layout: { order: [0, 2, 1, 3] } }]);
      check(build, "sliceUpdate", region([1], [1], [0]), [{ dtype, shape: [4] }, { dtype, shape: [0] }]);
      for (const start of [[2, 1], [-3, 99]]) {
        check(build, "dynamicSliceUpdate", { axes: [1, 2] }, [{ dtype, shape: [2, 6, 5] }, { dtype, shape: [2, 3, 2] }, { dtype: int32, shape: [2], values: start }]);
        check(build, "dynamicSlice", { axes: [2, 1], shape: [2, 4, 2] }, [{ dtype, shape: [2, 6, 5], layout: { order: [2, 0, 1] } }, { dtype: int32, shape: [2], values: start }]);
      }
    });

    test.each(sizes)("concatenates and pads, %s", (dtype) => {
      const tall = { dtype, shape: [2, 3, 4], layout: { order: [2, 1, 0] } };
      check(build, "concatenate", { axis: 0 }, [{ dtype, shape: [1, 3, 4] }, tall, { dtype, shape: [0, 3, 4] }]);
      check(build, "concatenate", { axis: 1 }, [{ dtype, shape: [2, 1, 4], layout: { gap: 1 } }, tall]);
      check(build, "concatenate", { axis: 2 }, [{ dtype, shape: [2, 3, 1] }, tall, tall]);
      check(build, "pad", { low: [1, 0], high: [2, 3] }, [{ dtype, shape: [3, 5], layout: { order: [1, 0] } }, { dtype, shape: [] }]);
      check(build, "pad", { low: [2], high: [0] }, [{ dtype, shape: [0] }, { dtype, shape: [] }]);
      check(build, "diag", { k: -2 }, [{ dtype, shape: [5], layout: { reverse: true } }, { dtype, shape: [], values: [0] }]);
      check(build, "diag", { k: 1 }, [{ dtype, shape: [3] }, { dtype, shape: [], values: [0] }]);
    });

    test.each(sizes)("gathers, %s", (dtype) => {
      const rows = { dtype: int32, shape: [2, 3], values: [0, -1, 8, 3, 99, -99] };
      for (const shape of [[9, 40], [9, 1], [9, 300]]) check(build, "gather", { axes: [0], at: 0 }, [{ dtype, shape }, rows]);
      check(build, "gather", { axes: [1], at: 1 }, [{ dtype, shape: [4, 9, 5], layout: { order: [2, 0, 1] } }, rows]);
      check(build, "gather", { axes: [2], at: 2 }, [{ dtype, shape: [4, 3, 9] }, { ...rows, layout: { order: [1, 0] } }]);
      check(build, "gather", { axes: [0, 2], at: 1 }, [{ dtype, shape: [4, 3, 9] }, { dtype: uint8, shape: [2, 3] }, { dtype: int64, shape: [2, 3], values: [1, 2, 3, -4, 2 ** 40, -(2 ** 40)] }]);
      check(build, "gather", { axes: [0, 1], at: 0 }, [{ dtype, shape: [4, 3] }, { dtype: uint32, shape: [], values: [2] }, { dtype: int32, shape: [], values: [-1] }]);
      check(build, "gather", { axes: [0], at: 0 }, [{ dtype, shape: [3, 0] }, rows]);
      check(build, "takeAlongAxis", { axis: 1 }, [{ dtype, shape: [3, 9], layout: { order: [1, 0] } }, { dtype: int32, shape: [3, 5] }]);
      check(build, "takeAlongAxis", { axis: 0 }, [{ dtype, shape: [4, 3, 2] }, { dtype: int32, shape: [6, 3, 2], layout: { broadcast: [1, 2] } }]);
    });

    const modes = ["assign", "add", "multiply", "maximum", "minimum"] as const;
    test.each(modes)("scatters with %s, all dtypes", (mode) => {
      for (const dtype of dtypes) {
        // Small values: products of 16-bit floats stay exact.
        const small = (shape: number[]): Input => ({ dtype, shape, values: Array.from({ length: sizeOf(shape) }, () => (dtype === bool ? random(2) : random(3) + 1)) });
        const whole = (shape: number[]) => region(shape.map(() => 0), shape.map(() => 1), shape);
        const repeated = { dtype: int32, shape: [4], values: [1, -1, 1, 7] };
        check(build, "scatter", { axes: [0], at: 0, mode, region: whole([5, 6]) }, [small([5, 6]), small([4, 6]), repeated]);
        check(build, "scatter", { axes: [1], at: 1, mode, region: region([1, 0, 4], [1, 1, -2], [2, 5, 2]) }, [small([3, 5, 6]), { ...small([2, 4, 2]), layout: { order: [2, 1, 0] } }, repeated]);
        check(build, "scatter", { axes: [0, 1], at: 0, mode, region: whole([5, 6]) }, [small([5, 6]), small([4]), repeated, { dtype: uint8, shape: [4], values: [2, 2, 2, 0] }]);
        check(build, "scatter", { axes: [], at: 0, mode, region: region([1, 1], [1, 2], [2, 2]) }, [small([4, 5]), small([2, 2])]);
        check(build, "putAlongAxis", { axis: 1, mode }, [small([3, 4]), { dtype: int32, shape: [3, 5], values: Array.from({ length: 15 }, (_, i) => (i % 6) - 1) }, small([3, 5])]);
        check(build, "putAlongAxis", { axis: 0, mode }, [small([4, 3]), { dtype: int32, shape: [2, 3], values: [0, 1, 2, 0, 1, 3] }, small([2, 3])]);
      }
      const wide = { dtype: float32, shape: [3, 3000] };
      check(build, "scatter", { axes: [0], at: 0, mode, region: region([0, 0], [1, 1], [3, 3000]) }, [wide, { ...wide, shape: [5, 3000] }, { dtype: int32, shape: [5], values: [0, 0, 1, 2, 0] }]);
    });

    test.each(sizes)("masks, fills and bands, %s", (dtype) => {
      const mask = { dtype: bool, shape: [2, 3], values: [1, 0, 1, 0, 0, 1] };
      for (const n of [1, 2, 3]) check(build, "maskedScatter", { depth: 2 }, [{ dtype, shape: [2, 3, 5] }, mask, { dtype, shape: [n, 5] }]);
      for (const shape of [[], [0], [5], [3, 7], [70001]]) check(build, "full", { shape }, [{ dtype, shape: [] }]);
      for (const k of [-9, -1, 0, 2, 9]) {
        check(build, "band", { low: k, high: k, rows: 4, columns: 6 }, [{ dtype, shape: [], values: [1] }]);
        check(build, "band", { low: -(2 ** 31), high: k, rows: 5, columns: 3 }, [{ dtype, shape: [], values: [1] }]);
        check(build, "bandPart", { low: k, high: 2 ** 31 - 1 }, [{ dtype, shape: [2, 4, 6] }]);
        check(build, "bandPart", { low: -(2 ** 31), high: k }, [{ dtype, shape: [2, 6, 4] }]);
      }
    });

    test("makes ranges of every dtype", () => {
      for (const dtype of dtypes) {
        if (dtype === bool) continue;
        check(build, "arange", { size: 1500, start: 3, step: dtype === float16 ? 1 : 2, last: undefined, dtype }, []);
        check(build, "arange", { size: 0, start: 3, step: 2, last: undefined, dtype }, []);
        if (dtype.isFloat) check(build, "arange", { size: 77, start: -0.3, step: 0.1, last: 7.5, dtype }, []);
        if (dtype.kind === "signed") check(build, "arange", { size: 100, start: 50, step: -1, last: undefined, dtype }, []);
      }
    });
  });
}
