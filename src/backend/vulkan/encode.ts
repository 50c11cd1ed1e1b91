/** Turns the steps of a launch into dispatches of a command stream: pipelines, push constants, declared accesses. */
import type { GpuLaunch, GpuPointer, GpuStep } from "../../core/gpu.ts";
import type { Allocation } from "./memory.ts";
import type { CommandStream, Range } from "./commands.ts";
import type { Pipelines } from "./pipelines.ts";
import { shaderCode } from "./shaders.ts";

/** Where an operand lies: the memory it belongs to, and the byte of its first element in it. */
export interface Placed {
  readonly memory: Allocation;
  readonly bytes: number;
}
/** Memory for words that a kernel reads: writes them and says where. */
export type WordSpace = (words: readonly number[]) => Placed;

/** Push constants that every device takes, in bytes. */
const pushLimit = 128;

/** Names the pipeline of a step: everything that goes into its making. */
export const pipelineKey = (step: GpuStep, pushBytes: number): string =>
  `${typeof step.shader === "string" ? step.shader : step.shader.key}|${step.constants?.join(",") ?? ""}|${step.subgroupSize ?? ""}|${pushBytes}`;

/** Bytes that so many words take in a `WordSpace`. */
export const wordBytes = (count: number): number => Math.ceil((4 * count) / 16) * 16;
/** Bytes of a `WordSpace` that a launch takes: its tables, and two words for each operand that is a constant. */
export function tableBytes(launch: GpuLaunch, constant: (p: GpuPointer) => boolean): number {
  let bytes = 0;
  for (const step of launch.steps) {
    if (step.table) bytes += wordBytes(step.table.length);
    for (const p of step.buffers) if (constant(p)) bytes += wordBytes(2);
  }
  return bytes;
}
export const pushBytesOf = (step: GpuStep): number => 8 * (step.buffers.length + (step.table ? 1 : 0)) + 4 * step.words.length;

export function pipelineOf(pipelines: Pipelines, step: GpuStep, pushBytes: number): number {
  const { shader, constants, subgroupSize } = step;
  // Steps are described once and launched many times (schedule/launches.ts); their keys are long texts.
  const known = pipelines.ofSteps.get(step);
  if (known !== undefined) return known;
  const pipeline = pipelines.get(pipelineKey(step, pushBytes), {
    code: () => (typeof shader === "string" ? shaderCode(shader) : shader.code(shader.base === undefined ? undefined : shaderCode(shader.base))),
    pushBytes,
    ...(constants ? { constants: Uint32Array.from(constants.flatMap((c, i) => [i, c >>> 0])) } : {}),
    // A workgroup of 256 may not demand subgroups of less than 8 (at most 32 of a demanded size are portable); a device that has such has no others.
    ...(subgroupSize === undefined || subgroupSize < 8 ? {} : { subgroupSize }),
  });
  pipelines.ofSteps.set(step, pipeline);
  return pipeline;
}

const rangeOf = (m: Allocation): Range => ({ buffer: m.buffer, offset: m.offset, bytes: m.bytes });

/** Appends the dispatches of a launch. `place` finds operands, `words` takes what does not fit the push constants. Returns their number. */
export function encodeLaunch(
  stream: CommandStream,
  pipelines: Pipelines,
  launch: GpuLaunch,
  place: (pointer: GpuPointer) => Placed,
  words: WordSpace,
  name: string,
): number {
  let count = 0;
  for (const step of launch.steps) {
    const [x, y, z] = step.groups;
    if (x === 0 || y === 0 || z === 0) continue;
    const push: number[] = [];
    const reads: Range[] = [];
    const writes: Range[] = [];
    const address = (p: Placed): void => {
      // Exact: addresses have at most 48 bits or so.
      const at = p.memory.low + p.memory.high * 2 ** 32 + p.bytes;
      push.push(at % 2 ** 32, Math.floor(at / 2 ** 32));
    };
    for (const pointer of step.buffers) {
      const p = place(pointer);
      address(p);
      const range = rangeOf(p.memory);
      if (pointer.access !== "write") reads.push(range);
      if (pointer.access !== "read") writes.push(range);
    }
    if (step.table) address(words(step.table));
    push.push(...step.words);
    if (4 * push.length > pushLimit) throw new Error(`[vulkan] ${name}: ${4 * push.length} bytes of push constants, ${pushLimit} are portable`);
    stream.dispatch(pipelineOf(pipelines, step, 4 * push.length), step.groups, push, reads, writes, name);
    count++;
  }
  return count;
}
