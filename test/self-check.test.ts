/** The check of the GPU's kernels against the CPU's finds a kernel that lies, closes it, and remembers. */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { elementwiseStep } from "../src/codegen/elementwise-spirv.ts";
import type { View } from "../src/core/array.ts";
import { expr as e } from "../src/core/expr.ts";
import type { GpuKernel, GpuLaunch } from "../src/core/gpu.ts";
import { samplesOf } from "../src/debug/samples.ts";
import { type Sample, checkKernels, selfCheck } from "../src/debug/self-check.ts";
import { generateStep, load } from "../src/llm/index.ts";
import * as mx from "../src/mx.ts";
import { closedKernels } from "../src/schedule/gate.ts";
import { addTracer, installBeforeGpu, stats } from "../src/schedule/run.ts";
import { opNamed } from "./helpers/gpu.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { arch } from "./helpers/llm.ts";
import { skipReason } from "./helpers/vulkan.ts";

chooseTestDevice();
// Here it runs when a test says so.
installBeforeGpu(() => {});

/** Gives its input back, whatever it should compute. */
const liar: GpuKernel = {
  name: "vulkan/test/liar",
  launch: ([x], _outputs, _params, device) => {
    const v = x as View;
    const step = elementwiseStep({ shape: v.shape, inputs: [{ dtype: v.dtype, strides: v.strides }], outputs: [{ dtype: v.dtype, value: e.input(0, v.dtype) }], expr: e }, device);
    if (typeof step === "string") throw new Error(step);
    return { steps: [step] };
  },
};
const sample: Sample = {
  name: "softmax of a row",
  tolerance: 1e-5,
  inputs: () => [mx.reshape(mx.array(Float32Array.from({ length: 300 }, (_, i) => Math.sin(i))), [1, 300])],
  compute: (x) => mx.softmax(x, -1),
};

describe.skipIf(skipReason)(`self-check${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  let folder = "";
  const gpu = opNamed("softmax").gpu as GpuKernel[];
  const real = gpu.slice();
  const written: string[] = [];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "mlx-vk-checks-"));
    vi.stubEnv("MLX_VK_CACHE", folder);
    vi.stubEnv("MLX_VK_SELF_CHECK", "1");
    written.length = 0;
    vi.spyOn(process.stderr, "write").mockImplementation((text) => written.push(String(text)) > 0);
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
    closedKernels.clear();
    gpu.splice(0, gpu.length, ...real);
    rmSync(folder, { recursive: true });
  });
  const files = (): string[] => readdirSync(folder).filter((f) => f.endsWith(".checks.json"));

  test("kernels that are right stay open, and nothing of the check shows afterwards", () => {
    const before = { ...stats };
    expect([...checkKernels([sample])]).toEqual([]);
    expect(closedKernels.size).toBe(0);
    expect({ ...stats }).toEqual(before);
  });
  test("a kernel that lies is found; those behind it are not blamed", () => {
    gpu.unshift(liar);
    const lies = checkKernels([sample]);
    expect([...lies.keys()]).toEqual(["vulkan/test/liar"]);
    expect(lies.get("vulkan/test/liar")).toMatch(/^cannot: it is wrong on this driver \(softmax of a row: element \d+ is .*, the CPU has .*\)$/);
  });
  test("a kernel that lies behind others is found too", () => {
    gpu.push(liar);
    expect([...checkKernels([sample]).keys()]).toEqual(["vulkan/test/liar"]);
  });
  test("a device that is lost, or full, meanwhile says nothing about its kernels", () => {
    for (const code of ["DEVICE_LOST", "OUT_OF_DEVICE_MEMORY"]) {
      const gone: GpuKernel = {
        ...liar,
        launch: () => {
          throw Object.assign(new Error("injected"), { code });
        },
      };
      gpu.unshift(gone);
      expect(() => selfCheck([sample])).toThrow("injected");
      gpu.shift();
      expect(closedKernels.size).toBe(0);
      expect(files()).toEqual([]);
    }
    selfCheck([sample]);
    expect(files()).toHaveLength(1);
  });
  test("it is closed, reported once and remembered", () => {
    gpu.unshift(liar);
    selfCheck([sample]);
    expect([...closedKernels.keys()]).toEqual(["vulkan/test/liar"]);
    expect(written.filter((t) => t.includes("vulkan/test/liar is not used"))).toHaveLength(1);
    const [x] = sample.inputs() as [mx.MxArray];
    const scope = mx.stream("gpu");
    try {
      expect(mx.sum(mx.softmax(x, -1)).item()).toBeCloseTo(1, 5);
    } finally {
      scope[Symbol.dispose]();
    }
    expect(files()).toHaveLength(1);
    closedKernels.clear();
    written.length = 0;
    const never: Sample = { ...sample, compute: () => expect.unreachable() };
    selfCheck([never]);
    expect([...closedKernels.keys()]).toEqual(["vulkan/test/liar"]);
    expect(written).toEqual([]);
    // Other kernels or samples: everything is checked again.
    gpu.shift();
    closedKernels.clear();
    selfCheck([sample]);
    expect(closedKernels.size).toBe(0);
    expect(JSON.parse(readFileSync(join(folder, files()[0] as string), "utf8"))).toMatchObject({ closed: {} });
  });
  test.each(["normProject", "projectAdd", "chooseToken"])("a fused kernel of decoding that lies (%s) is closed, and decoding goes on by plain ops with the same tokens", async (name) => {
    const kernels = opNamed(name).gpu as GpuKernel[];
    const [honest] = kernels as [GpuKernel];
    const samples = samplesOf().filter((s) => s.name.startsWith(name) && s.name.endsWith("float32"));
    expect(samples.length).toBeGreaterThan(1);
    mx.setDefaultDevice("gpu");
    try {
      const { model } = await load(arch("qwen3"), { dtype: "float32" });
      const tokens = (): number[] => [...generateStep([5, 6, 7], model, { maxTokens: 8 })].map(([token]) => token);
      const seen = new Set<string>();
      const remove = addTracer({ recorded: (_node, kernel) => seen.add(kernel) });
      const expected = tokens();
      if (name !== "chooseToken") expect(seen).toContain(honest.name);
      // It takes half of the rows or logits for all of them.
      const half = (l: GpuLaunch): GpuLaunch => ({ ...l, steps: l.steps.map((s) => ({ ...s, words: s.words.map((w, i) => (i === 0 ? w >> 1 : w)) })) });
      kernels.splice(0, 1, { ...honest, launch: (...given) => half(honest.launch(...given)) });
      selfCheck(samples);
      expect([...closedKernels.keys()]).toEqual([honest.name]);
      seen.clear();
      expect(tokens()).toEqual(expected);
      remove();
      expect(seen).not.toContain(honest.name);
    } finally {
      kernels.splice(0, 1, honest);
      mx.setDefaultDevice("cpu");
    }
  });
  test("MLX_VK_SELF_CHECK=0 leaves it out", () => {
    vi.stubEnv("MLX_VK_SELF_CHECK", "0");
    gpu.unshift(liar);
    selfCheck([sample]);
    expect(closedKernels.size).toBe(0);
    expect(files()).toEqual([]);
  });
});
