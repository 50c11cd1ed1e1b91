/** Row groups on the device, between guard bytes, and plain float64 references of rows. */
import { rowsSpirv, type RowOptions } from "../../src/codegen/rows-spirv.ts";
import type { RowGroup, RowOutput, RowReduce } from "../../src/codegen/rows.ts";
import type { Dtype } from "../../src/core/dtype.ts";
import { type Value, expr } from "../../src/core/expr.ts";
import type { GpuLaunch } from "../../src/core/gpu.ts";
import { rowStrides, sizeOf } from "../../src/core/shape.ts";
import { gpuDevice, runKernel } from "./gpu.ts";
import { decode, encode } from "./group.ts";
import type { TestDevice } from "./vulkan.ts";

export interface RowInput {
  readonly dtype: Dtype;
  /** The whole block; rounded to the dtype. */
  readonly values: readonly number[];
  /** By dimension of the group; default row-major. */
  readonly strides?: readonly number[];
  readonly offset?: number;
}
export const rowGroup = (shape: readonly number[], inputs: readonly RowInput[], reduces: readonly RowReduce[], outputs: readonly RowOutput[]): RowGroup => ({
  shape,
  inputs: inputs.map((x) => ({ dtype: x.dtype, strides: x.strides ?? rowStrides(shape) })),
  reduces,
  outputs,
  expr,
});
export const element = (value: Value, dtype: Dtype): RowOutput => ({ value, dtype, perRow: false });
export const perRow = (value: Value, dtype: Dtype): RowOutput => ({ value, dtype, perRow: true });

export function launchOf(device: TestDevice, group: RowGroup, options: RowOptions = {}): GpuLaunch {
  const launch = rowsSpirv(group, gpuDevice(device.info), options);
  if (typeof launch === "string") throw new Error(launch);
  return launch;
}
/** Runs the group; the elements of each output. Operands are declared aligned when they are. */
export function runRows(device: TestDevice, shape: readonly number[], inputs: readonly RowInput[], reduces: readonly RowReduce[], outputs: readonly RowOutput[], options: RowOptions = {}): Float64Array[] {
  const group = rowGroup(shape, inputs, reduces, outputs);
  const aligned = options.aligned ?? [...inputs.map((x) => ((x.offset ?? 0) * x.dtype.size) % 16 === 0), ...outputs.map(() => true)];
  const rows = sizeOf(shape.slice(0, -1));
  return runKernel(
    device,
    { name: "vulkan/rows", launch: () => launchOf(device, group, { ...options, aligned }) },
    inputs.map((x) => ({ dtype: x.dtype, shape: [x.values.length - (x.offset ?? 0)], values: x.values, offset: x.offset ?? 0 })),
    outputs.map((o) => ({ dtype: o.dtype, shape: o.perRow ? [rows] : shape })),
    {},
  );
}
/** Rows of an input as the kernel sees them: rounded to its dtype. */
export function rowsOf(shape: readonly number[], x: RowInput): number[][] {
  const block = decode(x.dtype, encode(x.dtype, x.values)).map(Number);
  const strides = x.strides ?? rowStrides(shape);
  const length = shape[shape.length - 1] ?? 1;
  return Array.from({ length: sizeOf(shape) / length }, (_, r) =>
    Array.from({ length }, (_, k) => {
      let at = (x.offset ?? 0) + k * (strides[shape.length - 1] ?? 0);
      let rest = r;
      for (let d = shape.length - 2; d >= 0; d--) {
        at += (rest % (shape[d] as number)) * (strides[d] as number);
        rest = Math.floor(rest / (shape[d] as number));
      }
      return block[at] as number;
    }),
  );
}
/** |got - want| <= absolute + relative * |want|, and NaN for NaN. */
export function expectClose(got: ArrayLike<number>, want: readonly number[], relative: number, absolute = relative): void {
  if (got.length !== want.length) throw new Error(`${got.length} elements, expected ${want.length}`);
  want.forEach((w, i) => {
    const g = got[i] as number;
    if (g === w || (Number.isNaN(g) && Number.isNaN(w))) return;
    if (!(Math.abs(g - w) <= absolute + relative * Math.abs(w))) throw new Error(`element ${i} is ${g}, expected ${w}`);
  });
}
/** Numbers between -2 and 2 without a pattern. */
export function noise(n: number, seed = 1): number[] {
  let state = seed >>> 0;
  return Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 30 - 2;
  });
}
