/** Products that add an array as they store their result: every kernel that can, against the product's float64 reference plus the array. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import * as dt from "../src/core/dtype.ts";
import { missingFeature } from "../src/core/gpu.ts";
import type { Node } from "../src/core/op.ts";
import { residualOf } from "../src/ops/residual-gpu.ts";
import { productWithAddend } from "../src/schedule/residual.ts";
import { type TestArray, elementsOf, gpuDevice, opNamed, runKernel, viewOf } from "./helpers/gpu.ts";
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
