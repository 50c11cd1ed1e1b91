/** Compares generated kernels on the device with the WebAssembly kernels of the same group. */
import { lower } from "../../src/codegen/lower.ts";
import { isRelaxed, setRelaxed } from "../../src/codegen/wasm.ts";
import { type Dtype, float16, float32 } from "../../src/core/dtype.ts";
import { type Value, reachable } from "../../src/core/expr.ts";
import { type TestInput, decode, encode, runGroup } from "./group.ts";
import { type TestDevice, runOnDevice } from "./vulkan.ts";

export interface Output {
  readonly dtype: Dtype;
  readonly value: Value;
}
export interface SameOptions {
  readonly over?: number;
  readonly lanes?: number;
  readonly aligned?: false;
  readonly tiled?: boolean;
  /** Units in the last place that a result may be off where the device does not round division and square root correctly (each is within 3). */
  readonly ulps?: number;
}
const lavapipe = 0x10005;

/** A device that may flush subnormal float32 numbers to zero may also do so between the steps of a function: each time that leaves less than this. */
const leastNormal = 2 ** -126;
/** True when the result is the same on every device: nothing in it is divided and no root is taken in float32. */
const isExact = (o: Output): boolean => !reachable(lower([o], { division32: true, subnormals: false }).map((x) => x.value)).some((v) => (v.op === "div" || v.op === "sqrt") && v.type === "f32");

/** Distance of neighbours of x in a float dtype. */
function ulp(dtype: Dtype, x: number): number {
  const [digits, least] = dtype === float16 ? [10, -14] : dtype === float32 ? [23, -126] : dtype.size === 2 ? [7, -126] : [52, -1022];
  return 2 ** (Math.max(least, Math.floor(Math.log2(Math.abs(x)))) - digits);
}

/** Bits of both must be equal, any NaN for any NaN; a subnormal float32 may be 0 where the device does not promise to keep them. Elsewhere than on lavapipe divisions and roots may be a little off. */
export function same(device: TestDevice, shape: readonly number[], inputs: readonly TestInput[], outputs: readonly Output[], options: SameOptions = {}): void {
  const { over, ulps = 3 } = options;
  // Devices round each multiplication and each addition, so the kernels that do the same are compared.
  const relaxed = isRelaxed();
  setRelaxed(false);
  const wanted = runGroup(shape, inputs, outputs, over === undefined ? {} : { over });
  setRelaxed(relaxed);
  const got = runOnDevice(device, shape, inputs, outputs, options);
  const flushes = !device.info.features.denormPreserveFloat32;
  outputs.forEach((o, j) => {
    const { dtype } = o;
    const [w, g] = [wanted[j] as unknown as ArrayLike<number | bigint>, got[j] as unknown as ArrayLike<number | bigint>];
    if (g.length !== w.length) throw new Error(`output ${j} has ${g.length} elements, expected ${w.length}`);
    const exact = device.info.vendorId === lavapipe || !dtype.isFloat || isExact(o);
    const [wv, gv] = dtype.isFloat ? [decode(dtype, w), decode(dtype, g)] : [w, g];
    for (let i = 0; i < w.length; i++) {
      const [x, y] = [wv[i] as number | bigint, gv[i] as number | bigint];
      if (Object.is(x, y)) continue;
      if (dtype === float32 && flushes && (Math.abs(Number(x)) < leastNormal ? Number(y) === 0 : Math.abs(Number(x) - Number(y)) < leastNormal)) continue;
      if (!exact && Math.abs(Number(x) - Number(y)) <= (dtype.size === 2 ? 1 : ulps) * ulp(dtype, Number(x))) continue;
      throw new Error(`output ${j} (${dtype}), element ${i}: ${y} on the device, ${x} on the CPU (${JSON.stringify({ shape, ...options })})`);
    }
  });
}
export const row = (dtype: Dtype, values: readonly (number | bigint)[]): TestInput => ({ dtype, strides: [1], data: encode(dtype, values) });
