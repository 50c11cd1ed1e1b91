/** GPU kernels of softmax and logsumexp. */
import type { View } from "../core/array.ts";
import { type GpuDevice, type GpuKernel, type GpuLaunch, type GpuStep, gpuInput, gpuOutput, gpuScratchIn, gpuScratchOut, halfNeeds, spreadGroups } from "../core/gpu.ts";
import { floatSuffix, planRows, wholeRows } from "./norm-gpu.ts";

const refuse = ([x]: readonly View[]): string | undefined => {
  if (!floatSuffix(x as View)) return `cannot: dtype ${(x as View).dtype}`;
  return (x as View).size >= 2 ** 31 ? "cannot: more than 2^31 elements" : undefined;
};

/** Rows longer than this are cut when there are too few to fill the device. */
const longRow = 8192;
const fewRows = 64;
/** Workgroups that fill a large device, and the shortest chunk that is worth one. */
const groupsWanted = 256;
const shortestChunk = 1024;
const chunkLanes = 256;

function launchChunks(x: View, out: View, log: boolean): GpuLaunch {
  const width = x.shape[x.shape.length - 1] as number;
  const rows = x.size / width;
  const id = floatSuffix(x) as string;
  const unit = 4 * chunkLanes;
  const chunk = Math.max(shortestChunk, Math.ceil((width * rows) / groupsWanted / unit) * unit);
  const chunks = Math.ceil(width / chunk);
  const constants = [chunkLanes, Number(wholeRows(width, log ? [x] : [x, out]))];
  const words = [rows, width, chunk, chunks];
  const step = (name: string, part: boolean): GpuStep => ({
    shader: `softmax/${name}_${id}`,
    constants,
    buffers: [gpuInput(0), part ? gpuInput(0) : gpuOutput(0), part ? gpuScratchOut(0) : gpuScratchIn(0)],
    words,
    groups: spreadGroups(log && !part ? rows : rows * chunks),
  });
  return { steps: [step(log ? "part_log" : "part", true), step(log ? "log" : "scale", false)], scratch: [rows * chunks * 8] };
}

function launch(x: View, out: View, log: boolean, device: GpuDevice): GpuLaunch {
  const width = x.shape[x.shape.length - 1] as number;
  const rows = x.size / width;
  if (width > longRow && rows <= fewRows) return launchChunks(x, out, log);
  const plan = planRows(rows, width, device);
  return {
    steps: [
      {
        shader: `softmax/${log ? "logsumexp" : "softmax"}_${floatSuffix(x)}`,
        constants: [plan.lanes, Number(plan.bySubgroup), Number(wholeRows(width, log ? [x] : [x, out]))],
        buffers: [gpuInput(0), gpuOutput(0)],
        words: [rows, width, plan.rowsPerGroup],
        groups: plan.groups,
      },
    ],
  };
}

export const gpuSoftmax: readonly GpuKernel[] = [
  { name: "vulkan/softmax/softmax", inPlace: [0], gate: { typeNeeds: halfNeeds, refuse }, launch: ([x], [out], _params, device) => launch(x as View, out as View, false, device) },
];
export const gpuLogsumexp: readonly GpuKernel[] = [
  { name: "vulkan/softmax/logsumexp", gate: { typeNeeds: halfNeeds, refuse }, launch: ([x], [out], _params, device) => launch(x as View, out as View, true, device) },
];
