/** Products that add an array as they store their result: every kernel that can, against the product's float64 reference plus the array. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import * as dt from "../src/core/dtype.ts";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { missingFeature } from "../src/core/gpu.ts";
import type { Node } from "../src/core/op.ts";
import { residualOf } from "../src/ops/residual-gpu.ts";
import { productWithAddend } from "../src/schedule/residual.ts";
import { definitionOf } from "../src/schedule/run.ts";
import { overrideTuned } from "../src/schedule/tune.ts";
import { randomSource } from "./helpers/check.ts";
import { type TestArray, elementsOf, gpuDevice, opNamed, runKernel, viewOf } from "./helpers/gpu.ts";
import { chooseTestDevice, counted } from "./helpers/gpu-scheduler.ts";
import { noise } from "./helpers/rows.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const array = (dtype: dt.Dtype, shape: readonly number[], seed: number, f = (x: number): number => x): TestArray => ({ dtype, shape, values: noise(shape.reduce((a, b) => a * b, 1), seed).map(f) });

describe("which products take an addend", () => {
  const [f32, bf16] = [dt.float32, dt.bfloat16];
  const of = (name: string, params: object, to: readonly number[], from: readonly number[], dtype = f32): boolean => residualOf({ name, params }, { shape: to, dtype: f32 }, { shape: from, dtype }) !== undefined;
  test("a row or a whole array for matmul, a whole array for quantizedMatmul; of the result's dtype", () => {
    expect([of("matmul", {}, [2, 4, 6], [6]), of("matmul", {}, [2, 4, 6], [2, 4, 6]), of("matmul", {}, [4, 6], [1, 4, 6]), of("matmul", {}, [4, 6], [4, 3]), of("matmul", {}, [4, 6], [4, 6], bf16)]).toEqual([true, true, false, false, false]);
    const packed = { bits: 4, groupSize: 64, transpose: true };
    expect([of("quantizedMatmul", packed, [4, 6], [4, 6]), of("quantizedMatmul", packed, [4, 6], [6]), of("quantizedMatmul", { ...packed, mode: "mxfp4" }, [4, 6], [4, 6]), of("softmax", {}, [4, 6], [4, 6])]).toEqual([true, false, false, false]);
  });
});

describe("sums of the graph that become a product's", () => {
  const sumOf = (build: () => mx.MxArray): ReturnType<typeof productWithAddend> => {
    const sum = mx.tidy(build);
    return productWithAddend(sum.desc.node as Node);
  };
  test("the product is seen by nobody else, on either side of the sum", () => {
    const [a, b, c] = [[4, 8], [8, 6], [4, 6]].map((shape) => mx.zeros(shape)) as [mx.MxArray, mx.MxArray, mx.MxArray];
    for (const order of [0, 1]) {
      const found = sumOf(() => {
        const product = mx.matmul(a, b);
        return order === 0 ? mx.add(product, c) : mx.add(c, product);
      });
      expect([found?.node.op.name, found?.product.op.name, found?.node.inputs.map((d) => d.shape)]).toEqual(["addmm", "matmul", [[4, 8], [8, 6], [4, 6]]]);
    }
    const product = mx.matmul(a, b);
    expect(productWithAddend(mx.add(product, c).desc.node as Node)).toBeUndefined();
    expect(sumOf(() => mx.subtract(mx.matmul(a, b), c))).toBeUndefined();
    expect(sumOf(() => mx.add(mx.matmul(a, b), mx.zeros([3, 4, 6])))).toBeUndefined();
    const [w, terms] = [mx.zeros([6, 8], mx.uint32), mx.zeros([6, 1])];
    const packed = sumOf(() => mx.add(c, mx.quantizedMatmul(mx.zeros([4, 64]), w, terms, terms, true, 64, 4)));
    expect([packed?.node.op.gpu?.map((k) => k.name), packed?.node.inputs.length]).toEqual([["vulkan/quantized/mm_unpacked", "vulkan/quantized/mm_tiled"], 5]);
  });
});

describe.skipIf(skipReason)("products with an addend on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  /** Runs every open kernel; the names of those that ran. Rounding of the result, once, and of sums of K products of numbers up to 4. */
  function check(name: string, inputs: readonly TestArray[], params: object, addend: TestArray): string[] {
    const op = opNamed(name);
    const avals = inputs.map((a) => ({ shape: a.shape, dtype: a.dtype }));
    const outputs = op.infer(avals, params);
    const result = outputs[0] as { shape: readonly number[]; dtype: dt.Dtype };
    const residual = residualOf({ name, params }, result, addend);
    if (!residual) throw new Error("no kernel");
    const product = op.reference?.(inputs.map(elementsOf), avals, params, outputs)[0] as Float64Array;
    const c = elementsOf(addend);
    const want = product.map((v, i) => v + (c[i % c.length] as number));
    const unit = { float32: 2 ** -22, float16: 2 ** -11, bfloat16: 2 ** -8 }[result.dtype.name as "float32"];
    const all = [...inputs, addend];
    const ran: string[] = [];
    for (const kernel of residual.kernels) {
      const gpu = gpuDevice(device.info);
      const refused = kernel.gate?.refuse?.(all.map(viewOf), residual.params, outputs.map(viewOf), gpu);
      if (missingFeature(kernel.gate, all.map(viewOf), gpu.features) !== undefined || refused?.startsWith("cannot:")) continue;
      const [got] = runKernel(device, { ...kernel, gate: {} }, all, outputs, residual.params) as [Float64Array];
      // Matrix units take the unpacked weights rounded to their type.
      const absolute = kernel.name.endsWith("unpacked") ? 2 * unit * Math.sqrt(avals[0]?.shape[1] as number) : 1e-4;
      want.forEach((w, i) => {
        if (!(Math.abs((got[i] as number) - w) <= absolute + 1.01 * unit * Math.abs(w))) throw new Error(`${kernel.name}: [${i}] is ${got[i]}, expected ${w}`);
      });
      ran.push(kernel.name);
    }
    return ran;
  }

  test("dense: a row, a whole array, few rows, long sums in parts", () => {
    expect(check("matmul", [array(dt.float32, [33, 48], 1), array(dt.float32, [48, 40], 2)], {}, array(dt.float32, [40], 3))).toContain("vulkan/matmul/tiled");
    expect(check("matmul", [array(dt.bfloat16, [20, 1024], 4), array(dt.bfloat16, [1024, 24], 5)], {}, array(dt.bfloat16, [20, 24], 6))).toContain("vulkan/matmul/tiled");
    expect(check("matmul", [array(dt.float32, [2, 64], 7), array(dt.float32, [64, 40], 8)], {}, array(dt.float32, [2, 40], 9))).toContain("vulkan/matmul/gemv");
  });
  test.each([["float32", dt.float32], ["float16", dt.float16], ["bfloat16", dt.bfloat16]] as const)("quantized, %s: one part and several", (_, dtype) => {
    for (const [M, N, K] of [[65, 70, 64], [40, 24, 1024]] as const) {
      const [bits, groupSize] = [4, 64];
      const weights: TestArray = { dtype: dt.uint32, shape: [N, (K * bits) / 32], values: noise((N * K * bits) / 32, 11).map((v) => Math.floor(((v + 2) / 4) * 2 ** 32)) };
      const inputs = [array(dtype, [M, K], 10, (v) => v / 2), weights, array(dtype, [N, K / groupSize], 12, (v) => (3 + v) / 64), array(dtype, [N, K / groupSize], 13, (v) => (v - 2) / 8)];
      expect(check("quantizedMatmul", inputs, { bits, groupSize, transpose: true }, array(dtype, [M, N], 14, (v) => 8 * v))).toContain("vulkan/quantized/mm_tiled");
    }
  });
});

type A = mx.MxArray;
const matrixUnits = "vulkan/matmul/coopmat,vulkan/quantized/mm_coopmat,vulkan/quantized/mm_unpacked";
/** Groups of elementwise ops have a way of their own to join products (gpu-epilogue.test.ts). */
const groups = "vulkan/epilogue";
/** Runs with kernels disabled, and other flags. */
function disabling<T>(names: string, work: () => T, others: Record<string, string> = {}): T {
  const flags: Record<string, string> = { MLX_DISABLE: `${groups},${names}`, ...others };
  const before = Object.keys(flags).map((k) => [k, process.env[k]] as const);
  Object.assign(process.env, flags);
  try {
    return work();
  } finally {
    for (const [k, v] of before) v === undefined ? delete process.env[k] : (process.env[k] = v);
  }
}
const filled = (shape: readonly number[], seed: number, dtype: dt.Dtype = dt.float32): A => {
  const a = mx.array(Float32Array.from(noise(shape.reduce((x, y) => x * y, 1), seed))).reshape(shape).astype(dtype);
  mx.eval(a);
  return a;
};
const numbers = (a: A): number[] => mx.tidy(() => a.astype(dt.float32).reshape([-1]).tolist() as number[]);
/** Elements, the sums that a product's kernel made, and the dispatches. */
function outcome(build: () => A | A[]): { values: number[][]; sums: number; dispatches: number } {
  const results = [mx.tidy(build)].flat() as A[];
  const { productSums: sums, dispatches } = counted(() => mx.eval(results));
  const values = results.map(numbers);
  for (const r of results) r.dispose();
  return { values, sums, dispatches };
}
/** Every element of a product in float64. */
function product(a: readonly number[], b: readonly number[], [M, K, N]: readonly [number, number, number]): number[] {
  return Array.from({ length: M * N }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < K; k++) sum += (a[Math.floor(i / N) * K + k] as number) * (b[k * N + (i % N)] as number);
    return sum;
  });
}

describe.skipIf(skipReason)("sums of evaluations on the GPU", () => {
  const given = process.env["MLX_DISABLE"];
  let [a, b, c]: A[] = [];
  beforeAll(() => {
    chooseTestDevice();
    process.env["MLX_DISABLE"] = groups;
    mx.setDefaultDevice("gpu");
    [a, b, c] = [filled([12, 20], 1), filled([20, 16], 2), filled([12, 16], 3)];
  });
  afterAll(() => {
    if (given !== undefined) process.env["MLX_DISABLE"] = given;
    else delete process.env["MLX_DISABLE"];
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
  });
  const [A, B, C] = [(): A => a as A, (): A => b as A, (): A => c as A];
  /** Float32 sums are the same with and without: the product's float32 sums are its result. Gives how many sums were joined. */
  function same(build: () => A | A[]): number {
    const [joined, apart] = [outcome(build), disabling("vulkan/residual", () => outcome(build))];
    expect(joined.values).toEqual(apart.values);
    expect([apart.sums, apart.dispatches - joined.dispatches]).toEqual([0, joined.sums]);
    return joined.sums;
  }

  test("one dispatch instead of two, and the same as in float64", () => {
    const build = (): A => mx.add(mx.matmul(A(), B()), C());
    const { values: [got], sums, dispatches } = outcome(build);
    expect([sums, dispatches]).toEqual([1, 1]);
    const want = product(numbers(A()), numbers(B()), [12, 20, 16]);
    const addend = numbers(C());
    got?.forEach((v, i) => expect(Math.abs(v - ((want[i] as number) + (addend[i] as number)))).toBeLessThan(1e-5));
    expect(same(build)).toBe(1);
    expect(disabling("", () => outcome(build), { MLX_FUSE: "0" })).toMatchObject({ sums: 0, dispatches: 2 });
  });
  test("explain and plan show it", () => {
    const y = mx.tidy(() => mx.add(C(), mx.matmul(A(), B())));
    expect(mx.explain(y)).toMatch(/^addmm for matmul and add: float32\(12,20\), float32\(20,16\), float32\(12,16\) -> float32\(12,16\) \[gpu\]\n.*\n {2}gpu: vulkan\/matmul\/tiled/);
    expect(mx.plan(y).steps.map((s) => s.op)).toEqual(["addmm"]);
    disabling("vulkan/residual", () => {
      expect(mx.explain(y)).not.toContain("addmm");
      expect(mx.plan(y).steps.map((s) => s.op)).toEqual(["matmul", "add"]);
    });
    expect(outcome(() => y).sums).toBe(1);
  });
  test("addends that are broadcast, and operands in other layouts", () => {
    const [row, column, square, batch] = [filled([16], 4), filled([12, 1], 5), filled([16, 16], 6), filled([3, 12, 20], 7)];
    expect(same(() => mx.add(mx.matmul(A(), B()), row))).toBe(1);
    expect(same(() => mx.add(column, mx.matmul(A(), B())))).toBe(1);
    expect(same(() => mx.add(mx.matmul(A(), B()), 0.5))).toBe(1);
    expect(same(() => mx.add(mx.matmul(B().T, A().T), C().T))).toBe(1);
    expect(same(() => mx.add(mx.matmul(square, square), square.T))).toBe(1);
    expect(same(() => mx.add(mx.matmul(batch, B()), C()))).toBe(1);
  });
  test("the addend is an operand of the product, or a product itself", () => {
    const square = filled([16, 16], 8);
    expect(same(() => mx.add(mx.matmul(square, square), square))).toBe(1);
    expect(same(() => mx.add(mx.matmul(A(), B()), mx.matmul(C(), square)))).toBe(1);
    expect(same(() => {
      const x = mx.exp(square);
      return mx.add(x, mx.matmul(x, square));
    })).toBe(1);
  });
  test("not where somebody else sees the product, nor where it does not pay", () => {
    expect(same(() => {
      const y = mx.matmul(A(), B());
      return [mx.add(y, C()), mx.exp(y)];
    })).toBe(0);
    expect(same(() => {
      const y = mx.matmul(A(), B());
      return [mx.add(y, C()), y];
    })).toBe(0);
    expect(same(() => {
      const y = mx.matmul(A(), B());
      return mx.add(y, y);
    })).toBe(0);
    // Few rows; other ops in the sum's kernel; a result that is larger than the product.
    expect(same(() => mx.add(mx.matmul(filled([8, 20], 9), B()), 1))).toBe(0);
    expect(same(() => mx.tanh(mx.add(mx.matmul(A(), B()), C())))).toBe(0);
    expect(same(() => mx.add(mx.matmul(A(), B()), filled([2, 12, 16], 10)))).toBe(0);
    const held = mx.matmul(A(), B());
    expect(outcome(() => mx.add(held, C())).sums).toBe(0);
    held.dispose();
  });
  test.each([["float16", dt.float16, 2 ** -11], ["bfloat16", dt.bfloat16, 2 ** -8]] as const)("%s is rounded once", (_, dtype, unit) => {
    const [x, y, z] = [filled([12, 20], 11, dtype), filled([20, 16], 12, dtype), filled([12, 16], 13, dtype)];
    const build = (): A => mx.add(mx.matmul(x, y), z);
    const [joined, apart] = [disabling(matrixUnits, () => outcome(build)), disabling(`${matrixUnits},vulkan/residual`, () => outcome(build))];
    expect([joined.sums, joined.dispatches, apart.sums, apart.dispatches]).toEqual([1, 1, 0, 2]);
    const [exact, addend] = [product(numbers(x), numbers(y), [12, 20, 16]), numbers(z)];
    exact.forEach((p, i) => {
      const want = p + (addend[i] as number);
      const [one, two] = [joined.values[0]?.[i] as number, apart.values[0]?.[i] as number];
      // Sums of 20 products of numbers up to 2, in float32.
      expect(Math.abs(one - want)).toBeLessThanOrEqual(unit * Math.abs(want) + 1e-5);
      expect(Math.abs(one - two)).toBeLessThanOrEqual(unit * (Math.abs(p) + 2 * Math.abs(want)) * (1 + unit) + 1e-5);
    });
  });
  test("quantized products, both ways round; few rows and small floats stay as they are", () => {
    const [w, scales, biases] = mx.quantize(filled([64, 64], 14), 64, 4) as [A, A, A];
    const [x, z] = [filled([12, 64], 15), filled([12, 64], 16)];
    mx.eval(w, scales, biases);
    for (const transpose of [true, false]) {
      const build = (): A => mx.add(z, mx.quantizedMatmul(x, w, scales, biases, transpose, 64, 4));
      expect(same(build)).toBe(1);
      const dense = mx.dequantize(w, scales, biases, 64, 4);
      const [exact, addend] = [product(numbers(x), numbers(transpose ? dense.T : dense), [12, 64, 64]), numbers(z)];
      // Sums of 64 products of numbers up to 2.
      outcome(build).values[0]?.forEach((v, i) => expect(Math.abs(v - ((exact[i] as number) + (addend[i] as number)))).toBeLessThan(1e-4));
    }
    const y = mx.tidy(() => mx.add(z, mx.quantizedMatmul(x, w, scales, biases, true, 64, 4)));
    expect(mx.explain(y)).toMatch(/^quantizedAddmm for quantizedMatmul and add: .*\n.*\n {2}gpu: vulkan\/quantized\/mm_tiled/);
    expect(same(() => mx.add(z, mx.quantizedMatmul(x, w, scales, biases, true, 64, 4)))).toBe(1);
    expect(same(() => mx.add(mx.quantizedMatmul(filled([4, 64], 17), w, scales, biases, true, 64, 4), 1))).toBe(0);
    expect(same(() => mx.add(mx.quantizedMatmul(x, w, scales, biases, true, 64, 4), filled([64], 18)))).toBe(0);
  });
  test("without an open kernel, quantizedAddmm is the product and then the sum", () => {
    const [w, scales, biases] = mx.quantize(filled([64, 64], 19), 64, 4) as [A, A, A];
    const [x, z] = [filled([12, 64], 20), filled([12, 64], 21)];
    const plain = mx.add(mx.quantizedMatmul(x, w, scales, biases, true, 64, 4), z);
    const sum = mx.tidy(() => mx.add(mx.quantizedMatmul(x, w, scales, biases, true, 64, 4), z));
    const [whole] = definitionOf(productWithAddend(sum.desc.node as Node)?.node as Node) as [A];
    const { values: [got], sums } = disabling("vulkan/quantized/mm_*", () => outcome(() => whole));
    expect([sums, got]).toEqual([0, disabling("vulkan/residual,vulkan/quantized/mm_*", () => numbers(plain))]);
  });

  /** A block with a residual connection and a bias, and its loss. */
  const loss = (x: A, w: A, v: A, bias: A): A => {
    const h = mx.add(mx.matmul(mx.tanh(mx.matmul(x, w)), v), x);
    return mx.mean(mx.square(mx.add(mx.matmul(h, w), bias)));
  };
  const weights = (): A[] => [filled([20, 16], 22), filled([16, 20], 23), filled([16], 24)];
  test("gradient steps are the same", () => {
    const step = mx.valueAndGrad(loss as (...args: unknown[]) => A, [1, 2, 3]) as unknown as (...args: A[]) => [A, A[]];
    const train = (): { values: number[]; sums: number } => {
      let params = weights();
      const values: number[] = [];
      const { productSums: sums } = counted(() => {
        for (let i = 0; i < 3; i++) {
          const [value, ...next] = mx.tidy(() => {
            const [value, grads] = step(A(), ...params);
            return [value, ...params.map((p, k) => mx.subtract(p, mx.multiply(grads[k] as A, 0.01)))];
          }) as [A, ...A[]];
          mx.eval(value, next);
          values.push(value.item() as number);
          params = next;
        }
      });
      return { values: [...values, ...params.flatMap(numbers)], sums };
    };
    const [joined, apart] = [train(), disabling("vulkan/residual", train)];
    expect(joined.sums).toBeGreaterThan(0);
    expect(apart.sums).toBe(0);
    joined.values.forEach((v, i) => expect(Math.abs(v - (apart.values[i] as number))).toBeLessThanOrEqual(1e-5 * Math.max(1, Math.abs(v))));
  });
  test("plans of compiled functions have them, and follow the switch", () => {
    const [w, v, bias] = weights() as [A, A, A];
    mx.enableCompile();
    const f = mx.compile((x: A): A[] => [mx.add(mx.matmul(mx.add(mx.matmul(mx.tanh(mx.matmul(x, w)), v), x), w), bias)]);
    const run = (): { values: number[][]; counts: number[] } => {
      const out = f(A());
      const { plansMade, plansReused, plansRefused, dispatches } = counted(() => mx.eval(out));
      return { values: out.map(numbers), counts: [plansMade, plansReused, plansRefused, dispatches] };
    };
    run();
    const [first, second] = [run(), run()];
    expect([first.counts[2], second.counts]).toEqual([0, [0, 1, 0, 4]]);
    const apart = disabling("vulkan/residual", run);
    expect(apart.counts).toEqual([1, 0, 0, 6]);
    expect([first.values, second.values]).toEqual([apart.values, apart.values]);
  });
  test("recordings run again with other numbers", () => {
    const x = filled([12, 20], 25);
    const y = mx.tidy(() => mx.add(mx.matmul(x, B()), C()));
    const recording = mx.Recording.evaluate(y);
    expect(recording.refused).toBeUndefined();
    mx.overwrite(x, numbers(A()));
    recording.run();
    expect(numbers(y)).toEqual(outcome(() => mx.add(mx.matmul(A(), B()), C())).values[0]);
    recording.dispose();
  });
  test("a choice that was measured for the product stays", () => {
    const build = (): A => mx.add(mx.matmul(A(), B()), C());
    const want = outcome(build).values;
    overrideTuned((_, op) => (op.name === "matmul" ? { kernel: "vulkan/matmul/tiled", values: { tile: 8 } } : undefined));
    try {
      expect(outcome(build)).toEqual({ values: want, sums: 0, dispatches: 2 });
    } finally {
      overrideTuned(undefined);
    }
  });
  test("leave nothing behind", () => {
    const run = (): unknown => outcome(() => mx.add(mx.matmul(mx.exp(A()), B()), mx.exp(C())));
    run();
    const [memory, handles] = [mx.getActiveMemory(), mx.getWrappersCount()];
    run();
    expect([mx.getActiveMemory(), mx.getWrappersCount()]).toEqual([memory, handles]);
  });
  test("any graph of products and sums", () => {
    const square = [filled([16, 16], 26), filled([16, 16], 27)].map((x) => mx.multiply(x, 0.125));
    mx.eval(square);
    let joined = 0;
    for (let seed = 1; seed <= 12; seed++) {
      joined += same(() => {
        const random = randomSource(seed);
        const nodes = [...square];
        const any = (): A => nodes[Math.floor(random() * nodes.length)] as A;
        for (let i = 0; i < 12; i++) nodes.push(random() < 0.5 ? mx.matmul(any(), any()) : mx.add(any(), any()));
        return nodes.slice(2).filter((_, i, all) => i === all.length - 1 || random() < 0.1);
      });
    }
    expect(joined).toBeGreaterThan(5);
  });
  test("not on the CPU", () => {
    const build = (): A => mx.add(mx.matmul(A(), B(), "cpu"), C(), "cpu");
    expect(mx.explain(mx.tidy(build))).not.toContain("addmm");
    expect(outcome(build)).toMatchObject({ sums: 0, dispatches: 0 });
    expect(outcome(() => mx.add(mx.matmul(A(), B(), "cpu"), C())).sums).toBe(0);
  });
});
