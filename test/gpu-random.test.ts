/** Random bits on the GPU: equal to the reference, bit for bit. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import "../src/mx.ts";
import { uint32 } from "../src/core/dtype.ts";
import { testKernel } from "./helpers/gpu.ts";
import { type TestDevice, closeTestDevice, openTestDevice, skipReason } from "./helpers/vulkan.ts";

const exact = { relative: 0, absolute: 0 };

describe.skipIf(skipReason)("random bits on the GPU", () => {
  let device: TestDevice;
  beforeAll(() => {
    device = openTestDevice();
  });
  afterAll(() => closeTestDevice(device));

  test("every width, odd and even numbers of words", () => {
    for (const width of [1, 2, 4])
      for (const shape of [[], [1], [2], [3], [5, 7], [4, 64], [1025], [3000]])
        for (const keys of [[1, 2], [0xffffffff, 0x12345678]]) expect(testKernel(device, "randomBits", [{ dtype: uint32, shape: [2], values: keys }], { shape, width }, exact)).toEqual(["vulkan/random/bits"]);
  });
  test("several keys", () => {
    const keys = Array.from({ length: 14 }, (_, i) => Math.imul(i + 1, 0x9e3779b9) >>> 0);
    for (const width of [1, 2, 4])
      for (const shape of [[1], [3], [40], [333]]) expect(testKernel(device, "randomBits", [{ dtype: uint32, shape: [7, 2], values: keys }], { shape, width }, exact)).toEqual(["vulkan/random/bits"]);
  });
  test("keys that are known", () => {
    for (const words of [[0, 7], [0xffffffff, 0x80000000]]) expect(testKernel(device, "randomKey", [], { words }, exact)).toEqual(["vulkan/random/key"]);
  });
});
