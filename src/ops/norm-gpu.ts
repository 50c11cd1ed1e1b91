/** GPU kernels of rmsNorm and layerNorm, and how kernels over rows are laid out on the device. */
import type { View } from "../core/array.ts";
import { type GpuDevice, type GpuKernel, type GpuPointer, floatWord, gpuInput, gpuOutput, halfNeeds, spreadGroups } from "../core/gpu.ts";
import type { InputLayout } from "../core/op.ts";

const suffix: Readonly<Record<string, string>> = { float32: "f32", float16: "f16", bfloat16: "bf16" };
export const floatSuffix = (v: View): string | undefined => suffix[v.dtype.name];

/** Vectors of four elements that an invocation keeps in registers (`kept` in the shaders). */
const kept = 4;
/** Rows from which on there are workgroups enough to fill a large device with one row each. */
const manyRows = 256;

export interface RowPlan {
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** Each subgroup has rows of its own; otherwise a workgroup has one row. */
  readonly bySubgroup: boolean;
  readonly rowsPerGroup: number;
  readonly groups: readonly [number, number, number];
}
/** Smallest power of two that is not less. */
const powerOfTwo = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, n)));

export function planRows(rows: number, width: number, device: GpuDevice): RowPlan {
  const vectors = Math.ceil(width / 4);
  const sub = device.subgroupSize;
  if (sub > 1 && vectors <= kept * sub && rows > 1) {
    const lanes = Math.max(128, sub);
    const rowsPerGroup = lanes / sub;
    return { lanes, bySubgroup: true, rowsPerGroup, groups: spreadGroups(Math.ceil(rows / rowsPerGroup)) };
  }
  // With few rows each has as many invocations as it has vectors; with many, fewer invocations keep more in flight each.
  const wanted = powerOfTwo(rows < manyRows ? vectors : vectors / kept);
  return { lanes: Math.min(512, Math.max(64, wanted)), bySubgroup: false, rowsPerGroup: 1, groups: spreadGroups(rows) };
}
/** Whether the rows can be read four elements at a time: all begin and end at multiples of four. */
export const wholeRows = (width: number, views: readonly View[], strides: readonly number[] = []): boolean =>
  width % 4 === 0 && views.every((v) => v.offset % 4 === 0) && strides.every((s) => s % 4 === 0);

interface NormParams {
  readonly eps: number;
  readonly weight: boolean;
  readonly bias: boolean;
}
interface Walk {
  readonly inner: number;
  readonly outerStride: number;
  readonly innerStride: number;
}
/** Where row r begins: (r / inner) * outerStride + (r % inner) * innerStride; undefined when its dimensions do not merge to two. */
function walkOf(x: View): Walk | undefined {
  const n = x.shape[x.shape.length - 1] as number;
  if (x.contiguous) return { inner: Math.max(1, x.size / n), outerStride: 0, innerStride: n };
  const dims: { size: number; stride: number }[] = [];
  for (let i = 0; i < x.shape.length - 1; i++) {
    const [size, stride] = [x.shape[i] as number, x.strides[i] as number];
    if (size === 1) continue;
    const last = dims[dims.length - 1];
    if (last && last.stride === size * stride) Object.assign(last, { size: last.size * size, stride });
    else dims.push({ size, stride });
  }
  if (dims.length > 2 || dims.some((d) => d.stride < 0)) return undefined;
  const last = dims[dims.length - 1];
  return { inner: last?.size ?? 1, outerStride: dims.length > 1 ? (dims[0]?.stride ?? 0) : 0, innerStride: last?.stride ?? 0 };
}
/** Elements that indices must reach, from the first one of the view on. */
export const reachOf = (v: View): number => v.shape.reduce((n, s, i) => n + (s - 1) * Math.max(0, v.strides[i] as number), 1);

function launch(name: "rms" | "layer", inputs: readonly View[], out: View, params: NormParams, device: GpuDevice): ReturnType<GpuKernel["launch"]> {
  const x = inputs[0] as View;
  const width = x.shape[x.shape.length - 1] as number;
  const rows = x.size / width;
  const { inner, outerStride, innerStride } = walkOf(x) as Walk;
  const plan = planRows(rows, width, device);
  const whole = wholeRows(width, [...inputs, out], [outerStride, innerStride]);
  const weight: GpuPointer = gpuInput(params.weight ? 1 : 0);
  const bias: GpuPointer = gpuInput(params.bias ? (params.weight ? 2 : 1) : 0);
  return {
    steps: [
      {
        shader: `norm/${name}_${floatSuffix(x)}`,
        constants: [plan.lanes, Number(plan.bySubgroup), Number(whole), Number(params.weight), Number(params.bias)],
        buffers: [gpuInput(0), weight, bias, gpuOutput(0)],
        words: [rows, width, plan.rowsPerGroup, inner, outerStride, innerStride, floatWord(params.eps)],
        groups: plan.groups,
      },
    ],
  };
}

const anyRows: readonly InputLayout[] = ["last", "row"];
const allRows: readonly InputLayout[] = ["row"];
export const gpuNorm = (name: "rms" | "layer"): readonly GpuKernel<NormParams>[] => [
  {
    name: `vulkan/norm/${name}`,
    layout: ([x]) => (walkOf(x as View) ? anyRows : allRows),
    inPlace: [0],
    gate: {
      typeNeeds: halfNeeds,
      ...(name === "rms" ? { env: "MLX_VK_ENABLE_RMSNORM_NATIVE" as const } : {}),
      refuse: ([x]) => {
        const v = x as View;
        if (!floatSuffix(v)) return `cannot: dtype ${v.dtype}`;
        return v.size >= 2 ** 31 || (walkOf(v) && reachOf(v) >= 2 ** 32) ? "cannot: more than 2^31 elements" : undefined;
      },
    },
    launch: (inputs, [out], params, device) => launch(name, inputs, out as View, params, device),
  },
];
