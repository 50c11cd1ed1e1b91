/** Elements of one dimension by lists of indices: the fast kernel engages, and gives the bits of the general one and of a plain loop. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { core as mx } from "../src/index.ts";
import { addTracer } from "../src/schedule/run.ts";

afterEach(() => vi.unstubAllEnvs());

/** What `take` gives, and the kernel that did it. */
function taken(x: mx.MxArray, ids: mx.MxArray): { values: unknown; kernel: string | undefined } {
  let kernel: string | undefined;
  const remove = addTracer({ recorded: (node, name) => void (node.op.name === "gather" && (kernel = name)) });
  try {
    using _ = mx.stream(mx.cpu);
    const y = mx.take(x, ids);
    return { values: y.astype(mx.float64).tolist(), kernel };
  } finally {
    remove();
  }
}
const source = Float32Array.from({ length: 1000 }, (_, i) => Math.fround(Math.sin(i) * 100));
/** Negative indices, the ends, and lengths around the four that the loop does at once. */
const indices = (n: number): number[] => Array.from({ length: n }, (_, i) => [0, -1, 999, -1000, (i * 7919) % 1000, -((i * 31) % 1000) - 1][i % 6] as number);

describe("gather/run", () => {
  test.each([1, 3, 4, 5, 8, 1003, 40_001])("%i int32 indices", (n) => {
    const list = indices(n);
    const x = mx.array(source);
    const ids = mx.array(Int32Array.from(list));
    const fast = taken(x, ids);
    vi.stubEnv("MLX_DISABLE", "wasm/gather/run");
    const slow = taken(x, ids);
    expect([fast.kernel, slow.kernel]).toEqual(["wasm/gather/run", "wasm/gather/gather"]);
    expect(fast.values).toEqual(list.map((i) => source[i < 0 ? i + 1000 : i]));
    expect(fast.values).toEqual(slow.values);
  });
  test.each(["uint8", "int16", "float16", "float32", "int64", "complex64"] as const)("elements of %s, reversed, by a transposed table of uint32", (name) => {
    const x = mx.arange(0, 100, 1, mx.int32).astype(mx[name]).index(mx.Slice(undefined, undefined, -3));
    const ids = mx.array(Uint32Array.from({ length: 12 }, (_, i) => (i * 5) % 34)).reshape([3, 4]).T;
    const real = (): unknown => mx.real(mx.take(x, ids, undefined, mx.cpu)).tolist();
    const fast = real();
    vi.stubEnv("MLX_DISABLE", "wasm/gather/run");
    expect(real()).toEqual(fast);
    expect(fast).toEqual(Array.from({ length: 4 }, (_, r) => Array.from({ length: 3 }, (_, c) => 99 - 3 * (((4 * c + r) * 5) % 34))));
  });
  test("indices outside go to the nearest element, also those that are no int32", () => {
    const x = mx.array(source);
    const last = source[999];
    expect(taken(x, mx.array(Int32Array.of(5000, -5000, 0x7fffffff, -0x80000000, 1000))).values).toEqual([last, source[0], last, source[0], last]);
    expect(taken(x, mx.array(Uint32Array.of(0xffffffff, 0x80000000, 5000, 999, 0))).values).toEqual([last, last, last, last, source[0]]);
  });
  test("other index types and more dimensions are left to the general kernel", () => {
    const x = mx.array(source);
    expect(taken(x, mx.array(Int16Array.of(3, -1))).kernel).toBe("wasm/gather/gather");
    expect(taken(x.reshape([10, 100]).index(mx.Slice(), 3), mx.array(Int32Array.of(3, -1))).values).toEqual([source[303], source[903]]);
  });
});
