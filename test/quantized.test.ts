/** Quantization through the library: against the float64 references, and its errors. */
import { afterEach, describe, expect, it } from "vitest";
import { core as mx } from "../src/index.ts";
import type { MxArray } from "../src/core/array.ts";
import { valuesOf } from "../src/debug/oracle.ts";
import { engine } from "../src/core/engine.ts";
import { setTracer } from "../src/schedule/run.ts";
import { checkSamples } from "./helpers/check.ts";
import { quantizedSamples } from "./samples/quantized.ts";

afterEach(() => {
  delete process.env["MLX_DISABLE"];
  delete process.env["MLX_FORCE"];
});

describe("quantize", () => checkSamples(mx.quantize, quantizedSamples.quantize));
describe("dequantize", () => checkSamples(mx.dequantize, quantizedSamples.dequantize));
describe("quantizedMatmul", () => checkSamples(mx.quantizedMatmul, quantizedSamples.quantizedMatmul));
describe("gatherQMM", () => checkSamples(mx.gatherQMM, quantizedSamples.gatherQMM));

/** Evaluated values. */
function read(a: MxArray): number[] {
  mx.eval(a);
  return [...valuesOf(a.desc)];
}
function makeWeights(N: number, K: number, bits = 4): [MxArray, MxArray, MxArray] {
  return mx.quantize(mx.random.normal([N, K], mx.bfloat16, 0, 1, mx.random.key(N + K)), 64, bits);
}
/** Largest difference relative to the largest value. */
function difference(got: readonly number[], want: readonly number[]): number {
  const largest = (list: readonly number[]): number => list.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
  return largest(want.map((v, i) => (got[i] as number) - v)) / largest(want);
}

describe("products", () => {
  it("of one input with several weights are each right (they share its integers)", () => {
    const x = mx.random.normal([1, 256], mx.bfloat16, 0, 1, mx.random.key(1));
    const y = mx.random.normal([1, 256], mx.bfloat16, 0, 1, mx.random.key(2));
    const layers = [makeWeights(40, 256), makeWeights(24, 256), makeWeights(16, 256, 8), makeWeights(8, 256)];
    const bitsOf = [4, 4, 8, 4];
    const together = layers.flatMap(([w, s, b], i) => [x, y].map((v) => mx.quantizedMatmul(v, w, s, b, true, 64, bitsOf[i] as number)));
    mx.eval(...together);
    const alone = layers.flatMap(([w, s, b], i) => [x, y].map((v) => read(mx.quantizedMatmul(v, w, s, b, true, 64, bitsOf[i] as number))));
    together.forEach((a, i) => expect(read(a)).toEqual(alone[i]));
  });

  it("do not take integers of an input whose buffer was reused", () => {
    const [w, s, b] = makeWeights(256, 256);
    let x = mx.random.normal([1, 256], mx.bfloat16, 0, 1, mx.random.key(3));
    let y = x;
    for (let i = 0; i < 5; i++) {
      x = mx.divide(mx.quantizedMatmul(x, w, s, b), 16);
      y = mx.divide(mx.quantizedMatmul(y, w, s, b), 16);
      mx.eval(y);
    }
    expect(read(x)).toEqual(read(y));
  });

  // About two kernels of the CPU.
  it.skipIf(mx.defaultDevice().type === "gpu")("of one row have kernels of their own that give the same bits, special values included", () => {
    const oneRowKernels = ["qmvRow", "qmvRow16", "qmvPair16", "qmvPair32"].map((n) => `wasm/quantized/${n}`);
    for (const [dtype, group] of [[mx.bfloat16, 32], [mx.bfloat16, 64], [mx.bfloat16, 128], [mx.float32, 64], [mx.float32, 128], [mx.float16, 64]] as const) {
      for (const special of [undefined, Number.NaN, Number.POSITIVE_INFINITY]) {
        const [w, s, b] = mx.quantize(mx.random.normal([44, 1024], mx.bfloat16, 0, 1, mx.random.key(7)), group, 4) as [MxArray, MxArray, MxArray];
        const x = mx.random.normal([1, 1024], mx.float32, 0, 1, mx.random.key(8)).astype(dtype);
        if (special !== undefined) x.indexPut_([0, 5], special);
        const product = (): { kernels: string[]; values: number[] } => {
          const kernels: string[] = [];
          setTracer({ recorded: (node, kernel) => node.op.name === "quantizedMatmul" && kernels.push(kernel) });
          const values = read(mx.quantizedMatmul(x, w, s, b, true, group, 4));
          setTracer(undefined);
          return { kernels, values };
        };
        process.env["MLX_DISABLE"] = oneRowKernels.join(",");
        const general = product();
        expect(general.kernels).toEqual(["wasm/quantized/qmv"]);
        for (const name of oneRowKernels.filter((n) => n.endsWith("qmvRow") || (engine.relaxed && (group > 32 || !n.includes("Pair"))))) {
          process.env["MLX_DISABLE"] = oneRowKernels.filter((n) => n !== name).join(",");
          process.env["MLX_FORCE"] = name;
          expect(product()).toEqual({ kernels: [name], values: general.values });
        }
        delete process.env["MLX_DISABLE"];
        delete process.env["MLX_FORCE"];
      }
    }
  });

  it.skipIf(mx.defaultDevice().type === "gpu")("of many rows have the same bits in 8-bit and in 16-bit lanes, special values included", () => {
    const [w, s, b] = mx.quantize(mx.random.normal([43, 640], mx.bfloat16, 0, 1, mx.random.key(7)), 64, 4) as [MxArray, MxArray, MxArray];
    for (const dtype of [mx.bfloat16, mx.float32]) {
      const x = mx.random.normal([37, 640], mx.float32, 0, 1, mx.random.key(8)).astype(dtype);
      x.indexPut_([35, 5], Number.NaN);
      const product = (): { kernels: string[]; values: number[] } => {
        const kernels: string[] = [];
        setTracer({ recorded: (node, kernel) => node.op.name === "quantizedMatmul" && kernels.push(kernel) });
        const values = read(mx.quantizedMatmul(x, w, s, b, true, 64, 4));
        setTracer(undefined);
        return { kernels, values };
      };
      const half = product();
      const first = !engine.relaxed || (dtype === mx.bfloat16 && !engine.int8Dot) ? "qmmHalf" : engine.int8Dot ? "qmm" : "qmm16";
      expect(half.kernels).toEqual([`wasm/quantized/${first}`]);
      process.env["MLX_DISABLE"] = "wasm/quantized/qmmHalf,wasm/quantized/qmm16";
      expect(product()).toEqual({ kernels: ["wasm/quantized/qmm"], values: half.values });
      delete process.env["MLX_DISABLE"];
    }
  });

  it("agree between kernels for few and many rows, and with the dense product", () => {
    const x = mx.random.normal([5, 256], mx.float32, 0, 1, mx.random.key(4));
    for (const bits of [2, 3, 4, 5, 6, 8]) {
      const [w, s, b] = makeWeights(33, 256, bits);
      mx.eval(x, w, s, b);
      const one = (): number[] => read(mx.quantizedMatmul(x, w, s, b, true, 64, bits));
      process.env["MLX_DISABLE"] = "wasm/quantized/qm*";
      const want = one();
      process.env["MLX_DISABLE"] = "wasm/quantized/qmm";
      process.env["MLX_FORCE"] = "wasm/quantized/qmv";
      expect(difference(one(), want)).toBeLessThan(2e-6);
      process.env["MLX_DISABLE"] = "wasm/quantized/qmv";
      expect(difference(one(), want)).toBeLessThan(2e-6);
    }
  });

  it("of chosen matrices agree with the dense product", () => {
    const w = mx.quantize(mx.random.normal([4, 24, 128], mx.float32, 0, 1, mx.random.key(11)), 64, 4);
    const x = mx.random.normal([3, 2, 128], mx.float32, 0, 1, mx.random.key(12));
    const one = (): number[] => read(mx.gatherQMM(x, ...w, null, mx.array([[3], [0], [3]], mx.uint32), true, 64, 4));
    mx.eval(x, ...w);
    process.env["MLX_DISABLE"] = "wasm/quantized/g*";
    const want = one();
    delete process.env["MLX_DISABLE"];
    expect(difference(one(), want)).toBeLessThan(2e-6);
  });

  it("use every thread's part of a large matrix", () => {
    const [N, K] = [4001, 512];
    const [w, s, b] = makeWeights(N, K);
    for (const M of [1, 40]) {
      const x = mx.random.normal([M, K], mx.float32, 0, 1, mx.random.key(5));
      const want = read(mx.matmul(x, mx.transpose(mx.dequantize(w, mx.astype(s, mx.float32), mx.astype(b, mx.float32)))));
      expect(difference(read(mx.quantizedMatmul(x, w, s, b)), want)).toBeLessThan(2e-6);
    }
  });

  it("of quantized weights stay near the product of the original ones", () => {
    const w = mx.random.normal([64, 512], mx.float32, 0, 1, mx.random.key(6));
    const x = mx.random.normal([4, 512], mx.float32, 0, 1, mx.random.key(7));
    const want = read(mx.matmul(x, mx.transpose(w)));
    // A normal group of 64 spans about 5 deviations; rounding to 2^bits steps of it is uniform noise.
    for (const [bits, bound] of [[8, 0.02], [6, 0.08], [4, 0.3]] as const) {
      expect(difference(read(mx.quantizedMatmul(x, ...mx.quantize(w, 64, bits), true, 64, bits)), want)).toBeLessThan(bound);
    }
  });
});

describe("arguments", () => {
  it("may be left out, and a stream may stand in any place", () => {
    const w = mx.random.normal([4, 64], mx.float32, 0, 1, mx.random.key(8));
    const [q, s, b] = mx.quantize(w);
    const x = mx.ones([2, 64]);
    const want = read(mx.quantizedMatmul(x, q, s, b, true, 64, 4, "affine"));
    expect(read(mx.quantizedMatmul(x, q, s, b))).toEqual(want);
    // Another device adds in another order.
    read(mx.quantizedMatmul(x, q, s, b, mx.cpu)).forEach((y, i) => expect(y).toBeCloseTo(want[i] as number, 4));
    expect(read(mx.quantizedMatmul(x, q, s, b, null, undefined, 4))).toEqual(want);
    expect(read(mx.dequantize(q, s, b, mx.cpu))).toEqual(read(mx.dequantize(q, s, b, 64, 4)));
    expect(mx.quantize(w, mx.cpu).map((a) => a.shape)).toEqual([[4, 8], [4, 1], [4, 1]]);
  });

  const w = (): [MxArray, MxArray, MxArray] => makeWeights(8, 128);
  const cases: [name: string, call: () => unknown, message: string][] = [
    ["group size", () => mx.quantize(mx.ones([2, 96]), 48), "[quantize] group size must be 32, 64 or 128, got 48"],
    ["bits", () => mx.quantize(mx.ones([2, 64]), 64, 7), "[quantize] bits must be 2, 3, 4, 5, 6 or 8, got 7"],
    ["integers", () => mx.quantize(mx.ones([2, 64], mx.int32)), "[quantize] the matrix must be float32, float16 or bfloat16, got int32"],
    ["vector", () => mx.quantize(mx.ones([64])), "[quantize] the matrix must have at least 2 dimensions, got (64)"],
    ["ragged", () => mx.quantize(mx.ones([2, 65])), "[quantize] the last dimension must be a multiple of the group size 64, got (2,65)"],
    ["words", () => mx.dequantize(mx.ones([2, 8]), mx.ones([2, 1]), mx.ones([2, 1])), "[dequantize] the weights must be uint32, got float32"],
    ["scales", () => mx.dequantize(w()[0], mx.ones([8, 3]), mx.ones([8, 3])), "[dequantize] weights and scales do not fit each other with groupSize=64 and bits=4, got weights (8,16) and scales (8,3)"],
    ["biases", () => mx.dequantize(w()[0], w()[1], mx.ones([8, 1])), "[dequantize] scales and biases must have the same shape, got (8,2) and (8,1)"],
    ["no biases", () => mx.quantizedMatmul(mx.ones([1, 128]), w()[0], w()[1]), "[quantizedMatmul] affine quantization needs biases, got none"],
    ["inner", () => mx.quantizedMatmul(mx.ones([1, 64]), ...w()), "[quantizedMatmul] last dimension of x must equal the rows of the unpacked matrix, got (1,64) and (128,8) from (8,16) with groupSize=64, bits=4, transpose=true"],
    ["wrong bits", () => mx.quantizedMatmul(mx.ones([1, 128]), ...w(), true, 64, 8), "[quantizedMatmul] weights and scales do not fit each other with groupSize=64 and bits=8, got weights (8,16) and scales (8,2)"],
    ["complex x", () => mx.quantizedMatmul(mx.zeros([1, 128], mx.complex64), ...w()), "[quantizedMatmul] x must be float32, float16 or bfloat16, got complex64"],
    ["scalar x", () => mx.quantizedMatmul(1, ...w()), "[quantizedMatmul] x must have at least one dimension, got a scalar"],
    ["batches", () => mx.gatherQMM(mx.ones([3, 1, 128]), ...makeStack(), mx.array([0, 1], mx.uint32), mx.array([0, 1, 2], mx.uint32)), "[gatherQMM] shapes do not broadcast, got (2) and (3)"],
    ["float indices", () => mx.gatherQMM(mx.ones([3, 1, 128]), ...makeStack(), null, mx.array([0, 1, 2])), "[gatherQMM] indices must be integers, got float32"],
  ];
  const makeStack = (): [MxArray, MxArray, MxArray] => mx.quantize(mx.ones([3, 4, 128]));
  it.each(cases)("%s", (_name, call, message) => {
    expect(call).toThrow(message);
  });

  it("indices out of range stay inside the matrices", () => {
    const [q, s, b] = mx.quantize(mx.random.normal([3, 4, 64], mx.float32, 0, 1, mx.random.key(9)));
    const x = mx.random.normal([2, 1, 64], mx.float32, 0, 1, mx.random.key(10));
    const at = (l: number, r: number): number[] => read(mx.gatherQMM(x, q, s, b, mx.array([l], mx.uint32), mx.array([r], mx.uint32)));
    expect(at(0, 1000)).toEqual(at(0, 2));
    expect(at(4_000_000_000, 1)).toEqual(at(1, 1));
  });
});
