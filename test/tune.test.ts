/** Choices by measuring: what is measured, kept, used again and ignored, and that every value of every parameter is right. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { MxArray } from "../src/core/array.ts";
import { type Choices, type Kernel, type Op, defineOp, ops } from "../src/core/op.ts";
import { engine } from "../src/core/engine.ts";
import { vulkanBackend } from "../src/backend/vulkan/index.ts";
import { core as mx } from "../src/index.ts";
import { addTracer } from "../src/schedule/run.ts";
import { bucketOf, forgetTuned, overrideTuned, rounded } from "../src/schedule/tune.ts";
import type { TuneOptions } from "../src/schedule/tune-search.ts";
import { oracle, valuesOf } from "../src/debug/oracle.ts";
import { asIfUnset } from "./helpers/flags.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { skipReason } from "./helpers/vulkan.ts";

// Arrays of this size take minutes where the host interprets elementwise ops.
asIfUnset("MLX_DISABLE");

if (!skipReason) chooseTestDevice();
const folder = mkdtempSync(join(tmpdir(), "mlx-vk-tune-"));
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  vi.stubEnv("MLX_VK_CACHE", mkdtempSync(join(folder, "case-")));
  vi.stubEnv("MLX_TUNE", "auto");
  forgetTuned();
});
afterEach(() => {
  overrideTuned(undefined);
  vi.unstubAllEnvs();
  forgetTuned();
});
const opNamed = (name: string): Op => ops.get(name) as Op;
const only = (): string => {
  const files = readdirSync(process.env["MLX_VK_CACHE"] as string);
  expect(files).toHaveLength(1);
  return join(process.env["MLX_VK_CACHE"] as string, files[0] as string);
};
/** The kernels that ran, by op. */
function kernelsOf(work: () => MxArray): string[] {
  const kernels: string[] = [];
  const remove = addTracer({ recorded: (_node, kernel) => void kernels.push(kernel) });
  mx.eval(work());
  remove();
  return kernels;
}
const wave = (...shape: number[]): MxArray => mx.reshape(mx.sin(mx.arange(shape.reduce((a, b) => a * b, 1))), shape);


/** A value of each parameter at a time; parameters are independent, so they change together. */
function choicesOf(tune: Readonly<Record<string, readonly number[]>> = {}): Choices[] {
  const most = Math.max(0, ...Object.values(tune).map((v) => v.length));
  return Array.from({ length: most }, (_, i) => Object.fromEntries(Object.entries(tune).map(([n, values]) => [n, values[i % values.length] as number])));
}
const product = (M: number, N: number, K: number, bits = 4, dtype = mx.float32, group = 32): MxArray => {
  const [w, s, b] = mx.quantize(wave(N, K).astype(dtype), group, bits) as [MxArray, MxArray, MxArray];
  return mx.quantizedMatmul(wave(M, K).astype(dtype), w, s, b, true, group, bits);
};
const smallFloats = (M: number, N: number, K: number, mode: "mxfp4" | "mxfp8"): MxArray => {
  const [w, s] = mx.quantize(wave(N, K), undefined, undefined, mode) as [MxArray, MxArray];
  return mx.quantizedMatmul(wave(M, K), w, s, null, true, undefined, undefined, mode);
};
const attention = (Tq: number, Tk: number): MxArray => mx.fast.scaledDotProductAttention(wave(1, 4, Tq, 32), wave(1, 2, Tk, 32), wave(1, 2, Tk, 32), 0.2);
const indices = (...list: number[]): MxArray => mx.array(list, mx.uint32);
/** Calls of the ops that have parameters, of sizes at which values of parameters make a difference. */
const calls: Readonly<Record<string, readonly (() => MxArray)[]>> = {
  quantizedMatmul: [
    () => product(1, 1024, 256), () => product(6, 264, 256), () => product(21, 520, 128), () => product(40, 16, 4096), () => product(300, 40, 64), () => product(21, 520, 128, 4, mx.bfloat16), () => product(300, 40, 64, 4, mx.bfloat16), () => product(3, 40, 96, 8), () => product(1, 1024, 256, 4, mx.bfloat16), () => product(1, 1024, 256, 4, mx.bfloat16, 64),
    () => smallFloats(1, 1024, 256, "mxfp4"), () => smallFloats(2, 72, 256, "mxfp8"), () => smallFloats(9, 520, 256, "mxfp4"), () => smallFloats(40, 16, 4096, "mxfp8"),
  ],
  matmul: [() => mx.matmul(wave(1, 300), wave(300, 700)), () => mx.matmul(wave(6, 300), mx.transpose(wave(520, 300))), () => mx.matmul(wave(130, 140), wave(140, 150)), () => mx.matmul(wave(20, 40), wave(40, 30)), () => mx.matmul(wave(600, 33), wave(33, 5))],
  addmm: [() => mx.addmm(wave(70), wave(60, 50), wave(50, 70), 2, 0.5), () => mx.addmm(wave(3, 300), wave(3, 80), wave(80, 300))],
  gatherMM: [() => mx.gatherMM(wave(2, 100, 48), wave(2, 48, 40), indices(0, 1), indices(1, 0)), () => mx.gatherMM(wave(3, 20, 48), wave(4, 48, 40), indices(0, 2, 1), indices(3, 3, 0)), () => mx.gatherMM(wave(40, 1, 48), mx.swapaxes(wave(4, 400, 48), -1, -2), indices(...Array(40).keys()), indices(...Array.from({ length: 40 }, (_, i) => i % 4)))],
  scaledDotProductAttention: [() => attention(1, 700), () => attention(9, 300), () => attention(40, 64)],
};
/** With respect to the largest value: rounding of inputs to the integers that are multiplied, and of the result. */
function expectSame(got: Float64Array, want: Float64Array, tolerance = 3e-5): void {
  const scale = want.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
  const worst = want.reduce((a, v, i) => Math.max(a, Math.abs(v - (got[i] as number))), 0);
  expect(got).toHaveLength(want.length);
  expect(worst).toBeLessThanOrEqual(tolerance * scale);
}

describe("parameters", () => {
  test("of the CPU's kernels: all are in the calls of this test; of all kernels: at least two values, each once", () => {
    const tuned = [...ops.values()].filter((op) => op.name !== "tunedProduct" && op.kernels.some((k) => k.tune));
    expect(tuned.map((op) => op.name).sort()).toEqual(Object.keys(calls).sort());
    const lists = [...ops.values()].flatMap((op) => [...op.kernels, ...(op.gpu ?? [])].flatMap((k) => Object.values(k.tune ?? {})));
    for (const values of lists) expect([values.length > 1, new Set(values).size]).toEqual([true, values.length]);
  });
  for (const [name, makes] of Object.entries(calls)) {
    test(`${name}: every kernel with every value computes what the float64 reference does, and every value changes the work`, () => {
      const op = opNamed(name);
      const changes = new Set<string>();
      for (const make of makes) {
        const want = oracle(make().desc);
        for (const kernel of op.kernels) {
          for (const values of choicesOf(kernel.tune)) {
            overrideTuned((_device, o) => (o === op ? { kernel: kernel.name, values } : undefined));
            const y = make();
            const node = y.desc.node as NonNullable<typeof y.desc.node>;
            const ran = kernelsOf(() => y);
            expectSame(valuesOf(y.desc), want, y.dtype === mx.bfloat16 ? 1e-2 : 3e-5);
            if (!ran.includes(kernel.name)) continue;
            const launch = (c?: Choices): string => JSON.stringify(kernel.launch(node.inputs, node.outputs, node.params, c));
            const [first, ...rest] = Object.entries(kernel.tune ?? {}).map(([n, v]) => [n, v[0] as number] as const);
            expect(launch(Object.fromEntries([first as [string, number], ...rest]))).toBe(launch());
            for (const n of Object.keys(values)) for (const v of kernel.tune?.[n] ?? []) if (launch({ [n]: v }) !== launch()) changes.add(`${kernel.name} ${n}`);
          }
        }
      }
      // Some kernels are for engines with relaxed SIMD; there they must run.
      const able = op.kernels.filter((k) => engine.relaxed || !/16$|Pair/.test(k.name));
      expect([...changes].sort()).toEqual(able.flatMap((k) => Object.keys(k.tune ?? {}).map((n) => `${k.name} ${n}`)).sort());
    });
  }
});

describe("buckets", () => {
  test("sizes near each other are one", () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 20, 24, 25, 40, 100, 128, 180, 182, 4096].map(rounded)).toEqual([1, 2, 3, 4, 6, 6, 8, 8, 8, 11, 11, 16, 23, 23, 32, 32, 128, 128, 128, 256, 4096]);
  });
  test("dtypes, layouts and settings tell them apart, numbers like scales do not", () => {
    const bucket = (y: MxArray): string => bucketOf(opNamed(y.desc.node?.op.name as string), y.desc.node?.inputs ?? [], y.desc.node?.params ?? {});
    const w = wave(64, 32);
    const t = mx.transpose(w);
    mx.eval(t);
    const x = wave(8, 32);
    expect(bucket(mx.matmul(x, t))).toBe("matmul float32[8,32] float32[32,64]t ");
    expect(bucket(mx.matmul(x.astype(mx.float16), t.astype(mx.float16)))).toBe("matmul float16[8,32] float16[32,64] ");
    const attend = (scale: number, mask?: "causal"): string => bucket(mx.fast.scaledDotProductAttention(wave(1, 2, 8, 32), wave(1, 2, 8, 32), wave(1, 2, 8, 32), scale, mask));
    expect(attend(0.1)).toBe(attend(0.2));
    expect(attend(0.1)).not.toBe(attend(0.1, "causal"));
  });
});

const gemm = opNamed("matmul").kernels[0] as Kernel;
/** Product kernels of an op for these tests: the usual one, one that is wrong, one that can not run, one said to be slower. */
const [usual, wrong, barred, slower] = ["wasm/tuned/usual", "wasm/tuned/wrong", "wasm/tuned/barred", "wasm/tuned/slower"] as const;
const twice: Kernel["launch"] = (i, o, _p, c) => gemm.launch(i, o, { alpha: 2 }, c);
const applyTest = defineOp<object>({
  name: "tunedProduct",
  infer: ([a, b]) => [{ shape: [a?.shape[0] as number, b?.shape[1] as number], dtype: (a as { dtype: typeof mx.float32 }).dtype }],
  composite: ([a, b]) => [mx.matmul(a as MxArray, b as MxArray)],
  vjp: "composite", jvp: "composite", vmap: "composite",
  kernels: [
    { ...gemm, name: usual, tune: { grain: [1, 2, 4] } },
    { ...gemm, name: wrong, launch: twice, gate: { refuse: () => "slower: so it says" } },
    { ...gemm, name: barred, gate: { refuse: () => "cannot: never" } },
    { ...gemm, name: slower, tune: { columns: [16, 32] }, launch: (i, o, p, c) => gemm.launch(i, o, p, { columns: c?.["columns"] ?? 16 }), gate: { refuse: ([a]) => ((a?.shape[0] as number) > 40 ? "cannot: more than 40 rows" : "slower: so it says") } },
  ],
});
const tested = (M = 30): MxArray => applyTest([wave(M, 200), wave(200, 300)], {})[0] as MxArray;
const times: Readonly<Record<string, number>> = { [usual]: 10, [wrong]: 1, [barred]: 1, [slower]: 8 };
/** Times by kernel; wider blocks make the slower one faster still. */
const timer: NonNullable<TuneOptions["timer"]> = (kernel, choices, run) => {
  run();
  return (times[kernel] as number) * (choices["columns"] === 32 ? 0.5 : 1) * (choices["grain"] === 4 ? 0.97 : 1);
};
const search = (options: TuneOptions = {}, M = 30): Promise<mx.TuneReport> => mx.tune(() => tested(M), { timer, ...options });

describe("search", () => {
  test("takes the fastest that is right, with its best parameter; never one that can not run", async () => {
    const { rows, files } = await search();
    expect(rows).toHaveLength(1);
    expect(rows[0]).toMatchObject({ op: "tunedProduct", device: "cpu", usual, chosen: { kernel: slower, values: { columns: 32 } }, ratio: 2.5, ms: 10 });
    expect(rows[0]?.wrong).toEqual([expect.stringMatching(/^wasm\/tuned\/wrong \{\}: value \d+ is /)]);
    expect(files).toEqual([only()]);
    expect((await search({ again: true })).rows).toEqual(rows);
  });
  test("a gain of less than 5 % is none", async () => {
    const { rows } = await search({ timer: (kernel, choices, run) => (kernel === slower ? 9.7 : timer(kernel, choices, run)) });
    expect(rows[0]).toMatchObject({ chosen: undefined, ratio: 1 });
    expect(kernelsOf(tested)).toContain(usual);
  });
  test("stops when its time is over, and says nothing then", async () => {
    let now = 0;
    let runs = 0;
    const slow: TuneOptions["timer"] = (kernel, choices, run) => {
      runs++;
      now += 1000;
      return timer(kernel, choices, run);
    };
    const options = { clock: () => now, timer: slow, seconds: 8, opSeconds: 2 };
    const { rows, seconds } = await mx.tune(() => [tested(30), tested(3), tested(2), tested(1), mx.matmul(wave(5, 6), wave(6, 7))], { ...options });
    expect(rows).toEqual([]);
    expect([seconds, runs]).toEqual([8, 8]);
    expect(readdirSync(process.env["MLX_VK_CACHE"] as string)).toEqual([]);
  });
  test("operands that are not computed yet get stand-ins, also for a step that is recorded", async () => {
    const { rows } = await mx.tune(
      () => {
        const x = mx.exp(mx.multiply(wave(30, 200), 0.01));
        const y = applyTest([x, mx.transpose(mx.add(wave(300, 200), 1))], {})[0] as MxArray;
        const recording = mx.Recording.evaluate(y);
        expect(recording.refused).toBeUndefined();
        recording.dispose();
      },
      { timer },
    );
    expect(rows.map((r) => [r.bucket, r.chosen?.kernel])).toEqual([["tunedProduct float32[32,256] float32[256,256]t ", slower]]);
  });
  test("with the real clock: MLX_TUNE=1 keeps what it finds, and computes what it did before", () => {
    const want = valuesOf(mx.matmul(wave(9, 64), wave(64, 48)).desc);
    vi.stubEnv("MLX_TUNE", "1");
    const y = mx.matmul(wave(9, 64), wave(64, 48));
    mx.eval(y);
    expectSame(valuesOf(y.desc), want);
    expect(Object.keys((JSON.parse(readFileSync(only(), "utf8")) as { choices: object }).choices)).toEqual(["matmul float32[8,64] float32[64,45] ".replace("45", "64")]);
  });
});

describe("what is kept", () => {
  /** Changes the file, and lets it be read again. */
  const edit = (change: (all: Record<string, unknown>) => unknown): void => {
    const all = JSON.parse(readFileSync(only(), "utf8")) as Record<string, unknown>;
    const made = change(all);
    writeFileSync(only(), typeof made === "string" ? made : JSON.stringify(made ?? all));
    forgetTuned();
  };
  const ran = (M = 30): string => kernelsOf(() => tested(M)).find((k) => k.startsWith("wasm/tuned/")) as string;

  test("is used by later processes, for work of the same bucket whose gate opens", async () => {
    await search();
    forgetTuned();
    expect([ran(), ran(28), ran(3)]).toEqual([slower, slower, usual]);
    // In the bucket, but the kernel can not take it.
    expect([rounded(41), ran(41)]).toEqual([32, usual]);
    vi.stubEnv("MLX_DISABLE", slower);
    expect(ran()).toBe(usual);
    vi.stubEnv("MLX_DISABLE", "");
    vi.stubEnv("MLX_TUNE", "0");
    expect(ran()).toBe(usual);
  });
  test("is what explain and MLX_DEBUG=2 tell", async () => {
    await search();
    expect(mx.explain(tested())).toContain("cpu: wasm/tuned/slower (tuned columns=32)");
    const lines: string[] = [];
    vi.stubEnv("MLX_DEBUG", "2");
    const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => lines.push(String(text)) > 0);
    mx.eval(tested());
    spy.mockRestore();
    expect(lines.join("")).toContain("wasm/tuned/slower (tuned columns=32)");
    vi.stubEnv("MLX_TUNE", "0");
    expect(mx.explain(tested())).not.toContain("tuned columns");
  });
  for (const [what, change, why] of [
    ["of another version", (all) => ({ ...all, version: "0.0.0" }), "another version"],
    ["of another device", (all) => ({ ...all, device: "other" }), "another device"],
    ["of another driver", (all) => ({ ...all, driver: "other" }), "another driver"],
    ["of other kernels", (all) => ({ ...all, kernels: "0" }), "another set of kernels"],
    ["of another format", (all) => ({ ...all, format: 99 }), "its format is 99"],
    ["that is cut off", (all) => JSON.stringify(all).slice(0, 80), "damaged"],
    ["without choices", () => ({}), "damaged"],
  ] as readonly [string, (all: Record<string, unknown>) => unknown, string][]) {
    test(`a file ${what} is ignored, with a line where MLX_DEBUG asks for it`, async () => {
      await search();
      edit(change);
      const lines: string[] = [];
      vi.stubEnv("MLX_DEBUG", "1");
      const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => lines.push(String(text)) > 0);
      const kernel = ran();
      spy.mockRestore();
      expect(kernel).toBe(usual);
      expect(lines.filter((l) => l.includes(why))).toHaveLength(1);
    });
  }
  test("kernels and parameters that are not known are left out", async () => {
    await search();
    const bucket = "tunedProduct float32[32,256] float32[256,256] ";
    const put = (entry: object): void => edit((all) => ({ ...all, choices: { [bucket]: { ratio: 2, ms: 1, ...entry }, "noOp float32[1] ": { ratio: 2, ms: 1, kernel: "wasm/x" } } }));
    put({ kernel: "wasm/tuned/unknown" });
    expect(ran()).toBe(usual);
    put({ kernel: slower, values: { columns: 7, other: 1 } });
    expect(mx.explain(tested())).toContain("wasm/tuned/slower (tuned)");
    put({ kernel: barred });
    expect(ran()).toBe(usual);
    put({ kernel: slower, values: "32" });
    expect(ran()).toBe(slower);
  });
  test("without a file nothing changes, and MLX_VK_CACHE=0 keeps none", async () => {
    const works = Object.values(calls).flat();
    const kernels = (): string[][] => works.map((w) => kernelsOf(w));
    const auto = kernels();
    vi.stubEnv("MLX_TUNE", "0");
    expect(kernels()).toEqual(auto);
    vi.stubEnv("MLX_TUNE", "auto");
    vi.stubEnv("MLX_VK_CACHE", "0");
    forgetTuned();
    expect((await search()).files).toEqual([]);
  });
});

test("mlx-vk tune runs the shipped model and says what it found", () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--import", "tsx", "src/cli/main.ts", "tune", "--device", "cpu", "--seconds", "1"], { encoding: "utf8" });
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/^op +operands +default +ms +chosen +ratio\nquantizedMatmul +bfloat16\[/);
  expect(stdout).toContain(`Kept in ${only()}`);
});

describe.skipIf(skipReason)("on the GPU", () => {
  test("a choice is measured on the device, kept in a file of its own, and used", async () => {
    vi.stubEnv("MLX_VK_SELF_CHECK", "0");
    const scope = mx.stream("gpu");
    try {
      const make = (): MxArray => mx.matmul(wave(12, 64), wave(64, 24));
      const want = oracle(make().desc);
      const { rows, files } = await mx.tune(make, { timer: (_kernel, choices, run) => run() * 0 + (choices["tile"] === 8 ? 1 : 2) });
      expect(rows.filter((r) => r.op === "matmul")).toMatchObject([{ op: "matmul", device: "gpu", usual: "vulkan/matmul/tiled", chosen: { kernel: "vulkan/matmul/tiled", values: { tile: 8 } }, ratio: 2 }]);
      expect(files).toEqual([only()]);
      forgetTuned();
      const y = make();
      expect(mx.explain(y)).toContain("gpu: vulkan/matmul/tiled (tuned tile=8)");
      mx.eval(y);
      expectSame(valuesOf(y.desc), want);
    } finally {
      scope[Symbol.dispose]();
      vulkanBackend().close();
    }
  });
});
