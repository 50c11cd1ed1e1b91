/** Generated kernels around reductions of rows: every layout of a row over the device, against plain float64 loops. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rowShaders, rowsLaunch, rowsSpirv, rowsStep } from "../src/codegen/rows-spirv.ts";
import type { RowGroup, RowReduce, RowRule } from "../src/codegen/rows.ts";
import * as dt from "../src/core/dtype.ts";
import { type Value, expr as e } from "../src/core/expr.ts";
import type { GeneratedShader, GpuDevice } from "../src/core/gpu.ts";
import { type RowInput, element, expectClose, launchOf, noise, perRow, rowGroup, rowsOf, runRows } from "./helpers/rows.ts";
import { type TestDevice, closeTestDevice, noFeatures, openTestDevice, skipReason, vulkanRequired } from "./helpers/vulkan.ts";

const f32 = (x: number): Value => e.const("f32", x);
const sum = (value: Value, dtype: dt.Dtype = dt.float32): RowReduce => ({ rule: "sum", value, dtype });
const reduce = (rule: RowRule, value: Value, dtype: dt.Dtype): RowReduce => ({ rule, value, dtype });

/** softmax(x) as ops would give it: max, sum of exp, quotient. */
function softmax(dtype: dt.Dtype): { reduces: RowReduce[]; value: Value } {
  const x = e.input(0, dtype);
  const power = e.exp(e.sub(x, e.input(1, dtype)));
  return { reduces: [reduce("max", x, dtype), sum(power)], value: e.div(power, e.input(2, dt.float32)) };
}
const softmaxRow = (row: readonly number[]): number[] => {
  const top = Math.max(...row);
  const powers = row.map((x) => Math.exp(x - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
};
const total = (row: readonly number[], f: (x: number, i: number) => number = (x) => x): number => row.reduce((a, x, i) => a + f(x, i), 0);
const mean = (row: readonly number[]): number => total(row) / row.length;
const variance = (row: readonly number[]): number => {
  const middle = mean(row);
  return total(row, (x) => (x - middle) ** 2) / row.length;
};

const offered: GpuDevice = {
  subgroupSize: 32, sharedMemoryBytes: 32768, groupInvocations: 1024, groupCount: [65535, 65535, 65535], cooperativeMatrix: [], vendorId: 0x10de,
  features: { ...noFeatures, shaderInt64: true, shaderFloat64: true, shaderInt8: true, shaderInt16: true, storageBuffer8BitAccess: true, storageBuffer16BitAccess: true, signedZeroInfNanPreserveFloat32: true } as GpuDevice["features"],
};
const scalarDtypes = dt.dtypes.filter((d) => d !== dt.complex64);
const sumDtype = (d: dt.Dtype): dt.Dtype => (d.isFloat ? d : d.size === 8 ? d : d.kind === "unsigned" ? dt.uint32 : dt.int32);

describe("modules", () => {
  const validator = spawnSync("spirv-val", ["--version"]).status === 0;
  test("spirv-val is there where Vulkan is required", () => {
    expect(validator || !vulkanRequired).toBe(true);
  });
  test.skipIf(!validator)("pass spirv-val", () => {
    const folder = mkdtempSync(join(tmpdir(), "mlx-vk-rows-"));
    const check = (name: string, group: RowGroup, options: Parameters<typeof rowsSpirv>[2] = {}, device = offered): void => {
      const launch = rowsSpirv(group, device, { aligned: group.inputs.map(() => true), ...options });
      if (typeof launch === "string") throw new Error(`${name}: ${launch}`);
      const files = launch.steps.map((step, i) => {
        const file = join(folder, `${name}-${i}.spv`);
        writeFileSync(file, (step.shader as GeneratedShader).code());
        return file;
      });
      for (const file of files) {
        const run = spawnSync("spirv-val", ["--target-env", "vulkan1.3", "--scalar-block-layout", file], { encoding: "utf8" });
        expect(`${name}: ${run.stdout}${run.stderr}`).toBe(`${name}: `);
      }
    };
    const plain = (shape: number[], dtype: dt.Dtype, reduces: RowReduce[], outputs: RowGroup["outputs"]): RowGroup => rowGroup(shape, [{ dtype, values: [] }], reduces, outputs);
    try {
      for (const dtype of scalarDtypes) {
        const x = e.input(0, dtype);
        const reduces = [sum(x, sumDtype(dtype)), reduce("max", x, dtype), reduce("min", x, dtype), reduce("argmax", x, dt.uint32), reduce("any", x, dt.bool)];
        const outputs = reduces.map((r, k) => perRow(e.input(1 + k, r.dtype), r.dtype));
        for (const subgroups of [true, false]) {
          check(`${dtype}-${subgroups}`, plain([4, 200], dtype, reduces.slice(0, 3), outputs.slice(0, 3)), { force: { subgroups } });
          check(`${dtype}-arg-${subgroups}`, plain([4, 200], dtype, reduces.slice(3), [perRow(e.input(1, dt.uint32), dt.uint32), perRow(e.input(2, dt.bool), dt.bool)]), { force: { subgroups } });
        }
      }
      for (const dtype of [dt.float32, dt.bfloat16]) {
        const { reduces, value } = softmax(dtype);
        for (const shape of [[20000, 4], [5, 64], [7, 2048], [300, 5001], [1, 100000]]) check(`softmax-${dtype}-${shape}`, plain(shape, dtype, reduces, [element(value, dtype), perRow(e.input(2, dt.float32), dt.float32)]));
      }
      for (const shape of [[5, 64], [300, 5001], [2, 10000]]) {
        const picked = reduce("pick", e.input(0, dt.bfloat16), dt.bfloat16);
        check(`pick-${shape}`, rowGroup(shape, [{ dtype: dt.bfloat16, values: [] }, { dtype: dt.uint32, values: [], strides: [1, 0] }], [{ ...picked, at: e.input(1, dt.uint32) }], [perRow(e.input(2, dt.bfloat16), dt.bfloat16)]));
      }
      const strided: RowInput[] = [{ dtype: dt.float32, values: [], strides: [1, -7, 21] }, { dtype: dt.float16, values: [], strides: [0, 1, 0] }];
      check("strided", rowGroup([5, 7, 9], strided, [sum(e.mul(e.input(0, dt.float32), e.input(1, dt.float16)))], [element(e.sub(e.input(0, dt.float32), e.input(2, dt.float32)), dt.float32)]));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
  test("what cannot be done is refused with the reason", () => {
    const x = e.input(0, dt.float32);
    const group = (shape: number[], reduces: RowReduce[], outputs: RowGroup["outputs"], dtype: dt.Dtype = dt.float32): RowGroup => rowGroup(shape, [{ dtype, values: [] }], reduces, outputs);
    const step = (g: RowGroup, device = offered): unknown => rowsStep(g, device);
    expect(step(group([4, 0], [sum(x)], [perRow(e.input(1, dt.float32), dt.float32)]))).toBe("cannot: rows without elements");
    expect(step(group([2 ** 20, 2 ** 11], [sum(x)], [perRow(x, dt.float32)]))).toMatch("cannot: 2147483648 elements");
    expect(step(group([4, 8], [sum(x)], [perRow(x, dt.float32)]))).toBe("cannot: a result of a row that reads its elements");
    const z = e.input(0, dt.complex64);
    expect(step(group([4, 8], [sum(z, dt.complex64)], [perRow(e.input(1, dt.complex64), dt.complex64)], dt.complex64))).toBe("cannot: sum of complex numbers");
    const y = e.input(0, dt.float64);
    expect(step(group([4, 8], [sum(y, dt.float64)], [perRow(e.input(1, dt.float64), dt.float64)], dt.float64), { ...offered, features: noFeatures as GpuDevice["features"] })).toBe("cannot: the device has no float64");
  });
  test("kernels depend on structure only, and the cache counts them", () => {
    const { reduces, value } = softmax(dt.float32);
    const shaderFor = (shape: number[]): unknown => {
      const step = rowsStep(rowGroup(shape, [{ dtype: dt.float32, values: [] }], reduces, [element(value, dt.float32)]), offered, [true, true]);
      return typeof step === "string" ? step : step.shader;
    };
    const first = shaderFor([1000, 4096]);
    const kernels = rowShaders();
    expect(shaderFor([900, 4000])).toBe(first);
    expect(shaderFor([30, 40, 4096])).toBe(first);
    expect(rowShaders()).toBe(kernels);
    expect(shaderFor([1000, 4097])).not.toBe(first);
    expect(rowShaders()).toBe(kernels + 1);
  });
  test("long rows, when few, are cut into one dispatch for each phase and one for the outputs", () => {
    const { reduces, value } = softmax(dt.float32);
    const launch = rowsLaunch(rowGroup([2, 100000], [{ dtype: dt.float32, values: [] }], reduces, [element(value, dt.float32)]), offered, [true, true]);
    if (typeof launch === "string") throw new Error(launch);
    expect(launch.steps.map((s) => s.groups[0])).toEqual([98, 98, 98]);
    expect(launch.scratch).toEqual([2 * 4 * 98]);
    const step = rowsStep(rowGroup([2, 100000], [{ dtype: dt.float32, values: [] }], reduces, [element(value, dt.float32)]), offered, [true, true]);
    expect(typeof step === "string" ? step : step.groups).toEqual([2, 1, 1]);
  });
});

describe.skipIf(skipReason)(`row kernels on the GPU${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  // One invocation, a subgroup, a workgroup, a loop, chunks; lengths that fill no block or not the last share.
  test.each([
    [[16385, 3]], [[37, 7]], [[9, 64]], [[3, 1000]], [[1, 333]], [[2, 9001]], [[300, 2052]], [[2, 20001]],
  ])("softmax of float32 %j", (shape) => {
    const { reduces, value } = softmax(dt.float32);
    const x: RowInput = { dtype: dt.float32, values: noise(shape.reduce((a, b) => a * b, 1)) };
    const [got] = runRows(device, shape, [x], reduces, [element(value, dt.float32)]);
    expectClose(got as Float64Array, rowsOf(shape, x).flatMap(softmaxRow), 4e-6, 1e-9);
  });
  test.each([[dt.bfloat16, 2 ** -8], [dt.float16, 2 ** -10]] as const)("softmax of %s, eight elements at once", (dtype, relative) => {
    const { reduces, value } = softmax(dtype);
    const shape = [6, 64];
    const x: RowInput = { dtype, values: noise(6 * 64, 5) };
    const [got] = runRows(device, shape, [x], reduces, [element(value, dtype)]);
    expectClose(got as Float64Array, rowsOf(shape, x).flatMap(softmaxRow), relative, 2 ** -24);
  });
  test("logsumexp, with the results of both reductions given", () => {
    const x = e.input(0, dt.float32);
    const m = e.input(1, dt.float32);
    const s = e.input(2, dt.float32);
    for (const shape of [[11, 50], [1, 30000]] as const) {
      const input: RowInput = { dtype: dt.float32, values: noise(shape[0] * shape[1], 9).map((v) => 20 * v) };
      const got = runRows(device, shape, [input], [reduce("max", x, dt.float32), sum(e.exp(e.sub(x, m)))], [perRow(e.add(m, e.log(s)), dt.float32), perRow(m, dt.float32)]);
      const rows = rowsOf(shape, input);
      expectClose(got[1] as Float64Array, rows.map((row) => Math.max(...row)), 0);
      expectClose(got[0] as Float64Array, rows.map((row) => {
        const top = Math.max(...row);
        return top + Math.log(total(row, (v) => Math.exp(v - top)));
      }), 1e-6);
    }
  });
  test("layer norm with weight, bias and a residual; the mean is kept", () => {
    const x = e.add(e.input(0, dt.float32), e.input(1, dt.bfloat16));
    const n = 770;
    const shape = [4, n];
    const over = f32(1 / n);
    const centred = e.sub(x, e.mul(e.input(4, dt.float32), over));
    const scale = e.div(f32(1), e.sqrt(e.add(e.mul(e.input(5, dt.float32), over), f32(1e-5))));
    const inputs: RowInput[] = [
      { dtype: dt.float32, values: noise(4 * n, 2) },
      { dtype: dt.bfloat16, values: noise(4 * n, 3) },
      { dtype: dt.float32, values: noise(n, 4), strides: [0, 1] },
      { dtype: dt.float32, values: noise(n, 6), strides: [0, 1] },
    ];
    const got = runRows(device, shape, inputs, [sum(x), sum(e.mul(centred, centred))], [
      element(e.add(e.mul(e.mul(centred, scale), e.input(2, dt.float32)), e.input(3, dt.float32)), dt.float32),
      perRow(e.mul(e.input(4, dt.float32), over), dt.float32),
      element(x, dt.float32),
    ]);
    const [a, b, w, c] = inputs.map((i) => rowsOf(shape, i)) as number[][][];
    const rows = (a as number[][]).map((row, r) => row.map((v, k) => v + ((b as number[][])[r]?.[k] as number)));
    const want = rows.flatMap((row, r) => {
      const [middle, deviation] = [mean(row), Math.sqrt(variance(row) + 1e-5)];
      return row.map((v, k) => ((v - middle) / deviation) * ((w as number[][])[r]?.[k] as number) + ((c as number[][])[r]?.[k] as number));
    });
    expectClose(got[0] as Float64Array, want, 1e-5);
    expectClose(got[1] as Float64Array, rows.map(mean), 1e-6, 1e-6);
    expectClose(got[2] as Float64Array, rows.flat(), 2 ** -23);
  });
  test("mean and variance in one phase, of all elements too", () => {
    const x = e.input(0, dt.float32);
    const [s, q] = [e.input(1, dt.float32), e.input(2, dt.float32)];
    for (const shape of [[5, 129], [40000]]) {
      const n = shape[shape.length - 1] as number;
      const over = f32(1 / n);
      const input: RowInput = { dtype: dt.float32, values: noise(shape.reduce((a, b) => a * b, 1), 8) };
      const m = e.mul(s, over);
      const group = rowGroup(shape, [input], [sum(x), sum(e.mul(x, x))], [perRow(m, dt.float32), perRow(e.sub(e.mul(q, over), e.mul(m, m)), dt.float32)]);
      const got = runRows(device, shape, [input], group.reduces, group.outputs);
      const rows = rowsOf(shape, input);
      expectClose(got[0] as Float64Array, rows.map(mean), 1e-6, 1e-6);
      expectClose(got[1] as Float64Array, rows.map(variance), 1e-5);
      expect(launchOf(device, group).steps.length).toBe(n > 8192 ? 2 : 1);
    }
  });
  test("mean-squared error of two inputs that are strided, reversed and broadcast", () => {
    const d = e.sub(e.input(0, dt.float32), e.input(1, dt.float16));
    const shape = [3, 4, 50];
    const inputs: RowInput[] = [
      { dtype: dt.float32, values: noise(3 * 4 * 50, 12), strides: [-1, 3, 12], offset: 2 },
      { dtype: dt.float16, values: noise(4 * 100, 13), strides: [0, 100, 2] },
    ];
    const [got] = runRows(device, shape, inputs, [sum(e.mul(d, d))], [perRow(e.mul(e.input(2, dt.float32), f32(1 / 50)), dt.float32)]);
    const [a, b] = inputs.map((x) => rowsOf(shape, x)) as [number[][], number[][]];
    expectClose(got as Float64Array, a.map((row, r) => mean(row.map((v, k) => (v - ((b[r] as number[])[k] as number)) ** 2))), 2e-6);
  });
  test("cross entropy: an input with one element per row picks an element", () => {
    const x = e.input(0, dt.float32);
    const label = e.input(1, dt.int32);
    const [m, s, picked] = [e.input(3, dt.float32), e.input(4, dt.float32), e.input(5, dt.float32)];
    const shape = [6, 100];
    const inputs: RowInput[] = [
      { dtype: dt.float32, values: noise(600, 21) },
      { dtype: dt.int32, values: [0, 99, 50, 3, 64, 7], strides: [1, 0] },
      { dtype: dt.int32, values: Array.from({ length: 100 }, (_, i) => i), strides: [0, 1] },
    ];
    const [got] = runRows(device, shape, inputs, [reduce("max", x, dt.float32), sum(e.exp(e.sub(x, m))), sum(e.select(e.eq(e.input(2, dt.int32), label), x, f32(0)))], [perRow(e.sub(e.add(m, e.log(s)), picked), dt.float32)]);
    const labels = inputs[1]?.values as number[];
    expectClose(got as Float64Array, rowsOf(shape, inputs[0] as RowInput).map((row, r) => -Math.log(softmaxRow(row)[labels[r] as number] as number)), 2e-6);
  });

  const firstBest = (row: readonly number[], better: (a: number, b: number) => boolean): number => row.reduce((best, v, i) => (better(v, row[best] as number) ? i : best), 0);
  test("argmax and argmin of a formula: the first of equals, a NaN only where it comes first", () => {
    const x = e.mul(e.input(0, dt.float32), f32(-1));
    const values = noise(6 * 70, 31).map((v) => Math.round(4 * v));
    for (let k = 0; k < 70; k++) values[70 + k] = 5;
    values[2 * 70] = values[3 * 70 + 9] = Number.NaN;
    for (let k = 0; k < 70; k++) values[4 * 70 + k] = Number.NaN;
    values[5 * 70] = -0;
    for (let k = 1; k < 70; k++) values[5 * 70 + k] = 0;
    for (const [shape, data] of [[[6, 70], values], [[1, 20000], noise(20000, 3).map((v) => Math.round(1000 * v))]] as const) {
      const input: RowInput = { dtype: dt.float32, values: data };
      const got = runRows(device, shape, [input], [reduce("argmax", x, dt.uint32), reduce("argmin", x, dt.uint32)], [perRow(e.input(1, dt.uint32), dt.uint32), perRow(e.input(2, dt.uint32), dt.int32)]);
      const rows = rowsOf(shape, input).map((row) => row.map((v) => -v));
      expect([...(got[0] as Float64Array)]).toEqual(rows.map((row) => firstBest(row, (a, b) => a > b)));
      expect([...(got[1] as Float64Array)]).toEqual(rows.map((row) => firstBest(row, (a, b) => a < b)));
    }
  });
  test("NaN and infinities win as they should", () => {
    const x = e.input(0, dt.float32);
    const inf = Number.POSITIVE_INFINITY;
    const data = [1, 2, Number.NaN, 4, 5, -1, -inf, inf, 0, -0, -inf, -inf, -inf, -inf, -inf, 0, 0, -0, 0, 0];
    const input: RowInput = { dtype: dt.float32, values: data };
    const rules = ["max", "min", "sum"] as const;
    const got = runRows(device, [4, 5], [input], rules.map((r) => reduce(r, x, dt.float32)), rules.map((_, k) => perRow(e.input(1 + k, dt.float32), dt.float32)));
    const rows = rowsOf([4, 5], input);
    expect([...(got[0] as Float64Array)]).toEqual(rows.map((row) => Math.max(...row) + 0));
    expect([...(got[1] as Float64Array)].map((v) => v + 0)).toEqual(rows.map((row) => Math.min(...row) + 0));
    expect([...(got[2] as Float64Array)]).toEqual(rows.map((row) => total(row)));
  });
  test.each(scalarDtypes.map((d) => [d.name, d] as const))("%s: sum, product, extremes, truth", (_, dtype) => {
    const x = e.input(0, dtype);
    const wide = sumDtype(dtype);
    const values = noise(5 * 40, 17).map((v, i) => (dtype.kind === "bool" ? Number(v > 0 || i < 40) : dtype.isFloat ? v : dtype.kind === "unsigned" ? Math.round(Math.abs(20 * v)) : Math.round(20 * v)));
    for (let k = 0; k < 40; k++) values[40 + k] = dtype.kind === "bool" ? 0 : k % 3 === 0 ? 2 : 1;
    const input: RowInput = { dtype, values };
    const small = dtype.kind === "bool" ? x : e.select(e.eq(x, e.like(x, 2)), e.const(computeOf(wide), 2), e.const(computeOf(wide), 1));
    const reduces = [sum(x, wide), reduce("max", x, dtype), reduce("min", x, dtype), reduce("all", x, dt.bool), reduce("any", x, dt.bool), reduce("prod", small, wide)];
    const got = runRows(device, [5, 40], [input], reduces, reduces.map((r, k) => perRow(e.input(1 + k, r.dtype), r.dtype)));
    const rows = rowsOf([5, 40], input);
    const digits = dtype === dt.bfloat16 ? 2 ** -8 : dtype === dt.float16 ? 2 ** -10 : dtype === dt.float32 ? 1e-6 : dtype === dt.float64 ? 1e-15 : 0;
    expectClose(got[0] as Float64Array, rows.map((row) => total(row)), digits, 40 * digits * (dtype.size === 2 ? 0.01 : 1));
    expectClose(got[1] as Float64Array, rows.map((row) => Math.max(...row)), 0);
    expectClose(got[2] as Float64Array, rows.map((row) => Math.min(...row)), 0);
    expectClose(got[3] as Float64Array, rows.map((row) => Number(row.every((v) => v !== 0))), 0);
    expectClose(got[4] as Float64Array, rows.map((row) => Number(row.some((v) => v !== 0))), 0);
    expectClose(got[5] as Float64Array, rows.map((row) => row.reduce((p, v) => p * (dtype.kind === "bool" ? v : v === 2 ? 2 : 1), 1)), 0);
  });
  const computeOf = (d: dt.Dtype): Value["type"] => (d === dt.float64 ? "f64" : d.isFloat ? "f32" : d === dt.int64 ? "i64" : d === dt.uint64 ? "u64" : d === dt.uint32 ? "u32" : "i32");

  test("without subgroups, and rows smaller than a subgroup: through shared memory, with the same results", () => {
    const { reduces, value } = softmax(dt.float32);
    const x: RowInput = { dtype: dt.float32, values: noise(7 * 90, 40) };
    const want = rowsOf([7, 90], x).flatMap(softmaxRow);
    for (const force of [{ subgroups: false }, { across: 2, unroll: 4 }, { across: 128, subgroups: false }]) {
      const [got] = runRows(device, [7, 90], [x], reduces, [element(value, dt.float32)], { force });
      expectClose(got as Float64Array, want, 4e-6, 1e-9);
    }
  });
  test("more words than push constants take", () => {
    const shape = [2, 3, 2, 3, 24];
    const strides = [1, 4, 24, 96, 576];
    const inputs: RowInput[] = [0, 1, 2, 3].map((i) => ({ dtype: dt.float32, values: noise(576 * 24, 50 + i), strides: i === 0 ? strides : [4, 1, 24, 96, 576] }));
    const product = inputs.map((_, i) => e.input(i, dt.float32)).reduce<Value>((a, b) => e.mul(a, b), f32(1));
    const group = rowGroup(shape, inputs, [sum(product)], [perRow(e.input(4, dt.float32), dt.float32)]);
    expect(launchOf(device, group).steps[0]?.table).toBeDefined();
    const [got] = runRows(device, shape, inputs, group.reduces, group.outputs);
    const all = inputs.map((x) => rowsOf(shape, x));
    expectClose(got as Float64Array, (all[0] as number[][]).map((row, r) => total(row, (_, k) => all.reduce((p, rows) => p * ((rows[r] as number[])[k] as number), 1))), 1e-5);
  });
});
