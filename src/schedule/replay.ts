/**
 * Recorded evaluations: the command lists of a computation are kept and run again, with no graph, no planning and no allocation. What changes from
 * run to run (a token, a position, a length) lies in arrays that kernels read when they run, and that the caller overwrites in between.
 */
import { ArrayDesc, MxArray } from "../core/array.ts";
import { int32 } from "../core/dtype.ts";
import { env } from "../core/env.ts";
import { opError } from "../core/error.ts";
import { type GpuStep, gpuInput, gpuUpdate } from "../core/gpu.ts";
import type { Op } from "../core/op.ts";
import { Storage } from "../core/storage.ts";
import { vulkanBackend } from "../backend/vulkan/index.ts";
import type { CommandList } from "../backend/wasm/pool.ts";
import { wasmBackend } from "../backend/wasm/index.ts";
import { type ChooseParams, advanceOp, chooseOp } from "../ops/decode.ts";
import { storeNumbers } from "../ops/convert.ts";
import { readSwitches, routeGpu } from "./gate.ts";
import { type Kept, commandEnd, releaseKept } from "./record.ts";
import type { GpuRecorder } from "./record-gpu.ts";
import { descsOf, evaluate } from "./run.ts";

/** A computation that can run again over the same arrays. Its results are overwritten by each run. */
export class Recording {
  private readonly kept: Kept;
  /** Number of runs after the first. */
  runs = 0;
  private constructor(kept: Kept) {
    this.kept = kept;
  }
  /**
   * Evaluates the trees, like `eval`, and keeps the command lists. Everything that is not yet evaluated in them will be computed again by `run`:
   * from the same input arrays, into the same results. Arrays that are updated in place (a cache) must have no other user.
   */
  static evaluate(...trees: unknown[]): Recording {
    const kept: Kept = { lists: [], storages: [], written: new Set(), refused: undefined };
    try {
      evaluate(descsOf(trees), false, kept);
    } catch (error) {
      releaseKept(kept);
      throw error;
    }
    return new Recording(kept);
  }
  /** Like `evaluate`, for a step of a loop on the GPU: at its end the device itself prepares the next step, so that steps can be submitted ahead. */
  static loop(loop: LoopArrays, ...trees: unknown[]): Recording {
    const kept: Kept = { lists: [], storages: [], written: new Set(), refused: undefined };
    kept.after = (gpu) => closeLoop(gpu, loop, kept);
    try {
      evaluate(descsOf([loop.logits, loop.choice, trees]), false, kept);
    } catch (error) {
      releaseKept(kept);
      throw error;
    }
    return new Recording(kept);
  }
  /** False with MLX_REPLAY=0 or MLX_CHECK=1: callers then evaluate again instead of recording. */
  static get enabled(): boolean {
    return env("MLX_REPLAY") && !env("MLX_CHECK");
  }
  /** Why this computation can not run again; undefined when it can. */
  get refused(): string | undefined {
    return this.kept.refused;
  }
  /** Computes everything again. On the CPU it waits; on the GPU the work is only submitted, and reading a result waits. */
  run(): void {
    if (this.kept.refused !== undefined) throw opError("Recording", `can not run again: ${this.kept.refused}`);
    if (this.kept.lists.length === 0) throw opError("Recording", "was disposed");
    const { pool } = wasmBackend();
    for (const s of this.kept.written) s.yieldHost();
    for (const list of this.kept.lists) {
      if ("start" in list) pool.run(list);
      else list.backend.replay(list.list);
    }
    // Only what somebody else holds can be read.
    if (this.runs === 0) for (const s of this.kept.written) if (s.refs < 2) this.kept.written.delete(s);
    for (const s of this.kept.written) s.wroteDevice(true);
    this.runs++;
  }
  /** The work of the last run on the GPU: a value of its timeline. Undefined when the CPU runs it. */
  get submitted(): { readonly done: boolean; wait(): void } | undefined {
    const last = this.kept.lists[this.kept.lists.length - 1];
    return last && "list" in last ? last.backend.epoch(last.backend.last) : undefined;
  }
  /** Runs all commands one by one, `runs` times, and gives the number of commands and the milliseconds of one run by kernel. */
  profile(runs = 10): Map<string, { commands: number; ms: number }> {
    const { pool, memory } = wasmBackend();
    const words = new Int32Array(memory.memory.buffer, 0, Math.floor(memory.memory.buffer.byteLength / 4));
    const found = new Map<string, { commands: number; ms: number }>();
    for (let run = 0; run < runs; run++) {
      for (const list of this.kept.lists.filter((l): l is CommandList => "start" in l)) {
        for (let at = list.start, end = at; at !== list.end; at = end) {
          end = commandEnd(words, at / 4) * 4;
          const name = pool.modules.nameOf(words[at / 4] as number);
          const row = found.get(name) ?? { commands: 0, ms: 0 };
          const start = performance.now();
          pool.run({ start: at, end });
          row.ms += (performance.now() - start) / runs;
          row.commands += 1 / runs;
          found.set(name, row);
        }
      }
    }
    return found;
  }
  /** Gives the buffers back. Results that are still in use stay valid. */
  dispose(): void {
    releaseKept(this.kept);
  }
}

/** What a step of a loop on the GPU reads and leaves behind. */
export interface LoopArrays {
  /** int32 (4): token, position, length (= position + 1) and number of the step. The step's work reads them, the next step finds the next values. */
  readonly state: MxArray;
  /** int32: tokens by number of step, a ring in memory that the host sees (`loopHistory`). */
  readonly history: MxArray;
  readonly logits: MxArray;
  /** The logits of the last two steps, by parity of the step's number: (2, row), rows of whole 4-byte words. */
  readonly kept: MxArray;
  /** The greatest logit or a draw of all of them (as `chooseToken`), or the token that other ops of the step chose: one int32 or uint32. */
  readonly choice: ChooseParams | MxArray;
}

function closeLoop(gpu: GpuRecorder, loop: LoopArrays, recording: Kept): void {
  const [state, history, logits, kept] = [loop.state.desc, loop.history.desc, loop.logits.desc, loop.kept.desc];
  const words = loop.kept.nbytes / 8;
  const keep: GpuStep = { shader: "replay/keep", buffers: [gpuInput(0), gpuInput(1), gpuUpdate(0)], words: [words], groups: [Math.min(256, Math.ceil(words / 256)), 1, 1] };
  const refused: string[] = [];
  if (gpu.ready({ steps: [keep] }, "vulkan/replay/keep", refused)) gpu.launch({ steps: [keep] }, [logits, state], [kept], "vulkan/replay/keep");
  const { choice } = loop;
  const [op, first, params] = choice instanceof MxArray ? [advanceOp.op, choice.desc, {}] : [chooseOp.op as Op, logits, choice];
  const inputs = [first, state, history];
  const kernel = refused.length === 0 ? routeGpu(op, inputs, params, [state, history], readSwitches(), gpu.backend.device, refused) : undefined;
  const launch = kernel?.launch(inputs, [state, history], params, gpu.backend.device);
  if (!kernel || !launch || !gpu.ready(launch, kernel.name, refused)) {
    recording.refused ??= refused.join("; ");
    return;
  }
  gpu.launch(launch, inputs, [state, history], kernel.name);
  gpu.backend.hostReads(gpu.backend.resident(history.storage as Storage));
}

/** An int32 array of the GPU that the host reads without a copy: element `i` is right once the step that wrote it is done. */
export function loopHistory(size: number): { readonly array: MxArray; at(i: number): number } {
  const backend = vulkanBackend();
  const block = backend.block(4 * size, 2);
  const desc = ArrayDesc.lazy([size], int32);
  desc.attach(new Storage(4 * size, block));
  const cell = new Int32Array(1);
  const at = (i: number): number => {
    if (backend.lost) throw backend.lost;
    backend.addon.readBuffer(block.memory.buffer, block.memory.offset + 4 * (i % size), cell);
    return cell[0] as number;
  };
  return { array: new MxArray(desc), at };
}

/** Overwrites the elements of an evaluated, contiguous array, so that recordings that read it see the new values. Needs as many values as elements. */
export function overwrite(a: MxArray, values: { readonly [i: number]: number; readonly length: number }): void {
  const d: ArrayDesc = a.desc;
  if (!d.storage || !d.contiguous) throw opError("overwrite", "needs an evaluated, contiguous array");
  if (values.length !== d.size) throw opError("overwrite", `needs ${d.size} values, got ${values.length}`);
  d.epoch?.wait();
  const bytes = new Uint8Array(d.size * d.dtype.size);
  storeNumbers(bytes, d.dtype, d.size, (i) => values[i] as number);
  d.storage.write(d.offset * d.dtype.size, bytes);
}
