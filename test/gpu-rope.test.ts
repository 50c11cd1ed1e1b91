import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import * as dt from "../src/core/dtype.ts";
import { fixedTurns } from "../src/ops/rope-gpu.ts";
import { type TestArray, testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

test("turns in fixed point, modulo one turn", () => {
  expect(fixedTurns(0.25)).toEqual([0, 0x40000000]);
  expect(fixedTurns(-0.25)).toEqual([0, 0xc0000000]);
  expect(fixedTurns(3 + 2 ** -40)).toEqual([2 ** 24, 0]);
  expect(fixedTurns(-(2 ** -40))).toEqual([2 ** 32 - 2 ** 24, 0xffffffff]);
});

describe.skipIf(skipReason)("rope on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  const wave = (n: number): number[] => Array.from({ length: n }, (_, i) => Math.sin(i * 1.7) + Math.cos(i * 0.3));
  const dense = (dtype: dt.Dtype, shape: readonly number[]): TestArray => ({ dtype, shape, values: wave(shape.reduce((a, b) => a * b, 1)) });
  const plain = { dims: 64, traditional: false, base: 10000, scale: 1, offset: 0, freqs: false };
  const run = (x: TestArray, params: object, more: readonly TestArray[] = [], tolerance = { relative: 0, absolute: 1e-6 }): void => {
    expect(testKernel(device, "rope", [x, ...more], { ...plain, ...params }, tolerance)).toEqual(["vulkan/rope/rope"]);
  };
  // A result of a 16-bit type is rounded once.
  const rounded = { f32: { relative: 0, absolute: 1e-6 }, f16: { relative: 2 ** -10, absolute: 1e-6 }, bf16: { relative: 2 ** -8, absolute: 1e-6 } };
  for (const [dtype, tolerance] of [[dt.float32, rounded.f32], [dt.float16, rounded.f16], [dt.bfloat16, rounded.bf16]] as const)
    test(`${dtype}: pairs of either kind, all or some of a row`, () => {
      for (const traditional of [false, true]) {
        run(dense(dtype, [2, 3, 5, 64]), { traditional }, [], tolerance);
        run(dense(dtype, [1, 2, 7, 80]), { traditional, offset: 11 }, [], tolerance);
        for (const [dims, width] of [[2, 2], [6, 6], [10, 13], [8, 64], [62, 64]] as const) run(dense(dtype, [2, 2, 3, width]), { traditional, dims, offset: 5 }, [], tolerance);
      }
    });
  test("angles stay exact far out, for negative positions and scales", () => {
    for (const offset of [131071, 1_000_003, 2 ** 31 - 8, -77, -(2 ** 30)]) run(dense(dt.float32, [1, 2, 3, 64]), { offset }, [], { relative: 0, absolute: 2e-6 });
    for (const scale of [0.25, -1, 3.7, 1e-9, -1e-3]) run(dense(dt.float32, [1, 2, 3, 64]), { offset: 4097, scale }, [], { relative: 0, absolute: 2e-6 });
    for (const base of [1, 2, 5e5, 1e6]) run(dense(dt.float32, [1, 2, 3, 64]), { offset: 40000, base }, [], { relative: 0, absolute: 2e-6 });
  });
  test("offsets from an array: one, or one per batch entry", () => {
    const one: TestArray = { dtype: dt.int32, shape: [], values: [9] };
    const each: TestArray = { dtype: dt.int32, shape: [3], values: [4, -2, 100] };
    run(dense(dt.float32, [3, 2, 5, 64]), { offset: undefined }, [one]);
    run(dense(dt.float32, [3, 2, 5, 64]), { offset: undefined }, [each]);
    run(dense(dt.float32, [3, 2, 1, 64]), { offset: undefined, traditional: true }, [each]);
  });
  test("frequencies from an array", () => {
    const values = Array.from({ length: 32 }, (_, i) => [1, 1e-3, 0.5, 3, 7.25, 1e4, 123456, 1e7, 1e10, 1e30, -2, 1.5e-5][i % 12] as number);
    const freqs: TestArray = { dtype: dt.float32, shape: [32], values };
    run(dense(dt.float32, [2, 3, 5, 64]), { freqs: true, offset: 3 }, [freqs], { relative: 0, absolute: 2e-6 });
    run(dense(dt.float32, [2, 3, 5, 64]), { freqs: true, offset: 3, scale: -0.37, traditional: true }, [freqs], { relative: 0, absolute: 2e-6 });
    const models: TestArray = { dtype: dt.float32, shape: [32], values: Array.from({ length: 32 }, (_, i) => 500000 ** (i / 32) * (i > 20 ? 8 : 1)) };
    run(dense(dt.float32, [1, 3, 2, 64]), { freqs: true, offset: 131071 }, [models], { relative: 0, absolute: 2e-6 });
    run(dense(dt.float32, [2, 3, 1, 64]), { freqs: true, offset: undefined }, [{ dtype: dt.int32, shape: [2], values: [7, 1234] }, models], { relative: 0, absolute: 2e-6 });
  });
  test("strided heads and sequences, odd offsets, five dimensions", () => {
    const [B, H, L, D] = [2, 3, 4, 64];
    const tolerance = rounded.bf16;
    run({ dtype: dt.bfloat16, shape: [B, H, L, D], strides: [L * H * D, D, H * D, 1], values: wave(B * H * L * D) }, {}, [], tolerance);
    run({ dtype: dt.bfloat16, shape: [B, H, L, D], strides: [L * H * D, D, H * D, 1], offset: 1, values: wave(B * H * L * D + 1) }, { traditional: true, offset: 3 }, [], tolerance);
    // The second of two halves of a projection.
    run({ dtype: dt.bfloat16, shape: [B, H, L, D], strides: [L * H * 2 * D, 2 * D, H * 2 * D, 1], offset: D, values: wave(2 * B * H * L * D) }, {}, [], tolerance);
    run(dense(dt.bfloat16, [2, 2, 3, 4, 64]), {}, [], tolerance);
    run(dense(dt.bfloat16, [2, 4, 64]), {}, [], tolerance);
  });
  test("several heads for each invocation", () => {
    run(dense(dt.bfloat16, [1, 11, 24000, 8]), { dims: 8, offset: 2 }, [], rounded.bf16);
  });
});
