/** Environment flags that switch GPU kernels off or divide their work: each closes its kernels with a reason that reports show, and the result stays right. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { setTracer, stats } from "../src/schedule/run.ts";
import { core as mx } from "../src/index.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { skipReason } from "./helpers/vulkan.ts";

const changed = new Map<string, string | undefined>();
function flag(name: string, value: string): void {
  if (!changed.has(name)) changed.set(name, process.env[name]);
  process.env[name] = value;
}
interface Ran {
  readonly kernels: string[];
  readonly refused: string[];
  readonly values: number[];
}
/** Evaluates on the GPU, with what ran and what was refused. */
function ran(make: () => mx.MxArray): Ran {
  const kernels: string[] = [];
  const refused: string[] = [];
  setTracer({
    recorded: (_node, kernel, reasons) => {
      kernels.push(kernel);
      refused.push(...reasons);
    },
  });
  const y = make();
  mx.eval(y);
  setTracer(undefined);
  return { kernels, refused, values: mx.astype(y, mx.float32, "cpu").reshape([-1]).tolist() as number[] };
}
function expectClose(got: readonly number[], want: readonly number[]): void {
  expect(got).toHaveLength(want.length);
  got.forEach((g, i) => void expect(Math.abs(g - (want[i] as number))).toBeLessThan(2e-5 * (1 + Math.abs(want[i] as number))));
}
const wave = (shape: readonly number[], seed: number): mx.MxArray => {
  const n = shape.reduce((a, b) => a * b, 1);
  return mx.reshape(mx.array(Float32Array.from({ length: n }, (_, i) => Math.sin(seed + 1.7 * i + 0.001 * i * i))), [...shape], "cpu");
};

describe.skipIf(skipReason)("switches of GPU kernels", () => {
  beforeAll(() => {
    chooseTestDevice();
    flag("MLX_VK_SELF_CHECK", "0");
    mx.setDefaultDevice("gpu");
  });
  afterEach(() => {
    setTracer(undefined);
    for (const [k, v] of changed) v === undefined ? delete process.env[k] : (process.env[k] = v);
    changed.clear();
  });
  afterAll(() => {
    mx.setDefaultDevice("cpu");
    vulkanBackend().close();
  });

  const product = (rows: number) => (): mx.MxArray => {
    const [w, scales, biases] = mx.quantize(wave([64, 128], 1), 64, 4, undefined, "cpu") as [mx.MxArray, mx.MxArray, mx.MxArray];
    return mx.quantizedMatmul(wave([rows, 128], 2), w, scales, biases, true, 64, 4);
  };
  const attention = (Tq = 1, Tk = 700) => (): mx.MxArray => mx.fast.scaledDotProductAttention(wave([1, 4, Tq, 32], 1), wave([1, 2, Tk, 32], 2), wave([1, 2, Tk, 32], 3), 0.2);
  const rope = (): mx.MxArray => mx.fast.rope(wave([1, 2, 3, 16], 1), 16, false, 10000, 1, 5);
  const norm = (): mx.MxArray => mx.fast.rmsNorm(wave([3, 64], 1), wave([64], 2), 1e-5);

  test.each([
    ["MLX_VK_ENABLE_QMM_NATIVE", "vulkan/quantized/qmv", product(1)],
    ["MLX_VK_ENABLE_QMM_NATIVE_M1", "vulkan/quantized/qmv", product(1)],
    ["MLX_VK_ENABLE_RMSNORM_NATIVE", "vulkan/norm/rms", norm],
    ["MLX_VK_ENABLE_ROPE_NATIVE", "vulkan/rope/rope", rope],
    ["MLX_VK_ENABLE_SDPA_NATIVE", "vulkan/attention/decode", attention()],
  ] as const)("%s=0 closes %s", (name, kernel, make) => {
    const on = ran(make);
    expect(on.kernels).toContain(kernel);
    flag(name, "0");
    const off = ran(make);
    expect(off.kernels).not.toContain(kernel);
    expect(off.refused).toContain(`${kernel}: switched off by ${name}`);
    expect(mx.explain(make())).toContain(`${kernel}: switched off by ${name}`);
    expectClose(off.values, on.values);
    expect(mx.decode.fusedSteps()).toBe(false);
  });
  test("the switch of all quantized products leaves none; that of single rows leaves the kernels for many", () => {
    flag("MLX_VK_ENABLE_QMM_NATIVE_M1", "0");
    const { kernels } = ran(product(1));
    expect(kernels.some((k) => k.startsWith("vulkan/quantized/mm_"))).toBe(true);
    flag("MLX_VK_ENABLE_QMM_NATIVE", "0");
    expect(ran(product(20)).kernels.filter((k) => k.startsWith("vulkan/quantized/"))).toEqual(["vulkan/quantized/dequantize"]);
  });
  test("lengths that the attention kernels take", () => {
    const free = ran(attention(3, 40));
    for (const [name, value, reason] of [["MLX_VK_SDPA_MAX_K_LEN", "39", "40 keys"], ["MLX_VK_SDPA_MAX_Q_LEN", "2", "3 queries"]] as const) {
      flag(name, value);
      const { kernels, refused, values } = ran(attention(3, 40));
      expect(kernels.filter((k) => k.startsWith("vulkan/attention/"))).toEqual([]);
      expect(refused).toContain(`vulkan/attention/decode: cannot: ${reason}, ${name} is ${value}`);
      expectClose(values, free.values);
      // At the limit it runs.
      flag(name, String(Number(value) + 1));
      expect(ran(attention(3, 40)).kernels).toEqual(free.kernels);
      flag(name, "0");
    }
  });
  test("ranges of the keys: forced, by length, at least, at most", () => {
    /** Dispatches of the attention: two when the ranges are merged, else one. */
    const dispatches = (): number => {
      const before = stats.dispatches;
      values = ran(attention()).values;
      return stats.dispatches - before;
    };
    let values: number[] = [];
    flag("MLX_VK_SDPA_SPLIT_K", "1");
    const one = dispatches();
    const want = values;
    const split = (flags: Record<string, string>): boolean => {
      for (const name of ["SPLIT_K", "SPLITK_MIN_K_LEN", "SPLITK_TARGET_CHUNK", "SPLITK_MAX_PARTS"]) flag(`MLX_VK_SDPA_${name}`, flags[name] ?? "0");
      const n = dispatches();
      expectClose(values, want);
      return n > one;
    };
    expect(split({ SPLIT_K: "1" })).toBe(false);
    for (const n of ["2", "3", "7", "5000"]) expect(split({ SPLIT_K: n })).toBe(true);
    expect(split({ SPLITK_TARGET_CHUNK: "100" })).toBe(true);
    expect(split({ SPLITK_TARGET_CHUNK: "100", SPLITK_MAX_PARTS: "1" })).toBe(false);
    expect(split({ SPLITK_TARGET_CHUNK: "100", SPLITK_MIN_K_LEN: "701" })).toBe(false);
    expect(split({ SPLITK_TARGET_CHUNK: "100", SPLITK_MIN_K_LEN: "700" })).toBe(true);
  });
});
